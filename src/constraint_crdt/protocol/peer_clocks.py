"""Clocks of peers: the entries and runs that messages carry, and the last clock and hash evidenced by each peer.

Two kinds of knowledge are kept apart:

- *Evidence*, for every peer: the last clock and hash the peer stated or acknowledged. Never inferred from a message sent to
  it.
- *Conversations*, for recent peers: the last few clocks either side stated to the other, so messages can name a clock in
  8 bytes. Several clocks, because messages are lost and overtake each other: with one kept, 37 % of the Pings at 30 % loss had to
  spell out the whole clock, with four 7 %.

Rules kept here:

- A peer is a node. Knowledge of an earlier life of the node is forgotten when a message of another life arrives.
- An entry or run in a message may have an index into a named clock instead of a replica; it is resolved before use.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

from constraint_crdt.crdt.cells import Run
from constraint_crdt.crdt.clock import ClockMark, VectorClock
from constraint_crdt.crdt.codec import UnboundRun, resolve
from constraint_crdt.crdt.digest import StateHash
from constraint_crdt.crdt.limits import Limits
from constraint_crdt.crdt.replica import Replica
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.protocol.messages import Entry


def behind(mine: ClockMark, theirs: ClockMark, by: int | None = None) -> list[tuple[Replica, int]]:
    """The entries of `mine`, 0 included, for the rows in which `theirs` is ahead. O(rows).

    `by`: the number of mutations these rows are ahead by in total, if known. If the rows `mine` does not have account for
    all of them, the other rows are not compared.
    """
    if by == 0 or theirs.entries is mine.entries:
        return []
    at, ends = mine.entries, theirs.entries
    new = [(replica, 0) for replica in ends if replica not in at]
    if by is not None and by == sum([ends[replica] for replica, _ in new]):
        return new
    ahead = [replica for replica, seq in ends.items() if replica not in at or seq > at[replica]]
    return [(replica, at.get(replica, 0)) for replica in ahead]


def lowered(base: ClockMark, entries: Sequence[tuple[Replica, int]]) -> int | None:
    """The number of mutations by which these entries lower a clock; None if an entry does not. O(entries)."""
    at = base.entries
    by = [at.get(replica, 0) - seq for replica, seq in entries]
    return sum(by) if min(by, default=1) > 0 else None


def changed_entries(base: ClockMark, now: ClockMark) -> list[Entry]:
    """The entries of `now` that differ from `base`, 0 for replicas that only `base` has."""
    if base == now:
        return []
    before, after = base.entries, now.entries
    changes: list[Entry] = [(replica, seq) for replica, seq in after.items() if replica not in before or before[replica] != seq]
    changes += [(replica, 0) for replica in before if replica not in after]
    return changes


def resolve_entries(entries: Sequence[Entry], base: ClockMark | None) -> Sequence[tuple[Replica, int]]:
    """Entries with their replicas. Raises `ConstraintCrdtError` for an index `base` does not have."""
    if not [ref for ref, _ in entries if isinstance(ref, int)]:
        return cast("Sequence[tuple[Replica, int]]", entries)
    return [(ref if isinstance(ref, Replica) else resolve(ref, base), seq) for ref, seq in entries]


def bind_runs(runs: Sequence[Run | UnboundRun], base: ClockMark | None) -> Sequence[Run]:
    """Runs with their replicas, each replica once. Raises `ConstraintCrdtError` for runs that do not fit `base`."""
    if set(map(type, runs)) <= {Run}:
        runs_bound = cast("Sequence[Run]", runs)
    else:
        runs_bound = [run if isinstance(run, Run) else run.bind(base) for run in runs]
    if len({run.replica for run in runs_bound}) != len(runs_bound):
        raise ConstraintCrdtError("a transfer has two runs of one replica")
    return runs_bound


STATEMENTS = 8
"""Clocks kept per conversation, of both sides together."""


@dataclass(slots=True)
class Statement:
    """A clock that either side stated, with its hash if known."""

    mark: ClockMark
    hash: StateHash | None


@dataclass(slots=True)
class Conversation:
    """The clocks that two replicas can name to each other."""

    statements: list[Statement] = field(default_factory=list)
    """`STATEMENTS` at most, the latest at the end."""
    common: ClockMark | None = None
    """The latest clock the peer has shown to know: the base of messages to it."""
    stripped: tuple[int, int] | None = None
    """The clocks of both sides, as totals, when a transfer was last answered of which runs were left out here."""

    def state(self, mark: ClockMark, hash_: StateHash | None) -> None:
        """Note that either side stated this clock to the other."""
        total = mark.total
        for known in self.statements:
            if known.mark.total == total:
                known.hash = hash_ or known.hash  # the later one: a repair changes the hash, not the clock
                return
        self.statements.append(Statement(mark, hash_))
        if len(self.statements) > STATEMENTS:
            del self.statements[0]

    def find(self, name: bytes, reader: Replica) -> ClockMark | None:
        """The clock a peer named to `reader`."""
        return next((known.mark for known in reversed(self.statements) if known.mark.name(reader) == name), None)

    def find_hash(self, token: bytes, reader: Replica) -> Statement | None:
        """The statement whose hash a peer echoed to `reader`."""
        return next((known for known in reversed(self.statements) if known.hash and known.hash.token(reader) == token), None)


@dataclass(slots=True)
class Peer:
    """The evidence of a peer."""

    replica: Replica
    mark: ClockMark | None = None
    hash: StateHash | None = None


class DeltaTracker:
    """Evidence per peer. `in`, `len` and iteration are over node ids."""

    def __init__(self, limits: Limits) -> None:
        """`limits`: bounds the number of peers and of conversations."""
        self._limits = limits
        self._peers: dict[str, Peer] = {}
        self._conversations: OrderedDict[str, Conversation] = OrderedDict()
        self._hashes: Counter[StateHash | None] = Counter()
        self.changes = 0
        """Changes to the evidence so far: a version for caches."""
        self.anyone = Conversation()
        """Clocks stated to no particular peer: a first Ping, which a new peer answers."""

    def __contains__(self, node_id: object) -> bool:
        return node_id in self._peers

    def __len__(self) -> int:
        return len(self._peers)

    def __iter__(self) -> Iterator[str]:
        return iter(self._peers)

    def __repr__(self) -> str:
        return f"DeltaTracker({ {node_id: str(peer.hash) for node_id, peer in self._peers.items()} })"

    def peer(self, node_id: str) -> Peer | None:
        """The evidence of a peer, or None before its first message."""
        return self._peers.get(node_id)

    def clock(self, node_id: str) -> VectorClock | None:
        """The last clock a peer gave evidence of; None before the first."""
        peer = self._peers.get(node_id)
        return VectorClock.over(peer.mark.entries) if peer and peer.mark else None

    def hash(self, node_id: str) -> StateHash | None:
        """The last hash a peer gave evidence of; None before the first, or if its last clock is newer than its last hash."""
        peer = self._peers.get(node_id)
        return peer.hash if peer else None

    def all_have(self, hash_: StateHash) -> bool:
        """True if every known peer's last evidenced hash is this hash. O(1)."""
        return self._hashes[hash_] == len(self._peers)

    def meet(self, replica: Replica) -> Peer:
        """The evidence of a life of a peer; empty for a life other than the last known. Changes nothing, see `admit`.

        Raises `ConstraintCrdtError` for a new peer beyond the limit.
        """
        peer = self._peers.get(replica.node_id)
        if peer is None and len(self._peers) >= self._limits.peers:
            raise ConstraintCrdtError(f"more than the {self._limits.peers} peers that this node is set to know")
        return peer if peer is not None and peer.replica == replica else Peer(replica)

    def admit(self, peer: Peer) -> None:
        """Note an accepted message of a peer, and forget the evidence of another life."""
        if not self._is_current(peer):
            self.forget(peer.replica.node_id)
            self._peers[peer.replica.node_id] = peer
            self.changes += 1
            self._hashes[None] += 1

    def forget(self, node_id: str) -> None:
        """Drop all knowledge of a peer."""
        peer = self._peers.pop(node_id, None)
        if peer is not None:
            self.changes += 1
            self._uncount(peer.hash)
            self._conversations.pop(node_id, None)

    def clear(self) -> None:
        """Drop all knowledge of all peers."""
        self._peers.clear()
        self._conversations.clear()
        self._hashes.clear()
        self.anyone = Conversation()
        self.changes += 1

    def find(self, peer: Peer, name: bytes, reader: Replica) -> ClockMark | None:
        """The clock a peer names to `reader`, among the clocks recently stated by either side, or None."""
        talk = self._conversations.get(peer.replica.node_id) if self._is_current(peer) else None
        return (talk.find(name, reader) if talk else None) or self.anyone.find(name, reader)

    def marks(self, peer: Peer) -> list[ClockMark]:
        """The clocks a peer can name at present."""
        talk = self._conversations.get(peer.replica.node_id) if self._is_current(peer) else None
        return [known.mark for each in (talk, self.anyone) if each for known in each.statements]

    def find_hash(self, peer: Peer, token: bytes, reader: Replica) -> Statement | None:
        """The statement whose hash a peer echoes to `reader`; None if there is none."""
        talk = self._conversations.get(peer.replica.node_id) if self._is_current(peer) else None
        return (talk.find_hash(token, reader) if talk else None) or self.anyone.find_hash(token, reader)

    def _is_current(self, peer: Peer) -> bool:
        return self._peers.get(peer.replica.node_id) is peer

    def conversation(self, node_id: str) -> Conversation:
        """The conversation with a peer, now the most recently used. Beyond the limit the least recently used is dropped."""
        found = self._conversations.get(node_id)
        if found is None:
            found = self._conversations[node_id] = Conversation()
            if len(self._conversations) > self._limits.conversations:
                self._conversations.popitem(last=False)
        else:
            self._conversations.move_to_end(node_id)
        return found

    def evidence(self, peer: Peer, mark: ClockMark, hash_: StateHash | None) -> None:
        """Note a clock a peer stated, with its hash if known. A clock older than the last is ignored."""
        known = peer.mark
        if known is not None and (mark.count < known.count or (mark == known and hash_ is None)):
            return
        self.changes += mark != known or hash_ != peer.hash
        peer.mark = mark
        if hash_ != peer.hash:
            self._uncount(peer.hash)
            self._hashes[hash_] += 1
            peer.hash = hash_

    def _uncount(self, hash_: StateHash | None) -> None:
        self._hashes[hash_] -= 1
        if not self._hashes[hash_]:
            del self._hashes[hash_]
