"""Constraint expressions: what is taken, what is refused and where, and what an evaluation says."""

import math
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constraint_crdt import expression
from constraint_crdt.expression import (
    MAX_DEPTH,
    MAX_EXPRESSION_BYTES,
    Expression,
    ExpressionError,
    Outcome,
    Verdict,
    compile_expression,
    measurements,
)

VALUES: dict[str, object] = {
    "x": 7,
    "y": 2.5,
    "flag": True,
    "name": "forge-é",
    "xs": [1, 2.0, [3]],
    "robot": {"speed": 1, "all": 2, "arm": {"joints": [1, 2]}},
}


def verdict(source: str, values: dict[str, object] = VALUES) -> Verdict:
    return compile_expression(source).evaluate(values).verdict


def refusal(source: str) -> ExpressionError:
    with pytest.raises(ExpressionError) as caught:
        compile_expression(source)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return caught.value


@pytest.mark.parametrize(
    "source",
    [
        "x < 85",
        "x < 85.0",
        "x == 7",
        "x in [7, 8]",
        "x >= 3u",
        "-x < 0",
        "x < 2 * 3 + 0x10",
        "x * 2.0 + 1.0 == 15.0",
        "int(x) % 2 == 1",
        "size(xs) * 2 == 6",
        "name.size() > 3 && name.startsWith('forge') && name.contains('ge-')",
        "2u * 2u < x",
        "xs[0] < 1.5 && xs[2][0] == 3.0",
        "robot.speed <= 1.5 && robot['speed'] == 1.0",
        "has(robot.speed) && !has(robot.wheels)",
        "robot.all == 2",
        "robot.arm.joints[1] * 2.0 == 4.0",
        "name != '.all(' && name != \"x.map(y, y)\" && name != '''a\n'b' ''' && name != r'\\d' // .all(",
        "flag ? x < 8 : false",
        "type(x) == double && type(name) == string",
        "b'a' == b'a' && bytes('a') == b'a'",
        "timestamp('2020-01-01T00:00:00Z').getFullYear() == 2020",
        "duration('90s') > duration('1m')",
        "{'limit': 3, 'other': 4,}['limit'] * 2 == 6",
        "[1, 2, 3][2] * 2 == 6",
        "name.matches('^forge-.')",
        "!name.matches(r'^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$')",
        "true",
        " \t\r\n x<8 // fine",
    ],
)
def test_a_true_expression_is_satisfied_and_its_negation_violated(source: str) -> None:
    assert compile_expression(source).evaluate(VALUES) == Outcome(Verdict.SATISFIED, "")
    assert compile_expression(f"!({source}\n)").evaluate(VALUES) == Outcome(Verdict.VIOLATED, "")


@pytest.mark.parametrize(
    ("source", "column", "says"),
    [
        ("", 1, "ends where a value is needed"),
        ("x < ", 5, "ends where a value is needed"),
        ("(x < 3", 7, "`)` is needed"),
        ("x < 3)", 6, "stands where an operator is needed"),
        ("name == 'abc", 9, "not closed"),
        ("name == '\\q'", 9, "token recognition error"),
        ("x = 3", 3, "write `==`"),
        ("x < 3 and flag", 7, "write `&&`"),
        ("not flag", 1, "write `!`"),
        ("'é' == name # 3", 13, "'#' is not CEL"),
        ("x < 9223372036854775808", 5, "invalid int"),
        ("if < 3", 1, "reserved"),
        ("has(x)", 5, "invalid argument"),
        ("robot.?speed < 3.0", 7, "name of a field"),
        ("limit(x)", 1, "no function `limit`"),
        ("x < 3 || x.abs() < 3", 12, "no method `abs`"),
        ("contains(name, 'a')", 1, "is a method"),
        ("x.int() < 3", 3, "write `int(x)`"),
        ("size(x, 1) < 3", 1, "takes 1 argument, not 2"),
        ("name.contains()", 6, "takes 1 argument, not 0"),
        ("size(1) < 3", 6, "which is an int"),
        ("1 + 1", 1, "needs a bool"),
        ('"a"', 1, "this gives a string"),
        ("x + y", 1, "needs a bool"),
        ("flag ? 1 : 'a'", 1, "an int or a string"),
        ("1 < x < 3", 7, "cannot compare a bool with an int"),
        ("flag && size(name)", 9, "which is an int"),
        ("1 / 0 < 2", 1, "division by zero"),
        ("xs[0.0] < 3", 4, "which is a double"),
        ("name.matches('(')", 14, "unclosed group"),
        ("name.matches(name)", 14, "string literal"),
        ("name.matches('a' + 'b')", 14, "string literal"),
        ("name.matches('\\d')", 14, "escape"),
        (r"name.matches(r'((\w{0,99}){0,99}){0,99}')", 14, "too costly"),
        ("name.matches('a\\x7b9999}')", 14, "too costly"),
    ],
)
def test_a_wrong_expression_is_refused_with_its_column(source: str, column: int, says: str) -> None:
    error = refusal(source)
    assert says in str(error)
    assert error.column == column
    assert str(error).startswith(f"column {column}: ")


def test_a_mistake_on_a_later_line_names_the_line_and_the_column_in_it() -> None:
    error = refusal("x < 3 &&\n  y <")
    assert str(error).startswith("line 2, column 6: ")
    assert error.column == 6


@pytest.mark.parametrize(
    ("source", "column", "fix"),
    [
        ("x * 2 < 3", 3, "x * 2.0"),
        ("2 + x < 3", 3, "2.0 + x"),
        ("-1 * x < 3", 4, "-1.0 * x"),
        ("y < 1.0 && (x - 3) / y > 1.0", 15, "x - 3.0"),
        ("robot.arm.joints[0] * 2 < 3", 21, "robot.arm.joints[0] * 2.0"),
        ("x + 2u < 3", 3, "x + 2.0"),
        ("2 * 3 * x < 3", 7, "double(2 * 3) * x"),
        ("size(name) * x < 3", 12, "double(size(name)) * x"),
        ("size(name) * 2.0 < 3", 12, "double(size(name)) * 2.0"),
        ("x * 0x10 < 3", 3, "x * double(0x10)"),
        ("1 + 2u < 3", 3, "1 + int(2u)"),
        ("x % 2 == 0", 3, "int(x) % 2"),
    ],
)
def test_arithmetic_of_a_measurement_with_an_int_is_refused_with_a_fix_that_works(source: str, column: int, fix: str) -> None:
    error = refusal(source)
    assert error.column == column
    assert f"write `{fix}`" in str(error)
    assert compile_expression(f"{fix} != 12345").evaluate(VALUES).verdict is Verdict.SATISFIED


@pytest.mark.parametrize("macro", ["all", "exists", "exists_one", "existsOne", "map", "filter"])
@pytest.mark.parametrize("form", ["xs.{}(i, i < 3)", "xs\n .  {} // (\n (i, i < 3)", "!!(xs.{}(i, xs.{}(j, i < j)))"])
def test_a_comprehension_macro_is_refused_however_it_is_written(macro: str, form: str) -> None:
    error = refusal(form.replace("{}", macro))
    assert f"`{macro}` loops" in str(error)


def test_the_limit_is_in_bytes() -> None:
    fits = "name == '" + "é" * ((MAX_EXPRESSION_BYTES - 10) // 2) + "'"
    assert len(fits.encode()) == MAX_EXPRESSION_BYTES
    assert verdict(fits) is Verdict.VIOLATED
    assert "longer than 1024 bytes" in str(refusal(fits + " "))
    assert "Unicode" in str(refusal("name == '\ud800'"))


def test_variables_are_the_top_level_names() -> None:
    compiled = compile_expression("robot.speed < limit && has(other.x) && type(x) == double && xs[i] == 'a.b'")
    assert compiled.variables == {"robot", "limit", "other", "x", "xs", "i"}


def test_a_missing_variable_makes_it_unknown_even_where_the_rest_would_decide() -> None:
    compiled = compile_expression("true || gpu_temp_c < fan_max || x < 3")
    assert compiled.evaluate({"x": 1}) == Outcome(Verdict.UNKNOWN, "no measurement of fan_max, gpu_temp_c")
    assert compiled.evaluate({"x": 1, "gpu_temp_c": 1, "fan_max": 1}).verdict is Verdict.SATISFIED


def test_values_that_are_no_measurement_make_it_unknown_and_say_why() -> None:
    compiled = compile_expression("x < 3")
    deep: list[object] = []
    deep.append(deep)
    for value, reason in [
        (math.nan, "x is not a number (NaN)"),
        ([1, {"a": math.nan}], "x contains NaN, which is not a number"),
        (10**400, "x is too large for a double"),
        (None, "x has a value of type NoneType, which is not measurable"),
        (deep, "x is nested more than 16 deep"),
        ({1: 2}, "x has a key that is not text"),
        ("\ud800", "x is not valid text"),
    ]:
        assert compiled.evaluate({"x": value}) == Outcome(Verdict.UNKNOWN, reason)
    both = compile_expression("x < 3 && y < 3").evaluate({"y": math.nan})
    assert both == Outcome(Verdict.UNKNOWN, "no measurement of x; y is not a number (NaN)")


def test_infinities_are_values() -> None:
    assert verdict("x < 3", {"x": math.inf}) is Verdict.VIOLATED
    assert verdict("x < 3", {"x": -math.inf}) is Verdict.SATISFIED


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("x", "not a bool but of type float"),
        ("robot.wheels < 3", "no field wheels"),
        ("xs[9] < 3", "out of bounds"),
        ("x < 'a'", "does not take the kind of value measured"),
        ("size(x) < 3", "`size` does not take"),
        ("1 / int(x - 7.0) < 3", "division by zero"),
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
    assert set(prepared) == set(VALUES)
    assert len(prepared) == len(VALUES)
    for source in ("x < 8", "x > 8", "broken < 1", "missing < 1", "type(x) == double"):
        compiled = compile_expression(source)
        raw = {**VALUES, "broken": math.nan}
        assert compiled.evaluate(prepared) == compiled.evaluate(raw)


def test_prepared_measurements_can_be_shared_between_threads() -> None:
    prepared, compiled = measurements(VALUES), compile_expression("x < 8")
    outcomes: list[Outcome] = []
    threads = [threading.Thread(target=lambda: outcomes.append(compiled.evaluate(prepared))) for _ in range(4)]
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


def raising(error: BaseException) -> Callable[..., Any]:
    def act(*_: object) -> None:
        raise error

    return act


class PanicException(BaseException):
    """The name and the base with which a Rust panic reaches Python."""


def test_a_panic_of_the_library_does_not_get_out_and_an_interrupt_does(monkeypatch: pytest.MonkeyPatch) -> None:
    import cel

    panicking = Expression("x < 1", frozenset({"x"}), raising(PanicException("index out of range")))
    outcome = panicking.evaluate({"x": 1})
    assert outcome == Outcome(Verdict.UNKNOWN, "the evaluation failed: index out of range")
    with pytest.raises(KeyboardInterrupt):
        Expression("x < 1", frozenset({"x"}), raising(KeyboardInterrupt())).evaluate({"x": 1})
    monkeypatch.setattr(cel, "compile", raising(PanicException("boom")))
    assert "not CEL" in str(refusal("panics_when_compiled < 1"))


def test_readings_that_differ_from_the_library_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expression, "_hand_to_library", lambda _: (raising(AssertionError()), frozenset({"other"})))
    assert "ambiguous" in str(refusal("read_differently < 1"))


def isolated(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_module_does_not_load_the_library() -> None:
    assert isolated("import constraint_crdt.expression, sys; print('cel' in sys.modules)").strip() == "False"


# What is just within the limits; one level more of each is tested to be refused below.
DEEP = [
    ("(", "flag", ")"),
    ("[", "1", "]"),
    ("{1: ", "1", "}"),
    ("int(", "x", ")"),
    ("x[", "0", "]"),
    ("-", "x", ""),
    ("", "x", ".a"),
    ("", "x", "[0]"),
    ("x + ", "x", ""),
    ("flag == ", "flag", ""),
    ("flag ? x < 1 : ", "flag", ""),
    ("(", "flag", " ? flag : flag)"),
]


def nested(shape: tuple[str, str, str], levels: int) -> str:
    before, middle, after = shape
    return f"xs == [{before * levels}{middle}{after * levels}]"


@pytest.mark.parametrize("shape", DEEP)
def test_deep_nesting_is_refused(shape: tuple[str, str, str]) -> None:
    levels = (MAX_EXPRESSION_BYTES - 20) // len(shape[0] + shape[2])
    assert f"more than {MAX_DEPTH} deep" in str(refusal(nested(shape, levels)))


def test_what_the_limits_allow_does_not_overflow_a_small_stack() -> None:
    sources = [nested(shape, levels) for shape in DEEP for levels in range(MAX_DEPTH - 6, MAX_DEPTH + 2)]
    sources += ["(" * 30 + "||".join(["x<1"] * 190) + ")" * 30, f"x in [{','.join('1' * 500)}]"]
    code = f"""
import threading
from constraint_crdt.expression import ExpressionError, compile_expression
taken = []
def run():
    for source in {sources!r}:
        try:
            compile_expression(source).evaluate({{"x": 1, "flag": True, "xs": []}})
        except ExpressionError:
            continue
        taken.append(source)
threading.stack_size(256 * 1024)
thread = threading.Thread(target=run)
thread.start()
thread.join()
print(len(taken))
"""
    assert int(isolated(code)) > len(DEEP)


def test_costly_looking_expressions_are_quick() -> None:
    def longest(item: str, joint: str) -> str:
        return joint.join([item] * ((MAX_EXPRESSION_BYTES + len(joint)) // len(item + joint)))

    sources = [
        longest("x<1", "||"),
        longest("flag&&flag", "||"),
        longest("name.matches('(a*)*b')", "||"),
        longest("name.matches(r'\\w{20}')", "||"),
        "name.matches('" + "(a*)*" * 200 + "b')",
        "name == " + "+".join(["'aaaa'"] * (MAX_DEPTH - 1)),
    ]
    code = f"""
import time
from constraint_crdt.expression import ExpressionError, compile_expression, measurements
values = measurements({{"x": 1, "flag": True, "name": "a" * 10_000}})
compile_expression("x < 1").evaluate(values)
begun = time.process_time()
for source in {sources!r}:
    try:
        compile_expression(source).evaluate(values)
    except ExpressionError as error:
        assert "costly" in str(error), error
print(time.process_time() - begun)
"""
    assert float(isolated(code)) < 1.0  # measured 0.05 s; what is not bounded takes many seconds


# --- properties -------------------------------------------------------------------------------------------------------

FRAGMENTS = [
    *"()[]{}.,:?!<>+-*/%=&|'\"\\ \n0123ux\x00é",
    *("x", "y", "flag", "name", "xs", "robot", ".speed", "true", "null", "in", "&&", "||", "==", "<=", "1.5", "2u"),
    *("size(", ".size()", "has(", "int(", ".matches('", "r'", "b'", "'''", "//", ".all(i,", "type(", "duration('1s')"),
]
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
SOME_VALUES = st.dictionaries(st.sampled_from([*VALUES, "double", "all"]), VALUE)


def extend(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    operator = st.sampled_from(["+", "-", "*", "/", "%", "<", ">=", "==", "!=", "in", "&&", "||"])
    method = st.sampled_from([".size()", ".speed", "[0]", ".contains('a')", ".matches('a+')", ".getHours()", ".all(i, i)"])
    function = st.sampled_from(["size", "int", "uint", "double", "string", "type", "dyn", "has", "duration", "nothing"])
    return (
        st.tuples(inner, operator, inner).map(" ".join)
        | inner.map("({})".format)
        | inner.map("!{}".format)
        | inner.map("-{}".format)
        | inner.map("[{}, 1]".format)
        | inner.map("{{'a': {}}}".format)
        | st.tuples(inner, method).map("".join)
        | st.tuples(function, inner).map(lambda call: f"{call[0]}({call[1]})")
        | st.tuples(inner, inner, inner).map(lambda parts: "({} ? {} : {})".format(*parts))
    )


GENERATED = st.recursive(
    st.sampled_from([*VALUES, "1", "2u", "0x1f", "1.5", "'a'", "b'a'", "r'\\d'", "true", "null", "double", "robot.arm"]),
    extend,
    max_leaves=8,
)


def attempt(source: str, values: dict[str, object]) -> None:
    compiled: Expression | ExpressionError
    try:
        compiled = compile_expression(source)
    except ExpressionError as error:
        compiled = error
    if isinstance(compiled, ExpressionError):
        assert str(compiled)
        assert "\n" not in str(compiled)
        assert compiled.column is None or 1 <= compiled.column <= len(source) + 1
        return
    for outcome in (compiled.evaluate(values), compiled.evaluate(measurements(values))):
        assert (outcome.verdict is Verdict.UNKNOWN) == bool(outcome.reason)
        assert "\n" not in outcome.reason
    if not compiled.variables <= values.keys():
        assert outcome.verdict is Verdict.UNKNOWN


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=2048) | st.lists(st.sampled_from(FRAGMENTS), max_size=60).map("".join), SOME_VALUES)
def test_any_text_is_compiled_or_refused(source: str, values: dict[str, object]) -> None:
    attempt(source, values)


@settings(max_examples=300, deadline=None)
@given(GENERATED, SOME_VALUES)
def test_any_expression_is_evaluated_or_refused(source: str, values: dict[str, object]) -> None:
    attempt(source, values)
    attempt(f"{source} == x", {**VALUES, **values})


@settings(max_examples=300, deadline=None)
@given(GENERATED)
def test_what_is_refused_for_its_kinds_never_gives_a_bool_in_the_library(source: str) -> None:
    import cel

    try:
        compile_expression(source)
    except ExpressionError as error:
        if not re.search("needs a bool|which is|mixes kinds|is for ints|does not work on|cannot compare", str(error)):
            return
        if any(mark in source.replace(" - ", "") for mark in ("||", "&&", "?", "-", "!!")):
            return  # the library may decide without the part that cannot work; it negates a bool, and drops double signs
        try:
            result = cel.evaluate(source, dict(measurements(VALUES)))
        except (ValueError, TypeError, RuntimeError, LookupError, ArithmeticError):
            return
        assert not isinstance(result, bool)
