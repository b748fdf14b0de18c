"""Large messages on their way: what is kept for whom, how many bytes that is, and when it is let go."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt import ConstraintCrdtError, GossipNode, Limits, Replica, VectorClock
from constraint_crdt.protocol.messages import GossipMessage, Part, decode_message, encode_message
from constraint_crdt.protocol.peers import LinkEstimates
from constraint_crdt.protocol.transfers import CutMessage, OutboundTransfers, split_message
from tests.protocol.scrambled import scrambled

P, Q = Replica("p", 1), Replica("q", 1)
PART = 200


def message(constraints: int) -> GossipMessage:
    """All that a node with so many constraints knows. Scrambled, so that it is not packed."""
    node = GossipNode("sender", incarnation=5, now=lambda: 1)
    for number in range(constraints):
        node.add_constraint(scrambled(f"constraint {number}"))
    return node.delta_since(VectorClock())


MESSAGES = {count: message(count) for count in (8, 16, 24, 32)}
SIZES = {count: len(encode_message(each)) for count, each in MESSAGES.items()}
BURST = 500


def sending(kept_bytes: int = 10**6) -> OutboundTransfers:
    return OutboundTransfers(Limits(burst_bytes=BURST, kept_bytes=kept_bytes), LinkEstimates(8))


def parts(payloads: Sequence[bytes]) -> list[Part]:
    found = [decode_message(each) for each in payloads]
    assert all(isinstance(each, Part) for each in found)
    return [each for each in found if isinstance(each, Part)]


def transfer(count: int) -> bytes:
    """The name of a transfer."""
    return CutMessage(MESSAGES[count], encode_message(MESSAGES[count]), PART).transfer


def test_a_newer_message_takes_the_place_and_the_bytes_of_the_one_before() -> None:
    on_the_way = sending()
    for count in (32, 8, 16):
        on_the_way.encoded(MESSAGES[count], P, PART)
        assert (len(on_the_way), on_the_way.bytes) == (1, SIZES[count])
    assert on_the_way.resume(P, transfer(8), 0) is None
    assert on_the_way.resume(P, transfer(16), 0)
    on_the_way.drop("p")
    assert (len(on_the_way), on_the_way.bytes) == (0, 0)


@pytest.mark.slow
@given(st.lists(st.tuples(st.sampled_from("pqr"), st.sampled_from([*MESSAGES, 0, -1])), max_size=20), st.sampled_from([1, 2, 3, 9]))
def test_what_is_kept_is_what_a_plain_list_keeps(steps: list[tuple[str, int]], many: int) -> None:
    """The last message of each peer, the one least lately sent or asked for first to go, all within the bound. 0: it is let go; -1:
    the rest is asked for.
    """
    bound = many * SIZES[16]
    on_the_way, model = sending(bound), list[tuple[str, int]]()
    for name, count in steps:
        kept = dict(model).get(name)
        if count == -1:
            burst = on_the_way.resume(Replica(name, 1), transfer(kept or 8), 1)
            assert (burst is None) == (kept is None)
            if kept is not None:
                model = [each for each in model if each[0] != name] + [(name, kept)]
            continue
        if count and SIZES[count] > bound:
            payloads = on_the_way.encoded(MESSAGES[count], Replica(name, 1), PART)
            assert len(payloads) == parts(payloads)[0].count, "what cannot be kept goes out whole"
        else:
            model = [each for each in model if each[0] != name]
            if count:
                on_the_way.encoded(MESSAGES[count], Replica(name, 1), PART)
                model.append((name, count))
                while sum(SIZES[each] for _, each in model) > bound:
                    model.pop(0)
            else:
                on_the_way.drop(name)
        assert len(on_the_way) == len(model)
        assert on_the_way.bytes == sum(SIZES[each] for _, each in model) <= bound


def test_bursts_from_each_part_on_make_up_the_whole_and_only_the_last_does_not_pause() -> None:
    on_the_way, chunks, start = sending(), list[bytes](), 0
    found = parts(on_the_way.encoded(MESSAGES[32], P, PART))
    count = found[0].count
    bursts = 1
    while True:
        assert [each.index for each in found] == list(range(start, start + len(found)))
        assert sum(len(each.chunk) for each in found) <= BURST
        assert [each.pause for each in found] == [False] * (len(found) - 1) + [start + len(found) < count]
        chunks += [each.chunk for each in found]
        start += len(found)
        if start == count:
            break
        burst = on_the_way.resume(P, found[0].transfer, start)
        assert burst is not None
        found = parts([encode_message(each) for each in burst])
        bursts += 1
    assert b"".join(chunks) == encode_message(MESSAGES[32])
    assert bursts > 2
    assert on_the_way.resume(P, found[0].transfer, count) is None, "there is no such part"
    assert on_the_way.resume(P, found[0].transfer, count - 1) is not None


def test_a_burst_has_at_least_one_part() -> None:
    on_the_way = OutboundTransfers(Limits(burst_bytes=1, kept_bytes=10**6), LinkEstimates(8))
    [first] = parts(on_the_way.encoded(MESSAGES[8], P, PART))
    assert (first.index, first.pause, first.count > 1) == (0, True, True)
    burst = on_the_way.resume(P, first.transfer, 1)
    assert burst is not None
    assert [each.index for each in burst if isinstance(each, Part)] == [1]


def test_the_rest_goes_to_that_life_of_that_peer_only() -> None:
    on_the_way = sending()
    on_the_way.encoded(MESSAGES[32], P, PART)
    assert on_the_way.resume(Q, transfer(32), 1) is None
    assert on_the_way.resume(Replica("p", 2), transfer(32), 1) is None
    assert on_the_way.resume(P, transfer(8), 1) is None
    assert on_the_way.resume(P, transfer(32), 1)


def test_for_an_unknown_reader_it_goes_out_whole_and_nothing_is_kept() -> None:
    on_the_way = sending()
    found = parts(on_the_way.encoded(MESSAGES[32], None, PART))
    assert len(found) == found[0].count
    assert not any(each.pause for each in found)
    assert (len(on_the_way), on_the_way.bytes) == (0, 0)


def test_a_message_of_one_part_is_not_kept() -> None:
    on_the_way, small = sending(), MESSAGES[8]
    assert on_the_way.encoded(small, P, SIZES[8]) == [encode_message(small)]
    assert len(on_the_way) == 0
    node = GossipNode("sender", incarnation=5)
    for number in range(500):
        node.add_constraint(f"constraint {number}")
    packed = parts(on_the_way.encoded(node.delta_since(VectorClock()), P, 64 * 1024))
    assert ([(each.index, each.count, each.pause) for each in packed], len(on_the_way)) == ([(0, 1, False)], 0)


@pytest.mark.parametrize("last", [31, 32, 33])
def test_it_is_let_go_once_the_peer_has_all_of_it(last: int) -> None:
    on_the_way, sender = sending(), Replica("sender", 5)
    for reader in (P, Q):
        on_the_way.encoded(MESSAGES[32], reader, PART)
    on_the_way.settle("p", {sender: last, P: 9})
    on_the_way.settle("unheard of", {sender: last})
    assert len(on_the_way) == (2 if last < 32 else 1)
    assert (on_the_way.resume(P, transfer(32), 1) is None) == (last >= 32)
    assert on_the_way.resume(Q, transfer(32), 1)
    on_the_way.settle("q", {})
    assert on_the_way.resume(Q, transfer(32), 1)
    on_the_way.clear()
    assert (len(on_the_way), on_the_way.bytes) == (0, 0)


def test_it_is_kept_for_a_peer_that_knows_nothing_of_its_sender() -> None:
    """The first mutation of a sender may be as large as it likes: a missing entry is 0, not 1."""
    node = GossipNode("sender", incarnation=5, now=lambda: 1)
    node.add_constraint("first", about=scrambled("x") * 9)
    on_the_way = sending()
    on_the_way.encoded(node.delta_since(VectorClock()), P, PART)
    on_the_way.settle("p", {Q: 7})
    assert len(on_the_way) == 1
    on_the_way.settle("p", {Q: 7, Replica("sender", 5): 1})
    assert len(on_the_way) == 0


def test_each_cut_of_a_message_has_a_name_of_its_own() -> None:
    """Parts of two cuts with as many parts must not be put together."""
    data = encode_message(MESSAGES[32])
    cuts = [CutMessage(MESSAGES[32], data, max_bytes) for max_bytes in range(100, 400)]
    assert len({cut.count for cut in cuts}) < len({cut.transfer for cut in cuts}) == len(cuts)
    assert CutMessage(MESSAGES[32], data, 100).transfer == cuts[0].transfer
    assert CutMessage(MESSAGES[16], encode_message(MESSAGES[16]), 100).transfer != cuts[0].transfer


@pytest.mark.slow
@pytest.mark.parametrize("max_bytes", [64, 100, 300, 310, 1000])
def test_parts_of_a_long_message_fill_the_bytes_that_a_part_may_have_and_no_more(max_bytes: int) -> None:
    long = message(700)
    cut = CutMessage(long, encode_message(long), max_bytes)
    sizes = [len(encode_message(each)) for each in cut.burst(0)]
    assert len(sizes) == cut.count
    assert max(sizes) <= max_bytes
    assert min(sizes[:-1]) > max_bytes - 24, "little is lost to numbers that could have been longer"


def test_the_smallest_part_has_one_byte_of_content() -> None:
    data = encode_message(MESSAGES[8])
    least = next(each for each in range(100) if _fits(each, data))
    cut = CutMessage(MESSAGES[8], data, least)
    assert cut.count == len(data)
    assert [len(each.chunk) for each in cut.burst(0) if isinstance(each, Part)] == [1] * len(data)


def _fits(max_bytes: int, data: bytes) -> bool:
    try:
        CutMessage(MESSAGES[8], data, max_bytes)
    except ConstraintCrdtError:
        return False
    return True


def test_what_just_fits_is_sent_as_it_is_and_kept_as_it_is() -> None:
    exact, size = MESSAGES[16], SIZES[16]
    assert split_message(exact, size) == [exact]
    assert len(split_message(exact, size - 1)) == 2
    on_the_way = sending(size)
    [first] = parts(on_the_way.encoded(exact, P, size - 1))
    assert (first.count, first.pause, len(on_the_way), on_the_way.bytes) == (2, True, 1, size)
    too_little = sending(size - 1)
    assert [each.pause for each in parts(too_little.encoded(exact, P, size - 1))] == [False, False]
    assert (len(too_little), too_little.bytes) == (0, 0)
