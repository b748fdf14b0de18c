"""The commands on constraints that wait for acknowledgements, or take a file: add, remove, apply; `decide`, whose exit code is its
answer; and `acquire`, on a budget.

With `--json` they print the answer of the API. The commands that change definitions wait with `--wait` until enough nodes have
acknowledged the change; a wait that fails is told after the answer, with exit code 1.
"""

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence, Set
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING

import msgspec

from constraint_crdt.cli.arguments import PROGRAM
from constraint_crdt.cli.connection import connect, fields_of, request_of
from constraint_crdt.cli.output import CommandFailedError, MisuseError, confirm, present, printable
from constraint_crdt.client import ClientError, NotFound, Refused, WrongInput
from constraint_crdt.client.blocking import Client
from constraint_crdt.model import Mode, Severity, counted
from constraint_crdt.operations.alerts import DEFINE_ALERT, DefineRule
from constraint_crdt.operations.budgets import HoldReport, handle_of
from constraint_crdt.operations.constraints import (
    ADD,
    MAX_CHANGES,
    REMOVE,
    Added,
    Changed,
    ConstraintEdit,
    ConstraintReport,
    EditEffect,
    NewConstraint,
    Removed,
    RemovedConstraint,
    show_effect,
    show_fields,
    show_selector,
)
from constraint_crdt.operations.counts import CHECK, Given, show_evaluations
from constraint_crdt.operations.evidence import CoverageReport, NodeCoverage, StandingDefinition, acknowledged_by
from constraint_crdt.operations.operation import UsageError, is_pattern, parse_duration, parse_moment, show_distance, show_time
from constraint_crdt.operations.rules import (
    DECIDE,
    DEFAULT_GATE,
    DISABLE,
    REVERT,
    Disabled,
    Proposed,
    Reverted,
    show_decision,
    show_decisions,
    show_revert,
    show_rollout,
    show_switched,
)

if TYPE_CHECKING:
    from constraint_crdt.cli.files import WantedBudget, WantedConstraint
    from constraint_crdt.types.parameters import GivenParameter

LONGEST_REQUEST = 60.0
"""The longest wait of a request at the node, in seconds; a longer wait takes several requests."""

DEFAULT_WAIT = "30s"

APPLY_TRIES = 3
"""Looks at the active constraints and batches of `apply`, at most."""

ADD_TRIES = 3
"""Edits and additions of `add`, at most, while others remove and add the constraint."""

SHOWN = 20
"""Names in a sentence; of more it tells the number."""

CHANGES = ("added", "replaced", "extended", "unchanged", "removed")
"""In the order of the summary of `apply`."""

_ADDED = {
    "added": "added",
    "replaced": "replaced: it was active with another definition",
    "extended": "extended: it was active with this definition, and lasts longer now",
    "unchanged": "unchanged: it is active with this definition",
}


# --- writes -----------------------------------------------------------------------------------------------------------------


def add(arguments: argparse.Namespace) -> int:
    """Add a constraint, or change the given fields of an active constraint; with `--wait`, wait for acknowledgements."""
    request: NewConstraint = request_of(arguments)
    if request.when == "":
        raise MisuseError("--when is empty, as of an unset shell variable: give an expression, or leave it out")
    if is_pattern(request.id):
        raise MisuseError(printable(f"the id {request.id!r} is a pattern where constraints are named: take one without * and ?"))
    if request.new and arguments.replace:
        raise MisuseError("--new and --replace exclude each other: give one of them")
    check_wait(arguments)
    with connect(arguments) as client:
        whole = request.new or arguments.replace
        answer = client.do(ADD, request) if whole else _added_or_edited(client, request, _said(arguments))
        return _present_write(arguments, client, answer, show_add(answer), [*_changed_fields(answer), *_notes(answer.notes)])


def _said(arguments: argparse.Namespace) -> dict[str, object]:
    """The fields of a definition that the flags say, by their names in the API."""
    names = {field.name: field.encode_name for field in msgspec.structs.fields(ConstraintEdit)}
    return {names[name]: msgspec.to_builtins(value) for name, value in fields_of(arguments).items() if name in names}


def _added_or_edited(client: Client, request: NewConstraint, fields: Mapping[str, object]) -> Added:
    """Edit an active constraint, or add a new constraint. A node of 0.1.0 knows no edits: it takes the whole definition."""
    for _ in range(ADD_TRIES):
        try:
            return client.edit_constraint(request.id, fields)
        except NotFound:
            pass
        except Refused as error:
            if error.status != HTTPStatus.METHOD_NOT_ALLOWED:
                raise
            return client.do(ADD, request)
        try:
            return client.do(ADD, msgspec.structs.replace(request, new=True))
        except Refused as error:  # it was added meanwhile
            if error.status != HTTPStatus.CONFLICT or error.field != "new":
                raise
    raise CommandFailedError(printable(f"{request.id}: it is added and removed again by others: try again"))


def show_add(answer: Added) -> str:
    """The change of the definition, in a sentence."""
    ends = "" if answer.expires_at is None else f"; it ends {show_distance(round(answer.expires_at / 1e9 - time.time()))}"
    return f"{answer.id}: {_ADDED.get(answer.change, answer.change)}{ends}"


def _changed_fields(answer: Added) -> list[str]:
    """The changed fields of a definition, a line for each, and the label. The sentence has the end of an extended
    definition.
    """
    told = [] if answer.change == "extended" else answer.fields
    label = [] if answer.effect is None else [f"  {show_effect(answer.effect)}"]
    return [*(f"  {each.field}: {each.before or '-'} -> {each.after or '-'}" for each in told), *label]


def _notes(notes: Sequence[str]) -> list[str]:
    return [f"note: {note}" for note in notes]


def resolve(arguments: argparse.Namespace) -> int:
    """Keep a definition of a constraint in conflict, or join them; without a flag list them."""
    if arguments.keep is not None and arguments.all_of:
        raise MisuseError("--keep and --all-of exclude each other: give one of them")
    check_wait(arguments)
    id_ = request_of(arguments).id
    with connect(arguments) as client:
        definitions = [each for each in client.explain(id_).definitions if not each.expired]
        if not definitions:
            raise CommandFailedError(printable(f"no constraint {id_!r} is active"))
        if arguments.keep is None and not arguments.all_of:
            return present(definitions, None if arguments.json else [_numbered(*each) for each in enumerate(definitions, 1)])
        if arguments.keep is not None and not 0 < arguments.keep <= len(definitions):
            known = "one definition" if len(definitions) == 1 else f"{len(definitions)} definitions, numbered from 1"
            raise MisuseError(f"--keep {arguments.keep}: {id_} has {known}")
        kept = None if arguments.keep is None else definitions[arguments.keep - 1].dot
        answer = client.resolve(id_, keep=kept, loosen=request_of(arguments).loosen)
        what = "joined" if kept is None else f"definition {arguments.keep} is kept"
        sentence = f"{id_}: {what}, of {len(definitions)}"
        label = [] if answer.effect is None else [f"  {show_effect(answer.effect)}"]
        return _present_write(arguments, client, answer, sentence, [*label, *_notes(answer.notes)])


def _numbered(number: int, definition: StandingDefinition) -> str:
    """A definition of a list, with its number, its fields, and who added it."""
    text = definition.when or "listed, not evaluated"
    selector = show_selector(definition)
    fields = [definition.severity, *([f"on {selector}"] if selector else [])]
    fields += [f"{name} {value}" for name, value in show_fields(definition).items()]
    when = "" if definition.added_at is None else f", {show_time(definition.added_at, time.time())}"
    return printable(f"{number}  {text} ({', '.join(fields)}); by {definition.added_by}{when}")


def remove(arguments: argparse.Namespace) -> int:
    """Remove constraints, all or none; with `--wait`, wait for acknowledgements of each."""
    check_wait(arguments)
    with connect(arguments) as client:
        ids = _named(client, arguments.ids)
        if not arguments.yes and any(not each.strip("*?") for each in arguments.ids):  # as of "$PREFIX*" without the variable
            confirm(f"remove {counted(len(ids), 'constraint')}, as many as there are")
        if len(ids) == 1:
            answer = client.do(REMOVE, RemovedConstraint(id=ids[0]))
            return _present_write(arguments, client, answer, show_remove(answer), ())
        client.batch([{"remove": {"id": id_}} for id_ in ids])
        removed = [Removed(id=id_) for id_ in ids]
        if arguments.wait is None:
            return present(removed, None if arguments.json else list(map(show_remove, removed)))
        for each in removed:
            _present_write(arguments, client, each, show_remove(each), ())
        return 0


def _named(client: Client, wanted: Sequence[str]) -> list[str]:
    """The ids of active constraints that these ids and patterns name. Raises `CommandFailedError` for a pattern without a match."""
    if len(wanted) == 1 and not is_pattern(wanted[0]):
        return list(wanted)
    ids: dict[str, None] = {}
    for each in wanted:
        found = [report.id for report in client.constraints(id_=(each,))]
        if not found:
            raise CommandFailedError(printable(f"no constraint is active that {each!r} matches"))
        ids.update(dict.fromkeys(found))
    if len(ids) > MAX_CHANGES:
        raise MisuseError(f"{len(ids)} constraints match, and at most {MAX_CHANGES} are removed at once: name fewer")
    return list(ids)


def show_remove(answer: Removed) -> str:
    """The removal, in a sentence."""
    return f"{answer.id}: removed"


def _present_write(
    arguments: argparse.Namespace, client: Client, answer: Added | Removed, sentence: str, shown: Sequence[str]
) -> int:
    """Print the answer; with `--wait` after enough nodes have acknowledged. Raises `CommandFailedError` if too few have."""
    if arguments.wait is None:
        return present(answer, None if arguments.json else [sentence, *shown])
    report = wait_for(client, arguments, answer.id)
    told = f"{sentence}; {acknowledged_by(report)}" if report.met else sentence
    present({**msgspec.to_builtins(answer), "coverage": report}, None if arguments.json else [told, *shown])
    if not report.met:
        raise not_enough(f"{answer.id}: it is done here", report)
    return 0


# --- decisions --------------------------------------------------------------------------------------------------------------


def check(arguments: argparse.Namespace) -> int:
    """Evaluate the constraints against values. With `--exit-code` the worst verdict on an enforced constraint is the exit code."""
    from constraint_crdt.cli.guard import UNDECIDED, VIOLATED

    request: Given = request_of(arguments)
    if not request.values and not arguments.exit_code:
        raise MisuseError("give values as VAR=VALUE, or --exit-code for the verdict on the last measurements")
    with connect(arguments) as client:
        answer = client.do(CHECK, request)
        active = client.constraints() if arguments.exit_code else []
    present(answer, None if arguments.json else show_evaluations(answer, request))
    enforced = {report.id for report in active if any(each.mode == Mode.ENFORCE for each in report.definitions)}
    verdicts = {each.verdict for each in answer.evaluations if each.constraint in enforced}
    return VIOLATED if "violated" in verdicts else UNDECIDED if "unknown" in verdicts else 0


def decide(arguments: argparse.Namespace) -> int:
    """Ask for the ruling of the constraints on values. Returns 1 if these are not allowed."""
    request: Proposed = request_of(arguments)
    with connect(arguments) as client:
        answer = client.do(DECIDE, request)
    present(answer, None if arguments.json else show_decision(answer, request.values))
    return 0 if answer.allowed else 1


def decisions(arguments: argparse.Namespace) -> int:
    """Print the last decisions of the node, with `--json` a line each."""
    with connect(arguments) as client:
        answer = client.decisions()
    if not arguments.json:
        return present(answer, show_decisions(answer))
    for each in answer:
        print(json.dumps(msgspec.to_builtins(each)))
    return 0


# --- disable --------------------------------------------------------------------------------------------------------------


def disable(arguments: argparse.Namespace) -> int:
    """Disable constraints; all of them only after a question, or with `--yes`."""
    request: Disabled = request_of(arguments)
    with connect(arguments) as client:
        if request.all_ and not arguments.yes:
            confirm(f"disable all {client.status().constraints} constraints on all nodes of the fleet")
        answer = client.do(DISABLE, request)
    return present(answer, None if arguments.json else show_switched(answer, request, arguments))


def revert(arguments: argparse.Namespace) -> int:
    """Undo the last change of a constraint, or go back to a version; with `--all` to a time, after a question."""
    given: Reverted = request_of(arguments)
    target: str | None = arguments.target
    if arguments.all_ == (given.id is not None) or (arguments.all_ and target is None):
        raise MisuseError("name a constraint, or give --all with --to TIME")
    if arguments.all_:
        request = msgspec.structs.replace(given, time=_moment(target or ""))
    elif target is None or target.isdecimal():
        request = msgspec.structs.replace(given, to=None if target is None else int(target))
    else:
        raise MisuseError(f"--to {target!r} is no version of {given.id}: give the number that `history {given.id}` tells")
    with connect(arguments) as client:
        if arguments.all_ and not arguments.yes and not request.dry_run:
            planned = client.do(REVERT, msgspec.structs.replace(request, dry_run=True))
            if planned.steps:
                present(planned, show_revert(planned, request, arguments))
                confirm(f"make these {len(planned.steps)} changes")
        answer = client.do(REVERT, request)
    return present(answer, None if arguments.json else show_revert(answer, request, arguments))


def _moment(text: str) -> datetime:
    """The point in time of `10m`, which is ago, or of a date with its zone."""
    try:
        return datetime.now(UTC) - timedelta(seconds=parse_duration(text))
    except UsageError:
        return parse_moment(text)


# --- acquire ----------------------------------------------------------------------------------------------------------------

RENEW_AFTER = 1 / 3
"""The part of the rest of a hold after which it is renewed."""

RETRY_AFTER = 0.5
"""Seconds to another try of a renewal that found no answer."""

GRACE = 2.0
"""Seconds before the end of a hold at which its command is told to end; a tenth of a short hold. At the end it is killed."""


def acquire(arguments: argparse.Namespace) -> int:
    """Hold an amount of a budget while a command runs, and return its exit code; without a command print a handle."""
    wait = 0.0 if arguments.wait in (None, "0") else parse_duration(arguments.wait)
    words: list[str] = arguments.words
    holder = arguments.holder or " ".join([*words[:1], f"on {socket.gethostname()}"])
    with connect(arguments) as client:
        report = _acquired(client, arguments.name, arguments.amount, holder, wait)
        if not words:
            return present(report, None if arguments.json else handle_of(report))
        if arguments.json:
            present(report, None)
            sys.stdout.flush()  # before the output of the command
        return _run_holding(client, report, words)


def _acquired(client: Client, name: str, amount: int, holder: str, wait: float) -> HoldReport:
    """Acquire, by several requests if the wait is long."""
    ends = time.monotonic() + wait
    while True:
        left = max(0.0, ends - time.monotonic())
        try:
            return client.acquire(name, amount, wait=min(left, LONGEST_REQUEST), holder=holder)
        except Refused as error:
            if error.status != HTTPStatus.CONFLICT or time.monotonic() + RETRY_AFTER >= ends:
                raise
            time.sleep(RETRY_AFTER if left < LONGEST_REQUEST else 0.0)


def _run_holding(client: Client, report: HoldReport, words: Sequence[str]) -> int:
    """Run a command, and renew the hold meanwhile. A command whose hold cannot be renewed is ended before the hold is over."""
    try:
        environment = {**os.environ, "CONSTRAINT_CRDT_HOLD": handle_of(report)}
        process = subprocess.Popen(words, env=environment)  # noqa: S603 - the command that the caller gave
    except OSError as error:
        client.release_hold(report.name, report.hold)
        raise CommandFailedError(f"cannot run {words[0]}: {error.strerror or error}") from None
    before = {each: signal.signal(each, lambda *_: process.terminate()) for each in (signal.SIGTERM, signal.SIGHUP)}
    try:
        why = _keep(client, report, process)
    finally:
        if process.poll() is None:
            process.kill()
        code = process.wait()
        for each, handler in before.items():
            signal.signal(each, handler)
    if why:
        print(f"{PROGRAM} acquire: {printable(words[0])} was ended, as its hold of {report.name} is over: {why}", file=sys.stderr)
        return max(code, 1)
    try:
        client.release_hold(report.name, report.hold)
    except ClientError as error:
        print(f"{PROGRAM} acquire: not released, it ends with its lease: {error}", file=sys.stderr)
    return 128 - code if code < 0 else code


def _keep(client: Client, report: HoldReport, process: "subprocess.Popen[bytes]") -> str:
    """Wait for a process and renew its hold; returns why it had to be ended, or an empty text."""
    if report.ttl is None:
        process.wait()
        return ""
    ends, until, why = time.monotonic() + report.ttl, report.until or 0, "no answer of the node"
    due = time.monotonic() + report.ttl * RENEW_AFTER
    grace = min(GRACE, report.ttl / 10)
    while True:
        # By the earlier of two clocks: the wall clock of this machine may be set, and the other one stops while the machine sleeps.
        left = min(ends - time.monotonic(), (until - time.time_ns()) / 1e9)
        if left <= grace:
            break
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, min(due - time.monotonic(), left - grace)))
        if process.returncode is not None:
            return ""
        if time.monotonic() < due:
            continue
        try:
            found = client.renew_hold(report.name, report.hold)
            ends, until = time.monotonic() + (found.ttl or 0.0), found.until or 0
            due = time.monotonic() + max(RETRY_AFTER, (found.ttl or 0.0) * RENEW_AFTER)
        except ClientError as error:
            why, due = str(error), time.monotonic() + RETRY_AFTER
    process.terminate()
    try:
        process.wait(max(0.0, min(ends - time.monotonic(), (until - time.time_ns()) / 1e9)))
    except subprocess.TimeoutExpired:
        process.kill()
    return why


# --- apply ------------------------------------------------------------------------------------------------------------------


def apply(arguments: argparse.Namespace) -> int:
    """Add and edit the constraints of the file in a transaction; with `--prune` remove the others; with `--dry-run` only tell it.

    With `--wait` it returns when enough nodes have acknowledged all changes of definitions that the node knows then.
    """

    stages = _stages(arguments)
    from constraint_crdt.cli.files import read_wanted  # the parser of expressions takes longer than the other commands

    check_wait(arguments)
    if arguments.wait is not None and arguments.dry_run:
        raise MisuseError("--dry-run sends nothing, so there is nothing to wait for: leave out --wait")
    wanted, budgets, parameters, alerts = read_wanted(arguments.file)
    if arguments.prune and not wanted:
        raise MisuseError(f"{arguments.file} lists no constraint, so --prune would remove all of them: use `remove` for that")
    client = connect(arguments)
    _check_expressions(client, arguments.file, wanted, {each.name for each in parameters})
    planned = _planned_budgets(client, budgets)
    if stages:
        beside = [
            *_applied_parameters(client, parameters, dry_run=True, loosen=True), *(change for change, *_ in planned),
            *_applied_alerts(client, alerts, dry_run=True),
        ]  # fmt: skip
        return _apply_staged(arguments, client, wanted, stages, [str(each.id) for each in beside if each.change != "unchanged"])
    done: list[tuple[Changed, list[str]]] = []
    dry_run, loosen = arguments.dry_run, arguments.loosen
    done += [(each, []) for each in _applied_parameters(client, parameters, dry_run=dry_run, loosen=loosen)]
    done += applied(client, wanted, prune=arguments.prune, dry_run=dry_run, loosen=loosen)
    done += [(change, edits) for change, edits, _ in planned]
    for change, _, budget in planned:
        if change.change != "unchanged" and not arguments.dry_run:
            nodes = None if budget.on is None else list(budget.on)
            client.define_budget(budget.name, limit=budget.limit, lease=budget.lease, nodes=nodes)
    done += [(each, []) for each in _applied_alerts(client, alerts, dry_run=arguments.dry_run)]
    if not arguments.json:
        for line in _told_changes(done):
            print(line)
    changes = [change for change, _ in done]
    report = None if arguments.wait is None else wait_for(client, arguments, None)
    summary = show_changes(changes, dry_run=arguments.dry_run)
    if report is not None and report.met:
        summary = f"{summary}; {acknowledged_by(report)}"
    present(changes, None if arguments.json else summary)
    if report is not None and not report.met:
        raise not_enough("it is done here", report)
    if dry_run and not loosen:
        _check_loosened(done)
    return 0


def _told_changes(done: Sequence[tuple[Changed, Sequence[str]]]) -> list[str]:
    """Each change in lines: its fields, its meaning, its notes."""
    told = []
    for change, edits in done:
        meaning = [] if change.effect is None else [f"  {show_effect(change.effect)}"]
        told += [f"{change.id}: {change.change}", *edits, *meaning, *(f"note: {change.id}: {note}" for note in change.notes)]
    return [printable(line) for line in told]


def _check_loosened(done: Sequence[tuple[Changed, Sequence[str]]]) -> None:
    """Raise `CommandFailedError` for changes of a dry run in need of `--loosen`."""
    refused = [str(each.id) for each, _ in done if each.effect is not None and each.effect.needs_loosen]
    if refused:
        raise CommandFailedError(f"it would be refused: it loosens what is critical: {_some(refused)}: say --loosen if it is meant")


def _stages(arguments: argparse.Namespace) -> list[str]:
    """The stages of `apply`; empty without `--stage`. Raises `MisuseError` for flags that do not go together."""
    if arguments.stage is None:
        for flag, value in (("--gate", arguments.gate), ("--stage-timeout", arguments.stage_timeout)):
            if value is not None:
                raise MisuseError(f"{flag} is for stages, and there are none: give --stage, as in --stage zone=a,zone=b")
        return []
    if arguments.prune:
        raise MisuseError("--prune removes constraints at once, and --stage replaces them in stages: give one of them")
    if arguments.wait is not None:
        raise MisuseError(f"stages go on by themselves, so there is nothing to wait for: leave out --wait, see `{PROGRAM} rollout`")
    return parse_stages(arguments.stage)


def parse_stages(texts: Sequence[str]) -> list[str]:
    """The stages of `--stage`: repeated, a stage each; once, several separated by `;`, or by commas where there is no `;`.

    Commas in parentheses and in double quotes separate nothing.
    """
    if len(texts) != 1:
        return list(texts)
    text = texts[0]
    semicolons = _split(text, ";")
    found = [each.strip() for each in (semicolons if len(semicolons) > 1 else _split(text, ","))]
    return found[:-1] if len(semicolons) > 1 and not found[-1] else found


def _split(text: str, separator: str) -> list[str]:
    """The parts of a text between separators outside of parentheses and quotes."""
    parts, depth, quoted, escaped = [""], 0, False, False
    for char in text:
        if char == separator and not depth and not quoted:
            parts.append("")
            continue
        parts[-1] += char
        if quoted:
            escaped, quoted = char == "\\" and not escaped, char != '"' or escaped
        elif char == '"':
            quoted = True
        else:
            depth = max(0, depth + (char == "(") - (char == ")"))
    return parts


def _apply_staged(
    arguments: argparse.Namespace,
    client: Client,
    wanted: Mapping[str, "WantedConstraint"],
    stages: Sequence[str],
    beside: Sequence[str],
) -> int:
    """Begin a rollout of the changed constraints of the file. `beside`: what else the file changes."""
    if beside:
        named = ", ".join(beside[:SHOWN])
        raise MisuseError(printable(f"only constraints are staged, and {arguments.file} also changes {named}: apply that first"))
    timeout = None if arguments.stage_timeout is None else parse_duration(arguments.stage_timeout)
    done = [
        each
        for each in applied(client, wanted, prune=False, dry_run=True, loosen=arguments.loosen)
        if each[0].change != "unchanged"
    ]
    edited = _told_changes(done)
    if not done or arguments.dry_run:
        changes = [change for change, _ in done]
        told = [f"stage {number}: {on}" for number, on in enumerate(stages, start=1)] if done else []
        present(changes, None if arguments.json else [*edited, *told, show_changes(changes, dry_run=arguments.dry_run)])
        if not arguments.loosen:
            _check_loosened(done)
        return 0
    report = client.begin_rollout(
        [{"id": change.id, **wanted[str(change.id)].as_request(), "loosen": arguments.loosen} for change, _ in done],
        stages=stages,
        gate=DEFAULT_GATE if arguments.gate is None else arguments.gate,
        timeout=timeout,
        why=arguments.why or "",
    )
    said = [] if arguments.json else [*edited, *show_rollout(report)]
    return present(report, None if arguments.json else [*said, f"`{PROGRAM} rollout show {report.id}` tells how it goes on"])


def _applied_parameters(client: Client, wanted: Sequence["GivenParameter"], *, dry_run: bool, loosen: bool) -> list[Changed]:
    """Set the parameters of the file, before the constraints that may read them; returns the changes. `--prune` unsets none."""
    known = {(each.name, one.selector): one.value for each in client.parameters() for one in each.settings} if wanted else {}
    changes = []
    for each in wanted:
        before = known.get((each.name, each.selector))
        same = before is not None and repr(before) == repr(each.value)
        if not same and not dry_run:
            client.set_parameter(each.name, each.value, on=each.selector or None, loosen=loosen)
        where = f" on {each.selector}" if each.selector else ""
        change = "unchanged" if same else "added" if (each.name, each.selector) not in known else "replaced"
        changes.append(Changed(id=f"param.{each.name}{where}", change=change))
    return changes


def _planned_budgets(client: Client, wanted: Sequence["WantedBudget"]) -> list[tuple[Changed, list[str], "WantedBudget"]]:
    """The changes that the budgets of a file make, each with its edits as lines. `--prune` removes no budget.

    Raises `CommandFailedError` for another lease than that of the fleet, and for a node that is not known.
    """
    known = {each.name: each for each in client.budgets()} if wanted else {}
    nodes = {each.node for each in client.nodes() if not each.retired} if any(each.on for each in wanted) else set()
    planned = []
    for each in wanted:
        strange = [node for node in each.on or () if node not in nodes]
        if strange:
            raise CommandFailedError(printable(f"{each.place}: `on`: the node knows no node {strange[0]}"))
        before = known.get(each.name)
        edits = [] if before is None else each.edits_of(before)
        change = "added" if before is None else "replaced" if edits else "unchanged"
        planned.append((Changed(id=each.name, change=change), edits, each))
    return planned


def _applied_alerts(client: Client, wanted: Sequence[Mapping[str, object]], *, dry_run: bool) -> list[Changed]:
    """Define the alert rules of the file; returns the changes. `--prune` removes no rule. `dry_run`: send nothing."""
    if not wanted:
        return []
    from constraint_crdt.alerts import read_rules, same_rule  # for files with alerts only
    from constraint_crdt.cli.files import rule_of

    report, changes = client.alerts(), list[Changed]()
    known = {each.name: each for each in report.rules if each.of_fleet}
    for table, rule in zip(wanted, read_rules(wanted), strict=True):
        name = rule.name
        if dry_run:
            before = known.get(name)
            same = before is not None and not before.conflict and same_rule(rule_of(before), rule)
            change = "unchanged" if same else "replaced" if before is not None or name in report.refused else "added"
        else:
            change = client.do(DEFINE_ALERT, msgspec.convert(table, DefineRule)).change
        changes.append(Changed(id=name, change=change))
    return changes


def _check_expressions(client: Client, file: str, wanted: Mapping[str, "WantedConstraint"], parameters: Set[str]) -> None:
    """Raise `MisuseError` with a line for each expression that the node would refuse, which knows the kinds of the variables.

    `parameters`: those that the file sets. The node checks the expressions that read them when they have their values.
    """
    from constraint_crdt.types.parameters import read_parameters

    definitions = [each.definition for each in wanted.values() if not parameters & read_parameters(each.definition)]
    texts = {(text, each.scope) for each in definitions for text in (each.when, each.clear_when) if text}
    checked = ((each, client.check_expression(each[0], scope=each[1]).error) for each in sorted(texts))
    refused = {each: error for each, error in checked if error is not None}
    mistakes = []
    for each in wanted.values():
        for field, text in (("when", each.definition.when), ("clear_when", each.definition.clear_when)):
            error = refused.get((text or "", each.definition.scope))
            if error is not None:
                mistakes.append(f"{file}: {each.place}: `{field}`: {error}")
    if mistakes:
        raise MisuseError("\n".join(map(printable, mistakes)), several=True)


def applied(
    client: Client, wanted: Mapping[str, "WantedConstraint"], *, prune: bool, dry_run: bool, loosen: bool = False
) -> list[tuple[Changed, list[str]]]:
    """Carry out the wanted changes in a single batch, whole or not at all. Returns the changes, each with its edits as lines.

    `dry_run`: change nothing, and ask the node for the labels of the edits. `loosen`: also what loosens a critical constraint.
    Raises `CommandFailedError` for the removal of a critical constraint without it. A batch is refused if another node removed any
    of the constraints meanwhile: it is made again then.
    """
    for tries_left in reversed(range(APPLY_TRIES)):
        active = {each.id: each for each in client.constraints()}
        planned = [(id_, each.change_of(active[id_].definitions if id_ in active else ())) for id_, each in wanted.items()]
        planned += [(id_, "removed") for id_ in active if prune and id_ not in wanted]
        critical = [id_ for id_, change in planned if change == "removed" and _is_critical(active[id_])]
        if critical and not loosen:
            raise CommandFailedError(f"--prune removes what is critical: {_some(critical)}: say --loosen if that is meant")
        edits = [wanted[id_].edits_of(active[id_].definitions) if change == "replaced" else [] for id_, change in planned]
        ending = {id_ for id_, each in wanted.items() if each.definition.expires_at is not None}
        kept = {id_ for id_, change in planned if change == "unchanged" and id_ in ending}  # the end in force stays
        entries = [
            (place, _entry(id_, change, wanted, loosen=loosen)) for place, (id_, change) in enumerate(planned) if id_ not in kept
        ]
        if len(entries) > MAX_CHANGES:
            raise MisuseError(f"a file is applied at once, with at most {MAX_CHANGES} changes, not {len(entries)}: divide it")
        changes = [Changed(id=id_, change=change) for id_, change in planned]
        try:
            results = client.batch([entry for _, entry in entries]).results if entries and not dry_run else ()
        except WrongInput:
            if not tries_left:
                raise
            continue
        for (place, _), result in zip(entries, results, strict=False):
            changes[place] = result
        break
    if dry_run:
        effects = _effects(client, [entry for place, entry in entries if changes[place].change == "replaced"])
        changes = [msgspec.structs.replace(each, effect=effects.get(each.id or "")) for each in changes]
    return list(zip(changes, edits, strict=True))


def _some(ids: Sequence[str]) -> str:
    """The ids for a sentence, the number of many."""
    return printable(", ".join(ids[:SHOWN]) + (f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""))


def _effects(client: Client, entries: Sequence[Mapping[str, Mapping[str, object]]]) -> dict[str, EditEffect]:
    """What edits would mean, by id; none of a node of 0.1.0, which does not know."""
    try:
        return {each.id: each for each in client.effects(entries)} if entries else {}
    except NotFound:
        return {}


def _is_critical(report: ConstraintReport) -> bool:
    return any(each.severity == Severity.CRITICAL for each in report.definitions)


def _entry(id_: str, change: str, wanted: Mapping[str, "WantedConstraint"], *, loosen: bool) -> dict[str, dict[str, object]]:
    """The entry of a batch for a change."""
    if change == "removed":
        return {"remove": {"id": id_}}
    return {"add": {"id": id_, **wanted[id_].as_request(), **({"loosen": True} if loosen else {})}}


def show_changes(done: Sequence[Changed], *, dry_run: bool) -> str:
    """The number of changes of each kind, in a sentence."""
    counts = [(change, sum(each.change == change for each in done)) for change in CHANGES]
    told = ", ".join(f"{count} {change}" for change, count in counts if count) or "nothing to do"
    return f"would be: {told} (dry run, nothing was sent)" if dry_run else told


# --- waits ----------------------------------------------------------------------------------------------------------------------


def check_wait(arguments: argparse.Namespace) -> float:
    """Seconds to wait. Raises `MisuseError` for a wrong `--wait` or `--timeout`, before the command writes."""
    wanted = arguments.wait
    if wanted is None:
        if arguments.timeout is not None:
            raise MisuseError("--timeout says how long --wait waits: give both, or leave it out")
        return 0.0
    if wanted not in ("all", "live", "majority") and not (wanted.isascii() and wanted.isdigit() and 0 < int(wanted) < 1_000_000):
        raise MisuseError(f"--wait {wanted!r} is none of all, live, majority, or a number of nodes from 1")
    return parse_duration(DEFAULT_WAIT if arguments.timeout is None else arguments.timeout)


def wait_for(client: Client, arguments: argparse.Namespace, id_: str | None) -> CoverageReport:
    """Wait, as `--wait` and `--timeout` ask, until enough nodes have the change of `id_`, or of all definitions (None).

    Returns the last answer of the node, whose `met` tells whether enough have.
    """
    ends = time.monotonic() + check_wait(arguments)
    while True:
        left = round(max(0.0, min(ends - time.monotonic(), LONGEST_REQUEST)), 3)
        if id_ is None:
            answer = client.fleet_coverage(wait=arguments.wait, timeout=left)
        else:
            answer = client.coverage(id_, wait=arguments.wait, timeout=left)
        if answer.met or time.monotonic() >= ends:
            return answer


def not_enough(what: str, answer: CoverageReport) -> CommandFailedError:
    """The failure of a wait, with the names of the nodes without the change. `what`: the finished work."""
    lacking = [_lacking(each) for each in answer.nodes if not each.holds]
    more = f" and {len(lacking) - SHOWN} more" if len(lacking) > SHOWN else ""
    told = f"{what}, but only {acknowledged_by(answer)}, where {answer.wanted} were asked for"
    if not lacking:
        return CommandFailedError(printable(f"{told}: there are no more"))
    return CommandFailedError(printable(f"{told}; without evidence of it: {', '.join(lacking[:SHOWN])}{more}"))


def _lacking(each: NodeCoverage) -> str:
    notes = [*(["not live"] if not each.live else []), *(["nothing is known of what it has"] if each.holds is None else [])]
    return f"{each.node} ({', '.join(notes)})" if notes else each.node
