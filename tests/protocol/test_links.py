"""Links: what is measured of the way to a peer, and large messages that keep to it. Time is made up here."""

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from random import Random
from statistics import mean

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from constraint_crdt import GossipNode, VectorClock
from constraint_crdt.protocol.messages import GossipMessage, Part, Resume, decode_message
from constraint_crdt.protocol.peers import (
    FIRST_BURST,
    HASTE,
    LONGEST_TIMEOUT,
    PART_SECONDS,
    SMALL,
    TELLING,
    LinkEstimate,
    LinkEstimates,
)
from tests.protocol.scrambled import scrambled, travelling

SECONDS = st.floats(0.0001, 20.0)
RATES = st.floats(500.0, 1e9)


# --- the estimate ----------------------------------------------------------------------------------------------------------


@given(SECONDS, st.integers(1, 30))
def test_the_timeout_of_a_steady_link_comes_to_its_round_trip_and_no_less(seconds: float, count: int) -> None:
    link = LinkEstimate()
    for _ in range(count):
        link.answered(seconds, 60, 60)
        assert link.timeout(1.0) >= min(max(seconds, HASTE), LONGEST_TIMEOUT)
    assert link.least == pytest.approx(max(seconds, 0.001))
    if count == 30:
        assert link.timeout(1.0) <= max(1.2 * seconds, HASTE) * 1.01


@given(st.lists(SECONDS, min_size=1, max_size=40))
def test_whatever_is_measured_timeouts_and_bursts_stay_within_their_bounds(samples: list[float]) -> None:
    link, chance = LinkEstimate(), Random(len(samples))
    for seconds in samples:
        size = chance.randrange(1, 100_000)
        match chance.randrange(4):
            case 0:
                link.answered(seconds, size, 10)
            case 1:
                link.answered(seconds, 10, size)
            case 2:
                link.answered(seconds, 60, 60)
            case _:
                link.unanswered(size)
        assert HASTE <= link.timeout(1.0) <= LONGEST_TIMEOUT
        assert FIRST_BURST <= link.part <= link.burst
        assert 0 <= link.loss <= 1


@given(st.integers(0, 50))
def test_a_peer_that_does_not_answer_is_waited_for_ever_longer_and_an_answer_ends_that(failures: int) -> None:
    link = LinkEstimate()
    waits = [link.timeout(1.0)]
    for _ in range(failures):
        link.unanswered()
        waits.append(link.timeout(1.0))
    assert waits == sorted(waits)
    assert waits[-1] == 2.0 ** min(failures, 3)
    link.answered(0.5, 10, 10)
    assert link.timeout(1.0) < 2.0


@given(RATES, st.floats(0.0, 3.0))
@example(500.0, 0.59375)
def test_bursts_come_to_what_passes_in_about_a_second(rate: float, way: float) -> None:
    link, burst = LinkEstimate(), FIRST_BURST
    small = 120 / rate  # its own time counts in the round trip: it makes the way look longer, and the queue shorter
    link.answered(way + small, 60, 60)
    for _ in range(40):
        burst = min(link.burst, 1024 * 1024)
        link.delivered(way + burst / rate, burst)
    assert burst / rate <= 1.1 * (PART_SECONDS + way + 2 * small) or burst == FIRST_BURST
    assert burst / rate >= 0.7 * PART_SECONDS or burst == 1024 * 1024
    assert link.part / rate <= 1.3 * PART_SECONDS or link.part == FIRST_BURST


def test_a_rate_is_not_taken_for_known_from_small_messages_and_is_measured_each_way() -> None:
    link = LinkEstimate()
    link.answered(0.1, SMALL // 2, SMALL // 2)
    assert link.rate_in is link.rate_out is None
    link.answered(1.1, 10_000, 0)
    assert link.rate_out == pytest.approx(10_000)
    link.answered(0.6, 40, 40_000)
    assert link.rate_in == pytest.approx(80_000)
    assert link.timeout(1.0, 10_000) >= link.timeout(1.0) + 2.0
    assert link.timeout(1.0) + 1.5 <= link.timeout(1.0, 0, 80_000) <= link.timeout(1.0) + 2.2


def test_a_rate_told_by_the_first_answer_of_a_busy_node_ends_with_the_answers_that_come_sooner() -> None:
    link, rates = LinkEstimate(), list[float | None]()
    for seconds, received in ((0.34, 568), (0.4, 60), (0.02, 60)):  # first the certificates of a peer that was busy
        link.answered(seconds, 60, received)
        rates.append(link.rate_in)
    assert rates == [pytest.approx(568 / 0.34, rel=0.5), rates[0], None]
    assert not link.is_slow
    link.answered(2.0, 60, 2 * TELLING)
    link.answered(0.002, 60, 60)  # passed in front of a queue, and says nothing about large messages
    assert link.rate_in == pytest.approx(TELLING, rel=0.1)


def test_links_are_bounded_and_the_least_recent_goes_first() -> None:
    links = LinkEstimates(3)
    for name in "abcab":
        links.of(name)
    links.of("d")
    assert len(links) == 3
    assert links.get("c") is None
    assert links.get("a") is not None


# --- transfers in time -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """A question: who asked, when, and its bytes. Answers belong to it, as in a transport of requests."""

    by: str
    at: float
    data: list[bytes]
    tries: int


@dataclass
class Wire:
    """Two nodes and a wire between them, in virtual time. Each side asks again for what it got no answer to."""

    a: GossipNode
    b: GossipNode
    way: float
    """Seconds of a message to the other side."""
    rate: float
    """Bytes per second each way, for which messages queue."""
    loss: float = 0.0
    down: Callable[[float], bool] = lambda _: False
    """Nothing passes while this is true."""
    chance: Random = field(default_factory=lambda: Random(2))
    now: float = 0.0
    carried: Counter[str] = field(default_factory=Counter)
    slices: Counter[int] = field(default_factory=Counter)
    """How often each slice arrived."""
    longest: int = 0
    """Bytes of the longest part."""

    def __post_init__(self) -> None:
        self._agenda: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()
        self._free = {"a": 0.0, "b": 0.0}
        self._asked: dict[str, Request | None] = {"a": None, "b": None}

    def node(self, who: str) -> GossipNode:
        return self.a if who == "a" else self.b

    def later(self, seconds: float, what: Callable[[], object]) -> None:
        """Call something after some seconds."""
        heappush(self._agenda, (self.now + seconds, next(self._order), what))

    def run(self, until: float, stop: Callable[[], bool] = lambda: False) -> float:
        """Run to a time, or until `stop`. Returns the time."""
        while self._agenda and self._agenda[0][0] <= until and not stop():
            self.now, _, what = heappop(self._agenda)
            self.a.links.at = self.b.links.at = self.now
            what()
        return self.now

    def begin(self, who: str, every: float = 0.5) -> None:
        """Let a side begin an exchange after each pause, when it waits for no answer."""
        me, other = self.node(who), self.node("b" if who == "a" else "a")
        self.a.links.at = self.b.links.at = self.now
        if self._asked[who] is None and not me.is_transferring(other.node_id):
            self._ask(who, me.encoded(me.begin(other.node_id), other.node_id))
        self.later(every, lambda: self.begin(who, every))

    def _ask(self, who: str, data: list[bytes], tries: int = 1) -> None:
        asked = self._asked[who] = Request(who, self.now, data, tries)
        for each in data:
            self._send(who, each, asked)
        sent = sum(map(len, data))
        self.later(self._link(who).timeout(1.0, sent, 2**20), lambda: self._ask_again(who, asked))

    def _link(self, who: str) -> LinkEstimate:
        return self.node(who).links.of(self.node("b" if who == "a" else "a").node_id)

    def _ask_again(self, who: str, asked: Request) -> None:
        if self._asked[who] is asked:
            self._link(who).unanswered(sum(map(len, asked.data)))
            self._asked[who] = None
            self.node(who).break_off(self.node("b" if who == "a" else "a").node_id)
            if asked.tries < 3:  # a question for the rest of a transfer is not repeated as it was: some may have arrived
                me, other = self.node(who), self.node("b" if who == "a" else "a").node_id
                rest = isinstance(decode_message(asked.data[-1]), Resume)
                self._ask(who, me.encoded(me.begin(other), other) if rest else asked.data, asked.tries + 1)

    def _send(self, sender: str, data: bytes, asked: Request) -> None:
        self.carried[sender] += len(data)
        leaves = self._free[sender] = max(self.now, self._free[sender]) + len(data) / self.rate
        if self.chance.random() >= self.loss and not self.down(leaves):
            reader = "b" if sender == "a" else "a"
            heappush(self._agenda, (leaves + self.way, next(self._order), lambda: self._receive(reader, data, asked)))

    def _receive(self, who: str, data: bytes, asked: Request) -> None:
        me, other, message = self.node(who), self.node("b" if who == "a" else "a"), decode_message(data)
        if isinstance(message, Part):
            self.longest = max(self.longest, len(data))
            self.slices.update(range(message.index, message.index - (-len(message.chunk) // (message.unit or len(message.chunk)))))
        answers = [each for response in me.receive(message).responses for each in me.encoded(response, other.node_id)]
        if asked.by != who:
            for each in answers:
                self._send(who, each, asked)
        elif not isinstance(message, Part) or message.pause or not len(me._inbound):
            self._link(who).answered(self.now - asked.at, sum(map(len, asked.data)), len(data))
            if self._asked[who] is asked:
                self._asked[who] = None
            if answers:
                self._ask(who, answers)


def node(name: str, constraints: int = 0) -> GossipNode:
    made = GossipNode(name, incarnation=1, renew=itertools.count(2).__next__, now=lambda: 1)
    for number in range(constraints):
        made.add_constraint(scrambled(f"{name} {number}"))
    return made


def size(full: GossipNode) -> int:
    return travelling(full.delta_since(VectorClock()))


def agree(wire: Wire) -> Callable[[], bool]:
    return lambda: wire.a.state_hash == wire.b.state_hash


SLOW = [(0.1, 1200.0, 0.0), (0.05, 8000.0, 0.0), (1.5, 1e6, 0.0), (1.5, 1200.0, 0.0), (0.02, 1e6, 0.5)]
"""(way, rate, loss): 9.6 kbit/s, 64 kbit/s, a satellite, both, half of all messages lost."""


@pytest.mark.slow
@pytest.mark.parametrize("full_begins", [False, True])
@pytest.mark.parametrize(("way", "rate", "loss"), SLOW)
def test_a_blank_node_gets_everything_on_any_link(full_begins: bool, way: float, rate: float, loss: float) -> None:
    carried, times = list[int](), list[float]()
    for seed in range(8 if loss else 1):
        wire = Wire(node("full", 400), node("blank"), way, rate, loss, chance=Random(seed))
        content = size(wire.a)
        wire.begin("a" if full_begins else "b")
        took = wire.run(3600.0, agree(wire))
        assert wire.a.state == wire.b.state
        assert wire.longest <= max(1.8 * rate, 1200), "a part takes about a second at most"
        carried.append(wire.carried["a"])
        times.append(took)
    if loss:  # by chance: some take long
        assert mean(carried) <= 3 * content
        assert mean(times) < 200
    else:
        assert wire.carried["a"] <= 1.15 * content + 2 * 1100, "the first part may be sent three times"
        assert took <= 1.33 * content / rate + 16 * way + 3
        assert full_begins or max(count for index, count in wire.slices.items() if index > 1) == 1


@pytest.mark.slow
@given(st.lists(st.tuples(st.floats(0.5, 12.0), st.floats(0.1, 30.0)), max_size=6), st.booleans(), st.booleans())
@example([(1.25, 13.375), (6.375, 1.0)], False, False)
def test_what_arrived_is_not_asked_for_again_however_often_the_link_falls(
    falls: list[tuple[float, float]], full_begins: bool, whole: bool
) -> None:
    """Nor where the sender's state changes meanwhile: it sends the same snapshot on."""
    times, at = list[tuple[float, float]](), 0.0
    for up, down in falls:
        times.append((at + up, at + up + down))
        at += up + down
    wire = Wire(node("full", 250), node("blank"), 0.1, 1200.0, down=lambda now: any(begin <= now < end for begin, end in times))
    if whole:  # no Delta serves the blank node, but a Sync
        wire.a.add_constraint("removed")
        wire.a.remove_constraint("removed")
        wire.a.collect()
    content = size(wire.a)
    wire.begin("a" if full_begins else "b")
    for second in range(1, 200, 3):
        wire.later(second, lambda: wire.a.record(1))
    wire.run(3600.0, lambda: len(wire.b.state.constraints) == 250)
    assert len(wire.b.state.constraints) == 250
    if not full_begins:
        again = [index for index, count in wire.slices.items() if count > 1]
        # Those of the first burst perhaps twice, before the round trip is known; and after a fall the last slice of a burst that is
        # still on its way when the reader asks again.
        assert len(set(again) - {0, 1}) <= len(falls), "each slice arrived once"
    # A fall costs what is under way: a burst of about a second, and questions without an answer.
    assert wire.carried["a"] <= 1.15 * content + (len(falls) + 2) * 3 * 2048 + 200 * wire.now / 3


@pytest.mark.slow
@pytest.mark.parametrize("full_begins", [False, True])
def test_news_of_the_reader_passes_in_the_middle_of_a_transfer(full_begins: bool) -> None:
    wire = Wire(node("full", 1200), node("blank"), 0.2, 1200.0)
    content = size(wire.a)
    wire.b.receive(wire.a.ping())  # it knows the clock of the other
    wire.begin("a" if full_begins else "b")
    heard = list[float]()
    for second in (8, 16, 24):
        wire.later(second - wire.now, partial(wire.b.add_constraint, f"news {second}"))
        wire.run(200.0, partial(wire.a.state.constraints.__contains__, f"news {second}"))
        heard.append(wire.now - second)
        assert not len(wire.b.state.rows) > 4, "the transfer goes on"
    assert max(heard) < 4.0, "a burst and two round trips"
    wire.run(600.0, agree(wire))
    assert wire.a.state == wire.b.state
    assert wire.carried["a"] <= 1.15 * content + 3 * 300, "and it was not begun again"


@pytest.mark.slow
@pytest.mark.parametrize("full_begins", [False, True])
def test_a_transfer_goes_on_where_the_sender_has_the_news_of_the_reader_already(full_begins: bool) -> None:
    """By way of another node, or by a message whose answer was lost: the reader has no evidence of that."""
    wire = Wire(node("full", 1200), node("blank"), 0.2, 1200.0)
    content = size(wire.a)
    wire.b.receive(wire.a.ping())  # it knows the clock of the other
    wire.begin("a" if full_begins else "b")

    def known_already() -> None:
        wire.b.add_constraint("news")
        wire.a.receive(wire.b.delta_since(wire.a.clock))

    wire.later(8, known_already)
    took = wire.run(600.0, agree(wire))
    assert wire.a.state == wire.b.state
    assert took < 1.33 * content / 1200 + 10
    assert wire.carried["a"] <= 1.15 * content + 3 * 300, "and it was not begun again"


@pytest.mark.slow
def test_a_transfer_goes_on_after_a_break_in_which_the_reader_wrote() -> None:
    wire = Wire(node("full", 1200), node("blank"), 0.2, 1200.0, down=lambda now: 8 < now < 30)
    content = size(wire.a)
    wire.b.receive(wire.a.ping())
    wire.begin("b")
    wire.later(15, partial(wire.b.add_constraint, "news"))
    wire.run(600.0, agree(wire))
    assert wire.a.state == wire.b.state
    assert wire.carried["a"] <= 1.15 * content + 3 * 2048
    again = [index for index, count in wire.slices.items() if count > 1]
    assert set(again) <= {0, 1}, "each slice arrived once"


class Old(GossipNode):
    """As 0.1.0 speaks: it sends no `unit` and no `held`, and reads neither."""

    def receive(self, message: object) -> object:  # type: ignore[override]
        if isinstance(message, Part):
            assert message.unit is None or len(message.chunk) <= message.unit, "it would take several slices for one"
            message = replace(message, unit=None)
        if isinstance(message, Resume):
            message = replace(message, held=None)
        result = super().receive(message)  # type: ignore[arg-type]
        result.responses = [replace(each, held=None) if isinstance(each, Resume) else each for each in result.responses]
        return result

    def begin(self, peer: str) -> GossipMessage:
        message = super().begin(peer)
        return replace(message, held=None) if isinstance(message, Resume) else message

    def encoded(self, message: GossipMessage, peer: str, max_bytes: int = 65536) -> list[bytes]:
        self.links.at = None
        return super().encoded(message, peer, max_bytes)


@pytest.mark.long(by_day=["8000.0-blank-True", "1000000.0-full-False"])
@pytest.mark.parametrize("full_begins", [False, True])
@pytest.mark.parametrize("old", ["full", "blank"])
@pytest.mark.parametrize("rate", [8000.0, 1e6])
def test_nodes_of_0_1_0_read_and_send_transfers_as_before(old: str, rate: float, full_begins: bool) -> None:
    full, blank = (
        (Old if name == old else GossipNode)(name, incarnation=1, renew=itertools.count(2).__next__, now=lambda: 1)
        for name in ("full", "blank")
    )
    for number in range(4000):
        full.add_constraint(scrambled(f"{number}"))
    content = size(full)
    assert content > 2 * 65536
    wire = Wire(full, blank, 0.05, rate)
    wire.begin("a" if full_begins else "b")
    wire.run(600.0, agree(wire))
    assert full.state == blank.state
    if old == "blank":
        assert wire.carried["a"] <= 1.15 * content
        assert wire.longest <= max(1.4 * rate, 65536)
