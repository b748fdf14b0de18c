"""Repair of damage: audit of a node's rows, comparison of two nodes' cells by bucket, and replacement of the cells that differ.

Two nodes at the same clock hold the same cells. If their hashes differ, either node is damaged: its memory, its disk, or a fault
in a program. Nothing here runs before such a difference, and every step walks all cells: O(cells).

Rules kept here:

- `audit` looks at a single side: every cell against its own digest, every sum against the cells. Wrong cells are dropped, wrong
  sums corrected. The *doubt* is the set of buckets with possibly wrong content. (Wrong sums without a wrong cell show an
  unrecorded change at an unknown place: all buckets are in doubt.)
- `decide` looks at both sides and their doubts; see there.
- Besides `Rows`, only `rebuild` knows the storage of cells in rows. Clock and floors stay; sums, order, tables and views are made
  anew from the cells, so no damage survives in them. No standing cell remains above the clock.

A bucket is the last byte of a cell's digest, so a cell that differs between two nodes shows in a bucket of each.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from constraint_crdt.crdt.cells import REMOVE, Cell, Key, rank_of, removed_dots
from constraint_crdt.crdt.clock import Replica
from constraint_crdt.crdt.rows import Row, Rows
from constraint_crdt.errors import ConstraintCrdtError

BUCKETS: Final = 256
SUM_BYTES: Final = 8
"""The size of a bucket's sum on the wire: enough to tell accidents apart."""

EVERYWHERE: Final = (1 << BUCKETS) - 1
"""All buckets, a bit each."""

Slot = tuple[int, Key, Replica]
"""Where a cell stands: kind, key and row."""


class Audit(NamedTuple):
    """The findings of an audit."""

    found: bool
    doubt: int
    """The buckets with possibly wrong content, a bit each."""


class Side(NamedTuple):
    """The statement of a node about some buckets."""

    node_id: str
    cells: Iterable[Cell]
    doubt: int


def bucket_bit(cell: Cell) -> int:
    """The bucket of a cell, as a bit."""
    return 1 << (cell.digest % BUCKETS)


def bucket_sums(rows: Rows) -> bytes:
    """The sums of all buckets, `SUM_BYTES` each."""
    sums = [0] * BUCKETS
    for cell in rows.live_cells():
        sums[cell.digest % BUCKETS] += cell.digest
    return b"".join((each % 2 ** (8 * SUM_BYTES)).to_bytes(SUM_BYTES, "big") for each in sums)


def differing(mine: bytes, theirs: bytes) -> int:
    """The buckets with different sums, a bit each."""
    starts = range(0, BUCKETS * SUM_BYTES, SUM_BYTES)
    return sum(1 << at // SUM_BYTES for at in starts if mine[at : at + SUM_BYTES] != theirs[at : at + SUM_BYTES])


def cells_in(rows: Rows, buckets: int, max_bytes: int) -> tuple[int, list[Cell]]:
    """The live cells of these buckets, and the buckets covered: fewer, at least one, if they have more than `max_bytes`."""
    by_bucket: dict[int, list[Cell]] = {}
    for cell in rows.live_cells():
        if buckets & bucket_bit(cell):
            by_bucket.setdefault(cell.digest % BUCKETS, []).append(cell)
    chosen, found, size = 0, list[Cell](), 0
    for number in range(BUCKETS):
        if buckets >> number & 1:
            cells = by_bucket.get(number, [])
            size += sum(len(cell.data) for cell in cells)
            if chosen and size > max_bytes:
                break
            chosen |= 1 << number
            found += cells
    return chosen, found


def named_dead(removals: Iterable[Cell]) -> dict[Slot, int]:
    """Up to which seq removals name the cell of a slot."""
    dead: dict[Slot, int] = {}
    for removal in removals:
        for kind, key, replica, seq in removed_dots(removal):
            dead[kind, key, replica] = max(seq, dead.get((kind, key, replica), 0))
    return dead


# --- one side ----------------------------------------------------------------------------------------------------------


def audit(rows: Rows) -> Audit:
    """Check all cells and sums of a node, correct the sums, and drop the damaged cells."""
    broken = {slot: bits for slot, cell in _standing(rows) if (bits := _doubt(rows, slot, cell))}
    removals = (cell for cell in rows.each(REMOVE) if (REMOVE, cell.key, cell.replica) not in broken)
    for slot, seq in named_dead(removals).items():
        named = rows.get(*slot)
        if named is not None and named.seq <= seq:
            broken[slot] = bucket_bit(named)
    doubt = 0
    for slot, bits in broken.items():
        if slot[0] != REMOVE:
            doubt |= bits
        elif (lost := rows.get(*slot)) is not None:  # as after `collect`: peers below need a Sync
            rows._floors[slot[2]] = max(rows.floor(slot[2]), min(lost.seq, rows.seq(slot[2])))
    if not _sums_fit(rows):
        doubt = EVERYWHERE
    found = bool(broken or doubt) or not _clock_sums_fit(rows)
    if found:
        rebuild(rows, [cell for slot, cell in _standing(rows) if slot not in broken])
    return Audit(found, doubt)


def _standing(rows: Rows) -> Iterator[tuple[Slot, Cell]]:
    for kind, table in rows._tables.items():
        for key, held in table.items():
            if isinstance(held, dict):
                yield from (((kind, key, replica), cell) for replica, cell in held.items())
            else:
                yield (kind, key, held.replica), held


def _doubt(rows: Rows, slot: Slot, cell: Cell) -> int:
    """The buckets left in doubt by a cell: its recorded bucket, and the bucket of its bytes. 0 for an undamaged cell."""
    again = Cell(cell.kind, cell.key, cell.data, cell.seq, cell.replica)
    rows.digest.fill(slot[2], (again,))
    if (cell.kind, cell.key, cell.replica) == slot and again.digest == cell.digest and 0 < cell.seq <= rows.seq(slot[2]):
        return 0
    return bucket_bit(cell) | bucket_bit(again)


def _sums_fit(rows: Rows) -> bool:
    """True if the sums, the counts and the orders of the rows are those of the cells in the tables."""
    if any(rows._sums.get(kind, 0) != _kind_sum(rows, kind) for kind in rows._sums.keys() | rows._tables.keys() if kind != REMOVE):
        return False
    if rows._count != sum(1 for _ in _standing(rows)):
        return False
    ordered = [row.above(0) for row in rows._rows.values()]
    return rows._count == sum(map(len, ordered)) and all(
        rows.get(cell.kind, cell.key, cell.replica) is cell for cells in ordered for cell in cells
    )


def _kind_sum(rows: Rows, kind: int) -> int:
    return sum(cell.digest for cell in rows.each(kind))


def _clock_sums_fit(rows: Rows) -> bool:
    entries = {replica: rows.digest.clock_entry(replica, seq) for replica, seq in rows.seqs.items()}
    kept = {replica: row.entry for replica, row in rows._rows.items() if replica in entries}
    return kept == entries and rows._clock_sum == sum(entries.values()) and rows.clock_count == sum(rows.seqs.values())


# --- both sides --------------------------------------------------------------------------------------------------------


def decide(mine: Side, theirs: Side, dead: Mapping[Slot, int]) -> list[Cell]:
    """The cells that stand, of those held by two nodes at the same clock in some buckets. Independent of the order of the sides.

    1. A cell named by a removal on either side does not stand (`dead`). 2. Of a bucket doubted by one side only, the other side
    counts: its cells, and the absence of more. 3. Otherwise a cell of a single side stays: when in doubt, keep the constraint,
    and the count. 4. Of two cells in a slot the higher seq stands. With the same seq: the higher rank, so that no count goes
    down; else the cell of its own writer; else the larger digest, so that both sides decide alike.
    """
    slots: dict[Slot, list[tuple[bool, int, int, bool, int, Cell]]] = {}
    for holder, other in ((mine, theirs), (theirs, mine)):
        for cell in holder.cells:
            slot = (cell.kind, cell.key, cell.replica)
            if cell.seq <= dead.get(slot, 0):
                continue
            bit = bucket_bit(cell)
            credible = not (holder.doubt & bit and not other.doubt & bit)
            own = cell.replica.node_id == holder.node_id
            slots.setdefault(slot, []).append((credible, cell.seq, rank_of(cell), own, cell.digest, cell))
    best = (max(candidates, key=lambda candidate: candidate[:5]) for candidates in slots.values())
    return [cell for credible, _, _, _, _, cell in best if credible]


def replace(rows: Rows, buckets: int, cells: Sequence[Cell]) -> int:
    """Let these cells stand in these buckets, in place of the present ones. Returns the number of changes."""
    standing = [cell for _, cell in _standing(rows) if cell.kind != REMOVE and buckets & bucket_bit(cell)]
    if len(standing) == len(cells) and {_content(cell) for cell in standing} == {_content(cell) for cell in cells}:
        return 0
    others = [cell for _, cell in _standing(rows) if cell.kind == REMOVE or not buckets & bucket_bit(cell)]
    return rebuild(rows, [*others, *cells])


def _content(cell: Cell) -> tuple[object, ...]:
    return cell.replica, cell.kind, cell.key, cell.seq, cell.data


def rebuild(rows: Rows, cells: Iterable[Cell]) -> int:
    """Let exactly these cells stand; of several in a slot the highest seq. Returns the number of changed slots.

    Raises `ConstraintCrdtError` beyond the limit of cells; then nothing has changed.
    """
    before = dict(_standing(rows))
    after: dict[Slot, Cell] = {}
    for cell in cells:
        slot = (cell.kind, cell.key, cell.replica)
        rival = after.get(slot)
        if rival is None or (cell.seq, cell.digest) > (rival.seq, rival.digest):
            old = before.get(slot)
            after[slot] = old if old is not None and (old.seq, old.data, old.digest) == (cell.seq, cell.data, cell.digest) else cell
    if len(after) > rows.limits.cells:
        raise ConstraintCrdtError(f"more than the {rows.limits.cells} cells that this node is set to hold")
    moved = [(slot, before.get(slot), after.get(slot)) for slot in before | after if before.get(slot) is not after.get(slot)]
    _fill_tables(rows, after)
    _recompute_sums(rows)
    _notify(rows, moved)
    return len(moved)


def _fill_tables(rows: Rows, after: Mapping[Slot, Cell]) -> None:
    by_row: dict[Replica, list[Cell]] = {replica: [] for replica in rows._rows}
    for table in rows._tables.values():
        table.clear()
    for (kind, _, replica), cell in after.items():
        rows.table(kind).put(cell)
        by_row.setdefault(replica, []).append(cell)
    for replica, cells in by_row.items():
        rows._rows[replica] = Row(sorted(cells, key=lambda cell: cell.seq))


def _recompute_sums(rows: Rows) -> None:
    rows._sums = {kind: _kind_sum(rows, kind) for kind in rows._tables if kind != REMOVE}
    rows._count = sum(1 for _ in _standing(rows))
    for replica, seq in rows.seqs.items():
        rows._own(replica).entry = rows.digest.clock_entry(replica, seq)
    rows._clock_sum = sum(rows._rows[replica].entry for replica in rows.seqs)
    rows.clock_count = sum(rows.seqs.values())
    rows._mark_is_old, rows._hash = True, None


def _notify(rows: Rows, moved: Iterable[tuple[Slot, Cell | None, Cell | None]]) -> None:
    """Report the changed slots to the store and to watchers, and have indexes made anew.

    Of a dropped cell only the slot is reported, up to the clock: the seq of a damaged cell may be wrong.
    """
    readings = [watcher for _, watcher, _ in rows._readings]
    for (kind, key, replica), old, new in moved:
        if old is not None and rows._dropped is not None:
            rows._dropped.append(Cell(kind, key, b"", key if isinstance(key, int) else rows.seq(replica), replica))
        if new is not None and rows._repaired is not None:
            rows._repaired.append(new)
        if rows.signed is not None:
            if new is not None:
                rows.signed.revived(new)
            elif old is not None:
                rows.signed.died(old)
        for watcher in rows._watchers.get(kind, ()):
            if watcher not in readings:
                watcher(old, new)
    for _, _, restart in rows._readings:
        restart()
    for kind, watcher, _ in rows._readings:
        for each in rows.each(kind):
            watcher(None, each)
