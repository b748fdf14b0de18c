"""The routes for whole states: `GET /v1/export` gives the node's as a state file, `POST /v1/import` merges one into it."""

from http import HTTPStatus

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from constraint_crdt.http.bodies import read_json
from constraint_crdt.http.problems import Problem
from constraint_crdt.runtime.node import Node
from constraint_crdt.state_file import StateFileError

MAX_IMPORT_BYTES = 64 * 1024 * 1024

_HEADERS = {"cache-control": "no-store"}


async def export_state(node: Node, _: Request) -> Response:
    """The whole state of the node, as it is now."""
    return Response(await node.export_state(), media_type="application/json", headers=_HEADERS)


async def import_state(node: Node, request: Request) -> Response:
    """Merge a state file of at most `MAX_IMPORT_BYTES`; answers what changed."""
    data = await read_json(request, MAX_IMPORT_BYTES)
    try:
        report = await node.import_state(data, max_bytes=MAX_IMPORT_BYTES)
    except StateFileError as error:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error), field=error.field) from None
    return Response(msgspec.json.encode(report), media_type="application/json", headers=_HEADERS)
