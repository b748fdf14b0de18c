"""Backups: a copy of the last commit of a store that may be in use, checked; put back whole or not at all, as a new life."""

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from constraint_crdt.crdt.rows import Rows
from constraint_crdt.errors import StoreError
from constraint_crdt.store import Changes, Marker, Store, back_up, check_backup, put_back, set_aside
from constraint_crdt.store.files import replace_file
from tests.store.disk import BOOT, account, add, open_store, reopened, taken
from tests.store.test_read_store import contents, cut, flip, read, written


def test_a_backup_of_a_store_in_use_is_its_last_commit_in_one_private_file(tmp_path: Path) -> None:
    store, rows, changes = written(tmp_path / "a.db")
    target = tmp_path / "backup" / "a.db"
    target.parent.mkdir()
    made = back_up(tmp_path / "a.db", target)
    assert account(read(target)) == account(rows)
    assert (made.cells, made.bytes) == (len(rows), target.stat().st_size)
    assert os.listdir(target.parent) == ["a.db"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    before = account(rows)
    add(rows, "z")
    store.commit(taken(changes))
    assert account(read(target)) == before
    back_up(tmp_path / "a.db", target)
    assert account(read(target)) == account(rows), "it replaces the former one"
    store.close()
    assert reopened(tmp_path / "a.db") == account(rows)


@pytest.mark.long
def test_commits_go_on_while_backups_are_made_and_each_backup_is_one_of_them(tmp_path: Path) -> None:
    store, rows, changes = written(tmp_path / "a.db")
    states = {rows.state_hash}
    done, found = threading.Event(), []

    def copy() -> None:
        while not done.is_set():
            back_up(tmp_path / "a.db", tmp_path / "copy.db")
            found.append(read(tmp_path / "copy.db").state_hash)

    thread = threading.Thread(target=copy)
    thread.start()
    for number in range(200):
        add(rows, f"c{number}")
        store.commit(taken(changes))
        states.add(rows.state_hash)
    while not found:
        add(rows, "last")
        store.commit(taken(changes))
        states.add(rows.state_hash)
    done.set()
    thread.join()
    assert found
    assert set(found) <= states
    store.close()


@pytest.mark.slow
def test_a_restored_store_is_as_the_backup_and_the_former_one_is_kept(tmp_path: Path) -> None:
    marker = Marker(tmp_path / "marker", BOOT)
    store, rows = open_store(tmp_path / "a.db", marker), Rows()
    changes = Changes(rows)
    add(rows, "x")
    store.commit(taken(changes))
    back_up(tmp_path / "a.db", tmp_path / "copy.db")
    before = account(rows)
    add(rows, "later")
    store.commit(taken(changes))
    with pytest.raises(StoreError, match="is in use by"):
        put_back(tmp_path / "copy.db", tmp_path / "a.db")
    store.close()
    _, former = put_back(tmp_path / "copy.db", tmp_path / "a.db")
    assert former is not None
    assert account(read(former)) == account(rows)
    assert account(read(tmp_path / "a.db")) == before
    again = open_store(tmp_path / "a.db", marker)
    assert not again.identity.vouched, "its next write begins a new life"
    assert again.rollback is not None
    assert (again.rollback.kept, again.rollback.noted) == (1, 2)
    again.close()
    _, former = put_back(tmp_path / "copy.db", tmp_path / "elsewhere" / "b.db")
    assert former is None
    assert account(read(tmp_path / "elsewhere" / "b.db")) == before


@pytest.mark.parametrize("harm", [Path.unlink, cut, flip, lambda path: path.write_bytes(b"")])
def test_a_damaged_store_gives_no_backup_and_a_damaged_backup_no_store(tmp_path: Path, harm: Callable[[Path], object]) -> None:
    written(tmp_path / "a.db")[0].close()
    back_up(tmp_path / "a.db", tmp_path / "copy.db")
    harm(tmp_path / "copy.db")
    before = contents(tmp_path)
    with pytest.raises(StoreError):
        put_back(tmp_path / "copy.db", tmp_path / "a.db")
    with pytest.raises(StoreError):
        back_up(tmp_path / "copy.db", tmp_path / "second.db")
    assert contents(tmp_path) == before


def test_a_backup_of_another_node_replaces_no_store(tmp_path: Path) -> None:
    written(tmp_path / "a.db")[0].close()
    other = Store.open(tmp_path / "b.db", node="other", fleet="f", marker=Marker(None, BOOT), fresh_incarnation=lambda: 1)
    other.close()
    back_up(tmp_path / "b.db", tmp_path / "copy.db")
    with pytest.raises(StoreError, match=r"^the store .*a\.db is that of node 'a' of fleet .*, and the backup of node 'other'"):
        put_back(tmp_path / "copy.db", tmp_path / "a.db")
    assert check_backup(tmp_path / "copy.db").node == "other"


def test_a_directory_is_neither_replaced_nor_set_aside(tmp_path: Path) -> None:
    """The defect: the whole directory was renamed, with all that was in it."""
    written(tmp_path / "a.db")[0].close()
    back_up(tmp_path / "a.db", tmp_path / "copy.db")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "other").touch()
    before = {each for each in tmp_path.rglob("*") if each.suffix != ".lock"}
    for refused in (lambda: put_back(tmp_path / "copy.db", tmp_path / "folder"), lambda: set_aside(tmp_path / "folder")):
        with pytest.raises(StoreError, match="is a directory: name a file in it"):
            refused()
    assert {each for each in tmp_path.rglob("*") if each.suffix != ".lock"} == before


def test_a_device_or_a_pipe_is_neither_replaced_nor_renamed(tmp_path: Path) -> None:
    """The defect: `restore --store /dev/null`, and `--rejoin`, renamed the device; `backup` put a file in its place."""
    written(tmp_path / "a.db")[0].close()
    back_up(tmp_path / "a.db", tmp_path / "copy.db")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    before = {each for each in tmp_path.rglob("*") if each.suffix != ".lock"}
    for refused in (
        lambda: put_back(tmp_path / "copy.db", pipe),
        lambda: set_aside(pipe),
        lambda: back_up(tmp_path / "a.db", pipe),
        lambda: Store.open(pipe, node="a", fleet="f", marker=Marker(None, BOOT), fresh_incarnation=lambda: 1),
    ):
        with pytest.raises(StoreError, match="it is no regular file"):
            refused()
    with pytest.raises(OSError, match="it is no regular file"):
        replace_file(pipe, b"x")
    assert {each for each in tmp_path.rglob("*") if each.suffix != ".lock"} == before
    assert pipe.is_fifo()


def test_a_store_is_not_its_own_backup(tmp_path: Path) -> None:
    written(tmp_path / "a.db")[0].close()
    with pytest.raises(StoreError, match="is the store itself"):
        back_up(tmp_path / "a.db", tmp_path / "a.db")
    with pytest.raises(StoreError, match="is the store itself"):
        put_back(tmp_path / "a.db", tmp_path / "a.db")
    with pytest.raises(StoreError, match="cannot back up"):
        back_up(tmp_path / "a.db", tmp_path / "no such folder" / "a.db")
