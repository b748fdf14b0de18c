"""Who has heard of every change of the definitions, from evidence alone.

Counts always move in a measuring fleet, so full hashes hardly ever agree at one instant. What people ask is whether a peer
enforces the same constraints. Its clock answers that exactly: it does if its clock covers, in every row, the last mutation that
added or removed a definition, and it holds nothing that is unknown here.
"""

from collections.abc import Mapping

from constraint_crdt.core.cells import ADD, REMOVE, Cell
from constraint_crdt.core.replica import Replica
from constraint_crdt.core.rows import Rows


class DefinitionFrontier:
    """Per row, the seq of the last mutation that matters to the definitions."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._last: dict[Replica, int] = {}
        for kind in (ADD, REMOVE):
            rows.watch(kind, self._changed)
            for cell in rows.each(kind):
                self._changed(None, cell)

    def _changed(self, _fell: Cell | None, new: Cell | None) -> None:
        if new is not None and new.seq > self._last.get(new.replica, 0):
            self._last[new.replica] = new.seq

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
