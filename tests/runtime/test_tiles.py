"""Tiles on running nodes: they travel, they are told of, and deleted ones are purged when it is time."""

import pytest

from constraint_crdt.crdt.clock import Replica
from constraint_crdt.gossip import GossipNode
from constraint_crdt.model import EventKind
from constraint_crdt.runtime.maintenance import TILES_AT_ONCE, PurgeSweep
from constraint_crdt.runtime.node import Node
from constraint_crdt.transport import MemoryNetwork

DAY = 86_400 * 10**9


async def test_a_tile_is_told_of_on_every_node() -> None:
    network = MemoryNetwork()
    async with Node(name="a", transport=network.transport()) as a, Node(name="b", transport=network.transport()) as b:
        events = b.events()
        put = await a.tiles.put("yard", "map", "x", tags=["red"])
        seen = []
        async for event in events:
            if event.kind in (EventKind.TILE_PUT, EventKind.TILE_DELETED):
                seen.append((event.kind, event.room, event.tile, event.node))
                if event.kind is EventKind.TILE_DELETED:
                    break
                [there] = b.tiles.list()
                assert there == put
                if len(seen) == 1:
                    await a.tiles.tag("yard", "map", "blue")
                    await a.tiles.delete("yard", "map")
        assert seen == [(EventKind.TILE_PUT, "yard", "map", "a"), (EventKind.TILE_DELETED, "yard", "map", "")]
        restored = await b.tiles.restore("yard", "map")
        assert restored.tags == ["blue", "red"]
        assert (await b.tiles.untag("yard", "map", "red")).tags == ["blue"]
        assert b.tiles.rooms() == ["yard"]
        assert b.tiles.get("yard", "map").text == "x"


def purging(node: GossipNode) -> PurgeSweep:
    return PurgeSweep(node, after=7 * 86_400)


def test_who_deleted_purges_first_and_others_later() -> None:
    time = DAY
    a, b = GossipNode("a", now=lambda: time), GossipNode("b", now=lambda: time)
    for id_ in ("x", "y"):
        a.state.tiles.tile("r", id_).put("content", node=a.replica, tags=["t"])
    a.write(lambda me: a.state.tiles["r", "x"].delete(node=me))
    b.merge(a.state)
    time = 8 * DAY - 1
    assert purging(a).due() == purging(b).due() == []
    time = 8 * DAY
    assert (purging(a).due(), purging(b).due()) == ([("r", "x")], [])
    time = 15 * DAY
    assert purging(b).due() == [("r", "x")]
    purging(a).purge([("r", "x")])
    purging(b).purge([("r", "x")])
    b.merge(a.state)
    a.merge(b.state)
    assert a.state_hash == b.state_hash
    assert a.state.tiles.deleted() == []
    assert [cell for cell in a.state.rows.live_cells() if "x" in str(cell.key)] == []
    assert list(b.state.tiles) == [("r", "y")]


def test_a_later_deletion_counts_and_a_restored_tile_stays() -> None:
    time = DAY
    a = GossipNode("a", now=lambda: time)
    tile = a.state.tiles.tile("r", "x")
    a.write(lambda me: tile.put("content", node=me))
    a.write(lambda me: tile.delete(node=me))
    time = 30 * DAY
    a.write(lambda me: tile.restore(node=me))
    assert purging(a).due() == []
    a.write(lambda me: tile.delete(node=me))
    assert purging(a).due() == []
    assert tile.deletion == (30 * DAY, a.replica)


def test_an_earlier_life_of_a_node_is_the_node() -> None:
    time = DAY
    a = GossipNode("a", now=lambda: time)
    tile = a.state.tiles.tile("r", "x")
    tile.put("content", node=Replica("a", 1))
    tile.delete(node=Replica("a", 1))
    time = 8 * DAY
    assert purging(a).due() == [("r", "x")]


@pytest.mark.slow
def test_no_more_are_purged_in_one_go_than_a_node_can_bear() -> None:
    a = GossipNode("a", now=lambda: 30 * DAY)
    for number in range(TILES_AT_ONCE + 3):
        tile = a.state.tiles.tile("r", str(number))
        tile.put("", node=Replica("b", 1), time=0)
        tile.delete(node=Replica("b", 1))
    soon = PurgeSweep(a, after=0)
    assert len(soon.due()) == TILES_AT_ONCE
    soon.purge(soon.due())
    assert len(soon.due()) == 3
