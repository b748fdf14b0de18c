"""PlatoClient against a node's API, and against servers that are none."""

import asyncio
import http.server
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from constraint_crdt.client.blocking import PlatoClient, PlatoError
from constraint_crdt.http.server import ApiServer
from constraint_crdt.plato import PlatoAdd, PlatoChange, PlatoCounter, PlatoDelta, PlatoRemove
from constraint_crdt.runtime.node import Node
from constraint_crdt.transport import MemoryNetwork
from constraint_crdt.types import FleetTile

from .tiles import delta_json, tile, tile_json


def delta(seq: int, satisfied: int, *changes: PlatoChange) -> PlatoDelta:
    counter = PlatoCounter(node="n", satisfied_delta=satisfied, violations_delta=0, seq=seq)
    return PlatoDelta(node="n", seq=seq, counter=counter, constraints=list(changes), position=None)


def use(client: PlatoClient) -> None:
    """All that a client can do, in a thread beside the node's loop."""
    assert client.is_healthy()
    assert client.list_rooms() == []
    client.submit_tile("fleet-ops", tile())
    client.submit_tile("fleet-ops", tile())
    room = client.get_room("fleet-ops")
    assert (room.id, room.tiles, room.tile_count) == ("fleet-ops", [tile()], 1)
    made = FleetTile("a/b c?", "own")
    made.put("text", node="me", author="us", time=5_000_000)
    made.constraints.add("c", node="me")
    client.submit_tile("a/b c?", made)
    assert client.list_rooms() == ["a/b c?", "fleet-ops"]
    assert client.list_rooms("a/b ") == ["a/b c?"]
    [own] = client.get_room("a/b c?").tiles
    assert (own.content, own.author, own.updated_at, list(own.constraints.elements)) == ("text", "us", 5, ["c"])
    for _ in range(2):
        client.send_delta("d", delta(1, 3, PlatoChange(add=PlatoAdd(constraint_id="x", node="n", seq=1))))
        client.send_delta("d", delta(2, 4, PlatoChange(remove=PlatoRemove(constraint_id="x", tombstoned_tags=[], seq=2))))
    [of_room] = client.get_room("d").tiles
    assert (of_room.id, of_room.metrics.counts, of_room.constraints.elements) == ("_room", {"n": 7}, {})


def refused(client: PlatoClient) -> None:
    """What the node refuses."""
    with pytest.raises(PlatoError, match="answered 404: there is no room 'nowhere'") as caught:
        client.get_room("nowhere")
    assert caught.value.status == 404
    with pytest.raises(PlatoError, match="answered 422") as caught:
        client.submit_tile("another", tile())
    assert (caught.value.status, caught.value.field) == (422, "room")
    with pytest.raises(PlatoError, match="answered 422") as caught:
        client.send_delta("r", delta(-1, 3))
    assert caught.value.field == "seq"
    binary = FleetTile("r", "i")
    binary.put(b"\xff", node="me")
    with pytest.raises(PlatoError, match=r"cannot be sent: .*not text") as caught:
        client.submit_tile("r", binary)
    assert caught.value.field == "content"


@pytest.mark.slow
async def test_a_client_and_a_node() -> None:
    async with Node(name="forge", transport=MemoryNetwork().transport()) as node, ApiServer(node, "127.0.0.1", 0) as api:
        client = PlatoClient(api.url + "/")
        assert (client.url, repr(client)) == (api.url, f"PlatoClient({api.url!r})")
        await asyncio.to_thread(use, client)
        await asyncio.to_thread(refused, client)
    assert not await asyncio.to_thread(client.is_healthy)


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """A server that has one answer to everything, below a path."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path.startswith("/below/")
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/below/"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (200, b'{"id": 5}', "not what a PLATO server does"),
        (200, b"<html>", "not what a PLATO server does"),
        (200, b"\xff", "not what a PLATO server does"),
        (200, b"[" * 100_000, "not what a PLATO server does"),
        (200, json.dumps({"id": "r", "tiles": [delta_json()]}).encode(), "not what a PLATO server does"),
        (302, b"", "answered 302"),
        (500, b"<html>", "answered 500"),
        (500, b'["detail"]', "answered 500"),
        (422, b'{"detail": "no", "field": 7}', "answered 422: no"),
    ],
)
def test_other_servers(status: int, body: bytes, says: str) -> None:
    with answering(status, body) as url, pytest.raises(PlatoError, match=says) as caught:
        PlatoClient(url).get_room("r")
    assert caught.value.field is None


@pytest.mark.parametrize("parts", [{}, {"tiles": None, "tile_count": None}, {"tiles": [], "tile_count": 0, "more": 1}])
def test_a_room_may_leave_parts_out(parts: dict[str, Any]) -> None:
    with answering(200, json.dumps({"id": "r", **parts}).encode()) as url:
        room = PlatoClient(url).get_room("r")
    assert (room.id, room.tiles, room.tile_count) == ("r", [], 0)


def test_a_room_may_say_that_it_has_more() -> None:
    with answering(200, json.dumps({"id": "fleet-ops", "tiles": [tile_json()], "tile_count": 9}).encode()) as url:
        room = PlatoClient(url).get_room("fleet-ops")
    assert (room.tiles, room.tile_count) == ([tile()], 9)


@pytest.mark.parametrize(
    "url", ["", "localhost:80", "ftp://h", "http://", "http://h:99999", "http://[::1", "http://u@h", "http://h?q",
            "http://h#f", "http://h/a b", "http://h/ä",
            "http://" + "x" * 70]
)  # fmt: skip
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(PlatoError, match="no address of a PLATO server"):
        PlatoClient(url)


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan")])
def test_a_timeout_must_be_one(timeout: float) -> None:
    with pytest.raises(PlatoError, match="timeout"):
        PlatoClient("http://localhost", timeout=timeout)


def test_what_does_not_answer_or_breaks_off() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(PlatoError, match=r"did not answer within 0\.05 s"):
            PlatoClient(url, timeout=0.05).list_rooms()
    with pytest.raises(PlatoError, match="cannot reach"):
        PlatoClient(url).list_rooms()
    assert not PlatoClient(url).is_healthy()


def test_what_does_not_speak_http() -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:

        def speak() -> None:
            connection, _ = stranger.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"SSH-2.0-OpenSSH\r\n")

        thread = threading.Thread(target=speak)
        thread.start()
        with pytest.raises(PlatoError, match="does not speak HTTP"):
            PlatoClient(f"http://127.0.0.1:{stranger.getsockname()[1]}", timeout=5).list_rooms()
        thread.join()


def test_names_and_numbers_that_cannot_be_sent() -> None:
    client = PlatoClient("http://127.0.0.1:1")
    with pytest.raises(PlatoError, match="not valid Unicode"):
        client.get_room("\ud800")
    with pytest.raises(PlatoError, match="cannot be sent as JSON"):
        client.send_delta("r", msgspec.structs.replace(delta(1, 2), node="\ud800"))
