"""`/openapi.json` and `/docs`: they say what there is, and the page needs nothing from elsewhere."""

import re
from typing import Any

import httpx
import pytest

from constraint_crdt.operations import OPERATIONS
from constraint_crdt.operations.operation import AnyOperation


async def document(client: httpx.AsyncClient) -> dict[str, Any]:
    found: dict[str, Any] = (await client.get("/openapi.json")).json()
    return found


@pytest.mark.slow
async def test_the_document_has_every_operation_with_its_problems(client: httpx.AsyncClient) -> None:
    found = await document(client)
    assert found["openapi"].startswith("3.1")
    by_name = {each["operationId"]: each for methods in found["paths"].values() for each in methods.values()}
    assert by_name.keys() == {operation.name for operation in OPERATIONS}
    for operation in OPERATIONS:
        described = by_name[operation.name]
        assert described["summary"] == operation.summary
        assert {str(status) for status in (*operation.answers, *operation.statuses)} <= described["responses"].keys()
        assert ("requestBody" in described) is (operation.body is not None)
    assert by_name["status"]["security"] == [{"token": ["read"]}, {}]
    assert "security" not in by_name["alive"]


@pytest.mark.slow
async def test_every_reference_leads_somewhere(client: httpx.AsyncClient) -> None:
    answer = await client.get("/openapi.json")
    schemas = answer.json()["components"]["schemas"]
    named = set(re.findall(r'"#/components/schemas/([^"]+)"', answer.text))
    assert named <= schemas.keys()
    assert {"Status", "ConstraintReport", "NewConstraint", "ProblemDetails", "Event", "Notice"} <= schemas.keys()


async def test_every_struct_of_the_document_has_a_docstring(client: httpx.AsyncClient) -> None:
    """Of responses, of bodies, and of what is in these."""
    schemas = (await document(client))["components"]["schemas"]
    assert [name for name, schema in schemas.items() if not schema.get("description")] == []


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_what_is_said_of_an_operation_is_worth_reading(operation: AnyOperation) -> None:
    assert re.fullmatch(r"[A-Z].{8,}\.", operation.summary)
    assert operation.request.__doc__
    assert len({parameter.name for parameter in operation.parameters}) == len(operation.parameters)
    assert all(parameter.about for parameter in operation.parameters)


def test_names_and_places_are_there_once() -> None:
    assert len({operation.name for operation in OPERATIONS}) == len(OPERATIONS)
    assert len({(operation.method, operation.path) for operation in OPERATIONS}) == len(OPERATIONS)


async def test_the_page_loads_nothing_from_elsewhere_and_has_nothing_inline(client: httpx.AsyncClient) -> None:
    page = await client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    loaded = re.findall(r'(?:src|href)="([^"]*)"', page.text)
    assert {"docs/docs.js", "docs/docs.css"} <= set(loaded), "relative, for a proxy that shows the page at a path"
    for path in loaded:
        answer = await client.get(path)
        assert answer.status_code == 200, path
        assert "http://" not in answer.text.replace("http://www.w3.org", "") or path == "openapi.json"
        assert "https://" not in answer.text
    assert "<script>" not in page.text
    assert "style=" not in page.text


async def test_health_says_whether_it_takes_part(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await client.get("/healthz")).json() == {"ok": True}
    assert (await client.get("/readyz")).json() == {"ok": True}
    monkeypatch.setattr("constraint_crdt.runtime.persistence.Persistence.trouble", "the disk is full")
    answer = await client.get("/readyz")
    assert (answer.status_code, answer.json()["detail"]) == (503, "the disk is full")
    assert (await client.get("/healthz")).status_code == 200
