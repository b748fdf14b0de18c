"""Nightly: the package of Debian and the steps of the Dockerfile in a clean root: installed, run as in a container, removed."""

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest

from constraint_crdt import __version__
from constraint_crdt.cli.arguments import DEPLOYED
from tests.conftest import BUDGET
from tests.deploy.clean_root import CleanRoot, base_root

ROOT = Path(__file__).parents[2]
USER = 12345
pytestmark = [
    pytest.mark.processes,
    pytest.mark.one_worker("clean root"),
    pytest.mark.timeout(3600),
]
nightly = pytest.mark.skipif(BUDGET != "nightly", reason="makes a system with debootstrap, and fetches packages: minutes")


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    """On a disk: debootstrap makes devices, which a file system in memory often refuses."""
    folder = Path(mkdtemp(prefix="clean-root-", dir="/var/tmp"))
    yield base_root(folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def layers(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system that overlays take."""
    folder = Path(f"/var/tmp/{tmp_path.parent.name}-{tmp_path.name}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def checkout(to: Path) -> None:
    """The files of the checkout, as a build context has them."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True
    )
    for name in filter(None, names.stdout.decode().split("\0")):
        target = to / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, target)


# --- the Dockerfile -----------------------------------------------------------------------------------------------------------


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """The instructions of a Dockerfile, with their arguments."""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if line.strip() and not line.startswith("#"):
            name, _, rest = line.partition(" ")
            yield name, rest.strip()


def test_instructions_are_read() -> None:
    text = '# a\nFROM x AS y\nRUN a && \\\n  b\n\nCMD ["c"]\n'
    assert list(instructions(text)) == [("FROM", "x AS y"), ("RUN", "a &&    b"), ("CMD", '["c"]')]


class Image:
    """The steps of a Dockerfile, done in clean roots."""

    def __init__(self, dockerfile: str, base: Path, folder: Path) -> None:
        self.stages: dict[str, CleanRoot] = {}
        self.settings: dict[str, str] = {}
        self._base, self._folder = base, folder
        for name, argument in instructions(dockerfile):
            getattr(self, f"_{name.lower()}", lambda text, name=name: self.settings.update({name: text}))(argument)

    def _from(self, argument: str) -> None:
        self.stage = CleanRoot(self._folder / str(len(self.stages)), self._base)
        self.stage.lend()
        (self.stage.files / "usr/local/bin").mkdir(parents=True)
        (self.stage.files / "usr/local/bin/python").symlink_to("/usr/bin/python3")  # as in the image that is named
        self.stages[argument.partition(" AS ")[2] or "last"] = self.stage

    def _run(self, argument: str) -> None:
        self.stage.run("sh", "-c", argument)

    def _env(self, argument: str) -> None:
        for pair in shlex.split(argument):
            key, _, value = pair.partition("=")
            self.stage.environment[key] = value.replace(f"${key}", self.stage.environment.get(key, ""))

    def _copy(self, argument: str) -> None:
        *options, source, target = argument.split()
        place = self.stage.files / target[1:]
        if options:
            shutil.copytree(self.stages[options[0].removeprefix("--from=")].files / source[1:], place, symlinks=True)
        else:
            checkout(place)


@nightly
def test_the_steps_of_the_dockerfile_make_a_node_that_any_user_runs(base: Path, layers: Path) -> None:
    """Of a user without an entry in passwd and without a home, with a read-only root and a volume, as process 1."""
    image = Image((ROOT / "deploy/Dockerfile").read_text(), base, layers / "image")
    command = [*json.loads(image.settings["ENTRYPOINT"]), *json.loads(image.settings["CMD"])]
    check = json.loads(image.settings["HEALTHCHECK"].partition(" CMD ")[2])
    assert image.settings["USER"] == "10001:10001"
    assert "compiled" in image.stage.run("constraint-crdt", "--version")
    assert shutil.which("gcc", path=str(image.stage.files / "usr/bin")) is None
    for what, file in DEPLOYED.items():
        assert image.stage.run("constraint-crdt", "config", what) == (ROOT / "deploy" / file).read_text()
    image.stage.run("test", "-e", "/opt/constraint-crdt/share/doc/constraint-crdt/how-to/deploy.md")
    volume = layers / "volume"
    volume.mkdir(mode=0o777)
    volume.chmod(0o777)
    place = image.settings["VOLUME"]
    for life in range(2):
        with image.stage.running(*command, "--name", "forge", user=USER, binds={volume: place}) as node:
            node.until(" ready name=forge ")
            first = node.first()
            status = Path(f"/proc/{first}/status").read_text()
            assert re.search(r"^NSpid:\s+\d+\s+1$", status, re.MULTILINE), "it is process 1"
            assert re.search(rf"^Uid:\s+{USER}\b", status, re.MULTILINE)
            healthy = node.execute(*check)
            assert healthy.returncode == 0, healthy.stdout + healthy.stderr
            assert node.execute("touch", "/usr/x").returncode == 1, "the root is read-only"
            if life == 0:
                added = node.execute("constraint-crdt", "add", "max_speed", "--when", "speed_mps <= 1.5")
                assert added.returncode == 0, added.stderr
            else:
                assert "max_speed" in node.execute("constraint-crdt", "constraints").stdout
            subprocess.run(["kill", f"-{signal.SIGTERM.value}", str(first)], check=True)
            node.until("forge stopped")
            assert node.process.wait(30) == 0
    assert sorted(each.name for each in volume.iterdir()) == ["default"]


# --- the package of Debian ----------------------------------------------------------------------------------------------------


def files_of(system: CleanRoot) -> set[str]:
    """The files of a system, without compiled modules. `/opt` itself goes with the last package that is there."""
    found = system.run("sh", "-c", "mkdir -p /opt; find /usr /opt /etc /var/lib/dpkg/info -not -name '*.pyc'")
    return set(found.splitlines())


@nightly
def test_the_package_is_installed_run_and_removed(base: Path, layers: Path) -> None:
    made = subprocess.run(
        [sys.executable, ROOT / "tools/debian_package.py", "--out", layers], check=True, capture_output=True, text=True
    ).stdout.split()
    package = Path(made[-1])
    system = CleanRoot(layers / "system", base)
    (system.files / "tmp").mkdir()
    shutil.copy(package, system.files / "tmp/node.deb")
    before = files_of(system)
    system.run("dpkg", "--install", "/tmp/node.deb")
    assert f"constraint-crdt {__version__}" in system.run("constraint-crdt", "--version")
    assert "compiled" in system.run("constraint-crdt", "--version")
    assert system.run("getent", "passwd", "constraint-crdt").split(":")[5] == "/nonexistent"
    system.run("/opt/constraint-crdt/bin/python", "-c", "import paho.mqtt.client, uvloop")
    assert system.run("dpkg", "--verify", "constraint-crdt") == ""
    user, state = 100, layers / "state"
    state.mkdir()
    state.chmod(0o777)
    system.environment["XDG_STATE_HOME"] = "/var/lib"
    (system.files / "var/lib/constraint-crdt").mkdir(parents=True)
    with system.running("constraint-crdt", "node", "--name", "forge", user=user, binds={state: "/var/lib/constraint-crdt"}) as node:
        node.until(" ready name=forge ")
        status = node.execute("constraint-crdt", "status", "--check")
        assert status.returncode == 0, status.stderr
    (system.files / "etc/constraint-crdt").mkdir(exist_ok=True)
    (system.files / "etc/constraint-crdt/node.toml").write_text('name = "forge"\n')
    system.run("dpkg", "--remove", "constraint-crdt")
    assert system.run("cat", "/etc/constraint-crdt/node.toml") == 'name = "forge"\n', "the settings stay"
    system.run("rm", "-r", "/etc/constraint-crdt")
    system.run("dpkg", "--purge", "constraint-crdt")
    accounts = ("/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow")  # of the user, which stays
    assert {each for each in files_of(system) ^ before if not each.startswith(accounts)} == set()
