"""Tiles: pieces of content with tags, constraints, counts and a position, by room and id.

Rules kept here:

- A put replaces every observed content, and ends the observed deletions. Of concurrent puts the latest counts, ties by replica;
  their time is hybrid logical: the time of the clock, but always after all observed contents.
- A deletion names the observed content, so a concurrent put wins. The content stays until a purge, so a deletion can be undone.
- A purge removes all observed cells of the tile. Concurrent writes of others stay.
- Each write is a transaction. For a transaction of several writes, write the cells from `put_cells`, `position_cell` and the like
  together.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from constraint_crdt.crdt.cells import Cell, make_cell, make_key, removals_of, value_of
from constraint_crdt.crdt.clock import Digest, Dot, Replica, StateHash, writer
from constraint_crdt.crdt.limits import ID_BYTES, MAX_COUNT, whole_number
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.errors import ConstraintCrdtError, UnknownName
from constraint_crdt.types.register import Position, Positions, eisenstein_norm
from constraint_crdt.types.tile_cells import (
    CONTENT,
    CONTENT_PAGE,
    DELETED,
    TILE,
    TILE_POSITION,
    ContentValue,
    DeletedValue,
    Place,
    TileCounts,
    TileIndex,
    TileValue,
    check_place,
    content_cells,
    encode_content,
    hash_content,
    read_content,
    standing_content,
)
from constraint_crdt.types.tile_sets import TileConstraints, TileSet
from constraint_crdt.types.view import View, no_time


class Origin(NamedTuple):
    """When a tile was created, in ns since the epoch, and by whom."""

    created: int
    author: str


class Deletion(NamedTuple):
    """When a tile was deleted, in ns since the epoch, and by whom."""

    time: int
    by: Replica


class FleetTile(View):
    """A tile, visible or not. For an invisible tile `exists` is False, and the content is empty. A reading costs as much as the
    tile's own cells."""

    KINDS = TileIndex.KINDS

    def __init__(
        self,
        room: str,
        id_: str,
        rows: Rows | None = None,
        *,
        now: Callable[[], int] = no_time,
        index: TileIndex | None = None,
    ) -> None:
        """`now`: the time in ns since the epoch, for puts. `index`: the index over `rows`; made in O(their cells) if left out.

        Raises `TypeError` and `ConstraintCrdtError` for an invalid room or id: they have 1 to 256 bytes, without U+001F.
        """
        self._key = check_place(room, id_)
        super().__init__(rows)
        self.room = room
        """The room of the tile."""
        self.id = id_
        """Its name within the room."""
        self._now = now
        self._index = TileIndex(self._rows) if index is None else index
        self.tags = TileSet(self._rows, self._index, self._key)
        """Its tags."""
        self.constraints = TileConstraints(self._rows, self._index, self._key)
        """The ids of the constraints of the tile."""
        self.metrics = TileCounts(self._rows, self._index, self._key)
        """How often these held and were violated."""

    # --- reading -------------------------------------------------------------------------------------------------------

    @property
    def exists(self) -> bool:
        """True while a content stands without a deletion. O(1)."""
        return self._index.is_visible(self.room, self.id)

    @property
    def deleted(self) -> bool:
        """True while all content is deleted, and not purged: `restore` can undo the deletion."""
        return bool(self._rows.held(CONTENT, self._key)) and not self.exists

    @property
    def deletion(self) -> Deletion | None:
        """The latest deletion of a deleted tile; else None."""
        marks = self._rows.held(DELETED, self._key) if self.deleted else ()
        return max((Deletion(_deleted_value(mark).time, mark.replica) for mark in marks), default=None)

    @property
    def content(self) -> bytes:
        """The content; of a deleted tile the content for `restore`. Empty for a missing or damaged content. O(content)."""
        header = self._header()
        return (read_content(self._rows, header) or b"") if header is not None else b""

    @property
    def text(self) -> str:
        """The content as UTF-8. Raises `ConstraintCrdtError` for other bytes."""
        try:
            return self.content.decode()
        except UnicodeDecodeError:
            raise ConstraintCrdtError(
                f"the content of tile {self.id!r} in room {self.room!r} is not text: read its bytes"
            ) from None

    @property
    def size(self) -> int:
        """Bytes of the content, as its header says."""
        value = self._content_value()
        return value.size if value else 0

    @property
    def content_hash(self) -> bytes:
        """blake2b of the content, 32 bytes, from its header; the hash of no bytes without a content."""
        value = self._content_value()
        return value.hash if value else hash_content(b"")

    @property
    def updated(self) -> int:
        """The time of the content, ns since the epoch; 0 if there is none."""
        value = self._content_value()
        return value.time if value else 0

    @property
    def writer(self) -> Replica | None:
        """Who wrote the content; None if there is none."""
        header = self._header()
        return header.replica if header is not None else None

    @property
    def created(self) -> int:
        """The time of creation, ns since the epoch: the earliest known in the fleet. 0 before the first write."""
        return self._origin().created

    @property
    def author(self) -> str:
        """The author; empty before the first write."""
        return self._origin().author

    @property
    def state_hash(self) -> StateHash:
        """Equal for equal cells of the tile, deletions included, in a fleet with one secret. O(its cells)."""
        return Digest().state(self._digest(), 0)

    def verify_integrity(self) -> bool:
        """True if the content is complete and matches its hash, and for a tile without a content. O(content)."""
        header = self._header()
        return header is None or read_content(self._rows, header) is not None

    @property
    def position(self) -> Position | None:
        """(a, b), by the rule of `EisensteinRegister`, or None before the first write."""
        winner = self._positions().winner
        return (winner.a, winner.b) if winner else None

    @property
    def norm(self) -> int | None:
        """The Eisenstein norm of the position, or None while there is none."""
        position = self.position
        return eisenstein_norm(position) if position else None

    @property
    def position_time(self) -> int | None:
        """When the position was written, ns since the epoch by its writer's clock; None while there is none."""
        winner = self._positions().winner
        return winner.time if winner else None

    @property
    def position_by(self) -> str | None:
        """Who wrote the position: the text of a replica, or a name from outside of the fleet. None while there is none."""
        positions = self._positions()
        return None if positions.winner is None else positions.winner.by or str(positions.leader)

    # --- writing -------------------------------------------------------------------------------------------------------

    def put(
        self,
        content: str | bytes,
        *,
        node: str | Replica,
        author: str | None = None,
        time: int | None = None,
        created: int | None = None,
        tags: Iterable[str] = (),
        constraints: Iterable[str] = (),
    ) -> None:
        """Replace the observed content; text as UTF-8. `tags` and `constraints` are added to the sets.

        `author`, `created`: author and time of the creation (ns since the epoch), if earlier than known; node and time of the put
        if left out. `time`: in place of the clock. Raises `TypeError` for other types, and `ConstraintCrdtError` for more than 1
        MiB, values out of bounds, or a tile beyond `Limits.tiles`.
        """
        replica = writer(node)
        cells = self.put_cells(encode_content(content), replica, author=author, time=time, created=created)
        cells += [*self.tags.additions(tags), *self.constraints.additions(constraints)]
        self._rows.write_all(replica, cells)

    def put_cells(
        self, content: bytes, replica: Replica, *, author: str | None = None, time: int | None = None, created: int | None = None
    ) -> list[Cell]:
        """The cells of a put. Raises as `put` does."""
        self._index.check_room(self._key)
        standing = self._rows.held(CONTENT, self._key)
        when = max([self._time(time), *(min(_content_value(cell).time + 1, MAX_COUNT) for cell in standing)])
        fresh = content_cells(self._key, content, when)
        cells = [*self.origin_cells(replica, author, when, created), *fresh]
        taken_over = {cell.key for cell in fresh}
        pages = [cell for key in self._index.keys(self._key, CONTENT_PAGE) for cell in self._rows.held(CONTENT_PAGE, key)]
        over = [cell for cell in (*standing, *pages) if cell.replica != replica or cell.key not in taken_over]
        return cells + removals_of([*over, *self._rows.held(DELETED, self._key)])

    def edit(
        self,
        *,
        node: str | Replica,
        add_tags: Iterable[str] = (),
        remove_tags: Iterable[str] = (),
        add_constraints: Iterable[str] = (),
        remove_constraints: Iterable[str] = (),
    ) -> None:
        """Add to the sets and remove from them, as a transaction.

        Raises `KeyError` for the removal of an element not in a set, and `ConstraintCrdtError` beyond a bound.
        """
        replica = writer(node)
        cells = [*self.tags.removal_cells(remove_tags, replica), *self.constraints.removal_cells(remove_constraints, replica)]
        cells += [*self.tags.additions(add_tags), *self.constraints.additions(add_constraints)]
        if cells:
            self._rows.write_all(replica, cells)

    def delete(self, *, node: str | Replica) -> None:
        """Delete the tile, until a restore or a purge. Raises `KeyError` for a tile that does not exist."""
        header = self._header()
        if header is None or not self.exists:
            raise UnknownName((self.room, self.id), "tile")
        replica = writer(node)
        seen = [[header.replica.node_id, header.replica.incarnation, header.seq]]
        mark = make_cell(DELETED, self._key, [self._time(None), seen])
        self._rows.write_all(replica, [mark, *removals_of(self._others(header))])

    def restore(self, *, node: str | Replica) -> None:
        """Undo the deletions known here. Raises `KeyError` if the tile is not deleted."""
        if not self.deleted:
            raise UnknownName((self.room, self.id), "tile")
        self._rows.write_all(writer(node), removals_of(self._rows.held(DELETED, self._key)))

    def purge(self, *, node: str | Replica) -> None:
        """Remove all cells of the tile known here, for good. Raises `KeyError` if there are none."""
        cells = self._index.cells(self._key)
        if not cells:
            raise UnknownName((self.room, self.id), "tile")
        self._rows.write_all(writer(node), removals_of(cells))

    def update_position(self, position: Position, *, node: str | Replica, time: int | None = None) -> None:
        """Move to `position` (any two 32-bit integers); `time` in ns since the epoch, from the clock if left out.

        Raises `TypeError` for numbers that are not whole, and `ConstraintCrdtError` for values out of bounds.
        """
        replica = writer(node)
        self._rows.write(replica, self.position_cell(position, replica, time))

    def position_cell(self, position: Position, replica: Replica, time: int | None = None, *, by: str = "") -> Cell:
        """The cell of `update_position`; `by`: the name of a writer outside of the fleet. Raises as `update_position` does."""
        self._index.check_room(self._key)
        return make_cell(TILE_POSITION, self._key, self._positions().value(position, self._time(time), replica, by=by))

    # --- the parts -----------------------------------------------------------------------------------------------------

    def _header(self) -> Cell | None:
        return standing_content(self._rows, self._key)[0]

    def _content_value(self) -> ContentValue | None:
        header = self._header()
        return _content_value(header) if header is not None else None

    def _others(self, header: Cell) -> list[Cell]:
        """Every content and page except those of this header."""
        pages = [cell for key in self._index.keys(self._key, CONTENT_PAGE) for cell in self._rows.held(CONTENT_PAGE, key)]
        return [cell for cell in (*self._rows.held(CONTENT, self._key), *pages) if cell.replica != header.replica]

    def _origin(self) -> Origin:
        """The earliest header, ties by author. A purge may have removed the header of a concurrent put; the put stands for it
        then."""
        values: list[TileValue] = [value_of(cell) for cell in self._rows.held(TILE, self._key)]
        if values:
            return min(Origin(value.created, value.author) for value in values)
        header = self._header()
        return Origin(_content_value(header).time, header.replica.node_id) if header is not None else Origin(0, "")

    def origin_cells(self, replica: Replica, author: str | None, when: int, created: int | None) -> list[Cell]:
        """The TILE cells to write, none or one: for a new tile, and for an earlier creation than known.

        `when` and `created`: ns since the epoch. Raises `ConstraintCrdtError` for an author or a time out of bounds.
        """
        author = replica.node_id if author is None else author
        if len(author.encode(errors="replace")) > ID_BYTES:
            raise ConstraintCrdtError(f"the author of a tile has at most {ID_BYTES} bytes", field="author")
        origin = Origin(when if created is None else _checked_time(created), author)
        if self._rows.held(TILE, self._key) and (created is None or self._origin() <= origin):
            return []
        return [make_cell(TILE, self._key, list(origin))]

    def _positions(self) -> Positions:
        return Positions(self._rows.held(TILE_POSITION, self._key))

    def _time(self, given: int | None) -> int:
        return min(max(self._now(), 0), MAX_COUNT) if given is None else _checked_time(given)

    # --- as a CRDT -----------------------------------------------------------------------------------------------------

    def merged(self, other: "FleetTile") -> "FleetTile":
        result = FleetTile(self.room, self.id, self._rows.copy(), now=self._now)
        result.merge(other)
        return result

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FleetTile):
            return NotImplemented
        return self._key == other._key and self._digest() == other._digest()

    __hash__ = None  # mutable

    def _digest(self) -> int:
        return sum(cell.digest for cell in self._index.cells(self._key))

    def __repr__(self) -> str:
        state = f"{self.size} bytes" if self.exists else "deleted" if self.deleted else "not there"
        return f"FleetTile({self.room!r}, {self.id!r}: {state})"


def _content_value(cell: Cell) -> ContentValue:
    value: ContentValue = value_of(cell)
    return value


def _deleted_value(cell: Cell) -> DeletedValue:
    value: DeletedValue = value_of(cell)
    return value


def _checked_time(time: int) -> int:
    time = whole_number(time, "a time in ns since the epoch")
    if not 0 <= time <= MAX_COUNT:
        raise ConstraintCrdtError(f"a time is in ns since the epoch and cannot be {time}")
    return time


class FleetTiles(View):
    """The visible tiles. `in` and `len` are O(1), iteration, over (room, id) in order, is O(tiles)."""

    KINDS = TileIndex.KINDS

    def __init__(self, rows: Rows | None = None, *, now: Callable[[], int] = no_time) -> None:
        """`now`: the time in ns since the epoch, for puts."""
        super().__init__(rows)
        self._now = now
        self._index = TileIndex(self._rows)

    def tile(self, room: str, id_: str) -> FleetTile:
        """A tile, visible or not. Raises `TypeError` and `ConstraintCrdtError` for an invalid room or id."""
        return FleetTile(room, id_, self._rows, now=self._now, index=self._index)

    def __getitem__(self, place: Place) -> FleetTile:
        """The tile at (room, id). Raises `KeyError` for a tile that does not exist."""
        if place not in self:
            raise UnknownName(place, "tile")
        return self.tile(*place)

    def get(self, place: Place) -> FleetTile | None:
        """The tile at (room, id); None if there is none."""
        return self.tile(*place) if place in self else None

    def __contains__(self, place: object) -> bool:
        match place:
            case (str(room), str(id_)):
                return self._index.is_visible(room, id_)
        return False

    def content_dot(self, place: Place) -> Dot | None:
        """The dot of the content of the tile at (room, id); None if there is none."""
        header = standing_content(self._rows, make_key(*place))[0] if place in self else None
        return Dot(header.replica, header.seq) if header is not None else None

    def __len__(self) -> int:
        return self._index.visible

    def __iter__(self) -> Iterator[Place]:
        return ((room, id_) for room in self._index.rooms for id_ in self._index.ids(room))

    def rooms(self, prefix: str = "") -> list[str]:
        """The rooms with a tile and this prefix, in order. O(rooms)."""
        return [room for room in self._index.rooms if room.startswith(prefix)]

    def in_room(self, room: str) -> list[FleetTile]:
        """The tiles of a room, ordered by id. O(their number)."""
        return [self.tile(room, id_) for id_ in self._index.ids(room)]

    def deleted(self) -> list[Place]:
        """The tiles deleted and not purged yet, in order. O(tiles)."""
        return sorted(place for place in self._index.places() if self.tile(*place).deleted)

    def merged(self, other: "FleetTiles") -> "FleetTiles":
        result = FleetTiles(self._rows.copy(), now=self._now)
        result.merge(other)
        return result

    def __repr__(self) -> str:
        return f"FleetTiles({len(self)} in {len(self._index.rooms)} rooms)"
