"""The tiles of a running node: reads, writes, and events of changes.

Rules: a read answers from the state of this node, connected or not. A write is one transaction, and on disk when it returns.
"""

import builtins
from collections import OrderedDict
from collections.abc import Callable, Iterable

from constraint_crdt.crdt.cells import Cell, split_key
from constraint_crdt.crdt.replica import Dot, Replica
from constraint_crdt.model import Event, EventKind
from constraint_crdt.operations.tiles import TileReport
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.runtime.shared import Commit
from constraint_crdt.types.tile_cells import CONTENT, DELETED, Place
from constraint_crdt.types.tiles import FleetTile


def report_of(tile: FleetTile) -> TileReport:
    """The report of a tile. O(its cells without pages)."""
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
    """The tiles of a node."""

    def __init__(self, gossip: GossipNode, commit: Commit, publish: Callable[[Event], None]) -> None:
        """`publish` receives the events of `tell`."""
        self._gossip = gossip
        self._tiles = gossip.state.tiles
        self._commit = commit
        self._publish = publish
        self._touched: set[str] = set()
        self._waiting: OrderedDict[Place, None] = OrderedDict()
        """The queue of changed tiles."""
        self._listed: dict[Place, Dot] = {}
        """Each tile of a published event, with the dot of its content then."""
        for kind in (CONTENT, DELETED):
            gossip.state.rows.watch(kind, self._moved)

    # --- reading -------------------------------------------------------------------------------------------------------

    def get(self, room: str, id_: str) -> FleetTile:
        """A present tile. Raises `KeyError` without."""
        return self._tiles[room, id_]

    def rooms(self, prefix: str = "") -> list[str]:
        """The rooms with a tile, filtered by `prefix`, in order."""
        return self._tiles.rooms(prefix)

    def list(self, room: str | None = None, *, prefix: str = "", deleted: bool = False) -> list[TileReport]:
        """The tiles of a room, or of all rooms with the prefix, in order; or those deleted and not purged yet."""
        return self.reports(self.places(room, prefix=prefix, deleted=deleted))

    def places(self, room: str | None = None, *, prefix: str = "", deleted: bool = False) -> "builtins.list[Place]":
        """The places of the tiles of `list`, in order."""
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
        await self._commit(lambda: put(lambda me: tile.put(content, node=me, author=author, tags=tags, constraints=constraints)))
        return report_of(tile)

    async def delete(self, room: str, id_: str) -> None:
        """Delete a tile, restorable until its purge. Raises `KeyError` for a missing tile."""
        tile = self.get(room, id_)
        await self._commit(lambda: self._gossip.write(lambda me: tile.delete(node=me)))

    async def restore(self, room: str, id_: str) -> TileReport:
        """Undo the deletion of a tile. Raises `KeyError` for a tile not deleted, or purged."""
        tile = self._tiles.tile(room, id_)
        if not tile.deleted:
            raise KeyError((room, id_))
        await self._commit(lambda: self._gossip.write(lambda me: tile.restore(node=me)))
        return report_of(tile)

    async def tag(self, room: str, id_: str, *tags: str, constraints: Iterable[str] = ()) -> TileReport:
        """Add tags and constraints to a tile. Raises as `FleetTile.edit` does, and `KeyError` for a missing tile."""
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

        await self._commit(lambda: self._gossip.write(edited))
        return report_of(tile)

    # --- events --------------------------------------------------------------------------------------------------------

    def _moved(self, old: Cell | None, new: Cell | None) -> None:
        cell = new if new is not None else old
        if cell is not None:
            self._touched.add(str(cell.key))

    @property
    def waiting(self) -> bool:
        """True if changed tiles await their events."""
        return bool(self._touched or self._waiting)

    def tell(self, time: int, most: int | None = None, *, publish: bool = True) -> None:
        """Publish an event per changed tile, in the order of changes, by the state of the tile now. Without `publish` only record
        the changes.

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
