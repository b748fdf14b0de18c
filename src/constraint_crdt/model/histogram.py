"""A histogram of durations, in constant space.

A duration counts in the first bucket with a bound not below the duration. Counts never decrease, so the difference of two readings
is exact, also after a long time.
"""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate


class DurationHistogram:
    """Counts durations by bucket."""

    def __init__(self, bounds: Sequence[float]) -> None:
        """`bounds`: the upper bound of each bucket in seconds, rising. A further bucket takes longer durations."""
        self.bounds = tuple(bounds)
        self._counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0
        """The sum of all durations, in seconds."""

    def note(self, seconds: float) -> None:
        """Count one duration, in seconds."""
        self._counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds

    def up_to(self) -> list[int]:
        """The number of durations up to each bound; last, the number of all durations."""
        return list(accumulate(self._counts))
