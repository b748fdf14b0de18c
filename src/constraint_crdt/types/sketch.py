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
"""

import heapq
import math
from array import array
from collections.abc import Mapping
from operator import add, sub
from struct import Struct
from typing import Final, NamedTuple, Self

import msgspec

from constraint_crdt.crdt.cells import make_cell, register, require, require_counts
from constraint_crdt.crdt.digest import Replica, check_id, writer
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

    @staticmethod
    def shape_of(header: SketchValue) -> SketchShape:
        return SketchShape(header.width, header.depth)

    def _over(self, rows: Rows) -> Self:
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
