"""Committer: has what changes on the event loop committed in a thread, in groups (DESIGN 5).

Rules: one commit runs at a time; what changes meanwhile gathers for the next, so nothing waits longer than the commit before it.
A batch is made on the loop, at one instant, and written in the thread. A failed one is kept and tried again, every second and
whenever something changes, until the disk takes it: it recovers by itself.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from constraint_crdt.crdt.replica import Replica
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.errors import WritesRefused
from constraint_crdt.store.changes import Batch, Changes, Life
from constraint_crdt.store.histogram import Durations
from constraint_crdt.store.store import Store

RETRY_SECONDS = 1.0
"""Between two tries while the disk takes nothing and nothing changes."""

COMMIT_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Seconds: the steps in which commits are counted by how long they took."""

_log = logging.getLogger("constraint_crdt.store")


class Committer:
    """Keeps a store equal to rows. Use it on one event loop; it is the only one to use the store until it is closed."""

    def __init__(
        self,
        store: Store,
        rows: Rows,
        *,
        on_health: Callable[[str | None], None] = lambda _: None,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        """`rows` are as `store` has them: just restored. `on_health` is told the trouble when writes begin to be refused, and None
        when they are taken again; on the loop.
        """
        self._store = store
        self._changes = Changes(rows)
        self._on_health = on_health
        self._retry_seconds = retry_seconds
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._waiters: list[asyncio.Future[None]] = []
        self._wake = asyncio.Event()
        self._closing = False
        self.durations = Durations(COMMIT_BOUNDS)
        """How long each commit took that the disk took."""
        self._trouble: str | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def trouble(self) -> str | None:
        """Why the disk takes no writes, in one sentence; None while it does."""
        return self._trouble

    @property
    def healthy(self) -> bool:
        """True while the disk takes writes, as far as was tried."""
        return self._trouble is None

    @property
    def waiting(self) -> int:
        """How many callers of `durable` wait for the next commit."""
        return len(self._waiters)

    @property
    def on_disk(self) -> Mapping[Replica, int]:
        """The clock of what is on disk. A cell above it must not leave the node."""
        return self._changes.on_disk

    def start(self) -> None:
        """Begin to commit, on the running loop."""
        self._task = asyncio.create_task(self._run(), name="store commits")

    def touch(self) -> None:
        """Something may have changed: have it committed soon."""
        self._wake.set()

    async def durable(self) -> None:
        """Return once all that changed up to now is on disk and in the marker.

        Raises `WritesRefused` if it cannot be: it stays in memory, and is tried again.
        """
        if self._closing or self._task is None:
            raise WritesRefused(f"the store {self._store.path} is closed: start the node again")
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._wake.set()
        await waiter

    def begin_life(self, incarnation: int, why: str) -> None:
        """The node writes as another incarnation from now on; on disk together with its first cells."""
        self._changes.begin_life(Life(incarnation, time.time_ns(), why))
        self.touch()

    def end_life(self) -> None:
        """The node's life must not go on, not even after a restart that the marker vouches for: others know more of it."""
        self._changes.end_life()
        self.touch()

    async def close(self) -> None:
        """Commit what is left, then close the store. What the disk does not take is lost, and said in the log. Idempotent."""
        self._closing = True
        task, self._task = self._task, None
        if task is not None:
            self._wake.set()
            await task
            if self._trouble is not None:
                _log.error("the last changes are not on disk: %s", self._trouble)
        self._thread.shutdown()
        await asyncio.to_thread(self._store.close)

    # --- the loop ----------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while not self._closing:
            await self._woken()
            await self._commit()
        await self._commit()  # what changed during the last one

    async def _woken(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if self.healthy else self._retry_seconds):
                await self._wake.wait()
        self._wake.clear()

    async def _commit(self) -> None:
        waiters, self._waiters = self._waiters, []
        trouble: str | None = None
        try:
            batch = self._changes.take()
            if batch is not None:
                took = await asyncio.get_running_loop().run_in_executor(self._thread, self._write, batch)
                self._changes.done(batch)
                self.durations.note(took)
        except WritesRefused as error:
            trouble = str(error)
        except Exception as error:
            _log.exception("a fault in the store")
            trouble = f"the store {self._store.path} failed ({error}): see the log, and restart the node"
        for waiter in waiters:
            if waiter.done():
                continue
            if trouble is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(WritesRefused(trouble))
        if trouble != self._trouble:
            self._trouble = trouble
            self._on_health(trouble)

    def _write(self, batch: Batch) -> float:
        """Commit, in the thread. Returns how many seconds that took."""
        began = time.perf_counter()
        self._store.commit(batch)
        return time.perf_counter() - began
