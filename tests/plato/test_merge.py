"""Taking in tiles and deltas: each is a merge, so a repeat changes nothing, wherever it arrives."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt import ConstraintCrdtError, ConstraintState, Counts, Limits, Replica
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.plato import PlatoFieldError, PlatoTile
from constraint_crdt.plato.rooms import ROOM_TILE, ContentHashes, apply_delta, check_clock, merge_tile, plato_tile, room_tile
from constraint_crdt.types.tile_cells import ELEMENT

from .tiles import DAY, delta, tile

MS = 1_000_000
ROOM = "fleet-ops"
A, B = Replica("a", 1), Replica("b", 1)


def state_of(*tiles: PlatoTile) -> ConstraintState:
    """A state that took these in, by replica a."""
    state = ConstraintState()
    for each in tiles:
        merge_tile(state, each, A)
    return state


def shown(state: ConstraintState, id_: str = "tile-1") -> PlatoTile | None:
    return room_tile(state, state.tiles.tile(ROOM, id_), ContentHashes())


# --- tiles ---------------------------------------------------------------------------------------------------------------


def test_a_tile_comes_back_as_it_was_sent() -> None:
    assert shown(state_of(tile())) == tile()


def test_a_repeat_changes_nothing_here_or_at_a_node_that_heard_of_it() -> None:
    state = state_of(tile())
    clock = state.clock
    assert not merge_tile(state, tile(), A)
    assert state.clock == clock
    other = ConstraintState()
    other.merge(state)
    assert not merge_tile(other, tile(), B)
    assert other.state_hash == state.state_hash


def test_what_is_shown_of_our_own_comes_back_without_effect() -> None:
    state = ConstraintState(now=lambda: DAY * MS + 123_456)
    own = state.tiles.tile(ROOM, "own")
    own.put("of ours", node=A, author="us")
    own.tags.add("t", node=A)
    own.constraints.add("c", node=A)
    own.metrics.record(A, 5, 1)
    own.update_position((2**31 - 1, -(2**31)), node=A)
    sent = shown(state, "own")
    assert sent is not None
    assert sent.constraints.elements == {"c": [("a~1", 5)]}
    assert sent.metrics.counts == {"a~1": 5}
    assert sent.position is not None
    assert (sent.position.node, sent.position.norm) == ("a~1", 2**62 * 3 - 2**31 * 3 + 1 - 2**64)
    assert not merge_tile(state, sent, A)
    state.tiles.tile(ROOM, "own").constraints.remove("c", node=A)
    assert not merge_tile(state, sent, A), "what we removed does not come back by way of a client"
    other = ConstraintState()
    assert merge_tile(other, sent, B), "another fleet's replicas are strangers"
    assert other.tiles[ROOM, "own"].constraints.tags_of("c") == {("a~1", 5)}


def test_made_up_counts_of_our_replicas_are_left_aside() -> None:
    state = ConstraintState()
    state.tiles.tile(ROOM, "tile-1").put("x", node=A)
    merge_tile(state, tile(metrics={"counts": {"a~1": 10**6, "b~1": 3}, "violations": {"a~1": 1}}), A)
    assert state.tiles[ROOM, "tile-1"].metrics.by_node() == {"b~1": Counts(3, 0)}


def test_the_later_content_counts_and_of_two_of_one_time_the_higher() -> None:
    state = state_of(tile("one", updated_at=DAY), tile("two", updated_at=DAY + 1), tile("three", updated_at=DAY - 1))
    assert state.tiles[ROOM, "tile-1"].text == "two"
    for order in itertools.permutations(("alpha", "beta", "gamma")):
        state = state_of(*(tile(each, updated_at=DAY) for each in order))
        assert state.tiles[ROOM, "tile-1"].text == "gamma"
        assert not merge_tile(state, tile("alpha", updated_at=DAY), A)


def test_a_client_does_not_overwrite_what_it_has_not_seen() -> None:
    state = ConstraintState(now=lambda: DAY * MS + 7)
    state.tiles.tile(ROOM, "tile-1").put("later, here", node=A)
    merge_tile(state, tile("earlier, there", updated_at=DAY), A)
    assert state.tiles[ROOM, "tile-1"].text == "later, here"


def test_creation_is_by_the_earliest_even_if_its_content_is_not_the_latest() -> None:
    state = state_of(
        tile("new", created_at=DAY, updated_at=DAY + 9, author="second"),
        tile("old", created_at=DAY - 3, updated_at=DAY - 3, author="first"),
        tile("mid", created_at=DAY - 1, updated_at=DAY - 1, author="third"),
    )
    held = state.tiles[ROOM, "tile-1"]
    assert (held.text, held.author, held.created) == ("new", "first", (DAY - 3) * MS)


def test_a_position_counts_if_it_is_later() -> None:
    near = {"position": [0, 1], "timestamp": 100, "node": "n", "norm": 1}
    far = {"position": [9, 0], "timestamp": 101, "node": "m", "norm": 81}
    state = state_of(tile(position=near), tile(position=far), tile(position=near), tile(position=None))
    held = state.tiles[ROOM, "tile-1"]
    assert (held.position, held.position_time, held.position_by) == ((9, 0), 101, "m")
    held.update_position((4, 4), node=A, time=100)
    assert held.position == (4, 4), "a write here moves anywhere"
    assert held.position_by == "a~1"


def test_a_deleted_tile_comes_back_by_a_later_content_only() -> None:
    state = state_of(tile("x", updated_at=DAY))
    state.tiles[ROOM, "tile-1"].delete(node=A)
    merge_tile(state, tile("x", updated_at=DAY), A)
    assert (ROOM, "tile-1") not in state.tiles
    assert shown(state) is None
    merge_tile(state, tile("y", updated_at=DAY + 1), A)
    assert state.tiles[ROOM, "tile-1"].text == "y"


MANY = {"elements": {f"c{number}": [["n", number]] for number in range(5)}, "tombstones": [], "seq": {}}
BURIED = {"elements": {}, "tombstones": [[node, 1] for node in "klm"], "seq": {}}


@pytest.mark.parametrize(
    ("limits", "changes", "field"),
    [
        (Limits(tiles=1), {"id": "another"}, None),
        (Limits(tile_elements=2), {"tags": ["x", "y", "z"]}, "tags"),
        (Limits(tile_elements=2), {"constraints": MANY}, "constraints.elements"),
        (Limits(tile_elements=2), {"constraints": BURIED}, "constraints.tombstones"),
        (Limits(tile_elements=2), {"metrics": {"counts": dict.fromkeys("klm", 1), "violations": {}}}, "metrics"),
    ],
)
def test_beyond_a_limit_nothing_is_taken_and_the_field_is_named(limits: Limits, changes: dict[str, Any], field: str) -> None:
    state = ConstraintState(Rows(limits=limits))
    merge_tile(state, tile(tags=[], metrics={"counts": {}, "violations": {}}), A)
    before = state.state_hash
    with pytest.raises(PlatoFieldError) as caught:
        merge_tile(state, tile(**{"updated_at": DAY + 50, **changes}), A)
    assert caught.value.field == field
    assert state.state_hash == before


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"updated_at": DAY + 86_400_001}, "updated_at"),
        ({"position": {"position": [0, 0], "timestamp": (DAY + 86_400_001) * MS, "node": "n", "norm": 0}}, "position.timestamp"),
    ],
)
def test_a_clock_far_ahead_is_refused(changes: dict[str, Any], field: str) -> None:
    check_clock(tile(updated_at=DAY + 86_400_000), DAY * MS)
    check_clock(tile(position=None), DAY * MS)
    with pytest.raises(PlatoFieldError, match="clock") as caught:
        check_clock(tile(**changes), DAY * MS)
    assert caught.value.field == field


tags = st.lists(st.tuples(st.sampled_from("mn"), st.integers(0, 4)).map(list), max_size=3)
sent_tiles = st.builds(
    lambda elements, tombstones, names, counts, content, updated, created, moved: tile(
        content,
        id="tile-1",
        tags=names,
        constraints={"elements": elements, "tombstones": tombstones, "seq": {}},
        metrics={"counts": counts, "violations": {}},
        position={"position": [moved, 0], "timestamp": moved, "node": "n", "norm": moved * moved} if moved else None,
        author=content or "nobody",
        created_at=created,
        updated_at=updated,
    ),
    st.dictionaries(st.sampled_from("xyz"), tags, max_size=3),
    tags,
    st.lists(st.sampled_from("st"), max_size=2),
    st.dictionaries(st.sampled_from("mn"), st.integers(0, 4), max_size=2),
    st.sampled_from(["", "k", "l"]),
    st.integers(0, 4),
    st.integers(0, 4),
    st.integers(0, 4),
)


@pytest.mark.slow
@given(sent=st.lists(sent_tiles, max_size=6))
def test_tiles_merge_as_the_crate_merges_them(sent: list[PlatoTile]) -> None:
    state = state_of(*sent)
    if not sent:
        assert state.tiles.rooms() == []
        return
    held = state.tiles[ROOM, "tile-1"]
    buried = {tuple(tag) for each in sent for tag in each.constraints.tombstones}
    added: dict[str, set[tuple[str, int]]] = {}
    for each in sent:
        for element, its_tags in each.constraints.elements.items():
            added.setdefault(element, set()).update((node, seq) for node, seq in its_tags)
    alive = {element: its_tags - buried for element, its_tags in added.items() if its_tags - buried}
    assert held.constraints.by_element() == alive
    assert set(held.tags) == {tag for each in sent for tag in each.tags}
    for node in "mn":
        most = max((each.metrics.counts.get(node, 0) for each in sent), default=0)
        assert held.metrics.by_node().get(node, Counts()) == Counts(most, 0)
    assert held.text == max((each.updated_at, each.content) for each in sent)[1]
    assert held.created == min(each.created_at for each in sent) * MS
    positions = [each.position.timestamp for each in sent if each.position]
    assert held.position == ((max(positions), 0) if positions else None)


@pytest.mark.slow
@given(posts=st.lists(st.tuples(st.booleans(), st.booleans(), sent_tiles), min_size=1, max_size=6))
def test_what_all_nodes_have_heard_of_is_no_news_to_any(posts: list[tuple[bool, bool, PlatoTile]]) -> None:
    a, b = ConstraintState(), ConstraintState()
    for at_a, meet, each in posts:
        merge_tile(a if at_a else b, each, A if at_a else B)
        if meet:
            a.merge(b)
            b.merge(a)
    a.merge(b)
    b.merge(a)
    assert a.state_hash == b.state_hash
    for _, _, each in posts:  # once more: of contents of one time another may have come out on top
        merge_tile(a, each, A)
    b.merge(a)
    before = b.state_hash
    for _, _, each in posts:
        assert not merge_tile(a, each, A)
        assert not merge_tile(b, each, B)
    assert a.state_hash == b.state_hash == before


def test_an_add_that_is_removed_with_it_leaves_no_cell() -> None:
    state = state_of(tile(constraints={"elements": {"c": [["n", 1]]}, "tombstones": [["n", 1]], "seq": {}}))
    again = [removed("d", 1, ["n", 2]), {"Add": {"constraint_id": "d", "node": "n", "seq": 2}}]
    apply_delta(state, ROOM, delta(1, constraints=again), A)
    assert {str(cell.key).split("\x1f")[-1] for cell in state.rows.each(ELEMENT)} == {"critical", "verified"}


# --- deltas --------------------------------------------------------------------------------------------------------------


def added(id_: str, seq: int) -> dict[str, object]:
    return {"Add": {"constraint_id": id_, "node": "agent-a", "seq": seq}}


def removed(id_: str, seq: int, *named: list[object]) -> dict[str, object]:
    return {"Remove": {"constraint_id": id_, "tombstoned_tags": list(named), "seq": seq}}


def test_a_delta_counts_once_wherever_it_is_sent() -> None:
    a, b = ConstraintState(), ConstraintState()
    assert apply_delta(a, ROOM, delta(1, 100, 5), A)
    assert not apply_delta(a, ROOM, delta(1, 100, 5), A)
    assert apply_delta(b, ROOM, delta(1, 100, 5), B), "b has not heard of it"
    a.merge(b)
    b.merge(a)
    assert not apply_delta(b, ROOM, delta(1, 100, 5), B)
    assert apply_delta(b, ROOM, delta(2, 50, 3), B)
    tile_of_room = shown(b, ROOM_TILE)
    assert tile_of_room is not None
    assert (tile_of_room.metrics.counts, tile_of_room.metrics.violations) == ({"agent-a": 150}, {"agent-a": 8})
    assert (tile_of_room.author, tile_of_room.content) == ("agent-a", "")


def test_a_repeat_has_no_effect_at_all() -> None:
    state = ConstraintState()
    first = delta(
        1, constraints=[added("c", 1)], position={"old_norm": 0, "new_norm": 1, "position": [1, 0], "node": "n", "seq": 1}
    )
    apply_delta(state, ROOM, first, A)
    apply_delta(state, ROOM, delta(2, constraints=[removed("c", 2)]), A)
    state.tiles[ROOM, ROOM_TILE].update_position((5, 5), node=A)
    clock = state.clock
    assert not apply_delta(state, ROOM, first, A)
    assert state.clock == clock
    assert list(state.tiles[ROOM, ROOM_TILE].constraints) == []


def test_constraints_of_deltas() -> None:
    """All adds of one delta have the same tag, and the crate's removals name none: each is about its constraint only."""
    state = ConstraintState()
    room = state.tiles.tile(ROOM, ROOM_TILE)
    apply_delta(state, ROOM, delta(1, constraints=[added("c1", 1), added("c2", 1), added("c3", 1)]), A)
    assert room.constraints.by_element() == {id_: {("agent-a", 1)} for id_ in ("c1", "c2", "c3")}
    apply_delta(state, ROOM, delta(2, constraints=[removed("c1", 2), removed("gone", 2)]), A)
    assert list(room.constraints) == ["c2", "c3"]
    apply_delta(state, ROOM, delta(3, constraints=[removed("c2", 3, ["agent-a", 99])]), A)
    assert list(room.constraints) == ["c2", "c3"], "a removal that names tags removes those"
    apply_delta(state, ROOM, delta(4, constraints=[removed("c2", 4), added("c2", 4), added("c4", 4), removed("c4", 4)]), A)
    assert list(room.constraints) == ["c2", "c3"], "in the order of the delta"
    apply_delta(state, ROOM, delta(5, constraints=[added("c5", 5), added("c5", 6), removed("c5", 5, ["agent-a", 5])]), A)
    assert room.constraints.tags_of("c5") == {("agent-a", 6)}


def test_a_concurrent_add_wins_over_a_removal() -> None:
    a, b = ConstraintState(), ConstraintState()
    apply_delta(a, ROOM, delta(1, constraints=[added("c", 1)]), A)
    b.merge(a)
    apply_delta(a, ROOM, delta(2, constraints=[removed("c", 2)]), A)
    apply_delta(b, ROOM, delta(3, constraints=[added("c", 3)]), B)
    a.merge(b)
    assert a.tiles[ROOM, ROOM_TILE].constraints.tags_of("c") == {("agent-a", 3)}


def test_the_tile_of_a_room_may_come_back_as_a_tile() -> None:
    """A client reads the room, and sends the tile it read: what its deltas counted is not counted again."""
    state = ConstraintState()
    apply_delta(state, ROOM, delta(1, 100, 5), A)
    sent = shown(state, ROOM_TILE)
    assert sent is not None
    merge_tile(state, sent, A)
    assert shown(state, ROOM_TILE) == sent
    apply_delta(state, ROOM, delta(2, 1, 0), A)
    again = shown(state, ROOM_TILE)
    assert again is not None
    assert again.metrics.counts == {"agent-a": 101}


def test_a_position_of_a_delta_moves_the_room() -> None:
    state = ConstraintState(now=lambda: 77)
    move = {"old_norm": 0, "new_norm": 3, "position": [2, 1], "node": "agent-a", "seq": 1}
    apply_delta(state, ROOM, delta(1, position=move), A)
    apply_delta(state, ROOM, delta(2, position=move | {"position": [9, 0], "new_norm": 81}), A)
    held = state.tiles[ROOM, ROOM_TILE]
    assert (held.position, held.position_time, held.position_by) == ((9, 0), 77, "agent-a")


def test_a_deleted_room_tile_comes_back_with_the_next_delta() -> None:
    state = ConstraintState()
    apply_delta(state, ROOM, delta(1, 1, 0), A)
    state.tiles[ROOM, ROOM_TILE].delete(node=A)
    assert shown(state, ROOM_TILE) is None
    assert not apply_delta(state, ROOM, delta(1, 1, 0), A)
    assert shown(state, ROOM_TILE) is None
    apply_delta(state, ROOM, delta(2, 1, 0), A)
    back = shown(state, ROOM_TILE)
    assert back is not None
    assert back.metrics.counts == {"agent-a": 2}


@pytest.mark.parametrize(
    ("limits", "changes", "field"),
    [
        (
            Limits(foreign_nodes=1),
            {"node": "b", "counter": {"node": "b", "satisfied_delta": 1, "violations_delta": 0, "seq": 9}},
            "node",
        ),
        (Limits(tile_elements=2), {"constraints": [added(id_, 9) for id_ in "pqr"]}, "constraints"),
        (Limits(cells=6), {"constraints": [added("p", 9)]}, None),
    ],
)
def test_a_delta_beyond_a_limit_leaves_no_trace(limits: Limits, changes: dict[str, Any], field: str | None) -> None:
    state = ConstraintState(Rows(limits=limits))
    for seq in (1, 2, 3):
        apply_delta(state, ROOM, delta(seq), A)
    before = state.state_hash
    with pytest.raises(ConstraintCrdtError, match="is set") as caught:
        apply_delta(state, ROOM, delta(9, **changes), A)
    assert getattr(caught.value, "field", None) == field
    assert state.state_hash == before
    assert not state.increments.knows(ROOM, "b", 9)


@pytest.mark.slow
def test_many_deltas_are_taken_together_and_counted_right() -> None:
    state = ConstraintState()
    for seq in range(1, 1001):
        apply_delta(state, ROOM, delta(seq, 2, 1), A)
    held = shown(state, ROOM_TILE)
    assert held is not None
    assert (held.metrics.counts, held.metrics.violations) == ({"agent-a": 2000}, {"agent-a": 1000})
    assert len(state.rows) - state.rows.collect() < 80


def test_a_conversion_needs_no_state() -> None:
    assert plato_tile(state_of(tile()).tiles[ROOM, "tile-1"]) == tile()
