"""Lifetimes on running nodes: constraints end together, are told of once, and are removed; wrong clocks only raise an alarm."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from constraint_crdt import (
    AddConstraint,
    BatchError,
    Change,
    ConstraintCrdtError,
    Event,
    EventKind,
    MemoryNetwork,
    Node,
    RemoveConstraint,
)
from constraint_crdt.types.definition import ADD
from tests.runtime.fleet import QUICK, agreed, eventually

SECOND = 1_000_000_000
BEGAN = 1_700_000_000 * SECOND
ROUND = 0.2
"""Seconds between two rounds of gossip, by default."""


class Wall:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.time = BEGAN

    def __call__(self) -> int:
        return self.time


def skewed(name: str, ahead: float, network: MemoryNetwork) -> Node:
    """A node whose clock is ahead by so many seconds."""
    frequent = msgspec.structs.replace(QUICK, gossip_every=0.05)
    return Node(name=name, settings=frequent, transport=network.transport(), now=lambda: time.time_ns() + round(ahead * SECOND))


async def until(events: AsyncIterator[Event], kind: EventKind) -> Event:
    async with asyncio.timeout(10):
        async for event in events:
            if event.kind is kind:
                return event
    raise AssertionError(f"the stream ended without {kind}")


@pytest.mark.long
async def test_a_constraint_ends_on_five_nodes_within_one_round_though_their_clocks_differ() -> None:
    network = MemoryNetwork()
    nodes = [skewed(f"n{index}", ahead, network) for index, ahead in enumerate((-5, -2, 0, 3, 5))]
    for node in nodes:
        await node.start()
    try:
        await eventually(lambda: all(len(node.gossip.time.offsets) == 4 for node in nodes))
        await nodes[0].add_constraint("short", ttl=timedelta(seconds=1.5))
        await eventually(lambda: all("short" in node.gossip.state.constraints for node in nodes))
        ended: dict[str, float] = {}
        async with asyncio.timeout(20):
            while len(ended) < len(nodes):
                await asyncio.sleep(0.005)
                for node in nodes:
                    if "short" not in node.gossip.state.constraints:
                        ended.setdefault(node.settings.name, time.monotonic())
                by_clock = {str(node.gossip.clock): node.gossip.state_hash for node in nodes}
                assert all(by_clock[str(node.gossip.clock)] == node.gossip.state_hash for node in nodes)
        assert max(ended.values()) - min(ended.values()) <= ROUND
        assert {node.status().clock_alarms for node in nodes} == {0}
        offsets = {each.node: each.clock_offset for each in nodes[0].nodes()}
        assert offsets.pop("n0") is None
        expected = {"n1": 3, "n2": 5, "n3": 8, "n4": 10}
        assert {name: round(offset or 0.0) for name, offset in offsets.items()} == expected
    finally:
        for node in nodes:
            await node.stop()


@pytest.mark.slow
async def test_an_expiry_is_an_event_and_the_cells_go_later() -> None:
    wall = Wall()
    async with Node(name="a", settings=QUICK, transport=MemoryNetwork().transport(), now=wall) as node:
        events = node.events()
        assert await node.add_constraint("lease", when="x < 1.0", ttl=60) is Change.ADDED
        assert await node.add_constraint("lease", when="x < 1.0", ttl=90) is Change.EXTENDED
        [report] = node.constraints()
        assert (report.added_at, report.expires_at) == (BEGAN, BEGAN + 90 * SECOND)
        wall.time += 90 * SECOND
        assert node.constraints() == []
        assert [each.id for each in node.expired()] == ["lease"]
        expired = await until(events, EventKind.EXPIRED)
        assert (expired.constraint, expired.time) == ("lease", wall.time)
        assert node.status().constraints == 0
        with pytest.raises(KeyError):
            await node.remove_constraint("lease")
        wall.time += 21 * SECOND
        await eventually(lambda: not node.gossip.state.rows.table(ADD))
        assert node.expired() == []
        assert await node.add_constraint("lease", ttl=60) is Change.ADDED
        assert (await anext(events)).kind is EventKind.ADDED, "that the cells went was no news"


@pytest.mark.slow
async def test_a_peer_an_hour_ahead_raises_an_alarm_and_changes_nothing() -> None:
    network = MemoryNetwork()
    good = [skewed(name, 0, network) for name in "abc"]
    wrong = skewed("wrong", 3600, network)
    events = good[0].events()
    for node in (*good, wrong):
        await node.start()
    try:
        await good[1].add_constraint("half an hour", ttl=1800)
        skew = await until(events, EventKind.CLOCK_SKEW)
        assert (skew.node, round(float(skew.detail.removesuffix(" s")))) == ("wrong", 3600)
        await eventually(lambda: wrong.status().clock_in_doubt and wrong.expired())
        await eventually(lambda: agreed([*good, wrong]))
        await eventually(lambda: all(node.status().clock_alarms for node in good))  # whom a node asks first is chance
        # Until a good node has heard another good one, it knows two clocks that differ, and either may be wrong.
        await eventually(lambda: all(node.gossip.time.offsets.keys() & set("abc") for node in good))
        for _ in range(3):
            await wrong._runtime.maintenance.remove_expired()
        assert [each.id for each in wrong.expired()] == ["half an hour"]
        for node in good:
            assert [each.id for each in node.constraints()] == ["half an hour"]
            assert not node.status().clock_in_doubt
    finally:
        for node in (*good, wrong):
            await node.stop()


@pytest.mark.slow
async def test_labels_say_where_a_constraint_applies() -> None:
    network = MemoryNetwork()
    async with (
        Node(name="a", settings=QUICK, labels={"zone": "a"}, transport=network.transport()) as a,
        Node(name="b", settings=QUICK, transport=network.transport()) as b,
    ):
        await a.add_constraint("local", when="x < 1.0", on={"zone": "a"})
        await eventually(lambda: agreed([a, b]))
        assert [(each.applies_here, each.on) for node in (a, b) for each in node.constraints()] == [
            (True, {"zone": "a"}),
            (False, {"zone": "a"}),
        ]
        assert [each.constraint for each in await a.check({"x": 5})] == ["local"]
        assert await b.check({"x": 5}) == []
        assert {each.node: each.labels for each in b.nodes()} == {"a": {"zone": "a"}, "b": {}}


@pytest.mark.slow
async def test_ends_that_differ_are_no_conflict() -> None:
    network = MemoryNetwork()
    async with (
        Node(name="a", settings=QUICK, transport=network.transport()) as a,
        Node(name="b", settings=QUICK, transport=network.transport()) as b,
    ):
        await eventually(lambda: a.status().peers == b.status().peers == 1)
        network.cut("a", "b")
        await a.add_constraint("c", when="x < 1.0", ttl=600)
        await b.add_constraint("c", when="x < 1.0", ttl=900)
        network.heal()
        await eventually(lambda: agreed([a, b]))
        [report] = a.constraints()
        assert (report.conflict, len(report.definitions)) == (False, 2)
        assert report.expires_at == max(each.expires_at or 0 for each in report.definitions)


async def test_a_batch_takes_ends_and_labels_and_checks_them_first() -> None:
    wall = Wall()
    async with Node(name="a", settings=QUICK, transport=MemoryNetwork().transport(), now=wall) as node:
        later = datetime.fromtimestamp(BEGAN / SECOND + 60, UTC)
        results = await node.batch(
            [
                AddConstraint(id="c", ttl=30, on={"zone": "a"}),
                AddConstraint(id="c", until=later, on={"zone": "a"}),
                AddConstraint(id="d", ttl=30),
                RemoveConstraint(id="d"),
            ]
        )
        assert [each.change.value for each in results] == ["added", "extended", "added", "removed"]
        [report] = node.constraints()
        assert (report.expires_at, report.on, report.added_at) == (BEGAN + 60 * SECOND, {"zone": "a"}, BEGAN)
        hash_ = node.gossip.state_hash
        wrong: list[tuple[AddConstraint, str]] = [
            (AddConstraint(id="e", ttl=-1), "add.ttl"),
            (AddConstraint(id="e", ttl=1, until=later), "add.ttl"),
            (AddConstraint(id="e", until=datetime.fromtimestamp(0, UTC)), "add.until"),
            (AddConstraint(id="e", on={"": "x"}), "add.on"),
        ]
        for change, field in wrong:
            with pytest.raises(BatchError) as caught:
                await node.batch([AddConstraint(id="first"), change])
            assert (caught.value.index, caught.value.field) == (1, field)
        with pytest.raises(ConstraintCrdtError, match="ttl"):
            await node.add_constraint("e", ttl=0)
        assert node.gossip.state_hash == hash_
        wall.time += 60 * SECOND
        with pytest.raises(BatchError, match="no constraint 'c' is active"):
            await node.batch([RemoveConstraint(id="c")])


@pytest.mark.long
async def test_what_expired_while_a_node_was_down_is_not_in_force_when_it_returns(tmp_path: Path) -> None:
    wall, settings = Wall(), msgspec.structs.replace(QUICK, store=str(tmp_path / "state.db"))
    async with Node(name="a", settings=settings, transport=MemoryNetwork().transport(), now=wall) as node:
        await node.add_constraint("lease", ttl=60, on={"zone": "a"})
        await node.add_constraint("kept")
    wall.time += 60 * SECOND
    async with Node(name="a", settings=settings, transport=MemoryNetwork().transport(), now=wall) as node:
        assert [[each.id for each in node.constraints()], [each.id for each in node.expired()]] == [["kept"], ["lease"]]
        wall.time += 21 * SECOND
        await eventually(lambda: not node.expired())
    async with Node(name="a", settings=settings, transport=MemoryNetwork().transport(), now=wall) as node:
        assert [[each.id for each in node.constraints()], node.expired()] == [["kept"], []]
