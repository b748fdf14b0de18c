"""Verdicts against a second evaluator that conforms to the standard: `@bufbuild/cel` for Node.js, on random expressions.

A nightly test (CONSTRAINT_CRDT_BUDGET=nightly). The package is found as Node.js finds it from the repository, below NODE_PATH, or
among the global packages: `npm install --global @bufbuild/cel`.
"""

import json
import os
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from constraint_crdt.expression import ExpressionError, Verdict, compile_expression

EXPRESSIONS = 30_000
NIGHTLY = os.environ.get("CONSTRAINT_CRDT_BUDGET") == "nightly"
SCRIPT = Path(__file__).with_name("second_evaluator.cjs")
RESULTS = {Verdict.SATISFIED: True, Verdict.VIOLATED: False, Verdict.UNKNOWN: "unknown"}

VARIABLES = ("x", "y", "flag", "name", "xs", "robot", "missing")
NAMES = ("", "forge-é", "Žižek", "a", "10", "1.5", "\U0001f600")
NUMBERS = (0.0, 1.0, -1.0, 2.0, 0.5, 3.0, 7.0, 1e300, float("1e-9"))


def explained(source: str, values: dict[str, object], theirs: object) -> str:
    """The reason for which the two may differ; empty for none."""
    if "has(robot" in source and "robot" not in values:
        return "`has()` of a field of a missing variable is false there, and an error by the standard"
    if theirs == "unknown" and re.search(r"\[[^\],]*\]", source):
        return "an index that is not whole or out of bounds ends the evaluation there; by the standard `||` and `&&` absorb it"
    return ""


class Writer:
    """Random expressions of bounded depth, mostly of fitting types."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def boolean(self, depth: int) -> str:
        pick = self._random
        if depth == 0:
            return pick.choice(("true", "false", "flag", "missing", "x == x"))
        kind = pick.randrange(14)
        if kind < 3:
            return f"({self.boolean(depth - 1)} {pick.choice(('&&', '||'))} {self.boolean(depth - 1)})"
        if kind == 3:
            return f"!{self.boolean(depth - 1)}" if pick.random() < 0.9 else f"!({self.number(depth - 1)})"
        if kind == 4:
            return f"({self.boolean(depth - 1)} ? {self.boolean(depth - 1)} : {self.boolean(depth - 1)})"
        if kind < 9:
            return f"{self.number(depth - 1)} {pick.choice(('<', '<=', '>', '>=', '==', '!='))} {self.number(depth - 1)}"
        if kind == 9:
            return f"{self.text(depth - 1)} {pick.choice(('<', '>=', '==', '!='))} {self.text(depth - 1)}"
        if kind == 10:
            method = pick.choice(("contains", "startsWith", "endsWith"))
            return f"{self.text(depth - 1)}.{method}({self.text(depth - 1)})"
        if kind == 11:
            macro = pick.choice(("all", "exists", "exists_one"))
            return f"{self.listing(depth - 1)}.{macro}(i, i {pick.choice(('<', '==', '>='))} {self.number(depth - 1)})"
        if kind == 12:
            return f"{self.number(depth - 1)} in {self.listing(depth - 1)}"
        return pick.choice(
            ("has(robot.speed)", "has(robot.no)", "name.matches('^f.*[^a]$')", "robot.arm == null", "'speed' in robot")
        )

    def number(self, depth: int) -> str:
        pick = self._random
        if depth == 0:
            return pick.choice(("x", "y", "1", "2.0", "0", "-1", "3u", "0.5", "missing", "robot.speed", "xs[0]", "xs[5]"))
        kind = pick.randrange(6)
        if kind < 2:
            return f"({self.number(depth - 1)} {pick.choice('+-*/%')} {self.number(depth - 1)})"
        if kind == 2:
            return f"size({pick.choice((self.text, self.listing))(depth - 1)})"
        if kind == 3:
            return f"{pick.choice(('int', 'double'))}({self.number(depth - 1)})"
        if kind == 4:
            return f"({self.boolean(depth - 1)} ? {self.number(depth - 1)} : {self.number(depth - 1)})"
        return f"{self.listing(depth - 1)}[{self.number(0)}]"

    def text(self, depth: int) -> str:
        pick = self._random
        if depth == 0:
            return pick.choice(("name", "'a'", "''", "'é'", "'forge'", "missing", "robot.name"))
        if pick.random() < 0.5:
            return f"({self.text(depth - 1)} + {self.text(depth - 1)})"
        return f"string({pick.choice((self.boolean, self.text))(depth - 1)})" if pick.random() < 0.3 else self.text(0)

    def listing(self, depth: int) -> str:
        pick = self._random
        if depth == 0:
            return pick.choice(("xs", "[1, 2.0, 3u]", "[]", "robot.arm", "missing"))
        kind = pick.randrange(4)
        if kind == 0:
            return f"[{self.number(depth - 1)}, {self.number(depth - 1)}]"
        if kind == 1:
            return f"{self.listing(depth - 1)}.filter(i, i > {self.number(0)})"
        if kind == 2:
            return f"{self.listing(depth - 1)}.map(i, i * 2.0)"
        return f"({self.listing(0)} + {self.listing(depth - 1)})"

    def values(self) -> dict[str, object]:
        pick = self._random
        xs: list[object] = [pick.choice(NUMBERS) for _ in range(pick.randrange(4))]
        robot = {"speed": pick.choice(NUMBERS), "name": pick.choice(NAMES), "arm": pick.choice((None, [1.0, 2.0]))}
        every: dict[str, object] = {
            "x": pick.choice(NUMBERS), "y": pick.choice(NUMBERS), "flag": pick.random() < 0.5, "name": pick.choice(NAMES), "xs": xs,
            "robot": robot,
        }  # fmt: skip
        return {name: value for name, value in every.items() if pick.random() < 0.9}


def second_evaluator(cases: list[tuple[str, dict[str, object]]]) -> list[object]:
    """The results of @bufbuild/cel. Skips the test where there is no Node.js or no package."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("needs Node.js and npm")
    installed = subprocess.run([npm, "root", "--global"], capture_output=True, text=True, check=True, timeout=60).stdout.strip()
    path = os.pathsep.join(filter(None, (os.environ.get("NODE_PATH"), installed)))
    done = subprocess.run(
        [node, str(SCRIPT)], input=json.dumps(cases), capture_output=True, text=True, timeout=600, check=False,
        env={**os.environ, "NODE_PATH": path},
    )  # fmt: skip
    if "Cannot find module '@bufbuild/cel'" in done.stderr:
        pytest.skip("needs the npm package @bufbuild/cel: npm install --global @bufbuild/cel")
    assert done.returncode == 0, done.stderr
    results: list[object] = json.loads(done.stdout)
    return results


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.timeout(900)
@pytest.mark.skipif(not NIGHTLY, reason="compares 30,000 expressions: part of CONSTRAINT_CRDT_BUDGET=nightly")
def test_verdicts_agree_with_a_second_conformant_evaluator() -> None:
    seed = int(os.environ.get("CONSTRAINT_CRDT_SEED", "1"))
    writer = Writer(seed)
    cases: list[tuple[str, dict[str, object]]] = []
    ours: list[object] = []
    while len(cases) < EXPRESSIONS:
        source, values = writer.boolean(4), writer.values()
        try:
            outcome = compile_expression(source, checked=False).evaluate(values)
        except ExpressionError as error:
            bounds = ("longer than", "more than 32 deep", "`matches` in a macro")
            assert any(bound in str(error) for bound in bounds), (source, str(error))  # noqa: PT017 (no other refusal)
            continue
        cases.append((source, values))
        ours.append(RESULTS[outcome.verdict])
    theirs = second_evaluator(cases)
    different = [
        f"{source} with {values}: {mine}, there {other}"
        for (source, values), mine, other in zip(cases, ours, theirs, strict=True)
        if mine != other and not explained(source, values, other)
    ]
    assert not different, f"{len(different)} differ, seed {seed}: " + "\n".join(different[:20])
    assert {True, False, "unknown"} == set(ours)
