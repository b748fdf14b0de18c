"""What a store says when it cannot be used: one sentence with what to do, and nothing on disk is changed by it."""

import contextlib
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from constraint_crdt.crdt.limits import Limits
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.store import Changes, Store, StoreError, WritesRefused, default_path, set_aside, store
from constraint_crdt.store.files import Marker, file_name
from tests.store.disk import BOOT, ME, account, add, loaded, open_store, reopened, taken

pytestmark = pytest.mark.processes


def fill(path: Path, constraints: int = 3) -> Rows:
    """A closed store with something in it."""
    rows = Rows()
    changes, store = Changes(rows), open_store(path)
    for number in range(constraints):
        add(rows, f"c{number}")
    store.commit(taken(changes))
    store.close()
    return rows


def refusal(path: Path) -> str:
    with pytest.raises(StoreError) as caught:
        open_store(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is empty"),
        (b"garbage", "it is no SQLite file"),
        (os.urandom(8192), "it is no SQLite file"),
        (b"SQLite format 3\0", "it is no SQLite file"),
    ],
    ids=["empty", "short", "random", "only the first bytes"],
)
def test_a_file_that_is_no_store_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(content)
    assert refusal(path) == f"the store {path} is damaged ({said}): restore it from a peer: constraint-crdt node --rejoin"
    assert path.read_bytes() == content


def test_a_truncated_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    fill(path, 300)
    os.truncate(path, path.stat().st_size - 4096)
    assert "damaged" in refusal(path)


def test_the_database_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    before = path.read_bytes()
    assert refusal(path) == f"{path} is a database of another program: give --store another path"
    assert path.read_bytes() == before


def test_a_directory_in_its_place_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.mkdir()
    assert refusal(path).startswith(f"the store {path} cannot be used (it is no regular file")


def test_a_file_where_its_directory_should_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "give --store a path where a file can be kept" in refusal(tmp_path / "file" / "a.db")


def test_a_log_without_its_file_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    Path(f"{path}-wal").write_bytes(b"something")
    assert refusal(path).startswith(f"the store {path} is gone but its log {path}-wal is there: put it back, or")
    assert Path(f"{path}-wal").read_bytes() == b"something"


@pytest.mark.parametrize(("node", "fleet"), [("b", "f"), ("a", "g")])
def test_the_store_of_another_node_or_fleet_is_refused(tmp_path: Path, node: str, fleet: str) -> None:
    path = tmp_path / "a.db"
    fill(path)
    with pytest.raises(StoreError, match="is that of node 'a' of fleet 'f': give --store another path"):
        Store.open(path, node=node, fleet=fleet, marker=Marker(None, BOOT), fresh_incarnation=lambda: 1)


def test_more_than_the_limits_is_refused_with_the_limit(tmp_path: Path) -> None:
    fill(tmp_path / "a.db", 5)
    store = open_store(tmp_path / "a.db")
    with pytest.raises(StoreError, match=r"holds more than the 4 cells .*: raise that limit"):
        store.restore(Rows(limits=Limits(cells=4)))
    store.close()


# --- versions ----------------------------------------------------------------------------------------------------------


def set_version(path: Path, version: int) -> None:
    connection = store.connect(path)
    connection.execute(f"PRAGMA user_version = {version}")
    connection.close()


def test_a_newer_form_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    rows = fill(path)
    set_version(path, 2)
    before = path.read_bytes()
    assert re.fullmatch(
        rf"{path} was written by a newer version of constraint-crdt \(form 2, this one knows 1\): upgrade this one, or .*",
        refusal(path),
    )
    assert path.read_bytes() == before
    set_version(path, 1)
    assert reopened(path) == account(rows)


def test_an_old_form_without_steps_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "a.db")
    set_version(tmp_path / "a.db", 0)
    assert "has the old form 0, which this version cannot bring up to date" in refusal(tmp_path / "a.db")


def test_steps_bring_an_older_form_up_in_order(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    rows = fill(path)
    connection = store.connect(path)
    connection.execute("ALTER TABLE row RENAME COLUMN floor TO ground")
    connection.execute("ALTER TABLE cell RENAME TO item")
    connection.execute("PRAGMA user_version = -1")
    connection.close()
    connection = store.connect(path)
    steps: dict[int, store.Migration] = {
        -1: lambda db: db.execute("ALTER TABLE item RENAME TO cell"),
        0: lambda db: db.execute("ALTER TABLE row RENAME COLUMN ground TO floor"),
    }
    store.migrate(connection, path, steps)
    connection.close()
    assert reopened(path) == account(rows)


def test_a_step_that_fails_leaves_the_old_form(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    fill(path)
    connection = store.connect(path)
    connection.execute("PRAGMA user_version = -1")
    steps: dict[int, store.Migration] = {
        -1: lambda db: db.execute("DROP TABLE cell"),
        0: lambda db: db.execute("UPDATE missing SET x = 1"),
    }
    with pytest.raises(sqlite3.OperationalError, match="no such table: missing"):
        store.migrate(connection, path, steps)
    assert connection.execute("PRAGMA user_version").fetchone() == (-1,)
    assert connection.execute("SELECT count(*) FROM cell").fetchone() == (3,)
    connection.close()


# --- where it lies ------------------------------------------------------------------------------------------------------


def test_only_the_owner_may_read_a_store(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "a.db"
    store = open_store(path)
    assert {path.parent.stat().st_mode & 0o777, path.parent.parent.stat().st_mode & 0o777} == {0o700}
    modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    store.close()
    assert modes == dict.fromkeys(["a.db", "a.db-wal", "a.db-shm", "a.db.lock"], 0o600)


def test_the_default_path_of_a_user_without_a_home_is_below_var_lib(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert default_path("forge", "f", {}) == Path("/var/lib/constraint-crdt/f/forge.db")


def test_the_default_path_is_below_the_state_directory() -> None:
    assert default_path("forge", "f", {"XDG_STATE_HOME": "/s"}) == Path("/s/constraint-crdt/f/forge.db")
    assert default_path("forge", "f", {"HOME": "/"}) == Path("/var/lib/constraint-crdt/f/forge.db")
    assert default_path("forge", "f", {"HOME": "/h"}) == Path("/h/.local/state/constraint-crdt/f/forge.db")
    assert default_path("forge", "f", {"HOME": "/h", "XDG_STATE_HOME": "rel"}) == Path("/h/.local/state/constraint-crdt/f/forge.db")


def test_names_become_different_file_names_whatever_is_in_them() -> None:
    names = ["a", "A", ".", "..", "a/b", "a%2Fb", "../a", "ü", "a b", "\0", "x" * 256, "x" * 255, "ü" * 128, "%" * 256, "%" * 255]
    encoded = [file_name(name) for name in names]
    assert len(set(encoded)) == len(names)
    assert all(len(name) <= 200 and "/" not in name and "\0" not in name and not name.startswith(".") for name in encoded)


def test_a_damaged_store_is_set_aside_and_a_new_one_begins(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(b"garbage")
    Path(f"{path}-wal").write_bytes(b"log")
    target = set_aside(path)
    assert target is not None
    assert (target.read_bytes(), Path(f"{target}-wal").read_bytes()) == (b"garbage", b"log")
    store = open_store(path, incarnation=9)
    assert (store.identity.incarnation, store.identity.vouched) == (9, True)
    with pytest.raises(StoreError, match="in use by process"):
        set_aside(path)
    store.close()
    assert set_aside(tmp_path / "none.db") is None
    assert set_aside(tmp_path / "no" / "directory.db") is None


# --- disks that take nothing ---------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with 600 kB."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", directory], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"this user cannot mount a file system: {mounted.stderr.decode().strip()}")
    yield directory
    subprocess.run(["umount", directory], check=True)


def fill_up(directory: Path) -> Path:
    """A file that leaves no byte free."""
    ballast = directory / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    return ballast


def test_a_full_disk_refuses_writes_and_takes_them_again_when_there_is_space(small_disk: Path) -> None:
    path, rows = small_disk / "a.db", Rows()
    changes, store = Changes(rows), open_store(path)
    add(rows, "before")
    store.commit(taken(changes))
    changes.done(taken(changes))
    committed = account(rows)
    ballast = fill_up(small_disk)
    for number in range(500):
        add(rows, f"after-{number}")
    for _ in range(3):
        with pytest.raises(WritesRefused, match=rf"the disk is full, so nothing can be written to {path}: free some space"):
            store.commit(taken(changes))
    ballast.unlink()
    image = path.with_name("image.db")
    image.write_bytes(path.read_bytes())
    Path(f"{image}-wal").write_bytes(Path(f"{path}-wal").read_bytes() if Path(f"{path}-wal").exists() else b"")
    assert reopened(image) == committed
    for file_ in small_disk.glob("image.db*"):
        file_.unlink()
    store.commit(taken(changes))
    store.close()
    assert reopened(path) == account(rows)


def test_a_full_disk_at_the_start_is_told(small_disk: Path) -> None:
    ballast = fill_up(small_disk)
    assert "the disk is full" in refusal(small_disk / "a.db")
    ballast.unlink()
    open_store(small_disk / "a.db").close()


def test_a_read_only_disk_is_told(small_disk: Path) -> None:
    path = small_disk / "a.db"
    rows = fill(path)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert "is read-only: make its file system writable" in refusal(path)
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    assert reopened(path) == account(rows)


@pytest.mark.long
def test_a_path_without_permission_is_told(tmp_path: Path) -> None:
    """In a process that gave its rights away, for root has them all."""
    tmp_path.chmod(0o500)
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from constraint_crdt.store import StoreError\n"
        "from tests.store.disk import open_store\n"
        "if not os.getuid(): os.setuid(65534)\n"
        "try: open_store(Path(sys.argv[1]))\n"
        "except StoreError as error: print(error)\n"
    )
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root / "src"), str(root)])}
    command = [sys.executable, "-c", code, str(tmp_path / "a.db")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("this user may not use "), done.stderr
    assert "give it the permission, or give --store another path" in done.stdout


def test_a_store_of_a_running_node_can_be_read_by_tools(tmp_path: Path) -> None:
    store, rows = open_store(tmp_path / "a.db"), Rows()
    changes = Changes(rows)
    reader = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM cell").fetchone() == (0,)
    add(rows, "x")
    store.commit(taken(changes))
    assert reader.execute("SELECT count(*) FROM cell").fetchone() == (0,)
    reader.close()
    assert loaded(store).seq(ME) == 1
    store.close()
