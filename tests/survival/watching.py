"""A record of every value that a (replica, seq) was ever seen to have, from as many points of view as there are.

A node's own merge cannot tell that a dot was used twice: what it has, it does not look at again. So this looks at everything that a
node puts into its rows, and at what stores hold, which is read from copies of them.
"""

import subprocess
from pathlib import Path

from constraint_crdt.crdt.cells import REMOVE, Cell, Key
from constraint_crdt.crdt.clock import Dot
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.store import Store
from constraint_crdt.store.files import Machine, Marker
from constraint_crdt.types.counters import COUNTS
from constraint_crdt.types.definition import ADD
from constraint_crdt.types.nodes import NODE, RETIRE
from constraint_crdt.types.tile_cells import POSITION

KINDS = (ADD, REMOVE, COUNTS, POSITION, NODE, RETIRE)
ENDINGS = ("", "-wal", "-shm")


class DotWatch:
    """What each dot was seen to hold."""

    def __init__(self) -> None:
        self.conflicts: list[str] = []
        """Dots that had two values."""
        self._seen: dict[Dot, tuple[int, Key, bytes]] = {}

    def __len__(self) -> int:
        return len(self._seen)

    def follow(self, rows: Rows) -> None:
        """Look at what stands in these rows, and at all that ever will."""
        self.read(rows)
        for kind in KINDS:
            rows.watch(kind, lambda _, new: self._see(new))

    def read(self, rows: Rows) -> None:
        """Look at what stands in these rows now."""
        for run in rows.whole():
            for cell in run.cells:
                self._see(cell)

    def _see(self, cell: Cell | None) -> None:
        if cell is None:
            return
        dot, value = Dot(cell.replica, cell.seq), (cell.kind, cell.key, cell.data)
        before = self._seen.setdefault(dot, value)
        if before != value:
            self.conflicts.append(f"{dot}: {before} and {value}")


def copy_store(source: Path, target: Path) -> None:
    """Copy a store and its side files, also while a node uses it, over what is there.

    By another process: closing a file that it copied, this one would lose SQLite's locks on it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for ending in ENDINGS:
        Path(f"{target}{ending}").unlink(missing_ok=True)
        if Path(f"{source}{ending}").exists():
            subprocess.run(["cp", f"{source}{ending}", f"{target}{ending}"], check=True)


def overwrite_store(source: Path, target: Path) -> None:
    """Make a store that nobody uses what another one is, in place: the file stays the one that it was."""
    target.write_bytes(source.read_bytes())
    for ending in ENDINGS[1:]:
        left, here = Path(f"{source}{ending}"), Path(f"{target}{ending}")
        here.unlink(missing_ok=True)
        if left.exists():
            here.write_bytes(left.read_bytes())


def stored(path: Path, scratch: Path, *, node: str, fleet: str = "default") -> Rows:
    """What a store that nobody uses holds, read from a copy so that nothing of it changes."""
    copy = scratch / "read.db"
    copy_store(path, copy)
    store = Store.open(copy, node=node, fleet=fleet, marker=Marker(None, Machine("")), fresh_incarnation=lambda: 1)
    rows = Rows()
    try:
        store.restore(rows)
    finally:
        store.close()
    return rows
