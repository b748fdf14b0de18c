"""The command on alerts: what fires on a node, and the rules that it follows. With `--json` it prints what the API answered."""

import argparse
import time
from typing import Any

from constraint_crdt.cli.client import ApiClient
from constraint_crdt.cli.output import print_json, print_table, printable
from constraint_crdt.operations.command import Column
from constraint_crdt.operations.values import show_distance


def alerts(arguments: argparse.Namespace) -> int:
    """What fires, and what is about to. Whatever there is, it has done its work: exit code 0."""
    answer: Any = ApiClient.chosen(arguments).get("alerts")
    if arguments.json:
        print_json(answer)
        return 0
    if not answer["rules"]:
        print("this node has no alerts: write some under [[alert]] in its settings file")
        return 0
    firing = sum(each["firing"] for each in answer["alerts"])
    print(f"{firing} firing, {len(answer['alerts']) - firing} about to; {len(answer['rules'])} rules")
    if answer["alerts"]:
        print_table([Column("alert"), Column("about"), Column("state"), Column("since"), Column("what")], _rows(answer))
    for note in _notes(answer):
        print(printable(note))
    return 0


def _rows(answer: Any) -> list[list[object]]:
    now = time.time()
    return [
        [
            each["rule"],
            each["subject"],
            "firing" if each["firing"] else "pending",
            show_distance(each["since"] / 1e9 - now),
            each["detail"],
        ]
        for each in answer["alerts"]
    ]


def _notes(answer: Any) -> list[str]:
    notes = []
    if answer["waiting"]:
        notes.append(f"{answer['waiting']} messages wait for webhooks that do not take them")
    if answer["dropped"]:
        notes.append(f"{answer['dropped']} messages could not be delivered since the start: the node's log says why")
    if answer["untracked"]:
        notes.append(f"{answer['untracked']} more are so, beyond the most that are followed at once")
    return notes
