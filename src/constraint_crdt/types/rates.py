"""How often constraints held and were violated *lately*: counts that halve with each half-life, at several half-lives side by side.

A cell holds, for one constraint (or, under "", for none in particular), what is left of its writer's evaluations as of the time
that it states; a reading lets each row decay up to now and sums the rows. `aging` says whose clock counts.

A half-life is read where it was tracked while evaluations were recorded: it cannot be computed from the others afterwards.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import fsum
from typing import Final, NamedTuple, Self

from constraint_crdt.crdt.cells import Cell, make_cell, removals_of, value_of
from constraint_crdt.crdt.limits import HALF_LIVES, whole_number
from constraint_crdt.crdt.replica import Replica, check_id
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.errors import ConstraintCrdtError
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
from constraint_crdt.types.view import no_time, writer

DEFAULT_HALF_LIVES: Final = (60.0, 300.0, 3600.0)
"""Seconds."""

NODE_KEY = ""

Pair = tuple[float, float]
"""Satisfied and violated evaluations, as far as they are left."""


class Rates(NamedTuple):
    """Evaluations that held and evaluations that did not, the recent ones in full and older ones less and less."""

    satisfied: float = 0.0
    violated: float = 0.0
    violated_share: float | None = None
    """Violated over all; None where nothing is left of either."""


def rates_of(pairs: Iterable[Pair]) -> Rates:
    """The sum of what is left in several places; the same in whatever order they come."""
    parts = list(pairs)
    satisfied, violated = fsum(pair[0] for pair in parts), fsum(pair[1] for pair in parts)
    every = satisfied + violated
    return Rates(satisfied, violated, violated / every if every else None)


def check_half_lives(half_lives: Iterable[float]) -> tuple[float, ...]:
    """The half-lives, shortest first.

    Raises `TypeError` for what is no number, and `ConstraintCrdtError` for one out of bounds, for none, too many, or one twice.
    """
    found = sorted(check_half_life(each) for each in half_lives)
    if not 0 < len(found) <= HALF_LIVES or len(set(found)) < len(found):
        raise ConstraintCrdtError(f"half-lives are 1 to {HALF_LIVES} different numbers of seconds")
    return tuple(found)


class DecayConstraintState(DecayView):
    """Recent evaluations per constraint and node. A reading is O(rows that it sums), one over all constraints O(their cells)."""

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
        """The half-lives that are tracked here, in seconds, shortest first."""
        return self._half_lives

    @property
    def recorded(self) -> frozenset[str]:
        """The constraints that have a cell, with "" if evaluations of none in particular have one. O(these)."""
        return frozenset(map(str, self._rows.table(RATE)))

    def track(self, half_lives: Iterable[float]) -> None:
        """Track these from now on. One that was not tracked before begins at nothing. Raises as `check_half_lives` does."""
        self._half_lives = check_half_lives(half_lives)

    # --- reading -------------------------------------------------------------------------------------------------------

    def rates(self, half_life: float, constraint: str | None = None, node: str | None = None) -> Rates:
        """What is left now, at one half-life, of the evaluations of one constraint or of all, on one node or on all. Those of none
        in particular are under "".

        Raises `ConstraintCrdtError`, which names the half-lives that are tracked here, for another one.
        """
        half_life, now = self.tracked(half_life), self._ages.read_clock()
        cells = self._rows.each(RATE) if constraint is None else self._rows.held(RATE, constraint)
        return rates_of(self._left(cell, half_life, now) for cell in cells if node is None or cell.replica.node_id == node)

    def by_constraint(self, half_life: float, node: str | None = None) -> dict[str, Rates]:
        """As `rates`, for each constraint that has a cell; under "" of none in particular. Ordered by id."""
        half_life = self.tracked(half_life)
        return {key: self.rates(half_life, key, node) for key in sorted(self.recorded)}

    def by_node(self, half_life: float, constraint: str | None = None) -> dict[str, Rates]:
        """As `rates`, for each node that has a cell. Ordered by name."""
        half_life, now = self.tracked(half_life), self._ages.read_clock()
        found: dict[str, list[Pair]] = {}
        for cell in self._rows.each(RATE) if constraint is None else self._rows.held(RATE, constraint):
            found.setdefault(cell.replica.node_id, []).append(self._left(cell, half_life, now))
        return {node: rates_of(pairs) for node, pairs in sorted(found.items())}

    def untracked_by(self, half_life: float) -> list[str]:
        """The nodes of which some evaluations are not in the readings at this half-life, as they did not track it; in order."""
        return sorted(
            {
                cell.replica.node_id
                for cell in self._rows.each(RATE)
                if all(each.half_life != half_life for each in value_of(cell).values)
            }
        )

    def tracked(self, half_life: float) -> float:
        """The half-life, or raise `ConstraintCrdtError` if it is not tracked here."""
        half_life = check_half_life(half_life)
        if half_life not in self._half_lives:
            tracked = ", ".join(f"{each:g}" for each in self._half_lives)
            raise ConstraintCrdtError(f"no half-life of {half_life:g} s is tracked here, but {tracked} s: ask for one of these")
        return half_life

    # --- writing -------------------------------------------------------------------------------------------------------

    def record(self, node: str | Replica, satisfied: int = 0, violated: int = 0, *, constraint: str | None = None) -> None:
        """Count evaluations made now, of one constraint or of none in particular. Nothing to count writes nothing.

        Raises `TypeError` for what is no whole number, `ValueError` for a negative one and `ConstraintCrdtError` for a sum beyond
        2**63 - 1.
        """
        self.record_all(node, {constraint: (satisfied, violated)})

    def record_all(self, node: str | Replica, counts: Mapping[str | None, tuple[int, int]]) -> None:
        """Count evaluations of several constraints (None: of none in particular) as one transaction. Raises as `record` does."""
        checked = {key: (whole_number(each[0], "a count"), whole_number(each[1], "a count")) for key, each in counts.items()}
        if any(min(each) < 0 for each in checked.values()):
            raise ValueError("the number of evaluations to record cannot be negative")
        times = len(self._half_lives)
        self.record_left(node, {constraint: [each] * times for constraint, each in checked.items() if any(each)})

    def record_left(self, node: str | Replica, left: Mapping[str | None, Sequence[Pair]]) -> None:
        """Count evaluations made before: what is left of them now at each of `half_lives`, in that order, by constraint.

        One transaction. Raises `ConstraintCrdtError` for a sum beyond 2**63 - 1.
        """
        replica, now = writer(node), self._ages.timestamp()
        cells = []
        for constraint, pairs in left.items():
            key = NODE_KEY if constraint is None else check_id(constraint, "a constraint id")
            standing = self._rows.get(RATE, key, replica)
            cells.append(self._cell(key, [pairs, *([] if standing is None else [self._all_left(standing, now)])], now))
        if cells:
            self._rows.write_all(replica, cells)

    def fold(self, ids: Iterable[str], *, node: str | Replica) -> int:
        """Take what is left of the writer's evaluations of these constraints to those of none in particular, and their cells away;
        returns how many. For constraints that are long gone: sums stay as they are. One transaction.
        """
        replica, now = writer(node), self._ages.timestamp()
        cells = [cell for id_ in ids if id_ and (cell := self._rows.get(RATE, id_, replica)) is not None]
        if not cells:
            return 0
        standing = self._rows.get(RATE, NODE_KEY, replica)
        summed = [self._all_left(cell, now) for cell in (cells if standing is None else [*cells, standing])]
        self._rows.write_all(replica, [self._cell(NODE_KEY, summed, now), *removals_of(cells)])
        return len(cells)

    def _cell(self, key: str, parts: Sequence[Sequence[Pair]], now: int) -> Cell:
        """The cell that says the sum of several parts, each a pair per half-life."""
        sums = [(check_sum(fsum(s for s, _ in pairs)), check_sum(fsum(v for _, v in pairs))) for pairs in zip(*parts, strict=True)]
        values = [
            [compact_number(h), compact_number(s), compact_number(v)] for h, (s, v) in zip(self._half_lives, sums, strict=True)
        ]
        return make_cell(RATE, key, [now, values])

    def _left(self, cell: Cell, half_life: float, now: int) -> Pair:
        """What is left in one cell; the first pair that it has at this half-life counts."""
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
