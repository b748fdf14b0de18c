"""The API where all goes well: each route does on the node what it says, and answers in the shape it promises."""

from urllib.parse import quote

import httpx
import msgspec
import pytest

from constraint_crdt.operations.constraints import ConstraintReport
from constraint_crdt.operations.nodes import NodeReport, Status
from constraint_crdt.runtime.node import Node


@pytest.mark.slow
async def test_a_constraint_is_added_replaced_and_left_alone(client: httpx.AsyncClient, node: Node) -> None:
    body = {"id": "thermal", "when": "gpu_temp_c < 85.0", "severity": "critical", "about": "hot"}
    added = await client.post("/v1/constraints", json=body)
    assert (added.status_code, added.json()) == (201, {"id": "thermal", "change": "added"})
    same = await client.post("/v1/constraints", json=body)
    assert (same.status_code, same.json()["change"]) == (200, "unchanged")
    edited = await client.post("/v1/constraints", json=body | {"when": "gpu_temp_c < 80.0"})
    assert (edited.status_code, edited.json()["change"]) == (200, "replaced")
    [report] = node.constraints()
    assert (report.id, report.when, report.severity, report.about) == ("thermal", "gpu_temp_c < 80.0", "critical", "hot")


async def test_a_bare_constraint_needs_only_an_id(client: httpx.AsyncClient, node: Node) -> None:
    assert (await client.post("/v1/constraints", json={"id": "c1"})).status_code == 201
    [report] = node.constraints()
    assert (report.when, report.severity, report.about) == (None, "warning", None)


@pytest.mark.parametrize("id_", ["c1", "a/b", "a//b/", "50 % über\nzwei", "..", "?x=1#y", "%2F", "/"])
async def test_any_id_can_be_removed(client: httpx.AsyncClient, node: Node, id_: str) -> None:
    await node.add_constraint(id_)
    await node.add_constraint("other")
    answer = await client.delete(f"/v1/constraints/{quote(id_, safe='')}".replace("/..", "/%2E%2E"))
    assert (answer.status_code, answer.json()) == (200, {"id": id_})
    assert [each.id for each in node.constraints()] == ["other"]


async def test_counts_are_recorded(client: httpx.AsyncClient, node: Node) -> None:
    await node.add_constraint("c1")
    answer = await client.post("/v1/record", json={"satisfied": 3, "violations": 1, "constraint": "c1"})
    assert (answer.status_code, answer.json()) == (200, {"satisfied": 3, "violations": 1, "constraint": "c1"})
    await client.post("/v1/record", json={"satisfied": 2})
    assert (node.status().satisfied, node.status().violations) == (5, 1)


async def test_check_evaluates_and_counts(client: httpx.AsyncClient, node: Node) -> None:
    await node.add_constraint("thermal", when="gpu_temp_c < 85.0")
    await node.add_constraint("speed", when="speed_mps <= 1.5")
    answer = (await client.post("/v1/check", json={"values": {"gpu_temp_c": 91}})).json()
    by_id = {each["constraint"]: each for each in answer["evaluations"]}
    assert (by_id["thermal"]["verdict"], by_id["thermal"]["reason"]) == ("violated", "")
    assert by_id["speed"]["verdict"] == "unknown"
    assert "speed_mps" in by_id["speed"]["reason"]
    assert (node.status().satisfied, node.status().violations) == (0, 1)


@pytest.mark.slow
async def test_measurements_are_what_later_checks_use(client: httpx.AsyncClient, node: Node) -> None:
    await node.add_constraint("speed", when="speed_mps <= 1.5")
    assert (await client.post("/v1/measure", json={"values": {"speed_mps": 1.2}})).json() == {}
    [evaluation] = await node.check({})
    assert evaluation.verdict.value == "satisfied"


@pytest.mark.parametrize(
    ("path", "shape"), [("status", Status), ("constraints", list[ConstraintReport]), ("nodes", list[NodeReport])]
)
async def test_readings_have_the_shape_of_their_reports(client: httpx.AsyncClient, node: Node, path: str, shape: type) -> None:
    await node.add_constraint("c1")
    answer = await client.get(f"/v1/{path}")
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "private, no-cache"
    msgspec.json.decode(answer.content, type=shape)
    assert (await client.head(f"/v1/{path}")).status_code == 200


async def test_the_readings_are_the_nodes(client: httpx.AsyncClient, node: Node) -> None:
    await node.add_constraint("c1")
    status = (await client.get("/v1/status")).json()
    assert (status["node"], status["fleet"], status["constraints"]) == ("forge", "default", 1)
    assert status["constraints_hash"] == node.status().constraints_hash
    assert [each["id"] for each in (await client.get("/v1/constraints")).json()] == ["c1"]
    assert [each["node"] for each in (await client.get("/v1/nodes")).json()] == ["forge"]
