"""When the kinds find a condition, when they have no evidence, and that a step of the wall clock is no time."""

from collections.abc import Sequence
from typing import cast

import pytest

from constraint_crdt.alerts import KINDS, AlertRule, Condition, Facts
from constraint_crdt.insight.evidence import FIRST_HEARD, Convergence, Coverage, Evidence, Exchanges
from constraint_crdt.insight.history import DefinitionClock, NodeRates
from constraint_crdt.model import VerdictState
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.types.verdicts import NodeVerdict

SECOND = 10**9


class Peers:
    """The peers that the test says are live."""

    def __init__(self) -> None:
        self.live: set[str] = set()
        self.away: set[str] = set()


class Watch:
    """A node `watch` with evidence of a peer `b`, on two clocks of the test."""

    def __init__(self) -> None:
        self.wall, self.monotonic = 10**18, 5 * SECOND
        self.node = self.born("watch")
        self.b = self.born("b")
        self.peers = Peers()
        self.restart()

    def born(self, name: str) -> GossipNode:
        return GossipNode(name, incarnation=1, now=lambda: self.wall, renew=lambda: 2)

    def restart(self) -> None:
        """The state stays, and the evidence is lost."""
        self.peers.live.clear()
        self.evidence = Evidence(self.node, self.peers, lambda: self.wall, lambda: self.monotonic)
        self.evidence.begin()
        frontier = DefinitionClock(self.node.state.rows)
        coverage = Coverage(self.node, self.evidence, cast("Exchanges", None), frontier)
        rates = NodeRates(self.node, (60.0,), now=lambda: self.monotonic / SECOND)
        self.facts = Facts(self.node, self.evidence, coverage, Convergence(self.node, self.evidence), rates, frontier)

    def passes(self, seconds: int) -> None:
        self.monotonic += seconds * SECOND
        self.wall += seconds * SECOND

    def hear(self) -> None:
        """A message of `b`, and none back."""
        self.peers.live.add("b")
        self.node.receive(self.b.begin("watch"))
        self.evidence.heard("b")

    def add(self, id_: str) -> None:
        self.node.add_constraint(id_)
        self.evidence.moved()

    def found(self, rule: AlertRule) -> Sequence[tuple[str, bool | None]]:
        return [(each.subject, each.holds) for each in self.conditions(rule)]

    def conditions(self, rule: AlertRule) -> list[Condition]:
        return list(KINDS[rule.kind].find(rule, self.facts))


@pytest.fixture
def watch() -> Watch:
    return Watch()


STALE = AlertRule(name="stale", kind="divergence", above=100.0)
UNHEARD = AlertRule(name="unheard", kind="coverage")


@pytest.mark.parametrize("step", [-7200, 7200])
def test_a_step_of_the_wall_clock_makes_no_node_stale_and_heals_none(watch: Watch, step: int) -> None:
    watch.hear()
    watch.add("x")
    watch.wall += step * SECOND
    assert watch.found(STALE) == []
    watch.passes(101)
    assert watch.found(STALE) == [("b", True)]
    watch.wall -= step * SECOND
    assert watch.found(STALE) == [("b", True)]


def test_a_stale_node_that_is_not_live_is_without_evidence(watch: Watch) -> None:
    """It may have heard of the changes meanwhile, or may not: the alert stays."""
    watch.hear()
    watch.add("x")
    watch.passes(101)
    watch.peers.live.clear()
    assert watch.found(STALE) == [("b", None)]
    assert watch.found(AlertRule(name="damaged", kind="divergence")) == []


def test_a_node_that_has_just_started_has_no_evidence_of_the_coverage(watch: Watch) -> None:
    """An alert of before the start goes on until the peers were heard, or could have been."""
    watch.node.receive(watch.b.begin("watch"))
    watch.b.add_constraint("of b")
    for response in watch.node.receive(watch.b.begin("watch")).responses:
        for back in watch.b.receive(response).responses:
            watch.node.receive(back)
    assert "b" in watch.evidence.names
    watch.hear()
    watch.add("x")
    assert watch.found(UNHEARD) == [("x", True)]
    watch.restart()
    assert watch.found(UNHEARD) == [("of b", None), ("x", None)]
    watch.monotonic += FIRST_HEARD - 1
    assert watch.found(UNHEARD) == [("of b", None), ("x", None)]
    assert watch.found(AlertRule(name="unheard", kind="coverage", node="c*")) == []
    watch.monotonic += 1
    assert watch.found(UNHEARD) == [], "b is not live"
    watch.restart()
    watch.hear()
    assert watch.found(UNHEARD) == [("x", True)]


def test_a_rule_is_about_the_nodes_that_its_selector_matches(watch: Watch) -> None:
    watch.b.describe("1", (), {"zone": "b"})
    watch.hear()
    watch.node.receive(watch.b.begin("watch"))
    for response in watch.node.receive(watch.b.begin("watch")).responses:
        for back in watch.b.receive(response).responses:
            watch.node.receive(back)
    watch.add("x")
    watch.peers.live.clear()
    for on, found in (("zone in (b, c)", ["b"]), ("zone!=b", []), ("!spare, node!=x", ["b"]), ("spare", [])):
        rule = AlertRule(name="away", kind="silence", on=on)
        assert [each.subject for each in watch.conditions(rule)] == found
    for on, holds in (("zone=b", [("x", True)]), ("zone=a", [])):
        watch.peers.live.add("b")
        assert watch.found(AlertRule(name="unheard", kind="coverage", on=on)) == holds


# --- unknown --------------------------------------------------------------------------------------------------------------


def unknown(reason: str = "", state: VerdictState = VerdictState.UNKNOWN) -> NodeVerdict:
    return NodeVerdict(state, since=1, reason=reason)


BLIND = AlertRule(name="blind", kind="unknown")


def test_a_constraint_that_cannot_be_decided_on_a_live_node(watch: Watch) -> None:
    watch.add("x")
    watch.add("y")
    assert watch.conditions(BLIND) == []
    watch.node.record_verdicts({"y": unknown("no measurement of t"), "x": unknown(state=VerdictState.PENDING)})
    assert watch.conditions(BLIND) == [Condition("y", True, "unknown on watch: no measurement of t")]
    watch.node.record_verdicts({"x": unknown()})
    assert watch.conditions(BLIND) == [
        Condition("x", True, "unknown on watch"),
        Condition("y", True, "unknown on watch: no measurement of t"),
    ]
    assert watch.found(AlertRule(name="blind", kind="unknown", constraint="x*")) == [("x", True)]
    assert watch.found(AlertRule(name="blind", kind="unknown", node="b*")) == []
    watch.node.record_verdicts({"y": unknown(state=VerdictState.VIOLATED), "x": None})
    assert watch.conditions(BLIND) == []
    assert BLIND.lasts == 60.0


def test_what_a_node_that_is_not_live_told_last_is_no_evidence(watch: Watch) -> None:
    watch.b.add_constraint("x")
    watch.b.record_verdicts({"x": unknown("no measurement of t")})
    while watch.node.state_hash != watch.b.state_hash:
        (response,) = watch.b.receive(watch.node.begin("b")).responses
        watch.node.receive(response)
    watch.hear()
    assert watch.conditions(BLIND) == [Condition("x", True, "unknown on b: no measurement of t")]
    watch.peers.live.clear()
    assert watch.conditions(BLIND) == [Condition("x", None)]
    watch.node.record_verdicts({"x": unknown("no measurement of t")})
    assert watch.conditions(BLIND) == [Condition("x", True, "unknown on watch: no measurement of t")]


def test_a_constraint_that_has_ended_is_not_unknown(watch: Watch) -> None:
    watch.node.add_constraint("x", ttl=60)
    watch.node.record_verdicts({"x": unknown()})
    assert watch.found(BLIND) == [("x", True)]
    watch.passes(61)
    assert "x" not in watch.node.state.constraints
    assert watch.found(BLIND) == []
