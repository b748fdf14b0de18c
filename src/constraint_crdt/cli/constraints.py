"""The commands that write: add, remove, record, check. With `--json` they print what the API answered."""

import argparse
import json
from typing import Any

from constraint_crdt.cli.client import ApiClient
from constraint_crdt.cli.coverage import check_wait, heard_by, not_enough, wait_for
from constraint_crdt.cli.errors import MisuseError
from constraint_crdt.cli.output import Column, parse_duration, parse_moment, print_json, print_table, printable


def add(arguments: argparse.Namespace) -> int:
    """Add a constraint, or replace its definition; with `--wait`, and wait until enough nodes have heard."""
    check_wait(arguments)
    body: dict[str, object] = {
        "id": arguments.id,
        "when": arguments.when,
        "severity": arguments.severity,
        "about": arguments.about,
        "on": _labels(arguments.on or []),
        "ttl": None if arguments.ttl is None else parse_duration(arguments.ttl),
        "until": None if arguments.until is None else parse_moment(arguments.until).isoformat(),
    }
    answer: Any = ApiClient.chosen(arguments).post("constraints", body)
    said = {
        "added": "added",
        "replaced": "replaced: it was active with another definition",
        "extended": "extended: it was active with this definition, and lasts longer now",
        "unchanged": "unchanged: it is active with this definition",
    }
    _say_once_heard(arguments, answer, f"{answer['id']}: {said.get(answer['change'], answer['change'])}")
    return 0


def remove(arguments: argparse.Namespace) -> int:
    """Remove a constraint; with `--wait`, and wait until enough nodes have heard."""
    check_wait(arguments)
    answer: Any = ApiClient.chosen(arguments).delete_constraint(arguments.id)
    _say_once_heard(arguments, answer, f"{answer['id']}: removed")
    return 0


def record(arguments: argparse.Namespace) -> int:
    """Count evaluations that were made elsewhere."""
    if arguments.satisfied == arguments.violations == 0:
        raise MisuseError("there is nothing to record: give --satisfied N, --violations N or both")
    body = {"satisfied": arguments.satisfied, "violations": arguments.violations, "constraint": arguments.constraint}
    answer = ApiClient.chosen(arguments).post("record", body)
    of = "" if arguments.constraint is None else f" of {arguments.constraint}"
    _say(arguments, answer, f"recorded {arguments.satisfied} satisfied, {arguments.violations} violated{of}")
    return 0


def check(arguments: argparse.Namespace) -> int:
    """Evaluate the active constraints against the values given. Whatever it finds, it has done its work: exit code 0."""
    values = _values(arguments.values)
    answer: Any = ApiClient.chosen(arguments).post("check", {"values": values})
    if arguments.json:
        print_json(answer)
    elif not answer["evaluations"]:
        print("nothing to evaluate: no active constraint has a `when`")
    else:
        rows = [[each["constraint"], each["verdict"], each["reason"]] for each in answer["evaluations"]]
        print_table([Column("constraint"), Column("verdict"), Column("reason")], rows)
    return 0


def _say_once_heard(arguments: argparse.Namespace, answer: dict[str, object], sentence: str) -> None:
    """Say what was done; with `--wait` once enough nodes have heard. Raises `CommandFailedError`, naming the others, if too few."""
    if arguments.wait is None:
        _say(arguments, answer, sentence)
        return
    heard = wait_for(arguments, str(answer["id"]))
    if arguments.json:
        print_json(answer | {"coverage": heard})
    else:
        print(printable(sentence if not heard["met"] else f"{sentence}; {heard_by(heard)}"))
    if not heard["met"]:
        raise not_enough(f"{answer['id']}: it is done here", heard)


def _say(arguments: argparse.Namespace, answer: object, sentence: str) -> None:
    if arguments.json:
        print_json(answer)
    else:
        print(printable(sentence))


def _labels(texts: list[str]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for text in texts:
        key, _, value = text.partition("=")
        if not key or not value:
            raise MisuseError(f"{text!r} is not KEY=VALUE, for example zone=a")
        if key in labels:
            raise MisuseError(f"the label {key} has two values: give one")
        labels[key] = value
    return labels


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
