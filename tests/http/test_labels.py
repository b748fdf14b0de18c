"""`GET /v1/labels` and `constraint-crdt labels`: the labels of nodes, and the constraints that select them."""

from collections.abc import AsyncIterator

import httpx
import pytest

from constraint_crdt.cli import main
from constraint_crdt.client import Client
from constraint_crdt.http import make_app
from constraint_crdt.operations.fleet import LabelReport
from constraint_crdt.runtime.node import Node
from constraint_crdt.transport import MemoryNetwork
from tests.cli.process import running_node
from tests.http.conftest import BASE


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    async with Node(name="forge", transport=MemoryNetwork().transport(), labels={"zone": "a", "gpu": "yes"}) as running:
        yield running


@pytest.fixture
async def client(node: Node) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=make_app(node)), base_url=BASE) as asking:
        yield asking


@pytest.mark.slow
async def test_a_label_has_its_nodes_and_its_constraints(client: httpx.AsyncClient, node: Node) -> None:
    await node.add_constraint("thermal", when="t < 85.0", on={"zone": "a"})
    await node.add_constraint("spare", on={"zone": "b", "gpu": "yes"})
    await node.add_constraint("everywhere")
    assert (await client.get("/v1/labels")).json() == [
        {"label": "gpu=yes", "nodes": ["forge"], "constraints": ["spare"]},
        {"label": "zone=a", "nodes": ["forge"], "constraints": ["thermal"]},
        {"label": "zone=b", "nodes": [], "constraints": ["spare"]},
    ]


@pytest.mark.slow
async def test_the_values_of_a_requirement_are_selected_and_nodes_are_found_by_a_selector(
    client: httpx.AsyncClient, node: Node
) -> None:
    await node.add_constraint("two", on="zone in (b, c), !spare")
    assert [(each["label"], each["constraints"]) for each in (await client.get("/v1/labels")).json()] == [
        ("gpu=yes", []), ("zone=a", []), ("zone=b", ["two"]), ("zone=c", ["two"]),
    ]  # fmt: skip
    for on, found in (("zone in (a, b), gpu", ["forge"]), ("zone notin (a)", []), ("!spare", ["forge"])):
        answer = await client.get("/v1/nodes", params={"on": on})
        assert [each["node"] for each in answer.json()] == found
        assert node.node_names(on) == found
    refused = await client.get("/v1/nodes", params={"on": "zone in a"})
    assert (refused.status_code, refused.json()["field"]) == (422, "on")
    assert "expected `(` after `in` at character 9" in refused.json()["detail"]


@pytest.mark.slow
async def test_a_definition_with_a_selector_and_a_mode_is_shown_and_applies_where_it_matches(
    client: httpx.AsyncClient, node: Node
) -> None:
    for id_, on in (("here", "zone in (a, b), gpu=yes, !spare"), ("there", "zone!=a")):
        body = {"id": id_, "when": "x < 1.0", "on": on, "mode": "audit"}
        assert (await client.post("/v1/constraints", json=body)).status_code == 201
        assert (await client.post("/v1/constraints", json=body)).json()["change"] == "unchanged"
    here, there = (await client.get("/v1/constraints")).json()
    assert (here["applies_here"], there["applies_here"]) == (True, False)
    for found in (here, here["definitions"][0], (await client.get("/v1/explain/here")).json()["definitions"][0]):
        assert (found["on"], found["selector"]) == ({"gpu": "yes"}, "gpu=yes, !spare, zone in (a, b)")
        assert (found["mode"], found["each"]) == ("audit", None)
    await node.measure({"x": 2.0})
    assert [each["state"] for each in (await client.get("/v1/constraints")).json()] == ["violated", "off"]
    refused = await client.post("/v1/constraints", json={"id": "x", "when": "x < 1.0", "on": "zone="})
    assert (refused.status_code, refused.json()["field"]) == (422, "on")
    unsupported = await client.post("/v1/constraints", json={"id": "x", "when": "x < 1.0", "each": "a joint"})
    assert (unsupported.status_code, unsupported.json()["field"]) == (422, "each")
    batched = await client.post("/v1/batch", json={"changes": [{"add": {"id": "x", "when": "x < 1.0", "on": "!"}}]})
    assert (batched.status_code, batched.json()["field"]) == (422, "changes[0].add.on")
    assert "no known node matches zone!=a" in " ".join(node.notes_on("there"))


@pytest.mark.slow
async def test_a_removed_constraint_selects_no_label(client: httpx.AsyncClient, node: Node) -> None:
    await node.add_constraint("spare", on={"zone": "b"})
    before = await client.get("/v1/labels")
    await node.remove_constraint("spare")
    after = await client.get("/v1/labels", headers={"if-none-match": before.headers["etag"]})
    assert [each["label"] for each in before.json()] == ["gpu=yes", "zone=a", "zone=b"]
    assert (after.status_code, [each["label"] for each in after.json()]) == (200, ["gpu=yes", "zone=a"])


@pytest.mark.slow
async def test_labels_come_in_pages(client: httpx.AsyncClient) -> None:
    first = await client.get("/v1/labels?limit=1")
    assert [each["label"] for each in first.json()] == ["gpu=yes"]
    second = await client.get(first.links["next"]["url"])
    assert [each["label"] for each in second.json()] == ["zone=a"]
    assert "next" not in second.links


@pytest.mark.processes
def test_the_client_and_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with running_node("--label", "zone=a") as running, Client(running.url) as client:
        client.add("thermal", on={"zone": "b"})
        assert client.labels() == [
            LabelReport(label="zone=a", nodes=("forge",), constraints=()),
            LabelReport(label="zone=b", nodes=(), constraints=("thermal",)),
        ]
        assert main(["labels", "--node", running.url]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["label", "nodes", "constraints"],
        ["zone=a", "forge", "-"],
        ["zone=b", "-", "thermal"],
    ]
