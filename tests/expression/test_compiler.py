"""Compiling an expression: what is taken, and what is refused, where and in which words."""

import pytest

from constraint_crdt.expression import MAX_EXPRESSION_BYTES, Outcome, Verdict, compile_expression, evaluation
from constraint_crdt.expression.evaluation import is_known
from constraint_crdt.expression.syntax import Tree
from tests.expression.cases import VALUES, refusal


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
        ("", 1, "is empty"),
        ("x < ", 5, "the expression ends where more is needed"),
        ("(x < 3", 7, "the expression ends where `)` is needed"),
        ("size(x", 7, "the expression ends where `)` is needed"),
        ("[1", 3, "the expression ends where more is needed"),
        ("x < 3)", 6, "`)` does not fit here"),
        ("name == 'abc", 9, "not closed"),
        ("name == '\\q'", 9, "write `\\\\` for a backslash"),
        ("x = 3", 3, "write `==`"),
        ("x => 3", 3, "write `>=`"),
        ("x <> 3", 3, "write `!=`"),
        ("x ≤ 3", 3, "write `<=`"),
        ("x ** 2.0 < 3", 3, "write `x * x`"),
        ("name == “a”", 9, 'write `"`'),
        ("x\x07 < 3", 2, "`\\x07` is not CEL"),
        ("x < 85C", 5, "`85C` is not a number"),
        ("x < 85.", 5, "write `85.0`"),
        ("x < 3 and flag", 7, "write `&&`"),
        ("not flag", 1, "write `!(...)`"),
        ("x not in xs", 3, "write `!(...)`"),
        ("'é' == name # 3", 13, "`#` is not CEL"),
        ("x < 9223372036854775808", 5, "does not fit 64 bits"),
        ("if < 3", 1, "reserved"),
        ("x < 1e999", 5, "too large for a double"),
        ("has(x)", 5, "needs a field"),
        ("robot.?speed < 3.0", 14, "cannot compare an optional with a double"),
        ("limit(x)", 1, "no function `limit`"),
        ("x < 3 || x.abs() < 3", 12, "no method `abs`"),
        ("name.startswith('f')", 6, "write `startsWith`"),
        ("contains(name, 'a')", 1, "is a method"),
        ("x.int() < 3", 3, "write `int(x)`"),
        ("size(x, 1) < 3", 1, "`size` does not take 2 arguments"),
        ("name.contains()", 6, "`contains` does not take 0 arguments"),
        ("size(1) < 3", 5, "`size` does not take an int"),
        ("1[0] < 3", 2, "an int has no items"),
        ("y + 1.0 ? flag : flag", 9, "a double cannot be the condition"),
        ("size(name).a < 3", 11, "an int has no fields"),
        ("1 + 1", 1, "needs a bool"),
        ('"a"', 1, "this gives a string"),
        ("x + y * 2.0", 1, "needs a bool"),
        ("flag ? 1 : 'a'", 6, "an int or a string"),
        ("1 < x < 3", 7, "cannot compare a bool with an int: join two comparisons with `&&`"),
        ("!x < 3", 4, "write `!(...)` around the comparison"),
        ("flag && size(name)", 9, "`size(name)` is an int, which `&&` does not take"),
        ("1 / 0 < 2", 1, "`1 / 0` fails: divide by zero"),
        ("int('a') < 2", 1, "`int('a')` fails"),
        ("[1][1] < 3", 1, "names no measurement, and the evaluation failed: item 1 is out of bounds of 1"),
        ("xs.map(i, i * 2.0) == [2, 4, 6]", 20, "cannot compare a list(double) with a list(int)"),
        ("duration('1h 30m') > duration('1s')", 1, "`duration('1h 30m')` fails"),
        ("x < 1 && timestamp('now') == timestamp('then')", 10, "`timestamp('now')` fails"),
        ("-true", 1, "does not take a bool"),
        ("name == 'a' && size(name) == 'b'", 27, "cannot compare an int with a string"),
        ("xs.map(i, i * 2.0)", 1, "this gives a list"),
        ("xs.existsOne(i, i < 3)", 4, "write `exists_one`"),
        ("google.protobuf.Duration{} == x", 1, "is a message"),
        ("name.replace('a', name) == 'a'", 19, "string literal"),
        ("name.replace('a', 'bbbbbbbb').replace('b', 'cccccccc') == 'a'", 1, "64 times as long"),
        ("x > timestamp('2020-01-01T00:00:00Z')", 3, "`>` does not take a measurement and a timestamp"),
        ("x > duration('1h')", 3, "`>` does not take a measurement and a duration"),
        ("x - duration('1h') > x", 3, "`-` does not take a measurement and a duration"),
        ("x < null", 3, "`<` does not take a measurement and null"),
        ("x.getFullYear() == 2020", 14, "`getFullYear` does not take a measurement"),
        ("name.matches('(')", 14, "missing ): ("),
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
        ("(1+2) * x < 3", 7, "double(1 + 2) * x"),
        ("-(1) * x < 3", 6, "double(-1) * x"),
        ("2 // two\n* x < 3", 1, "2.0 * x"),
        ("size('''\n''') * x < 3", 6, "double(size('\\n')) * x"),
        ("size(name) * 2.0 < 3", 12, "double(size(name)) * 2.0"),
        ("x * 0x10 < 3", 3, "x * 16.0"),
        ("1 + 2u < 3", 3, "1 + int(2u)"),
        ("x % 2 == 0", 3, "int(x) % 2"),
        ("x % y == 0", 3, "int(x) % int(y)"),
        ("robot.arm.joints.exists(i, x > i * 2)", 34, "i * 2.0"),
        ("math.bitAnd(x, 1) == 1", 12, "math.bitAnd(int(x), 1)"),
        ("name.substring(x) == 'a'", 15, "name.substring(int(x))"),
        ("size(name) < x * 2.0", 12, "double(size(name)) < x * 2.0"),
        ("(flag ? x : y) * 2 < 3", 16, "(flag ? x : y) * 2.0"),
        ("(flag ? x : 1) * 2.0 < 3", 16, "(flag ? x : 1.0) * 2.0"),
        ("(flag ? 1 : x) * y < 3", 16, "(flag ? 1.0 : x) * y"),
        ("(flag ? (flag ? x : 1) : size(name)) + 1u < 3", 38, "(flag ? (flag ? x : 1.0) : double(size(name))) + 1.0"),
        ("(flag ? x : 1) % 2 == 0", 16, "int(flag ? x : 1) % 2"),
        ("(flag ? x : y) % 2 == 0", 16, "int(flag ? x : y) % 2"),
        ("robot.?wheels.orValue(0) * 2.0 < 3", 26, "robot.?wheels.orValue(0.0) * 2.0"),
        ("robot.?speed.orValue(4.0) * 2 < 3", 27, "robot.?speed.orValue(4.0) * 2.0"),
        ("xs[?9].orValue(0) * 2 < 3", 19, "xs[?9].orValue(0.0) * 2.0"),
        ("optional.of(x).value() * 2 < 3", 24, "optional.of(x).value() * 2.0"),
        ("math.abs(x) * 2 < 3", 13, "math.abs(x) * 2.0"),
        ("math.greatest(x, 3) * 2.0 < 3", 21, "math.greatest(x, 3.0) * 2.0"),
        ("math.least([x, y]) * 2 < 3", 20, "math.least([x, y]) * 2.0"),
        ("[x, 1][0] * 2.0 < 3", 11, "[x, 1.0][0] * 2.0"),
        ("x * math.greatest(1, 2) < 3", 3, "x * double(math.greatest(1, 2))"),
        ("xs.all(i, (i > 1 ? i : 0) * 2.0 < 3)", 27, "(i > 1 ? i : 0.0) * 2.0"),
    ],
)
def test_arithmetic_of_a_measurement_with_an_int_is_refused_with_a_fix_that_works(source: str, column: int, fix: str) -> None:
    error = refusal(source)
    assert error.column == column
    assert f"write `{fix}`" in str(error)
    values = {**VALUES, "name": "forge-elm", "i": 1}
    assert compile_expression(f"dyn({fix}) != 12345").evaluate(values).verdict is Verdict.SATISFIED


@pytest.mark.parametrize(
    "source",
    [
        "xs.all(i, i < 8)",
        "xs.exists(i, i == 2)",
        "xs.exists_one(i, i * 2.0 == 4)",
        "xs.map(i, i * 2.0) == [2.0, 4.0, 6.0]",
        "xs.filter(i, i > 1).size() == 2",
        "xs.all(i, xs.exists(j, i == j))",
        "robot.arm.joints.all(i, i > 0)",
        "['a', 'b'].exists(i, name.contains(i)) == false",
        "math.abs(-x) == 7 && math.greatest(x, y) > 6 && math.round(y) == 3.0",
        "name.charAt(0) == 'f' && name.upperAscii().startsWith('FORGE') && '%s!'.format([name]).endsWith('!')",
        "(flag ? x : 1) == 7 && robot.?wheels.orValue(0) < 1 && math.greatest(x, 3) > 3",
        "(flag ? x : 1.0) * 2.0 == 14 && (flag ? 1 : 2) * 2 == 2 && math.greatest(size(name), 1) * 2 > 2",
        "(flag ? name : 'a') + 'b' != 'ab' && math.greatest(y, 3.0) * 2.0 > 5 && robot.?wheels.orValue(0.5) + x > 7",
        "robot.?speed.orValue(9.0) == 1 && robot.?wheels.orValue(4.0) == 4 && xs[?9].orValue(0.0) == 0",
    ],
)
def test_macros_and_extensions_are_on(source: str) -> None:
    values = {**VALUES, "xs": [1, 2.0, 3]}
    assert compile_expression(source).evaluate(values) == Outcome(Verdict.SATISFIED, "")


def test_the_limit_is_in_bytes() -> None:
    fits = "name == '" + "é" * ((MAX_EXPRESSION_BYTES - 10) // 2) + "'"
    assert len(fits.encode()) == MAX_EXPRESSION_BYTES
    assert compile_expression(fits).evaluate(VALUES).verdict is Verdict.VIOLATED
    assert "longer than 1024 bytes" in str(refusal(fits + " "))
    assert "Unicode" in str(refusal("name == '\ud800'"))


def test_variables_are_the_top_level_names() -> None:
    compiled = compile_expression("robot.speed < limit && has(other.x) && type(x) == double && xs[i] == 'a.b'")
    assert compiled.variables == {"robot", "limit", "other", "x", "xs", "i"}


@pytest.mark.parametrize(
    ("source", "column", "says"),
    [
        ("x in {2.5: 1}", 7, "the keys of a map are texts, bools and ints, and this is a double"),
        ("{'a': 1, null: 2} == y", 10, "the keys of a map are texts, bools and ints, and this is null"),
        ("{1: true}[x - 1.0]", 10, "a double cannot be an index of a map: write `dyn(x - 1.0)`"),
        ("[true, false][x * 2.0]", 14, "a double cannot be an index of a list: write `dyn(x * 2.0)`"),
        ("(x - 1.0) in [1]", 11, "a list has no items for `in` that a double could be among: write `dyn(x - 1.0)`"),
        ("'a' in [1]", 5, "a list has no items for `in` that a string could be among"),
    ],
)
def test_what_no_place_of_a_list_or_map_can_be_is_refused(source: str, column: int, says: str) -> None:
    """The defects: a map with doubles as keys was added and never decided. A computed number was refused without the fix."""
    error = refusal(source)
    assert (error.column, str(error)) == (column, f"column {column}: {says}")


def test_the_fix_for_a_computed_place_works() -> None:
    assert compile_expression("{1: true}[dyn(x - 1.0)] && dyn(x - 1.0) in [1]").evaluate({"x": 2}).verdict is Verdict.SATISFIED


def test_a_check_is_known_once_it_was_made_with_the_same_kinds() -> None:
    text, kinds = "known_once in [1.0, 2.0]", {"known_once": "double", "other": "string"}
    assert not is_known(text)
    compile_expression(text, checked=False)
    assert not is_known(text), "compiled as in force, without the check"
    compile_expression(text)
    assert is_known(text)
    assert not is_known(text, kinds)
    compile_expression(text, kinds=kinds)
    assert is_known(text, {**kinds, "further": "bool"})
    assert is_known("never_seen < 3.0 && other == 'a'", kinds)
    assert is_known(None)
    assert is_known("x" * 10_000), "refused at once"


def test_an_expression_is_compiled_once_for_its_check_and_its_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    check = evaluation._type_checked

    def counted(source: str, tree: Tree) -> object:
        compiled.append(source)
        return check(source, tree)

    monkeypatch.setattr(evaluation, "_type_checked", counted)
    for text in ("once_only in [2.0]", "once_only < 2.0"):
        assert compile_expression(text) is compile_expression(text, checked=False)
    assert compiled == ["once_only in [2.0]"]


def test_no_more_expressions_are_kept_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "COMPILED_EXPRESSIONS_KEPT", 3)
    made: list[int] = []

    def make(key: int) -> str:
        made.append(key)
        return str(key)

    cache = evaluation._Cache(make)
    for key in (1, 2, 3, 1, 4):
        assert cache(key) == str(key)
    assert [cache.kept(key) for key in range(5)] == [None, "1", None, "3", "4"]
    assert made == [1, 2, 3, 4]
