"""A real node behind a real server."""

from collections.abc import AsyncIterator

import pytest

from constraint_crdt.http.server import ApiServer
from constraint_crdt.runtime.node import Node
from constraint_crdt.runtime.settings import NodeSettings
from constraint_crdt.transport import MemoryNetwork

SETTINGS = NodeSettings(name="forge", check_every=3600.0, count_every=3600.0)
"""Nothing is counted but what a test records, however long the test takes."""


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    async with Node(settings=SETTINGS, transport=MemoryNetwork().transport()) as running:
        yield running


@pytest.fixture
async def api(node: Node) -> AsyncIterator[ApiServer]:
    async with ApiServer(node, "127.0.0.1", 0) as serving:
        yield serving
