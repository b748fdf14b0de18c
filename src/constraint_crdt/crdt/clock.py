"""Replicas, the hashes of their writes, and clocks: how far each row is accounted for, and the time of a node.

A replica is a life of a node, and the writer of a row. A node after a possible loss of writes comes back under the same id with
another incarnation, and so as another replica with a row of its own. So a (replica, seq) pair, a *dot*, never means two mutations.

The hash of a state has 32 bytes, costs O(1) per mutation, and is equal exactly where knowledge is equal.

The state hash is H(sum of the keyed hashes of live cells ‖ sum of the keyed hashes of clock entries), both modulo 2**256 (a
multiset hash by addition: Bellare and Micciancio, 1997; XOR of hashes can be cancelled by chosen items). Every item is encoded
unambiguously: the replica with its length in front, seq as 8 bytes, then the bytes of the cell as received.

The key keeps outsiders from choosing colliding items. The key is derived from the fleet's secret; a fleet without a secret uses a
default.

A vector clock maps a replica to a seq: everything of its row up to there has been taken in. Equal clocks mean equal knowledge.
Entries only grow, and a replica without an entry stands at 0. Zeros are never stored, so equality is equality of entries.
`VectorClock` is the value for users. `ClockMark` is a frozen clock with its digest sum: two peers name it to each other in 8
bytes instead of spelling it out. `Merge` is the interface of all state-based CRDTs: `merge` is commutative, associative,
idempotent and never takes knowledge away.

`HybridClock` is the time of a node: its own clock, raised by the clocks of peers. Nodes with slightly different clocks read the
same expiry at the same moment, since nodes in touch with each other follow the fastest clock among them. Rules:

- A clock further ahead than `max_skew` counts for nothing and raises an alarm. So no peer can move the reading by more.
- A measurement of a peer's clock runs on at the pace of the own clock and is dropped after `heard_for`: an isolated node soon
  follows its own clock alone.
- Where the own clock steps, the reading follows at once, also backwards. Measurements from before the step are dropped.
- Of several measurements of a clock the highest counts while it lasts, then the next: messages are delayed, and never arrive
  before they are sent. A bounded number is kept (`MEASUREMENTS`).

With a steady clock (`steady`, which is never set) the node also knows by how much its own clock stepped, so more rules hold:

- A step moves the measurements instead of dropping them: they stay true. A step is told by `take_steps`.
- A node *in doubt*, whose clock differs from at least half of those heard, reads the fleet's time: the median of the others, if two
  of them or more, and two thirds of all clocks or more, this node's included, are within `max_skew` of that median. So no third of
  the clocks, wrong or lying, moves the reading out of the range of the right ones.
- In doubt and without such an agreement it reads the earliest of the clocks: in doubt, the constraint is kept.
- The doubt lasts while nothing newer is heard, since a wrong clock does not become right by itself.

The hybrid of physical and heard time follows Kulkarni et al., Logical Physical Clocks (2014), without the logical part, since
these times order nothing.
"""

import enum
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Annotated, NamedTuple, Protocol, Self

import msgspec

from constraint_crdt.crdt.limits import ID_BYTES, MAX_COUNT
from constraint_crdt.errors import ConstraintCrdtError, InvalidType, InvalidValue

if TYPE_CHECKING:
    from constraint_crdt.crdt.cells import Cell, Run


ALONE = 0
"""The incarnation of a writer given by its node id only, as in a standalone type."""


class Replica(NamedTuple):
    """A life of a node. Orders by node id, then incarnation (unique, with no further meaning)."""

    node_id: str
    incarnation: int

    def __str__(self) -> str:
        return f"{self.node_id}~{self.incarnation:x}"


class Dot(NamedTuple):
    """A mutation: the `seq`-th of `replica`."""

    replica: Replica
    seq: int


def dot_text(dot: Dot) -> str:
    """A mutation as text, for people."""
    return f"{dot.replica}:{dot.seq}"


def parse_replica(text: str) -> Replica | None:
    """The replica with this text; None for any other text."""
    name, _, life = text.rpartition("~")
    try:
        replica = Replica(name, int(life, 16))
    except ValueError:
        return None
    return replica if str(replica) == text else None


def check_id(text: str, what: str, *, field: str | None = None) -> str:
    """Return `text` if it may serve as an id: not empty, at most `ID_BYTES` in UTF-8.

    `what`: the beginning of the sentence of an error. `field`: the field named by the error. Raises `TypeError` for a value of
    another type, and `ConstraintCrdtError` for a text out of bounds.
    """
    if not isinstance(text, str):
        raise InvalidType(f"{what} is a text, not {text!r}")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ConstraintCrdtError(f"{what} {text!r} is not valid Unicode text", field=field) from None
    if not 0 < size <= ID_BYTES:
        raise ConstraintCrdtError(f"{what} must have 1 to {ID_BYTES} bytes, not {size}", field=field)
    return text


@lru_cache(maxsize=4096, typed=True)
def check_replica(node_id: str, incarnation: int) -> Replica:
    """Make a `Replica`, or raise `ConstraintCrdtError` for a part out of bounds.

    Remembered, because each message names the same few replicas. A single object for each is also compared faster.
    """
    if not 0 <= incarnation <= MAX_COUNT:
        raise ConstraintCrdtError(f"an incarnation must be between 0 and 2**63 - 1, not {incarnation}")
    return Replica(check_id(node_id, "a node id"), incarnation)


def writer(node: str | Replica) -> Replica:
    """The replica of a writer: a `Replica`, or a node id for a life without siblings.

    Two copies that both write as the same node without merging would use a dot twice; callers have to avoid that. Raises
    `TypeError` and `ConstraintCrdtError` for an invalid node id.
    """
    return node if isinstance(node, Replica) else check_replica(node, ALONE)


_MODULO = 2**256 - 1
"""`x & _MODULO` is x modulo 2**256, in half the time of `%`."""
STATE_HASH_BYTES = 32
HASH_TOKEN_BYTES = 8


class Hashed(Protocol):
    """A state, a tile or a clock."""

    @property
    def state_hash(self) -> "StateHash":
        """Equal for equal knowledge."""


class StateHash(bytes):
    """32 bytes, equal for equal knowledge. `str()` is a short form for people; `hex()` the whole."""

    __slots__ = ()

    @classmethod
    def zero(cls) -> Self:
        """32 zeros, which stand for no hash: no state has it, the empty state included."""
        return cls(STATE_HASH_BYTES)

    @property
    def is_zero(self) -> bool:
        """True for `zero()`."""
        return not any(self)

    @staticmethod
    def from_state(state: Hashed) -> "StateHash":
        """The hash of a state: its `state_hash`."""
        return state.state_hash

    @staticmethod
    def from_tile(tile: Hashed) -> "StateHash":
        """The hash of a tile: its `state_hash`."""
        return tile.state_hash

    @staticmethod
    def from_clock(clock: Hashed) -> "StateHash":
        """The hash of a clock: its `state_hash`."""
        return clock.state_hash

    def __str__(self) -> str:
        digits = self.hex()
        return f"{digits[:8]}…{digits[-8:]}"

    def __repr__(self) -> str:
        return f"StateHash({self.hex()!r})"

    def token(self, reader: Replica) -> bytes:
        """8 bytes in place of this hash, for a life of a reader."""
        return _token(self, reader)


@lru_cache(maxsize=4096)
def replica_bytes(replica: Replica) -> bytes:
    """A replica as unambiguous bytes: incarnation, length of the id, the id."""
    name = replica.node_id.encode()
    return replica.incarnation.to_bytes(8, "big") + len(name).to_bytes(2, "big") + name


@lru_cache(maxsize=256)
def _token(state_hash: bytes, reader: Replica) -> bytes:
    """Remembered, because each message of an exchange says or checks the same few."""
    return blake()(state_hash + replica_bytes(reader), HASH_TOKEN_BYTES, b"hash token")


@cache
def _fill() -> "Callable[[Iterable[Cell], bytes, bytes], None]":
    """Imported late, since cells are made of replicas."""
    from constraint_crdt.crdt.cells import core

    return core.fill_digests


@cache
def blake() -> "Callable[..., bytes]":
    """The hash function of the core: of bytes, a size, a purpose and a key. Imported late as well."""
    from constraint_crdt.crdt.cells import core

    return core.blake


@lru_cache(maxsize=4096)
def _clock_entry(key: bytes, replica: Replica, seq: int) -> int:
    """Remembered, because each message of an exchange moves the same few entries from and to the same values."""
    return int.from_bytes(blake()(seq.to_bytes(8, "big") + replica_bytes(replica), STATE_HASH_BYTES, b"clock", key))


class Digest:
    """The keyed hash functions of a fleet."""

    __slots__ = ("_key",)

    def __init__(self, secret: bytes = b"") -> None:
        """`secret` is the fleet's; empty means none, which still tells accidents apart but not attackers."""
        self._key = blake2b(secret, digest_size=32, person=b"constraint-crdt").digest()

    def __eq__(self, other: object) -> bool:
        return self._key == other._key if isinstance(other, Digest) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key)

    def fill(self, replica: Replica, cells: "Iterable[Cell]") -> None:
        """Set the keyed hash of each cell of a row without a hash."""
        _fill()(cells, self._key, replica_bytes(replica))

    def enter(self, runs: "Iterable[Run]") -> None:
        """Set the keyed hash of the clock entry at the end of each run without a hash."""
        for run in [run for run in runs if not run.entry]:
            run.entry = self.clock_entry(run.replica, run.hi)

    def clock_entry(self, replica: Replica, seq: int) -> int:
        """The keyed hash of a clock entry."""
        return _clock_entry(self._key, replica, seq)

    def state(self, cells: int, clock: int) -> StateHash:
        """The hash of a state from its two sums."""
        sums = (cells & _MODULO).to_bytes(32, "big") + (clock & _MODULO).to_bytes(32, "big")
        return StateHash(blake()(sums, STATE_HASH_BYTES, b"state", self._key))


CLOCK_NAME_BYTES = 8


class Merge(ABC):
    """A state-based CRDT: joins with another replica of itself."""

    __slots__ = ()

    @abstractmethod
    def merge(self, other: Self) -> bool:
        """Take in everything `other` knows. True if the knowledge here changed."""

    @abstractmethod
    def merged(self, other: Self) -> Self:
        """A new value with the knowledge of both; neither operand changes."""

    @abstractmethod
    def subsumes(self, other: Self) -> bool:
        """True if a merge of `other` would change nothing."""


class CausalOrder(enum.Enum):
    """How two clocks stand to each other."""

    EQUAL = "equal"
    BEFORE = "before"
    AFTER = "after"
    CONCURRENT = "concurrent"


class VectorClock(Merge):
    """The seq up to which each replica's row is accounted for.

    Iterates over replicas; `clock[replica]` is 0 for an unknown replica. Comparisons and merges cost O(entries).
    """

    __slots__ = ("_entries", "_mark")

    def __init__(self, entries: Mapping[Replica, int] | Iterable[tuple[Replica, int]] = ()) -> None:
        """`entries`: the seq of each replica, as a mapping or as pairs. Raises `ValueError` for a negative seq."""
        pairs = entries.items() if isinstance(entries, Mapping) else entries
        self._entries: dict[Replica, int] = {replica: seq for replica, seq in pairs if seq}
        self._mark: ClockMark | None = None
        if any(seq < 0 for seq in self._entries.values()):
            raise InvalidValue("a clock entry cannot be negative")

    @classmethod
    def over(cls, entries: dict[Replica, int]) -> Self:
        """A clock over a dict, without copy or check. The caller never changes the dict afterwards."""
        clock = cls.__new__(cls)
        clock._entries, clock._mark = entries, None
        return clock

    @classmethod
    def of(cls, mark: "ClockMark") -> Self:
        """The clock of a mark. O(1)."""
        clock = cls.__new__(cls)
        clock._entries, clock._mark = mark.entries, mark
        return clock

    def mark(self, digest: Digest) -> "ClockMark":
        """The mark of this clock: the mark of its origin, or a new mark. O(1) or O(entries)."""
        if self._mark is None or not self._mark.is_by(digest):
            self._mark = ClockMark.of(self._entries, digest)
        return self._mark

    @classmethod
    def from_node(cls, node: str | Replica, seq: int) -> Self:
        """The clock of a single replica. Raises `ValueError` for a negative seq, and as `writer` for an invalid node."""
        return cls({writer(node): seq})

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The clock in a JSON of `to_json`. A name without a life, as the Rust crate writes, is a node without siblings.

        Raises `ValueError` for any other text.
        """
        try:
            entries = msgspec.json.decode(text, type=_ClockFile).clock
            return cls([(parse_replica(name) or writer(name), seq) for name, seq in entries.items()])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ConstraintCrdtError) as error:
            raise InvalidValue(f"this is no JSON of a clock: {error}") from None

    def to_json(self) -> str:
        """`{"clock": {REPLICA: SEQ, …}}`, with the replicas as text, in order."""
        return msgspec.json.encode(_ClockFile({str(replica): seq for replica, seq in sorted(self.items())})).decode()

    def increment(self, node: str | Replica) -> int:
        """Account for another mutation of a node; returns its seq. O(entries).

        The clock of a state follows from its cells, so this is for clocks that stand alone.
        """
        replica = writer(node)
        seq = self[replica] + 1
        self._entries, self._mark = self._entries | {replica: seq}, None
        return seq

    @property
    def state_hash(self) -> StateHash:
        """Equal for equal clocks. Without the secret of a fleet. O(entries)."""
        digest = Digest()
        return digest.state(0, self.mark(digest).total)

    def __getitem__(self, replica: Replica) -> int:
        return self._entries.get(replica, 0)

    def __contains__(self, replica: object) -> bool:
        return replica in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Replica]:
        return iter(self._entries)

    def items(self) -> Iterable[tuple[Replica, int]]:
        """The entries above 0."""
        return self._entries.items()

    def as_dict(self) -> dict[Replica, int]:
        """A copy of the entries above 0."""
        return dict(self._entries)

    @property
    def total(self) -> int:
        """How many mutations are accounted for, over all replicas. O(entries)."""
        return sum(self._entries.values())

    def merge(self, other: Self) -> bool:
        raised = {replica: seq for replica, seq in other._entries.items() if seq > self._entries.get(replica, 0)}
        if raised:
            self._entries, self._mark = self._entries | raised, None
        return bool(raised)

    def merged(self, other: Self) -> Self:
        result = type(self).over(self._entries)
        result.merge(other)
        return result

    def subsumes(self, other: Self) -> bool:
        mine = self._entries
        return all(seq <= mine.get(replica, 0) for replica, seq in other._entries.items())

    def compare(self, other: "VectorClock") -> CausalOrder:
        """EQUAL, BEFORE (`other` knows more), AFTER (`other` knows less) or CONCURRENT (each knows something)."""
        if self._entries == other._entries:
            return CausalOrder.EQUAL
        if other.subsumes(self):
            return CausalOrder.BEFORE
        return CausalOrder.AFTER if self.subsumes(other) else CausalOrder.CONCURRENT

    def is_concurrent(self, other: "VectorClock") -> bool:
        """True if each clock knows a mutation unknown to the other."""
        return self.compare(other) is CausalOrder.CONCURRENT

    def happened_before_or_equal(self, other: "VectorClock") -> bool:
        """True if `other` knows everything in this clock."""
        return other.subsumes(self)

    def __eq__(self, other: object) -> bool:
        return self._entries == other._entries if isinstance(other, VectorClock) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # mutable by merge

    def __repr__(self) -> str:
        inner = ", ".join(f"{replica}: {seq}" for replica, seq in sorted(self._entries.items()))
        return f"VectorClock({{{inner}}})"


class _ClockFile(msgspec.Struct):
    """A clock as JSON, in the form of the Rust crate."""

    clock: dict[str, Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)]]


class ClockMark(msgspec.Struct, eq=False):
    """A clock at an instant, with the sum of its entries' keyed hashes: cheap to compare, to change and to name.

    Marks never change, so they are shared freely; do not write to `entries`.
    """

    entries: dict[Replica, int]
    total: int
    count: int
    """The sum of the seqs. The clock of a life only grows, so of two of its clocks the larger sum is the later."""
    _digest: Digest
    _order: list[Replica] = []
    """The replicas sorted, shared with marks of the same replicas; empty until it is needed."""
    _name: tuple[Replica, bytes] | None = None

    @classmethod
    def of(cls, entries: Mapping[Replica, int], digest: Digest) -> "ClockMark":
        """The mark of a clock spelled out. O(entries)."""
        entries = {replica: seq for replica, seq in entries.items() if seq}
        total = sum([digest.clock_entry(replica, seq) for replica, seq in entries.items()])
        return cls(entries, total, sum(entries.values()), digest)

    def is_by(self, digest: Digest) -> bool:
        """True if the sum was made with the hash functions of `digest`."""
        return self._digest == digest

    def followed_by(self, entries: dict[Replica, int], total: int, count: int) -> "ClockMark":
        """The mark of a later instant of the same clock, which may have gained entries but has lost none."""
        if len(entries) == len(self.entries):
            return ClockMark(entries, total, count, self._digest, self._order)
        return ClockMark(entries, total, count, self._digest)

    def __eq__(self, other: object) -> bool:
        return self.total == other.total if isinstance(other, ClockMark) else NotImplemented

    def __ne__(self, other: object) -> bool:  # Python would ask that of a struct, which compares otherwise
        return self.total != other.total if isinstance(other, ClockMark) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # nothing keys by a mark

    def changed(self, changes: Iterable[tuple[Replica, int]]) -> "ClockMark":
        """This clock with some entries replaced (a 0 takes an entry out). Hashing costs O(changes), the copy O(entries).

        Without a change it is this mark, in O(changes).
        """
        digest, now = self._digest, self.entries
        changes = [(replica, seq) for replica, seq in changes if now.get(replica, 0) != seq]
        if not changes:
            return self
        entries, total, count, same_keys = now.copy(), self.total, self.count, True
        for replica, seq in changes:
            before = entries.get(replica, 0)
            if before == seq:
                continue
            count += seq - before
            if before:
                total -= digest.clock_entry(replica, before)
            if seq:
                entries[replica] = seq
                total += digest.clock_entry(replica, seq)
            else:
                del entries[replica]
            same_keys = same_keys and bool(before and seq)
        return ClockMark(entries, total, count, digest, self._order if same_keys else [])

    def replaced(self, entries: Mapping[Replica, int]) -> "ClockMark":
        """The mark of another clock spelled out: as `of`, but hashing costs only O(differences)."""
        mine = self.entries
        changes = [(replica, seq) for replica, seq in entries.items() if replica not in mine or mine[replica] != seq]
        changes += [(replica, 0) for replica in mine if replica not in entries]
        return self.changed(changes)

    def name(self, reader: Replica) -> bytes:
        """8 bytes as the name of this clock towards a life of a reader; another life cannot resolve them.

        The last name is cached: while two nodes exchange, each looks through the same few clocks for the same reader.
        """
        last = self._name
        if last is not None and last[0] == reader:
            return last[1]
        total = (self.total % 2**256).to_bytes(32, "big")
        name = blake()(total + replica_bytes(reader), CLOCK_NAME_BYTES, b"clock name")
        self._name = (reader, name)
        return name

    @property
    def order(self) -> list[Replica]:
        """The replicas sorted, the target of indexes on the wire. O(n log n) once, then shared with marks of the same replicas."""
        if not self._order:
            self._order += sorted(self.entries)
        return self._order

    def index(self, replica: Replica) -> int | None:
        """Where `replica` stands in `order`, or None."""
        return bisect_left(self.order, replica) if replica in self.entries else None


SECOND = 1_000_000_000
"""ns."""

DEFAULT_MAX_SKEW = 10 * SECOND
DEFAULT_HEARD_FOR = 5 * SECOND

TRAVEL = SECOND
"""ns by which a clock may look slower for the travel time of its message: no alarm below that."""


NEVER = 1 << 63
"""ns: later than any time."""

MEASUREMENTS = 64
"""The most measurements kept of a clock: the highest, and the later ones that count after it.

Of more the one goes that its neighbours tell best, so a reading is low by at most `2 / (MEASUREMENTS - 1)` of what lies between the
highest and the lowest: 16 ms where messages took half a second longer and longer. With few, a node on a slow link that heard more
and more delayed messages was off by 0.2 s, and went by another time than its peers.
"""


STEP = SECOND
"""ns by which the clock of a machine moves against the steady clock at once to count as a step. Slewing by NTP is slower."""

STEPS = 16
"""The most steps kept for `take_steps`. More are added to the last."""

AGREEING = 2
"""The fewest clocks of others that make up the time of the fleet."""


class _Heard(NamedTuple):
    offset: int
    """ns that the peer's clock is ahead of mine."""
    at: int
    """The time of the measurement, by my clock."""


def _best_told(known: Sequence[_Heard]) -> int:
    """The index of the measurement whose neighbours are closest together: neither the highest nor the last."""
    return min(range(1, len(known) - 1), key=lambda at: known[at - 1].offset - known[at + 1].offset)


class ClockDoubt(NamedTuple):
    """A clock that differs from at least half of those heard."""

    offset: int
    """ns by which the reading is ahead of the own clock."""
    agreed: bool
    """The offset is that of the fleet. Otherwise the clocks heard do not agree, and it is that of the earliest."""


class HybridClock:
    """The time of a node, in ns since the epoch. A reading is O(1), or O(peers) after the loss of the fastest clock."""

    def __init__(
        self,
        now: Callable[[], int],
        *,
        max_skew: int = DEFAULT_MAX_SKEW,
        heard_for: int = DEFAULT_HEARD_FOR,
        steady: Callable[[], int] | None = None,
    ) -> None:
        """`now`: my own clock. `max_skew`: the largest difference between clocks; `heard_for`: the lifetime of a measurement.
        `steady`: a clock of any beginning, never set, that runs on while the machine sleeps. All in ns."""
        self.own = now
        """My own clock."""
        self.max_skew = max_skew
        self.heard_for = heard_for
        self.alarms = 0
        """The number of times a peer's clock moved beyond `max_skew`."""
        self.steps = 0
        """The number of steps of my own clock, as far as a steady clock shows them."""
        self._steady = steady
        self._heard: dict[str, deque[_Heard]] = {}
        """The measurements of each peer in order: later measurements are lower, as a higher one replaces those before."""
        self._skewed: set[str] = set()
        self._far: set[str] = set()
        """The peers with a measurement beyond the bound."""
        self._doubt: ClockDoubt | None = None
        self._judged_by: int | None = None
        """The own time of the oldest measurement that `_doubt` goes by: it holds until that expires. None: it is found anew."""
        self._lead = _Heard(0, 0)
        self._hidden_until = NEVER
        """The time at which a measurement expires and may uncover a lower measurement of the same clock that counts otherwise."""
        self._last = 0
        self._last_steady = 0
        self._steps: list[int] = []
        self._held: int | None = None

    def now(self) -> int:
        """The hybrid time: that of the fleet, where my own clock is in doubt."""
        if self._held is not None:
            return self._held
        own = self._look()
        return own + self._current_lead(own).offset

    def stamp(self) -> int:
        """The timestamp of a write: as `now`, but my own time where I am in doubt and the others do not agree."""
        own = self._look()
        lead = self._current_lead(own)
        doubt = self._corrected
        return own if doubt is not None and not doubt.agreed else own + lead.offset

    def _current_lead(self, own: int) -> _Heard:
        lead = self._lead
        if (lead.offset and own - lead.at > self.heard_for) or own > self._hidden_until:
            lead = self._find_lead(own)
        return lead

    def hear(self, peer: str, time: int) -> int | None:
        """Take in the time of a peer. Returns how far the peer is ahead (negative: behind) if an alarm begins now, else None."""
        own = self._look()
        self._last = own
        heard, known = _Heard(time - own, own), self._known(peer, own)
        highest = known[0] if known else None
        lost = False
        while known and known[-1].offset <= heard.offset:
            lost |= known.pop() is self._lead
        known.append(heard)
        if len(known) > MEASUREMENTS:
            del known[_best_told(known)]
        if known[0] is not highest:
            self._judged_by = None
        near = self._is_near(heard.offset)
        if not near:
            self._far.add(peer)
        if self._steady is not None and (self._far or self._doubt is not None):
            self._find_lead(own)
        if len(known) > 1:
            if known[0].offset > self.max_skew:
                self._hidden_until = min(self._hidden_until, known[0].at + self.heard_for)
            return None
        if self._corrected is None and self._lead.offset <= heard.offset <= self.max_skew:
            self._lead = heard
        elif lost:
            self._find_lead(own)
        if near:
            self._skewed.discard(peer)
        elif peer not in self._skewed:
            self._skewed.add(peer)
            self.alarms += 1
            return heard.offset
        return None

    def forget(self, peer: str) -> None:
        """A peer is no more."""
        self._skewed.discard(peer)
        self._judged_by = None
        if self._lead in self._heard.pop(peer, ()) or self._far:
            self._find_lead(self._look())

    def offset(self, peer: str) -> int | None:
        """How far a peer's clock is ahead of mine (negative: behind), in ns; None without a recent measurement."""
        if peer not in self._heard:
            return None
        known = self._known(peer, self._look())
        return known[0].offset if known else None

    @property
    def offsets(self) -> dict[str, int]:
        """The same of all peers with a recent measurement. O(peers)."""
        own = self._look()
        return {peer: known[0].offset for peer in self._heard if (known := self._known(peer, own))}

    @property
    def doubt(self) -> ClockDoubt | None:
        """The doubt about my own clock; None while most of the clocks heard lately, mine included, are within `max_skew` of mine.

        O(peers) after a measurement that came or expired, else O(1).
        """
        own = self._look()
        if self._judged_by is None or own - self._judged_by > self.heard_for:
            self._find_lead(own)
        return self._doubt

    @property
    def in_doubt(self) -> bool:
        """True where there is a `doubt`, which see."""
        return self.doubt is not None

    def take_steps(self) -> list[int]:
        """The steps of my own clock since the last call, in ns, the oldest first. None are known without a steady clock."""
        self._look()
        taken, self._steps = self._steps, []
        return taken

    @contextmanager
    def held(self) -> Iterator[int]:
        """Hold the time inside of the block, so all readings there are of a single moment; gives the moment."""
        before, self._held = self._held, self.now()
        try:
            yield self._held
        finally:
            self._held = before

    @property
    def _corrected(self) -> ClockDoubt | None:
        """The doubt that the reading goes by: none without a steady clock, since the own clock may have been set unseen."""
        return None if self._steady is None else self._doubt

    def _look(self) -> int:
        """My own time. If my clock was set, earlier measurements are moved; without a steady clock they are dropped."""
        own = self.own()
        if self._steady is None:
            if own < self._last:
                self._heard.clear()
                self._far.clear()
                self._lead, self._last, self._hidden_until, self._doubt = _Heard(0, own), own, NEVER, None
                self._judged_by = None
            return own
        steady = self._steady()
        step = own - self._last - (steady - self._last_steady)
        if not self._last_steady:  # the first reading
            step = 0
        elif abs(step) >= STEP:  # unless the process was stopped between the two readings
            before, own, after = self._steady(), self.own(), self._steady()
            while after - before >= STEP // 2:
                before, own, after = after, self.own(), self._steady()
            steady, step = after, own - self._last - (after - self._last_steady)
        self._last, self._last_steady = own, steady
        if abs(step) >= STEP:
            self._step(step, own)
        return own

    def _step(self, step: int, own: int) -> None:
        """My own clock was set: earlier measurements by it stay true."""
        for peer, known in self._heard.items():
            self._heard[peer] = deque(_Heard(each.offset - step, each.at + step) for each in known)
        self._far = {peer for peer, known in self._heard.items() if any(not self._is_near(each.offset) for each in known)}
        if self._doubt is not None:
            left = self._doubt.offset - step
            self._doubt = None if self._is_near(left) else self._doubt._replace(offset=left)
        self.steps += 1
        if len(self._steps) == STEPS:
            step += self._steps.pop()
        self._steps.append(step)
        self._find_lead(own)

    def _known(self, peer: str, own: int) -> deque[_Heard]:
        """The valid measurements of a peer's clock, the highest first."""
        known = self._heard.get(peer)
        if known is None:
            known = self._heard[peer] = deque()
        while known and own - known[0].at > self.heard_for:
            known.popleft()
        return known

    def _is_near(self, offset: int) -> bool:
        return -self.max_skew - TRAVEL <= offset <= self.max_skew

    def _find_lead(self, own: int) -> _Heard:
        """The offset of the reading: the valid clock furthest ahead of mine, within the bound, mine if there is none; or the
        doubt's."""
        most, least, oldest = self.max_skew, -self.max_skew - TRAVEL, own - self.heard_for
        lead, offsets, far = _Heard(0, own), list[int](), set[str]()
        first = hiding = NEVER
        for peer, known in self._heard.items():
            while known and known[0].at < oldest:
                known.popleft()
            if not known:
                continue
            heard = known[0]
            offsets.append(heard.offset)
            first = min(first, heard.at)
            if heard.offset > most:
                hiding = min(hiding, heard.at)
                far.add(peer)
            elif known[-1].offset < least:  # they are in order, and the last one is the lowest
                far.add(peer)
            if 0 < heard.offset <= most and heard > lead:
                lead = heard
        self._judge(offsets)
        self._judged_by = first
        if self._steady is not None:
            self._far, hiding = far, first if far else NEVER
        self._hidden_until = hiding + self.heard_for if hiding < NEVER else NEVER
        doubt = self._corrected
        self._lead = lead if doubt is None else _Heard(doubt.offset, own)
        return self._lead

    def _judge(self, offsets: list[int]) -> None:
        """Find the doubt about my own clock. `offsets`: of the clocks heard lately; without any, the doubt of before lasts."""
        if not offsets:
            self._doubt = None if self._steady is None else self._doubt
            return
        near, clocks = 1 + sum(map(self._is_near, offsets)), 1 + len(offsets)
        if near * 2 > clocks:
            self._doubt = None
            return
        median = sorted(offsets)[(len(offsets) - 1) // 2]
        agreeing = sum(abs(offset - median) <= self.max_skew + TRAVEL for offset in offsets)
        agreed = agreeing >= AGREEING and agreeing * 3 >= clocks * 2 and not self._is_near(median)
        self._doubt = ClockDoubt(median if agreed else min(0, *offsets), agreed)
