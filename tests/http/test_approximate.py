"""`/v1/top`, `/v1/sketches` and `/v1/seen`: what they answer, and what is refused with the name of the field."""

import httpx
import pytest

from constraint_crdt.runtime.node import Node

from .test_problems import problem


@pytest.mark.slow
async def test_the_top_of_violations_stands_beside_the_exact_counts(client: httpx.AsyncClient, node: Node) -> None:
    assert (await client.get("/v1/top")).json()["items"] == []
    await node.add_constraint("hot")
    await node.add_constraint("fast")
    await client.post("/v1/record", json={"violations": 3, "constraint": "hot"})
    await client.post("/v1/record", json={"violations": 1, "constraint": "fast"})
    answer = await client.get("/v1/top?k=1")
    assert answer.headers["cache-control"] == "private, no-cache"
    body = answer.json()
    [item] = body["items"]
    assert (body["of"], body["total"], body["saturated"]) == ("violations", 4, False)
    assert item == {"item": "hot", "estimate": 3, "lower": 3, "upper": 3, "share": 0.75, "exact": 3}


async def test_any_items_can_be_tallied(client: httpx.AsyncClient, node: Node) -> None:
    answer = await client.post("/v1/sketches/a%2Fb", json={"items": {"x": 2, "y": 5}})
    assert (answer.status_code, answer.json()) == (200, {"name": "a/b", "recorded": 7, "total": 7})
    top = (await client.get("/v1/top", params={"of": "a/b"})).json()
    assert [(each["item"], each["estimate"], each["exact"]) for each in top["items"]] == [("y", 5, None), ("x", 2, None)]
    assert node.gossip.state.sketches["a/b"].estimate("y") == 5


async def test_a_filter_is_begun_and_asked(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/seen/jobs", json={"items": ["17", "a b&c"], "expected_items": 1000, "fp_rate": 0.01})
    assert answer.status_code == 200
    assert (answer.json()["items"], answer.json()["new"]) == (2, 2)
    found = await client.get("/v1/seen/jobs", params={"item": "a b&c"})
    assert (found.json()["seen"], found.json()["item"]) == (True, "a b&c")
    assert not (await client.get("/v1/seen/jobs?item=18")).json()["seen"]
    assert (await client.post("/v1/seen/jobs", json={"items": ["17"]})).json()["new"] == 0


@pytest.mark.parametrize(
    ("path", "status", "field", "says"),
    [
        ("top?k=0", 422, "k", "from 1 to 1000"),
        ("top?k=1001", 422, "k", "from 1 to 1000"),
        ("top?k=x", 422, "k", "whole number"),
        ("top?k=-1", 422, "k", "whole number"),
        ("top?k=٣", 422, "k", "whole number"),
        ("top?k=" + "9" * 5000, 422, "k", "whole number"),
        ("top?of=none", 404, "of", "no sketch 'none'"),
        ("top?n=3", 422, "n", "there is k, of"),
        ("seen/jobs", 422, "item", "is missing"),
        ("seen/jobs?item=1", 404, None, "no filter 'jobs'"),
        ("seen/jobs?items=1", 422, "items", "there is item"),
        ("seen/", 404, None, "nothing at"),
    ],
)
async def test_a_wrong_question_is_named(client: httpx.AsyncClient, path: str, status: int, field: str | None, says: str) -> None:
    body = problem(await client.get(f"/v1/{path}"), status)
    assert body.get("field") == field
    assert says in body["detail"]


@pytest.mark.parametrize(
    ("path", "body", "field", "says"),
    [
        ("sketches/s", {}, "items", "missing"),
        ("sketches/s", {"items": ["x"]}, "items", "`object`"),
        ("sketches/s", {"items": {"x": 1.5}}, None, "`int`"),
        ("sketches/s", {"items": {"x": -1}}, "items", "cannot be negative"),
        ("sketches/s", {"items": {"x": 2**63}}, None, "2**63 - 1"),
        ("sketches/s", {"items": {"": 1}}, None, "an item must have 1 to 256 bytes"),
        ("sketches/s", {"items": {}, "count": 1}, "count", "there are items"),
        ("sketches/violations", {"items": {"x": 1}}, None, "what nodes count themselves"),
        ("sketches/" + "n" * 257, {"items": {"x": 1}}, None, "1 to 256 bytes"),
        ("sketches/a%1Fb", {"items": {"x": 1}}, None, "U+001F"),
        ("seen/f", {"items": "x"}, "items", "`array`"),
        ("seen/f", {"items": [7]}, None, "`str`"),
        ("seen/f", {"items": ["x"], "expected_items": 0}, None, "1 to 50331648 items"),
        ("seen/f", {"items": ["x"], "fp_rate": 1}, None, "above 0 and below 1"),
        ("seen/f", {"items": [str(number) for number in range(10_001)]}, None, "more than the 10000"),
    ],
)
async def test_a_wrong_body_is_refused_whole(
    client: httpx.AsyncClient, node: Node, path: str, body: object, field: str | None, says: str
) -> None:
    before = node.status().hash
    answer = problem(await client.post(f"/v1/{path}", json=body), 422)
    if field is not None:
        assert answer["field"] == field
    assert says in answer["detail"]
    assert node.status().hash == before


async def test_a_filter_is_not_opened_with_other_dimensions(client: httpx.AsyncClient) -> None:
    await client.post("/v1/seen/f", json={"items": ["x"], "expected_items": 1000})
    body = problem(await client.post("/v1/seen/f", json={"items": ["y"], "expected_items": 2000}), 422)
    assert "with other dimensions" in body["detail"]
