"""What a store takes on disk stays in proportion to what stands, not to what was ever written."""

from pathlib import Path

import pytest

from constraint_crdt.crdt.rows import Rows
from constraint_crdt.store import Changes, Store
from constraint_crdt.store import store as module
from tests.store.disk import account, add, open_store, remove, reopened, taken

IDS = [f"constraint-{number}" for number in range(100)]


def churn(store: Store, rows: Rows, changes: Changes) -> None:
    """Add and remove every id, a commit after each half, and forget the removals."""
    for id_ in IDS:
        add(rows, id_)
    store.commit(taken(changes))
    changes.done(taken(changes))
    for id_ in IDS:
        remove(rows, id_)
    rows.collect()
    store.commit(taken(changes))
    changes.done(taken(changes))


@pytest.mark.long
def test_a_store_levels_off_however_often_the_same_ids_come_and_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECKPOINT_PAGES", 20)
    store, rows = open_store(tmp_path / "a.db"), Rows()
    changes, sizes = Changes(rows), []
    for _ in range(60):
        churn(store, rows, changes)
        sizes.append(store.size)
    store.close()
    assert max(sizes[10:]) <= max(sizes[:10])
    assert reopened(tmp_path / "a.db") == account(rows)


@pytest.mark.slow
def test_a_log_that_one_commit_made_long_is_cut_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOG_BYTES", 100_000)
    monkeypatch.setattr(module, "CHECKPOINT_PAGES", 20)
    store, rows = open_store(tmp_path / "a.db"), Rows()
    changes, log = Changes(rows), tmp_path / "a.db-wal"
    for number in range(5000):
        add(rows, f"c{number}")
    store.commit(taken(changes))
    changes.done(taken(changes))
    assert log.stat().st_size > 300_000
    for number in range(3):
        add(rows, f"d{number}")
        store.commit(taken(changes))
        changes.done(taken(changes))
    assert log.stat().st_size <= 100_000
    store.close()
