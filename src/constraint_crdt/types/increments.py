"""Increments of foreign nodes (PLATO deltas): each (room, node, seq) counts once.

| kind | key | value |
|---|---|---|
| 22 INCREMENTS | room, foreign node, its seq | `[satisfied, violated]` |
| 23 APPLIED | room, foreign node, page | `[[first seq, level, satisfied, violated], …]`: increments of 2**level seqs each |

An increment is a cell under (room, foreign node, seq) in the row of the node that took it in. The same increment in several rows
counts once, by its seq. From time to time a writer compacts the increments it knows: it writes pages of blocks in its own row,
and in the same transaction a removal of the cells replaced, of all rows. Totals do not change. Seqs are remembered for good, so a
late repeat has no effect.

A *block* is a range of 2**level seqs from a multiple of 2**level on, with the sum of their increments; a single increment is a
block of level 0. Of two blocks either the larger contains the other, or they are disjoint. So copies compacted at different
places and times are combined by leaving out each block inside of a larger block: no seq counts twice, without any coordination.
(Sums over arbitrary ranges do not allow this: overlapping ranges cannot be separated.)

Blocks do not join over missing seqs: n seqs with g gaps need up to (g + 1) * 2 * log2(n) blocks.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

import msgspec

from constraint_crdt.crdt.cells import (
    Cell,
    make_cell,
    make_key,
    read_cell,
    register,
    removals_of,
    require,
    require_counts,
    split_key,
    value_of,
)
from constraint_crdt.crdt.clock import Replica, check_id, writer
from constraint_crdt.crdt.limits import MAX_COUNT, whole_number
from constraint_crdt.errors import ConstraintCrdtError, InvalidValue
from constraint_crdt.types.counters import ZERO, Counts, check_pair
from constraint_crdt.types.view import IndexedView

INCREMENTS: Final = 22
APPLIED: Final = 23

LEVEL_MAX: Final = 63
"""The highest level of a block: all seqs fit into a single block."""


class BlockValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The sum of the increments of 2**level seqs, from `first` on; `first` is a multiple of 2**level."""

    first: int
    level: int
    satisfied: int
    violated: int


def _check_applied(_: str, value: tuple[BlockValue, ...]) -> None:
    free = 0
    for block in value:
        require_counts((block.first, block.satisfied, block.violated), "a number of a stretch of increments")
        require(0 <= block.level <= LEVEL_MAX, "the level of a stretch of increments")
        size = 1 << block.level
        require(free <= block.first and block.first % size == 0, "the first seq of a stretch of increments")
        free = block.first + size


register(INCREMENTS, tuple[int, int], check_pair, removable=True)
register(APPLIED, tuple[BlockValue, ...], _check_applied, removable=True)


class Block(NamedTuple):
    """The numbers from `first` to `first + 2**level - 1`."""

    first: int
    level: int

    @property
    def end(self) -> int:
        """The seq after the last of the block."""
        return self.first + (1 << self.level)


def join_blocks(parts: Mapping[Block, Counts], top: int) -> dict[Block, Counts]:
    """The same increments in as few blocks as can be, none above level `top`. No part may lie inside of another."""
    found: dict[Block, Counts] = {}
    levels: dict[int, dict[Block, Counts]] = {}
    for block, value in parts.items():
        levels.setdefault(block.level, {})[block] = value
    for level in range(top + 1):
        at_level = levels.pop(level, {})
        for block, value in at_level.items():
            twin = Block(block.first ^ (1 << level), level)
            if level == top or twin not in at_level:
                found[block] = value
            elif block < twin:
                whole = Block(block.first, level + 1)
                levels.setdefault(level + 1, {})[whole] = sum_counts((value, at_level[twin]))
    return found


def sum_counts(values: Iterable[Counts]) -> Counts:
    """The sum, capped at the largest count; independent of the order."""
    total = ZERO
    for value in values:
        total = total.plus(*value)
    return Counts(min(total.satisfied, MAX_COUNT), min(total.violated, MAX_COUNT))


def _highest(values: Iterable[Counts]) -> Counts:
    found = ZERO
    for value in values:
        found = Counts(max(found.satisfied, value.satisfied), max(found.violated, value.violated))
    return found


class BlockSums:
    """The sum over blocks stated by several rows. A statement may be removed again.

    Where rows differ on the sum of a block (possible only with a broken sender), the higher counts are read.
    """

    def __init__(self) -> None:
        self._told: dict[Block, list[Counts]] = {}
        self._order: list[tuple[int, int]] = []
        """(first, -level) of each block: a block stands after all larger blocks around it, and before all blocks inside of it."""
        self._levels: dict[int, int] = {}
        """How many blocks there are of each level."""
        self._satisfied = self._violated = 0

    def __len__(self) -> int:
        """How many blocks are told of, those inside of others included."""
        return len(self._told)

    @property
    def total(self) -> Counts:
        """The sum over all stated seqs. O(1)."""
        return Counts(min(self._satisfied, MAX_COUNT), min(self._violated, MAX_COUNT))

    def covers(self, number: int) -> bool:
        """True if this number is told of, alone or with others. O(levels)."""
        return Block(number, 0) in self._told or self.is_covered(Block(number, 0))

    def is_covered(self, block: Block) -> bool:
        """True if a larger block with all its numbers is told of. O(levels)."""
        return any(level > block.level and Block(block.first >> level << level, level) in self._told for level in self._levels)

    def value(self, block: Block) -> Counts:
        """The stated counts of exactly this block; zero without a statement."""
        return _highest(self._told.get(block, ()))

    def add(self, block: Block, value: Counts) -> None:
        """Add the statement of a row. O(levels), and O(blocks inside) for a new block."""
        before = self.value(block)
        told = self._told.setdefault(block, [])
        told.append(value)
        if len(told) == 1:
            insort(self._order, (block.first, -block.level))
            self._levels[block.level] = self._levels.get(block.level, 0) + 1
        if not self.is_covered(block):
            if len(told) == 1:
                before = self._inside(block)
            self._move(before, _highest(told))

    def remove(self, block: Block, value: Counts) -> None:
        """Remove the statement of a row. O(levels), and O(blocks inside) for the last statement of a block."""
        before, told = self.value(block), self._told[block]
        told.remove(value)
        if told:
            after = _highest(told)
        else:
            self._forget(block)
            after = self._inside(block)
        if not self.is_covered(block):
            self._move(before, after)

    def _forget(self, block: Block) -> None:
        del self._told[block]
        del self._order[bisect_left(self._order, (block.first, -block.level))]
        self._levels[block.level] -= 1
        if not self._levels[block.level]:
            del self._levels[block.level]

    def _move(self, before: Counts, after: Counts) -> None:
        self._satisfied += after.satisfied - before.satisfied
        self._violated += after.violated - before.violated

    def _inside(self, block: Block) -> Counts:
        """The sum of the blocks inside of this block, not capped."""
        total = ZERO
        for part in self._largest_within(block):
            total = total.plus(*self.value(part))
        return total

    def _largest_within(self, block: Block) -> Iterator[Block]:
        start = bisect_left(self._order, (block.first, -block.level))
        free = block.first
        for first, depth in self._order[start : bisect_left(self._order, (block.end, -MAX_COUNT))]:
            part = Block(first, -depth)
            if first >= free and part != block:
                yield part
                free = part.end


FOLD_AT: Final = 64
"""The number of single increments of a foreign node in a room at which the next increment compacts them."""

PAGE_LEVELS: Final = 11
"""The number of levels in a page: levels 0 to 10 within 2048 seqs, levels 11 to 21 within 2**22, … At most 1024 of the blocks do
not join, and always fit into a cell."""

_Page = tuple[int, int]
"""(tier, number): the blocks of levels 11 * tier to 11 * tier + 10 with seq // 2**(11 * (tier + 1)) == number."""


class _ForeignNode:
    """The counts of a foreign node in a room."""

    __slots__ = ("blocks", "single")

    def __init__(self) -> None:
        self.blocks = BlockSums()
        self.single: dict[int, int] = {}
        """By seq: in how many rows the increment stands as a cell of its own."""


class RoomIncrements(IndexedView):
    """Counts of foreign nodes by room. A reading is O(1) for a node, O(nodes) for a room."""

    KINDS = (INCREMENTS, APPLIED)

    def _clear(self) -> None:
        self._rooms: dict[str, dict[str, _ForeignNode]] = {}

    def _changed(self, old: Cell | None, new: Cell | None) -> None:
        if new is not None:
            self._note(new, stands=True)
        if old is not None:  # second, so nothing is missing between the old page and the new
            self._note(old, stands=False)

    def _note(self, cell: Cell, *, stands: bool) -> None:
        named = _named(cell)
        if named is None:
            return
        room, node, seq = named
        source = self._rooms.setdefault(room, {}).setdefault(node, _ForeignNode())
        note = source.blocks.add if stands else source.blocks.remove
        for block, value in _told(cell, seq):
            note(block, value)
        if cell.kind == INCREMENTS:
            source.single[seq] = source.single.get(seq, 0) + (1 if stands else -1)
            if not source.single[seq]:
                del source.single[seq]
        if not len(source.blocks):
            del self._rooms[room][node]
            if not self._rooms[room]:
                del self._rooms[room]

    @property
    def rooms(self) -> list[str]:
        """The rooms in which a foreign node counted, sorted. O(rooms)."""
        return sorted(self._rooms)

    def by_node(self, room: str) -> dict[str, Counts]:
        """The counts of each foreign node in a room, ordered by name; nodes with zero counts included."""
        return {node: source.blocks.total for node, source in sorted(self._rooms.get(room, {}).items())}

    def total(self, room: str) -> Counts:
        """The counts of all foreign nodes in a room."""
        return sum_counts(self.by_node(room).values())

    def knows(self, room: str, foreign: str, seq: int) -> bool:
        """True if this increment is known here."""
        source = self._rooms.get(room, {}).get(foreign)
        return source is not None and source.blocks.covers(seq)

    def apply(self, room: str, foreign: str, seq: int, satisfied: int = 0, violated: int = 0, *, node: str | Replica) -> bool:
        """Take in the increment of `foreign` with this seq. False, and no effect, for a known increment.

        Raises `TypeError` for a number that is not whole, `ValueError` for a negative number, and `ConstraintCrdtError` for names
        or numbers out of bounds and for a foreign node beyond `Limits.foreign_nodes`.
        """
        replica = writer(node)
        cell = self.increment_cell(room, foreign, seq, satisfied, violated)
        if cell is None:
            return False
        self.fold(room, foreign, node=replica)
        self._rows.write(replica, cell)
        return True

    def increment_cell(self, room: str, foreign: str, seq: int, satisfied: int = 0, violated: int = 0) -> Cell | None:
        """The cell of an increment, for a transaction with others; None for a known increment. Raises as `apply` does."""
        seq = whole_number(seq, "the seq of an increment")
        satisfied, violated = (whole_number(number, "an increment") for number in (satisfied, violated))
        if min(seq, satisfied, violated) < 0:
            raise InvalidValue("an increment and its seq cannot be negative")
        if max(seq, satisfied, violated) > MAX_COUNT:
            raise ConstraintCrdtError("an increment and its seq cannot exceed 2**63 - 1")
        key = make_key(check_id(room, "a room"), check_id(foreign, "the name of a node"), str(seq))
        if self.knows(room, foreign, seq):
            return None
        if foreign not in self._rooms.get(room, {}):
            self._check_room_for_one_more()
        return make_cell(INCREMENTS, key, [satisfied, violated])

    def fold(self, room: str, foreign: str, *, node: str | Replica) -> None:
        """Compact the increments of a foreign node, if there are enough single ones. No reading changes.

        Raises `ConstraintCrdtError` beyond a limit; nothing changes then.
        """
        source = self._rooms.get(room, {}).get(foreign)
        if source is not None and len(source.single) >= FOLD_AT:
            self._fold(room, foreign, writer(node))

    def _check_room_for_one_more(self) -> None:
        most = self._rows.limits.foreign_nodes
        if sum(map(len, self._rooms.values())) >= most:
            raise ConstraintCrdtError(f"more than the {most} foreign nodes, over all rooms, that this node is set to count for")

    def _fold(self, room: str, foreign: str, replica: Replica) -> None:
        """Compact the single increments, with the pages of their seqs."""
        source = self._rooms[room][foreign]
        single = [cell for seq in source.single for cell in self._rows.held(INCREMENTS, make_key(room, foreign, str(seq)))]
        joining = {Block(seq, 0): source.blocks.value(Block(seq, 0)) for seq in source.single}
        written: list[Cell] = []
        replaced: list[Cell] = single
        while joining:
            risen: dict[Block, Counts] = {}
            for page, parts in _by_page(joining).items():
                key = make_key(room, foreign, f"{page[0]}.{page[1]}")
                pages = self._rows.held(APPLIED, key)
                blocks = join_blocks(self._with_standing_blocks(source, page, pages, parts), PAGE_LEVELS * (page[0] + 1))
                own = next((cell for cell in pages if cell.replica == replica), None)
                full = {block: value for block, value in blocks.items() if _page_of(block) != page}
                risen |= full
                if blocks and not full:
                    written.append(_page_cell(key, blocks))
                    own = None  # superseded by the new page
                replaced += [cell for cell in pages if cell is own or (cell.replica != replica and _is_within(cell, page))]
            joining = risen
        self._rows.write_all(replica, [*written, *removals_of(replaced)])

    def _with_standing_blocks(
        self, source: _ForeignNode, page: _Page, pages: Iterable[Cell], parts: dict[Block, Counts]
    ) -> dict[Block, Counts]:
        """`parts` and the blocks of this page in any row, without those inside of a larger block."""
        standing = {block for cell in pages for block, _ in _told(cell, 0) if _page_of(block) == page}
        known = {block: source.blocks.value(block) for block in standing} | parts
        return {block: value for block, value in known.items() if not source.blocks.is_covered(block)}

    def __repr__(self) -> str:
        return f"RoomIncrements({len(self._rooms)} rooms)"


def _named(cell: Cell) -> tuple[str, str, int] | None:
    """The room, the foreign node and, of an increment, the seq. None for a malformed key, written by no honest node."""
    parts = split_key(cell.key, 3)
    if len(parts) < 3 or not parts[0] or not parts[1]:
        return None
    if cell.kind == APPLIED:
        return parts[0], parts[1], 0
    digits = parts[2]
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 19) or str(int(digits)) != digits or int(digits) > MAX_COUNT:
        return None
    return parts[0], parts[1], int(digits)


def _told(cell: Cell, seq: int) -> list[tuple[Block, Counts]]:
    """The blocks stated by a cell; `seq`: of an increment."""
    value = value_of(cell)
    if cell.kind == INCREMENTS:
        return [(Block(seq, 0), Counts(*value))]
    return [(Block(each.first, each.level), Counts(each.satisfied, each.violated)) for each in value]


def _page_of(block: Block) -> _Page:
    tier = block.level // PAGE_LEVELS
    return tier, block.first >> PAGE_LEVELS * (tier + 1)


def _by_page(parts: dict[Block, Counts]) -> dict[_Page, dict[Block, Counts]]:
    found: dict[_Page, dict[Block, Counts]] = {}
    for block, value in parts.items():
        found.setdefault(_page_of(block), {})[block] = value
    return found


def _is_within(cell: Cell, page: _Page) -> bool:
    """True if all blocks of a page cell belong to the page, as in every honest cell: then the new page replaces all of it."""
    return all(_page_of(block) == page for block, _ in _told(cell, 0))


def _page_cell(key: str, blocks: dict[Block, Counts]) -> Cell:
    value = [[*block, *counts] for block, counts in sorted(blocks.items())]
    return read_cell(make_cell(APPLIED, key, value).data)
