"""Parameters against a plain model: random selectors, labels and writes on several replicas; and their names in expressions."""

from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt import ConstraintCrdtError, ConstraintState
from constraint_crdt.crdt.cells import make_cell, read_cell
from constraint_crdt.crdt.clock import Replica
from constraint_crdt.errors import UnknownName
from constraint_crdt.types.definition import Definition
from constraint_crdt.types.parameters import (
    MOST_PARAMETERS,
    PARAMETER,
    Bound,
    Parameters,
    bind,
    check_parameter_name,
    check_parameter_value,
    literal,
    parameters_of,
)

REPLICAS = ("a", "b", "c")
SELECTORS = ("", "zone=x", "zone in (x, y)", "zone!=x", "rack=1", "rack=1, zone=x", "!rack", "zone")
VALUES: tuple[float | str | bool | None, ...] = (1.0, 1.5, True, "fast", None)

writes = st.tuples(st.sampled_from(REPLICAS), st.sampled_from(["p", "q"]), st.sampled_from(SELECTORS), st.sampled_from(VALUES))
merges = st.tuples(st.sampled_from(REPLICAS), st.sampled_from(REPLICAS))
labels = st.fixed_dictionaries({}, optional={"zone": st.sampled_from("xy"), "rack": st.sampled_from("12")})


class Written(NamedTuple):
    """A write of the model: what it sets, and the writes of the same parameter and selector that it knew."""

    name: str
    selector: str
    value: float | str | bool | None
    over: frozenset[int]


def matches(selector: str, on: dict[str, str]) -> bool:
    """The selectors of this test, spelt out."""
    zone, rack = on.get("zone"), on.get("rack")
    return {
        "": True,
        "zone=x": zone == "x",
        "zone in (x, y)": zone in ("x", "y"),
        "zone!=x": zone != "x",
        "rack=1": rack == "1",
        "rack=1, zone=x": rack == "1" and zone == "x",
        "!rack": rack is None,
        "zone": zone is not None,
    }[selector]


class Model:
    """What each replica knows, as sets of writes."""

    def __init__(self) -> None:
        self.writes: list[Written] = []
        self.known: dict[str, set[int]] = {name: set() for name in REPLICAS}

    def standing(self, replica: str, name: str, selector: str) -> set[int]:
        known = {at for at in self.known[replica] if self.writes[at][:2] == (name, selector)}
        return known - {other for at in known for other in self.writes[at].over}

    def values(self, replica: str, name: str, selector: str) -> set[tuple[type, object]]:
        found = [self.writes[at].value for at in self.standing(replica, name, selector)]
        return {(type(value), value) for value in found if value is not None}

    def write(self, replica: str, name: str, selector: str, value: float | str | bool | None) -> None:
        known = frozenset(at for at in self.known[replica] if self.writes[at][:2] == (name, selector))
        self.known[replica].add(len(self.writes))
        self.writes.append(Written(name, selector, value, known))

    def value(self, replica: str, name: str, on: dict[str, str]) -> object:
        """The value on a node; None without one; "torn" for a conflict."""
        found = [(each.count(",") + bool(each) - each.count(" in "), self.values(replica, name, each)) for each in SELECTORS
                 if matches(each, on) and self.values(replica, name, each)]  # fmt: skip
        told = set[tuple[type, object]]().union(*(values for number, values in found if number == max(found)[0]))
        return None if not told else next(iter(told)) if len(told) == 1 else "torn"


@pytest.mark.slow
@given(st.lists(writes | merges, max_size=30), labels)
def test_replicas_read_what_a_plain_model_reads(steps: list[Any], on: dict[str, str]) -> None:
    states, model = {name: ConstraintState() for name in REPLICAS}, Model()
    for step in steps:
        if len(step) == 2:
            of, into = step
            states[into].merge(states[of])
            model.known[into] |= model.known[of]
            continue
        replica, name, selector, value = step
        parameters, before = states[replica].parameters, model.values(replica, name, selector)
        if value is None and not before:
            with pytest.raises(UnknownName):
                parameters.unset(name, selector or None, node=replica)
        elif value is None:
            parameters.unset(name, selector or None, node=replica)
            model.write(replica, name, selector, None)
        elif parameters.set(name, value, selector or None, node=replica):
            model.write(replica, name, selector, value)
        else:
            assert before == {(type(value), value)}
    for replica, state in states.items():
        assert set(state.parameters) == {name for name in "pq" for each in SELECTORS if model.values(replica, name, each)}
        for name in "pq":
            found, expected = state.parameters.value(name, on), model.value(replica, name, on)
            told = None if found.value is None else (type(found.value), found.value)
            assert told == (None if expected == "torn" else expected)
            assert (found.value is None) is bool(found.reason)
            assert ("in conflict" in found.reason) is (expected == "torn")
        fresh = Parameters(state.rows.copy())
        assert [fresh.settings(name) for name in "pq"] == [state.parameters.settings(name) for name in "pq"]


def test_the_most_specific_setting_counts_and_ties_have_no_value() -> None:
    parameters = ConstraintState().parameters
    parameters.set("limit", 1.5, node="a")
    parameters.set("limit", 0.8, {"zone": "dock"}, node="a")
    assert parameters.value("limit", {}) == Bound(1.5)
    assert parameters.value("limit", {"zone": "dock"}) == Bound(0.8, "zone=dock")
    parameters.set("limit", 0.9, "spare", node="b")
    both = parameters.value("limit", {"zone": "dock", "spare": "yes"})
    assert both == Bound(None, reason="the parameter limit is in conflict: 0.9 on spare and 0.8 on zone=dock")
    parameters.set("limit", 0.7, "spare, zone=dock", node="b")
    assert parameters.value("limit", {"zone": "dock", "spare": "yes"}).value == 0.7
    parameters.unset("limit", node="c")
    assert parameters.value("limit", {}).reason == "the parameter limit is not set on this node"
    assert parameters.value("other", {}).reason == "the parameter other is not set"
    with pytest.raises(UnknownName, match="there is no setting of a parameter 'limit' here"):
        parameters.unset("limit", node="a")


def test_a_setting_of_a_later_version_counts_on_no_node_and_is_kept() -> None:
    state = ConstraintState()
    later = Replica("z", 1)
    for key, value in (
        ("p\x1fzone ~ x", [1]),
        ("p", [{"a": 1}]),
        ("p\x1frack=1", [float("nan")]),
        ("p\x1fzone=x", [2, 5, [], "more"]),
    ):
        state.rows.write(later, read_cell(make_cell(PARAMETER, key, value).data))
    assert state.parameters.value("p", {"zone": "x", "rack": "1"}) == Bound(2.0, "zone=x")
    assert state.parameters.value("p", {}).reason == "the parameter p is not set on this node"
    for wrong in ([1, -1], [1, 0, [["", 0, 1]]], 5):
        with pytest.raises((ConstraintCrdtError, msgspec.DecodeError)):
            read_cell(make_cell(PARAMETER, "p", wrong).data)


@pytest.mark.slow
def test_parameters_are_bounded() -> None:
    parameters = ConstraintState().parameters
    for number in range(MOST_PARAMETERS):
        parameters.set(f"p{number}", 1, node="a")
    with pytest.raises(ConstraintCrdtError, match="500 settings of parameters are the most: unset one"):
        parameters.set("more", 1, node="a")
    parameters.set("p1", 2, node="a")
    parameters.unset("p0", node="a")
    parameters.set("more", 1, node="a")


@pytest.mark.parametrize("name", ["", "a.b", "1a", "a-b", "true", "in", "é", "x" * 257])
def test_a_name_that_no_expression_can_read_is_refused(name: str) -> None:
    with pytest.raises(ConstraintCrdtError) as raised:
        check_parameter_name(name)
    assert raised.value.field == "name"


@pytest.mark.parametrize("value", [None, [1.0], {}, float("nan"), float("inf"), 10**400, "x" * 10_000])
def test_a_value_that_no_parameter_has_is_refused(value: Any) -> None:
    with pytest.raises(ConstraintCrdtError):
        check_parameter_value(value)


@pytest.mark.parametrize(
    ("text", "names", "bound"),
    [
        ("x < param.a", ("a",), "x < 1.5"),
        ("x < param . a && y > param.b", ("a", "b"), 'x < 1.5 && y > "é\\"\\n"'),
        ("x < param.c", ("c",), "x < param.c"),
        ('name == \'param.a\' || name == "\\"param.a"', (), None),
        ("r'\\' == name && x < param.a", ("a",), "r'\\' == name && x < 1.5"),
        ("name == '''param.a' ''' || param.t", ("t",), "name == '''param.a' ''' || true"),
        ("x.param.a < y && my.param.a > xparam.a && f(x).param.a", (), None),
        ("x < 1.0 // param.a", (), None),
        ("param < 1.0 || parameter.a", (), None),
        ("x < param.ab", ("ab",), "x < param.ab"),
        ("-param.n < x", ("n",), "--2.0 < x"),
    ],
)
def test_the_names_in_an_expression_get_their_values(text: str, names: tuple[str, ...], bound: str | None) -> None:
    values = {"a": Bound(1.5), "b": Bound('é"\n'), "c": Bound(None, reason="not set"), "t": Bound(True), "n": Bound(-2.0)}
    assert parameters_of(text) == names
    assert bind(text, values) == (text if bound is None else bound)


def test_a_definition_is_bound_whole_with_the_reasons_for_what_is_missing() -> None:
    parameters = ConstraintState().parameters
    parameters.set("a", 1.5, node="n")
    bound = parameters.bind(Definition("x < param.a", clear_when="x < param.b"), {})
    assert bound.definition == Definition("x < 1.5", clear_when="x < param.b")
    assert (dict(bound.values), bound.reason) == (
        {"a": Bound(1.5), "b": Bound(None, reason="the parameter b is not set")},
        "the parameter b is not set",
    )
    assert parameters.bind(Definition("x < 1.0"), {}).definition == Definition("x < 1.0")
    assert literal(False) == "false"
