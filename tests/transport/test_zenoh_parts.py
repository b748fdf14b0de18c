"""Lists of replies in pages: bounded, complete or not at all, and safe against what others may send."""

import struct

import pytest

from constraint_crdt.transport.zenoh_session import (
    PAGE_BYTES,
    PAGE_REPLIES,
    SHELF_LISTS,
    SHELF_SECONDS,
    Header,
    Page,
    PendingPages,
    encode_turn,
)


def collect(page: list[tuple[bytes, bytes]], start: int = 0, *, without: int | None = None) -> Page:
    got = Page(start)
    for position, (header, payload) in enumerate(page):
        if position != without:
            got.add(header, payload)
    return got


def header_of(page: Page) -> Header:
    assert page.header is not None
    return page.header


def test_pages_stay_within_bytes_and_number() -> None:
    shelf = PendingPages()
    assert len(shelf.first_page([bytes(PAGE_BYTES // 4)] * 9, 0.0)) == 4
    assert len(shelf.first_page([b""] * (PAGE_REPLIES + 1), 0.0)) == PAGE_REPLIES


@pytest.mark.parametrize("size", [1_000, 22_000, 33_000, 60_000, 65_000, 65_536, 100_000, 131_072, 262_144])
def test_a_page_fits_into_the_queue_of_zenoh_with_room(size: int) -> None:
    """A reply that does not fit into the rest of a batch begins another, and a longer one takes several."""
    batch, overhead, queue = 65_535, 200, 16
    used, rest = 0, 0
    for header, payload in PendingPages().first_page([bytes(size)] * 1000, 0.0):
        length = len(header) + len(payload) + overhead
        if length > rest:
            used += (batches := -(-length // batch))
            rest = batches * batch
        rest -= length
    assert used <= queue - 3


def test_a_page_of_an_older_responder_is_taken_whole() -> None:
    page = Page(0)
    for n in range(8):
        complete = page.add(struct.pack("!8sIII", b"t" * 8, n, 8, 8), bytes(65_536))
    assert complete
    assert len(page.payloads) == 8


def test_what_is_lost_in_a_page_is_asked_for_again() -> None:
    shelf, replies = PendingPages(), [bytes([n]) * (PAGE_BYTES // 4) for n in range(10)]
    first = collect(shelf.first_page(replies, 0.0), without=2)
    assert first.payloads == replies[:2]
    turn = encode_turn(header_of(first).token, 2)
    second = collect(shelf.next_page(turn, 0.0) or [], 2)
    assert second.payloads == replies[2:6]
    assert header_of(second).total == 10
    assert len(shelf) == 1
    last = collect(shelf.next_page(encode_turn(header_of(first).token, 6), 0.0) or [], 6)
    assert last.payloads == replies[6:]
    assert len(shelf) == 0, "the last page frees the list"


def test_a_list_of_one_page_is_not_kept() -> None:
    shelf = PendingPages()
    shelf.first_page([b"x"] * 3, 0.0)
    assert len(shelf) == 0


def test_lists_nobody_comes_back_for_are_forgotten_by_number_and_by_time() -> None:
    shelf, long = PendingPages(), [bytes(PAGE_BYTES)] * 2
    pages = [shelf.first_page(long, n / 10) for n in range(SHELF_LISTS + 1)]
    assert len(shelf) == SHELF_LISTS
    assert shelf.next_page(encode_turn(header_of(collect(pages[0])).token, 1), 5.0) is None
    assert shelf.next_page(encode_turn(header_of(collect(pages[-1])).token, 1), 5.0) is not None
    shelf.first_page([b"x"], 5.0 + SHELF_SECONDS)
    assert len(shelf) == 0


@pytest.mark.parametrize("turn", [b"", b"x" * 12, encode_turn(b"x" * 8, 0), b"x" * 13, struct.pack("!I", 1)])
def test_a_turn_that_names_nothing_gets_nothing(turn: bytes) -> None:
    shelf = PendingPages()
    shelf.first_page([bytes(PAGE_BYTES)] * 2, 0.0)
    assert shelf.next_page(turn, 0.0) is None


def test_a_page_takes_no_more_than_its_bounds_from_anybody() -> None:
    page = Page(0)
    for n in range(2 * PAGE_REPLIES):
        page.add(struct.pack("!8sIII", b"t" * 8, n, 2**31, 2**31), b"")
    assert len(page.payloads) == PAGE_REPLIES
    page = Page(0)
    for n in range(100):
        page.add(struct.pack("!8sIII", b"t" * 8, n, 2**31, 2**31), bytes(PAGE_BYTES // 2))
    assert sum(map(len, page.payloads)) <= 2 * PAGE_BYTES
    page = Page(0)
    assert not page.add(b"short", b"x")
    assert page.header is None
    page.add(struct.pack("!8sIII", b"a" * 8, 0, 2, 2), b"mine")
    page.add(struct.pack("!8sIII", b"b" * 8, 1, 2, 2), b"of another list")
    assert page.payloads == [b"mine"]
