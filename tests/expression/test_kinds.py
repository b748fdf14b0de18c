"""The kinds of variables: a type error that shows with them is refused with its column, and a difference of numbers is none."""

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constraint_crdt.expression import ExpressionError, Verdict, compile_expression
from tests.expression.test_properties import EXAMPLES, GENERATED

KINDS = {"x": "double", "y": "double", "name": "string", "label": "string", "flag": "bool", "xs": "list", "robot": "map"}


@pytest.mark.parametrize(
    ("source", "column", "says"),
    [
        ("x < 'fast'", 3, "`<` cannot compare a double with a string"),
        ("x == 'fast'", 3, "`==` cannot compare a double with a string"),
        ("x == true", 3, "`==` cannot compare a double with a bool"),
        ("x != null", 3, "`!=` cannot compare a double with null"),
        ("x == [1]", 3, "`==` cannot compare a double with a list"),
        ("x < y && x < name", 12, "`<` cannot compare a double with a string"),
        ("name < 3", 6, "`<` cannot compare a string with an int"),
        ("name == 3", 6, "`==` cannot compare a string with an int"),
        ("flag > 1.0", 6, "`>` cannot compare a bool with a double"),
        ("xs < 3", 4, "`<` cannot compare a list with an int"),
        ("robot >= 3", 7, "`>=` cannot compare a map with an int"),
        ("xs == {'a': 1}", 4, "`==` cannot compare a list with a map"),
        ("robot == {1: 1}", 7, "`==` cannot compare a map(string, dyn) with a map(int, int)"),
        ("x + 1 < 3", 3, "`+` cannot mix a double with an int: write `x + 1.0`"),
        ("name + 1.0 < 3.0", 6, "`+` does not work on a string and a double"),
        ("x + 'a' == 'ba'", 3, "`+` does not work on a double and a string"),
        ("x + name < 3.0", 3, "`+` does not work on a double and a string"),
        ("flag + 1.0 < 3.0", 6, "`+` does not work on a bool and a double"),
        ("xs - 1.0 < 3.0", 4, "`-` does not work on a list and a double"),
        ("robot * 2.0 < 3.0", 7, "`*` does not work on a map and a double"),
        ("x / xs < 3.0", 3, "`/` does not work on a double and a list"),
        ("x % 2 == 0", 3, "`%` is for ints, not for a double and an int: write `int(x) % 2`"),
        ("-name < 3", 1, "`-` does not take a string"),
        ("x * 2.0 < 'a'", 9, "`<` cannot compare a double with a string"),
        ("(x + y) < 'a'", 9, "`<` cannot compare a double with a string"),
        ("x.matches('a+')", 10, "`matches` does not take a double and a string"),
        ("xs.startsWith('a')", 14, "`startsWith` does not take a list and a string"),
        ("name.contains(x)", 14, "`contains` does not take a string and a double"),
        ("flag.endsWith('a')", 14, "`endsWith` does not take a bool and a string"),
        ("x.upperAscii() == 'A'", 13, "`upperAscii` does not take a double"),
        ("size(x) < 3", 5, "`size` does not take a double"),
        ("flag.size() < 3", 10, "`size` does not take a bool"),
        ("int(xs) < 3", 4, "`int` does not take a list"),
        ("double(flag) < 3.0", 7, "`double` does not take a bool"),
        ("string(robot) == 'a'", 7, "`string` does not take a map"),
        ("duration(x) < duration('1s')", 9, "`duration` does not take a double"),
        ("math.abs(name) < 3", 9, "`math.abs` does not take a string"),
        ("math.greatest(x, name) < 3.0", 14, "`math.greatest` does not take a double and a string"),
        ("x in ['a']", 3, "a list has no items for `in` that a double could be among"),
        ("name in [1, 2]", 6, "a list has no items for `in` that a string could be among"),
        ("x in y", 3, "a double has no items for `in`"),
        ("'a' in name", 5, "a string has no items for `in`"),
        ("1 in robot", 3, "a map has no items for `in` that an int could be among"),
        ("x in robot", 3, "a map has no items for `in` that a double could be among"),
        ("x[0] < 3", 2, "a double has no items"),
        ("name['a'] < 3", 5, "a string has no items"),
        ("xs['a'] < 3", 3, "a string cannot be an index of a list"),
        ("xs[flag] < 3", 3, "a bool cannot be an index of a list"),
        ("robot[0] < 3", 6, "an int cannot be an index of a map"),
        ("robot[x] < 3", 6, "a double cannot be an index of a map"),
        ("x[?0].orValue(1.0) < 3.0", 2, "a double has no items"),
        ("x.speed < 3", 2, "a double has no fields"),
        ("name.speed.max < 3", 5, "a string has no fields"),
        ("xs.speed < 3", 3, "a list has no fields"),
        ("has(flag.speed)", 4, "a bool has no fields"),
        ("x.?speed.orValue(1.0) < 3.0", 2, "a double has no fields"),
        ("x.all(i, i < 3)", 1, "a double has no items for a macro"),
        ("name.exists(i, i == 'a')", 1, "a string has no items for a macro"),
        ("flag.exists_one(i, i)", 1, "a bool has no items for a macro"),
        ("x.filter(i, i > 1).size() < 3", 1, "a double has no items for a macro"),
        ("flag.map(i, i) == [1]", 1, "a bool has no items for a macro"),
        ("robot.all(key, key < 3)", 20, "`<` cannot compare a string with an int"),
        ("[1].all(i, i < name)", 14, "`<` cannot compare an int with a string"),
        ("xs.all(i, x == 'a' || i < 3)", 13, "`==` cannot compare a double with a string"),
        ("x", 1, "this gives a double, and a constraint needs a bool"),
        ("name", 1, "this gives a string, and a constraint needs a bool"),
        ("xs", 1, "this gives a list, and a constraint needs a bool"),
        ("x + y", 1, "this gives a double, and a constraint needs a bool"),
        ("!x", 1, "`!` does not take a double"),
        ("flag && x", 9, "`x` is a double, which `&&` does not take"),
        ("name || flag", 1, "`name` is a string, which `||` does not take"),
        ("x ? flag : flag", 3, "a double cannot be the condition of `?`"),
        ("flag ? x < 1.0 : name", 6, "the branches of `?` give a bool or a string"),
        ("x < 3 &&\n name < 3", 7, "`<` cannot compare a string with an int"),
    ],
)
def test_a_type_error_that_shows_with_the_kinds_is_refused_with_its_column(source: str, column: int, says: str) -> None:
    with pytest.raises(ExpressionError, match=re.escape(says)) as caught:
        compile_expression(source, kinds=KINDS)
    assert caught.value.column == column
    assert "join two comparisons" not in str(caught.value)


@pytest.mark.parametrize(
    "source",
    [
        "x < 3 && x < 3u && x < 3.0 && 3 > x",
        "x == 1 && x != 1.5",
        "x + 1.0 < 3 && x * y - 2.0 / x >= 3",
        "size(xs) < x && size(name) <= y",
        "int(x) % 2 == 0",
        "math.abs(x) < 3 && math.greatest(x, y, 3.0) < 4",
        "x in [1, 2] && x in [1.0] && x in {1: true} && 1 in xs",
        "xs[0] < 3 && xs[x] < 3 && {1: 7}[x] == 7 && [5, 7][x] == 7",
        "(flag ? x : 0) < 3",
        "optional.of(x).orValue(0) < 3.0",
        "[x] == [1]",
        "[x, 1] == xs",
        "name + 'a' == label && name < label && name == label",
        "name.matches('a+') && name.contains(label) && size(name) < 3 && name in ['a', 'b'] && name in robot",
        "flag && !flag && flag == true && flag < true && (flag ? flag : x < 3)",
        "xs == [1, 'a'] && xs + [1] == xs && size(xs) < 3 && xs.size() < 3",
        "xs.all(i, i < x) && xs.exists(i, i == name) && xs.map(i, i * 2.0) == [2.0] && xs.filter(i, i).size() < 3",
        "robot.speed < 3 && robot['speed'] < x && has(robot.speed) && 'speed' in robot && robot.arm.joints[0] < 1",
        "robot.all(key, key.startsWith('a')) && robot == {'a': 1} && robot.?speed.orValue(1.0) < 3.0",
        "[1].all(x, x < 3)",
        "['a'].all(x, x < 'b')",
        "dyn(name) < 3",
        "type(x) == string",
        "other < 'a' && other.speed < 3",
    ],
)
def test_a_use_that_fits_the_kinds_is_accepted(source: str) -> None:
    assert compile_expression(source, kinds=KINDS) == compile_expression(source)


def test_each_error_but_those_of_numbers_is_looked_at() -> None:
    with pytest.raises(ExpressionError, match="column 48: `<` cannot compare a map"):
        compile_expression(
            "size(xs) < x && xs[x] < y || name < y && robot < y", kinds={"xs": "list", "x": "double", "robot": "map"}
        )


@pytest.mark.parametrize("kind", ["null", "int", "", "unknown"])
def test_a_kind_that_is_none_of_a_measurement_is_ignored(kind: str) -> None:
    assert compile_expression("x < 'a'", kinds={"x": kind}).variables == {"x"}


def test_the_kind_of_a_variable_that_has_the_name_of_a_type() -> None:
    with pytest.raises(ExpressionError, match="column 6: `==` cannot compare a string with an int"):
        compile_expression("type == 3", kinds={"type": "string"})
    assert compile_expression("type(x) == double", kinds={"type": "string", "double": "bool", "x": "string"})


def test_the_kind_of_a_name_with_points() -> None:
    kinds = {"robot.speed": "double", "robot.arm.name": "string"}
    with pytest.raises(ExpressionError, match="column 13: `<` cannot compare a double with a string"):
        compile_expression("robot.speed < 'a'", kinds=kinds)
    with pytest.raises(ExpressionError, match="column 16: `<` cannot compare a string with an int"):
        compile_expression("robot.arm.name < 3", kinds=kinds)
    for source in ("robot.speed < 3 && robot.other < 'a'", "has(robot.speed)", "has(robot.speed) && robot.speed < 3"):
        assert compile_expression(source, kinds=kinds)
        assert compile_expression(source, kinds=kinds | {"robot": "map"})
        assert compile_expression(source, kinds=kinds | {"robot": "double"})


def test_the_same_text_is_checked_against_other_kinds_again() -> None:
    for _ in range(2):
        assert compile_expression("x < 'a'", kinds={"x": "string", "y": "double"})
        with pytest.raises(ExpressionError):
            compile_expression("x < 'a'", kinds={"x": "double"})
        assert compile_expression("x < 'a'")


VALUES: dict[str, st.SearchStrategy[object]] = {
    "double": st.sampled_from([0.0, 1.0, 2.5, -1.0, math.nan]),
    "string": st.sampled_from(["", "a", "1"]),
    "bool": st.booleans(),
    "list": st.lists(st.sampled_from([1.0, "a", True]), max_size=2),
    "map": st.dictionaries(st.sampled_from(["speed", "arm", "a"]), st.sampled_from([1.0, "a"]), max_size=2),
}
NAMES = ("x", "y", "flag", "name", "xs", "robot", "double")


@pytest.mark.slow
@settings(max_examples=EXAMPLES, deadline=None)
@given(GENERATED, st.fixed_dictionaries({name: st.sampled_from(list(VALUES)) for name in NAMES}), st.data())
def test_what_is_refused_for_the_kinds_of_variables_is_never_decided(
    source: str, kinds: dict[str, str], data: st.DataObject
) -> None:
    """But by logic that absorbs the part that fails, or by a comparison of types, which is the same for all values."""
    try:
        compile_expression(source)
    except ExpressionError:
        return
    try:
        compile_expression(source, kinds=kinds)
    except ExpressionError as error:
        refused = error
    else:
        return
    assert refused.column
    if any(mark in source for mark in ("||", "&&", "?", "all(", "==", "!=", " in ")):
        return
    values = {name: data.draw(VALUES[kind]) for name, kind in kinds.items()}
    assert compile_expression(source, checked=False).evaluate(values).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("source", "column", "says"),
    [
        ("x < 1 || x", 10, "`x` is a double, which `||` does not take"),
        ("x > 1 ? x : false", 7, "the branches of `?` give a double or a bool"),
        ("!(x < 1 || name)", 12, "`name` is a string, which `||` does not take"),
        ("last('x') < 'a'", 11, "`<` does not take a double and a string"),
        ("last('name') < 5", 14, "`<` does not take a string and an int"),
        ("-last('name') < 1", 1, "`-` does not take a string"),
        ("last('name') == last('x')", 14, "`==` does not take a string and a double"),
    ],
)
def test_a_refusal_beside_a_difference_of_numbers_names_the_fault(source: str, column: int, says: str) -> None:
    """The defects: a comparison of numbers was called `*error*`, and a sample was taken for any kind."""
    with pytest.raises(ExpressionError) as refused:
        compile_expression(source, kinds=KINDS)
    assert refused.value.column == column
    assert str(refused.value).startswith(f"column {column}: {says}")


@pytest.mark.parametrize(
    "source", ["(x < 1 ? x : size(xs)) > 1", "last('x') < 5", "last('xs')[0] < 'a'", "last('robot').speed < 5"]
)
def test_kinds_refuse_nothing_that_can_be_decided(source: str) -> None:
    compile_expression(source, kinds=KINDS)
