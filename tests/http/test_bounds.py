"""The bounds that the document tells: of fields that there are, and where the API draws them, inside and outside."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import httpx
import jsonschema_rs
import msgspec
import pytest

from constraint_crdt.crdt.limits import ABOUT_BYTES, DURATION_MAX, ID_BYTES, LABELS, MAX_COUNT, PAGE_BYTES, PAGES, WHEN_BYTES
from constraint_crdt.expression import MAX_VALUE_TEXT_BYTES
from constraint_crdt.http.openapi import FIELDS, STRUCTS
from constraint_crdt.operations import OPERATIONS
from constraint_crdt.operations.counts import MAX_ITEMS
from constraint_crdt.runtime.measurement import MAX_VARIABLES
from constraint_crdt.runtime.node import Node
from constraint_crdt.types.tile_cells import COORDINATE_MAX, COORDINATE_MIN

LONGEST, LONGER = "x" * ID_BYTES, "x" * (ID_BYTES + 1)
BLOOM_MOST = PAGES * PAGE_BYTES * 8
NUMBERED = {f"x{number}": number for number in range(MAX_ITEMS + 1)}

INSIDE_AND_OUTSIDE: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("add", {"id": LONGEST}, {"id": LONGER}),
    ("add", {"id": "x"}, {"id": ""}),
    ("add", {"id": "x", "when": "a < 1.0 ".ljust(WHEN_BYTES)}, {"id": "x", "when": "a < 1.0 ".ljust(WHEN_BYTES + 1)}),
    ("add", {"id": "x", "about": "x" * ABOUT_BYTES}, {"id": "x", "about": "x" * (ABOUT_BYTES + 1)}),
    ("add", {"id": "x", "on": {"k": LONGEST}}, {"id": "x", "on": {"k": LONGER}}),
    ("add", {"id": "x", "on": {LONGEST: "v"}}, {"id": "x", "on": {"": "v"}}),
    (
        "add",
        {"id": "x", "on": {str(number): "v" for number in range(LABELS)}},
        {"id": "x", "on": {str(number): "v" for number in range(LABELS + 1)}},
    ),
    ("add", {"id": "x", "ttl": DURATION_MAX}, {"id": "x", "ttl": DURATION_MAX + 1}),
    ("add", {"id": "x", "ttl": 0.001}, {"id": "x", "ttl": 0}),
    ("add", {"id": "x", "until": "2100-01-01T00:00:00Z"}, {"id": "x", "until": "tomorrow"}),
    ("record", {"satisfied": MAX_COUNT}, {"satisfied": MAX_COUNT + 1}),
    ("record", {"violations": 0}, {"violations": -1}),
    ("batch", {"changes": [{"record": {"satisfied": 0}}]}, {"changes": [{"record": {"satisfied": -1}}]}),
    ("batch", {"changes": [{"add": {"id": "x"}, "remove": None}]}, {"changes": [{"add": {"id": "x"}, "remove": {"id": "x"}}]}),
    ("batch", {"changes": []}, {"changes": [{}]}),
    ("measure", {"values": {"x": "y" * MAX_VALUE_TEXT_BYTES}}, {"values": {"x": "y" * (MAX_VALUE_TEXT_BYTES + 1)}}),
    ("measure", {"values": {LONGEST: 1}}, {"values": {LONGER: 1}}),
    ("measure", {"values": {"robot.speed": 1}}, {"values": {"": 1}}),
    ("measure", {"values": {"type": 1}}, {"values": {"a b": 1}}),
    ("measure", {"values": {"truth": 1}}, {"values": {"true": 1}}),
    ("measure", {"values": {"x": None}}, {"values": {"x": [None], "y.true": 1}}),
    (
        "measure",
        {"values": {f"x{number}": 1 for number in range(MAX_VARIABLES)}},
        {"values": {f"x{number}": 1 for number in range(MAX_VARIABLES + 1)}},
    ),
    ("put_tile", {"text": "", "tags": [LONGEST]}, {"text": "", "tags": [""]}),
    ("put_tile", {"text": "", "constraints": [LONGEST]}, {"text": "", "constraints": [LONGER]}),
    ("put_tile", {"text": "", "author": LONGEST}, {"text": "", "author": LONGER}),
    ("put_tile", {"base64": "eA=="}, {"base64": "eA="}),
    ("put_tile", {"base64": "", "text": None}, {"base64": "", "text": ""}),
    ("put_tile", {"text": ""}, {}),
    ("edit_tile", {"add_tags": [LONGEST]}, {"add_tags": [LONGER]}),
    ("edit_tile", {"add_constraints": ["x"]}, {"add_constraints": [""]}),
    ("move_counter", {"by": MAX_COUNT}, {"by": MAX_COUNT + 1}),
    ("move_counter", {"by": -MAX_COUNT}, {"by": 0}),
    ("move", {"position": [COORDINATE_MIN, COORDINATE_MAX]}, {"position": [COORDINATE_MIN - 1, 0]}),
    ("move", {"position": [0, 0]}, {"position": [0, COORDINATE_MAX + 1]}),
    ("move", {"position": [0, 0]}, {"position": [0, 0, 0]}),
    ("move", {"position": [1.0, -2.0]}, {"position": [1.5, 0]}),
    ("tally", {"items": {LONGEST: MAX_COUNT}}, {"items": {LONGEST: MAX_COUNT + 1}}),
    ("tally", {"items": {"x": 0}}, {"items": {"": 0}}),
    ("tally", {"items": {"x": 1.0}}, {"items": {"x": -1}}),
    ("insert", {"items": [], "expected_items": BLOOM_MOST, "fp_rate": 0.9}, {"items": [], "expected_items": BLOOM_MOST + 1}),
    ("insert", {"items": [], "expected_items": 1}, {"items": [], "expected_items": 0}),
    ("insert", {"items": [], "fp_rate": 0.5}, {"items": [], "fp_rate": 1}),
    ("insert", {"items": [""]}, {"items": [], "fp_rate": 0}),
    ("insert", {"items": list(NUMBERED)[:MAX_ITEMS]}, {"items": list(NUMBERED)}),
]


@cache
def validator_of(shape: str, components: bytes) -> jsonschema_rs.Draft202012Validator:
    """Of a shape in the document. Made once for the tests of a shape: it takes longer than the rest of one."""
    schema = {"$ref": f"#/components/schemas/{shape}", "components": msgspec.json.decode(components)}
    return jsonschema_rs.Draft202012Validator(schema, validate_formats=True)


@cache
def read(content: bytes) -> tuple[dict[str, Any], bytes]:
    """A document, and its components as JSON. It is the same for all nodes, and takes longer to read than the rest of a test."""
    document = msgspec.json.decode(content, type=dict[str, Any])
    return document, msgspec.json.encode(document["components"])


@pytest.fixture
async def documented(client: httpx.AsyncClient) -> tuple[dict[str, Any], bytes]:
    return read((await client.get("/openapi.json")).content)


@pytest.fixture
def document(documented: tuple[dict[str, Any], bytes]) -> dict[str, Any]:
    return documented[0]


@pytest.fixture
def components(documented: tuple[dict[str, Any], bytes]) -> bytes:
    return documented[1]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "inside", "outside"), INSIDE_AND_OUTSIDE)
async def test_the_api_draws_a_bound_where_the_document_does(
    client: httpx.AsyncClient, node: Node, components: bytes, name: str, inside: object, outside: object
) -> None:
    await node.tiles.put("x", "x", "")
    [operation] = [each for each in OPERATIONS if each.name == name]
    assert operation.body is not None
    target = operation.path.replace("{room}", "x").replace("{id}", "x").replace("{name:any_text}", "x")
    validator = validator_of(operation.body.shape.__name__, components)
    for body, fits in ((outside, False), (inside, True)):
        answer = await client.request(operation.method, target, json=body)
        assert answer.status_code in ((200, 201) if fits else (422,)), answer.text
        assert validator.is_valid(body) is fits


@pytest.mark.parametrize(
    ("inside", "outside"),
    [
        ("/v1/coverage?wait=1", "/v1/coverage?wait=0"),
        ("/v1/coverage?wait=majority", "/v1/coverage?wait=01"),
        ("/v1/coverage?timeout=1e1", "/v1/coverage?timeout=1_0"),
        ("/v1/coverage?timeout=300", "/v1/coverage?timeout=301"),
        ("/v1/rates?half_life=300", "/v1/rates?half_life=٣"),
        ("/v1/tiles?after=x/y", "/v1/tiles?after=x"),
        ("/v1/overview?" + "id=x&" * 100, "/v1/overview?" + "id=x&" * 101),
        ("/v1/counters", "/v1/counters?limit=1"),
    ],
)
async def test_the_api_draws_the_bounds_of_a_query(client: httpx.AsyncClient, inside: str, outside: str) -> None:
    assert (await client.get(inside)).status_code == 200
    assert (await client.get(outside)).status_code == 422


@pytest.mark.parametrize("target", ["/v1/counters/{}", "/v1/sketches/{}", "/v1/tiles/{}/x", "/v1/tiles/x/{}"])
async def test_the_api_draws_the_bounds_of_a_path(client: httpx.AsyncClient, target: str) -> None:
    method = "PUT" if "tiles" in target else "POST"
    body: dict[str, object] = {"text": ""} if "tiles" in target else {} if "counters" in target else {"items": {}}
    for text, fits in (
        (LONGEST, True),
        ("%C3%BC" * (ID_BYTES // 2), True),
        (LONGER, False),
        ("%C3%BC" * 129, False),
        ("%1F", "counters" in target),
    ):
        answer = await client.request(method, target.format(text), json=body)
        assert answer.status_code in ((200, 201) if fits else (422,)), (text, answer.text)


@pytest.mark.parametrize("struct", [*FIELDS, *STRUCTS], ids=lambda struct: struct.__name__)
async def test_every_bound_is_of_a_field_that_there_is(document: dict[str, Any], struct: type[msgspec.Struct]) -> None:
    described = document["components"]["schemas"][struct.__name__]
    assert set(described["properties"]) == set(struct.__struct_encode_fields__)
    assert set(FIELDS.get(struct, {})) <= set(struct.__struct_encode_fields__)
    for each in STRUCTS.get(struct, {}).get("oneOf", []):  # type: ignore[attr-defined]
        assert set(each["required"]) <= set(struct.__struct_encode_fields__)
    for field, bound in FIELDS.get(struct, {}).items():
        assert said_of(described["properties"][field]).items() >= {key: bound[key] for key in bound if key not in IN_PARTS}.items()


IN_PARTS = {"items", "additionalProperties", "propertyNames"}


def said_of(schema: dict[str, Any]) -> Mapping[str, Any]:
    """Of a field, or of what is not null in it."""
    found: Mapping[str, Any] = next(each for each in schema.get("anyOf", [schema]) if each != {"type": "null"})
    return found


@pytest.mark.slow
async def test_the_document_is_a_right_schema_without_what_older_tools_take_for_something_else(document: dict[str, Any]) -> None:
    for schema in document["components"]["schemas"].values():
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})
    assert "prefixItems" not in str(document)
