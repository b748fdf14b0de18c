"""What a node does as time passes: it tells that constraints have ended, and removes what has long expired.

Nothing here decides that a constraint has ended: that is a reading, which every node makes by itself (`types.orset`). Who removes
the cells, and when, is for `gossip.expiring` to say.

Folding the counts of constraints that are long gone.

Each constraint that a node ever counted leaves a cell in its row. Once the constraint has not been active for a while, the node
takes its own counts of it into its node total. Totals stay exact; only the split by constraint goes.

Purging tiles that were deleted a while ago.

A deleted tile keeps its content, so that the deletion can be undone. After that time the node that deleted it removes all of it;
if that node is not there any more, the others do after twice the time. Two that purge at once do no harm.

When a node drops removals, and who keeps it from doing so (DESIGN 4).

A removal is dropped at once when every live peer has given evidence of it. Else it is kept, for the sake of those peers, who would
otherwise need a whole Sync; but not for ever: beyond a number or an age it is dropped all the same. That is a choice of cost, never
of safety, so a node that is away for long holds back nobody for long.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Set
from functools import partial

from constraint_crdt.crdt.cells import REMOVE, Cell
from constraint_crdt.crdt.clock import DEFAULT_HEARD_FOR, SECOND
from constraint_crdt.crdt.replica import Dot, Replica
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.runtime.reports import Holding
from constraint_crdt.types.counters import COUNTS
from constraint_crdt.types.tile_cells import Place
from constraint_crdt.types.tiles import FleetTile

AT_ONCE = 1_000
"""Adds that are removed before others get their turn on the loop."""

HEARINGS = 10
"""So many times the mean time between two Pings of one peer, its clock counts: else it would be lost by chance now and then."""

LONGEST_HEARD_FOR = 60 * SECOND
"""But no longer than this: a node that is cut off is to go by its own clock soon."""


class Expiring:
    """Follows the expiries of one node."""

    def __init__(
        self, gossip: GossipNode, *, turned: Callable[[Set[str]], None], remove: Callable[[int], int], every: float
    ) -> None:
        """`turned(ids)` tells of the constraints that time has made something else of. `remove(n)` removes at most n adds, and says
        whether there may be more. `every`: seconds between two rounds of gossip.
        """
        self._gossip = gossip
        self._turned = turned
        self._remove = remove
        self._every = every

    async def tell(self) -> None:
        """Tell of what time has made of the constraints. O(those that expired)."""
        ids = self._gossip.state.constraints.take_expiry_changes()
        if ids:
            self._turned(ids)

    async def remove(self) -> None:
        """Remove the adds that it is for this node to remove now. O(those, and peers)."""
        time = self._gossip.time
        wanted = round(HEARINGS * self._every * len(time.offsets) * SECOND)
        time.heard_for = min(max(DEFAULT_HEARD_FOR, wanted), LONGEST_HEARD_FOR)
        while self._remove(AT_ONCE):  # noqa: ASYNC110 - the pause gives others a turn; nothing is waited for
            await asyncio.sleep(0)


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


TILES_AT_ONCE = 200
"""Tiles purged in one go. So many, of the largest, hold the node up for some tenths of a second."""


class Purging:
    """Watches which deleted tiles of one node are due."""

    def __init__(self, gossip: GossipNode, *, after: float) -> None:
        """`after`: seconds that a deleted tile is kept by the node that deleted it."""
        self._gossip = gossip
        self._after = int(after * 1e9)

    def due(self) -> list[Place]:
        """The tiles to be purged now, some of them if there are many. O(tiles)."""
        tiles = self._gossip.state.tiles
        return [place for place in tiles.deleted() if self._is_due(place)][:TILES_AT_ONCE]

    def purge(self, places: list[Place]) -> None:
        """Remove all that is known of these tiles."""
        for place in places:
            tile = self._gossip.state.tiles.tile(*place)
            self._gossip.write(partial(_purge, tile))

    def _is_due(self, place: Place) -> bool:
        """By the latest mark: until then somebody wants it deleted, and may want it back."""
        gossip = self._gossip
        deletion = gossip.state.tiles.tile(*place).deletion
        if deletion is None:
            return False
        age = gossip.state.now() - deletion.time
        return age >= (self._after if deletion.by.node_id == gossip.node_id else 2 * self._after)


def _purge(tile: FleetTile, me: Replica) -> None:
    tile.purge(node=me)


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
