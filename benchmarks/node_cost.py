"""What a node costs at rest and at its start: processes of the command line in a network namespace, with default settings.

    python benchmarks/node_cost.py [--nodes 1 5 20 50] [--rest 15] [--json] [--check]

All nodes of a fleet start at once; each knows the first. CPU is that of all threads of a process, as the scheduler counts it (in
ns), so a busy machine changes it little; times until nodes are ready are by the wall clock. Bytes are those of the loopback
interface of the namespace: headers, acknowledgements and keep-alives are in them. Nothing asks the nodes while they rest. It needs
root or user namespaces.
"""

import argparse
import fcntl
import json
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from report import Row, machine, show

SEED_PORT = 7447
READY_SECONDS = 300.0
WRITES = 7
SETTLED = 10.0
"""Seconds at rest before the measurement, and as many more for each node: clocks of peers are heard in turn."""
SETTLED_PER_NODE = 0.8
INSIDE = "CONSTRAINT_CRDT_BENCHMARK_NAMESPACE"
READY = re.compile(r" ready name=.* api=(?P<api>\S+) ")


class NodeProcess:
    """A node, and what the system knows of its process."""

    def __init__(self, number: int, folder: Path) -> None:
        seed = f"tcp/127.0.0.1:{SEED_PORT}"
        flags = ["--name", f"n{number}", "--fleet", "cost", "--api", "127.0.0.1:0", "--store", str(folder / f"{number}.db")]
        flags += ["--listen", f"tcp/127.0.0.1:{SEED_PORT + number}", *(["--connect", seed] if number else [])]
        command = [sys.executable, "-m", "constraint_crdt", "node", *flags]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.api = ""
        self.ready_cpu = 0.0
        self._ready = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            found = READY.search(line)
            if found:
                self.ready_cpu, self.api = self.cpu, found["api"]
                self._ready.set()
        self._ready.set()

    def wait(self) -> None:
        """Wait until the node serves."""
        if not self._ready.wait(READY_SECONDS) or not self.api:
            sys.exit("a node did not start")

    @property
    def cpu(self) -> float:
        """Seconds of all threads that run."""
        total = 0.0
        for thread in Path(f"/proc/{self.process.pid}/task").iterdir():
            try:
                total += int((thread / "schedstat").read_text().split()[0]) / 1e9
            except FileNotFoundError:
                continue
        return total

    @property
    def memory(self) -> float:
        """Resident MiB."""
        found = re.search(r"^VmRSS:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text(), re.MULTILINE)
        assert found is not None
        return int(found[1]) / 1024

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """The answer of the API below /v1."""
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.api}/v1/{path}", content, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)


def loopback_bytes() -> int:
    """Bytes that passed the loopback interface."""
    [line] = [each for each in Path("/proc/net/dev").read_text().splitlines() if each.strip().startswith("lo:")]
    return int(line.split(":")[1].split()[0])


def seconds_until(holds: Callable[[], bool], pause: float) -> float:
    """Seconds until `holds` is true."""
    begun = time.monotonic()
    while not holds():
        if time.monotonic() - begun > READY_SECONDS:
            sys.exit("it takes too long")
        time.sleep(pause)
    return time.monotonic() - begun


def visible(nodes: Sequence[NodeProcess], number: int) -> float:
    """Seconds from a write until every node has it."""
    id_ = f"written-{number}"
    left, begun = list(nodes), time.monotonic()
    nodes[number % len(nodes)].ask("POST", "batch", {"changes": [{"add": {"id": id_}}]})

    def is_everywhere() -> bool:
        while left and any(each["id"] == id_ for each in left[-1].ask("GET", "constraints")):
            left.pop()
        return not left

    seconds_until(is_everywhere, 0.001)
    return time.monotonic() - begun


def measure(count: int, rest: float, folder: Path) -> list[Row]:
    """The rows of a fleet of so many nodes."""
    of = f"{count} nodes" if count > 1 else "1 node"
    begun, nodes = time.monotonic(), list[NodeProcess]()
    try:
        for number in range(count):
            nodes.append(NodeProcess(number, folder))
        for node in nodes:
            node.wait()
        serving = time.monotonic() - begun
        waiting = list(nodes)

        def are_linked() -> bool:
            while waiting and waiting[-1].ask("GET", "status")["peers"] == count - 1:
                waiting.pop()
            return not waiting

        seconds_until(are_linked, 0.1)
        linked, joined = time.monotonic() - begun, sum(node.cpu for node in nodes) / count
        time.sleep(SETTLED + SETTLED_PER_NODE * count)
        before, sent = [node.cpu for node in nodes], loopback_bytes()
        time.sleep(rest)
        used = [100 * (node.cpu - cpu) / rest for node, cpu in zip(nodes, before, strict=True)]
        sent = loopback_bytes() - sent
        memory = median(node.memory for node in nodes)
        writes = [visible(nodes, number) for number in range(WRITES)] if count > 1 else []
    finally:
        for node in nodes:
            node.process.terminate()
        for node in nodes:
            node.process.wait()
    rows = [
        Row(f"{of}: CPU until a node serves", median(node.ready_cpu for node in nodes), "s", must=0.25),
        Row(f"{of}: all serve after", serving, "s"),
        Row(f"{of}: at rest", sum(used) / count, "% of a core", must=0.3 if count == 1 else 0.5, note=f"most: {max(used):.2f}"),
        Row(f"{of}: memory", memory, "MiB", must=45),
    ]
    if count > 1:
        rows += [
            Row(f"{of}: all see each other after", linked, "s", must={5: 1.0, 50: 15.0}.get(count)),
            Row(f"{of}: CPU of a node until then", joined, "s"),
            Row(f"{of}: sent at rest by a node", sent / rest / count, "bytes/s", must=800),
            Row(f"{of}: a write is everywhere after, p50", median(writes), "s", must=0.4),
        ]
    return rows


def enter_namespace() -> None:
    """Run again in a network namespace, if not in one; there, bring its loopback interface up."""
    if os.environ.get(INSIDE) != "1":
        flags = ["--net"] if os.geteuid() == 0 else ["--net", "--map-root-user"]
        os.execvpe("unshare", ["unshare", *flags, sys.executable, *sys.argv], {**os.environ, INSIDE: "1"})
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        up_and_running = 0x41
        fcntl.ioctl(control, 0x8914, struct.pack("16sh14x", b"lo", up_and_running))  # SIOCSIFFLAGS


def main() -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 5, 20, 50])
    parser.add_argument("--rest", type=float, default=15.0, metavar="S", help="seconds at rest (15)")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    enter_namespace()
    heading, rows = machine(), list[Row]()
    for count in args.nodes:
        with tempfile.TemporaryDirectory() as folder:
            rows += measure(count, args.rest, Path(folder))
    show(heading, rows, as_json=args.json)
    return int(args.check and not all(row.met for row in rows))


if __name__ == "__main__":
    sys.exit(main())
