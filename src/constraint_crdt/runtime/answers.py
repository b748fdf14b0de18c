"""The reports of a node on itself and the fleet, from its state and the evidence of peers; and its counters, for `GET /metrics`.

Reading changes nothing and resets nothing, so any number of readers see the same values. The counters do not repeat the values of
`Status` and of the convergence report.

The lag of the event loop is the delay of due tasks. All of a node runs on the same loop, so a long evaluation, or a blocking
program around the node, delays gossip and answers by as much.
"""

import asyncio
import heapq
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from itertools import islice
from typing import Final

import msgspec

from constraint_crdt import __version__
from constraint_crdt.alerts.engine import AlertEngine
from constraint_crdt.crdt.cells import REMOVE
from constraint_crdt.crdt.clock import SECOND, Replica, VectorClock
from constraint_crdt.errors import ConstraintCrdtError, UnknownName
from constraint_crdt.gossip import steady_ns
from constraint_crdt.insight.diagnosis import named
from constraint_crdt.insight.evidence import Convergence, DefinitionClock
from constraint_crdt.insight.explain import state_here, violated_nodes
from constraint_crdt.insight.history import VerdictHistory
from constraint_crdt.model import DurationHistogram, Event, EventKind, Mode, Selector, Severity, VerdictState, counted
from constraint_crdt.operations.constraints import (
    DISABLED,
    MOST_VIOLATED,
    ConstraintReport,
    DefinitionReport,
    ViolatedNode,
    reported_disabling,
    reported_fields,
    reported_instances,
    reported_staging,
    reported_time,
    reported_verdict,
)
from constraint_crdt.operations.evidence import ConvergenceReport
from constraint_crdt.operations.nodes import (
    FAULT,
    LINK_KINDS,
    MOST_LINKS,
    MOST_WORST,
    Concern,
    IdentityReport,
    LifeReport,
    LinkProtection,
    LinkReport,
    LinkState,
    NodeReport,
    RetireReport,
    Status,
    StorageReport,
    ViolatedConstraint,
    link_report,
    link_reports,
    slow_links,
)
from constraint_crdt.operations.operation import show_length, show_time
from constraint_crdt.operations.rules import RolloutReport, show_step
from constraint_crdt.operations.service import Finding
from constraint_crdt.operations.variables import (
    MOST_CHANGED,
    MOST_READERS,
    FleetFigures,
    NodeParameter,
    ParameterChange,
    ParameterReport,
    ParameterValueReport,
    ReadingReport,
    ReadingsReport,
    SettingReport,
    VariableReport,
)
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.runtime.change_feed import ChangeFeed
from constraint_crdt.runtime.evaluation import Evaluator
from constraint_crdt.runtime.event_log import EventLog, EventStream
from constraint_crdt.runtime.exchange_loop import ExchangeLoop, ExchangeReceipt
from constraint_crdt.runtime.maintenance import RemovalSweep
from constraint_crdt.runtime.measurement import LatestMeasurements
from constraint_crdt.runtime.persistence import Persistence
from constraint_crdt.sources import SourceReader
from constraint_crdt.store import Life
from constraint_crdt.transport import LinkingTransport, RoleTransport, Standing, Transport
from constraint_crdt.types.counters import Counts
from constraint_crdt.types.definition import ADD, Addition, Selection, check_selector
from constraint_crdt.types.nodes import NodeValue
from constraint_crdt.types.orset import is_conflict
from constraint_crdt.types.parameters import PARAM, Bound, SetValue, read_parameters
from constraint_crdt.types.variables import kind_of
from constraint_crdt.types.verdicts import value_text


def link_kinds(transport: Transport) -> Mapping[str, LinkState]:
    """The names of the peers, each with its link. A transport that makes no links on its own has a direct link to each."""
    if isinstance(transport, LinkingTransport):
        return transport.links()
    return {peer.name: "direct" for peer in transport.peers()}


def standing(transport: Transport) -> Standing:
    """The role of this node. Without links of its own making every node is a peer."""
    return transport.standing if isinstance(transport, RoleTransport) else Standing("peer", "every node has a link to every other")


LATELY = 600.0
"""Seconds of events that a status tells of."""

BEHIND_FOR = 60.0
"""Seconds without evidence that a live peer has a change, from which on that is unusual. Of links that are slow some are."""

LOOKED_AT = 500
"""Events that are looked at for that, at most."""

UNKNOWN_LOOKED_AT = 1000
"""Unknown constraints among which a status chooses the gravest, at most."""

UNDECIDABLE_LOOKED_AT = 50
"""Of these, the gravest that a status asks whether any node can decide them."""

FLAPS = 3
"""Violations of a constraint on this node in that time that make it flap."""

_CHANGES: Final = {
    EventKind.ADDED: "explain {}",
    EventKind.CHANGED: "revert {}",
    EventKind.REMOVED: "revert {}",
    EventKind.EXPIRED: "history {}",
    EventKind.PARAMETER: "params",
    EventKind.BUDGET_CHANGED: "budget",
    EventKind.BUDGET_REMOVED: "budget",
}
"""The kinds of events by which rules change, each with the command that leads on."""


def _subject(event: Event) -> tuple[str, str]:
    """The rule that an event is about: a constraint, a budget, or a parameter, of which the detail begins with the name."""
    if event.kind is EventKind.PARAMETER:
        return "parameter", event.detail.partition(" ")[0]
    return ("constraint", event.constraint) if event.constraint else ("budget", event.budget)


def _changed(event: Event, now: float) -> str:
    """A change of a rule in a sentence: what, when, by whom, and the old and the new value."""
    verbs = {EventKind.EXPIRED: "expired", EventKind.PARAMETER: "was set"}
    verb = verbs.get(event.kind) or f"was {event.kind.value.rpartition(' ')[2]}"
    who = f" by {event.actor} on {event.by}" if event.actor else ""
    detail = f": {event.detail}" if event.detail else ""
    return f"{event.constraint or event.budget or 'a parameter'} {verb} {show_time(event.time, now)}{who}{detail}"


class Answers:
    """Reads; changes nothing."""

    def __init__(
        self,
        gossip: GossipNode,
        feed: ChangeFeed,
        exchanges: ExchangeLoop,
        evaluator: Evaluator,
        definition_clock: DefinitionClock,
        transport: Transport,
        persistence: Persistence,
        removals: RemovalSweep,
        measurements: LatestMeasurements,
        alerts: AlertEngine,
        links: LinkProtection,
        log: EventLog,
        history: VerdictHistory,
        undecidable_of: Callable[[Iterable[str]], Mapping[str, str]],
        faults: Callable[[], Iterable[Finding]],
        rollouts: Callable[[], Sequence[RolloutReport]],
    ) -> None:
        """`undecidable_of`: gives the reasons of those of some constraints that no node can decide. `faults`: gives the findings
        that a status names.
        """
        self._faults = faults
        self._undecidable_of = undecidable_of
        self._log = log
        self._history = history
        self._rollouts = rollouts
        self._gossip = gossip
        self._feed = feed
        self._exchanges = exchanges
        self._evaluator = evaluator
        self._definition_clock = definition_clock
        self._transport = transport
        self._persistence = persistence
        self._removals = removals
        self._measurements = measurements
        self._alerts = alerts
        self._links = links
        self._began, self._began_at = time.monotonic(), time.time_ns()

    def begin(self) -> None:
        """The node starts now."""
        self._began, self._began_at = time.monotonic(), time.time_ns()

    def status(self, convergence: Convergence) -> Status:
        """See `Node.status`."""
        gossip, exchanges, fleet = self._gossip, self._exchanges, convergence.report()
        state, live, doubt = gossip.state, exchanges.live, gossip.time.doubt
        audited = self._audited()
        role = standing(self._transport)
        return Status(
            node=gossip.node_id,
            replica=str(gossip.replica),
            fleet=gossip.fleet,
            software=__version__,
            hash=gossip.state_hash.hex(),
            constraints_hash=gossip.constraints_hash.hex(),
            constraints=state.active_constraint_count,
            disabled=len(self.disabled_ids()),
            all_disabled=reported_disabling(state.switches.of_all),
            conflicts=len(self._feed.definitions.conflicts),
            unknown_here=self._evaluator.undecided,
            violated_anywhere=len(self._violated()),
            audited=len(self._evaluator.audited),
            audited_satisfied=audited.satisfied,
            audited_violations=audited.violated,
            worst=self._worst(),
            firing=self._alerts.firing,
            in_service=len(self._in_service()) + 1,
            satisfied=state.metrics.total_satisfied,
            violations=state.metrics.total_violations,
            satisfaction_rate=_rate(state.metrics.total, audited),
            position=state.position,
            peers=len(live),
            known=len(self._names()),
            agreeing=1 + sum(self._same_constraints(name) for name in live),
            converged=all(gossip.tracker.hash(name) == gossip.state_hash for name in live),
            staleness_p50=fleet.staleness_p50,
            staleness_p99=fleet.staleness_p99,
            rounds=gossip.rounds,
            syncs=gossip.syncs,
            exchanges=exchanges.completed,
            bytes_sent=self._transport.bytes_sent,
            bytes_received=self._transport.bytes_received,
            written_bytes=self._feed.written_bytes,
            cells=len(state.rows),
            trouble=self._persistence.trouble,
            clock_alarms=gossip.time.alarms,
            clock_in_doubt=doubt is not None,
            clock_correction=None if doubt is None else doubt.offset / SECOND,
            fleet_time=doubt is not None and doubt.agreed,
            clock_steps=gossip.time.steps,
            lost_writes=self._persistence.lost.missing,
            alarms=gossip.alarms,
            repairs=gossip.repairs,
            cells_repaired=gossip.cells_repaired,
            endpoints=tuple(self._transport.endpoints),
            links=self._links,
            slow_links=tuple(slow_links(gossip.links, live)[:MOST_LINKS]),
            linked=self._linked(),
            role=role.role,
            role_rule=role.why,
            routers=role.routers,
            site=exchanges.sites.site,
            sites=1 + len(exchanges.sites.others),
            away=len(exchanges.away),
            speaks_with=tuple(exchanges.sites.speaks_with()),
            concerns=tuple(self._concerns(fleet)),
            uptime=time.monotonic() - self._began,
        )

    def _in_service(self) -> list[str]:
        """The other nodes, without those retired or revoked."""
        state, ended = self._gossip.state, {self._gossip.node_id} | self._gossip.revoked_nodes
        return [name for name in self._names() if name not in ended and name not in state.retirements]

    def _violated(self) -> list[str]:
        """The constraints violated on a node, without those of mode audit. O(these)."""
        constraints = self._gossip.state.constraints
        return [id_ for id_ in self._gossip.state.verdicts.violated if constraints.mode(id_) is not Mode.AUDIT]

    def _audited(self) -> Counts:
        """The judgements of the constraints of mode audit, on all nodes."""
        found = [self._gossip.state.metrics.constraint(id_) for id_ in self._evaluator.audited]
        return Counts(sum(each.satisfied for each in found), sum(each.violated for each in found))

    def _worst(self) -> tuple[ViolatedConstraint, ...]:
        """The violated constraints of the highest severity, of equals the longest violated."""
        verdicts = self._gossip.state.verdicts
        found = []
        for id_ in self._violated():
            severity, nodes = self._severity(id_), verdicts.violated_on(id_)
            if severity is not None and nodes:
                node = next((each for each in nodes if self._is_live(each)), nodes[0])
                told = verdicts.of(id_)[node]
                found.append((-severity.rank, told.since or 0, id_, severity.value, len(nodes), node, told.since, told.reason))
        return tuple(
            ViolatedConstraint(
                id=id_, severity=severity, nodes=nodes, node=node, since=since, live=self._is_live(node), reason=reason
            )
            for _, _, id_, severity, nodes, node, since, reason in heapq.nsmallest(MOST_WORST, found)
        )

    def _is_live(self, name: str) -> bool:
        """True for this node and for live ones, of other sites too."""
        return name == self._gossip.node_id or name in self._exchanges.live or name in self._exchanges.away

    def _concerns(self, fleet: ConvergenceReport) -> Iterator[Concern]:
        """See `Concern`. O(nodes)."""
        state, now, me = self._gossip.state, time.time(), self._gossip.node_id
        for other, name in standing(self._transport).foreign.items():
            what = f"{name} of fleet {other} is at the other end of a link, and this node is of fleet {self._gossip.fleet}"
            yield Concern(kind="other fleet", what=what, command="doctor")
        some = islice(state.verdicts.unknown, UNKNOWN_LOOKED_AT)
        found = [(-severity.rank, id_, severity) for id_ in some if (severity := self._severity(id_))]
        for _, id_, severity in heapq.nsmallest(MOST_WORST, found):
            told = {name: each for name, each in state.verdicts.of(id_).items() if each.state is VerdictState.UNKNOWN}
            if told:
                name = min(told, key=lambda each: (told[each].since, each))
                since = f" since {show_time(told[name].since, now)}" if told[name].since else ""
                more = f", and on {counted(len(told) - 1, 'more node')}" if len(told) > 1 else ""
                last = self._evaluator.last(id_) if name == me else None  # its reason may have changed since it was told
                reason = (told[name].reason if last is None else last.reason) or "it cannot be decided"
                what = f"{id_} ({severity}) on {name}{since}{more}: {reason}"
                yield Concern(kind="unknown", what=what, command=f"explain {id_}")
        yield from (Concern(kind=FAULT, what=each.what, command="doctor") for each in self._faults())
        yield from self._undecidable()
        missing = sorted(set(self._in_service()) - self._exchanges.live - self._exchanges.away)
        if missing and self._exchanges.live:
            yield Concern(kind="not live", what=named(missing), command="doctor")
        live = [each for each in fleet.peers if each.node in self._exchanges.live]
        late = {each.node: each.staleness for each in live if each.staleness is not None}
        behind = [f"{name} for {show_length(late[name])}" for name in sorted(late) if late[name] >= BEHIND_FOR]
        if behind:
            what = f"no evidence that the changes known here have arrived: {named(behind)}"
            yield Concern(kind="behind", what=what, command="convergence")
        for id_ in sorted(self._feed.definitions.conflicts)[:MOST_WORST]:
            nodes = sorted({each.dot.replica.node_id for each in state.constraints.additions(id_)})
            yield Concern(kind="conflict", what=f"{id_} has several definitions, by {named(nodes)}", command=f"resolve {id_}")
        for rollout in self._rollouts():
            kind = "rollout" if rollout.phase == "running" else "rollout stopped"
            yield Concern(kind=kind, what=show_step(rollout), command=f"rollout show {rollout.id}")
        offsets = sorted(self._gossip.time.offsets.items())
        off = [f"{name} {offset / SECOND:+.1f} s" for name, offset in offsets if abs(offset) > self._gossip.time.max_skew]
        if off:
            yield Concern(kind="clock", what=f"{named(off)} from this node's", command="doctor")
        if time.monotonic() - self._exchanges.refused_at < LATELY:
            yield Concern(kind="refused", what=f"a message was refused: {self._exchanges.refusal}", command="doctor")
        for name in sorted(self._exchanges.live):
            if trouble := self._gossip.tracker.trouble(name):
                yield Concern(kind="trouble", what=f"{name} tells: {trouble}", command="doctor")
        yield from self._lately(now, me)

    def _undecidable(self) -> Iterator[Concern]:
        """The gravest constraints unknown here that no node of the fleet can decide. O(nodes)."""
        told = self._gossip.state.verdicts
        some = (id_ for id_ in islice(self._evaluator.undecided_ids, UNKNOWN_LOOKED_AT) if not told.of(id_))
        gravest = heapq.nsmallest(
            UNDECIDABLE_LOOKED_AT, ((-severity.rank, id_, severity) for id_ in some if (severity := self._severity(id_)))
        )
        if gravest:
            severity_of = {id_: severity for _, id_, severity in gravest}
            found = self._undecidable_of(severity_of)
            for id_ in list(found)[:MOST_WORST]:
                what = f"{id_} ({severity_of[id_]}) on every node: {found[id_]}"
                yield Concern(kind="undecidable", what=what, command=f"explain {id_}")

    def _severity(self, id_: str) -> Severity | None:
        """The highest of the definitions in force; None for an inactive constraint."""
        additions = self._gossip.state.constraints.additions(id_)
        return max((each.definition.severity for each in additions), key=lambda each: each.rank, default=None)

    def _lately(self, now: float, me: str) -> Iterator[Concern]:
        """Of the last events: another node of this name, constraints that flap here, and changes by people."""
        events = [each.event for each in self._log.newest(LOOKED_AT) if now - each.event.time / 1e9 < LATELY]
        if any(each.kind is EventKind.DUPLICATE_NAME for each in events):
            yield Concern(kind="duplicate", what=f"another live node has the name {me}, as a copy would", command="doctor")
        began = Counter((each.constraint, me) for each in events if each.kind is EventKind.VIOLATED)
        for times, id_, node in self._history.flapping(round((now - LATELY) * SECOND), FLAPS):
            began[id_, node] = max(times, began[id_, node])
        for (id_, node), times in began.most_common(MOST_WORST):
            if times >= FLAPS:
                what = (
                    f"{id_} on {node}: violated {counted(times, 'time')} in {show_length(LATELY)}; `for` and `clear_when` calm it"
                )
                yield Concern(kind="flapping", what=what, command=f"explain {id_}")
        last = {_subject(each): each for each in events if each.kind in _CHANGES}
        changed = sorted((each for each in last.values() if each.kind is not EventKind.ADDED), key=lambda each: each.time)
        for each in reversed(changed[-MOST_WORST:]):
            yield Concern(kind="changed", what=_changed(each, now), command=_CHANGES[each.kind].format(each.constraint))

    def disabled_ids(self) -> list[str]:
        """The active constraints that are disabled, ordered. O(disabled constraints)."""
        constraints, switches = self._gossip.state.constraints, self._gossip.state.switches
        return sorted(constraints) if switches.of_all is not None else [id_ for id_ in switches if id_ in constraints]

    def _linked(self) -> dict[str, int]:
        """The number of other nodes in service by their link."""
        kinds = link_kinds(self._transport)
        found = Counter(kinds.get(name, "none") for name in self._in_service())
        return {kind: found[kind] for kind in LINK_KINDS if found[kind]}

    def constraints(self, ids: Sequence[str] | None = None) -> list[ConstraintReport]:
        """See `Node.constraints`."""
        constraints = self._gossip.state.constraints
        with self._gossip.time.held():
            wanted = sorted(constraints) if ids is None else [id_ for id_ in ids if id_ in constraints]
            return [self._constraint(id_, constraints.additions(id_)) for id_ in wanted]

    def expired(self, ids: Sequence[str] | None = None) -> list[ConstraintReport]:
        """See `Node.expired`."""
        constraints = self._gossip.state.constraints
        with self._gossip.time.held():
            gone = constraints.expired_ids
            wanted = gone if ids is None else sorted(set(gone).intersection(ids))
            return [self._constraint(id_, constraints.expired(id_)) for id_ in wanted]

    @property
    def names(self) -> list[str]:
        """The nodes ever heard of, ordered."""
        return sorted(self._names())

    def selected(self, on: Selection | None) -> list[str]:
        """See `Node.node_names`."""
        selector = check_selector(on)
        if selector.is_everything:
            return self.names
        labels = self._gossip.state.labels
        return [name for name in self.names if selector.matches(labels.get(name, {}))]

    def nodes(self, convergence: Convergence, names: Sequence[str] | None = None) -> list[NodeReport]:
        """See `Node.nodes`. O(nodes)."""
        described, positions = self._gossip.state.nodes, self._gossip.state.register.by_node
        revoked, speaking = self._gossip.revoked_nodes, self._exchanges.sites.speaking()
        kinds, opened = link_kinds(self._transport), {peer.name: peer.opened for peer in self._transport.peers()}
        wanted = self.names if names is None else names
        found = [
            self._node(
                name,
                described.get(name),
                positions.get(name),
                convergence,
                revoked,
                kinds.get(name, "none"),
                speaking.get(name, ()),
            )
            for name in wanted
        ]
        return [msgspec.structs.replace(each, uptime=self._uptime(each, opened.get(each.node))) for each in found]

    def _uptime(self, report: NodeReport, opened: int | None) -> float | None:
        """Seconds since a live node joined, by the clock of this node; None where that is not known."""
        if report.node == self._gossip.node_id:
            return time.monotonic() - self._began
        if opened is None or not report.live:
            return None
        return max(0.0, time.time() + (report.clock_offset or 0.0) - opened / SECOND)

    def parameters(self, name: str | None) -> list[ParameterReport]:
        """See `Node.parameters`."""
        parameters = self._gossip.state.parameters
        names = [each for each in parameters if name in (None, each)]
        readers = self._parameter_readers(names)
        return [self._parameter(each, readers[each]) for each in names]

    def _parameter(self, name: str, constraints: Sequence[str]) -> ParameterReport:
        state = self._gossip.state
        here = state.parameters.value(name, self._gossip.labels)
        settings = []
        for each in state.parameters.settings(name):
            values = tuple([self._set_value(value) for value in each.values])
            settings.append(
                SettingReport(selector=each.text, value=None if each.in_conflict else each.values[0].value, values=values)
            )
        return ParameterReport(
            name=name, settings=tuple(settings), value=here.value, selector=here.selector, reason=here.reason,
            constraints=tuple(constraints),
        )  # fmt: skip

    def _set_value(self, value: SetValue) -> ParameterValueReport:
        entry = self._gossip.state.audit.of(value.dot)
        actor = None if entry is None else entry.actor
        return ParameterValueReport(value=value.value, set_by=value.dot.replica.node_id, set_at=value.at, actor=actor)

    def _parameter_readers(self, names: Collection[str]) -> dict[str, list[str]]:
        """The active constraints that read these parameters. O(constraints), and decodes those that may read a parameter only."""
        state = self._gossip.state
        found: dict[str, list[str]] = {name: [] for name in names}
        needle = next(iter(names)).encode() if len(names) == 1 else PARAM.encode()
        for id_ in sorted(state.constraints) if names else ():
            if any(needle in cell.data for cell in state.rows.held(ADD, id_)):
                read = {name for each in state.constraints.definitions(id_) for name in read_parameters(each)}
                for name in read.intersection(names):
                    found[name].append(id_)
        return found

    def parameter_values(self, name: str) -> dict[str, Bound]:
        """A parameter on each known node in service, by its labels as known here. O(nodes)."""
        state, me = self._gossip.state, self._gossip.node_id
        labels = state.labels | {me: dict(self._gossip.labels)}
        return {node: state.parameters.value(name, labels[node]) for node in sorted(labels) if node not in state.retirements}

    def parameter_change(self, name: str, on: Selector, change: str, before: Mapping[str, Bound]) -> ParameterChange:
        """The effect of a change of a parameter, given its values before."""
        after = self.parameter_values(name)
        changed = [node for node in after if repr(before.get(node, after[node]).value) != repr(after[node].value)]
        nodes = [
            NodeParameter(node=node, before=before[node].value, after=after[node].value, reason=after[node].reason)
            for node in changed[:MOST_CHANGED]
        ]
        state = self._gossip.state
        labels = [dict(each.labels) for node, each in state.nodes.items() if node in changed]
        if self._gossip.node_id in changed:
            labels.append(dict(self._gossip.labels))
        readers = self._parameter_readers([name])[name]
        concerned = [
            id_ for id_ in readers
            if any(each.applies_to(found) for each in state.constraints.definitions(id_) for found in labels)
        ]  # fmt: skip
        return ParameterChange(
            name=name, selector=str(on), change=change, nodes=tuple(nodes), changed_nodes=len(changed), constraints=tuple(concerned)
        )

    def variable_ids(self, node: str | None, name: str | None) -> list[str]:
        """See `Node.variable_ids`."""
        me, variables = self._gossip.node_id, self._gossip.state.variables
        nodes = [node] if node is not None else [me, *(each for each in self._names() if each != me)]
        told = {each: self._measurements.samples if each == me else variables.of(each) for each in nodes}
        if name is not None:
            return sorted(f"{each}/{name}" for each, names in told.items() if name in names)
        return sorted(f"{each}/{name}" for each, names in told.items() for name in names)

    def variables(self, ids: Sequence[str]) -> list[VariableReport]:
        """See `Node.variables`."""
        now = steady_ns()
        places = [found.groups() for found in map(_VARIABLE_ID.fullmatch, ids) if found]
        reports = [self._variable(node, name, now) for node, name in places]
        return [report for report in reports if report is not None]

    def _variable(self, node: str, name: str, now: int) -> VariableReport | None:
        if node != self._gossip.node_id:
            kind = self._gossip.state.variables.of(node).get(name)
            return None if kind is None else VariableReport(node=node, name=name, kind=kind.value)
        sample = self._measurements.samples.get(name)
        if sample is None:
            return None
        readers = self._evaluator.judge.readers([name])
        return VariableReport(
            node=node,
            name=name,
            kind=kind_of(sample.value).value,
            value=value_text(sample.value),
            age=max(0, now - sample.at) / SECOND,
            max_age=(sample.until - sample.at) / SECOND,
            aged=sample.until < now,
            source=sample.source,
            constraints=tuple(readers[:MOST_READERS]),
            readers=len(readers),
        )

    def reading_ids(self, name: str | None, node: str | None) -> list[str]:
        """See `Node.reading_ids`."""
        readings = self._gossip.state.readings
        if node is not None:
            return [f"{each}/{node}" for each in sorted(readings.of(node)) if name in (None, each)]
        return [f"{each}/{told}" for each in ([name] if name is not None else readings) for told in readings.nodes(each)]

    def readings(self, ids: Sequence[str]) -> ReadingsReport:
        """See `Node.readings`."""
        me, now, found = self._gossip.node_id, self._gossip.time.now(), []
        shared, live = self._gossip.state.readings, self._exchanges.live
        for variable, _, node in (id_.partition("/") for id_ in ids):
            reading = shared.of(node).get(variable)
            if reading is not None:
                found.append(
                    ReadingReport(
                        variable=variable,
                        node=node,
                        value=reading.value,
                        age=max(0, now - reading.time) / SECOND,
                        aged=reading.until < now,
                        every=reading.every / SECOND,
                        live=node == me or node in live,
                    )
                )
        variables = dict.fromkeys(each.variable for each in found)
        return ReadingsReport(readings=tuple(found), fleet=tuple(self._figures(each, now) for each in variables))

    def _figures(self, variable: str, now: int) -> FleetFigures:
        shared = self._gossip.state.readings
        fresh = [reading for node in shared.nodes(variable) if now <= (reading := shared.of(node)[variable]).until]
        numbers = sorted(each.value for each in fresh if isinstance(each.value, float))
        middle = len(numbers) // 2
        return FleetFigures(
            variable=variable,
            read=len(fresh),
            nodes=len(self._names().difference(self._gossip.state.retirements.nodes)),
            minimum=min(numbers, default=None),
            median=(numbers[middle] + numbers[~middle]) / 2 if numbers else None,
            maximum=max(numbers, default=None),
            sum=sum(numbers) if numbers else None,
        )

    def storage(self) -> StorageReport:
        """See `Node.storage`."""
        rows = self._gossip.state.rows
        live_bytes = sum(len(cell.data) for cell in rows.live_cells())
        removed_bytes = sum(len(cell.data) for cell in rows.each(REMOVE))
        removed = len(self._removals)
        return StorageReport(
            path=self._persistence.path,
            bytes_on_disk=self._persistence.size,
            live=len(rows) - removed,
            removed=removed,
            live_bytes=live_bytes,
            removed_bytes=removed_bytes,
            floors={str(replica): floor for replica, floor in sorted(rows.floors.items())},
            dropped=dict(self._removals.dropped),
            holding=tuple(self._removals.holding(self._exchanges.live)),
            trouble=self._persistence.trouble,
        )

    def identity(self) -> IdentityReport:
        """See `Node.identity`."""
        gossip, rows = self._gossip, self._gossip.state.rows
        lives = self._persistence.lives or (Life(gossip.replica.incarnation, self._began_at, "started without a store"),)
        return IdentityReport(
            node=gossip.node_id,
            fleet=gossip.fleet,
            replica=str(gossip.replica),
            store=self._persistence.path,
            lives=tuple(
                LifeReport(
                    incarnation=f"{life.incarnation:x}",
                    began=life.began,
                    why=life.why,
                    seq=rows.seq(Replica(gossip.node_id, life.incarnation)),
                )
                for life in lives
            ),
            retired_by=gossip.retired_by,
        )

    def retirement(self, name: str) -> RetireReport:
        """The effect of retiring a node. Raises `KeyError` for a node without writes, `ConstraintCrdtError` for this node."""
        gossip = self._gossip
        if name == gossip.node_id:
            raise ConstraintCrdtError(f"{name} cannot retire itself: stop it, and retire it on another node")
        lives = {r: seq for r, seq in gossip.state.rows.clock_entries.items() if r.node_id == name}
        if not lives:
            raise UnknownName(name, "node")
        counts = gossip.state.metrics.node(name)
        others = sorted(self._exchanges.live - {name})
        clocks = {other: gossip.tracker.clock(other) or VectorClock() for other in others}
        having = [other for other in others if all(clocks[other][r] >= seq for r, seq in lives.items())]
        return RetireReport(
            node=name,
            live=name in self._exchanges.live,
            done=name in gossip.state.retirements,
            by=gossip.state.retirements.by(name),
            lives={str(replica): seq for replica, seq in sorted(lives.items())},
            satisfied=counts.satisfied,
            violations=counts.violated,
            acknowledged=tuple(having),
            missing=tuple(other for other in others if other not in having),
        )

    def _names(self) -> set[str]:
        return {self._gossip.node_id, *self._gossip.state.rows.writers, *self._exchanges.live}

    def _same_constraints(self, name: str) -> bool:
        peer, mine = self._gossip.tracker.peer(name), self._gossip.state.rows.clock_mark
        mark = peer.mark if peer is not None else None
        if mark is None:
            return self._definition_clock.covered_by({})
        return mark == mine or self._definition_clock.covered_by(mark.entries)

    def _node(
        self,
        name: str,
        described: NodeValue | None,
        position: tuple[int, int] | None,
        convergence: Convergence,
        revoked: Set[str],
        link: LinkState,
        speaks_with: Sequence[str],
    ) -> NodeReport:
        gossip, state = self._gossip, self._gossip.state
        me = name == gossip.node_id
        counts = state.metrics.node(name)
        return NodeReport(
            node=name,
            live=self._is_live(name),
            satisfied=counts.satisfied,
            violations=counts.violated,
            position=position,
            same_constraints=me or self._same_constraints(name),
            same_state=me or gossip.tracker.hash(name) == gossip.state_hash,
            software=described.software if described else "",
            labels=dict(described.labels) if described else {},
            clock_offset=None if me or (offset := gossip.time.offset(name)) is None else offset / SECOND,
            retired=name in state.retirements,
            revoked=name in revoked,
            link="" if me or name in state.retirements else link,
            convergence=None if me or name in state.retirements else convergence.peer(name),
            measured=None if me else link_report(gossip.links, name),
            site=self._exchanges.sites.site if me else self._exchanges.told_sites.of(name) or "",
            speaks_with=tuple(speaks_with),
            endpoints=tuple(self._transport.endpoints) if me else described.endpoints if described else (),
            trouble=self._gossip.local.trouble() if me else gossip.tracker.trouble(name) if name in self._exchanges.live else "",
        )

    def _constraint(self, id_: str, additions: Sequence[Addition]) -> ConstraintReport:
        state, definitions = self._gossip.state, [each.definition for each in additions]
        reports = tuple(map(_definition, additions))
        ends = [each.expires_at for each in definitions if each.expires_at is not None]
        first, counts, last = reports[0], state.metrics.constraint(id_), self._evaluator.last(id_)
        by_now = state.rollouts.staged(id_, tuple(definitions), self._gossip.labels)  # of an expired one, too
        active = id_ in state.constraints  # if not, the end has passed, and the evaluator may still have to look
        own = self._evaluator.verdict(id_) if active else None
        verdict = reported_verdict(own)
        verdict["reason"] = last.reason if last else ""
        verdict["state"] = state_here(last, by_now, self._gossip.labels) if active else VerdictState.OFF.value
        disabled = reported_disabling(state.switches.disabling(id_))
        if disabled is not None:
            verdict["state"] = DISABLED
        violated = violated_nodes(state.verdicts, id_, self._gossip.node_id, own) if active else {}
        if self._evaluator.writer(id_) is not None:  # told by one node: what one that is not live told counts no more
            present = {self._gossip.node_id, *self._exchanges.live}
            violated = {name: told for name, told in violated.items() if name in present}
        named = list(violated.items())[:MOST_VIOLATED]
        return ConstraintReport(
            id=id_,
            when=first.when,
            severity=first.severity,
            about=first.about,
            on=first.on,
            added_by=first.added_by,
            added_at=first.added_at,
            expires_at=max(ends) if len(ends) == len(definitions) else None,
            **reported_fields(definitions[0]),
            applies_here=any(each.applies_to(self._gossip.labels) for each in by_now),
            conflict=is_conflict(definitions),
            definitions=reports,
            satisfied=counts.satisfied,
            violations=counts.violated,
            unknown=self._evaluator.unknown(id_),
            verdict=last.verdict.value if last else None,
            by_node={node: (each.satisfied, each.violated) for node, each in sorted(state.metrics.by_node(id_).items())},
            **verdict,
            **reported_time(state.metrics.time(id_).plus(self._evaluator.times(id_))),
            violated_now=len(violated),
            violated_on=tuple([ViolatedNode(node=node, **reported_verdict(each)) for node, each in named]),
            disabled=disabled,
            instances=reported_instances(self._evaluator.instances(id_, MOST_VIOLATED)) if active else None,
            staged=reported_staging(state.rollouts, id_, self._gossip.labels),
        )


_VARIABLE_ID = re.compile(r"(.*)/([A-Za-z0-9_.]+(?:\{[^{}]*\})?)", re.DOTALL)
"""A node and a variable of it, perhaps an instance, whose label can have a slash."""


def _rate(total: Counts, audited: Counts) -> float:
    """Satisfied over all evaluations but those of mode audit; 1.0 when nothing was recorded."""
    satisfied, violated = total.satisfied - audited.satisfied, total.violated - audited.violated
    return satisfied / (satisfied + violated) if satisfied + violated else 1.0


def _definition(addition: Addition) -> DefinitionReport:
    definition = addition.definition
    return DefinitionReport(
        when=definition.when,
        severity=definition.severity.value,
        about=definition.about,
        on=dict(definition.on),
        added_by=addition.dot.replica.node_id,
        added_at=addition.added_at,
        expires_at=definition.expires_at,
        **reported_fields(definition),
    )


EVERY: Final = 1.0
"""Seconds between two measurements."""

BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class LoopLag:
    """Measures the lag of the event loop."""

    def __init__(self) -> None:
        self.durations = DurationHistogram(BOUNDS)
        """The lag of each measurement, in seconds."""

    async def run(self, every: float = EVERY, pause: Callable[[float], Awaitable[float]] | None = None) -> None:
        """Measure every `every` seconds. `pause(seconds)` sleeps about so long, and returns the lag. Never returns."""
        while True:
            self.durations.note(await (pause or _sleep)(every))


async def _sleep(seconds: float) -> float:
    loop = asyncio.get_running_loop()
    due = loop.time() + seconds
    await asyncio.sleep(seconds)
    return max(0.0, loop.time() - due)


class Histogram(msgspec.Struct, frozen=True, kw_only=True):
    """A histogram of durations."""

    bounds: tuple[float, ...]
    """Seconds."""
    up_to: tuple[int, ...]
    """The number of durations up to each bound; last, the number of all."""
    total: float
    """The sum of all durations, in seconds."""


MOST_METERED = 100
"""Links with metrics of their own."""


class MetricsReport(msgspec.Struct, frozen=True, kw_only=True):
    """Counters since the start of the node and, where said, values now."""

    exchanges_begun: int
    exchanges_failed: int
    """Exchanges whose peer did not answer."""
    requests_repeated: int
    """Requests repeated for lack of an answer."""
    messages_sent: int
    messages_received: int
    messages_refused: int
    sent_away_bytes: int
    """Bytes of messages to nodes of other sites."""
    received_away_bytes: int
    """Bytes of messages from them."""
    learned_bytes: int
    """Bytes of cells from peers new here: the minimum to transfer."""
    exchange_bytes: int
    """Bytes of all messages of the exchanges begun here with a difference."""
    exchange_difference_bytes: int
    """Bytes of the cells sent or received in these exchanges: the difference."""
    exchange_bytes_ratio: float | None
    """Bytes carried per byte of difference: the median of the last exchanges with a difference; None without any."""
    violated_here: int
    """Active constraints violated on this node now."""
    unknown_here: int
    """Active constraints unknown on this node now."""
    fleet_constraints: int
    """Constraints of scope fleet judged here."""
    fleet_judging_seconds: float
    """CPU seconds that their judgements took since the start."""
    shared_readings: int
    """Readings that this node shares."""
    expired: int
    """Expired constraints not removed yet."""
    tiles: int
    """Tiles now."""
    store_bytes: int
    """Bytes on disk now."""
    store_waiting: int
    """Writes and messages waiting for the next commit now."""
    commits: Histogram | None
    """How long commits took; None without a store."""
    loop_lag: Histogram
    """The lag of the event loop."""
    events: dict[EventKind, int]
    """How many events there were, by kind."""
    links: tuple[LinkReport, ...]
    """The links to live peers, the slowest first, `MOST_METERED` at most."""
    sources: tuple["SourceFigures", ...]
    """The sources of the settings, in their order."""


class SourceFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of a source."""

    name: str
    up: bool
    """It gives values now."""
    values: int
    """Values taken in."""
    dropped: int
    """Values that were followed by another within `every`, or of variables beyond the bound."""
    faults: int
    """Messages that could not be decoded."""
    unknown: int
    """Variables that the source says not to know, now."""


class RuntimeMetrics:
    """The metrics of a node."""

    def __init__(
        self,
        gossip: GossipNode,
        exchanges: ExchangeLoop,
        evaluator: Evaluator,
        persistence: Persistence,
        events: EventStream,
        lag: LoopLag,
        sources: Sequence[SourceReader] = (),
    ) -> None:
        self._sources = sources
        self._gossip = gossip
        self._exchanges = exchanges
        self._evaluator = evaluator
        self._persistence = persistence
        self._events = events
        self._lag = lag

    def report(self) -> MetricsReport:
        """The metrics now. O(constraints that expired)."""
        exchanges, persistence, state = self._exchanges, self._persistence, self._gossip.state
        return MetricsReport(
            exchanges_begun=exchanges.begun,
            exchanges_failed=exchanges.failed,
            requests_repeated=exchanges.repeated,
            messages_sent=exchanges.sent,
            messages_received=exchanges.received,
            messages_refused=exchanges.refused,
            learned_bytes=exchanges.learned_bytes,
            sent_away_bytes=exchanges.sent_away,
            received_away_bytes=exchanges.received_away,
            exchange_bytes=exchanges.receipts.carried,
            exchange_difference_bytes=exchanges.receipts.difference,
            exchange_bytes_ratio=exchanges.receipts.ratio,
            violated_here=self._evaluator.violated,
            unknown_here=self._evaluator.undecided,
            fleet_constraints=len(self._evaluator.judge.fleet_ids),
            fleet_judging_seconds=self._evaluator.fleet.took,
            shared_readings=len(state.readings.of(self._gossip.node_id)),
            expired=len(state.constraints.expired_ids),
            tiles=len(state.tiles),
            store_bytes=persistence.size,
            store_waiting=persistence.waiting,
            commits=None if persistence.commits is None else histogram_of(persistence.commits),
            loop_lag=histogram_of(self._lag.durations),
            events=dict(self._events.counts),
            links=tuple(link_reports(self._gossip.links, exchanges.live)[:MOST_METERED]),
            sources=tuple(map(_source_figures, self._sources)),
        )

    def receipts(self) -> Sequence[ExchangeReceipt]:
        """The costs of the last exchanges that this node began, oldest first."""
        return self._exchanges.receipts.last


def _source_figures(source: SourceReader) -> SourceFigures:
    return SourceFigures(
        name=source.name,
        up=source.trouble is None,
        values=source.values,
        dropped=source.dropped,
        faults=source.faults,
        unknown=len(source.unknown),
    )


def histogram_of(durations: DurationHistogram) -> Histogram:
    """The durations counted up to now."""
    return Histogram(bounds=durations.bounds, up_to=tuple(durations.up_to()), total=durations.total)
