"""Small CRDTs for the checker to judge: three that are right, and of each some that are right but for one planted error."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from constraint_crdt.testing import Laws, in_place

Entries = dict[str, tuple[int, int]]


# --- a counter with deltas and a codec -----------------------------------------------------------------------------------


@dataclass
class Counter:
    """Per replica how often it stepped and the sum of its steps, which may be negative or 0."""

    entries: Entries = field(default_factory=dict)

    def step(self, name: str, amount: int) -> None:
        steps, total = self.entries.get(name, (0, 0))
        self.entries[name] = (steps + 1, total + amount)

    def merge(self, other: "Counter") -> None:
        self._take(other.entries)

    def _take(self, entries: Entries) -> None:
        for name, entry in entries.items():
            self.entries[name] = max(entry, self.entries.get(name, (0, 0)))

    @property
    def total(self) -> int:
        return sum(total for _, total in self.entries.values())

    def reading(self) -> object:
        return self.total, self.entries

    def clock(self) -> dict[str, int]:
        return {name: steps for name, (steps, _) in self.entries.items()}

    def delta_since(self, clock: dict[str, int]) -> Entries:
        return {name: entry for name, entry in self.entries.items() if entry[0] > clock.get(name, 0)}

    def apply_delta(self, delta: Entries) -> None:
        self._take(delta)

    @staticmethod
    def encode_delta(delta: Entries) -> list[bytes]:
        """A message each, with its place and their number in front."""
        return [bytes((place, len(delta))) + _encode(name, entry) for place, (name, entry) in enumerate(delta.items())]

    def apply_encoded(self, messages: Sequence[bytes]) -> None:
        delta = dict(_decode(message[2:]) for message in messages)
        if messages and {(message[0], message[1]) for message in messages} == {(n, messages[0][1]) for n in range(messages[0][1])}:
            self._take(delta)

    def encode(self) -> bytes:
        entries = self.written()
        return b"".join([bytes((len(entries),)), *(_encode(*each) for each in entries)])

    def written(self) -> list[tuple[str, tuple[int, int]]]:
        return sorted(self.entries.items())

    @classmethod
    def decode(cls, data: bytes) -> "Counter":
        counter = cls.of(data[1:])
        if not data or len(counter.entries) != data[0]:
            raise ValueError("not as many entries as were said")
        return counter

    @classmethod
    def of(cls, data: bytes) -> "Counter":
        return cls(dict(_decode(data[start : start + 3]) for start in range(0, len(data), 3)))


def _encode(name: str, entry: tuple[int, int]) -> bytes:
    return name.encode() + bytes((entry[0], entry[1] + 100))


def _decode(data: bytes) -> tuple[str, tuple[int, int]]:
    if len(data) != 3:
        raise ValueError("an entry has three bytes")
    return data[:1].decode(), (data[1], data[2] - 100)


class AddsOnMerge(Counter):
    """Not idempotent."""

    def _take(self, entries: Entries) -> None:
        for name, (steps, total) in entries.items():
            mine = self.entries.get(name, (0, 0))
            self.entries[name] = (mine[0] + steps, mine[1] + total)


class SubtractsOnMerge(Counter):
    """Not monotone: of two entries the lower one stands."""

    def _take(self, entries: Entries) -> None:
        for name, entry in entries.items():
            self.entries[name] = min(entry, self.entries.get(name, entry))


class SumMergedByMax(Counter):
    """One sum for all replicas, of which the higher one stands: what was counted at the same time is lost."""

    def step(self, name: str, amount: int) -> None:
        super().step("z", amount)


class IncrementAsDelta(Counter):
    """A delta that was taken twice counts twice."""

    def delta_since(self, clock: dict[str, int]) -> Entries:
        missing = super().delta_since(clock)
        return {name: (steps - clock.get(name, 0), total) for name, (steps, total) in missing.items()}

    def apply_delta(self, delta: Entries) -> None:
        for name, (steps, total) in delta.items():
            mine = self.entries.get(name, (0, 0))
            self.entries[name] = (mine[0] + steps, total)


class DropsZeros(Counter):
    """The codec leaves out a replica whose sum is 0."""

    def written(self) -> list[tuple[str, tuple[int, int]]]:
        return [each for each in super().written() if each[1][1]]


class AcceptsWhatIsCut(Counter):
    """The codec takes as many entries as there are."""

    @classmethod
    def decode(cls, data: bytes) -> "Counter":
        return cls.of(data[1 : len(data) - (len(data) - 1) % 3])


class InOrderOfArrival(Counter):
    """States that read alike encode differently."""

    def written(self) -> list[tuple[str, tuple[int, int]]]:
        return list(self.entries.items())


class TakesPartsAsTheyCome(Counter):
    """A delta of which a part is missing is half-applied."""

    def apply_encoded(self, messages: Sequence[bytes]) -> None:
        for message in messages:
            self._take(dict([_decode(message[2:])]))


def counter_laws(kind: type[Counter]) -> Laws[Counter, int]:
    def accounts_for(counter: Counter, done: Sequence[tuple[str, int]]) -> bool:
        return counter.total == sum(amount for _, amount in done)

    return Laws(
        new=kind,
        steps=st.integers(-2, 2),
        apply_step=in_place(lambda counter, name, amount: counter.step(name, amount)),
        merge=in_place(lambda counter, other: counter.merge(other)),
        reading=lambda counter: counter.reading(),
        accounts_for=accounts_for,
        clock=lambda counter: counter.clock(),
        delta_since=lambda counter, clock: counter.delta_since(clock),
        apply_delta=in_place(lambda counter, delta: counter.apply_delta(delta)),
        encode_delta=kind.encode_delta,
        apply_encoded=in_place(lambda counter, messages: counter.apply_encoded(messages)),
        encode=lambda counter: counter.encode(),
        decode=kind.decode,
        canonical=True,
    )


# --- a register: a value without methods, so that merging makes a new one ----------------------------------------------

Register = tuple[int, str, str]
"""(time, writer, value)."""


def later(mine: Register, other: Register) -> Register:
    return max(mine, other)


def tie_goes_to_receiver(mine: Register, other: Register) -> Register:
    """Not commutative."""
    return other if other[0] > mine[0] else mine


def tie_by_value_backwards(mine: Register, other: Register) -> Register:
    """Not associative: the value says who wins a tie, round in a circle."""
    if mine[0] != other[0] or mine[2] == other[2]:
        return max(mine, other)
    return mine if (mine[2], other[2]) in {("rock", "scissors"), ("scissors", "paper"), ("paper", "rock")} else other


def register_laws(merge: Any) -> Laws[Register, tuple[int, str]]:
    """Steps give the time. Were it counted by each replica, a tie would take as many steps everywhere, and would not shrink step
    by step.
    """
    return Laws(
        new=lambda: (0, "", ""),
        steps=st.tuples(st.integers(1, 3), st.sampled_from(["paper", "rock", "scissors"])),
        apply_step=lambda register, name, step: max(register, (step[0], name, step[1])),
        merge=merge,
        reading=lambda register: register,
        subsumes=lambda register, other: merge(register, other) == register,
    )


# --- an OR-set ---------------------------------------------------------------------------------------------------------

Tag = tuple[str, int]


@dataclass
class Bag:
    """Elements with the tags of their adds, and the tags that were removed."""

    tags: dict[str, set[Tag]] = field(default_factory=dict)
    removed: set[Tag] = field(default_factory=set)
    made: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, element: str) -> None:
        self.made[name] = self.made.get(name, 0) + 1
        self.tags.setdefault(element, set()).add((name, self.made[name]))

    def remove(self, element: str) -> None:
        self.removed |= self.tags.get(element, set())

    def merge(self, other: "Bag") -> None:
        for element, tags in other.tags.items():
            self.tags[element] = self.tags.get(element, set()) | tags
        self.removed |= other.removed
        self.made = {name: max(self.made.get(name, 0), other.made.get(name, 0)) for name in self.made | other.made}

    def elements(self) -> Iterable[str]:
        return sorted(element for element, tags in self.tags.items() if tags - self.removed)


class RemovesByValue(Bag):
    """A removal takes the element out, whoever added it: merging with who still has it brings it back."""

    def remove(self, element: str) -> None:
        self.tags.pop(element, None)


class ForgetsRemovals(Bag):
    """An add forgets that there was a removal, so that it is lost again to whoever still knows."""

    def __init__(self) -> None:
        super().__init__()
        self.gone: set[str] = set()

    def add(self, name: str, element: str) -> None:
        super().add(name, element)
        self.gone.discard(element)

    def remove(self, element: str) -> None:
        self.gone.add(element)

    def merge(self, other: "Bag") -> None:
        super().merge(other)
        if isinstance(other, ForgetsRemovals):
            self.gone |= other.gone

    def elements(self) -> Iterable[str]:
        return sorted(set(self.tags) - self.gone)


def bag_laws(kind: type[Bag]) -> Laws[Bag, tuple[str, str]]:
    def change(bag: Bag, name: str, step: tuple[str, str]) -> None:
        if step[0] == "add":
            bag.add(name, step[1])
        else:
            bag.remove(step[1])

    return Laws(
        new=kind,
        steps=st.tuples(st.sampled_from(["add", "remove"]), st.sampled_from("xy")),
        apply_step=in_place(change),
        merge=in_place(lambda bag, other: bag.merge(other)),
        reading=lambda bag: bag.elements(),
    )
