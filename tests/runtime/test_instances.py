"""Instances on a node: measurements with labels, one verdict for each instance, and the worst of them for the constraint."""

from pathlib import Path

import msgspec
import pytest

from constraint_crdt import ConstraintCrdtError, Node
from constraint_crdt.cli import main
from constraint_crdt.model import VerdictState
from constraint_crdt.operations.constraints import show_instances
from constraint_crdt.operations.evidence import ExplainConstraint, show_explain
from constraint_crdt.operations.operation import UsageError, parse_measurements
from tests.runtime.fleet import QUICK, agreed, eventually, fleet

TEMPERATURES = {"joint_temp_c": {"by": "joint", "values": {"j1": 71.0, "j2": 55.0, "j3": 90.0}}}


async def hot(node: Node) -> None:
    await node.add_constraint("hot", when="joint_temp_c < 70.0", each="joint")


@pytest.mark.slow
async def test_the_worst_instance_is_the_verdict_of_the_node_and_others_hear_of_it() -> None:
    async with fleet("a", "b") as (a, b):
        await hot(a)
        await eventually(lambda: agreed([a, b]))
        await a.measure(TEMPERATURES)
        [found] = a.constraints(["hot"])
        assert (found.state, found.each, found.violations) == ("violated", "joint", 0)
        assert found.instances is not None
        assert show_instances(found.instances) == "violated: 2 of 3 joints"
        shown = [(each.instance, each.state, each.margin, each.values) for each in found.instances.worst]
        assert shown == [
            ("j1", "violated", -1.0, {"joint_temp_c": "71.0"}),
            ("j3", "violated", -20.0, {"joint_temp_c": "90.0"}),
            ("j2", "holds", 15.0, {"joint_temp_c": "55.0"}),
        ]
        await eventually(lambda: b.status().violated_anywhere == 1)
        [told] = b.constraints(["hot"])[0].violated_on
        assert (told.node, told.values) == ("a", {"joint_temp_c": "71.0", "joint": "j1"})
        assert (told.reason, told.margin) == ("joint=j1: joint_temp_c = 71.0", -1.0)
        # b measures none, and has an evaluation from its first look at the definition, which may come after the verdict of a.
        await eventually(lambda: b.constraints(["hot"])[0].instances is not None)
        await a.measure({'joint_temp_c{joint="j1"}': 60.0})
        await eventually(lambda: b.constraints(["hot"])[0].violated_on[0].values["joint"] == "j3")
        await a.measure({"joint_temp_c": {"by": "joint", "values": {"j3": None}}})
        assert a.constraints(["hot"])[0].state == "holds"
        await eventually(lambda: b.status().violated_anywhere == 0)
        report = a.metrics.report()
        assert report.violated_here == 0


async def test_it_is_explained_and_decided_and_checked_by_instance() -> None:
    async with fleet("a") as (node,):
        await hot(node)
        await node.measure(TEMPERATURES)
        assert not node.notes_on("hot")
        explained = node.explanations.report("hot")
        assert explained.instances is not None
        assert [each.instance for each in explained.instances.worst] == ["j1", "j3", "j2"]
        text = str(show_explain(explained, ExplainConstraint(id="hot"), None))  # type: ignore[arg-type]
        assert "here violated: 2 of 3 joints" in text
        assert (await node.decide({"joint_temp_c": 50.0})).allowed, "a value without a label is that of each instance"
        found = await node.decide({"joint_temp_c": 50.0, 'joint_temp_c{joint="j9"}': 95.0})
        assert [(each.reason, each.margin, each.reads) for each in found.violated] == [("joint=j9", -25.0, ("joint_temp_c",))]
        [checked] = await node.check(TEMPERATURES)
        assert (checked.state, checked.reason) == (VerdictState.VIOLATED, "joint=j1")
        assert {each.name for each in node.variables(node.variable_ids())} == {
            f'joint_temp_c{{joint="{each}"}}' for each in ("j1", "j2", "j3")
        }


@pytest.mark.slow
async def test_a_plain_constraint_says_that_the_variable_is_measured_by_a_label() -> None:
    async with fleet("a") as (node,):
        await node.measure({**TEMPERATURES, 'disk_percent{mount="/"}': 12.0, "tree": {"by": "joint", "values": 3, "more": 1}})
        await node.add_constraint("plain", when="joint_temp_c < 70.0")
        await node.add_constraint("map", when="tree.values == 3.0")
        await node.add_constraint("none", when="v < 1.0", each="side")
        await node.check({})
        reasons = {each.id: each.reason for each in node.constraints()}
        assert reasons == {
            "plain": "joint_temp_c is measured by joint: a definition reads it with `each`",
            "map": "",
            "none": "nothing that it reads is measured by side",
        }
        assert node.variables(['a/disk_percent{mount="/"}'])[0].value == "12.0"


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"x": {"by": "joint", "values": {f"j{number}": 1.0 for number in range(257)}}}, "more than the 256 instances"),
        ({"x": {"by": "a b", "values": {"j1": 1.0}}}, "the label of measurements has ASCII letters"),
        ({"x": {"by": "joint", "values": 7}}, "`values` is a map from the values of the label joint"),
        ({"x": {"by": "joint", "values": {1: 7}}}, "the value of a label is a text, not 1"),
        ({"x": {"by": "joint", "values": {"j1": [1.0]}}}, "the value of an instance is a number, a text, true or false"),
        ({"robot.x": {"by": "joint", "values": {"j1": 1.0}}}, "names no measurement"),
        ({"x{joint=j1}": 1.0}, 'write it as VARIABLE{LABEL="VALUE"}'),
        ({'x{a="1",b="2"}': 1.0}, "with one label"),
        ({'x{a="' + "y" * 65 + '"}': 1.0}, "the value of the label a must have at most 64 bytes"),
        ({'for{a="1"}': 1.0}, "reserved word"),
        ({'x{joint="j1"}': 1.0, "x": {"by": "joint", "values": {"j1": 1.0}}}, 'x{joint="j1"} has two values'),
    ],
)
async def test_wrong_measurements_are_refused_with_a_sentence_and_none_is_taken(values: dict[str, object], why: str) -> None:
    async with fleet("a") as (node,):
        for call in (node.measure, node.check, node.decide):
            if call != node.measure and ("256" in why or "a number, a text" in why):
                continue
            with pytest.raises(ConstraintCrdtError) as refused:
                await call(values)
            assert why in str(refused.value)
        assert node.variable_ids() == []


def test_the_command_line_reads_the_name_of_an_instance() -> None:
    assert parse_measurements(['t{joint="j=1"}=71', "v=2"]) == {'t{joint="j=1"}': 71.0, "v": 2.0}
    with pytest.raises(UsageError, match="is not VAR=VALUE"):
        parse_measurements(['t{joint="j1"}'])


@pytest.mark.slow
async def test_the_states_of_instances_outlive_a_restart(tmp_path: Path) -> None:
    settings = msgspec.structs.replace(QUICK, store=str(tmp_path / "a.db"))
    async with fleet("a", settings=settings) as (node,):
        await hot(node)
        await node.measure(TEMPERATURES)
        since = node.explanations.report("hot").instances
    async with fleet("a", settings=settings) as (node,):
        await node.measure({"joint_temp_c": {"by": "joint", "values": {"j1": 75.0, "j2": 75.0}}})
        again = node.explanations.report("hot").instances
        assert since is not None
        assert again is not None
        (first, second), before = again.worst, since.worst[0]
        assert (first.instance, second.instance, first.state) == ("j1", "j2", "violated")
        assert abs(first.since - before.since) < 10**9
        assert second.since > first.since


@pytest.mark.slow
def test_rule_tests_have_series_of_instances(tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text('[[constraint]]\nid = "hot"\nwhen = "t < 70.0"\neach = "joint"\nfor = "2s"\n')
    cases = """
        rule_files = ["rules.toml"]
        check_every = "1s"
        [[test]]
        name = "one joint"
        interval = "1s"
        series = [
            { variable = 't{joint="j1"}', values = "60 80x10" },
            { variable = 't{joint="j2"}', values = "60x11" },
        ]
        expect = [
            { at = "2s", constraint = "hot", state = "pending", since = "1s" },
            { at = "5s", constraint = "hot", state = "violated", since = "1s" },
        ]
    """
    (tmp_path / "cases.toml").write_text(cases)
    assert main(["test", str(tmp_path / "cases.toml")]) == 0


@pytest.mark.slow
async def test_an_instance_goes_with_its_last_value_and_keeps_nothing_violated() -> None:
    settings = msgspec.structs.replace(QUICK, max_age=0.3)
    async with fleet("a", settings=settings) as (node,):
        await hot(node)
        await node.measure({'joint_temp_c{joint="gone"}': 90.0})
        assert node.constraints()[0].state == "violated"
        await eventually(lambda: node.constraints()[0].reason == "nothing that it reads is measured by joint")
        found = node.constraints()[0]
        assert (found.state, found.instances and found.instances.total) == ("unknown", 0)
        assert found.instances is not None
        assert show_instances(found.instances) == "no joint is measured"
        await node.measure({'joint_temp_c{joint="j1"}': 60.0})
        assert node.constraints()[0].state == "holds"
