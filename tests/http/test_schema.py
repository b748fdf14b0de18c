"""The whole API against its own OpenAPI document, by Schemathesis: no fault of the node, no answer that is not documented, nothing
refused that the document allows, and nothing taken that it does not.

What it sends is drawn from the document, and half of it is wrong on purpose. `CONSTRAINT_CRDT_BUDGET=nightly` sends more.
"""

import asyncio
import re
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from constraint_crdt.crdt.limits import ID_BYTES
from constraint_crdt.http.server import ApiServer
from constraint_crdt.insight import evidence
from constraint_crdt.operations import OPERATIONS
from constraint_crdt.runtime.node import Node
from constraint_crdt.transport import MemoryNetwork
from tests.conftest import BUDGET

if TYPE_CHECKING:
    from tests.http.documented import DocumentedApi

pytestmark = [pytest.mark.slow, pytest.mark.one_worker]

EXAMPLES = 1000 if BUDGET == "nightly" else 2
TOO_LARGE = 413
"""A refusal as any other, which the check `negative_data_rejection` takes for none."""

NOT_SAID = {
    "add": "a `when` must compile, and an `until` lie in the future",
    "batch": "as for `add`, and what is removed or recorded must be active",
    "define_alert": "each kind of rule has parameters of its own",
    "begin_rollout": "a gate and a selector have a syntax, and a stage has nodes",
    "decide": "an expression cannot read every name",
    "disable": "constraints are named, or all of them, with a reason",
    "enable": "constraints are named, or all of them",
    "edit_constraint": "as for `add`",
    "import_state": "the rows must have the checksum and the hash that it names",
    "insert": "a filter has a largest size, and keeps the dimensions that it was begun with",
    "mode": "only a constraint with a `when` has another mode than enforce",
    "move_counter": "what a node moves a counter by is bounded in all",
    "nodes": "a selector has a syntax",
    "overview": "constraints are asked for by id or by page, not both",
    "plato_submit": "an answer has 20 characters without the spaces around it, and a room a name",
    "plato_submit_to_room": "as for `plato_submit`, and once",
    "rates": "only the half-lives that this node tracks have rates",
    "record": "what a node counts is bounded in all",
    "revert": "a constraint is named, or a time for all of them",
    "send_delta": "a counter is of the node and the seq of its delta, and a norm that of its position",
    "silence": "a reason is more than spaces, and a selector has a syntax",
    "submit_tile": "a tile is of the room in the path, and its hash that of its content",
    "set_parameter": "a name is one that an expression can read, and a selector has a syntax",
    "unset_parameter": "a selector has a syntax",
    "tally": "what a node counts in a sketch is bounded in all",
}
"""Operations that refuse some of what the document allows, and why no schema can say it: of them this is not checked."""

LEFT_OUT = {"effects": "a change that a write would refuse has no effect, and is left out"}
"""Operations that take more than the document allows, and why: of them this is not checked."""


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
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evidence, "LONGEST_WAIT", 0.0)  # nobody else comes, however long it is waited
        serving.start()
        assert serving.ready.wait(20)
        yield serving.url
        serving.stop()


@pytest.fixture(scope="module")
def schema(url: str) -> "DocumentedApi":
    from tests.http.documented import DocumentedApi  # a second to import, which one worker needs

    return DocumentedApi(f"{url}/openapi.json")


@pytest.fixture(scope="module")
def document(url: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{url}/openapi.json").json()
    return found


def says_too_many_bytes(case: Any) -> bool:
    """A schema counts characters: it allows a name of 256 that take more bytes."""
    said = f"{case.path_parameters}{case.query}{case.body}"
    return len(said) > ID_BYTES // 4 and len(said.encode(errors="replace")) > ID_BYTES


@pytest.mark.long
@pytest.mark.parametrize("name", [operation.name for operation in OPERATIONS])
def test_every_answer_is_as_documented(schema: "DocumentedApi", name: str) -> None:
    @settings(max_examples=EXAMPLES, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(case=schema.cases(name))
    def answers(case: Any) -> None:
        if name == "events":
            case.query = {**(case.query or {}), "follow": "0"}  # the stream itself has no end
        if name == "guard_report" and case.query and "unless" in case.query:
            case.query = {**case.query, "wait": "0"}  # nothing changes, however long it is waited
        answer = case.call(timeout=30)
        schema.validate(
            case,
            answer,
            refuses_wrong=answer.status_code != TOO_LARGE and name not in LEFT_OUT,
            accepts_right=name not in NOT_SAID and not says_too_many_bytes(case),
        )

    answers()


def test_a_path_takes_the_methods_that_are_documented_for_it(url: str, document: dict[str, Any]) -> None:
    with httpx.Client(base_url=url) as client:
        for path, operations in document["paths"].items():
            methods = {method.upper() for method in operations}
            answer = client.options(re.sub(r"\{\w+\}", "x", path))
            assert answer.status_code == 405
            allowed = answer.headers["allow"].split(", ")
            assert allowed == sorted(methods | ({"HEAD"} if "GET" in methods else set())), path
            assert answer.json()["detail"].endswith(f"it takes {', '.join(allowed)}")


def test_every_operation_is_documented(document: dict[str, Any]) -> None:
    documented = {operation["operationId"] for methods in document["paths"].values() for operation in methods.values()}
    assert documented == {operation.name for operation in OPERATIONS}


def test_what_is_not_said_is_of_operations_that_there_are() -> None:
    assert {operation.name for operation in OPERATIONS} >= NOT_SAID.keys() | LEFT_OUT.keys()
