"""The HTTP server beside a node, in the same event loop: uvicorn with h11, and bounds of connections.

Rules: the port is bound before the node starts, so a taken port is refused at once, and early connections wait. Signals belong
to the process, not to the server. A stop takes at most 2 s, whatever clients do. Beyond `MOST_CONNECTIONS` a new connection
receives 503 and is closed. Without the head of a request within `HEAD_SECONDS` a connection is aborted; later requests are
bounded by the keep-alive timeout. Bytes other than HTTP receive a problem, too.
"""

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Final

import msgspec
import uvicorn
from starlette.routing import BaseRoute
from starlette.types import Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

from constraint_crdt.errors import ConstraintCrdtError, LifecycleError
from constraint_crdt.http import make_app
from constraint_crdt.http.event_stream import EventFeed
from constraint_crdt.http.security import Tokens, is_loopback
from constraint_crdt.runtime.node import Node

MOST_CONNECTIONS: Final = 2000
HEAD_SECONDS: Final = 15.0


class Connection(H11Protocol):
    """The protocol of a connection."""

    _deadline: asyncio.TimerHandle | None = None

    @property
    def _asked(self) -> bool:
        """True after the head of a request."""
        return bool(self.cycle)  # never None by its type

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as its base does
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            detail = f"{MOST_CONNECTIONS} connections are open: close some, or come back later"
            transport.write(_raw_problem(HTTPStatus.SERVICE_UNAVAILABLE, detail))
            transport.close()
            return
        self._deadline = self.loop.call_later(HEAD_SECONDS, self._cut_off_if_silent)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """The client sent no HTTP."""
        if not self.transport.is_closing():
            self.transport.write(_raw_problem(HTTPStatus.BAD_REQUEST, f"{msg[:1].lower()}{msg[1:].rstrip('.')}"))
            self.transport.close()

    def _cut_off_if_silent(self) -> None:
        if not self._asked:
            self.transport.abort()


def _raw_problem(status: HTTPStatus, detail: str) -> bytes:
    body = msgspec.json.encode({"type": "about:blank", "title": status.phrase, "status": status.value, "detail": detail})
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/problem+json\r\n"
        f"content-length: {len(body)}\r\ncache-control: no-store\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body


BACKLOG = 128
GRACE = 0.5
"""Seconds for open requests at a stop."""
LAST_BOUND: Final = 1.0
"""Seconds after which a stop waits for no request more, not even for one that ignores its cancellation."""
CLOSED_SECONDS: Final = 0.01
"""Seconds between two looks at the open connections, during a stop."""
DATE_SECONDS: Final = 1.0
"""Seconds between two settings of the header `Date`."""


class ApiServer:
    """The API of `node` at `host`:`port`; port 0 takes a free one. Call `start` and `stop`, or use an async context manager."""

    def __init__(
        self,
        node: Node,
        host: str = "127.0.0.1",
        port: int = 8470,
        *,
        pages: Sequence[BaseRoute] = (),
        tokens: Tokens | None = None,
    ) -> None:
        """`pages`: routes beside the API, such as the dashboard. `tokens`: the accepted tokens; None: no token is needed.

        Raises `ConstraintCrdtError` for an address beyond loopback without tokens.
        """
        if tokens is None and not is_loopback(host):
            raise ConstraintCrdtError(
                f"the API at {host}:{port} could be reached from other machines, and would ask for no token: "
                "give --token-file FILE, or a loopback address"
            )
        self._node = node
        self._tokens = tokens
        self._pages = tuple(pages)
        self._host = host
        self._port = port
        self._socket: socket.socket | None = None
        self._server: _Server | None = None
        self._feed: EventFeed | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """The URL of the API, with the real port. Raises `RuntimeError` before `bind`."""
        if self._socket is None:
            raise LifecycleError("the API is not bound to a port: call bind or start first")
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._socket.getsockname()[1]}"

    def bind(self) -> None:
        """Bind the port, without serving yet. Raises `ConstraintCrdtError` if that fails. `start` calls this if needed."""
        if self._socket is None:
            try:
                self._socket = _listen(self._host, self._port)
            except OSError as error:
                raise _cannot_listen(self._host, self._port, error) from None

    async def start(self) -> None:
        """Serve from now on. Raises `ConstraintCrdtError` if the port cannot be bound."""
        self.bind()
        app = make_app(self._node, bound_to=self._host, pages=self._pages, cut_off=self._cut_off, tokens=self._tokens)
        self._feed = app.state.feed
        config = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
        )
        self._server = _Server(config)
        self._serving = asyncio.create_task(self._server.serve([self._socket] if self._socket else None), name="api")
        ready = asyncio.create_task(self._server.ready.wait())
        await asyncio.wait({self._serving, ready}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if self._serving.done():
            await self._serving  # raises its exception

    async def stop(self) -> None:
        """Let open requests end, for half a second; then abort them. Idempotent."""
        server, serving, taken = self._server, self._serving, self._socket
        self._server = self._serving = self._socket = None
        if self._feed is not None:
            self._feed.close()
        if server is not None and serving is not None:
            server.end()
            await asyncio.wait({serving}, timeout=GRACE)
            if not serving.done():
                server.cut_off_all()
            await serving
        if taken is not None:
            taken.close()

    def _cut_off(self, scope: Scope) -> None:
        if self._server is not None:
            self._server.cut_off(scope["client"])

    async def __aenter__(self) -> "ApiServer":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


class _Server(uvicorn.Server):
    """uvicorn's server without signal handlers, with events for its readiness and its end.

    uvicorn looks for its end ten times a second, and waits for another tenth at each stop: `main_loop` and `shutdown` wait for
    the events themselves.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()
        self._end = asyncio.Event()

    def end(self) -> None:
        """Accept no connection more, and end when the open requests are answered."""
        self.should_exit = True
        self._end.set()

    async def main_loop(self) -> None:
        """Keep the header `Date` current until the end."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._end.wait(), DATE_SECONDS)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close idle connections, and wait for the others."""
        for server in self.servers:
            server.close()
        for listening in sockets or ():
            listening.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_BOUND):
                while self.server_state.connections or self.server_state.tasks:  # noqa: ASYNC110  # uvicorn has no event for it
                    await asyncio.sleep(CLOSED_SECONDS)
                for server in self.servers:
                    await server.wait_closed()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    def cut_off(self, client: tuple[str, int]) -> None:
        """End the connection of a client, with a moment to receive the last data."""
        loop = asyncio.get_running_loop()
        for connection in list(self.server_state.connections):
            if isinstance(connection, Connection) and connection.client == client:
                connection.transport.close()
                loop.call_later(GRACE, connection.transport.abort)

    def cut_off_all(self) -> None:
        """Abort all connections: an unfinished request would keep its connection open for ever."""
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()
        for task in list(self.server_state.tasks):
            task.cancel()


def _listen(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    listening = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # on Windows two servers could share the port then
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except BaseException:
        listening.close()
        raise
    return listening


def _cannot_listen(host: str, port: int, error: OSError) -> ConstraintCrdtError:
    where = f"{host}:{port}"
    if error.errno == errno.EADDRINUSE:
        return ConstraintCrdtError(f"cannot serve the API at {where}: the port is taken, so choose another with --api HOST:PORT")
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        why = "this machine has no such address"
    elif error.errno in (errno.EACCES, errno.EPERM):
        why = "that needs more rights than this process has"
    else:
        why = error.strerror or str(error)
    return ConstraintCrdtError(f"cannot serve the API at {where}: {why}, so choose another with --api HOST:PORT")
