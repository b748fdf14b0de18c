"""`GET /v1/export` and `POST /v1/import`."""

import httpx
import pytest

from constraint_crdt import ConstraintState, from_json, to_json
from constraint_crdt.operations import service
from constraint_crdt.runtime.node import Node

JSON = {"content-type": "application/json"}


def text() -> str:
    state = ConstraintState()
    state.constraints.add("thermal", node="anvil")
    return to_json(state)


async def test_a_state_goes_out_and_in(client: httpx.AsyncClient, node: Node) -> None:
    answer = await client.post("/v1/import", content=text(), headers=JSON)
    assert (answer.status_code, answer.json()) == (200, {"changed": True, "cells": 1, "constraints": 1})
    out = await client.get("/v1/export")
    assert (out.status_code, out.headers["content-type"], out.headers["cache-control"]) == (200, "application/json", "no-store")
    assert from_json(out.content) == node.gossip.state
    answer = await client.post("/v1/import", content=out.content, headers=JSON)
    assert answer.json() == {"changed": False, "cells": 0, "constraints": 0}


@pytest.mark.parametrize(
    ("body", "says", "field"),
    [
        ("", "is empty", None),
        ("{", "not JSON", None),
        ("[]", "no state file", None),
        (text().replace('"version":1', '"version":9'), "newer version", None),
        (text().replace('"seq":1', '"seq":-1'), "seq from 1", "rows[0].seq"),
        (text().replace('"node":"anvil"', '"node":"anvel"'), "damaged", None),
    ],
)
async def test_what_is_no_state_is_a_problem(
    client: httpx.AsyncClient, node: Node, body: str, says: str, field: str | None
) -> None:
    before = node.gossip.state_hash
    answer = await client.post("/v1/import", content=body, headers=JSON)
    assert answer.status_code == 422
    assert says in answer.json()["detail"]
    assert answer.json().get("field") == field
    assert node.gossip.state_hash == before


async def test_a_body_that_is_too_large_or_no_json_is_refused(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await client.post("/v1/import", content=text(), headers={"content-type": "text/plain"})).status_code == 415
    monkeypatch.setattr(service.IMPORT_STATE.body, "limit", 100)
    answer = await client.post("/v1/import", content=text(), headers=JSON)
    assert (answer.status_code, "more than 100 bytes" in answer.json()["detail"]) == (413, True)
