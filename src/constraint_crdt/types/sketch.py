"""The count-min sketch (Cormode and Muthukrishnan, 2005): frequencies of very many items in a table of fixed size.

| kind | key | value |
|---|---|---|
| 10 SKETCH | sketch name | `[width, depth, total, [[frequent item, count], …], saturated]` |
| 11 SKETCH_PAGE | sketch name, page | bytes: this row's own counters, compressed |

Every row counts in a table of its own, and the reading is the *sum* of the tables. So an estimate is never below the truth, for
any number and order of merges, and the bound of the paper holds for the sum as for a single table: with probability 1 - `delta`,
an estimate exceeds the truth by at most `epsilon` of the total, for any item chosen beforehand.

A table does not name frequent items, so each row remembers up to `CANDIDATES` of its frequent items by name. An item with more
than 1/128 + epsilon of the counts of a row is among them, and an item with a share of the total has at least the same share in
some row. Rarer items are remembered as far as there is room.

The Bloom filter (Bloom, 1970): membership of very many items in a few bits each.

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

import heapq
import math
from array import array
from collections.abc import Iterable, Mapping
from operator import add, sub
from struct import Struct
from typing import Final, NamedTuple, Self

import msgspec

from constraint_crdt.crdt.cells import Cell, make_cell, register, require, require_counts
from constraint_crdt.crdt.clock import Replica, check_id, writer
from constraint_crdt.crdt.limits import CANDIDATES, MAX_COUNT, PAGE_BYTES, PAGES, real_number, whole_number
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.errors import ConstraintCrdtError, CountTooLarge, InvalidType, InvalidValue
from constraint_crdt.types.view import PagedView, TableDirectory, check_page, positions

SKETCH: Final = 10
SKETCH_PAGE: Final = 11

EPSILON: Final = 0.0005
DELTA: Final = 0.01

COUNTER_BYTES: Final = 4
COUNTER_MAX: Final = 2**32 - 1
"""The highest value of a counter in a row."""

PAGE_COUNTERS: Final = 512
CANDIDATE_BYTES: Final = 24 * 1024
"""The names remembered by a row, so they fit into a cell."""


class SketchValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of a SKETCH cell: the dimensions of the table, and the totals of a row."""

    width: int
    depth: int
    total: int
    """The sum of all counts in this row."""
    candidates: tuple[tuple[str, int], ...] = ()
    """Frequent items of this row, each with the estimate of the row."""
    saturated: bool = False
    """A counter of this row has reached the highest value, so estimates may be too low from there on."""


def _check_sketch(_: str, value: SketchValue) -> None:
    require(value.width > 0 < value.depth and value.width * value.depth * 4 <= PAGES * PAGE_BYTES, "the shape of a sketch")
    require(len(value.candidates) <= CANDIDATES, "the number of frequent items")
    for item, count in value.candidates:
        check_id(item, "a frequent item")
        require_counts((count,), "a count of a sketch")
    require_counts((value.total,), "a count of a sketch")


register(SKETCH, SketchValue, _check_sketch)
register(SKETCH_PAGE, bytes, check_page)


class SketchShape(NamedTuple):
    """The dimensions of a sketch."""

    width: int
    depth: int

    @classmethod
    def of(cls, epsilon: float, delta: float) -> "SketchShape":
        """For errors of at most `epsilon` of the total, but for a share `delta` of the items. Raises `ConstraintCrdtError`."""
        epsilon = real_number(epsilon, "the epsilon of a sketch")
        delta = real_number(delta, "the delta of a sketch")
        for what, number in (("epsilon", epsilon), ("delta", delta)):
            if not 0.0 < number < 1.0:  # NaN is in no range
                raise ConstraintCrdtError(f"the {what} of a sketch is a share above 0 and below 1, not {number!r}")
        shape = cls(math.ceil(math.e / max(epsilon, 1e-12)), math.ceil(-math.log(delta)))
        if shape.counters * COUNTER_BYTES > PAGES * PAGE_BYTES:
            raise ConstraintCrdtError(
                f"a sketch with epsilon {epsilon!r} and delta {delta!r} needs more than the {PAGES * PAGE_BYTES} bytes "
                "it may have: choose larger ones"
            )
        return shape

    @classmethod
    def default(cls) -> "SketchShape":
        """The default dimensions: 0.05 % of the total, but for 1 % of the items."""
        return cls.of(EPSILON, DELTA)

    @property
    def counters(self) -> int:
        """The number of counters in a table."""
        return self.width * self.depth


class Frequent(NamedTuple):
    """An item and its frequency."""

    item: str
    estimate: int
    """Never below the truth, unless a counter is saturated."""
    at_least: int
    """The estimate less the error bound: with probability 1 - delta not above the truth."""
    share: float
    """The estimate over the total."""


class SketchCRDT(PagedView[SketchShape]):
    """Estimated counts of items, summed over all writers. Recording and estimating are O(depth); more items take no more room."""

    KINDS = (SKETCH, SKETCH_PAGE)
    HEADER, PAGE, WHAT, MANY = SKETCH, SKETCH_PAGE, "sketch", "sketches"

    def __init__(
        self,
        epsilon: float = EPSILON,
        delta: float = DELTA,
        rows: Rows | None = None,
        *,
        name: str = "",
        shape: SketchShape | None = None,
    ) -> None:
        """`epsilon`, `delta`: see the module. `rows`, `name`: the rows to read; new rows if left out.

        `shape`: the dimensions, in place of the first two. Raises `TypeError` and `ConstraintCrdtError` for values out of bounds.
        """
        shape = shape or SketchShape.of(epsilon, delta)
        super().__init__(rows, name, shape, shape.counters * COUNTER_BYTES, PAGE_COUNTERS * COUNTER_BYTES)

    @classmethod
    def with_dims(cls, depth: int, width: int, rows: Rows | None = None, *, name: str = "") -> Self:
        """A sketch with so many rows of counters, each of a width. The others as for the class.

        Raises `TypeError` and `ConstraintCrdtError` for dimensions out of bounds.
        """
        shape = SketchShape(whole_number(width, "the width of a sketch"), whole_number(depth, "the depth of a sketch"))
        if not shape.width > 0 < shape.depth or shape.counters * COUNTER_BYTES > PAGES * PAGE_BYTES:
            raise ConstraintCrdtError(f"a sketch has 1 to {PAGES * PAGE_BYTES // COUNTER_BYTES} counters, not {depth} x {width}")
        return cls(rows=rows, name=name, shape=shape)

    @staticmethod
    def shape_of(header: SketchValue) -> SketchShape:
        return SketchShape(header.width, header.depth)

    def _with_rows(self, rows: Rows) -> Self:
        return type(self)(rows=rows, name=self.name, shape=self.shape)

    # --- readings --------------------------------------------------------------------------------------------------------

    @property
    def epsilon(self) -> float:
        """Of the table: at most the requested value."""
        return math.e / self.shape.width

    @property
    def delta(self) -> float:
        """Of the table: at most the requested value."""
        return math.exp(-self.shape.depth)

    @property
    def total(self) -> int:
        """The total of all items. Exact."""
        self._settle()
        return self._total

    @property
    def error_bound(self) -> float:
        """By how much an estimate exceeds the truth at most, with probability 1 - delta."""
        return self.epsilon * self.total

    @property
    def saturated(self) -> bool:
        """A counter of some row has reached 2**32 - 1, so estimates may be too low from there on."""
        self._settle()
        return self._saturated > 0

    @property
    def space_bytes(self) -> int:
        """Bytes of the summed table, doubled while the sum of a counter over all rows exceeds 32 bits."""
        self._settle()
        return len(self._table) * self._table.itemsize

    def estimate(self, item: str) -> int:
        """How often an item was recorded, by anyone: never too low (unless `saturated`), too high within the bound."""
        self._settle()
        table = self._table
        return min([table[place] for place in self._places(item)])

    def exceeds(self, item: str, threshold: int) -> bool:
        """True if the estimate of an item is `threshold` or more: for each item so frequent, and possibly for a rarer item."""
        return self.estimate(item) >= threshold

    def about(self, item: str) -> Frequent:
        """The estimate of an item with its bounds."""
        count, total = self.estimate(item), self.total
        return Frequent(item, count, max(0, count - math.floor(self.error_bound)), count / total if total else 0.0)

    def top(self, k: int = 10) -> list[Frequent]:
        """The `k` items with the highest estimates, of those remembered by some row; ties by name.

        O(remembered items). Raises `ValueError` for `k` below 1.
        """
        if k < 1:
            raise InvalidValue(f"the number of items to name must be 1 or more, not {k}")
        self._settle()
        table = self._table
        found = ((-min([table[place] for place in self._places(item)]), item) for item in self._remembered)
        return [self.about(item) for negative, item in heapq.nsmallest(k, found) if negative]

    def _places(self, item: str) -> list[int]:
        """The counters of an item, in each line of the table."""
        width, depth = self.shape
        return [line * width + place for line, place in enumerate(positions(item, depth, width))]

    # --- folding ---------------------------------------------------------------------------------------------------------

    def _empty(self) -> None:
        self._table: array[int] = array("I", bytes(self._table_bytes))
        self._total = self._saturated = 0
        self._remembered: dict[str, int] = {}  # by how many rows

    def _fold_header(self, old: SketchValue | None, new: SketchValue | None) -> None:
        for value, sign in ((old, -1), (new, +1)):
            if value is None:
                continue
            self._total += sign * value.total
            self._saturated += sign * value.saturated
            for item in {item for item, _ in value.candidates}:
                rows = self._remembered[item] = self._remembered.get(item, 0) + sign
                if not rows:
                    del self._remembered[item]

    def _fold_page(self, number: int, old: bytes | None, new: bytes | None) -> None:
        size = self._size(number)
        start = number * PAGE_COUNTERS
        sums: list[int] = self._table[start : start + size // COUNTER_BYTES].tolist()
        if old is not None:
            sums = list(map(sub, sums, _counters(old)))
        if new is not None:
            sums = list(map(add, sums, _counters(new)))
        if self._table.itemsize == COUNTER_BYTES and max(sums) > COUNTER_MAX:
            self._table = array("Q", self._table)
        self._table[start : start + len(sums)] = array(self._table.typecode, sums)

    def _settle(self) -> None:
        super()._settle()
        if self._table.itemsize > COUNTER_BYTES and max(self._table) <= COUNTER_MAX:  # an intermediate sum was larger
            self._table = array("I", self._table)

    # --- writing ---------------------------------------------------------------------------------------------------------

    def record(self, item: str, count: int = 1, *, node: str | Replica) -> None:
        """Count an item so many times. Raises as `record_all` does."""
        self.record_all({item: count}, node=node)

    def record_all(self, counts: Mapping[str, int], *, node: str | Replica, saturate: bool = False) -> None:
        """Count many items as a transaction. Zero counts write nothing. `saturate`: cap a total at 2**63 - 1, in place of an error.

        Raises `TypeError` for an item that is no text or a number that is not whole, `ValueError` for a negative number and
        `ConstraintCrdtError` for an empty item or more than 256 bytes, a total beyond 2**63 - 1, and a writer whose row has other
        dimensions under this name.
        """
        replica = writer(node)
        counted = {item: count for item, count in _checked(counts).items() if count}
        if not counted:
            return
        own: SketchValue = self._own(replica) or SketchValue(*self.shape, total=0)
        total = own.total + sum(counted.values())
        if total > MAX_COUNT and not saturate:
            raise CountTooLarge("what a sketch counts in all cannot exceed 2**63 - 1")
        places = {item: self._places(item) for item in counted}
        pages, full = self._raised(replica, counted, places)
        estimates = dict(own.candidates)
        for item, at in places.items():
            estimates[item] = min([pages[place // PAGE_COUNTERS][place % PAGE_COUNTERS] for place in at])
        header = [*self.shape, min(total, MAX_COUNT), _most_frequent(estimates), own.saturated or full]
        cells = [self._page_cell(number, _planes(counters)) for number, counters in sorted(pages.items())]
        self._rows.write_all(replica, [*cells, make_cell(SKETCH, self.name, header)])

    def _raised(
        self, replica: Replica, counted: Mapping[str, int], places: Mapping[str, list[int]]
    ) -> tuple[dict[int, list[int]], bool]:
        """The changed pages of the writer after counting, and whether a counter reached its highest value."""
        pages: dict[int, list[int]] = {}
        full = False
        for item, count in counted.items():
            for place in places[item]:
                number, at = divmod(place, PAGE_COUNTERS)
                if number not in pages:
                    pages[number] = _counters(self._own_page(replica, number))
                raised = pages[number][at] + count
                if raised >= COUNTER_MAX:
                    raised, full = COUNTER_MAX, True
                pages[number][at] = raised
        return pages, full

    def __repr__(self) -> str:
        return f"SketchCRDT(name={self.name!r}, width={self.shape.width}, depth={self.shape.depth}, total={self.total})"


class Sketches(TableDirectory[SketchCRDT, SketchShape]):
    """The sketches of a state by name."""

    def __init__(self, rows: Rows) -> None:
        super().__init__(rows, SketchCRDT, rows.limits.sketches, lambda name, shape: SketchCRDT(rows=rows, name=name, shape=shape))


def _checked(counts: Mapping[str, int]) -> dict[str, int]:
    checked = {}
    for item, count in counts.items():
        if not isinstance(item, str):
            raise InvalidType(f"an item is a text, not {item!r}")
        checked[check_id(item, "an item")] = whole_number(count, "a count")
        if checked[item] < 0:
            raise InvalidValue(f"counts only grow: the number to record of {item!r} cannot be negative")
    return checked


def _most_frequent(estimates: Mapping[str, int]) -> list[tuple[str, int]]:
    """The items to remember, as many as there is room for: those of the highest estimates, ties by name."""
    best = sorted([(-count, item) for item, count in estimates.items()])[:CANDIDATES]  # fast: those of before come first, in order
    room = CANDIDATE_BYTES
    remembered = []
    for negative, item in best:
        room -= len(item.encode())
        if room < 0:
            break
        remembered.append((item, -negative))
    return remembered


def _counters(content: bytes) -> list[int]:
    """The counters of a page."""
    count = len(content) // COUNTER_BYTES
    whole = bytearray(len(content))
    for plane in range(COUNTER_BYTES):
        whole[plane::COUNTER_BYTES] = content[plane * count : (plane + 1) * count]
    return list(Struct(f"<{count}I").unpack(whole))


def _planes(counters: list[int]) -> bytes:
    """A page of counters: all lowest bytes first, then all second ones, and so on. Most counts are small, and zeros deflate."""
    whole = Struct(f"<{len(counters)}I").pack(*counters)
    return b"".join([whole[plane::COUNTER_BYTES] for plane in range(COUNTER_BYTES)])


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

    @classmethod
    def with_params(cls, bits: int, hashes: int, rows: Rows | None = None, *, name: str = "") -> Self:
        """A filter with so many bits and hashes, for as many items as fill half of the bits. The others as for the class.

        Raises `TypeError` and `ConstraintCrdtError` for values out of bounds.
        """
        bits, hashes = whole_number(bits, "the bits of a filter"), whole_number(hashes, "the hashes of a filter")
        if not (0 < bits <= PAGES * PAGE_BYTES * 8 and 0 < hashes <= HASHES_MAX):
            most = f"1 to {PAGES * PAGE_BYTES * 8} bits and 1 to {HASHES_MAX} hashes"
            raise ConstraintCrdtError(f"a filter has {most}, not {bits} and {hashes}")
        shape = BloomShape(bits, hashes, max(1, round(bits * math.log(2) / hashes)))
        return cls(rows=rows, name=name, shape=shape)

    @staticmethod
    def shape_of(header: BloomValue) -> BloomShape:
        return BloomShape(header.bits, header.hashes, header.expected)

    def _with_rows(self, rows: Rows) -> Self:
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
