"""The client on asyncio: asyncio streams and h11, with a pool of connections. An instance belongs to one event loop."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import h11
import msgspec

from constraint_crdt.client import Busy, ClientError, NoAnswer
from constraint_crdt.client.methods import AsyncMethods
from constraint_crdt.client.wire import (
    FIRST_PAUSE,
    IDLE_SECONDS,
    LONGEST_PAUSE,
    MOST_IDLE,
    REPEATABLE,
    SILENCE,
    TIMEOUT,
    Address,
    Heard,
    RawResponse,
    StreamReader,
    Trust,
    authorization,
    check_answer,
    check_token,
    encode_request,
    headers_of,
    joined,
    next_page,
    no_answer,
    not_a_node,
    read_address,
    read_response,
)
from constraint_crdt.operations.operation import Operation

Request = TypeVar("Request", bound=msgspec.Struct)
Response = TypeVar("Response")

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
            answered = await self.ask(sent.method, path, sent.body, media_type=sent.media_type, patience=sent.patience)
            pages.append(read_response(operation, answered, self.address))
            path = next_page(answered) if operation.join is not None else None
        return joined(operation, pages)

    async def ask(
        self, method: str, path: str, body: bytes | None = None, *, media_type: str = "application/json", patience: float = 0.0
    ) -> RawResponse:
        """Send a request to a path, and return the answer, a problem included. Raises `NoAnswer` or `NotANode`."""
        headers = headers_of(self.address, self._token, body, media_type)
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
            await connection.send(method, path, headers, body)
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
        self, *, last: int = 0, after: str | None = None, follow: bool = True, patience: float | None = None
    ) -> AsyncIterator[Heard]:
        """The events, as of `Client.events`. Raises `ClientError`."""
        clock = asyncio.get_running_loop().time
        reader, pause, alone_since = StreamReader(after), FIRST_PAUSE, clock()
        while True:
            try:
                async with contextlib.aclosing(self._stream(reader, last, follow=follow)) as stream:
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

    async def _stream(self, reader: StreamReader, last: int, *, follow: bool) -> AsyncGenerator[Heard, None]:
        """A stream, until the connection breaks."""
        reader.restart()
        headers = {"Host": self.address.authority, "Accept": "text/event-stream", **authorization(self._token)}
        if reader.last_id is not None:
            headers["Last-Event-ID"] = reader.last_id
        connection: _Connection | None = None
        try:
            async with asyncio.timeout(SILENCE) as silence:
                connection = await _Connection.open(self.address, self._trust)
                await connection.send("GET", f"/v1/events?last={last}&follow={int(follow)}", headers, None)
                response = await connection.receive()
                if response.status_code >= 400:
                    content = b"".join([data async for data in connection.data()])
                    check_answer(RawResponse(response.status_code, _headers(response), content), self.address)
                async for data in connection.data():
                    for heard in reader.feed(data):
                        silence.reschedule(None)  # the consumer may take as long as it needs
                        yield heard
                    silence.reschedule(asyncio.get_running_loop().time() + SILENCE)
        except OSError as error:
            raise no_answer(self.address, error, SILENCE) from None
        except ClientError:
            raise
        except (h11.RemoteProtocolError, ValueError):
            raise NoAnswer(f"the stream of the node at {self.address.url} broke off") from None
        finally:
            if connection is not None:
                connection.close()


def _headers(response: h11.Response) -> dict[str, str]:
    return {key.decode("latin-1"): value.decode("latin-1") for key, value in response.headers}
