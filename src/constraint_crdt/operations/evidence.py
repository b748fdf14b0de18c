"""The operations on evidence: which nodes hold a change, why a constraint is as it is, how the peers compare."""

import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from constraint_crdt.operations.command import Column, Command, Flag, Lines, Table, View
from constraint_crdt.operations.operation import (
    GET,
    SECONDS,
    TEXT,
    Empty,
    Operation,
    Parameter,
    Problem,
    busy,
    not_found,
    number,
)
from constraint_crdt.operations.values import show_time

if TYPE_CHECKING:
    from argparse import Namespace

    from constraint_crdt.runtime.node import Node

Wanted = Literal["all", "live", "majority"] | int
"""How many nodes are to hold a change."""

LONGEST_WAIT: Final = 300.0
DEFAULT_WAIT: Final = 30.0
"""Seconds."""

WANTED: Final = "all|live|majority|[1-9][0-9]{0,5}"
"""The values of `wait`, as a regular expression."""

# --- requests ---------------------------------------------------------------------------------------------------------------


class GetFleetCoverage(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /v1/coverage`."""

    wait: str | int | None = None
    timeout: float = DEFAULT_WAIT


class GetCoverage(GetFleetCoverage, frozen=True, kw_only=True):
    """`GET /v1/coverage/{id}`."""

    id: str


class ExplainConstraint(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /v1/explain/{id}`."""

    id: str


# --- responses --------------------------------------------------------------------------------------------------------------


class NodeCoverage(msgspec.Struct, frozen=True, kw_only=True):
    """Whether one node has heard of a change."""

    node: str
    holds: bool | None
    """null: there is no evidence of what it has, as it did not speak with this node since this node started."""
    live: bool
    since: int | None
    """ns since the epoch by this node's clock. If it holds the change: when it first showed that. If not: when the change became
    known here. null: before this node started, or too long ago to be remembered."""
    behind: int | None
    """How many mutations known here, of whatever kind, it gave no evidence of. null as in `holds`."""


class CoverageReport(msgspec.Struct, frozen=True, kw_only=True):
    """Who has heard of a change."""

    id: str | None
    """The constraint; null: all changes of definitions that are known here."""
    change: str
    """What the change is: added, expired, removed; or definitions, for all of them."""
    dots: tuple[str, ...]
    """The mutations that it consists of, as node~incarnation:seq."""
    nodes: tuple[NodeCoverage, ...]
    have: int
    lack: int
    unknown: int
    wanted: int | None = None
    """How many were to have it, where that was asked."""
    met: bool | None = None
    """Whether so many have."""


class StandingDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """One definition that stands, and the mutation that keeps it alive. Times in ns since the epoch."""

    dot: str
    """The mutation, as node~incarnation:seq. The constraint is active until a removal names it, or its time is over."""
    when: str | None
    severity: str
    about: str | None
    on: dict[str, str]
    added_by: str
    added_at: int | None
    """By the clock of the node that added it; null if it did not say."""
    known_since: int | None
    """When it became known here, by this node's clock; null: before it started, or too long ago."""
    expires_at: int | None
    expired: bool


class Removal(msgspec.Struct, frozen=True, kw_only=True):
    """A mutation that ended definitions of the constraint: somebody removed it, or an edit took their place."""

    dot: str
    by: str
    ended: tuple[str, ...]
    """The additions that it names."""
    known_since: int | None
    held: bool
    """Its cell is still held here. If not, it was dropped, as all who matter have heard of it, and is only remembered."""


class ViolationReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one node found of the constraint. Times in ns since the epoch, by the clock of the node that answers."""

    node: str
    live: bool
    violated: bool | None
    """As of the last that is known; null: nothing is known of now."""
    since: int | None
    """Since when it is violated without a break. Of another node: as its counts told, so seconds late."""
    last: int | None
    """When that was last confirmed."""
    exact: bool
    """It is of this node's own evaluations, not of what another one told."""
    satisfied: int
    violations: int
    """Counts since the constraint began."""
    violated_per_minute: float
    violated_share: float | None
    """Lately, at the shortest half-life that is tracked here; null if nothing was evaluated lately."""


class RecentRates(msgspec.Struct, frozen=True, kw_only=True):
    """Evaluations of late, in the whole fleet."""

    half_life: float
    """Seconds."""
    satisfied_per_minute: float
    violated_per_minute: float
    violated_share: float | None


class ExplainReport(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of one constraint."""

    id: str
    active: bool
    conflict: bool
    """Definitions that differ in more than their ends are in force, all of them enforced, until somebody edits the constraint."""
    definitions: tuple[StandingDefinition, ...]
    removals: tuple[Removal, ...]
    """Those that are remembered, in the order in which they became known here."""
    violations: tuple[ViolationReport, ...]
    """By node, those that ever evaluated it."""
    lately: tuple[RecentRates, ...]
    coverage: CoverageReport | None
    """Who has heard of it; null if no change of it is remembered."""


class PeerConvergence(msgspec.Struct, frozen=True, kw_only=True):
    """How one peer stands to this node. Times in ns since the epoch by this node's clock."""

    node: str
    state: str
    """same: it has what is known here, and nothing else. behind: it lacks something. ahead: it has something that is not known
    here, and lacks nothing. apart: both. unreachable: it is not live. unknown: it is live and there is no evidence of its clock.
    diverged: it was at this node's clock with another hash, so one of the two is damaged, and they have not agreed since."""
    since: int | None
    """Since when. Of one that is unreachable: when it was last heard. null: before this node started, or not known."""
    behind: int | None
    """Mutations known here that it gave no evidence of; of one that is unreachable: as of when it was last heard."""
    ahead: int | None
    """Mutations that it gave evidence of and that are not known here."""
    staleness: float | None
    """Seconds, see the definition in docs/how-to/answers.md; null without evidence."""
    heard: int | None
    """When it was last heard; null: not since this node started."""


class ConvergenceReport(msgspec.Struct, frozen=True, kw_only=True):
    """How the fleet stands to this node."""

    node: str
    peers: tuple[PeerConvergence, ...]
    same: int
    """Live peers that have what is known here, and nothing else."""
    live: int
    """Live peers."""
    staleness_p50: float | None
    """Seconds, over the live peers; null if there are none with evidence."""
    staleness_p99: float | None


# --- coverage ---------------------------------------------------------------------------------------------------------------


class TooManyWaitingError(Problem):
    """As many requests wait for acknowledgements as a node lets wait (503)."""

    def __init__(self, detail: str) -> None:
        problem = busy(detail)
        super().__init__(problem.status, detail, headers=problem.headers)


async def _coverage(node: "Node", request: GetFleetCoverage) -> CoverageReport:
    id_ = request.id if isinstance(request, GetCoverage) else None
    coverage = node.coverage
    try:
        if request.wait is None:
            return coverage.report(id_)
        return await coverage.wait(id_, _wanted(request.wait), request.timeout)
    except KeyError:
        raise _unknown(str(id_)) from None


def _unknown(id_: str) -> Problem:
    return not_found(f"no constraint {id_!r} is active, and no removal of one is remembered here")


def _wanted(wait: str | int) -> Wanted:
    match wait:
        case "all" | "live" | "majority" | int():
            return wait
        case _:
            return int(wait)


def _parse_wait(text: str) -> Wanted:
    if re.fullmatch(WANTED, text) is None:
        raise ValueError(f": {text!r} is none of all, live, majority, or a number of nodes from 1")
    return _wanted(text)


def _parse_timeout(text: str) -> float:
    seconds = number(text)
    if seconds is None or not 0.0 <= seconds <= LONGEST_WAIT:
        raise ValueError(f": {text!r} is not a number of seconds from 0 to {LONGEST_WAIT:g}")
    return seconds


def _patience(request: GetFleetCoverage) -> float:
    return 0.0 if request.wait is None else request.timeout


_WAITING: Final = (
    Parameter(
        name="wait",
        about="answer only once so many nodes hold it: all, live, majority or a number",
        schema={**TEXT, "pattern": f"^({WANTED})$"},
        parse=_parse_wait,
    ),
    Parameter(
        name="timeout",
        about="seconds to wait at most",
        schema={**SECONDS, "maximum": LONGEST_WAIT, "default": 30},
        parse=_parse_timeout,
    ),
)

FLEET_COVERAGE: Final = Operation(
    name="fleet_coverage",
    method=GET,
    path="/v1/coverage",
    summary="Which nodes hold all changes of definitions.",
    about="Which nodes hold all changes of definitions. As `coverage`.",
    request=GetFleetCoverage,
    response=CoverageReport,
    run=_coverage,
    parameters=_WAITING,
    patience=_patience,
)

COVERAGE: Final = Operation(
    name="coverage",
    method=GET,
    path="/v1/coverage/{id:any_text}",
    summary="Which nodes hold this change, and which not.",
    about="Which nodes hold this change, and which not. `wait`: answer once all, live, majority or a number of them do.",
    request=GetCoverage,
    response=CoverageReport,
    run=_coverage,
    parameters=_WAITING,
    patience=_patience,
)

# --- explain and convergence ------------------------------------------------------------------------------------------------


async def _explain(node: "Node", request: ExplainConstraint) -> ExplainReport:
    try:
        return node.explanations.report(request.id)
    except KeyError:
        raise _unknown(request.id) from None


def show_explain(answer: ExplainReport, _: ExplainConstraint, __: "Namespace") -> View:
    """Its state, definitions, removals, rates and coverage, and a row for each node."""
    now = time.time()
    lines: list[tuple[str, object]] = []
    for each in answer.definitions:
        lines += _definition(each, now)
    lines += [("removal", _removal(each, now)) for each in answer.removals]
    lines += [("lately", _lately(each)) for each in answer.lately]
    if answer.coverage is not None:
        lines.append(("heard by", _heard_by(answer.coverage)))
    view: list[str | Table | Lines] = [f"{answer.id}: {_state(answer)}", Lines(lines)]
    if answer.violations:
        view.append(_violations(answer.violations, now))
    return view


def _state(answer: ExplainReport) -> str:
    if not answer.definitions:
        return "not active"
    if not answer.active:
        return "not active any more: its time is over, and nobody has removed it yet"
    if answer.conflict:
        return "active, with definitions that differ: all of them are enforced until somebody edits it"
    return "active"


def _definition(each: StandingDefinition, now: float) -> list[tuple[str, object]]:
    text = each.when or "listed, not evaluated"
    labels = ", ".join(f"{key}={value}" for key, value in each.on.items())
    ends = "" if each.expires_at is None else f"; {'ended' if each.expired else 'ends'} {show_time(each.expires_at, now)}"
    added = "at an unknown time" if each.added_at is None else show_time(each.added_at, now)
    lines: list[tuple[str, object]] = [
        ("definition", f"{text} ({each.severity}{f', on {labels}' if labels else ''}){ends}"),
        ("added by", f"{each.added_by}, {added}{_known(each.known_since, now)}; kept alive by {each.dot}"),
    ]
    return [*lines, ("about", each.about)] if each.about else lines


def _removal(each: Removal, now: float) -> str:
    state = "" if each.held else "; forgotten since, as all live nodes have heard of it or it was kept long enough"
    return f"by {each.by} ({each.dot}){_known(each.known_since, now)}, of {', '.join(each.ended)}{state}"


def _known(since: int | None, now: float) -> str:
    return ", known here since before the node started" if since is None else f", known here {show_time(since, now)}"


def _lately(each: RecentRates) -> str:
    share = "nothing was evaluated" if each.violated_share is None else f"{100 * each.violated_share:.2f} % violated"
    counts = f"{each.violated_per_minute:.2f} violated and {each.satisfied_per_minute:.2f} satisfied a minute"
    return f"{share}, {counts} (half-life {each.half_life:g} s)"


def _heard_by(report: CoverageReport) -> str:
    lacking = [each.node for each in report.nodes if each.holds is False]
    unknown = [each.node for each in report.nodes if each.holds is None]
    told = f"{report.have} of {len(report.nodes)} nodes"
    told += f"; not by {', '.join(lacking)}" if lacking else ""
    return told + (f"; no evidence of {', '.join(unknown)}" if unknown else "")


def _violations(violations: Sequence[ViolationReport], now: float) -> Table:
    columns = [Column("node"), Column("now"), Column("since"), Column("live")]
    columns += [Column(title, right=True) for title in ("satisfied", "violated", "violated/min lately")]
    rows = [
        [
            each.node,
            {True: "violated", False: "satisfied", None: "unknown"}[each.violated],
            show_time(each.since, now) + ("" if each.exact or each.since is None else ", as told"),
            "yes" if each.live else "no",
            each.satisfied,
            each.violations,
            f"{each.violated_per_minute:.2f}",
        ]
        for each in violations
    ]
    return Table(columns, rows)


EXPLAIN: Final = Operation(
    name="explain",
    method=GET,
    path="/v1/explain/{id:any_text}",
    summary="Why a constraint is as it is.",
    request=ExplainConstraint,
    response=ExplainReport,
    run=_explain,
    command=Command(
        name="explain",
        help="who, when, why, where violated: all about a constraint",
        group="constraints",
        flags={"id": Flag(metavar="ID")},
        show=show_explain,
    ),
)


async def _convergence(node: "Node", _: Empty) -> ConvergenceReport:
    return node.convergence.report()


def standing(convergence: PeerConvergence | None, now: float) -> tuple[object, object, object]:
    """The state of a node, its beginning, and the number of changes that the node is behind."""
    if convergence is None:
        return "-", "-", "-"
    return convergence.state, show_time(convergence.since, now), _or_dash(convergence.behind)


def _or_dash(value: int | None) -> object:
    return "-" if value is None else value


def show_convergence(answer: ConvergenceReport, _: Empty, __: "Namespace") -> View:
    """A sentence on the fleet, and a row for each peer."""
    now = time.time()
    stale = f"p50 {_shown_seconds(answer.staleness_p50)}, p99 {_shown_seconds(answer.staleness_p99)}"
    columns = [Column("node"), Column("state"), Column("since")]
    columns += [Column(name, right=True) for name in ("behind", "ahead", "stale")]
    rows = [[each.node, *standing(each, now), _or_dash(each.ahead), _shown_seconds(each.staleness)] for each in answer.peers]
    return [f"{answer.same} of {answer.live} live peers have the same as {answer.node}; staleness {stale}", Table(columns, rows)]


def _shown_seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"


CONVERGENCE: Final = Operation(
    name="convergence",
    method=GET,
    path="/v1/convergence",
    summary="How each peer stands to the node.",
    request=Empty,
    response=ConvergenceReport,
    run=_convergence,
    command=Command(
        name="convergence", help="how each node stands to this one, and since when", group="fleet", show=show_convergence
    ),
)
