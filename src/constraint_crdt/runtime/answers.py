"""The reports of a node on itself and the fleet, from its state and the evidence of peers."""

import time
from collections.abc import Sequence

from constraint_crdt import __version__
from constraint_crdt.crdt.cells import REMOVE
from constraint_crdt.crdt.clock import SECOND, VectorClock
from constraint_crdt.crdt.replica import Replica
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.insight.changes import DefinitionFrontier
from constraint_crdt.insight.evidence import Convergence
from constraint_crdt.operations.constraints import ConstraintReport, DefinitionReport
from constraint_crdt.operations.nodes import IdentityReport, LifeReport, NodeReport, RetireReport, Status, StorageReport
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.runtime.change_feed import ChangeFeed
from constraint_crdt.runtime.evaluation import EvaluationCounts
from constraint_crdt.runtime.exchange_loop import ExchangeLoop
from constraint_crdt.runtime.maintenance import RemovalSweep
from constraint_crdt.runtime.persistence import Persistence
from constraint_crdt.store import Life
from constraint_crdt.transport import Transport
from constraint_crdt.types.definition import Addition
from constraint_crdt.types.nodes import NodeValue


class Answers:
    """Reads; changes nothing."""

    def __init__(
        self,
        gossip: GossipNode,
        feed: ChangeFeed,
        exchanger: ExchangeLoop,
        tally: EvaluationCounts,
        frontier: DefinitionFrontier,
        transport: Transport,
        keeping: Persistence,
        forgetting: RemovalSweep,
    ) -> None:
        self._gossip = gossip
        self._feed = feed
        self._exchanger = exchanger
        self._tally = tally
        self._frontier = frontier
        self._transport = transport
        self._keeping = keeping
        self._forgetting = forgetting
        self._began, self._began_at = time.monotonic(), time.time_ns()

    def begin(self) -> None:
        """The node starts now."""
        self._began, self._began_at = time.monotonic(), time.time_ns()

    def status(self, convergence: Convergence) -> Status:
        """See `Node.status`."""
        gossip, exchanger, fleet = self._gossip, self._exchanger, convergence.report()
        state, live = gossip.state, exchanger.live
        return Status(
            node=gossip.node_id,
            replica=str(gossip.replica),
            fleet=gossip.fleet,
            software=__version__,
            hash=gossip.state_hash.hex(),
            constraints_hash=gossip.constraints_hash.hex(),
            constraints=state.active_constraint_count,
            satisfied=state.metrics.total_satisfied,
            violations=state.metrics.total_violations,
            satisfaction_rate=state.satisfaction_rate,
            position=state.position,
            peers=len(live),
            known=len(self._names()),
            agreeing=1 + sum(self._same_constraints(name) for name in live),
            converged=all(gossip.tracker.hash(name) == gossip.state_hash for name in live),
            staleness_p50=fleet.staleness_p50,
            staleness_p99=fleet.staleness_p99,
            rounds=gossip.rounds,
            syncs=gossip.syncs,
            exchanges=exchanger.completed,
            bytes_sent=self._transport.bytes_sent,
            bytes_received=self._transport.bytes_received,
            written_bytes=self._feed.written_bytes,
            cells=len(state.rows),
            trouble=self._keeping.trouble,
            clock_alarms=gossip.time.alarms,
            clock_in_doubt=gossip.time.in_doubt,
            alarms=gossip.alarms,
            repairs=gossip.repairs,
            cells_repaired=gossip.cells_repaired,
            endpoints=tuple(self._transport.endpoints),
            uptime=time.monotonic() - self._began,
        )

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

    def nodes(self, convergence: Convergence, names: Sequence[str] | None = None) -> list[NodeReport]:
        """See `Node.nodes`."""
        described = self._gossip.state.nodes
        return [self._node(name, described.get(name), convergence) for name in (self.names if names is None else names)]

    def storage(self) -> StorageReport:
        """See `Node.storage`."""
        rows = self._gossip.state.rows
        live_bytes = sum(len(cell.data) for cell in rows.live_cells())
        removed_bytes = sum(len(cell.data) for cell in rows.each(REMOVE))
        removed = len(self._forgetting)
        return StorageReport(
            path=self._keeping.path,
            bytes_on_disk=self._keeping.size,
            live=len(rows) - removed,
            removed=removed,
            live_bytes=live_bytes,
            removed_bytes=removed_bytes,
            floors={str(replica): floor for replica, floor in sorted(rows.floors.items())},
            dropped=dict(self._forgetting.dropped),
            holding=tuple(self._forgetting.holding(self._exchanger.live)),
            trouble=self._keeping.trouble,
        )

    def identity(self) -> IdentityReport:
        """See `Node.identity`."""
        gossip, rows = self._gossip, self._gossip.state.rows
        lives = self._keeping.lives or (Life(gossip.replica.incarnation, self._began_at, "started without a store"),)
        return IdentityReport(
            node=gossip.node_id,
            fleet=gossip.fleet,
            replica=str(gossip.replica),
            store=self._keeping.path,
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
        lives = {r: seq for r, seq in gossip.state.rows.clock_mark.entries.items() if r.node_id == name}
        if not lives:
            raise KeyError(name)
        counts = gossip.state.metrics.node(name)
        others = sorted(self._exchanger.live - {name})
        clocks = {other: gossip.tracker.clock(other) or VectorClock() for other in others}
        having = [other for other in others if all(clocks[other][r] >= seq for r, seq in lives.items())]
        return RetireReport(
            node=name,
            live=name in self._exchanger.live,
            done=name in gossip.state.retirements,
            lives={str(replica): seq for replica, seq in sorted(lives.items())},
            satisfied=counts.satisfied,
            violations=counts.violated,
            acknowledged=tuple(having),
            missing=tuple(other for other in others if other not in having),
        )

    def _names(self) -> set[str]:
        written = {replica.node_id for replica in self._gossip.state.rows.clock_mark.entries}
        return written | {self._gossip.node_id} | self._exchanger.live

    def _same_constraints(self, name: str) -> bool:
        peer, mine = self._gossip.tracker.peer(name), self._gossip.state.rows.clock_mark
        mark = peer.mark if peer is not None else None
        if mark is None:
            return self._frontier.covered_by({})
        return mark == mine or self._frontier.covered_by(mark.entries)

    def _node(self, name: str, described: NodeValue | None, convergence: Convergence) -> NodeReport:
        gossip, state = self._gossip, self._gossip.state
        me = name == gossip.node_id
        counts = state.metrics.node(name)
        return NodeReport(
            node=name,
            live=me or name in self._exchanger.live,
            satisfied=counts.satisfied,
            violations=counts.violated,
            position=state.register.node_position(name),
            same_constraints=me or self._same_constraints(name),
            same_state=me or gossip.tracker.hash(name) == gossip.state_hash,
            software=described.software if described else "",
            labels=dict(described.labels) if described else {},
            clock_offset=None if me or (offset := gossip.time.offset(name)) is None else offset / SECOND,
            retired=name in state.retirements,
            convergence=None if me or name in state.retirements else convergence.peer(name),
        )

    def _constraint(self, id_: str, additions: Sequence[Addition]) -> ConstraintReport:
        state, definitions = self._gossip.state, [each.definition for each in additions]
        reports = tuple(map(_definition, additions))
        ends = [each.expires_at for each in definitions if each.expires_at is not None]
        first, counts, last = reports[0], state.metrics.constraint(id_), self._tally.last(id_)
        return ConstraintReport(
            id=id_,
            when=first.when,
            severity=first.severity,
            about=first.about,
            on=first.on,
            added_by=first.added_by,
            added_at=first.added_at,
            expires_at=max(ends) if len(ends) == len(definitions) else None,
            applies_here=any(each.applies_to(self._gossip.labels) for each in definitions),
            conflict=len({each.without_end() for each in definitions}) > 1,
            definitions=reports,
            satisfied=counts.satisfied,
            violations=counts.violated,
            unknown=self._tally.unknown(id_),
            verdict=last.verdict.value if last else None,
            reason=last.reason if last else "",
            by_node={node: (each.satisfied, each.violated) for node, each in sorted(state.metrics.by_node(id_).items())},
        )


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
    )
