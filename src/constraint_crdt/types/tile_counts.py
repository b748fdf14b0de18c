"""How often what a tile stands for was satisfied and violated, by whoever counted.

A count is cumulative and belongs to one name: the text of a replica for a node of ours, any other for software outside of the
fleet, whose counts any node may take in. So of one name the highest that any row has counts, and over the names the sum.
"""

from collections.abc import Mapping
from operator import index

from constraint_crdt.core.cells import SEPARATOR, Cell, make_cell, value_of
from constraint_crdt.core.limits import MAX_COUNT
from constraint_crdt.core.replica import Replica, check_id
from constraint_crdt.core.rows import Rows
from constraint_crdt.core.values import TILE_COUNTS
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.types.counter import ZERO, Counts
from constraint_crdt.types.tile_index import TileIndex
from constraint_crdt.types.view import writer


class TileCounts:
    """The counts of one tile. Readings are O(counting names x rows that have them)."""

    def __init__(self, rows: Rows, index: TileIndex, key: str) -> None:
        """`key`: that of the tile."""
        self._rows = rows
        self._index = index
        self._key = key

    @property
    def total(self) -> Counts:
        """All counts."""
        each = self.by_node().values()
        return Counts(sum(counts.satisfied for counts in each), sum(counts.violated for counts in each))

    @property
    def satisfied(self) -> int:
        """Evaluations that held."""
        return self.total.satisfied

    @property
    def violated(self) -> int:
        """Evaluations that did not hold."""
        return self.total.violated

    def by_node(self) -> dict[str, Counts]:
        """The counts by name, in order of the names."""
        start = len(self._key) + len(SEPARATOR)
        names = sorted(whole[start:] for whole in self._index.keys(self._key, TILE_COUNTS))
        return {who: self._of(who) for who in names}

    def record(self, node: str | Replica, satisfied: int = 0, violated: int = 0) -> None:
        """Count evaluations of one node of ours. Nothing to count writes nothing.

        Raises `TypeError` for what is no whole number, `ValueError` for a negative one and `ConstraintCrdtError` for one beyond
        2**63 - 1 in all, or a name too many (`Limits.tile_elements`).
        """
        satisfied, violated = index(satisfied), index(violated)
        if satisfied < 0 or violated < 0:
            raise ValueError("counts only grow: the number to record cannot be negative")
        replica = writer(node)
        who = str(replica)
        self._write(replica, self._cells({who: self._of(who).plus(satisfied, violated)}))

    def record_foreign(self, who: str, satisfied: int, violated: int, *, node: str | Replica) -> bool:
        """Take in what somebody counted in all, as known to `node`. False if as much of it was known. Raises as `record` does."""
        return self._write(writer(node), self.foreign_records({who: (satisfied, violated)}))

    def foreign_records(self, counted: Mapping[str, tuple[int, int]]) -> list[Cell]:
        """The cells that do what `record_foreign` does with the counts of several."""
        for who, each in counted.items():
            check_id(who, "the name of who counted")
            if min(index(number) for number in each) < 0:
                raise ValueError("counts only grow: they cannot be negative")
        return self._cells(counted)

    def _cells(self, counted: Mapping[str, tuple[int, int]]) -> list[Cell]:
        cells, opened = [], 0
        for who, (satisfied, violated) in counted.items():
            if max(satisfied, violated) > MAX_COUNT:
                raise ConstraintCrdtError("a cumulative count cannot exceed 2**63 - 1")
            before = self._of(who)
            after = Counts(max(satisfied, before.satisfied), max(violated, before.violated))
            if after != before:
                opened += before == ZERO
                cells.append(make_cell(TILE_COUNTS, self._cell_key(who), list(after)))
        most = self._rows.limits.tile_elements
        if opened:
            self._index.check_room(self._key)
        if opened and len(self.by_node()) + opened > most:
            raise ConstraintCrdtError(f"at most {most} may count in one tile, as this node is set")
        return cells

    def _write(self, replica: Replica, cells: list[Cell]) -> bool:
        if cells:
            self._rows.write_all(replica, cells)
        return bool(cells)

    def _cell_key(self, who: str) -> str:
        return self._key + SEPARATOR + who

    def _of(self, who: str) -> Counts:
        values: list[tuple[int, int]] = [value_of(cell) for cell in self._rows.held(TILE_COUNTS, self._cell_key(who))]
        return Counts(max(v[0] for v in values), max(v[1] for v in values)) if values else ZERO

    def __repr__(self) -> str:
        return f"TileCounts(satisfied={self.satisfied}, violated={self.violated})"
