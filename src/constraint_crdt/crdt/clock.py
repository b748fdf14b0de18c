"""How far each row is accounted for.

A clock maps a replica to the seq up to which *everything* of its row has been taken in. Equal clocks mean equal knowledge.
Entries only grow, and a replica without an entry stands at 0; zeros are never stored, so equality is equality of entries.

`VectorClock` is the value users handle. `ClockMark` is a frozen clock with its digest sum beside it: what two peers name to
each other in 8 bytes instead of spelling it out.

What it means here that two replicas of something can be joined.

The laws (DESIGN 7.1): `merge` is commutative, associative, idempotent and never takes knowledge away.
"""

import enum
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Self

from constraint_crdt.crdt.digest import Digest, replica_bytes
from constraint_crdt.crdt.replica import Replica

CLOCK_NAME_BYTES = 8


class Merge(ABC):
    """A state-based CRDT: joins with another replica of itself."""

    __slots__ = ()

    @abstractmethod
    def merge(self, other: Self) -> bool:
        """Take in everything `other` knows. True if that changed what is known here."""

    @abstractmethod
    def merged(self, other: Self) -> Self:
        """A new value that knows what both know; neither operand changes."""

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
    """Up to which seq each replica's row is accounted for.

    Iterates over replicas; `clock[replica]` is 0 for one it has never heard of. Comparisons and merges cost O(entries).
    """

    __slots__ = ("_entries", "_mark")

    def __init__(self, entries: Mapping[Replica, int] | Iterable[tuple[Replica, int]] = ()) -> None:
        pairs = entries.items() if isinstance(entries, Mapping) else entries
        self._entries: dict[Replica, int] = {replica: seq for replica, seq in pairs if seq}
        self._mark: ClockMark | None = None
        if any(seq < 0 for seq in self._entries.values()):
            raise ValueError("a clock entry cannot be negative")

    @classmethod
    def over(cls, entries: dict[Replica, int]) -> Self:
        """A clock over a dict that the caller promises never to change (no copy, no check)."""
        clock = cls.__new__(cls)
        clock._entries, clock._mark = entries, None
        return clock

    @classmethod
    def of(cls, mark: "ClockMark") -> Self:
        """The clock that a mark is of. O(1)."""
        clock = cls.__new__(cls)
        clock._entries, clock._mark = mark.entries, mark
        return clock

    def mark(self, digest: Digest) -> "ClockMark":
        """The mark of this clock: the one that it was made from, or a new one. O(1) or O(entries)."""
        if self._mark is None or not self._mark.is_by(digest):
            self._mark = ClockMark.of(self._entries, digest)
        return self._mark

    def __getitem__(self, replica: Replica) -> int:
        return self._entries.get(replica, 0)

    def __contains__(self, replica: object) -> bool:
        return replica in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Replica]:
        return iter(self._entries)

    def items(self) -> Iterable[tuple[Replica, int]]:
        """The entries that are not 0."""
        return self._entries.items()

    def as_dict(self) -> dict[Replica, int]:
        """A copy of the entries that are not 0."""
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
        """True if each knows something that the other does not."""
        return self.compare(other) is CausalOrder.CONCURRENT

    def happened_before_or_equal(self, other: "VectorClock") -> bool:
        """True if `other` knows everything that this clock knows."""
        return other.subsumes(self)

    def __eq__(self, other: object) -> bool:
        return self._entries == other._entries if isinstance(other, VectorClock) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # mutable by merge

    def __repr__(self) -> str:
        inner = ", ".join(f"{replica}: {seq}" for replica, seq in sorted(self._entries.items()))
        return f"VectorClock({{{inner}}})"


class ClockMark:
    """A clock at one instant, with the sum of its entries' keyed hashes: cheap to compare, to change and to name.

    Never changes, so it is shared freely; `entries` must not be written to.
    """

    __slots__ = ("_digest", "_name", "_order", "count", "entries", "total")

    def __init__(
        self, entries: dict[Replica, int], total: int, count: int, digest: Digest, order: list[Replica] | None = None
    ) -> None:
        self.entries = entries
        self.total = total
        self.count = count
        """The sum of the seqs: one life's clock only grows, so of two of its clocks the one with more is the later."""
        self._digest = digest
        self._order = order
        self._name: tuple[Replica, bytes] | None = None

    @classmethod
    def of(cls, entries: Mapping[Replica, int], digest: Digest) -> "ClockMark":
        """The mark of a clock that was spelled out. O(entries)."""
        entries = {replica: seq for replica, seq in entries.items() if seq}
        total = sum([digest.clock_entry(replica, seq) for replica, seq in entries.items()])
        return cls(entries, total, sum(entries.values()), digest)

    def is_by(self, digest: Digest) -> bool:
        """True if it is summed up with the hash functions of `digest`."""
        return self._digest == digest

    def followed_by(self, entries: dict[Replica, int], total: int, count: int) -> "ClockMark":
        """The mark of a later instant of the same clock, which may have gained entries but has lost none."""
        return ClockMark(entries, total, count, self._digest, self._order if len(entries) == len(self.entries) else None)

    def __eq__(self, other: object) -> bool:
        return self.total == other.total if isinstance(other, ClockMark) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # nothing keys by a mark

    def changed(self, changes: Iterable[tuple[Replica, int]]) -> "ClockMark":
        """This clock with some entries replaced (a 0 takes an entry out). Hashing costs O(changes), the copy O(entries)."""
        digest = self._digest
        entries, total, count, same_keys = self.entries.copy(), self.total, self.count, True
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
        return ClockMark(entries, total, count, digest, self._order if same_keys else None)

    def replaced(self, entries: Mapping[Replica, int]) -> "ClockMark":
        """The mark of another clock that was spelled out: as `of`, but hashing costs only O(differences)."""
        mine = self.entries
        changes = [(replica, seq) for replica, seq in entries.items() if replica not in mine or mine[replica] != seq]
        changes += [(replica, 0) for replica in mine if replica not in entries]
        return self.changed(changes)

    def name(self, reader: Replica) -> bytes:
        """8 bytes that name this clock to one life of one reader; another life cannot resolve them.

        The last one is remembered: while two nodes talk, each looks through the same few clocks for the same reader.
        """
        last = self._name
        if last is not None and last[0] == reader:
            return last[1]
        total = (self.total % 2**256).to_bytes(32, "big")
        name = blake2b(total + replica_bytes(reader), digest_size=CLOCK_NAME_BYTES, person=b"clock name").digest()
        self._name = (reader, name)
        return name

    @property
    def order(self) -> list[Replica]:
        """The replicas sorted: what an index on the wire refers to. O(n log n) once, then shared with marks of the same."""
        if self._order is None:
            self._order = sorted(self.entries)
        return self._order

    def index(self, replica: Replica) -> int | None:
        """Where `replica` stands in `order`, or None."""
        if replica not in self.entries:
            return None
        return bisect_left(self.order, replica)
