"""The routes for answers from evidence: coverage, explain, convergence, diagnosis and alerts, all below `/v1`."""

import asyncio
import re
from http import HTTPStatus

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from constraint_crdt.http.problems import Problem
from constraint_crdt.http.routing import number_in
from constraint_crdt.insight.coverage import LONGEST_WAIT, TooManyWaitingError, Wanted
from constraint_crdt.insight.diagnosis import worst_of
from constraint_crdt.runtime.node import Node

DEFAULT_WAIT = 30.0
"""Seconds that are waited where nothing is said."""

WANTED = "all|live|majority|[1-9][0-9]{0,5}"
"""What `wait` can be, as a regular expression."""


async def coverage(node: Node, request: Request) -> Response:
    """`GET /v1/coverage/{id}`, or without id for all changes of definitions; `?wait=all|live|majority|N&timeout=SECONDS` waits."""
    id_, wanted = request.path_params.get("id"), request.query_params.get("wait")
    timeout = _seconds(request.query_params.get("timeout"))
    try:
        if wanted is None:
            return _json(node.coverage.report(id_))
        return _json(await node.coverage.wait(id_, _wanted(wanted), timeout))
    except KeyError:
        raise _unknown(str(id_)) from None
    except TooManyWaitingError as error:
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error), headers={"retry-after": "1"}) from None


async def explain(node: Node, request: Request) -> Response:
    """`GET /v1/explain/{id}`."""
    id_ = request.path_params["id"]
    try:
        return _json(node.explanations.report(id_))
    except KeyError:
        raise _unknown(id_) from None


async def convergence(node: Node, _: Request) -> Response:
    """`GET /v1/convergence`."""
    return _json(node.convergence.report())


async def diagnosis(node: Node, _: Request) -> Response:
    """`GET /v1/diagnosis`: takes a few seconds where a seed does not answer."""
    diagnosing = node.diagnosis
    outside = await asyncio.to_thread(diagnosing.look_outside)
    report = diagnosing.look()
    findings = (*report.findings, *outside)
    return _json(msgspec.structs.replace(report, findings=findings, worst=worst_of(findings)))


async def alerts(node: Node, _: Request) -> Response:
    """`GET /v1/alerts`."""
    return _json(node.alerts.report())


def _json(report: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(report), media_type="application/json", headers={"cache-control": "no-store"})


def _unknown(id_: str) -> Problem:
    return Problem(HTTPStatus.NOT_FOUND, f"no constraint {id_!r} is active, and no removal of one is remembered here")


def _wanted(text: str) -> Wanted:
    match text:
        case "all" | "live" | "majority":
            return text
        case _ if re.fullmatch(WANTED, text):
            return int(text)
        case _:
            detail = f"`wait`: {text!r} is none of all, live, majority, or a number of nodes from 1"
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, field="wait")


def _seconds(text: str | None) -> float:
    seconds = DEFAULT_WAIT if text is None else number_in(text)
    if seconds is None or not 0.0 <= seconds <= LONGEST_WAIT:
        detail = f"`timeout`: {text!r} is not a number of seconds from 0 to {LONGEST_WAIT:g}"
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, field="timeout")
    return seconds
