"""The OpenAPI document says all that it said before the operations were declared in one place."""

import json
from pathlib import Path
from typing import Any

import httpx

BEFORE = Path(__file__).parent / "data" / "openapi.json"


SCHEMAS = "/components/schemas/"
"""Where descriptions are the docstrings of structs, which may be worded anew."""


def lost(before: Any, now: Any, place: str = "") -> list[str]:
    """The places where the new document differs from the old one. Additions to objects are no loss; lists must be equal."""
    if place.startswith(SCHEMAS) and place.endswith("/description"):
        return [] if now else [f"{place} is empty"]
    if isinstance(before, dict) and isinstance(now, dict):
        missing = [f"{place}/{key} is gone" for key in before if key not in now]
        return missing + [each for key in before if key in now for each in lost(before[key], now[key], f"{place}/{key}")]
    return [] if before == now else [f"{place} was {before!r}, and is {now!r}"]


async def test_the_document_has_lost_nothing(client: httpx.AsyncClient) -> None:
    now = (await client.get("/openapi.json")).json()
    assert lost(json.loads(BEFORE.read_text()), now) == []


def test_a_loss_is_found() -> None:
    before = {"paths": {"/x": {"get": {"tags": ["a"], "summary": "S."}}}}
    assert lost(before, {"paths": {"/x": {"get": {"tags": ["a"], "summary": "S.", "new": 1}}}}) == []
    assert lost(before, {"paths": {}}) == ["/paths//x is gone"]
    assert len(lost(before, {"paths": {"/x": {"get": {"tags": ["b"], "summary": "T."}}}})) == 2
