"""`mcp`: tools for agents by the Model Context Protocol, on stdio or as streamable HTTP, each answered by a node.

The tools ask before acting, read and change constraints, hold budgets, and share tiles. On stdio the node is asked with the token
of the command. By HTTP each request is passed on with its own bearer token, so the rights of a client are those of its token;
without a token file of the node none is needed. A node with the setting `mcp` serves them itself, at `/mcp` of its API. The
descriptions are written for a language model: the effect of a tool, when to call it, the meaning of its answer. Rules:

- A tool calls a single operation of a node, with the rights of the token. A refusal is an error result with the node's sentence.
- Answers are the reports of the API. Lists are cut at `MOST_LISTED`, and say so.
- `check_action` counts nothing and changes nothing.
- At `/mcp` of a node the request of a client, and each request that a tool makes of the API, pass the guard of the API: its rate,
  its hosts and origins, its tokens. The requests of tools need no connection.

The SDK (`mcp`, the extra `mcp`) is imported at first use.
"""

import argparse
import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import unquote

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.routing import Route

from constraint_crdt import __version__
from constraint_crdt.cli.connection import make_client
from constraint_crdt.cli.output import CommandFailedError, MisuseError
from constraint_crdt.client import (
    ClientError,
    Heard,
    RawResponse,
    StreamReader,
    check_answer,
    encode_request,
    events_target,
    joined,
    next_page,
    read_address,
    read_response,
)
from constraint_crdt.client.blocking import AsyncClient
from constraint_crdt.client.methods import AsyncMethods
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.http.endpoint import problem_response, read_raw
from constraint_crdt.operations.operation import JSON, MAX_BODY_BYTES, REASON, Operation, Problem
from constraint_crdt.runtime.settings import is_loopback, parse_address

if TYPE_CHECKING:
    from mcp.server import MCPServer

Request = TypeVar("Request", bound=msgspec.Struct)
Response = TypeVar("Response")
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]


def mcp(arguments: argparse.Namespace) -> int:
    """Serve the tools until the client goes away, or until Ctrl-C."""
    if arguments.http is None:
        asyncio.run(_serve_stdio(make_client(arguments, AsyncClient)))
    else:
        _serve_http(arguments.http, make_client(arguments, _ByToken))
    return 0


async def _serve_stdio(client: AsyncClient) -> None:
    async with client:
        await make_server(client).run_stdio_async()


def _serve_http(where: str, client: "_ByToken") -> None:
    import uvicorn

    host, port = parse_address(where)
    if not is_loopback(f"tcp/{where}"):
        raise MisuseError(
            f"--http {where} could be reached from other machines without TLS: give a loopback address, and a proxy before it"
        )
    server = make_server(client)
    app = with_token(server.streamable_http_app(stateless_http=True, json_response=True, host=host))
    config = uvicorn.Config(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=2)
    try:
        uvicorn.Server(config).run()
    except OSError as error:
        raise CommandFailedError(f"cannot serve at {where}: {error.strerror or error}") from None


_TOKEN: ContextVar[str | None] = ContextVar("token", default=None)
"""The bearer token of the present request."""


def with_token(app: Asgi) -> Asgi:
    """An application that keeps the bearer token of each request for the calls to the node."""

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            given = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
            kind, _, token = given.partition(" ")
            _TOKEN.set(token.strip() if kind.lower() == "bearer" and token.strip() else None)
        await app(scope, receive, send)

    return run


class _ByToken(AsyncMethods):
    """Asks the node with the token of the present request."""

    def __init__(self, node: str, *, token: str | None, ca: str | None) -> None:
        """Raises as `AsyncClient` does. `token`: of the command, refused if it is wrong, and never sent."""
        AsyncClient(node, token=token, ca=ca).close()
        self._node, self._ca = node, ca

    async def do(self, operation: Operation[Request, Response], request: Request) -> Response:
        """Call an operation. Raises `ClientError`."""
        async with AsyncClient(self._node, token=_TOKEN.get(), ca=self._ca) as client:
            return await client.do(operation, request)


# --- at the API of a node ---------------------------------------------------------------------------------------------------


_CALLER: ContextVar[Scope] = ContextVar("caller")
"""The present request of a client at the API of a node."""

_PASSED_ON: Final = frozenset({b"host", b"authorization", REASON.name.lower().encode()})
"""The headers of a client's request that go with the requests of its tools."""


class McpTools:
    """The tools at `/mcp` of the API of a node: a page for `ApiServer`."""

    def __init__(self) -> None:
        """Raises `SdkUnavailable` without the SDK."""
        from starlette.applications import Starlette

        self._server = make_server(_WithinNode())
        self._app: Starlette | None = None
        self.route = Route("/mcp", self, methods=["POST"])

    @asynccontextmanager
    async def served(self) -> AsyncIterator[None]:
        """Answer requests within the block; refuse them before and after."""
        app = self._server.streamable_http_app(
            stateless_http=True, json_response=True, host=""
        )  # the guard of the API checks hosts
        async with app.router.lifespan_context(app):
            self._app = app
            try:
                yield
            finally:
                self._app = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, as an application of ASGI."""
        app = self._app
        if app is None:
            problem = Problem(HTTPStatus.SERVICE_UNAVAILABLE, "the node starts or stops: ask again")
            await problem_response(problem)(scope, receive, send)
            return
        try:
            body = await read_raw(HttpRequest(scope, receive), JSON, MAX_BODY_BYTES)
        except Problem as problem:
            await problem_response(problem)(scope, receive, send)
            return
        _CALLER.set(scope)
        await app(_fresh(scope), _received(body, receive), send)


def _fresh(scope: Scope) -> Scope:
    """A scope of a request without the additions of an application."""
    added = ("app", "router", "endpoint", "path_params", "starlette.exception_handlers")
    return {key: value for key, value in scope.items() if key not in added}


def _received(body: bytes, receive: Receive | None = None) -> Receive:
    """A request's body as a whole, and then the end of the connection; without `receive` none comes."""
    parts = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_part() -> object:
        if parts:
            return parts.pop()
        return await (asyncio.get_running_loop().create_future() if receive is None else receive())

    return next_part


class _WithinNode(AsyncMethods):
    """Asks the application of the API that the present request came to, with the token of that request."""

    def __init__(self) -> None:
        self._address = read_address("127.0.0.1:1")  # names the node in errors that cannot be

    async def do(self, operation: Operation[Request, Response], request: Request) -> Response:
        """Call an operation. Raises `ClientError`."""
        sent = encode_request(operation, request)
        pages: list[Response] = []
        path: str | None = sent.path
        while path is not None:
            answered = await self._ask(sent.method, path, sent.body, sent.media_type)
            pages.append(read_response(operation, answered, self._address))
            path = next_page(answered, self._address) if operation.join is not None else None
        return joined(operation, pages)

    async def events(self, *, last: int, follow: bool) -> AsyncIterator[Heard]:
        """The last events."""
        answered = await self._ask("GET", events_target(last, (), follow=follow), None, JSON)
        check_answer(answered, self._address)
        for heard in StreamReader().feed(answered.content):
            yield heard

    async def _ask(self, method: str, target: str, body: bytes | None, media_type: str) -> RawResponse:
        caller = _CALLER.get()
        path, _, query = target.partition("?")
        headers = [(name, value) for name, value in caller["headers"] if name in _PASSED_ON]
        if body is not None:
            headers += [(b"content-type", media_type.encode()), (b"content-length", str(len(body)).encode())]
        asked = {
            **_fresh(caller), "method": method, "path": unquote(path), "raw_path": path.encode(), "query_string": query.encode(),
            "headers": headers,
        }  # fmt: skip
        status, got, content = HTTPStatus.OK.value, dict[str, str](), bytearray()

        async def send(message: Any) -> None:
            nonlocal status, got
            if message["type"] == "http.response.start":
                status = message["status"]
                got = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in message["headers"]}
            else:
                content.extend(message.get("body", b""))

        await caller["app"](asked, _received(body or b""), send)
        return RawResponse(status, got, bytes(content))


# --- tools ------------------------------------------------------------------------------------------------------------------


MOST_LISTED: Final = 200
"""Constraints, nodes, tiles or events in an answer. An answer is read by a model, which pays for each word."""

INSTRUCTIONS: Final = """\
A fleet of machines shares one set of constraints, such as `speed_mps <= 1.5`. Before an action that changes something in the world,
call check_action with the values that the action would bring about, and do not act if `allowed` is false: tell the reason
instead, with the constraint and its margin. `undecided` lists constraints that cannot be decided because a value is missing: give
that value, or say that it is not known. For work that only a limited number may do at a time, call acquire_budget first and
release_budget after it.
"""

Value = bool | float | str
"""A value of a variable."""


class SdkUnavailable(ConstraintCrdtError):
    """The SDK is not installed."""


def make_server(node: AsyncMethods) -> "MCPServer[Any]":
    """A server whose tools ask this node. Raises `SdkUnavailable` without the SDK."""
    try:
        from mcp.server import MCPServer
        from mcp.server.mcpserver.exceptions import ToolError
        from mcp.types import ToolAnnotations
    except ImportError:
        raise SdkUnavailable(
            "tools for agents need the SDK of the Model Context Protocol: `pip install 'constraint-crdt[mcp]'`"
        ) from None
    server: MCPServer[Any] = MCPServer(
        "constraint-crdt", title="Constraints of a fleet", instructions=INSTRUCTIONS, version=__version__, log_level="WARNING"
    )
    tools, reads = _Tools(node), ToolAnnotations(read_only_hint=True)
    readers: list[_Tool] = [
        tools.check_action, tools.list_constraints, tools.explain_constraint, tools.list_budgets, tools.list_tiles, tools.read_tile,
        tools.fleet_status,
    ]  # fmt: skip
    for tool in readers:
        server.tool(annotations=reads)(_telling(tool, ToolError))
    writers: list[_Tool] = [
        tools.measure, tools.add_constraint, tools.acquire_budget, tools.renew_budget, tools.release_budget, tools.write_tile,
    ]  # fmt: skip
    for tool in writers:
        server.tool()(_telling(tool, ToolError))
    server.resource(
        "constraint-crdt://constraints", title="The active constraints", mime_type="application/json",
        description="All active constraints with their state on this node.",
    )(tools.constraints_resource)  # fmt: skip
    server.resource(
        "constraint-crdt://fleet", title="The fleet", mime_type="application/json",
        description="The nodes of the fleet, and how this node stands to them.",
    )(tools.fleet_resource)  # fmt: skip
    server.resource(
        "constraint-crdt://events", title="Recent events", mime_type="application/json",
        description="What happened of late: constraints added, changed, violated, nodes come and gone.",
    )(tools.events_resource)  # fmt: skip
    return server


_Tool = Callable[..., Awaitable[Any]]


def _telling(tool: _Tool, as_told: type[Exception]) -> _Tool:
    """A tool whose refusals are told to the model: the SDK hides the text of other errors."""

    @functools.wraps(tool)
    async def run(*arguments: Any, **named: Any) -> Any:
        try:
            return await tool(*arguments, **named)
        except ConstraintCrdtError as error:
            raise as_told(str(error)) from None

    return run


def _plain(report: object) -> Any:
    """A report as JSON values, without empty values."""
    return _without_empty(msgspec.to_builtins(report))


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_empty(each) for key, each in value.items() if each not in (None, "", [], {}, ())}
    return [_without_empty(each) for each in value] if isinstance(value, list | tuple) else value


def _listed(found: list[Any], what: str) -> dict[str, Any]:
    """A list for an answer, cut at its limit."""
    shown = {what: [_plain(each) for each in found[:MOST_LISTED]], "total": len(found)}
    return shown if len(found) <= MOST_LISTED else {**shown, "cut": f"only the first {MOST_LISTED} are shown"}


class _Tools:
    """The tools. Their names, parameters and docstrings are shown to a model."""

    def __init__(self, node: AsyncMethods) -> None:
        self._node = node

    async def check_action(self, values: Mapping[str, Value]) -> dict[str, Any]:
        """Ask whether an intended action is allowed by the constraints, before doing it. Nothing is counted, changed or started.

        values: the variables as the action would make them, for example {"speed_mps": 1.2, "gripper": "open"}. Other variables are
        taken as the node measures them now. The answer has `allowed`; `violated`: each constraint that would be violated, with
        `margin`, the signed distance to its limit (negative: by how much it is broken); `undecided`: constraints that cannot be
        decided, with the `missing` variables. If `allowed` is false, do not act. If
        something is undecided, find out the missing value first.
        """
        return dict(_plain(await self._node.decide(values)))

    async def list_constraints(self, pattern: str = "*") -> dict[str, Any]:
        """List the active constraints: id, expression (`when`, CEL), severity, why it exists (`about`), and its state on this node.

        pattern: an id, or a pattern such as thermal*. State is holds, pending, violated, clearing, unknown, or off.
        """
        found = await self._node.constraints() if pattern == "*" else await self._node.constraints(id_=(pattern,))
        kept = ("id", "when", "severity", "about", "on", "mode", "state", "reason", "values", "margin", "violated_now")
        rows = [{key: value for key, value in _plain(each).items() if key in kept} for each in found]
        return _listed(rows, "constraints")

    async def explain_constraint(self, id: str) -> dict[str, Any]:  # noqa: A002 - the name that a model sees
        """Explain a constraint: who added it and when, where it is violated, since when, by which values, who has not heard."""
        return dict(_plain(await self._node.explain(id)))

    async def add_constraint(
        self,
        id: str,  # noqa: A002 - the name that a model sees
        when: str,
        about: str,
        severity: str = "warning",
        ttl_seconds: float | None = None,
    ) -> dict[str, Any]:
        """Add a constraint for the whole fleet. It is enforced on every node that it applies to, at once, so be sure.

        when: a CEL expression that must hold, for example "speed_mps <= 0.5". about: why, for people. severity: info, warning or
        critical. ttl_seconds: how long it lasts; prefer an end where the reason has an end. An id that exists is refused.
        """
        with suppress(ClientError):
            if await self._node.constraints(id_=(id,)):
                raise ConstraintCrdtError(f"a constraint {id!r} is active already: choose another id, or ask a person to change it")
        return dict(_plain(await self._node.add(id, when=when, about=about, severity=severity, ttl=ttl_seconds)))

    async def measure(self, values: Mapping[str, Value]) -> str:
        """Report values as measured now on this machine; constraints are judged by them. Only for really measured values."""
        await self._node.measure(values)
        return "taken in"

    async def list_budgets(self) -> dict[str, Any]:
        """List the budgets, limits on how many may do something at once: limit, who holds, how much is free here and elsewhere."""
        return _listed(await self._node.budgets(), "budgets")

    async def acquire_budget(self, name: str, amount: int = 1, wait_seconds: float = 0.0, holder: str = "agent") -> dict[str, Any]:
        """Hold an amount of a budget before the work that it limits. The answer has `hold`, to renew or release it, and `ttl`.

        It is refused with the reason if nothing is free, after waiting wait_seconds (60 at most). The hold ends by itself after
        `ttl` seconds: renew it in time, or stop the work. Release it when the work is done.
        """
        return dict(_plain(await self._node.acquire(name, amount, wait=wait_seconds, holder=holder)))

    async def renew_budget(self, name: str, hold: str) -> dict[str, Any]:
        """Keep a hold of a budget for another lease. hold: as acquire_budget gave it."""
        return dict(_plain(await self._node.renew_hold(name, hold)))

    async def release_budget(self, name: str, hold: str) -> dict[str, Any]:
        """Give a hold of a budget back, so that others can go on. hold: as acquire_budget gave it."""
        return dict(_plain(await self._node.release_hold(name, hold)))

    async def list_tiles(self, room: str | None = None) -> dict[str, Any]:
        """List the tiles, pieces of text that the whole fleet shares, by room and id, without their contents."""
        return _listed(await self._node.tiles(room), "tiles")

    async def read_tile(self, room: str, id: str) -> dict[str, Any]:  # noqa: A002 - as above
        """Read a tile: a piece of text that the whole fleet shares."""
        return dict(_plain(await self._node.tile(room, id)))

    async def write_tile(self, room: str, id: str, text: str) -> dict[str, Any]:  # noqa: A002 - as above
        """Write a tile, in place of a former text: the whole fleet sees it, nodes that are cut off once they are back."""
        return dict(_plain(await self._node.put_tile(room, id, text)))

    async def fleet_status(self) -> dict[str, Any]:
        """Tell how this node and its fleet are doing: live nodes, agreement, the worst violations now."""
        return dict(_plain(await self._node.status()))

    # --- resources ---------------------------------------------------------------------------------------------------------

    async def constraints_resource(self) -> str:
        """The active constraints as JSON."""
        return _json(await self.list_constraints())

    async def fleet_resource(self) -> str:
        """The nodes of the fleet as JSON."""
        return _json(_listed(await self._node.nodes(), "nodes"))

    async def events_resource(self) -> str:
        """The last events as JSON."""
        events = getattr(self._node, "events", None)
        heard = [] if events is None else [each.event async for each in events(last=MOST_LISTED, follow=False)]
        return _json(_listed(heard, "events"))


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
