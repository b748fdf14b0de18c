"""The commands that try things before they count: `test` runs cases of series and expectations in virtual time, `backtest` replays
recordings, `lint` examines constraints, `source try` reads the sources of a settings file.

None needs a node; `lint` without a file asks a node for its constraints and its variables. Rule files are those that `apply` reads,
with `[[alert]]` as in the settings of a node beside. Files of cases are TOML, or YAML where PyYAML is installed (extra `yaml`).
Exit codes of `test`: 0 all as expected, 1 not, 2 a mistake in a file, which is a sentence with its place.
"""

import argparse
import asyncio
import contextlib
import importlib
import itertools
import logging
import math
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from constraint_crdt.alerts import AlertRule, check_rules, read_rules
from constraint_crdt.cli.connection import connect
from constraint_crdt.cli.files import (
    STANDARD,
    WantedConstraint,
    check_place,
    definition_of,
    read_toml,
    read_wanted,
    read_whole,
    write_whole,
)
from constraint_crdt.cli.output import CommandFailedError, MisuseError, present, print_json, print_table, print_view, printable
from constraint_crdt.cli.simulate import picture_writer
from constraint_crdt.crdt.clock import SECOND
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.expression.analysis import Fault, Finding, Range, Rule
from constraint_crdt.expression.analysis import lint as find_faults
from constraint_crdt.model import VerdictState, counted
from constraint_crdt.operations.operation import Column, Lines, Table, parse_duration
from constraint_crdt.runtime.backtest import (
    MOST_TURNS,
    Comparison,
    Difference,
    Outcome,
    Replayed,
    Source,
    compare,
    differences,
    labels_read,
    read_prometheus,
    read_recordings,
    replay,
)
from constraint_crdt.runtime.rule_tests import (
    EPOCH,
    CaseFile,
    CaseResult,
    Rules,
    RuleTestError,
    duration,
    junit,
    read_cases,
    run_test,
    show_time,
)
from constraint_crdt.runtime.settings import NodeSettings, SettingsError, load_settings
from constraint_crdt.simulation.recorder import RecordingError
from constraint_crdt.simulation.scenario import Band, Mark, Picture, Text
from constraint_crdt.sources import KINDS, SourceReader, SourceSettings, reader_of
from constraint_crdt.sources.formats import MISSING, leaves
from constraint_crdt.types.definition import Definition
from constraint_crdt.types.parameters import GivenParameter

MAX_CASE_BYTES = 16 * 1024 * 1024
"""The longest file of cases, in bytes."""

ALERT = frozenset({"alert"})


def test(arguments: argparse.Namespace) -> int:
    """Run the cases of files. Raises `MisuseError` for the first mistake in a file."""
    if arguments.junit is not None:
        check_place(arguments.junit)
    with _silence():
        results = {file: _run_file(file) for file in arguments.files}
    if arguments.junit is not None:
        write_whole(arguments.junit, junit(results).encode())
    if arguments.json:
        print_json([_as_json(file, each) for file, cases in results.items() for each in cases])
    else:
        _print(results)
    return 1 if any(each.mismatches for cases in results.values() for each in cases) else 0


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Nodes in virtual time log nothing: their lines would not be true."""
    log = logging.getLogger("constraint_crdt")
    before = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(before)


def _run_file(name: str) -> list[CaseResult]:
    file = _read_case_file(name)
    base = Path() if name == STANDARD else Path(name).parent
    rules = read_rule_files([each if each == STANDARD else str(base / each) for each in file.rule_files], EPOCH)
    results = []
    for number, case in enumerate(file.test, 1):
        shown = case.name or f"test {number}"
        place = f"test {number}" + (f" ({case.name})" if case.name else "")
        began = time.perf_counter()
        try:
            mismatches = run_test(file, case, rules)
        except ConstraintCrdtError as error:
            raise MisuseError(printable(f"{name}: {place}: {error}")) from None
        results.append(CaseResult(shown, mismatches, time.perf_counter() - began))
    return results


def _read_case_file(name: str) -> CaseFile:
    content = _read_yaml(name) if name.lower().endswith((".yml", ".yaml")) else read_toml(name)[1]
    try:
        return read_cases(content)
    except RuleTestError as error:
        raise MisuseError(printable(f"{name}: {error}")) from None


def _read_yaml(name: str) -> object:
    try:
        yaml: Any = importlib.import_module("yaml")
    except ImportError:
        needs = f"{name} is YAML, which needs PyYAML: pip install 'constraint-crdt[yaml]', or write the cases in TOML"
        raise CommandFailedError(needs) from None
    try:
        return yaml.safe_load(read_whole(name, MAX_CASE_BYTES))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = "" if mark is None else f" at line {mark.line + 1}, column {mark.column + 1}"
        why = getattr(error, "problem", None) or "it cannot be read"
        raise MisuseError(printable(f"{name} is not YAML{place}: {why}")) from None


def read_rule_files(names: Sequence[str], epoch: int) -> Rules:
    """The constraints and alert rules of files, together. `epoch`: the time at which a `ttl` begins, in ns since the epoch.

    Raises `MisuseError` with a line for each mistake in a file, and for an id or an alert that two files have.
    """
    constraints: dict[str, Definition] = {}
    alerts: list[AlertRule] = []
    parameters: list[GivenParameter] = []
    for name in names:
        wanted = read_wanted(name, ALERT)
        parameters += wanted.parameters
        for id_, each in wanted.constraints.items():
            if id_ in constraints:
                raise MisuseError(printable(f"{name}: {each.place}: another rule file has a constraint of this id"))
            constraints[id_] = _from(each, epoch)
        try:
            alerts += read_rules(read_toml(name)[1].get("alert", []))
            check_rules(tuple(alerts))
        except ConstraintCrdtError as error:
            raise MisuseError(printable(f"{name}: {error}")) from None
    return Rules(constraints, alerts, parameters)


def _from(wanted: WantedConstraint, epoch: int) -> Definition:
    """The definition, with a `ttl` that begins at this time."""
    if wanted.ttl is None:
        return wanted.definition
    return wanted.definition._replace(expires_at=epoch + round(wanted.ttl * SECOND))


# --- backtests --------------------------------------------------------------------------------------------------------------

MAX_ANSWER_BYTES = 1024 * 1024 * 1024
"""The longest answer of Prometheus, in bytes."""

ANSWER_SECONDS = 60.0
"""How long to wait for an answer of Prometheus."""

MOST_SHOWN = 50
"""Differences shown for people, and constraints drawn. JSON has all differences."""

_NAMED = re.compile(r"([A-Za-z_]\w*)=(.+)", re.DOTALL)


def backtest(arguments: argparse.Namespace) -> int:
    """Replay recordings under two sets of rules. Raises `MisuseError` and `CommandFailedError`."""
    write = None if arguments.plot is None else picture_writer(arguments.plot)
    sources = _read_sources(arguments)
    replays = []
    with _silence():
        for source in sources:
            new = read_rule_files(arguments.new, source.beginning.wall)
            old = None if arguments.against is None else read_rule_files(arguments.against, source.beginning.wall)
            try:
                replays.append(asyncio.run(replay(source, new, old)))
            except RecordingError as error:
                raise MisuseError(printable(str(error))) from None
    if arguments.json:
        print_json([_replay_as_json(each) for each in replays])
    else:
        for each in replays:
            _print_replay(each)
    if write is not None:
        write(_draw(replays))
    return 0


def _read_sources(arguments: argparse.Namespace) -> Sequence[Source]:
    """The sources to be replayed. Raises `MisuseError` for none, and for an unreadable source."""
    if not arguments.recordings and not arguments.from_prometheus:
        raise MisuseError("name a recording of `node --record-measurements`, or --from-prometheus FILE|URL")
    if arguments.from_prometheus and arguments.against is None:
        raise MisuseError("--from-prometheus has no rules: name the old ones with --against FILE, which may have none in it")
    for flag, value in (("--max-age", arguments.max_age), ("--check-every", arguments.check_every)):
        if value is not None and not arguments.from_prometheus:
            raise MisuseError(f"{flag} is for --from-prometheus: a recording has that of its node")
    try:
        found: list[Source] = list(read_recordings(arguments.recordings))
        if arguments.from_prometheus:
            max_age, every = (duration(arguments.max_age or "5m"), duration(arguments.check_every or "1s"))
            if max_age <= 0 or every <= 0:
                raise MisuseError("--max-age and --check-every must be above 0")
            answers = [_read_answer(text) for text in arguments.from_prometheus]
            definitions = read_rule_files(arguments.new, EPOCH).constraints, read_rule_files(arguments.against, EPOCH).constraints
            labels = labels_read([each for both in definitions for each in both.values()])
            found += read_prometheus(answers, check_every=every / SECOND, max_age=max_age / SECOND, labels=labels)
    except (RecordingError, RuleTestError) as error:
        raise MisuseError(printable(str(error))) from None
    return found


def _read_answer(text: str) -> tuple[str, str, bytes]:
    """The name of the variable or "", the place for errors, and the JSON."""
    named = None if text.startswith(("http://", "https://")) else _NAMED.fullmatch(text)
    name, place = (named[1], named[2]) if named else ("", text)
    if not place.startswith(("http://", "https://")):
        return name, place, read_whole(place, MAX_ANSWER_BYTES)
    from urllib.error import HTTPError
    from urllib.request import urlopen

    shown = place.partition("?")[0]
    try:
        with urlopen(place, timeout=ANSWER_SECONDS) as answer:  # noqa: S310 - http and https alone
            content: bytes = answer.read(MAX_ANSWER_BYTES + 1)
    except HTTPError as error:
        raise CommandFailedError(printable(f"{shown} answered {error.code}: {_said(error.read(4096))}")) from None
    except (OSError, ValueError) as error:
        raise CommandFailedError(printable(f"cannot ask {shown}: {error}")) from None
    if len(content) > MAX_ANSWER_BYTES:
        raise MisuseError(f"{shown} answered more than {MAX_ANSWER_BYTES} bytes: ask for less time, or for longer steps")
    return name, shown, content


def _said(body: bytes) -> str:
    """The error in an answer of Prometheus, in a line."""
    found = re.search(rb'"error":"((?:[^"\\]|\\.)*)"', body)
    return (found[1] if found else body).decode(errors="replace").strip()[:200]


def _time(ns: int) -> str:
    return datetime.fromtimestamp(ns / SECOND, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _print_replay(replayed: Replayed) -> None:
    begun, end = replayed.source.beginning, max(replayed.old.end, replayed.new.end)
    print(printable(f"{begun.node}: {_time(begun.wall)} and {show_time(end // SECOND * SECOND)} from there"))
    rows = [
        [each.constraint, each.change, *(str(figure) for both in zip(*_figures(each), strict=True) for figure in both)]
        for each in compare(replayed)
    ]
    heads = ("turns, old", "new", "violations, old", "new", "violated s, old", "new")
    print_table([Column("constraint"), Column("definition"), *(Column(head, right=True) for head in heads)], rows)
    alerts = [[rule, str(old), str(new)] for rule, (old, new) in _alert_counts(replayed).items()]
    if alerts:
        print()
        print_table([Column("alert"), Column("fired, old", right=True), Column("new", right=True)], alerts)
    found = list(differences(replayed))
    print()
    if not found:
        print("the two say the same all the time")
        _print_notes(replayed)
        return
    rows = [[_time(each.begin), _lasts(each), each.constraint, str(each.old), str(each.new), each.values] for each in found]
    print_table([Column(head) for head in ("from", "for", "constraint", "old", "new", "values")], rows[:MOST_SHOWN])
    if len(found) > MOST_SHOWN:
        print(f"and {counted(len(found) - MOST_SHOWN, 'more difference')}: --json has all of them")
    _print_notes(replayed)


def _print_notes(replayed: Replayed) -> None:
    for note in _notes(replayed):
        print(printable(note))


def _notes(replayed: Replayed) -> list[str]:
    found = []
    if replayed.left_out:
        found.append(f"left out, as they are on the fleet and a recording is of one node: {', '.join(replayed.left_out)}")
    more = replayed.old.more_turns + replayed.new.more_turns
    if more:
        found.append(f"{more} further verdict changes are counted nowhere: a set of rules keeps {MOST_TURNS}")
    return found


def _lasts(difference: Difference) -> str:
    return "the end" if difference.end is None else show_time((difference.end - difference.begin) // 1_000_000 * 1_000_000)


def _figures(each: Comparison) -> tuple[tuple[object, ...], tuple[object, ...]]:
    return tuple((one.turns, one.violations, round(one.violated, 3)) for one in (each.old, each.new))  # type: ignore[return-value]


def _alert_counts(replayed: Replayed) -> dict[str, tuple[int, int]]:
    """How often each alert fired, by the old and the new rules."""
    rules = sorted({each.rule for outcome in (replayed.old, replayed.new) for each in outcome.alerts} | set(replayed.alerts))
    counts = [[sum(each.rule == rule and each.fired for each in outcome.alerts) for rule in rules] for outcome in replayed[1:3]]
    return dict(zip(rules, zip(*counts, strict=True), strict=True))


def _replay_as_json(replayed: Replayed) -> dict[str, object]:
    begun = replayed.source.beginning

    def turns(outcome: Outcome) -> list[dict[str, object]]:
        return [
            {
                "at": begun.wall + each.at, "constraint": each.turn.constraint,
                "before": each.turn.before, "after": each.turn.after,
                "values": {} if each.verdict is None else dict(each.verdict.inputs),
                "margin": None if each.verdict is None else each.verdict.margin,
            }
            for each in outcome.turns
        ]  # fmt: skip

    return {
        "node": begun.node,
        "from": begun.wall,
        "to": begun.wall + max(replayed.old.end, replayed.new.end),
        "constraints": [
            {"id": each.constraint, "definition": each.change, "old": each.old._asdict(), "new": each.new._asdict()}
            for each in compare(replayed)
        ],
        "alerts": [{"alert": rule, "old": old, "new": new} for rule, (old, new) in _alert_counts(replayed).items()],
        "differences": [each._asdict() for each in differences(replayed)],
        "turns": {"old": turns(replayed.old), "new": turns(replayed.new)},
        "notes": _notes(replayed),
    }


_COLOURS = {
    VerdictState.HOLDS: "#cfe8d2", VerdictState.PENDING: "#f4d35e", VerdictState.VIOLATED: "#c8553d",
    VerdictState.CLEARING: "#e59a86", VerdictState.UNKNOWN: "#c9c9c9", VerdictState.OFF: "#f1f1f1",
}  # fmt: skip
_WIDTH, _LEFT, _RIGHT, _ROW, _STRIP = 960, 200, 20, 34, 12


def _draw(replays: Sequence[Replayed]) -> Picture:
    """Two strips for each constraint that differs, the old states above the new ones."""
    marks: list[Mark] = [Text(16, 24, "verdict states: old rules above, new rules below", bold=True)]
    for number, (state, colour) in enumerate(_COLOURS.items()):
        marks += [Band(16 + 110 * number, 36, 12, 12, colour), Text(32 + 110 * number, 46, str(state))]
    top = 60
    for replayed in replays:
        end = max(replayed.old.end, replayed.new.end) or 1
        begun = replayed.source.beginning
        top += 24
        marks += [Text(16, top, f"{begun.node}, from {_time(begun.wall)}", bold=True)]
        marks += [Text(_WIDTH - _RIGHT, top, show_time(end // SECOND * SECOND), anchor="end")]
        ids = list(dict.fromkeys(each.constraint for each in differences(replayed)))[:MOST_SHOWN]
        for id_ in ids:
            top += 8
            marks.append(Text(16, top + 16, printable(id_)[:24]))
            for place, outcome in enumerate((replayed.old, replayed.new)):
                marks += _strip(outcome, id_, top + place * (_STRIP + 1), end)
            top += _ROW - 8
        if not ids:
            top += 20
            marks.append(Text(16, top, "no difference"))
    return Picture(_WIDTH, top + 24, tuple(marks))


def _strip(outcome: Outcome, id_: str, top: float, end: int) -> Iterator[Band]:
    state, since, scale = VerdictState.OFF, 0, (_WIDTH - _LEFT - _RIGHT) / end
    turns = [(each.at, each.turn.after) for each in outcome.turns if each.turn.constraint == id_]
    for at, after in (*turns, (end, VerdictState.OFF)):
        if at > since:
            yield Band(_LEFT + since * scale, top, (at - since) * scale, _STRIP, _COLOURS[state])
        state, since = after, at


# --- output of tests --------------------------------------------------------------------------------------------------------


def _as_json(file: str, result: CaseResult) -> dict[str, object]:
    return {
        "file": file,
        "test": result.name,
        "passed": not result.mismatches,
        "mismatches": [each._asdict() for each in result.mismatches],
        "seconds": round(result.seconds, 3),
    }


def _print(results: dict[str, list[CaseResult]]) -> None:
    failed = 0
    for file, cases in results.items():
        for each in cases:
            if each.mismatches:
                failed += 1
                print(printable(f"FAILED {file}: {each.name}"))
                for mismatch in each.mismatches:
                    for line in str(mismatch).splitlines():
                        print(f"  {printable(line)}")
    count = sum(map(len, results.values()))
    tests = counted(count, "test")
    sys.stdout.flush()
    print(f"{tests}: {'all as expected' if not failed else f'{failed} failed'}")


NOTES = frozenset({Fault.UNDECIDED})
"""Findings that are no fault of the constraints."""


def lint(arguments: argparse.Namespace) -> int:
    """Find faults of a set of constraints. Exit code 1 if there are any."""
    ranges = dict(map(_read_range, arguments.range))
    rules, kinds, parameters = _rules_of_files(arguments.files) if arguments.files else _rules_of_node(arguments)
    findings = find_faults(rules, ranges=ranges, kinds=kinds, measured=kinds, parameters=parameters)
    answer = {"constraints": len(rules), "findings": [each._asdict() for each in findings]}
    present(answer, None if arguments.json else show_findings(len(rules), findings))
    return int(any(each.fault not in NOTES for each in findings))


def show_findings(count: int, findings: Sequence[Finding]) -> list[str]:
    """A line for each finding, and a summary."""
    faults = sum(each.fault not in NOTES for each in findings)
    notes = f", {len(findings) - faults} not decided" if len(findings) > faults else ""
    summary = f"{counted(count, 'constraint')}: {counted(faults, 'fault') if faults else 'no faults'}{notes}"
    return [*(f"{each.fault}: {', '.join(each.ids)}: {each.text}" for each in findings), summary]


def _read_range(text: str) -> tuple[str, Range]:
    name, _, bounds = text.partition("=")
    low, separator, high = bounds.partition("..")
    try:
        found = float(low), float(high)
    except ValueError:
        found = math.nan, math.nan
    if not (name and separator and found[0] <= found[1] and all(map(math.isfinite, found))):
        raise MisuseError(f"--range takes a variable with its lowest and highest value, as in percent=0..100, not {text!r}")
    return name, found


def _rules_of_files(files: Sequence[str]) -> tuple[list[Rule], dict[str, str], set[str]]:
    """The constraints of files, no kinds of variables, and the names of the parameters that they set."""
    rules: dict[str, Rule] = {}
    parameters = set[str]()
    for file in files:
        found = read_wanted(file)
        parameters |= {each.name for each in found.parameters}
        for id_, wanted in found.constraints.items():
            if id_ in rules:
                raise MisuseError(printable(f"{file}: {wanted.place}: the id is in a file before"))
            rules[id_] = Rule(id_, wanted.definition)
    return list(rules.values()), {}, parameters


def _rules_of_node(arguments: argparse.Namespace) -> tuple[list[Rule], dict[str, str], set[str]]:
    """The constraints of a node, each definition of a conflict for itself, the kinds of variables, and the names of parameters."""
    client = connect(arguments)
    rules = [Rule(report.id, definition_of(each)) for report in client.constraints() for each in report.definitions]
    return rules, {each.name: each.kind for each in client.variables()}, {each.name for each in client.parameters()}


MOST_PATHS = 20
"""Paths of a message that are named where a field is missing."""

FOR = "5s"
"""How long the sources are read, by default."""

LONGEST = 3600.0

LOOK_EVERY = 0.05


class Trial:
    """A source that is tried, and the values that it gave."""

    def __init__(self, settings: SourceSettings, transport: object) -> None:
        self.settings = settings
        self.values: dict[str, object] = {}
        self.reader = SourceReader(settings, self.measure, partial(reader_of, settings, transport))

    async def measure(
        self,
        values: Mapping[str, object],
        source: str,  # noqa: ARG002 - the only one
        *,
        reasons: Mapping[str, str | None],  # noqa: ARG002 - the reader has them
        max_age: float,  # noqa: ARG002 - a trial is short
    ) -> None:
        """Keep the values."""
        for name, value in values.items():
            if value is None:
                self.values.pop(name, None)
            else:
                self.values[name] = value

    @property
    def is_over(self) -> bool:
        """The source has said all that it will for now: a source that sends by itself may say more."""
        is_asked = KINDS[self.settings.kind].every >= 1
        has_rate = any(field.rate for field in self.settings.fields.values())
        return is_asked and not has_rate and (self.reader.trouble is not None or self.reader.values > 0)

    def report(self) -> dict[str, object]:
        """The values and figures of the source."""
        reader = self.reader
        return {
            "source": self.settings.name,
            "kind": self.settings.kind,
            "trouble": reader.trouble or self._silence(),
            "messages": reader.intake.messages,
            "dropped": reader.dropped,
            "faults": reader.faults,
            "last_fault": reader.intake.last_fault or "",
            "missing": self._missing(),
            "sent": self._sent(),
            "values": {name: self.values[name] for name in sorted(self.values)},
            "unknown": {name: reader.unknown[name] for name in sorted(reader.unknown)},
        }

    def _silence(self) -> str | None:
        """Why the source gives nothing, if it is not down."""
        intake = self.reader.intake
        if not intake.messages:
            return "nothing came" if intake.last_fault is None else f"nothing came that can be decoded: {intake.last_fault}"
        if self.settings.fields and not self.values and all(why == MISSING.why for why in self.reader.unknown.values()):
            return "no path of `fields` is in what it sends"
        return None

    def _missing(self) -> list[str]:
        """The fields without a value, with their paths."""
        if not self.reader.intake.messages or self.settings.kind == "prometheus":  # of a page only the wanted series are read
            return []
        told = {*self.values, *(name for name, why in self.reader.unknown.items() if why != MISSING.why)}
        return [
            f"{name} at {field.path}"
            for name, field in self.settings.fields.items()
            if not any(re.fullmatch(_any_number(name), each) for each in told)
        ]

    def _sent(self) -> list[str]:
        """The paths in the last message."""
        last = self.reader.intake.last
        return [] if last is None else [".".join(path) for path, _ in itertools.islice(leaves(last.document), MOST_PATHS)]


def _any_number(name: str) -> str:
    """A pattern for the name of a variable, with any text for `{1}`."""
    return "".join(".*" if part.startswith("{") else re.escape(part) for part in re.split(r"(\{\d\})", name))


def try_sources(arguments: argparse.Namespace) -> int:
    """`source try`: exit code 1 if a source gives nothing.

    Raises `MisuseError` for settings that cannot be used, or have no source of that name.
    """
    settings = _read(arguments.file)
    chosen = [each for each in settings.source if arguments.name in (None, each.name)]
    if not chosen:
        there = ", ".join(each.name for each in settings.source)
        raise MisuseError(
            f"{arguments.file} has no source {arguments.name!r}: there is {there}"
            if there
            else f"{arguments.file} has no [[source]]"
        )
    try:
        seconds = parse_duration(arguments.for_)
    except ConstraintCrdtError as error:
        raise MisuseError(str(error)) from None
    if not 0 < seconds <= LONGEST:
        raise MisuseError(f"--for takes up to {LONGEST:.0f}s, not {arguments.for_}")
    log = logging.getLogger("constraint_crdt")
    level = log.level
    log.setLevel(logging.CRITICAL)  # the answer says it
    try:
        reports = asyncio.run(_try(chosen, settings, seconds))
    except ConstraintCrdtError as error:
        raise CommandFailedError(str(error)) from None
    finally:
        log.setLevel(level)
    if arguments.json:
        print_json(reports)
    else:
        print_view(list(_show(reports)))
    return int(any(report["trouble"] for report in reports))


def _read(file: str) -> NodeSettings:
    try:
        return load_settings({}, {}, Path(file))
    except SettingsError as error:
        raise MisuseError(str(error)) from None


async def _try(chosen: Iterable[SourceSettings], settings: NodeSettings, seconds: float) -> list[dict[str, object]]:
    trials = [Trial(each, settings) for each in chosen]
    tasks = [asyncio.create_task(trial.reader.run()) for trial in trials]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not all(trial.is_over for trial in trials):  # noqa: ASYNC110 - a moment
                await asyncio.sleep(LOOK_EVERY)
    reports = [trial.report() for trial in trials]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return reports


def _show(reports: Iterable[Mapping[str, object]]) -> Iterable[str | Table | Lines]:
    for report in reports:
        values, unknown = report["values"], report["unknown"]
        head = f"{report['source']} ({report['kind']}): {report['messages']} messages, {report['dropped']} values dropped"
        yield f"{head}; down: {report['trouble']}" if report["trouble"] else head
        if report["faults"] and report["messages"]:
            yield f"{report['faults']} messages cannot be decoded; the last: {report['last_fault']}"
        missing, sent = report["missing"], report["sent"]
        if isinstance(missing, list) and isinstance(sent, list) and missing:
            yield f"there is no {', '.join(missing)}; the last message has {', '.join(sent) or 'nothing'}"
        if isinstance(values, dict) and isinstance(unknown, dict) and (values or unknown):
            rows = [[name, _shown(value)] for name, value in values.items()]
            rows += [[name, f"unknown: {why}"] for name, why in unknown.items()]
            yield Table([Column("variable"), Column("value")], rows)


def _shown(value: object) -> str:
    return f"{value:.9g}" if isinstance(value, float) else str(value)
