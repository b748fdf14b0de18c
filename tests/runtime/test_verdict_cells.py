"""Verdicts on running nodes: told by the node itself, shown by all others, over restarts, removals and trouble."""

import asyncio
import logging
import re
import time
from argparse import Namespace
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random

import msgspec
import pytest

from constraint_crdt import MemoryNetwork, Node
from constraint_crdt.cli.output import print_view
from constraint_crdt.crdt.clock import SECOND
from constraint_crdt.model import VerdictState
from constraint_crdt.operations.evidence import ExplainConstraint, ViolationReport, show_explain
from constraint_crdt.runtime import evaluation
from constraint_crdt.types import NodeVerdict
from constraint_crdt.types.verdicts import VERDICT
from tests.conftest import runtime_directory
from tests.runtime.fleet import QUICK, eventually, fleet

SLOW = msgspec.structs.replace(QUICK, check_every=1.0, count_every=1.0, gossip_every=0.2)
"""Settings for many nodes on a busy machine."""


def told(node: Node, id_: str, on: str) -> NodeVerdict | None:
    """The verdict of node `on` in the state of a node."""
    return node.gossip.state.verdicts.of(id_).get(on)


def state(node: Node, id_: str, on: str) -> VerdictState | None:
    found = told(node, id_, on)
    return None if found is None else found.state


def shown(node: Node, id_: str, on: str) -> ViolationReport:
    """What the explanation of a node says of node `on`."""
    return next(each for each in node.explanations.report(id_).violations if each.node == on)


def written(node: Node) -> list[int]:
    """The seqs of the verdict cells in the row of this life."""
    rows = node.gossip.state.rows
    return [cell.seq for cell in rows.above(node.gossip.replica, 0) if cell.kind == VERDICT]


def batches_of(node: Node, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of cells of each transaction of verdicts from now on."""
    batches: list[int] = []
    record = node.gossip.record_verdicts

    def recorded(verdicts: Mapping[str, NodeVerdict | None]) -> int:
        batches.append(record(verdicts))
        return batches[-1]

    monkeypatch.setattr(node.gossip, "record_verdicts", recorded)
    return batches


async def kill(node: Node) -> None:
    """End a node as a killed process ends: nothing more is written or told."""
    runtime = node._runtime
    await runtime.tasks.stop()
    await runtime.transport.close()
    await runtime.persistence.close()


@asynccontextmanager
async def started(name: str, network: MemoryNetwork, store: Path | None = None, **fields: object) -> AsyncIterator[Node]:
    """A node that is killed at the end, unless it was stopped."""
    settings = msgspec.structs.replace(QUICK, name=name, store="memory" if store is None else str(store), **fields)
    node = Node(settings=settings, transport=network.transport())
    await node.start()
    try:
        yield node
    finally:
        await kill(node)


@pytest.fixture
def reboot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A function after whose call a node on a store begins a new life, as the marker of the former is gone."""
    boots = iter(range(100))

    def call() -> None:
        place = tmp_path / f"boot{next(boots)}"
        place.mkdir()
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime_directory(place)))

    call()
    return call


# --- told ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.long
async def test_every_node_of_twenty_shows_a_violation_with_its_values_and_its_end() -> None:
    network = MemoryNetwork()
    async with AsyncExitStack() as stack:
        names = [f"n{number:02}" for number in range(20)]
        nodes = [Node(name=name, settings=SLOW, transport=network.transport(), random=Random(name)) for name in names]
        for node in nodes:
            await stack.enter_async_context(node)
        await nodes[3].add_constraint("speed", when="speed_mps <= 1.5 && distance_m > 0.5")
        await eventually(lambda: all("speed" in node.constraint_ids() for node in nodes), within=30)
        before = time.time_ns()
        await nodes[7].measure({"speed_mps": 2.0, "distance_m": 4.0})
        await eventually(lambda: all(state(node, "speed", "n07") is VerdictState.VIOLATED for node in nodes), within=30)
        for node in nodes:
            report = shown(node, "speed", "n07")
            assert (report.violated, report.state, report.exact) == (True, "violated", True)
            assert (report.values, report.margin) == ({"speed_mps": "2.0", "distance_m": "4.0"}, -0.5)
            assert (report.margin_variable, report.since) == ("speed_mps", shown(nodes[0], "speed", "n07").since)
            assert report.since is not None
            assert before <= report.since <= time.time_ns()
            assert set(node.gossip.state.verdicts.of("speed")) == {"n07"}, "no other node measures it"
        await nodes[7].measure({"speed_mps": 1.0})
        await eventually(lambda: all(state(node, "speed", "n07") is VerdictState.HOLDS for node in nodes), within=30)
        assert [shown(node, "speed", "n07").violated for node in nodes] == [False] * 20


@pytest.mark.long
async def test_the_last_state_is_told_after_flapping_and_few_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    async with fleet("a", "b") as [a, b]:
        batches, began = batches_of(a, monkeypatch), time.monotonic()
        await a.add_constraint("x", when="x < 1.0")
        await eventually(lambda: "x" in b.constraint_ids())
        for number in range(41):
            await a.measure({"x": float(number % 2 * 2)})
        assert batches[:3] == [1, 1, 1], "the first turns are told at once"
        await a.measure({"x": 2.0})
        await a.measure({"x": 0.5})
        await eventually(lambda: state(b, "x", "a") is VerdictState.HOLDS)
        assert 3 <= len(batches) <= 4 + (time.monotonic() - began) * SECOND / evaluation.TOLD_EVERY


@pytest.mark.slow
async def test_the_last_state_is_told_by_a_node_that_stops() -> None:
    network = MemoryNetwork()
    async with started("b", network) as b, started("a", network) as a:
        await a.add_constraint("x", when="x < 1.0")
        for value in (2.0, 0.0, 2.0, 0.0):
            await a.measure({"x": value})
        assert state(a, "x", "a") is VerdictState.VIOLATED
        await a.stop()
        assert state(b, "x", "a") is VerdictState.HOLDS


@pytest.mark.slow
async def test_a_violation_after_other_turns_is_told_at_once() -> None:
    async with fleet("a", "b") as [a, b]:
        await a.add_constraint("xy", when="x < 1.0 || y < 1.0", for_=0.1)
        await eventually(lambda: "xy" in b.constraint_ids())
        await a.measure({"x": 2.0})
        assert state(a, "xy", "a") is VerdictState.UNKNOWN
        await a.measure({"y": 2.0})
        assert state(a, "xy", "a") is VerdictState.PENDING
        await eventually(lambda: a._runtime.evaluator.violated)
        await a._runtime.evaluator.tick()
        assert state(a, "xy", "a") is VerdictState.VIOLATED
        await eventually(lambda: state(b, "xy", "a") is VerdictState.VIOLATED)


@pytest.mark.slow
async def test_a_withdrawn_or_dead_sensor_is_told_as_unknown() -> None:
    async with fleet("a", "b", settings=msgspec.structs.replace(QUICK, max_age=0.3)) as [a, b]:
        await a.add_constraint("x", when="x < 1.0", max_age=20)
        await a.add_constraint("y", when="y < 1.0")
        await eventually(lambda: len(b.constraint_ids()) == 2)
        await a.measure({"x": 0.0, "y": 0.0})
        assert (told(a, "x", "a"), told(a, "y", "a")) == (None, None), "a constraint that holds costs no cell"
        await a.measure({"x": None})
        await eventually(lambda: state(b, "x", "a") is state(b, "y", "a") is VerdictState.UNKNOWN)
        assert (shown(b, "x", "a").violated, shown(b, "x", "a").reason) == (None, "no measurement of x")
        assert "is older than 0.3 s" in shown(b, "y", "a").reason


@pytest.mark.slow
async def test_unknown_from_the_start_is_told_by_nodes_that_measure_some_of_it() -> None:
    async with fleet("a", "b") as [a, b]:
        await a.add_constraint("xy", when="x < 1.0 || y < 1.0")
        await eventually(lambda: [each.verdict for node in (a, b) for each in node.constraints()] == ["unknown"] * 2)
        await a.measure({"z": 2.0})
        assert (told(a, "xy", "a"), told(b, "xy", "b")) == (None, None)
        await a.measure({"x": 2.0})
        await eventually(lambda: state(b, "xy", "a") is VerdictState.UNKNOWN)
        assert (shown(b, "xy", "a").reason, shown(b, "xy", "a").values) == ("no measurement of y", {"x": "2.0"})
        assert told(b, "xy", "b") is None


@pytest.mark.slow
async def test_another_reason_in_the_same_state_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason of a window that fills changes with each sample."""
    async with fleet("a") as [a]:
        await a.add_constraint("window", when='avg_over("x", duration("1h")) < 1.0')
        batches, reasons = batches_of(a, monkeypatch), set[str]()
        for _ in range(20):
            await a.measure({"x": 2.0})
            await a._runtime.evaluator.write_verdicts(final=True)
            reasons.add(a.constraints()[0].reason)
        assert len(reasons) > 2
        assert batches == [1]
        assert state(a, "window", "a") is VerdictState.UNKNOWN


@pytest.mark.slow
async def test_a_long_name_in_a_margin_stops_nothing() -> None:
    async with fleet("a", "b") as [a, b]:
        key = "k" * 600
        await a.add_constraint("long", when=f"m['{key}'] < 1.0")
        await eventually(lambda: "long" in b.constraint_ids())
        await a.measure({"m": {key: 2.0}})
        await eventually(lambda: state(b, "long", "a") is VerdictState.VIOLATED)
        assert len((told(b, "long", "a") or NodeVerdict(VerdictState.OFF)).variable or "") > 200


@pytest.mark.slow
async def test_turns_while_writes_are_refused_are_told_after() -> None:
    async with fleet("a", "b") as [a, b]:
        await a.add_constraint("x", when="x < 1.0")
        await a.add_constraint("y", when="y < 1.0")
        await eventually(lambda: len(b.constraint_ids()) == 2)
        a._runtime.persistence._health_changed("the disk is full")
        await a.measure({"x": 2.0, "y": 2.0})
        await a.measure({"y": 0.0})
        await a._runtime.evaluator.write_verdicts()
        assert written(a) == []
        a._runtime.persistence._health_changed(None)
        await eventually(lambda: (state(b, "x", "a"), state(b, "y", "a")) == (VerdictState.VIOLATED, VerdictState.HOLDS))


@pytest.mark.long
async def test_a_thousand_turns_are_one_transaction_and_ten_thousand_leave_turns_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    async with fleet("a", settings=msgspec.structs.replace(QUICK, gossip_every=60.0)) as [a]:
        for number in range(2_500):
            a.gossip.add_constraint(f"x{number:04}", when=f"x < {number % 10}.5")
        a._runtime.feed.write(lambda: None)
        await eventually(lambda: not a._runtime.evaluator.judge.stale(1), within=60)
        batches = batches_of(a, monkeypatch)
        await a.measure({"x": 3.5})
        assert batches == [1000]
        monkeypatch.setattr(evaluation, "MOST_TOLD", 2000)
        await a.measure({"x": 10.5})
        assert (batches, a._runtime.evaluator.violated) == ([1000, 1000], 2500)


# --- restarts ------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("new_life", [False, True])
async def test_a_restarted_node_still_shows_what_others_told(tmp_path: Path, reboot: Callable[[], None], *, new_life: bool) -> None:
    network = MemoryNetwork()
    async with started("a", network) as a, started("b", network, tmp_path / "b.db") as b:
        await a.add_constraint("x", when="x < 1.0")
        await a.measure({"x": 2.0})
        await eventually(lambda: state(b, "x", "a") is VerdictState.VIOLATED)
        report, replica = shown(b, "x", "a"), b.gossip.replica
        await b.stop()
    if new_life:
        reboot()
    async with started("b", MemoryNetwork(), tmp_path / "b.db") as b:
        again = shown(b, "x", "a")
        assert (again.violated, again.since, again.values, again.live) == (True, report.since, {"x": "2.0"}, False)
        await b.add_constraint("y")
        assert (b.gossip.replica != replica) is new_life


@pytest.mark.slow
@pytest.mark.parametrize("new_life", [False, True])
@pytest.mark.parametrize("spells", [False, True])
async def test_a_restarted_violated_node_goes_on_from_its_verdict(
    tmp_path: Path, reboot: Callable[[], None], *, new_life: bool, spells: bool
) -> None:
    network = MemoryNetwork()
    async with started("b", network) as b:
        async with started("a", network, tmp_path / "a.db") as a:
            await a.add_constraint("x", when="x < 1.0")
            await a.measure({"x": 2.0})
            await eventually(lambda: state(b, "x", "a") is VerdictState.VIOLATED)
            first = told(b, "x", "a")
            await eventually((tmp_path / "a.db.verdicts.json").exists)
        if new_life:
            reboot()
        if not spells:
            (tmp_path / "a.db.verdicts.json").unlink()
        seen: list[VerdictState | None] = []
        b.gossip.state.rows.watch(VERDICT, lambda old, new: seen.append(state(b, "x", "a")))
        async with started("a", network, tmp_path / "a.db") as a:
            expected = [VerdictState.VIOLATED] * new_life if spells else [VerdictState.UNKNOWN]
            await eventually(lambda: a.constraints() and a.constraints()[0].reason == "no measurement of x")
            await a._runtime.evaluator.tick()
            await eventually(lambda: len(seen) == len(expected) and a.gossip.state_hash == b.gossip.state_hash)
            if spells:
                assert told(b, "x", "a") == first, "the first bad evaluation, and its values"
                await a.measure({"x": 2.0})
                assert shown(a, "x", "a").state == "violated"
            assert seen == expected, "nothing else was shown in between"
            await a.measure({"x": 0.0})
            await eventually(lambda: state(b, "x", "a") is VerdictState.HOLDS)
            assert list(b.gossip.state.verdicts.of("x")) == ["a"], "one life"


@pytest.mark.slow
@pytest.mark.parametrize("new_life", [False, True])
async def test_a_sensor_that_is_dead_since_a_restart_is_told(tmp_path: Path, reboot: Callable[[], None], *, new_life: bool) -> None:
    """The defect: a constraint that always held had no cell, and after the restart none either: no other node knew."""
    network = MemoryNetwork()
    async with started("b", network) as b:
        async with started("a", network, tmp_path / "a.db") as a:
            await a.add_constraint("x", when="x < 1.0")
            await a.add_constraint("never", when="z < 1.0")
            await a.measure({"x": 0.0})
            await eventually(lambda: b.gossip.state.metrics.constraint_satisfied("x") == 1)
        if new_life:
            reboot()
        async with started("a", network, tmp_path / "a.db"):
            await eventually(lambda: state(b, "x", "a") is VerdictState.UNKNOWN)
            assert "never" not in b.gossip.state.verdicts


@pytest.mark.slow
async def test_a_restarted_node_reads_its_constraints_before_the_first_tick(tmp_path: Path) -> None:
    settings = msgspec.structs.replace(QUICK, name="a", store=str(tmp_path / "a.db"), check_every=3600.0)
    async with Node(settings=settings, transport=MemoryNetwork().transport()) as a:
        await a.add_constraint("x", when="x < 1.0")
        await a.measure({"x": 2.0})
    async with Node(settings=settings, transport=MemoryNetwork().transport()) as a:
        await eventually(lambda: [each.state for each in a.constraints()] == ["violated"])
        assert (shown(a, "x", "a").state, shown(a, "x", "a").reason) == ("violated", "no measurement of x")


@pytest.mark.slow
@pytest.mark.parametrize("new_life", [False, True])
async def test_a_node_that_held_at_once_after_a_restart_says_so(
    tmp_path: Path, reboot: Callable[[], None], *, new_life: bool
) -> None:
    """The first evaluation after the restart is the first that anything is known of: there is no turn to tell."""
    network = MemoryNetwork()
    async with started("b", network) as b:
        async with started("a", network, tmp_path / "a.db") as a:
            await a.add_constraint("x", when="x < 1.0", if_unknown="satisfied")
            await a.measure({"x": 2.0})
            await eventually(lambda: state(b, "x", "a") is VerdictState.VIOLATED)
            await eventually((tmp_path / "a.db.verdicts.json").exists)
        if new_life:
            reboot()
        (tmp_path / "a.db.verdicts.json").unlink()
        async with started("a", network, tmp_path / "a.db"):
            await eventually(lambda: state(b, "x", "a") is VerdictState.HOLDS)


@pytest.mark.slow
async def test_a_life_without_its_store_takes_its_former_verdicts_over_when_they_come() -> None:
    network = MemoryNetwork()
    async with started("b", network) as b:
        async with started("a", network) as a:
            await a.add_constraint("x", when="x < 1.0")
            await a.add_constraint("y", when="y < 1.0")
            await a.measure({"x": 2.0, "y": 2.0})
            await eventually(lambda: state(b, "y", "a") is VerdictState.VIOLATED)
        network.cut(["a"], ["b"])
        async with started("a", network) as a:
            await a.add_constraint("x", when="x < 1.0")
            await a.measure({"x": 0.0})
            await a._runtime.evaluator.tick()
            assert told(a, "x", "a") is None
            network.heal()
            await eventually(lambda: (state(b, "x", "a"), state(b, "y", "a")) == (VerdictState.HOLDS, VerdictState.UNKNOWN))


@pytest.mark.slow
async def test_what_changed_while_a_violated_node_was_away_leaves_no_stale_violation(
    tmp_path: Path, reboot: Callable[[], None]
) -> None:
    network = MemoryNetwork()
    zone = {"zone": "a"}
    async with started("b", network) as b:
        async with started("a", network, tmp_path / "a.db", labels=zone) as a:
            for id_ in ("edited", "removed", "readded", "relabelled"):
                await a.add_constraint(id_, when="x < 1.0", on=zone if id_ == "relabelled" else None)
            await a.measure({"x": 2.0})
            await eventually(lambda: len(b.gossip.state.verdicts.violated) == 4)
        reboot()
        await b.add_constraint("edited", when="x < 3.0")
        await b.remove_constraint("removed")
        await b.remove_constraint("readded")
        assert b.gossip.state.verdicts.violated == {"edited", "relabelled"}
        async with started("a", network, tmp_path / "a.db", labels={"zone": "c"}) as a:
            await a.measure({"x": 0.5})
            await eventually(lambda: not b.gossip.state.verdicts.violated)
            assert state(b, "edited", "a") is VerdictState.HOLDS
            assert told(b, "relabelled", "a") is None
            await b.add_constraint("readded", when="x < 1.0")
            assert not b.gossip.state.verdicts.violated


# --- definitions ---------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_violation_ends_with_its_constraint_on_all_nodes() -> None:
    async with fleet("a", "b", "c") as nodes:
        a, b, c = nodes
        for id_ in ("removed", "edited", "relabelled"):
            await b.add_constraint(id_, when="x < 1.0")
        await b.add_constraint("expiring", when="x < 1.0", ttl=3600)
        await eventually(lambda: len(a.constraint_ids()) == 4)
        await a.measure({"x": 2.0})
        await eventually(lambda: all(len(node.gossip.state.verdicts.violated) == 4 for node in nodes))
        await c.remove_constraint("removed")
        await c.add_constraint("edited", when="x < 3.0")
        await c.add_constraint("relabelled", when="x < 1.0", on={"zone": "z"})
        await c.add_constraint("expiring", when="x < 1.0", until=time.time_ns() + 10**8)
        await eventually(lambda: all(not node.gossip.state.verdicts.violated for node in nodes))
        assert [state(node, "edited", "a") for node in nodes] == [VerdictState.HOLDS] * 3
        await b.add_constraint("removed", when="x < 3.0")
        await eventually(lambda: all("removed" in node.constraint_ids() for node in nodes))
        assert all(not node.gossip.state.verdicts.violated for node in nodes)


@pytest.mark.slow
async def test_an_edit_under_which_it_is_still_violated_begins_a_new_spell_and_one_of_the_severity_does_not() -> None:
    async with fleet("a", "b") as [a, b]:
        await a.add_constraint("x", when="x < 1.0")
        await a.measure({"x": 5.0})
        await eventually(lambda: state(b, "x", "a") is VerdictState.VIOLATED)
        first = told(b, "x", "a")
        assert first is not None
        await a.add_constraint("x", when="x < 1.0", severity="critical")
        await a.add_constraint("x", when="x < 2.0", loosen=True)
        await eventually(lambda: (now := told(b, "x", "a")) is not None and now.margin == -3.0)
        second = told(b, "x", "a")
        assert second is not None
        assert second.since > first.since
        await a.add_constraint("x", when="x < 2.0", severity="critical")
        await eventually(lambda: not a._runtime.evaluator.judge.stale(1))
        await a._runtime.evaluator.write_verdicts(final=True)
        assert told(a, "x", "a") == second


async def test_a_turn_that_waits_over_an_edit_is_told_by_the_edited_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    """A constraint between an edit and its next judgement is not told as off."""
    monkeypatch.setattr(evaluation, "TOLD_EVERY", 3600 * SECOND)  # so the last turn waits until it is told before its time
    async with fleet("a", settings=msgspec.structs.replace(QUICK, check_every=60.0)) as [a]:
        await a.add_constraint("x", when="x < 1.0")
        await a._runtime.evaluator.renew()  # so each turn is told when it comes, the first three
        for value in (2.0, 0.0, 2.5, 0.0, 3.0):
            await a.measure({"x": value})
        edit = partial(a.gossip.add_constraint, "x", when="x < 1.0", severity="critical")
        a._runtime.feed.write(edit)  # without a turn of the loop, in which the node could judge it
        await a._runtime.evaluator.write_verdicts(final=True)
        assert (told(a, "x", "a") or NodeVerdict(VerdictState.OFF)).inputs == (("x", "2.5"),)
        await a._runtime.evaluator.renew()
        await a._runtime.evaluator.write_verdicts(final=True)
        assert (told(a, "x", "a") or NodeVerdict(VerdictState.OFF)).inputs == (("x", "3.0"),)


@pytest.mark.slow
async def test_the_state_of_a_node_that_is_gone_is_shown_as_the_last_that_it_told(capsys: pytest.CaptureFixture[str]) -> None:
    """The defect: the measurements of a node ended with it, and `explain` said that its constraint holds."""
    network = MemoryNetwork()
    async with started("b", network) as b:
        async with started("a", network) as a:
            await a.add_constraint("x", when="x < 1.0")
            await a.measure({"x": 0.0})
            await eventually(lambda: b.gossip.state.metrics.by_node("x") and b.status().peers)
        await eventually(lambda: not shown(b, "x", "a").live)
        print_view(show_explain(b.explanations.report("x"), ExplainConstraint(id="x"), Namespace()))
    assert re.search(r"^a +not known; holds when last heard, \d+ s ago +- +no ", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.slow
async def test_a_retired_node_is_shown_by_nobody() -> None:
    network = MemoryNetwork()
    async with started("b", network) as b, started("c", network) as c:
        async with started("a", network) as a:
            await a.add_constraint("x", when="x < 1.0")
            await a.measure({"x": 2.0})
            await eventually(lambda: b.gossip.state.verdicts.violated == c.gossip.state.verdicts.violated == {"x"})
        await b.retire("a", force=True)
        await eventually(lambda: not b.gossip.state.verdicts.violated and not c.gossip.state.verdicts.violated)


# --- spells --------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_pending_resumes_with_its_elapsed_time(tmp_path: Path, reboot: Callable[[], None]) -> None:
    network, store = MemoryNetwork(), tmp_path / "a.db"
    async with started("a", network, store) as a:
        await a.add_constraint("x", when="x < 1.0", for_=3600)
        await a.measure({"x": 2.0})
        await asyncio.sleep(0.3)  # the time that counts
        await a.stop()
        [spells] = msgspec.json.decode((tmp_path / "a.db.verdicts.json").read_bytes())["spells"]["x"].values()
        assert spells["state"] == "pending"
        assert spells["elapsed"] >= 10**8
    reboot()
    async with started("a", network, store) as a:
        await eventually(lambda: state(a, "x", "a") is VerdictState.PENDING)
        await a.measure({"x": 2.0})
        [again] = msgspec.json.decode(a._runtime.evaluator.judge.save(time.monotonic_ns()))["spells"]["x"].values()
        assert again["elapsed"] >= spells["elapsed"]
        assert abs(again["since"] - spells["since"]) < 10**9


@pytest.mark.slow
async def test_a_running_clock_is_saved_at_intervals_and_a_turn_at_once(tmp_path: Path, reboot: Callable[[], None]) -> None:
    file = tmp_path / "a.db.verdicts.json"
    async with started("a", MemoryNetwork(), tmp_path / "a.db", count_every=60.0) as a:
        save = a._runtime.spell_file.save
        await a.add_constraint("x", when="x < 1.0", for_=3600)
        await a.measure({"x": 2.0})
        await save()
        file.unlink()
        await a._runtime.evaluator.tick()
        await save()
        assert not file.exists()
        await save(final=True)
        assert file.exists()
        file.unlink()
        await a.measure({"x": 0.0})
        await save()
        assert file.exists()


@pytest.mark.slow
async def test_a_damaged_file_of_spells_is_a_warning_and_a_fresh_start(
    tmp_path: Path, reboot: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    network, store = MemoryNetwork(), tmp_path / "a.db"
    async with started("a", network, store) as a:
        await a.add_constraint("x", when="x < 1.0", for_=3600)
        await a.measure({"x": 2.0})
        await a.stop()
    (tmp_path / "a.db.verdicts.json").write_bytes(b'{"format": 3')
    with caplog.at_level(logging.WARNING, "constraint_crdt.node"):
        async with started("a", network, store) as a:
            assert "begin anew" in caplog.text
            await eventually(lambda: state(a, "x", "a") is VerdictState.UNKNOWN)
            await a.measure({"x": 2.0})
            await eventually(lambda: (tmp_path / "a.db.verdicts.json").read_bytes() != b'{"format": 3')


# --- counts and time -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_sample_counts_once_while_time_passes_and_a_check_counts_once() -> None:
    async with fleet("a", "b") as [a, b]:
        await a.add_constraint("x", when="x < 1.0")
        await a.add_constraint("y", when="y < 1.0")
        ticks = a._runtime.evaluator
        await a.measure({"x": 2.0})
        for _ in range(20):
            await ticks.tick()
        await eventually(lambda: b.status().violations == 1)
        await a.check({"y": 2.0})
        assert (a.status().violations, a.metrics.report().violated_here) == (3, 2), "`check` judges both, with x as measured"
        for _ in range(20):
            await ticks.tick()
        await ticks.write_counts()
        assert (a.status().satisfied, a.status().violations) == (0, 3)


@pytest.mark.slow
async def test_the_times_of_two_nodes_add_up_and_are_written_at_the_end() -> None:
    network = MemoryNetwork()
    async with started("c", network) as c, started("b", network) as b, started("a", network) as a:
        await c.add_constraint("x", when="x < 1.0")
        await eventually(lambda: "x" in a.constraint_ids() and "x" in b.constraint_ids())
        began = time.monotonic()
        await a.measure({"x": 2.0})
        await b.measure({"x": 0.0})
        await asyncio.sleep(0.2)  # the time that counts
        await a.stop()
        await b.stop()
        most = time.monotonic() - began
        metrics = c.gossip.state.metrics
        await eventually(lambda: {"a", "b"} <= metrics.time_on("x").keys())
        by_node, total = metrics.time_on("x"), metrics.time("x")
        assert 0.199 <= by_node["a"].violated <= most
        assert 0.199 <= by_node["b"].satisfied <= most
        assert (total.satisfied, total.violated) == (by_node["b"].satisfied, by_node["a"].violated)


@pytest.mark.slow
async def test_a_count_near_the_largest_stops_no_other_on_a_running_node(caplog: pytest.LogCaptureFixture) -> None:
    async with fleet("a", "b") as [a, b]:
        await a.add_constraint("x", when="x < 1.0")
        await a.add_constraint("y", when="x < 1.0")
        await a.record(violated=2**63 - 1, constraint="x")
        with caplog.at_level(logging.WARNING, "constraint_crdt.node"):
            await a.measure({"x": 2.0})
            await eventually(lambda: b.gossip.state.metrics.constraint("y").violated == 1)
        assert a.gossip.state.metrics.constraint("x").violated == 2**63 - 1
        assert "'x'" in caplog.text


async def test_a_full_count_does_not_stop_the_other_count_of_its_constraint() -> None:
    """The defect: a full satisfied count dropped the violated one of the same interval, which `top` counted."""
    async with fleet("a", settings=msgspec.structs.replace(QUICK, count_every=3600.0)) as [a]:
        await a.add_constraint("x", when="x < 1.0")
        await a.record(satisfied=2**63 - 1, constraint="x")
        await a.measure({"x": 0.5})
        await a.measure({"x": 2.0})
        await a._runtime.evaluator.write_counts()
        assert a.gossip.state.metrics.constraint("x") == (2**63 - 1, 1)
        assert a.approximate.top().total == 1
