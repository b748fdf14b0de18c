"""Ends and selectors over the API: what is asked for is what is added, what is wrong is named, and what expired is listed apart."""

import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from constraint_crdt.http import make_app
from constraint_crdt.runtime.node import Node
from constraint_crdt.transport import MemoryNetwork
from tests.http.conftest import BASE
from tests.runtime.fleet import QUICK, eventually, stop_clocks

SECOND = 1_000_000_000


class Wall:
    """A clock that the test can set ahead."""

    def __init__(self) -> None:
        self.ahead = 0

    def __call__(self) -> int:
        return time.time_ns() + self.ahead


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
async def timed(wall: Wall) -> AsyncIterator[httpx.AsyncClient]:
    async with Node(name="forge", transport=MemoryNetwork().transport(), labels={"zone": "a"}, now=wall) as node:
        transport = httpx.ASGITransport(app=make_app(node))
        async with httpx.AsyncClient(transport=transport, base_url=BASE) as asking:
            yield asking


async def listed(client: httpx.AsyncClient, query: str = "") -> dict[str, Any]:
    answer = await client.get(f"/v1/constraints{query}")
    assert answer.status_code == 200
    return {each["id"]: each for each in answer.json()}


@pytest.mark.slow
async def test_a_constraint_has_an_end_and_labels(timed: httpx.AsyncClient) -> None:
    before = time.time_ns()
    body = {"id": "lease", "ttl": 90, "on": {"zone": "a"}}
    assert (await timed.post("/v1/constraints", json=body)).json()["change"] == "added"
    assert (await timed.post("/v1/constraints", json=body)).json()["change"] == "extended"
    await timed.post("/v1/constraints", json={"id": "until", "until": "2099-01-01T01:00:00+01:00"})
    await timed.post("/v1/constraints", json={"id": "elsewhere", "on": {"zone": "b"}})
    found = await listed(timed)
    assert before + 90 * SECOND <= found["lease"]["expires_at"] <= time.time_ns() + 90 * SECOND
    assert before <= found["lease"]["added_at"] <= time.time_ns()
    assert (found["lease"]["on"], found["lease"]["applies_here"]) == ({"zone": "a"}, True)
    assert (found["elsewhere"]["expires_at"], found["elsewhere"]["applies_here"]) == (None, False)
    assert found["until"]["expires_at"] == 4_070_908_800 * SECOND
    [node] = (await timed.get("/v1/nodes")).json()
    assert (node["labels"], node["clock_offset"]) == ({"zone": "a"}, None)
    status = (await timed.get("/v1/status")).json()
    assert (status["clock_alarms"], status["clock_in_doubt"]) == (0, False)


@pytest.mark.slow
async def test_what_has_expired_is_listed_apart(timed: httpx.AsyncClient, wall: Wall) -> None:
    await timed.post("/v1/constraints", json={"id": "lease", "ttl": 5, "when": "x < 1.0"})
    await timed.post("/v1/constraints", json={"id": "kept"})
    wall.ahead = 5 * SECOND
    assert (await listed(timed)).keys() == (await listed(timed, "?expired=0")).keys() == {"kept"}
    expired = await listed(timed, "?expired=1")
    assert expired.keys() == {"lease"}
    assert expired["lease"]["when"] == "x < 1.0"
    assert (await timed.delete("/v1/constraints/lease")).status_code == 404
    answer = await timed.get("/v1/constraints?expired=yes")
    assert (answer.status_code, answer.json()["field"]) == (422, "expired")


@pytest.mark.parametrize(
    ("body", "field", "says"),
    [
        ({"ttl": 0}, "ttl", "above 0"),
        ({"ttl": "30m"}, "ttl", "`float"),
        ({"ttl": 4e9}, "ttl", "ten years"),
        ({"ttl": 5, "until": "2030-01-01T00:00:00Z"}, "ttl", "give one of them"),
        ({"until": "2020-01-01T00:00:00Z"}, "until", "not in the future"),
        ({"until": "2030-01-01T00:00:00"}, "until", "needs a time zone"),
        ({"until": "9999-01-01T00:00:00Z"}, "until", "2262"),
        ({"until": "tomorrow"}, "until", "invalid"),
        ({"on": ["zone=a"]}, "on", "`str | object"),
        ({"on": {"zone": 1}}, "on", "`str`"),
        ({"on": {"zone": ""}}, "on", "1 to 256 bytes"),
        ({"on": {str(number): "x" for number in range(33)}}, "on", "at most 32 labels"),
    ],
)
async def test_a_wrong_end_or_label_is_named(timed: httpx.AsyncClient, body: dict[str, Any], field: str, says: str) -> None:
    answer = await timed.post("/v1/constraints", json={"id": "c", **body})
    assert answer.status_code == 422
    assert (answer.json()["field"] or "").partition("[")[0] == field
    assert says in answer.json()["detail"]
    batch = await timed.post("/v1/batch", json={"changes": [{"add": {"id": "c", **body}}]})
    assert batch.status_code == 422
    assert (batch.json()["field"] or "").startswith(f"changes[0].add.{field}")
    assert await listed(timed) == {}


@pytest.mark.slow
async def test_an_end_where_the_node_does_not_know_the_time_is_a_conflict_and_by_the_fleets_time_a_note(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stop_clocks(monkeypatch)
    network = MemoryNetwork()

    def made(name: str, ahead: int) -> Node:
        return Node(
            name=name,
            settings=QUICK,
            transport=network.transport(),
            now=lambda: time.time_ns() + ahead * SECOND,
            steady=time.monotonic_ns,
        )

    async with made("wrong", 3600) as wrong, made("b", 0) as other:
        transport = httpx.ASGITransport(app=make_app(wrong))
        async with httpx.AsyncClient(transport=transport, base_url=BASE) as asking:
            await eventually(lambda: wrong.status().clock_in_doubt)
            for path, body in (
                ("/v1/constraints", {"id": "gate", "ttl": 1800}),
                ("/v1/batch", {"changes": [{"add": {"id": "gate", "until": "2099-01-01T01:00:00Z"}}]}),
            ):
                answer = await asking.post(path, json=body)
                assert answer.status_code == 409
                assert answer.json()["detail"].startswith("the clock of wrong is in doubt")
            assert (await asking.post("/v1/constraints", json={"id": "gate"})).status_code == 201
            async with made("c", 0):
                await eventually(lambda: wrong.status().fleet_time)
                answer = await asking.post("/v1/constraints", json={"id": "gate", "ttl": 1800})
                assert answer.status_code == 200
                [note] = answer.json()["notes"]
                assert note.endswith("it goes by the fleet's time, -3600.0 s from its own clock")
                answer = await asking.post(
                    "/v1/batch", json={"changes": [{"add": {"id": "gate", "ttl": 900}}, {"add": {"id": "free"}}]}
                )
                assert [each.get("notes", []) for each in answer.json()["results"]] == [[note], []]
        assert other.gossip.state.constraints
