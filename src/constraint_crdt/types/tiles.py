"""FleetTiles: the tiles of a state, by room and id."""

from collections.abc import Callable, Iterator

from constraint_crdt.core.cells import make_key
from constraint_crdt.core.replica import Dot
from constraint_crdt.core.rows import Rows
from constraint_crdt.types.tile import FleetTile
from constraint_crdt.types.tile_index import Place, TileIndex, standing_content
from constraint_crdt.types.view import View, no_time


class FleetTiles(View):
    """The tiles that are there. `in` and `len` are O(1), iteration, over (room, id) in order, is O(tiles)."""

    KINDS = TileIndex.KINDS

    def __init__(self, rows: Rows | None = None, *, now: Callable[[], int] = no_time) -> None:
        """`now`: the time in ns since the epoch, for puts."""
        super().__init__(rows)
        self._now = now
        self._index = TileIndex(self._rows)

    def tile(self, room: str, id_: str) -> FleetTile:
        """A tile, whether it is there or not. Raises `ConstraintCrdtError` for a room or id that no tile can have."""
        return FleetTile(room, id_, self._rows, now=self._now, among=self._index)

    def __getitem__(self, place: Place) -> FleetTile:
        """The tile at (room, id). Raises `KeyError` if it is not there."""
        if place not in self:
            raise KeyError(place)
        return self.tile(*place)

    def get(self, place: Place) -> FleetTile | None:
        """The tile at (room, id); None if it is not there."""
        return self.tile(*place) if place in self else None

    def __contains__(self, place: object) -> bool:
        match place:
            case (str(room), str(id_)):
                return self._index.is_there(room, id_)
        return False

    def content_dot(self, place: Place) -> Dot | None:
        """The write that gave the tile at (room, id) its content; None if the tile is not there."""
        header = standing_content(self._rows, make_key(*place))[0] if place in self else None
        return Dot(header.replica, header.seq) if header is not None else None

    def __len__(self) -> int:
        return self._index.visible

    def __iter__(self) -> Iterator[Place]:
        return ((room, id_) for room in self._index.rooms for id_ in self._index.ids(room))

    def rooms(self, prefix: str = "") -> list[str]:
        """The rooms that have a tile, those that begin with `prefix`, in order. O(rooms)."""
        return [room for room in self._index.rooms if room.startswith(prefix)]

    def in_room(self, room: str) -> list[FleetTile]:
        """The tiles of a room, ordered by id. O(their number)."""
        return [self.tile(room, id_) for id_ in self._index.ids(room)]

    def deleted(self) -> list[Place]:
        """The tiles that are deleted and not purged yet, in order. O(tiles)."""
        return sorted(place for place in self._index.places() if self.tile(*place).deleted)

    def merged(self, other: "FleetTiles") -> "FleetTiles":
        result = FleetTiles(self._rows.copy(), now=self._now)
        result.merge(other)
        return result

    def __repr__(self) -> str:
        return f"FleetTiles({len(self)} in {len(self._index.rooms)} rooms)"
