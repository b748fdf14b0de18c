"""A real node behind a real server."""

from collections.abc import AsyncIterator

import pytest

from constraint_crdt.http.server import ApiServer
from constraint_crdt.runtime.node import Node
from constraint_crdt.transport.memory import MemoryNetwork


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    async with Node(name="forge", transport=MemoryNetwork().transport()) as running:
        yield running


@pytest.fixture
async def api(node: Node) -> AsyncIterator[ApiServer]:
    async with ApiServer(node, "127.0.0.1", 0) as serving:
        yield serving
