"""Counts per constraint for a monitoring system: the constraints with the most violations by name, all else together.

A fleet may have 10,000 constraints, and a time series for each would cost a monitoring system more than it is worth. So `MOST` of
them have a series of their own. The rest is one more, and it is a counter too: it must not fall when a constraint gets a name, nor
jump when one that had a name is gone. So it begins as all that is not named, and then grows by what is counted without a name.
"""

from collections.abc import Iterable
from heapq import nsmallest
from typing import Final

from constraint_crdt.state import ConstraintState
from constraint_crdt.types.counter import ZERO, Counts

MOST: Final = 100
"""Constraints that are named."""

OTHER: Final = "other"
"""What the rest is called. A constraint of this very name is never named itself."""


class MostViolated:
    """The named constraints and the rest, from reading to reading."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._named: dict[str, Counts] | None = None
        self._total = self._rest = ZERO

    def read(self, state: ConstraintState) -> dict[str, Counts]:
        """The counts by label, those of `OTHER` last. O(constraints)."""
        total = state.metrics.total
        counts = {id_: state.metrics.constraint(id_) for id_ in state.constraints if id_ != OTHER}
        chosen = nsmallest(self._most, counts, key=lambda id_: (-counts[id_].violated, id_))
        named = {id_: counts[id_] for id_ in chosen}
        self._rest = self._rest.plus(*_less(_less(total, self._total), self._counted_by_name(named)))
        self._named, self._total = named, total
        return {**named, OTHER: self._rest}

    def _counted_by_name(self, named: dict[str, Counts]) -> Counts:
        """What the series that have a name told since the last reading; at the first: all that they tell."""
        if self._named is None:
            return _sum(named.values())
        before = self._named
        return _sum(_less(counts, before[id_]) for id_, counts in named.items() if id_ in before)


def _less(counts: Counts, others: Counts) -> Counts:
    """The difference, none where it would be negative: counts can have been folded since."""
    return Counts(max(0, counts.satisfied - others.satisfied), max(0, counts.violated - others.violated))


def _sum(every: Iterable[Counts]) -> Counts:
    total = ZERO
    for each in every:
        total = total.plus(*each)
    return total
