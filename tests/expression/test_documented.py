"""The tables of the pages on constraints and expressions: each row is what the product does.

A trace of docs/explanation/constraints.md has a character for each 10 s, with ticks each second between: `g` a value that
satisfies, `b` one that violates, `u` a withdrawal, `_` no sample, `/` the node restarts and is away for 10 s, `~` the node is
suspended for 10 s, `*` an edit of `when`. States: `.` holds, `p` pending, `F` violated, `c` clearing, `?` unknown, `-` while the
node is away.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from constraint_crdt.cli.files import read_wanted
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.expression import ExpressionError, Verdict, check_names, compile_expression
from constraint_crdt.expression.cel import WINDOW_FUNCTIONS
from constraint_crdt.expression.check import GLOBALS, METHODS
from constraint_crdt.expression.judgement import Judge
from constraint_crdt.expression.measurements import requirements
from constraint_crdt.expression.temporal import margin, read_spells
from constraint_crdt.model import VerdictState
from constraint_crdt.runtime.measurement import LatestMeasurements
from constraint_crdt.state import ConstraintState

DOCS = Path(__file__).parents[2] / "docs"
CONSTRAINTS = (DOCS / "explanation" / "constraints.md").read_text()
EXPRESSIONS = (DOCS / "reference" / "expressions.md").read_text()
SECOND = 10**9
EVERY = 10
MAX_AGE = 30
VALUES: Mapping[str, float | None] = {"g": 1.0, "b": 9.0, "u": None}
SHOWN = {
    VerdictState.HOLDS: ".", VerdictState.PENDING: "p", VerdictState.VIOLATED: "F", VerdictState.CLEARING: "c",
    VerdictState.UNKNOWN: "?",
}  # fmt: skip


def rows(page: str, *heads: str) -> list[list[str]]:
    """The rows of the tables with these columns on a page; a bar inside of code is written as `\\|`."""
    found: list[list[str]] = []
    inside = False
    for line in page.splitlines():
        cells = (
            [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip("|"))] if line.startswith("|") else []
        )
        if cells == list(heads):
            inside = True
        elif not cells:
            inside = False
        elif inside and set(cells[0]) != {"-"}:
            found.append(cells)
    return found


def code(cell: str) -> str:
    """The code in a cell, without its backquotes."""
    return cell.removeprefix("``").removesuffix("``").strip().strip("`") if cell.startswith("``") else cell.strip("`")


# --- traces --------------------------------------------------------------------------------------------------------------------


class Trace:
    """A node in virtual time, with the constraint `x <= limit`."""

    def __init__(self, for_: int, clear_after: int) -> None:
        self.for_, self.clear_after = for_ * SECOND, clear_after * SECOND
        self.now, self.wall, self.limit = 100 * SECOND, 1_000_000 * SECOND, 5.0
        self.start(b"")

    def start(self, saved: bytes) -> None:
        self.state = ConstraintState()
        self.measured = LatestMeasurements(MAX_AGE)
        self.judge = Judge(self.state.constraints, self.measured, dict, lambda: self.now + self.wall)
        if saved:
            self.judge.resume(read_spells(saved))
        self.define()

    def define(self) -> None:
        self.state.constraints.add("c", when=f"x <= {self.limit}", for_=self.for_, clear_after=self.clear_after, node="a")
        self.judge.redefine(["c"])
        self.judge.judge(self.judge.renew(["c"], self.now), self.now)

    def tick(self) -> None:
        for at, names in self.measured.aged(self.now).items():
            self.judge.aged(self.judge.readers(names), at)
        self.judge.look(self.now)

    def step(self, mark: str) -> str:
        """The event of a mark, and the state after it."""
        if mark in VALUES:
            self.measured.put({"x": VALUES[mark]}, self.now)
            self.judge.judge(self.judge.readers(["x"]), self.now)
        elif mark == "*":
            self.limit += 0.5
            self.define()
        return self.shown()

    def shown(self) -> str:
        found = self.judge.evaluation("c")
        assert found is not None
        return SHOWN[found.state]

    def run(self, trace: str) -> str:
        shown = ""
        for mark in trace:
            if mark == "/":
                saved = self.judge.save(self.now)
                self.wall += EVERY * SECOND + self.now  # another boot: the monotonic clock begins anew
                self.now = 0
                self.start(saved)
                shown += "-"
                continue
            if mark == "~":
                slept = self.now
                self.now += EVERY * SECOND
                self.judge.suspend(slept)
                self.judge.aged(self.judge.ids, self.now)
                self.tick()
                shown += "-"
                continue
            shown += self.step(mark)
            for _ in range(EVERY):
                self.now += SECOND
                self.tick()
        return shown


TRACES = rows(CONSTRAINTS, "case", "`for`", "`clear_after`", "samples", "states", "what happens")


def test_there_are_traces() -> None:
    assert len(TRACES) > 25
    assert set("".join(code(row[3]) for row in TRACES)) == set("gbu_/~*")


@pytest.mark.parametrize("row", TRACES, ids=[row[0] for row in TRACES])
def test_a_trace_is_what_a_node_does(row: list[str]) -> None:
    _, for_, clear_after, samples, states, _ = row
    assert Trace(int(for_), int(clear_after)).run(code(samples)) == code(states)


HYSTERESIS = rows(CONSTRAINTS, "`when`", "`clear_when`", "samples of `temp_c`", "states")


@pytest.mark.parametrize("row", HYSTERESIS, ids=[row[1] for row in HYSTERESIS])
def test_hysteresis_is_what_a_node_does(row: list[str]) -> None:
    when, clear_when, samples, states = map(code, row)
    state, measured = ConstraintState(), LatestMeasurements(MAX_AGE)
    judge = Judge(state.constraints, measured, dict, lambda: 0)
    state.constraints.add("hot", when=when, clear_when=clear_when, node="a")
    judge.redefine(["hot"])
    judge.renew(["hot"], 0)
    shown = ""
    for now, sample in enumerate(samples.split(), 1):
        measured.put({"temp_c": float(sample)}, now * SECOND)
        [found] = judge.judge(["hot"], now * SECOND)
        shown += SHOWN[found.state]
    assert shown == states


# --- expressions ----------------------------------------------------------------------------------------------------------------

FOUND = re.search(r"^```json\n(.*?)^```", EXPRESSIONS, re.DOTALL | re.MULTILINE)
assert FOUND is not None
MEASURED: dict[str, object] = json.loads(FOUND[1])
"""The measurements of the page."""
CODE = re.compile(r"`([^`]+)`")
EXAMPLES = [
    example.replace("\\|", "|")
    for line in EXPRESSIONS.split("## Windows")[0].splitlines()
    if line.startswith("| ") and (cells := re.split(r"(?<!\\)\|", line.strip().strip("|"))) and len(cells) in (2, 3)
    for example in CODE.findall(cells[-1])
    if not cells[-1].strip().endswith(("none", *"0123456789"))
]


def test_there_are_examples() -> None:
    assert len(EXAMPLES) > 100


@pytest.mark.parametrize("source", EXAMPLES)
def test_an_example_is_allowed_and_true(source: str) -> None:
    assert compile_expression(source).evaluate(MEASURED).verdict is Verdict.SATISFIED


EXTENSIONS = {
    *(f"math.{name}" for name in ("abs", "bitAnd", "bitNot", "bitOr", "bitShiftLeft", "bitShiftRight", "bitXor", "ceil", "floor")),
    *(f"math.{name}" for name in ("greatest", "isFinite", "isInf", "isNaN", "least", "round", "sign", "sqrt", "trunc")),
    *(f"optional.{name}" for name in ("none", "of", "ofNonZeroValue")),
    "strings.quote",
}
"""The functions of the extensions with a namespace, as the library names them."""


def test_each_function_has_an_example() -> None:
    """Of those that the messages of the check know, and of the extensions."""
    called = {name for line in EXPRESSIONS.splitlines() for name in _called(line)}
    assert called >= METHODS | GLOBALS | EXTENSIONS


def _called(line: str) -> set[str]:
    """The functions called in the examples of a row."""
    last = re.split(r"(?<!\\)\|", line.strip().strip("|"))[-1] if line.startswith("| ") else ""
    found = {name for example in CODE.findall(last) for name in re.findall(r"[A-Za-z_.]+(?=\()", example)}
    return {name if name in EXTENSIONS else name.rpartition(".")[2] for name in found}


@pytest.mark.parametrize(
    "source", ["xs.all(i, v, v > 0.0)", "sets.contains(xs, [1])", "now() > timestamp(0)", "cel.bind(y, x, y > 1.0)"]
)
def test_what_the_page_calls_not_available_is_refused(source: str) -> None:
    with pytest.raises(ExpressionError):
        compile_expression(source)


REFUSALS = [row for row in rows(EXPRESSIONS, "expression", "refused with") if len(row) == 2]


def test_there_are_refusals() -> None:
    assert len(REFUSALS) > 12


@pytest.mark.parametrize("row", REFUSALS, ids=[row[0] for row in REFUSALS])
def test_a_refusal_is_as_the_page_says(row: list[str]) -> None:
    source, message = row
    with pytest.raises(ExpressionError) as refused:
        compile_expression(code(source))
    assert str(refused.value) == message


MARGINS = rows(EXPRESSIONS, "", "margin", "for the measurements above")


@pytest.mark.parametrize("row", MARGINS, ids=[row[0] for row in MARGINS])
def test_a_margin_is_as_the_page_says(row: list[str]) -> None:
    source, value = row[2].rsplit(": ", 1)
    found = margin(compile_expression(code(source)), MEASURED)
    assert (found.value if found else None) == (None if value == "none" else float(value))


def test_there_are_margins() -> None:
    assert len(MARGINS) == 10


WINDOW_HEADS = ("function", "value", "too little data, beside a window that is not full", "example")
WINDOWS = [example for row in rows(EXPRESSIONS, *WINDOW_HEADS) for example in CODE.findall(row[3])]


def test_each_function_over_samples_has_an_example() -> None:
    assert {example.partition("(")[0] for example in WINDOWS} == set(WINDOW_FUNCTIONS)


@pytest.mark.parametrize("source", WINDOWS)
def test_a_window_is_as_the_page_says(source: str) -> None:
    measured, expression = LatestMeasurements(MAX_AGE), compile_expression(source)
    measured.require(requirements([expression]))
    for second in range(0, 601, 10):
        measured.put({"c": float(second)}, second * SECOND)
    assert expression.evaluate(measured.read(["c"], 600 * SECOND)).verdict is Verdict.SATISFIED


def test_a_window_that_is_not_full_has_the_reason_of_the_page() -> None:
    measured, expression = LatestMeasurements(MAX_AGE), compile_expression('avg_over("x", duration("5m")) < 80.0')
    measured.require(requirements([expression]))
    for second, value in ((0, 71.0), (20, 72.0)):
        measured.put({"x": value}, second * SECOND)
    reason = expression.evaluate(measured.read(["x"], 40 * SECOND)).reason
    assert reason in " ".join(EXPRESSIONS.split())


@pytest.mark.parametrize("name", ["a b", "true"])
def test_a_name_that_no_expression_can_read_is_refused(name: str) -> None:
    with pytest.raises(ConstraintCrdtError, match="no expression can read"):
        check_names([name])


@pytest.mark.parametrize("page", ["README.md", "docs/explanation/constraints.md", "docs/reference/expressions.md"])
def test_the_constraints_of_a_file_on_a_page_can_be_applied(page: str, tmp_path: Path) -> None:
    [text] = re.findall(r"^```toml\n(\[\[constraint\]\].*?)^```", (DOCS.parent / page).read_text(), re.DOTALL | re.MULTILINE)
    file = tmp_path / "fleet.toml"
    file.write_text(text)
    assert len(read_wanted(str(file)).constraints) == 1
