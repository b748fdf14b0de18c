"""The audit of changes: who made them, by token, by program, on which node; in the API, events and explanations."""

import getpass
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import msgspec
import pytest

from constraint_crdt.errors import NotPermitted
from constraint_crdt.http import make_app
from constraint_crdt.http.tokens import TokenFile, Tokens
from constraint_crdt.model import EventKind
from constraint_crdt.operations.operation import Right
from constraint_crdt.runtime.change_feed import acting_as
from constraint_crdt.runtime.node import Node
from constraint_crdt.transport import MemoryNetwork
from tests.http.conftest import BASE, SETTINGS
from tests.runtime.fleet import eventually, fleet
from tests.security.fleets import Fleet


@pytest.fixture
def secrets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    file = TokenFile(tmp_path_factory.mktemp("tokens") / "tokens")
    made = {name: file.add(name, Right.OPERATE, made=1) for name in ("alice", "bob")}
    made["ci"] = file.add("ci", Right.MEASURE, made=1)
    made["file"] = str(file.path)
    return made


@pytest.fixture
async def guarded(node: Node, secrets: dict[str, str]) -> AsyncIterator[httpx.AsyncClient]:

    app = make_app(node, tokens=Tokens.load(Path(secrets["file"])))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=BASE) as asking:
        yield asking


def found(node: Node) -> list[tuple[str, str, str, int]]:
    return [(entry.actor, entry.operation, entry.subject, entry.changes) for entry in node.audit()]


@pytest.mark.slow
async def test_each_change_names_its_token_and_a_refused_one_nothing(
    guarded: httpx.AsyncClient, node: Node, secrets: dict[str, str]
) -> None:
    def by(name: str) -> dict[str, str]:
        return {"authorization": f"Bearer {secrets[name]}"}

    def adds(*ids: str) -> list[dict[str, dict[str, str]]]:
        return [{"add": {"id": id_}} for id_ in ids]

    assert (await guarded.post("/v1/constraints", json={"id": "x", "when": "a < 1"}, headers=by("alice"))).status_code == 201
    assert (await guarded.post("/v1/constraints", json={"id": "x", "when": "a < 1"}, headers=by("bob"))).json()[
        "change"
    ] == "unchanged"
    many = {"changes": [*adds("b1", "b2", "b3"), {"record": {"satisfied": 1, "constraint": "b1"}}]}
    assert (await guarded.post("/v1/batch", json=many, headers=by("bob"))).status_code == 200
    assert (await guarded.post("/v1/batch", json={"changes": adds("one")}, headers=by("bob"))).status_code == 200
    counts = {"changes": [{"record": {"satisfied": 1}}]}
    assert (await guarded.post("/v1/batch", json=counts, headers=by("ci"))).status_code == 200
    assert (await guarded.post("/v1/constraints", json={"id": "y"}, headers=by("ci"))).status_code == 403
    assert (await guarded.post("/v1/constraints", json={"id": "y"}, headers={"authorization": "Bearer none"})).status_code == 401
    assert (await guarded.post("/v1/constraints", json={"id": "y", "when": "("}, headers=by("bob"))).status_code == 422
    assert (await guarded.delete("/v1/constraints/x", headers=by("alice"))).status_code == 200
    expected = [
        ("alice", "add", "x", 1),
        ("bob", "batch", "3 constraints", 4),
        ("bob", "batch", "one", 1),
        ("alice", "remove", "x", 1),
    ]
    assert found(node) == expected

    everything = (await guarded.get("/v1/audit", headers=by("ci"))).json()
    assert [(each["actor"], each["operation"], each["subject"], each["changes"]) for each in everything] == expected
    assert {each["node"] for each in everything} == {"forge"}
    only = (await guarded.get("/v1/audit", params={"actor": "bob", "since": "60"}, headers=by("ci"))).json()
    assert [each["subject"] for each in only] == ["3 constraints", "one"]
    first = await guarded.get("/v1/audit", params={"limit": 3}, headers=by("ci"))
    assert [each["id"] for each in first.json()] == [each["id"] for each in everything[:3]]
    (_, link, _) = first.headers["link"].replace("<", ">").split(">")
    assert [each["id"] for each in (await guarded.get(link, headers=by("ci"))).json()] == [everything[3]["id"]]
    assert (await guarded.get("/v1/audit", params={"since": "-1"}, headers=by("ci"))).status_code == 422

    explained = (await guarded.get("/v1/explain/b2", headers=by("ci"))).json()
    assert [(each["actor"], each["added_by"]) for each in explained["definitions"]] == [("bob", "forge")]
    gone = (await guarded.get("/v1/explain/x", headers=by("ci"))).json()
    assert [(each["actor"], each["by"]) for each in gone["removals"]] == [("alice", "forge")]
    kept = [each.event for each in node.event_stream.log.newest(100)]
    told = [(each.kind, each.constraint, each.actor, each.by) for each in kept if each.constraint]
    assert told == [
        (EventKind.ADDED, "x", "alice", "forge"),
        (EventKind.ADDED, "b1", "bob", "forge"),
        (EventKind.ADDED, "b2", "bob", "forge"),
        (EventKind.ADDED, "b3", "bob", "forge"),
        (EventKind.ADDED, "one", "bob", "forge"),
        (EventKind.REMOVED, "x", "alice", "forge"),
    ]


async def test_without_tokens_the_client_is_local(client: httpx.AsyncClient, node: Node) -> None:
    await client.post("/v1/constraints", json={"id": "x"})
    assert found(node) == [("local", "add", "x", 1)]


@pytest.mark.slow
async def test_a_program_is_the_user_of_its_process_or_what_it_says(node: Node) -> None:
    await node.add_constraint("x")
    with acting_as("planner"):
        await node.remove_constraint("x")
    await node.record(3)
    await node.measure({"x": 1})
    assert found(node) == [(getpass.getuser(), "add", "x", 1), ("planner", "remove", "x", 1)]
    async with Node(settings=SETTINGS, transport=MemoryNetwork().transport(), actor="cell 7") as named:
        await named.add_constraint("x")
        assert found(named) == [("cell 7", "add", "x", 1)]


async def test_a_process_without_a_user_is_python(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    from constraint_crdt.runtime import change_feed

    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr("getpass.getuser", nobody)
    change_feed._user.cache_clear()
    await node.add_constraint("x")
    change_feed._user.cache_clear()
    assert found(node) == [("python", "add", "x", 1)]


@pytest.mark.slow
async def test_all_nodes_have_the_audit_of_all_and_tell_who_did_it() -> None:
    async with fleet("forge", "anvil", "lathe") as (forge, anvil, lathe):
        with acting_as("alice"):
            await forge.add_constraint("x")
        await eventually(lambda: "x" in anvil.gossip.state.constraints)
        with acting_as("bob"):
            await anvil.remove_constraint("x")
        await eventually(lambda: len(lathe.audit()) == len(forge.audit()) == 2)
        assert [(each.actor, each.dot.replica.node_id) for each in lathe.audit()] == [("alice", "forge"), ("bob", "anvil")]
        assert lathe.audit() == forge.audit() == anvil.audit()
        kinds = (EventKind.REMOVED,)
        await eventually(lambda: any(each.event.kind in kinds for each in forge.event_stream.log.newest(100)))
        told = [(each.event.actor, each.event.by) for each in forge.event_stream.log.newest(100) if each.event.kind in kinds]
        assert told == [("bob", "anvil")]


@pytest.mark.slow
async def test_a_retirement_and_an_import_are_noted() -> None:
    async with fleet("forge", "anvil") as (forge, anvil):
        await anvil.add_constraint("x")
        text = await anvil.export_state()
        await anvil.stop()
        async with Node(settings=SETTINGS, transport=MemoryNetwork().transport(), actor="alice") as other:
            await other.import_state(text)
            await other.import_state(text)
            assert [entry[:2] for entry in found(other)][-1:] == [("alice", "import")]
            assert len(found(other)) == 2
        await eventually(lambda: not forge.status().peers)
        with acting_as("bob"):
            await forge.retire("anvil", dry_run=True)
            await forge.retire("anvil")
        assert found(forge)[-1] == ("bob", "retire", "anvil", 1)
        (event,) = [each.event for each in forge.event_stream.log.newest(100) if each.event.kind is EventKind.RETIRED]
        assert (event.node, event.actor, event.by) == ("anvil", "bob", "forge")


def certified(folder: Path, role: str) -> Node:
    """A node with an identity of this role."""
    made = Fleet(folder / role)
    settings = msgspec.structs.replace(SETTINGS, identity=str(made.certify("forge", role=role)), fleet=made.root.fleet)
    return Node(settings=settings, transport=MemoryNetwork().transport(), actor="alice")


@pytest.mark.slow
async def test_in_signed_rows_the_entry_covers_the_change_too(tmp_path: Path) -> None:
    async with certified(tmp_path, "operator") as node:
        await node.add_constraint("x")
        await node.record(1, constraint="x")
        await node.add_constraint("x", when="a < 1")
        await node.remove_constraint("x")
        removal = node.explanations.report("x").removals[-1]
        assert [entry[:3] for entry in found(node)] == [("alice", "add", "x"), ("alice", "add", "x"), ("alice", "remove", "x")]
        assert removal.actor == "alice"
        told = [(each.event.kind, each.event.actor) for each in node.event_stream.log.newest(9) if each.event.constraint == "x"]
        assert told == [(EventKind.ADDED, "alice"), (EventKind.CHANGED, "alice"), (EventKind.REMOVED, "alice")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("role", "says"),
    [
        ("member", "this node is a member of the fleet; ask an operator node"),
        ("observer", "this node is an observer of the fleet; ask an operator node"),
    ],
)
async def test_a_certified_node_refuses_what_its_role_does_not_allow(tmp_path: Path, role: str, says: str) -> None:
    async with certified(tmp_path, role) as node:
        assert node.certified_role == role
        with pytest.raises(NotPermitted):
            await node.add_constraint("x")
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=make_app(node)), base_url=BASE) as asking:
            answer = await asking.post("/v1/constraints", json={"id": "x"})
            assert (answer.status_code, answer.json()["detail"]) == (403, says)
            assert (await asking.post("/v1/record", json={"satisfied": 1})).status_code == (200 if role == "member" else 403)
            assert (await asking.get("/v1/session")).json()["node_role"] == role
        assert found(node) == []
        assert list(node.gossip.state.constraints) == []
