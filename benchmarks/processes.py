"""A fleet of node processes on this machine: until all agree, a write, a router that is killed, and the cost of rest.

    python benchmarks/processes.py [--nodes 200] [--routers 3] [--sites 1] [--changes 20] [--rest 60] [--at-once 8] [--check]

Each node is a `constraint-crdt node` with default settings and a store in memory; all but the routers are clients of two routers.
Bytes are those of the TCP sockets with headers (`ss`, Linux only). Times of a write are those of the events on the nodes, on one
clock. With sites the bytes that nodes send to other sites are their own messages, without headers; they are compared with another
run with one site. Start-up is bound by the CPU: a node takes some tenths of a second, on the cores that all share.
"""

import argparse
import json
import os
import re
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from plan import NodeProcess, agree, sent_bytes, until
from report import Row, machine, show

UP, EACH_P50, EACH_P99, AFTER_KILL, IDLE_CPU, IDLE_BYTES = 60.0, 0.5, 2.0, 3.0, 0.4, 600.0
"""Seconds until all agree; until a write is on all nodes; after the end of a router; % of a core and bytes per second at rest."""


class ProcessFleet:
    """Node processes, the routers first."""

    def __init__(self, folder: Path, nodes: int, routers: int, sites: int) -> None:
        self.nodes: list[NodeProcess] = []
        self._folder, self._count, self._sites = folder, nodes, sites
        self._fleet = f"processes-{os.getpid():07d}"
        self._routers = routers

    def start(self, at_once: int) -> None:
        """Start all, so many at once."""
        for _ in range(self._routers):
            self._start("--role", "router", *self._connect(self.nodes)).ready()
        while len(self.nodes) < self._count:
            batch = [self._start("--role", "client", *self._connect(self._two())) for _ in range(min(at_once, self._left()))]
            for node in batch:
                node.ready()

    def close(self) -> None:
        """End all."""
        for node in self.nodes:
            node.process.kill()
        for node in self.nodes:
            node.process.wait()

    def _left(self) -> int:
        return self._count - len(self.nodes)

    def _two(self) -> list[NodeProcess]:
        first = len(self.nodes) % self._routers
        return [self.nodes[first], self.nodes[(first + 1) % self._routers]]

    def _connect(self, seeds: Sequence[NodeProcess]) -> list[str]:
        return [flag for seed in seeds for flag in ("--connect", seed.endpoint)]

    def _start(self, *flags: str) -> NodeProcess:
        number = len(self.nodes)
        site = ("--site", f"site-{number % self._sites:03d}") if self._sites > 1 else ()
        self.nodes.append(NodeProcess(f"node-{number:04d}", self._fleet, self._folder, {}, *flags, *site))
        return self.nodes[-1]


def written(nodes: Sequence[NodeProcess], changes: int, pause: float) -> list[float]:
    """Seconds until each of some writes was on each node, in order."""
    made = []
    for number in range(changes):
        when = f"variable <= {number}.25"
        nodes[number % len(nodes)].add(f"constraint-{number:05d}", when)
        made.append((nodes[number % len(nodes)], f"constraint-{number:05d}"))
        time.sleep(pause)
    agree(nodes, changes)
    heard = {node.name: heard_at(node, changes) for node in nodes}
    return sorted((heard[node.name][id_] - heard[writer.name][id_]) / 1e9 for writer, id_ in made for node in nodes)


def heard_at(node: NodeProcess, changes: int) -> dict[str, int]:
    """When a node heard of each constraint, in ns since the epoch."""
    with urllib.request.urlopen(f"{node.api}/v1/events?last={10 * changes + 1000}&follow=0", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    events = (json.loads(line[6:]) for line in lines if line.startswith("data: "))
    return {event["constraint"]: event["time"] for event in events if event.get("kind") == "added"}


def away(nodes: Sequence[NodeProcess]) -> float:
    """Bytes of messages sent to other sites so far."""
    total = 0.0
    for node in nodes:
        with urllib.request.urlopen(f"{node.api}/metrics", timeout=60) as answer:
            found = re.search(r"^constraint_crdt_sent_to_sites_bytes_total (\S+)", answer.read().decode(), re.MULTILINE)
        total += float(found[1]) if found else 0.0
    return total


def rows(args: argparse.Namespace) -> list[Row]:
    """Start a fleet, and measure."""
    what = f"{args.nodes} processes, {args.routers} routers" + (f", {args.sites} sites" if args.sites > 1 else "")
    found = []
    with tempfile.TemporaryDirectory() as folder:
        fleet, began = ProcessFleet(Path(folder), args.nodes, args.routers, args.sites), time.monotonic()
        try:
            fleet.start(args.at_once)
            ready = time.monotonic() - began
            agree(fleet.nodes, 0)
            up = time.monotonic() - began
            found.append(Row(f"{what}: all up and agreeing", up, "s", UP, note=f"all ready after {ready:.1f} s"))
            taken = written(fleet.nodes, args.changes, 1.0)
            found.append(Row(f"{what}: a write on another node, p50", taken[len(taken) // 2], "s", EACH_P50))
            found.append(Row(f"{what}: a write on another node, p99", taken[len(taken) * 99 // 100], "s", EACH_P99))
            time.sleep(10)
            cpu, between, sent = sum(node.cpu for node in fleet.nodes), away(fleet.nodes), sent_bytes(fleet.nodes)
            start = time.monotonic()
            time.sleep(args.rest)
            share = 1 / (time.monotonic() - start) / args.nodes
            found.append(Row(f"{what}: at rest, CPU", (sum(node.cpu for node in fleet.nodes) - cpu) * share * 100, "%", IDLE_CPU))
            found.append(Row(f"{what}: at rest, bytes", (sent_bytes(fleet.nodes) - sent) * share, "B/s", IDLE_BYTES))
            if args.sites > 1:
                found.append(Row(f"{what}: at rest, own bytes to other sites", (away(fleet.nodes) - between) * share, "B/s"))
            killed = fleet.nodes[args.routers - 1]
            killed.process.kill()
            rest = [node for node in fleet.nodes if node is not killed]
            start = time.monotonic()
            rest[-1].add("after the kill", "variable <= 1.0")
            until(lambda: all(node.get("status")["constraints"] == args.changes + 1 for node in rest), "all heard of the write")
            found.append(Row(f"{what}: a write on all after kill -9 of a router", time.monotonic() - start, "s", AFTER_KILL))
        finally:
            fleet.close()
    return found


def main() -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=200, metavar="N")
    parser.add_argument("--routers", type=int, default=3, metavar="N")
    parser.add_argument("--sites", type=int, default=1, metavar="N")
    parser.add_argument("--changes", type=int, default=20, metavar="N")
    parser.add_argument("--rest", type=float, default=60.0, metavar="S")
    parser.add_argument("--at-once", type=int, default=8, metavar="N", help="processes that start at the same time (8)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a bar is missed")
    args = parser.parse_args()
    found = rows(args)
    show(machine(), found, as_json=args.json)
    return int(args.check and not all(row.met for row in found))


if __name__ == "__main__":
    sys.exit(main())
