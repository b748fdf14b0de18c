"""`GET /v1/variables`, the notes on additions, and expressions checked by the kinds that the fleet measures."""

from typing import Any

import httpx
import msgspec
import pytest

from constraint_crdt import ExpressionError, Node
from constraint_crdt.gossip import steady_ns
from constraint_crdt.http import make_app
from constraint_crdt.operations.constraints import NOTED_CHANGES, AddConstraint, BatchError
from constraint_crdt.operations.variables import MOST_READERS
from constraint_crdt.runtime.settings import VariableSettings
from constraint_crdt.transport import MemoryNetwork
from constraint_crdt.types import VariableKind
from tests.http.conftest import BASE
from tests.runtime.fleet import QUICK, eventually, fleet

DOUBLE, STRING = VariableKind.DOUBLE, VariableKind.STRING


def asking(node: Node) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=make_app(node)), base_url=BASE)


async def variables(client: httpx.AsyncClient, **query: str) -> list[dict[str, Any]]:
    answer = await client.get("/v1/variables", params=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()
    return found


@pytest.mark.slow
async def test_a_node_tells_its_values_and_the_names_and_kinds_of_others() -> None:
    async with fleet("a", "b") as (a, b):
        await a.add_constraint("slow", when="speed_mps <= 1.5")
        await a.add_constraint("steady", when='avg_over("speed_mps", duration("1m")) < 1.0')
        await a.measure({"speed_mps": 1.25, "robot.name": "r2", "zones": ["a", None], "door": {"open": True}})
        await b.measure({"load": 0.5})
        await eventually(lambda: "load" in a.gossip.state.variables and "zones" in b.gossip.state.variables)
        async with asking(a) as client:
            found = {(each["node"], each["name"]): each for each in await variables(client)}
            assert list(found) == [("a", "door"), ("a", "robot.name"), ("a", "speed_mps"), ("a", "zones"), ("b", "load")]
            speed = found["a", "speed_mps"]
            assert 0.0 <= speed.pop("age") < 30.0
            assert speed == {
                "node": "a", "name": "speed_mps", "kind": "double", "value": "1.25", "max_age": QUICK.max_age, "aged": False,
                "source": "program", "constraints": ["slow", "steady"], "readers": 2,
            }  # fmt: skip
            assert [found["a", name]["value"] for name in ("door", "robot.name", "zones")] == [
                '{"open":true}',
                '"r2"',
                '["a",null]',
            ]
            assert [found["a", name]["kind"] for name in ("door", "robot.name", "zones")] == ["map", "string", "list"]
            other = found["b", "load"]
            assert other == {
                "node": "b", "name": "load", "kind": "double", "value": None, "age": None, "max_age": None, "aged": None,
                "source": None, "constraints": [], "readers": None,
            }  # fmt: skip
        async with asking(b) as client:
            assert [(each["name"], each["value"]) for each in await variables(client, node="a", name="zones")] == [("zones", None)]
            assert [(each["node"], each["value"]) for each in await variables(client, name="load")] == [("b", "0.5")]


@pytest.mark.slow
async def test_variables_come_in_pages_and_an_unknown_node_is_refused(client: httpx.AsyncClient, node: Node) -> None:
    await node.measure(dict.fromkeys(("x", "y", "z"), 1))
    first = await client.get("/v1/variables", params={"limit": "2"})
    assert [each["name"] for each in first.json()] == ["x", "y"]
    rest = await client.get(first.links["next"]["url"])
    assert [each["name"] for each in rest.json()] == ["z"]
    assert "next" not in rest.links
    refused = await client.get("/v1/variables", params={"node": "nope"})
    assert (refused.status_code, refused.json()["field"]) == (404, "node")
    assert await variables(client, name="nope") == []


@pytest.mark.slow
async def test_an_answer_is_current_after_each_measurement(client: httpx.AsyncClient, node: Node) -> None:
    tags = set()
    for value in range(5):
        await node.measure({"x": value})
        answer = await client.get("/v1/variables")
        assert [each["value"] for each in answer.json()] == [f"{value}.0"]
        tags.add(answer.headers["etag"])
    assert len(tags) == 5


@pytest.mark.slow
async def test_a_value_is_cut_and_readers_are_counted(client: httpx.AsyncClient, node: Node) -> None:
    await node.batch([AddConstraint(id=f"c{number:03}", when=f"x != '{number}'") for number in range(MOST_READERS + 2)])
    await node.measure({"x": "ä" * 1000})
    await node._runtime.evaluator.renew()
    assert node.variables()[0].readers == MOST_READERS + 2
    [found] = await variables(client)
    assert len(found["value"].encode()) <= 256
    assert found["value"].endswith("…")
    assert found["constraints"] == [f"c{number:03}" for number in range(MOST_READERS)]


async def test_the_maximum_age_of_a_variable_takes_the_place_of_the_one_of_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = msgspec.structs.replace(QUICK, max_age=60.0, variables={"x": VariableSettings(max_age=5.0), "y": VariableSettings()})
    async with Node(name="forge", settings=settings, transport=MemoryNetwork().transport()) as node, asking(node) as client:
        await node.measure({"x": 1, "y": 1})
        assert [(each["max_age"], each["aged"]) for each in await variables(client)] == [(5.0, False), (60.0, False)]
        for module in ("answers", "evaluation", "lifecycle"):
            monkeypatch.setattr(f"constraint_crdt.runtime.{module}.steady_ns", lambda: steady_ns() + 10 * 10**9)
        assert [(each.name, each.aged, (each.age or 0) >= 10) for each in node.variables()] == [
            ("x", True, True),
            ("y", False, True),
        ]


# --- notes ------------------------------------------------------------------------------------------------------------------


async def added(client: httpx.AsyncClient, **definition: object) -> list[str]:
    answer = await client.post("/v1/constraints", json={"id": "c", **definition})
    assert answer.status_code in (200, 201), answer.text
    notes: list[str] = answer.json().get("notes", [])
    return notes


@pytest.mark.slow
async def test_an_addition_says_what_no_node_can_decide(client: httpx.AsyncClient, node: Node) -> None:
    assert await added(client, when="sped_mps < 1.0") == [], "nothing is known of what the fleet measures"
    node.gossip.describe_variables({"speed_mps": DOUBLE, "robot.name": STRING})
    assert await added(client, when="speed_mps < 1.0 && robot.name != ''") == []
    assert await added(client, when="sped_mps < 1.0") == ["no node measures sped_mps (speed_mps may be meant)"]
    assert await added(client, when="zzz < 1.0", clear_when="q < 1.0") == ["no node measures q", "no node measures zzz"]
    assert await added(client, when='max_over("robot.nme", duration("1m")) < 1.0') == [
        "no node measures robot.nme (robot.name may be meant)"
    ]
    assert await added(client, when="1 < 2") == ["the expression reads no measurement, so it is always satisfied"]
    assert await added(client, when="speed_mps < 1.0", on={"zone": "a"}) == ["no known node has the label zone=a"]
    assert await added(client, on={"zone": "a", "kind": "arm"}) == ["no known node has the labels kind=arm, zone=a"]
    assert await added(client) == []
    assert node.notes_on("nope") == ()


@pytest.mark.slow
async def test_only_the_nodes_with_the_labels_count_for_a_note() -> None:
    async with fleet("a", "b") as (a, b):
        a.gossip.describe("", labels={"zone": "a"})
        b.gossip.describe("", labels={"zone": "b"})
        b.gossip.describe_variables({"speed_mps": DOUBLE})
        await eventually(lambda: "speed_mps" in a.gossip.state.variables and dict(a.gossip.state.nodes["b"].labels))
        async with asking(a) as client:
            assert await added(client, when="speed_mps < 1.0", on={"zone": "b"}) == []
            assert await added(client, when="speed_mps < 1.0") == []
            assert await added(client, when="speed_mps < 1.0", on={"zone": "a"}) == [], "a told nothing"
            a.gossip.describe_variables({"load": DOUBLE})
            assert await added(client, when="speed_mps < 1.0", on={"zone": "a"}) == [
                "no node with the label zone=a measures speed_mps"
            ]


@pytest.mark.slow
async def test_a_node_that_measures_more_than_it_tells_may_measure_anything(client: httpx.AsyncClient, node: Node) -> None:
    node.gossip.describe_variables({f"x{number}": DOUBLE for number in range(1001)})
    assert await added(client, when="y < 1.0") == []


@pytest.mark.slow
async def test_a_small_batch_has_notes_and_a_large_one_has_none(client: httpx.AsyncClient, node: Node) -> None:
    node.gossip.describe_variables({"x": DOUBLE})
    add = [
        {"add": {"id": "c", "when": "y < 1.0"}},
        {"record": {"satisfied": 1, "constraint": "c"}},
        {"add": {"id": "d", "when": "x < 1.0"}},
    ]
    results = (await client.post("/v1/batch", json={"changes": add})).json()["results"]
    assert results == [
        {"id": "c", "change": "added", "notes": ["no node measures y"]},
        {"id": "c", "change": "recorded"},
        {"id": "d", "change": "added"},
    ]
    many = [{"add": {"id": f"c{number}", "when": "y < 1.0"}} for number in range(NOTED_CHANGES + 1)]
    results = (await client.post("/v1/batch", json={"changes": many})).json()["results"]
    assert results[0] == {"id": "c0", "change": "added"}


# --- kinds ------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_use_that_no_measured_kind_takes_is_refused_with_the_column(client: httpx.AsyncClient, node: Node) -> None:
    assert await added(client, when='speed_mps < "fast"') == [], "nobody measures it"
    node.gossip.describe_variables({"speed_mps": DOUBLE, "label": STRING})
    for body in ({"when": 'speed_mps < "fast"'}, {"when": "label != ''", "clear_when": 'speed_mps < "fast"'}):
        refused = await client.post("/v1/constraints", json={"id": "d", **body})
        field = "clear_when" if "clear_when" in body else "when"
        assert (refused.status_code, refused.json()["field"]) == (422, field)
        assert "column 11" in refused.json()["detail"]
    report = (await client.post("/v1/expressions", json={"when": 'speed_mps < "fast"'})).json()
    assert (report["ok"], "column 11" in report["error"]) == (False, True)
    with pytest.raises(ExpressionError, match="column 11"):
        await node.add_constraint("d", when='speed_mps < "fast"')
    with pytest.raises(BatchError, match="column 11"):
        await node.batch([AddConstraint(id="d", when='speed_mps < "fast"')])
    assert node.constraint_ids() == ["c"], "a definition in force stays"


@pytest.mark.slow
async def test_a_variable_of_several_kinds_can_be_anything() -> None:
    async with fleet("a", "b") as (a, b):
        a.gossip.describe_variables({"speed_mps": DOUBLE})
        b.gossip.describe_variables({"speed_mps": STRING})
        await eventually(lambda: not a.gossip.state.variables.kinds() and "speed_mps" in a.gossip.state.variables)
        await a.add_constraint("c", when='speed_mps < "fast"')
