"""Judgement: CPU time of a node's constraints, each judged once a second, as shares of a core.

    python benchmarks/judgement.py [--json] [--check]

A second of a node: all variables are measured, all constraints that read them are judged, and the tick looks at those that time
moves. The bounds are 8 % of a core for 10,000 plain constraints, and 3 % for 1,000 with a window of 5 minutes and `for`.
Writing the counts is the same work for any judgement, and is a row of its own.
"""

import sys
from collections.abc import Mapping

from report import Row, median_cpu, run

from constraint_crdt import GossipNode
from constraint_crdt.expression.judgement import Judge
from constraint_crdt.runtime.evaluation import JUDGED_AT_ONCE
from constraint_crdt.runtime.measurement import LatestMeasurements

SECOND = 10**9
WINDOW_SECONDS = 300
JUDGED = 7
"""The seconds whose time is measured."""

CASES: dict[str, tuple[int, int, str, int, float]] = {
    "10,000 plain, over 20 variables": (10_000, 20, "x{} < {}.5 + 1000.0", 0, 8.0),
    "10,000 plain, each over its own variable": (10_000, 10_000, "x{} < {}.5 + 1000.0", 0, 12.0),
    "1,000 with a window and `for`, over 20 variables": (1000, 20, 'avg_over("x{}", duration("5m")) < {}.0 + 1000.0', 30, 3.0),
    "1,000 with a window and `for`, each over its own": (1000, 1000, 'avg_over("x{}", duration("5m")) < {}.0 + 1000.0', 30, 3.0),
}
"""Constraints, variables, the expression, `for` in seconds, and the most % of a core."""


class Bench:
    """A node's constraints, measurements and clock."""

    def __init__(self, constraints: int, variables: int, text: str, for_: int) -> None:
        self.node = GossipNode("a")
        for number in range(constraints):
            self.node.state.constraints.add(
                f"c{number:05}", node=self.node.replica, when=text.format(number % variables, number), for_=for_ * SECOND
            )
        self.names = [f"x{number}" for number in range(variables)]
        self.measured = LatestMeasurements(30.0)
        self.judge = Judge(self.node.state.constraints, self.measured, dict, lambda: 0)
        self.now = SECOND
        fresh = self.judge.renew(self.judge.stale(constraints), self.now)
        self.measured.require(self.judge.take_spans() or {})
        self.judge.judge(fresh, self.now)
        for _ in range(WINDOW_SECONDS + 1 if for_ else 1):
            self.measure()
        self.second()  # the library prepares an expression when it is first evaluated

    def measure(self) -> None:
        """A second passes, and all variables are measured."""
        self.now += SECOND
        self.measured.put({name: float((self.now // SECOND * 7) % 101) for name in self.names}, self.now)

    def second(self) -> None:
        """The work of a second."""
        self.measure()
        ids = self.judge.readers(self.names)
        for start in range(0, len(ids), JUDGED_AT_ONCE):
            self.judge.judge(ids[start : start + JUDGED_AT_ONCE], self.now)
        self.measured.aged(self.now)
        self.judge.look(self.now)
        self.judge.take_changes()


def rows() -> list[Row]:
    """The table."""
    found: list[Row] = []
    counts: dict[str | None, tuple[int, int]] = {}
    for name, (constraints, variables, text, for_, most) in CASES.items():
        bench = Bench(constraints, variables, text, for_)
        found.append(Row(name, median_cpu(bench.second, JUDGED) * 100, "% of a core", most))
        counts = counts or bench.judge.take_counts()
    return [*found, Row("… writing the counts of 10,000, each 2 s", write(counts) * 50, "% of a core")]


def write(counts: Mapping[str | None, tuple[int, int]]) -> float:
    """CPU seconds of a write of counts."""
    node = GossipNode("a")
    return median_cpu(lambda: node.record_all(counts), JUDGED)


if __name__ == "__main__":
    sys.exit(run(__doc__, rows))
