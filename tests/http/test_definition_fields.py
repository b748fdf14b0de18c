"""`for`, `clear_after`, `clear_when`, `if_unknown` and `max_age` over the API: added, shown, edited, refused."""

from typing import Any

import httpx
import pytest

from constraint_crdt.crdt.clock import SECOND
from constraint_crdt.runtime.node import Node
from constraint_crdt.types.definition import MEANING, Definition

FIELDS: dict[str, Any] = {
    "for": 30.0,
    "clear_after": 0.5,
    "clear_when": "x < 0.5",
    "if_unknown": "violated",
    "max_age": 5.0,
}
PLAIN: dict[str, Any] = {"for": 0.0, "clear_after": 0.0, "clear_when": None, "if_unknown": "unknown", "max_age": None}
BODY = {"id": "slow", "when": "x < 1.0", **FIELDS}


def shown(report: dict[str, Any]) -> dict[str, Any]:
    return {name: report[name] for name in FIELDS}


async def test_the_fields_are_added_and_every_report_shows_them(client: httpx.AsyncClient, node: Node) -> None:
    answer = await client.post("/v1/constraints", json=BODY)
    assert (answer.status_code, answer.json()["change"]) == (201, "added")
    [found] = (await client.get("/v1/constraints")).json()
    [overview] = (await client.get("/v1/overview")).json()["constraints"]
    [explained] = (await client.get("/v1/explain/slow")).json()["definitions"]
    for report in (found, *found["definitions"], overview, explained):
        assert shown(report) == FIELDS
        assert report["meaning"] == 0
    [definition] = node.gossip.state.constraints.definitions("slow")
    assert (definition.for_, definition.clear_after, definition.max_age) == (30 * SECOND, SECOND // 2, 5 * SECOND)


async def test_a_constraint_without_the_fields_has_their_defaults(client: httpx.AsyncClient) -> None:
    await client.post("/v1/constraints", json={"id": "plain", "when": "x < 1.0"})
    await client.post("/v1/constraints", json={"id": "nulls", "when": "x < 1.0", "for": None, "clear_after": None, "max_age": None})
    for found in (await client.get("/v1/constraints")).json():
        assert shown(found) == PLAIN


@pytest.mark.parametrize("field", FIELDS)
async def test_an_edit_of_one_field_is_an_edit(client: httpx.AsyncClient, field: str) -> None:
    await client.post("/v1/constraints", json=BODY)
    assert (await client.post("/v1/constraints", json=BODY)).json()["change"] == "unchanged"
    fewer = {key: value for key, value in BODY.items() if key != field}
    assert (await client.post("/v1/constraints", json=fewer)).json()["change"] == "replaced"
    [found] = (await client.get("/v1/constraints")).json()
    assert shown(found) == FIELDS | {field: PLAIN[field]}


WRONG: list[tuple[str, object, str]] = [
    ("for", -1, "for must be at least 0 and at most 315360000 seconds (ten years), not -1"),
    ("for", 1e9, "ten years"),
    ("clear_after", -0.5, "clear_after must be at least 0"),
    ("max_age", 0, "max_age must be above 0"),
    ("max_age", -1, "max_age must be"),
    ("clear_when", "x <", "`clear_when`: column "),
    ("clear_when", "size(x)", "bool"),
    ("clear_when", "x" * 1025, "longer than 1024 bytes"),
]


@pytest.mark.parametrize(("field", "value", "says"), WRONG)
async def test_a_field_out_of_bounds_is_named(client: httpx.AsyncClient, field: str, value: object, says: str) -> None:
    answer = await client.post("/v1/constraints", json=BODY | {field: value})
    problem = answer.json()
    assert (answer.status_code, problem["field"]) == (422, field)
    assert says in problem["detail"]
    assert (await client.get("/v1/constraints")).json() == []


@pytest.mark.parametrize(("field", "value"), [("for", "30s"), ("if_unknown", "maybe"), ("clear_when", 3), ("max_age", True)])
async def test_a_field_of_another_type_is_named(client: httpx.AsyncClient, field: str, value: object) -> None:
    answer = await client.post("/v1/constraints", json=BODY | {field: value})
    assert answer.status_code == 422
    assert answer.json()["field"] == field


@pytest.mark.parametrize("field", FIELDS)
async def test_a_field_without_a_when_is_refused(client: httpx.AsyncClient, field: str) -> None:
    answer = await client.post("/v1/constraints", json={"id": "c", field: FIELDS[field]})
    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert f"{field} says how a `when` is evaluated" in answer.json()["detail"]


async def test_an_unknown_field_is_answered_with_the_names_of_the_api(client: httpx.AsyncClient) -> None:
    detail = (await client.post("/v1/constraints", json={"id": "c", "for_": 3})).json()["detail"]
    assert "for, clear_after, clear_when, if_unknown, max_age" in detail


@pytest.mark.slow
async def test_a_batch_takes_the_fields_and_names_the_wrong_one(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/batch", json={"changes": [{"add": BODY}]})
    assert answer.status_code == 200
    [found] = (await client.get("/v1/constraints")).json()
    assert shown(found) == FIELDS
    for field, value, _ in WRONG:
        answer = await client.post("/v1/batch", json={"changes": [{"add": BODY | {field: value}}]})
        assert (answer.status_code, answer.json()["field"]) == (422, f"changes[0].add.{field}")
    for field in FIELDS:
        answer = await client.post("/v1/batch", json={"changes": [{"add": {"id": "c", field: FIELDS[field]}}]})
        assert answer.json()["field"] == f"changes[0].add.{field}"


@pytest.mark.slow
async def test_a_definition_of_a_later_version_is_shown_as_such(client: httpx.AsyncClient, node: Node) -> None:
    later = Definition("x < 1.0", meaning=MEANING + 1, unknown_fields=b"\xc0")
    node.gossip.write(lambda me: node.gossip.state.constraints.put("later", later, node=me))
    [found] = (await client.get("/v1/constraints")).json()
    [explained] = (await client.get("/v1/explain/later")).json()["definitions"]
    for report in (found, found["definitions"][0], explained):
        assert report["meaning"] == MEANING + 1
        assert shown(report) == PLAIN


@pytest.mark.slow
async def test_the_openapi_document_has_the_fields_and_their_bounds(client: httpx.AsyncClient) -> None:
    schemas = (await client.get("/openapi.json")).json()["components"]["schemas"]
    for name in ("NewConstraint", "AddConstraint"):
        fields = schemas[name]["properties"]
        assert fields.keys() >= FIELDS.keys()
        assert not fields.keys() & {"for_"}
        assert {each.get("minimum") for each in fields["for"]["anyOf"]} == {0, None}
    assert schemas["DefinitionReport"]["properties"].keys() >= {*FIELDS, "meaning"}
