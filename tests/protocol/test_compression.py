"""Large messages travel packed where it pays; what comes packed is unpacked within its bounds or refused."""

import tracemalloc
import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from constraint_crdt import ConstraintCrdtError, GossipNode, Limits, VectorClock, exchange
from constraint_crdt.crdt.limits import MESSAGE_BYTES
from constraint_crdt.protocol.messages import MOST_GROWTH, Part, decode_message, encode_message
from constraint_crdt.protocol.transfers import PACK_FROM, PAYS_BELOW, pack, split_message, unpack
from tests.protocol.scrambled import scrambled

TEXT = "".join(f"constraint number {number}, " for number in range(1000)).encode()
PACKED = zlib.compress(TEXT, 1)


def full(constraints: int, name: str = "constraint {}") -> GossipNode:
    node = GossipNode("full", incarnation=5)
    for number in range(constraints):
        node.add_constraint(name.format(number))
    return node


REPETITIVE = st.builds(lambda piece, times: piece * times, st.binary(max_size=300), st.integers(0, 300))


@given(st.one_of(st.binary(max_size=3 * PACK_FROM), REPETITIVE))
def test_what_is_packed_comes_back_and_is_worth_it(data: bytes) -> None:
    packed = pack(data)
    if packed is None:
        return
    assert len(data) > PACK_FROM
    assert len(packed) < PAYS_BELOW * len(data)
    assert unpack(packed, len(data)) == data


def test_it_is_packed_only_where_that_pays() -> None:
    assert pack(TEXT[:PACK_FROM]) is None
    assert pack(TEXT[: PACK_FROM + 1]) is not None
    assert pack(zlib.compress("".join(map(scrambled, map(str, range(1000)))).encode(), 9)) is None, "it is packed already"
    assert pack(bytes(10**6)) is None, "the reader would take it for a bomb"


@given(st.integers(0, len(PACKED) - 1), st.integers(1, 255))
def test_damage_is_refused(place: int, by: int) -> None:
    """Wherever it is: in the content or its checksum, and in the header unless that only tells another level."""
    damaged = bytearray(PACKED)
    damaged[place] ^= by
    if place == 1 and int.from_bytes(damaged[:2], "big") % 31 == 0:  # a header that says the same of the content (RFC 1950, 2.2)
        return
    with pytest.raises(ConstraintCrdtError, match="packed message"):
        unpack(bytes(damaged), len(TEXT))


@given(st.binary(max_size=200), st.integers(-1, 10**6))
def test_anything_at_all_is_unpacked_to_its_size_or_refused(data: bytes, size: int) -> None:
    with suppress(ConstraintCrdtError):
        assert len(unpack(data, size)) == size


@pytest.mark.parametrize(
    ("packed", "size"),
    [
        (PACKED, len(TEXT) - 1),
        (PACKED, len(TEXT) + 1),
        (PACKED[:-1], len(TEXT)),
        (PACKED + b"x", len(TEXT)),
        (PACKED, len(PACKED)),
        (PACKED, 0),
        (PACKED, len(PACKED) * MOST_GROWTH + 1),
        (b"", 1),
    ],
)
def test_another_size_than_was_said_is_refused(packed: bytes, size: int) -> None:
    with pytest.raises(ConstraintCrdtError, match="packed message"):
        unpack(packed, size)


@pytest.mark.long
def test_a_bomb_is_refused_and_takes_no_more_memory_than_was_stated() -> None:
    bomb = zlib.compress(bytes(50_000_000), 9)
    tracemalloc.start()
    try:
        with pytest.raises(ConstraintCrdtError, match="does not become the 100000 bytes"):
            unpack(bomb, 100_000)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    with pytest.raises(ConstraintCrdtError, match="that is refused"):
        unpack(bomb, 50_000_000)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["constraint {}", "{}"], ids=["alike", "short"])
def test_a_state_travels_packed_and_arrives_whole(name: str) -> None:
    node, reader = full(3000, name), GossipNode("reader")
    message = node.delta_since(VectorClock())
    data = encode_message(message)
    parts = split_message(message)
    assert all(isinstance(part, Part) and part.unpacked == len(data) for part in parts)
    wire = [encode_message(part) for part in parts]
    assert sum(map(len, wire)) < len(data) / 2
    for each in wire:
        assert len(each) <= MESSAGE_BYTES
        reader.receive(decode_message(each))
    assert reader.state == node.state


@pytest.mark.slow
@given(st.integers(0, 600), st.integers(0, 600), st.integers(60, 3000))
def test_an_exchange_over_the_wire_makes_both_equal_whatever_its_messages_become(mine: int, theirs: int, max_bytes: int) -> None:
    a, b = full(mine), GossipNode("other", incarnation=6)
    for number in range(theirs):
        b.add_constraint(f"another {number}")
    waiting = [(b, data) for data in a.encoded(a.begin("other"), "other", max_bytes)]
    while waiting:
        reader, data = waiting.pop(0)
        other = a if reader is b else b
        assert len(data) <= max_bytes
        _, result = reader.hear(data)
        waiting += [(other, each) for response in result.responses for each in reader.encoded(response, other.node_id, max_bytes)]
    assert a.state_hash == b.state_hash
    assert a.state == b.state


@pytest.mark.slow
@given(st.integers(0, 250))
def test_a_message_within_a_page_travels_byte_for_byte_as_before(constraints: int) -> None:
    node = full(constraints, "{}")
    message = node.delta_since(VectorClock())
    data = encode_message(message)
    assert len(data) <= PACK_FROM
    assert split_message(message) == [message]
    assert node.encoded(message, "reader") == [data]


@pytest.mark.slow
def test_a_packed_message_of_one_part_leaves_a_longer_transfer_alone() -> None:
    """It is taken at once, and what waits for its rest goes on waiting."""
    node, reader = full(600), GossipNode("reader")
    (single,) = split_message(node.delta_since(VectorClock()))
    assert isinstance(single, Part)
    for number in range(3000):
        node.add_constraint(f"later {number}")
    *long, last = split_message(node.delta_since(VectorClock()), 1000)
    for part in long:
        reader.receive(part)
    reader.receive(single)
    assert len(reader.state.constraints) == 600
    reader.receive(last)
    assert reader.state == node.state


@pytest.mark.slow
def test_a_part_that_claims_too_much_is_refused_before_anything_is_unpacked() -> None:
    reader = GossipNode("reader", limits=Limits(staged_bytes=20_000))
    (part,) = split_message(full(2000).delta_since(VectorClock()))
    assert isinstance(part, Part)
    with pytest.raises(ConstraintCrdtError, match="larger than the 20000 to be staged"):
        reader.hear(encode_message(part))
    for claimed in (part.size, part.size * MOST_GROWTH + 1, 2**62, 2**64 - 1, 0):
        with pytest.raises(ConstraintCrdtError, match=r"is said to become|out of bounds"):
            GossipNode("reader").hear(encode_message(replace(part, unpacked=claimed)))
    blank = GossipNode("reader")
    for changed in (replace(part, unpacked=None), replace(part, unpacked=(part.unpacked or 0) - 1)):
        with pytest.raises(ConstraintCrdtError, match=r"not a well-formed message|does not become"):
            blank.hear(encode_message(changed))
    assert blank.state_hash == GossipNode("blank").state_hash
    exchange(blank, full(3))
    assert len(blank.state.constraints) == 3, "it goes on with others"
