"""The body of a request: its bytes within bounds, and its fields decoded.

Rules: a body has a largest size, with or without a `Content-Length`. JSON needs its `Content-Type`: a page of another origin
cannot send that without a preflight request. Unknown fields are refused. A pause of `BODY_PAUSE` seconds ends the request.
Every refusal is a `Problem`: 415 for the content type, 413 for the size, 400 for malformed JSON, 422 for a wrong field.
"""

import asyncio
import enum
import re
from http import HTTPStatus
from typing import Any, TypeVar, get_args, get_type_hints

import msgspec
from starlette.requests import ClientDisconnect, Request

from constraint_crdt.operations.operation import JSON, Problem, not_json, wrong

BODY_PAUSE = 30.0
"""Seconds: the longest pause within a body."""

Body = TypeVar("Body", bound=msgspec.Struct)


async def read_body(request: Request, shape: type[Body], most: int) -> Body:
    """The body as `shape`, of at most `most` bytes. Raises `Problem`."""
    data = await read_raw(request, JSON, most)
    try:
        try:
            return msgspec.json.decode(data, type=shape)
        except msgspec.ValidationError as error:
            if "got `float`" not in str(error):
                raise
            return await asyncio.to_thread(_decode_with_whole_numbers, data, shape)  # a large body takes its time
    except msgspec.ValidationError as error:
        raise _problem(str(error), shape) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise not_json(error) from None


async def read_raw(request: Request, media_type: str, most: int) -> bytes:
    """The bytes of a body with this media type. Raises `Problem` for another media type, and beyond `most` bytes."""
    stated = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if stated != media_type:
        kind = "JSON" if media_type == JSON else "bytes"
        detail = f"send {kind}, with `Content-Type: {media_type}`"
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail)
    return await _read(request, most)


async def _read(request: Request, most: int) -> bytes:
    stated = request.headers.get("content-length", "")
    if stated.isdigit() and int(stated) > most:
        raise _too_large(most)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_PAUSE) as pause:
            async for chunk in request.stream():
                pause.reschedule(asyncio.get_running_loop().time() + BODY_PAUSE)
                body += chunk
                if len(body) > most:
                    raise _too_large(most)
    except TimeoutError:
        detail = f"nothing more of the body came for {BODY_PAUSE:g} s"
        raise Problem(HTTPStatus.REQUEST_TIMEOUT, detail, headers={"connection": "close"}) from None
    except ClientDisconnect:
        raise Problem(HTTPStatus.BAD_REQUEST, "the connection ended before the body did") from None
    return bytes(body)


def _too_large(most: int) -> Problem:
    return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body has more than {most} bytes: send less at once")


def _decode_with_whole_numbers(data: bytes, shape: type[Body]) -> Body:
    """A body decoded with 1.0 as 1: equal in JSON Schema, while msgspec accepts no float for an integer."""
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
_NAME = re.compile(r"[A-Za-z_]\w*")


def _problem(message: str, shape: type[msgspec.Struct]) -> Problem:
    """The problem for an error of msgspec, in a sentence for the client."""
    field: str | None = None
    if found := _AT_FIELD.fullmatch(message):
        message, field = found[1], found[2]
    kinds = _kinds_at(field, shape)
    struct = next((kind for kind in kinds if issubclass(kind, msgspec.Struct)), shape)
    fields = ", ".join(struct.__struct_fields__)
    inside = "" if field is None else f"{field}."
    if found := _UNKNOWN_FIELD.match(message):
        field, message = f"{inside}{found[1]}", f"there is no field `{inside}{found[1]}`: there are {fields}"
    elif found := _MISSING_FIELD.match(message):
        field, message = f"{inside}{found[1]}", f"the field `{inside}{found[1]}` is missing"
    elif field is not None:
        message = f"`{field}`: {message[0].lower()}{message[1:]}"
    else:
        message = f"the body must be an object with {fields}"
    for kind in kinds:
        if issubclass(kind, enum.Enum):
            message += f"; it is one of {', '.join(each.value for each in kind)}"
    return wrong(message, field)


def _kinds_at(field: str | None, shape: type[msgspec.Struct]) -> list[type]:
    """The classes allowed at this place of the body. `field`: names with dots, and indices."""
    kinds: list[type] = [shape]
    for name in _NAME.findall(field or ""):
        struct = next((kind for kind in kinds if issubclass(kind, msgspec.Struct)), None)
        if struct is None:
            return []
        kinds = _classes(get_type_hints(struct).get(name))
    return kinds


def _classes(annotation: Any) -> list[type]:
    """The classes named in an annotation, at any depth."""
    inner = [found for each in get_args(annotation) for found in _classes(each)]
    return inner or ([annotation] if isinstance(annotation, type) else [])
