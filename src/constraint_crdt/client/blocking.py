"""The client without an event loop: over `http.client`, with connections that are kept. Safe to use from several threads."""

import http.client
import select
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Concatenate, ParamSpec, Self, TypeVar

from constraint_crdt.client import calls
from constraint_crdt.client.address import read_address
from constraint_crdt.client.errors import Busy, ClientError, NoAnswer
from constraint_crdt.client.event_stream import FIRST_PAUSE, LONGEST_PAUSE, SILENCE, Heard, StreamReader
from constraint_crdt.client.wire import (
    IDLE_SECONDS,
    MOST_IDLE,
    REPEATABLE,
    TIMEOUT,
    Answered,
    Call,
    authorization,
    check_answer,
    check_token,
    headers_of,
    next_page,
    no_answer,
    read_answer,
    stranger,
)

Given = ParamSpec("Given")
Value = TypeVar("Value")


def _asks(call: Callable[Given, Call[Value]]) -> Callable[Concatenate["Client", Given], Value]:
    """A method that makes a call."""

    def method(self: "Client", /, *args: Given.args, **kwargs: Given.kwargs) -> Value:
        return self.do(call(*args, **kwargs))

    method.__name__, method.__doc__ = call.__name__, call.__doc__
    return method


class Client:
    """The API of one node. Use it as a context manager, or call `close`. Its operations raise `ClientError`, and nothing else."""

    def __init__(self, node: str, *, token: str | None = None, timeout: float = TIMEOUT) -> None:
        """`node`: URL or HOST:PORT. `timeout`: seconds of silence after which it counts as not answering.

        Raises `AddressError` or `ValueError` for what cannot be an address or a token.
        """
        self.address = read_address(node)
        self._token = check_token(token)
        self._timeout = timeout
        self._idle: list[tuple[float, http.client.HTTPConnection]] = []

    def __del__(self) -> None:
        if hasattr(self, "_idle"):  # not if it was given what cannot be an address
            self.close()

    def __repr__(self) -> str:
        return f"Client({self.address.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        while self._idle:
            self._idle.pop()[1].close()

    def do(self, call: Call[Value]) -> Value:
        """Make a call."""
        pages, path = [], call.path
        while True:
            answered = self.ask(call.method, path, call.body, media_type=call.media_type, patience=call.patience)
            pages.append(read_answer(call, answered, self.address))
            following = next_page(answered) if call.join else None
            if following is None:
                return call.join(pages) if call.join else pages[0]
            path = following

    def ask(
        self, method: str, path: str, body: bytes | None = None, *, media_type: str = "application/json", patience: float = 0.0
    ) -> Answered:
        """Ask for a path, and return what came, a problem too. Raises `NoAnswer` or `Stranger`."""
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
                raise stranger(self.address) from None
        connection = http.client.HTTPConnection(self.address.host, self.address.port, timeout=timeout)
        try:
            return self._exchange(connection, method, path, body, headers, timeout)
        except OSError as error:
            raise no_answer(self.address, error, timeout) from None
        except http.client.HTTPException:
            raise stranger(self.address) from None

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: bytes | None,
        headers: dict[str, str],
        timeout: float,
    ) -> Answered:
        try:
            if connection.sock is not None:
                connection.sock.settimeout(timeout)
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            answered = Answered(response.status, {key.lower(): value for key, value in response.getheaders()}, response.read())
        except BaseException:
            connection.close()
            raise
        if response.will_close or len(self._idle) >= MOST_IDLE:
            connection.close()
        else:
            self._idle.append((time.monotonic(), connection))
        return answered

    def _kept_connection(self) -> http.client.HTTPConnection | None:
        """A connection that the node has not closed yet, as far as can be seen."""
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
        """What happens on the node, for as long as it is iterated over. A stream that breaks is taken up again where it was.

        `last`: begin with so many events that have happened already; `after`: with those after this id. `follow` False: end then.
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
        """One stream, until it breaks."""
        reader.restart()
        connection = http.client.HTTPConnection(self.address.host, self.address.port, timeout=SILENCE)
        headers = {"Accept": "text/event-stream", **authorization(self._token)}
        if reader.last_id is not None:
            headers["Last-Event-ID"] = reader.last_id
        try:
            connection.request("GET", f"/v1/events?last={last}&follow={int(follow)}", headers=headers)
            response = connection.getresponse()
            if response.status >= 400:
                check_answer(Answered(response.status, dict(response.getheaders()), response.read()), self.address)
            while data := response.read1(65536):
                yield from reader.feed(data)
        except OSError as error:
            raise no_answer(self.address, error, SILENCE) from None
        except (http.client.HTTPException, ValueError):
            raise NoAnswer(f"the stream of the node at {self.address.url} broke off") from None
        finally:
            connection.close()

    status = _asks(calls.status)
    nodes = _asks(calls.nodes)
    storage = _asks(calls.storage)
    identity = _asks(calls.identity)
    retire = _asks(calls.retire)
    alive = _asks(calls.alive)
    ready = _asks(calls.ready)
    metrics = _asks(calls.metrics)
    openapi = _asks(calls.openapi)
    constraints = _asks(calls.constraints)
    add = _asks(calls.add)
    remove = _asks(calls.remove)
    record = _asks(calls.record)
    check = _asks(calls.check)
    measure = _asks(calls.measure)
    batch = _asks(calls.batch)
    check_expression = _asks(calls.check_expression)
    overview = _asks(calls.overview)
    lately = _asks(calls.lately)
    rates = _asks(calls.rates)
    top = _asks(calls.top)
    fleet_coverage = _asks(calls.fleet_coverage)
    coverage = _asks(calls.coverage)
    explain = _asks(calls.explain)
    convergence = _asks(calls.convergence)
    diagnosis = _asks(calls.diagnosis)
    alerts = _asks(calls.alerts)
    tiles = _asks(calls.tiles)
    tile = _asks(calls.tile)
    put_tile = _asks(calls.put_tile)
    put_tile_content = _asks(calls.put_tile_content)
    tile_content = _asks(calls.tile_content)
    edit_tile = _asks(calls.edit_tile)
    delete_tile = _asks(calls.delete_tile)
    restore_tile = _asks(calls.restore_tile)
    counters = _asks(calls.counters)
    counter = _asks(calls.counter)
    move_counter = _asks(calls.move_counter)
    tally = _asks(calls.tally)
    seen = _asks(calls.seen)
    insert = _asks(calls.insert)
    position = _asks(calls.position)
    move = _asks(calls.move)
    export = _asks(calls.export)
    import_state = _asks(calls.import_state)
    rooms = _asks(calls.rooms)
    room = _asks(calls.room)
    submit_tile = _asks(calls.submit_tile)
    send_delta = _asks(calls.send_delta)
