"""Where stores lie, and who may read them.

Rules: directories made here are open to their owner only (0700) and files too (0600). Names of fleets and nodes become file names
by an encoding that keeps different names different. A damaged store is set aside, never deleted.
"""

import contextlib
import os
import time
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from urllib.parse import quote

from constraint_crdt.store.failures import unusable
from constraint_crdt.store.lock import StoreLock

APPLICATION = "constraint-crdt"
SIDE_FILES = ("-wal", "-shm")
"""What SQLite keeps beside a database; it belongs to it."""

_LONGEST_NAME = 200
"""File systems take 255 bytes; the rest is for endings."""


def default_path(node: str, fleet: str, environ: Mapping[str, str] = os.environ) -> Path:
    """Where the store of a node lies if nobody says otherwise: below `$XDG_STATE_HOME`, else `~/.local/state`."""
    given = environ.get("XDG_STATE_HOME", "")
    state = Path(given) if Path(given).is_absolute() else Path(environ.get("HOME") or Path.home()) / ".local" / "state"
    return state / APPLICATION / file_name(fleet) / f"{file_name(node)}.db"


def file_name(name: str) -> str:
    """A name as a file name: readable where it is plain, and different for different names."""
    encoded = quote(name, safe="")
    if encoded.startswith("."):
        encoded = "%2E" + encoded[1:]
    if len(encoded) <= _LONGEST_NAME:
        return encoded
    # A plain name never has `%` and no hex digits after it, so a shortened one equals no other.
    return f"{encoded[:100]}%-{blake2b(name.encode(), digest_size=16).hexdigest()}"


def make_private(directory: Path) -> None:
    """Make a directory and what is missing above it, for the owner only. Leaves those that are there as they are."""
    missing = [directory]
    while not missing[-1].exists() and missing[-1].parent != missing[-1]:
        missing.append(missing[-1].parent)
    for level in reversed(missing):
        with contextlib.suppress(FileExistsError):
            level.mkdir(mode=0o700)


def sync_directory(directory: Path) -> None:
    """Have the names in a directory on disk when this returns."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def set_aside(path: Path) -> Path | None:
    """Rename a store, so that a new one can begin in its place. Returns its new path, None if there was none.

    Raises `StoreError` if a process uses it or it cannot be renamed.
    """
    path = path.resolve()
    target = path.with_name(f"{path.name}.set-aside-{time.time_ns()}")
    try:
        if not path.parent.is_dir():
            return None
        with StoreLock.take(path):
            found = False
            # The file first: without its log it would pass for an older state, a log alone is never taken for a store.
            for ending in ("", *SIDE_FILES):
                with contextlib.suppress(FileNotFoundError):
                    Path(f"{path}{ending}").rename(f"{target}{ending}")
                    found = True
            sync_directory(path.parent)
    except OSError as error:
        raise unusable(error, path) from error
    return target if found else None
