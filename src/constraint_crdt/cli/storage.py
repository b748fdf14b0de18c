"""The commands about what a node keeps, who it is, and nodes that are gone for good: storage, identity, retire.

With `--json` they print what the API answered.
"""

import argparse
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from constraint_crdt.cli.client import ApiClient
from constraint_crdt.cli.output import print_json, print_lines, print_table, printable
from constraint_crdt.operations.command import Column


def storage(arguments: argparse.Namespace) -> int:
    """What the node holds, and what it could forget."""
    answer: Any = ApiClient.chosen(arguments).get("storage")
    if arguments.json:
        print_json(answer)
        return 0
    dropped = ", ".join(f"{count} by {reason}" for reason, count in answer["dropped"].items() if count)
    lines = [
        ("store", f"{answer['path']}, {answer['bytes_on_disk']} bytes on disk"),
        ("live", f"{answer['live']} cells, {answer['live_bytes']} bytes"),
        ("removed", f"{answer['removed']} cells, {answer['removed_bytes']} bytes, kept until all have heard"),
        ("dropped", f"{dropped or 'no removals'} since the start"),
    ]
    lines += [("held back", _held(each)) for each in answer["holding"]] or [("held back", "by nobody who is live")]
    if answer["trouble"]:
        lines.append(("TROUBLE", f"writes are refused: {answer['trouble']}"))
    print_lines(lines)
    if answer["floors"]:
        print()
        print_table([Column("replica"), Column("removals dropped up to", right=True)], list(answer["floors"].items()))
    return 0


def identity(arguments: argparse.Namespace) -> int:
    """Who the node is, and who it was."""
    answer: Any = ApiClient.chosen(arguments).get("identity")
    if arguments.json:
        print_json(answer)
        return 0
    lines = [("node", f"{answer['node']} of fleet {answer['fleet']}"), ("replica", answer["replica"]), ("store", answer["store"])]
    if answer["retired_by"]:
        lines.append(("RETIRED", f"by {answer['retired_by']}, for good"))
    print_lines(lines)
    print()
    columns = [Column("incarnation"), Column("began"), Column("mutations", right=True), Column("why")]
    print_table(columns, [[each["incarnation"], _time(each["began"]), each["seq"], each["why"]] for each in answer["lives"]])
    return 0


def retire(arguments: argparse.Namespace) -> int:
    """End another node for good, or say what that would mean."""
    body = {"node": arguments.name, "dry_run": arguments.dry_run, "force": arguments.force}
    answer: Any = ApiClient.chosen(arguments).post("retire", body)
    if arguments.json:
        print_json(answer)
        return 0
    print(printable(_verdict(answer, dry_run=arguments.dry_run, force=arguments.force)))
    print_lines(
        [
            ("lives", ", ".join(f"{replica} up to {seq}" for replica, seq in answer["lives"].items())),
            ("counts", f"{answer['satisfied']} satisfied, {answer['violations']} violated: they stay"),
            ("known to", _names(answer["acknowledged"], "this node and no live peer")),
            ("not yet to", _names(answer["missing"], "nobody: every live peer has all that is known here of it")),
        ]
    )
    return 0


def _verdict(answer: Any, *, dry_run: bool, force: bool) -> str:
    name = answer["node"]
    if not dry_run:
        return f"{name} is retired for good: its return is refused, and its name is not to be used again"
    if answer["done"]:
        return f"{name} is retired already; nothing was done (dry run)"
    if answer["live"] and not force:
        return f"{name} is live, so retiring it would be refused without --force; nothing was done (dry run)"
    if answer["live"]:
        return f"{name} is live, and would be retired with the loss of what it wrote and nobody has taken yet (dry run)"
    return f"{name} is not live, and would be retired for good (dry run)"


def _held(holding: Any) -> str:
    removals, size = holding["removals"], holding["bytes"]
    return f"by {holding['node']}: {removals} removals, {size} bytes, that it has not acknowledged, for {holding['seconds']:.0f} s"


def _names(names: Iterable[str], nobody: str) -> str:
    return ", ".join(names) or nobody


def _time(ns: int) -> str:
    return datetime.fromtimestamp(ns / 1e9).astimezone().isoformat(sep=" ", timespec="seconds")
