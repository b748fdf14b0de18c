"""Transfers of running nodes in virtual time: no stall, and no byte too many, in whatever order news, breaks and restarts come."""

import asyncio
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from constraint_crdt import GossipNode, Replica, VectorClock
from constraint_crdt.crdt.clock import ClockMark
from constraint_crdt.protocol.exchange_rules import BETWEEN, Composer, Exchange, GossipResult
from constraint_crdt.protocol.messages import GossipMessage, Ping
from constraint_crdt.protocol.peers import LinkEstimate, Peer
from tests.conftest import BUDGET
from tests.protocol.scrambled import scrambled, travelling
from tests.protocol.timed_fleet import TimedFleet, Way, in_virtual_time

NAMES = ("a", "b", "c", "d")

RATES = (1200.0, 8000.0, 64_000.0, 1e6, 1e8)
DELAYS = (0.0005, 0.02, 0.1, 0.5, 1.5)
"""Bytes per second, and seconds of a way."""

WRITES = ("add", "record", "remove", "collect", "relayed")
"""`relayed`: the others learn of the write by another way, so its node has no evidence of that."""


@dataclass(frozen=True)
class Course:
    """The nodes and links of a history, and all that happens in it. Times are in seconds from the beginning."""

    constraints: tuple[int, ...]
    """Of each node at the beginning."""
    rate: float = 8000.0
    delay: float = 0.1
    back: float = 1.0
    """The rate from later names to earlier ones, as a share of `rate`."""
    jitter: float = 0.0
    loss: float = 0.0
    twice: float = 0.0
    floors: bool = False
    """Constraints were removed and the removals dropped before, so that no Delta serves a blank node."""
    writes: tuple[tuple[float, int, str], ...] = ()
    """When, on which node, and a name of `WRITES`."""
    breaks: tuple[tuple[float, float, int, bool], ...] = ()
    """When, for how long, from which node on, and whether in that direction only."""
    restarts: tuple[tuple[float, int, bool], ...] = ()
    """When, of which node, and whether its store is kept."""
    signed: bool = False
    seed: int = 0

    @property
    def rate_back(self) -> float:
        return max(self.rate * self.back, RATES[0])


@dataclass(frozen=True)
class Outcome:
    """The end of a history."""

    first: float
    """Seconds from the beginning until all had the state that the first node began with."""
    after: float
    """Seconds from the last fault and write until all agreed; infinite if they never did."""
    content: int
    """Bytes of the whole state, at the beginning or at the end."""
    carried: int
    """Bytes of all messages."""
    most: int
    """How often a slice was sent to the same reader, at most."""
    seconds: float
    """The length of the history."""


async def followed(course: Course) -> Outcome:
    """Follow a course to its end."""
    fleet = TimedFleet(Random(course.seed), signed=course.signed)
    names = NAMES[: len(course.constraints)]
    broken = [
        (start, start + lasts, names[at % len(names)], names[(at + 1) % len(names)], one_way)
        for start, lasts, at, one_way in course.breaks
    ]
    for one in names:
        for other in names:
            spans = [
                (start, end)
                for start, end, a, b, one_way in broken
                if (one, other) == (a, b) or (not one_way and (other, one) == (a, b))
            ]
            fleet.ways[one, other] = Way(
                delay=course.delay,
                rate=course.rate if one < other else course.rate_back,
                loss=course.loss,
                twice=course.twice,
                jitter=course.jitter,
                down=partial(_is_in, spans),
            )
    for name, count in zip(names, course.constraints, strict=True):
        gossip = fleet.make(name)
        for number in range(count):
            gossip.add_constraint(scrambled(f"{name} {number}"))
        if course.floors and count:
            for number in range(0, count, 7):
                gossip.remove_constraint(scrambled(f"{name} {number}"))
            gossip.collect()
        fleet.began[name] = gossip.clock[gossip.replica]
        fleet.start(gossip)
    states = [member.gossip.delta_since(VectorClock()) for member in fleet.members.values()]
    content = sum(map(travelling, states))
    clock = asyncio.get_running_loop()
    firsts = clock.create_task(fleet.until(lambda: _all_have(fleet, names[0]), 3600.0))
    steps = sorted([*course.writes, *((at, node % len(names), f"restart {kept}") for at, node, kept in course.restarts)])
    for number, (at, node, what) in enumerate(steps):
        await asyncio.sleep(max(0.0, at - clock.time()))
        name = names[node % len(names)]
        if what.startswith("restart"):
            last = await fleet.stop(name)
            await asyncio.sleep(0.5)
            fleet.start(fleet.restored(last) if what == "restart True" else fleet.make(name, 100 + number))
        else:
            fleet.write(name, partial(_write, what, number, names))
            if what == "relayed":
                _relay(fleet, name)
    await asyncio.sleep(max([0.0, *(end - clock.time() for _, end, *_ in broken)]))
    for way in fleet.ways.values():
        way.loss = 0.0
    began = clock.time()
    agreed = await fleet.until(fleet.agree, 3600.0)
    state = next(iter(fleet.members.values())).gossip
    content = max(content, travelling(state.delta_since(VectorClock())))
    first = await firsts
    seconds, carried, most = clock.time(), sum(fleet.carried.values()), max(fleet.slices.values(), default=0)
    await fleet.close()
    return Outcome(first, agreed - began, content, carried, most, seconds)


def _all_have(fleet: TimedFleet, name: str) -> bool:
    """True if all nodes have what the first row of a node has, on the node that has most of it."""
    seqs = [member.gossip.clock[Replica(name, 1)] for member in fleet.members.values()]
    return len(set(seqs)) == 1 or min(seqs) >= fleet.began[name]


def _is_in(spans: list[tuple[float, float]], now: float) -> bool:
    return any(start <= now < end for start, end in spans)


def _relay(fleet: TimedFleet, name: str) -> None:
    """Have the others take the news of a node that they can take now. Their answers are lost."""
    if name in fleet.members:
        writer = fleet.members[name].gossip
        for other in fleet.members.values():
            if other.gossip is not writer and all(other.gossip.clock[row] for row in writer.clock if row != writer.replica):
                other.gossip.receive(writer.delta_since(other.gossip.clock))


def _write(what: str, number: int, names: tuple[str, ...], node: GossipNode) -> None:
    active = sorted(node.state.constraints)
    if what == "remove" and active:
        node.remove_constraint(active[number % len(active)])
    elif what == "collect":
        node.collect([name for name in names if name != node.node_id])
    elif what == "record":
        node.record_satisfied(number + 1)
    else:
        node.add_constraint(scrambled(f"news {number}"))


def check(course: Course) -> Outcome:
    """All agree, in about the time and by about the bytes that it takes."""
    outcome: Outcome = in_virtual_time(followed(course))
    slowest, turn = course.rate_back, 2 * (course.delay + 2 * course.jitter)
    content, nodes = max(outcome.content, 600), len(course.constraints)
    faults = max([0.0, *(at + lasts for at, lasts, *_ in course.breaks), *(at + 0.5 for at, *_ in course.restarts)])
    doubled = 1 + course.twice  # what comes twice takes its part of the link, and a request that does, the part of its answer
    if not course.loss:
        assert outcome.first <= faults + 2.5 * doubled * (content / slowest + 8 * turn + 5.0), outcome
    assert outcome.after <= 3.0 * doubled * (content / slowest + 8 * turn + 5.0), outcome
    again = 1 + len(course.restarts) + (course.loss > 0)  # a node without its store needs all again, from each of the others
    idle = 300 * nodes * outcome.seconds  # rounds
    assert outcome.carried <= 1.5 * nodes * (nodes - 1) * again * content + 3000 * len(course.breaks) + idle, outcome
    repeated = 3 * len(course.breaks) + 2 * len(course.restarts)  # each request that a break swallows is sent three times
    assert outcome.most <= (12 if course.loss or course.twice else 8 + repeated), outcome
    return outcome


TIMES = st.floats(0.0, 20.0)


def news(count: int, seconds: float, kinds: tuple[str, ...], seed: int) -> tuple[tuple[float, int, str], ...]:
    """So many writes on any nodes within so many seconds."""
    chance = Random(seed)
    return tuple((chance.uniform(0.0, seconds), chance.randrange(4), chance.choice(kinds)) for _ in range(count))


def steady(every: float, node: int) -> tuple[tuple[float, int, str], ...]:
    """The news of a node that the others learn of by another way, for a minute."""
    return tuple((every * number, node, "relayed") for number in range(1, int(60 / every)))


COURSES = st.builds(
    Course,
    constraints=st.one_of(
        st.sampled_from(((800, 0), (800, 0, 0), (800, 0, 0, 0))),  # others have news for each other while both are told all
        st.lists(st.sampled_from((0, 50, 300)), min_size=1, max_size=3).map(lambda others: (300, *others)),
    ),
    rate=st.sampled_from(RATES),
    delay=st.sampled_from(DELAYS),
    back=st.sampled_from((1.0, 1.0, 0.25)),
    jitter=st.sampled_from((0.0, 0.0, 0.1)),
    loss=st.sampled_from((0.0, 0.0, 0.05, 0.2)),
    twice=st.sampled_from((0.0, 0.3)),
    floors=st.booleans(),
    writes=st.one_of(
        st.builds(
            news,
            st.sampled_from((0, 5, 20, 60)),
            st.sampled_from((5.0, 20.0)),
            st.sampled_from((WRITES, ("record", "relayed"))),
            st.integers(0, 99),
        ),
        st.builds(steady, st.sampled_from((0.7, 1.5, 3.0)), st.integers(0, 3)),
    ),
    breaks=st.lists(st.tuples(TIMES, st.floats(0.1, 12.0), st.integers(0, 3), st.booleans()), max_size=2).map(tuple),
    restarts=st.lists(st.tuples(TIMES, st.integers(0, 3), st.booleans()), max_size=1).map(tuple),
    signed=st.booleans(),
    seed=st.integers(0, 1000),
)


STALLED = Course((800, 0), rate=1200.0, delay=0.02, writes=steady(0.7, 1))
"""A reader with news that the sender has already, without evidence of that: it sent them again, and did not ask for the rest."""


@pytest.mark.long
@settings(max_examples=2000 if BUDGET == "nightly" else 3)
@given(COURSES)
@example(STALLED)
@example(replace(STALLED, rate=8000.0, writes=steady(3.0, 1), signed=True))
@example(Course((300, 600), rate=64_000.0, delay=0.5, jitter=0.05))
@example(Course((600, 300), rate=1200.0, delay=0.0005))
@example(Course((800, 0, 0, 0), rate=1200.0, twice=0.3, floors=True, writes=steady(1.5, 3), signed=True, seed=3))
@example(Course((800, 0, 0, 0), rate=1200.0, twice=0.3, floors=True, writes=steady(1.5, 2), signed=True, seed=2))
@example(replace(STALLED, delay=0.0005, jitter=0.1, floors=True, breaks=((0.0, 5.0, 0, False),), restarts=((1.0, 1, False),)))
def test_no_transfer_stalls_and_none_is_sent_again_and_again(course: Course) -> None:
    check(course)


@pytest.mark.slow
def test_a_question_that_waits_for_evidence_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stall of 2026-11: the reader sent its news instead of the question for the rest, and got no evidence of old news."""
    rest, begin, after = Composer.go_on, Composer.begin, Exchange._after_transfer

    def news_first(self: Composer, peer: Peer) -> list[GossipMessage]:
        found = rest(self, peer)
        return found[:1] if len(found) > 1 else found

    def begin_with_news(self: Composer, peer: str) -> GossipMessage:
        known = self._tracker.peer(peer)
        between = self._small_delta(known, BETWEEN) if known is not None and peer in self._inbound else None
        return begin(self, peer) if between is None else between

    def no_evidence(self: Exchange, peer: Peer, theirs: ClockMark, changed: bool, *rest: Any, **more: Any) -> GossipResult:
        sending = self._outbound.is_sending(peer.replica)
        result = after(self, peer, theirs, changed, *rest, **more)
        if sending and not changed:
            result.responses = [each for each in result.responses if not isinstance(each, Ping)]
        return result

    monkeypatch.setattr(Composer, "go_on", news_first)
    monkeypatch.setattr(Composer, "begin", begin_with_news)
    monkeypatch.setattr(Exchange, "_after_transfer", no_evidence)
    monkeypatch.setattr(LinkEstimate, "step", lambda self, sent=0, expected=0: 2 + 2 * self.timeout(1.0))
    with pytest.raises(AssertionError, match="first="):
        check(STALLED)
