"""Cells: the bytes received are kept, and nothing out of bounds becomes a cell."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt import ConstraintCrdtError, Replica
from constraint_crdt.crdt.cells import REMOVE, make_cell, make_removal, read_cell, removed_dots
from constraint_crdt.crdt.limits import ABOUT_BYTES, CELL_BYTES, ID_BYTES, MAX_COUNT
from constraint_crdt.types.counters import COUNTS, counts_value
from constraint_crdt.types.definition import ADD, definition_value
from constraint_crdt.types.nodes import NODE, node_value
from constraint_crdt.types.register import POSITION, position_value

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
        ([ADD, "c", ["x < 1.0", 3]], "severity of a definition"),
        ([ADD, "c", ["x < 1.0", -1]], "severity of a definition"),
        ([ADD, "c", [None, 1, "y" * (ABOUT_BYTES + 1)]], "text of a definition"),
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
