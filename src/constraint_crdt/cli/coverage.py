"""The command on who has heard of a change: coverage; and waiting until enough nodes have, for the commands that write.

With `--json` they print what the API answered.
"""

import argparse
import time
import urllib.parse
from typing import Any

from constraint_crdt.cli.client import ApiClient
from constraint_crdt.cli.errors import CommandFailedError, MisuseError
from constraint_crdt.cli.output import print_json, print_table, printable
from constraint_crdt.operations.command import Column
from constraint_crdt.operations.values import parse_duration, show_distance

LONGEST_REQUEST = 60.0
"""Seconds that one request waits at the node; a longer wait is several."""

MARGIN = 5.0
"""Seconds beyond these after which a node counts as not answering."""

DEFAULT_WAIT = "30s"
SHOWN = 20
"""Names in a sentence; of more it says how many."""


def coverage(arguments: argparse.Namespace) -> int:
    """Which nodes have heard of a change and which have not. Whatever it finds, it has done its work: exit code 0."""
    answer: Any = ApiClient.chosen(arguments).get(_path(arguments.id))
    if arguments.json:
        print_json(answer)
        return 0
    print(printable(_headline(answer)))
    columns = [Column("node"), Column("holds it"), Column("since"), Column("live"), Column("behind", right=True)]
    print_table(columns, [_row(each) for each in answer["nodes"]])
    return 0


def check_wait(arguments: argparse.Namespace) -> float:
    """Seconds to wait. Raises `MisuseError` for a wrong `--wait` or `--timeout`, before anything is written."""
    wanted = arguments.wait
    if wanted is None:
        if arguments.timeout is not None:
            raise MisuseError("--timeout says how long --wait waits: give both, or leave it out")
        return 0.0
    if wanted not in ("all", "live", "majority") and not (wanted.isascii() and wanted.isdigit() and 0 < int(wanted) < 1_000_000):
        raise MisuseError(f"--wait {wanted!r} is none of all, live, majority, or a number of nodes from 1")
    return parse_duration(DEFAULT_WAIT if arguments.timeout is None else arguments.timeout)


def wait_for(arguments: argparse.Namespace, id_: str | None) -> Any:
    """Wait, as `--wait` and `--timeout` ask, until enough nodes have the change of `id_`, or of all definitions.

    Returns what the node answered last: `met` says whether enough have.
    """
    ends = time.monotonic() + check_wait(arguments)
    while True:
        left = max(0.0, min(ends - time.monotonic(), LONGEST_REQUEST))
        query = urllib.parse.urlencode({"wait": arguments.wait, "timeout": f"{left:.3f}"})
        answer: Any = ApiClient.chosen(arguments, left + MARGIN).get(f"{_path(id_)}?{query}")
        if answer["met"] or time.monotonic() >= ends:
            return answer


def heard_by(answer: Any) -> str:
    """How many nodes have the change, as a sentence."""
    return f"{answer['have']} of {len(answer['nodes'])} nodes have it"


def not_enough(what: str, answer: Any) -> CommandFailedError:
    """The failure of waiting in vain: who has not heard. `what`: what was done here."""
    lacking = [_lacking(each) for each in answer["nodes"] if not each["holds"]]
    more = f" and {len(lacking) - SHOWN} more" if len(lacking) > SHOWN else ""
    told = f"{what}, but only {heard_by(answer)}, where {answer['wanted']} were asked for"
    if not lacking:
        return CommandFailedError(printable(f"{told}: there are no more"))
    return CommandFailedError(printable(f"{told}; without evidence of it: {', '.join(lacking[:SHOWN])}{more}"))


def _lacking(each: Any) -> str:
    notes = [*(["not live"] if not each["live"] else []), *(["nothing is known of what it has"] if each["holds"] is None else [])]
    return f"{each['node']} ({', '.join(notes)})" if notes else str(each["node"])


def _path(id_: str | None) -> str:
    return "coverage" if id_ is None else f"coverage/{urllib.parse.quote(id_, safe='', errors='replace')}"


def _headline(answer: Any) -> str:
    what = {
        "added": f"{answer['id']}: active",
        "expired": f"{answer['id']}: expired",
        "removed": f"{answer['id']}: removed",
        "definitions": "all changes of constraints",
    }[answer["change"]]
    unknown = f"; of {answer['unknown']} there is no evidence" if answer["unknown"] else ""
    return f"{what}; {heard_by(answer)}, {answer['lack']} lack it{unknown}"


def _row(each: Any) -> list[object]:
    holds = {True: "yes", False: "NO", None: "no evidence"}[each["holds"]]
    since = "-" if each["since"] is None else show_distance(each["since"] / 1e9 - time.time())
    return [each["node"], holds, since, "yes" if each["live"] else "no", "-" if each["behind"] is None else each["behind"]]
