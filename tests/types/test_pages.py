"""Pages: what they hold comes back, and what they do not hold takes no room."""

import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt import ConstraintCrdtError
from constraint_crdt.types import SketchCRDT
from constraint_crdt.types.view import pack_page, unpack_page


@given(st.one_of(st.binary(max_size=300), st.integers(0, 2048).map(bytes)))
def test_a_page_comes_back_and_never_grows_by_more_than_a_byte(content: bytes) -> None:
    packed = pack_page(content)
    assert unpack_page(packed, len(content)) == content
    assert len(packed) <= len(content) + 1


@given(st.binary(max_size=300), st.integers(0, 300))
def test_any_bytes_are_a_page_of_that_size_or_none(data: bytes, size: int) -> None:
    content = unpack_page(data, size)
    assert content is None or len(content) == size


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"\x00abc",
        b"\x00abcde",
        b"\x02abcd",
        b"\x01",
        b"\x01garbage",
        b"\x01" + zlib.compress(b"abc"),
        b"\x01" + zlib.compress(b"abcde"),
        b"\x01" + zlib.compress(b"abcd")[:-1],
        b"\x01" + zlib.compress(b"abcd") + b"more",
    ],
)
def test_a_page_of_another_size_or_with_more_behind_it_is_none(data: bytes) -> None:
    assert unpack_page(data, 4) is None


@pytest.mark.slow
def test_a_page_that_inflates_without_end_takes_no_memory() -> None:
    bomb = b"\x01" + zlib.compress(bytes(16 * 2**20), 9)
    assert len(bomb) < 24 * 1024, "it fits into a cell"
    tracemalloc.start()
    try:
        assert unpack_page(bomb, 2048) is None
        assert tracemalloc.get_traced_memory()[1] < 2**17
    finally:
        tracemalloc.stop()


def test_a_name_that_pages_cannot_be_numbered_under_is_refused() -> None:
    for name, why in (("a\x1fb", "U\\+001F"), ("n" * 257, "1 to 256 bytes"), ("\ud800", "Unicode")):
        with pytest.raises(ConstraintCrdtError, match=why):
            SketchCRDT(name=name)
