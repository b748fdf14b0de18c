"""The API where something is wrong: every mistake is a problem that names it, changes nothing, and shows nothing of the inside."""

import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from constraint_crdt.operations.operation import MAX_BODY_BYTES
from constraint_crdt.runtime.node import Node

JSON = {"content-type": "application/json"}


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["status"] == status
    assert body["type"] == "about:blank"
    assert body["title"]
    assert "Traceback" not in body["detail"]
    return body


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "body", "field", "says"),
    [
        ("constraints", {"id": "x", "wen": "a < 1"}, "wen", "there are id, when, severity, about"),
        ("constraints", {"when": "a < 1.0"}, "id", "missing"),
        ("constraints", {"id": 7}, "id", "`str`"),
        ("constraints", {"id": ""}, "id", "1 to 256 bytes"),
        ("constraints", {"id": "x" * 257}, "id", "257"),
        ("constraints", {"id": "x", "severity": "fatal"}, "severity", "info, warning, critical"),
        ("constraints", {"id": "x", "about": "y" * 1025}, "about", "1024"),
        ("constraints", {"id": "x", "when": "gpu_temp_c * 2 < 85"}, "when", "2.0"),
        ("constraints", {"id": "x", "when": "a <"}, "when", "column"),
        ("constraints", {"id": "x", "when": "a" * 1025}, "when", "1024"),
        ("constraints", ["x"], None, "must be an object"),
        ("record", {"satisfied": -1}, "satisfied", "cannot be negative"),
        ("record", {"violations": 1.5}, "violations", "`int`"),
        ("record", {"violations": 2**63}, None, ""),
        ("record", {"count": 1}, "count", "satisfied, violations, constraint"),
        ("check", {}, "values", "missing"),
        ("check", {"values": [1]}, "values", "`object`"),
        ("measure", {"values": {"a b": 1}}, None, "a b"),
        ("check", {"values": {"true": 1}}, None, "reserved word"),
        ("measure", {"values": {"x": "y" * 5000}}, None, "4096"),
    ],
)
async def test_a_wrong_field_is_named(
    client: httpx.AsyncClient, node: Node, path: str, body: object, field: str | None, says: str
) -> None:
    before = node.status().hash
    answer = problem(await client.post(f"/v1/{path}", json=body), 422)
    assert answer.get("field") == field
    assert says in answer["detail"]
    assert node.status().hash == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "content",
    [b"", b"{", b'{"id": "x"} x', b'{"id": "\xff"}', b'{"id": "\\ud800"}', b'{"id": "x", "x": NaN}', b'{"values":' * 50_000],
)
async def test_what_is_not_json_is_refused(client: httpx.AsyncClient, content: bytes) -> None:
    answer = await client.post("/v1/constraints", content=content, headers=JSON)
    assert problem(answer, answer.status_code)["detail"]
    assert answer.status_code in (400, 422)


@pytest.mark.slow
async def test_nesting_without_end_is_refused(client: httpx.AsyncClient) -> None:
    content = b'{"values":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}}"
    assert "nested" in problem(await client.post("/v1/check", content=content, headers=JSON), 400)["detail"]


@pytest.mark.slow
@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonp"])
async def test_only_what_is_said_to_be_json_is_read(client: httpx.AsyncClient, content_type: str | None) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    answer = await client.post("/v1/constraints", content=b'{"id": "x"}', headers=headers)
    assert "application/json" in problem(answer, 415)["detail"]


async def test_json_may_name_its_charset(client: httpx.AsyncClient) -> None:
    headers = {"content-type": "application/json; charset=utf-8"}
    assert (await client.post("/v1/constraints", content=b'{"id": "x"}', headers=headers)).status_code == 201


@pytest.mark.slow
async def test_a_body_too_large_is_refused_by_its_length(client: httpx.AsyncClient) -> None:
    problem(await client.post("/v1/constraints", content=b" " * (MAX_BODY_BYTES + 1), headers=JSON), 413)


@pytest.mark.slow
async def test_a_body_too_large_is_refused_without_a_length(client: httpx.AsyncClient) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 10 * MAX_BODY_BYTES:
            sent += 65536
            yield b" " * 65536

    answer = await client.post("/v1/constraints", content=endless(), headers=JSON)
    assert "content-length" not in answer.request.headers
    problem(answer, 413)
    assert sent < 2 * MAX_BODY_BYTES


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/", "/v1", "/v1/", "/v1/nope", "/v1/status/", "/v2/status", "/v1/constraints/"])
async def test_an_unknown_path_is_not_found(client: httpx.AsyncClient, path: str) -> None:
    assert path in problem(await client.get(path), 404)["detail"]


@pytest.mark.slow
async def test_an_unknown_id_is_not_found(client: httpx.AsyncClient, node: Node) -> None:
    assert "'nope'" in problem(await client.delete("/v1/constraints/nope"), 404)["detail"]
    answer = problem(await client.post("/v1/record", json={"satisfied": 1, "constraint": "nope"}), 404)
    assert answer["field"] == "constraint"
    assert node.status().satisfied == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/v1/status", "GET"),
        ("PUT", "/v1/constraints", "POST"),
        ("GET", "/v1/constraints/x", "DELETE"),
        ("GET", "/v1/check", "POST"),
    ],
)
async def test_another_method_is_refused_and_the_right_one_named(
    client: httpx.AsyncClient, method: str, path: str, allowed: str
) -> None:
    answer = await client.request(method, path)
    assert allowed in problem(answer, 405)["detail"]
    assert allowed in answer.headers["allow"]


@pytest.mark.slow
async def test_a_fault_of_the_node_is_logged_and_not_shown(
    client: httpx.AsyncClient, node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise ZeroDivisionError("the secret inside")

    monkeypatch.setattr(node, "status", fail)
    with caplog.at_level(logging.ERROR):
        answer = problem(await client.get("/v1/status"), 500)
    assert "secret" not in answer["detail"]
    assert any(record.exc_info and "/v1/status" in record.getMessage() for record in caplog.records)
