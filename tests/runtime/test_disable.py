"""Disabled constraints on running nodes: kept, evaluated nowhere, told, and over by themselves."""

import pytest

from constraint_crdt import ConstraintCrdtError, Node
from constraint_crdt.errors import UnknownConstraint
from constraint_crdt.model import Event, EventKind
from tests.runtime.fleet import agreed, eventually, fleet


def told(node: Node, *kinds: EventKind) -> list[Event]:
    log = node.event_stream.log
    return [each.event for each in log.newest(len(log)) if each.event.kind in kinds]


@pytest.mark.slow
async def test_a_disabled_constraint_is_evaluated_on_no_node_until_it_is_enabled() -> None:
    async with fleet("a", "b") as (a, b):
        await a.add_constraint("x", when="v < 1")
        await a.add_constraint("y", when="v < 1")
        await eventually(lambda: agreed([a, b]))
        await b.measure({"v": 5})
        await eventually(lambda: a.status().violated_anywhere == 2)
        assert await a.disable(["x"], why="it fires everywhere") == ["x"]
        await eventually(lambda: b.status().disabled == 1)
        await eventually(lambda: a.status().violated_anywhere == 1)
        await eventually(lambda: b.gossip.state.metrics.constraint("x").violated == 1)
        counts = b.gossip.state.metrics.constraint("x")
        await b.measure({"v": 6})
        assert [each.constraint for each in await b.check({"v": 7})] == ["y"]
        assert (b.guards.standing(["x"]).constraints, b.guards.standing(["x", "y"]).standing) == (0, "violated")
        found = await b.decide({"v": 7})
        assert [each.constraint for each in found.violated] == ["y"]
        assert b.gossip.state.metrics.constraint("x") == counts
        report = b.constraints(["x"])[0]
        assert (report.state, report.violated_now, report.when) == ("disabled", 0, "v < 1")
        assert report.disabled is not None
        assert (report.disabled.by, report.disabled.until, report.disabled.why) == ("a", None, "it fires everywhere")
        assert b.explanations.report("x").disabled == report.disabled
        assert b.overview.of(["x"]).constraints[0].state == "disabled"
        assert "DISABLED by" in b.notes_on("x")[0]
        (finding,) = [each for each in b.diagnosis.look().findings if each.check == "disabled"]
        assert (finding.level, finding.what) == ("warn", "evaluated on no node: x")
        (event,) = told(b, EventKind.DISABLED)
        assert (event.constraint, event.by, event.why, event.actor) == ("x", "a", "it fires everywhere", report.disabled.actor)
        assert await b.enable(["x"], why="mended") == ["x"]
        await eventually(lambda: a.status().violated_anywhere == 2)
        await eventually(lambda: told(a, EventKind.ENABLED))
        assert [(each.constraint, each.by, each.why) for each in told(a, EventKind.ENABLED)] == [("x", "b", "mended")]
        assert [(each.operation, each.subject, each.why) for each in a.audit()][-2:] == [
            ("disable", "x", "it fires everywhere"), ("enable", "x", "mended"),
        ]  # fmt: skip
        with pytest.raises(UnknownConstraint):
            await a.disable(["z"], why="?")
        for ids, all_ in ((["x"], True), ([], False)):
            with pytest.raises(ConstraintCrdtError, match="name the constraints"):
                await a.enable(ids, all_=all_)
        for length in (0, -1, 1e12):
            with pytest.raises(ConstraintCrdtError, match=r"^for must be"):
                await a.disable(["x"], why="noise", for_=length)
        with pytest.raises(ConstraintCrdtError, match="say why"):
            await a.disable(["x"], why=" ")
        for ids in ([""], ["x", ""]):  # as of an unset variable of a shell
            with pytest.raises(ConstraintCrdtError, match="a constraint id must have 1 to 256 bytes"):
                await a.disable(ids, why="noise")
            with pytest.raises(ConstraintCrdtError, match="a constraint id must have 1 to 256 bytes"):
                await a.enable(ids)
        with pytest.raises(ConstraintCrdtError, match="a constraint id must have 1 to 256 bytes"):
            await a.revert("")
        assert a.status().all_disabled is None, "an empty id is not all of them"


@pytest.mark.slow
async def test_a_disabling_of_all_is_told_loudly_and_ends_by_itself() -> None:
    async with fleet("a", "b") as (a, b):
        await a.add_constraint("x", when="v < 1")
        await eventually(lambda: agreed([a, b]))
        await b.measure({"v": 5})
        await b.disable(all_=True, why="storm")
        with pytest.raises(ConstraintCrdtError, match="together"):
            await b.enable(["x"])
        assert (b.status().disabled, (await b.check({"v": 9}))) == (1, [])
        disabled = b.status().all_disabled
        assert disabled is not None
        assert (disabled.all, disabled.why) == (True, "storm")
        (finding,) = [each for each in b.diagnosis.look().findings if each.check == "disabled"]
        assert finding.level == "fail"
        await a.add_constraint("later", when="v < 1")
        await b.disable(all_=True, why="storm", for_=0.2)
        await eventually(lambda: told(a, EventKind.ENABLED) and told(b, EventKind.ENABLED))
        await eventually(lambda: a.status().violated_anywhere == 2)
        first, second = told(b, EventKind.DISABLED)
        assert (first.constraint, first.why, first.detail) == ("", "storm", "all constraints")
        assert second.detail.startswith("all constraints; for ")
        assert [each.detail for each in told(b, EventKind.ENABLED)] == ["all constraints; its time is over"]
        assert b.status().all_disabled is None
