"""`ConstraintGCounter` standing alone: sums over rows, readings per node and per constraint, what is refused."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt import ConstraintCrdtError, ConstraintState, Counts, GossipNode, Replica, exchange
from constraint_crdt.crdt.cells import REMOVE, make_cell, rank_of, read_cell
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.errors import CountTooLarge
from constraint_crdt.types import ConstraintGCounter, Seconds
from constraint_crdt.types.counters import SECONDS, make_seconds, seconds_value

MOST = 2**63 - 1


def test_counts_add_up_over_nodes_and_constraints() -> None:
    c = ConstraintGCounter()
    c.record_satisfied("a", 100)
    c.record_violations("a", 2)
    c.record_violations("b", 1, constraint="c1")
    c.record("b", 5, 4, constraint="c2")
    assert (c.total_satisfied, c.total_violations) == (105, 7)
    assert (c.node_satisfied("a"), c.node_violations("a")) == (100, 2)
    assert c.node("b") == Counts(5, 5)
    assert (c.constraint_satisfied("c2"), c.constraint_violations("c1")) == (5, 1)
    assert c.nodes == {"a", "b"}
    assert c.node("z") == c.constraint("z") == Counts(0, 0)


def test_one_is_counted_if_no_number_is_named() -> None:
    c = ConstraintGCounter()
    c.record_satisfied("a")
    c.record_violations("a", constraint="x")
    assert c.total == Counts(1, 1)


def test_readings_per_node_sum_over_its_lives() -> None:
    c = ConstraintGCounter()
    for life in (1, 2, 3):
        c.record_satisfied(Replica("a", life), 10, constraint="x")
        c.record_violations(Replica("a", life), life)
    c.record_satisfied(Replica("b", 1), 1, constraint="x")
    assert c.node("a") == Counts(30, 6)
    assert c.by_node("x") == {"a": Counts(30, 0), "b": Counts(1, 0)}
    assert c.constraint("x") == Counts(31, 0)
    assert c.total == Counts(31, 6)


def test_a_repeated_merge_counts_nothing_twice() -> None:
    a, b = ConstraintGCounter(), ConstraintGCounter()
    a.record_satisfied("a", 100)
    b.record_satisfied("b", 100)
    early = ConstraintGCounter().merged(a)
    a.record_satisfied("a", 1)
    for _ in range(3):
        a.merge(b)
        b.merge(a)
        b.merge(early)
    assert a.total_satisfied == b.total_satisfied == 201


def test_nothing_to_count_writes_nothing() -> None:
    c = ConstraintGCounter()
    c.record("a", 0, 0, constraint="x")
    assert ConstraintGCounter().subsumes(c)
    assert c.nodes == frozenset()


@pytest.mark.parametrize(
    ("satisfied", "violated", "constraint", "error"),
    [
        (-1, 0, None, ValueError),
        (5, -1, "x", ValueError),
        (MOST, 0, None, ConstraintCrdtError),
        (0, 2**70, None, ConstraintCrdtError),
        (1, 0, "", ConstraintCrdtError),
        (1, 0, "i" * 257, ConstraintCrdtError),
        (1.5, 0, None, TypeError),
        (0, "3", "x", TypeError),
    ],
)
def test_what_cannot_be_counted_is_refused_and_writes_nothing(
    satisfied: int, violated: int, constraint: str | None, error: type[Exception]
) -> None:
    state = ConstraintState()
    state.metrics.record("a", 1, 1)
    hash_ = state.state_hash
    with pytest.raises(error):
        state.metrics.record("a", satisfied, violated, constraint=constraint)
    assert (state.state_hash, state.metrics.total) == (hash_, Counts(1, 1))
    state.metrics.record("a", 1, 1)
    assert state.metrics.total == Counts(2, 2)


def test_counts_reach_the_largest_number() -> None:
    c = ConstraintGCounter()
    c.record("a", MOST, MOST)
    assert ConstraintGCounter().merged(c).total == Counts(MOST, MOST)


def test_two_counters_are_equal_if_the_same_counts_stand() -> None:
    a, b = ConstraintGCounter(), ConstraintGCounter()
    a.record_satisfied("a", 3)
    b.record_satisfied("b", 3)
    assert a != b, "the same total of other nodes is not the same"
    a.merge(b)
    b.merge(a)
    assert a == b
    assert repr(a) == "ConstraintGCounter(satisfied=6, violations=0)"


def test_the_rate_is_one_when_nothing_was_recorded() -> None:
    state = ConstraintState()
    assert state.satisfaction_rate == 1.0
    state.metrics.record("a", 1, 3)
    assert state.satisfaction_rate == 0.25


# --- counts near the largest number ---------------------------------------------------------------------------------------


def test_a_count_beyond_the_largest_number_is_refused_alone_and_named() -> None:
    c = ConstraintGCounter()
    c.record("a", MOST, 5, constraint="x")
    with pytest.raises(CountTooLarge, match=r"constraint 'x'.*2\*\*63 - 1"):
        c.record_all("a", {"y": (1, 0), "x": (1, 0), None: (2, 0)})
    assert c.constraint("y") == Counts(), "a transaction is all or nothing"
    refused = c.record_each("a", {"y": (1, 0), "x": (1, 0), None: (2, 3)})
    assert {key: str(error) for key, error in refused.items()} == {
        "x": "a cumulative count, here that of constraint 'x', cannot exceed 2**63 - 1"
    }
    assert (c.constraint("y"), c.constraint("x"), c.total) == (Counts(1, 0), Counts(MOST, 5), Counts(MOST + 3, 8))
    assert c.record_each("a", {"x": (0, 1)}) == {}, "the other of the two counts has room"
    assert c.record_each("a", {None: (0, MOST)}).keys() == {None}
    for wrong in (-1, 1.5):
        with pytest.raises((ValueError, TypeError)):
            c.record_each("a", {"z": (1, 0), "y": (wrong, 0)})  # type: ignore[dict-item]
    assert c.constraint("z") == Counts()


def test_counts_without_room_in_the_total_are_not_folded() -> None:
    a, b = GossipNode("a", incarnation=1), GossipNode("b", incarnation=1)
    a.record_all({"x": (MOST, 0), "y": (3, 1), "z": (2, 0)})
    total = a.state.metrics.total
    assert a.fold(["x", "z", "x"]) == 1, "the second has no room beside the first"
    assert a.fold(["z", "y"]) == 0
    assert (a.state.metrics.total, a.state.metrics.constraint("z")) == (total, Counts(2, 0))
    exchange(b, a)
    assert b.state_hash == a.state_hash, "a peer takes in every cell of it"


def test_an_evaluation_beyond_the_largest_number_stops_no_other() -> None:
    node = GossipNode("a", incarnation=1)
    for id_ in ("p", "q", "r"):
        node.add_constraint(id_, when="v < 1.0")
    node.record(MOST, constraint="q")
    assert [each.counts for each in node.check({"v": 0.0})] == [(1, 0)] * 3
    assert [node.state.metrics.constraint_satisfied(id_) for id_ in ("p", "q", "r")] == [1, MOST, 1]


# --- time by verdict --------------------------------------------------------------------------------------------------------


def test_time_adds_up_over_nodes_and_lives() -> None:
    c = ConstraintGCounter()
    assert c.record_seconds("a", {"x": (1500, 500, 250), "y": (0, 0, 1)}) == {}
    c.record_seconds(Replica("a", 7), {"x": (500, 0, 0)})
    c.record_seconds("b", {"x": (0, 1000, 0)})
    assert c.time("x") == Seconds(2.0, 1.5, 0.25)
    assert c.time_on("x") == {"a": Seconds(2.0, 0.5, 0.25), "b": Seconds(0.0, 1.0, 0.0)}
    assert (c.node_time("a"), c.node_time("z"), c.time("z"), c.time_on("z")) == (Seconds(2.0, 0.5, 0.251), Seconds(), Seconds(), {})
    assert (c.time("x").held, c.time("y").held) == (2.0 / 3.5, None)
    assert c.total == Counts(), "time is no count"


def test_a_repeated_merge_adds_no_time_twice() -> None:
    a, b = ConstraintGCounter(), ConstraintGCounter()
    a.record_seconds("a", {"x": (1, 2, 3)})
    early = ConstraintGCounter().merged(a)
    a.record_seconds("a", {"x": (1, 0, 0)})
    for _ in range(3):
        b.merge(a)
        b.merge(early)
        a.merge(b)
    assert a.time("x") == b.time("x") == Seconds(0.002, 0.002, 0.003)
    assert a == b


def test_time_beyond_the_largest_number_is_refused_alone() -> None:
    c = ConstraintGCounter()
    c.record_seconds("a", {"x": (MOST, 0, 0)})
    refused = c.record_seconds("a", {"x": (1, 0, 0), "y": (1000, 0, 0)})
    assert [(key, str(error)) for key, error in refused.items()] == [
        ("x", "a cumulative time, here that of constraint 'x', cannot exceed 2**63 - 1 ms")
    ]
    assert c.time("y") == Seconds(1.0)


@pytest.mark.parametrize(
    ("id_", "times", "error"),
    [
        ("x", (-1, 0, 0), ValueError),
        ("x", (0, 0, 1.5), TypeError),
        ("", (1, 0, 0), ConstraintCrdtError),
        ("x" * 257, (1, 0, 0), ConstraintCrdtError),
    ],
)
def test_what_is_no_time_is_refused_and_writes_nothing(id_: str, times: tuple[int, int, int], error: type[Exception]) -> None:
    c = ConstraintGCounter()
    with pytest.raises(error):
        c.record_seconds("a", {"good": (1, 0, 0), id_: times})
    assert len(c._rows) == 0
    c.record_seconds("a", {"x": (0, 0, 0)})
    assert len(c._rows) == 0


def test_time_is_folded_into_that_of_the_node_without_a_removal() -> None:
    node = GossipNode("a", incarnation=1)
    node.record_seconds({"x": (1000, 2000, 0), "y": (0, 0, 500)})
    assert node.fold(["x"]) == 0
    metrics = node.state.metrics
    assert (metrics.time("x"), metrics.time_on("x"), metrics.node_time("a")) == (Seconds(), {}, Seconds(1.0, 2.0, 0.5))
    assert not list(node.state.rows.each(REMOVE))
    assert [cell.data for cell in node.state.rows.held(SECONDS, "x")] == [msgspec.msgpack.encode([SECONDS, "x", []])]
    seq = node.clock[node.replica]
    assert node.fold(["x"]) == 0
    assert node.clock[node.replica] == seq, "there is nothing left to fold"
    node.record_seconds({"x": (1, 0, 0)})
    assert (metrics.time("x"), metrics.node_time("a")) == (Seconds(0.001), Seconds(1.001, 2.0, 0.5))


@given(st.tuples(*[st.integers(0, MOST)] * 3))
def test_any_time_is_read_as_written_and_a_repair_keeps_the_longer_one(times: tuple[int, int, int]) -> None:
    cell = read_cell(make_seconds("x", times).data)
    assert seconds_value(cell) == times
    assert rank_of(cell) == sum(times)


@pytest.mark.parametrize("value", [None, 3, [-1], [1.5], ["1"], [0, 0, 2**63]])
def test_malformed_times_are_refused(value: object) -> None:
    with pytest.raises((ConstraintCrdtError, msgspec.DecodeError)):
        read_cell(make_cell(SECONDS, "x", value).data)


def test_times_of_a_later_version_are_read_as_far_as_they_are_understood() -> None:
    rows = Rows()
    c = ConstraintGCounter(rows)
    rows.write(Replica("a", 0), read_cell(make_cell(SECONDS, "x", [1000, 0, 0, 4000, "more"]).data))
    assert c.time("x") == Seconds(1.0)


def test_counts_that_were_read_follow_cells_that_went_and_came_in_bulk() -> None:
    """The counts of a constraint that were read once stayed at nothing when its cells were folded and others came with many."""
    a, b, c = (ConstraintGCounter() for _ in range(3))
    a.record("a", 1, 2, constraint="z")
    b.record("b", 3, 4, constraint="z")
    a.merge(b)
    assert a.constraint("z") == Counts(4, 6)
    b.fold(["z"], node="b")
    a.merge(b)
    a.fold(["z"], node="a")
    assert a.constraint("z") == Counts(0, 0)
    for number in range(20):
        c.record("c", 1, 0, constraint=f"c{number}")
    c.record("c", 5, 0, constraint="z")
    a.merge(c)
    assert a.constraint("z") == Counts(5, 0)
