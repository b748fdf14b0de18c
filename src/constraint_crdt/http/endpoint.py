"""A request to an operation: routed by its path, its role checked, decoded into its request struct, run on the node, and the
response encoded.

Paths. An id at the end of a path is matched decoded (`any_text`), slashes included. Where a path has several ids, or more after an
id, each id is a segment of the path as sent, percent-encoded: matched decoded, an encoded slash would be ambiguous, and two
resources could share a path.

Failures. A failure becomes a problem (RFC 9457), which reveals nothing of the inside of the node: an unforeseen exception is
logged, and the client learns only of its occurrence.

Bodies. A body has a largest size, with or without a `Content-Length`. JSON needs its `Content-Type`: a page of another origin
cannot send that without a preflight request. Unknown fields are refused. A pause of `BODY_PAUSE` seconds ends the request. Every
refusal is a `Problem`: 415 for the content type, 413 for the size, 400 for malformed JSON, 422 for a wrong field.

Long lists have links from page to page (RFC 8288).

Cache: `ETag`, `If-None-Match`, and encoded responses, so that frequent polling costs little. A tag covers this start of the node,
the state hash, the version of readings beside the state, the path and query, and for a response with ages the current second. So a
response is never older than the last write, and ages are at most a second old. The cache is bounded. An expensive response is
computed once for all concurrent requests, and such computations leave the node half of its time: requests wait, and are never
served stale data.
"""

import asyncio
import enum
import logging
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from hashlib import blake2b
from http import HTTPStatus
from time import monotonic
from typing import Any, Final, NamedTuple, TypeVar, get_args, get_type_hints
from urllib.parse import quote, unquote, unquote_to_bytes, urlencode

import msgspec
from starlette.convertors import Convertor, register_url_convertor
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from constraint_crdt.errors import (
    ClockInDoubt,
    ConstraintCrdtError,
    ConstraintExists,
    ConstraintInConflict,
    LifecycleError,
    LooseningRefused,
    NoRights,
    NotPermitted,
    WritesRefused,
)
from constraint_crdt.expression import ExpressionError
from constraint_crdt.operations.operation import (
    JSON,
    REASON,
    RIGHT_OF_ROLE,
    AnyOperation,
    Freshness,
    Parameter,
    Problem,
    Reply,
    Right,
    busy,
    not_json,
    wrong,
)
from constraint_crdt.operations.plato import server_path
from constraint_crdt.runtime.change_feed import ACTOR, WHY
from constraint_crdt.runtime.node import Node

GRANTED: Final = "constraint_crdt.session"
"""The key of the `Session` of a request in its scope, set by the guard in front of the application."""

BODY_PAUSE = 30.0
"""Seconds: the longest pause within a body."""

BODY_RATE = 4096
"""Bytes per second of a body, at least: on average, after twice `BODY_PAUSE` seconds."""

NO_STORE: Final[Mapping[str, str]] = {"cache-control": "no-store"}
MOST_ANSWERS = 256
MOST_BYTES = 32 * 1024 * 1024
LARGEST = 8 * 1024 * 1024  # bytes of the largest response in the cache

CHEAP = 0.001  # seconds: a response computed faster is computed for each request

SHARE_OF_LOOP = 1
"""After an expensive response, the pause as a multiple of its time: half of the loop stays free."""

LONGEST_PAUSE = 0.25  # seconds between two of them, at most

_HEADERS = {"cache-control": "private, no-cache"}  # clients revalidate each time

_Asked = tuple[str, bytes]
BodyStruct = TypeVar("BodyStruct", bound=msgspec.Struct)

_log = logging.getLogger("constraint_crdt.api")


class Session(NamedTuple):
    """Who sends a request. `name`: of the token; `local` on a node without tokens."""

    name: str
    right: Right
    ends: int | None  # of the token, in seconds since the epoch
    valid: Callable[[], bool]  # False once the token has ended or is withdrawn


class ProblemDetails(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a request cannot be served (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    """A sentence for the client."""
    field: str | None = None
    """The field of the body, or the parameter, at fault."""
    error: str | None = None
    """The detail again, for clients of PLATO servers."""


def problem_response(problem: Problem, *, as_error: bool = False) -> Response:
    """The response with a problem. `as_error`: with its sentence in `error`, too."""
    # With the type about:blank, RFC 9457 wants the status phrase as the title.
    details = ProblemDetails(
        type="about:blank",
        title=problem.status.phrase,
        status=problem.status.value,
        detail=problem.detail,
        field=problem.field,
        error=problem.detail if as_error else None,
    )
    return Response(
        msgspec.json.encode(details),
        status_code=problem.status.value,
        media_type="application/problem+json",
        headers={**NO_STORE, **problem.headers},
    )


def problem_of(error: Exception, request: Request) -> Problem:
    """The problem reported to the client for a failure."""
    match error:
        case Problem():
            return error
        case ExpressionError():
            return wrong(f"`when`: {error}" if error.field == "when" else str(error), error.field)
        case NotPermitted():
            return Problem(HTTPStatus.FORBIDDEN, str(error))
        case WritesRefused() | LifecycleError():  # the node tries again every second, or stops
            return busy(str(error))
        case ClockInDoubt() | NoRights() | ConstraintExists() | ConstraintInConflict() | LooseningRefused():
            return Problem(HTTPStatus.CONFLICT, str(error), field=error.field)
        case ConstraintCrdtError():
            return wrong(str(error), error.field)
    _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "the node failed at this request; its log says more")


class Endpoint:
    """An operation, prepared for serving."""

    def __init__(self, operation: AnyOperation) -> None:
        self.operation = operation
        self.right = operation.needs
        self._path_fields = operation.path_fields
        self._query = {each.name: each for each in operation.parameters if each.place == "query"}
        self._body_fields = operation.body_fields
        self._headers = {**NO_STORE, **operation.headers}

    async def answer(self, node: Node, request: Request) -> Response:
        """Serve a request. Raises `Problem`, and the errors of the operation."""
        run = self.operation.run
        if run is None:
            raise RuntimeError(f"the server answers {self.operation.name} itself")
        return self.encode(request, await run(node, await self.decode(request)))

    async def decode(self, request: Request) -> Any:
        """The request struct. Raises `Problem` if decoding fails."""
        if self._query or request.scope["query_string"]:
            self._check_parameters(request)
        fields: dict[str, Any] = {name: self._in_path(request, name) for name in self._path_fields}
        for parameter in self.operation.parameters:
            _add_parameter(fields, parameter, request)
        body = self.operation.body
        if body is None:
            return self.operation.request(**fields)
        if body.field is not None:
            fields[body.field] = await read_raw(request, body.media_type, body.limit)
            return self.operation.request(**fields)
        decoded = await read_body(request, body.shape, body.limit)
        if body.shape is self.operation.request:
            return decoded
        return self.operation.request(**fields, **{name: getattr(decoded, name) for name in self._body_fields})

    def _check_parameters(self, request: Request) -> None:
        """Raise `Problem` for an undeclared, missing or repeated parameter."""
        if self.operation.ignores_others:
            return
        known, query = self._query, request.query_params
        for key in query:
            if key not in known:
                there_is = f"there is {', '.join(known)}" if known else "there is none"
                raise wrong(f"there is no parameter `{key}`: {there_is}", key)
            if not known[key].many and len(query.getlist(key)) > 1:
                raise wrong(f"`{key}`: give it once", key)
        for key, parameter in known.items():
            if parameter.required and key not in query:
                raise wrong(f"the parameter `{key}` is missing: {request.url.path}?{key}={key.upper()}", key)

    def _in_path(self, request: Request, name: str) -> str:
        text: str = request.path_params[name]
        if not self.operation.by_segment:
            return text
        try:
            return unquote_to_bytes(text).decode()
        except UnicodeDecodeError:
            raise Problem(HTTPStatus.BAD_REQUEST, f"the path {request.url.path} is not UTF-8") from None

    def encode(self, request: Request, found: object) -> Response:
        """The response with the result of the operation."""
        headers, status = dict(self._headers), HTTPStatus.ACCEPTED if self.operation.accepted else HTTPStatus.OK
        if isinstance(found, Reply):
            if found.created:
                status = HTTPStatus.CREATED
            if found.next_after is not None:
                headers["link"] = _next_link(request, found.next_after)
            found = found.value
        if isinstance(found, bytes | str):
            return Response(found, status, headers, self.operation.media_type)
        if isinstance(found, AsyncIterator):
            return StreamingResponse(found, status, headers, self.operation.media_type)
        return Response(msgspec.json.encode(found), status, headers, JSON)


Cached = Callable[[Endpoint, Request], Awaitable[Response]]
Own = Callable[[Any, Request], Awaitable[Response]]


class Resource:
    """The operations at a path, by method."""

    def __init__(self, node: Node, endpoints: Mapping[str, Endpoint], cached: Cached, own: Mapping[str, Own]) -> None:
        """`cached` answers operations with an `ETag`. `own`: the operations served from the parts of the server, by name."""
        self._node = node
        self._endpoints = endpoints
        self._cached = cached
        self._own = own

    async def serve(self, request: Request) -> Response:
        """Serve a request with a method of this resource. Failures become problems."""
        endpoint = self._endpoints["GET" if request.method == "HEAD" else request.method]
        operation = endpoint.operation
        session: Session = request.scope[GRANTED]
        try:
            self._check_right(session, operation, endpoint.right)
            if operation.freshness is not None:
                return await self._cached(endpoint, request)
            asked = await endpoint.decode(request)
            if operation.right_of is not None:
                self._check_right(session, operation, operation.right_of(asked))
            if operation.run is None:
                return await self._own[operation.name](asked, request)
            if endpoint.right <= Right.READ:
                return endpoint.encode(request, await operation.run(self._node, asked))
            before = ACTOR.set(session.name), WHY.set(unquote(request.headers.get(REASON.name, ""), errors="replace"))
            try:
                return endpoint.encode(request, await operation.run(self._node, asked))
            finally:
                ACTOR.reset(before[0])
                WHY.reset(before[1])
        except Exception as error:
            return problem_response(problem_of(error, request), as_error=operation.problem_as_error)

    def _check_right(self, session: Session, operation: AnyOperation, needed: Right) -> None:
        """Raise `Problem` if the token, or the role of this node in its fleet, does not give this right."""
        if session.right < needed:
            wanted = needed.name.lower()
            detail = f"token {session.name} has the role {session.right.name.lower()}; this needs {wanted}"
            headers = {"www-authenticate": f'Bearer realm="constraint-crdt", error="insufficient_scope", scope="{wanted}"'}
            raise Problem(HTTPStatus.FORBIDDEN, detail, headers=headers)
        role = self._node.certified_role
        if role is not None and RIGHT_OF_ROLE[role] < needed and not operation.own_node:
            which = f"{'an' if role == 'observer' else 'a'} {role}"
            who = "a member or operator node" if needed is Right.MEASURE else "an operator node"
            raise Problem(HTTPStatus.FORBIDDEN, f"this node is {which} of the fleet; ask {who}")


def _add_parameter(fields: dict[str, Any], parameter: Parameter, request: Request) -> None:
    name, target = parameter.name, parameter.field or parameter.name
    if parameter.many:
        fields[target] = tuple(request.query_params.getlist(name))
        return
    text = request.headers.get(name) if parameter.place == "header" else _in_query(parameter, request)
    if text is not None:
        try:
            fields[target] = parameter.parse(text)
        except ValueError as error:
            raise wrong(f"`{name}`{error}", name) from None


def _in_query(parameter: Parameter, request: Request) -> str | None:
    if not parameter.plus_is_plus:
        return request.query_params.get(parameter.name)
    found = None
    for part in request.scope["query_string"].decode("latin-1").split("&"):
        key, _, value = part.partition("=")
        if key == parameter.name:
            found = unquote(value)
    return found


def _next_link(request: Request, last: str) -> str:
    """The link to the page after `last`."""
    kept = [(key, value) for key, value in request.query_params.multi_items() if key != "after"]
    query = urlencode([*kept, ("after", last)], quote_via=quote, safe="")
    return f'<{quote(request.url.path)}?{query}>; rel="next"'


async def read_body(request: Request, shape: type[BodyStruct], most: int) -> BodyStruct:
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
        raise _body_problem(str(error), shape) from None
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
    length = int(stated) if stated.isdigit() else -1
    if length > most:
        raise _too_large(most)
    body = bytearray()
    try:
        now, slow = asyncio.get_running_loop().time, False
        began = now()
        async with asyncio.timeout(BODY_PAUSE) as pause:
            async for chunk in request.stream():
                body += chunk
                if chunk and len(body) == length:
                    continue  # the end follows at once
                paused, least = now() + BODY_PAUSE, began + 2 * BODY_PAUSE + len(body) / BODY_RATE
                slow = least < paused
                pause.reschedule(min(paused, least))
                if len(body) > most:
                    raise _too_large(most)
    except TimeoutError:
        waited = f"nothing more of the body came for {BODY_PAUSE:g} s"
        detail = f"the body came with less than {BODY_RATE} bytes per second" if slow else waited
        raise Problem(HTTPStatus.REQUEST_TIMEOUT, detail, headers={"connection": "close"}) from None
    except ClientDisconnect:
        raise Problem(HTTPStatus.BAD_REQUEST, "the connection ended before the body did") from None
    return bytes(body)


def _too_large(most: int) -> Problem:
    return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body has more than {most} bytes: send less at once")


def _decode_with_whole_numbers(data: bytes, shape: type[BodyStruct]) -> BodyStruct:
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


def _body_problem(message: str, shape: type[msgspec.Struct]) -> Problem:
    """The problem for an error of msgspec, in a sentence for the client."""
    field: str | None = None
    if found := _AT_FIELD.fullmatch(message):
        message, field = found[1], found[2]
    kinds = _kinds_at(field, shape)
    struct = next((kind for kind in kinds if issubclass(kind, msgspec.Struct)), shape)
    fields = ", ".join(struct.__struct_encode_fields__)
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


class AnswerCache:
    """The cached responses of an application."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._kept: OrderedDict[_Asked, tuple[str, Response]] = OrderedDict()
        self._bytes = 0
        self._pending: dict[_Asked, asyncio.Task[Response]] = {}
        self._costly: set[str] = set()
        """The operations with an expensive response so far."""
        self._turn = asyncio.Lock()
        self._free_at = 0.0
        """When the next expensive response may be computed."""

    async def answer(self, endpoint: Endpoint, request: Request) -> Response:
        """The response to a request: computed unless the cache has a valid copy, and sent unless the client has."""
        freshness = endpoint.operation.freshness
        if freshness is None:
            return await endpoint.answer(self._node, request)
        asked: _Asked = (request.scope["path"], request.scope["query_string"])
        tag = self._tag(freshness, asked)
        held = _held(request)
        if tag.removeprefix("W/") in held:  # only a 200 to the same path and query has ever carried this tag
            return _not_modified(tag)
        kept = self._kept.get(asked)
        if kept is not None and kept[0] == tag:
            self._kept.move_to_end(asked)
            response = kept[1]
        else:
            response = await self._made(endpoint, request, asked)
            tag = response.headers["etag"]
        # `*` matches any response, which exists only now: a wrong parameter has none.
        return _not_modified(tag) if held and (held == ["*"] or tag.removeprefix("W/") in held) else response

    async def _made(self, endpoint: Endpoint, request: Request, asked: _Asked) -> Response:
        """The response, computed now or shared with concurrent requests."""
        # Concurrent requests wait for the same computation, which begins after all of them came.
        pending = self._pending.get(asked)
        if pending is None:
            if endpoint.operation.name not in self._costly or (monotonic() >= self._free_at and not self._turn.locked()):
                return await self._compute(endpoint, request, asked)
            pending = self._pending[asked] = asyncio.create_task(self._compute_in_turn(endpoint, request, asked))
        return await asyncio.shield(pending)

    async def _compute_in_turn(self, endpoint: Endpoint, request: Request, asked: _Asked) -> Response:
        try:
            async with self._turn:
                await asyncio.sleep(self._free_at - monotonic())
                return await self._compute(endpoint, request, asked)
        finally:
            del self._pending[asked]

    async def _compute(self, endpoint: Endpoint, request: Request, asked: _Asked) -> Response:
        began, tag = monotonic(), self._tag(endpoint.operation.freshness or Freshness.STATE, asked)
        response = await endpoint.answer(self._node, request)
        took = monotonic() - began
        if took > CHEAP:
            self._costly.add(endpoint.operation.name)
            self._free_at = began + took + min(took * SHARE_OF_LOOP, LONGEST_PAUSE)
        response.headers.update({**_HEADERS, "etag": tag})
        self._keep(asked, tag, response)
        return response

    def _tag(self, freshness: Freshness, asked: _Asked) -> str:
        node = self._node
        version = node.notices.version
        second = int(monotonic()) if freshness in (Freshness.AGING, Freshness.MEASURED_AGING) else 0
        measured = node.notices.measured if freshness in (Freshness.MEASURED, Freshness.MEASURED_AGING) else 0
        goes_by = f"{node.event_stream.log.boot} {version} {second} {measured} {asked[0]}?".encode(errors="surrogatepass")
        digest = blake2b(goes_by + asked[1], key=node.gossip.state_hash, digest_size=12)
        # Weak: equal in meaning, while ages may differ in the last digit.
        return f'W/"{digest.hexdigest()}"'

    def _keep(self, asked: _Asked, tag: str, response: Response) -> None:
        _, before = self._kept.pop(asked, ("", None))
        if before is not None:
            self._bytes -= len(before.body)
        if len(response.body) > LARGEST:
            return
        self._kept[asked] = tag, response
        self._bytes += len(response.body)
        while len(self._kept) > MOST_ANSWERS or self._bytes > MOST_BYTES:
            self._bytes -= len(self._kept.popitem(last=False)[1][1].body)


def _not_modified(tag: str) -> Response:
    return Response(status_code=HTTPStatus.NOT_MODIFIED, headers={**_HEADERS, "etag": tag})


def _held(request: Request) -> list[str]:
    """The tags in `If-None-Match`, for a weak comparison (RFC 9110, 13.1.2)."""
    given = request.headers.get("if-none-match")
    return [] if given is None else [each.strip().removeprefix("W/") for each in given.split(",")]


class PlainRoutes(BaseRoute):
    """The routes of paths without parameters, found by a single look-up."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._by_path = {route.path: route for route in routes}

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """See Starlette."""
        route = self._by_path.get(scope["path"]) if scope["type"] == "http" else None
        return (Match.NONE, {}) if route is None else route.matches(scope)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See Starlette."""
        await self._by_path[scope["path"]].handle(scope, receive, send)


class _AnyText(Convertor[str]):
    """The rest of a path, line ends included, where Starlette's own `path` stops."""

    regex = "(?s:.+)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("any_text", _AnyText())


class SegmentRoute(Route):
    """A route with a segment per parameter, matched and kept percent-encoded."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """See Starlette."""
        if scope["type"] != "http":
            return Match.NONE, {}
        wanted, sent = self.path.split("/"), _sent(scope)
        if len(wanted) != len(sent):
            return Match.NONE, {}
        found = {}
        for each, segment in zip(wanted, sent, strict=True):
            if each.startswith("{"):
                found[each[1:-1]] = segment
            elif each != unquote(segment):
                return Match.NONE, {}
        matched = Match.FULL if scope["method"] in (self.methods or ()) else Match.PARTIAL
        return matched, {"endpoint": self.endpoint, "path_params": found}


def _sent(scope: Mapping[str, Any]) -> list[str]:
    """The segments of a path, as they were sent."""
    path: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    return path.decode("latin-1").split("/")


class PlatoPaths:
    """ASGI middleware, the outermost: a request of the contract of PLATO servers gets its path below `SERVER`.

    So the guard, the routes and the counts behind know such requests by their path alone.
    """

    def __init__(self, app: ASGIApp, *, by_default: bool) -> None:
        """`by_default`: the setting `plato` is `server`."""
        self._app = app
        self._by_default = by_default

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """See ASGI."""
        if scope["type"] == "http" and not scope["path"].startswith(_NEVER_PLATO):
            headers = Headers(scope=scope)
            query = scope["query_string"].decode("latin-1")
            path = server_path(scope["method"], scope["path"], query, headers, by_default=self._by_default)
            if path != scope["path"]:
                scope = {**scope, "path": path, "raw_path": quote(path).encode()}
        return self._app(scope, receive, send)


_NEVER_PLATO: Final = ("/v1/", "/dashboard/", "/docs")


class BelowPath:
    """Serves an application at a path too, where a proxy shows it. The path is taken off requests and put before links."""

    def __init__(self, app: ASGIApp, base: str) -> None:
        """`base`: as in `/crdt`."""
        self._app = app
        self._base = base
        self._link = b"<" + base.encode() + b"/"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"] == self._base:  # the relative links of the page need the last slash
            await RedirectResponse(f"{self._base}/", HTTPStatus.PERMANENT_REDIRECT)(scope, receive, send)
            return

        async def with_links(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [(name, self._led(value) if name.lower() == b"link" else value) for name, value in message["headers"]]
                message = {**message, "headers": headers}
            await send(message)

        if scope["path"].startswith(f"{self._base}/"):
            raw: bytes = scope.get("raw_path") or b""
            base = self._base.encode()
            scope = {**scope, "path": scope["path"].removeprefix(self._base), "raw_path": raw.removeprefix(base)}
        await self._app(scope, receive, with_links)

    def _led(self, link: bytes) -> bytes:
        return self._link + link[2:] if link.startswith(b"</") else link
