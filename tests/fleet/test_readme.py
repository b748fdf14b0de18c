"""The README's five minutes, as a newcomer walks them: every command of that section, in its order, on real nodes.

Only what belongs to the reader's machine is replaced: the ports, where state is kept, and the terminals in which nodes run.
"""

import contextlib
import os
import re
import secrets
import shlex
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import fork_server
from tests.fleet.processes import clean_environment, seconds_until

pytestmark = [pytest.mark.long, pytest.mark.processes]

README = Path(__file__).parents[2] / "README.md"
PORTS = ("7447", "8470", "8471")
FIRST_FIXED_PORT, LAST_FIXED_PORT = 10_000, 32_000


def section(title: str) -> str:
    found = re.search(rf"^## {title}\n(.*?)^## ", README.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def commands(text: str) -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def free_ports() -> dict[str, str]:
    """A free port in place of each in the README, below those that the system gives to a socket bound to port 0.

    So no other test receives one of them between this look and the start of the node.
    """
    free: list[str] = []
    while len(free) < len(PORTS):
        port = secrets.randbelow(LAST_FIXED_PORT - FIRST_FIXED_PORT) + FIRST_FIXED_PORT
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            free.append(str(port))
    return dict(zip(PORTS, free, strict=True))


class Newcomer:
    """Somebody with a shell, and the command on the path."""

    def __init__(self, home: Path) -> None:
        self.ports = free_ports()
        self.nodes: list[subprocess.Popen[str]] = []
        self._home = home
        self._environment = clean_environment() | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "XDG_STATE_HOME": str(home),
            "CONSTRAINT_CRDT_NODE": f"127.0.0.1:{self.ports['8470']}",
        }

    def types(self, command: str) -> None:
        for port, free in self.ports.items():
            command = command.replace(port, free)
        if command.startswith("constraint-crdt node "):
            words = shlex.split(command, comments=True)
            own = words if "--api" in words else [*words, "--api", f"127.0.0.1:{self.ports['8470']}"]
            node = fork_server.start(own[1:], stderr=subprocess.DEVNULL, env=self._environment, cwd=self._home)
            self.nodes.append(node)
            status = ["status", "--node", own[own.index("--api") + 1]]
            seconds_until(lambda: fork_server.run(status, env=self._environment).returncode == 0)
        else:
            assert self.shell(command) == 0, command

    def shell(self, command: str) -> int:
        """Run a line. A command alone, without a word for the shell, is forked: it takes a sixth of the time."""
        if command.startswith("constraint-crdt ") and not set(command) & set("|<>;&$`*"):
            words = shlex.split(command, comments=True)
            return fork_server.run(words[1:], env=self._environment, cwd=self._home).returncode
        done = subprocess.run(
            ["sh", "-c", command], capture_output=True, timeout=60, env=self._environment, cwd=self._home, check=False
        )
        return done.returncode


@pytest.fixture
def newcomer(tmp_path: Path) -> Iterator[Newcomer]:
    somebody = Newcomer(tmp_path)
    yield somebody
    for node in somebody.nodes:
        node.kill()
        node.wait()


def test_each_command_of_the_five_minutes_works(newcomer: Newcomer, tmp_path: Path) -> None:
    told = section("Five minutes")
    listed = commands(told)
    assert sum(command.startswith("constraint-crdt node ") for command in listed) == 2
    assert len(listed) > 12
    for command in listed:
        newcomer.types(command)
    (toml,) = re.findall(r"^```toml\n(.*?)^```", told, re.MULTILINE | re.DOTALL)
    assert tomllib.loads(toml)
    (tmp_path / "fleet.toml").write_text(toml)
    newcomer.types("constraint-crdt apply fleet.toml")
    assert "constraint-crdt apply fleet.toml" in told


def test_each_command_of_what_else_a_fleet_shares_works(newcomer: Newcomer) -> None:
    newcomer.types("constraint-crdt node --name forge --probe none")
    for command in commands(section("What else a fleet shares")):
        newcomer.types(command)
