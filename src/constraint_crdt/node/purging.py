"""Purging tiles that were deleted a while ago.

A deleted tile keeps its content, so that the deletion can be undone. After that time the node that deleted it removes all of it;
if that node is not there any more, the others do after twice the time. Two that purge at once do no harm.
"""

from functools import partial

from constraint_crdt.core.replica import Replica
from constraint_crdt.gossip.protocol import GossipNode
from constraint_crdt.types.tile import FleetTile
from constraint_crdt.types.tile_index import Place

AT_ONCE = 200
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
        return [place for place in tiles.deleted() if self._is_due(place)][:AT_ONCE]

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
