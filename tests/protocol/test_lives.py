"""The lives of a node: which go on after a start from a store, when a new one begins, and who is told of a write."""

import itertools

import pytest

from constraint_crdt import ConstraintCrdtError, GossipNode, Replica, VectorClock, exchange
from constraint_crdt.crdt.limits import DEFAULT_LIMITS, DURATION_MAX
from constraint_crdt.protocol.local_replica import Edge, LocalReplica


def node(name: str, incarnation: int = 1) -> GossipNode:
    return GossipNode(name, incarnation=incarnation, renew=itertools.count(incarnation + 1).__next__, now=lambda: 1)


def started_from(old: GossipNode, incarnation: int, *, vouched: bool) -> GossipNode:
    """The node again, with the rows of its store."""
    again = node(old.node_id, 7)
    again.state.rows.apply(old.state.rows.since({}))
    again.resume(incarnation, vouched=vouched)
    return again


def test_a_life_whose_store_has_all_that_it_told_others_goes_on() -> None:
    old = node("a")
    old.add_constraint("x")
    again = started_from(old, 1, vouched=True)
    assert (again.replica, again.goes_on) == (old.replica, True)
    again.add_constraint("y")
    assert again.clock == VectorClock({Replica("a", 1): 2})


def test_a_life_of_which_others_may_know_more_ends_with_the_next_write() -> None:
    old = node("a")
    old.add_constraint("x")
    again = started_from(old, 1, vouched=False)
    assert (again.replica, again.goes_on) == (old.replica, False)
    again.add_constraint("y")
    assert (again.replica, again.goes_on) == (Replica("a", 8), True)
    assert again.clock == VectorClock({Replica("a", 1): 1, Replica("a", 8): 2})


def test_no_life_goes_on_under_an_incarnation_out_of_bounds() -> None:
    with pytest.raises(ConstraintCrdtError):
        node("a").resume(-1, vouched=True)


def test_an_incarnation_used_before_starts_no_life() -> None:
    old = node("a")
    old.add_constraint("x")
    again = GossipNode("a", incarnation=2, renew=lambda: 1, now=lambda: 1)
    again.state.rows.apply(old.state.rows.since({}))
    again.resume(2, vouched=False)
    before = again.state_hash
    with pytest.raises(ConstraintCrdtError, match=r"^incarnation 1 of a was used before$"):
        again.add_constraint("y")
    assert (again.replica, again.state_hash) == (Replica("a", 2), before)


def test_after_each_write_the_life_and_its_seq_before_are_told() -> None:
    a, told = node("a"), list[tuple[Replica, int]]()
    a.local.on_write = lambda replica, seq: told.append((replica, seq))
    a.add_constraint("x")
    a.add_constraint("y")
    a.resume(1, vouched=False)
    a.add_constraint("z")
    a.add_constraint("w")
    first, second = Replica("a", 1), Replica("a", 2)
    assert told == [(first, 0), (first, 1), (first, 2), (second, 2)]


def test_a_local_replica_needs_nobody_to_tell() -> None:
    local = LocalReplica(Replica("a", 1), Edge(lambda: 1, lambda: 2), fleet="north", limits=DEFAULT_LIMITS, max_skew=1)
    local.resume(1, vouched=False)
    with local as me:
        assert me == Replica("a", 2)
    assert local.goes_on


@pytest.mark.parametrize("seconds", [0, 0.5, DURATION_MAX])
def test_the_bound_on_skew_may_be_anything_from_zero_to_the_longest_duration(seconds: float) -> None:
    a = GossipNode("a", max_skew=seconds)
    assert a.time.max_skew == round(seconds * 10**9)
    assert a.state.ages.max_skew == seconds


def test_ages_go_by_the_clock_of_the_machine_though_readings_follow_others() -> None:
    a, b = (GossipNode(name, now=lambda time=time: time, max_skew=10) for name, time in (("a", 10**18), ("b", 10**18 + 10**9)))  # type: ignore[misc]  # mypy infers no default of a lambda
    exchange(b, a)
    assert (a.state.now(), a.state.ages.clock()) == (10**18 + 10**9, 10**18)
