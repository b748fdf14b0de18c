"""A write of a user: applied at once, acknowledged once it is on disk, pushed after that."""

import asyncio
from collections.abc import Callable

import pytest

from constraint_crdt import GossipNode, WritesRefused
from constraint_crdt.crdt.clock import Dot
from constraint_crdt.runtime.change_feed import ChangeFeed, ChangeOrigin, NodeChange


class Disk:
    """A disk that waits to be told that it has written."""

    def __init__(self) -> None:
        self.trouble: str | None = None
        self.written: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def check(self) -> None:
        if self.trouble is not None:
            raise WritesRefused(self.trouble)

    def durable(self) -> asyncio.Future[None]:
        return self.written


class Fed:
    """A feed, and the changes that each subscriber was called with."""

    def __init__(self) -> None:
        self.gossip = GossipNode("a")
        self.disk = Disk()
        self.feed = ChangeFeed(self.gossip, self.disk)
        self.changes: list[NodeChange] = []
        self.feed.subscribe(self.changes.append, *ChangeOrigin)

    @property
    def origins(self) -> list[ChangeOrigin]:
        return [change.origin for change in self.changes]

    async def begin(self, mutate: Callable[[], Dot | None]) -> "asyncio.Task[Dot | None]":
        """A commit that waits for the disk."""
        task = asyncio.create_task(self.feed.commit(mutate))
        await asyncio.sleep(0)  # the task runs until it waits for the disk
        return task


async def test_a_write_is_pushed_after_its_commit() -> None:
    fed = Fed()
    commit = await fed.begin(lambda: fed.gossip.record_satisfied(1))
    assert fed.origins == [ChangeOrigin.WRITTEN]
    assert not fed.changes[0].push
    fed.disk.written.set_result(None)
    await commit
    assert fed.origins == [ChangeOrigin.WRITTEN, ChangeOrigin.COMMITTED]
    assert fed.changes[1].push
    assert not fed.changes[1].state_changed


async def test_a_write_is_pushed_though_its_caller_no_longer_waits() -> None:
    fed = Fed()
    commit = await fed.begin(lambda: fed.gossip.record_satisfied(1))
    commit.cancel()
    with pytest.raises(asyncio.CancelledError):
        await commit
    assert fed.origins == [ChangeOrigin.WRITTEN, ChangeOrigin.COMMITTED]


async def test_a_write_that_failed_is_not_pushed() -> None:
    fed = Fed()

    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fed.feed.commit(fail)
    assert fed.origins == [ChangeOrigin.WRITTEN]  # it may have begun another life


async def test_a_write_that_the_disk_refuses_beforehand_does_nothing() -> None:
    fed = Fed()
    fed.disk.trouble = "the disk is full"
    with pytest.raises(WritesRefused):
        await fed.feed.commit(lambda: fed.gossip.record_satisfied(1))
    assert fed.changes == []
