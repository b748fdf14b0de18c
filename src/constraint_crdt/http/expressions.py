"""`POST /v1/expressions`: whether a `when` would be taken, for whoever is still typing it. Nothing is changed by asking."""

import asyncio

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from constraint_crdt.expression import ExpressionError, compile_expression
from constraint_crdt.http.bodies import read_body
from constraint_crdt.http.problems import json_answer
from constraint_crdt.runtime.node import Node
from constraint_crdt.runtime.reports import ExpressionReport


class Expression(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/expressions`."""

    when: str


async def check(_: Node, request: Request) -> Response:
    """`POST /v1/expressions`."""
    body = await read_body(request, Expression)
    try:
        found = await asyncio.to_thread(compile_expression, body.when)
    except ExpressionError as error:
        report = ExpressionReport(ok=False, error=str(error), variables=())
    else:
        report = ExpressionReport(ok=True, error=None, variables=tuple(sorted(found.variables)))
    return json_answer(report)
