"""What a node answers about the fleet: the shapes that the API sends and the command line shows."""

import msgspec


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
    alarms: int
    """Times that a peer had our clock and another hash: corruption on one side."""
    endpoints: tuple[str, ...]
    uptime: float
    """Seconds since the start."""


class DefinitionReport(msgspec.Struct, frozen=True, kw_only=True):
    """One definition in force."""

    when: str | None
    severity: str
    about: str | None
    added_by: str


class ConstraintReport(msgspec.Struct, frozen=True, kw_only=True):
    """One active constraint. With a conflict, `when`, `severity` and `about` are those of the first definition."""

    id: str
    when: str | None
    severity: str
    about: str | None
    added_by: str
    conflict: bool
    """Several definitions are in force, all of them enforced, until somebody edits the constraint."""
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
