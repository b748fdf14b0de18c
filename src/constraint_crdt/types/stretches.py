"""What numbered increments come to when each number counts once, however often and by whomever it is told of.

A *stretch* is 2**level numbers from a multiple of 2**level on, together with what the increments of all of them make up; a single
increment is a stretch of level 0. Two stretches lie one inside of the other or have no number in common, never anything between.
So whoever holds several copies of the truth, made at different places and times, has only to leave out what lies inside of
something larger: no number is counted twice, and nobody has to agree with anybody before taking increments together. (Sums over
arbitrary intervals do not allow that: of two that overlap neither can be taken apart.)

Where numbers are missing, a stretch does not form: n numbers with g gaps need up to (g + 1) * 2 * log2(n) stretches.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from constraint_crdt.core.limits import MAX_COUNT
from constraint_crdt.types.counter import ZERO, Counts


class Stretch(NamedTuple):
    """The numbers from `first` to `first + 2**level - 1`."""

    first: int
    level: int

    @property
    def end(self) -> int:
        """The number after the last one."""
        return self.first + (1 << self.level)


def joined(parts: Mapping[Stretch, Counts], top: int) -> dict[Stretch, Counts]:
    """The same increments in as few stretches as can be, none above level `top`. No part may lie inside of another."""
    found: dict[Stretch, Counts] = {}
    levels: dict[int, dict[Stretch, Counts]] = {}
    for stretch, value in parts.items():
        levels.setdefault(stretch.level, {})[stretch] = value
    for level in range(top + 1):
        at_level = levels.pop(level, {})
        for stretch, value in at_level.items():
            twin = Stretch(stretch.first ^ (1 << level), level)
            if level == top or twin not in at_level:
                found[stretch] = value
            elif stretch < twin:
                whole = Stretch(stretch.first, level + 1)
                levels.setdefault(level + 1, {})[whole] = summed((value, at_level[twin]))
    return found


def summed(values: Iterable[Counts]) -> Counts:
    """The sum, as far as a count can go; it is the same in whatever order it is formed."""
    total = ZERO
    for value in values:
        total = total.plus(*value)
    return Counts(min(total.satisfied, MAX_COUNT), min(total.violated, MAX_COUNT))


def _highest(values: Iterable[Counts]) -> Counts:
    found = ZERO
    for value in values:
        found = Counts(max(found.satisfied, value.satisfied), max(found.violated, value.violated))
    return found


class Stretches:
    """Stretches told of from several places; whoever tells of one may take it back.

    Where places differ on what a stretch makes up (only a broken sender brings that about), the higher counts are read.
    """

    def __init__(self) -> None:
        self._told: dict[Stretch, list[Counts]] = {}
        self._order: list[tuple[int, int]] = []
        """(first, -level) of each stretch: one comes after all that it lies in, and before all that lie in it."""
        self._levels: dict[int, int] = {}
        """How many stretches there are of each level."""
        self._satisfied = self._violated = 0

    def __len__(self) -> int:
        """How many stretches are told of, those inside of others included."""
        return len(self._told)

    @property
    def total(self) -> Counts:
        """What all numbers told of come to. O(1)."""
        return Counts(min(self._satisfied, MAX_COUNT), min(self._violated, MAX_COUNT))

    def covers(self, number: int) -> bool:
        """True if this number is told of, alone or with others. O(levels)."""
        return Stretch(number, 0) in self._told or self.lies_inside(Stretch(number, 0))

    def lies_inside(self, stretch: Stretch) -> bool:
        """True if a larger stretch with all its numbers is told of. O(levels)."""
        return any(
            level > stretch.level and Stretch(stretch.first >> level << level, level) in self._told for level in self._levels
        )

    def value(self, stretch: Stretch) -> Counts:
        """What is told of exactly this stretch; nothing counted if it is not told of."""
        return _highest(self._told.get(stretch, ()))

    def tell(self, stretch: Stretch, value: Counts) -> None:
        """Take in what one place says. O(levels), and O(those inside) for one that was not known."""
        before = self.value(stretch)
        told = self._told.setdefault(stretch, [])
        told.append(value)
        if len(told) == 1:
            insort(self._order, (stretch.first, -stretch.level))
            self._levels[stretch.level] = self._levels.get(stretch.level, 0) + 1
        if not self.lies_inside(stretch):
            if len(told) == 1:
                before = self._inside(stretch)
            self._move(before, _highest(told))

    def take_back(self, stretch: Stretch, value: Counts) -> None:
        """Forget what one place said. O(levels), and O(those inside) if nobody else says it."""
        before, told = self.value(stretch), self._told[stretch]
        told.remove(value)
        if told:
            after = _highest(told)
        else:
            self._forget(stretch)
            after = self._inside(stretch)
        if not self.lies_inside(stretch):
            self._move(before, after)

    def _forget(self, stretch: Stretch) -> None:
        del self._told[stretch]
        del self._order[bisect_left(self._order, (stretch.first, -stretch.level))]
        self._levels[stretch.level] -= 1
        if not self._levels[stretch.level]:
            del self._levels[stretch.level]

    def _move(self, before: Counts, after: Counts) -> None:
        self._satisfied += after.satisfied - before.satisfied
        self._violated += after.violated - before.violated

    def _inside(self, stretch: Stretch) -> Counts:
        """What the stretches inside of this one come to, not capped."""
        total = ZERO
        for part in self._largest_inside(stretch):
            total = total.plus(*self.value(part))
        return total

    def _largest_inside(self, stretch: Stretch) -> Iterator[Stretch]:
        start = bisect_left(self._order, (stretch.first, -stretch.level))
        free = stretch.first
        for first, depth in self._order[start : bisect_left(self._order, (stretch.end, -MAX_COUNT))]:
            part = Stretch(first, -depth)
            if first >= free and part != stretch:
                yield part
                free = part.end
