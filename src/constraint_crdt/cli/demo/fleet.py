"""The node processes of the demo: starting, asking, killing, and leaving none behind.

Rule: a node lives no longer than the demo. Each reads a pipe that only the demo holds open, so the system ends it for us
even if the demo is killed and can do nothing any more.
"""

import asyncio
import contextlib
import os
import re
import sys
from collections import deque
from collections.abc import Mapping
from typing import Any

from constraint_crdt.cli.client import ApiClient, NoAnswerError
from constraint_crdt.cli.errors import CommandFailedError
from constraint_crdt.runtime.settings import ENVIRONMENT_PREFIX

READY_SECONDS = 30.0
END_SECONDS = 2.5
ANSWER_SECONDS = 10.0
"""A node that is gone is told by its connection at once; a shorter wait would take one on a busy machine for gone."""

_READY = re.compile(r" ready name=.* api=(?P<api>\S+) endpoints=(?P<endpoints>\S*)$")


class DemoNode:
    """One node of the demo, over any number of processes."""

    def __init__(self, name: str, fleet: str) -> None:
        self.name = name
        self.live = False
        self.endpoints: tuple[str, ...] = ()
        self.lives: list[dict[str, Any]] = []
        """What each process of it last said of itself; empty before it did."""
        self._fleet = fleet
        self._process: asyncio.subprocess.Process | None = None
        self._client: ApiClient | None = None
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
        self.lives.append({})
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
        """Keep the log flowing, or the node would stand still; take from it where the node answers."""
        if process.stderr is None:
            return
        async for raw in process.stderr:
            line = raw.decode(errors="replace").rstrip()
            self._log.append(line)
            found = _READY.search(line)
            if found:
                self._client = ApiClient(found["api"], timeout=ANSWER_SECONDS)
                self.endpoints = tuple(endpoint for endpoint in found["endpoints"].split(",") if endpoint)
                self.live = True
                self._ready.set()
        self.live = False
        self._ready.set()

    async def get(self, path: str) -> Any:
        """What the API answers; None if the node does not."""
        client = self._client
        if client is None or not self.live:
            return None
        try:
            return await asyncio.to_thread(client.get, path)
        except CommandFailedError:  # also half an answer, of a process that ended over it
            return None

    async def status(self) -> Any:
        """Its status; None if it does not answer."""
        answer = await self.get("status")
        if answer is not None:
            self.lives[-1] = answer
        return answer

    async def post(self, path: str, body: Mapping[str, object]) -> Any:
        """What the API answers. Raises `CommandFailedError`."""
        if self._client is None:
            raise CommandFailedError(f"{self.name} has not started")
        try:
            return await asyncio.to_thread(self._client.post, path, body)
        except NoAnswerError:
            raise CommandFailedError(f"{self.name} does not answer any more") from None

    async def kill(self) -> None:
        """End the process without a word, as a power cut would."""
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
    """Our environment without the settings of a node in it, which are not meant for these."""
    return {key: value for key, value in own.items() if not key.startswith(ENVIRONMENT_PREFIX)}
