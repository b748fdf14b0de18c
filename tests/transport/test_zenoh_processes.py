"""Zenoh between processes: one that is killed, stopped, fails, or ends without closing."""

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path

import pytest

import constraint_crdt
from constraint_crdt.transport import Unreachable
from constraint_crdt.transport.zenoh import ZenohTransport
from tests.conftest import within

from .seats import DEADLINE, Network

pytestmark = pytest.mark.processes

Process = asyncio.subprocess.Process
Spawn = Callable[..., Coroutine[None, None, tuple[Process, list[str]]]]


@pytest.fixture
async def spawn() -> AsyncIterator[Spawn]:
    """Start `peer_process.py` and return it with its endpoints; what still runs is killed at the end."""
    started: list[Process] = []

    async def start(name: str, mode: str = "serve", **arguments: object) -> tuple[Process, list[str]]:
        source = str(Path(constraint_crdt.__file__).parents[1])
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(__file__).with_name("peer_process.py")),
            name,
            mode,
            json.dumps(arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": source, "RUST_LOG": "trace"},
        )
        started.append(process)
        assert process.stderr is not None
        async with asyncio.timeout(DEADLINE):
            return process, json.loads(await process.stderr.readline())

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.communicate(b"")


async def test_a_killed_process_is_noticed_at_once(zenoh: Network, spawn: Spawn) -> None:
    a = await zenoh.join("a")
    process, _ = await spawn("b", connect=a.transport.endpoints)
    await a.sees_names("b")
    b = a.peer("b")
    assert await a.transport.request(b, b"x", DEADLINE) == [b"x"]
    process.kill()
    async with asyncio.timeout(within(2.0)):
        await a.sees_names()
        with pytest.raises(Unreachable):
            await a.transport.request(b, b"x", DEADLINE)


@pytest.mark.long
async def test_a_process_killed_while_it_answers_costs_that_answer(zenoh: Network, spawn: Spawn) -> None:
    a = await zenoh.join("a")
    process, _ = await spawn("b", connect=a.transport.endpoints)
    await a.sees_names("b")
    b = a.peer("b")
    assert sum(map(len, await a.transport.request(b, b"long", DEADLINE))) == 40_000_000
    waiting = asyncio.get_running_loop().create_task(a.transport.request(b, b"long", DEADLINE))
    await asyncio.sleep(0)  # one turn of the loop: the request is on its way
    process.kill()
    async with asyncio.timeout(DEADLINE / 2):
        with pytest.raises(Unreachable):
            await waiting


@pytest.mark.long
async def test_a_stopped_process_holds_nobody_up(zenoh: Network, spawn: Spawn) -> None:
    a = await zenoh.join("a")
    process, _ = await spawn("b", connect=a.transport.endpoints)
    await a.sees_names("b")
    b = a.peer("b")
    loop = asyncio.get_running_loop()
    turns: list[float] = []

    def turn() -> None:
        turns.append(loop.time())
        if not done.is_set():
            loop.call_later(0.005, turn)

    done = asyncio.Event()
    process.send_signal(signal.SIGSTOP)
    turn()
    asked = [a.transport.request(b, bytes(65536), 1.0) for _ in range(200)]
    results = await asyncio.gather(*asked, return_exceptions=True)
    done.set()
    assert all(isinstance(result, Unreachable) for result in results)
    async with asyncio.timeout(within(2.0)):
        await a.transport.close()
    assert len(turns) > 10
    assert max(later - earlier for earlier, later in itertools.pairwise(turns)) < within(1.0)


@pytest.mark.long
async def test_nothing_of_zenoh_reaches_stdout_and_the_end_of_stdin_ends_it(zenoh: Network, spawn: Spawn) -> None:
    a = await zenoh.join("a")
    process, _ = await spawn("b", connect=[*a.transport.endpoints, "tcp/no.such.host.invalid:7447"])
    await a.sees_names("b")
    async with asyncio.timeout(DEADLINE):
        stdout, stderr = await process.communicate(b"")
    assert (process.returncode, stdout, stderr) == (0, b"", b"")


@pytest.mark.long(by_day=["raise-1"])
@pytest.mark.parametrize(("mode", "code"), [("raise", 1), ("leave", 0)])
async def test_a_process_that_does_not_close_ends_promptly_all_the_same(zenoh: Network, spawn: Spawn, mode: str, code: int) -> None:
    a = await zenoh.join("a")
    process, _ = await spawn("b", mode, connect=a.transport.endpoints)
    async with asyncio.timeout(within(5.0)):
        stdout, stderr = await process.communicate(b"")
    assert process.returncode == code
    assert stdout == b""
    assert (b"on purpose" in stderr) == (mode == "raise")
    await a.sees_names()


@pytest.mark.long
async def test_a_stopped_process_is_gone_after_its_lease_and_comes_again(zenoh: Network, spawn: Spawn) -> None:
    lease = 0.5
    a = await zenoh.join("a", transport=ZenohTransport(lease=lease))
    process, _ = await spawn("b", connect=a.transport.endpoints, lease=lease)
    await a.sees_names("b")
    process.send_signal(signal.SIGSTOP)
    await a.sees_names()
    process.send_signal(signal.SIGCONT)
    await a.sees_names("b")
    assert await a.transport.request(a.peer("b"), b"x", DEADLINE) == [b"x"]
