"""The route for recent evaluations: `GET /v1/rates`."""

from http import HTTPStatus

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.http.problems import Problem, json_answer
from constraint_crdt.http.routing import limit_of, link_headers, number_in
from constraint_crdt.runtime.node import Node


async def rates(node: Node, request: Request) -> Response:
    """`GET /v1/rates?half_life=300&constraint=ID&node=NAME&after=ID&limit=1000`; without `half_life`, the shortest tracked."""
    constraint, name = request.query_params.get("constraint"), request.query_params.get("node")
    if constraint is not None and not node.rates.knows_constraint(constraint):
        detail = f"no constraint {constraint!r} is active, and none of that id was evaluated"
        raise Problem(HTTPStatus.NOT_FOUND, detail, field="constraint")
    if name is not None and not node.rates.knows_node(name):
        raise Problem(HTTPStatus.NOT_FOUND, f"no node {name!r} ever wrote, as far as is known here", field="node")
    half_life = _seconds(request.query_params.get("half_life"))
    try:
        report = node.rates.report(half_life, constraint, name)
    except ConstraintCrdtError as error:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"`half_life`: {error}", field="half_life") from None
    after, limit = request.query_params.get("after"), limit_of(request)
    listed = [each for each in report.constraints if after is None or (each.constraint or "") > after]
    last = listed[limit - 1].constraint or "" if limit < len(listed) else None
    page = msgspec.structs.replace(report, constraints=tuple(listed[:limit]))
    return json_answer(page, headers=link_headers(request, last))


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    seconds = number_in(text)
    if seconds is None:
        detail = f"`half_life`: {text!r} is not a number of seconds"
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, field="half_life")
    return seconds
