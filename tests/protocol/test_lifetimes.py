"""Constraints with an end in a fleet: one reading on all who are in touch, each by itself when cut off, and who removes them when.

All in virtual time: each node has a clock of its own, which is wrong by as much as a test says.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random
from typing import Any

import pytest

from constraint_crdt import Change, ConstraintCrdtError, Definition, GossipNode, Limits, Verdict, exchange
from constraint_crdt.crdt.cells import REMOVE, make_cell
from constraint_crdt.crdt.clock import SECOND
from constraint_crdt.protocol.local_replica import OTHERS_AFTER
from constraint_crdt.protocol.messages import Ping, decode_message, encode_message
from constraint_crdt.types.definition import ADD, wire_definition
from tests.conftest import BUDGET

BEGAN = 1_700_000_000 * SECOND
ROUND = SECOND // 5
HOUR = 3600 * SECOND
MANY = 100_000 if BUDGET == "nightly" else 10_000
"""Constraints that are removed and collected."""


class Fleet:
    """Nodes with clocks that are ahead by so many seconds, in rounds of gossip five times a second."""

    def __init__(self, *ahead: float, limits: Limits | None = None) -> None:
        self.time = BEGAN
        self.ahead = [round(each * SECOND) for each in ahead]
        self.nodes = [
            GossipNode(f"n{index}", now=partial(self._time_at, index), limits=limits or Limits()) for index in range(len(ahead))
        ]
        self._random = Random(7)
        self.sides: Sequence[Sequence[GossipNode]] = [self.nodes]

    def _time_at(self, index: int) -> int:
        return self.time + self.ahead[index]

    def cut(self, *sides: Sequence[int]) -> None:
        self.sides = [[self.nodes[index] for index in side] for side in sides]

    def heal(self) -> None:
        self.sides = [self.nodes]

    def round(self) -> None:
        """Each node begins one exchange with a peer that it can reach, chosen at random."""
        self.time += ROUND
        for side in self.sides:
            for node in side:
                others = [other for other in side if other is not node]
                if others:
                    peer = self._random.choice(others)
                    exchange(node, peer)

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds * SECOND) // ROUND):
            self.round()

    def end_times(self, id_: str, within: float) -> list[int]:
        """Go on until `id_` has ended on all nodes: when it ended on each, by the true time."""
        ended: dict[str, int] = {}
        for _ in range(round(within * SECOND) // ROUND):
            self.round()
            hashes = {(str(node.clock), str(node.state_hash)) for node in self.nodes}
            assert len({clock for clock, _ in hashes}) == len(hashes), "equal clocks, different hashes"
            for node in self.nodes:
                if id_ not in node.state.constraints:
                    ended.setdefault(node.node_id, self.time)
            if len(ended) == len(self.nodes):
                break
        return [ended[node.node_id] for node in self.nodes]


# --- the reading -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("writer", range(5))
def test_a_constraint_ends_on_all_nodes_within_one_round_though_their_clocks_differ(writer: int) -> None:
    fleet = Fleet(-5, -2, 0, 3, 5)
    fleet.run(5)
    fleet.nodes[writer].add_constraint("short", ttl=20)
    fleet.run(2)
    assert all("short" in node.state.constraints for node in fleet.nodes)
    ended = fleet.end_times("short", 30)
    assert max(ended) - min(ended) <= ROUND
    assert abs(ended[0] - (BEGAN + 25 * SECOND)) <= 2 * ROUND, "the fastest clock leads, also where the end is reckoned"


@pytest.mark.slow
def test_who_is_cut_off_goes_by_its_own_clock() -> None:
    fleet = Fleet(-5, -2, 0, 3, 5)
    fleet.run(5)
    fleet.nodes[2].add_constraint("short", ttl=30)
    fleet.run(2)
    end = fleet.nodes[2].state.constraints.definitions("short")[0].expires_at
    assert end is not None
    fleet.cut(*([index] for index in range(5)))
    ended = fleet.end_times("short", 60)
    for when, ahead in zip(ended, fleet.ahead, strict=True):
        assert 0 <= when + ahead - end < ROUND


@pytest.mark.long
def test_an_hour_ahead_or_behind_changes_nothing_but_an_alarm() -> None:
    for wrong in (3600, -3600):
        fleet = Fleet(0, 1, 0, -1, wrong)
        good, bad = fleet.nodes[:4], fleet.nodes[4]
        fleet.run(5)
        good[0].add_constraint("short", ttl=20)
        good[0].add_constraint("long", ttl=7200)
        good[0].add_constraint("for ever")
        fleet.run(4)
        adds = set(bad.state.constraints.expired_ids)
        assert adds == ({"short"} if wrong > 0 else set())
        for _ in range(500):
            fleet.round()
            assert bad.remove_expired() == 0, "its own clock is in doubt, to itself"
            if fleet.time < BEGAN + 24 * SECOND:
                assert all("short" in node.state.constraints for node in good)
        for node in good:
            assert sorted(node.state.constraints) == ["for ever", "long"]
            assert (node.time.alarms, node.time.in_doubt) == (1, False)
        assert bad.time.in_doubt
        assert bad.time.alarms == 4
        assert len({str(node.state_hash) for node in fleet.nodes}) == 1


def test_the_alarm_is_raised_by_the_message_that_shows_it_once() -> None:
    fleet = Fleet(0, 3600)
    a, b = fleet.nodes
    assert b.receive(a.ping()).skew == pytest.approx(-3600)
    assert b.receive(a.ping()).skew is None
    assert a.receive(b.ping()).skew == pytest.approx(3600)
    fleet.ahead[1] = 0
    fleet.time += 10 * SECOND
    assert a.receive(b.ping()).skew is None
    assert a.time.offset("n1") == 0


def test_a_clock_that_steps_back_freezes_nothing() -> None:
    fleet = Fleet(0, 0)
    a, b = fleet.nodes
    fleet.run(1)
    a.add_constraint("short", ttl=10)
    fleet.run(1)
    fleet.ahead[0] = -HOUR
    fleet.run(12)
    assert "short" in a.state.constraints, "by its own clock there is an hour to go: the other's is out of bounds"
    assert "short" not in b.state.constraints
    assert a.state_hash == b.state_hash
    fleet.ahead[0] = 0
    assert "short" not in a.state.constraints


# --- extending ---------------------------------------------------------------------------------------------------------


@pytest.mark.long(by_day=["0-1"])
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("writer", [0, 1])
def test_an_extension_on_one_side_of_a_partition_wins_over_the_expiry_on_the_other(side: int, writer: int) -> None:
    """Also where the other side has removed the expired add, and even collected the removal."""
    fleet = Fleet(0, 0, 0, 0)
    fleet.run(1)
    fleet.nodes[2 * writer].add_constraint("lease", when="x < 1.0", ttl=10)
    fleet.run(2)
    fleet.cut([0, 1], [2, 3])
    fleet.run(2)
    assert fleet.nodes[2 * side].add_constraint("lease", when="x < 1.0", ttl=300) is Change.EXTENDED
    fleet.run(100)
    for node in fleet.nodes:
        node.remove_expired()
        node.collect()
    there = ["lease" in node.state.constraints for node in fleet.nodes]
    assert there == ([True, True, False, False] if side == 0 else [False, False, True, True])
    fleet.heal()
    fleet.run(2)
    assert all("lease" in node.state.constraints for node in fleet.nodes)
    assert len({str(node.state_hash) for node in fleet.nodes}) == 1
    fleet.run(300)
    assert not any("lease" in node.state.constraints for node in fleet.nodes)


def test_adding_what_has_expired_adds_it_and_removing_it_is_a_key_error() -> None:
    fleet = Fleet(0)
    [a] = fleet.nodes
    a.add_constraint("c", ttl=10)
    fleet.time += 10 * SECOND
    hash_ = a.state_hash
    with pytest.raises(KeyError):
        a.remove_constraint("c")
    assert a.state_hash == hash_
    assert a.add_constraint("c", ttl=timedelta(seconds=10)) is Change.ADDED
    assert a.add_constraint("c", until=datetime.fromtimestamp(BEGAN / SECOND + 60, UTC)) is Change.EXTENDED
    assert a.add_constraint("c", until=BEGAN + 60 * SECOND) is Change.UNCHANGED
    assert "c" in a.state.constraints


@pytest.mark.parametrize(
    "wrong",
    [
        {"ttl": 0},
        {"ttl": timedelta(days=4000)},
        {"ttl": 1, "until": BEGAN + 1},
        {"until": BEGAN},
        {"until": datetime(2100, 1, 1)},  # noqa: DTZ001 - that it has no zone is the point
        {"on": [("zone", "a"), ("zone", "b")]},
    ],
)
def test_a_wrong_end_is_refused_and_writes_nothing(wrong: dict[str, Any]) -> None:
    [a] = Fleet(0).nodes
    hash_ = a.state_hash
    with pytest.raises(ConstraintCrdtError):
        a.add_constraint("c", **wrong)
    assert a.state_hash == hash_


@pytest.mark.parametrize("skew", [-1.0, float("nan"), 1e12])
def test_a_wrong_bound_on_skew_is_refused(skew: float) -> None:
    with pytest.raises(ConstraintCrdtError, match="skew of clocks"):
        GossipNode("a", max_skew=skew)


# --- removing ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_who_wrote_it_removes_it_once_it_is_over_by_every_clock() -> None:
    fleet = Fleet(0, 0, 0)
    a, b, c = fleet.nodes
    fleet.run(2)
    a.add_constraint("short", ttl=10)
    a.add_constraint("for ever")
    fleet.run(29)
    assert [node.remove_expired() for node in fleet.nodes] == [0, 0, 0], "a peer 10 s behind still enforces it"
    fleet.run(2)
    assert [node.remove_expired() for node in (c, b, a)] == [0, 0, 1]
    fleet.run(2)
    assert all(node.state.constraints.expired_ids == [] for node in fleet.nodes)
    assert [node.collect() for node in fleet.nodes] == [1, 1, 1]
    assert a.remove_expired() == 0


@pytest.mark.slow
def test_if_who_wrote_it_is_gone_the_others_do_one_after_the_other() -> None:
    fleet = Fleet(0, 0, 0)
    fleet.run(2)
    fleet.nodes[1].add_constraint("short", ttl=10)
    fleet.run(2)
    fleet.cut([0, 2])
    fleet.run(30 + OTHERS_AFTER / SECOND - 5)
    assert [fleet.nodes[index].remove_expired() for index in (0, 2)] == [0, 0]
    fleet.run(5)
    assert [fleet.nodes[index].remove_expired() for index in (2, 0)] == [0, 1]


@pytest.mark.slow
def test_the_second_in_line_does_if_the_first_does_not_either() -> None:
    fleet = Fleet(0, 0, 0)
    fleet.run(2)
    fleet.nodes[0].add_constraint("short", ttl=10)
    fleet.run(2)
    fleet.cut([1, 2])
    fleet.run(30 + 2 * OTHERS_AFTER / SECOND - 5)
    assert fleet.nodes[2].remove_expired() == 0
    fleet.run(5)
    assert fleet.nodes[2].remove_expired() == 1


def test_who_is_cut_off_removes_nothing_and_who_is_alone_does() -> None:
    fleet = Fleet(0, 0)
    a, b = fleet.nodes
    a.add_constraint("short", ttl=10)
    fleet.time += HOUR
    assert a.remove_expired() == 1, "it knows of nobody else"
    a.add_constraint("short", ttl=10)
    b.record(1)
    fleet.run(2)
    fleet.cut()
    fleet.run(60)
    assert a.remove_expired() == 0
    a.retire("n1")
    assert a.remove_expired() == 1


def test_a_removal_that_finds_no_room_is_tried_again() -> None:
    fleet = Fleet(0, limits=Limits(cells=2))
    [a] = fleet.nodes
    a.add_constraint("one", ttl=10)
    a.add_constraint("two", ttl=10)
    fleet.time += HOUR
    hash_ = a.state_hash
    with pytest.raises(ConstraintCrdtError, match="cells"):
        a.remove_expired()
    assert a.state_hash == hash_
    a.state.rows.limits = Limits()
    assert a.remove_expired(limit=1) == 1
    assert a.remove_expired() == 1


@pytest.mark.long
def test_thousands_are_removed_and_collected() -> None:
    fleet = Fleet(0, 0)
    a, b = fleet.nodes
    value = wire_definition(Definition(expires_at=BEGAN + 10 * SECOND), None)
    adds = [make_cell(ADD, f"c{number}", value) for number in range(MANY)]
    a.write(lambda me: a.state.rows.write_all(me, adds))
    fleet.run(1)
    assert len(b.state.constraints) == MANY
    fleet.time += 40 * SECOND
    assert (len(a.state.constraints), len(b.state.constraints)) == (0, 0)
    fleet.run(1)
    slices = 0
    while a.remove_expired(limit=MANY // 10):
        slices += 1
    assert slices == 10
    fleet.run(1)
    assert a.state == b.state
    assert len(list(b.state.rows.each(REMOVE))) == len(b.state.rows) <= MANY // 400, "many are named in one removal"
    a.collect()
    b.collect()
    assert (len(a.state.rows), len(b.state.rows)) == (0, 0)
    fleet.run(1)
    assert a.converged
    assert b.converged


# --- the wire ----------------------------------------------------------------------------------------------------------


def test_a_ping_says_what_time_it_is_and_one_without_a_time_is_taken() -> None:
    fleet = Fleet(0.0015, 0)
    a, b = fleet.nodes
    ping = a.ping()
    assert ping.time == BEGAN + 1_500_000
    again = decode_message(encode_message(ping))
    assert isinstance(again, Ping)
    assert again.time == BEGAN + 1_000_000, "in ms"
    b.receive(again)
    assert b.time.offset("n0") == 1_000_000
    old = Ping(node=a.replica, clock=a.clock, state_hash=a.state_hash)
    decoded = decode_message(encode_message(old))
    assert isinstance(decoded, Ping)
    assert decoded.time is None
    assert b.receive(decoded).responses


def test_a_bare_constraint_costs_no_more_than_before() -> None:
    [a] = Fleet(0).nodes
    a.add_constraint("c")
    [cell] = a.state.rows.above(a.replica, 0)
    assert cell.data == b"\x92\x01\xa1c"


# --- labels ------------------------------------------------------------------------------------------------------------


def test_a_constraint_is_evaluated_where_its_labels_are() -> None:
    fleet = Fleet(0, 0, 0)
    a, b, c = fleet.nodes
    a.describe("1", labels={"zone": "a", "rack": "3"})
    b.describe("1", labels={"zone": "b"})
    a.add_constraint("everywhere", when="x < 1.0")
    a.add_constraint("zone a", when="x < 1.0", on={"zone": "a"})
    fleet.run(2)
    found = [[each.constraint for each in node.check({"x": 5})] for node in fleet.nodes]
    assert found == [["everywhere", "zone a"], ["everywhere"], ["everywhere"]]
    assert "zone a" in b.state.constraints
    fleet.run(2)
    assert c.state.metrics.constraint_violations("zone a") == 1
    assert dict(c.state.nodes["n0"].labels) == {"zone": "a", "rack": "3"}
    a.describe("2")
    assert a.labels == {"zone": "a", "rack": "3"}, "what is not said anew stays"


def test_of_several_definitions_only_those_that_apply_are_in_force_here() -> None:
    fleet = Fleet(0, 0)
    a, b = fleet.nodes
    a.describe("1", labels={"zone": "a"})
    a.add_constraint("speed", when="v < 1.0", on={"zone": "a"})
    b.add_constraint("speed", when="v < 2.0")
    fleet.run(1)
    assert [node.check({"v": 1.5})[0].verdict for node in fleet.nodes] == [Verdict.VIOLATED, Verdict.SATISFIED]
