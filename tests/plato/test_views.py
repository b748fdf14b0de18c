"""What a state holds, as JSON of the contract: what does not fit it is left out or bounded."""

import pytest

from constraint_crdt import ConstraintCrdtError, ConstraintState, Counts, Replica
from constraint_crdt.crdt.cells import make_cell, make_key
from constraint_crdt.plato import fnv1a
from constraint_crdt.plato.rooms import MOST_TOMBSTONES, ContentHashes, plato_tile, room_tile
from constraint_crdt.types.tile_cells import CONTENT, TOMBSTONES

A = Replica("a", 1)


def test_a_content_that_is_no_text_is_not_shown() -> None:
    state = ConstraintState()
    tile = state.tiles.tile("r", "i")
    tile.put(b"\xff\xfe", node=A)
    assert room_tile(state, tile, ContentHashes()) is None
    with pytest.raises(ConstraintCrdtError, match="not text"):
        plato_tile(tile)


def test_what_is_not_there_or_damaged() -> None:
    state = ConstraintState()
    tile = state.tiles.tile("r", "i")
    assert room_tile(state, tile, ContentHashes()) is None
    state.rows.write(A, make_cell(CONTENT, make_key("r", "i"), [5_000_000, 9, b"x" * 32]))
    shown = room_tile(state, tile, ContentHashes())
    assert shown is not None
    assert (shown.content, shown.content_hash, shown.updated_at) == ("", fnv1a(b""), 5)
    assert (shown.position, shown.metrics.counts, shown.constraints.elements) == (None, {}, {})


def test_tombstones_without_number_are_shown_up_to_a_number() -> None:
    """BlockSums are short to write and long to read: anybody in the fleet may write one that covers everything."""
    state = ConstraintState()
    tile = state.tiles.tile("r", "i")
    tile.put("x", node=A)
    most = 2**63 - 1
    for name, stretches in (("m", [[0, most]]), ("n", [[1, 2], [7, 9]]), ("o", [])):
        state.rows.write(A, make_cell(TOMBSTONES, make_key("r", "i", name), stretches))
    shown = plato_tile(tile)
    share = MOST_TOMBSTONES // 3
    assert len(shown.constraints.tombstones) == share + 5
    assert shown.constraints.tombstones[:2] == [("m", most), ("m", most - 1)]
    assert shown.constraints.tombstones[share:] == [("n", 9), ("n", 8), ("n", 7), ("n", 2), ("n", 1)]
    assert shown.constraints.seq == {"m": most, "n": 9}


def test_the_seq_of_a_node_is_its_highest_tag_in_or_out() -> None:
    state = ConstraintState()
    tile = state.tiles.tile("r", "i")
    tile.put("x", node=A)
    tile.constraints.add_foreign("c", {("n", 3), ("m", 8)}, node=A)
    tile.constraints.bury({("n", 5)}, node=A)
    assert plato_tile(tile).constraints.seq == {"m": 8, "n": 5}


def test_counts_from_elsewhere_are_shown_if_they_are_higher() -> None:
    state = ConstraintState()
    tile = state.tiles.tile("r", "i")
    tile.put("x", node=A)
    tile.metrics.record_foreign("n", 5, 5, node=A)
    shown = plato_tile(tile, counted_besides={"n": Counts(6, 0), "o": Counts(0, 1)})
    assert (shown.metrics.counts, shown.metrics.violations) == ({"n": 6}, {"n": 5, "o": 1})


def test_hashes_are_kept_and_forgotten_again() -> None:
    hashes = ContentHashes(most=2)
    for content in (b"a", b"b", b"a", b"c"):
        assert hashes.of(content * 32, content) == fnv1a(content)
    assert len(hashes) == 2
    assert (hashes.knows(b"a" * 32), hashes.knows(b"b" * 32)) == (True, False)
    assert hashes.of(b"a" * 32, b"not read again") == fnv1a(b"a")
