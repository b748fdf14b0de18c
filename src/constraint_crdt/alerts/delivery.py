"""Webhooks: a POST of JSON per message, in order for each address, with retries.

Rules: the event loop never waits; two threads send. Each address has a bounded queue. A full queue drops its oldest message.
Addresses may hold secrets, so the log has only their scheme, host and port.
"""

import asyncio
import http.client
import logging
import urllib.parse
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import msgspec

from constraint_crdt.alerts.rules import shown_place

QUEUED = 256
"""Messages in the queue of an address, at most."""

TIMEOUT = 5.0
"""Seconds without an answer after which an attempt fails."""

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
"""Seconds between two attempts: each pause is twice the last, between these bounds."""

ATTEMPTS = 10
"""Attempts after which a message is dropped. They take some five minutes."""

THREADS = 2

_WORTH_TRYING_AGAIN = frozenset({408, 425, 429})
_log = logging.getLogger("constraint_crdt.alerts")


class Webhooks:
    """Delivers messages to addresses. Belongs to a single event loop."""

    def __init__(self, *, first_pause: float = FIRST_PAUSE) -> None:
        """`first_pause`: seconds before the second attempt."""
        self._first_pause = first_pause
        self._queues: dict[str, deque[bytes]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._threads: ThreadPoolExecutor | None = None
        self.delivered = 0
        self.dropped = 0

    @property
    def waiting(self) -> int:
        """Messages in all queues."""
        return sum(map(len, self._queues.values()))

    def send(self, url: str, message: Mapping[str, object]) -> None:
        """Queue a message for `url`. Returns at once."""
        queue = self._queues.setdefault(url, deque())
        queue.append(msgspec.json.encode(message))
        if len(queue) > QUEUED:
            queue.popleft()
            self._drop(url, f"more than {QUEUED} wait")
        task = self._tasks.get(url)
        if task is None or task.done():
            self._tasks[url] = asyncio.create_task(self._deliver_all(url, queue), name=f"webhook {shown_place(url)}")

    async def close(self) -> None:
        """Stop delivery. Messages in the queues are lost."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None

    async def _deliver_all(self, url: str, queue: deque[bytes]) -> None:
        while queue:
            message = queue[0]
            why = await self._deliver(url, message)
            if why is None:
                self.delivered += 1
            else:
                self._drop(url, why)
            if queue and queue[0] is message:  # else it was dropped meanwhile from a full queue
                queue.popleft()

    async def _deliver(self, url: str, message: bytes) -> str | None:
        """Deliver a message. Returns the reason of a failure, else None."""
        loop = asyncio.get_running_loop()
        pause, why = self._first_pause, ""
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
            if self._threads is None:
                self._threads = ThreadPoolExecutor(THREADS, "webhook")
            answered = await loop.run_in_executor(self._threads, _post, url, message)
            if isinstance(answered, int) and 200 <= answered < 300:
                return None
            why = f"answered {answered}" if isinstance(answered, int) else answered
            if isinstance(answered, int) and answered < 500 and answered not in _WORTH_TRYING_AGAIN:
                return why
        return why

    def _drop(self, url: str, why: str) -> None:
        self.dropped += 1
        _log.warning("a message for %s is dropped: %s", shown_place(url), why)


def _post(url: str, message: bytes) -> int | str:
    """A single attempt. Returns the HTTP status, or the reason for a missing answer."""
    parts = urllib.parse.urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=TIMEOUT)
    target = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
    try:
        connection.request("POST", target, message, {"Content-Type": "application/json", "User-Agent": "constraint-crdt"})
        return connection.getresponse().status
    except TimeoutError:
        return "no answer in time"
    except OSError as error:
        return error.strerror or type(error).__name__
    except http.client.HTTPException as error:
        return type(error).__name__
    finally:
        connection.close()
