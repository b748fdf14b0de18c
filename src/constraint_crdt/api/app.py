"""The routes of the API: each reads a request, asks the node, and puts the answer into JSON.

Rules: no endpoint decides anything itself. Whatever goes wrong is a `Problem`; what nobody foresaw is logged, and the client is
told only that it happened.
"""

import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus

import msgspec
from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from constraint_crdt.api.bodies import MAX_BATCH_BYTES, Batch, Counted, Measured, NewConstraint, Retiring, read_body
from constraint_crdt.api.origin import OriginGuard
from constraint_crdt.api.problems import Problem
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.expression import ExpressionError
from constraint_crdt.node.batches import BatchError
from constraint_crdt.node.node import Node
from constraint_crdt.store import WritesRefused
from constraint_crdt.types.orset import Change

Endpoint = Callable[[Node, Request], Awaitable[Response]]

_log = logging.getLogger("constraint_crdt.api")


class _AnyText(Convertor[str]):
    """The rest of a path: an id may contain slashes, and line ends, where Starlette's own `path` stops."""

    regex = "(?s:.+)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("any_text", _AnyText())


def make_app(node: Node, *, bound_to: str | None = None) -> Starlette:
    """The ASGI application that serves `node`, which must be started, in the node's event loop.

    `bound_to`: the host that the server listens on, which then counts as ours beside the loopback addresses.
    """
    routes = [
        _route(node, "/v1/status", GET=_status),
        _route(node, "/v1/constraints", GET=_constraints, POST=_add),
        _route(node, "/v1/constraints/{id:any_text}", DELETE=_remove),
        _route(node, "/v1/record", POST=_record),
        _route(node, "/v1/check", POST=_check),
        _route(node, "/v1/measure", POST=_measure),
        _route(node, "/v1/batch", POST=_batch),
        _route(node, "/v1/nodes", GET=_nodes),
        _route(node, "/v1/storage", GET=_storage),
        _route(node, "/v1/identity", GET=_identity),
        _route(node, "/v1/retire", POST=_retire),
    ]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(OriginGuard, bound_to=bound_to)],
        exception_handlers={HTTPException: _not_routed},
    )
    app.router.redirect_slashes = False
    return app


def _route(node: Node, path: str, **endpoints: Endpoint) -> Route:
    """One path with an endpoint per method; faults in any of them become problems."""

    async def serve(request: Request) -> Response:
        try:
            return await endpoints["GET" if request.method == "HEAD" else request.method](node, request)
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

    return Route(path, serve, methods=list(endpoints))


async def _not_routed(request: Request, error: Exception) -> Response:
    """No such path, or not with this method."""
    status = HTTPStatus(error.status_code) if isinstance(error, HTTPException) else HTTPStatus.INTERNAL_SERVER_ERROR
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        detail = f"{request.url.path} does not take {request.method}: it takes {headers.get('Allow', 'nothing')}"
    else:
        detail = f"there is nothing at {request.url.path}"
    return Problem(status, detail, headers=headers).response()


def _json(value: object, status: HTTPStatus = HTTPStatus.OK) -> Response:
    headers = {"cache-control": "no-store"}
    return Response(msgspec.json.encode(value), status_code=status, media_type="application/json", headers=headers)


async def _status(node: Node, _: Request) -> Response:
    return _json(node.status())


async def _constraints(node: Node, _: Request) -> Response:
    return _json(node.constraints())


async def _nodes(node: Node, _: Request) -> Response:
    return _json(node.nodes())


async def _storage(node: Node, _: Request) -> Response:
    return _json(node.storage())


async def _identity(node: Node, _: Request) -> Response:
    return _json(node.identity())


async def _add(node: Node, request: Request) -> Response:
    body = await read_body(request, NewConstraint)
    try:
        change = await node.add_constraint(body.id, when=body.when, severity=body.severity, about=body.about)
    except WritesRefused:
        raise
    except ConstraintCrdtError as error:
        named = (field for field in body.__struct_fields__ if str(error).startswith((field, f"a constraint {field}")))
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error), field=next(named, None)) from None
    status = HTTPStatus.CREATED if change is Change.ADDED else HTTPStatus.OK
    return _json({"id": body.id, "change": change.value}, status)


async def _remove(node: Node, request: Request) -> Response:
    id_ = request.path_params["id"]
    try:
        await node.remove_constraint(id_)
    except KeyError:
        raise _not_active(id_) from None
    return _json({"id": id_})


async def _record(node: Node, request: Request) -> Response:
    body = await read_body(request, Counted)
    for field, count in (("satisfied", body.satisfied), ("violations", body.violations)):
        if count < 0:
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"`{field}`: counts only grow, so it cannot be negative", field=field)
    try:
        await node.record(body.satisfied, body.violations, constraint=body.constraint)
    except KeyError:
        raise _not_active(str(body.constraint), field="constraint") from None
    return _json(body)


async def _check(node: Node, request: Request) -> Response:
    body = await read_body(request, Measured)
    evaluations = [
        {"constraint": each.constraint, "verdict": each.verdict.value, "reason": each.reason}
        for each in await node.check(body.values)
    ]
    return _json({"evaluations": evaluations})


async def _measure(node: Node, request: Request) -> Response:
    body = await read_body(request, Measured)
    await node.measure(body.values)
    return _json({})


async def _batch(node: Node, request: Request) -> Response:
    body = await read_body(request, Batch, MAX_BATCH_BYTES)
    try:
        results = await node.batch(body.taken_apart())
    except BatchError as error:
        place = f"changes[{error.index}].{error.field}"
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"`{place}`: {error}", field=place) from None
    return _json({"results": results})


async def _retire(node: Node, request: Request) -> Response:
    body = await read_body(request, Retiring)
    try:
        report = await node.retire(body.node, dry_run=body.dry_run, force=body.force)
    except KeyError:
        raise Problem(HTTPStatus.NOT_FOUND, f"no node {body.node!r} ever wrote, as far as is known here", field="node") from None
    except WritesRefused:
        raise
    except ConstraintCrdtError as error:
        raise Problem(HTTPStatus.CONFLICT, str(error), field="node") from None
    return _json(report)


def _refused(error: WritesRefused) -> Problem:
    """The disk takes nothing at the moment. The node tries again every second, so asking again is worth it."""
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error), headers={"retry-after": "1"})


def _not_active(id_: str, *, field: str | None = None) -> Problem:
    return Problem(HTTPStatus.NOT_FOUND, f"no constraint {id_!r} is active", field=field)
