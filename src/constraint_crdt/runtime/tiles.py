"""The tiles of a running node: what its users do with them, and what is told of them.

Reads answer from what the node knows, cut off or not. Each write is one transaction, and on disk when it returns.
"""

import builtins
from collections import OrderedDict
from collections.abc import Callable, Iterable

import msgspec

from constraint_crdt.crdt.cells import Cell, split_key
from constraint_crdt.crdt.replica import Dot, Replica
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.runtime.events import Event, EventKind
from constraint_crdt.runtime.shared import Told
from constraint_crdt.types.register import Position
from constraint_crdt.types.tile_cells import CONTENT, DELETED, Place
from constraint_crdt.types.tiles import FleetTile


class TileReport(msgspec.Struct, frozen=True, kw_only=True):
    """One tile, without its content. Times in ns since the epoch."""

    room: str
    id: str
    deleted: bool
    """It can be restored, until it is purged."""
    size: int
    """Bytes of the content."""
    hash: str
    """blake2b of the content, 32 bytes in hex."""
    author: str
    created: int
    updated: int
    written_by: str | None
    """The node that wrote the content."""
    tags: list[str]
    constraints: list[str]
    satisfied: int
    violations: int
    position: Position | None


def report_of(tile: FleetTile) -> TileReport:
    """What is said of a tile. O(its cells, pages apart)."""
    writer, counts = tile.writer, tile.metrics.total
    return TileReport(
        room=tile.room,
        id=tile.id,
        deleted=tile.deleted,
        size=tile.size,
        hash=tile.content_hash.hex(),
        author=tile.author,
        created=tile.created,
        updated=tile.updated,
        written_by=None if writer is None else writer.node_id,
        tags=list(tile.tags),
        constraints=list(tile.constraints),
        satisfied=counts.satisfied,
        violations=counts.violated,
        position=tile.position,
    )


class NodeTiles:
    """The tiles of one node."""

    def __init__(self, gossip: GossipNode, told: Told, publish: Callable[[Event], None]) -> None:
        """`publish` takes the events that `tell` makes."""
        self._gossip = gossip
        self._tiles = gossip.state.tiles
        self._told = told
        self._publish = publish
        self._touched: set[str] = set()
        self._waiting: OrderedDict[Place, None] = OrderedDict()
        """The tiles that are to be told of."""
        self._listed: dict[Place, Dot] = {}
        """Each tile that was told of, with the content that it had."""
        for kind in (CONTENT, DELETED):
            gossip.state.rows.watch(kind, self._moved)

    # --- reading -------------------------------------------------------------------------------------------------------

    def get(self, room: str, id_: str) -> FleetTile:
        """A tile that is there. Raises `KeyError` if it is not."""
        return self._tiles[room, id_]

    def rooms(self, prefix: str = "") -> list[str]:
        """The rooms that have a tile, those that begin with `prefix`, in order."""
        return self._tiles.rooms(prefix)

    def list(self, room: str | None = None, *, prefix: str = "", deleted: bool = False) -> list[TileReport]:
        """The tiles of one room, or of all that begin with `prefix`, in order; or those that are deleted and not purged yet."""
        return self.reports(self.places(room, prefix=prefix, deleted=deleted))

    def places(self, room: str | None = None, *, prefix: str = "", deleted: bool = False) -> "builtins.list[Place]":
        """Where the tiles are that `list` tells of, in order."""
        tiles = self._tiles
        if deleted:
            places: Iterable[Place] = tiles.deleted()
        elif room is not None:
            places = [(room, tile.id) for tile in tiles.in_room(room)]
        else:
            places = [(each, tile.id) for each in tiles.rooms(prefix) for tile in tiles.in_room(each)]
        return sorted(place for place in places if room in (None, place[0]) and place[0].startswith(prefix))

    def reports(self, places: Iterable[Place]) -> "builtins.list[TileReport]":
        """The tiles at these places."""
        return [report_of(self._tiles.tile(*place)) for place in places]

    # --- writing -------------------------------------------------------------------------------------------------------

    async def put(
        self,
        room: str,
        id_: str,
        content: str | bytes,
        *,
        author: str | None = None,
        tags: Iterable[str] = (),
        constraints: Iterable[str] = (),
    ) -> TileReport:
        """Make this the content of a tile. Raises as `FleetTile.put` does."""
        tile = self._tiles.tile(room, id_)
        put = self._gossip.write
        await self._told(lambda: put(lambda me: tile.put(content, node=me, author=author, tags=tags, constraints=constraints)))
        return report_of(tile)

    async def delete(self, room: str, id_: str) -> None:
        """Take a tile away, until it is restored or purged. Raises `KeyError` if it is not there."""
        tile = self.get(room, id_)
        await self._told(lambda: self._gossip.write(lambda me: tile.delete(node=me)))

    async def restore(self, room: str, id_: str) -> TileReport:
        """Undo the deletion of a tile. Raises `KeyError` if it is not deleted, or purged by now."""
        tile = self._tiles.tile(room, id_)
        if not tile.deleted:
            raise KeyError((room, id_))
        await self._told(lambda: self._gossip.write(lambda me: tile.restore(node=me)))
        return report_of(tile)

    async def tag(self, room: str, id_: str, *tags: str, constraints: Iterable[str] = ()) -> TileReport:
        """Add tags, and constraints that it is about, to a tile. Raises as `FleetTile.edit` does; `KeyError` if it is not there."""
        return await self.edit(room, id_, add_tags=tags, add_constraints=constraints)

    async def untag(self, room: str, id_: str, *tags: str, constraints: Iterable[str] = ()) -> TileReport:
        """Take tags and constraints from a tile. Raises as `tag` does; nothing is taken then."""
        return await self.edit(room, id_, remove_tags=tags, remove_constraints=constraints)

    async def edit(
        self,
        room: str,
        id_: str,
        *,
        add_tags: Iterable[str] = (),
        remove_tags: Iterable[str] = (),
        add_constraints: Iterable[str] = (),
        remove_constraints: Iterable[str] = (),
    ) -> TileReport:
        """Add to the sets of a tile and remove from them, at once. Raises as `tag` does."""
        tile = self.get(room, id_)

        def edited(me: Replica) -> None:
            tile.edit(
                node=me,
                add_tags=add_tags,
                remove_tags=remove_tags,
                add_constraints=add_constraints,
                remove_constraints=remove_constraints,
            )

        await self._told(lambda: self._gossip.write(edited))
        return report_of(tile)

    # --- what follows from a change ------------------------------------------------------------------------------------

    def _moved(self, old: Cell | None, new: Cell | None) -> None:
        cell = new if new is not None else old
        if cell is not None:
            self._touched.add(str(cell.key))

    @property
    def waiting(self) -> bool:
        """There are tiles whose content moved and that were not told of yet."""
        return bool(self._touched or self._waiting)

    def tell(self, time: int, most: int | None = None, *, publish: bool = True) -> None:
        """Follow, and say unless told not to, what became of the tiles whose content moved: in the order in which they did, of one
        change by place, each once by what it is then.

        `most`: look at so many tiles only; there may be more as long as `waiting` is true.
        """
        touched, self._touched = self._touched, set()
        for place in sorted((parts[0], parts[1]) for key in touched if len(parts := split_key(key, 2)) == 2):
            self._waiting.setdefault(place)
        for _ in range(len(self._waiting) if most is None else min(most, len(self._waiting))):
            self._tell_of(self._waiting.popitem(last=False)[0], time, publish=publish)

    def _tell_of(self, place: Place, time: int, *, publish: bool) -> None:
        content = self._tiles.content_dot(place)
        if content == self._listed.get(place):
            return
        if content is None:
            del self._listed[place]
        else:
            self._listed[place] = content
        if publish:
            kind = EventKind.TILE_DELETED if content is None else EventKind.TILE_PUT
            node = content.replica.node_id if content is not None else ""
            self._publish(Event(kind=kind, time=time, node=node, room=place[0], tile=place[1]))
