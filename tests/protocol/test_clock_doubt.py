"""A node whose clock is hours wrong: it goes by the fleet's time where enough others agree, and else writes nothing that ends."""

from collections.abc import Callable
from functools import partial

import pytest

from constraint_crdt import AddConstraint, GossipNode, exchange
from constraint_crdt.crdt.clock import SECOND
from constraint_crdt.errors import ClockInDoubt
from constraint_crdt.runtime.change_feed import apply_changes

BEGAN = 1_700_000_000 * SECOND
HOUR = 3600 * SECOND


class Fleet:
    """Nodes in rounds of gossip, one a second, whose clocks are wrong by so many ns."""

    def __init__(self, *wrong_by: int) -> None:
        self.passed = HOUR
        self.wrong_by = list(wrong_by)
        self.nodes = [
            GossipNode(f"n{index}", now=partial(self._wall, index), steady=lambda: self.passed) for index in range(len(wrong_by))
        ]
        self.run(3)

    def _wall(self, index: int) -> int:
        return BEGAN + self.passed + self.wrong_by[index]

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            self.passed += SECOND
            for node in self.nodes:
                for other in self.nodes:
                    if other is not node:
                        exchange(node, other)

    def active(self) -> list[bool]:
        return ["gate" in node.state.constraints for node in self.nodes]


wrong = pytest.mark.parametrize("wrong_by", [2 * HOUR, -2 * HOUR, 10**9 * SECOND, -(10**9) * SECOND])


@pytest.mark.long
@wrong
def test_an_end_written_there_is_by_the_time_of_the_fleet(wrong_by: int) -> None:
    """A permanent critical constraint was gone on the whole fleet in 4 s, or the new one held for an hour on some nodes only."""
    fleet = Fleet(0, SECOND, wrong_by)
    fleet.nodes[0].add_constraint("gate", when="x <= 1.0", severity="critical")
    fleet.run(2)
    fleet.nodes[2].add_constraint("gate", when="x <= 2.0", severity="critical", ttl=1800)
    fleet.run(2)
    assert fleet.active() == [True] * 3
    assert [node.state.constraints.definitions("gate")[0].when for node in fleet.nodes] == ["x <= 2.0"] * 3
    fleet.run(1780)
    assert fleet.active() == [True] * 3
    fleet.run(40)
    assert fleet.active() == [False] * 3


@pytest.mark.slow
@wrong
def test_it_enforces_what_others_wrote_until_its_end(wrong_by: int) -> None:
    fleet = Fleet(0, SECOND, wrong_by)
    fleet.nodes[0].add_constraint("gate", when="x <= 1.0", ttl=60)
    fleet.run(2)
    assert fleet.active() == [True] * 3
    fleet.run(50)
    assert fleet.active() == [True] * 3
    fleet.run(15)
    assert fleet.active() == [False] * 3


@pytest.mark.parametrize(
    "write",
    [
        lambda node: node.add_constraint("gate", when="x <= 2.0", ttl=1800),
        lambda node: node.add_constraint("gate", when="x <= 2.0", until=BEGAN + 10 * HOUR),
        lambda node: apply_changes(node, [AddConstraint(id="free"), AddConstraint(id="gate", ttl=1800.0)]),
    ],
)
def test_of_two_clocks_that_differ_none_decides_so_no_end_is_written_on_either(write: Callable[[GossipNode], object]) -> None:
    fleet = Fleet(0, 2 * HOUR)
    fleet.nodes[0].add_constraint("gate", when="x <= 1.0")
    fleet.run(2)
    for node in fleet.nodes:
        before = node.state_hash
        with pytest.raises(ClockInDoubt, match=f"the clock of {node.node_id} is in doubt"):
            write(node)
        assert node.state_hash == before
    fleet.nodes[1].add_constraint("free", when="x <= 2.0")
    fleet.run(1)
    assert all("free" in node.state.constraints for node in fleet.nodes)


@pytest.mark.slow
def test_of_two_clocks_that_differ_both_go_by_the_earlier_so_the_constraint_is_kept() -> None:
    fleet = Fleet(0, 0)
    fleet.nodes[0].add_constraint("gate", when="x <= 1.0", ttl=600)
    fleet.run(2)
    fleet.wrong_by[1] = 2 * HOUR
    for _ in range(50):
        fleet.run(10)
        assert fleet.active() == [True, True]


def test_a_clock_set_right_ends_the_doubt_and_nothing_moves() -> None:
    fleet = Fleet(0, SECOND, 2 * HOUR)
    fleet.nodes[2].add_constraint("gate", ttl=600)
    fleet.run(2)
    fleet.wrong_by[2] = 0
    assert not fleet.nodes[2].time.in_doubt
    assert fleet.active() == [True] * 3
    assert fleet.nodes[2].time.take_steps() == [-2 * HOUR]


def test_what_it_says_of_its_own_clock_stays_what_the_clock_shows() -> None:
    """Others are to see that it is wrong."""
    fleet = Fleet(0, SECOND, 2 * HOUR)
    offset = fleet.nodes[0].time.offset("n2")
    assert offset is not None
    assert abs(offset - 2 * HOUR) <= SECOND
