"""Judgement: CPU time of a node's constraints, each judged once a second, as shares of a core.

    python benchmarks/judgement.py [--json] [--check]

A second of a node: all variables are measured, all constraints that read them are judged, and the tick looks at those that time
moves. The bounds are 8 % of a core for 10,000 plain constraints, and 3 % for 1,000 with a window of 5 minutes and `for`.
1,000 instances, 250 of each of four variables, take at most 5 %, measured together or one by one. Writing the counts is the same
work for any judgement, and is a row of its own.

The last rows are of a running node with a store, which also writes counts, rates and times: all of its CPU, and the longest time
for which a callback held its event loop, by CPU time, while all values change and while all constraints turn.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from report import Row, median_cpu, run

from constraint_crdt import GossipNode
from constraint_crdt.cli.node import keep_collections_short
from constraint_crdt.expression.judgement import Judge
from constraint_crdt.expression.measurements import Touched, flattened
from constraint_crdt.operations.constraints import AddConstraint
from constraint_crdt.runtime.evaluation import JUDGED_AT_ONCE
from constraint_crdt.runtime.measurement import LatestMeasurements
from constraint_crdt.runtime.node import Node
from constraint_crdt.runtime.settings import NodeSettings

SECOND = 10**9
WINDOW_SECONDS = 300
MOST_HELD = 20.0
"""ms."""
JUDGED = 7
"""The seconds whose time is measured."""

CASES: dict[str, tuple[int, int, str, int, float]] = {
    "10,000 plain, over 20 variables": (10_000, 20, "x{} < {}.5 + 1000.0", 0, 8.0),
    "10,000 plain, each over its own variable": (10_000, 10_000, "x{} < {}.5 + 1000.0", 0, 8.0),
    "10,000 for the library, over 20 variables": (10_000, 20, "x{} in [{}.5, 1.5] || true", 0, 8.0),
    "1,000 with a window and `for`, over 20 variables": (1000, 20, 'avg_over("x{}", duration("5m")) < {}.0 + 1000.0', 30, 3.0),
    "1,000 with a window and `for`, each over its own": (1000, 1000, 'avg_over("x{}", duration("5m")) < {}.0 + 1000.0', 30, 3.0),
}
"""Constraints, variables, the expression, `for` in seconds, and the most % of a core."""


class Bench:
    """A node's constraints, measurements and clock."""

    def __init__(self, constraints: int, variables: int, text: str, for_: int, each: str | None = None) -> None:
        self.node = GossipNode("a")
        for number in range(constraints):
            self.node.state.constraints.add(
                f"c{number:05}", node=self.node.replica, when=text.format(number % variables, number), for_=for_ * SECOND, each=each
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


INSTANCES = 250
"""Of each of four variables."""
MOST_INSTANCES = 5.0
"""% of a core."""


class InstancesBench(Bench):
    """The same of four constraints with `each`."""

    def __init__(self, *, together: bool) -> None:
        """`together`: the instances of a variable are measured at once; else one by one."""
        self.together = together
        super().__init__(4, 4, "x{} < {}.5 + 1000.0", 0, each="joint")

    def second(self) -> None:
        """The work of a second."""
        began = self.now
        for name in self.names:
            for chunk in (range(INSTANCES),) if self.together else ((number,) for number in range(INSTANCES)):
                self.now += SECOND // 4 // INSTANCES * len(chunk)
                value = float(self.now // SECOND * 7 % 101)
                values = flattened({name: {"by": "joint", "values": {f"j{number}": value for number in chunk}}})
                self.measured.put(values, self.now)
                self.judge.judge(self.judge.readers(values), self.now, touched=Touched.of(values))
        self.now = began + SECOND
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
    for name, together in (("together", True), ("one by one", False)):
        share = median_cpu(InstancesBench(together=together).second, JUDGED) * 100
        found.append(Row(f"1,000 instances of 4 constraints, measured {name}", share, "% of a core", MOST_INSTANCES))
    judged, held, turned = asyncio.run(running_node())
    return [
        *found,
        Row("… writing the counts of 10,000, each 2 s", write(counts) * 50, "% of a core"),
        Row("a node with 10,000, all that it does", judged * 100, "% of a core"),
        Row("… longest hold of its event loop", held * 1e3, "ms", MOST_HELD),
        Row("… longest hold while all of them turn", turned * 1e3, "ms"),
    ]


def write(counts: Mapping[str | None, tuple[int, int]]) -> float:
    """CPU seconds of a write of counts."""
    node = GossipNode("a")
    return median_cpu(lambda: node.record_all(counts), JUDGED)


class Holds:
    """The longest callback of the event loop since the last call of `take`, by CPU time of its thread."""

    def __init__(self) -> None:
        self._longest = 0.0
        run_ = asyncio.events.Handle._run

        def timed(handle: asyncio.Handle) -> None:
            began = time.thread_time()
            run_(handle)
            self._longest = max(self._longest, time.thread_time() - began)

        asyncio.events.Handle._run = timed  # type: ignore[method-assign, assignment]

    def take(self) -> float:
        """Seconds."""
        longest, self._longest = self._longest, 0.0
        return longest


async def running_node() -> tuple[float, float, float]:
    """Of a node: its share of a core, its longest hold, and the longest while all constraints turn."""
    keep_collections_short()
    with tempfile.TemporaryDirectory() as directory:
        settings = NodeSettings(name="a", fleet="bench", listen=("tcp/127.0.0.1:0",), store=str(Path(directory) / "a.db"))
        async with Node(settings=settings) as node:
            texts = [f"x{number % 20} < {number}.5 + 1000.0" for number in range(10_000)]
            for start in range(0, len(texts), 1_000):
                await node.batch([AddConstraint(id=f"c{n:05}", when=texts[n]) for n in range(start, start + 1_000)])
            holds = Holds()
            for second in range(2 * JUDGED):
                if second == JUDGED:
                    holds.take()
                    began = time.process_time()
                await node.measure({f"x{number}": float(second) for number in range(20)})
                await asyncio.sleep(1)
            judged, held = (time.process_time() - began) / JUDGED, holds.take()
            for second in range(4):
                await node.measure({f"x{number}": 1e6 * (second % 2) for number in range(20)})
                await asyncio.sleep(1)
            return judged, held, holds.take()


if __name__ == "__main__":
    sys.exit(run(__doc__, rows))
