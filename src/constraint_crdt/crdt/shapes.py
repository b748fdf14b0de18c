"""The shape of a cell of each kind on the wire, and the bounds that its value keeps.

What every cell read from bytes has passed (`SHAPES`), so that nothing that follows from applying one can fail.

Bounds are checked here, not declared with `msgspec.Meta`: with it, building a decoder crashes the interpreter when the collector
runs at the wrong moment (msgspec issue 717, seen with 0.22.0 on CPython 3.11).
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec

from constraint_crdt.crdt.limits import (
    ABOUT_BYTES,
    CANDIDATES,
    DURATION_MAX,
    HALF_LIVES,
    ID_BYTES,
    LABELS,
    MAX_COUNT,
    PAGE_BYTES,
    PAGES,
    TILE_BYTES,
)
from constraint_crdt.crdt.replica import check_id, check_replica
from constraint_crdt.crdt.values import (
    ADD,
    APPLIED,
    BLOOM,
    BLOOM_PAGE,
    CONTENT,
    CONTENT_HASH_BYTES,
    CONTENT_PAGE,
    COUNTER,
    COUNTS,
    DECAY,
    DELETED,
    ELEMENT,
    INCREMENTS,
    NODE,
    POSITION,
    RATE,
    REMOVABLE,
    REMOVE,
    RETIRE,
    SEVERITIES,
    SKETCH,
    SKETCH_PAGE,
    STRETCH_LEVELS,
    TILE,
    TILE_COUNTS,
    TILE_POSITION,
    TOMBSTONES,
    AppliedValue,
    BloomValue,
    ContentValue,
    DecayValue,
    DefinitionValue,
    DeletedValue,
    Interval,
    Label,
    NodeValue,
    PositionValue,
    RateValue,
    RemovedValue,
    RetireValue,
    SketchValue,
    TileValue,
    WireDot,
)
from constraint_crdt.errors import ConstraintCrdtError


class _Tail(msgspec.Struct, array_like=True, gc=False, kw_only=True):
    tag: bytes | None = None


class AddCell(_Tail):
    kind: int
    key: str
    value: DefinitionValue | None = None


class RemoveCell(_Tail):
    kind: int
    key: None
    value: tuple[RemovedValue, ...]


class CountsCell(_Tail):
    kind: int
    key: str
    value: int | tuple[int, int]

    @property
    def counts(self) -> tuple[int, int]:
        return (self.value, 0) if isinstance(self.value, int) else self.value


class PositionCell(_Tail):
    kind: int
    key: str
    value: PositionValue


class NodeCell(_Tail):
    kind: int
    key: str
    value: NodeValue


class RetireCell(_Tail):
    kind: int
    key: str
    value: RetireValue


class PairCell(_Tail):
    """COUNTER, TILE_COUNTS and INCREMENTS: two counts."""

    kind: int
    key: str
    value: tuple[int, int]


class DecayCell(_Tail):
    kind: int
    key: str
    value: DecayValue


class RateCell(_Tail):
    kind: int
    key: str
    value: RateValue


class SketchCell(_Tail):
    kind: int
    key: str
    value: SketchValue


class BloomCell(_Tail):
    kind: int
    key: str
    value: BloomValue


class PageCell(_Tail):
    """SKETCH_PAGE, BLOOM_PAGE and CONTENT_PAGE: a stretch of bytes."""

    kind: int
    key: str
    value: bytes


class TileCell(_Tail):
    kind: int
    key: str
    value: TileValue


class ContentCell(_Tail):
    kind: int
    key: str
    value: ContentValue


class ElementCell(_Tail):
    """ELEMENT: in a tile's set while it stands; one by foreign tags while not all of these are under TOMBSTONES."""

    kind: int
    key: str
    value: tuple[tuple[str, int], ...] = ()


class TombstonesCell(_Tail):
    kind: int
    key: str
    value: tuple[Interval, ...]


class DeletedCell(_Tail):
    kind: int
    key: str
    value: DeletedValue


class AppliedCell(_Tail):
    kind: int
    key: str
    value: AppliedValue


class UnknownCell(_Tail):
    kind: int
    key: str | None
    value: msgspec.Raw = msgspec.Raw()


# --- bounds ------------------------------------------------------------------------------------------------------------


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise ConstraintCrdtError(f"{what} is out of bounds")


def _counted(numbers: Iterable[int], what: str) -> None:
    _require(all(0 <= number <= MAX_COUNT for number in numbers), what)


def _check_labels(labels: Sequence[Label]) -> None:
    _require(len(labels) <= LABELS, "the number of labels")
    _require(all(before[0] < after[0] for before, after in itertools.pairwise(labels)), "the order of labels")
    for each in labels:
        for text in each:
            check_id(text, "a part of a label")


def _check_add(cell: AddCell) -> None:
    value = cell.value
    if value is not None:
        _require(0 <= value.severity < SEVERITIES, "the severity of a definition")
        _require(value.about is None or len(value.about.encode()) <= ABOUT_BYTES, "the text of a definition")
        if value.on:
            _check_labels(value.on)
        _counted((value.expires_at or 0, value.added_at or 0), "a time of a definition")


def _check_dots(dots: Iterable[WireDot]) -> None:
    for dot in dots:
        check_replica(dot.node_id, dot.incarnation)
        _require(0 <= dot.seq <= MAX_COUNT, "the seq of a dot")


def _check_remove(cell: RemoveCell) -> None:
    for removed in cell.value:
        _require(removed.kind in REMOVABLE, "the kind of what is removed")
        if removed.kind in (ADD, COUNTS):
            check_id(removed.key, "the key of what is removed")
        _check_dots(removed.dots)


def _check_counts(cell: CountsCell) -> None:
    _counted(cell.counts, "a count")


def _check_pair(cell: PairCell) -> None:
    _counted(cell.value, "a count")


def _check_position(cell: PositionCell) -> None:
    value = cell.value
    _require(not cell.key or cell.kind != POSITION, "the key of a position")
    _require(min(value.a, value.b) >= -(2**31) and max(value.a, value.b) < 2**31, "a coordinate of a position")
    _counted((value.time,), "the time of a position")
    _require(len(value.by.encode()) <= ID_BYTES, "the name of who wrote a position")
    _check_dots(value.overwrites)


def _check_node(cell: NodeCell) -> None:
    _require(not cell.key, "the key of a node's word on itself")
    _require(len(cell.value.software.encode()) <= ID_BYTES, "the software version of a node")
    _counted((cell.value.wire,), "the wire version of a node")
    _check_labels(cell.value.labels)


def _check_retire(cell: RetireCell) -> None:
    _require(bool(cell.value.lives), "the number of lives retired")
    _check_dots(cell.value.lives)


def _check_decayed(time: int, values: Sequence[tuple[float, ...]]) -> None:
    _counted((time,), "the time of a decaying value")
    _require(0 < len(values) <= HALF_LIVES, "the number of half-lives")
    for half_life, *numbers in values:
        _require(0.0 < half_life <= DURATION_MAX, "a half-life")  # NaN is in no range
        _require(all(0.0 <= number <= float(MAX_COUNT) for number in numbers), "a decaying value")


def _check_decay(cell: DecayCell) -> None:
    _check_decayed(cell.value.time, [(each.half_life, each.value) for each in cell.value.values])


def _check_rate(cell: RateCell) -> None:
    _check_decayed(cell.value.time, [(each.half_life, each.satisfied, each.violated) for each in cell.value.values])


def _check_sketch(cell: SketchCell) -> None:
    value = cell.value
    _require(value.width > 0 < value.depth and value.width * value.depth * 4 <= PAGES * PAGE_BYTES, "the shape of a sketch")
    _require(len(value.candidates) <= CANDIDATES, "the number of frequent items")
    for item, _ in value.candidates:
        check_id(item, "a frequent item")
    _counted((value.total, *(count for _, count in value.candidates)), "a count of a sketch")


def _check_bloom(cell: BloomCell) -> None:
    value = cell.value
    _require(0 < value.bits <= PAGES * PAGE_BYTES * 8 and 0 < value.hashes <= 64, "the shape of a Bloom filter")
    _counted((value.expected, value.inserted), "a count of a Bloom filter")


def _check_page(cell: PageCell) -> None:
    _require(0 < len(cell.value) <= PAGE_BYTES, "the size of a page")


def _check_tile(cell: TileCell) -> None:
    _counted((cell.value.created,), "the time at which a tile was created")
    _require(len(cell.value.author.encode()) <= ID_BYTES, "the author of a tile")


def _check_content(cell: ContentCell) -> None:
    value = cell.value
    _counted((value.time,), "the time of a content")
    _require(0 <= value.size <= TILE_BYTES, "the size of a content")
    _require(len(value.hash) == CONTENT_HASH_BYTES, "the hash of a content")


def _check_element(cell: ElementCell) -> None:
    for node, seq in cell.value:
        check_id(node, "the node of a tag")
        _counted((seq,), "the seq of a tag")


def _check_intervals(intervals: Sequence[Interval]) -> None:
    flat = [end for interval in intervals for end in interval]
    _counted(flat, "a seq of a stretch")
    _require(all(lo <= hi for lo, hi in intervals), "a stretch")
    _require(all(before[1] < after[0] for before, after in itertools.pairwise(intervals)), "the order of stretches")


def _check_tombstones(cell: TombstonesCell) -> None:
    _check_intervals(cell.value)


def _check_deleted(cell: DeletedCell) -> None:
    _counted((cell.value.time,), "the time of a deletion")
    _check_dots(cell.value.seen)


def _check_applied(cell: AppliedCell) -> None:
    free = 0
    for stretch in cell.value:
        _counted((stretch.first, stretch.satisfied, stretch.violated), "a number of a stretch of increments")
        _require(0 <= stretch.level <= STRETCH_LEVELS, "the level of a stretch of increments")
        size = 1 << stretch.level
        _require(free <= stretch.first and stretch.first % size == 0, "the first seq of a stretch of increments")
        free = stretch.first + size


SHAPES: Final[dict[int, tuple[type[Any], Callable[[Any], None]]]] = {
    ADD: (AddCell, _check_add),
    REMOVE: (RemoveCell, _check_remove),
    COUNTS: (CountsCell, _check_counts),
    POSITION: (PositionCell, _check_position),
    NODE: (NodeCell, _check_node),
    RETIRE: (RetireCell, _check_retire),
    COUNTER: (PairCell, _check_pair),
    DECAY: (DecayCell, _check_decay),
    RATE: (RateCell, _check_rate),
    SKETCH: (SketchCell, _check_sketch),
    SKETCH_PAGE: (PageCell, _check_page),
    BLOOM: (BloomCell, _check_bloom),
    BLOOM_PAGE: (PageCell, _check_page),
    TILE: (TileCell, _check_tile),
    CONTENT: (ContentCell, _check_content),
    CONTENT_PAGE: (PageCell, _check_page),
    ELEMENT: (ElementCell, _check_element),
    TOMBSTONES: (TombstonesCell, _check_tombstones),
    TILE_COUNTS: (PairCell, _check_pair),
    TILE_POSITION: (PositionCell, _check_position),
    DELETED: (DeletedCell, _check_deleted),
    INCREMENTS: (PairCell, _check_pair),
    APPLIED: (AppliedCell, _check_applied),
}
"""The shape of a cell of each kind, and what its value must hold beyond that."""
