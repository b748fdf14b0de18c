"""The store of a node: a single SQLite file, its schema, reading with checks, and commits.

Rules of a store: a single process at a time. A commit is atomic and on disk when the call returns, and its seq of the node's own
row is in the marker by then. A damaged file is refused as a whole. Each opening renews the session nonce. If the marker does not
vouch for the store, the life on disk is ended in the same transaction. Otherwise a crash right after would make the store look
sound again.

Synchronous. Used from a single thread at a time.

Rules of the schema: `application_id` marks a store and `user_version` is its schema version. A newer version is refused. Migrations
are steps from a version to the next in a single transaction. Version 1 is the first, so there are no steps yet.

Reading returns all cells or raises. Each cell is checked by its checksum and by `read_cell`, against its key, and its dot against
the clock of its row. The state hash and the number of cells are checked by the seal, see `Store.restore`.
"""

import contextlib
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import quote
from zlib import crc32

import msgspec

import constraint_crdt.types  # noqa: F401 - registers the kinds of cells
from constraint_crdt.crdt.cells import Cell, Key, Run, Stub, read_cell
from constraint_crdt.crdt.clock import Replica, check_replica
from constraint_crdt.crdt.limits import MAX_COUNT, Limits
from constraint_crdt.crdt.rows import Rows, Seal
from constraint_crdt.errors import ConstraintCrdtError, StoreError, StoreMissing
from constraint_crdt.store.files import (
    REJOIN,
    SIDE_FILES,
    SQLITE_FAILURES,
    Marker,
    Session,
    StoreLock,
    check_regular,
    damaged,
    make_private,
    refused,
    set_aside,
    sync_directory,
    sync_file,
    unusable,
)

APPLICATION_ID = int.from_bytes(b"CCRD")
VERSION = 1

TABLES = (
    """CREATE TABLE identity (
        one INTEGER PRIMARY KEY CHECK (one = 1), node TEXT NOT NULL, fleet TEXT NOT NULL, nonce BLOB NOT NULL)""",
    """CREATE TABLE life (
        number INTEGER PRIMARY KEY, incarnation INTEGER NOT NULL UNIQUE, began INTEGER NOT NULL, why TEXT NOT NULL,
        ended INTEGER NOT NULL DEFAULT 0)""",
    """CREATE TABLE row (
        id INTEGER PRIMARY KEY, node TEXT NOT NULL, incarnation INTEGER NOT NULL, seq INTEGER NOT NULL, floor INTEGER NOT NULL,
        UNIQUE (node, incarnation))""",
    # `key` has no type: it is text, or the seq of a cell without a key.
    """CREATE TABLE cell (
        row INTEGER NOT NULL, kind INTEGER NOT NULL, key NOT NULL, seq INTEGER NOT NULL, data BLOB NOT NULL, crc INTEGER NOT NULL,
        PRIMARY KEY (row, kind, key)) WITHOUT ROWID""",
    """CREATE TABLE seal (
        one INTEGER PRIMARY KEY CHECK (one = 1), state_hash BLOB NOT NULL, hash_key BLOB NOT NULL, cells INTEGER NOT NULL,
        rows INTEGER NOT NULL, floors INTEGER NOT NULL)""",
)

STUB_TABLE = "CREATE TABLE IF NOT EXISTS stub (row INTEGER PRIMARY KEY, cells BLOB NOT NULL, crc INTEGER NOT NULL)"
"""The stubs of signed rows. Made with the first of them, so that a store of a fleet without signatures is as it was."""

Migration = Callable[[sqlite3.Connection], object]
STEPS: Mapping[int, Migration] = {}
"""Migration steps, by the version before the step."""

CHECKPOINT_PAGES = 1000
"""The write-ahead log is checkpointed at this number of pages of 4 KiB: some 4 MB, unless a single commit is larger."""

LOG_BYTES = 16 * 1024 * 1024
"""A longer write-ahead log is truncated to this size."""

BUSY_SECONDS = 5.0
"""Seconds for which a commit waits for another reader of the file (a backup, `sqlite3`)."""

_MAGIC = b"SQLite format 3\0"
_HEADER_BYTES = 100


class Life(NamedTuple):
    """A life of the node: its incarnation, its begin (ns since the epoch), and the reason."""

    incarnation: int
    began: int
    why: str


class Fallen(NamedTuple):
    """A cell to be deleted, up to a seq."""

    replica: Replica
    kind: int
    key: Key
    seq: int


class CommitBatch(NamedTuple):
    """The content of a commit."""

    runs: Sequence[Run]
    fallen: Sequence[Fallen]
    floors: Mapping[Replica, int]
    """The changed floors."""
    seal: Seal
    lives: Sequence[Life] = ()
    """The lives beginning with this commit."""
    life_ends: bool = False
    """The life on disk must end with this commit, whatever the marker says."""
    reset: Collection[Replica] = ()
    """Rows to be deleted first: they were forgotten."""
    stubs: Mapping[Replica, Sequence[Stub]] = {}
    """The stubs of the signed rows in which they changed (`crdt.signed_rows`)."""


def check_header(path: Path) -> None:
    """Check for a store of a known version, before SQLite opens the file. Raises `StoreError` or `OSError`."""
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    if not header.startswith(_MAGIC) or len(header) < _HEADER_BYTES:
        raise damaged(path, "it is empty" if not header else "it is no SQLite file")
    if int.from_bytes(header[68:72]) != APPLICATION_ID:
        raise StoreError(f"{path} is a database of another program: give --store another path")
    check_version(path, int.from_bytes(header[60:64]))


def check_version(path: Path, version: int, newest: int = VERSION) -> None:
    """Raise `StoreError` for an unknown schema version."""
    if version > newest:
        raise StoreError(
            f"{path} was written by a newer version of constraint-crdt (form {version}, this one knows {newest}): "
            f"upgrade this one, or {REJOIN}"
        )


def connect(path: Path, factory: type[sqlite3.Connection] = sqlite3.Connection) -> sqlite3.Connection:
    """Open an existing file with durable commits. Raises `sqlite3.Error`."""
    connection = sqlite3.connect(
        f"file:{quote(os.fspath(path))}?mode=rw",
        uri=True,
        isolation_level=None,
        check_same_thread=False,  # used by a single thread at a time, not always the same
        timeout=BUSY_SECONDS,
        factory=factory,
    )
    try:
        for pragma in (
            "trusted_schema = OFF",
            "journal_mode = WAL",
            "synchronous = FULL",
            f"wal_autocheckpoint = {CHECKPOINT_PAGES}",
            f"journal_size_limit = {LOG_BYTES}",
        ):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


def connect_to_read(path: Path) -> sqlite3.Connection:
    """Open an existing file for reading in one transaction, which changes nothing. Raises `sqlite3.Error`.

    The file may be in use: then its log is there. Without a log no other file is looked for, or made.
    """
    mode = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "mode=ro&immutable=1"
    connection = sqlite3.connect(f"file:{quote(os.fspath(path))}?{mode}", uri=True, isolation_level=None, timeout=BUSY_SECONDS)
    try:
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("BEGIN")
    except BaseException:
        connection.close()
        raise
    return connection


def create(connection: sqlite3.Connection) -> None:
    """Create the tables in an empty database, inside the open transaction."""
    for table in TABLES:
        connection.execute(table)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {VERSION}")


def migrate(connection: sqlite3.Connection, path: Path, steps: Mapping[int, Migration] = STEPS, newest: int = VERSION) -> None:
    """Bring an older form up to `newest`, whole or not at all. Raises `StoreError` or `sqlite3.Error`."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    check_version(path, version, newest)
    if any(start not in steps for start in range(version, newest)):
        raise StoreError(f"{path} has the old form {version}, which this version cannot bring up to date: {REJOIN}")
    if version == newest:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for start in range(version, newest):
            steps[start](connection)
        connection.execute(f"PRAGMA user_version = {newest}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def check_pages(connection: sqlite3.Connection, path: Path) -> None:
    """Run SQLite's check on all pages. Raises `StoreError` for a damaged file, `sqlite3.Error` for an unreadable file."""
    (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        raise damaged(path, " ".join(str(verdict).split()))


_seq: Callable[[Cell], int] = attrgetter("seq")


def checksum(row: int, seq: int, data: bytes) -> int:
    """The checksum of a cell, to detect changed bits also in cells outside of the state hash (removals)."""
    return crc32(data, (row * 0x9E3779B1 ^ seq) & 0xFFFFFFFF)


def load(connection: sqlite3.Connection, path: Path) -> tuple[list[Run], Seal]:
    """Every row with its cells and its floor, and the seal of their state. Raises `StoreError`."""
    try:
        return _read_runs(connection), _read_seal(connection)
    except sqlite3.Error as error:
        raise unusable(error, path) from error
    except (ConstraintCrdtError, msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
        raise damaged(path, str(error)) from error


def _read_seal(connection: sqlite3.Connection) -> Seal:
    found = connection.execute("SELECT state_hash, hash_key, cells, rows, floors FROM seal").fetchall()
    if len(found) != 1:
        raise ValueError("it has no seal")
    return Seal(*found[0])


def _read_runs(connection: sqlite3.Connection) -> list[Run]:
    runs: dict[int, Run] = {}
    cells: dict[int, list[Cell]] = {}
    for row, node, incarnation, seq, floor in connection.execute("SELECT id, node, incarnation, seq, floor FROM row ORDER BY id"):
        if not (0 < seq <= MAX_COUNT and 0 <= floor <= MAX_COUNT):
            raise ValueError(f"a row of {node!r} has an impossible seq or floor")
        cells[row] = []
        runs[row] = Run(check_replica(node, incarnation), 0, seq, cells[row], floor)
    for row, kind, key, seq, data, crc in connection.execute("SELECT row, kind, key, seq, data, crc FROM cell"):
        if checksum(row, seq, data) != crc:
            raise ValueError(f"cell {seq} of row {row} has a wrong checksum")
        cell = read_cell(data)
        if cell.kind != kind or key != (cell.key if isinstance(cell.key, str) else seq):
            raise ValueError(f"cell {seq} of row {row} is not what its place says")
        if row not in runs:
            raise ValueError(f"cell {seq} belongs to row {row}, which is not there")
        cell.replica, cell.seq, cell.key = runs[row].replica, seq, key
        cells[row].append(cell)
    for row, stubs in _read_stubs(connection):
        if row in runs:
            runs[row].stubs = stubs
    for run in runs.values():
        _check_order(run)
    return list(runs.values())


_encode_stubs = msgspec.msgpack.Encoder().encode
_decode_stubs = msgspec.msgpack.Decoder(list[Stub]).decode


def stub_row(row: int, stubs: Sequence[Stub]) -> tuple[int, bytes, int]:
    """The stubs of a row, as a row of their table."""
    data = _encode_stubs(stubs)
    return row, data, checksum(row, 0, data)


def _read_stubs(connection: sqlite3.Connection) -> Iterator[tuple[int, list[Stub]]]:
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'stub'").fetchall():
        return
    for row, data, crc in connection.execute("SELECT row, cells, crc FROM stub"):
        if checksum(row, 0, data) != crc:
            raise ValueError(f"the stubs of row {row} have a wrong checksum")
        yield row, _decode_stubs(data)


def _check_order(run: Run) -> None:
    assert isinstance(run.cells, list)  # noqa: S101 - made above; only the type checker does not know
    run.cells.sort(key=_seq)
    before = 0
    for cell in run.cells:
        if not before < cell.seq <= run.hi:
            raise ValueError(f"the row of {run.replica} has cells with impossible seqs")
        before = cell.seq


NONCE_BYTES = 16
FIRST_START = "first start"

FILE_CLOCKS = 10_000_000_000
"""ns by which the clock of a file server may be ahead of that of this machine."""

_DELETE = "DELETE FROM cell WHERE row = ? AND kind = ? AND key = ? AND seq <= ?"
_PUT = """INSERT INTO cell (row, kind, key, seq, data, crc) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (row, kind, key) DO UPDATE SET seq = excluded.seq, data = excluded.data, crc = excluded.crc"""
_PUT_ROW = """INSERT INTO row (id, node, incarnation, seq, floor) VALUES (?, ?, ?, ?, 0)
    ON CONFLICT (id) DO UPDATE SET seq = excluded.seq"""
_FLOOR = "UPDATE row SET floor = ? WHERE id = ?"
_SEAL = "INSERT OR REPLACE INTO seal (one, state_hash, hash_key, cells, rows, floors) VALUES (1, ?, ?, ?, ?, ?)"
_LIFE = "INSERT INTO life (incarnation, began, why) VALUES (?, ?, ?) ON CONFLICT (incarnation) DO NOTHING"
_END_LIFE = "UPDATE life SET ended = 1 WHERE number = (SELECT max(number) FROM life)"


class Identity(NamedTuple):
    """The owner of a store, and the state of the present life."""

    node: str
    fleet: str
    incarnation: int
    """Of the latest life."""
    vouched: bool
    """True if the store has every mutation this life sent to peers. Otherwise the next write begins a new life."""
    earlier: tuple[int, ...]
    """The incarnations before the latest, oldest first."""


class Rollback(NamedTuple):
    """Writes of the node that its store lacks although they may have left: the store had been put back."""

    incarnation: int
    kept: int
    """The seq of that life in the store."""
    noted: int
    """The seq that the marker has noted."""


class Store:
    """An open store. Made by `Store.open`; to be closed."""

    def __init__(self, path: Path, lock: StoreLock, marker: Marker, factory: type[sqlite3.Connection]) -> None:
        """Use `open`."""
        self.path = path
        self._lock = lock
        self._marker = marker
        self._factory = factory
        self._connection: sqlite3.Connection | None = None
        self._numbers: dict[Replica, int] = {}
        self._lives: tuple[Life, ...] = ()
        self._vouched = False
        self._owner = ("", "")
        self.rollback: Rollback | None = None
        """The writes that the marker shows to be missing; None: none."""
        self.clock_set_by = 0
        """ns by which the clock of the machine was set since the last session, as far as is known. Below a second: slewing."""

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        node: str,
        fleet: str,
        marker: Marker,
        fresh_incarnation: Callable[[], int],
        factory: type[sqlite3.Connection] = sqlite3.Connection,
    ) -> Self:
        """Open the store of a node, or create it with a first life from `fresh_incarnation`. `factory`: injects faults in tests.

        Raises `StoreError` for a store in use, without permission, of another node, damaged, of a newer version, or on a disk
        refusing writes.
        """
        path = path.absolute()
        try:
            make_private(path.parent)
            path = path.resolve()
            check_regular(path)
            lock = StoreLock.take(path)
        except OSError as error:
            raise unusable(error, path) from error
        store = cls(path, lock, marker, factory)
        try:
            made = not os.path.lexists(path)
            if made:
                store._make(node, fleet, fresh_incarnation())
            check_header(path)
            store._begin_session(node, fleet, made=made)
        except (OSError, *SQLITE_FAILURES) as error:
            store.close()
            raise unusable(error, path) from error
        except BaseException:
            store.close()
            raise
        return store

    @property
    def identity(self) -> Identity:
        """The identity of the node of this store."""
        *earlier, latest = self._lives
        return Identity(*self._owner, latest.incarnation, self._vouched, tuple(life.incarnation for life in earlier))

    @property
    def lives(self) -> tuple[Life, ...]:
        """The node's lives, oldest first."""
        return self._lives

    @property
    def size(self) -> int:
        """Bytes on disk, the log included."""
        found = 0
        for ending in ("", *SIDE_FILES[:1]):
            with contextlib.suppress(FileNotFoundError):  # the committing thread may have closed the file, which deletes the log
                found += Path(f"{self.path}{ending}").stat().st_size
        return found

    def restore(self, rows: Rows) -> None:
        """Load all cells into empty rows.

        Raises `StoreError` for a damaged file, or beyond the limits of `rows`; discard `rows` then.
        """
        try:
            connection = self._connected()
        except SQLITE_FAILURES as error:
            raise unusable(error, self.path) from error
        _restore(connection, self.path, rows)

    def commit(self, batch: CommitBatch) -> None:
        """Write a batch to disk and to the marker. Writing a batch twice is harmless.

        Raises `WritesRefused`; the disk has the state before, or the whole batch, then.
        """
        try:
            numbers = self._write(self._connected(), batch)
        except (OSError, *SQLITE_FAILURES) as error:
            self._disconnect()
            with contextlib.suppress(OSError):
                self._marker.void()  # gossip goes on from memory: a restart from this file must not give its seqs to other writes
            raise refused(error, self.path) from error
        self._numbers = numbers
        known = {life.incarnation for life in self._lives}
        fresh = tuple(life for life in batch.lives if life.incarnation not in known)
        self._lives += fresh
        if fresh or batch.life_ends:
            self._vouched = not batch.life_ends
        try:
            self._note(batch)
        except OSError as error:
            raise refused(error, self.path) from error

    def close(self) -> None:
        """Close the file and release the lock. Idempotent."""
        self._disconnect()
        self._marker.close()
        self._lock.release()

    # --- opening ---------------------------------------------------------------------------------------------------

    def _make(self, node: str, fleet: str, incarnation: int) -> None:
        """Create the file under a temporary name: a crash leaves a whole file or none."""
        for ending in SIDE_FILES[:1]:
            if Path(f"{self.path}{ending}").exists():
                raise StoreError(
                    f"the store {self.path} is gone but its log {self.path}{ending} is there: put it back, or {REJOIN}"
                )
        fresh = self.path.with_name(f"{self.path.name}.new")
        for ending in ("", *SIDE_FILES, "-journal"):
            Path(f"{fresh}{ending}").unlink(missing_ok=True)
        os.close(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        connection = connect(fresh, self._factory)
        try:
            connection.execute("BEGIN IMMEDIATE")
            create(connection)
            values = (node, fleet, secrets.token_bytes(NONCE_BYTES))
            connection.execute("INSERT INTO identity (one, node, fleet, nonce) VALUES (1, ?, ?, ?)", values)
            connection.execute(_LIFE, Life(incarnation, time.time_ns(), FIRST_START))
            connection.execute(_SEAL, Seal(b"", b"", 0, 0, 0))
            connection.execute("COMMIT")
        finally:
            connection.close()  # the last connection to close copies the log into the file, and deletes it
        fresh.rename(self.path)
        sync_directory(self.path.parent)

    def _begin_session(self, node: str, fleet: str, *, made: bool) -> None:
        changed = self._changed_at()  # before SQLite looks at its log, which may change the file
        connection = self._connected()
        check_pages(connection, self.path)
        migrate(connection, self.path)
        identity = connection.execute("SELECT node, fleet, nonce FROM identity").fetchall()
        lives = connection.execute("SELECT incarnation, began, why, ended FROM life ORDER BY number").fetchall()
        if len(identity) != 1 or not lives or not all(isinstance(life[0], int) for life in lives):
            raise damaged(self.path, "it does not say whose it is")
        *owner, nonce = identity[0]
        if not isinstance(nonce, bytes):
            raise damaged(self.path, "it does not say when it was opened")
        if owner != [node, fleet]:
            raise StoreError(f"the store {self.path} is that of node {owner[0]!r} of fleet {owner[1]!r}: give --store another path")
        self._owner = (node, fleet)
        self._lives = tuple(Life(*life[:3]) for life in lives)
        incarnation, ended = lives[-1][0], lives[-1][3]
        found = self.path.stat()
        session = Session(nonce, found.st_dev, found.st_ino)
        seq = self._own_seq(connection)
        self._vouched = made or (not ended and self._marker.vouches(session, incarnation, seq))
        if not made:
            self._compare(connection, changed)
        session = session._replace(nonce=secrets.token_bytes(NONCE_BYTES))
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE identity SET nonce = ?", (session.nonce,))
        if not self._vouched:
            connection.execute(_END_LIFE)
        connection.execute("COMMIT")
        self._marker.begin(session, incarnation, seq)

    def _changed_at(self) -> int:
        """The time of the last change of the file or its log, in ns since the epoch by the clock of that time."""
        files = (Path(f"{self.path}{ending}") for ending in ("", *SIDE_FILES[:1]))
        return max(file.stat().st_mtime_ns for file in files if file.exists())

    def _compare(self, connection: sqlite3.Connection, changed: int) -> None:
        """Compare the store with the marker, and the clock of the machine with that of the last session, ended `changed`."""
        noted = self._marker.read()
        if noted is None:
            behind = time.time_ns() - changed
            self.clock_set_by = behind if behind < -FILE_CLOCKS else 0
            return
        self.clock_set_by = self._marker.clock_set_by(noted)
        kept = self._own_seq(connection, noted.incarnation)
        if noted.seq > kept:
            self.rollback = Rollback(noted.incarnation, kept, noted.seq)

    def _own_seq(self, connection: sqlite3.Connection, incarnation: int | None = None) -> int:
        """The seq of a life, the latest if None."""
        own = (self._owner[0], self._lives[-1].incarnation if incarnation is None else incarnation)
        found = connection.execute("SELECT seq FROM row WHERE node = ? AND incarnation = ?", own).fetchone()
        return int(found[0]) if found else 0

    # --- writing ---------------------------------------------------------------------------------------------------

    def _connected(self) -> sqlite3.Connection:
        """The connection. After a failure a new connection, because the caches of the old connection may be wrong."""
        if self._connection is None:
            connection = connect(self.path, self._factory)
            try:
                found = connection.execute("SELECT node, incarnation, id FROM row").fetchall()
            except BaseException:
                connection.close()
                raise
            self._numbers = {Replica(node, incarnation): number for node, incarnation, number in found}
            self._connection = connection
        return self._connection

    def _disconnect(self) -> None:
        """Close the connection, whatever errors a broken disk raises. The transaction is rolled back first: close alone keeps the
        lock while a cursor is referenced, for example by a traceback.
        """
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.rollback()
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _write(self, connection: sqlite3.Connection, batch: CommitBatch) -> dict[Replica, int]:
        """Write in a single transaction. Returns the numbers of the rows after the batch."""
        numbers = self._numbers
        fresh = [run.replica for run in batch.runs if run.replica not in numbers]
        if fresh:
            free = max(numbers.values(), default=0) + 1
            numbers = numbers | {replica: free + index for index, replica in enumerate(fresh)}
        connection.execute("BEGIN IMMEDIATE")
        gone = [(numbers[replica],) for replica in batch.reset if replica in numbers]
        if gone:
            connection.executemany("DELETE FROM cell WHERE row = ?", gone)
            connection.executemany("DELETE FROM row WHERE id = ?", gone)
        if batch.stubs or (gone and _has_stubs(connection)):
            connection.execute(STUB_TABLE)
            connection.executemany("DELETE FROM stub WHERE row = ?", gone)
        fallen = [(numbers[f.replica], f.kind, f.key, f.seq) for f in batch.fallen if f.replica in numbers]
        if fallen:
            connection.executemany(_DELETE, fallen)
        connection.executemany(_PUT_ROW, ((numbers[run.replica], *run.replica, run.hi) for run in batch.runs))
        connection.executemany(_PUT, _cells(batch, numbers))
        stubs = (stub_row(numbers[replica], cells) for replica, cells in batch.stubs.items() if replica in numbers)
        if batch.stubs:
            connection.executemany("INSERT OR REPLACE INTO stub (row, cells, crc) VALUES (?, ?, ?)", stubs)
        if batch.floors:
            connection.executemany(_FLOOR, ((floor, numbers[replica]) for replica, floor in batch.floors.items()))
        if batch.lives:
            connection.executemany(_LIFE, batch.lives)
        if batch.life_ends:
            connection.execute(_END_LIFE)
        connection.execute(_SEAL, batch.seal)
        connection.execute("COMMIT")
        return numbers

    def _note(self, batch: CommitBatch) -> None:
        own = Replica(self._owner[0], self._lives[-1].incarnation)
        seq = next((run.hi for run in batch.runs if run.replica == own), 0)
        if seq or batch.lives:
            self._marker.note(own.incarnation, seq)


def read_store(path: Path, rows: Rows) -> None:
    """Load all cells of a store into empty rows. Changes nothing, and the store may be in use.

    Raises `StoreError` for a file that is missing, damaged, of a newer version or of another program, and beyond the limits of
    `rows`; discard `rows` then.
    """
    path = path.absolute()
    if not path.exists():
        raise StoreMissing(f"there is no store {path}")
    try:
        check_header(path)
        connection = connect_to_read(path)
    except (OSError, *SQLITE_FAILURES) as error:
        raise unusable(error, path) from error
    try:
        check_pages(connection, path)
        _restore(connection, path, rows)
    except SQLITE_FAILURES as error:
        raise unusable(error, path) from error
    finally:
        connection.close()


class StoreCopy(NamedTuple):
    """A copy of a store, of which every page and cell was checked."""

    node: str
    fleet: str
    cells: int
    """Standing cells."""
    bytes: int


def check_backup(path: Path) -> StoreCopy:
    """Read a backup, or any other store, to its end. Raises as `read_store` does."""
    rows = Rows(limits=Limits(rows=MAX_COUNT, cells=MAX_COUNT))
    read_store(path, rows)
    connection = connect_to_read(path)
    try:
        owner = connection.execute("SELECT node, fleet FROM identity").fetchall()
    finally:
        connection.close()
    if len(owner) != 1:
        raise damaged(path, "it does not say whose it is")
    node, fleet = owner[0]
    return StoreCopy(node, fleet, len(rows), path.stat().st_size)


def back_up(path: Path, target: Path) -> StoreCopy:
    """Copy the last committed state of a store to a file, and check the copy. The store may be in use, and is not changed.

    A single transaction of SQLite reads it all (`VACUUM INTO`), so commits meanwhile neither wait nor start the copy again. Raises
    `StoreError` for a store that cannot be read, or a file that cannot be written; the former file is as it was then.
    """
    path, target = path.absolute(), target.absolute()
    if not path.exists():
        raise StoreMissing(f"there is no store {path}")
    if path.resolve() == target.resolve():
        raise StoreError(f"{target} is the store itself: give the backup another name")
    fresh = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        check_regular(target)
        check_header(path)
        os.close(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StoreError(f"cannot back up {path} to {target}: {error.strerror or error}") from error
    try:
        connection = connect_to_read(path)
        try:
            connection.execute("COMMIT")  # VACUUM makes a transaction of its own
            connection.execute("VACUUM INTO ?", (os.fspath(fresh),))
        finally:
            connection.close()
        made = check_backup(fresh)
        sync_file(fresh)
        fresh.replace(target)
        sync_directory(target.parent)
    except (OSError, *SQLITE_FAILURES) as error:
        raise StoreError(f"cannot back up {path} to {target}: {error}") from error
    finally:
        with contextlib.suppress(OSError):
            fresh.unlink()
    return made


def put_back(backup: Path, path: Path) -> tuple[StoreCopy, Path | None]:
    """Make a backup the store at a path, after it was checked. Returns it, and where the former store is now, if any.

    The next start begins a new life, as the writes since the backup may be known to others, and peers bring these back. Raises
    `StoreError` if the backup is damaged, or the store is in use or of another node.
    """
    backup, path = backup.absolute(), path.absolute()
    found = check_backup(backup)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        make_private(path.parent)
        path = path.resolve()
        if backup.resolve() == path:
            raise StoreError(f"{path} is the store itself: name a backup of it")
        if not path.is_dir():  # `set_aside` has more to say of a directory
            check_regular(path)
        _check_owner(path, found)
        back_up(backup, fresh)
        former = set_aside(path)
        fresh.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        raise StoreError(f"cannot restore {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            fresh.unlink()
    return found, former


def _check_owner(path: Path, backup: StoreCopy) -> None:
    """Raise `StoreError` if the store at a path is of another node than the backup. An unreadable store is no obstacle."""
    try:
        owner = check_backup(path)
    except (StoreError, *SQLITE_FAILURES):
        return
    if (owner.node, owner.fleet) != (backup.node, backup.fleet):
        raise StoreError(
            f"the store {path} is that of node {owner.node!r} of fleet {owner.fleet!r}, and the backup of node {backup.node!r} of "
            f"fleet {backup.fleet!r}: give --store another path"
        )


def _restore(connection: sqlite3.Connection, path: Path, rows: Rows) -> None:
    runs, seal = load(connection, path)
    try:
        rows.restore(runs)
    except ConstraintCrdtError as error:
        raise StoreError(f"the store {path} holds {error}: raise that limit") from error
    found = rows.seal
    if found.hash_key != seal.hash_key:  # another secret since: its hash cannot be compared, checksums and numbers can
        found = found._replace(state_hash=seal.state_hash, hash_key=seal.hash_key)
    if found != seal:
        raise damaged(path, "its cells do not come to the state that was committed")


def _has_stubs(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'stub'").fetchall())


def _cells(batch: CommitBatch, numbers: dict[Replica, int]) -> Iterable[tuple[int, int, str | int, int, bytes, int]]:
    for run in batch.runs:
        number = numbers[run.replica]
        for cell in run.cells:
            yield number, cell.kind, cell.key, cell.seq, cell.data, checksum(number, cell.seq, cell.data)
