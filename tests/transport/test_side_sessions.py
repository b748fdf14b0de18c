"""Links that Zenoh does not repair: side sessions, when they are opened and closed, and what passes through them."""

import asyncio
from pathlib import Path
from random import Random
from typing import Any

import pytest

from constraint_crdt.transport import LinkKind, Sought, TransportError, zenoh
from constraint_crdt.transport.zenoh import (
    ANSWERED_TURN,
    MOST_TRYING,
    QUICK_TURNS,
    SEEDS,
    SETTLED,
    START_WAIT,
    TURN,
    Opening,
    SidePlan,
    ZenohTransport,
)
from constraint_crdt.transport.zenoh_startup import open_session
from tests.conftest import within
from tests.fleet.relay import Relay
from tests.runtime.fleet import eventually
from tests.security.fleets import FLEET, Fleet

from .seats import Network, Seat, all_see_all
from .test_zenoh_links import break_links, port_of

ADDRESS = Sought(("tcp/192.0.2.7:7447",))
NOBODY: frozenset[str] = frozenset()


class Planned:
    """A plan in time, with side sessions that link only to the peers in `reachable`."""

    def __init__(self, me: str = "a") -> None:
        self.plan = SidePlan(me, Random(1), 0.0)
        self.now = START_WAIT
        self.sought: dict[str, Sought] = {}
        self.links: dict[str, LinkKind] = {}
        self.ours: set[str] = set()
        self.theirs: set[str] = set()
        self.opened: list[tuple[float, str]] = []
        self.closed: list[tuple[float, str]] = []
        self.openings: list[Opening] = []

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            opened, closed = self.plan.look(self.now, self.sought, self.links, self.ours, self.theirs)
            self.opened += [(self.now, each.name) for each in opened]
            self.openings += opened
            self.closed += [(self.now, name) for name in closed]
            self.now += 0.25

    @property
    def names(self) -> set[str]:
        return set(self.plan.names)


def test_the_lesser_name_opens_first() -> None:
    first, second = Planned("a"), Planned("c")
    for each in (first, second):
        each.sought = {"b": ADDRESS}
        each.run(1.0)
    assert (first.names, second.names) == ({"b"}, set())
    second.run(1.5)
    assert second.names == {"b"}, "only it may be able to connect"


def test_a_link_of_the_main_sessions_ends_the_side_session_once_it_has_lasted() -> None:
    planned = Planned()
    planned.sought = {"b": ADDRESS}
    planned.run(1.0)
    planned.ours, planned.links = {"b"}, {"b": "side"}
    planned.run(10 * TURN)
    assert planned.names == {"b"}, "a side session with a link has no end"
    assert planned.plan.next_look is None, "there is nothing to look at"
    planned.links = {"b": "direct"}
    planned.run(SETTLED / 2)
    planned.links = {"b": "side"}
    planned.run(SETTLED)
    planned.links = {"b": "direct"}
    planned.run(SETTLED)
    assert planned.names == {"b"}, "the direct link went once, and has lasted for a moment only"
    planned.run(0.5)
    assert planned.names == set()


def test_a_node_that_is_no_longer_sought_loses_its_side_session() -> None:
    planned = Planned()
    planned.sought = {"b": ADDRESS}
    planned.run(1.0)
    planned.sought = {}
    planned.run(0.25)
    assert planned.names == set()


@pytest.mark.parametrize(("me", "kept"), [("a", {"b"}), ("c", set())])
def test_of_two_side_sessions_that_of_the_greater_name_is_closed(me: str, kept: set[str]) -> None:
    planned = Planned(me)
    planned.sought = {"b": ADDRESS}
    planned.run(3.0)
    planned.ours, planned.theirs, planned.links = {"b"}, {"b"}, {"b": "side"}
    planned.run(SETTLED + 0.5)
    assert planned.names == kept


def test_many_missing_peers_have_turns_and_those_that_others_heard_of_come_first() -> None:
    planned = Planned()
    names = [f"n{number:02d}" for number in range(4 * MOST_TRYING)]
    planned.sought = {name: Sought(ADDRESS.endpoints, alive=name == names[-1]) for name in names}
    planned.run(1.0)
    assert len(planned.names) == MOST_TRYING
    assert names[-1] in planned.names
    most = 0
    for _ in range(round(12 * TURN)):
        planned.run(1.0)
        most = max(most, len(planned.names))
    assert most == MOST_TRYING
    assert {name for _, name in planned.opened} == set(names), "each has its turn"


@pytest.mark.slow
def test_a_peer_missing_for_long_is_tried_less_often_unless_others_hear_of_it() -> None:
    planned = Planned()
    planned.sought = {"dead": ADDRESS, "cut": Sought(ADDRESS.endpoints, alive=True)}
    planned.run(3600)
    turns = [name for _, name in planned.opened]
    assert turns.count("cut") >= 3500 // (TURN + 0.5)
    assert QUICK_TURNS < turns.count("dead") < turns.count("cut") / 5


@pytest.mark.parametrize(("round_trip", "seconds"), [(3.0, 18.0), (0.01, 0.6), (None, 1.0)])
def test_the_time_for_opening_follows_the_round_trip(round_trip: float | None, seconds: float) -> None:
    planned = Planned()
    planned.sought = {"b": Sought(ADDRESS.endpoints, round_trip=round_trip)}
    planned.run(3 * TURN)
    assert [(each.open_seconds, each.knocks) for each in planned.openings] == [(seconds, False), (seconds, True), (seconds, True)]


def test_a_turn_is_longer_once_an_endpoint_has_answered() -> None:
    planned = Planned()
    planned.sought = {"b": ADDRESS}
    planned.run(1.0)
    planned.plan.answered("b")
    planned.run(TURN + ANSWERED_TURN - 1.0)
    assert not planned.closed
    planned.run(2.0)
    assert [name for _, name in planned.closed] == ["b"]


def test_nothing_is_opened_at_the_start_while_gossip_may_find_the_peers() -> None:
    planned = Planned()
    planned.now, planned.links, planned.sought = 0.0, {"c": "direct"}, {"b": ADDRESS}
    planned.run(START_WAIT - 0.25)
    assert not planned.opened
    planned.run(1.0)
    assert planned.names == {"b"}
    alone = Planned()
    alone.now, alone.sought = 0.0, {SEEDS: ADDRESS}
    alone.run(1.0)
    assert alone.names == {SEEDS}


@pytest.mark.slow
async def test_a_broken_link_is_made_again_while_all_others_stay(zenoh: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("constraint_crdt.transport.zenoh.START_WAIT", 0.5)
    seed, a, b = [await zenoh.join(name) for name in ("seed", "a", "b")]
    await all_see_all(seed, a, b)
    _seek(a, b)
    _seek(b, a)
    before = [list(seat.changes) for seat in (seed, a, b)]
    assert break_links({port_of(a), port_of(b)} if port_of(a) else set())
    await a.until(lambda: (b.me, False) in a.changes)
    await all_see_all(seed, a, b)
    assert _linking(a).links() == {"seed": "direct", "b": "side"}
    assert _linking(b).links() == {"seed": "direct", "a": "side"}
    assert await a.ask(b, b"x") == [b"x"]
    assert await b.ask(a, b"y") == [b"y"]
    assert [peer for peer, _ in seed.changes[len(before[0]) :]] == [], "a link of another pair fell"
    assert {peer for peer, _ in a.changes[len(before[1]) :]} == {b.me}


@pytest.mark.slow
async def test_two_that_know_each_others_endpoints_link_without_a_third(zenoh: Network) -> None:
    a, b = [await zenoh.join(name, transport=ZenohTransport()) for name in "ab"]
    _seek(b, a)  # the greater name, later
    await all_see_all(a, b)
    assert await a.ask(b, bytes(65536)) == [bytes(65536)]


@pytest.mark.slow
async def test_where_both_open_one_a_single_one_stays(zenoh: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("FIRST_WAIT", 0.2), ("SECOND_WAIT", 0.2), ("JITTER", 0.0)):
        monkeypatch.setattr(f"constraint_crdt.transport.zenoh.{name}", seconds)
    a, b = [await zenoh.join(name, transport=ZenohTransport(discover=False)) for name in "ab"]
    _seek(a, b)
    _seek(b, a)
    await all_see_all(a, b)
    await eventually(lambda: len(_linking(a)._sides) + len(_linking(b)._sides) == 1)
    assert a.changes == [(b.me, True)]
    assert b.changes == [(a.me, True)], "nothing was lost on the way to one"
    assert await b.ask(a, b"x") == [b"x"]


@pytest.mark.slow
async def test_a_side_session_recovers_by_itself_from_a_cut(zenoh: Network) -> None:
    a, b = [await zenoh.join(name, transport=ZenohTransport(discover=False)) for name in "ab"]
    relay = Relay(("127.0.0.1", port_of(b)))
    _linking(a).seek({"b": Sought((relay.endpoint,))})
    await all_see_all(a, b)
    relay.cut()
    await a.sees()
    await b.sees()
    relay.join()
    loop = asyncio.get_running_loop()
    healed = loop.time()
    await all_see_all(a, b)
    assert loop.time() - healed < within(2.0)
    assert await b.ask(a, b"x") == [b"x"]
    relay.close()


@pytest.mark.long
async def test_a_direct_link_that_comes_back_takes_over(zenoh: Network) -> None:
    a = await zenoh.join("a", transport=ZenohTransport(discover=False))
    relay = Relay(("127.0.0.1", port_of(a)))
    b = await zenoh.join("b", transport=ZenohTransport(connect=[relay.endpoint], discover=False))
    await all_see_all(a, b)
    relay.cut()
    await a.sees()
    _seek(a, b)
    await all_see_all(a, b)
    assert _linking(b).links() == {"a": "side"}
    changes = len(a.changes), len(b.changes)
    relay.join()
    await eventually(lambda: not _linking(a)._sides and _linking(b).links() == {"a": "direct"})
    assert (len(a.changes), len(b.changes)) == changes, "the peer stayed all the time"
    assert await a.ask(b, b"x") == [b"x"]
    relay.close()


@pytest.mark.slow
async def test_a_side_session_shows_the_certificate_of_its_node(zenoh: Network, tmp_path: Path) -> None:
    plant, other = Fleet(tmp_path / "plant"), Fleet(tmp_path / "other")

    async def join(name: str, of: Fleet) -> Seat:
        transport = ZenohTransport(discover=False, identity=of.identity(name))
        return await zenoh.join(name, fleet=FLEET, transport=transport)

    a, b, stranger = await join("a", plant), await join("b", plant), await join("c", other)
    _linking(a).seek({"b": Sought(b.transport.endpoints), "c": Sought(stranger.transport.endpoints)})
    await all_see_all(a, b)
    assert set(_linking(a).proofs.values()) != {""}
    assert await a.ask(b, b"x") == [b"x"]
    assert await b.ask(a, b"y") == [b"y"]
    assert stranger.transport.peers() == frozenset()


@pytest.mark.slow
async def test_an_endpoint_of_another_node_is_not_taken_for_the_one_that_is_meant(zenoh: Network) -> None:
    a, b = [await zenoh.join(name, transport=ZenohTransport(discover=False)) for name in "ab"]
    _linking(a).seek({"liar": Sought(b.transport.endpoints)})
    await a.sees(b)
    assert _linking(a).links() == {"b": "side"}


@pytest.mark.slow
async def test_a_session_that_cannot_open_again_at_once_opens_later(zenoh: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """The defect: a session with a dead link took seconds to close, its port was taken meanwhile, and the node had none at all."""
    a, b = await zenoh.join("a"), await zenoh.join("b")
    await all_see_all(a, b)
    refused: list[str] = []

    def refuse(*arguments: Any) -> Any:
        if len(refused) < 2:
            refused.append("")
            raise TransportError("the port is taken")
        return open_session(*arguments)

    monkeypatch.setattr("constraint_crdt.transport.zenoh.open_session", refuse)
    b.me = await b.transport.reopen()
    assert b.transport.endpoints == ()
    await all_see_all(a, b)
    assert len(refused) == 2


@pytest.mark.slow
async def test_of_several_endpoints_of_a_peer_the_first_that_answers_is_taken(zenoh: Network) -> None:
    a, b = [await zenoh.join(name, transport=ZenohTransport(discover=False)) for name in "ab"]
    gone = await zenoh.join("gone", transport=ZenohTransport(discover=False))
    endpoints = (*gone.transport.endpoints, "tcp/no.such.host.invalid:7447", *b.transport.endpoints)
    await gone.transport.close()
    _linking(a).seek({"b": Sought(endpoints)})
    await all_see_all(a, b)


def _linking(seat: Seat) -> ZenohTransport:
    assert isinstance(seat.transport, zenoh.ZenohTransport)
    return seat.transport


def _seek(seat: Seat, *others: Seat) -> None:
    _linking(seat).seek({other.me.name: Sought(other.transport.endpoints) for other in others})
