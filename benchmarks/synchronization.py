"""How near synchronization comes to what is possible: rounds, loss, copies, link cost and bytes, each against its bound.

    python benchmarks/synchronization.py [--largest 10000] [--constraints 100000] [--json]

All of it runs the `GossipNode` that runs in production, in the simulator. Exits with 1 if a bound is missed.

A round: every node begins one exchange, and takes part in one at a time (see `constraint_crdt.simulation`). An exchange of a
round may pass on what the same round brought before, as it does where nodes take turns.
"""

import argparse
import math
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

from exchange import FORMS, a_pair, many_changes, nothing_new, one_change
from report import Row, machine, show

from constraint_crdt.protocol.peers import Nearby, PeerChoice, Schedule, Uniform, hexagon
from constraint_crdt.simulation.scenario import Simulation
from constraint_crdt.types.tile_cells import hex_distance

FLEETS = {4: 15, 32: 15, 100: 9, 1000: 3, 10_000: 1}
"""Sizes, and how many seeds of each."""

MOST_ITEMS = 200
"""Of a fleet of 10,000; smaller ones have an item on each node."""

LOSSY_NODES, LOSS, LOSSY_SEEDS = 1000, 0.3, 5
MOST_ROUNDS = 60


def least_rounds(nodes: int) -> int:
    """What push-pull needs if everybody learns from two others in a round: ceil(log3 n)."""
    return math.ceil(math.log(nodes, 3) - 1e-9)


def run(nodes: int, seed: int, choice: PeerChoice, *, items: int, loss: float = 0.0) -> tuple[Simulation, int]:
    """A fleet in which `items` nodes have something to tell, until all know all; and how many rounds that took."""
    points = hexagon(nodes)
    simulation = Simulation(
        nodes, seed, choice=choice, loss=loss, distance=lambda one, other: hex_distance(points[one], points[other])
    )
    for index in range(items):
        simulation.add_constraint(index * nodes // items, f"c{index}")
    rounds = simulation.run_until_converged(MOST_ROUNDS)
    if rounds is None:
        sys.exit(f"{nodes} nodes did not agree within {MOST_ROUNDS} rounds")
    return simulation, rounds


def median_rounds(nodes: int, seeds: int, make: Callable[[int], PeerChoice], loss: float = 0.0) -> tuple[float, list[Simulation]]:
    """Rounds, the median over seeds; and the fleets."""
    items = min(nodes, MOST_ITEMS) if nodes > LOSSY_NODES else nodes
    runs = [run(nodes, seed, make(nodes), items=items, loss=loss) for seed in range(1, seeds + 1)]
    return statistics.median(rounds for _, rounds in runs), [simulation for simulation, _ in runs]


def rounds_rows(largest: int) -> Iterator[Row]:
    """Rounds until all know all, by the schedule and by chance; and what of that nodes heard twice."""
    for nodes, seeds in FLEETS.items():
        if nodes > largest:
            continue
        for name, make, spare in ("schedule 3^r", Schedule, 1), ("uniform", Uniform, 2):
            rounds, fleets = median_rounds(nodes, seeds, make)
            turns = statistics.median(fleet.stats.turns for fleet in fleets)
            note = f"ceil(log3 n) = {least_rounds(nodes)}; {seeds} seeds; {turns:.0f} turns"
            yield Row(f"rounds, {nodes:,} nodes, {name}", rounds, "", least_rounds(nodes) + spare, note=note)
            copies = statistics.median(fleet.stats.copies for fleet in fleets)
            must = 1.02 if nodes >= LOSSY_NODES else None
            yield Row(f"copies of each item received, {nodes:,} nodes, {name}", copies, "", must)


def loss_rows() -> Iterator[Row]:
    """The same where messages are lost."""
    for name, make in (("schedule 3^r", Schedule), ("uniform", Uniform)):
        rounds, fleets = median_rounds(LOSSY_NODES, LOSSY_SEEDS, make, LOSS)
        share = statistics.median(fleet.stats.lost / fleet.stats.messages for fleet in fleets)
        note = f"{LOSSY_SEEDS} seeds; {share:.0%} of the messages lost, each sent again twice at most"
        yield Row(f"rounds, {LOSSY_NODES:,} nodes, {LOSS:.0%} loss, {name}", rounds, "", 14, note=note)


def link_rows(nodes: int) -> Iterator[Row]:
    """How far items travel on a hexagonal plane."""
    points = hexagon(nodes)
    for name, choice, must in (("nearby, d^-2", Nearby(points), 13), ("uniform", Uniform(nodes), None)):
        simulation, rounds = run(nodes, 1, choice, items=min(nodes, MOST_ITEMS))
        stats = simulation.stats
        note = f"{rounds} rounds; {stats.copies:.3f} copies"
        yield Row(f"link cost per delivered item, {nodes:,} nodes on a plane, {name}", stats.cost, "hops", must, note=note)


def byte_rows(constraints: int) -> Iterator[Row]:
    """The exchange in bytes, as `exchange.py` measures it."""
    for name, form in FORMS.items():
        a, b = a_pair(constraints, form)
        measured = [*one_change(a, b, form, name, asked=False), *many_changes(a, b, form, name)]
        if name == next(iter(FORMS)):
            measured.append(nothing_new(a, b))
        yield from (row for row in measured if "bytes" in row.what)


def with_ratio(row: Row) -> Row:
    """The row with ours over the bound."""
    if row.must is None:
        return row
    return replace(row, note=f"{row.measured / row.must:.2f} of the bound" + (f"; {row.note}" if row.note else ""))


def main() -> int:
    """Run, print; 1 if a bound is missed."""
    parser = argparse.ArgumentParser(description="How near synchronization comes to what is possible.")
    parser.add_argument("--largest", type=int, default=10_000, metavar="N", help="leave out fleets with more nodes (10000)")
    parser.add_argument("--constraints", type=int, default=100_000, metavar="N", help="known when bytes are measured (100000)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    if args.largest < min(FLEETS) or args.constraints < 1:
        parser.error(f"--largest must be at least {min(FLEETS)}, and --constraints at least 1")
    parts = [rounds_rows(args.largest), link_rows(min(args.largest, max(FLEETS))), byte_rows(args.constraints)]
    if args.largest >= LOSSY_NODES:
        parts.insert(1, loss_rows())
    measured = [with_ratio(row) for part in parts for row in part]
    show(machine(), measured, as_json=args.json)
    missed = [row.what for row in measured if not row.met]
    if missed:
        print(f"missed: {'; '.join(missed)}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
