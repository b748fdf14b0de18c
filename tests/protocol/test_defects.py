"""The defects of the Rust crate (docs/design/index.md#defects-of-the-rust-crate), each with a test that names it."""

import itertools
from collections.abc import Callable

import pytest

from constraint_crdt import GossipNode, Replica, VectorClock, exchange
from constraint_crdt.protocol.messages import Ack, Delta, GossipMessage, Ping, decode_message, encode_message


def node(name: str, incarnation: int = 1) -> GossipNode:
    """A node whose lives and time are known."""
    return GossipNode(name, incarnation=incarnation, renew=itertools.count(incarnation + 1).__next__, now=lambda: 1)


def test_a_delta_is_applied_not_only_its_clock_merged() -> None:
    """A Delta was received by merging its sender's clock, and its content thrown away: everything in it was lost for good."""
    a, b = node("a"), node("b")
    a.add_constraint("x", when="v < 1.0")
    a.record_violations(3)
    delta = a.delta_since(b.clock)
    assert isinstance(delta, Delta)
    b.receive(delta)
    assert "x" in b.state.constraints
    assert b.state.metrics.total_violations == 3
    assert b.clock == a.clock


def test_an_ack_proves_the_hash_that_it_echoes_and_nothing_else() -> None:
    """An Ack was booked as "the peer has my present hash", so `converged` said nothing."""
    a, b = node("a"), node("b")
    exchange(a, b)
    [ack] = b.receive(a.ping("b")).responses
    assert isinstance(ack, Ack)
    a.add_constraint("x")
    a.receive(ack)
    assert not a.converged
    assert a.tracker.hash("b") == b.state_hash != a.state_hash


@pytest.mark.parametrize("wire", [False, True])
def test_a_late_ack_does_not_take_back_what_came_after_it(wire: bool) -> None:
    """The same: an Ack that arrives late is evidence of the past."""
    sent: Callable[[GossipMessage], GossipMessage] = (lambda m: decode_message(encode_message(m))) if wire else lambda m: m
    a, b = node("a"), node("b")
    [late] = b.receive(sent(a.ping())).responses
    a.add_constraint("x")
    exchange(a, b)
    assert a.converged
    a.receive(sent(late))
    assert a.converged
    assert a.tracker.hash("b") == a.state_hash


def test_an_ack_of_a_hash_that_was_never_said_is_no_evidence() -> None:
    """The same: an Ack is checked against what was said."""
    a, b = node("a"), node("b")
    a.add_constraint("x")
    a.receive(b.ping())
    a.receive(Ack(node=b.replica, answers=b"\0" * 8, state_hash=a.state_hash))
    assert not a.converged


def test_two_nodes_that_each_counted_100_reach_200() -> None:
    """The hash covered totals and a local version: both at 100 had equal hashes, Acked each other, and stayed at 100."""
    a, b = node("a"), node("b")
    a.record_satisfied(100)
    b.record_satisfied(100)
    assert a.state_hash != b.state_hash
    assert exchange(a, b)
    assert a.state.metrics.total_satisfied == b.state.metrics.total_satisfied == 200
    assert a.state_hash == b.state_hash


def test_ab_c_and_a_bc_hash_differently() -> None:
    """Names went into the hash without their lengths: {ab, c} and {a, bc} were the same to it."""
    hashes = set()
    for ids in (("ab", "c"), ("a", "bc"), ("abc", "")):
        one = node("n")
        for id_ in ids:
            if id_:
                one.add_constraint(id_)
            else:
                one.record_satisfied()  # keeps the clock the same
        assert one.clock == VectorClock({Replica("n", 1): 2})
        hashes |= {one.state_hash, one.constraints_hash}
    assert len(hashes) == 6


def test_a_fresh_node_does_not_reset_the_position() -> None:
    """A fresh node stood at (0, 0), the lowest norm there is: whoever met it was moved to the origin."""
    a, fresh = node("a"), node("b")
    a.update_position((3, 1))
    assert fresh.state.position is None
    exchange(fresh, a)
    exchange(a, fresh)
    assert a.state.position == fresh.state.position == (3, 1)


@pytest.mark.parametrize("heard_of_it", [False, True])
def test_a_stale_peer_revives_no_removed_constraint_after_collect(heard_of_it: bool) -> None:
    """After tombstones were collected, a peer that still had the constraint brought it back everywhere."""
    a, b, stale = node("a"), node("b"), node("stale")
    a.add_constraint("x")
    exchange(a, b)
    exchange(a, stale)
    stale.add_constraint("of-stale")
    old = stale.delta_since(VectorClock())
    a.remove_constraint("x")
    if heard_of_it:
        exchange(a, b)
    a.collect()
    b.collect()
    for one, other in itertools.permutations((a, b, stale), 2):
        one.receive(old)
        exchange(one, other)
    assert list(a.state.constraints) == list(b.state.constraints) == list(stale.state.constraints) == ["of-stale"]


def test_a_node_that_restarts_empty_gets_its_new_constraints_through() -> None:
    """A node that came back empty used its tags again, so its new constraints fell under old tombstones."""
    a, b = node("a"), node("b")
    for id_ in ("x", "y", "z"):
        a.add_constraint(id_)
    for id_ in ("x", "y", "z"):
        a.remove_constraint(id_)
    exchange(a, b)
    again = node("a", incarnation=50)
    again.add_constraint("x")
    exchange(again, b)
    assert list(b.state.constraints) == list(again.state.constraints) == ["x"]


def test_a_node_that_restarts_empty_as_the_same_life_gets_them_through_once_it_heard_of_it() -> None:
    """The same, for a copy that does not even know that it is a new life."""
    a, b = node("a"), node("b")
    a.add_constraint("x")
    a.remove_constraint("x")
    exchange(a, b)
    again = node("a")
    exchange(again, b)
    again.add_constraint("x")
    assert again.replica != a.replica
    exchange(again, b)
    assert list(b.state.constraints) == ["x"]


def test_a_repeated_message_counts_nothing_twice() -> None:
    """Counter deltas were increments: every repetition was added again."""
    a, b = node("a"), node("b")
    a.record_satisfied(10)
    deltas = [a.delta_since(VectorClock())]
    a.record_satisfied(5)
    deltas.append(a.delta_since(VectorClock()))
    for order in itertools.permutations(deltas * 2):
        seen = 0
        for delta in order:
            b.receive(delta)
            assert b.state.metrics.total_satisfied >= seen
            seen = b.state.metrics.total_satisfied
        assert seen == 15


def test_an_incomplete_history_makes_no_count_go_down() -> None:
    """The same for messages of which one is missing: a later one without it is not taken, not taken halfway."""
    a, b = node("a"), node("b")
    a.record_satisfied(10)
    exchange(a, b)
    a.record_satisfied(5, constraint="x")
    between = a.clock
    a.record_violations(1)
    [answer] = b.receive(a.delta_since(between)).responses
    assert isinstance(answer, Ping)
    assert b.state.metrics.total == (10, 0)
    exchange(a, b)
    assert b.state.metrics.total == (15, 1)


def test_a_removal_travels_in_a_delta() -> None:
    """Removal deltas carried no tags, so a removal reached nobody by a Delta."""
    a, b = node("a"), node("b")
    a.add_constraint("x")
    exchange(a, b)
    a.remove_constraint("x")
    message = a.begin("b")
    assert isinstance(message, Delta)
    b.receive(message)
    assert "x" not in b.state.constraints


def test_one_exchange_does_for_both_sides() -> None:
    """The exchange only pulled: two were needed for what one can do."""
    a, b = node("a"), node("b")
    a.add_constraint("x")
    b.add_constraint("y")
    exchange(a, b)
    assert sorted(a.state.constraints) == sorted(b.state.constraints) == ["x", "y"]
