"""The errors of a store, each one sentence with advice.

`StoreError`: the store cannot be opened or used. `WritesRefused`: the store takes no writes now; the state on disk is unchanged.
"""

import contextlib
import errno
import os
import sqlite3
from pathlib import Path

from constraint_crdt.errors import StoreError, WritesRefused

REJOIN = "restore it from a peer: constraint-crdt node --rejoin"

_BY_CODE = {
    sqlite3.SQLITE_FULL: "the disk is full, so nothing can be written to {path}: free some space",
    sqlite3.SQLITE_READONLY: "{path} is read-only: make the file, its directory and its file system writable",
    sqlite3.SQLITE_IOERR: "the disk under {path} fails ({error}): check it, and that it is mounted and not full",
    sqlite3.SQLITE_CANTOPEN: "{path} cannot be opened: check that it is there and that this user may read and write it",
    sqlite3.SQLITE_PERM: "{path} cannot be opened: check that it is there and that this user may read and write it",
    sqlite3.SQLITE_BUSY: "another program holds {path}: close what reads or copies it",
    sqlite3.SQLITE_LOCKED: "another program holds {path}: close what reads or copies it",
}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
SQLITE_FAILURES = (sqlite3.Error, UnicodeError)
"""Exceptions of SQLite. A damaged file can garble messages, and Python cannot decode them then."""

_PRIMARY = 0xFF
"""The mask of the primary code in SQLite's extended codes."""


_LITTLE = 64 * 1024
"""Free bytes below which a disk counts as full: SQLite needs half of them to open a log."""


def damaged(path: Path, what: str) -> StoreError:
    """The error for an untrusted file. No part of such a file is used."""
    return StoreError(f"the store {path} is damaged ({what}): {REJOIN}")


def refused(error: Exception, path: Path) -> WritesRefused:
    """The error for a failed commit."""
    if isinstance(error, OSError):
        return WritesRefused(_of_system(error, path))
    code = _code(error, path)
    if code in _DAMAGED:
        return WritesRefused(f"{damaged(path, str(error))}")
    return WritesRefused(_BY_CODE.get(code, "{path} takes no writes ({error}): check its disk").format(path=path, error=error))


def unusable(error: Exception, path: Path) -> StoreError:
    """The error for a file that could not be opened or read."""
    if isinstance(error, OSError):
        return StoreError(_of_system(error, path))
    sentence = _BY_CODE.get(_code(error, path))
    return damaged(path, str(error)) if sentence is None else StoreError(sentence.format(path=path, error=error))


def _code(error: Exception, path: Path) -> int:
    """SQLite's primary code. If SQLite only reports an unusable file, the file system may give the reason."""
    code = int(getattr(error, "sqlite_errorcode", 0)) & _PRIMARY
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR):
        with contextlib.suppress(OSError):
            disk = os.statvfs(path.parent)
            if disk.f_flag & os.ST_RDONLY:
                return sqlite3.SQLITE_READONLY
            if disk.f_bavail * disk.f_frsize < _LITTLE:
                return sqlite3.SQLITE_FULL
    return code


def _of_system(error: OSError, path: Path) -> str:
    where = error.filename or path
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full, so nothing can be written to {where}: free some space"
    if error.errno == errno.EROFS:
        return f"{where} is read-only: make its file system writable, or give --store a path that is"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"this user may not use {where}: give it the permission, or give --store another path"
    return f"the store {path} cannot be used ({error.strerror} at {where}): give --store a path where a file can be kept"
