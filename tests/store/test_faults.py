"""Every call to SQLite failing in turn, before it took effect and after: what is on disk is a state that was committed or was being
committed, and trying again brings everything there."""

import itertools
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from constraint_crdt.crdt.rows import Rows
from constraint_crdt.store import Changes, Store, StoreError, WritesRefused
from constraint_crdt.store.files import Marker
from tests.conftest import BUDGET
from tests.store.disk import BOOT, Account, account, copy_store, loaded, open_store, reopened, taken, write_history

ERRORS = {"disk I/O error": sqlite3.SQLITE_IOERR_FSYNC, "database or disk is full": sqlite3.SQLITE_FULL}
SENTENCES = {"disk I/O error": "the disk under .* fails", "database or disk is full": "the disk is full"}
Result = TypeVar("Result")


class Fault:
    """Makes the `at`-th call fail, counted over all connections of its factory."""

    def __init__(self, at: int, message: str, *, after: bool) -> None:
        self.at, self.message, self.after = at, message, after
        self.calls = 0
        self.said: list[str] = []
        fault = self

        class FailingConnection(sqlite3.Connection):
            def execute(self, *arguments: Any) -> sqlite3.Cursor:
                fault.before()
                result = super().execute(*arguments)
                fault.behind()
                return result

            def executemany(self, sql: str, parameters: Iterable[Any], /) -> sqlite3.Cursor:
                fault.before()
                result = super().executemany(sql, parameters)
                fault.behind()
                return result

        self.factory = FailingConnection

    @property
    def happened(self) -> bool:
        return self.calls >= self.at

    def before(self) -> None:
        self.calls += 1
        if self.calls == self.at and not self.after:
            raise self.error()

    def behind(self) -> None:
        if self.calls == self.at and self.after:
            raise self.error()

    def error(self) -> sqlite3.OperationalError:
        error = sqlite3.OperationalError(self.message)
        error.sqlite_errorcode = ERRORS[self.message]
        return error


def history(path: Path, fault: Fault) -> Iterator[None]:
    """Open, commit a history, close, trying again what fails; each failure is checked on a copy of the files."""
    store = again(lambda: open_store(path, factory=fault.factory), fault)
    rows = again(lambda: loaded(store), fault)
    changes = Changes(rows)
    before = account(rows)
    for _ in write_history(rows):
        commit(store, changes, path, fault, [before, account(rows)])
        before = account(rows)
        yield
    store.close()
    assert reopened(path) == account(rows)


def again(work: Callable[[], Result], fault: Fault) -> Result:
    """What does not succeed the first time does the second."""
    try:
        return work()
    except StoreError as error:
        fault.said.append(str(error))
    return work()


def commit(store: Store, changes: Changes, path: Path, fault: Fault, may_be: list[Account]) -> None:
    batch = taken(changes)
    try:
        store.commit(batch)
    except WritesRefused as error:
        fault.said.append(str(error))
        image = path.with_name("image.db")
        copy_store(path, image)
        assert reopened(image) in may_be
        batch = taken(changes)
        store.commit(batch)
    changes.done(batch)


@pytest.mark.long(by_day=["disk I/O error-after it took effect"])
@pytest.mark.parametrize("after", [False, True], ids=["before it took effect", "after it took effect"])
@pytest.mark.parametrize("message", ERRORS)
def test_every_call_failing_in_turn_leaves_a_committed_state_and_loses_nothing(tmp_path: Path, message: str, after: bool) -> None:
    """Every call with every error nightly; by default every other call with the one error, and the rest with the other."""
    turn = list(ERRORS).index(message)
    for at in itertools.count(1) if BUDGET == "nightly" else itertools.count(1 + turn, len(ERRORS)):
        directory = tmp_path / str(at)
        directory.mkdir()
        fault = Fault(at, message, after=after)
        for _ in history(directory / "a.db", fault):
            pass
        if not fault.happened:
            break
        assert [re.match(SENTENCES[message], said) is not None for said in fault.said] == [True]
    assert at > 50, "the faults did reach the commits"


def test_a_marker_that_can_be_neither_written_nor_removed_lets_nothing_out(tmp_path: Path) -> None:
    class StuckMarker(Marker):
        stuck = True

        def note(self, incarnation: int, seq: int) -> None:
            if self.stuck:
                raise OSError(30, "Read-only file system", "the marker")
            super().note(incarnation, seq)

    rows, marker = Rows(), StuckMarker(tmp_path / "marker", BOOT)
    changes, store = Changes(rows), open_store(tmp_path / "a.db", marker)
    steps = write_history(rows)
    next(steps)
    with pytest.raises(WritesRefused, match="the marker is read-only"):
        store.commit(taken(changes))
    marker.stuck = False
    for _ in steps:
        store.commit(taken(changes))
        changes.done(taken(changes))
    store.close()
    assert reopened(tmp_path / "a.db") == account(rows)
