"""Cells: the unit of state, their kinds, their wire form, removals, and runs.

A cell is the latest value of a replica under a key: `(seq, value)`. On the wire and in the store a cell is a msgpack array
`[kind, key, value, tag]`; trailing nil parts are left out. Replica and seq come from the run around the cell. `tag` is reserved
for an authentication tag. A key of several parts has them joined by `SEPARATOR`; see `make_key`.

A *kind* is a number with a wire value, bounds and a shape of key. Each type in `types` registers and documents its kinds. The
modules of `crdt` name a single kind, since the merge rule depends on removals:

| kind | key | value |
|---|---|---|
| 2 REMOVE | nil: its own seq, never overwritten | `[[key, [[node id, incarnation, seq], …], kind], …]`; kind 1 if left out |

`Run(replica, lo, hi, cells)` is the form in which state travels: all cells of the row with lo < seq <= hi that still stand, in
ascending order of seq. `floor` belongs to the runs of a Sync: the sender dropped the removals of the row up to there. A run from
0 is a whole row, shared by the nodes of a process whose clocks agree on the row; see `Rows`.

Rules kept here:

- The received bytes are kept, hashed and forwarded, never encoded again. So a cell of an unregistered kind passes unchanged.
- A kind is registered once, with a decoder and a check. `read_cell` is the only way from bytes to a cell and applies both, so
  applying a cell cannot fail.
- Bounds are checked by functions, not declared with `msgspec.Meta`: with `Meta`, building a decoder crashes the interpreter when
  the garbage collector runs at the wrong moment (msgspec issue 717, seen with 0.22.0 on CPython 3.11).

On the wire a run is `[ref, span, cells, gaps, lo, floor, stubs]`, trailing parts left out where they are empty or 0:

- `ref`: an index into the sorted replicas of a clock known to both sides (the message names it), or `[node id, incarnation]`;
- `span`: hi - lo. Where `ref` is an index, lo is the entry of the clock; otherwise lo is spelled out as `lo`;
- `cells`: their own bytes, in ascending order of seq;
- `gaps`: left out where the cells are the last `len(cells)` mutations up to hi, so seqs cost nothing. Otherwise, counted
  downwards from hi, how many seqs are skipped before each cell, the last cell first; -n repeats the number before n more times;
- `stubs`: of a signed row, `[seq - lo, kind, key, digest]` of each covered cell that does not stand.

The parser gives an `UnboundRun`; `bind` adds replica and seqs, and checks that they fit.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from constraint_crdt.crdt.clock import ClockMark, Replica, check_id, check_replica
from constraint_crdt.crdt.limits import CELL_BYTES, ID_BYTES, KEY_BYTES, MAX_COUNT
from constraint_crdt.errors import ConstraintCrdtError, InvalidValue

if TYPE_CHECKING:
    from constraint_crdt.crdt import _cells
else:
    try:
        from constraint_crdt.crdt import _cells
    except ImportError:  # not built, or CONSTRAINT_CRDT_PURE=1
        from constraint_crdt.crdt import pure_cells as _cells

core = _cells
"""The compiled module; or, where it is missing or not wanted, `pure_cells`, which is its specification."""

COMPILED: Final = not core.__name__.endswith("pure_cells")

CORE: Final = "compiled" if COMPILED else "pure Python"
"""The core in words."""

Cell = core.Cell
Table = core.Table
UNBOUND = core.UNBOUND

Key = str | int
Holder = Cell | dict[Replica, Cell]

REMOVE: Final = 2
MAX_KIND: Final = 127
"""The highest number of a kind."""

DEFAULT_REMOVED_KIND: Final = 1
"""The kind of the cells in a removal without a kind."""

DOTS_PER_REMOVAL: Final = 20
"""So many always fit into a cell, however long the keys."""

SEPARATOR: Final = "\x1f"
"""Between the parts of a key. Only the last part may contain the separator."""


Check = Callable[[Any, Any], object]
"""Takes the key and the decoded value of a cell; raises `ConstraintCrdtError` for a value out of bounds."""


class CellReader(NamedTuple):
    """The functions and bounds applied by `read_cell` to a kind."""

    decode: Callable[[bytes], Any]
    """From the bytes of a cell to a struct with `kind`, `key`, `value` and `tag`."""
    check: Check
    key_bytes: int
    """The longest key, in UTF-8."""
    empty_key: bool
    """The key may be empty."""


class _UnknownCell(msgspec.Struct, array_like=True, gc=False):
    kind: int
    key: str | None
    value: msgspec.Raw = msgspec.Raw()
    tag: bytes | None = None


def _no_check(key: object, value: object) -> None:
    """Accept any value."""


UNKNOWN: Final = CellReader(msgspec.msgpack.Decoder(_UnknownCell).decode, _no_check, KEY_BYTES, True)
"""The reader of all unregistered kinds."""

READERS: Final[dict[int, CellReader]] = {}
"""The reader of each registered kind. Only `register` writes here."""

REMOVABLE: Final[dict[int, bool]] = {}
"""The kinds that removals may name. True: a removal names the cell by a non-empty id. Only `register` writes here."""

RANKS: Final[dict[int, Callable[[Any], int]]] = {}
"""The rank of a value in a repair, by kind. Only `register` writes here."""

BARE_HEADS: Final[dict[int, bytes]] = {}
"""The first three bytes of a cell with a kind and a short key alone, by the length of the cell. Only `register` writes here."""

_SHORT_KEY_BYTES: Final = 31


def register(
    kind: int,
    value_type: Any,
    check: Check = _no_check,
    *,
    key_type: Any = str,
    key_bytes: int = KEY_BYTES,
    empty_key: bool = True,
    default: Any = msgspec.NODEFAULT,
    removable: bool = False,
    removed_by_id: bool = False,
    rank: Callable[[Any], int] | None = None,
    bare: bool = False,
) -> None:
    """Register a kind. Raises `ValueError` for a number out of range or registered before.

    `value_type`: the wire value, as msgspec decodes it. `check`: the bounds of key and value. `key_type`, `key_bytes`,
    `empty_key`: the shape of the key. `default`: the value of a cell without a value; left out, the value is required.
    `removable`: removals may name the cells, with `removed_by_id` by an id as key. `rank`: of two cells with the same dot and
    different values, a repair keeps the higher rank. `bare`: most cells have no value, and are read without decoding; a single
    kind at most.
    """
    if kind in READERS or not 0 <= kind <= MAX_KIND:
        raise InvalidValue(f"the kind {kind} is registered already, or not from 0 to {MAX_KIND}")
    if bare and BARE_HEADS:
        raise InvalidValue("another kind is read without decoding already")
    value_field = ("value", value_type) if default is msgspec.NODEFAULT else ("value", value_type, default)
    fields = [("kind", int), ("key", key_type), value_field]
    # The tag is last on the wire and may be missing where the value may not: only a keyword-only field can stand so.
    shape = msgspec.defstruct(f"Cell{kind}", fields, bases=(_Tail,), array_like=True, gc=False)
    READERS[kind] = CellReader(msgspec.msgpack.Decoder(shape).decode, check, key_bytes, empty_key)
    if removable:
        REMOVABLE[kind] = removed_by_id
    if rank is not None:
        RANKS[kind] = rank
    if bare:
        BARE_HEADS.update({3 + size: bytes((0x92, kind, 0xA0 | size)) for size in range(1, _SHORT_KEY_BYTES + 1)})


class _Tail(msgspec.Struct, array_like=True, gc=False, kw_only=True):
    tag: bytes | None = None


def registered() -> Collection[int]:
    """The numbers of all registered kinds, in ascending order."""
    return sorted(READERS)


def require(condition: bool, subject: str) -> None:
    """Raise `ConstraintCrdtError` about the subject unless the condition holds."""
    if not condition:
        raise ConstraintCrdtError(f"{subject} is out of bounds")


def require_counts(numbers: Iterable[int], subject: str) -> None:
    """Raise `ConstraintCrdtError` unless all numbers are from 0 to 2**63 - 1."""
    require(all(0 <= number <= MAX_COUNT for number in numbers), subject)


def require_text(text: str, subject: str, max_bytes: int = ID_BYTES) -> None:
    """Raise `ConstraintCrdtError` for a text of more bytes in UTF-8."""
    require(len(text.encode()) <= max_bytes, subject)


_encode = msgspec.msgpack.Encoder().encode

# Bound once: CPython 3.11 makes a new bound method at each call of a method of an imported name.
_bare_head = BARE_HEADS.get
_reader_of = READERS.get


def read_cell(data: bytes) -> Cell:
    """Decode and validate a cell. Replica and seq are bound later, see `UnboundRun`.

    Raises `msgspec.DecodeError`, `RecursionError`, `UnicodeError` or `ConstraintCrdtError`; the codec turns all of them into the
    last.
    """
    if data[:3] == _bare_head(len(data)):  # the most common cell by far, in a third of the time
        return Cell(data[1], data[3:].decode(), data)
    if len(data) > CELL_BYTES:
        raise ConstraintCrdtError(f"a cell has {len(data)} bytes, more than the {CELL_BYTES} allowed")
    if len(data) < 3 or not 0x92 <= data[0] <= 0x94 or data[1] > MAX_KIND:
        raise ConstraintCrdtError("a cell must be an array of two to four elements: kind, key, value, tag")
    reader: CellReader = _reader_of(data[1], UNKNOWN)
    decode, check, key_bytes, empty_key = reader
    head = decode(data)
    key = head.key
    check(key, head.value)
    if key is None:
        return Cell(data[1], 0, data)
    if (len(key) * 4 > key_bytes and len(key.encode()) > key_bytes) or not (key or empty_key):
        raise ConstraintCrdtError(f"the key of a cell must have 1 to {key_bytes} bytes")
    return Cell(data[1], key, data)


_raw_cells: Final = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode


def _read_all(raw: msgspec.Raw) -> tuple[Cell, ...]:
    return tuple([read_cell(bytes(each)) for each in _raw_cells(raw)])


def read_cells(raw: msgspec.Raw) -> tuple[Cell, ...]:
    """Decode and validate an encoded array of cells. Raises `msgspec.DecodeError` for another form, and as `read_cell` does."""
    return core.read_cells(raw, read_cell, _read_all)


def make_cell(kind: int, key: str | None, value: object) -> Cell:
    """Encode a cell. Raises `ConstraintCrdtError` for a cell above the size limit, and for text or numbers without an encoding."""
    try:
        data = _encode([kind, key] if value is None else [kind, key, value])
    except (UnicodeError, OverflowError):
        raise ConstraintCrdtError("a cell holds valid Unicode text and integers of at most 64 bits, nothing else") from None
    if len(data) > CELL_BYTES:
        raise ConstraintCrdtError(f"the cell would have {len(data)} bytes, more than the {CELL_BYTES} that a cell may have")
    return Cell(kind, 0 if key is None else key, data)


def make_key(*parts: str) -> str:
    """The key made of several parts. Raises `ConstraintCrdtError` for a part before the last with the separator in it."""
    if any(SEPARATOR in part for part in parts[:-1]):
        raise ConstraintCrdtError("a name that others are combined with must not contain the control character U+001F")
    return SEPARATOR.join(parts)


def split_key(key: Key, parts: int) -> list[str]:
    """The parts of a key, at most `parts` of them; fewer for a malformed key."""
    return str(key).split(SEPARATOR, parts - 1)


class WireDot(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A dot inside a cell's value."""

    node_id: str
    incarnation: int
    seq: int

    @property
    def replica(self) -> Replica:
        """The replica of the mutation."""
        return Replica(self.node_id, self.incarnation)


def check_dots(dots: Iterable[WireDot]) -> None:
    """Raise `ConstraintCrdtError` for a dot outside the range of mutations."""
    for dot in dots:
        check_replica(dot.node_id, dot.incarnation)
        require(0 <= dot.seq <= MAX_COUNT, "the seq of a dot")


class RemovedValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An element of the value of a REMOVE cell: the dots of cells of a kind under a key."""

    key: str
    dots: tuple[WireDot, ...]
    kind: int = DEFAULT_REMOVED_KIND


def _check_remove(_: None, value: tuple[RemovedValue, ...]) -> None:
    for removed in value:
        require(removed.kind in REMOVABLE, "the kind of what is removed")
        if REMOVABLE[removed.kind]:
            check_id(removed.key, "the key of what is removed")
        check_dots(removed.dots)


register(REMOVE, tuple[RemovedValue, ...], _check_remove, key_type=None)


class Removed(NamedTuple):
    """The target of a removal: the cell of this kind and key in the row of a replica, up to a seq."""

    kind: int
    key: str
    replica: Replica
    seq: int


def make_removal(removed: Iterable[tuple[str, Iterable[tuple[Replica, int]]]], kind: int = DEFAULT_REMOVED_KIND) -> Cell:
    """Encode a removal: per key (a constraint id), the dots of the observed cells of a kind."""
    parts: list[list[object]] = [[key, [[r.node_id, r.incarnation, seq] for r, seq in dots]] for key, dots in removed]
    if kind != DEFAULT_REMOVED_KIND:
        parts = [[*part, kind] for part in parts]
    return make_cell(REMOVE, None, parts)


def removals_of(cells: Iterable[Cell]) -> list[Cell]:
    """The removals that name these cells, of any kinds and keys; as few as the size of a cell allows."""
    found: list[Cell] = []
    chosen = list(cells)
    for start in range(0, len(chosen), DOTS_PER_REMOVAL):
        named: dict[tuple[int, Key], list[list[object]]] = {}
        for cell in chosen[start : start + DOTS_PER_REMOVAL]:
            dots = named.setdefault((cell.kind, cell.key), [])
            dots.append([cell.replica.node_id, cell.replica.incarnation, cell.seq])
        parts = [[key, dots] if kind == DEFAULT_REMOVED_KIND else [key, dots, kind] for (kind, key), dots in named.items()]
        found.append(make_cell(REMOVE, None, parts))
    return found


def removed_dots(cell: Cell) -> Iterator[Removed]:
    """The targets of a REMOVE cell."""
    for removed in READERS[REMOVE].decode(cell.data).value:
        for dot in removed.dots:
            yield Removed(removed.kind, removed.key, dot.replica, dot.seq)


def value_of(cell: Cell) -> Any:
    """The decoded value of a cell of a registered kind, already checked by `read_cell`."""
    return READERS[cell.kind].decode(cell.data).value


def rank_of(cell: Cell) -> int:
    """The rank of a cell's value in a repair; 0 for kinds without ranks."""
    rank = RANKS.get(cell.kind)
    return 0 if rank is None else rank(value_of(cell))


class Stub(NamedTuple):
    """The remains of a removed cell that the signature of its row still covers (`crdt.signed_rows`)."""

    seq: int
    kind: int
    key: str | None
    """None for a cell whose key is its seq."""
    digest: bytes
    """16 bytes."""


_read_gaps: Final = msgspec.msgpack.Decoder(list[int]).decode
_read_stubs: Final = msgspec.msgpack.Decoder(list[Stub]).decode


def array_length(raw: msgspec.Raw) -> int:
    """The number of elements of an encoded value, which is well-formed: of an array as its first bytes state, else 0."""
    head = bytes(memoryview(raw)[:5])
    if not head:
        return 0
    if head[0] & 0xF0 == 0x90:
        return head[0] & 0x0F
    sizes = {0xDC: 3, 0xDD: 5}
    return int.from_bytes(head[1 : sizes[head[0]]], "big") if head[0] in sizes else 0


class Run(msgspec.Struct, gc=False, eq=False):
    """A stretch of a row. Treat a run, its cells and their sequence as immutable: nodes share them."""

    replica: Replica
    lo: int
    hi: int
    cells: Sequence[Cell]
    floor: int = 0
    entry: int = 0
    """The keyed hash of the clock entry (replica, hi), set by `Digest.enter`; 0 before."""
    stubs: Sequence[Stub] = ()
    """Of a signed row, the stubs above `lo`, in ascending order of seq."""

    def above(self, lo: int) -> list[Cell]:
        """Its cells with a seq above `lo`. O(cells above lo)."""
        return list(self.cells[core.position(self.cells, lo) :] if lo else self.cells)

    def without_floor(self) -> "Run":
        """The same stretch without a floor, as sent by a node that dropped no removals."""
        return Run(self.replica, self.lo, self.hi, self.cells, 0, self.entry, self.stubs) if self.floor else self


Ref = int | tuple[str, int]
"""A reference to a replica in msgpack."""


class WireRun(msgspec.Struct, array_like=True, gc=False):
    """A run in msgpack."""

    ref: Ref
    span: int
    cells: msgspec.Raw
    """An array, as are `gaps` and `stubs`. Not read yet, so that its length is checked before memory is taken."""
    gaps: msgspec.Raw = msgspec.Raw()
    lo: int = 0
    floor: int = 0
    stubs: msgspec.Raw = msgspec.Raw()

    @property
    def items(self) -> int:
        """The number of cells and stubs, as the encoding states."""
        return array_length(self.cells) + array_length(self.stubs)


class UnboundRun(msgspec.Struct, gc=False, eq=False):
    """A run from the wire. Its replica may still be an index, so its cells have no dots yet."""

    ref: int | Replica
    span: int
    cells: Sequence[Cell]
    gaps: Sequence[int] = ()
    lo: int = 0
    floor: int = 0
    stubs: Sequence[Stub] = ()

    def bind(self, base: ClockMark | None) -> Run:
        """Resolve against the clock named by the message. Raises `ConstraintCrdtError` for a run outside of the clock."""
        ref = self.ref
        if base is None or isinstance(ref, Replica):
            replica, lo = resolve(ref, base), self.lo
        else:
            order = base.order
            replica = order[ref] if ref < len(order) else resolve(ref, base)
            lo = base.entries[replica]
        hi = lo + self.span
        if hi > MAX_COUNT or not core.bind_cells(self.cells, replica, lo, hi, self.gaps):
            raise ConstraintCrdtError(f"a run of {replica} has cells outside of {lo} < seq <= {hi}")
        stubs = [Stub(lo + each.seq, each.kind, each.key, each.digest) for each in self.stubs] if self.stubs else ()
        return Run(replica, lo, hi, self.cells, self.floor, 0, stubs)


def resolve(ref: int | Replica, base: ClockMark | None) -> Replica:
    """The replica of a reference. Raises `ConstraintCrdtError` for an index beyond the clock."""
    if isinstance(ref, Replica):
        return ref
    if base is None or ref >= len(base.order):
        raise ConstraintCrdtError(f"a run refers to entry {ref} of a clock that has no such entry")
    return base.order[ref]


def ref_of(replica: Replica, base: ClockMark | None) -> int | tuple[str, int]:
    """The shortest reference to a replica, given the clock named by the message."""
    index = base.index(replica) if base is not None else None
    return (replica.node_id, replica.incarnation) if index is None else index


def read_ref(ref: int | tuple[str, int]) -> int | Replica:
    """A reference as decoded, checked."""
    if not isinstance(ref, int):
        return check_replica(*ref)
    if ref < 0:
        raise ConstraintCrdtError("an index into a clock cannot be negative")
    return ref


def read_run(wire: WireRun) -> UnboundRun:
    """Validate a decoded run and all of its cells."""
    if not (1 <= wire.span <= MAX_COUNT and 0 <= wire.lo <= MAX_COUNT and 0 <= wire.floor <= MAX_COUNT):
        raise ConstraintCrdtError("a number in a run is out of bounds")
    cells = read_cells(wire.cells)
    gaps: Sequence[int] = ()
    if array_length(wire.gaps):
        gaps = _read_gaps(wire.gaps) if array_length(wire.gaps) <= len(cells) else (-1,)
        if gaps[0] < 0 or _count(gaps) != len(cells):
            raise ConstraintCrdtError(f"a run has {len(cells)} cells, and gaps for another number of them")
    stubs = _read_stubs(wire.stubs) if len(wire.stubs) else ()
    return UnboundRun(read_ref(wire.ref), wire.span, cells, gaps, wire.lo, wire.floor, stubs)


def wire_run(run: Run | UnboundRun, base: ClockMark | None) -> list[object]:
    """A run for the msgspec encoder. Decoding and encoding a run gives the same bytes."""
    cells = msgspec.Raw(core.join_cells(run.cells))
    if isinstance(run, Run):
        ref: object = ref_of(run.replica, base)
        gaps: Sequence[int]
        lo, span, gaps = 0 if isinstance(ref, int) else run.lo, run.hi - run.lo, core.gaps_of(run.cells, run.hi)
        stubs = [(each.seq - run.lo, each.kind, each.key, each.digest) for each in run.stubs] if run.stubs else run.stubs
    else:
        ref, lo, span, gaps, stubs = run.ref, run.lo, run.span, run.gaps, run.stubs
    if not (lo or run.floor or stubs):
        return [ref, span, cells, gaps] if gaps else [ref, span, cells]
    parts = [ref, span, cells, gaps, lo, run.floor, stubs]
    while not parts[-1]:
        parts.pop()
    return parts


def _count(gaps: Iterable[int]) -> int:
    """The number of cells described by compressed gaps."""
    return sum(-gap if gap < 0 else 1 for gap in gaps)
