"""Windows: CPU time of constraints with windows of 5 minutes, each judged once a second.

    python benchmarks/windows.py [--json] [--check]

A node has 1,000 such constraints, each over a variable of its own, which is measured once a second. A judgement is the sample and
the evaluation. The bound is 3 % of a core for all, so 30 µs a judgement, of which the state of the verdict takes a part.
"""

import sys

from report import Row, median_cpu, run

from constraint_crdt.expression import Expression, compile_expression, measurements
from constraint_crdt.expression.measurements import Samples, requirements

CONSTRAINTS = 1000
SECONDS = 300
JUDGED = 7
"""The seconds whose time is measured."""
CASES: dict[str, tuple[str, float]] = {
    "avg_over": ('avg_over("{}", duration("5m")) < 1000.0', 30),
    "max_over": ('max_over("{}", duration("5m")) < 1000.0', 30),
    "stddev_over": ('stddev_over("{}", duration("5m")) < 1000.0', 30),
    "quantile_over": ('quantile_over(0.95, "{}", duration("5m")) < 1000.0', 30),
    "rate": ('rate("{}", duration("5m")) < 1000.0', 30),
    "changes": ('changes("{}", duration("5m")) < 1000.0', 30),
    "age and last": ('age("{0}") < duration("5s") && last("{0}") < 1000.0', 30),
    "two windows and the value": ('{0} < avg_over("{0}", duration("5m")) + 3.0 * stddev_over("{0}", duration("5m"))', 60),
}
"""Expressions for a variable `{}`, each with the most µs of a judgement. The last reads two windows."""


def values(second: int) -> dict[str, object]:
    """The measurements of a second."""
    return {f"v{number}": float((second * 7 + number * 13) % 101) for number in range(CONSTRAINTS)}


class Kept:
    """A node's samples, full, and the constraints that read them."""

    def __init__(self, text: str) -> None:
        self.expressions: list[Expression] = [compile_expression(text.format(f"v{number}")) for number in range(CONSTRAINTS)]
        self.samples = Samples()
        self.samples.require(requirements(self.expressions))
        self.now = 0
        for second in range(SECONDS + 1):
            self.measure(values(second))
        self.judge(values(0))  # the library prepares an expression when it is first evaluated

    def measure(self, measured: dict[str, object]) -> None:
        """A second passes, and all variables are measured."""
        self.now += 10**9
        self.samples.put(measured, self.now)

    def judge(self, measured: dict[str, object]) -> None:
        """Measure all variables, and evaluate all constraints."""
        self.measure(measured)
        prepared = measurements(measured, self.samples.at(self.now))
        for expression in self.expressions:
            expression.evaluate(prepared)


def rows() -> list[Row]:
    """The table."""
    found = [Row(f"judgement, {name}", judgement(text), "µs", most) for name, (text, most) in CASES.items()]
    return [*found, Row("judgement, all of one window", judgement('avg_over("v0", duration("5m")) < 1000.0'), "µs", 20)]


def judgement(text: str) -> float:
    """The µs of a judgement, the median of some seconds."""
    kept, measured = Kept(text), values(1)
    return median_cpu(lambda: kept.judge(measured), JUDGED) * 1e6 / CONSTRAINTS


if __name__ == "__main__":
    sys.exit(run(__doc__, rows))
