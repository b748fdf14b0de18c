"""The margin: the distance of each comparison, how logic joins them, what has none, and that its sign is that of the verdict."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constraint_crdt.expression import ExpressionError, Verdict, compile_expression, measurements
from constraint_crdt.expression.measurements import Samples, requirements
from constraint_crdt.expression.temporal import Margin, margin
from tests.expression.cases import VALUES
from tests.expression.test_properties import EXAMPLES, GENERATED, SOME_VALUES

SIGNS = {Verdict.SATISFIED: 1, Verdict.VIOLATED: -1}


def margin_of(source: str, values: dict[str, object]) -> Margin | None:
    return margin(compile_expression(source), values)


@pytest.mark.parametrize(
    ("source", "value", "share"),
    [
        ("x <= 5", 2.0, 0.4),
        ("x < 5", 2.0, 0.4),
        ("x >= 5", -2.0, -0.4),
        ("x > 5", -2.0, -0.4),
        ("x == 5", -2.0, -0.4),
        ("x != 5", 2.0, 0.4),
        ("x == 3", 0.0, 0.0),
        ("x != 3", 0.0, 0.0),
        ("5 > x", 2.0, 0.4),
        ("-5.0 < x", 8.0, 1.6),
        ("x < -5", -8.0, -1.6),
        ("x < 2.5 * 2.0", 2.0, 0.4),
        ("x < double(5)", 2.0, 0.4),
        ("x < 0.0", -3.0, None),
        ("x < y", 4.0, None),
        ("x * 2.0 + 1.0 <= y - x / 3.0", -1.0, None),
        ("int(x) % 2 == 0", -1.0, None),
        ("-x > -5.0", 2.0, 0.4),
        ("x < 4u", 1.0, 0.25),
        ("math.abs(-x) < 5.0", 2.0, 0.4),
        ("x < 1e-310", -3.0, None),
    ],
)
def test_a_comparison_has_the_distance_to_its_threshold(source: str, value: float, share: float | None) -> None:
    """Also in share of the threshold, where that is a constant other than 0 and the share is finite."""
    assert margin_of(source, {"x": 3, "y": 7}) == Margin(value, share, "x")


@pytest.mark.parametrize(
    ("source", "value", "variable"),
    [
        ("x < 5 && y < 8", 1.0, "y"),
        ("x < 5 || y < 8", 2.0, "x"),
        ("x > 5 && y > 8", -2.0, "x"),
        ("x > 5 || y > 8", -1.0, "y"),
        ("!(x < 5 && y < 8)", -1.0, "y"),
        ("!(x < 5) || y < 8", 1.0, "y"),
        ("x < 5 && x > 0 && y < 9 && y > 6", 1.0, "y"),
        ("flag ? x < 5 : y < 8", 2.0, "x"),
        ("!flag ? x < 5 : y < 8", 1.0, "y"),
        ("x < 4 ? x < 5 : y < 8", 2.0, "x"),
        ("(x < 5) == (y < 8) || x < 4", None, ""),
    ],
)
def test_and_is_the_minimum_or_the_maximum_not_the_negation(source: str, value: float | None, variable: str) -> None:
    found = margin_of(source, {"x": 3, "y": 7, "flag": True})
    assert (found.value, found.variable) == (value, variable) if found else value is None


@pytest.mark.parametrize(
    ("source", "variable"),
    [
        ("robot.speed < 2", "robot.speed"),
        ("robot.arm.joints[0] < 2", "robot.arm.joints[0]"),
        ("limits['a'] < 2", "limits['a']"),
        ("limits[name] < 2", "limits[name]"),
        ("2.0 * x + y < 3.0", "x"),
        ("3.0 > x", "x"),
        ("type < 3", "type"),
        ("math.abs(x) < 2", "x"),
        ("size(xs) < 4", "xs"),
        ("size(xs.filter(i, i > 1)) < 4", "xs"),
        ("xs.filter(x, x > y).size() < 4", "xs"),
    ],
)
def test_the_margin_names_the_measurement_that_decides(source: str, variable: str) -> None:
    values: dict[str, object] = {
        "x": 1, "y": 1, "type": 1, "name": "a", "xs": [1, 2], "limits": {"a": 1}, "robot": {"speed": 1, "arm": {"joints": [1]}}
    }  # fmt: skip
    found = margin_of(source, values)
    assert found
    assert found.variable == variable


def test_an_expression_that_the_type_checker_refuses_has_a_margin_too() -> None:
    expression = compile_expression("math.abs(x) > (flag ? 1 : 2.0)", checked=False)
    assert margin(expression, {"flag": True, "x": -3}) == Margin(2.0, None, "x")


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("flag && x < 5", 2.0),
        ("x < 5 && name == 'a' && x in [3] && xs.all(i, i > 0)", 2.0),
        ("name == 'b' || x < 5", 2.0),
        ("x > 5 || !flag", -2.0),
        ("(name == 'b' && x < 4) || x < 5", 2.0),
        ("1 < 2 && x < 5", 2.0),
        ("duration('1s') < duration('2s') && x < 5", 2.0),
        ("flag", None),
        ("name == 'a'", None),
        ("!flag && x < 5", None),
        ("flag || x < 5", None),
        ("1.0 < 2.0 || x < 5", None),
        ("x == name || x == null", None),
    ],
)
def test_a_part_without_numbers_is_infinitely_far_and_leaves_the_margin_to_the_others(source: str, found: float | None) -> None:
    result = margin_of(source, {"x": 3, "flag": True, "name": "a", "xs": [1, 2]})
    assert (result.value if result else None) == found


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("missing < 1", None),
        ("x < 5 && missing < 1", None),
        ("x > 5 && missing < 1", -2.0),
        ("x > 5 && missing < 1 && x > 9", -6.0),
        ("x > 5 || missing < 1", None),
        ("x < 5 || missing < 1", 2.0),
        ("!(x < 5 || missing < 1)", -2.0),
        ("x > 5 && (x < 4 || missing < 1)", -2.0),
        ("missing ? x < 5 : x < 4", None),
        ("x < 5 || (missing ? x < 5 : x < 4)", 2.0),
        ("x >= 3 || missing < 1", 0.0),
        ("x > 3 && missing < 1", 0.0),
        ("x < 5 && xs[7] < 1.0", None),
    ],
)
def test_an_unknown_part_leaves_a_margin_where_the_others_decide(source: str, found: float | None) -> None:
    result = margin_of(source, {"x": 3, "xs": []})
    assert (result.value if result else None) == found


def test_a_margin_of_0_says_nothing_about_the_verdict() -> None:
    values: dict[str, object] = {"x": 5}
    for source, verdict in [
        ("x > 5", Verdict.VIOLATED), ("x >= 5", Verdict.SATISFIED), ("x < 5", Verdict.VIOLATED), ("x <= 5", Verdict.SATISFIED),
        ("x == 5", Verdict.SATISFIED), ("x != 5", Verdict.VIOLATED), ("!(x > 5)", Verdict.SATISFIED),
        ("!(x >= 5)", Verdict.VIOLATED),
    ]:  # fmt: skip
        assert compile_expression(source).evaluate(values).verdict is verdict
        assert margin_of(source, values) == Margin(0.0, 0.0, "x")


def test_a_window_has_a_margin_once_it_is_full() -> None:
    expression = compile_expression('5.0 >= avg_over("robot.speed", duration("2s")) && x < 9')
    samples = Samples()
    samples.require(requirements([expression]))
    found = []
    for second in range(4):
        samples.put({"robot.speed": second}, second * 10**9)
        found.append(margin(expression, measurements({"x": 3}, samples.at(second * 10**9))))
    assert found == [None, None, Margin(3.5, 0.7, "robot.speed"), Margin(2.5, 0.5, "robot.speed")]
    assert margin(expression, {"x": 12}) == Margin(-3.0, -1 / 3, "x")
    assert margin(expression, {"x": 3}) is None
    assert margin(compile_expression("delta < 3 && age('x') < duration('1s')"), {"delta": 4}) == Margin(-1.0, -1 / 3, "delta")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_distance_that_is_not_finite_is_none(value: float) -> None:
    assert margin_of("x < 5", {"x": value}) is None
    assert margin_of("x < y", {"x": value, "y": value}) is None
    found = margin_of("y < 5 && (x < 5 || y < 4)", {"x": value, "y": 3})
    assert found
    assert found.value == (2.0 if value < 0 else 1.0)


def test_a_distance_that_overflows_is_none() -> None:
    assert margin_of("x < y", {"x": -1e308, "y": 1e308}) is None
    assert margin_of("x < 1e308", {"x": -1e307}) is not None


def test_the_margin_of_zero_is_never_minus_zero() -> None:
    for source in ("x == 5", "!(x != 5)", "x <= 5", "!(x <= 5)", "x >= 5", "!(x == 5)", "x < 5 ? false : x < 5"):
        found = margin(compile_expression(source, checked=False), measurements({"x": 5}))
        assert found
        assert math.copysign(1, found.value) == 1
        assert found.share is not None
        assert math.copysign(1, found.share) == 1


NUMBERS = st.sampled_from([0.0, 1.0, -1.0, 2.5, 5e-324, 1e308, -1e308, 9007199254740993, math.nan, math.inf]) | st.integers(-3, 3)
NUMERIC = st.recursive(
    st.sampled_from(["x", "y", "m.a", "m['b']", "1", "2.5", "0.0", "9007199254740993", "-1", "3u", "size(xs)", "int(x)"]),
    lambda inner: st.tuples(inner, st.sampled_from("+-*/%"), inner).map(lambda parts: "({} {} {})".format(*parts)),
    max_leaves=3,
)
COMPARISON = st.tuples(NUMERIC, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), NUMERIC).map(" ".join)
LOGIC = st.recursive(
    COMPARISON | st.sampled_from(["flag", "name == 'a'", "xs.exists(i, i > x)", "x in xs", "true", "name", "has(m.a)"]),
    lambda inner: (
        st.tuples(inner, st.sampled_from(["&&", "||", "=="]), inner).map(lambda parts: "({} {} {})".format(*parts))
        | st.tuples(inner, inner, inner).map(lambda parts: "({} ? {} : {})".format(*parts))
        | inner.map("!({})".format)
    ),
    max_leaves=5,
)
SOME = st.fixed_dictionaries(
    {},
    optional={
        "x": NUMBERS, "y": NUMBERS, "m": st.fixed_dictionaries({}, optional={"a": NUMBERS, "b": NUMBERS}), "flag": st.booleans(),
        "name": st.sampled_from(["a", "b"]), "xs": st.lists(NUMBERS, max_size=2),
    },
)  # fmt: skip


@pytest.mark.long
@settings(max_examples=5 * EXAMPLES // 2, deadline=None)
@given(LOGIC, SOME)
def test_a_margin_other_than_0_has_the_sign_of_the_verdict(source: str, values: dict[str, object]) -> None:
    expression = compile_expression(source, checked=False)
    verdict, found = expression.evaluate(values).verdict, margin(expression, values)
    if verdict is Verdict.UNKNOWN:
        assert found is None
    elif found:
        assert math.isfinite(found.value)
        assert found.value == 0 or math.copysign(1, found.value) == SIGNS[verdict]
        assert found.share is None or found.value * found.share >= 0
        assert found.variable.startswith(("x", "y", "m", "size", "int", "(", "1", "2", "0", "9", "-", "3"))


@pytest.mark.slow
@settings(max_examples=EXAMPLES, deadline=None)
@given(GENERATED, SOME_VALUES)
def test_the_margin_of_any_expression_raises_nothing(source: str, values: dict[str, object]) -> None:
    try:
        expression = compile_expression(f"{source} == x", checked=False)
    except ExpressionError:
        return
    margin(expression, {**VALUES, **values})


THRESHOLDS = st.recursive(
    st.tuples(st.sampled_from("xyz"), st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), st.integers(-9, 9)).map(
        lambda parts: "{} {} {}".format(*parts)
    ),
    lambda inner: (
        st.tuples(inner, st.sampled_from(["&&", "||"]), inner).map(lambda parts: "({} {} {})".format(*parts))
        | inner.map("!({})".format)
    ),
    max_leaves=6,
)
THREE = st.fixed_dictionaries(dict.fromkeys("xyz", st.integers(-9, 9)))
NUDGES = st.fixed_dictionaries(dict.fromkeys("xyz", st.floats(-0.999, 0.999)))


@pytest.mark.slow
@settings(max_examples=3 * EXAMPLES // 2, deadline=None)
@given(THRESHOLDS, THREE, NUDGES)
def test_no_change_of_the_values_by_less_than_the_margin_changes_the_verdict(
    source: str, values: dict[str, int], nudges: dict[str, float]
) -> None:
    """What the margin means: Fainekos and Pappas, theorem on robust satisfaction, for comparisons of a variable with a constant."""
    expression = compile_expression(source)
    found = margin(expression, values)
    assert found
    nudged = {name: value + nudges[name] * abs(found.value) for name, value in values.items()}
    if found.value:
        assert expression.evaluate(nudged).verdict is expression.evaluate(values).verdict
