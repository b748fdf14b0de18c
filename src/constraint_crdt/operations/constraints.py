"""The operations on constraints: list them, add, remove and edit them in a batch, check an expression, and an overview of many."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias, TypedDict, cast

import msgspec
from msgspec import UNSET, UnsetType

from constraint_crdt.crdt.clock import SECOND, dot_text
from constraint_crdt.errors import ConstraintCrdtError, UnknownConstraint
from constraint_crdt.model import IfUnknown, Mode, Scope, Selector, Severity
from constraint_crdt.operations.operation import (
    DELETE,
    GET,
    PAGED,
    PATCH,
    POST,
    TEXT,
    YES_NO,
    Body,
    Column,
    Command,
    Flag,
    Freshness,
    Operation,
    Paged,
    Parameter,
    Problem,
    Reply,
    Right,
    Table,
    concatenated,
    is_pattern,
    not_found,
    parse_delay,
    parse_duration,
    parse_end,
    parse_flag,
    parse_selectors,
    show_distance,
    show_duration,
    show_share,
    show_state,
    show_time,
    show_values,
    wrong,
)

if TYPE_CHECKING:
    from argparse import Namespace

    from constraint_crdt.expression.judgement import Instances
    from constraint_crdt.operations.evidence import StandingDefinition, ViolationReport
    from constraint_crdt.runtime.node import Node
    from constraint_crdt.types.counters import Seconds
    from constraint_crdt.types.definition import Definition, DefinitionFields
    from constraint_crdt.types.orset import Switch
    from constraint_crdt.types.rollouts import Rollouts
    from constraint_crdt.types.verdicts import NodeVerdict

MAX_BATCH_BYTES: Final = 16 * 1024 * 1024
MOST_VIOLATED: Final = 10
"""Nodes with a violation named in a report."""

MAX_CHANGES: Final = 10_000
"""Per batch. Applying so many blocks the node for some tenths of a second."""
NOTED_CHANGES: Final = 100
"""Changes of a batch with notes on its additions, at most. Notes take up to some ms each."""


# --- requests ---------------------------------------------------------------------------------------------------------------


class ListConstraints(Paged, frozen=True, kw_only=True):
    """`GET /v1/constraints`."""

    id: tuple[str, ...] = ()
    """Ids, and patterns with `*` and `?`; empty: all."""
    expired: bool = False


class NewConstraint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """`POST /v1/constraints`."""

    id: str
    when: str | None = None
    severity: Severity = Severity.WARNING
    about: str | None = None
    on: Mapping[str, str] | str | None = None
    """The labels of the nodes concerned, or the text of a selector."""
    ttl: float | None = None
    """Seconds."""
    until: datetime | None = None
    for_: float | None = msgspec.field(default=None, name="for")
    """Seconds: violated only once the condition was violated for so long."""
    clear_after: float | None = None
    """Seconds: holds again only once the condition held for so long."""
    clear_when: str | None = None
    """The condition under which it holds again."""
    if_unknown: IfUnknown = IfUnknown.UNKNOWN
    max_age: float | None = None
    """Seconds."""
    scope: Scope = Scope.NODE
    mode: Mode = Mode.ENFORCE
    each: str | None = None
    """The label of measurements whose values are the instances of the constraint."""
    new: bool = False
    """Refuse a constraint that is active."""
    loosen: bool = False
    """Take it also where it loosens a critical constraint."""


class ConstraintEdit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """`PATCH /v1/constraints/{id}`: the fields to change, as of `NewConstraint`. Null: to the default, and without an end."""

    when: str | UnsetType | None = UNSET
    severity: Severity | UnsetType = UNSET
    about: str | UnsetType | None = UNSET
    on: Mapping[str, str] | str | UnsetType | None = UNSET
    ttl: float | UnsetType | None = UNSET
    until: datetime | UnsetType | None = UNSET
    for_: float | UnsetType | None = msgspec.field(default=UNSET, name="for")
    clear_after: float | UnsetType | None = UNSET
    clear_when: str | UnsetType | None = UNSET
    if_unknown: IfUnknown | UnsetType = UNSET
    max_age: float | UnsetType | None = UNSET
    scope: Scope | UnsetType = UNSET
    mode: Mode | UnsetType = UNSET
    each: str | UnsetType | None = UNSET
    loosen: bool = False
    """Take it also where it loosens a critical constraint."""


class EditConstraint(ConstraintEdit, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An edit, and its constraint."""

    id: str


class ConflictResolution(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/resolve/{id}`."""

    keep: str | None = None
    """The mutation of the definition to keep, as `dot` of `explain`; null: all of them, joined."""
    loosen: bool = False
    """Keep it also where the definitions that end were stricter, and critical."""


class ResolveConflict(ConflictResolution, frozen=True, kw_only=True):
    """A resolution, and its constraint."""

    id: str


class RemovedConstraint(msgspec.Struct, frozen=True, kw_only=True):
    """`DELETE /v1/constraints/{id}`."""

    id: str


class AddConstraint(NewConstraint, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Make a constraint active, or give it this definition, as `Node.add_constraint` does."""


class RemoveConstraint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """End a constraint, as `Node.remove_constraint` does. The same batch may have added the constraint."""

    id: str


class RecordCounts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Count evaluations made elsewhere, as `Node.record` does."""

    satisfied: int = 0
    violations: int = 0
    constraint: str | None = None


BatchChange: TypeAlias = AddConstraint | RemoveConstraint | RecordCounts


class BatchEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A change of a batch: exactly one of these."""

    add: AddConstraint | None = None
    remove: RemoveConstraint | None = None
    record: RecordCounts | None = None


class Batch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/batch`."""

    changes: list[BatchEntry]

    def flat(self) -> list[BatchChange]:
        """The changes. Raises `Problem` for an entry with none or several."""
        found: list[BatchChange] = []
        for index, entry in enumerate(self.changes):
            given = [change for change in (entry.add, entry.remove, entry.record) if change is not None]
            if len(given) != 1:
                place = f"changes[{index}]"
                raise wrong(f"`{place}`: a change has exactly one of add, remove, record", place)
            found += given
        return found


class Expression(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """`POST /v1/expressions`."""

    when: str
    scope: str = "node"


# --- responses --------------------------------------------------------------------------------------------------------------


class DefinitionReport(msgspec.Struct, frozen=True, kw_only=True):
    """A definition in force."""

    when: str | None
    severity: str
    about: str | None
    on: dict[str, str]
    """The labels required of the nodes concerned: the equalities of the selector."""
    added_by: str
    added_at: int | None
    """ns since the epoch by the clock of the adding node; null if unknown."""
    expires_at: int | None
    """ns since the epoch; null: in force until removed."""
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


class ReportedFields(TypedDict):
    """The fields of a report that say how a `when` is evaluated."""

    for_: float
    clear_after: float
    clear_when: str | None
    if_unknown: str
    max_age: float | None
    meaning: int
    scope: str
    selector: str
    mode: str
    each: str | None


def reported_fields(definition: "Definition") -> ReportedFields:
    """The fields of a definition that say how its `when` is evaluated."""
    return {
        "for_": definition.for_ / SECOND,
        "clear_after": definition.clear_after / SECOND,
        "clear_when": definition.clear_when,
        "if_unknown": definition.if_unknown.value,
        "max_age": None if definition.max_age is None else definition.max_age / SECOND,
        "meaning": definition.meaning,
        "scope": definition.scope.value,
        "selector": str(definition.selector),
        "mode": definition.mode.value,
        "each": definition.each,
    }


class SecondsReport(msgspec.Struct, frozen=True, kw_only=True):
    """Time by verdict, in seconds, before `for`, `clear_after` and `clear_when`."""

    satisfied: float = 0.0
    violated: float = 0.0
    unknown: float = 0.0


NO_SECONDS: Final = SecondsReport()


class ViolatedNode(msgspec.Struct, frozen=True, kw_only=True):
    """A node with a violation, as the node told."""

    node: str
    state: str | None
    """violated or clearing."""
    since: int | None
    """The first violated evaluation, in ns since the epoch by the clock of that node."""
    values: dict[str, str]
    """The values of the variables at the turn to the state, as texts."""
    margin: float | None
    """The signed distance to the threshold; negative for a violation; null for an expression without a threshold."""
    margin_share: float | None
    """The margin as a share of the threshold."""
    margin_variable: str | None
    reason: str
    by_default: bool
    """The outcome was undecided, and `if_unknown` gave the verdict."""


class ReportedVerdict(TypedDict):
    """The fields of a report that a verdict fills."""

    state: str | None
    since: int | None
    values: dict[str, str]
    margin: float | None
    margin_share: float | None
    margin_variable: str | None
    reason: str
    by_default: bool


def reported_verdict(verdict: "NodeVerdict | None") -> ReportedVerdict:
    """The fields of a verdict; None: of a node that told none."""
    if verdict is None:
        return {
            "state": None, "since": None, "values": {}, "margin": None, "margin_share": None, "margin_variable": None,
            "reason": "", "by_default": False,
        }  # fmt: skip
    return {
        "state": verdict.state.value,
        "since": verdict.since,
        "values": dict(verdict.inputs),
        "margin": verdict.margin,
        "margin_share": verdict.share,
        "margin_variable": verdict.variable,
        "reason": verdict.reason,
        "by_default": verdict.by_default,
    }


class ReportedTime(TypedDict):
    """The fields of a report that the time by verdict fills."""

    seconds: SecondsReport
    held: float | None


def reported_time(time: "Seconds") -> ReportedTime:
    """The fields of a time by verdict."""
    seconds = SecondsReport(satisfied=time.satisfied, violated=time.violated, unknown=time.unknown)
    return {"seconds": seconds, "held": time.held}


class DisabledReport(msgspec.Struct, frozen=True, kw_only=True):
    """A constraint that is kept, and evaluated on no node."""

    by: str
    """The node on which it was disabled."""
    actor: str
    """A person, a token or a program, as that node says."""
    at: int
    """ns since the epoch by the clock of that node."""
    until: int | None
    """ns since the epoch: it is enabled by itself then; null: until somebody enables it."""
    why: str
    all: bool
    """All constraints are disabled together."""


def reported_disabling(switch: "Switch | None") -> DisabledReport | None:
    """The report of a disabling; None without a disabling."""
    if switch is None:
        return None
    return DisabledReport(
        by=switch.replica.node_id, actor=switch.actor, at=switch.time, until=switch.until, why=switch.why, all=not switch.id
    )


DISABLED: Final = "disabled"
"""The state of a disabled constraint in reports."""


class InstanceReport(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict of an instance on the node that answers."""

    instance: str
    """The value of the label."""
    state: str
    """holds, pending, violated, clearing, unknown."""
    since: int
    """The beginning of the state, in ns since the epoch."""
    values: dict[str, str]
    margin: float | None
    margin_share: float | None
    margin_variable: str | None
    reason: str
    by_default: bool


class InstancesReport(msgspec.Struct, frozen=True, kw_only=True):
    """The instances of a constraint with `each` on the node that answers."""

    label: str
    total: int
    violated: int
    """Those violated or clearing."""
    unknown: int
    worst: tuple[InstanceReport, ...]
    """The first of them: violated, clearing, pending, unknown, then those that hold; the longest in its state first."""


def reported_instances(found: "Instances | None") -> InstancesReport | None:
    """The report of instances; None without any definition with `each`."""
    if found is None:
        return None
    worst = tuple(
        InstanceReport(
            instance=each.instance,
            state=each.verdict.state.value,
            since=each.verdict.since,
            values=dict(each.verdict.inputs),
            margin=each.verdict.margin,
            margin_share=each.verdict.share,
            margin_variable=each.verdict.variable,
            reason=each.verdict.reason,
            by_default=each.verdict.by_default,
        )
        for each in found.worst
    )
    return InstancesReport(label=found.label, total=found.total, violated=found.violated, unknown=found.unknown, worst=worst)


def show_instances(found: InstancesReport) -> str:
    """How many instances are violated or unknown: `violated: 2 of 6 joints, unknown: 1`."""
    if not found.total:
        return f"no {found.label} is measured"
    told = [f"{name}: {count}" for name, count in (("violated", found.violated), ("unknown", found.unknown)) if count]
    named = f"{found.total} {found.label}{'' if found.total == 1 else 's'}"
    return ", ".join([f"{told[0]} of {named}", *told[1:]]) if told else named


class StagedReport(msgspec.Struct, frozen=True, kw_only=True):
    """A new definition that reaches the fleet in stages."""

    rollout: str
    """The id of the rollout."""
    when: str | None
    """The new expression."""
    here: bool
    """This node is in a stage that began: it judges by the new definition."""


def reported_staging(rollouts: "Rollouts", id_: str, labels: Mapping[str, str]) -> StagedReport | None:
    """What a rollout does with a constraint on a node with these labels; None without one."""
    for rollout in rollouts.covering(id_)[:1]:
        here = rollout.plan.reaches(labels, rollout.stage)
        return StagedReport(rollout=rollout.id, when=rollout.plan.changes[id_].after.when, here=here)
    return None


def show_staging(staged: StagedReport) -> str:
    """The new expression, and whether it counts here: `rollout b6223fa4, here: v <= 0.8`."""
    return f"rollout {staged.rollout}{', here' if staged.here else ''}: {staged.when or '-'}"


class ConstraintReport(msgspec.Struct, frozen=True, kw_only=True):
    """An active or expired constraint. Of several definitions, the fields of the first."""

    id: str
    when: str | None
    severity: str
    about: str | None
    on: dict[str, str]
    added_by: str
    added_at: int | None
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
    """A definition applies to the labels of this node. If not, this node does not evaluate the constraint."""
    conflict: bool
    """Several definitions, different in more than their ends, are in force; all are enforced until an edit."""
    definitions: tuple[DefinitionReport, ...]
    satisfied: int
    violations: int
    unknown: int
    """Undecided evaluations on this node since its start."""
    verdict: str | None
    """This node's last evaluation: satisfied, violated, unknown; null before the first, or without a `when`."""
    reason: str
    """The reason of an unknown verdict."""
    by_node: dict[str, tuple[int, int]]
    """(satisfied, violations) per node."""
    state: str | None = None
    """The verdict state on this node: holds, pending, violated, clearing, unknown, off, disabled; null before the first judgement.
    Nodes of 0.1.0 have neither this field nor the next ones."""
    since: int | None = None
    """The beginning of the state, in ns since the epoch; of pending, violated and clearing, the first violated evaluation."""
    by_default: bool = False
    """The outcome was undecided, and `if_unknown` gave the verdict."""
    values: dict[str, str] = {}
    """The values of the variables on this node, as texts."""
    margin: float | None = None
    """The signed distance to the threshold on this node; negative for a violation; null without a threshold."""
    margin_share: float | None = None
    """The margin as a share of the threshold."""
    margin_variable: str | None = None
    seconds: SecondsReport = NO_SECONDS
    """The time by verdict, over all nodes: of this node up to now, of another as it last wrote, once a minute."""
    held: float | None = None
    """The share of the satisfied and violated time that was satisfied; null without any."""
    violated_now: int = 0
    """Nodes with a violation now, as the nodes told."""
    violated_on: tuple[ViolatedNode, ...] = ()
    """Ten of these at most, the longest violated first."""
    disabled: DisabledReport | None = None
    """Null for an enabled constraint. The state of a disabled constraint is disabled."""
    instances: InstancesReport | None = None
    """Those on this node, of which the ten worst; null without a definition with `each`, and before the first judgement."""
    staged: StagedReport | None = None
    """Null for a constraint of no active rollout."""


class FieldChange(msgspec.Struct, frozen=True, kw_only=True):
    """A field of a definition that was changed. The values as a person writes them; null: the default of the field."""

    field: str
    before: str | None
    after: str | None


class EffectPart(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an edit does by one field."""

    field: str
    effect: str
    """tightens, loosens, both, undecided."""
    text: str
    """A sentence about the new definition, or the reason."""
    example: dict[str, float | str | bool] | None = None
    """Values of variables on which the old and the new expression differ; left out for other fields."""


class EditEffect(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an edit of a constraint means."""

    id: str
    effect: str
    """same, tightens, loosens, both, undecided. Loosened: values are allowed that were forbidden, or less follows from them."""
    parts: tuple[EffectPart, ...] = ()
    needs_loosen: bool = False
    """It loosens a critical constraint, so it is refused unless it says `loosen`."""


def show_effect(effect: EditEffect) -> str:
    """The label of an edit with its reasons: `loosens: it allows speed_mps = 2.0, which was forbidden`."""
    told = "; ".join(each.text for each in effect.parts) or "the same values are allowed"
    return f"{_LABELS.get(effect.effect, effect.effect)}: {told}"


_LABELS: Final = {"both": "loosens and tightens", "undecided": "not decided whether it loosens", "same": "the same"}


class Added(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A constraint is active with the definition given."""

    id: str
    change: str
    """added, replaced, extended, unchanged."""
    notes: tuple[str, ...] = ()
    """Sentences on the definition: a variable that no node measures, labels that no known node has, an expression that reads
    nothing, an end by another clock than that of the node. Left out without any."""
    fields: tuple[FieldChange, ...] = ()
    """The changed fields of a replaced definition; of several definitions in conflict none. Left out without any."""
    expires_at: int | None = None
    """The end of the definition, in ns since the epoch; left out without an end."""
    effect: EditEffect | None = None
    """What the new definition means for the values that are allowed, if it replaced another one; else left out."""


class Removed(msgspec.Struct, frozen=True, kw_only=True):
    """A constraint is no longer active."""

    id: str


class Changed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The result of a change of a batch."""

    id: str | None
    """The constraint's; None for counts of none in particular."""
    change: str
    """added, replaced, extended, unchanged, removed, recorded."""
    notes: tuple[str, ...] = ()
    """As of `Added`; in the answer to a batch of at most 100 changes only."""
    effect: EditEffect | None = None
    """As of `Added`; in the answer to a batch of at most 100 changes only."""


class Batched(msgspec.Struct, frozen=True, kw_only=True):
    """The results of the changes of a batch, in their order."""

    results: tuple[Changed, ...]


class ExpressionReport(msgspec.Struct, frozen=True, kw_only=True):
    """The result of compiling a `when`."""

    ok: bool
    error: str | None
    """The error, with the column."""
    variables: tuple[str, ...]
    """The measurements read by the expression, ordered; empty after an error."""


class BatchError(ConstraintCrdtError, ValueError):
    """A batch that cannot be applied; nothing was applied. `str()` is the error of the change at `index`, from 0."""

    def __init__(self, index: int, field: str, message: str) -> None:
        """`field`: the field at fault, within the change."""
        super().__init__(message, field=field)
        self.index = index


# --- list -------------------------------------------------------------------------------------------------------------------


MOST_NAMED: Final = 100
"""Ids and patterns of a request."""


def inactive(id_: str, active: Iterable[str], field: str | None = None) -> Problem:
    """The refusal of an id that no active constraint has, with the most similar id."""
    return not_found(f"no constraint {id_!r} is active", field, name=id_, known=active)


def chosen(ids: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Those of `ids` that are wanted, by id or by pattern. Raises `Problem` for an id that is not there, not for a pattern."""
    if len(wanted) > MOST_NAMED:
        raise wrong(f"`id`: ask for at most {MOST_NAMED} ids and patterns at once, not {len(wanted)}", "id")
    known = set(ids)
    patterns = [each for each in wanted if each not in known and is_pattern(each)]
    for each in wanted:
        if each not in known and each not in patterns:
            raise inactive(each, ids, "id")
    named = known & set(wanted)
    return [id_ for id_ in ids if id_ in named or any(fnmatchcase(id_, pattern) for pattern in patterns)]


async def _constraints(node: "Node", request: ListConstraints) -> Reply[list[ConstraintReport]]:
    ids = node.expired_ids() if request.expired else node.constraint_ids()
    page, following = request.page(chosen(ids, request.id) if request.id else ids)
    return Reply(node.expired(page) if request.expired else node.constraints(page), next_after=following)


def show_constraints(found: list[ConstraintReport], _: ListConstraints, __: "Namespace") -> Table:
    """A row per definition. The counts are of judgements, in the whole fleet but for `unknown`."""
    extra = _extra_columns(found)
    now = time.time()
    columns = [Column("id"), Column("severity"), Column("when"), Column("here")]
    titles = ("judged satisfied", "judged violated", "judged unknown", "held of the time")
    columns += [Column(title, right=True) for title in titles]
    columns += map(Column, ("added by", *extra, *(["violated on"] if any(each.violated_now for each in found) else [])))
    rows: list[list[object]] = []
    for each in found:
        first, *others = each.definitions
        line = [each.id, first.severity, _when(each), _here(each, now), each.satisfied, each.violations, each.unknown]
        more: list[object] = [*(show(first) for show in extra.values()), show_violated(each.violated_on, each.violated_now, now)]
        rows.append([*line, show_share(each.held), first.added_by, *more][: len(columns)])
        for also in others:
            blank: list[object] = ["  and also", also.severity, also.when or "-", "", "", "", "", ""]
            rows.append([*blank, also.added_by, *(show(also) for show in extra.values()), ""][: len(columns)])
    return Table(columns, rows)


def _when(each: ConstraintReport) -> str:
    """The expression, with that of a rollout."""
    staged, when = each.staged, each.when or "-"
    return when if staged is None else f"{when} ({show_staging(staged)})"


def _here(each: ConstraintReport, now: float) -> str:
    """The verdict state on the node; on a node of 0.1.0 the verdict."""
    if each.disabled is not None:
        return show_disabled(each.disabled, now)
    if not each.applies_here:
        return "not for it"
    state = each.state or each.verdict
    if state is None or state == "off":
        return "-"
    default = ", by default" if each.by_default else ""
    shown = show_state(state, each.since, now, for_=each.for_, clear_after=each.clear_after) + default
    return shown if each.instances is None else f"{shown}; {show_instances(each.instances)}"


def show_disabled(disabled: DisabledReport, now: float) -> str:
    """By whom, until when and why: `DISABLED by alice on forge, ends in 29 min: fires everywhere`."""
    by = f"{disabled.actor} on {disabled.by}" if disabled.actor else disabled.by
    end = "" if disabled.until is None else f", ends {show_time(disabled.until, now)}"
    what = "DISABLED, with all others," if disabled.all else "DISABLED"
    return f"{what} by {by}{end}{f': {disabled.why}' if disabled.why else ''}"


def show_violated(nodes: Sequence[ViolatedNode], count: int, now: float) -> str:
    """The nodes with a violation, `count` in all: the first with its time and values, the others by name."""
    if not nodes:
        return "-"
    first, *others = nodes
    rest = count - len(nodes)
    names = [each.node for each in others] + ([f"{rest} more"] if rest > 0 else [])
    return show_verdict(first, now) + (f"; also on {', '.join(names)}" if names else "")


def show_verdict(each: "ViolatedNode | ViolationReport", now: float) -> str:
    """The verdict of a node: `b since 12 s ago: speed_mps = 9.0, 7.5 above the limit (500 %)`."""
    since = "" if each.since is None else f" since {show_time(each.since, now)}"
    values = show_values(each.values, each.margin, each.margin_share, each.margin_variable)
    facts = [values, each.reason, "by default" if each.by_default else ""]
    told = "; ".join(fact for fact in facts if fact)
    return f"{each.node}{since}{f': {told}' if told else ''}"


def _extra_columns(found: list[ConstraintReport]) -> dict[str, Callable[[DefinitionReport], str]]:
    """The optional columns, each with its text for a definition."""
    definitions = [definition for each in found for definition in each.definitions]
    now = time.time()
    columns: dict[str, Callable[[DefinitionReport], str]] = {}
    if any(map(show_selector, definitions)):
        columns["on"] = lambda each: show_selector(each) or "-"
    if any(each.expires_at is not None for each in definitions):
        columns["ends"] = lambda each: "-" if each.expires_at is None else show_distance(each.expires_at / 1e9 - now)
    for name in dict.fromkeys(name for each in definitions for name in show_fields(each)):
        columns[name] = partial(_show_field, name)
    return columns


def _show_field(name: str, definition: DefinitionReport) -> str:
    return show_fields(definition).get(name, "-")


def show_selector(definition: "DefinitionReport | StandingDefinition") -> str:
    """The nodes concerned, in the syntax of selectors. (Nodes of 0.1.0 tell labels only.)"""
    return definition.selector or str(Selector(tuple(definition.on.items())))


def show_fields(definition: "DefinitionReport | StandingDefinition") -> dict[str, str]:
    """The fields that say how a `when` is evaluated, by name, without those with their defaults."""
    shown = {
        "scope": "" if definition.scope == Scope.NODE else definition.scope,
        "for": show_duration(definition.for_) if definition.for_ else "",
        "clear after": show_duration(definition.clear_after) if definition.clear_after else "",
        "clear when": definition.clear_when or "",
        "if unknown": "" if definition.if_unknown == IfUnknown.UNKNOWN else definition.if_unknown,
        "max age": "" if definition.max_age is None else show_duration(definition.max_age),
        "mode": "" if definition.mode == Mode.ENFORCE else definition.mode,
        "each": definition.each or "",
        "meaning": "needs a later version of constraint-crdt" if definition.meaning else "",
    }
    return {name: text for name, text in shown.items() if text}


CONSTRAINTS: Final = Operation(
    name="constraints",
    method=GET,
    path="/v1/constraints",
    summary="The active constraints, by id.",
    about="The active constraints, by id; or the expired ones not removed yet.",
    request=ListConstraints,
    response=list[ConstraintReport],
    run=_constraints,
    parameters=(
        Parameter(
            name="id",
            about="only these constraints: ids, and patterns with * and ?",
            schema={"type": "array", "items": TEXT, "maxItems": MOST_NAMED},
            many=True,
        ),
        Parameter(
            name="expired",
            about="1: those instead that have expired and that nobody has removed yet",
            schema=YES_NO,
            parse=parse_flag,
        ),
        *PAGED,
    ),
    errors=frozenset({404}),
    freshness=Freshness.MEASURED_AGING,
    join=concatenated,
    command=Command(
        name="constraints",
        example="constraints 'thermal*'",
        help="the active constraints: their states, counts of judgements, and the time for which they held",
        group="constraints",
        flags={
            "id": Flag(metavar="ID", nargs="*", convert=tuple, help="only these: ids, and patterns as 'thermal*'"),
            "expired": Flag("--expired", action="store_true", help="those instead that have expired and were not removed yet"),
        },
        show=show_constraints,
    ),
)

# --- add and remove ---------------------------------------------------------------------------------------------------------

LOOSEN: Final = Flag("--loosen", action="store_true", help="do it also where it loosens a critical constraint")
"""The flag of all commands with an edit."""

_WAIT: Final = {
    "wait": Flag(
        "--wait",
        metavar="NODES",
        help="come back when so many nodes have acknowledged it: all (of the fleet), live (all that are), majority, or a number",
    ),
    "timeout": Flag("--timeout", metavar="TIME", help="fail when that takes longer, naming who has not; default: 30s"),
}
"""The flags for waiting until nodes acknowledge a change."""


def new_constraint(
    id_: str,
    *,
    when: str | None = None,
    severity: str = "warning",
    about: str | None = None,
    on: Mapping[str, str] | str | None = None,
    ttl: float | None = None,
    until: datetime | None = None,
    for_: float | None = None,
    clear_after: float | None = None,
    clear_when: str | None = None,
    if_unknown: str = "unknown",
    max_age: float | None = None,
    scope: str = "node",
    mode: str = "enforce",
    each: str | None = None,
    new: bool = False,
    loosen: bool = False,
) -> NewConstraint:
    """The request of the clients' `add`: the node checks the severity, `if_unknown` and `mode`."""
    return NewConstraint(
        id=id_, when=when, severity=cast("Severity", severity), about=about, on=on, ttl=ttl, until=until,
        for_=for_, clear_after=clear_after, clear_when=clear_when, if_unknown=cast("IfUnknown", if_unknown), max_age=max_age,
        scope=cast("Scope", scope), mode=cast("Mode", mode), each=each, new=new, loosen=loosen,
    )  # fmt: skip


def edited_constraint(id_: str, fields: Mapping[str, object]) -> EditConstraint:
    """The request of the clients' `edit_constraint`: the fields by their names in the API. The node checks them."""
    return msgspec.convert({"id": id_, **fields}, EditConstraint)


def field_changes(before: "Sequence[Definition]", after: "Definition") -> tuple[FieldChange, ...]:
    """The fields in which a definition differs from the one that it replaced; none for several."""
    if len(before) != 1:
        return ()
    old, new = _told_fields(before[0]), _told_fields(after)
    return tuple([FieldChange(field=name, before=old[name], after=new[name]) for name in old if old[name] != new[name]])


def _told_fields(definition: "Definition") -> dict[str, str | None]:
    """The fields as a person writes them; None: the default."""
    ends = definition.expires_at
    return {
        "when": definition.when,
        "severity": definition.severity.value,
        "about": definition.about,
        "on": str(definition.selector) or None,
        "for": show_duration(definition.for_ / SECOND) if definition.for_ else None,
        "clear_after": show_duration(definition.clear_after / SECOND) if definition.clear_after else None,
        "clear_when": definition.clear_when,
        "if_unknown": definition.if_unknown.value,
        "max_age": None if definition.max_age is None else show_duration(definition.max_age / SECOND),
        "scope": definition.scope.value,
        "mode": definition.mode.value,
        "each": definition.each,
        "until": None if ends is None else datetime.fromtimestamp(ends // SECOND, UTC).isoformat(),
    }


async def _written(node: "Node", id_: str, change: str, before: "Sequence[Definition]", *, says_end: bool) -> Added:
    """The answer to a change of a definition."""
    now = node.gossip.state.constraints.definitions(id_)
    notes = node.diagnosis.notes({id_: now})[id_]
    if says_end:
        notes += node.diagnosis.clock_notes()
    if not now:  # another node removed it, or its end has come
        return Added(id=id_, change=change, notes=notes)
    is_edit = change in ("replaced", "extended")
    fields = field_changes(before, now[-1]) if is_edit else ()
    effect = await node.edit_effects.of(id_, before, now[-1]) if change == "replaced" and before else None
    return Added(id=id_, change=change, notes=notes, fields=fields, expires_at=now[-1].expires_at, effect=effect)


async def _add(node: "Node", request: NewConstraint) -> Reply[Added]:
    before = node.gossip.state.constraints.definitions(request.id)
    change = await node.add_constraint(
        request.id,
        when=request.when,
        severity=request.severity,
        about=request.about,
        on=request.on,
        ttl=request.ttl,
        until=request.until,
        for_=request.for_,
        clear_after=request.clear_after,
        clear_when=request.clear_when,
        if_unknown=request.if_unknown,
        max_age=request.max_age,
        scope=request.scope,
        mode=request.mode,
        each=request.each,
        new=request.new,
        loosen=request.loosen,
    )
    says_end = request.ttl is not None or request.until is not None
    return Reply(await _written(node, request.id, change.value, before, says_end=says_end), created=change.value == "added")


ADD: Final = Operation(
    name="add",
    method=POST,
    path="/v1/constraints",
    right=Right.OPERATE,
    summary="Make a constraint active, or give it this definition.",
    about="Make a constraint active, or give it this definition. Durations in seconds.",
    request=NewConstraint,
    response=Added,
    run=_add,
    body=Body(shape=NewConstraint),
    errors=frozenset({409}),
    created=True,
    build=new_constraint,
    command=Command(
        name="add", example="add max_speed --when 'speed_mps <= 1.5' --severity critical",
        help="add a constraint to the fleet, or change what is said of an active one",
        group="constraints",
        flags={
            "id": Flag(metavar="ID"),
            "when": Flag(
                "--when", metavar="EXPR", help="CEL that must hold, as in 'gpu_temp_c < 85.0'; without it: only listed"
            ),
            "severity": Flag(
                "--severity", choices=("info", "warning", "critical"), help="default: warning", convert=Severity
            ),
            "about": Flag("--about", metavar="TEXT", help="what it is for"),
            "on": Flag(
                "--on", action="append", metavar="SELECTOR", convert=parse_selectors,
                help="only for nodes with these labels, as in 'zone in (a, b), model!=x7, !spare'; may be repeated",
            ),
            "ttl": Flag(
                "--ttl", metavar="TIME", exclusive="end", convert=parse_duration,
                help="how long it lasts, as in 90s, 30m, 2h or 7d; default: until it is removed",
            ),
            "until": Flag(
                "--until", metavar="WHEN", exclusive="end", convert=parse_end,
                help="when it ends, as in 2026-12-01T00:00:00Z, or never",
            ),
            "for_": Flag(
                "--for", metavar="TIME", convert=parse_delay, help="violated only once EXPR was violated that long, as in 30s"
            ),
            "clear_after": Flag(
                "--clear-after", metavar="TIME", convert=parse_delay, help="holds again only once it held that long"
            ),
            "clear_when": Flag(
                "--clear-when", metavar="EXPR", help="CEL that must hold before it holds again, as in 'gpu_temp_c < 80.0'"
            ),
            "if_unknown": Flag(
                "--if-unknown", choices=("unknown", "violated", "satisfied"), convert=IfUnknown,
                help="the verdict to count for an unknown outcome; default: unknown",
            ),
            "max_age": Flag(
                "--max-age", metavar="TIME", convert=parse_duration,
                help="older values are not used; default: the max_age of the variable, or else of the node, as each node sets it",
            ),
            "scope": Flag(
                "--scope", choices=("node", "fleet"), convert=Scope, help="fleet: EXPR is about the list `nodes`; default: node"
            ),
            "mode": Flag(
                "--mode", choices=("audit", "warn", "enforce"), convert=Mode,
                help="what follows from a violation: it is counted apart, told, or told and acted on; default: enforce",
            ),
            "new": Flag("--new", action="store_true", help="fail where the constraint is active"),
            "loosen": LOOSEN,
            "each": Flag("--each", metavar="LABEL", help="one verdict for each value of this label of the measurements"),
        },
        options={
            "replace": Flag(
                "--replace", action="store_true", help="what is not said gets its default; else an active constraint keeps it"
            ),
            **_WAIT,
        },
    ),
)  # fmt: skip


async def _edit(node: "Node", request: EditConstraint) -> Added:
    given = {name: getattr(request, name) for name in ConstraintEdit.__struct_fields__ if name != "loosen"}
    fields = cast("DefinitionFields", {name: value for name, value in given.items() if value is not UNSET})
    before = node.gossip.state.constraints.definitions(request.id)
    try:
        change = await node.edit_constraint(request.id, loosen=request.loosen, **fields)
    except UnknownConstraint:
        raise inactive(request.id, node.constraint_ids()) from None
    says_end = (fields.get("ttl") or fields.get("until")) is not None
    return await _written(node, request.id, change.value, before, says_end=says_end)


EDIT_CONSTRAINT: Final = Operation(
    name="edit_constraint",
    method=PATCH,
    path="/v1/constraints/{id:any_text}",
    summary="Change some fields of a constraint, and keep the others.",
    about="Change some fields of a constraint, by their names in the API, and keep the others. None: to the default of the field.",
    request=EditConstraint,
    response=Added,
    run=_edit,
    body=Body(shape=ConstraintEdit),
    errors=frozenset({409}),
    build=edited_constraint,
)


async def _resolve(node: "Node", request: ResolveConflict) -> Added:
    constraints = node.gossip.state.constraints
    dots = {dot_text(each.dot): each.dot for each in constraints.additions(request.id)}
    if not dots:
        raise inactive(request.id, node.constraint_ids())
    if request.keep is not None and request.keep not in dots:
        raise wrong(f"no definition of {request.id} in force is of the mutation {request.keep}: look again", "keep")
    before = constraints.definitions(request.id)
    keep = None if request.keep is None else dots[request.keep]
    change = await node.resolve_conflict(request.id, keep, loosen=request.loosen)
    return await _written(node, request.id, change.value, before, says_end=False)


RESOLVE: Final = Operation(
    name="resolve",
    method=POST,
    path="/v1/resolve/{id:any_text}",
    right=Right.OPERATE,
    summary="Keep one of the definitions of a constraint in conflict, or join them.",
    request=ResolveConflict,
    response=Added,
    run=_resolve,
    body=Body(shape=ConflictResolution),
    errors=frozenset({409}),
    command=Command(
        name="resolve",
        example="resolve max_speed --keep 1",
        help="end a conflict of concurrent edits: keep one definition, or join them; without a flag, list them",
        group="constraints",
        flags={"id": Flag(metavar="ID"), "keep": None, "loosen": LOOSEN},
        options={
            "keep": Flag("--keep", metavar="N", type=int, help="keep the definition with this number"),
            "all_of": Flag("--all-of", action="store_true", help="one definition that holds where all of them do"),
            **_WAIT,
        },
    ),
)


async def _remove(node: "Node", request: RemovedConstraint) -> Removed:
    try:
        await node.remove_constraint(request.id)
    except KeyError:
        raise inactive(request.id, node.constraint_ids()) from None
    return Removed(id=request.id)


REMOVE: Final = Operation(
    name="remove",
    method=DELETE,
    path="/v1/constraints/{id:any_text}",
    right=Right.OPERATE,
    summary="End a constraint in the fleet.",
    about="End a constraint in the fleet. Raises `NotFound` for an inactive constraint.",
    request=RemovedConstraint,
    response=Removed,
    run=_remove,
    command=Command(
        name="remove",
        example="remove max_speed --wait all",
        help="remove constraints from the fleet",
        group="constraints",
        flags={"id": None},
        options={
            "ids": Flag(metavar="ID", nargs="+", help="an id, or a pattern as 'thermal*'"),
            "yes": Flag("--yes", action="store_true", help="do not ask, where a pattern matches whatever there is"),
            **_WAIT,
        },
    ),
)

# --- batch ------------------------------------------------------------------------------------------------------------------


def batch_of(changes: Iterable[Mapping[str, Mapping[str, object]]]) -> Batch:
    """The request of the clients' `batch`: the node checks the changes."""
    return Batch(changes=cast("list[BatchEntry]", list(changes)))


def right_of_batch(request: Batch) -> Right:
    """A batch of counts alone needs the role measure. A batch with additions or removals needs operate."""
    return Right.MEASURE if all(each.add is None and each.remove is None for each in request.changes) else Right.OPERATE


async def _batch(node: "Node", request: Batch) -> Batched:
    constraints = node.gossip.state.constraints
    before = {id_: constraints.definitions(id_) for id_ in _added_ids(request)}
    try:
        results = await node.batch(request.flat())
    except BatchError as error:
        place = f"changes[{error.index}].{error.field}"
        raise wrong(f"`{place}`: {error}", place) from None
    noted = [change.id for change in request.flat() if isinstance(change, AddConstraint)] if len(results) <= NOTED_CHANGES else []
    notes = node.diagnosis.notes({id_: constraints.definitions(id_) for id_ in noted}) if noted else {}
    ending = {each.id for each in request.flat() if isinstance(each, AddConstraint) and (each.ttl or each.until) is not None}
    clock = node.diagnosis.clock_notes() if noted and ending else ()

    def _notes(id_: str) -> tuple[str, ...]:
        return notes.get(id_, ()) + (clock if id_ in ending else ())

    changed = []
    for each in results:
        id_, change = each.id or "", each.change.value
        stands = change not in ("removed", "recorded")
        effect, now = None, constraints.definitions(id_) if noted and change == "replaced" else ()
        if now and before.get(id_):
            effect = await node.edit_effects.of(id_, before[id_], now[-1])
        changed.append(Changed(id=each.id, change=change, notes=_notes(id_) if stands else (), effect=effect))
    return Batched(results=tuple(changed))


def _added_ids(request: Batch) -> set[str]:
    return {change.id for change in request.flat() if isinstance(change, AddConstraint)}


BATCH: Final = Operation(
    name="batch",
    method=POST,
    path="/v1/batch",
    right=Right.MEASURE,
    summary="Make up to 10,000 changes in one go, or none.",
    about='Make up to 10,000 changes as a whole, or none: each `{"add": {…}}`, `{"remove": {…}}` or `{"record": {…}}`.',
    right_of=right_of_batch,
    request=Batch,
    response=Batched,
    run=_batch,
    body=Body(shape=Batch, limit=MAX_BATCH_BYTES),
    errors=frozenset({409}),
    build=batch_of,
    extra_timeout=lambda _: 30.0,
)

# --- effects ----------------------------------------------------------------------------------------------------------------


async def _effects(node: "Node", request: Batch) -> list[EditEffect]:
    return await node.preview(request.flat())


EFFECTS: Final = Operation(
    name="effects",
    method=POST,
    path="/v1/effects",
    summary="What edits of active constraints would mean, without making them.",
    about="What additions, as of `batch`, would mean for active constraints; without those that a write would refuse.",
    request=Batch,
    response=list[EditEffect],
    run=_effects,
    body=Body(shape=Batch, limit=MAX_BATCH_BYTES),
    build=batch_of,
    right=Right.READ,
    group="reading",
    extra_timeout=lambda _: 30.0,
)

# --- expressions ------------------------------------------------------------------------------------------------------------


async def _check_expression(node: "Node", request: Expression) -> ExpressionReport:
    import asyncio  # loaded by nodes only: commands need no event loop

    from constraint_crdt.expression import ExpressionError, compile_written
    from constraint_crdt.types.parameters import measured_names

    if request.scope not in (Scope.NODE, Scope.FLEET):
        raise wrong(f"scope must be node or fleet, not {request.scope!r}", "scope")
    try:
        kinds = dict(node.gossip.state.variables.kinds())
        bind = node.gossip.binding(request.when)
        found = await asyncio.to_thread(compile_written, request.when, request.scope, kinds, len(node.node_names()), bind)
    except ExpressionError as error:
        return ExpressionReport(ok=False, error=str(error), variables=())
    return ExpressionReport(ok=True, error=None, variables=tuple(sorted(measured_names(found.variables))))


CHECK_EXPRESSION: Final = Operation(
    name="check_expression",
    method=POST,
    path="/v1/expressions",
    summary="Whether a `when` would be taken.",
    request=Expression,
    response=ExpressionReport,
    run=_check_expression,
    body=Body(shape=Expression),
    positional=("when",),
    right=Right.READ,
    group="reading",
)
