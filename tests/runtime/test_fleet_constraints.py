"""Shared readings and constraints of scope fleet on running nodes: what is shared, who judges, who counts, who is asked."""

import asyncio
from argparse import Namespace
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import msgspec
import pytest

from constraint_crdt import GossipNode, MemoryNetwork, Node
from constraint_crdt.expression import ExpressionError
from constraint_crdt.model import VerdictState
from constraint_crdt.operations.operation import Table
from constraint_crdt.operations.variables import (
    FleetFigures,
    GetReadings,
    ReadingReport,
    ReadingsReport,
    joined_readings,
    show_readings,
)
from constraint_crdt.runtime.evaluation import FleetWatch
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.long
async def test_a_node_that_went_away_is_shown_with_its_last_reading_and_counts_as_missing_once_aged() -> None:
    network = MemoryNetwork()
    async with fleet("a", "b", network=network) as (a, b):
        await a.add_constraint("low", when="count(nodes, n, n.battery < 20.0) == 0", scope="fleet", max_age=2.0)
        await measured((a, b), 50.0, until=lambda: state(a) == VerdictState.HOLDS)
        await b.stop()
        await eventually(lambda: state(a) == VerdictState.UNKNOWN)
        await eventually(lambda: "b (" in a.constraints(["low"])[0].reason)
        [last] = [each for each in a.readings().readings if each.node == "b"]
        assert (last.live, last.aged) == (False, False)
        async with Node(name="b", settings=QUICK, transport=network.transport()) as again:
            await measured((a, again), 60.0, until=lambda: state(a) == VerdictState.HOLDS)


@pytest.mark.slow
async def test_the_reason_of_an_unknown_verdict_follows_the_nodes_that_are_missing() -> None:
    """The defect: the cell kept the reason of the turn, while the node that counts had another."""
    async with fleet("a", "b", "c") as nodes:
        a, b, _ = nodes
        await a.add_constraint("low", when="max(nodes, n, n.battery) < 20.0", scope="fleet")
        await a.measure({"battery": 10.0})
        await eventually(all_are(nodes, VerdictState.UNKNOWN))
        [writer] = [node for node in nodes if {node.settings.name} == writers(nodes)]

        def told() -> str:
            verdict = a.gossip.state.verdicts.of("low").get(writer.settings.name)
            return "" if verdict is None else verdict.reason

        await eventually(lambda: writer.constraints(["low"])[0].reason == "no reading of battery from b, c")
        await writer._runtime.evaluator.write_verdicts(final=True)
        await eventually(lambda: told() == "no reading of battery from b, c")
        await b.measure({"battery": 10.0})
        await eventually(lambda: writer.constraints(["low"])[0].reason == "no reading of battery from c")
        await writer._runtime.evaluator.write_verdicts()
        assert told() == "no reading of battery from b, c", "at most each ten seconds"
        await writer._runtime.evaluator.write_verdicts(final=True)
        await eventually(lambda: told() == "no reading of battery from c")


@pytest.mark.slow
async def test_if_unknown_and_the_selector_count() -> None:
    async with fleet("a", "b") as (a, b):
        await a.add_constraint("strict", when="max(nodes, n, n.temp) < 80.0", scope="fleet", if_unknown="violated")
        await a.add_constraint("zone", when="size(nodes) == 1", scope="fleet", on={"zone": "dock"})
        await eventually(all_are([a, b], VerdictState.VIOLATED, "strict"))
        await eventually(all_are([a, b], VerdictState.VIOLATED, "zone"))
        for node in (a, b):
            await node.measure({"temp": 70.0})
        await eventually(all_are([a, b], VerdictState.HOLDS, "strict"))


@pytest.mark.slow
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


def test_all_choose_the_same_node_to_count_and_few_constraints_move_when_one_leaves() -> None:
    live: dict[str, set[str]] = {name: set("abcd") - {name} for name in "abcd"}
    watches = {name: FleetWatch(GossipNode(name), live[name]) for name in live}
    ids = [f"c{number}" for number in range(40)]

    def chosen() -> list[str]:
        for watch in watches.values():
            watch.follow()
        [found] = {tuple(watch.writer(id_) for id_ in ids) for watch in watches.values()}
        return list(found)

    before = chosen()
    assert set(before) == set("abcd")
    del watches["d"]
    for names in live.values():
        names.discard("d")
    after = chosen()
    assert {was for was, now in zip(before, after, strict=True) if was != now} == {"d"}
    assert [watches["a"].writes(id_) for id_ in ids] == [writer == "a" for writer in after]
    for names in live.values():
        names.add("d")
    live["d"] = set("abc")
    watches["d"] = FleetWatch(GossipNode("d"), live["d"])
    assert chosen() == before


def test_an_observer_does_not_count() -> None:
    gossip = GossipNode("a")
    members = {
        number: SimpleNamespace(node=name, role=role, fingerprint=name, issuer=None)
        for number, (name, role) in enumerate(ROLES.items())
    }
    gossip.local.authority = SimpleNamespace(  # type: ignore[assignment]
        members=lambda: members, member=members[0], revoked_by=lambda _: [], has_ended=lambda _: False, has_revocations=False
    )
    watch = FleetWatch(gossip, set("bcd"))
    watch.follow()
    assert {watch.writer(f"c{number}") for number in range(40)} == {"c", "d"}


ROLES = {"a": "observer", "b": "observer", "c": "member", "d": "operator"}


def test_the_command_shows_readings_and_figures() -> None:
    assert show_readings(ReadingsReport(readings=(), fleet=()), GetReadings(name="x"), Namespace()) == (
        "no node shares a reading of x: `share` in its settings or a constraint of scope fleet has it share one"
    )
    one = ReadingReport(variable="x", node="a", value=1.5, age=2.04, aged=False, every=10.0, live=True)
    two = ReadingReport(variable="x", node="b", value=True, age=99.0, aged=True, every=5.0, live=False)
    figures = FleetFigures(variable="x", read=1, nodes=2, minimum=1.5, median=1.5, maximum=1.5, sum=1.5)
    pages = [ReadingsReport(readings=(each,), fleet=(figures,)) for each in (one, two)]
    view = show_readings(joined_readings(pages), GetReadings(), Namespace())
    assert [list(table.rows) for table in view if isinstance(table, Table)] == [
        [["x", "a", "1.5", "2.0 s", "10 s", "yes"], ["x", "b", "true", "99.0 s, aged", "5 s", "no"]],
        [["x", "1 of 2", "1.5", "1.5", "1.5", "1.5"]],
    ]
