"""A node's state out to a file and in from one: a merge, durable, told to peers, and never a way to use a number twice."""

import asyncio
from pathlib import Path

import pytest

from constraint_crdt import ConstraintState, GossipNode, MemoryNetwork, Node, NodeSettings, StateFileError, from_json, to_json
from constraint_crdt.model import EventKind
from constraint_crdt.store import Store, WritesRefused
from constraint_crdt.store.store import CommitBatch
from tests.conftest import runtime_directory
from tests.runtime.fleet import QUICK, agreed, eventually, fleet


def other_fleet() -> ConstraintState:
    state = ConstraintState()
    state.constraints.add("thermal", node="anvil", when="t < 85.0")
    state.constraints.add("gone", node="anvil")
    state.constraints.remove("gone", node="anvil")
    state.metrics.record("anvil", 3, 1, constraint="thermal")
    return state


async def test_what_a_node_exports_is_its_state() -> None:
    async with Node(name="forge", transport=MemoryNetwork().transport()) as node:
        await node.add_constraint("x")
        await node.record(2, 1)
        state = from_json(await node.export_state())
        assert state == node.gossip.state
        assert await node.export_state() == to_json(node.gossip.state)


async def test_an_import_is_a_merge_and_says_what_changed() -> None:
    async with Node(name="forge", transport=MemoryNetwork().transport()) as node:
        await node.add_constraint("mine")
        text = to_json(other_fleet())
        report = await node.import_state(text)
        assert (report.changed, report.cells, report.constraints) == (True, 3, 1)
        assert {each.id for each in node.constraints()} == {"mine", "thermal"}
        assert (node.status().satisfied, node.status().violations) == (3, 1)
        again = await node.import_state(text.encode())
        assert (again.changed, again.cells, again.constraints) == (False, 0, 0)


@pytest.mark.slow
async def test_what_was_taken_in_is_told_and_becomes_an_event() -> None:
    async with fleet("forge", "anvil") as nodes:
        forge, anvil = nodes
        events = forge.events()
        first = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        report = await forge.import_state(to_json(other_fleet()))
        assert report.changed
        event = await first
        assert (event.kind, event.constraint, event.detail) == (EventKind.ADDED, "thermal", "t < 85.0")
        await eventually(lambda: agreed(nodes) and "thermal" in anvil.gossip.state.constraints)


async def test_what_is_no_state_changes_nothing() -> None:
    async with Node(name="forge", transport=MemoryNetwork().transport()) as node:
        before = node.gossip.state_hash
        text = to_json(other_fleet())
        for wrong in ("", "[]", text[: len(text) // 2], text.replace('"version":1', '"version":2')):
            with pytest.raises(StateFileError):
                await node.import_state(wrong)
        with pytest.raises(StateFileError, match="more than the 10 that are read"):
            await node.import_state(text, max_bytes=10)
        assert node.gossip.state_hash == before


async def test_rows_of_ones_own_life_that_are_ahead_start_a_new_life() -> None:
    """The file says more of this life than it remembers: what it would write next is taken, so its audit starts a new life."""
    async with Node(name="forge", transport=MemoryNetwork().transport()) as node:
        await node.add_constraint("x")
        life = node.gossip.replica
        ahead = from_json(to_json(node.gossip.state))
        ahead.constraints.add("y", node=life)
        await node.import_state(to_json(ahead))
        assert node.gossip.replica != life
        await node.add_constraint("z")
        assert {"x", "y", "z"} <= set(node.gossip.state.constraints)


async def test_a_node_that_the_file_says_was_retired_ends() -> None:
    async with Node(name="forge", transport=MemoryNetwork().transport()) as node:
        other = GossipNode("anvil")
        other.merge(from_json(await node.export_state()))
        other.retire("forge")
        await node.import_state(to_json(other.state))
        assert "was retired by anvil" in await node.over()


async def test_a_retired_peer_of_a_file_is_no_peer_any_more() -> None:
    here, peer, there = GossipNode("forge"), GossipNode("anvil"), GossipNode("far")
    peer.add_constraint("x")
    here.receive(peer.ping())
    assert here.peer_count == 1
    there.merge(peer.state)
    there.retire("anvil")
    result = here.merge(there.state)
    assert (result.state_changed, result.outlived, here.peer_count) == (True, None, 0)


@pytest.mark.slow
async def test_it_is_on_disk_when_it_is_said_to_be_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime_directory(tmp_path)))
    settings = NodeSettings(name="forge", store=str(tmp_path / "forge.db"), check_every=QUICK.check_every)
    text = to_json(other_fleet())
    async with Node(settings=settings, transport=MemoryNetwork().transport()) as node:
        commits = 0
        commit = Store.commit

        def counted(store: Store, batch: CommitBatch) -> None:
            nonlocal commits
            commit(store, batch)
            commits += 1

        def refuse(store: Store, batch: CommitBatch) -> None:
            raise WritesRefused("the disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(Store, "commit", refuse)
            with pytest.raises(WritesRefused):
                await node.add_constraint("refused")
            before = node.gossip.state_hash
            with pytest.raises(WritesRefused):
                await node.import_state(text)
            assert node.gossip.state_hash == before
        await eventually(lambda: node.status().trouble is None)
        monkeypatch.setattr(Store, "commit", counted)
        await node.import_state(text)
        assert commits > 0
    async with Node(settings=settings, transport=MemoryNetwork().transport()) as node:
        assert "thermal" in node.gossip.state.constraints
