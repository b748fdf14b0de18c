"""The schema of a store file: creation, migration, reading with checks, and the content of a commit.

Rules: `application_id` marks a store and `user_version` is its schema version. A newer version is refused. Migrations are steps
from a version to the next in a single transaction. Version 1 is the first, so there are no steps yet.

Reading returns all cells or raises. Each cell is checked by its checksum and by `read_cell`, against its key, and its dot against
the clock of its row. The state hash and the number of cells are checked by the seal, see `Store.restore`.
"""

import os
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote
from zlib import crc32

import msgspec

import constraint_crdt.types  # noqa: F401 - registers the kinds of cells
from constraint_crdt.crdt.cells import Cell, Key, Run, Stub, read_cell
from constraint_crdt.crdt.clock import Replica, check_replica
from constraint_crdt.crdt.limits import MAX_COUNT
from constraint_crdt.crdt.rows import Seal
from constraint_crdt.errors import ConstraintCrdtError, StoreError
from constraint_crdt.store.files import REJOIN, damaged, unusable

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
