"""Zenoh in one process: ports, seeds that come late or again, routers and clients, reopening."""

import asyncio
import contextlib
import os
import socket
import struct
import sys
import threading

import pytest
import zenoh as engine

from constraint_crdt.transport import TransportError, zenoh_session
from constraint_crdt.transport.zenoh import ZenohTransport
from constraint_crdt.transport.zenoh_startup import close_session
from tests.runtime.fleet import eventually

from .seats import DEADLINE, Network, Seat, all_see_all


def port_of(seat: Seat) -> int:
    (endpoint,) = seat.transport.endpoints
    return int(endpoint.rpartition(":")[2])


def break_links(ports: set[int]) -> int:
    """Break every TCP link of this process that has one of `ports` at either end; say how many ends that were.

    All ends are found before the first breaks: a link that Zenoh opens in the place of a broken one stays.
    """
    with contextlib.ExitStack() as duplicates:
        sockets = [duplicates.enter_context(each) for each in map(_socket, os.listdir("/proc/self/fd")) if each is not None]
        ends = [each for each in sockets if ports & _ports_of(each)]
        for end in ends:
            with contextlib.suppress(OSError):  # the other end broke first, and Zenoh closed this one
                end.shutdown(socket.SHUT_RDWR)
        return len(ends)


def _socket(descriptor: str) -> socket.socket | None:
    """A duplicate of this descriptor, if it is a socket."""
    try:
        duplicate = os.dup(int(descriptor))
    except OSError:  # closed meanwhile
        return None
    try:
        return socket.socket(fileno=duplicate)
    except OSError:
        os.close(duplicate)
        return None


def _ports_of(end: socket.socket) -> set[int]:
    """The ports at both ends of a connection; empty for any other socket."""
    if end.family not in (socket.AF_INET, socket.AF_INET6):
        return set()
    try:
        return {end.getsockname()[1], end.getpeername()[1]}
    except OSError:  # it listens
        return set()


async def test_it_says_the_endpoint_it_really_listens_on(zenoh: Network) -> None:
    a = await zenoh.join("a")
    (endpoint,) = a.transport.endpoints
    assert endpoint.startswith("tcp/127.0.0.1:")
    with socket.create_connection(("127.0.0.1", port_of(a)), timeout=5):
        pass
    await a.transport.close()
    assert a.transport.endpoints == ()


@pytest.mark.slow
async def test_a_taken_port_is_refused_by_name_and_closing_frees_it(zenoh: Network) -> None:
    a, b = await zenoh.join("a"), await zenoh.join("b")
    await all_see_all(a, b)
    (endpoint,) = a.transport.endpoints
    late = ZenohTransport(listen=[endpoint])
    with pytest.raises(TransportError, match="taken") as refused:
        await zenoh.join("late", transport=late)
    assert endpoint in str(refused.value)
    assert "\n" not in str(refused.value)
    await late.close()
    await a.transport.close()
    again = await zenoh.join("late", transport=late)
    assert again.transport.endpoints == (endpoint,)


@pytest.mark.parametrize("endpoint", ["tcp/192.0.2.1:7447", "tcp/no.such.host.invalid:7447", "tcp/192.0.2.1:0"])
async def test_an_address_that_is_not_ours_is_refused_by_name(zenoh: Network, endpoint: str) -> None:
    with pytest.raises(TransportError) as refused:
        await zenoh.join("a", transport=ZenohTransport(listen=[endpoint]))
    assert endpoint in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.slow
async def test_a_peer_that_closes_says_so_before_its_links_fall(zenoh: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zenoh left it in the view of others, in one of twenty cases, when both came together."""
    a, b = await zenoh.join("a"), await zenoh.join("b")
    await all_see_all(a, b)
    seen = threading.Event()

    def close_later(session: engine.Session) -> None:
        seen.wait(DEADLINE)
        close_session(session)

    monkeypatch.setattr(zenoh_session, "close_session", close_later)
    closing = asyncio.create_task(b.transport.close())
    await a.sees()
    seen.set()
    await closing


@pytest.mark.slow
async def test_a_peer_started_before_its_seed_joins_once_the_seed_is_there(zenoh: Network) -> None:
    seed = await zenoh.join("seed")
    endpoints = seed.transport.endpoints
    await seed.transport.close()
    early = await zenoh.join("early", transport=ZenohTransport(connect=endpoints))
    assert early.transport.peers() == frozenset()
    seed = await zenoh.join("seed", transport=ZenohTransport(listen=endpoints))
    await all_see_all(seed, early)
    assert await early.ask(seed, b"x") == [b"x"]


@pytest.mark.slow
async def test_a_seed_that_starts_again_on_its_port_is_joined_again(zenoh: Network) -> None:
    seed, a, b = [await zenoh.join(name) for name in ("seed", "a", "b")]
    await all_see_all(seed, a, b)
    endpoints = seed.transport.endpoints
    await seed.transport.close()
    await a.sees(b)
    again = await zenoh.join("seed", transport=ZenohTransport(listen=endpoints))
    await all_see_all(again, a, b)
    assert await a.ask(again, b"x") == [b"x"]


@pytest.mark.slow
async def test_clients_of_a_router_reach_each_other(zenoh: Network) -> None:
    router = await zenoh.join("router", transport=ZenohTransport("router"))
    seats = [await zenoh.join(n, transport=ZenohTransport("client", connect=router.transport.endpoints)) for n in "ab"]
    await all_see_all(router, *seats)
    assert await seats[0].ask(seats[1], b"x") == [b"x"]
    assert seats[0].transport.endpoints == ()


@pytest.mark.long
async def test_a_client_started_before_its_router_joins_once_it_is_there(zenoh: Network) -> None:
    router = await zenoh.join("router", transport=ZenohTransport("router"))
    endpoints = router.transport.endpoints
    await router.transport.close()
    client = await zenoh.join("client", transport=ZenohTransport("client", connect=endpoints))
    assert client.transport.peers() == frozenset()
    router = await zenoh.join("router", transport=ZenohTransport("router", listen=endpoints))
    await all_see_all(router, client)
    assert await router.ask(client, b"x") == [b"x"]


@pytest.mark.slow
async def test_a_client_without_a_router_closes(zenoh: Network) -> None:
    gone = await zenoh.join("gone")
    endpoints = gone.transport.endpoints
    await gone.transport.close()
    client = await zenoh.join("client", transport=ZenohTransport("client", connect=endpoints))
    await client.transport.close()
    assert client.transport.peers() == frozenset()


@pytest.mark.slow
async def test_reopening_keeps_the_endpoint_that_others_know(zenoh: Network) -> None:
    a = await zenoh.join("a")
    b = await zenoh.join("b")
    listened = b.transport.endpoints
    b.me = await b.transport.reopen()
    await all_see_all(a, b)
    assert b.transport.endpoints == listened
    assert await a.ask(b, b"x") == [b"x"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks at the open files of Linux")
async def test_closing_a_link_never_waits_for_its_other_end(zenoh: Network) -> None:
    """The defect: Zenoh sets SO_LINGER, and a dead link that it closed held up all others for 10 s."""
    a, b, c = [await zenoh.join(name) for name in "abc"]
    await all_see_all(a, b, c)
    ports = {port_of(each) for each in (a, b, c)}
    await eventually(lambda: len(found := _lingers(ports)) >= 6 and not any(found))


def _lingers(ports: set[int]) -> list[bool]:
    """Of each end of a link at one of these ports, whether closing it waits."""
    with contextlib.ExitStack() as duplicates:
        sockets = [duplicates.enter_context(each) for each in map(_socket, os.listdir("/proc/self/fd")) if each is not None]
        options = [each.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) for each in sockets if ports & _ports_of(each)]
        return [struct.unpack("ii", each)[0] != 0 for each in options]


@pytest.mark.slow
async def test_a_link_to_a_configured_endpoint_that_broke_is_repaired(zenoh: Network) -> None:
    seed, a = [await zenoh.join(name) for name in ("seed", "a")]
    await all_see_all(seed, a)
    break_links({port_of(seed)})
    await seed.until(lambda: seed.changes[1:] == [(a.me, False), (a.me, True)])
    assert await seed.ask(a, b"x") == [b"x"]
