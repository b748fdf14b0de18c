"""The HTTP API of one node under load, while it gossips with two others: processes on loopback, as users run them.

    python benchmarks/api.py [--seconds 10] [--rate 2000] [--streams 200] [--json] [--check]

Reads are sent on a schedule (`--rate` in all, over 200 connections, half of them with `If-None-Match`), and their time is counted
from when they were due, so a node that stalls is not spared. 200 other connections follow the events, all of them counted. The
fleet has 1,000 constraints, and every node measures and counts; a constraint is added and removed ten times a second. One more
reader of the events takes nothing at all. Exchanges that failed, and those completed per second without and with the load, come
from `/metrics`.
"""

import argparse
import asyncio
import contextlib
import itertools
import re
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import psutil
from report import Row, machine, show

from constraint_crdt.client import AsyncClient

CONNECTIONS = 200
CONSTRAINTS = 1000
MOST_ADDED = 60
"""MB."""
PATHS = ("/v1/status", "/v1/nodes", "/v1/constraints?limit=100", "/v1/rates?limit=100", "/v1/overview?limit=50")
READY = re.compile(r" ready name=.* api=(?P<api>\S+) endpoints=(?P<endpoints>\S*)$")


@dataclass
class Outcome:
    """What the load was answered with."""

    answers: int = 0
    wrong: int = 0
    late: list[float] = field(default_factory=list)
    """Seconds from when a request was due to its answer."""
    events: int = 0
    """Frames that the readers of the events took, all together."""


class NodeProcess:
    """One node."""

    def __init__(self, name: str, fleet: str, *flags: str) -> None:
        command = [sys.executable, "-m", "constraint_crdt", "node", "--name", name, "--fleet", fleet, "--api", "127.0.0.1:0"]
        command += ["--listen", "tcp/127.0.0.1:0", "--store", "memory", "--probe", "system", "--while-stdin-open", *flags]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        found = next(found for line in self.process.stderr if (found := READY.search(line.rstrip())))
        self.api, self.endpoint = found["api"], found["endpoints"].split(",")[0]
        threading.Thread(target=self.process.stderr.read, daemon=True).start()  # or its log would fill the pipe
        self._usage = psutil.Process(self.process.pid)

    @property
    def cpu(self) -> float:
        """Seconds so far."""
        return sum(self._usage.cpu_times()[:2])

    @property
    def memory(self) -> int:
        """Bytes."""
        return int(self._usage.memory_info().rss)


@contextlib.contextmanager
def fleet() -> Iterator[NodeProcess]:
    """Three nodes; the first of them."""
    name = f"bench-{secrets.token_hex(4)}"
    first = NodeProcess("forge", name)
    nodes = [first, *(NodeProcess(each, name, "--connect", first.endpoint) for each in ("anvil", "bench"))]
    try:
        yield first
    finally:
        for node in nodes:
            node.process.terminate()
        for node in nodes:
            node.process.wait(10)


async def ask(port: int, number: int, rate: float, until: float, outcome: Outcome) -> None:
    """One connection that asks `rate` times a second."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    clock = asyncio.get_running_loop().time
    due = clock() + number / rate / CONNECTIONS
    tags: dict[str, str] = {}
    for path in itertools.cycle(PATHS[number % len(PATHS) :] + PATHS[: number % len(PATHS)]):
        if due >= until:
            break
        await asyncio.sleep(due - clock())
        known = f"If-None-Match: {tags[path]}\r\n" if number % 2 and path in tags else ""
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{known}\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        length = re.search(r"(?i)content-length: (\d+)", head)
        if length:
            await reader.readexactly(int(length[1]))
        outcome.late.append(clock() - due)
        outcome.answers += 1
        outcome.wrong += head[9:12] not in ("200", "304")
        tag = re.search(r"(?i)etag: (\S+)", head)
        if tag:
            tags[path] = tag[1]
        due += 1 / rate
    writer.close()


async def follow(port: int, until: float, outcome: Outcome) -> None:
    """One reader of the events."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout_at(until):
            while data := await reader.read(65536):
                outcome.events += data.count(b"data: ")
    writer.close()


async def stir(client: AsyncClient, until: float) -> None:
    """Something happens ten times a second."""
    clock = asyncio.get_running_loop().time
    for number in itertools.count():
        if clock() >= until:
            return
        if number % 2:
            await client.remove("stirred")
        else:
            await client.add("stirred", when=f"cpu_percent < {number}.0")
        await asyncio.sleep(0.1)


async def count(client: AsyncClient, name: str) -> float:
    """A metric of the node."""
    found = re.search(rf"(?m)^constraint_crdt_{name} (\S+)$", await client.metrics())
    assert found is not None, name
    return float(found[1])


async def drop_slow(client: AsyncClient, port: int) -> float:
    """Seconds until a reader that takes nothing is dropped, while much happens."""
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.connect(("127.0.0.1", port))
    slow.sendall(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    before, began = await count(client, "event_readers_dropped_total"), time.monotonic()
    for number in itertools.count():
        when = f"cpu_percent < {number}.0 || " + " || ".join(f"memory_percent < {each}.0" for each in range(40))
        await client.batch([{"add": {"id": f"flood{each}", "when": when}} for each in range(100)])
        if await count(client, "event_readers_dropped_total") > before:
            slow.close()
            return time.monotonic() - began
    raise AssertionError


async def measure(node: NodeProcess, seconds: float, rate: float, streams: int) -> list[Row]:
    """All figures."""
    port, clock = int(node.api.rpartition(":")[2]), asyncio.get_running_loop().time
    async with AsyncClient(node.api, timeout=30) as client:
        await client.batch([{"add": {"id": f"c{number}", "when": f"cpu_percent < {number}.5"}} for number in range(CONSTRAINTS)])
        while (await client.status()).peers < 2:  # noqa: ASYNC110 - other processes have no event for it
            await asyncio.sleep(0.05)
        await asyncio.sleep(2)
        completed, cpu = await count(client, "exchanges_completed_total"), node.cpu
        await asyncio.sleep(seconds)
        idle = (node.cpu - cpu) / seconds
        quiet = (await count(client, "exchanges_completed_total") - completed) / seconds
        failed, completed = await count(client, "exchanges_failed_total"), await count(client, "exchanges_completed_total")
        cpu, memory, outcome, began = node.cpu, node.memory, Outcome(), clock()
        until, own = began + seconds, time.process_time()
        await asyncio.gather(
            stir(client, until),
            *(follow(port, until, outcome) for _ in range(streams)),
            *(ask(port, number, rate / CONNECTIONS, until, outcome) for number in range(CONNECTIONS)),
        )
        took = clock() - began  # longer, where the node or this process does not keep up
        loaded = (await count(client, "exchanges_completed_total") - completed) / took
        load = (time.process_time() - own) / took
        failures = await count(client, "exchanges_failed_total") - failed
        late = sorted(outcome.late)
        used, after = (node.cpu - cpu) / took, node.memory
        dropped = await drop_slow(client, port)
        return [
            Row("reads answered", outcome.answers / took, "/s", note=f"{rate:g}/s were sent"),
            Row("answers other than 200 and 304", outcome.wrong, "", must=0),
            Row("time of a read, median", 1000 * late[len(late) // 2], "ms"),
            Row("time of a read, 99 of 100", 1000 * late[len(late) * 99 // 100], "ms", goal=100),
            Row("frames to readers of events", outcome.events / seconds, "/s", note=f"{streams} readers"),
            Row("exchanges that failed", failures, "", must=0),
            Row("exchanges completed, quiet", quiet, "/s"),
            Row("exchanges completed, loaded", loaded, "/s"),
            Row("CPU of the node, quiet", idle, "of a core"),
            Row("CPU of the node, loaded", used, "of a core"),
            Row("CPU of this process, which is the load", load, "of a core"),
            Row("memory that the load added", (after - memory) / 1e6, "MB", must=MOST_ADDED, note=f"{memory / 1e6:.0f} MB before"),
            Row("slow reader of events dropped after", dropped, "s"),
        ]


def main() -> None:
    """See the docstring of the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=2000.0)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true", help="exit code 1 if something demanded is missed")
    arguments = parser.parse_args()
    with fleet() as node:
        found = asyncio.run(measure(node, arguments.seconds, arguments.rate, arguments.streams))
    show(machine(), found, as_json=arguments.json)
    if arguments.check and not all(row.met for row in found):
        sys.exit(1)


if __name__ == "__main__":
    main()
