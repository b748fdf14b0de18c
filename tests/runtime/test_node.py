"""The asyncio node on the in-memory transport: the whole main job, without processes."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from constraint_crdt import Change, ConstraintCrdtError, Event, EventKind, ExpressionError, MemoryNetwork, Node, Verdict
from tests.runtime.fleet import QUICK, agreed, eventually, fleet


async def until(events: AsyncIterator[Event], kind: EventKind) -> Event:
    async with asyncio.timeout(10):
        async for event in events:
            if event.kind is kind:
                return event
    raise AssertionError(f"the stream ended without {kind}")


@pytest.mark.slow
async def test_a_constraint_added_on_one_node_is_enforced_on_all() -> None:
    async with fleet("a", "b", "c") as nodes:
        a, b, c = nodes
        await a.add_constraint("max_speed", when="speed_mps <= 1.5", severity="critical")
        await b.measure({"speed_mps": 2.0})
        await c.measure({"speed_mps": 1.0})
        await eventually(lambda: a.gossip.state.metrics.node_violations("b") and a.gossip.state.metrics.node_satisfied("c"))
        report = a.constraints()[0]
        assert (report.id, report.severity, report.added_by) == ("max_speed", "critical", "a")
        assert report.by_node["b"][0] == 0
        assert report.by_node["c"][1] == 0
        assert b.constraints()[0].verdict == "violated"
        assert a.constraints()[0].verdict == "unknown"
        assert "speed_mps" in a.constraints()[0].reason


@pytest.mark.slow
async def test_counts_are_equal_on_all_nodes_and_exact() -> None:
    async with fleet("a", "b", "c") as nodes:
        await asyncio.gather(*(node.record(satisfied=100, violations=7) for node in nodes))
        await eventually(lambda: agreed(nodes))
        assert {(node.status().satisfied, node.status().violations) for node in nodes} == {(300, 21)}
        assert nodes[0].status().satisfaction_rate == pytest.approx(300 / 321)


@pytest.mark.slow
async def test_a_cut_fleet_goes_on_and_agrees_again_when_it_heals() -> None:
    network = MemoryNetwork()
    async with fleet("a", "b", "c", "d", network=network) as nodes:
        a, b, c, d = nodes
        network.cut("ab", "cd")
        await a.add_constraint("left")
        await d.add_constraint("right")
        await asyncio.gather(*(node.record(satisfied=10) for node in nodes))
        await eventually(lambda: agreed([a, b]) and agreed([c, d]))
        assert [sorted(node.gossip.state.constraints) for node in (b, c)] == [["left"], ["right"]]
        assert b.status().satisfied == 20
        network.heal()
        await eventually(lambda: agreed(nodes))
        assert {node.status().satisfied for node in nodes} == {40}
        assert sorted(c.gossip.state.constraints) == ["left", "right"]


@pytest.mark.slow
async def test_a_crashed_node_is_missed_and_comes_back_with_everything() -> None:
    network = MemoryNetwork()
    async with fleet("a", "b", network=network) as (a, b):
        victim = Node(name="c", settings=QUICK, transport=network.transport())
        await victim.start()
        await victim.record(satisfied=5)
        await eventually(lambda: a.status().peers == b.status().peers == 2 and agreed([a, b, victim]))
        network.crash("c")
        await victim.stop()
        await eventually(lambda: a.status().peers == b.status().peers == 1)
        await a.add_constraint("while_away")
        async with Node(name="c", settings=QUICK, transport=network.transport()) as again:
            await again.record(satisfied=1)
            await eventually(lambda: "while_away" in again.gossip.state.constraints and agreed([a, b, again]))
            assert again.gossip.state.metrics.node_satisfied("c") == 6


async def test_events_begin_with_those_before_and_are_of_some_kinds() -> None:
    async with fleet("a") as (a,):
        for number in range(3):
            await a.add_constraint(f"c{number}")
        await a.remove_constraint("c0")
        events = a.events(last=2, kinds=["added"])
        assert [(await anext(events)).constraint for _ in range(2)] == ["c1", "c2"]
        await a.remove_constraint("c1")
        await a.add_constraint("c3")
        assert (await anext(events)).constraint == "c3"
        for wrong in ({"last": -1}, {"last": 10_001}, {"kinds": ["no such"]}):
            with pytest.raises(ConstraintCrdtError, match=r"last is from 0|there is no kind of event 'no such': there are added"):
                a.events(**wrong)


@pytest.mark.slow
async def test_events_tell_what_happens() -> None:
    network = MemoryNetwork()
    async with fleet("a", "b", network=network) as (a, b):
        events = b.events()
        await a.add_constraint("cool", when="temp_c < 85.0")
        added = await until(events, EventKind.ADDED)
        assert (added.constraint, added.detail) == ("cool", "temp_c < 85.0")
        await b.measure({"temp_c": 90})
        violated = await until(events, EventKind.VIOLATED)
        assert (violated.constraint, violated.detail) == ("cool", "temp_c = 90.0, 5 above the limit (5.88 %)")
        await b.measure({"temp_c": 70})
        satisfied = await until(events, EventKind.SATISFIED)
        assert satisfied.constraint == "cool"
        assert re.fullmatch(r"after \d+ s", satisfied.detail)
        await a.add_constraint("cool", when="temp_c < 95.0")
        assert (await until(events, EventKind.CHANGED)).detail == "when: temp_c < 85.0 -> temp_c < 95.0"
        await a.edit_constraint("cool", severity="critical", about="the fan")
        assert (await until(events, EventKind.CHANGED)).detail == "severity: warning -> critical; about: - -> the fan"
        await a.remove_constraint("cool")
        assert (await until(events, EventKind.REMOVED)).constraint == "cool"
        network.crash("a")
        assert (await until(events, EventKind.PEER_DOWN)).node == "a"


async def test_events_end_when_the_node_stops() -> None:
    node = Node(name="a", settings=QUICK, transport=MemoryNetwork().transport())
    await node.start()
    events = node.events()
    await node.add_constraint("c1")
    await node.stop()
    assert [event.kind async for event in events] == [EventKind.ADDED]


@pytest.mark.slow
async def test_a_slow_follower_is_told_what_it_missed() -> None:
    async with fleet("a") as (a,):
        events = a.events()
        for number in range(1030):
            await a.add_constraint(f"c{number}")
        first = await anext(events)
        assert (first.kind, first.detail) == (EventKind.MISSED, "6 events")
        assert (await anext(events)).constraint == "c6"


@pytest.mark.slow
async def test_checking_counts_and_tells() -> None:
    async with fleet("a", "b") as (a, b):
        await a.add_constraint("thermal", when="gpu_temp_c < 85.0")
        await a.add_constraint("blind", when="unmeasured > 0.0")
        evaluations = await a.check({"gpu_temp_c": 91})
        assert [(each.constraint, each.verdict) for each in evaluations] == [
            ("blind", Verdict.UNKNOWN),
            ("thermal", Verdict.VIOLATED),
        ]
        await eventually(lambda: b.gossip.state.metrics.constraint_violations("thermal") == 1)
        assert a.constraints()[0].unknown >= 1


@pytest.mark.slow
async def test_a_probe_measures_and_one_that_fails_costs_nothing() -> None:
    class Steady:
        name = "steady"

        def read(self) -> Mapping[str, object]:
            return {"level": 3}

    class Broken:
        name = "broken"

        def read(self) -> Mapping[str, object]:
            raise OSError("no such sensor")

    async with Node(name="a", settings=QUICK, transport=MemoryNetwork().transport(), probes=[Broken(), Steady()]) as node:
        await node.add_constraint("level", when="level == 3.0")
        await eventually(lambda: node.gossip.state.metrics.constraint_satisfied("level") > 2)
        assert node.status().violations == 0


@pytest.mark.slow
async def test_an_old_measurement_is_none() -> None:
    import msgspec

    hasty = msgspec.structs.replace(QUICK, max_age=0.05)
    async with Node(name="a", settings=hasty, transport=MemoryNetwork().transport()) as node:
        await node.add_constraint("level", when="level == 3.0")
        await node.measure({"level": 3})
        await eventually(lambda: node.gossip.state.metrics.constraint_satisfied("level") == 1)
        await eventually(lambda: node.constraints()[0].verdict == "unknown")


async def test_a_check_decides_for_its_instant_only() -> None:
    """The defect: after one check of a value that nothing measures, the constraint counted as violated without end."""
    async with fleet("a") as (a,):
        await a.add_constraint("level", when="level == 3.0")
        [evaluation] = await a.check({"level": 2})
        assert evaluation.verdict is Verdict.VIOLATED
        await eventually(lambda: a.constraints()[0].verdict == "unknown")
        assert (a.constraints()[0].satisfied, a.constraints()[0].violations) == (0, 1)


async def test_null_withdraws_a_measurement_at_once() -> None:
    """The defect: nothing but `max_age` made a value unknown."""
    async with fleet("a") as (a,):
        await a.add_constraint("level", when="level == 3.0")
        await a.measure({"level": 3})
        [evaluation] = await a.check({})
        assert evaluation.verdict is Verdict.SATISFIED
        [evaluation] = await a.check({"level": None})
        assert (evaluation.verdict, evaluation.reason) == (Verdict.UNKNOWN, "no measurement of level")
        await a.measure({"level": None})
        [evaluation] = await a.check({})
        assert evaluation.verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("name", ["a b", "true", "in", "2x", "robot.", "robot.true", "é"])
async def test_a_name_that_no_expression_can_read_is_refused(name: str) -> None:
    """The defect: it was taken, and no expression ever saw it."""
    async with fleet("a") as (a,):
        with pytest.raises(ConstraintCrdtError, match="no expression can read"):
            await a.measure({"x": 1, name: 2})
        with pytest.raises(ConstraintCrdtError, match="no expression can read"):
            await a.check({name: 2})
        with pytest.raises(ConstraintCrdtError, match="no expression can read"):
            a.gossip.check({name: 2})


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"a": ["é" * 2049]}, "text of more than 4096 bytes"),
        ([[0] * 6000, [0] * 6000], "more than 10000 items"),
        ({"a": {"b": object()}}, "type object"),
        ([{1: 2}], "a key that is not text"),
        (10**400, "too large"),
    ],
)
async def test_the_bounds_of_a_measurement_hold_at_any_depth(value: object, says: str) -> None:
    async with fleet("a") as (a,):
        with pytest.raises(ConstraintCrdtError, match=says):
            await a.measure({"x": value})


async def test_counts_become_one_cell_per_constraint_and_interval() -> None:
    import msgspec

    patient = msgspec.structs.replace(QUICK, count_every=30.0)
    async with Node(name="a", settings=patient, transport=MemoryNetwork().transport()) as node:
        await node.add_constraint("level", when="level == 3.0")
        await node.measure({"level": 3})
        before = node.gossip.clock.total
        await eventually(lambda: node.constraints()[0].verdict == "satisfied")
        assert node.gossip.clock.total == before
    timed = int(any(node.gossip.state.metrics.time("level")))
    assert node.gossip.clock.total == before + 2 + timed, "stopping writes what was gathered: a cell of counts, rates and time each"


@pytest.mark.slow
async def test_agreement_is_about_definitions_while_counts_move() -> None:
    async with fleet("a", "b", "c") as nodes:
        a, b, _ = nodes
        for node in nodes:
            await node.measure({"x": 1})
        await a.add_constraint("moving", when="x == 1.0")
        await eventually(lambda: all(node.status().agreeing == 3 for node in nodes))
        assert len({node.gossip.constraints_hash for node in nodes}) == 1
        assert all(each.same_constraints for each in b.nodes())


async def test_what_a_user_gets_wrong_changes_nothing() -> None:
    async with fleet("a") as (a,):
        await a.add_constraint("c1")
        before = a.gossip.state_hash
        with pytest.raises(ExpressionError):
            await a.add_constraint("c2", when="x <")
        with pytest.raises(ConstraintCrdtError):
            await a.add_constraint("c2", severity="fatal")
        with pytest.raises(KeyError):
            await a.remove_constraint("c9")
        with pytest.raises(KeyError):
            await a.record(satisfied=1, constraint="typo")
        with pytest.raises(ValueError, match="negative"):
            await a.record(satisfied=-1)
        with pytest.raises(ConstraintCrdtError):
            await a.measure({"x": object()})
        assert a.gossip.state_hash == before
        assert await a.add_constraint("c1") is Change.UNCHANGED
        assert a.gossip.state_hash == before


async def test_two_nodes_of_one_name_notice() -> None:
    network = MemoryNetwork()
    async with Node(name="twin", settings=QUICK, transport=network.transport()) as first:
        events = first.events()
        async with Node(name="twin", settings=QUICK, transport=network.transport()):
            assert (await until(events, EventKind.DUPLICATE_NAME)).node == "twin"


async def test_two_fleets_on_one_network_do_not_mix() -> None:
    network = MemoryNetwork()
    async with (
        Node(name="a", fleet="red", settings=QUICK, transport=network.transport()) as red,
        Node(name="b", fleet="blue", settings=QUICK, transport=network.transport()) as blue,
    ):
        await red.add_constraint("only_red")
        await red.check({})
        assert (red.status().peers, blue.status().peers, blue.status().constraints) == (0, 0, 0)


@pytest.mark.parametrize("field", ["when", "clear_when"])
async def test_an_expression_that_is_no_text_is_refused_in_a_sentence(field: str) -> None:
    """The defect: *object of type 'int' has no len()*."""
    expressions: dict[str, Any] = {"when": "x < 1.0", field: 3}
    async with fleet("a") as (a,):
        with pytest.raises(TypeError, match=f"^{field} is a text, not 3$"):
            await a.add_constraint("x", **expressions)
        assert a.constraints() == []
