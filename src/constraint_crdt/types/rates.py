"""Rates: recent evaluations of constraints, as counts that halve with each half-life, at several half-lives side by side.

A cell holds, for a constraint (or, under "", for none in particular), the decayed evaluations of its writer as of its timestamp.
A reading lets each row decay up to now and sums the rows. See `decay` for the ages of cells and for the wire form.

A half-life can be read where it was tracked at the time of the evaluations: the others do not determine it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import fsum
from typing import Final, NamedTuple, Self

from constraint_crdt.crdt.cells import Cell, make_cell, removals_of, value_of
from constraint_crdt.crdt.digest import Replica, check_id, writer
from constraint_crdt.crdt.limits import HALF_LIVES, whole_number
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.errors import ConstraintCrdtError, CountTooLarge, InvalidValue
from constraint_crdt.types.decay import (
    MAX_SKEW,
    RATE,
    Ages,
    DecayView,
    RateValue,
    check_half_life,
    check_sum,
    compact_number,
    decayed,
)
from constraint_crdt.types.view import no_time

DEFAULT_HALF_LIVES: Final = (60.0, 300.0, 3600.0)
"""Seconds."""

NODE_KEY = ""

Pair = tuple[float, float]
"""Satisfied and violated evaluations, as far as they are left."""


class Rates(NamedTuple):
    """Satisfied and violated evaluations, recent ones in full and older ones decayed."""

    satisfied: float = 0.0
    violated: float = 0.0
    violated_share: float | None = None
    """Violated over all; None where nothing is left of either."""


def rates_of(pairs: Iterable[Pair]) -> Rates:
    """The sum over several places, independent of the order."""
    parts = list(pairs)
    satisfied, violated = fsum(pair[0] for pair in parts), fsum(pair[1] for pair in parts)
    every = satisfied + violated
    return Rates(satisfied, violated, violated / every if every else None)


def check_half_lives(half_lives: Iterable[float]) -> tuple[float, ...]:
    """The half-lives, shortest first.

    Raises `TypeError` for a value that is no number, and `ConstraintCrdtError` for a half-life out of bounds, for none, too many,
    or a repeated half-life.
    """
    found = sorted(check_half_life(each) for each in half_lives)
    if not 0 < len(found) <= HALF_LIVES or len(set(found)) < len(found):
        raise ConstraintCrdtError(f"half-lives are 1 to {HALF_LIVES} different numbers of seconds")
    return tuple(found)


class DecayConstraintState(DecayView):
    """Recent evaluations per constraint and node. A reading is O(rows summed), over all constraints O(their cells)."""

    KINDS = (RATE,)

    def __init__(
        self,
        half_lives: Iterable[float] = DEFAULT_HALF_LIVES,
        *,
        rows: Rows | None = None,
        now: Callable[[], int] = no_time,
        max_skew: float = MAX_SKEW,
        ages: Ages | None = None,
    ) -> None:
        """`half_lives`: seconds, 1 to 8 of them, at which evaluations are tracked and can be read. The rest as in `DecayCounter`.

        Raises as `check_half_lives` does.
        """
        self.track(half_lives)
        rows = Rows() if rows is None else rows
        super().__init__(rows, Ages(rows, now, max_skew) if ages is None else ages)

    def merged(self, other: Self) -> Self:
        rows = self._rows.copy()
        result = type(self)(self._half_lives, rows=rows, ages=self._ages.copy(rows))
        result.merge(other)
        return result

    @property
    def half_lives(self) -> tuple[float, ...]:
        """The half-lives tracked here, in seconds, shortest first."""
        return self._half_lives

    @property
    def recorded(self) -> frozenset[str]:
        """The constraints with a cell, and "" for evaluations of none in particular. O(these)."""
        return frozenset(map(str, self._rows.table(RATE)))

    def track(self, half_lives: Iterable[float]) -> None:
        """Track these half-lives from now on. A new half-life begins at zero. Raises as `check_half_lives` does."""
        self._half_lives = check_half_lives(half_lives)

    # --- reading -------------------------------------------------------------------------------------------------------

    def rates(self, half_life: float, constraint: str | None = None, node: str | None = None) -> Rates:
        """The decayed evaluations now, at a half-life, of a constraint or of all, on a node or on all. "" stands for evaluations
        of no constraint in particular.

        Raises `ConstraintCrdtError`, with the tracked half-lives, for an untracked half-life.
        """
        half_life, now = self.tracked(half_life), self._ages.read_clock()
        cells = self._rows.each(RATE) if constraint is None else self._rows.held(RATE, constraint)
        return rates_of(self._left(cell, half_life, now) for cell in cells if node is None or cell.replica.node_id == node)

    def by_constraint(self, half_life: float, node: str | None = None) -> dict[str, Rates]:
        """As `rates`, for each constraint with a cell; "" for none in particular. Ordered by id."""
        half_life = self.tracked(half_life)
        return {key: self.rates(half_life, key, node) for key in sorted(self.recorded)}

    def by_node(self, half_life: float, constraint: str | None = None) -> dict[str, Rates]:
        """As `rates`, for each node with a cell. Ordered by name."""
        half_life, now = self.tracked(half_life), self._ages.read_clock()
        found: dict[str, list[Pair]] = {}
        for cell in self._rows.each(RATE) if constraint is None else self._rows.held(RATE, constraint):
            found.setdefault(cell.replica.node_id, []).append(self._left(cell, half_life, now))
        return {node: rates_of(pairs) for node, pairs in sorted(found.items())}

    def untracked_by(self, half_life: float) -> list[str]:
        """The nodes with evaluations missing in the readings at this half-life, since they did not track it; in order."""
        return sorted(
            {
                cell.replica.node_id
                for cell in self._rows.each(RATE)
                if all(each.half_life != half_life for each in value_of(cell).values)
            }
        )

    def tracked(self, half_life: float) -> float:
        """The half-life. Raises `ConstraintCrdtError` for an untracked half-life."""
        half_life = check_half_life(half_life)
        if half_life not in self._half_lives:
            tracked = ", ".join(f"{each:g}" for each in self._half_lives)
            raise ConstraintCrdtError(f"no half-life of {half_life:g} s is tracked here, but {tracked} s: ask for one of these")
        return half_life

    # --- writing -------------------------------------------------------------------------------------------------------

    def record(self, node: str | Replica, satisfied: int = 0, violated: int = 0, *, constraint: str | None = None) -> None:
        """Count evaluations made now, of a constraint or of none in particular. Zero counts write nothing.

        Raises `TypeError` for a number that is not whole, `ValueError` for a negative number and `ConstraintCrdtError` for a sum
        beyond 2**63 - 1.
        """
        self.record_all(node, {constraint: (satisfied, violated)})

    def record_all(self, node: str | Replica, counts: Mapping[str | None, tuple[int, int]]) -> None:
        """Count evaluations of several constraints (None: of none in particular) as a transaction. Raises as `record` does."""
        checked = {key: (whole_number(each[0], "a count"), whole_number(each[1], "a count")) for key, each in counts.items()}
        if any(min(each) < 0 for each in checked.values()):
            raise InvalidValue("the number of evaluations to record cannot be negative")
        times = len(self._half_lives)
        self.record_left(node, {constraint: [each] * times for constraint, each in checked.items() if any(each)})

    def record_left(self, node: str | Replica, left: Mapping[str | None, Sequence[Pair]]) -> None:
        """Count evaluations made before: their decayed counts at each of `half_lives`, in that order, by constraint.

        A single transaction. Raises `ConstraintCrdtError` for a sum beyond 2**63 - 1.
        """
        replica, now = writer(node), self._ages.timestamp()
        cells = [self._counted(replica, constraint, pairs, now) for constraint, pairs in left.items()]
        if cells:
            self._rows.write_all(replica, cells)

    def record_each_left(
        self, node: str | Replica, left: Mapping[str | None, Sequence[Pair]]
    ) -> dict[str | None, ConstraintCrdtError]:
        """As `record_left`, but a sum beyond 2**63 - 1 is refused alone: all others are counted, as a single transaction.

        Returns the error of each refused constraint, which is not counted.
        """
        replica, now = writer(node), self._ages.timestamp()
        cells: list[Cell] = []
        refused: dict[str | None, ConstraintCrdtError] = {}
        for constraint, pairs in left.items():
            try:
                cells.append(self._counted(replica, constraint, pairs, now))
            except CountTooLarge as error:
                refused[constraint] = error
        if cells:
            self._rows.write_all(replica, cells)
        return refused

    def _counted(self, replica: Replica, constraint: str | None, pairs: Sequence[Pair], now: int) -> Cell:
        """The cell with the counts added."""
        key = NODE_KEY if constraint is None else check_id(constraint, "a constraint id")
        standing = self._rows.get(RATE, key, replica)
        try:
            return self._cell(key, [pairs, *([] if standing is None else [self._all_left(standing, now)])], now)
        except CountTooLarge as error:
            raise CountTooLarge(f"{error}, here that of constraint {constraint!r}" if constraint else str(error)) from None

    def fold(self, ids: Iterable[str], *, node: str | Replica) -> int:
        """Move the writer's evaluations of these constraints to those of none in particular, and remove their cells; returns how
        many. For constraints removed long ago: sums stay, and evaluations without room in the sum stay as they are. A single
        transaction."""
        replica, now = writer(node), self._ages.timestamp()
        standing = self._rows.get(RATE, NODE_KEY, replica)
        before = [] if standing is None else [self._all_left(standing, now)]
        cells = [cell for id_ in dict.fromkeys(ids) if id_ and (cell := self._rows.get(RATE, id_, replica)) is not None]
        found = sorted(((self._all_left(cell, now), cell) for cell in cells), key=lambda each: max(map(max, each[0])))
        while found:
            try:
                total = self._cell(NODE_KEY, [*before, *(left for left, _ in found)], now)
            except CountTooLarge:
                found.pop()  # the largest
            else:
                self._rows.write_all(replica, [total, *removals_of(cell for _, cell in found)])
                break
        return len(found)

    def _cell(self, key: str, parts: Sequence[Sequence[Pair]], now: int) -> Cell:
        """The cell with the sum of several parts, each a pair per half-life."""
        sums = [(check_sum(fsum(s for s, _ in pairs)), check_sum(fsum(v for _, v in pairs))) for pairs in zip(*parts, strict=True)]
        values = [
            [compact_number(h), compact_number(s), compact_number(v)] for h, (s, v) in zip(self._half_lives, sums, strict=True)
        ]
        return make_cell(RATE, key, [now, values])

    def _left(self, cell: Cell, half_life: float, now: int) -> Pair:
        """The decayed pair in a cell; the first pair at this half-life counts."""
        value: RateValue = value_of(cell)
        for each in value.values:
            if each.half_life == half_life:
                age = self._ages.age(cell, value.time, now)
                return decayed(each.satisfied, age, half_life), decayed(each.violated, age, half_life)
        return 0.0, 0.0

    def _all_left(self, cell: Cell, now: int) -> list[Pair]:
        return [self._left(cell, half_life, now) for half_life in self._half_lives]

    def __repr__(self) -> str:
        shortest = self.half_lives[0]
        now = self.rates(shortest)
        return f"DecayConstraintState({now.satisfied:g} satisfied, {now.violated:g} violated at {shortest:g} s)"
