"""The routes for screens that show many constraints: `GET /v1/overview` and `GET /v1/lately`."""

from http import HTTPStatus

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from constraint_crdt.http.problems import Problem
from constraint_crdt.insight.overview import LARGEST_PAGE, MOST_IDS, PAGE
from constraint_crdt.runtime.node import Node


async def overview(node: Node, request: Request) -> Response:
    """`GET /v1/overview?after=ID&limit=250&node=NAME`, or `?id=ID&id=ID` for these and who has heard of them."""
    query = request.query_params
    ids = query.getlist("id")
    if not ids:
        return _json(node.overview.page(query.get("after"), _limit(query.get("limit")), query.get("node")))
    if len(ids) > MOST_IDS:
        detail = f"`id`: ask for at most {MOST_IDS} constraints at once, not {len(ids)}"
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, field="id")
    if len(query) > 1:
        detail = "`id`: constraints are asked for by id or by page, so leave out the other parameters"
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, field="id")
    return _json(node.overview.of(ids))


async def lately(node: Node, _: Request) -> Response:
    """`GET /v1/lately`."""
    return _json(node.overview.lately())


def _limit(text: str | None) -> int:
    if text is None:
        return PAGE
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 0 < int(text) <= LARGEST_PAGE):
        detail = f"`limit`: a whole number from 1 to {LARGEST_PAGE}, not {text!r}"
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, field="limit")
    return int(text)


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json", headers={"cache-control": "no-store"})
