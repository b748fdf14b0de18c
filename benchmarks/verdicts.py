"""How soon a fleet of 20 nodes learns that a constraint is violated on one of them, and the bytes that it costs.

    python benchmarks/verdicts.py [--nodes 20] [--seconds 20] [--violations 20] [--json] [--check]

The nodes run in this process, with the default settings, on an in-memory network whose transports count the bytes of all messages,
both ways. A violation begins with `measure` on one node, and is known once the report of every other node shows it with its value.
The bytes of a flapping constraint (10 turns a second) are those above an idle fleet; those of a constraint with 10 samples a second
and no turn, the counts, are stated beside. In a fleet of two nodes, 10,000 constraints turn with one sample.
"""

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from random import Random

from report import Row, machine, show

from constraint_crdt import MemoryNetwork, Node
from constraint_crdt.model import VerdictState
from constraint_crdt.operations.constraints import AddConstraint
from constraint_crdt.types import NodeVerdict

WITHIN = 1.0
"""Seconds until every node shows a violation."""

MOST_BYTES = 1_000
"""Bytes of gossip per node and second for a flapping constraint."""

SETTLE = 12.0
"""Seconds after which rates and variables of the preparation are told as well."""

TURNS_PER_SECOND = 10
AT_ONCE = 10_000


async def until(what: Callable[[], object]) -> float:
    """Wait until `what()` is true. Returns the seconds waited."""
    began = time.monotonic()
    async with asyncio.timeout(120):
        while not what():  # noqa: ASYNC110 - the condition is about many nodes at once, none of which could set an event
            await asyncio.sleep(0.002)
    return time.monotonic() - began


def shown(node: Node, id_: str, on: str) -> NodeVerdict | None:
    """The verdict on a constraint of node `on`, as another node knows it."""
    return node.gossip.state.verdicts.of(id_).get(on)


def all_list(nodes: list[Node], id_: str) -> bool:
    """True if the constraint is active on all nodes."""
    return all(id_ in node.gossip.state.constraints for node in nodes)


def all_show(nodes: list[Node], id_: str, on: str) -> bool:
    """True if all nodes show a violation on node `on`."""
    return all((found := shown(node, id_, on)) is not None and found.state is VerdictState.VIOLATED for node in nodes)


def synchronized(nodes: list[Node]) -> bool:
    """True if all nodes have the same state."""
    return len({node.gossip.state_hash for node in nodes}) == 1


async def violations(nodes: list[Node], repeats: int, random: Random) -> list[Row]:
    """Violations on nodes at random, each of a constraint of its own."""
    times = []
    for number in range(repeats):
        id_, value, asked = f"speed-{number}", 2.0 + number, random.choice(nodes)
        name = asked.settings.name
        await nodes[0].add_constraint(id_, when=f"speed_mps_{number} <= 1.5")
        await until(partial(all_list, nodes, id_))
        await asyncio.sleep(random.uniform(0, 1))  # anywhere in the rounds
        began = time.monotonic()
        await asked.measure({f"speed_mps_{number}": value})
        await until(partial(all_show, nodes, id_, name))
        times.append(time.monotonic() - began)
        for node in nodes:
            report = next(each for each in node.explanations.report(id_).violations if each.node == name)
            assert report.values == {f"speed_mps_{number}": str(value)}, report
            assert report.since is not None
    return [
        Row(f"violation shown by all of {len(nodes)}: median", statistics.median(times), "s", WITHIN),
        Row(f"violation shown by all of {len(nodes)}: longest of {repeats}", max(times), "s", WITHIN),
    ]


def carried(nodes: list[Node]) -> int:
    """Bytes sent and received by all nodes."""
    return sum(report.bytes_sent + report.bytes_received for report in (node.status() for node in nodes))


async def bytes_of(nodes: list[Node], seconds: float, values: Sequence[float]) -> float:
    """Bytes per node and second while a node measures these values in turn, ten a second."""
    before, began = carried(nodes), time.monotonic()
    for number in range(int(seconds * TURNS_PER_SECOND)):
        await asyncio.sleep(max(0.0, began + number / TURNS_PER_SECOND - time.monotonic()))
        if values:
            await nodes[0].measure({"flap": values[number % len(values)]})
    return (carried(nodes) - before) / (time.monotonic() - began) / len(nodes)


async def flapping(nodes: list[Node], seconds: float) -> list[Row]:
    """One constraint that turns with each sample."""
    name = nodes[0].settings.name
    await nodes[0].add_constraint("flapping", when="flap <= 1.5")
    await nodes[0].measure({"flap": 1.0})
    await until(lambda: synchronized(nodes))
    await asyncio.sleep(SETTLE)
    idle = await bytes_of(nodes, seconds, [])
    steady = await bytes_of(nodes, seconds, [1.0])
    flaps = await bytes_of(nodes, seconds, [2.0, 1.0])
    await nodes[0].measure({"flap": 3.0})
    last = (("flap", "3.0"),)
    settled = await until(lambda: all((found := shown(node, "flapping", name)) and found.inputs == last for node in nodes))
    return [
        Row("idle fleet: per node", idle, "B/s"),
        Row("10 samples a second without a turn: per node, above idle", steady - idle, "B/s", note="the counts"),
        Row("10 turns a second: per node, above idle", flaps - idle, "B/s", MOST_BYTES, note="counts and verdicts"),
        Row("last state after flapping shown by all after", settled, "s"),
    ]


async def at_once(nodes: list[Node]) -> list[Row]:
    """Many constraints that turn with the same sample."""
    asked, name = nodes[0], nodes[0].settings.name
    ids = [f"burst-{number:05}" for number in range(AT_ONCE)]
    await asked.batch([AddConstraint(id=id_, when="burst <= 0.5") for id_ in ids])
    await asked.measure({"burst": 0.0})
    await until(lambda: synchronized(nodes) and bool(asked.constraints(ids[-1:])[0].verdict == "satisfied"))
    await asyncio.sleep(SETTLE)
    before, began, cpu = carried(nodes), time.monotonic(), time.process_time()
    pauses, ended = [0.0], asyncio.Event()

    async def watch() -> None:
        while not ended.is_set():
            last = time.process_time()  # a busy machine adds nothing
            await asyncio.sleep(0)
            pauses.append(time.process_time() - last)

    watching = asyncio.create_task(watch())
    await asked.measure({"burst": 1.0})
    told, used = time.monotonic() - began, time.process_time() - cpu
    ended.set()
    await watching
    await until(lambda: all(len(node.gossip.state.verdicts.node(name)) >= AT_ONCE for node in nodes))
    everywhere = time.monotonic() - began
    return [
        Row(f"{AT_ONCE:,} constraints turn at once: all told after", told, "s", note=f"{used:.2f} s of CPU"),
        Row(f"{AT_ONCE:,} constraints turn at once: longest pause of the loop", 1000 * max(pauses), "ms", note="CPU"),
        Row(f"{AT_ONCE:,} constraints turn at once: shown by all after", everywhere, "s"),
        Row(f"{AT_ONCE:,} constraints turn at once: bytes per node", (carried(nodes) - before) / len(nodes), "B"),
    ]


async def measured(count: int, seconds: float, repeats: int) -> list[Row]:
    """All figures."""
    async with fleet(count) as nodes:
        rows = await violations(nodes, repeats, Random(1))
    async with fleet(count) as nodes:
        rows += await flapping(nodes, seconds)
    async with fleet(2) as nodes:
        return rows + await at_once(nodes)


@asynccontextmanager
async def fleet(count: int) -> AsyncIterator[list[Node]]:
    """Nodes with the default settings, each seeing all others."""
    network = MemoryNetwork()
    async with AsyncExitStack() as stack:
        nodes = [Node(name=f"n{each:02}", transport=network.transport(), random=Random(each)) for each in range(count)]
        for node in nodes:
            await stack.enter_async_context(node)
        await until(lambda: all(node.status().peers == count - 1 for node in nodes))
        yield nodes


def main() -> None:
    """See the docstring of the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--violations", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true", help="exit code 1 if something demanded is missed")
    arguments = parser.parse_args()
    rows = asyncio.run(measured(arguments.nodes, arguments.seconds, arguments.violations))
    show(machine(), rows, as_json=arguments.json)
    if arguments.check and not all(row.met for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
