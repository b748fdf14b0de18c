"""The operations on the life of rules: decide by them, disable and enable them.

A decision says what the constraints would say of given values, on top of what the node measures now. Nothing is counted, and no
window, state or cell changes. `check` is for judgements that count.
"""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from constraint_crdt.errors import UnknownConstraint
from constraint_crdt.operations.command import (
    Column,
    Command,
    Flag,
    Table,
    UsageError,
    View,
    parse_duration,
    parse_measurements,
    show_time,
    show_values,
)
from constraint_crdt.operations.operation import (
    GET,
    PAGED,
    POST,
    Body,
    Operation,
    Paged,
    Reply,
    Right,
    concatenated,
    not_found,
)

if TYPE_CHECKING:
    from argparse import Namespace

    from constraint_crdt.runtime.node import Node

MOST_RULINGS: Final = 100
"""Violated constraints, and undecided ones, named in a decision."""

# --- decide -----------------------------------------------------------------------------------------------------------------


class Proposed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/decide`: values of any kind. null: the variable is missing."""

    values: Mapping[str, object]


class RulingReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a constraint says of the values. Of several definitions, the gravest verdict."""

    constraint: str
    severity: str
    when: str | None
    verdict: str
    """violated, or unknown."""
    counts_as: str
    """The verdict with `if_unknown`: violated, satisfied, unknown."""
    forbids: bool
    """`allowed` is false for this constraint, perhaps beside others."""
    reason: str
    """The reason of an unknown verdict."""
    missing: tuple[str, ...]
    """The variables without a usable value, of an unknown verdict of scope node."""
    margin: float | None
    """The signed distance to the threshold; negative for a violation; null for an expression without one."""
    margin_share: float | None
    """The margin as a share of the threshold."""
    margin_variable: str | None
    reads: tuple[str, ...]
    """The given variables that it reads; without any, the values make no difference to it."""
    windows: tuple[str, ...]
    """The given variables of which it reads the samples of a time: the given value was taken as the newest sample."""


class DecisionReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the constraints say of values. Violated and undecided constraints: those that forbid first, then by severity and id."""

    id: str
    """Of this decision on this node, in the order of the decisions."""
    time: int
    """ns since the epoch by the clock of the node."""
    node: str
    actor: str
    """Who asked: a token, a person, a program."""
    allowed: bool
    """No constraint counts as violated. An undecided one forbids only where its `if_unknown` is violated."""
    values: dict[str, str]
    """The given values, as texts."""
    violated: tuple[RulingReport, ...]
    """A hundred at most."""
    violated_in_all: int
    undecided: tuple[RulingReport, ...]
    """A hundred at most."""
    undecided_in_all: int
    satisfied: int
    """The constraints that hold by these values."""


async def _decide(node: "Node", request: Proposed) -> DecisionReport:
    return await node.decide(request.values)


def show_decision(found: DecisionReport, values: Mapping[str, object]) -> View:
    """A sentence, and a row for each violated or undecided constraint. `values`: those given."""
    others = found.violated_in_all + found.undecided_in_all - len(found.violated) - len(found.undecided)
    told = f"{found.violated_in_all} violated, {found.undecided_in_all} undecided, {found.satisfied} hold"
    sentence = f"{'allowed' if found.allowed else 'NOT ALLOWED'}: {told} (decision {found.id})"
    columns = [Column(title) for title in ("constraint", "severity", "verdict", "forbids", "margin", "reason")]
    rows = [_ruling_line(each, values) for each in (*found.violated, *found.undecided)]
    newest = sorted({name for each in (*found.violated, *found.undecided) for name in each.windows})
    view: list[str | Table] = [sentence]
    if rows:
        view.append(Table(columns, rows))
    if others:
        view.append(f"and {others} more")
    if newest:
        view.append(f"windows over {', '.join(newest)}: the given value was taken as the newest sample")
    return view


def _ruling_line(each: RulingReport, values: Mapping[str, object]) -> list[object]:
    variable = each.margin_variable
    given = {} if variable is None or variable not in values else {variable: str(values[variable])}
    margin = "-" if each.margin is None else show_values(given, each.margin, each.margin_share, variable)
    verdict = each.verdict if each.verdict == each.counts_as else f"{each.verdict}, counts as {each.counts_as}"
    return [each.constraint, each.severity, verdict, "yes" if each.forbids else "no", margin, each.reason]


DECIDE: Final = Operation(
    name="decide",
    method=POST,
    path="/v1/decide",
    right=Right.MEASURE,
    own_node=True,
    summary="What the constraints say of values, without counting.",
    about="What the constraints say of these values, on top of what the node measures now. Nothing is counted or changed.",
    request=Proposed,
    response=DecisionReport,
    run=_decide,
    body=Body(shape=Proposed),
    positional=("values",),
    command=Command(
        name="decide",
        help="what the constraints would say of values, without counting; exit code 1: not allowed",
        group="constraints",
        flags={
            "values": Flag(nargs="+", metavar="VAR=VALUE", help="a number, true, false, or else a text", convert=parse_measurements)
        },
    ),
)


class ListDecisions(Paged, frozen=True, kw_only=True):
    """`GET /v1/decisions`."""


async def _decisions(node: "Node", request: ListDecisions) -> Reply[list[DecisionReport]]:
    page, following = request.page(node.decisions.ids)
    return Reply(node.decisions.reports(page), next_after=following)


def show_decisions(found: list[DecisionReport]) -> View:
    """A row for each decision, the newest last."""
    if not found:
        return "the node has made no decision since its start"
    now = time.time()
    titles = ("decision", "when", "who", "allowed", "values", "violated", "undecided")
    rows = [
        [
            each.id,
            show_time(each.time, now),
            each.actor,
            "yes" if each.allowed else "NO",
            "; ".join(f"{name} = {value}" for name, value in each.values.items()),
            _names(each.violated, each.violated_in_all),
            _names(each.undecided, each.undecided_in_all),
        ]
        for each in found
    ]
    return Table([Column(title) for title in titles], rows)


def _names(found: tuple[RulingReport, ...], count: int) -> str:
    shown = [each.constraint for each in found[:3]]
    return ", ".join(shown) + (f" and {count - len(shown)} more" if count > len(shown) else "") or "-"


DECISIONS: Final = Operation(
    name="decisions",
    method=GET,
    path="/v1/decisions",
    summary="The last decisions of this node.",
    about="The last decisions of this node since its start, the newest last: 1,000 by default, of a few megabytes in all at most.",
    request=ListDecisions,
    response=list[DecisionReport],
    run=_decisions,
    parameters=PAGED,
    join=concatenated,
    command=Command(
        name="decisions",
        help="the last decisions of the node; with --json as JSON lines",
        group="constraints",
    ),
)


# --- disable and enable -----------------------------------------------------------------------------------------------------


class Disabled(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """`POST /v1/disable`."""

    ids: Sequence[str] = ()
    all_: bool = msgspec.field(default=False, name="all")
    """All constraints, present and later ones, in place of `ids`."""
    for_: float | None = msgspec.field(default=None, name="for")
    """Seconds; null: until they are enabled."""
    why: str
    """The reason, for people."""


class Enabled(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """`POST /v1/enable`."""

    ids: Sequence[str] = ()
    all_: bool = msgspec.field(default=False, name="all")
    """End the disabling of all constraints together. Those that are disabled by themselves stay disabled."""
    why: str = ""


class Switched(msgspec.Struct, frozen=True, kw_only=True):
    """Constraints were disabled or enabled."""

    change: str
    """disabled, enabled."""
    ids: tuple[str, ...]
    """Those that were; of `enable` those that had been disabled."""
    all: bool


async def _disable(node: "Node", request: Disabled) -> Switched:
    try:
        ids = await node.disable(request.ids, why=request.why, for_=request.for_, all_=request.all_)
    except UnknownConstraint as error:
        raise not_found(str(error), "ids") from None
    return Switched(change="disabled", ids=tuple(each for each in ids if each), all=request.all_)


async def _enable(node: "Node", request: Enabled) -> Switched:
    try:
        ids = await node.enable(request.ids, why=request.why, all_=request.all_)
    except UnknownConstraint as error:
        raise not_found(str(error), "ids") from None
    return Switched(change="enabled", ids=tuple(each for each in ids if each), all=request.all_ and bool(ids))


def show_switched(answer: Switched, _: Any, __: "Namespace") -> View:
    """The constraints, in a sentence."""
    if answer.all:
        return f"all constraints are {answer.change}, on every node that hears of it"
    return f"{answer.change}: {', '.join(answer.ids)}" if answer.ids else "none of them was disabled"


def _check_named(request: Any) -> None:
    if bool(request.ids) == request.all_:
        raise UsageError("name the constraints, or give --all")


_IDS: Final = Flag(nargs="*", metavar="ID", help="the constraints", convert=tuple)

DISABLE: Final = Operation(
    name="disable",
    method=POST,
    path="/v1/disable",
    summary="Keep constraints, and evaluate them on no node.",
    about="Keep constraints, and evaluate them on no node, for some seconds or until they are enabled.",
    request=Disabled,
    response=Switched,
    run=_disable,
    body=Body(shape=Disabled),
    positional=("ids",),
    errors=frozenset({404, 409}),
    command=Command(
        name="disable",
        help="keep constraints, and evaluate them on no node: the emergency stop of a rule",
        group="constraints",
        flags={
            "ids": _IDS,
            "all_": Flag("--all", action="store_true", help="all constraints, later ones too; asks first"),
            "for_": Flag("--for", metavar="TIME", convert=parse_duration, help="enabled by itself then; default: until `enable`"),
            "why": Flag("--why", metavar="TEXT", required=True, help="the reason, which everybody sees"),
        },
        options={"yes": Flag("--yes", action="store_true", help="do not ask")},
        check=_check_named,
    ),
)

ENABLE: Final = Operation(
    name="enable",
    method=POST,
    path="/v1/enable",
    summary="Evaluate disabled constraints again.",
    request=Enabled,
    response=Switched,
    run=_enable,
    body=Body(shape=Enabled),
    positional=("ids",),
    errors=frozenset({404}),
    command=Command(
        name="enable",
        help="evaluate disabled constraints again",
        group="constraints",
        flags={
            "ids": _IDS,
            "all_": Flag("--all", action="store_true", help="end the disabling of all constraints together"),
            "why": Flag("--why", metavar="TEXT", help="the reason, for the history"),
        },
        check=_check_named,
        show=show_switched,
    ),
)
