"""The routes for the counters that go up and down."""

import httpx
import pytest


async def test_a_counter_is_moved_and_read(client: httpx.AsyncClient) -> None:
    path = "/v1/counters/parts%2Fleft%20%C3%A9"
    assert (await client.get("/v1/counters")).json() == []
    assert (await client.post(path, json={})).json()["value"] == 1
    answer = await client.post(path, json={"by": -4})
    stands = {"name": "parts/left é", "value": -3, "increments": 1, "decrements": 4, "by_node": {"forge": -3}}
    assert (answer.status_code, answer.json()) == (200, stands)
    assert (await client.get(path)).json() == stands
    assert (await client.get("/v1/counters")).json() == [stands]


@pytest.mark.parametrize(
    ("name", "body", "status", "field"),
    [
        ("x", {"by": 0}, 422, "by"),
        ("x", {"by": 1.5}, 422, "by"),
        ("x", {"by": "1"}, 422, "by"),
        ("x", {"by": 2**63}, 422, "by"),
        ("x", {"by": 10**30}, 422, "by"),
        ("x", {"to": 1}, 422, "to"),
        ("n" * 257, {"by": 1}, 422, None),
    ],
)
async def test_what_is_no_move_is_refused_and_begins_no_counter(
    client: httpx.AsyncClient, name: str, body: dict[str, object], status: int, field: str | None
) -> None:
    answer = await client.post(f"/v1/counters/{name}", json=body)
    assert (answer.status_code, answer.json().get("field")) == (status, field)
    assert (await client.get("/v1/counters")).json() == []
    answer = await client.get(f"/v1/counters/{name}")
    assert (answer.status_code, answer.json()["detail"].startswith("there is no counter")) == (404, True)
