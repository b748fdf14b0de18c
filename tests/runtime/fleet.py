"""A fleet of real nodes on one in-memory network, and how to wait for something to become true of it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random

import pytest

from constraint_crdt import MemoryNetwork, Node, NodeSettings

QUICK = NodeSettings(name="unnamed", check_every=0.02, count_every=0.04, gossip_every=0.02, max_age=600.0, request_timeout=0.5)
"""Settings that make everything happen soon."""


def stop_clocks(patch: pytest.MonkeyPatch) -> None:
    """Let the clocks in ns of this process stand still. By them a message takes no time, on a busy machine too."""
    wall, steady = time.time_ns(), time.monotonic_ns()
    patch.setattr(time, "time_ns", lambda: wall)
    patch.setattr(time, "monotonic_ns", lambda: steady)


async def eventually(what: Callable[[], object], within: float = 30.0) -> None:
    """Return once `what()` is true; fail after `within` seconds. It polls: what it waits for has no single event to wait on."""
    async with asyncio.timeout(within):
        while not what():  # noqa: ASYNC110 - the condition is about many nodes at once, none of which could set an event
            await asyncio.sleep(0.005)


@asynccontextmanager
async def fleet(*names: str, network: MemoryNetwork | None = None, settings: NodeSettings = QUICK) -> AsyncIterator[list[Node]]:
    """Nodes of these names, started on one network, each seeing all others."""
    network = network or MemoryNetwork()
    async with AsyncExitStack() as stack:
        nodes = [
            Node(name=name, settings=settings, transport=network.transport(), random=Random(index))
            for index, name in enumerate(names)
        ]
        for node in nodes:
            await stack.enter_async_context(node)
        await eventually(lambda: all(len(node._runtime.exchanges.live) == len(names) - 1 for node in nodes))
        yield nodes


def agreed(nodes: list[Node]) -> bool:
    """True if all nodes know the same, and know that they do: `converged` of their status, without the rest of it, which takes
    a millisecond a look.
    """
    hashes = {node.gossip.state_hash for node in nodes}
    return len(hashes) == 1 and all(
        node.gossip.tracker.hash(name) in hashes for node in nodes for name in node._runtime.exchanges.live
    )
