"""One row of a node's own: the cells that one replica wrote, in the order of their seqs.

New cells always have a seq above all earlier ones, so the order is a list that is only appended to. Cells that fell stay in it,
their seqs noted, until half of it has fallen; then it is compacted: amortised O(1), and eight bytes a cell.
"""

from bisect import bisect_right
from collections.abc import Iterable
from operator import attrgetter

from constraint_crdt.core.cells import Cell

SLACK = 16
"""A row is not compacted for fewer fallen cells than this."""

_seq = attrgetter("seq")


class Row:
    """The order of one replica's cells. What stands under which key is known by the tables, see `Tables`."""

    __slots__ = ("_fallen", "_order", "entry")

    def __init__(self, cells: Iterable[Cell] = (), entry: int = 0) -> None:
        """`cells`: in ascending order of seq."""
        self.entry = entry
        """The keyed hash of the row's clock entry, which the digest's clock sum contains."""
        self._order: list[Cell] = list(cells)
        self._fallen: set[int] | None = None  # in most rows nothing ever falls, and a node may hold thousands

    def extend(self, cells: Iterable[Cell]) -> None:
        """Note cells in ascending order of seq, all of them above those before."""
        self._order.extend(cells)

    def bury(self, seq: int) -> None:
        """Note that a cell of the row fell."""
        fallen = self._fallen = self._fallen or set()
        fallen.add(seq)
        if len(fallen) > SLACK and len(fallen) * 2 > len(self._order):
            self._order = [cell for cell in self._order if cell.seq not in fallen]
            self._fallen = None

    def above(self, lo: int) -> list[Cell]:
        """The standing cells with a seq above `lo`, in ascending order. O(cells above lo)."""
        found = self._order[bisect_right(self._order, lo, key=_seq) :] if lo else self._order.copy()
        fallen = self._fallen
        return [cell for cell in found if cell.seq not in fallen] if fallen else found

    def copy(self) -> "Row":
        """An independent copy that shares the cells. O(cells)."""
        twin = Row(self._order, self.entry)
        twin._fallen = self._fallen and self._fallen.copy()
        return twin
