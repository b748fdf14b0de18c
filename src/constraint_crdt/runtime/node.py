"""Node: a running member of a fleet, on asyncio. To embed in a program of one's own; the command line is a thin front on it.

    async with Node(name="forge", connect=["tcp/10.0.0.1:7447"]) as node:
        await node.add_constraint("max_speed", when="speed_mps <= 1.5")
        await node.measure({"speed_mps": 1.2})
        async for event in node.events():
            ...

What it does by itself is in `running`. All state lives on one event loop; nothing here is to be called from another thread.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime, timedelta

from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.expression import compile_expression
from constraint_crdt.expression.evaluation import Evaluation
from constraint_crdt.runtime.batches import (
    BatchChange,
    BatchResult,
    RecordCounts,
    apply_changes,
    check_definitions,
    needs_expressions,
)
from constraint_crdt.runtime.events import Event, EventKind, EventStream
from constraint_crdt.runtime.lifecycle import RunningNode
from constraint_crdt.runtime.reports import ConstraintReport, IdentityReport, NodeReport, RetireReport, Status, StorageReport
from constraint_crdt.runtime.shared import ImportReport, PositionReport, position_report
from constraint_crdt.state_file import MAX_STATE_BYTES
from constraint_crdt.types.definition import Labels, Severity
from constraint_crdt.types.orset import Change
from constraint_crdt.types.register import Position


class Node(RunningNode):
    """One node of a fleet. Use it as an async context manager, or call `start` and `stop`."""

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
        """Make a constraint active in the whole fleet, or give it this definition in place of those known here.

        `on`: the labels of the nodes that it applies to. `ttl`: how long it lasts, in seconds if it is a number; `until`: when it
        ends, in ns since the epoch if it is a number. Given neither, it lasts until somebody removes it.
        Raises `ExpressionError` (wrong `when`) or `ConstraintCrdtError` (out of bounds); nothing changes then.
        """
        if when:
            await asyncio.to_thread(compile_expression, when)  # the CEL library may not be loaded yet
        return await self._told(
            lambda: self.gossip.add_constraint(
                id_, when=when, severity=severity, about=about, on=on, ttl=ttl, until=until, at=self._now()
            )
        )

    async def remove_constraint(self, id_: str) -> None:
        """End a constraint in the whole fleet. Raises `KeyError` if it is not active here."""
        await self._told(lambda: self.gossip.remove_constraint(id_))

    async def record(self, satisfied: int = 0, violations: int = 0, *, constraint: str | None = None) -> None:
        """Count evaluations made elsewhere, of one constraint or of none in particular.

        Raises `ValueError` for a negative number and `KeyError` for a constraint that is not active and never counted.
        """
        state = self.gossip.state
        if constraint is not None and constraint not in state.constraints and not any(state.metrics.constraint(constraint)):
            raise KeyError(constraint)
        await self._told(lambda: self.gossip.record(satisfied, violations, constraint=constraint))
        self.approximate.note({constraint: (satisfied, violations)})
        self.rates.note({constraint: (satisfied, violations)})

    async def batch(self, changes: Sequence[BatchChange]) -> list[BatchResult]:
        """Add, remove and record, up to 10,000 changes: in order, all at one instant, and with one wait for the disk.

        Raises `BatchError` (a `ConstraintCrdtError`) naming the change that cannot be made; then none of them is.
        """
        if needs_expressions(changes):
            await asyncio.to_thread(check_definitions, changes)
        else:
            check_definitions(changes)
        results = await self._told(lambda: apply_changes(self.gossip, changes, at=self._now()))
        for change in changes:
            if isinstance(change, RecordCounts):
                self.approximate.note({change.constraint: (change.satisfied, change.violations)})
                self.rates.note({change.constraint: (change.satisfied, change.violations)})
        return results

    async def measure(self, values: Mapping[str, object]) -> None:
        """Take measurements in: the latest value per variable counts, until it is older than the maximum age.

        Raises `ConstraintCrdtError` for a value that cannot be measured; nothing is taken then.
        """
        self._board.put(values, time.monotonic_ns())

    async def check(self, values: Mapping[str, object]) -> list[Evaluation]:
        """Evaluate the active constraints now, against these values and the latest measurements, and count the results."""
        fresh = self._board.fresh(time.monotonic_ns())
        self._keeping.check()
        evaluations = self._evaluate({**fresh, **values})
        await self._write_counts()
        self._exchanger.push()
        await self._keeping.durable()
        return evaluations

    async def update_position(self, position: Position) -> None:
        """Move the fleet's position. Raises `ConstraintCrdtError` for coordinates beyond 32 bits."""
        await self._told(lambda: self.gossip.update_position(position))

    async def retire(self, node: str, *, dry_run: bool = False, force: bool = False) -> RetireReport:
        """End a node for good: its counts stay, its return is refused, its name is not to be used again.

        `dry_run` only says what would be. Raises `KeyError` for a node that never wrote, and `ConstraintCrdtError` for this one,
        and for one that is live unless `force` is given: what it wrote and nobody has taken yet is lost with it.
        """
        report = self._answers.retirement(node)
        if dry_run:
            return report
        if report.live and not force:
            raise ConstraintCrdtError(
                f"{node} is live: stop it first, or force it, which loses what it wrote and nobody has taken yet"
            )
        await self._told(lambda: self.gossip.retire(node))
        self._announcer.publish(EventKind.RETIRED, node=node)
        return self._answers.retirement(node)

    async def export_state(self) -> str:
        """Everything that is known here, as JSON: see docs/reference/state-files.md. O(cells)."""
        return await self._portable.export()

    async def import_state(self, text: str | bytes, *, max_bytes: int = MAX_STATE_BYTES) -> ImportReport:
        """Merge a state that `export_state` or `to_json` made: what is newer here stays.

        Raises `StateFileError` for what is none, and `ConstraintCrdtError` beyond a limit; nothing changes then.
        """
        return await self._portable.take_in(text, max_bytes)

    def events(self) -> AsyncIterator[Event]:
        """What happens from now on, until the node stops."""
        return self._events.subscribe()

    @property
    def event_stream(self) -> EventStream:
        """The same for those who come back after a while, or cannot wait."""
        return self._events

    def position(self) -> PositionReport:
        """Where the fleet is, and each of its nodes. O(rows with a position)."""
        return position_report(self.gossip.state)

    def status(self) -> Status:
        """How this node and the fleet are doing, from here. O(peers x rows)."""
        return self._answers.status(self.answering.convergence)

    def not_ready(self) -> str | None:
        """Why this node does not take part in full; None if it does."""
        if self._hearing.me is None:
            return "the node has not joined its fleet yet"
        if self.gossip.retired_by is not None:
            return f"the node was retired by {self.gossip.retired_by}"
        return self._keeping.trouble

    def constraint_ids(self) -> list[str]:
        """The active constraints, ordered."""
        return sorted(self.gossip.state.constraints)

    def expired_ids(self) -> list[str]:
        """The constraints that have expired and that nobody has removed yet, ordered."""
        return self.gossip.state.constraints.expired_ids

    def node_names(self) -> list[str]:
        """The nodes ever heard of, ordered."""
        return self._answers.names

    def constraints(self, ids: Sequence[str] | None = None) -> list[ConstraintReport]:
        """The active constraints, or those of them in `ids`, ordered by id. O(constraints x nodes)."""
        return self._answers.constraints(ids)

    def expired(self, ids: Sequence[str] | None = None) -> list[ConstraintReport]:
        """The constraints that have expired and that nobody has removed yet, or those of them in `ids`, ordered by id."""
        return self._answers.expired(ids)

    def nodes(self, names: Sequence[str] | None = None) -> list[NodeReport]:
        """The nodes ever heard of, or these, ordered by name. O(nodes x rows)."""
        return self._answers.nodes(self.answering.convergence, names)

    def storage(self) -> StorageReport:
        """What this node holds, and what it could forget. O(cells)."""
        return self._answers.storage()

    def identity(self) -> IdentityReport:
        """Who this node is, and who it was."""
        return self._answers.identity()
