"""Budgets: never more holders than the limit, with processes that are killed; and how long an acquire takes, beside a lock of etcd.

    python benchmarks/budgets.py [--nodes 10] [--limit 3] [--seconds 60] [--json] [--check]

Each node is a process, with a worker that acquires, works for some milliseconds and releases, again and again. All workers
report to a judge, which counts holders. Each few seconds a node is killed, and started again. Latencies: of an acquire by the HTTP
API where the rights are local, and where they are lent by another node first; and of a lock by etcd (one member, on the same disk),
by its HTTP gateway: in the same run, so that they compare.
"""

import argparse
import asyncio
import base64
import contextlib
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

from report import Row, machine, show

from constraint_crdt.client import ClientError
from constraint_crdt.client.blocking import AsyncClient

LOCAL_MS = 2.0
"""Milliseconds of a local acquire, median, at most."""

ETCD_TIMES = 5.0
"""A local acquire is at least so many times as fast as a lock of etcd."""

LEASE = 2.0
SKEW = 0.5
SAMPLES = 300


class Judge:
    """Counts holders."""

    def __init__(self, limit: int) -> None:
        self.limit, self.holders, self.most, self.acquired = limit, 0, 0, 0

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        self.holders += 1
        self.acquired += 1
        self.most = max(self.most, self.holders)
        try:
            yield
        finally:
            self.holders -= 1


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class NodeProcess:
    """A node in a process of its own."""

    def __init__(self, name: str, folder: Path, seed: str | None) -> None:
        self.name, self.folder, self.seed = name, folder, seed
        self.api, self.listen = free_port(), free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self.api}"

    def start(self) -> None:
        """Start the process, or start it again with its store."""
        connect = [] if self.seed is None else ["--connect", self.seed]
        words = [
            sys.executable, "-m", "constraint_crdt", "node", "--name", self.name, "--max-skew", str(SKEW), *connect,
            "--store", str(self.folder / f"{self.name}.db"), "--api", f"127.0.0.1:{self.api}",
            "--listen", f"tcp/127.0.0.1:{self.listen}",
        ]  # fmt: skip
        self.process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@asynccontextmanager
async def fleet(count: int) -> AsyncIterator[list[NodeProcess]]:
    """Node processes that see each other."""
    with tempfile.TemporaryDirectory() as folder:
        nodes: list[NodeProcess] = []
        for number in range(count):
            seed = f"tcp/127.0.0.1:{nodes[0].listen}" if nodes else None
            nodes.append(NodeProcess(f"n{number}", Path(folder), seed))
            nodes[-1].start()
        try:
            async with asyncio.timeout(180):
                while not await live(nodes):  # noqa: ASYNC110 - of other processes
                    await asyncio.sleep(0.5)
            yield nodes
        finally:
            for node in nodes:
                node.kill()


async def live(nodes: list[NodeProcess]) -> bool:
    """True if each node sees all others."""
    try:
        for node in nodes:
            async with AsyncClient(node.url) as client:
                if (await client.status()).peers < len(nodes) - 1:
                    return False
    except ClientError:
        return False
    return True


async def work(node: NodeProcess, judge: Judge, until: float, random: Random) -> None:
    """Acquire, work, release, until the time is over. A killed node's worker stops working at once."""
    async with AsyncClient(node.url) as client:
        while time.monotonic() < until:
            try:
                hold = await client.acquire("dock", wait=1.0)
            except ClientError:
                await asyncio.sleep(0.05)
                continue
            with judge.holding():
                await asyncio.sleep(min(hold.ttl or 0.0, random.uniform(0.001, 0.02)))
            with contextlib.suppress(ClientError):
                await client.release_hold("dock", hold.hold)
            await asyncio.sleep(random.uniform(0.0, 0.05))


async def kills(nodes: list[NodeProcess], until: float, random: Random) -> int:
    """Kill a node each few seconds; returns how often."""
    count = 0
    while time.monotonic() + 5.0 < until:
        await asyncio.sleep(random.uniform(2.0, 5.0))
        node = random.choice(nodes[1:])
        node.kill()
        count += 1
        await asyncio.sleep(random.uniform(0.1, 1.0))
        node.start()
    return count


async def judged(nodes: list[NodeProcess], limit: int, seconds: float) -> list[Row]:
    """Holders against the limit."""
    random, judge = Random(1), Judge(limit)
    until = time.monotonic() + seconds
    killing = asyncio.create_task(kills(nodes, until, random))
    await asyncio.gather(*(work(node, judge, until, Random(number)) for number, node in enumerate(nodes)))
    killed = await killing
    return [
        Row(f"most holders at once, limit {limit}, {killed} kills", float(judge.most), "", float(limit)),
        Row(f"acquired by {len(nodes)} processes", judge.acquired / seconds, "/s"),
    ]


async def known(client: AsyncClient, name: str) -> None:
    """Wait until a node knows a budget."""
    while all(each.name != name for each in await client.budgets()):  # noqa: ASYNC110 - of another process
        await asyncio.sleep(0.01)


async def latencies(nodes: list[NodeProcess]) -> tuple[list[Row], float]:
    """Of an acquire with the rights at hand, and of one whose rights come from another node."""
    async with AsyncClient(nodes[0].url) as first, AsyncClient(nodes[1].url) as second:
        await first.define_budget("local", limit=100, lease=60.0, nodes=["n0"])
        times = []
        for _ in range(SAMPLES):
            began = time.perf_counter()
            hold = await first.acquire("local")
            times.append(time.perf_counter() - began)
            await first.release_hold("local", hold.hold)
        local = 1000 * statistics.median(times)
        away = []
        for number in range(20):
            name = f"away-{number}"
            await first.define_budget(name, limit=1, lease=60.0, nodes=["n0"])
            await known(second, name)
            began = time.perf_counter()
            hold = await second.acquire(name, wait=20.0)
            away.append(time.perf_counter() - began)
            await second.release_hold(name, hold.hold)
            await first.remove_budget(name)
    return [
        Row("acquire with local rights, by HTTP: median", local, "ms", LOCAL_MS),
        Row("acquire with rights of another node: median", 1000 * statistics.median(away), "ms"),
    ], local


def etcd_lock() -> float | None:
    """The median of a lock of etcd in ms; None without etcd."""
    if shutil.which("etcd") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        url, peer = f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}"
        words = ["etcd", "--data-dir", folder, "--listen-client-urls", url, "--advertise-client-urls", url]
        words += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"]
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def call(path: str, **body: object) -> dict[str, str]:
            request = urllib.request.Request(f"{url}/v3/{path}", json.dumps(body).encode())
            with urllib.request.urlopen(request, timeout=10) as answer:
                found: dict[str, str] = json.load(answer)
            return found

        try:
            for _ in range(100):
                with contextlib.suppress(OSError):
                    lease = call("lease/grant", TTL=60)["ID"]
                    break
                time.sleep(0.1)
            name, times = base64.b64encode(b"dock").decode(), []
            for _ in range(SAMPLES):
                began = time.perf_counter()
                key = call("lock/lock", name=name, lease=lease)["key"]
                times.append(time.perf_counter() - began)
                call("lock/unlock", key=key)
        finally:
            process.kill()
            process.wait()
    return 1000 * statistics.median(times)


async def measured(count: int, limit: int, seconds: float) -> list[Row]:
    """All figures."""
    async with fleet(count) as nodes:
        rows, local = await latencies(nodes[:2])
        async with AsyncClient(nodes[0].url) as client:
            await client.define_budget("dock", limit=limit, lease=LEASE)
        rows += await judged(nodes, limit, seconds)
    etcd = etcd_lock()
    if etcd is not None:
        rows += [
            Row("lock of etcd, one member, by HTTP: median", etcd, "ms"),
            Row("local acquire / lock of etcd", local / etcd, "", 1 / ETCD_TIMES),
        ]
    return rows


def main() -> None:
    """See the docstring of the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=10)
    parser.add_argument("--limit", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true", help="exit code 1 if something demanded is missed")
    arguments = parser.parse_args()
    rows = asyncio.run(measured(arguments.nodes, arguments.limit, arguments.seconds))
    show(machine(), rows, as_json=arguments.json)
    if arguments.check and not all(row.met for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
