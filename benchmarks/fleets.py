"""A whole fleet in one process: nodes that know nothing of each other gossip in rounds until all of them know everything.

    python benchmarks/fleets.py [--quick] [--seeds 3] [--json] [--check]

In each round every node begins one exchange, one after the other: with a random peer, or, in aligned rounds, with the one 3^r
places on. Messages are handed over as objects. CPU is that of the rounds, without making the nodes; memory is the peak of a process
of its own. Copies are the cells that nodes received over those that they needed, counted in another run with the same seeds.
"""

import argparse
import json
import math
import random
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from report import Row, cpu, machine, show

from constraint_crdt import GossipNode, exchange
from constraint_crdt.protocol.messages import Delta, Sync

MOST_ROUNDS = 60


@dataclass(frozen=True, slots=True)
class Fleet:
    """How many nodes, how many items among them, and whom each asks."""

    nodes: int
    items: int
    aligned: bool = False
    seconds: float | None = None
    """CPU that the whole may take at most."""
    goal: float | None = None
    megabytes: float | None = None

    def __str__(self) -> str:
        return f"{self.nodes:,} nodes, {self.items:,} items, {'aligned rounds' if self.aligned else 'random peers'}"


SMALL = (Fleet(1_000, 1_000, seconds=2.3, goal=1.2), Fleet(1_000, 1_000, aligned=True, seconds=2.3, goal=1.2))
LARGE = (Fleet(10_000, 200, seconds=60, megabytes=4_000), Fleet(10_000, 200, aligned=True, seconds=60, megabytes=4_000))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What it took until all nodes had the same hash."""

    rounds: int
    cpu: float
    peak: float
    """MB (10**6 bytes) of the process, nodes included."""
    received: int
    """Cells; 0 where they were not counted."""
    needed: int


def _made(fleet: Fleet) -> list[GossipNode]:
    nodes = [GossipNode(f"n{index}") for index in range(fleet.nodes)]
    for index in range(fleet.items):
        nodes[index % fleet.nodes].add_constraint(f"c{index}")
    return nodes


def _counted(a: GossipNode, b: GossipNode) -> int:
    """An exchange that `a` begins; how many cells came with it."""
    cells, waiting = 0, [(b, a.begin(b.node_id))]
    for reader, message in waiting:  # which grows while it is read
        if isinstance(message, Delta):
            cells += len(message.delta)
        elif isinstance(message, Sync):
            cells += len(message.state)
        waiting += [(a if reader is b else b, response) for response in reader.receive(message).responses]
    return cells


def run(fleet: Fleet, seed: int, *, count: bool = False) -> Outcome:
    """One fleet, from nothing known of each other to equal hashes everywhere."""
    nodes, chance = _made(fleet), random.Random(seed)
    talk: Callable[[GossipNode, GossipNode], int] = _counted if count else exchange
    rounds = received = 0

    def one_round() -> None:
        nonlocal received
        step = 3**rounds % fleet.nodes if fleet.aligned else 0
        for index, node in enumerate(nodes):
            offset = step or chance.randrange(1, fleet.nodes)
            received += talk(node, nodes[(index + offset) % fleet.nodes])

    seconds = 0.0
    while any(node.state_hash != nodes[0].state_hash for node in nodes):
        if rounds == MOST_ROUNDS:
            sys.exit(f"{fleet}: not converged after {rounds} rounds")
        seconds += cpu(one_round)
        rounds += 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    needed = sum(len(node.state.constraints) for node in nodes) - fleet.items
    return Outcome(rounds, seconds, peak, received if count else 0, needed)


def measured(fleet: Fleet, seed: int, *, count: bool) -> Outcome:
    """`run` in a process of its own."""
    command = [sys.executable, __file__, "--one", json.dumps([asdict(fleet), seed, count])]
    return Outcome(**json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout))


def rows(fleets: tuple[Fleet, ...], seeds: int) -> Iterator[Row]:
    """The table; medians over the seeds."""
    for fleet in fleets:
        chosen = range(1, 1 + (1 if fleet.aligned else seeds))  # nothing is left to chance in aligned rounds
        timed = [measured(fleet, seed, count=False) for seed in chosen]
        counted = [measured(fleet, seed, count=True) for seed in chosen]
        fewest = math.ceil(math.log(fleet.nodes, 3))
        copies = statistics.median(each.received / each.needed for each in counted)
        yield Row(f"{fleet}: CPU", statistics.median(each.cpu for each in timed), "s", fleet.seconds, fleet.goal)
        yield Row(f"{fleet}: peak memory", statistics.median(each.peak for each in timed), "MB", fleet.megabytes)
        allowed = fewest + (1 if fleet.aligned else 2)
        yield Row(f"{fleet}: rounds", statistics.median(each.rounds for each in timed), "", allowed, note=f"log3 n: {fewest}")
        yield Row(f"{fleet}: copies of an item a node receives", copies, "x", 1.02)


def main() -> int:
    """Run, print; 1 if `--check` was given and something that must hold does not."""
    parser = argparse.ArgumentParser(description="A whole fleet in one process, until all nodes know everything.")
    parser.add_argument("--quick", action="store_true", help="1,000 nodes only")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="how many runs with random peers (3)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a bar is missed")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        fleet, seed, count = json.loads(args.one)
        json.dump(asdict(run(Fleet(**fleet), seed, count=count)), sys.stdout)
        return 0
    if args.seeds < 1:
        parser.error("--seeds must be at least 1")
    heading = machine()
    table = list(rows(SMALL if args.quick else SMALL + LARGE, args.seeds))
    show(heading, table, as_json=args.json)
    missed = [row.what for row in table if not row.met]
    if missed and args.check:
        print(f"missed: {'; '.join(missed)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
