"""Files: read whole within a bound, and written whole or not at all. The commands on files, and the file of `apply`.

Rules of writing: a file is written under a temporary name beside its place, synced to disk, and then renamed. So a reader sees the
old file or the new file, and a full disk leaves the old one. The file keeps the mode of its predecessor. A device or a pipe is
written to in place. `-` is standard input or output.

The commands on state files are merge, export and import; docs/reference/state-files.md describes the format. `export --store` reads
a store, and needs no node. `backup` and `restore` copy whole stores. `tile put` and `tile get` read and write the content of a
tile.

The file of `apply` lists constraints:

    [[constraint]]
    id = "thermal"
    when = "gpu_temp_c < 85.0"        # left out: listed, not evaluated
    severity = "critical"             # info, warning (default) or critical
    about = "the fan gives up above"
    on = { zone = "a" }               # left out: it applies to all nodes
    ttl = "30m"                       # or until = 2026-12-01T00:00:00Z; left out: until it is removed
    renew = true                      # the ttl begins again each time the file is applied; left out: only where it has ended
    for = "30s"                       # violated only once it was violated so long; left out: at once
    clear_after = "10s"               # holds again only once it held so long; left out: at once
    clear_when = "gpu_temp_c < 80.0"  # and only if this holds
    if_unknown = "violated"           # or satisfied; left out: unknown
    scope = "node"                    # or fleet
    max_age = "5s"                    # older values are not used; left out: as each node sets

and budgets:

    [[budget]]
    name = "dock"
    limit = 5
    lease = "2m"                      # or none, for what is used up; left out: two minutes
    on = ["forge", "gate"]            # the nodes with a share; left out: those live when it is made

The whole file is checked before anything is sent, and is applied in a single transaction of the node: a file with a mistake changes
nothing. `export --constraints` writes such a file.
"""

import argparse
import base64
import contextlib
import json
import os
import re
import stat
import sys
import tempfile
import time
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock_time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from constraint_crdt.cli.arguments import DEPLOYED, PROGRAM
from constraint_crdt.cli.connection import connect, request_of
from constraint_crdt.cli.output import CommandFailedError, MisuseError, present, print_json, printable
from constraint_crdt.client import NotFound, WrongInput, not_a_node
from constraint_crdt.client.blocking import Client
from constraint_crdt.crdt.clock import SECOND, check_id
from constraint_crdt.crdt.limits import MAX_COUNT, TILE_BYTES, Limits
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.errors import ConstraintCrdtError, StoreMissing
from constraint_crdt.expression import ExpressionError, check_expressions
from constraint_crdt.insight.diagnosis import named
from constraint_crdt.model import IfUnknown, Mode, Scope, Severity, counted, nearest
from constraint_crdt.operations.alerts import RuleReport
from constraint_crdt.operations.budgets import BudgetReport
from constraint_crdt.operations.constraints import Changed, DefinitionReport
from constraint_crdt.operations.operation import UsageError, parse_duration, show_duration
from constraint_crdt.operations.service import show_import
from constraint_crdt.operations.tiles import TILE, TileContent, show_put_tile
from constraint_crdt.runtime.settings import MEMORY_STORE
from constraint_crdt.state import FORMAT, MAX_STATE_BYTES, ConstraintState, from_json, to_json
from constraint_crdt.store import back_up, check_backup, default_path, put_back, read_store
from constraint_crdt.store.files import REJOIN, replace_file
from constraint_crdt.types.budgets import Known, check_budget
from constraint_crdt.types.definition import Definition, check_definition, check_selector, duration_ns, expiry_time
from constraint_crdt.types.orset import Change, change_of
from constraint_crdt.types.parameters import GivenParameter, check_parameter_name, check_parameter_value, read_parameters

if TYPE_CHECKING:
    from constraint_crdt.alerts import AlertRule

FILE_NS = 1_000
"""The precision of a time in a file of constraints, in ns: a smaller difference of ends is none."""

STANDARD = "-"
"""The name of standard input and output."""

MAX_IMPORT_BYTES = 64 * 1024 * 1024
"""The largest import of a node, in bytes."""

MOST_STRANGERS = 10
"""Nodes of a state file that are named in a sentence."""

FIELDS = (
    "id", "when", "severity", "about", "on", "ttl", "renew", "until", "for", "clear_after", "clear_when", "if_unknown", "max_age",
    "scope", "mode", "each",
)  # fmt: skip
"""Of a constraint in a file."""

TEXTS = ("id", "when", "severity", "about", "clear_when", "if_unknown", "scope", "mode", "each")

# --- whole files ------------------------------------------------------------------------------------------------------------


def read_whole(name: str, most: int) -> bytes:
    """The bytes of a file. Raises `MisuseError` if it cannot be read or has more than `most` bytes."""
    try:
        if name == STANDARD:
            data = sys.stdin.buffer.read(most + 1)
        else:
            with Path(name).open("rb") as file:
                data = file.read(most + 1)
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise MisuseError(f"cannot read {name}: {_reason(error)}") from None
    if len(data) > most:
        raise MisuseError(f"{name} has more than {most} bytes, which is the most that is read")
    return data


def write_whole(name: str, data: bytes) -> None:
    """Replace a file, or write to a device or pipe. Raises `CommandFailedError` on failure, which leaves the file as it was."""
    if name == STANDARD:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        path, mode = _place(name)
        if mode is not None and not stat.S_ISREG(mode):
            path.write_bytes(data)
            return
        if mode is None:
            replace_file(path, data, mode=0o666)
        else:
            kept = stat.S_IMODE(mode)
            replace_file(path, data, prepare=lambda handle: os.fchmod(handle, kept))
    except (OSError, ValueError) as error:
        raise CommandFailedError(f"cannot write {name}: {_reason(error)}") from None


def check_place(name: str) -> None:
    """Raise `CommandFailedError` if `write_whole` would fail, as far as can be known. Leaves no file."""
    path = Path(name)
    try:
        path, mode = _place(name)
        if mode is None or stat.S_ISREG(mode):  # a pipe, for example, is written to in place
            with tempfile.TemporaryFile(dir=path.parent):  # permission does not tell: the disk may be read-only
                pass
    except FileNotFoundError:
        raise CommandFailedError(f"cannot write {name}: there is no directory {path.parent}") from None
    except (OSError, ValueError) as error:
        raise CommandFailedError(f"cannot write {name}: {_reason(error)}") from None


def _place(name: str) -> tuple[Path, int | None]:
    """The path that is written, and the mode of the file there. The target of a link is replaced, not the link."""
    path = Path(os.path.realpath(name))
    mode = path.stat().st_mode if path.exists() else None
    if mode is not None and stat.S_ISDIR(mode):
        raise CommandFailedError(f"cannot write {name}: it is a directory; name a file in it")
    return path, mode


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def config(arguments: argparse.Namespace) -> int:
    """Print a file of `deploy/`, which an installation has in the package, and a checkout beside the sources."""
    package = Path(__file__).parents[1]
    name = DEPLOYED[arguments.what]
    found = next((each for each in (package / "deploy" / name, package.parents[1] / "deploy" / name) if each.is_file()), None)
    if found is None:
        raise CommandFailedError(f"this installation has no {name}: install the wheel of constraint-crdt again")
    sys.stdout.write(found.read_text(encoding="utf-8"))
    return 0


# --- state files ------------------------------------------------------------------------------------------------------------


def merge(arguments: argparse.Namespace) -> int:
    """Merge several state files. Neither their order nor a repetition matters."""
    merged = ConstraintState()
    for name in arguments.files:
        try:
            merged.merge(from_json(read_whole(name, MAX_STATE_BYTES)))
        except ConstraintCrdtError as error:
            raise MisuseError(printable(f"{name}: {error}")) from None
    content = to_json(merged).encode()
    write_whole(arguments.output, _line(content))
    if arguments.output != STANDARD:
        print(printable(show_state_file(arguments.output, msgspec.json.decode(content, type=StateFile))))
    return 0


def export(arguments: argparse.Namespace) -> int:
    """Write the state of a node, or the state in a store, to a file."""
    if arguments.constraints:
        return _export_constraints(arguments)
    content = _asked_state(arguments) if arguments.store is None else _stored_state(Path(arguments.store))
    write_whole(arguments.output, _line(content))
    if arguments.output != STANDARD:
        file = msgspec.json.decode(content, type=StateFile)
        answer = {"file": arguments.output, **msgspec.json.decode(file.reading, type=dict[str, Any])}
        present(answer, None if arguments.json else show_state_file(arguments.output, file))
    return 0


def _export_constraints(arguments: argparse.Namespace) -> int:
    """Write the active constraints as a file that `apply` reads."""
    if arguments.json:
        raise MisuseError("--constraints writes TOML, and --json prints JSON: `constraints --json` has them in JSON")
    if arguments.store is None:
        client = connect(arguments)
        reports, live = client.constraints(), {each.node for each in client.nodes() if each.live}
        definitions = {each.id: [definition_of(one) for one in each.definitions] for each in reports}
        budgets = [ListedBudget(each.name, each.limits, each.lease, each.participants) for each in client.budgets()]
        settings = _asked_parameters(client)
        rules, unread = _asked_rules(client)
        staged = _asked_rollouts(client)
    else:
        state = from_json(_stored_state(Path(arguments.store)))
        definitions = {id_: list(state.constraints.definitions(id_)) for id_ in state.constraints}
        live = {name for name in state.nodes if name not in state.retirements}
        budgets = [ListedBudget.of(name, state.budgets.known(name)) for name in state.budgets]
        settings = {
            name: [(each.text, [value.value for value in each.values]) for each in state.parameters.settings(name)]
            for name in state.parameters
        }
        rules, unread = _stored_rules(state)
        staged = [(each.id, sorted(each.plan.changes)) for each in state.rollouts.active]
    notes = [
        f"rollout {id_} is not complete: {named(ids)} {'is' if len(ids) == 1 else 'are'} written as before it"
        for id_, ids in staged
    ]
    blocks = [
        "".join(f"# {printable(note)}\n" for note in notes),
        write_parameters(settings),
        write_constraints(definitions),
        write_budgets(budgets, live),
        write_alerts(rules, unread),
    ]
    write_whole(arguments.output, "\n".join(filter(None, blocks)).encode())
    if arguments.output != STANDARD:
        counts = {"parameter": len(settings), "budget": len(budgets), "alert rule": len(rules)}
        also = "".join(f" and {counted(count, what)}" for what, count in counts.items() if count)
        for note in notes:
            print(printable(f"note: {note}"))
        print(printable(f"{arguments.output}: {counted(len(definitions), 'constraint')}{also}; `{PROGRAM} apply` reads them"))
    return 0


def _asked_parameters(client: Client) -> dict[str, list[tuple[str, list[float | str | bool]]]]:
    """The settings of the parameters of a node; none of a node of 0.1.0, which has no parameters."""
    try:
        found = client.parameters()
    except NotFound:
        return {}
    return {each.name: [(one.selector, [value.value for value in one.values]) for one in each.settings] for each in found}


def _asked_rollouts(client: Client) -> list[tuple[str, Sequence[str]]]:
    """The active rollouts of the fleet, each with its constraints; none of a node of 0.1.0."""
    try:
        found = client.rollouts()
    except NotFound:
        return []
    return [(each.id, each.constraints) for each in found if each.phase in ("running", "stopped")]


def _asked_rules(client: Client) -> "tuple[list[AlertRule], dict[str, str]]":
    """The alert rules of the fleet as a node tells them, and by name why it cannot read others."""
    report = client.alerts()
    return [rule_of(each) for each in report.rules if each.of_fleet], report.refused


def _stored_rules(state: ConstraintState) -> "tuple[list[AlertRule], dict[str, str]]":
    """The alert rules of a stored state, and by name why others cannot be read."""
    from constraint_crdt.alerts import read_text  # for exports only

    rules: list[AlertRule] = []
    unread: dict[str, str] = {}
    for name in state.alert_rules:
        known = state.alert_rules.of(name)
        try:
            rules += [] if known is None else [read_text(name, known.text)]
        except ConstraintCrdtError as error:
            unread[name] = str(error)
    return rules, unread


def rule_of(report: RuleReport) -> "AlertRule":
    """The alert rule of the fleet that a node tells."""
    from constraint_crdt.alerts import AlertRule  # for files with alerts only

    return AlertRule(
        name=report.name,
        kind=report.kind,
        constraint=report.constraint,
        node=report.node,
        on=report.on,
        budget=report.budget,
        half_life=report.half_life,
        above=report.above,
        above_share=report.above_share,
        for_=report.lasts,
        to=report.to,
        keep_firing_for=report.keeps,
        repeat=report.repeat,
        within=report.within,
    )


def _asked_state(arguments: argparse.Namespace) -> bytes:
    """The state of a node."""
    client = connect(arguments)
    content = client.export()
    try:
        file = msgspec.json.decode(content, type=StateFile)
    except (msgspec.ValidationError, UnicodeDecodeError):
        file = None
    except msgspec.DecodeError:
        raise not_a_node(client.address) from None
    if file is None or file.format != FORMAT:
        raise CommandFailedError(f"what the node at {client.address.url} answered is no state: its version may be an older one")
    return content


def _stored_state(path: Path) -> bytes:
    """The state in a store, which may be in use."""
    state = ConstraintState(Rows(limits=Limits(rows=MAX_COUNT, cells=MAX_COUNT)))
    with _as_command_failure():
        read_store(path, state.rows)
    return to_json(state).encode()


def import_(arguments: argparse.Namespace) -> int:
    """Merge a state file into a node, or take its constraints alone; with `--dry-run` only tell the effect."""
    client = connect(arguments)
    content = read_whole(arguments.file, MAX_IMPORT_BYTES)
    if arguments.constraints:
        return _import_constraints(client, arguments, content)
    before = {each.node for each in client.nodes()}
    if arguments.dry_run:
        return _show_would_import(arguments, content, before)
    try:
        answer = client.import_state(content)
    except WrongInput as error:  # a mistake in the file
        raise MisuseError(printable(f"{arguments.file}: {error}")) from None
    if arguments.json:
        return present(answer, None)
    print(printable(show_import(answer)))
    strangers = sorted({each.node for each in client.nodes() if not each.retired} - before) if answer.changed else []
    if strangers:
        print(printable(_strangers_note(strangers)))
    return 0


def _strangers_note(strangers: Sequence[str]) -> str:
    """The advice on the nodes that a state file brings into a fleet."""
    few, more = strangers[:MOST_STRANGERS], len(strangers) - MOST_STRANGERS
    shown = " ".join(few)
    told = f"{', '.join(few)}{f' and {more} more' if more > 0 else ''}"
    one = len(strangers) == 1
    return (
        f"note: new here from the file: {told}. {'It counts' if one else 'They count'} as {'a node' if one else 'nodes'} of this "
        f"fleet, not live until heard of. If {'it is' if one else 'they are'} of another fleet: `{PROGRAM} retire {shown}` here; "
        "next time `import --constraints` takes the constraints alone"
    )


def _read_state(arguments: argparse.Namespace, content: bytes) -> ConstraintState:
    """The state of the file. Raises `MisuseError` for a mistake in it."""
    try:
        return from_json(content)
    except ConstraintCrdtError as error:
        raise MisuseError(printable(f"{arguments.file}: {error}")) from None


def _show_would_import(arguments: argparse.Namespace, content: bytes, known: Set[str]) -> int:
    """`--dry-run`: merge the file into a copy of the node's state, and tell the difference."""
    given, here = _read_state(arguments, content), from_json(_asked_state(arguments))
    try:
        merged = here.merged(given)
    except ConstraintCrdtError as error:
        raise MisuseError(printable(f"{arguments.file}: {error}")) from None
    ids = sorted({*here.constraints, *merged.constraints})
    changes = [Changed(id=id_, change=change) for id_ in ids if (change := _changed_by(id_, here, merged))]
    held = {replica.node_id for replica in merged.clock}
    unknown = sorted(name for name in held - known if name not in merged.retirements)
    answer = {"changed": merged.state_hash != here.state_hash, "constraints": changes, "unknown_nodes": unknown}
    if arguments.json:
        return present(answer, None)
    if merged.state_hash == here.state_hash:
        return present(answer, "would be nothing new: the node knows all of it (dry run, nothing was sent)")
    lines = [f"{each.id}: would be {each.change}" for each in changes]
    nodes = f"; nodes unknown here: {', '.join(unknown[:MOST_STRANGERS])}" if unknown else ""
    nodes += f" and {len(unknown) - MOST_STRANGERS} more" if len(unknown) > MOST_STRANGERS else ""
    lines.append(f"would change {counted(len(changes), 'constraint')}{nodes} (dry run, nothing was sent)")
    if unknown:
        lines.append("note: nodes of another fleet would stay here as not live: `import --constraints` takes the constraints alone")
    return present(answer, lines)


def _changed_by(id_: str, before: ConstraintState, after: ConstraintState) -> str:
    """The change of a constraint between two states; empty if there is none."""
    if id_ not in after.constraints:
        return "removed"
    if id_ not in before.constraints:
        return "added"
    former, latter = ({each.definition for each in one.constraints.additions(id_)} for one in (before, after))
    return "" if former == latter else "replaced" if len(latter) == 1 else "in conflict"


def _import_constraints(client: Client, arguments: argparse.Namespace, content: bytes) -> int:
    """Take the active constraints of a state file in a single transaction of the node, as if they were applied from a file."""
    from constraint_crdt.cli.constraints import applied, show_changes

    state = _read_state(arguments, content)
    now = time.time_ns()
    wanted: dict[str, WantedConstraint] = {}
    torn = []
    for id_ in sorted(state.constraints):
        found = list(dict.fromkeys(state.constraints.definitions(id_)))
        standing = [each for each in found if each.expires_at is None or each.expires_at > now]
        if standing:
            wanted[id_] = _as_wanted(standing[0])
        if len(standing) > 1:
            torn.append(id_)
    if torn:
        told = ", ".join(torn[:MOST_STRANGERS])
        raise MisuseError(printable(f"{arguments.file}: {told}: the definitions are in conflict there: settle that first"))
    done = [change for change, _ in applied(client, wanted, prune=False, dry_run=arguments.dry_run, loosen=arguments.loosen)]
    if arguments.json:
        return present(done, None)
    for change in done:
        print(printable(f"{change.id}: {change.change}"))
        for note in change.notes:
            print(printable(f"note: {change.id}: {note}"))
    return present(done, show_changes(done, dry_run=arguments.dry_run))


def backup(arguments: argparse.Namespace) -> int:
    """Copy a store to a file, and check the copy."""
    store = _store_of_node(arguments) if arguments.store is None else Path(arguments.store)
    check_place(arguments.file)
    with _as_command_failure():
        made = back_up(store, Path(arguments.file))
    answer = {"file": arguments.file, "store": str(store), **made._asdict()}
    size = f"{counted(made.cells, 'cell')}, {made.bytes} bytes"
    text = f"{arguments.file}: the store of node {made.node} of fleet {made.fleet}, {size}, checked"
    return present(answer, None if arguments.json else printable(text))


def _store_of_node(arguments: argparse.Namespace) -> Path:
    """The store of a node, which must be on this machine."""
    client = connect(arguments)
    path = client.storage().path
    if path == MEMORY_STORE:
        raise CommandFailedError("the node keeps its state in memory and has no store: `constraint-crdt export` writes its state")
    if not Path(path).exists():
        raise CommandFailedError(
            printable(f"the store of the node at {client.address.url} is {path} there: back it up on that machine")
        )
    return Path(path)


def restore(arguments: argparse.Namespace) -> int:
    """Make a backup the store of its node."""
    file = Path(arguments.file)
    if arguments.store in ("", MEMORY_STORE):
        raise MisuseError(f"--store {arguments.store!r} names no file: leave it out for the usual place of the node")
    with _as_command_failure(f"name a file that `{PROGRAM} backup` wrote"):
        found = check_backup(file)
        store = default_path(found.node, found.fleet) if arguments.store is None else Path(arguments.store)
        _, former = put_back(file, store)
    kept = "" if former is None else f"; the former store is kept as {former}"
    text = (
        f"{store}: restored for node {found.node} of fleet {found.fleet}, {counted(found.cells, 'cell')}{kept}. "
        "At its next start the node "
        "begins a new life, and takes what is newer from its peers"
    )
    answer = {"store": str(store), "file": arguments.file, "former": None if former is None else str(former), **found._asdict()}
    return present(answer, None if arguments.json else printable(text))


@contextlib.contextmanager
def _as_command_failure(advice: str = REJOIN) -> Iterator[None]:
    """End the command with the sentence of an error of a store. `advice`: for a store that cannot be read."""
    try:
        yield
    except StoreMissing as error:
        raise MisuseError(printable(str(error))) from None
    except ConstraintCrdtError as error:
        raise CommandFailedError(printable(str(error).replace(REJOIN, advice))) from None


class StateFile(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a state file that is for people."""

    format: str
    hash: str
    reading: msgspec.Raw


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """The counts of a state file. Its other values are not shown."""

    satisfied: int
    violations: int
    constraints: list[msgspec.Raw]


def show_state_file(name: str, file: StateFile) -> str:
    """The constraints, counts and hash of a file, in a sentence."""
    reading = msgspec.json.decode(file.reading, type=Reading)
    counts = f"{reading.satisfied} satisfied, {reading.violations} violated"
    return f"{name}: {counted(len(reading.constraints), 'constraint')}, {counts}; hash {file.hash[:16]}"


def _line(content: bytes) -> bytes:
    return content.rstrip() + b"\n"


# --- tiles ----------------------------------------------------------------------------------------------------------------------


def put(arguments: argparse.Namespace) -> int:
    """Replace the content of a tile."""
    content = read_whole(arguments.file or STANDARD, TILE_BYTES) if arguments.text is None else arguments.text
    answer = connect(arguments).put_tile(
        arguments.room,
        arguments.id,
        content,
        author=arguments.author,
        tags=arguments.tags,
        constraints=arguments.constraint,
    )
    return present(answer, None if arguments.json else show_put_tile(answer))


def get(arguments: argparse.Namespace) -> int:
    """Print the content of a tile, or write it to a file."""
    answer = connect(arguments).do(TILE, request_of(arguments))
    content = base64.b64decode(answer.base64 or "") if answer.text is None else answer.text.encode()
    if arguments.output is not None and arguments.output != STANDARD:
        write_whole(arguments.output, content)
        if arguments.json:
            print_json({"file": arguments.output, **_without_content(answer)})
    elif arguments.json:
        print_json(answer)
    elif sys.stdout.isatty():
        _print_on_terminal(answer.text)
    else:
        write_whole(STANDARD, content)
    return 0


def _without_content(answer: TileContent) -> dict[str, object]:
    return {name: getattr(answer, name) for name in answer.__struct_fields__ if name not in ("text", "base64")}


def _print_on_terminal(text: str | None) -> None:
    """Print a text of any member of the fleet. Raises `MisuseError` if it could steer the terminal."""
    if text is None or not all(char.isprintable() or char in "\n\t" for char in text):
        raise MisuseError("the content is binary, or would steer the terminal: write it to a file with -o FILE")
    print(text, end="" if text.endswith("\n") or not text else "\n")


# --- files of constraints ---------------------------------------------------------------------------------------------------


class WantedConstraint(NamedTuple):
    """A constraint of a file."""

    definition: Definition
    """Its end reckoned from when the file was read."""
    ttl: float | None
    """Seconds."""
    until: datetime | None
    renew: bool = False
    """Each time the file is applied the `ttl` begins again."""
    place: str = ""
    """The place in the file, for people."""

    def change_of(self, in_force: Iterable[DefinitionReport]) -> str:
        """The change that applying it makes to the definitions in force."""
        before = list(dict.fromkeys(map(definition_of, in_force)))
        ends = [each.expires_at for each in before if each.expires_at is not None]
        wanted = self.definition.expires_at
        same = next((end for end in ends if wanted is not None and abs(end - wanted) < FILE_NS), wanted)
        found = change_of(before, self.definition._replace(expires_at=same))
        return "unchanged" if found is Change.EXTENDED and self.ttl is not None and not self.renew else found.value

    def edits_of(self, in_force: Sequence[DefinitionReport]) -> list[str]:
        """The edited fields of the definition in force, a line for each."""
        if len(in_force) > 1:
            return [f"  settles a conflict of {len(in_force)} definitions"]
        before, after = (fields_of(each) for each in (definition_of(in_force[0]), self.definition))
        edited = [key for key in FIELDS if before.get(key) != after.get(key)]
        return [f"  {key}: {_as_toml(before.get(key, '-'))} -> {_as_toml(after.get(key, '-'))}" for key in edited]

    def as_request(self) -> dict[str, object]:
        """The fields of a request to add it, without the id."""
        ends = (("ttl", self.ttl), ("until", self.until))
        return fields_of(self.definition) | {key: value for key, value in ends if value is not None}


def _as_wanted(definition: Definition) -> WantedConstraint:
    """A definition of a state, as if a file listed it."""
    ends = definition.expires_at
    until = None if ends is None else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=ends // 1000)
    return WantedConstraint(definition, None, until)


def definition_of(report: DefinitionReport) -> Definition:
    """The definition that a node reports."""
    selector = check_selector(report.selector or report.on)
    return Definition(
        report.when, Severity(report.severity), report.about, selector.equal, report.expires_at,
        duration_ns(report.for_, "for") or 0, duration_ns(report.clear_after, "clear_after") or 0, report.clear_when,
        IfUnknown(report.if_unknown), duration_ns(report.max_age, "max_age"), Scope(report.scope),
        selector.requirements, Mode(report.mode), report.each, report.meaning,
    )  # fmt: skip


def fields_of(definition: Definition) -> dict[str, object]:
    """The fields of a definition as in a file, without its end and without those at their defaults."""
    found: dict[str, object] = {
        "when": definition.when,
        "severity": None if definition.severity is Severity.WARNING else str(definition.severity),
        "about": definition.about,
        "on": str(definition.selector) if definition.requirements else dict(definition.on) or None,
        "for": definition.for_ / SECOND or None,
        "clear_after": definition.clear_after / SECOND or None,
        "clear_when": definition.clear_when,
        "if_unknown": None if definition.if_unknown is IfUnknown.UNKNOWN else definition.if_unknown.value,
        "max_age": None if definition.max_age is None else definition.max_age / SECOND,
        "scope": None if definition.scope is Scope.NODE else definition.scope.value,
        "mode": None if definition.mode is Mode.ENFORCE else definition.mode.value,
        "each": definition.each,
    }
    return {key: value for key, value in found.items() if value is not None}


def write_constraints(definitions: Mapping[str, Sequence[Definition]]) -> str:
    """A file that `apply` reads, of constraints by id. A conflict is told in a comment; its first definition is written."""
    blocks = []
    for id_, (first, *others) in sorted(definitions.items()):
        lines = ["[[constraint]]", f"id = {_as_toml(id_)}"]
        if others:
            lines.insert(0, f"# in conflict: {len(others)} more with other definitions, enforced too until one is applied")
        if first.meaning:
            lines.insert(0, "# of a later version of constraint-crdt: fields that this one does not know are left out")
        lines += [f"{key} = {_as_toml(value)}" for key, value in fields_of(first).items()]
        if first.expires_at is not None:
            until = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=first.expires_at // 1000)
            lines.append(f"until = {until.isoformat()}")
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def _as_toml(value: object) -> str:
    """A text, number or table of texts. JSON's texts are TOML's basic strings, but for the character DEL."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_as_toml(key)} = {_as_toml(each)}" for key, each in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


_TABLES = frozenset({"constraint", "budget", "alert", "parameters"})


class WantedFile(NamedTuple):
    """The content of a file of `apply`."""

    constraints: dict[str, WantedConstraint]
    """By id."""
    budgets: list["WantedBudget"]
    parameters: list[GivenParameter]
    alerts: list[dict[str, object]]


def write_parameters(settings: Mapping[str, Sequence[tuple[str, Sequence[float | str | bool]]]]) -> str:
    """The table of the parameters in a file that `apply` reads, of their values by selector. Of values in conflict the first is
    written, after a comment."""
    lines = ["[parameters]"] if settings else []
    for name, found in sorted(settings.items()):
        torn = [selector or "all nodes" for selector, values in found if len(set(map(repr, values))) > 1]
        lines += [f"# in conflict: {name} on {selector}: other values were set at the same time" for selector in torn]
        tables = [f"{{ value = {_as_toml(values[0])}{f', on = {_as_toml(on)}' if on else ''} }}" for on, values in found]
        whole = _as_toml(found[0][1][0]) if len(found) == 1 and not found[0][0] else f"[{', '.join(tables)}]"
        lines.append(f"{name} = {whole}")
    return "\n".join([*lines, ""]) if lines else ""


def _read_setting(name: str, entry: object) -> GivenParameter:
    """Raises `ConstraintCrdtError` for a mistake in a setting."""
    if not isinstance(entry, dict) or not {"value"} <= entry.keys() <= {"value", "on"}:
        raise ConstraintCrdtError('a setting is a value, or { value = 0.8, on = "zone=dock" } in a list')
    on = str(check_selector(_read_selector(entry["on"]) if "on" in entry else None))
    return GivenParameter(check_parameter_name(name), check_parameter_value(entry["value"]), on)


def _read_parameters(file: str, table: object) -> list[GivenParameter]:
    """The parameters of a file. Raises `MisuseError` for the first mistake in a parameter."""
    if not isinstance(table, dict):
        raise MisuseError(f"{file}: write the parameters under [parameters], as in speed_limit = 1.5")
    found: list[GivenParameter] = []
    for name, given in table.items():
        for entry in given if isinstance(given, list) else [{"value": given}]:
            try:
                setting = _read_setting(name, entry)
            except ConstraintCrdtError as error:
                raise MisuseError(printable(f"{file}: [parameters]: {name}: {error}")) from None
            if any(each[::2] == setting[::2] for each in found):
                where = setting.selector or "all nodes"
                raise MisuseError(printable(f"{file}: [parameters]: {name}: it has two values for {where}"))
            found.append(setting)
    return found


FIELDS_OF_BUDGET = ("name", "limit", "lease", "on")
"""Of a budget in a file."""


class ListedBudget(NamedTuple):
    """A budget to be written to a file."""

    name: str
    limits: tuple[int, ...]
    """Several: set at once."""
    lease: float | None
    """Seconds; None without."""
    nodes: tuple[str, ...]
    """Those with a share."""

    @classmethod
    def of(cls, name: str, known: Known) -> "ListedBudget":
        """A budget of a store."""
        limits = tuple(sorted({head.value.limit for head in known.heads}))
        return cls(name, limits, known.lease / SECOND or None, tuple(known.nodes()))


def write_budgets(budgets: Iterable[ListedBudget], live: Collection[str]) -> str:
    """The part of a file of `apply` with these budgets. The nodes are left out where all of `live` have a share."""
    blocks = []
    for each in sorted(budgets):
        lines = ["[[budget]]", f"name = {_as_toml(each.name)}", f"limit = {min(each.limits)}"]
        if len(each.limits) > 1:
            lines.insert(0, f"# in conflict: the limits {', '.join(map(str, each.limits))} were set at once, the lowest holds")
        lines.append(f"lease = {_as_toml('none' if each.lease is None else show_duration(each.lease))}")
        if not set(live) <= set(each.nodes):
            lines.append(f"on = {_as_toml(list(each.nodes))}")
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def write_alerts(rules: "Iterable[AlertRule]", unread: Mapping[str, str]) -> str:
    """The part of a file of `apply` with these alert rules. `unread`: by name why others are left out, for a comment."""
    blocks = [f"# not written: {printable(why)}\n" for _, why in sorted(unread.items())]
    for rule in sorted(rules, key=lambda each: each.name):
        values = {field.encode_name: getattr(rule, field.name) for field in msgspec.structs.fields(type(rule))}
        lines = [f"{key} = {_as_toml(value)}" for key, value in values.items() if value is not None]
        blocks.append("\n".join(["[[alert]]", *lines]) + "\n")
    return "\n".join(blocks)


class WantedBudget(NamedTuple):
    """A budget of a file of `apply`."""

    name: str
    limit: int
    lease: float | None
    """Seconds; 0 for none. None: as before, or the usual lease."""
    on: tuple[str, ...] | None
    """The nodes with a share; None: those live when it is made."""
    place: str

    def edits_of(self, before: BudgetReport) -> list[str]:
        """The differences from a budget that exists, a line for each; empty without any. Raises `CommandFailedError` for another
        lease.
        """
        lease = before.lease or 0.0
        if self.lease not in (None, lease):
            raise CommandFailedError(
                f"{self.place}: the lease of budget {self.name} stays as it is, {show_duration(lease) if lease else 'none'}: "
                "choose another name for another lease"
            )
        edits = [] if len(before.limits) < 2 else [f"  settles a conflict of the limits {', '.join(map(str, before.limits))}"]
        if before.limit != self.limit:
            edits.append(f"  limit: {before.limit} -> {self.limit}")
        if self.on is not None and not set(self.on) <= set(before.participants):
            edits.append(f"  on: {_as_toml(list(before.participants))} -> {_as_toml(sorted({*before.participants, *self.on}))}")
        return edits


def _read_budget(entry: dict[str, object], before: Collection[str], place: str) -> WantedBudget:
    """Raises `ConstraintCrdtError` for a value out of bounds, `MisuseError` for a value of the wrong type."""
    for key in entry:
        if key not in FIELDS_OF_BUDGET:
            raise ConstraintCrdtError(f"there is no field `{key}`: {nearest(key, FIELDS_OF_BUDGET)}")
    for key in ("name", "limit"):
        if key not in entry:
            raise ConstraintCrdtError(f"`{key}` is missing")
    name, limit, on = entry["name"], entry["limit"], entry.get("on")
    if not isinstance(name, str):
        raise ConstraintCrdtError(f"`name` must be a text, not {name!r}")
    if not isinstance(limit, int) or isinstance(limit, bool):
        raise ConstraintCrdtError(f"`limit` must be a whole number, not {limit!r}")
    lease = 0.0 if entry.get("lease") == "none" else _read_duration(entry, "lease")
    if on is not None and not (isinstance(on, list) and on and all(isinstance(node, str) for node in on)):
        raise ConstraintCrdtError(f'`on` must be a list of nodes, as in ["forge", "gate"], not {on!r}')
    check_budget(name, limit, round((lease or 0.0) * 1e9))
    if name in before:
        raise ConstraintCrdtError("the name is there twice")
    return WantedBudget(name, limit, lease, None if on is None else tuple(on), place)


def _read_alerts(file: str, entries: object) -> list[dict[str, object]]:
    """The alert rules of a file, as tables. Raises `MisuseError` for a mistake in a rule."""
    from constraint_crdt.alerts import check_of_fleet, read_rules  # for files with alerts only

    try:
        rules = [check_of_fleet(rule) for rule in read_rules(entries)]
    except ConstraintCrdtError as error:
        raise MisuseError(printable(f"{file}: [[alert]]: {error}")) from None
    return [
        {
            field.encode_name: value
            for field in msgspec.structs.fields(type(rule))
            if (value := getattr(rule, field.name)) is not None
        }
        for rule in rules
    ]


def read_toml(file: str) -> tuple[str, dict[str, Any]]:
    """The text and the content of a file. Raises `MisuseError` if it cannot be read or is not TOML."""
    try:
        text = read_whole(file, MAX_IMPORT_BYTES).decode()
        content = tomllib.loads(text)
    except UnicodeDecodeError:
        raise MisuseError(f"{file} is not TOML: it is not text in UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise MisuseError(f"{file} is not TOML: {error}") from None
    except RecursionError:
        raise MisuseError(f"{file} cannot be read: it is nested too deep") from None
    except ValueError:  # of the conversion of numbers
        raise MisuseError(f"{file} cannot be read: a number in it has thousands of digits") from None
    return text, content


def read_wanted(file: str, beside: Collection[str] = frozenset()) -> WantedFile:
    """The content of a file. `beside`: the names of tables that the caller reads by itself.

    Raises `MisuseError` with a line for each mistake in it.
    """
    text, content = read_toml(file)
    mistakes = [
        f"`{key}` means nothing: there are [[constraint]], [[budget]], [[alert]] and [parameters]"
        for key in content
        if key not in _TABLES and key not in beside
    ]
    entries = content.get("constraint", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        mistakes.append("write each constraint under [[constraint]], with double brackets")
        entries = []
    wanted: dict[str, WantedConstraint] = {}
    for place, entry in zip(_places(text, len(entries), "constraint"), entries, strict=True):
        named = f"{place} ({entry['id']})" if isinstance(entry.get("id"), str) else place
        try:
            id_, each = _read_entry(entry, wanted)
            wanted[id_] = each._replace(place=named)
        except (ConstraintCrdtError, ExpressionError, MisuseError) as error:
            mistakes.append(f"{named}: {error}")
    entries = content.get("budget", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        mistakes.append("write each budget under [[budget]], with double brackets")
        entries = []
    budgets: dict[str, WantedBudget] = {}
    for place, entry in zip(_places(text, len(entries), "budget"), entries, strict=True):
        named = f"{place} ({entry['name']})" if isinstance(entry.get("name"), str) else place
        try:
            found = _read_budget(entry, budgets, f"{file}: {named}")
            budgets[found.name] = found
        except (ConstraintCrdtError, MisuseError) as error:
            mistakes.append(f"{named}: {error}")
    if mistakes:
        raise MisuseError("\n".join(printable(f"{file}: {mistake}") for mistake in mistakes), several=True)
    alerts = _read_alerts(file, content["alert"]) if "alert" in content and "alert" not in beside else []
    return WantedFile(wanted, list(budgets.values()), _read_parameters(file, content.get("parameters", {})), alerts)


def _read_entry(entry: dict[str, object], before: Collection[str]) -> tuple[str, WantedConstraint]:
    """Raises `ConstraintCrdtError` or `ExpressionError` as a node would, `MisuseError` for a value of the wrong type."""
    for key, value in entry.items():
        if key not in FIELDS:
            raise ConstraintCrdtError(f"there is no field `{key}`: {nearest(key, FIELDS)}")
        if key in TEXTS and not isinstance(value, str):
            raise ConstraintCrdtError(f"`{key}` must be a text, not {value!r}")
    if "id" not in entry:
        raise ConstraintCrdtError("`id` is missing")
    id_ = check_id(str(entry["id"]), "a constraint id")
    if id_ in before:
        raise ConstraintCrdtError("the id is there twice")
    ttl, until = _read_duration(entry, "ttl"), _read_until(entry.get("until"))
    definition = check_definition(
        _read_text(entry, "when"),
        str(entry.get("severity", "warning")),
        _read_text(entry, "about"),
        _read_selector(entry.get("on", {})),
        expiry_time(ttl, until, time.time_ns()),
        for_=duration_ns(_read_duration(entry, "for"), "for"),
        clear_after=duration_ns(_read_duration(entry, "clear_after"), "clear_after"),
        clear_when=_read_text(entry, "clear_when"),
        if_unknown=str(entry.get("if_unknown", "unknown")),
        max_age=duration_ns(_read_duration(entry, "max_age"), "max_age"),
        scope=str(entry.get("scope", "node")),
        mode=str(entry.get("mode", "enforce")),
        each=_read_text(entry, "each"),
    )
    if definition.scope is Scope.NODE or not read_parameters(definition):  # else the node checks them, which knows the values
        check_expressions(definition.when, definition.clear_when, scope=definition.scope)
    renew = entry.get("renew", False)
    if not isinstance(renew, bool):
        raise ConstraintCrdtError(f"`renew` must be true or false, not {renew!r}")
    return id_, WantedConstraint(definition, ttl, until, renew)


def _read_text(entry: dict[str, object], key: str) -> str | None:
    return str(entry[key]) if key in entry else None


def _read_duration(entry: dict[str, object], key: str) -> float | None:
    value = entry.get(key)
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    if not isinstance(value, str):
        raise MisuseError(f'`{key}` must be a length of time, as in "30m", not {value!r}')
    try:
        return parse_duration(value)
    except UsageError as error:
        raise MisuseError(f"`{key}`: {error}") from None


def _read_until(value: object) -> datetime | None:
    if value is not None and (not isinstance(value, datetime) or value.tzinfo is None):
        raise MisuseError(f"`until` must be a point in time with its zone, as in 2026-12-01T00:00:00Z, not {_shown(value)}")
    return value


def _shown(value: object) -> str:
    return value.isoformat() if isinstance(value, date | clock_time) else repr(value)


def _read_selector(value: object) -> dict[str, str] | str:
    if isinstance(value, str):
        return value
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise MisuseError(f'`on` must be a table of labels, as in {{ zone = "a" }}, or the text of a selector, not {value!r}')
    return value


def _places(text: str, count: int, table: str) -> list[str]:
    """The place of each entry: with its line, unless the layout hides the lines from anything but a TOML parser."""
    header = re.compile(rf"\s*\[\[\s*{table}\s*\]\]")
    lines = [number for number, line in enumerate(text.splitlines(), 1) if header.match(line)]
    if len(lines) != count:
        return [f"{table} {number}" for number in range(1, count + 1)]
    return [f"line {line}, {table} {number}" for number, line in enumerate(lines, 1)]
