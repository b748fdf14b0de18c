"""Is it of use to choose peers by where they stand? Rounds and link cost of geometric and random choice, over many seeds.

    python benchmarks/geometry.py [--seeds 300] [--nodes 127] [--svg docs/explanation/geometry.svg]

All policies see the same seeds, so their differences are paired. Intervals are 95 % of the mean, by bootstrap over the seeds.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from report import machine

from constraint_crdt.protocol.peers import Nearby, PeerChoice, RandomSource, Uniform, hexagon
from constraint_crdt.simulation.scenario import Simulation
from constraint_crdt.simulation.world import SimRng
from constraint_crdt.types.tile_cells import Position, hex_distance

ITEMS = 10
MOST_ROUNDS = 200
RESAMPLES = 2000
MEASURES = ("rounds", "turns", "link cost, hops", "copies")


class Expanding:
    """Any other node within a radius that grows by one hop a round: what the Rust crate of the same name does."""

    def __init__(self, points: Sequence[Position]) -> None:
        self._near = [
            sorted((hex_distance(here, there), other) for other, there in enumerate(points) if there != here) for here in points
        ]

    def choose(self, me: int, round_: int, chance: RandomSource) -> int:
        """One of those that are near enough by now."""
        near = [other for distance, other in self._near[me] if distance <= round_ + 1]
        return near[int(chance.random() * len(near))]


@dataclass(frozen=True, slots=True)
class Policy:
    """One way to choose."""

    name: str
    make: Callable[[Sequence[Position]], PeerChoice]
    colour: str


POLICIES = (
    Policy("uniform", lambda points: Uniform(len(points)), "#1f6feb"),
    Policy("nearby, d^-2", Nearby, "#b35900"),
    Policy("expanding radius", Expanding, "#888"),
)


def measure(points: Sequence[Position], choice: PeerChoice, seed: int) -> tuple[float, float, float, float]:
    """What one seed comes to, in the order of `MEASURES`."""
    nodes = len(points)
    simulation = Simulation(nodes, seed, choice=choice, distance=lambda one, other: hex_distance(points[one], points[other]))
    for index in range(ITEMS):
        simulation.add_constraint(index * nodes // ITEMS, f"c{index}")
    rounds = simulation.run_until_converged(MOST_ROUNDS)
    if rounds is None:
        sys.exit(f"seed {seed} did not come to an end within {MOST_ROUNDS} rounds")
    stats = simulation.stats
    return float(rounds), float(stats.turns), stats.cost, stats.copies


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean, and the ends of its 95 % interval."""
    chance, count = SimRng(1), len(values)
    means = sorted(statistics.fmean(values[chance.below(count)] for _ in range(count)) for _ in range(RESAMPLES))
    return statistics.fmean(values), means[int(RESAMPLES * 0.025)], means[int(RESAMPLES * 0.975)]


def table(results: dict[str, list[tuple[float, ...]]]) -> list[str]:
    """The figures as the lines of a Markdown table: each policy, and how far it differs from the first."""
    lines = ["| policy | " + " | ".join(MEASURES) + " |", "|---|" + "---|" * len(MEASURES)]
    base = results[POLICIES[0].name]
    for policy in POLICIES:
        cells = []
        for place in range(len(MEASURES)):
            mean, low, high = interval([run[place] for run in results[policy.name]])
            cell = f"{mean:.2f} ({low:.2f} to {high:.2f})"
            if policy is not POLICIES[0]:
                apart = interval([run[place] - other[place] for run, other in zip(results[policy.name], base, strict=True)])
                cell += "; {:+.2f} ({:+.2f} to {:+.2f})".format(*apart)
            cells.append(cell)
        lines.append(f"| {policy.name} | " + " | ".join(cells) + " |")
    return lines


def draw(results: dict[str, list[tuple[float, ...]]], nodes: int) -> str:
    """Every seed as a point, rounds against link cost; the mean of each policy as a cross as wide as its intervals."""
    width, height, left, bottom, top = 720, 420, 60, 370, 40
    most_rounds = max(run[0] for runs in results.values() for run in runs) + 1
    most_cost = max(run[2] for runs in results.values() for run in runs) * 1.1

    def x(rounds: float) -> float:
        return left + (width - left - 30) * rounds / most_rounds

    def y(cost: float) -> float:
        return bottom - (bottom - top) * cost / most_cost

    style = 'font-family="system-ui,sans-serif" font-size="12" fill="#333"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<path d="M{left},{top}V{bottom}H{width - 30}" fill="none" stroke="#999"/>',
        (
            f'<text x="{left}" y="24" {style}>{nodes} nodes, {len(results[POLICIES[0].name])} seeds each: '
            f"link cost (hops per item) over rounds until all know all</text>"
        ),
    ]
    jitter = SimRng(2)
    for place, policy in enumerate(POLICIES):
        runs = results[policy.name]
        for run in runs:
            at = x(run[0] + (jitter.random() - 0.5) * 0.6)
            parts.append(f'<circle cx="{at:.1f}" cy="{y(run[2]):.1f}" r="2" fill="{policy.colour}" opacity="0.35"/>')
        rounds, cost = interval([run[0] for run in runs]), interval([run[2] for run in runs])
        parts.append(f'<path d="M{x(rounds[1]):.1f},{y(cost[0]):.1f}H{x(rounds[2]):.1f}" stroke="#000" stroke-width="3"/>')
        parts.append(f'<path d="M{x(rounds[0]):.1f},{y(cost[1]):.1f}V{y(cost[2]):.1f}" stroke="#000" stroke-width="3"/>')
        parts.append(f'<circle cx="{width - 170}" cy="{top + 16 * place}" r="4" fill="{policy.colour}"/>')
        parts.append(f'<text x="{width - 160}" y="{top + 4 + 16 * place}" {style}>{policy.name}</text>')
    for share in (0.0, 0.5, 1.0):
        parts.append(f'<text x="{x(most_rounds * share):.0f}" y="{bottom + 18}" {style}>{most_rounds * share:.0f}</text>')
        parts.append(f'<text x="20" y="{y(most_cost * share) + 4:.0f}" {style}>{most_cost * share:.1f}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> int:
    """Run, print the table, draw."""
    parser = argparse.ArgumentParser(description="Geometric against random choice of peers.")
    parser.add_argument("--seeds", type=int, default=300, metavar="N", help="seeds of each policy (300)")
    parser.add_argument("--nodes", type=int, default=127, metavar="N", help="nodes, in a hexagon (127)")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw every seed")
    args = parser.parse_args()
    if args.seeds < 1 or args.nodes < ITEMS:
        parser.error(f"--seeds must be at least 1, and --nodes at least {ITEMS}")
    points = hexagon(args.nodes)
    results: dict[str, list[tuple[float, ...]]] = {}
    for policy in POLICIES:
        choice = policy.make(points)
        results[policy.name] = [measure(points, choice, seed) for seed in range(1, args.seeds + 1)]
    print(machine())
    print(f"{args.nodes} nodes in a hexagon, {ITEMS} items, {args.seeds} seeds; mean (95 % interval); difference from uniform\n")
    print("\n".join(table(results)))
    if args.svg is not None:
        args.svg.write_text(draw(results, args.nodes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
