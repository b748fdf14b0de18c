"""When the kinds find a condition, when they have no evidence, and that a step of the wall clock is no time."""

import dataclasses
from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import pytest

from constraint_crdt.alerts import KINDS, AlertRule, Condition, Facts
from constraint_crdt.insight.evidence import FIRST_HEARD, Convergence, Coverage, DefinitionClock, Evidence, Exchanges
from constraint_crdt.insight.history import NodeRates
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
        definition_clock = DefinitionClock(self.node.state.rows)
        coverage = Coverage(self.node, self.evidence, cast("Exchanges", None), definition_clock)
        rates = NodeRates(self.node, (60.0,), now=lambda: self.monotonic / SECOND)
        self.facts = Facts(
            self.node, self.evidence, coverage, Convergence(self.node, self.evidence), rates, definition_clock,
            monotonic=lambda: self.monotonic,
        )  # fmt: skip

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
        """The conditions without the nodes that they concern."""
        return [each._replace(nodes=()) for each in KINDS[rule.kind].find(rule, self.facts)]


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


# --- rates ------------------------------------------------------------------------------------------------------------------


MANY = AlertRule(name="many", kind="rate", above=6.0)
SHARE = AlertRule(name="share", kind="rate", above_share=0.5)


def judged(watch: Watch, satisfied: int = 0, violated: int = 0) -> None:
    """Evaluations of this node, written and noted."""
    watch.node.record(satisfied, violated, constraint="x")
    watch.facts.rates.note({"x": (satisfied, violated)})


def test_a_rate_that_falls_for_lack_of_evaluations_is_unknown(watch: Watch) -> None:
    """The defect: an alert resolved when its sensor died."""
    watch.add("x")
    assert watch.found(MANY) == []
    judged(watch, violated=10)
    assert watch.found(MANY) == [("x", True)]
    watch.passes(60)
    assert watch.found(MANY) == [("x", None)]
    watch.passes(600)
    assert watch.found(MANY) == [("x", None)]
    judged(watch, satisfied=1)
    assert watch.found(MANY) == [], "it evaluates again, and holds"
    watch.passes(60)
    assert watch.found(MANY) == []


def test_a_share_without_evaluations_is_unknown_and_does_not_fire_for_ever(watch: Watch) -> None:
    """The defect: a share stays as it is while both of its parts decay."""
    watch.add("x")
    assert watch.found(SHARE) == []
    judged(watch, violated=4)
    assert watch.found(SHARE) == [("x", True)]
    watch.passes(60)
    assert watch.found(SHARE) == [("x", True)]
    watch.passes(61)
    assert watch.found(SHARE) == [("x", None)]
    assert KINDS["rate"].longest_unknown == 3600.0
    judged(watch, satisfied=9)
    assert watch.found(SHARE) == []


def test_a_share_of_before_the_start_is_unknown_until_something_is_evaluated(watch: Watch) -> None:
    watch.add("x")
    judged(watch, violated=4)
    rates = watch.facts.rates
    watch.restart()
    watch.facts = dataclasses.replace(watch.facts, rates=rates)
    assert watch.found(SHARE) == [("x", None)]
    judged(watch, violated=1)
    assert watch.found(SHARE) == [("x", True)]


# --- conflicts, budgets, clocks, certificates ------------------------------------------------------------------------------


def test_definitions_made_at_once(watch: Watch) -> None:
    rule = AlertRule(name="split", kind="conflict", constraint="x*")
    watch.add("x")
    watch.b.add_constraint("x", severity="critical")
    assert watch.found(rule) == []
    while watch.node.state_hash != watch.b.state_hash:
        for response in watch.b.receive(watch.node.begin("b")).responses:
            watch.node.receive(response)
    assert watch.conditions(rule) == [Condition("x", True, "2 definitions made at once, by b, watch: all of them are enforced")]
    assert watch.found(AlertRule(name="split", kind="conflict", constraint="y*")) == []
    watch.node.add_constraint("x")
    assert watch.found(rule) == []


def test_a_budget_that_processes_wait_for_or_that_is_almost_used_up(watch: Watch) -> None:
    figures = [SimpleNamespace(name="dock", limit=4, held=3, waiting=0), SimpleNamespace(name="power", limit=10, held=1, waiting=2)]
    watch.facts = dataclasses.replace(watch.facts, budgets=lambda: figures)
    assert watch.conditions(AlertRule(name="b", kind="budget")) == [
        Condition("power", True, "processes wait for 2; 1 of 10 are held")
    ]
    assert watch.found(AlertRule(name="b", kind="budget", above=2.0)) == []
    assert watch.conditions(AlertRule(name="b", kind="budget", above_share=0.7)) == [Condition("dock", True, "3 of 4 are held")]
    assert watch.found(AlertRule(name="b", kind="budget", budget="p*", above_share=0.7)) == []
    assert "one of" in str(KINDS["budget"].misuse(AlertRule(name="b", kind="budget", above=1.0, above_share=0.5)))


def test_a_clock_that_differs(watch: Watch) -> None:
    skew, clock = AlertRule(name="s", kind="skew"), AlertRule(name="c", kind="clock")
    assert (watch.found(skew), watch.found(clock)) == ([], [])
    ahead = GossipNode("b", incarnation=1, now=lambda: watch.wall + 30 * SECOND, renew=lambda: 2)
    watch.b = ahead
    watch.hear()
    assert [(each.subject, each.holds) for each in watch.conditions(skew)] in ([("b", True)], [("b", None)])
    assert watch.found(AlertRule(name="s", kind="skew", above=3600.0)) in ([], [("b", None)])
    assert watch.found(AlertRule(name="s", kind="skew", node="c*")) == []
    assert ("watch", True) in watch.found(clock), "one of two clocks is wrong, and each may be"
    assert watch.found(AlertRule(name="c", kind="clock", node="b")) == [("b", None)]


def test_a_certificate_that_ends_soon(watch: Watch) -> None:
    watch.hear()
    day = 86_400 * SECOND
    ends = {"watch": watch.wall + 3 * day, "b": watch.wall + 30 * day, "other": 0}
    watch.facts = dataclasses.replace(watch.facts, certificates=lambda: ends)
    assert watch.conditions(AlertRule(name="c", kind="certificate")) == [
        Condition("watch", True, "its certificate ends in 3.0 days")
    ]
    assert watch.found(AlertRule(name="c", kind="certificate", within=86_400.0)) == []
    assert watch.found(AlertRule(name="c", kind="certificate", within=31 * 86_400.0)) == [("b", True), ("watch", True)]
    ends["b"] = watch.wall - day
    assert watch.conditions(AlertRule(name="c", kind="certificate", node="b")) == [
        Condition("b", True, "its certificate ended 1.0 days ago")
    ]
