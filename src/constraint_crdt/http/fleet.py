"""The operations on the node itself and on the other nodes of its fleet."""

from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response

from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.http.bodies import Retiring, read_body
from constraint_crdt.http.problems import Problem, json_answer
from constraint_crdt.http.routing import page_of
from constraint_crdt.runtime.node import Node
from constraint_crdt.runtime.reports import Health
from constraint_crdt.store import WritesRefused


async def status(node: Node, _: Request) -> Response:
    """`GET /v1/status`."""
    return json_answer(node.status())


async def nodes(node: Node, request: Request) -> Response:
    """`GET /v1/nodes?after=NAME&limit=1000`."""
    page, headers = page_of(request, node.node_names())
    return json_answer(node.nodes(page), headers=headers)


async def storage(node: Node, _: Request) -> Response:
    """`GET /v1/storage`."""
    return json_answer(node.storage())


async def identity(node: Node, _: Request) -> Response:
    """`GET /v1/identity`."""
    return json_answer(node.identity())


async def retire(node: Node, request: Request) -> Response:
    """`POST /v1/retire`."""
    body = await read_body(request, Retiring)
    try:
        report = await node.retire(body.node, dry_run=body.dry_run, force=body.force)
    except KeyError:
        raise Problem(HTTPStatus.NOT_FOUND, f"no node {body.node!r} ever wrote, as far as is known here", field="node") from None
    except WritesRefused:
        raise
    except ConstraintCrdtError as error:
        raise Problem(HTTPStatus.CONFLICT, str(error), field="node") from None
    return json_answer(report)


async def alive(_: Node, __: Request) -> Response:
    """`GET /healthz`: the node's event loop turns."""
    return json_answer(Health(ok=True))


async def ready(node: Node, _: Request) -> Response:
    """`GET /readyz`: it takes part, and takes writes."""
    trouble = node.not_ready()
    if trouble is not None:
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, trouble, headers={"retry-after": "1"})
    return json_answer(Health(ok=True))
