"""Who has heard of every change of the definitions, from evidence alone.

Counts always move in a measuring fleet, so full hashes hardly ever agree at one instant. What people ask is whether a peer
enforces the same constraints. Its clock answers that exactly: it does if its clock covers, in every row, the last mutation that
added or removed a definition, and it holds nothing that is unknown here.
"""

from collections.abc import Mapping

from constraint_crdt.core.cells import ADD, REMOVE, Cell, removed_dots
from constraint_crdt.core.replica import Dot, Replica
from constraint_crdt.core.rows import Rows


class DefinitionFrontier:
    """Per row, the seq of the last mutation that matters to the definitions."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._last: dict[Replica, int] = {}
        for kind, watcher in ((ADD, self._changed), (REMOVE, self._removed)):
            rows.watch(kind, watcher)
            for cell in rows.each(kind):
                watcher(None, cell)

    def _changed(self, _fell: Cell | None, new: Cell | None) -> None:
        if new is not None and new.seq > self._last.get(new.replica, 0):
            self._last[new.replica] = new.seq

    def _removed(self, fell: Cell | None, new: Cell | None) -> None:
        """A removal matters if it ends a definition: others end tiles, counts, and so on."""
        if new is not None and any(removed.kind == ADD for removed in removed_dots(new)):
            self._changed(fell, new)

    @property
    def dots(self) -> tuple[Dot, ...]:
        """These mutations, ordered. O(rows)."""
        return tuple(sorted(Dot(replica, seq) for replica, seq in self._last.items()))

    def covered_by(self, clock: Mapping[Replica, int]) -> bool:
        """True if somebody at this clock has exactly the definitions known here. O(rows).

        Removals that were dropped lie at or below the floor of their row. A clock that is ahead of ours may hold more: False.
        """
        seq = self._rows.seq
        return (
            all(clock.get(replica, 0) >= last for replica, last in self._last.items())
            and all(clock.get(replica, 0) >= floor for replica, floor in self._rows.floors.items())
            and all(mark <= seq(replica) for replica, mark in clock.items())
        )
