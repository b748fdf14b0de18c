"""One process per store: a lock on a file beside it, which ends with the process however it ends.

The file says who holds the lock, for the message to whoever comes second; only the lock itself decides. The file stays when the
lock is released: deleting it would let two processes lock two files of one name.
"""

import contextlib
import fcntl
import os
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from constraint_crdt.store.failures import StoreError

_NOTE_BYTES = 100


class StoreLock:
    """The right to use one store. A context manager."""

    def __init__(self, handle: int) -> None:
        """Use `take`."""
        self._handle = handle

    @classmethod
    def take(cls, path: Path) -> Self:
        """Lock the store at `path`. Raises `StoreError`, naming the holder, if it is taken; `OSError` if no lock can be made."""
        handle = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, _NOTE_BYTES, 0).decode(errors="replace").strip() or "another process"
            os.close(handle)
            raise StoreError(f"the store {path} is in use by {holder}: stop that one first, or give --store another path") from None
        with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
            note = f"process {os.getpid()} since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n".encode()
            os.ftruncate(handle, 0)
            os.pwrite(handle, note, 0)
        return cls(handle)

    def release(self) -> None:
        """Give the store free. Idempotent."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()
