"""The shapes of the answers from evidence, as the API sends them and clients read them."""

from typing import Literal

import msgspec

Level = Literal["ok", "warn", "fail"]


class NodeCoverage(msgspec.Struct, frozen=True, kw_only=True):
    """Whether one node has heard of a change."""

    node: str
    holds: bool | None
    """null: there is no evidence of what it has, as it did not speak with this node since this node started."""
    live: bool
    since: int | None
    """ns since the epoch by this node's clock. If it holds the change: when it first showed that. If not: when the change became
    known here. null: before this node started, or too long ago to be remembered."""
    behind: int | None
    """How many mutations known here, of whatever kind, it gave no evidence of. null as in `holds`."""


class CoverageReport(msgspec.Struct, frozen=True, kw_only=True):
    """Who has heard of a change."""

    id: str | None
    """The constraint; null: all changes of definitions that are known here."""
    change: str
    """What the change is: added, expired, removed; or definitions, for all of them."""
    dots: tuple[str, ...]
    """The mutations that it consists of, as node~incarnation:seq."""
    nodes: tuple[NodeCoverage, ...]
    have: int
    lack: int
    unknown: int
    wanted: int | None = None
    """How many were to have it, where that was asked."""
    met: bool | None = None
    """Whether so many have."""


class StandingDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """One definition that stands, and the mutation that keeps it alive. Times in ns since the epoch."""

    dot: str
    """The mutation, as node~incarnation:seq. The constraint is active until a removal names it, or its time is over."""
    when: str | None
    severity: str
    about: str | None
    on: dict[str, str]
    added_by: str
    added_at: int | None
    """By the clock of the node that added it; null if it did not say."""
    known_since: int | None
    """When it became known here, by this node's clock; null: before it started, or too long ago."""
    expires_at: int | None
    expired: bool


class Removal(msgspec.Struct, frozen=True, kw_only=True):
    """A mutation that ended definitions of the constraint: somebody removed it, or an edit took their place."""

    dot: str
    by: str
    ended: tuple[str, ...]
    """The additions that it names."""
    known_since: int | None
    held: bool
    """Its cell is still held here. If not, it was dropped, as all who matter have heard of it, and is only remembered."""


class ViolationReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one node found of the constraint. Times in ns since the epoch, by the clock of the node that answers."""

    node: str
    live: bool
    violated: bool | None
    """As of the last that is known; null: nothing is known of now."""
    since: int | None
    """Since when it is violated without a break. Of another node: as its counts told, so seconds late."""
    last: int | None
    """When that was last confirmed."""
    exact: bool
    """It is of this node's own evaluations, not of what another one told."""
    satisfied: int
    violations: int
    """Counts since the constraint began."""
    violated_per_minute: float
    violated_share: float | None
    """Lately, at the shortest half-life that is tracked here; null if nothing was evaluated lately."""


class RecentRates(msgspec.Struct, frozen=True, kw_only=True):
    """Evaluations of late, in the whole fleet."""

    half_life: float
    """Seconds."""
    satisfied_per_minute: float
    violated_per_minute: float
    violated_share: float | None


class ExplainReport(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of one constraint."""

    id: str
    active: bool
    conflict: bool
    """Definitions that differ in more than their ends are in force, all of them enforced, until somebody edits the constraint."""
    definitions: tuple[StandingDefinition, ...]
    removals: tuple[Removal, ...]
    """Those that are remembered, in the order in which they became known here."""
    violations: tuple[ViolationReport, ...]
    """By node, those that ever evaluated it."""
    lately: tuple[RecentRates, ...]
    coverage: CoverageReport | None
    """Who has heard of it; null if no change of it is remembered."""


class PeerConvergence(msgspec.Struct, frozen=True, kw_only=True):
    """How one peer stands to this node. Times in ns since the epoch by this node's clock."""

    node: str
    state: str
    """same: it has what is known here, and nothing else. behind: it lacks something. ahead: it has something that is not known
    here, and lacks nothing. apart: both. unreachable: it is not live. unknown: it is live and there is no evidence of its clock.
    diverged: it was at this node's clock with another hash, so one of the two is damaged, and they have not agreed since."""
    since: int | None
    """Since when. Of one that is unreachable: when it was last heard. null: before this node started, or not known."""
    behind: int | None
    """Mutations known here that it gave no evidence of; of one that is unreachable: as of when it was last heard."""
    ahead: int | None
    """Mutations that it gave evidence of and that are not known here."""
    staleness: float | None
    """Seconds, see the definition in docs/how-to/answers.md; null without evidence."""
    heard: int | None
    """When it was last heard; null: not since this node started."""


class ConvergenceReport(msgspec.Struct, frozen=True, kw_only=True):
    """How the fleet stands to this node."""

    node: str
    peers: tuple[PeerConvergence, ...]
    same: int
    """Live peers that have what is known here, and nothing else."""
    live: int
    """Live peers."""
    staleness_p50: float | None
    """Seconds, over the live peers; null if there are none with evidence."""
    staleness_p99: float | None


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at."""

    check: str
    """What was looked at: name, clock, seeds, peers, view, silent, store, disk, agreement, messages, software, certificates,
    retired; by the command line also node, settings, port."""
    level: Level
    what: str
    """What was found, one sentence."""
    advice: str = ""
    """What to do; empty where all is well."""


class DiagnosisReport(msgspec.Struct, frozen=True, kw_only=True):
    """All that was looked at on one node."""

    node: str
    worst: Level
    findings: tuple[Finding, ...]


class AlertReport(msgspec.Struct, frozen=True, kw_only=True):
    """Something that somebody is, or is about to be, told of. Times in ns since the epoch by this node's clock."""

    rule: str
    kind: str
    subject: str
    """The constraint, or the node, that it is about."""
    firing: bool
    """False: it is so, and not for long enough yet."""
    since: int
    """Since when it is so."""
    fired_at: int | None
    detail: str


class RuleReport(msgspec.Struct, frozen=True, kw_only=True):
    """One rule, as far as it may be shown."""

    name: str
    kind: str
    constraint: str | None
    node: str | None
    half_life: float | None
    above: float | None
    above_share: float | None
    lasts: float
    """Seconds that it has to be so."""
    to: tuple[str, ...]
    """Of an address only scheme and host."""


class AlertsReport(msgspec.Struct, frozen=True, kw_only=True):
    """The rules of a node, and what they found."""

    alerts: tuple[AlertReport, ...]
    rules: tuple[RuleReport, ...]
    waiting: int
    """Messages that are not delivered yet."""
    delivered: int
    """Messages delivered since the start."""
    dropped: int
    """Messages that could not be delivered."""
    untracked: int
    """Findings beyond the most that are followed at once, at the last look."""
