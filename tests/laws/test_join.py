"""The join laws (DESIGN 7.1) and delta = state (7.2), on states that a fleet reaches and on ones that only a broken sender makes.

Adversarial states: removals that name dots beyond the clock, counts that go down at a higher seq, positions that overwrite each
other or themselves, one key at several seqs of a run. What even these must keep is that all who know the same say the same.
"""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt import ConstraintGCounter, ConstraintORSet, ConstraintState, EisensteinRegister, Replica, VectorClock
from constraint_crdt.core.cells import ADD, COUNTS, POSITION, Cell, make_cell, make_removal
from constraint_crdt.core.rows import Rows
from constraint_crdt.core.run import Run

REPLICAS = [Replica(name, 0) for name in "abcd"]
LONGEST_ROW = 6

replicas = st.sampled_from(REPLICAS)
ids = st.sampled_from(["x", "y"])
dots = st.tuples(replicas, st.integers(0, LONGEST_ROW + 2))

# --- rows as no honest node would write them ---------------------------------------------------------------------------


def _add(id_: str, when: str | None) -> Cell:
    return make_cell(ADD, id_, when and [when])


def _counts(key: str, satisfied: int, violated: int) -> Cell:
    return make_cell(COUNTS, key, [satisfied, violated])


def _position(a: int, b: int, time: int, overwrites: Sequence[tuple[Replica, int]]) -> Cell:
    return make_cell(POSITION, "", [a, b, time, [[row.node_id, row.incarnation, seq] for row, seq in overwrites]])


wild_cells = st.one_of(
    st.builds(_add, ids, st.sampled_from([None, "v < 1.0", "v < 2.0"])),
    st.builds(lambda id_, named: make_removal([(id_, named)]), ids, st.lists(dots, max_size=3)),
    st.builds(_counts, st.sampled_from(["", "x"]), st.integers(0, 3), st.integers(0, 3)),
    st.builds(_position, st.integers(-2, 2), st.integers(-2, 2), st.integers(0, 2), st.lists(dots, max_size=3)),
)
"""None of them knows what was written before it."""
wild_logs = st.dictionaries(replicas, st.lists(wild_cells, max_size=LONGEST_ROW), min_size=1)
prefixes = st.lists(st.lists(st.integers(0, LONGEST_ROW), min_size=4, max_size=4), min_size=3, max_size=3)


def _bound(replica: Replica, cells: Sequence[Cell]) -> list[Cell]:
    """The whole log of one row, as cells at their dots."""
    fresh = [Cell(cell.kind, cell.key, cell.data, seq, replica) for seq, cell in enumerate(cells, start=1)]
    return [Cell(cell.kind, cell.key or cell.seq, cell.data, cell.seq, replica) if cell.key == 0 else cell for cell in fresh]


def _state_at(log: dict[Replica, list[Cell]], upto: Sequence[int]) -> ConstraintState:
    """A state that has taken in the first mutations of each row, superseded ones too."""
    rows = Rows()
    runs = []
    for replica, seq in zip(REPLICAS, upto, strict=True):
        cells = _bound(replica, log.get(replica, []))[:seq]
        runs.append(Run(replica, 0, len(cells), cells))
    rows.apply(runs)
    return ConstraintState(rows)


@st.composite
def wild_states(draw: st.DrawFn) -> list[ConstraintState]:
    """Three states of one fleet of liars."""
    log = draw(wild_logs)
    return [_state_at(log, upto) for upto in draw(prefixes)]


# --- states as a fleet reaches them ------------------------------------------------------------------------------------

steps = st.lists(
    st.tuples(
        st.sampled_from(["add", "remove", "count", "move", "merge", "collect"]),
        st.integers(0, 3),
        st.integers(0, 3),
        st.integers(-2, 2),
    ),
    max_size=25,
)


@st.composite
def reached_states(draw: st.DrawFn) -> list[ConstraintState]:
    """Three states of one fleet of four that wrote, heard of each other and forgot removals."""
    states = [ConstraintState() for _ in REPLICAS]
    for act, who, other, number in draw(steps):
        state, me = states[who], REPLICAS[who]
        id_ = "xy"[other % 2]
        if act == "add":
            state.constraints.add(id_, node=me, when=[None, "v < 1.0", "v < 2.0"][number % 3])
        elif act == "remove" and id_ in state.constraints:
            state.constraints.remove(id_, node=me)
        elif act == "count":
            state.metrics.record(me, abs(number), other, constraint=id_ if other else None)
        elif act == "move":
            state.register.update((number, other), node=me, time=who)
        elif act == "merge":
            state.merge(states[other])
        elif act == "collect":
            state.rows.collect()
    return states[:3]


all_states = st.one_of(reached_states(), wild_states())

VIEWS: dict[str, Callable[[ConstraintState], Any]] = {
    "ConstraintState": lambda state: state,
    "ConstraintORSet": lambda state: ConstraintORSet(state.rows.copy()),
    "ConstraintGCounter": lambda state: ConstraintGCounter(state.rows.copy()),
    "EisensteinRegister": lambda state: EisensteinRegister(state.rows.copy()),
    "VectorClock": lambda state: state.clock,
}
each_type = pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())


def reading(value: Any) -> object:
    """Everything that a user can read of a value."""
    match value:
        case ConstraintState():
            parts = [reading(part) for part in (value.constraints, value.metrics, value.register, value.clock)]
            return parts, value.state_hash, value.constraints_hash, {(c.replica, c.seq, c.data) for c in value.rows.live_cells()}
        case ConstraintORSet():
            return {id_: value.additions(id_) for id_ in value}, len(value)
        case ConstraintGCounter():
            return (
                value.total,
                value.nodes,
                {node: value.node(node) for node in "abcd"},
                [(value.constraint(id_), value.by_node(id_)) for id_ in "xy"],
            )
        case EisensteinRegister():
            return value.position, value.norm, value.time, [value.node_position(node) for node in "abcd"]
    assert isinstance(value, VectorClock)
    return value.as_dict()


@each_type
@given(states=all_states)
def test_merge_is_commutative(view: Callable[[ConstraintState], Any], states: list[ConstraintState]) -> None:
    a, b, _ = map(view, states)
    assert a.merged(b) == b.merged(a)
    assert reading(a.merged(b)) == reading(b.merged(a))


@each_type
@given(states=all_states)
def test_merge_is_associative(view: Callable[[ConstraintState], Any], states: list[ConstraintState]) -> None:
    a, b, c = map(view, states)
    left, right = a.merged(b).merged(c), a.merged(b.merged(c))
    assert left == right
    assert reading(left) == reading(right)


@each_type
@given(states=all_states)
def test_merge_is_idempotent(view: Callable[[ConstraintState], Any], states: list[ConstraintState]) -> None:
    a, b, _ = map(view, states)
    before = reading(a)
    assert not a.merge(a)
    assert reading(a) == before
    joined = a.merged(b)
    once = reading(joined)
    assert not joined.merge(b)
    assert reading(joined) == once


@each_type
@given(states=all_states)
def test_merge_is_monotone(view: Callable[[ConstraintState], Any], states: list[ConstraintState]) -> None:
    a, b, _ = map(view, states)
    before, joined = (reading(a), reading(b)), a.merged(b)
    assert joined.subsumes(a)
    assert joined.subsumes(b)
    assert a.merged(joined) == joined
    assert (reading(a), reading(b)) == before, "an operand changed"
    assert a.subsumes(b) == (not a.merge(b))


@given(states=all_states)
def test_a_delta_does_what_a_full_merge_does(states: list[ConstraintState]) -> None:
    a, b, _ = states
    by_delta, by_all = a.rows.copy(), a.rows.copy()
    if b.rows.serves(a.clock.as_dict()):
        by_delta.apply(b.rows.since(a.clock.as_dict()))
    else:
        by_delta.apply(b.rows.whole(), whole=True)
    by_all.apply(b.rows.whole(), whole=True)
    assert reading(ConstraintState(by_delta)) == reading(ConstraintState(by_all)) == reading(a.merged(b))


@given(states=all_states)
def test_views_kept_up_to_date_read_as_views_made_anew(states: list[ConstraintState]) -> None:
    """Readings are never recomputed, so they could drift; they must not."""
    a, b, c = states
    a.merge(b)
    a.rows.apply(c.rows.whole(), whole=True)
    assert reading(a) == reading(ConstraintState(a.rows.copy()))


@given(states=reached_states())
def test_honest_counts_never_go_down_and_only_grow_by_what_was_counted(states: list[ConstraintState]) -> None:
    a, b, _ = states
    joined = a.merged(b)
    for side in (a, b):
        assert joined.metrics.total_satisfied >= side.metrics.total_satisfied
        assert joined.metrics.total_violations >= side.metrics.total_violations
    assert joined.metrics.total_satisfied <= a.metrics.total_satisfied + b.metrics.total_satisfied
