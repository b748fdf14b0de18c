"""Evaluation: measurements in, verdicts and counts out.

Evaluations are frequent, so counts gather in memory and are written in one cell per constraint and interval, at most. A killed node
loses the counts of one interval. Counts wait while writes are refused.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from constraint_crdt.crdt.replica import check_id
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.expression import Verdict, check_names, check_value
from constraint_crdt.expression.evaluation import Evaluation, evaluate
from constraint_crdt.insight.rates import NodeRates
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.runtime.change_feed import ChangeFeed, Turn
from constraint_crdt.runtime.shared import NodeSketches

EVALUATED_AT_ONCE = 500
"""Constraints evaluated in one turn of the loop. They take some milliseconds."""


class EvaluationCounts:
    """The last evaluation of each constraint on one node, and the counts not written yet."""

    def __init__(self) -> None:
        self._subscribers: list[Callable[[str], None]] = []
        self.changes = 0
        """Grows with each evaluation that differs from the last."""
        self._waiting: dict[str | None, tuple[int, int]] = {}
        self._unknown: dict[str, int] = {}
        self._last: dict[str, Evaluation] = {}
        self._violated: set[str] = set()

    def subscribe(self, subscriber: Callable[[str], None]) -> None:
        """Call `subscriber` with each constraint whose evaluation differs from the last."""
        self._subscribers.append(subscriber)

    def note(self, evaluations: Iterable[Evaluation]) -> list[Turn]:
        """Count evaluations. Returns the verdicts changed between satisfied and violated; unknown changes none, so a gap in
        measurements is no recovery.
        """
        turns = []
        for each in evaluations:
            id_, verdict = each.constraint, each.verdict
            if verdict is Verdict.UNKNOWN or self._last.get(id_) != each:
                self.changes += 1
                for subscriber in self._subscribers:
                    subscriber(id_)
            self._last[id_] = each
            if verdict is Verdict.UNKNOWN:
                self._unknown[id_] = self._unknown.get(id_, 0) + 1
                continue
            satisfied, violated = self._waiting.get(id_, (0, 0))
            self._waiting[id_] = (satisfied + each.counts[0], violated + each.counts[1])
            if (verdict is Verdict.VIOLATED) != (id_ in self._violated):
                turns.append(Turn(id_, verdict))
                self._violated ^= {id_}
        return turns

    def take(self) -> dict[str | None, tuple[int, int]]:
        """The counts since the last call: (satisfied, violated) by constraint."""
        waiting, self._waiting = self._waiting, {}
        return waiting

    @property
    def violated(self) -> int:
        """The number of violated constraints now."""
        return len(self._violated)

    def last(self, id_: str) -> Evaluation | None:
        """The last evaluation of a constraint."""
        return self._last.get(id_)

    def unknown(self, id_: str) -> int:
        """The number of undecided evaluations of a constraint."""
        return self._unknown.get(id_, 0)

    def forget_all(self, ids: Collection[str]) -> None:
        """Drop the evaluations of removed or redefined constraints. Counts stay. O(evaluated ids)."""
        self.changes += len(ids)
        for found in (self._last, self._unknown):
            for id_ in found.keys() & ids:
                del found[id_]
        self._violated.difference_update(ids)


MAX_VARIABLES = 10_000


class Measurements:
    """The latest value of each variable, with the time of its measurement. Times are in ns of a monotonic clock."""

    def __init__(self, max_age: float) -> None:
        """`max_age`: seconds for which a value counts."""
        self._max_age = int(max_age * 1e9)
        self._values: dict[str, tuple[int, object]] = {}

    def __len__(self) -> int:
        return len(self._values)

    def put(self, values: Mapping[str, object], now: int) -> None:
        """Take all values in; None withdraws a variable. Raises `ConstraintCrdtError` for a name that no expression can read and
        for a value out of bounds, and takes none then.
        """
        check_names(values)
        for name, value in values.items():
            check_id(name, "the name of a variable")
            check_value(name, value)
        kept = {name: entry for name, entry in self._values.items() if name not in values}
        measured = {name: (now, value) for name, value in values.items() if value is not None}
        if len(kept) + len(measured) > MAX_VARIABLES:
            raise ConstraintCrdtError(f"more than the {MAX_VARIABLES} variables that a node measures")
        self._values = kept | measured

    def fresh(self, now: int) -> dict[str, object]:
        """The values within the maximum age. Older values are dropped."""
        oldest = now - self._max_age
        self._values = {name: entry for name, entry in self._values.items() if entry[0] >= oldest}
        return {name: value for name, (_, value) in self._values.items()}


class Evaluator:
    """Evaluates the active constraints of a node, and writes the counts."""

    def __init__(
        self,
        gossip: GossipNode,
        feed: ChangeFeed,
        measurements: Measurements,
        counts: EvaluationCounts,
        rates: NodeRates,
        sketches: NodeSketches,
    ) -> None:
        self._gossip = gossip
        self._feed = feed
        self._measurements = measurements
        self._counts = counts
        self._rates = rates
        self._sketches = sketches

    async def evaluate_all(self) -> None:
        """Evaluate all active constraints with the values of one instant. Other tasks run in between."""
        values, ids = self._measurements.fresh(time.monotonic_ns()), sorted(self._gossip.state.constraints)
        for start in range(0, len(ids), EVALUATED_AT_ONCE):
            self.evaluate(values, ids[start : start + EVALUATED_AT_ONCE])
            await asyncio.sleep(0)

    def evaluate(self, values: Mapping[str, object], ids: Sequence[str] | None = None) -> list[Evaluation]:
        """Evaluate active constraints, all or those in `ids`, against these values, and count the results."""
        evaluations = evaluate(self._gossip.state.constraints, values, self._gossip.labels, ids)
        turns = self._counts.note(evaluations)
        if turns:
            self._feed.evaluate(turns)
        self._rates.note({each.constraint: each.counts for each in evaluations})
        return evaluations

    def recorded(self, constraint: str | None, satisfied: int, violations: int) -> None:
        """Evaluations made elsewhere were written: count them in the recent rates and the most violated, too."""
        self._sketches.note({constraint: (satisfied, violations)})
        self._rates.note({constraint: (satisfied, violations)})

    async def write_counts(self) -> None:
        """Write the counts."""
        if self._feed.writable and (counts := self._counts.take()):
            self._feed.write(lambda: self._gossip.record_all(counts))
            self._sketches.note(counts)

    async def write_sketches(self) -> None:
        """Write the counts of violations to the sketch."""
        if self._sketches.waiting and self._feed.writable:
            self._feed.write(self._sketches.write_waiting)

    async def write_rates(self) -> None:
        """Write the recent rates."""
        if self._rates.waiting and self._feed.writable:
            self._feed.write(self._rates.write_waiting)
