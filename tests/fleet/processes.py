"""Node processes on loopback, driven as a user drives them: by the command line."""

import json
import os
import re
import secrets
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

from tests import fork_server

START_SECONDS = 60.0
_READY = re.compile(r" ready name=.* api=(?P<api>\S+) endpoints=(?P<endpoints>\S*)$")


def clean_environment() -> dict[str, str]:
    """Ours, without settings of a node that a developer may have set."""
    return {key: value for key, value in os.environ.items() if not key.startswith("CONSTRAINT_CRDT_")}


class NodeProcess:
    """One `constraint-crdt node` process, ready once constructed."""

    def __init__(self, name: str, fleet: str, *flags: str) -> None:
        arguments = [
            "node",
            "--name",
            name,
            "--fleet",
            fleet,
            "--api",
            "127.0.0.1:0",
            "--probe",
            "none",
            "--store",
            "memory",
            *flags,
        ]
        self.name = name
        self.fleet = fleet
        self.log: list[str] = []
        self.api = ""
        self.endpoints: list[str] = []
        self._ready = threading.Event()
        self.process = self.start_process(arguments)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._ready.wait(START_SECONDS) or not self.api:
            self.kill()
            raise AssertionError(f"{name} did not start: {self.log}")

    def start_process(self, arguments: Sequence[str]) -> subprocess.Popen[str]:
        """The process, with a pipe for its log."""
        return fork_server.start(arguments, stderr=subprocess.PIPE, env=clean_environment())

    @property
    def _stream(self) -> IO[str]:
        """The pipe of the log."""
        stream = self.process.stderr or self.process.stdout
        assert stream is not None
        return stream

    def _read(self) -> None:
        for line in self._stream:
            self.log.append(line.rstrip())
            found = _READY.search(self.log[-1])
            if found:
                self.api, self.endpoints = found["api"], found["endpoints"].split(",")
                self._ready.set()
        self._ready.set()

    def run(self, *arguments: str) -> str:
        """What a client command prints; it must succeed."""
        done = fork_server.run([*arguments, "--node", self.api], env=clean_environment())
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return done.stdout

    def ask(self, *arguments: str) -> Any:
        """What a read command answers as JSON."""
        return json.loads(self.run(*arguments, "--json"))

    def get(self, path: str) -> Any:
        """What the API answers below /v1: for waiting, because it starts no process."""
        with urllib.request.urlopen(f"{self.api}/v1/{path}", timeout=30) as answer:
            return json.load(answer)

    def has_ended(self) -> bool:
        """The process has ended, and all of its log is read."""
        return self.process.poll() is not None and not self._reader.is_alive()

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self._end()

    def terminate(self) -> int:
        """SIGTERM; the exit code."""
        self.process.terminate()
        self.process.wait(timeout=60)
        self._end()
        return self.process.returncode

    def _end(self) -> None:
        self.process.wait()
        self._reader.join(timeout=10)
        self._stream.close()


@contextmanager
def processes(fleet: str | None = None) -> Iterator[Callable[..., NodeProcess]]:
    """A starter of node processes that are gone when the block ends; of a fleet that no other test shares, unless one is given."""
    started: list[NodeProcess] = []
    fleet = fleet or f"test-{secrets.token_hex(4)}"

    def start(name: str, *flags: str) -> NodeProcess:
        started.append(NodeProcess(name, fleet, *flags))
        return started[-1]

    try:
        yield start
    finally:
        for node in started:
            node.kill()


FAR = 60.0
"""Seconds for which a fleet is waited for: a busy machine may stand still for a while."""

LOOK_EVERY = 0.05
"""Seconds between two looks: without a pause they take the processor from the processes that are waited for."""


def seconds_until(what: Callable[[], object], within: float = FAR) -> float:
    """How long until `what()` is true; fails after `within` seconds. It polls: each look is a request to a process."""
    began = time.monotonic()
    while not what():
        if time.monotonic() - began > within:
            raise AssertionError(f"not so within {within} s")
        time.sleep(LOOK_EVERY)
    return time.monotonic() - began
