"""Measured variables: their names and kinds on each node, and the readings that nodes share.

Names and kinds, as told by the node itself:

| kind | key | value |
|---|---|---|
| 26 VARIABLES | "" | `[[[name, kind], …], left out, life]`, ordered by name; trailing defaults left out |

`kind` is a number of `VARIABLE_KINDS`. A node has a single cell, written when the names or kinds change. Rules kept here:

- A cell has at most 1,000 variables, and at most `VARIABLES_BYTES` of them. Of more, the first by name are told, and the number of
  the others. `nodes`, `kinds` and `near` do not know the others.
- A node without variables since its start states that on request only. So an absent cell says nothing: the node may be of 0.1.0.
- A reader ignores further elements, and reads the number of an unknown kind as `mixed`. Later versions may add both.
- No cell is removed: 0.1.0 refuses a message with a removal of a kind that it does not know. A node without variables overwrites
  its cell with an empty value.
- Of several lives of a node, the cell with the highest `life` counts, then the order of the replicas. `life` is the number of
  takeovers, as in `verdicts`: a new life takes over with its first cell, and a life without knowledge of the former ones as soon as
  it hears of them and states its variables again.
- The variables of retired nodes are left out. Readings are updated with each cell, and never recomputed.

Readings, the last values of the variables that a node shares with the fleet:

| kind | key | value |
|---|---|---|
| 40 READING | `n` | `[0, 0, [name, …], [every, …]]`: the variables of the writer by number, from 0 |
| 40 READING | `g` from 0 | `[time, exponent, [value, …], [age, …]]`: the readings of the variables 8 g to 8 g + 7 |

A reading costs each node of the fleet its bytes, so the readings of a node that move together share a cell, without their names.
`time` is the hybrid time of the latest measurement in tenths of a second since 2026-01-01, and an age is how much earlier another
measurement was. An integer n stands for n x 10^exponent; a value is also a bool, a text, a double, or `[mantissa, exponent]`; nil
for none. `every` is the longest time between two cells in tenths of a second. Ages of 0 only are left out, as is `EVERY` for all.
Rules kept here:

- A node has at most `MOST_READINGS` readings. No cell is removed: 0.1.0 refuses a removal of a kind that it does not know. A
  withdrawn reading has no value, and a time.
- The number of a variable stays for the life of the writer, so a withdrawal stays as well: it overrules the reading of a former
  life that the writer does not know yet. Beyond `MOST_NAMES` variables the number of the one withdrawn first is given to another; a
  reading of it by a former life may be shown again then, as aged. Both cells are of one write, so no reader has one without the
  other.
- A reading counts for `LIFETIME` times its `every`, in hybrid time. It is shown for longer, as aged.
- Of several lives of a node, the reading with the latest time counts, then the order of the replicas. A life writes no time before
  that of a former life, nor before its own last time.
- A value of a form that is not known here, from a later version, reads as missing. Further elements and keys are ignored.
- The readings of retired nodes are left out. Readings are updated with each cell, and never recomputed.
- A value is due if it moved by more than the deadband, or if the last told value is `every` old. Of a variable that moves all the
  time, one value is told each `PACE`. The time is an argument.
"""

import enum
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from decimal import Decimal
from heapq import nlargest
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import msgspec

from constraint_crdt.crdt.cells import Cell, make_cell, register, require, require_counts, require_text, value_of
from constraint_crdt.crdt.clock import SECOND, Replica, check_id, writer
from constraint_crdt.crdt.limits import CELL_BYTES, DURATION_MAX, ID_BYTES, MAX_COUNT, real_number
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.errors import ConstraintCrdtError, InvalidType
from constraint_crdt.model import close_to
from constraint_crdt.types.nodes import RETIRE, UNDO, Retirements
from constraint_crdt.types.view import IndexedView

VARIABLES: Final = 26

NODE_KEY: Final = ""

MOST_VARIABLES: Final = 1_000
"""Variables in a cell."""

VARIABLES_BYTES: Final = CELL_BYTES - 64
"""The encoded variables of a cell."""

NEAR: Final = 3
"""Names in an answer of `near`."""

COMPARED: Final = 200
"""Names that `near` compares letter by letter. A comparison takes up to 0.1 ms."""


class VariableKind(enum.StrEnum):
    """The kind of the values of a variable."""

    MIXED = "mixed"
    """Values of several kinds, or of none of the others."""
    DOUBLE = "double"
    """Numbers, whole ones included."""
    STRING = "string"
    """Texts."""
    BOOL = "bool"
    """True and false."""
    LIST = "list"
    """Lists of values of any kind."""
    MAP = "map"
    """Maps from texts to values of any kind."""


VARIABLE_KINDS: Final = (
    VariableKind.MIXED,
    VariableKind.DOUBLE,
    VariableKind.STRING,
    VariableKind.BOOL,
    VariableKind.LIST,
    VariableKind.MAP,
)
"""The kinds by their numbers on the wire."""

Kinds = Mapping[str, VariableKind]


class VariableValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A variable inside the value of a VARIABLES cell."""

    name: str
    kind: int = 0


class VariablesValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of a VARIABLES cell."""

    variables: tuple[VariableValue, ...] = ()
    left_out: int = 0
    life: int = 0


def _check_variables(key: str, value: VariablesValue) -> None:
    require(not key, "the key of the variables of a node")
    require(len(value.variables) <= MOST_VARIABLES, "the number of variables of a node")
    require_counts((value.left_out, value.life, *(each.kind for each in value.variables)), "a number of the variables of a node")
    for each in value.variables:
        require(bool(each.name), "the name of a variable")
        require_text(each.name, "the name of a variable")


register(VARIABLES, VariablesValue, _check_variables, removable=True)


def kind_of(value: object) -> VariableKind:
    """The kind of a measured value."""
    if isinstance(value, bool):
        return VariableKind.BOOL
    if isinstance(value, str):
        return VariableKind.STRING
    if isinstance(value, Mapping):
        return VariableKind.MAP
    if isinstance(value, list | tuple):
        return VariableKind.LIST
    return VariableKind.DOUBLE if hasattr(value, "__float__") or hasattr(value, "__index__") else VariableKind.MIXED


def _pairs(name: str) -> set[tuple[str, str]]:
    return set(pairwise(name))


class _Standing(NamedTuple):
    """A cell that stands, with its place in the order of the lives of a node."""

    life: int
    replica: Replica
    kinds: Kinds
    left_out: int

    @property
    def rank(self) -> tuple[int, Replica]:
        """Of the cells of several lives the highest rank counts."""
        return self.life, self.replica


def _standing(cell: Cell) -> _Standing:
    value: VariablesValue = value_of(cell)
    known = len(VARIABLE_KINDS)
    kinds = {each.name: VARIABLE_KINDS[each.kind] if each.kind < known else VariableKind.MIXED for each in value.variables}
    return _Standing(value.life, cell.replica, MappingProxyType(dict(sorted(kinds.items()))), value.left_out)


_NONE: Final[Kinds] = MappingProxyType({})


class MeasuredVariables(IndexedView):
    """The variables of all nodes in service: `in`, `len` and iteration are over their names.

    Readings are O(1), or O(names returned). All mappings are ordered by name or node, except `kinds`.
    """

    KINDS = (VARIABLES, RETIRE, UNDO)

    def __init__(self, rows: Rows | None = None, *, retirements: Retirements | None = None) -> None:
        """`retirements`: those over the same rows, if they are kept already."""
        rows = Rows() if rows is None else rows
        self._retirements = Retirements(rows) if retirements is None else retirements
        super().__init__(rows)
        self._retirements.watch(self._show)

    # --- following cells -------------------------------------------------------------------------------------------------

    def _clear(self) -> None:
        self._held: dict[str, _Standing] = {}
        """The cell that counts, by node."""
        self._shown: dict[str, _Standing] = {}
        self._by_name: dict[str, dict[str, VariableKind]] = {}
        self._kinds: dict[str, VariableKind] = {}

    def _changed(self, old: Cell | None, new: Cell | None) -> None:
        cell = new if new is not None else old
        if cell is None or cell.kind != VARIABLES:
            return
        node, before = cell.replica.node_id, self._held.get(cell.replica.node_id)
        after = _standing(new) if new is not None else None
        if after is None or (before is not None and before.replica == after.replica and before.rank > after.rank):
            after = self._latest(node)
        elif before is not None and before.rank > after.rank:
            return
        if after is None:
            self._held.pop(node, None)
        else:
            self._held[node] = after
        self._show(node)

    def _latest(self, node: str) -> _Standing | None:
        """The cell that counts, from all lives of a node. O(rows with variables)."""
        cells = (cell for cell in self._rows.held(VARIABLES, NODE_KEY) if cell.replica.node_id == node)
        return max(map(_standing, cells), key=lambda each: each.rank, default=None)

    def _show(self, node: str) -> None:
        """Bring the readings of a node up to date."""
        before = self._shown.pop(node, None)
        after = self._held.get(node) if node not in self._retirements else None
        if after is not None:
            self._shown[node] = after
        was, now = before.kinds if before is not None else _NONE, after.kinds if after is not None else _NONE
        for name in was.keys() | now.keys():
            if was.get(name) is not now.get(name):
                self._move(name, node, now.get(name))

    def _move(self, name: str, node: str, kind: VariableKind | None) -> None:
        nodes = self._by_name.setdefault(name, {})
        if kind is not None:
            nodes[node] = kind
        else:
            del nodes[node]
        found = set(nodes.values())
        self._kinds.pop(name, None)
        if len(found) == 1 and VariableKind.MIXED not in found:
            self._kinds[name] = found.pop()
        if not nodes:
            del self._by_name[name]

    # --- reading -------------------------------------------------------------------------------------------------------

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._by_name))

    def __repr__(self) -> str:
        return f"MeasuredVariables({len(self)} variables on {len(self._shown)} nodes)"

    def of(self, node_id: str) -> Kinds:
        """The variables that a node measures, with their kinds; without those left out of its cell."""
        shown = self._shown.get(node_id)
        return shown.kinds if shown is not None else _NONE

    def told(self, node_id: str) -> bool:
        """True if the node has told its variables, none included."""
        return node_id in self._shown

    def left_out(self, node_id: str) -> int:
        """The number of further variables of a node, without room in its cell."""
        shown = self._shown.get(node_id)
        return shown.left_out if shown is not None else 0

    def nodes(self, name: str) -> tuple[str, ...]:
        """The nodes that measure a variable, ordered by name."""
        return tuple(sorted(self._by_name.get(name, ())))

    def kinds(self) -> Kinds:
        """The kind of each variable with a single kind on all nodes, `mixed` left out. A live view, in no order."""
        return MappingProxyType(self._kinds)

    def near(self, name: str) -> list[str]:
        """The names most similar to a name, at most three, the most similar first. O(names), some 30 ms for 10,000.

        Of more than `COMPARED` names, those that share most pairs of neighbouring letters are compared.
        """
        names = sorted(self._by_name)
        if len(names) > COMPARED:
            pairs = _pairs(name)
            names = nlargest(COMPARED, names, key=lambda each: len(pairs & _pairs(each)) - abs(len(each) - len(name)))
        return close_to(name, names, NEAR)

    # --- writing -------------------------------------------------------------------------------------------------------

    def put(self, variables: Kinds, *, node: str | Replica, even_none: bool = False) -> bool:
        """State the variables of a node, in place of those before. True if a cell was written: not for the same variables.

        `even_none`: state also that a node measures no variables and never did. Raises `TypeError` for another kind, and
        `ConstraintCrdtError` for a name out of bounds.
        """
        replica = writer(node)
        value = wire_variables(variables)
        cells = (cell for cell in self._rows.held(VARIABLES, NODE_KEY) if cell.replica.node_id == replica.node_id)
        lives = [each.life if each.replica == replica else min(each.life + 1, MAX_COUNT) for each in map(_standing, cells)]
        if not value and not lives and not even_none:
            return False
        life = max(lives, default=0)
        cell = make_cell(VARIABLES, NODE_KEY, value if not life else [*value, *([], 0)[len(value) :], life])
        standing = self._rows.get(VARIABLES, NODE_KEY, replica)
        if standing is not None and standing.data == cell.data:
            return False
        self._rows.write(replica, cell)
        return True


def wire_variables(variables: Kinds) -> list[object]:
    """The variables as the value of a cell, without `life`: the first by name within the bounds, and the number of the others."""
    told: list[list[object]] = []
    room = VARIABLES_BYTES
    for name, kind in sorted(variables.items()):
        if not isinstance(kind, VariableKind):
            raise InvalidType(f"the kind of a variable is a VariableKind, not {kind!r}")
        entry = [check_id(name, "the name of a variable"), VARIABLE_KINDS.index(kind)]
        room -= len(msgspec.msgpack.encode(entry))
        if room >= 0 and len(told) < MOST_VARIABLES:
            told.append(entry)
        else:
            room = -1  # the first ones only, also where a shorter name follows
    left_out = len(variables) - len(told)
    return [told, left_out] if left_out else [told] if told else []


READING: Final = 40

MOST_READINGS: Final = 64
"""The readings of a node."""

FACTS: Final = frozenset({"name", "labels", "live", "position"})
"""The fields of a node in constraints on the fleet, beside its readings: no reading has such a name."""

TEXT_BYTES: Final = 64
"""The longest text of a reading, in UTF-8."""

MOST_EXPONENT: Final = 400

EVERY: Final = 10 * SECOND
"""The longest time between two cells of a reading, in ns, by default."""

LIFETIME: Final = 3
"""A reading counts for so many times its `every`: two cells in a row may come late."""

PACE: Final = SECOND
"""The time between two cells of a variable that moves all the time, in ns."""

AT_ONCE: Final = 2
"""Cells of a variable after a calm time that wait for nothing."""

TENTH: Final = SECOND // 10
"""The unit of the times of readings, in ns."""
_BEGIN: Final = 1_767_225_600 * SECOND
"""2026-01-01T00:00:00Z in ns since the epoch: the times since then have five bytes for 13 years."""

Scalar = float | str | bool
"""The value of a reading."""


NAMES: Final = "n"
"""The key of the cell with the names."""

GROUP: Final = 8
"""Readings in a cell."""

MOST_NAMES: Final = 256
"""Variables with a number in a life, withdrawn ones included."""


class ReadingValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of a READING cell."""

    time: int
    exponent: int
    values: tuple[Any, ...]
    numbers: tuple[int, ...] = ()
    """Ages; in the cell with the names, `every`."""


def _check_reading(_: str, value: ReadingValue) -> None:
    require(-MAX_COUNT <= value.time <= MAX_COUNT, "the time of a reading")
    require(-MOST_EXPONENT <= value.exponent <= MOST_EXPONENT, "the exponent of a reading")
    require(len(value.values) <= MOST_NAMES and len(value.numbers) <= MOST_NAMES, "the number of readings in a cell")
    require_counts(value.numbers, "a time of a reading")


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


def _decimal(value: float) -> tuple[int, int] | None:
    """Mantissa and exponent of a number with few digits, none for any other. `read_scalar` gives an equal number."""
    if not math.isfinite(value) or (not value and math.copysign(1, value) < 0):
        return None
    if value.is_integer() and abs(value) < 1 << 53:
        return int(value), 0
    sign, digits, exponent = Decimal(repr(value)).as_tuple()
    mantissa = int("".join(map(str, digits)))
    if mantissa < 1 << 32 and isinstance(exponent, int) and -32 <= exponent < 0:
        return -mantissa if sign else mantissa, exponent
    return None


def wire_scalars(values: Sequence[Scalar | None]) -> tuple[int, list[object]]:
    """The short forms of the values of a cell, with the exponent that they share: `read_scalar` gives equal values."""
    decimals = [_decimal(each) if type(each) is float else None for each in values]
    exponent = min((found[1] for found in decimals if found is not None), default=0)
    forms: list[object] = []
    for value, found in zip(values, decimals, strict=True):
        if found is None:
            forms.append(value)
            continue
        scaled = found[0] * 10 ** (found[1] - exponent)
        forms.append(scaled if abs(scaled) < 1 << 32 else list(found) if abs(found[0]) < 1 << 32 else value)
    return exponent, forms


def wire_scalar(value: Scalar) -> object:
    """The short form of a value that stands alone: `read_scalar` with the exponent 0 gives an equal value."""
    found = _decimal(value) if type(value) is float else None
    return value if found is None else list(found) if found[1] else found[0]


def read_scalar(value: object, exponent: int = 0) -> Scalar | None:
    """The value of a reading; None if withdrawn, and for a form not known here."""
    if type(value) is int:
        value = [value, exponent]
    if isinstance(value, list) and len(value) == 2 and all(type(each) is int for each in value) and abs(value[1]) <= MOST_EXPONENT:
        mantissa, exponent = value
        return float(f"{mantissa}e{exponent}") if exponent else float(mantissa)
    return value if isinstance(value, str | bool | float) else None


class _Held(NamedTuple):
    """A reading as a life told it."""

    time: int
    """In tenths of a second."""
    replica: Replica
    reading: Reading | None
    """None: withdrawn, or of a form that is not known here."""


class _Row:
    """The readings of a life."""

    __slots__ = ("cells", "every", "held", "names")

    def __init__(self) -> None:
        self.names: list[str] = []
        """By number."""
        self.every: dict[str, int] = {}
        """In tenths of a second."""
        self.cells: dict[int, ReadingValue] = {}
        self.held: dict[str, _Held] = {}

    def take_names(self, value: ReadingValue | None) -> None:
        """Another cell with the names; the readings have to be read again."""
        self.names = [each if isinstance(each, str) else "" for each in value.values] if value is not None else []
        numbers = value.numbers if value is not None else ()
        self.every = dict(zip(self.names, numbers, strict=False))

    def read(self, number: int, replica: Replica) -> dict[str, _Held]:
        """The readings of a cell."""
        value, found = self.cells.get(number), dict[str, _Held]()
        names = self.names[number * GROUP : (number + 1) * GROUP]
        for place, name in enumerate(names if value is not None else ()):
            if name and value is not None and place < len(value.values):
                time = value.time - (value.numbers[place] if place < len(value.numbers) else 0)
                scalar = read_scalar(value.values[place], value.exponent)
                every = max(1, self.every.get(name, EVERY // TENTH)) * TENTH
                reading = None if scalar is None else Reading(scalar, _BEGIN + time * TENTH, every)
                found[name] = _Held(time, replica, reading)
        return found


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
        self._lives: dict[str, dict[Replica, _Row]] = {}
        """By node, the readings of its lives; those of retired nodes and withdrawn ones as well."""
        self._shown: dict[str, dict[str, Reading]] = {}
        self._nodes: dict[str, set[str]] = {}
        """The nodes with a reading, by variable."""

    def _changed(self, old: Cell | None, new: Cell | None) -> None:
        cell = new if new is not None else old
        if cell is None or cell.kind != READING:
            return
        replica, key = cell.replica, str(cell.key)
        row = self._lives.setdefault(replica.node_id, {}).setdefault(replica, _Row())
        value: ReadingValue | None = None if new is None else value_of(new)
        if key == NAMES:
            before, row.held = row.held, {}
            row.take_names(value)
            for number in row.cells:
                row.held |= row.read(number, replica)
        elif key.isascii() and key.isdigit() and len(key) < 3:
            before, number = row.read(int(key), replica), int(key)
            row.cells.pop(number, None)
            for name in before:
                row.held.pop(name, None)
            if value is not None:
                row.cells[number] = value
                row.held |= row.read(number, replica)
            before |= row.read(number, replica)
        else:
            return
        for name in before.keys() | (row.held.keys() if key == NAMES else ()):
            self._settle(replica.node_id, name)

    def _settle(self, node: str, name: str) -> None:
        held = self._latest(node, name)
        self._put(node, name, None if held is None or node in self._retirements else held.reading)

    def _latest(self, node: str, name: str) -> _Held | None:
        """The reading that counts, of all lives of a node. O(lives)."""
        held = [found for row in self._lives.get(node, {}).values() if (found := row.held.get(name)) is not None]
        return max(held, key=lambda each: each[:2], default=None)

    def _show(self, node: str) -> None:
        """Bring the readings of a node up to date after a retirement."""
        for name in self._told(node):
            self._settle(node, name)

    def _told(self, node: str) -> set[str]:
        """The variables that a node ever told of."""
        return {name for row in self._lives.get(node, {}).values() for name in row.held}

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
        """Share these readings of a node; None withdraws a reading. Returns the number of the readings that changed.

        Raises `ConstraintCrdtError` for a name or a value out of bounds, and for more than `MOST_READINGS` readings; nothing is
        written then.
        """
        replica = writer(node)
        for name, reading in readings.items():
            check_id(name, "the name of a variable")
            if reading is not None:
                check_scalar(name, reading.value)
        standing = {name: held for name in self._told(replica.node_id) if (held := self._latest(replica.node_id, name)) is not None}
        now = {name for name, each in standing.items() if each.reading is not None} | readings.keys()
        if sum(readings.get(name, name) is not None for name in now) > MOST_READINGS:
            raise ConstraintCrdtError(f"a node shares at most {MOST_READINGS} readings")
        new = {
            name: held for name, reading in readings.items() if (held := _next(reading, standing.get(name), replica)) is not None
        }
        if new:
            self._rows.write_all(replica, self._cells(new, replica))
        return len(new)

    def _cells(self, new: Mapping[str, _Held], replica: Replica) -> list[Cell]:
        """The cells of a life in which these readings are."""
        row = self._lives.get(replica.node_id, {}).get(replica) or _Row()
        names, every = list(row.names), dict(row.every)
        for name, held in new.items():
            if name not in names:
                self._number(name, names, row, new.keys())
            if held.reading is not None:
                every[name] = max(1, round(held.reading.every / TENTH))
        numbers = [every.get(name, EVERY // TENTH) for name in names]
        cells = []
        if names != row.names or numbers != [row.every.get(name, EVERY // TENTH) for name in row.names]:
            usual = all(each == EVERY // TENTH for each in numbers)
            cells.append(make_cell(READING, NAMES, [0, 0, names, *([] if usual else [numbers])]))
        for number in sorted({names.index(name) // GROUP for name in new}):
            held_in = [new.get(name) or row.held.get(name) for name in names[number * GROUP : (number + 1) * GROUP]]
            time = max(each.time for each in held_in if each is not None)
            ages = [0 if each is None else time - each.time for each in held_in]
            scalars = [None if each is None or each.reading is None else each.reading.value for each in held_in]
            exponent, forms = wire_scalars(scalars)
            cells.append(make_cell(READING, str(number), [time, exponent, forms, *([ages] if any(ages) else [])]))
        return cells

    def _number(self, name: str, names: list[str], row: _Row, told: Set[str]) -> None:
        """Give a variable the next number; with `MOST_NAMES` numbers given, that of a withdrawn one. `told`: those told now."""
        if len(names) < MOST_NAMES:
            names.append(name)
            return
        withdrawn = [held for each, held in row.held.items() if held.reading is None and each not in told]
        if not withdrawn:
            raise ConstraintCrdtError(f"a node shares at most {MOST_NAMES} variables in a life: restart it to share others")
        earliest = min(withdrawn, key=lambda held: held.time)
        names[next(place for place, each in enumerate(names) if row.held.get(each) is earliest)] = name


def _next(reading: Reading | None, before: _Held | None, replica: Replica) -> _Held | None:
    """The reading of a life after that which counts now; None for no change."""
    if reading is None and (before is None or before.reading is None):
        return None
    earliest = -MAX_COUNT if before is None else before.time + (before.replica != replica)
    if reading is None:
        return _Held(earliest, replica, None)
    time = max((reading.time - _BEGIN) // TENTH, earliest)
    every = max(1, round(reading.every / TENTH)) * TENTH
    after = _Held(time, replica, Reading(reading.value, _BEGIN + time * TENTH, every))
    same = before is not None and before.reading is not None and type(before.reading.value) is type(reading.value)
    return None if same and after == before else after


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
        """The time until which the cells told fill the pace of a cell per `PACE`."""


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
