"""The client without an event loop: `http.client` with a pool of connections. Safe to use from several threads."""

import http.client
import select
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self, TypeVar

import msgspec

from constraint_crdt.client import Busy, ClientError, NoAnswer
from constraint_crdt.client.methods import BlockingMethods
from constraint_crdt.client.wire import (
    FIRST_PAUSE,
    IDLE_SECONDS,
    LONGEST_PAUSE,
    MOST_IDLE,
    REPEATABLE,
    SILENCE,
    TIMEOUT,
    Heard,
    RawResponse,
    StreamReader,
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


class Client(BlockingMethods):
    """The API of a node. Use a context manager, or call `close`. Operations raise `ClientError` only."""

    def __init__(self, node: str, *, token: str | None = None, timeout: float = TIMEOUT) -> None:
        """`node`: URL or HOST:PORT. `timeout`: seconds without data after which a request fails.

        Raises `AddressError` for an invalid address, `ValueError` for an invalid token.
        """
        self.address = read_address(node)
        self._token = check_token(token)
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
            answered = self.ask(sent.method, path, sent.body, media_type=sent.media_type, patience=sent.patience)
            pages.append(read_response(operation, answered, self.address))
            path = next_page(answered) if operation.join is not None else None
        return joined(operation, pages)

    def ask(
        self, method: str, path: str, body: bytes | None = None, *, media_type: str = "application/json", patience: float = 0.0
    ) -> RawResponse:
        """Send a request to a path, and return the answer, a problem included. Raises `NoAnswer` or `NotANode`."""
        headers = headers_of(self.address, self._token, body, media_type)
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
        connection = http.client.HTTPConnection(self.address.host, self.address.port, timeout=timeout)
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
            connection.request(method, path, body, headers)
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
        self, *, last: int = 0, after: str | None = None, follow: bool = True, patience: float | None = None
    ) -> Iterator[Heard]:
        """The events of the node, as long as the iteration goes on. A broken stream is resumed after the last event.

        `last`: begin with this number of past events; `after`: begin after this id. `follow` False: end after the past events.
        `patience`: seconds without a connection after which to give up and raise `NoAnswer`; None: never.
        """
        reader, pause, alone_since = StreamReader(after), FIRST_PAUSE, time.monotonic()
        while True:
            try:
                yield from self._stream(reader, last, follow=follow)
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

    def _stream(self, reader: StreamReader, last: int, *, follow: bool) -> Iterator[Heard]:
        """A stream, until the connection breaks."""
        reader.restart()
        connection = http.client.HTTPConnection(self.address.host, self.address.port, timeout=SILENCE)
        headers = {"Accept": "text/event-stream", **authorization(self._token)}
        if reader.last_id is not None:
            headers["Last-Event-ID"] = reader.last_id
        try:
            connection.request("GET", f"/v1/events?last={last}&follow={int(follow)}", headers=headers)
            response = connection.getresponse()
            if response.status >= 400:
                check_answer(RawResponse(response.status, dict(response.getheaders()), response.read()), self.address)
            while data := response.read1(65536):
                yield from reader.feed(data)
        except OSError as error:
            raise no_answer(self.address, error, SILENCE) from None
        except ClientError:
            raise
        except (http.client.HTTPException, ValueError):
            raise NoAnswer(f"the stream of the node at {self.address.url} broke off") from None
        finally:
            connection.close()
