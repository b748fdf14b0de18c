"""`GET /metrics`: the metrics of a node for Prometheus, as text or OpenMetrics. docs/reference/metrics.md explains each.

Rules: every figure is read from the node at scrape time, so nothing is counted twice; an unknown figure is left out. Every
label has a bounded set of values. The route of a request is the template of its path, never the path itself; an unknown method
is `other`, and requests without a route, or refused before routing, have the route `none`. The registry belongs to the
application, so two nodes in a process have separate metrics.

A fleet may have 10,000 constraints, and a time series for each would overload a monitoring system. So the `MOST` most violated
constraints have a series each, and a further series has the rest. The rest is a counter, too: its value must not fall when a
constraint gets a series, nor jump when such a constraint disappears. So its first value is the sum of all other constraints,
and later counts without a series add to this value.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import nsmallest
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from constraint_crdt.alerts import KINDS
from constraint_crdt.http import EventFeed
from constraint_crdt.http.security import Denials, RequestCounts
from constraint_crdt.model import EventKind
from constraint_crdt.operations.alerts import ActionReport, AlertsReport
from constraint_crdt.operations.budgets import BudgetReport
from constraint_crdt.operations.evidence import ConvergenceReport
from constraint_crdt.operations.nodes import Status
from constraint_crdt.operations.operation import Empty
from constraint_crdt.runtime.answers import Histogram, MetricsReport, histogram_of
from constraint_crdt.runtime.node import Node
from constraint_crdt.state import ConstraintState
from constraint_crdt.types.counters import ZERO, Counts

MOST: Final = 100
"""Constraints with a series of their own."""

OTHER: Final = "other"
"""The label of the rest. A constraint with this id never has a series of its own."""


class MostViolated:
    """The named constraints and the rest, from reading to reading."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._named: dict[str, Counts] | None = None
        self._total = self._rest = ZERO

    def read(self, state: ConstraintState) -> dict[str, Counts]:
        """The counts by label, those of `OTHER` last. O(constraints)."""
        total = state.metrics.total
        counts = {id_: state.metrics.constraint(id_) for id_ in state.constraints if id_ != OTHER}
        chosen = nsmallest(self._most, counts, key=lambda id_: (-counts[id_].violated, id_))
        named = {id_: counts[id_] for id_ in chosen}
        self._rest = self._rest.plus(*_less(_less(total, self._total), self._counted_by_name(named)))
        self._named, self._total = named, total
        return {**named, OTHER: self._rest}

    def _counted_by_name(self, named: dict[str, Counts]) -> Counts:
        """The increase of the named series since the last scrape; at the first scrape their values."""
        if self._named is None:
            return _sum(named.values())
        before = self._named
        return _sum(_less(counts, before[id_]) for id_, counts in named.items() if id_ in before)


def _less(counts: Counts, others: Counts) -> Counts:
    """The difference, at least 0: counts can have been folded since."""
    return Counts(max(0, counts.satisfied - others.satisfied), max(0, counts.violated - others.violated))


def _sum(every: Iterable[Counts]) -> Counts:
    total = ZERO
    for each in every:
        total = total.plus(*each)
    return total


PREFIX = "constraint_crdt_"

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text"
OPENMETRICS_TEXT = f"{OPENMETRICS}; version=1.0.0; charset=utf-8"
"""The media types of the two forms."""

_encode_openmetrics: Callable[[CollectorRegistry], bytes] = generate_openmetrics

PEER_STATES = ("same", "behind", "ahead", "apart", "diverged", "unknown", "unreachable", "reachable")
"""How a peer may stand to this node, see `PeerConvergence.state`."""


class NodeMetrics:
    """The metrics of a node and of the application around it."""

    def __init__(self, node: Node, requests: RequestCounts, feed: EventFeed, denials: Denials) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_NodeCollector(node, requests, feed, denials))
        ProcessCollector(registry=self._registry)

    def text(self, accept: str) -> tuple[bytes, str]:
        """All metrics, and the media type: OpenMetrics if the Accept header lists that.

        O(constraints + nodes x rows).
        """
        # Not the library's `choose_encoder`: invalid version numbers make that fail, and any valid number is promised.
        if any(each.partition(";")[0].strip().lower() == OPENMETRICS for each in accept.split(",")):
            return _encode_openmetrics(self._registry), OPENMETRICS_TEXT
        return generate_latest(self._registry), TEXT


async def metrics(_: Empty, request: Request) -> Response:
    """`GET /metrics`."""
    found: NodeMetrics = request.app.state.metrics()
    text, media_type = found.text(request.headers.get("accept", ""))
    return Response(text, headers={"content-type": media_type, "cache-control": "no-store"})


class _NodeCollector(Collector):
    def __init__(self, node: Node, requests: RequestCounts, feed: EventFeed, denials: Denials) -> None:
        self._node = node
        self._requests = requests
        self._feed = feed
        self._denials = denials
        self._most_violated = MostViolated()

    def collect(self) -> Iterator[Metric]:
        node = self._node
        with node.gossip.time.held():
            status, figures = node.status(), node.metrics.report()
            alerts = node.alerts.report()
            budgets = node.budgets.reports()
            rollouts = [each.phase for each in node.rollouts.active()]
            convergence, constraints = node.convergence.report(), self._most_violated.read(node.gossip.state)
        yield from _about(status)
        yield from _exchanges(status, figures)
        yield from _peers(status, convergence)
        yield from _links(figures)
        yield from _constraints(status, figures, constraints)
        yield from _storage(status, figures)
        yield from _alarms(status, figures)
        yield from _alerts(alerts)
        yield _rollouts(rollouts)
        yield from _sources(figures)
        yield from _actions(node.actions.report().actions)
        yield from _budgets(budgets, node)
        yield from _serving(figures, self._feed, self._requests, self._denials)


def _about(status: Status) -> Iterator[Metric]:
    yield InfoMetricFamily(f"{PREFIX}build", "The software that this node runs.", value={"version": status.software})
    who = {"node": status.node, "fleet": status.fleet}
    yield InfoMetricFamily(f"{PREFIX}node", "Which node this is.", value=who)
    yield _gauge("uptime_seconds", "Seconds since this node started.", status.uptime)


def _exchanges(status: Status, figures: MetricsReport) -> Iterator[Metric]:
    yield _counter("exchanges_begun", "Exchanges that this node began.", figures.exchanges_begun)
    yield _counter("exchanges_completed", "Exchanges that it began and that came to an end.", status.exchanges)
    yield _counter("exchanges_failed", "Exchanges that it began and whose peer did not answer.", figures.exchanges_failed)
    yield _counter("exchanges_with_news", "Questions of peers whose state was not this node's.", status.syncs)
    yield _counter("requests_repeated", "Requests of an exchange sent again since there was no answer.", figures.requests_repeated)
    yield _counter("messages_sent", "Messages of the exchange, or parts of one, that were sent.", figures.messages_sent)
    yield _counter("messages_received", "Messages of the exchange, or parts of one, that came.", figures.messages_received)
    yield _counter("messages_refused", "Of those that came: the ones that could not be taken.", figures.messages_refused)
    yield _counter("sent_bytes", "Bytes of messages sent.", status.bytes_sent)
    yield _counter("received_bytes", "Bytes of messages received.", status.bytes_received)
    yield _counter("sent_to_sites_bytes", "Of those sent: bytes to nodes of other sites.", figures.sent_away_bytes)
    yield _counter("received_from_sites_bytes", "Of those received: bytes from nodes of other sites.", figures.received_away_bytes)
    about = "Bytes of the cells that came from peers and were new here: the least that had to be carried, so the lower bound."
    yield _counter("learned_bytes", about, figures.learned_bytes)
    about = "Bytes of all messages of the exchanges that this node began and that had a difference to carry."
    yield _counter("exchange_bytes", about, figures.exchange_bytes)
    about = "Bytes of the cells that these exchanges told or learned: the difference itself."
    yield _counter("exchange_difference_bytes", about, figures.exchange_difference_bytes)
    about = "Bytes of messages per byte of the difference: the median of the last exchanges that had one."
    yield _gauge("exchange_bytes_ratio", about, figures.exchange_bytes_ratio)
    yield _counter("written_bytes", "Bytes of the cells that this node wrote itself.", status.written_bytes)


def _peers(status: Status, convergence: ConvergenceReport) -> Iterator[Metric]:
    peers = GaugeMetricFamily(f"{PREFIX}peers", "Other nodes of the fleet, by how they stand to this one.", labels=["state"])
    for state in PEER_STATES:
        peers.add_metric([state], sum(each.state == state for each in convergence.peers))
    yield peers
    yield _gauge("live_peers", "Other nodes that are there now.", status.peers)
    yield _gauge("known_nodes", "Nodes ever heard of, this one included.", status.known)
    yield _gauge("agreeing_nodes", "Live nodes that enforce the same definitions, this one included.", status.agreeing)
    about = "Seconds since the first change here that a live peer gave no evidence of"
    yield _gauge("staleness_p50_seconds", f"{about}: the median.", convergence.staleness_p50)
    yield _gauge("staleness_p99_seconds", f"{about}: the 99th percentile.", convergence.staleness_p99)


def _links(figures: MetricsReport) -> Iterator[Metric]:
    about = "of the link to a live peer, as measured from here; of 100 at most, those with the longest round trip"
    trips = GaugeMetricFamily(f"{PREFIX}link_round_trip_seconds", f"Smoothed round trip {about}.", labels=["peer"])
    rates = GaugeMetricFamily(
        f"{PREFIX}link_rate_bytes_per_second", f"Rate of large messages {about}; out: to the peer.", labels=["peer", "way"]
    )
    losses = GaugeMetricFamily(
        f"{PREFIX}link_loss_ratio", f"Share of requests without an answer, lately, {about}.", labels=["peer"]
    )
    for link in figures.links:
        if link.round_trip is not None:
            trips.add_metric([link.node], link.round_trip)
        for way, rate in (("out", link.rate_out), ("in", link.rate_in)):
            if rate is not None:
                rates.add_metric([link.node, way], rate)
        losses.add_metric([link.node], link.loss)
    yield from (trips, rates, losses)


def _constraints(status: Status, figures: MetricsReport, by_constraint: dict[str, Counts]) -> Iterator[Metric]:
    yield _gauge("constraints", "Active constraints.", status.constraints)
    yield _gauge("constraints_expired", "Constraints that expired and are not removed yet.", figures.expired)
    yield _gauge("constraints_disabled", "Active constraints that no node evaluates.", status.disabled)
    yield _gauge("constraints_audited", "Active constraints of mode audit.", status.audited)
    yield _gauge("constraints_violated", "Constraints that are violated on this node now.", figures.violated_here)
    yield _gauge("constraints_unknown", "Constraints that are unknown on this node now.", figures.unknown_here)
    yield _gauge("fleet_constraints", "Constraints of scope fleet that this node judges.", figures.fleet_constraints)
    about = "CPU time that judgements of constraints of scope fleet took, in seconds."
    yield _counter("fleet_judging_seconds", about, figures.fleet_judging_seconds)
    yield _gauge("shared_readings", "Readings that this node shares with the fleet.", figures.shared_readings)
    whole = "in the whole fleet, as known here: the same on all nodes, so take the max of them, not the sum."
    yield _counter("satisfied", f"Evaluations that held, {whole}", status.satisfied)
    yield _counter("violated", f"Evaluations that did not hold, {whole}", status.violations)
    about = f"the most violated ones by name, the others together, {whole}"
    held = CounterMetricFamily(f"{PREFIX}constraint_satisfied", f"Evaluations that held: {about}", labels=["constraint"])
    broken = CounterMetricFamily(f"{PREFIX}constraint_violated", f"Evaluations that did not hold: {about}", labels=["constraint"])
    for id_, counts in by_constraint.items():
        held.add_metric([id_], counts.satisfied)
        broken.add_metric([id_], counts.violated)
    yield held
    yield broken


def _storage(status: Status, figures: MetricsReport) -> Iterator[Metric]:
    yield _gauge("tiles", "Tiles that are there.", figures.tiles)
    yield _gauge("cells", "Cells that stand.", status.cells)
    yield _gauge("store_bytes", "Bytes of the store on disk, its log included.", figures.store_bytes)
    yield _histogram("store_commit_seconds", "How long commits took.", figures.commits)
    yield _gauge("store_waiting", "Writes and messages that wait for the next commit.", figures.store_waiting)
    yield _gauge("writes_refused", "1 while the disk takes no writes.", status.trouble is not None)


def _alarms(status: Status, figures: MetricsReport) -> Iterator[Metric]:
    alarms = CounterMetricFamily(f"{PREFIX}alarms", "Times that something was found that must not be.", labels=["alarm"])
    alarms.add_metric(["divergence"], status.alarms)
    alarms.add_metric(["clock_skew"], status.clock_alarms)
    alarms.add_metric(["duplicate_name"], figures.events.get(EventKind.DUPLICATE_NAME, 0))
    yield alarms
    yield _gauge("clock_in_doubt", "1 while this node's clock differs from half of those heard, or more.", status.clock_in_doubt)
    yield _gauge(
        "clock_correction_seconds", "From this node's clock to the time it goes by in doubt.", status.clock_correction or 0.0
    )
    yield _gauge("lost_writes", "Writes missing from a store that was put back, and not brought back.", status.lost_writes)
    yield _counter("repairs", "Times that damage here was put right with what a peer holds.", status.repairs)
    yield _counter("cells_repaired", "Cells that these repairs changed.", status.cells_repaired)
    events = CounterMetricFamily(f"{PREFIX}events", "What happened on this node, by kind.", labels=["kind"])
    for kind in EventKind:
        events.add_metric([kind.value.replace(" ", "_")], figures.events.get(kind, 0))
    yield events


def _actions(actions: Sequence[ActionReport]) -> Iterator[Metric]:
    name = f"{PREFIX}action_turns_"
    waiting = GaugeMetricFamily(f"{name}waiting", "Turns of constraints that an action was not told yet.", labels=["action"])
    delivered = CounterMetricFamily(f"{name}delivered", "Turns that an action was told.", labels=["action"])
    dropped = CounterMetricFamily(f"{name}dropped", "Turns that an action was not told.", labels=["action"])
    failed = CounterMetricFamily(f"{PREFIX}action_attempts_failed", "Attempts of an action that failed.", labels=["action"])
    for each in actions:
        waiting.add_metric([each.name], each.waiting)
        delivered.add_metric([each.name], each.delivered)
        dropped.add_metric([each.name], each.dropped)
        failed.add_metric([each.name], each.failed)
    yield from (waiting, delivered, dropped, failed)


def _rollouts(phases: Sequence[str]) -> Metric:
    active = GaugeMetricFamily(f"{PREFIX}rollouts", "Active rollouts, by phase.", labels=["phase"])
    for phase in ("running", "stopped"):
        active.add_metric([phase], phases.count(phase))
    return active


def _alerts(alerts: AlertsReport) -> Iterator[Metric]:
    firing = GaugeMetricFamily(f"{PREFIX}alerts_firing", "Alerts that fire now.", labels=["kind"])
    for kind in KINDS:
        firing.add_metric([kind], sum(each.firing and each.kind == kind for each in alerts.alerts))
    yield firing
    yield _gauge("alert_messages_waiting", "Messages to webhooks that are not delivered yet.", alerts.waiting)
    yield _counter("alert_messages_delivered", "Messages to webhooks that were delivered.", alerts.delivered)
    yield _counter("alert_messages_dropped", "Messages to webhooks that could not be delivered.", alerts.dropped)


def _sources(figures: MetricsReport) -> Iterator[Metric]:
    up = GaugeMetricFamily(f"{PREFIX}source_up", "1 while a source of the settings gives values.", labels=["source"])
    unknown = GaugeMetricFamily(f"{PREFIX}source_unknown", "Variables that a source says not to know, now.", labels=["source"])
    values = CounterMetricFamily(f"{PREFIX}source_values", "Values taken from a source.", labels=["source"])
    about = "Values of a source that were dropped: another one followed within `every`, or there are too many variables."
    dropped = CounterMetricFamily(f"{PREFIX}source_dropped", about, labels=["source"])
    faults = CounterMetricFamily(f"{PREFIX}source_faults", "Messages of a source that could not be decoded.", labels=["source"])
    for each in figures.sources:
        up.add_metric([each.name], each.up)
        unknown.add_metric([each.name], each.unknown)
        values.add_metric([each.name], each.values)
        dropped.add_metric([each.name], each.dropped)
        faults.add_metric([each.name], each.faults)
    yield from (up, unknown, values, dropped, faults)


_OF_BUDGETS: Final = {
    "limit": "The limit of a budget, of several made at once the lowest.",
    "held": "What is held of it, on all nodes, as far as is known here.",
    "free_here": "What this node could hold at once, without asking others.",
    "free_elsewhere": "What other live nodes could lend, as far as is known here.",
    "stranded": "Shares of nodes that are away, or not in force.",
    "waiting": "What processes wait for, on live nodes.",
}
"""The fields of a budget that are metrics, with their meanings."""


def _budgets(reports: Sequence[BudgetReport], node: Node) -> Iterator[Metric]:
    for name, about in _OF_BUDGETS.items():
        family = GaugeMetricFamily(f"{PREFIX}budget_{name}", about, labels=["budget"])
        for each in reports:
            family.add_metric([each.name], getattr(each, name))
        yield family
    conflicts = GaugeMetricFamily(f"{PREFIX}budget_conflict", "1: limits were set at once, the lowest holds.", labels=["budget"])
    lacking = GaugeMetricFamily(
        f"{PREFIX}budget_awaited_nodes", "Nodes whose word is missing for the definition to be in force.", labels=["budget"]
    )
    part = GaugeMetricFamily(f"{PREFIX}budget_rights", "Of this node: its share, lent, borrowed, held.", labels=["budget", "part"])
    for each in reports:
        conflicts.add_metric([each.name], len(each.limits) > 1)
        lacking.add_metric([each.name], len(each.waits_for))
        own = [found for found in each.nodes if found.node == node.settings.name]
        for name in ("share", "lent", "borrowed", "held"):
            part.add_metric([each.name, name], sum(getattr(found, name) for found in own))
    yield from (conflicts, lacking, part)
    budgets = node.budgets
    yield _counter("budget_acquired", "Holds that this node gave.", budgets.acquired)
    yield _counter("budget_released", "Holds of this node that were released.", budgets.released)
    yield _counter("budget_refused", "Holds that it refused for lack of rights, at once or after a wait.", budgets.refused)
    yield _histogram(
        "budget_wait_seconds", "How long processes of this node waited for what they acquired.", histogram_of(budgets.waits)
    )


def _serving(figures: MetricsReport, feed: EventFeed, requests: RequestCounts, denials: Denials) -> Iterator[Metric]:
    yield _gauge("event_readers", "Clients that follow the events.", feed.readers)
    yield _counter("event_readers_dropped", "Such clients that were cut off since they did not keep up.", feed.dropped)
    answers = CounterMetricFamily(f"{PREFIX}http_requests", "Requests answered.", labels=["method", "route", "status"])
    for (method, route, status), count in sorted(requests.answers.items()):
        answers.add_metric([method, route, str(status)], count)
    yield answers
    denied = CounterMetricFamily(f"{PREFIX}http_denied", "Requests refused for lack of a right.", labels=["status"])
    for status, count in sorted(denials.counts.items()):
        denied.add_metric([str(status)], count)
    yield denied
    yield _histogram("event_loop_lag_seconds", "How late the event loop ran what was due.", figures.loop_lag)


def _counter(name: str, about: str, value: float) -> Metric:
    return CounterMetricFamily(PREFIX + name, about, value=value)


def _gauge(name: str, about: str, value: float | None) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, about)
    if value is not None:
        family.add_metric([], value)
    return family


def _histogram(name: str, about: str, found: Histogram | None) -> Metric:
    family = HistogramMetricFamily(PREFIX + name, about)
    if found is not None:
        steps: Iterable[tuple[str, int]] = zip([*map(str, found.bounds), "+Inf"], found.up_to, strict=True)
        family.add_metric([], [(bound, float(count)) for bound, count in steps], found.total)
    return family
