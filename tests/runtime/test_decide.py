"""Decisions: what the constraints say of values, with nothing counted, timed, written or moved."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt import ConstraintCrdtError, MemoryNetwork, Node, NodeSettings
from constraint_crdt.expression.evaluation import evaluate
from constraint_crdt.expression.fleet_view import FleetView
from constraint_crdt.expression.judgement import Judge, Ruling
from constraint_crdt.expression.measurements import Samples
from constraint_crdt.model import IfUnknown
from constraint_crdt.runtime.evaluation import _Given
from constraint_crdt.runtime.measurement import LatestMeasurements
from constraint_crdt.state import ConstraintState
from tests.runtime.fleet import eventually, fleet

SECOND = 10**9
VALUES = st.dictionaries(st.sampled_from("abc"), st.none() | st.integers(-3, 3) | st.sampled_from(["text", True]), max_size=3)
EXPRESSIONS = ("a < 1", "b >= 0 || c > 2", "a + b > c", "c == 'text'", "max_over('a', duration('10s')) < 2", "last('b') > 0")


@pytest.mark.slow
def test_a_decision_says_what_a_check_of_the_same_values_would_count() -> None:
    @given(st.lists(st.sampled_from(EXPRESSIONS), max_size=4, unique=True), VALUES, VALUES, st.sampled_from(IfUnknown))
    def decides(whens: list[str], measured: dict[str, object], values: dict[str, object], if_unknown: IfUnknown) -> None:
        state, measurements = ConstraintState(), LatestMeasurements(1e6)
        for place, when in enumerate(whens):
            state.constraints.add(f"c{place}", node="n", when=when, if_unknown=if_unknown, for_=5 * SECOND)
        judge = Judge(state.constraints, measurements, dict, lambda: 0)
        fresh = judge.renew(judge.stale(100), 0)
        measurements.require(judge.take_spans() or {})
        measurements.put(measured, SECOND, "test")
        judge.judge(fresh, SECOND)
        judge.take_changes()
        before = judge.take_counts(), judge.turns, [judge.evaluation(each) for each in judge.ids], judge.times("c0", 20 * SECOND)
        given_values = _Given(measurements, values, newest=True)
        found = judge.decide(judge.ids, 20 * SECOND, given_values, FleetView(tuple, lambda _: None))
        assert (judge.take_counts(), judge.take_changes(), judge.turns) == ({}, ([], []), before[1])
        assert [judge.evaluation(each) for each in judge.ids] == before[2]
        assert judge.times("c0", 20 * SECOND) == before[3] or judge.times("c0", 20 * SECOND)[2] >= before[3][2]
        # The model: the values put over those measured, and measured now.
        latest = {name: value for name, value in (measured | values).items() if value is not None}
        rings = Samples()
        rings.require({"a": 10 * SECOND, "b": 0})
        for at, taken in ((SECOND, measured), (20 * SECOND, values)):
            rings.put(taken, at)
        expected = evaluate(state.constraints, latest, windows=rings.at(20 * SECOND))
        said = {each.constraint: each for each in expected}
        for (ruling,) in found:
            assert (ruling.counts_as, ruling.outcome.reason) == (said[ruling.constraint].verdict, said[ruling.constraint].reason)
            assert set(ruling.missing) <= set("abc") - {name for name in latest if name not in ruling.windows}
        assert {ruling.constraint for (ruling,) in found} == set(said)

    decides()


@pytest.mark.slow
async def test_a_node_decides_by_what_it_measures_and_keeps_the_last_decisions() -> None:
    settings = NodeSettings(name="n", check_every=3600.0, keep_decisions=2)
    async with Node(settings=settings, transport=MemoryNetwork().transport(), actor="planner") as node:
        await node.add_constraint("speed", when="speed_mps <= limit_mps", severity="critical")
        await node.add_constraint("smooth", when="avg_over('speed_mps', duration('1s')) < 3.0")
        await node.add_constraint("near", when="distance_m > 0.5", if_unknown="violated", for_=3600)
        await node.add_constraint("elsewhere", when="false", on={"zone": "a"})
        await node.measure({"limit_mps": 1.5, "distance_m": 1.0})
        before, counts = node.gossip.state_hash, node.gossip.state.metrics.total
        found = await node.decide({"speed_mps": 1.2})
        assert (found.allowed, found.actor, found.node, found.values) == (True, "planner", "n", {"speed_mps": "1.2"})
        assert (found.violated, [each.constraint for each in found.undecided], found.satisfied) == ((), ["smooth"], 2)
        assert (found.windows, found.undecided[0].windows, found.undecided[0].forbids) == (("speed_mps",), ("speed_mps",), False)
        found = await node.decide({"speed_mps": 2.0, "distance_m": None})
        assert not found.allowed
        (speed,) = found.violated
        assert (speed.constraint, speed.severity, speed.margin, speed.forbids) == ("speed", "critical", -0.5, True)
        assert speed.reads == ("speed_mps",)
        near = found.undecided[0]
        assert (near.constraint, near.counts_as, near.missing, near.forbids) == ("near", "violated", ("distance_m",), True)
        assert (await node.decide({"distance_m": 0.1})).violated[0].constraint == "near"  # `for` is not waited for
        assert [each.values for each in node.decisions.reports(node.decisions.ids)] == [
            {"speed_mps": "2.0", "distance_m": "null"}, {"distance_m": "0.1"},
        ]  # fmt: skip
        assert (node.gossip.state_hash, node.gossip.state.metrics.total) == (before, counts)
        assert "speed_mps" not in {each.name for each in node.variables()}
        with pytest.raises(ConstraintCrdtError, match="in"):
            await node.decide({"in": 1})


@pytest.mark.slow
async def test_a_constraint_on_the_fleet_is_decided_with_the_values_as_the_readings_of_this_node() -> None:
    async with fleet("a", "b") as (a, b):
        await a.add_constraint("power", when="sum(nodes, n, n.power_w) <= 100.0", scope="fleet")
        await eventually(lambda: "power" in b.constraint_ids())
        await a.measure({"power_w": 40.0})
        await b.measure({"power_w": 50.0})
        await eventually(lambda: (last := b.constraints()[0]) and last.state == "holds")
        assert (await b.decide({"power_w": 60.0})).allowed
        found = await b.decide({"power_w": 61.0})
        assert (found.allowed, found.violated[0].margin) == (False, -1.0)
        assert (await b.decide({})).allowed, "the readings themselves did not move"


def test_of_several_definitions_the_gravest_verdict_decides() -> None:
    state, measurements = ConstraintState(), LatestMeasurements(1e6)
    for node, when in (("a", "x < 5"), ("b", "x < 1")):
        other = ConstraintState()
        other.constraints.add("x", node=node, when=when)
        state.merge(other)
    judge = Judge(state.constraints, measurements, dict, lambda: 0)
    judge.judge(judge.renew(judge.stale(9), 0), 0)
    rulings: list[list[Ruling]] = judge.decide(["x"], 1, _Given(measurements, {"x": 3.0}), FleetView(tuple, lambda _: None))
    assert [[each.counts_as.value for each in found] for found in rulings] == [["satisfied", "violated"]]


@pytest.mark.slow
async def test_a_decision_has_the_values_of_the_parameters_and_the_reasons_of_those_without_one() -> None:
    """The defect: "no measurement of param", and a constraint on the fleet was undecided where a given value is its reading."""
    async with Node(name="a", transport=MemoryNetwork().transport()) as node:
        await node.set_parameter("limit", 2)
        await node.add_constraint("all", when="sum(nodes, n, n.power_w) <= param.limit", scope="fleet")
        await node.add_constraint("unset", when="v <= param.nothing")
        await node.add_constraint("both", when="v <= param.nothing && w < 1")
        found = await node.decide({"power_w": 3.0, "v": 1})
        assert [each.constraint for each in found.violated] == ["all"]
        reasons = {each.constraint: (each.reason, each.missing) for each in found.undecided}
        assert reasons == {
            "both": ("the parameter nothing is not set", ("w",)),
            "unset": ("the parameter nothing is not set", ()),
        }
        checked = {each.constraint: each.reason for each in await node.check({"v": 1})}
        assert all(checked[id_] == reason for id_, (reason, _) in reasons.items())
        await node.set_parameter("limit", 4)
        assert not (await node.decide({"power_w": 3.0})).violated
