"""What a node answers about the fleet: the shapes that the API sends and the command line shows."""

import msgspec

from constraint_crdt.node.answering.reports import PeerConvergence


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
