"""Tables: the standing cells of all rows by kind and key, with their digest sums and watchers.

A *table* holds, for a kind of cell, the standing cells by key: a bare cell where a single row has the key, a dict by replica
where several have. The tables are the only index over cells: rows keep just their order.

Rules kept here:

- In a slot (kind, key, row) the last cell stands; callers put cells in ascending order of seq.
- Sums, count and watchers are updated with each cell, so reads compute nothing.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

from constraint_crdt.crdt.cells import REMOVE, Cell, Key, Table, core
from constraint_crdt.crdt.digest import Digest, Replica, StateHash

Watcher = Callable[[Cell | None, Cell | None], None]
"""A callback with the cell before and the cell after a change; at least one is given, both with the same replica and key."""

BulkWatcher = Callable[[Sequence[Cell]], None]
"""A callback with new cells, each the only cell under its key, in place of the watcher for each."""

NO_TABLES: Mapping[int, Table] = MappingProxyType({})

FEW = 8
"""Up to this number, cells are put singly: sorting them by kind first would cost more."""


class Tables(ABC):
    """The index over cells, base of `Rows`."""

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
