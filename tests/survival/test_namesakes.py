"""One name, two nodes; and a node of which others know more than it does itself. Both with stores, and over restarts."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from constraint_crdt import MemoryNetwork, Node
from constraint_crdt.model import EventKind
from constraint_crdt.store.files import Marker
from tests.runtime.fleet import agreed, eventually
from tests.survival.nodes import boot, counts, ids, node_on
from tests.survival.watching import DotWatch, copy_store, stored

pytestmark = pytest.mark.processes


class Scene:
    """`b`, which remembers, and a place for the stores of nodes that are called `a`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.network, self.watch = MemoryNetwork(), DotWatch()
        self.b = node_on(self.network, "b")

    def store(self, place: str) -> Path:
        return self.directory / place / "node.db"

    async def start(self, place: str) -> Node:
        node = node_on(self.network, "a", self.store(place))
        await node.start()
        self.watch.follow(node.gossip.state.rows)
        return node

    async def rolled_back(self, monkeypatch: pytest.MonkeyPatch) -> Node:
        """A node whose store lacks what it told others, and whose marker vouches for it all the same, as after the roll-back of a
        whole virtual machine. It has heard from nobody yet.
        """
        a = await self.start("one")
        await a.add_constraint("early")
        await a.record(10)
        await eventually(lambda: agreed([a, self.b]))
        copy_store(self.store("one"), self.store("backup"))
        await a.add_constraint("late")
        await a.record(7)
        await eventually(lambda: agreed([a, self.b]))
        await a.stop()
        copy_store(self.store("backup"), self.store("one"))
        monkeypatch.setattr(Marker, "vouches", lambda *_: True)
        self.network.cut(["a"], ["b"])
        again = await self.start("one")
        monkeypatch.undo()
        assert again.gossip.replica == a.gossip.replica
        assert ids(again) == {"early"}
        return again


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    made = Scene(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        boot(patch, tmp_path / "run")
        await made.b.start()
        made.watch.follow(made.b.gossip.state.rows)
        yield made
        await made.b.stop()


async def test_of_two_live_nodes_of_one_name_both_notice_and_the_later_stops(scene: Scene) -> None:
    first = await scene.start("one")
    heard: list[EventKind] = []

    async def listen(node: Node) -> None:
        heard.extend([event.kind async for event in node.events() if event.kind is EventKind.DUPLICATE_NAME])

    listening = asyncio.create_task(listen(first))
    await first.add_constraint("first")
    second = await scene.start("two")
    assert "is live already" in await second.over()
    await second.add_constraint("second")  # a program that embeds a node may be slow to stop it
    await second.record(5)
    await second.stop()
    await eventually(lambda: agreed([first, scene.b]))
    assert ids(scene.b) == {"first", "second"}
    assert counts(scene.b)[0] == 5
    await first.stop()
    await listening
    assert EventKind.DUPLICATE_NAME in heard
    assert scene.watch.conflicts == []


async def test_a_node_that_is_started_again_after_a_crash_is_not_its_own_namesake(scene: Scene) -> None:
    first = await scene.start("one")
    await first.add_constraint("before")
    scene.network.crash("a")
    await first.stop()
    again = await scene.start("one")
    await again.add_constraint("after")
    await eventually(lambda: agreed([again, scene.b]))
    ended = asyncio.ensure_future(again.over())
    await eventually(lambda: again.status().exchanges > 5)
    assert not ended.done()
    ended.cancel()
    assert ids(scene.b) == {"before", "after"}
    await again.stop()


async def test_a_node_that_was_outlived_goes_on_as_a_new_life_which_its_store_records(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = await scene.rolled_back(monkeypatch)
    over = a.gossip.replica
    scene.network.heal()
    await eventually(lambda: ids(a) == {"early", "late"})
    await a.add_constraint("new")
    await a.record(3)
    assert a.gossip.replica != over
    lives = a.identity().lives
    assert [life.incarnation for life in lives] == [f"{each.incarnation:x}" for each in (over, a.gossip.replica)]
    assert lives[1].why == f"after {over}"
    await eventually(lambda: agreed([a, scene.b]))
    assert ids(a) == {"early", "late", "new"}
    assert counts(a)[0] == 20
    await a.stop()
    again = await scene.start("one")
    assert again.gossip.replica == a.gossip.replica
    assert [(life.incarnation, life.began, life.why) for life in again.identity().lives] == [
        (life.incarnation, life.began, life.why) for life in lives
    ]
    await again.stop()
    assert scene.watch.conflicts == []


async def test_ended_between_hearing_that_and_its_next_write_it_does_not_go_on_as_the_old_life(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = await scene.rolled_back(monkeypatch)
    over = a.gossip.replica
    scene.network.heal()
    await eventually(lambda: ids(a) == {"early", "late"})
    scene.network.cut(["a"], ["b"])
    await a.stop()
    again = await scene.start("one")
    await again.add_constraint("new")
    assert again.gossip.replica != over
    scene.network.heal()
    await eventually(lambda: agreed([again, scene.b]))
    await again.stop()
    assert scene.watch.conflicts == []


async def test_a_life_that_began_with_a_write_that_was_refused_is_recorded_too(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = await scene.rolled_back(monkeypatch)
    scene.network.heal()
    await eventually(lambda: ids(a) == {"early", "late"})
    with pytest.raises(ValueError, match="negative"):
        await a.record(-1)
    await a.add_constraint("new")
    await eventually(lambda: agreed([a, scene.b]))
    lives = a.identity().lives
    assert [life.incarnation for life in lives][-1] == f"{a.gossip.replica.incarnation:x}"
    await a.stop()
    again = await scene.start("one")
    assert again.gossip.replica == a.gossip.replica
    await again.stop()
    scene.watch.read(stored(scene.store("one"), scene.directory / "scratch", node="a"))
    assert scene.watch.conflicts == []
