"""Rule tests: a fleet whose nodes evaluate in virtual time, and the cases that `constraint-crdt test` runs on it.

`VirtualFleet` has the parts of running nodes, with their settings (`lifecycle.Runtime`), and a clock that only its owner moves. No
background task runs: the owner calls the steps of `Runtime.rule_steps` at their times. Constraints, windows, `for`, `clear_after`
and alerts are those of a running node, since the code is.

A case (`RuleTest`) is a table of a file in TOML or YAML: series of values, and the verdicts and alerts expected at given times.

Rules kept here:

- At an instant the samples come first, then the steps, then the expectations. So a sample counts for the expectations at its time.
- Nodes of a case exchange after each tick, in memory. A step costs no virtual time.
- Alerts are written nowhere and sent nowhere.
- Everything has a limit: a case with more is refused, with its place.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from heapq import heappop, heappush
from random import Random
from typing import Any, NamedTuple
from xml.sax.saxutils import escape, quoteattr

import msgspec

from constraint_crdt.alerts import LOG, AlertRule, check_rules
from constraint_crdt.crdt.cells import make_cell
from constraint_crdt.crdt.clock import SECOND, Replica
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.expression.cel import Verdict
from constraint_crdt.expression.judgement import Turn
from constraint_crdt.expression.measurements import MAX_INSTANCES
from constraint_crdt.model import VerdictState
from constraint_crdt.operations.alerts import AlertReport
from constraint_crdt.runtime.change_feed import ChangeOrigin, NodeChange
from constraint_crdt.runtime.lifecycle import Runtime
from constraint_crdt.runtime.settings import MEMORY_STORE, NodeSettings
from constraint_crdt.transport import MemoryNetwork
from constraint_crdt.types.definition import ADD, Definition, wire_definition
from constraint_crdt.types.parameters import GivenParameter
from constraint_crdt.types.verdicts import VIOLATED_STATES, NodeVerdict

EPOCH = 1_767_225_600 * SECOND
"""The time of the first instant of a case, in ns since the epoch: 2026-01-01T00:00:00Z."""

NODE = "node"
"""The name of the node of a case that names none."""

MOST_NODES = 50
MOST_TESTS = 1_000
"""In a file."""
MOST_SAMPLES = 1_000_000
"""Of a test, in all series."""
MOST_TICKS = 1_000_000
"""Of a test, on all nodes."""
MOST_EXPECTED = 10_000
"""Expectations of a test."""


class RuleTestError(ConstraintCrdtError, ValueError):
    """A mistake in a file of cases. `str()` is a sentence with the place."""


# --- virtual time -----------------------------------------------------------------------------------------------------------


class VirtualClock:
    """A clock that only its owner moves."""

    def __init__(self, epoch: int = EPOCH, begin: int = SECOND) -> None:
        """`epoch`: the time at its begin, in ns since the epoch. `begin`: that of the monotonic clock; 0 is before any look."""
        self.epoch = epoch
        self._begin = begin
        self.passed = 0
        """ns since the begin."""

    def steady(self) -> int:
        """The time of samples and ticks, in ns."""
        return self._begin + self.passed

    def wall(self) -> int:
        """The time in ns since the epoch of all clocks."""
        return self.epoch + self.passed


class TimedTurn(NamedTuple):
    """A change of the verdict state of a constraint on a node."""

    at: int
    """ns since the begin of the clock."""
    node: str
    turn: Turn
    verdict: NodeVerdict | None
    """The state, with the values of the judgement; None where no definition applies any more."""


class TimedAlert(NamedTuple):
    """An alert that fired or resolved."""

    at: int
    rule: str
    subject: str
    fired: bool


def _machine_calls() -> None:
    """A virtual node has no thread and no loop of its own to be called from."""


class VirtualNode:
    """The parts of a node, in virtual time."""

    def __init__(self, settings: NodeSettings, clock: VirtualClock, network: MemoryNetwork, *, ticks: bool) -> None:
        """`ticks`: by the settings; else the owner ticks."""
        self._ticks = ticks
        self.name = settings.name
        self._clock = clock
        random = Random(settings.name)  # noqa: S311 - selects peers, protects nothing
        self.runtime = Runtime(
            settings, network.transport(), (), random, clock.wall, _machine_calls, "constraint-crdt test", clock.steady,
            clock=clock.steady,
        )  # fmt: skip
        self.turns: list[TimedTurn] = []
        self.alerts: list[TimedAlert] = []
        self._firing: frozenset[tuple[str, str]] = frozenset()
        self.runtime.feed.subscribe(self._note, ChangeOrigin.EVALUATED)
        self.steps = self._steps()

    def _note(self, change: NodeChange) -> None:
        evaluator = self.runtime.evaluator
        for turn in change.turns:
            self.turns.append(TimedTurn(self._clock.passed, self.name, turn, evaluator.verdict(turn.constraint)))

    def _steps(self) -> Sequence[tuple[float, Callable[[], Coroutine[object, object, None]]]]:
        """The steps with the seconds between two. Counts and rates are for alerts only: without any they are left out."""
        runtime = self.runtime
        steps = {name: (every, step) for name, every, step in runtime.rule_steps()}
        if runtime.settings.alert:
            every, step = steps.pop("alerts")
            further = [(every, step), (every, self._note_alerts)]
        else:
            further, steps = [], {name: each for name, each in steps.items() if name not in ("counts", "rates", "alerts")}
        if not self._ticks:
            del steps["ticks"], steps["new constraints"]
        told = [(runtime.settings.check_every, runtime.evaluator.write_verdicts)] if self._ticks or further else []
        return (*steps.values(), *told, (1.0, self._expire), *further)

    async def _note_alerts(self) -> None:
        firing = frozenset((each.rule, each.subject) for each in self.alerts_now() if each.firing)
        for rule, subject in sorted(firing ^ self._firing):
            self.alerts.append(TimedAlert(self._clock.passed, rule, subject, (rule, subject) in firing))
        self._firing = firing

    async def _expire(self) -> None:
        if self.runtime.gossip.state.constraints.ends:
            await self.runtime.maintenance.expire()

    async def measure(self, values: Mapping[str, object]) -> None:
        """Take samples in, and judge the constraints that read them. Raises as `Evaluator.measure`."""
        await self.runtime.evaluator.measure(values)

    def set_parameter(self, given: GivenParameter) -> None:
        """Give a parameter a value."""
        gossip = self.runtime.gossip
        self.runtime.feed.write(lambda: gossip.set_parameter(given.name, given.value, given.selector or None))

    def define(self, id_: str, definitions: Sequence[Definition]) -> None:
        """Have exactly these definitions of a constraint in force; several are a conflict, each of a writer of its own."""
        gossip = self.runtime.gossip

        def write(me: Replica) -> None:
            constraints, rows = gossip.state.constraints, gossip.state.rows
            if id_ in constraints:
                constraints.remove(id_, node=me)
            for number, each in enumerate(definitions):
                writer = me if not number else Replica(f"{me.node_id}~{number}", 1)
                rows.write_all(writer, [make_cell(ADD, id_, wire_definition(each, None))])

        self.runtime.feed.write(lambda: gossip.write(write))

    def alerts_now(self) -> Sequence[AlertReport]:
        """The alerts that fire, or are about to."""
        return self.runtime.alerts.report().alerts


class VirtualFleet:
    """Nodes in virtual time, and the steps that are due. See `virtual_fleet`."""

    def __init__(self, nodes: Sequence[NodeSettings], clock: VirtualClock, *, ticks: bool = True) -> None:
        """`nodes`: their settings. The state is kept in memory, whatever they say. `ticks`: else the owner ticks, and reads new
        definitions.
        """
        self.clock = clock
        network = MemoryNetwork()
        kept = [msgspec.structs.replace(each, store=MEMORY_STORE, alert=silent(each.alert)) for each in nodes]
        self.nodes = {each.name: VirtualNode(each, clock, network, ticks=ticks) for each in kept}
        self._due: list[tuple[int, int, int]] = []
        self._steps: list[tuple[int, Callable[[], Coroutine[object, object, None]]]] = []
        for node in self.nodes.values():
            for every, step in node.steps:
                self._add(every, step)
        if len(self.nodes) > 1:
            self._add(min(each.check_every for each in kept), self.exchange)

    def _add(self, every: float, step: Callable[[], Coroutine[object, object, None]]) -> None:
        period = max(1, round(every * SECOND))
        heappush(self._due, (period, len(self._steps), period))
        self._steps.append((period, step))

    async def open(self) -> None:
        """Begin: each node joins."""
        for node in self.nodes.values():
            await node.runtime.open()
        while any(len(node.runtime.transport.peers()) < len(self.nodes) - 1 for node in self.nodes.values()):  # noqa: ASYNC110
            await asyncio.sleep(0)  # the network tells them in turns of the loop
        for node in self.nodes.values():
            node.runtime.membership.describe()
        await self.exchange()

    async def close(self) -> None:
        """End the nodes."""
        for node in self.nodes.values():
            await node.runtime.stop()

    async def apply(self, definitions: Mapping[str, Definition], parameters: Sequence[GivenParameter] = ()) -> None:
        """Have these constraints in force on all nodes, with these parameters, and judge them by the measurements."""
        first = next(iter(self.nodes.values()))
        for each in parameters:
            first.set_parameter(each)
        for id_, definition in definitions.items():
            first.define(id_, [definition])
        await self.exchange()
        for node in self.nodes.values():
            await node.runtime.evaluator.renew()

    async def advance(self, passed: int, *, inclusive: bool) -> None:
        """Let time pass until so many ns since the begin, with each step at its time. `inclusive`: those of that instant, too."""
        due, clock = self._due, self.clock
        while due and (due[0][0] < passed or (inclusive and due[0][0] == passed)):
            at, number, period = heappop(due)
            clock.passed = max(clock.passed, at)
            await self._steps[number][1]()
            heappush(due, (at + period, number, period))
        clock.passed = max(clock.passed, passed)

    async def exchange(self) -> None:
        """Have all nodes know the same."""
        nodes = list(self.nodes.values())
        for _ in nodes:
            for index, node in enumerate(nodes):
                names = {each.name for each in nodes[index + 1 :]}
                for peer in [peer for peer in node.runtime.transport.peers() if peer.name in names]:
                    await node.runtime.exchanges.exchange(peer)
            if len({node.runtime.gossip.state_hash for node in nodes}) == 1:
                break

    @property
    def turns(self) -> list[TimedTurn]:
        """The changes of verdict states on all nodes, by time."""
        return sorted((turn for node in self.nodes.values() for turn in node.turns), key=lambda each: each.at)


@asynccontextmanager
async def virtual_fleet(nodes: Sequence[NodeSettings], clock: VirtualClock, *, ticks: bool = True) -> AsyncIterator[VirtualFleet]:
    """A `VirtualFleet` that has begun, and ends with the block."""
    fleet = VirtualFleet(nodes, clock, ticks=ticks)
    await fleet.open()
    try:
        yield fleet
    finally:
        await fleet.close()


def silent(rules: Sequence[AlertRule]) -> tuple[AlertRule, ...]:
    """The rules, told to the log alone."""
    return tuple(msgspec.structs.replace(each, to=(LOG,)) for each in rules)


# --- series -----------------------------------------------------------------------------------------------------------------


class _Gap:
    """No sample at this time."""

    def __repr__(self) -> str:
        return "_"


GAP = _Gap()
_NUMBER = r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?(?:Inf|NaN)"
_ITEM = re.compile(rf"(?P<value>{_NUMBER}|true|false)(?:(?P<step>[+-](?:{_NUMBER}))?x(?P<times>[0-9]{{1,7}}))?", re.IGNORECASE)
_ABSENT = re.compile(r"(?P<what>_|stale)(?:x(?P<times>[0-9]{1,7}))?")
_TRUTH = {"true": True, "false": False}


def expand(text: str) -> list[object]:
    """The values of a series in promtool's notation; `GAP` for no sample, None for a withdrawn value.

    `5` a value, `_` no sample, `stale` a withdrawal, `true` and `false`; `_x4` four times none; `5x3` 5 and three times more;
    `0+2x3` 0 2 4 6, and `9-3x2` 9 6 3. A lower value is the reset of a counter. Raises `RuleTestError` for anything else.
    """
    values: list[object] = []
    for item in text.split():
        absent, found = _ABSENT.fullmatch(item), _ITEM.fullmatch(item)
        if absent is not None:
            values += [GAP if absent["what"] == "_" else None] * int(absent["times"] or 1)
        elif found is not None and found["value"].lower() in _TRUTH and not found["step"]:
            values += [_TRUTH[found["value"].lower()]] * (1 + int(found["times"] or 0))
        elif found is not None and found["value"].lower() not in _TRUTH:
            begin, step = float(found["value"]), float(found["step"] or 0)
            values += [begin + step * number if step else begin for number in range(1 + int(found["times"] or 0))]
        else:
            raise RuleTestError(f"{item!r} is no value: write 5, _, stale, 0+1x10, 9-1x3 or 5x3, with spaces between")
        if len(values) > MOST_SAMPLES:
            raise RuleTestError(f"there are more than {MOST_SAMPLES} values")
    return values


_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h|d))+")
_PART = re.compile(r"([0-9.]+)(ms|s|m|h|d)")
_UNITS = {"ms": 10**6, "s": SECOND, "m": 60 * SECOND, "h": 3600 * SECOND, "d": 86_400 * SECOND}
LONGEST = 366 * 86_400 * SECOND


def duration(value: str | float) -> int:
    """ns of `90`, `90s`, `1h30m` or `0`. Raises `RuleTestError` for anything else, and beyond a year."""
    found = None
    if not isinstance(value, str):
        found = round(value * SECOND) if 0 <= value <= LONGEST / SECOND else None
    elif _DURATION.fullmatch(value.strip()):
        found = sum(round(float(number) * _UNITS[unit]) for number, unit in _PART.findall(value))
    elif value.strip().isdecimal() and value.isascii():
        found = int(value[:12]) * SECOND
    if found is None or found > LONGEST:
        raise RuleTestError(f"{value!r} is not a length of time up to a year: give seconds, or a text as in 30s, 5m or 1h30m")
    return found


# --- cases ------------------------------------------------------------------------------------------------------------------


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of a file of cases."""


class Series(_Table, frozen=True, kw_only=True):
    """The samples of a variable on a node."""

    variable: str
    values: str | list[Any]
    """promtool's notation (`expand`); or a list, with "_" and "stale", for texts, lists and maps."""
    node: str | None = None
    start: str | float = 0
    """The time of the first value."""
    interval: str | float | None = None
    """The time between two values; that of the test if left out."""

    def samples(self, interval: int) -> Iterator[tuple[int, object]]:
        """The times and values. Raises `RuleTestError`."""
        step = interval if self.interval is None else duration(self.interval)
        if step <= 0:
            raise RuleTestError("`interval` must be above 0")
        values = expand(self.values) if isinstance(self.values, str) else [_listed(each) for each in self.values]
        begin = duration(self.start)
        return ((begin + number * step, value) for number, value in enumerate(values) if value is not GAP)


def _listed(value: object) -> object:
    return GAP if value == "_" else None if value == "stale" else value


class CaseNode(_Table, frozen=True, kw_only=True):
    """A node of a test."""

    name: str
    labels: dict[str, str] = {}


class ExpectedVerdict(_Table, frozen=True, kw_only=True):
    """The state of a constraint on a node at a time. A field that is left out may be anything."""

    at: str | float
    constraint: str
    node: str | None = None
    state: VerdictState | None = None
    violated: bool | None = None
    """Whether it counts as violated: the state is `violated` or `clearing`."""
    verdict: Verdict | None = None
    """Of the last look, before `for` and `clear_after`."""
    since: str | float | None = None
    """When the state began."""
    reason: str | None = None
    """A part of the reason of an unknown verdict."""
    instances: dict[str, VerdictState] | None = None
    """Of a constraint with `each`: all instances with their states."""

    def shown(self) -> str:
        """For people."""
        parts = [str(self.state)] if self.state else []
        parts += [] if self.violated is None else ["in violation" if self.violated else "not in violation"]
        parts += [f"verdict {self.verdict.value}"] if self.verdict else []
        parts += [f"since {show_time(duration(self.since))}"] if self.since is not None else []
        parts += [f"because of {self.reason!r}"] if self.reason is not None else []
        parts += [_shown_instances(self.instances)] if self.instances is not None else []
        return ", ".join(parts)


class Firing(_Table, frozen=True, kw_only=True):
    """An expected alert."""

    subject: str
    """The constraint, the node, or the fleet."""
    since: str | float | None = None
    """When the condition began to hold."""
    fired: str | float | None = None
    """When the alert fired."""


class ExpectedAlerts(_Table, frozen=True, kw_only=True):
    """All subjects for which an alert fires at a time."""

    at: str | float
    alert: str
    node: str | None = None
    """The node that evaluates the rules; the first if left out."""
    firing: list[str | Firing] = []
    pending: list[str | Firing] | None = None
    """About to fire; anything if left out."""


_Expected = ExpectedVerdict | ExpectedAlerts


class RuleTest(_Table, frozen=True, kw_only=True):
    """A case: series, and expectations."""

    name: str = ""
    interval: str | float | None = None
    """The time between two values of a series; that of the file if left out."""
    node: list[CaseNode] = []
    series: list[Series] = []
    expect: list[ExpectedVerdict] = []
    alerts: list[ExpectedAlerts] = []


class CaseFile(_Table, frozen=True, kw_only=True):
    """A file of cases."""

    rule_files: list[str]
    """Files with `[[constraint]]` and `[[alert]]`, relative to this file."""
    interval: str | float = "1m"
    check_every: str | float = "1s"
    """The time between two ticks, as of a node."""
    max_age: str | float = "30s"
    """The time for which a value counts, as of a node."""
    test: list[RuleTest]


class Rules(NamedTuple):
    """The rules under test."""

    constraints: Mapping[str, Definition]
    alerts: Sequence[AlertRule]
    parameters: Sequence[GivenParameter] = ()


_PLACE = re.compile(r"\s*-\s*at `\$([^`]*)`$")
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]")
_FORM = (
    (re.compile(r"Object missing required field (`\w+`)"), r"\1 is missing"),
    (re.compile(r"Object contains unknown field (`\w+`)"), r"there is no field \1"),
    (re.compile(r"Invalid enum value (.*)"), r"\1 is none of the values that it takes"),
    (re.compile(r"Expected `([^`]*)`, got `([^`]*)`"), r"it must be \1, not \2"),
)
_KINDS = {"object": "a table", "array": "a list", "str": "a text", "int": "a number", "float": "a number", "bool": "true or false"}


def read_cases(content: object) -> CaseFile:
    """The cases in the content of a file. Raises `RuleTestError` with the place of the first mistake."""
    try:
        file = msgspec.convert(content, CaseFile)
    except msgspec.ValidationError as error:
        raise RuleTestError(_placed(str(error))) from None
    if len(file.test) > MOST_TESTS:
        raise RuleTestError(f"at most {MOST_TESTS} tests in a file, not {len(file.test)}")
    if not file.test:
        raise RuleTestError("there is no test: write each under [[test]]")
    return file


def _placed(message: str) -> str:
    """The message of msgspec as a sentence, with its place in words."""
    found, place = _PLACE.search(message), ""
    for name, index in _STEP.findall(found[1] if found else ""):
        place += f", {name}" if name else f" {int(index) + 1}"
    said = message[: found.start()] if found else message
    for form, words in _FORM:
        if match := form.fullmatch(said):
            said = match.expand(words)
            break
    for kind, words in _KINDS.items():
        said = re.sub(rf"(?<=[ |]){kind}\b", words, said) if said.startswith("it must be") else said
    return f"{place.removeprefix(', ')}: {said.replace(' | ', ' or ')}" if place else said.replace(" | ", " or ")


class Mismatch(NamedTuple):
    """An expectation that did not come true."""

    where: str
    expected: str
    got: str

    def __str__(self) -> str:
        return f"{self.where}\n  - expected: {self.expected}\n  + got:      {self.got}"


class CaseResult(NamedTuple):
    """The outcome of a test."""

    name: str
    mismatches: Sequence[Mismatch]
    seconds: float = 0.0
    """Of the machine's time, for the report."""


def show_time(ns: int) -> str:
    """A length of time for people: `1h30m`, `5m`, `0s`, `1.5s`."""
    seconds, parts = ns / SECOND, ""
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        whole = int(seconds // length)
        if whole:
            parts, seconds = f"{parts}{whole}{unit}", seconds - whole * length
    return f"{parts}{seconds:.10g}s" if seconds or not parts else parts


def run_test(file: CaseFile, test: RuleTest, rules: Rules) -> list[Mismatch]:
    """Run a test. Raises `RuleTestError` with the place of a mistake in it."""
    return asyncio.run(_Run(file, test, rules).run())


class _Run:
    """A test, checked and in the order of its times."""

    def __init__(self, file: CaseFile, test: RuleTest, rules: Rules) -> None:
        self._rules = rules
        named = test.node or [CaseNode(name=NODE)]
        if len(named) > MOST_NODES:
            raise RuleTestError(f"at most {MOST_NODES} nodes, not {len(named)}")
        if len({each.name for each in named}) < len(named):
            raise RuleTestError("two nodes have the same name")
        self._first, self._names = named[0].name, {each.name for each in named}
        every, max_age = duration(file.check_every), duration(file.max_age)
        alerts = check_rules(silent(rules.alerts))
        lives = {each.half_life for each in alerts if each.half_life is not None}
        settings = NodeSettings()
        half_lives = tuple(sorted({*settings.half_lives, *lives}))
        self._settings = [
            NodeSettings(
                name=each.name, labels=each.labels, check_every=every / SECOND, max_age=max_age / SECOND, alert=alerts,
                half_lives=half_lives,
            )
            for each in named
        ]  # fmt: skip
        interval = duration(file.interval if test.interval is None else test.interval)
        self._samples = self._read_series(test, interval)
        self._expected = self._read_expected(test)
        last = max([*self._samples, *self._expected], default=0)
        ticks = len(named) * last // max(1, every)
        if ticks > MOST_TICKS:
            raise RuleTestError(
                f"it lasts {show_time(last)}: {ticks} ticks, more than {MOST_TICKS}; set `check_every` of the file, as to 1m"
            )

    def _read_series(self, test: RuleTest, interval: int) -> dict[int, dict[str, dict[str, object]]]:
        """The values by time, node and variable."""
        found: dict[int, dict[str, dict[str, object]]] = {}
        count = 0
        for number, series in enumerate(test.series, 1):
            place = f"series {number} ({series.variable})"
            try:
                node = self._node(series.node)
                for at, value in series.samples(interval):
                    count += 1
                    values = found.setdefault(at, {}).setdefault(node, {})
                    if series.variable in values:
                        raise RuleTestError(f"there are two values of it on {node} at {show_time(at)}")  # noqa: TRY301
                    values[series.variable] = value
            except RuleTestError as error:
                raise RuleTestError(f"{place}: {error}") from None
            if count > MOST_SAMPLES:
                raise RuleTestError(f"{place}: at most {MOST_SAMPLES} samples in a test")
        return found

    def _read_expected(self, test: RuleTest) -> dict[int, list[tuple[str, _Expected]]]:
        """The expectations by time, each with its node."""
        found: dict[int, list[tuple[str, _Expected]]] = {}
        if len(test.expect) + len(test.alerts) > MOST_EXPECTED:
            raise RuleTestError(f"at most {MOST_EXPECTED} expectations in a test")
        known = {each.name for each in self._rules.alerts}
        for number, verdict in enumerate(test.expect, 1):
            self._add(found, f"expect {number} ({verdict.constraint})", verdict)
            if verdict.constraint not in self._rules.constraints:
                raise RuleTestError(f"expect {number}: no rule file has a constraint {verdict.constraint!r}")
            if not verdict.shown():
                raise RuleTestError(
                    f"expect {number} ({verdict.constraint}): it expects nothing: "
                    "give `state`, `violated`, `verdict`, `since`, `reason` or `instances`"
                )
        for number, alerts in enumerate(test.alerts, 1):
            self._add(found, f"alerts {number} ({alerts.alert})", alerts)
            if alerts.alert not in known:
                raise RuleTestError(f"alerts {number}: no rule file has an alert {alerts.alert!r}")
        if not found:
            raise RuleTestError("it expects nothing: write [[test.expect]] or [[test.alerts]]")
        return found

    def _add(
        self,
        found: dict[int, list[tuple[str, _Expected]]],
        place: str,
        each: _Expected,
    ) -> None:
        try:
            if isinstance(each, ExpectedVerdict):
                each.shown()
            else:
                for firing in (*each.firing, *(each.pending or ())):
                    _shown_firing(firing)
            found.setdefault(duration(each.at), []).append((self._node(each.node), each))
        except RuleTestError as error:
            raise RuleTestError(f"{place}: {error}") from None

    def _node(self, name: str | None) -> str:
        if name is None:
            return self._first
        if name not in self._names:
            raise RuleTestError(f"there is no node {name!r}: list it under [[test.node]]")
        return name

    async def run(self) -> list[Mismatch]:
        """The mismatches, by time."""
        found = list[Mismatch]()
        async with virtual_fleet(self._settings, VirtualClock()) as fleet:
            await fleet.apply(self._rules.constraints, self._rules.parameters)
            for at in sorted({*self._samples, *self._expected}):
                await fleet.advance(at, inclusive=False)
                for node, values in self._samples.get(at, {}).items():
                    await self._measure(fleet.nodes[node], values, at)
                if at in self._expected:
                    await fleet.advance(at, inclusive=True)
                    found += self._compare(fleet, at)
        return found

    @staticmethod
    async def _measure(node: VirtualNode, values: Mapping[str, object], at: int) -> None:
        try:
            await node.measure(values)
        except ConstraintCrdtError as error:
            raise RuleTestError(f"the values at {show_time(at)}: {error}") from None

    def _compare(self, fleet: VirtualFleet, at: int) -> Iterator[Mismatch]:
        for name, expected in self._expected[at]:
            node, on = fleet.nodes[name], f" on {name}" if len(self._names) > 1 else ""
            if isinstance(expected, ExpectedVerdict):
                got, fits = _judged(node, expected, fleet.clock.epoch)
                if not fits:
                    yield Mismatch(f"at {show_time(at)}, constraint {expected.constraint}{on}", expected.shown(), got)
                continue
            alerts = [each for each in node.alerts_now() if each.rule == expected.alert]
            for what, wanted, there in (
                ("", expected.firing, [each for each in alerts if each.firing]),
                (" pending", expected.pending, [each for each in alerts if not each.firing]),
            ):
                if wanted is not None and not _same_alerts(wanted, there, fleet.clock.epoch):
                    shown = ", ".join(map(_shown_firing, wanted)) or "none"
                    got = ", ".join(_shown_alert(each, fleet.clock.epoch) for each in there) or "none"
                    yield Mismatch(f"at {show_time(at)}, alert {expected.alert}{what}{on}", shown, got)


_MILLISECOND = 1_000_000


def _passed(time: int, epoch: int) -> int:
    """ns since the begin of the test, of a time in ns since the epoch, rounded to ms: the clock of a fleet adds some ns."""
    return round((time - epoch) / _MILLISECOND) * _MILLISECOND


def _judged(node: VirtualNode, expected: ExpectedVerdict, epoch: int) -> tuple[str, bool]:
    """The state of a constraint for people, and whether it is as expected."""
    evaluator = node.runtime.evaluator
    found, since = evaluator.last(expected.constraint), evaluator.since(expected.constraint)
    if found is None:
        fits = expected.state in (None, VerdictState.OFF) and not expected.violated and not expected.verdict
        return "off", fits and not expected.instances
    began = None if since is None else _passed(since, epoch)
    got = [str(found.state)]
    got += [f"verdict {found.verdict.value}"] if expected.verdict else []
    got += [] if began is None else [f"since {show_time(began)}"]
    got += [f"because of {found.reason!r}"] if found.reason else []
    instances = None
    if expected.instances is not None:
        told = evaluator.instances(expected.constraint, MAX_INSTANCES)
        instances = {} if told is None else {each.instance: each.verdict.state for each in told.worst}
        got.append(_shown_instances(instances))
    fits = (
        expected.state in (None, found.state)
        and expected.violated in (None, found.state in VIOLATED_STATES)
        and expected.verdict in (None, found.verdict)
        and (expected.since is None or began == duration(expected.since))
        and (expected.reason is None or expected.reason in found.reason)
        and expected.instances == instances
    )
    return ", ".join(got), fits


def _shown_instances(states: Mapping[str, VerdictState]) -> str:
    """Instances with their states, for people."""
    return f"instances {', '.join(f'{name} {state}' for name, state in sorted(states.items()))}" if states else "no instance"


def _same_alerts(wanted: Sequence[str | Firing], there: Sequence[AlertReport], epoch: int) -> bool:
    """Whether these alerts are the wanted ones, and no others."""
    by_subject = {each.subject: each for each in there}
    named = [each if isinstance(each, str) else each.subject for each in wanted]
    if sorted(named) != sorted(by_subject):
        return False
    for each in wanted:
        if isinstance(each, str):
            continue
        alert = by_subject[each.subject]
        for expected, time in ((each.since, alert.since), (each.fired, alert.fired_at)):
            if expected is not None and (time is None or _passed(time, epoch) != duration(expected)):
                return False
    return True


def _shown_firing(wanted: str | Firing) -> str:
    if isinstance(wanted, str):
        return wanted
    since = "" if wanted.since is None else f" since {show_time(duration(wanted.since))}"
    return wanted.subject + since + ("" if wanted.fired is None else f" fired at {show_time(duration(wanted.fired))}")


def _shown_alert(alert: AlertReport, epoch: int) -> str:
    fired = "" if alert.fired_at is None else f" fired at {show_time(_passed(alert.fired_at, epoch))}"
    return f"{alert.subject} since {show_time(_passed(alert.since, epoch))}{fired}"


# --- reports ----------------------------------------------------------------------------------------------------------------


def junit(results: Mapping[str, Sequence[CaseResult]]) -> str:
    """The outcome of the tests, by file, as JUnit XML."""
    lines = ['<?xml version="1.0" encoding="utf-8"?>', "<testsuites>"]
    for file, cases in results.items():
        failed, seconds = sum(bool(each.mismatches) for each in cases), sum(each.seconds for each in cases)
        lines.append(f'  <testsuite name={quoteattr(file)} tests="{len(cases)}" failures="{failed}" time="{seconds:.3f}">')
        for each in cases:
            head = f'    <testcase classname={quoteattr(file)} name={quoteattr(_plain(each.name))} time="{each.seconds:.3f}"'
            if not each.mismatches:
                lines.append(f"{head}/>")
                continue
            text = "\n".join(map(str, each.mismatches))
            first = quoteattr(_plain(each.mismatches[0].where))
            lines += [f"{head}>", f"      <failure message={first}>{escape(_plain(text))}</failure>", "    </testcase>"]
        lines.append("  </testsuite>")
    return "\n".join([*lines, "</testsuites>", ""])


def _plain(text: str) -> str:
    """The text without the characters that XML does not have."""
    return "".join(each if each.isprintable() or each in "\n\t" else "\N{REPLACEMENT CHARACTER}" for each in text)
