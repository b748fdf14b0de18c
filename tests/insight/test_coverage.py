"""Who has heard of what, waiting until enough have, and explanations, on nodes with an in-memory network."""

import asyncio
import time

import pytest

from constraint_crdt import MemoryNetwork, Node
from constraint_crdt.insight import evidence
from constraint_crdt.operations.evidence import CoverageReport, TooManyWaitingError
from tests.runtime.fleet import QUICK, agreed, eventually, fleet


def holders(report: CoverageReport) -> dict[str, bool | None]:
    return {each.node: each.holds for each in report.nodes}


@pytest.mark.long
async def test_waiting_brings_a_change_to_all_and_comes_back_when_they_have_it() -> None:
    async with fleet("a", "b", "c") as (a, b, c):
        before = time.time_ns()
        await a.add_constraint("x")
        report = await a.coverage.wait("x", "all", 10)
        assert (report.met, report.wanted, report.have, report.change) == (True, 3, 3, "added")
        assert all("x" in node.gossip.state.constraints for node in (b, c))
        assert all(each.since is not None and before <= each.since <= time.time_ns() for each in report.nodes)
        await a.remove_constraint("x")
        report = await a.coverage.wait("x", "all", 10)
        assert (report.met, report.change) == (True, "removed")
        assert not any("x" in node.gossip.state.constraints for node in (b, c))
        await eventually(lambda: a.storage().removed == 0)
        assert a.coverage.report("x").have == 3, "a removal is remembered when its cell was dropped"
        assert [each.held for each in a.explanations.report("x").removals] == [False]


@pytest.mark.slow
async def test_a_node_that_is_cut_off_lacks_what_it_did_not_hear_and_keeps_what_it_had() -> None:
    network = MemoryNetwork()
    async with fleet("a", "b", "c", network=network) as nodes:
        a, _, c = nodes
        await a.add_constraint("old")
        assert (await a.coverage.wait("old", "all", 10)).met
        network.cut("ab", "c")
        await eventually(lambda: a.status().peers == 1)
        await a.add_constraint("new")
        for wanted, met in (("live", True), ("majority", True), (2, True), (3, False), ("all", False), (9, False)):
            report = await a.coverage.wait("new", wanted, 10 if met else 0.1)  # type: ignore[arg-type]  # a table of them
            assert report.met is met, wanted
            assert holders(report) == {"a": True, "b": True, "c": False}
        assert holders(a.coverage.report("old")) == {"a": True, "b": True, "c": True}
        assert holders(a.coverage.report()) == {"a": True, "b": True, "c": False}
        assert a.convergence.peer("c").state == "unreachable"
        assert (a.convergence.staleness("c") or 0) > 0
        network.heal()
        assert (await a.coverage.wait(None, "all", 10)).met
        await eventually(lambda: agreed(nodes))
        assert {each.state for each in a.convergence.report().peers} == {"same"}
        assert c.convergence.report().staleness_p99 == 0


@pytest.mark.slow
async def test_what_is_not_known_has_no_coverage_and_a_retired_node_is_not_counted() -> None:
    network = MemoryNetwork()
    async with fleet("a", "b", network=network) as (a, b):
        with pytest.raises(KeyError):
            a.coverage.report("x")
        with pytest.raises(KeyError):
            await a.coverage.wait("x", "all", 1)
        with pytest.raises(KeyError):
            a.explanations.report("x")
        await a.add_constraint("x")
        assert (await a.coverage.wait("x", "all", 10)).met
        network.crash("b")
        await b.stop()
        await eventually(lambda: not a.status().peers)
        await a.retire("b")
        assert holders(a.coverage.report("x")) == {"a": True}


@pytest.mark.slow
async def test_nobody_is_said_to_have_what_they_were_not_heard_to_have() -> None:
    """A node that starts again knows of others from its store, and has no evidence of what they have."""
    network = MemoryNetwork()
    async with fleet("a", "b", network=network) as (a, b):
        await b.record(satisfied=1)
        await a.add_constraint("x")
        assert (await a.coverage.wait("x", "all", 10)).met
        told = await b.export_state()
        async with Node(name="c", settings=QUICK, transport=MemoryNetwork().transport()) as alone:
            await alone.import_state(told)
            report = alone.coverage.report("x")
            assert holders(report) == {"a": None, "b": None, "c": True}
            assert (report.have, report.unknown, report.nodes[0].behind, report.nodes[0].since) == (1, 2, None, None)
            assert {each.state for each in alone.convergence.report().peers} == {"unreachable"}
            assert alone.convergence.report().staleness_p50 is None


async def test_only_so_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "WAITING", 1)
    async with fleet("a") as (a,):
        await a.add_constraint("x")
        waiting = asyncio.create_task(a.coverage.wait("x", 2, 30))
        await asyncio.sleep(0)
        with pytest.raises(TooManyWaitingError, match="ask again later"):
            await a.coverage.wait("x", 1, 1)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert (await a.coverage.wait("x", 1, 1)).met


@pytest.mark.slow
async def test_an_explanation_says_who_and_what_and_where() -> None:
    async with fleet("a", "b") as (a, b):
        before = time.time_ns()
        await a.add_constraint("hot", when="temp_c < 85.0", severity="critical", about="first")
        await a.coverage.wait("hot", "all", 10)
        await b.add_constraint("hot", when="temp_c < 80.0", loosen=True)
        await b.coverage.wait("hot", "all", 10)
        explained = a.explanations.report("hot")
        (definition,) = explained.definitions
        assert (definition.added_by, definition.when, definition.expired) == ("b", "temp_c < 80.0", False)
        assert definition.dot.startswith("b~")
        assert before <= (definition.added_at or 0) <= (definition.known_since or 0) <= time.time_ns()
        (edit,) = explained.removals
        assert (edit.by, edit.ended) == ("b", (f"{a.gossip.replica}:2",))
        # From its first evaluation on, a node lists itself, without a verdict for lack of values.
        assert [each for each in explained.violations if each.violated is not None or each.satisfied or each.violations] == []

        await b.measure({"temp_c": 90})
        await a.measure({"temp_c": 70})
        await eventually(lambda: all(node.gossip.state.metrics.constraint("hot").violated for node in (a, b)))
        await eventually(lambda: all(len(node.explanations.report("hot").violations) == 2 for node in (a, b)))
        there, here = b.explanations.report("hot"), a.explanations.report("hot")
        mine, told = there.violations[1], here.violations[1]
        assert (mine.node, mine.violated, mine.exact, here.violations[0].violated) == ("b", True, True, False)
        assert (told.node, told.violated, told.exact, told.live) == ("b", True, True, True)
        assert told.since is not None
        assert before < (mine.since or 0) <= told.since <= (told.last or 0)
        assert sum(each.violated_per_minute for each in there.lately) > 0
        await b.measure({"temp_c": 70})
        await eventually(lambda: a.explanations.report("hot").violations[1].violated is False)
        await eventually(lambda: b.explanations.report("hot").violations[1].violated is False)


@pytest.mark.slow
async def test_definitions_that_were_added_concurrently_are_all_named() -> None:
    network = MemoryNetwork()
    async with fleet("a", "b", network=network) as nodes:
        a, b = nodes
        network.cut("a", "b")
        await eventually(lambda: not a.status().peers and not b.status().peers)
        await a.add_constraint("x", when="v < 1.0")
        await b.add_constraint("x", when="v < 2.0", ttl=1000)
        network.heal()
        await eventually(lambda: agreed(nodes))
        explained = a.explanations.report("x")
        assert explained.conflict
        assert [(each.added_by, each.expires_at is None) for each in explained.definitions] == [("a", True), ("b", False)]
