"""A machine image, cloned, with a store on it: both copies run, write, and meet. One name is one too many; no dot is used twice.

What no node can tell from inside, and these tests leave out: a virtual machine that is cloned or rolled back with the memory of
the running node in it, so that nothing is opened anew. Until it hears from others, such a node writes on as the life it was.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from constraint_crdt import MemoryNetwork, Node
from constraint_crdt.store import files as markers
from tests.runtime.fleet import agreed, eventually
from tests.survival.nodes import boot, counts, ids, marker_file, node_on
from tests.survival.watching import DotWatch, copy_store, stored

pytestmark = pytest.mark.processes

EVERYONE = ("a", "b", "c")


class Image:
    """A machine's disk and, below it, its runtime directory."""

    def __init__(self, directory: Path) -> None:
        self.store, self.runtime = directory / "node.db", directory / "run"

    def cloned(self, directory: Path, *, with_marker: bool) -> "Image":
        """A copy of it. With the marker, it is copied to where the clone's node looks for it."""
        clone = Image(directory)
        copy_store(self.store, clone.store)
        if with_marker:
            target = marker_file(clone.store, _made(clone.runtime))
            target.write_bytes(marker_file(self.store, self.runtime).read_bytes())
        return clone


def _made(directory: Path) -> Path:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory


class Scene:
    """`b` and `c`, and what every dot ever held; `a` and its clones are cut off until they are not."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory, self.monkeypatch = directory, monkeypatch
        self.network, self.watch = MemoryNetwork(), DotWatch()
        self.others = [node_on(self.network, name) for name in EVERYONE[1:]]
        self.original = Image(directory / "original")

    async def start(self, image: Image) -> Node:
        boot(self.monkeypatch, image.runtime)
        node = node_on(self.network, "a", image.store)
        await node.start()
        self.watch.follow(node.gossip.state.rows)
        return node

    async def lived(self) -> Node:
        """The original, up and known to all."""
        a = await self.start(self.original)
        await a.add_constraint("early")
        await a.record(10)
        await eventually(lambda: agreed([a, *self.others]))
        return a

    def cut_off(self) -> None:
        """Every node called `a`, also from the other one."""
        self.network.cut(["a"], EVERYONE)

    async def meet(self, original: Node, clone: Node, expected: set[str], satisfied: int) -> None:
        """Connected, the later one stops; what both of them wrote is there, once."""
        self.network.heal()
        why = await clone.over()
        assert why == "a node called a is live already: start this one under another name"
        await eventually(lambda: all(ids(node) == expected for node in self.others))  # a busy machine tells the name first
        await clone.stop()
        await eventually(lambda: agreed([original, *self.others]))
        for node in (original, *self.others):
            assert ids(node) == expected
            assert counts(node)[0] == satisfied
            assert node.gossip.alarms == 0
        await original.add_constraint("afterwards")
        await eventually(lambda: agreed([original, *self.others]))
        await original.stop()
        self.watch.read(stored(self.original.store, self.directory / "scratch", node="a"))
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
@pytest.mark.parametrize("with_marker", [True, False])
async def test_an_image_taken_while_the_node_runs_has_a_life_of_its_own(scene: Scene, *, with_marker: bool) -> None:
    original = await scene.lived()
    image = scene.original.cloned(scene.directory / "clone", with_marker=with_marker)
    scene.cut_off()
    clone = await scene.start(image)
    for node, tag in ((original, "original"), (clone, "clone")):
        for number in range(10):
            await node.add_constraint(f"{tag}-{number}")
        await node.record(100 if node is clone else 1_000)
    await clone.remove_constraint("clone-0")
    assert clone.gossip.replica != original.gossip.replica
    expected = {"early", *(f"original-{n}" for n in range(10)), *(f"clone-{n}" for n in range(1, 10))}
    await scene.meet(original, clone, expected, 1_110)


async def test_an_image_taken_while_the_node_is_down_starts_two_nodes_of_which_at_most_one_goes_on_as_it_was(scene: Scene) -> None:
    original = await scene.lived()
    was = original.gossip.replica
    await original.stop()
    image = scene.original.cloned(scene.directory / "clone", with_marker=True)
    scene.cut_off()
    original = await scene.start(scene.original)
    clone = await scene.start(image)
    await original.add_constraint("original")
    await clone.add_constraint("clone")
    await original.record(1_000)
    await clone.record(100)
    assert original.gossip.replica == was
    assert clone.gossip.replica != was
    await scene.meet(original, clone, {"early", "original", "clone"}, 1_110)


async def test_the_clone_of_a_virtual_machine_with_disk_and_memory_is_told_by_its_generation(scene: Scene) -> None:
    """The same boot, the same files, the same marker, as far as can be seen from inside: only the generation differs."""
    original = await scene.lived()
    was = original.gossip.replica
    await original.stop()
    machine = markers.Machine.this()
    scene.monkeypatch.setattr(markers.Machine, "this", lambda: machine._replace(generation="another"))
    scene.cut_off()
    clone = await scene.start(scene.original)
    await clone.add_constraint("clone")
    assert clone.gossip.replica != was
    scene.network.heal()
    await eventually(lambda: agreed([clone, *scene.others]))
    await clone.stop()
    assert scene.watch.conflicts == []


@pytest.mark.long
async def test_three_clones_of_one_image_and_no_original(scene: Scene) -> None:
    """A golden image with a store on it by mistake: none of the copies is the life in it, and all that they write arrives."""
    original = await scene.lived()
    await original.stop()
    images = [scene.original.cloned(scene.directory / f"clone-{number}", with_marker=True) for number in range(3)]
    scene.cut_off()
    clones = [await scene.start(image) for image in images]
    for number, clone in enumerate(clones):
        await clone.add_constraint(f"of-{number}")
        await clone.record(10 ** (number + 2))
    assert len({clone.gossip.replica for clone in clones} | {original.gossip.replica}) == 4
    scene.network.heal()
    for number, clone in enumerate(clones[1:], 1):
        await clone.over()
        await eventually(lambda: all(f"of-{number}" in ids(node) for node in scene.others))  # noqa: B023 - awaited here
        await clone.stop()
    first = clones[0]
    await eventually(lambda: agreed([first, *scene.others]))
    assert ids(first) == {"early", "of-0", "of-1", "of-2"}
    assert counts(first)[0] == 11_110
    await first.stop()
    assert scene.watch.conflicts == []
