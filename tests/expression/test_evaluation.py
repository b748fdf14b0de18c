"""Evaluating an expression: the verdict, what is unknown and why, measurements prepared for many, what cannot get out."""

import math
import threading
from decimal import Decimal
from fractions import Fraction

import pytest

from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.expression import Expression, Outcome, Verdict, check_names, compile_expression, measurements
from tests.expression.cases import VALUES, isolated, refusal


@pytest.mark.parametrize(
    ("source", "values", "verdict"),
    [
        ("speed_mps <= 1.5 && distance_m > 0.5", {"speed_mps": 9}, Verdict.VIOLATED),
        ("distance_m > 0.5 && speed_mps <= 1.5", {"speed_mps": 9}, Verdict.VIOLATED),
        ("speed_mps <= 1.5 && distance_m > 0.5", {"speed_mps": 1}, Verdict.UNKNOWN),
        ("speed_mps > 1.5 || distance_m > 0.5", {"speed_mps": 9}, Verdict.SATISFIED),
        ("speed_mps > 1.5 || distance_m > 0.5", {"speed_mps": 1}, Verdict.UNKNOWN),
        ("moving ? speed_mps < 2 : distance_m > 0.5", {"moving": True, "speed_mps": 1}, Verdict.SATISFIED),
        ("moving ? speed_mps < 2 : distance_m > 0.5", {"moving": False, "speed_mps": 1}, Verdict.UNKNOWN),
        ("moving ? true : true", {}, Verdict.UNKNOWN),
        ("xs.all(i, i < limit)", {"xs": []}, Verdict.SATISFIED),
        ("xs.exists(i, i < 2 || i < limit)", {"xs": [3, 1]}, Verdict.SATISFIED),
    ],
)
def test_a_missing_variable_is_an_error_that_the_logic_absorbs(source: str, values: dict[str, object], verdict: Verdict) -> None:
    """The defect: one broken sensor hid the violation that another shows."""
    assert compile_expression(source).evaluate(values).verdict is verdict


def test_unknown_names_the_variables_that_are_missing() -> None:
    expression = compile_expression("(gpu_temp_c < fan_max || x < 3) && type == 'agv'")
    assert expression.evaluate({"x": 5}) == Outcome(Verdict.UNKNOWN, "no measurement of fan_max, gpu_temp_c, type")
    assert expression.evaluate({"x": 1, "type": "agv"}).verdict is Verdict.SATISFIED


def test_values_that_are_no_measurement_make_it_unknown_and_say_why() -> None:
    expression = compile_expression("x < 3")
    deep: list[object] = []
    deep.append(deep)
    for value, reason in [
        (10**400, "x is too large for a double"),
        ([1, {"a": 10**400}], "x is too large for a double"),
        (None, "no measurement of x"),
        (deep, "x is nested more than 16 deep"),
        ({1: 2}, "x has a key that is not text"),
        ("\ud800", "x is not valid text"),
        ({"a": ["\ud800"]}, "x is not valid text"),
        (b"a", "x has a value of type bytes, which is not measurable"),
        ("a" * 4097, "x has a text of more than 4096 bytes"),
        ([{"a": "é" * 2049}], "x has a text of more than 4096 bytes"),
        ({"a" * 4097: 1}, "x has a text of more than 4096 bytes"),
        ([[0] * 5000, [0] * 5000], "x has more than 10000 items"),
    ]:
        assert expression.evaluate({"x": value}) == Outcome(Verdict.UNKNOWN, reason)
    both = compile_expression("x < 3 && y < 3").evaluate({"y": 10**400})
    assert both == Outcome(Verdict.UNKNOWN, "no measurement of x; y is too large for a double")


def test_an_unusable_value_is_absorbed_like_a_missing_one() -> None:
    assert compile_expression("x < 3 && y < 3").evaluate({"x": 5, "y": 10**400}).verdict is Verdict.VIOLATED


def test_nan_follows_ieee_and_does_not_spoil_the_rest() -> None:
    """The defects: 0/0 read unknown, and one NaN in a list or map took the whole of it."""
    nan = math.nan
    assert compile_expression("errors / requests < 0.01").evaluate({"errors": 0, "requests": 0}).verdict is Verdict.VIOLATED
    assert compile_expression("x < 3").evaluate({"x": nan}).verdict is Verdict.VIOLATED
    assert compile_expression("x == x").evaluate({"x": nan}).verdict is Verdict.VIOLATED
    assert compile_expression("x != x && math.isNaN(x)").evaluate({"x": nan}).verdict is Verdict.SATISFIED
    assert (
        compile_expression("xs[1] < 3 && m.b < 3").evaluate({"xs": [nan, 2], "m": {"a": nan, "b": 1}}).verdict is Verdict.SATISFIED
    )


def test_null_inside_is_a_value_and_null_at_the_top_is_none() -> None:
    """The defect: `{"arm": null}` made the whole map unusable."""
    expression = compile_expression("robot.arm == null || robot.arm.joints == 6")
    assert expression.evaluate({"robot": {"arm": None}}).verdict is Verdict.SATISFIED
    assert expression.evaluate({"robot": {"arm": {"joints": 6}}}).verdict is Verdict.SATISFIED
    assert compile_expression("xs[0] == null").evaluate({"xs": [None]}).verdict is Verdict.SATISFIED
    assert compile_expression("x == null").evaluate({"x": None}) == Outcome(Verdict.UNKNOWN, "no measurement of x")


@pytest.mark.parametrize("number", [1, 1.0])
@pytest.mark.parametrize(
    "source",
    [
        "x <= 1",
        "x <= 1.0",
        "x == 1",
        "x == 1u",
        "limits[x] == 7",
        "[5, 7][x] == 7",
        "{1: 7}[x] == 7",
        "x in {1: true}",
        "x in [1, 2]",
        "x in [1.0, 2.0]",
        "x * 2.0 == 2",
        "x * 2.0 < 3 && 3 > x + 1.0",
        "size(name) < 7.5 && size(name) in [7.0, 8]",
        "int(x) % 2 == 1",
        "-x == -1",
    ],
)
def test_numbers_are_on_one_line(source: str, number: float) -> None:
    values = {"x": number, "limits": [5, 7], "name": "forge-1"}
    assert compile_expression(source).evaluate(values) == Outcome(Verdict.SATISFIED, "")


def test_a_measured_variable_hides_the_name_of_a_type() -> None:
    """The defect: `type == 'agv'` compared the type `type`."""
    assert compile_expression("type == 'agv'").evaluate({"type": "agv"}).verdict is Verdict.SATISFIED
    assert compile_expression("type == 'agv'").evaluate({"type": "cart"}).verdict is Verdict.VIOLATED
    assert compile_expression("type == 'agv'").evaluate({}) == Outcome(Verdict.UNKNOWN, "no measurement of type")
    assert compile_expression("string == 'x' && int < 3").evaluate({"string": "x", "int": 1}).verdict is Verdict.SATISFIED
    assert compile_expression("type(x) == double").evaluate({"x": 1}).verdict is Verdict.SATISFIED
    assert compile_expression("type(x) == type(double)").evaluate({"x": 1, "double": 2}).verdict is Verdict.SATISFIED
    assert compile_expression("type == 'agv'").variables == {"type"}
    assert compile_expression("type(x) == double").variables == {"x"}


def test_a_name_with_points_is_read_as_a_field() -> None:
    expression = compile_expression("robot.arm.speed < 2")
    assert expression.evaluate({"robot": {"arm": {"speed": 1}}}).verdict is Verdict.SATISFIED
    assert expression.evaluate({"robot.arm": {"speed": 1}}).verdict is Verdict.SATISFIED
    assert expression.evaluate({"robot.arm.speed": 1}).verdict is Verdict.SATISFIED
    longest = {"robot": {"arm": {"speed": 9}}, "robot.arm": {"speed": 8}, "robot.arm.speed": 1}
    assert expression.evaluate(longest).verdict is Verdict.SATISFIED
    assert expression.evaluate({"robot": {"arm": {"speed": 9, "load": 1}}, "robot.load": 1}).verdict is Verdict.VIOLATED
    assert compile_expression("robot < 2").evaluate({"robot": 1, "robot.speed": 9}).verdict is Verdict.SATISFIED


@pytest.mark.parametrize(
    "name", ["a b", "true", "in", "null", "if", "for", "2x", "é", "a-b", "", ".a", "a.", "a..b", "robot.true", "__measured_type"]
)
def test_a_name_that_no_expression_can_read_is_refused(name: str) -> None:
    with pytest.raises(ConstraintCrdtError, match="no expression can read a measurement named"):
        check_names([name])


def test_names_that_expressions_can_read_are_taken() -> None:
    names = ["speed_mps", "type", "string", "math", "robot.speed", "_x", "robot.for", "X1", "dyn"]
    check_names(names)
    for name in names:
        assert compile_expression(f"{name} == 1").evaluate({name: 1}).verdict is Verdict.SATISFIED


class Real:
    """A float of another library."""

    def __float__(self) -> float:
        return 2.5


class Whole:
    """An integer of another library."""

    def __index__(self) -> int:
        return 2


class Broken:
    """A number without a value."""

    def __float__(self) -> float:
        raise ValueError("no value")


@pytest.mark.parametrize("value", [Decimal("2.5"), Fraction(5, 2), Real(), Whole()])
def test_numbers_of_other_types_are_values(value: object) -> None:
    assert compile_expression("x < 3 && xs[0] > 1").evaluate({"x": value, "xs": [value]}).verdict is Verdict.SATISFIED


def test_scalars_of_numpy_are_values() -> None:
    numpy = pytest.importorskip("numpy")
    for kind in (numpy.float32, numpy.float64, numpy.longdouble, numpy.int8, numpy.uint64):
        assert compile_expression("x < 3").evaluate({"x": kind(2)}).verdict is Verdict.SATISFIED
    assert compile_expression("x").evaluate({"x": numpy.bool_(True)}).verdict is Verdict.SATISFIED
    assert compile_expression("x < 3").evaluate({"x": numpy.array([1, 2])}).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (Decimal("1e400"), "x is too large for a double"),
        (Broken(), "x has a value of type Broken, which is not measurable"),
        (1j, "x has a value of type complex, which is not measurable"),
    ],
)
def test_numbers_without_a_value_make_it_unknown(value: object, reason: str) -> None:
    assert compile_expression("x < 3").evaluate({"x": value}) == Outcome(Verdict.UNKNOWN, reason)


def test_infinities_are_values() -> None:
    assert compile_expression("x < 3").evaluate({"x": math.inf}).verdict is Verdict.VIOLATED
    assert compile_expression("x < 3").evaluate({"x": -math.inf}).verdict is Verdict.SATISFIED


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("x", "not a bool but of type double"),
        ("robot.wheels < 3", "no field wheels"),
        ("xs[9] < 3", "item 9 is out of bounds of 3"),
        ("x < 'a'", "does not take the kind of value measured"),
        ("size(x) < 3", "`size` does not take"),
        ("1 / int(x - 7.0) < 3", "divide by zero"),
        ("x ? true : false", "failed: a condition does not take the kind of value measured"),
        ("name.all(c, c == 'a')", "failed: a macro does not take the kind of value measured"),
        ("xs[x / 2.0] < 3", "the index of a list is a number without fraction"),
    ],
)
def test_what_only_the_values_can_tell_is_unknown_with_a_reason(source: str, says: str) -> None:
    outcome = compile_expression(source).evaluate(VALUES)
    assert outcome.verdict is Verdict.UNKNOWN
    assert says in outcome.reason
    assert "\n" not in outcome.reason


def test_prepared_measurements_serve_many_expressions_and_hold_doubles() -> None:
    prepared = measurements({**VALUES, "broken": math.nan, "double": 1})
    assert prepared["robot"] == {"speed": 1.0, "all": 2.0, "arm": {"joints": [1.0, 2.0]}}
    assert type(prepared["x"]) is float
    assert prepared["flag"] is True
    assert set(prepared) == {*VALUES, "double", "broken"}
    assert len(prepared) == len(VALUES) + 2
    for source in ("x < 8", "x > 8", "broken < 1", "missing < 1", "type(x) == type(2.0)"):
        expression = compile_expression(source)
        raw = {**VALUES, "broken": math.nan, "double": 1}
        assert expression.evaluate(prepared) == expression.evaluate(raw)


def test_prepared_measurements_can_be_shared_between_threads() -> None:
    prepared, expression = measurements(VALUES), compile_expression("x < 8")
    outcomes: list[Outcome] = []
    threads = [threading.Thread(target=lambda: outcomes.append(expression.evaluate(prepared))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [Outcome(Verdict.SATISFIED, "")] * 4


def test_a_compilation_is_kept_a_refusal_is_not_and_an_expression_cannot_be_changed() -> None:
    assert compile_expression("x < 4242") is compile_expression("x < 4242")
    assert refusal("x <") is not refusal("x <")
    with pytest.raises(AttributeError):
        compile_expression("x < 1").source = "x < 2"  # type: ignore[misc]


class Failing:
    """A program of the library that raises."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def eval(self, _: object) -> object:
        raise self._error


def test_an_exception_of_the_library_does_not_get_out_and_an_interrupt_does() -> None:
    failing = Expression("x < 1", frozenset({"x"}), Failing(RuntimeError("INTERNAL: out of luck [INTERNAL]")))
    assert failing.evaluate({"x": 1}) == Outcome(Verdict.UNKNOWN, "the evaluation failed: out of luck")
    with pytest.raises(KeyboardInterrupt):
        Expression("x < 1", frozenset({"x"}), Failing(KeyboardInterrupt())).evaluate({"x": 1})


@pytest.mark.slow
def test_expressions_are_compiled_and_evaluated_in_several_threads() -> None:
    prepared = measurements(VALUES)
    wrong: list[str] = []

    def work(first: int) -> None:
        for number in range(first, first + 100):
            outcome = compile_expression(f"x < {number} && xs.size() == 3 && name.matches('^f.*{number}|forge')").evaluate(prepared)
            if outcome.verdict is not (Verdict.SATISFIED if number > 7 else Verdict.VIOLATED):
                wrong.append(f"{number}: {outcome}")

    threads = [threading.Thread(target=work, args=(first,)) for first in (0, 50, 100, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.long
@pytest.mark.processes
def test_importing_the_module_does_not_load_the_library() -> None:
    assert isolated("import constraint_crdt.expression, sys; print('cel_expr_python.cel' in sys.modules)").strip() == "False"


@pytest.mark.long
@pytest.mark.processes
def test_a_result_that_has_an_optional_is_no_bool_and_ends_no_process() -> None:
    """The defect: the library ended the process where it converted a map with an optional, and raised for other results."""
    printed = isolated(
        "from constraint_crdt.expression import compile_expression\n"
        "for source in ('optional.of(x)', '[xs[?0]]', '{\\'a\\': xs[?0]}', '{\\'a\\': [{\\'b\\': optional.none()}]}', 'null'):\n"
        "    print(compile_expression(source, checked=False).evaluate({'x': 1, 'xs': [1]}).reason)\n"
    )
    of_type = "the result is not a bool but of type "
    assert [line.removeprefix(of_type).partition("<")[0] for line in printed.splitlines()] == [
        "optional",
        "list",
        "map",
        "map",
        "null",
    ]


def test_an_optional_of_a_constant_is_accepted() -> None:
    assert compile_expression("optional.of(1.0).orValue(x) > 0.0").evaluate({}).verdict is Verdict.SATISFIED
    assert compile_expression("optional.of(1.0) == optional.of(x)").evaluate({"x": 1}).verdict is Verdict.SATISFIED


SENSORS = "speed <= 1.5 && distance > 0.5 && (indoors ? lux > 50.0 : wind < 8.0)"


@pytest.mark.parametrize(
    ("source", "values", "named"),
    [
        (SENSORS, {"speed": 1}, "distance, indoors"),
        (SENSORS, {"speed": 1, "indoors": True}, "distance, lux"),
        (SENSORS, {"speed": 1, "indoors": True, "lux": 80}, "distance"),
        (SENSORS, {"speed": 1, "indoors": False, "distance": 1, "lux": 80}, "wind"),
        ("speed <= 1.5 && (distance > 0.5 || door)", {"speed": 1, "door": False}, "distance"),
        ("(a < 1 || b < 1) && (c < 1 || d < 1)", {"a": 0, "c": 2}, "d"),
        ("!(a < 1 && b < 1) || c < 1", {"b": 0}, "a, c"),
        ("(indoors ? lux : wind) + load < 8.0", {"indoors": True, "wind": 1}, "load, lux"),
        ("[lux, a < 1 || b < 1] == xs", {"a": 0, "xs": []}, "lux"),
        ("xs.all(i, i < limit || other)", {"other": True}, "xs"),
        ("xs.all(i, i < limit || other)", {"xs": [1]}, "limit, other"),
        ("xs.filter(i, i < limit).size() < 3 && (true || y)", {"xs": [1]}, "limit"),
        ("optional.of(1.0).orValue(y) > 0.0 && x > 0.0", {}, "x"),
        ("(type == 'agv' || int < 3) && string == 'x'", {"int": 1}, "string"),
    ],
)
def test_unknown_names_only_the_variables_on_which_the_outcome_depends(source: str, values: dict[str, object], named: str) -> None:
    """The defect: an unrelated branch that nobody measures was named beside the dead sensor."""
    assert compile_expression(source).evaluate(values) == Outcome(Verdict.UNKNOWN, f"no measurement of {named}")


def test_a_failure_names_only_the_missing_variables_that_matter_too() -> None:
    outcome = compile_expression("1 / int(x) > 1 && y < 1 && (c ? z : w) < 1").evaluate({"x": 0, "c": True})
    assert outcome == Outcome(Verdict.UNKNOWN, "the evaluation failed: divide by zero; no measurement of y, z")
    outcome = compile_expression("1 / int(x) > 1 ? y < 1 : z < 1").evaluate({"x": 0})
    assert outcome == Outcome(Verdict.UNKNOWN, "the evaluation failed: divide by zero")
