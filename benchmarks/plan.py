"""A plan against a fleet of real processes on this machine: bytes, times and memory, measured and planned.

    python benchmarks/plan.py [--nodes 20] [--routers 0] [--constraints 50] [--changes 20] [--rest 20] [--json] [--check]

Starts node processes on loopback and reads the counters of their TCP sockets (`ss`, Linux only): bytes with the headers of all
segments, of the nodes without the routers. Times are those of the events on the nodes, on one clock. Memory is the private memory
of a process. On a busy machine bytes and memory still hold; CPU and times do not. Must: within 30 %, either way.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from report import machine

from constraint_crdt.simulation.plan import HEADER_BYTES, Plan, PlannedFleet, make_plan

START_SECONDS, AGREE_SECONDS = 120.0, 180.0
STARTED_AT_ONCE = 4
LOOPBACK_DELAY = 0.00005
WITHIN = 0.3
TRUSTED = frozenset({"rest_bytes", "change_bytes", "router_bytes", "memory"})
"""The figures that a busy machine does not change."""

_READY = re.compile(r" ready name=.* api=(?P<api>\S+) endpoints=(?P<endpoints>\S*)$")


class NodeProcess:
    """A `constraint-crdt node` process. Its log goes to a file."""

    def __init__(self, name: str, fleet: str, folder: Path, settings: dict[str, str], *flags: str) -> None:
        self.name = name
        self.api = self.endpoint = ""
        self._log = folder / f"{name}.log"
        environment = {key: value for key, value in os.environ.items() if not key.startswith("CONSTRAINT_CRDT_")} | settings
        command = [sys.executable, "-m", "constraint_crdt", "node", "--name", name, "--fleet", fleet, "--api", "127.0.0.1:0"]
        command += ["--probe", "none", "--store", "memory", *flags]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, stderr=log, stdout=subprocess.DEVNULL, env=environment)

    def ready(self) -> None:
        """Wait until the node has started."""
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            for line in self._log.read_text(errors="replace").splitlines():
                if found := _READY.search(line):
                    self.api, self.endpoint = found["api"], found["endpoints"].split(",")[0]
                    return
            time.sleep(0.05)
        sys.exit(f"{self.name} did not start: {self._log.read_text(errors='replace')}")

    def get(self, path: str) -> Any:
        """What the API answers below /v1."""
        with urllib.request.urlopen(f"{self.api}/v1/{path}", timeout=60) as answer:
            return json.load(answer)

    def add(self, id_: str, when: str) -> None:
        """Add a constraint, or replace its definition."""
        body = json.dumps({"id": id_, "when": when}).encode()
        request = urllib.request.Request(f"{self.api}/v1/constraints", body, {"content-type": "application/json"})
        urllib.request.urlopen(request, timeout=60).close()

    @property
    def memory(self) -> int:
        """Private bytes."""
        lines = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))

    @property
    def cpu(self) -> float:
        """Seconds of CPU so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def processes(count: int, routers: int, settings: dict[str, str]) -> Iterator[tuple[list[NodeProcess], Callable[[], NodeProcess]]]:
    """The nodes of a fleet, the routers first, and a function that starts another. They are gone when the block ends."""
    fleet, started = f"plan-{os.getpid():07d}", list[NodeProcess]()
    with tempfile.TemporaryDirectory() as folder:

        def start(*flags: str) -> NodeProcess:
            started.append(NodeProcess(f"node-{len(started):04d}", fleet, Path(folder), settings, *flags))
            return started[-1]

        def another() -> NodeProcess:
            if not routers:
                return start("--connect", started[0].endpoint)
            return start("--role", "client", "--connect", started[len(started) % routers].endpoint)

        try:
            for _ in range(routers or 1):
                seeds = [flag for router in started for flag in ("--connect", router.endpoint)]
                start(*(["--role", "router"] if routers else []), *seeds).ready()
            while len(started) < count:
                for node in [another() for _ in range(min(STARTED_AT_ONCE, count - len(started)))]:
                    node.ready()
            yield started, another
        finally:
            for node in started:
                node.process.kill()
            for node in started:
                node.process.wait()


def until(holds: Callable[[], bool], what: str) -> None:
    """Wait for a condition."""
    end = time.monotonic() + AGREE_SECONDS
    while not holds():
        if time.monotonic() > end:
            sys.exit(f"not within {AGREE_SECONDS:g} s: {what}")
        time.sleep(0.5)


def agree(nodes: Sequence[NodeProcess], constraints: int) -> None:
    """Wait until all nodes know each other and have the same state."""

    def agreed() -> bool:
        first = nodes[0].get("status")
        if first["known"] < len(nodes) or first["constraints"] < constraints:
            return False
        return all(node.get("status")["hash"] == first["hash"] for node in nodes)

    until(agreed, "all nodes agree")


def sent_bytes(nodes: Collection[NodeProcess]) -> int:
    """Bytes that processes sent to other nodes so far, with headers and acknowledgements."""
    pids, apis = {node.process.pid for node in nodes}, {int(node.api.rpartition(":")[2]) for node in nodes}
    lines = subprocess.run(["ss", "-tinpH", "state", "established"], capture_output=True, text=True, check=True).stdout.splitlines()
    total = 0
    for head, counters in zip(lines[::2], lines[1::2], strict=True):
        pid, ports = re.search(r"pid=(\d+)", head), {int(port) for port in re.findall(r":(\d+)\s", head)}
        if pid is None or int(pid[1]) not in pids or ports & apis:
            continue
        for counter, size in ("bytes_sent", 1), ("segs_out", HEADER_BYTES):
            found = re.search(rf"(?<!\w){counter}:(\d+)", counters)
            total += size * int(found[1]) if found else 0
    return total


@dataclass(frozen=True, slots=True)
class Compared:
    """A figure of a plan, and what was measured."""

    key: str
    what: str
    unit: str
    planned: float
    measured: float

    @property
    def ratio(self) -> float:
        """Measured over planned."""
        return self.measured / self.planned if self.planned else 0.0

    @property
    def holds(self) -> bool:
        """Within the bound, either way."""
        return 1 / (1 + WITHIN) <= self.ratio <= 1 + WITHIN


def measure(args: argparse.Namespace) -> dict[str, float]:
    """The figures of a fleet of processes, by the keys of a plan."""
    settings = {"CONSTRAINT_CRDT_GOSSIP_EVERY": f"{args.gossip_every:g}"}
    with processes(args.nodes, args.routers, settings) as (nodes, another):
        plain, routers = nodes[args.routers :], nodes[: args.routers]
        for number in range(args.constraints):
            nodes[number % min(5, len(nodes))].add(f"constraint-{number:05d}", f"variable_{number % 50} <= {number}.5")
        agree(nodes, args.constraints)
        time.sleep(5)
        figures = _at_rest(plain, routers, args.rest)
        figures |= _with_changes(nodes, plain, args, figures["rest_bytes"])
        figures["memory"] = median(node.memory for node in plain)
        blank = another()
        blank.ready()
        began = time.monotonic()
        until_known(lambda: blank.get("status")["constraints"] >= args.constraints)
        figures["blank"] = time.monotonic() - began
        return figures


def until_known(holds: Callable[[], bool]) -> None:
    """Wait for a condition that comes soon."""
    end = time.monotonic() + AGREE_SECONDS
    while not holds() and time.monotonic() < end:
        time.sleep(0.01)


def _at_rest(plain: Sequence[NodeProcess], routers: Sequence[NodeProcess], seconds: float) -> dict[str, float]:
    began = time.monotonic()
    before, passed = sent_bytes(plain), sent_bytes(routers) if routers else 0
    time.sleep(seconds)
    lasted = time.monotonic() - began
    figures = {"rest_bytes": (sent_bytes(plain) - before) / lasted / len(plain)}
    if routers:
        figures["router_bytes"] = (sent_bytes(routers) - passed) / lasted / len(routers)
    return figures


def _with_changes(
    nodes: Sequence[NodeProcess], plain: Sequence[NodeProcess], args: argparse.Namespace, rest: float
) -> dict[str, float]:
    """Changes one after the other: bytes of each, and when nodes heard of it."""
    each, all_known = list[float](), list[float]()
    began, before, cpu = time.monotonic(), sent_bytes(plain), sum(node.cpu for node in plain)
    made = []
    for number in range(args.changes):
        id_, when = f"constraint-{number % args.constraints:05d}", f"variable_{number % 50} <= {number}.25"
        nodes[number % len(nodes)].add(id_, when)
        made.append((nodes[number % len(nodes)], when))
        time.sleep(args.pause)
    time.sleep(args.pause)
    sent, lasted = sent_bytes(plain) - before, time.monotonic() - began
    cpu = sum(node.cpu for node in plain) - cpu
    agree(nodes, args.constraints)
    heard = {node.name: _heard(node, args.changes) for node in nodes}
    for writer, when in made:
        wrote = heard[writer.name][when]
        known = sorted((heard[node.name][when] - wrote) / 1e9 for node in nodes)
        each += known
        all_known.append(known[-1])
    each.sort()
    all_known.sort()
    return {
        "cpu": 100 * cpu / lasted / len(plain),
        "change_bytes": (sent / len(plain) - rest * lasted) / args.changes,
        "node_p50": each[len(each) // 2],
        "all_p50": all_known[len(all_known) // 2],
        "all_p99": all_known[-1],
    }


def _heard(node: NodeProcess, changes: int) -> dict[str, int]:
    """When a node heard of each of the last definitions, in ns since the epoch."""
    with urllib.request.urlopen(f"{node.api}/v1/events?last={10 * changes + 100}&follow=0", timeout=60) as answer:
        text = answer.read().decode()
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    return {event["detail"].rpartition(" -> ")[2]: event["time"] for event in events if event.get("detail")}


def plan(args: argparse.Namespace) -> Plan:
    """The plan of the same fleet."""
    return make_plan(
        PlannedFleet(
            nodes=args.nodes,
            constraints=args.constraints,
            changes=1 / args.pause,
            delay=LOOPBACK_DELAY,
            gossip_every=args.gossip_every,
            routers=args.routers,
            cores=os.cpu_count(),
        ),
        time.process_time,
    )


def main() -> int:
    """Run, print; 1 if `--check` was given and a figure that a busy machine does not change is off by more than the bound."""
    parser = argparse.ArgumentParser(description="A plan against a fleet of real processes on this machine.")
    parser.add_argument("--nodes", type=int, default=20, metavar="N", help="processes (20)")
    parser.add_argument("--routers", type=int, default=0, metavar="N", help="of them routers (0: a full mesh)")
    parser.add_argument("--constraints", type=int, default=50, metavar="N", help="constraints of the fleet (50)")
    parser.add_argument("--changes", type=int, default=20, metavar="N", help="changes to follow (20)")
    parser.add_argument("--pause", type=float, default=1.0, metavar="S", help="seconds between two changes (1)")
    parser.add_argument("--rest", type=float, default=20.0, metavar="S", help="seconds at rest (20)")
    parser.add_argument("--gossip-every", type=float, default=0.2, metavar="S", help="time between rounds (0.2)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--check", action="store_true", help="exit with 1 if bytes or memory are off by more than 30 %%")
    args = parser.parse_args()
    heading, measured, planned = machine(), measure(args), plan(args)
    rows = [
        Compared(each.key, each.what, each.unit, each.value, measured[each.key]) for each in planned.figures if each.key in measured
    ]
    if args.json:
        json.dump({"machine": heading, "rows": [{**asdict(row), "ratio": row.ratio} for row in rows]}, sys.stdout, indent=2)
        print()
    else:
        print(heading)
        print(f"{args.nodes} processes, {args.routers} of them routers; load of the machine: {os.getloadavg()[0]:.1f}")
        for row in rows:
            print(f"{row.what:<45} planned {row.planned:>13,.3f} measured {row.measured:>13,.3f} {row.unit:<4} {row.ratio:.2f}")
    return int(args.check and not all(row.holds for row in rows if row.key in TRUSTED))


if __name__ == "__main__":
    sys.exit(main())
