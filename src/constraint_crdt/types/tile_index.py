"""Which cells belong to which tile, and which tiles are there.

A tile is named by a room and an id. Its header, content, deletion and position are under that name; its pages, elements, counts
and tombstones under longer keys that begin with it. The index knows these keys, so that reading a tile costs what its own cells
cost. A tile is *there* while a content stands that no deletion mark names.

Rule: every reading follows from the cells that stand, never from the order in which they came.
"""

from collections.abc import Iterator, Sequence

from constraint_crdt.core.cells import SEPARATOR, Cell, make_key, value_of
from constraint_crdt.core.limits import ID_BYTES
from constraint_crdt.core.replica import Replica, check_id
from constraint_crdt.core.rows import Rows
from constraint_crdt.core.values import (
    CONTENT,
    CONTENT_PAGE,
    DELETED,
    ELEMENT,
    TILE,
    TILE_COUNTS,
    TILE_POSITION,
    TOMBSTONES,
    ContentValue,
    DeletedValue,
)
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.types.view import WatchingView

Place = tuple[str, str]
"""Room and id of a tile."""

UNDER_ITS_NAME = (TILE, CONTENT, TILE_POSITION, DELETED)
UNDER_LONGER_KEYS = (CONTENT_PAGE, ELEMENT, TOMBSTONES, TILE_COUNTS)


def check_place(room: str, id_: str) -> str:
    """The key of a tile. Raises `ConstraintCrdtError` for a room or id that none can have."""
    for text, what in ((room, "the room of a tile"), (id_, "the id of a tile")):
        check_id(text, what)
        if SEPARATOR in text:
            raise ConstraintCrdtError(f"{what} must not contain the control character U+001F")
    return make_key(room, id_)


def standing_content(rows: Rows, key: str) -> tuple[Cell | None, bool]:
    """The content of a tile that counts, and whether the tile is there. Without any content: (None, False).

    The latest one that no deletion names, ties by replica; if all of them are deleted the latest of these. O(cells).
    """
    cells = rows.held(CONTENT, key)
    if not cells:
        return None, False
    named: dict[Replica, int] = {}
    for mark in rows.held(DELETED, key):
        deleted: DeletedValue = value_of(mark)
        for dot in deleted.seen:
            named[dot.replica] = max(dot.seq, named.get(dot.replica, 0))
    kept = [cell for cell in cells if named.get(cell.replica, 0) < cell.seq] if named else cells
    return max(kept or cells, key=_age), bool(kept)


def _age(cell: Cell) -> tuple[int, Replica]:
    value: ContentValue = value_of(cell)
    return value.time, cell.replica


class TileIndex(WatchingView):
    """The tiles known, visible or not. Lookups are O(1)."""

    KINDS = (*UNDER_ITS_NAME, *UNDER_LONGER_KEYS)

    def _clear(self) -> None:
        self._longer: dict[str, dict[int, set[str]]] = {}
        self._rooms: dict[str, set[str]] = {}
        self._visible = 0

    def _changed(self, old: Cell | None, new: Cell | None) -> None:
        cell = new if new is not None else old
        if cell is None:
            return
        kind, whole = cell.kind, str(cell.key)
        room, _, rest = whole.partition(SEPARATOR)
        id_, more, _ = rest.partition(SEPARATOR)
        if bool(more) is (kind in UNDER_ITS_NAME):
            return  # no key that a tile has
        key = f"{room}{SEPARATOR}{id_}"
        longer = self._longer.get(key)
        if longer is None:
            if new is None or not _may_be(room) or not _may_be(id_):
                return
            longer = self._longer[key] = {}
        if more:
            self._note(longer, kind, whole)
        elif kind in (CONTENT, DELETED):
            self._judge(room, id_, key)
        if new is None and not longer and not any(key in self._rows.table(each) for each in UNDER_ITS_NAME):
            del self._longer[key]

    def _note(self, longer: dict[int, set[str]], kind: int, whole: str) -> None:
        if whole in self._rows.table(kind):
            longer.setdefault(kind, set()).add(whole)
        elif kind in longer:
            longer[kind].discard(whole)
            if not longer[kind]:
                del longer[kind]

    def _judge(self, room: str, id_: str, key: str) -> None:
        """See whether the tile is there."""
        rows = self._rows
        there = key in rows.table(CONTENT) and (key not in rows.table(DELETED) or standing_content(rows, key)[1])
        ids = self._rooms.get(room, set())
        if there is (id_ in ids):
            return
        self._visible += 1 if there else -1
        if there:
            self._rooms.setdefault(room, ids).add(id_)
        else:
            ids.discard(id_)
            if not ids:
                del self._rooms[room]

    @property
    def visible(self) -> int:
        """How many tiles are there."""
        return self._visible

    @property
    def known(self) -> int:
        """How many tiles have any cell, deleted ones included."""
        return len(self._longer)

    def check_room(self, key: str) -> None:
        """Raise `ConstraintCrdtError` if that tile is not known and would be one too many for this node to make."""
        most = self._rows.limits.tiles
        if key not in self._longer and self.known >= most:
            raise ConstraintCrdtError(f"there are {most} tiles or more, deleted ones included: no further one, as this node is set")

    def is_there(self, room: str, id_: str) -> bool:
        """True if the tile is visible."""
        return id_ in self._rooms.get(room, ())

    @property
    def rooms(self) -> list[str]:
        """The rooms with a visible tile, in order. O(rooms)."""
        return sorted(self._rooms)

    def ids(self, room: str) -> list[str]:
        """The visible tiles of a room, in order. O(their number)."""
        return sorted(self._rooms.get(room, ()))

    def places(self) -> Iterator[Place]:
        """Every tile known, in no order."""
        for key in self._longer:
            room, _, id_ = key.partition(SEPARATOR)
            yield room, id_

    def keys(self, key: str, kind: int, start: str = "") -> Sequence[str]:
        """The keys of one of the longer kinds that a tile has, those that begin with `start`. O(keys of that kind)."""
        found = self._longer.get(key, {}).get(kind, ())
        return [whole for whole in found if whole.startswith(start)] if start else tuple(found)

    def cells(self, key: str) -> list[Cell]:
        """Every standing cell of a tile."""
        rows = self._rows
        found = [cell for kind in UNDER_ITS_NAME for cell in rows.held(kind, key)]
        found += [cell for kind in UNDER_LONGER_KEYS for whole in self.keys(key, kind) for cell in rows.held(kind, whole)]
        return found


def _may_be(name: str) -> bool:
    return 0 < len(name.encode()) <= ID_BYTES
