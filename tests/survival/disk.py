"""A small disk of its own for a store, that can be filled up and made read-only under a node that runs on it."""

import contextlib
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest


class SmallDisk:
    """A mounted file system of a few MB."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._ballast = directory / "ballast"
        self._read_only = False
        self._freeing: BinaryIO | None = None
        """The ballast of a disk that was filled before it became read-only: a file that is open stays writable."""

    def fill(self) -> None:
        """Leave no byte free."""
        with self._ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass

    def free(self) -> None:
        """Give back what `fill` took."""
        if self._freeing is None:
            self._ballast.unlink()
        else:
            self._freeing.truncate(0)

    def make_read_only(self) -> None:
        """Refuse every file that is opened for writing from now on; those that are open stay so.

        By a read-only mount on top: one that has files open for writing, such as the lock of a store, cannot be remounted.
        """
        if self._ballast.exists():
            self._freeing = self._ballast.open("ab")
        _mount("--bind", self.directory, self.directory)
        self._read_only = True
        _mount("-o", "remount,bind,ro", self.directory)

    def make_writable(self) -> None:
        """Undo `make_read_only`."""
        if self._read_only:
            subprocess.run(["umount", "-l", self.directory], check=True)
            self._read_only = False
        if self._freeing is not None:
            self._freeing.close()
            self._freeing = None


def _mount(*arguments: str | Path) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"this user cannot mount a file system: {done.stderr.decode().strip()}")


@contextmanager
def mounted(directory: Path, size: str = "2m") -> Iterator[SmallDisk]:
    """A disk at `directory`, gone when the block ends. Skips the test where mounting is not allowed."""
    directory.mkdir()
    _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", directory)
    disk = SmallDisk(directory)
    try:
        yield disk
    finally:
        disk.make_writable()
        subprocess.run(["umount", "-l", directory], check=True)
