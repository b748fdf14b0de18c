"""The operations of the PLATO contracts. For clients of the Rust crate: `/rooms`, and `/room/{id}` with `/tile` and `/delta` below.
For clients of PLATO servers and of protocol v2: the paths below `/plato`. `server_path` says which requests to other paths mean
those.

Rules: paths and responses are those of the crate and of the servers, so they are not below `/v1`. Names are in addresses as they
are: a room may contain slashes, and a plus in a query is a plus. A repeat is answered with 200, as the first time. A wrong field
is named by its path in `field`.
"""

import time
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from itertools import islice
from typing import TYPE_CHECKING, Final, Literal, TypeVar
from urllib.parse import parse_qsl

import msgspec

from constraint_crdt.operations.operation import (
    GET,
    POST,
    Body,
    Empty,
    Freshness,
    Operation,
    Parameter,
    Problem,
    Right,
    limit,
    not_found,
    not_json,
)
from constraint_crdt.plato import (
    ANSWER_CHARACTERS,
    MS,
    PlatoAnswer,
    PlatoDelta,
    PlatoRoom,
    PlatoSubmission,
    PlatoTile,
    check_room,
    read_delta,
    read_submission,
    read_tile,
)

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


async def _read(read: Callable[[bytes, str], Sent], content: bytes, room: str) -> Sent:
    import asyncio  # loaded by nodes only: commands need no event loop

    try:
        return await asyncio.to_thread(read, content, room)  # the hash of a large content takes its time
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise not_json(error) from None


async def _submit_tile(node: "Node", request: SubmitTile) -> TileSubmitted:
    tile = await _read(read_tile, request.content, request.room)
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
    delta = await _read(read_delta, request.content, request.room)
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

# --- PLATO servers and protocol v2 ------------------------------------------------------------------------------------------------

SERVER: Final = "/plato"
"""The paths of PLATO servers are below."""

ANSWERS: Final = 1000
"""Answers of a room in a response, if the client does not say how many; the newest."""

MOST_ANSWERS: Final = 10_000

_SUBMISSION: Final = Body(shape=PlatoSubmission, limit=MAX_TILE_BODY_BYTES, field="content")


class SubmitAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /plato/submit`."""

    content: bytes
    """A `PlatoSubmission` as JSON."""


class SubmitAnswerTo(SubmitAnswer, frozen=True, kw_only=True):
    """`POST /plato/room/{room}/submit`."""

    room: str


class GetAnswers(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /plato/room/{room}`."""

    room: str
    since: int = 0
    limit: int = ANSWERS


class RecentAnswers(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /plato/tiles/recent`."""

    limit: int = 50


class SearchAnswers(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /plato/search`."""

    q: str = ""
    limit: int = 20


class AnswerTaken(msgspec.Struct, frozen=True, kw_only=True):
    """An answer was put, or was known."""

    status: Literal["accepted"] = "accepted"
    tile_id: str
    tile_hash: str
    """The same text as `tile_id`, under the name that PLATO servers use."""
    room: str
    sequence: int
    """Microseconds since the epoch at its creation: increasing, with gaps."""
    changed: bool
    """False: it was known."""


class RoomCount(msgspec.Struct, frozen=True, kw_only=True):
    """A room, as PLATO servers list it."""

    tile_count: int
    latest: float
    """The creation of its newest tile, seconds since the epoch."""


class AnswersOfRoom(msgspec.Struct, frozen=True, kw_only=True):
    """A room, as PLATO servers and protocol v2 show it."""

    tiles: list[PlatoAnswer]
    """From the newest to the oldest, `limit` at most."""
    status: Literal["ok"] = "ok"
    id: str
    room: str
    """The same name as `id`, under which protocol v2 has it."""
    tile_count: int
    """The tiles of the room, with those that `since` and `limit` leave out."""
    created_at: str | None
    """ISO 8601. null for a room without a tile."""
    last_activity: str | None


class NewestAnswers(msgspec.Struct, frozen=True, kw_only=True):
    """The newest tiles of all rooms."""

    tiles: list[PlatoAnswer]


class FoundAnswers(msgspec.Struct, frozen=True, kw_only=True):
    """The tiles with a text."""

    query: str
    results: list[PlatoAnswer]
    """From the newest to the oldest."""


class SyncReport(msgspec.Struct, frozen=True, kw_only=True):
    """How tiles reach other nodes: always, by gossip."""

    enabled: bool
    connected: bool
    """A peer is live."""


class SyncStatus(SyncReport, frozen=True, kw_only=True):
    """The same, with how often this node has exchanged its state since its start."""

    events_sent: int
    """Exchanges with other nodes that this node began."""
    events_received: int
    """Messages of other nodes."""


class ServerReport(msgspec.Struct, frozen=True, kw_only=True):
    """The node as a PLATO server."""

    service: str
    version: str
    instance: str
    """The node."""
    tiles: int
    rooms: int
    fleet_sync: SyncReport
    api: list[str]
    """Methods and paths."""


class ServerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The node as a server of protocol v2."""

    status: Literal["ok"] = "ok"
    server: str
    version: str
    uptime_seconds: int
    room_count: int
    total_tiles: int


class ServerStats(msgspec.Struct, frozen=True, kw_only=True):
    """The tiles of the fleet in numbers."""

    instance: str
    total_tiles: int
    total_rooms: int
    total_agents: int
    """Authors."""
    tiles_24h: int
    """Created within a day before now."""
    sync_enabled: bool
    fleet_connected: bool


async def _submit(node: "Node", content: bytes, room: str) -> AnswerTaken:
    sent = await _read(read_submission, content, room)
    length = len(sent.answer.strip())
    if length < ANSWER_CHARACTERS:
        raise Problem(HTTPStatus.BAD_REQUEST, f"answer too short ({length} < {ANSWER_CHARACTERS})", field="answer")
    tile, is_new = await node.plato.submit(sent)
    return AnswerTaken(tile_id=tile.id, tile_hash=tile.id, room=tile.room, sequence=tile.created // 1000, changed=is_new)


async def _submit_answer(node: "Node", request: SubmitAnswer) -> AnswerTaken:
    return await _submit(node, request.content, "")


PLATO_SUBMIT: Final = Operation(
    name="plato_submit",
    method=POST,
    path=f"{SERVER}/submit",
    right=Right.MEASURE,
    summary="Submit an answer to its room; a known one changes nothing.",
    request=SubmitAnswer,
    response=AnswerTaken,
    run=_submit_answer,
    body=_SUBMISSION,
    group="PLATO",
    ignores_others=True,
    problem_as_error=True,
    in_clients=False,
)


async def _submit_answer_to(node: "Node", request: SubmitAnswerTo) -> AnswerTaken:
    taken = await _submit(node, request.content, request.room)
    if not taken.changed:
        raise Problem(HTTPStatus.FORBIDDEN, f"duplicate tile: {taken.tile_id} in room {taken.room!r} has this question and answer")
    return taken


PLATO_SUBMIT_TO: Final = Operation(
    name="plato_submit_to_room",
    method=POST,
    path=SERVER + "/room/{room:any_text}/submit",
    right=Right.MEASURE,
    summary="Submit an answer to a room; a known one is refused.",
    request=SubmitAnswerTo,
    response=AnswerTaken,
    run=_submit_answer_to,
    body=_SUBMISSION,
    accepted=True,
    group="PLATO",
    ignores_others=True,
    problem_as_error=True,
    in_clients=False,
)


async def _server_rooms(node: "Node", _: Empty) -> dict[str, RoomCount]:
    found: dict[str, list[int]] = {}
    for tile in await node.plato.newest():
        found.setdefault(tile.room, []).append(tile.created)
    by_size = sorted(found.items(), key=lambda each: (-len(each[1]), each[0]))
    return {room: RoomCount(tile_count=len(times), latest=times[0] / 1e9) for room, times in by_size}


PLATO_ROOMS: Final = Operation(
    name="plato_rooms",
    method=GET,
    path=f"{SERVER}/rooms",
    summary="The rooms with the number of their tiles.",
    request=Empty,
    response=dict[str, RoomCount],
    run=_server_rooms,
    group="PLATO",
    ignores_others=True,
    problem_as_error=True,
    freshness=Freshness.STATE,
    in_clients=False,
)


async def _answers(node: "Node", request: GetAnswers) -> AsyncIterator[bytes]:
    """Streamed tile by tile, as the room of the crate's contract."""
    check_room(request.room)
    return _answers_in_parts(node, request)


async def _answers_in_parts(node: "Node", request: GetAnswers) -> AsyncIterator[bytes]:
    tiles = await node.plato.newest(request.room)
    wanted = (tile for tile in tiles if tile.created >= request.since * MS)
    yield b'{"tiles":['
    begun = False
    async for answer in node.plato.answers(islice(wanted, request.limit)):
        yield (b"," if begun else b"") + msgspec.json.encode(answer)
        begun = True
    rest = {
        "status": "ok",
        "id": request.room,
        "room": request.room,
        "tile_count": len(tiles),
        "created_at": _moment(tiles[-1].created) if tiles else None,
        "last_activity": _moment(tiles[0].created) if tiles else None,
    }
    yield b"]," + msgspec.json.encode(rest)[1:]


def _moment(ns: int) -> str:
    return datetime.fromtimestamp(ns // 1_000_000_000, UTC).isoformat().replace("+00:00", "Z")


def _milliseconds(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text[:20]) <= 2**53):
        raise ValueError(f": ms since the epoch, not {text!r}")
    return int(text)


_ANSWERS_ASKED: Final = (
    Parameter(
        name="since",
        about="only tiles created at this time or later, ms since the epoch",
        schema={"type": "integer", "minimum": 0, "maximum": 2**53},
        parse=_milliseconds,
    ),
    limit(MOST_ANSWERS, ANSWERS, "how many at most, the newest"),
)


PLATO_TILES: Final = Operation(
    name="plato_room_tiles",
    method=GET,
    path=SERVER + "/room/{room:any_text}/tiles",
    summary="A room and its tiles as answers, the same as without `/tiles`.",
    request=GetAnswers,
    response=AnswersOfRoom,
    run=_answers,
    parameters=_ANSWERS_ASKED,
    group="PLATO",
    ignores_others=True,
    problem_as_error=True,
    in_clients=False,
)

PLATO_ROOM: Final = Operation(
    name="plato_room",
    method=GET,
    path=SERVER + "/room/{room:any_text}",
    summary="A room and its tiles as answers; a room without a tile is empty.",
    request=GetAnswers,
    response=AnswersOfRoom,
    run=_answers,
    parameters=_ANSWERS_ASKED,
    group="PLATO",
    ignores_others=True,
    problem_as_error=True,
    in_clients=False,
)


async def _recent(node: "Node", request: RecentAnswers) -> NewestAnswers:
    tiles = islice(await node.plato.newest(), request.limit)
    return NewestAnswers(tiles=[answer async for answer in node.plato.answers(tiles)])


PLATO_RECENT: Final = Operation(
    name="plato_recent",
    method=GET,
    path=f"{SERVER}/tiles/recent",
    summary="The newest tiles of all rooms.",
    request=RecentAnswers,
    response=NewestAnswers,
    run=_recent,
    parameters=(limit(500, 50),),
    group="PLATO",
    ignores_others=True,
    problem_as_error=True,
    freshness=Freshness.STATE,
    in_clients=False,
)


async def _search(node: "Node", request: SearchAnswers) -> FoundAnswers:
    wanted = request.q.lower()
    if not wanted:
        raise Problem(HTTPStatus.BAD_REQUEST, f"a search needs a text: {SERVER}/search?q=TEXT", field="q")
    found: list[PlatoAnswer] = []
    async for answer in node.plato.answers(await node.plato.newest()):
        if any(wanted in text.lower() for text in (answer.question, answer.answer, answer.domain)):
            found.append(answer)
            if len(found) == request.limit:
                break
    return FoundAnswers(query=request.q, results=found)


PLATO_SEARCH: Final = Operation(
    name="plato_search",
    method=GET,
    path=f"{SERVER}/search",
    summary="The tiles with a text in question, answer or domain, the newest first.",
    request=SearchAnswers,
    response=FoundAnswers,
    run=_search,
    parameters=(
        Parameter(name="q", about="the text, in any case", schema={"type": "string", "minLength": 1}, required=True),
        limit(500, 20),
    ),
    group="PLATO",
    ignores_others=True,
    problem_as_error=True,
    freshness=Freshness.STATE,
    in_clients=False,
)


async def _stats(node: "Node", _: Empty) -> ServerStats:
    tiles = await node.plato.newest()
    day_ago = time.time_ns() - 86_400_000 * MS
    return ServerStats(
        instance=node.settings.name,
        total_tiles=len(tiles),
        total_rooms=len({tile.room for tile in tiles}),
        total_agents=len({tile.author for tile in tiles}),
        tiles_24h=sum(tile.created > day_ago for tile in tiles),
        sync_enabled=True,
        fleet_connected=node.status().peers > 0,
    )


PLATO_STATS: Final = Operation(
    name="plato_stats",
    method=GET,
    path=f"{SERVER}/stats",
    summary="The tiles of the fleet in numbers.",
    request=Empty,
    response=ServerStats,
    run=_stats,
    group="PLATO",
    ignores_others=True,
    problem_as_error=True,
    freshness=Freshness.AGING,
    in_clients=False,
)


async def _sync_status(node: "Node", _: Empty) -> SyncStatus:
    status = node.status()
    return SyncStatus(enabled=True, connected=status.peers > 0, events_sent=status.exchanges, events_received=status.rounds)


PLATO_SYNC: Final = Operation(
    name="plato_sync_status",
    method=GET,
    path=f"{SERVER}/sync/status",
    summary="Whether tiles reach other nodes.",
    request=Empty,
    response=SyncStatus,
    run=_sync_status,
    group="PLATO",
    ignores_others=True,
    problem_as_error=True,
    in_clients=False,
)


async def _server_status(node: "Node", _: Empty) -> ServerStatus:
    tiles, status = await node.plato.newest(), node.status()
    return ServerStatus(
        server="constraint-crdt",
        version=status.software,
        uptime_seconds=int(status.uptime),
        room_count=len({tile.room for tile in tiles}),
        total_tiles=len(tiles),
    )


PLATO_STATUS: Final = Operation(
    name="plato_status",
    method=GET,
    path=f"{SERVER}/status",
    summary="The node as a server of PLATO's protocol v2.",
    request=Empty,
    response=ServerStatus,
    run=_server_status,
    group="PLATO",
    ignores_others=True,
    problem_as_error=True,
    freshness=Freshness.AGING,
    in_clients=False,
)


async def _server(node: "Node", _: Empty) -> ServerReport:
    tiles, status = await node.plato.newest(), node.status()
    return ServerReport(
        service="PLATO rooms of a constraint-crdt fleet",
        version=status.software,
        instance=node.settings.name,
        tiles=len(tiles),
        rooms=len({tile.room for tile in tiles}),
        fleet_sync=SyncReport(enabled=True, connected=status.peers > 0),
        api=[
            f"{each.method} {each.path.removeprefix(SERVER).replace(':any_text', '')}"
            for each in globals().values()
            if isinstance(each, Operation) and each.path.startswith(f"{SERVER}/")
        ],
    )


PLATO_SERVER: Final = Operation(
    name="plato_server",
    method=GET,
    path=f"{SERVER}/",
    summary="The node as a PLATO server.",
    request=Empty,
    response=ServerReport,
    run=_server,
    group="PLATO",
    ignores_others=True,
    problem_as_error=True,
    freshness=Freshness.AGING,
    in_clients=False,
)

# --- which contract a request means, and which parts are in neither ---------------------------------------------------------------

SDK: Final = "cocapn-plato-sdk"
"""The begin of the `User-Agent` of the SDK."""

_SHARED: Final = frozenset({"/", "/rooms"})
"""Paths in the contract of the servers and elsewhere."""

_NO_AGENTS: Final = "a node runs no language models and no sessions of agents: run the agent beside it, and submit its answers"

UNSERVED: Final[Mapping[str, str]] = {
    "/sync/toggle": "tiles always reach every node of the fleet: stop a node to keep its tiles to itself",
    "/armor": _NO_AGENTS,
    "/keys": "a node holds no keys of model providers",
    "/agents": _NO_AGENTS,
    "/agent": _NO_AGENTS,
    "/spawn": _NO_AGENTS,
    "/query": "a node searches for a text only: /plato/search?q=TEXT",
    "/retract": "delete the tile: DELETE /v1/tiles/ROOM/ID",
    "/supersede": "an answer is not linked to the one before: delete that one, and submit the new one",
}
"""Paths of PLATO servers and their SDKs that no tile can answer, and the reasons."""

_SERVED: Final = frozenset({"/submit", "/tiles/recent", "/search", "/stats", "/status", "/sync/status"})


def unserved(path: str) -> str | None:
    """Why a path below `SERVER` is not served, if PLATO servers serve it; else None."""
    below = path.removeprefix(SERVER)
    return next((reason for begin, reason in UNSERVED.items() if below == begin or below.startswith(f"{begin}/")), None)


def server_path(method: str, path: str, query: str, headers: Mapping[str, str], *, by_default: bool) -> str:
    """The path below `SERVER` that a request means if it is of the contract of PLATO servers; else the path as it is.

    Rules: a path of that contract alone means it. `/`, `/rooms` and `GET /room/…` mean it for the SDK, which names itself in its
    `User-Agent`, and for every client if `by_default`, but for browsers that ask for the page at `/`. With `since` the tiles of a
    room are asked for by protocol v2. `headers`: with names in small letters.
    """
    if path == SERVER:
        return f"{SERVER}/"
    if path.startswith(f"{SERVER}/"):
        return path
    if path in _SERVED or unserved(path) is not None:
        return SERVER + path
    of_room = path.startswith("/room/")
    if of_room and method == POST:
        return SERVER + path if path.endswith("/submit") else path
    if not of_room and path not in _SHARED:
        return path
    if of_room and any(key == "since" for key, _ in parse_qsl(query, keep_blank_values=True)):
        return SERVER + path
    is_page = path == "/" and "text/html" in headers.get("accept", "")
    is_sdk = headers.get("user-agent", "").startswith(SDK)
    return SERVER + path if is_sdk or (by_default and not is_page) else path
