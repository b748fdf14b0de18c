"""When the kinds find a condition, when they have no evidence, and that a step of the wall clock is no time."""

from collections.abc import Sequence
from typing import cast

import pytest

from constraint_crdt.alerts.rules import KINDS, AlertRule, Condition, Facts
from constraint_crdt.insight.changes import DefinitionClock
from constraint_crdt.insight.evidence import FIRST_HEARD, Convergence, Coverage, Evidence, Exchanges
from constraint_crdt.insight.rates import NodeRates
from constraint_crdt.protocol.gossip_node import GossipNode

SECOND = 10**9


class Peers:
    """The peers that the test says are live."""

    def __init__(self) -> None:
        self.live: set[str] = set()


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
