"""Runs: the one form in which state travels.

`Run(replica, lo, hi, cells)` means: *these are all the cells of that row with lo < seq <= hi that still stand*, in ascending
order of seq. `floor` goes with the runs of a Sync: up to there, removals of that row were dropped by the sender.
"""

from collections.abc import Sequence

import msgspec

from constraint_crdt.core.cells import Cell
from constraint_crdt.core.replica import Replica


class Run(msgspec.Struct, gc=False, eq=False):
    """One stretch of one row. Treat it as immutable."""

    replica: Replica
    lo: int
    hi: int
    cells: Sequence[Cell]
    floor: int = 0
