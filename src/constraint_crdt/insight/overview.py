"""The constraints of a large fleet at a glance: what a screen that shows many of them asks for, a page at a time.

Rules: an answer is bounded by the number of constraints asked for, not by how many there are; it names few nodes and counts the
others. Whether nodes have heard of a constraint is said only of those asked for by id, and only from evidence: the clocks that
peers stated.
"""

import time
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from constraint_crdt.crdt.replica import Replica
from constraint_crdt.expression.evaluation import Evaluation
from constraint_crdt.insight.answering import Answering
from constraint_crdt.insight.rates import ConstraintRate, NodeRates
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.runtime.evaluation import Tally

PAGE = 250
"""Constraints in an answer, unless fewer or more are asked for."""

LARGEST_PAGE = 1000
MOST_IDS = 100
"""Constraints that may be asked for by id at once."""

NAMED = 3
"""Nodes named where a constraint is violated: those with the most violations."""

NOTICED = 0.05
"""Of how many violations a node must have more left to be counted among those that violated a constraint lately."""

SHARE_OF_LOOP = 20
"""What took long to sum up is kept for so many times as long."""

Clock = Mapping[Replica, int]


class ConstraintOverview(msgspec.Struct, frozen=True, kw_only=True):
    """One active constraint at a glance. Of several definitions, the first."""

    id: str
    when: str | None
    severity: str
    about: str | None
    on: dict[str, str]
    added_by: str
    added_at: int | None
    """ns since the epoch by that node's clock; null if it did not say."""
    expires_at: int | None
    """When the last of its definitions ends, ns since the epoch; null if one of them does not."""
    applies_here: bool
    definitions: int
    """How many different ones are in force: more than one is a conflict."""
    satisfied: int
    violations: int
    verdict: str | None
    """The last evaluation of the node that answers: satisfied, violated, unknown; null before the first."""
    reason: str
    lately: tuple[tuple[float, float], ...]
    """What is left of the evaluations of all nodes, (satisfied, violated), at each half-life of the report."""
    evaluated_on: int
    """Nodes that evaluated it lately."""
    violated_now: int
    """Nodes on which it is violated, as far as is known here: see `node.answering.spells`."""
    violated_since: int | None
    """Since when it is so on the first of these, ns since the epoch by this node's clock; null on none."""
    violated_on: int
    """Nodes on which it was violated lately, or is now."""
    worst: tuple[str, ...]
    """Three of these: first where it is violated now, then those with the most violations lately."""
    covered: tuple[int, int, int] | None
    """Nodes known to hold its definitions (this one included), known to lack one, and without evidence; null if not asked by id."""


class OverviewReport(msgspec.Struct, frozen=True, kw_only=True):
    """A page of constraints, ordered by id."""

    half_lives: tuple[float, ...]
    """Seconds, shortest first."""
    total: int
    """How many constraints are active."""
    next: str | None
    """Ask for the page after this id; null on the last."""
    constraints: tuple[ConstraintOverview, ...]


class LatelyReport(msgspec.Struct, frozen=True, kw_only=True):
    """What is left of the evaluations of each node, all constraints together, at the shortest half-life."""

    half_life: float
    by_node: dict[str, tuple[float, float]]
    """(satisfied, violated)."""


class NodeOverview:
    """Reads; changes nothing."""

    def __init__(self, gossip: GossipNode, rates: NodeRates, tally: Tally, answering: Answering) -> None:
        self._gossip = gossip
        self._rates = rates
        self._tally = tally
        self._evidence = answering.evidence
        self._spells = answering.spells
        self._lately: tuple[float, LatelyReport] | None = None

    def page(self, after: str | None = None, limit: int = PAGE, node: str | None = None) -> OverviewReport:
        """The constraints that follow `after`, `limit` at most.

        `node`: only those that this node evaluated lately, with the recent evaluations of this node alone.
        """
        constraints = self._gossip.state.constraints
        ids = sorted(constraints if node is None else self._rates.evaluated_by(node).intersection(constraints))
        start = 0 if after is None else bisect_right(ids, after)
        wanted = ids[start : start + limit]
        last = wanted[-1] if start + limit < len(ids) and wanted else None
        return self._report(wanted, len(constraints), last, node=node)

    def of(self, ids: Iterable[str]) -> OverviewReport:
        """These constraints, and who has heard of them. Those that are not active are left out."""
        constraints = self._gossip.state.constraints
        wanted = [id_ for id_ in sorted(set(ids)) if id_ in constraints]
        return self._report(wanted, len(constraints), None, clocks=self._clocks())

    def lately(self) -> LatelyReport:
        """See `LatelyReport`. A reading that took long is kept for a while, so that readers cost the node a twentieth at most."""
        now = time.monotonic()
        if self._lately is None or now >= self._lately[0]:
            report = LatelyReport(half_life=self._rates.half_lives[0], by_node=self._rates.by_node())
            took = time.monotonic() - now
            self._lately = now + took * (SHARE_OF_LOOP + 1), report
        return self._lately[1]

    def _report(
        self,
        ids: Sequence[str],
        total: int,
        last: str | None,
        *,
        node: str | None = None,
        clocks: Sequence[Clock | None] | None = None,
    ) -> OverviewReport:
        with self._gossip.time.held():
            every = tuple(self._one(id_, node, clocks) for id_ in ids)
        return OverviewReport(
            half_lives=self._rates.half_lives,
            total=total,
            next=last,
            constraints=every,
        )

    def _one(self, id_: str, node: str | None, clocks: Sequence[Clock | None] | None) -> ConstraintOverview:
        state = self._gossip.state
        additions = state.constraints.additions(id_)
        definitions = [each.definition for each in additions]
        ends = [each.expires_at for each in definitions if each.expires_at is not None]
        first, counts, last = definitions[0], state.metrics.constraint(id_), self._tally.last(id_)
        lately = [self._rates.of(id_, half_life, node) for half_life in self._rates.half_lives]
        now = {name: since for name, since in self._violated_now(id_, last).items() if node in (None, name)}
        violated = {name: rate.violated for name, rate in lately[0].by_node.items() if name in now or rate.violated > NOTICED}
        violated |= {name: 0.0 for name in now if name not in violated}
        return ConstraintOverview(
            id=id_,
            when=first.when,
            severity=first.severity.value,
            about=first.about,
            on=dict(first.on),
            added_by=additions[0].dot.replica.node_id,
            added_at=additions[0].added_at,
            expires_at=max(ends) if len(ends) == len(definitions) else None,
            applies_here=any(each.applies_to(self._gossip.labels) for each in definitions),
            definitions=len({each.without_end() for each in definitions}),
            satisfied=counts.satisfied,
            violations=counts.violated,
            verdict=last.verdict.value if last else None,
            reason=last.reason if last else "",
            lately=tuple((_short(rate.satisfied), _short(rate.violated)) for rate in lately),
            evaluated_on=_evaluating(lately[0]),
            violated_now=len(now),
            violated_since=min(now.values(), default=None),
            violated_on=len(violated),
            worst=tuple(sorted(violated, key=lambda name: (name not in now, -violated[name], name))[:NAMED]),
            covered=None if clocks is None else _covered([(each.dot.replica, each.dot.seq) for each in additions], clocks),
        )

    def _violated_now(self, id_: str, last: Evaluation | None) -> dict[str, int]:
        """Where a constraint is violated, and since when: of this node by its own evaluations, where it makes them."""
        found, me = self._spells.told(id_), self._gossip.node_id
        if last is not None and any(last.counts):
            found.pop(me, None)
            since = self._spells.own_since(id_)
            return found if since is None else {**found, me: since}
        return found

    def _clocks(self) -> list[Clock | None]:
        """What each other node of the fleet stated to have; None of one that stated nothing yet."""
        others = (name for name in self._evidence.names if name != self._gossip.node_id)
        peers = map(self._gossip.tracker.peer, others)
        return [None if peer is None or peer.mark is None else peer.mark.entries for peer in peers]


def _evaluating(rate: ConstraintRate) -> int:
    return sum(each.satisfied + each.violated > NOTICED for each in rate.by_node.values())


def _covered(dots: Sequence[tuple[Replica, int]], clocks: Sequence[Clock | None]) -> tuple[int, int, int]:
    have = lack = unknown = 0
    for clock in clocks:
        if clock is None:
            unknown += 1
        elif all(clock.get(replica, 0) >= seq for replica, seq in dots):
            have += 1
        else:
            lack += 1
    return have + 1, lack, unknown


def _short(number: float) -> float:
    """Enough digits for a screen."""
    return float(f"{number:.4g}")
