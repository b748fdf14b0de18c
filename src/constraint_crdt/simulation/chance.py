"""The random numbers of a simulation: the same ones for the same seed, on every machine and version of Python.

SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014). It has 64 bits of state, and is no good for
secrets.
"""

from collections.abc import Sequence
from math import log
from typing import TypeVar

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
