"""Batches of changes: for writers faster than a commit to disk per change.

Rules: a batch is checked as a whole against the state of an instant, and at that instant applied whole, in order, or not at
all. The counts of a batch are a single cell per constraint.
"""

import enum
from collections.abc import Mapping, Sequence

import msgspec

from constraint_crdt.crdt.limits import MAX_COUNT
from constraint_crdt.crdt.replica import check_id
from constraint_crdt.errors import ConstraintCrdtError, InvalidType
from constraint_crdt.expression import ExpressionError, compile_expression
from constraint_crdt.expression.evaluation import NO_KINDS
from constraint_crdt.operations.constraints import (
    MAX_CHANGES,
    AddConstraint,
    BatchChange,
    BatchError,
    RecordCounts,
    RemoveConstraint,
)
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.types.counters import COUNTS, NODE_KEY, count_of, counts_value
from constraint_crdt.types.definition import ADD, check_definition, check_labels, duration_ns, expiry_time
from constraint_crdt.types.orset import DOTS_PER_REMOVAL


class Effect(enum.StrEnum):
    """The effect of a change."""

    ADDED = "added"
    REPLACED = "replaced"
    EXTENDED = "extended"
    UNCHANGED = "unchanged"
    REMOVED = "removed"
    RECORDED = "recorded"


class BatchResult(msgspec.Struct, frozen=True, gc=False):
    """The result of a change. `id` is the id of the constraint; None for counts without a constraint."""

    id: str | None
    change: Effect


def check_definitions(changes: Sequence[BatchChange], kinds: Mapping[str, str] = NO_KINDS) -> None:
    """Check the size of a batch and its definitions, without the state. Compiles each `when`, which may be slow.

    `kinds`: the kinds of variables where they are known. Raises `ConstraintCrdtError`; a `BatchError` for a change at fault.
    """
    if len(changes) > MAX_CHANGES:
        raise ConstraintCrdtError(f"a batch has at most {MAX_CHANGES} changes, not {len(changes)}: send several")
    for index, change in enumerate(changes):
        if type(change) is AddConstraint:
            _check_definition(index, change, kinds)


def needs_expressions(changes: Sequence[BatchChange]) -> bool:
    """True if there is a `when` to compile."""
    return any(type(change) is AddConstraint and change.when for change in changes)


def apply_changes(gossip: GossipNode, changes: Sequence[BatchChange], *, at: int | None = None) -> list[BatchResult]:
    """Apply a batch whose definitions were checked. `at`: when its constraints are said to have been added, ns since the epoch.

    Raises `ConstraintCrdtError`, `ClockInDoubt` for an end where the node does not know the time, or `BatchError`; then nothing has
    changed.
    """
    with gossip.time.held():  # nothing expires between the dry run and the writes
        sums = _Rehearsal(gossip).run(changes)
        return _apply(gossip, changes, sums, at)


def _apply(
    gossip: GossipNode, changes: Sequence[BatchChange], sums: Mapping[str | None, tuple[int, int]], at: int | None
) -> list[BatchResult]:
    results = []
    for change in changes:
        if type(change) is RecordCounts:
            results.append(BatchResult(change.constraint, Effect.RECORDED))
        elif type(change) is AddConstraint:
            done = gossip.add_constraint(
                change.id,
                when=change.when,
                severity=change.severity,
                about=change.about,
                on=change.on,
                ttl=change.ttl,
                until=change.until,
                for_=change.for_,
                clear_after=change.clear_after,
                clear_when=change.clear_when,
                if_unknown=change.if_unknown,
                max_age=change.max_age,
                at=at,
            )
            results.append(BatchResult(change.id, Effect(done.value)))
        elif type(change) is RemoveConstraint:
            gossip.remove_constraint(change.id)
            results.append(BatchResult(change.id, Effect.REMOVED))
    # Counts do not depend on the active constraints, so they may come last.
    gossip.record_all(sums)
    return results


def _check_definition(index: int, change: AddConstraint, kinds: Mapping[str, str]) -> None:
    for field, check in (
        ("id", lambda: check_id(change.id, "a constraint id")),
        ("for", lambda: duration_ns(change.for_, "for")),
        ("clear_after", lambda: duration_ns(change.clear_after, "clear_after")),
        ("max_age", lambda: duration_ns(change.max_age, "max_age")),
        ("on", lambda: check_labels(change.on or {}, "on")),
        ("when", lambda: _check_fields(change)),
        ("when", lambda: compile_expression(change.when, kinds=kinds) if change.when else None),
        ("clear_when", lambda: compile_expression(change.clear_when, kinds=kinds) if change.clear_when else None),
    ):
        try:
            check()
        except ExpressionError as error:
            raise BatchError(index, f"add.{field}", str(error)) from None
        except ConstraintCrdtError as error:
            raise BatchError(index, f"add.{error.field or field}", str(error)) from None


def _check_fields(change: AddConstraint) -> None:
    check_definition(
        change.when,
        change.severity,
        change.about,
        for_=duration_ns(change.for_, "for"),
        clear_after=duration_ns(change.clear_after, "clear_after"),
        clear_when=change.clear_when,
        if_unknown=change.if_unknown,
        max_age=duration_ns(change.max_age, "max_age"),
    )


class _Rehearsal:
    """A dry run of a batch: the active constraints after each change, the counts, and the number of cells."""

    def __init__(self, gossip: GossipNode) -> None:
        self._state = gossip.state
        self._local = gossip.local
        self._replica = gossip.replica
        self._active: dict[str, bool] = {}
        self._before: dict[str | None, tuple[int, int]] = {}
        self._sums: dict[str | None, tuple[int, int]] = {}
        self._cells = 1  # the cell of a new life, in case this node has to begin one first

    def run(self, changes: Sequence[BatchChange]) -> dict[str | None, tuple[int, int]]:
        """The counts of the batch by constraint: (satisfied, violated)."""
        for index, change in enumerate(changes):
            if type(change) is RecordCounts:
                self._record(index, change)
            elif type(change) is AddConstraint:
                self._check_end(index, change)
                self._end_adds(change.id)
                self._cells += 1
                self._active[change.id] = True
            elif type(change) is RemoveConstraint:
                if not self._is_active(change.id):
                    raise BatchError(index, "remove.id", f"no constraint {change.id!r} is active")
                self._end_adds(change.id)
                self._active[change.id] = False
            else:
                kind = type(change).__name__
                raise InvalidType(f"a batch is made of AddConstraint, RemoveConstraint and RecordCounts, not {kind}")
        rows = self._state.rows
        if len(rows) + self._cells + len(self._sums) > rows.limits.cells:
            raise ConstraintCrdtError(f"the batch could make more than the {rows.limits.cells} cells that this node is set to hold")
        return self._sums

    def _check_end(self, index: int, change: AddConstraint) -> None:
        if change.ttl is None and change.until is None:
            return
        self._local.check_clock()
        try:
            expiry_time(change.ttl, change.until, self._state.now())
        except ConstraintCrdtError as error:
            raise BatchError(index, "add.until" if change.ttl is None else "add.ttl", str(error)) from None

    def _is_active(self, id_: str) -> bool:
        known = self._active.get(id_)
        return id_ in self._state.constraints if known is None else known

    def _end_adds(self, id_: str) -> None:
        """Count the cells for the removal of the present definitions, and of those from the batch."""
        self._cells += 1 + len(self._state.rows.held(ADD, id_)) // DOTS_PER_REMOVAL

    def _record(self, index: int, change: RecordCounts) -> None:
        constraint, satisfied, violations = change.constraint, change.satisfied, change.violations
        counted = self._sums.get(constraint, (0, 0))
        if counted == (0, 0):
            self._check_recorded(index, constraint)
        if satisfied < 0 or violations < 0:
            field = "satisfied" if satisfied < 0 else "violations"
            raise BatchError(index, f"record.{field}", "counts only grow: the number to record cannot be negative")
        before = self._before[constraint]
        counted = (counted[0] + satisfied, counted[1] + violations)
        if before[0] + counted[0] > MAX_COUNT or before[1] + counted[1] > MAX_COUNT:
            field = "satisfied" if before[0] + counted[0] > MAX_COUNT else "violations"
            raise BatchError(
                index, f"record.{field}", f"a cumulative count, here that {count_of(constraint)}, cannot exceed 2**63 - 1"
            )
        self._sums[constraint] = counted

    def _check_recorded(self, index: int, constraint: str | None) -> None:
        """Check the constraint, and read the count of this life."""
        if constraint is not None and not self._is_active(constraint) and not any(self._state.metrics.constraint(constraint)):
            raise BatchError(index, "record.constraint", f"no constraint {constraint!r} is active")
        cell = self._state.rows.get(COUNTS, NODE_KEY if constraint is None else constraint, self._replica)
        self._before[constraint] = (0, 0) if cell is None else counts_value(cell)
