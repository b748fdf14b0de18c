"""Transports between nodes: the interface for discovery, membership and requests, and the tasks of request handlers.

`memory` serves tests and embedding. `zenoh` is the default transport, with its sessions in `zenoh_session` and their configuration,
opening and closing in `zenoh_startup`; only these modules import the zenoh package. No transport knows anything of constraints.

Rules for every transport:

1. A peer is a name *and* a session. Each open has a new session, so two processes with the same name are two peers.
2. Fleets never mix: a transport sees and answers only peers of its own fleet.
3. `peers()` and `changed` are hints. Only an answered request proves a live peer.
4. The handler and `changed` run on the loop of the `open` call, and never inside a call into the transport.
5. A request has all replies, in order, or raises `Unreachable`. A part of the replies is no answer.
6. An exception of a handler costs its requester the answer, without any other effect.
7. Each request's handler is a task, so handlers run interleaved. Requests beyond the limit of a transport stay unanswered. A
   running handler is cancelled when its transport closes or reopens.

`HandlerTasks` implements rules 6 and 7 for all transports: each task is referenced until its end, and each request's `deliver` is
called exactly once and on the loop, also for a task that fails, is cancelled or never starts. Cancellation propagates.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

from constraint_crdt.errors import ConstraintCrdtError, InvalidValue

MAX_PAYLOAD = 256 * 1024
"""The longest request, and the longest single reply, in bytes. Messages of a node are at most a quarter of this."""


class Peer(NamedTuple):
    """An opened transport: the name of the node, and a unique session in hex. Sessions sort by the time of opening."""

    name: str
    session: str


Handler = Callable[[bytes, Peer | None], Awaitable[Sequence[bytes]]]
"""Takes a request and returns its replies, possibly none. Replies are sent after the return, so their content can be on disk first.
The peer is the proven sender, or None where the transport proves no sender.
"""

PeerCallback = Callable[[Peer, bool], None]
"""A peer came (True) or went (False)."""


class TransportError(ConstraintCrdtError):
    """The transport could not open, or is not open. `str()` is a sentence with advice."""


class Unreachable(TransportError):
    """A request got no answer: the peer is gone, cut off, too slow, or failed at answering."""


class Transport(Protocol):
    """Discovery, membership and requests between the nodes of a fleet."""

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The endpoints of this node, for other nodes; empty if the transport is closed or does not listen."""

    @property
    def bytes_sent(self) -> int:
        """Payload bytes of requests and replies handed to the network since construction."""

    @property
    def bytes_received(self) -> int:
        """Payload bytes of requests and replies taken from the network since construction."""

    @property
    def refused(self) -> int:
        """Requests and replies dropped since construction, because nothing proved their sender."""

    async def open(self, name: str, fleet: str, handler: Handler, changed: PeerCallback) -> Peer:
        """Join `fleet` as `name`, and return this transport's peer. `changed` is never called for this peer.

        Raises `TransportError` if opening fails, or the transport is open; nothing stays open then.
        """

    async def reopen(self, extra_connect: Sequence[str] = ()) -> Peer:
        """Leave and join again with a new session, to replace broken links.

        `extra_connect`: endpoints of other nodes, tried beside the configured endpoints until the next reopen; malformed endpoints
        are skipped. Peers are reported gone, and come again. Raises `TransportError` on failure; the transport has no peers then,
        and may be reopened or closed.
        """

    async def request(self, peer: Peer, payload: bytes, timeout: float) -> list[bytes]:  # noqa: ASYNC109 - it bounds each silence, and a caller's own timeout around it could not
        """Send `payload` and return the replies, in the order the peer's handler gave them.

        `timeout` is in seconds, for each silence: a long list of replies may take longer in all.
        Never blocks the loop. Raises `Unreachable`, or `ValueError` for a payload above `MAX_PAYLOAD`.
        """

    def peers(self) -> frozenset[Peer]:
        """The peers believed to be there now."""

    async def close(self) -> None:
        """Leave. Idempotent, also after a failed open. Takes 2 s at most.

        Waiting requests raise `Unreachable`. `changed` is not called for links closed here. Handlers are cancelled and awaited for
        `CANCEL_SECONDS`; slower handlers end later. A handler calling `close` is not cancelled.
        """


ANSWERS_AT_ONCE = 256
"""The default limit of running handlers: with the longest requests, 64 MiB of memory."""

CANCEL_SECONDS = 0.25
"""Seconds for which a closing transport waits for cancelled handlers."""

_log = logging.getLogger(__name__)

ReplyCallback = Callable[[list[bytes] | None], None]
"""Takes the replies to a request, or None without an answer."""


def check_payload(payload: bytes) -> bytes:
    """Return `payload`. Raises `ValueError` for a payload longer than `MAX_PAYLOAD`."""
    if len(payload) > MAX_PAYLOAD:
        msg = f"a payload of {len(payload)} bytes is above the engine's limit of {MAX_PAYLOAD}; send it in parts"
        raise InvalidValue(msg)
    return payload


def check_answers_at_once(limit: int) -> int:
    """Return `limit`. Raises `TransportError` for a limit below 1."""
    if limit < 1:
        raise TransportError(f"a transport cannot answer {limit} requests at once; give 1 or more")
    return limit


class HandlerTasks:
    """The tasks of a handler, on a single event loop."""

    def __init__(self, handler: Handler, limit: int) -> None:
        self._handler = handler
        self._limit = limit
        self._running: dict[asyncio.Task[list[bytes] | None], None] = {}  # in order, so cancellation is deterministic
        self._overrun = False

    def begin(self, request: bytes, deliver: ReplyCallback, sender: Peer | None = None) -> None:
        """Run the handler on `request` of the proven `sender`. `deliver` gets None at once when too many run already."""
        if len(self._running) >= self._limit:
            if not self._overrun:
                self._overrun = True
                _log.warning("%d requests are being answered; more stay unanswered until some are done", self._limit)
            deliver(None)
            return
        task = asyncio.get_running_loop().create_task(self._run(request, sender), name="answer")
        self._running[task] = None
        task.add_done_callback(lambda done: self._ended(done, deliver))

    def cancel(self) -> None:
        """Cancel every task except the calling task."""
        for task in self._others():
            task.cancel()

    async def wait(self) -> None:
        """Wait for the other tasks to end, `CANCEL_SECONDS` at most."""
        if others := self._others():
            await asyncio.wait(others, timeout=CANCEL_SECONDS)

    def _others(self) -> list[asyncio.Task[list[bytes] | None]]:
        current = asyncio.current_task()
        return [task for task in self._running if task is not current]

    async def _run(self, request: bytes, sender: Peer | None) -> list[bytes] | None:
        try:
            return [check_payload(reply) for reply in await self._handler(request, sender)]
        except Exception:  # a fault of the handler must not end the transport, which serves all other peers
            _log.exception("the handler failed on a request of %d bytes, which stays unanswered", len(request))
            return None

    def _ended(self, task: asyncio.Task[list[bytes] | None], deliver: ReplyCallback) -> None:
        del self._running[task]
        if not self._running:
            self._overrun = False
        deliver(None if task.cancelled() or task.exception() else task.result())
