"""Edits of some fields, new constraints only, conflicts of concurrent edits and their end: over the API and on two nodes."""

import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt import EventKind, MemoryNetwork, Node
from constraint_crdt.alerts import KINDS, AlertRule, Facts
from constraint_crdt.errors import ConstraintCrdtError, ConstraintExists, ConstraintInConflict, UnknownConstraint
from constraint_crdt.http import make_app
from constraint_crdt.model import Severity
from constraint_crdt.operations.constraints import AddConstraint, BatchError
from constraint_crdt.types.definition import Definition, DefinitionFields, check_definition, edited, joined
from constraint_crdt.types.orset import Change
from tests.http.conftest import BASE
from tests.runtime.fleet import agreed, eventually, fleet

WHOLE: dict[str, Any] = {
    "when": "x < 1.0", "severity": "critical", "about": "why", "on": "zone in (a, b)", "for": 30.0, "clear_when": "x < 0.5",
    "mode": "warn", "ttl": 3600,
}  # fmt: skip


async def constraint(client: httpx.AsyncClient) -> dict[str, Any]:
    [found] = (await client.get("/v1/constraints")).json()
    return dict(found)


@pytest.mark.slow
async def test_an_edit_changes_what_it_says_and_keeps_the_rest(client: httpx.AsyncClient) -> None:
    await client.post("/v1/constraints", json={"id": "a/b", **WHOLE})
    before = await constraint(client)
    answer = await client.patch("/v1/constraints/a/b", json={"when": "x < 2.0", "loosen": True})
    assert (answer.status_code, answer.json()["change"]) == (200, "replaced")
    assert answer.json()["fields"] == [{"field": "when", "before": "x < 1.0", "after": "x < 2.0"}]
    assert answer.json()["expires_at"] == before["expires_at"]
    after = await constraint(client)
    kept = ("severity", "about", "selector", "for", "clear_when", "mode", "expires_at", "max_age", "scope")
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert (await client.patch("/v1/constraints/a/b", json={})).json()["change"] == "unchanged"
    nulls = {"about": None, "on": None, "for": None, "clear_when": None, "until": None, "loosen": True}
    answer = await client.patch("/v1/constraints/a/b", json=nulls)
    assert [each["field"] for each in answer.json()["fields"]] == ["about", "on", "for", "clear_when", "until"]
    after = await constraint(client)
    assert [after[name] for name in ("about", "selector", "for", "clear_when", "expires_at")] == [None, "", 0.0, None, None]
    assert (after["severity"], after["mode"]) == ("critical", "warn")


@pytest.mark.slow
async def test_an_edit_that_cannot_be_is_refused_and_nothing_changes(client: httpx.AsyncClient) -> None:
    assert (await client.patch("/v1/constraints/x", json={"when": "x < 1.0"})).status_code == 404
    await client.post("/v1/constraints", json={"id": "x", **WHOLE})
    before = await constraint(client)
    for wrong, field in (({"when": "x <"}, "when"), ({"when": None}, "for"), ({"on": "zone="}, "on"), ({"mode": "dry"}, "mode")):
        answer = await client.patch("/v1/constraints/x", json=wrong)
        assert (answer.status_code in (400, 422), answer.json()["field"]) == (True, field)
    assert (await client.patch("/v1/constraints/x", json={"id": "y"})).status_code == 422
    assert (await constraint(client))["definitions"] == before["definitions"]


@pytest.mark.slow
async def test_a_new_constraint_is_refused_where_there_is_one(client: httpx.AsyncClient, node: Node) -> None:
    assert (await client.post("/v1/constraints", json={"id": "x", "new": True})).status_code == 201
    answer = await client.post("/v1/constraints", json={"id": "x", "about": "other", "new": True})
    assert (answer.status_code, answer.json()["field"]) == (409, "new")
    with pytest.raises(ConstraintExists, match="x is active already"):
        await node.add_constraint("x", when="y < 1.0", new=True)
    with pytest.raises(BatchError, match="x is active already"):
        await node.batch([AddConstraint(id="y", new=True), AddConstraint(id="x", new=True)])
    assert node.gossip.state.constraints.definitions("x") == (Definition(),)
    assert "y" not in node.gossip.state.constraints


FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "when": st.sampled_from(["x < 1.0", "x < 2.0"]),
    "severity": st.sampled_from(list(Severity)),
    "about": st.none() | st.just("why"),
    "on": st.none() | st.sampled_from(["zone=a", "zone!=a, !spare", {"rack": "3"}]),
    "clear_when": st.none() | st.just("x < 0.5"),
    "for_": st.sampled_from([None, 0, 5, 30.0]),
    "max_age": st.none() | st.just(9.0),
    "mode": st.sampled_from(["audit", "warn", "enforce"]),
}


@pytest.mark.slow
@given(st.lists(st.fixed_dictionaries({}, optional=FIELDS), max_size=5))
def test_edits_one_after_another_give_the_definition_of_the_last_words(edits: list[DefinitionFields]) -> None:
    said: dict[str, Any] = {"when": "x < 9.0", "severity": "info", "about": None}
    definition = check_definition(**said)
    for each in edits:
        definition = edited(definition, each, None)
        said |= each
    durations: dict[str, Any] = {
        name: None if said[name] is None else int(said[name] * 10**9) for name in ("for_", "max_age") if name in said
    }
    assert definition == check_definition(**(said | durations))


# --- conflicts ------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def two() -> AsyncIterator[tuple[MemoryNetwork, Node, Node]]:
    network = MemoryNetwork()
    async with fleet("a", "b", network=network) as [a, b]:
        await eventually(lambda: a.status().peers == 1 and b.status().peers == 1)
        network.cut("a", "b")
        await a.add_constraint("x", when="v < 1.0", about="one")
        await b.add_constraint("x", when="v < 2.0", severity="critical", about="two")
        await b.add_constraint("same", when="v < 1.0")
        await a.add_constraint("same", when="v < 1.0")
        network.heal()
        await eventually(lambda: agreed([a, b]) and a.status().conflicts == 1)
        yield network, a, b


@pytest.mark.slow
async def test_a_conflict_is_told_in_every_place_and_ends_with_the_definition_that_is_kept(
    two: tuple[MemoryNetwork, Node, Node], caplog: pytest.LogCaptureFixture
) -> None:
    _, a, b = two
    await eventually(lambda: b.status().conflicts == 1)
    [event] = [each.event for each in a.event_stream.log.newest(100) if each.event.kind is EventKind.CONFLICT]
    assert (event.constraint, event.detail) == ("x", "2 definitions, by a, b; all are in force")
    finding = next(each for each in a.diagnosis.look().findings if each.check == "conflicts")
    assert (finding.level, finding.what) == ("warn", "concurrent edits left several definitions of x")
    rule = AlertRule(name="torn", kind="conflict")
    facts = Facts(a.gossip, None, None, None, None, None)  # type: ignore[arg-type]  # this kind reads the state only
    assert [each.subject for each in KINDS["conflict"].find(rule, facts)] == ["x"]
    with pytest.raises(ConstraintInConflict, match="x has 2 definitions in conflict"):
        await a.edit_constraint("x", about="three")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=make_app(a)), base_url=BASE) as client:
        assert (await client.patch("/v1/constraints/x", json={"about": "three"})).status_code == 409
        assert (await client.post("/v1/resolve/y", json={})).status_code == 404
        wrong = await client.post("/v1/resolve/x", json={"keep": "a~1:9"})
        assert (wrong.status_code, wrong.json()["field"]) == (422, "keep")
        definitions = (await client.get("/v1/explain/x")).json()["definitions"]
        kept = next(each["dot"] for each in definitions if each["severity"] == "critical")
        assert (await client.post("/v1/resolve/x", json={"keep": kept})).json()["change"] == "replaced"
    await eventually(lambda: agreed([a, b]) and a.status().conflicts == b.status().conflicts == 0)
    assert b.gossip.state.constraints.definitions("x") == (Definition("v < 2.0", Severity.CRITICAL, "two"),)
    assert list(KINDS["conflict"].find(rule, facts)) == []


@pytest.mark.slow
async def test_a_conflict_is_logged_and_joined(two: tuple[MemoryNetwork, Node, Node], caplog: pytest.LogCaptureFixture) -> None:
    network, a, b = two
    assert await a.resolve_conflict("x") is Change.REPLACED
    await eventually(lambda: agreed([a, b]))
    [definition] = b.gossip.state.constraints.definitions("x")
    assert set((definition.when or "").split(" && ")) == {"(v < 1.0)", "(v < 2.0)"}
    assert (definition.severity, sorted((definition.about or "").split("; "))) == (Severity.CRITICAL, ["one", "two"])
    with caplog.at_level(logging.WARNING, "constraint_crdt.node"):
        network.cut("a", "b")
        await a.edit_constraint("x", for_=5, loosen=True)
        await b.edit_constraint("x", for_=6, loosen=True)
        network.heal()
        await eventually(lambda: a.status().conflicts == 1)
    assert "constraint x is in conflict: 2 definitions, by a, b; all are in force" in caplog.text
    with pytest.raises(ConstraintCrdtError, match="they differ in `for`, so they cannot be joined: keep one"):
        await a.resolve_conflict("x")
    with pytest.raises(UnknownConstraint):
        await a.resolve_conflict("y")


def test_joined_definitions_hold_where_all_do_and_last_as_long_as_the_last() -> None:
    first = check_definition("x < 1.0", "info", "a", expires_at=5)
    assert joined([first, first]) == first
    assert joined([first, check_definition("x < 1.0", "critical", "b", expires_at=9)]) == check_definition(
        "x < 1.0", "critical", "a; b", expires_at=9
    )
    assert joined([first, check_definition(None, "warning", None)]) == check_definition("x < 1.0", "warning", "a")
    with pytest.raises(ConstraintCrdtError, match="they differ in `on`"):
        joined([first, check_definition("x < 2.0", "info", "a", "zone=a")])
    with pytest.raises(ConstraintCrdtError, match="more than 1024 bytes"):
        joined([first, check_definition(f"x < 1.0 || '{'y' * 1000}' == 'z'", "info", "a")])
    with pytest.raises(ConstraintCrdtError, match="a later version"):
        joined([first, first._replace(meaning=9)])
