"""The connections to the server: bounded in number and in patience, and answered with problems even where nothing was routed."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest

from constraint_crdt.http import endpoint as bodies
from constraint_crdt.http import server as connection
from constraint_crdt.http.server import ApiServer
from constraint_crdt.runtime.node import Node

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
    monkeypatch.setattr(connection, "MOST_CONNECTIONS", 2)
    open_ones = [await connect(api) for _ in range(2)]
    for _, writer in open_ones:  # they are taken in before the third
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert all([(await reader.readline()).startswith(b"HTTP/1.1 200") for reader, _ in open_ones])
    reader, writer = await connect(api)
    status, problem = await answer(reader)
    assert status == 503
    assert "2 connections" in str(problem["detail"])
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


async def test_who_asked_in_time_is_not_cut_off(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.05)
    reader, writer = await connect(api)
    writer.write(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    await asyncio.sleep(0.1)  # the deadline passes
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
