"""The routes of the PLATO contract, for clients of the Rust crate: `/rooms`, and `/room/{id}` with `/tile` and `/delta` below it.

Rules: paths and answers are those that such a client expects, so they are not below `/v1`. It puts names into addresses as they
are: a room may contain slashes, and a plus in a query is a plus. A repeat is answered with 200, as the first time. A wrong field
is named by its path in `field`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import unquote

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from constraint_crdt.http.bodies import MAX_BODY_BYTES, read_json
from constraint_crdt.http.problems import Problem
from constraint_crdt.plato.shapes import PlatoFieldError, read_delta, read_tile
from constraint_crdt.runtime.node import Node
from constraint_crdt.runtime.shared import NodePlato

MAX_TILE_BODY_BYTES = 8 * 1024 * 1024
"""A content of 1 MiB takes up to 6 MiB in JSON."""

Sent = TypeVar("Sent")

_HEADERS = {"cache-control": "no-store"}


async def list_rooms(node: Node, request: Request) -> Response:
    """`GET /rooms?prefix=`: the ids of the rooms. Also what `is_healthy` asks for."""
    return _json(node.plato.rooms(_prefix(request)))


async def get_room(node: Node, request: Request) -> Response:
    """`GET /room/{id}`. Sent tile by tile, so that a large room takes no more memory than its largest tile."""
    room = request.path_params["room"]
    if not node.plato.has_room(room):
        raise Problem(HTTPStatus.NOT_FOUND, f"there is no room {room!r}")
    return StreamingResponse(_room_in_parts(node.plato, room), media_type="application/json", headers=_HEADERS)


async def submit_tile(node: Node, request: Request) -> Response:
    """`POST /room/{id}/tile`."""
    tile = await _read(request, read_tile, MAX_TILE_BODY_BYTES)
    try:
        changed = await node.plato.take_tile(tile)
    except PlatoFieldError as error:
        raise _wrong(error) from None
    return _json({"room": tile.room, "id": tile.id, "changed": changed})


async def send_delta(node: Node, request: Request) -> Response:
    """`POST /room/{id}/delta`."""
    delta = await _read(request, read_delta, MAX_BODY_BYTES)
    try:
        applied = await node.plato.take_delta(request.path_params["room"], delta)
    except PlatoFieldError as error:
        raise _wrong(error) from None
    return _json({"node": delta.node, "seq": delta.seq, "applied": applied})


async def _read(request: Request, read: Callable[[bytes, str], Sent], most: int) -> Sent:
    data = await read_json(request, most)
    try:
        return await asyncio.to_thread(read, data, request.path_params["room"])  # the hash of a large content takes its time
    except PlatoFieldError as error:
        raise _wrong(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
        raise Problem(HTTPStatus.BAD_REQUEST, f"the body is not JSON: {reason}") from None


async def _room_in_parts(plato: NodePlato, room: str) -> AsyncIterator[bytes]:
    yield b'{"id":' + msgspec.json.encode(room) + b',"tiles":['
    count = 0
    async for tile in plato.tiles(room):
        yield (b"," if count else b"") + msgspec.json.encode(tile)
        count += 1
    yield b'],"tile_count":%d}' % count


def _prefix(request: Request) -> str:
    found = ""
    for part in request.scope["query_string"].decode("latin-1").split("&"):
        key, _, value = part.partition("=")
        if key == "prefix":
            found = unquote(value)
    return found


def _wrong(error: PlatoFieldError) -> Problem:
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error), field=error.field)


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json", headers=_HEADERS)
