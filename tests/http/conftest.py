"""A real node on a memory network, and a client of its API without a socket between them."""

from collections.abc import AsyncIterator

import httpx
import pytest

from constraint_crdt.http import make_app
from constraint_crdt.runtime.node import Node
from constraint_crdt.runtime.settings import NodeSettings
from constraint_crdt.transport import MemoryNetwork

BASE = "http://127.0.0.1:8470"
SETTINGS = NodeSettings(name="forge", check_every=3600.0)
"""Nothing is counted but what a test has evaluated, however long the test takes."""


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    async with Node(settings=SETTINGS, transport=MemoryNetwork().transport()) as running:
        yield running


@pytest.fixture
async def client(node: Node) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=make_app(node)), base_url=BASE) as asking:
        yield asking
