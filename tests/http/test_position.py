"""The routes for where the fleet is."""

import httpx
import pytest

from constraint_crdt.runtime.node import Node


async def test_the_fleet_is_moved_and_found(client: httpx.AsyncClient, node: Node) -> None:
    nowhere: dict[str, object] = {"position": None, "norm": None, "by": None, "time": None, "nodes": {}}
    assert (await client.get("/v1/position")).json() == nowhere
    answer = await client.put("/v1/position", json={"position": [-3, 4]})
    there = answer.json()
    assert (answer.status_code, there["position"], there["norm"], there["by"]) == (200, [-3, 4], 37, "forge")
    assert there["nodes"] == {"forge": {"position": [-3, 4], "norm": 37, "distance": 0}}
    assert (await client.get("/v1/position")).json() == there
    assert node.status().position == (-3, 4)
    assert (await client.post("/v1/position", json={"position": [1, 1]})).status_code == 405


@pytest.mark.parametrize("position", [[1], [1, 2, 3], [1.5, 0], ["1", 0], [2**31, 0], [10**30, 0], None, 5])
async def test_what_is_no_position_is_refused(client: httpx.AsyncClient, position: object) -> None:
    answer = await client.put("/v1/position", json={"position": position})
    assert (answer.status_code, answer.json()["field"].partition("[")[0]) == (422, "position")
    assert (await client.get("/v1/position")).json()["position"] is None
