"""The operations on the node itself and on the other nodes of its fleet."""

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from constraint_crdt.errors import ConstraintCrdtError, WritesRefused
from constraint_crdt.model import Severity, counted
from constraint_crdt.operations.constraints import DisabledReport, show_disabled
from constraint_crdt.operations.evidence import PeerConvergence, standing
from constraint_crdt.operations.operation import (
    GET,
    PAGED,
    POST,
    Body,
    Column,
    Command,
    Empty,
    Flag,
    Freshness,
    Lines,
    Operation,
    Paged,
    Parameter,
    Problem,
    Reply,
    Right,
    Table,
    View,
    concatenated,
    not_found,
    show_length,
    show_time,
)

if TYPE_CHECKING:
    from argparse import Namespace

    from constraint_crdt.protocol.peers import LinkEstimates
    from constraint_crdt.runtime.node import Node


class Retiring(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/retire`."""

    node: str
    dry_run: bool = False
    force: bool = False
    undo: bool = False


# --- responses --------------------------------------------------------------------------------------------------------------


LinkProtection = Literal["certificates", "mixed", "loopback", "none"]
"""How the links of a node are protected: by certificates of the fleet; not yet, as nodes without a certificate are accepted; by
being on one machine; not at all."""

LinkState = Literal["direct", "side", "router", "none"]
LINK_KINDS: Final[tuple[LinkState, ...]] = ("direct", "side", "router", "none")
"""How a node is linked to another. `side`: by a session of either for this link alone, since the usual link broke or never came.
`router`: through a router. `none`: not at all; their news come through others.
"""


class LinkReport(msgspec.Struct, frozen=True, kw_only=True):
    """The link to a node, as measured from this node. null: not measured yet."""

    node: str
    round_trip: float | None
    """Seconds, smoothed."""
    rate_out: float | None
    """Bytes per second at which large messages arrive there."""
    rate_in: float | None
    """Bytes per second at which large messages arrive from there."""
    loss: float
    """The share of requests without an answer in time, lately."""
    slow: bool
    """The round trip is above 0.5 s, a rate below 16 kB/s, or the loss above 10 %."""

    def __str__(self) -> str:
        figures = [] if self.round_trip is None else [f"round trip {self.round_trip:.3g} s"]
        for rate, way in ((self.rate_out, "out"), (self.rate_in, "in")):
            figures += [] if rate is None else [f"{rate / 1000:.3g} kB/s {way}"]
        if self.loss > 0.01:
            figures.append(f"{self.loss:.0%} unanswered")
        return f"{self.node} ({', '.join(figures) or 'no answer yet'})"


def link_report(links: "LinkEstimates", name: str) -> LinkReport | None:
    """The link to a peer, as measured; None before the first exchange."""
    found = links.get(name)
    if found is None:
        return None
    return LinkReport(
        node=name,
        round_trip=found.round_trip,
        rate_out=found.rate_out,
        rate_in=found.rate_in,
        loss=found.loss,
        slow=found.is_slow,
    )


def link_reports(links: "LinkEstimates", names: Iterable[str]) -> list[LinkReport]:
    """The measured links to these peers, the longest round trip first."""
    reports = [report for name in sorted(names) if (report := link_report(links, name)) is not None]
    return sorted(reports, key=lambda report: -(report.round_trip or 0.0))


def slow_links(links: "LinkEstimates", names: Iterable[str]) -> list[LinkReport]:
    """Those that are slow."""
    return link_reports(links, [name for name in names if (link := links.get(name)) is not None and link.is_slow])


MOST_LINKS = 10
"""Slow links in a status."""


MOST_WORST = 5
"""Violated constraints in a status."""


class ViolatedConstraint(msgspec.Struct, frozen=True, kw_only=True):
    """A constraint with a violation now."""

    id: str
    severity: str
    """The highest of its definitions."""
    nodes: int
    """The number of nodes with a violation."""
    node: str
    """The node with the longest violation, a live one if there is one."""
    since: int | None
    """The beginning of that violation, in ns since the epoch; null if the node did not tell it."""
    live: bool = True
    """False: no node with a violation is live, so the violation is as they last told."""
    reason: str = ""
    """Why the node cannot tell now whether it goes on, as a dead sensor; empty where it can."""


FAULT: Final = "fault"
"""The kind of a concern that is a finding of `doctor`."""


class Concern(msgspec.Struct, frozen=True, kw_only=True):
    """Something that an operator may have to see to, beside violations and the state of this node's disk and clock."""

    kind: str
    """fault (of the node itself), unknown, undecidable, not live, behind, conflict, clock, duplicate, trouble (that another node
    tells), refused, flapping, rollout, rollout stopped, changed, other fleet.
    """
    what: str
    command: str
    """The command that leads to the remedy, without the name of the program."""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """A node's view of itself and the fleet."""

    node: str
    replica: str
    fleet: str
    software: str
    hash: str
    """Hash of the state, hex: equal for equal states."""
    constraints_hash: str
    """Hash of the definitions in force, hex: equal for equal definitions."""
    constraints: int
    disabled: int = 0
    """Active constraints that are kept, and evaluated on no node."""
    all_disabled: DisabledReport | None = None
    """Null unless all constraints are disabled together."""
    conflicts: int = 0
    """Constraints with several definitions in force, by concurrent edits. Nodes of 0.1.0 do not tell them."""
    unknown_here: int = 0
    """Constraints unknown on this node now."""
    violated_anywhere: int = 0
    """Constraints violated on any node now, as far as is known here, without those of mode audit."""
    audited: int = 0
    """Active constraints of mode audit: they are evaluated, and not told."""
    audited_satisfied: int = 0
    """Their judgements, which are among `satisfied` and `violations`, and not in the satisfaction rate."""
    audited_violations: int = 0
    worst: tuple[ViolatedConstraint, ...] = ()
    """Of these the worst, by severity, then the longest violated: 5 at most. Nodes of 0.1.0 have none of these."""
    firing: int = 0
    """Alerts of the node's rules that fire now."""
    in_service: int = 0
    """Nodes known and neither retired nor revoked, this node included. Of 0 as of a node of 0.1.0, nothing is known."""
    satisfied: int
    violations: int
    satisfaction_rate: float
    position: tuple[int, int] | None
    peers: int
    """Live peers."""
    known: int
    """Known nodes, this node included."""
    agreeing: int
    """Live nodes, this node included, with evidence of the same definitions."""
    converged: bool
    """The last known hash of each live peer equals the hash of this node."""
    staleness_p50: float | None
    """Seconds: the median staleness of live peers, see docs/how-to/answers.md. null without evidence of any."""
    staleness_p99: float | None
    """The 99th percentile."""
    rounds: int
    """Messages received."""
    syncs: int
    """Answered pings with another hash."""
    exchanges: int
    """Exchanges begun by this node and completed."""
    bytes_sent: int
    bytes_received: int
    written_bytes: int
    """Bytes of the cells written by this node."""
    cells: int
    trouble: str | None
    """Why writes are refused: the store's disk is full, read-only or broken. Reads and gossip go on."""
    clock_alarms: int
    """Times at which the clock of a peer began to differ by more than the bound."""
    clock_in_doubt: bool
    """This node's clock differs by more than the bound from at least half of the recent peers: expired constraints are not
    removed.
    """
    clock_correction: float | None = None
    """Seconds from this node's clock to the time that it goes by while in doubt. null without a doubt."""
    fleet_time: bool = False
    """While in doubt it goes by the fleet's time. Otherwise nothing with an end is written here."""
    clock_steps: int = 0
    """Times that the clock of this machine was set since the start."""
    lost_writes: int = 0
    """Writes of this node that its store lacked, since an older state had been put back, and that no peer has brought back."""
    alarms: int
    """Times of a peer with an equal clock and another hash: corruption on either side."""
    repairs: int
    """Repairs after such alarms, and the cells changed by them here."""
    cells_repaired: int
    endpoints: tuple[str, ...]
    links: LinkProtection = "none"
    """How the links to other nodes are protected. `none` and `mixed`: every machine that reaches the port of a node can read and
    change everything; `mixed`: the node has an identity and accepts nodes without an identity.
    """
    slow_links: tuple[LinkReport, ...] = ()
    """The slowest of the slow links to live peers, 10 at most."""
    linked: dict[str, int] = {}
    """The number of other nodes in service by their link: `direct`, `side`, `router` or `none`."""
    role: str = "peer"
    """The present role of the node among these links: `peer`, `router` or `client`."""
    role_rule: str = ""
    """Why it has this role: `by its settings`, or the rule of a fleet that chooses roles by itself."""
    routers: tuple[str, ...] = ()
    """The routers that it has a link to; for a client that it links through."""
    site: str = ""
    """The site of the node; empty without a site."""
    sites: int = 1
    """Sites seen now, that of the node included."""
    away: int = 0
    """Nodes of other sites seen now. Few of them are live peers."""
    speaks_with: tuple[str, ...] = ()
    """The other sites that the node speaks with for its own."""
    concerns: tuple[Concern, ...] = ()
    """Further concerns, by kind, each with a command."""
    uptime: float
    """Seconds since the start."""


class NodeReport(msgspec.Struct, frozen=True, kw_only=True):
    """A node as seen from this node."""

    node: str
    live: bool
    satisfied: int
    violations: int
    position: tuple[int, int] | None
    same_constraints: bool
    """Its last evidence covers all known changes of definitions."""
    same_state: bool
    """Its last known hash equals the hash of this node."""
    software: str
    labels: dict[str, str]
    clock_offset: float | None
    """Seconds by which its clock is ahead (negative: behind); null without recent contact."""
    retired: bool
    """Retired for good; its counts stay."""
    revoked: bool = False
    """All of its keys are revoked; its counts stay."""
    link: str = ""
    """Its link to this node: `direct`, `side`, `router` or `none`; empty for this node and for retired nodes."""
    convergence: PeerConvergence | None
    """The comparison to this node; null for this node and for retired nodes."""
    measured: LinkReport | None = None
    """The link to it as measured; null for this node, and before the first exchange."""
    site: str = ""
    """Its site; empty without a site."""
    speaks_with: tuple[str, ...] = ()
    """The sites that it speaks with for its own, as far as this node knows: of a node of another site only that of this node."""
    endpoints: tuple[str, ...] = ()
    """The addresses at which it told that peers reach it."""
    uptime: float | None = None
    """Seconds since it joined the network; null where that is not known, as of nodes that are not live."""
    trouble: str = ""
    """The fault that it tells of itself, as that its disk is full; empty for none. Nodes of 0.1.0 tell none."""


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """A live peer with missing acknowledgements of removals."""

    node: str
    removals: int
    """The number of unacknowledged removals."""
    bytes: int
    """Bytes of the cells of these removals."""
    seconds: float
    """Since when."""


class StorageReport(msgspec.Struct, frozen=True, kw_only=True):
    """The cells of a node, and the removals to drop."""

    path: str
    """The store's file, or "memory"."""
    bytes_on_disk: int
    live: int
    """Cells of definitions, counts, positions, nodes."""
    removed: int
    """Cells of removals, stored until all live peers acknowledge them."""
    live_bytes: int
    removed_bytes: int
    floors: dict[str, int]
    """By replica: the seq up to which removals of its row were dropped. A peer below this gets a Sync instead of a Delta."""
    dropped: dict[str, int]
    """Removals dropped since the start, by reason: acknowledged by all live peers, size, age."""
    holding: tuple[Holding, ...]
    trouble: str | None
    """The reason for refused writes, if any."""


class LifeReport(msgspec.Struct, frozen=True, kw_only=True):
    """A life of this node."""

    incarnation: str
    began: int
    """ns since the epoch."""
    why: str
    seq: int
    """The number of its mutations known here."""


class IdentityReport(msgspec.Struct, frozen=True, kw_only=True):
    """The identity of this node, and its lives."""

    node: str
    fleet: str
    replica: str
    store: str
    lives: tuple[LifeReport, ...]
    retired_by: str | None


class RetireReport(msgspec.Struct, frozen=True, kw_only=True):
    """The effect of retiring a node."""

    node: str
    live: bool
    done: bool
    """The node is retired."""
    by: str | None = None
    """The node that retired it; null for a node in service."""
    lives: dict[str, int]
    """Its replicas, each with the last seq known here. Later writes are lost, unless another node has them."""
    satisfied: int
    violations: int
    """Its counts, which stay."""
    acknowledged: tuple[str, ...]
    """Live peers with evidence of all mutations of the node known here."""
    missing: tuple[str, ...]
    """Live peers without."""


# --- operations -------------------------------------------------------------------------------------------------------------


async def _status(node: "Node", _: Empty) -> Status:
    return node.status()


def _audited(answer: Status) -> str:
    counts = f"{answer.audited_satisfied} judgements satisfied, {answer.audited_violations} violated"
    return f"{counted(answer.audited, 'constraint', 'is', 'are')} tried out, and counted apart: {counts}"


def _disabled(answer: Status) -> list[tuple[str, object]]:
    if answer.all_disabled is not None:
        return [("NOTHING IS EVALUATED", show_disabled(answer.all_disabled, time.time()))]
    return (
        [("DISABLED", f"{counted(answer.disabled, 'constraint')}; `constraints` says by whom and why")] if answer.disabled else []
    )


def show_status(answer: Status) -> Lines:
    """The values by name, with the alarms of the node last."""
    satisfied, violations = answer.satisfied - answer.audited_satisfied, answer.violations - answer.audited_violations
    total = satisfied + violations
    rate = f", {100 * answer.satisfaction_rate:.2f} % satisfied" if total else ""
    lines: list[tuple[str, object]] = [
        ("node", f"{answer.node} (replica {answer.replica}), up {answer.uptime:.0f} s"),
        ("fleet", f"{answer.fleet}, live peers: {answer.peers} of {answer.known - 1} known"),
        *([("CUT OFF", _cut_off(answer))] if is_cut_off(answer) else []),
        ("constraints", f"{answer.constraints} active, {_shared(answer)}"),
        ("verdicts", f"{answer.violated_anywhere} violated on a node or more now, {answer.unknown_here} unknown on this node"),
        *(("violated", show_worst(each, time.time())) for each in answer.worst),
        *([("alerts", f"{answer.firing} firing: see `alerts`")] if answer.firing else []),
        *((each.kind, f"{each.what} (see `{each.command}`)") for each in answer.concerns),
        ("counts", f"{counted(satisfied, 'judgement')} satisfied, {violations} violated{rate}"),
        *([("audit", _audited(answer))] if answer.audited else []),
        ("position", list(answer.position) if answer.position else "none"),
        ("agreement", f"{_agreement(answer)}; constraints {answer.constraints_hash[:16]}, everything {answer.hash[:16]}"),
        ("staleness", _staleness(answer)),
        ("gossip", _gossip(answer)),
        ("bytes", f"{answer.bytes_sent} sent, {answer.bytes_received} received, {answer.written_bytes} written here"),
        ("endpoints", ", ".join(answer.endpoints) or "none"),
        ("linked", show_links(answer.linked)),
        ("role", _role(answer)),
    ]
    lines += _disabled(answer)
    if answer.sites > 1:
        lines.append(("site", f"{site_name(answer.site)}, {_speaks(answer)}; {counted(answer.away, 'node')} in other sites"))
    if answer.links == "certificates":
        lines.append(("links", "only with nodes that have a certificate of the fleet"))
    if answer.links == "mixed":
        lines.append(("LINKS", "open: nodes without a certificate are accepted (--accept-plain); see docs/security.md"))
    if answer.links == "none":
        lines.append(
            ("LINKS", "not protected: who reaches the port of a node can read and change everything; see docs/security.md")
        )
    if answer.slow_links:
        lines.append(("slow links", "; ".join(map(str, answer.slow_links))))
    if answer.conflicts:
        lines.append(
            (
                "CONFLICT",
                f"{counted(answer.conflicts, 'constraint', 'has', 'have')} definitions that differ, all in force: see `doctor`",
            )
        )
    if answer.trouble:
        lines.append(("TROUBLE", f"writes are refused: {answer.trouble}"))
    if answer.clock_alarms:
        lines.append(
            ("CLOCKS", f"{counted(answer.clock_alarms, 'time')} a peer's clock was off by more than it may be: see `nodes`")
        )
    if answer.clock_in_doubt:
        lines.append(("CLOCK", f"in doubt, so it removes nothing that expired; {_goes_by(answer)}"))
    if answer.lost_writes:
        lines.append(
            (
                "LOST",
                f"{counted(answer.lost_writes, 'write')} that the store lacked, as an older state had been put back: see `doctor`",
            )
        )
    if answer.alarms:
        lines.append(("ALARM", f"{counted(answer.alarms, 'time')} a peer with the same clock had another state: one is corrupted"))
        lines.append(("repaired", f"{counted(answer.repairs, 'time')}, {counted(answer.cells_repaired, 'cell')} here"))
    return Lines(lines)


def _gossip(status: Status) -> str:
    exchanges = f"{counted(status.exchanges, 'exchange')} begun, {status.syncs} with news"
    return f"{counted(status.rounds, 'message')} received, {exchanges}"


def is_cut_off(status: Status) -> bool:
    """True if other nodes are in service and none of them is live."""
    return status.in_service > 1 and not status.peers


def _cut_off(status: Status) -> str:
    others = status.in_service - 1
    return (
        f"none of the {others} other nodes in service is live: what they have is not known here"
        if others > 1
        else ("the other node in service is not live: what it has is not known here")
    )


def _shared(status: Status) -> str:
    if status.in_service == 1 or not status.known > 1:
        return "on this node alone"
    if is_cut_off(status):
        return "as this node knows them"
    return f"the same on {status.agreeing} of {status.peers + 1} live nodes"


def _agreement(status: Status) -> str:
    if is_cut_off(status):
        return "not known"
    if not status.peers:
        return "there is no other node"
    return "the same state on all live nodes" if status.converged else "changes still travel"


def show_worst(each: ViolatedConstraint, now: float) -> str:
    """A violated constraint: `thermal (critical) on forge since 3 min ago, and on 2 more nodes`."""
    since = "" if each.since is None else f" since {show_time(each.since, now)}"
    more = "" if each.nodes < 2 else f", and on {counted(each.nodes - 1, 'more node')}"
    gone = "" if each.live else ", as last heard: it is not live"
    unsure = f" ({each.reason})" if each.reason and each.live else ""
    return f"{each.id} ({each.severity}) on {each.node}{since}{unsure}{gone}{more}"


LEVELS: Final = ("OK", "WARNING", "CRITICAL")
"""The results of a check in the order of their exit codes, as monitoring plugins have them."""


CHECKED: Final = frozenset(
    (
        FAULT, "conflict", "clock", "duplicate", "trouble", "refused", "behind", "undecidable", "flapping", "other fleet",
        "rollout stopped",
    )
)  # fmt: skip
"""The kinds of concerns that a check warns of; it has others of its own."""


def check_status(answer: Status) -> tuple[int, list[str]]:
    """The level of a check, as an index of `LEVELS`, with the reasons, the gravest first.

    Critical: a critical constraint is violated, all are disabled, writes are refused, or the state is corrupted. Warning: another
    constraint is violated, a constraint is unknown here, an alert fires, the node is cut off, a node in service is not live, or the
    clock is in doubt.
    """
    now = time.time()
    worst = [(2 if each.severity == Severity.CRITICAL else 1, f"violated: {show_worst(each, now)}") for each in answer.worst]
    more = answer.violated_anywhere - len(answer.worst)
    away = answer.in_service - 1 - answer.peers - answer.away
    found = [
        *([(2, f"writes are refused: {answer.trouble}")] if answer.trouble else []),
        *([(2, "a peer with the same clock had another state: one is corrupted")] if answer.alarms else []),
        *([(2, "no constraint is evaluated: all are disabled")] if answer.all_disabled else []),
        *worst,
        *([(1, f"{counted(more, 'more constraint')} violated")] if more > 0 else []),
        *([(1, f"cut off: {_cut_off(answer)}")] if is_cut_off(answer) else []),
        *(
            [(1, f"{counted(away, 'node')} in service {'is' if away == 1 else 'are'} not live")]
            if away > 0 and not is_cut_off(answer)
            else []
        ),
        *([(1, f"{counted(answer.unknown_here, 'constraint')} unknown on this node")] if answer.unknown_here else []),
        *([(1, f"{counted(answer.firing, 'alert')} firing")] if answer.firing else []),
        *([(1, "the clock is in doubt")] if answer.clock_in_doubt else []),
        *((1, f"{each.kind}: {each.what}") for each in answer.concerns if each.kind in CHECKED),
    ]
    found.sort(key=lambda each: -each[0])
    return max((level for level, _ in found), default=0), [why for _, why in found]


def show_check(answer: Status) -> str:
    """The result in a line, with figures for a monitor behind `|`."""
    level, reasons = check_status(answer)
    told = "; ".join(reasons) or f"{counted(answer.constraints, 'constraint')}, {counted(answer.peers + 1, 'live node')}"
    figures = {
        "violated": answer.violated_anywhere,
        "unknown": answer.unknown_here,
        "live": answer.peers + 1,
        "firing": answer.firing,
    }
    shown = " ".join(f"{name}={value}" for name, value in figures.items())
    return f"{LEVELS[level]}: {told.replace('|', '/')} | {shown}"


def _role(status: Status) -> str:
    through = ", ".join(name or "a router of another name" for name in status.routers)
    if status.role == "client":
        linked = f", through {through}" if through else ", without a link to a router now"
    else:
        linked = f", linked to the routers {through}" if through else ""
    return f"{status.role} ({status.role_rule}){linked}"


def site_name(site: str) -> str:
    """The name of a site for people. Nodes without a site are a site, too."""
    return site or "(no site)"


def _speaks(of: Status | NodeReport) -> str:
    few = [site_name(site) for site in of.speaks_with[:MOST_NAMED]]
    more = len(of.speaks_with) - len(few)
    if not few:
        return "speaks with no other site"
    return f"speaks with {', '.join(few)}{f' and {more} more' if more else ''}"


def _link_cells(link: LinkReport | None) -> tuple[str, str]:
    """The round trip and the lower of both rates."""
    if link is None:
        return "-", "-"
    rates = [rate for rate in (link.rate_out, link.rate_in) if rate is not None]
    trip = "-" if link.round_trip is None else f"{link.round_trip:.3g} s"
    return trip, f"{min(rates) / 1000:.3g} kB/s" if rates else "-"


_LINKS: Final[Mapping[str, str]] = {
    "direct": "directly",
    "side": "by a session for the link alone",
    "router": "through a router",
}


def show_links(linked: Mapping[str, int]) -> str:
    """The number of nodes by their link, as text."""
    shown = [f"{linked[kind]} {how}" for kind, how in _LINKS.items() if linked.get(kind)]
    without = [f"{linked['none']} without a link"] if linked.get("none") else []
    return ", ".join([*shown, *without]) or "to no other node"


def _goes_by(status: Status) -> str:
    if status.fleet_time:
        return f"it goes by the fleet's time, {status.clock_correction or 0.0:+.1f} s from its own"
    return "it goes by the earliest clock that it hears, and writes nothing that ends at a time: set its clock"


def _staleness(status: Status) -> str:
    if status.staleness_p50 is None or status.staleness_p99 is None:
        return "nothing is known of any live peer"
    return f"half of the live peers {status.staleness_p50:.1f} s at most, 99 % of them {status.staleness_p99:.1f} s"


STATUS: Final = Operation(
    name="status",
    method=GET,
    path="/v1/status",
    summary="How the node and its fleet are doing.",
    request=Empty,
    response=Status,
    run=_status,
    freshness=Freshness.AGING,
    command=Command(
        name="status",
        example="status --check",
        help="how the node and its fleet are doing",
        group="observe",
        options={
            "check": Flag(
                "--check",
                action="store_true",
                help="one line, and the exit code of a monitoring plugin: 0 ok, 1 warning, 2 critical, 3 unknown",
            )
        },
    ),
)


class ListNodes(Paged, frozen=True, kw_only=True):
    """`GET /v1/nodes`."""

    on: str | None = None
    """The selector of the nodes; None: all."""


async def _nodes(node: "Node", request: ListNodes) -> Reply[list[NodeReport]]:
    page, following = request.page(node.node_names(request.on))
    return Reply(node.nodes(page), next_after=following)


MOST_NAMED = 3
"""Sites that a line names."""


def show_nodes(answer: list[NodeReport], _: ListNodes, __: "Namespace") -> View:
    """A row for each node. Labels, clocks, sites, slow links, unusual links and troubles have a column where there are some."""
    now = time.time()
    columns = [
        Column("node"),
        Column("live"),
        Column("judged satisfied", right=True),
        Column("judged violated", right=True),
        Column("position"),
        Column("same constraints"),
        Column("state"),
        Column("since"),
        Column("behind", right=True),
        Column("software"),
        Column("up", right=True),
        Column("address"),
    ]
    unusual = any(each.link not in ("", "direct") for each in answer)
    skewed = any(each.clock_offset is not None for each in answer)
    troubled = any(each.trouble for each in answer)
    labelled = any(each.labels for each in answer)
    sited = len({each.site for each in answer}) > 1
    columns += [Column("labels")] if labelled else []
    columns += [Column("clock", right=True)] if skewed else []
    columns += [Column("site")] if sited else []
    measured = any(each.measured is not None and each.measured.slow for each in answer)
    columns += [Column("round trip", right=True), Column("rate", right=True)] if measured else []
    columns += [Column("link")] if unusual else []
    columns += [Column("trouble")] if troubled else []
    rows = [
        [
            each.node,
            "retired" if each.retired else "revoked" if each.revoked else _yes(each.live),
            each.satisfied,
            each.violations,
            "-" if each.position is None else "{}, {}".format(*each.position),
            _yes(each.same_constraints),
            *standing(None if each.revoked else each.convergence, now),
            each.software,
            "-" if each.uptime is None else show_length(each.uptime),
            _address(each.endpoints),
            *([", ".join(f"{key}={value}" for key, value in each.labels.items()) or "-"] if labelled else []),
            *([_offset(each.clock_offset)] if skewed else []),
            *([f"{site_name(each.site)}{f', {_speaks(each)}' if each.speaks_with else ''}"] if sited else []),
            *(_link_cells(each.measured) if measured else []),
            *([each.link or "-"] if unusual else []),
            *([each.trouble or "-"] if troubled else []),
        ]
        for each in answer
    ]
    return Table(columns, rows)


def _offset(seconds: float | None) -> str:
    return "-" if seconds is None else f"{round(seconds, 1) + 0.0:+.1f} s"


def _address(endpoints: Sequence[str]) -> str:
    more = f" and {len(endpoints) - 1} more" if len(endpoints) > 1 else ""
    return f"{endpoints[0]}{more}" if endpoints else "-"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


NODES: Final = Operation(
    name="nodes",
    method=GET,
    path="/v1/nodes",
    summary="The nodes ever heard of, by name.",
    request=ListNodes,
    response=list[NodeReport],
    run=_nodes,
    parameters=(
        Parameter(name="on", about="only the nodes with these labels: a selector, as in zone in (a, b), !spare"),
        *PAGED,
    ),
    freshness=Freshness.AGING,
    join=concatenated,
    command=Command(
        name="nodes",
        example="nodes --on zone=dock",
        help="the nodes of the fleet, as this node sees them",
        group="fleet",
        flags={"on": Flag("--on", metavar="SELECTOR", help="only those with these labels, as in 'zone in (a, b), !spare'")},
        show=show_nodes,
    ),
)


async def _storage(node: "Node", _: Empty) -> StorageReport:
    return node.storage()


def show_storage(answer: StorageReport, _: Empty, __: "Namespace") -> View:
    """The values by name, and a table of the floors if there are some."""
    dropped = ", ".join(f"{count} by {reason}" for reason, count in answer.dropped.items() if count)
    lines: list[tuple[str, object]] = [
        ("store", f"{answer.path}, {answer.bytes_on_disk} bytes on disk"),
        ("live", f"{counted(answer.live, 'cell')}, {answer.live_bytes} bytes"),
        ("removed", f"{counted(answer.removed, 'cell')}, {answer.removed_bytes} bytes, kept until all have heard"),
        ("dropped", f"{dropped or 'no removals'} since the start"),
    ]
    lines += [("held back", _held(each)) for each in answer.holding] or [("held back", "by no live peer")]
    if answer.trouble:
        lines.append(("TROUBLE", f"writes are refused: {answer.trouble}"))
    if not answer.floors:
        return Lines(lines)
    columns = [Column("replica"), Column("removals dropped up to", right=True)]
    return [Lines(lines), "", Table(columns, list(answer.floors.items()))]


def _held(each: Holding) -> str:
    return f"by {each.node}: {each.removals} removals, {each.bytes} bytes, that it has not acknowledged, for {each.seconds:.0f} s"


STORAGE: Final = Operation(
    name="storage",
    method=GET,
    path="/v1/storage",
    summary="What the node holds, and could forget.",
    about="The contents of the node by kind, and the tombstones it could forget.",
    request=Empty,
    response=StorageReport,
    run=_storage,
    freshness=Freshness.AGING,
    command=Command(
        name="storage",
        example="storage --node forge:8470",
        help="what the node holds, and what keeps it from forgetting",
        group="fleet",
        show=show_storage,
    ),
)


async def _identity(node: "Node", _: Empty) -> IdentityReport:
    return node.identity()


def show_identity(answer: IdentityReport, _: Empty, __: "Namespace") -> View:
    """The names of the node, and a row for each incarnation."""
    lines: list[tuple[str, object]] = [
        ("node", f"{answer.node} of fleet {answer.fleet}"),
        ("replica", answer.replica),
        ("store", answer.store),
    ]
    if answer.retired_by:
        lines.append(("RETIRED", f"by {answer.retired_by}, for good"))
    columns = [Column("incarnation"), Column("began"), Column("mutations", right=True), Column("why")]
    rows = [[each.incarnation, _local_time(each.began), each.seq, each.why] for each in answer.lives]
    return [Lines(lines), "", Table(columns, rows)]


def _local_time(ns: int) -> str:
    return datetime.fromtimestamp(ns / 1e9).astimezone().isoformat(sep=" ", timespec="seconds")


IDENTITY: Final = Operation(
    name="identity",
    method=GET,
    path="/v1/identity",
    summary="Who the node is, and was.",
    request=Empty,
    response=IdentityReport,
    run=_identity,
    freshness=Freshness.STATE,
    command=Command(
        name="identity", example="identity --json", help="who the node is, and its lives so far", group="fleet", show=show_identity
    ),
)


async def _retire(node: "Node", request: Retiring) -> RetireReport:
    try:
        return await node.retire(request.node, dry_run=request.dry_run, force=request.force, undo=request.undo)
    except KeyError:
        detail = f"no node {request.node!r} ever wrote, as far as is known here"
        raise not_found(detail, "node", name=request.node, known=node.node_names()) from None
    except WritesRefused:
        raise
    except ConstraintCrdtError as error:
        raise Problem(HTTPStatus.CONFLICT, str(error), field="node") from None


def away_nodes(nodes: Iterable[NodeReport], seconds: float, uptime: float, now: float) -> list[str]:
    """The nodes in service that are not live and were not heard of for so long, as far as the asked node knows.

    Of a node that it never heard of since its own start it knows no more than that: it counts as away for `uptime` seconds.
    """
    found = []
    for each in nodes:
        if each.live or each.retired or each.revoked or each.convergence is None or each.convergence.state != "unreachable":
            continue
        heard = each.convergence.heard or each.convergence.since
        if (uptime if heard is None else now - heard / 1e9) >= seconds:
            found.append(each.node)
    return found


def show_retire(answer: RetireReport, request: Retiring) -> View:
    """A sentence on the retirement, and the values of the node by name."""
    return [
        _undone(answer, dry_run=request.dry_run)
        if request.undo
        else _verdict(answer, dry_run=request.dry_run, force=request.force),
        Lines(
            [
                ("lives", ", ".join(f"{replica} up to {seq}" for replica, seq in answer.lives.items())),
                ("counts", f"{answer.satisfied} satisfied, {answer.violations} violated: they stay"),
                ("known to", _names(answer.acknowledged, "this node only")),
                ("lacked by", _names(answer.missing, "no other live peer")),
            ]
        ),
    ]


def _verdict(answer: RetireReport, *, dry_run: bool, force: bool) -> str:
    name = answer.node
    if not dry_run:
        return f"{name} is retired for good: its return is refused, and its name is not to be used again"
    if answer.done:
        return f"{name} is retired already; nothing was done (dry run)"
    if answer.live and not force:
        return f"{name} is live, so retiring it would be refused without --force; nothing was done (dry run)"
    if answer.live:
        return f"{name} is live, and would be retired with the loss of its writes that no peer has taken yet (dry run)"
    return f"{name} is not live, and would be retired for good (dry run)"


def _undone(answer: RetireReport, *, dry_run: bool) -> str:
    if dry_run:
        return f"{answer.node} was retired by {answer.by}, and would be in service again (dry run)"
    return f"{answer.node} is in service again: start it with its store, and it goes on in a new life"


def _names(names: Iterable[str], none: str) -> str:
    return ", ".join(names) or none


RETIRE: Final = Operation(
    name="retire",
    method=POST,
    path="/v1/retire",
    right=Right.OPERATE,
    summary="End another node for good, or undo that.",
    about="End another node for good; `dry_run` only reports the effect. `undo`: a retired node is in service again.",
    request=Retiring,
    response=RetireReport,
    run=_retire,
    body=Body(shape=Retiring),
    errors=frozenset({404, 409}),
    positional=("node",),
    command=Command(
        name="retire",
        example="retire --away 7d --dry-run",
        help="end other nodes for good; their counts stay",
        group="fleet",
        flags={
            "node": None,
            "dry_run": Flag("--dry-run", action="store_true", help="say what it would mean, and do nothing"),
            "undo": Flag(
                "--undo",
                action="store_true",
                help="it was a mistake: have the node in service again; started again, it goes on with what its store holds",
            ),
            "force": Flag(
                "--force",
                action="store_true",
                help="retire it though it is live: what it wrote and no other node has taken yet is lost",
            ),
        },
        options={
            "nodes": Flag(nargs="*", metavar="NODE", help="a node, or a pattern as 'web-*'; a name cannot be used again"),
            "away": Flag("--away", metavar="TIME", help="of these, or of all nodes, those not heard of for so long, as in 7d"),
            "yes": Flag("--yes", action="store_true", help="do not ask, where a pattern or --away chose the nodes"),
        },
    ),
)
