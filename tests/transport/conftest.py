"""Networks for the tests, closed after each."""

from collections.abc import AsyncIterator

import pytest

from .seats import Network


@pytest.fixture(params=["memory", "zenoh"])
async def network(request: pytest.FixtureRequest) -> AsyncIterator[Network]:
    """Each engine in turn."""
    made = Network(request.param)
    yield made
    await made.close()


@pytest.fixture
async def memory() -> AsyncIterator[Network]:
    made = Network("memory")
    yield made
    await made.close()


@pytest.fixture
async def zenoh() -> AsyncIterator[Network]:
    made = Network("zenoh")
    yield made
    await made.close()
