"""A process that opens the store at a path, says so, and commits until it is killed or its input ends.

It says `open`, then after each commit what was acknowledged: `incarnation seq value`, the value being one that nobody used before.
`hold` as a second argument: it only keeps the store open.
"""

import secrets
import sys
from pathlib import Path

from constraint_crdt.crdt.cells import make_cell
from constraint_crdt.crdt.clock import Replica
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.store import Changes, Life, Store
from constraint_crdt.store.files import Machine, Marker
from constraint_crdt.types.counters import COUNTS


def fresh() -> int:
    return 1 + secrets.randbits(40)


def main(path: Path) -> None:
    marker = Marker(path.with_name("marker"), Machine("one-boot"))
    store = Store.open(path, node="a", fleet="f", marker=marker, fresh_incarnation=fresh)
    print("open", flush=True)  # noqa: T201 - the parent reads it
    if sys.argv[2:] == ["hold"]:
        sys.stdin.read()
        return
    rows = Rows()
    store.restore(rows)
    changes = Changes(rows)
    if not store.identity.vouched:
        changes.begin_life(Life(fresh(), 0, "not vouched for"))
    while True:
        batch = changes.take()
        if batch is not None:
            store.commit(batch)
            changes.done(batch)
        replica = Replica("a", store.identity.incarnation)
        cell = rows.write(replica, make_cell(COUNTS, f"k{rows.seq(replica)}", [value := secrets.randbits(60), 0]))
        batch = changes.take()
        assert batch is not None
        store.commit(batch)
        changes.done(batch)
        print(replica.incarnation, cell.seq, value, flush=True)  # noqa: T201 - the parent reads it


if __name__ == "__main__":
    main(Path(sys.argv[1]))
