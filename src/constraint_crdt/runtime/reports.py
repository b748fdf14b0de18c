"""What was done, told to whoever asked for it: the shapes of answers to writes, and of a few questions. (Reports on what there is:
`reports`.) Imports nothing, so that a client may have them without a node.

What a node answers about the fleet: the shapes that the API sends and the command line shows.
"""

import msgspec

from constraint_crdt.insight.reports import PeerConvergence


class Added(msgspec.Struct, frozen=True, kw_only=True):
    """A constraint is active with the definition given."""

    id: str
    change: str
    """added, replaced, extended, unchanged."""


class Removed(msgspec.Struct, frozen=True, kw_only=True):
    """A constraint is not active any more."""

    id: str


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """Evaluations made elsewhere were counted."""

    satisfied: int
    violations: int
    constraint: str | None


class Evaluated(msgspec.Struct, frozen=True, kw_only=True):
    """What one evaluation gave."""

    constraint: str
    verdict: str
    """satisfied, violated, unknown."""
    reason: str
    """Why it is unknown."""


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """The constraints with a `when` were evaluated, and it was counted."""

    evaluations: tuple[Evaluated, ...]


class Nothing(msgspec.Struct, frozen=True, kw_only=True):
    """It was done, and there is nothing to tell of it."""


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one change of a batch."""

    id: str | None
    """The constraint's; None for counts of none in particular."""
    change: str
    """added, replaced, extended, unchanged, removed, recorded."""


class Batched(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the changes of a batch, in their order."""

    results: tuple[Changed, ...]


class ExpressionReport(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be said of a `when`."""

    ok: bool
    error: str | None
    """What is wrong with it, naming the column."""
    variables: tuple[str, ...]
    """The measurements that it reads, ordered; none if it is wrong."""


class TileRemoved(msgspec.Struct, frozen=True, kw_only=True):
    """A tile is deleted; it can be restored for a while."""

    room: str
    id: str


class TileContent(msgspec.Struct, frozen=True, kw_only=True):
    """One tile with its content, as text if it is UTF-8. The rest as in a `TileReport`."""

    room: str
    id: str
    deleted: bool
    size: int
    hash: str
    author: str
    created: int
    updated: int
    written_by: str | None
    tags: tuple[str, ...]
    constraints: tuple[str, ...]
    satisfied: int
    violations: int
    position: tuple[int, int] | None
    text: str | None
    base64: str | None


class TileSubmitted(msgspec.Struct, frozen=True, kw_only=True):
    """A tile of the PLATO contract was merged."""

    room: str
    id: str
    changed: bool


class DeltaTaken(msgspec.Struct, frozen=True, kw_only=True):
    """A delta of the PLATO contract was taken in."""

    node: str
    seq: int
    applied: bool


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """A node is there, or ready. (Else there is a problem.)"""

    ok: bool


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """One node's view of itself and the fleet."""

    node: str
    replica: str
    fleet: str
    software: str
    hash: str
    """Hash of everything known, hex: equal on nodes that know the same."""
    constraints_hash: str
    """Hash of the definitions in force, hex: equal on nodes that enforce the same."""
    constraints: int
    satisfied: int
    violations: int
    satisfaction_rate: float
    position: tuple[int, int] | None
    peers: int
    """Other nodes that are there now: they answered, or spoke to us, and did not go since."""
    known: int
    """Nodes ever heard of, this one included."""
    agreeing: int
    """Live nodes, this one included, that are known to enforce the same definitions."""
    converged: bool
    """Every live peer's last evidenced hash is ours."""
    staleness_p50: float | None
    """Seconds that live peers are behind by at most, half of them: see docs/how-to/answers.md. null without evidence of any."""
    staleness_p99: float | None
    """The same of 99 %."""
    rounds: int
    """Messages received."""
    syncs: int
    """Pings answered whose hash was not ours."""
    exchanges: int
    """Exchanges that this node began and that came to an end."""
    bytes_sent: int
    bytes_received: int
    written_bytes: int
    """Bytes of the cells that this node wrote itself: what the fleet has to learn of it."""
    cells: int
    trouble: str | None
    """Why writes are refused: the store's disk is full, read-only or broken. Reads and gossip go on."""
    clock_alarms: int
    """Times that a peer's clock began to differ from ours by more than the bound."""
    clock_in_doubt: bool
    """Ours differs by more than the bound from half of those heard lately, or more: this node removes nothing that expired."""
    alarms: int
    """Times that a peer had our clock and another hash: corruption on one side."""
    repairs: int
    """Repairs that followed, and the cells they changed here."""
    cells_repaired: int
    endpoints: tuple[str, ...]
    uptime: float
    """Seconds since the start."""


class DefinitionReport(msgspec.Struct, frozen=True, kw_only=True):
    """One definition in force."""

    when: str | None
    severity: str
    about: str | None
    on: dict[str, str]
    """The labels of the nodes that it applies to; empty: all."""
    added_by: str
    added_at: int | None
    """ns since the epoch by that node's clock; null if it did not say."""
    expires_at: int | None
    """ns since the epoch; null: it is in force until somebody removes it."""


class ConstraintReport(msgspec.Struct, frozen=True, kw_only=True):
    """One active constraint, or one that has expired. Of several definitions `when`, `severity`, `about`, `on`, `added_by` and
    `added_at` are those of the first.
    """

    id: str
    when: str | None
    severity: str
    about: str | None
    on: dict[str, str]
    added_by: str
    added_at: int | None
    expires_at: int | None
    """When the last of its definitions ends, ns since the epoch; null if one of them does not."""
    applies_here: bool
    """One of the definitions applies to nodes with the labels of this one. If not, it is not evaluated here."""
    conflict: bool
    """Definitions that differ in more than their ends are in force, all of them enforced, until somebody edits the constraint."""
    definitions: tuple[DefinitionReport, ...]
    satisfied: int
    violations: int
    unknown: int
    """Evaluations on this node, since it started, that could not be decided."""
    verdict: str | None
    """This node's last evaluation: satisfied, violated, unknown; null before the first, or without a `when`."""
    reason: str
    """Why it is unknown."""
    by_node: dict[str, tuple[int, int]]
    """(satisfied, violations) per node."""


class NodeReport(msgspec.Struct, frozen=True, kw_only=True):
    """One node as seen from here."""

    node: str
    live: bool
    satisfied: int
    violations: int
    position: tuple[int, int] | None
    same_constraints: bool
    """Its last evidence covers every change of the definitions that we know of."""
    same_state: bool
    """Its last evidenced hash is ours."""
    software: str
    labels: dict[str, str]
    clock_offset: float | None
    """Seconds that its clock is ahead of ours (negative: behind); null if it was not heard lately."""
    retired: bool
    """It was retired for good; its counts stay."""
    convergence: PeerConvergence | None
    """How it stands to this node; null of this node itself, and of one that is retired."""


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """A live peer for whose sake removals are kept."""

    node: str
    removals: int
    """How many it gave no evidence of yet."""
    bytes: int
    """What keeping them costs: bytes of their cells."""
    seconds: float
    """Since when."""


class StorageReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a node holds, and what it could forget."""

    path: str
    """The store's file, or "memory"."""
    bytes_on_disk: int
    live: int
    """Cells that say what is so: definitions, counts, positions, nodes."""
    removed: int
    """Cells that say what is no more, kept until all have heard."""
    live_bytes: int
    removed_bytes: int
    floors: dict[str, int]
    """By replica: up to where removals of its row were dropped. A peer below it gets a Sync instead of a Delta."""
    dropped: dict[str, int]
    """Removals dropped since the start, by reason: acknowledged by all live peers, size, age."""
    holding: tuple[Holding, ...]
    trouble: str | None
    """Why writes are refused, if they are."""


class LifeReport(msgspec.Struct, frozen=True, kw_only=True):
    """One life of this node."""

    incarnation: str
    began: int
    """ns since the epoch."""
    why: str
    seq: int
    """How many mutations of it are known here."""


class IdentityReport(msgspec.Struct, frozen=True, kw_only=True):
    """Who this node is, and who it was."""

    node: str
    fleet: str
    replica: str
    store: str
    lives: tuple[LifeReport, ...]
    retired_by: str | None


class RetireReport(msgspec.Struct, frozen=True, kw_only=True):
    """What retiring a node does, or did."""

    node: str
    live: bool
    done: bool
    lives: dict[str, int]
    """Its replicas, each with the last seq known here. What it wrote beyond is lost, unless another node has it."""
    satisfied: int
    violations: int
    """Its counts, which stay."""
    acknowledged: tuple[str, ...]
    """Live peers with evidence of all that is known here of it."""
    missing: tuple[str, ...]
    """Live peers without."""
