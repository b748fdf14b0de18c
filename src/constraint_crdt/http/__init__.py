"""The HTTP API of a node: JSON under `/v1`, for the command line, programs and browsers.

The application is here: all operations, routed and guarded, and the pages beside them. `security` guards requests, `endpoint`
decodes them, runs the operation, and encodes and caches the response. `event_stream` streams, `metrics` and `openapi` describe, and
`server` runs the application beside a node in a single event loop.

Refused before they reach an operation, in this order: requests on a connection beyond the bounds, beyond the rate limit, for
another host, from another origin, without the right.

Paths. An id at the end of a path is matched decoded (`any_text`), slashes included. Where a path has several ids, or more after an
id, each id is a segment of the path as sent, percent-encoded: matched decoded, an encoded slash would be ambiguous, and two
resources could share a path.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from http import HTTPStatus
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote

import msgspec
from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from constraint_crdt.http.endpoint import AnswerCache, Endpoint, Own, PlainRoutes, Resource, problem_response
from constraint_crdt.http.event_stream import CutOff, EventFeed, events
from constraint_crdt.http.openapi import docs, make_document, openapi, parts_of_docs
from constraint_crdt.http.security import Denials, Guard, OriginGuard, RateLimit, RequestCounts, TokenGuard, check_reserved, session
from constraint_crdt.http.tokens import Tokens
from constraint_crdt.operations import OPERATIONS
from constraint_crdt.operations.operation import AnyOperation, Empty, Problem
from constraint_crdt.operations.plato import SERVER, server_path, unserved
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


class _AnyText(Convertor[str]):
    """The rest of a path, line ends included, where Starlette's own `path` stops."""

    regex = "(?s:.+)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("any_text", _AnyText())


class SegmentRoute(Route):
    """A route with a segment per parameter, matched and kept percent-encoded."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """See Starlette."""
        if scope["type"] != "http":
            return Match.NONE, {}
        wanted, sent = self.path.split("/"), _sent(scope)
        if len(wanted) != len(sent):
            return Match.NONE, {}
        found = {}
        for each, segment in zip(wanted, sent, strict=True):
            if each.startswith("{"):
                found[each[1:-1]] = segment
            elif each != unquote(segment):
                return Match.NONE, {}
        matched = Match.FULL if scope["method"] in (self.methods or ()) else Match.PARTIAL
        return matched, {"endpoint": self.endpoint, "path_params": found}


def _sent(scope: Mapping[str, Any]) -> list[str]:
    """The segments of a path, as they were sent."""
    path: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    return path.decode("latin-1").split("/")


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
    others = [route for route in routes if type(route) is not Route or "{" in route.path]

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


class PlatoPaths:
    """ASGI middleware, the outermost: a request of the contract of PLATO servers gets its path below `SERVER`.

    So the guard, the routes and the counts behind know such requests by their path alone.
    """

    def __init__(self, app: ASGIApp, *, by_default: bool) -> None:
        """`by_default`: the setting `plato` is `server`."""
        self._app = app
        self._by_default = by_default

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "http" and not scope["path"].startswith(_NEVER_PLATO):
            headers = Headers(scope=scope)
            query = scope["query_string"].decode("latin-1")
            path = server_path(scope["method"], scope["path"], query, headers, by_default=self._by_default)
            if path != scope["path"]:
                scope = {**scope, "path": path, "raw_path": quote(path).encode()}
        await self._app(scope, receive, send)


_NEVER_PLATO: Final = ("/v1/", "/dashboard/", "/docs")


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


class BelowPath:
    """Serves an application at a path too, where a proxy shows it. The path is taken off requests and put before links."""

    def __init__(self, app: ASGIApp, base: str) -> None:
        """`base`: as in `/crdt`."""
        self._app = app
        self._base = base
        self._link = b"<" + base.encode() + b"/"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"] == self._base:  # the relative links of the page need the last slash
            await RedirectResponse(f"{self._base}/", HTTPStatus.PERMANENT_REDIRECT)(scope, receive, send)
            return

        async def with_links(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [(name, self._led(value) if name.lower() == b"link" else value) for name, value in message["headers"]]
                message = {**message, "headers": headers}
            await send(message)

        if scope["path"].startswith(f"{self._base}/"):
            raw: bytes = scope.get("raw_path") or b""
            base = self._base.encode()
            scope = {**scope, "path": scope["path"].removeprefix(self._base), "raw_path": raw.removeprefix(base)}
        await self._app(scope, receive, with_links)

    def _led(self, link: bytes) -> bytes:
        return self._link + link[2:] if link.startswith(b"</") else link
