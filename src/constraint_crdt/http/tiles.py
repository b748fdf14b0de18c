"""The routes for tiles: `/v1/tiles` lists them; `/v1/tiles/{room}/{id}` is one, with what is below it.

A room or id may contain anything, slashes too, so each is one segment of the path, percent-encoded: `/v1/tiles/hall%2F1/map`.

| path | methods |
|---|---|
| `/v1/tiles?room=&prefix=&deleted=1&after=&limit=` | GET: reports, without contents |
| `/v1/tiles/{room}/{id}` | GET, PUT (JSON; content as `text` or `base64`), PATCH (tags and constraints), DELETE |
| `/v1/tiles/{room}/{id}/content` | GET, PUT: the bytes themselves |
| `/v1/tiles/{room}/{id}/restore` | POST |
"""

import base64
import binascii
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from urllib.parse import quote, unquote

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from constraint_crdt.crdt.limits import TILE_BYTES
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.http.bodies import read_body, read_bytes
from constraint_crdt.http.problems import Problem, json_answer
from constraint_crdt.http.routing import limit_of, link_headers, segment_of
from constraint_crdt.runtime.node import Node
from constraint_crdt.runtime.tiles import TileReport, report_of
from constraint_crdt.store import WritesRefused
from constraint_crdt.types.tiles import FleetTile

LIST = "/v1/tiles"
MAX_BODY_BYTES = 8 * 1024 * 1024
"""Of a tile as JSON: room for a content of the largest size in which most characters are escaped."""

_NO_STORE = {"cache-control": "no-store"}


class NewTile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`PUT /v1/tiles/{room}/{id}`: the content as one of `text` and `base64`. Tags and constraints are added to those there are."""

    text: str | None = None
    base64: str | None = None
    author: str | None = None
    tags: list[str] = []
    constraints: list[str] = []

    def content(self) -> bytes:
        """The content. Raises `Problem` if there is none, or two, or too much of it."""
        if (self.text is None) is (self.base64 is None):
            raise _wrong("a tile has its content as one of `text` and `base64`", "text")
        field = "base64" if self.text is None else "text"
        try:
            content = base64.b64decode(self.base64 or "", validate=True) if self.text is None else self.text.encode()
        except (binascii.Error, ValueError):
            raise _wrong(f"`{field}`: it is not {'Base64' if field == 'base64' else 'valid text'}", field) from None
        if len(content) > TILE_BYTES:
            message = f"`{field}`: the content of a tile has at most {TILE_BYTES} bytes, not {len(content)}"
            raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message, field=field)
        return content


class EditedTile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`PATCH /v1/tiles/{room}/{id}`: all of it is done, or nothing."""

    add_tags: list[str] = []
    remove_tags: list[str] = []
    add_constraints: list[str] = []
    remove_constraints: list[str] = []


async def list_tiles(node: Node, request: Request) -> Response:
    """`GET /v1/tiles`."""
    query = request.query_params
    if query.get("deleted", "0") not in ("0", "1"):
        raise _wrong("`deleted` is 0 or 1", "deleted")
    limit, after = limit_of(request), _place(query.get("after"))
    places = node.tiles.places(query.get("room"), prefix=query.get("prefix", ""), deleted=query.get("deleted") == "1")
    listed = places if after is None else [place for place in places if place > after]
    last = "/".join(quote(part, safe="") for part in listed[limit - 1]) if limit < len(listed) else None
    return json_answer(node.tiles.reports(listed[:limit]), headers=link_headers(request, last))


def _place(text: str | None) -> tuple[str, str] | None:
    """The room and id of `ROOM/ID`."""
    if text is None:
        return None
    room, slash, id_ = text.partition("/")
    if not slash:
        raise _wrong(f"`after`: ROOM/ID, both percent-encoded, not {text!r}", "after")
    return unquote(room), unquote(id_)


async def show(node: Node, request: Request) -> Response:
    """`GET /v1/tiles/{room}/{id}`."""
    tile = _there(node, request)
    return _json(_with_content(report_of(tile), _content(tile)))


async def show_content(node: Node, request: Request) -> Response:
    """`GET /v1/tiles/{room}/{id}/content`."""
    tile = _there(node, request)
    # Never for a browser to run: anyone in the fleet may have put it there.
    headers = {**_NO_STORE, "x-content-type-options": "nosniff", "content-disposition": "attachment"}
    return Response(_content(tile), media_type="application/octet-stream", headers=headers)


async def put(node: Node, request: Request) -> Response:
    """`PUT /v1/tiles/{room}/{id}`."""
    room, id_ = _asked(request)
    body = await read_body(request, NewTile, MAX_BODY_BYTES)
    new = (room, id_) not in node.gossip.state.tiles
    content = body.content()
    with _blaming("tags", "constraints"):
        report = await node.tiles.put(room, id_, content, author=body.author, tags=body.tags, constraints=body.constraints)
    return _json(report, HTTPStatus.CREATED if new else HTTPStatus.OK)


async def put_content(node: Node, request: Request) -> Response:
    """`PUT /v1/tiles/{room}/{id}/content`."""
    room, id_ = _asked(request)
    content = await read_bytes(request, TILE_BYTES)
    new = (room, id_) not in node.gossip.state.tiles
    report = await node.tiles.put(room, id_, content)
    return _json(report, HTTPStatus.CREATED if new else HTTPStatus.OK)


async def delete(node: Node, request: Request) -> Response:
    """`DELETE /v1/tiles/{room}/{id}`."""
    tile = _there(node, request)
    await node.tiles.delete(tile.room, tile.id)
    return _json({"room": tile.room, "id": tile.id})


async def restore(node: Node, request: Request) -> Response:
    """`POST /v1/tiles/{room}/{id}/restore`."""
    room, id_ = _asked(request)
    try:
        return _json(await node.tiles.restore(room, id_))
    except KeyError:
        detail = f"tile {id_!r} in room {room!r} is not deleted, or has been purged since"
        raise Problem(HTTPStatus.NOT_FOUND, detail) from None


async def edit(node: Node, request: Request) -> Response:
    """`PATCH /v1/tiles/{room}/{id}`."""
    room, id_ = _asked(request)
    body = await read_body(request, EditedTile)
    tile = _there(node, request)
    for field, elements, among in (
        ("remove_tags", body.remove_tags, tile.tags),
        ("remove_constraints", body.remove_constraints, tile.constraints),
    ):
        for element in elements:
            if element not in among:
                detail = f"`{field}`: tile {id_!r} in room {room!r} has no {field[7:-1]} {element!r}"
                raise Problem(HTTPStatus.NOT_FOUND, detail, field=field)
    with _blaming("add_tags", "add_constraints"):
        return _json(await node.tiles.edit(room, id_, **msgspec.structs.asdict(body)))


@contextmanager
def _blaming(tags: str, constraints: str) -> Iterator[None]:
    """Names the field of the body that the library finds out of bounds, by how it begins to say so."""
    try:
        yield
    except WritesRefused:
        raise
    except ConstraintCrdtError as error:
        fields = {"a tag ": tags, "a constraint ": constraints, "the author ": "author"}
        named = (field for start, field in fields.items() if str(error).startswith(start))
        raise _wrong(str(error), next(named, None)) from None


def _asked(request: Request) -> tuple[str, str]:
    """The room and id in the path."""
    try:
        return segment_of(request, "room"), segment_of(request, "id")
    except UnicodeDecodeError:
        raise Problem(HTTPStatus.BAD_REQUEST, f"the path {request.url.path} is not UTF-8") from None


def _there(node: Node, request: Request) -> FleetTile:
    tile = node.gossip.state.tiles.tile(*_asked(request))
    if not tile.exists:
        state = "is deleted: restore it first" if tile.deleted else "is not there"
        raise Problem(HTTPStatus.NOT_FOUND, f"tile {tile.id!r} in room {tile.room!r} {state}")
    return tile


def _content(tile: FleetTile) -> bytes:
    if not tile.verify_integrity():
        detail = f"the content of tile {tile.id!r} in room {tile.room!r} is damaged, by whoever wrote it: put it again"
        raise Problem(HTTPStatus.INTERNAL_SERVER_ERROR, detail)
    return tile.content


def _with_content(report: TileReport, content: bytes) -> dict[str, object]:
    """The report and the content, as text if it is UTF-8."""
    fields: dict[str, object] = msgspec.to_builtins(report)
    try:
        return {**fields, "text": content.decode(), "base64": None}
    except UnicodeDecodeError:
        return {**fields, "text": None, "base64": base64.b64encode(content).decode()}


def _wrong(message: str, field: str | None) -> Problem:
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, message, field=field)


def _json(value: object, status: HTTPStatus = HTTPStatus.OK) -> Response:
    return Response(msgspec.json.encode(value), status_code=status, media_type="application/json", headers=_NO_STORE)
