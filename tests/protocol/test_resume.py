"""Large transfers that are interrupted: they go on where they stopped, or start again, and either way end with both sides equal."""

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt import GossipNode, Limits, VectorClock, exchange
from constraint_crdt.protocol.messages import Gone, Part, Resume, decode_message
from constraint_crdt.protocol.transfers import STALLED
from tests.protocol.scrambled import scrambled, travelling

PART = 200
SMALL = Limits(burst_bytes=1000, kept_bytes=100_000, staged_bytes=100_000)
"""A burst has six parts or so."""


def node(name: str, constraints: int = 0, incarnation: int = 1, limits: Limits = SMALL) -> GossipNode:
    """A node whose lives count up from its incarnation."""
    made = GossipNode(name, incarnation=incarnation, renew=itertools.count(incarnation + 1).__next__, now=lambda: 1, limits=limits)
    for number in range(constraints):
        made.add_constraint(scrambled(f"constraint {number} of {name}"))
    return made


@dataclass
class Talk:
    """What came of one exchange."""

    messages: int = 0
    bytes: int = 0
    parts: int = 0


def talk(a: GossipNode, b: GossipNode, lost: Callable[[int], bool] = lambda _: False) -> Talk:
    """Let `a` begin with `b`, over a wire that loses the messages whose number is `lost`."""
    log, waiting = Talk(), [(b, data) for data in a.encoded(a.begin(b.node_id), b.node_id, PART)]
    while waiting:
        reader, data = waiting.pop(0)
        log.messages += 1
        assert log.messages < 1000, "an exchange without end"
        if lost(log.messages):
            continue
        assert len(data) <= PART
        message = decode_message(data)
        log.bytes += len(data)
        log.parts += isinstance(message, Part)
        other = a if reader is b else b
        for response in reader.receive(message).responses:
            waiting += [(other, each) for each in reader.encoded(response, other.node_id, PART)]
    return log


def size(full: GossipNode) -> int:
    """Bytes of all that a node knows, on their way."""
    return travelling(full.delta_since(VectorClock()))


@pytest.mark.parametrize("full_begins", [False, True])
def test_without_loss_one_exchange_is_enough_and_costs_little_more_than_the_content(full_begins: bool) -> None:
    full, blank = node("full", 200), node("blank")
    log = talk(full, blank) if full_begins else talk(blank, full)
    assert full.state == blank.state
    assert log.parts > 20
    assert log.bytes < 1.3 * size(full)
    assert len(full._outbound) == len(blank._inbound) == full._outbound.bytes == 0, "what arrived is not kept"


def test_an_exchange_of_objects_takes_up_what_was_interrupted_and_reads_every_part() -> None:
    full, blank = node("full", 200), node("blank")
    [transfer] = full.receive(blank.ping()).responses
    [first, *rest] = full.encoded(transfer, blank.node_id, PART)
    assert len(rest) > 1
    blank.receive(decode_message(first))
    assert isinstance(blank.begin(full.node_id), Resume)
    assert exchange(blank, full) is True
    assert full.state == blank.state


@pytest.mark.slow
@pytest.mark.parametrize("full_begins", [False, True])
def test_whichever_message_is_lost_a_few_exchanges_bring_the_rest(full_begins: bool) -> None:
    def pair() -> tuple[GossipNode, GossipNode]:
        full, blank = node("full", 60), node("blank")
        return (full, blank) if full_begins else (blank, full)

    everything = talk(*pair()).messages
    for position in range(1, everything + 1):
        a, b = pair()
        talk(a, b, position.__eq__)
        again = 0
        while a.state != b.state:
            again += 1
            assert again <= 2, f"message {position} of {everything}"
            talk(a, b)
        talk(a, b)
        assert a.converged
        assert b.converged


@pytest.mark.parametrize("full_begins", [False, True])
def test_cut_again_and_again_it_comes_through_and_hardly_anything_comes_twice(full_begins: bool) -> None:
    full, blank = node("full", 200), node("blank")
    a, b = (full, blank) if full_begins else (blank, full)
    total = exchanges = 0
    while full.state != blank.state:
        assert not len(blank.state.rows), "nothing counts before the last part is there"
        total += talk(a, b, lambda number: number > 9).bytes
        exchanges += 1
        assert exchanges < 20
    assert exchanges > 3
    assert total < 1.35 * size(full)


@pytest.mark.slow
def test_after_an_interruption_only_what_is_missing_is_sent_whatever_the_sender_did_since() -> None:
    full, blank = node("full", 200), node("blank")
    talk(blank, full, lambda number: number > 32)
    staged = blank._inbound._transfers["full"].size
    for number in range(50):
        full.remove_constraint(scrambled(f"constraint {number} of full"))
    full.record(7)
    full.collect()
    old = size(node("full", 200))
    assert staged > old / 2
    rest = talk(blank, full)
    assert len(blank.state.constraints) == 200, "the state as it was when the transfer began"
    assert rest.bytes < 1.25 * (old - staged) + 200
    talk(blank, full)
    assert blank.state == full.state
    assert len(blank.state.constraints) == 150


def test_a_delta_goes_on_although_the_clock_that_it_names_is_out_of_use() -> None:
    full, other = node("full", 5), node("other", 5)
    talk(full, other)
    for number in range(200):
        full.add_constraint(scrambled(f"later {number}"))
    talk(other, full, lambda number: number > 12)
    for number in range(20):  # both go on speaking with others
        other.record(1)
        other.ping("full")
        other.tracker.conversation(f"someone {number}")
        other.tracker.conversation("full").state(other.state.rows.clock_mark, None)
    rest = talk(other, full)
    assert rest.bytes < size(full)
    talk(other, full)
    assert full.state == other.state


def test_where_the_sender_does_not_keep_it_any_more_the_transfer_starts_again_at_once() -> None:
    full, blank = node("full", 200), node("blank")
    talk(blank, full, lambda number: number > 20)
    full._outbound.clear()
    talk(blank, full)
    assert full.state == blank.state
    assert len(blank._inbound) == 0


@pytest.mark.slow
def test_a_sender_in_another_life_starts_again() -> None:
    full, blank = node("full", 200), node("blank")
    talk(blank, full, lambda number: number > 20)
    full = node("full", 200, incarnation=9)
    talk(blank, full)
    talk(blank, full)
    assert full.state == blank.state
    assert len(blank._inbound) == 0


def test_another_life_of_the_reader_gets_nothing_of_what_was_kept_for_the_former() -> None:
    full, blank = node("full", 200), node("blank")
    talk(blank, full, lambda number: number > 20)
    [resume] = [blank.begin("full")]
    assert isinstance(resume, Resume)
    forged = Resume(node=node("blank", incarnation=2).replica, transfer=resume.transfer, index=resume.index)
    assert [type(each) for each in full.receive(forged).responses] == [Gone]
    again = node("blank", incarnation=2)
    talk(again, full)
    assert again.state == full.state


def test_a_new_life_that_begins_in_the_middle_does_not_wait_for_parts_that_are_for_the_one_before() -> None:
    full, reader = node("full", 200), node("reader", 1)
    talk(reader, full, lambda number: number > 20)
    assert len(reader._inbound) == 1
    reader.local.written = -1  # as if others knew more of its life
    reader.record(1)
    assert reader.replica.incarnation == 2
    assert len(reader._inbound) == 0
    talk(reader, full)
    assert reader.state == full.state


def test_a_sender_of_whom_nothing_more_comes_is_asked_a_bounded_number_of_times() -> None:
    full, blank = node("full", 200), node("blank")
    talk(blank, full, lambda number: number > 20)
    asked = 0
    while isinstance(blank.begin("full"), Resume):
        asked += 1
        assert asked <= STALLED
    assert asked > 2
    talk(blank, full)
    assert full.state == blank.state


def test_a_question_is_answered_by_one_burst_and_asked_once() -> None:
    full, blank = node("full", 200), node("blank")
    talk(blank, full, lambda number: number > 4)
    resume = blank.begin("full")
    burst = full.receive(resume).responses
    assert 1 < len(burst) <= 8
    assert [isinstance(each, Part) and each.pause for each in burst] == [False] * (len(burst) - 1) + [True]
    questions = [each for part in burst * 3 for each in blank.receive(part).responses]
    assert len(questions) == 1
    assert full.receive(Resume(node=blank.replica, transfer=b"unheard!", index=0)).responses[0].__class__ is Gone
    assert blank.receive(Gone(node=full.replica, transfer=b"unheard!")).responses == []


@pytest.mark.slow
def test_what_is_kept_is_bounded_and_the_longest_unasked_goes_first() -> None:
    full = node("full", 200, limits=Limits(burst_bytes=1000, kept_bytes=3 * size(node("full", 200))))
    blanks = [node(f"blank {number}") for number in range(6)]
    for blank in blanks:
        talk(blank, full, lambda number: number > 4)
        assert full._outbound.bytes <= full._outbound._limits.kept_bytes
    assert len(full._outbound) == 2  # a transfer to a peer is a little larger than the bare content
    for blank in blanks:
        talk(blank, full)
        assert blank.state == full.state


def test_what_is_too_large_to_be_kept_is_sent_in_one_go() -> None:
    full, blank = node("full", 200, limits=Limits(burst_bytes=1000, kept_bytes=1000)), node("blank")
    [answer] = full.receive(blank.ping()).responses
    payloads = full.encoded(answer, "blank", PART)
    assert sum(map(len, payloads)) > size(full)
    for data in payloads:
        blank.receive(decode_message(data))
    assert blank.state == full.state
    assert len(full._outbound) == 0


@pytest.mark.slow
@given(st.integers(0, 2**32), st.booleans())
def test_lost_doubled_and_reordered_messages_are_harmless(seed: int, both: bool) -> None:
    rng = random.Random(seed)
    a, b = node("a", 40), node("b", 30 if both else 0)
    bag: list[tuple[GossipNode, bytes]] = []
    for step in range(120):
        if not bag or rng.random() < 0.05:
            one, other = rng.sample((a, b), 2)
            bag += [(other, data) for data in one.encoded(one.begin(other.node_id), other.node_id, PART)]
        reader, data = bag[rng.randrange(len(bag))] if rng.random() < 0.1 else bag.pop(rng.randrange(min(4, len(bag))))
        if rng.random() < 0.1:
            continue
        if step % 40 == 20:
            a.record(1)
        other = a if reader is b else b
        for response in reader.receive(decode_message(data)).responses:
            bag += [(other, each) for each in reader.encoded(response, other.node_id, PART)]
    for _ in range(4):
        talk(a, b)
    assert a.state == b.state
    assert not a.alarms
    assert not b.alarms
