"""The committer: commits the changes of the event loop in a thread, in groups.

Rules (docs/design/identity-and-durability.md#durability): a single commit runs at a time, and later changes form the next group, so
a change waits for one other commit at most. A batch is made on the loop, at an instant, and written in the thread. A failed batch
is kept and retried every second, and with each change, until the disk takes writes again.
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
from constraint_crdt.model import DurationHistogram
from constraint_crdt.store.changes import Changes, CommitBatch, Life
from constraint_crdt.store.store import Store

RETRY_SECONDS = 1.0
"""Seconds between two attempts while the disk refuses writes and no change comes."""

COMMIT_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Seconds: the upper bounds of the histogram of commits by duration."""

_log = logging.getLogger("constraint_crdt.store")


class Committer:
    """Keeps a store equal to rows. Belongs to a single event loop, and is the only user of the store until `close`."""

    def __init__(
        self,
        store: Store,
        rows: Rows,
        *,
        on_health: Callable[[str | None], None] = lambda _: None,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        """`rows` were just restored from `store`. `on_health`: a callback on the loop, with the reason when writes begin to be
        refused, and None when writes are taken again.
        """
        self._store = store
        self._changes = Changes(rows)
        self._on_health = on_health
        self._retry_seconds = retry_seconds
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._waiters: list[asyncio.Future[None]] = []
        self._wake = asyncio.Event()
        self._closing = False
        self.durations = DurationHistogram(COMMIT_BOUNDS)
        """The durations of successful commits."""
        self._trouble: str | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def trouble(self) -> str | None:
        """The reason for refused writes, in a sentence; None while writes are taken."""
        return self._trouble

    @property
    def healthy(self) -> bool:
        """True while the disk takes writes, by the last attempt."""
        return self._trouble is None

    @property
    def waiting(self) -> int:
        """The number of `durable` calls waiting for the next commit."""
        return len(self._waiters)

    @property
    def on_disk(self) -> Mapping[Replica, int]:
        """The clock on disk. Cells beyond this clock must not be sent."""
        return self._changes.on_disk

    def start(self) -> None:
        """Begin to commit, on the running loop."""
        self._task = asyncio.create_task(self._run(), name="store commits")

    def touch(self) -> None:
        """The state may have changed: commit soon."""
        self._wake.set()

    async def durable(self) -> None:
        """Return once all changes up to now are on disk and in the marker.

        Raises `WritesRefused` after a failure. The changes stay in memory and are retried.
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
        """End the life of the node on disk, also for restarts vouched for by the marker: peers know more of this life."""
        self._changes.end_life()
        self.touch()

    async def close(self) -> None:
        """Commit the last changes, then close the store. Changes refused by the disk are lost, with a log entry. Idempotent."""
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
        await self._commit()  # changes made during the last commit

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

    def _write(self, batch: CommitBatch) -> float:
        """Commit in the thread. Returns the duration in seconds."""
        began = time.perf_counter()
        self._store.commit(batch)
        return time.perf_counter() - began
