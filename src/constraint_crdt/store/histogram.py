"""Durations: how long something took, counted in fixed steps.

A histogram of constant size: nothing is averaged, and nothing is lost between two readings, however far apart.
"""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate


class Durations:
    """Counts durations by the first bound that they do not exceed."""

    def __init__(self, bounds: Sequence[float]) -> None:
        """`bounds`: seconds, rising. What exceeds the last of them is counted apart."""
        self.bounds = tuple(bounds)
        self._counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0
        """Seconds of all of them together."""

    def note(self, seconds: float) -> None:
        """Count one."""
        self._counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds

    def up_to(self) -> list[int]:
        """How many did not exceed each bound; at the end: how many there were."""
        return list(accumulate(self._counts))
