"""Decaying values: their ages, and the decaying counter.

| kind | key | value |
|---|---|---|
| 8 DECAY | counter name | `[time, [[half-life in s, value], …]]` |
| 9 RATE | constraint id | `[time, [[half-life in s, satisfied, violated], …]]` |

A cell holds the decayed sum of all records of its writer, as of its timestamp. A reading lets each row decay up to now and sums
the rows (exponentially decayed counts: Cormode, Korn and Tirthapura, 2008). A counter is its name and its half-life. Counters of
the same name share a cell in each row and are independent otherwise.

The age of a cell is measured by the own clock, which may be set back, while the clocks of writers may be ahead. Rules kept here:

- The age of a cell is the time since its timestamp. The value halves with each half-life.
- A cell with a timestamp in the future counts as written at its arrival. So a writer in the far future can neither freeze its
  value nor raise it.
- After the own clock was set back, a cell now in the future keeps its age from the last look at the clock, and ages on from
  there. Every other cell has the age of its timestamp.
- No age is below 0.

The time of arrival is local knowledge, not part of the state. After a restart the cells of the store count as arriving then.
"""

from collections.abc import Callable, Sequence
from math import fsum, isfinite, log
from typing import Final, Self

import msgspec

from constraint_crdt.crdt.cells import Cell, Key, make_cell, register, require, require_counts, value_of
from constraint_crdt.crdt.digest import Replica, check_id, writer
from constraint_crdt.crdt.limits import DURATION_MAX, HALF_LIFE_MIN, HALF_LIVES, ID_BYTES, MAX_COUNT, real_number, whole_number
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.errors import ConstraintCrdtError, CountTooLarge, InvalidValue
from constraint_crdt.types.view import IndexedView, View, no_time

MAX_SKEW: Final = 10.0
"""Seconds: a cell further ahead than this counts as `ahead`."""

SECOND: Final = 1_000_000_000
"""In ns."""

LN2: Final = log(2.0)

DECAY: Final = 8
RATE: Final = 9


class DecayedValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A decaying number at the time of its cell."""

    half_life: float
    """Seconds."""
    value: float


class DecayValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of a DECAY cell: a number at one or more half-lives."""

    time: int
    """ns since the epoch."""
    values: tuple[DecayedValue, ...]


class RatedValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Evaluations of a constraint at a half-life, decayed to the time of their cell."""

    half_life: float
    """Seconds."""
    satisfied: float
    violated: float


class RateValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of a RATE cell."""

    time: int
    """ns since the epoch."""
    values: tuple[RatedValue, ...]


def _check_decayed(time: int, values: Sequence[tuple[float, ...]]) -> None:
    require_counts((time,), "the time of a decaying value")
    require(0 < len(values) <= HALF_LIVES, "the number of half-lives")
    for half_life, *numbers in values:
        require(0.0 < half_life <= DURATION_MAX, "a half-life")  # NaN is in no range
        require(all(0.0 <= number <= float(MAX_COUNT) for number in numbers), "a decaying value")


def _check_decay(_: str, value: DecayValue) -> None:
    _check_decayed(value.time, [(each.half_life, each.value) for each in value.values])


def _check_rate(_: str, value: RateValue) -> None:
    _check_decayed(value.time, [(each.half_life, each.satisfied, each.violated) for each in value.values])


register(DECAY, DecayValue, _check_decay, key_bytes=ID_BYTES)
register(RATE, RateValue, _check_rate, key_bytes=ID_BYTES, removable=True)

_Slot = tuple[int, Key, Replica]


def decayed(value: float, age: float, half_life: float) -> float:
    """A value after `age` seconds: value * 2^(-age / half_life)."""
    return float(value * 2.0 ** (-age / half_life))


def check_half_life(half_life: float) -> float:
    """The half-life as a float. Raises `TypeError` for a value of another type and `ConstraintCrdtError` for a number out of
    bounds."""
    seconds = real_number(half_life, "a half-life")
    if not HALF_LIFE_MIN <= seconds <= DURATION_MAX:  # NaN is in no range
        raise ConstraintCrdtError(f"a half-life is from {HALF_LIFE_MIN:g} to {DURATION_MAX:.0f} seconds, not {half_life!r}")
    return seconds


def check_sum(value: float) -> float:
    """The value. Raises `CountTooLarge` above the range of a cell."""
    if value > float(MAX_COUNT):
        raise CountTooLarge("a decaying value cannot exceed 2**63 - 1")
    return value


def compact_number(number: float) -> int | float:
    """The number in its shortest encoding."""
    return int(number) if number.is_integer() and number < 2**53 else number


class Ages(IndexedView):
    """The ages of all decaying cells of some rows."""

    KINDS = (DECAY, RATE)

    def __init__(self, rows: Rows, now: Callable[[], int], max_skew: float = MAX_SKEW) -> None:
        """`now`: this machine's clock, ns since the epoch. `max_skew`: seconds that a cell may be ahead without being counted.

        Raises `ConstraintCrdtError` for a bound out of range.
        """
        max_skew = real_number(max_skew, "the skew that is tolerated")
        if not 0.0 <= max_skew <= DURATION_MAX:
            raise ConstraintCrdtError(f"the skew that is tolerated is from 0 to {DURATION_MAX:.0f} seconds, not {max_skew!r}")
        self.clock = now
        """This machine's clock."""
        self.max_skew = max_skew
        """Seconds that a cell may be ahead of this clock without being counted."""
        self._since: dict[_Slot, tuple[int, int, int]] = {}
        """(seq, the start of its age, its timestamp) of each cell with an age other than that of its timestamp."""
        self._previous: dict[_Slot, tuple[int, int, int]] = {}
        self._last = 0
        self._latest = 0
        """No cell ages from later on."""
        self._steps_back = 0
        self._worst = 0
        super().__init__(rows)

    def _clear(self) -> None:
        if self._since:  # each cell of each kind is reported anew; times of arrival stay
            self._previous, self._since = self._since, {}

    def _changed(self, old: Cell | None, new: Cell | None) -> None:
        if old is not None:
            self._since.pop(_slot(old), None)
        if new is not None:
            time, now, slot = value_of(new).time, self.read_clock(), _slot(new)
            known = self._previous.get(slot)
            if known is not None and known[0] == new.seq:
                self._since[slot] = (new.seq, min(known[1], time, now), time)
            elif time > now:
                self._since[slot] = (new.seq, now, time)
                self._worst = max(self._worst, time - now)
            self._latest = max(self._latest, min(time, now))

    def read_clock(self) -> int:
        """The time by this clock, after rebasing the cells in the future."""
        now = self.clock()
        if now < self._last:
            self._steps_back += 1
            if now < self._latest:
                self._rebase(now)
        self._last = now
        return now

    def _rebase(self, now: int) -> None:
        """The clock was set back beyond some cells: they keep the ages they had. O(decaying cells)."""
        for kind in self.KINDS:
            for cell in self._rows.each(kind):
                time = value_of(cell).time
                since = self._aged_since(cell, time)
                if since > now:
                    self._since[_slot(cell)] = (cell.seq, now - max(0, self._last - since), time)
        self._latest = now

    def _aged_since(self, cell: Cell, time: int) -> int:
        known = self._since.get(_slot(cell))
        return time if known is None else known[1]

    def timestamp(self) -> int:
        """The timestamp for a new cell. Raises `ConstraintCrdtError` for a time outside of the range of a cell."""
        now = whole_number(self.read_clock(), "a time in ns since the epoch")
        if not 0 <= now <= MAX_COUNT:
            raise ConstraintCrdtError(f"a time is in ns since the epoch and cannot be {now}")
        return now

    def age(self, cell: Cell, time: int, now: int) -> float:
        """The age of a cell with this timestamp, in seconds, with `now` from `read_clock` or `timestamp`."""
        return (now - self._aged_since(cell, time)) / SECOND

    def keep_arrivals(self, other: Self) -> None:
        """Take over earlier times of arrival from another copy of the same rows."""
        for slot, (seq, since, time) in other._since.items():
            known = self._since.get(slot)
            if known is not None and known[0] == seq:
                self._since[slot] = (seq, min(since, known[1]), time)

    def copy(self, rows: Rows) -> "Ages":
        """The ages over a copy of the rows, by the same clock."""
        twin = Ages(rows, self.clock, self.max_skew)
        twin.keep_arrivals(self)
        return twin

    @property
    def ahead(self) -> int:
        """The number of cells with a timestamp now more than the tolerated skew ahead of this clock. O(cells that were ahead)."""
        bound = self.read_clock() + int(self.max_skew * SECOND)
        return sum(time > bound for _, _, time in self._since.values())

    @property
    def worst_skew(self) -> float:
        """Seconds: the largest lead of a cell over this clock at its arrival; 0.0 if none was ahead."""
        return self._worst / SECOND

    @property
    def steps_back(self) -> int:
        """How often this clock was found to have been set back."""
        return self._steps_back


def _slot(cell: Cell) -> _Slot:
    return cell.kind, cell.key, cell.replica


class DecayView(View):
    """A view over decaying cells, with the findings about clocks that are off."""

    def __init__(self, rows: Rows, ages: Ages) -> None:
        super().__init__(rows)
        self._ages = ages

    @property
    def ahead(self) -> int:
        """The number of decaying cells with a timestamp now more than the tolerated skew ahead of this clock."""
        return self._ages.ahead

    @property
    def worst_skew(self) -> float:
        """Seconds: the largest lead of a cell over this clock at its arrival; 0.0 if none was ahead."""
        return self._ages.worst_skew

    @property
    def steps_back(self) -> int:
        """How often this clock was found to have been set back."""
        return self._ages.steps_back


NAMELESS = ""
"""The name of a counter outside of a state. No counter of a state has this name."""


class DecayCounter(DecayView):
    """A decaying counter. Readings are O(rows with a record)."""

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
        """`half_life`: seconds. `name`: the name within the rows. `now`: this machine's clock, ns since the epoch.

        `max_skew`: seconds that a writer may be ahead without being counted in `ahead`. `ages`: the existing ages over `rows`, if
        any; they bring clock and bound. Raises `TypeError` for a half-life of another type, and `ConstraintCrdtError` for a
        half-life or a name out of bounds.
        """
        self._half_life = check_half_life(half_life)
        self._name = name and check_id(name, "the name of a counter")
        rows = Rows() if rows is None else rows
        super().__init__(rows, Ages(rows, now, max_skew) if ages is None else ages)

    def merged(self, other: Self) -> Self:
        rows = self._rows.copy()
        result = type(self)(self._half_life, name=self._name, rows=rows, ages=self._ages.copy(rows))
        result.merge(other)
        return result

    def __eq__(self, other: object) -> bool:
        """Equal for the same name, half-life and cells, independent of time."""
        if not isinstance(other, DecayCounter):
            return NotImplemented
        return (self._name, self._half_life, self._known()) == (other._name, other._half_life, other._known())

    __hash__ = None  # type: ignore[assignment]  # mutable

    def _known(self) -> set[tuple[Replica, int, bytes]]:
        return {(cell.replica, cell.seq, cell.data) for cell in self._rows.held(DECAY, self._name)}

    @property
    def name(self) -> str:
        """The name of the counter."""
        return self._name

    @property
    def half_life(self) -> float:
        """Seconds in which half of a value goes."""
        return self._half_life

    def value(self) -> float:
        """The decayed sum of all records, now."""
        now = self._ages.read_clock()
        return fsum(self._left(cell, now) for cell in self._rows.held(DECAY, self._name))

    def node_value(self, node_id: str) -> float:
        """The decayed sum of the records of a node, now."""
        return self.by_node().get(node_id, 0.0)

    def by_node(self) -> dict[str, float]:
        """The decayed sum of the records of each node, now, ordered by node."""
        now = self._ages.read_clock()
        found: dict[str, list[float]] = {}
        for cell in self._rows.held(DECAY, self._name):
            found.setdefault(cell.replica.node_id, []).append(self._left(cell, now))
        return {node: fsum(parts) for node, parts in sorted(found.items())}

    def rate(self) -> float:
        """Per second: the constant rate of records with this value in equilibrium (value * ln 2 / half-life)."""
        return self.value() * LN2 / self._half_life

    def record(self, amount: float = 1.0, *, node: str | Replica) -> None:
        """Add an amount, now.

        Raises `TypeError` for an amount that is no number, `ValueError` for an amount that is not finite and above 0, and
        `ConstraintCrdtError` for a value beyond 2**63 - 1, a name beyond `Limits.counters`, or a half-life too many in the
        writer's cell.
        """
        amount, replica = _amount(amount), writer(node)
        now = self._ages.timestamp()
        standing = self._rows.get(DECAY, self._name, replica)
        if standing is None:
            self._check_room()
        values = {} if standing is None else self._all_left(standing, now)
        values[self._half_life] = check_sum(values.get(self._half_life, 0.0) + amount)
        if len(values) > HALF_LIVES:
            raise ConstraintCrdtError(f"a decaying counter has at most {HALF_LIVES} half-lives side by side: use one of them")
        pairs = [[compact_number(half_life), compact_number(value)] for half_life, value in sorted(values.items())]
        self._rows.write(replica, make_cell(DECAY, self._name, [now, pairs]))

    def _check_room(self) -> None:
        known, most = self._rows.table(DECAY), self._rows.limits.counters
        if self._name != NAMELESS and self._name not in known and len(known) - (NAMELESS in known) >= most:
            raise ConstraintCrdtError(f"there are {most} decaying counters, as many as this node is set to hold: use one of them")

    def _left(self, cell: Cell, now: int) -> float:
        """The decayed value in a row; the first value at this half-life counts."""
        value: DecayValue = value_of(cell)
        for each in value.values:
            if each.half_life == self._half_life:
                return decayed(each.value, self._ages.age(cell, value.time, now), each.half_life)
        return 0.0

    def _all_left(self, cell: Cell, now: int) -> dict[float, float]:
        """The decayed values in a cell, at each of its half-lives."""
        value: DecayValue = value_of(cell)
        age = self._ages.age(cell, value.time, now)
        return {each.half_life: decayed(each.value, age, each.half_life) for each in reversed(value.values)}

    def __repr__(self) -> str:
        return f"DecayCounter({self._half_life:g}, name={self._name!r}, value={self.value():g})"


def _amount(amount: float) -> float:
    number = real_number(amount, "an amount")
    if not number > 0 or not isfinite(number):  # NaN is not above 0
        raise InvalidValue(f"an amount is a finite number above 0, not {amount!r}")
    if number > MAX_COUNT:
        raise ConstraintCrdtError("a decaying value cannot exceed 2**63 - 1")
    return number
