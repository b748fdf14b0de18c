"""The limits of an expression: nesting that would overflow a stack, and texts that look costly."""

import pytest

from constraint_crdt.expression import MAX_DEPTH, MAX_EXPRESSION_BYTES, Outcome, Verdict, compile_expression
from tests.expression.cases import isolated, refusal

# What is just within the limits; one level more of each is tested to be refused below.
DEEP = [
    ("(", "flag", ")"),
    ("[", "1", "]"),
    ("{1: ", "1", "}"),
    ("int(", "x", ")"),
    ("x[", "0", "]"),
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


@pytest.mark.long
@pytest.mark.processes
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


@pytest.mark.long
@pytest.mark.processes
def test_costly_looking_expressions_are_quick() -> None:
    def longest(item: str, joint: str) -> str:
        return joint.join([item] * ((MAX_EXPRESSION_BYTES + len(joint)) // len(item + joint)))

    sources = [
        longest("x<1", "||"),
        longest("flag&&flag", "||"),
        longest("name.matches('(a*)*b')", "||"),
        longest("name.matches(r'\\w{20}')", "||"),
        "name.matches('" + "(a*)*" * 200 + "b')",
        "xs.all(i, xs.all(j, i < j))",
        longest("xs.all(i,name.contains(i))", "||"),
        "name == " + "+".join(["'aaaa'"] * (MAX_DEPTH - 1)),
    ]
    code = f"""
import time
from constraint_crdt.expression import ExpressionError, compile_expression, measurements
values = measurements({{"x": 1, "flag": True, "name": "a" * 4_000, "xs": ["a"] * 10_000}})
compile_expression("x < 1").evaluate(values)
begun = time.process_time()
for source in {sources!r}:
    try:
        compile_expression(source).evaluate(values)
    except ExpressionError as error:
        assert "costly" in str(error) or "literal" in str(error), error
print(time.process_time() - begun)
"""
    assert float(isolated(code)) < 1.0  # measured 0.05 s; what is not bounded takes many seconds


MANY = ["a" * 50] * 2000


@pytest.mark.parametrize(
    "source",
    [
        "xs.map(i, xs + xs + xs + xs).size() > 0",
        "xs.map(i, name + name + name + name + name).size() > 0",
        "xs.all(i, xs.map(j, i + j).size() > 0)",
        "[name + name].exists(a, [a + a].exists(b, [b + b].exists(c, [c + c].exists(d, [d + d].exists(e, e + e == e)))))",
        "[[xs, xs]].exists(a, [[a, a, a, a]].exists(b, [[b, b, b, b]].exists(c, [[c, c, c, c]].exists(d, d == d))))",
        "xs.map(i, name.replace('a', 'bbbb')).size() > 0",
    ],
)
def test_loops_that_would_build_gigabytes_are_not_evaluated(source: str) -> None:
    """The library bounds the steps of macros, not what they build: the first of these took 1 GB."""
    outcome = compile_expression(source).evaluate({"xs": MANY, "name": "a" * 4000})
    assert outcome.verdict is Verdict.UNKNOWN
    assert "build too much" in outcome.reason


@pytest.mark.long
def test_loops_over_many_numbers_are_evaluated() -> None:
    values = {"xs": list(range(9_000)), "y": 5}
    for source in ("xs.all(i, i + y >= 5)", "xs.exists(i, i + y * i > 9999.0)", "xs.map(i, i * 2.0).filter(i, i > y).size() > 9"):
        limited = {**values, "xs": values["xs"][:4000]} if "map" in source else values  # type: ignore[index]
        assert compile_expression(source).evaluate(limited).verdict is Verdict.SATISFIED


def test_the_steps_of_macros_are_bounded() -> None:
    outcome = compile_expression("xs.all(i, xs.exists(j, j == i))").evaluate({"xs": list(range(1000))})
    assert outcome == Outcome(Verdict.UNKNOWN, "the evaluation failed: the macros take more than 10000 steps")
