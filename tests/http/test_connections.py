"""The connections to the server: bounded in number and in patience, and answered with problems even where nothing was routed."""

import asyncio
import contextlib
import json
import resource
import socket
from collections.abc import AsyncIterator

import pytest
from starlette.requests import Request

from constraint_crdt.http import endpoint as bodies
from constraint_crdt.http import security
from constraint_crdt.http import server as connection
from constraint_crdt.http.server import ApiServer
from constraint_crdt.operations.operation import Problem
from constraint_crdt.runtime.node import Node
from tests.runtime.fleet import eventually

FAR = 10.0


@pytest.fixture
async def api(node: Node) -> AsyncIterator[ApiServer]:
    async with ApiServer(node, "127.0.0.1", 0) as serving:
        yield serving


async def connect(api: ApiServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", int(api.url.rpartition(":")[2]))


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, object]]:
    async with asyncio.timeout(FAR):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    return int(head.split()[1]), json.loads(body)


@pytest.mark.parametrize("sent", [b"hello\r\n\r\n", b"GET / HTTP/9\r\n\r\n", b"GET / HTTP/1.1\r\nx: " + b"y" * 20_000])
async def test_what_is_no_http_is_answered_with_a_problem(api: ApiServer, sent: bytes) -> None:
    reader, writer = await connect(api)
    writer.write(sent)
    status, problem = await answer(reader)
    assert (status, problem["status"], problem["type"]) == (400, 400, "about:blank")
    writer.close()


async def test_one_connection_too_many_is_told_so(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "MOST_CONNECTIONS", 2)
    open_ones = [await connect(api) for _ in range(2)]
    for _, writer in open_ones:  # they are taken in before the third
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert all([(await reader.readline()).startswith(b"HTTP/1.1 200") for reader, _ in open_ones])
    reader, writer = await connect(api)
    writer.write(b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n")
    status, problem = await answer(reader)
    assert status == 503
    assert "too many connections are open" in str(problem["detail"])
    for path in (b"/healthz", b"/readyz"):
        probe, sending = await connect(api)
        sending.write(b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(FAR):
            assert (await probe.read()).startswith(b"HTTP/1.1 200"), "the connection is closed after the answer"
        sending.close()
    for _, each in [*open_ones, (reader, writer)]:
        each.close()


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HT"])
async def test_who_asks_nothing_is_cut_off(api: ApiServer, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.05)
    reader, writer = await connect(api)
    writer.write(sent)
    async with asyncio.timeout(FAR):
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
    writer.close()


@pytest.mark.slow
async def test_who_asked_in_time_is_not_cut_off(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.5)  # a busy machine reads the request later than it was sent
    reader, writer = await connect(api)
    writer.write(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    await asyncio.sleep(0.6)  # the deadline passes
    writer.write(b"")
    assert b"event: state" in await reader.read(4096)
    writer.close()


async def test_a_body_that_stops_coming_is_given_up(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_PAUSE", 0.05)
    reader, writer = await connect(api)
    head = "POST /v1/check HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n"
    writer.write(head.encode() + b'{"values"')
    status, problem = await answer(reader)
    assert (status, problem["detail"]) == (408, "nothing more of the body came for 0.05 s")
    writer.close()


async def read_all(reader: asyncio.StreamReader) -> bytes:
    """What came until the end of the connection, or its reset."""
    found = b""
    async with asyncio.timeout(FAR):
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                found += data
    return found


@pytest.mark.slow
async def test_probes_are_answered_while_an_attacker_holds_all_other_connections(
    api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(security, "MOST_CONNECTIONS", 20)
    assert api._server is not None
    bounds, port, attackers = api._server._bounds, int(api.url.rpartition(":")[2]), contextlib.ExitStack()

    async def attack(number: int) -> None:
        client = attackers.enter_context(socket.socket())
        client.setblocking(False)
        client.bind((f"127.0.1.{number % 9 + 1}", 0))
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
        if number % 2:
            with contextlib.suppress(ConnectionError):
                client.send(b"GET /healthz HTTP/1.1\r\nHost")  # a head that does not end

    with attackers:
        for number in range(120):
            await attack(number)
        await eventually(lambda: bounds.open == 20 + security.MOST_RESERVED)
        for address in ("127.0.0.1", "127.0.1.1"):  # of its own, and of the attacker
            for path in (b"/healthz", b"/readyz"):
                reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
                writer.write(b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert (await read_all(reader)).startswith(b"HTTP/1.1 200")
                writer.close()
                await attack(1)


def test_an_address_has_its_part_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "_most_connections", lambda: 100)
    bounds = security.ConnectionBounds(10)
    for host, most in (("192.0.2.1", 10), ("2001:db8::1", 10), ("127.0.0.1", 50), ("::ffff:192.0.2.9", 10)):
        taken = [bounds.take(host) for _ in range(most + 3)]
        assert [slot.reserved for slot in taken] == [False] * most + [True] * 3, host
    assert bounds.take("2001:db8::ffff").reserved, "the same network"
    assert not bounds.take("2001:db8:0:1::1").reserved
    assert not bounds.take("192.0.2.2").reserved
    again = taken[0]
    again.release()
    again.release()
    assert [bounds.take("192.0.2.9").reserved for _ in range(2)] == [False, True]


def test_a_full_reserve_ends_its_oldest_connection_and_of_the_same_address_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "_most_connections", lambda: 0)
    bounds, ended = security.ConnectionBounds(10), list[str]()

    def take(host: str, name: str) -> security.Slot:
        slot = bounds.take(host)
        slot.end = lambda: ended.append(name)
        return slot

    for number in range(security.RESERVED_PER_ADDRESS):
        take("192.0.2.1", f"a{number}")
    assert ended == []
    take("192.0.2.1", "a16")
    assert ended == ["a0"]
    others = [take(f"198.51.100.{number}", f"b{number}") for number in range(security.MOST_RESERVED)]
    assert ended == ["a0", *(f"a{number}" for number in range(1, 17))]
    others[0].release()
    take("203.0.113.1", "c")
    assert len(ended) == 17
    assert bounds.open == security.MOST_RESERVED


def test_the_limit_of_open_files_bounds_the_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    for soft, most in ((1024, 768), (65_536, 2000), (100, 1), (resource.RLIM_INFINITY, 2000)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, soft=soft: (soft, soft))
        assert security._most_connections() == most


@pytest.mark.slow
async def test_a_head_that_dribbles_after_a_request_is_cut_off(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.3)  # in which the first request is answered, also by a busy machine
    reader, writer = await connect(api)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /healthz HTTP/1.1\r\nX: ")
    assert (await read_all(reader)).count(b"HTTP/1.1 200") == 1
    writer.close()


async def test_a_body_that_dribbles_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_PAUSE", 0.05)
    monkeypatch.setattr(bodies, "BODY_RATE", 1_000_000_000)

    loop = asyncio.get_running_loop()
    now = loop.time()
    monkeypatch.setattr(loop, "time", lambda: now)

    async def receive() -> dict[str, object]:
        nonlocal now
        now += 0.02
        await asyncio.sleep(0)
        return {"type": "http.request", "body": b"x", "more_body": True}

    headers = [(b"content-type", b"application/octet-stream")]
    request = Request({"type": "http", "method": "PUT", "path": "/", "headers": headers}, receive)
    with pytest.raises(Problem, match="the body came with less than 1000000000 bytes per second") as raised:
        await bodies.read_raw(request, "application/octet-stream", 10**9)
    assert raised.value.status == 408


@pytest.mark.slow
async def test_who_does_not_read_is_cut_off(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "WRITE_SECONDS", 0.05)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", int(api.url.rpartition(":")[2])))
        await loop.sock_sendall(client, b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100)
        assert api._server is not None
        bounds = api._server._bounds
        await eventually(lambda: bounds.open == 1)
        await eventually(lambda: bounds.open == 0)
