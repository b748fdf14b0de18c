"""The constraints of a large fleet in pages, for screens.

Rules: the size of an answer depends on the number of constraints asked for, not on the number of constraints. An answer names few
nodes and counts the others. The coverage of a constraint is given only if asked by id, from the clocks of peers.
"""

import time
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence

from constraint_crdt.crdt.replica import Replica
from constraint_crdt.expression.evaluation import Evaluation
from constraint_crdt.insight.evidence import Evidence
from constraint_crdt.insight.explain import Evaluations, Spells
from constraint_crdt.insight.rates import NodeRates
from constraint_crdt.operations.constraints import reported_fields
from constraint_crdt.operations.counts import OVERVIEW_PAGE, ConstraintOverview, ConstraintRate, LatelyReport, OverviewReport
from constraint_crdt.protocol.gossip_node import GossipNode

NAMED = 3
"""Nodes named where a constraint is violated: those with the most violations."""

NOTICED = 0.05
"""A node counts as recently violating a constraint while more than this number of violations remains."""

SHARE_OF_LOOP = 20
"""A slow sum is cached for this multiple of its duration."""

Clock = Mapping[Replica, int]


class NodeOverview:
    """Reads; changes nothing."""

    def __init__(self, gossip: GossipNode, rates: NodeRates, evaluations: Evaluations, evidence: Evidence, spells: Spells) -> None:
        self._gossip = gossip
        self._rates = rates
        self._evaluations = evaluations
        self._evidence = evidence
        self._spells = spells
        self._lately: tuple[float, LatelyReport] | None = None

    def page(self, after: str | None = None, limit: int = OVERVIEW_PAGE, node: str | None = None) -> OverviewReport:
        """The constraints after `after`, `limit` at most.

        `node`: only the constraints with recent evaluations by this node, and only those evaluations.
        """
        constraints = self._gossip.state.constraints
        ids = sorted(constraints if node is None else self._rates.evaluated_by(node).intersection(constraints))
        start = 0 if after is None else bisect_right(ids, after)
        wanted = ids[start : start + limit]
        last = wanted[-1] if start + limit < len(ids) and wanted else None
        return self._report(wanted, len(constraints), last, node=node)

    def of(self, ids: Iterable[str]) -> OverviewReport:
        """These constraints with their coverage. Inactive constraints are left out."""
        constraints = self._gossip.state.constraints
        wanted = [id_ for id_ in sorted(set(ids)) if id_ in constraints]
        return self._report(wanted, len(constraints), None, clocks=self._clocks())

    def lately(self) -> LatelyReport:
        """See `LatelyReport`. A slow report is cached: readers take a twentieth of the loop's time at most."""
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
        first, counts, last = definitions[0], state.metrics.constraint(id_), self._evaluations.last(id_)
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
            **reported_fields(first),
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
        """The nodes on which a constraint is violated, and since when; for this node from its own evaluations."""
        found, me = self._spells.told(id_), self._gossip.node_id
        if last is not None and any(last.counts):
            found.pop(me, None)
            since = self._spells.own_since(id_)
            return found if since is None else {**found, me: since}
        return found

    def _clocks(self) -> list[Clock | None]:
        """The last clock of each other node of the fleet; None without evidence."""
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
