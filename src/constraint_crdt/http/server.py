"""The HTTP server beside a node, in the same event loop: uvicorn with httptools, TLS, and bounds of connections.

Rules: the port is bound before the node starts, so a taken port is refused at once, and early connections wait. Signals belong
to the process, not to the server. A stop takes at most 2 s, whatever clients do. Bytes other than HTTP receive a problem, too.

Connections are accepted here, so that the bounds hold before a TLS handshake: see `ConnectionBounds`. A connection beyond the
bounds is *reserved*: it may ask for the health of the node, and any other request receives 503. So a probe is answered while others
hold all connections.

A connection waits for each head for `HEAD_SECONDS`, idle or dribbling, and for a client that reads nothing for `WRITE_SECONDS`;
then it is aborted. (`endpoint` bounds bodies.)

TLS: version 1.2 or later. A client that speaks plain HTTP to the port receives a problem in plain HTTP.
"""

import asyncio
import contextlib
import errno
import logging
import os
import socket
import ssl
import time
from collections import deque
from collections.abc import Coroutine, Iterator, Sequence, Sized
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Final

import msgspec
import uvicorn
from starlette.routing import BaseRoute
from starlette.types import Scope
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from constraint_crdt.errors import ConstraintCrdtError, InvalidValue, LifecycleError
from constraint_crdt.http import EventFeed, make_app
from constraint_crdt.http.endpoint import BelowPath
from constraint_crdt.http.security import RESERVED, ApiCertificate, ConnectionBounds, Slot, is_loopback
from constraint_crdt.http.tokens import Tokens
from constraint_crdt.model import counted
from constraint_crdt.operations.service import Finding
from constraint_crdt.runtime.node import Node

HEAD_SECONDS: Final = 15.0
"""Seconds to send the head of a request, from the begin of the connection or the end of the response before."""

RESERVED_SECONDS: Final = 5.0
"""The same for a reserved connection."""

HANDSHAKE_SECONDS: Final = 10.0
"""Seconds for the TLS handshake."""

WRITE_SECONDS: Final = 60.0
"""Seconds for which a client may read nothing of a response."""

HEAD_BYTES: Final = 16 * 1024
"""The longest head of a request that comes in parts."""

ACCEPT_PAUSE: Final = 0.2
"""Seconds before the next connection is accepted, after the system had no room for one."""

TLS_RECORD: Final = b"\x16"
"""The first byte of a TLS handshake."""

UNPROTECTED: Final = "tokens and answers travel unprotected to and from the API at {}"
USE_API_TLS: Final = "serve it by TLS (--api-tls), or put a proxy with TLS in front of it"

USE_TLS: Final = "this port speaks TLS: use https:// in place of http://"

_log = logging.getLogger("constraint_crdt.api")


class _Flow(FlowControl):
    """Reads nothing from a client while requests of its pipeline wait, or they would fill the memory."""

    def __init__(self, transport: asyncio.Transport, pipeline: Sized) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        if not self._pipeline:
            super().resume_reading()


class Connection(HttpToolsProtocol):
    """The protocol of a connection."""

    def __init__(self, slot: Slot, config: uvicorn.Config, state: ServerState) -> None:
        super().__init__(config, state, {RESERVED: slot.reserved})
        self._slot = slot
        self._open: deque[RequestResponseCycle] = deque()
        """Requests without a whole response. uvicorn keeps the last of them only."""
        self._head_bytes = 0
        """Bytes of a head, or between the parts of a body, that are not whole."""
        self._patience = RESERVED_SECONDS if slot.reserved else HEAD_SECONDS
        self._waits_since = self.loop.time()
        self._look_again: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as its base does
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        self._slot.end = transport.abort
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        for timer in (self._look_again, self._stalled):
            if timer is not None:
                timer.cancel()
        self._slot.release()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        for cycle in self._open:
            cycle.disconnected = True
            cycle.message_event.set()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > HEAD_BYTES:
            self.send_400_response("the head of a request is too long")

    def on_headers_complete(self) -> None:
        """Begin to answer, or have the request wait for that before it. Raises `InvalidValue` for a head that is not HTTP."""
        self._head_bytes = 0
        version = self.parser.get_http_version()
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (not hosts and version != "1.0"):
            raise InvalidValue("a request names one host")
        if version not in ("1.0", "1.1"):
            raise InvalidValue("neither HTTP/1.0 nor HTTP/1.1")
        self.server_state.default_headers = _date_header(int(time.time()))
        super().on_headers_complete()
        self._open.append(self.cycle)
        self.headers = []  # the trailers of a body are no headers
        if self._slot.reserved or self.parser.should_upgrade():  # to no other protocol: what follows is not read
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """See httptools."""
        self._head_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """A response was sent. Its connection waits for the next request."""
        self._open.popleft()
        self._waits_since = self.loop.time()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """The client sent no HTTP."""
        if not self.transport.is_closing():
            self.transport.write(_raw_problem(HTTPStatus.BAD_REQUEST, f"{msg[:1].lower()}{msg[1:].rstrip('.')}"))
            self.transport.close()

    def pause_writing(self) -> None:
        """The client does not read."""
        super().pause_writing()
        self._stalled = self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads again."""
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection. A client that did not read the last response is not waited for."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def _look(self) -> None:
        """Abort a connection that has waited too long for a head; else look again."""
        left = self._patience if self._open else self._waits_since + self._patience - self.loop.time()
        if left <= 0:
            self.transport.abort()
        else:
            self._look_again = self.loop.call_later(left, self._look)


@lru_cache(maxsize=1)
def _date_header(second: int) -> list[tuple[bytes, bytes]]:
    return [(b"date", formatdate(second, usegmt=True).encode())]


def _raw_problem(status: HTTPStatus, detail: str) -> bytes:
    body = msgspec.json.encode({"type": "about:blank", "title": status.phrase, "status": status.value, "detail": detail})
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/problem+json\r\n"
        f"content-length: {len(body)}\r\ncache-control: no-store\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body


# --- the server -------------------------------------------------------------------------------------------------------------


BACKLOG = 128
GRACE = 0.5
"""Seconds for open requests at a stop."""
LAST_BOUND: Final = 1.0
"""Seconds after which a stop waits for no request more, not even for a request that ignores its cancellation."""
CLOSED_SECONDS: Final = 0.01
"""Seconds between two looks at the open connections, during a stop."""


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
        certificate: ApiCertificate | None = None,
        base_path: str = "",
    ) -> None:
        """`pages`: routes beside the API, such as the dashboard. `tokens`: the accepted tokens; None: no token is needed.
        `certificate`: for TLS; None: plain HTTP. `base_path`: where a proxy shows the API, as in `/crdt/`; paths below it are
        served like those without.

        Raises `InvalidValue` for an address beyond loopback without tokens.
        """
        if tokens is None and not is_loopback(host):
            raise InvalidValue(
                f"the API at {host}:{port} could be reached from other machines, and would ask for no token: "
                "give --token-file FILE, or a loopback address",
                field="api",
            )
        self._node = node
        self.tokens = tokens
        self._certificate = certificate
        self._base_path = base_path.rstrip("/")
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
        scheme = "http" if self._certificate is None else "https"
        return f"{scheme}://{host}:{self._socket.getsockname()[1]}"

    def _findings(self) -> Iterator[Finding]:
        """For the diagnosis: how the API is protected, and whether its files are used."""
        certificate, tokens = self._certificate, self.tokens
        if certificate is None and not is_loopback(self._host):
            yield Finding(check="api", level="warn", what=UNPROTECTED.format(self.url), advice=USE_API_TLS)
        elif certificate is not None and certificate.trouble is not None:
            yield Finding(check="api", level="fail", what=certificate.trouble, advice="mend the files, which are used then")
        elif certificate is not None:
            yield certificate.validity()
        else:
            yield Finding(check="api", level="ok", what=f"{self.url} serves this machine only")
        if tokens is not None and tokens.trouble is not None:
            yield Finding(check="tokens", level="fail", what=tokens.trouble, advice="mend the file, which is used then")
        elif tokens is not None:
            yield Finding(check="tokens", level="ok", what=f"{counted(tokens.count(time.time()), 'token', 'is', 'are')} valid")

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
        app = make_app(self._node, bound_to=self._host, pages=self._pages, cut_off=self._cut_off, tokens=self.tokens)
        self._feed = app.state.feed
        config = uvicorn.Config(
            BelowPath(app, self._base_path) if self._base_path else app,
            http=Connection,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="error",  # what clients do wrong is told to them
            access_log=False,
            server_header=False,
            proxy_headers=False,
        )
        context = None if self._certificate is None else self._certificate.context
        self._server = _Server(config, ConnectionBounds(self._node.settings.api_connections_per_address), context)
        self._node.diagnosis.further.append(self._findings)
        if self._certificate is None and not is_loopback(self._host):
            _log.warning("%s: %s", UNPROTECTED.format(self.url), USE_API_TLS)
        self._serving = asyncio.create_task(self._server.serve(self._socket), name="api")
        ready = asyncio.create_task(self._server.ready.wait())
        await asyncio.wait({self._serving, ready}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if self._serving.done():
            await self._serving  # raises its exception

    async def stop(self) -> None:
        """Let open requests end, for half a second; then abort them. Idempotent."""
        server, serving, taken = self._server, self._serving, self._socket
        with contextlib.suppress(ValueError):
            self._node.diagnosis.further.remove(self._findings)
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


class _Server:
    """Accepts connections for uvicorn, with events for its readiness and its end.

    The server of uvicorn takes the signals of the process, accepts without bounds, and looks for its end ten times a second.
    """

    def __init__(self, config: uvicorn.Config, bounds: ConnectionBounds, context: ssl.SSLContext | None) -> None:
        self._config = config
        self.ready = asyncio.Event()
        self.server_state = ServerState()
        self._bounds = bounds
        self._context = context
        self._opening: set[asyncio.Task[None]] = set()
        self._end = asyncio.Event()

    def end(self) -> None:
        """Accept no connection more, and end when the open requests are answered."""
        self._end.set()

    async def serve(self, listening: socket.socket | None) -> None:
        """Accept connections until the end, then close the idle ones and wait for the others."""
        if listening is not None:
            listening.setblocking(False)
            self._begin(self._accept(listening))
        self.ready.set()
        await self._end.wait()
        opening = list(self._opening)
        for task in opening:
            task.cancel()
        if opening:
            await asyncio.wait(opening, timeout=GRACE)
        if listening is not None:
            listening.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_BOUND):
                while self.server_state.connections or self.server_state.tasks:  # noqa: ASYNC110  # uvicorn has no event for it
                    await asyncio.sleep(CLOSED_SECONDS)

    def _begin(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name="api connection")
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)
        return task

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connected, address = await loop.sock_accept(listening)
            except OSError as error:  # no room for files or memory, or the client is gone
                await asyncio.sleep(ACCEPT_PAUSE if error.errno in _NO_ROOM else 0)
                continue
            slot = self._bounds.take(str(address[0]))
            slot.end = self._begin(self._open(connected, slot)).cancel
            await asyncio.sleep(0)  # a flood of connections leaves time for those that are open

    async def _open(self, connected: socket.socket, slot: Slot) -> None:
        """Make a connection of an accepted socket, by TLS if the API has a certificate."""
        try:
            try:
                speaks = self._context is None or await _speaks_tls(connected)
            except BaseException:
                connected.close()
                raise
            if speaks:
                await self._connect(connected, slot)
                return
            connected.close()
        except (OSError, TimeoutError):  # the handshake failed, or took too long
            pass
        except asyncio.CancelledError:
            slot.release()
            raise
        slot.release()

    async def _connect(self, connected: socket.socket, slot: Slot) -> None:
        """Hand the socket over to asyncio, which closes it from now on."""

        def protocol() -> Connection:
            return Connection(slot, self._config, self.server_state)

        loop = asyncio.get_running_loop()
        if self._context is None:
            await loop.connect_accepted_socket(protocol, connected)
        else:
            await loop.connect_accepted_socket(
                protocol, connected, ssl=self._context,
                ssl_handshake_timeout=HANDSHAKE_SECONDS, ssl_shutdown_timeout=GRACE,
            )  # fmt: skip

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


_NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


async def _speaks_tls(connected: socket.socket) -> bool:
    """True for a client that begins with TLS. Another client is told so in plain HTTP."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(HANDSHAKE_SECONDS):
        readable = loop.create_future()
        loop.add_reader(connected, _done, readable)
        try:
            await readable
        finally:
            loop.remove_reader(connected)
        first = connected.recv(1, socket.MSG_PEEK)
        if first in (TLS_RECORD, b""):
            return bool(first)
        await loop.sock_recv(connected, 65536)  # or the system resets the connection, and the client does not get the answer
        await loop.sock_sendall(connected, _raw_problem(HTTPStatus.BAD_REQUEST, USE_TLS))
        return False


def _done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


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
