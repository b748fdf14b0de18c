"""The operations on the health of a node: the diagnosis with its findings, and the alerts with their rules."""

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from constraint_crdt.operations.command import Column, Command, Flag, Table, View, show_time
from constraint_crdt.operations.operation import GET, Empty, Operation

if TYPE_CHECKING:
    from argparse import Namespace

    from constraint_crdt.runtime.node import Node

Level = Literal["ok", "warn", "fail"]

# --- responses --------------------------------------------------------------------------------------------------------------


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a check."""

    check: str
    """The check: name, clock, seeds, peers, view, silent, store, disk, agreement, messages, software, certificates,
    undecidable, retired; by the command line also node, settings, port."""
    level: Level
    what: str
    """The finding, a sentence."""
    advice: str = ""
    """The advice; empty at level ok."""


class DiagnosisReport(msgspec.Struct, frozen=True, kw_only=True):
    """The results of all checks on a node."""

    node: str
    worst: Level
    findings: tuple[Finding, ...]


class AlertReport(msgspec.Struct, frozen=True, kw_only=True):
    """A firing or pending alert. Times in ns since the epoch by this node's clock."""

    rule: str
    kind: str
    subject: str
    """The constraint or the node concerned."""
    firing: bool
    """False: pending, for less than `lasts` yet."""
    since: int
    """The beginning of the condition."""
    fired_at: int | None
    detail: str


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
    """Addresses, reduced to scheme and host."""


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


# --- operations -------------------------------------------------------------------------------------------------------------


def worst_of(findings: Iterable[Finding]) -> Level:
    """The level of the worst finding."""
    levels = {finding.level for finding in findings}
    return "fail" if "fail" in levels else "warn" if "warn" in levels else "ok"


async def _diagnosis(node: "Node", _: Empty) -> DiagnosisReport:
    """Takes a few seconds where a seed does not answer."""
    import asyncio  # loaded by nodes only: commands need no event loop

    outside = await asyncio.to_thread(node.diagnosis.look_outside)
    report = node.diagnosis.look()
    findings = (*report.findings, *outside)
    return msgspec.structs.replace(report, findings=findings, worst=worst_of(findings))


DIAGNOSIS: Final = Operation(
    name="diagnosis",
    method=GET,
    path="/v1/diagnosis",
    summary="What is wrong, and what to do about it.",
    about="The faults of the node, each with advice.",
    request=Empty,
    response=DiagnosisReport,
    run=_diagnosis,
    patience=lambda _: 30.0,
    command=Command(
        name="doctor",
        help="look for what is usually wrong, and say what to do",
        group="observe",
        options={"config": Flag("--config", metavar="FILE", help="the settings of the node, to be looked at too")},
    ),
)


async def _alerts(node: "Node", _: Empty) -> AlertsReport:
    return node.alerts.report()


def show_alerts(answer: AlertsReport, _: Empty, __: "Namespace") -> View:
    """A sentence, a row for each alert, and notes on their delivery."""
    now = time.time()
    if not answer.rules:
        return "this node has no alerts: write some under [[alert]] in its settings file"
    firing = sum(each.firing for each in answer.alerts)
    view: list[str | Table] = [f"firing: {firing}, about to fire: {len(answer.alerts) - firing}, rules: {len(answer.rules)}"]
    if answer.alerts:
        columns = [Column("alert"), Column("about"), Column("state"), Column("since"), Column("what")]
        rows = [
            [each.rule, each.subject, "firing" if each.firing else "pending", show_time(each.since, now), each.detail]
            for each in answer.alerts
        ]
        view.append(Table(columns, rows))
    if answer.waiting:
        view.append(f"{answer.waiting} messages wait for webhooks that do not take them")
    if answer.dropped:
        view.append(f"{answer.dropped} messages could not be delivered since the start: the node's log says why")
    if answer.untracked:
        view.append(f"{answer.untracked} more are so, beyond the most that are followed at once")
    return view


ALERTS: Final = Operation(
    name="alerts",
    method=GET,
    path="/v1/alerts",
    summary="The alerts of the node, and the rules that they follow.",
    request=Empty,
    response=AlertsReport,
    run=_alerts,
    command=Command(name="alerts", help="what the node's alerts have found", group="observe", show=show_alerts),
)
