"""All rows that a node holds, and the one merge rule of the system (DESIGN 2 to 4).

Rules kept here:

- Each replica writes only its own row; per key the higher seq stands. So two copies of a row never conflict.
- `apply` takes the whole of a transfer or nothing. It validates first; after the first change nothing in it can fail.
- A cell at or below the clock that is not held is dead and is never put back.
- The clock of a row rises only together with the cells up to there.
- A removal deletes the add cells it names, also ones that arrive later.
- The digest sums, the tables and the views are brought up to date with each cell, so reads compute nothing.

A *table* holds, for one kind of cell, the standing cells of all rows by key: a bare cell where one row has the key, a dict by
replica where several have. That is the only index over cells: rows themselves keep just their order.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from constraint_crdt.core import cells as cell_kinds
from constraint_crdt.core.cells import Cell, Key
from constraint_crdt.core.clock import ClockMark, VectorClock
from constraint_crdt.core.digest import Digest, StateHash
from constraint_crdt.core.limits import DEFAULT_LIMITS, MAX_COUNT, Limits
from constraint_crdt.core.replica import Replica
from constraint_crdt.core.row import Row
from constraint_crdt.core.run import Run
from constraint_crdt.errors import ConstraintCrdtError

Holder = Cell | dict[Replica, Cell]
Watcher = Callable[[Cell | None, Cell | None], None]
"""Called with (the cell that fell, the cell that now stands); at least one is given, both have the same replica and key."""


class Applied(NamedTuple):
    """What `Rows.apply` did."""

    changed: bool
    gap: bool
    """A run started above my clock, so nothing was applied."""


class Rows:
    """Every cell this node holds, with clock, floors and digest."""

    def __init__(self, digest: Digest | None = None, limits: Limits = DEFAULT_LIMITS) -> None:
        self.digest = digest or Digest()
        self.limits = limits
        self._rows: dict[Replica, Row] = {}
        self._clock: dict[Replica, int] = {}
        self._floors: dict[Replica, int] = {}
        self._tables: dict[int, dict[Key, Holder]] = {}
        self._watchers: dict[int, list[Watcher]] = {}
        self._sums: dict[int, int] = {}
        self._clock_sum = 0
        self._clock_count = 0
        self._count = 0
        self._pending: dict[tuple[int, Key], dict[Replica, int]] = {}
        self._mark = ClockMark({}, 0, 0)
        self._mark_is_old = False
        self._hash: StateHash | None = None
        self._fallen: list[Cell] | None = None
        self._mended: list[Cell] | None = None
        self._readings: list[tuple[int, Watcher, Callable[[], None]]] = []

    # --- reading -----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """How many cells stand, removals included."""
        return self._count

    def __contains__(self, replica: object) -> bool:
        return replica in self._rows

    def seq(self, replica: Replica) -> int:
        """Up to which seq that row is accounted for."""
        return self._clock.get(replica, 0)

    def floor(self, replica: Replica) -> int:
        """Up to which seq removals of that row were dropped here."""
        return self._floors.get(replica, 0)

    @property
    def clock_mark(self) -> ClockMark:
        """The clock as of now. O(rows) after a change, else O(1)."""
        if self._mark_is_old:
            self._mark = self._mark.followed_by(self._clock.copy(), self._clock_sum, self._clock_count)
            self._mark_is_old = False
        return self._mark

    @property
    def clock(self) -> VectorClock:
        """The clock as of now, a value of its own. O(rows) after a change."""
        return VectorClock.over(self.clock_mark.entries)

    @property
    def floors(self) -> dict[Replica, int]:
        """The floors that are not 0. O(rows)."""
        return self._floors.copy()

    @property
    def state_hash(self) -> StateHash:
        """The hash of all live cells (removals apart) and the clock. O(1)."""
        if self._hash is None:
            self._hash = self.digest.state(sum(self._sums.values()), self._clock_sum)
        return self._hash

    def kind_hash(self, kind: int) -> StateHash:
        """The hash of the live cells of one kind, without the clock. O(1)."""
        return self.digest.state(self._sums.get(kind, 0), 0)

    def kind_sum(self, kind: int) -> int:
        """The digest sum of the live cells of one kind: equal sums mean equal cells. O(1)."""
        return self._sums.get(kind, 0)

    def table(self, kind: int) -> Mapping[Key, Holder]:
        """The standing cells of one kind by key. A live view: do not hold it over a change."""
        return self._tables.setdefault(kind, {})

    def get(self, kind: int, key: Key, replica: Replica) -> Cell | None:
        """The cell that stands in one row under one key. O(1)."""
        held = self._tables.get(kind, {}).get(key)
        if isinstance(held, dict):
            return held.get(replica)
        return held if held is not None and held.replica == replica else None

    def held(self, kind: int, key: Key) -> Sequence[Cell]:
        """The cells of all rows that stand under one key. O(their number)."""
        held = self._tables.get(kind, {}).get(key)
        if held is None:
            return ()
        return tuple(held.values()) if isinstance(held, dict) else (held,)

    def each(self, kind: int) -> Iterator[Cell]:
        """Every standing cell of one kind. O(their number)."""
        for held in self._tables.get(kind, {}).values():
            if isinstance(held, dict):
                yield from held.values()
            else:
                yield held

    def live_cells(self) -> Iterator[Cell]:
        """Every standing cell that the hash covers: all but removals. O(cells)."""
        for kind in self._tables:
            if kind != cell_kinds.REMOVE:
                yield from self.each(kind)

    def above(self, replica: Replica, lo: int) -> list[Cell]:
        """The standing cells of one row with a seq above `lo`, in ascending order. O(cells above lo)."""
        row = self._rows.get(replica)
        return row.above(lo) if row else []

    def watch(self, kind: int, watcher: Watcher, restart: Callable[[], None] | None = None) -> None:
        """Have `watcher` called for every change of a cell of this kind. It must not raise, not write, and read no hash.

        With `restart` it keeps readings: after a repair that is called, and then `watcher` for each cell as if it were new.
        """
        self._watchers.setdefault(kind, []).append(watcher)
        if restart is not None:
            self._readings.append((kind, watcher, restart))

    def take_fallen(self) -> list[Cell]:
        """The cells that were taken out, not superseded, since the last call. With the runs above a clock, the floors, and what was
        mended, that is all that changed since: what a store needs to follow. Kept from the first call on.
        """
        fallen, self._fallen = self._fallen, []
        return fallen or []

    def take_mended(self) -> list[Cell]:
        """The cells that a repair put at or below the clock since the last call; some may have been superseded since. What they
        took the place of is among the fallen. Kept from the first call on.
        """
        mended, self._mended = self._mended, []
        return mended or []

    # --- the runs that somebody lacks ----------------------------------------------------------------------------

    def serves(self, clock: Mapping[Replica, int]) -> bool:
        """True if a Delta can serve a peer at `clock`; if not, its clock is below a floor and it needs a Sync. O(floors)."""
        return all(floor <= clock.get(replica, 0) for replica, floor in self._floors.items())

    def ahead_of(self, clock: Mapping[Replica, int]) -> int:
        """How many mutations are accounted for here and not in `clock`. O(rows)."""
        theirs = clock.get
        return sum([hi - lo for replica, hi in self._clock.items() if hi > (lo := theirs(replica, 0))])

    def since(self, clock: Mapping[Replica, int]) -> list[Run]:
        """A run for every row that is ahead of `clock`. O(rows + cells in the runs)."""
        theirs = clock.get
        ahead = [(replica, lo, hi) for replica, hi in self._clock.items() if hi > (lo := theirs(replica, 0))]
        return [Run(replica, lo, hi, self._rows[replica].above(lo)) for replica, lo, hi in ahead]

    def whole(self) -> list[Run]:
        """Every row from 0, with its floor: what a Sync carries. O(cells)."""
        return [Run(replica, 0, hi, self._rows[replica].above(0), self.floor(replica)) for replica, hi in self._clock.items()]

    # --- writing -------------------------------------------------------------------------------------------------

    def write(self, replica: Replica, cell: Cell) -> Cell:
        """Append one mutation to the writer's own row. Returns the cell, bound to its dot.

        Raises `ConstraintCrdtError` beyond a limit; then nothing has changed.
        """
        self.write_all(replica, (cell,))
        return cell

    def write_all(self, replica: Replica, cells: Sequence[Cell]) -> None:
        """Append several mutations as one transaction. Raises `ConstraintCrdtError` beyond a limit; then none is written."""
        row, last = self._rows.get(replica), self.seq(replica)
        self._check_room(len(cells), 0 if row else 1)
        if last + len(cells) > MAX_COUNT:
            raise ConstraintCrdtError(f"the row of {replica} is full")
        row = row or self._open_row(replica)
        for seq, cell in enumerate(cells, start=last + 1):
            cell.replica, cell.seq = replica, seq
            if cell.key == 0:
                cell.key = seq
        self.digest.fill(replica, cells)
        row.extend(cells)
        for cell in cells:
            self._put(row, cell)
        self._raise_clock(replica, row, last + len(cells))
        for cell in cells:
            if cell.kind == cell_kinds.REMOVE:
                self._act(cell)

    def apply(self, runs: Sequence[Run], *, whole: bool = False) -> Applied:
        """Take in one transfer, all of it or nothing (the receiver's rule of DESIGN 3).

        `whole` says that it is a Sync: cells up to `hi` that a run does not list are dead, and its floors are taken.
        Raises `ConstraintCrdtError` beyond a limit; then nothing has changed.
        """
        if any(run.lo > self.seq(run.replica) for run in runs):
            return Applied(changed=False, gap=True)
        fresh = [(run, self._above(run)) for run in runs]
        new_rows = sum(run.replica not in self._rows for run in runs)
        self._check_room(sum(len(cells) for _, cells in fresh), new_rows)
        version = self._clock_sum, self._count
        removals: list[Cell] = []
        for run, cells in fresh:
            row = self._rows.get(run.replica) or self._open_row(run.replica)
            self.digest.fill(run.replica, cells)
            removals += self._take(row, cells)
            if whole:
                self._drop_unlisted(row, run)
            self._raise_clock(run.replica, row, run.hi)
        for cell in removals:
            self._act(cell)
        return Applied(changed=(self._clock_sum, self._count) != version, gap=False)

    def merge(self, other: "Rows") -> bool:
        """Take in everything another set of rows knows. True if that changed what is known here."""
        if self.digest != other.digest:
            raise ConstraintCrdtError("states of fleets with different secrets cannot be merged")
        mine = self.clock_mark.entries
        whole = not other.serves(mine)
        return self.apply(other.whole() if whole else other.since(mine), whole=whole).changed

    def collect(self, upto: Mapping[Replica, int] | None = None) -> int:
        """Drop the removals whose every named dot is within the clock, raising floors. Returns how many. O(removals).

        `upto`: only those within this clock, which all who matter have reached, so that none of them will need a Sync.
        """
        dropped = [
            cell
            for cell in self.each(cell_kinds.REMOVE)
            if (upto is None or cell.seq <= upto.get(cell.replica, 0))
            and all(named.seq <= self.seq(named.replica) for named in cell_kinds.removed_dots(cell))
        ]
        for cell in dropped:
            self._floors[cell.replica] = max(self.floor(cell.replica), cell.seq)
            self._drop(cell)
        self._pending = {
            slot: ahead
            for slot, dots in self._pending.items()
            if (ahead := {replica: seq for replica, seq in dots.items() if seq > self.seq(replica)})
        }
        return len(dropped)

    def copy(self) -> "Rows":
        """An independent copy without watchers; cells are shared. O(cells)."""
        twin = Rows(self.digest, self.limits)
        twin._rows = {replica: row.copy() for replica, row in self._rows.items()}
        twin._clock, twin._floors = self._clock.copy(), self._floors.copy()
        twin._mark, twin._mark_is_old = self._mark, self._mark_is_old
        twin._tables = {
            kind: {key: dict(held) if isinstance(held, dict) else held for key, held in table.items()}
            for kind, table in self._tables.items()
        }
        twin._sums = dict(self._sums)
        twin._clock_sum, twin._clock_count, twin._count = self._clock_sum, self._clock_count, self._count
        twin._pending = {slot: dict(dots) for slot, dots in self._pending.items()}
        return twin

    # --- the steps of the rule -----------------------------------------------------------------------------------

    def _check_room(self, cells: int, rows: int) -> None:
        if self._count + cells > self.limits.cells:
            raise ConstraintCrdtError(f"more than the {self.limits.cells} cells that this node is set to hold")
        if rows and len(self._rows) + rows > self.limits.rows:
            raise ConstraintCrdtError(f"more than the {self.limits.rows} rows that this node is set to hold")

    def _open_row(self, replica: Replica) -> Row:
        row = self._rows[replica] = Row()
        return row

    def _above(self, run: Run) -> Sequence[Cell]:
        """The cells of a run that are news (rule 3): cells are in ascending order, so usually all or none are."""
        mine = self.seq(run.replica)
        if run.lo >= mine or not run.cells:
            return run.cells
        return [cell for cell in run.cells if cell.seq > mine]

    def _take(self, row: Row, cells: Sequence[Cell]) -> list[Cell]:
        """Put new cells of one row; returns the removals among them, which are to act later.

        The first cell under a key is put in line: most cells that a blank node takes are, and `_put` would double the cost.
        """
        row.extend(cells)
        tables, watchers, sums = self._tables, self._watchers, self._sums
        removals: list[Cell] = []
        firsts = 0
        for cell in cells:
            kind = cell.kind
            if kind == cell_kinds.REMOVE:
                removals.append(cell)
            elif kind in sums and not self._pending and tables[kind].setdefault(cell.key, cell) is cell:
                firsts += 1
                sums[kind] += cell.digest
                if kind in watchers:
                    for watcher in watchers[kind]:
                        watcher(None, cell)
                continue
            self._put(row, cell)
        self._count += firsts
        self._hash = None
        return removals

    def _put(self, row: Row, cell: Cell) -> None:
        """Let a cell stand that the row has noted."""
        kind, key, replica = cell.kind, cell.key, cell.replica
        if self._pending and self._pending.get((kind, key), {}).get(replica, 0) >= cell.seq:
            row.bury(cell.seq)
            return
        table = self._tables.get(kind)
        if table is None:
            table = self._tables[kind] = {}
        held = table.get(key)
        old: Cell | None = None
        if held is None:
            table[key] = cell
        elif isinstance(held, dict):
            old = held.get(replica)
            held[replica] = cell
        elif held.replica == replica:
            old = held
            table[key] = cell
        else:
            table[key] = {held.replica: held, replica: cell}
        if old is None:
            self._count += 1
        else:
            row.bury(old.seq)
        if kind != cell_kinds.REMOVE:
            self._sums[kind] = self._sums.get(kind, 0) + cell.digest - (old.digest if old is not None else 0)
            self._hash = None
        for watcher in self._watchers.get(kind, ()):
            watcher(old, cell)

    def _drop(self, cell: Cell) -> None:
        """Take a standing cell out."""
        kind, key, replica = cell.kind, cell.key, cell.replica
        table = self._tables[kind]
        held = table[key]
        if isinstance(held, dict):
            del held[replica]
            if len(held) == 1:
                table[key] = next(iter(held.values()))
        else:
            del table[key]
        self._count -= 1
        self._rows[replica].bury(cell.seq)
        if self._fallen is not None:
            self._fallen.append(cell)
        if kind != cell_kinds.REMOVE:
            self._sums[kind] -= cell.digest
            self._hash = None
        for watcher in self._watchers.get(kind, ()):
            watcher(cell, None)

    def _drop_unlisted(self, row: Row, run: Run) -> None:
        """Rule 4: what a Sync accounts for and does not list is dead."""
        listed = {cell.seq for cell in run.cells}
        doomed = [cell for cell in row.above(0) if cell.seq <= run.hi and cell.seq not in listed]
        for cell in doomed:
            self._drop(cell)
        if run.floor > self.floor(run.replica):
            self._floors[run.replica] = run.floor

    def _raise_clock(self, replica: Replica, row: Row, seq: int) -> None:
        before = self.seq(replica)
        if seq <= before:
            return
        entry = self.digest.clock_entry(replica, seq)
        self._clock_sum += entry - row.entry
        self._clock_count += seq - before
        self._clock[replica], row.entry = seq, entry
        self._mark_is_old, self._hash = True, None

    def _act(self, removal: Cell) -> None:
        """Delete the cells that a removal names; remember what it names beyond the clock (only a broken sender does that)."""
        for kind, key, replica, seq in cell_kinds.removed_dots(removal):
            named = self.get(kind, key, replica)
            if named is not None and named.seq <= seq:
                self._drop(named)
            if seq > self.seq(replica):
                pending = self._pending.setdefault((kind, key), {})
                pending[replica] = max(seq, pending.get(replica, 0))


def dots_of(cells: Iterable[Cell]) -> list[tuple[Replica, int]]:
    """The dots of some cells, as a removal names them."""
    return [(cell.replica, cell.seq) for cell in cells]
