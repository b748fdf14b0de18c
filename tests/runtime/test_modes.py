"""Modes: what follows from a violation of a constraint of mode audit, warn and enforce."""

import pytest

from constraint_crdt import ConstraintCrdtError, Node
from constraint_crdt.alerts import AlertRule, Conditions, Facts
from constraint_crdt.errors import UnknownConstraint
from constraint_crdt.insight.evidence import DefinitionClock
from constraint_crdt.model import EventKind
from constraint_crdt.operations.nodes import show_status
from tests.runtime.fleet import agreed, eventually, fleet


def told(node: Node) -> list[tuple[str, str]]:
    log = node.event_stream.log
    kinds = (EventKind.VIOLATED, EventKind.SATISFIED)
    return [(each.event.kind.value, each.event.constraint) for each in log.newest(len(log)) if each.event.kind in kinds]


def alerting(node: Node) -> set[str]:
    """The constraints with a condition of an alert rule that holds."""
    clock = DefinitionClock(node.gossip.state.rows)
    facts = Facts(node.gossip, node.evidence, node.coverage, node.convergence, node.rates, clock)
    rule = AlertRule(name="often", kind="rate", above=0.1)
    return {each.subject for each in Conditions(facts).find(rule) if each.holds}


@pytest.mark.slow
async def test_audit_is_evaluated_and_counted_apart_and_nobody_is_told() -> None:
    async with fleet("a", "b") as (a, b):
        for mode in ("audit", "warn", "enforce"):
            await a.add_constraint(mode, when="v < 1", mode=mode)
        await eventually(lambda: agreed([a, b]))
        await b.measure({"v": 5})
        await b.measure({"v": 6})
        await eventually(lambda: a.status().violated_anywhere == 2)
        assert {each.id for each in a.status().worst} == {"enforce", "warn"}
        assert told(b) == [("violated", "enforce"), ("violated", "warn")]
        assert b.metrics.report().violated_here == 2
        await eventually(lambda: a.status().audited_violations == 2)
        assert [each.state for each in b.constraints()] == ["violated"] * 3, "it is shown where it is asked for"
        assert a.constraints(["audit"])[0].violated_now == 1
        status = a.status()
        assert (status.audited, status.violations, status.audited_violations) == (1, 6, 2)
        lines = dict(show_status(status).values)
        assert lines["counts"] == "0 judgements satisfied, 4 violated, 0.00 % satisfied"
        assert lines["audit"] == "1 constraint is tried out, and counted apart: 0 judgements satisfied, 2 violated"
        assert alerting(b) == {"warn", "enforce"}
        found = await b.decide({"v": 7})
        assert [(each.constraint, each.forbids) for each in found.violated] == [
            ("enforce", True), ("audit", False), ("warn", False),
        ]  # fmt: skip
        await a.set_mode("enforce", "warn", why="not yet")
        await eventually(lambda: b.constraints(["enforce"])[0].mode == "warn")
        assert (await b.decide({"v": 7})).allowed
        await b.measure({"v": 0})
        assert told(b)[2:] == [("satisfied", "enforce"), ("satisfied", "warn")]


async def test_a_change_of_mode_keeps_the_rest_and_tells_a_violation_that_goes_on() -> None:
    async with fleet("a") as (node,):
        await node.add_constraint("x", when="v < 1", about="it", ttl=3600, for_=0, mode="audit", on={})
        await node.measure({"v": 5})
        before, since = node.constraints(["x"])[0], node.constraints(["x"])[0].since
        assert (told(node), await node.set_mode("x", "enforce")) == ([], "audit")
        await eventually(lambda: told(node) == [("violated", "x")])
        after = node.constraints(["x"])[0]
        assert (after.mode, after.about, after.expires_at, after.when) == ("enforce", "it", before.expires_at, "v < 1")
        assert after.since == since, "the violation goes on"
        assert node.history("x")[-1].diff == ["- mode: audit"]
        await node.revert("x")
        assert node.constraints(["x"])[0].mode == "audit"
        assert node.status().violated_anywhere == 0
        await node.add_constraint("listed")
        for id_, mode in (("x", "loud"), ("listed", "audit")):
            with pytest.raises(ConstraintCrdtError):
                await node.set_mode(id_, mode)
        with pytest.raises(UnknownConstraint):
            await node.set_mode("nope", "audit")
