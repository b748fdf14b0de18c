"""Sketches, Bloom filters, tiles and increments for the law checker. Tables are small and items few, so items share counters and
bits."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from constraint_crdt.crdt.rows import Rows
from constraint_crdt.testing.adversarial import forged_cells, over_rows, rows_of
from constraint_crdt.testing.histories import Laws
from constraint_crdt.types.bloom import BloomCRDT, BloomShape
from constraint_crdt.types.increments import RoomIncrements
from constraint_crdt.types.sketch import SketchCRDT, SketchShape
from constraint_crdt.types.tiles import FleetTile

ITEMS = ("p", "q", "r", "s")
SKETCH = SketchShape(4, 2)
BLOOM = BloomShape(16, 2, 4)

recorded = st.tuples(st.sampled_from(ITEMS), st.integers(1, 3))
inserted = st.sampled_from(ITEMS)


def record(sketch: SketchCRDT, name: str, step: tuple[str, int]) -> None:
    """Count an item."""
    sketch.record(*step, node=name)


def _not_below(sketch: SketchCRDT, done: Sequence[tuple[str, tuple[str, int]]]) -> bool:
    truth = Counter[str]()
    for _, (item, times) in done:
        truth[item] += times
    total = truth.total()
    return sketch.total == total and all(truth[item] <= sketch.estimate(item) <= total for item in ITEMS)


def read_sketch(sketch: SketchCRDT) -> object:
    """All readings of a sketch."""
    estimates = {item: sketch.estimate(item) for item in ITEMS}
    return sketch.total, estimates, sketch.top(), sketch.saturated, sketch.writers, sketch.ignored_writers, sketch.unreadable_pages


def sketch_laws() -> Laws[SketchCRDT, Any]:
    """`SketchCRDT`. Liars use tables of other dimensions too."""

    def other() -> SketchCRDT:
        return SketchCRDT(shape=SketchShape(3, 1))

    return over_rows(
        lambda rows: SketchCRDT(rows=rows, shape=SKETCH),
        recorded,
        record,
        read_sketch,
        pool=st.one_of(
            forged_cells(lambda: SketchCRDT(rows=Rows(), shape=SKETCH), record, rows_of, recorded),
            st.tuples(
                forged_cells(other, record, rows_of, recorded),
                forged_cells(lambda: SketchCRDT(shape=SKETCH), record, rows_of, recorded),
            ).map(lambda pools: [*pools[0], *pools[1]]),
        ),
        accounts_for=_not_below,
        canonical=True,
    )


def insert(bloom: BloomCRDT, name: str, item: str) -> None:
    """Put an item in."""
    bloom.insert(item, node=name)


def _found(bloom: BloomCRDT, done: Sequence[tuple[str, str]]) -> bool:
    return all(item in bloom for _, item in done)


def read_bloom(bloom: BloomCRDT) -> object:
    """All readings of a filter."""
    found = {item: item in bloom for item in ITEMS}
    return found, bloom.inserted, bloom.filled, bloom.estimated_fpr, bloom.estimated_items, bloom.writers, bloom.ignored_writers


def bloom_laws() -> Laws[BloomCRDT, Any]:
    """`BloomCRDT`. Liars use filters of other dimensions too."""

    def other() -> BloomCRDT:
        return BloomCRDT(shape=BloomShape(8, 1, 4))

    def ours() -> BloomCRDT:
        return BloomCRDT(shape=BLOOM)

    return over_rows(
        lambda rows: BloomCRDT(rows=rows, shape=BLOOM),
        inserted,
        insert,
        read_bloom,
        pool=st.tuples(forged_cells(other, insert, rows_of, inserted), forged_cells(ours, insert, rows_of, inserted)).map(
            lambda pools: [*pools[0], *pools[1]]
        ),
        accounts_for=_found,
        canonical=True,
    )


ROOM, ID = "hall", "t"
LABELS = ("k", "l")

_time = st.integers(0, 3)
_label = st.sampled_from(LABELS)
_numbers = st.tuples(st.integers(0, 3), st.integers(0, 3))
tile_steps = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(("", "one", "two" * 1500)), _time),
    st.tuples(st.just("delete")),
    st.tuples(st.just("restore")),
    st.tuples(st.just("purge")),
    st.tuples(st.sampled_from(("tag", "untag", "constrain", "release")), _label),
    st.tuples(st.just("foreign tag"), _label, st.tuples(st.sampled_from(("f", "g")), st.integers(1, 3))),
    st.tuples(st.just("bury"), st.tuples(st.sampled_from(("f", "g")), st.integers(1, 3))),
    st.tuples(st.just("count"), _numbers),
    st.tuples(st.just("foreign count"), st.sampled_from(("f", "g")), _numbers),
    st.tuples(st.just("move"), st.tuples(st.integers(-2, 2), st.integers(-2, 2)), _time),
    st.tuples(st.just("collect")),
)


def change_tile(tile: FleetTile, name: str, step: tuple[Any, ...]) -> None:
    """Apply a step, if the tile allows it."""
    match step:
        case ("put", content, time):
            tile.put(content, node=name, time=time)
        case ("delete",) if tile.exists:
            tile.delete(node=name)
        case ("restore",) if tile.deleted:
            tile.restore(node=name)
        case ("purge",) if tile.exists or tile.deleted:
            tile.purge(node=name)
        case ("move", position, time):
            tile.update_position(position, node=name, time=time)
        case ("collect",):
            tile._rows.collect()
        case _:
            _change_parts(tile, name, step)


def _change_parts(tile: FleetTile, name: str, step: tuple[Any, ...]) -> None:
    match step:
        case ("tag", label):
            tile.tags.add(label, node=name)
        case ("untag", label) if label in tile.tags:
            tile.tags.remove(label, node=name)
        case ("constrain", label):
            tile.constraints.add(label, node=name)
        case ("release", label) if label in tile.constraints:
            tile.constraints.remove(label, node=name)
        case ("foreign tag", label, tag):
            tile.constraints.add_foreign(label, [tag], node=name)
        case ("bury", tag):
            tile.constraints.bury([tag], node=name)
        case ("count", (satisfied, violated)):
            tile.metrics.record(name, satisfied, violated)
        case ("foreign count", who, (satisfied, violated)):
            tile.metrics.record_foreign(who, satisfied, violated, node=name)


def read_tile(tile: FleetTile) -> object:
    """All readings of a tile."""
    return (
        (tile.exists, tile.deleted, tile.content[:8], tile.size, tile.content_hash.hex()[:8], tile.verify_integrity()),
        (tile.created, tile.author, tile.updated, tile.writer),
        (sorted(tile.tags), {each: sorted(tile.constraints.tags_of(each)) for each in sorted(tile.constraints)}),
        tile.constraints.tombstones(),
        (tile.metrics.total, tile.metrics.by_node()),
        (tile.position, tile.norm, tile.position_time, tile.position_by),
    )


def tile_laws() -> Laws[FleetTile, Any]:
    """`FleetTile`."""
    return over_rows(lambda rows: FleetTile(ROOM, ID, rows), tile_steps, change_tile, read_tile)


foreign_counts = st.tuples(st.sampled_from(("f", "g")), st.integers(1, 6), _numbers)


def apply_increment(increments: RoomIncrements, name: str, step: tuple[str, int, tuple[int, int]]) -> None:
    """Take in the increment of a foreign node."""
    foreign, seq, (satisfied, violated) = step
    increments.apply(ROOM, foreign, seq, satisfied, violated, node=name)


def read_increments(increments: RoomIncrements) -> object:
    """All readings of the counts of foreign nodes."""
    known = [(foreign, seq) for foreign in ("f", "g") for seq in range(1, 7) if increments.knows(ROOM, foreign, seq)]
    return increments.rooms, increments.by_node(ROOM), increments.total(ROOM), known


def increments_laws() -> Laws[RoomIncrements, Any]:
    """`RoomIncrements`."""

    def knows_all(increments: RoomIncrements, done: Sequence[tuple[str, tuple[str, int, Any]]]) -> bool:
        return all(increments.knows(ROOM, foreign, seq) for _, (foreign, seq, _) in done)

    return over_rows(
        lambda rows: RoomIncrements(rows or Rows()), foreign_counts, apply_increment, read_increments, accounts_for=knows_all
    )
