"""The node processes of the demo: start, requests, kill and stop.

Rule: a node ends with the demo. Each node reads a pipe whose other end the demo holds open, and ends when the system closes it,
even after a kill of the demo.
"""

import asyncio
import contextlib
import os
import re
import sys
from collections import deque
from collections.abc import Callable, Mapping
from typing import TypeVar

from constraint_crdt.cli.output import CommandFailedError
from constraint_crdt.client import ClientError, NoAnswer
from constraint_crdt.client.blocking import Client
from constraint_crdt.operations.constraints import ConstraintReport
from constraint_crdt.operations.nodes import Status
from constraint_crdt.runtime.settings import ENVIRONMENT_PREFIX

Value = TypeVar("Value")

READY_SECONDS = 30.0
END_SECONDS = 2.5
ANSWER_SECONDS = 10.0
"""The end of a node closes its connection at once; with a shorter wait a node on a busy machine would count as ended."""

_READY = re.compile(r" ready name=.* api=(?P<api>\S+) endpoints=(?P<endpoints>\S*)$")


class DemoNode:
    """A node of the demo, over any number of processes."""

    def __init__(self, name: str, fleet: str) -> None:
        self.name = name
        self.live = False
        self.endpoints: tuple[str, ...] = ()
        self.lives: list[Status | None] = []
        """The last status of each process; None before the first answer."""
        self._fleet = fleet
        self._process: asyncio.subprocess.Process | None = None
        self._client: Client | None = None
        self._log: deque[str] = deque(maxlen=5)
        self._reading: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()

    async def start(self, connect: tuple[str, ...]) -> None:
        """Start a process, and wait until it serves. Raises `CommandFailedError` if it does not."""
        command = [sys.executable, "-m", "constraint_crdt", "node", "--name", self.name, "--fleet", self._fleet]
        command += ["--api", "127.0.0.1:0", "--listen", "tcp/127.0.0.1:0", "--probe", "system", "--store", "memory"]
        command += ["--while-stdin-open"]
        for endpoint in connect:
            command += ["--connect", endpoint]
        self._ready = asyncio.Event()
        self.lives.append(None)
        # A session of its own: Ctrl-C reaches the demo alone, which then ends the nodes in order.
        self._process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            env=_environment(os.environ),
        )
        self._reading = asyncio.create_task(self._read_log(self._process))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_SECONDS):
                await self._ready.wait()
        if not self.live:
            said = self._log[-1] if self._log else "it said nothing"
            raise CommandFailedError(f"the process of {self.name} did not start: {said}")

    async def _read_log(self, process: asyncio.subprocess.Process) -> None:
        """Drain the log, or the node would block; take the addresses of the node from it."""
        if process.stderr is None:
            return
        async for raw in process.stderr:
            line = raw.decode(errors="replace").rstrip()
            self._log.append(line)
            found = _READY.search(line)
            if found:
                self._client = Client(found["api"], timeout=ANSWER_SECONDS)
                self.endpoints = tuple(endpoint for endpoint in found["endpoints"].split(",") if endpoint)
                self.live = True
                self._ready.set()
        self.live = False
        self._ready.set()

    async def status(self) -> Status | None:
        """Its status; None if it does not answer."""
        answer = await self._read(Client.status)
        if answer is not None:
            self.lives[-1] = answer
        return answer

    async def constraints(self) -> list[ConstraintReport]:
        """Its active constraints; none if it does not answer."""
        return await self._read(Client.constraints) or []

    async def _read(self, call: Callable[[Client], Value]) -> Value | None:
        """The answer to a call; None if the node does not answer."""
        client = self._client
        if client is None or not self.live:
            return None
        try:
            return await asyncio.to_thread(call, client)
        except ClientError:  # or a part of an answer, of a process that ended meanwhile
            return None

    async def add(self, id_: str, when: str, severity: str, about: str) -> None:
        """Add a constraint on it. Raises `CommandFailedError`."""
        client = self._client
        if client is None:
            raise CommandFailedError(f"{self.name} has not started")
        try:
            await asyncio.to_thread(lambda: client.add(id_, when=when, severity=severity, about=about))
        except NoAnswer:
            raise CommandFailedError(f"{self.name} does not answer any more") from None

    async def kill(self) -> None:
        """Kill the process, as a power cut would."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
        await self._gone()

    async def stop(self) -> None:
        """End the process in order, or else by force. Idempotent."""
        if self._process is None:
            return
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(END_SECONDS):
                    await self._process.wait()
        await self.kill()

    async def _gone(self) -> None:
        self.live = False
        if self._process is not None:
            await self._process.wait()
            if self._process.stdin is not None:
                self._process.stdin.close()
        if self._reading is not None:
            await self._reading


def _environment(own: Mapping[str, str]) -> dict[str, str]:
    """The environment without settings of another node."""
    return {key: value for key, value in own.items() if not key.startswith(ENVIRONMENT_PREFIX)}
