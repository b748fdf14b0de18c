"""Answers in JSON, and the shape of problems.

What the API answers when it cannot do what was asked: problem details after RFC 9457, and nothing of the inside of the node.
"""

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


class Problem(Exception):
    """A request that cannot be served. `str()` is one sentence for the person who sent it."""

    def __init__(self, status: HTTPStatus, detail: str, *, field: str | None = None, headers: dict[str, str] | None = None) -> None:
        """`field`: the field of the body that is to blame, where there is one."""
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.field = field
        self.headers = headers or {}

    def response(self) -> Response:
        """The answer to send."""
        # With the type about:blank, RFC 9457 wants the status phrase as the title.
        body: dict[str, object] = {
            "type": "about:blank",
            "title": self.status.phrase,
            "status": self.status.value,
            "detail": self.detail,
        }
        if self.field is not None:
            body["field"] = self.field
        return Response(
            msgspec.json.encode(body),
            status_code=self.status.value,
            media_type="application/problem+json",
            headers={"cache-control": "no-store", **self.headers},
        )
