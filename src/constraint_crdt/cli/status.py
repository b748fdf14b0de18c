"""The commands that read: status, nodes. With `--json` they print what the API answered."""

import argparse
import time
from typing import Any

from constraint_crdt.cli.client import ApiClient
from constraint_crdt.cli.output import print_json, print_lines, print_table
from constraint_crdt.operations.command import Column
from constraint_crdt.operations.values import show_distance

SHOWN_OFFSET = 1.0
"""Seconds by which a peer's clock differs from the node's, from which on it is worth a column."""


def status(arguments: argparse.Namespace) -> int:
    """How the node and its fleet are doing."""
    answer: Any = ApiClient.chosen(arguments).get("status")
    if arguments.json:
        print_json(answer)
        return 0
    total = answer["satisfied"] + answer["violations"]
    rate = f", {100 * answer['satisfaction_rate']:.2f} % satisfied" if total else ""
    state = "the same state on all" if answer["converged"] else "changes still travel"
    lines = [
        ("node", f"{answer['node']} (replica {answer['replica']}), up {answer['uptime']:.0f} s"),
        ("fleet", f"{answer['fleet']}, {answer['peers']} live peers of {answer['known'] - 1} known"),
        ("constraints", f"{answer['constraints']} active, the same on {answer['agreeing']} of {answer['peers'] + 1} live nodes"),
        ("counts", f"{answer['satisfied']} satisfied, {answer['violations']} violated{rate}"),
        ("position", answer["position"] or "none"),
        ("agreement", f"{state}; constraints {answer['constraints_hash'][:16]}, everything {answer['hash'][:16]}"),
        ("staleness", _staleness(answer)),
        ("gossip", f"{answer['rounds']} messages received, {answer['exchanges']} exchanges begun, {answer['syncs']} with news"),
        ("bytes", f"{answer['bytes_sent']} sent, {answer['bytes_received']} received, {answer['written_bytes']} written here"),
        ("endpoints", ", ".join(answer["endpoints"]) or "none"),
    ]
    if answer["trouble"]:
        lines.append(("TROUBLE", f"writes are refused: {answer['trouble']}"))
    if answer["clock_alarms"]:
        mine = "; this node's own clock is in doubt, so it removes nothing that expired" if answer["clock_in_doubt"] else ""
        lines.append(("CLOCKS", f"{answer['clock_alarms']} times a peer's clock was off by more than it may be: see `nodes`{mine}"))
    if answer["alarms"]:
        lines.append(("ALARM", f"{answer['alarms']} times a peer with the same clock had another state: one is corrupted"))
        lines.append(("repaired", f"{answer['repairs']} times, {answer['cells_repaired']} cells here"))
    print_lines(lines)
    return 0


def nodes(arguments: argparse.Namespace) -> int:
    """The nodes of the fleet."""
    answer: Any = ApiClient.chosen(arguments).get("nodes")
    if arguments.json:
        print_json(answer)
        return 0
    columns = [
        Column("node"),
        Column("live"),
        Column("satisfied", right=True),
        Column("violated", right=True),
        Column("position"),
        Column("same constraints"),
        Column("state"),
        Column("since"),
        Column("behind", right=True),
        Column("software"),
    ]
    skewed = any(abs(each["clock_offset"] or 0.0) >= SHOWN_OFFSET for each in answer)
    labelled = any(each["labels"] for each in answer)
    columns += [Column("labels")] if labelled else []
    columns += [Column("clock", right=True)] if skewed else []
    rows = [
        [
            each["node"],
            "retired" if each["retired"] else _yes(each["live"]),
            each["satisfied"],
            each["violations"],
            "-" if each["position"] is None else "{}, {}".format(*each["position"]),
            _yes(each["same_constraints"]),
            *_standing(each["convergence"]),
            each["software"],
            *([", ".join(f"{key}={value}" for key, value in each["labels"].items()) or "-"] if labelled else []),
            *([_offset(each["clock_offset"])] if skewed else []),
        ]
        for each in answer
    ]
    print_table(columns, rows)
    return 0


def _standing(convergence: Any) -> tuple[object, object, object]:
    """How a node stands to this one, since when, and how many changes it is behind."""
    if convergence is None:
        return "-", "-", "-"
    since = "-" if convergence["since"] is None else show_distance(convergence["since"] / 1e9 - time.time())
    return convergence["state"], since, "-" if convergence["behind"] is None else convergence["behind"]


def _staleness(status: Any) -> str:
    if status["staleness_p50"] is None:
        return "nothing is known of any live peer"
    return f"half of the live peers {status['staleness_p50']:.1f} s at most, 99 % of them {status['staleness_p99']:.1f} s"


def _offset(seconds: float | None) -> str:
    return "-" if seconds is None or abs(seconds) < SHOWN_OFFSET else f"{seconds:+.1f} s"


def _yes(value: bool) -> str:
    return "yes" if value else "no"
