"""Running a node's handler: how many at once, and what a failure in it costs, in one place for every engine.

Rules: every run is a task of its own, referenced until it is done. Each request's `deliver` is called exactly once and
on the loop, also for a run that fails, is cancelled, or never starts. Cancellation passes through.
"""

import asyncio
import logging
from collections.abc import Callable

from constraint_crdt.engine.transport import MAX_PAYLOAD, Handler, TransportError

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


class Answering:
    """The runs of one handler. Made and used on one loop."""

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
