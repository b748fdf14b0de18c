"""Transfers in parts: within the size asked for, put together whole or not at all, within a bound on memory."""

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt import (  # fmt: skip
    ConstraintCrdtError,
    GossipMessage,
    GossipNode,
    Part,
    Replica,
    VectorClock,
    decode_message,
    encode_message,
    split_message,
)
from constraint_crdt.crdt.limits import Limits
from constraint_crdt.protocol.transfers import PART_BYTES, InboundTransfers

P, Q = Replica("p", 1), Replica("q", 1)


def part(index: int, count: int, chunk: bytes, size: int, node: Replica = P, transfer: bytes = b"transfer") -> Part:
    return Part(node=node, transfer=transfer, index=index, count=count, size=size, chunk=chunk)


def sender(constraints: int) -> GossipNode:
    node = GossipNode("sender", incarnation=5)
    for number in range(constraints):
        node.add_constraint(f"constraint {number}")
    return node


def as_parts(messages: Sequence[GossipMessage]) -> list[Part]:
    """Over the wire."""
    parts = [decode_message(encode_message(message)) for message in messages]
    return [each for each in parts if isinstance(each, Part)]


SENDER = sender(60)
WHOLE = SENDER.delta_since(VectorClock())
SIZE = len(encode_message(WHOLE))
LEAST = 39
"""From so many bytes on, each part of it has room for content."""


@given(st.integers(0, SIZE + 10))
def test_every_part_encodes_within_the_size_asked_for(max_bytes: int) -> None:
    if max_bytes < LEAST:
        with pytest.raises(ConstraintCrdtError, match=f"^{max_bytes} bytes leave no room for any part of a message$"):
            split_message(WHOLE, max_bytes)
        return
    messages = split_message(WHOLE, max_bytes)
    assert all(len(encode_message(message)) <= max_bytes for message in messages)
    assert (len(messages) == 1) == (max_bytes >= SIZE)
    if len(messages) > 1:
        assert b"".join(each.chunk for each in as_parts(messages)) == encode_message(WHOLE)


@given(st.integers(64, 500), st.randoms(use_true_random=False), st.integers(0, 9))
def test_parts_in_any_order_and_doubled_give_the_whole_and_only_with_the_last(
    max_bytes: int, rng: random.Random, doubled: int
) -> None:
    parts = as_parts(split_message(WHOLE, max_bytes))
    missing = parts.pop(rng.randrange(len(parts)))
    parts += rng.choices(parts, k=doubled) if parts else []
    rng.shuffle(parts)
    reader = GossipNode("reader", incarnation=6)
    empty = reader.state_hash
    for each in parts:
        result = reader.receive(each)
        assert (result.responses, result.state_changed) == ([], False)
    assert (reader.state_hash, len(reader.clock), len(reader.state.rows)) == (empty, 0, 0)
    assert reader.receive(missing).state_changed
    assert reader.state_hash == SENDER.state_hash


def test_a_complete_transfer_leaves_nothing_staged() -> None:
    staging = InboundTransfers(10_000)
    assert staging.add(part(1, 2, b"world", 10)) is None
    assert staging.add(part(1, 2, b"world", 10)) is None
    assert staging.add(part(0, 2, b"hello", 10)) == b"helloworld"
    assert (len(staging), staging.bytes) == (0, 0)


def test_of_two_transfers_of_one_sender_the_newest_wins() -> None:
    staging = InboundTransfers(10_000)
    staging.add(part(0, 2, b"old", 6, transfer=b"old-----"))
    staging.add(part(0, 2, b"new", 6, transfer=b"new-----"))
    assert len(staging) == 1
    assert staging.add(part(1, 2, b"new", 6, transfer=b"new-----")) == b"newnew"
    assert staging.add(part(1, 2, b"old", 6, transfer=b"old-----")) is None


def test_another_life_of_the_sender_starts_again() -> None:
    staging = InboundTransfers(10_000)
    staging.add(part(0, 2, b"one", 6))
    assert staging.add(part(1, 2, b"two", 6, node=Replica("p", 2))) is None
    assert len(staging) == 1


def test_transfers_of_two_senders_do_not_meet() -> None:
    staging = InboundTransfers(10_000)
    staging.add(part(0, 2, b"one", 6))
    staging.add(part(0, 2, b"uno", 6, node=Q))
    assert staging.add(part(1, 2, b"two", 6)) == b"onetwo"
    assert staging.add(part(1, 2, b"dos", 6, node=Q)) == b"unodos"


@pytest.mark.parametrize("chunk", [b"longer than it says", b"short"])
def test_parts_that_do_not_add_up_are_dropped(chunk: bytes) -> None:
    staging = InboundTransfers(10_000)
    staging.add(part(0, 2, b"first", 12))
    with pytest.raises(ConstraintCrdtError, match="do not add up"):
        staging.add(part(1, 2, chunk, 12))
    assert (len(staging), staging.bytes) == (0, 0)


def test_a_transfer_too_large_to_be_staged_is_refused_at_its_first_part() -> None:
    staging = InboundTransfers(1_000)
    for size, count in ((1_001, 1), (100, 10)):
        with pytest.raises(ConstraintCrdtError, match=f"a transfer of {size} bytes is larger than the 1000 to be staged"):
            staging.add(part(0, count, b"x", size))
    assert (len(staging), staging.bytes) == (0, 0)


def test_memory_is_bounded_whoever_sends() -> None:
    limit = 20 * (PART_BYTES + 1)
    staging = InboundTransfers(limit)
    for number in range(200):
        staging.add(part(0, 2, b"x", 2, node=Replica(f"node {number}", 1)))
        assert staging.bytes <= limit
    assert len(staging) == 20


def test_a_sender_that_went_away_holds_up_nobody() -> None:
    staging = InboundTransfers(2_000)
    staging.add(part(0, 2, b"x" * 1_000, 1_500))
    assert staging.add(part(0, 2, b"y" * 800, 1_000, node=Q)) is None
    assert staging.add(part(1, 2, b"y" * 200, 1_000, node=Q)) == b"y" * 800 + b"y" * 200
    assert staging.bytes == 0


def test_a_node_refuses_parts_of_a_part_of_another_sender_and_to_another_life() -> None:
    other = GossipNode("other", incarnation=5)
    for inner, to in (
        (part(0, 1, b"x", 1, node=SENDER.replica), None),
        (other.ping(), None),
        (SENDER.ping(), 6),
    ):
        data = encode_message(inner)
        wrapped = Part(node=SENDER.replica, transfer=b"transfer", index=0, count=1, size=len(data), chunk=data, to=to)
        reader = GossipNode("reader", incarnation=6)
        with pytest.raises(ConstraintCrdtError, match="the parts of a transfer make up a message of another sender"):
            reader.receive(wrapped)
        assert reader.peer_count == 0


def test_a_node_stages_within_its_limit() -> None:
    reader = GossipNode("reader", limits=Limits(staged_bytes=500))
    with pytest.raises(ConstraintCrdtError, match="larger than the 500 to be staged"):
        reader.receive(split_message(WHOLE, 400)[0])
    assert reader.state_hash == GossipNode("blank").state_hash
