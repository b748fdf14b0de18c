"""Problem details after RFC 9457, for requests that cannot be served. They reveal nothing of the inside of the node."""

from collections.abc import Mapping

import msgspec
from starlette.responses import Response

from constraint_crdt.operations.operation import Problem

NO_STORE: Mapping[str, str] = {"cache-control": "no-store"}


class ProblemDetails(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a request cannot be served (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    """A sentence for the client."""
    field: str | None = None
    """The field of the body, or the parameter, at fault."""


def problem_response(problem: Problem) -> Response:
    """The response with a problem."""
    # With the type about:blank, RFC 9457 wants the status phrase as the title.
    details = ProblemDetails(
        type="about:blank",
        title=problem.status.phrase,
        status=problem.status.value,
        detail=problem.detail,
        field=problem.field,
    )
    return Response(
        msgspec.json.encode(details),
        status_code=problem.status.value,
        media_type="application/problem+json",
        headers={**NO_STORE, **problem.headers},
    )
