"""The committer: what it calls durable is on disk, commits are shared, and a disk that fails is waited for."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from constraint_crdt.crdt.clock import Replica
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.store import Committer, Marker, Store, WritesRefused
from tests.store.disk import BOOT, ME, account, add, copy_store, loaded, open_store, remove, reopened

QUICK = 0.01


class Disk:
    """A store on a disk that can be made to fail, and counts commits."""

    def __init__(self, path: Path) -> None:
        self.path, self.full, self.commits = path, False, 0
        self.committing = threading.Event()
        disk = self

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *rest: object) -> sqlite3.Cursor:
                if sql == "COMMIT":
                    disk.commits += 1
                    disk.committing.set()
                    if disk.full:
                        error = sqlite3.OperationalError("database or disk is full")
                        error.sqlite_errorcode = sqlite3.SQLITE_FULL
                        raise error
                return super().execute(sql, *rest)  # type: ignore[arg-type]

        self.marker = path.with_name("marker")
        self.store: Store = open_store(path, Marker(self.marker, BOOT), factory=Connection)
        self.rows = loaded(self.store)
        self.health: list[str | None] = []
        self.changed = asyncio.Event()
        self.committing.clear()
        self.committer = Committer(self.store, self.rows, on_health=self.on_health, retry_seconds=QUICK)
        self.committer.start()
        self.commits = 0

    def on_health(self, trouble: str | None) -> None:
        self.health.append(trouble)
        self.changed.set()

    def as_after_a_crash(self) -> object:
        """What the files hold now."""
        image = self.path.with_name("image.db")
        copy_store(self.path, image)
        return reopened(image)


@pytest.fixture
async def disk(tmp_path: Path) -> AsyncIterator[Disk]:
    disk = Disk(tmp_path / "a.db")
    yield disk
    disk.full = False
    await disk.committer.close()


@pytest.mark.slow
async def test_durable_means_on_disk(disk: Disk) -> None:
    for step in range(5):
        add(disk.rows, f"c{step}")
        if step % 2:
            remove(disk.rows, f"c{step}")
        await disk.committer.durable()
        assert disk.as_after_a_crash() == account(disk.rows)
        assert disk.committer.on_disk == disk.rows.clock.as_dict()


async def test_it_costs_no_commit_where_nothing_changed(disk: Disk) -> None:
    await disk.committer.durable()
    await disk.committer.durable()
    assert disk.commits == 0


async def test_a_touch_alone_gets_it_written(disk: Disk) -> None:
    add(disk.rows, "x")
    disk.committer.touch()
    assert await asyncio.to_thread(disk.committing.wait, 30)
    await disk.committer.durable()
    assert disk.commits == 1
    assert disk.committer.on_disk == {ME: 1}
    assert disk.as_after_a_crash() == account(disk.rows)


@pytest.mark.slow
async def test_many_that_wait_share_commits(disk: Disk) -> None:
    async def write(name: int) -> None:
        for number in range(5):
            add(disk.rows, f"{name}-{number}")
            await disk.committer.durable()

    await asyncio.gather(*(write(name) for name in range(40)))
    assert disk.commits <= 12, "five rounds, each in one commit or two"
    assert disk.as_after_a_crash() == account(disk.rows)


async def test_changes_that_nobody_waits_for_share_a_commit_and_those_awaited_come_at_once(disk: Disk) -> None:
    other = Replica("b", 1)
    for step in range(20):
        add(disk.rows, f"c{step}", replica=other)
        disk.committer.touch()
        await asyncio.sleep(0)
    assert disk.commits == 0
    await disk.committer.durable()
    assert disk.commits == 1
    assert disk.as_after_a_crash() == account(disk.rows)


async def test_what_a_node_wrote_is_kept_once_it_is_on_disk_and_what_others_wrote_does_not_matter(disk: Disk) -> None:
    assert disk.committer.is_kept(ME)
    add(disk.rows, "x", replica=Replica("b", 1))
    assert disk.committer.is_kept(ME)
    add(disk.rows, "y")
    assert not disk.committer.is_kept(ME)
    await disk.committer.durable()
    assert disk.committer.is_kept(ME)
    disk.committer.end_life()
    assert not disk.committer.is_kept(ME), "a crash would resume the life that is over"
    await disk.committer.durable()
    assert disk.committer.is_kept(ME)


@pytest.mark.slow
async def test_what_changes_during_a_commit_is_in_the_next(disk: Disk) -> None:
    for number in range(20):
        add(disk.rows, f"c{number}")
        disk.committer.touch()
        await asyncio.sleep(0)
    await disk.committer.durable()
    assert disk.as_after_a_crash() == account(disk.rows)


async def test_while_the_disk_refuses_this_life_is_not_vouched_for(disk: Disk) -> None:
    """What it lacks may be told to others meanwhile: after a crash, the node must not write those dots again."""
    add(disk.rows, "before")
    await disk.committer.durable()
    assert disk.marker.exists()
    disk.full = True
    add(disk.rows, "during")
    with pytest.raises(WritesRefused):
        await disk.committer.durable()
    assert not disk.marker.exists()
    disk.full = False
    await disk.committer.durable()
    assert disk.marker.exists(), "all that was told is on disk again"


@pytest.mark.slow
async def test_a_full_disk_refuses_those_that_wait_and_recovers_by_itself(disk: Disk) -> None:
    add(disk.rows, "before")
    await disk.committer.durable()
    before = account(disk.rows)
    disk.full = True
    add(disk.rows, "during")
    waiting = [disk.committer.durable() for _ in range(3)]
    done = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(error) for error in done} == {WritesRefused}
    sentence = f"the disk is full, so nothing can be written to {disk.path}: free some space"
    assert {str(error) for error in done} == {sentence}
    assert (disk.committer.healthy, disk.committer.trouble) == (False, sentence)
    assert disk.as_after_a_crash() == before
    remove(disk.rows, "before")
    with pytest.raises(WritesRefused):
        await disk.committer.durable()
    disk.changed.clear()
    disk.full = False
    await disk.changed.wait()  # nobody touches it
    assert disk.health == [sentence, None]
    assert disk.committer.healthy
    assert disk.as_after_a_crash() == account(disk.rows)


@pytest.mark.slow
async def test_it_tries_at_once_when_something_changes(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "a.db")
    await disk.committer.close()
    disk = Disk(tmp_path / "a.db")
    disk.committer._retry_seconds = 3600
    disk.full = True
    add(disk.rows, "x")
    with pytest.raises(WritesRefused):
        await disk.committer.durable()
    disk.full = False
    disk.committer.touch()
    await disk.changed.wait()
    while not disk.committer.healthy:
        disk.changed.clear()
        await disk.changed.wait()
    await disk.committer.close()
    assert reopened(disk.path) == account(disk.rows)


async def test_closing_writes_what_is_left(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "a.db")
    add(disk.rows, "x")
    disk.committer.touch()
    await asyncio.sleep(0)
    add(disk.rows, "y")
    await disk.committer.close()
    assert reopened(disk.path) == account(disk.rows)
    with pytest.raises(WritesRefused, match="is closed"):
        await disk.committer.durable()


async def test_one_that_never_ran_closes_its_store_too(tmp_path: Path) -> None:
    committer = Committer(open_store(tmp_path / "a.db"), Rows())
    await committer.close()
    await committer.close()
    open_store(tmp_path / "a.db").close()


async def test_closing_on_a_full_disk_says_what_is_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    disk = Disk(tmp_path / "a.db")
    disk.full = True
    add(disk.rows, "x")
    await disk.committer.close()
    assert "the last changes are not on disk: the disk is full" in caplog.text
    assert reopened(disk.path) == account(Rows())


@pytest.mark.slow
async def test_one_that_stops_waiting_disturbs_nobody(disk: Disk) -> None:
    add(disk.rows, "x")
    gone, stays = (disk.committer.durable() for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    await stays
    assert disk.as_after_a_crash() == account(disk.rows)


@pytest.mark.slow
async def test_a_fault_of_ours_is_told_and_hangs_nobody(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk.store, "commit", lambda batch: 1 // 0)
    add(disk.rows, "x")
    with pytest.raises(WritesRefused, match=r"failed \(integer division .*\): see the log, and restart the node"):
        await disk.committer.durable()
    monkeypatch.undo()
    await disk.committer.durable()
    assert disk.as_after_a_crash() == account(disk.rows)


async def test_a_new_life_is_on_disk_with_its_first_cells(disk: Disk) -> None:
    disk.committer.end_life()
    await disk.committer.durable()
    assert not disk.store.identity.vouched
    disk.committer.begin_life(2, "others know more of the life before")
    add(disk.rows, "x", Replica("a", 2))
    await disk.committer.durable()
    assert disk.commits == 2
    assert disk.store.identity[2:] == (2, True, (1,))
    assert disk.store.lives[-1].why == "others know more of the life before"


class HungDisk(Disk):
    """A disk that neither takes a write nor fails, as of a frozen file system."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.thawed = threading.Event()
        self.thawed.set()
        write = self.committer._write
        self.committer._write = lambda batch: (self.thawed.wait(20) and write(batch)) or 0.0  # type: ignore[method-assign]
        self.committer._stall_seconds = 0.05


@pytest.mark.slow
async def test_a_disk_that_hangs_refuses_writes_soon_and_takes_them_again(tmp_path: Path) -> None:
    disk = HungDisk(tmp_path / "a.db")
    disk.thawed.clear()
    add(disk.rows, "a")
    waiting = [disk.committer.durable() for _ in range(36)]
    patient = disk.committer.durable(patient=True)
    refused = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(each) for each in refused} == {WritesRefused}
    assert disk.health == [disk.committer.trouble]
    assert "does not answer" in str(disk.committer.trouble)
    with pytest.raises(WritesRefused, match="does not answer"):
        await disk.committer.durable()
    assert not patient.done(), "gossip would carry what is not on disk, under a marker that vouches for it"
    disk.thawed.set()
    await patient
    assert disk.health == [disk.health[0], None]
    assert disk.as_after_a_crash() == account(disk.rows)
    await disk.committer.close()


async def test_the_close_does_not_wait_for_a_disk_that_hangs(tmp_path: Path) -> None:
    disk = HungDisk(tmp_path / "a.db")
    disk.thawed.clear()
    add(disk.rows, "a")
    patient = disk.committer.durable(patient=True)
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await disk.committer.close()
    assert disk.committer.abandoned
    with pytest.raises(WritesRefused, match="what was not written is lost"):
        await patient
    disk.thawed.set()
    disk.committer._thread.shutdown()
    disk.store.close()
