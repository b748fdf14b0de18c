"""Long lists come in pages that together are the list."""

from typing import Any
from urllib.parse import unquote

import httpx
import pytest

from constraint_crdt.runtime.node import Node

IDS = ["a", "a/b", "a b&c=d?e#f", "b", "ä", "ω\n"]


async def pages(client: httpx.AsyncClient, path: str) -> list[Any]:
    found, url = [], path
    while True:
        answer = await client.get(url)
        assert answer.status_code == 200, answer.text
        found.append(answer.json())
        if "next" not in answer.links:
            return found
        url = answer.links["next"]["url"]


@pytest.mark.parametrize("limit", [1, 2, 4, 6, 7])
async def test_constraints_in_pages_are_all_of_them(client: httpx.AsyncClient, node: Node, limit: int) -> None:
    for id_ in IDS:
        await node.add_constraint(id_)
    found = await pages(client, f"/v1/constraints?expired=0&limit={limit}")
    assert [each["id"] for page in found for each in page] == sorted(IDS)
    assert all(len(page) == limit for page in found[:-1])


@pytest.mark.slow
async def test_tiles_in_pages_are_all_of_them(client: httpx.AsyncClient, node: Node) -> None:
    places = [(room, id_) for room in IDS[:4] for id_ in IDS[:4]]
    for room, id_ in places:
        await node.tiles.put(room, id_, "x")
    found = await pages(client, "/v1/tiles?limit=3")
    assert [(each["room"], each["id"]) for page in found for each in page] == sorted(places)


async def test_rates_in_pages_are_all_of_them(client: httpx.AsyncClient, node: Node) -> None:
    for id_ in IDS:
        await node.add_constraint(id_)
    await node.record(3, 1)
    found = await pages(client, "/v1/rates?limit=2")
    assert [each["constraint"] for page in found for each in page["constraints"]] == [None, *sorted(IDS)]
    assert len({page["total"]["by_node"]["forge"]["satisfied"] > 0 for page in found}) == 1


async def test_nodes_are_paged(client: httpx.AsyncClient, node: Node) -> None:
    node._runtime.exchanges._live.update({"anvil", "bench"})
    first = await client.get("/v1/nodes?limit=2")
    assert [each["node"] for each in first.json()] == ["anvil", "bench"]
    assert unquote(first.links["next"]["url"]) == "/v1/nodes?limit=2&after=bench"


@pytest.mark.parametrize("path", ["constraints", "nodes", "tiles", "rates"])
@pytest.mark.parametrize("limit", ["0", "-1", "10001", "x", "", "1e3", "\u0661"])
async def test_a_limit_out_of_bounds_is_refused(client: httpx.AsyncClient, path: str, limit: str) -> None:
    answer = await client.get(f"/v1/{path}", params={"limit": limit})
    assert (answer.status_code, answer.json()["field"]) == (422, "limit")


async def test_a_parameter_given_twice_or_unknown_is_refused(client: httpx.AsyncClient) -> None:
    for query, field in (("limit=1&limit=2", "limit"), ("limits=1", "limits")):
        answer = await client.get(f"/v1/constraints?{query}")
        assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert (await client.get("/v1/status?x=1")).status_code == 422


async def test_a_place_that_is_none_is_refused(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v1/tiles?after=x")).json()["field"] == "after"
