"""`apply`: bring the fleet's constraints to what a TOML file lists.

    [[constraint]]
    id = "thermal"
    when = "gpu_temp_c < 85.0"        # left out: listed, not evaluated
    severity = "critical"             # info, warning (default) or critical
    about = "the fan gives up above"

The whole file is checked before anything is sent: a file with a mistake changes nothing.
"""

import argparse
import difflib
import re
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from constraint_crdt.cli.client import ApiClient, NotFoundError
from constraint_crdt.cli.failures import MisuseError
from constraint_crdt.cli.tables import print_json, printable
from constraint_crdt.core.replica import check_id
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.expression import ExpressionError, compile_expression
from constraint_crdt.types.orset import Definition, check_definition

FIELDS = ("id", "when", "severity", "about")

_HEADER = re.compile(r"\s*\[\[\s*constraint\s*\]\]")


def apply(arguments: argparse.Namespace) -> int:
    """Add and edit what the file lists; with `--prune` remove what it does not; with `--dry-run` only say so."""
    wanted = read_constraints(Path(arguments.file))
    if arguments.prune and not wanted:
        raise MisuseError(f"{arguments.file} lists no constraint, so --prune would remove all of them: use `remove` for that")
    client = ApiClient.chosen(arguments.node)
    done: list[dict[str, object]] = []
    active: Any = client.get("constraints") if arguments.prune or arguments.dry_run else []
    for id_, definition in wanted.items():
        if arguments.dry_run:
            change = _foreseen(id_, definition, active)
        else:
            body = {"id": id_, "when": definition.when, "severity": str(definition.severity), "about": definition.about}
            answer: Any = client.post("constraints", body)
            change = answer["change"]
        _note(arguments, done, id_, change)
    if arguments.prune:
        for id_ in (each["id"] for each in active if each["id"] not in wanted):
            _note(arguments, done, id_, "removed" if arguments.dry_run else _remove(client, id_))
    if arguments.json:
        print_json(done)
    else:
        print(_summary(arguments, done))
    return 0


def read_constraints(file: Path) -> dict[str, Definition]:
    """The definitions in `file`, by id. Raises `MisuseError` with a line for each mistake in it."""
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
    definitions: dict[str, Definition] = {}
    for place, entry in zip(_places(text, len(entries)), entries, strict=True):
        try:
            id_, definition = _read_entry(entry, definitions)
            definitions[id_] = definition
        except (ConstraintCrdtError, ExpressionError) as error:
            named = f" ({entry['id']})" if isinstance(entry.get("id"), str) else ""
            mistakes.append(f"{place}{named}: {error}")
    if mistakes:
        raise MisuseError("\n".join(printable(f"{file}: {mistake}") for mistake in mistakes))
    return definitions


def _read_entry(entry: dict[str, object], before: Collection[str]) -> tuple[str, Definition]:
    """Raises `ConstraintCrdtError` or `ExpressionError` for what a node would refuse as well."""
    for key, value in entry.items():
        if key not in FIELDS:
            near = difflib.get_close_matches(key, FIELDS, n=1)
            hint = f"`{near[0]}` may be meant" if near else f"there are {', '.join(FIELDS)}"
            raise ConstraintCrdtError(f"there is no field `{key}`: {hint}")
        if not isinstance(value, str):
            raise ConstraintCrdtError(f"`{key}` must be a text, not {value!r}")
    if "id" not in entry:
        raise ConstraintCrdtError("`id` is missing")
    when, about = entry.get("when"), entry.get("about")
    id_ = check_id(str(entry["id"]), "a constraint id")
    if id_ in before:
        raise ConstraintCrdtError("the id is there twice")
    definition = check_definition(
        None if when is None else str(when), str(entry.get("severity", "warning")), None if about is None else str(about)
    )
    if definition.when is not None:
        compile_expression(definition.when)
    return id_, definition


def _places(text: str, count: int) -> list[str]:
    """What to call each entry: with its line, unless the file is written so that only a TOML parser can tell."""
    lines = [number for number, line in enumerate(text.splitlines(), 1) if _HEADER.match(line)]
    if len(lines) != count:
        return [f"constraint {number}" for number in range(1, count + 1)]
    return [f"line {line}, constraint {number}" for number, line in enumerate(lines, 1)]


def _foreseen(id_: str, definition: Definition, active: list[dict[str, Any]]) -> str:
    for each in active:
        if each["id"] == id_:
            in_force = {(one["when"], one["severity"], one["about"]) for one in each["definitions"]}
            return "unchanged" if in_force == {tuple(definition)} else "replaced"
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
    counts = [(change, sum(each["change"] == change for each in done)) for change in ("added", "replaced", "unchanged", "removed")]
    told = ", ".join(f"{count} {change}" for change, count in counts if count) or "nothing to do"
    return f"would be: {told} (dry run, nothing was sent)" if arguments.dry_run else told
