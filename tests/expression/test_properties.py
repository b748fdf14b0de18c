"""Any text and any expression: compiled or refused in one sentence, evaluated without raising, refused only with reason."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from constraint_crdt.expression import Expression, ExpressionError, Verdict, compile_expression, measurements
from tests.conftest import BUDGET
from tests.expression.cases import VALUES

EXAMPLES = 2000 if BUDGET == "nightly" else 12

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


@pytest.mark.slow
@settings(max_examples=EXAMPLES, deadline=None)
@given(st.text(max_size=2048) | st.lists(st.sampled_from(FRAGMENTS), max_size=60).map("".join), SOME_VALUES)
def test_any_text_is_compiled_or_refused(source: str, values: dict[str, object]) -> None:
    attempt(source, values)


@pytest.mark.long
@settings(max_examples=EXAMPLES, deadline=None)
@given(GENERATED, SOME_VALUES)
def test_any_expression_is_evaluated_or_refused(source: str, values: dict[str, object]) -> None:
    attempt(source, values)
    attempt(f"{source} == x", {**VALUES, **values})


@pytest.mark.slow
@settings(max_examples=EXAMPLES, deadline=None)
@given(GENERATED)
@example("x == b'a'")
def test_what_is_refused_for_its_kinds_never_gives_a_bool_in_the_library(source: str) -> None:
    try:
        compile_expression(source)
    except ExpressionError as error:
        if not re.search("needs a bool|cannot mix|is for ints|does not take|does not work on", str(error)):
            return
        if any(mark in source for mark in ("||", "&&", "?", "all(")):
            return  # the library may decide without the part that cannot work
        if re.search(r"`[=!]=` does not take a measurement and a bytes", str(error)):
            return  # no measurement is bytes, so it would always be the same
        try:
            compiled = compile_expression(source, checked=False)
        except ExpressionError:
            return
        assert compiled.evaluate(VALUES).verdict is Verdict.UNKNOWN


@pytest.mark.slow
@settings(max_examples=EXAMPLES, deadline=None)
@given(GENERATED, SOME_VALUES)
def test_what_is_decided_without_a_variable_stays_decided_with_it(source: str, values: dict[str, object]) -> None:
    """Unknown only when the outcome depends on what is missing: a decided verdict is independent of any missing variable."""
    try:
        compiled = compile_expression(source)
    except ExpressionError:
        return
    whole = compiled.evaluate({**VALUES, **values})
    for name in compiled.variables:
        rest = {each: value for each, value in {**VALUES, **values}.items() if each != name}
        partial = compiled.evaluate(rest)
        if partial.verdict is not Verdict.UNKNOWN and whole.verdict is not Verdict.UNKNOWN:
            assert partial == whole


LOGIC = st.recursive(
    st.sampled_from(
        ["a < 1", "b > 0", "c == 1", "flag", "xs.all(i, i < a)", "xs.exists(i, i > b || i > c)", "a + b < c", "1 / int(c) > 0"]
    ),
    lambda inner: (
        st.tuples(inner, st.sampled_from(["&&", "||", "=="]), inner).map(lambda parts: "({} {} {})".format(*parts))
        | st.tuples(inner, inner, inner).map(lambda parts: "({} ? {} : {})".format(*parts))
        | inner.map("!({})".format)
    ),
    max_leaves=6,
)
NUMBER = st.sampled_from([0, 1, 2])
LOGIC_VALUES: dict[str, st.SearchStrategy[object]] = {
    "a": NUMBER, "b": NUMBER, "c": NUMBER, "flag": st.booleans(), "xs": st.lists(NUMBER, max_size=2)
}  # fmt: skip


def named(reason: str) -> set[str]:
    found = re.search(r"no measurement of ([\w, ]+)", reason)
    return set(found[1].split(", ")) if found else set()


@pytest.mark.slow
@settings(max_examples=2 * EXAMPLES, deadline=None)
@given(LOGIC, st.fixed_dictionaries({}, optional=LOGIC_VALUES), st.fixed_dictionaries(LOGIC_VALUES))
def test_the_variables_that_unknown_names_are_those_on_which_it_depends(
    source: str, values: dict[str, object], others: dict[str, object]
) -> None:
    """While the named variables are missing, no value of another missing variable matters, and no removal of a value decides. With
    values for all that are named, the verdict is decided, or depends on others.
    """
    compiled = compile_expression(source, checked=False)
    outcome = compiled.evaluate(values)
    if outcome.verdict is not Verdict.UNKNOWN:
        return
    missing, deciding = compiled.variables - values.keys(), named(outcome.reason)
    assert deciding <= missing
    assert deciding or "failed" in outcome.reason
    assert compiled.evaluate({**values, **{name: others[name] for name in missing - deciding}}) == outcome
    for name in values:
        without = compiled.evaluate({each: value for each, value in values.items() if each != name})
        assert without.verdict is Verdict.UNKNOWN
    complete = compiled.evaluate({**values, **{name: others[name] for name in deciding}})
    assert not deciding & named(complete.reason)
