"""The store of a node on disk: cells, clock, floors and identity.

`store` is the SQLite file, its tables and the content of a commit. `files` has path, lock, marker and errors.
docs/design/identity-and-durability.md gives the reasons, and docs/reference/store.md explains the store for operators.

The committer follows the changes of a node's rows since the last commit, and commits them in a thread, in groups. Rules
(docs/design/identity-and-durability.md#durability): a single commit runs at a time, and later changes form the next group, so a
change waits for one other commit at most. Changes without a waiter gather a moment: those from peers, which are on disk at
their writers. A batch is made on the loop, at an instant, and written in the thread. A failed batch is kept and retried every
second, and with each change, until the disk takes writes again.

A disk may hang, neither taking a write nor failing. After `STALL_SECONDS` writes are refused, those that wait included; they stay
in memory, and are on disk once the disk goes on. Gossip waits meanwhile (`patient`), since the marker still vouches for the store.
A committer that closes then leaves the thread and the file to the end of the process.

Rules of a batch: a batch has all changes since the last successful commit, so its cells, clock and floors belong together. The next
batch repeats the changes of a failed batch. Deletes precede puts, because a key may have been written again.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from constraint_crdt.crdt.cells import Cell, Key, Run
from constraint_crdt.crdt.clock import ClockMark, Replica
from constraint_crdt.crdt.rows import Known, Rows
from constraint_crdt.errors import StoreError, WritesRefused
from constraint_crdt.model import DurationHistogram
from constraint_crdt.store.files import Marker, default_path, marker_for, set_aside
from constraint_crdt.store.store import (
    CommitBatch,
    Fallen,
    Identity,
    Life,
    Rollback,
    Store,
    StoreCopy,
    back_up,
    check_backup,
    put_back,
    read_store,
)

__all__ = [
    "Committer",
    "Identity",
    "Life",
    "Marker",
    "Rollback",
    "Store",
    "StoreCopy",
    "StoreError",
    "WritesRefused",
    "back_up",
    "check_backup",
    "default_path",
    "marker_for",
    "put_back",
    "read_store",
    "set_aside",
]


RETRY_SECONDS = 1.0
"""Seconds between two attempts while the disk refuses writes and no change comes."""

GATHER_SECONDS = 0.05
"""Seconds for which changes without a waiter gather, as those from peers: each commit flushes the disk."""

STALL_SECONDS = 10.0
"""Seconds after which a commit that has not returned counts as a disk that hangs."""

CLOSE_SECONDS = 5.0
"""Seconds for closing the file of a store."""

LOOK_SECONDS = 0.5
"""Seconds between two looks at a disk that hangs, during the close."""

COMMIT_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Seconds: the upper bounds of the histogram of commits by duration."""

_log = logging.getLogger("constraint_crdt.store")


class Changes:
    """Follows a node's `Rows`, and is the only caller of `take_dropped` and `take_repaired`."""

    def __init__(self, rows: Rows) -> None:
        """`rows` are as on disk now."""
        self._rows = rows
        self._clock = rows.clock_mark
        self._floors = rows.floors
        self._tried: Mapping[Replica, int] = self._clock.entries
        """The clock of the last batch: a failed commit may have reached the disk."""
        self._fallen: dict[tuple[Replica, int, Key], int] = {}
        self._mended: list[Cell] = []
        self._lives: list[Life] = []
        self._life_ends = False
        self._taken: tuple[ClockMark, dict[Replica, int], int] | None = None
        self._reset: set[Replica] = set()
        self._stubs: set[Replica] = set()
        rows.take_dropped()
        rows.take_repaired()
        rows.take_reset()
        if rows.signed is not None:
            rows.signed.take_changed()

    @property
    def on_disk(self) -> Mapping[Replica, int]:
        """The clock on disk."""
        return self._clock.entries

    def is_kept(self, life: Replica) -> bool:
        """True if all that a life of this node wrote is on disk, and the end of its life before, if it ended."""
        return not self._life_ends and not self._lives and self._rows.seq(life) <= self._clock.entries.get(life, 0)

    def begin_life(self, life: Life) -> None:
        """Have the next batch begin a life of the node."""
        self._lives.append(life)
        self._life_ends = False

    def end_life(self) -> None:
        """Have the next batch end the life on disk."""
        self._life_ends = True

    def take(self) -> CommitBatch | None:
        """The next batch, or None without changes. Call `done` after the commit; until then the next batch repeats the changes.
        O(rows + changes).
        """
        rows = self._rows
        self._gather_fallen()
        self._mended += rows.take_repaired()
        self._reset |= rows.take_reset()
        clock, floors = rows.clock_mark, rows.floors
        if rows.signed is not None:
            self._stubs |= rows.signed.take_changed()
        others = self._fallen or self._mended or self._lives or self._life_ends or self._reset or self._stubs
        if clock is self._clock and floors == self._floors and not others:
            return None
        self._tried = clock.entries
        self._taken = clock, floors, len(self._lives)
        known: Known = self._clock
        if self._reset:
            known = {replica: seq for replica, seq in self._clock.entries.items() if replica not in self._reset}
        news, seal, signed = rows.since(known), rows.seal, rows.signed
        changed = {
            replica: floor for replica, floor in floors.items() if floor != self._floors.get(replica, 0) or replica in self._reset
        }
        fallen = [Fallen(*place, seq) for place, seq in self._fallen.items()]
        stubs = {} if signed is None else {each: signed.stubs(each) for each in self._stubs if each in clock.entries}
        return CommitBatch(
            [*self._repaired(), *news], fallen, changed, seal, tuple(self._lives), self._life_ends, frozenset(self._reset), stubs
        )

    def done(self, batch: CommitBatch) -> None:
        """The last batch is on disk."""
        assert self._taken is not None, "nothing was taken"  # noqa: S101 - a fault of the caller, not of the input
        self._clock, self._floors, lives = self._taken
        self._taken = None
        self._fallen.clear()  # only `take` adds to it
        self._mended.clear()  # the same
        self._reset.clear()
        self._stubs.clear()
        del self._lives[:lives]
        if batch.life_ends and not self._lives:  # else the end belongs to a life begun meanwhile
            self._life_ends = False

    def _repaired(self) -> list[Run]:
        """The standing cells of a repair below the clock on disk: incomplete runs, for writing only."""
        rows = self._rows
        standing = [cell for cell in self._mended if rows.get(cell.kind, cell.key, cell.replica) is cell]
        return [Run(cell.replica, cell.seq - 1, rows.seq(cell.replica), [cell]) for cell in standing]

    def _gather_fallen(self) -> None:
        tried = self._tried
        for cell in self._rows.take_dropped():
            # A cell without a key has nothing on disk before its first batch. A cell with a key may have an older cell there. So
            # the many removals made and dropped between two commits cost nothing here.
            if isinstance(cell.key, str) or cell.seq <= tried.get(cell.replica, 0):
                place = (cell.replica, cell.kind, cell.key)
                self._fallen[place] = max(cell.seq, self._fallen.get(place, 0))


class Committer:
    """Keeps a store equal to rows. Belongs to a single event loop, and is the only user of the store until `close`."""

    def __init__(
        self,
        store: Store,
        rows: Rows,
        *,
        before: Callable[[], object] | None = None,
        on_health: Callable[[str | None], None] = lambda _: None,
        retry_seconds: float = RETRY_SECONDS,
        stall_seconds: float = STALL_SECONDS,
        gather_seconds: float = GATHER_SECONDS,
    ) -> None:
        """`rows` were just restored from `store`. `before` is called before each commit, and may write. `on_health`: a callback on
        the loop, with the reason when writes begin to be refused, and None when writes are taken again.
        """
        self._store = store
        self._changes = Changes(rows)
        self._before = before
        self._on_health = on_health
        self._retry_seconds = retry_seconds
        self._stall_seconds = stall_seconds
        self._gather_seconds = gather_seconds
        self._stalled = False
        self.abandoned = False
        """The committer was closed while its thread waited for the disk."""
        self._patient: set[asyncio.Future[None]] = set()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._waiters: list[asyncio.Future[None]] = []
        self._committed: list[asyncio.Future[None]] = []
        """Those whose changes are in the commit that runs."""
        self._wake = asyncio.Event()
        self._awaited = asyncio.Event()
        """Somebody waits for the next commit."""
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
        """The clock on disk. Cells of this node beyond it must not be sent."""
        return self._changes.on_disk

    def start(self) -> None:
        """Begin to commit, on the running loop."""
        self._task = asyncio.create_task(self._run(), name="store commits")

    def touch(self) -> None:
        """The state may have changed: commit soon."""
        self._wake.set()

    def durable(self, *, patient: bool = False) -> "asyncio.Future[None]":
        """A future that is done once all changes up to now are on disk and in the marker.

        `patient`: wait for a disk that hangs. Raises `WritesRefused`, as the future does after a failure. The changes stay in
        memory and are retried.
        """
        if self._closing or self._task is None:
            raise WritesRefused(f"the store {self._store.path} is closed: start the node again")
        if self._stalled and not patient:
            raise WritesRefused(self._trouble)
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        if patient:
            self._patient.add(waiter)
            waiter.add_done_callback(self._patient.discard)
        self._awaited.set()
        self._wake.set()
        return waiter

    def is_kept(self, life: Replica) -> bool:
        """True if all that a life of this node wrote is on disk: nothing that other nodes may hear of waits for a commit."""
        return self._changes.is_kept(life)

    def begin_life(self, incarnation: int, why: str) -> None:
        """The node writes as another incarnation from now on; on disk together with its first cells."""
        self._changes.begin_life(Life(incarnation, time.time_ns(), why))
        self.touch()

    def end_life(self) -> None:
        """End the life of the node on disk, also for restarts vouched for by the marker: peers know more of this life."""
        self._changes.end_life()
        self._awaited.set()
        self.touch()

    async def close(self) -> None:
        """Commit the last changes, then close the store. Changes refused by the disk are lost, with a log entry. Idempotent."""
        self._closing = True
        task, self._task = self._task, None
        if task is not None:
            self._awaited.set()
            self._wake.set()
            await task
            if self._trouble is not None:
                _log.error("the last changes are not on disk: %s", self._trouble)
        if not self.abandoned:  # else the lock ends with the process
            self._thread.shutdown()
            closing = asyncio.ensure_future(asyncio.to_thread(self._store.close))
            done, _ = await asyncio.wait({closing}, timeout=CLOSE_SECONDS)
            self.abandoned = not done
        if self.abandoned:
            self._thread.shutdown(wait=False)
            _log.error("the disk under %s does not answer: its file is left as it is", self._store.path)

    # --- the loop ----------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while not self._closing:
            await self._woken()
            await self._commit()
        if not self.abandoned:
            await self._commit()  # changes made during the last commit

    async def _woken(self) -> None:
        if self.healthy:
            await self._wake.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._gather_seconds):
                    await self._awaited.wait()
            self._awaited.clear()
            self._wake.clear()
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._retry_seconds):
                await self._wake.wait()
        self._wake.clear()

    async def _commit(self) -> None:
        waiters, self._waiters = self._waiters, []
        self._committed = waiters
        trouble: str | None = None
        try:
            if self._before is not None:
                self._before()
            batch = self._changes.take()
            if batch is not None:
                took = await self._watched(asyncio.get_running_loop().run_in_executor(self._thread, self._write, batch))
                self._changes.done(batch)
                self.durations.note(took)
        except WritesRefused as error:
            trouble = str(error)
        except Exception as error:
            _log.exception("a fault in the store")
            trouble = f"the store {self._store.path} failed ({error}): see the log, and restart the node"
        self._stalled = self.abandoned
        for waiter in waiters:
            if waiter.done():
                continue
            if trouble is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(WritesRefused(trouble))
        self._tell(trouble)

    def _tell(self, trouble: str | None) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            self._on_health(trouble)

    async def _watched(self, commit: "asyncio.Future[float]") -> float:
        """Wait for a commit. Raises its error, and `WritesRefused` if the disk still hangs when the committer closes."""
        await asyncio.wait({commit}, timeout=self._stall_seconds)
        while not commit.done():
            sentence = f"the disk under {self._store.path} does not answer, and {{}}: look whether it is mounted, frozen or failing"
            if self._closing:
                self.abandoned = True
                commit.add_done_callback(_ignore)
                raise WritesRefused(sentence.format("what was not written is lost"))
            self._stalled = True
            self._tell(sentence.format("writes wait for it"))
            for waiter in [*self._committed, *self._waiters]:
                if waiter not in self._patient and not waiter.done():
                    waiter.set_exception(WritesRefused(self._trouble))
            self._waiters = [waiter for waiter in self._waiters if not waiter.done()]
            await asyncio.wait({commit}, timeout=LOOK_SECONDS)
        return commit.result()

    def _write(self, batch: CommitBatch) -> float:
        """Commit in the thread. Returns the duration in seconds."""
        began = time.perf_counter()
        self._store.commit(batch)
        return time.perf_counter() - began


def _ignore(commit: "asyncio.Future[float]") -> None:
    """The committer waits no more for the end of a commit, so its error has no reader."""
    if not commit.cancelled():
        commit.exception()
