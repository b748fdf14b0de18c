"""A counter that forgets: what is recorded halves with each half-life, so recent events weigh more.

A cell holds what is left of everything its writer recorded, as of the time that it states; a reading lets each row decay up to now
and sums the rows (exponentially decayed counts: Cormode, Korn and Tirthapura, 2008). `aging` says whose clock counts.

A counter is its name and its half-life. Those of one name share a cell in each row and know nothing of each other.
"""

from collections.abc import Callable
from math import fsum, isfinite
from typing import Self

from constraint_crdt.core.cells import Cell, make_cell, value_of
from constraint_crdt.core.limits import HALF_LIVES, MAX_COUNT
from constraint_crdt.core.replica import Replica, check_id
from constraint_crdt.core.rows import Rows
from constraint_crdt.core.values import DECAY, DecayValue
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.types.aging import LN2, MAX_SKEW, Ages, AgingView, check_half_life, check_sum, left_of, short
from constraint_crdt.types.view import no_time, writer

NAMELESS = ""
"""The name of a counter that stands alone, unless it is given one. No counter of a state has it."""


class DecayCounter(AgingView):
    """One decaying counter. Readings are O(rows that recorded)."""

    KINDS = (DECAY,)

    def __init__(
        self,
        half_life: float,
        *,
        name: str = NAMELESS,
        rows: Rows | None = None,
        now: Callable[[], int] = no_time,
        max_skew: float = MAX_SKEW,
        ages: Ages | None = None,
    ) -> None:
        """`half_life`: seconds. `name`: tells it from others in the same rows. `now`: this machine's clock, ns since the epoch.

        `max_skew`: seconds that a writer may be ahead of it without being counted in `ahead`. `ages`: what keeps the ages of the
        cells of `rows`, if something does already; its clock and bound count then.
        Raises `TypeError` for a half-life that is no number, and `ConstraintCrdtError` for one, or a name, out of bounds.
        """
        self._half_life = check_half_life(half_life)
        self._name = name and check_id(name, "the name of a counter")
        rows = Rows() if rows is None else rows
        super().__init__(rows, Ages(rows, now, max_skew) if ages is None else ages)

    def merged(self, other: Self) -> Self:
        rows = self._rows.copy()
        result = type(self)(self._half_life, name=self._name, rows=rows, ages=self._ages.twin(rows))
        result.merge(other)
        return result

    def __eq__(self, other: object) -> bool:
        """Equal if they count the same and know the same, whatever the time makes of it."""
        if not isinstance(other, DecayCounter):
            return NotImplemented
        return (self._name, self._half_life, self._known()) == (other._name, other._half_life, other._known())

    __hash__ = None  # type: ignore[assignment]  # mutable

    def _known(self) -> set[tuple[Replica, int, bytes]]:
        return {(cell.replica, cell.seq, cell.data) for cell in self._rows.held(DECAY, self._name)}

    @property
    def name(self) -> str:
        """What the counter is called."""
        return self._name

    @property
    def half_life(self) -> float:
        """Seconds in which half of a value goes."""
        return self._half_life

    def value(self) -> float:
        """What is left now of all that was recorded."""
        now = self._ages.look()
        return fsum(self._left(cell, now) for cell in self._rows.held(DECAY, self._name))

    def node_value(self, node_id: str) -> float:
        """What is left now of what one node recorded."""
        return self.by_node().get(node_id, 0.0)

    def by_node(self) -> dict[str, float]:
        """What is left now of what each node recorded, in order of the nodes' names."""
        now = self._ages.look()
        found: dict[str, list[float]] = {}
        for cell in self._rows.held(DECAY, self._name):
            found.setdefault(cell.replica.node_id, []).append(self._left(cell, now))
        return {node: fsum(parts) for node, parts in sorted(found.items())}

    def rate(self) -> float:
        """Per second: what would have to be recorded each second to hold the value where it is (value * ln 2 / half-life)."""
        return self.value() * LN2 / self._half_life

    def record(self, amount: float = 1.0, *, node: str | Replica) -> None:
        """Add to it, now.

        Raises `TypeError` for what is no number, `ValueError` for one that is not finite and above 0, and `ConstraintCrdtError` if
        the value would exceed 2**63 - 1, the name would be one more than `Limits.counters`, or the half-life one more than the
        writer's cell may have side by side.
        """
        amount, replica = _amount(amount), writer(node)
        now = self._ages.stamp()
        standing = self._rows.get(DECAY, self._name, replica)
        if standing is None:
            self._check_room()
        values = {} if standing is None else self._all_left(standing, now)
        values[self._half_life] = check_sum(values.get(self._half_life, 0.0) + amount)
        if len(values) > HALF_LIVES:
            raise ConstraintCrdtError(f"a decaying counter has at most {HALF_LIVES} half-lives side by side: use one of them")
        pairs = [[short(half_life), short(value)] for half_life, value in sorted(values.items())]
        self._rows.write(replica, make_cell(DECAY, self._name, [now, pairs]))

    def _check_room(self) -> None:
        known, most = self._rows.table(DECAY), self._rows.limits.counters
        if self._name != NAMELESS and self._name not in known and len(known) - (NAMELESS in known) >= most:
            raise ConstraintCrdtError(f"there are {most} decaying counters, as many as this node is set to hold: use one of them")

    def _left(self, cell: Cell, now: int) -> float:
        """What is left in one row; the first value that a cell has at this half-life counts."""
        value: DecayValue = value_of(cell)
        for each in value.values:
            if each.half_life == self._half_life:
                return left_of(each.value, self._ages.age(cell, value.time, now), each.half_life)
        return 0.0

    def _all_left(self, cell: Cell, now: int) -> dict[float, float]:
        """What is left in one cell at each of its half-lives."""
        value: DecayValue = value_of(cell)
        age = self._ages.age(cell, value.time, now)
        return {each.half_life: left_of(each.value, age, each.half_life) for each in reversed(value.values)}

    def __repr__(self) -> str:
        return f"DecayCounter({self._half_life:g}, name={self._name!r}, value={self.value():g})"


def _amount(amount: float) -> float:
    if not isinstance(amount, int | float):
        raise TypeError(f"what is recorded is a number, not {amount!r}")
    if not amount > 0 or (isinstance(amount, float) and not isfinite(amount)):  # NaN is not above 0
        raise ValueError(f"what is recorded is a finite number above 0, not {amount!r}")
    if amount > MAX_COUNT:
        raise ConstraintCrdtError("a decaying value cannot exceed 2**63 - 1")
    return float(amount)
