"""The clients without an event loop, on `http.client`. Both are safe to use from several threads.

`Client` asks a node, with a pool of connections. `PlatoClient` asks a server of the PLATO contract, such as the API of a node, with
a connection for each call; each of its failures is a `PlatoError` with a sentence.

The client on asyncio: asyncio streams and h11, with a pool of connections. An instance belongs to one event loop.
"""

import asyncio
import contextlib
import http.client
import select
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlsplit

import h11
import msgspec

from constraint_crdt.client import (
    FIRST_PAUSE,
    IDLE_SECONDS,
    LONGEST_PAUSE,
    MOST_IDLE,
    REPEATABLE,
    SILENCE,
    TIMEOUT,
    Address,
    Busy,
    ClientError,
    Heard,
    NoAnswer,
    RawResponse,
    StreamReader,
    Trust,
    authorization,
    check_answer,
    check_token,
    encode_request,
    events_target,
    headers_of,
    joined,
    next_page,
    no_answer,
    not_a_node,
    read_address,
    read_response,
)
from constraint_crdt.client.methods import AsyncMethods, BlockingMethods
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.operations.operation import Operation
from constraint_crdt.plato import PlatoDelta, PlatoRoom, PlatoTile
from constraint_crdt.plato.rooms import plato_tile
from constraint_crdt.types.tiles import FleetTile

Request = TypeVar("Request", bound=msgspec.Struct)
Response = TypeVar("Response")


class _TlsConnection(http.client.HTTPConnection):
    """A connection by TLS."""

    def __init__(self, address: Address, timeout: float, trust: Trust) -> None:
        super().__init__(address.host, address.port, timeout=timeout)
        self._trust = trust

    def connect(self) -> None:
        """Connect, and check the certificate of the server."""
        while not self._trust.accepts((link := self._link()).getpeercert()):
            link.close()

    def _link(self) -> ssl.SSLSocket:
        super().connect()
        plain = self.sock
        try:
            self.sock = link = self._trust.context().wrap_socket(plain, server_hostname=self.host)
        except BaseException:
            plain.close()
            raise
        return link


class Client(BlockingMethods):
    """The API of a node. Use a context manager, or call `close`. Operations raise `ClientError` only."""

    def __init__(self, node: str, *, token: str | None = None, timeout: float = TIMEOUT, ca: str | Path | None = None) -> None:
        """`node`: URL or HOST:PORT. `timeout`: seconds without data after which a request fails. `ca`: a file with the root
        certificate of the fleet, for `https://`; None: the roots of the system.

        Raises `AddressError` for an invalid address, `ValueError` for an invalid token, `ConstraintCrdtError` for an unusable file.
        """
        self.address = read_address(node)
        self._trust = Trust(ca) if self.address.secure else None
        self._token = check_token(token)
        self.why = ""
        """The reason of the changes made by this client, for the audit and the history of the fleet."""
        self._timeout = timeout
        self._idle: list[tuple[float, http.client.HTTPConnection]] = []

    def __del__(self) -> None:
        if hasattr(self, "_idle"):  # missing after an invalid address
            self.close()

    def __repr__(self) -> str:
        return f"Client({self.address.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        while self._idle:
            self._idle.pop()[1].close()

    def do(self, operation: Operation[Request, Response], request: Request) -> Response:
        """Call an operation. Raises `ClientError`."""
        sent = encode_request(operation, request)
        pages: list[Response] = []
        path: str | None = sent.path
        while path is not None:
            answered = self.ask(sent.method, path, sent.body, media_type=sent.media_type, patience=sent.extra_timeout)
            pages.append(read_response(operation, answered, self.address))
            path = next_page(answered, self.address) if operation.join is not None else None
        return joined(operation, pages)

    def ask(
        self, method: str, path: str, body: bytes | None = None, *, media_type: str = "application/json", patience: float = 0.0
    ) -> RawResponse:
        """Send a request to a path, and return the answer, a problem included. Raises `NoAnswer` or `NotANode`."""
        headers = headers_of(self.address, self._token, body, media_type, self.why)
        timeout = self._timeout + patience
        kept = self._kept_connection()
        if kept is not None:
            try:
                return self._exchange(kept, method, path, body, headers, timeout)
            except (ConnectionError, http.client.RemoteDisconnected):
                if method not in REPEATABLE:
                    raise NoAnswer(f"the node at {self.address.url} ended the connection before it answered") from None
            except OSError as error:
                raise no_answer(self.address, error, timeout) from None
            except http.client.HTTPException:
                raise not_a_node(self.address) from None
        connection = self._connection(timeout)
        try:
            return self._exchange(connection, method, path, body, headers, timeout)
        except OSError as error:
            raise no_answer(self.address, error, timeout) from None
        except http.client.HTTPException:
            raise not_a_node(self.address) from None

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: bytes | None,
        headers: dict[str, str],
        timeout: float,
    ) -> RawResponse:
        try:
            if connection.sock is not None:
                connection.sock.settimeout(timeout)
            connection.request(method, self.address.prefix + path, body, headers)
            response = connection.getresponse()
            answered = RawResponse(response.status, {key.lower(): value for key, value in response.getheaders()}, response.read())
        except BaseException:
            connection.close()
            raise
        if response.will_close or len(self._idle) >= MOST_IDLE:
            connection.close()
        else:
            self._idle.append((time.monotonic(), connection))
        return answered

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        """A new connection, not opened yet."""
        if self._trust is None:
            return http.client.HTTPConnection(self.address.host, self.address.port, timeout=timeout)
        return _TlsConnection(self.address, timeout, self._trust)

    def _kept_connection(self) -> http.client.HTTPConnection | None:
        """An open connection from the pool, or None."""
        while True:
            try:
                since, connection = self._idle.pop()
            except IndexError:
                return None
            fresh = time.monotonic() - since < IDLE_SECONDS
            if fresh and connection.sock is not None and not select.select([connection.sock], [], [], 0)[0]:
                return connection
            connection.close()

    def events(
        self,
        *,
        last: int = 0,
        after: str | None = None,
        follow: bool = True,
        patience: float | None = None,
        kinds: Sequence[str] = (),
    ) -> Iterator[Heard]:
        """The events of the node, as long as the iteration goes on. A broken stream is resumed after the last event.

        `last`: begin with this number of past events; `after`: begin after this id. `follow` False: end after the past events.
        `patience`: seconds without a connection after which to give up and raise `NoAnswer`; None: never. `kinds`: only events of
        these kinds, as `violated` or `peer-up`; empty: all.
        """
        reader, pause, alone_since = StreamReader(after), FIRST_PAUSE, time.monotonic()
        while True:
            try:
                yield from self._stream(reader, last, kinds, follow=follow)
                if not follow:
                    return
                lost: ClientError = NoAnswer(f"the node at {self.address.url} ended the stream")
            except (NoAnswer, Busy) as error:
                lost = error
            if reader.fed:
                pause, alone_since = FIRST_PAUSE, time.monotonic()
            if not follow or (patience is not None and time.monotonic() - alone_since > patience):
                raise lost
            last = last if reader.last_id is None else 0
            time.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    def _stream(self, reader: StreamReader, last: int, kinds: Sequence[str], *, follow: bool) -> Iterator[Heard]:
        """A stream, until the connection breaks."""
        reader.restart()
        silence = SILENCE if follow else self._timeout
        connection = self._connection(silence)
        headers = {"Accept": "text/event-stream", **authorization(self._token)}
        if reader.last_id is not None:
            headers["Last-Event-ID"] = reader.last_id
        try:
            connection.request("GET", f"{self.address.prefix}{events_target(last, kinds, follow=follow)}", headers=headers)
            response = connection.getresponse()
            if response.status >= 400:
                check_answer(RawResponse(response.status, dict(response.getheaders()), response.read()), self.address)
            while data := response.read1(65536):
                yield from reader.feed(data)
        except OSError as error:
            raise no_answer(self.address, error, silence) from None
        except ClientError:
            raise
        except (http.client.HTTPException, ValueError):
            raise NoAnswer(f"the stream of the node at {self.address.url} broke off") from None
        finally:
            connection.close()


PLATO_TIMEOUT = 10.0
"""Seconds of silence after which a server counts as not answering."""

MAX_ANSWER_BYTES = 256 * 1024 * 1024

Decoded = TypeVar("Decoded")


class PlatoError(ConstraintCrdtError):
    """A failed call. `str()` is a sentence."""

    def __init__(self, message: str, *, status: int | None = None, field: str | None = None) -> None:
        """`message`: a sentence. `status`: the HTTP status of the response, if any. `field`: the field at fault."""
        super().__init__(message)
        self.status = status
        """The HTTP status, if the server answered."""
        self.field = field
        """The field at fault, if the server named a field."""


class PlatoClient:
    """A client of a PLATO server."""

    def __init__(self, base_url: str, *, timeout: float = PLATO_TIMEOUT) -> None:
        """`base_url`: `http://HOST:PORT`, or https, with or without a path. `timeout`: seconds.

        Raises `PlatoError` for an invalid address or timeout.
        """
        wrong = PlatoError(f"{base_url!r} is no address of a PLATO server: give http://HOST:PORT")
        try:
            parts = urlsplit(base_url)
            self._port = parts.port
            (parts.hostname or "").encode("idna")
        except ValueError:  # a port out of range, an unclosed bracket, a host that no resolver could take
            raise wrong from None
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
            raise wrong
        if quote(parts.path, safe="/%:@!$&'()*+,;=~") != parts.path:
            raise wrong
        if not timeout > 0:
            raise PlatoError(f"the timeout of a PlatoClient is a number of seconds above 0, not {timeout!r}")
        self._connection = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._host = parts.hostname
        self._path = parts.path.rstrip("/")
        self._timeout = timeout
        self.url = base_url.rstrip("/")
        """The address of the server."""

    def __repr__(self) -> str:
        return f"PlatoClient({self.url!r})"

    def list_rooms(self, prefix: str | None = None) -> list[str]:
        """The rooms with a tile, filtered by `prefix`."""
        query = "" if prefix is None else f"?prefix={_quoted(prefix)}"
        return self._decoded(self._call("GET", f"/rooms{query}"), list[str])

    def get_room(self, room_id: str) -> PlatoRoom:
        """A room with its tiles. Raises `PlatoError` with status 404 for an unknown room."""
        room = self._decoded(self._call("GET", f"/room/{_quoted(room_id)}"), _SentRoom)
        tiles = room.tiles or []
        return PlatoRoom(id=room.id, tiles=tiles, tile_count=len(tiles) if room.tile_count is None else room.tile_count)

    def submit_tile(self, room_id: str, tile: PlatoTile | FleetTile) -> None:
        """Have the server merge a tile into a room. Raises `PlatoError` with the field for a refused tile."""
        try:
            sent = plato_tile(tile) if isinstance(tile, FleetTile) else tile
        except ConstraintCrdtError as error:
            raise PlatoError(f"this tile cannot be sent: {error}", field="content") from None
        self._call("POST", f"/room/{_quoted(room_id)}/tile", sent)

    def send_delta(self, room_id: str, delta: PlatoDelta) -> None:
        """Have the server apply a delta. A repeat has no effect."""
        self._call("POST", f"/room/{_quoted(room_id)}/delta", delta)

    def is_healthy(self) -> bool:
        """True if the server answers."""
        try:
            self._call("GET", "/rooms")
        except PlatoError:
            return False
        return True

    def _call(self, method: str, path: str, body: msgspec.Struct | None = None) -> bytes:
        headers = {"Accept": "application/json"}
        content = None
        if body is not None:
            content = _encoded(body)
            headers["Content-Type"] = "application/json"
        connection = self._connection(self._host, self._port, timeout=self._timeout)
        try:
            connection.request(method, self._path + path, content, headers)
            response = connection.getresponse()
            answer = response.read(MAX_ANSWER_BYTES + 1)
        except TimeoutError:
            raise PlatoError(f"the PLATO server at {self.url} did not answer within {self._timeout:g} s") from None
        except OSError as error:
            raise PlatoError(f"cannot reach a PLATO server at {self.url}: {error.strerror or error}") from None
        except http.client.HTTPException:
            raise PlatoError(f"what answers at {self.url} does not speak HTTP, or broke off") from None
        finally:
            connection.close()
        if len(answer) > MAX_ANSWER_BYTES:
            raise PlatoError(f"the answer of {self.url} has more than {MAX_ANSWER_BYTES} bytes", status=response.status)
        if not 200 <= response.status < 300:
            raise self._refused(response.status, answer)
        return answer

    def _refused(self, status: int, answer: bytes) -> PlatoError:
        """The error of a problem, with the detail and field of a known format."""
        try:
            said = msgspec.json.decode(answer)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            said = None
        said = said if isinstance(said, Mapping) else {}
        detail, field = said.get("detail"), said.get("field")
        message = f"the PLATO server at {self.url} answered {status}"
        if isinstance(detail, str):
            message += f": {detail}"
        return PlatoError(message, status=status, field=field if isinstance(field, str) else None)

    def _decoded(self, answer: bytes, shape: type[Decoded]) -> Decoded:
        try:
            return msgspec.json.decode(answer, type=shape)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise PlatoError(f"what {self.url} answered is not what a PLATO server does: {error}") from None


class _SentRoom(msgspec.Struct, frozen=True, kw_only=True):
    """A room of other servers, with optional parts."""

    id: str
    tiles: list[PlatoTile] | None = None
    tile_count: int | None = None


def _quoted(text: str) -> str:
    try:
        return quote(text, safe="")
    except UnicodeEncodeError:
        raise PlatoError(f"{text!r} is not valid Unicode text") from None


def _encoded(body: msgspec.Struct) -> bytes:
    try:
        return msgspec.json.encode(body)
    except (UnicodeError, OverflowError, TypeError) as error:
        raise PlatoError(f"this cannot be sent as JSON: {error}") from None


CHUNK = 65536


class _Connection:
    """A connection, for one exchange at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.CLIENT)
        self.idle_since = 0.0

    @classmethod
    async def open(cls, address: Address, trust: Trust | None) -> "_Connection":
        """Connect; by TLS, and check the certificate of the server, where `trust` is given."""
        if trust is None:
            return cls(*await asyncio.open_connection(address.host, address.port))
        while True:
            reader, writer = await asyncio.open_connection(
                address.host, address.port, ssl=trust.context(), server_hostname=address.host
            )
            if trust.accepts(writer.get_extra_info("peercert")):
                return cls(reader, writer)
            writer.close()

    @property
    def usable(self) -> bool:
        """False once the server closed the connection."""
        return not self._reader.at_eof() and not self._writer.is_closing()

    def close(self) -> None:
        self._writer.close()

    async def send(self, method: str, path: str, headers: dict[str, str], body: bytes | None) -> None:
        """Send a request."""
        sent = self._http.send(h11.Request(method=method, target=path, headers=list(headers.items()))) or b""
        if body is not None:
            sent += self._http.send(h11.Data(data=body)) or b""
        self._writer.write(sent + (self._http.send(h11.EndOfMessage()) or b""))
        await self._writer.drain()

    async def receive(self) -> h11.Response:
        """The head of the response. Raises `ConnectionResetError` at the end of the connection."""
        while True:
            event = await self._next()
            if isinstance(event, h11.Response):
                return event
            if isinstance(event, h11.ConnectionClosed):
                raise ConnectionResetError("the connection ended")

    async def data(self) -> AsyncIterator[bytes]:
        """The body of the answer."""
        while not isinstance(event := await self._next(), h11.EndOfMessage | h11.ConnectionClosed):
            if isinstance(event, h11.Data):
                yield bytes(event.data)

    def renew(self) -> bool:
        """Prepare for another exchange. False if that is impossible."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    async def _next(self) -> Any:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self._reader.read(CHUNK))
        return event


class AsyncClient(AsyncMethods):
    """The API of a node. Use a context manager, or call `close`. Operations raise `ClientError` only."""

    def __init__(self, node: str, *, token: str | None = None, timeout: float = TIMEOUT, ca: str | Path | None = None) -> None:
        """As of `Client`."""
        self.address = read_address(node)
        self._trust = Trust(ca) if self.address.secure else None
        self._token = check_token(token)
        self.why = ""
        """The reason of the changes made by this client, for the audit and the history of the fleet."""
        self._timeout = timeout
        self._idle: list[_Connection] = []

    def __repr__(self) -> str:
        return f"AsyncClient({self.address.url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        while self._idle:
            self._idle.pop().close()

    async def do(self, operation: Operation[Request, Response], request: Request) -> Response:
        """Call an operation. Raises `ClientError`."""
        sent = encode_request(operation, request)
        pages: list[Response] = []
        path: str | None = sent.path
        while path is not None:
            answered = await self.ask(sent.method, path, sent.body, media_type=sent.media_type, patience=sent.extra_timeout)
            pages.append(read_response(operation, answered, self.address))
            path = next_page(answered, self.address) if operation.join is not None else None
        return joined(operation, pages)

    async def ask(
        self, method: str, path: str, body: bytes | None = None, *, media_type: str = "application/json", patience: float = 0.0
    ) -> RawResponse:
        """Send a request to a path, and return the answer, a problem included. Raises `NoAnswer` or `NotANode`."""
        headers = headers_of(self.address, self._token, body, media_type, self.why)
        timeout = self._timeout + patience
        kept = self._kept_connection()
        try:
            async with asyncio.timeout(timeout):
                if kept is not None:
                    try:
                        return await self._exchange(kept, method, path, headers, body)
                    except ConnectionError:
                        if method not in REPEATABLE:
                            sentence = f"the node at {self.address.url} ended the connection before it answered"
                            raise NoAnswer(sentence) from None
                return await self._exchange(await _Connection.open(self.address, self._trust), method, path, headers, body)
        except OSError as error:  # a TimeoutError, too
            raise no_answer(self.address, error, timeout) from None
        except h11.RemoteProtocolError:
            raise not_a_node(self.address) from None

    async def _exchange(
        self, connection: _Connection, method: str, path: str, headers: dict[str, str], body: bytes | None
    ) -> RawResponse:
        try:
            await connection.send(method, self.address.prefix + path, headers, body)
            response = await connection.receive()
            content = b"".join([data async for data in connection.data()])
        except BaseException:
            connection.close()
            raise
        if connection.renew() and len(self._idle) < MOST_IDLE:
            connection.idle_since = asyncio.get_running_loop().time()
            self._idle.append(connection)
        else:
            connection.close()
        return RawResponse(response.status_code, _headers(response), content)

    def _kept_connection(self) -> _Connection | None:
        """An open connection from the pool, or None."""
        oldest = asyncio.get_running_loop().time() - IDLE_SECONDS
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and connection.idle_since > oldest:
                return connection
            connection.close()
        return None

    async def events(
        self,
        *,
        last: int = 0,
        after: str | None = None,
        follow: bool = True,
        patience: float | None = None,
        kinds: Sequence[str] = (),
    ) -> AsyncIterator[Heard]:
        """The events, as of `Client.events`. Raises `ClientError`."""
        clock = asyncio.get_running_loop().time
        reader, pause, alone_since = StreamReader(after), FIRST_PAUSE, clock()
        while True:
            try:
                async with contextlib.aclosing(self._stream(reader, last, kinds, follow=follow)) as stream:
                    async for heard in stream:
                        yield heard
                if not follow:
                    return
                lost: ClientError = NoAnswer(f"the node at {self.address.url} ended the stream")
            except (NoAnswer, Busy) as error:
                lost = error
            if reader.fed:
                pause, alone_since = FIRST_PAUSE, clock()
            if not follow or (patience is not None and clock() - alone_since > patience):
                raise lost
            last = last if reader.last_id is None else 0
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _stream(self, reader: StreamReader, last: int, kinds: Sequence[str], *, follow: bool) -> AsyncGenerator[Heard, None]:
        """A stream, until the connection breaks."""
        reader.restart()
        headers = {"Host": self.address.authority, "Accept": "text/event-stream", **authorization(self._token)}
        if reader.last_id is not None:
            headers["Last-Event-ID"] = reader.last_id
        connection: _Connection | None = None
        longest = SILENCE if follow else self._timeout
        try:
            async with asyncio.timeout(longest) as silence:
                connection = await _Connection.open(self.address, self._trust)
                await connection.send("GET", f"{self.address.prefix}{events_target(last, kinds, follow=follow)}", headers, None)
                response = await connection.receive()
                if response.status_code >= 400:
                    content = b"".join([data async for data in connection.data()])
                    check_answer(RawResponse(response.status_code, _headers(response), content), self.address)
                async for data in connection.data():
                    for heard in reader.feed(data):
                        silence.reschedule(None)  # the consumer may take as long as it needs
                        yield heard
                    silence.reschedule(asyncio.get_running_loop().time() + longest)
        except OSError as error:
            raise no_answer(self.address, error, longest) from None
        except ClientError:
            raise
        except (h11.RemoteProtocolError, ValueError):
            raise NoAnswer(f"the stream of the node at {self.address.url} broke off") from None
        finally:
            if connection is not None:
                connection.close()


def _headers(response: h11.Response) -> dict[str, str]:
    return {key.decode("latin-1"): value.decode("latin-1") for key, value in response.headers}
