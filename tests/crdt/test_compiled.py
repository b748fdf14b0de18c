"""The compiled core beside its specification: the same cells, the same refusals, the same state; and no memory lost."""

import gc
import os
import random
import subprocess
import sys
import zlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt.crdt import pure_cells
from constraint_crdt.crdt.cells import COMPILED, make_cell
from constraint_crdt.crdt.clock import Replica
from tests.crdt.drawn_messages import drawn_message, outcome

if COMPILED:
    from constraint_crdt.crdt import _cells

pytestmark = pytest.mark.skipif(not COMPILED, reason="the compiled core was not built, or is not wanted")

BUDGET = 1_000_000 if os.environ.get("CONSTRAINT_CRDT_BUDGET") == "nightly" else 700
A, B = Replica("a", 1), Replica("b", 2)

keys = st.sampled_from(["a", "b", "c", "ä", "", "k" * 40])
replicas = st.sampled_from([A, B])


def cores() -> tuple[ModuleType, ModuleType]:
    return _cells, pure_cells


def _lines(pure: str) -> list[str]:
    command = [sys.executable, "-m", "tests.crdt.drawn_messages", "0", str(BUDGET)]
    environment = {**os.environ, "CONSTRAINT_CRDT_PURE": pure}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.splitlines()


@pytest.mark.long
@pytest.mark.processes
@pytest.mark.timeout(7200 if BUDGET > 10_000 else 120)
def test_both_cores_accept_and_refuse_the_same_messages() -> None:
    compiled, pure = _lines("0"), _lines("1")
    assert (compiled[0], pure[0]) == ("compiled", "pure")
    assert compiled[1:] == pure[1:]


@pytest.mark.slow
def test_many_of_the_drawn_messages_are_accepted_and_many_refused() -> None:
    outcomes = [outcome(drawn_message(number)) for number in range(300)]
    refused = sum(each.startswith(b"refused") for each in outcomes)
    assert 60 < refused < 240
    assert len(set(outcomes)) > 100


def shape(cell: Any) -> object:
    return cell and (cell.kind, cell.key, cell.data, cell.seq, cell.replica, cell.digest)


def holder_shape(holder: Any) -> object:
    return {replica: shape(cell) for replica, cell in holder.items()} if isinstance(holder, dict) else shape(holder)


class Pair:
    """A cell of each core."""

    def __init__(self, kind: int, key: str, seq: int, replica: Replica) -> None:
        data = make_cell(kind, key, seq if kind == 3 else None).data
        self.each = [core.Cell(kind, key, data, seq, replica) for core in cores()]


cells = st.builds(Pair, st.sampled_from([1, 3]), keys, st.integers(1, 9), replicas)


@pytest.mark.slow
@given(
    st.lists(st.tuples(st.sampled_from(["put", "put_first", "drop", "of", "del", "copy", "put_new"]), st.lists(cells, min_size=1)))
)
def test_tables_do_the_same(steps: Sequence[tuple[str, list[Pair]]]) -> None:
    tables = [core.Table() for core in cores()]
    for name, pairs in steps:
        results: list[object] = []
        for place in range(2):
            table, chosen = tables[place], [pair.each[place] for pair in pairs]
            try:
                match name:
                    case "of":
                        results.append(shape(table.of(chosen[0].key, chosen[0].replica)))
                    case "del":
                        del table[chosen[0].key]
                        results.append(None)
                    case "copy":
                        tables[place] = table.copy()
                        results.append(None)
                    case "put_new":
                        results.append(table.put_new(chosen))
                    case _:
                        found = getattr(table, name)(chosen[0])
                        results.append(found if isinstance(found, bool) else shape(found))
            except KeyError as error:
                results.append(str(error))
        assert results[0] == results[1]
        seen = [[(key, holder_shape(held)) for key, held in table.items()] for table in tables]
        assert seen[0] == seen[1]
        assert len(tables[0]) == len(tables[1]) == len(list(tables[0])) == len(list(tables[0].values()))
        for key in ("a", "zz", 1, None, 2**70, "\ud800"):
            assert (key in tables[0]) == (key in tables[1])


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4)), max_size=30), st.integers(0, 3))
def test_gaps_are_the_same_and_bind_what_they_were_made_of(steps: list[tuple[int, int]], behind: int) -> None:
    seqs, seq = [], 0
    for step, times in steps:
        for _ in range(times):
            seq += step
            seqs.append(seq)
    rows = [[core.Cell(1, "a", b"\x92\x01\xa1a", each, A) for each in seqs] for core in cores()]
    hi = seq + behind
    gaps = [core.gaps_of(row, hi) for core, row in zip(cores(), rows, strict=True)]
    assert gaps[0] == gaps[1]
    for core, row in zip(cores(), rows, strict=True):
        again = [core.Cell(each.kind, each.key, each.data) for each in row]
        if seqs:
            assert not core.bind_cells(again, B, seqs[0], hi, gaps[0])
            assert [each.replica for each in again] == [core.UNBOUND] * len(again)
        assert core.bind_cells(again, B, 0, hi, gaps[0])
        assert [(each.seq, each.replica) for each in again] == [(each, B) for each in seqs]
        assert [core.position(row, lo) for lo in range(9)] == [sum(each <= lo for each in seqs) for lo in range(9)]


clocks = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from([1, 2, 300, 2**63 - 1]))


@pytest.mark.slow
@given(clocks, clocks, st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from([0, 1, 299, 2**63 - 1]))))
def test_clocks_are_compared_alike(mine: dict[str, int], theirs: dict[str, int], entries: list[tuple[str, int]]) -> None:
    ahead = [core.ahead(mine, theirs) for core in cores()]
    assert ahead[0] == ahead[1] == [(key, theirs.get(key, 0)) for key in mine if mine[key] > theirs.get(key, 0)]
    lowered = [core.lowered(mine, entries) for core in cores()]
    assert lowered[0] == lowered[1]
    rows: dict[str, Any] = dict.fromkeys(mine, 0) | {"a": "a whole row"}
    picked = [core.pick(rows, ahead[0], str, lambda *args: args) for core in cores()]
    assert picked[0] == picked[1] == ["a whole row" if each == ("a", 0) else each for each in ahead[0]]


def test_calls_on_other_values_are_refused() -> None:
    for core in cores():
        with pytest.raises(KeyError):
            core.pick({}, [("a", 0)], str, print)
        with pytest.raises((TypeError, ValueError)):
            core.lowered({"a": 1}, ["abc"])
        with pytest.raises(ZeroDivisionError):
            core.pick({"a": 1}, [("a", 0)], str, lambda *_: 1 // 0)


@given(st.binary(max_size=300), st.integers(0, 65), st.binary(max_size=17), st.binary(max_size=65))
def test_hashes_of_bytes_are_the_same(data: bytes, size: int, person: bytes, key: bytes) -> None:
    found: list[object] = []
    for core in cores():
        try:
            found.append(core.blake(data, size, person, key))
        except ValueError:
            found.append(None)
    assert found[0] == found[1]
    assert (found[0] is None) == (not 0 < size <= 64 or len(person) > 16 or len(key) > 64)
    assert _cells.blake(data, 16, b"") == pure_cells.blake(data, 16, b"")


@pytest.mark.slow
@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(1, 70), st.booleans()), max_size=12),
    st.sampled_from([1, 2, 16, 17]),
    st.sampled_from([1, 16, 32]),
)
def test_the_hashes_of_a_row_are_the_same(stretches: list[tuple[int, int, bool]], fan: int, size: int) -> None:
    """`stretches`: seqs that are left out, cells after them, and if these are all of the kind that counts."""
    seqs, seq, levels = list[tuple[int, int]](), 0, []
    for gap, cells_, counts in stretches:
        seqs += [(seq + gap + place, 1 if counts or place % 3 else 28) for place in range(cells_)]
        seq += gap + cells_
    for core in cores():
        row = [core.Cell(kind, "a", b"\x92\x01\xa1a", each, A) for each, kind in seqs]
        core.fill_digests(row, bytes(32), b"row")
        below = core.hash_blocks(row, 28, fan, size, b"level 0")
        above = core.hash_level(below, fan, size, b"level 1")
        levels.append((list(below.items()), list(above.items())))
    assert levels[0] == levels[1]
    assert [place for place, _ in levels[0][0]] == sorted({each // fan for each, kind in seqs if kind == 1})


_HASHES = st.dictionaries(st.integers(0, 40), st.binary(min_size=4, max_size=4), max_size=20)


@pytest.mark.slow
@given(
    _HASHES,
    st.dictionaries(st.integers(0, 45), st.none() | st.binary(min_size=4, max_size=4), max_size=6),
    st.sampled_from([1, 3, 16]),
)
def test_the_hashes_above_changed_ones_are_the_same_and_those_of_the_whole_level(
    before: dict[int, bytes], changed: dict[int, bytes | None], fan: int
) -> None:
    found = [core.hash_above(before, changed, fan, 4, b"level") for core in cores()]
    assert list(found[0].items()) == list(found[-1].items())
    after = {place: part for place, part in sorted({**before, **changed}.items()) if part is not None}
    whole = _cells.hash_level(after, fan, 4, b"level")
    assert found[0] == {place: whole.get(place) for place in {each // fan for each in changed}}
    roots = [core.hash_places(before, changed, 4, 32, b"root") for core in cores()]
    joined = b"".join(place.to_bytes(8, "big") + part for place, part in after.items())
    assert roots[0] == roots[-1] == _cells.blake(joined, 32, b"root")


def _row(core: ModuleType, kinds: dict[int, int]) -> list[Any]:
    """Hashed cells by seq and kind."""
    cells = [core.Cell(kind, f"{seq}", b"\x92\x01\xa1a", seq, A) for seq, kind in sorted(kinds.items())]
    core.fill_digests(cells, bytes(32), b"row")
    return cells


@pytest.mark.slow
@given(
    st.dictionaries(st.integers(1, 90), st.sampled_from([1, 3, 28]), max_size=40),
    st.integers(0, 90),
    st.sets(st.integers(1, 90), max_size=8),
    st.sets(st.integers(1, 90), max_size=8),
    st.dictionaries(st.integers(0, 45), st.none() | st.binary(min_size=16, max_size=16), max_size=6),
    st.sampled_from([1, 3, 16]),
)
def test_the_path_of_a_change_is_the_same_and_leads_to_the_tree_of_the_row_after_it(
    kinds: dict[int, int], last: int, dropped: set[int], gone: set[int], blocks: dict[int, bytes | None], fan: int
) -> None:
    form = 28, fan, 16, (b"level 0", b"level 1"), 32, b"root"
    paths, trees = [], []
    for core in cores():
        row = _row(core, kinds)
        old, new = [each for each in row if each.seq <= last], [each for each in row if each.seq > last]
        standing = [each for each in old if each.seq not in dropped]
        levels = [core.hash_blocks(standing, 28, fan, 16, b"level 0")]
        levels.append(core.hash_level(levels[0], fan, 16, b"level 1"))
        path, root = core.hash_path(old, dropped or None, new, gone, blocks, levels, form)
        paths.append(([list(each.items()) for each in path], root))
        plain, _ = core.hash_path(old, dropped, new, gone, {}, levels, form)
        core.put_hashes(levels, plain)
        after = [each for each in (*standing, *new) if each.seq not in gone]
        trees.append((levels, core.hash_blocks(after, 28, fan, 16, b"level 0")))
    assert paths[0] == paths[-1]
    assert trees[0] == trees[-1]
    levels, lowest = trees[0]
    assert levels == [lowest, cores()[0].hash_level(lowest, fan, 16, b"level 1")]


@pytest.mark.slow
@given(
    st.dictionaries(st.integers(1, 90), st.just(1), max_size=40),
    st.integers(0, 91),
    st.integers(0, 91),
    st.none() | st.sets(st.integers(1, 90), max_size=8),
)
def test_cells_between_two_seqs_are_found_alike(kinds: dict[int, int], lo: int, hi: int, dropped: set[int] | None) -> None:
    expected = [seq for seq in sorted(kinds) if lo < seq <= hi and seq not in (dropped or ())]
    for core in cores():
        row = _row(core, kinds)
        assert [each.seq for each in core.standing(row, lo, hi, dropped)] == expected
        assert core.position(row, lo) == sum(seq <= lo for seq in kinds)


def test_cells_that_others_take_the_place_of_are_found_alike() -> None:
    for core in cores():
        standing = [core.Cell(1, "a", b"\x92\x01\xa1a", 3, A), core.Cell(1, "a", b"\x92\x01\xa1a", 4, B)]
        standing += [core.Cell(28, "", b"\x92\x1c\xa0", 5, A), core.Cell(3, 6, b"\x92\x03\xc0", 6, A)]
        tables: dict[int, Any] = {}
        for cell in standing:
            tables.setdefault(cell.kind, core.Table()).put(cell)
        new = [(1, "a", A), (1, "a", B), (1, "b", A), (28, "", A), (3, 6, A), (9, "a", A)]
        cells = [core.Cell(kind, key, b"\x92\x01\xa1a", 7, replica) for kind, key, replica in new]
        assert core.superseded(tables, cells, 28) == [3, 4]


@given(
    st.lists(st.tuples(st.sampled_from([1, 3]), st.sampled_from(["a", "b", "\ud800", 5, 6, 2**70, "k" * 40, "k" * 41])), max_size=6)
)
def test_repeated_slots_are_found_alike(slots: list[tuple[int, str | int]]) -> None:
    rows = [[core.Cell(kind, key, b"\x92\x01\xa1a", 1, A) for kind, key in slots] for core in cores()]
    assert _cells.has_repeats(rows[0]) == pure_cells.has_repeats(rows[1]) == (len(set(slots)) < len(slots))


@pytest.mark.parametrize("core", cores() if COMPILED else ())
def test_a_long_row_without_repeats_has_none_until_one_comes(core: ModuleType) -> None:
    row = [core.Cell(1, f"{number}", b"\x92\x01\xa1a", number, A) for number in range(1, 3000)]
    assert not core.has_repeats(row)
    assert core.has_repeats([*row, row[1234]])
    assert not core.has_repeats([])


def test_the_compiled_hashes_refuse_what_they_cannot_hash() -> None:
    cell = _cells.Cell(1, "a", b"\x92\x01\xa1a", 1, A)
    wrong: Any = "of another type"
    for fan, size, person in ((0, 16, b""), (16, 0, b""), (16, 33, b""), (16, 16, bytes(17))):
        with pytest.raises(ValueError, match="out of bounds"):
            _cells.hash_blocks([cell], 28, fan, size, person)
        with pytest.raises(ValueError, match="out of bounds"):
            _cells.hash_level({0: bytes(16)}, fan, size, person)
    for below in ({1: bytes(16), 0: bytes(16)}, {0: bytes(15)}, {-1: bytes(16)}):
        with pytest.raises(ValueError, match="ascending order"):
            _cells.hash_level(below, 16, 16, b"")
    for fan, size, person in ((0, 16, b""), (16, 0, b""), (16, 33, b""), (17, 16, b""), (2**40, 16, b""), (16, 16, bytes(17))):
        with pytest.raises(ValueError, match="out of bounds"):
            _cells.hash_above({}, {0: bytes(16)}, fan, size, person)
    for place in (-1, 2**63 - 1):
        with pytest.raises(ValueError, match="a place is out of bounds"):
            _cells.hash_above({}, {place: bytes(16)}, 16, 16, b"")
    odd: list[tuple[dict[int, bytes], dict[int, bytes | None]]] = [({1: bytes(15)}, {0: bytes(16)}), ({}, {0: bytes(17)})]
    for before, changed in odd:
        with pytest.raises(ValueError, match="of one size"):
            _cells.hash_above(before, changed, 16, 16, b"")
        with pytest.raises(ValueError, match="of one size"):
            _cells.hash_places(before, changed, 16, 32, b"")
    with pytest.raises(TypeError):
        _cells.hash_above({1: wrong}, {0: None}, 16, 16, b"")
    for size, wide, person in ((0, 16, b""), (33, 16, b""), (16, 0, b""), (16, 33, b""), (16, 16, bytes(17))):
        with pytest.raises(ValueError, match="out of bounds"):
            _cells.hash_places({}, {}, size, wide, person)
    with pytest.raises(ValueError, match="out of bounds"):
        _cells.hash_places({-1: bytes(16)}, {}, 16, 32, b"")
    trees: list[tuple[list[dict[int, bytes]], tuple[bytes, ...]]] = [([], ()), ([{}], ()), ([{}], (b"", b""))]
    for levels, persons in trees:
        with pytest.raises(ValueError, match="a purpose for each level"):
            _cells.hash_path([], None, [], (), {}, levels, (28, 16, 16, persons, 32, b""))
        with pytest.raises(ValueError, match="each level has its changes"):
            _cells.put_hashes([*levels, {}], [])
    for fan, place in ((0, 0), (16, -1), (16, 2**62)):
        with pytest.raises(ValueError, match="out of bounds"):
            _cells.hash_path([], None, [], (), {place: None}, [{}], (28, fan, 16, (b"",), 32, b""))
    damaged: list[tuple[list[Any], list[Any]]] = [([wrong], [{}]), ([], [wrong, {}])]
    for cells, tree in damaged:
        with pytest.raises(TypeError):
            _cells.hash_path(cells, None, [], (0,), {}, tree, (28, 16, 16, (b"",) * len(tree), 32, b""))


@given(
    st.binary(min_size=32, max_size=32),
    st.integers(10, 266),
    st.lists(st.tuples(st.integers(1, 2**63 - 1), st.sampled_from([0, 1, 60, 100, 118, 127, 128, 300])), max_size=12),
)
def test_digests_and_their_sums_are_the_same(key: bytes, prefix: int, parts: list[tuple[int, int]]) -> None:
    found = []
    for core in cores():
        row = [core.Cell(1, "a", b"\x92\x01\xa1a" + bytes(size), seq, A) for seq, size in parts]
        assert core.all_hashed(row) == (not row)
        core.fill_digests(row, key, bytes(range(prefix % 256)) + bytes(prefix // 256))
        assert core.all_hashed(row)
        found.append(([each.digest for each in row], core.sum_digests(row)))
    assert found[0] == found[1]


@pytest.mark.slow
@given(st.lists(st.tuples(st.sampled_from([A, B]), st.integers(1, 2**63 - 1), st.sampled_from([0, 1, 300])), max_size=12))
def test_bytes_and_the_spans_of_rows_are_the_same(parts: list[tuple[Replica, int, int]]) -> None:
    found = []
    for core in cores():
        cells = [core.Cell(1, "a", b"\x92\x01\xa1a" + bytes(size), seq, replica) for replica, seq, size in parts]
        found.append((core.data_bytes(cells), core.row_spans(cells)))
    assert found[0] == found[1]
    assert found[0][0] == sum(4 + size for _, _, size in parts)


@pytest.mark.slow
@given(
    st.lists(
        st.binary(max_size=12) | st.sampled_from([make_cell(3, "", 7).data, make_cell(3, "k", [1, 2**63 - 1]).data]), max_size=6
    )
)
def test_damaged_cells_read_the_same(damaged: list[bytes]) -> None:
    made = [[core.Cell(3, "k", data, 1, A) for data in damaged] for core in cores()]
    assert [_cells.counts_of(each) for each in made[0]] == [pure_cells.counts_of(each) for each in made[1]]
    assert _cells.total_counts(made[0]) == pure_cells.total_counts(made[1])
    assert _cells.join_cells(made[0]) == pure_cells.join_cells(made[1])
    assert [cell.data for cell in _cells.of_kinds(made[0], b"\x03")] == damaged
    assert _cells.of_kinds(made[0], b"\x01") == []
    assert [cell.data for cell in _cells.ending(made[0])] == [cell.data for cell in pure_cells.ending(made[1])]


@pytest.mark.slow
@given(
    st.one_of(
        st.binary(max_size=2_000),
        st.lists(
            st.sampled_from([b"speed_mps <= ", b"dock-", b"a", b"\0", b"12", bytes(300), bytes(range(256))]), max_size=900
        ).map(b"".join),
    )
)
def test_what_either_core_compressed_is_read_by_zlib_and_no_longer_than_allowed(data: bytes) -> None:
    for core in cores():
        packed = core.deflate(data, len(data) + 400)
        assert packed is not None
        assert zlib.decompress(packed) == data
        assert core.deflate(data, len(packed)) == packed
        assert core.deflate(data, len(packed) - 1) is None


@pytest.mark.slow
def test_rare_symbols_get_codes_of_the_longest_length() -> None:
    """Frequencies of Fibonacci would have codes of 24 bits in the tree of Huffman: the format has 15."""
    counts = [1, 1]
    while len(counts) < 24:
        counts.append(counts[-1] + counts[-2])
    data = bytes(random.Random(1).sample(b"".join(bytes([symbol]) * count for symbol, count in enumerate(counts)), sum(counts)))
    packed = _cells.deflate(data, len(data))
    assert packed is not None
    assert zlib.decompress(packed) == data


def test_a_cell_keeps_what_is_written_to_it() -> None:
    for core in cores():
        cell = core.Cell(3, "k", make_cell(3, "k", 7).data, 5, A, 9)
        cell.data = make_cell(3, "k", 70_000).data
        assert (cell.key, core.counts_of(cell), cell.digest) == ("k", (70_000, 0), 9)
        cell.key, cell.seq, cell.replica, cell.digest = "other", 8, B, 2**255
        assert (cell.key, cell.seq, cell.replica, cell.digest) == ("other", 8, B, 2**255)
        removal = core.Cell(2, 0, b"\x93\x02\xc0\x90")
        core.bind_cells([removal], A, 0, 4, [])
        assert (removal.key, removal.seq) == (4, 4)
        removal.seq = 9
        assert removal.key == 4


@pytest.mark.long
def test_no_memory_is_lost() -> None:
    """Of 10,000 messages, each taken in or refused by a node of its own."""
    messages = [drawn_message(number) for number in range(100)]
    chance = random.Random(1)

    def work(count: int) -> int:
        for _ in range(count):
            outcome(chance.choice(messages))
        gc.collect()  # the views of a state and its rows know each other
        return sys.getallocatedblocks()

    work(2_000)
    before = work(100)
    assert work(10_000) - before < 500
