"""The whole API against its own OpenAPI document, by Schemathesis: no fault of the node, and no answer that is not documented.

What it sends is drawn from the document, and half of it is wrong on purpose. `CONSTRAINT_CRDT_BUDGET=nightly` sends more.
"""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.transport import Response
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    status_code_conformance,
    unsupported_method,
)
from schemathesis.specs.openapi.schemas import OpenApiSchema

from constraint_crdt.api.server import ApiServer
from constraint_crdt.api.table import OPERATIONS
from constraint_crdt.engine import MemoryNetwork
from constraint_crdt.node.node import Node
from tests.conftest import BUDGET

EXAMPLES = 8 if BUDGET == "default" else 1000
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    unsupported_method,
]
"""Whether an answer has its documented shape is seen here: Schemathesis 4.32 rewrites `prefixItems` into what it then refuses."""


class Serving(threading.Thread):
    """A node and its API in a thread with a loop of its own: Schemathesis asks from outside."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.url = ""
        self.ready = threading.Event()
        self._over: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        async with Node(name="forge", transport=MemoryNetwork().transport()) as node, ApiServer(node, "127.0.0.1", 0) as api:
            await node.add_constraint("thermal", when="gpu_temp_c < 85.0")
            await node.tiles.put("hall", "map", "north is up")
            self.url = api.url
            self.ready.set()
            await self._over.wait()

    def stop(self) -> None:
        if self._loop is not None and self._over is not None:
            self._loop.call_soon_threadsafe(self._over.set)
        self.join(10)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    serving = Serving()
    serving.start()
    assert serving.ready.wait(20)
    yield serving.url
    serving.stop()


@pytest.fixture(scope="module")
def schema(url: str) -> OpenApiSchema:
    return schemathesis.openapi.from_url(f"{url}/openapi.json")


@pytest.fixture(scope="module")
def document(url: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{url}/openapi.json").json()
    return found


def check_shape(document: dict[str, Any], name: str, answer: Response) -> None:
    """An answer in JSON has the shape that the document gives for its status."""
    operations = (operation for methods in document["paths"].values() for operation in methods.values())
    operation = next(each for each in operations if each["operationId"] == name)
    media_type = answer.headers.get("content-type", [""])[0]
    if not media_type.endswith("json"):
        return
    shape = operation["responses"][str(answer.status_code)]["content"][media_type]["schema"]
    jsonschema_rs.Draft202012Validator({**shape, "components": document["components"]}).validate(answer.json())


@pytest.mark.parametrize("name", [operation.name for operation in OPERATIONS])
def test_every_answer_is_as_documented(schema: OpenApiSchema, document: dict[str, Any], name: str) -> None:
    operation: Any = schema.find_operation_by_id(name)
    both = st.one_of([operation.as_strategy(generation_mode=mode) for mode in GenerationMode])

    @settings(max_examples=EXAMPLES, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(case=both)
    def answers(case: Any) -> None:
        if name == "events":
            case.query = {**(case.query or {}), "follow": "0"}  # the stream itself has no end
        if "timeout" in (case.query or {}):
            case.query["timeout"] = "0"
        answer = case.call_and_validate(checks=CHECKS, timeout=30)
        check_shape(document, name, answer)

    answers()


def test_every_operation_is_documented(document: dict[str, Any]) -> None:
    documented = {operation["operationId"] for methods in document["paths"].values() for operation in methods.values()}
    assert documented == {operation.name for operation in OPERATIONS}
