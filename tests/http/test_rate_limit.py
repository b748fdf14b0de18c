"""The token bucket per client, against a plain reckoning of it."""

from collections.abc import Sequence

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt.http import make_app
from constraint_crdt.http import security as rate_limit
from constraint_crdt.http.security import BURST, RateLimit
from constraint_crdt.runtime.node import Node
from constraint_crdt.runtime.settings import NodeSettings
from constraint_crdt.transport import MemoryNetwork

RATE = 4.0


class Asking:
    """Asks a limit by a clock that only this moves."""

    def __init__(self) -> None:
        self.time = 0.0
        self.limit = RateLimit(RATE, now=lambda: self.time)

    def ask(self, host: str) -> int:
        """The status of the answer."""
        problem = self.limit.check({"type": "http", "client": (host, 1)})
        return 200 if problem is None else problem.status.value


@given(st.lists(st.tuples(st.floats(0.0, 1.0), st.sampled_from(["192.0.2.1", "192.0.2.2", "::1"])), max_size=60))
def test_each_client_has_its_rate_and_its_burst(asked: Sequence[tuple[float, str]]) -> None:
    asking, left = Asking(), dict.fromkeys(("192.0.2.1", "192.0.2.2", "::1"), RATE * BURST)
    for pause, host in asked:
        asking.time += pause
        left = {each: min(have + pause * RATE, RATE * BURST) for each, have in left.items()}
        expected = 200 if left[host] >= 1.0 else 429
        if abs(left[host] - 1.0) > 1e-9:
            assert asking.ask(host) == expected
        else:
            expected = asking.ask(host)
        left[host] -= expected == 200


def test_an_ipv6_network_is_one_client() -> None:
    asking = Asking()
    statuses = [asking.ask(f"2001:db8:0:1::{number:x}") for number in range(10)]
    assert statuses == [200] * 8 + [429] * 2
    assert asking.ask("2001:db8:0:2::1") == 200


@pytest.mark.slow
def test_the_clients_that_are_remembered_are_bounded() -> None:
    asking = Asking()
    for number in range(rate_limit.MOST_CLIENTS + 10):
        asking.ask(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(asking.limit._buckets) == rate_limit.MOST_CLIENTS


async def test_who_asks_too_often_is_told_when_to_come_back() -> None:
    async with Node(settings=NodeSettings(name="forge", api_rate=1.0), transport=MemoryNetwork().transport()) as node:
        transport = httpx.ASGITransport(app=make_app(node))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8470") as client:
            answers = [await client.get("/v1/status") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].headers["retry-after"] == "1"
    assert "ask again" in answers[2].json()["detail"]
