"""The OpenAPI document says all that it said before the operations were declared in one place."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

BEFORE = Path(__file__).parent / "data" / "openapi.json"


SCHEMAS = "/components/schemas/"
"""Where descriptions are the docstrings of structs, which may be worded anew."""


SELECTORS = [f"{SCHEMAS}{struct}/properties/on/anyOf" for struct in ("NewConstraint", "AddConstraint")]
"""Fields of requests that take a text, too."""


def lost(before: Any, now: Any, place: str = "", *, is_request: bool = False) -> list[str]:
    """The places where the new document differs from the old one. Additions to objects are no loss; lists must be equal.

    A response may have further fields, always there; a request (without additional properties) may not need further ones.
    """
    if place.endswith(("/description", "/summary")):  # a sentence may be put in other words
        return [] if now else [f"{place} is empty"]
    if isinstance(before, dict) and isinstance(now, dict):
        missing = [f"{place}/{key} is gone" for key in before if key not in now]
        closed = before.get("additionalProperties") is False
        both = [key for key in before if key in now]
        return missing + [each for key in both for each in lost(before[key], now[key], f"{place}/{key}", is_request=closed)]
    if place.endswith("/security") and before == [{"token": ["write"]}, {}]:  # write is two roles now
        return [] if now in ([{"token": ["measure"]}, {}], [{"token": ["operate"]}, {}]) else [f"{place} is {now!r}"]
    if place.startswith(SCHEMAS) and place.endswith("/required") and not is_request:
        before, now = set(before), set(before).intersection(now)
    if place == f"{SCHEMAS}EventKind/enum":  # a reader has to expect further kinds
        before, now = set(before), set(before).intersection(now)
    if place.endswith(("/get/parameters", "/post/parameters", "/delete/parameters")):  # a request may say more, where it need not
        now = [each for each in now if each in before or each["required"]]
    if place in SELECTORS and isinstance(now, list):
        now = [each for each in now if each != {"type": "string"}]
    return [] if before == now else [f"{place} was {before!r}, and is {now!r}"]


@pytest.mark.slow
async def test_the_document_has_lost_nothing(client: httpx.AsyncClient) -> None:
    now = (await client.get("/openapi.json")).json()
    assert lost(json.loads(BEFORE.read_text()), now) == []


def test_a_loss_is_found() -> None:
    before = {"paths": {"/x": {"get": {"tags": ["a"], "summary": "S."}}}}
    assert lost(before, {"paths": {"/x": {"get": {"tags": ["a"], "summary": "S.", "new": 1}}}}) == []
    assert lost(before, {"paths": {}}) == ["/paths//x is gone"]
    assert len(lost(before, {"paths": {"/x": {"get": {"tags": ["b"], "summary": ""}}}})) == 2
