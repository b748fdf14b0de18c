"""The operations on budgets: defining them, holding amounts of them, and the holders and lenders.

Rules: a hold belongs to a process at the node that it asked. Without a lease an amount is used up until it is released. The figures
about other nodes are those that these told, as old as the report says.
"""

import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import msgspec

from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.operations.operation import (
    DELETE,
    GET,
    POST,
    PUT,
    Body,
    Column,
    Command,
    CompositeCommand,
    Empty,
    Flag,
    Freshness,
    Lines,
    Operation,
    Problem,
    Reply,
    Right,
    Table,
    UsageError,
    View,
    not_found,
    parse_count,
    parse_duration,
    show_duration,
    show_time,
    wrong,
)

if TYPE_CHECKING:
    from argparse import Namespace

    from constraint_crdt.client.blocking import Client
    from constraint_crdt.runtime.node import Node

LONGEST_WAIT: Final = 60.0
"""Seconds that a request waits for rights, at most. A longer wait takes several requests."""

DEFAULT_LEASE: Final = 120.0
"""Seconds."""


class BudgetDefinition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `PUT /v1/budgets/{name}`."""

    limit: int
    lease: float | None = None
    """Seconds; 0: none, amounts are used up. Left out: as before, or 120."""
    nodes: list[str] | None = None
    """The nodes that further shares go to; by default those live now."""
    gone: list[str] | None = None
    """Nodes that are gone for good, by your word: their share goes to others."""


class DefineBudget(BudgetDefinition, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`PUT /v1/budgets/{name}`."""

    name: str


class NamedBudget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`DELETE /v1/budgets/{name}`."""

    name: str


class Acquired(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/budgets/{name}/acquire`."""

    amount: int = 1
    wait: float = 0.0
    """Seconds, at most 60."""
    holder: str = ""
    """Who holds it, for people."""


class AcquireBudget(Acquired, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/budgets/{name}/acquire`."""

    name: str


class HoldOf(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of the operations on a hold."""

    hold: str


class HoldOfBudget(HoldOf, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/budgets/{name}/renew` and `release`."""

    name: str


class HoldReport(msgspec.Struct, frozen=True, kw_only=True):
    """An amount that a process holds."""

    name: str
    hold: str
    """Names the hold, at the node that gave it only."""
    node: str
    holder: str
    amount: int
    since: int
    """ns since the epoch, as all times by the clock of the node."""
    until: int | None
    """The end without a renewal; null without a lease."""
    ttl: float | None
    """Seconds to the end. Take the earlier end by your own clock: the hold is over then, whichever node answers."""
    waited: float = 0.0
    """Seconds."""


class HolderReport(msgspec.Struct, frozen=True, kw_only=True):
    """A holder, as its node told it."""

    node: str
    holder: str
    amount: int
    since: int
    until: int | None


class BudgetNode(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a node in a budget, as it told."""

    node: str
    live: bool
    heard: float | None
    """Seconds since this node heard of it; null for itself, and for a node it does not hear."""
    share: int
    """In force."""
    lent: int
    borrowed: int
    held: int
    free: int
    """The amount it could acquire or lend now."""
    waiting: int


class BudgetReport(msgspec.Struct, frozen=True, kw_only=True):
    """A budget, as far as the node that answers knows."""

    name: str
    limit: int
    """Of several definitions made at once the lowest."""
    lease: float | None
    """Seconds; null without."""
    held: int
    free_here: int
    free_elsewhere: int
    """On live nodes."""
    stranded: int
    """Shares of nodes that are not live, or not in force."""
    waiting: int
    limits: tuple[int, ...] = ()
    """Several: made at once, and to be resolved by another definition."""
    waits_for: tuple[str, ...] = ()
    """The nodes whose word is missing for the definition to be in force."""
    holders: tuple[HolderReport, ...] = ()
    nodes: tuple[BudgetNode, ...] = ()
    participants: tuple[str, ...] = ()
    """The nodes with a share by the definition."""


class BudgetDefinitionReport(msgspec.Struct, frozen=True, kw_only=True):
    """A definition of a budget that no other overwrites."""

    dot: str
    """The mutation, as node~incarnation:seq."""
    limit: int
    shares: dict[str, int]
    """By node."""
    gone: tuple[str, ...]
    """Nodes that an operator declared gone."""
    made_by: str
    """The node."""
    actor: str | None
    made_at: int
    """ns since the epoch by the clock of that node."""


class AwaitedNode(msgspec.Struct, frozen=True, kw_only=True):
    """A participant whose word is missing for a definition to be in force."""

    node: str
    live: bool
    beyond: int
    """Lent and held beyond its new share, as it last told; 0: it did not hear of the definition yet, or is to say so."""
    until: int | None
    """The end of all that, in ns since the epoch; null without a lease, and without any."""


class BudgetExplanation(msgspec.Struct, frozen=True, kw_only=True):
    """Why a budget is as it is."""

    budget: BudgetReport
    definitions: tuple[BudgetDefinitionReport, ...]
    """Several: made at once, and to be resolved by another."""
    awaited: tuple[AwaitedNode, ...]
    holds_by: int | None
    """The time at which a lowered limit holds at the latest, in ns since the epoch; null if it holds, without a lease, and while a
    node that is away may not have heard of it."""
    wait: str
    """Why an acquire of 1 on this node would have to wait, in a sentence; empty if it would not."""


class ReleaseReport(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a hold."""

    name: str
    released: bool
    """False: it was over before."""


def _check_known(node: "Node", name: str) -> None:
    if name not in node.budgets:
        raise not_found(f"there is no budget {name!r} here", "name", name=name, known=node.gossip.escrow.budgets)


# --- definitions ------------------------------------------------------------------------------------------------------------


async def _budgets(node: "Node", _: Empty) -> list[BudgetReport]:
    return node.budgets.reports()


def show_budgets(answer: list[BudgetReport], _: "Namespace") -> View:
    """A row for each budget, a row for each holder, and sentences on stranded amounts."""
    if not answer:
        return "no budget is defined: `constraint-crdt budget add NAME --limit N` defines one"
    now = time.time()
    titles = ("limit", "held", "free here", "free elsewhere", "stranded", "waiting")
    columns = [Column("budget"), *(Column(title, right=True) for title in titles), Column("lease")]
    rows = [
        [
            each.name, each.limit, each.held, each.free_here, each.free_elsewhere, each.stranded, each.waiting,
            "none" if each.lease is None else show_duration(each.lease),
        ]
        for each in answer
    ]  # fmt: skip
    return [Table(columns, rows), *_holders(answer, now), *(sentence for each in answer for sentence in notes_on(each))]


def notes_on(each: BudgetReport) -> list[str]:
    """Sentences on the obstacles between a budget and its limit."""
    found = []
    if len(each.limits) > 1:
        limits = ", ".join(map(str, each.limits))
        found.append(f"{each.name}: limits {limits} were set at once, the lowest holds: `budget set {each.name}` resolves it")
    if each.waits_for:
        found.append(f"{each.name}: the definition is not in force everywhere: {', '.join(each.waits_for)} must hear of it")
    if away := stranded_at(each):
        found.append(f"{each.name}: stranded at nodes that are away: {away}; `retire` gives it to others")
    return found


def stranded_at(each: BudgetReport) -> str:
    """The nodes that are away with a share, and the amounts; empty for none."""
    away = [f"{node.node} ({node.share - node.lent})" for node in each.nodes if not node.live and node.share > node.lent]
    return ", ".join(away)


BUDGETS: Final = Operation(
    name="budgets",
    method=GET,
    path="/v1/budgets",
    summary="The budgets, who holds them, and where rights are free.",
    request=Empty,
    response=list[BudgetReport],
    run=_budgets,
    freshness=Freshness.AGING,
    command=CompositeCommand(
        name="budget",
        example="budget",
        help="limit, held by whom since when, free here, free elsewhere, stranded; or add, set, remove a budget",
        group="state",
        options={},
        call=lambda client, _: client.budgets(),
        show=show_budgets,
    ),
)


async def _explain_budget(node: "Node", request: NamedBudget) -> BudgetExplanation:
    _check_known(node, request.name)
    return node.budgets.explanation(request.name)


def show_explained(answer: BudgetExplanation) -> View:
    """Its state and definitions, why an acquire would wait, by when a lowered limit holds, and a row for each node and holder."""
    now, each = time.time(), answer.budget
    lease = "none" if each.lease is None else show_duration(each.lease)
    lines: list[tuple[str, object]] = [("limit", f"{each.limit}, lease {lease}")]
    for made in answer.definitions:
        by = made.made_by if made.actor is None else f"{made.actor} on {made.made_by}"
        gone = f"; gone: {', '.join(made.gone)}" if made.gone else ""
        shares = ", ".join(f"{node} {amount}" for node, amount in made.shares.items()) or "no node"
        lines.append(("defined by", f"{by}, {show_time(made.made_at, now)}: limit {made.limit}, shares: {shares}{gone}"))
    free = f"{each.free_here} here, {each.free_elsewhere} elsewhere, {each.stranded} stranded"
    lines += [("held", f"{each.held} of {each.limit}"), ("free", free), ("an acquire here", answer.wait or "is granted at once")]
    lines += [("in force", _awaited(found, now)) for found in answer.awaited]
    if answer.holds_by is not None:
        lines.append(("limit holds", f"{show_time(answer.holds_by, now)} at the latest, by what is known here"))
    elif any(found.beyond for found in answer.awaited) and each.lease is not None:
        lines.append(("limit holds", "a lease and the skew bound after the nodes that are away hear of it"))
    nodes = Table(
        [Column("node"), Column("live"), *(Column(title, right=True) for title in _OF_NODE)],
        [[found.node, "yes" if found.live else "no", *(getattr(found, title) for title in _OF_NODE)] for found in each.nodes],
    )
    holders = _holders([each], now)
    return [f"budget {each.name}", Lines(lines), *notes_on(each), nodes, *holders]


_OF_NODE: Final = ("share", "lent", "borrowed", "held", "free", "waiting")


def _awaited(found: AwaitedNode, now: float) -> str:
    if not found.beyond:
        return f"{found.node}{'' if found.live else ' (away)'} has to say that it goes by the definition"
    ends = "until it is released" if found.until is None else f"until {show_time(found.until, now)}"
    return f"{found.node}{'' if found.live else ' (away)'} has {found.beyond} beyond its share, {ends}"


def _holders(reports: list[BudgetReport], now: float) -> list[Table]:
    """A table of all holders; none without any."""
    rows = [
        [each.name, holder.node, holder.holder or "-", holder.amount, show_time(holder.since, now), show_time(holder.until, now)]
        for each in reports
        for holder in each.holders
    ]
    titles = ("budget", "node", "held by", "amount", "since", "until")
    return [Table([Column(title, right=title == "amount") for title in titles], rows)] if rows else []


EXPLAIN_BUDGET: Final = Operation(
    name="explain_budget",
    method=GET,
    path="/v1/budgets/{name}/explain",
    summary="Why a budget is as it is.",
    about="Who holds a budget, why an acquire would wait, and by when a lowered limit holds. `explain budget NAME` shows it.",
    request=NamedBudget,
    response=BudgetExplanation,
    run=_explain_budget,
    by_segment=True,
    positional=("name",),
)


async def _define(node: "Node", request: DefineBudget) -> Reply[BudgetReport]:
    new = request.name not in node.budgets
    why = node.budgets.refusal(request.name, request.lease, request.nodes, request.gone or ())
    if why is not None:
        raise Problem(HTTPStatus.CONFLICT, why)
    report = await node.budgets.define(
        request.name, request.limit, lease=request.lease, nodes=request.nodes, gone=request.gone or ()
    )
    return Reply(report, created=new)


def _parse_lease(text: str) -> float:
    return 0.0 if text == "none" else parse_duration(text)


def _call_add(client: "Client", flags: "Namespace") -> BudgetReport:
    if any(each.name == flags.name for each in client.budgets()):
        raise ConstraintCrdtError(f"budget {flags.name} is defined: change it with `budget set`")
    lease = DEFAULT_LEASE if flags.lease is None else _parse_lease(flags.lease)
    return client.define_budget(flags.name, limit=flags.limit, lease=lease, nodes=flags.on)


def _call_set(client: "Client", flags: "Namespace") -> BudgetReport:
    known = next((each for each in client.budgets() if each.name == flags.name), None)
    if known is None:
        raise ConstraintCrdtError(f"no budget {flags.name} is defined here: define it with `budget add`")
    if flags.limit is None and not flags.on and not flags.gone and len(known.limits) < 2:
        raise UsageError("say what to change: --limit, --on or --gone")
    limit = known.limit if flags.limit is None else flags.limit
    return client.define_budget(flags.name, limit=limit, nodes=flags.on, gone=flags.gone)


def show_defined(answer: BudgetReport, _: "Namespace") -> View:
    """The definition in a sentence, and the nodes it waits for."""
    lease = "without a lease" if answer.lease is None else f"lease {show_duration(answer.lease)}"
    return [f"{answer.name}: limit {answer.limit}, {lease}", *notes_on(answer)]


_LIMIT: Final = Flag("--limit", type=parse_count, metavar="N", help="the most that the whole fleet may hold at once, or use up")
_ON: Final = Flag("--on", action="append", metavar="NODE", help="a node that shares go to, several times; default: the live ones")

DEFINE_BUDGET: Final = Operation(
    name="define_budget",
    method=PUT,
    path="/v1/budgets/{name}",
    summary="Define a budget, or change its limit.",
    about="Define a budget, or change its limit. `lease` in seconds; 0: amounts are used up.",
    request=DefineBudget,
    response=BudgetReport,
    run=_define,
    body=Body(shape=BudgetDefinition),
    created=True,
    errors=frozenset({409}),
    by_segment=True,
    positional=("name",),
    command=CompositeCommand(
        name="budget add",
        example="budget add dock --limit 2",
        help="define how much of something the fleet may hold at once",
        group="state",
        options={
            "name": Flag(metavar="NAME"),
            "limit": Flag("--limit", type=parse_count, required=True, metavar="N", help=_LIMIT.options["help"]),
            "lease": Flag(
                "--lease",
                metavar="TIME",
                help="after which a silent holder frees its place, as in 2m, or none for what is used up; default: 2m",
            ),
            "on": _ON,
        },
        call=_call_add,
        show=show_defined,
    ),
    more_commands=(
        CompositeCommand(
            name="budget set",
            example="budget set dock --limit 3",
            help="change the limit of a budget, also to resolve a conflict, or give the share of lost nodes to others",
            group="state",
            options={
                "name": Flag(metavar="NAME"),
                "limit": _LIMIT,
                "on": _ON,
                "gone": Flag("--gone", action="append", metavar="NODE", help="a node that is gone for good, by your word"),
            },
            call=_call_set,
            show=show_defined,
        ),
    ),
)


async def _remove(node: "Node", request: NamedBudget) -> BudgetReport:
    _check_known(node, request.name)
    return await node.budgets.remove(request.name)


def show_removed(answer: BudgetReport, _: NamedBudget, __: "Namespace") -> View:
    """The removal, in a sentence."""
    held = f"; {answer.held} are held until their leases end or they are released" if answer.held else ""
    return f"{answer.name}: removed{held}"


REMOVE_BUDGET: Final = Operation(
    name="remove_budget",
    method=DELETE,
    path="/v1/budgets/{name}",
    summary="Remove a budget: nothing can be acquired of it any more.",
    request=NamedBudget,
    response=BudgetReport,
    run=_remove,
    by_segment=True,
    errors=frozenset({409}),
    command=Command(
        name="budget remove",
        example="budget remove dock",
        help="remove a budget; what is held runs out",
        group="state",
        show=show_removed,
    ),
)

# --- holding ----------------------------------------------------------------------------------------------------------------


async def _acquire(node: "Node", request: AcquireBudget) -> HoldReport:
    _check_known(node, request.name)
    if not 0 <= request.wait <= LONGEST_WAIT:
        raise wrong(f"`wait` is from 0 to {LONGEST_WAIT:g} seconds, not {request.wait:g}", "wait")
    wait = request.wait
    return await node.budgets.acquire(request.name, request.amount, holder=request.holder, timeout=wait)


ACQUIRE: Final = Operation(
    name="acquire",
    method=POST,
    path="/v1/budgets/{name}/acquire",
    right=Right.MEASURE,
    summary="Hold an amount of a budget.",
    about="Hold an amount of a budget. `wait` in seconds, at most 60. Raises `ClientError` with the reason without rights.",
    request=AcquireBudget,
    response=HoldReport,
    run=_acquire,
    body=Body(shape=Acquired),
    errors=frozenset({409}),
    by_segment=True,
    positional=("name", "amount"),
    extra_timeout=lambda request: min(max(0.0, request.wait), LONGEST_WAIT),
)


async def _renew(node: "Node", request: HoldOfBudget) -> HoldReport:
    _check_known(node, request.name)
    return await node.budgets.renew(request.name, request.hold)


RENEW_HOLD: Final = Operation(
    name="renew_hold",
    method=POST,
    path="/v1/budgets/{name}/renew",
    right=Right.MEASURE,
    summary="Hold an amount for another lease.",
    request=HoldOfBudget,
    response=HoldReport,
    run=_renew,
    body=Body(shape=HoldOf),
    errors=frozenset({409}),
    by_segment=True,
    positional=("name", "hold"),
)


async def _release(node: "Node", request: HoldOfBudget) -> ReleaseReport:
    _check_known(node, request.name)
    return await node.budgets.release(request.name, request.hold)


def handle_of(report: HoldReport) -> str:
    """The hold and its budget as a single word, for `release`."""
    return f"{report.name}:{report.hold}"


def _call_release(client: "Client", flags: "Namespace") -> ReleaseReport:
    name, colon, hold = flags.handle.rpartition(":")
    if not colon or not name or not hold:
        raise UsageError(f"{flags.handle!r} is no handle: give what `acquire` printed")
    return client.release_hold(name, hold)


def show_released(answer: ReleaseReport, _: "Namespace") -> View:
    """The end of a hold, in a sentence."""
    return f"{answer.name}: released" if answer.released else f"{answer.name}: it was over before"


RELEASE_HOLD: Final = Operation(
    name="release_hold",
    method=POST,
    path="/v1/budgets/{name}/release",
    right=Right.MEASURE,
    summary="End a hold.",
    request=HoldOfBudget,
    response=ReleaseReport,
    run=_release,
    body=Body(shape=HoldOf),
    errors=frozenset({409}),
    by_segment=True,
    positional=("name", "hold"),
    command=CompositeCommand(
        name="release",
        example="release HANDLE",
        help="end a hold that `acquire` printed",
        group="state",
        options={"handle": Flag(metavar="HANDLE")},
        call=_call_release,
        show=show_released,
    ),
)
