"""The commands that explain: explain, of one constraint, and convergence, of the fleet. With `--json` what the API answered."""

import argparse
import time
import urllib.parse
from typing import Any

from constraint_crdt.cli.client import ApiClient
from constraint_crdt.cli.output import print_json, print_lines, print_table, printable
from constraint_crdt.operations.command import Column
from constraint_crdt.operations.values import show_distance


def explain(arguments: argparse.Namespace) -> int:
    """All that is known of one constraint: who, when, why it is active or not, where it is violated, who has not heard."""
    id_ = urllib.parse.quote(arguments.id, safe="", errors="replace")
    answer: Any = ApiClient.chosen(arguments).get(f"explain/{id_}")
    if arguments.json:
        print_json(answer)
        return 0
    print(printable(f"{answer['id']}: {_state(answer)}"))
    for each in answer["definitions"]:
        print_lines(_definition(each))
    for each in answer["removals"]:
        print_lines([("removal", _removal(each))])
    for each in answer["lately"]:
        print_lines([("lately", _lately(each))])
    if answer["coverage"] is not None:
        print_lines([("heard by", _heard(answer["coverage"]))])
    if answer["violations"]:
        print_table(_VIOLATIONS, [_violation(each) for each in answer["violations"]])
    return 0


def convergence(arguments: argparse.Namespace) -> int:
    """How each peer stands to the node, and how stale the fleet is."""
    answer: Any = ApiClient.chosen(arguments).get("convergence")
    if arguments.json:
        print_json(answer)
        return 0
    stale = ", ".join(f"{name} {_seconds(answer[f'staleness_{name}'])}" for name in ("p50", "p99"))
    print(printable(f"{answer['same']} of {answer['live']} live peers have the same as {answer['node']}; staleness {stale}"))
    columns = [
        Column("node"),
        Column("state"),
        Column("since"),
        *(Column(name, right=True) for name in ("behind", "ahead", "stale")),
    ]
    rows = [
        [
            each["node"],
            each["state"],
            _ago(each["since"]),
            _or_none(each["behind"]),
            _or_none(each["ahead"]),
            _seconds(each["staleness"]),
        ]
        for each in answer["peers"]
    ]
    print_table(columns, rows)
    return 0


def _state(answer: Any) -> str:
    if not answer["definitions"]:
        return "not active"
    if not answer["active"]:
        return "not active any more: its time is over, and nobody has removed it yet"
    return (
        "active, with definitions that differ: all of them are enforced until somebody edits it" if answer["conflict"] else "active"
    )


def _definition(each: Any) -> list[tuple[str, object]]:
    text = each["when"] or "listed, not evaluated"
    labels = ", ".join(f"{key}={value}" for key, value in each["on"].items())
    ends = "" if each["expires_at"] is None else f"; {'ended' if each['expired'] else 'ends'} {_ago(each['expires_at'])}"
    added = "at an unknown time" if each["added_at"] is None else _ago(each["added_at"])
    lines: list[tuple[str, object]] = [
        ("definition", f"{text} ({each['severity']}{f', on {labels}' if labels else ''}){ends}"),
        ("added by", f"{each['added_by']}, {added}{_known(each)}; kept alive by {each['dot']}"),
    ]
    return [*lines, ("about", each["about"])] if each["about"] else lines


def _removal(each: Any) -> str:
    state = "" if each["held"] else "; forgotten since, as all live nodes have heard of it or it was kept long enough"
    return f"by {each['by']} ({each['dot']}){_known(each)}, of {', '.join(each['ended'])}{state}"


def _known(each: Any) -> str:
    return (
        ", known here since before the node started" if each["known_since"] is None else f", known here {_ago(each['known_since'])}"
    )


def _lately(each: Any) -> str:
    share = "nothing was evaluated" if each["violated_share"] is None else f"{100 * each['violated_share']:.2f} % violated"
    counts = f"{each['violated_per_minute']:.2f} violated and {each['satisfied_per_minute']:.2f} satisfied a minute"
    return f"{share}, {counts} (half-life {each['half_life']:g} s)"


def _heard(coverage: Any) -> str:
    lacking = [each["node"] for each in coverage["nodes"] if each["holds"] is False]
    unknown = [each["node"] for each in coverage["nodes"] if each["holds"] is None]
    told = f"{coverage['have']} of {len(coverage['nodes'])} nodes"
    told += f"; not by {', '.join(lacking)}" if lacking else ""
    return told + (f"; no evidence of {', '.join(unknown)}" if unknown else "")


_VIOLATIONS = [
    Column("node"),
    Column("now"),
    Column("since"),
    Column("live"),
    Column("satisfied", right=True),
    Column("violated", right=True),
    Column("violated/min lately", right=True),
]


def _violation(each: Any) -> list[object]:
    now = {True: "violated", False: "satisfied", None: "unknown"}[each["violated"]]
    return [
        each["node"],
        now,
        _ago(each["since"]) + ("" if each["exact"] or each["since"] is None else ", as told"),
        "yes" if each["live"] else "no",
        each["satisfied"],
        each["violations"],
        f"{each['violated_per_minute']:.2f}",
    ]


def _ago(nanoseconds: int | None) -> str:
    return "-" if nanoseconds is None else show_distance(nanoseconds / 1e9 - time.time())


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"


def _or_none(value: int | None) -> object:
    return "-" if value is None else value
