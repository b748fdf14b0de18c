"""Transfers in parts: within the size asked for, put together whole or not at all, within a bound on memory."""

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt import ConstraintCrdtError, GossipNode, Replica, VectorClock
from constraint_crdt.crdt.limits import Limits
from constraint_crdt.protocol.messages import GossipMessage, Part, decode_message, encode_message
from constraint_crdt.protocol.transfers import COMPLETED, PART_BYTES, STALLED, InboundTransfers, split_message

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


@pytest.mark.slow
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


def test_what_is_asked_for_is_the_first_part_that_is_missing() -> None:
    staging = InboundTransfers(10_000)
    for index, expected in ((1, 0), (3, 0), (0, 2), (2, 4)):
        staging.add(part(index, 6, b"x", 6))
        assert staging.ask(P, anew=True) == (b"transfer", expected)


def test_within_an_exchange_the_same_part_is_asked_for_once() -> None:
    staging = InboundTransfers(10_000)
    staging.add(part(1, 4, b"x", 4))
    assert staging.ask(P, anew=False) is None, "the first part comes unasked"
    staging.add(part(0, 4, b"x", 4))
    assert staging.ask(P, anew=False) == (b"transfer", 2)
    assert staging.ask(P, anew=False) is None
    assert staging.ask(P, anew=True) == (b"transfer", 2)
    staging.add(part(2, 4, b"x", 4))
    assert staging.ask(P, anew=False) == (b"transfer", 3)


@pytest.mark.parametrize("advanced", [0, 1])
def test_a_part_is_asked_for_a_bounded_number_of_times_and_anew_after_progress(advanced: int) -> None:
    staging = InboundTransfers(10_000)
    for index in range(advanced):
        staging.add(part(index, 9, b"x", 9))
        assert staging.ask(P, anew=True) == (b"transfer", index + 1)
    staging.add(part(8, 9, b"x", 9))
    questions = 0
    while staging.ask(P, anew=True) is not None:
        questions += 1
        assert questions <= STALLED
    assert questions == STALLED - 1
    assert (len(staging), staging.bytes) == (0, 0)


def test_progress_starts_the_count_of_questions_again() -> None:
    staging, questions = InboundTransfers(10_000), 0
    for index in range(8):
        staging.add(part(index, 20, b"x", 20))
        for _ in range(STALLED - 1):
            assert staging.ask(P, anew=True) == (b"transfer", index + 1)
            questions += 1
    assert questions == 8 * (STALLED - 1)


def test_only_the_life_that_sends_is_asked_and_only_for_what_it_sends() -> None:
    staging = InboundTransfers(10_000)
    staging.add(part(0, 2, b"x", 2))
    assert staging.ask(Q, anew=True) is None
    assert not staging.give_up(P, b"another!")
    assert not staging.give_up(Q, b"transfer")
    assert not staging.give_up(Replica("p", 2), b"transfer")
    assert staging.ask(P, anew=True) == (b"transfer", 1)
    assert staging.give_up(P, b"transfer")
    assert (len(staging), staging.bytes, staging.ask(P, anew=True)) == (0, 0, None)
    staging.add(part(0, 2, b"x", 2))
    assert staging.ask(Replica("p", 2), anew=True) is None
    assert len(staging) == 0, "what another life sent is of no use"


def test_a_slice_as_long_as_the_whole_is_not_the_whole_unless_it_is_the_only_one() -> None:
    staging = InboundTransfers(10_000)
    assert staging.add(part(0, 2, b"xx", 2)) is None
    assert staging.add(part(1, 2, b"", 2)) == b"xx"
    with pytest.raises(ConstraintCrdtError, match=r"^the parts of a transfer do not add up to its size$"):
        staging.add(part(0, 1, b"xx", 3))
    assert staging.add(part(0, 1, b"xx", 2)) == b"xx"


def test_what_just_fits_is_staged() -> None:
    for size, count in ((1000, 1), (1000, 3)):
        exact = size + count * PART_BYTES
        InboundTransfers(exact).add(part(0, count, b"x" * (size // count), size))
        with pytest.raises(ConstraintCrdtError, match="to be staged"):
            InboundTransfers(exact - 1).add(part(0, count, b"x" * (size // count), size))


@pytest.mark.slow
@given(
    st.lists(
        st.tuples(
            st.sampled_from([P, Q, Replica("p", 2)]), st.integers(0, 2), st.sampled_from([b"one", b"two"]), st.integers(0, 6)
        ),
        max_size=30,
    )
)
def test_what_is_staged_is_what_a_plain_list_holds(history: list[tuple[Replica, int, bytes, int]]) -> None:
    """A list of (transfer, slices), the one least lately heard from first to go, one for each node."""
    limit = 4 * PART_BYTES + 40
    staging, model = InboundTransfers(limit), list[tuple[tuple[Replica, bytes], dict[int, bytes]]]()
    for sender, index, transfer, what in history:
        if what == 0:
            staging.drop(sender.node_id)
            model = [each for each in model if each[0][0].node_id != sender.node_id]
            continue
        slices = next((held for name, held in model if name == (sender, transfer)), {})
        known = index in slices
        slices[index] = bytes([index]) * 10
        model = [each for each in model if each[0][0].node_id != sender.node_id] + [((sender, transfer), slices)]
        whole = staging.add(part(index, 3, slices[index], 30, node=sender, transfer=transfer))
        while not known and sum(len(held) * (PART_BYTES + 10) for _, held in model) > limit:
            model.pop(0)
        assert (whole is not None) == (len(slices) == 3)
        if whole is not None:
            assert whole == b"".join(slices[number] for number in range(3))
            model = [each for each in model if each[1] is not slices]
        assert len(staging) == len(model)
        assert staging.bytes == sum(len(held) * (PART_BYTES + 10) for _, held in model) <= limit
    staging.clear()
    assert (len(staging), staging.bytes) == (0, 0)


def test_completed_transfers_take_bounded_memory_and_the_least_recent_is_forgotten_first() -> None:
    staging = InboundTransfers(10_000)
    senders = [Replica(f"node {number}", 1) for number in range(COMPLETED + 1)]

    def complete(sender: Replica) -> None:
        assert staging.add(part(1, 2, b"b", 2, node=sender)) is None
        assert staging.add(part(0, 2, b"a", 2, node=sender)) == b"ab"

    def is_remembered(sender: Replica) -> bool:
        """A late slice of a completed transfer leads to no question."""
        staging.add(part(0, 2, b"a", 2, node=sender))
        remembered = staging.ask(sender, anew=True) is None
        staging.drop(sender.node_id)
        return remembered

    for sender in senders[:COMPLETED]:
        complete(sender)
    complete(senders[0])
    assert len(staging._completed) == COMPLETED
    complete(senders[-1])
    assert len(staging._completed) == COMPLETED
    assert [is_remembered(senders[index]) for index in (0, 1, 2, -1)] == [True, False, True, True]
    assert (len(staging), staging.bytes) == (0, 0)


def test_a_late_slice_of_a_completed_transfer_takes_no_memory_after_the_next_question() -> None:
    staging = InboundTransfers(10_000)
    staging.add(part(0, 2, b"a", 2))
    staging.add(part(1, 2, b"b", 2))
    staging.add(part(0, 2, b"a", 2))
    assert (len(staging), staging.bytes) == (1, PART_BYTES + 1)
    assert staging.ask(P, anew=True) is None
    assert (len(staging), staging.bytes) == (0, 0)


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
