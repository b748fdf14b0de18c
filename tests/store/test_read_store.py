"""A store is read without its node: whole or not at all, and it stays as it is."""

import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from constraint_crdt import ConstraintState, from_json
from constraint_crdt.cli import main
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.errors import StoreError
from constraint_crdt.store import Changes, Store, read_store
from tests.store.disk import account, add, count, open_store, remove, reopened, taken

Capture = pytest.CaptureFixture[str]


def written(path: Path) -> tuple[Store, Rows, Changes]:
    """A store with some cells and a removal, still open."""
    store, rows = open_store(path), Rows()
    changes = Changes(rows)
    add(rows, "x")
    add(rows, "y")
    count(rows, "x", 3)
    remove(rows, "y")
    store.commit(taken(changes))
    return store, rows, changes


def read(path: Path) -> Rows:
    rows = Rows()
    read_store(path, rows)
    return rows


def contents(directory: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in sorted(directory.iterdir())}


def test_a_store_that_nobody_uses_is_read_and_no_file_beside_it_changes(tmp_path: Path) -> None:
    store, rows, _ = written(tmp_path / "a.db")
    store.close()
    before = contents(tmp_path)
    assert account(read(tmp_path / "a.db")) == account(rows)
    assert contents(tmp_path) == before
    assert reopened(tmp_path / "a.db") == account(rows)


def test_a_store_in_use_is_read_as_of_its_last_commit_and_its_node_goes_on(tmp_path: Path) -> None:
    store, rows, changes = written(tmp_path / "a.db")
    assert account(read(tmp_path / "a.db")) == account(rows)
    add(rows, "z")
    store.commit(taken(changes))
    assert account(read(tmp_path / "a.db")) == account(rows)
    store.close()
    assert reopened(tmp_path / "a.db") == account(rows)


def test_what_a_killed_node_left_is_read_with_its_log(tmp_path: Path) -> None:
    store, rows, _ = written(tmp_path / "a.db")
    (tmp_path / "left").mkdir()
    for ending in ("", "-wal"):
        shutil.copy(f"{tmp_path / 'a.db'}{ending}", tmp_path / "left")
    store.close()
    assert account(read(tmp_path / "left" / "a.db")) == account(rows)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_store_in_a_directory_without_permission_to_write_is_read(tmp_path: Path) -> None:
    store, rows, _ = written(tmp_path / "a.db")
    store.close()
    tmp_path.chmod(0o500)
    try:
        assert account(read(tmp_path / "a.db")) == account(rows)
    finally:
        tmp_path.chmod(0o700)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4096])


def flip(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE cell SET data = zeroblob(length(data)) WHERE seq = 1")
    connection.close()


def _of_another_program(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE cell (x)")
    connection.close()


def _newer(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 9")
    connection.close()


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (Path.unlink, "there is no store {path}"),
        (lambda path: path.write_bytes(b""), "the store {path} is damaged (it is empty)"),
        (lambda path: path.write_bytes(b"no database" * 100), "the store {path} is damaged (it is no SQLite file)"),
        (_of_another_program, "{path} is a database of another program"),
        (_newer, "{path} was written by a newer version of constraint-crdt (form 9, this one knows 1)"),
        (cut, "the store {path} is damaged"),
        (flip, "the store {path} is damaged (cell 1 of row 1 has a wrong checksum)"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_sentence_and_left_as_it_is(
    tmp_path: Path, capsys: Capture, harm: object, sentence: str
) -> None:
    path = tmp_path / "a.db"
    written(path)[0].close()
    harm(path)  # type: ignore[operator]
    before = contents(tmp_path)
    with pytest.raises(StoreError) as raised:
        read(path)
    assert str(raised.value).startswith(sentence.format(path=path))
    assert contents(tmp_path) == before
    assert main(["export", "--store", str(path)]) == (1 if path.exists() else 2)
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"constraint-crdt export: {raised.value}\n")


def test_a_directory_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be used"):
        read(tmp_path)


def test_export_writes_the_state_file_that_the_node_would_have_written(tmp_path: Path, capsys: Capture) -> None:
    store, rows, _ = written(tmp_path / "a.db")
    store.close()
    assert main(["export", "--store", str(tmp_path / "a.db"), "-o", str(tmp_path / "a.json")]) == 0
    assert "1 constraint" in capsys.readouterr().out
    state = from_json((tmp_path / "a.json").read_text())
    assert account(state.rows) == account(rows)
    assert state == ConstraintState(rows)
