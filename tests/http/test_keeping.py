"""The routes about what a node keeps and who it is, and what they say while the disk takes nothing."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import msgspec
import pytest

from constraint_crdt.http import make_app
from constraint_crdt.operations.nodes import IdentityReport, RetireReport, StorageReport
from constraint_crdt.runtime.node import Node
from constraint_crdt.runtime.settings import NodeSettings
from constraint_crdt.store import Store, WritesRefused
from constraint_crdt.store.store import CommitBatch
from constraint_crdt.transport import MemoryNetwork
from tests.conftest import runtime_directory
from tests.http.conftest import BASE
from tests.runtime.fleet import QUICK, agreed, eventually

FULL = "the disk is full, so nothing can be written to there: free some space"


@pytest.fixture
async def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Node]:
    """A node with a store."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime_directory(tmp_path)))
    settings = NodeSettings(name="forge", store=str(tmp_path / "forge.db"))
    async with Node(settings=settings, transport=MemoryNetwork().transport()) as running:
        yield running


@pytest.fixture
async def asking(kept: Node) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=make_app(kept)), base_url=BASE) as client:
        yield client


@pytest.mark.slow
async def test_storage_and_identity_are_the_nodes(asking: httpx.AsyncClient, kept: Node, tmp_path: Path) -> None:
    await kept.add_constraint("c1")
    await kept.remove_constraint("c1")
    storage = msgspec.json.decode((await asking.get("/v1/storage")).content, type=StorageReport)
    assert (storage.path, storage.live, storage.removed) == (str(tmp_path / "forge.db"), 4, 1), (
        "two are of the audit, and one of the history"
    )
    assert storage.bytes_on_disk == kept.storage().bytes_on_disk > 0
    identity = msgspec.json.decode((await asking.get("/v1/identity")).content, type=IdentityReport)
    assert identity == kept.identity()
    assert [life.seq for life in identity.lives] == [6]


@pytest.mark.slow
async def test_a_disk_that_takes_nothing_refuses_every_write_and_no_reading(
    asking: httpx.AsyncClient, kept: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    await kept.add_constraint("before", when="a < 1.0")

    def refuse(store: Store, batch: CommitBatch) -> None:
        raise WritesRefused(FULL)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "commit", refuse)
        for path, body in (
            ("constraints", {"id": "x"}),
            ("constraints", {"id": "y"}),
            ("record", {"satisfied": 1}),
            ("check", {"values": {"a": 2.0}}),
            ("batch", {"changes": [{"add": {"id": "z"}}]}),
        ):
            answer = await asking.post(f"/v1/{path}", json=body)
            assert (answer.status_code, answer.json()["detail"]) == (503, FULL)
            assert answer.headers["retry-after"] == "1"
        assert (await asking.delete("/v1/constraints/before")).status_code == 503
        assert "before" in [each["id"] for each in (await asking.get("/v1/constraints")).json()]
        for path in ("status", "storage"):
            assert (await asking.get(f"/v1/{path}")).json()["trouble"] == FULL
    await eventually(lambda: kept.status().trouble is None)
    assert (await asking.post("/v1/constraints", json={"id": "after"})).status_code == 201


@pytest.mark.slow
async def test_a_node_is_retired_and_what_stands_against_it_is_told() -> None:
    network = MemoryNetwork()
    async with Node(name="forge", settings=QUICK, transport=network.transport()) as forge:
        app = make_app(forge)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=BASE) as client:

            async def retire(name: str, **more: bool) -> httpx.Response:
                return await client.post("/v1/retire", json={"node": name, **more})

            anvil = Node(name="anvil", settings=QUICK, transport=network.transport())
            await anvil.start()
            await anvil.record(7, 2)
            await eventually(lambda: agreed([forge, anvil]))

            for name, status, says in (
                ("nobody", 404, "'nobody'"),
                ("forge", 409, "cannot retire itself"),
                ("anvil", 409, "is live: stop it first"),
            ):
                answer = await retire(name)
                assert (answer.status_code, answer.json()["field"]) == (status, "node")
                assert says in answer.json()["detail"]
            assert (await retire("forge", dry_run=True)).status_code == 409

            before = forge.status().hash
            dry = msgspec.json.decode((await retire("anvil", dry_run=True)).content, type=RetireReport)
            assert (dry.live, dry.done, dry.satisfied, dry.violations) == (True, False, 7, 2)
            assert list(dry.lives) == [str(anvil.gossip.replica)]
            assert forge.status().hash == before

            done = msgspec.json.decode((await retire("anvil", force=True)).content, type=RetireReport)
            assert (done.done, done.satisfied) == (True, 7)
            assert (await anvil.over()).startswith(
                "node anvil was retired by forge: start it under another name, or, if that was a mistake"
            )
            await anvil.stop()
            await eventually(lambda: forge.status().peers == 0)
            [told] = [each for each in (await client.get("/v1/nodes")).json() if each["node"] == "anvil"]
            assert (told["retired"], told["live"], told["satisfied"]) == (True, False, 7)
            assert (await client.post("/v1/retire", json={"node": "anvil", "dry": True})).status_code == 422
