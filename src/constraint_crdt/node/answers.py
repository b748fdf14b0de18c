"""The answers a node gives about itself and the fleet, put together from its state and from what peers gave evidence of."""

import time
from collections.abc import Iterable

from constraint_crdt import __version__
from constraint_crdt.core.cells import REMOVE, Cell
from constraint_crdt.core.clock import VectorClock
from constraint_crdt.core.replica import Replica
from constraint_crdt.engine.transport import Transport
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.gossip.agreement import DefinitionFrontier
from constraint_crdt.gossip.protocol import GossipNode
from constraint_crdt.node.evaluating import Tally
from constraint_crdt.node.exchanging import Exchanger
from constraint_crdt.node.forgetting import Forgetting
from constraint_crdt.node.keeping import Keeping
from constraint_crdt.node.reports import (
    ConstraintReport,
    DefinitionReport,
    IdentityReport,
    LifeReport,
    NodeReport,
    RetireReport,
    Status,
    StorageReport,
)
from constraint_crdt.store import Life


class Answers:
    """Reads; changes nothing."""

    def __init__(
        self,
        gossip: GossipNode,
        exchanger: Exchanger,
        tally: Tally,
        frontier: DefinitionFrontier,
        transport: Transport,
        keeping: Keeping,
        forgetting: Forgetting,
    ) -> None:
        self._gossip = gossip
        self._exchanger = exchanger
        self._tally = tally
        self._frontier = frontier
        self._transport = transport
        self._keeping = keeping
        self._forgetting = forgetting
        self._began, self._began_at = time.monotonic(), time.time_ns()
        self._written_bytes = 0

    def begin(self) -> None:
        """The node starts now."""
        self._began, self._began_at = time.monotonic(), time.time_ns()

    def wrote(self, cells: Iterable[Cell]) -> None:
        """This node wrote these cells."""
        self._written_bytes += sum(len(cell.data) for cell in cells)

    def status(self) -> Status:
        """See `Node.status`."""
        gossip, exchanger = self._gossip, self._exchanger
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
            rounds=gossip.rounds,
            syncs=gossip.syncs,
            exchanges=exchanger.completed,
            bytes_sent=self._transport.bytes_sent,
            bytes_received=self._transport.bytes_received,
            written_bytes=self._written_bytes,
            cells=len(state.rows),
            trouble=self._keeping.trouble,
            alarms=gossip.alarms,
            repairs=gossip.repairs,
            cells_repaired=gossip.cells_repaired,
            endpoints=tuple(self._transport.endpoints),
            uptime=time.monotonic() - self._began,
        )

    def constraints(self) -> list[ConstraintReport]:
        """See `Node.constraints`."""
        return [self._constraint(id_) for id_ in sorted(self._gossip.state.constraints)]

    def nodes(self) -> list[NodeReport]:
        """See `Node.nodes`."""
        described = self._gossip.state.nodes
        return [self._node(name, described[name].software if name in described else "") for name in sorted(self._names())]

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
        """What retiring a node would mean, or meant. Raises `KeyError` for one that never wrote, `ConstraintCrdtError` for this."""
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
        clock = self._gossip.tracker.clock(name)
        return self._frontier.covered_by((clock or VectorClock()).as_dict())

    def _node(self, name: str, software: str) -> NodeReport:
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
            software=software,
            retired=name in state.retirements,
        )

    def _constraint(self, id_: str) -> ConstraintReport:
        state = self._gossip.state
        definitions = tuple(
            DefinitionReport(
                when=each.definition.when,
                severity=each.definition.severity.value,
                about=each.definition.about,
                added_by=each.dot.replica.node_id,
            )
            for each in state.constraints.additions(id_)
        )
        first, counts, last = definitions[0], state.metrics.constraint(id_), self._tally.last(id_)
        return ConstraintReport(
            id=id_,
            when=first.when,
            severity=first.severity,
            about=first.about,
            added_by=first.added_by,
            conflict=len(state.constraints.definitions(id_)) > 1,
            definitions=definitions,
            satisfied=counts.satisfied,
            violations=counts.violated,
            unknown=self._tally.unknown(id_),
            verdict=last.verdict.value if last else None,
            reason=last.reason if last else "",
            by_node={node: (each.satisfied, each.violated) for node, each in sorted(state.metrics.by_node(id_).items())},
        )
