"""Instances and parameters: CPU time of a node of a fleet of 20, as shares of a core.

    python benchmarks/instances.py [--json] [--check]

Each node measures 250 instances of each of four variables a second, all of them at once, by the variable, or one by one. Four
constraints with `each` judge them, against a parameter; in the last rows by an average over five minutes. 500 settings of 250
parameters stand, of which each node has half by its labels; each of 50 further constraints compares a variable with five of them,
once a second. The bound is 5 % of a core a node, beside the time that the nodes of such a fleet take at rest, which is a row of its
own. The nodes run in one process, over a network in memory.
"""

import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from report import Row, run

from constraint_crdt.operations.constraints import AddConstraint
from constraint_crdt.runtime.node import Node
from constraint_crdt.runtime.settings import NodeSettings
from constraint_crdt.transport import MemoryNetwork

NODES = 20
VARIABLES = 4
INSTANCES = 250
"""Of each variable, on each node."""
PARAMETERS = 500
"""Settings."""
PLAIN = 50
"""Constraints without instances."""
MOST = 5.0
"""% of a core a node."""
WARM_UP, SECONDS = 1, 4
"""Rounds before, and rounds that are measured."""
WINDOW_SECONDS, EVERY = 300, 2
"""Of the windows, and between two samples that fill them."""

OF_VALUES = "temp{0} <= param.p{0}"
OF_WINDOWS = 'avg_over("temp{0}", duration("5m")) <= param.p{0}'


NAMES = [f'temp{variable}{{joint="j{number}"}}' for variable in range(VARIABLES) for number in range(INSTANCES)]


@asynccontextmanager
async def fleet() -> AsyncIterator[list[Node]]:
    """Nodes of two zones, at rest."""
    network = MemoryNetwork()
    async with AsyncExitStack() as stack:
        nodes = []
        for number in range(NODES):
            settings = NodeSettings(name=f"n{number:02}", labels={"zone": "ab"[number % 2]}, store="memory")
            nodes.append(await stack.enter_async_context(Node(settings=settings, transport=network.transport())))
        while any(node.gossip.peer_count < NODES - 1 for node in nodes):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        yield nodes


async def define(node: Node, text: str) -> None:
    """Parameters, and constraints that read them."""
    for number in range(PARAMETERS // 2):
        for zone in "ab":
            await node.set_parameter(f"p{number}", 1000.0 + number, f"zone={zone}")
    changes = [AddConstraint(id=f"each{number}", when=text.format(number), each="joint") for number in range(VARIABLES)]
    for number in range(PLAIN):
        limits = [f"x <= param.p{each}" for each in range(number * 5, number * 5 + 5)]
        changes.append(AddConstraint(id=f"c{number:02}", when=" && ".join(limits)))
    await node.batch(changes)


async def all_at_once(node: Node, second: int) -> None:
    """A second of a node."""
    value = float(second % 7)
    values = {f"j{number}": value for number in range(INSTANCES)}
    await node.measure({"x": value, **{f"temp{number}": {"by": "joint", "values": values} for number in range(VARIABLES)}})


async def one_by_one(node: Node, second: int) -> None:
    """A second of a node."""
    value = float(second % 7)
    await node.measure({"x": value})
    for name in NAMES:
        await node.measure({name: value})


async def fill(nodes: list[Node]) -> None:
    """Give the windows samples of their whole length, and none from before: a window with too few is undecided."""
    now = time.monotonic_ns()
    for node in nodes:
        node._runtime.measurements.put(dict.fromkeys(NAMES), now)
    for age in range(WINDOW_SECONDS + 1, 0, -EVERY):
        for node in nodes:
            values = dict.fromkeys(NAMES, 1.0)
            node._runtime.measurements.put(values, now - age * 10**9)
            await asyncio.sleep(0)


async def share(nodes: list[Node], work: Callable[[Node, int], Awaitable[None]], rest: float = 0.0) -> float:
    """% of a core a node, while each node does this work once a second, without that at rest."""
    for second in range(WARM_UP):
        for node in nodes:
            await work(node, second)
    begun, before, worked = time.monotonic(), time.process_time(), 0.0
    for second in range(SECONDS):
        began = time.process_time()
        for node in nodes:
            await work(node, second)
        worked += time.process_time() - began
        await asyncio.sleep(max(0.0, begun + second + 1 - time.monotonic()))
    beside = (time.process_time() - before - worked) / (time.monotonic() - begun)  # on a busy machine a round takes longer
    return (worked / SECONDS + beside) * 100 / NODES - rest


async def nothing(_: Node, __: int) -> None:
    """A second at rest."""


async def measured() -> list[Row]:
    """The rows."""
    async with fleet() as nodes:
        rest = await share(nodes, nothing)
        found = [Row("a node at rest", rest, "% of a core")]
        for name, text in (("", OF_VALUES), (", with a window of 5 minutes", OF_WINDOWS)):
            await define(nodes[0], text)
            while any(  # noqa: ASYNC110
                len(node.gossip.state.constraints) < PLAIN + VARIABLES for node in nodes
            ):
                await asyncio.sleep(0.1)
            await asyncio.sleep(3.0)  # the last definitions arrive and are read
            if name:
                await fill(nodes)
                await asyncio.sleep(3.0)
            for how, work in (("at once", all_at_once), ("one by one", one_by_one)):
                part = await share(nodes, work, rest)
                if any(each.state != "holds" for node in nodes for each in node.constraints() if each.id.startswith("each")):
                    raise SystemExit("an instance is undecided, or violated: these are not the numbers of a fleet at work")
                found.append(Row(f"1,000 instances and 500 parameters, measured {how}{name}", part, "% of a core", MOST))
        return found


def rows() -> list[Row]:
    """The table."""
    logging.getLogger("constraint_crdt").setLevel(logging.ERROR)
    return asyncio.run(measured())


if __name__ == "__main__":
    sys.exit(run(__doc__, rows))
