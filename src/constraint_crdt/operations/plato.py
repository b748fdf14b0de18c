"""The operations of the PLATO contract, for clients of the Rust crate: `/rooms`, and `/room/{id}` with `/tile` and `/delta` below.

Rules: paths and responses are those of the crate, so they are not below `/v1`. Names are in addresses as they
are: a room may contain slashes, and a plus in a query is a plus. A repeat is answered with 200, as the first time. A wrong field
is named by its path in `field`.
"""

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from constraint_crdt.operations.operation import (
    GET,
    POST,
    Body,
    Operation,
    Parameter,
    Right,
    not_found,
    not_json,
)
from constraint_crdt.plato.shapes import PlatoDelta, PlatoRoom, PlatoTile, read_delta, read_tile

if TYPE_CHECKING:
    from constraint_crdt.runtime.node import Node

MAX_TILE_BODY_BYTES: Final = 8 * 1024 * 1024
"""A content of 1 MiB takes up to 6 MiB in JSON."""

Sent = TypeVar("Sent")


class ListRooms(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /rooms`."""

    prefix: str = ""


class GetRoom(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /room/{room}`."""

    room: str


class SubmitTile(GetRoom, frozen=True, kw_only=True):
    """`POST /room/{room}/tile`."""

    content: bytes
    """A `PlatoTile` as JSON."""


class SendDelta(GetRoom, frozen=True, kw_only=True):
    """`POST /room/{room}/delta`."""

    content: bytes
    """A `PlatoDelta` as JSON."""


class TileSubmitted(msgspec.Struct, frozen=True, kw_only=True):
    """A tile of the PLATO contract was merged."""

    room: str
    id: str
    changed: bool


class DeltaTaken(msgspec.Struct, frozen=True, kw_only=True):
    """A delta of the PLATO contract was taken in."""

    node: str
    seq: int
    applied: bool


async def _rooms(node: "Node", request: ListRooms) -> list[str]:
    return node.plato.rooms(request.prefix)


ROOMS: Final = Operation(
    name="rooms",
    method=GET,
    path="/rooms",
    summary="The rooms that have a tile.",
    request=ListRooms,
    response=list[str],
    run=_rooms,
    parameters=(Parameter(name="prefix", about="only those that begin so", plus_is_plus=True),),
    ignores_others=True,
    group="PLATO",
    positional=("prefix",),
)


async def _read(read: Callable[[bytes, str], Sent], request: SubmitTile | SendDelta) -> Sent:
    import asyncio  # loaded by nodes only: commands need no event loop

    try:
        return await asyncio.to_thread(read, request.content, request.room)  # the hash of a large content takes its time
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise not_json(error) from None


async def _submit_tile(node: "Node", request: SubmitTile) -> TileSubmitted:
    tile = await _read(read_tile, request)
    changed = await node.plato.take_tile(tile)
    return TileSubmitted(room=tile.room, id=tile.id, changed=changed)


def submit_tile(tile: PlatoTile) -> SubmitTile:
    """The request of the clients' `submit_tile`."""
    return SubmitTile(room=tile.room, content=msgspec.json.encode(tile))


SUBMIT_TILE: Final = Operation(
    name="submit_tile",
    method=POST,
    path="/room/{room:any_text}/tile",
    right=Right.MEASURE,
    summary="Merge a tile.",
    about="Merge a tile of the contract.",
    request=SubmitTile,
    response=TileSubmitted,
    run=_submit_tile,
    body=Body(shape=PlatoTile, limit=MAX_TILE_BODY_BYTES, field="content"),
    group="PLATO",
    build=submit_tile,
)


async def _send_delta(node: "Node", request: SendDelta) -> DeltaTaken:
    delta = await _read(read_delta, request)
    applied = await node.plato.take_delta(request.room, delta)
    return DeltaTaken(node=delta.node, seq=delta.seq, applied=applied)


def send_delta(room: str, delta: PlatoDelta) -> SendDelta:
    """The request of the clients' `send_delta`."""
    return SendDelta(room=room, content=msgspec.json.encode(delta))


SEND_DELTA: Final = Operation(
    name="send_delta",
    method=POST,
    path="/room/{room:any_text}/delta",
    right=Right.MEASURE,
    summary="Take a delta in.",
    about="Take a delta of the contract in.",
    request=SendDelta,
    response=DeltaTaken,
    run=_send_delta,
    body=Body(shape=PlatoDelta, field="content"),
    group="PLATO",
    build=send_delta,
)


async def _room(node: "Node", request: GetRoom) -> AsyncIterator[bytes]:
    """Streamed tile by tile: a large room needs no more memory than its largest tile."""
    if not node.plato.has_room(request.room):
        raise not_found(f"there is no room {request.room!r}")
    return _room_in_parts(node, request.room)


async def _room_in_parts(node: "Node", room: str) -> AsyncIterator[bytes]:
    yield b'{"id":' + msgspec.json.encode(room) + b',"tiles":['
    count = 0
    async for tile in node.plato.tiles(room):
        yield (b"," if count else b"") + msgspec.json.encode(tile)
        count += 1
    yield b'],"tile_count":%d}' % count


ROOM: Final = Operation(
    name="room",
    method=GET,
    path="/room/{room:any_text}",
    summary="A room and its tiles.",
    request=GetRoom,
    response=PlatoRoom,
    run=_room,
    ignores_others=True,
    group="PLATO",
)
