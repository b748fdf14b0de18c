"""Cells, tables of cells and the loops over both, in Python: the specification of the compiled module `_cells`.

The compiled module has the same names. `cells` takes it where it was built, and this module otherwise or with
`CONSTRAINT_CRDT_PURE=1` in the environment. Rules kept here:

- A call gives the same result and the same errors in both modules. `tests/crdt/test_compiled.py` compares them.
- Checks of the content of a cell are not here: `read_cells` is given the reader of `cells`.
"""

import zlib
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import groupby, repeat
from operator import attrgetter
from typing import Any, Final

import msgspec

from constraint_crdt.crdt.clock import Replica
from constraint_crdt.crdt.limits import MAX_COUNT

_DIGEST_BYTES: Final = 32

UNBOUND: Final = Replica("", 0)
"""The replica of a cell before the cell is bound to its row."""

Key = str | int


class Cell(msgspec.Struct, gc=False, eq=False, weakref=False):
    """A cell, bound to its dot. Treat it as immutable: the replicas of a process share cells.

    `gc=False`: a cell holds only strings, bytes, ints and tuples of those, so no cycle can contain a cell. A garbage collector
    walking 100,000 cells would cost more than all other work.
    """

    kind: int
    key: Key
    """The text of the key, or the seq of a cell without a key."""
    data: bytes
    seq: int = 0
    replica: Replica = UNBOUND
    digest: int = 0
    """The keyed hash, set by `fill_digests`; 0 before."""


Holder = Cell | dict[Replica, Cell]


class Table(dict[Key, Holder]):
    """The standing cells of a kind by key: a bare cell where a single row has the key, a dict by replica where several have."""

    __slots__ = ()

    def of(self, key: Key, replica: Replica) -> Cell | None:
        """The cell of a row under a key."""
        held = self.get(key)
        if isinstance(held, dict):
            return held.get(replica)
        return held if held is not None and held.replica == replica else None

    def put(self, cell: Cell) -> Cell | None:
        """Let a cell stand in its slot. Returns the cell that stood there."""
        key, replica = cell.key, cell.replica
        held = self.get(key)
        if held is None:
            self[key] = cell
        elif isinstance(held, dict):
            old = held.get(replica)
            held[replica] = cell
            return old
        elif held.replica == replica:
            self[key] = cell
            return held
        else:
            self[key] = {held.replica: held, replica: cell}
        return None

    def put_first(self, cell: Cell) -> bool:
        """Let a cell stand, if none stands under its key. Returns if it does."""
        return self.setdefault(cell.key, cell) is cell

    def put_new(self, cells: Sequence[Cell]) -> bool:
        """Let cells stand, if their keys differ and are all new here; else none. Returns if they do."""
        firsts: dict[Key, Holder] = {cell.key: cell for cell in cells}
        if len(firsts) < len(cells) or not self.keys().isdisjoint(firsts):
            return False
        self.update(firsts)
        return True

    def drop(self, cell: Cell) -> None:
        """Take the cell of a slot out. Raises `KeyError` if there is none."""
        held = self[cell.key]
        if not isinstance(held, dict):
            del self[cell.key]
            return
        del held[cell.replica]
        if len(held) == 1:
            self[cell.key] = next(iter(held.values()))

    def copy(self) -> "Table":
        """An independent copy; the cells are shared."""
        return Table({key: dict(held) if isinstance(held, dict) else held for key, held in self.items()})


_seq = attrgetter("seq")


class _Counts(msgspec.Struct, array_like=True, gc=False):
    kind: msgspec.Raw
    key: msgspec.Raw
    value: int | tuple[int, int]


_counts: Final = msgspec.msgpack.Decoder(_Counts).decode


def read_cells(raw: Any, _: Callable[[bytes], Cell], read_all: Callable[[Any], tuple[Cell, ...]]) -> tuple[Cell, ...]:
    """The cells of an encoded array, checked and not bound: as `read_all(raw)`, which reads each cell by the second argument."""
    return read_all(raw)


def bind_cells(cells: Sequence[Cell], replica: Replica, lo: int, hi: int, gaps: Sequence[int]) -> bool:
    """Bind cells in ascending order to the mutations of a run, see `cells`. `gaps`: none, or for as many cells.

    False, and nothing is bound, where a seq is not above `lo`.
    """
    above = hi + 1
    seqs = [above := above - gap - 1 for gap in _expanded(gaps)][::-1] if gaps else range(hi - len(cells) + 1, hi + 1)
    if seqs and seqs[0] <= lo:
        return False
    for cell, seq in zip(cells, seqs, strict=True):
        cell.replica, cell.seq = replica, seq
        if not isinstance(cell.key, str):
            cell.key = seq
    return True


def _expanded(gaps: Iterable[int]) -> Iterator[int]:
    """A gap for each cell."""
    last = 0
    for gap in gaps:
        if gap < 0:
            yield from repeat(last, -gap)
        else:
            last = gap
            yield gap


def gaps_of(cells: Sequence[Cell], hi: int) -> list[int]:
    """The gaps of a run up to `hi` as they travel; none where the cells are its last mutations."""
    if not cells or hi - cells[0].seq + 1 == len(cells):
        return []
    seqs = [cell.seq for cell in reversed(cells)]
    return _run_lengths([above - seq - 1 for above, seq in zip([hi + 1, *seqs], seqs, strict=False)])


def _run_lengths(gaps: Iterable[int]) -> list[int]:
    """A row in which counts are overwritten in turn has the same gap over and over."""
    squeezed: list[int] = []
    for gap, same in groupby(gaps):
        repeats = sum(1 for _ in same) - 1
        squeezed += [gap, -repeats] if repeats else [gap]
    return squeezed


def join_cells(cells: Sequence[Cell]) -> bytes:
    """An encoded array of the cells' own bytes."""
    count = len(cells)
    if count < 16:
        header = bytes((0x90 | count,))
    elif count < 2**16:
        header = b"\xdc" + count.to_bytes(2, "big")
    else:
        header = b"\xdd" + count.to_bytes(4, "big")
    return header + b"".join([cell.data for cell in cells])


def blake(data: bytes, size: int, person: bytes, key: bytes = b"") -> bytes:
    """The BLAKE2b hash of some bytes, of `size` bytes, for a purpose. Raises `ValueError` for sizes that it does not have."""
    return blake2b(data, digest_size=size, key=key, person=person).digest()


def hash_blocks(cells: Iterable[Cell], left_out: int, fan: int, size: int, person: bytes) -> dict[int, bytes]:
    """The hash of each block of `fan` seqs by the place of the block: of the first `size` bytes of the digests of its cells.

    `cells`: in ascending order. `left_out`: a kind of cells that have no part in it. `size`: of a hash as well.
    """
    found = {}
    for block, members in groupby([cell for cell in cells if cell.kind != left_out], lambda cell: cell.seq // fan):
        parts = [cell.digest.to_bytes(_DIGEST_BYTES, "big")[:size] for cell in members]
        found[block] = blake(b"".join(parts), size, person)
    return found


def hash_level(below: dict[int, bytes], fan: int, size: int, person: bytes) -> dict[int, bytes]:
    """The hashes of each `fan` hashes of the level below. `below`: by place, in ascending order; a missing hash counts as zeros."""
    found, empty = {}, bytes(size)
    for place in dict.fromkeys([each // fan for each in below]):
        parts = [below.get(each, empty) for each in range(place * fan, (place + 1) * fan)]
        found[place] = blake(b"".join(parts), size, person)
    return found


def hash_above(
    before: dict[int, bytes], changed: dict[int, bytes | None], fan: int, size: int, person: bytes
) -> dict[int, bytes | None]:
    """The changed hashes of the level above some changed hashes; None where no hash is left. `before`: all others, by place."""
    found: dict[int, bytes | None] = {}
    for place in dict.fromkeys([each // fan for each in changed]):
        parts = [changed[each] if each in changed else before.get(each) for each in range(place * fan, (place + 1) * fan)]
        found[place] = blake(b"".join([part or bytes(size) for part in parts]), size, person) if any(parts) else None
    return found


def hash_places(before: dict[int, bytes], changed: dict[int, bytes | None], size: int, wide: int, person: bytes) -> bytes:
    """The hash, in `wide` bytes, of the hashes of `size` bytes of a level and their places, some of them changed; None: no more."""
    after = sorted({**before, **changed}.items())
    return blake(b"".join([place.to_bytes(8, "big") + part[:size] for place, part in after if part is not None]), wide, person)


def hash_path(
    cells: Sequence[Cell],
    dropped: Collection[int] | None,
    new: Sequence[Cell],
    gone: Collection[int],
    blocks: dict[int, bytes | None],
    levels: list[dict[int, bytes]],
    form: tuple[int, int, int, tuple[bytes, ...], int, bytes],
) -> tuple[list[dict[int, bytes | None]], bytes]:
    """The changed hashes of all levels, and the root, after a row changed.

    `cells`: the cells of the row before, those with a seq among the `dropped` left out. `new`: the cells after them. `gone`:
    further seqs that are left out. `blocks`: changed blocks, beside those of new cells and gone ones; of a block with a hash no
    cell is looked at. `levels`: the hashes before. `form`: a kind of cells that have no part, seqs of a block, bytes of a hash,
    the purpose of each level, bytes of the root, its purpose.
    """
    left_out, fan, size, persons, wide, person = form
    touched = {seq // fan for seq in gone}.union([cell.seq // fan for cell in new if cell.kind != left_out], blocks)
    lowest = {place: blocks.get(place) for place in sorted(touched)}
    kept: list[Cell] = []
    for place, known in lowest.items():
        if known is None:
            lo, hi = place * fan - 1, place * fan + fan - 1
            kept += [cell for cell in (*standing(cells, lo, hi, dropped), *standing(new, lo, hi, None)) if cell.seq not in gone]
    path: list[dict[int, bytes | None]] = [{**lowest, **hash_blocks(kept, left_out, fan, size, persons[0])}]
    for level in range(1, len(levels)):
        path.append(hash_above(levels[level - 1], path[-1], fan, size, persons[level]))
    return path, hash_places(levels[-1], path[-1], size, wide, person)


def put_hashes(levels: list[dict[int, bytes]], changes: Sequence[dict[int, bytes | None]]) -> None:
    """Put the changed hashes of each level in; None: there is no hash any more."""
    for hashes, changed in zip(levels, changes, strict=True):
        for place, part in changed.items():
            if part is None:
                hashes.pop(place, None)
            else:
                hashes[place] = part


def has_repeats(cells: Sequence[Cell]) -> bool:
    """True if two cells have the same kind and key."""
    return len({(cell.kind, cell.key) for cell in cells}) < len(cells)


def fill_digests(cells: Iterable[Cell], key: bytes, prefix: bytes) -> None:
    """Set the hash of each cell without a hash, keyed, over the prefix, the seq and the bytes."""
    unknown = [cell for cell in cells if not cell.digest]
    if not unknown:
        return
    row, number = blake2b(prefix, key=key, digest_size=32, person=b"cell"), int.from_bytes
    for cell in unknown:
        hasher = row.copy()
        hasher.update(cell.seq.to_bytes(8, "big") + cell.data)
        cell.digest = number(hasher.digest())


def all_hashed(cells: Iterable[Cell]) -> bool:
    """True if each cell has its hash."""
    return not [cell for cell in cells if not cell.digest]


def sum_digests(cells: Iterable[Cell]) -> int:
    """The sum of the hashes, not reduced."""
    return sum([cell.digest for cell in cells])


def data_bytes(cells: Iterable[Cell]) -> int:
    """The bytes of some cells, all together."""
    return sum([len(cell.data) for cell in cells])


def row_spans(cells: Iterable[Cell]) -> list[tuple[Replica, int, int]]:
    """The first and the last seq of each stretch of cells of a row."""
    stretches = [(replica, list(stretch)) for replica, stretch in groupby(cells, attrgetter("replica"))]
    return [(replica, stretch[0].seq, stretch[-1].seq) for replica, stretch in stretches]


def position(cells: Sequence[Cell], seq: int) -> int:
    """How many of some cells in ascending order have a seq up to `seq`."""
    return bisect_right(cells, seq, key=_seq)


def standing(cells: Sequence[Cell], lo: int, hi: int, dropped: Collection[int] | None) -> list[Cell]:
    """Of some cells in ascending order those with lo < seq <= hi, and a seq that is not among the `dropped`."""
    found = cells[position(cells, lo) : position(cells, hi)]
    return [cell for cell in found if cell.seq not in dropped] if dropped else list(found)


def superseded(tables: dict[int, Table], cells: Iterable[Cell], left_out: int) -> list[int]:
    """The seqs of the cells that stand where some bound cells with a text as key are to stand. `left_out`: a kind not looked at."""
    found = [
        tables[cell.kind].of(cell.key, cell.replica)
        for cell in cells
        if cell.kind != left_out and cell.kind in tables and isinstance(cell.key, str)
    ]
    return [cell.seq for cell in found if cell is not None]


def by_kind(cells: Iterable[Cell]) -> dict[int, list[Cell]]:
    """The cells of each kind, in their order."""
    found: dict[int, list[Cell]] = {}
    for cell in cells:
        found.setdefault(cell.kind, []).append(cell)
    return found


def of_kinds(cells: Iterable[Cell], kinds: bytes) -> list[Cell]:
    """The cells of some kinds, a byte each, in their order."""
    return [cell for cell in cells if cell.kind in kinds]


_any_cell: Final = msgspec.msgpack.Decoder(list[Any]).decode
_WITHOUT_VALUE: Final = b"\x92"
"""How an add without a value begins: an array of two, the kind and the id. Most adds of a large fleet are such."""

_VALUE, _END = 2, 4


def ending(cells: Iterable[Cell]) -> list[Cell]:
    """The ADD cells with an end: the fifth element of the value is there, and not nil. Damaged cells count as such."""
    return [cell for cell in cells if cell.data[:1] != _WITHOUT_VALUE and ends(cell.data)]


def ends(data: bytes) -> bool:
    """True if the definition in the bytes of an ADD cell has an end, and for damaged bytes."""
    try:
        value = _any_cell(data)[_VALUE]
        return value is not None and len(value) > _END and value[_END] is not None
    except (msgspec.DecodeError, UnicodeError, RecursionError, LookupError, TypeError):
        return True


def counts_of(cell: Cell) -> tuple[int, int]:
    """The (satisfied, violated) counts of a COUNTS cell; zeros for damaged bytes, which a repair replaces."""
    try:
        value = _counts(cell.data).value
    except (msgspec.DecodeError, RecursionError):
        return 0, 0
    satisfied, violated = (value, 0) if isinstance(value, int) else value
    return (satisfied, violated) if 0 <= min(satisfied, violated) <= max(satisfied, violated) <= MAX_COUNT else (0, 0)


def deflate(data: bytes, most: int) -> bytes | None:
    """The data compressed in the zlib format to at most so many bytes; None where that cannot be had.

    Any reader of the format reads the output of both modules, but the bytes differ.
    """
    packed = zlib.compress(data, 1)
    return packed if len(packed) <= most else None


def ahead(mine: dict[Any, int], theirs: dict[Any, int]) -> list[tuple[Any, int]]:
    """The entries of `theirs`, 0 included, for the keys where `mine` is higher, in the order of `mine`. Values are above 0."""
    return [(key, seq) for key, high in mine.items() if high > (seq := theirs.get(key, 0))]


def lowered(at: dict[Any, int], entries: Iterable[tuple[Any, int]]) -> int | None:
    """The sum by which these entries are below those of `at`; None if an entry is not."""
    by = [at.get(key, 0) - seq for key, seq in entries]
    return sum(by) if min(by, default=1) > 0 else None


def pick(rows: dict[Any, Any], above: Iterable[tuple[Any, int]], whole: type[Any], make: Callable[[Any, int], Any]) -> list[Any]:
    """The row of each key with 0, where it is a `whole`; else `make(key, seq)`."""
    return [row if not seq and type(row := rows[key]) is whole else make(key, seq) for key, seq in above]


def total_counts(cells: Iterable[Cell]) -> list[tuple[Replica, int, int]]:
    """The sums of the counts of COUNTS cells, for each stretch of cells of a row."""
    found = []
    for replica, stretch in groupby(cells, attrgetter("replica")):
        counts = [counts_of(cell) for cell in stretch]
        found.append((replica, sum([each[0] for each in counts]), sum([each[1] for each in counts])))
    return found
