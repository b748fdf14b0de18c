"""Rows from the time before a fleet had identities: an operator vouches for them, and then they count everywhere."""

from itertools import count

import pytest

from constraint_crdt import GossipNode

from .credentials import FastCredentials
from .test_signed_rows import exchange, node


def plain(name: str) -> GossipNode:
    return GossipNode(name, incarnation=1, now=lambda: 10**18, renew=count(2).__next__)


def secured(before: GossipNode, role: str = "member") -> GossipNode:
    """The node, restarted with an identity on its store."""
    after = node(before.node_id, role, incarnation=before.replica.incarnation)
    after.state.rows.restore(before.state.rows.whole())
    after.resume(before.replica.incarnation, vouched=True)
    return after


def former_fleet() -> list[GossipNode]:
    a, b, c = (plain(name) for name in "abc")
    for number in range(6):
        a.add_constraint(f"a{number}", when="v < 1.0")
        b.record(1, constraint=f"a{number}")
    for one, other in ((a, b), (b, c), (a, c)):
        exchange(one, other)
    c.remove_constraint("a1")
    a.add_constraint("a2", when="v < 2.0")
    for one, other in ((a, b), (b, c), (a, c), (a, b)):
        exchange(one, other)
    return [a, b, c]


def test_a_blank_node_takes_them_from_the_moment_an_operator_vouches() -> None:
    before = former_fleet()
    a, b, c = (secured(each, role) for each, role in zip(before, ("operator", "member", "member"), strict=True))
    late = node("late", "member")
    exchange(late, b)
    assert not len(late.state.constraints)
    assert a.vouch() == 3
    assert a.vouch() == 0
    for one, other in ((a, b), (b, c), (late, c), (late, a), (late, b)):
        exchange(one, other)
    assert sorted(late.state.constraints) == sorted(before[0].state.constraints)
    assert late.state.metrics.total == before[0].state.metrics.total
    assert len({each.state_hash for each in (a, b, c, late)}) == 1


@pytest.mark.parametrize("removed", ["a0", "a5"])
def test_a_node_that_saw_a_removal_before_takes_the_row_again(removed: str) -> None:
    """Its copy lacks the digest of what was removed after the operator vouched."""
    before = former_fleet()
    a, c = secured(before[0], "operator"), secured(before[2])
    a.vouch()
    a.remove_constraint(removed)
    exchange(a, c)
    b = secured(before[1])
    exchange(c, b)
    exchange(a, b)
    late = node("late", "member")
    exchange(late, b)
    assert len({each.state_hash for each in (a, b, c, late)}) == 1
    assert removed not in late.state.constraints


def test_what_a_plain_node_writes_later_is_left_out_and_the_rest_is_taken() -> None:
    before = former_fleet()
    a, b = secured(before[0], "operator"), secured(before[1])
    a.vouch()
    exchange(a, b)
    before[2].record(1_000)
    before[2].add_constraint("late", when="v < 1.0")
    b.receive(before[2].delta_since(b.clock))
    assert "late" not in b.state.constraints
    assert b.state.metrics.total == a.state.metrics.total
    a.add_constraint("new", when="v < 1.0")
    exchange(b, a)
    assert (b.state_hash, "new" in b.state.constraints) == (a.state_hash, True)


def test_two_operators_may_vouch_for_one_row_at_different_ends() -> None:
    before = former_fleet()
    a = secured(before[0], "operator")
    a.vouch()
    before[2].record(5, constraint="a0")
    exchange(before[2], before[1])
    b = secured(before[1], "operator")
    assert b.vouch() >= 1
    late = node("late", "member")
    for _ in range(3):
        for one, other in ((a, b), (late, a), (late, b)):
            exchange(one, other)
    assert late.state.metrics.total.satisfied == before[1].state.metrics.total.satisfied
    assert len({each.state_hash for each in (a, b, late)}) == 1


def test_a_member_vouches_for_nothing() -> None:
    before = former_fleet()
    assert secured(before[0]).vouch() == 0
    assert FastCredentials("a", "member").member.role == "member"
