"""An old copy of a store, put back and started: it cannot know what it has lost, so it must never write as the life it was."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from constraint_crdt import MemoryNetwork, Node
from constraint_crdt.crdt.clock import Replica
from tests.runtime.fleet import agreed, eventually
from tests.survival.nodes import boot, counts, ids, marker_file, node_on
from tests.survival.watching import DotWatch, copy_store, stored

pytestmark = pytest.mark.processes

OTHERS = ("b", "c")


class Scene:
    """Node `a` has a store; `b` and `c` see all that it says, and remember."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory, self.monkeypatch = directory, monkeypatch
        self.store, self.backup, self.runtime = directory / "a" / "node.db", directory / "backup" / "node.db", directory / "run"
        self.network, self.watch = MemoryNetwork(), DotWatch()
        self.others = [node_on(self.network, name) for name in OTHERS]
        self.lives: set[Replica] = set()

    async def start(self, *, runtime: Path | None = None) -> Node:
        boot(self.monkeypatch, runtime or self.runtime)
        node = node_on(self.network, "a", self.store)
        self.watch.read(node.gossip.state.rows)
        await node.start()
        self.watch.follow(node.gossip.state.rows)
        self.lives.add(node.gossip.replica)
        return node

    async def agree(self, node: Node) -> None:
        await eventually(lambda: agreed([node, *self.others]))

    async def lived(self) -> None:
        """`a` begins, is copied while it runs, and goes on: adds, removes, counts, all heard by the others. Then it ends."""
        a = await self.start()
        for number in range(10):
            await a.add_constraint(f"early-{number}")
        await a.record(10, 1)
        await self.agree(a)
        copy_store(self.store, self.backup)
        for number in range(10):
            await a.add_constraint(f"late-{number}")
        for number in range(5):
            await a.remove_constraint(f"early-{number}")
        await a.record(7, 2)
        await self.agree(a)
        self.network.cut(["a"], OTHERS)
        await a.add_constraint("never-heard")
        await a.record(1_000, 0)
        await a.stop()

    async def write_cut_off(self, a: Node, tag: str) -> None:
        """What the restored copy does before it hears from anyone."""
        assert a.status().peers == 0
        for number in range(10):
            await a.add_constraint(f"{tag}-{number}")
        await a.add_constraint("early-1", about=f"edited by {tag}")
        await a.remove_constraint("early-9")
        await a.record(5, 3)

    async def judge(self, a: Node, tags: list[str]) -> None:
        """Connected again: everything anybody acknowledged to the fleet is there, once."""
        self.network.heal()
        await self.agree(a)
        expected = {f"late-{n}" for n in range(10)} | {f"early-{n}" for n in (1, 5, 6, 7, 8)}
        expected |= {f"{tag}-{n}" for tag in tags for n in range(10)}
        for node in (a, *self.others):
            assert ids(node) == expected
            assert counts(node) == (17 + 5 * len(tags), 3 + 3 * len(tags))
            assert node.gossip.alarms == 0
        await a.add_constraint("afterwards")
        await self.agree(a)
        await a.stop()
        self.watch.read(stored(self.store, self.directory / "scratch", node="a"))
        assert self.watch.conflicts == []


@pytest.fixture
async def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    made = Scene(tmp_path, monkeypatch)
    for other in made.others:
        await other.start()
        made.watch.follow(other.gossip.state.rows)
    yield made
    for other in made.others:
        await other.stop()


@pytest.mark.long(by_day=["True"])
@pytest.mark.parametrize("same_boot", [True, False])
async def test_a_copy_put_back_writes_as_a_new_life_also_before_it_hears_from_anyone(scene: Scene, *, same_boot: bool) -> None:
    await scene.lived()
    copy_store(scene.backup, scene.store)
    a = await scene.start(runtime=None if same_boot else scene.directory / "other-boot")
    await scene.write_cut_off(a, "restored")
    assert len(scene.lives) == 2
    assert [life.incarnation for life in a.identity().lives] == [f"{life.incarnation:x}" for life in _in_order(scene, a)]
    await scene.judge(a, ["restored"])


@pytest.mark.long
async def test_put_back_twice_it_is_a_third_life(scene: Scene) -> None:
    """What the first restored copy wrote is heard of by the fleet, the second time it is not on disk any more."""
    await scene.lived()
    copy_store(scene.backup, scene.store)
    a = await scene.start()
    await scene.write_cut_off(a, "first")
    scene.network.heal()
    await scene.agree(a)
    scene.network.cut(["a"], OTHERS)
    await a.stop()
    copy_store(scene.backup, scene.store)
    a = await scene.start()
    for number in range(10):
        await a.add_constraint(f"second-{number}")
    await a.add_constraint("early-1", about="again")
    await a.record(5, 3)
    assert len(scene.lives) == 3
    await scene.judge(a, ["first", "second"])


@pytest.mark.long
async def test_a_restored_copy_that_is_restarted_before_it_hears_goes_on_as_its_new_life(scene: Scene) -> None:
    await scene.lived()
    copy_store(scene.backup, scene.store)
    a = await scene.start()
    await a.stop()
    a = await scene.start()
    await scene.write_cut_off(a, "restored")
    assert len(scene.lives) == 2
    await scene.judge(a, ["restored"])


async def test_a_marker_that_came_back_with_the_store_is_told_by_the_file_that_it_is_not(scene: Scene) -> None:
    """Store and runtime directory from one backup: what differs is the file, put there anew."""
    a = await scene.start()
    await a.add_constraint("early")
    await a.stop()
    copy_store(scene.store, scene.backup)
    marker = marker_file(scene.store, scene.runtime)
    kept = marker.read_bytes()
    a = await scene.start()
    await a.add_constraint("told")
    await scene.agree(a)
    scene.network.cut(["a"], OTHERS)
    await a.stop()
    aside = scene.store.parent.rename(scene.directory / "aside")  # it goes on existing, so that the copy gets another inode
    copy_store(scene.backup, scene.store)
    marker.write_bytes(kept)
    a = await scene.start()
    await a.add_constraint("restored")
    assert len(scene.lives) == 2
    scene.network.heal()
    await scene.agree(a)
    assert ids(a) == {"early", "told", "restored"}
    await a.stop()
    shutil.rmtree(aside)
    assert scene.watch.conflicts == []


def _in_order(scene: Scene, a: Node) -> list[Replica]:
    return sorted(scene.lives, key=lambda life: life == a.gossip.replica)
