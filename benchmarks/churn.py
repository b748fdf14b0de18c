"""Churn: a live fleet in which 1,000 constraints come and go for ever. What it keeps must level off.

    python benchmarks/churn.py [--changes 1000000] [--ids 1000] [--nodes 5] [--directory DIR] [--json]

Nodes with stores, in one process, on an in-memory network, with the settings that nodes have by default. One after another, each
adds all ids in a batch, with a definition that is new every time, and removes them in another; gossip goes on meanwhile. Every
tenth of the way, what the largest node holds is noted: nobody waits for the fleet to agree first.
"""

import argparse
import asyncio
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from constraint_crdt import MemoryNetwork, Node, NodeSettings
from constraint_crdt.operations.constraints import AddConstraint, RemoveConstraint

SAMPLES = 10
AGREE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What the largest node held at one moment."""

    changes: int
    seconds: float
    store_bytes: int
    """File and log of one store."""
    cells: int
    removals: int
    """Of those cells: what is no more, kept until all live nodes have heard."""
    rows: int
    rss_bytes: int
    """Of the whole process, all nodes in it."""


class Churn:
    """The fleet, and the changes made to it so far."""

    def __init__(self, nodes: Sequence[Node], ids: int) -> None:
        self._nodes = nodes
        self._ids = [f"limit-{number:06d}" for number in range(ids)]
        self._began = time.perf_counter()
        self._rounds = 0
        self.changes = 0

    async def turn(self) -> None:
        """One node adds every id, and removes it."""
        node = self._nodes[self._rounds % len(self._nodes)]
        self._rounds += 1
        await node.batch([AddConstraint(id=id_, about=f"round {self._rounds}") for id_ in self._ids])
        await node.batch([RemoveConstraint(id=id_) for id_ in self._ids])
        self.changes += 2 * len(self._ids)

    def sample(self) -> Sample:
        """What the largest node holds now."""
        reports = [node.storage() for node in self._nodes]
        rows = [node.gossip.state.rows for node in self._nodes]
        return Sample(
            changes=self.changes,
            seconds=time.perf_counter() - self._began,
            store_bytes=max(report.bytes_on_disk for report in reports),
            cells=max(map(len, rows)),
            removals=max(report.removed for report in reports),
            rows=max(len(each.clock_mark.entries) for each in rows),
            rss_bytes=psutil.Process().memory_info().rss,
        )

    async def agree(self) -> None:
        """Return once all nodes have the same state, and nothing removed is kept for anyone. `TimeoutError` after a minute."""
        async with asyncio.timeout(AGREE_SECONDS):
            while len({node.gossip.state_hash for node in self._nodes}) > 1 or self.sample().removals:  # noqa: ASYNC110 - many nodes
                await asyncio.sleep(0.05)


async def run(directory: Path, changes: int, *, ids: int, nodes: int, tell: Callable[[Sample], object]) -> list[Sample]:
    """Make the changes; returns samples: one at the start, one for each tenth, and one when all agree again. `tell` gets each."""
    network, samples = MemoryNetwork(), []
    async with AsyncExitStack() as stack:
        fleet = []
        for number in range(nodes):
            settings = NodeSettings(name=f"node-{number}", store=str(directory / f"node-{number}.db"))
            fleet.append(await stack.enter_async_context(Node(settings=settings, transport=network.transport())))
        churn = Churn(fleet, ids)

        def note() -> None:
            samples.append(churn.sample())
            tell(samples[-1])

        note()
        for tenth in range(1, SAMPLES + 1):
            while churn.changes < changes * tenth / SAMPLES:
                await churn.turn()
            note()
        await churn.agree()
        gc.collect()
        note()
    return samples


def growth(samples: Sequence[Sample], what: Callable[[Sample], int]) -> float:
    """The most in the second half of the way, as a multiple of the most in the first: 1 where it has levelled off."""
    middle = len(samples) // 2
    return max(map(what, samples[middle:-1])) / max(1, *map(what, samples[1:middle]))


def line(sample: Sample) -> str:
    """One line of the table."""
    return (
        f"{sample.changes:>10,}  {sample.seconds:>8.1f}  {sample.store_bytes / 2**20:>9.2f}  {sample.cells:>8,}  "
        f"{sample.removals:>8,}  {sample.rows:>4}  {sample.rss_bytes / 2**20:>8.1f}"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--changes", type=int, default=1_000_000, help="adds and removes, together (default: %(default)s)")
    parser.add_argument("--ids", type=int, default=1_000, help="constraints that come and go (default: %(default)s)")
    parser.add_argument("--nodes", type=int, default=5, help="nodes in the fleet (default: %(default)s)")
    parser.add_argument("--directory", type=Path, help="where to make the stores (default: the temporary directory)")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    given = parser.parse_args()
    if not given.json:
        print("   changes   seconds  store MiB     cells  removals  rows   RSS MiB   (the largest node; RSS: all nodes together)")

    def tell(sample: Sample) -> None:
        if not given.json:
            print(line(sample), flush=True)

    with tempfile.TemporaryDirectory(dir=given.directory) as directory:
        samples = asyncio.run(run(Path(directory), given.changes, ids=given.ids, nodes=given.nodes, tell=tell))
    grown = {
        "store": growth(samples, lambda sample: sample.store_bytes),
        "cells": growth(samples, lambda sample: sample.cells),
        "rss": growth(samples, lambda sample: sample.rss_bytes),
    }
    if given.json:
        json.dump({"samples": [asdict(sample) for sample in samples], "growth": grown}, sys.stdout, indent=2)
        print()
        return
    print(f"most in the second half, as a multiple of the first: {', '.join(f'{what} {by:.2f}' for what, by in grown.items())}")


if __name__ == "__main__":
    main()
