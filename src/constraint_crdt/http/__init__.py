"""The HTTP API of a node: JSON under `/v1`, for the command line, programs and browsers.

The application is here: all operations, routed and guarded, and the pages beside them. `security` guards requests. `endpoint`
routes and decodes them, runs the operation, and encodes and caches the response. `metrics` and `openapi` describe, and `server`
runs the application beside a node in a single event loop.

Refused before they reach an operation, in this order: requests on a connection beyond the bounds, beyond the rate limit, for
another host, from another origin, without the right.

`GET /v1/events` streams the events of a node as server-sent events (HTML standard, 9.2).

    retry: 1000

    id: 5f0c93aa-17
    event: added
    data: {"kind":"added","time":…,"constraint":"thermal","detail":"gpu_temp_c < 85.0"}

| event | data | |
|---|---|---|
| an `EventKind` | an `Event` | has an `id:`, `<start of the node>-<number>` |
| `state` | a `Notice` | readings changed: at most ten times a second, less often with many readers |
| `gap` | `{"missed": n}` | after `Last-Event-ID`: the number of events lost from the log; null: the id is of another start |
| `dropped` | `{"reason": …}` | the end: this reader was too slow |

Rules: an event is encoded once for all readers. The node waits for no reader: a reader with a backlog of more than
`MOST_BEHIND` events or `MOST_BYTES_BEHIND`, or blocked for `PATIENCE` seconds, receives `dropped` if possible, and is
disconnected. A comment every `HEARTBEAT` seconds keeps the connection open and proves to both sides its liveness.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from http import HTTPStatus
from importlib import import_module
from typing import TYPE_CHECKING, Final

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.http.endpoint import (
    GRANTED,
    AnswerCache,
    Endpoint,
    Own,
    PlainRoutes,
    PlatoPaths,
    Resource,
    SegmentRoute,
    Session,
    problem_response,
)
from constraint_crdt.http.openapi import docs, make_document, openapi, parts_of_docs
from constraint_crdt.http.security import Denials, Guard, OriginGuard, RateLimit, RequestCounts, TokenGuard, check_reserved, session
from constraint_crdt.http.tokens import Tokens
from constraint_crdt.model import check_kinds
from constraint_crdt.operations import OPERATIONS
from constraint_crdt.operations.operation import AnyOperation, Empty, Problem, busy, wrong
from constraint_crdt.operations.plato import SERVER, unserved
from constraint_crdt.operations.service import FollowEvents
from constraint_crdt.operations.tiles import TILES_PATH
from constraint_crdt.runtime.event_log import KeptEvent
from constraint_crdt.runtime.node import Node

if TYPE_CHECKING:
    from constraint_crdt.http.metrics import NodeMetrics


HEARTBEAT = 10.0
PATIENCE = 30.0
"""Seconds for which a reader may be blocked."""

MOST_BEHIND = 1000
MOST_BYTES_BEHIND = 1024 * 1024
MOST_READERS = 512

NOTICE_EVERY = 0.1
"""Seconds between two notices, at least."""

NOTICE_PER_READER = 0.002
"""Seconds between two notices, per reader: sending takes a tenth of that."""

CHUNK_BYTES = 64 * 1024
"""Sent at once."""

FAREWELL = 1.0
"""Seconds in which a dropped reader can receive the notice."""

_RETRY = b"retry: 1000\n\n"
_HEARTBEAT = b": heartbeat\n\n"
_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no", "x-content-type-options": "nosniff"}

VALID_EVERY = 1.0
"""Seconds between two looks whether the tokens of readers are still valid."""

CutOff = Callable[[Scope], None]
"""Ends the connection of a request, buffered data included."""


class EventFeed:
    """The readers of the events of a node."""

    def __init__(self, node: Node, cut_off: CutOff) -> None:
        self._node = node
        self._cut_off = cut_off
        self._readers: set[_Reader] = set()
        self._noticing: asyncio.Task[None] | None = None
        self._closed = False
        self._valid_until = 0.0
        self.dropped = 0
        """Readers disconnected for slowness."""

    @property
    def readers(self) -> int:
        """How many follow the events."""
        return len(self._readers)

    def close(self) -> None:
        """End all streams."""
        self._closed = True
        if self._noticing is not None:
            self._noticing.cancel()
        for reader in self._readers:
            reader.end()

    def open(
        self, resume: str | None, newest: int, valid: Callable[[], bool], *, follow: bool, kinds: frozenset[str] = frozenset()
    ) -> Response:
        """A stream: the events after the id `resume`, or else the `newest` events of the log; with `follow`, new events after
        these, as long as `valid()`. `kinds`: only events of these kinds; empty: all.

        Raises `Problem` for too many readers.
        """
        if len(self._readers) >= MOST_READERS:
            detail = f"{MOST_READERS} others follow the events of this node: ask another one, or come back later"
            raise busy(detail, 10)
        log = self._node.event_stream.log
        frames: list[bytes] = [_RETRY] if follow else []
        if resume is not None:
            events, missed = log.after(resume)
            events = [each for each in events if not kinds or each.event.kind in kinds]
            if missed != 0:
                frames.append(_frame("gap", {"missed": missed}))
        else:
            events = log.newest(newest, kinds)
        backlog = deque([*frames, *map(_event_frame, events)])
        if follow:
            backlog.append(_frame("state", self._node.notices.now()))
        return _Stream(self, backlog, valid, kinds, follow=follow)

    def enter(self, reader: "_Reader") -> None:
        """Send new events to a reader from now on."""
        if not self._readers:
            self._node.event_stream.listen(self._heard)
        self._readers.add(reader)
        if self._closed:
            reader.end()
        elif self._noticing is None or self._noticing.done():
            self._noticing = asyncio.create_task(self._notice(), name="event notices")

    def leave(self, reader: "_Reader") -> None:
        """Forget a reader."""
        if reader in self._readers:
            self._readers.remove(reader)
            if not self._readers:
                self._node.event_stream.ignore(self._heard)

    def cut_off(self, scope: Scope) -> None:
        """A reader was too slow: end its connection."""
        self.dropped += 1
        self._cut_off(scope)

    def _heard(self, kept: KeptEvent) -> None:
        frame = _event_frame(kept)
        for reader in self._readers:
            if not reader.kinds or kept.event.kind in reader.kinds:
                reader.put(frame)

    async def _notice(self) -> None:
        """Send notices of changed readings, as long as there are readers."""
        while self._readers:
            notice = self._node.notices.take()
            if notice is not None:
                self._give(_frame("state", notice))
            self._give_up_on_the_slow()
            self._end_the_invalid()
            await asyncio.sleep(max(NOTICE_EVERY, NOTICE_PER_READER * len(self._readers)))

    def _give_up_on_the_slow(self) -> None:
        longest = asyncio.get_running_loop().time() - PATIENCE
        for reader in self._readers:
            if reader.sending_since is not None and reader.sending_since < longest:
                reader.give_up()

    def _end_the_invalid(self) -> None:
        """End the streams of tokens that have ended, or are withdrawn."""
        now = asyncio.get_running_loop().time()
        if now >= self._valid_until:
            self._valid_until = now + VALID_EVERY
            for reader in self._readers:
                if not reader.valid():
                    reader.end()

    def _give(self, frame: bytes) -> None:
        for reader in self._readers:
            reader.put(frame)


class _Reader:
    """The queue of a reader."""

    def __init__(self, valid: Callable[[], bool], kinds: frozenset[str]) -> None:
        """`valid()`: the reader may read on. `kinds`: of the events that it reads; empty: all."""
        self.valid = valid
        self.kinds = kinds
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self._moved = asyncio.Event()
        self._ended = False
        self.too_slow = asyncio.Event()
        self.sending_since: float | None = None
        """Since when a send is blocked, by the event loop's clock."""

    def put(self, frame: bytes) -> None:
        """Queue a frame, or mark the reader as too slow."""
        if self.too_slow.is_set():
            return
        self._frames.append(frame)
        self._bytes += len(frame)
        if len(self._frames) > MOST_BEHIND or self._bytes > MOST_BYTES_BEHIND:
            self.give_up()
        self._moved.set()

    def give_up(self) -> None:
        """Mark the reader as too slow."""
        self._frames.clear()
        self.too_slow.set()

    def end(self) -> None:
        """End the queue."""
        self._ended = True
        self._moved.set()

    async def take(self) -> bytes:
        """The queued frames, or a heartbeat after a pause; empty at the end."""
        if not self._frames and not self._ended:
            self._moved.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT):
                    await self._moved.wait()
        if self._frames:
            chunk = _chunk(self._frames)
            self._bytes -= len(chunk)
            return chunk
        return b"" if self._ended else _HEARTBEAT


class _Stream(Response):
    """The streaming response to a reader."""

    def __init__(
        self, feed: EventFeed, backlog: deque[bytes], valid: Callable[[], bool], kinds: frozenset[str], *, follow: bool
    ) -> None:
        super().__init__(media_type="text/event-stream", headers=_HEADERS)
        del self.headers["content-length"]
        self._feed = feed
        self._backlog = backlog
        self._reader = _Reader(valid, kinds)
        if follow:
            feed.enter(self._reader)  # at once, so that no event falls between the backlog and the queue
        else:
            self._reader.end()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        tasks = [
            asyncio.create_task(work) for work in (self._tell(scope, send), _wait_until_gone(receive), self._reader.too_slow.wait())
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if tasks[0].done():
                await tasks[0]  # raises its exception
        finally:
            self._feed.leave(self._reader)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if self._reader.too_slow.is_set():
            await self._drop(scope, send)

    async def _tell(self, scope: Scope, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        reader, time = self._reader, asyncio.get_running_loop().time
        while scope["method"] != "HEAD" and (chunk := _chunk(self._backlog) or await reader.take()):
            reader.sending_since = time()
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            reader.sending_since = None
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _drop(self, scope: Scope, send: Send) -> None:
        """Send `dropped` if possible, and end the connection in either case."""
        farewell = _frame("dropped", {"reason": "this reader was too slow: come back with the last id"})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL):
                await send({"type": "http.response.body", "body": farewell, "more_body": False})
        self._feed.cut_off(scope)


async def _wait_until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _chunk(frames: deque[bytes]) -> bytes:
    """The next frames up to `CHUNK_BYTES`, removed from the queue."""
    taken: list[bytes] = []
    size = 0
    while frames and (not taken or size + len(frames[0]) <= CHUNK_BYTES):
        taken.append(frames.popleft())
        size += len(taken[-1])
    return b"".join(taken)


def _event_frame(kept: KeptEvent) -> bytes:
    # JSON has no line breaks, so a single `data:` line is enough.
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (kept.id.encode(), kept.event.kind.value.encode(), msgspec.json.encode(kept.event))


def _frame(kind: str, data: object) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), msgspec.json.encode(data))


async def events(asked: FollowEvents, request: Request) -> Response:
    """`GET /v1/events?last=0&follow=1`."""
    feed: EventFeed = request.app.state.feed
    session: Session = request.scope[GRANTED]
    try:
        kinds = check_kinds(asked.kind)
    except ConstraintCrdtError as error:
        raise wrong(f"`kind`: {error}", "kind") from None
    resume = asked.last_event_id_header or asked.last_event_id
    return feed.open(resume, asked.last, session.valid, follow=asked.follow, kinds=kinds)


async def _metrics(empty: Empty, request: Request) -> Response:
    """`GET /metrics`. Its library is loaded at the first request."""
    module = await asyncio.to_thread(import_module, "constraint_crdt.http.metrics")
    response: Response = await module.metrics(empty, request)
    return response


OWN: Final[Mapping[str, Own]] = {
    "docs": docs,
    "events": events,
    "metrics": _metrics,
    "openapi": openapi,
    "session": session,
}
"""The operations served from the parts of the server, by name."""


def make_app(
    node: Node,
    *,
    bound_to: str | None = None,
    pages: Sequence[BaseRoute] = (),
    cut_off: CutOff = lambda _: None,
    tokens: Tokens | None = None,
) -> Starlette:
    """The ASGI application that serves `node`, which must be started, in the node's event loop.

    `bound_to`: the host of the listening socket, served beside the loopback addresses. `pages`: routes beside
    the API, such as the dashboard. `cut_off` ends the connection of a request. `tokens`: without, every client may do everything.
    """
    feed = EventFeed(node, cut_off)
    routes = [*_routes(node, OPERATIONS), *parts_of_docs(), *pages]
    counts, denials = RequestCounts(routes), Denials()

    plain = [route for route in routes if type(route) is Route and "{" not in route.path]
    others = [route for route in routes if type(route) is not Route or "{" in route.path]

    app = Starlette(
        routes=[PlainRoutes(plain), *others],
        middleware=[
            Middleware(PlatoPaths, by_default=node.settings.plato == "server"),
            Middleware(
                Guard,
                counts=counts,
                denials=denials,
                checks=(
                    check_reserved,
                    RateLimit(node.settings.api_rate).check,
                    OriginGuard(bound_to, any_host=tokens is not None).check,
                    TokenGuard(tokens).check,
                ),
            ),
        ],
        exception_handlers={HTTPException: _not_routed},
    )
    app.router.redirect_slashes = False

    @cache
    def metered() -> "NodeMetrics":
        from constraint_crdt.http.metrics import NodeMetrics

        return NodeMetrics(node, counts, feed, denials)

    app.state.feed, app.state.metrics = feed, metered
    app.state.document, app.state.node = _document, node
    return app


@cache
def _document() -> bytes:
    return msgspec.json.encode(make_document(OPERATIONS))


def _routes(node: Node, operations: Iterable[AnyOperation]) -> list[Route]:
    """A route for each path, in the order of the list."""
    cached = AnswerCache(node).answer
    by_path: dict[str, dict[str, Endpoint]] = {}
    for operation in operations:
        by_path.setdefault(operation.path, {})[operation.method] = Endpoint(operation)
    found = []
    for path, endpoints in by_path.items():
        by_segment = any(endpoint.operation.by_segment for endpoint in endpoints.values())
        serve = Resource(node, endpoints, cached, OWN).serve
        found.append((SegmentRoute if by_segment else Route)(path, serve, methods=list(endpoints)))
    return found


async def _not_routed(request: Request, error: Exception) -> Response:
    """No such path, or not with this method."""
    status = HTTPStatus(error.status_code) if isinstance(error, HTTPException) else HTTPStatus.INTERNAL_SERVER_ERROR
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = allowed = ", ".join(sorted(headers.get("Allow", "").split(", ")))
        detail = f"{request.url.path} does not take {request.method}: it takes {allowed}"
    else:
        advice = (
            f": a tile is at {TILES_PATH}/ROOM/ID, both percent-encoded" if request.url.path.startswith(f"{TILES_PATH}/") else ""
        )
        detail = f"there is nothing at {request.url.path}{advice}"
    is_plato = request.url.path.startswith(f"{SERVER}/")
    reason = unserved(request.url.path) if is_plato else None
    if reason is not None:
        status, detail = HTTPStatus.NOT_IMPLEMENTED, f"{request.url.path.removeprefix(SERVER)} is not served: {reason}"
    return problem_response(Problem(status, detail, headers=headers), as_error=is_plato)
