"""Pages of other origins, and names that others point at this machine, get nothing from the API."""

import httpx
import pytest

from constraint_crdt.http import make_app
from constraint_crdt.runtime.node import Node

BODY = {"id": "x"}


@pytest.mark.parametrize("host", ["127.0.0.1:8470", "127.0.0.1", "127.8.8.8:1", "localhost:8470", "LOCALHOST", "[::1]:8470"])
async def test_loopback_is_served(client: httpx.AsyncClient, host: str) -> None:
    assert (await client.get("/v1/status", headers={"host": host})).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example:8470", "127.0.0.1.evil.example", "localhost.evil.example", "192.0.2.1:8470", "", "[::2]"]
)
async def test_another_host_is_refused(client: httpx.AsyncClient, node: Node, host: str) -> None:
    for answer in (
        await client.get("/v1/status", headers={"host": host}),
        await client.post("/v1/constraints", json=BODY, headers={"host": host}),
    ):
        assert answer.status_code == 421
        assert answer.headers["content-type"] == "application/problem+json"
    assert node.constraints() == []


@pytest.mark.parametrize(
    ("bound_to", "host", "served"),
    [
        ("192.0.2.1", "192.0.2.1:8470", True),
        ("192.0.2.1", "192.0.2.2:8470", False),
        ("node.example", "NODE.example:8470", True),
        ("0.0.0.0", "192.0.2.7:8470", True),
        ("::", "[2001:db8::1]:8470", True),
        ("0.0.0.0", "evil.example:8470", False),
        ("192.0.2.1", "localhost", True),
    ],
)
async def test_the_address_bound_to_is_served(node: Node, bound_to: str, host: str, served: bool) -> None:
    transport = httpx.ASGITransport(app=make_app(node, bound_to=bound_to))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        assert ((await client.get("/v1/status", headers={"host": host})).status_code == 200) is served


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://127.0.0.1:8470", "http://127.0.0.1:3000", "http://localhost:8470"]
)
async def test_a_page_of_another_origin_may_not_write(client: httpx.AsyncClient, node: Node, origin: str) -> None:
    await node.add_constraint("kept")
    for answer in (
        await client.post("/v1/constraints", json=BODY, headers={"origin": origin}),
        await client.delete("/v1/constraints/kept", headers={"origin": origin}),
    ):
        assert answer.status_code == 403
    assert [each.id for each in node.constraints()] == ["kept"]


async def test_a_page_of_this_origin_may_write(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/constraints", json=BODY, headers={"origin": "http://127.0.0.1:8470"})
    assert answer.status_code == 201
