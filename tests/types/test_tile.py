"""`FleetTile` and `FleetTiles`: what each write does and refuses, and what nonsense from others can and cannot do."""

import hashlib
import itertools
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt import ConstraintCrdtError, ConstraintState, Counts, GossipNode, Limits, Replica, exchange
from constraint_crdt.crdt.cells import SEPARATOR, Cell, Run, make_cell, make_removal, read_cell
from constraint_crdt.crdt.limits import MAX_COUNT, PAGE_BYTES, TILE_BYTES
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.types import FleetTile, FleetTiles
from constraint_crdt.types.tile_cells import CONTENT, CONTENT_PAGE, DELETED, ELEMENT, TILE, TILE_COUNTS, TILE_POSITION, TOMBSTONES
from constraint_crdt.types.tiles import FleetTile as PureFleetTile
from constraint_crdt.types.tiles import FleetTiles as Tiles


def tile(rows: Rows | None = None, *, at: int = 100) -> FleetTile:
    return FleetTile("yard", "map", rows, now=lambda: at)


# --- content -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"x", "grün", bytes(PAGE_BYTES), bytes(PAGE_BYTES + 1), bytes(range(256)) * 4096])
def test_what_is_put_is_read(content: str | bytes) -> None:
    t = tile()
    t.put(content, node="a", author="amy")
    stored = content.encode() if isinstance(content, str) else content
    assert (t.content, t.size, t.exists, t.deleted) == (stored, len(stored), True, False)
    assert t.content_hash == hashlib.blake2b(stored, digest_size=32).digest()
    assert (t.author, t.created, t.updated, t.writer) == ("amy", 100, 100, Replica("a", 0))
    assert t.verify_integrity()


def test_a_tile_that_nobody_wrote_is_not_there() -> None:
    t = tile()
    assert (t.exists, t.deleted, t.content, t.text, t.size, t.author, t.created, t.updated) == (False, False, b"", "", 0, "", 0, 0)
    assert (t.writer, t.position, t.norm, t.position_time, t.position_by) == (None, None, None, None, None)
    assert t.content_hash == hashlib.blake2b(b"", digest_size=32).digest()
    assert t.verify_integrity()
    for act in (t.delete, t.restore, t.purge):
        with pytest.raises(KeyError):
            act(node="a")
    assert len(t._rows) == 0


def test_it_goes_by_the_wall_clock_unless_told() -> None:
    t = FleetTile("yard", "map")
    t.put("x", node="a")
    assert t.updated > 1_700_000_000 * 10**9


def test_a_shorter_content_leaves_no_pages_behind() -> None:
    t = tile()
    t.put(bytes(3 * PAGE_BYTES), node="a")
    t.put(bytes(2 * PAGE_BYTES), node="b")
    t.put("short", node="b")
    assert t.content == b"short"
    assert len(t._index.keys(t._key, CONTENT_PAGE)) == 1
    assert len(t._index.cells(t._key)) == 3  # header, content, page


def test_a_put_is_later_than_all_that_it_observed() -> None:
    t = tile(at=100)
    t.put("from the future", node="a", time=5000)
    t.put("now", node="b")
    assert (t.text, t.updated, t.created) == ("now", 5001, 5000)
    t.put("end of time", node="a", time=MAX_COUNT)
    t.put("after it", node="b")
    assert (t.text, t.updated) == ("after it", MAX_COUNT)


def test_of_concurrent_puts_the_latest_counts_and_ties_go_by_replica() -> None:
    for times, winner in [((1, 2, 3), "c"), ((3, 2, 1), "a"), ((2, 2, 2), "c"), ((5, 5, 1), "b")]:
        copies = [tile() for _ in times]
        for copy, time, node in zip(copies, times, "abc", strict=True):
            copy.put(node, node=node, time=time)
        for order in itertools.permutations(copies):
            all_ = tile()
            for copy in order:
                all_.merge(copy)
            assert all_.text == winner
            assert (all_.created, all_.author) == (min(times), "abc"[times.index(min(times))])


def test_an_earlier_origin_is_taken_and_a_later_one_is_not() -> None:
    t = tile()
    t.put("1", node="a", author="amy", created=50)
    t.put("2", node="b", author="bob", created=60)
    assert (t.created, t.author) == (50, "amy")
    t.put("3", node="b", author="bob", created=40)
    assert (t.created, t.author) == (40, "bob")
    t.put("4", node="a", author="zoe")
    assert (t.created, t.author) == (40, "bob")


def test_text_that_is_none_is_refused_in_one_sentence() -> None:
    t = tile()
    t.put(b"\xff\x00", node="a")
    with pytest.raises(ConstraintCrdtError, match="is not text"):
        _ = t.text


REFUSED: list[tuple[Callable[[FleetTile], object], type[Exception], str]] = [
    (lambda t: t.put(bytes(TILE_BYTES + 1), node="a"), ConstraintCrdtError, "at most 1048576 bytes"),
    (lambda t: t.put("\ud800", node="a"), ConstraintCrdtError, "valid Unicode"),
    (lambda t: t.put(7, node="a"), TypeError, "text or bytes"),  # type: ignore[arg-type]
    (lambda t: t.put("x", node="a", author="a" * 257), ConstraintCrdtError, "author"),
    (lambda t: t.put("x", node="a", author="\ud800"), ConstraintCrdtError, "Unicode"),
    (lambda t: t.put("x", node="a", time=-1), ConstraintCrdtError, "time"),
    (lambda t: t.put("x", node="a", time=1.5), TypeError, "."),  # type: ignore[arg-type]
    (lambda t: t.put("x", node="a", created=2**63), ConstraintCrdtError, "time"),
    (lambda t: t.put("x", node=""), ConstraintCrdtError, "node id"),
    (lambda t: t.put("x", node="a", tags=["fine", ""]), ConstraintCrdtError, "a tag must have"),
    (lambda t: t.put("x", node="a", constraints=["k" * 257]), ConstraintCrdtError, "a constraint of a tile must have"),
    (lambda t: t.tags.add("", node="a"), ConstraintCrdtError, "a tag must have"),
    (lambda t: t.tags.remove("x", node="a"), KeyError, "."),
    (lambda t: t.constraints.remove("x", node="a"), KeyError, "."),
    (lambda t: t.constraints.add_foreign("c", {("", 1)}, node="a"), ConstraintCrdtError, "node of a tag"),
    (lambda t: t.constraints.add_foreign("c", {("n", -1)}, node="a"), ConstraintCrdtError, "seq of a tag"),
    (lambda t: t.constraints.add_foreign("c", {("n", True)}, node="a"), ConstraintCrdtError, "seq of a tag"),
    (lambda t: t.constraints.add_foreign("c", {("n" * 99, n) for n in range(999)}, node="a"), ConstraintCrdtError, "cell"),
    (lambda t: t.constraints.bury({("n", 2**63)}, node="a"), ConstraintCrdtError, "seq of a tag"),
    (lambda t: t.constraints.bury({("n", 2 * n) for n in range(20_000)}, node="a"), ConstraintCrdtError, "cell"),
    (lambda t: t.metrics.record("a", -1), ValueError, "only grow"),
    (lambda t: t.metrics.record("a", 2**63), ConstraintCrdtError, "cumulative"),
    (lambda t: t.metrics.record("a", 1.5), TypeError, "."),  # type: ignore[arg-type]
    (lambda t: t.metrics.record_foreign("z", 0, -1, node="a"), ValueError, "only grow"),
    (lambda t: t.metrics.record_foreign("", 1, 0, node="a"), ConstraintCrdtError, "who counted"),
    (lambda t: t.update_position((2**31, 0), node="a"), ConstraintCrdtError, "32-bit"),
    (lambda t: t.update_position((0, 0), node="a", time=-1), ConstraintCrdtError, "time"),
]


def test_a_constraint_that_shares_its_tag_with_another_goes_alone() -> None:
    """Software that starts again gives its first tag a second time, to another constraint."""
    a = FleetTile("r", "i")
    a.put("x", node="a")
    for element in ("first", "second", "third"):
        a.constraints.add_foreign(element, {("n", 1)}, node="a")
    a.constraints.add_foreign("third", {("n", 2)}, node="a")
    b = FleetTile("r", "i").merged(a)
    a.constraints.remove("first", node="a")
    assert list(a.constraints) == ["second", "third"]
    assert a.constraints.tags_of("third") == {("n", 2)}
    b.merge(a)
    assert list(b.constraints) == ["second", "third"]
    assert not b.constraints.add_foreign("first", {("n", 1)}, node="b")
    b.constraints.remove("second", node="b")
    assert list(b.constraints) == ["third"]


@pytest.mark.parametrize(("act", "error", "says"), REFUSED)
def test_what_is_out_of_bounds_is_refused_and_changes_nothing(
    act: Callable[[FleetTile], object], error: type[Exception], says: str
) -> None:
    t = tile()
    with pytest.raises(error, match=says):
        act(t)
    assert len(t._rows) == 0


@pytest.mark.parametrize(("room", "id_"), [("", "x"), ("x", ""), ("x" * 257, "x"), ("x", "\x1f"), ("a\x1fb", "x"), ("\ud800", "x")])
def test_names_that_no_tile_can_have(room: str, id_: str) -> None:
    with pytest.raises(ConstraintCrdtError):
        FleetTile(room, id_)
    assert (room, id_) not in FleetTiles()


# --- deleting ----------------------------------------------------------------------------------------------------------


def test_a_deleted_tile_can_be_restored() -> None:
    t = tile()
    t.put("x", node="a", tags=["red"])
    t.delete(node="b")
    assert (t.exists, t.deleted, t.content) == (False, True, b"x")
    with pytest.raises(KeyError):
        t.delete(node="b")
    t.restore(node="a")
    assert (t.exists, t.deleted, t.text, list(t.tags)) == (True, False, "x", ["red"])
    with pytest.raises(KeyError):
        t.restore(node="a")


def test_a_put_that_the_deletion_did_not_see_wins() -> None:
    one = tile()
    one.put("old", node="a", time=900)
    two = one.merged(one)
    one.delete(node="a")
    two.put("new", node="b")
    three = one.merged(two)
    assert (three.exists, three.text) == (True, "new")
    assert three == two.merged(one)
    three.delete(node="c")
    assert three.deleted


def test_of_a_deleted_and_an_unseen_content_the_unseen_counts_though_earlier() -> None:
    one, two = tile(), tile()
    one.put("late", node="a", time=900)
    two.put("early", node="b", time=1)
    one.delete(node="a")
    one.merge(two)
    assert (one.exists, one.text) == (True, "early")


def test_a_put_ends_the_deletions_that_it_observed() -> None:
    t = tile()
    t.put("old", node="a")
    t.delete(node="b")
    t.put("new", node="c")
    assert (t.exists, t.text, t.deletion) == (True, "new", None)
    assert len(t._index.cells(t._key)) == 3  # header, content, page: no mark


def test_deletion_and_restore_on_two_sides() -> None:
    one = tile()
    one.put("x", node="a")
    one.delete(node="a")
    two = one.merged(one)
    one.restore(node="a")
    two.restore(node="b")
    two.delete(node="b")  # anew: the restore on the other side did not see it
    assert one.merged(two).deleted


def test_a_purge_leaves_nothing_but_what_it_did_not_see() -> None:
    one = tile()
    one.put(bytes(PAGE_BYTES + 1), node="a", author="amy", tags=["red"], constraints=["c"])
    one.constraints.add_foreign("d", {("n", 1)}, node="a")
    one.constraints.bury({("n", 9)}, node="b")
    one.metrics.record("a", 1, 1)
    one.update_position((1, 2), node="a")
    two = one.merged(one)
    one.purge(node="a")
    one._rows.collect()
    assert (len(one._rows), one._index.known, one.exists, one.deleted, one.constraints.tombstones()) == (0, 0, False, False, {})
    two.put("unseen", node="b")
    two.merge(one)
    assert (two.exists, two.text, list(two.tags), two.position) == (True, "unseen", [], None)
    assert (two.author, two.created) == ("b", 101)  # the header went: the content stands for it
    assert one.merged(two) == two


@pytest.mark.long
def test_deleting_keeps_one_mark_however_many_put_at_once() -> None:
    all_ = tile()
    for number in range(400):
        one = tile()
        one.put(b"x", node="node" * 50 + str(number), time=number)
        all_.merge(one)
    all_.delete(node="a")
    assert all_.deleted
    assert len(all_._rows.held(CONTENT, all_._key)) == 1


# --- tags, constraints, counts, position -------------------------------------------------------------------------------


def test_tags_and_constraints_are_sets_of_their_own() -> None:
    t = tile()
    assert t.tags.add("b\x1fb", node="a")
    assert not t.tags.add("b\x1fb", node="z")
    t.tags.add("a", node="z")
    t.constraints.add("c", node="a")
    assert (list(t.tags), len(t.tags), list(t.constraints), len(t.constraints)) == (["a", "b\x1fb"], 2, ["c"], 1)
    assert ("a" in t.tags, "c" in t.tags, "a" in t.constraints, 7 in t.tags) == (True, False, False, False)
    t.tags.remove("b\x1fb", node="z")
    assert list(t.tags) == ["a"]


@pytest.mark.parametrize("which", ["tags", "constraints"])
def test_an_add_that_the_removal_did_not_see_wins(which: str) -> None:
    one = tile()
    getattr(one, which).add("x", node="a")
    two = one.merged(one)
    getattr(one, which).remove("x", node="a")
    getattr(two, which).remove("x", node="b")
    getattr(two, which).add("x", node="b")
    assert "x" in getattr(one.merged(two), which)


def test_foreign_adds_are_known_by_their_tags() -> None:
    t = tile()
    assert t.constraints.add_foreign("c", {("rust", 1), ("rust", 2)}, node="a")
    assert not t.constraints.add_foreign("c", {("rust", 2)}, node="b")
    assert t.constraints.tags_of("c") == {("rust", 1), ("rust", 2)}
    assert t.constraints.bury({("rust", 1)}, node="b")
    assert "c" in t.constraints
    assert t.constraints.bury({("rust", 2), ("rust", 1)}, node="a")
    assert "c" not in t.constraints
    assert t.constraints.tombstones() == {"rust": ((1, 2),)}
    assert not t.constraints.bury({("rust", 2)}, node="c")
    assert not t.constraints.add_foreign("c", {("rust", 1)}, node="b")  # buried for good
    assert t.constraints.add_foreign("c", {("rust", 3)}, node="b")
    assert t.constraints.add_foreign("c", {("rust", 4)}, node="b")
    assert t.constraints.tags_of("c") == {("rust", 3), ("rust", 4)}
    assert list(t.constraints) == ["c"]


def test_an_own_removal_buries_foreign_adds() -> None:
    t = tile()
    t.constraints.add("c", node="a")
    t.constraints.add_foreign("c", {("rust", 1)}, node="b")
    t.constraints.remove("c", node="a")
    assert "c" not in t.constraints
    assert t.constraints.tombstones() == {"rust": ((1, 1),)}
    assert not t.constraints.add_foreign("c", {("rust", 1)}, node="b")


def test_an_own_add_travels_as_a_tag_and_is_removed_by_it() -> None:
    t = tile()
    t.constraints.add("c", node="a")
    [tag] = t.constraints.tags_of("c")
    assert tag == ("a~0", 1)
    assert not t.constraints.add_foreign("c", {tag}, node="b")
    assert t.constraints.bury({tag}, node="b")
    assert "c" not in t.constraints
    assert t.constraints.tombstones() == {}  # it can never come back
    assert not t.constraints.add_foreign("c", {tag}, node="b")
    t.constraints.add("c", node="a")
    assert "c" in t.constraints


def test_an_own_add_that_is_heard_of_first_from_outside() -> None:
    one, two, three = tile(), tile(), tile()
    one.constraints.add("c", node="a")
    [tag] = one.constraints.tags_of("c")
    two.constraints.add_foreign("c", {tag}, node="b")
    assert two.constraints.tags_of("c") == {tag}
    assert two.merged(one).constraints.tags_of("c") == {tag}
    three.constraints.bury({tag}, node="c")
    assert "c" not in three.merged(one).constraints
    assert "c" not in three.merged(two).constraints


def test_an_own_add_that_others_carry_is_removed_from_them_too() -> None:
    one, two = tile(), tile()
    one.constraints.add("c", node="a")
    [tag] = one.constraints.tags_of("c")
    two.constraints.add_foreign("c", {tag}, node="b")
    three = two.merged(one)
    three.constraints.remove("c", node="c")
    two.constraints.add_foreign("c", {("n", 1)}, node="b")  # and carries the other one on, not knowing that it is removed
    three.merge(two)
    assert three.constraints.tags_of("c") == {("n", 1)}


def test_counts_are_the_highest_by_name_and_summed_over_names() -> None:
    one, two = tile(), tile()
    one.metrics.record("a", 3, 1)
    one.metrics.record("a", 2)
    assert one.metrics.record_foreign("rust", 10, 4, node="a")
    assert two.metrics.record_foreign("rust", 7, 5, node="b")
    one.merge(two)
    assert one.metrics.by_node() == {"a~0": Counts(5, 1), "rust": Counts(10, 5)}
    assert (one.metrics.satisfied, one.metrics.violated, one.metrics.total) == (15, 6, Counts(15, 6))
    assert not one.metrics.record_foreign("rust", 10, 5, node="c")
    seq = one._rows.seq(Replica("a", 0))
    one.metrics.record("a")
    assert one._rows.seq(Replica("a", 0)) == seq


def test_own_counts_that_come_back_from_outside_count_once() -> None:
    t = tile()
    t.metrics.record("a", 3)
    assert not t.metrics.record_foreign("a~0", 3, 0, node="b")
    assert t.metrics.record_foreign("a~0", 8, 0, node="b")  # heard there of more than here
    t.metrics.record("a", 1)
    assert t.metrics.satisfied == 9


def test_a_node_with_the_longest_name_can_count_and_add() -> None:
    t = tile()
    name = Replica("n" * 256, MAX_COUNT)
    t.metrics.record(name, 1)
    t.constraints.add("c", node=name)
    assert (t.metrics.satisfied, list(t.constraints)) == (1, ["c"])


def test_positions_go_by_the_rule_of_the_register() -> None:
    t = tile()
    t.update_position((5, 5), node="a")
    assert (t.position, t.norm, t.position_time, t.position_by) == ((5, 5), 25, 100, "a~0")
    other = t.merged(t)
    t.update_position((9, 9), node="a")
    other.update_position((1, 0), node="b")
    assert t.merged(other).position == other.merged(t).position == (1, 0)


# --- in a state ---------------------------------------------------------------------------------------------------------


def test_a_state_lists_its_tiles() -> None:
    state = ConstraintState(now=lambda: 7)
    for room, id_ in [("yard", "b"), ("yard", "a"), ("hall/1", "x"), ("hall/2", "y")]:
        state.tiles.tile(room, id_).put(id_, node="n")
    tiles = state.tiles
    tiles["hall/2", "y"].delete(node="n")
    tiles.tile("empty", "x").tags.add("t", node="n")
    assert list(tiles) == [("hall/1", "x"), ("yard", "a"), ("yard", "b")]
    assert (len(tiles), tiles.rooms(), tiles.rooms("ha"), tiles.deleted()) == (3, ["hall/1", "yard"], ["hall/1"], [("hall/2", "y")])
    assert [(each.id, each.updated) for each in tiles.in_room("yard")] == [("a", 7), ("b", 7)]
    assert tiles.in_room("hall/2") == []
    assert ("yard", "a") in tiles
    assert "yard" not in tiles
    assert (tiles.get(("yard", "a")), tiles.get(("yard", "c"))) == (tiles["yard", "a"], None)
    for place in [("yard", "c"), ("hall/2", "y"), ("empty", "x")]:
        with pytest.raises(KeyError):
            tiles[place]


def test_tiles_and_states_merge() -> None:
    one, two = ConstraintState(), ConstraintState()
    one.tiles.tile("r", "x").put("1", node="a")
    two.tiles.tile("r", "y").put("2", node="b")
    both = one.merged(two)
    assert list(both.tiles) == [("r", "x"), ("r", "y")]
    tiles = FleetTiles()
    tiles.merge(both.tiles)
    assert tiles == both.tiles == one.tiles.merged(two.tiles)
    assert tiles != one.tiles
    assert tiles.subsumes(one.tiles)
    assert one.tiles["r", "x"] == tiles["r", "x"] != tiles["r", "y"]


def test_nodes_share_tiles() -> None:
    a, b = GossipNode("a"), GossipNode("b")
    a.write(lambda me: a.state.tiles.tile("r", "x").put(bytes(TILE_BYTES), node=me, tags=["big"]))
    exchange(a, b)
    assert b.state.tiles["r", "x"].content == bytes(TILE_BYTES)
    assert list(b.state.tiles["r", "x"].tags) == ["big"]
    assert a.state_hash == b.state_hash


def test_a_node_makes_no_more_than_its_limits_but_takes_those_of_others() -> None:
    limits = Limits(tiles=2, tile_elements=2)
    small = ConstraintState(Rows(limits=limits))
    for id_ in "xy":
        small.tiles.tile("r", id_).put("", node="a")
    small.tiles["r", "y"].delete(node="a")
    before = small.state_hash
    with pytest.raises(ConstraintCrdtError, match="2 tiles"):
        small.tiles.tile("r", "z").put("", node="a")
    x = small.tiles["r", "x"]
    refused: list[Callable[[], object]] = [
        lambda: x.put("", node="a", tags="abc"),
        lambda: x.put("", node="a", constraints="abc"),
    ]
    for act in refused:
        with pytest.raises(ConstraintCrdtError, match="2 elements"):
            act()
    assert small.state_hash == before
    x.put("", node="a", tags="ab", constraints="ab")
    x.constraints.bury({("m", 1), ("n", 1)}, node="a")
    x.metrics.record_foreign("m", 1, 1, node="a")
    x.metrics.record_foreign("n", 1, 1, node="a")
    refused = [
        lambda: x.tags.add("c", node="a"),
        lambda: x.constraints.add("c", node="a"),
        lambda: x.constraints.add_foreign("c", {("o", 1)}, node="a"),
        lambda: x.constraints.bury({("o", 1)}, node="a"),
        lambda: x.metrics.record("a", 1),
        lambda: small.tiles.tile("r", "z").tags.add("t", node="a"),
        lambda: small.tiles.tile("r", "z").update_position((0, 0), node="a"),
    ]
    before = small.state_hash
    for act in refused:
        with pytest.raises(ConstraintCrdtError, match="as this node is set"):
            act()
    assert small.state_hash == before
    large = ConstraintState()
    for id_ in "pqr":
        large.tiles.tile("r", id_).put("", node="b", tags="defg")
    small.merge(large)
    assert len(small.tiles) == 4


# --- nonsense from others -----------------------------------------------------------------------------------------------

KEY = f"r{SEPARATOR}x"
REPLICAS = [Replica(name, 1) for name in "abc"]
dots = st.lists(st.tuples(st.sampled_from(REPLICAS), st.integers(0, 8)), max_size=3)
pages = st.sampled_from([b"one", b"\xff" * 10])
names = st.sampled_from(["n", "a~1", "a~01", "~", "x~y", "b~1"])
keys = st.sampled_from(
    [KEY, "r", "", SEPARATOR, f"{KEY}{SEPARATOR}", f"{SEPARATOR}x", f"{'r' * 300}{SEPARATOR}x", f"r{SEPARATOR}y"]
)
tails = st.sampled_from(["0", "1", "00", "-1", "", "t", "t\x1fe", "k\x1fe", "f\x1fe", "f\x1f", "z\x1fe", "n", "a~1", "a\x1fb\x1fc"])
hashes = st.sampled_from([hashlib.blake2b(content, digest_size=32).digest() for content in (b"", b"one", b"oneone")])
times = st.sampled_from([0, 1, MAX_COUNT])


def _wire(dots: list[tuple[Replica, int]]) -> list[list[object]]:
    return [[replica.node_id, replica.incarnation, seq] for replica, seq in dots]


longer = st.builds(lambda key, tail: f"{key}{SEPARATOR}{tail}", keys, tails) | keys
wild_cells = st.one_of(
    st.builds(lambda key, time: make_cell(TILE, key, [time, "x"]), keys, times),
    st.builds(lambda key, time, size, hash_: make_cell(CONTENT, key, [time, size, hash_]), keys, times, st.integers(0, 7), hashes),
    st.builds(lambda key, page: make_cell(CONTENT_PAGE, key, page), longer, pages),
    st.builds(lambda key, tags: make_cell(ELEMENT, key, tags), longer, st.none() | st.lists(st.tuples(names, st.integers(0, 3)))),
    st.builds(lambda key, lo, more: make_cell(TOMBSTONES, key, [[lo, lo + more]]), longer, st.integers(0, 3), st.integers(0, 2)),
    st.builds(lambda key, n: make_cell(TILE_COUNTS, key, [n, MAX_COUNT]), longer, st.integers(0, 3)),
    st.builds(lambda key, a, named: make_cell(TILE_POSITION, key, [a, 1, 5, _wire(named)]), keys, st.integers(-1, 2), dots),
    st.builds(lambda key, time, named: make_cell(DELETED, key, [time, _wire(named)]), keys, times, dots),
    st.builds(
        lambda kind, key, named: make_removal([(key, named)], kind), st.sampled_from([CONTENT, ELEMENT, DELETED]), longer, dots
    ),
)
wild_logs = st.dictionaries(st.sampled_from(REPLICAS), st.lists(wild_cells, max_size=8), min_size=1)


def bound(replica: Replica, cells: list[Cell]) -> list[Cell]:
    """Cells at their dots, having passed what every cell from the wire passes."""
    read = [(seq, read_cell(cell.data)) for seq, cell in enumerate(cells, start=1)]
    return [Cell(cell.kind, cell.key or (seq if cell.key == 0 else ""), cell.data, seq, replica) for seq, cell in read]


def everything(tiles: Tiles) -> object:
    """Every reading that there is, of every tile that anybody can see."""
    places = sorted({*tiles, *tiles.deleted(), ("r", "x"), ("r", "y")})
    found = [len(tiles), tiles.rooms(), tiles.deleted(), tiles._index.known]
    for each in (tiles.tile(*place) for place in places):
        constraints = {name: each.constraints.tags_of(name) for name in each.constraints}
        found += [str(each), each.content, each.content_hash, each.verify_integrity(), each.updated, each.created, each.author]
        found += [list(each.tags), constraints, each.constraints.tombstones(), each.metrics.by_node(), each.metrics.total]
        found += [each.position, each.norm, each.position_by, each.exists, each.deleted, each.size]
    return found


@pytest.mark.slow
@given(wild_logs, st.randoms(use_true_random=False))
def test_nonsense_reads_the_same_in_whatever_order_it_comes(log: dict[Replica, list[Cell]], random: Random) -> None:
    one, other = Tiles(), Tiles()
    one._rows.apply([Run(replica, 0, len(cells), bound(replica, cells)) for replica, cells in log.items()])
    parts = [(replica, seq) for replica, cells in log.items() for seq in range(len(cells))]
    order = [replica for replica, _ in parts]
    random.shuffle(order)
    taken = dict.fromkeys(log, 0)
    for replica in order:  # one cell at a time, each row in its own order
        cell = bound(replica, log[replica])[taken[replica]]
        other._rows.apply([Run(replica, taken[replica], taken[replica] + 1, [cell])])
        taken[replica] += 1
    assert everything(one) == everything(other) == everything(Tiles(one._rows.copy()))
    one._index._clear()
    for kind in one.KINDS:
        for cell in one._rows.each(kind):
            one._index._changed(None, cell)
    assert everything(one) == everything(other)


@pytest.mark.slow
@given(wild_logs)
def test_honest_writes_put_nonsense_right(log: dict[Replica, list[Cell]]) -> None:
    tiles = Tiles()
    tiles._rows.apply([Run(replica, 0, len(cells), bound(replica, cells)) for replica, cells in log.items()])
    each, me = tiles.tile("r", "x"), Replica("me", 1)
    each.put("good", node=me, tags=["e"])
    assert (each.text, each.verify_integrity(), each.exists, "e" in each.tags) == ("good", True, True, True)
    each.constraints.add("e", node=me)
    each.constraints.remove("e", node=me)
    assert "e" not in each.constraints
    each.delete(node=me)
    assert each.deleted
    each.purge(node=me)
    assert each._index.cells(each._key) == []


@pytest.mark.parametrize("harm", ["page missing", "page changed", "page too much", "size"])
def test_a_damaged_content_reads_as_nothing_and_is_put_right_by_the_next(harm: str) -> None:
    content = b"x" * (PAGE_BYTES + 5)
    hash_ = hashlib.blake2b(content, digest_size=32).digest()
    cells = [
        make_cell(CONTENT, KEY, [5, len(content) + (harm == "size"), hash_]),
        make_cell(CONTENT_PAGE, f"{KEY}{SEPARATOR}0", content[:PAGE_BYTES]),
        make_cell(CONTENT_PAGE, f"{KEY}{SEPARATOR}1", b"y" * (6 if harm == "page too much" else 5)),
    ]
    if harm == "page missing":
        del cells[1]
    tiles = FleetTiles()
    tiles._rows.write_all(Replica("liar", 1), cells)
    each = tiles["r", "x"]
    assert (each.content, each.verify_integrity(), each.exists, each.content_hash) == (b"", False, True, hash_)
    each.put("good", node="a")
    assert (each.text, each.verify_integrity()) == ("good", True)
    assert len(each._index.cells(each._key)) == 3


def test_the_pure_tile_brings_no_clock() -> None:
    t = PureFleetTile("r", "x")
    t.put("1", node="a")
    t.put("2", node="b")
    assert (t.created, t.updated) == (0, 1)
