"""How long until all nodes agree after a cut of the network has healed: real processes, in network namespaces, joined by a switch.

A fleet of ten with 50 ms of round trip on each link. Each cut is drawn: it splits off one to five nodes, both ways or one way, or
cuts a single link, for one to ten seconds. Both sides write meanwhile. The time runs from the heal until each node has both writes
and all have one state. It needs root or user namespaces, and `/dev/net/tun`.

    python benchmarks/network.py --cuts 20      # 200 take half an hour
"""

import argparse
import sys
import time
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from random import Random

from report import Row, machine, show

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.fleet.processes import seconds_until
from tests.network.hosts import Network, NetworkNode, agree, are_linked, have

KINDS = ("split both ways", "split one way", "one link")
LONGEST = 120.0
"""Seconds that a heal may take: the benchmark ends beyond."""


def cut(net: Network, nodes: Sequence[NetworkNode], kind: str, random: Random) -> tuple[NetworkNode, NetworkNode]:
    """Cut the network, and return a node of each side."""
    drawn = random.sample(nodes, len(nodes))
    if kind == "one link":
        net.cut(drawn[0].host, drawn[-1].host)
    else:
        count = random.randint(1, len(nodes) // 2)
        sides = [[node.host for node in side] for side in (drawn[:count], drawn[count:])]
        net.split(*sides, one_way=kind == "split one way")
    return drawn[0], drawn[-1]


def heal_times(net: Network, nodes: Sequence[NetworkNode], cuts: int, random: Random) -> list[tuple[str, float]]:
    """The kind of each cut, and the seconds until all agree after its heal."""
    times = []
    for number in range(cuts):
        kind = KINDS[number % len(KINDS)]
        sides = cut(net, nodes, kind, random)
        time.sleep(random.uniform(1, 10))
        ids = [f"{number:04}{node.name}" for node in sides]
        for node, id_ in zip(sides, ids, strict=True):
            node.add(id_)
        time.sleep(0.2)
        net.set_all(cut=False)
        took = seconds_until(lambda ids=ids: all(have(nodes, id_) for id_ in ids) and agree(nodes), LONGEST)  # type: ignore[misc]
        times.append((kind, took))
        if sys.stderr.isatty():
            print(f"\r{number + 1} of {cuts}: {kind}, {took:.2f} s   ", end="", file=sys.stderr, flush=True)
        for node, id_ in zip(sides, ids, strict=True):
            node.call("POST", "batch", {"changes": [{"remove": {"id": id_}}]})
        time.sleep(random.uniform(0.5, 1.5))
    return times


def quantile(times: Sequence[float], share: float) -> float:
    """The least of `times` that this share of them is not above."""
    return sorted(times)[max(0, ceil(share * len(times)) - 1)]


def measure(nodes: int, cuts: int, round_trip: float, seed: int) -> list[Row]:
    """The rows of the table."""
    net = Network(seed)
    try:
        fleet = net.fleet_of(f"n{number}" for number in range(nodes))
        net.set_all(delay=round_trip / 2)
        seconds_until(lambda: are_linked(fleet))
        times = heal_times(net, fleet, cuts, Random(seed))
        log = max(node.log_bytes for node in fleet)
    finally:
        net.close()
    every = [took for _, took in times]
    rows = [
        Row("all agree after a heal, p50", quantile(every, 0.5), "s"),
        Row("all agree after a heal, p99", quantile(every, 0.99), "s", must=2.0),
        Row("all agree after a heal, longest", max(every), "s"),
        Row("heals above 2 s", sum(took > 2 for took in every), f"of {len(every)}"),
    ]
    for kind in KINDS:
        of_kind = [took for each, took in times if each == kind]
        if of_kind:
            rows.append(Row(f"{kind}: p50", quantile(of_kind, 0.5), "s"))
            rows.append(Row(f"{kind}: longest", max(of_kind), "s"))
    return [*rows, Row("longest log of a node", log / 1000, "kB")]


def main() -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=10)
    parser.add_argument("--cuts", type=int, default=200)
    parser.add_argument("--round-trip", type=float, default=0.05, metavar="SECONDS")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    rows = measure(args.nodes, args.cuts, args.round_trip, args.seed)
    show(machine(), rows, as_json=args.json)
    return int(args.check and not all(row.met for row in rows))


if __name__ == "__main__":
    sys.exit(main())
