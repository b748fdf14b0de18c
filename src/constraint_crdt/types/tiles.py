"""Tiles: pieces of content with tags, constraints, counts and a position, by room and id. Rules:

- A put replaces every observed content, and ends the observed deletions. Of concurrent puts the latest counts, ties by replica;
  their time is hybrid logical: the time of the clock, but always after all observed contents.
- A deletion names the observed content, so a concurrent put wins. The content stays until a purge, so a deletion can be undone.
- A purge removes all observed cells of the tile. Concurrent writes of others stay.
- Each write is a transaction. For a transaction of several writes, write the cells from `put_cells`, `position_cell` and the like
  together.

The tags and the constraints of a tile: add-wins OR-sets, as cells of the same kind.

An add is a cell under the element's key in its writer's row; the element is in the set while an add stands. A removal names the
observed cells. Constraints may also come from other software with an OR-set of its own, by *foreign tags*: each add there has a
tag (node, seq), and a removal there puts tags under tombstones. Such a constraint is in the set while a tag is without a
tombstone. An add of the fleet has such a tag too, (text of its replica, seq of its cell), for other software to carry and to
remove.

Tombstones are sets of whole numbers, kept as ascending intervals with gaps between them.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from operator import index
from typing import ClassVar, NamedTuple, Self

from constraint_crdt.crdt.cells import SEPARATOR, Cell, make_cell, make_key, removals_of, value_of
from constraint_crdt.crdt.clock import Digest, Dot, Replica, StateHash, check_id, parse_replica, writer
from constraint_crdt.crdt.limits import ID_BYTES, MAX_COUNT, whole_number
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.errors import ConstraintCrdtError, UnknownName
from constraint_crdt.types.tile_cells import (
    CONTENT,
    CONTENT_PAGE,
    DELETED,
    ELEMENT,
    TILE,
    TILE_POSITION,
    TOMBSTONES,
    ContentValue,
    DeletedValue,
    Interval,
    Place,
    Position,
    Positions,
    TileCounts,
    TileIndex,
    TileValue,
    check_place,
    content_cells,
    eisenstein_norm,
    encode_content,
    hash_content,
    read_content,
    standing_content,
)
from constraint_crdt.types.view import View, no_time

Intervals = tuple[Interval, ...]
"""(first, last) of each interval, ascending, with a gap before the next."""


def union(intervals: Iterable[Interval]) -> Intervals:
    """The union of intervals, in any order and with overlaps. O(n log n)."""
    joined: list[Interval] = []
    for lo, hi in sorted(intervals):
        if joined and lo <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(hi, joined[-1][1]))
        else:
            joined.append((lo, hi))
    return tuple(joined)


def contains(intervals: Sequence[Interval], number: int) -> bool:
    """True if an interval contains the number. O(log n)."""
    place = bisect_right(intervals, number, key=lambda interval: interval[0])
    return place > 0 and number <= intervals[place - 1][1]


Tag = tuple[str, int]
"""A foreign add: its node, and its number there."""

OF_TAGS = "t"
OF_CONSTRAINTS = "k"
OF_FOREIGN = "f"
"""Which set an element's cell belongs to: a part of its key. A constraint may have cells of both of the latter."""


class TileSet:
    """The tags of a tile. `in` is O(1); `len` and iteration, in order, are O(elements)."""

    LETTERS: ClassVar[tuple[str, ...]] = (OF_TAGS,)
    WHAT: ClassVar[str] = "a tag"
    FIELD: ClassVar[str] = "tags"

    def __init__(self, rows: Rows, index: TileIndex, key: str) -> None:
        """`key`: the key of the tile."""
        self._rows = rows
        self._index = index
        self._key = key

    def __contains__(self, element: object) -> bool:
        return isinstance(element, str) and bool(self._cells(element))

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(element for element in self._named() if element in self))

    def __len__(self) -> int:
        return sum(element in self for element in self._named())

    def __eq__(self, other: object) -> bool:
        """Equal to any set with the same elements."""
        return set(self) == set(other) if isinstance(other, AbstractSet | TileSet) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self)})"

    def add(self, element: str, *, node: str | Replica) -> bool:
        """Add an element; False for an element already in the set.

        Raises `TypeError` and `ConstraintCrdtError` for an invalid element, and for an element beyond `Limits.tile_elements`.
        """
        return self._write(node, self.additions([element]))

    def additions(self, elements: Iterable[str]) -> list[Cell]:
        """The cells for those elements not in the set yet. Raises as `add` does."""
        fresh = [element for element in dict.fromkeys(elements) if check_id(element, self.WHAT, field=self.FIELD) not in self]
        if fresh:
            self._check_room(len(fresh))
        return [make_cell(ELEMENT, self._cell_key(self.LETTERS[0], element), None) for element in fresh]

    def remove(self, element: str, *, node: str | Replica) -> None:
        """Remove an element: every add known here. Raises `KeyError` for an element not in the set."""
        self._write(node, self.removal_cells([element], writer(node)))

    def removal_cells(self, elements: Iterable[str], replica: Replica) -> list[Cell]:
        """The cells written by `replica` to remove these elements. Raises as `remove` does."""
        return self._removal_cells({element: self._present(element) for element in elements}, replica)

    def _removal_cells(self, present: Mapping[str, Sequence[Cell]], replica: Replica) -> list[Cell]:  # noqa: ARG002 - for constraints
        return removals_of([cell for cells in present.values() for cell in cells])

    def _present(self, element: str) -> list[Cell]:
        """The cells of an element. Raises `KeyError` for an element not in the set."""
        if element not in self:
            raise UnknownName(element, "element")
        return self._cells(element)

    def _write(self, node: str | Replica, cells: list[Cell]) -> bool:
        if cells:
            self._rows.write_all(writer(node), cells)
        return bool(cells)

    def _check_room(self, more: int) -> None:
        self._index.check_room(self._key)
        most = self._rows.limits.tile_elements
        if len(self) + more > most:
            raise ConstraintCrdtError(f"a tile has at most {most} elements in one set, as this node is set")

    def _cell_key(self, letter: str, element: str) -> str:
        return SEPARATOR.join((self._key, letter, element))

    def _cells(self, element: str) -> list[Cell]:
        """The cells of an element, in all rows."""
        return [cell for letter in self.LETTERS for cell in self._rows.held(ELEMENT, self._cell_key(letter, element))]

    def _named(self) -> set[str]:
        """The elements named by any cell."""
        starts = [self._cell_key(letter, "") for letter in self.LETTERS]
        return {whole[len(start) :] for start in starts for whole in self._index.keys(self._key, ELEMENT, start)}


class TileConstraints(TileSet):
    """The constraints of a tile: those of the fleet and, by their tags, those of other software. `in` is O(its adds +
    tombstones)."""

    LETTERS = (OF_CONSTRAINTS, OF_FOREIGN)
    WHAT = "a constraint of a tile"
    FIELD = "constraints"

    def __contains__(self, element: object) -> bool:
        return isinstance(element, str) and bool(self.tags_of(element))

    def __iter__(self) -> Iterator[str]:
        return iter(self.by_element())

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def tags_of(self, element: str) -> set[Tag]:
        """The tags of a constraint without a tombstone; none for a constraint not in the set. An add of the fleet has (text of
        its replica, seq)."""
        cells = self._cells(element)
        return self._live_tags(cells, self.tombstones()) if cells else set()

    def by_element(self) -> dict[str, set[Tag]]:
        """The constraints in the set, in order, each with its tags. O(elements + tombstones)."""
        tombstones = self.tombstones()
        tags = {element: self._live_tags(self._cells(element), tombstones) for element in sorted(self._named())}
        return {element: alive for element, alive in tags.items() if alive}

    def tombstones(self) -> dict[str, Intervals]:
        """The tombstones of foreign tags, by node. O(tombstones)."""
        start = self._tombstones_key("")
        return {whole[len(start) :]: self._tombstones_at(whole) for whole in self._index.keys(self._key, TOMBSTONES)}

    def _removal_cells(self, present: Mapping[str, Sequence[Cell]], replica: Replica) -> list[Cell]:
        return self.removals({element: self._live_tags(cells, {}) for element, cells in present.items()}, replica)

    def removals(self, removed: Mapping[str, Iterable[Tag]], replica: Replica) -> list[Cell]:
        """The cells that remove these adds of these constraints, foreign ones for good.

        Software after a restart may use a tag again, for another constraint. A constraint that would vanish with the tags of
        another stays, by an add of the fleet.
        """
        named = {element: _checked(tags) for element, tags in removed.items()}
        removed_tags = {tag for tags in named.values() for tag in tags}
        tombstones = self.tombstones()
        after, stay = _with_tags(tombstones, removed_tags), []
        for element in sorted(self._named()):
            cells = self._cells(element)
            if self._live_tags(cells, tombstones) - named.get(element, set()) and not self._live_tags(cells, after):
                stay.append(make_cell(ELEMENT, self._cell_key(OF_CONSTRAINTS, element), None))
        return [*stay, *self._ended(removed_tags, replica)]

    def add_foreign(self, element: str, tags: Iterable[Tag], *, node: str | Replica) -> bool:
        """Take in a constraint added by other software, by the tags of its adds. False if all tags were known or under
        tombstones.

        The tag of an add of the fleet within the clock is known: the add stands, or was removed. Raises as `add` does, and for
        tags out of bounds or too many for a cell.
        """
        return self._write(node, self.foreign_additions({element: tags}, writer(node)))

    def bury(self, tags: Iterable[Tag], *, node: str | Replica) -> bool:
        """Put foreign tags under tombstones: their adds are out, also those that arrive later. False if all tags were known.

        Raises `ConstraintCrdtError` for tags out of bounds, or too many for a cell.
        """
        return self._write(node, self.tombstone_cells(tags, writer(node)))

    def foreign_additions(
        self, added: Mapping[str, Iterable[Tag]], replica: Replica, *, buried_with_it: Iterable[Tag] = ()
    ) -> list[Cell]:
        """The cells of `add_foreign` for several elements, with some tags put under tombstones in the same transaction."""
        tombstones = _with_tags(self.tombstones(), _checked(buried_with_it))
        cells, opened = [], 0
        for element, tags in added.items():
            standing = self._cells(check_id(element, self.WHAT, field=self.FIELD))
            known = self._live_tags(standing, {})
            fresh = {tag for tag in _checked(tags) if tag not in known and not self._is_removed(tag, tombstones)}
            if not fresh:
                continue
            opened += not self._live_tags(standing, tombstones)
            own = [cell for cell in standing if self._is_foreign(cell) and cell.replica == replica]
            kept = {tag for cell in own for tag in _tags(cell) if not self._is_removed(tag, tombstones)}
            cells.append(make_cell(ELEMENT, self._cell_key(OF_FOREIGN, element), sorted(kept | fresh)))
        if opened:
            self._check_room(opened)
        return cells

    def tombstone_cells(self, tags: Iterable[Tag], replica: Replica) -> list[Cell]:
        """The cells of `bury`."""
        removed_tags, tombstones = _checked(tags), self.tombstones()
        unknown = {tag for tag in removed_tags if not self._is_removed(tag, tombstones)}
        if unknown:
            self._index.check_room(self._key)
        names = {who for who, _ in unknown} - tombstones.keys()
        if names and len(tombstones) + len(names) > self._rows.limits.tile_elements:
            raise ConstraintCrdtError(
                f"a tile has tombstones of at most {self._rows.limits.tile_elements} nodes, as this node is set"
            )
        return self._ended(removed_tags, replica)

    def _ended(self, removed_tags: set[Tag], replica: Replica) -> list[Cell]:
        """The cells that remove these adds: tombstones for adds that may arrive from elsewhere, removals for cells without a
        live tag."""
        tombstones = self.tombstones()
        cells = [cell for element in self._named() for cell in self._cells(element)]
        carried = {tag for cell in cells if self._is_foreign(cell) for tag in _tags(cell)}
        fresh = {tag for tag in removed_tags if not contains(tombstones.get(tag[0], ()), tag[1])}
        after = _with_tags(tombstones, removed_tags)
        dead = [cell for cell in cells if not self._live_tags([cell], after)]
        # An add of the fleet within the clock is removed for good by a removal, but other rows may carry its tag.
        under = {tag for tag in fresh if tag in carried or not self._is_accounted_for(tag)}
        return [*self._tombstone_cells(under, replica), *removals_of(dead)]

    def _tombstone_cells(self, tags: Iterable[Tag], replica: Replica) -> list[Cell]:
        """The cells that put tags under this row's tombstones, besides those already there."""
        own: dict[str, Intervals] = {}
        chosen = list(tags)
        for who in {who for who, _ in chosen}:
            standing = self._rows.get(TOMBSTONES, self._tombstones_key(who), replica)
            own[who] = value_of(standing) if standing is not None else ()
        return [make_cell(TOMBSTONES, self._tombstones_key(who), under) for who, under in sorted(_with_tags(own, chosen).items())]

    def _tombstones_key(self, who: str) -> str:
        return self._key + SEPARATOR + who

    def _tombstones_at(self, whole: str) -> Intervals:
        return union(interval for cell in self._rows.held(TOMBSTONES, whole) for interval in value_of(cell))

    def _is_removed(self, tag: Tag, tombstones: Mapping[str, Intervals]) -> bool:
        return contains(tombstones.get(tag[0], ()), tag[1]) or self._is_accounted_for(tag)

    def _is_accounted_for(self, tag: Tag) -> bool:
        """True for the tag of an add of ours up to the clock."""
        replica = parse_replica(tag[0])
        return replica is not None and tag[1] <= self._rows.seq(replica)

    def _is_foreign(self, cell: Cell) -> bool:
        return str(cell.key).startswith(self._cell_key(OF_FOREIGN, ""))

    def _live_tags(self, cells: Sequence[Cell], tombstones: Mapping[str, Intervals]) -> set[Tag]:
        tags: set[Tag] = set()
        for cell in cells:
            tags.update(_tags(cell) if self._is_foreign(cell) else ((str(cell.replica), cell.seq),))
        return {(who, seq) for who, seq in tags if not contains(tombstones.get(who, ()), seq)}


def _tags(cell: Cell) -> tuple[Tag, ...]:
    tags: tuple[Tag, ...] = value_of(cell) or ()
    return tags


def _with_tags(tombstones: Mapping[str, Intervals], tags: Iterable[Tag]) -> dict[str, Intervals]:
    """Tombstones with some more tags under them."""
    more: dict[str, list[Interval]] = {}
    for who, seq in tags:
        more.setdefault(who, []).append((seq, seq))
    return {**tombstones, **{who: union([*tombstones.get(who, ()), *intervals]) for who, intervals in more.items()}}


def _checked(tags: Iterable[Tag]) -> set[Tag]:
    found = set()
    for who, seq in tags:
        if isinstance(seq, bool) or not hasattr(seq, "__index__") or not 0 <= index(seq) <= MAX_COUNT:
            raise ConstraintCrdtError(f"the seq of a tag is a whole number from 0 to 2**63 - 1, not {seq!r}")
        found.add((check_id(who, "the node of a tag"), index(seq)))
    return found


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
        """The tags of the tile."""
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

    def _with_rows(self, rows: Rows) -> Self:
        return type(self)(self.room, self.id, rows, now=self._now)

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

    def _with_rows(self, rows: Rows) -> Self:
        return type(self)(rows, now=self._now)

    def __repr__(self) -> str:
        return f"FleetTiles({len(self)} in {len(self._index.rooms)} rooms)"
