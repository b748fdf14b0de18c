"""The operations of the node as a service: health, metrics, the OpenAPI document, events, and whole states as state files.

Its health has two depths: the probes of an orchestrator, and the diagnosis with its findings. The
server answers metrics, documents and events from its own parts. The clients have a handwritten method for events.
"""

from collections.abc import Iterable
from datetime import datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from constraint_crdt.crdt.limits import DURATION_MAX
from constraint_crdt.model import KEPT, EventKind, counted
from constraint_crdt.operations.constraints import LOOSEN
from constraint_crdt.operations.operation import (
    GET,
    JSON,
    PAGED,
    POST,
    SECONDS,
    TEXT,
    WHOLE,
    YES_NO,
    Answer,
    Body,
    Column,
    Command,
    Empty,
    Flag,
    Operation,
    Paged,
    Parameter,
    Problem,
    Reply,
    Right,
    Table,
    View,
    concatenated,
    number,
    parse_count,
    parse_duration,
    parse_flag,
    parse_whole,
)

if TYPE_CHECKING:
    from argparse import Namespace

    from constraint_crdt.runtime.node import Node

# --- health and documents ---------------------------------------------------------------------------------------------------------


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """A node is there, or ready. (Else there is a problem.)"""

    ok: bool


async def _alive(_: "Node", __: Empty) -> Health:
    """The event loop of the node turns."""
    return Health(ok=True)


ALIVE: Final = Operation(
    name="alive",
    method=GET,
    path="/healthz",
    summary="Whether the node is there.",
    request=Empty,
    response=Health,
    run=_alive,
    right=Right.NONE,
)


async def _ready(node: "Node", _: Empty) -> Health:
    trouble = node.not_ready()
    if trouble is not None:
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, trouble, headers={"retry-after": "1"})
    return Health(ok=True)


READY: Final = Operation(
    name="ready",
    method=GET,
    path="/readyz",
    summary="Whether it takes part, and takes writes.",
    about="Whether the node takes part in its fleet, and takes writes. Raises `Busy` if not.",
    request=Empty,
    response=Health,
    run=_ready,
    right=Right.NONE,
)

METRICS: Final = Operation(
    name="metrics",
    method=GET,
    path="/metrics",
    summary="The node for Prometheus.",
    about="The node for Prometheus, as text.",
    request=Empty,
    response=str,
    run=None,
    media_type="text/plain",
    document=Answer(media_type="text/plain"),
    ignores_others=True,
)

OPENAPI: Final = Operation(
    name="openapi",
    method=GET,
    path="/openapi.json",
    summary="This document.",
    about="The OpenAPI document of the node.",
    request=Empty,
    response=dict[str, Any],
    run=None,
    right=Right.NONE,
)

DOCS: Final = Operation(
    name="docs",
    method=GET,
    path="/docs",
    summary="This document, for people.",
    request=Empty,
    response=str,
    run=None,
    media_type="text/html",
    document=Answer(media_type="text/html"),
    right=Right.NONE,
    in_clients=False,
)


# --- events -----------------------------------------------------------------------------------------------------------------------


class FollowEvents(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /v1/events`."""

    last: int = 0
    kind: tuple[str, ...] = ()
    """Only these kinds; empty: all."""
    follow: bool = True
    last_event_id: str | None = None
    last_event_id_header: str | None = None


EVENTS: Final = Operation(
    name="events",
    method=GET,
    path="/v1/events",
    summary="What happens, as server-sent events.",
    request=FollowEvents,
    response=str,
    run=None,
    media_type="text/event-stream",
    document=Answer(media_type="text/event-stream"),
    parameters=(
        Parameter(
            name="last",
            about="begin with so many that have happened already",
            schema={**WHOLE, "maximum": KEPT, "default": 0},
            parse=parse_whole(0, KEPT),
        ),
        Parameter(
            name="kind",
            about="only events of these kinds, as violated or peer-up",
            schema={"type": "array", "items": {"type": "string", "enum": [each.value.replace(" ", "-") for each in EventKind]}},
            many=True,
        ),
        Parameter(name="follow", about="0: end after those", schema={**YES_NO, "default": "1"}, parse=parse_flag),
        Parameter(name="last_event_id", about="go on after this one, for who cannot send the header"),
        Parameter(name="last-event-id", about="go on after this one", schema=TEXT, place="header", field="last_event_id_header"),
    ),
    in_clients=False,
    command=Command(
        name="events",
        example="events --follow --kind violated",
        help="what happened in the fleet of late, as the node knows it, and what happens",
        group="observe",
        flags=dict.fromkeys(FollowEvents.__struct_fields__),
        options={
            "follow": Flag("--follow", action="store_true", help="go on until Ctrl-C"),
            "last": Flag(
                "--last", type=parse_count, metavar="N", help="begin with so many; default: all that are kept, 10 with --follow"
            ),
            "kind": Flag(
                "--kind", action="append", metavar="KIND", help="only events of this kind, as peer-up or unknown; may be repeated"
            ),
            "constraint": Flag(
                "--constraint",
                action="append",
                metavar="ID",
                help="only events of this constraint, or of a pattern; may be repeated",
            ),
            "of": Flag("--of", action="append", metavar="NODE", help="only events on this node, or by it; may be repeated"),
            "each": Flag("--each", action="store_true", help="a line for each event, also of those that flap or happen at once"),
        },
    ),
)


# --- states -----------------------------------------------------------------------------------------------------------------------


MAX_IMPORT_BYTES: Final = 64 * 1024 * 1024


class ImportState(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /v1/import`."""

    content: bytes
    """A state file."""


class ImportReport(msgspec.Struct, frozen=True):
    """The effect of merging a state."""

    changed: bool
    cells: int
    """New cells."""
    constraints: int
    """Constraints added, removed or changed."""


async def _export(node: "Node", _: Empty) -> bytes:
    return (await node.export_state()).encode()


EXPORT: Final = Operation(
    name="export",
    method=GET,
    path="/v1/export",
    summary="Everything the node knows, as a state file.",
    request=Empty,
    response=bytes,
    run=_export,
    media_type=JSON,
    document=Answer(dict[str, Any]),
    extra_timeout=lambda _: 60.0,
    command=Command(
        name="export",
        example="export -o state.json",
        help="write all that a node knows, or that is in a store, to a state file",
        group="files",
        options={
            "store": Flag(
                "--store",
                default=None,
                metavar="PATH",
                help="read this store, and ask no node: that of a retired node, for example. It may be in use, and stays as it is",
            ),
            "constraints": Flag(
                "--constraints",
                action="store_true",
                help="constraints, parameters, budgets and alert rules, as TOML for apply",
            ),
            "output": Flag("-o", "--output", default="-", metavar="FILE", help="where to write it; default: standard output"),
        },
    ),
)


async def _import(node: "Node", request: ImportState) -> ImportReport:
    return await node.import_state(request.content, max_bytes=MAX_IMPORT_BYTES)


def show_import(answer: ImportReport) -> str:
    """The new cells, in a sentence."""
    if not answer.changed:
        return "nothing new: the node knew all of it"
    return f"taken in: {counted(answer.cells, 'new cell')}; constraints that changed: {answer.constraints}"


IMPORT_STATE: Final = Operation(
    name="import_state",
    method=POST,
    path="/v1/import",
    right=Right.OPERATE,
    summary="Merge a state file into the node.",
    request=ImportState,
    response=ImportReport,
    run=_import,
    body=Body(limit=MAX_IMPORT_BYTES, field="content"),
    positional=("content",),
    extra_timeout=lambda _: 60.0,
    command=Command(
        name="import",
        example="import state.json --dry-run",
        help="have a node take in what a state file knows",
        group="files",
        flags={"content": None},
        options={
            "file": Flag(metavar="FILE", help="the state file; - for standard input"),
            "constraints": Flag(
                "--constraints",
                action="store_true",
                help="take its constraints alone, as `apply` does, and none of its nodes",
            ),
            "dry_run": Flag("--dry-run", action="store_true", help="say what would change, and which nodes are unknown here"),
            "loosen": LOOSEN,
        },
    ),
)


# --- sessions and the audit ----------------------------------------------------------------------------------------------------


class SessionReport(msgspec.Struct, frozen=True, kw_only=True):
    """The sender of the request, and the rights of the sender on this node."""

    name: str
    """Of the token; `local` on a node without tokens."""
    role: str
    """Of the token: read, measure, operate."""
    ends: int | None
    """The end of the token, in ns since the epoch; null: none."""
    node: str
    node_role: str | None
    """The role in the certificate of the node: observer, member, operator; null without an identity."""
    may: str
    """The role that counts here: that of the token, within that of the node."""


SESSION: Final = Operation(
    name="session",
    method=GET,
    path="/v1/session",
    summary="Who is signed in, with which role.",
    request=Empty,
    response=SessionReport,
    run=None,
)


class ReadAudit(Paged, frozen=True, kw_only=True):
    """`GET /v1/audit`."""

    since: float | None = None
    actor: str | None = None


class AuditReport(msgspec.Struct, frozen=True, kw_only=True):
    """A change of constraints or membership, and who caused it."""

    id: str
    """For `after`: the entries are in this order."""
    time: int
    """In ns since the epoch, by the clock of the node."""
    actor: str
    """A person, a token or a program, as the node says; `local`: a client of a node without tokens."""
    node: str
    """The node on which the change was made."""
    operation: str
    subject: str
    """The constraint, the node, or the number of them."""
    changes: int
    """Mutations of the change."""
    why: str = ""
    """The reason that the actor gave."""


async def _audit(node: "Node", request: ReadAudit) -> Reply[list[AuditReport]]:
    since = 0 if request.since is None else node.gossip.time.now() - round(request.since * 1e9)
    found = {
        f"{each.time:019d}-{each.dot.replica}-{each.dot.seq}": each
        for each in node.audit()
        if each.time >= since and request.actor in (None, each.actor)
    }
    page, following = request.page(sorted(found))
    reports = [
        AuditReport(
            id=id_, time=each.time, actor=each.actor, node=each.dot.replica.node_id,
            operation=each.operation, subject=each.subject, changes=each.changes, why=each.why,
        )
        for id_, each in ((id_, found[id_]) for id_ in page)
    ]  # fmt: skip
    return Reply(reports, next_after=following)


def show_audit(answer: list[AuditReport], _: ReadAudit, __: "Namespace") -> View:
    """A row for each change."""
    if not answer:
        return "the audit has no such change"
    rows = [[local_time(each.time), each.actor, each.node, each.operation, each.subject, each.changes, each.why] for each in answer]
    columns = [*map(Column, ("when", "who", "on", "what", "of")), Column("mutations", right=True), Column("why")]
    most = len(columns) if any(each.why for each in answer) else len(columns) - 1
    return Table(columns[:most], [row[:most] for row in rows])


def local_time(ns: int) -> str:
    """A time in ns since the epoch as date and time of this machine, with its zone."""
    return datetime.fromtimestamp(ns / 1e9).astimezone().isoformat(sep=" ", timespec="seconds")


def parse_past(text: str) -> float:
    """Seconds before now. Raises `ValueError` with the end of a sentence."""
    seconds = number(text)
    if seconds is None or not 0 <= seconds <= DURATION_MAX:
        raise ValueError(f": seconds from 0 to {DURATION_MAX}, not {text!r}")
    return seconds


AUDIT: Final = Operation(
    name="audit",
    method=GET,
    path="/v1/audit",
    summary="Who changed constraints and membership, where and when.",
    about="Who changed constraints and membership, where and when: the last 1,000 changes of each node, the newest last.",
    request=ReadAudit,
    response=list[AuditReport],
    run=_audit,
    parameters=(
        *PAGED,
        Parameter(
            name="since",
            about="only changes of so many seconds before now",
            schema={**SECONDS, "maximum": DURATION_MAX},
            parse=parse_past,
        ),
        Parameter(name="actor", about="only changes of this person, token or program"),
    ),
    join=concatenated,
    command=Command(
        name="audit",
        example="audit",
        help="who changed constraints and membership, where and when",
        group="observe",
        flags={
            "since": Flag("--since", metavar="TIME", convert=parse_duration, help="only the changes of this time, as in 1h"),
            "actor": Flag("--actor", metavar="NAME", help="only the changes of this person, token or program"),
        },
        show=show_audit,
    ),
)


Level = Literal["ok", "warn", "fail"]

# --- responses --------------------------------------------------------------------------------------------------------------


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a check."""

    check: str
    """The check: name, clock, seeds, peers, view, silent, store, disk, agreement, messages, software, certificates,
    undecidable, retired, budgets, actions, rollouts, api, tokens; by the command line also node, settings, port."""
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
    extra_timeout=lambda _: 30.0,
    command=Command(
        name="doctor",
        example="doctor --node forge:8470",
        help="look for what is usually wrong, and say what to do",
        group="observe",
        options={"config": Flag("--config", metavar="FILE", help="the settings of the node, to be looked at too")},
    ),
)
