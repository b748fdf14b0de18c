"""`GET /v1/events` over real sockets: in order, resumable, honest about gaps, and nobody is waited for."""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from constraint_crdt import http as events_stream
from constraint_crdt.http import server
from constraint_crdt.http.server import ApiServer
from constraint_crdt.model import Event, EventKind
from constraint_crdt.runtime.node import Node

FAR = 10.0


@pytest.fixture
async def api(node: Node) -> AsyncIterator[ApiServer]:
    async with ApiServer(node, "127.0.0.1", 0) as serving:
        yield serving


class Stream:
    """A reader of the stream that looks at every line."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._rest = ""
        self.comments = 0

    @classmethod
    async def open(cls, api: ApiServer, query: str = "", **headers: str) -> "Stream":
        reader, writer = await asyncio.open_connection("127.0.0.1", int(api.url.rpartition(":")[2]))
        sent = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        writer.write(f"GET /v1/events{query} HTTP/1.1\r\nHost: localhost\r\n{sent}\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        assert b"text/event-stream" in head
        return cls(reader, writer)

    async def next(self) -> dict[str, str]:
        """The next frame, as fields by name; empty at the end."""
        async with asyncio.timeout(FAR):
            while "\n\n" not in self._rest:
                size = int((await self._reader.readline()).strip() or b"0", 16)
                if not size:
                    return {}
                self._rest += (await self._reader.readexactly(size + 2))[:-2].decode()
        frame, _, self._rest = self._rest.partition("\n\n")
        self.comments += frame.startswith(":")
        fields = dict(line.partition(": ")[::2] for line in frame.split("\n") if not line.startswith(":"))
        return fields if "data" in fields else await self.next()

    async def events(self, count: int) -> list[dict[str, str]]:
        """The next events, notices apart."""
        found: list[dict[str, str]] = []
        while len(found) < count:
            frame = await self.next()
            assert frame, "the stream ended"
            if frame["event"] != "state":
                found.append(frame)
        return found

    async def notice(self) -> dict[str, Any]:
        """The next notice."""
        while (frame := await self.next())["event"] != "state":
            pass
        found: dict[str, Any] = json.loads(frame["data"])
        return found

    def close(self) -> None:
        self._writer.close()


@pytest.mark.slow
async def test_a_stream_is_of_the_kinds_that_were_asked_for_before_and_after(node: Node, api: ApiServer) -> None:
    await node.add_constraint("cool", when="temp_c < 85.0")
    await node.check({"temp_c": 91.0})
    await node.add_constraint("calm")
    await node.remove_constraint("calm")
    stream = await Stream.open(api, "?last=2&kind=added&kind=clock-stepped")
    assert [each["event"] for each in await stream.events(2)] == ["added", "added"]
    await node.remove_constraint("cool")
    await node.add_constraint("new")
    (found,) = await stream.events(1)
    assert (found["event"], json.loads(found["data"])["constraint"]) == ("added", "new")
    async with httpx.AsyncClient() as client:
        refused = await client.get(f"{api.url}/v1/events?kind=nonsense")
    stream.close()
    assert (refused.status_code, "there is no kind of event 'nonsense'" in refused.text) == (422, True)


@pytest.mark.slow
async def test_events_come_in_order_each_with_its_id(node: Node, api: ApiServer) -> None:
    stream = await Stream.open(api)
    await node.add_constraint("cool", when="temp_c < 85.0")
    await node.check({"temp_c": 91.0})
    await node.remove_constraint("cool")
    found = await stream.events(3)
    assert [each["event"] for each in found] == ["added", "violated", "removed"]
    assert [each["id"] for each in found] == [f"{node.event_stream.log.boot}-{number}" for number in (1, 2, 3)]
    assert [json.loads(each["data"])["kind"] for each in found] == ["added", "violated", "removed"]
    assert json.loads(found[0]["data"])["detail"] == "temp_c < 85.0"
    stream.close()


@pytest.mark.slow
async def test_who_comes_back_goes_on_where_it_was(node: Node, api: ApiServer) -> None:
    for number in range(5):
        await node.add_constraint(f"c{number}")
    second = f"{node.event_stream.log.boot}-2"
    for stream in (await Stream.open(api, last_event_id=second), await Stream.open(api, f"?last_event_id={second}")):
        missed = [json.loads(each["data"])["constraint"] for each in await stream.events(3)]
        assert missed == ["c2", "c3", "c4"]
        await node.add_constraint(f"later{second}")
        assert (await stream.events(1))[0]["event"] == "added"
        await node.remove_constraint(f"later{second}")
        stream.close()


@pytest.mark.slow
async def test_a_gap_is_told(node: Node, api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    log = node.event_stream.log
    monkeypatch.setattr(log, "_most", 3)
    for number in range(10):
        await node.add_constraint(f"c{number}")
    stream = await Stream.open(api, last_event_id=f"{log.boot}-4")
    found = await stream.events(4)
    assert [found[0]["event"], found[0]["data"]] == ["gap", '{"missed":3}']
    assert [json.loads(each["data"])["constraint"] for each in found[1:]] == ["c7", "c8", "c9"]
    stream.close()
    stream = await Stream.open(api, last_event_id="0badcafe-4")
    assert (await stream.events(1))[0]["data"] == '{"missed":null}'
    stream.close()


async def test_the_last_ones_can_be_had_without_following(node: Node, api: ApiServer) -> None:
    for number in range(4):
        await node.add_constraint(f"c{number}")
    stream = await Stream.open(api, "?last=2&follow=0")
    assert [json.loads(each["data"])["constraint"] for each in await stream.events(2)] == ["c2", "c3"]
    assert await stream.next() == {}
    stream.close()


@pytest.mark.slow
async def test_notices_say_what_readings_are_like_and_what_moved(node: Node, api: ApiServer) -> None:
    await node.add_constraint("before")
    stream = await Stream.open(api)
    first = await stream.notice()
    assert first["hash"] == node.status().hash
    await node.add_constraint("cool")
    await node.record(1, 0, constraint="cool")
    while (notice := await stream.notice())["hash"] != node.status().hash:
        pass
    assert notice["constraints_hash"] == node.status().constraints_hash
    assert "cool" in notice["constraints"]
    assert notice["nodes"] == ["forge"]
    assert notice["version"] >= first["version"]
    stream.close()


@pytest.mark.slow
async def test_many_that_moved_are_not_named(node: Node, api: ApiServer) -> None:
    stream = await Stream.open(api)
    await stream.notice()
    for number in range(101):
        node.gossip.add_constraint(f"c{number}")
    while (notice := await stream.notice())["hash"] != node.gossip.state_hash.hex():
        pass
    assert notice["constraints"] is None
    stream.close()


@pytest.mark.slow
async def test_notices_come_ten_times_a_second_at_most(node: Node, api: ApiServer) -> None:
    stream = await Stream.open(api)
    await stream.notice()
    began, notices, writing = time.monotonic(), 0, True

    async def write() -> None:
        while writing:
            node.gossip.record(1, 0)
            await asyncio.sleep(0.002)

    task = asyncio.create_task(write())
    while time.monotonic() - began < 0.5:
        await stream.notice()
        notices += 1
    writing = False
    await task
    assert 1 <= notices <= 7
    stream.close()


@pytest.mark.slow
async def test_a_heartbeat_shows_that_the_connection_lives(node: Node, api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_stream, "HEARTBEAT", 0.02)
    stream = await Stream.open(api)
    await stream.notice()
    await stream.notice()
    await asyncio.sleep(0.1)  # nothing moves: what comes meanwhile are heartbeats
    await node.add_constraint("x")
    await stream.events(1)
    assert stream.comments >= 1
    stream.close()


@pytest.mark.long
async def test_a_slow_reader_is_dropped_with_a_notice_and_not_waited_for(
    node: Node, api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.connect(("127.0.0.1", int(api.url.rpartition(":")[2])))
    slow.sendall(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    good = await Stream.open(api)
    await good.notice()
    feed = api._feed
    assert feed is not None
    while feed.readers < 2:  # noqa: ASYNC110 - the server has no event for it
        await asyncio.sleep(0.001)
    count = 0
    async with asyncio.timeout(FAR):
        while feed.dropped == 0:
            for _ in range(20):
                node.event_stream.publish(Event(kind=EventKind.TROUBLE, time=count, detail="x" * 20_000))
                count += 1
            got = await good.events(20)
            assert [json.loads(each["data"])["time"] for each in got] == list(range(count - 20, count))
    slow.setblocking(False)
    content = b""
    with contextlib.suppress(ConnectionResetError):
        async with asyncio.timeout(FAR):
            while data := await asyncio.get_running_loop().sock_recv(slow, 65536):
                content += data
    assert len(content) < 4 * events_stream.MOST_BYTES_BEHIND, "what waited for it was let go"
    assert feed.readers == 1
    slow.close()
    good.close()


@pytest.mark.slow
async def test_a_reader_that_is_too_far_behind_but_reads_hears_why(node: Node, api: ApiServer) -> None:
    stream = await Stream.open(api)
    await stream.notice()
    for number in range(events_stream.MOST_BEHIND + 1):  # at once: the loop has no turn to send them
        node.event_stream.publish(Event(kind=EventKind.TROUBLE, time=number))
    found = await stream.events(1)
    assert found[-1]["event"] == "dropped"
    assert "too slow" in found[-1]["data"]
    stream.close()


@pytest.mark.long
async def test_who_takes_nothing_for_long_is_dropped(node: Node, api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_stream, "PATIENCE", 0.1)
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.connect(("127.0.0.1", int(api.url.rpartition(":")[2])))
    slow.sendall(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    feed = api._feed
    assert feed is not None
    async with asyncio.timeout(FAR):
        while feed.dropped == 0:
            if feed.readers:  # a little at a time: it is never far behind
                node.event_stream.publish(Event(kind=EventKind.TROUBLE, time=0, detail="x" * 40_000))
            await asyncio.sleep(0.01)
    slow.close()


@pytest.mark.slow
async def test_a_reader_too_many_is_told_to_come_back(node: Node, api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_stream, "MOST_READERS", 1)
    stream = await Stream.open(api)
    async with httpx.AsyncClient(base_url=api.url) as client:
        answer = await client.get("/v1/events")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
    stream.close()


async def test_streams_end_with_the_server(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_off: list[object] = []
    monkeypatch.setattr(server, "GRACE", FAR)
    monkeypatch.setattr(server._Server, "cut_off_all", cut_off.append)
    api = ApiServer(node, "127.0.0.1", 0)
    await api.start()
    stream = await Stream.open(api)
    await stream.notice()
    await api.stop()
    assert cut_off == []
    while await stream.next():
        pass
    stream.close()


@pytest.mark.parametrize(
    ("query", "field"),
    [("last=-1", "last"), ("last=10001", "last"), ("last=x", "last"), ("follow=2", "follow"), ("since=1", "since")],
)
async def test_what_makes_no_sense_is_refused(client: httpx.AsyncClient, query: str, field: str) -> None:
    answer = await client.get(f"/v1/events?{query}")
    assert (answer.status_code, answer.json()["field"]) == (422, field)
