"""`BloomCRDT` against a plain set of bits over random histories, and against cells that nobody of ours would write."""

import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constraint_crdt import ConstraintState, Replica
from constraint_crdt.crdt.cells import make_cell, make_key, read_cell
from constraint_crdt.crdt.repair import rebuild
from constraint_crdt.types import BloomCRDT
from constraint_crdt.types.sketch import BLOOM, BLOOM_PAGE, BloomShape
from constraint_crdt.types.view import pack_page, positions

from .tables import NODES, History, Step, play, steps

HISTORIES = 2000 if os.environ.get("CONSTRAINT_CRDT_BUDGET") == "nightly" else 8
ITEMS = [f"item-{number}" for number in range(20)]
SHAPES = [(4, 0.1), (2000, 0.01)]
"""One in which nearly everything is found soon, and one of several pages."""

writes = st.lists(st.sampled_from(ITEMS), max_size=4)


@pytest.mark.slow
@settings(max_examples=HISTORIES)
@given(st.sampled_from(SHAPES), steps(writes))
def test_it_finds_what_a_plain_set_of_bits_finds(shape: tuple[int, float], moves: list[Step]) -> None:
    history = History()
    filters = {node: history.states[node].bloom("f", *shape) for node in NODES}
    bits, hashes, _ = filters["a"].shape

    def places(items: list[str]) -> set[int]:
        return {place for item in items for place in positions(item, hashes, bits)}

    def known_places(node: str) -> set[int]:
        return places([item for items, _ in history.known_writes(node) for item in items])

    def write(node: str, items: list[str]) -> None:
        expected, found = 0, known_places(node)
        for item in items:
            expected += not places([item]) <= found
            found |= places([item])
        assert filters[node].insert_all(items, node=node) == expected
        history.wrote(node, (items, expected))

    def check(node: str) -> None:
        here, found = filters[node], known_places(node)
        inserted = {item for items, _ in history.known_writes(node) for item in items}
        assert all(item in here for item in inserted)
        assert [item in here for item in ITEMS] == [places([item]) <= found for item in ITEMS]
        assert here.filled == len(found) / bits
        assert here.inserted == sum(news for _, news in history.known_writes(node))

    play(history, moves, write, check)
    assert filters["a"] == filters["b"] == filters["c"]


# --- cells that nobody of ours would write ------------------------------------------------------------------------------

SHAPE = BloomShape(16_389, 3, 1000)
"""Three pages, the last of them of one byte and five bits."""
header = st.builds(
    lambda shape, inserted: (BLOOM, "f", [*shape, inserted]),
    st.sampled_from([SHAPE, SHAPE, SHAPE, BloomShape(8, 1, 1000), BloomShape(16_389, 3, 999)]),
    st.sampled_from([0, 5, 2**63 - 1]),
)
content = st.one_of(
    st.builds(lambda size, byte: pack_page(bytes([byte]) * size), st.sampled_from([1024, 1024, 1, 0, 2048]), st.integers(0, 255)),
    st.binary(min_size=1, max_size=20),
)
page = st.builds(
    lambda name, number, data: (BLOOM_PAGE, make_key(name, number), data),
    st.sampled_from(["f", "f", "f", "g", ""]),
    st.sampled_from(["0", "1", "2", "2", "3", "02", "-1", "", "x", "٣"]),
    content,
)
foreign = st.lists(st.tuples(st.sampled_from(NODES), header | page), min_size=1, max_size=25)


def _reading(bloom: BloomCRDT) -> tuple[Any, ...]:
    found = [item in bloom for item in ITEMS]
    pages = (bloom.writers, bloom.ignored_writers, bloom.unreadable_pages)
    return (*pages, bloom.filled, bloom.estimated_fpr, bloom.estimated_items, bloom.inserted, found)


def _opened(state: ConstraintState) -> BloomCRDT:
    return BloomCRDT(rows=state.rows.copy(), name="f", shape=SHAPE)


@pytest.mark.slow
@settings(max_examples=HISTORIES)
@given(foreign, st.permutations(NODES), st.data())
def test_any_cells_read_the_same_in_whatever_order_they_come(written: list[Any], order: list[str], data: st.DataObject) -> None:
    source, early = ConstraintState(), ConstraintState()
    watched = BloomCRDT(rows=source.rows, name="f", shape=SHAPE)
    following = BloomCRDT(rows=early.rows, name="f", shape=SHAPE)
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
    late = BloomCRDT(rows=by_rows.rows, name="f", shape=SHAPE)
    for node in order:
        by_rows.rows.apply([run for run in source.rows.whole() if run.replica.node_id == node])
    assert reading == _reading(late)
    lost = data.draw(st.lists(st.sampled_from(list(source.rows.live_cells()))))
    rebuild(source.rows, [cell for cell in source.rows.live_cells() if cell not in lost])
    assert _reading(watched) == _reading(_opened(source)), "after a repair"


def test_bits_that_a_row_takes_away_are_gone_unless_another_has_them() -> None:
    state = ConstraintState()
    bloom = BloomCRDT(rows=state.rows, name="f", shape=SHAPE)
    for node, byte in (("a", 0b111), ("b", 0b100)):
        state.rows.write(Replica(node, 1), make_cell(BLOOM, "f", [*SHAPE, 1]))
        state.rows.write(Replica(node, 1), make_cell(BLOOM_PAGE, make_key("f", "1"), pack_page(bytes([byte]) * 1024)))
    assert bloom.filled == 3 * 1024 / SHAPE.bits
    state.rows.write(Replica("a", 1), make_cell(BLOOM_PAGE, make_key("f", "1"), pack_page(bytes([0b001]) * 1024)))
    assert bloom.filled == 2 * 1024 / SHAPE.bits
    state.rows.write(Replica("b", 1), make_cell(BLOOM, "f", [8, 1, 1, 0]))
    assert bloom.filled == 1024 / SHAPE.bits


@pytest.mark.slow
@settings(max_examples=HISTORIES // 2)
@given(foreign, st.lists(st.sampled_from(ITEMS), min_size=1, max_size=5))
def test_what_is_inserted_stays_found_whatever_others_hold_and_take_away(written: list[Any], items: list[str]) -> None:
    state = ConstraintState()
    bloom = BloomCRDT(rows=state.rows, name="f", shape=SHAPE)
    for _, (kind, key, value) in written:
        state.rows.write(Replica("other", 1), read_cell(make_cell(kind, key, value).data))
    bloom.insert_all(items, node="me")
    for number in range(3):
        state.rows.write(Replica("other", 1), make_cell(BLOOM_PAGE, make_key("f", str(number)), b"gone"))
    assert all(item in bloom for item in items)
    assert all(item in _opened(state) for item in items)
