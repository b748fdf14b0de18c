"""Answers in JSON, and the shape of problems."""

from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from starlette.responses import Response

NO_STORE: Mapping[str, str] = {"cache-control": "no-store"}


class ProblemDetails(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a request cannot be served (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    """One sentence for whoever asked."""
    field: str | None = None
    """The field of the body, or the parameter, that is to blame."""


def json_answer(value: object, status: HTTPStatus = HTTPStatus.OK, headers: Mapping[str, str] = NO_STORE) -> Response:
    """An answer with this value."""
    return Response(msgspec.json.encode(value), status_code=status, media_type="application/json", headers=headers)
