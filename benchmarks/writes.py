"""Durable writes through HTTP: one node with its store on disk, and etcd on the same disk, in turns in one run.

    python benchmarks/writes.py [--seconds 4] [--repeats 5] [--directory DIR] [--without-etcd] [--json] [--check]

Each write is answered when it is on disk. The definitions are distinct: each has an id and an expression of its own. etcd
(Debian's `etcd-server`) takes puts, and transactions of 1,000 puts for the batches, through its JSON gateway; all clients are the
same, over loopback. Rates are wall-clock, and medians of the repeats: run it on an idle machine, and on the disk that nodes use.
CPU is that of the whole process of the node or of etcd, per write, so it hardly depends on what else the machine does.
"""

import argparse
import asyncio
import base64
import contextlib
import itertools
import json
import os
import re
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import psutil
from report import Row, machine, show

BATCH = 1_000
MANY = 32
READY = re.compile(r" ready name=.* api=(?P<api>\S+) ")
LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
CHUNKED = re.compile(rb"(?i)\r\ntransfer-encoding: *chunked")

ETCD_PAUSE = 0.05
"""Seconds between two looks for the start of etcd."""


class Served(NamedTuple):
    """A server under test."""

    process: psutil.Process
    port: int

    @property
    def cpu(self) -> float:
        """Seconds so far."""
        return float(sum(self.process.cpu_times()[:2]))


class Load(NamedTuple):
    """A kind of write: the clients, the writes in a request, and the request to each server by its number."""

    name: str
    clients: int
    writes: int
    ours: Callable[[int], bytes]
    etcd: Callable[[int], bytes] | None


class Outcome(NamedTuple):
    """What a load came to."""

    rate: float
    """Writes per second."""
    p50: float
    p99: float
    """Seconds of a request."""
    cpu: float
    """CPU seconds of the server per write."""


def request(path: str, body: object) -> bytes:
    """A POST with JSON."""
    data = json.dumps(body).encode()
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n".encode() + (
        f"Content-Length: {len(data)}\r\n\r\n".encode() + data
    )


def definition(number: int) -> dict[str, object]:
    """A definition with an id and an expression of its own."""
    return {"id": f"speed-{number:09d}", "when": f"speed_mps <= {number}.5 && distance_m > 0.25", "about": "what the floor allows"}


def pair(number: int) -> dict[str, str]:
    """The same as a pair of etcd."""
    value = json.dumps(definition(number)).encode()
    return {"key": base64.b64encode(f"speed-{number:09d}".encode()).decode(), "value": base64.b64encode(value).decode()}


def many(number: int) -> range:
    """The numbers of the writes of a batch."""
    return range(number * BATCH, (number + 1) * BATCH)


def transaction(number: int) -> bytes:
    """A batch of etcd."""
    return request("/v3/kv/txn", {"success": [{"requestPut": pair(each)} for each in many(number)]})


def adds(name: str, clients: int) -> Load:
    """Single adds, and puts of etcd."""
    return Load(name, clients, 1, lambda n: request("/v1/constraints", definition(n)), lambda n: request("/v3/kv/put", pair(n)))


def batches(name: str, clients: int) -> Load:
    """Adds in batches, and transactions of etcd."""
    return Load(
        name, clients, BATCH,
        lambda n: request("/v1/batch", {"changes": [{"add": definition(each)} for each in many(n)]}), transaction,
    )  # fmt: skip


LOADS = [
    adds("adds, one client", 1),
    adds(f"adds, {MANY} clients", MANY),
    batches("adds in batches, one client", 1),
    batches("adds in batches, four clients", 4),
    Load(f"records, {MANY} clients", MANY, 1, lambda _: request("/v1/record", {"satisfied": 3, "violations": 1}), None),
    Load(
        f"records, {MANY} clients with 10 at once", MANY, 10,
        lambda n: request("/v1/batch", {"changes": [{"record": {"satisfied": n + each}} for each in range(10)]}), None,
    ),
]  # fmt: skip

BARS: dict[str, tuple[float, float]] = {
    "adds, one client": (800, 1.0),
    f"adds, {MANY} clients": (3_000, 1.0),
    "adds in batches, four clients": (20_000, 2.0),
    f"records, {MANY} clients with 10 at once": (10_000, 0.0),
}
"""Writes per second at least, and the multiple of the rate of etcd."""
MOST_P99 = 0.03
"""Seconds, of the adds of many clients."""


class Client(asyncio.Protocol):
    """A connection that sends the next request when the last is answered, without pause."""

    def __init__(self, requests: Iterator[bytes], until: float, times: list[float], done: "asyncio.Future[None]") -> None:
        self._requests = requests
        self._until = until
        self._times = times
        self._done = done
        self._answer = b""
        self._sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def _send(self) -> None:
        if time.perf_counter() >= self._until:
            self._transport.close()
            self._done.set_result(None)
            return
        data = next(self._requests)
        self._sent = time.perf_counter()
        self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head = self._answer.find(b"\r\n\r\n")
        if head < 0:
            return
        length = LENGTH.search(self._answer, 0, head + 2)
        if length is None and CHUNKED.search(self._answer, 0, head + 2):
            if not self._answer.endswith(b"\r\n0\r\n\r\n"):
                return
        elif length is None or len(self._answer) < head + 4 + int(length[1]):
            return
        if self._answer[9:10] != b"2":
            self._done.set_exception(RuntimeError(self._answer.decode(errors="replace")))
            return
        self._times.append(time.perf_counter() - self._sent)
        self._answer = b""
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(ConnectionError(f"the server closed the connection: {exc}"))


async def load(server: Served, kind: Load, make: Callable[[int], bytes], first: int, seconds: float) -> Outcome:
    """Run a load. The requests are made before, as many as could be needed; `first`: the number of the first."""
    times: list[float] = []
    prepared = [make(first + number) for number in range(int(seconds * (60 if kind.writes == BATCH else 8_000)))]
    requests = iter(prepared)
    loop = asyncio.get_running_loop()
    before, began = server.cpu, time.perf_counter()
    ends = [loop.create_future() for _ in range(kind.clients)]
    for end in ends:
        client = partial(Client, requests, began + seconds, times, end)
        await loop.create_connection(client, "127.0.0.1", server.port)
    await asyncio.gather(*ends)
    took = time.perf_counter() - began
    writes = len(times) * kind.writes
    times.sort()
    return Outcome(writes / took, times[len(times) // 2], times[len(times) * 99 // 100], (server.cpu - before) / writes)


# --- the servers ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def node(directory: Path) -> Iterator[Served]:
    """A node without peers, with its store in this directory."""
    command = [sys.executable, "-m", "constraint_crdt", "node", "--name", "forge", "--fleet", f"bench-{secrets.token_hex(4)}"]
    command += ["--api", "127.0.0.1:0", "--listen", "tcp/127.0.0.1:0", "--store", str(directory / "forge.db"), "--while-stdin-open"]
    settings = {**os.environ, "CONSTRAINT_CRDT_API_RATE": "1000000"}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=settings)
    assert process.stderr is not None
    found = next(found for line in process.stderr if (found := READY.search(line)))
    threading.Thread(target=process.stderr.read, daemon=True).start()  # or its log would fill the pipe
    try:
        yield Served(psutil.Process(process.pid), int(found["api"].rpartition(":")[2]))
    finally:
        process.terminate()
        process.wait(20)


def free_port() -> int:
    """A port that nothing uses now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def etcd(directory: Path) -> Iterator[Served]:
    """An etcd of one member, with its data in this directory."""
    port, peers = free_port(), free_port()
    urls = [f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peers}"]
    command = ["etcd", "--data-dir", str(directory / "etcd"), "--max-txn-ops", str(BATCH), "--quota-backend-bytes", str(4 << 30)]
    command += ["--listen-client-urls", urls[0], "--advertise-client-urls", urls[0], "--listen-peer-urls", urls[1]]
    command += ["--initial-advertise-peer-urls", urls[1], "--initial-cluster", f"default={urls[1]}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{urls[0]}/health") as answer:
                if b"true" in answer.read():
                    break
            time.sleep(ETCD_PAUSE)
        yield Served(psutil.Process(process.pid), port)
    finally:
        process.terminate()
        process.wait(20)


# --- the table --------------------------------------------------------------------------------------------------------------


def measured(base: Path, seconds: float, repeats: int, *, with_etcd: bool) -> dict[str, tuple[list[Outcome], list[Outcome]]]:
    """The outcomes by load, of the node and of etcd, in turns."""
    found: dict[str, tuple[list[Outcome], list[Outcome]]] = {kind.name: ([], []) for kind in LOADS}
    with contextlib.ExitStack() as servers:
        ours = servers.enter_context(node(base))
        theirs = servers.enter_context(etcd(base)) if with_etcd else None
        firsts = itertools.count(0, 1_000_000)
        for _ in range(repeats):
            for kind in LOADS:
                first = next(firsts) // kind.writes
                found[kind.name][0].append(asyncio.run(load(ours, kind, kind.ours, first, seconds)))
                if theirs is not None and kind.etcd is not None:
                    found[kind.name][1].append(asyncio.run(load(theirs, kind, kind.etcd, first, seconds)))
    return found


def median(outcomes: list[Outcome]) -> Outcome:
    """The medians."""
    return Outcome(*(statistics.median(each) for each in zip(*outcomes, strict=True)))


def rows(found: dict[str, tuple[list[Outcome], list[Outcome]]]) -> list[Row]:
    """The table. Bars of rates are stated as the time of a write, so that less is better."""
    table = []
    for name, (ours, theirs) in found.items():
        one, bar = median(ours), BARS.get(name)
        p99 = MOST_P99 * 1e3 if name == f"adds, {MANY} clients" else None
        note = f"{one.rate:,.0f} writes/s"
        table.append(Row(f"{name}: a write", 1e6 / one.rate, "µs", None if bar is None else 1e6 / bar[0], note=note))
        table.append(Row(f"{name}: CPU of the node per write", one.cpu * 1e6, "µs"))
        table.append(Row(f"{name}: a request, p99", one.p99 * 1e3, "ms", p99, note=f"p50 {one.p50 * 1e3:.2f} ms"))
        if theirs:
            other = median(theirs)
            ratio = statistics.median(them.rate / us.rate for us, them in zip(ours, theirs, strict=True))
            table.append(Row(f"{name}: etcd, a write", 1e6 / other.rate, "µs", note=f"{other.rate:,.0f} writes/s"))
            table.append(Row(f"{name}: etcd, CPU per write", other.cpu * 1e6, "µs"))
            table.append(Row(f"{name}: time of a write / that of etcd", ratio, "x", None if bar is None else 1 / bar[1]))
    return table


def main() -> None:
    """See the docstring of the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each load in each repeat")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--directory", type=Path, help="where to make the stores (default: the temporary directory)")
    parser.add_argument("--without-etcd", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true", help="exit code 1 if something demanded is missed")
    arguments = parser.parse_args()
    with_etcd = not arguments.without_etcd
    if with_etcd and shutil.which("etcd") is None:
        parser.error("there is no etcd (Debian: etcd-server): install it, or give --without-etcd")
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        found = measured(Path(directory), arguments.seconds, arguments.repeats, with_etcd=with_etcd)
    table = rows(found)
    show(machine(), table, as_json=arguments.json)
    if arguments.check and not all(row.met for row in table):
        sys.exit(1)


if __name__ == "__main__":
    main()
