"""Files that are read whole within a bound, and written whole or not at all.

Rules: a file that is written is put beside its place under another name, brought to disk, and then takes the place. So whoever
reads it sees the old one or the new one, and a disk that is full leaves the old one. It keeps the mode of the file before it. What
is no file (a device, a pipe) is written to as it is. `-` is standard input or output.
"""

import contextlib
import os
import secrets
import stat
import sys
import tempfile
from pathlib import Path

from constraint_crdt.cli.errors import CommandFailedError, MisuseError

STANDARD = "-"


def read_whole(name: str, most: int) -> bytes:
    """The content of a file. Raises `MisuseError` if it cannot be read or has more than `most` bytes."""
    try:
        if name == STANDARD:
            data = sys.stdin.buffer.read(most + 1)
        else:
            with Path(name).open("rb") as file:
                data = file.read(most + 1)
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise MisuseError(f"cannot read {name}: {_reason(error)}") from None
    if len(data) > most:
        raise MisuseError(f"{name} has more than {most} bytes, which is the most that is read")
    return data


def write_whole(name: str, data: bytes) -> None:
    """Put a file in place, or fill what is no file. Raises `CommandFailedError` if that cannot be; the file is as it was then."""
    if name == STANDARD:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        path, mode = _place(name)
        if mode is not None and not stat.S_ISREG(mode):
            path.write_bytes(data)
            return
        _replace(path, data, None if mode is None else stat.S_IMODE(mode))
    except (OSError, ValueError) as error:
        raise CommandFailedError(f"cannot write {name}: {_reason(error)}") from None


def check_place(name: str) -> None:
    """Raise `CommandFailedError` where `write_whole` would in the end, as far as can be known. Leaves no trace."""
    path = Path(name)
    try:
        path, mode = _place(name)
        if mode is None or stat.S_ISREG(mode):  # what is none, a pipe for example, is written to as it is
            with tempfile.TemporaryFile(dir=path.parent):  # permission does not tell: the disk may be read-only
                pass
    except FileNotFoundError:
        raise CommandFailedError(f"cannot write {name}: there is no directory {path.parent}") from None
    except (OSError, ValueError) as error:
        raise CommandFailedError(f"cannot write {name}: {_reason(error)}") from None


def _place(name: str) -> tuple[Path, int | None]:
    """Where a file is written, and the mode of what is there. What a link points to is replaced, not the link."""
    path = Path(os.path.realpath(name))
    mode = path.stat().st_mode if path.exists() else None
    if mode is not None and stat.S_ISDIR(mode):
        raise CommandFailedError(f"cannot write {name}: it is a directory; name a file in it")
    return path, mode


def _replace(path: Path, data: bytes, mode: int | None) -> None:
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if mode is None else 0o600)  # less the umask
    try:
        with open(handle, "wb") as file:
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
