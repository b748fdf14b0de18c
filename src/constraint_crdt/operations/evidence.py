"""The operations on evidence: which nodes hold a change, why a constraint is as it is, how the peers compare."""

import re
import shlex
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from constraint_crdt.crdt.clock import SECOND
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.model import counted
from constraint_crdt.operations.budgets import BudgetExplanation, show_explained
from constraint_crdt.operations.constraints import (
    NO_SECONDS,
    DisabledReport,
    InstancesReport,
    SecondsReport,
    StagedReport,
    show_disabled,
    show_fields,
    show_instances,
    show_selector,
    show_staging,
    show_verdict,
)
from constraint_crdt.operations.operation import (
    GET,
    SECONDS,
    TEXT,
    Column,
    Command,
    CompositeCommand,
    Empty,
    Flag,
    Lines,
    Operation,
    Parameter,
    Problem,
    Table,
    UsageError,
    View,
    busy,
    not_found,
    number,
    parse_whole,
    show_length,
    show_share,
    show_state,
    show_time,
    show_values,
)

if TYPE_CHECKING:
    from argparse import Namespace

    from constraint_crdt.client.blocking import Client
    from constraint_crdt.runtime.node import Node

Wanted = Literal["all", "live", "majority"] | int
"""The number of nodes to wait for."""

LONGEST_WAIT: Final = 300.0
DEFAULT_WAIT: Final = 30.0
"""Seconds."""

MOST_TOLD: Final = 10
"""Nodes with a sentence on their verdict in an explanation."""

_TOLD: Final = ("violated", "clearing", "pending", "unknown")
"""The states with a sentence, the most severe first."""

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
    """Evidence of a change on a node."""

    node: str
    holds: bool | None
    """null: no evidence, without contact since the start of this node."""
    live: bool
    since: int | None
    """ns since the epoch by this node's clock. With the change: the time of the first evidence. Without: the time at which the
    change became known here. null: before the start of this node, or forgotten."""
    behind: int | None
    """The number of mutations known here, of any kind, without evidence there. null as in `holds`."""


class CoverageReport(msgspec.Struct, frozen=True, kw_only=True):
    """The nodes with a change."""

    id: str | None
    """The constraint; null: all changes of definitions known here."""
    change: str
    """added, expired, removed; or definitions, for all changes."""
    dots: tuple[str, ...]
    """The mutations of the change, as node~incarnation:seq."""
    nodes: tuple[NodeCoverage, ...]
    have: int
    lack: int
    unknown: int
    wanted: int | None = None
    """The number of nodes asked for."""
    met: bool | None = None
    """True if so many nodes have the change."""


class StandingDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """A definition in force, and its mutation. Times in ns since the epoch."""

    dot: str
    """The mutation, as node~incarnation:seq. The constraint is active until its removal or expiry."""
    when: str | None
    severity: str
    about: str | None
    on: dict[str, str]
    added_by: str
    added_at: int | None
    """By the clock of the adding node; null if unknown."""
    known_since: int | None
    """Since when known here, by this node's clock; null: before the start, or forgotten."""
    expires_at: int | None
    expired: bool
    for_: float = msgspec.field(default=0.0, name="for")
    """Seconds, as `clear_after` and `max_age`. Nodes of 0.1.0 have neither these fields nor the next ones."""
    clear_after: float = 0.0
    clear_when: str | None = None
    if_unknown: str = "unknown"
    """The verdict to count for an unknown outcome: unknown, violated, satisfied."""
    max_age: float | None = None
    meaning: int = 0
    """The meaning version of a later version of constraint-crdt, which this node reads as unknown; else 0."""
    scope: str = "node"
    selector: str = ""
    """The nodes concerned, in the syntax of selectors, with the equalities of `on`; empty: all nodes."""
    mode: str = "enforce"
    """The consequence of a violation: audit, warn, enforce."""
    each: str | None = None
    """The label of measurements whose values are the instances of the constraint."""
    actor: str | None = None
    """Who caused the mutation, by the audit of the adding node; null if unknown."""
    why: str = ""
    """The reason that the actor gave."""


class Removal(msgspec.Struct, frozen=True, kw_only=True):
    """A mutation that ended definitions of the constraint: a removal, or an edit."""

    dot: str
    by: str
    ended: tuple[str, ...]
    """The ended additions."""
    known_since: int | None
    held: bool
    """The cell is still stored here. If not, the cell was dropped after all acknowledgements, and only this record is left."""
    actor: str | None = None
    """Who caused the mutation, by the audit of that node; null if unknown."""
    why: str = ""
    """The reason that the actor gave."""


class ViolationReport(msgspec.Struct, frozen=True, kw_only=True):
    """The evaluations of a constraint on a node. Times in ns since the epoch, by this node's clock."""

    node: str
    live: bool
    violated: bool | None
    """As the node told; null: the verdict is unknown, or the node told none."""
    state: str | None = None
    """holds, pending, violated, clearing, unknown, off; null: the node told none, so no violation either, or it runs 0.1."""
    since: int | None
    """The beginning of the state; of a violation, the first violated evaluation. By the clock of that node."""
    values: dict[str, str] = {}
    """The values of the variables at the turn to the state, as texts."""
    margin: float | None = None
    """The signed distance to the threshold at the turn; negative for a violation; null for an expression without a threshold."""
    margin_share: float | None = None
    """The margin as a share of the threshold."""
    margin_variable: str | None = None
    reason: str = ""
    """The reason of an undecided outcome."""
    by_default: bool = False
    """The outcome was undecided, and `if_unknown` gave the verdict."""
    last: int | None
    """The last contact with the node; of this node, now."""
    exact: bool
    """The node told the verdict."""
    satisfied: int
    violations: int
    """Counts since the start of the constraint."""
    violated_per_minute: float
    violated_share: float | None
    """Of the judgements, recently, at the shortest tracked half-life; null without recent judgements."""
    seconds: SecondsReport = NO_SECONDS
    """The time by verdict on the node."""
    held: float | None = None
    """The share of the satisfied and violated time that was satisfied; null without any."""


class RecentRates(msgspec.Struct, frozen=True, kw_only=True):
    """Recent judgements, in the whole fleet."""

    half_life: float
    """Seconds."""
    satisfied_per_minute: float
    violated_per_minute: float
    violated_share: float | None


class FleetJudgement(msgspec.Struct, frozen=True, kw_only=True):
    """How a constraint of scope fleet is judged, as the answering node sees the fleet."""

    nodes: int
    """The nodes that it is about."""
    read: int
    """Those with all readings that it needs."""
    oldest: float | None
    """The age of the oldest reading used, in seconds."""
    basis: str
    """The same in words."""
    counted_by: str
    """The live node that writes the counts of the fleet. In a partition each side has a writer, so they may grow twice as fast."""


class ExplainReport(msgspec.Struct, frozen=True, kw_only=True):
    """The known facts of a constraint."""

    id: str
    active: bool
    conflict: bool
    """Several definitions, different in more than their ends, are in force; all are enforced until an edit."""
    definitions: tuple[StandingDefinition, ...]
    removals: tuple[Removal, ...]
    """The recorded removals, in the order of their arrival here."""
    violations: tuple[ViolationReport, ...]
    """By node, of all nodes with evaluations."""
    lately: tuple[RecentRates, ...]
    coverage: CoverageReport | None
    """The nodes with the last change; null without a recorded change."""
    fleet: FleetJudgement | None = None
    """Null for a constraint that no definition has the scope fleet of, and before it was read here."""
    disabled: DisabledReport | None = None
    """Null for an enabled constraint."""
    staged: StagedReport | None = None
    """Null for a constraint of no active rollout."""
    instances: InstancesReport | None = None
    """Those on the answering node, at most 256; null without a definition with `each`, and before the first judgement."""


class PeerConvergence(msgspec.Struct, frozen=True, kw_only=True):
    """A peer compared to this node. Times in ns since the epoch by this node's clock."""

    node: str
    state: str
    """same: equal clocks. behind: the peer lacks mutations. ahead: the peer has mutations unknown here, and lacks none. apart:
    both. unreachable: not live. reachable: not live here, but heard by a live peer, see `through`. unknown: live without evidence
    of its clock. diverged: equal clocks with different hashes, so either of the two is damaged, and no agreement since."""
    since: int | None
    """Since when; of an unreachable peer the last contact. null: before the start of this node, or unknown."""
    behind: int | None
    """Mutations known here without evidence there; of an unreachable peer as of the last contact."""
    ahead: int | None
    """Mutations with evidence there, unknown here."""
    staleness: float | None
    """Seconds, see the definition in docs/how-to/answers.md; null without evidence."""
    heard: int | None
    """The last contact; null: none since the start of this node."""
    through: str | None = None
    """The live peer that hears the node, of a node that this node does not hear; else null."""


class ConvergenceReport(msgspec.Struct, frozen=True, kw_only=True):
    """The fleet compared to this node."""

    node: str
    peers: tuple[PeerConvergence, ...]
    same: int
    """Live peers with equal clocks."""
    live: int
    """Live peers."""
    staleness_p50: float | None
    """Seconds, over the live peers; null without evidence of any."""
    staleness_p99: float | None


class GetSeries(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /v1/series/{id}`."""

    id: str
    points: int | None = None


class SeriesPoint(msgspec.Struct, frozen=True, kw_only=True):
    """A sample of a constraint on the node that answers."""

    time: int
    """ns since the epoch by its clock."""
    value: float | None
    """The value of the variable of the margin; null for other than a number."""
    limit: float | None
    """The threshold; null where value and margin do not tell it."""
    margin: float | None
    """The signed distance to the threshold; negative for a violation."""


class SpellReport(msgspec.Struct, frozen=True, kw_only=True):
    """A state of a constraint on a node, from its beginning to the next. Times in ns since the epoch by the clock of that node."""

    state: str
    """holds, pending, violated, clearing, unknown, off."""
    since: int
    until: int | None
    """null: as far as is known it lasts."""
    values: dict[str, str]
    """The values of the variables at the turn to the state, as texts."""
    margin: float | None
    reason: str


class NodeSpells(msgspec.Struct, frozen=True, kw_only=True):
    """The states of a constraint on a node, oldest first; the latest 100."""

    node: str
    live: bool
    spells: tuple[SpellReport, ...]


class GetTurns(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /v1/turns`."""

    last: int | None = None


class TurnReport(msgspec.Struct, frozen=True, kw_only=True):
    """The turn of a constraint to another state on a node, as that node told."""

    constraint: str
    node: str
    state: str
    """holds, pending, violated, clearing, unknown, off."""
    since: int
    """In ns since the epoch by the clock of that node; of pending, violated and clearing the first violated look of the spell."""
    values: dict[str, str]
    """The values of the variables at the turn, as texts."""
    margin: float | None
    margin_share: float | None
    margin_variable: str | None
    reason: str


class SeriesReport(msgspec.Struct, frozen=True, kw_only=True):
    """The recent course of a constraint, as far as the node that answers keeps it in memory."""

    id: str
    node: str
    """The node that answers, whose samples these are."""
    variable: str | None
    """The variable of the latest margin."""
    points: tuple[SeriesPoint, ...]
    """Oldest first; the older the coarser. Of samples together, that with the lowest margin."""
    nodes: tuple[NodeSpells, ...]
    """Of each node that told a state other than `holds` since the start, or before."""


# --- coverage ---------------------------------------------------------------------------------------------------------------


class TooManyWaitingError(Problem):
    """Too many requests wait for acknowledgements already (503)."""

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
        raise _unknown(str(id_), node.constraint_ids()) from None


def _unknown(id_: str, known: Iterable[str]) -> Problem:
    return not_found(f"no constraint {id_!r} is active, and no removal of one is remembered here", name=id_, known=known)


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


def _extra_timeout(request: GetFleetCoverage) -> float:
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


def _coverage_of(client: "Client", flags: "Namespace") -> CoverageReport:
    return client.fleet_coverage() if flags.id is None else client.coverage(flags.id)


def show_coverage(answer: CoverageReport, _: "Namespace") -> View:
    """A sentence on the change, and a row for each node."""
    now = time.time()
    what = {
        "added": f"{answer.id}: active",
        "expired": f"{answer.id}: expired",
        "removed": f"{answer.id}: removed",
        "definitions": "all changes of constraints",
    }[answer.change]
    unknown = f"; of {answer.unknown} there is no evidence" if answer.unknown else ""
    columns = [Column("node"), Column("holds it"), Column("since"), Column("live"), Column("behind", right=True)]
    rows = [
        [
            each.node,
            {True: "yes", False: "NO", None: "no evidence"}[each.holds],
            show_time(each.since, now),
            "yes" if each.live else "no",
            "-" if each.behind is None else each.behind,
        ]
        for each in answer.nodes
    ]
    return [f"{what}; {acknowledged_by(answer)}, {answer.lack} lack it{unknown}", Table(columns, rows)]


def acknowledged_by(answer: CoverageReport) -> str:
    """The number of nodes with the change, as a sentence."""
    return f"{answer.have} of {counted(len(answer.nodes), 'node', 'has', 'have')} it"


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
    extra_timeout=_extra_timeout,
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
    extra_timeout=_extra_timeout,
    command=CompositeCommand(
        name="coverage",
        example="coverage max_speed",
        help="which nodes have heard of a change, and which have not",
        group="constraints",
        options={"id": Flag(nargs="?", metavar="ID", help="the constraint; default: all changes of constraints")},
        call=_coverage_of,
        show=show_coverage,
    ),
)

# --- explain and convergence ------------------------------------------------------------------------------------------------


async def _explain(node: "Node", request: ExplainConstraint) -> ExplainReport:
    try:
        return node.explanations.report(request.id)
    except KeyError:
        raise _unknown(request.id, [*node.constraint_ids(), *node.gossip.escrow.budgets]) from None


def show_explain(answer: ExplainReport, _: ExplainConstraint, __: "Namespace") -> View:
    """Its state, definitions, removals, rates and coverage, and a row for each node."""
    now = time.time()
    lines: list[tuple[str, object]] = []
    for each in answer.definitions:
        lines += _definition(each, now)
    if answer.disabled is not None:
        lines.append(("evaluated", f"nowhere: {show_disabled(answer.disabled, now)}"))
    if answer.staged is not None:
        lines.append(("staged", show_staging(answer.staged)))
    lines += [("removal", _removal(each, now)) for each in answer.removals]
    lines += [("rate", _rate(each)) for each in answer.lately]
    if answer.coverage is not None:
        lines.append(("heard by", _heard_by(answer.coverage)))
    if answer.fleet is not None:
        lines.append(("rests on", answer.fleet.basis))
        lines.append(
            ("counted by", f"{answer.fleet.counted_by} alone, while it is live; in a partition one node on each side counts")
        )
    if answer.instances is not None:
        lines.append(("instances", f"here {show_instances(answer.instances)}"))
    view: list[str | Table | Lines] = [f"{answer.id}: {_state(answer)}", Lines(lines)]
    if answer.instances is not None and answer.instances.worst:
        view.append(_instances(answer.instances, answer, now))
    if answer.violations:
        view += [*_verdicts(answer, now), _violations(answer, now)]
    return view


def _explained(client: "Client", flags: "Namespace") -> ExplainReport | BudgetExplanation:
    words: list[str] = flags.id
    if len(words) == 2 and words[0] == "budget":
        return client.explain_budget(words[1])
    if len(words) > 1:
        raise UsageError("explain takes one constraint or budget, or `budget` and its name")
    try:
        return client.explain(words[0])
    except KeyError:  # the node knows no such constraint
        if not any(each.name == words[0] for each in client.budgets()):
            other = _other_thing(client, words[0])
            if other is None:
                raise
            raise ConstraintCrdtError(f"{words[0]!r} is no constraint and no budget, but {other}") from None
    return client.explain_budget(words[0])


def _other_thing(client: "Client", name: str) -> str | None:
    """The kind of the thing with this name, and the command for it."""
    for tile in client.tiles():
        if name in (tile.id, f"{tile.room}/{tile.id}"):
            command = shlex.join(["constraint-crdt", "tile", "get", tile.room, tile.id])
            return f"a tile of the room {tile.room}: `{command}`"
    word = shlex.quote(name)
    found = (
        ("a node", f"nodes` and `constraint-crdt events --of {word}", (each.node for each in client.nodes())),
        ("a parameter", f"params {word}", (each.name for each in client.parameters())),
        ("a variable", f"variables` and `constraint-crdt readings {word}", (each.name for each in client.variables())),
        ("a counter", f"counter {word}", (each.name for each in client.counters())),
        ("an alert rule", "alerts", (each.name for each in client.alerts().rules)),
    )
    return next((f"{sort}: `constraint-crdt {command}`" for sort, command, names in found if name in names), None)


def show_explanation(answer: ExplainReport | BudgetExplanation, flags: "Namespace") -> View:
    """All about a constraint or a budget."""
    if isinstance(answer, BudgetExplanation):
        return show_explained(answer)
    return show_explain(answer, ExplainConstraint(id=answer.id), flags)


MOST_EXPLAINED: Final = 256
"""Instances in an explanation."""

SHOWN_INSTANCES: Final = 20
"""Instances in the table of the command."""


def _instances(found: InstancesReport, answer: ExplainReport, now: float) -> Table:
    """A row for each instance on the answering node, the worst first."""
    columns = [Column(found.label), Column("now"), Column("since"), Column("values"), Column("reason")]
    first = answer.definitions[0] if answer.definitions else None
    times = (0.0, 0.0) if first is None else (first.for_, first.clear_after)
    rows: list[list[object]] = [
        [
            each.instance,
            show_state(each.state, each.since, now, for_=times[0], clear_after=times[1]),
            show_time(each.since, now),
            show_values(each.values, each.margin, each.margin_share, each.margin_variable) or "-",
            each.reason or ("by default" if each.by_default else "-"),
        ]
        for each in found.worst[:SHOWN_INSTANCES]
    ]
    if found.total > SHOWN_INSTANCES:
        rows.append([f"and {found.total - SHOWN_INSTANCES} more", "", "", "", ""])
    return Table(columns, rows)


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
    labels = show_selector(each)
    ends = "" if each.expires_at is None else f"; {'ended' if each.expired else 'ends'} {show_time(each.expires_at, now)}"
    added = "at an unknown time" if each.added_at is None else show_time(each.added_at, now)
    lines: list[tuple[str, object]] = [
        ("definition", f"{text} ({each.severity}{f', on {labels}' if labels else ''}){ends}"),
        ("added by", f"{_by(each.actor, each.added_by)}, {added}{_known(each.known_since, now)}; kept alive by {each.dot}"),
        *([("because", each.why)] if each.why else []),
    ]
    lines += show_fields(each).items()
    return [*lines, ("about", each.about)] if each.about else lines


def _by(actor: str | None, node: str) -> str:
    return node if actor is None else f"{actor} on {node}"


def _removal(each: Removal, now: float) -> str:
    state = "" if each.held else "; forgotten since, as all live nodes have heard of it or it was kept long enough"
    why = f": {each.why}" if each.why else ""
    return f"by {_by(each.actor, each.by)} ({each.dot}){_known(each.known_since, now)}, of {', '.join(each.ended)}{state}{why}"


def _known(since: int | None, now: float) -> str:
    return ", known here since before the node started" if since is None else f", known here {show_time(since, now)}"


def _rate(each: RecentRates) -> str:
    if each.violated_share is None:
        return f"nothing was judged (half-life {each.half_life:g} s)"
    share = f"{100 * each.violated_share:.2f} % of the judgements violated"
    counts = f"{each.violated_per_minute:.2f} violated and {each.satisfied_per_minute:.2f} satisfied a minute"
    return f"{share}, {counts} (half-life {each.half_life:g} s)"


def _heard_by(report: CoverageReport) -> str:
    lacking = [each.node for each in report.nodes if each.holds is False]
    unknown = [each.node for each in report.nodes if each.holds is None]
    told = f"{report.have} of {counted(len(report.nodes), 'node')}"
    told += f"; not by {', '.join(lacking)}" if lacking else ""
    return told + (f"; no evidence of {', '.join(unknown)}" if unknown else "")


def _verdicts(answer: ExplainReport, now: float) -> list[str]:
    """A sentence for each node with another state than `holds`, and the longest violated first."""
    found = [each for each in answer.violations if each.state in _TOLD]
    found.sort(key=lambda each: (_TOLD.index(each.state or ""), each.since or 0, each.node))
    sentences = [
        f"{'' if each.live else 'when last heard '}{each.state} on {show_verdict(each, now)}{_held_by(each, answer)}"
        for each in found[:MOST_TOLD]
    ]
    return [*sentences, f"and on {counted(len(found) - MOST_TOLD, 'more node')}"] if len(found) > MOST_TOLD else sentences


def _held_by(each: ViolationReport, answer: ExplainReport) -> str:
    """The reason of a violation at values within the limit: hysteresis."""
    within = each.state == "violated" and not each.reason and (each.margin or 0.0) > 0.0
    return "; `clear_when` does not hold" if within and any(found.clear_when for found in answer.definitions) else ""


def _violations(answer: ExplainReport, now: float) -> Table:
    """A row for each node: the state, the counts of judgements, and the share of the time."""
    columns = [Column("node"), Column("now"), Column("since"), Column("live")]
    titles = ("judged satisfied", "judged violated", "violated/min", "held of the time")
    columns += [Column(title, right=True) for title in titles]
    first = answer.definitions[0] if answer.definitions else None
    rows = [
        [
            each.node,
            _now(each, first, now),
            show_time(each.since, now),
            "yes" if each.live else "no",
            each.satisfied,
            each.violations,
            f"{each.violated_per_minute:.2f}",
            show_share(each.held),
        ]
        for each in answer.violations
    ]
    return Table(columns, rows)


def _now(each: ViolationReport, definition: StandingDefinition | None, now: float) -> str:
    """The state of a live node; of another node the last state that it told, which its measurements may have left since."""
    if each.state is None:
        state = {True: "violated", False: "holds", None: "not told"}[each.violated]
    else:
        times = (0.0, 0.0) if definition is None else (definition.for_, definition.clear_after)
        state = show_state(each.state, each.since, now, for_=times[0], clear_after=times[1])
    if each.live or state == "not told":
        return state
    return f"not known; {state} when last heard" + ("" if each.last is None else f", {show_time(each.last, now)}")


EXPLAIN: Final = Operation(
    name="explain",
    method=GET,
    path="/v1/explain/{id:any_text}",
    summary="Why a constraint is as it is.",
    request=ExplainConstraint,
    response=ExplainReport,
    run=_explain,
    command=CompositeCommand(
        name="explain",
        example="explain max_speed",
        help="who, when, why, where violated: all about a constraint; or who holds a budget, and why an acquire would wait",
        group="constraints",
        options={"id": Flag(nargs="+", metavar="ID", help="a constraint or a budget; `budget NAME` for a budget of such a name")},
        call=_explained,
        show=show_explanation,
    ),
)


MOST_POINTS: Final = 1000
DEFAULT_POINTS: Final = 300
"""Samples in a series, unless fewer or more are asked for."""


async def _series(node: "Node", request: GetSeries) -> SeriesReport:
    try:
        return node.verdict_history.report(request.id, request.points or DEFAULT_POINTS)
    except KeyError:
        detail = f"no constraint {request.id!r} is active, and nothing is remembered of its course here"
        raise not_found(detail, name=request.id, known=node.constraint_ids()) from None


def _parse_points(text: str) -> int:
    points = int(text) if re.fullmatch("[0-9]{1,4}", text, re.ASCII) else 0
    if not 1 <= points <= MOST_POINTS:
        raise ValueError(f": {text!r} is not a number of samples from 1 to {MOST_POINTS}")
    return points


def show_series(answer: SeriesReport, _: GetSeries, __: "Namespace") -> "list[str | Table | Lines]":
    """A sentence on the samples, and a row for each spell, the latest first."""
    now = time.time()
    view: list[str | Table | Lines] = [_sampled(answer)]
    spells = sorted(((spell, each.node) for each in answer.nodes for spell in each.spells), key=lambda each: -each[0].since)
    if spells:
        columns = [Column(title) for title in ("node", "state", "since", "for", "values at the turn")]
        rows = [[node, each.state, show_time(each.since, now), _lasted(each, now), _told_values(each)] for each, node in spells]
        view.append(Table(columns, rows))
    return view


def _sampled(answer: SeriesReport) -> str:
    known = [each.margin for each in answer.points if each.margin is not None]
    if not known:
        return f"{answer.id}: no margin was sampled on {answer.node}"
    first = show_time(answer.points[0].time, time.time())
    return f"{answer.id}: margin of {answer.variable} on {answer.node} since {first}: lowest {min(known):.4g}, now {known[-1]:.4g}"


def _lasted(each: SpellReport, now: float) -> str:
    return show_length(max(0.0, (now if each.until is None else each.until / SECOND) - each.since / SECOND))


def _told_values(each: SpellReport) -> str:
    values = ", ".join(f"{name} = {text}" for name, text in each.values.items())
    return "; ".join(part for part in (values, each.reason) if part) or "-"


SERIES: Final = Operation(
    name="series",
    method=GET,
    path="/v1/series/{id:any_text}",
    summary="The recent course of a constraint.",
    about="The recent course of a constraint: margins on the node that answers, sampled, and the states told by every node.",
    request=GetSeries,
    response=SeriesReport,
    run=_series,
    parameters=(
        Parameter(
            name="points",
            about="samples at most",
            schema={"type": "integer", "minimum": 1, "maximum": MOST_POINTS, "default": DEFAULT_POINTS},
            parse=_parse_points,
        ),
    ),
    command=Command(
        name="series",
        example="series max_speed",
        help="the recent course of a constraint: its margin, and when it was violated where",
        group="constraints",
        flags={"id": Flag(metavar="ID")},
        show=show_series,
    ),
)


MOST_TURNS: Final = 500
DEFAULT_TURNS: Final = 100


async def _turns(node: "Node", request: GetTurns) -> list[TurnReport]:
    return node.verdict_history.latest(request.last or DEFAULT_TURNS)


TURNS: Final = Operation(
    name="turns",
    method=GET,
    path="/v1/turns",
    summary="The latest turns of constraints on all nodes.",
    about="The latest turns of constraints to another state on all nodes, of those that the node has in memory; the newest last.",
    request=GetTurns,
    response=list[TurnReport],
    run=_turns,
    parameters=(
        Parameter(
            name="last",
            about="turns at most",
            schema={"type": "integer", "minimum": 1, "maximum": MOST_TURNS, "default": DEFAULT_TURNS},
            parse=parse_whole(1, MOST_TURNS),
        ),
    ),
)


async def _convergence(node: "Node", _: Empty) -> ConvergenceReport:
    return node.convergence.report()


def standing(convergence: PeerConvergence | None, now: float) -> tuple[object, object, object]:
    """The state of a node, its beginning, and the number of changes that the node is behind."""
    if convergence is None:
        return "-", "-", "-"
    state = convergence.state if convergence.through is None else f"{convergence.state} through {convergence.through}"
    return state, show_time(convergence.since, now), _or_dash(convergence.behind)


def _or_dash(value: int | None) -> object:
    return "-" if value is None else value


def show_convergence(answer: ConvergenceReport, _: Empty, __: "Namespace") -> View:
    """A sentence on the fleet, and a row for each peer."""
    now = time.time()
    stale = f"p50 {_shown_seconds(answer.staleness_p50)}, p99 {_shown_seconds(answer.staleness_p99)}"
    columns = [Column("node"), Column("state"), Column("since")]
    columns += [Column(name, right=True) for name in ("behind", "ahead", "stale")]
    rows = [[each.node, *standing(each, now), _or_dash(each.ahead), _shown_seconds(each.staleness)] for each in answer.peers]
    return [
        f"{answer.same} of {counted(answer.live, 'live peer', 'has', 'have')} the same as {answer.node}; staleness {stale}",
        Table(columns, rows),
    ]


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
        name="convergence",
        example="convergence",
        help="how each node stands to this one, and since when",
        group="fleet",
        show=show_convergence,
    ),
)
