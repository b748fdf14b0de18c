"""What each peer has shown to have, followed over time.

The tracker of the gossip knows the last clock that each peer gave evidence of. Here is what becomes of that from message to
message: when a peer was last heard, since when it lacks something that is known here, and when it showed each recent change.

A peer *has all* at a moment if the last clock that it gave evidence of covers this node's own. It *lacks* something from the first
change here that its evidence does not cover, until its evidence covers everything again.

Convergence: how each peer stands to this node, since when, and how stale the fleet is.

*Staleness* of a peer, in seconds: 0 while the last clock that it gave evidence of covers everything known here; else the age of
the first change here that it does not cover. So it bounds from above how far behind the peer is: it may have heard from others what
it has not told this node yet. The staleness of the fleet is that of its live peers, as quantiles: q is the least value that at
least the share q of them do not exceed.
"""

import asyncio
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from math import ceil

from constraint_crdt.crdt.clock import SECOND, ClockMark
from constraint_crdt.crdt.replica import Dot
from constraint_crdt.insight.changes import ChangeLog
from constraint_crdt.insight.reports import ConvergenceReport, PeerConvergence
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.protocol.peer_clocks import Peer


class Evidence:
    """The evidence that one node has of its peers. `now`: ns since the epoch."""

    def __init__(self, gossip: GossipNode, live: Callable[[], Collection[str]], now: Callable[[], int]) -> None:
        self._gossip = gossip
        self._live = live
        self.now = now
        self.changes = ChangeLog(gossip.state.rows, now)
        self._count = -1
        self._lives: dict[str, Peer] = {}
        self._heard: dict[str, int] = {}
        self._has_all: dict[str, int] = {}
        self._ahead: set[str] = set()
        """Peers that gave evidence of something which is not known here."""
        self._lacks: dict[str, int] = {}
        self._diverged: dict[str, int] = {}
        self._stirred: set[asyncio.Event] = set()

    def begin(self) -> None:
        """The node starts now: what it knows, it knew before."""
        self._count = self._gossip.state.rows.clock_mark.count
        self.changes.begin()

    # --- following ---------------------------------------------------------------------------------------------------

    def moved(self) -> None:
        """Something may have changed here. Amortised O(1) a message, and O(rows) for each peer that is ahead."""
        count = self._gossip.state.rows.clock_mark.count
        if count == self._count:
            return
        self._count = count
        now, ahead = self.now(), {name: self._mark(name) for name in self._ahead}
        kept = {}
        for name, since in self._has_all.items():
            mark = ahead.get(name)
            if mark is not None and not self._lacking(mark):  # what came is what it had before
                kept[name] = since
            else:
                self._lacks[name] = now
        self._has_all = kept
        for name, mark in ahead.items():
            if mark is not None:
                self.changes.showed(name, mark.entries)
            if mark is None or not self._beyond(mark, self._lacking(mark)):
                self._ahead.discard(name)
        self._stir()

    def heard(self, name: str, *, diverged: bool = False) -> None:
        """A message of a peer was taken in. O(rows) where it is not at this node's clock."""
        self.moved()
        peer = self._gossip.tracker.peer(name)
        if peer is None or name in self._gossip.state.retirements:
            return
        now = self._heard[name] = self.now()
        if self._lives.get(name) is not peer:
            self._new_life(name, peer)
        if diverged:
            self._diverged.setdefault(name, now)
        elif peer.hash is not None and peer.hash == self._gossip.state_hash:
            self._diverged.pop(name, None)
        mark = peer.mark
        lacking = None if mark is None else self._lacking(mark)
        if mark is not None:
            self.changes.showed(name, mark.entries)
        if lacking == 0:
            self._has_all.setdefault(name, now)
            self._lacks.pop(name, None)
        else:
            self._has_all.pop(name, None)
            self._lacks.setdefault(name, now)
        if mark is not None and self._beyond(mark, lacking or 0):
            self._ahead.add(name)
        else:
            self._ahead.discard(name)
        self._stir()

    def _new_life(self, name: str, peer: Peer) -> None:
        if name in self._lives:
            self.changes.lost(name)
            self._has_all.pop(name, None)
            self._lacks.pop(name, None)
        self._lives[name] = peer

    def tidy(self) -> None:
        """Let go of retired nodes. O(peers)."""
        for name in [name for name in self._heard if name in self._gossip.state.retirements]:
            self._ahead.discard(name)
            for kept in (self._heard, self._has_all, self._lacks, self._diverged, self._lives):
                kept.pop(name, None)
            self.changes.lost(name)

    @contextmanager
    def stirring(self) -> Iterator[asyncio.Event]:
        """An event that is set whenever evidence came in or the state changed. Whoever waits clears it."""
        event = asyncio.Event()
        self._stirred.add(event)
        try:
            yield event
        finally:
            self._stirred.discard(event)

    def _stir(self) -> None:
        for event in self._stirred:
            event.set()

    # --- reading -----------------------------------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """The nodes of the fleet, ordered: this one and all that ever wrote or were heard, those retired for good left out."""
        state = self._gossip.state
        names = {replica.node_id for replica in state.rows.clock_mark.entries} | {self._gossip.node_id, *self._live()}
        names |= self._heard.keys()
        return sorted(name for name in names if name not in state.retirements)

    def is_live(self, name: str) -> bool:
        """True for a peer that is there now, and for this node."""
        return name == self._gossip.node_id or name in self._live()

    def holds(self, name: str, dots: Collection[Dot]) -> bool | None:
        """Whether a node has these mutations; None if there is no evidence of its clock."""
        if name == self._gossip.node_id:
            return all(self._gossip.state.rows.seq(dot.replica) >= dot.seq for dot in dots)
        mark = self._mark(name)
        if mark is None:
            return None
        return all(mark.entries.get(dot.replica, 0) >= dot.seq for dot in dots)

    def behind(self, name: str) -> int | None:
        """How many mutations known here a node gave no evidence of; None if there is no evidence of its clock. O(rows)."""
        if name == self._gossip.node_id:
            return 0
        mark = self._mark(name)
        return None if mark is None else self._lacking(mark)

    def ahead(self, name: str, behind: int) -> int | None:
        """How many mutations not known here a node gave evidence of that is so many behind; None without evidence. O(1)."""
        mark = self._mark(name)
        return None if mark is None else self._beyond(mark, behind)

    def heard_at(self, name: str) -> int | None:
        """When a peer was last heard, ns since the epoch; None if it was not since the start."""
        return self._heard.get(name)

    def has_all_since(self, name: str) -> int | None:
        """Since when a peer is known to have all that is known here; None if it is not."""
        self.moved()
        return self._has_all.get(name)

    def lacks_since(self, name: str) -> int | None:
        """When the first thing became known here that a peer gave no evidence of; None if it did of all, or was never heard."""
        self.moved()
        return self._lacks.get(name)

    def diverged_since(self, name: str) -> int | None:
        """Since when a peer is known to have had this node's clock and another hash; None once both agreed again."""
        return self._diverged.get(name)

    def _mark(self, name: str) -> ClockMark | None:
        peer = self._gossip.tracker.peer(name)
        return peer.mark if peer is not None else None

    def _lacking(self, mark: ClockMark) -> int:
        rows = self._gossip.state.rows
        return 0 if mark == rows.clock_mark else rows.ahead_of(mark.entries)

    def _beyond(self, mark: ClockMark, lacking: int) -> int:
        """What a clock has beyond this node's, given what it lacks: the sums of both say the rest."""
        return mark.count - self._gossip.state.rows.clock_mark.count + lacking


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
