"""Cells: the unit of state, and their wire form.

A cell is the latest value that one replica wrote under one key: `(seq, value)`. On the wire and in the store it is one msgpack
array `[kind, key, value, tag]`, trailing parts left out where they are nil; replica and seq come from where it stands (its run).
`tag` is room for an authentication tag. The bytes received are what is kept, hashed and forwarded. They are never re-encoded, so
a cell of a kind that this version does not know travels through it unharmed.

| kind | key | value |
|---|---|---|
| 1 ADD | constraint id | nil, or `[when, severity, about, [[label, value], …], expires at, added at]`; times in ns |
| 2 REMOVE | nil: its own seq, never overwritten | `[[key, [[node id, incarnation, seq], …], kind], …]`; kind 1 if left out |
| 3 COUNTS | constraint id, "" for the node | `[satisfied, violated]`, cumulative; only `satisfied` while nothing was violated |
| 4 POSITION | "" | `[a, b, time in ns, [[node id, incarnation, seq], …]]` |
| 5 NODE | "" | `[software version, wire version, [endpoint, …], [[label, value], …]]` |
| 6 RETIRE | node id, or one replica as text | `[whole node, [[node id, incarnation, seq], …]]`: these lives are over |
| 7 COUNTER | counter name | `[increments, decrements]`, cumulative |
| 8 DECAY | counter name | `[time, [[half-life in s, value], …]]` |
| 9 RATE | constraint id | `[time, [[half-life in s, satisfied, violated], …]]` |
| 10 SKETCH | sketch name | `[width, depth, total, [[frequent item, count], …], saturated]` |
| 11 SKETCH_PAGE | sketch name, page | bytes: this row's own counters, compressed |
| 12 BLOOM | filter name | `[bits, hashes, expected items, inserted]` |
| 13 BLOOM_PAGE | filter name, page | bytes: the bits that this row set, compressed |
| 14 TILE | room, tile id | `[created, author]` |
| 15 CONTENT | room, tile id | `[time, size, hash]` |
| 16 CONTENT_PAGE | room, tile id, page | bytes |
| 17 ELEMENT | room, tile id, letter, element | `t` tag, `k` constraint: nil; `f` constraint by foreign tags: `[[node, seq], …]` |
| 18 TOMBSTONES | room, tile id, foreign node | `[[first seq, last seq], …]`: foreign tags that are removed |
| 19 TILE_COUNTS | room, tile id, who counted | `[satisfied, violated]`, cumulative |
| 20 TILE_POSITION | room, tile id | as POSITION; and who wrote it, if that was somebody outside of the fleet |
| 21 DELETED | room, tile id | `[time, [[node id, incarnation, seq], …]]`: the CONTENT cells that were seen |
| 22 INCREMENTS | room, foreign node, its seq | `[satisfied, violated]` |
| 23 APPLIED | room, foreign node, page | `[[first seq, level, satisfied, violated], …]`: increments of 2**level seqs each |

A key of several parts has them joined by `SEPARATOR`; see `make_key`.
`read_cell` is the only way from bytes to a cell, and it validates the value of every known kind, so that applying one cannot fail.

Runs: the one form in which state travels.

`Run(replica, lo, hi, cells)` means: *these are all the cells of that row with lo < seq <= hi that still stand*, in ascending
order of seq. `floor` goes with the runs of a Sync: up to there, removals of that row were dropped by the sender.

A run from 0 is a whole row. It is the same one on every node whose clock is at `hi` for it, so nodes of one process share it, see
`Rows`.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Any, Final, NamedTuple

import msgspec

from constraint_crdt.crdt.limits import CELL_BYTES, ID_BYTES, KEY_BYTES, SEPARATOR
from constraint_crdt.crdt.replica import Replica
from constraint_crdt.crdt.shapes import SHAPES, CountsCell, RemoveCell, UnknownCell
from constraint_crdt.crdt.values import (
    ADD,
    COUNTER,
    COUNTS,
    DECAY,
    NODE,
    POSITION,
    RATE,
    REMOVE,
    RETIRE,
    DefinitionValue,
    NodeValue,
    PositionValue,
    RetireValue,
    WireDot,
)
from constraint_crdt.errors import ConstraintCrdtError

__all__ = [  # with the kinds and values that nearly every reader of cells wants
    "ADD",
    "COUNTS",
    "NODE",
    "POSITION",
    "REMOVE",
    "RETIRE",
    "SEPARATOR",
    "UNBOUND",
    "Cell",
    "DefinitionValue",
    "Key",
    "NodeValue",
    "PositionValue",
    "Removed",
    "RetireValue",
    "WireDot",
    "counts_value",
    "definition_value",
    "make_cell",
    "make_counts",
    "make_key",
    "make_removal",
    "node_value",
    "position_value",
    "read_cell",
    "removals_of",
    "removed_dots",
    "retire_value",
    "split_key",
    "value_of",
]

MAX_KIND: Final = 127

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


_encode = msgspec.msgpack.Encoder().encode
_READERS: Final = {kind: (msgspec.msgpack.Decoder(shape).decode, check) for kind, (shape, check) in SHAPES.items()}
_UNKNOWN_READER: Final = (msgspec.msgpack.Decoder(UnknownCell).decode, lambda _: None)
_read_remove: Final = msgspec.msgpack.Decoder(RemoveCell).decode
_read_counts: Final = msgspec.msgpack.Decoder(CountsCell).decode

_PLAIN_KEYS: Final = frozenset((ADD, COUNTS, POSITION, NODE, RETIRE, COUNTER, DECAY, RATE))
"""The kinds whose key is one id, or empty. Those of the others are made of parts, see `make_key`."""

DOTS_PER_REMOVAL: Final = 20
"""So many always fit into a cell, however long the keys."""

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
    most = ID_BYTES if data[1] in _PLAIN_KEYS else KEY_BYTES
    if (len(key) * 4 > most and len(key.encode()) > most) or (not key and data[1] == ADD):
        raise ConstraintCrdtError(f"the key of a cell must have 1 to {most} bytes")
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


def make_key(*parts: str) -> str:
    """The key made of several parts. Raises `ConstraintCrdtError` for a part but the last that contains the separator."""
    if any(SEPARATOR in part for part in parts[:-1]):
        raise ConstraintCrdtError("a name that others are combined with must not contain the control character U+001F")
    return SEPARATOR.join(parts)


def split_key(key: Key, parts: int) -> list[str]:
    """The parts of a key that has so many; fewer if whoever wrote it knew no better."""
    return str(key).split(SEPARATOR, parts - 1)


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


def removals_of(cells: Iterable[Cell]) -> list[Cell]:
    """As many removals as it takes to name these cells, of whatever kinds and keys."""
    found: list[Cell] = []
    chosen = list(cells)
    for start in range(0, len(chosen), DOTS_PER_REMOVAL):
        named: dict[tuple[int, Key], list[list[object]]] = {}
        for cell in chosen[start : start + DOTS_PER_REMOVAL]:
            dots = named.setdefault((cell.kind, cell.key), [])
            dots.append([cell.replica.node_id, cell.replica.incarnation, cell.seq])
        parts = [[key, dots] if kind == ADD else [key, dots, kind] for (kind, key), dots in named.items()]
        found.append(make_cell(REMOVE, None, parts))
    return found


def removed_dots(cell: Cell) -> Iterator[Removed]:
    """What a REMOVE cell removes."""
    for removed in _read_remove(cell.data).value:
        for dot in removed.dots:
            yield Removed(removed.kind, removed.key, dot.replica, dot.seq)


def value_of(cell: Cell) -> Any:
    """The value of a cell of a known kind, as the type that `values` has for it. It was checked when the cell was read."""
    return _READERS[cell.kind][0](cell.data).value


def definition_value(cell: Cell) -> DefinitionValue:
    """The value of an ADD cell."""
    return value_of(cell) or DefinitionValue()


def counts_value(cell: Cell) -> tuple[int, int]:
    """The value of a COUNTS cell: (satisfied, violated), cumulative."""
    value = cell.counts
    if value is None:
        value = cell.counts = _read_counts(cell.data).counts
    return value


def position_value(cell: Cell) -> PositionValue:
    """The value of a POSITION or TILE_POSITION cell."""
    value: PositionValue = value_of(cell)
    return value


def node_value(cell: Cell) -> NodeValue:
    """The value of a NODE cell."""
    value: NodeValue = value_of(cell)
    return value


def retire_value(cell: Cell) -> RetireValue:
    """The value of a RETIRE cell."""
    value: RetireValue = value_of(cell)
    return value


_seq = attrgetter("seq")


class Run(msgspec.Struct, gc=False, eq=False):
    """One stretch of one row. Treat it, its cells and their sequence as immutable: they are shared between nodes."""

    replica: Replica
    lo: int
    hi: int
    cells: Sequence[Cell]
    floor: int = 0
    entry: int = 0
    """The keyed hash of the clock entry (replica, hi), filled in by `Digest.enter`; 0 while it is not known."""

    def above(self, lo: int) -> list[Cell]:
        """Its cells with a seq above `lo`. O(cells above lo)."""
        return list(self.cells[bisect_right(self.cells, lo, key=_seq) :] if lo else self.cells)

    def without_floor(self) -> "Run":
        """The same stretch as somebody tells of it who dropped nothing."""
        return Run(self.replica, self.lo, self.hi, self.cells, 0, self.entry) if self.floor else self
