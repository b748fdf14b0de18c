"""What clients send: the shape of each body, and reading one within bounds.

Rules: at most `MAX_BODY_BYTES` (`MAX_BATCH_BYTES` for a batch), whether or not the client says how many it sends; JSON, and said to
be JSON (a page of another origin cannot say so without being asked first); no field that does not exist; never silent for more than
`BODY_PAUSE` seconds. Everything else is a `Problem`.
"""

import asyncio
import re
from datetime import datetime
from http import HTTPStatus
from typing import Any, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request

from constraint_crdt.http.problems import Problem
from constraint_crdt.runtime.batches import AddConstraint, BatchChange, RecordCounts, RemoveConstraint
from constraint_crdt.types.orset import Severity

MAX_BODY_BYTES = 1024 * 1024
MAX_BATCH_BYTES = 16 * 1024 * 1024
BODY_PAUSE = 30.0
"""Seconds that a body may pause."""


class NewConstraint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/constraints`."""

    id: str
    when: str | None = None
    severity: Severity = Severity.WARNING
    about: str | None = None
    on: dict[str, str] | None = None
    ttl: float | None = None
    """Seconds."""
    until: datetime | None = None


class Counted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/record`."""

    satisfied: int = 0
    violations: int = 0
    constraint: str | None = None


class Given(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/check`: values of any kind; what an expression cannot use makes its constraint unknown."""

    values: dict[str, object]


class Measured(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/measure`."""

    values: dict[str, object]


class Retiring(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/retire`."""

    node: str
    dry_run: bool = False
    force: bool = False


class BatchEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One change of a batch: exactly one of these."""

    add: AddConstraint | None = None
    remove: RemoveConstraint | None = None
    record: RecordCounts | None = None


class Batch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/batch`."""

    changes: list[BatchEntry]

    def taken_apart(self) -> list[BatchChange]:
        """The changes. Raises `Problem` for an entry that is none, or several."""
        found: list[BatchChange] = []
        for index, entry in enumerate(self.changes):
            given = [change for change in (entry.add, entry.remove, entry.record) if change is not None]
            if len(given) != 1:
                place = f"changes[{index}]"
                message = f"`{place}`: a change has exactly one of add, remove, record"
                raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, message, field=place)
            found += given
        return found


Body = TypeVar("Body", bound=msgspec.Struct)

_INNER: dict[str, type[msgspec.Struct]] = {"add": AddConstraint, "remove": RemoveConstraint, "record": RecordCounts}
"""The shape of what stands under a name inside of a body."""


async def read_body(request: Request, shape: type[Body], most: int = MAX_BODY_BYTES) -> Body:
    """The body as `shape`, of at most `most` bytes.

    Raises `Problem`: 415 if it is not JSON, 413 too large, 400 malformed, 422 wrong.
    """
    data = await read_json(request, most)
    try:
        try:
            return msgspec.json.decode(data, type=shape)
        except msgspec.ValidationError as error:
            if "got `float`" not in str(error):
                raise
            return await asyncio.to_thread(_read_with_whole_numbers, data, shape)  # a large body takes its time
    except msgspec.ValidationError as error:
        raise _wrong(str(error), shape) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
        raise Problem(HTTPStatus.BAD_REQUEST, f"the body is not JSON: {reason}") from None


async def read_json(request: Request, most: int) -> bytes:
    """The bytes of a body that is said to be JSON. Raises `Problem`: 415 if it is not, 413 if it has more than `most` bytes."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send JSON, with `Content-Type: application/json`")
    return await _read(request, most)


async def read_bytes(request: Request, most: int) -> bytes:
    """A body that is said to be nothing but bytes. Raises `Problem`: 415 if it is not, 413 if it has more than `most` bytes."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/octet-stream":
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send bytes, with `Content-Type: application/octet-stream`")
    return await _read(request, most)


async def _read(request: Request, most: int) -> bytes:
    too_large = Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body has more than {most} bytes: send less at once")
    stated = request.headers.get("content-length", "")
    if stated.isdigit() and int(stated) > most:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_PAUSE) as pause:
            async for chunk in request.stream():
                pause.reschedule(asyncio.get_running_loop().time() + BODY_PAUSE)
                body += chunk
                if len(body) > most:
                    raise too_large
    except TimeoutError:
        detail = f"nothing more of the body came for {BODY_PAUSE:g} s"
        raise Problem(HTTPStatus.REQUEST_TIMEOUT, detail, headers={"connection": "close"}) from None
    except ClientDisconnect:
        raise Problem(HTTPStatus.BAD_REQUEST, "the connection ended before the body did") from None
    return bytes(body)


def _read_with_whole_numbers(data: bytes, shape: type[Body]) -> Body:
    """A body in which 1.0 may stand for 1: JSON Schema has them the same, and msgspec takes it for no integer."""
    return msgspec.convert(_with_whole_numbers(msgspec.json.decode(data)), shape)


def _with_whole_numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_whole_numbers(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_with_whole_numbers(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


_AT_FIELD = re.compile(r"(.*) - at `\$\.([^`]+)`", re.DOTALL)
_UNKNOWN_FIELD = re.compile(r"Object contains unknown field `(.*?)`", re.DOTALL)
_MISSING_FIELD = re.compile(r"Object missing required field `(.*?)`")


def _wrong(message: str, shape: type[msgspec.Struct]) -> Problem:
    """What msgspec says of a body, for whoever sent it."""
    field: str | None = None
    if found := _AT_FIELD.fullmatch(message):
        message, field = found[1], found[2]
    fields = ", ".join(_shape_at(field, shape).__struct_fields__)
    inside = "" if field is None else f"{field}."
    if found := _UNKNOWN_FIELD.match(message):
        field, message = f"{inside}{found[1]}", f"there is no field `{inside}{found[1]}`: there are {fields}"
    elif found := _MISSING_FIELD.match(message):
        field, message = f"{inside}{found[1]}", f"the field `{inside}{found[1]}` is missing"
    elif field is not None:
        message = f"`{field}`: {message[0].lower()}{message[1:]}"
    else:
        message = f"the body must be an object with {fields}"
    if field is not None and field.rpartition(".")[2] == "severity":
        message += f"; it is one of {', '.join(Severity)}"
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, message, field=field)


def _shape_at(field: str | None, shape: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """What should stand at a place of the body."""
    if field is None:
        return shape
    return _INNER.get(field.rpartition(".")[2], BatchEntry)
