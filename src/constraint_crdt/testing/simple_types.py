"""Clocks, counts, constraints, positions, counters and decaying values for the law checker.

Decaying values are read at the same time everywhere: all states of a description share a clock, advanced by each mutation. So
ages are equal on all of them, as on nodes with equal clocks.
"""

from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

from constraint_crdt.crdt.clock import VectorClock
from constraint_crdt.crdt.replica import Replica
from constraint_crdt.testing.adversarial import IDS, REPLICAS, WHENS, arbitrary_cells, over_rows, rows_of
from constraint_crdt.testing.histories import Laws, in_place
from constraint_crdt.types.counters import COUNTS, ConstraintGCounter, PNCounter
from constraint_crdt.types.decay import DecayCounter
from constraint_crdt.types.definition import ADD
from constraint_crdt.types.orset import ConstraintORSet
from constraint_crdt.types.rates import DecayConstraintState
from constraint_crdt.types.register import POSITION, EisensteinRegister

ids = st.sampled_from(("x", "x", "y"))
"""An id more often than the other, so it is added and removed by several replicas."""
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
    """Record the counts of a step."""
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
    return over_rows(
        ConstraintGCounter, counts, count, read_counter, pool=arbitrary_cells(COUNTS), accounts_for=_counted, canonical=True
    )


# --- constraints -------------------------------------------------------------------------------------------------------


def edit(constraints: ConstraintORSet, name: str, step: tuple[Any, ...]) -> None:
    """Add, remove or collect; removing an inactive constraint has no effect."""
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
    return over_rows(ConstraintORSet, edits, edit, read_set, pool=arbitrary_cells(ADD))


# --- position ----------------------------------------------------------------------------------------------------------


def move(register: EisensteinRegister, name: str, step: tuple[int, int, int]) -> None:
    """Move to the position of a step."""
    a, b, time = step
    register.update((a, b), node=name, time=time)


def read_register(register: EisensteinRegister) -> object:
    """All readings of the position."""
    return register.position, register.norm, register.time, {name: register.node_position(name) for name in REPLICAS}


def register_laws() -> Laws[EisensteinRegister, Any]:
    """`EisensteinRegister`."""
    return over_rows(EisensteinRegister, moves, move, read_register, pool=arbitrary_cells(POSITION), canonical=True)


START = 1_000_000_000_000_000_000
SECOND = 1_000_000_000
HALF_LIFE = 60.0
HALF_LIVES = (HALF_LIFE, 300.0)

passing = st.sampled_from((0, SECOND, 60 * SECOND))
"""How much time passes before a mutation, in ns."""


class _Clock:
    """The clock shared by all states."""

    def __init__(self) -> None:
        self._time = START

    def __call__(self) -> int:
        return self._time

    def after(self, change: Callable[[Any, str, Any], object]) -> Callable[[Any, str, tuple[int, Any]], None]:
        """The change after some time."""

        def later(state: Any, name: str, step: tuple[int, Any]) -> None:
            self._time += step[0]
            change(state, name, step[1])

        return later


# --- up and down -------------------------------------------------------------------------------------------------------

amounts = st.integers(-3, 3).filter(bool)


def shift(counter: PNCounter, name: str, amount: int) -> None:
    """Increment, or decrement for an amount below 0."""
    if amount > 0:
        counter.increment(amount, node=name)
    else:
        counter.decrement(-amount, node=name)


def _shifted(counter: PNCounter, done: Sequence[tuple[str, int]]) -> bool:
    up, down = sum(max(0, amount) for _, amount in done), sum(max(0, -amount) for _, amount in done)
    each = {name: sum(amount for by, amount in done if by == name) for name in REPLICAS}
    return (counter.increments, counter.decrements, counter.value) == (up, down, up - down) and all(
        counter.node_value(name) == value for name, value in each.items()
    )


def read_pn_counter(counter: PNCounter) -> object:
    """All readings of a counter."""
    return counter.value, counter.increments, counter.decrements, counter.by_node(), sorted(counter.nodes)


def pn_counter_laws() -> Laws[PNCounter, Any]:
    """`PNCounter`."""
    return over_rows(PNCounter, amounts, shift, read_pn_counter, accounts_for=_shifted, canonical=True)


# --- decaying ----------------------------------------------------------------------------------------------------------


def decay_counter_laws() -> Laws[DecayCounter, Any]:
    """`DecayCounter`."""
    clock = _Clock()

    def record(counter: DecayCounter, name: str, amount: float) -> None:
        counter.record(amount, node=name)

    return over_rows(
        lambda rows: DecayCounter(HALF_LIFE, rows=rows, now=clock),
        st.tuples(passing, st.sampled_from((0.5, 1.0, 3.0))),
        clock.after(record),
        lambda counter: (counter.value(), counter.by_node(), counter.ahead),
        canonical=True,
    )


def change_rates(rates: DecayConstraintState, name: str, step: tuple[Any, ...]) -> None:
    """Record or fold."""
    match step:
        case ("fold", id_):
            rates.fold([id_], node=name)
        case (constraint, satisfied, violated):
            rates.record(name, satisfied, violated, constraint=constraint)


def read_rates(rates: DecayConstraintState) -> object:
    """All readings of recent evaluations."""
    return [
        (
            rates.rates(each),
            rates.by_constraint(each),
            rates.by_node(each),
            rates.by_constraint(each, "a"),
            rates.untracked_by(each),
        )
        for each in rates.half_lives
    ], rates.ahead


def decay_state_laws() -> Laws[DecayConstraintState, Any]:
    """`DecayConstraintState`."""
    clock = _Clock()
    recorded = st.tuples(st.sampled_from((None, *IDS)), st.integers(0, 3), st.integers(0, 3))
    return over_rows(
        lambda rows: DecayConstraintState(HALF_LIVES, rows=rows, now=clock),
        st.tuples(passing, st.one_of(recorded, recorded, st.tuples(st.just("fold"), st.sampled_from(IDS)))),
        clock.after(change_rates),
        read_rates,
        canonical=True,
    )
