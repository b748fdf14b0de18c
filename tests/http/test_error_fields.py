"""An error carries its field as data, from the check that raises it to the problem that a client gets."""

import httpx
import pytest

from constraint_crdt.crdt.limits import ABOUT_BYTES, ID_BYTES, LABELS
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.runtime.node import Node

LONG = "x" * (ID_BYTES + 1)


async def field_of(node: Node, **given: object) -> str | None:
    """The field that an addition out of bounds names."""
    with pytest.raises(ConstraintCrdtError) as raised:
        await node.add_constraint(**({"id_": "c"} | given))  # type: ignore[arg-type]
    return raised.value.field


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("id", {"id_": LONG}),
        ("severity", {"severity": "dire"}),
        ("about", {"about": "x" * (ABOUT_BYTES + 1)}),
        ("on", {"on": {LONG: "a"}}),
        ("on", {"on": {"a": LONG}}),
        ("on", {"on": {f"k{number}": "v" for number in range(LABELS + 1)}}),
        ("ttl", {"ttl": 0.0}),
        ("ttl", {"ttl": 1.0, "until": 1}),
        ("until", {"until": 1}),
        ("for", {"when": "x < 1.0", "for_": -1}),
        ("clear_after", {"when": "x < 1.0", "clear_after": 1e10}),
        ("clear_when", {"when": "x < 1.0", "clear_when": "x" * 1025}),
        ("clear_when", {"clear_when": "x < 1.0"}),
        ("when", {"when": "x <"}),
        ("if_unknown", {"when": "x < 1.0", "if_unknown": "dire"}),
        ("max_age", {"when": "x < 1.0", "max_age": 0}),
    ],
)
async def test_a_definition_out_of_bounds_names_its_field(node: Node, field: str, given: dict[str, object]) -> None:
    assert await field_of(node, **given) == field


@pytest.mark.parametrize(
    ("field", "body"), [("tags", {"tags": [LONG]}), ("constraints", {"constraints": [""]}), ("author", {"author": LONG})]
)
async def test_a_tile_out_of_bounds_names_its_field(client: httpx.AsyncClient, field: str, body: dict[str, object]) -> None:
    answer = await client.put("/v1/tiles/hall/map", json={"text": "x", **body})
    assert (answer.status_code, answer.json()["field"]) == (422, field)


async def test_an_edit_out_of_bounds_names_the_field_of_its_body(client: httpx.AsyncClient, node: Node) -> None:
    await node.tiles.put("hall", "map", "x")
    for field in ("add_tags", "add_constraints"):
        answer = await client.patch("/v1/tiles/hall/map", json={field: [LONG]})
        assert (answer.status_code, answer.json()["field"]) == (422, field)


def test_an_error_without_a_field_has_none() -> None:
    assert ConstraintCrdtError("x").field is None
    assert ConstraintCrdtError("x", field="about").field == "about"
    assert str(ConstraintCrdtError("x", field="about")) == "x"
