"""ConstraintState: the shared state of a fleet as a single CRDT.

The types are views over the same rows. Each write names its writer; a `GossipNode` writes as its replica.
"""

from collections.abc import Callable, Sequence
from functools import cached_property

from constraint_crdt.crdt.cells import make_cell, read_cell
from constraint_crdt.crdt.clock import Merge, VectorClock
from constraint_crdt.crdt.digest import StateHash
from constraint_crdt.crdt.replica import Replica, check_id, writer
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.model import html_fields
from constraint_crdt.types.bloom import BloomCRDT, Blooms, BloomShape
from constraint_crdt.types.counters import ConstraintGCounter, PNCounters
from constraint_crdt.types.decay import MAX_SKEW, Ages, DecayCounter
from constraint_crdt.types.definition import ADD, Labels, check_labels
from constraint_crdt.types.increments import RoomIncrements
from constraint_crdt.types.nodes import NODE, AuditLog, NodeValue, Retirements, node_value
from constraint_crdt.types.orset import ConstraintORSet
from constraint_crdt.types.rates import DecayConstraintState
from constraint_crdt.types.register import EisensteinRegister, Position
from constraint_crdt.types.sketch import DELTA, EPSILON, SketchCRDT, Sketches, SketchShape
from constraint_crdt.types.tiles import FleetTiles
from constraint_crdt.types.variables import MeasuredVariables
from constraint_crdt.types.verdicts import ConstraintVerdicts
from constraint_crdt.types.view import no_time

NODE_KEY = ""


class ConstraintState(Merge):
    """Active constraints, counts, position and descriptions of nodes. Readings are O(1) unless stated otherwise."""

    def __init__(
        self,
        rows: Rows | None = None,
        *,
        now: Callable[[], int] = no_time,
        own_time: Callable[[], int] | None = None,
        max_skew: float = MAX_SKEW,
    ) -> None:
        """`now`: the time in ns since the epoch, for readings with a time. Left out, time stands still.

        `own_time`: the clock of this machine, for the ages of decaying values, where `now` follows other clocks too. `max_skew`:
        seconds that the writer of such a value may be ahead without being counted.
        """
        self.now = now
        """The clock of all readings."""
        self.rows = Rows() if rows is None else rows
        """The cells themselves."""
        self.constraints = ConstraintORSet(self.rows, now=now)
        """Which constraints are active, with their definitions."""
        self.metrics = ConstraintGCounter(self.rows)
        """How often they held and were violated, where."""
        self.ages = Ages(self.rows, now if own_time is None else own_time, max_skew)
        """How old decaying values are."""
        self.register = EisensteinRegister(self.rows)
        """The position's register."""
        self.retirements = Retirements(self.rows)
        """Which lives, and which whole nodes, are over."""

    # Made when they are first asked for: a fleet of thousands in one process uses few of them.

    @cached_property
    def rates(self) -> DecayConstraintState:
        """How often constraints held and were violated lately, where."""
        return DecayConstraintState(rows=self.rows, ages=self.ages)

    @cached_property
    def counters(self) -> PNCounters:
        """Counters with increments and decrements, by name."""
        return PNCounters(self.rows)

    @cached_property
    def tiles(self) -> FleetTiles:
        """The tiles, by room and id."""
        return FleetTiles(self.rows, now=self.now)

    @cached_property
    def sketches(self) -> Sketches:
        """The sketches by name."""
        return Sketches(self.rows)

    @cached_property
    def blooms(self) -> Blooms:
        """The Bloom filters by name."""
        return Blooms(self.rows)

    @cached_property
    def increments(self) -> RoomIncrements:
        """The counts of foreign nodes in rooms, from numbered increments."""
        return RoomIncrements(self.rows)

    @cached_property
    def verdicts(self) -> ConstraintVerdicts:
        """The state of each active constraint on each node in service, as told by the nodes."""
        return ConstraintVerdicts(self.rows, retirements=self.retirements, active_only=True)

    @cached_property
    def variables(self) -> MeasuredVariables:
        """The variables that each node in service measures, with their kinds."""
        return MeasuredVariables(self.rows, retirements=self.retirements)

    @cached_property
    def audit(self) -> AuditLog:
        """Who caused the changes, where and when."""
        return AuditLog(self.rows)

    @property
    def position(self) -> Position | None:
        """The fleet's position, or None before the first write."""
        return self.register.position

    def decay(self, name: str, half_life: float) -> DecayCounter:
        """A decaying counter: half of the recorded amount goes in each half-life, in seconds.

        Raises `TypeError` for a half-life of another type, and `ConstraintCrdtError` for a half-life or a name out of bounds.
        """
        return DecayCounter(half_life, name=check_id(name, "the name of a counter"), rows=self.rows, ages=self.ages)

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
        """Equal where the standing definitions are equal, independent of counts and time."""
        return self.rows.kind_hash(ADD)

    @property
    def nodes(self) -> dict[str, NodeValue]:
        """The description of each node: software, wire version, endpoints. Of several lives the life with the most writes
        counts. O(nodes)."""
        cells = sorted(self.rows.each(NODE), key=lambda cell: self.rows.seq(cell.replica))
        return {cell.replica.node_id: node_value(cell) for cell in cells}

    def describe(
        self, software: str, wire: int, endpoints: Sequence[str] = (), labels: Labels = (), *, node: str | Replica
    ) -> None:
        """Describe a node: its software, wire version, endpoints and labels. Writes a cell only for a changed description.

        Raises `ConstraintCrdtError` for a description that peers would refuse.
        """
        replica = writer(node)
        value: list[object] = [software, wire, list(endpoints), check_labels(labels)]
        cell = read_cell(make_cell(NODE, NODE_KEY, value if value[-1] else value[:-1]).data)
        standing = self.rows.get(NODE, NODE_KEY, replica)
        if standing is None or standing.data != cell.data:
            self.rows.write(replica, cell)

    def sketch(self, name: str, epsilon: float = EPSILON, delta: float = DELTA) -> SketchCRDT:
        """The sketch of this name; the first record begins it.

        Raises `ConstraintCrdtError` for a name with other dimensions, for values out of bounds, and beyond the number of
        sketches.
        """
        return self.sketches.open(name, SketchShape.of(epsilon, delta))

    def bloom(self, name: str, expected_items: int, fp_rate: float) -> BloomCRDT:
        """The Bloom filter of this name, which the first insertion begins. Raises as `sketch` does."""
        return self.blooms.open(name, BloomShape.of(expected_items, fp_rate))

    def record(self, node: str | Replica, satisfied: int = 0, violated: int = 0, *, constraint: str | None = None) -> None:
        """Count evaluations of a node, of a constraint or of none in particular. Raises as `ConstraintGCounter.record` does."""
        self.metrics.record(node, satisfied, violated, constraint=constraint)

    def merge(self, other: "ConstraintState") -> bool:
        return self.rows.merge(other.rows)

    def merged(self, other: "ConstraintState") -> "ConstraintState":
        result = ConstraintState(self.rows.copy(), now=self.now, own_time=self.ages.clock, max_skew=self.ages.max_skew)
        result.ages.keep_arrivals(self.ages)
        result.merge(other)
        return result

    def subsumes(self, other: "ConstraintState") -> bool:
        return self.clock.subsumes(other.clock)

    def __eq__(self, other: object) -> bool:
        return self.state_hash == other.state_hash if isinstance(other, ConstraintState) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # mutable

    def _repr_html_(self) -> str:
        """Tables of the readings and of the active constraints, for notebooks."""
        total = self.metrics.total
        fields = [
            ("active constraints", len(self.constraints)),
            ("satisfied", total.satisfied),
            ("violated", total.violated),
            ("satisfaction rate", self.satisfaction_rate),
            ("position", self.position),
        ]
        return html_fields("Constraint state", fields) + self.constraints._repr_html_()

    def __repr__(self) -> str:
        return (
            f"ConstraintState({len(self.constraints)} constraints, {self.metrics.total_satisfied} satisfied, "
            f"{self.metrics.total_violations} violated, position={self.position})"
        )
