"""The routes for where the fleet is: `GET` and `PUT /v1/position`."""

from http import HTTPStatus

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.http.bodies import read_body
from constraint_crdt.http.problems import Problem
from constraint_crdt.runtime.node import Node
from constraint_crdt.store import WritesRefused


class Moving(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`PUT /v1/position`."""

    position: tuple[int, int]


async def position(node: Node, _: Request) -> Response:
    """`GET /v1/position`: the fleet's and, by node, the nodes' own."""
    return _json(node.position())


async def move(node: Node, request: Request) -> Response:
    """`PUT /v1/position`: move there. Answers where the fleet is then."""
    body = await read_body(request, Moving)
    try:
        await node.update_position(body.position)
    except WritesRefused:
        raise
    except ConstraintCrdtError as error:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"`position`: {error}", field="position") from None
    return _json(node.position())


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json", headers={"cache-control": "no-store"})
