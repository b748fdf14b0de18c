"""Folding the counts of constraints that are long gone.

Each constraint that a node ever counted leaves a cell in its row. Once the constraint has not been active for a while, the node
takes its own counts of it into its node total. Totals stay exact; only the split by constraint goes.
"""

from collections.abc import Callable

from constraint_crdt.core.cells import COUNTS
from constraint_crdt.gossip.protocol import GossipNode


class Folding:
    """Watches which constraints that this node counted are gone, and since when."""

    def __init__(self, gossip: GossipNode, *, after: float, now: Callable[[], float]) -> None:
        """`after`: seconds that a constraint has to be gone. `now`: monotonic seconds."""
        self._gossip = gossip
        self._after = after
        self._now = now
        self._gone: dict[str, float] = {}

    def due(self) -> list[str]:
        """The constraints whose counts are to be folded now. O(cells of this node's row)."""
        gossip, now = self._gossip, self._now()
        counted = [cell.key for cell in gossip.state.rows.above(gossip.replica, 0) if cell.kind == COUNTS and cell.key]
        gone = {str(key) for key in counted if key not in gossip.state.constraints}
        self._gone = {id_: self._gone.get(id_, now) for id_ in gone}
        return sorted(id_ for id_, since in self._gone.items() if now - since >= self._after)
