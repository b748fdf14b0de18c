"""What the node asks of an engine: `Transport`, the protocol, and the words it uses.

Rules every engine keeps:

1. A peer is a name *and* a session. The session is new at each open, so two processes of one name are two peers.
2. Fleets never mix: a transport sees and answers only peers that opened with its own fleet.
3. `peers()` and `changed` are hints. Only an answered request proves that a peer is there.
4. The handler and `changed` run on the loop that called `open`, and never inside a call into the transport.
5. A request has an answer, whole and in order, or it raises `Unreachable`. Part of an answer is no answer.
6. A handler that raises costs its requester the answer and nothing else.
7. Each request's handler is a task of its own, so handlers run interleaved. A request beyond the number that a transport
   runs at once stays unanswered. A handler still running when its transport closes or reopens is cancelled.

Running a node's handler: how many at once, and what a failure in it costs, in one place for every engine.

Rules: every run is a task of its own, referenced until it is done. Each request's `deliver` is called exactly once and
on the loop, also for a run that fails, is cancelled, or never starts. Cancellation passes through.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

from constraint_crdt.errors import ConstraintCrdtError

MAX_PAYLOAD = 256 * 1024
"""The longest request, and the longest single reply, in bytes. The node keeps to a quarter of it."""


class Peer(NamedTuple):
    """One opened transport: the node's name, and a hex session that no other open ever has; they sort by when they were opened."""

    name: str
    session: str


Handler = Callable[[bytes], Awaitable[Sequence[bytes]]]
"""A request in, its replies out, possibly none. They are sent once it returns: whatever they tell may be on disk by then."""

Changed = Callable[[Peer, bool], None]
"""A peer came (True) or went (False)."""


class TransportError(ConstraintCrdtError):
    """The transport could not open, or is not open. `str()` is one sentence that says what to do."""


class Unreachable(TransportError):
    """A request got no answer: the peer is gone, cut off, too slow, or failed at answering."""


class Transport(Protocol):
    """Discovery, membership and request/reply between the nodes of one fleet."""

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Where other nodes can connect to this one; empty while it is not open or does not listen."""

    @property
    def bytes_sent(self) -> int:
        """Payload bytes of requests and replies handed to the network since construction."""

    @property
    def bytes_received(self) -> int:
        """Payload bytes of requests and replies taken from the network since construction."""

    async def open(self, name: str, fleet: str, handler: Handler, changed: Changed) -> Peer:
        """Join `fleet` as `name` and return who this transport now is. `changed` is never called for it.

        Raises `TransportError` when it cannot open or is open already; nothing is left behind then.
        """

    async def reopen(self, extra_connect: Sequence[str] = ()) -> Peer:
        """Leave and join again as a new session: the cure for links that broke and that nothing repairs.

        `extra_connect` are endpoints learned from other nodes, tried beside the configured ones until the next
        reopen; malformed ones are skipped. Peers are reported gone, and come again as they are found.
        Raises `TransportError` when it cannot; the transport has no peers then, and may be reopened or closed.
        """

    async def request(self, peer: Peer, payload: bytes, timeout: float) -> list[bytes]:  # noqa: ASYNC109 - it bounds each silence, and a caller's own timeout around it could not
        """Send `payload` and return the replies, in the order the peer's handler gave them.

        `timeout` is in seconds, for each silence: a long list of replies may take longer in all.
        Never blocks the loop. Raises `Unreachable`, or `ValueError` for a payload above `MAX_PAYLOAD`.
        """

    def peers(self) -> frozenset[Peer]:
        """The peers believed to be there now."""

    async def close(self) -> None:
        """Leave. Idempotent, also after a failed open; takes 2 s at most whatever the network does.

        Requests that wait raise `Unreachable`. `changed` is not called for what this transport itself ends.
        Handlers are cancelled and waited for, but one that does not end promptly is left to end later. A handler that
        calls this itself is not cancelled.
        """


ANSWERS_AT_ONCE = 256
"""Handlers that run at once, unless a transport is told otherwise: with the longest requests, 64 MiB of them."""

CANCEL_SECONDS = 0.25
"""How long a closing transport waits for handlers that it cancelled."""

_log = logging.getLogger(__name__)

Deliver = Callable[[list[bytes] | None], None]
"""Takes the replies to one request, or None when there is no answer."""


def check_payload(payload: bytes) -> bytes:
    """Return `payload`; raise `ValueError` when it is longer than any engine carries."""
    if len(payload) > MAX_PAYLOAD:
        msg = f"a payload of {len(payload)} bytes is above the engine's limit of {MAX_PAYLOAD}; send it in parts"
        raise ValueError(msg)
    return payload


def check_answers_at_once(limit: int) -> int:
    """Return `limit`; raise `TransportError` when no request could be answered within it."""
    if limit < 1:
        raise TransportError(f"A transport cannot answer {limit} requests at once; give 1 or more.")
    return limit


class HandlerTasks:
    """The tasks that run one handler, on one event loop."""

    def __init__(self, handler: Handler, limit: int) -> None:
        self._handler = handler
        self._limit = limit
        self._running: dict[asyncio.Task[list[bytes] | None], None] = {}  # in order, so that cancelling is deterministic
        self._overrun = False

    def begin(self, request: bytes, deliver: Deliver) -> None:
        """Run the handler on `request`. `deliver` gets None at once when too many run already."""
        if len(self._running) >= self._limit:
            if not self._overrun:
                self._overrun = True
                _log.warning("%d requests are being answered; more stay unanswered until some are done", self._limit)
            deliver(None)
            return
        task = asyncio.get_running_loop().create_task(self._run(request), name="answer")
        self._running[task] = None
        task.add_done_callback(lambda done: self._ended(done, deliver))

    def cancel(self) -> None:
        """Cancel every run, except one that calls this: it would cancel what it is doing here."""
        for task in self._others():
            task.cancel()

    async def wait(self) -> None:
        """Wait `CANCEL_SECONDS` at most for the runs to end, except one that calls this."""
        if others := self._others():
            await asyncio.wait(others, timeout=CANCEL_SECONDS)

    def _others(self) -> list[asyncio.Task[list[bytes] | None]]:
        current = asyncio.current_task()
        return [task for task in self._running if task is not current]

    async def _run(self, request: bytes) -> list[bytes] | None:
        try:
            return [check_payload(reply) for reply in await self._handler(request)]
        except Exception:  # whatever a handler does wrong must not end the engine that serves every other peer
            _log.exception("the handler failed on a request of %d bytes, which stays unanswered", len(request))
            return None

    def _ended(self, task: asyncio.Task[list[bytes] | None], deliver: Deliver) -> None:
        del self._running[task]
        if not self._running:
            self._overrun = False
        deliver(None if task.cancelled() or task.exception() else task.result())
