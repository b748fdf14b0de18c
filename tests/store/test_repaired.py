"""What a repair puts right below the clock reaches the disk, and what it takes out goes from there."""

import random
from pathlib import Path

import pytest

from constraint_crdt.crdt.cells import Cell
from constraint_crdt.crdt.repair import audit, rebuild
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.store import Changes
from constraint_crdt.types.definition import ADD
from tests.store.disk import add, count, loaded, open_store, remove


@pytest.mark.slow
def test_a_repair_is_on_disk_with_the_next_commit(tmp_path: Path) -> None:
    for seed in range(20):
        rng = random.Random(seed)
        store, rows = open_store(tmp_path / f"{seed}.db"), Rows()
        changes = Changes(rows)
        for number in range(12):
            add(rows, f"c{number}")
            count(rows, f"c{number}", number + 1)
        remove(rows, "c3")
        whole = [cell for kind in rows._tables for cell in rows.each(kind)]
        kept = rng.sample(whole, 15)
        rebuild(rows, kept)  # the state is damaged
        batch = changes.take()
        assert batch is not None
        store.commit(batch)
        changes.done(batch)
        lie = rng.choice(list(rows.live_cells()))
        lie.seq += rng.choice((-1, 5))
        lie.data += b"?"
        assert audit(rows).found
        good = [Cell(c.kind, c.key, c.data, c.seq, c.replica) for c in whole if c is not lie and c.key != "c5"]
        for cell in good:
            rows.digest.fill(cell.replica, [cell])
        rebuild(rows, good)
        if seed % 2:
            add(rows, "c5")
            add(rows, "c6")
        batch = changes.take()
        assert batch is not None
        store.commit(batch)
        changes.done(batch)
        assert changes.take() is None
        again = loaded(store)
        assert again.state_hash == rows.state_hash
        assert set(again.table(ADD)) == set(rows.table(ADD))
        store.close()
