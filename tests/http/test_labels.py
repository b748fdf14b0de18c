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


async def test_a_label_has_its_nodes_and_its_constraints(client: httpx.AsyncClient, node: Node) -> None:
    await node.add_constraint("thermal", when="t < 85.0", on={"zone": "a"})
    await node.add_constraint("spare", on={"zone": "b", "gpu": "yes"})
    await node.add_constraint("everywhere")
    assert (await client.get("/v1/labels")).json() == [
        {"label": "gpu=yes", "nodes": ["forge"], "constraints": ["spare"]},
        {"label": "zone=a", "nodes": ["forge"], "constraints": ["thermal"]},
        {"label": "zone=b", "nodes": [], "constraints": ["spare"]},
    ]


async def test_a_removed_constraint_selects_no_label(client: httpx.AsyncClient, node: Node) -> None:
    await node.add_constraint("spare", on={"zone": "b"})
    before = await client.get("/v1/labels")
    await node.remove_constraint("spare")
    after = await client.get("/v1/labels", headers={"if-none-match": before.headers["etag"]})
    assert [each["label"] for each in before.json()] == ["gpu=yes", "zone=a", "zone=b"]
    assert (after.status_code, [each["label"] for each in after.json()]) == (200, ["gpu=yes", "zone=a"])


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
