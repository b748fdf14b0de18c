"""ParsedExpression an expression: what is taken, and what is refused, where and in which words."""

import pytest

from constraint_crdt.expression import MAX_EXPRESSION_BYTES, Outcome, Verdict, compile_expression
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
        ("x < ", 5, "ends after `<`, where a value is needed"),
        ("(x < 3", 7, "ends after `3`, where `)` is needed"),
        ("size(x", 7, "where `,` or `)` is needed"),
        ("[1", 3, "where `,` or `]` is needed"),
        ("x < 3)", 6, "`)` stands where an operator such as `<` or `&&` is needed"),
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
        ("robot.?speed < 3.0", 7, "name of a field"),
        ("limit(x)", 1, "no function `limit` (it has bytes, "),
        ("x < 3 || x.abs() < 3", 12, "no method `abs`"),
        ("name.startswith('f')", 6, "write `startsWith`"),
        ("contains(name, 'a')", 1, "is a method"),
        ("x.int() < 3", 3, "write `int(x)`"),
        ("size(x, 1) < 3", 1, "takes 1 argument, not 2"),
        ("name.contains()", 6, "takes 1 argument, not 0"),
        ("size(1) < 3", 6, "`1` is an int, which `size` does not take"),
        ("1[0] < 3", 2, "`1` is an int, which has no items"),
        ("y + 1.0 ? flag : flag", 9, "`y + 1.0` is a double, which cannot be the condition"),
        ("size(name).a < 3", 12, "which has no field `a`"),
        ("1 + 1", 1, "needs a bool"),
        ('"a"', 1, "this gives a string"),
        ("x + y", 1, "needs a bool"),
        ("flag ? 1 : 'a'", 1, "an int or a string"),
        ("1 < x < 3", 7, "cannot compare a bool with an int: join two comparisons with `&&`"),
        ("!x < 3", 4, "write `!(...)` around the comparison"),
        ("flag && size(name)", 9, "`size(name)` is an int, which `&&` does not take"),
        ("1 / 0 < 2", 1, "names no measurement, and the evaluation failed: division by zero"),
        ("int('a') < 2", 1, "`int` cannot use the value"),
        ("xs[0.0] < 3", 4, "`0.0` is a double, which cannot be an index"),
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
        ("(1+2) * x < 3", 7, "double(1+2) * x"),
        ("-(1) * x < 3", 6, "double(-(1)) * x"),
        ("2 // two\n* x < 3", 1, "2.0 * x"),
        ("size('''\n''') * x < 3", 6, "double(size('''\\n''')) * x"),
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
    assert compile_expression(fits).evaluate(VALUES).verdict is Verdict.VIOLATED
    assert "longer than 1024 bytes" in str(refusal(fits + " "))
    assert "Unicode" in str(refusal("name == '\ud800'"))


def test_variables_are_the_top_level_names() -> None:
    compiled = compile_expression("robot.speed < limit && has(other.x) && type(x) == double && xs[i] == 'a.b'")
    assert compiled.variables == {"robot", "limit", "other", "x", "xs", "i"}
