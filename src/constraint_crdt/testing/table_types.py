"""Sketches and Bloom filters, as the checker sees them: small ones, with few items, so that items share counters and bits."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from constraint_crdt.core.rows import Rows
from constraint_crdt.testing.adversarial import forged
from constraint_crdt.testing.description import Laws
from constraint_crdt.testing.over_rows import over_rows, rows_of
from constraint_crdt.types.bloom import BloomCRDT, BloomShape
from constraint_crdt.types.sketch import SketchCRDT, SketchShape

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
            forged(lambda: SketchCRDT(rows=Rows(), shape=SKETCH), record, rows_of, recorded),
            st.tuples(
                forged(other, record, rows_of, recorded), forged(lambda: SketchCRDT(shape=SKETCH), record, rows_of, recorded)
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
        pool=st.tuples(forged(other, insert, rows_of, inserted), forged(ours, insert, rows_of, inserted)).map(
            lambda pools: [*pools[0], *pools[1]]
        ),
        accounts_for=_found,
        canonical=True,
    )
