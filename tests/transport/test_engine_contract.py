"""What every transport does, whatever carries it."""

import asyncio
import logging
from collections.abc import Sequence

import pytest

from constraint_crdt.transport import ANSWERS_AT_ONCE, MAX_PAYLOAD, Peer, TransportError, Unreachable
from tests.conftest import within

from .seats import DEADLINE, Network, Seat, all_see_all, always


async def test_two_see_each_other_and_talk(network: Network) -> None:
    a, b = await network.join("a"), await network.join("b")
    await all_see_all(a, b)
    assert a.changes == [(b.me, True)]
    assert b.changes == [(a.me, True)]
    assert await a.ask(b, b"hello") == [b"hello"]
    assert await b.ask(a, b"") == [b""]


async def test_three_find_each_other_through_the_first(network: Network) -> None:
    seats = [await network.join(name) for name in "abc"]
    await all_see_all(*seats)
    answers = [await x.ask(y, x.me.name.encode()) for x in seats for y in seats if x is not y]
    assert answers == [[x.me.name.encode()] for x in seats for y in seats if x is not y]


@pytest.mark.parametrize(
    "replies",
    [
        [],
        [b""],
        [b"", b"x", b""],
        [bytes([n % 251]) * 65536 for n in range(200)],
        [n.to_bytes(4, "big") for n in range(1000)],
        [bytes(MAX_PAYLOAD)] * 5,
    ],
    ids=["none", "one-empty", "empties-between", "200-of-64KiB", "1000-small", "largest"],
)
async def test_replies_come_whole_and_in_order(network: Network, replies: Sequence[bytes]) -> None:
    a, b = await network.join("a"), await network.join("b", handler=always(*replies))
    await a.sees(b)
    assert await a.ask(b, b"x" * 65536) == list(replies)
    assert await a.ask(b) == list(replies)


async def test_payload_bytes_are_counted_on_both_sides(network: Network) -> None:
    a, b = await network.join("a"), await network.join("b", handler=always(b"123", b"4567"))
    await a.sees(b)
    await a.ask(b, b"12345")
    assert (a.transport.bytes_sent, a.transport.bytes_received) == (5, 7)
    assert (b.transport.bytes_sent, b.transport.bytes_received) == (7, 5)


@pytest.mark.slow
async def test_many_requests_at_once_each_get_their_own_answer(network: Network) -> None:
    a, b = await network.join("a"), await network.join("b")
    await a.sees(b)
    asked = [n.to_bytes(2, "big") * 100 for n in range(ANSWERS_AT_ONCE)]
    assert await asyncio.gather(*(a.ask(b, each) for each in asked)) == [[each] for each in asked]


@pytest.mark.slow
async def test_a_handler_may_start_a_request_to_the_one_who_asks(network: Network) -> None:
    asked_back: list[asyncio.Task[list[bytes]]] = []

    async def ask_back(request: bytes, _: Peer | None) -> Sequence[bytes]:
        asked_back.append(asyncio.get_running_loop().create_task(b.ask(a, b"back")))
        return [b"answer"]

    a, b = await network.join("a"), await network.join("b", handler=ask_back)
    await all_see_all(a, b)
    assert await a.ask(b) == [b"answer"]
    assert await asked_back[0] == [b"back"]


async def test_a_closed_peer_goes_and_is_unreachable(network: Network) -> None:
    a, b = await network.join("a"), await network.join("b")
    await all_see_all(a, b)
    await b.transport.close()
    await a.sees()
    assert a.changes == [(b.me, True), (b.me, False)]
    assert b.changes == [(a.me, True)]
    assert b.transport.peers() == frozenset()
    async with asyncio.timeout(within(2.0)):
        with pytest.raises(Unreachable, match="b "):
            await a.transport.request(b.me, b"?", 1.0)


async def test_a_peer_that_never_was_is_unreachable(network: Network) -> None:
    a = await network.join("a")
    with pytest.raises(Unreachable):
        await a.transport.request(Peer("ghost", "0" * 16), b"?", 1.0)


async def test_a_handler_that_fails_costs_its_answer_only(network: Network, caplog: pytest.LogCaptureFixture) -> None:
    async def fail_on_bad(request: bytes, _: Peer | None) -> Sequence[bytes]:
        if request == b"bad":
            raise KeyError(request)
        return [bytes(MAX_PAYLOAD + 1)] if request == b"long" else [b"good"]

    a, b = await network.join("a"), await network.join("b", handler=fail_on_bad)
    await a.sees(b)
    for request in (b"bad", b"long"):
        with pytest.raises(Unreachable), caplog.at_level(logging.CRITICAL, "constraint_crdt.transport"):
            await a.ask(b, request)
    assert await a.ask(b, b"fine") == [b"good"]


async def test_fleets_do_not_mix(network: Network) -> None:
    a, b = await network.join("a", fleet="one"), await network.join("b", fleet="one")
    stranger, companion = await network.join("c", fleet="one/more"), await network.join("d", fleet="one/more")
    await all_see_all(a, b)
    await all_see_all(stranger, companion)
    with pytest.raises(Unreachable):
        await a.transport.request(stranger.me, b"?", 1.0)
    seen = {peer for seat in (a, b) for peer, _ in seat.changes}
    assert seen == {a.me, b.me}


async def test_two_of_one_name_are_two_peers(network: Network) -> None:
    a = await network.join("a")
    twins = [
        await network.join("twin", handler=always(b"1")),
        await network.join("twin", handler=always(b"2")),
    ]
    await all_see_all(a, *twins)
    assert [await a.ask(twin) for twin in twins] == [[b"1"], [b"2"]]
    assert twins[0].me.session != twins[1].me.session
    assert int(twins[0].me.session, 16)


@pytest.mark.parametrize("name", ["a/b *?#é$", "@x", "..", "%2F", "日本", "**", " ", "x" * 256])
async def test_names_may_hold_any_character(network: Network, name: str) -> None:
    a, odd = await network.join("a", fleet=name), await network.join(name, fleet=name)
    await all_see_all(a, odd)
    assert next(iter(a.transport.peers())).name == name
    assert await a.ask(odd, b"x") == [b"x"]


async def test_close_is_idempotent_and_a_closed_transport_opens_again(network: Network) -> None:
    a = await network.join("a")
    seat = Seat(network.transport())
    await seat.transport.close()
    first = (await seat.open("b")).me
    await all_see_all(a, seat)
    await seat.transport.close()
    await seat.transport.close()
    with pytest.raises(Unreachable):
        await seat.ask(a)
    network.seats.append(seat)
    assert (await seat.open("b")).me != first
    await all_see_all(a, seat)
    assert await seat.ask(a, b"again") == [b"again"]


async def test_opening_twice_and_reopening_what_is_closed_are_refused(network: Network) -> None:
    a = await network.join("a")
    with pytest.raises(TransportError, match="open already"):
        await a.open("a")
    await a.transport.close()
    with pytest.raises(TransportError, match="not open"):
        await a.transport.reopen()


@pytest.mark.parametrize(("name", "fleet"), [("", "fleet"), ("a", "")])
async def test_a_missing_name_is_refused(network: Network, name: str, fleet: str) -> None:
    with pytest.raises(TransportError, match="name"):
        await network.join(name, fleet=fleet)


@pytest.mark.slow
async def test_reopening_is_a_new_session_that_everybody_finds(network: Network) -> None:
    a, b, c = [await network.join(name) for name in "abc"]
    await all_see_all(a, b, c)
    before = b.me
    b.me = await b.transport.reopen()
    assert b.me.name == before.name
    assert b.me.session != before.session
    await b.until(lambda: b.changes.count((a.me, True)) == b.changes.count((c.me, True)) == 2)
    await all_see_all(a, b, c)
    assert b.changes.count((a.me, False)) == b.changes.count((c.me, False)) == 1
    assert {peer for peer, _ in b.changes} == {a.me, c.me}, "a transport was told of itself"
    assert (before, False) in a.changes
    assert await a.ask(b, b"x") == [b"x"]
    assert await b.ask(c, b"y") == [b"y"]
    with pytest.raises(Unreachable):
        await a.transport.request(before, b"?", 1.0)


async def test_a_payload_above_the_limit_is_refused_at_once(network: Network) -> None:
    a, b = await network.join("a"), await network.join("b")
    await a.sees(b)
    with pytest.raises(ValueError, match="above the engine's limit"):
        await a.ask(b, bytes(MAX_PAYLOAD + 1))
    assert a.transport.bytes_sent == 0


async def test_close_ends_requests_that_wait(network: Network) -> None:
    a, b = await network.join("a"), await network.join("b")
    await a.sees(b)
    waiting = asyncio.get_running_loop().create_task(a.transport.request(b.me, b"?", DEADLINE))
    await asyncio.sleep(0)  # one turn of the loop: the request is on its way, its answer needs more
    await a.transport.close()
    with pytest.raises(Unreachable, match="closed"):
        await waiting
