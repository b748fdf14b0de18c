"""`apply`: bring the fleet's constraints to what a TOML file lists.

    [[constraint]]
    id = "thermal"
    when = "gpu_temp_c < 85.0"        # left out: listed, not evaluated
    severity = "critical"             # info, warning (default) or critical
    about = "the fan gives up above"
    on = { zone = "a" }               # left out: it applies to all nodes
    ttl = "30m"                       # or until = 2026-12-01T00:00:00Z; left out: until it is removed

The whole file is checked before anything is sent: a file with a mistake changes nothing. Applying a file again begins each `ttl`
anew, so what it lists is extended.
"""

import argparse
import difflib
import re
import time
import tomllib
from collections.abc import Collection
from datetime import date, datetime
from datetime import time as clock_time
from pathlib import Path
from typing import Any, NamedTuple

from constraint_crdt.cli.client import ApiClient, NotFoundError
from constraint_crdt.cli.coverage import check_wait, heard_by, not_enough, wait_for
from constraint_crdt.cli.errors import MisuseError
from constraint_crdt.cli.output import parse_duration, print_json, printable
from constraint_crdt.crdt.replica import check_id
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.expression import ExpressionError, compile_expression
from constraint_crdt.types.definition import Definition, check_definition, expiry_time
from constraint_crdt.types.orset import change_of

FIELDS = ("id", "when", "severity", "about", "on", "ttl", "until")
TEXTS = ("id", "when", "severity", "about")


class Wanted(NamedTuple):
    """What a file says of one constraint."""

    definition: Definition
    """Its end reckoned from when the file was read."""
    ttl: float | None
    """Seconds."""
    until: datetime | None

    def body(self, id_: str) -> dict[str, object]:
        """What to ask of the node."""
        when, severity, about, on, _ = self.definition
        until = None if self.until is None else self.until.isoformat()
        return {
            "id": id_, "when": when, "severity": str(severity), "about": about, "on": dict(on), "ttl": self.ttl, "until": until
        }  # fmt: skip


CHANGES = ("added", "replaced", "extended", "unchanged", "removed")
"""In the order in which the summary tells them."""

_HEADER = re.compile(r"\s*\[\[\s*constraint\s*\]\]")


def apply(arguments: argparse.Namespace) -> int:
    """Add and edit what the file lists; with `--prune` remove what it does not; with `--dry-run` only say so.

    With `--wait` it comes back when enough nodes have heard of all changes of constraints that the node knows then.
    """
    check_wait(arguments)
    if arguments.wait is not None and arguments.dry_run:
        raise MisuseError("--dry-run sends nothing, so there is nothing to wait for: leave out --wait")
    wanted = read_constraints(Path(arguments.file))
    if arguments.prune and not wanted:
        raise MisuseError(f"{arguments.file} lists no constraint, so --prune would remove all of them: use `remove` for that")
    client = ApiClient.chosen(arguments)
    done: list[dict[str, object]] = []
    active: Any = client.get("constraints") if arguments.prune or arguments.dry_run else []
    for id_, each in wanted.items():
        if arguments.dry_run:
            change = _foreseen(id_, each.definition, active)
        else:
            answer: Any = client.post("constraints", each.body(id_))
            change = answer["change"]
        _note(arguments, done, id_, change)
    if arguments.prune:
        for id_ in (each["id"] for each in active if each["id"] not in wanted):
            _note(arguments, done, id_, "removed" if arguments.dry_run else _remove(client, id_))
    heard = None if arguments.wait is None else wait_for(arguments, None)
    if arguments.json:
        print_json(done)
    else:
        told = f"; {heard_by(heard)}" if heard is not None and heard["met"] else ""
        print(_summary(arguments, done) + told)
    if heard is not None and not heard["met"]:
        raise not_enough("it is done here", heard)
    return 0


def read_constraints(file: Path) -> dict[str, Wanted]:
    """What `file` lists, by id. Raises `MisuseError` with a line for each mistake in it."""
    try:
        text = file.read_text(encoding="utf-8")
        content = tomllib.loads(text)
    except OSError as error:
        raise MisuseError(f"cannot read {file}: {error.strerror or error}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise MisuseError(f"{file} is not TOML: {error}") from None
    mistakes = [f"`{key}` means nothing: there is only [[constraint]]" for key in content if key != "constraint"]
    entries = content.get("constraint", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        mistakes.append("write each constraint under [[constraint]], with double brackets")
        entries = []
    wanted: dict[str, Wanted] = {}
    for place, entry in zip(_places(text, len(entries)), entries, strict=True):
        try:
            id_, each = _read_entry(entry, wanted)
            wanted[id_] = each
        except (ConstraintCrdtError, ExpressionError, MisuseError) as error:
            named = f" ({entry['id']})" if isinstance(entry.get("id"), str) else ""
            mistakes.append(f"{place}{named}: {error}")
    if mistakes:
        raise MisuseError("\n".join(printable(f"{file}: {mistake}") for mistake in mistakes))
    return wanted


def _read_entry(entry: dict[str, object], before: Collection[str]) -> tuple[str, Wanted]:
    """Raises `ConstraintCrdtError` or `ExpressionError` for what a node would refuse as well, `MisuseError` for times."""
    for key, value in entry.items():
        if key not in FIELDS:
            near = difflib.get_close_matches(key, FIELDS, n=1)
            hint = f"`{near[0]}` may be meant" if near else f"there are {', '.join(FIELDS)}"
            raise ConstraintCrdtError(f"there is no field `{key}`: {hint}")
        if key in TEXTS and not isinstance(value, str):
            raise ConstraintCrdtError(f"`{key}` must be a text, not {value!r}")
    if "id" not in entry:
        raise ConstraintCrdtError("`id` is missing")
    when, about = entry.get("when"), entry.get("about")
    id_ = check_id(str(entry["id"]), "a constraint id")
    if id_ in before:
        raise ConstraintCrdtError("the id is there twice")
    ttl, until = _read_ttl(entry.get("ttl")), _read_until(entry.get("until"))
    definition = check_definition(
        None if when is None else str(when),
        str(entry.get("severity", "warning")),
        None if about is None else str(about),
        _read_labels(entry.get("on", {})),
        expiry_time(ttl, until, time.time_ns()),
    )
    if definition.when is not None:
        compile_expression(definition.when)
    return id_, Wanted(definition, ttl, until)


def _read_ttl(value: object) -> float | None:
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    if not isinstance(value, str):
        raise MisuseError(f'`ttl` must be a length of time, as in "30m", not {value!r}')
    return parse_duration(value)


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
    """What to call each entry: with its line, unless the file is written so that only a TOML parser can tell."""
    lines = [number for number, line in enumerate(text.splitlines(), 1) if _HEADER.match(line)]
    if len(lines) != count:
        return [f"constraint {number}" for number in range(1, count + 1)]
    return [f"line {line}, constraint {number}" for number, line in enumerate(lines, 1)]


def _foreseen(id_: str, definition: Definition, active: list[dict[str, Any]]) -> str:
    for each in active:
        if each["id"] == id_:
            in_force = dict.fromkeys(
                check_definition(one["when"], one["severity"], one["about"], one["on"], one["expires_at"])
                for one in each["definitions"]
            )
            return change_of(list(in_force), definition).value
    return "added"


def _remove(client: ApiClient, id_: str) -> str:
    try:
        client.delete_constraint(id_)
    except NotFoundError:
        return "unchanged"  # somebody else removed it just now
    return "removed"


def _note(arguments: argparse.Namespace, done: list[dict[str, object]], id_: str, change: str) -> None:
    done.append({"id": id_, "change": change})
    if not arguments.json:
        print(printable(f"{id_}: {change}"))


def _summary(arguments: argparse.Namespace, done: list[dict[str, object]]) -> str:
    counts = [(change, sum(each["change"] == change for each in done)) for change in CHANGES]
    told = ", ".join(f"{count} {change}" for change, count in counts if count) or "nothing to do"
    return f"would be: {told} (dry run, nothing was sent)" if arguments.dry_run else told
