"""Shared readings and constraints of scope fleet on running nodes: what is shared, who judges, who counts, who is asked."""

import asyncio
from collections.abc import Callable, Sequence

import msgspec
import pytest

from constraint_crdt import MemoryNetwork, Node
from constraint_crdt.expression import ExpressionError
from constraint_crdt.model import VerdictState
from constraint_crdt.runtime.settings import SharedVariable
from tests.runtime.fleet import QUICK, eventually, fleet

LOW = "count(nodes, n, n.battery < 20.0) <= 1"


def state(node: Node, id_: str = "low") -> str | None:
    return node.constraints([id_])[0].state


def shared(node: Node, of: str) -> dict[str, object]:
    return {name: reading.value for name, reading in node.gossip.state.readings.of(of).items()}


def writers(nodes: list[Node], id_: str = "low") -> set[str | None]:
    return {node._runtime.evaluator.writer(id_) for node in nodes}


def tellers(node: Node, id_: str = "low") -> set[str]:
    return set(node.gossip.state.verdicts.of(id_))


def all_are(nodes: list[Node], wanted: VerdictState, id_: str = "low") -> Callable[[], bool]:
    return lambda: all(id_ in node.gossip.state.constraints and state(node, id_) == wanted for node in nodes)


async def measured(nodes: Sequence[Node], battery: float, *, until: Callable[[], bool]) -> None:
    """Have the nodes measure again and again, other values each time, until this is true."""
    async with asyncio.timeout(20):
        while not until():
            battery += 0.25
            for node in nodes:
                await node.measure({"battery": battery})
            await asyncio.sleep(0.02)


async def test_every_node_judges_and_one_counts() -> None:
    async with fleet("a", "b", "c") as nodes:
        a, b, _ = nodes
        assert (await a.add_constraint("low", when=LOW, scope="fleet")).value == "added"
        for node in nodes:
            await node.measure({"battery": 50.0, "other": 1.0})
        await eventually(all_are(nodes, VerdictState.HOLDS))
        for node in nodes[1:]:
            await node.measure({"battery": 10.0})
        await eventually(all_are(nodes, VerdictState.VIOLATED))
        [writer] = writers(nodes)
        await eventually(lambda: all(tellers(node) == {writer} for node in nodes))
        await eventually(lambda: sum(a.gossip.state.metrics.constraint("low")) > 0)
        assert set(a.gossip.state.metrics.by_node("low")) == {writer}
        found = b.constraints(["low"])[0]
        assert (found.scope, found.values["count(nodes, n, n.battery < 20.0)"], found.margin) == ("fleet", "2", -1.0)
        assert found.values["nodes"].startswith('"readings of 3 of 3 nodes, the oldest ')
        report = b.explanations.report("low").fleet
        assert report is not None
        assert (report.nodes, report.read, report.counted_by) == (3, 3, writer)
        assert shared(a, "b") == {"battery": 10.0}, "only what the constraint reads is shared"
        await a.add_constraint("low", when="battery < 20.0")
        await eventually(lambda: all(not shared(a, name) for name in "abc"))
        await eventually(lambda: b.explanations.report("low").fleet is None)


async def test_another_node_counts_when_the_first_goes_and_the_first_again_when_it_is_back() -> None:
    network = MemoryNetwork()
    async with fleet("a", "b", "c", network=network) as nodes:
        await nodes[0].add_constraint("low", when="count(nodes, n, n.live) >= 3", scope="fleet")
        await eventually(all_are(nodes, VerdictState.HOLDS))
        [writer] = writers(nodes)
        gone = next(node for node in nodes if node.settings.name == writer)
        rest = [node for node in nodes if node is not gone]
        await gone.stop()
        await eventually(all_are(rest, VerdictState.VIOLATED))
        [second] = writers(rest)
        assert second != writer
        await eventually(lambda: all(second in tellers(node) for node in rest))
        assert [each.node for each in rest[0].constraints(["low"])[0].violated_on if each.node != rest[0].settings.name] in (
            [],
            [second],
        )
        async with Node(name=writer, settings=QUICK, transport=network.transport()) as back:
            await eventually(all_are([*rest, back], VerdictState.HOLDS))
            await eventually(lambda: writers([*rest, back]) == {writer})
            await eventually(lambda: second not in tellers(rest[0]))


async def test_the_settings_say_what_is_shared() -> None:
    settings = msgspec.structs.replace(
        QUICK, share=(SharedVariable(name="power", deadband=5.0), SharedVariable(name="mode")), share_on_request=False
    )
    async with fleet("a", "b", settings=settings) as (a, b):
        await a.add_constraint("low", when=LOW, scope="fleet")
        await b.measure({"power": 100.0, "mode": "auto", "battery": 50.0, "noise": 1.0})
        await eventually(lambda: shared(a, "b") == {"power": 100.0, "mode": "auto"})
        await b.measure({"power": 104.0, "mode": "manual"})
        await eventually(lambda: shared(a, "b") == {"power": 100.0, "mode": "manual"})
        await b.measure({"power": 106.0, "mode": None})
        await eventually(lambda: shared(a, "b") == {"power": 106.0})
        await eventually(lambda: state(a) == VerdictState.UNKNOWN)
        assert a.constraints(["low"])[0].reason == "no reading of battery from a, b"
        findings = [each.what for each in a.diagnosis.look().findings]
        assert "no node can decide low (no node shares battery, which it reads of the nodes)" in findings
        await a.measure({"mode": "é" * 40})  # too long to be shared
        [figures] = [each for each in a.readings().fleet if each.variable == "power"]
        assert (figures.read, figures.nodes, figures.minimum, figures.median, figures.sum) == (1, 2, 106.0, 106.0, 106.0)
        assert a.reading_ids(name="power") == ["power/b"]


async def test_a_node_that_went_away_is_shown_with_its_last_reading_and_counts_as_missing_once_aged() -> None:
    network = MemoryNetwork()
    async with fleet("a", "b", network=network) as (a, b):
        await a.add_constraint("low", when="count(nodes, n, n.battery < 20.0) == 0", scope="fleet", max_age=0.5)
        await measured((a, b), 50.0, until=lambda: state(a) == VerdictState.HOLDS)
        await b.stop()
        await eventually(lambda: state(a) == VerdictState.UNKNOWN)
        await eventually(lambda: "b (" in a.constraints(["low"])[0].reason)
        [last] = [each for each in a.readings().readings if each.node == "b"]
        assert (last.live, last.aged) == (False, False)
        async with Node(name="b", settings=QUICK, transport=network.transport()) as again:
            await measured((a, again), 60.0, until=lambda: state(a) == VerdictState.HOLDS)


async def test_if_unknown_and_the_selector_count() -> None:
    async with fleet("a", "b") as (a, b):
        await a.add_constraint("strict", when="max(nodes, n, n.temp) < 80.0", scope="fleet", if_unknown="violated")
        await a.add_constraint("zone", when="size(nodes) == 1", scope="fleet", on={"zone": "dock"})
        await eventually(all_are([a, b], VerdictState.VIOLATED, "strict"))
        await eventually(all_are([a, b], VerdictState.VIOLATED, "zone"))
        for node in (a, b):
            await node.measure({"temp": 70.0})
        await eventually(all_are([a, b], VerdictState.HOLDS, "strict"))


async def test_what_cannot_be_evaluated_is_refused_and_changes_nothing() -> None:
    async with fleet("a") as (a,):
        with pytest.raises(ExpressionError, match="reads `nodes`, and `battery` is a variable of each node"):
            await a.add_constraint("low", when="battery < 20.0", scope="fleet")
        with pytest.raises(ExpressionError, match="add `scope` fleet"):
            await a.add_constraint("low", when=LOW)
        assert a.gossip.state.active_constraint_count == 0
        await a.add_constraint("low", when=LOW, scope="fleet", clear_when="count(nodes, n, n.battery < 30.0) <= 1", for_=0.01)
        await a.measure({"battery": 5.0})
        await eventually(lambda: state(a) == VerdictState.HOLDS)
        await eventually(lambda: a._runtime.metrics.report().shared_readings == 1)
