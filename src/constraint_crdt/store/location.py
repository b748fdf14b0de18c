"""One process per store: a lock on a file beside it, which ends with the process however it ends.

The file says who holds the lock, for the message to whoever comes second; only the lock itself decides. The file stays when the
lock is released: deleting it would let two processes lock two files of one name.

Where stores lie, and who may read them.

Rules: directories made here are open to their owner only (0700) and files too (0600). Names of fleets and nodes become file names
by an encoding that keeps different names different. A damaged store is set aside, never deleted.

The marker: a small file outside of the store that says whether the store still holds all that its node ever told others.

A store can be copied and put back; whatever it holds is copied with it, so nothing inside can tell. The marker lies where copies
of a store do not reach (the runtime directory, emptied at boot) and carries what a copy cannot keep equal:

- the boot of the machine, and its VM generation where the kernel shows one: another boot or a cloned machine is not vouched for;
- the store file's device and inode: a copy in its place, also inside a copied container, is another file;
- the session nonce, which every opening of the store renews: a copy from an earlier session has another;
- the incarnation and the highest seq of the node's own row that may have left it: a copy from earlier in this session has less.

Rules: `note` returns before anybody may hear of the seq. A marker that cannot be brought up to date is removed, and where it cannot
be removed either, `note` raises, so that nothing leaves. No marker, or one that cannot be read, vouches for nothing: that is always
safe, and costs the node one new incarnation.
"""

import contextlib
import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import quote

from constraint_crdt.errors import StoreError
from constraint_crdt.store.failures import unusable

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


BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
GENERATIONS = (
    Path("/sys/firmware/qemu_fw_cfg/by_name/etc/vmgenid_guid/raw"),
    Path("/sys/hypervisor/uuid"),
    Path("/sys/class/dmi/id/product_uuid"),
)
"""Where kernels show what changes when a virtual machine is cloned. Most need root; one that cannot be read counts as absent."""

_READ_BYTES = 4096


class Machine(NamedTuple):
    """What tells one boot of one machine from all others."""

    boot: str
    generation: str = ""

    @classmethod
    def this(cls) -> Self:
        """The machine and boot of this process. `boot` is empty where the system does not tell; then nothing is vouched for."""
        generation = blake2b(b"|".join(_content(path) for path in GENERATIONS), digest_size=16).hexdigest()
        return cls(_content(BOOT_ID).decode(errors="replace").strip(), generation)


class Session(NamedTuple):
    """One opening of one store file."""

    nonce: bytes
    device: int
    inode: int


class Marker:
    """The marker of one store. Without a file (None) it vouches for nothing."""

    def __init__(self, file: Path | None, machine: Machine) -> None:
        self._file = file if machine.boot else None
        self._machine = machine
        self._session: Session | None = None
        self._noted = (0, 0)

    def vouches(self, session: Session, incarnation: int, seq: int) -> bool:
        """True if this store, last opened as `session` and with `seq` in its node's own row, holds all that ever left the node."""
        if self._file is None:
            return False
        try:
            head, told_by, told, end = _content(self._file).decode().rsplit(" ", 3)
            return (head, int(told_by), end) == (self._head(session), incarnation, "end\n") and 0 <= int(told) <= seq
        except ValueError:
            return False

    def begin(self, session: Session, incarnation: int, seq: int) -> None:
        """Vouch for a session from now on. If that fails nothing is vouched for: an older marker has an older nonce."""
        self._session, self._noted = session, (incarnation, seq)
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._write(self._file, session)

    def note(self, incarnation: int, seq: int) -> None:
        """Say that the node's row up to `seq` may be known to others from now on. Does nothing if it did not rise.

        Raises `OSError` if the marker can be neither written nor removed: then nothing may leave the node.
        """
        if self._file is None or self._session is None or (self._noted[0] == incarnation and seq <= self._noted[1]):
            return
        before, self._noted = self._noted, (incarnation, seq)
        try:
            self._write(self._file, self._session)
        except OSError:
            try:
                self._file.unlink(missing_ok=True)
            except NotADirectoryError:
                return
            except OSError:
                self._noted = before
                raise

    def void(self) -> None:
        """Vouch for nothing until the next `note`: the disk takes no writes, and what it lacks may be known to others from now on.

        Raises `OSError` if the marker cannot be removed: then nothing may leave the node.
        """
        if self._file is not None:
            self._file.unlink(missing_ok=True)
            self._noted = (0, 0)

    def _write(self, file: Path, session: Session) -> None:
        """Replace the file at once. Not synced: a power cut is another boot, and then it vouches for nothing anyway."""
        data = "{} {} {} end\n".format(self._head(session), *self._noted).encode()
        fresh = f"{file}.new"
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            whole = os.write(handle, data) == len(data)
        finally:
            os.close(handle)
        if not whole:
            raise OSError(f"only a part of {fresh} could be written")
        os.replace(fresh, file)

    def _head(self, session: Session) -> str:
        boot, generation = self._machine
        return f"constraint-crdt-marker 1 {boot} {generation} {session.nonce.hex()} {session.device} {session.inode}"


def marker_for(store: Path, environ: Mapping[str, str] = os.environ) -> Marker:
    """The marker of the store at a path: below `$XDG_RUNTIME_DIR`, else `/run/user`, else in a private temporary directory."""
    machine = Machine.this()
    name = blake2b(str(store.resolve()).encode(), digest_size=16).hexdigest()
    for directory in _directories(environ):
        with contextlib.suppress(OSError):
            make_private(directory)
            if _is_private(directory):
                return Marker(directory / name, machine)
    return Marker(None, machine)


def _directories(environ: Mapping[str, str]) -> list[Path]:
    user = os.getuid()
    given = Path(environ.get("XDG_RUNTIME_DIR", ""))
    candidates = (given, Path(f"/run/user/{user}"))
    # Not Path.is_dir, which raises where a directory above is closed to us.
    parents = [candidate for candidate in candidates if candidate.is_absolute() and os.path.isdir(candidate)]
    return [*(parent / APPLICATION for parent in parents), Path(tempfile.gettempdir()) / f"{APPLICATION}-{user}"]


def _is_private(directory: Path) -> bool:
    """A directory that somebody else can write to could be made to vouch for anything."""
    found = directory.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_READ_BYTES)
    except OSError:
        return b""
