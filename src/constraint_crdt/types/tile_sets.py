"""The tags and the constraints of a tile: add-wins OR-sets, as cells of the same kind.

An add is a cell under the element's key in its writer's row; the element is in the set while an add stands. A removal names the
observed cells. Constraints may also come from other software with an OR-set of its own, by *foreign tags*: each add there has a
tag (node, seq), and a removal there puts tags under tombstones. Such a constraint is in the set while a tag is without a
tombstone. An add of the fleet has such a tag too, (text of its replica, seq of its cell), for other software to carry and to
remove.

Tombstones are sets of whole numbers, kept as ascending intervals with gaps between them.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from operator import index
from typing import ClassVar

from constraint_crdt.crdt.cells import SEPARATOR, Cell, make_cell, removals_of, value_of
from constraint_crdt.crdt.clock import Replica, check_id, parse_replica, writer
from constraint_crdt.crdt.limits import MAX_COUNT
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.errors import ConstraintCrdtError, UnknownName
from constraint_crdt.types.tile_cells import ELEMENT, TOMBSTONES, Interval, TileIndex

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
