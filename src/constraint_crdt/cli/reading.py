"""The commands that read: status, constraints, nodes. With `--json` they print what the API answered."""

import argparse
from typing import Any

from constraint_crdt.cli.client import ApiClient
from constraint_crdt.cli.tables import Column, print_json, print_lines, print_table


def status(arguments: argparse.Namespace) -> int:
    """How the node and its fleet are doing."""
    answer: Any = ApiClient.chosen(arguments.node).get("status")
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
        ("gossip", f"{answer['rounds']} messages received, {answer['exchanges']} exchanges begun, {answer['syncs']} with news"),
        ("bytes", f"{answer['bytes_sent']} sent, {answer['bytes_received']} received, {answer['written_bytes']} written here"),
        ("endpoints", ", ".join(answer["endpoints"]) or "none"),
    ]
    if answer["trouble"]:
        lines.append(("TROUBLE", f"writes are refused: {answer['trouble']}"))
    if answer["alarms"]:
        lines.append(("ALARM", f"{answer['alarms']} times a peer with the same clock had another state: one is corrupted"))
        lines.append(("repaired", f"{answer['repairs']} times, {answer['cells_repaired']} cells here"))
    print_lines(lines)
    return 0


def constraints(arguments: argparse.Namespace) -> int:
    """The active constraints. A conflict shows as one more line for each further definition in force."""
    answer: Any = ApiClient.chosen(arguments.node).get("constraints")
    if arguments.json:
        print_json(answer)
        return 0
    columns = [
        Column("id"),
        Column("severity"),
        Column("when"),
        Column("here"),
        Column("satisfied", right=True),
        Column("violated", right=True),
        Column("unknown", right=True),
        Column("added by"),
    ]
    rows: list[list[object]] = []
    for each in answer:
        first, *others = each["definitions"]
        counts = [each["satisfied"], each["violations"], each["unknown"]]
        rows.append([each["id"], first["severity"], first["when"] or "-", each["verdict"] or "-", *counts, first["added_by"]])
        rows += [["  and also", also["severity"], also["when"] or "-", "", "", "", "", also["added_by"]] for also in others]
    print_table(columns, rows)
    return 0


def nodes(arguments: argparse.Namespace) -> int:
    """The nodes of the fleet."""
    answer: Any = ApiClient.chosen(arguments.node).get("nodes")
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
        Column("same state"),
        Column("software"),
    ]
    rows = [
        [
            each["node"],
            "retired" if each["retired"] else _yes(each["live"]),
            each["satisfied"],
            each["violations"],
            "-" if each["position"] is None else "{}, {}".format(*each["position"]),
            _yes(each["same_constraints"]),
            _yes(each["same_state"]),
            each["software"],
        ]
        for each in answer
    ]
    print_table(columns, rows)
    return 0


def _yes(value: bool) -> str:
    return "yes" if value else "no"
