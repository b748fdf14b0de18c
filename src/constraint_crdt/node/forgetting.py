"""When a node drops removals, and who keeps it from doing so (DESIGN 4).

A removal is dropped at once when every live peer has given evidence of it. Else it is kept, for the sake of those peers, who would
otherwise need a whole Sync; but not for ever: beyond a number or an age it is dropped all the same. That is a choice of cost, never
of safety, so a node that is away for long holds back nobody for long.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable

from constraint_crdt.core.cells import REMOVE, Cell
from constraint_crdt.core.replica import Dot
from constraint_crdt.gossip.protocol import GossipNode
from constraint_crdt.node.reports import Holding


class Forgetting:
    """Watches the removals of one node and drops what may go."""

    def __init__(self, gossip: GossipNode, *, most: int, longest: float, now: Callable[[], float]) -> None:
        """`most`: removals kept for peers that have not heard. `longest`: seconds that one is kept. `now`: monotonic seconds."""
        self._gossip = gossip
        self._most = most
        self._longest = longest
        self._now = now
        self._since: OrderedDict[Dot, float] = OrderedDict()
        self.dropped = {"acknowledged": 0, "size": 0, "age": 0}
        """Removals dropped, by reason."""
        rows = gossip.state.rows
        rows.watch(REMOVE, self._changed)
        for cell in rows.each(REMOVE):
            self._changed(None, cell)

    def _changed(self, old: Cell | None, new: Cell | None) -> None:
        if old is not None:
            self._since.pop(Dot(old.replica, old.seq), None)
        if new is not None:
            self._since[Dot(new.replica, new.seq)] = self._now()

    def __len__(self) -> int:
        """Removals that stand."""
        return len(self._since)

    def step(self, live: Iterable[str]) -> str:
        """Drop what may go; why removals went that not all had heard of, or an empty text. O(removals x live peers)."""
        if not self._since:
            return ""
        live = list(live)
        if live:  # while cut off there is nobody to ask, and all to keep it for
            self.dropped["acknowledged"] += self._gossip.collect(live)
        reason = "size" if len(self._since) > self._most else "age" if self._oldest() > self._longest else ""
        if reason:
            self.dropped[reason] += self._gossip.collect()
        return reason

    def _oldest(self) -> float:
        return self._now() - next(iter(self._since.values())) if self._since else 0.0

    def holding(self, live: Iterable[str]) -> list[Holding]:
        """Which live peers hold removals back: how many, what that costs, and since when. O(removals x live peers)."""
        found = []
        for node_id in sorted(live):
            clock = self._gossip.tracker.clock(node_id)
            held = [dot for dot in self._since if clock is None or clock[dot.replica] < dot.seq]
            if held:
                longest = self._now() - min(self._since[dot] for dot in held)
                found.append(Holding(node=node_id, removals=len(held), bytes=sum(map(self._size, held)), seconds=longest))
        return found

    def _size(self, dot: Dot) -> int:
        cell = self._gossip.state.rows.get(REMOVE, dot.seq, dot.replica)
        return len(cell.data) if cell is not None else 0
