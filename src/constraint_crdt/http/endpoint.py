"""A request to an operation: decoded into its request struct, run on the node, and the response encoded.

Beside that: the links from page to page of long lists (RFC 8288), and two kinds of routes. An id at the end of a path is matched
decoded (`any_text`), slashes included. Where a path has several ids, or more after an id, each id is a segment of the path as sent,
percent-encoded: matched decoded, an encoded slash would be ambiguous, and two resources could share a path.
"""

from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, unquote, unquote_to_bytes, urlencode

import msgspec
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Match, Route
from starlette.types import Scope

from constraint_crdt.http.bodies import read_body, read_raw
from constraint_crdt.http.problems import NO_STORE
from constraint_crdt.operations.operation import JSON, AnyOperation, Parameter, Problem, Reply, wrong
from constraint_crdt.runtime.node import Node


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
        return self._encode(request, await run(node, await self.decode(request)))

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

    def _encode(self, request: Request, found: object) -> Response:
        headers, status = dict(self._headers), HTTPStatus.OK
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
