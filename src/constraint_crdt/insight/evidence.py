"""The evidence of each peer's state, over time, and the convergence of the fleet.

The protocol keeps the last clock of each peer. This module follows the clocks from message to message: the time of the last
message, the time since which the peer lacks a change known here, and the time at which each recent change was shown.

A peer *has all* while its last clock covers this node's clock. A peer *lacks* changes from the first change here beyond its clock,
until its clock covers all changes again.

The *staleness* of a peer, in seconds, is 0 while its clock covers this node's, else the age of the first change beyond its clock.
Staleness is an upper bound: the peer may have received changes from other nodes since. The staleness of the fleet is given as
quantiles over the live peers.
"""

import asyncio
from collections.abc import Callable, Collection, Iterator, Set
from contextlib import contextmanager
from math import ceil
from typing import Protocol

from constraint_crdt.crdt.clock import SECOND, ClockMark
from constraint_crdt.crdt.replica import Dot
from constraint_crdt.insight.changes import ChangeLog
from constraint_crdt.operations.evidence import ConvergenceReport, PeerConvergence
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.protocol.peer_clocks import Peer


class LivePeers(Protocol):
    """Knows the live peers of a node."""

    @property
    def live(self) -> Set[str]:
        """The names of the live peers now."""


class MergedMessage(Protocol):
    """A change of this node's state."""

    @property
    def peer(self) -> str:
        """The node whose message made the change; empty for a change by this node."""

    @property
    def diverged(self) -> bool:
        """True if the message showed this node's clock and another state."""


class Evidence:
    """The evidence of a node about its peers."""

    def __init__(self, gossip: GossipNode, peers: LivePeers, now: Callable[[], int]) -> None:
        """`now`: the time in ns since the epoch."""
        self._gossip = gossip
        self._rows = gossip.state.rows
        self._peers = peers
        self.now = now
        self.changes = ChangeLog(gossip.state.rows, now)
        self._count = -1
        self._lives: dict[str, Peer] = {}
        self._heard: dict[str, int] = {}
        self._has_all: dict[str, int] = {}
        self._ahead: set[str] = set()
        """Peers with a clock beyond this node's in some row."""
        self._lacks: dict[str, int] = {}
        self._diverged: dict[str, int] = {}
        self._waiting: set[asyncio.Event] = set()

    def begin(self) -> None:
        """The node starts. Changes known by now have no time."""
        self._count = self._rows.clock_count
        self.changes.begin()

    # --- following ---------------------------------------------------------------------------------------------------

    def changed(self, change: MergedMessage) -> None:
        """Note a change of the state, and the evidence in its message."""
        if change.peer:
            self.heard(change.peer, diverged=change.diverged)
        else:
            self.moved()

    def moved(self) -> None:
        """Note a change of the state. Amortised O(1) a message, and O(rows) for each peer with a clock beyond this node's."""
        count = self._rows.clock_count
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
        self._notify()

    def heard(self, name: str, *, diverged: bool = False) -> None:
        """Note a merged message of a peer. O(rows) if its clock differs from this node's."""
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
        self._notify()

    def _new_life(self, name: str, peer: Peer) -> None:
        if name in self._lives:
            self.changes.lost(name)
            self._has_all.pop(name, None)
            self._lacks.pop(name, None)
        self._lives[name] = peer

    def drop_retired(self) -> None:
        """Let go of retired nodes. O(peers)."""
        for name in [name for name in self._heard if name in self._gossip.state.retirements]:
            self._ahead.discard(name)
            for kept in (self._heard, self._has_all, self._lacks, self._diverged, self._lives):
                kept.pop(name, None)
            self.changes.lost(name)

    @contextmanager
    def change_event(self) -> Iterator[asyncio.Event]:
        """An event set with each new evidence and each change of the state. The waiting task clears the event."""
        event = asyncio.Event()
        self._waiting.add(event)
        try:
            yield event
        finally:
            self._waiting.discard(event)

    def _notify(self) -> None:
        for event in self._waiting:
            event.set()

    # --- reading -----------------------------------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """The nodes of the fleet, ordered: this node, and all nodes with cells or messages here, without retired nodes."""
        state = self._gossip.state
        names = {replica.node_id for replica in state.rows.clock_mark.entries} | {self._gossip.node_id, *self._peers.live}
        names |= self._heard.keys()
        return sorted(name for name in names if name not in state.retirements)

    def is_live(self, name: str) -> bool:
        """True for a live peer, and for this node."""
        return name == self._gossip.node_id or name in self._peers.live

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
        """The number of mutations of a node beyond this node's clock, if the node is `behind` by so many; None without evidence.
        O(1).
        """
        mark = self._mark(name)
        return None if mark is None else self._beyond(mark, behind)

    def heard_at(self, name: str) -> int | None:
        """The time of the last message of a peer, in ns since the epoch; None without a message since the start."""
        return self._heard.get(name)

    def has_all_since(self, name: str) -> int | None:
        """The time since which the clock of a peer covers this node's; None if the clock does not."""
        self.moved()
        return self._has_all.get(name)

    def lacks_since(self, name: str) -> int | None:
        """The time of the first change here beyond the clock of a peer; None if the clock covers all, or without a message."""
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
        """The mutations of a clock beyond this node's, given the number of mutations missing in the clock: a difference of sums."""
        return mark.count - self._gossip.state.rows.clock_mark.count + lacking


class Convergence:
    """Compares the states of the peers with the state of a node."""

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
        """Seconds since the first change here beyond the clock of a peer; 0 if the clock covers all, None without evidence."""
        evidence = self._evidence
        if evidence.holds(name, ()) is None:
            return None
        since = evidence.lacks_since(name)
        if since is None:
            return 0.0
        return max(0.0, (evidence.now() - since) / SECOND)

    def peer(self, name: str) -> PeerConvergence:
        """Compares the state of a peer with this node's. O(rows) if they differ."""
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
    """The least value not exceeded by at least this share of the values; None without values."""
    return ordered[max(0, ceil(share * len(ordered)) - 1)] if ordered else None
