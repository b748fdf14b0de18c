"""Margins against the robustness of RTAMT, a monitor of signal temporal logic, on random formulas and traces.

The comparison of 10,000 is a nightly test (CONSTRAINT_CRDT_BUDGET=nightly). It needs `pip install rtamt==0.4.10`, in this
environment or in that of the interpreter named by RTAMT_PYTHON. A sample of the answers of that version, rtamt_sample.json, is
compared by default; `python -m tests.expression.test_rtamt` writes the sample again.
"""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from constraint_crdt.expression import Verdict, compile_expression, measurements
from constraint_crdt.expression.measurements import Samples, requirements
from constraint_crdt.expression.temporal import margin

SECOND = 10**9
FORMULAS = 10_000
SAMPLED = 50
NIGHTLY = os.environ.get("CONSTRAINT_CRDT_BUDGET") == "nightly"
SCRIPT = Path(__file__).with_name("rtamt_robustness.py")
SAMPLE = Path(__file__).with_name("rtamt_sample.json")

Trace = dict[str, list[float]]


class Case(NamedTuple):
    """A formula as CEL and as RTAMT writes it, and the values of its variables."""

    expression: str
    formula: str
    trace: Trace


class Writer:
    """Random formulas and traces. All numbers are multiples of 1/4 and small, so that arithmetic is exact in any order."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def case(self) -> Case:
        expression, formula = self._logic(self._random.randrange(5))
        samples = self._random.randrange(5, 10)  # RTAMT fails for a single sample
        trace = {name: [self._random.randrange(-10, 11) / 2 for _ in range(samples)] for name in "xyz"}
        return Case(expression, formula, trace)

    def _logic(self, depth: int) -> tuple[str, str]:
        kind = self._random.randrange(7) if depth else 0
        if kind == 0:
            return self._comparison()
        if kind == 6:
            return self._window()
        one = self._logic(depth - 1)
        if kind == 1:
            return f"!({one[0]})", f"not ({one[1]})"
        other = self._logic(depth - 1)
        mark, word = self._random.choice((("&&", "and"), ("||", "or")))
        return f"({one[0]} {mark} {other[0]})", f"(({one[1]}) {word} ({other[1]}))"

    def _comparison(self) -> tuple[str, str]:
        mark = self._random.choice(("<", "<=", ">", ">=", "==", "!="))
        left, right = self._linear(), self._random.choice((self._linear, self._constant))()
        if self._random.random() < 0.3:
            left, right = right, left
        if all(each.lstrip("-(").replace(".", "").isdigit() for each in (left, right)):
            left = "x"
        return f"{left} {mark} {right}", f"{left} {'!==' if mark == '!=' else mark} {right}"

    def _window(self) -> tuple[str, str]:
        """A comparison of the least or greatest of the last samples with a constant, which are `once` and `historically` of it.

        With a sample each second, [0:n] has the n + 1 samples of the window of n + 1 seconds, which excludes its beginning.
        """
        pick = self._random
        name, mark, constant, last = pick.choice("xyz"), pick.choice(("<", "<=", ">", ">=")), self._constant(), pick.randrange(4)
        function, all_of_them = pick.choice((("max_over", "<" in mark), ("min_over", ">" in mark)))
        past = "historically" if all_of_them else "once"
        return f'{function}("{name}", duration("{last + 1}s")) {mark} {constant}', f"{past}[0:{last}]({name} {mark} {constant})"

    def _linear(self) -> str:
        """A sum of terms. RTAMT refuses a difference with a literal after another sum, so negative literals are added."""
        pick = self._random
        terms = [
            pick.choice((name, f"{pick.randrange(-8, 9) / 2} * {name}", f"{name} / 2.0", f"({name} - {pick.choice('xyz')})"))
            for name in pick.sample("xyz", pick.randrange(1, 4))
        ]
        return " + ".join(terms + [self._constant()] * (pick.random() < 0.3))

    def _constant(self) -> str:
        return str(self._random.randrange(-16, 17) / 2)


def differences(case: Case, theirs: list[float]) -> list[str]:
    """Where the margins differ from the robustness, or a verdict from its sign."""
    expression = compile_expression(case.expression)
    samples, different = Samples(), []
    samples.require(requirements([expression]))
    longest = max((span for _, span in expression.windows), default=0)
    for at, robustness in enumerate(theirs):
        values = {name: measured[at] for name, measured in case.trace.items()}
        samples.put(values, at * SECOND)
        if at * SECOND < longest:
            continue  # the window is not full, which is unknown; RTAMT takes those that are there
        prepared = measurements(values, samples.at(at * SECOND))
        found, verdict = margin(expression, prepared), expression.evaluate(prepared).verdict
        signed = robustness == 0 or (robustness > 0) == (verdict is Verdict.SATISFIED)
        if found is None or found.value != robustness or not signed:
            different.append(f"{case.expression} with {values}: {found}, {verdict}; there {robustness}")
    return different


def robustness(cases: list[Case]) -> list[list[float]]:
    """The answers of RTAMT. Skips the test where the package is missing."""
    python = os.environ.get("RTAMT_PYTHON", sys.executable)
    given = json.dumps([(case.formula, case.trace) for case in cases])
    done = subprocess.run([python, str(SCRIPT)], input=given, capture_output=True, text=True, timeout=1500, check=False)
    if "No module named 'rtamt'" in done.stderr:
        pytest.skip("needs the package rtamt: pip install rtamt==0.4.10, or RTAMT_PYTHON of an environment that has it")
    assert done.returncode == 0, done.stderr
    answers: list[list[float]] = json.loads(done.stdout)
    return answers


def sample() -> tuple[list[Case], list[list[float]]]:
    """The kept cases and answers."""
    kept = json.loads(SAMPLE.read_text())
    return [Case(each["expression"], each["formula"], each["trace"]) for each in kept], [each["robustness"] for each in kept]


@pytest.mark.long
def test_margins_agree_with_a_sample_of_the_answers_of_rtamt() -> None:
    cases, answers = sample()
    assert len(cases) == SAMPLED
    for case, theirs in zip(cases, answers, strict=True):
        assert differences(case, theirs) == []
    assert {(value > 0) - (value < 0) for theirs in answers for value in theirs} == {-1, 0, 1}


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not NIGHTLY, reason="compares 10,000 formulas: part of CONSTRAINT_CRDT_BUDGET=nightly")
def test_margins_agree_with_the_robustness_of_rtamt() -> None:
    seed = int(os.environ.get("CONSTRAINT_CRDT_SEED", "1"))
    writer = Writer(seed)
    cases = [writer.case() for _ in range(FORMULAS)]
    kept, expected = sample()
    answers = robustness([*cases, *kept])
    assert answers[FORMULAS:] == expected, "rtamt answers differently from the version that wrote the sample"
    different = [each for case, theirs in zip(cases, answers, strict=False) for each in differences(case, theirs)]
    assert not different, f"{len(different)} differ, seed {seed}: " + "\n".join(different[:20])


if __name__ == "__main__":
    written = [Writer(seed).case() for seed in range(SAMPLED)]
    found = [case._asdict() | {"robustness": theirs} for case, theirs in zip(written, robustness(written), strict=True)]
    SAMPLE.write_text("[\n" + ",\n".join(map(json.dumps, found)) + "\n]\n")
