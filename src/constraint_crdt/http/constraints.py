"""The operations on constraints, what is counted of them, and batches of both."""

from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response

from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.http.bodies import MAX_BATCH_BYTES, Batch, Counted, Given, Measured, NewConstraint, read_body
from constraint_crdt.http.problems import Problem, json_answer
from constraint_crdt.http.routing import page_of
from constraint_crdt.runtime.batches import BatchError
from constraint_crdt.runtime.node import Node
from constraint_crdt.runtime.reports import Added, Checked, Evaluated, Nothing, Recorded, Removed
from constraint_crdt.store import WritesRefused
from constraint_crdt.types.orset import Change


async def constraints(node: Node, request: Request) -> Response:
    """`GET /v1/constraints?expired=0&after=ID&limit=1000`."""
    wanted = request.query_params.get("expired", "0")
    if wanted not in ("0", "1"):
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"`expired`: 1 or 0, not {wanted!r}", field="expired")
    ids = node.expired_ids() if wanted == "1" else node.constraint_ids()
    page, headers = page_of(request, ids)
    return json_answer(node.expired(page) if wanted == "1" else node.constraints(page), headers=headers)


async def add(node: Node, request: Request) -> Response:
    """`POST /v1/constraints`."""
    body = await read_body(request, NewConstraint)
    try:
        change = await node.add_constraint(
            body.id, when=body.when, severity=body.severity, about=body.about, on=body.on, ttl=body.ttl, until=body.until
        )
    except WritesRefused:
        raise
    except ConstraintCrdtError as error:
        named = (field for field in body.__struct_fields__ if str(error).startswith((field, f"a constraint {field}")))
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error), field=next(named, None)) from None
    status = HTTPStatus.CREATED if change is Change.ADDED else HTTPStatus.OK
    return json_answer(Added(id=body.id, change=change.value), status)


async def remove(node: Node, request: Request) -> Response:
    """`DELETE /v1/constraints/{id}`."""
    id_ = request.path_params["id"]
    try:
        await node.remove_constraint(id_)
    except KeyError:
        raise _not_active(id_) from None
    return json_answer(Removed(id=id_))


async def record(node: Node, request: Request) -> Response:
    """`POST /v1/record`."""
    body = await read_body(request, Counted)
    for field, count in (("satisfied", body.satisfied), ("violations", body.violations)):
        if count < 0:
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"`{field}`: counts only grow, so it cannot be negative", field=field)
    try:
        await node.record(body.satisfied, body.violations, constraint=body.constraint)
    except KeyError:
        raise _not_active(str(body.constraint), field="constraint") from None
    return json_answer(Recorded(satisfied=body.satisfied, violations=body.violations, constraint=body.constraint))


async def check(node: Node, request: Request) -> Response:
    """`POST /v1/check`."""
    body = await read_body(request, Given)
    found = await node.check(body.values)
    evaluations = (Evaluated(constraint=each.constraint, verdict=each.verdict.value, reason=each.reason) for each in found)
    return json_answer(Checked(evaluations=tuple(evaluations)))


async def measure(node: Node, request: Request) -> Response:
    """`POST /v1/measure`."""
    body = await read_body(request, Measured)
    await node.measure(body.values)
    return json_answer(Nothing())


async def batch(node: Node, request: Request) -> Response:
    """`POST /v1/batch`."""
    body = await read_body(request, Batch, MAX_BATCH_BYTES)
    try:
        results = await node.batch(body.taken_apart())
    except BatchError as error:
        place = f"changes[{error.index}].{error.field}"
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"`{place}`: {error}", field=place) from None
    return json_answer({"results": results})


def _not_active(id_: str, *, field: str | None = None) -> Problem:
    return Problem(HTTPStatus.NOT_FOUND, f"no constraint {id_!r} is active", field=field)
