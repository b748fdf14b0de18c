"""The commands that follow a node: events, watch.

`events` prints a line for each event, with `--json` an object. It begins with the events that the node has kept, and goes on with
`--follow` until Ctrl-C. A stream that breaks is resumed after the last event. A gap is told on stderr.

`watch` draws the fleet on a terminal, and asks the node again and again. Rows that need attention stand first: constraints that
are violated now, and nodes whose state differs. If the node does not answer, its error stands in place of the tables.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from constraint_crdt.cli.connection import as_failure, connect
from constraint_crdt.cli.output import STYLES, MisuseError, printable
from constraint_crdt.client import ClientError
from constraint_crdt.client.blocking import Client
from constraint_crdt.client.wire import Gap, Happened, Heard
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.model import Event, check_kinds, counted
from constraint_crdt.operations.command import parse_duration, show_share, show_state, show_time
from constraint_crdt.operations.nodes import NodeReport, Status

if TYPE_CHECKING:
    from rich.console import RenderableType

    from constraint_crdt.operations.counts import ConstraintOverview, OverviewReport

PATIENCE = 3600.0
"""Seconds without a connection after which `events` gives up."""

KEPT = 10_000
"""Events that a node keeps."""

FIRST = 10
"""Past events that `--follow` begins with."""

LEAST_EVERY = 0.2
"""Seconds between two pictures of `watch`."""

MOST_ROWS = 40

CONSTRAINT_TITLES = (
    "constraint", "severity", "when", "here", "violated on", "since", "judged satisfied", "judged violated", "held of the time",
)  # fmt: skip

PAGE = 1000
"""Constraints read by `watch`: the first, by id."""

FRAME = 9
"""Lines of the screen that are not rows of a table."""


# --- events -----------------------------------------------------------------------------------------------------------------


def events(arguments: argparse.Namespace) -> int:
    """Print past events, and with `--follow` new ones until Ctrl-C."""
    try:
        kinds = check_kinds(arguments.kind or ())
    except ConstraintCrdtError as error:
        raise MisuseError(str(error)) from None
    last = (FIRST if arguments.follow else KEPT) if arguments.last is None else arguments.last
    if last > KEPT:
        raise MisuseError(f"--last takes at most {KEPT}: a node keeps no more")
    client = connect(arguments)
    if arguments.follow:
        client.status()  # without a node, or a token, there is no stream to resume
    for heard in client.events(last=last, follow=arguments.follow, patience=PATIENCE, kinds=sorted(kinds)):
        _tell(heard, as_json=arguments.json)
    return 0


def _tell(heard: Heard, *, as_json: bool) -> None:
    if isinstance(heard, Gap):
        missed = "some events are" if heard.missed is None else counted(heard.missed, "event", "is", "are")
        print(f"{missed} not kept any more, and missed here", file=sys.stderr)
    elif isinstance(heard, Happened):
        line = json.dumps({"id": heard.id, **msgspec.to_builtins(heard.event)}) if as_json else printable(show_event(heard.event))
        print(line, flush=True)


def show_event(event: Event) -> str:
    """An event in a line, in local time."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.time / 1e9))
    place = "/".join(part for part in (event.room, event.tile) if part)
    about = " on ".join(part for part in (event.constraint or event.budget or place, event.node) if part)
    cause = f" (by {event.actor} on {event.by}{f', because {event.why}' if event.why else ''})" if event.actor else ""
    told = ": ".join(part for part in (about, event.detail) if part)
    return f"{when}  {event.kind.value:<14}  {told}{cause}".rstrip()


# --- watch ------------------------------------------------------------------------------------------------------------------


def watch(arguments: argparse.Namespace) -> int:
    """Show the fleet until Ctrl-C."""
    every = parse_duration(arguments.every)
    if every < LEAST_EVERY:
        raise MisuseError(f"--every takes {LEAST_EVERY:g} seconds or more, not {arguments.every}")
    if arguments.json or not sys.stdout.isatty():
        raise MisuseError("watch draws on a terminal: use `status --json`, `nodes --json` or `events --follow` for a program")
    from rich.live import Live

    client = connect(arguments)
    with Live(picture(client, _rows()), auto_refresh=False, screen=True) as live:
        while True:
            time.sleep(every)
            live.update(picture(client, _rows()), refresh=True)


def _rows() -> int:
    """The rows that each of the two tables may have."""
    return max(3, min(MOST_ROWS, (shutil.get_terminal_size().lines - FRAME) // 2))


def picture(client: Client, rows: int) -> "RenderableType":
    """The fleet now, with at most `rows` rows in each table."""
    from rich.console import Group
    from rich.text import Text

    try:
        status, nodes, constraints = client.status(), client.nodes(), client.overview(limit=PAGE)
    except ClientError as error:
        return Text(printable(f"{time.strftime('%H:%M:%S')}  {as_failure(error)}"), style="bold red")
    now = time.time()
    return Group(
        Text(printable(f"{time.strftime('%H:%M:%S')}  {headline(status)}"), style="bold"),
        _table(
            CONSTRAINT_TITLES,
            constraint_rows(constraints, rows, now),
        ),
        _table(("node", "live", "state", "since", "behind", "judged satisfied", "judged violated"), node_rows(nodes, rows, now)),
    )


def headline(status: Status) -> str:
    """The node and its fleet in a line."""
    trouble = f"; WRITES ARE REFUSED: {status.trouble}" if status.trouble else ""
    agreeing = (
        f"{status.agreeing} of {counted(status.peers + 1, 'live node', 'enforces', 'enforce')} "
        f"the same {counted(status.constraints, 'constraint')}"
    )
    return f"{status.node} in {status.fleet}: {agreeing}{trouble}"


def constraint_rows(answer: "OverviewReport", most: int, now: float) -> list[list[str]]:
    """At most `most` constraints: those that are violated now on most nodes first. `now`: seconds since the epoch."""
    found = sorted(answer.constraints, key=lambda each: (-each.violated_now, -each.violated_on, each.id))
    rows = [
        [
            each.id,
            each.severity,
            each.when or "-",
            _here(each, now),
            _violated_on(each),
            show_time(each.violated_since, now),
            str(each.satisfied),
            str(each.violations),
            show_share(each.held),
        ]
        for each in found[:most]
    ]
    return _with_rest(rows, len(found) - most)


def _here(each: "ConstraintOverview", now: float) -> str:
    """The verdict state on the node that answers."""
    if each.state is None or each.state == "off":
        return "-"
    return show_state(each.state, each.since, now, for_=each.for_, clear_after=each.clear_after)


def _violated_on(each: "ConstraintOverview") -> str:
    """The nodes with a violation now: some by name."""
    named = each.worst[: each.violated_now]
    rest = each.violated_now - len(named)
    return ", ".join([*named, *([f"{rest} more"] if rest else [])]) or "-"


def node_rows(answer: list[NodeReport], most: int, now: float) -> list[list[str]]:
    """At most `most` nodes: those with another state than the node that answers first. `now`: seconds since the epoch."""

    def state(each: NodeReport) -> str:
        if each.revoked:
            return "revoked"
        if each.convergence is None:
            return "retired" if each.retired else "this node"
        return each.convergence.state

    found = sorted(answer, key=lambda each: (state(each) in ("same", "this node", "retired", "revoked"), each.node))
    rows = []
    for each in found[:most]:
        since, behind = (None, None) if each.convergence is None else (each.convergence.since, each.convergence.behind)
        told = [show_time(since, now), "-" if behind is None else str(behind)]
        rows.append([each.node, "yes" if each.live else "no", state(each), *told, str(each.satisfied), str(each.violations)])
    return _with_rest(rows, len(found) - most)


def _with_rest(rows: list[list[str]], rest: int) -> list[list[str]]:
    return rows if rest <= 0 else [*rows, [f"and {rest} more", *("" for _ in rows[0][1:])]]


def _table(titles: Sequence[str], rows: list[list[str]]) -> "RenderableType":
    from rich.table import Table as DrawnTable
    from rich.text import Text

    table = DrawnTable(expand=True)
    for title in titles:
        table.add_column(Text(title), no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(*(Text(printable(text), style=STYLES.get(text, "")) for text in row))
    return table
