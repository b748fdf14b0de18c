"""The links between nodes: how long a message takes, whether it arrives, and how often."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from constraint_crdt.simulation.chance import Chance


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
