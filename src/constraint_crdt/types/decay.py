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

Rates: recent evaluations of constraints, as counts that halve with each half-life, at several half-lives side by side.

A cell holds, for a constraint (or, under "", for none in particular), the decayed evaluations of its writer as of its timestamp.
A reading lets each row decay up to now and sums the rows. See `decay` for the ages of cells and for the wire form.

A half-life can be read where it was tracked at the time of the evaluations: the others do not determine it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import fsum, isfinite, log
from typing import Final, NamedTuple, Self

import msgspec

from constraint_crdt.crdt.cells import Cell, Key, make_cell, register, removals_of, require, require_counts, value_of
from constraint_crdt.crdt.clock import Replica, check_id, writer
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

    def _with_rows(self, rows: Rows) -> Self:
        return type(self)(self._half_life, name=self._name, rows=rows, ages=self._ages.copy(rows))

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

    def _with_rows(self, rows: Rows) -> Self:
        return type(self)(self._half_lives, rows=rows, ages=self._ages.copy(rows))

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
