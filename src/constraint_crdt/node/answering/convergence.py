"""Convergence: how each peer stands to this node, since when, and how stale the fleet is.

*Staleness* of a peer, in seconds: 0 while the last clock that it gave evidence of covers everything known here; else the age of
the first change here that it does not cover. So it bounds from above how far behind the peer is: it may have heard from others what
it has not told this node yet. The staleness of the fleet is that of its live peers, as quantiles: q is the least value that at
least the share q of them do not exceed.
"""

from math import ceil

from constraint_crdt.core.hybrid import SECOND
from constraint_crdt.gossip.protocol import GossipNode
from constraint_crdt.node.answering.evidence import Evidence
from constraint_crdt.node.answering.reports import ConvergenceReport, PeerConvergence


class Convergence:
    """How the fleet stands to one node."""

    def __init__(self, gossip: GossipNode, evidence: Evidence) -> None:
        self._gossip = gossip
        self._evidence = evidence

    def report(self) -> ConvergenceReport:
        """How each peer stands to this node. O(nodes x rows) where they differ, else O(nodes)."""
        me = self._gossip.node_id
        peers = tuple(self.peer(name) for name in self._evidence.names if name != me)
        live = [each for each in peers if self._evidence.is_live(each.node)]
        stale = sorted(each.staleness for each in live if each.staleness is not None)
        return ConvergenceReport(
            node=me,
            peers=peers,
            same=sum(each.state == "same" for each in live),
            live=len(live),
            staleness_p50=quantile(stale, 0.50),
            staleness_p99=quantile(stale, 0.99),
        )

    def staleness(self, name: str) -> float | None:
        """Seconds since the first change here that a peer gave no evidence of; 0 if there is none, None without evidence."""
        evidence = self._evidence
        if evidence.holds(name, ()) is None:
            return None
        since = evidence.lacks_since(name)
        if since is None:
            return 0.0
        return max(0.0, (evidence.now() - since) / SECOND)

    def peer(self, name: str) -> PeerConvergence:
        """How one peer stands to this node. O(rows) where they differ."""
        evidence = self._evidence
        behind = evidence.behind(name)
        ahead = None if behind is None else evidence.ahead(name, behind)
        state, since = self._state(name, behind, ahead)
        return PeerConvergence(
            node=name,
            state=state,
            since=since,
            behind=behind,
            ahead=ahead,
            staleness=self.staleness(name),
            heard=evidence.heard_at(name),
        )

    def _state(self, name: str, behind: int | None, ahead: int | None) -> tuple[str, int | None]:
        evidence = self._evidence
        if not evidence.is_live(name):
            return "unreachable", evidence.heard_at(name)
        if evidence.diverged_since(name) is not None:
            return "diverged", evidence.diverged_since(name)
        if behind is None or ahead is None:
            return "unknown", None
        if behind:
            return "apart" if ahead else "behind", evidence.lacks_since(name)
        return "ahead" if ahead else "same", evidence.has_all_since(name)


def quantile(ordered: list[float], share: float) -> float | None:
    """The least value that at least this share of them does not exceed; None if there are none."""
    return ordered[max(0, ceil(share * len(ordered)) - 1)] if ordered else None
