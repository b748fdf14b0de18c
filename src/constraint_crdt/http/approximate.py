"""The routes for approximate answers: `/v1/top` and `/v1/sketches/{name}` (how often), `/v1/seen/{name}` (whether ever)."""

from http import HTTPStatus

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from constraint_crdt.http.bodies import read_body
from constraint_crdt.http.problems import Problem
from constraint_crdt.runtime.node import Node
from constraint_crdt.runtime.sketches import VIOLATIONS

_HEADERS = {"cache-control": "no-store"}


class Tallied(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/sketches/{name}`."""

    items: dict[str, int]


class Inserted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/seen/{name}`. The last two are for the first insertion, or must be those that the filter has."""

    items: list[str]
    expected_items: int | None = None
    fp_rate: float | None = None


async def top(node: Node, request: Request) -> Response:
    """`GET /v1/top?k=10&of=violations`."""
    number, of = request.query_params.get("k", "10"), request.query_params.get("of", VIOLATIONS)
    try:
        report = node.approximate.top(int(number), of) if number.isascii() and number.isdigit() and len(number) < 10 else None
    except KeyError:
        raise _nothing("sketch", of, "of") from None
    except ValueError as error:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"`k`: {error}", field="k") from None
    if report is None:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"`k`: {number!r} is not a whole number", field="k")
    return _json(report)


async def record(node: Node, request: Request) -> Response:
    """`POST /v1/sketches/{name}`."""
    body = await read_body(request, Tallied)
    try:
        report = await node.approximate.record(request.path_params["name"], body.items)
    except ValueError as error:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"`items`: {error}", field="items") from None
    return _json(report)


async def insert(node: Node, request: Request) -> Response:
    """`POST /v1/seen/{name}`."""
    body = await read_body(request, Inserted)
    name = request.path_params["name"]
    return _json(await node.approximate.insert(name, body.items, expected_items=body.expected_items, fp_rate=body.fp_rate))


async def seen(node: Node, request: Request) -> Response:
    """`GET /v1/seen/{name}?item=`."""
    name, item = request.path_params["name"], request.query_params["item"]
    try:
        return _json(node.approximate.seen(name, item))
    except KeyError:
        raise _nothing("filter", name, None) from None


def _nothing(what: str, name: str, field: str | None) -> Problem:
    return Problem(HTTPStatus.NOT_FOUND, f"there is no {what} {name!r} yet: the first item put into it begins it", field=field)


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json", headers=_HEADERS)
