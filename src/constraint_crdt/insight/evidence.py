"""The evidence of each peer's state, over time: the convergence of the fleet, and the coverage of changes.

The protocol keeps the last clock of each peer. `Evidence` follows the clocks from message to message: the time of the last message,
the time since which the peer lacks a change known here, and the time at which each recent change was shown.

A peer *has all* while its last clock covers this node's clock. A peer *lacks* changes from the first change here beyond its clock,
until its clock covers all changes again.

A node that this node does not hear may be *reachable through* another. Each Ping asks for some nodes that are not live here,
and the answer names those of them that its sender hears itself. Such evidence ages, too (`reachable_for`). In a fleet with
identities it is taken from proven senders only, as all evidence.

The *staleness* of a peer, in seconds, is 0 while its clock covers this node's, else the age of the first change beyond its clock.
Staleness is an upper bound: the peer may have received changes from other nodes since. The staleness of the fleet is given as
quantiles over the live peers (`Convergence`).

The *change* of a constraint is the mutations adding its definitions (in force or expired); for a removed constraint, its removals
while the log has them. States travel as a whole, so a node with these mutations has all mutations before them. `Coverage` lists the
nodes with a change and the nodes without. Its waiting exchanges with the nodes without the change, in turn, and returns when enough
nodes have acknowledged the change. Waiting never asks a user to write again.

Counts change all the time in a measuring fleet, so full state hashes rarely agree at any instant. The useful question is whether a
peer enforces the same constraints. The peer does if its clock covers, in every row, the last mutation of a definition, and has no
mutation unknown here: `DefinitionClock`.

`ChangeLog` keeps the latest changes of definitions, with the time at which each became known here and the time at which each peer
first showed the change in its clock. The log is bounded, separately for additions and removals. Dropped changes, and changes from
before the start, have no time (None). A removal stays in the log after its cell was dropped, for peers returning later.
"""

import asyncio
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from itertools import repeat
from math import ceil
from typing import Protocol

from constraint_crdt.crdt.cells import REMOVE, Cell, core, removed_dots
from constraint_crdt.crdt.clock import SECOND, ClockMark, Dot, Replica, dot_text
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.errors import UnknownConstraint
from constraint_crdt.operations.evidence import (
    LONGEST_WAIT,
    ConvergenceReport,
    CoverageReport,
    NodeCoverage,
    PeerConvergence,
    TooManyWaitingError,
    Wanted,
)
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.protocol.peers import Peer
from constraint_crdt.transport import Peer as TransportPeer
from constraint_crdt.types.definition import ADD

WAITING = 64
"""Requests waiting for acknowledgements at once, at most."""

FIRST_HEARD = 30 * SECOND
"""The time after the start of a node within which it hears from every live peer."""

REACHABLE_FOR = 60 * SECOND
"""The time for which a message of a node is evidence that it runs, and a second more for each live node: the more there are, the
more rarely two of them meet."""

ASKED_AT_ONCE = 4
"""Nodes that a Ping asks for: other ones in each Ping."""

MS = 1_000_000
"""ns in a millisecond."""

ASK_AGAIN = 0.25
"""Seconds until a node without the change is asked again."""


class LivePeers(Protocol):
    """Knows the live peers of a node."""

    @property
    def live(self) -> Set[str]:
        """The names of the live peers now."""

    @property
    def away(self) -> Set[str]:
        """The nodes of other sites that the transport lists. They run; this node speaks with few of them."""


class MergedMessage(Protocol):
    """A change of this node's state."""

    @property
    def peer(self) -> str:
        """The node whose message made the change; empty for a change by this node."""

    @property
    def diverged(self) -> bool:
        """True if the message showed this node's clock and another state."""

    @property
    def heard(self) -> Sequence[tuple[str, int]]:
        """Nodes that the peer hears, each with the ms since then."""


class DefinitionClock:
    """The seq of the last mutation of a definition in each row."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._last: dict[Replica, int] = {}
        rows.watch(ADD, self._changed, bulk=self._came)
        rows.watch(REMOVE, self._removed)
        for kind, watcher in ((ADD, self._changed), (REMOVE, self._removed)):
            for cell in rows.each(kind):
                watcher(None, cell)

    def _came(self, cells: Sequence[Cell]) -> None:
        for replica, _, seq in core.row_spans(cells):
            self._last[replica] = max(seq, self._last.get(replica, 0))

    def _changed(self, _fell: Cell | None, new: Cell | None) -> None:
        if new is not None and new.seq > self._last.get(new.replica, 0):
            self._last[new.replica] = new.seq

    def _removed(self, fell: Cell | None, new: Cell | None) -> None:
        """A removal counts if it ends a definition. Other removals end tiles, counts, and so on."""
        if new is not None and any(removed.kind == ADD for removed in removed_dots(new)):
            self._changed(fell, new)

    @property
    def dots(self) -> tuple[Dot, ...]:
        """These mutations, ordered. O(rows)."""
        return tuple(sorted(Dot(replica, seq) for replica, seq in self._last.items()))

    def covered_by(self, clock: Mapping[Replica, int]) -> bool:
        """True for a clock with exactly the definitions known here. O(rows).

        Dropped removals lie at or below the floor of their row. A clock beyond ours may have more definitions: False.
        """
        seq = self._rows.seq
        return (
            all(clock.get(replica, 0) >= last for replica, last in self._last.items())
            and all(clock.get(replica, 0) >= floor for replica, floor in self._rows.floors.items())
            and all(mark <= seq(replica) for replica, mark in clock.items())
        )


ADDITIONS = 10_000


REMOVALS = 10_000
"""The latest changes kept, at most."""


HEARD = 200_000
"""Times kept of peers showing changes. The times of the oldest changes are dropped first."""


class LoggedChange:
    """A mutation of definitions, with its times."""

    __slots__ = ("dot", "heard", "known_at", "removed")

    def __init__(self, dot: Dot, known_at: int | None, removed: Mapping[str, tuple[Dot, ...]] | None) -> None:
        self.dot = dot
        self.known_at = known_at
        """ns since the epoch by this node's clock; None for a change from before the start."""
        self.removed = removed
        """For a removal: the ended additions, by constraint."""
        self.heard: dict[str, int] = {}
        """The time at which each peer first showed the change, in ns since the epoch by this node's clock."""


class ChangeLog:
    """Follows the definitions of a state, from `begin` on."""

    def __init__(self, rows: Rows, now: Callable[[], int]) -> None:
        self._rows = rows
        self._now = now
        self._begun = False
        self._first = self._next = 0
        self._changes: dict[int, LoggedChange] = {}
        self._numbers: dict[Dot, int] = {}
        self._additions: deque[int] = deque()
        self._removals: deque[int] = deque()
        self._removed: dict[str, list[Dot]] = {}
        self._open: dict[str, list[int]] = {}
        self._seen: dict[str, int] = {}
        self._times = 0
        self._fresh: deque[tuple[int, Cell]] = deque(maxlen=ADDITIONS)
        """Additions without an entry yet. Of 100,000 additions at once most never need an entry."""
        rows.watch(ADD, self._added, bulk=self._came)
        rows.watch(REMOVE, self._removal)

    def begin(self) -> None:
        """The node starts. Changes known by now have no time; removals in the state are kept without a time."""
        self._begun = True
        for cell in self._rows.each(REMOVE):
            self._note_removal(cell, None)

    # --- reading -----------------------------------------------------------------------------------------------------

    def change(self, dot: Dot) -> LoggedChange | None:
        """The entry of a mutation; None without an entry."""
        self._take_fresh()
        number = self._numbers.get(dot)
        return None if number is None else self._changes[number]

    def removals(self, id_: str) -> list[LoggedChange]:
        """The removals of additions of a constraint, in the order in which they became known."""
        return [change for dot in self._removed.get(id_, ()) if (change := self.change(dot)) is not None]

    # --- following ---------------------------------------------------------------------------------------------------

    def showed(self, peer: str, clock: Mapping[Replica, int]) -> None:
        """A peer gave evidence of this clock. O(changes not shown by the peer before)."""
        self._take_fresh()
        waiting = [*self._open.get(peer, ()), *range(max(self._seen.get(peer, 0), self._first), self._next)]
        self._seen[peer] = self._next
        still, now = [], self._now()
        for number in waiting:
            change = self._changes.get(number)
            if change is None:
                continue
            if clock.get(change.dot.replica, 0) < change.dot.seq:
                still.append(number)
            elif peer not in change.heard:
                change.heard[peer] = now
                self._times += 1
        self._open[peer] = still
        while self._times > HEARD:
            self._forget(min(self._changes))

    def lost(self, peer: str) -> None:
        """A peer has a new incarnation: drop its times. O(changes)."""
        for change in self._changes.values():
            if change.heard.pop(peer, None) is not None:
                self._times -= 1
        self._open.pop(peer, None)
        self._seen.pop(peer, None)

    def _added(self, _old: Cell | None, new: Cell | None) -> None:
        if new is not None and self._begun:
            self._fresh.append((self._now(), new))

    def _came(self, cells: Sequence[Cell]) -> None:
        if self._begun:
            self._fresh.extend(zip(repeat(self._now()), cells[-ADDITIONS:]))

    def _take_fresh(self) -> None:
        while self._fresh:
            at, cell = self._fresh.popleft()
            self._remember(LoggedChange(Dot(cell.replica, cell.seq), at, None), self._additions, ADDITIONS)

    def _removal(self, _old: Cell | None, new: Cell | None) -> None:
        if new is not None and self._begun:
            self._note_removal(new, self._now())

    def _note_removal(self, cell: Cell, at: int | None) -> None:
        removed: dict[str, list[Dot]] = {}
        for each in removed_dots(cell):
            if each.kind == ADD:
                removed.setdefault(each.key, []).append(Dot(each.replica, each.seq))
        dot = Dot(cell.replica, cell.seq)
        if not removed or dot in self._numbers:
            return
        for id_ in removed:
            self._removed.setdefault(id_, []).append(dot)
        self._remember(LoggedChange(dot, at, {id_: tuple(dots) for id_, dots in removed.items()}), self._removals, REMOVALS)

    def _remember(self, change: LoggedChange, kind: deque[int], most: int) -> None:
        if change.dot in self._numbers:
            return  # a repair put its cell back
        number, self._next = self._next, self._next + 1
        self._changes[number], self._numbers[change.dot] = change, number
        kind.append(number)
        while len(kind) > most:
            self._forget(kind.popleft())

    def _forget(self, number: int) -> None:
        change = self._changes.pop(number, None)
        if change is None:
            return  # its times were too many: it was forgotten before
        del self._numbers[change.dot]
        self._times -= len(change.heard)
        for id_ in change.removed or ():
            dots = self._removed[id_]
            dots.remove(change.dot)
            if not dots:
                del self._removed[id_]
        while self._first < self._next and self._first not in self._changes:
            self._first += 1


class Evidence:
    """The evidence of a node about its peers."""

    def __init__(
        self, gossip: GossipNode, peers: LivePeers, now: Callable[[], int], monotonic: Callable[[], int] = time.monotonic_ns
    ) -> None:
        """`now`: the time in ns since the epoch. `monotonic`: that of a monotonic clock, for durations."""
        self._gossip = gossip
        self._rows = gossip.state.rows
        self._peers = peers
        self.now = now
        self._monotonic = monotonic
        self._began = monotonic()
        self.changes = ChangeLog(gossip.state.rows, now)
        self._count = -1
        self._lives: dict[str, Peer] = {}
        self._heard: dict[str, int] = {}
        self._has_all: dict[str, int] = {}
        self._ahead: set[str] = set()
        """Peers with a clock beyond this node's in some row."""
        self._lacks: dict[str, tuple[int, int]] = {}
        """The time since the epoch, and that of the monotonic clock."""
        self._diverged: dict[str, int] = {}
        self._spoke: dict[str, int] = {}
        """As `_heard`, by the monotonic clock."""
        self._met: set[str] = set()
        """Peers that spoke, and were live then."""
        self._through: dict[str, tuple[int, str]] = {}
        """When another peer heard a node, by the monotonic clock, and that peer."""
        self._lost: dict[str, int] = {}
        """When a node that spoke with this node was found away, by the monotonic clock."""
        self._away: Sequence[str] = ()
        """The nodes of the fleet that are not live here."""
        self._asked = ""
        """The last node that was asked for."""
        self._waiting: set[asyncio.Event] = set()

    def begin(self) -> None:
        """The node starts. Changes known by now have no time."""
        self._count = self._rows.clock_count
        self._began = self._monotonic()
        self.changes.begin()

    # --- following ---------------------------------------------------------------------------------------------------

    def changed(self, change: MergedMessage) -> None:
        """Note a change of the state, and the evidence in its message."""
        if change.peer:
            self.heard(change.peer, diverged=change.diverged)
            self._note_reached(change.peer, change.heard)
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
                self._lacks[name] = now, self._monotonic()
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
        self._spoke[name] = self._monotonic()
        if self.is_live(name):
            self._met.add(name)
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
            self._lacks.setdefault(name, (now, self._monotonic()))
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

    def drop_gone(self) -> None:
        """Let go of retired nodes, and of those without a row that do not speak any more, and find out who is away. O(nodes)."""
        retired, written, live = self._gossip.state.retirements, self._rows.writers, self._peers.live
        for name in [name for name in self._heard if name in retired or not (name in written or self._speaks(name))]:
            self._ahead.discard(name)
            self._met.discard(name)
            self._lacks.pop(name, None)
            for kept in (self._heard, self._has_all, self._diverged, self._lives, self._spoke):
                kept.pop(name, None)
            self.changes.lost(name)
        for name in [name for name in self._through if self.through(name) is None]:
            del self._through[name]
        ended = {self._gossip.node_id, *retired.nodes, *self._gossip.revoked_nodes, *self._peers.away}
        self._away = sorted(name for name in written if name not in live and name not in ended)
        now = self._monotonic()
        self._lost = {name: self._lost.get(name, now) for name in self._away if name in self._spoke}

    def _speaks(self, name: str) -> bool:
        return self.is_live(name) or self._monotonic() - self._spoke.get(name, 0) < self.reachable_for

    # --- who reaches whom --------------------------------------------------------------------------------------------

    @property
    def reachable_for(self) -> int:
        """The ns for which a message of a node is evidence that it runs."""
        return REACHABLE_FOR + len(self._peers.live) * SECOND

    def asks(self) -> Sequence[str]:
        """Some nodes that are not live here, to ask others for: the next ones in their order. O(1)."""
        away = self._away
        if not away:
            return ()
        place = bisect_right(away, self._asked)
        chosen = [away[(place + step) % len(away)] for step in range(min(ASKED_AT_ONCE, len(away)))]
        self._asked = chosen[-1]
        return chosen

    def misses(self) -> bool:
        """True if nodes are to be asked for."""
        return bool(self._away)

    def spoken(self, names: Sequence[str]) -> Sequence[tuple[str, int]]:
        """Those of some nodes that this node hears itself, each with the ms since then."""
        now = self._monotonic()
        return [(name, (now - self._spoke[name]) // MS) for name in names if name in self._peers.live and name in self._spoke]

    def _note_reached(self, by: str, heard: Sequence[tuple[str, int]]) -> None:
        for name, age in heard:
            at = self._monotonic() - age * MS
            if name != self._gossip.node_id and at > self._through.get(name, (-REACHABLE_FOR, ""))[0]:
                self._through[name] = at, by

    def through(self, name: str, within: int | None = None) -> str | None:
        """The peer through which a node is reachable that is not live here; None for a live node, and without evidence.

        `within`: ns that the evidence is old, at most; None: `reachable_for`.

        A message to the other peer is no evidence if it is from before this node lost contact: the node may have ended since.
        """
        at, by = self._through.get(name, (0, ""))
        if not by or self.is_live(name) or not self.is_live(by) or self._monotonic() - at > (within or self.reachable_for):
            return None
        return None if at <= self._lost.get(name, at - 1) else by

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
        """The nodes of the fleet, ordered: this node, all nodes with cells here, and the peers that are live or were so a while
        ago, without retired nodes.

        A peer that spoke without being on the transport is none of them: perhaps nothing is ever heard of it again.
        """
        state = self._gossip.state
        names = self._rows.writers | {self._gossip.node_id, *self._peers.live, *self._met}
        return sorted(name for name in names if name not in state.retirements)

    def is_live(self, name: str) -> bool:
        """True for a live peer, and for this node."""
        return name == self._gossip.node_id or name in self._peers.live

    def is_seen(self, name: str) -> bool:
        """True for a live node, and for a node of another site that the transport lists."""
        return self.is_live(name) or name in self._peers.away

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
        lacks = self._lacks.get(name)
        return None if lacks is None else lacks[0]

    def lacking_for(self, name: str) -> float | None:
        """The seconds since the time of `lacks_since`, by a monotonic clock."""
        self.moved()
        lacks = self._lacks.get(name)
        return None if lacks is None else (self._monotonic() - lacks[1]) / SECOND

    def awaits(self, name: str) -> bool:
        """True while this node has just started and may still hear from a peer: the absence of evidence tells nothing."""
        return name != self._gossip.node_id and name not in self._heard and self._monotonic() - self._began < FIRST_HEARD

    def diverged_since(self, name: str) -> int | None:
        """Since when a peer is known to have had this node's clock and another hash; None once both agreed again."""
        return self._diverged.get(name)

    def _mark(self, name: str) -> ClockMark | None:
        peer = self._gossip.tracker.peer(name)
        return peer.mark if peer is not None else None

    def _lacking(self, mark: ClockMark) -> int:
        rows = self._gossip.state.rows
        return 0 if mark == rows.clock_mark else rows.ahead_of(mark)

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
        return evidence.lacking_for(name) or 0.0

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
            through=evidence.through(name),
        )

    def _state(self, name: str, behind: int | None, ahead: int | None) -> tuple[str, int | None]:
        evidence = self._evidence
        if not evidence.is_live(name):
            if evidence.is_seen(name):
                return "unknown", None
            return "unreachable" if evidence.through(name) is None else "reachable", evidence.heard_at(name)
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


class Exchanges(Protocol):
    """Exchanges messages with the peers of a node."""

    def willing(self, names: Collection[str]) -> Sequence[TransportPeer]:
        """The peers of these names ready to be asked."""

    async def exchange(self, peer: TransportPeer) -> bool:
        """Exchange with a peer. Returns False if the peer failed."""


class Coverage:
    """The coverage of changes, by the evidence of a node."""

    def __init__(self, gossip: GossipNode, evidence: Evidence, exchanges: Exchanges, definition_clock: DefinitionClock) -> None:
        self._gossip = gossip
        self._evidence = evidence
        self._exchanges = exchanges
        self._definition_clock = definition_clock
        self._waiting = 0

    def report(self, id_: str | None = None) -> CoverageReport:
        """The coverage of the change of a constraint, or of all changes of definitions. O(nodes x rows).

        Raises `KeyError` for a constraint without a known change.
        """
        return self._of(id_, *self.change(id_))

    def change(self, id_: str | None) -> tuple[str, tuple[Dot, ...]]:
        """The kind of the change, and its mutations. Raises `KeyError` without a known change."""
        if id_ is None:
            return "definitions", self._definition_clock.dots
        adds = tuple(sorted(Dot(cell.replica, cell.seq) for cell in self._gossip.state.rows.held(ADD, id_)))
        if adds:
            return "added" if id_ in self._gossip.state.constraints else "expired", adds
        removals = tuple(sorted(change.dot for change in self._evidence.changes.removals(id_)))
        if removals:
            return "removed", removals
        raise UnknownConstraint(id_)

    def missing(self, id_: str) -> list[str]:
        """The live nodes lacking the change of an active constraint. O(nodes)."""
        _, dots = self.change(id_)
        return [name for name in self._evidence.names if self._evidence.is_live(name) and self._evidence.holds(name, dots) is False]

    async def wait(self, id_: str | None, wanted: Wanted, timeout: float) -> CoverageReport:  # noqa: ASYNC109 - it comes back with a report when the time is over, and does not raise
        """Exchange with other nodes until `wanted` nodes have the change, this node included, or `timeout` seconds are over.

        `all`: every node of the fleet without the retired nodes; `live`: every live node; `majority`: more than half of all. The
        change is taken at the begin. Raises `KeyError` without a change, and `TooManyWaitingError` for too many waiting requests.
        """
        if self._waiting >= WAITING:
            raise TooManyWaitingError(f"{WAITING} requests wait for acknowledgements already: ask again later")
        kind, dots = self.change(id_)
        self._waiting += 1
        try:
            async with asyncio.timeout(min(timeout, LONGEST_WAIT)):
                await self._bring(dots, wanted)
        except TimeoutError:
            pass  # the report says how far it came
        finally:
            self._waiting -= 1
        return self._of(id_, kind, dots, wanted)

    async def _bring(self, dots: tuple[Dot, ...], wanted: Wanted) -> None:
        clock, asked = asyncio.get_running_loop().time, dict[str, float]()
        with self._evidence.change_event() as changed:
            while not self._is_met(dots, wanted):
                changed.clear()
                now = clock()
                lacking = {name for name in self._lacking(dots) if asked.get(name, 0.0) <= now}
                peer = next(iter(self._exchanges.willing(lacking)), None)
                if peer is not None:
                    asked[peer.name] = now + ASK_AGAIN
                    await self._exchanges.exchange(peer)
                    continue
                try:
                    async with asyncio.timeout(ASK_AGAIN):
                        await changed.wait()
                except TimeoutError:
                    continue  # somebody may be willing to be asked again by now

    def _lacking(self, dots: tuple[Dot, ...]) -> list[str]:
        return [name for name in self._evidence.names if not self._evidence.holds(name, dots)]

    def _target(self, wanted: Wanted) -> int:
        names = self._evidence.names
        if wanted == "live":
            return sum(map(self._evidence.is_live, names))
        if wanted == "majority":
            return len(names) // 2 + 1
        return len(names) if wanted == "all" else wanted

    def _is_met(self, dots: tuple[Dot, ...], wanted: Wanted) -> bool:
        lacking = self._lacking(dots)
        if wanted == "live":
            return not any(map(self._evidence.is_live, lacking))
        return len(self._evidence.names) - len(lacking) >= self._target(wanted)

    def _of(self, id_: str | None, kind: str, dots: tuple[Dot, ...], wanted: Wanted | None = None) -> CoverageReport:
        nodes = tuple(self._node(name, dots) for name in self._evidence.names)
        return CoverageReport(
            id=id_,
            change=kind,
            dots=tuple(map(dot_text, dots)),
            nodes=nodes,
            have=sum(each.holds is True for each in nodes),
            lack=sum(each.holds is False for each in nodes),
            unknown=sum(each.holds is None for each in nodes),
            wanted=None if wanted is None else self._target(wanted),
            met=None if wanted is None else self._is_met(dots, wanted),
        )

    def _node(self, name: str, dots: tuple[Dot, ...]) -> NodeCoverage:
        evidence = self._evidence
        holds = evidence.holds(name, dots)
        return NodeCoverage(
            node=name, holds=holds, live=evidence.is_live(name), since=self._since(name, holds, dots), behind=evidence.behind(name)
        )

    def _since(self, name: str, holds: bool | None, dots: tuple[Dot, ...]) -> int | None:
        """The time at which the last mutation was shown; if mutations are lacking, the time at which the first became known
        here.
        """
        if holds is None:
            return None
        changes = [self._evidence.changes.change(dot) for dot in dots]
        if holds and name != self._gossip.node_id:
            times = [None if change is None else change.heard.get(name) for change in changes]
        elif holds:
            times = [None if change is None else change.known_at for change in changes]
        else:
            lacking = [each for each, dot in zip(changes, dots, strict=True) if not self._evidence.holds(name, (dot,))]
            known = [change.known_at for change in lacking if change is not None and change.known_at is not None]
            return min(known, default=None) if len(known) == len(lacking) else None
        said = [time for time in times if time is not None]
        return max(said, default=None) if len(said) == len(times) else None
