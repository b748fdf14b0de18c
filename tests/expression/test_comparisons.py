"""Comparisons with literals, decided without the library: the same trees, outcomes, margins and refusals as by the library."""

import math
from collections.abc import Mapping

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from constraint_crdt.expression import Expression, ExpressionError, Verdict, compile_expression, measurements
from constraint_crdt.expression.cel import TYPE_NAMES, environment
from constraint_crdt.expression.evaluation import _checked, _compilation, _written, parts
from constraint_crdt.expression.syntax import MOST_BRACKETS, MOST_COMPARISONS, Node, decode, read_comparisons
from constraint_crdt.expression.temporal import margin
from tests.conftest import BUDGET

EXAMPLES = 2_000 if BUDGET == "nightly" else 10

NAMES = ["x", "y", "speed_mps", "_b", "E5", "math", "optional", "size", "age", "google", "timestamp", "has", "matches"]
REFUSED_NAMES = ["in", "true", "null", "package", "__measured_x"]
LITERALS = [
    *("1", "-1", "0", "-0", "007", "1.5", "-0.5", ".5", "1e3", "1E-5", "0.0", "-0.0", "1e308", "999999999999999"),
    *("'a'", '"b c"', "''", "'7'", "' \" '"),
]
OTHER_LITERALS = ["1.", "1e999", "0x1f", "5u", "12345678901234567890", "1_0", "'é'", "'''a'''", r"'it\'s'", "b'a'", "true", "null"]
SPACE = st.sampled_from(["", "", " ", "\n", "\t "])
MARK = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])


def texts(names: list[str], literals: list[str]) -> st.SearchStrategy[str]:
    def compared(one: st.SearchStrategy[str], other: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.tuples(SPACE, one, SPACE, MARK, SPACE, other, SPACE).map("".join)

    name, literal = st.sampled_from(names), st.sampled_from(literals)

    def extend(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        joined = st.tuples(st.sampled_from(["&&", "||"]), st.lists(inner, min_size=2, max_size=5)).map(
            lambda each: each[0].join(each[1])
        )
        bracketed = st.tuples(st.sampled_from(["", "!"]), SPACE, inner).map(lambda each: f"{each[0]}({each[1]}{each[2]})")
        return joined | bracketed

    number = st.sampled_from([each for each in literals if each[:1] not in "'\"" or each == "'a'"])
    value = name | number
    sums = st.lists(st.tuples(value, SPACE, st.sampled_from("+-*"), SPACE).map("".join), max_size=3)
    calculated = st.tuples(sums.map("".join), value).map("".join)
    return st.recursive(compared(name, literal) | compared(literal, name) | compared(calculated, calculated), extend, max_leaves=8)


COMPARISONS = texts(NAMES, LITERALS).filter(lambda text: read_comparisons(text) is not None)
VALUE: st.SearchStrategy[object] = st.sampled_from(
    [0.0, -0.0, 1.0, 1.5, 7.0, -1.0, 1e308, float("inf"), float("nan"), 3, True, None, "a", "b c", "", "7", "é", [1.0], {}]
)
VALUES = st.dictionaries(st.sampled_from(NAMES), VALUE)


def shape(node: Node) -> tuple[object, ...]:
    value = (type(node.value), repr(node.value))
    return node.sort, node.name, value, node.member, node.bound, tuple(map(shape, node.nodes))


def by_library(text: str) -> Expression:
    """The expression as the library compiles it."""
    return _compilation(text).expression


def attempt(text: str, kinds: Mapping[str, str], *, library: bool) -> str:
    """The refusal of a text; empty for a text that is taken."""
    try:
        if library:
            _checked(_written(by_library(text), kinds))
        else:
            compile_expression(text, kinds=kinds)
    except ExpressionError as error:
        return str(error)
    return ""


@pytest.mark.slow
@settings(max_examples=EXAMPLES, deadline=None)
@given(texts([*NAMES, *REFUSED_NAMES, "type", "double"], [*LITERALS, *OTHER_LITERALS]))
@example("x < 1 < 2")
@example("!x < 1")
@example("x < 1 && ")
@example("(x < 1")
@example("x < 1)")
@example("x < 1 // so")
@example("x<-1")
@example("x < 1.5.5")
@example("x < 1a")
@example("xé < 1")
def test_the_tree_is_that_of_the_library(text: str) -> None:
    root = read_comparisons(text)
    if root is not None:
        assert shape(root) == shape(decode(environment().parse(text).serialize()).root)
        assert len({node.id for node in root.walk()}) == len(list(root.walk()))


@pytest.mark.long
@settings(max_examples=EXAMPLES, deadline=None)
@given(COMPARISONS, VALUES)
@example("x < 1 && y < 1", {"x": 3.0})
@example("x < 1 || y == 'a'", {"x": 0.5, "y": 1.0})
@example("!(x < 1 || y < 2) && !(speed_mps < 3)", {})
@example("x + 1.5 * y - -0.5 < x * x", {"x": 3.0, "y": 1.5})
@example("x + y < 1.0", {"x": "a"})
@example("x == y", {"x": "a", "y": "a"})
@example("x < 0.5 + 1000.0", {"x": 1000.5})
def test_outcomes_and_margins_are_those_of_the_library(text: str, measured: dict[str, object]) -> None:
    values, mine, other = measurements(measured), compile_expression(text, checked=False), by_library(text)
    assert mine.is_comparisons
    assert not other.is_comparisons
    assert (mine.variables, mine.windows) == (other.variables, other.windows)
    assert mine.evaluate(values) == other.evaluate(values)
    margins = []
    for each in (mine, other):
        parts.cache_clear()  # the two are equal
        margins.append(margin(each, values))
    assert repr(margins[0]) == repr(margins[1])


@pytest.mark.long
@settings(max_examples=EXAMPLES, deadline=None)
@given(COMPARISONS, st.frozensets(st.sampled_from(NAMES)))
def test_what_fails_without_variables_is_that_of_the_library(text: str, missing: frozenset[str]) -> None:
    found = []
    for each in (compile_expression(text, checked=False), by_library(text)):
        parts.cache_clear()
        found.append(each.fails_without(missing))
    assert found[0] == found[1]


@pytest.mark.slow
@settings(max_examples=EXAMPLES, deadline=None)
@given(
    COMPARISONS,
    st.dictionaries(st.sampled_from([*NAMES, "x.a", "y.b"]), st.sampled_from(["double", "string", "bool", "list", "map", "mixed"])),
)
@example("x < 'a'", {"x": "double"})
@example("x < 1", {"x": "double"})
@example("x == 'a'", {"x": "string"})
def test_refusals_are_those_of_the_library(text: str, kinds: dict[str, str]) -> None:
    kinds = {name: kind for name, kind in kinds.items() if kind != "mixed"}
    assert attempt(text, kinds, library=False) == attempt(text, kinds, library=True)


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "x + 1 < 2.0",
        "x / 2.0 < 1.0",
        "-x < 1.0",
        "1.0 < 2.0",
        "x + 'a' == 'b'",
        "xs[0] < 1",
        "robot.speed < 1",
        "x < 1 ? y < 2 : y < 3",
        "x in [1]",
        "",
    ],
)
def test_other_texts_are_left_to_the_library(text: str) -> None:
    assert read_comparisons(text) is None


@pytest.mark.parametrize("name", sorted(TYPE_NAMES))
def test_a_name_of_a_type_is_left_to_the_library(name: str) -> None:
    assert read_comparisons(f"{name} == 'a'") is None


def test_texts_near_a_bound_are_left_to_the_library() -> None:
    assert read_comparisons(" && ".join(["x < 1"] * MOST_COMPARISONS)) is not None
    assert read_comparisons(" && ".join(["x < 1"] * (MOST_COMPARISONS + 1))) is None
    assert read_comparisons("(" * MOST_BRACKETS + "x < 1" + ")" * MOST_BRACKETS) is not None
    assert read_comparisons("(" * (MOST_BRACKETS + 1) + "x < 1" + ")" * (MOST_BRACKETS + 1)) is None
    with pytest.raises(ExpressionError, match="longer than"):
        compile_expression("x < 1" + " " * 2000)


# --- bands ------------------------------------------------------------------------------------------------------------------

comparison = st.builds(
    lambda flipped, name, operator, number: f"{number} {operator} {name}" if flipped else f"{name} {operator} {number}",
    st.booleans(),
    st.sampled_from("xyz"),
    st.sampled_from(["<", "<=", ">", ">=", "=="]),
    st.sampled_from(["-1.5", "0.0", "2", "2.5", "-7", "999999999999999"]),
)


@pytest.mark.slow
@given(st.lists(comparison, min_size=1, max_size=4), st.data())
@settings(max_examples=60)
def test_numbers_within_the_bands_satisfy_and_those_next_to_them_do_not(parts: list[str], data: st.DataObject) -> None:
    expression = compile_expression(" && ".join(parts))
    bands = expression.bands()
    assert bands is not None
    assert bands.keys() == expression.variables
    if any(low > high for low, high in bands.values()):
        return
    values = {name: data.draw(st.floats(low, high, allow_nan=False)) for name, (low, high) in bands.items()}
    assert expression.evaluate(values).verdict is Verdict.SATISFIED
    for name, (low, high) in bands.items():
        for beside in (math.nextafter(low, -math.inf), math.nextafter(high, math.inf), math.nan):
            if not low <= beside <= high:
                assert expression.evaluate(values | {name: beside}).verdict is Verdict.VIOLATED


@pytest.mark.parametrize("text", ["x != 1.0", "x < 1.0 || y < 1.0", "!(x < 1.0)", "x < y", "x + y < 1.0", 'x == "a"'])
def test_other_expressions_have_no_bands(text: str) -> None:
    assert compile_expression(text).bands() is None
