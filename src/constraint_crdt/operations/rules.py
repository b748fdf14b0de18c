"""The operations on the life of rules: decide by them, disable and enable them, their modes, history, the way back, and rollouts
in stages.

A decision is the outcome of the constraints for given values, on top of the present measurements of the node. Nothing is counted,
and no window, state or cell changes. `check` is for judgements that count.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from constraint_crdt.crdt.limits import DURATION_MAX
from constraint_crdt.errors import NotKept, UnknownConstraint, UnknownName
from constraint_crdt.model import Mode
from constraint_crdt.operations.constraints import LOOSEN, MAX_BATCH_BYTES, AddConstraint, BatchError, EditEffect, show_effect
from constraint_crdt.operations.operation import (
    GET,
    PAGED,
    POST,
    SECONDS,
    Body,
    Column,
    Command,
    Empty,
    Flag,
    Operation,
    Paged,
    Parameter,
    Reply,
    Right,
    Table,
    UsageError,
    View,
    concatenated,
    not_found,
    parse_duration,
    parse_measurements,
    show_duration,
    show_time,
    show_values,
    wrong,
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
        version = "" if each.version is None or each.kind == "switch" else f", version {each.version}"
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


REVERTED: Final = ("constraint", "parameter", "alert rule", "silence")


class Reverted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """`POST /v1/revert`: a constraint or another rule, or all with a time."""

    id: str | None = None
    """Of a constraint or a silence, or the name of a parameter or of an alert rule."""
    kind: str = "constraint"
    """Of `REVERTED`."""
    on: str = ""
    """The selector of the setting of a parameter; empty: of all nodes."""
    to: int | None = None
    """The version, which silences have none of; null: undo the last change."""
    time: datetime | None = None
    """Without an id: put all constraints, disablings, parameters, alert rules and silences back to their state then."""
    dry_run: bool = False
    why: str = ""
    loosen: bool = False
    """Do it also where it loosens a critical constraint."""


class RevertStep(msgspec.Struct, frozen=True, kw_only=True):
    """The step of a revert for a constraint, or for all of them."""

    id: str
    """Empty for all constraints together; of a parameter with the selector, as `limit on zone=a`."""
    change: str
    """added, replaced, removed, disabled, enabled; of a silence in force again, ended."""
    kind: str = "constraint"
    """constraint, parameter, alert rule, silence."""
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
            request.id,
            kind=request.kind,
            on=request.on,
            to=request.to,
            time=request.time,
            why=request.why,
            dry_run=request.dry_run,
            loosen=request.loosen,
        )
    except (NotKept, UnknownName) as error:
        raise not_found(str(error), error.field) from None


def show_revert(answer: RevertReport, _: Any, __: "Namespace") -> View:
    """A line for each step, and its label."""
    kinds = {kind: f"{kind} " for kind in REVERTED[1:]}
    view = list[str]()
    for each in answer.steps:
        view.append(f"{kinds.get(each.kind, '')}{each.id or 'all constraints'}: {each.change}")
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
        help="undo the last change of a constraint or another rule, go back to a version, or make all what they were at a time",
        group="constraints",
        flags={
            "id": Flag(nargs="?", metavar="ID", help="the constraint, or what --kind says"),
            "kind": Flag("--kind", choices=REVERTED, help="what ID names; default: constraint"),
            "on": Flag("--on", metavar="SELECTOR", help="of a parameter: its setting for these nodes"),
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
            "all_": Flag("--all", action="store_true", help="all rules, as they were at the time of --to; asks first"),
            "yes": Flag("--yes", action="store_true", help="do not ask"),
        },
    ),
)


# --- rollouts ---------------------------------------------------------------------------------------------------------------

DEFAULT_GATE: Final = "violations == 0 for 10m"

GATE_VARIABLES: Final = ("violations", "violated", "unknown", "nodes", "reachable")
"""Of the staged constraints on the nodes of the stages begun: violated judgements since the begin of the stage, pairs of a
constraint and a node violated now, pairs undecided now, the nodes, and the live nodes with a judgement by the new definitions."""

MOST_NAMED: Final = 10
"""Nodes of a stage named in a report."""


class BeginRollout(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """`POST /v1/rollouts`."""

    constraints: Sequence[AddConstraint]
    """The new definitions, without an end and of scope node."""
    stages: Sequence[str]
    """Selectors of nodes, in their order. After the last one the definitions are in force everywhere."""
    gate: str = DEFAULT_GATE
    timeout: float | None = None
    """Seconds for which a stage may wait, beyond the time of its gate; null: 10 minutes."""
    why: str = ""


class StageReport(msgspec.Struct, frozen=True, kw_only=True):
    """A stage of a rollout."""

    on: str
    """The selector of its nodes."""
    state: str
    """done, begun, waiting, rolled back."""
    nodes: tuple[str, ...]
    """The selected nodes, as this node sees the fleet; 10 at most."""
    nodes_in_all: int


class StagedFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of the gate, as this node sees the nodes of the stages begun."""

    violations: int = 0
    violated: int = 0
    unknown: int = 0
    nodes: int = 0
    reachable: int = 0


class RolloutReport(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout, as this node sees it."""

    id: str
    phase: str
    """running, stopped, complete, rolled back."""
    stage: int
    """The last stage begun, from 1."""
    stages: tuple[StageReport, ...]
    gate: str
    timeout: float
    """Seconds."""
    began: int
    """ns since the epoch by the clock of the node on which it was begun, as `since`."""
    begun_by: str
    """A person, a token or a program."""
    begun_on: str
    """The node."""
    why: str
    since: int
    """When the stage began, or the rollout stopped or ended."""
    by: str
    """The actor of the last step: a person, a token, a program, or the rollout itself."""
    by_node: str
    reason: str
    """Why it stopped, or went back."""
    constraints: tuple[str, ...]
    new: tuple[str, ...]
    """The constraints without a definition in force before."""
    applies_here: bool
    """This node is in a stage begun."""
    figures: StagedFigures
    waits_for: str
    """Why a running rollout does not go on yet, as this node sees the fleet."""
    holds_for: float | None
    """Seconds for which the gate has held, as this node sees the fleet; null: the gate does not hold."""


class NamedRollout(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout."""

    id: str
    """Its id, or the beginning of it."""


class RolloutCommand(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The body of a command on a rollout."""

    why: str = ""


class StopRollout(RolloutCommand, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/rollouts/{id}/stop`."""

    id: str


class ContinueRollout(RolloutCommand, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/rollouts/{id}/continue`."""

    id: str


class RollBack(RolloutCommand, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/rollouts/{id}/back`."""

    id: str


class RolledBack(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout was rolled back."""

    rollout: RolloutReport
    restored: tuple[str, ...]
    """The constraints with their former definitions."""
    kept: tuple[str, ...]
    """The constraints with another edit meanwhile, which stay as they are."""


def begin_rollout(
    constraints: Sequence[Mapping[str, object]],
    *,
    stages: Sequence[str],
    gate: str = DEFAULT_GATE,
    timeout: float | None = None,
    why: str = "",
) -> BeginRollout:
    """The request of the clients' `begin_rollout`: the node checks the definitions."""
    return BeginRollout(
        constraints=cast("Sequence[AddConstraint]", list(constraints)), stages=list(stages), gate=gate, timeout=timeout, why=why
    )


async def _begin_rollout(node: "Node", request: BeginRollout) -> Reply[RolloutReport]:
    try:
        report = await node.rollouts.begin(
            request.constraints, stages=request.stages, gate=request.gate, timeout=request.timeout, why=request.why
        )
    except BatchError as error:
        place = f"constraints[{error.index}].{(error.field or '').removeprefix('add.')}"
        raise wrong(f"`{place}`: {error}", place) from None
    return Reply(report, created=True)


def show_rollout(each: RolloutReport) -> list[str | Table]:
    """A rollout in sentences, and a row for each stage."""
    now = time.time()
    figures = each.figures
    view: list[str | Table] = [show_step(each)]
    if each.why:
        view.append(f"why: {each.why}")
    view.append(f"gate: {each.gate}; a stage waits for {show_duration(each.timeout)} beyond that")
    named = [f"{id_} (new)" if id_ in each.new else id_ for id_ in each.constraints]
    view.append(f"constraints: {_some(named[:20], len(named))}")
    columns = [Column(title) for title in ("stage", "nodes with", "state", "nodes")]
    rows = [
        [
            str(number), stage.on, stage.state,
            _some(stage.nodes, stage.nodes_in_all),
        ]
        for number, stage in enumerate(each.stages, start=1)
    ]  # fmt: skip
    view.append(Table(columns, rows))
    if each.phase in ("running", "stopped"):
        view.append(
            f"on the nodes so far: {figures.violations} violations in this stage, {figures.violated} violated now, "
            f"{figures.unknown} unknown; {figures.reachable} of {figures.nodes} nodes judge by it"
        )
    view.append(f"begun {show_time(each.began, now)} by {each.begun_by} on {each.begun_on}")
    return view


def _some(names: Sequence[str], count: int) -> str:
    """Names, and how many more there are."""
    return ", ".join(names) + (f" and {count - len(names)} more" if count > len(names) else "") or "-"


def show_step(each: RolloutReport) -> str:
    """Where a rollout stands, in a sentence."""
    where = f"stage {each.stage} of {len(each.stages)}"
    if each.phase == "running":
        held = "" if each.holds_for is None else f"the gate has held for {each.holds_for:.0f} s"
        told = "; ".join(part for part in (held, each.waits_for) if part)
        return f"{each.id}: running, {where}{': ' + told if told else ''}"
    if each.phase == "stopped":
        return f"{each.id}: STOPPED in {where}: {each.reason}"
    return f"{each.id}: {each.phase}{', ' + each.reason if each.reason else ''}"


def show_rollouts(answer: list[RolloutReport]) -> View:
    """A row for each rollout, the newest last."""
    if not answer:
        return "no rollout: `constraint-crdt apply FILE --stage SELECTOR` begins one"
    now = time.time()
    columns = [Column(title) for title in ("rollout", "phase", "stage", "constraints", "since", "by", "reason")]
    rows = [
        [
            each.id, each.phase, f"{each.stage} of {len(each.stages)}", str(len(each.constraints)), show_time(each.since, now),
            f"{each.by} on {each.by_node}", each.reason or each.waits_for or "-",
        ]
        for each in answer
    ]  # fmt: skip
    return Table(columns, rows)


BEGIN_ROLLOUT: Final = Operation(
    name="begin_rollout",
    method=POST,
    path="/v1/rollouts",
    summary="Give constraints new definitions in stages.",
    about="Give constraints new definitions in stages of nodes: each goes on once the gate has held on the nodes so far.",
    request=BeginRollout,
    response=RolloutReport,
    run=_begin_rollout,
    body=Body(shape=BeginRollout, limit=MAX_BATCH_BYTES),
    created=True,
    errors=frozenset({409}),
    positional=("constraints",),
    build=begin_rollout,
    extra_timeout=lambda _: 30.0,
)


async def _rollouts(node: "Node", _: Empty) -> list[RolloutReport]:
    return node.rollouts.reports()


ROLLOUTS: Final = Operation(
    name="rollouts",
    method=GET,
    path="/v1/rollouts",
    summary="The rollouts of the fleet, the newest last.",
    about="The rollouts of the fleet, the newest last. Those that are over are kept until their place is needed.",
    request=Empty,
    response=list[RolloutReport],
    run=_rollouts,
    command=Command(
        name="rollout list",
        example="rollout list",
        help="the rollouts of the fleet: stage, gate, why one stopped",
        group="constraints",
        show=lambda answer, _, __: show_rollouts(answer),
    ),
)


async def _rollout(node: "Node", request: NamedRollout) -> RolloutReport:
    with _named():
        return node.rollouts.report(request.id)


@contextlib.contextmanager
def _named() -> Iterator[None]:
    """Answer an unknown rollout with 404."""
    try:
        yield
    except UnknownName as error:
        if error.kind != "rollout":
            raise
        raise not_found(f"there is no rollout {error.name!r} here: `constraint-crdt rollout list` tells their ids", "id") from None


ROLLOUT: Final = Operation(
    name="rollout",
    method=GET,
    path="/v1/rollouts/{id}",
    summary="A rollout.",
    about="A rollout, by its id or the beginning of it.",
    request=NamedRollout,
    response=RolloutReport,
    run=_rollout,
    by_segment=True,
    command=Command(
        name="rollout show",
        example="rollout show ID",
        help="a rollout: its stages, what its gate reads, why it waits or stopped",
        group="constraints",
        flags={"id": Flag(metavar="ID", help="its id, or the beginning of it")},
        show=lambda answer, _, __: show_rollout(answer),
    ),
)

_ROLLOUT_FLAGS: Final = {
    "id": Flag(metavar="ID", help="its id, or the beginning of it"),
    "why": Flag("--why", metavar="TEXT", help="the reason, for everybody who looks"),
}


async def _stop_rollout(node: "Node", request: StopRollout) -> RolloutReport:
    with _named():
        return await node.rollouts.stop(request.id, why=request.why)


STOP_ROLLOUT: Final = Operation(
    name="stop_rollout",
    method=POST,
    path="/v1/rollouts/{id}/stop",
    summary="Stop a rollout where it is.",
    about="Stop a rollout where it is: the nodes of the stages begun keep the new definitions, no other node gets them.",
    request=StopRollout,
    response=RolloutReport,
    run=_stop_rollout,
    body=Body(shape=RolloutCommand),
    errors=frozenset({404, 409}),
    by_segment=True,
    command=Command(
        name="rollout stop",
        example="rollout stop ID --why 'the dock is closed'",
        help="stop a rollout where it is; `continue` goes on, `back` rolls back",
        group="constraints",
        flags=_ROLLOUT_FLAGS,
        show=lambda answer, _, __: show_step(answer),
    ),
)


async def _continue_rollout(node: "Node", request: ContinueRollout) -> RolloutReport:
    with _named():
        return await node.rollouts.go_on(request.id, why=request.why)


CONTINUE_ROLLOUT: Final = Operation(
    name="continue_rollout",
    method=POST,
    path="/v1/rollouts/{id}/continue",
    summary="Have a stopped rollout go on.",
    about="Have a stopped rollout go on in its stage, whose violations are counted anew.",
    request=ContinueRollout,
    response=RolloutReport,
    run=_continue_rollout,
    body=Body(shape=RolloutCommand),
    errors=frozenset({404, 409}),
    by_segment=True,
    command=Command(
        name="rollout continue",
        example="rollout continue ID",
        help="have a stopped rollout go on in its stage; violations are counted anew",
        group="constraints",
        flags=_ROLLOUT_FLAGS,
        show=lambda answer, _, __: show_step(answer),
    ),
)


async def _roll_back(node: "Node", request: RollBack) -> RolledBack:
    with _named():
        return await node.rollouts.back(request.id, why=request.why)


def show_rolled_back(answer: RolledBack) -> View:
    """The result, in a sentence; a line for each constraint with another edit."""
    done = f"as before: {_some(answer.restored[:20], len(answer.restored))}" if answer.restored else "nothing to restore"
    kept = [f"note: {id_} was changed by somebody else meanwhile, and stays as it is" for id_ in answer.kept]
    return [f"{answer.rollout.id}: rolled back, {done}", *kept]


ROLL_BACK: Final = Operation(
    name="roll_back",
    method=POST,
    path="/v1/rollouts/{id}/back",
    summary="Roll a rollout back.",
    about="Give the constraints of a rollout their former definitions, in one transaction; of a complete rollout, too.",
    request=RollBack,
    response=RolledBack,
    run=_roll_back,
    body=Body(shape=RolloutCommand),
    errors=frozenset({404, 409}),
    by_segment=True,
    command=Command(
        name="rollout back",
        example="rollout back ID --why 'false alarms in zone b'",
        help="give the constraints of a rollout their former definitions, also once it is complete",
        group="constraints",
        flags=_ROLLOUT_FLAGS,
        show=lambda answer, _, __: show_rolled_back(answer),
    ),
)
