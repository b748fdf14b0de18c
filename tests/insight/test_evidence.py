"""What is remembered of changes and of peers, against a plain model: random writes, exchanges, partial hearing, and new lives."""

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from constraint_crdt.crdt.clock import Dot, Replica
from constraint_crdt.insight import evidence as changes
from constraint_crdt.insight.evidence import ChangeLog, Convergence, Evidence, quantile
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.types.definition import ADD

NAMES = ("a", "b", "c")


class Peers:
    """Two peers, always live."""

    live = frozenset("bc")
    away: frozenset[str] = frozenset()


class FleetOfEvidence(RuleBasedStateMachine):
    """Node `a` follows its peers; the model keeps, of each peer, its state as of when it last spoke with `a`."""

    ids = Bundle("ids")

    @initialize()
    def start(self) -> None:
        self.time = 1
        self.lives = 0
        self.nodes = {name: self.born(name) for name in NAMES}
        self.me = self.nodes["a"]
        self.evidence = Evidence(self.me, Peers(), lambda: self.time)
        self.evidence.begin()
        self.stated: dict[str, dict[Replica, int]] = {}
        self.known_at: dict[Dot, int] = {}
        self.shown_at: dict[tuple[str, Dot], int] = {}
        self.lacks_since: dict[str, int | None] = {}
        self.spoken: dict[str, Replica] = {}

    def born(self, name: str) -> GossipNode:
        self.lives += 1
        renewals = iter(range(1000 * self.lives + 1, 1000 * self.lives + 1000))
        return GossipNode(name, incarnation=1000 * self.lives, now=lambda: self.time, renew=lambda: next(renewals))

    @rule(target=ids, name=st.sampled_from(NAMES), id_=st.sampled_from("xyz"), about=st.sampled_from(("1", "2")))
    def add(self, name: str, id_: str, about: str) -> str:
        self.time += 1
        self.nodes[name].add_constraint(id_, about=about)
        self.happened(name)
        return id_

    @rule(name=st.sampled_from(NAMES), id_=ids)
    def remove(self, name: str, id_: str) -> None:
        if id_ in self.nodes[name].state.constraints:
            self.time += 1
            self.nodes[name].remove_constraint(id_)
            self.happened(name)

    @rule(name=st.sampled_from(NAMES))
    def count(self, name: str) -> None:
        self.time += 1
        self.nodes[name].record(satisfied=1)
        self.happened(name)

    @rule(name=st.sampled_from("bc"), messages=st.integers(1, 6), mine=st.booleans())
    def talk(self, name: str, messages: int, mine: bool) -> None:
        """An exchange of which only the first messages arrive."""
        peer = self.nodes[name]
        sender, reader = (self.me, peer) if mine else (peer, self.me)
        waiting = [(sender, reader, sender.begin(reader.node_id))]
        while waiting and messages:
            messages -= 1
            self.time += 1
            sender, reader, message = waiting.pop(0)
            result = reader.receive(message)
            if reader is self.me:
                clock = self.me.tracker.clock(name)
                if clock is not None:
                    self.stated[name] = clock.as_dict()
                self.learned()
                self.evidence.heard(name, diverged=result.diverged)
                self.showed(name)
            waiting += [(reader, sender, response) for response in result.responses]

    @rule(first=st.sampled_from("bc"))
    def between_the_others(self, first: str) -> None:
        other = self.nodes["c" if first == "b" else "b"]
        waiting = [(self.nodes[first], other, self.nodes[first].begin(other.node_id))]
        while waiting:
            sender, reader, message = waiting.pop(0)
            waiting += [(reader, sender, response) for response in reader.receive(message).responses]

    @rule(name=st.sampled_from("bc"))
    def comes_back_empty(self, name: str) -> None:
        self.nodes[name] = self.born(name)

    @rule()
    def collect(self) -> None:
        self.me.collect()

    def happened(self, name: str) -> None:
        if name == "a":
            self.learned()
            self.evidence.moved()

    def learned(self) -> None:
        for row, seq in self.me.clock.items():
            for number in range(1, seq + 1):
                self.known_at.setdefault(Dot(row, number), self.time)
        for name, stated in self.stated.items():
            for dot in self.known_at:
                if stated.get(dot.replica, 0) >= dot.seq:
                    self.shown_at.setdefault((name, dot), self.time)
            if self.lacks_since.get(name) is None and not self.covers(stated):
                self.lacks_since[name] = self.time

    def covers(self, stated: dict[Replica, int]) -> bool:
        return all(stated.get(row, 0) >= seq for row, seq in self.me.clock.items())

    def showed(self, name: str) -> None:
        peer = self.me.tracker.peer(name)
        if peer is not None and self.spoken.get(name) != peer.replica:
            self.spoken[name] = peer.replica
            self.lacks_since[name] = None
            self.shown_at = {key: at for key, at in self.shown_at.items() if key[0] != name}
        stated = self.stated.get(name)
        if peer is None or peer.mark is None:  # it lives anew, and has said no clock yet
            self.stated.pop(name, None)
            self.shown_at = {key: at for key, at in self.shown_at.items() if key[0] != name}
            if peer is not None and self.lacks_since.get(name) is None:
                self.lacks_since[name] = self.time
            return
        assert stated is not None
        for dot in [dot for (who, dot) in self.shown_at if who == name]:
            if stated.get(dot.replica, 0) < dot.seq:
                del self.shown_at[name, dot]
        for dot in self.known_at:
            if stated.get(dot.replica, 0) >= dot.seq:
                self.shown_at.setdefault((name, dot), self.time)
        if self.covers(stated):
            self.lacks_since[name] = None
        elif self.lacks_since.get(name) is None:
            self.lacks_since[name] = self.time

    @invariant()
    def nothing_is_assumed(self) -> None:
        for name in "bc":
            stated = self.stated.get(name)
            for dot, known_at in self.known_at.items():
                expected = None if stated is None else stated.get(dot.replica, 0) >= dot.seq
                assert self.evidence.holds(name, [dot]) is expected
                change = self.evidence.changes.change(dot)
                if change is not None:
                    assert change.known_at == known_at
                    if expected:
                        assert change.heard.get(name) == self.shown_at[name, dot]
                if expected:
                    assert self.nodes[name].clock[dot.replica] >= dot.seq or self.nodes[name].replica.incarnation != self.life(name)
            if stated is not None:
                lacking = sum(max(0, seq - stated.get(row, 0)) for row, seq in self.me.clock.items())
                assert self.evidence.behind(name) == lacking
                assert (self.evidence.lacks_since(name) is None) is (lacking == 0)
                assert self.evidence.lacks_since(name) == self.lacks_since[name]
                assert Convergence(self.me, self.evidence).peer(name).behind == lacking

    @invariant()
    def every_standing_definition_since_the_start_is_remembered(self) -> None:
        for cell in self.me.state.rows.each(ADD):
            assert self.evidence.changes.change(Dot(cell.replica, cell.seq)) is not None

    def life(self, name: str) -> int:
        peer = self.me.tracker.peer(name)
        assert peer is not None
        return peer.replica.incarnation


TestFleetOfEvidence = FleetOfEvidence.TestCase


def node(name: str, incarnation: int = 1) -> GossipNode:
    return GossipNode(name, incarnation=incarnation, now=lambda: 0, renew=lambda: incarnation + 1)


def test_only_so_many_changes_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "ADDITIONS", 3)
    monkeypatch.setattr(changes, "REMOVALS", 2)
    me = node("a")
    log = ChangeLog(me.state.rows, lambda: 7)
    log.begin()
    for number in range(5):
        me.add_constraint(f"c{number}")
    remembered = [log.change(Dot(me.replica, seq)) is not None for seq in range(1, 6)]
    assert remembered == [False, False, True, True, True]
    for number in range(4):
        me.remove_constraint(f"c{number}")
    assert [len(log.removals(f"c{number}")) for number in range(4)] == [0, 0, 1, 1]
    assert log.removals("c3")[0].removed == {"c3": (Dot(me.replica, 4),)}


def test_only_so_many_times_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "HEARD", 10)
    me = node("a")
    log = ChangeLog(me.state.rows, lambda: 7)
    log.begin()
    for number in range(6):
        me.add_constraint(f"c{number}")
    for peer in "bcd":
        log.showed(peer, me.clock.as_dict())
    kept = [log.change(Dot(me.replica, seq)) for seq in range(1, 7)]
    assert sum(len(each.heard) for each in kept if each is not None) <= 10
    assert kept[0] is None
    assert kept[-1] is not None
    assert kept[-1].heard == dict.fromkeys("bcd", 7)
    log.lost("b")
    assert kept[-1].heard == dict.fromkeys("cd", 7)


def test_what_was_there_before_the_start_has_no_time() -> None:
    me = node("a")
    me.add_constraint("old")
    me.add_constraint("gone")
    log = ChangeLog(me.state.rows, lambda: 7)
    me.remove_constraint("gone")
    log.begin()
    assert log.change(Dot(me.replica, 1)) is None
    (removal,) = log.removals("gone")
    assert removal.known_at is None


@pytest.mark.parametrize(
    ("ordered", "share", "expected"),
    [
        ([], 0.5, None),
        ([3.0], 0.5, 3.0),
        ([1.0, 2.0], 0.5, 1.0),
        ([1.0, 2.0, 3.0], 0.5, 2.0),
        ([float(n) for n in range(200)], 0.99, 197.0),
    ],
)
def test_quantiles(ordered: list[float], share: float, expected: float | None) -> None:
    assert quantile(ordered, share) == expected
