"""What clients send: the shape of each body, and reading one within bounds.

Rules: at most `MAX_BODY_BYTES`, whether or not the client says how many it sends; JSON, and said to be JSON (a page of another
origin cannot say so without being asked first); no field that does not exist. Everything else is a `Problem`.
"""

import re
from http import HTTPStatus
from typing import Annotated, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request

from constraint_crdt.api.problems import Problem
from constraint_crdt.types.orset import Severity

MAX_BODY_BYTES = 1024 * 1024

Count = Annotated[int, msgspec.Meta(ge=0)]


class NewConstraint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/constraints`."""

    id: str
    when: str | None = None
    severity: Severity = Severity.WARNING
    about: str | None = None


class Counted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/record`."""

    satisfied: Count = 0
    violations: Count = 0
    constraint: str | None = None


class Measured(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/check` and `POST /v1/measure`."""

    values: dict[str, object]


Body = TypeVar("Body", NewConstraint, Counted, Measured)


async def read_body(request: Request, shape: type[Body]) -> Body:
    """The body as `shape`. Raises `Problem`: 415 if it is not JSON, 413 too large, 400 malformed, 422 wrong."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send JSON, with `Content-Type: application/json`")
    try:
        return msgspec.json.decode(await _read(request), type=shape)
    except msgspec.ValidationError as error:
        raise _wrong(str(error), shape) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
        raise Problem(HTTPStatus.BAD_REQUEST, f"the body is not JSON: {reason}") from None


async def _read(request: Request) -> bytes:
    too_large = Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body has more than {MAX_BODY_BYTES} bytes: send less at once")
    stated = request.headers.get("content-length", "")
    if stated.isdigit() and int(stated) > MAX_BODY_BYTES:
        raise too_large
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise too_large
    except ClientDisconnect:
        raise Problem(HTTPStatus.BAD_REQUEST, "the connection ended before the body did") from None
    return bytes(body)


_UNKNOWN_FIELD = re.compile(r"Object contains unknown field `(.*?)`")
_MISSING_FIELD = re.compile(r"Object missing required field `(.*?)`")
_AT_FIELD = re.compile(r"(.*) - at `\$\.(\w+).*`", re.DOTALL)


def _wrong(message: str, shape: type[msgspec.Struct]) -> Problem:
    """What msgspec says of a body, for whoever sent it."""
    fields = shape.__struct_fields__
    field: str | None = None
    if found := _UNKNOWN_FIELD.match(message):
        field, message = found[1], f"there is no field `{found[1]}`: there are {', '.join(fields)}"
    elif found := _MISSING_FIELD.match(message):
        field, message = found[1], f"the field `{found[1]}` is missing"
    elif found := _AT_FIELD.fullmatch(message):
        field, message = found[2], f"`{found[2]}`: {found[1][0].lower()}{found[1][1:]}"
    else:
        message = f"the body must be an object with {', '.join(fields)}"
    if field == "severity":
        message += f"; it is one of {', '.join(Severity)}"
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, message, field=field)
