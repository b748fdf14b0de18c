"""Writes outside of the life of a node, its thread or its loop are refused, and change nothing."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from constraint_crdt import MemoryNetwork, Node, NodeSettings, SyncNode
from constraint_crdt.errors import ConstraintCrdtError, InvalidType, LifecycleError, StoreError, WrongThread
from constraint_crdt.operations.constraints import AddConstraint
from tests.runtime.fleet import QUICK

WRITES: dict[str, Callable[[Node], Awaitable[object]]] = {
    "add": lambda node: node.add_constraint("cool", when="t < 85.0"),
    "remove": lambda node: node.remove_constraint("cool"),
    "record": lambda node: node.record(1),
    "batch": lambda node: node.batch([AddConstraint(id="cool")]),
    "measure": lambda node: node.measure({"t": 1.0}),
    "check": lambda node: node.check({"t": 1.0}),
    "position": lambda node: node.update_position((1, 2)),
    "retire": lambda node: node.retire("b", force=True),
    "import": lambda node: node.import_state("{}"),
    "tile": lambda node: node.tiles.put("hall", "sign", "open"),
    "counter": lambda node: node.counters.move("laps", 1),
    "sketch": lambda node: node.approximate.record("items", {"a": 1}),
    "bloom": lambda node: node.approximate.insert("seen", ["a"]),
}


def make_node(settings: NodeSettings = QUICK) -> Node:
    return Node(name="a", settings=settings, transport=MemoryNetwork().transport())


async def refused(node: Node, error: type[ConstraintCrdtError], writes: dict[str, Callable[[Node], Awaitable[object]]]) -> set[str]:
    """The sentences of the refusals of all writes. Nothing changes."""
    before, sentences = node.gossip.state_hash, set()
    for write in writes.values():
        with pytest.raises(error) as raised:
            await write(node)
        sentences.add(str(raised.value))
    assert node.gossip.state_hash == before
    return sentences


@pytest.mark.parametrize("kind", [Node, SyncNode])
def test_a_network_in_place_of_its_transport_is_refused(kind: type[Node] | type[SyncNode]) -> None:
    with pytest.raises(InvalidType, match=r"a MemoryNetwork is no transport: .* `transport\(\)`"):
        kind(name="a", transport=MemoryNetwork())  # type: ignore[arg-type]


# `retire` answers that it knows no such node before it writes anything.
UNCONDITIONAL = {name: write for name, write in WRITES.items() if name != "retire"}


async def test_writes_before_the_start_and_after_the_stop_are_refused() -> None:
    node = make_node()
    assert await refused(node, LifecycleError, UNCONDITIONAL) == {
        "the node has not been started: it takes writes between start and stop only"
    }
    async with node:
        await node.add_constraint("kept")
        await node.counters.move("laps", 2)
    assert await refused(node, LifecycleError, UNCONDITIONAL) == {
        "the node was stopped: it takes writes between start and stop only"
    }
    assert node.constraint_ids() == ["kept"]
    assert node.counters.report("laps").value == 2
    assert node.not_ready() is None


@pytest.mark.slow
async def test_a_refused_write_before_the_start_leaves_a_store_sound(tmp_path: Path) -> None:
    settings = msgspec.structs.replace(QUICK, store=str(tmp_path / "node.db"))
    async with make_node(settings) as first:
        await first.add_constraint("kept")
    again = make_node(settings)
    with pytest.raises(LifecycleError):
        await again.add_constraint("early")
    async with again:
        assert again.constraint_ids() == ["kept"]


async def test_a_node_starts_once() -> None:
    node = make_node()
    async with node:
        with pytest.raises(LifecycleError, match="runs already"):
            await node.start()
        await node.add_constraint("kept")
    with pytest.raises(LifecycleError, match="was stopped"):
        await node.start()
    await node.stop()


@pytest.mark.slow
async def test_a_node_that_failed_to_start_may_try_again(tmp_path: Path) -> None:
    file = tmp_path / "node.db"
    file.write_bytes(b"no store at all" * 100)
    node = make_node(msgspec.structs.replace(QUICK, store=str(file)))
    with pytest.raises(StoreError):
        await node.start()
    with pytest.raises(LifecycleError, match="has not been started"):
        await node.record(1)
    file.unlink()
    async with node:
        await node.add_constraint("kept")
    assert node.constraint_ids() == ["kept"]


async def test_writes_on_another_loop_are_refused() -> None:
    async with make_node() as node:
        await node.add_constraint("cool")
        found: list[set[str]] = []

        def elsewhere() -> None:
            found.append(asyncio.run(refused(node, WrongThread, UNCONDITIONAL)))
            with pytest.raises(WrongThread):
                asyncio.run(node.stop())

        thread = threading.Thread(target=elsewhere)
        thread.start()
        await asyncio.to_thread(thread.join)
        [sentences] = found
        assert all("another event loop" in sentence for sentence in sentences)
        await node.record(1, constraint="cool")


async def test_record_takes_violations_under_both_names() -> None:
    async with make_node() as node:
        await node.add_constraint("cool")
        await node.record(1, violated=2, constraint="cool")
        await node.record(violations=3, constraint="cool")
        assert node.gossip.state.metrics.constraint("cool") == (1, 5)
