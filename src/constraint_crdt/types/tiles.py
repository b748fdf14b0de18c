"""FleetTile: a piece of content with what the fleet keeps about it: tags, constraints, counts, a position.

Rules kept here:

- A put takes the place of every content that it observed, and ends the deletions that it observed. Of concurrent puts the latest
  counts, ties by replica; their time is hybrid logical: the clock's, but always after what was observed.
- A deletion names the content that it observed, so a put that it did not see wins. The content stays until a purge, so that
  a deletion can be undone.
- A purge removes all cells of the tile that it observed. What others write at the same time stays.
- Each write is one transaction. To make one of several, write the cells together that `put_cells`, `position_cell` and the like of
  the parts return.

FleetTiles: the tiles of a state, by room and id.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from constraint_crdt.crdt.cells import Cell, make_cell, make_key, removals_of, value_of
from constraint_crdt.crdt.limits import ID_BYTES, MAX_COUNT, whole_number
from constraint_crdt.crdt.replica import Dot, Replica
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.errors import ConstraintCrdtError
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
from constraint_crdt.types.view import View, no_time, writer


class Origin(NamedTuple):
    """When a tile was created, in ns since the epoch, and by whom."""

    created: int
    author: str


class Deletion(NamedTuple):
    """When a tile was deleted, in ns since the epoch, and by whom."""

    time: int
    by: Replica


class FleetTile(View):
    """One tile, there or not: then `exists` is False, and its content is empty. A reading costs what the tile's own cells cost."""

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
        """`now`: the time in ns since the epoch, for puts. `index`: the tiles of `rows`; found out if left out, in O(their cells).

        Raises `ConstraintCrdtError` for a room or id that no tile can have: 1 to 256 bytes, without U+001F.
        """
        self._key = check_place(room, id_)
        super().__init__(rows)
        self.room = room
        """The room that it is in."""
        self.id = id_
        """Its name within the room."""
        self._now = now
        self._index = TileIndex(self._rows) if index is None else index
        self.tags = TileSet(self._rows, self._index, self._key)
        """Its tags."""
        self.constraints = TileConstraints(self._rows, self._index, self._key)
        """The ids of constraints that it is about."""
        self.metrics = TileCounts(self._rows, self._index, self._key)
        """How often these held and were violated."""

    # --- reading -------------------------------------------------------------------------------------------------------

    @property
    def exists(self) -> bool:
        """True while it has a content that nobody deleted. O(1)."""
        return self._index.is_visible(self.room, self.id)

    @property
    def deleted(self) -> bool:
        """True while all of its content is deleted, and not purged: it can be restored."""
        return bool(self._rows.held(CONTENT, self._key)) and not self.exists

    @property
    def deletion(self) -> Deletion | None:
        """The latest deletion of a tile that is deleted; else None."""
        marks = self._rows.held(DELETED, self._key) if self.deleted else ()
        return max((Deletion(_deleted_value(mark).time, mark.replica) for mark in marks), default=None)

    @property
    def content(self) -> bytes:
        """The content; of a deleted tile what `restore` would bring back. Empty if there is none, or it is damaged. O(content)."""
        header = self._header()
        return (read_content(self._rows, header) or b"") if header is not None else b""

    @property
    def text(self) -> str:
        """The content as UTF-8. Raises `ConstraintCrdtError` if it is none."""
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
        """blake2b of the content, 32 bytes, as its header says; that of nothing if there is none."""
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
        """When it was created, ns since the epoch: the earliest time that anybody knows of. 0 if nobody wrote it."""
        return self._origin().created

    @property
    def author(self) -> str:
        """Who created it; empty if nobody wrote it."""
        return self._origin().author

    def verify_integrity(self) -> bool:
        """True if the content is all there and is what its hash says; of no content as well. O(content)."""
        header = self._header()
        return header is None or read_content(self._rows, header) is not None

    @property
    def position(self) -> Position | None:
        """(a, b), by the rule of `EisensteinRegister`, or None while nobody has written one."""
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
        """Make this the content, in place of what was observed; text as UTF-8. `tags` and `constraints` are added to those there.

        `author`, `created`: who made the tile, when (ns since the epoch), if that was earlier than is known; the node and the time
        of the put if left out. `time`: stands for the clock's.
        Raises `ConstraintCrdtError` for more than 1 MiB, what is out of bounds, or a tile too many (`Limits.tiles`).
        """
        replica = writer(node)
        cells = self.put_cells(encode_content(content), replica, author=author, time=time, created=created)
        cells += [*self.tags.additions(tags), *self.constraints.additions(constraints)]
        self._rows.write_all(replica, cells)

    def put_cells(
        self, content: bytes, replica: Replica, *, author: str | None = None, time: int | None = None, created: int | None = None
    ) -> list[Cell]:
        """The cells that a put writes. Raises as `put` does."""
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
        """Add to its sets and remove from them, at once.

        Raises `KeyError` for what is to be removed and is not in, and `ConstraintCrdtError` beyond a bound.
        """
        replica = writer(node)
        cells = [*self.tags.removal_cells(remove_tags, replica), *self.constraints.removal_cells(remove_constraints, replica)]
        cells += [*self.tags.additions(add_tags), *self.constraints.additions(add_constraints)]
        if cells:
            self._rows.write_all(replica, cells)

    def delete(self, *, node: str | Replica) -> None:
        """Take the tile away, until it is restored or purged. Raises `KeyError` if it is not there."""
        header = self._header()
        if header is None or not self.exists:
            raise KeyError((self.room, self.id))
        replica = writer(node)
        seen = [[header.replica.node_id, header.replica.incarnation, header.seq]]
        mark = make_cell(DELETED, self._key, [self._time(None), seen])
        self._rows.write_all(replica, [mark, *removals_of(self._others(header))])

    def restore(self, *, node: str | Replica) -> None:
        """Undo the deletions known here. Raises `KeyError` if the tile is not deleted."""
        if not self.deleted:
            raise KeyError((self.room, self.id))
        self._rows.write_all(writer(node), removals_of(self._rows.held(DELETED, self._key)))

    def purge(self, *, node: str | Replica) -> None:
        """Remove everything of the tile that is known here, for good. Raises `KeyError` if nothing is."""
        cells = self._index.cells(self._key)
        if not cells:
            raise KeyError((self.room, self.id))
        self._rows.write_all(writer(node), removals_of(cells))

    def update_position(self, position: Position, *, node: str | Replica, time: int | None = None) -> None:
        """Move to `position` (any two 32-bit integers); `time` in ns since the epoch, the clock's if left out.

        Raises `TypeError` for what is no whole number, and `ConstraintCrdtError` for what is out of bounds.
        """
        replica = writer(node)
        self._rows.write(replica, self.position_cell(position, replica, time))

    def position_cell(self, position: Position, replica: Replica, time: int | None = None, *, by: str = "") -> Cell:
        """The cell that `update_position` writes; `by`: who moved, if that was somebody outside of the fleet. Raises as it does."""
        self._index.check_room(self._key)
        return make_cell(TILE_POSITION, self._key, self._positions().value(position, self._time(time), replica, by=by))

    # --- the parts -----------------------------------------------------------------------------------------------------

    def _header(self) -> Cell | None:
        return standing_content(self._rows, self._key)[0]

    def _content_value(self) -> ContentValue | None:
        header = self._header()
        return _content_value(header) if header is not None else None

    def _others(self, header: Cell) -> list[Cell]:
        """Every content and page but those that belong to this header."""
        pages = [cell for key in self._index.keys(self._key, CONTENT_PAGE) for cell in self._rows.held(CONTENT_PAGE, key)]
        return [cell for cell in (*self._rows.held(CONTENT, self._key), *pages) if cell.replica != header.replica]

    def _origin(self) -> Origin:
        """The earliest header, ties by author; a purge may have taken it from under a put, which then stands for it."""
        values: list[TileValue] = [value_of(cell) for cell in self._rows.held(TILE, self._key)]
        if values:
            return min(Origin(value.created, value.author) for value in values)
        header = self._header()
        return Origin(_content_value(header).time, header.replica.node_id) if header is not None else Origin(0, "")

    def origin_cells(self, replica: Replica, author: str | None, when: int, created: int | None) -> list[Cell]:
        """The header to write, none or one: for a new tile, and for one that turns out to be older than anybody knew."""
        author = replica.node_id if author is None else author
        if len(author.encode(errors="replace")) > ID_BYTES:
            raise ConstraintCrdtError(f"the author of a tile has at most {ID_BYTES} bytes")
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
    """The tiles that are there. `in` and `len` are O(1), iteration, over (room, id) in order, is O(tiles)."""

    KINDS = TileIndex.KINDS

    def __init__(self, rows: Rows | None = None, *, now: Callable[[], int] = no_time) -> None:
        """`now`: the time in ns since the epoch, for puts."""
        super().__init__(rows)
        self._now = now
        self._index = TileIndex(self._rows)

    def tile(self, room: str, id_: str) -> FleetTile:
        """A tile, whether it is there or not. Raises `ConstraintCrdtError` for a room or id that no tile can have."""
        return FleetTile(room, id_, self._rows, now=self._now, index=self._index)

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
                return self._index.is_visible(room, id_)
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
