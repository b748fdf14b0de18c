"""A clean system of Debian in a folder, made by debootstrap, with layers over it: for what is installed, or run in a container.

Each command runs in a chroot, in namespaces of its own for mounts, processes and, if asked, the network, so the machine stays as it
was. Root is needed. What a command reaches in the network is that of the machine: its certificates and configurations of pip and
apt are lent to the chroot.
"""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

SUITE = "bookworm"
PACKAGES = "python3,python3-venv,python3-dev,ca-certificates"
LENT = (
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/pip.conf",
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/apt/apt.conf.d",
    "/opt/wheels",
)
SECONDS = 1800.0
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

MOUNT = """
set -e
root=$1; shift
mount --make-rprivate /
mount -t overlay overlay -o "$1" "$root"; shift
mkdir -p "$root/proc" "$root/dev" 2> /dev/null || true
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
while [ "$1" != -- ]; do mount --bind "$1" "$root$2"; shift 2; done
shift
if [ -n "$ALONE" ]; then ip link set lo up; fi
exec chroot "$@"
"""
"""Arguments: the place of the root, the layers, pairs of a folder and its place in the root, `--`, those of chroot."""


def base_root(folder: Path) -> Path:
    """The clean root. Skips where it cannot be made. `CLEAN_ROOT` in the environment: one that was made before."""
    there = os.environ.get("CLEAN_ROOT")
    if there is not None:
        return Path(there)
    program = shutil.which("debootstrap", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None or os.geteuid() != 0:
        pytest.skip("needs root, and debootstrap: apt-get install debootstrap")
    made = folder / "base"
    subprocess.run([program, "--variant=minbase", f"--include={PACKAGES}", SUITE, made], check=True, stdout=subprocess.DEVNULL)
    return made


class CleanRoot:
    """A layer over a clean root, or over another layer. What is written goes to the layer."""

    def __init__(self, folder: Path, *below: Path) -> None:
        """`below`: the folders below, the highest first."""
        self.folder = folder
        self._below = below
        self.files = folder / "files"
        """What was written."""
        for each in (self.files, folder / "work", folder / "root"):
            each.mkdir(parents=True)
        self.environment = {"PATH": PATH, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}

    @property
    def layers(self) -> tuple[Path, ...]:
        """The folders, the highest first."""
        return (self.files, *self._below)

    def lend(self) -> None:
        """Copy what the machine needs to reach its package registries."""
        for each in map(Path, LENT):
            if each.exists():
                target = self.files / str(each)[1:]
                target.parent.mkdir(parents=True, exist_ok=True)
                if each.is_dir():
                    shutil.copytree(each, target, dirs_exist_ok=True)
                else:
                    shutil.copyfile(each, target)
        self.environment |= {key: value for key, value in os.environ.items() if key.startswith("PIP_") or key.endswith("_proxy")}

    def line(
        self, command: Sequence[str], *, user: int | None = None, read_only: bool = False, binds: Mapping[Path, str] | None = None,
        alone: bool = False,
    ) -> list[str]:  # fmt: skip
        """The command line. `alone`: without the network of the machine. `binds`: folders with their places."""
        layers = f"lowerdir={':'.join(map(str, self.layers))}"
        if not read_only:
            layers = f"lowerdir={':'.join(map(str, self._below))},upperdir={self.files},workdir={self.folder / 'work'}"
        variables = [f"{key}={value}" for key, value in self.environment.items()]
        pairs = [part for folder, place in (binds or {}).items() for part in (str(folder), place)]
        return [
            "unshare", "--mount", "--pid", "--fork", "--kill-child", *(["--net"] if alone else []),
            "env", f"ALONE={'1' if alone else ''}", "sh", "-c", MOUNT, "sh", str(self.folder / "root"), layers, *pairs, "--",
            *([f"--userspec={user}:{user}"] if user is not None else []), str(self.folder / "root"),
            "env", "-i", *variables, *command,
        ]  # fmt: skip

    def run(self, *command: str, user: int | None = None) -> str:
        """What a command prints. Fails with its output if it fails."""
        done = subprocess.run(
            self.line(command, user=user), check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=SECONDS
        )
        assert done.returncode == 0, f"{command}: {done.stdout}"
        return done.stdout

    @contextlib.contextmanager
    def running(self, *command: str, user: int, binds: Mapping[Path, str]) -> Iterator["Contained"]:
        """A command as in a container: process 1, a read-only root, a network of its own, an unknown user."""
        line = self.line(command, user=user, read_only=True, binds=binds, alone=True)
        with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as process:
            try:
                yield Contained(process, user, self.environment)
            finally:
                process.kill()


class Contained:
    """A running command."""

    def __init__(self, process: "subprocess.Popen[str]", user: int, environment: Mapping[str, str]) -> None:
        self.process, self._user, self._environment = process, user, environment

    def first(self) -> int:
        """Its process id outside."""
        ends = time.monotonic() + 30
        while True:
            assert time.monotonic() < ends, "no process"
            with contextlib.suppress(OSError):
                children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
                if children:
                    return int(children[0])

    def until(self, text: str) -> str:
        """The line of its log with a text."""
        assert self.process.stderr is not None
        said = []
        for line in self.process.stderr:
            said.append(line)
            if text in line:
                return line
        raise AssertionError("".join(said))

    def execute(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run another command in there, as `docker exec` does."""
        inside = ["nsenter", f"--target={self.first()}", "--mount", "--pid", "--net", "--root", "--wd"]
        as_user = [f"--setuid={self._user}", f"--setgid={self._user}"]
        variables = [f"{key}={value}" for key, value in self._environment.items()]
        line = [*inside, *as_user, "env", "-i", *variables, *command]
        return subprocess.run(line, check=False, capture_output=True, text=True, timeout=120)
