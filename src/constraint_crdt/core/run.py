"""Runs: the one form in which state travels.

`Run(replica, lo, hi, cells)` means: *these are all the cells of that row with lo < seq <= hi that still stand*, in ascending
order of seq. `floor` goes with the runs of a Sync: up to there, removals of that row were dropped by the sender.

A run from 0 is a whole row. It is the same one on every node whose clock is at `hi` for it, so nodes of one process share it, see
`Rows`.
"""

from bisect import bisect_right
from collections.abc import Sequence
from operator import attrgetter

import msgspec

from constraint_crdt.core.cells import Cell
from constraint_crdt.core.replica import Replica

_seq = attrgetter("seq")


class Run(msgspec.Struct, gc=False, eq=False):
    """One stretch of one row. Treat it, its cells and their sequence as immutable: they are shared between nodes."""

    replica: Replica
    lo: int
    hi: int
    cells: Sequence[Cell]
    floor: int = 0
    entry: int = 0
    """The keyed hash of the clock entry (replica, hi), filled in by `Digest.enter`; 0 while it is not known."""

    def above(self, lo: int) -> list[Cell]:
        """Its cells with a seq above `lo`. O(cells above lo)."""
        return list(self.cells[bisect_right(self.cells, lo, key=_seq) :] if lo else self.cells)

    def without_floor(self) -> "Run":
        """The same stretch as somebody tells of it who dropped nothing."""
        return Run(self.replica, self.lo, self.hi, self.cells, 0, self.entry) if self.floor else self
