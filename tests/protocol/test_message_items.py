"""What a message costs is in proportion to the bytes that travelled: cells, runs and entries are counted before they are read."""

import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt import ConstraintCrdtError, GossipNode, Limits, VectorClock
from constraint_crdt.crdt.cells import array_length
from constraint_crdt.crdt.clock import Replica
from constraint_crdt.crdt.limits import DEFAULT_LIMITS, LARGE_BYTES, UNPACKED_BYTES, UNPACKED_GROWTH
from constraint_crdt.protocol.messages import Part, decode_message, encode_message, items_of
from constraint_crdt.protocol.transfers import most_unpacked

FEW = Limits(message_items=1_000)
SYNC, PING = b"\x96\x12\xc0\xa1p\x02\xc4\x20" + bytes(32), b"\x97\x11\xc0\xa1p\x02\xc4\x20" + bytes(32)
RUN = b"\x91\x93\x92\xa1p\x02\xce\x7f\xff\xff\xff"
STUBS = b"\x91\x97\x92\xa1p\x02\x01\x90\x90\x00\x00"


def array(element: bytes, count: int) -> bytes:
    return b"\xdd" + count.to_bytes(4, "big") + element * count


BOMBS = {
    "cells": SYNC + RUN + array(b"\x92\x63\xa1k", 100_000),
    "cells without a key": SYNC + RUN + array(b"\x92\x63\xc0", 100_000),
    "runs": SYNC + array(b"\x93\x00\x01\x90", 100_000),
    "entries": PING + b"\xc4\x08" + bytes(8) + array(b"\x92\x00\x01", 100_000),
    "stubs": SYNC + STUBS + array(b"\x94\x01\x01\xc0\xc4\x00", 100_000),
    "cells of many runs": SYNC + array(b"\x93\x92\xa1p\x02\x63" + b"\x9f" + b"\x92\x63\xc0" * 15, 6_000),
}


def packed(data: bytes) -> Part:
    """A message as a packed one, in some 4 % of its bytes: its growth is allowed."""
    packer = zlib.compressobj(9)
    content = b"".join(packer.compress(data[at : at + 500]) + packer.flush(zlib.Z_FULL_FLUSH) for at in range(0, len(data), 500))
    content += packer.flush()
    return Part(node=Replica("p", 2), transfer=bytes(8), index=0, count=1, size=len(content), chunk=content, unpacked=len(data))


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_more_items_than_the_bytes_on_the_way_allow_for_are_refused_before_they_are_read(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = BOMBS[name]
    part, victim = packed(data), GossipNode("victim", limits=FEW)
    victim.add_constraint("here before")
    before = victim.state_hash
    most = FEW.message_items + 5_000
    monkeypatch.setattr("constraint_crdt.crdt.cells.read_cells", lambda raw: pytest.fail("cells were read"))
    with pytest.raises(ConstraintCrdtError, match=r"is refused: its size allows for \d+, see `Limits\.message_items`"):
        decode_message(data, None, most_items=most)
    with pytest.raises(ConstraintCrdtError, match=r"see `Limits\.message_items`"):
        victim.receive(part)
    assert victim.state_hash == before
    assert victim.peer_count == 0


def test_gaps_for_more_cells_than_a_run_has_are_not_read() -> None:
    data = SYNC + b"\x91\x94\x92\xa1p\x02\x63\x91\x92\x63\xc0" + array(b"\x00", 100_000)
    with pytest.raises(ConstraintCrdtError, match="a run has 1 cells, and gaps for another number of them"):
        decode_message(data, None)


@given(st.integers(0, 2**32 - 1))
def test_the_length_of_an_array_is_read_from_its_head(length: int) -> None:
    head = bytes((0x90 | length,)) if length < 16 else b"\xdc" + length.to_bytes(2, "big") if length < 2**16 else b""
    for encoded in (head, b"\xdd" + length.to_bytes(4, "big")):
        if encoded:
            assert array_length(msgspec.Raw(encoded + b"\xc0")) == length


@pytest.mark.parametrize("value", [None, 7, 300, "text", b"bytes", {"a": 1}, True])
def test_a_value_that_is_no_array_has_no_length(value: object) -> None:
    assert array_length(msgspec.Raw(msgspec.msgpack.encode(value))) == 0


def many_equal_counts(nodes: int, constraints: int) -> GossipNode:
    """Rows that compress far better than the rows of a fleet do."""
    full = GossipNode("full", incarnation=1)
    for number in range(nodes):
        other = GossipNode(f"n{number}", incarnation=1)
        other.record_all({f"c{each}": (1, 0) for each in range(constraints)})
        full.receive(other.delta_since(VectorClock()))
    return full


@pytest.mark.slow
def test_a_sender_does_not_pack_what_its_reader_would_refuse() -> None:
    """And so an honest message arrives, however many items a byte of it would have held."""
    few = Limits(message_items=10)
    full = many_equal_counts(40, 100)
    full._outbound._limits = few
    message = full.delta_since(VectorClock())
    assert items_of(message) == 40 * 101 + 40
    blank = GossipNode("blank", limits=few)
    full.receive(blank.ping())
    wire = [decode_message(data) for data in full.encoded(message, "blank")]
    parts = [each for each in wire if isinstance(each, Part)]
    packs_to = len(zlib.compress(encode_message(message), 1))
    assert packs_to + few.message_items < items_of(message), "else the test shows nothing"
    assert all(part.unpacked is None for part in parts)
    for each in wire:
        blank.receive(each)
    assert blank.state_hash == full.state_hash


def test_more_cells_than_a_node_holds_are_refused_before_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    full, blank = many_equal_counts(1, 200), GossipNode("blank", limits=Limits(cells=100))
    data = encode_message(full.delta_since(VectorClock()))
    part = Part(node=full.replica, transfer=bytes(8), index=0, count=1, size=len(data), chunk=data)
    monkeypatch.setattr("constraint_crdt.crdt.cells.read_cells", lambda raw: pytest.fail("cells were read"))
    with pytest.raises(ConstraintCrdtError, match="more than the 100 cells that this node is set to hold"):
        blank.receive(part)


@given(st.integers(0, 2**40))
def test_what_a_message_may_become_grows_with_what_travels(size: int) -> None:
    staged = DEFAULT_LIMITS.staged_bytes
    most = most_unpacked(size, staged)
    assert most >= UNPACKED_BYTES, "0.1.0 sends so much at any size"
    assert most <= max(UNPACKED_BYTES, UNPACKED_GROWTH * size)
    if size <= LARGE_BYTES:
        assert most_unpacked(size, 20_000) == 20_000, "a node set to less takes less"


def test_ten_million_cells_pass_each_bound() -> None:
    """Of ids that compress to a half, and of definitions that compress to a quarter."""
    for unpacked, travelling in ((20 * 10**7, 10 * 10**7), (95 * 10**7, 22 * 10**7)):
        assert travelling + 128 * 8192 <= DEFAULT_LIMITS.staged_bytes
        assert unpacked + 128 * 8192 <= most_unpacked(travelling, DEFAULT_LIMITS.staged_bytes)
        assert DEFAULT_LIMITS.message_items + travelling >= 10**7
