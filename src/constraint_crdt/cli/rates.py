"""The command on recent evaluations: rate. With `--json` it prints what the API answered."""

import argparse
import urllib.parse
from typing import Any

from constraint_crdt.cli.client import ApiClient
from constraint_crdt.cli.output import print_json, print_table, printable
from constraint_crdt.operations.command import Column
from constraint_crdt.operations.values import parse_duration

_UNITS = (("d", 86_400), ("h", 3600), ("m", 60))


def rate(arguments: argparse.Namespace) -> int:
    """How often constraints held and were violated lately."""
    query = {}
    if arguments.half_life is not None:
        query["half_life"] = f"{parse_duration(arguments.half_life)!r}"
    if arguments.id is not None:
        query["constraint"] = arguments.id
    answer: Any = ApiClient.chosen(arguments).get(f"rates?{urllib.parse.urlencode(query, errors='replace')}")
    if arguments.json:
        print_json(answer)
        return 0
    every = [*answer["constraints"], *([answer["total"]] if arguments.id is None else [])]
    print(f"evaluations of late, where one counts half after {_length(answer['half_life'])}")
    print_table(_columns(by_node=arguments.by_node), _rows(every, arguments.id, by_node=arguments.by_node))
    for note in _notes(answer):
        print(printable(note))
    return 0


def _columns(*, by_node: bool) -> list[Column]:
    named = [Column("constraint"), *([Column("node")] if by_node else [])]
    numbers = ("satisfied", "violated", "violated share", "satisfied/min", "violated/min")
    return [*named, *(Column(title, right=True) for title in numbers if not by_node or "/" not in title)]


def _rows(every: Any, asked: str | None, *, by_node: bool) -> list[list[object]]:
    rows: list[list[object]] = []
    for place, each in enumerate(every):
        name = each["constraint"] or ("all" if asked is None and place == len(every) - 1 else "none in particular")
        if by_node:
            rows += [[name, node, *_amounts(rate)] for node, rate in each["by_node"].items()]
        else:
            rows.append([name, *_amounts(each), f"{each['satisfied_per_minute']:.2f}", f"{each['violated_per_minute']:.2f}"])
    return rows


def _amounts(rate: Any) -> list[str]:
    share = rate["violated_share"]
    return [f"{rate['satisfied']:.2f}", f"{rate['violated']:.2f}", "-" if share is None else f"{100 * share:.2f} %"]


def _notes(answer: Any) -> list[str]:
    """What is to be known about clocks and half-lives before one believes these numbers."""
    notes = []
    if answer["untracked_by"]:
        notes.append(f"without some of {', '.join(answer['untracked_by'])}: this half-life is not tracked there")
    if answer["ahead"]:
        notes.append(
            f"values from clocks ahead of this one: {answer['ahead']}, by up to {answer['worst_skew']:.0f} s; "
            "they count as of when they arrived"
        )
    if answer["steps_back"]:
        notes.append(f"times that the clock of this node was set back: {answer['steps_back']}; no time counts as passed then")
    return notes


def _length(seconds: float) -> str:
    for unit, size in _UNITS:
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"
