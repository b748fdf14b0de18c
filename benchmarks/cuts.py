"""Random cuts in a fleet: how long after the heal all nodes agree again, and how long until all see each other.

    python benchmarks/cuts.py [--cuts 200] [--nodes 10] [--round-trip 0.05] [--longest 12] [--seed 1] [--no-seed]

Processes in network namespaces behind a switch in user space (`tests/network`), so it needs Linux and the right to make namespaces.
A cut takes one link, one node, or half of the fleet away, both ways or one way, for 0.5 s up to `--longest`. Two nodes write during
each cut. Prints the quantiles by kind of cut. `--no-seed`: the node that all others connect to is killed before the first cut.
"""

import argparse
import random
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.network.hosts import Network, NetworkNode

PATIENCE = 120.0
KINDS = ("link", "one-way link", "node", "one-way node", "halves")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cuts", type=int, default=200)
    parser.add_argument("--nodes", type=int, default=10)
    parser.add_argument("--round-trip", type=float, default=0.05)
    parser.add_argument("--longest", type=float, default=12.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-seed", action="store_true")
    given = parser.parse_args()
    chance = random.Random(given.seed)
    net = Network(given.seed)
    try:
        nodes = net.fleet_of([f"n{number:02d}" for number in range(given.nodes + given.no_seed)])
        net.set_all(delay=given.round_trip / 2)
        _until(lambda: all(node.get("status")["peers"] == len(nodes) - 1 for node in nodes))
        if given.no_seed:
            nodes.pop(0).kill()
        agreed, met = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
        for number in range(given.cuts):
            kind = KINDS[number % len(KINDS)]
            seconds, seen = _cut(net, nodes, kind, f"cut{number}", chance, given.longest)
            agreed[kind].append(seconds)
            met[kind].append(seen)
            sys.stderr.write(f"{number} {kind}: all agree after {seconds:.2f} s, see each other after {seen:.2f} s\n")
    finally:
        net.close()
    for what, found in (("all agree after", agreed), ("all see each other after", met)):
        for kind in KINDS:
            sys.stdout.write(f"{what:26} {kind:14} {_quantiles(found[kind])}\n")
        sys.stdout.write(f"{what:26} {'all cuts':14} {_quantiles([each for kind in KINDS for each in found[kind]])}\n")
    return 0


def _cut(
    net: Network, nodes: Sequence[NetworkNode], kind: str, name: str, chance: random.Random, longest: float
) -> tuple[float, float]:
    """Cut, write, heal; the seconds until all agree, and until all see each other."""
    shuffled = chance.sample(list(nodes), len(nodes))
    here = shuffled[: len(nodes) // 2] if kind == "halves" else shuffled[:1]
    there = shuffled[1:2] if "link" in kind else shuffled[len(here) :]
    pairs = [(a.host, b.host) for a in here for b in there]
    for a, b in pairs:
        (net.set_way if "one-way" in kind else net.set)(a, b, cut=True)
    length = chance.uniform(0.5, longest)
    until = time.monotonic() + length
    before = nodes[0].get("status")["constraints"]
    for writer in (here[0], there[0]):
        time.sleep(chance.uniform(0, length / 3))
        writer.add(f"{name}-{writer.name}")
    time.sleep(max(0.0, until - time.monotonic()))
    for a, b in pairs:
        net.set(a, b, cut=False)
    healed = time.monotonic()

    def agree() -> bool:
        told = [node.get("status") for node in nodes]
        return len({each["constraints_hash"] for each in told}) == 1 and told[0]["constraints"] == before + 2

    _until(agree)
    seconds = time.monotonic() - healed
    _until(lambda: all(node.get("status")["peers"] == len(nodes) - 1 for node in nodes))
    return seconds, time.monotonic() - healed


def _until(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not holds() and time.monotonic() < until:
        time.sleep(0.02)


def _quantiles(seconds: Sequence[float]) -> str:
    if not seconds:
        return "-"
    ordered = sorted(seconds)
    p50, p99 = (ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.5, 0.99))
    return f"p50 {p50:6.2f} s  p99 {p99:6.2f} s  max {ordered[-1]:6.2f} s  of {len(ordered)}"


if __name__ == "__main__":
    sys.exit(main())
