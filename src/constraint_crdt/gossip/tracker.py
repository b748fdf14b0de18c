"""What each peer has given evidence of.

Two kinds of knowledge, kept apart:

- *Evidence*, for every peer: the last clock and hash that it stated or acknowledged. Never inferred from what was sent to it.
- *Conversations*, for the peers spoken with lately: the last few clocks that either side stated to the other, so that messages
  can name a clock in 8 bytes. Several, because messages are lost and overtake each other: with one kept, 37 % of the Pings at
  30 % loss had to spell out the whole clock, with four 7 %.

A peer is a node; what was known of an earlier life of it says nothing about the present one and is forgotten with it.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from constraint_crdt.core.clock import ClockMark, VectorClock
from constraint_crdt.core.digest import StateHash
from constraint_crdt.core.limits import Limits
from constraint_crdt.core.replica import Replica
from constraint_crdt.errors import ConstraintCrdtError

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
