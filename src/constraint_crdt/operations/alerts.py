"""The operations on what follows from verdicts: alerts with their rules, silences and acknowledgements, actions, and guards.

A node answers about the alerts that it evaluates itself. Rules, silences and acknowledgements are those of the whole fleet,
as far as the node has heard of them. Answers hold no address of a destination, since an address may hold a secret.

A guard follows whether constraints hold on a node, and from when on they do not. Only constraints of mode enforce that apply to the
node and are not disabled bind a guard. A pending constraint holds; a clearing constraint is violated. Without a judgement a
constraint is unknown. A named constraint that is not active binds nothing, and is told as missing.
"""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

import msgspec

from constraint_crdt.model import counted
from constraint_crdt.operations.operation import (
    DELETE,
    GET,
    POST,
    PUT,
    TEXT,
    Body,
    Column,
    Command,
    CompositeCommand,
    Empty,
    Flag,
    Operation,
    Parameter,
    Reply,
    Right,
    Table,
    UsageError,
    View,
    not_found,
    parse_duration,
    show_duration,
    show_time,
)

if TYPE_CHECKING:
    from argparse import Namespace

    from constraint_crdt.client.blocking import Client
    from constraint_crdt.runtime.node import Node


DEFAULT_SILENCE: Final = 2 * 3600.0
DEFAULT_ACKNOWLEDGEMENT: Final = 24 * 3600.0
"""Seconds."""

# --- requests ---------------------------------------------------------------------------------------------------------------


class RuleDefinition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `PUT /v1/alerts/rules/{name}`: as an `[[alert]]` of a settings file. Durations in seconds."""

    kind: str
    constraint: str | None = None
    node: str | None = None
    on: str | None = None
    """A selector of nodes, as `zone in (a, b)`."""
    budget: str | None = None
    half_life: float | None = None
    above: float | None = None
    above_share: float | None = None
    within: float | None = None
    for_: float | None = msgspec.field(default=None, name="for")
    keep_firing_for: float | None = None
    repeat: float | None = None
    to: list[str] | None = None
    """`log`, and names of destinations in the settings of some nodes; by default `log`."""


class DefineRule(RuleDefinition, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`PUT /v1/alerts/rules/{name}`."""

    name: str


class NamedRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`DELETE /v1/alerts/rules/{name}`."""

    name: str


class SilenceAlerts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/silences`."""

    alert: str
    """A pattern with * and ?, of names of rules, constraints or nodes."""
    why: str
    on: str = ""
    """A selector of nodes, as `zone in (a, b)`: alerts that concern these nodes only."""
    for_: float = msgspec.field(default=DEFAULT_SILENCE, name="for")
    """Seconds, at most a year."""


class NamedSilence(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`DELETE /v1/silences/{id}`."""

    id: str


class AcknowledgeAlert(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/alerts/acknowledge`."""

    alert: str
    """The name of a rule, for all of its alerts that fire, or RULE/SUBJECT."""
    why: str = ""
    for_: float = msgspec.field(default=DEFAULT_ACKNOWLEDGEMENT, name="for")
    """Seconds, at most. It ends with the alert, too."""


# --- responses --------------------------------------------------------------------------------------------------------------


class AlertReport(msgspec.Struct, frozen=True, kw_only=True):
    """A firing or pending alert. Times in ns since the epoch by this node's clock."""

    rule: str
    kind: str
    subject: str
    """The constraint, the node or the budget concerned."""
    firing: bool
    """False: pending, for less than `lasts` yet."""
    since: int
    """The beginning of the condition."""
    fired_at: int | None
    detail: str
    silenced: tuple[str, ...] = ()
    """The silences that cover it."""
    acknowledged: str | None = None
    """Who acknowledged it."""
    told: dict[str, str] = {}
    """By destination the node that told it."""


class RuleReport(msgspec.Struct, frozen=True, kw_only=True):
    """A rule, without secrets."""

    name: str
    kind: str
    constraint: str | None
    node: str | None
    half_life: float | None
    above: float | None
    above_share: float | None
    lasts: float
    """Seconds for which the condition must last."""
    to: tuple[str, ...]
    """Names of destinations; addresses, reduced to scheme and host."""
    on: str | None = None
    budget: str | None = None
    within: float | None = None
    keeps: float = 0.0
    """Seconds for which the condition must be over before the alert ends."""
    repeat: float | None = None
    of_fleet: bool = False
    """False: it stands in the settings of the node."""
    added_by: str = ""
    """Who defined a rule of the fleet."""
    conflict: bool = False
    """Several definitions were made at once; the latest counts until the next definition."""
    lacking: tuple[str, ...] = ()
    """The destinations that no live node has."""


class AlertsReport(msgspec.Struct, frozen=True, kw_only=True):
    """The rules of a node, and their alerts."""

    alerts: tuple[AlertReport, ...]
    rules: tuple[RuleReport, ...]
    waiting: int
    """Messages not delivered yet."""
    delivered: int
    """Messages delivered since the start."""
    dropped: int
    """Undeliverable messages."""
    untracked: int
    """Conditions beyond the bound of tracked alerts, at the last evaluation."""
    refused: dict[str, str] = {}
    """By name the rules of the fleet that this node cannot evaluate, and why."""


class ActionReport(msgspec.Struct, frozen=True, kw_only=True):
    """An action in the settings of a node. Figures since the start of the node."""

    name: str
    constraint: str
    """The pattern of the constraints."""
    turns: tuple[str, ...]
    way: str
    """command, webhook, zenoh or mqtt."""
    to: str
    """The program, the key, the broker and the topic, or the address without its secret parts."""
    acting: tuple[str, ...]
    """The constraints that are violated or unknown, as the action was told; 100 at most."""
    waiting: int
    delivered: int
    dropped: int
    failed: int
    """Failed attempts."""
    last_failure: str = ""
    last_failed_at: int | None = None
    """In ns since the epoch."""


class WaitingTurn(msgspec.Struct, frozen=True, kw_only=True):
    """A turn of a constraint that an action was not told yet."""

    action: str
    constraint: str
    turn: str
    at: int
    """In ns since the epoch."""
    tries: int
    """Attempts that were begun."""
    runs: bool
    """An attempt runs now."""
    why: str
    """The reason for which the last attempt failed."""


class ActionsReport(msgspec.Struct, frozen=True, kw_only=True):
    """The actions of a node."""

    actions: tuple[ActionReport, ...]
    waiting: tuple[WaitingTurn, ...]
    """The first 100."""
    unfollowed: int = 0
    """Turns that were not followed, beyond the most constraints at once."""
    unsaved: str = ""
    """The reason for which waiting turns are not on disk; empty if it is."""


class RuleChange(msgspec.Struct, frozen=True, kw_only=True):
    """The change of a rule of the fleet."""

    name: str
    change: str
    """added, replaced, unchanged, removed."""
    lacking: tuple[str, ...] = ()
    """The destinations that no live node has."""


class SilenceReport(msgspec.Struct, frozen=True, kw_only=True):
    """A silence or an acknowledgement. Times in ns since the epoch."""

    id: str
    alert: str
    """The pattern; of an acknowledgement RULE/SUBJECT."""
    acknowledges: bool
    on: str
    until: int
    why: str
    actor: str
    node: str
    """The node that wrote it."""
    at: int


# --- what fires -------------------------------------------------------------------------------------------------------------


async def _alerts(node: "Node", _: Empty) -> AlertsReport:
    return node.alerts.report()


def show_alerts(answer: AlertsReport, _: "Namespace") -> View:
    """A sentence, a row for each alert, and notes on their delivery."""
    now = time.time()
    if not answer.rules and not answer.refused:
        return "this node has no alerts: `constraint-crdt alerts add` defines some for the fleet, [[alert]] in its settings others"
    firing = sum(each.firing for each in answer.alerts)
    view: list[str | Table] = [f"firing: {firing}, about to fire: {len(answer.alerts) - firing}, rules: {len(answer.rules)}"]
    if answer.alerts:
        columns = [Column(title) for title in ("alert", "about", "state", "since", "told", "what")]
        rows = [
            [each.rule, each.subject, _state(each), show_time(each.since, now), _told(each), each.detail] for each in answer.alerts
        ]
        view.append(Table(columns, rows))
    view += [f"{name} is not evaluated here: {why}" for name, why in sorted(answer.refused.items())]
    view += [note for each in answer.rules for note in _lacking(each.name, each.lacking)]
    if answer.waiting:
        view.append(f"{counted(answer.waiting, 'message', 'waits', 'wait')} for webhooks that do not take them")
    if answer.dropped:
        view.append(f"{counted(answer.dropped, 'message')} could not be delivered since the start: the node's log says why")
    if answer.untracked:
        view.append(f"{answer.untracked} more are so, beyond the most that are followed at once")
    return view


def _state(each: AlertReport) -> str:
    if not each.firing:
        return "pending"
    if each.silenced:
        return f"silenced ({', '.join(each.silenced)})"
    return "firing" if each.acknowledged is None else f"acknowledged by {each.acknowledged}"


def _told(each: AlertReport) -> str:
    return ", ".join(f"{place} by {node}" for place, node in each.told.items()) or "-"


def _lacking(name: str, places: Sequence[str]) -> list[str]:
    where = f"name it under [destinations] in the settings of a node, or change `to` of {name}"
    return [f"no live node has the destination {place} of {name}: {where}" for place in places]


ALERTS: Final = Operation(
    name="alerts",
    method=GET,
    path="/v1/alerts",
    summary="The alerts of the node, and the rules that they follow.",
    request=Empty,
    response=AlertsReport,
    run=_alerts,
    command=CompositeCommand(
        name="alerts",
        example="alerts",
        help="what the node's alerts have found; or add, remove, list the rules of the fleet",
        group="observe",
        options={},
        call=lambda client, _: client.alerts(),
        show=show_alerts,
    ),
)


def show_actions(answer: ActionsReport) -> View:
    """A row for each action, and a row for each turn that waits."""
    if not answer.actions:
        return "this node has no actions: [[action]] in its settings defines some"
    now = time.time()
    titles = ("action", "constraints", "turns", "to", "acts on", "waiting", "done", "dropped", "failed")
    rows = [
        [
            each.name, each.constraint, ", ".join(each.turns), f"{each.way} {each.to}", str(len(each.acting)), str(each.waiting),
            str(each.delivered), str(each.dropped), str(each.failed),
        ]
        for each in answer.actions
    ]  # fmt: skip
    view: list[str | Table] = [Table([Column(title) for title in titles], rows)]
    if answer.waiting:
        columns = [Column(title) for title in ("waiting for", "constraint", "turn", "since", "attempts", "last failure")]
        rows = [
            [
                each.action, each.constraint, each.turn, show_time(each.at, now), str(each.tries),
                each.why or ("runs" if each.runs else "-"),
            ]
            for each in answer.waiting
        ]  # fmt: skip
        view.append(Table(columns, rows))
    if answer.unfollowed:
        view.append(f"{answer.unfollowed} turns were not followed, beyond the most constraints that are followed at once")
    if answer.unsaved:
        view.append(f"what waits is not on disk: {answer.unsaved}")
    return view


async def _actions(node: "Node", _: Empty) -> ActionsReport:
    return node.actions.report()


ACTIONS: Final = Operation(
    name="actions",
    method=GET,
    path="/v1/actions",
    summary="The actions in the settings of the node, and the turns that wait for them.",
    request=Empty,
    response=ActionsReport,
    run=_actions,
    command=Command(
        name="alerts actions",
        help="the actions in the settings of the node: what waits, what failed",
        example="alerts actions",
        group="observe",
        show=lambda answer, _, __: show_actions(answer),
    ),
)


def show_rules(answer: AlertsReport) -> View:
    """A row for each rule."""
    if not answer.rules and not answer.refused:
        return "no alert rule: `constraint-crdt alerts add` defines one for the fleet"
    columns = [Column(title) for title in ("alert", "kind", "about", "when", "for", "to", "from")]
    rows = []
    for each in answer.rules:
        about = each.constraint or each.node or each.budget or "*"
        by = f"the fleet{', by ' + each.added_by if each.added_by else ''}" if each.of_fleet else "the settings"
        by += ", in conflict" if each.conflict else ""
        rows.append(
            [
                each.name,
                each.kind,
                about,
                _when(each),
                show_duration(each.lasts),
                ", ".join(each.to),
                by,
            ]
        )
    notes = [f"{name} is not evaluated here: {why}" for name, why in sorted(answer.refused.items())]
    return [Table(columns, rows), *notes, *(note for each in answer.rules for note in _lacking(each.name, each.lacking))]


def _when(each: RuleReport) -> str:
    if each.above_share is not None:
        return f"above {100 * each.above_share:g} %"
    if each.above is not None:
        return f"above {each.above:g}"
    return "-" if each.within is None else f"within {show_duration(each.within)}"


# --- rules of the fleet -----------------------------------------------------------------------------------------------------


async def _define(node: "Node", request: DefineRule) -> Reply[RuleChange]:
    table = {key: value for key, value in msgspec.to_builtins(request).items() if value is not None}
    change = await node.fleet_alerts.define(table)
    return Reply(change, created=change.change == "added")


def _seconds(text: str) -> float:
    return 0.0 if text in ("0", "none") else parse_duration(text)


def _call_add(client: "Client", flags: "Namespace") -> RuleChange:
    lengths = {name: _seconds(text) for name in _LENGTHS if (text := getattr(flags, name)) is not None}
    return client.define_alert(
        flags.name,
        kind=flags.kind,
        constraint=flags.constraint,
        node=flags.about_node,
        on=",".join(flags.on) if flags.on else None,
        budget=flags.budget,
        above=flags.above,
        above_share=flags.above_share,
        to=flags.to,
        **lengths,
    )


_LENGTHS: Final = ("half_life", "within", "for_", "keep_firing_for", "repeat")


def show_rule_change(answer: RuleChange, _: "Namespace") -> View:
    """The change in a sentence, and destinations without a node."""
    return [f"{answer.name}: {answer.change}", *_lacking(answer.name, answer.lacking)]


_KINDS: Final = "rate, coverage, divergence, silence, unknown, conflict, budget, clock, skew or certificate"

DEFINE_ALERT: Final = Operation(
    name="define_alert",
    method=PUT,
    path="/v1/alerts/rules/{name}",
    summary="Define an alert rule of the fleet, or replace it.",
    about="Define an alert rule of the fleet, or replace it. Durations in seconds; `to`: `log`, and names of destinations.",
    request=DefineRule,
    response=RuleChange,
    run=_define,
    body=Body(shape=RuleDefinition),
    created=True,
    by_segment=True,
    positional=("name",),
    command=CompositeCommand(
        name="alerts add",
        example="alerts add hot --kind rate --constraint 'thermal*' --for 1m",
        help="define an alert rule for the whole fleet, or replace it",
        group="observe",
        options={
            "name": Flag(metavar="NAME"),
            "kind": Flag("--kind", required=True, metavar="KIND", help=_KINDS),
            "constraint": Flag("--constraint", metavar="PATTERN", help="constraints, with * and ?; default: all"),
            "about_node": Flag("--about", metavar="PATTERN", help="nodes, with * and ?; default: all"),
            "on": Flag("--on", action="append", metavar="SELECTOR", help="nodes with these labels, as zone=a or 'zone in (a, b)'"),
            "budget": Flag("--budget", metavar="PATTERN", help="budgets, with * and ?; default: all"),
            "above": Flag("--above", type=float, metavar="X", help="the threshold of the kind, as violated judgements a minute"),
            "above_share": Flag("--above-share", type=float, metavar="X", help="the threshold as a share, as in 0.01"),
            "half_life": Flag("--half-life", metavar="TIME", help="of a rate; default: the shortest that a node tracks"),
            "within": Flag("--within", metavar="TIME", help="of a certificate, to its end; default: 7d"),
            "for_": Flag("--for", metavar="TIME", help="for which it must be so before it fires"),
            "keep_firing_for": Flag("--keep-firing-for", metavar="TIME", help="for which it must be over; default: 15s"),
            "repeat": Flag("--repeat", metavar="TIME", help="told again while it fires unacknowledged; default: never"),
            "to": Flag("--to", action="append", metavar="DESTINATION", help="log, or a name under [destinations]; may be repeated"),
        },
        call=_call_add,
        show=show_rule_change,
    ),
    more_commands=(
        CompositeCommand(
            name="alerts list",
            example="alerts list",
            help="the alert rules, of the fleet and of the settings of the node",
            group="observe",
            options={},
            call=lambda client, _: client.alerts(),
            show=lambda answer, _: show_rules(answer),
        ),
    ),
)


async def _remove(node: "Node", request: NamedRule) -> RuleChange:
    try:
        return await node.fleet_alerts.remove(request.name)
    except KeyError:
        detail = f"the fleet has no alert rule {request.name!r}, as far as known here"
        raise not_found(detail, "name", name=request.name, known=node.gossip.state.alert_rules) from None


REMOVE_ALERT: Final = Operation(
    name="remove_alert",
    method=DELETE,
    path="/v1/alerts/rules/{name}",
    summary="Remove an alert rule of the fleet.",
    request=NamedRule,
    response=RuleChange,
    run=_remove,
    by_segment=True,
    command=Command(
        name="alerts remove",
        example="alerts remove hot",
        help="remove an alert rule of the fleet; its alerts end",
        group="observe",
        show=lambda answer, _, flags: show_rule_change(answer, flags),
    ),
)

# --- silences ---------------------------------------------------------------------------------------------------------------


async def _silences(node: "Node", _: Empty) -> list[SilenceReport]:
    return node.fleet_alerts.silences()


def show_silences(answer: list[SilenceReport], _: Empty, __: "Namespace") -> View:
    """A row for each."""
    if not answer:
        return "no silence and no acknowledgement is in force"
    now = time.time()
    columns = [Column(title) for title in ("id", "what", "alert", "on", "ends", "by", "why")]
    rows = [
        [
            each.id, "acknowledged" if each.acknowledges else "silence", each.alert, each.on or "-", show_time(each.until, now),
            f"{each.actor} on {each.node}", each.why or "-",
        ]
        for each in answer
    ]  # fmt: skip
    return Table(columns, rows)


SILENCES: Final = Operation(
    name="silences",
    method=GET,
    path="/v1/silences",
    summary="The silences and acknowledgements in force.",
    request=Empty,
    response=list[SilenceReport],
    run=_silences,
    command=Command(
        name="silences", example="silences", help="the silences and acknowledgements in force", group="observe", show=show_silences
    ),
)


async def _silence(node: "Node", request: SilenceAlerts) -> Reply[SilenceReport]:
    report = await node.fleet_alerts.silence(request.alert, why=request.why, on=request.on, for_=request.for_)
    return Reply(report, created=True)


def _call_silence(client: "Client", flags: "Namespace") -> SilenceReport:
    if not flags.why.strip():
        raise UsageError("--why says to the next one who looks why it is quiet: give a reason")
    seconds = DEFAULT_SILENCE if flags.for_ is None else parse_duration(flags.for_)
    return client.silence(flags.alert, why=flags.why, on=",".join(flags.on or ()), for_=seconds)


def show_silence(answer: SilenceReport, _: "Namespace") -> View:
    """The silence in a sentence."""
    where = f" on {answer.on}" if answer.on else ""
    return f"{answer.id}: {answer.alert}{where} is silenced; it ends {show_time(answer.until, time.time())}"


SILENCE: Final = Operation(
    name="silence",
    method=POST,
    path="/v1/silences",
    summary="Silence alerts in the whole fleet, for a time.",
    about="Silence alerts in the whole fleet. `alert`: a pattern of rules, constraints or nodes; `for_`: seconds, 2 h.",
    request=SilenceAlerts,
    response=SilenceReport,
    run=_silence,
    body=Body(shape=SilenceAlerts),
    created=True,
    positional=("alert",),
    command=CompositeCommand(
        name="silence",
        example="silence hot --for 2h --why 'the fan is being changed'",
        help="have alerts not told for a time, on all nodes",
        group="observe",
        options={
            "alert": Flag(metavar="ALERT", help="a rule, a constraint or a node; with * and ? a pattern"),
            "on": Flag("--on", action="append", metavar="SELECTOR", help="only alerts that concern these nodes alone, as zone=a"),
            "for_": Flag("--for", metavar="TIME", help="as in 30m or 2h; default: 2h"),
            "why": Flag("--why", required=True, metavar="TEXT", help="for the next one who looks"),
        },
        call=_call_silence,
        show=show_silence,
    ),
)


async def _unsilence(node: "Node", request: NamedSilence) -> SilenceReport:
    try:
        return await node.fleet_alerts.unsilence(request.id)
    except KeyError:
        raise not_found(f"no silence {request.id!r} is in force here: `constraint-crdt silences` lists them", "id") from None


def show_unsilenced(answer: SilenceReport, _: NamedSilence, __: "Namespace") -> View:
    """The end in a sentence."""
    what = "the acknowledgement of" if answer.acknowledges else "the silence of"
    return f"{answer.id}: {what} {answer.alert} is over"


UNSILENCE: Final = Operation(
    name="unsilence",
    method=DELETE,
    path="/v1/silences/{id}",
    summary="End a silence or an acknowledgement early.",
    request=NamedSilence,
    response=SilenceReport,
    run=_unsilence,
    by_segment=True,
    command=Command(
        name="unsilence",
        example="unsilence ID",
        help="end a silence or an acknowledgement early",
        group="observe",
        show=show_unsilenced,
    ),
)


async def _acknowledge(node: "Node", request: AcknowledgeAlert) -> list[SilenceReport]:
    try:
        return await node.fleet_alerts.acknowledge(request.alert, why=request.why, for_=request.for_)
    except KeyError:
        raise not_found(
            f"no alert {request.alert!r} fires here: give the name of a rule, or RULE/SUBJECT; `constraint-crdt alerts` lists them",
            "alert",
        ) from None


def _call_acknowledge(client: "Client", flags: "Namespace") -> list[SilenceReport]:
    seconds = DEFAULT_ACKNOWLEDGEMENT if flags.for_ is None else parse_duration(flags.for_)
    return client.acknowledge(flags.alert, why=flags.why or "", for_=seconds)


def show_acknowledged(answer: list[SilenceReport], _: "Namespace") -> View:
    """A sentence for each alert."""
    return [f"{each.alert}: acknowledged, and told no more until it ends" for each in answer]


ACKNOWLEDGE: Final = Operation(
    name="acknowledge",
    method=POST,
    path="/v1/alerts/acknowledge",
    summary="Say that an alert is being looked after: it is told no more until it ends.",
    about="Say that an alert is being looked after. `alert`: the name of a rule, or RULE/SUBJECT; `for_` in seconds.",
    request=AcknowledgeAlert,
    response=list[SilenceReport],
    run=_acknowledge,
    body=Body(shape=AcknowledgeAlert),
    errors=frozenset({404}),
    positional=("alert",),
    command=CompositeCommand(
        name="acknowledge",
        example="acknowledge hot --why 'on my way'",
        help="say that an alert is being looked after: it is told no more until it ends",
        group="observe",
        options={
            "alert": Flag(metavar="ALERT", help="the name of a rule, or RULE/SUBJECT"),
            "why": Flag("--why", metavar="TEXT", help="for others"),
            "for_": Flag("--for", metavar="TIME", help="at most; default: 1d"),
        },
        call=_call_acknowledge,
        show=show_acknowledged,
    ),
)


MOST_GUARDED: Final = 1_000
"""Constraints that a guard follows."""

MOST_REASONS: Final = 10
"""Reasons in a report."""

LONGEST_WAIT: Final = 60.0
"""Seconds that a request waits for a change, at most."""

Standing: TypeAlias = Literal["holds", "violated", "unknown"]
"""Whether all guarded constraints hold; `unknown` without a violation."""

_STANDINGS: Final = get_args(Standing)


class GetGuard(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /v1/guard`."""

    id: tuple[str, ...] = ()
    unless: str | None = None
    """The standing known already: the answer waits for another standing."""
    wait: float = 0.0
    """Seconds."""


class GuardReport(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the guarded constraints hold on this node."""

    standing: Standing
    reasons: tuple[str, ...] = ()
    """For each violated or undecided constraint, the violated first: its id, values and margin, or missing values; 10 at most."""
    constraints: int = 0
    """The constraints that bind the guard here."""
    missing: tuple[str, ...] = ()
    """The named constraints that are not active."""


async def _guard(node: "Node", request: GetGuard) -> GuardReport:
    return await node.guards.report(request.id, unless=request.unless, wait=request.wait)


def _parse_standing(text: str) -> str:
    if text not in _STANDINGS:
        raise ValueError(f"must be one of {', '.join(_STANDINGS)}, not {text!r}")
    return text


def _parse_wait(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0.0 <= seconds <= LONGEST_WAIT:
        raise ValueError(f"must be a number of seconds from 0 to {LONGEST_WAIT:g}, not {text!r}")
    return seconds


GUARD_REPORT: Final = Operation(
    name="guard_report",
    method=GET,
    path="/v1/guard",
    right=Right.READ,
    summary="Whether constraints hold on this node.",
    about="Whether constraints hold on this node. `unless`: answer on another standing, or after `wait` seconds (60 at most).",
    request=GetGuard,
    response=GuardReport,
    run=_guard,
    parameters=(
        Parameter(
            name="id",
            about="these constraints; without any, all critical ones",
            schema={"type": "array", "items": TEXT, "maxItems": MOST_GUARDED},
            many=True,
        ),
        Parameter(
            name="unless", about="the standing known already", schema={**TEXT, "enum": list(_STANDINGS)}, parse=_parse_standing
        ),
        Parameter(
            name="wait",
            about="how many seconds to wait for another standing",
            schema={"type": "number", "minimum": 0, "maximum": LONGEST_WAIT},
            parse=_parse_wait,
        ),
    ),
    extra_timeout=lambda request: request.wait,
)
