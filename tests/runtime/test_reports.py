"""The reports on a constraint: state, values, margin, time by verdict and the nodes with a violation, on the node and elsewhere."""

from time import monotonic, time_ns

import msgspec
import pytest

from constraint_crdt import MemoryNetwork, Node
from constraint_crdt.crdt.clock import SECOND
from constraint_crdt.model import VerdictState
from constraint_crdt.operations.constraints import MOST_VIOLATED, ConstraintReport, SecondsReport
from constraint_crdt.types.verdicts import NodeVerdict
from tests.runtime.fleet import QUICK, eventually, fleet

STILL = msgspec.structs.replace(QUICK, check_every=3600.0, count_every=3600.0)
"""Nothing is judged by itself and no time is written, but for the test's calls."""


def one(node: Node) -> ConstraintReport:
    (found,) = node.constraints()
    return found


def three(seconds: SecondsReport) -> tuple[float, float, float]:
    return seconds.satisfied, seconds.violated, seconds.unknown


async def test_a_constraint_has_its_state_values_and_margin() -> None:
    async with Node(name="a", settings=QUICK, transport=MemoryNetwork().transport()) as node:
        began = time_ns()
        await node.add_constraint("speed", when="speed_mps <= 1.5", max_age=3600)
        await eventually(lambda: one(node).state == "unknown")
        assert (one(node).margin, one(node).values, one(node).reason) == (None, {}, "no measurement of speed_mps")
        await node.measure({"speed_mps": 1.0})
        found = one(node)
        assert (found.state, found.verdict, found.by_default, found.reason) == ("holds", "satisfied", False, "")
        assert (found.values, found.margin, found.margin_variable) == ({"speed_mps": "1.0"}, 0.5, "speed_mps")
        assert found.margin_share == pytest.approx(1 / 3)
        assert (found.violated_now, found.violated_on) == (0, ())
        await node.measure({"speed_mps": 9.0})
        found = one(node)
        assert (found.state, found.values, found.margin, found.margin_share) == ("violated", {"speed_mps": "9.0"}, -7.5, -5.0)
        assert found.since is not None
        assert began <= found.since <= time_ns()
        (there,) = found.violated_on
        assert (there.node, there.state, there.since, there.values, there.margin) == (
            "a",
            "violated",
            found.since,
            found.values,
            -7.5,
        )
        (row,) = node.overview.page().constraints
        assert (row.state, row.since, row.by_default) == ("violated", found.since, False)


async def test_a_state_by_default_and_one_of_no_judgement() -> None:
    async with Node(name="a", settings=STILL, transport=MemoryNetwork().transport()) as node:
        await node.add_constraint("bare")
        await node.add_constraint("elsewhere", when="x < 1.0", on={"zone": "b"})
        await node.add_constraint("safe", when="x < 1.0", if_unknown="violated")
        found = {each.id: each for each in node.constraints()}
        overview = {each.id: each for each in node.overview.page().constraints}
        for reports in (found, overview):
            assert {id_: each.state for id_, each in reports.items()} == {"bare": "off", "elsewhere": "off", "safe": None}
        await node.check({"y": 1})
        assert (await node.check({"x": 0.25}))[0].margin == 0.75
        (checked,) = await node.check({"x": None})
        assert (checked.state, checked.by_default, checked.margin) == (VerdictState.VIOLATED, True, None)
        safe = {each.id: each for each in node.constraints()}["safe"]
        assert (safe.state, safe.by_default, safe.verdict, safe.reason) == ("violated", True, "violated", "no measurement of x")
        assert (safe.violated_on[0].by_default, safe.violated_on[0].reason) == (True, "no measurement of x")
        row = {each.id: each for each in node.overview.page().constraints}["safe"]
        assert (row.state, row.since, row.by_default) == ("violated", safe.since, True)


async def test_an_expired_constraint_is_off_from_the_instant_on() -> None:
    clock = [1_000 * SECOND]
    transport = MemoryNetwork().transport()
    async with Node(name="a", settings=STILL, transport=transport, now=lambda: clock[0]) as node:
        await node.add_constraint("brief", when="x < 1.0", ttl=5.0)
        await node.check({"x": 5})
        assert (one(node).state, one(node).violated_now) == ("violated", 1)
        clock[0] += 6 * SECOND
        (expired,) = node.expired()
        assert (expired.state, expired.since, expired.values, expired.violated_now) == ("off", None, {}, 0)
        assert expired.violations == 1


async def test_a_check_has_the_margin_of_the_values_given() -> None:
    async with Node(name="a", settings=STILL, transport=MemoryNetwork().transport()) as node:
        await node.add_constraint("a", when="x <= 1.0", for_=3600)
        await node.add_constraint("b", when="name == 'x'")
        patient, text = await node.check({"x": 3.0, "name": "y"})
        assert (patient.state, patient.margin, patient.margin_share, patient.margin_variable) == (VerdictState.PENDING, -2, -2, "x")
        assert (text.state, text.margin, text.margin_variable) == (VerdictState.VIOLATED, None, None)
        patient, text = await node.check({"x": 0.5, "name": "x"})
        assert (patient.state, patient.margin, text.margin) == (VerdictState.HOLDS, 0.5, None)


async def test_the_time_counts_once_before_and_after_it_is_written() -> None:
    async with Node(name="a", settings=STILL, transport=MemoryNetwork().transport()) as node:
        began = monotonic()
        await node.add_constraint("x", when="x < 1.0")
        await node.check({})
        await node.check({"x": 0})
        await node.check({"x": 5})
        await eventually(lambda: one(node).seconds.violated > 0.002)  # times are written in whole milliseconds
        before = one(node)
        assert before.held is None or 0 <= before.held <= 1  # a share of the time
        assert sum(three(before.seconds)) <= monotonic() - began
        await node._runtime.evaluator.write_times()
        after = one(node)
        assert node.gossip.state.metrics.time("x").violated > 0
        assert all(was <= now + 0.001 for was, now in zip(three(before.seconds), three(after.seconds), strict=True))
        assert after.seconds.violated - before.seconds.violated <= monotonic() - began
        assert sum(three(after.seconds)) <= monotonic() - began, "nothing counts twice"
        (row,) = node.overview.page().constraints
        (there,) = node.explanations.report("x").violations
        for seconds in (row.seconds, there.seconds):
            assert sum(three(after.seconds)) <= sum(three(seconds)) + 0.001
            assert sum(three(seconds)) <= monotonic() - began


@pytest.mark.slow
async def test_each_node_tells_where_it_is_violated_and_for_how_long_it_held() -> None:
    async with fleet("a", "b") as (a, b):
        await a.add_constraint("cool", when="temp_c < 85.0")
        await eventually(lambda: "cool" in b.gossip.state.constraints)
        await b.measure({"temp_c": 70})
        await b.measure({"temp_c": 90})
        await eventually(lambda: one(a).violated_now == 1)
        (there,) = one(a).violated_on
        assert (there.node, there.state, there.values, there.margin) == ("b", "violated", {"temp_c": "90.0"}, -5)
        assert there.since == one(b).since
        assert one(a).state != "violated"
        await b._runtime.evaluator.write_times()
        await eventually(lambda: one(a).seconds.violated > 0)
        by_node = {each.node: each for each in a.explanations.report("cool").violations}
        assert by_node["b"].seconds.violated > 0
        assert by_node["b"].held is not None
        assert by_node["b"].held < 1
        await b.measure({"temp_c": 70})
        await eventually(lambda: one(a).violated_now == 0)


async def test_ten_nodes_with_a_violation_are_named_the_longest_violated_first_and_all_are_counted() -> None:
    async with Node(name="m", settings=STILL, transport=MemoryNetwork().transport()) as node:
        await node.add_constraint("x", when="x < 1.0")
        state = node.gossip.state
        for number in range(MOST_VIOLATED + 3):
            told = NodeVerdict(VerdictState.VIOLATED if number else VerdictState.HOLDS, 100 - number, (("x", str(number)),))
            state.verdicts.put("x", told, node=f"n{number:02}")
        found = one(node)
        assert found.violated_now == MOST_VIOLATED + 2
        assert [each.node for each in found.violated_on] == [f"n{number:02}" for number in range(MOST_VIOLATED + 2, 2, -1)]
        await node.check({"x": 5})
        assert one(node).violated_now == MOST_VIOLATED + 3
        assert "m" not in [each.node for each in one(node).violated_on], "it is the last"
