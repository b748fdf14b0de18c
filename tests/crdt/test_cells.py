"""Cells: the bytes received are kept, and nothing out of bounds becomes a cell."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt import ConstraintCrdtError, Replica
from constraint_crdt.crdt.cells import (
    DOTS_PER_REMOVAL,
    REMOVE,
    SEPARATOR,
    Cell,
    make_cell,
    make_key,
    make_removal,
    read_cell,
    removals_of,
    removed_dots,
    split_key,
)
from constraint_crdt.crdt.limits import ABOUT_BYTES, CELL_BYTES, ID_BYTES, KEY_BYTES, MAX_COUNT
from constraint_crdt.types.counters import COUNTS, counts_value, make_counts
from constraint_crdt.types.definition import ADD, definition_value
from constraint_crdt.types.nodes import NODE, node_value
from constraint_crdt.types.tile_cells import POSITION, position_value

encode = msgspec.msgpack.Encoder().encode
A = Replica("a", 7)


def refusal(cell: object) -> str:
    """The sentence with which `read_cell`, or the decoder under it, refuses. (The codec makes one error of all.)"""
    with pytest.raises((ConstraintCrdtError, msgspec.DecodeError, UnicodeError, RecursionError)) as caught:
        read_cell(cell if isinstance(cell, bytes) else encode(cell))
    return str(caught.value)


def test_values_come_back() -> None:
    assert definition_value(make_cell(ADD, "c", None)).when is None
    definition = definition_value(make_cell(ADD, "c", ["x < 1.0", 2, "why"]))
    assert (definition.when, definition.severity, definition.about) == ("x < 1.0", 2, "why")
    assert counts_value(make_cell(COUNTS, "", [MAX_COUNT, 0])) == (MAX_COUNT, 0)
    position = position_value(make_cell(POSITION, "", [-(2**31), 2**31 - 1, 5, [["a", 7, 3]]]))
    assert (position.a, position.b, position.time, [(dot.replica, dot.seq) for dot in position.overwrites]) == (
        -(2**31), 2**31 - 1, 5, [(A, 3)],
    )  # fmt: skip
    assert node_value(make_cell(NODE, "", ["1.0", 1])).software == "1.0"
    removal = make_removal([("c", [(A, 3)]), ("d", [(A, 4), (Replica("b", 0), 1)])])
    assert list(removed_dots(removal)) == [(ADD, "c", A, 3), (ADD, "d", A, 4), (ADD, "d", Replica("b", 0), 1)]


@pytest.mark.parametrize(
    "cell",
    [
        [ADD, "c"], [ADD, "x" * ID_BYTES, ["x < 1.0", 2, "y" * ABOUT_BYTES]], [REMOVE, None, []], [COUNTS, "", [0, 0]],
        [COUNTS, "c", [MAX_COUNT, MAX_COUNT]], [POSITION, "", [0, 0, 0]], [NODE, "", ["1.0", 1]], [99, None, 1], [0, "k", {}],
        [127, "", b"x"], [ADD, "c", None, b"tag"], [ADD, "\0"],
        # beyond the bounds of this version, as from one that raised them
        [ADD, "c", ["x < 1.0".ljust(5_000), 2, "y" * 1_500]], [ADD, "c", ["x < 1.0", 3]],
        [ADD, "c", ["x < 1.0", 1, None, [[f"{number:02}", "v" * 200] for number in range(99)], None, None, 1, [2**60, 0, None, 9]]],
    ],
)  # fmt: skip
def test_what_is_within_bounds_is_read_and_kept_as_it_is(cell: list[Any]) -> None:
    data = encode(cell)
    read = read_cell(data)
    assert (read.kind, read.key, read.data) == (cell[0], cell[1] if cell[1] is not None else 0, data)


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ([ADD, ""], "1 to 256 bytes"),
        ([ADD, "x" * (ID_BYTES + 1)], "1 to 256 bytes"),
        ([ADD, "é" * (ID_BYTES // 2 + 1)], "1 to 256 bytes"),
        ([ADD, None], "Expected `str`"),
        ([ADD, 5], "Expected `str`"),
        ([ADD, "c", ["x < 1.0", -1]], "severity of a definition"),
        ([REMOVE, "c", []], "Expected `null`"),
        ([REMOVE, None], "missing required|at least"),
        ([REMOVE, None, [["", []]]], "the key of what is removed must have"),
        ([REMOVE, None, [["c", [["", 0, 1]]]]], "a node id must have"),
        ([REMOVE, None, [["c", [["a", -1, 1]]]]], "an incarnation must be"),
        ([REMOVE, None, [["c", [["a", 0, MAX_COUNT + 1]]]]], "seq of a dot"),
        ([COUNTS, "c", [-1, 0]], "a count is out of bounds"),
        ([COUNTS, "c", [0, MAX_COUNT + 1]], "a count is out of bounds"),
        ([COUNTS, "c", [0]], "length"),
        ([COUNTS, "c", [0.5, 0]], "Expected `int`"),
        ([COUNTS, None, [0, 0]], "Expected `str`"),
        ([POSITION, "another", [0, 0, 0]], "key of a position"),
        ([POSITION, "", [2**31, 0, 0]], "coordinate"),
        ([POSITION, "", [0, -(2**31) - 1, 0]], "coordinate"),
        ([POSITION, "", [0, 0, -1]], "time of a position"),
        ([POSITION, "", [0, 0, 0, [["a", 0, -1]]]], "seq of a dot"),
        ([NODE, "another", ["1.0", 1]], "key of a node"),
        ([NODE, "", ["x" * (ID_BYTES + 1), 1]], "software version"),
        ([NODE, "", ["1.0", -1]], "wire version"),
        ([99, 5, 1], "Expected `str"),
        ([128, "k"], "array of two to four"),
        ([-1, "k"], "array of two to four"),
        ([ADD], "array of two to four"),
        ([ADD, "c", None, b"tag", 1], "array of two to four"),
        ([ADD, "c", None, "not bytes"], "Expected `bytes"),
        ("no array", "array of two to four"),
        (None, "array of two to four"),
        (b"", "array of two to four"),
        ([99, "k", b"x" * CELL_BYTES], "more than the 32768 allowed"),
        (b"\x93\x01\xa1c", "truncated"),
        (b"\x92\x01\xa3\xed\xa0\x80", "utf-8"),
        (b"\x92\x01\xa1c\xc0", "trailing"),
        (b"\x93\x63\xa1k" + b"\x91" * 20_000, "recursion"),
    ],
)
def test_what_is_out_of_bounds_is_refused(cell: object, reason: str) -> None:
    sentence = refusal(cell)
    assert any(each in sentence for each in reason.split("|")), sentence


@given(st.binary(max_size=40))
def test_bytes_at_random_are_refused_or_kept(data: bytes) -> None:
    try:
        cell = read_cell(data)
    except (ConstraintCrdtError, msgspec.DecodeError, UnicodeError):
        return
    assert cell.data == data


@pytest.mark.parametrize("value", ["\ud800", 2**64, -(2**63) - 1, {"k": "\udfff"}])
def test_what_has_no_wire_form_is_not_made(value: object) -> None:
    with pytest.raises(ConstraintCrdtError, match="valid Unicode text and integers of at most 64 bits"):
        make_cell(99, "k", value)
    with pytest.raises(ConstraintCrdtError):
        make_cell(99, "\ud800", None)


# --- keys and removals ---------------------------------------------------------------------------------------------------

TILE = 14
"""A kind whose key has two parts."""


@pytest.mark.slow
@given(st.lists(st.text(st.characters(exclude_characters=SEPARATOR, codec="utf-8"), max_size=5), min_size=1, max_size=4), st.text())
def test_the_parts_of_a_key_come_back(parts: list[str], last: str) -> None:
    assert split_key(make_key(*parts, last), len(parts) + 1) == [*parts, last], "also where the last one has the separator in it"
    assert split_key(make_key(*parts), len(parts) + 3) == parts, "fewer than asked for"


def test_the_separator_is_refused_in_all_parts_but_the_last() -> None:
    sentence = r"^a name that others are combined with must not contain the control character U\+001F$"
    for parts in (("a\x1fb", "c"), ("a", "b\x1f", "c")):
        with pytest.raises(ConstraintCrdtError, match=sentence):
            make_key(*parts)
    assert make_key("a", "b\x1f") == "a\x1fb\x1f"
    assert split_key(5, 2) == ["5"]


@pytest.mark.parametrize("kind", [ADD, COUNTS, TILE])
@pytest.mark.parametrize("letter", ["x", "é", "€", "\U0001f600"])
def test_a_key_is_bounded_in_bytes(kind: int, letter: str) -> None:
    most = KEY_BYTES if kind == TILE else ID_BYTES
    values: dict[int, object] = {ADD: None, COUNTS: [1, 2], TILE: [1, "a"]}
    size = len(letter.encode())
    longest = letter * (most // size) + "x" * (most % size)
    assert read_cell(encode([kind, longest, values[kind]])).key == longest
    assert refusal([kind, longest + "x", values[kind]]) == f"the key of a cell must have 1 to {most} bytes"


@pytest.mark.parametrize("length", [1, 2, 30, 31, 32, 33])
def test_adds_without_a_definition_read_the_same_whatever_their_length(length: int) -> None:
    for id_ in ("x" * length, "é" * (length // 2) + "x" * (length % 2)):
        for cell in (make_cell(ADD, id_, None), make_cell(ADD, id_, ["x < 1.0"]), make_cell(99, id_, None)):
            read = read_cell(cell.data)
            assert (read.kind, read.key, read.data) == (cell.kind, id_, cell.data)


@given(st.integers(0, MAX_COUNT), st.integers(0, MAX_COUNT))
def test_counts_without_violations_are_one_number(satisfied: int, violated: int) -> None:
    cell = make_counts("c", satisfied, violated)
    assert cell.data == encode([COUNTS, "c", [satisfied, violated] if violated else satisfied])
    read = read_cell(cell.data)
    assert counts_value(cell) == counts_value(read) == (satisfied, violated)
    assert counts_value(Cell(COUNTS, "c", cell.data)) == (satisfied, violated)


@pytest.mark.parametrize("count", [0, 1, DOTS_PER_REMOVAL, DOTS_PER_REMOVAL + 1, 2 * DOTS_PER_REMOVAL + 3])
def test_as_many_removals_as_it_takes_name_all_cells_once_and_fit(count: int) -> None:
    kinds = (ADD, COUNTS, TILE)
    keys = ["k" * ID_BYTES, "é" * (ID_BYTES // 2), make_key(*["x" * ID_BYTES] * 4)]
    cells = [
        Cell(kinds[number % 3], keys[number % 3], b"", number + 1, Replica("n" * ID_BYTES, MAX_COUNT - number % 2))
        for number in range(count)
    ]
    removals = removals_of(iter(cells))
    assert len(removals) == -(-count // DOTS_PER_REMOVAL)
    named = [each for removal in removals for each in removed_dots(read_cell(removal.data))]
    assert sorted(named) == sorted((cell.kind, cell.key, cell.replica, cell.seq) for cell in cells)
    assert all((removal.kind, removal.key) == (REMOVE, 0) for removal in removals)
    assert all(len(list(removed_dots(removal))) <= DOTS_PER_REMOVAL for removal in removals)


def test_removals_group_the_dots_of_one_slot_and_leave_out_the_kind_of_adds() -> None:
    cells = [Cell(kind, "c", b"", seq, A) for kind in (ADD, COUNTS) for seq in (1, 2)]
    [removal] = removals_of(cells)
    dots = [["a", 7, 1], ["a", 7, 2]]
    assert removal.data == encode([REMOVE, None, [["c", dots], ["c", dots, COUNTS]]])
    pairs = [("c", [(A, 1), (A, 2)])]
    assert make_removal(pairs).data == encode([REMOVE, None, [["c", dots]]])
    assert make_removal(pairs, COUNTS).data == encode([REMOVE, None, [["c", dots, COUNTS]]])
    assert list(removed_dots(make_removal(pairs, COUNTS))) == [(COUNTS, "c", A, 1), (COUNTS, "c", A, 2)]


def test_a_cell_of_the_largest_size_is_made_and_read_and_no_larger_one() -> None:
    exact = make_cell(99, "k", b"x" * (CELL_BYTES - 7))
    assert len(exact.data) == CELL_BYTES
    assert read_cell(exact.data).data == exact.data
    sentence = rf"^the cell would have {CELL_BYTES + 1} bytes, more than the {CELL_BYTES} that a cell may have$"
    with pytest.raises(ConstraintCrdtError, match=sentence):
        make_cell(99, "k", b"x" * (CELL_BYTES - 6))
    assert (
        refusal(encode([99, "k", b"x" * (CELL_BYTES - 6)]))
        == f"a cell has {CELL_BYTES + 1} bytes, more than the {CELL_BYTES} allowed"
    )
    assert refusal([128, "k"]) == "a cell must be an array of two to four elements: kind, key, value, tag"


@pytest.mark.parametrize(("seq", "allowed"), [(-1, False), (0, True), (MAX_COUNT, True), (MAX_COUNT + 1, False)])
def test_a_removal_names_seqs_from_zero_to_the_highest(seq: int, allowed: bool) -> None:
    data = make_removal([("x", [(Replica("a", 1), seq)])]).data
    if allowed:
        assert [each.seq for each in removed_dots(read_cell(data))] == [seq]
    else:
        with pytest.raises(ConstraintCrdtError, match=r"^the seq of a dot is out of bounds$"):
            read_cell(data)
