"""Clock entries and runs as messages have them, where a replica may be an index into a clock that both sides know.

At which clock the sender of a message stands, worked out from what the message says.

Rules kept here:

- On the wire a clock is spelled out, or given against one that both sides know. A message that was handed over as an object has
  its sender's clock, with the sums that go with it; then nothing is worked out again, and the two nodes share it.
- What a message says has been checked to fit its base before; nothing here changes anything.

What each peer has given evidence of.

Two kinds of knowledge, kept apart:

- *Evidence*, for every peer: the last clock and hash that it stated or acknowledged. Never inferred from what was sent to it.
- *Conversations*, for the peers spoken with lately: the last few clocks that either side stated to the other, so that messages
  can name a clock in 8 bytes. Several, because messages are lost and overtake each other: with one kept, 37 % of the Pings at
  30 % loss had to spell out the whole clock, with four 7 %.

A peer is a node; what was known of an earlier life of it says nothing about the present one and is forgotten with it.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

from constraint_crdt.crdt.cells import Run
from constraint_crdt.crdt.clock import ClockMark, VectorClock
from constraint_crdt.crdt.codec import UnboundRun, resolve
from constraint_crdt.crdt.digest import Digest, StateHash
from constraint_crdt.crdt.limits import Limits
from constraint_crdt.crdt.replica import Replica
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.protocol.messages import Delta, Entry, Ping
from constraint_crdt.types.nodes import Retirements


def behind(mine: ClockMark, theirs: ClockMark, by: int | None = None) -> list[tuple[Replica, int]]:
    """My entries, 0 included, for the rows in which they are ahead of me. O(rows).

    `by`: how many mutations these rows are ahead by, all together, if that is known. Then, if the rows of which I have nothing make
    up for all of it, the others need not be compared.
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
    """By how much these entries lower a clock, all together; None if one of them does not lower it. O(entries)."""
    at = base.entries
    by = [at.get(replica, 0) - seq for replica, seq in entries]
    return sum(by) if min(by, default=1) > 0 else None


def changed_entries(base: ClockMark, now: ClockMark) -> list[Entry]:
    """The entries of `now` that differ from `base`, 0 for those that it does not have."""
    if base == now:
        return []
    before, after = base.entries, now.entries
    changes: list[Entry] = [(replica, seq) for replica, seq in after.items() if replica not in before or before[replica] != seq]
    changes += [(replica, 0) for replica in before if replica not in after]
    return changes


def resolved(entries: Sequence[Entry], base: ClockMark | None) -> Sequence[tuple[Replica, int]]:
    """Entries with their replicas. Raises `ConstraintCrdtError` for an index that `base` does not have."""
    if not [ref for ref, _ in entries if isinstance(ref, int)]:
        return cast("Sequence[tuple[Replica, int]]", entries)
    return [(ref if isinstance(ref, Replica) else resolve(ref, base), seq) for ref, seq in entries]


def bound(runs: Sequence[Run | UnboundRun], base: ClockMark | None) -> Sequence[Run]:
    """Runs with their replicas, one of each. Raises `ConstraintCrdtError` for what does not fit."""
    if set(map(type, runs)) <= {Run}:
        runs_bound = cast("Sequence[Run]", runs)
    else:
        runs_bound = [run if isinstance(run, Run) else run.bind(base) for run in runs]
    if len({run.replica for run in runs_bound}) != len(runs_bound):
        raise ConstraintCrdtError("a transfer has two runs of one replica")
    return runs_bound


Asked = Sequence[tuple[Replica, int]]
"""The entries in which a sender is behind, each with its own seq: it asks for these rows above it."""


def clock_of_ping(ping: Ping, base: ClockMark | None, mine: ClockMark, retirements: Retirements, digest: Digest) -> ClockMark:
    """The clock in a Ping. `base`: the one that it names; `mine`: any, hashing then costs only for what differs from it."""
    if base is not None:
        return ping.clock.mark(digest) if ping.clock is not None else base.changed(resolved(ping.changes, base))
    if ping.changes:  # what travelled, with ended lives left out
        return mine.replaced(retirements.expand_clock(dict(resolved(ping.changes, None))))
    stated = (ping.clock or VectorClock()).mark(digest)
    heard = retirements.expand_clock(stated.entries)
    return stated if heard is stated.entries else mine.replaced(heard)


def clock_of_delta(delta: Delta, base: ClockMark | None, runs: Sequence[Run], asked: Asked, digest: Digest) -> ClockMark:
    """The clock of a Delta's sender, of one instant with its runs."""
    if base is None:
        return (delta.clock or VectorClock()).mark(digest)
    return base.changed([*((run.replica, run.hi) for run in runs), *asked])


def clock_of_applied(delta: Delta, now: ClockMark, asked: Asked, lower: int, digest: Digest) -> ClockMark:
    """The same for a Delta of which each run began where my clock stood, once it is applied: `now`, where I am, but in the rows
    that the sender asks for, `lower` mutations in all.
    """
    if not asked:
        return now
    stated = None if delta.clock is None else delta.clock.mark(digest)
    return stated if stated is not None and stated.count == now.count - lower else now.changed(asked)


STATEMENTS = 8
"""Clocks kept per conversation, of both sides together: four each."""


@dataclass(slots=True)
class Statement:
    """A clock that one side stated, with the hash that goes with it where that is known."""

    mark: ClockMark
    hash: StateHash | None


@dataclass(slots=True)
class Conversation:
    """The clocks that can be named between two replicas."""

    statements: list[Statement] = field(default_factory=list)
    """The last of them at the end, `STATEMENTS` at most."""
    common: ClockMark | None = None
    """The latest clock that the peer has shown to know: what my messages are said against."""

    def state(self, mark: ClockMark, hash_: StateHash | None) -> None:
        """Note that one side stated this clock to the other."""
        total = mark.total
        for known in self.statements:
            if known.mark.total == total:
                known.hash = hash_ or known.hash  # the later one: a repair changes the hash, not the clock
                return
        self.statements.append(Statement(mark, hash_))
        if len(self.statements) > STATEMENTS:
            del self.statements[0]

    def find(self, name: bytes, reader: Replica) -> ClockMark | None:
        """The clock that a peer named to `reader`."""
        return next((known.mark for known in reversed(self.statements) if known.mark.name(reader) == name), None)

    def find_hash(self, token: bytes, reader: Replica) -> Statement | None:
        """The statement whose hash a peer echoed to `reader`."""
        return next((known for known in reversed(self.statements) if known.hash and known.hash.token(reader) == token), None)


@dataclass(slots=True)
class Peer:
    """The evidence that one peer has given."""

    replica: Replica
    mark: ClockMark | None = None
    hash: StateHash | None = None


class DeltaTracker:
    """Evidence per peer. `in`, `len` and iteration are over node ids."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._peers: dict[str, Peer] = {}
        self._conversations: OrderedDict[str, Conversation] = OrderedDict()
        self._hashes: Counter[StateHash | None] = Counter()
        self.changes = 0
        """How often what is known of a peer changed: for those who keep what they have read."""
        self.anyone = Conversation()
        """What was stated to no peer in particular: a first Ping, whose answer comes from somebody new."""

    def __contains__(self, node_id: object) -> bool:
        return node_id in self._peers

    def __len__(self) -> int:
        return len(self._peers)

    def __iter__(self) -> Iterator[str]:
        return iter(self._peers)

    def __repr__(self) -> str:
        return f"DeltaTracker({ {node_id: str(peer.hash) for node_id, peer in self._peers.items()} })"

    def peer(self, node_id: str) -> Peer | None:
        """The evidence of one peer, or None if nothing was ever heard from it."""
        return self._peers.get(node_id)

    def clock(self, node_id: str) -> VectorClock | None:
        """The last clock that a peer gave evidence of."""
        peer = self._peers.get(node_id)
        return VectorClock.over(peer.mark.entries) if peer and peer.mark else None

    def hash(self, node_id: str) -> StateHash | None:
        """The last hash that a peer gave evidence of; None while it has not, or for a clock newer than its last hash."""
        peer = self._peers.get(node_id)
        return peer.hash if peer else None

    def all_have(self, hash_: StateHash) -> bool:
        """True if every known peer's last evidenced hash is this one. O(1)."""
        return self._hashes[hash_] == len(self._peers)

    def meet(self, replica: Replica) -> Peer:
        """The evidence of one life of a peer, none yet for another life than the last known one. Changes nothing, see `admit`.

        Raises `ConstraintCrdtError` for one peer too many.
        """
        peer = self._peers.get(replica.node_id)
        if peer is None and len(self._peers) >= self._limits.peers:
            raise ConstraintCrdtError(f"more than the {self._limits.peers} peers that this node is set to know")
        return peer if peer is not None and peer.replica == replica else Peer(replica)

    def admit(self, peer: Peer) -> None:
        """Note that a message of a peer was taken in; what was known of another life of it is forgotten."""
        if not self._is_current(peer):
            self.forget(peer.replica.node_id)
            self._peers[peer.replica.node_id] = peer
            self.changes += 1
            self._hashes[None] += 1

    def forget(self, node_id: str) -> None:
        """Drop all that is known of a peer."""
        peer = self._peers.pop(node_id, None)
        if peer is not None:
            self.changes += 1
            self._uncount(peer.hash)
            self._conversations.pop(node_id, None)

    def find(self, peer: Peer, name: bytes, reader: Replica) -> ClockMark | None:
        """The clock that a peer names to `reader`, among those stated to or by it lately."""
        talk = self._conversations.get(peer.replica.node_id) if self._is_current(peer) else None
        return (talk.find(name, reader) if talk else None) or self.anyone.find(name, reader)

    def marks(self, peer: Peer) -> list[ClockMark]:
        """All clocks that a peer can name at present."""
        talk = self._conversations.get(peer.replica.node_id) if self._is_current(peer) else None
        return [known.mark for each in (talk, self.anyone) if each for known in each.statements]

    def find_hash(self, peer: Peer, token: bytes, reader: Replica) -> Statement | None:
        """The statement whose hash a peer echoes to `reader`."""
        talk = self._conversations.get(peer.replica.node_id) if self._is_current(peer) else None
        return (talk.find_hash(token, reader) if talk else None) or self.anyone.find_hash(token, reader)

    def _is_current(self, peer: Peer) -> bool:
        return self._peers.get(peer.replica.node_id) is peer

    def conversation(self, node_id: str) -> Conversation:
        """The named clocks of one peer, made the most recent of those kept."""
        found = self._conversations.get(node_id)
        if found is None:
            found = self._conversations[node_id] = Conversation()
            if len(self._conversations) > self._limits.conversations:
                self._conversations.popitem(last=False)
        else:
            self._conversations.move_to_end(node_id)
        return found

    def evidence(self, peer: Peer, mark: ClockMark, hash_: StateHash | None) -> None:
        """Note a clock that a peer stated, with its hash where that is known too. What is older than the last is ignored."""
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
