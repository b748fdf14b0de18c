"""Parameters on nodes: the constraints that read one are judged at once, with its value in their margins and reasons."""

from collections.abc import Mapping
from typing import Any

import pytest

from constraint_crdt import ConstraintCrdtError, EventKind, ExpressionError, MemoryNetwork, Node
from constraint_crdt.errors import UnknownName
from constraint_crdt.operations.constraints import AddConstraint, BatchError
from constraint_crdt.types.definition import Definition
from constraint_crdt.types.parameters import BoundDefinition, Parameters
from tests.runtime.fleet import QUICK, agreed, eventually, fleet


def state_of(node: Node, id_: str) -> tuple[str | None, str, float | None]:
    [found] = [each for each in node.constraints() if each.id == id_]
    return found.state, found.reason, found.margin


@pytest.mark.slow
async def test_a_change_of_a_parameter_judges_its_readers_at_once_and_keeps_their_spells() -> None:
    async with Node(settings=QUICK, transport=MemoryNetwork().transport()) as node:
        await node.add_constraint("speed", when="speed_mps <= param.speed_limit", for_=3600)
        await node.measure({"speed_mps": 2.0})
        assert state_of(node, "speed") == ("unknown", "the parameter speed_limit is not set", None)
        assert any("the parameter speed_limit is not set" in note for note in node.notes_on("speed"))
        change = await node.set_parameter("speed_limit", 1.5)
        assert [(each.before, each.after) for each in change.nodes] == [(None, 1.5)]
        assert (change.change, change.constraints) == ("set", ("speed",))
        assert state_of(node, "speed") == ("pending", "", -0.5)
        [found] = node.constraints()
        assert found.values == {"speed_mps": "2.0", "param.speed_limit": "1.5"}
        since = found.since
        await node.set_parameter("speed_limit", 1.75)
        assert state_of(node, "speed") == ("pending", "", -0.25)
        assert node.constraints()[0].since == since, "another value goes on with the same spell"
        assert (await node.set_parameter("speed_limit", 1.75)).change == "unchanged"
        await node.set_parameter("speed_limit", 2.5)
        assert state_of(node, "speed") == ("holds", "", 0.5)
        await node.set_parameter("speed_limit", "fast")
        assert state_of(node, "speed")[0] == "unknown"
        change = await node.unset_parameter("speed_limit")
        assert [(each.before, each.after) for each in change.nodes] == [("fast", None)]
        assert state_of(node, "speed")[1] == "the parameter speed_limit is not set"
        with pytest.raises(UnknownName):
            await node.unset_parameter("speed_limit")
        told = [each.event for each in node.event_stream.log.newest(100) if each.event.kind is EventKind.PARAMETER]
        assert len({(each.actor, each.by) for each in told}) == 1, "of a removed setting, too"
        details = [each.detail for each in told]
        assert details == [
            "speed_limit = 1.5", "speed_limit = 1.75, before 1.5", "speed_limit = 2.5, before 1.75",
            'speed_limit = "fast", before 2.5', 'speed_limit is unset, before "fast"',
        ]  # fmt: skip
        assert {each.operation for each in node.gossip.state.audit} >= {"set", "unset"}


@pytest.mark.slow
async def test_a_limit_for_a_zone_reaches_the_nodes_of_the_zone_and_a_tie_is_unknown() -> None:
    network = MemoryNetwork()
    async with fleet("a", "b", network=network) as [a, b]:
        b.gossip.describe("1", labels={"zone": "dock", "spare": "yes"})
        await a.add_constraint("speed", when="v <= param.limit || backup")
        await a.set_parameter("limit", 1.5)
        await a.measure({"v": 1.0})
        await b.measure({"v": 1.0})
        await eventually(lambda: agreed([a, b]) and state_of(b, "speed") == ("holds", "", 0.5))
        change = await a.set_parameter("limit", 0.8, "zone=dock")
        assert [(each.node, each.before, each.after) for each in change.nodes] == [("b", 1.5, 0.8)]
        await eventually(lambda: state_of(b, "speed")[0] == "unknown")  # `backup` is missing
        await b.measure({"backup": False})
        assert state_of(b, "speed")[0] == "violated"
        assert state_of(a, "speed") == ("holds", "", 0.5)
        change = await a.set_parameter("limit", 0.9, {"spare": "yes"})
        assert change.nodes[0].reason == "the parameter limit is in conflict: 0.9 on spare=yes and 0.8 on zone=dock"
        await eventually(lambda: state_of(b, "speed")[1].startswith("the parameter limit is in conflict"))
        await b.measure({"backup": True})
        assert state_of(b, "speed")[0] == "holds", "the other side decides"
        [report] = b.parameters()
        assert (report.value, report.constraints, len(report.settings)) == (None, ("speed",), 3)
        assert report.settings[0].values[0].set_by == "a"


@pytest.mark.slow
async def test_expressions_are_checked_with_the_parameters_as_they_are() -> None:
    async with Node(settings=QUICK, transport=MemoryNetwork().transport()) as node:
        await node.set_parameter("name", "x7")
        await node.set_parameter("most", 1)
        with pytest.raises(ExpressionError, match="with the parameters as they are now"):
            await node.add_constraint("wrong", when="v + 1.0 < 2.0 && size(param.most) < 3")
        with pytest.raises(BatchError, match="with the parameters as they are now"):
            await node.batch([AddConstraint(id="wrong", when="v + 1.0 < 2.0 && size(param.most) < 3")])
        with pytest.raises(ExpressionError, match="the parameter other has no value here"):
            await node.add_constraint("fleet", when="count(nodes, n, n.v > param.other) == 0", scope="fleet")
        await node.add_constraint("fleet", when="count(nodes, n, n.v > 1.0) <= int(param.most)", scope="fleet")
        await eventually(lambda: state_of(node, "fleet")[0] in ("holds", "unknown"))
        await node.unset_parameter("most")
        assert state_of(node, "fleet")[1] == "the parameter most is not set"
        with pytest.raises(ConstraintCrdtError, match="`param` stands for the parameters"):
            await node.measure({"param.most": 1.0})
        for wrong in ({"name": "a.b", "value": 1}, {"name": "a", "value": [1]}, {"name": "a", "value": 1, "on": "!"}):
            arguments: dict[str, Any] = wrong
            with pytest.raises((ConstraintCrdtError, TypeError)):
                await node.set_parameter(**arguments)
        assert [each.verdict.value for each in await node.check({"v": 1.0}) if each.constraint == "wrong"] == []


@pytest.mark.slow
async def test_parameters_are_bound_once_per_change(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Node(settings=QUICK, transport=MemoryNetwork().transport()) as node:
        for number in range(50):
            await node.set_parameter(f"p{number}", 2.0)
        await node.batch([AddConstraint(id=f"c{number}", when=f"v < param.p{number}") for number in range(50)])
        await node.measure({"v": 1.0})
        await node._runtime.evaluator.renew()
        bound: list[Definition] = []

        class Counted(Parameters):
            def bind(self, definition: Definition, labels: Mapping[str, str]) -> BoundDefinition:
                bound.append(definition)
                return super().bind(definition, labels)

        monkeypatch.setattr(node.gossip.state.parameters, "__class__", Counted)
        for value in (1.0, 3.0, 1.0):
            await node.measure({"v": value})
        assert bound == []
        assert node._runtime.evaluator.violated == 0
        await node.set_parameter("p7", 0.5)
        assert {each.when for each in bound} == {"v < param.p7"}
        assert node._runtime.evaluator.violated == 1
