"""Backtests: the outcome of rules for recorded measurements, against the outcome of other rules.

A source (`Source`) has the measurements of a node in one life: a recording (`persistence.MeasurementRecorder`), or answers of
Prometheus. Each set of rules runs on a node in virtual time (`rule_tests`), which takes the same samples, ticks and checks at the
same times.

Rules kept here:

- A source that was recorded without a deadband gives the verdict changes of its node, to the ns.
- The rules of before are those of the recording, each from the time at which it was in force there, unless others are given. New
  rules are in force from the begin.
- A variable that no rule reads is not replayed. A constraint that both sets define alike is judged once.
- Constraints of scope fleet are left out: a recording is of a single node.
"""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec

from constraint_crdt.alerts import AlertRule, ViolationRate, read_rules
from constraint_crdt.crdt.cells import read_cell
from constraint_crdt.crdt.clock import SECOND, Replica
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.expression import check_names
from constraint_crdt.expression.evaluation import expressions_of
from constraint_crdt.expression.judgement import Judge
from constraint_crdt.expression.measurements import MAX_INSTANCES, instance_name, read_instance
from constraint_crdt.expression.temporal import read_spells
from constraint_crdt.model import Scope, VerdictState
from constraint_crdt.runtime.evaluation import Evaluator
from constraint_crdt.runtime.persistence import (
    MEASUREMENTS_ENDING,
    Begun,
    Checked,
    Defined,
    MeasurementFrame,
    Named,
    Taken,
    Ticked,
    read_measurements,
)
from constraint_crdt.runtime.rule_tests import Rules, TimedAlert, TimedTurn, VirtualClock, VirtualFleet, VirtualNode, silent
from constraint_crdt.runtime.settings import NodeSettings, VariableSettings
from constraint_crdt.simulation.recorder import RecordingError
from constraint_crdt.types.definition import Definition, read_addition
from constraint_crdt.types.parameters import Parameters
from constraint_crdt.types.verdicts import VIOLATED_STATES

MOST_TURNS = 200_000
"""Verdict changes kept of a set of rules. Further ones are counted."""

AT_ONCE = 10 * SECOND
"""A constraint that a recording defines this soon, and once, was in force from the begin."""

Definitions = Mapping[str, Sequence[Definition]]
"""The definitions in force, by constraint."""

NO_DEFINITIONS: Definitions = {}

NO_LABELS: Mapping[str, Collection[str]] = {}


# --- sources ----------------------------------------------------------------------------------------------------------------


class Samples(NamedTuple):
    """Values measured together. None: withdrawn."""

    passed: int
    """ns since the begin of the source."""
    names: tuple[str, ...]
    values: Sequence[object]


class Tick(NamedTuple):
    """The node looked for changes by time."""

    passed: int


class Check(NamedTuple):
    """All constraints were judged by given values."""

    passed: int
    values: Mapping[str, object]


class Redefinition(NamedTuple):
    """Other definitions are in force."""

    passed: int
    definitions: Definitions


Input = Samples | Tick | Check | Redefinition


class Beginning(NamedTuple):
    """A node at the begin of a source."""

    node: str
    wall: int
    """ns since the epoch."""
    steady: int
    """The same moment by the clock of samples and ticks."""
    labels: Mapping[str, str] = {}
    max_age: float = 30.0
    max_ages: Mapping[str, float] = {}
    check_every: float = 1.0
    samples: Mapping[str, tuple[int, object]] = {}
    """The latest sample of each variable, with its time by the clock of samples."""
    definitions: Definitions = NO_DEFINITIONS
    spells: bytes = b""
    alerts: Sequence[AlertRule] = ()


class Source(Protocol):
    """The measurements of a node."""

    @property
    def beginning(self) -> Beginning:
        """The node at the begin."""

    def inputs(self) -> Iterator[Input]:
        """The inputs of the node, by time. Raises `RecordingError`."""

    def defined_once(self) -> Definitions | None:
        """The definitions of constraints that were in force from the begin to the end; None if the source has none at all."""


class Recording:
    """The files of a life of a node, in their order."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """`paths`: parts of the same life, each following the part before. Raises `RecordingError`."""
        self._paths = paths
        begun = _head(paths[0])
        self.beginning = Beginning(
            begun.node, begun.wall, begun.steady, begun.labels, begun.max_age, begun.max_ages, begun.check_every, begun.samples,
            _definitions(begun.cells), begun.spells, _alerts(begun.alerts),
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"Recording({[str(path) for path in self._paths]})"

    def _frames(self) -> Iterator[MeasurementFrame]:
        for path in self._paths:
            yield from read_measurements(path)

    def inputs(self) -> Iterator[Input]:
        """See `Source`."""
        names: list[tuple[str, ...]] = []
        at, begin = 0, self.beginning.steady
        for frame in self._frames():
            if isinstance(frame, Begun):
                at, names = frame.steady - begin, []
                continue
            if isinstance(frame, Named):
                names.append(frame.names)
                continue
            at += frame.passed
            if isinstance(frame, Taken):
                if frame.names >= len(names) or len(frame.values) != len(names[frame.names]):
                    raise RecordingError(f"{self._paths[0]} is damaged: it has samples of variables that it does not name")
                yield Samples(at, names[frame.names], frame.values)
            elif isinstance(frame, Ticked):
                yield Tick(at)
            elif isinstance(frame, Checked):
                yield Check(at, frame.values)
            else:
                yield Redefinition(at, _definitions(frame.cells))

    def defined_once(self) -> Definitions:
        """See `Source`."""
        found = dict(self.beginning.definitions)
        changed, at = set[str](), 0
        for frame in self._frames():
            if isinstance(frame, Begun):
                at = frame.steady - self.beginning.steady
            elif not isinstance(frame, Named):
                at += frame.passed
            if isinstance(frame, Defined):
                again = frame.cells.keys() & found.keys()
                changed |= frame.cells.keys() if at > AT_ONCE else again
                found |= _definitions(frame.cells)
        return {id_: each for id_, each in found.items() if id_ not in changed and each}


def _head(path: Path) -> Begun:
    begun = next(read_measurements(path))
    if not isinstance(begun, Begun):
        raise RecordingError(f"{path} is no recording of measurements: it does not begin with a node")
    return begun


def _definitions(cells: Mapping[str, Sequence[bytes]]) -> dict[str, tuple[Definition, ...]]:
    try:
        return {id_: tuple(read_addition(_bound(data)).definition for data in each) for id_, each in cells.items()}
    except (ConstraintCrdtError, msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise RecordingError(f"a recording is damaged: a definition in it cannot be read ({error})") from None


def _bound(data: bytes) -> Any:
    cell = read_cell(data)
    cell.replica, cell.seq = Replica("recording", 1), 1
    return cell


def _alerts(tables: Sequence[Any]) -> tuple[AlertRule, ...]:
    """The alert rules of a recording, without those of a later version."""
    found: list[AlertRule] = []
    for table in tables:
        try:
            found += read_rules([table])
        except ConstraintCrdtError:
            continue
    return tuple(found)


def read_recordings(names: Sequence[str]) -> list[Recording]:
    """The recordings in these files and directories, each of a life of a node, by time. The older part beside a file belongs to it.

    Raises `RecordingError` for a file that is none, and for a directory without any.
    """
    paths: dict[Path, None] = {}
    for name in names:
        path = Path(name)
        found = sorted(path.glob(f"*{MEASUREMENTS_ENDING}*")) if path.is_dir() else [path]
        if not found:
            raise RecordingError(f"{path} has no recording: their names end in {MEASUREMENTS_ENDING}")
        for each in found:
            older = each.with_name(f"{each.name}.1")
            paths |= dict.fromkeys([older, each] if older.exists() else [each])
    heads = sorted(((_head(path), path) for path in paths), key=lambda each: (each[0].node, each[0].life, each[0].part))
    recordings: list[list[tuple[Begun, Path]]] = []
    for head, path in heads:
        last = recordings[-1][-1][0] if recordings else None
        if last is not None and (last.node, last.life, last.part + 1) == (head.node, head.life, head.part):
            recordings[-1].append((head, path))
        else:
            recordings.append([(head, path)])
    recordings.sort(key=lambda each: (each[0][0].node, each[0][0].wall))
    return [Recording([path for _, path in each]) for each in recordings]


class _Metric(msgspec.Struct, frozen=True):
    metric: dict[str, str]
    values: list[tuple[float, str]]


class _Data(msgspec.Struct, frozen=True):
    result_type: str = msgspec.field(name="resultType")
    result: list[_Metric]


class _Answer(msgspec.Struct, frozen=True):
    status: str
    data: _Data | None = None
    error: str = ""


class PrometheusSeries:
    """The series of a node in answers of Prometheus to range queries, with a tick each `check_every`."""

    def __init__(self, node: str, series: Mapping[str, Sequence[tuple[int, float]]], check_every: float, max_age: float) -> None:
        """`series`: times in ns since the epoch and values, by variable."""
        self._series = series
        begin = min(times[0][0] for times in series.values())
        self._end = max(times[-1][0] for times in series.values())
        self._period = max(1, round(check_every * SECOND))
        self.beginning = Beginning(node, begin, SECOND, {}, max_age, {}, check_every)

    def inputs(self) -> Iterator[Input]:
        """See `Source`. Samples come before the tick of their time."""
        begin, by_time = self.beginning.wall, dict[int, dict[str, object]]()
        for name, series in self._series.items():
            for at, value in series:
                by_time.setdefault(at - begin, {})[name] = value
        tick = self._period
        for at, values in sorted(by_time.items()):
            while tick < at:
                yield Tick(tick)
                tick += self._period
            yield Samples(at, tuple(values), list(values.values()))
        while tick <= self._end - begin:
            yield Tick(tick)
            tick += self._period

    def defined_once(self) -> None:
        """See `Source`: series have no rules."""


def labels_read(definitions: Iterable[Definition]) -> dict[str, set[str]]:
    """The labels by which definitions with `each` read a variable, by the variable."""
    found: dict[str, set[str]] = {}
    for definition in definitions:
        if definition.each is not None:
            for name in (name for each in expressions_of(definition) for name in each.variables):
                found.setdefault(name, set()).add(definition.each)
    return found


def read_prometheus(
    answers: Sequence[tuple[str, str, bytes]],
    *,
    check_every: float,
    max_age: float,
    labels: Mapping[str, Collection[str]] = NO_LABELS,
) -> list[PrometheusSeries]:
    """The series by node, from answers of range queries: the name of the variable or "", the name for errors, and the JSON.

    The variable is the name of the metric if none is given, the node is the label `instance`. `labels`: see `labels_read`; a series
    with such a label is an instance. Raises `RecordingError` for another form, for a metric without a name, for several series of a
    variable or an instance on a node, and for too many instances.
    """
    found: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for given, source, content in answers:
        for each in _matrix(source, content):
            name, node = given or each.metric.get("__name__", ""), each.metric.get("instance", "") or "prometheus"
            if not name:
                raise RecordingError(f"{source} has series without a name: give one, as in temp_c={source}")
            try:
                check_names([name])
            except ConstraintCrdtError as error:
                raise RecordingError(f"{source}: {error}: give another name, as in temp_c={source}") from None
            values = sorted((round(time * 1000) * (SECOND // 1000), _number(source, text)) for time, text in each.values)
            for named in _names(source, name, each.metric, labels.get(name, ())):
                if named in found.setdefault(node, {}):
                    by = ", ".join(["instance", *sorted(labels.get(name, ()))])
                    raise RecordingError(f"{source} has several series of {named} on {node}: sum or choose in the query, by ({by})")
                if values:
                    found[node][named] = values
    _check_instances(found)
    sources = [PrometheusSeries(node, series, check_every, max_age) for node, series in sorted(found.items()) if series]
    if not sources:
        raise RecordingError("there are no values of Prometheus for these queries and this time")
    return sources


def _matrix(source: str, content: bytes) -> list[_Metric]:
    """The series of an answer. Raises `RecordingError`."""
    try:
        answer = msgspec.json.decode(content, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RecordingError(f"{source} is no answer of Prometheus to a range query: {error}") from None
    if answer.status != "success" or answer.data is None:
        raise RecordingError(f"{source}: the query failed: {answer.error or answer.status}")
    if answer.data.result_type != "matrix":
        raise RecordingError(f"{source} has a {answer.data.result_type}: ask /api/v1/query_range, which has values over time")
    return answer.data.result


def _check_instances(found: Mapping[str, Iterable[str]]) -> None:
    """Raise `RecordingError` for more instances of a variable than a node takes. `found`: the names of the series, by node."""
    for node, names in found.items():
        counts = Counter((one.variable, one.label) for one in map(read_instance, names) if one is not None)
        for (variable, label), count in counts.items():
            if count > MAX_INSTANCES:
                told = f"there are {count} instances of {variable} by {label} on {node}"
                raise RecordingError(f"{told}: a node takes {MAX_INSTANCES}, so choose in the query")


def _names(source: str, name: str, metric: Mapping[str, str], labels: Collection[str]) -> list[str]:
    """The names of a series: as an instance by each of the labels that it has, else that of the variable."""
    found = [instance_name(name, label, metric[label]) for label in sorted(labels) if metric.get(label)]
    try:
        for each in found:
            read_instance(each)
    except ConstraintCrdtError as error:
        raise RecordingError(f"{source}: {error}") from None
    return found or [name]


def _number(source: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise RecordingError(f"{source}: {text[:20]!r} is no number") from None


# --- replay -----------------------------------------------------------------------------------------------------------------


class Outcome:
    """The outcome of a set of rules for a source."""

    def __init__(self) -> None:
        self.turns: list[TimedTurn] = []
        """The changes of verdict states, by time; at most `MOST_TURNS`."""
        self.more_turns = 0
        self.alerts: list[TimedAlert] = []
        self.end = 0
        """ns since the begin of the source."""


class _Group:
    """Variables that are measured together, of those that rules read."""

    def __init__(self, names: tuple[str, ...], judge: Judge, bands: Mapping[str, tuple[float, float]]) -> None:
        read = [place for place, name in enumerate(names) if judge.readers([name])]
        self.names = tuple(names[place] for place in read)
        self._choose = itemgetter(*read) if len(read) > 1 else lambda values: tuple(values[place] for place in read)
        self.lows, self.highs = list[float](), list[float]()
        self.bound(bands)
        self._beside: dict[tuple[str, ...], tuple[Sequence[int], bool]] = {}

    def bound(self, bands: Mapping[str, tuple[float, float]]) -> None:
        """Take over the bands of the variables."""
        chosen = [bands.get(name, _NOWHERE) for name in self.names]
        self.lows, self.highs = [low for low, _ in chosen], [high for _, high in chosen]

    def beside(self, restless: tuple[str, ...], judge: Judge) -> tuple[Sequence[int], bool]:
        """The places of the variables that are read beside these, and whether all of them are in the group."""
        found = self._beside.get(restless)
        if found is None:
            if len(self._beside) >= MOST_BESIDE:
                self._beside.clear()
            wanted = judge.read_beside(restless)
            places = [place for place, name in enumerate(self.names) if name in wanted]
            found = self._beside[restless] = places, len(places) == len(wanted)
        return found

    def choose(self, values: Sequence[object]) -> tuple[Any, ...]:
        """Those of the values that rules read."""
        chosen: tuple[Any, ...] = self._choose(values)
        return chosen


MOST_BESIDE = 1000
"""Sets of restless variables of a group that are kept."""

_NOWHERE = (math.nan, math.nan)
_FLOATS = {float}


class _Calm:
    """Takes samples in. Those that turn nothing are put off: the last ones of a group are taken in after a while, at their time.

    So most samples of a quiet day cost two comparisons. No verdict changes otherwise: a value within the band of its variable
    (`Judge.calm`) leaves its constraints as they are, and is taken in before the value of before ages, and together with the
    values of all variables beside which it is read. Only the number of judgements differs.
    """

    def __init__(self, evaluator: Evaluator, clock: VirtualClock, begun: Beginning, *, counts: bool) -> None:
        """`counts`: judgements are counted, so that nothing is put off."""
        self._evaluator = evaluator
        self._clock = clock
        self._never = counts
        self._longest = round(min([begun.max_age, *begun.max_ages.values()]) * SECOND) // 2
        """ns for which samples are put off."""
        self._changes = -1
        self._bands: dict[str, tuple[float, float]] = {}
        self._groups: dict[tuple[str, ...], _Group] = {}
        self._off: dict[tuple[str, ...], tuple[int, tuple[Any, ...]]] = {}
        self._last: dict[tuple[str, ...], tuple[int, Sequence[object]]] = {}
        """The last values of each group, those that no rule reads among them."""
        self._since = 0
        self._ages_at: int | None = 0
        """No value passes its maximum age before, by the clock of samples; None: never."""
        self._ticked: int | None = None

    async def redefine(self) -> None:
        """Definitions are going to change: take in the samples put off, and the last values of the variables that no rule read."""
        await self.flush()
        self._changes, now = -1, self._clock.passed
        last, self._last = self._last, {}
        for names, (at, values) in sorted(last.items(), key=lambda each: each[1][0]):
            readers = self._evaluator.judge.readers
            unread = {name: value for name, value in zip(names, values, strict=True) if not readers([name])}
            if unread:
                self._clock.passed = at
                await self._evaluator.measure(unread)
        self._clock.passed = now
        self._groups.clear()

    async def measure(self, names: tuple[str, ...], values: Sequence[object]) -> None:
        """Take samples in, now or later."""
        if self._evaluator.changes != self._changes or (self._off and self._clock.passed - self._since >= self._longest):
            await self._renew()
        group = self._groups.get(names)
        if group is None:
            group = self._groups[names] = _Group(names, self._evaluator.judge, self._bands)
        self._last[names] = self._clock.passed, values
        if not group.names:
            return
        chosen = group.choose(values)
        if self._never or set(map(type, chosen)) != _FLOATS:
            await self.flush()
            await self._measure(dict(zip(group.names, chosen, strict=True)))
            return
        restless = [
            name
            for name, low, value, high in zip(group.names, group.lows, chosen, group.highs, strict=True)
            if not low <= value <= high
        ]
        if len(restless) < len(group.names):
            self._since = self._since if self._off else self._clock.passed
            self._off[names] = self._clock.passed, chosen
        if restless:
            places, whole = group.beside(tuple(restless), self._evaluator.judge)
            if not whole:
                await self.flush()
            await self._measure({group.names[place]: chosen[place] for place in places})

    async def _measure(self, values: Mapping[str, object]) -> None:
        await self._evaluator.measure(values)
        until = self._clock.steady() + 2 * self._longest
        self._ages_at = until if self._ages_at is None else min(self._ages_at, until)

    async def flush(self) -> None:
        """Take in the samples put off, at their times."""
        off, self._off = self._off, {}
        now = self._clock.passed
        for names, (at, chosen) in sorted(off.items(), key=lambda each: each[1][0]):
            values = {name: value for name, value in zip(self._groups[names].names, chosen, strict=True) if name in self._bands}
            if values:
                self._clock.passed = at
                await self._evaluator.measure(values)
        self._clock.passed = now
        self._ages_at = self._evaluator.ages_at()

    async def _renew(self) -> None:
        await self.flush()
        if self._evaluator.changes != self._changes:
            self._changes = self._evaluator.changes
            self._bands = {} if self._never else self._evaluator.judge.calm()
            for group in self._groups.values():
                group.bound(self._bands)

    async def tick(self) -> None:
        """Look for changes by time."""
        now = self._clock.steady()
        aging = self._ages_at is not None and self._ages_at <= now
        if aging or (self._ticked is not None and now - self._ticked > self._evaluator.suspended_after):
            await self.flush()
            aging = self._ages_at is not None and self._ages_at <= now
        self._ticked = now
        if aging or self._never or not self._evaluator.rest():
            await self._evaluator.tick()
            self._ages_at = self._evaluator.ages_at()


class _Side:
    """A set of rules on a node in virtual time."""

    def __init__(self, source: Source, alerts: Sequence[AlertRule], ids: Callable[[str], bool]) -> None:
        """`ids`: the constraints that this side judges."""
        begun = source.beginning
        self._judges = ids
        self._clock = VirtualClock(begun.wall, begun.steady)
        half_lives = tuple(sorted({*NodeSettings().half_lives, *(each.half_life for each in alerts if each.half_life is not None)}))
        settings = NodeSettings(
            name=begun.node, labels=dict(begun.labels), max_age=begun.max_age, check_every=begun.check_every, alert=silent(alerts),
            variables={name: VariableSettings(max_age=each) for name, each in begun.max_ages.items()}, half_lives=half_lives,
        )  # fmt: skip
        self.fleet = VirtualFleet([settings], self._clock, ticks=False)
        self._node: VirtualNode = self.fleet.nodes[begun.node]
        self._evaluator = self._node.runtime.evaluator
        counts = any(each.kind == ViolationRate.name for each in alerts)
        self._calm = _Calm(self._evaluator, self._clock, begun, counts=counts)
        self.outcome = Outcome()
        self.left_out: set[str] = set()
        """Constraints of scope fleet."""

    async def begin(self, source: Source) -> None:
        """Open the node, and give it the knowledge at the begin of the source."""
        await self.fleet.open()
        begun = source.beginning
        by_time = dict[int, dict[str, object]]()
        for name, (at, value) in begun.samples.items():
            by_time.setdefault(at, {})[name] = value
        for at, values in sorted(by_time.items()):
            self._node.runtime.measurements.put(values, at)
        if begun.spells:
            self._evaluator.judge.resume(read_spells(begun.spells))

    async def define(self, definitions: Definitions) -> None:
        """Have these definitions in force from now on."""
        await self._calm.redefine()
        for id_, each in definitions.items():
            chosen = [one for one in each if one.scope is Scope.NODE]
            if len(chosen) < len(each):
                self.left_out.add(id_)
            if self._judges(id_):
                self._node.define(id_, chosen)
        await self._evaluator.renew()

    async def take(self, input_: Input) -> None:
        """Replay an input."""
        fleet, clock = self.fleet, self._clock
        await fleet.advance(input_.passed, inclusive=False)
        clock.passed = self.outcome.end = input_.passed
        if type(input_) is Samples:
            await self._calm.measure(input_.names, input_.values)
        elif type(input_) is Tick:
            await self._calm.tick()
        elif type(input_) is Check:
            await self._calm.redefine()
            await self._evaluator.check(input_.values)
        if self._node.turns or self._node.alerts:
            self._keep()

    def _keep(self) -> None:
        outcome, node = self.outcome, self._node
        room = MOST_TURNS - len(outcome.turns)
        outcome.turns += node.turns[:room]
        outcome.more_turns += max(0, len(node.turns) - room)
        outcome.alerts += node.alerts
        node.turns, node.alerts = [], []

    async def end(self) -> None:
        """Take in the samples put off, and the steps of the last instant."""
        await self._calm.flush()
        await self.fleet.advance(self.outcome.end, inclusive=True)
        self._keep()


class Replayed(NamedTuple):
    """The outcomes of two sets of rules for a source."""

    source: Source
    old: Outcome
    new: Outcome
    constraints: Mapping[str, str]
    """The change of the definition of each: `same`, `edited`, `added` or `removed`."""
    same: Collection[str]
    """Those that both sets define alike, from the begin to the end."""
    left_out: Collection[str]
    """Constraints of scope fleet."""
    alerts: Collection[str]
    """The names of the alert rules of both."""


def _with_parameters(rules: Rules, labels: Mapping[str, str]) -> dict[str, tuple[Definition, ...]]:
    """The definitions of rules with the values of their parameters in place of the names, as a recording has them."""
    parameters = Parameters()
    for each in rules.parameters:
        parameters.set(each.name, each.value, each.selector or None, node="rules")
    return {id_: (parameters.bind(each, labels).definition,) for id_, each in rules.constraints.items()}


async def replay(source: Source, new: Rules, old: Rules | None) -> Replayed:
    """Run both sets of rules on a source. `old`: None for those of the recording. Raises `RecordingError`."""
    given = _with_parameters(new, source.beginning.labels)
    before = None if old is None else _with_parameters(old, source.beginning.labels)
    old_alerts = source.beginning.alerts if old is None else old.alerts
    fixed = source.defined_once() or {} if before is None else before
    same = {id_ for id_, each in given.items() if tuple(fixed.get(id_, ())) == each}
    judged_twice = bool(old_alerts or new.alerts)  # an alert may need the counts of any constraint
    one = _Side(source, old_alerts, lambda _: True)
    other = _Side(source, new.alerts, lambda id_: judged_twice or id_ not in same)
    seen = set[str]()
    async with AsyncExitStack() as stack:
        for side in (one, other):
            await side.begin(source)
            stack.push_async_callback(side.fleet.close)
        await one.define(before if before is not None else source.beginning.definitions)
        await other.define(given)
        seen |= before.keys() if before is not None else source.beginning.definitions.keys()
        for input_ in source.inputs():
            if type(input_) is Redefinition:
                if before is None:
                    seen |= input_.definitions.keys()
                    await one.take(input_)
                    await one.define(input_.definitions)
                continue
            await one.take(input_)
            await other.take(input_)
        await one.end()
        await other.end()
    if not judged_twice:
        shared = [turn for turn in one.outcome.turns if turn.turn.constraint in same]
        other.outcome.turns = sorted([*other.outcome.turns, *shared], key=lambda each: each.at)
    changes = {
        id_: "same" if id_ in same else "added" if id_ not in seen else "edited" if id_ in given else "removed"
        for id_ in seen | given.keys()
    }
    alerts = sorted({each.name for each in (*old_alerts, *new.alerts)})
    return Replayed(source, one.outcome, other.outcome, changes, same, sorted(one.left_out | other.left_out), alerts)


# --- comparison -------------------------------------------------------------------------------------------------------------


class Difference(NamedTuple):
    """A time in which the two sets say different things of a constraint."""

    node: str
    constraint: str
    begin: int
    """ns since the epoch."""
    end: int | None
    """None: to the end of the source."""
    old: VerdictState
    new: VerdictState
    values: str
    """The values read at its begin, for people."""


class Figures(NamedTuple):
    """The figures of a set of rules for a constraint."""

    turns: int
    """Changes of its state."""
    violations: int
    """Spells that began to count as violated."""
    violated: float
    """Seconds in which it did."""


class Comparison(NamedTuple):
    """A constraint in both sets."""

    constraint: str
    change: str
    """`same`, `edited`, `added` or `removed`: of its definition."""
    old: Figures
    new: Figures


def figures(outcome: Outcome) -> dict[str, Figures]:
    """The figures of each constraint with a change of its state."""
    found: dict[str, Figures] = {}
    since: dict[str, int] = {}
    for seen in outcome.turns:
        id_ = seen.turn.constraint
        turns, violations, violated = found.get(id_, Figures(0, 0, 0.0))
        is_violated = seen.turn.after in VIOLATED_STATES
        if is_violated and id_ not in since:
            since[id_], violations = seen.at, violations + 1
        elif not is_violated and id_ in since:
            violated += (seen.at - since.pop(id_)) / SECOND
        found[id_] = Figures(turns + 1, violations, violated)
    for id_, began in since.items():
        found[id_] = found[id_]._replace(violated=found[id_].violated + (outcome.end - began) / SECOND)
    return found


def compare(replayed: Replayed) -> list[Comparison]:
    """The constraints of both sets, ordered by id."""
    old, new, none = figures(replayed.old), figures(replayed.new), Figures(0, 0, 0.0)
    return [Comparison(id_, change, old.get(id_, none), new.get(id_, none)) for id_, change in sorted(replayed.constraints.items())]


_WELL = frozenset({VerdictState.HOLDS, VerdictState.OFF})
"""Of a constraint that either set lacks, nothing is different while it holds."""


def differences(replayed: Replayed) -> Iterator[Difference]:
    """The times in which the two sets say different things, by their begin."""
    epoch, node = replayed.source.beginning.wall, replayed.source.beginning.node
    turns = [(turn.at, 0, turn) for turn in replayed.old.turns] + [(turn.at, 1, turn) for turn in replayed.new.turns]
    states: dict[str, list[VerdictState]] = {}
    open_: dict[str, Difference] = {}
    found: list[Difference] = []
    turns.sort(key=lambda each: each[0])
    for place, (at, which, seen) in enumerate(turns):
        id_ = seen.turn.constraint
        if id_ in replayed.same:
            continue
        now = states.setdefault(id_, [VerdictState.OFF, VerdictState.OFF])
        now[which] = seen.turn.after
        if any(later == at and each.turn.constraint == id_ for later, _, each in turns[place + 1 : place + 4]):
            continue  # the other set, or another turn, at the same instant
        last = open_.pop(id_, None)
        if last is not None and (last.old, last.new) == tuple(now):
            open_[id_] = last
            continue
        if last is not None and last.begin < epoch + at:
            found.append(last._replace(end=epoch + at))
        if now[0] is not now[1] and not _WELL.issuperset(now):
            open_[id_] = Difference(node, id_, epoch + at, None, now[0], now[1], _values(seen))
    found += open_.values()
    yield from sorted(found, key=lambda each: (each.begin, each.constraint))


def _values(seen: TimedTurn) -> str:
    return "" if seen.verdict is None else ", ".join(f"{name}={text}" for name, text in seen.verdict.inputs)
