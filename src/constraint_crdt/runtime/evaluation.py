"""Evaluation: constraints judged when something is measured, and the results counted, timed and told.

Judgements are frequent, so counts gather in memory and are written in a cell per constraint and interval, at most. A killed node
loses the counts of an interval. Counts wait while writes are refused.

Rules kept here:

- A sample is judged when it comes in, before `measure` returns. A look at each tick moves the verdicts that depend on time alone.
- A tick that comes late by more than `SUSPENDED` means that the node was not running: nothing is known of the time between.
- A constraint of scope fleet is judged when something moved that it reads of the nodes: soon, but all of them together take at most
  `FLEET_SHARE` of a core. Every node judges; a single live node writes counts, times and the cell, chosen by rendezvous hashing
  without a word between them. A partition has one such node on each side. A node that is no longer chosen empties its cell.
- The state of a constraint is told in a cell when it turns. After a calm time, `TOLD_AT_ONCE` turns are told at once; a constraint
  that turns often is told every `TOLD_EVERY`, always with its last state.
"""

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from time import perf_counter
from typing import NamedTuple

from constraint_crdt.crdt.cells import Cell
from constraint_crdt.crdt.clock import SECOND, Replica
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.expression.cel import Measurements, assembled, coerced, environment, is_loaded
from constraint_crdt.expression.evaluation import Evaluation
from constraint_crdt.expression.fleet_view import Basis, FleetView, NodeFacts
from constraint_crdt.expression.judgement import Instances, Judge, Milliseconds, Ruling, Values
from constraint_crdt.expression.measurements import InstanceValues, Touched, Windows, flattened, read_instance, series_of, top_of
from constraint_crdt.gossip import steady_ns
from constraint_crdt.insight.history import NodeRates
from constraint_crdt.model import VerdictState
from constraint_crdt.protocol.authority import OBSERVER
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.protocol.sites import weight
from constraint_crdt.runtime.change_feed import ChangeFeed
from constraint_crdt.runtime.measurement import PROGRAM, LatestMeasurements, SharedMeasurements
from constraint_crdt.runtime.persistence import MeasurementRecorder
from constraint_crdt.runtime.shared import NodeSketches
from constraint_crdt.types.counters import COUNTS
from constraint_crdt.types.definition import Selection, check_selector
from constraint_crdt.types.nodes import NODE, cut
from constraint_crdt.types.tile_cells import POSITION
from constraint_crdt.types.variables import Reading, check_scalar
from constraint_crdt.types.verdicts import REASON_BYTES, VIOLATED_STATES, NodeVerdict

JUDGED_AT_ONCE = 500
"""Constraints judged in a turn of the loop, at most. They take some milliseconds."""

JUDGED_TOGETHER = 50
"""Constraints judged without a look at the time."""

SLICE = 0.004
"""Seconds of judging after which other tasks run."""

WRITTEN_AT_ONCE = 200
"""Counts and times written in a turn of the loop, as one transaction. They take some milliseconds."""

VIOLATIONS_AT_ONCE = 1_000
"""Constraints whose violations are counted in the sketch in a turn of the loop: each time all of its pages are written."""

RENEWED_AT_ONCE = 20
"""New or redefined constraints read in a turn of the loop. Compiling an expression takes up to a millisecond."""

SUSPENDED = 5 * SECOND
"""The delay of a tick above which the node counts as suspended, in ns."""

TOLD_EVERY = 2 * SECOND
"""The time between two cells on a constraint that turns often, in ns. A flapping constraint costs 0.5 cells a second."""

TOLD_AT_ONCE = 3
"""Turns of a constraint told without a pause after a calm time: unknown, pending and violated in a row are told at once."""

REASON_EVERY = 10 * SECOND
"""The time between a cell and the next with another reason only, in ns."""

TOLD_TOGETHER = 1_000
"""Verdicts told as one transaction. Other tasks run while they are prepared."""

SAME_SPELL = SECOND // 2
"""The difference of the begins of a spell before and after a restart, at most, in ns: the clocks are read again."""

MOST_TOLD = 10_000
"""Constraints with a verdict cell of this node. Further constraints are told by their counts alone."""

VARIABLES_EVERY = 10 * SECOND
"""The time between two cells on the variables of this node, at least, in ns."""

TELL_EVERY = 0.25
"""Seconds between two looks for verdicts whose time to be told has come, while some wait."""

VARIABLES_NONE = 60 * SECOND
"""The time after which a node that measures no variables says so, in ns."""

SHARE_EVERY = 0.25
"""Seconds between two looks for readings whose time to be told has come, while some wait."""

FLEET_EVERY = 0.25
"""Seconds between two judgements of the constraints of scope fleet, at least."""

FLEET_SHARE = 0.02
"""The share of a core that these judgements may take."""

FLEET_AT_MOST = 10.0
"""Seconds between two judgements of the constraints of scope fleet, at most, whatever they take."""

_log = logging.getLogger("constraint_crdt.node")


def _machine_ns() -> int:
    return steady_ns()


class FleetWatch:
    """The nodes of the fleet as this node sees them, and the node that writes the counts of a constraint of scope fleet."""

    def __init__(self, gossip: GossipNode, live: Set[str]) -> None:
        """`live`: the other live nodes, as a changing view."""
        self._gossip = gossip
        self._live = live
        self._seen: set[str] = set()
        self._able: set[str] = set()
        self._described: dict[str, Mapping[str, str]] | None = None
        self._placed: Mapping[str, tuple[int, int]] | None = None
        self._writers: dict[str, str] = {}
        self.view = FleetView(self._names, self._facts)
        self.moved = asyncio.Event()
        """Set when anything moved."""
        self.took = 0.0
        """CPU seconds that judgements of constraints of scope fleet took."""
        state = gossip.state
        state.readings.subscribe(lambda node, _: self._note(node))
        state.retirements.watch(self._note)
        state.rows.watch(NODE, self._describe)
        state.rows.watch(POSITION, self._place)

    def __repr__(self) -> str:
        return f"FleetWatch({len(self._seen) + 1} live nodes)"

    def _note(self, node: str) -> None:
        self.view.note((node,))
        self.moved.set()

    def _describe(self, old: Cell | None, new: Cell | None) -> None:
        self._described = None
        self._note_cell(old, new)

    def _place(self, old: Cell | None, new: Cell | None) -> None:
        self._placed = None
        self._note_cell(old, new)

    def _note_cell(self, old: Cell | None, new: Cell | None) -> None:
        cell = new if new is not None else old
        if cell is not None:
            self._note(cell.replica.node_id)

    def _names(self) -> set[str]:
        state = self._gossip.state
        written = {replica.node_id for replica in state.rows.clock_entries}
        return (written | {self._gossip.node_id} | self._live).difference(state.retirements.nodes)

    def selected(self, on: Selection | None) -> int:
        """The number of the nodes that a selector matches. Raises `ConstraintCrdtError` for a wrong selector. O(nodes)."""
        selector, facts = check_selector(on), map(self._facts, self._names())
        return sum(each is not None and selector.matches(each.labels) for each in facts)

    def _facts(self, node: str) -> NodeFacts | None:
        state, me = self._gossip.state, self._gossip.node_id
        if node in state.retirements:
            return None
        if self._described is None:
            self._described = state.labels
        if self._placed is None:
            self._placed = state.register.by_node
        labels = self._gossip.labels if node == me else self._described.get(node, {})
        return NodeFacts(labels, node == me or node in self._live, self._placed.get(node), state.readings.of(node))

    def follow(self) -> None:
        """Take in the live nodes, and those that may write. O(nodes)."""
        changed = self._live ^ self._seen
        if changed:
            self._seen = set(self._live)
            self.view.note(changed)
            self.moved.set()
        able = self._able_to_write()
        came, self._able = able - self._able, able
        for id_, writer in self._writers.items():
            if writer not in able:
                self._writers[id_] = self._first(id_, able)
            elif came:
                self._writers[id_] = self._first(id_, {writer, *came})

    def _able_to_write(self) -> set[str]:
        """The live nodes that may write counts; this node where there are none."""
        me, authority = self._gossip.node_id, self._gossip.authority
        able = self._seen | ({me} if self._gossip.local.may_count else set())
        if authority is not None:
            able -= {member.node for member in authority.members().values() if member.role == OBSERVER}
        return able or {me}

    @staticmethod
    def _first(id_: str, nodes: Iterable[str]) -> str:
        return max(nodes, key=lambda node: (weight(node, id_, ""), node))

    def writer(self, id_: str) -> str:
        """The node that writes the counts of a constraint of scope fleet, as this node sees the fleet. O(live nodes) at first."""
        writer = self._writers.get(id_)
        if writer is None:
            writer = self._writers[id_] = self._first(id_, self._able or {self._gossip.node_id})
        return writer

    def writes(self, id_: str) -> bool:
        """True if that is this node."""
        return self.writer(id_) == self._gossip.node_id


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
        live: Set[str],
        shared: SharedMeasurements,
        push: Callable[[], None],
        every: float,
        steady: Callable[[], int] | None = None,
        recorder: MeasurementRecorder | None = None,
    ) -> None:
        """`live`: the other live nodes, as a changing view. `shared`: the readings of this node. `push` has peers learn of a
        verdict at once. `every`: seconds between two ticks. `steady`: the clock of samples and ticks, in ns, never set; None: that
        of the machine. `recorder`: records the inputs of verdicts.
        """
        self._recorder = recorder
        self._steady = _machine_ns if steady is None else steady
        self._suspended = SUSPENDED + int(2 * every * SECOND)
        self._gossip = gossip
        self._feed = feed
        self._measurements = measurements
        self._rates = rates
        self._sketches = sketches
        self.fleet = FleetWatch(gossip, live)
        self.shared = shared
        self._unshared = asyncio.Event()
        """Set while a reading may wait to be told."""
        self.judge = Judge(
            gossip.state.constraints, measurements, lambda: gossip.labels, gossip.time.now, self.fleet.view, self.fleet.writes,
            gossip.state.switches,
            lambda definition: gossip.state.parameters.bind(definition, gossip.labels),
            lambda id_, definitions: gossip.state.rollouts.staged(id_, definitions, gossip.labels),
        )  # fmt: skip
        self._reset = asyncio.Event()
        """Set when a parameter changed that a constraint reads."""
        gossip.state.parameters.subscribe(self._note_parameter)
        self.changes = 0
        """Grows with each evaluation that differs from the last."""
        self._subscribers: list[Callable[[str], None]] = []
        self._verdicts = _VerdictCells(gossip, feed, self.judge, push, self._steady)
        self._judging = asyncio.Lock()
        self._checks = 0
        self._described: int | None = None
        self._began = self._steady()
        self._ticked: int | None = None

    def begin(self) -> None:
        """The state was loaded."""
        self._verdicts.recall()

    def now(self) -> int:
        """The time of samples and ticks, in ns."""
        return self._steady()

    @property
    def suspended_after(self) -> int:
        """The ns between two ticks beyond which the node counts as suspended."""
        return self._suspended

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
        return self.judge.since(id_, self._steady())

    def verdict(self, id_: str) -> NodeVerdict | None:
        """The verdict on a constraint, with the values and the margin; None as for `last`."""
        return self.judge.verdict(id_, self._steady())

    def instances(self, id_: str, most: int) -> Instances | None:
        """The instances of a constraint, the worst `most` of them with values; None without a definition with `each`."""
        return self.judge.instances(id_, self._steady(), most)

    def basis(self, id_: str) -> Basis | None:
        """The basis of the verdict on a constraint of scope fleet; None for another constraint."""
        return self.judge.basis(id_)

    def writer(self, id_: str) -> str | None:
        """The node that writes the counts of a constraint of scope fleet, as this node sees the fleet; None for others."""
        return self.fleet.writer(id_) if id_ in self.judge.fleet_ids else None

    def times(self, id_: str) -> tuple[int, int, int]:
        """The time satisfied, violated and unknown of a constraint, in ms, that this node did not write yet."""
        return self.judge.times(id_, self._steady())

    @property
    def violated(self) -> int:
        """The number of constraints violated on this node now."""
        return self.judge.violated

    @property
    def audited(self) -> list[str]:
        """The active constraints of mode audit, ordered."""
        return sorted(self.judge.audited)

    @property
    def measured(self) -> int:
        """Grows when something is measured or checked."""
        return self._measurements.taken + self._checks

    @property
    def undecided(self) -> int:
        """The number of constraints unknown on this node now."""
        return self.judge.undecided

    @property
    def undecided_ids(self) -> Iterator[str]:
        """The constraints unknown on this node now, in no order."""
        return self.judge.undecided_ids

    @property
    def ids(self) -> list[str]:
        """The constraints judged on this node, ordered. O(constraints)."""
        return self.judge.ids

    # --- judging -----------------------------------------------------------------------------------------------------------

    async def measure(
        self,
        values: Mapping[str, object],
        source: str = PROGRAM,
        *,
        reasons: Mapping[str, str | None] | None = None,
        max_age: float | None = None,
    ) -> None:
        """Take measurements in, and judge the constraints that read them. `reasons`: why variables have no value, see
        `LatestMeasurements.explain`. `max_age`: see `LatestMeasurements.put`.

        Raises `ConstraintCrdtError` for a name that no expression can read and for a value out of bounds; takes none then.
        """
        values = flattened(values)
        await self._load_library()
        async with self._judging:  # samples are judged in their order, each with the values of its time
            self._renew_some()  # so that a sample just after an addition counts for the constraint
            now = self._steady()
            self._measurements.put(values, now, source, max_age)
            if reasons:
                self._measurements.explain(reasons)
            self.shared.offer(values)
            if self._recorder is not None:
                self._recorder.take(values, now)
            names = values.keys() | reasons.keys() if reasons else values.keys()
            await self._judge(self.judge.readers(names), now, touched=Touched.of(names))
        await self._verdicts.tell()
        await self.write_readings()
        if self.shared.waiting:
            self._unshared.set()

    async def check(self, values: Mapping[str, object]) -> list[Evaluation]:
        """Judge all constraints against these values and the latest measurements. Other tasks run in between."""
        values = flattened(values)
        await self.renew()
        self._checks += 1
        async with self._judging:
            now = self._steady()
            if self._recorder is not None:
                self._recorder.check(values, now)
            evaluations = await self._judge(self.judge.ids, now, _Given(self._measurements, values))
        await self._verdicts.tell(at_once=True)
        return evaluations

    async def decide(self, values: Mapping[str, object]) -> list[list[Ruling]]:
        """The rulings of the constraints on these values, on top of the present measurements: a list for each constraint.

        Nothing is counted, and neither windows nor states change. A window has a given value as its newest sample. The readings
        that other nodes have of this node are replaced by the given values for this question only.
        """
        values = flattened(values)
        await self.renew()
        found, pace = list[list[Ruling]](), _Pace()
        async with self._judging:
            now, given = steady_ns(), _Given(self._measurements, values, newest=True)
            self.fleet.view.refresh(self._gossip.time.now())
            fleet = self.fleet.view.with_readings(self._gossip.node_id, _readings(values, self._gossip.time.now()))
            ids, names = self.judge.ids, {top_of(name) for name in values}
            for start in range(0, len(ids), JUDGED_TOGETHER):
                found += self.judge.decide(ids[start : start + JUDGED_TOGETHER], now, given, fleet, names)
                await pace.rest()
        return found

    async def renew(self) -> None:
        """Read and judge new and redefined constraints. Other tasks run in between, and samples are judged in between."""
        while self._feed.settle():  # noqa: ASYNC110 - lets other tasks run; nothing is waited for
            await asyncio.sleep(0)
        while True:
            await self._load_library()
            async with self._judging:
                if not self._renew_some():
                    break
            await asyncio.sleep(0)
        await self._verdicts.tell()

    def _note_parameter(self, name: str) -> None:
        if self.judge.set_parameter(name):
            self._reset.set()

    async def run_parameters(self) -> None:
        """Judge the constraints that read a changed parameter, at once. Never returns."""
        while True:
            await self._reset.wait()
            self._reset.clear()
            await self.renew()

    def _measured(self, evaluation: Evaluation, now: int, values: Values) -> Evaluation:
        """The evaluation with its margin."""
        found = self.judge.verdict(evaluation.constraint, now, values)
        if found is None:
            return evaluation
        return evaluation._replace(margin=found.margin, margin_share=found.share, margin_variable=found.variable)

    async def tick(self) -> None:
        """Look at the constraints that time moves."""
        async with self._judging:
            now = self._steady()
            if self._ticked is not None and now - self._ticked > self._suspended:
                self.judge.suspend(self._ticked)
                await self._look(self.judge.ids, now)
            await self._age(now)
            await self._look(self.judge.take_checked(), now)
            at, pace = self._steady(), _Pace()
            due = self.judge.due(at)
            for start in range(0, len(due), JUDGED_TOGETHER):
                self.judge.look_at(due[start : start + JUDGED_TOGETHER], at)
                self._publish()
                await pace.rest()
            self._ticked = self._steady()
            if self._recorder is not None:
                self._recorder.tick(at)
        self.fleet.follow()
        if self.judge.fleet_ids:
            await self.judge_fleet()
        self._verdicts.take_over()
        self._verdicts.note(self.judge.fleet_ids)
        await self._verdicts.tell()
        self._describe(now)
        if not self.judge.stale(1):
            self.shared.require(self.judge.needs(), self._gossip.state.readings.of(self._gossip.node_id))
        await self.write_readings()

    def rest(self) -> bool:
        """A tick at which no value ages, as the caller knows. False if time moves something else: then call `tick`."""
        now = self._steady()
        if self._ticked is None or now - self._ticked > self._suspended or not self.judge.rests(now):
            return False
        self._ticked = now
        return True

    def ages_at(self) -> int | None:
        """See `LatestMeasurements.ages_at`."""
        return self._measurements.ages_at()

    async def judge_fleet(self) -> float:
        """Judge the constraints of scope fleet of which something moved. Returns the CPU seconds that it took."""
        async with self._judging:
            began = time.thread_time()
            await self._judge(self.judge.moved(self._gossip.time.now()), self._steady())
            took = time.thread_time() - began
            self.fleet.took += took
        await self._verdicts.tell()
        return took

    async def run_fleet(self) -> None:
        """Judge the constraints of scope fleet whenever something moved. Never returns."""
        while True:
            await self.fleet.moved.wait()
            self.fleet.moved.clear()
            took = await self.judge_fleet() if self.judge.fleet_ids else 0.0
            await asyncio.sleep(min(max(FLEET_EVERY, took / FLEET_SHARE), FLEET_AT_MOST))

    async def run_readings(self) -> None:
        """Tell the readings that wait, once their time has come. Never returns."""
        while True:
            await self._unshared.wait()
            self._unshared.clear()
            while self.shared.waiting:
                await asyncio.sleep(SHARE_EVERY)
                await self.write_readings()

    async def write_readings(self) -> None:
        """Tell the fleet the readings that are due."""
        if not self.shared.waiting or not self._feed.writable or not self._gossip.local.may_count:
            return
        due = self.shared.take(self._steady(), self._gossip.time.stamp())
        if due:
            self._feed.write(lambda: self._gossip.share_readings(due))

    async def _age(self, now: int) -> None:
        """Look at the constraints that read a value which passed its maximum age, as of that time."""
        for at, names in self._measurements.aged(now).items():
            await self._look(self.judge.readers(names), at)

    async def _look(self, ids: Sequence[str], at: int) -> None:
        pace = _Pace()
        for start in range(0, len(ids), JUDGED_TOGETHER):
            self.judge.aged(ids[start : start + JUDGED_TOGETHER], at)
            self._publish()
            await pace.rest()

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

    async def _load_library(self) -> None:
        """Load the CEL library in a thread, if an expression needs it and none did yet: the loop would stand still."""
        if not is_loaded() and (stale := self.judge.stale(RENEWED_AT_ONCE)) and self.judge.need_library(stale):
            await asyncio.to_thread(environment)

    def _renew_some(self) -> bool:
        """Read and judge some new and redefined constraints. False if there are none."""
        ids = self.judge.stale(RENEWED_AT_ONCE)
        if ids:
            now = self._steady()
            fresh = self.judge.renew(ids, now)
            spans = self.judge.take_spans()
            if spans is not None:
                self._measurements.require(spans)
            self.judge.judge(fresh, now)
            self._publish()
            if self._recorder is not None:
                self._recorder.define(ids, now)
        return bool(ids)

    async def _judge(
        self, ids: Sequence[str], now: int, values: Values | None = None, touched: Touched | None = None
    ) -> list[Evaluation]:
        evaluations, pace = [], _Pace()
        for start in range(0, len(ids), JUDGED_TOGETHER):
            judged = self.judge.judge(ids[start : start + JUDGED_TOGETHER], now, values, touched)
            evaluations += judged if values is None else [self._measured(each, now, values) for each in judged]
            self._publish()
            await pace.rest()
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

    async def write_counts(self, *, at_once: bool = False) -> None:
        """Write the counts. A count beyond 2**63 - 1 is refused alone, and dropped: the other count of its constraint goes on.

        `at_once`: as a single transaction. Else other tasks run in between.
        """
        most = None if at_once else WRITTEN_AT_ONCE
        for _ in range(self.judge.counted // WRITTEN_AT_ONCE + 1):
            if not self._feed.writable or not (counts := self.judge.take_counts(most)):
                break
            counted = self._record(counts)
            self._sketches.note({id_: both for id_, both in counted.items() if id_ not in self.judge.audited})
            self._rates.note(counted)
            if not at_once:
                await asyncio.sleep(0)

    def _record(self, counts: Mapping[str | None, tuple[int, int]]) -> dict[str | None, tuple[int, int]]:
        """Write counts, and return those with room."""
        refused = self._feed.write(lambda: self._gossip.record_each(counts))
        counted = {constraint: both for constraint, both in counts.items() if constraint not in refused}
        for constraint, error in refused.items():
            _log.warning("a judgement is not counted: %s", error)
            satisfied, violated = counts[constraint]
            if satisfied and violated:
                counted |= self._record({constraint: (satisfied, 0)}) | self._record({constraint: (0, violated)})
        return counted

    async def write_verdicts(self, *, final: bool = False) -> None:
        """Write the verdicts that waited. `final`: before their time."""
        async with self._judging:
            pass  # a sample in judgement is judged first: its turns are one transaction
        await self._verdicts.tell_waiting(final=final)

    async def run_verdicts(self) -> None:
        """Write the verdicts that wait, once their time has come. Never returns."""
        while True:
            await self._verdicts.until_waiting()
            await asyncio.sleep(TELL_EVERY)
            await self.write_verdicts()

    async def write_times(self) -> None:
        """Write the time satisfied, violated and unknown of each constraint."""
        async with self._judging:
            now = self._steady()
            await self._age(now)
        ids = self.judge.timed_ids
        for start in range(0, len(ids), WRITTEN_AT_ONCE):
            async with self._judging:
                chosen = ids[start : start + WRITTEN_AT_ONCE] if self._feed.writable else ()
                times = self.judge.take_times(self._steady(), chosen)
            if times:
                self._write_times(times)
            await asyncio.sleep(0)

    def _write_times(self, times: Mapping[str, Milliseconds]) -> None:
        for error in self._feed.write(lambda: self._gossip.record_seconds(times)).values():
            _log.warning("the time of a constraint is not counted: %s", error)

    async def write_sketches(self) -> None:
        """Write the counts of violations to the sketch."""
        for _ in range(self._sketches.waiting // VIOLATIONS_AT_ONCE + 1):
            if not self._sketches.waiting or not self._feed.writable:
                break
            self._feed.write(lambda: self._sketches.write_waiting(VIOLATIONS_AT_ONCE))
            await asyncio.sleep(0)

    async def write_rates(self) -> None:
        """Write the recent rates."""
        for _ in range(self._rates.waiting // WRITTEN_AT_ONCE + 1):
            if not self._rates.waiting or not self._feed.writable:
                break
            self._feed.write(lambda: self._rates.write_waiting(WRITTEN_AT_ONCE))
            await asyncio.sleep(0)


class _Pace:
    """Leaves the loop to other tasks now and then, between steps of `JUDGED_TOGETHER` constraints."""

    def __init__(self) -> None:
        self._began = perf_counter()
        self._steps = 0

    async def rest(self) -> None:
        """Let other tasks run, if the steps since they did took a slice of time or were many."""
        self._steps += 1
        if perf_counter() - self._began >= SLICE or self._steps * JUDGED_TOGETHER >= JUDGED_AT_ONCE:
            await asyncio.sleep(0)
            self._began, self._steps = perf_counter(), 0


class _Prepared(NamedTuple):
    """A verdict, and the evaluation that it was made of."""

    evaluation: Evaluation | None
    verdict: NodeVerdict | None


_AGE = re.compile(r" \(\d+ s old\)")


class _Turn(NamedTuple):
    """A verdict state as it was told."""

    state: VerdictState
    since: int
    """Its begin in ns since the epoch."""
    reason: str
    """Without the ages in it, which differ each second."""

    @classmethod
    def of(cls, verdict: NodeVerdict) -> "_Turn":
        """That of a verdict."""
        return cls(verdict.state, verdict.since, _AGE.sub("", cut(verdict.reason, REASON_BYTES)))


class _VerdictCells:
    """The cells on the verdicts of this node: the constraints that have a cell, the waiting verdicts, and when they may be told."""

    def __init__(
        self, gossip: GossipNode, feed: ChangeFeed, judge: Judge, push: Callable[[], None], steady: Callable[[], int]
    ) -> None:
        self._steady = steady
        self._gossip = gossip
        self._feed = feed
        self._judge = judge
        self._push = push
        self._told: dict[str, _Turn | None] = {}
        """The last turn told of each constraint with a cell of this node, or with a turn that waits."""
        self._recalled: set[str] = set()
        """Those of them whose turn was told before the start, or by another life."""
        self._waiting: dict[str, None] = {}
        self._waits = asyncio.Event()
        self._fresh: dict[str, None] = {}
        """Those that began to wait since the last call of `tell`."""
        self._paced: dict[str, int] = {}
        """The time until which the cells of a constraint fill the rate of a cell per `TOLD_EVERY`."""
        self._restated: dict[str, int] = {}
        """The time before which a constraint is not told for another reason alone."""
        self._lives: tuple[Replica, Mapping[Replica, int]] | None = None
        """This life, and the rows of the others of this node, as of the last takeover."""

    def note(self, changed: Iterable[str]) -> None:
        """The evaluations of these constraints changed: have the turns told, where others cannot know them without a cell."""
        for id_ in changed:
            if self._turned(id_) if id_ in self._told else self._is_news(id_):
                self._wait(id_)

    def _turned(self, id_: str) -> bool:
        """True if a constraint turned since it was told, or has another reason that concerns all nodes.

        That is any of scope fleet; else a violation whose values are missing now, or are there again. Another reason of a node in
        the same state is no turn.
        """
        return self._has_other_state(id_) or self._has_other_reason(id_)

    def _has_other_reason(self, id_: str) -> bool:
        told, evaluation = self._told[id_], self._judge.evaluation(id_)
        if told is None or evaluation is None or not self._judge.writes(id_):
            return False
        if id_ not in self._judge.fleet_ids:
            return told.state in VIOLATED_STATES and bool(evaluation.reason) != bool(told.reason)
        return _AGE.sub("", cut(evaluation.reason, REASON_BYTES)) != told.reason

    def _has_other_state(self, id_: str) -> bool:
        if not self._judge.writes(id_):
            return self._told[id_] is not None
        told, evaluation = self._told[id_], self._judge.evaluation(id_)
        if told is None or evaluation is None or evaluation.state is not told.state:
            return True
        if told.state is not VerdictState.HOLDS and not self._judge.is_about(id_, told.reason):
            return True
        since, error = self._judge.since(id_, self._steady()), SAME_SPELL if id_ in self._recalled else 0
        return told.state is not VerdictState.HOLDS and (since is None or abs(since - told.since) > error)

    def _wait(self, id_: str) -> None:
        self._told.setdefault(id_)
        self._waiting[id_] = self._fresh[id_] = None
        self._waits.set()

    async def until_waiting(self) -> None:
        """Return once a verdict waits to be told."""
        while not self._waiting:
            self._waits.clear()
            await self._waits.wait()

    def _is_news(self, id_: str) -> bool:
        """False for a state assumed of a constraint without a cell: it holds, is off, or unknown to a node without its values."""
        evaluation = self._judge.evaluation(id_) if self._judge.writes(id_) else None
        if evaluation is None or evaluation.state in (VerdictState.HOLDS, VerdictState.OFF) or len(self._told) >= MOST_TOLD:
            return False
        return evaluation.state is not VerdictState.UNKNOWN or self._judge.is_known(id_) or self._was_judged(id_)

    def _was_judged(self, id_: str) -> bool:
        """True if a life of this node counted judgements of the constraint: its sensor is dead since, not missing."""
        me = self._gossip.node_id
        return any(cell.replica.node_id == me for cell in self._gossip.state.rows.held(COUNTS, id_))

    def recall(self) -> None:
        """The state was loaded: go on from the cells of this node in it."""
        told = self._gossip.state.verdicts.told_by(self._gossip.node_id)
        self._told = {id_: _Turn.of(verdict) for id_, (_, verdict) in told.items()}
        self._recalled = set(told)
        self._restated = dict.fromkeys(told, self._steady() + REASON_EVERY)  # the sensors of this node may take a while to start

    def take_over(self) -> None:
        """Restate the verdicts of former lives of this node, and tell the changes of its absence.

        A spell that goes on is restated as it was told, with the values of its turn. Cells of a former life may come at any time.
        """
        me, rows = self._gossip.replica, self._gossip.state.rows.clock_entries
        lives = me, {each: seq for each, seq in rows.items() if each.node_id == me.node_id and each != me}
        if lives == self._lives or self._judge.stale(1) or not self._feed.writable:
            return
        self._lives, same = lives, dict[str, NodeVerdict | None]()
        for id_, (replica, verdict) in self._gossip.state.verdicts.told_by(me.node_id).items():
            self._told[id_] = _Turn.of(verdict)
            if replica != me:
                self._recalled.add(id_)
                self._restated[id_] = self._steady() + REASON_EVERY
            if self._has_other_state(id_) or (id_ in self._judge.fleet_ids and self._has_other_reason(id_)):
                self._wait(id_)
            elif replica != me and verdict.state is not VerdictState.HOLDS:
                same[id_] = verdict
        if same:
            self._feed.write(lambda: self._gossip.record_verdicts(same))
            self._push()

    async def tell(self, *, at_once: bool = False) -> None:
        """Write the verdicts that turned since the last call; those beyond their rate go on waiting. `at_once`: without a rest."""
        fresh, self._fresh = self._fresh, {}
        await self._write(list(fresh), at_once=at_once)

    async def tell_waiting(self, *, final: bool) -> None:
        """Write the verdicts that wait. `final`: those beyond their rate as well."""
        now = self._steady()
        self._paced = {id_: until for id_, until in self._paced.items() if until > now and not final}
        self._restated = {id_: until for id_, until in self._restated.items() if until > now and not final}
        await self._write(list(self._waiting))

    async def _write(self, ids: Sequence[str], *, at_once: bool = False) -> None:
        for start in range(0, len(ids), TOLD_TOGETHER):
            if start:
                await asyncio.sleep(0)
            prepared = {} if at_once else await self._prepared(ids[start : start + TOLD_TOGETHER])
            now = self._steady()
            due = [id_ for id_ in ids[start : start + TOLD_TOGETHER] if self._is_due(id_, now)]
            if due and self._feed.writable:
                self._put({id_: self._current(id_, prepared.get(id_), now) for id_ in due}, now)

    async def _prepared(self, ids: Sequence[str]) -> dict[str, "_Prepared"]:
        """The verdicts of those of these that are due. Other tasks run in between."""
        found, pace = dict[str, _Prepared](), _Pace()
        for start in range(0, len(ids), JUDGED_TOGETHER):
            now = self._steady()
            for id_ in ids[start : start + JUDGED_TOGETHER]:
                if self._is_due(id_, now):
                    found[id_] = _Prepared(self._judge.evaluation(id_), self._verdict(id_, now))
            await pace.rest()
        return found

    def _current(self, id_: str, prepared: "_Prepared | None", now: int) -> NodeVerdict | None:
        """The verdict as prepared, unless the constraint turned since."""
        if prepared is None:
            return self._verdict(id_, now)
        told = prepared.verdict
        turned = self._judge.evaluation(id_) is not prepared.evaluation or (told and told.since != self._judge.since(id_, now))
        return self._verdict(id_, now) if turned or not self._judge.writes(id_) else told

    def _verdict(self, id_: str, now: int) -> NodeVerdict | None:
        """The verdict to be told; None where another node tells it."""
        return self._judge.verdict(id_, now) if self._judge.writes(id_) else None

    def _is_due(self, id_: str, now: int) -> bool:
        """False for a constraint that does not wait, was told too often, or whose definition is read soon."""
        ahead = self._paced.get(id_, now) - now
        if id_ not in self._waiting or ahead > (TOLD_AT_ONCE - 1) * TOLD_EVERY or self._judge.is_stale(id_):
            return False
        if self._restated.get(id_, now) <= now or self._has_other_state(id_):
            return True
        return id_ not in self._recalled and id_ not in self._judge.fleet_ids

    def _put(self, verdicts: Mapping[str, NodeVerdict | None], now: int) -> None:
        self._feed.write(lambda: self._gossip.record_verdicts(verdicts))
        for id_, verdict in verdicts.items():
            del self._waiting[id_]
            self._recalled.discard(id_)
            self._paced[id_] = max(now, self._paced.get(id_, now)) + TOLD_EVERY
            if verdict is None:
                del self._told[id_]
            else:
                self._told[id_] = _Turn.of(verdict)
                self._restated[id_] = now + REASON_EVERY
        self._push()


class _Given:
    """Values given for a check, in front of the measured ones. None: the variable is missing."""

    def __init__(self, measured: LatestMeasurements, given: Mapping[str, object], *, newest: bool = False) -> None:
        """`newest`: the given values are the newest samples of the windows, too."""
        self._measured = measured
        self._given = given
        self._newest = newest
        self._windows: tuple[int, Windows] | None = None
        self._usable, self._unusable = coerced({name: value for name, value in given.items() if "{" not in name})
        self._instances, _ = coerced({name: value for name, value in given.items() if "{" in name})

    def read_each(
        self, names: Collection[str], label: str, now: int, max_age: int | None = None, only: Collection[str] | None = None
    ) -> dict[str, InstanceValues]:
        """See `judgement.Values.read_each`. A value given without a label is that of each instance."""
        usable, unusable = self._select(names, now, max_age)
        given: dict[str, dict[str, object]] = {}
        for name in names:
            if name in self._given:
                there = self._measured.instances(name, label)
                given[series_of(name, label)] = dict.fromkeys(there, self._usable.get(name))
        for name in self._given:
            instance = read_instance(name)
            if instance is not None:
                given.setdefault(instance.series, {})[instance.value] = self._instances.get(name)
        windows = self._windows_at(now)
        return self._measured.select_each(names, label, now, max_age, only, windows, usable, unusable, given)

    def read(self, names: Collection[str], now: int, max_age: int | None = None) -> Measurements:
        """See `judgement.Values.read`."""
        return assembled(*self._select(names, now, max_age), self._windows_at(now))

    def _select(self, names: Collection[str], now: int, max_age: int | None) -> tuple[dict[str, object], dict[str, str]]:
        usable, unusable = self._measured.select(names, now, max_age)
        for name in self._given:
            usable.pop(name, None)
            unusable.pop(name, None)
        return usable | self._usable, unusable | self._unusable

    def _windows_at(self, now: int) -> Windows:
        windows = self._measured.windows(now)
        if not self._newest:
            return windows
        if self._windows is None or self._windows[0] != now:
            self._windows = now, windows.with_newest(self._given)
        return self._windows[1]


def _readings(values: Mapping[str, object], time: int) -> dict[str, Reading]:
    """The given values that a node could share, as its readings."""
    found = {}
    for name, value in values.items():
        with contextlib.suppress(ConstraintCrdtError):
            found[name] = Reading(check_scalar(name, value), time)
    return found
