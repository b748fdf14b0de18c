"""The operations on the node itself and on the other nodes of its fleet."""

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import msgspec

from constraint_crdt.errors import ConstraintCrdtError, WritesRefused
from constraint_crdt.operations.evidence import PeerConvergence
from constraint_crdt.operations.operation import (
    GET,
    PAGED,
    POST,
    Body,
    Empty,
    Freshness,
    Operation,
    Paged,
    Problem,
    Reply,
    concatenated,
    not_found,
)

if TYPE_CHECKING:
    from constraint_crdt.runtime.node import Node


class Retiring(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/retire`."""

    node: str
    dry_run: bool = False
    force: bool = False


# --- responses --------------------------------------------------------------------------------------------------------------


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
    """Seconds that live peers are behind by at most, half of them: see docs/answers.md. null without evidence of any."""
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


# --- operations -------------------------------------------------------------------------------------------------------------


async def _status(node: "Node", _: Empty) -> Status:
    return node.status()


STATUS: Final = Operation(
    name="status",
    method=GET,
    path="/v1/status",
    summary="How the node and its fleet are doing.",
    request=Empty,
    response=Status,
    run=_status,
    freshness=Freshness.AGING,
)


async def _nodes(node: "Node", request: Paged) -> Reply[list[NodeReport]]:
    page, following = request.page(node.node_names())
    return Reply(node.nodes(page), next_after=following)


NODES: Final = Operation(
    name="nodes",
    method=GET,
    path="/v1/nodes",
    summary="The nodes ever heard of, by name.",
    request=Paged,
    response=list[NodeReport],
    run=_nodes,
    parameters=PAGED,
    freshness=Freshness.AGING,
    join=concatenated,
)


async def _storage(node: "Node", _: Empty) -> StorageReport:
    return node.storage()


STORAGE: Final = Operation(
    name="storage",
    method=GET,
    path="/v1/storage",
    summary="What the node holds, and could forget.",
    request=Empty,
    response=StorageReport,
    run=_storage,
    freshness=Freshness.AGING,
)


async def _identity(node: "Node", _: Empty) -> IdentityReport:
    return node.identity()


IDENTITY: Final = Operation(
    name="identity",
    method=GET,
    path="/v1/identity",
    summary="Who the node is, and was.",
    request=Empty,
    response=IdentityReport,
    run=_identity,
    freshness=Freshness.STATE,
)


async def _retire(node: "Node", request: Retiring) -> RetireReport:
    try:
        return await node.retire(request.node, dry_run=request.dry_run, force=request.force)
    except KeyError:
        raise not_found(f"no node {request.node!r} ever wrote, as far as is known here", "node") from None
    except WritesRefused:
        raise
    except ConstraintCrdtError as error:
        raise Problem(HTTPStatus.CONFLICT, str(error), field="node") from None


RETIRE: Final = Operation(
    name="retire",
    method=POST,
    path="/v1/retire",
    summary="End another node for good.",
    about="End another node for good; `dry_run` only says what that means.",
    request=Retiring,
    response=RetireReport,
    run=_retire,
    body=Body(shape=Retiring),
    errors=frozenset({404, 409}),
    positional=("node",),
)
