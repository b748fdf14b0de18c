"""The commands on counters that go up and down: counter, counters. With `--json` they print what the API answered."""

import argparse
import urllib.parse
from typing import Any

from constraint_crdt.cli.client import ApiClient
from constraint_crdt.cli.errors import MisuseError
from constraint_crdt.cli.output import print_json, print_lines, print_table
from constraint_crdt.operations.command import Column


def counter(arguments: argparse.Namespace) -> int:
    """What one counter stands at; with `--by`, move it first."""
    client, path = ApiClient.chosen(arguments), f"counters/{urllib.parse.quote(arguments.name, safe='', errors='replace')}"
    if not arguments.name:
        raise MisuseError("a counter has a name of 1 to 256 bytes: give one")
    answer: Any = client.get(path) if arguments.by is None else client.post(path, {"by": arguments.by})
    if arguments.json:
        print_json(answer)
        return 0
    print_lines(
        [
            ("counter", answer["name"]),
            ("value", answer["value"]),
            ("moves", f"up by {answer['increments']}, down by {answer['decrements']}"),
            ("by node", ", ".join(f"{node} {moved:+d}" for node, moved in answer["by_node"].items())),
        ]
    )
    return 0


def counters(arguments: argparse.Namespace) -> int:
    """All counters."""
    answer: Any = ApiClient.chosen(arguments).get("counters")
    if arguments.json:
        print_json(answer)
        return 0
    columns = [Column("counter"), *(Column(title, right=True) for title in ("value", "up by", "down by", "nodes"))]
    rows = [[each["name"], each["value"], each["increments"], each["decrements"], len(each["by_node"])] for each in answer]
    print_table(columns, rows)
    return 0
