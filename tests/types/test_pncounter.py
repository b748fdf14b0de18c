"""`PNCounter` standing alone and by name in a state: values, who moved it, its bounds, and cells that make no sense."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt import ConstraintCrdtError, ConstraintState, GossipNode, Limits, Replica, exchange
from constraint_crdt.crdt.cells import Cell, Run, make_cell, read_cell
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.types import Moves, PNCounter
from constraint_crdt.types.counters import COUNTER, PNCounters

MOST = 2**63 - 1


def test_it_goes_up_and_down_and_says_who_moved_it() -> None:
    counter = PNCounter()
    assert (counter.value, counter.increments, counter.decrements, counter.nodes, counter.by_node()) == (0, 0, 0, frozenset(), {})
    counter.increment(5, node="a")
    counter.increment(node="b")
    counter.decrement(9, node="b")
    counter.decrement(node=Replica("a", 7))
    assert (counter.value, counter.increments, counter.decrements) == (-4, 6, 10)
    assert counter.nodes == {"a", "b"}
    assert counter.by_node() == {"a": Moves(5, 1), "b": Moves(1, 9)}
    assert [counter.node_value(node) for node in "abz"] == [4, -8, 0]
    assert repr(counter) == "PNCounter(-4)"


def test_a_merge_counts_each_move_once() -> None:
    one, other = PNCounter(), PNCounter()
    one.increment(3, node="a")
    other.decrement(2, node="b")
    both = one.merged(other)
    assert (both.value, one.value, other.value) == (1, 3, -2)
    assert both == other.merged(one)
    assert not both.merge(one)
    assert both.subsumes(other)
    assert not one.subsumes(other)
    assert both.value == 1


def test_equality_is_of_what_is_known_and_not_of_the_sum() -> None:
    one, other = PNCounter(), PNCounter()
    one.increment(1, node="a")
    other.increment(1, node="b")
    assert one.value == other.value
    assert one != other
    assert one != PNCounter(name="x")
    assert one.__eq__(1) is NotImplemented


@pytest.mark.parametrize(
    ("amount", "error"), [(0, ValueError), (-1, ValueError), (1.0, TypeError), ("1", TypeError), (2**63, ConstraintCrdtError)]
)
def test_what_is_no_amount_is_refused_and_writes_nothing(amount: int, error: type[Exception]) -> None:
    counter = PNCounter()
    for move in (counter.increment, counter.decrement):
        with pytest.raises(error):
            move(amount, node="a")
    assert (counter.value, counter.nodes) == (0, frozenset())


def test_one_writer_adds_at_most_2_to_the_63_less_1_and_a_fleet_more() -> None:
    counter = PNCounter()
    counter.increment(MOST, node="a")
    counter.decrement(MOST, node="a")
    for move in (counter.increment, counter.decrement):
        with pytest.raises(ConstraintCrdtError, match=r"cannot exceed 2\*\*63 - 1"):
            move(node="a")
    counter.increment(MOST, node="b")
    assert (counter.value, counter.increments) == (MOST, 2 * MOST)


def test_those_of_a_state_are_told_apart_by_name() -> None:
    state = ConstraintState()
    state.counters["parts"].increment(2, node="a")
    state.counters["scrap"].increment(1, node="a")
    held = state.counters["parts"]
    state.counters["parts"].decrement(5, node="b")
    assert (held.name, held.value, state.counters["scrap"].value, state.counters["new"].value) == ("parts", -3, 1, 0)
    assert (list(state.counters), len(state.counters)) == (["parts", "scrap"], 2)
    assert ["parts" in state.counters, "new" in state.counters, "" in state.counters] == [True, False, False]
    assert repr(state.counters) == "PNCounters({'parts': -3, 'scrap': 1})"
    assert repr(held) == "PNCounter('parts', -3)"
    assert state.merged(ConstraintState()).counters["parts"] == held


def test_the_cells_of_one_that_stood_alone_are_none_of_a_states_counters() -> None:
    alone, state = PNCounter(), ConstraintState()
    alone.increment(5, node="b")
    state.counters["parts"].increment(2, node="a")
    state.rows.merge(alone._rows)
    assert (list(state.counters), len(state.counters), "" in state.counters) == (["parts"], 1, False)
    assert PNCounter(state.rows).value == 5


@pytest.mark.parametrize("name", ["", "n" * 257, "\ud800"])
def test_what_is_no_name_is_refused(name: str) -> None:
    state = ConstraintState()
    with pytest.raises(ConstraintCrdtError, match="the name of a counter"):
        state.counters[name]


def test_a_node_opens_so_many_names_and_takes_in_any_number() -> None:
    state, other = ConstraintState(Rows(limits=Limits(counters=2))), ConstraintState()
    for name in "xy":
        state.counters[name].increment(node="a")
    with pytest.raises(ConstraintCrdtError, match="there are 2 counters"):
        state.counters["z"].increment(node="a")
    for name in "uvw":
        other.counters[name].increment(node="b")
    state.merge(other)
    assert list(state.counters) == list("uvwxy")
    state.counters["u"].increment(node="a")
    assert state.counters["u"].value == 2


def test_it_travels_in_an_exchange() -> None:
    a, b = GossipNode("a"), GossipNode("b")
    a.write(lambda me: a.state.counters["parts"].increment(7, node=me))
    b.write(lambda me: b.state.counters["parts"].decrement(2, node=me))
    exchange(a, b)
    assert a.state.counters["parts"].value == b.state.counters["parts"].value == 5
    assert a.state_hash == b.state_hash


# --- cells that no honest node writes ----------------------------------------------------------------------------------

wild_cells = st.lists(
    st.tuples(st.sampled_from(["", "x"]), st.sampled_from([0, 1, 5, MOST]), st.sampled_from([0, 2, MOST])), max_size=5
)


@pytest.mark.slow
@given(st.lists(wild_cells, min_size=2, max_size=3))
def test_whatever_stands_reads_the_same_in_any_order_of_arrival_and_when_told_anew(
    logs: list[list[tuple[str, int, int]]],
) -> None:
    """Counts that go down, and a name that a state does not give."""
    runs = [
        Run(Replica(name, 0), 0, len(log), [_bound(name, seq, *value) for seq, value in enumerate(log, start=1)])
        for name, log in zip("abc", logs, strict=False)
    ]
    readings = []
    for order in itertools.permutations(runs):
        rows = Rows()
        view = PNCounters(rows)
        for run in order:
            rows.apply([Run(run.replica, 0, len(run.cells) // 2, run.cells[: len(run.cells) // 2])])
            rows.apply([run])
        readings.append(_reading(view))
        rows.apply([Run(run.replica, 0, run.hi, []) for run in order[:1]], whole=True)  # what a Sync does not list is dead
        assert _reading(view) == _reading(PNCounters(rows.copy()))
    assert all(reading == readings[0] for reading in readings)


def _bound(node: str, seq: int, name: str, up: int, down: int) -> Cell:
    cell = read_cell(make_cell(COUNTER, name, [up, down]).data)
    return Cell(cell.kind, cell.key, cell.data, seq, Replica(node, 0))


def _reading(view: PNCounters) -> object:
    alone = PNCounter(view._rows)
    return list(view), len(view), {name: (view.moves(name), view[name].by_node()) for name in view}, alone.value, alone.by_node()
