"""The routes for the counters that go up and down: `/v1/counters` and `/v1/counters/{name}`."""

from http import HTTPStatus

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.http.bodies import read_body
from constraint_crdt.http.problems import Problem
from constraint_crdt.runtime.node import Node
from constraint_crdt.store import WritesRefused


class Moved(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/counters/{name}`."""

    by: int = 1


async def counters(node: Node, _: Request) -> Response:
    """`GET /v1/counters`: those that were ever moved."""
    return _json(node.counters.reports())


async def counter(node: Node, request: Request) -> Response:
    """`GET /v1/counters/{name}`."""
    name = request.path_params["name"]
    try:
        return _json(node.counters.report(name))
    except KeyError:
        raise Problem(HTTPStatus.NOT_FOUND, f"there is no counter {name!r} yet: the first move begins it") from None


async def move(node: Node, request: Request) -> Response:
    """`POST /v1/counters/{name}`: move it up, or down by a negative number."""
    body = await read_body(request, Moved)
    try:
        return _json(await node.counters.move(request.path_params["name"], body.by))
    except WritesRefused:
        raise
    except ConstraintCrdtError as error:
        field = None if str(error).startswith("the name") else "by"
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error), field=field) from None
    except ValueError as error:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"`by`: {error}", field="by") from None


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json", headers={"cache-control": "no-store"})
