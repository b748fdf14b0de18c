"""When a node removes adds that have expired (DESIGN 2, Lifetimes).

An expiry is only a reading; the cells go by an ordinary removal that names exactly the expired adds. Anybody may write it, and it
does not matter if several do, but it should not be written too early, nor by everybody.

Rules kept here:

- Not before an add has been over for twice the bound on clock skew: then it is over by every clock that is within the bound.
- The node that wrote the add removes it. If it does not (it is gone), the others do: later, and one after the other in the order of
  their names, so that not all of a fleet write the same.
- A node whose own clock is in doubt removes nothing: it may be the one that is an hour ahead. Nor does one that knows of others
  and has heard the clock of none of them lately: it is cut off, so nothing would be gained.
"""

from collections.abc import Iterable
from heapq import heapify, heappop, heappush

from constraint_crdt.core.cells import ADD, Cell
from constraint_crdt.core.hybrid import SECOND, HybridClock
from constraint_crdt.core.replica import Replica
from constraint_crdt.state import ConstraintState

OTHERS_AFTER = 60 * SECOND
"""ns that each node waits longer than the one before it, for adds that another node wrote."""

SLACK = 64
"""Adds of others for which nothing is tidied up."""


class ExpiredAdds:
    """The expired adds of a state that somebody is to remove, as one of its nodes sees it. O(log n) for each."""

    def __init__(self, state: ConstraintState, time: HybridClock, *, others_after: int = OTHERS_AFTER) -> None:
        """`others_after`: see `OTHERS_AFTER`."""
        self._state = state
        self._time = time
        self._others_after = others_after
        self._of_others: list[tuple[int, Replica, int, Cell]] = []
        self._again: list[Cell] = []
        self._most = SLACK

    def due(self, node_id: str, *, alone: bool, most: int) -> list[Cell]:
        """The adds that this node is to remove now, `most` of them. `alone`: it knows of no other node.

        Each is given once, unless it is put back.
        """
        offsets = self._time.offsets
        if self._time.in_doubt or not (alone or offsets):
            return []
        over = self._time.now() - 2 * self._time.max_skew
        due, self._again = self._again[:most], self._again[most:]
        for expires_at, cell in self._state.constraints.take_overdue(over, most - len(due)):
            if cell.replica.node_id == node_id:
                due.append(cell)
            else:
                heappush(self._of_others, (expires_at, cell.replica, cell.seq, cell))
        turn = 1 + sum(peer < node_id for peer in offsets)
        while self._of_others and self._of_others[0][0] <= over - turn * self._others_after and len(due) < most:
            due.append(heappop(self._of_others)[3])
        self._tidy()
        return list(filter(self._stands, {(cell.replica, cell.seq): cell for cell in due}.values()))

    def put_back(self, adds: Iterable[Cell]) -> None:
        """These could not be removed: they are due again."""
        self._again += adds

    def _stands(self, cell: Cell) -> bool:
        return self._state.rows.get(ADD, cell.key, cell.replica) is cell

    def _tidy(self) -> None:
        """Let go of those that somebody removed, if they may be most."""
        if len(self._of_others) > self._most:
            self._of_others = [each for each in self._of_others if self._stands(each[3])]
            heapify(self._of_others)
            self._most = 2 * len(self._of_others) + SLACK
