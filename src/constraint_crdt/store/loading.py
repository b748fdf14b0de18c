"""From the file to runs: everything is read and checked, or nothing is used.

Checked here: each cell by its checksum and by `read_cell`, that it says what its place says, that its dot is within its row's clock
and its own. What only the whole can show (the state hash, how many there are) is checked by the seal, see `Store.restore`.
"""

import sqlite3
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from zlib import crc32

import msgspec

from constraint_crdt.core.cells import Cell, read_cell
from constraint_crdt.core.limits import MAX_COUNT
from constraint_crdt.core.replica import check_replica
from constraint_crdt.core.run import Run
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.store.changes import Seal
from constraint_crdt.store.failures import damaged, unusable

_seq: Callable[[Cell], int] = attrgetter("seq")


def checksum(row: int, seq: int, data: bytes) -> int:
    """What is kept beside a cell, so that a changed bit shows also in those that the state hash leaves out (removals)."""
    return crc32(data, (row * 0x9E3779B1 ^ seq) & 0xFFFFFFFF)


def load(connection: sqlite3.Connection, path: Path) -> tuple[list[Run], Seal]:
    """Every row with its cells and its floor, and the seal they have to come to. Raises `StoreError`."""
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
    for run in runs.values():
        _check_order(run)
    return list(runs.values())


def _check_order(run: Run) -> None:
    assert isinstance(run.cells, list)  # noqa: S101 - made above; only the type checker does not know
    run.cells.sort(key=_seq)
    before = 0
    for cell in run.cells:
        if not before < cell.seq <= run.hi:
            raise ValueError(f"the row of {run.replica} has cells with impossible seqs")
        before = cell.seq
