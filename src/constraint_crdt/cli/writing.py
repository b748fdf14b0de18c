"""The commands that write: add, remove, record, check. With `--json` they print what the API answered."""

import argparse
import json
from typing import Any

from constraint_crdt.cli.client import ApiClient
from constraint_crdt.cli.failures import MisuseError
from constraint_crdt.cli.tables import Column, print_json, print_table, printable


def add(arguments: argparse.Namespace) -> int:
    """Add a constraint, or replace its definition."""
    body = {"id": arguments.id, "when": arguments.when, "severity": arguments.severity, "about": arguments.about}
    answer: Any = ApiClient.chosen(arguments.node).post("constraints", body)
    said = {
        "added": "added",
        "replaced": "replaced: it was active with another definition",
        "unchanged": "unchanged: it is active with this definition",
    }
    _say(arguments, answer, f"{answer['id']}: {said.get(answer['change'], answer['change'])}")
    return 0


def remove(arguments: argparse.Namespace) -> int:
    """Remove a constraint."""
    answer: Any = ApiClient.chosen(arguments.node).delete_constraint(arguments.id)
    _say(arguments, answer, f"{answer['id']}: removed")
    return 0


def record(arguments: argparse.Namespace) -> int:
    """Count evaluations that were made elsewhere."""
    if arguments.satisfied == arguments.violations == 0:
        raise MisuseError("there is nothing to record: give --satisfied N, --violations N or both")
    body = {"satisfied": arguments.satisfied, "violations": arguments.violations, "constraint": arguments.constraint}
    answer = ApiClient.chosen(arguments.node).post("record", body)
    of = "" if arguments.constraint is None else f" of {arguments.constraint}"
    _say(arguments, answer, f"recorded {arguments.satisfied} satisfied, {arguments.violations} violated{of}")
    return 0


def check(arguments: argparse.Namespace) -> int:
    """Evaluate the active constraints against the values given. Whatever it finds, it has done its work: exit code 0."""
    values = _values(arguments.values)
    answer: Any = ApiClient.chosen(arguments.node).post("check", {"values": values})
    if arguments.json:
        print_json(answer)
    elif not answer["evaluations"]:
        print("nothing to evaluate: no active constraint has a `when`")
    else:
        rows = [[each["constraint"], each["verdict"], each["reason"]] for each in answer["evaluations"]]
        print_table([Column("constraint"), Column("verdict"), Column("reason")], rows)
    return 0


def _say(arguments: argparse.Namespace, answer: object, sentence: str) -> None:
    if arguments.json:
        print_json(answer)
    else:
        print(printable(sentence))


def _values(texts: list[str]) -> dict[str, object]:
    values: dict[str, object] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise MisuseError(f"{text!r} is not VAR=VALUE, for example gpu_temp_c=91.5")
        if name in values:
            raise MisuseError(f"{name} has two values: give one")
        values[name] = _value(value)
    return values


def _value(text: str) -> object:
    """A number, true, false or a quoted text as in JSON; anything else is a text as it stands."""
    try:
        value: object = json.loads(text, parse_constant=str)
    except ValueError:
        return text
    return value if isinstance(value, bool | int | float | str) else text
