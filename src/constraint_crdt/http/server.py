"""The HTTP server beside a node, in the same event loop: HTTP/1.1 with the parser of httptools, TLS, and bounds of connections.

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
import re
import socket
import ssl
import time
from collections import deque
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import cache, lru_cache
from http import HTTPStatus
from typing import Any, Final, cast
from urllib.parse import unquote

import httptools
import msgspec
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Scope

from constraint_crdt.errors import ConstraintCrdtError, InvalidValue, LifecycleError
from constraint_crdt.http import make_app
from constraint_crdt.http.event_stream import EventFeed
from constraint_crdt.http.security import RESERVED, ApiCertificate, ConnectionBounds, Slot, is_loopback
from constraint_crdt.http.tokens import Tokens
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

KEEP_ALIVE_SECONDS: Final = 5.0
"""Seconds for which a connection without a request is kept."""

HEAD_BYTES: Final = 16 * 1024
"""The longest head of a request that comes in parts."""

BODY_BUFFER: Final = 65_536
"""Bytes of a body that wait for the application before no more are read."""

ACCEPT_PAUSE: Final = 0.2
"""Seconds before the next connection is accepted, after the system had no room for one."""

TLS_RECORD: Final = b"\x16"
"""The first byte of a TLS handshake."""

UNPROTECTED: Final = "tokens and answers travel unprotected to and from the API at {}"
USE_API_TLS: Final = "serve it by TLS (--api-tls), or put a proxy with TLS in front of it"

USE_TLS: Final = "this port speaks TLS: use https:// in place of http://"

_log = logging.getLogger("constraint_crdt.api")


class _Answer:
    """A request and its response, as an ASGI application takes and gives them."""

    def __init__(self, connection: "Connection", scope: dict[str, Any], *, keep_alive: bool, asks_to_go_on: bool) -> None:
        self._connection = connection
        self._scope = scope
        self._asks_to_go_on = asks_to_go_on
        """The client waits for a 100 before it sends the body."""
        self._started = False
        self._head = b""
        """The head that was not sent yet: it travels with the first part of the body."""
        self._chunked: bool | None = None
        self._left = 0
        """Bytes of the body that are announced and not sent."""
        self.keep_alive = keep_alive
        self.body = bytearray()
        self.more_body = True
        self.moved = asyncio.Event()
        """More of the body came, or the request is over."""
        self.disconnected = False
        self.complete = False

    async def run(self, app: ASGIApp) -> None:
        """Have the application answer."""
        try:
            await app(self._scope, self._receive, self._send)
        except Exception:
            _log.exception("a fault in the answer to %s %s", self._scope["method"], self._scope["path"])
        else:
            if self.complete or self.disconnected:
                return
            _log.error("the answer to %s %s is not whole", self._scope["method"], self._scope["path"])
        if self._started:
            self._connection.transport.close()
        elif not self.disconnected:
            self.keep_alive = False
            self._connection.transport.write(_raw_problem(HTTPStatus.INTERNAL_SERVER_ERROR, "a fault in this node: see its log"))
            self._finish()

    async def _receive(self) -> Message:
        connection = self._connection
        if self._asks_to_go_on and not connection.transport.is_closing():
            self._asks_to_go_on = False
            connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not self.disconnected and not self.complete:
            if self.more_body and not self.body:
                connection.read_on()
            await self.moved.wait()
            self.moved.clear()
        if self.disconnected or self.complete:
            return {"type": "http.disconnect"}
        body, self.body = bytes(self.body), bytearray()
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def _send(self, message: Message) -> None:
        if not self.disconnected:
            await self._connection.writable.wait()
        if self.disconnected:
            return
        if not self._started:
            self._started = True
            self._begin(message["status"], message.get("headers", ()))
        elif not self.complete:
            self._put(message.get("body", b""), more=message.get("more_body", False))

    def _begin(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Send the head of the response."""
        self._asks_to_go_on = False
        lines, closes = [_status_line(status), _date_line(int(time.time()))], False
        for name, value in headers:
            if _NOT_IN_HEADER.search(value):
                raise InvalidValue(f"a header {name!r} with control characters")
            lower = name.lower()
            if lower == b"content-length":
                self._left, self._chunked = int(value), False
            elif lower == b"transfer-encoding":
                self._chunked = True
            elif lower == b"connection":
                closes = b"close" in value.lower()
            lines.append(b"%b: %b\r\n" % (lower, value))
        if closes or not self.keep_alive:
            self.keep_alive = False
            if not closes:
                lines.append(b"connection: close\r\n")
        if self._chunked is None and self._has_body(status):
            self._chunked = True
            if self._scope["http_version"] == "1.0":  # the end of the connection is that of the body
                self.keep_alive = False
            else:
                lines.append(b"transfer-encoding: chunked\r\n")
        lines.append(b"\r\n")
        self._head = b"".join(lines)
        asyncio.get_running_loop().call_soon(self._send_head)

    def _send_head(self) -> None:
        """Send the head by itself, as the body does not come at once."""
        head, self._head = self._head, b""
        if head and not self.disconnected:
            self._connection.transport.write(head)

    def _has_body(self, status: int) -> bool:
        return self._scope["method"] != "HEAD" and status not in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)

    def _put(self, body: bytes, *, more: bool) -> None:
        """Send a part of the body, with the head before it."""
        head, self._head = self._head, b""
        if self._scope["method"] == "HEAD":
            body, self._left = b"", 0
        elif self._chunked and self._scope["http_version"] != "1.0":
            body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + (b"" if more else b"0\r\n\r\n")
        elif self._chunked is False:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                raise InvalidValue("the body of a response differs from its length")
        if head or body:
            self._connection.transport.write(head + body)
        if not more:
            self._finish()

    def _finish(self) -> None:
        self.complete = True
        self.moved.set()
        self._connection.answered(self)


class Connection(asyncio.Protocol):
    """The protocol of a connection: HTTP/1.1 and 1.0, with one request after the other."""

    transport: asyncio.Transport

    def __init__(self, slot: Slot, app: ASGIApp, state: "ServerState") -> None:
        self._slot = slot
        self._app = app
        self._state = state
        self._parser = httptools.HttpRequestParser(self)
        # What follows a last request is not an error of that request.
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._loop = asyncio.get_running_loop()
        self.client: tuple[str, int] | None = None
        self.writable = asyncio.Event()
        """The client reads what is sent."""
        self.writable.set()
        self._addresses: dict[str, Any] = {}
        self._reads = True
        self._running: _Answer | None = None
        """The request that is being answered, or was last."""
        self._answer: _Answer | None = None
        """The last request that came."""
        self._queue: deque[_Answer] = deque()
        """Requests behind one that is being answered."""
        self._in_head = True
        self._head_bytes = 0
        """Bytes of a head that is not whole."""
        self._parsed = 0
        """Heads and requests that came whole."""
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._patience = RESERVED_SECONDS if slot.reserved else HEAD_SECONDS
        self._waits_since = self._loop.time()
        self._look_again: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._idle: asyncio.TimerHandle | None = None

    @property
    def _waits(self) -> bool:
        """True before the head of a request."""
        return self._answer is None or self._answer.complete

    # --- the transport ------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self.transport = cast("asyncio.Transport", transport)
        self._state.connections.add(self)
        self.client = _address(transport.get_extra_info("peername"))
        self._addresses = {
            "client": self.client,
            "server": _address(transport.get_extra_info("sockname")),
            "scheme": "https" if transport.get_extra_info("sslcontext") else "http",
        }
        self._slot.end = self.transport.abort
        self._look()

    def connection_lost(self, _: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        for timer in (self._look_again, self._stalled, self._idle):
            if timer is not None:
                timer.cancel()
        self._slot.release()
        self._state.connections.discard(self)
        for answer in (self._running, self._answer, *self._queue):
            if answer is not None and not answer.complete:
                answer.disconnected = True
                answer.moved.set()
        self._queue.clear()
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        parsed = self._parsed
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:  # to no other protocol: what follows is not read
            self._read_no_more()
        except httptools.HttpParserError:
            self._refuse()
        else:
            self._head_bytes = self._head_bytes + len(data) if self._in_head and self._parsed == parsed else 0
            if self._head_bytes > HEAD_BYTES:
                self._refuse()

    def pause_writing(self) -> None:
        """The client does not read."""
        self.writable.clear()
        self._stalled = self._loop.call_later(WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads again."""
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        self.writable.set()

    def read_on(self) -> None:
        """Read more of a body."""
        if not self._reads and not self._queue:
            self._reads = True
            self.transport.resume_reading()

    def _read_no_more(self) -> None:
        if self._reads:
            self._reads = False
            self.transport.pause_reading()

    def _refuse(self) -> None:
        """The client sent no HTTP."""
        if not self.transport.is_closing():
            self.transport.write(_raw_problem(HTTPStatus.BAD_REQUEST, "invalid HTTP request received"))
            self.transport.close()

    # --- the parser ---------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """See httptools."""
        self._in_head, self._target, self._headers = True, b"", []

    def on_url(self, url: bytes) -> None:
        """See httptools."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools."""
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Begin to answer, or have the request wait for the one before it. Raises `InvalidValue` for a head that is not HTTP."""
        self._in_head, self._parsed = False, self._parsed + 1
        version, headers = self._parser.get_http_version(), self._headers
        hosts = [value for name, value in headers if name == b"host"]
        if len(hosts) > 1 or (not hosts and version != "1.0"):
            raise InvalidValue("a request names one host")
        if version not in ("1.0", "1.1"):
            raise InvalidValue("neither HTTP/1.0 nor HTTP/1.1")
        raw_path, _, query = self._target.partition(b"?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": version,
            "method": self._parser.get_method().decode("ascii"),
            "path": unquote(raw_path.decode("ascii")),
            "raw_path": raw_path,
            "query_string": query,
            "root_path": "",
            "headers": headers,
            "state": {RESERVED: self._slot.reserved},
            **self._addresses,
        }
        answer = _Answer(
            self,
            scope,
            keep_alive=version != "1.0" and self._parser.should_keep_alive() and not self._parser.should_upgrade(),
            asks_to_go_on=any(name == b"expect" and value.lower() == b"100-continue" for name, value in headers),
        )
        before, self._answer = self._answer, answer
        if before is None or before.complete:
            self._begin(answer)
        else:
            self._queue.append(answer)
            self._read_no_more()

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        answer = self._answer
        if answer is not None and not answer.complete:
            answer.body += body
            if len(answer.body) > BODY_BUFFER:
                self._read_no_more()
            answer.moved.set()

    def on_message_complete(self) -> None:
        """See httptools."""
        self._in_head, self._parsed = True, self._parsed + 1
        if self._answer is not None and not self._answer.complete:
            self._answer.more_body = False
            self._answer.moved.set()

    # --- answers ------------------------------------------------------------------------------------------------------

    def _begin(self, answer: _Answer) -> None:
        self._running = answer
        task = self._loop.create_task(answer.run(self._app))
        self._state.tasks.add(task)
        task.add_done_callback(self._state.tasks.discard)

    def answered(self, answer: _Answer) -> None:
        """A response was sent. Its connection waits for the next request, unless reserved."""
        self._waits_since = self._loop.time()
        if not answer.keep_alive or self._slot.reserved:
            self.transport.close()
            return
        if self.transport.is_closing():
            return
        if self._queue:
            self._begin(self._queue.popleft())
        else:
            self._idle = self._loop.call_later(KEEP_ALIVE_SECONDS, self._close_idle)
        self.read_on()

    def shutdown(self) -> None:
        """Close the connection after the response, at once without a request."""
        if self._answer is None or self._answer.complete:
            self.transport.close()
        else:
            self._answer.keep_alive = False

    def _close_idle(self) -> None:
        """Close an idle connection. A client that did not read the last response is not waited for."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()

    def _look(self) -> None:
        """Abort a connection that has waited too long for a head; else look again."""
        left = self._waits_since + self._patience - self._loop.time() if self._waits else self._patience
        if left <= 0:
            self.transport.abort()
        else:
            self._look_again = self._loop.call_later(left, self._look)


def _address(found: Sequence[Any] | None) -> tuple[str, int] | None:
    return (str(found[0]), int(found[1])) if found else None


@cache
def _status_line(status: int) -> bytes:
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode()


@lru_cache(maxsize=1)
def _date_line(second: int) -> bytes:
    return f"date: {formatdate(second, usegmt=True)}\r\n".encode()


_NOT_IN_HEADER = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


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
"""Seconds after which a stop waits for no request more, not even for one that ignores its cancellation."""
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
    ) -> None:
        """`pages`: routes beside the API, such as the dashboard. `tokens`: the accepted tokens; None: no token is needed.
        `certificate`: for TLS; None: plain HTTP.

        Raises `ConstraintCrdtError` for an address beyond loopback without tokens.
        """
        if tokens is None and not is_loopback(host):
            raise ConstraintCrdtError(
                f"the API at {host}:{port} could be reached from other machines, and would ask for no token: "
                "give --token-file FILE, or a loopback address"
            )
        self._node = node
        self._tokens = tokens
        self._certificate = certificate
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
        certificate, tokens = self._certificate, self._tokens
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
            yield Finding(check="tokens", level="ok", what=f"{tokens.count(time.time())} tokens are valid")

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
        context = None if self._certificate is None else self._certificate.context
        self._server = _Server(app, ConnectionBounds(self._node.settings.api_connections_per_address), context)
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


@dataclass
class ServerState:
    """The open connections, and the answers under way."""

    connections: set[Connection] = field(default_factory=set)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)


class _Server:
    """Accepts connections, with events for its readiness and its end."""

    def __init__(self, app: ASGIApp, bounds: ConnectionBounds, context: ssl.SSLContext | None) -> None:
        self._app = app
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
                while self.server_state.connections or self.server_state.tasks:  # noqa: ASYNC110  # at a stop only
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
            return Connection(slot, self._app, self.server_state)

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
            if connection.client == client:
                connection.transport.close()
                loop.call_later(GRACE, connection.transport.abort)

    def cut_off_all(self) -> None:
        """Abort all connections: an unfinished request would keep its connection open for ever."""
        for connection in list(self.server_state.connections):
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
