"""The rooms of a running node as clients of the PLATO contract have them: reading them, and taking in what such clients send.

Reads answer from what the node knows, cut off or not. Each write is one transaction, and on disk when it returns.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

from constraint_crdt.gossip.protocol import GossipNode
from constraint_crdt.node.telling import Told
from constraint_crdt.plato.merging import apply_delta, check_clock, merge_tile
from constraint_crdt.plato.shapes import PlatoDelta, PlatoTile
from constraint_crdt.plato.showing import ContentHashes, room_tile

LARGE = 16 * 1024
"""Bytes of a content whose hash is made aside, so that the loop goes on."""


class NodePlato:
    """The rooms of one node."""

    def __init__(self, gossip: GossipNode, told: Told, now: Callable[[], int]) -> None:
        """`now`: the time in ns since the epoch."""
        self._gossip = gossip
        self._state = gossip.state
        self._told = told
        self._now = now
        self._hashes = ContentHashes()

    def rooms(self, prefix: str = "") -> list[str]:
        """The rooms that have a tile, those that begin with `prefix`, in order."""
        return self._state.tiles.rooms(prefix)

    def has_room(self, room: str) -> bool:
        """True if the room has a tile. O(its tiles)."""
        return bool(self._state.tiles.in_room(room))

    async def tiles(self, room: str) -> AsyncIterator[PlatoTile]:
        """The tiles of a room, in the order of their ids, each as it is at its turn. Those that are not text are left out."""
        for tile in self._state.tiles.in_room(room):
            if tile.size > LARGE and not self._hashes.knows(tile.content_hash):
                await asyncio.to_thread(self._hashes.of, tile.content_hash, tile.content)
            shown = room_tile(self._state, tile, self._hashes)
            if shown is not None:
                yield shown
            await asyncio.sleep(0)  # a room may have thousands

    async def take_tile(self, sent: PlatoTile) -> bool:
        """Merge a tile that was read by `plato.checking`. False if all of it was known.

        Raises `PlatoFieldError` for a tile from too far ahead of this node's clock, and beyond a limit; nothing changes then.
        """
        check_clock(sent, self._now())
        return await self._told(lambda: self._gossip.write(lambda me: merge_tile(self._state, sent, me)))

    async def take_delta(self, room: str, sent: PlatoDelta) -> bool:
        """Take in a delta that was read by `plato.checking`. False, and no effect, if its (node, seq) is known.

        Raises `PlatoFieldError` beyond a limit; nothing changes then.
        """
        return await self._told(lambda: self._gossip.write(lambda me: apply_delta(self._state, room, sent, me)))
