"""The command on where the fleet is: position. With `--json` it prints what the API answered."""

import argparse
from datetime import datetime
from typing import Any

from constraint_crdt.cli.client import ApiClient
from constraint_crdt.cli.errors import MisuseError
from constraint_crdt.cli.output import print_json, print_lines, print_table
from constraint_crdt.operations.command import Column


def position(arguments: argparse.Namespace) -> int:
    """Where the fleet and its nodes are; with two coordinates, move the fleet there first."""
    client, to = ApiClient.chosen(arguments), _coordinates(arguments.to)
    answer: Any = client.get("position") if to is None else client.put("position", {"position": to})
    if arguments.json:
        print_json(answer)
        return 0
    if answer["position"] is None:
        print("nobody has given a position yet: `position A B` does")
        return 0
    when = datetime.fromtimestamp(answer["time"] / 1e9).astimezone().isoformat(sep=" ", timespec="seconds")
    lines = [("position", _pair(answer["position"])), ("norm", answer["norm"]), ("written", f"by {answer['by']}, {when}")]
    print_lines(lines)
    print()
    columns = [Column("node"), Column("position", right=True), Column("norm", right=True), Column("steps away", right=True)]
    rows = [[node, _pair(own["position"]), own["norm"], own["distance"]] for node, own in answer["nodes"].items()]
    print_table(columns, rows)
    return 0


def _coordinates(texts: list[str]) -> list[int] | None:
    if not texts:
        return None
    try:
        numbers = [int(text) for text in texts]
    except ValueError:
        numbers = []
    if len(numbers) != 2:
        raise MisuseError(f"{' '.join(texts)!r} is no position: give two whole numbers, as in 3 -1")
    return numbers


def _pair(point: Any) -> str:
    return "{}, {}".format(*point)
