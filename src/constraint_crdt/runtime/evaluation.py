"""Evaluation: constraints judged when something is measured, and the results counted, timed and told.

Judgements are frequent, so counts gather in memory and are written in a cell per constraint and interval, at most. A killed node
loses the counts of an interval. Counts wait while writes are refused.

Rules kept here:

- A sample is judged when it comes in, before `measure` returns. A look at each tick moves what depends on time alone.
- A tick that comes late by more than `SUSPENDED` means that the node was not running: nothing is known of the time between.
- The state of a constraint is told in a cell when it turns. The first turn is told at once; a constraint that turns often is told
  every `TOLD_EVERY` at most, always with its last state.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from constraint_crdt.crdt.clock import SECOND
from constraint_crdt.crdt.replica import Replica
from constraint_crdt.expression.cel import Measurements, assembled, coerced
from constraint_crdt.expression.evaluation import Evaluation
from constraint_crdt.expression.judgement import Judge, Values
from constraint_crdt.insight.rates import NodeRates
from constraint_crdt.model import VerdictState
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.runtime.change_feed import ChangeFeed
from constraint_crdt.runtime.measurement import PROGRAM, LatestMeasurements
from constraint_crdt.runtime.shared import NodeSketches
from constraint_crdt.types.verdicts import NodeVerdict

JUDGED_AT_ONCE = 500
"""Constraints judged in a turn of the loop. They take some milliseconds."""

RENEWED_AT_ONCE = 20
"""New or redefined constraints read in a turn of the loop. Compiling an expression takes up to a millisecond."""

SUSPENDED = 5 * SECOND
"""The delay of a tick above which the node counts as suspended, in ns."""

TOLD_EVERY = 2 * SECOND
"""The time between two cells on the verdict of a constraint, at least, in ns. A constraint that flaps costs 0.5 cells a second."""

MOST_TOLD = 10_000
"""Constraints with a verdict cell of this node. Further constraints are told by their counts alone."""

VARIABLES_EVERY = 10 * SECOND
"""The time between two cells on the variables of this node, at least, in ns."""

VARIABLES_NONE = 60 * SECOND
"""The time after which a node that measures no variables says so, in ns."""

_log = logging.getLogger("constraint_crdt.node")


class Evaluator:
    """Judges the active constraints of a node, and writes the results."""

    def __init__(
        self,
        gossip: GossipNode,
        feed: ChangeFeed,
        measurements: LatestMeasurements,
        rates: NodeRates,
        sketches: NodeSketches,
        *,
        push: Callable[[], None],
        every: float,
    ) -> None:
        """`push` has peers learn of a verdict at once. `every`: seconds between two ticks."""
        self._suspended = SUSPENDED + int(2 * every * SECOND)
        self._gossip = gossip
        self._feed = feed
        self._measurements = measurements
        self._rates = rates
        self._sketches = sketches
        self.judge = Judge(gossip.state.constraints, measurements, lambda: gossip.labels, gossip.time.now)
        self.changes = 0
        """Grows with each evaluation that differs from the last."""
        self._subscribers: list[Callable[[str], None]] = []
        self._verdicts = _VerdictCells(gossip, feed, self.judge, push)
        self._judging = asyncio.Lock()
        self._described: int | None = None
        self._began = time.monotonic_ns()
        self._ticked: int | None = None

    def subscribe(self, subscriber: Callable[[str], None]) -> None:
        """Call `subscriber` with each constraint whose evaluation differs from the last."""
        self._subscribers.append(subscriber)

    # --- readings ----------------------------------------------------------------------------------------------------------

    def last(self, id_: str) -> Evaluation | None:
        """The last evaluation of a constraint; None before the first, and for a constraint without a definition for this node."""
        return self.judge.evaluation(id_)

    def unknown(self, id_: str) -> int:
        """The number of undecided judgements of a constraint."""
        return self.judge.unknown(id_)

    def since(self, id_: str) -> int | None:
        """The begin of the verdict state of a constraint, in ns since the epoch; of a violation, the first violated evaluation."""
        return self.judge.since(id_, time.monotonic_ns())

    def verdict(self, id_: str) -> NodeVerdict | None:
        """The verdict on a constraint, with the values and the margin; None as for `last`."""
        return self.judge.verdict(id_, time.monotonic_ns())

    def times(self, id_: str) -> tuple[int, int, int]:
        """The time satisfied, violated and unknown of a constraint, in ms, that this node did not write yet."""
        return self.judge.times(id_, time.monotonic_ns())

    @property
    def violated(self) -> int:
        """The number of constraints violated on this node now."""
        return self.judge.violated

    @property
    def measured(self) -> int:
        """Grows when something is measured."""
        return self._measurements.taken

    @property
    def undecided(self) -> int:
        """The number of constraints unknown on this node now."""
        return self.judge.undecided

    # --- judging -----------------------------------------------------------------------------------------------------------

    async def measure(self, values: Mapping[str, object], source: str = PROGRAM) -> None:
        """Take measurements in, and judge the constraints that read them.

        Raises `ConstraintCrdtError` for a name that no expression can read and for a value out of bounds; takes none then.
        """
        async with self._judging:  # samples are judged in their order, each with the values of its time
            self._renew_some()  # so that a sample just after an addition counts for the constraint
            now = time.monotonic_ns()
            self._measurements.put(values, now, source)
            await self._judge(self.judge.readers(values), now)

    async def check(self, values: Mapping[str, object]) -> list[Evaluation]:
        """Judge all constraints against these values and the latest measurements. Other tasks run in between."""
        await self.renew()
        async with self._judging:
            return await self._judge(self.judge.ids, time.monotonic_ns(), _Given(self._measurements, values))

    async def renew(self) -> None:
        """Read and judge new and redefined constraints. Other tasks run in between, and samples are judged in between."""
        while True:
            async with self._judging:
                if not self._renew_some():
                    return
            await asyncio.sleep(0)

    def _measured(self, evaluation: Evaluation, now: int, values: Values) -> Evaluation:
        """The evaluation with its margin."""
        found = self.judge.verdict(evaluation.constraint, now, values)
        if found is None:
            return evaluation
        return evaluation._replace(margin=found.margin, margin_share=found.share, margin_variable=found.variable)

    async def tick(self) -> None:
        """Look at the constraints that time moves."""
        async with self._judging:
            now = time.monotonic_ns()
            if self._ticked is not None and now - self._ticked > self._suspended:
                self.judge.suspend(self._ticked)
                await self._look(self.judge.ids, now)
            for at, names in self._measurements.aged(now).items():
                await self._look(self.judge.readers(names), at)
            self.judge.look(time.monotonic_ns())
            self._publish()
            self._ticked = time.monotonic_ns()
        self._verdicts.restate()
        self._describe(now)

    async def _look(self, ids: Sequence[str], at: int) -> None:
        for start in range(0, len(ids), JUDGED_AT_ONCE):
            self.judge.aged(ids[start : start + JUDGED_AT_ONCE], at)
            self._publish()
            await asyncio.sleep(0)

    def _describe(self, now: int) -> None:
        """Tell the fleet which variables this node measures, if that changed, and once if it measures none."""
        described, measured = self._described, self._measurements
        if described is None:
            due = measured.names_changed or now - self._began >= VARIABLES_NONE
        else:
            due = measured.names_changed and now - described >= VARIABLES_EVERY
        if due and self._feed.writable:
            self._described = now
            self._feed.write(lambda: self._gossip.describe_variables(measured.take_kinds(now), even_none=True))

    def _renew_some(self) -> bool:
        """Read and judge some new and redefined constraints. False if there are none."""
        ids = self.judge.stale(RENEWED_AT_ONCE)
        if ids:
            now = time.monotonic_ns()
            fresh = self.judge.renew(ids, now)
            spans = self.judge.take_spans()
            if spans is not None:
                self._measurements.require(spans)
            self.judge.judge(fresh, now)
            self._publish()
        return bool(ids)

    async def _judge(self, ids: Sequence[str], now: int, values: Values | None = None) -> list[Evaluation]:
        evaluations = []
        for start in range(0, len(ids), JUDGED_AT_ONCE):
            judged = self.judge.judge(ids[start : start + JUDGED_AT_ONCE], now, values)
            evaluations += judged if values is None else [self._measured(each, now, values) for each in judged]
            self._publish()
            if start + JUDGED_AT_ONCE < len(ids):
                await asyncio.sleep(0)
        return evaluations

    def _publish(self) -> None:
        """Tell the node of changed evaluations and of turns."""
        changed, turns = self.judge.take_changes()
        self.changes += len(changed)
        for id_ in changed:
            for subscriber in self._subscribers:
                subscriber(id_)
        if turns:
            self._feed.evaluate(turns)
        self._verdicts.note(changed)

    def recorded(self, constraint: str | None, satisfied: int, violations: int) -> None:
        """Evaluations made elsewhere were written: count them in the recent rates and the most violated, too."""
        self._sketches.note({constraint: (satisfied, violations)})
        self._rates.note({constraint: (satisfied, violations)})

    # --- writing -----------------------------------------------------------------------------------------------------------

    async def write_counts(self) -> None:
        """Write the counts. A count beyond 2**63 - 1 is refused alone, and dropped."""
        if self._feed.writable and (counts := self.judge.take_counts()):
            for error in self._feed.write(lambda: self._gossip.record_each(counts)).values():
                _log.warning("a judgement is not counted: %s", error)
            self._sketches.note(counts)
            self._rates.note(counts)

    async def write_verdicts(self) -> None:
        """Write the verdicts that waited for their time."""
        self._verdicts.write()

    async def write_times(self) -> None:
        """Write the time satisfied, violated and unknown of each constraint."""
        if self._feed.writable and (times := self.judge.take_times(time.monotonic_ns())):
            for error in self._feed.write(lambda: self._gossip.record_seconds(times)).values():
                _log.warning("the time of a constraint is not counted: %s", error)

    async def write_sketches(self) -> None:
        """Write the counts of violations to the sketch."""
        if self._sketches.waiting and self._feed.writable:
            self._feed.write(self._sketches.write_waiting)

    async def write_rates(self) -> None:
        """Write the recent rates."""
        if self._rates.waiting and self._feed.writable:
            self._feed.write(self._rates.write_waiting)


class _VerdictCells:
    """The cells on the verdicts of this node: what waits to be told, and when it may be."""

    def __init__(self, gossip: GossipNode, feed: ChangeFeed, judge: Judge, push: Callable[[], None]) -> None:
        self._gossip = gossip
        self._feed = feed
        self._judge = judge
        self._push = push
        self._told: dict[str, VerdictState] = {}
        """The states told by this life."""
        self._told_at: dict[str, int] = {}
        """The times of cells within `TOLD_EVERY`."""
        self._waiting: dict[str, None] = {}
        self._life: Replica | None = None

    def note(self, changed: Iterable[str]) -> None:
        """The evaluations of these constraints changed: tell those that turned."""
        for id_ in changed:
            evaluation = self._judge.evaluation(id_)
            state = VerdictState.OFF if evaluation is None else evaluation.state
            if state is not self._told.get(id_, VerdictState.HOLDS) and not self._is_trivial(id_, state):
                self._waiting[id_] = None
        self.write()

    def _is_trivial(self, id_: str, state: VerdictState) -> bool:
        """True for what other nodes know without a cell: off, and undecided on a node that measures none of the variables."""
        if id_ in self._told:
            return False
        if state is VerdictState.OFF or len(self._told) >= MOST_TOLD:
            return True
        return state is VerdictState.UNKNOWN and not self._judge.measures_some(id_)

    def restate(self) -> None:
        """Take over the verdicts of a former life of this node, once for each life."""
        if self._life == self._gossip.replica or not self._feed.writable:
            return
        former = self._gossip.state.verdicts.restated(self._gossip.replica)
        self._life = self._gossip.replica
        self._told.update((id_, each.state) for id_, each in former.items())
        self._waiting.update(dict.fromkeys(former))
        self.write()

    def write(self) -> None:
        """Write the verdicts whose time has come."""
        if not self._waiting or not self._feed.writable:
            return
        now = time.monotonic_ns()
        self._told_at = {id_: at for id_, at in self._told_at.items() if now - at < TOLD_EVERY}
        due = [id_ for id_ in self._waiting if id_ not in self._told_at]
        if not due:
            return
        verdicts = {id_: self._judge.verdict(id_, now) for id_ in due}
        self._feed.write(lambda: self._gossip.record_verdicts(verdicts))
        for id_, verdict in verdicts.items():
            del self._waiting[id_]
            self._told_at[id_] = now
            if verdict is None:
                self._told.pop(id_, None)
            else:
                self._told[id_] = verdict.state
        self._push()


class _Given:
    """Values given for a check, in front of the measured ones. None: the variable is missing."""

    def __init__(self, measured: LatestMeasurements, given: Mapping[str, object]) -> None:
        self._measured = measured
        self._given = given
        self._usable, self._unusable = coerced(given)

    def read(self, names: Collection[str], now: int, max_age: int | None = None) -> Measurements:
        """See `judgement.Values.read`."""
        usable, unusable = self._measured.select(names, now, max_age)
        for name in self._given:
            usable.pop(name, None)
            unusable.pop(name, None)
        return assembled(usable | self._usable, unusable | self._unusable, self._measured.windows(now))
