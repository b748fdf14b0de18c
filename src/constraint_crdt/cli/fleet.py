"""The commands on the nodes of a fleet that take more than one request: `retire` of several nodes."""

import argparse
import sys
import time
from fnmatch import fnmatchcase

import msgspec

from constraint_crdt.cli.connection import connect, request_of
from constraint_crdt.cli.output import CommandFailedError, MisuseError, present, print_view, printable
from constraint_crdt.client.blocking import Client
from constraint_crdt.operations.command import is_pattern, parse_duration
from constraint_crdt.operations.nodes import RETIRE, NodeReport, Retiring, away_nodes, show_retire


def retire(arguments: argparse.Namespace) -> int:
    """Retire nodes by name, by pattern, or by how long they are away. Several are asked about first."""
    if not arguments.nodes and arguments.away is None:
        raise MisuseError("name a node, or say --away TIME for those not heard of for so long")
    request: Retiring = request_of(arguments, node="")
    if arguments.away is not None and request.undo:
        raise MisuseError("--away chooses nodes to retire: leave it out with --undo")
    with connect(arguments) as client:
        names = _chosen(client, arguments, undo=request.undo)
        reports = []
        if arguments.away is not None or names != arguments.nodes:
            _confirm(names, request, sure=arguments.yes)
        for name in names:
            one = msgspec.structs.replace(request, node=name)
            report = client.do(RETIRE, one)
            reports.append(report)
            if not arguments.json:
                print_view(show_retire(report, one))
    if arguments.json:
        present(reports[0] if len(arguments.nodes) == 1 and names == arguments.nodes else reports, None)
    return 0


def _chosen(client: Client, arguments: argparse.Namespace, *, undo: bool) -> list[str]:
    """The names that the arguments choose. Raises `CommandFailedError` if they choose none."""
    patterns: list[str] = arguments.nodes
    if arguments.away is None and not any(map(is_pattern, patterns)):
        return list(dict.fromkeys(patterns))
    seconds = None if arguments.away is None else parse_duration(arguments.away)
    nodes = [each for each in client.nodes() if _matches(each, patterns) and each.retired is undo]
    if seconds is None:
        names = [each.node for each in nodes if each.convergence is not None or each.retired]  # not the node that answers
    else:
        names = away_nodes(nodes, seconds, client.status().uptime, time.time())
    if not names:
        which = "" if seconds is None else f" that was not heard of for {arguments.away}"
        raise CommandFailedError(printable(f"there is no such node{which}: see `nodes`"))
    return names


def _matches(node: NodeReport, patterns: list[str]) -> bool:
    return not patterns or any(fnmatchcase(node.node, each) for each in patterns)


def _confirm(names: list[str], request: Retiring, *, sure: bool) -> None:
    """Ask whether these nodes are meant. Raises `CommandFailedError` if not, and `MisuseError` without a terminal."""
    if sure or request.dry_run:
        return
    what = printable(f"{'undo the retirement of' if request.undo else 'retire for good'}: {', '.join(names)}")
    if not sys.stdin.isatty():
        raise MisuseError(f"would {what}: say --yes, or look with --dry-run first")
    if input(f"{what}? [y/N] ").strip().lower() not in ("y", "yes"):
        raise CommandFailedError("nothing was done")
