"""The operations on the life of rules: decide by them, disable and enable them, their modes, history, and the way
back.

A decision is the outcome of the constraints for given values, on top of the present measurements of the node. Nothing is counted,
and no window, state or cell changes. `check` is for judgements that count.
"""

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from constraint_crdt.crdt.limits import DURATION_MAX
from constraint_crdt.errors import NotKept, UnknownConstraint
from constraint_crdt.model import Mode
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
from constraint_crdt.operations.constraints import LOOSEN, EditEffect, show_effect
from constraint_crdt.operations.operation import (
    GET,
    PAGED,
    POST,
    SECONDS,
    Body,
    Operation,
    Paged,
    Parameter,
    Reply,
    Right,
    concatenated,
    not_found,
)
from constraint_crdt.operations.service import local_time, parse_past

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
    """The ruling of a constraint on the values. Of several definitions, the gravest verdict."""

    constraint: str
    severity: str
    when: str | None
    verdict: str
    """violated, or unknown."""
    counts_as: str
    """The verdict with `if_unknown`: violated, satisfied, unknown."""
    mode: str
    """audit, warn, enforce."""
    forbids: bool
    """`allowed` is false for this constraint, perhaps beside others: its mode is enforce, and it counts as violated."""
    reason: str
    """The reason of an unknown verdict."""
    missing: tuple[str, ...]
    """The variables without a usable value, of an unknown verdict of scope node."""
    margin: float | None
    """The signed distance to the threshold; negative for a violation; null for an expression without a threshold."""
    margin_share: float | None
    """The margin as a share of the threshold."""
    margin_variable: str | None
    reads: tuple[str, ...]
    """The given variables that it reads; without any, the values make no difference to it."""
    windows: tuple[str, ...]
    """The given variables of which it reads the samples of a time: the given value was taken as the newest sample."""


class DecisionReport(msgspec.Struct, frozen=True, kw_only=True):
    """The rulings of the constraints. Violated and undecided constraints: those that forbid first, then by severity and id."""

    id: str
    """Of this decision on this node, in the order of the decisions."""
    time: int
    """ns since the epoch by the clock of the node."""
    node: str
    actor: str
    """Who asked: a token, a person, a program."""
    allowed: bool
    """No constraint of mode enforce counts as violated. An undecided constraint forbids only where its `if_unknown` is violated."""
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
    windows: tuple[str, ...]
    """The given variables of which some constraint reads the samples of a time: the given value was the newest sample."""
    disabled: int = 0
    """Constraints that were not asked, as they are disabled."""


async def _decide(node: "Node", request: Proposed) -> DecisionReport:
    return await node.decide(request.values)


def show_decision(found: DecisionReport, values: Mapping[str, object]) -> View:
    """A sentence, and a row for each violated or undecided constraint. `values`: those given."""
    others = found.violated_in_all + found.undecided_in_all - len(found.violated) - len(found.undecided)
    told = f"{found.violated_in_all} violated, {found.undecided_in_all} undecided, {found.satisfied} hold"
    told += f", {found.disabled} DISABLED and not asked" if found.disabled else ""
    sentence = f"{'allowed' if found.allowed else 'NOT ALLOWED'}: {told} (decision {found.id})"
    columns = [Column(title) for title in ("constraint", "severity", "verdict", "mode", "forbids", "margin", "reason")]
    rows = [_ruling_line(each, values) for each in (*found.violated, *found.undecided)]
    view: list[str | Table] = [sentence]
    if rows:
        view.append(Table(columns, rows))
    if others:
        view.append(f"and {others} more")
    if found.windows:
        view.append(f"windows over {', '.join(found.windows)}: the given value was taken as the newest sample")
    return view


def _ruling_line(each: RulingReport, values: Mapping[str, object]) -> list[object]:
    variable = each.margin_variable
    given = {} if variable is None or variable not in values else {variable: str(values[variable])}
    margin = "-" if each.margin is None else show_values(given, each.margin, each.margin_share, variable)
    verdict = each.verdict if each.verdict == each.counts_as else f"{each.verdict}, counts as {each.counts_as}"
    return [each.constraint, each.severity, verdict, each.mode, "yes" if each.forbids else "no", margin, each.reason]


DECIDE: Final = Operation(
    name="decide",
    method=POST,
    path="/v1/decide",
    right=Right.MEASURE,
    own_node=True,
    summary="What the constraints say of values, without counting.",
    about="Apply the constraints to these values, on top of the present measurements. Nothing is counted or changed.",
    request=Proposed,
    response=DecisionReport,
    run=_decide,
    body=Body(shape=Proposed),
    positional=("values",),
    command=Command(
        name="decide",
        example="decide speed_mps=1.2",
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
        example="decisions --json",
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
        raise not_found(str(error), "ids", name=str(error.name), known=node.constraint_ids()) from None
    return Switched(change="disabled", ids=tuple(each for each in ids if each), all=request.all_)


async def _enable(node: "Node", request: Enabled) -> Switched:
    try:
        ids = await node.enable(request.ids, why=request.why, all_=request.all_)
    except UnknownConstraint as error:
        raise not_found(str(error), "ids", name=str(error.name), known=node.constraint_ids()) from None
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
        example="disable max_speed --for 30m --why 'false alarms'",
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
        example="enable max_speed",
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


# --- mode -------------------------------------------------------------------------------------------------------------------


class NewMode(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """`POST /v1/mode`."""

    id: str
    mode: Mode
    """audit: evaluated and counted apart, and not told. warn: a violation is told. enforce: it is told, and acted on."""
    why: str = ""
    loosen: bool = False
    """Take it also where it loosens a critical constraint."""


class ModeReport(msgspec.Struct, frozen=True, kw_only=True):
    """A constraint has this mode."""

    id: str
    mode: str
    before: str
    """The mode that it had."""
    effect: EditEffect | None = None
    """What another mode means; null for the same mode."""


def new_mode(id_: str, mode: str, *, why: str = "", loosen: bool = False) -> NewMode:
    """The request of the clients' `mode`: the node checks the mode."""
    return NewMode(id=id_, mode=cast("Mode", mode), why=why, loosen=loosen)


async def _mode(node: "Node", request: NewMode) -> ModeReport:
    before = node.gossip.state.constraints.definitions(request.id)
    try:
        former = await node.set_mode(request.id, request.mode, why=request.why, loosen=request.loosen)
    except UnknownConstraint:
        raise not_found(f"no constraint {request.id!r} is active", "id", name=request.id, known=node.constraint_ids()) from None
    changed = len(before) == 1 and former != request.mode
    effect = await node.edit_effects.of(request.id, before, before[0]._replace(mode=request.mode)) if changed else None
    return ModeReport(id=request.id, mode=request.mode, before=former, effect=effect)


def show_mode(answer: ModeReport, _: Any, __: "Namespace") -> View:
    """The change, in a sentence, and its label."""
    told = f"{answer.id}: {answer.mode}" + ("" if answer.before == answer.mode else f", was {answer.before}")
    return told if answer.effect is None else [told, f"  {show_effect(answer.effect)}"]


MODE: Final = Operation(
    name="mode",
    method=POST,
    path="/v1/mode",
    summary="What follows from a violation of a constraint.",
    about="Set the consequence of a violation of a constraint: audit, warn, enforce. All else of its definition stays.",
    request=NewMode,
    response=ModeReport,
    run=_mode,
    body=Body(shape=NewMode),
    positional=("id", "mode"),
    build=new_mode,
    errors=frozenset({404, 409}),
    command=Command(
        name="mode",
        example="mode max_speed audit",
        help="what follows from a violation: audit (nobody is told), warn, enforce",
        group="constraints",
        flags={
            "id": Flag(metavar="ID"),
            "mode": Flag(metavar="MODE", choices=("audit", "warn", "enforce"), help="audit, warn or enforce", convert=Mode),
            "why": Flag("--why", metavar="TEXT", help="the reason, for the history"),
            "loosen": LOOSEN,
        },
        show=show_mode,
    ),
)


# --- history and revert -----------------------------------------------------------------------------------------------------


class ReadHistory(Paged, frozen=True, kw_only=True):
    """`GET /v1/history`."""

    id: str | None = None
    since: float | None = None
    """Seconds before now."""


class HistoryEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A change of a rule or of membership."""

    time: int
    """ns since the epoch by the clock of the node."""
    actor: str
    """A person, a token or a program, as the node says; empty if unknown."""
    node: str
    """The node on which the change was made; empty if unknown."""
    operation: str
    kind: str
    """constraint, switch (disabled or enabled), parameter, silence, alert rule; change for membership and others."""
    subject: str
    version: int | None
    """The version that the change made, for `revert`; null where there are none."""
    why: str
    before: tuple[str, ...]
    """The fields before the change, a line each; empty: there was none."""
    after: tuple[str, ...]
    """The fields after it; empty: it was removed."""

    @property
    def diff(self) -> list[str]:
        """The lines that the change took away and added."""
        gone = [f"- {line}" for line in self.before if line not in self.after]
        return gone + [f"+ {line}" for line in self.after if line not in self.before]


async def _history(node: "Node", request: ReadHistory) -> Reply[list[HistoryEntry]]:
    since = 0 if request.since is None else node.gossip.time.now() - round(request.since * 1e9)
    found = node.rules.find(request.id, since)
    page, following = request.page(sorted(found))
    return Reply([node.rules.entry(found[id_]) for id_ in page], next_after=following)


def show_history(answer: list[HistoryEntry], request: ReadHistory, _: "Namespace") -> View:
    """A sentence for each change, and its lines."""
    if not answer:
        return "no change is kept" if request.id is None else f"no change of {request.id} is kept"
    view: list[str] = []
    for each in answer:
        of = "" if each.kind in ("constraint", "change") else f" ({each.kind})"
        version = "" if each.version is None or each.kind != "constraint" else f", version {each.version}"
        by = " on ".join(part for part in (each.actor, each.node) if part) or "unknown"
        why = f": {each.why}" if each.why else ""
        view += [f"{local_time(each.time)}  {each.operation} {each.subject}{of}{version}, by {by}{why}"]
        view += [f"    {line}" for line in each.diff]
    return view


HISTORY: Final = Operation(
    name="history",
    method=GET,
    path="/v1/history",
    summary="Who changed rules and membership, when, why, and what they were.",
    about="Who changed rules and membership, when, why, and the former state; the newest last. Kept for 90 days.",
    request=ReadHistory,
    response=list[HistoryEntry],
    run=_history,
    parameters=(
        *PAGED,
        Parameter(name="id", about="only the changes of this constraint, and of its switch"),
        Parameter(
            name="since",
            about="only changes of so many seconds before now",
            schema={**SECONDS, "maximum": DURATION_MAX},
            parse=parse_past,
        ),
    ),
    join=concatenated,
    command=Command(
        name="history",
        example="history max_speed --since 1d",
        help="who changed the rules, when, why, and what they were",
        group="constraints",
        flags={
            "id": Flag(nargs="?", metavar="ID", help="the constraint; default: all changes"),
            "since": Flag("--since", metavar="TIME", convert=parse_duration, help="only the changes of this time, as in 1h"),
        },
        show=show_history,
    ),
)


class Reverted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """`POST /v1/revert`: a constraint, or all with a time."""

    id: str | None = None
    to: int | None = None
    """The version of the definition; null: undo the last change."""
    time: datetime | None = None
    """Without an id: put all constraints and disablings back to their state then."""
    dry_run: bool = False
    why: str = ""
    loosen: bool = False
    """Do it also where it loosens a critical constraint."""


class RevertStep(msgspec.Struct, frozen=True, kw_only=True):
    """The step of a revert for a constraint, or for all of them."""

    id: str
    """Empty for all constraints together."""
    change: str
    """added, replaced, removed, disabled, enabled."""
    effect: EditEffect | None = None
    """What the step means for an active constraint; null for others."""


class RevertReport(msgspec.Struct, frozen=True, kw_only=True):
    """The steps of a revert, which is done whole or not at all."""

    done: bool
    """False for a dry run, and where nothing is to be done."""
    steps: tuple[RevertStep, ...]
    notes: tuple[str, ...]
    """Sentences on parts that cannot be as before."""


async def _revert(node: "Node", request: Reverted) -> RevertReport:
    try:
        return await node.revert(
            request.id, to=request.to, time=request.time, why=request.why, dry_run=request.dry_run, loosen=request.loosen
        )
    except NotKept as error:
        raise not_found(str(error), error.field) from None


def show_revert(answer: RevertReport, _: Any, __: "Namespace") -> View:
    """A line for each step, and its label."""
    view = list[str]()
    for each in answer.steps:
        view.append(f"{each.id or 'all constraints'}: {each.change}")
        view += [] if each.effect is None else [f"  {show_effect(each.effect)}"]
    view += [f"note: {note}" for note in answer.notes]
    if not answer.steps:
        return [*view, "nothing was to be done"]
    return view if answer.done else [*view, "nothing was changed yet"]


REVERT: Final = Operation(
    name="revert",
    method=POST,
    path="/v1/revert",
    summary="Make a constraint, or all, what they were.",
    about="Undo the last change of a constraint, go back to a version (`to`), or put all back to their state at a time.",
    request=Reverted,
    response=RevertReport,
    run=_revert,
    body=Body(shape=Reverted),
    positional=("id",),
    errors=frozenset({404, 409}),
    command=Command(
        name="revert",
        example="revert max_speed --dry-run",
        help="undo the last change of a constraint, go back to a version of it, or make all what they were at a time",
        group="constraints",
        flags={
            "id": Flag(nargs="?", metavar="ID", help="the constraint"),
            "to": None,
            "time": None,
            "dry_run": Flag("--dry-run", action="store_true", help="say what would be done, and do nothing"),
            "why": Flag("--why", metavar="TEXT", help="the reason, for the history"),
            "loosen": LOOSEN,
        },
        options={
            "target": Flag(
                "--to",
                metavar="N|TIME",
                help="the version that `history` tells; with --all a time, as in 10m or 2026-12-01T00:00:00Z",
            ),
            "all_": Flag("--all", action="store_true", help="all constraints, as they were at the time of --to; asks first"),
            "yes": Flag("--yes", action="store_true", help="do not ask"),
        },
    ),
)
