"""A real node behind a real server."""

from collections.abc import AsyncIterator

import pytest

from constraint_crdt.api.server import ApiServer
from constraint_crdt.engine import MemoryNetwork
from constraint_crdt.node.node import Node


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    async with Node(name="forge", transport=MemoryNetwork().transport()) as running:
        yield running


@pytest.fixture
async def api(node: Node) -> AsyncIterator[ApiServer]:
    async with ApiServer(node, "127.0.0.1", 0) as serving:
        yield serving
