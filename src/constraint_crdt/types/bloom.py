"""The Bloom filter (Bloom, 1970): membership of very many items in a few bits each.

| kind | key | value |
|---|---|---|
| 12 BLOOM | filter name | `[bits, hashes, expected items, inserted]` |
| 13 BLOOM_PAGE | filter name, page | bytes: the bits set by this row, compressed |

Every row keeps the bits of its own insertions, and the reading is the *union* of the rows. So an item inserted anywhere is always
found, independent of other rows. An item never inserted is found wrongly at the requested rate, once the filter holds the
expected number of items.

The number of bits is n·ln(1/p) / ln²2, rounded up to whole bytes; but from 100 items on never more than 0.16 % above, which is
9.6 bits an item at 1 % (then rounded down). Each item sets bits/n·ln 2 of them, rounded, at independent positions.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple, Self

import msgspec

from constraint_crdt.crdt.cells import Cell, make_cell, register, require, require_counts
from constraint_crdt.crdt.digest import Replica, writer
from constraint_crdt.crdt.limits import MAX_COUNT, PAGE_BYTES, PAGES, real_number, whole_number
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.types.view import PagedView, TableDirectory, check_page, positions

BLOOM: Final = 12
BLOOM_PAGE: Final = 13

FILTER_PAGE_BYTES: Final = 1024
HASHES_MAX: Final = 64

_OPTIMUM: Final = math.log(2) ** 2
_GENEROUS: Final = 9.6 * _OPTIMUM / math.log(100)
"""The largest ratio of bits to the optimum, for 9.6 bits an item at 1 %."""
_STRICT_FROM: Final = 100
"""The number of items from which on the ratio holds: below, a byte more or less would change the rate too much."""


class BloomValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of a BLOOM cell: the dimensions of the filter, and the insertions of a row."""

    bits: int
    hashes: int
    expected: int
    """The number of items the filter was made for."""
    inserted: int
    """Insertions of this row with a new bit."""


def _check_bloom(_: str, value: BloomValue) -> None:
    require(0 < value.bits <= PAGES * PAGE_BYTES * 8 and 0 < value.hashes <= HASHES_MAX, "the shape of a Bloom filter")
    require_counts((value.expected, value.inserted), "a count of a Bloom filter")


register(BLOOM, BloomValue, _check_bloom)
register(BLOOM_PAGE, bytes, check_page)


class BloomShape(NamedTuple):
    """The dimensions of a filter."""

    bits: int
    hashes: int
    expected: int
    """The number of items the filter was made for."""

    @classmethod
    def of(cls, expected_items: int, fp_rate: float) -> "BloomShape":
        """For so many items at this rate of wrong findings. Raises `TypeError` and `ConstraintCrdtError`."""
        expected = whole_number(expected_items, "the number of expected items")
        fp_rate = real_number(fp_rate, "the false-positive rate of a filter")
        if not 0.0 < fp_rate < 1.0:  # NaN is in no range
            raise ConstraintCrdtError(f"the false-positive rate of a filter is a share above 0 and below 1, not {fp_rate!r}")
        if not 0 < expected <= PAGES * PAGE_BYTES * 8:
            raise ConstraintCrdtError(f"a filter is made for 1 to {PAGES * PAGE_BYTES * 8} items, not {expected}")
        optimum = -expected * math.log(fp_rate) / _OPTIMUM
        bits = math.ceil(optimum / 8) * 8
        if expected >= _STRICT_FROM and bits > optimum * _GENEROUS * (1 + 1e-9):
            bits -= 8
        bits = max(8, bits)
        hashes = max(1, round(bits / expected * math.log(2)))
        if bits > PAGES * PAGE_BYTES * 8 or hashes > HASHES_MAX:
            raise ConstraintCrdtError(
                f"a filter for {expected} items at a rate of {fp_rate!r} needs more than the {PAGES * PAGE_BYTES} bytes or the "
                f"{HASHES_MAX} hashes it may have: expect fewer items, or choose a higher rate"
            )
        return cls(bits, hashes, expected)


class BloomCRDT(PagedView[BloomShape]):
    """A grow-only set of items, with false positives. `in` is O(hashes)."""

    KINDS = (BLOOM, BLOOM_PAGE)
    HEADER, PAGE, WHAT, MANY = BLOOM, BLOOM_PAGE, "filter", "filters"

    def __init__(
        self,
        expected_items: int = 100_000,
        fp_rate: float = 0.01,
        rows: Rows | None = None,
        *,
        name: str = "",
        shape: BloomShape | None = None,
    ) -> None:
        """`expected_items`, `fp_rate`: see the module. `rows`, `name`: the cells to look at; new ones, standing alone, if left out.

        `shape`: the dimensions themselves, in place of the first two. Raises `TypeError` and `ConstraintCrdtError`.
        """
        shape = shape or BloomShape.of(expected_items, fp_rate)
        super().__init__(rows, name, shape, -(-shape.bits // 8), FILTER_PAGE_BYTES)

    @staticmethod
    def shape_of(header: BloomValue) -> BloomShape:
        return BloomShape(header.bits, header.hashes, header.expected)

    def _over(self, rows: Rows) -> Self:
        return type(self)(rows=rows, name=self.name, shape=self.shape)

    # --- readings --------------------------------------------------------------------------------------------------------

    def __contains__(self, item: str) -> bool:
        self._settle()
        union = self._union
        for place in positions(item, self.shape.hashes, self.shape.bits):  # noqa: SIM110 - `all` takes half as long again
            if not union[place >> 3] >> (place & 7) & 1:
                return False
        return True

    @property
    def space_bytes(self) -> int:
        """Of the union."""
        return self._table_bytes

    @property
    def inserted(self) -> int:
        """Insertions of items new to their node. An item inserted by two nodes independently counts twice."""
        self._settle()
        return self._inserted

    @property
    def filled(self) -> float:
        """The share of set bits. O(bits)."""
        self._settle()
        return self._set_bits() / self.shape.bits

    @property
    def estimated_fpr(self) -> float:
        """The probability of finding an item never inserted, given the set bits. O(bits)."""
        return self.filled**self.shape.hashes

    @property
    def estimated_items(self) -> float:
        """The number of different items for as many set bits (Swamidass and Baldi, 2007). A lower bound, once all bits are set.
        O(bits)."""
        self._settle()
        bits, hashes, _ = self.shape
        clear = max(1, bits - self._set_bits())
        return bits / hashes * math.log(bits / clear)

    def _set_bits(self) -> int:
        bits = int.from_bytes(self._union, "little") & ((1 << self.shape.bits) - 1)
        return bits.bit_count()

    # --- folding ---------------------------------------------------------------------------------------------------------

    def _empty(self) -> None:
        self._union = bytearray(self._table_bytes)
        self._inserted = 0

    def _fold_header(self, old: BloomValue | None, new: BloomValue | None) -> None:
        self._inserted += (new.inserted if new is not None else 0) - (old.inserted if old is not None else 0)

    def _fold_page(self, number: int, old: bytes | None, new: bytes | None) -> None:
        start, size = number * FILTER_PAGE_BYTES, self._size(number)
        union, fresh = self._union[start : start + size], new or bytes(size)
        if old is None or _either(old, fresh) == fresh:
            self._union[start : start + size] = _either(union, fresh)
            return
        whole = bytes(size)  # bits were cleared, by no honest writer: sum up the other rows again
        for each in self._contents(number):
            whole = _either(whole, each)
        self._union[start : start + size] = whole

    # --- writing ---------------------------------------------------------------------------------------------------------

    def insert(self, item: str, *, node: str | Replica) -> bool:
        """Insert an item. True if the item was not found here before. Raises as `insert_all` does."""
        return bool(self.insert_all([item], node=node))

    def insert_all(self, items: Iterable[str], *, node: str | Replica) -> int:
        """Insert items as a transaction. Returns how many of them were not found here before. Without a change nothing is
        written.

        Raises `TypeError` for an item that is no text, and `ConstraintCrdtError` for invalid Unicode or a writer whose row has
        other dimensions under this name.
        """
        replica = writer(node)
        self._settle()
        own: BloomValue | None = self._own(replica)
        bits, hashes, _ = self.shape
        ours, set_now, news = dict[int, bytearray](), set[int](), 0
        for item in items:
            new = False
            for place in positions(item, hashes, bits):
                (number, at), bit = divmod(place >> 3, FILTER_PAGE_BYTES), 1 << (place & 7)
                if number not in ours:
                    ours[number] = bytearray(self._size(number))
                ours[number][at] |= bit
                if not self._union[place >> 3] & bit and place not in set_now:
                    set_now.add(place)
                    new = True
            news += new
        cells = self._own_changes(replica, ours)
        if cells and (news or own is None):
            before = own.inserted if own is not None else 0
            cells.append(make_cell(BLOOM, self.name, [*self.shape, min(MAX_COUNT, before + news)]))
        if cells:
            self._rows.write_all(replica, cells)
        return news

    def _own_changes(self, replica: Replica, ours: Mapping[int, bytearray]) -> list[Cell]:
        """The pages of the writer's own row changed by these bits, by the number of the page."""
        cells = []
        for number, fresh in sorted(ours.items()):
            before = self._own_page(replica, number)
            after = _either(before, fresh)
            if after != before:
                cells.append(self._page_cell(number, after))
        return cells

    def __repr__(self) -> str:
        return f"BloomCRDT(name={self.name!r}, bits={self.shape.bits}, hashes={self.shape.hashes}, expected={self.shape.expected})"


class Blooms(TableDirectory[BloomCRDT, BloomShape]):
    """The Bloom filters of a state by name."""

    def __init__(self, rows: Rows) -> None:
        super().__init__(rows, BloomCRDT, rows.limits.blooms, lambda name, shape: BloomCRDT(rows=rows, name=name, shape=shape))


def _either(one: bytes | bytearray, other: bytes | bytearray) -> bytes:
    """The bits of both, which have the same length."""
    return (int.from_bytes(one, "little") | int.from_bytes(other, "little")).to_bytes(len(one), "little")
