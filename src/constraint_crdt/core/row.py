"""One row: the cells that one replica wrote, in the order of their seqs.

New cells always have a seq above all earlier ones, so the order is a list that is only appended to. Cells that fell stay in it
until half of it has fallen, then it is compacted: amortised O(1), and eight bytes a cell.
"""

from collections.abc import Callable

from constraint_crdt.core.cells import Cell
from constraint_crdt.core.replica import Replica

SLACK = 16
"""A row is not compacted for fewer fallen cells than this."""


class Row:
    """Order, clock entry and floor of one replica's row. Which cells stand is known by the tables, see `Rows`."""

    __slots__ = ("_fallen", "_order", "entry", "floor", "replica", "seq")

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.seq = 0
        self.entry = 0
        """The keyed hash of (replica, seq), which the digest's clock sum contains."""
        self.floor = 0
        self._order: list[Cell] = []
        self._fallen = 0

    def append(self, cell: Cell) -> None:
        """Note a cell with a seq above all before it."""
        self._order.append(cell)

    def bury(self, stands: Callable[[Cell], bool]) -> None:
        """Note that one cell of the row fell."""
        self._fallen += 1
        if self._fallen > SLACK and self._fallen * 2 > len(self._order):
            self._order = [cell for cell in self._order if stands(cell)]
            self._fallen = 0

    def above(self, lo: int, stands: Callable[[Cell], bool]) -> list[Cell]:
        """The standing cells with a seq above `lo`, in ascending order. O(cells above lo)."""
        order = self._order
        start = len(order)
        while start and order[start - 1].seq > lo:
            start -= 1
        found = order[start:]
        return [cell for cell in found if stands(cell)] if self._fallen else found

    def copy(self) -> "Row":
        """An independent copy that shares the cells. O(cells)."""
        twin = Row(self.replica)
        twin.seq, twin.entry, twin.floor, twin._fallen = self.seq, self.entry, self.floor, self._fallen
        twin._order = self._order.copy()
        return twin
