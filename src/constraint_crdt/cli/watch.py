"""`watch`: the fleet in a table that stays in place and is brought up to date, for a person at a terminal.

It asks the node again and again, and shows what needs an eye first: constraints that are violated now, and nodes that are not like
this one. When the node does not answer, it says so in place of the tables, and goes on asking.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from constraint_crdt.cli.client import ApiClient
from constraint_crdt.cli.errors import CommandFailedError, MisuseError
from constraint_crdt.cli.output import STYLES, printable
from constraint_crdt.operations.values import parse_duration, show_distance

if TYPE_CHECKING:
    from rich.console import RenderableType

LEAST_EVERY = 0.2
MOST_ROWS = 40
PAGE = 1000
"""Constraints that are looked at; of more, only the first."""
FRAME = 9
"""Lines of the screen that are not rows of a table."""


def watch(arguments: argparse.Namespace) -> int:
    """Show the fleet until Ctrl-C."""
    every = parse_duration(arguments.every)
    if every < LEAST_EVERY:
        raise MisuseError(f"--every takes {LEAST_EVERY:g} seconds or more, not {arguments.every}")
    if arguments.json or not sys.stdout.isatty():
        raise MisuseError("watch draws on a terminal: use `status --json`, `nodes --json` or `events --follow` for a program")
    from rich.live import Live

    client = ApiClient.chosen(arguments)
    with Live(picture(client, _rows()), auto_refresh=False, screen=True) as live:
        while True:
            time.sleep(every)
            live.update(picture(client, _rows()), refresh=True)


def _rows() -> int:
    """How many rows each of the two tables may have."""
    return max(3, min(MOST_ROWS, (shutil.get_terminal_size().lines - FRAME) // 2))


def picture(client: ApiClient, rows: int) -> "RenderableType":
    """What is shown now, `rows` lines of each table at most."""
    from rich.console import Group
    from rich.text import Text

    try:
        status: Any = client.get("status")
        nodes: Any = client.get("nodes")
        constraints: Any = client.get_whole(f"overview?limit={PAGE}")[0]
    except CommandFailedError as error:
        return Text(printable(f"{time.strftime('%H:%M:%S')}  {error}"), style="bold red")
    return Group(
        Text(printable(headline(status)), style="bold"),
        _table(
            ("constraint", "severity", "when", "violated on", "since", "satisfied", "violated"), constraint_rows(constraints, rows)
        ),
        _table(("node", "live", "state", "since", "behind", "satisfied", "violated"), node_rows(nodes, rows)),
    )


def headline(status: Any) -> str:
    """The node and its fleet in one line."""
    trouble = f"; WRITES ARE REFUSED: {status['trouble']}" if status["trouble"] else ""
    agreeing = f"{status['agreeing']} of {status['peers'] + 1} live nodes enforce the same {status['constraints']} constraints"
    return f"{time.strftime('%H:%M:%S')}  {status['node']} in {status['fleet']}: {agreeing}{trouble}"


def constraint_rows(answer: Any, most: int) -> list[list[str]]:
    """Those that are violated now first, on most nodes first."""
    found = sorted(answer["constraints"], key=lambda each: (-each["violated_now"], -each["violated_on"], each["id"]))
    rows = [
        [
            each["id"],
            each["severity"],
            each["when"] or "-",
            f"{each['violated_now']} nodes" if each["violated_now"] else "-",
            _ago(each["violated_since"]),
            str(each["satisfied"]),
            str(each["violations"]),
        ]
        for each in found[:most]
    ]
    return _with_rest(rows, len(found) - most)


def node_rows(answer: Any, most: int) -> list[list[str]]:
    """Those that are not like this one first."""

    def standing(each: Any) -> tuple[str, Any]:
        convergence = each["convergence"]
        return ("retired" if each["retired"] else "this node", None) if convergence is None else (convergence["state"], convergence)

    found = sorted(answer, key=lambda each: (standing(each)[0] in ("same", "this node", "retired"), each["node"]))
    rows = []
    for each in found[:most]:
        state, convergence = standing(each)
        since = "-" if convergence is None else _ago(convergence["since"])
        behind = "-" if convergence is None or convergence["behind"] is None else str(convergence["behind"])
        live = "yes" if each["live"] else "no"
        rows.append([each["node"], live, state, since, behind, str(each["satisfied"]), str(each["violations"])])
    return _with_rest(rows, len(found) - most)


def _with_rest(rows: list[list[str]], rest: int) -> list[list[str]]:
    return rows if rest <= 0 else [*rows, [f"and {rest} more", *("" for _ in rows[0][1:])]]


def _ago(nanoseconds: int | None) -> str:
    return "-" if nanoseconds is None else show_distance(nanoseconds / 1e9 - time.time())


def _table(titles: Sequence[str], rows: list[list[str]]) -> "RenderableType":
    from rich.table import Table
    from rich.text import Text

    table = Table(expand=True)
    for title in titles:
        table.add_column(Text(title), no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(*(Text(printable(text), style=STYLES.get(text, "")) for text in row))
    return table
