"""Evaluation: measurements in, verdicts and counts out.

Evaluations are frequent, so counts gather in memory and are written in a cell per constraint and interval, at most. A killed node
loses the counts of an interval. Counts wait while writes are refused.

A probe is a source of measurements that the node reads by itself: any object with a `name` and a `read()`. Packages install more of
them as entry points of the group `constraint_crdt.probes`, each a callable without arguments that makes a probe;
`--probe NAME` selects a probe.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Protocol, runtime_checkable

from constraint_crdt.crdt.replica import check_id
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.expression import Verdict, check_names, check_value
from constraint_crdt.expression.evaluation import Evaluation, evaluate
from constraint_crdt.insight.rates import NodeRates
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.runtime.change_feed import ChangeFeed, Turn
from constraint_crdt.runtime.shared import NodeSketches

EVALUATED_AT_ONCE = 500
"""Constraints evaluated in a turn of the loop. They take some milliseconds."""


class EvaluationCounts:
    """The last evaluation of each constraint on a node, and the counts not written yet."""

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


class LatestMeasurements:
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
        measurements: LatestMeasurements,
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
        """Evaluate all active constraints with the values of an instant. Other tasks run in between."""
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
        """Write the counts. A count beyond 2**63 - 1 is refused alone, and dropped."""
        if self._feed.writable and (counts := self._counts.take()):
            for error in self._feed.write(lambda: self._gossip.record_each(counts)).values():
                _log.warning("an evaluation is not counted: %s", error)
            self._sketches.note(counts)

    async def write_sketches(self) -> None:
        """Write the counts of violations to the sketch."""
        if self._sketches.waiting and self._feed.writable:
            self._feed.write(self._sketches.write_waiting)

    async def write_rates(self) -> None:
        """Write the recent rates."""
        if self._rates.waiting and self._feed.writable:
            self._feed.write(self._rates.write_waiting)


ENTRY_POINTS = "constraint_crdt.probes"

_log = logging.getLogger("constraint_crdt.node")


@runtime_checkable
class Probe(Protocol):
    """A source of measurements."""

    @property
    def name(self) -> str:
        """The name in logs and settings."""

    def read(self) -> Mapping[str, object]:
        """The values now, by variable. Called in a thread, never twice at once. An exception is logged."""


class SystemProbe:
    """The host: `cpu_percent`, `memory_percent`, `swap_percent`, `disk_percent` (of /), `load_1m`, `load_5m`, `process_count`,
    and where the host has sensors `temp_c`, the highest of them, and `battery_percent`.
    """

    name = "system"

    def __init__(self) -> None:
        import psutil

        self._psutil = psutil
        psutil.cpu_percent()  # the first call has nothing to compare with

    def __repr__(self) -> str:
        return "SystemProbe()"

    def read(self) -> dict[str, object]:
        """The values of the host now."""
        psutil = self._psutil
        one, five, _ = psutil.getloadavg()
        values: dict[str, object] = {
            "cpu_percent": psutil.cpu_percent(),
            "memory_percent": psutil.virtual_memory().percent,
            "swap_percent": psutil.swap_memory().percent,
            "disk_percent": psutil.disk_usage("/").percent,
            "load_1m": one,
            "load_5m": five,
            "process_count": len(psutil.pids()),
        }
        values |= self._sensors()
        return values

    def _sensors(self) -> dict[str, object]:
        psutil, values = self._psutil, {}
        read_temperatures = getattr(psutil, "sensors_temperatures", None)  # not on every platform
        temperatures = [each.current for group in (read_temperatures() if read_temperatures else {}).values() for each in group]
        if temperatures:
            values["temp_c"] = max(temperatures)
        read_battery = getattr(psutil, "sensors_battery", None)
        battery = read_battery() if read_battery else None
        if battery is not None:
            values["battery_percent"] = battery.percent
        return values


class ProbeReader:
    """Reads a probe at regular intervals."""

    def __init__(self, probe: Probe, measurements: LatestMeasurements, every: float) -> None:
        """`every`: seconds between two readings."""
        self._probe = probe
        self._measurements = measurements
        self._every = every
        self.name = probe.name

    async def run(self) -> None:
        """Take in the values of the probe. Never returns."""
        while True:
            try:
                values = await asyncio.to_thread(self._probe.read)
                self._measurements.put(values, time.monotonic_ns())
            except Exception as error:
                _log.warning("probe %s failed: %s", self.name, error)
            await asyncio.sleep(self._every)


def find_probe(name: str) -> Probe:
    """The probe of that name: `system`, or a probe of an installed package.

    Raises `ConstraintCrdtError` if there is none, or it cannot be made.
    """
    if name == SystemProbe.name:
        return SystemProbe()
    offered = {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
    if name not in offered:
        raise ConstraintCrdtError(f"there is no probe {name!r}: choose from {', '.join(['none', 'system', *sorted(offered)])}")
    try:
        probe = offered[name].load()()
    except Exception as error:
        raise ConstraintCrdtError(f"the probe {name!r} cannot be started: {error}") from error
    if not isinstance(probe, Probe):
        raise ConstraintCrdtError(f"the probe {name!r} has no name and read()")
    return probe
