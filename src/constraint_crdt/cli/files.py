"""Files: read whole within a bound, and written whole or not at all. The commands on files, and the file of `apply`.

Rules of writing: a file is written under a temporary name beside its place, synced to disk, and then renamed. So a reader sees the
old file or the new one, and a full disk leaves the old one. The file keeps the mode of its predecessor. A device or a pipe is
written to in place. `-` is standard input or output.

The commands on state files are merge, export and import; docs/reference/state-files.md describes the format. `export --store` reads
a store, and needs no node. `tile put` and
`tile get` read and write the content of a tile.

The file of `apply` lists constraints:

    [[constraint]]
    id = "thermal"
    when = "gpu_temp_c < 85.0"        # left out: listed, not evaluated
    severity = "critical"             # info, warning (default) or critical
    about = "the fan gives up above"
    on = { zone = "a" }               # left out: it applies to all nodes
    ttl = "30m"                       # or until = 2026-12-01T00:00:00Z; left out: until it is removed
    for = "30s"                       # violated only once it was violated so long; left out: at once
    clear_after = "10s"               # holds again only once it held so long; left out: at once
    clear_when = "gpu_temp_c < 80.0"  # and only if this holds
    if_unknown = "violated"           # or satisfied; left out: unknown
    max_age = "5s"                    # older values are not used; left out: as each node sets

and budgets:

    [[budget]]
    name = "dock"
    limit = 5
    lease = "2m"                      # or none, for what is used up; left out: two minutes
    on = ["forge", "gate"]            # the nodes with a share; left out: those live when it is made

The whole file is checked before anything is sent: a file with a mistake changes nothing. Each `ttl` begins when the file is read,
so applying a file again extends its constraints.
"""

import argparse
import base64
import contextlib
import difflib
import os
import re
import secrets
import stat
import sys
import tempfile
import time
import tomllib
from collections.abc import Collection, Iterable
from datetime import date, datetime
from datetime import time as clock_time
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from constraint_crdt.cli.connection import connect, request_of
from constraint_crdt.cli.output import CommandFailedError, MisuseError, present, print_json, printable
from constraint_crdt.client import WrongInput
from constraint_crdt.client.wire import not_a_node
from constraint_crdt.crdt.digest import check_id
from constraint_crdt.crdt.limits import MAX_COUNT, TILE_BYTES, Limits
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.expression import ExpressionError, check_expressions
from constraint_crdt.model import IfUnknown, Severity
from constraint_crdt.operations.command import UsageError, parse_duration
from constraint_crdt.operations.constraints import DefinitionReport
from constraint_crdt.operations.service import show_import
from constraint_crdt.operations.tiles import TILE, TileContent, show_put_tile
from constraint_crdt.state import FORMAT, MAX_STATE_BYTES, ConstraintState, from_json, to_json
from constraint_crdt.store import read_store
from constraint_crdt.types.budgets import check_budget
from constraint_crdt.types.definition import Definition, check_definition, check_labels, duration_ns, expiry_time
from constraint_crdt.types.orset import change_of

STANDARD = "-"
"""The name of standard input and output."""

MAX_IMPORT_BYTES = 64 * 1024 * 1024
"""The largest import of a node, in bytes."""

FIELDS = ("id", "when", "severity", "about", "on", "ttl", "until", "for", "clear_after", "clear_when", "if_unknown", "max_age")
"""Of a constraint in a file."""

TEXTS = ("id", "when", "severity", "about", "clear_when", "if_unknown")

_HEADER = re.compile(r"\s*\[\[\s*constraint\s*\]\]")


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
        _replace(path, data, None if mode is None else stat.S_IMODE(mode))
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


def _replace(path: Path, data: bytes, mode: int | None) -> None:
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if mode is None else 0o600)  # less the umask
    try:
        with open(handle, "wb") as file:
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


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
    content = _asked_state(arguments) if arguments.store is None else _stored_state(Path(arguments.store))
    write_whole(arguments.output, _line(content))
    if arguments.output != STANDARD:
        file = msgspec.json.decode(content, type=StateFile)
        answer = {"file": arguments.output, **msgspec.json.decode(file.reading, type=dict[str, Any])}
        present(answer, None if arguments.json else show_state_file(arguments.output, file))
    return 0


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
    try:
        read_store(path, state.rows)
    except ConstraintCrdtError as error:
        raise CommandFailedError(printable(str(error))) from None
    return to_json(state).encode()


def import_(arguments: argparse.Namespace) -> int:
    """Merge a state file into a node."""
    client = connect(arguments)
    content = read_whole(arguments.file, MAX_IMPORT_BYTES)
    try:
        answer = client.import_state(content)
    except WrongInput as error:  # a mistake in the file
        raise MisuseError(printable(f"{arguments.file}: {error}")) from None
    return present(answer, None if arguments.json else show_import(answer))


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
    return f"{name}: {len(reading.constraints)} constraints, {counts}; hash {file.hash[:16]}"


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
    place: str = ""
    """The place in the file, for people."""

    def change_of(self, in_force: Iterable[DefinitionReport]) -> str:
        """The change that adding it makes to the definitions in force."""
        return change_of(list(dict.fromkeys(map(_definition_of, in_force))), self.definition).value


def _definition_of(report: DefinitionReport) -> Definition:
    return Definition(
        report.when, Severity(report.severity), report.about, check_labels(report.on), report.expires_at,
        duration_ns(report.for_, "for") or 0, duration_ns(report.clear_after, "clear_after") or 0, report.clear_when,
        IfUnknown(report.if_unknown), duration_ns(report.max_age, "max_age"), report.meaning,
    )  # fmt: skip


_TABLES = frozenset({"constraint", "budget"})


class WantedBudget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A budget of a file of `apply`."""

    name: str
    limit: int
    lease: str | None = None
    on: list[str] | None = None

    @property
    def seconds(self) -> float | None:
        """Of the lease; 0 for none. Raises `ConstraintCrdtError` for a text that is no length."""
        return None if self.lease is None else 0.0 if self.lease == "none" else parse_duration(self.lease)


def read_budgets(file: Path) -> list[WantedBudget]:
    """The budgets of `file`. Raises `MisuseError` for the first mistake in one."""
    try:
        found = msgspec.convert(_read_toml(file)[1].get("budget", []), list[WantedBudget])
        for each in found:
            check_budget(each.name, each.limit, round((each.seconds or 0.0) * 1e9))
    except (msgspec.ValidationError, ConstraintCrdtError) as error:
        raise MisuseError(printable(f"{file}: [[budget]]: {error}")) from None
    names = [each.name for each in found]
    if len(set(names)) < len(names):
        raise MisuseError(printable(f"{file}: [[budget]]: a name is there twice"))
    return found


def _read_toml(file: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = file.read_text(encoding="utf-8")
        return text, tomllib.loads(text)
    except OSError as error:
        raise MisuseError(f"cannot read {file}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise MisuseError(f"{file} is not TOML: it is not text in UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise MisuseError(f"{file} is not TOML: {error}") from None
    except RecursionError:
        raise MisuseError(f"{file} cannot be read: it is nested too deep") from None
    except ValueError:  # of the conversion of numbers
        raise MisuseError(f"{file} cannot be read: a number in it has thousands of digits") from None


def read_constraints(file: Path) -> dict[str, WantedConstraint]:
    """The constraints of `file` by id. Raises `MisuseError` with a line for each mistake in it."""
    text, content = _read_toml(file)
    mistakes = [f"`{key}` means nothing: there are [[constraint]] and [[budget]]" for key in content if key not in _TABLES]
    entries = content.get("constraint", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        mistakes.append("write each constraint under [[constraint]], with double brackets")
        entries = []
    wanted: dict[str, WantedConstraint] = {}
    for place, entry in zip(_places(text, len(entries)), entries, strict=True):
        named = f"{place} ({entry['id']})" if isinstance(entry.get("id"), str) else place
        try:
            id_, each = _read_entry(entry, wanted)
            wanted[id_] = each._replace(place=named)
        except (ConstraintCrdtError, ExpressionError, MisuseError) as error:
            mistakes.append(f"{named}: {error}")
    if mistakes:
        raise MisuseError("\n".join(printable(f"{file}: {mistake}") for mistake in mistakes))
    return wanted


def _read_entry(entry: dict[str, object], before: Collection[str]) -> tuple[str, WantedConstraint]:
    """Raises `ConstraintCrdtError` or `ExpressionError` as a node would, `MisuseError` for a value of the wrong type."""
    for key, value in entry.items():
        if key not in FIELDS:
            near = difflib.get_close_matches(key, FIELDS, n=1)
            hint = f"`{near[0]}` may be meant" if near else f"there are {', '.join(FIELDS)}"
            raise ConstraintCrdtError(f"there is no field `{key}`: {hint}")
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
        _read_labels(entry.get("on", {})),
        expiry_time(ttl, until, time.time_ns()),
        for_=duration_ns(_read_duration(entry, "for"), "for"),
        clear_after=duration_ns(_read_duration(entry, "clear_after"), "clear_after"),
        clear_when=_read_text(entry, "clear_when"),
        if_unknown=str(entry.get("if_unknown", "unknown")),
        max_age=duration_ns(_read_duration(entry, "max_age"), "max_age"),
    )
    check_expressions(definition.when, definition.clear_when)
    return id_, WantedConstraint(definition, ttl, until)


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


def _read_labels(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise MisuseError(f'`on` must be a table of labels, as in {{ zone = "a" }}, not {value!r}')
    return value


def _places(text: str, count: int) -> list[str]:
    """The place of each entry: with its line, unless the layout hides the lines from anything but a TOML parser."""
    lines = [number for number, line in enumerate(text.splitlines(), 1) if _HEADER.match(line)]
    if len(lines) != count:
        return [f"constraint {number}" for number in range(1, count + 1)]
    return [f"line {line}, constraint {number}" for number, line in enumerate(lines, 1)]
