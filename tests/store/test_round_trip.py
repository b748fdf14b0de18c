"""What is committed is what is loaded: any history, with commits at any points of it."""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from constraint_crdt.crdt.cells import make_cell
from constraint_crdt.crdt.clock import Digest, Replica
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.store import Changes
from constraint_crdt.types.definition import ADD
from tests.store.disk import ME, OTHER, account, add, count, loaded, open_store, remove, reopened, taken, write_history

IDS = st.sampled_from(["x", "y", "z", "ünï\0code", "x" * 256])
WRITERS = st.sampled_from([ME, OTHER, Replica("c", 2**63 - 1)])
SHM = "/dev/shm" if Path("/dev/shm").is_dir() else None  # the property is about content; syncing a real disk only slows it


class StoreFollowsRows(RuleBasedStateMachine):
    """One node's rows and its store, and another node that writes elsewhere and is merged."""

    @initialize()
    def begin(self) -> None:
        self.directory = Path(tempfile.mkdtemp(dir=SHM))
        self.path = self.directory / "a.db"
        self.store = open_store(self.path)
        self.rows, self.elsewhere = Rows(), Rows()
        self.changes = Changes(self.rows)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.restart()
            self.store.close()
            shutil.rmtree(self.directory)

    @rule(id_=IDS)
    def add(self, id_: str) -> None:
        add(self.rows, id_)

    @rule(id_=IDS, value=st.integers(0, 99))
    def count(self, id_: str, value: int) -> None:
        count(self.rows, id_, value)

    @rule(id_=IDS)
    def remove(self, id_: str) -> None:
        remove(self.rows, id_)

    @rule(id_=IDS, writer=WRITERS, removes=st.booleans())
    def write_elsewhere(self, id_: str, writer: Replica, removes: bool) -> None:
        if writer != ME:
            (remove if removes else add)(self.elsewhere, id_, writer)

    @rule()
    def merge(self) -> None:
        self.rows.merge(self.elsewhere)

    @rule()
    def merge_back(self) -> None:
        self.elsewhere.merge(self.rows)

    @rule()
    def collect(self) -> None:
        self.rows.collect()

    @rule()
    def collect_elsewhere(self) -> None:
        self.elsewhere.collect()

    @rule()
    def commit(self) -> None:
        batch = self.changes.take()
        if batch is not None:
            self.store.commit(batch)
            self.changes.done(batch)

    @rule()
    def commit_that_is_not_known_to_have_succeeded(self) -> None:
        batch = self.changes.take()
        if batch is not None:
            self.store.commit(batch)

    @rule()
    def commit_that_fails(self) -> None:
        self.changes.take()

    @precondition(lambda self: hasattr(self, "store"))
    @rule()
    def restart(self) -> None:
        self.commit()
        self.store.close()
        self.store = open_store(self.path)
        found = loaded(self.store)
        assert account(found) == account(self.rows)
        self.rows = found
        self.changes = Changes(found)


TestStoreFollowsRows = StoreFollowsRows.TestCase


@pytest.mark.slow
def test_every_kind_of_change_survives(tmp_path: Path) -> None:
    rows = Rows()
    changes, path = Changes(rows), tmp_path / "a.db"
    for _ in write_history(rows):
        store = open_store(path)
        store.commit(taken(changes))
        changes.done(taken(changes))
        store.close()
        assert reopened(path) == account(rows)


def test_nothing_new_is_no_commit() -> None:
    rows = Rows()
    changes = Changes(rows)
    assert changes.take() is None
    add(rows, "x")
    changes.done(taken(changes))
    assert changes.take() is None
    remove(rows, "x")
    changes.done(taken(changes))
    rows.collect()
    assert taken(changes).floors == {ME: 2}


def test_cells_that_came_and_went_between_two_commits_leave_nothing_to_write(tmp_path: Path) -> None:
    rows = Rows()
    changes = Changes(rows)
    for _ in range(50):
        add(rows, "x")
        remove(rows, "x")
        rows.collect()
    batch = taken(changes)
    assert [len(run.cells) for run in batch.runs] == [0]
    assert len(batch.fallen) == 1, "the removals never were on disk; the add is named once"


def test_a_cell_of_a_kind_unknown_here_is_kept_as_it_came(tmp_path: Path) -> None:
    rows = Rows()
    changes, path = Changes(rows), tmp_path / "a.db"
    rows.write(ME, make_cell(99, "k", {"any": [1, b"thing"]}))
    rows.write(ME, make_cell(98, None, 5))
    store = open_store(path)
    store.commit(taken(changes))
    store.close()
    assert reopened(path) == account(rows)


def test_another_secret_is_no_damage(tmp_path: Path) -> None:
    rows = Rows(Digest(b"first"))
    changes = Changes(rows)
    add(rows, "x")
    store = open_store(tmp_path / "a.db")
    store.commit(taken(changes))
    found = Rows(Digest(b"second"))
    store.restore(found)
    store.close()
    assert found.clock == rows.clock
    assert [cell.data for cell in found.each(ADD)] == [cell.data for cell in rows.each(ADD)]
