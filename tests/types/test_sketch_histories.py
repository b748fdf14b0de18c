"""`SketchCRDT` against a plain model over random histories, and against cells that nobody of ours would write."""

import os
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constraint_crdt import ConstraintCrdtError, ConstraintState, Replica
from constraint_crdt.crdt.cells import make_cell, make_key, read_cell
from constraint_crdt.crdt.repair import rebuild
from constraint_crdt.types import SketchCRDT
from constraint_crdt.types.sketch import SKETCH, SKETCH_PAGE, SketchShape
from constraint_crdt.types.view import pack_page, positions

from .tables import NODES, History, Step, play, steps

HISTORIES = 2000 if os.environ.get("CONSTRAINT_CRDT_BUDGET") == "nightly" else 8
ITEMS = [f"item-{number}" for number in range(12)]
SHAPES = [(0.3, 0.3), (0.004, 0.1)]
"""One so narrow that items collide all the time, and one of several pages."""

writes = st.dictionaries(st.sampled_from(ITEMS), st.integers(0, 5) | st.just(2**31), max_size=4)


@pytest.mark.slow
@settings(max_examples=HISTORIES)
@given(st.sampled_from(SHAPES), steps(writes))
def test_it_reads_what_a_plain_table_of_all_known_counts_reads(shape: tuple[float, float], moves: list[Step]) -> None:
    history = History()
    sketches = {node: history.states[node].sketch("s", *shape) for node in NODES}
    width, depth = sketches["a"].shape

    def write(node: str, counts: dict[str, int]) -> None:
        sketches[node].record_all(counts, node=node)
        history.wrote(node, counts)

    def check(node: str) -> None:
        known: list[dict[str, int]] = history.known_writes(node)
        truth: Counter[str] = Counter()
        for counts in known:
            truth.update(counts)
        per_writer = {writer: _table(history.written[writer][: history.known[node][writer]], width, depth) for writer in NODES}
        table: Counter[tuple[int, int]] = Counter()
        for counters in per_writer.values():
            table.update({place: min(count, 2**32 - 1) for place, count in counters.items()})
        sketch = sketches[node]
        assert sketch.total == truth.total()
        for item in ITEMS:
            assert sketch.estimate(item) == min(table[place] for place in _places(item, width, depth))
        full = any(count >= 2**32 - 1 for counters in per_writer.values() for count in counters.values())
        assert sketch.saturated == full
        if not full:
            assert all(sketch.estimate(item) >= truth[item] for item in ITEMS)
        estimates = sorted((-sketch.estimate(item), item) for item in ITEMS if truth[item])
        assert [(-each.estimate, each.item) for each in sketch.top(5)] == estimates[:5]

    play(history, moves, write, check)
    assert sketches["a"] == sketches["b"] == sketches["c"]


def _places(item: str, width: int, depth: int) -> list[tuple[int, int]]:
    return list(enumerate(positions(item, depth, width)))


def _table(writes: list[dict[str, int]], width: int, depth: int) -> Counter[tuple[int, int]]:
    table: Counter[tuple[int, int]] = Counter()
    for counts in writes:
        for item, count in counts.items():
            for place in _places(item, width, depth):
                table[place] += count
    return table


# --- cells that nobody of ours would write ------------------------------------------------------------------------------

SHAPE = SketchShape(680, 2)
"""Three pages, the last of them shorter."""
COUNT = st.sampled_from([0, 1, 7, 2**32 - 1])
header = st.builds(
    lambda shape, total, items, full: (SKETCH, "s", [*shape, total, items, full]),
    st.sampled_from([SHAPE, SHAPE, SHAPE, SketchShape(9, 1), SketchShape(1, 1)]),
    st.sampled_from([0, 5, 2**63 - 1]),
    st.lists(st.tuples(st.sampled_from(ITEMS), COUNT), max_size=3),
    st.booleans(),
)
content = st.one_of(
    st.builds(lambda size, count: pack_page(count.to_bytes(4, "big") * (size // 4)), st.sampled_from([1344, 2048, 2052, 4]), COUNT),
    st.binary(min_size=1, max_size=20),
)
page = st.builds(
    lambda name, number, data: (SKETCH_PAGE, make_key(name, number), data),
    st.sampled_from(["s", "s", "s", "t", ""]),
    st.sampled_from(["0", "1", "2", "2", "3", "02", "-1", "", "x", "9" * 400]),
    content,
)
foreign = st.lists(st.tuples(st.sampled_from(NODES), header | page), min_size=1, max_size=25)


def _reading(sketch: SketchCRDT) -> tuple[Any, ...]:
    estimates = [sketch.estimate(item) for item in ITEMS]
    numbers = (sketch.total, sketch.saturated, sketch.writers, sketch.ignored_writers, sketch.unreadable_pages, sketch.space_bytes)
    return (*numbers, estimates, sketch.top(20))


def _opened(state: ConstraintState) -> SketchCRDT:
    return SketchCRDT(rows=state.rows.copy(), name="s", shape=SHAPE)


@pytest.mark.slow
@settings(max_examples=HISTORIES)
@given(foreign, st.permutations(NODES), st.data())
def test_any_cells_read_the_same_in_whatever_order_they_come(written: list[Any], order: list[str], data: st.DataObject) -> None:
    source, early = ConstraintState(), ConstraintState()
    watched = SketchCRDT(rows=source.rows, name="s", shape=SHAPE)
    following = SketchCRDT(rows=early.rows, name="s", shape=SHAPE)
    for node, (kind, key, value) in written:
        source.rows.write(Replica(node, 1), read_cell(make_cell(kind, key, value).data))
        if data.draw(st.booleans()):
            _reading(watched)
        if data.draw(st.booleans()):
            early.merge(source)
            if data.draw(st.booleans()):
                _reading(following)
    early.merge(source)
    reading = _reading(watched)
    assert reading == _reading(following) == _reading(_opened(source))
    by_rows = ConstraintState()
    late = SketchCRDT(rows=by_rows.rows, name="s", shape=SHAPE)
    for node in order:
        by_rows.rows.apply([run for run in source.rows.whole() if run.replica.node_id == node])
    assert reading == _reading(late)
    lost = data.draw(st.lists(st.sampled_from(list(source.rows.live_cells()))))
    rebuild(source.rows, [cell for cell in source.rows.live_cells() if cell not in lost])
    assert _reading(watched) == _reading(_opened(source)), "after a repair"
    assert sorted(source.sketches) == sorted(ConstraintState(source.rows.copy()).sketches)


@pytest.mark.slow
@settings(max_examples=HISTORIES)
@given(foreign)
def test_a_name_means_the_same_table_on_every_node(written: list[Any]) -> None:
    state = ConstraintState()
    for node, (kind, key, value) in written:
        state.rows.write(Replica(node, 1), read_cell(make_cell(kind, key, value).data))
        fresh = ConstraintState(state.rows.copy())
        assert list(state.sketches) == list(fresh.sketches)
        if "s" in state.sketches:
            assert state.sketches["s"].shape == fresh.sketches["s"].shape
            assert _reading(state.sketches["s"]) == _reading(fresh.sketches["s"])


def test_a_page_under_a_number_that_is_written_otherwise_is_no_page() -> None:
    state = ConstraintState()
    sketch = SketchCRDT(rows=state.rows, name="s", shape=SHAPE)
    state.rows.write(Replica("a", 1), make_cell(SKETCH, "s", [*SHAPE, 2]))
    for number, count in (("1", 1), ("01", 1), ("01", 9), ("1 ", 5), ("+1", 5)):
        page = pack_page(bytes([count]) * 2048)
        state.rows.write(Replica("a", 1), make_cell(SKETCH_PAGE, make_key("s", number), page))
        assert _reading(sketch) == _reading(_opened(state))


def test_the_summed_table_is_wide_only_while_a_sum_needs_it() -> None:
    state = ConstraintState()
    sketch = SketchCRDT(rows=state.rows, name="s", shape=SHAPE)
    narrow = sketch.space_bytes
    for node in "ab":
        state.rows.write(Replica(node, 1), make_cell(SKETCH, "s", [*SHAPE, 2]))
        state.rows.write(Replica(node, 1), make_cell(SKETCH_PAGE, make_key("s", "0"), pack_page(b"\xff" * 2048)))
    assert sketch.space_bytes == 2 * narrow
    state.rows.write(Replica("b", 1), make_cell(SKETCH_PAGE, make_key("s", "0"), pack_page(bytes(2048))))
    assert sketch.space_bytes == narrow
    assert _reading(sketch) == _reading(_opened(state))


def test_a_write_over_rows_that_others_forged_counts_on_top_of_what_is_readable() -> None:
    state = ConstraintState()
    me = Replica("a", 1)
    state.rows.write(me, read_cell(make_cell(SKETCH_PAGE, make_key("s", "0"), b"nonsense").data))
    state.rows.write(me, read_cell(make_cell(SKETCH, "s", [*SHAPE, 2**63 - 2]).data))
    sketch = SketchCRDT(rows=state.rows, name="s", shape=SHAPE)
    assert (sketch.unreadable_pages, sketch.estimate("x")) == (1, 0)
    sketch.record("x", node=me)
    assert (sketch.estimate("x"), sketch.total) == (1, 2**63 - 1)
    with pytest.raises(ConstraintCrdtError, match="2\\*\\*63 - 1"):
        sketch.record("x", node=me)
    assert sketch.estimate("x") == 1
