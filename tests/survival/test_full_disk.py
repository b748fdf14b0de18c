"""A disk that takes nothing: the node refuses writes, says why, goes on reading and gossiping, and recovers by itself."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from constraint_crdt import MemoryNetwork, Node
from constraint_crdt.store import WritesRefused
from constraint_crdt.types.definition import ADD
from tests.runtime.fleet import agreed, eventually
from tests.survival.disk import SmallDisk, mounted
from tests.survival.nodes import boot, counts, ids, marker_file, node_on
from tests.survival.watching import DotWatch, copy_store, overwrite_store, stored

pytestmark = pytest.mark.processes

REFUSALS = 5
"""So many tries in a row, with the disk filled up again before each, and it is full."""

RECOVERY = 5.0
"""Seconds within which a node notices that there is space again."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with mounted(tmp_path / "disk") as made:
        yield made


class Pair:
    """`a` keeps its store on the small disk, `b` none; both on one network, and whatever a dot ever held."""

    def __init__(self, directory: Path, disk: SmallDisk) -> None:
        self.directory, self.disk, self.store = directory, disk, disk.directory / "node.db"
        self.network, self.watch = MemoryNetwork(), DotWatch()
        self.b = node_on(self.network, "b")
        self.acknowledged: set[str] = set()

    async def start(self) -> Node:
        a = node_on(self.network, "a", self.store)
        self.watch.read(a.gossip.state.rows)
        await a.start()
        self.watch.follow(a.gossip.state.rows)
        return a

    async def add(self, a: Node, id_: str) -> None:
        await a.add_constraint(id_)
        self.acknowledged.add(id_)

    async def write_until_refused(self, a: Node) -> None:
        """Write, and fill the disk up, until it takes nothing any more: closing its file, a node may find a last bit of space."""
        in_a_row = 0
        for number in range(10_000):
            self.disk.fill()
            with contextlib.suppress(WritesRefused):
                await self.add(a, f"into-the-wall-{number}")
            in_a_row = in_a_row + 1 if await self.is_refused(a) else 0
            if in_a_row == REFUSALS:
                assert a.status().trouble == f"the disk is full, so nothing can be written to {self.store}: free some space"
                return
        raise AssertionError("the disk never filled up")

    async def is_refused(self, a: Node) -> bool:
        """Have the node try once more to write what it has in memory."""
        try:
            await a._runtime.persistence.durable()
        except WritesRefused:
            return True
        return False

    async def still_serves(self, a: Node, tag: str) -> None:
        """Reads, and gossip both ways: what `b` says arrives, and `b` is live to `a`."""
        trouble = a.status().trouble
        assert trouble
        await self.b.add_constraint(f"from-b-{tag}")
        self.acknowledged.add(f"from-b-{tag}")
        await eventually(lambda: f"from-b-{tag}" in ids(a))
        assert a.storage().trouble
        with pytest.raises(WritesRefused):
            await a.record(1_000_000)
        assert counts(a)[0] < 1_000_000

    async def recovered(self, a: Node) -> None:
        await eventually(lambda: a.status().trouble is None, RECOVERY)
        await self.add(a, "after")
        await eventually(lambda: agreed([a, self.b]))
        assert self.acknowledged <= ids(a)
        assert ids(self.b) == ids(a)

    def on_disk(self, store: Path | None = None) -> set[str]:
        """What a restart would find in a store that nobody uses, read from a copy elsewhere."""
        rows = stored(store or self.store, self.directory / "scratch", node="a")
        self.watch.read(rows)
        return {str(key) for key in rows.table(ADD)}

    async def at_rest(self, a: Node) -> None:
        """Return between two tries of the node to write, so that its files can be copied as a kill would leave them."""
        await self.is_refused(a)


@pytest.fixture
async def pair(tmp_path: Path, disk: SmallDisk, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pair]:
    boot(monkeypatch, tmp_path / "run")
    made = Pair(tmp_path, disk)
    await made.b.start()
    made.watch.follow(made.b.gossip.state.rows)
    yield made
    await made.b.stop()


async def test_a_full_disk_refuses_writes_and_nothing_else_and_is_over_when_there_is_space(pair: Pair, disk: SmallDisk) -> None:
    a = await pair.start()
    await pair.add(a, "before")
    disk.fill()
    await pair.write_until_refused(a)
    await pair.still_serves(a, "full")
    disk.free()
    await pair.recovered(a)
    await a.stop()
    assert pair.on_disk() == ids(a)
    again = await pair.start()
    assert ids(again) == ids(a)
    await pair.add(again, "later")
    await eventually(lambda: agreed([again, pair.b]))
    await again.stop()
    assert pair.watch.conflicts == []


@pytest.mark.long
async def test_so_does_one_that_becomes_read_only(pair: Pair, disk: SmallDisk) -> None:
    a = await pair.start()
    await pair.add(a, "before")
    disk.fill()
    await pair.write_until_refused(a)
    disk.make_read_only()
    await pair.at_rest(a)  # no try that began before goes on: it would keep its open file, which stays writable
    disk.free()
    says = "is read-only: make the file, its directory and its file system writable"
    async with asyncio.timeout(20):
        while says not in (a.status().trouble or ""):
            await pair.at_rest(a)
            await asyncio.sleep(0.005)
    await pair.still_serves(a, "read-only")
    disk.make_writable()
    await pair.recovered(a)
    await a.stop()
    assert pair.watch.conflicts == []


@pytest.mark.long
async def test_killed_while_the_disk_is_full_it_reuses_no_dot_of_what_it_had_said(pair: Pair, disk: SmallDisk) -> None:
    """A write that the full disk refuses half-way is in memory, and may be told. Restarted without it, on the same boot, the node
    must not give its number to another write.
    """
    a = await pair.start()
    await pair.add(a, "before")
    disk.fill()
    await pair.write_until_refused(a)
    lost = a.gossip.replica, a.gossip.state.rows.seq(a.gossip.replica)
    await eventually(lambda: agreed([a, pair.b]))
    pair.network.cut(["a"], ["b"])
    at_death, marker = pair.directory / "at-death" / "node.db", marker_file(pair.store, pair.directory / "run")
    await pair.at_rest(a)
    copy_store(pair.store, at_death)
    vouching = marker.read_bytes() if marker.exists() else b""
    assert pair.acknowledged <= pair.on_disk(at_death)
    disk.free()
    await a.stop()
    overwrite_store(at_death, pair.store)
    marker.write_bytes(vouching)
    again = await pair.start()
    await pair.add(again, "instead")
    await pair.add(again, "and-more")
    assert again.gossip.replica != lost[0] or again.gossip.state.rows.seq(lost[0]) > lost[1]
    pair.network.heal()
    await pair.recovered(again)
    assert again.gossip.alarms == pair.b.gossip.alarms == 0
    await again.stop()
    assert pair.watch.conflicts == []
