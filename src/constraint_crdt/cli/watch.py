"""The commands that follow a node: events, watch.

`events` prints a line for each event, with `--json` an object. It begins with the events that the node has kept, and goes on with
`--follow` until Ctrl-C. A stream that breaks is resumed after the last event. A gap is told on stderr. Beside the events of the
asked node stand the turns of constraints on all other nodes, as far as the asked node has them in memory. Without `--each` and
`--json` these have a common line:

- a constraint with `FLAPPING` turns or more, none of them more than `CALM` after the turn before; with `--follow` a line at each
  doubling of their number
- events of a kind in `JOINED`: of a constraint on `MANY` nodes or more within `AT_ONCE`, or of `MANY_HERE` constraints or more on a
  node within `HERE_AT_ONCE`, of `UNKNOWN_HERE` or more that became unknown

`watch` draws the fleet on a terminal, and asks the node again and again. Rows that need attention stand first: constraints that
are violated now, and nodes whose state differs. If the node does not answer, its error stands in place of the tables.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import msgspec

from constraint_crdt.cli.connection import as_failure, connect
from constraint_crdt.cli.output import STYLES, MisuseError, printable
from constraint_crdt.client import ClientError, Gap, Happened, Heard, NotFound
from constraint_crdt.client.blocking import Client
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.insight.diagnosis import named
from constraint_crdt.model import Event, EventKind, check_kinds, counted
from constraint_crdt.operations.evidence import MOST_TURNS, TurnReport
from constraint_crdt.operations.nodes import NodeReport, Status
from constraint_crdt.operations.operation import parse_duration, show_share, show_state, show_time, show_values

if TYPE_CHECKING:
    from rich.console import RenderableType

    from constraint_crdt.operations.counts import ConstraintOverview, OverviewReport

PATIENCE = 3600.0
"""Seconds without a connection after which `events` gives up."""

KEPT = 10_000
"""Events that a node keeps."""

FIRST = 10
"""Past events that `--follow` begins with."""

Key = TypeVar("Key")
Value = TypeVar("Value")

UNDECIDED: Final = "unknown"
"""The kind of a turn to unknown, for which the log of a node has no event."""

KINDS_OF_TURNS: Final = {"violated": "violated", "holds": "satisfied", "unknown": UNDECIDED}
TURNED: Final = frozenset(KINDS_OF_TURNS.values())
JOINED: Final = TURNED | {EventKind.PEER_UP.value, EventKind.PEER_DOWN.value}

MANY, AT_ONCE = 3, 10_000_000_000
"""The least number of nodes with the same event to share a line, and the ns between the first event and the last."""

MANY_HERE, UNKNOWN_HERE, HERE_AT_ONCE = 5, 2, 2_000_000_000
"""The same for constraints of a node, and for constraints becoming unknown there, mostly because of a single sensor."""

FLAPPING = 4
"""The least number of turns of a constraint on a node to share a line."""

CALM = 600_000_000_000
"""ns without a turn, after which a constraint does not flap."""

TURNS_EVERY = 1.0
"""Seconds between two questions for turns."""

FRESH_TURNS = 100
"""Turns asked for at a time, if not all of them are new."""

TURNS_KNOWN = 4000
"""Turns told apart."""

PAST_FOR_A_LINE = 20
"""Past events read for each line to begin with."""

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


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """An event of the asked node, or the turn of a constraint on another node."""

    kind: str
    """The value of an `EventKind`, or `UNDECIDED`."""
    time: int
    """ns since the epoch; of a turn by the clock of its node."""
    constraint: str = ""
    node: str = ""
    by: str = ""
    detail: str = ""
    event: Event | None = None
    """None: a turn."""
    id: str | None = None
    """Of the event in the log of the asked node."""

    def line(self) -> str:
        """In a line, in local time."""
        if self.event is not None:
            return show_event(self.event)
        return _line(self.time, self.kind, _about(self.constraint, self.node), self.detail)

    def row(self) -> dict[str, object]:
        """As JSON: the fields of the event, with the id."""
        if self.event is not None:
            return {"id": self.id, **msgspec.to_builtins(self.event)}
        turn = {"kind": self.kind, "time": self.time, "constraint": self.constraint, "node": self.node, "detail": self.detail}
        return {"id": None, **{name: value for name, value in turn.items() if value}}


class Selection(NamedTuple):
    """Which events to print. Empty: all."""

    kinds: frozenset[str] = frozenset()
    constraints: Sequence[str] = ()
    """Ids and patterns."""
    nodes: Sequence[str] = ()
    """Names and patterns."""

    def takes(self, told: Told) -> bool:
        """True for an event to print."""
        if self.kinds and told.kind not in self.kinds:
            return False
        if self.constraints and not any(fnmatchcase(told.constraint, each) for each in self.constraints):
            return False
        return not self.nodes or any(fnmatchcase(name, each) for name in (told.node, told.by) for each in self.nodes)


def events(arguments: argparse.Namespace) -> int:
    """Print past events, and with `--follow` new ones until Ctrl-C."""
    selection = Selection(_kinds(arguments.kind or ()), arguments.constraint or (), arguments.of or ())
    last = (FIRST if arguments.follow else KEPT) if arguments.last is None else arguments.last
    if last > KEPT:
        raise MisuseError(f"--last takes at most {KEPT}: a node keeps no more")
    client = connect(arguments)
    turns = _Turns(client)  # without a node, or a token, there is no stream to resume
    kinds = () if UNDECIDED in selection.kinds else sorted(selection.kinds)
    lines = EventLines(selection, each=arguments.each, as_json=arguments.json)
    # A line may stand for many events.
    most = KEPT if selection.constraints or selection.nodes else min(KEPT, PAST_FOR_A_LINE * last)
    found = turns.fresh(MOST_TURNS)
    heard = client.events(last=most, follow=False, patience=PATIENCE, kinds=kinds)
    found += [_told(each) for each in heard if isinstance(each, Happened)]
    lines.tell(found, last)
    if arguments.follow:
        after = next((each.id for each in reversed(found) if each.id is not None), None)
        _follow(client.events(after=after, follow=True, patience=PATIENCE, kinds=kinds), turns, lines)
    return 0


def _kinds(asked: Sequence[str]) -> frozenset[str]:
    try:
        return check_kinds([each for each in asked if each != UNDECIDED]) | ({UNDECIDED} & set(asked))
    except ConstraintCrdtError as error:
        raise MisuseError(f"{error}, {UNDECIDED}") from None


def _follow(stream: Iterator[Heard], turns: "_Turns", lines: "EventLines") -> None:
    """Print new events. A notice of changes leads to a request for turns. Turns wait for the notice, to be joined."""
    waiting: list[Told] = []
    asked = time.monotonic()
    for heard in stream:
        match heard:
            case Gap():
                missed = "some events are" if heard.missed is None else counted(heard.missed, "event", "is", "are")
                print(f"{missed} not kept any more, and missed here", file=sys.stderr)
            case Happened() if heard.event.kind in TURNED:
                waiting.append(_told(heard))
            case Happened():
                lines.tell([*waiting, _told(heard)])
                waiting = []
            case _:
                time.sleep(max(0.0, TURNS_EVERY - (time.monotonic() - asked)))
                asked = time.monotonic()
                lines.tell([*waiting, *turns.fresh(FRESH_TURNS)])
                waiting = []


def _told(heard: Happened) -> Told:
    event = heard.event
    return Told(
        kind=event.kind.value, time=event.time, constraint=event.constraint, node=event.node, by=event.by, detail=event.detail,
        event=event, id=heard.id,
    )  # fmt: skip


class _Turns:
    """The turns of constraints as all nodes told them. The asked node has events of its own violations."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._node = client.status().node
        self._seen: dict[tuple[str, str, str, int], None] = {}
        self._led_to: dict[tuple[str, str], str] = {}
        """The kind of the latest turn, by constraint and node."""

    def fresh(self, most: int) -> list[Told]:
        """The turns since the last call, of the latest `most`; of `MOST_TURNS` if all of those are new."""
        try:
            turns = self._client.turns(last=most)
        except NotFound:  # a node of 0.1.0 tells none
            return []
        if len(turns) == most < MOST_TURNS and not any(_key(each) in self._seen for each in turns):
            turns = self._client.turns(last=MOST_TURNS)
        found = [told for told in map(self._take, turns) if told is not None]
        _forget_oldest(self._seen)
        _forget_oldest(self._led_to)
        return found

    def _take(self, turn: TurnReport) -> Told | None:
        key, place = _key(turn), (turn.constraint, turn.node)
        kind = KINDS_OF_TURNS.get(turn.state)
        if key in self._seen or kind is None:
            return None
        self._seen[key] = None
        before = self._led_to.pop(place, None)
        self._led_to[place] = kind
        if (turn.node == self._node and kind != UNDECIDED) or (kind == EventKind.SATISFIED and before in (None, kind)):
            return None
        values = show_values(turn.values, turn.margin, turn.margin_share, turn.margin_variable)
        detail = "; ".join(part for part in (values, turn.reason) if part)
        return Told(kind=kind, time=turn.since, constraint=turn.constraint, node=turn.node, detail=detail)


def _forget_oldest(known: dict[Key, Value]) -> None:
    """Leave the last `TURNS_KNOWN`."""
    for key in list(islice(known, max(0, len(known) - TURNS_KNOWN))):
        del known[key]


def _key(turn: TurnReport) -> tuple[str, str, str, int]:
    return turn.constraint, turn.node, turn.state, turn.since


class _Run:
    """Turns of a constraint on a node, none of them long after the turn before."""

    def __init__(self, first: Told) -> None:
        self.first = self.latest = first
        self.count = 0
        self.told = 0
        """The count when a line was last printed."""


class EventLines:
    """Prints events. Flapping and simultaneous events share a line."""

    def __init__(self, selection: Selection, *, each: bool, as_json: bool) -> None:
        self._selection = selection
        self._each = each
        self._as_json = as_json
        self._runs: dict[tuple[str, str], _Run] = {}

    def tell(self, found: Sequence[Told], most: int = KEPT) -> None:
        """Print these events; of many lines the last `most`."""
        told = sorted((each for each in found if self._selection.takes(each)), key=lambda each: each.time)
        if self._as_json:
            lines = [json.dumps(each.row()) for each in told]
        elif self._each:
            lines = [printable(each.line()) for each in told]
        else:
            lines = [printable(line) for _, line in sorted(self._joined(told), key=lambda each: each[0])]
        for line in lines[-most:] if most else ():
            print(line, flush=True)

    def _joined(self, told: Sequence[Told]) -> Iterator[tuple[int, str]]:
        """The time and the text of each line."""
        calm, runs = self._turn(told)
        for each in _overlapping([run for run in runs if run.count >= 2 * max(run.told, 1)]):
            yield _flapping(each)
        groups = _together(calm, AT_ONCE, lambda each: (each.kind, each.constraint), lambda each: each.node)
        few = sorted((each for group in groups if len(group) < MANY for each in group), key=lambda each: each.time)
        groups = [group for group in groups if len(group) >= MANY]
        for group in groups:
            yield _in_a_line(group)
        for group in _together(few, HERE_AT_ONCE, lambda each: (each.kind, each.node), lambda each: each.constraint):
            if len(group) >= (UNKNOWN_HERE if group[0].kind == UNDECIDED else MANY_HERE):
                yield _in_a_line(group)
            else:
                yield from ((each.time, each.line()) for each in group)

    def _turn(self, told: Sequence[Told]) -> tuple[list[Told], list[_Run]]:
        """The events outside of flapping runs, and these runs."""
        runs: list[tuple[Told, _Run | None]] = []
        for each in told:
            if each.kind not in TURNED:
                runs.append((each, None))
                continue
            place = (each.constraint, each.node)
            run = self._runs.pop(place, None)
            if run is not None and each.time - run.latest.time > CALM:
                run = None
            if run is None and each.kind == UNDECIDED:  # as each constraint is until it is measured
                runs.append((each, None))
                continue
            run = run or _Run(each)
            run.count, run.latest = run.count + 1, each
            self._runs[place] = run
            runs.append((each, run))
        _forget_oldest(self._runs)
        calm = [each for each, run in runs if run is None or run.count < FLAPPING]
        return calm, list(dict.fromkeys(run for _, run in runs if run is not None and run.count >= FLAPPING))


def _overlapping(runs: Sequence[_Run]) -> list[list[_Run]]:
    """The runs by constraint, those apart in time by themselves."""
    found: dict[str, list[list[_Run]]] = {}
    for run in sorted(runs, key=lambda each: each.first.time):
        groups = found.setdefault(run.first.constraint, [[]])
        if groups[-1] and run.first.time > max(each.latest.time for each in groups[-1]):
            groups.append([])
        groups[-1].append(run)
    return [group for groups in found.values() for group in groups]


def _flapping(runs: Sequence[_Run]) -> tuple[int, str]:
    """The time and the line of runs of a constraint."""
    for run in runs:
        run.told = run.count
    latest = max((run.latest for run in runs), key=lambda each: each.time)
    since = time.strftime("%H:%M:%S", time.localtime(min(run.first.time for run in runs) / 1e9))
    turns = f"{sum(run.count for run in runs)} turns since {since}, {latest.kind} now"
    about = _about(latest.constraint, named([run.first.node for run in runs]))
    if len(runs) > 1:
        turns += f" on {latest.node}"
    return latest.time, _line(latest.time, "flapping", about, f"{turns}; {latest.detail}" if latest.detail else turns)


def _together(
    told: Sequence[Told], within: int, same: Callable[[Told], Hashable], place: Callable[[Told], str]
) -> list[list[Told]]:
    """Events of the same kind and subject, as `same` has it, in several places within so many ns; the others alone."""
    found: list[list[Told]] = []
    latest: dict[Hashable, list[Told]] = {}
    for each in told:
        group = latest.get(same(each))
        if group is None or each.kind not in JOINED or each.time - group[0].time > within or place(each) in map(place, group):
            group = latest[same(each)] = []
            found.append(group)
        group.append(each)
    return found


def _in_a_line(group: Sequence[Told]) -> tuple[int, str]:
    """The time and the line of events at once."""
    first = group[0]
    constraints = list(dict.fromkeys(each.constraint for each in group if each.constraint))
    nodes = list(dict.fromkeys(each.node for each in group))
    where = f"on {first.node}" if len(nodes) > 1 else first.constraint
    detail = f"{first.detail} ({where})" if first.detail and where else first.detail
    return first.time, _line(first.time, first.kind, _about(named(constraints), named(nodes)), detail)


def show_event(event: Event) -> str:
    """An event in a line, in local time."""
    place = "/".join(part for part in (event.room, event.tile) if part)
    about = _about(event.constraint or event.budget or place, event.node)
    cause = f" (by {event.actor} on {event.by}{f', because {event.why}' if event.why else ''})" if event.actor else ""
    return _line(event.time, event.kind.value, about, event.detail, cause)


def _about(subject: str, node: str) -> str:
    return " on ".join(part for part in (subject, node) if part)


def _line(at: int, kind: str, about: str, detail: str, cause: str = "") -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at / 1e9))
    told = ": ".join(part for part in (about, detail) if part)
    return f"{when}  {kind:<14}  {told}{cause}".rstrip()


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
