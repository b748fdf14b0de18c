"""`ConstraintGCounter` standing alone: sums over rows, readings per node and per constraint, what is refused."""

import pytest

from constraint_crdt import ConstraintCrdtError, ConstraintState, Counts, Replica
from constraint_crdt.types import ConstraintGCounter

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
