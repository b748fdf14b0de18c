"""Many readers at once, small: the node gossips on, misses no exchange, and keeps nothing. (`benchmarks/api.py` has it in full.)"""

import asyncio

import pytest

from constraint_crdt.client import AsyncClient, Happened
from constraint_crdt.http.server import ApiServer
from constraint_crdt.runtime.node import Node
from constraint_crdt.runtime.settings import NodeSettings
from constraint_crdt.transport import MemoryNetwork

STREAMS = 60
READS = 600


@pytest.mark.long
async def test_it_gossips_on_under_many_streams_and_reads() -> None:
    network = MemoryNetwork()
    patient = NodeSettings(request_timeout=30.0)  # readers, server and both nodes share one loop here: late is not missed
    async with (
        Node(name="forge", transport=network.transport(), settings=patient) as node,
        Node(name="anvil", transport=network.transport(), settings=patient) as other,
        ApiServer(node, "127.0.0.1", 0) as api,
        AsyncClient(api.url) as client,
    ):
        feed = api._feed
        assert feed is not None

        async def follow() -> list[str]:
            found: list[str] = []
            async for heard in client.events():
                if isinstance(heard, Happened) and heard.event.constraint:
                    found.append(heard.event.constraint)
                    if heard.event.constraint == "last":
                        break
            return found

        async def read() -> None:
            for _ in range(READS // 20):
                assert (await client.status()).node == "forge"

        following = [asyncio.create_task(follow()) for _ in range(STREAMS)]
        while feed.readers < STREAMS:  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.005)
        before = node.status().exchanges
        reading = asyncio.gather(*(read() for _ in range(20)))
        names = [f"c{number}" for number in range(10)]
        for name in names:
            await other.add_constraint(name)
        await reading
        await other.add_constraint("last")
        heard = await asyncio.wait_for(asyncio.gather(*following), 30)
        assert all(sorted(each) == sorted([*names, "last"]) for each in heard)
        assert feed.dropped == 0
        async with asyncio.timeout(10):
            while node.status().exchanges <= before:  # noqa: ASYNC110 - the node has no event for it
                await asyncio.sleep(0.01)
        while feed.readers:  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.005)
        assert node.metrics.report().exchanges_failed == 0
