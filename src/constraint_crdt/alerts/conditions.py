"""What the rules of a node find at this moment: the subjects of which each is so, or of which nobody can tell.

A subject that is not named is well. One that nobody can tell of (a node that has said nothing since this one started) neither
begins an alert nor ends one.
"""

from collections.abc import Iterator
from typing import NamedTuple

from constraint_crdt.alerts.rules import AlertRule
from constraint_crdt.crdt.clock import SECOND
from constraint_crdt.insight.changes import DefinitionFrontier
from constraint_crdt.insight.coverage import Coverage
from constraint_crdt.insight.evidence import Convergence, Evidence
from constraint_crdt.insight.rates import NodeRates
from constraint_crdt.protocol.gossip_node import GossipNode

NAMED = 10
"""Nodes named in a sentence; of more it says how many."""


class Found(NamedTuple):
    """What a rule finds of one subject."""

    subject: str
    is_so: bool | None
    """None: nobody can tell."""
    detail: str = ""


class Conditions:
    """Looks at one node for what rules are about."""

    def __init__(
        self,
        gossip: GossipNode,
        evidence: Evidence,
        coverage: Coverage,
        convergence: Convergence,
        rates: NodeRates,
        frontier: DefinitionFrontier,
    ) -> None:
        self._gossip = gossip
        self._evidence = evidence
        self._coverage = coverage
        self._convergence = convergence
        self._rates = rates
        self._frontier = frontier

    def find(self, rule: AlertRule) -> Iterator[Found]:
        """What a rule finds now. O(constraints that were ever violated) for a rate, O(nodes) mostly for the others."""
        match rule.kind:
            case "rate":
                return self._rate(rule)
            case "coverage":
                return self._lacking(rule)
            case "divergence":
                return self._diverged(rule)
            case "silence":
                return self._silent(rule)

    def _rate(self, rule: AlertRule) -> Iterator[Found]:
        metrics = self._gossip.state.metrics
        half_life = rule.half_life or self._rates.half_lives[0]
        for id_ in self._gossip.state.constraints:
            if not rule.is_about(constraint=id_) or not metrics.constraint(id_).violated:
                continue
            rate = self._rates.of(id_, half_life)
            if rule.above is not None and rate.violated_per_minute > rule.above:
                yield Found(id_, True, f"{rate.violated_per_minute:.2f} violations a minute, half-life {half_life:g} s")
            elif rule.above_share is not None and (rate.violated_share or 0.0) > rule.above_share:
                yield Found(id_, True, f"{100 * (rate.violated_share or 0.0):.2f} % violated, half-life {half_life:g} s")

    def _lacking(self, rule: AlertRule) -> Iterator[Found]:
        frontier, evidence = self._frontier.dots, self._evidence
        live = [name for name in evidence.names if evidence.is_live(name) and rule.is_about(node=name)]
        behind = {name: holds for name in live if not (holds := evidence.holds(name, frontier))}
        if not behind:
            return
        for id_ in self._gossip.state.constraints:
            if not rule.is_about(constraint=id_):
                continue
            _, dots = self._coverage.change(id_)
            held = {name: evidence.holds(name, dots) for name in behind}
            lacking = [name for name, holds in held.items() if holds is False]
            if lacking:
                more = f" and {len(lacking) - NAMED} more" if len(lacking) > NAMED else ""
                yield Found(id_, True, f"no evidence that {', '.join(lacking[:NAMED])}{more} heard of it")
            elif None in held.values():
                yield Found(id_, None)

    def _diverged(self, rule: AlertRule) -> Iterator[Found]:
        evidence = self._evidence
        for name in evidence.names:
            if name == self._gossip.node_id or not rule.is_about(node=name):
                continue
            stale = self._convergence.staleness(name) if evidence.is_live(name) else None
            if evidence.diverged_since(name) is not None:
                yield Found(name, True, "at this node's clock it had another state: one of the two is damaged")
            elif rule.above is not None and stale is not None and stale > rule.above:
                yield Found(name, True, f"it lacks what became known here {stale:.0f} s ago")
            elif evidence.heard_at(name) is None:
                yield Found(name, None)

    def _silent(self, rule: AlertRule) -> Iterator[Found]:
        evidence = self._evidence
        for name in evidence.names:
            if rule.is_about(node=name) and not evidence.is_live(name):
                heard = evidence.heard_at(name)
                since = "not heard since this node started"
                if heard is not None:
                    since = f"last heard {(evidence.now() - heard) / SECOND:.0f} s ago"
                yield Found(name, True, since)
