"""The standing cells of all rows by kind and key, with their digest sums and those who watch them.

A *table* holds, for one kind of cell, the standing cells by key: a bare cell where one row has the key, a dict by replica where
several have. That is the only index over cells: rows themselves keep just their order.

Rules kept here:

- In a slot (kind, key, row) the cell that came last stands; whoever puts cells sees to it that it has the higher seq.
- Sums, count and watchers are brought up to date with each cell, so reads compute nothing.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence

from constraint_crdt.crdt.cells import REMOVE, Cell, Key
from constraint_crdt.crdt.digest import Digest, StateHash
from constraint_crdt.crdt.replica import Replica

Holder = Cell | dict[Replica, Cell]
Watcher = Callable[[Cell | None, Cell | None], None]
"""Called with (the cell that fell, the cell that now stands); at least one is given, both have the same replica and key."""

BulkWatcher = Callable[[Sequence[Cell]], None]
"""Called with cells that came where nothing stood, at most one under any key, in place of the watcher for each."""

FEW = 8
"""So many cells are put one by one: to sort them by kind first would cost more."""


class Tables(ABC):
    """The index over cells that `Rows` builds on."""

    def __init__(self, digest: Digest | None = None) -> None:
        self.digest = digest or Digest()
        self._tables: dict[int, dict[Key, Holder]] = {}
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
            if kind != REMOVE:
                yield from self.each(kind)

    def watch(
        self, kind: int, watcher: Watcher, restart: Callable[[], None] | None = None, bulk: BulkWatcher | None = None
    ) -> None:
        """Have `watcher` called for every change of a cell of this kind. It must not raise, not write, and read no hash.

        With `restart` it keeps readings: after a repair that is called, and then `watcher` for each cell as if it were new.
        A `bulk` is called instead where many new cells come at once, so that those that do not matter cost little.
        """
        self._watchers.setdefault(kind, []).append(watcher)
        if restart is not None:
            self._readings.append((kind, watcher, restart))
        if bulk is not None:
            self._bulk_watchers[watcher] = bulk

    def take_dropped(self) -> list[Cell]:
        """The cells that were taken out, not superseded, since the last call. With the runs above a clock, the floors, and what was
        mended, that is all that changed since: what a store needs to follow. Kept from the first call on.
        """
        fallen, self._dropped = self._dropped, []
        return fallen or []

    def take_repaired(self) -> list[Cell]:
        """The cells that a repair put at or below the clock since the last call; some may have been superseded since. What they
        took the place of is among the fallen. Kept from the first call on.
        """
        mended, self._repaired = self._repaired, []
        return mended or []

    # --- the steps of a change -----------------------------------------------------------------------------------

    @abstractmethod
    def _discard(self, cell: Cell) -> None:
        """Note in the cell's row that it does not stand any more."""

    def _put_all(self, cells: Sequence[Cell]) -> None:
        """Let new cells stand. Those of a kind whose keys are all new go in at once: most that a blank node takes do."""
        if len(cells) <= FEW:
            for cell in cells:
                self._put(cell)
            return
        kinds = {cell.kind for cell in cells}
        for kind in kinds:
            of_kind = cells if len(kinds) == 1 else [cell for cell in cells if cell.kind == kind]
            table = self._tables.setdefault(kind, {})
            firsts: dict[Key, Holder] = {cell.key: cell for cell in of_kind}
            if len(firsts) == len(of_kind) and table.keys().isdisjoint(firsts.keys()):
                table.update(firsts)
                self._account(kind, of_kind)
            else:
                self._put_mixed(kind, table, of_kind)

    def _put_mixed(self, kind: int, table: dict[Key, Holder], cells: Sequence[Cell]) -> None:
        """Let new cells of one kind stand, some of them under keys that are taken."""
        firsts: list[Cell] = []
        for cell in cells:
            if table.setdefault(cell.key, cell) is cell:
                firsts.append(cell)
            else:
                self._account(kind, firsts)  # first, since `cell` may take the place of one of them
                firsts = []
                self._put(cell)
        self._account(kind, firsts)

    def _account(self, kind: int, cells: Sequence[Cell]) -> None:
        """Account for cells, one under each key, that stand where none stood."""
        if not cells:
            return
        self._count += len(cells)
        if kind != REMOVE:
            self._sums[kind] = self._sums.get(kind, 0) + sum([cell.digest for cell in cells])
            self._hash = None
        for watcher in self._watchers.get(kind, ()):
            bulk = self._bulk_watchers.get(watcher)
            if bulk is not None:
                bulk(cells)
            else:
                for cell in cells:
                    watcher(None, cell)

    def _put(self, cell: Cell) -> None:
        """Let a new cell stand that its row has noted."""
        kind, key, replica = cell.kind, cell.key, cell.replica
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
            self._discard(old)
        if kind != REMOVE:
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
        self._discard(cell)
        if self._dropped is not None:
            self._dropped.append(cell)
        if kind != REMOVE:
            self._sums[kind] -= cell.digest
            self._hash = None
        for watcher in self._watchers.get(kind, ()):
            watcher(cell, None)
