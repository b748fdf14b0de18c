"""Runs on the wire.

A run is `[ref, span, cells, gaps, lo, floor, stubs]`, trailing parts left out where they are empty or 0:

- `ref`: an index into the sorted replicas of a clock known to both sides (the message names it), or `[node id, incarnation]`;
- `span`: hi - lo. Where `ref` is an index, lo is the entry of the clock; otherwise lo is spelled out as `lo`;
- `cells`: their own bytes, in ascending order of seq;
- `gaps`: left out where the cells are the last `len(cells)` mutations up to hi, so seqs cost nothing. Otherwise, counted
  downwards from hi, how many seqs are skipped before each cell, the last cell first; -n repeats the number before n more times;
- `stubs`: of a signed row, `[seq - lo, kind, key, digest]` of each covered cell that does not stand.

The parser gives an `UnboundRun`; `bind` adds replica and seqs, and checks that they fit.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, repeat

import msgspec

from constraint_crdt.crdt.cells import Cell, Run, Stub, read_cell
from constraint_crdt.crdt.clock import ClockMark
from constraint_crdt.crdt.limits import MAX_COUNT
from constraint_crdt.crdt.replica import Replica, check_replica
from constraint_crdt.errors import ConstraintCrdtError

Ref = int | tuple[str, int]
"""A reference to a replica in msgpack."""


class WireRun(msgspec.Struct, array_like=True, gc=False):
    """A run in msgpack."""

    ref: Ref
    span: int
    cells: list[msgspec.Raw]
    gaps: list[int] = []
    lo: int = 0
    floor: int = 0
    stubs: list[Stub] = []


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
        replica, lo = self._origin(base)
        hi = lo + self.span
        seqs = self._seqs(hi)
        if (seqs and seqs[0] <= lo) or hi > MAX_COUNT:
            raise ConstraintCrdtError(f"a run of {replica} has cells outside of {lo} < seq <= {hi}")
        for cell, seq in zip(self.cells, seqs, strict=True):
            cell.replica, cell.seq = replica, seq
            if not isinstance(cell.key, str):
                cell.key = seq
        stubs = [Stub(lo + each.seq, each.kind, each.key, each.digest) for each in self.stubs] if self.stubs else ()
        return Run(replica, lo, hi, self.cells, self.floor, 0, stubs)

    def _seqs(self, hi: int) -> Sequence[int]:
        if not self.gaps:
            return range(hi - len(self.cells) + 1, hi + 1)
        above = hi + 1
        return [above := above - gap - 1 for gap in _expanded(self.gaps)][::-1]

    def _origin(self, base: ClockMark | None) -> tuple[Replica, int]:
        replica = resolve(self.ref, base)
        return replica, (base.entries[replica] if base is not None and isinstance(self.ref, int) else self.lo)


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
    if min(wire.lo, wire.floor) < 0 or wire.span < 1 or max(wire.span, wire.lo, wire.floor) > MAX_COUNT:
        raise ConstraintCrdtError("a number in a run is out of bounds")
    if wire.gaps and (wire.gaps[0] < 0 or _count(wire.gaps) != len(wire.cells)):
        raise ConstraintCrdtError(f"a run has {len(wire.cells)} cells, and gaps for another number of them")
    cells = [read_cell(bytes(raw)) for raw in wire.cells]
    return UnboundRun(read_ref(wire.ref), wire.span, cells, wire.gaps, wire.lo, wire.floor, wire.stubs)


def wire_run(run: Run | UnboundRun, base: ClockMark | None) -> list[object]:
    """A run for the msgspec encoder. Decoding and encoding a run gives the same bytes."""
    if isinstance(run, Run):
        ref: object = ref_of(run.replica, base)
        lo = 0 if isinstance(ref, int) else run.lo
        stubs = [(each.seq - run.lo, each.kind, each.key, each.digest) for each in run.stubs]
        parts = [ref, run.hi - run.lo, _joined(run.cells), _gaps(run), lo, run.floor, stubs]
    else:
        parts = [run.ref, run.span, _joined(run.cells), run.gaps, run.lo, run.floor, run.stubs]
    while len(parts) > 3 and not parts[-1]:
        parts.pop()
    return parts


def _gaps(run: Run) -> list[int]:
    cells, hi = run.cells, run.hi
    if not cells or hi - cells[0].seq + 1 == len(cells):
        return []
    seqs = [cell.seq for cell in reversed(cells)]
    return _run_lengths([above - seq - 1 for above, seq in zip([hi + 1, *seqs], seqs, strict=False)])


def _run_lengths(gaps: Iterable[int]) -> list[int]:
    """Gaps as they travel: a row in which counts are overwritten in turn has the same gap over and over."""
    squeezed: list[int] = []
    for gap, same in groupby(gaps):
        repeats = sum(1 for _ in same) - 1
        squeezed += [gap, -repeats] if repeats else [gap]
    return squeezed


def _count(gaps: Iterable[int]) -> int:
    """The number of cells described by compressed gaps."""
    return sum(-gap if gap < 0 else 1 for gap in gaps)


def _expanded(gaps: Iterable[int]) -> Iterator[int]:
    """A gap for each cell."""
    last = 0
    for gap in gaps:
        if gap < 0:
            yield from repeat(last, -gap)
        else:
            last = gap
            yield gap


def _joined(cells: Sequence[Cell]) -> msgspec.Raw:
    """An array of the cells' own bytes."""
    count = len(cells)
    if count < 16:
        header = bytes((0x90 | count,))
    elif count < 2**16:
        header = b"\xdc" + count.to_bytes(2, "big")
    else:
        header = b"\xdd" + count.to_bytes(4, "big")
    return msgspec.Raw(header + b"".join([cell.data for cell in cells]))
