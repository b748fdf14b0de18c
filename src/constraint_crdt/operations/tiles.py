"""The operations on tiles: `/v1/tiles` lists them; `/v1/tiles/{room}/{id}` is a tile, with its parts below.

A room or id may contain any character, slashes too, so each is a segment of the path, percent-encoded: `/v1/tiles/hall%2F1/map`.
"""

import base64
import binascii
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import msgspec

from constraint_crdt.crdt.limits import TILE_BYTES
from constraint_crdt.errors import ConstraintCrdtError, WritesRefused
from constraint_crdt.operations.operation import (
    BYTES,
    DELETE,
    GET,
    PAGED,
    PATCH,
    POST,
    PUT,
    TEXT,
    YES_NO,
    Answer,
    Body,
    Column,
    Command,
    CompositeCommand,
    Flag,
    Freshness,
    Operation,
    Paged,
    Parameter,
    Problem,
    Reply,
    Right,
    Table,
    UsageError,
    View,
    concatenated,
    not_found,
    parse_flag,
    wrong,
)

if TYPE_CHECKING:
    from argparse import Namespace

    from constraint_crdt.client.blocking import Client
    from constraint_crdt.runtime.node import Node
    from constraint_crdt.types.tiles import FleetTile

TILES_PATH: Final = "/v1/tiles"
TILE_PATH: Final = TILES_PATH + "/{room}/{id}"

MAX_TILE_BODY_BYTES: Final = 8 * 1024 * 1024
"""Of a tile as JSON: room for a content of the largest size in which most characters are escaped."""

# --- requests ---------------------------------------------------------------------------------------------------------------


class ListTiles(Paged, frozen=True, kw_only=True):
    """`GET /v1/tiles`."""

    room: str | None = None
    prefix: str = ""
    deleted: bool = False


class AtTile(msgspec.Struct, frozen=True, kw_only=True):
    """A request to a tile."""

    room: str
    id: str


class NewTile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`PUT /v1/tiles/{room}/{id}`: the content as `text` or `base64`. Tags and constraints are added to the present ones."""

    text: str | None = None
    base64: str | None = None
    author: str | None = None
    tags: Sequence[str] = ()
    constraints: Sequence[str] = ()

    def content(self) -> bytes:
        """The content. Raises `Problem` for none, for two, and for too many bytes."""
        if (self.text is None) is (self.base64 is None):
            raise wrong("a tile has its content as one of `text` and `base64`", "text")
        field = "base64" if self.text is None else "text"
        try:
            content = base64.b64decode(self.base64 or "", validate=True) if self.text is None else self.text.encode()
        except (binascii.Error, ValueError):
            raise wrong(f"`{field}`: it is not {'Base64' if field == 'base64' else 'valid text'}", field) from None
        if len(content) > TILE_BYTES:
            message = f"`{field}`: the content of a tile has at most {TILE_BYTES} bytes, not {len(content)}"
            raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message, field=field)
        return content


class PutTile(NewTile, frozen=True, kw_only=True):
    """A new content, and its tile."""

    room: str
    id: str


class PutContent(AtTile, frozen=True, kw_only=True):
    """`PUT /v1/tiles/{room}/{id}/content`."""

    content: bytes


class EditedTile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`PATCH /v1/tiles/{room}/{id}`: applied whole, or not at all."""

    add_tags: Sequence[str] = ()
    remove_tags: Sequence[str] = ()
    add_constraints: Sequence[str] = ()
    remove_constraints: Sequence[str] = ()


class EditTile(EditedTile, frozen=True, kw_only=True):
    """An edit, and its tile."""

    room: str
    id: str


# --- responses --------------------------------------------------------------------------------------------------------------


class TileReport(msgspec.Struct, frozen=True, kw_only=True):
    """A tile, without its content. Times in ns since the epoch."""

    room: str
    id: str
    deleted: bool
    """Restorable until its purge."""
    size: int
    """Bytes of the content."""
    hash: str
    """blake2b of the content, 32 bytes in hex."""
    author: str
    created: int
    updated: int
    written_by: str | None
    """The node of the last content."""
    tags: list[str]
    constraints: list[str]
    satisfied: int
    violations: int
    position: tuple[int, int] | None


class TileRemoved(msgspec.Struct, frozen=True, kw_only=True):
    """A tile is deleted, and restorable for a while."""

    room: str
    id: str


class TileContent(msgspec.Struct, frozen=True, kw_only=True):
    """A tile with its content, as text if UTF-8. The rest as in a `TileReport`."""

    room: str
    id: str
    deleted: bool
    size: int
    hash: str
    author: str
    created: int
    updated: int
    written_by: str | None
    tags: tuple[str, ...]
    constraints: tuple[str, ...]
    satisfied: int
    violations: int
    position: tuple[int, int] | None
    text: str | None
    base64: str | None


# --- reading ----------------------------------------------------------------------------------------------------------------


async def _tiles(node: "Node", request: ListTiles) -> Reply[list[TileReport]]:
    from urllib.parse import quote  # loaded by nodes only: `--help` must stay light

    places = node.tiles.places(request.room, prefix=request.prefix, deleted=request.deleted)
    after = None if request.after is None else _place(request.after)
    listed = places if after is None else [place for place in places if place > after]
    most = request.most
    last = "/".join(quote(part, safe="") for part in listed[most - 1]) if most < len(listed) else None
    return Reply(node.tiles.reports(listed[:most]), next_after=last)


def _place(text: str) -> tuple[str, str]:
    from urllib.parse import unquote

    room, _, id_ = text.partition("/")
    return unquote(room), unquote(id_)


def _parse_place(text: str) -> str:
    if "/" not in text:
        raise ValueError(f": ROOM/ID, both percent-encoded, not {text!r}")
    return text


def list_tiles(room: str | None = None, *, prefix: str = "", deleted: bool = False) -> ListTiles:
    """The request of the clients' `tiles`, which follow the pages."""
    return ListTiles(room=room, prefix=prefix, deleted=deleted)


def show_tiles(answer: list[TileReport], _: ListTiles, __: "Namespace") -> View:
    """A row for each tile."""
    columns = [Column("room"), Column("id"), Column("bytes", right=True), Column("author"), Column("updated"), Column("by")]
    columns += [Column("tags"), Column("constraints"), Column("satisfied", right=True), Column("violated", right=True)]
    columns.append(Column("position"))
    rows = [
        [
            each.room,
            each.id,
            each.size,
            each.author,
            _utc_time(each.updated),
            each.written_by or "-",
            ", ".join(each.tags) or "-",
            ", ".join(each.constraints) or "-",
            each.satisfied,
            each.violations,
            "-" if each.position is None else "{}, {}".format(*each.position),
        ]
        for each in answer
    ]
    return Table(columns, rows)


def _utc_time(ns: int) -> str:
    try:
        return datetime.fromtimestamp(ns // 10**9, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (ValueError, OverflowError):
        return "-"


TILES: Final = Operation(
    name="tiles",
    method=GET,
    path=TILES_PATH,
    summary="The tiles, without their contents.",
    about="The tiles, without their contents; or the deleted, restorable ones.",
    request=ListTiles,
    response=list[TileReport],
    run=_tiles,
    parameters=(
        Parameter(name="room", about="only those of this room"),
        Parameter(name="prefix", about="only those of rooms that begin so"),
        Parameter(
            name="deleted",
            about="1: those instead that are deleted and can be restored",
            schema=YES_NO,
            parse=parse_flag,
        ),
        PAGED[0],
        Parameter(
            name="after",
            about="the last of the page before: ROOM/ID, both percent-encoded",
            schema={**TEXT, "pattern": "/"},
            parse=_parse_place,
        ),
    ),
    freshness=Freshness.STATE,
    build=list_tiles,
    join=concatenated,
    command=Command(
        name="tiles",
        example="tiles --room lab",
        help="the tiles that there are, without their contents",
        group="state",
        flags={
            "room": Flag("--room", metavar="ROOM", help="only those in this room"),
            "prefix": Flag("--prefix", default="", metavar="TEXT", help="only those in rooms whose name begins so"),
            "deleted": Flag("--deleted", action="store_true", help="those that are deleted, and can be restored, instead"),
        },
        show=show_tiles,
    ),
)


# --- a tile and its content -------------------------------------------------------------------------------------------------------

PLACE_FLAGS: Final = {"room": Flag(metavar="ROOM"), "id": Flag(metavar="ID")}
CONSTRAINT_FLAG: Final = Flag("--constraint", action="append", default=[], metavar="ID", help="a constraint; may be repeated")


@contextmanager
def names_in_body(tags: str, constraints: str) -> Iterator[None]:
    """Have an error name the field of the body: `tags` and `constraints`."""
    try:
        yield
    except WritesRefused:
        raise
    except ConstraintCrdtError as error:
        field = {"tags": tags, "constraints": constraints, "author": "author"}.get(error.field or "")
        raise wrong(str(error), field) from None


async def _put(node: "Node", request: PutTile) -> Reply[TileReport]:
    new = (request.room, request.id) not in node.gossip.state.tiles
    content = request.content()
    with names_in_body("tags", "constraints"):
        report = await node.tiles.put(
            request.room, request.id, content, author=request.author, tags=request.tags, constraints=request.constraints
        )
    return Reply(report, created=new)


def put_content(
    room: str, id_: str, text: str | bytes, *, author: str | None = None, tags: Sequence[str] = (), constraints: Sequence[str] = ()
) -> PutTile:
    """The request of the clients' `put_tile`: a text, or bytes."""
    encoded = None if isinstance(text, str) else base64.b64encode(text).decode()
    sent = text if isinstance(text, str) else None
    return PutTile(room=room, id=id_, text=sent, base64=encoded, author=author, tags=tags, constraints=constraints)


def show_put_tile(answer: TileReport) -> str:
    """The size and hash of the content, in a sentence."""
    return f"{answer.room} {answer.id}: {answer.size} bytes, {answer.hash[:16]}"


PUT_TILE: Final = Operation(
    name="put_tile",
    method=PUT,
    path=TILE_PATH,
    right=Right.MEASURE,
    summary="Make this its content.",
    about="Make this text, or these bytes, the content of a tile, and add tags and constraints.",
    request=PutTile,
    response=TileReport,
    run=_put,
    body=Body(shape=NewTile, limit=MAX_TILE_BODY_BYTES),
    created=True,
    by_segment=True,
    build=put_content,
    command=Command(
        name="tile put",
        example="tile put lab note --text calibrated",
        help="make this the content of a tile",
        group="state",
        flags=dict.fromkeys(PutTile.__struct_fields__),
        options={
            **PLACE_FLAGS,
            "file": Flag(nargs="?", metavar="FILE", exclusive="content", help="the content; - or nothing for standard input"),
            "text": Flag("--text", metavar="TEXT", exclusive="content", help="the content itself"),
            "author": Flag("--author", metavar="NAME", help="who made it; default: the node"),
            "constraint": CONSTRAINT_FLAG,
            "tags": Flag("--tag", action="append", default=[], metavar="TAG", help="a tag to add; may be repeated"),
        },
    ),
)


async def _put_content(node: "Node", request: PutContent) -> Reply[TileReport]:
    new = (request.room, request.id) not in node.gossip.state.tiles
    return Reply(await node.tiles.put(request.room, request.id, request.content), created=new)


PUT_TILE_CONTENT: Final = Operation(
    name="put_tile_content",
    method=PUT,
    path=TILE_PATH + "/content",
    right=Right.MEASURE,
    summary="Make these bytes its content.",
    about="Make these bytes the content of a tile.",
    request=PutContent,
    response=TileReport,
    run=_put_content,
    body=Body(media_type=BYTES, limit=TILE_BYTES, field="content"),
    created=True,
    by_segment=True,
    positional=("room", "id", "content"),
)


async def _tile(node: "Node", request: AtTile) -> TileContent:
    tile = present_tile(node, request)
    content = _content(tile)
    try:
        text, encoded = content.decode(), None
    except UnicodeDecodeError:
        text, encoded = None, base64.b64encode(content).decode()
    fields = msgspec.structs.asdict(node.tiles.reports([(tile.room, tile.id)])[0])
    tags, constraints = tuple(fields.pop("tags")), tuple(fields.pop("constraints"))
    return TileContent(**fields, tags=tags, constraints=constraints, text=text, base64=encoded)


TILE: Final = Operation(
    name="tile",
    method=GET,
    path=TILE_PATH,
    summary="One tile with its content.",
    about="A tile with its content.",
    request=AtTile,
    response=TileContent,
    run=_tile,
    by_segment=True,
    command=Command(
        name="tile get",
        example="tile get lab note",
        help="print the content of a tile",
        group="state",
        flags=PLACE_FLAGS,
        options={"output": Flag("-o", "--output", metavar="FILE", help="where to write it; default: standard output")},
    ),
)


async def _tile_content(node: "Node", request: AtTile) -> bytes:
    return _content(present_tile(node, request))


TILE_CONTENT: Final = Operation(
    name="tile_content",
    method=GET,
    path=TILE_PATH + "/content",
    summary="Its bytes.",
    about="The bytes of a tile.",
    request=AtTile,
    response=bytes,
    run=_tile_content,
    media_type=BYTES,
    document=Answer(media_type=BYTES),
    # Never for a browser to run: any member of the fleet may have put it there.
    headers={"x-content-type-options": "nosniff", "content-disposition": "attachment"},
    by_segment=True,
)


def present_tile(node: "Node", request: AtTile | EditTile) -> "FleetTile":
    """The tile of a request. Raises `Problem` (404) for an unknown or deleted tile."""
    tile = node.gossip.state.tiles.tile(request.room, request.id)
    if not tile.exists:
        state = "is deleted: restore it first" if tile.deleted else "is not there"
        raise not_found(f"tile {tile.id!r} in room {tile.room!r} {state}")
    return tile


def _content(tile: "FleetTile") -> bytes:
    if not tile.verify_integrity():
        detail = f"the content of tile {tile.id!r} in room {tile.room!r} is damaged, by whoever wrote it: put it again"
        raise Problem(HTTPStatus.INTERNAL_SERVER_ERROR, detail)
    return tile.content


async def _delete(node: "Node", request: AtTile) -> TileRemoved:
    tile = present_tile(node, request)
    await node.tiles.delete(tile.room, tile.id)
    return TileRemoved(room=tile.room, id=tile.id)


def show_delete_tile(answer: TileRemoved, _: AtTile, __: "Namespace") -> str:
    """The deletion, in a sentence."""
    return f"{answer.room} {answer.id}: deleted; `tile restore` brings it back for a while"


DELETE_TILE: Final = Operation(
    name="delete_tile",
    method=DELETE,
    path=TILE_PATH,
    right=Right.MEASURE,
    summary="Take a tile away.",
    about="Delete a tile, restorable for a while.",
    request=AtTile,
    response=TileRemoved,
    run=_delete,
    by_segment=True,
    command=Command(
        name="tile rm",
        example="tile rm lab note",
        help="delete a tile; it can be restored for a while",
        group="state",
        flags=PLACE_FLAGS,
        show=show_delete_tile,
    ),
)


async def _restore(node: "Node", request: AtTile) -> TileReport:
    try:
        return await node.tiles.restore(request.room, request.id)
    except KeyError:
        raise not_found(f"tile {request.id!r} in room {request.room!r} is not deleted, or has been purged since") from None


def show_restore_tile(answer: TileReport, _: AtTile, __: "Namespace") -> str:
    """The tile that is back, in a sentence."""
    return f"{answer.room} {answer.id}: restored, {answer.size} bytes"


RESTORE_TILE: Final = Operation(
    name="restore_tile",
    method=POST,
    path=TILE_PATH + "/restore",
    right=Right.MEASURE,
    summary="Undo its deletion.",
    about="Undo the deletion of a tile.",
    request=AtTile,
    response=TileReport,
    run=_restore,
    by_segment=True,
    command=Command(
        name="tile restore",
        example="tile restore lab note",
        help="undo the deletion of a tile",
        group="state",
        flags=PLACE_FLAGS,
        show=show_restore_tile,
    ),
)


async def _edit(node: "Node", request: EditTile) -> TileReport:
    tile = present_tile(node, request)
    for field, elements, among in (
        ("remove_tags", request.remove_tags, tile.tags),
        ("remove_constraints", request.remove_constraints, tile.constraints),
    ):
        for element in elements:
            if element not in among:
                detail = f"`{field}`: tile {tile.id!r} in room {tile.room!r} has no {field[7:-1]} {element!r}"
                raise not_found(detail, field)
    with names_in_body("add_tags", "add_constraints"):
        return await node.tiles.edit(
            request.room,
            request.id,
            add_tags=request.add_tags,
            remove_tags=request.remove_tags,
            add_constraints=request.add_constraints,
            remove_constraints=request.remove_constraints,
        )


_ELEMENTS: Final = {**PLACE_FLAGS, "constraint": CONSTRAINT_FLAG, "tags": Flag(nargs="*", metavar="TAG")}


def _elements(flags: "Namespace") -> tuple[list[str], list[str]]:
    """The tags and the constraints. Raises `UsageError` if there are none."""
    if not flags.tags and not flags.constraint:
        raise UsageError("there is nothing to do: name a TAG, or --constraint ID")
    return flags.tags, flags.constraint


def _tag(client: "Client", flags: "Namespace") -> TileReport:
    tags, constraints = _elements(flags)
    return client.edit_tile(flags.room, flags.id, add_tags=tags, add_constraints=constraints)


def _untag(client: "Client", flags: "Namespace") -> TileReport:
    tags, constraints = _elements(flags)
    return client.edit_tile(flags.room, flags.id, remove_tags=tags, remove_constraints=constraints)


def show_edit_tile(answer: TileReport, __: "Namespace") -> str:
    """The tags and constraints of the tile, in a sentence."""
    tags, constraints = ", ".join(answer.tags) or "none", ", ".join(answer.constraints) or "none"
    return f"{answer.room} {answer.id}: tags {tags}; constraints {constraints}"


EDIT_TILE: Final = Operation(
    name="edit_tile",
    method=PATCH,
    path=TILE_PATH,
    right=Right.MEASURE,
    summary="Add tags and constraints, or take some away.",
    about="Add tags and constraints to a tile, or take some away, at once.",
    request=EditTile,
    response=TileReport,
    run=_edit,
    body=Body(shape=EditedTile),
    by_segment=True,
    command=CompositeCommand(
        name="tile tag",
        example="tile tag lab note arm",
        help="add tags, or constraints that it is about, to a tile",
        group="state",
        options=_ELEMENTS,
        call=_tag,
        show=show_edit_tile,
    ),
    more_commands=(
        CompositeCommand(
            name="tile untag",
            example="tile untag lab note arm",
            help="take tags, or constraints that it is about, from a tile",
            group="state",
            options=_ELEMENTS,
            call=_untag,
            show=show_edit_tile,
        ),
    ),
)
