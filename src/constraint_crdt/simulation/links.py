"""The random numbers of a simulation: the same ones for the same seed, on every machine and version of Python.

SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014). It has 64 bits of state, and is no good for
secrets.

The links between nodes: how long a message takes, whether it arrives, and how often.

What messages carry: the measure of how often nodes hear of the same.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import log
from typing import TypeVar

from constraint_crdt.crdt.cells import Run
from constraint_crdt.protocol.messages import Delta, GossipMessage, Sync

Item = TypeVar("Item")

_MASK = 2**64 - 1
_GAMMA = 0x9E3779B97F4A7C15


class Chance:
    """A stream of random numbers."""

    __slots__ = ("_state",)

    def __init__(self, seed: int) -> None:
        """Any whole number; numbers that are equal modulo 2**64 give the same stream."""
        self._state = seed & _MASK

    def bits(self) -> int:
        """The next 64 bits."""
        state = self._state = (self._state + _GAMMA) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        return state ^ (state >> 31)

    def random(self) -> float:
        """A number from 0 up to, not including, 1."""
        return (self.bits() >> 11) * 2.0**-53

    def below(self, bound: int) -> int:
        """A whole number from 0 up to, not including, `bound`, which is at least 1 and far below 2**64."""
        return (self.bits() * bound) >> 64

    def between(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        return low + self.below(high - low + 1)

    def happens(self, probability: float) -> bool:
        """True with this probability. Draws no number where it is 0."""
        return probability > 0.0 and self.random() < probability

    def pick(self, items: Sequence[Item]) -> Item:
        """One of some items, of which there is at least one."""
        return items[self.below(len(items))]

    def shuffle(self, items: list[Item]) -> None:
        """Put a list into a random order (Fisher and Yates)."""
        for last in range(len(items) - 1, 0, -1):
            other = self.below(last + 1)
            items[last], items[other] = items[other], items[last]

    def exponential(self, mean: float) -> float:
        """A waiting time without memory."""
        return -mean * log(1.0 - self.random())


@dataclass(frozen=True, slots=True)
class Quality:
    """How good links are."""

    latency_ns: int = 5_000_000
    """The least time on the way."""
    jitter_ns: int = 0
    """The mean of what comes on top, which is exponential: messages overtake each other where it is long."""
    loss: float = 0.0
    duplication: float = 0.0
    straggling: float = 0.0
    """The probability that a message takes `STRAGGLE` times as long."""
    bandwidth: int = 0
    """Bytes a second, each way; messages queue for it. 0: no bound."""


STRAGGLE = 40


class Links:
    """All links of a fleet. `fired` counts each kind of fault that came about."""

    def __init__(self, quality: Quality, chance: Chance, fired: Counter[str]) -> None:
        self.quality = quality
        self.fired = fired
        self._chance = chance
        self._cut: set[tuple[str, str]] = set()
        self._group_of: dict[str, int] = {}
        self._free_at: dict[tuple[str, str], int] = {}
        self._latest: dict[tuple[str, str], int] = {}

    def cut(self, sender: str, to: str) -> None:
        """Nothing gets from one node to another any more; the other way is not touched."""
        self._cut.add((sender, to))

    def mend(self, sender: str, to: str) -> None:
        """End a cut."""
        self._cut.discard((sender, to))

    def part(self, groups: Iterable[Iterable[str]]) -> None:
        """Nothing gets from one group of nodes to another. No groups: the network is whole. Who is in no group hears all."""
        self._group_of = {name: index for index, group in enumerate(groups) for name in group}

    def connected(self, sender: str, to: str) -> bool:
        """True if messages get from one node to another at all."""
        if (sender, to) in self._cut:
            return False
        mine, theirs = self._group_of.get(sender), self._group_of.get(to)
        return mine == theirs or mine is None or theirs is None

    def arrivals(self, now: int, sender: str, to: str, size: int) -> list[int]:
        """When a message that is sent now arrives: not at all, once or twice. Times in ns."""
        chance, quality, link = self._chance, self.quality, (sender, to)
        if not self.connected(sender, to):
            self.fired["cut" if link in self._cut else "partition"] += 1
            return []
        leaves = now
        if quality.bandwidth:
            free = self._free_at.get(link, 0)
            self.fired["bandwidth"] += free > now
            leaves = self._free_at[link] = max(now, free) + size * 10**9 // quality.bandwidth
        if chance.happens(quality.loss):
            self.fired["loss"] += 1
            return []
        arrivals = [leaves + self._travel()]
        if chance.happens(quality.duplication):
            self.fired["duplication"] += 1
            arrivals.append(leaves + self._travel())
        self.fired["reordering"] += min(arrivals) < self._latest.get(link, 0)
        self._latest[link] = max(arrivals)
        return sorted(arrivals)

    def _travel(self) -> int:
        quality = self.quality
        travel = quality.latency_ns + (int(self._chance.exponential(quality.jitter_ns)) if quality.jitter_ns else 0)
        if self._chance.happens(quality.straggling):
            self.fired["straggling"] += 1
            travel *= STRAGGLE
        return travel


def mutations_in(message: GossipMessage) -> int:
    """How many mutations a message accounts for, as its sender made it. O(runs)."""
    if not isinstance(message, Delta | Sync):
        return 0
    runs = message.delta.runs if isinstance(message, Delta) else message.state.runs
    return sum([run.hi - run.lo for run in runs if isinstance(run, Run)])
