"""The types that every constraint state is made of, as the checker sees them: clock, counts, constraints, position."""

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from constraint_crdt.core.cells import ADD, COUNTS, POSITION
from constraint_crdt.core.clock import VectorClock
from constraint_crdt.core.replica import Replica
from constraint_crdt.testing.adversarial import IDS, WHENS, wild
from constraint_crdt.testing.description import Laws, in_place
from constraint_crdt.testing.over_rows import REPLICAS, over_rows, rows_of
from constraint_crdt.types.counter import ConstraintGCounter
from constraint_crdt.types.orset import ConstraintORSet
from constraint_crdt.types.register import EisensteinRegister

ids = st.sampled_from(("x", "x", "y"))
"""One more often than the other, so that it is added and removed, and by several."""
counts = st.tuples(st.sampled_from((None, *IDS)), st.integers(0, 3), st.integers(0, 3))
moves = st.tuples(st.integers(-2, 2), st.integers(-2, 2), st.integers(0, 3))
edits = st.one_of(st.tuples(st.just("add"), ids, st.sampled_from(WHENS)), st.tuples(st.just("remove"), ids), st.just(("collect",)))

# --- clock -------------------------------------------------------------------------------------------------------------


def _advance(clock: VectorClock, name: str, step: int) -> None:
    replica = Replica(name, 0)
    clock.merge(VectorClock({replica: clock[replica] + step}))


def _advanced(clock: VectorClock, done: Sequence[tuple[str, int]]) -> bool:
    sums = {Replica(name, 0): sum(step for by, step in done if by == name) for name in REPLICAS}
    return clock == VectorClock(sums)


def clock_laws() -> Laws[VectorClock, int]:
    """`VectorClock`. No history is needed for adversarial ones: any clocks are possible."""
    entries = st.dictionaries(st.builds(Replica, st.sampled_from(REPLICAS), st.integers(0, 1)), st.integers(0, 3))
    return Laws(
        new=VectorClock,
        steps=st.integers(1, 3),
        apply_step=in_place(_advance),
        merge=in_place(VectorClock.merge),
        reading=lambda clock: clock.as_dict(),
        replicas=REPLICAS,
        adversarial=st.lists(entries.map(VectorClock), min_size=len(REPLICAS), max_size=len(REPLICAS)),
        subsumes=lambda clock, other: clock.subsumes(other),
        accounts_for=_advanced,
    )


# --- counts ------------------------------------------------------------------------------------------------------------


def count(counter: ConstraintGCounter, name: str, step: tuple[str | None, int, int]) -> None:
    """Record what a step says."""
    constraint, satisfied, violated = step
    counter.record(name, satisfied, violated, constraint=constraint)


def _counted(counter: ConstraintGCounter, done: Sequence[tuple[str, tuple[str | None, int, int]]]) -> bool:
    def total(name: str | None = None, constraint: str | None = None) -> tuple[int, int]:
        chosen = [step for by, step in done if name in (None, by) and constraint in (None, step[0])]
        return sum(step[1] for step in chosen), sum(step[2] for step in chosen)

    return (
        counter.total == total()
        and all(counter.node(name) == total(name) for name in REPLICAS)
        and all(counter.constraint(id_) == total(constraint=id_) for id_ in IDS)
    )


def read_counter(counter: ConstraintGCounter) -> object:
    """All readings of the counts."""
    return (
        counter.total,
        {name: counter.node(name) for name in sorted(counter.nodes)},
        {id_: (counter.constraint(id_), counter.by_node(id_)) for id_ in IDS},
    )


def counter_laws() -> Laws[ConstraintGCounter, Any]:
    """`ConstraintGCounter`."""
    return over_rows(ConstraintGCounter, counts, count, read_counter, pool=wild(COUNTS), accounts_for=_counted, canonical=True)


# --- constraints -------------------------------------------------------------------------------------------------------


def edit(constraints: ConstraintORSet, name: str, step: tuple[Any, ...]) -> None:
    """Add, remove or collect what a step says; a removal of what is not active is none."""
    match step:
        case ("add", id_, when):
            constraints.add(id_, node=name, when=when)
        case ("remove", id_) if id_ in constraints:
            constraints.remove(id_, node=name)
        case ("collect",):
            rows_of(constraints).collect()


def read_set(constraints: ConstraintORSet) -> object:
    """All readings of the constraints."""
    return {id_: constraints.additions(id_) for id_ in sorted(constraints)}, len(constraints)


def set_laws() -> Laws[ConstraintORSet, Any]:
    """`ConstraintORSet`."""
    return over_rows(ConstraintORSet, edits, edit, read_set, pool=wild(ADD))


# --- position ----------------------------------------------------------------------------------------------------------


def move(register: EisensteinRegister, name: str, step: tuple[int, int, int]) -> None:
    """Move to what a step says."""
    a, b, time = step
    register.update((a, b), node=name, time=time)


def read_register(register: EisensteinRegister) -> object:
    """All readings of the position."""
    return register.position, register.norm, register.time, {name: register.node_position(name) for name in REPLICAS}


def register_laws() -> Laws[EisensteinRegister, Any]:
    """`EisensteinRegister`."""
    return over_rows(EisensteinRegister, moves, move, read_register, pool=wild(POSITION), canonical=True)
