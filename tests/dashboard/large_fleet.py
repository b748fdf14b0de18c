"""A fleet of any size as one node sees it: what the dashboard is measured and pictured with.

One real node, serving its API and the dashboard. What 499 others would have written is written into its state in their names,
and they count as live, with evidence of what they hold; so everything that the page asks for is answered by the node's own code.

    python -m tests.dashboard.large_fleet --nodes 500 --constraints 10000 --events 10

prints `ready URL` once it serves, and runs until stdin ends.
"""

import argparse
import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count, cycle, islice
from pathlib import Path
from random import Random
from time import time_ns

from constraint_crdt import MemoryNetwork, Node, NodeSettings
from constraint_crdt.crdt.clock import Replica
from constraint_crdt.dashboard import dashboard_pages
from constraint_crdt.http.server import ApiServer
from constraint_crdt.model import VerdictState
from constraint_crdt.protocol.peers import Peer
from constraint_crdt.state import ConstraintState
from constraint_crdt.types.verdicts import NodeVerdict

SMALL = ("forge", "anvil", "bellows", "hammer", "tongs")
KINDS = ("press", "arm", "cart", "oven", "camera", "belt")
RULES = (
    ("speed", "speed_mps <= 1.5", "critical", "people walk here"),
    ("joint_temp", "joint_temp_c < 70.0", "warning", None),
    ("battery", "battery_percent > 15.0", "warning", "enough to reach the dock"),
    ("latency", "control_latency_ms < 20.0", "critical", None),
    ("memory", "memory_percent < 90.0", "warning", "leave room for the planner"),
    ("clearance", "clearance_m >= 0.4 && speed_mps < 2.0", "critical", "keep clear of the fence"),
    ("vibration", "vibration_mm_s <= 4.5", "info", None),
)
MEASURED = {
    "battery_percent": 60.0, "clearance_m": 1.0, "joint_temp_c": 41.0, "control_latency_ms": 6.0, "memory_percent": 40.0,
    "vibration_mm_s": 1.5,
}  # fmt: skip
SECOND = 1_000_000_000
Counted = dict[str | None, tuple[int, int]]
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Size:
    """How large a fleet, and how it is placed."""

    nodes: int = 5
    constraints: int = 6
    positions: bool = True
    cut_off: int = 1
    """How many of the nodes do not answer."""


def names(count: int) -> list[str]:
    """Of the nodes; the first is the one that serves."""
    return list(SMALL[:count]) if count <= len(SMALL) else [f"{KINDS[i % len(KINDS)]}-{i:03}" for i in range(count)]


def ids(count: int) -> list[tuple[str, tuple[str, str, str, str | None]]]:
    """Of the constraints, each with its rule."""
    if count <= len(RULES):
        return [(f"max_{rule[0]}" if rule[0] == "speed" else rule[0], rule) for rule in RULES[:count]]
    return [(f"cell-{i // len(RULES):04}/{rule[0]}", rule) for i, rule in enumerate(islice(cycle(RULES), count))]


def spiral(count: int) -> list[tuple[int, int]]:
    """So many lattice points around the origin, ring by ring."""
    found, turns = [(0, 0)], ((0, 1), (-1, 0), (-1, -1), (0, -1), (1, 0), (1, 1))
    ring = 0
    while len(found) < count:
        ring += 1
        a, b = ring, 0
        for da, db in turns:
            for _ in range(ring):
                found.append((a, b))
                a, b = a + da, b + db
    return found[:count]


def populate(node: Node, size: Size, random: Random) -> None:
    """Write what the others would have written."""
    state, everyone = node.gossip.state, names(size.nodes)
    writers = {name: Replica(name, 1) for name in everyone[1:]} | {everyone[0]: node.gossip.replica}
    now = time_ns()
    for index, (id_, (_, when, severity, about)) in enumerate(ids(size.constraints)):
        adder = everyone[index % len(everyone)] if index % 3 else everyone[0]
        at = now - (index % 997 + 3) * 61 * SECOND
        if adder == everyone[0]:
            node.gossip.add_constraint(id_, when=when, severity=severity, about=about, at=at)
        else:
            state.constraints.add(id_, node=writers[adder], when=when, severity=severity, about=about, at=at)
    if size.constraints <= len(RULES):
        node._runtime.feed.elapse(set())
    else:
        node._runtime.feed.restore()
    counted: dict[str, Counted] = {name: {} for name in everyone}
    since: dict[str, Counted] = {name: {} for name in everyone}
    verdicts: dict[str, dict[str, NodeVerdict | None]] = {name: {} for name in everyone}
    for index, (id_, rule) in enumerate(ids(size.constraints)):
        troubled = index % 41 == 3 if size.constraints > len(RULES) else index in (0, 2)
        over = index % 82 == 44 or index == 0
        evaluating = everyone if len(everyone) <= len(SMALL) else random.sample(everyone, 4)
        for place, name in enumerate(evaluating):
            satisfied = random.randint(40, 90)
            violated = random.randint(5, 40) if troubled and place in (1, 4 - over) else 0
            counted[name][id_] = (satisfied, violated)
            since[name][id_] = (0, 3) if violated and not over else (random.randint(1, 9), 0)
            if violated and not over:
                verdicts[name][id_] = violation(rule[1], now - random.randint(20, 4000) * SECOND, random)
    spots = dict(zip(everyone, spiral(size.nodes), strict=True))
    for name in everyone:
        write = partial(_write, state, counted[name], since[name], verdicts[name], spots[name] if size.positions else None)
        if name == everyone[0]:
            node.gossip.write(write)
        else:
            state.describe("0.1.0", 5, ("tcp/10.0.0.7:7447",), {"kind": name.partition("-")[0]}, node=writers[name])
            write(writers[name])
    see(node, everyone[1:], size.cut_off)


def violation(when: str, since: int, random: Random) -> NodeVerdict:
    """A violated state of a rule, with values as beyond its limit."""
    variable, compared, limit = when.split(" ")[:3]
    threshold = float(limit)
    beyond = round(threshold * random.uniform(0.02, 0.6) + 0.1, 1)
    value = threshold + beyond if "<" in compared else threshold - beyond
    share = -beyond / threshold
    return NodeVerdict(VerdictState.VIOLATED, since, ((variable, f"{value:.1f}"),), -beyond, share, variable)


def _write(
    state: ConstraintState,
    counted: Counted,
    since: Counted,
    verdicts: dict[str, NodeVerdict | None],
    spot: tuple[int, int] | None,
    me: Replica,
) -> None:
    state.verdicts.put_all(verdicts, node=me)
    for counts in (counted, since):
        state.metrics.record_all(me, counts)
        state.rates.record_all(me, counts)
    if spot is not None:
        state.register.update(spot, node=me, time=time_ns())


def see(node: Node, others: list[str], cut_off: int) -> None:
    """Make the others live, but for the last few of them, and have them show what they have."""
    live = others[: len(others) - cut_off]
    for name in live:
        node.gossip.tracker.admit(Peer(Replica(name, 1)))
    node._runtime.exchanges._live = set(live)
    acknowledge(node)


def acknowledge(node: Node) -> None:
    """The live ones show that they have what is known here; one in forty lacks what this node wrote last."""
    gossip, rows = node.gossip, node.gossip.state.rows
    mark = rows.clock_mark
    older = {replica: seq - (replica == gossip.replica) for replica, seq in mark.entries.items()}
    lacking = type(mark).of(older, rows.digest)
    for index, name in enumerate(sorted(node._runtime.exchanges.live)):
        peer = gossip.tracker.peer(name)
        assert peer is not None
        if index % 40 == 2:
            gossip.tracker.evidence(peer, lacking, None)
        else:
            gossip.tracker.evidence(peer, mark, gossip.state_hash)


@asynccontextmanager
async def serving(size: Size, port: int = 0) -> AsyncIterator[tuple[Node, ApiServer]]:
    """The node of such a fleet, and its API with the dashboard."""
    settings = NodeSettings(name=names(size.nodes)[0], discover=False, max_age=3600.0)
    async with Node(settings=settings, transport=MemoryNetwork().transport()) as node:
        populate(node, size, Random(7))
        if size.constraints <= len(RULES):
            for speed in (1.2, 1.9, 1.1):  # something to tell of
                await node.measure({**MEASURED, "speed_mps": speed})
                await node.verdict_history.sample()
            acknowledge(node)
        async with ApiServer(node, port=port, pages=dashboard_pages()) as api:
            yield node, api


async def stir(node: Node, size: Size, per_second: float) -> None:
    """Have things happen: so many constraints a second are added or removed, and each time an evaluation of another comes in."""
    random, every = Random(11), names(size.nodes)
    state, known = node.gossip.state, [id_ for id_, _ in ids(size.constraints)]
    clock = asyncio.get_running_loop().time
    due = clock()
    for round_ in count():
        due += 1 / per_second
        await asyncio.sleep(max(0.0, due - clock()))
        if round_ % 2 == 0:
            await node.add_constraint(f"stirred/{round_:06}", when=f"speed_mps <= {round_ % 9 + 1}.0", severity="warning")
        elif round_ > 20:
            await node.remove_constraint(f"stirred/{round_ - 21:06}")
        counts: Counted = {random.choice(known): (random.randint(0, 9), random.randint(1, 9))}
        for counter in (state.metrics, state.rates):
            counter.record_all(Replica(random.choice(every[1:]), 1), counts)
        acknowledge(node)


@contextmanager
def large_fleet(size: Size, events: float = 0.0) -> Iterator[str]:
    """Such a fleet in a process of its own; gives the address of its dashboard. `events`: how many a second."""
    command = [sys.executable, "-m", "tests.dashboard.large_fleet", "--nodes", size.nodes, "--constraints", size.constraints]
    flags = ["--events", events] if events else []
    flags += [] if size.positions else ["--without-positions"]
    process = subprocess.Popen(
        [str(part) for part in (*command, *flags)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        assert process.stdout is not None
        ready = process.stdout.readline().split()
        if len(ready) != 2:
            raise RuntimeError("the large fleet did not start: what it wrote above says why")
        yield ready[1]
    finally:
        process.communicate()  # closes its stdin, and so ends it


async def _main() -> None:
    parser = argparse.ArgumentParser(description="Serve the dashboard of a large fleet.")
    parser.add_argument("--nodes", type=int, default=500)
    parser.add_argument("--constraints", type=int, default=10_000)
    parser.add_argument("--events", type=float, default=0.0, help="events a second")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--without-positions", action="store_true")
    given = parser.parse_args()
    size = Size(given.nodes, given.constraints, not given.without_positions, max(1, given.nodes // 60))
    async with serving(size, given.port) as (node, api):
        print(f"ready {api.url}", flush=True)  # noqa: T201 - whoever started this waits for it
        stirring = asyncio.create_task(stir(node, size, given.events)) if given.events else None
        await asyncio.to_thread(sys.stdin.read)
        if stirring is not None:
            stirring.cancel()


if __name__ == "__main__":
    asyncio.run(_main())
