"""The files of a store: path, lock and marker, and the errors of unusable files.

Errors: each is a sentence with advice. `StoreError`: the store cannot be opened or used. `WritesRefused`: the store takes no writes
now; the state on disk is unchanged.

Lock: a store belongs to a single process, by a lock on a file beside the store. The lock ends with the process. The file names the
holder, for the error message; only the lock decides. The file stays after the release: deleting the file would let two processes
lock two files with the same name.

Paths: directories made here are open to their owner only (0700), and files too (0600). Names of fleets and nodes are encoded as
file names without collisions. A damaged store is renamed, never deleted.

Marker: a small file outside of the store, to detect a store restored from a copy. A restored store lacks mutations known to peers.
Nothing inside the store can show the loss, because the copy holds everything the store held. The marker lies in memory (tmpfs: the
runtime directory, else /dev/shm), which no snapshot of a disk puts back with the store, and holds values a copy cannot keep:

- the boot of the machine, its machine id, and its VM generation where the kernel has it: another boot, or a cloned machine, is not
  vouched for;
- the device and inode of the store file: a copy in its place, also inside a copied container, is another file;
- the session nonce, renewed at each opening: a copy from an earlier session has another nonce;
- the incarnation, and the highest seq of the node's own row sent to peers: a copy from earlier in this session has a lower seq. A
  higher seq in the marker names the writes that the store lacks.

The marker also has the difference of the wall clock to the steady clock, which shows whether the wall clock was set meanwhile.

Rules of the marker: `note` returns before the seq is sent. A marker is removed if writing fails. If the removal fails too, `note`
raises, and nothing is sent. A missing or unreadable marker vouches for nothing, which is safe and costs the node a new incarnation.

A note of a higher seq is written in place, by a single call: a killed process leaves it whole or not at all. Numbers have a fixed
width, with the digits of the seq last and in order, so that even a part of a note names no seq below the previous. A new session
or incarnation replaces the file.
"""

import contextlib
import errno
import fcntl
import os
import secrets
import sqlite3
import stat
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import quote

from constraint_crdt.errors import StoreError, WritesRefused

APPLICATION = "constraint-crdt"
SIDE_FILES = ("-wal", "-shm")
"""Files of SQLite beside a database, part of the database."""

REJOIN = "restore it from a peer: constraint-crdt node --rejoin"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
GENERATIONS = (
    Path("/sys/firmware/qemu_fw_cfg/by_name/etc/vmgenid_guid/raw"),
    Path("/sys/hypervisor/uuid"),
    Path("/sys/class/dmi/id/product_uuid"),
    Path("/etc/machine-id"),
)
"""Files with an id of the virtual machine, or of the system, changed by cloning. Most need root; an unreadable file is skipped."""

MOUNTS = Path("/proc/self/mountinfo")
IN_MEMORY = ("tmpfs", "ramfs")
"""The file systems whose content no snapshot of a disk brings back."""

SQLITE_FAILURES = (sqlite3.Error, UnicodeError)
"""Exceptions of SQLite. A damaged file can garble messages, and Python cannot decode them then."""

_LITTLE = 64 * 1024
"""Free bytes below which a disk counts as full: SQLite needs half of them to open a log."""

_PRIMARY = 0xFF
"""The mask of the primary code in SQLite's extended codes."""

_NOTE_BYTES = 100
_LONGEST_NAME = 200
"""File systems take 255 bytes; the rest is for endings."""

_READ_BYTES = 4096
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_BY_CODE = {
    sqlite3.SQLITE_FULL: "the disk is full, so nothing can be written to {path}: free some space",
    sqlite3.SQLITE_READONLY: "{path} is read-only: make the file, its directory and its file system writable",
    sqlite3.SQLITE_IOERR: "the disk under {path} fails ({error}): check it, and that it is mounted and not full",
    sqlite3.SQLITE_CANTOPEN: "{path} cannot be opened: check that it is there and that this user may read and write it",
    sqlite3.SQLITE_PERM: "{path} cannot be opened: check that it is there and that this user may read and write it",
    sqlite3.SQLITE_BUSY: "another program holds {path}: close what reads or copies it",
    sqlite3.SQLITE_LOCKED: "another program holds {path}: close what reads or copies it",
}


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
    """The error for a file impossible to open or read."""
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


class StoreLock:
    """The lock of a store. A context manager."""

    def __init__(self, handle: int) -> None:
        """Use `take`."""
        self._handle = handle

    @classmethod
    def take(cls, path: Path) -> Self:
        """Lock the store at `path`. Raises `StoreError`, naming the holder, if the lock is taken; `OSError` if no lock can be
        made.
        """
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


def default_path(node: str, fleet: str, environ: Mapping[str, str] = os.environ) -> Path:
    """The default path of a node's store: below `$XDG_STATE_HOME`, else `~/.local/state`; of a user without a home, as in a
    container, `/var/lib`.
    """
    given = environ.get("XDG_STATE_HOME", "")
    state = Path(given) if Path(given).is_absolute() else _state_of_user(environ)
    return state / APPLICATION / file_name(fleet) / f"{file_name(node)}.db"


def _state_of_user(environ: Mapping[str, str]) -> Path:
    try:
        home = Path(environ.get("HOME") or Path.home())
    except RuntimeError:  # neither `$HOME` nor an entry of the user in the database of users
        home = None
    return Path("/var/lib") if home is None or home == Path("/") else home / ".local" / "state"


def file_name(name: str) -> str:
    """Encode a name as a file name, readable for plain names, without collisions."""
    encoded = quote(name, safe="")
    if encoded.startswith("."):
        encoded = "%2E" + encoded[1:]
    if len(encoded) <= _LONGEST_NAME:
        return encoded
    # An encoded name has hex digits after each `%`, so a shortened name, with `%-`, equals no other.
    return f"{encoded[:100]}%-{blake2b(name.encode(), digest_size=16).hexdigest()}"


def make_private(directory: Path) -> None:
    """Make a directory and its missing parents, for the owner only. Existing directories stay as they are."""
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


def sync_file(file: Path) -> None:
    """Write a file to disk. Raises `OSError`."""
    handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_regular(file: Path) -> None:
    """Raise `OSError` if a path is that of something else than a regular file: a device, a pipe or a directory is neither replaced
    nor renamed. A path where nothing is passes.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(file.stat().st_mode):
            raise OSError(errno.ENOTSUP, "it is no regular file", str(file))


def read_bounded(file: Path, most: int) -> bytes:
    """The content of a file. Raises `OSError`, and `StoreError` for a file of more than `most` bytes."""
    with file.open("rb") as opened:
        data = opened.read(most + 1)
    if len(data) > most:
        raise StoreError(f"it has more than {most} bytes")
    return data


def replace_file(file: Path, content: bytes, *, mode: int = 0o600, prepare: Callable[[int], object] | None = None) -> None:
    """Replace a file as a whole. Raises `OSError`; the former content stays then.

    `mode`: the permissions, less the umask; for the owner only by default. `prepare` is called with the open file, still empty.
    """
    check_regular(file)
    temporary = file.with_name(f".{secrets.token_hex(8)}.tmp")  # without the name of the file, which may be as long as names can be
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with open(handle, "wb") as opened:
            if prepare is not None:
                prepare(handle)
            opened.write(content)
            opened.flush()
            os.fsync(handle)
        temporary.replace(file)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def set_aside(path: Path) -> Path | None:
    """Rename a store to make room for a new store. Returns the new path, None without a store.

    Raises `StoreError` for a directory, if a process uses the store, or if the rename fails.
    """
    path = path.resolve()
    if path.is_dir():
        raise StoreError(f"{path} is a directory: name a file in it")
    target = path.with_name(f"{path.name}.set-aside-{time.time_ns()}")
    try:
        if not path.parent.is_dir():
            return None
        check_regular(path)
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


class Machine(NamedTuple):
    """An id of the boot of this machine."""

    boot: str
    generation: str = ""

    @classmethod
    def this(cls) -> Self:
        """The machine and boot of this process. `boot` is empty where the system does not tell; then nothing is vouched for."""
        generation = blake2b(b"|".join(_content(path) for path in GENERATIONS), digest_size=16).hexdigest()
        return cls(_content(BOOT_ID).decode(errors="replace").strip(), generation)


class Session(NamedTuple):
    """An opening of a store file."""

    nonce: bytes
    device: int
    inode: int


class Noted(NamedTuple):
    """The content of a marker of this machine and boot."""

    session: Session
    set_by: int
    """ns by which the wall clock is ahead of the steady clock."""
    incarnation: int
    seq: int
    """Peers may know the row of this incarnation up to here."""


class Marker:
    """The marker of a store. Without a file (None) nothing is vouched for."""

    def __init__(self, file: Path | None, machine: Machine, ahead: Callable[[], int] = lambda: 0) -> None:
        """`ahead`: the ns by which the wall clock is ahead of a clock that is never set."""
        self._file = file if machine.boot else None
        self._ahead = ahead
        self._machine = machine
        self._session: Session | None = None
        self._noted = (0, 0)
        self._handle = -1
        """The open file, to be written in place; -1: none."""

    def vouches(self, session: Session, incarnation: int, seq: int) -> bool:
        """True if this store, last opened as `session` and with `seq` in its own row, has every mutation sent by the node."""
        noted = self.read()
        return noted is not None and (noted.session, noted.incarnation) == (session, incarnation) and 0 <= noted.seq <= seq

    def read(self) -> Noted | None:
        """The content, if it was written on this machine since it booted."""
        if self._file is None:
            return None
        try:
            head, nonce, *numbers, end = _content(self._file).decode().rsplit(" ", 7)
            if (head, end) != (self._head(), "end\n"):
                return None
            device, inode, ahead, incarnation, seq = map(int, numbers)
            return Noted(Session(bytes.fromhex(nonce), device, inode), ahead, incarnation, seq)
        except ValueError:
            return None

    def clock_set_by(self, noted: Noted) -> int:
        """ns by which the wall clock was set since the marker was written."""
        return self._ahead() - noted.set_by

    def begin(self, session: Session, incarnation: int, seq: int) -> None:
        """Vouch for a session from now on. After a failure nothing is vouched for: an older marker has an older nonce."""
        self._session, self._noted = session, (incarnation, seq)
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._write(self._file, session)

    def note(self, incarnation: int, seq: int) -> None:
        """Note before sending: peers may know the node's row up to `seq`. Does nothing for a `seq` noted before.

        Raises `OSError` if the marker can be neither written nor removed; nothing may be sent then.
        """
        if self._file is None or self._session is None or (self._noted[0] == incarnation and seq <= self._noted[1]):
            return
        before, self._noted = self._noted, (incarnation, seq)
        try:
            if before[0] != incarnation or not self._overwrite(self._file, self._session):
                self._write(self._file, self._session)
        except OSError:
            self.close()
            try:
                self._file.unlink(missing_ok=True)
            except NotADirectoryError:
                return
            except OSError:
                self._noted = before
                raise

    def void(self) -> None:
        """Vouch for nothing until the next `note`: the disk takes no writes, and peers may learn mutations missing on disk.

        Raises `OSError` if the marker cannot be removed; nothing may be sent then.
        """
        if self._file is not None:
            self._file.unlink(missing_ok=True)
            self._noted = (0, 0)
            self.close()

    def close(self) -> None:
        """Close the file. Idempotent; the next `note` replaces it."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)

    def _line(self, session: Session) -> bytes:
        place = f"{session.nonce.hex()} {session.device} {session.inode}"
        ahead, (incarnation, seq) = self._ahead(), self._noted
        return f"{self._head()} {place} {ahead:020d} {incarnation:020d} {seq:020d} end\n".encode()

    def _overwrite(self, file: Path, session: Session) -> bool:
        """Write in place. False without an open file, and if another file has its name: it has to be replaced."""
        if self._handle < 0:
            return False
        try:
            here, there = os.fstat(self._handle), os.stat(file)
        except FileNotFoundError:
            return False
        data = self._line(session)
        if not os.path.samestat(here, there) or there.st_size != len(data):
            return False
        return os.pwrite(self._handle, data, 0) == len(data)

    def _write(self, file: Path, session: Session) -> None:
        """Replace the file atomically. Not synced: a power cut is another boot, and vouches for nothing."""
        self.close()
        data, fresh = self._line(session), f"{file}.new"
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            whole = os.write(handle, data) == len(data)
            if whole:
                os.replace(fresh, file)
        except BaseException:
            os.close(handle)
            raise
        self._handle = handle
        if not whole:
            raise OSError(f"only a part of {fresh} could be written")

    def _head(self) -> str:
        boot, generation = self._machine
        return f"constraint-crdt-marker 2 {boot} {generation}"


def marker_for(store: Path, environ: Mapping[str, str] = os.environ, *, steady: Callable[[], int] = time.monotonic_ns) -> Marker:
    """The marker of the store at a path: below `$XDG_RUNTIME_DIR`, else `/run/user`, `/run` or `/dev/shm`, where that is in memory.

    `steady`: a clock in ns that is never set.
    """
    machine = Machine.this()
    name = blake2b(os.fsencode(store.resolve()), digest_size=16).hexdigest()
    for parent, directory in _directories(environ):
        with contextlib.suppress(OSError):
            if not is_in_memory(parent):
                continue
            make_private(directory)
            if _is_private(directory):
                return Marker(directory / name, machine, lambda: time.time_ns() - steady())
    return Marker(None, machine)


def _directories(environ: Mapping[str, str]) -> list[tuple[Path, Path]]:
    """The candidates, each with the directory above, which must exist."""
    from tempfile import gettempdir  # for stores only

    user = os.getuid()
    own = (Path(environ.get("XDG_RUNTIME_DIR", "")), Path(f"/run/user/{user}"))
    shared = [Path("/run"), Path("/dev/shm")]  # noqa: S108 - `_is_private` is required of it
    with contextlib.suppress(FileNotFoundError):  # as in a container with a read-only root
        shared.append(Path(gettempdir()))
    found = [(parent, parent / APPLICATION) for parent in own] + [(parent, parent / f"{APPLICATION}-{user}") for parent in shared]
    # Not Path.is_dir, which raises where a directory above is closed to us.
    return [each for each in found if each[0].is_absolute() and os.path.isdir(each[0])]


def is_in_memory(directory: Path) -> bool:
    """True if the files of a directory are kept in memory only, so that no snapshot of a disk has them."""
    device = directory.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in MOUNTS.read_text(errors="replace").splitlines():
        place, _, kind = line.partition(" - ")
        if place.split(" ", 3)[2:3] == [wanted]:
            return kind.partition(" ")[0] in IN_MEMORY
    return False


def _is_private(directory: Path) -> bool:
    """A directory writable by other users is refused: they could forge the marker."""
    found = directory.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_READ_BYTES)
    except OSError:
        return b""
