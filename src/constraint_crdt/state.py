"""ConstraintState: everything a fleet shares, as one CRDT.

The types are views over one set of rows. Who writes is named with each write; a `GossipNode` writes as its replica.
"""

from collections.abc import Callable, Sequence

from constraint_crdt.core.cells import ADD, NODE, NodeValue, make_cell, node_value, read_cell
from constraint_crdt.core.clock import VectorClock
from constraint_crdt.core.digest import StateHash
from constraint_crdt.core.merge import Merge
from constraint_crdt.core.replica import Replica
from constraint_crdt.core.rows import Rows
from constraint_crdt.types.counter import ConstraintGCounter
from constraint_crdt.types.orset import ConstraintORSet
from constraint_crdt.types.register import EisensteinRegister, Position
from constraint_crdt.types.retirement import Retirements
from constraint_crdt.types.view import writer

NODE_KEY = ""


def _no_time() -> int:
    return 0


class ConstraintState(Merge):
    """Active constraints, counts, position and what nodes say of themselves. Readings are O(1) unless they say otherwise."""

    __slots__ = ("constraints", "metrics", "now", "register", "retirements", "rows")

    def __init__(self, rows: Rows | None = None, *, now: Callable[[], int] = _no_time) -> None:
        """`now`: the time in ns since the epoch, for the readings that depend on it. Without it no time ever passes."""
        self.now = now
        """The time that readings go by."""
        self.rows = Rows() if rows is None else rows
        """The cells themselves."""
        self.constraints = ConstraintORSet(self.rows)
        """Which constraints are active, with their definitions."""
        self.metrics = ConstraintGCounter(self.rows)
        """How often they held and were violated, where."""
        self.register = EisensteinRegister(self.rows)
        """The position's register."""
        self.retirements = Retirements(self.rows)
        """Which lives, and which whole nodes, are over."""

    @property
    def position(self) -> Position | None:
        """The fleet's position, or None while nobody has one."""
        return self.register.position

    @property
    def active_constraint_count(self) -> int:
        """How many constraints are active."""
        return len(self.constraints)

    @property
    def satisfaction_rate(self) -> float:
        """Satisfied over all evaluations; 1.0 when nothing was recorded."""
        total = self.metrics.total
        return total.satisfied / sum(total) if sum(total) else 1.0

    @property
    def clock(self) -> VectorClock:
        """Up to where each replica's row is accounted for. O(rows) after a change."""
        return self.rows.clock

    @property
    def state_hash(self) -> StateHash:
        """Equal exactly where knowledge is equal."""
        return self.rows.state_hash

    @property
    def constraints_hash(self) -> StateHash:
        """Equal where the active definitions are equal, whatever the counts."""
        return self.rows.kind_hash(ADD)

    @property
    def nodes(self) -> dict[str, NodeValue]:
        """What each node says of itself: software, wire version, endpoints. Of several lives the one with the most writes counts,
        for want of a better clue. O(nodes).
        """
        cells = sorted(self.rows.each(NODE), key=lambda cell: self.rows.seq(cell.replica))
        return {cell.replica.node_id: node_value(cell) for cell in cells}

    def describe(self, software: str, wire: int, endpoints: Sequence[str] = (), *, node: str | Replica) -> None:
        """Say of a node what it runs and where it listens: one cell in its row, written only if it says something new.

        Raises `ConstraintCrdtError` for what no peer would take.
        """
        replica = writer(node)
        cell = read_cell(make_cell(NODE, NODE_KEY, [software, wire, list(endpoints)]).data)
        standing = self.rows.get(NODE, NODE_KEY, replica)
        if standing is None or standing.data != cell.data:
            self.rows.write(replica, cell)

    def merge(self, other: "ConstraintState") -> bool:
        return self.rows.merge(other.rows)

    def merged(self, other: "ConstraintState") -> "ConstraintState":
        result = ConstraintState(self.rows.copy(), now=self.now)
        result.merge(other)
        return result

    def subsumes(self, other: "ConstraintState") -> bool:
        return self.clock.subsumes(other.clock)

    def __eq__(self, other: object) -> bool:
        return self.state_hash == other.state_hash if isinstance(other, ConstraintState) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return (
            f"ConstraintState({len(self.constraints)} constraints, {self.metrics.total_satisfied} satisfied, "
            f"{self.metrics.total_violations} violated, position={self.position})"
        )
