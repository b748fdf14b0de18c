"""The commands on approximate answers: top, tally, seen. With `--json` they print what the API answered."""

import argparse
import urllib.parse
from typing import Any

from constraint_crdt.cli.client import ApiClient
from constraint_crdt.cli.errors import MisuseError
from constraint_crdt.cli.output import print_json, print_table, printable
from constraint_crdt.operations.command import Column


def top(arguments: argparse.Namespace) -> int:
    """The most frequent items of a sketch."""
    query = urllib.parse.urlencode({"k": arguments.k, "of": arguments.of}, errors="replace")
    answer: Any = ApiClient.chosen(arguments).get(f"top?{query}")
    if arguments.json:
        print_json(answer)
        return 0
    if not answer["items"]:
        print(printable(f"nothing counted in {answer['of']} yet"))
        return 0
    columns = [
        Column("item"),
        Column("at most", right=True),
        Column("at least", right=True),
        Column("share", right=True),
        Column("exact", right=True),
    ]
    rows = [
        [
            each["item"],
            each["estimate"] if each["upper"] is not None else "saturated",
            each["lower"],
            f"{100 * each['share']:.2f} %",
            "-" if each["exact"] is None else each["exact"],
        ]
        for each in answer["items"]
    ]
    print_table(columns, rows)
    return 0


def tally(arguments: argparse.Namespace) -> int:
    """Count an item."""
    body = {"items": {arguments.item: arguments.count}}
    answer: Any = ApiClient.chosen(arguments).post(f"sketches/{_quoted(arguments.of)}", body)
    if arguments.json:
        print_json(answer)
    else:
        print(printable(f"counted {answer['recorded']} of {arguments.item} in {answer['name']}, {answer['total']} in all"))
    return 0


def seen(arguments: argparse.Namespace) -> int:
    """Whether any node has put an item into a filter; with `--add`, put it in as well. Whatever it finds: exit code 0."""
    if not arguments.add and (arguments.expect is not None or arguments.fp_rate is not None):
        raise MisuseError("--expect and --fp-rate are for a filter that begins: give --add with them")
    client, path = ApiClient.chosen(arguments), f"seen/{_quoted(arguments.name)}"
    if arguments.add:
        given = {"expected_items": arguments.expect, "fp_rate": arguments.fp_rate}
        answer: Any = client.post(path, {"items": [arguments.item], **given})
        found = answer["new"] == 0
        said = "seen before" if found else "new, and put in"
    else:
        answer = client.get(f"{path}?{urllib.parse.urlencode({'item': arguments.item}, errors='replace')}")
        found = answer["seen"]
        said = "seen" if found else "not seen"
    if arguments.json:
        print_json(answer)
    else:
        doubt = f" (wrong in {100 * answer['fpr']:.2g} % of what is new)" if found else ""
        print(printable(f"{arguments.item}: {said}{doubt}"))
    return 0


def _quoted(name: str) -> str:
    if not name:
        raise MisuseError("the name must not be empty")
    return urllib.parse.quote(name, safe="", errors="replace")
