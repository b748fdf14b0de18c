"""Node: a running member of a fleet, on asyncio. Programs embed it; the command line is a thin front on it.

    async with Node(name="forge", connect=["tcp/10.0.0.1:7447"]) as node:
        await node.add_constraint("max_speed", when="speed_mps <= 1.5")
        await node.measure({"speed_mps": 1.2})
        async for event in node.events():
            ...

`lifecycle` has its parts and its background tasks. All state belongs to one event loop; call nothing here from another thread.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from random import Random
from types import TracebackType
from typing import Self

import msgspec

from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.expression import check_names, compile_expression
from constraint_crdt.expression.evaluation import Evaluation
from constraint_crdt.model.definition import Severity
from constraint_crdt.model.events import Event, EventKind
from constraint_crdt.operations.constraints import BatchChange, ConstraintReport, RecordCounts
from constraint_crdt.operations.nodes import IdentityReport, NodeReport, RetireReport, Status, StorageReport
from constraint_crdt.operations.positions import PositionReport
from constraint_crdt.operations.states import ImportReport
from constraint_crdt.runtime.batches import BatchResult, apply_changes, check_definitions, needs_expressions
from constraint_crdt.runtime.events import EventStream
from constraint_crdt.runtime.lifecycle import Runtime
from constraint_crdt.runtime.probes import Probe
from constraint_crdt.runtime.settings import NodeSettings
from constraint_crdt.runtime.shared import position_report
from constraint_crdt.state_file import MAX_STATE_BYTES
from constraint_crdt.transport.interface import Transport
from constraint_crdt.types.definition import Labels
from constraint_crdt.types.orset import Change
from constraint_crdt.types.register import Position


class Node:
    """One node of a fleet. Use it as an async context manager, or call `start` and `stop`."""

    def __init__(
        self,
        *,
        name: str | None = None,
        fleet: str | None = None,
        role: str | None = None,
        listen: Sequence[str] | None = None,
        connect: Sequence[str] | None = None,
        labels: Mapping[str, str] | None = None,
        probes: Sequence[Probe] = (),
        transport: Transport | None = None,
        settings: NodeSettings | None = None,
        random: Random | None = None,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        """Keyword settings override those in `settings`. `transport`: Zenoh if left out. `random`: selects peers. `now`: the time
        in ns since the epoch.

        Raises `ConstraintCrdtError` for a name or fleet out of bounds.
        """
        given = {"name": name, "fleet": fleet, "role": role, "listen": listen, "connect": connect, "labels": labels}
        changes = {
            key: tuple(value) if key in ("listen", "connect") else value for key, value in given.items() if value is not None
        }
        self.settings = msgspec.structs.replace(settings or NodeSettings(), **changes)
        random = random or Random()  # noqa: S311 - selects peers, protects nothing
        runtime = self._runtime = Runtime(self.settings, transport, probes, random, now)
        self._now = now
        self.gossip = runtime.gossip
        """The state, and the protocol of the node."""
        self.tiles = runtime.tiles
        """The tiles."""
        self.approximate = runtime.sketches
        """The sketches, among them the most violated constraints, and the Bloom filters."""
        self.counters = runtime.counters
        """Counters that go up and down."""
        self.plato = runtime.plato
        """The rooms, as clients of the PLATO contract see them."""
        self.rates = runtime.rates
        """The recent rates at which constraints held and were violated."""
        self.evidence = runtime.evidence
        """The evidence of the state of each peer."""
        self.spells = runtime.spells
        """Since when each constraint is violated on each node."""
        self.coverage = runtime.coverage
        """Which nodes have heard of a change."""
        self.explanations = runtime.explanations
        """Everything known of a constraint."""
        self.convergence = runtime.convergence
        """How the state of each peer compares to this node's."""
        self.overview = runtime.overview
        """The constraints of a large fleet, in pages."""
        self.diagnosis = runtime.diagnosis
        """The faults of this node."""
        self.alerts = runtime.alerts
        """The alerts of this node's rules."""
        self.notices = runtime.notices
        """Which readings changed."""
        self.metrics = runtime.metrics
        """Counters and gauges of this node."""

    # --- life --------------------------------------------------------------------------------------------------------

    async def start(self, *, rejoin: bool = False) -> None:
        """Load the store and join the fleet. `rejoin`: rename the store and begin with an empty one; peers bring its content back.

        Raises `StoreError` or `TransportError` (each a `ConstraintCrdtError`) if one of them cannot open; nothing runs then.
        """
        await self._runtime.start(rejoin=rejoin)

    async def stop(self) -> None:
        """Leave: write and push the gathered counts, then close the transport. Idempotent."""
        await self._runtime.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    async def over(self) -> str:
        """Wait until this node has to end for good. Returns the reason: retirement, or another live node of the same name."""
        return await self._runtime.membership.over()

    # --- writes ------------------------------------------------------------------------------------------------------

    async def add_constraint(
        self,
        id_: str,
        *,
        when: str | None = None,
        severity: str = Severity.WARNING,
        about: str | None = None,
        on: Labels | None = None,
        ttl: timedelta | float | None = None,
        until: datetime | int | None = None,
    ) -> Change:
        """Add a constraint to the whole fleet, or replace its definitions known here.

        `on`: the labels of the nodes to apply the constraint to. `ttl`: its duration, a number in seconds; `until`: its end, a
        number in ns since the epoch. Without either the constraint lasts until its removal. Raises `ExpressionError` (wrong `when`)
        or `ConstraintCrdtError` (out of bounds); nothing changes then.
        """
        if when:
            await asyncio.to_thread(compile_expression, when)  # the CEL library may not be loaded yet
        add = partial(self.gossip.add_constraint, when=when, severity=severity, about=about, on=on, ttl=ttl, until=until)
        return await self._runtime.feed.commit(partial(add, id_, at=self._now()))

    async def remove_constraint(self, id_: str) -> None:
        """Remove a constraint in the whole fleet. Raises `KeyError` for a constraint not active here."""
        await self._runtime.feed.commit(partial(self.gossip.remove_constraint, id_))

    async def record(self, satisfied: int = 0, violations: int = 0, *, constraint: str | None = None) -> None:
        """Count evaluations made outside of the node, of a constraint, or without a constraint.

        Raises `ValueError` for a negative number and `KeyError` for an inactive constraint without counts.
        """
        state = self.gossip.state
        if constraint is not None and constraint not in state.constraints and not any(state.metrics.constraint(constraint)):
            raise KeyError(constraint)
        await self._runtime.feed.commit(partial(self.gossip.record, satisfied, violations, constraint=constraint))
        self._runtime.evaluator.recorded(constraint, satisfied, violations)

    async def batch(self, changes: Sequence[BatchChange]) -> list[BatchResult]:
        """Add, remove and record, up to 10,000 changes, in order, at one instant, with one commit to disk.

        Raises `BatchError` (a `ConstraintCrdtError`) naming the first wrong change; no change is made then.
        """
        if needs_expressions(changes):
            await asyncio.to_thread(check_definitions, changes)
        else:
            check_definitions(changes)
        results = await self._runtime.feed.commit(partial(apply_changes, self.gossip, changes, at=self._now()))
        for change in changes:
            if isinstance(change, RecordCounts):
                self._runtime.evaluator.recorded(change.constraint, change.satisfied, change.violations)
        return results

    async def measure(self, values: Mapping[str, object]) -> None:
        """Take measurements in. The latest value of each variable counts until its maximum age; None withdraws it at once.

        Raises `ConstraintCrdtError` for a name that no expression can read, and for a value of a wrong type or out of bounds; no
        value is taken then.
        """
        self._runtime.measurements.put(values, time.monotonic_ns())

    async def check(self, values: Mapping[str, object]) -> list[Evaluation]:
        """Evaluate the active constraints now, against these values and the latest measurements, and count the results.

        None in place of a value: the variable is missing. Raises `ConstraintCrdtError` for a name that no expression can read.
        """
        check_names(values)
        runtime = self._runtime
        fresh = runtime.measurements.fresh(time.monotonic_ns())
        runtime.persistence.check()
        evaluations = runtime.evaluator.evaluate({**fresh, **values})
        await runtime.evaluator.write_counts()
        runtime.exchanges.push()
        await runtime.persistence.durable()
        return evaluations

    async def update_position(self, position: Position) -> None:
        """Move the fleet's position. Raises `ConstraintCrdtError` for coordinates beyond 32 bits."""
        await self._runtime.feed.commit(partial(self.gossip.update_position, position))

    async def retire(self, node: str, *, dry_run: bool = False, force: bool = False) -> RetireReport:
        """Retire a node: its counts stay, its messages are refused, and its name must not be used again.

        `dry_run`: only report. Raises `KeyError` for a node without writes, and `ConstraintCrdtError` for this node, and for a live
        node unless `force` is given: writes not received by any peer are lost.
        """
        report = self._runtime.answers.retirement(node)
        if dry_run:
            return report
        if report.live and not force:
            raise ConstraintCrdtError(
                f"{node} is live: stop it first, or force it, which loses what it wrote and nobody has taken yet"
            )
        await self._runtime.feed.commit(partial(self.gossip.retire, node))
        self._runtime.publisher.publish(EventKind.RETIRED, node=node)
        return self._runtime.answers.retirement(node)

    async def export_state(self) -> str:
        """The whole state as JSON: see docs/reference/state-files.md. O(cells)."""
        return await self._runtime.state_files.export()

    async def import_state(self, text: str | bytes, *, max_bytes: int = MAX_STATE_BYTES) -> ImportReport:
        """Merge a state made by `export_state` or `to_json`. Newer cells here stay.

        Raises `StateFileError` for other texts, and `ConstraintCrdtError` beyond a limit; nothing changes then.
        """
        return await self._runtime.state_files.merge(text, max_bytes)

    # --- reads -------------------------------------------------------------------------------------------------------

    def events(self) -> AsyncIterator[Event]:
        """The events from now on, until the node stops."""
        return self._runtime.events.subscribe()

    @property
    def event_stream(self) -> EventStream:
        """The events with their ids, for resuming readers and for listeners."""
        return self._runtime.events

    def position(self) -> PositionReport:
        """The positions of the fleet and of its nodes. O(rows with a position)."""
        return position_report(self.gossip.state)

    def status(self) -> Status:
        """The state of this node, and of the fleet as seen from here. O(peers x rows)."""
        return self._runtime.answers.status(self.convergence)

    def not_ready(self) -> str | None:
        """Why this node does not take part in full; None if it does."""
        if self._runtime.membership.me is None:
            return "the node has not joined its fleet yet"
        if self.gossip.retired_by is not None:
            return f"the node was retired by {self.gossip.retired_by}"
        return self._runtime.persistence.trouble

    def constraint_ids(self) -> list[str]:
        """The active constraints, ordered."""
        return sorted(self.gossip.state.constraints)

    def expired_ids(self) -> list[str]:
        """The expired constraints not removed yet, ordered."""
        return self.gossip.state.constraints.expired_ids

    def node_names(self) -> list[str]:
        """The names of all known nodes, ordered."""
        return self._runtime.answers.names

    def constraints(self, ids: Sequence[str] | None = None) -> list[ConstraintReport]:
        """The active constraints, or those of them in `ids`, ordered by id. O(constraints x nodes)."""
        return self._runtime.answers.constraints(ids)

    def expired(self, ids: Sequence[str] | None = None) -> list[ConstraintReport]:
        """The expired constraints not removed yet, or those in `ids`, ordered by id."""
        return self._runtime.answers.expired(ids)

    def nodes(self, names: Sequence[str] | None = None) -> list[NodeReport]:
        """All known nodes, or these, ordered by name. O(nodes x rows)."""
        return self._runtime.answers.nodes(self.convergence, names)

    def storage(self) -> StorageReport:
        """The cells of this node's state, and the removals held back by peers. O(cells)."""
        return self._runtime.answers.storage()

    def identity(self) -> IdentityReport:
        """The identity of this node, with its former incarnations."""
        return self._runtime.answers.identity()
