"""The operations on evaluations: record, check and measure them, and how often constraints held and were violated lately.
Those with approximate answers: the most frequent items, how often items occurred, and which were ever seen.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from constraint_crdt.crdt.limits import DURATION_MAX, HALF_LIFE_MIN
from constraint_crdt.errors import InvalidType
from constraint_crdt.operations.constraints import NO_SECONDS, SecondsReport, ViolatedNode, inactive
from constraint_crdt.operations.operation import (
    AFTER,
    GET,
    PAGED,
    POST,
    TEXT,
    Body,
    Column,
    Command,
    CompositeCommand,
    Empty,
    Flag,
    Freshness,
    Operation,
    Paged,
    Parameter,
    Problem,
    Reply,
    Right,
    Table,
    UsageError,
    View,
    in_field,
    limit,
    not_found,
    number,
    parse_count,
    parse_duration,
    parse_measurements,
    parse_share,
    show_duration,
    show_values,
    wrong,
)

if TYPE_CHECKING:
    from argparse import Namespace

    from constraint_crdt.client.blocking import Client
    from constraint_crdt.expression.evaluation import Evaluation
    from constraint_crdt.runtime.node import Node


OVERVIEW_PAGE: Final = 250
"""Constraints in an overview, unless fewer or more are asked for."""

LARGEST_OVERVIEW: Final = 1000
MOST_IDS: Final = 100
"""Constraints per overview by id."""

# --- requests ---------------------------------------------------------------------------------------------------------------


class Counted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/record`."""

    satisfied: int = 0
    violations: int = 0
    constraint: str | None = None


class Given(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/check`: values of any kind. An unusable value makes a constraint unknown."""

    values: Mapping[str, object]


class Measured(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/measure`."""

    values: Mapping[str, object]


class GetOverview(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /v1/overview`."""

    id: tuple[str, ...] = ()
    after: str | None = None
    limit: int | None = None
    node: str | None = None


class GetUrgent(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /v1/urgent`."""

    after: str | None = None
    limit: int | None = None
    node: str | None = None


class GetRates(Paged, frozen=True, kw_only=True):
    """`GET /v1/rates`."""

    half_life: float | None = None
    constraint: str | None = None
    node: str | None = None


# --- responses --------------------------------------------------------------------------------------------------------------


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """Evaluations made elsewhere were counted."""

    satisfied: int
    violations: int
    constraint: str | None


class Evaluated(msgspec.Struct, frozen=True, kw_only=True):
    """The result of an evaluation."""

    constraint: str
    verdict: str
    """satisfied, violated, unknown."""
    reason: str
    """The reason of an unknown verdict."""
    state: str | None = None
    """holds, pending, violated, clearing, unknown. Nodes of 0.1.0 have neither this field nor the next ones."""
    by_default: bool = False
    """The outcome was undecided, and `if_unknown` gave the verdict."""
    margin: float | None = None
    """The signed distance to the threshold; negative for a violation; null for an expression without a threshold."""
    margin_share: float | None = None
    """The margin as a share of the threshold."""
    margin_variable: str | None = None


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """The constraints with a `when` were evaluated and counted."""

    evaluations: tuple[Evaluated, ...]


class Nothing(msgspec.Struct, frozen=True, kw_only=True):
    """Done, without a result."""


class ConstraintOverview(msgspec.Struct, frozen=True, kw_only=True):
    """An active constraint at a glance. Of several definitions, that of the highest severity."""

    id: str
    when: str | None
    severity: str
    about: str | None
    on: dict[str, str]
    added_by: str
    added_at: int | None
    """ns since the epoch by the clock of the adding node; null if unknown."""
    expires_at: int | None
    """The end of the last definition, ns since the epoch; null for a definition without an end."""
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
    applies_here: bool
    definitions: int
    """The number of different definitions in force: several are a conflict."""
    satisfied: int
    violations: int
    verdict: str | None
    """The last evaluation of this node: satisfied, violated, unknown; null before the first."""
    reason: str
    lately: tuple[tuple[float, float], ...]
    """The decayed judgements of all nodes, (satisfied, violated), at each half-life of the report."""
    evaluated_on: int
    """Nodes with recent judgements."""
    violated_now: int
    """Nodes with a violation now, as the nodes told."""
    violated_since: int | None
    """The beginning of the first such violation, ns since the epoch by this node's clock; null without any."""
    violated_on: int
    """Nodes with recent violations, or a violation now."""
    worst: tuple[str, ...]
    """Three of these: nodes with a violation now first, then by recent violations."""
    longest: tuple[ViolatedNode, ...] = ()
    """Three of the nodes with a violation now, the longest violated first; without any, of the nodes where it is unknown."""
    unknown_now: int = 0
    """Nodes that told an unknown verdict."""
    state: str | None = None
    """The verdict state on this node: holds, pending, violated, clearing, unknown, off, disabled; null before the first judgement.
    Nodes of 0.1.0 have neither this field nor the next ones."""
    since: int | None = None
    """The beginning of the state, in ns since the epoch; of pending, violated and clearing, the first violated evaluation."""
    by_default: bool = False
    """The outcome was undecided, and `if_unknown` gave the verdict."""
    seconds: SecondsReport = NO_SECONDS
    """The time by verdict, over all nodes."""
    held: float | None = None
    """The share of the satisfied and violated time that was satisfied; null without any."""
    covered: tuple[int, int, int] | None
    """The number of nodes with all definitions (this node included), with some missing, and without evidence; null in a page."""


class OverviewReport(msgspec.Struct, frozen=True, kw_only=True):
    """A page of constraints, ordered by id."""

    half_lives: tuple[float, ...]
    """Seconds, shortest first."""
    total: int
    """The number of active constraints."""
    next: str | None
    """Ask for the page after this id; null on the last."""
    constraints: tuple[ConstraintOverview, ...]


class LatelyReport(msgspec.Struct, frozen=True, kw_only=True):
    """The decayed judgements of each node, all constraints together, at the shortest half-life."""

    half_life: float
    by_node: dict[str, tuple[float, float]]
    """(satisfied, violated)."""


class NodeRate(msgspec.Struct, frozen=True, kw_only=True):
    """The decayed judgements of a node."""

    satisfied: float
    violated: float
    violated_share: float | None
    """Violated over all; None without judgements."""


class ConstraintRate(msgspec.Struct, frozen=True, kw_only=True):
    """The decayed judgements of a constraint."""

    constraint: str | None
    """None: without a constraint, or the total of all."""
    satisfied: float
    violated: float
    violated_share: float | None
    satisfied_per_minute: float
    """The pace of judgements at which the sum stays constant."""
    violated_per_minute: float
    by_node: dict[str, NodeRate]


class RatesReport(msgspec.Struct, frozen=True, kw_only=True):
    """Recent judgements at a half-life, as of now."""

    half_life: float
    """Seconds."""
    tracked: tuple[float, ...]
    """The half-lives tracked by this node."""
    total: ConstraintRate
    constraints: tuple[ConstraintRate, ...]
    untracked_by: tuple[str, ...]
    """Nodes with missing judgements, since they did not track this half-life."""
    ahead: int
    """Cells with a time beyond the tolerated skew ahead of this node's clock. They count as of their arrival."""
    worst_skew: float
    """Seconds: the largest lead of a cell at its arrival."""
    steps_back: int
    """Detected steps back of this node's clock."""


VALUES: Final = Flag(nargs="+", metavar="VAR=VALUE", help="a number, true, false, or else a text", convert=parse_measurements)
"""The values of a command."""

# --- record, check, measure -------------------------------------------------------------------------------------------------


async def _record(node: "Node", request: Counted) -> Recorded:
    for field, count in (("satisfied", request.satisfied), ("violations", request.violations)):
        if count < 0:
            raise wrong(f"`{field}`: counts only grow, so it cannot be negative", field)
    try:
        await node.record(request.satisfied, request.violations, constraint=request.constraint)
    except KeyError:
        raise inactive(request.constraint or "", node.constraint_ids(), "constraint") from None
    return Recorded(satisfied=request.satisfied, violations=request.violations, constraint=request.constraint)


def record_counts(
    satisfied: int = 0, violated: int = 0, *, constraint: str | None = None, violations: int | None = None
) -> Counted:
    """The request of `record`. `violations`: the name of `violated` in 0.1.0, instead of `violated`."""
    return Counted(satisfied=satisfied, violations=single_violated(violated, violations), constraint=constraint)


def single_violated(violated: int, violations: int | None) -> int:
    """The number that was given under either name. Raises `TypeError` for both names: a number would be lost."""
    if violations is None:
        return violated
    if violated:
        raise InvalidType("`violations` is the former name of `violated`: give a single number, as `violated`")
    return violations


def _recorded(_: Recorded, request: Counted, __: "Namespace") -> str:
    of = "" if request.constraint is None else f" of {request.constraint}"
    return f"recorded {request.satisfied} satisfied, {request.violations} violated{of}"


def _check_recorded(request: Counted) -> None:
    if request.satisfied == request.violations == 0:
        raise UsageError("there is nothing to record: give --satisfied N, --violations N or both")


RECORD: Final = Operation(
    name="record",
    method=POST,
    path="/v1/record",
    right=Right.MEASURE,
    summary="Count evaluations made elsewhere.",
    request=Counted,
    response=Recorded,
    run=_record,
    build=record_counts,
    body=Body(shape=Counted),
    errors=frozenset({404}),
    positional=("satisfied", "violations"),
    command=Command(
        name="record",
        example="record --constraint max_speed --satisfied 100",
        help="count evaluations that were made elsewhere",
        group="constraints",
        flags={
            "satisfied": Flag("--satisfied", type=parse_count, default=0, metavar="N"),
            "violations": Flag("--violations", type=parse_count, default=0, metavar="N"),
            "constraint": Flag("--constraint", metavar="ID", help="the constraint that was evaluated; default: none in particular"),
        },
        check=_check_recorded,
        show=_recorded,
    ),
)


async def _check(node: "Node", request: Given) -> Checked:
    found = await node.check(request.values)
    return Checked(evaluations=tuple(map(_evaluated, found)))


def _evaluated(each: "Evaluation") -> Evaluated:
    return Evaluated(
        constraint=each.constraint,
        verdict=each.verdict.value,
        reason=each.reason,
        state=each.state.value,
        by_default=each.by_default,
        margin=each.margin,
        margin_share=each.margin_share,
        margin_variable=each.margin_variable,
    )


def show_evaluations(found: Checked, request: Given) -> str | Table:
    """A row for each constraint with its verdict."""
    if not found.evaluations:
        return "nothing to evaluate: no active constraint has a `when`"
    columns = [Column("constraint"), Column("verdict"), Column("state"), Column("margin"), Column("reason")]
    return Table(columns, [_line(each, request.values) for each in found.evaluations])


def _line(each: Evaluated, values: Mapping[str, object]) -> list[object]:
    """A row of `check`. `values`: those given."""
    variable = each.margin_variable
    given = {} if variable is None or variable not in values else {variable: str(values[variable])}
    margin = "-" if each.margin is None else show_values(given, each.margin, each.margin_share, variable)
    return [each.constraint, each.verdict + (" by default" if each.by_default else ""), each.state or "-", margin, each.reason]


CHECK: Final = Operation(
    name="check",
    method=POST,
    path="/v1/check",
    right=Right.MEASURE,
    summary="Evaluate the constraints now, and count it.",
    about="Evaluate the constraints now against these values and the latest measurements, and count the results.",
    request=Given,
    response=Checked,
    run=_check,
    body=Body(shape=Given),
    positional=("values",),
    command=Command(
        name="check",
        example="check speed_mps=1.2",
        help="evaluate the constraints against values now, and count it",
        group="constraints",
        flags={
            "values": Flag(
                nargs="*",
                metavar="VAR=VALUE",
                help="a number, true, false, or else a text; others count as they were measured last",
                convert=parse_measurements,
            ),
        },
        options={
            "exit_code": Flag(
                "--exit-code",
                action="store_true",
                help="end with 121 if an enforced constraint is violated, else with 122 if it cannot be decided, for scripts",
            )
        },
    ),
)


def show_measured(_: Nothing, request: Measured, __: "Namespace") -> str:
    """The values taken in."""
    return f"measured: {', '.join(f'{name} = {value}' for name, value in request.values.items())}"


async def _measure(node: "Node", request: Measured) -> Nothing:
    await node.measure(request.values)
    return Nothing()


MEASURE: Final = Operation(
    name="measure",
    method=POST,
    path="/v1/measure",
    right=Right.MEASURE,
    summary="Take measurements in.",
    about="Take measurements in. A value counts for the max_age of a definition, else the variable's, else the node's.",
    request=Measured,
    response=Nothing,
    run=_measure,
    body=Body(shape=Measured),
    positional=("values",),
    command=Command(
        name="measure",
        example="measure speed_mps=1.2 mode=auto",
        help="have the node take in values as measured now; they count as long as their max_age says",
        group="constraints",
        flags={"values": VALUES},
        show=show_measured,
    ),
)

# --- overview, lately, rates ------------------------------------------------------------------------------------------------


async def _overview(node: "Node", request: GetOverview) -> OverviewReport:
    ids = request.id
    if not ids:
        most = OVERVIEW_PAGE if request.limit is None else request.limit
        return node.overview.page(request.after, most, request.node)
    if len(ids) > MOST_IDS:
        raise wrong(f"`id`: ask for at most {MOST_IDS} constraints at once, not {len(ids)}", "id")
    if request.after is not None or request.limit is not None or request.node is not None:
        raise wrong("`id`: constraints are asked for by id or by page, so leave out the other parameters", "id")
    return node.overview.of(ids)


def overview_page(*, after: str | None = None, limit: int | None = None, node: str | None = None) -> GetOverview:
    """The request of the clients' `overview`: a page."""
    return GetOverview(after=after, limit=limit, node=node)


OVERVIEW: Final = Operation(
    name="overview",
    method=GET,
    path="/v1/overview",
    summary="The constraints at a glance, a page at a time.",
    about="The constraints at a glance, a page at a time.",
    request=GetOverview,
    response=OverviewReport,
    run=_overview,
    parameters=(
        Parameter(
            name="id",
            about="these constraints, instead of a page and with no other parameter; says who has heard of them",
            schema={"type": "array", "items": TEXT, "maxItems": MOST_IDS},
            many=True,
        ),
        AFTER,
        limit(LARGEST_OVERVIEW, OVERVIEW_PAGE),
        Parameter(name="node", about="only those that this node evaluated lately"),
    ),
    freshness=Freshness.AGING,
    build=overview_page,
)


async def _urgent(node: "Node", request: GetUrgent) -> OverviewReport:
    most = OVERVIEW_PAGE if request.limit is None else request.limit
    return node.overview.page(request.after, most, request.node, urgent=True)


URGENT: Final = Operation(
    name="urgent",
    method=GET,
    path="/v1/urgent",
    summary="The constraints that are violated or unknown now.",
    about="The constraints at a glance that a node tells as violated or unknown now, a page at a time. As `overview`.",
    request=GetUrgent,
    response=OverviewReport,
    run=_urgent,
    parameters=(
        AFTER,
        limit(LARGEST_OVERVIEW, OVERVIEW_PAGE),
        Parameter(name="node", about="only those violated or unknown on this node"),
    ),
    freshness=Freshness.AGING,
)


async def _lately(node: "Node", _: Empty) -> LatelyReport:
    return node.overview.lately()


LATELY: Final = Operation(
    name="lately",
    method=GET,
    path="/v1/lately",
    summary="What is left of the evaluations of each node.",
    about="The decaying counts of judgements, per node.",
    request=Empty,
    response=LatelyReport,
    run=_lately,
    freshness=Freshness.AGING,
)


async def _rates(node: "Node", request: GetRates) -> Reply[RatesReport]:
    constraint, name = request.constraint, request.node
    if constraint is not None and not node.rates.knows_constraint(constraint):
        detail = f"no constraint {constraint!r} is active, and none of that id was evaluated"
        raise not_found(detail, "constraint", name=constraint, known=node.constraint_ids())
    if name is not None and not node.rates.knows_node(name):
        raise not_found(f"no node {name!r} ever wrote, as far as is known here", "node", name=name, known=node.node_names())
    with in_field("half_life"):
        report = node.rates.report(request.half_life, constraint, name)
    listed = [each for each in report.constraints if request.after is None or (each.constraint or "") > request.after]
    last = listed[request.most - 1].constraint or "" if request.most < len(listed) else None
    return Reply(msgspec.structs.replace(report, constraints=tuple(listed[: request.most])), next_after=last)


def _seconds(text: str) -> float:
    found = number(text)
    if found is None:
        raise ValueError(f": {text!r} is not a number of seconds")
    return found


def _joined(pages: list[RatesReport]) -> RatesReport:
    return msgspec.structs.replace(pages[0], constraints=tuple(each for page in pages for each in page.constraints))


def show_rates(answer: RatesReport, request: GetRates, arguments: "Namespace") -> View:
    """A row for each constraint, or for each of its nodes, and notes on clocks and half-lives.

    The last row is the total, unless the request names a constraint.
    """
    by_node: bool = arguments.by_node
    named = [(each.constraint or "none in particular", each) for each in answer.constraints]
    if request.constraint is None:
        named.append(("all", answer.total))
    titles = ("satisfied", "violated", "violated share", "satisfied/min", "violated/min")
    columns = [Column("constraint"), *([Column("node")] if by_node else [])]
    columns += [Column(title, right=True) for title in titles if not by_node or "/" not in title]
    rows: list[list[object]] = []
    for name, each in named:
        if by_node:
            rows += [[name, node, *_amounts(rate)] for node, rate in each.by_node.items()]
        else:
            rows.append([name, *_amounts(each), f"{each.satisfied_per_minute:.2f}", f"{each.violated_per_minute:.2f}"])
    head = f"recent judgements, where one counts half after {show_duration(answer.half_life)}"
    return [head, Table(columns, rows), *_notes(answer)]


def _amounts(rate: ConstraintRate | NodeRate) -> list[str]:
    share = rate.violated_share
    return [f"{rate.satisfied:.2f}", f"{rate.violated:.2f}", "-" if share is None else f"{100 * share:.2f} %"]


def _notes(answer: RatesReport) -> list[str]:
    """Conditions under which the rates are not exact."""
    notes = []
    if answer.untracked_by:
        notes.append(f"without some of {', '.join(answer.untracked_by)}: this half-life is not tracked there")
    if answer.ahead:
        notes.append(
            f"values from clocks ahead of this one: {answer.ahead}, by up to {answer.worst_skew:.0f} s; "
            "they count as of when they arrived"
        )
    if answer.steps_back:
        notes.append(f"times that the clock of this node was set back: {answer.steps_back}; no time counts as passed then")
    return notes


RATES: Final = Operation(
    name="rates",
    method=GET,
    path="/v1/rates",
    summary="How often constraints held and were violated lately.",
    about="How often constraints held and were violated lately. `half_life` in seconds, as tracked by the node.",
    request=GetRates,
    response=RatesReport,
    run=_rates,
    parameters=(
        Parameter(
            name="half_life",
            about="seconds, one of those tracked; without: the shortest",
            schema={"type": "number", "minimum": HALF_LIFE_MIN, "maximum": DURATION_MAX},
            parse=_seconds,
        ),
        Parameter(name="constraint", about="only this constraint"),
        Parameter(name="node", about="only this node"),
        *PAGED,
    ),
    errors=frozenset({404}),
    freshness=Freshness.AGING,
    join=_joined,
    command=Command(
        name="rate",
        example="rate max_speed --half-life 5m",
        help="the recent rates of satisfied and violated judgements",
        group="constraints",
        flags={
            "constraint": Flag(nargs="?", metavar="ID", help="the constraint; default: all"),
            "half_life": Flag(
                "--half-life",
                metavar="TIME",
                convert=parse_duration,
                help="after which a judgement counts half, as in 5m; default: the shortest that is tracked",
            ),
            "node": None,
        },
        options={"by_node": Flag("--by-node", action="store_true", help="a line for each node")},
        show=show_rates,
    ),
)


VIOLATIONS: Final = "violations"
"""The sketch written by nodes themselves: violations by constraint."""

MAX_ITEMS: Final = 10_000
"""Per call. So many block the node for some hundredths of a second."""

MAX_TOP: Final = 1000
DEFAULT_TOP: Final = 10

# --- requests ---------------------------------------------------------------------------------------------------------------


class GetTop(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /v1/top`."""

    k: int = DEFAULT_TOP
    of: str | None = None
    """None: `VIOLATIONS`."""


class Tallied(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/sketches/{name}`."""

    items: Mapping[str, int]


class CountItems(Tallied, frozen=True, kw_only=True):
    """Items, and their sketch."""

    name: str


class LookUpItem(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /v1/seen/{name}`."""

    name: str
    item: str


class Inserted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/seen/{name}`. The last two are for the first insertion, or equal to those of the filter."""

    items: Sequence[str]
    expected_items: int | None = None
    fp_rate: float | None = None


class InsertItems(Inserted, frozen=True, kw_only=True):
    """Items, and their filter."""

    name: str


# --- responses --------------------------------------------------------------------------------------------------------------


class TopItem(msgspec.Struct, frozen=True, kw_only=True):
    """A frequent item."""

    item: str
    estimate: int
    lower: int
    """Not above the truth, with the probability of the sketch."""
    upper: int | None
    """Never below the truth, so equal to the estimate; None if the sketch is saturated."""
    share: float
    exact: int | None
    """Of the violations of an active constraint: their exact count."""


class TopReport(msgspec.Struct, frozen=True, kw_only=True):
    """The most frequent items of a sketch."""

    of: str
    total: int
    error_bound: float
    """The largest excess of an estimate, but for a share `delta` of the items."""
    delta: float
    saturated: bool
    writers: int
    items: tuple[TopItem, ...]


class TallyReport(msgspec.Struct, frozen=True, kw_only=True):
    """The effect of recording."""

    name: str
    recorded: int
    total: int


class SeenReport(msgspec.Struct, frozen=True, kw_only=True):
    """Membership of an item, for insertions on all nodes."""

    name: str
    item: str
    seen: bool
    fpr: float
    """The probability of a false positive."""


class InsertReport(msgspec.Struct, frozen=True, kw_only=True):
    """The effect of inserting."""

    name: str
    items: int
    new: int
    """The number of items not seen before, as far as is known here."""
    fpr: float


# --- operations -------------------------------------------------------------------------------------------------------------


def _parse_k(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ValueError(f": {text!r} is not a whole number")
    if not 1 <= int(text) <= MAX_TOP:
        raise ValueError(f": the number of items must be from 1 to {MAX_TOP}, not {int(text)}")
    return int(text)


async def _top(node: "Node", request: GetTop) -> TopReport:
    of = VIOLATIONS if request.of is None else request.of
    try:
        return node.approximate.top(request.k, of)
    except KeyError:
        raise _nothing("sketch", of, "of") from None


def show_top(answer: TopReport, _: GetTop, __: "Namespace") -> View:
    """A row for each item; a sentence on the unit of the sketch of violations."""
    if not answer.items:
        return f"nothing counted in {answer.of} yet"
    columns = [Column("item"), *(Column(title, right=True) for title in ("at most", "at least", "share", "exact"))]
    rows = [
        [
            each.item,
            each.estimate if each.upper is not None else "saturated",
            each.lower,
            f"{100 * each.share:.2f} %",
            "-" if each.exact is None else each.exact,
        ]
        for each in answer.items
    ]
    table = Table(columns, rows)
    return ["violated judgements, by constraint", table] if answer.of == VIOLATIONS else table


TOP: Final = Operation(
    name="top",
    method=GET,
    path="/v1/top",
    summary="What is violated most, or the most frequent items of a sketch.",
    about="The constraints violated most, or the most frequent items of another sketch.",
    request=GetTop,
    response=TopReport,
    run=_top,
    parameters=(
        Parameter(
            name="k",
            about="how many",
            schema={"type": "integer", "minimum": 1, "maximum": MAX_TOP, "default": DEFAULT_TOP},
            parse=_parse_k,
        ),
        Parameter(name="of", about="the sketch; without: violations"),
    ),
    errors=frozenset({404}),
    freshness=Freshness.AGING,
    positional=("k",),
    command=Command(
        name="top",
        example="top",
        help="the constraints with the most violated judgements, or the most frequent items of a sketch",
        group="constraints",
        flags={
            "k": Flag("-k", type=parse_count, default=10, metavar="N", help="how many to show, 1 to 1000; default: 10"),
            "of": Flag("--of", default="violations", metavar="NAME", help="the sketch to look at; default: violations"),
        },
        show=show_top,
    ),
)


async def _tally(node: "Node", request: CountItems) -> TallyReport:
    try:
        return await node.approximate.record(request.name, request.items)
    except ValueError as error:
        raise wrong(f"`items`: {error}", "items") from None


def _not_empty(name: str) -> str:
    if not name:
        raise UsageError("the name must not be empty")
    return name


def _count(client: "Client", flags: "Namespace") -> TallyReport:
    return client.tally(_not_empty(flags.of), {flags.item: flags.count})


def show_tally(answer: TallyReport, flags: "Namespace") -> str:
    """The counts, in a sentence."""
    return f"counted {answer.recorded} of {flags.item} in {answer.name}, {answer.total} in all"


TALLY: Final = Operation(
    name="tally",
    method=POST,
    path="/v1/sketches/{name:any_text}",
    right=Right.MEASURE,
    summary="Count items in a sketch.",
    about="Count items in a sketch: how often each occurred.",
    request=CountItems,
    response=TallyReport,
    run=_tally,
    body=Body(shape=Tallied),
    positional=("name", "items"),
    command=CompositeCommand(
        name="tally",
        example="tally max_speed",
        help="count an item, of any number of items, in little room",
        group="state",
        options={
            "item": Flag(metavar="ITEM"),
            "count": Flag("--count", type=parse_count, default=1, metavar="N", help="how often it occurred; default: 1"),
            "of": Flag("--of", default="items", metavar="NAME", help="the sketch to count in; default: items"),
        },
        call=_count,
        show=show_tally,
    ),
)


async def _seen(node: "Node", request: LookUpItem) -> SeenReport:
    try:
        return node.approximate.seen(request.name, request.item)
    except KeyError:
        raise _nothing("filter", request.name, None) from None


def _look_up(client: "Client", flags: "Namespace") -> SeenReport | InsertReport:
    """Look for the item; with `--add`, insert the item as well."""
    if not flags.add and (flags.expect is not None or flags.fp_rate is not None):
        raise UsageError("--expect and --fp-rate are for a filter that begins: give --add with them")
    name = _not_empty(flags.name)
    if flags.add:
        return client.insert(name, [flags.item], expected_items=flags.expect, fp_rate=flags.fp_rate)
    return client.seen(name, flags.item)


def show_seen(answer: SeenReport | InsertReport, flags: "Namespace") -> str:
    """Whether the item is in the filter, or was before, in a sentence."""
    doubt = f" (wrong in {100 * answer.fpr:.2g} % of what is new)"
    if isinstance(answer, InsertReport):
        return f"{flags.item}: seen before{doubt}" if answer.new == 0 else f"{flags.item}: new, and put in"
    return f"{answer.item}: seen{doubt}" if answer.seen else f"{answer.item}: not seen"


SEEN: Final = Operation(
    name="seen",
    method=GET,
    path="/v1/seen/{name:any_text}",
    summary="Whether any node has seen an item.",
    request=LookUpItem,
    response=SeenReport,
    run=_seen,
    parameters=(Parameter(name="item", about="the item", required=True),),
    positional=("name", "item"),
    command=CompositeCommand(
        name="seen",
        example="seen jobs job-17",
        help="whether any node has seen an id before",
        group="state",
        options={
            "name": Flag(metavar="NAME", help="the filter to ask"),
            "item": Flag(metavar="ITEM"),
            "add": Flag("--add", action="store_true", help="put it in, too; the first one begins the filter"),
            "expect": Flag(
                "--expect", type=parse_count, metavar="N", help="items to expect, when the filter begins; default: 100000"
            ),
            "fp_rate": Flag(
                "--fp-rate", type=parse_share, metavar="SHARE", help="of wrong findings, when the filter begins; default: 0.01"
            ),
        },
        call=_look_up,
        show=show_seen,
    ),
)


async def _insert(node: "Node", request: InsertItems) -> InsertReport:
    return await node.approximate.insert(
        request.name, request.items, expected_items=request.expected_items, fp_rate=request.fp_rate
    )


INSERT: Final = Operation(
    name="insert",
    method=POST,
    path="/v1/seen/{name:any_text}",
    right=Right.MEASURE,
    summary="Put items into a Bloom filter.",
    about="Put items into a Bloom filter. The first insertion creates the filter.",
    request=InsertItems,
    response=InsertReport,
    run=_insert,
    body=Body(shape=Inserted),
    positional=("name", "items"),
)


def _nothing(kind: str, name: str, field: str | None) -> Problem:
    return not_found(f"there is no {kind} {name!r} yet: the first item put into it begins it", field)
