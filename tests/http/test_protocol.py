"""HTTP as it travels: what the server makes of heads and bodies in any form, seen at the socket."""

import asyncio
import itertools
import re
from collections.abc import AsyncIterator

import pytest

from constraint_crdt.http.server import HEAD_BYTES, ApiServer, Connection
from constraint_crdt.runtime.node import Node

FAR = 10.0
CLOSE = b"Connection: close\r\n"
HOST = b"Host: localhost\r\n"
CHECK = b"POST /v1/check HTTP/1.1\r\nContent-Type: application/json\r\n" + HOST
BODY = b'{"values":{}}'


@pytest.fixture
async def api(node: Node) -> AsyncIterator[ApiServer]:
    async with ApiServer(node, "127.0.0.1", 0) as serving:
        yield serving


async def said(api: ApiServer, *sent: bytes) -> bytes:
    """What comes back until the end of the connection, after these pieces."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(api.url.rpartition(":")[2]))
    for piece in sent:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0)
    async with asyncio.timeout(FAR):
        found = await reader.read()
    writer.close()
    return found


async def test_requests_in_one_piece_are_answered_in_their_order(api: ApiServer) -> None:
    paths = [b"/healthz", b"/v1/nothing", b"/v1/status", b"/healthz"]
    requests = [b"GET %b HTTP/1.1\r\n%b\r\n" % (path, HOST) for path in paths]
    found = await said(api, b"".join(requests) + b"GET /healthz HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n")
    assert re.findall(rb"HTTP/1\.1 (\d+) ", found) == [b"200", b"404", b"200", b"200", b"200"]
    assert found.count(b"connection: close") == 1


@pytest.mark.parametrize("cut", [1, 20, 60, 120])
async def test_a_request_in_pieces_is_the_same(api: ApiServer, cut: int) -> None:
    request = CHECK + CLOSE + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
    assert (await said(api, request[:cut], request[cut:])).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_chunked_body_is_read(api: ApiServer) -> None:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (BODY[:4], BODY[4:])) + b"0\r\n\r\n"
    assert (await said(api, CHECK + CLOSE + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_client_that_asks_whether_to_go_on_is_told_so(api: ApiServer) -> None:
    head = CHECK + CLOSE + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(BODY)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(api.url.rpartition(":")[2]))
    writer.write(head)
    async with asyncio.timeout(FAR):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(BODY)
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK\r\n")
    writer.close()


async def test_a_head_has_the_length_and_no_body(api: ApiServer) -> None:
    got, asked = [await said(api, method + b" /v1/status HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n") for method in (b"GET", b"HEAD")]
    assert got.startswith(b"HTTP/1.1 200 OK\r\ndate: ")
    assert asked.endswith(b"\r\n\r\n")
    assert not got.endswith(b"\r\n\r\n")


async def test_an_older_version_ends_with_its_answer(api: ApiServer) -> None:
    found = await said(api, b"GET /v1/status HTTP/1.0\r\n" + HOST + b"\r\n")
    assert found.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in found


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n",
        b"GET / HTTP/1.1\r\nHost : localhost\r\n",
        b"GET / HTTP/1.1\nHost: localhost\n",
        b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n",
        b"GET / HTTP/2.0\r\nHost: localhost\r\n",
    ],
)
async def test_a_head_that_could_be_read_in_two_ways_is_refused(api: ApiServer, head: bytes) -> None:
    found = await said(api, head + b"\r\n")
    assert found.startswith(b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\n")
    assert found.count(b"HTTP/1.1") == 1


async def test_a_head_without_end_is_refused(api: ApiServer) -> None:
    field = b"x: " + b"y" * 1000 + b"\r\n"
    found = await said(api, b"GET / HTTP/1.1\r\n" + HOST, *[field] * (HEAD_BYTES // len(field) + 1))
    assert found.startswith(b"HTTP/1.1 400 ")


@pytest.mark.slow
async def test_nothing_is_upgraded(api: ApiServer) -> None:
    head = b"GET /healthz HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + HOST
    found = await said(api, head + b"\r\n")
    assert found.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"connection: close" in found


async def test_a_trailer_is_no_header(api: ApiServer) -> None:
    head = b"POST /v1/check HTTP/1.1\r\n" + HOST + CLOSE + b"Transfer-Encoding: chunked\r\n\r\n"
    chunks = b"%x\r\n%b\r\n0\r\nContent-Type: application/json\r\n\r\n" % (len(BODY), BODY)
    assert (await said(api, head + chunks)).startswith(b"HTTP/1.1 415 ")


async def test_a_trailer_without_end_is_refused(api: ApiServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(api.url.rpartition(":")[2]))
    writer.write(CHECK + b"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n")
    async with asyncio.timeout(FAR):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"0\r\n" + b"x: y\r\n" * (HEAD_BYTES // 6 + 1))
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
    writer.close()


async def test_requests_behind_a_stream_wait_in_the_network_and_end_with_it(api: ApiServer, node: Node) -> None:
    """The server takes one read of them, so that a client cannot fill the memory; uvicorn would go on."""
    request = b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", int(api.url.rpartition(":")[2]))
    writer.write(b"GET /v1/events HTTP/1.1\r\n" + HOST + b"\r\n" + request)
    async with asyncio.timeout(FAR):
        await reader.readuntil(b"\r\n\r\n")
    assert api._server is not None
    (connection,) = api._server.server_state.connections
    assert isinstance(connection, Connection)
    for _ in range(3):
        writer.write(request)
        await said(api, b"GET /healthz HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n")  # the loop has looked at all sockets
        assert len(connection.pipeline) == 1
    assert api._feed is not None
    writer.transport.abort()
    async with asyncio.timeout(FAR):
        for number in itertools.count():  # what is not read does not tell that the client is gone: a write does
            if not api._feed.readers:
                break
            await node.add_constraint(f"c{number}")
            await asyncio.sleep(0)
