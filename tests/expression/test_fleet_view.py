"""Constraints of scope fleet: their truth against a plain model, what is refused, and the work that they take."""

import gc
import itertools
import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constraint_crdt.expression import ExpressionError, Verdict, compile_expression, compile_written
from constraint_crdt.expression.aggregates import FleetExpression
from constraint_crdt.expression.fleet_view import FleetCondition, FleetView, NodeEntry, NodeFacts
from constraint_crdt.model import Scope
from constraint_crdt.state import ConstraintState
from constraint_crdt.types.definition import Definition
from constraint_crdt.types.variables import LIFETIME, Reading
from tests.conftest import BUDGET

SECOND = 10**9
FLEETS = 1000 if BUDGET == "nightly" else 8

Nodes = Sequence[Mapping[str, Any]]


def quantile(values: list[float], fraction: float) -> float:
    """Interpolated linearly, in another way than the product does."""
    values = sorted(values)
    place = fraction * (len(values) - 1)
    low, high = math.floor(place), math.ceil(place)
    return values[low] * (1 - (place - low)) + values[high] * (place - low)


def zoned(nodes: Nodes, zone: str) -> Nodes:
    return [each for each in nodes if each["labels"].get("zone") == zone]


MODEL: dict[str, Callable[[Nodes], bool | None]] = {
    "nodes.filter(n, n.charge < 20.0).size() <= 1": lambda nodes: sum(n["charge"] < 20 for n in nodes) <= 1,
    "count(nodes, n, n.charge < 20.0) <= 2 && nodes.exists(n, n.live)": lambda nodes: (
        sum(n["charge"] < 20 for n in nodes) <= 2 and any(n["live"] for n in nodes)
    ),
    "count(nodes, n, n.live && n.charge < 20.0) < 2": lambda nodes: sum(n["live"] and n["charge"] < 20 for n in nodes) < 2,
    "sum(nodes, n, n.power) <= 100.0": lambda nodes: sum(n["power"] for n in nodes) <= 100,
    "100.0 - sum(nodes, n, n.power * 2.0) > 0.0": lambda nodes: 100 - sum(2 * n["power"] for n in nodes) > 0,
    "max(nodes, n, n.charge) >= 30.0": lambda nodes: max(n["charge"] for n in nodes) >= 30 if nodes else None,
    "min(nodes, n, n.live ? n.charge : 100.0) > 5.0": lambda nodes: (
        min(n["charge"] if n["live"] else 100 for n in nodes) > 5 if nodes else None
    ),
    "avg(nodes.filter(n, n.labels.zone == 'b'), n, n.power) < 40.0": lambda nodes: (
        sum(n["power"] for n in zoned(nodes, "b")) / len(zoned(nodes, "b")) < 40 if zoned(nodes, "b") else None
    ),
    "share_of(nodes, n, n.charge < 20.0) < 0.5": lambda nodes: (
        sum(n["charge"] < 20 for n in nodes) / len(nodes) < 0.5 if nodes else None
    ),
    "quantile(nodes, n, n.charge, 0.5) > 20.0": lambda nodes: quantile([n["charge"] for n in nodes], 0.5) > 20 if nodes else None,
    "nodes.all(n, n.labels.zone == 'a' || n.charge > 10.0)": lambda nodes: all(
        n["labels"]["zone"] == "a" or n["charge"] > 10 for n in nodes
    ),
    "!nodes.exists(n, n.charge > 45.0) || size(nodes) < 3": lambda nodes: (
        not any(n["charge"] > 45 for n in nodes) or len(nodes) < 3
    ),
    "!(count(nodes, n, n.charge < 20.0) > 2)": lambda nodes: not sum(n["charge"] < 20 for n in nodes) > 2,
    "count(nodes, n, n.power < 20.0) * 2 <= size(nodes)": lambda nodes: 2 * sum(n["power"] < 20 for n in nodes) <= len(nodes),
    "nodes.filter(n, n.live && 15.0 >= n.charge).size() <= 1": lambda nodes: (
        sum(n["live"] and n["charge"] <= 15 for n in nodes) <= 1
    ),
    "count(nodes, n, n.power > 15 && n.charge < 25.0) >= 1": lambda nodes: (
        sum(n["power"] > 15 and n["charge"] < 25 for n in nodes) >= 1
    ),
    "nodes.filter(n, n.power > 15.0).filter(n, n.live).filter(n, n.charge < 25.0).size() <= 1": lambda nodes: (
        sum(n["power"] > 15 and n["live"] and n["charge"] < 25 for n in nodes) <= 1
    ),
    "nodes.all(n, n.live && n.charge >= 15.0)": lambda nodes: all(n["live"] and n["charge"] >= 15 for n in nodes),
    "nodes.all(n, n.charge >= 15.0)": lambda nodes: all(n["charge"] >= 15 for n in nodes),
    "share_of(nodes, n, n.charge > 15.0) >= 0.5": lambda nodes: (
        sum(n["charge"] > 15 for n in nodes) / len(nodes) >= 0.5 if nodes else None
    ),
    "count(nodes.filter(n, n.charge > 10.0), n, n.labels.zone == 'a') <= 1": lambda nodes: (
        sum(n["charge"] > 10 for n in zoned(nodes, "a")) <= 1
    ),
}
"""The truth of each expression where every reading is there."""

SOUND: dict[str, Callable[[Nodes], bool | None]] = {
    "count(nodes, n, n.charge < 20.0) == 1": lambda nodes: sum(n["charge"] < 20 for n in nodes) == 1,
    "nodes.exists_one(n, n.charge > 45.0)": lambda nodes: sum(n["charge"] > 45 for n in nodes) == 1,
    "nodes.map(n, n.charge).all(charge, charge > 5.0)": lambda nodes: all(n["charge"] > 5 for n in nodes),
}
"""The same of expressions that may be unknown where a reading is missing, though its value would change nothing."""

READINGS = ("charge", "power")
EXTREMES = (-1e9, 1e9)


class Node(NamedTuple):
    """A node of a random fleet."""

    zone: str
    live: bool
    readings: dict[str, Reading]

    def facts(self) -> NodeFacts:
        return NodeFacts({"zone": self.zone}, self.live, None, dict(self.readings))


def known(name: str, node: Node, now: int) -> dict[str, Any]:
    fresh = {variable: each.value for variable, each in node.readings.items() if now <= each.time + LIFETIME * each.every}
    return {"name": name, "labels": {"zone": node.zone}, "live": node.live, **fresh}


def truth(when: str, nodes: Nodes) -> Verdict:
    """The verdict that is the same whatever the missing readings are."""
    model = MODEL.get(when) or SOUND[when]
    places = [(place, name) for place, node in enumerate(nodes) for name in READINGS if name not in node and name in when]
    outcomes = set()
    for values in itertools.product(EXTREMES, repeat=len(places)):
        filled = [dict(node) for node in nodes]
        for (place, name), value in zip(places, values, strict=True):
            filled[place][name] = value
        outcomes.add(model(filled))
    if outcomes == {True}:
        return Verdict.SATISFIED
    return Verdict.VIOLATED if outcomes == {False} else Verdict.UNKNOWN


CHANGES = st.one_of(
    st.tuples(st.just("share"), st.integers(0, 3), st.sampled_from(READINGS), st.sampled_from([0.0, 4.5, 15.0, 19.5, 25.0, 50.0])),
    st.tuples(st.just("withdraw"), st.integers(0, 3), st.sampled_from(READINGS), st.none()),
    st.tuples(st.just("live"), st.integers(0, 3), st.booleans(), st.none()),
    st.tuples(st.just("zone"), st.integers(0, 3), st.sampled_from("ab"), st.none()),
    st.tuples(st.just("retire"), st.integers(0, 3), st.none(), st.none()),
    st.tuples(st.just("wait"), st.integers(1, 40), st.none(), st.none()),
)


@pytest.mark.long
@settings(max_examples=FLEETS, deadline=None)
@given(st.lists(st.tuples(CHANGES, st.booleans()), min_size=4, max_size=30))
def test_the_truth_is_that_of_a_plain_model(steps: list[tuple[tuple[str, int, Any, Any], bool]]) -> None:
    """With readings that are missing or aged, and nodes that leave, return, change their zone and are retired."""
    fleet: dict[str, Node] = {}
    view = FleetView(lambda: fleet, lambda name: fleet[name].facts() if name in fleet else None)
    conditions = {when: FleetCondition(Definition(when, scope=Scope.FLEET), view.nodes(None)) for when in (*MODEL, *SOUND)}
    now = 1000 * SECOND
    for place, ((change, number, what, value), compare) in enumerate(steps):
        name = f"n{number}"
        node = fleet.get(name, Node("a", live=True, readings={}))
        if change == "wait":
            now += number * SECOND
        elif change == "retire":
            fleet.pop(name, None)
        elif change == "share":
            fleet[name] = node._replace(readings={**node.readings, what: Reading(value, now, 5 * SECOND)})
        elif change == "withdraw":
            fleet[name] = node._replace(readings={key: each for key, each in node.readings.items() if key != what})
        elif change == "live":
            fleet[name] = node._replace(live=what)
        else:
            fleet[name] = node._replace(zone=what)
        view.note([name] if change != "wait" else [])
        if not compare and place < len(steps) - 1:
            continue
        view.refresh(now)
        nodes = [known(each, fleet[each], now) for each in sorted(fleet)]
        whole = all(reading in each for each in nodes for reading in READINGS)
        for when, condition in conditions.items():
            condition.refresh()
            found = condition.outcome()
            expected = truth(when, nodes)
            if when in MODEL or whole or found.verdict is not Verdict.UNKNOWN:
                assert found.verdict is expected, (when, nodes, found)
            assert bool(found.reason) is (found.verdict is Verdict.UNKNOWN)
            margin = condition.margin()
            if margin is not None and margin.value:
                assert (margin.value > 0) is (found.verdict is Verdict.SATISFIED)


# --- what is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ("count(nodes, n.x < 3.0)", "column 1: `count` takes 3 arguments: write `count(nodes, n, n.battery_percent < 20.0)`"),
        ("size(nodes) > 1 && x < 3.0", "column 20: a constraint on the fleet reads `nodes`, and `x` is a variable of each node"),
        ("count(xs, n, n.x < 1.0) < 3", "column 1: `count` goes through `nodes` or `nodes.filter"),
        ("nodes.all(a, count(nodes, b, b.x == a.x) < 3)", "column 14: `count` looks at one node at a time"),
        ("quantile(nodes, n, n.x, 2.0) < 1.0", "column 1: the fraction of `quantile` is a number literal from 0.0 to 1.0"),
        ("sum(nodes, n, n.x * 2) < 3.0", "column 19: `*` cannot mix a measurement with an int"),
        ("sum(nodes, n, n.x)", "column 1: this gives a double, and a constraint needs a bool"),
        ("size(nodes) > 1 && avg_over('x', duration('5m')) > 1.0", "column 20: `avg_over` reads the samples of one node"),
        ("1 < 2", "column 1: a constraint on the fleet is about `nodes`"),
        ("count(nodes, nodes, true) < 3", "column 1: `count` needs a name for a node as its second argument"),
        ("nodes.all(n, n.x < ", "column 20: the expression ends where more is needed"),
    ],
)
def test_what_is_no_expression_over_nodes_is_refused_with_the_place(when: str, message: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_written(when, Scope.FLEET)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("when", ["nodes", "nodes > 3", "nodes[0]", "nodes.all(n, n.name)", "count(nodes, n, n.labels) > 1"])
def test_what_is_never_a_bool_is_refused(when: str) -> None:
    """The defect: it was taken, and unknown for ever."""
    with pytest.raises(ExpressionError, match="column"):
        compile_written(when, Scope.FLEET, nodes=3)
    assert compile_written("nodes[0].live && nodes.all(n, n.ready)", Scope.FLEET, nodes=3)


def test_functions_over_nodes_are_refused_in_scope_node() -> None:
    with pytest.raises(ExpressionError, match="column 7: `count` is for constraints on the fleet: add `scope` fleet"):
        compile_written("1 <= (count(nodes, n, n.x < 1.0))", Scope.NODE)


@pytest.mark.slow
def test_too_many_steps_are_refused_with_the_arithmetic() -> None:
    pairs = "nodes.all(a, nodes.filter(b, b.zone == a.zone).size() <= 3)"
    compile_written(pairs, Scope.FLEET, nodes=99)
    with pytest.raises(ExpressionError, match="over 1000 nodes the macros take 1001000 steps, more than the 10000"):
        compile_written(pairs, Scope.FLEET, nodes=1000)
    assert [FleetExpression(pairs).steps(nodes) for nodes in (0, 3, 100)] == [0, 12, 10_100]
    ten = " && ".join(f"nodes.exists_one(n, n.x > {number}.0)" for number in range(11))
    with pytest.raises(ExpressionError, match="11000 steps"):
        compile_written(ten, Scope.FLEET, nodes=1000)
    assert FleetExpression("count(nodes, n, n.x > 1.0) < 3 && nodes.all(n, n.x > 0.0)").steps(10**6) == 0


# --- what it reads, and the work ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("when", "needs", "fields"),
    [
        ("count(nodes, n, n.battery < 20.0) < 3", {"battery"}, {"battery"}),
        ("nodes.all(n, n.live || n.robot.speed < 1.0)", {"robot.speed"}, {"live", "robot"}),
        ("nodes.exists(n, has(n.x) && n.?y.orValue(1.0) > n['z'])", {"x", "y", "z"}, {"x", "y", "z"}),
        ("nodes.filter(n, n.labels.zone == 'a').size() > 1", set(), {"labels"}),
        ("nodes.exists_one(n, n.battery < 20.0)", {"battery"}, {"battery"}),
        ("nodes.map(n, n).size() > 1", set(), None),
    ],
)
def test_the_variables_that_nodes_have_to_share(when: str, needs: set[str], fields: set[str] | None) -> None:
    found = FleetExpression(when)
    assert set(found.needs) == needs
    assert fields is None if found.fields is None else set(found.fields) == fields


class Bench:
    """A fleet that tests change, with a view of it."""

    def __init__(self, **readings: float) -> None:
        self.now = 1000 * SECOND
        self.fleet: dict[str, Node] = {}
        self.view = FleetView(lambda: self.fleet, lambda name: self.fleet[name].facts() if name in self.fleet else None)
        for name, value in readings.items():
            self.share(name, x=value)

    def share(self, name: str, **values: float | str) -> None:
        node = self.fleet.get(name, Node("a", live=True, readings={}))
        told = {variable: Reading(value, self.now, 10 * SECOND) for variable, value in values.items()}
        self.fleet[name] = node._replace(readings={**node.readings, **told})
        self.view.note([name])

    def condition(self, when: str, **fields: Any) -> FleetCondition:
        condition = FleetCondition(Definition(when, scope=Scope.FLEET, **fields), self.view.nodes(fields.get("max_age")))
        self.view.refresh(self.now)
        condition.refresh()
        return condition


def test_only_what_is_read_and_what_ages_moves_a_condition() -> None:
    bench = Bench(a=1.0, b=2.0)
    condition = bench.condition("count(nodes, n, n.x > 1.5) < 2")
    for variable, moves in (("y", False), ("x", True)):
        bench.share("a", **{variable: 9.0})
        bench.view.refresh(bench.now)
        assert condition.refresh() is moves
    assert condition.outcome().verdict is Verdict.VIOLATED
    bench.share("b", x=2.0)  # the same value, told again
    bench.view.refresh(bench.now)
    assert not condition.refresh()
    bench.now += LIFETIME * 10 * SECOND
    bench.view.refresh(bench.now)
    assert not condition.refresh()
    bench.view.refresh(bench.now + 1)
    assert condition.refresh()
    assert condition.outcome().reason == "no reading of x from a (30 s old), b (30 s old)"
    assert not condition.refresh()


@pytest.mark.slow
def test_the_numbers_of_many_nodes_stay_in_order_as_few_of_them_move() -> None:
    random = Random(7)
    special = [0.0, -0.0, math.nan, math.inf, -math.inf, 20.0]

    def any_value() -> float:
        return random.choice(special) if random.random() < 0.02 else random.uniform(0, 40)

    values = {f"n{number:02}": any_value() for number in range(80)}
    bench = Bench(**values)
    texts = ("max(nodes, n, n.x)", "min(nodes, n, n.x)", "quantile(nodes, n, n.x, 0.5)", "sum(nodes, n, n.x)")
    thresholds = ("n.x < 20.0", "n.x <= 20.0", "n.x > 20.0", "20.0 <= n.x")
    condition = bench.condition(
        " && ".join([f"{text} < 1.0" for text in texts] + [f"count(nodes, n, {each}) < 1" for each in thresholds])
    )
    for _ in range(300):
        for name in random.sample(sorted(values), random.choice([1, 1, 2, 3, 40])):
            values[name] = any_value()
            bench.share(name, x=values[name])
        bench.view.refresh(bench.now)
        condition.refresh()
        shown = condition.values()
        there = [*values.values()]
        at, below, above = there.count(20.0), sum(each < 20 for each in there), sum(each > 20 for each in there)
        assert [shown[f"count(nodes, n, {each})"] for each in thresholds] == [below, below + at, above, at + above]
        if any(map(math.isnan, there)):
            assert all(math.isnan(float(str(shown[text]))) for text in texts)
        else:
            finite = all(map(math.isfinite, there))
            assert (shown[texts[0]], shown[texts[1]]) == (max(there), min(there))
            assert not finite or (shown[texts[2]], shown[texts[3]]) == (pytest.approx(quantile(there, 0.5)), math.fsum(there))


def test_the_sign_of_zero_is_that_of_the_nodes_that_are_left() -> None:
    bench = Bench(**{f"n{number:02}": -1.0 - number for number in range(20)}, a=0.0, b=-0.0)
    condition = bench.condition("max(nodes, n, n.x) < 3.0")
    for values, greatest in (({"a": -7.0}, "-0.0"), ({"a": 0.0, "b": -7.0}, "0.0"), ({"a": -7.0, "b": -0.0}, "-0.0")):
        for name, value in values.items():
            bench.share(name, x=value)
        bench.view.refresh(bench.now)
        assert condition.refresh()
        assert repr(condition.values()["max(nodes, n, n.x)"]) == greatest


def test_the_reason_names_the_nodes_that_could_decide() -> None:
    bench = Bench(a=1.0, b=9.0)
    bench.share("c", x=9.0, y=2.0)
    condition = bench.condition("nodes.filter(n, n.y > 1.0).all(n, n.x > 5.0)")
    assert condition.outcome().reason == "no reading of y from a"
    del bench.fleet["a"]
    bench.view.note(["a"])
    bench.view.refresh(bench.now)
    assert " a" not in condition.outcome().reason  # asked before the next look: the node is not there any more
    assert condition.refresh()
    assert condition.outcome().verdict is Verdict.SATISFIED


def test_a_node_that_changes_its_labels_comes_and_goes() -> None:
    bench = Bench(a=1.0, b=2.0)
    condition = bench.condition("max(nodes, n, n.x) < 3.0", on=(("zone", "b"),))
    assert condition.outcome().reason == "no node for `max(nodes, n, n.x)`"
    for zone, verdict in (("b", Verdict.SATISFIED), ("a", Verdict.UNKNOWN)):
        bench.fleet["a"] = bench.fleet["a"]._replace(zone=zone)
        bench.view.note(["a"])
        bench.view.refresh(bench.now)
        assert condition.refresh()
        assert condition.outcome().verdict is verdict


@pytest.mark.slow
def test_constraints_on_the_same_reading_share_its_column_and_leave_none_behind() -> None:
    bench = Bench(a=1.0, b=2.0)
    nodes = bench.view.nodes(None)
    conditions = [
        bench.condition(when)
        for when in ("max(nodes, n, n.x) < 3.0", "nodes.all(n, n.x < 9.0)", "count(nodes, n, n.x > 4.0) < 2", "nodes.size() < 3")
    ]
    assert repr(nodes) == "FleetNodes(2 nodes, 2 columns)"  # of x, and of the nodes as such
    other = bench.condition("count(nodes, m, m.live && m.x > 4.0) < 2")
    assert repr(nodes) == "FleetNodes(2 nodes, 3 columns)"
    del conditions, other
    gc.collect()
    assert repr(nodes) == "FleetNodes(2 nodes, 0 columns)"


def test_the_maximum_age_of_a_definition_takes_precedence() -> None:
    bench = Bench(a=1.0)
    condition = bench.condition("count(nodes, n, n.x < 5.0) == 1", max_age=2 * SECOND)
    assert condition.outcome().verdict is Verdict.SATISFIED
    bench.view.refresh(bench.now + 2 * SECOND + 1)
    assert condition.refresh()
    assert condition.outcome().verdict is Verdict.UNKNOWN
    bench.now += 60 * SECOND
    bench.view.refresh(bench.now)
    patient = bench.condition("count(nodes, n, n.x < 5.0) == 1", max_age=61 * SECOND)
    assert patient.outcome().verdict is Verdict.SATISFIED


@pytest.mark.slow
def test_the_nodes_for_a_maximum_age_go_with_the_last_definition_that_has_it() -> None:
    """The defect: each maximum age that a definition ever had kept all nodes once more."""
    bench = Bench(a=1.0)
    conditions = [bench.condition("count(nodes, n, n.x > 1.5) < 2", max_age=each * SECOND) for each in (1, 2)]
    gone = weakref.ref(bench.view.nodes(2 * SECOND))
    del conditions[1]
    gc.collect()
    assert gone() is None
    assert conditions[0].outcome().verdict is Verdict.SATISFIED


def test_the_verdict_says_on_what_it_rests() -> None:
    bench = Bench(a=1.0, b=2.0, c=3.0)
    bench.share("d", y=1.0)
    bench.now += 12 * SECOND
    bench.share("a", x=9.0)
    condition = bench.condition("count(nodes, n, n.x > 1.5) <= 3")
    basis = condition.basis()
    assert basis is not None
    assert (*basis, basis.text) == (4, 3, 12 * SECOND, True, "readings of 3 of 4 nodes, the oldest 12 s old")
    assert condition.outcome().verdict is Verdict.UNKNOWN
    assert dict(condition.values()) == {"count(nodes, n, n.x > 1.5)": "3 to 4", "nodes": basis.text}
    plain = bench.condition("size(nodes) == 4").basis()
    assert plain is not None
    assert plain.text == "4 nodes"


@pytest.mark.parametrize(
    ("when", "missing", "margin", "variable"),
    [
        ("count(nodes, n, n.x > 1.5) <= 3", 0, 1.0, "count(nodes, n, n.x > 1.5)"),
        ("count(nodes, n, n.x > 1.5) <= 5", 2, 1.0, "count(nodes, n, n.x > 1.5)"),
        ("count(nodes, n, n.x > 1.5) <= 1", 2, -1.0, "count(nodes, n, n.x > 1.5)"),
        ("nodes.filter(n, n.x > 1.5).size() <= 3", 0, 1.0, "nodes.filter(n, n.x > 1.5).size()"),
        ("max(nodes, n, n.x) < 2.5", 2, -0.5, "max(nodes, n, n.x)"),
        ("max(nodes, n, n.x) < 5.0", 2, None, None),
        ("nodes.all(n, n.x > 0.0)", 0, None, None),
    ],
)
def test_the_margin_is_the_nearest_that_the_missing_readings_leave(
    when: str, missing: int, margin: float | None, variable: str | None
) -> None:
    bench = Bench(a=1.0, b=2.0, c=3.0)
    for number in range(missing):
        bench.share(f"m{number}", y=1.0)
    found = bench.condition(when).margin()
    assert (margin, variable) == (None, None) if found is None else (found.value, found.variable) == (margin, variable)


def test_texts_and_bools_are_read_and_no_numbers() -> None:
    bench = Bench(a=1.0)
    bench.share("b", x="broken", mode="auto")
    assert bench.condition("nodes.exists(n, n.mode == 'auto')").outcome().verdict is Verdict.SATISFIED
    found = bench.condition("sum(nodes, n, n.x) < 5.0").outcome()
    assert (found.verdict, found.reason) == (Verdict.UNKNOWN, "the evaluation fails for b")
    assert bench.condition("avg(nodes.filter(n, n.live && false), n, n.x) < 5.0").outcome().reason.startswith("no node for `avg(")


def test_points_in_names_are_fields() -> None:
    bench = Bench()
    bench.share("a", **{"robot.speed": 2.0, "robot.mass": 3.0})
    assert bench.condition("max(nodes, n, n.robot.speed) == 2.0").outcome().verdict is Verdict.SATISFIED


def test_a_written_definition_of_scope_fleet_is_left_to_a_running_node() -> None:
    from constraint_crdt.expression.evaluation import evaluate

    state = ConstraintState()
    state.constraints.add("low", when="size(nodes) > 2", scope="fleet", node="a")
    assert evaluate(state.constraints, {}) == []


# --- bodies in Python ----------------------------------------------------------------------------------------------------

NUMBERS = st.sampled_from(["n.x", "n.y", "n.missing", "n.flag", "n.word", "20.0", "20", "-1.5", "1e308", "0.0"])
SUMS = st.tuples(NUMBERS, st.sampled_from(["+", "-", "*"]), NUMBERS).map(" ".join) | NUMBERS
COMPARED = st.tuples(SUMS, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), SUMS).map(" ".join)
ATOMS = COMPARED | st.sampled_from(["n.flag", "n.live", "has(n.x)", "has(n.missing)", "true", "n.word == 'a'", "n.missing"])
BODIES = st.recursive(
    ATOMS,
    lambda inner: (
        inner.map("!({})".format)
        | st.tuples(inner, st.sampled_from(["&&", "||"]), inner).map(lambda parts: f"({parts[0]} {parts[1]} {parts[2]})")
    ),
    max_leaves=5,
)
DOUBLES = st.sampled_from([0.0, -0.0, 20.0, 19.999, 1e308, -1e308, math.inf, -math.inf, math.nan, 9007199254740993.0])


@pytest.mark.long
@settings(max_examples=5 * FLEETS, deadline=None)
@given(BODIES, DOUBLES, DOUBLES, st.booleans())
def test_a_body_in_python_gives_what_cel_gives(body: str, x: float, y: float, flag: bool) -> None:
    try:
        compile_written(f"nodes.all(n, {body})", Scope.FLEET)
    except ExpressionError:
        return
    entry = NodeEntry("a", told(x, y, flag), 0, None)
    for part in FleetExpression(f"nodes.all(n, {body})").parts:
        assert part.column.body is not None
        for program in (*part.column.filters, part.column.body):
            assert repr(program.value(entry)) == repr(program.value_of_library(entry))


def told(x: float, y: float, flag: bool) -> NodeFacts:
    readings: dict[str, float | str | bool] = {"x": x, "y": y, "flag": flag, "word": "a"}
    return NodeFacts({}, True, None, {name: Reading(value, 0) for name, value in readings.items()})


@pytest.mark.slow
@settings(max_examples=5 * FLEETS, deadline=None)
@given(BODIES, BODIES, DOUBLES, DOUBLES, st.booleans())
def test_an_aggregate_over_a_node_is_what_cel_gives_for_its_conditions(
    body: str, condition: str, x: float, y: float, flag: bool
) -> None:
    """Whatever the column has: a body as a whole, or a reading beside filters with a threshold."""
    try:
        for each in (body, condition):
            compile_written(f"nodes.all(n, {each})", Scope.FLEET)
    except ExpressionError:
        return
    facts = told(x, y, flag)
    values = {"nodes": [NodeEntry("a", facts, 0, None).values]}

    def by_cel(text: str) -> Verdict:
        return compile_expression(f"nodes.map(n, {text})[0]", checked=False).evaluate(values).verdict

    holds, passes = by_cel(body), by_cel(condition)
    both = Verdict.VIOLATED if Verdict.VIOLATED in (holds, passes) else holds if passes is Verdict.SATISFIED else Verdict.UNKNOWN
    view = FleetView(lambda: ["a"], lambda _: facts)
    for when, expected, shown in (
        (f"count(nodes, n, {body}) == 1", holds, "1 0 0 to 1"),
        (f"nodes.filter(n, {body}).size() == 1", holds, "1 0 0 to 1"),
        (f"nodes.exists(n, {body})", holds, "True False False to True"),
        (f"nodes.all(n, {body})", holds, "True False False to True"),
        (f"share_of(nodes, n, {body}) == 1.0", holds, "1.0 0.0 0.0 to 1.0"),
        (f"count(nodes.filter(n, {condition}), n, {body}) == 1", both, "1 0 0 to 1"),
        (f"nodes.filter(n, {condition}).filter(n, {body}).size() == 1", both, "1 0 0 to 1"),
    ):
        found = FleetCondition(Definition(when, scope=Scope.FLEET), view.nodes(None))
        found.refresh()
        yes, no, unknown = shown.split(" ", 2)
        wanted = {Verdict.SATISFIED: yes, Verdict.VIOLATED: no, Verdict.UNKNOWN: unknown}[expected]
        assert [str(value) for name, value in found.values().items() if name != "nodes"] == [wanted], when
        assert found.outcome().verdict is expected, when
