"""Expired adds that a node is to remove: at which instant, how many at a time, and how many it keeps in memory until then."""

from dataclasses import dataclass, field

import pytest

from constraint_crdt import ConstraintCrdtError, GossipNode, Limits, exchange
from constraint_crdt.crdt.clock import SECOND
from constraint_crdt.protocol.local_replica import OTHERS_AFTER, SLACK

BEGAN = 1_700_000_000 * SECOND
SKEW = 10
TTL = 30
HALF_AN_HOUR = 1800 * SECOND


@dataclass
class Pair:
    """Two nodes whose clocks agree: `a` writes, and `b` removes after it."""

    time: int = BEGAN
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        self.a, self.b = (GossipNode(name, now=lambda: self.time, limits=self.limits, max_skew=SKEW) for name in "ab")

    def meet(self) -> None:
        """Each hears the other's clock and has the other's state."""
        exchange(self.a, self.b)
        exchange(self.b, self.a)

    def go_to(self, time: int) -> None:
        """Each hears the other's clock again, and nothing else."""
        self.time = time
        self.a.receive(self.b.ping())
        self.b.receive(self.a.ping())

    def add(self, *names: str) -> int:
        """Have `a` add constraints that last for `TTL`; returns the instant at which `a` may remove them."""
        for name in names:
            self.a.add_constraint(name, ttl=TTL)
        return self.time + (TTL + 2 * SKEW) * SECOND


def test_the_writer_removes_at_once_and_others_from_their_turn_on_to_the_nanosecond() -> None:
    pair = Pair()
    over = pair.add("x")
    pair.meet()
    for node, at in ((pair.a, over), (pair.b, over + 2 * OTHERS_AFTER)):  # b is the second in the order of names
        pair.go_to(at - 1)
        assert node.remove_expired() == 0
        pair.go_to(at)
        assert node.remove_expired() == 1
        assert node.remove_expired() == 0


@pytest.mark.parametrize("by_its_writer", [False, True])
def test_no_more_are_removed_at_a_time_than_asked_for_the_oldest_first(by_its_writer: bool) -> None:
    pair = Pair()
    for number in range(5):
        last = pair.add(f"c{number}")
        pair.time += 1
    pair.meet()
    pair.go_to(last + 2 * OTHERS_AFTER)
    node = pair.a if by_its_writer else pair.b
    if not by_its_writer:
        pair.go_to(last)
        assert node.remove_expired() == 0, "all of them wait for its turn"
        pair.go_to(last + 2 * OTHERS_AFTER)
    assert node.remove_expired(limit=2) == 2
    assert sorted(node.state.constraints.expired_ids) == ["c2", "c3", "c4"]
    assert [node.remove_expired(limit=2) for _ in range(3)] == [2, 1, 0]


def test_what_another_node_removed_or_extended_meanwhile_is_left_alone() -> None:
    pair = Pair()
    pair.add("removed")
    pair.time += 1
    over = pair.add("extended", "left")
    pair.meet()
    pair.go_to(over)
    assert pair.b.remove_expired() == 0, "kept until its turn"
    assert pair.a.remove_expired(limit=1) == 1
    pair.a.add_constraint("extended", ttl=7200)
    pair.meet()
    pair.go_to(over + 2 * OTHERS_AFTER)
    assert pair.b.remove_expired() == 1
    assert list(pair.b.state.constraints) == ["extended"]
    assert pair.b.state.constraints.expired_ids == []


@pytest.mark.parametrize("failing", [(2,), (2, 1), (4, 1)])
def test_removals_that_failed_are_due_again_once_and_within_the_limit(failing: tuple[int, ...]) -> None:
    pair = Pair(limits=Limits(cells=4))
    pair.time = pair.add("c0", "c1", "c2", "c3")
    for limit in failing:
        with pytest.raises(ConstraintCrdtError, match="cells"):
            pair.a.remove_expired(limit=limit)
    pair.a.state.rows.limits = Limits()
    assert [pair.a.remove_expired(limit=3) for _ in range(3)] == [3, 1, 0]


@pytest.mark.slow
def test_adds_of_others_that_were_removed_meanwhile_take_bounded_memory() -> None:
    pair = Pair()
    each_time, most = SLACK + 1, 0
    for round_ in range(9):
        over = pair.add(*(f"{round_} {number}" for number in range(each_time)))
        pair.meet()
        pair.go_to(over)
        assert pair.b.remove_expired() == 0, "its turn comes later"
        most = max(most, len(pair.b.local.expired._of_others))
        assert pair.a.remove_expired() == each_time
        pair.meet()
    assert each_time < most <= 2 * each_time + SLACK
    pair.add("last")
    pair.meet()
    pair.go_to(pair.time + HALF_AN_HOUR)
    assert pair.b.remove_expired() == 1


def test_a_fleet_without_a_name_is_refused_in_one_sentence() -> None:
    with pytest.raises(ConstraintCrdtError, match=r"^a fleet name "):
        GossipNode("a", fleet="")


def test_a_peer_that_spoke_once_and_wrote_nothing_holds_no_removal_back() -> None:
    time = [10**18]
    a, ghost = (GossipNode(name, incarnation=1, now=lambda: time[0], max_skew=1) for name in ("a", "ghost"))
    a.add_constraint("x", ttl=1)
    a.receive(ghost.ping())
    time[0] += 3600 * 10**9
    assert "ghost" in a.tracker
    assert a.remove_expired() == 1
