"""The application: the operations of `table`, routed and guarded, and what is served beside them.

Rules: no endpoint decides anything itself. Whatever goes wrong is a `Problem`; what nobody foresaw is logged, and the client is
told only that it happened. Who asks too often, for another host, from a page of another origin, or without a right, does not get
as far as an endpoint, in this order.
"""

import logging
from collections.abc import Iterable, Sequence
from functools import cache
from http import HTTPStatus

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.expression import ExpressionError
from constraint_crdt.http.cache import AnswerCache
from constraint_crdt.http.docs import parts_of_docs
from constraint_crdt.http.events import CutOff, EventFeed
from constraint_crdt.http.metrics import NodeMetrics, RequestCounting, RequestCounts
from constraint_crdt.http.openapi import make_document
from constraint_crdt.http.operation import Operation
from constraint_crdt.http.problems import Problem
from constraint_crdt.http.routing import SegmentRoute
from constraint_crdt.http.security import OriginGuard, RateLimit, TokenGuard, Tokens, check_right
from constraint_crdt.http.table import OPERATIONS
from constraint_crdt.http.tiles import LIST as TILES
from constraint_crdt.runtime.node import Node
from constraint_crdt.store import WritesRefused

_log = logging.getLogger("constraint_crdt.api")


def make_app(
    node: Node,
    *,
    bound_to: str | None = None,
    pages: Sequence[BaseRoute] = (),
    cut_off: CutOff = lambda _: None,
    tokens: Tokens | None = None,
) -> Starlette:
    """The ASGI application that serves `node`, which must be started, in the node's event loop.

    `bound_to`: the host that the server listens on, which then counts as ours beside the loopback addresses. `pages`: what to
    serve beside the API, such as the dashboard. `cut_off` ends the connection of a request. `tokens`: without, everybody who gets
    here may read and write.
    """
    cache, feed = AnswerCache(node), EventFeed(node, cut_off)
    routes = [*_routes(cache, OPERATIONS), *parts_of_docs(), *pages]
    counts = RequestCounts(routes)
    app = Starlette(
        routes=routes,
        middleware=[
            Middleware(RequestCounting, counts),
            Middleware(RateLimit, node.settings.api_rate),
            Middleware(OriginGuard, bound_to=bound_to, any_host=tokens is not None),
            Middleware(TokenGuard, tokens),
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


def _routes(cache: AnswerCache, operations: Iterable[Operation]) -> list[Route]:
    """One route for each path, in the order in which they are listed first."""
    by_path: dict[str, dict[str, Operation]] = {}
    for operation in operations:
        by_path.setdefault(operation.path, {})[operation.method] = operation
    return [_route(cache, path, by_method) for path, by_method in by_path.items()]


def _route(cache: AnswerCache, path: str, operations: dict[str, Operation]) -> Route:
    """One path with an operation per method; faults in any of them become problems."""

    async def serve(request: Request) -> Response:
        operation = operations["GET" if request.method == "HEAD" else request.method]
        try:
            check_right(request.scope, operation.right)
            _check_parameters(operation, request)
            return await cache.answer(operation, request)
        except Problem as problem:
            return problem.response()
        except ExpressionError as error:
            return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"`when`: {error}", field="when").response()
        except WritesRefused as error:
            return _refused(error).response()
        except ConstraintCrdtError as error:
            return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)).response()
        except Exception:
            _log.exception("%s %s failed", request.method, request.url.path)
            detail = "the node failed at this request; its log says more"
            return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, detail).response()

    by_segment = any(operation.by_segment for operation in operations.values())
    return (SegmentRoute if by_segment else Route)(path, serve, methods=list(operations))


def _check_parameters(operation: Operation, request: Request) -> None:
    """Raise `Problem` for a parameter that there is not, is missing, or is given twice."""
    if operation.ignores_others or (not operation.parameters and not request.scope["query_string"]):
        return
    known = {each.name: each for each in operation.parameters if each.place == "query"}
    query = request.query_params
    for key in query:
        if key not in known:
            there_is = f"there is {', '.join(known)}" if known else "there is none"
            raise _wrong_parameter(f"there is no parameter `{key}`: {there_is}", key)
        if not known[key].many and len(query.getlist(key)) > 1:
            raise _wrong_parameter(f"`{key}`: give it once", key)
    for key, parameter in known.items():
        if parameter.required and key not in query:
            raise _wrong_parameter(f"the parameter `{key}` is missing: {request.url.path}?{key}={key.upper()}", key)


def _wrong_parameter(detail: str, field: str) -> Problem:
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, field=field)


async def _not_routed(request: Request, error: Exception) -> Response:
    """No such path, or not with this method."""
    status = HTTPStatus(error.status_code) if isinstance(error, HTTPException) else HTTPStatus.INTERNAL_SERVER_ERROR
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = allowed = ", ".join(sorted(headers.get("Allow", "").split(", ")))
        detail = f"{request.url.path} does not take {request.method}: it takes {allowed}"
    else:
        advice = f": a tile is at {TILES}/ROOM/ID, both percent-encoded" if request.url.path.startswith(f"{TILES}/") else ""
        detail = f"there is nothing at {request.url.path}{advice}"
    return Problem(status, detail, headers=headers).response()


def _refused(error: WritesRefused) -> Problem:
    """The disk takes nothing at the moment. The node tries again every second, so asking again is worth it."""
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error), headers={"retry-after": "1"})
