"""Rows: all cells of a node, by replica, and the merge rule of the system.

A row holds the cells of a replica in the order of their seqs. New cells always have a seq above all earlier ones, so the order is
an append-only list. Superseded and removed cells stay in the list, their seqs noted, until they are half of it; then the list is
compacted: amortised O(1), eight bytes a cell.

Rules kept here:

- Each replica writes only its own row; per key the higher seq stands. So two copies of a row never conflict.
- `apply` takes the whole of a transfer or nothing. Validation comes first; after the first change nothing can fail.
- A cell at or below the clock without a copy here is dead and is never put back.
- The clock of a row rises only together with the cells up to there.
- A removal deletes the cells it names, also later arrivals.
- Tables, digest sums, count and watchers are updated with each cell, so reads compute nothing.
- A log knows which rows rose after a recent mark of the clock. Comparing a clock of thousands of rows costs O(changes).
- With `follow_signatures`, the stubs of signed rows are kept and passed on (`crdt.signed_rows`). Then a Sync removes no cell: a
  removal counts as a signed cell only, and is kept as long as the row of its target covers the target.

Rows are single-writer: two nodes with the same clock for a row have the same row. So a row received or sent whole *is* its `Run`,
shared by all nodes of the process. A run never changes; a node with a change to make first turns the run into a `Row` of its own
(`_own`), shared with no other node. Clock and mark are shared in the same way.

A *table* holds, for a kind of cell, the standing cells by key: a bare cell where a single row has the key, a dict by replica
where several have. The tables are the only index over cells: rows keep just their order. In a slot (kind, key, row) the last cell
stands; cells are put in ascending order of seq.
"""

import gc
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from itertools import chain, islice
from types import MappingProxyType
from typing import NamedTuple

from constraint_crdt.crdt.cells import REMOVE, Cell, Key, Removed, Run, Table, core, removed_dots
from constraint_crdt.crdt.clock import ClockMark, Digest, Replica, StateHash, VectorClock
from constraint_crdt.crdt.limits import DEFAULT_LIMITS, MAX_COUNT, Limits
from constraint_crdt.crdt.signed_rows import SETTLED, SIGNATURE, STRETCH, SignedRows, unsettled
from constraint_crdt.errors import ConstraintCrdtError

Watcher = Callable[[Cell | None, Cell | None], None]
"""A callback with the cell before and the cell after a change; at least one is given, both with the same replica and key."""

BulkWatcher = Callable[[Sequence[Cell]], None]
"""A callback with new cells, each the only cell under its key, in place of the watcher for each."""

NO_TABLES: Mapping[int, Table] = MappingProxyType({})

FEW = 8
"""Up to this number, cells are put singly: sorting them by kind first would cost more."""


@contextmanager
def without_collection() -> Iterator[None]:
    """Have no garbage collected in the block: merges make no cycles, and to look through lists of a million cells, or through the
    cells of all nodes of a simulation, takes longer than the block itself."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class Tables(ABC):
    """The index over cells, base of `Rows`: by kind and key, with their digest sums and watchers."""

    def __init__(self, digest: Digest | None = None) -> None:
        self.digest = digest or Digest()
        self._tables: dict[int, Table] = {}
        self._watchers: dict[int, list[Watcher]] = {}
        self._bulk_watchers: dict[Watcher, BulkWatcher] = {}
        self._sums: dict[int, int] = {}
        self._count = 0
        self._hash: StateHash | None = None
        self._dropped: list[Cell] | None = None
        self._repaired: list[Cell] | None = None
        self._readings: list[tuple[int, Watcher, Callable[[], None]]] = []

    # --- reading -----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """How many cells stand, removals included."""
        return self._count

    def kind_hash(self, kind: int) -> StateHash:
        """The hash of the live cells of a kind, without the clock. O(1)."""
        return self.digest.state(self._sums.get(kind, 0), 0)

    def kind_sum(self, kind: int) -> int:
        """The digest sum of the live cells of a kind: equal sums mean equal cells. O(1)."""
        return self._sums.get(kind, 0)

    def is_empty(self, kind: int) -> bool:
        """No cell of a kind stands."""
        return not len(self._tables.get(kind, ()))

    def table(self, kind: int) -> Table:
        """The standing cells of a kind by key. A live view: do not write to it, and do not hold it over a change."""
        table = self._tables.get(kind)
        if table is None:
            table = self._tables[kind] = Table()
        return table

    def get(self, kind: int, key: Key, replica: Replica) -> Cell | None:
        """The standing cell in a row under a key. O(1)."""
        table = self._tables.get(kind)
        return None if table is None else table.of(key, replica)

    def held(self, kind: int, key: Key) -> Sequence[Cell]:
        """The standing cells of all rows under a key. O(their number)."""
        table = self._tables.get(kind)
        held = None if table is None else table.get(key)
        if held is None:
            return ()
        return tuple(held.values()) if isinstance(held, dict) else (held,)

    def each(self, kind: int) -> Iterator[Cell]:
        """Every standing cell of a kind. O(their number)."""
        for held in self.table(kind).values():
            if isinstance(held, dict):
                yield from held.values()
            else:
                yield held

    def live_cells(self) -> Iterator[Cell]:
        """Every standing cell covered by the hash: all but removals. O(cells)."""
        for kind in list(self._tables):
            if kind != REMOVE:
                yield from self.each(kind)

    def watch(
        self, kind: int, watcher: Watcher, restart: Callable[[], None] | None = None, bulk: BulkWatcher | None = None
    ) -> None:
        """Register a callback for every change of a cell of this kind. A watcher must not raise, not write, and read no hash.

        `restart`: for a watcher with an index. A repair calls `restart`, and then the watcher for each cell as new. `bulk`: a
        callback for many new cells at once, so that irrelevant cells cost little.
        """
        self._watchers.setdefault(kind, []).append(watcher)
        if restart is not None:
            self._readings.append((kind, watcher, restart))
        if bulk is not None:
            self._bulk_watchers[watcher] = bulk

    def take_dropped(self) -> list[Cell]:
        """The cells removed, not superseded, since the last call. Together with the runs above a clock, the floors and the
        repaired cells, a store can follow all changes. Kept from the first call on."""
        fallen, self._dropped = self._dropped, []
        return fallen or []

    def take_repaired(self) -> list[Cell]:
        """The cells put at or below the clock by a repair since the last call; some may have been superseded since. The cells
        before them are among the dropped. Kept from the first call on."""
        mended, self._repaired = self._repaired, []
        return mended or []

    # --- the steps of a change -----------------------------------------------------------------------------------

    @abstractmethod
    def _discard(self, cell: Cell) -> None:
        """Note in the row of the cell that it does not stand any more."""

    def _put_all(self, cells: Sequence[Cell], tables: Mapping[int, Table] = NO_TABLES) -> None:
        """Let new cells stand. Kinds with only new keys go in at once: the common case of a blank node.

        `tables`: of some kinds, a table of these cells and perhaps more. It becomes the table of a kind without any so far, if it
        has no more.
        """
        if len(cells) <= FEW:
            for cell in cells:
                self._put(cell)
            return
        for kind, of_kind in core.by_kind(cells).items():
            table = self.table(kind)
            if kind in tables and not len(table) and len(tables[kind]) == len(of_kind):
                self._tables[kind] = tables[kind]
                self._account(kind, of_kind)
            elif table.put_new(of_kind):
                self._account(kind, of_kind)
            else:
                self._put_mixed(kind, table, of_kind)

    def _put_mixed(self, kind: int, table: Table, cells: Sequence[Cell]) -> None:
        """Let new cells of a kind stand, some of them under keys in use."""
        firsts: list[Cell] = []
        for cell in cells:
            if table.put_first(cell):
                firsts.append(cell)
            else:
                self._account(kind, firsts)  # first, since `cell` may supersede a cell among them
                firsts = []
                self._put(cell)
        self._account(kind, firsts)

    def _account(self, kind: int, cells: Sequence[Cell]) -> None:
        """Account for cells in empty slots, each under a key of its own."""
        if not cells:
            return
        self._count += len(cells)
        if kind != REMOVE:
            self._sums[kind] = self._sums.get(kind, 0) + core.sum_digests(cells)
            self._hash = None
        for watcher in self._watchers.get(kind, ()):
            bulk = self._bulk_watchers.get(watcher)
            if bulk is not None:
                bulk(cells)
            else:
                for cell in cells:
                    watcher(None, cell)

    def _put(self, cell: Cell) -> None:
        """Let a new cell stand, already noted in its row."""
        kind = cell.kind
        old = self.table(kind).put(cell)
        if old is None:
            self._count += 1
        else:
            self._discard(old)
        if kind != REMOVE:
            self._sums[kind] = self._sums.get(kind, 0) + cell.digest - (old.digest if old is not None else 0)
            self._hash = None
        for watcher in self._watchers.get(kind, ()):
            watcher(old, cell)

    def _drop(self, cell: Cell) -> None:
        """Take a standing cell out."""
        kind = cell.kind
        self._tables[kind].drop(cell)
        self._count -= 1
        self._discard(cell)
        if self._dropped is not None:
            self._dropped.append(cell)
        if kind != REMOVE:
            self._sums[kind] -= cell.digest
            self._hash = None
        for watcher in self._watchers.get(kind, ()):
            watcher(cell, None)


SLACK = 16
"""A row is not compacted for fewer dropped cells than this."""

ACTING = frozenset((REMOVE, SETTLED))
"""The kinds of cells that end other cells."""

_ACTING = bytes(ACTING)


class Row:
    """The order of a replica's cells. The tables know the cells by key, see `Tables`."""

    __slots__ = ("_dropped", "_order", "entry")

    def __init__(self, cells: Iterable[Cell] = (), entry: int = 0) -> None:
        """`cells`: in ascending order of seq."""
        self.entry = entry
        """The keyed hash of the row's clock entry, which the digest's clock sum contains."""
        self._order: list[Cell] = list(cells)
        self._dropped: set[int] | None = None  # in most rows nothing ever falls, and a node may hold thousands

    def extend(self, cells: Iterable[Cell]) -> None:
        """Note cells in ascending order of seq, all of them above those before."""
        self._order.extend(cells)

    def discard(self, seq: int) -> None:
        """Note that the cell with this seq does not stand any more."""
        dropped = self._dropped = self._dropped or set()
        dropped.add(seq)
        if len(dropped) > SLACK and len(dropped) * 2 > len(self._order):
            self._order = [cell for cell in self._order if cell.seq not in dropped]
            self._dropped = None

    def above(self, lo: int) -> list[Cell]:
        """The standing cells with a seq above `lo`, in ascending order. O(cells above lo)."""
        if lo:
            return core.standing(self._order, lo, MAX_COUNT, self._dropped)
        dropped = self._dropped
        return [cell for cell in self._order if cell.seq not in dropped] if dropped else self._order.copy()

    def some_above(self, lo: int, most: int) -> tuple[Sequence[Cell], int | None]:
        """As `Rows.some_above`."""
        found, after = _some_above(self._order, lo, most)
        dropped = self._dropped
        return [cell for cell in found if cell.seq not in dropped] if dropped else found, after

    def between(self, lo: int, hi: int) -> list[Cell]:
        """The standing cells with lo < seq <= hi, in ascending order. O(cells between)."""
        return core.standing(self._order, lo, hi, self._dropped)

    @property
    def noted(self) -> tuple[Sequence[Cell], Set[int] | None]:
        """The noted cells in ascending order, and the seqs of those among them that do not stand. To be read alone."""
        return self._order, self._dropped

    def copy(self) -> "Row":
        """An independent copy; the cells are shared. O(cells)."""
        twin = Row(self._order, self.entry)
        twin._dropped = self._dropped and self._dropped.copy()
        return twin


def _some_above(cells: Sequence[Cell], lo: int, most: int) -> tuple[Sequence[Cell], int | None]:
    start = core.position(cells, lo)
    found = cells[start : start + most]
    return found, found[-1].seq if start + most < len(cells) else None


def _between(cells: Sequence[Cell], lo: int, hi: int) -> Sequence[Cell]:
    return cells[core.position(cells, lo) : core.position(cells, hi)]


LOGGED = 1024
"""The changes of a clock, and its marks, that a `ClockLog` knows."""

Known = ClockMark | Mapping[Replica, int]
"""The knowledge of another: a mark, which is fast to compare with where it was the clock here not long ago, or entries."""


class Applied(NamedTuple):
    """The result of `Rows.apply`."""

    changed: bool
    gap: bool
    """A run started above my clock, so nothing was applied."""
    exact: bool = False
    """Every run started at my clock, so the clock is the earlier clock with the ends of the runs put in."""


class Seal(NamedTuple):
    """What rows must be equal to after they were written and read: see `Rows.seal`."""

    state_hash: bytes
    hash_key: bytes
    """Stands for the key of the hash: the hash of the empty state. A store whose fleet changed its secret is not damaged."""
    cells: int
    rows: int
    floors: int
    """The sum of the floors, modulo 2**63."""


class ClockLog:
    """The latest changes of a clock: which entries changed after one of its recent marks. Bounded in changes and marks."""

    __slots__ = ("_changed", "_count", "_marks")

    def __init__(self) -> None:
        self._changed: deque[Replica] = deque(maxlen=LOGGED)
        self._count = 0
        """All changes so far; the last of them are in `_changed`."""
        self._marks: dict[int, int] = {}
        """Of each mark, by its total, the changes before it; the oldest first."""

    def note(self, replica: Replica) -> None:
        """An entry changed, or something else about its row that a reader of the log looks for."""
        self._changed.append(replica)
        self._count += 1

    def note_all(self, replicas: Sequence[Replica]) -> None:
        """The same of several."""
        self._changed.extend(replicas)
        self._count += len(replicas)

    def note_mark(self, mark: ClockMark) -> None:
        """The clock is this mark now."""
        self._marks[mark.total] = self._count
        if len(self._marks) > LOGGED:
            del self._marks[next(iter(self._marks))]

    def since(self, mark: ClockMark) -> Collection[Replica] | None:
        """The replicas noted after the clock was `mark`, each once; None if that is not known. O(changes since)."""
        before = self._marks.get(mark.total)
        if before is None or self._count - before > len(self._changed):
            return None
        if self._count - before < 2:
            return (self._changed[-1],) if self._count > before else ()
        return dict.fromkeys(islice(reversed(self._changed), self._count - before))

    def clear(self) -> None:
        """Forget everything: entries went down."""
        self._changed.clear()
        self._count = 0
        self._marks.clear()


class Rows(Tables):
    """Every cell this node holds, with clock, floors and digest."""

    def __init__(self, digest: Digest | None = None, limits: Limits = DEFAULT_LIMITS) -> None:
        super().__init__(digest)
        self.limits = limits
        self._rows: dict[Replica, Row | Run] = {}
        self.seqs: dict[Replica, int] = {}
        """The clock as it is: the seq up to which each row is accounted for. Not to be written to, or held over a change."""
        self._clock_is_shared = False
        self._floors: dict[Replica, int] = {}
        self._clock_sum = 0
        self.clock_count = 0
        """The sum of the clock: the number of mutations accounted for here."""
        self._pending: dict[tuple[int, Key], dict[Replica, int]] = {}
        self._mark = ClockMark({}, 0, 0, self.digest)
        self._mark_is_old = False
        self._log = ClockLog()
        """The rows of which the clock or the floor rose."""
        self.signed: SignedRows | None = None
        """The signed rows; None without signatures."""
        self.permits: Callable[[Replica, Sequence[Cell]], None] | None = None
        """Raises an error for cells that the local writer may not write. None: the writer may write all."""
        self._reset: set[Replica] = set()
        self._writers: tuple[Sequence[Replica], Set[str]] = (), frozenset()
        """The names of the nodes of these rows."""

    # --- reading -----------------------------------------------------------------------------------------------

    def __contains__(self, replica: object) -> bool:
        return replica in self._rows

    def seq(self, replica: Replica) -> int:
        """The seq up to which the row is accounted for."""
        return self.seqs.get(replica, 0)

    def floor(self, replica: Replica) -> int:
        """The seq up to which removals of the row were dropped here."""
        return self._floors.get(replica, 0)

    @property
    def clock_mark(self) -> ClockMark:
        """The clock as of now. O(1); the next change of the clock then costs O(rows)."""
        if self._mark_is_old:
            self._mark = self._mark.followed_by(self.clock_entries, self._clock_sum, self.clock_count)
            self._mark_is_old = False
            self._log.note_mark(self._mark)
        return self._mark

    @property
    def clock_entries(self) -> dict[Replica, int]:
        """The entries of `clock_mark`. Costs as much, without the mark. Do not write to them."""
        self._clock_is_shared = True
        return self.seqs

    @property
    def clock(self) -> VectorClock:
        """The clock as of now, as an independent value. Costs as much as `clock_mark`."""
        return VectorClock.of(self.clock_mark)

    @property
    def floors(self) -> dict[Replica, int]:
        """The floors above 0. O(rows)."""
        return self._floors.copy()

    @property
    def writers(self) -> Set[str]:
        """The names of the nodes with a row. O(rows) after a new row, else O(1)."""
        order = self.clock_mark.order  # the same object as long as the rows are the same
        if order is not self._writers[0]:
            self._writers = order, frozenset([replica.node_id for replica in order])
        return self._writers[1]

    def writers_since(self, clock: Known) -> Set[str]:
        """The names of the nodes with a row ahead of `clock`. As costly as `serves`."""
        return {replica.node_id for replica, _ in self.lacked_at(clock)}

    @property
    def state_hash(self) -> StateHash:
        """The hash of all live cells (removals apart) and the clock. O(1)."""
        if self._hash is None:
            self._hash = self.digest.state(sum(self._sums.values()), self._clock_sum)
        return self._hash

    @property
    def seal(self) -> Seal:
        """The seal of the rows as they are. O(floors)."""
        floors = sum(self._floors.values()) & MAX_COUNT
        return Seal(bytes(self.state_hash), bytes(self.digest.state(0, 0)), self._count, len(self.seqs), floors)

    def above(self, replica: Replica, lo: int) -> list[Cell]:
        """The standing cells of a row with a seq above `lo`, in ascending order. O(cells above lo)."""
        row = self._rows.get(replica)
        return row.above(lo) if row else []

    def between(self, replica: Replica, lo: int, hi: int) -> Sequence[Cell]:
        """The standing cells of a row with lo < seq <= hi, in ascending order. O(cells between)."""
        row = self._rows.get(replica)
        if row is None:
            return ()
        return row.between(lo, hi) if isinstance(row, Row) else _between(row.cells, lo, hi)

    def noted(self, replica: Replica) -> tuple[Sequence[Cell], Set[int] | None]:
        """The cells of a row in ascending order, and the seqs of those among them that do not stand. To be read alone. O(1)."""
        row = self._rows.get(replica)
        if row is None:
            return (), None
        return row.noted if isinstance(row, Row) else (row.cells, None)

    def superseded(self, cells: Sequence[Cell]) -> list[int]:
        """The seqs of the standing cells of the slots of some cells, signatures apart. O(their number)."""
        return core.superseded(self._tables, cells, SIGNATURE)

    def some_above(self, replica: Replica, lo: int, most: int) -> tuple[Sequence[Cell], int | None]:
        """At most so many standing cells of a row with a seq above `lo`, in ascending order, and the seq to go on from; None at the
        end of the row. O(most).
        """
        row = self._rows.get(replica)
        if row is None:
            return (), None
        return row.some_above(lo, most) if isinstance(row, Row) else _some_above(row.cells, lo, most)

    def follow_signatures(self) -> SignedRows:
        """Keep the stubs of signed rows from now on."""
        if self.signed is None:
            self.signed = SignedRows(self)
        return self.signed

    # --- runs for peers -----------------------------------------------------------------------------------------

    def serves(self, clock: Known) -> bool:
        """True if a Delta can serve a peer at `clock`; below a floor the peer needs a Sync.

        O(rows that changed since) for a recent mark of the clock here, else O(floors).
        """
        theirs, floors = clock.entries if isinstance(clock, ClockMark) else clock, self._floors
        if not floors:
            return True
        changed = self.changed_since(clock)
        if changed is None:
            return all(floor <= theirs.get(replica, 0) for replica, floor in floors.items())
        return all(floors.get(replica, 0) <= theirs.get(replica, 0) for replica in changed)

    def ahead_of(self, clock: Known) -> int:
        """How many mutations are accounted for here and not in `clock`. As costly as `serves`, by rows."""
        mine = self.seqs
        return sum([mine[replica] - seq for replica, seq in self.lacked_at(clock)])

    def lacked_at(self, clock: Known) -> Sequence[tuple[Replica, int]]:
        """The entries of `clock`, 0 included, for every row ahead of it. As costly as `ahead_of`."""
        theirs, changed = clock.entries if isinstance(clock, ClockMark) else clock, self.changed_since(clock)
        if changed is None:
            return core.ahead(self.seqs, theirs if isinstance(theirs, dict) else dict(theirs))
        mine = self.seqs
        return [(replica, seq) for replica in changed if mine[replica] > (seq := theirs.get(replica, 0))]

    def since(self, clock: Known) -> list[Run]:
        """A run for every row ahead of `clock`. As costly as `ahead_of`, and O(cells in partial runs)."""
        return self.runs(self.lacked_at(clock))

    def changed_since(self, clock: Known) -> Collection[Replica] | None:
        """The rows of which the clock or the floor rose since the clock here was `clock`; None if it was not, or long ago."""
        return self._log.since(clock) if isinstance(clock, ClockMark) else None

    def runs(self, above: Sequence[tuple[Replica, int]]) -> list[Run]:
        """A run for each of these rows above the given seq, which is below the end of the row. O(cells in partial runs)."""
        return core.pick(self._rows, above, Run, self._run)

    def _run(self, replica: Replica, lo: int) -> Run:
        row, hi = self._rows[replica], self.seqs[replica]
        stubs = self.signed.stubs(replica, lo) if self.signed is not None else ()
        if lo:
            return Run(replica, lo, hi, row.above(lo), 0, 0, stubs)
        if isinstance(row, Row):
            row = self._rows[replica] = Run(replica, 0, hi, row.above(0), 0, row.entry, stubs)
        return row

    def whole(self) -> list[Run]:
        """Every row from 0, with its floor: the content of a Sync. O(rows + cells not shared yet)."""
        floor, runs = self._floors.get, self.runs([(replica, 0) for replica in self.seqs])
        return [Run(run.replica, 0, run.hi, run.cells, floor(run.replica, 0), run.entry, run.stubs) for run in runs]

    # --- writing -------------------------------------------------------------------------------------------------

    def write(self, replica: Replica, cell: Cell) -> Cell:
        """Append a mutation to the writer's own row. Returns the cell, bound to its dot.

        Raises `ConstraintCrdtError` beyond a limit; then nothing has changed.
        """
        self.write_all(replica, (cell,))
        return cell

    def sign(self, replica: Replica, signature: Cell) -> None:
        """Append a SIGNATURE cell to the writer's own row, which has cells. Raises as `write` does.

        No right and no cover of cells is in question, nor does a signature act on other cells.
        """
        self._check_room(1, 0)
        seq = self.seqs[replica] + 1
        if seq > MAX_COUNT:
            raise ConstraintCrdtError(f"the row of {replica} is full")
        signature.replica, signature.seq = replica, seq
        cells = (signature,)
        self._own(replica).extend(cells)
        self._raise_clock(replica, seq)
        self.digest.fill(replica, cells)
        for cell in self._without_pending(cells) if self._pending else cells:
            self._put(cell)

    def write_all(self, replica: Replica, cells: Sequence[Cell]) -> None:
        """Append several mutations as a transaction. Raises `ConstraintCrdtError` beyond a limit; then none is written."""
        if not cells:
            return
        if self.permits is not None:
            self.permits(replica, cells)
        last = self.seq(replica)
        self._check_room(len(cells), 0 if replica in self._rows else 1)
        if last + len(cells) > MAX_COUNT:
            raise ConstraintCrdtError(f"the row of {replica} is full")
        for seq, cell in enumerate(cells, start=last + 1):
            cell.replica, cell.seq = replica, seq
            if cell.key == 0:
                cell.key = seq
        self._own(replica).extend(cells)
        self._raise_clock(replica, last + len(cells))
        self.digest.fill(replica, cells)
        if self.signed is not None:
            self.signed.written(replica, cells)
        standing = self._without_pending(cells) if self._pending else cells
        if len(standing) <= FEW:
            for cell in standing:
                self._put(cell)
        else:
            self._put_all(standing)
        for cell in cells:
            if cell.kind in ACTING:
                self._enact(cell)

    def apply(
        self,
        runs: Sequence[Run],
        *,
        whole: bool = False,
        replaced: Collection[Replica] = (),
        tables: Mapping[int, Table] = NO_TABLES,
    ) -> Applied:
        """Take in a transfer, all of it or nothing.

        `whole`: the transfer is a Sync. Cells up to `hi` missing in a run are dead, and floors are taken over. `replaced`: rows
        with a run from 0 that takes the place of all cells known of the row. `tables`: as of `_put_all`. Raises
        `ConstraintCrdtError` beyond a limit; then nothing has changed.
        """
        clock, rows = self.seqs, self._rows
        if len(runs) == 1 and runs[0].lo and runs[0].lo == clock.get(runs[0].replica) and not (whole or replaced):
            return self._append(runs[0])
        taken = self._take_new(runs, tables)
        if taken is not None:
            return taken
        if [run for run in runs if run.lo and run.lo > clock.get(run.replica, 0)]:
            return Applied(changed=False, gap=True)
        new = [run for run in runs if run.replica not in rows and run.hi]
        more = [(run, self._new_cells(run)) for run in runs if run.replica in rows] if len(new) < len(runs) else []
        exact = not [run for run, _ in more if run.lo != clock.get(run.replica)]
        cells: list[Cell] = []
        for run in new:
            cells += run.cells
        for _, news in more:
            cells += news
        self._check_room(len(cells), len(new))
        if replaced:
            self._begin_anew(replaced)
            return self.apply(runs, whole=whole)._replace(changed=True)
        version = self._clock_sum, self._count
        self._add_rows([run.without_floor() for run in new], [run.replica for run in new], cells)
        for run, news in more:
            self.digest.fill(run.replica, news)
            if news:
                self._own(run.replica).extend(news)
        self._put_all(self._without_pending(cells), tables)
        if whole:
            self._take_whole(runs, [run for run, _ in more])
        for run, _ in more:
            self._raise_clock(run.replica, run.hi)
        self._apply_removals(cells)
        return Applied((self._clock_sum, self._count) != version, False, exact)

    def _take_new(self, runs: Sequence[Run], tables: Mapping[int, Table]) -> Applied | None:
        """`apply` for whole rows without floors, of which nothing is known here; None for others."""
        replicas = [run.replica for run in runs]
        if not self._rows.keys().isdisjoint(replicas) or [run for run in runs if run.lo or run.floor or not run.hi]:
            return None
        cells = list(chain.from_iterable([run.cells for run in runs]))
        self._check_room(len(cells), len(runs))
        self._add_rows(runs, replicas, cells)
        self._put_all(self._without_pending(cells), tables)
        self._apply_removals(cells)
        return Applied(bool(runs), False, True)

    def _append(self, run: Run) -> Applied:
        """`apply` for a single run that begins at the end of its row: the usual Delta."""
        cells, replica = run.cells, run.replica
        self._check_room(len(cells), 0)
        if cells:
            self.digest.fill(replica, cells)
            self._own(replica).extend(cells)
            self._put_all(self._without_pending(cells) if self._pending else cells)
        self._raise_clock(replica, run.hi)
        self._apply_removals(cells)
        return Applied(run.hi > run.lo, False, True)

    def restore(self, runs: Sequence[Run]) -> None:
        """Take in all rows from a store, with the stubs of the signed rows. Raises as `apply` does."""
        self.apply(runs, whole=True)
        if self.signed is not None:
            for run in runs:
                self.signed.begin(run.replica, run.stubs)

    def merge(self, other: "Rows") -> bool:
        """Take in everything another set of rows knows. True if the knowledge here changed."""
        if self.digest != other.digest:
            raise ConstraintCrdtError("states of fleets with different secrets cannot be merged")
        mine = self.clock_mark
        whole = not other.serves(mine)
        return self.apply(other.whole() if whole else other.since(mine), whole=whole).changed

    def collect(self, upto: Mapping[Replica, int] | None = None) -> int:
        """Drop the removals whose targets are all within the clock, raising floors. Returns how many. O(removals).

        `upto`: only removals within this clock. With a clock reached by all relevant peers, none of them will need a Sync.
        """
        dropped = [
            cell
            for cell in self.each(REMOVE)
            if (upto is None or cell.seq <= upto.get(cell.replica, 0))
            and all(named.seq <= self.seq(named.replica) and not self._covers(named) for named in removed_dots(cell))
        ]
        for cell in dropped:
            self._raise_floors({cell.replica: cell.seq})
            self._drop(cell)
        self._pending = {
            slot: ahead
            for slot, dots in self._pending.items()
            if (ahead := {replica: seq for replica, seq in dots.items() if seq > self.seq(replica)})
        }
        return len(dropped)

    def _covers(self, named: Removed) -> bool:
        return self.signed is not None and self.signed.has_stub(named.kind, named.key, named.replica)

    def reset(self, replicas: Iterable[Replica]) -> None:
        """Forget rows of other writers with all of their cells, as if nothing of them had been received.

        O(cells of the rows, rows and removals).
        """
        known = [replica for replica in replicas if replica in self._rows]
        for replica in known:
            self._forget(replica)
        if known:
            self._note_pending_anew()

    def _note_pending_anew(self) -> None:
        """Note which targets of the standing removals are beyond the clock."""
        self._pending = {}
        for removal in self.each(REMOVE):
            for named in removed_dots(removal):
                self._note_pending(named)

    def _forget(self, replica: Replica) -> None:
        if self.signed is not None:
            self.signed.forget(replica)
        for cell in self.above(replica, 0):
            self._drop(cell)
        self._clock_sum -= self._rows.pop(replica).entry
        self.clock_count -= self.seqs[replica]
        self.seqs, self._clock_is_shared = {each: seq for each, seq in self.seqs.items() if each != replica}, False
        self._floors.pop(replica, None)
        self._log.clear()
        self._mark, self._mark_is_old = ClockMark(self.clock_entries, self._clock_sum, self.clock_count, self.digest), False
        self._hash = None
        self._reset.add(replica)

    def _begin_anew(self, replicas: Collection[Replica]) -> None:
        """Forget rows that others take the place of."""
        self.reset(replicas)
        if self.signed is not None:
            for replica in replicas:
                self.signed.begin(replica)

    def take_reset(self) -> set[Replica]:
        """The rows that were reset since the last call, for a store."""
        reset, self._reset = self._reset, set()
        return reset

    def copy(self) -> "Rows":
        """An independent copy without watchers; cells and immutable rows are shared. O(cells)."""
        twin = Rows(self.digest, self.limits)
        twin._rows = {replica: row.copy() if isinstance(row, Row) else row for replica, row in self._rows.items()}
        twin.seqs, twin._floors = self.seqs.copy(), self._floors.copy()
        twin._mark, twin._mark_is_old = self._mark, self._mark_is_old
        twin._tables = {kind: table.copy() for kind, table in self._tables.items()}
        twin._sums = dict(self._sums)
        twin._clock_sum, twin.clock_count, twin._count = self._clock_sum, self.clock_count, self._count
        twin._pending = {slot: dict(dots) for slot, dots in self._pending.items()}
        twin.signed = self.signed and self.signed.copy(twin)
        return twin

    def supersede(self, cells: Iterable[Cell]) -> None:
        """Take cells out that later cells of their rows replaced, which do not stand either."""
        for cell in cells:
            if self.get(cell.kind, cell.key, cell.replica) is cell:
                self._drop(cell)

    def act(self, removals: Sequence[Cell]) -> None:
        """Apply removals that a repair put back."""
        self._apply_removals(removals)

    # --- the steps of the rule -----------------------------------------------------------------------------------

    def _check_room(self, cells: int, rows: int) -> None:
        if self._count + cells > self.limits.cells:
            raise ConstraintCrdtError(f"more than the {self.limits.cells} cells that this node is set to hold")
        if rows and len(self._rows) + rows > self.limits.rows:
            raise ConstraintCrdtError(f"more than the {self.limits.rows} rows that this node is set to hold")

    def _own(self, replica: Replica) -> Row:
        """A row to be changed, which no other node shares; empty if there was none."""
        row = self._rows.get(replica)
        if isinstance(row, Row):
            return row
        own = self._rows[replica] = Row() if row is None else Row(row.cells, row.entry)
        return own

    def _discard(self, cell: Cell) -> None:
        self._own(cell.replica).discard(cell.seq)

    def _new_cells(self, run: Run) -> Sequence[Cell]:
        """The cells of a run above the clock (rule 3). Cells are in ascending order, so usually all or none are new."""
        mine = self.seq(run.replica)
        if run.lo >= mine or not run.cells:
            return run.cells
        return run.above(mine)

    def _add_rows(self, runs: Sequence[Run], replicas: Sequence[Replica], cells: Sequence[Cell]) -> None:
        """Take in rows without floors, with all of their cells, of which nothing was known so far. They are shared from now on."""
        if not runs:
            return
        if not core.all_hashed(cells):
            for run in runs:
                self.digest.fill(run.replica, run.cells)
        entries = [run.entry for run in runs]
        if 0 in entries:
            self.digest.enter(runs)
            entries = [run.entry for run in runs]
        ends = [run.hi for run in runs]
        self._rows.update(zip(replicas, runs, strict=True))
        if self._clock_is_shared:
            self.seqs, self._clock_is_shared = self.seqs.copy(), False
        self.seqs.update(zip(replicas, ends, strict=True))
        self._clock_sum += sum(entries)
        self.clock_count += sum(ends)
        self._log.note_all(replicas)
        self._mark_is_old, self._hash = True, None

    def _without_pending(self, cells: Sequence[Cell]) -> Sequence[Cell]:
        """New cells of noted rows, without the cells named by an earlier removal, which are discarded."""
        if not self._pending:
            return cells
        standing = []
        for cell in cells:
            if self._pending.get((cell.kind, cell.key), {}).get(cell.replica, 0) >= cell.seq:
                self._discard(cell)
                if self.signed is not None:
                    self.signed.died(cell)
            else:
                standing.append(cell)
        return standing

    def _drop(self, cell: Cell) -> None:
        super()._drop(cell)
        if self.signed is not None:
            self.signed.died(cell)

    def _take_whole(self, runs: Sequence[Run], known: Iterable[Run]) -> None:
        """Take over the statements of a Sync's runs about the cells that they do not list. `known`: those of rows known before."""
        if self.signed is None:
            self._drop_unlisted(known)
        self._raise_floors({run.replica: run.floor for run in runs})

    def _drop_unlisted(self, runs: Iterable[Run]) -> None:
        """Rule 4: cells accounted for by a Sync and not listed in it are dead."""
        for run in runs:
            listed = {cell.seq for cell in run.cells}
            for cell in self.above(run.replica, 0):
                if cell.seq <= run.hi and cell.seq not in listed:
                    self._drop(cell)

    def _raise_clock(self, replica: Replica, seq: int) -> None:
        before = self.seqs.get(replica, 0)
        if seq <= before:
            return
        row = self._rows.get(replica)
        if not isinstance(row, Row):
            row = self._own(replica)
        self._log.note(replica)
        entry = self.digest.clock_entry(replica, seq)
        self._clock_sum += entry - row.entry
        self.clock_count += seq - before
        if self._clock_is_shared:
            self.seqs, self._clock_is_shared = self.seqs.copy(), False
        self.seqs[replica], row.entry = seq, entry
        self._mark_is_old, self._hash = True, None

    def _raise_floors(self, floors: Mapping[Replica, int]) -> None:
        for replica, floor in floors.items():
            if floor > self.floor(replica):
                self._floors[replica] = floor
                self._log.note(replica)

    def _apply_removals(self, cells: Sequence[Cell]) -> None:
        """Apply the removals among new cells, after all other cells are in place."""
        for cell in core.of_kinds(cells, _ACTING):
            self._enact(cell)

    def _enact(self, cell: Cell) -> None:
        if cell.kind == REMOVE:
            self._apply_removal(cell)
        elif self.signed is not None:
            self._settle(cell)

    def _settle(self, settled: Cell) -> None:
        """Delete the cells of a stretch that its writer does not list. Of a removal among them the floor rises, as in `collect`."""
        low = int(settled.key) * STRETCH
        standing = {cell.seq: cell for cell in self.between(settled.replica, low - 1, low + STRETCH - 1) if cell.kind != SIGNATURE}
        ended = [standing[seq] for seq in unsettled(settled, standing)]
        for cell in ended:
            if cell.kind == REMOVE:
                self._raise_floors({settled.replica: cell.seq})
            self._drop(cell)
        if self._pending and any(cell.kind == REMOVE for cell in ended):
            self._note_pending_anew()

    def _apply_removal(self, removal: Cell) -> None:
        """Delete the targets of a removal; remember targets beyond the clock (sent only by a broken peer)."""
        for target in removed_dots(removal):
            named = self.get(target.kind, target.key, target.replica)
            if named is not None and named.seq <= target.seq:
                self._drop(named)
            self._note_pending(target)

    def _note_pending(self, target: Removed) -> None:
        if target.seq > self.seq(target.replica):
            pending = self._pending.setdefault((target.kind, target.key), {})
            pending[target.replica] = max(target.seq, pending.get(target.replica, 0))


def dots_of(cells: Iterable[Cell]) -> list[tuple[Replica, int]]:
    """The dots of some cells, as a removal names them."""
    return [(cell.replica, cell.seq) for cell in cells]
