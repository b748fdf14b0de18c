"""Sketches and Bloom filters of running nodes: violations are counted by themselves, and every node knows what all have seen."""

import pytest
from msgspec.structs import replace

from constraint_crdt import ConstraintCrdtError, MemoryNetwork, Node, RecordCounts
from constraint_crdt.operations.counts import MAX_ITEMS
from constraint_crdt.runtime.shared import NodeSketches
from tests.runtime.fleet import QUICK, agreed, eventually, fleet

SOON = replace(QUICK, rate_every=0.05)
LATE = replace(QUICK, rate_every=3600.0)


def estimates(node: Node) -> dict[str, int]:
    return {each.item: each.estimate for each in node.approximate.top().items}


@pytest.mark.slow
async def test_violations_of_all_nodes_are_counted_by_constraint() -> None:
    async with fleet("a", "b", settings=SOON) as (a, b):
        await a.add_constraint("hot", when="t < 85.0")
        await a.add_constraint("fast", when="v <= 1.5")
        await eventually(lambda: "fast" in b.gossip.state.constraints)
        await a.check({"t": 90.0, "v": 1.0})
        await b.check({"t": 90.0, "v": 1.0})
        await a.record(satisfied=5, violations=7, constraint="fast")
        await b.batch([RecordCounts(constraint="hot", violations=3), RecordCounts(constraint="hot", violations=2)])
        await b.record(violations=100)
        await eventually(lambda: estimates(a) == estimates(b) == {"hot": 7, "fast": 7})
        await eventually(lambda: agreed([a, b]))
        top = a.approximate.top(k=1)
        assert (top.of, top.total, top.writers, top.saturated) == ("violations", 14, 2, False)
        [fast] = top.items
        assert (fast.item, fast.estimate, fast.upper, fast.share, fast.exact) == ("fast", 7, 7, 0.5, 7)
        assert fast.lower <= 7


@pytest.mark.slow
async def test_what_waits_to_be_written_shows_here_at_once_and_elsewhere_when_the_node_stops() -> None:
    network = MemoryNetwork()
    async with fleet("a", network=network, settings=LATE) as (a,):
        async with Node(name="b", settings=LATE, transport=network.transport()) as b:
            await eventually(lambda: a.status().peers == 1)
            await a.add_constraint("hot", when="t < 85.0")
            await eventually(lambda: "hot" in b.gossip.state.constraints)
            await b.record(violations=2, constraint="hot")
            await b.record(violations=1, constraint="hot")
            assert estimates(b) == {"hot": 3}
            assert b.approximate.top().total == 3
            assert "violations" not in b.gossip.state.sketches
            assert estimates(a) == {}
        await eventually(lambda: estimates(a) == {"hot": 3})


@pytest.mark.slow
async def test_items_are_tallied_over_all_nodes() -> None:
    async with fleet("a", "b") as (a, b):
        report = await a.approximate.record("words", {"x": 50, "y": 1})
        assert (report.name, report.recorded, report.total) == ("words", 51, 51)
        await eventually(lambda: "words" in b.gossip.state.sketches)
        await b.approximate.record("words", {"x": 75})
        await eventually(lambda: agreed([a, b]))
        for node in (a, b):
            items = node.approximate.top(5, "words").items
            assert [(each.item, each.estimate, each.exact) for each in items] == [("x", 125, None), ("y", 1, None)]


@pytest.mark.slow
async def test_a_filter_knows_what_any_node_has_seen() -> None:
    async with fleet("a", "b") as (a, b):
        report = await a.approximate.insert("jobs", ["17", "18"], expected_items=1000, fp_rate=0.001)
        assert (report.items, report.new) == (2, 2)
        await eventually(lambda: "jobs" in b.gossip.state.blooms)
        assert b.approximate.seen("jobs", "17").seen
        assert not b.approximate.seen("jobs", "19").seen
        assert (await b.approximate.insert("jobs", ["17", "19"])).new == 1
        await eventually(lambda: a.approximate.seen("jobs", "19").seen)
        assert 0.0 < a.approximate.seen("jobs", "19").fpr < 0.001


@pytest.mark.slow
async def test_reading_and_writing_work_while_cut_off() -> None:
    network = MemoryNetwork()
    async with fleet("a", "b", network=network) as (a, b):
        network.cut("a", "b")
        await a.approximate.insert("jobs", ["17"])
        await a.approximate.record("words", {"x": 1})
        assert a.approximate.seen("jobs", "17").seen
        network.heal()
        await eventually(lambda: agreed([a, b]) and "words" in b.gossip.state.sketches)
        assert b.approximate.top(1, "words").total == 1


async def test_mistakes_are_refused_and_change_nothing() -> None:
    async with fleet("a") as (a,):
        await a.approximate.insert("jobs", ["17"])
        before = a.gossip.state_hash
        with pytest.raises(ConstraintCrdtError, match="what nodes count themselves"):
            await a.approximate.record("violations", {"x": 1})
        with pytest.raises(ConstraintCrdtError, match="taken at once"):
            await a.approximate.record("words", {str(number): 1 for number in range(MAX_ITEMS + 1)})
        with pytest.raises(ConstraintCrdtError, match="other dimensions"):
            await a.approximate.insert("jobs", ["18"], expected_items=5)
        with pytest.raises(KeyError):
            a.approximate.top(1, "words")
        with pytest.raises(KeyError):
            a.approximate.seen("other", "x")
        for k in (0, 1001):
            with pytest.raises(ValueError, match="from 1 to 1000"):
                a.approximate.top(k)
        assert a.gossip.state_hash == before


async def test_what_cannot_be_written_waits_on() -> None:
    async with fleet("a", settings=LATE) as (a,):
        approximate: NodeSketches = a.approximate
        approximate.note({"x" * 257: (0, 1), "y": (0, 1), None: (0, 5), "z": (4, 0)})
        with pytest.raises(ConstraintCrdtError):
            approximate.write_waiting()
        assert approximate.waiting
        assert estimates(a) == {"x" * 257: 1, "y": 1}
        approximate._waiting.pop("x" * 257)
        approximate.write_waiting()
        assert not approximate.waiting


async def test_a_count_near_the_largest_number_saturates_the_sketch_and_stops_no_other() -> None:
    async with fleet("a", settings=LATE) as (a,):
        approximate: NodeSketches = a.approximate
        approximate.note({"x": (0, 2**63 - 1)})
        approximate.write_waiting()
        approximate.note({"x": (0, 1), "y": (0, 1)})
        assert estimates(a)["y"] == 1
        approximate.write_waiting()
        assert not approximate.waiting
        assert estimates(a) == {"x": 2**32 - 1, "y": 1}
        assert (a.approximate.top().saturated, a.approximate.top().total) == (True, 2**63 - 1)


async def test_a_count_near_the_largest_number_stops_no_other_count_of_the_node() -> None:
    async with fleet("a", settings=LATE) as (a,):
        for id_ in ("x", "y"):
            await a.add_constraint(id_, when="v < 1.0")
        await a.record(2**63 - 1, constraint="x")
        with pytest.raises(ConstraintCrdtError, match="constraint 'x'"):
            await a.record(1, constraint="x")
        with pytest.raises(ConstraintCrdtError, match="constraint 'x'"):
            await a.batch([RecordCounts(constraint="y", satisfied=1), RecordCounts(constraint="x", satisfied=1)])
        assert a.gossip.state.metrics.constraint("y").satisfied == 0
        for _ in range(2):
            await a.check({"v": 0.0})
        assert (a.gossip.state.metrics.constraint("y").satisfied, a.gossip.state.metrics.constraint("x").satisfied) == (
            2,
            2**63 - 1,
        )
