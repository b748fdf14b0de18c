"""The application: the operations of the catalogue, routed and guarded, and the pages beside them.

Refused before they reach an operation, in this order: requests beyond the rate limit, for another host, from another origin,
without the right.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from http import HTTPStatus
from typing import Final

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from constraint_crdt.http.cache import AnswerCache
from constraint_crdt.http.endpoint import Endpoint, Own, Resource, SegmentRoute, problem_response
from constraint_crdt.http.event_stream import CutOff, EventFeed, events
from constraint_crdt.http.metrics import NodeMetrics, metrics
from constraint_crdt.http.openapi import docs, make_document, openapi, parts_of_docs
from constraint_crdt.http.security import Guard, OriginGuard, RateLimit, RequestCounts, TokenGuard, Tokens
from constraint_crdt.operations.catalogue import OPERATIONS
from constraint_crdt.operations.operation import AnyOperation, Problem
from constraint_crdt.operations.tiles import TILES_PATH
from constraint_crdt.runtime.node import Node

OWN: Final[Mapping[str, Own]] = {
    "docs": docs,
    "events": events,
    "metrics": metrics,
    "openapi": openapi,
}
"""The operations served from the parts of the server, by name."""


def make_app(
    node: Node,
    *,
    bound_to: str | None = None,
    pages: Sequence[BaseRoute] = (),
    cut_off: CutOff = lambda _: None,
    tokens: Tokens | None = None,
) -> Starlette:
    """The ASGI application that serves `node`, which must be started, in the node's event loop.

    `bound_to`: the host of the listening socket, served beside the loopback addresses. `pages`: routes beside
    the API, such as the dashboard. `cut_off` ends the connection of a request. `tokens`: without, every client may read and write.
    """
    feed = EventFeed(node, cut_off)
    routes = [*_routes(node, OPERATIONS), *parts_of_docs(), *pages]
    counts = RequestCounts(routes)
    app = Starlette(
        routes=routes,
        middleware=[
            Middleware(
                Guard,
                note=counts.note,
                checks=(
                    RateLimit(node.settings.api_rate).check,
                    OriginGuard(bound_to, any_host=tokens is not None).check,
                    TokenGuard(tokens).check,
                ),
            )
        ],
        exception_handlers={HTTPException: _not_routed},
    )
    app.router.redirect_slashes = False
    app.state.feed, app.state.metrics = feed, NodeMetrics(node, counts, feed)
    app.state.document = _document
    return app


@cache
def _document() -> bytes:
    return msgspec.json.encode(make_document(OPERATIONS))


def _routes(node: Node, operations: Iterable[AnyOperation]) -> list[Route]:
    """A route for each path, in the order of the list."""
    cached = AnswerCache(node).answer
    by_path: dict[str, dict[str, Endpoint]] = {}
    for operation in operations:
        by_path.setdefault(operation.path, {})[operation.method] = Endpoint(operation)
    found = []
    for path, endpoints in by_path.items():
        by_segment = any(endpoint.operation.by_segment for endpoint in endpoints.values())
        serve = Resource(node, endpoints, cached, OWN).serve
        found.append((SegmentRoute if by_segment else Route)(path, serve, methods=list(endpoints)))
    return found


async def _not_routed(request: Request, error: Exception) -> Response:
    """No such path, or not with this method."""
    status = HTTPStatus(error.status_code) if isinstance(error, HTTPException) else HTTPStatus.INTERNAL_SERVER_ERROR
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = allowed = ", ".join(sorted(headers.get("Allow", "").split(", ")))
        detail = f"{request.url.path} does not take {request.method}: it takes {allowed}"
    else:
        advice = (
            f": a tile is at {TILES_PATH}/ROOM/ID, both percent-encoded" if request.url.path.startswith(f"{TILES_PATH}/") else ""
        )
        detail = f"there is nothing at {request.url.path}{advice}"
    return problem_response(Problem(status, detail, headers=headers))
