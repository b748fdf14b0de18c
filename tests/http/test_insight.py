"""The routes for answers from evidence: their shapes, that waiting ends, and what is refused."""

import asyncio
import time

import httpx
import pytest

from constraint_crdt.insight import evidence
from constraint_crdt.runtime.node import Node


async def test_coverage_of_a_constraint_and_of_all(node: Node, client: httpx.AsyncClient) -> None:
    await node.add_constraint("a/b %", when="x < 1.0")
    one = (await client.get("/v1/coverage/a%2Fb%20%25")).json()
    assert (one["id"], one["have"], one["lack"], one["unknown"], one["met"]) == ("a/b %", 1, 0, 0, None)
    (each,) = one["nodes"]
    assert (each["node"], each["holds"], each["live"], each["behind"]) == ("forge", True, True, 0)
    (added,) = node.gossip.state.constraints.additions("a/b %")
    assert one["dots"] == [f"{node.gossip.replica}:{added.dot.seq}"]
    every = (await client.get("/v1/coverage")).json()
    assert (every["id"], every["change"], every["have"]) == (None, "definitions", 1)


@pytest.mark.slow
async def test_waiting_is_over_when_enough_have_it_or_the_time_is(node: Node, client: httpx.AsyncClient) -> None:
    await node.add_constraint("x")
    answer = (await client.get("/v1/coverage/x", params={"wait": "majority", "timeout": "20"})).json()
    assert (answer["met"], answer["wanted"]) == (True, 1)
    began = time.monotonic()
    answer = (await client.get("/v1/coverage/x", params={"wait": "2", "timeout": "0.2"})).json()
    assert (answer["met"], answer["wanted"]) == (False, 2)
    assert 0.2 <= time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("query", "field"),
    [({"wait": "some"}, "wait"), ({"wait": "0"}, "wait"), ({"wait": "-1"}, "wait"), ({"timeout": "x"}, "timeout")]
    + [({"timeout": text}, "timeout") for text in ("-1", "nan", "301", "inf")]
    + [({"wiat": "all"}, "wiat")],
)
async def test_wrong_questions_are_refused(node: Node, client: httpx.AsyncClient, query: dict[str, str], field: str) -> None:
    await node.add_constraint("x")
    answer = await client.get("/v1/coverage/x", params=query)
    assert (answer.status_code, answer.json()["field"]) == (422, field)


async def test_what_is_not_known_is_not_found(client: httpx.AsyncClient) -> None:
    for path in ("/v1/coverage/none", "/v1/coverage/none?wait=all", "/v1/explain/none"):
        answer = await client.get(path)
        assert (answer.status_code, "'none'" in answer.json()["detail"]) == (404, True)


async def test_too_many_that_wait_are_told_to_come_back(
    node: Node, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "WAITING", 1)
    await node.add_constraint("x")
    waiting = asyncio.create_task(node.coverage.wait("x", 2, 30))
    await asyncio.sleep(0)
    answer = await client.get("/v1/coverage/x", params={"wait": "1"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


@pytest.mark.slow
async def test_the_other_answers_have_their_shapes(node: Node, client: httpx.AsyncClient) -> None:
    await node.add_constraint("x", when="v < 1.0")
    await node.check({"v": 2})
    explained = (await client.get("/v1/explain/x")).json()
    assert (explained["active"], explained["coverage"]["have"], len(explained["lately"])) == (True, 1, 3)
    assert [(each["node"], each["violated"], each["exact"]) for each in explained["violations"]] == [("forge", True, True)]
    assert (await client.get("/v1/convergence")).json() == {
        "node": "forge", "peers": [], "same": 0, "live": 0, "staleness_p50": None, "staleness_p99": None
    }  # fmt: skip
    assert (await client.get("/v1/diagnosis")).json()["worst"] == "ok"
    assert (await client.get("/v1/alerts")).json()["rules"] == []
