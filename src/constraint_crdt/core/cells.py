"""Cells: the unit of state, and their wire form.

A cell is the latest value that one replica wrote under one key: `(seq, value)`. On the wire and in the store it is one msgpack
array `[kind, key, value, tag]`, trailing parts left out where they are nil; replica and seq come from where it stands (its run).
`tag` is room for an authentication tag. The bytes received are what is kept, hashed and forwarded. They are never re-encoded, so
a cell of a kind that this version does not know travels through it unharmed.

| kind | key | value |
|---|---|---|
| 1 ADD | constraint id | nil, or `[when, severity, about]` |
| 2 REMOVE | nil: its own seq, never overwritten | `[[key, [[node id, incarnation, seq], …], kind], …]`; kind 1 if left out |
| 3 COUNTS | constraint id, "" for the node | `[satisfied, violated]`, cumulative; only `satisfied` while nothing was violated |
| 4 POSITION | "" | `[a, b, time in ns, [[node id, incarnation, seq], …]]` |
| 5 NODE | "" | `[software version, wire version, [endpoint, …]]` |
| 6 RETIRE | node id, or one replica as text | `[whole node, [[node id, incarnation, seq], …]]`: these lives are over |

`read_cell` is the only way from bytes to a cell, and it validates the value of every known kind, so that applying one cannot fail.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

import msgspec

from constraint_crdt.core.limits import ABOUT_BYTES, CELL_BYTES, ID_BYTES, MAX_COUNT
from constraint_crdt.core.replica import Replica, check_id, check_replica
from constraint_crdt.errors import ConstraintCrdtError

ADD: Final = 1
REMOVE: Final = 2
COUNTS: Final = 3
POSITION: Final = 4
NODE: Final = 5
RETIRE: Final = 6
MAX_KIND: Final = 127
SEVERITIES: Final = 3

UNBOUND: Final = Replica("", 0)
"""Stands for the replica of a cell that was read but not yet bound to its row."""

Key = str | int


class Cell(msgspec.Struct, gc=False, eq=False, weakref=False):
    """One cell, bound to its dot. Treat it as immutable: cells are shared between replicas of one process.

    `gc=False`: it holds only strings, bytes, ints and tuples of those, so it cannot be part of a cycle, and a collector that has to
    walk 100,000 of them costs more than everything else together.
    """

    kind: int
    key: Key
    data: bytes
    seq: int = 0
    replica: Replica = UNBOUND
    digest: int = 0
    """The keyed hash, filled in by `Digest.fill`; 0 while it is not known."""
    counts: tuple[int, int] | None = None
    """The value of a COUNTS cell, kept because it is read with every change of the cell."""


# Bounds are checked by `_CHECKS`, not declared with `msgspec.Meta`: with it, building a decoder crashes the interpreter when the
# collector runs at the wrong moment (msgspec issue 717, seen with 0.22.0 on CPython 3.11).


class WireDot(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A dot inside a cell's value."""

    node_id: str
    incarnation: int
    seq: int

    @property
    def replica(self) -> Replica:
        return Replica(self.node_id, self.incarnation)


class DefinitionValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of an ADD cell."""

    when: str | None = None
    severity: int = 1
    about: str | None = None


class PositionValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of a POSITION cell; `overwrites` names the cells that it supersedes."""

    a: int
    b: int
    time: int
    overwrites: tuple[WireDot, ...] = ()


class NodeValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of a NODE cell."""

    software: str
    wire: int
    endpoints: tuple[str, ...] = ()


class RetireValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of a RETIRE cell: lives that are over, each with the highest seq of it that the writer knew."""

    whole_node: bool
    """The node itself is retired, in all of its lives; else only these lives, which the node went on from."""
    lives: tuple[WireDot, ...]


class _Removed(msgspec.Struct, array_like=True, frozen=True, gc=False):
    key: str
    dots: tuple[WireDot, ...]
    kind: int = ADD


class _Tail(msgspec.Struct, array_like=True, gc=False, kw_only=True):
    tag: bytes | None = None


class _Add(_Tail):
    kind: int
    key: str
    value: DefinitionValue | None = None


class _Remove(_Tail):
    kind: int
    key: None
    value: tuple[_Removed, ...]


class _Counts(_Tail):
    kind: int
    key: str
    value: int | tuple[int, int]

    @property
    def counts(self) -> tuple[int, int]:
        return (self.value, 0) if isinstance(self.value, int) else self.value


class _Position(_Tail):
    kind: int
    key: str
    value: PositionValue


class _Node(_Tail):
    kind: int
    key: str
    value: NodeValue


class _Retire(_Tail):
    kind: int
    key: str
    value: RetireValue


class _Unknown(_Tail):
    kind: int
    key: str | None
    value: msgspec.Raw = msgspec.Raw()


_encode = msgspec.msgpack.Encoder().encode
_add = msgspec.msgpack.Decoder(_Add)
_remove = msgspec.msgpack.Decoder(_Remove)
_counts = msgspec.msgpack.Decoder(_Counts)
_position = msgspec.msgpack.Decoder(_Position)
_node = msgspec.msgpack.Decoder(_Node)
_retire = msgspec.msgpack.Decoder(_Retire)
_unknown = msgspec.msgpack.Decoder(_Unknown)


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise ConstraintCrdtError(f"{what} is out of bounds")


def _check_add(cell: _Add) -> None:
    value = cell.value
    if value is not None:
        _require(0 <= value.severity < SEVERITIES, "the severity of a definition")
        _require(value.about is None or len(value.about.encode()) <= ABOUT_BYTES, "the text of a definition")


def _check_dots(dots: Iterable[WireDot]) -> None:
    for dot in dots:
        check_replica(dot.node_id, dot.incarnation)
        _require(0 <= dot.seq <= MAX_COUNT, "the seq of a dot")


def _check_remove(cell: _Remove) -> None:
    for removed in cell.value:
        check_id(removed.key, "the key of what is removed")
        _require(removed.kind in (ADD, COUNTS), "the kind of what is removed")
        _check_dots(removed.dots)


def _check_counts(cell: _Counts) -> None:
    _require(min(cell.counts) >= 0 and max(cell.counts) <= MAX_COUNT, "a count")


def _check_position(cell: _Position) -> None:
    value = cell.value
    _require(not cell.key, "the key of a position")
    _require(min(value.a, value.b) >= -(2**31) and max(value.a, value.b) < 2**31, "a coordinate of a position")
    _require(0 <= value.time <= MAX_COUNT, "the time of a position")
    _check_dots(value.overwrites)


def _check_node(cell: _Node) -> None:
    _require(not cell.key, "the key of a node's word on itself")
    _require(len(cell.value.software.encode()) <= ID_BYTES, "the software version of a node")
    _require(0 <= cell.value.wire <= MAX_COUNT, "the wire version of a node")


def _check_retire(cell: _Retire) -> None:
    _require(bool(cell.value.lives), "the number of lives retired")
    _check_dots(cell.value.lives)


_READERS: dict[int, tuple[Callable[[bytes], Any], Callable[[Any], None]]] = {
    ADD: (_add.decode, _check_add),
    REMOVE: (_remove.decode, _check_remove),
    COUNTS: (_counts.decode, _check_counts),
    POSITION: (_position.decode, _check_position),
    NODE: (_node.decode, _check_node),
    RETIRE: (_retire.decode, _check_retire),
}
_UNKNOWN_READER: tuple[Callable[[bytes], Any], Callable[[Any], None]] = (_unknown.decode, lambda _: None)


_BARE_ADD_HEADS: Final = {3 + size: bytes((0x92, ADD, 0xA0 | size)) for size in range(1, 32)}
"""How an ADD without a definition begins, by its length in bytes: `[1, id]` with an id of up to 31 bytes."""


def read_cell(data: bytes) -> Cell:
    """Decode and validate one cell (replica and seq are bound later, see `UnboundRun`).

    Raises `msgspec.DecodeError`, `RecursionError`, `UnicodeError` or `ConstraintCrdtError`; the codec turns them all into the last.
    """
    if data[:3] == _BARE_ADD_HEADS.get(len(data)):  # the most common cell by far, in a third of the time
        return Cell(ADD, data[3:].decode(), data)
    if len(data) > CELL_BYTES:
        raise ConstraintCrdtError(f"a cell has {len(data)} bytes, more than the {CELL_BYTES} allowed")
    if len(data) < 3 or not 0x92 <= data[0] <= 0x94 or data[1] > MAX_KIND:
        raise ConstraintCrdtError("a cell must be an array of two to four elements: kind, key, value, tag")
    decode, check = _READERS.get(data[1], _UNKNOWN_READER)
    head = decode(data)
    check(head)
    key = head.key
    if key is None:
        return Cell(data[1], 0, data)
    if (len(key) * 4 > ID_BYTES and len(key.encode()) > ID_BYTES) or (not key and data[1] == ADD):
        raise ConstraintCrdtError(f"the key of a cell must have 1 to {ID_BYTES} bytes")
    cell = Cell(data[1], key, data)
    if data[1] == COUNTS:
        cell.counts = head.counts
    return cell


def make_cell(kind: int, key: str | None, value: object) -> Cell:
    """Encode a cell. Raises `ConstraintCrdtError` if it is larger than a cell may be, or has text or numbers that do not encode."""
    try:
        data = _encode([kind, key] if value is None else [kind, key, value])
    except (UnicodeError, OverflowError):
        raise ConstraintCrdtError("a cell holds valid Unicode text and integers of at most 64 bits, nothing else") from None
    if len(data) > CELL_BYTES:
        raise ConstraintCrdtError(f"the cell would have {len(data)} bytes, more than the {CELL_BYTES} that a cell may have")
    return Cell(kind, 0 if key is None else key, data)


def make_counts(key: str, satisfied: int, violated: int) -> Cell:
    """Encode cumulative counts."""
    cell = make_cell(COUNTS, key, [satisfied, violated] if violated else satisfied)
    cell.counts = (satisfied, violated)
    return cell


class Removed(NamedTuple):
    """What a removal removes: the cell of this kind and key in one replica's row, up to that seq."""

    kind: int
    key: str
    replica: Replica
    seq: int


def make_removal(removed: Iterable[tuple[str, Iterable[tuple[Replica, int]]]], kind: int = ADD) -> Cell:
    """Encode a removal: per key (a constraint id), the dots of cells of one kind that it observed."""
    parts: list[list[object]] = [[key, [[r.node_id, r.incarnation, seq] for r, seq in dots]] for key, dots in removed]
    if kind != ADD:
        parts = [[*part, kind] for part in parts]
    return make_cell(REMOVE, None, parts)


def removed_dots(cell: Cell) -> Iterator[Removed]:
    """What a REMOVE cell removes."""
    for removed in _remove.decode(cell.data).value:
        for dot in removed.dots:
            yield Removed(removed.kind, removed.key, dot.replica, dot.seq)


def definition_value(cell: Cell) -> DefinitionValue:
    """The value of an ADD cell."""
    return _add.decode(cell.data).value or DefinitionValue()


def counts_value(cell: Cell) -> tuple[int, int]:
    """The value of a COUNTS cell: (satisfied, violated), cumulative."""
    value = cell.counts
    if value is None:
        value = cell.counts = _counts.decode(cell.data).counts
    return value


def position_value(cell: Cell) -> PositionValue:
    """The value of a POSITION cell."""
    return _position.decode(cell.data).value


def node_value(cell: Cell) -> NodeValue:
    """The value of a NODE cell."""
    return _node.decode(cell.data).value


def retire_value(cell: Cell) -> RetireValue:
    """The value of a RETIRE cell."""
    return _retire.decode(cell.data).value
