"""Rollouts on a node: gates, what is refused, what the nodes of the stages tell, and the end of one."""

from pathlib import Path

import msgspec
import pytest

from constraint_crdt import ConstraintCrdtError, MemoryNetwork, Node
from constraint_crdt.errors import LooseningRefused, UnknownName
from constraint_crdt.model import EventKind, Severity
from constraint_crdt.operations.constraints import AddConstraint, StagedReport
from constraint_crdt.operations.rules import StagedFigures
from constraint_crdt.runtime.rollouts import Gate, NodeRollouts, Sight, judge_gate, parse_gate
from constraint_crdt.types.rollouts import Phase, StagedValue
from tests.runtime.fleet import QUICK, eventually
from tests.runtime.rollout_world import NEW, RolloutWorld

STAGED = {"stages": ["zone=a"], "gate": "violations == 0 for 5s"}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("violations == 0 for 10m", 600),
        ("violations == 0", 0),
        (" violated == 0 && unknown <= 2 for 1.5h ", 5400),
        ("violations < 3.0 || reachable * 2.0 >= nodes for 0", 0),
    ],
)
def test_a_gate_is_an_expression_and_a_time(text: str, seconds: int) -> None:
    assert parse_gate(text).lasts == seconds * 10**9


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is no gate: write it as in `violations == 0 for 10m`"),
        ("violations == 0 for", "column 17: `for` does not fit here"),
        ("violations == 0 for ever", "'ever' is not a length of time"),
        ("violations +", "column 13"),
        ("violations == 'none'", "violations"),
        ("speed < 1.0", "reads speed, which no gate has: there are violations, violated, unknown, nodes, reachable"),
        ("avg_over('violations', '5m') < 1.0", "the gate"),
        ("violations == 0 " * 40, "at most 512 bytes"),
    ],
)
def test_a_mistake_in_a_gate_is_one_sentence(text: str, says: str) -> None:
    with pytest.raises(ConstraintCrdtError) as found:
        parse_gate(text)
    assert says in str(found.value)
    assert found.value.field == "gate"


GOOD = StagedFigures(nodes=2, reachable=2)
SILENT = Sight(StagedFigures(nodes=2, reachable=1), unreached="n1 cannot be reached from here")
DOUBTED = Sight(StagedFigures(nodes=2, reachable=2, unknown=1), undecided="n1: x is unknown: no v")
BAD = Sight(StagedFigures(nodes=2, reachable=1, violations=3), unreached="n0 is gone", violated="n1: x is violated")


@pytest.mark.parametrize(
    ("text", "sight", "holds", "why"),
    [
        ("violations == 0", Sight(GOOD), True, ""),
        ("violations == 0", Sight(StagedFigures()), None, "no node matches the stages so far"),
        ("violations == 0", SILENT, None, "n1 cannot be reached from here"),
        ("violations == 0 && reachable >= 1", SILENT, True, ""),
        ("violations == 0 && reachable >= 2", SILENT, None, "n1 cannot be reached from here"),
        ("violations == 0 && nodes > 2", Sight(GOOD), False, "the gate does not hold: violations = 0, nodes = 2"),
        ("violations == 0", DOUBTED, None, "undecided on n1: x is unknown: no v"),
        ("violations == 0 && unknown <= 1", DOUBTED, True, ""),
        ("unknown == 0", DOUBTED, None, "undecided on n1: x is unknown: no v"),
        ("violations == 0", BAD, False, "the gate does not hold: violations = 3; n1: x is violated"),
        ("violations < 10", BAD, None, "n0 is gone"),
    ],
)
def test_a_gate_holds_fails_or_is_undecided(text: str, sight: Sight, holds: bool | None, why: str) -> None:
    gate: Gate = parse_gate(text)
    assert judge_gate(gate, sight) == (holds, why)


def node(network: MemoryNetwork, name: str = "forge", zone: str = "a") -> Node:
    return Node(name=name, settings=QUICK, labels={"zone": zone}, transport=network.transport(), actor="alice")


@pytest.mark.slow
async def test_what_cannot_be_staged_is_refused_and_nothing_changes() -> None:
    async with node(MemoryNetwork()) as forge:
        await forge.add_constraint("there", when="v <= 1.0")
        await forge.add_constraint("of_all", when="count(nodes, n, n.v > 1.0) < 3", scope="fleet")
        before = forge.gossip.constraints_hash
        ok = AddConstraint(id="x", when="v < 1.0")
        for constraints, changed, says in (
            ([], {}, "there is nothing to stage"),
            ([AddConstraint(id="there", when="v <= 1.0")], {}, "these definitions are in force already"),
            ([ok, ok], {}, "a constraint is there twice"),
            ([AddConstraint(id="x", when="v <")], {}, "column 4"),
            ([AddConstraint(id="x", when="v < 1.0", ttl=60.0)], {}, "a definition with an end is not staged"),
            ([AddConstraint(id="x", when="count(nodes, n, n.v > 1.0) < 3", scope="fleet")], {}, "it cannot reach them in stages"),  # type: ignore[arg-type]
            ([AddConstraint(id="of_all", when="v < 1.0")], {}, "in force is of scope fleet"),
            ([AddConstraint(id="there", when="v < 2.0", new=True)], {}, "there"),
            ([ok], {"stages": []}, "1 to 32 stages, not 0"),
            ([ok], {"stages": ["zone=a", "zone=nowhere"]}, "stage 2, zone=nowhere: no node with these labels is known here"),
            ([ok], {"gate": "never"}, "the gate 'never'"),
            ([ok], {"timeout": 0.0}, "the timeout of a stage"),
        ):
            with pytest.raises(ConstraintCrdtError, match=says.replace("(", "\\(")):
                await forge.rollouts.begin(constraints, **(STAGED | changed))
        assert (forge.gossip.constraints_hash, forge.rollouts.reports()) == (before, [])
        for command in (forge.rollouts.stop, forge.rollouts.go_on, forge.rollouts.back):
            with pytest.raises(UnknownName):
                await command("r")


def told(node: Node) -> list[str]:
    """The operation, the actor and the reason of the last change of `there` in the history."""
    entry = [each for each in node.history("there") if each.kind == "constraint"][-1]
    return [entry.operation, entry.actor, entry.why]


@pytest.mark.slow
async def test_a_critical_constraint_is_loosened_in_stages_only_with_a_word() -> None:
    async with node(MemoryNetwork()) as forge:
        await forge.add_constraint("speed", when="v < 1.0", severity="critical")
        looser = AddConstraint(id="speed", when="v < 2.0", severity=Severity.CRITICAL)
        with pytest.raises(LooseningRefused):
            await forge.rollouts.begin([looser], stages=["zone=a"])
        assert not forge.rollouts.reports()
        report = await forge.rollouts.begin([msgspec.structs.replace(looser, loosen=True)], stages=["zone=a"])
        assert report.constraints == ("speed",)


@pytest.mark.slow
async def test_a_rollout_completes_by_itself_and_is_rolled_back_afterwards() -> None:
    network = MemoryNetwork()
    async with node(network) as forge, node(network, "anvil", "b") as anvil:
        await forge.add_constraint("there", when="v <= 2.0", severity="critical")
        await eventually(lambda: "there" in anvil.gossip.state.constraints and len(forge.gossip.state.nodes) == 2)
        for each in (forge, anvil):
            await each.measure({"v": 1.5})
        staged = [AddConstraint(id="there", when="v <= 1.8", loosen=True), AddConstraint(id="more", when="v > 1.0")]
        began = await forge.rollouts.begin(staged, stages=["zone=a", "zone=b"], gate="violations == 0", why="a wet floor")
        assert (began.phase, began.stage, began.constraints, began.new) == ("running", 1, ("more", "there"), ("more",))
        await eventually(lambda: anvil.rollouts.reports() and anvil.rollouts.report(began.id).phase == "complete", within=30.0)
        await eventually(lambda: [each.when for each in anvil.constraints()] == ["v > 1.0", "v <= 1.8"])
        assert anvil.constraints(["there"])[0].severity == "warning", "the file says all of a definition"
        await eventually(lambda: told(forge)[:1] == ["complete rollout"])
        assert told(forge) == ["complete rollout", "rollout", "a wet floor"]
        done = await anvil.rollouts.back(began.id, why="dry again")
        assert (done.restored, done.kept, done.rollout.reason) == (("more", "there"), (), "dry again")
        await eventually(lambda: [(each.when, each.severity) for each in forge.constraints()] == [("v <= 2.0", "critical")])
        with pytest.raises(ConstraintCrdtError, match="is rolled back"):
            await forge.rollouts.back(began.id)


@pytest.mark.slow
async def test_on_the_nodes_of_a_stage_the_new_definition_counts_for_guards_events_and_checks() -> None:
    async with node(MemoryNetwork()) as forge:
        await forge.add_constraint("there", when="v <= 2.0", mode="audit")
        await forge.measure({"v": 1.5})
        assert forge.guards.standing(["there"]).constraints == 0
        staged = AddConstraint(id="there", when="v <= 1.0", severity=Severity.CRITICAL)
        began = await forge.rollouts.begin([staged], stages=["zone=a"], gate="violations >= 0 for 1h")
        await eventually(lambda: forge.guards.standing().standing == "violated")
        await eventually(lambda: forge.event_stream.counts[EventKind.VIOLATED] == 1)
        explained = forge.explanations.report("there")
        assert explained.staged == StagedReport(rollout=began.id, when="v <= 1.0", here=True)
        assert [each.verdict.value for each in await forge.check({"v": 1.5})] == ["violated"]
        assert [each.verdict.value for each in forge.gossip.check({"v": 1.5})] == ["violated"]
        assert "rollout" in [each.kind for each in forge.status().concerns]
        assert not [each for each in forge.diagnosis.look().findings if each.check == "undecidable" and each.level != "ok"]


@pytest.mark.slow
async def test_it_stops_where_somebody_changes_a_definition_and_cannot_go_on() -> None:
    async with node(MemoryNetwork()) as forge:
        await forge.add_constraint("there", when="v <= 2.0")
        began = await forge.rollouts.begin([AddConstraint(id="there", when="v <= 1.8")], **STAGED)  # type: ignore[arg-type]
        await forge.add_constraint("there", when="v <= 5.0")
        await eventually(lambda: forge.rollouts.report(began.id).phase == "stopped")
        assert forge.rollouts.report(began.id).reason == "there was changed on forge since the rollout began"
        with pytest.raises(ConstraintCrdtError, match="cannot go on: there was changed on forge"):
            await forge.rollouts.go_on(began.id)
        done = await forge.rollouts.back(began.id)
        assert (done.restored, done.kept) == ((), ("there",))
        assert forge.constraints()[0].when == "v <= 5.0"


@pytest.mark.long
def test_the_count_of_violations_goes_on_after_a_restart() -> None:
    world = RolloutWorld(3, faults=False, commands=False, bad={"n0": 0}, seconds=0)
    world.run()
    n0 = world.nodes["n0"]
    found = n0.rollout
    assert found is not None
    assert found.phase is Phase.STOPPED
    before = n0.gossip.state.staged.of("n0", found.id)
    assert before is not None
    assert before.violations > 1
    world.bad = {}
    n0.restart(lost=False)
    assert n0.definition() == NEW
    n0.measure()
    (report,) = reports_of(n0.rollouts)
    assert (report.violations, report.violated) == (before.violations, 0)


def reports_of(rollouts: NodeRollouts) -> list[StagedValue]:
    """What a node tells of its own part."""
    rollouts._take()
    return rollouts._report_own()


@pytest.mark.long
async def test_the_count_goes_on_with_the_store_of_a_node(tmp_path: Path) -> None:
    settings = msgspec.structs.replace(QUICK, name="forge", store=str(tmp_path / "forge.db"), labels={"zone": "a"})
    async with Node(settings=settings, transport=MemoryNetwork().transport()) as forge:
        began = await forge.rollouts.begin(
            [AddConstraint(id="x", when="v <= 1.0")], stages=["zone=a"], gate="violations < 9 for 1h"
        )
        await forge.measure({"v": 0.5})
        await eventually(lambda: forge.rollouts.report(began.id).figures.reachable == 1)
        await forge.measure({"v": 1.5})
        await forge.measure({"v": 0.5})
        await eventually(lambda: forge.rollouts.report(began.id).figures.violations == 1)
    async with Node(settings=settings, transport=MemoryNetwork().transport()) as forge:
        await forge.measure({"v": 0.5})
        await eventually(lambda: "x" in [each.id for each in forge.constraints() if each.state == "holds"])
        assert [each.violations for each in reports_of(forge.rollouts)] == [1]


@pytest.mark.slow
async def test_labels_count_from_the_start_also_before_a_node_that_resumes_meets_a_peer(tmp_path: Path) -> None:
    settings = msgspec.structs.replace(QUICK, name="forge", store=str(tmp_path / "forge.db"), labels={"zone": "a"})
    network = MemoryNetwork()
    async with node(network, "anvil", "b") as anvil, Node(settings=settings, transport=network.transport()) as forge:
        await forge.add_constraint("here", when="v <= 1.0", on={"zone": "a"})
        await forge.rollouts.begin([AddConstraint(id="there", when="v <= 1.8")], **STAGED)  # type: ignore[arg-type]
        await eventually(lambda: "there" in anvil.gossip.state.constraints and anvil.rollouts.reports())
    async with Node(settings=settings, transport=MemoryNetwork().transport()) as forge:  # cut off, so it has met nobody yet
        await forge.measure({"v": 1.5})
        await eventually(lambda: [each.state for each in forge.constraints()] == ["violated", "holds"])
