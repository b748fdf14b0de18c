"""Sets of whole numbers as stretches: ordered, and never touching each other."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from constraint_crdt.core.values import Interval

Intervals = tuple[Interval, ...]
"""(first, last) of each stretch, ascending, with a gap before the next."""


def union(intervals: Iterable[Interval]) -> Intervals:
    """What any of these stretches contains, whatever their order and however they overlap. O(n log n)."""
    joined: list[Interval] = []
    for lo, hi in sorted(intervals):
        if joined and lo <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(hi, joined[-1][1]))
        else:
            joined.append((lo, hi))
    return tuple(joined)


def contains(intervals: Sequence[Interval], number: int) -> bool:
    """True if a stretch of a set contains it. O(log n)."""
    place = bisect_right(intervals, number, key=lambda stretch: stretch[0])
    return place > 0 and number <= intervals[place - 1][1]
