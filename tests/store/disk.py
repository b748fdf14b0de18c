"""What the tests of the store share: opening one, writing to it, and an exact account of what it holds."""

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from constraint_crdt.crdt.cells import REMOVE, make_cell, make_removal
from constraint_crdt.crdt.clock import Replica
from constraint_crdt.crdt.rows import Rows, dots_of
from constraint_crdt.store import Changes, Store
from constraint_crdt.store.files import Machine, Marker
from constraint_crdt.store.store import CommitBatch
from constraint_crdt.types.counters import COUNTS
from constraint_crdt.types.definition import ADD

ME, OTHER = Replica("a", 1), Replica("b", 5)
BOOT = Machine("one-boot", "one-generation")

Account = tuple[bytes, dict[Replica, int], dict[Replica, int], tuple[tuple[int, str | int, Replica, int, bytes], ...]]


def open_store(
    path: Path,
    marker: Marker | None = None,
    *,
    incarnation: int = 1,
    factory: type[sqlite3.Connection] = sqlite3.Connection,
) -> Store:
    """The store of node `a` in fleet `f`."""
    return Store.open(
        path,
        node="a",
        fleet="f",
        marker=marker or Marker(None, BOOT),
        fresh_incarnation=lambda: incarnation,
        factory=factory,
    )


def account(rows: Rows) -> Account:
    """All that is known: hash, clock, floors, and every cell, removals too."""
    cells = sorted((cell.kind, str(cell.key), *cell.replica, cell.seq, cell.data) for run in rows.whole() for cell in run.cells)
    kept = tuple((kind, key, Replica(node, incarnation), seq, data) for kind, key, node, incarnation, seq, data in cells)
    return bytes(rows.state_hash), rows.clock.as_dict(), rows.floors, kept


def loaded(store: Store) -> Rows:
    """What a store holds."""
    rows = Rows()
    store.restore(rows)
    return rows


def reopened(path: Path) -> Account:
    """What a store file holds, opened and closed."""
    store = open_store(path)
    try:
        return account(loaded(store))
    finally:
        store.close()


def add(rows: Rows, id_: str, replica: Replica = ME) -> None:
    rows.write(replica, make_cell(ADD, id_, [None, 2, "x" * 40]))


def count(rows: Rows, id_: str, satisfied: int, replica: Replica = ME) -> None:
    rows.write(replica, make_cell(COUNTS, id_, [satisfied, 0]))


def remove(rows: Rows, id_: str, replica: Replica = ME) -> None:
    rows.write(replica, make_removal([(id_, dots_of(rows.held(ADD, id_)))]))


def taken(changes: Changes) -> CommitBatch:
    batch = changes.take()
    assert batch is not None
    return batch


def write_history(rows: Rows) -> Iterator[str]:
    """A short history that has every kind of change in it; yields after each step that is to be a commit."""
    add(rows, "speed")
    yield "an add"
    add(rows, "heat")
    count(rows, "heat", 1)
    rows.write(OTHER, make_cell(ADD, "speed", None))
    yield "two rows"
    count(rows, "heat", 7)
    remove(rows, "speed")
    yield "a removal and an overwrite"
    add(rows, "speed")
    yield "added again"
    assert rows.collect() == 1
    yield "collected"
    for number in range(30):
        add(rows, f"fence-{number}")
    yield "many"
    remove(rows, "heat", OTHER)
    assert len(list(rows.each(REMOVE))) == 1
    yield "removed by the other"


def copy_store(source: Path, target: Path) -> None:
    """Copy a store as a backup of its files would: the file and its log, over what is there."""
    Path(f"{target}-shm").unlink(missing_ok=True)
    Path(f"{target}-wal").unlink(missing_ok=True)
    for ending in ("", "-wal"):
        if Path(f"{source}{ending}").exists():
            shutil.copyfile(f"{source}{ending}", f"{target}{ending}")  # keeps the inode of a file that is there, as `cp` does
