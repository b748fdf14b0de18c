"""The kinds of alert rule: what each reads, whom it is about, its parameters, and its sentence.

| kind | fires for each | that | parameters |
|---|---|---|---|
| rate | constraint | is violated more often than `above` or `above_share` | constraint, half_life, above or above_share, for |
| coverage | active constraint | a live node has not heard of | constraint, node, for (10) |
| divergence | node | was found damaged; with `above`: or is staler than so many seconds | node, above, for |
| silence | node | is not live | node, for (30) |

To add a kind: write its class here and list it in `KINDS`. The rules, the engine, the events and the metrics read the rest from it.

A kind yields a `Condition` for each subject whose condition holds, and for each subject without evidence. A subject that is left
out is well. A condition without evidence neither begins an alert nor ends one.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import ClassVar, Final, Literal, NamedTuple

import msgspec

from constraint_crdt.crdt.clock import SECOND
from constraint_crdt.insight.changes import DefinitionFrontier
from constraint_crdt.insight.coverage import Coverage
from constraint_crdt.insight.evidence import Convergence, Evidence
from constraint_crdt.insight.rates import NodeRates
from constraint_crdt.protocol.gossip_node import GossipNode

LOG: Final = "log"

NAMED = 10
"""Nodes named in a sentence. Further nodes are counted."""

About = Literal["constraint", "node", "fleet"]
"""What the subject of an alert is."""


class AlertRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[alert]]` of the settings: a kind, its parameters, and the places to notify."""

    name: str
    kind: str
    """A key of `KINDS`."""
    constraint: str | None = None
    """A pattern of constraint ids, with * and ?."""
    node: str | None = None
    """A pattern of node names, with * and ?."""
    half_life: float | None = None
    """Seconds. The shortest half-life tracked by the node if left out."""
    above: float | None = None
    above_share: float | None = None
    for_: float | None = msgspec.field(default=None, name="for")
    """Seconds for which the condition must hold. The default of the kind if left out."""
    to: tuple[str, ...] = (LOG,)
    """`log`, or addresses of webhooks."""

    @property
    def lasts(self) -> float:
        """Seconds for which the condition must hold before the alert fires."""
        return KINDS[self.kind].lasts if self.for_ is None else self.for_

    @property
    def about(self) -> About:
        """What the subjects of this rule's alerts are."""
        return KINDS[self.kind].about

    def is_about(self, *, constraint: str | None = None, node: str | None = None) -> bool:
        """True if the patterns of the rule match these names."""
        pairs = ((self.constraint, constraint), (self.node, node))
        return all(pattern is None or name is None or fnmatchcase(name, pattern) for pattern, name in pairs)


class Condition(NamedTuple):
    """The condition of a rule, evaluated for one subject."""

    subject: str
    """The constraint id, the node name or, for a rule about the fleet, the fleet name."""
    holds: bool | None
    """None: there is no evidence."""
    detail: str = ""


@dataclass(frozen=True)
class Facts:
    """What the kinds read of a node."""

    gossip: GossipNode
    evidence: Evidence
    coverage: Coverage
    convergence: Convergence
    rates: NodeRates
    frontier: DefinitionFrontier


class AlertKind(ABC):
    """One kind of rule."""

    name: ClassVar[str]
    about: ClassVar[About]
    parameters: ClassVar[tuple[str, ...]]
    """The fields of a rule that this kind takes, beside those that all kinds take."""
    lasts: ClassVar[float] = 0.0
    """The default of `for`, in seconds."""

    def misuse(self, rule: AlertRule) -> str | None:  # noqa: ARG002 - most kinds take any combination of their parameters
        """Why the parameters of a rule do not go together; None if they do."""
        return None

    @abstractmethod
    def find(self, rule: AlertRule, facts: Facts) -> Iterator[Condition]:
        """The subjects whose condition holds now, and those without evidence."""


class Rate(AlertKind):
    """A constraint is violated too often lately. O(constraints that were ever violated)."""

    name = "rate"
    about = "constraint"
    parameters = ("constraint", "half_life", "above", "above_share")

    def misuse(self, rule: AlertRule) -> str | None:
        if (rule.above is None) is (rule.above_share is None):
            return "kind rate takes one of `above` (violations a minute) and `above_share` (of the evaluations)"
        return None

    def find(self, rule: AlertRule, facts: Facts) -> Iterator[Condition]:
        state, rates = facts.gossip.state, facts.rates
        half_life = rule.half_life or rates.half_lives[0]
        for id_ in state.constraints:
            if not rule.is_about(constraint=id_) or not state.metrics.constraint(id_).violated:
                continue
            rate = rates.of(id_, half_life)
            if rule.above is not None and rate.violated_per_minute > rule.above:
                yield Condition(id_, True, f"{rate.violated_per_minute:.2f} violations a minute, half-life {half_life:g} s")
            elif rule.above_share is not None and (rate.violated_share or 0.0) > rule.above_share:
                yield Condition(id_, True, f"{100 * (rate.violated_share or 0.0):.2f} % violated, half-life {half_life:g} s")


class Unheard(AlertKind):
    """A live node lacks an active constraint. O(nodes) while all have every definition."""

    name = "coverage"
    about = "constraint"
    parameters = ("constraint", "node")
    lasts = 10.0

    def find(self, rule: AlertRule, facts: Facts) -> Iterator[Condition]:
        evidence, dots = facts.evidence, facts.frontier.dots
        live = [name for name in evidence.names if evidence.is_live(name) and rule.is_about(node=name)]
        behind = [name for name in live if not evidence.holds(name, dots)]
        if not behind:
            return
        for id_ in facts.gossip.state.constraints:
            if not rule.is_about(constraint=id_):
                continue
            _, dots = facts.coverage.change(id_)
            held = {name: evidence.holds(name, dots) for name in behind}
            lacking = [name for name, holds in held.items() if holds is False]
            if lacking:
                more = f" and {len(lacking) - NAMED} more" if len(lacking) > NAMED else ""
                yield Condition(id_, True, f"no evidence that {', '.join(lacking[:NAMED])}{more} heard of it")
            elif None in held.values():
                yield Condition(id_, None)


class Divergence(AlertKind):
    """A node's state is damaged, or too stale. O(nodes)."""

    name = "divergence"
    about = "node"
    parameters = ("node", "above")

    def find(self, rule: AlertRule, facts: Facts) -> Iterator[Condition]:
        evidence = facts.evidence
        for name in evidence.names:
            if name == facts.gossip.node_id or not rule.is_about(node=name):
                continue
            stale = facts.convergence.staleness(name) if evidence.is_live(name) else None
            if evidence.diverged_since(name) is not None:
                yield Condition(name, True, "at this node's clock it had another state: one of the two is damaged")
            elif rule.above is not None and stale is not None and stale > rule.above:
                yield Condition(name, True, f"it lacks what became known here {stale:.0f} s ago")
            elif evidence.heard_at(name) is None:
                yield Condition(name, None)


class Silence(AlertKind):
    """A node is not live. O(nodes)."""

    name = "silence"
    about = "node"
    parameters = ("node",)
    lasts = 30.0

    def find(self, rule: AlertRule, facts: Facts) -> Iterator[Condition]:
        evidence = facts.evidence
        for name in evidence.names:
            if rule.is_about(node=name) and not evidence.is_live(name):
                heard = evidence.heard_at(name)
                since = "not heard since this node started"
                if heard is not None:
                    since = f"last heard {(evidence.now() - heard) / SECOND:.0f} s ago"
                yield Condition(name, True, since)


KINDS: dict[str, AlertKind] = {kind.name: kind for kind in (Rate(), Unheard(), Divergence(), Silence())}
"""The kinds by name, in the order in which metrics list them."""


class Conditions:
    """Evaluates the conditions of rules on one node."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def find(self, rule: AlertRule) -> Iterator[Condition]:
        """The conditions of a rule now."""
        return KINDS[rule.kind].find(rule, self._facts)
