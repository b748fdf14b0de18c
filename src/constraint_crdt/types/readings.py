"""Shared readings: the last values of the variables that a node shares with the fleet, and when a value is due to be shared.

| kind | key | value |
|---|---|---|
| 40 READING | name of the variable | `[value, time, every]`, a default `every` left out; `[nil, time]` for a withdrawn reading |

`value` is a bool, a text, a number, or `[mantissa, exponent]`: the number mantissa x 10^exponent, where that is shorter. `time` is
the hybrid time of the measurement in tenths of a second since 2026-01-01, `every` the longest time between two cells in tenths of a
second, `EVERY` by default. Rules kept here:

- A node has at most `MOST_READINGS` readings, each in a cell of its own, which the next value overwrites. No cell is removed: 0.1.0
  refuses a removal of a kind that it does not know. A withdrawn reading has an empty value.
- A reading counts for `LIFETIME` times its `every`, in hybrid time. It is shown for longer, as aged.
- Of several lives of a node, the cell with the latest time counts, then the order of the replicas. A life writes no time before
  that of a former life, nor before its own last one.
- A value of a form that is not known here, from a later version, reads as missing. Further elements are ignored.
- The readings of retired nodes are left out. Readings are updated with each cell, and never recomputed.
- A value is due if it moved by more than the deadband, or if the last told value is `every` old. Of a variable that moves all the
  time, one value is told each `PACE`. The time is an argument.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from decimal import Decimal
from types import MappingProxyType
from typing import Final, NamedTuple

import msgspec

from constraint_crdt.crdt.cells import Cell, make_cell, register, require, value_of
from constraint_crdt.crdt.clock import SECOND
from constraint_crdt.crdt.digest import Replica, check_id, writer
from constraint_crdt.crdt.limits import DURATION_MAX, ID_BYTES, MAX_COUNT, real_number
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.types.nodes import RETIRE, UNDO, Retirements
from constraint_crdt.types.view import IndexedView

READING: Final = 40

MOST_READINGS: Final = 64
"""The readings of a node."""

FACTS: Final = frozenset({"name", "labels", "live", "position"})
"""The fields of a node in constraints on the fleet, beside its readings: no reading has such a name."""

TEXT_BYTES: Final = 64
"""The longest text of a reading, in UTF-8."""

EVERY: Final = 10 * SECOND
"""The longest time between two cells of a reading, in ns, by default."""

LIFETIME: Final = 3
"""A reading counts for so many times its `every`: two cells in a row may come late."""

PACE: Final = SECOND
"""The time between two cells of a variable that moves all the time, in ns."""

AT_ONCE: Final = 2
"""Cells of a variable after a calm time that wait for nothing."""

_TENTH: Final = SECOND // 10
_BEGIN: Final = 1_767_225_600 * SECOND
"""2026-01-01T00:00:00Z in ns since the epoch: the times since then have five bytes for 13 years."""

Scalar = float | str | bool
"""The value of a reading."""


class ReadingValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of a READING cell."""

    value: msgspec.Raw = msgspec.Raw()
    time: int = 0
    every: int = EVERY // _TENTH


def _check_reading(_: str, value: ReadingValue) -> None:
    require(-MAX_COUNT <= value.time <= MAX_COUNT, "the time of a reading")
    require(0 < value.every <= MAX_COUNT, "the longest time between two readings")


register(READING, ReadingValue, _check_reading, key_bytes=ID_BYTES, empty_key=False, removable=True)


class Reading(NamedTuple):
    """A reading of a node. Times in ns."""

    value: Scalar
    time: int
    """The hybrid time of the measurement, in ns since the epoch."""
    every: int = EVERY

    @property
    def until(self) -> int:
        """The hybrid time up to which the reading counts."""
        return self.time + LIFETIME * self.every


def check_scalar(name: str, value: object) -> Scalar:
    """A value that can be shared: numbers as doubles. Raises `ConstraintCrdtError` for any other value."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return float(value)
    if not isinstance(value, str):
        raise ConstraintCrdtError(f"{name} cannot be shared: a reading is a number, a text, true or false")
    if len(value.encode(errors="replace")) > TEXT_BYTES:
        raise ConstraintCrdtError(f"{name} cannot be shared: a text of a reading has at most {TEXT_BYTES} bytes")
    return value


def wire_scalar(value: Scalar) -> object:
    """The shortest of the forms of a value: `read_scalar` gives an equal value."""
    if type(value) is not float or not math.isfinite(value):
        return value
    if value.is_integer() and abs(value) < 1 << 53 and (value or math.copysign(1, value) > 0):
        return int(value)
    sign, digits, exponent = Decimal(repr(value)).as_tuple()
    mantissa = int("".join(map(str, digits)))
    if mantissa < 1 << 32 and isinstance(exponent, int) and -32 <= exponent <= 127 and mantissa:
        return [-mantissa if sign else mantissa, exponent]
    return value


_read_raw: Final = msgspec.msgpack.Decoder().decode


def read_scalar(data: bytes) -> Scalar | None:
    """The value of a reading; None if withdrawn, and for a form not known here."""
    value: object = _read_raw(data) if data else None
    if isinstance(value, list) and len(value) == 2 and all(type(each) is int for each in value) and abs(value[1]) <= 400:
        return float(f"{value[0]}e{value[1]}")
    if isinstance(value, str | bool):
        return value
    return float(value) if isinstance(value, int | float) else None


class _Held(NamedTuple):
    """The cell of a life."""

    time: int
    replica: Replica
    reading: Reading | None
    """None: withdrawn, or of a form that is not known here."""


def _held(cell: Cell) -> _Held:
    value: ReadingValue = value_of(cell)
    scalar, time = read_scalar(bytes(value.value)), _BEGIN + value.time * _TENTH
    reading = None if scalar is None else Reading(scalar, time, value.every * _TENTH)
    return _Held(value.time, cell.replica, reading)


_NO_READINGS: Final[Mapping[str, Reading]] = MappingProxyType({})


class SharedReadings(IndexedView):
    """The readings of all nodes in service: `in`, `len` and iteration are over the names of the variables.

    Readings are O(1), or O(names returned).
    """

    KINDS = (READING, RETIRE, UNDO)

    def __init__(self, rows: Rows | None = None, *, retirements: Retirements | None = None) -> None:
        """`retirements`: those over the same rows, if they are kept already."""
        rows = Rows() if rows is None else rows
        self._retirements = Retirements(rows) if retirements is None else retirements
        self._subscribers: list[Callable[[str, str], None]] = []
        super().__init__(rows)
        self._retirements.watch(self._show)

    def subscribe(self, subscriber: Callable[[str, str], None]) -> None:
        """Call `subscriber` with the node and the variable of each reading that changed."""
        self._subscribers.append(subscriber)

    # --- following cells -------------------------------------------------------------------------------------------------

    def _clear(self) -> None:
        self._by_node: dict[str, dict[str, _Held]] = {}
        """The cell that counts, by node and variable; those of retired nodes and withdrawn ones as well."""
        self._shown: dict[str, dict[str, Reading]] = {}
        self._nodes: dict[str, set[str]] = {}
        """The nodes with a reading, by variable."""

    def _changed(self, old: Cell | None, new: Cell | None) -> None:
        cell = new if new is not None else old
        if cell is None or cell.kind != READING:
            return
        node, name = cell.replica.node_id, str(cell.key)
        held = self._by_node.setdefault(node, {})
        before, after = held.get(name), None if new is None else _held(new)
        if after is None or (before is not None and before.replica == after.replica and before[:2] > after[:2]):
            after = self._latest(node, name)
        elif before is not None and before[:2] > after[:2]:
            return
        if after is None:
            held.pop(name, None)
        else:
            held[name] = after
        self._put(node, name, None if after is None or node in self._retirements else after.reading)

    def _latest(self, node: str, name: str) -> _Held | None:
        """The cell that counts, of all lives of a node. O(rows with the variable)."""
        cells = (cell for cell in self._rows.held(READING, name) if cell.replica.node_id == node)
        return max(map(_held, cells), key=lambda each: each[:2], default=None)

    def _show(self, node: str) -> None:
        """Bring the readings of a node up to date after a retirement."""
        for name, held in self._by_node.get(node, {}).items():
            self._put(node, name, None if node in self._retirements else held.reading)

    def _put(self, node: str, name: str, reading: Reading | None) -> None:
        shown = self._shown.setdefault(node, {})
        if shown.get(name) == reading:
            return
        if reading is not None:
            shown[name] = reading
            self._nodes.setdefault(name, set()).add(node)
        else:
            del shown[name]
            self._nodes[name].discard(node)
            if not self._nodes[name]:
                del self._nodes[name]
        for subscriber in self._subscribers:
            subscriber(node, name)

    # --- reading -------------------------------------------------------------------------------------------------------

    def __contains__(self, name: object) -> bool:
        return name in self._nodes

    def __len__(self) -> int:
        return len(self._nodes)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._nodes))

    def __repr__(self) -> str:
        return f"SharedReadings({len(self)} variables on {sum(map(bool, self._shown.values()))} nodes)"

    def of(self, node_id: str) -> Mapping[str, Reading]:
        """The readings of a node by variable, aged ones included. A live view, in no order."""
        shown = self._shown.get(node_id)
        return MappingProxyType(shown) if shown else _NO_READINGS

    def nodes(self, name: str) -> tuple[str, ...]:
        """The nodes with a reading of a variable, ordered by name."""
        return tuple(sorted(self._nodes.get(name, ())))

    # --- writing -------------------------------------------------------------------------------------------------------

    def put_all(self, readings: Mapping[str, Reading | None], *, node: str | Replica) -> int:
        """Share these readings of a node; None withdraws one. Returns the number of the cells written.

        Raises `ConstraintCrdtError` for a name or a value out of bounds, and for more than `MOST_READINGS` readings; nothing is
        written then.
        """
        replica = writer(node)
        held = self._by_node.get(replica.node_id, {})
        for name, reading in readings.items():
            check_id(name, "the name of a variable")
            if reading is not None:
                check_scalar(name, reading.value)
        now = {name for name, each in held.items() if each.reading is not None} | readings.keys()
        if sum(readings.get(name, name) is not None for name in now) > MOST_READINGS:
            raise ConstraintCrdtError(f"a node shares at most {MOST_READINGS} readings")
        written = [self._cell(name, reading, held.get(name), replica) for name, reading in readings.items()]
        for cell in filter(None, written):
            self._rows.write(replica, cell)
        return sum(cell is not None for cell in written)

    def _cell(self, name: str, reading: Reading | None, before: _Held | None, replica: Replica) -> Cell | None:
        if reading is None and (before is None or before.reading is None):
            return None
        earliest = -MAX_COUNT if before is None else before.time + (before.replica != replica)
        if reading is None:
            return make_cell(READING, name, [None, earliest])
        time = max((reading.time - _BEGIN) // _TENTH, earliest)
        every = max(1, round(reading.every / _TENTH))
        value = [wire_scalar(reading.value), time, *([every] if every != EVERY // _TENTH else [])]
        cell = make_cell(READING, name, value)
        standing = self._rows.get(READING, name, replica)
        return None if standing is not None and standing.data == cell.data else cell


# --- when a value is due ------------------------------------------------------------------------------------------------


class Share(NamedTuple):
    """A variable to be shared."""

    name: str
    deadband: float = 0.0
    """A number that moved by more than this is told."""
    every: int = EVERY
    """ns: a measurement is told if the last told is so old."""


SHORTEST_EVERY: Final = SECOND
"""The shortest `every`, in ns."""


def make_share(name: str, deadband: float = 0.0, every: float | None = None) -> Share:
    """A `Share` of a caller's values; `every` in seconds. Raises `TypeError` for other types, and `ConstraintCrdtError` for values
    out of bounds.
    """
    check_id(name, "the name of a variable")
    if name.partition(".")[0] in FACTS | {"nodes"}:
        raise ConstraintCrdtError(
            f"{name} cannot be shared: constraints on the fleet have `{name.partition('.')[0]}` of their own; give it another name"
        )
    deadband = real_number(deadband, f"the deadband of {name}")
    if not 0 <= deadband < math.inf:
        raise ConstraintCrdtError(f"the deadband of {name} must be 0 or more, not {deadband}")
    if every is None:
        return Share(name, deadband)
    seconds = real_number(every, f"the longest time between two readings of {name}")
    if not SHORTEST_EVERY / SECOND <= seconds <= DURATION_MAX:
        raise ConstraintCrdtError(f"`every` of {name} must be from {SHORTEST_EVERY / SECOND:g} second on, not {seconds:g} s")
    return Share(name, deadband, round(seconds * SECOND))


def moved(before: Scalar, after: Scalar, deadband: float) -> bool:
    """True if a value differs from the last by more than the deadband. A NaN differs from each number, not from a NaN."""
    if type(before) is not float or type(after) is not float:
        return type(before) is not type(after) or before != after
    if math.isnan(before) or math.isnan(after):
        return math.isnan(before) != math.isnan(after)
    if before == after:
        return False
    return not abs(after - before) <= deadband  # the difference of two infinities is NaN


class Sample(NamedTuple):
    """A value to be shared, and the time of its measurement in ns of a monotonic clock."""

    value: Scalar
    at: int


class _Told:
    """The readings told of a variable."""

    __slots__ = ("paced", "sample")

    def __init__(self) -> None:
        self.sample: Sample | None = None
        """The last sample told; None: nothing, or withdrawn."""
        self.paced = 0
        """The time until which the cells told fill the pace of one in `PACE`."""


class Sharing:
    """Which samples of a node are due to be shared. Times are in ns of a monotonic clock.

    `offer` takes the samples, `take` gives those due. A sample beyond the pace waits; a later sample replaces it.
    """

    def __init__(self) -> None:
        self._shares: dict[str, Share] = {}
        self._told: dict[str, _Told] = {}
        self._waiting: dict[str, Sample | None] = {}
        """None: to be withdrawn."""

    def __repr__(self) -> str:
        return f"Sharing({len(self._shares)} variables)"

    @property
    def names(self) -> Set[str]:
        """The variables shared."""
        return self._shares.keys()

    @property
    def waiting(self) -> bool:
        """True while a sample waits to be taken."""
        return bool(self._waiting)

    def require(self, shares: Iterable[Share], told: Iterable[str] = ()) -> None:
        """Share these variables and no others: the first `MOST_READINGS` of them. The others are withdrawn.

        `told`: the variables with a reading of this node from before, which are withdrawn too.
        """
        self._shares = {each.name: each for each in list(shares)[:MOST_READINGS]}
        known = [name for name, each in self._told.items() if each.sample is not None]
        for name in [*known, *told, *self._waiting]:
            if name not in self._shares:
                self._told.setdefault(name, _Told()).sample = None
                self._waiting[name] = None

    def offer(self, name: str, sample: Sample | None) -> None:
        """A variable has a new sample; None: none any more. Samples of variables that are not shared are ignored."""
        share = self._shares.get(name)
        if share is None:
            return
        told = self._told.setdefault(name, _Told())
        last = told.sample
        if sample is None:
            self._waiting.pop(name, None)
            if last is not None:
                self._waiting[name] = None
        elif last is None or moved(last.value, sample.value, share.deadband) or sample.at - last.at >= share.every:
            self._waiting[name] = sample
        else:
            self._waiting.pop(name, None)  # moved back before the other value was told

    def take(self, now: int) -> dict[str, tuple[Sample | None, int]]:
        """The samples due now, with the `every` of each in ns; None: withdrawn."""
        due: dict[str, tuple[Sample | None, int]] = {}
        for name, sample in list(self._waiting.items()):
            told = self._told.setdefault(name, _Told())
            if told.paced - now > (AT_ONCE - 1) * PACE:
                continue
            del self._waiting[name]
            told.paced = max(now, told.paced) + PACE
            told.sample = sample
            share = self._shares.get(name)
            due[name] = sample, share.every if share is not None else EVERY
        return due
