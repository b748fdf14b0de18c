"""Node processes for the tests of the command line, as a user would start them."""

import json
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from constraint_crdt.client import Client
from tests import fork_server

_READY = re.compile(r" ready name=(\S+) api=(\S+) endpoints=(\S*)$")


@dataclass
class NodeProcess:
    """A running `constraint-crdt node`."""

    process: subprocess.Popen[str]
    url: str
    endpoint: str
    """Where other nodes connect."""
    log: list[str]

    def ends(self) -> tuple[int, list[str]]:
        """Wait until it ends by itself: its exit code, and all that it said on stderr."""
        assert self.process.stderr is not None
        if self.process.stdin is not None:
            self.process.stdin.close()
        # Not `communicate`: it misses what was read from the pipe together with the lines of `log`.
        self.log += self.process.stderr.read().splitlines()
        return self.process.wait(30), [*self.log]

    def stop(self) -> list[str]:
        """End it in order, and return what it said on stderr."""
        self.process.terminate()
        code, lines = self.ends()
        assert code == 0, lines
        return lines


class EndTimer:
    """Times the end of a process, from when this is made: a busy machine does not count against it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._delayed = self._seconds_delayed()
        self._began = time.monotonic()

    def seconds(self) -> float:
        """Wait for the end: the seconds until it, less those in which the process was ready to run and others had the processor.

        The process can still be waited for.
        """
        os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        took = time.monotonic() - self._began
        return took - (self._seconds_delayed() - self._delayed)

    def _seconds_delayed(self) -> float:
        try:
            return int(Path(f"/proc/{self._process.pid}/schedstat").read_text().split()[1]) / 1e9
        except FileNotFoundError:  # not Linux
            return 0.0


def ask(url: str, path: str) -> Any:
    """The JSON that a node answers to `GET /v1/{path}`."""
    return json.loads(Client(url).ask("GET", f"/v1/{path}").content)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "constraint_crdt", *arguments]


def environment(**more: str) -> dict[str, str]:
    """Ours, without settings of nodes, which the machine that runs the tests may have."""
    return (
        {key: value for key, value in os.environ.items() if not key.startswith("CONSTRAINT_CRDT_")}
        | {"CONSTRAINT_CRDT_STORE": "memory"}
        | more
    )


@contextmanager
def running_node(*flags: str, stdin: int = subprocess.DEVNULL, **more: str) -> Iterator[NodeProcess]:
    """A node on free ports, of a fleet of its own unless the flags say another; ended however the block ends.

    `more`: variables of its environment.
    """
    line = ["node", "--name", "forge", "--fleet", f"test-{secrets.token_hex(4)}", "--api", "127.0.0.1:0", *flags]
    pipe = subprocess.PIPE
    with fork_server.start(line, stdin=stdin, stdout=pipe, stderr=pipe, env=environment(**more)) as process:
        try:
            yield _wait_until_ready(process)
        finally:
            process.kill()


def _wait_until_ready(process: subprocess.Popen[str]) -> NodeProcess:
    assert process.stderr is not None
    log = []
    for text in process.stderr:
        log.append(text.rstrip("\n"))
        found = _READY.search(log[-1])
        if found:
            return NodeProcess(process, found[2], found[3].partition(",")[0], log)
    raise AssertionError(f"the node did not start: {log}")


def run_to_its_end(*flags: str, **more: str) -> subprocess.CompletedProcess[str]:
    """A node that is expected to give up by itself."""
    return fork_server.run(["node", "--api", "127.0.0.1:0", *flags], env=environment(**more), timeout=30)
