"""The HTTP API of a node: JSON under `/v1`, for the command line, programs and browsers.

The application is here: all operations, routed and guarded, and the pages beside them. `security` guards requests. `endpoint`
routes and decodes them, runs the operation, and encodes and caches the response. `event_stream` streams, `metrics` and `openapi`
describe, and `server` runs the application beside a node in a single event loop.

Refused before they reach an operation, in this order: requests on a connection beyond the bounds, beyond the rate limit, for
another host, from another origin, without the right.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from http import HTTPStatus
from importlib import import_module
from typing import TYPE_CHECKING, Final

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from constraint_crdt.http.endpoint import (
    AnswerCache,
    Endpoint,
    Own,
    PlainRoutes,
    PlatoPaths,
    Resource,
    SegmentRoute,
    problem_response,
)
from constraint_crdt.http.event_stream import CutOff, EventFeed, events
from constraint_crdt.http.openapi import docs, make_document, openapi, parts_of_docs
from constraint_crdt.http.security import Denials, Guard, OriginGuard, RateLimit, RequestCounts, TokenGuard, check_reserved, session
from constraint_crdt.http.tokens import Tokens
from constraint_crdt.operations import OPERATIONS
from constraint_crdt.operations.operation import AnyOperation, Empty, Problem
from constraint_crdt.operations.plato import SERVER, unserved
from constraint_crdt.operations.tiles import TILES_PATH
from constraint_crdt.runtime.node import Node

if TYPE_CHECKING:
    from constraint_crdt.http.metrics import NodeMetrics


async def _metrics(empty: Empty, request: Request) -> Response:
    """`GET /metrics`. Its library is loaded at the first request."""
    module = await asyncio.to_thread(import_module, "constraint_crdt.http.metrics")
    response: Response = await module.metrics(empty, request)
    return response


OWN: Final[Mapping[str, Own]] = {
    "docs": docs,
    "events": events,
    "metrics": _metrics,
    "openapi": openapi,
    "session": session,
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
    the API, such as the dashboard. `cut_off` ends the connection of a request. `tokens`: without, every client may do everything.
    """
    feed = EventFeed(node, cut_off)
    routes = [*_routes(node, OPERATIONS), *parts_of_docs(), *pages]
    counts, denials = RequestCounts(routes), Denials()

    plain = [route for route in routes if type(route) is Route and "{" not in route.path]
    others = [route for route in routes if route not in plain]

    app = Starlette(
        routes=[PlainRoutes(plain), *others],
        middleware=[
            Middleware(PlatoPaths, by_default=node.settings.plato == "server"),
            Middleware(
                Guard,
                counts=counts,
                denials=denials,
                checks=(
                    check_reserved,
                    RateLimit(node.settings.api_rate).check,
                    OriginGuard(bound_to, any_host=tokens is not None).check,
                    TokenGuard(tokens).check,
                ),
            ),
        ],
        exception_handlers={HTTPException: _not_routed},
    )
    app.router.redirect_slashes = False

    @cache
    def metered() -> "NodeMetrics":
        from constraint_crdt.http.metrics import NodeMetrics

        return NodeMetrics(node, counts, feed, denials)

    app.state.feed, app.state.metrics = feed, metered
    app.state.document, app.state.node = _document, node
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
    is_plato = request.url.path.startswith(f"{SERVER}/")
    reason = unserved(request.url.path) if is_plato else None
    if reason is not None:
        status, detail = HTTPStatus.NOT_IMPLEMENTED, f"{request.url.path.removeprefix(SERVER)} is not served: {reason}"
    return problem_response(Problem(status, detail, headers=headers), as_error=is_plato)
