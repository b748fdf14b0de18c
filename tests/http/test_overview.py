"""`GET /v1/overview` and `/v1/lately`: pages, ids, one node, and who has heard; against the other readings of the same node."""

from time import time_ns
from urllib.parse import quote

import httpx
import pytest

from constraint_crdt import MemoryNetwork
from constraint_crdt.operations.counts import LARGEST_OVERVIEW, MOST_IDS, OVERVIEW_PAGE
from constraint_crdt.runtime.node import Node
from tests.runtime.fleet import agreed, eventually, fleet


async def add(node: Node, *ids: str, when: str | None = "x < 1") -> None:
    for id_ in ids:
        await node.add_constraint(id_, when=when)


@pytest.mark.slow
async def test_pages_follow_each_other_and_together_are_all(client: httpx.AsyncClient, node: Node) -> None:
    ids = [f"limit/{number:03} ä" for number in range(23)]
    await add(node, *ids)
    for limit in (1, 7, 22, 23, 24):
        found, after, pages = [], None, 0
        while True:
            query = f"?limit={limit}" + ("" if after is None else f"&after={quote(after, safe='')}")
            page = (await client.get(f"/v1/overview{query}")).json()
            assert page["total"] == 23
            assert len(page["constraints"]) <= limit
            found += [each["id"] for each in page["constraints"]]
            pages, after = pages + 1, page["next"]
            if after is None:
                break
        assert found == sorted(ids)
        assert pages == -(-23 // limit)


@pytest.mark.slow
async def test_a_page_says_of_each_what_the_whole_list_says(client: httpx.AsyncClient, node: Node) -> None:
    await node.add_constraint("max_speed", when="speed_mps <= 1.5", severity="critical", about="people", on={"kind": "press"})
    await add(node, "cool", "undecided", when="gpu < 85.0")
    await add(node, "bare", when=None)
    began = time_ns()
    await node.check({"gpu": 99.0})
    await node.record(3, 1, constraint="bare")
    whole = {each["id"]: each for each in (await client.get("/v1/constraints")).json()}
    page = (await client.get("/v1/overview")).json()
    assert [each["id"] for each in page["constraints"]] == sorted(whole)
    for each in page["constraints"]:
        same = {"when", "severity", "about", "on", "added_by", "added_at", "expires_at", "applies_here", "satisfied", "violations"}
        assert {field: each[field] for field in same} == {field: whole[each["id"]][field] for field in same}
        assert each["covered"] is None
        assert each["definitions"] == 1
    cool, bare = page["constraints"][1], page["constraints"][0]
    assert (cool["verdict"], cool["violated_now"], cool["violated_on"], cool["worst"]) == ("violated", 1, 1, ["forge"])
    assert began <= cool["violated_since"] <= time_ns()
    assert bare["lately"][0] == pytest.approx([3.0, 1.0], rel=0.05)
    assert page["half_lives"] == [60.0, 300.0, 3600.0]


@pytest.mark.slow
async def test_by_id_it_says_who_has_heard_and_leaves_out_what_is_not_active() -> None:
    network = MemoryNetwork()
    async with fleet("forge", "anvil", "tongs", network=network) as nodes:
        forge = nodes[0]
        await add(forge, "old")
        await eventually(lambda: agreed(nodes))
        await eventually(lambda: forge.overview.of(["old"]).constraints[0].covered == (3, 0, 0))
        network.cut(["tongs"], ["forge", "anvil"])
        await add(forge, "new")
        await eventually(lambda: forge.overview.of(["new"]).constraints[0].covered == (2, 1, 0))
        report = forge.overview.of(["new", "old", "never", "new"])
        assert [(each.id, each.covered) for each in report.constraints] == [("new", (2, 1, 0)), ("old", (3, 0, 0))]
        for each in report.constraints:
            coverage = forge.coverage.report(each.id)
            assert each.covered == (coverage.have, coverage.lack, coverage.unknown)
        network.heal()
        await eventually(lambda: forge.overview.of(["new"]).constraints[0].covered == (3, 0, 0))
        await forge.remove_constraint("new")
        assert forge.overview.of(["new"]).constraints == ()


@pytest.mark.slow
async def test_where_it_is_violated_is_told_of_other_nodes_too() -> None:
    async with fleet("forge", "anvil") as nodes:
        forge, anvil = nodes
        await add(forge, "cool", when="gpu < 85.0")
        await eventually(lambda: "cool" in anvil.gossip.state.constraints)
        await anvil.check({"gpu": 99.0})
        await eventually(lambda: forge.overview.page().constraints[0].violated_now == 1)
        (told,) = forge.overview.page().constraints
        assert (told.worst, told.violations) == (("anvil",), 1)
        assert told.verdict in (None, "unknown"), "forge measures no gpu, whether or not it has looked by now"
        explained = {each.node: each for each in forge.explanations.report("cool").violations if each.violated}
        assert explained.keys() == {"anvil"}
        assert explained["anvil"].since == told.violated_since
        await anvil.check({"gpu": 20.0})
        await eventually(lambda: forge.overview.page().constraints[0].violated_now == 0)
        assert forge.overview.page(node="forge").constraints == ()
        await anvil._runtime.evaluator.write_rates()
        await eventually(lambda: forge.overview.page(node="anvil").constraints != ())
        await eventually(lambda: forge.overview.page().constraints[0].violated_on == 1)  # lately


async def test_of_one_node_it_has_what_that_node_evaluated(client: httpx.AsyncClient, node: Node) -> None:
    await add(node, "a", "b", "c")
    await node.record(1, 0, constraint="b")
    await node.record(0, 2, constraint="c")
    page = (await client.get("/v1/overview?node=forge")).json()
    assert [each["id"] for each in page["constraints"]] == ["b", "c"]
    assert page["constraints"][1]["worst"] == ["forge"]
    assert (await client.get("/v1/overview?node=nobody")).json()["constraints"] == []


async def test_lately_sums_each_node_as_rates_do(client: httpx.AsyncClient, node: Node) -> None:
    await add(node, "a", "b")
    await node.record(10, 0, constraint="a")
    await node.record(0, 5, constraint="b")
    await node.record(1, 1)
    lately = (await client.get("/v1/lately")).json()
    assert lately["half_life"] == 60.0
    rates = (await client.get("/v1/rates")).json()["total"]["by_node"]["forge"]
    assert lately["by_node"] == {"forge": pytest.approx([rates["satisfied"], rates["violated"]], rel=0.05)}


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=-1", f"limit={LARGEST_OVERVIEW + 1}", "limit=x", "limit=", "pages=3", "id=a&limit=3", "id=a&node=b"]
)
async def test_what_makes_no_sense_is_refused_with_the_name_of_the_parameter(client: httpx.AsyncClient, query: str) -> None:
    answer = await client.get(f"/v1/overview?{query}")
    assert answer.status_code == 422
    assert answer.json()["field"] in query


@pytest.mark.slow
async def test_it_is_bounded(client: httpx.AsyncClient, node: Node) -> None:
    await add(node, *(f"c{number:04}" for number in range(OVERVIEW_PAGE + 1)))
    assert len((await client.get("/v1/overview")).json()["constraints"]) == OVERVIEW_PAGE
    assert (await client.get("/v1/overview?" + "&".join(f"id=c{number:04}" for number in range(MOST_IDS)))).status_code == 200
    assert (await client.get("/v1/overview?" + "&".join(f"id=c{number:04}" for number in range(MOST_IDS + 1)))).status_code == 422


@pytest.mark.slow
async def test_urgent_are_those_violated_or_unknown_and_say_where_since_when_and_with_which_values() -> None:
    async with fleet("forge", "anvil") as (forge, anvil):
        await add(forge, "speed", when="speed_mps <= 1.5")
        await add(forge, "cool", when="gpu < 85.0")
        await add(forge, "calm", when="noise < 1.0")
        await eventually(lambda: len(anvil.constraint_ids()) == 3)
        await anvil.measure({"speed_mps": 9.0, "noise": 0.5})
        await forge.measure({"gpu": 20.0, "speed_mps": 1.0})
        await forge.measure({"gpu": "hot"})
        await eventually(lambda: [each.id for each in forge.overview.page(urgent=True).constraints] == ["cool", "speed"])
        await eventually(lambda: forge.overview.page(urgent=True).constraints[1].violated_now == 1)
        speed = forge.overview.of(["speed"]).constraints[0]
        assert [(each.node, each.values, each.margin) for each in speed.longest] == [("anvil", {"speed_mps": "9.0"}, -7.5)]
        assert speed.longest[0].since == speed.violated_since
        assert [each.id for each in anvil.overview.page(urgent=True, node="anvil").constraints] == ["speed"]


async def test_the_course_of_a_constraint_over_http(client: httpx.AsyncClient, node: Node) -> None:
    await node.add_constraint("speed", when="speed_mps <= 1.5")
    for value in (1.0, 9.0):
        await node.measure({"speed_mps": value})
        await node.verdict_history.sample()
    found = (await client.get("/v1/series/speed?points=10")).json()
    assert [(each["value"], each["limit"], each["margin"]) for each in found["points"]] == [(1.0, 1.5, 0.5), (9.0, 1.5, -7.5)]
    assert [(each["node"], each["spells"][-1]["state"], each["spells"][-1]["until"]) for each in found["nodes"]] == [
        ("forge", "violated", None)
    ]
    assert (await client.get("/v1/series/never")).status_code == 404
    assert (await client.get("/v1/series/speed?points=0")).status_code == 422


async def test_urgent_over_http_is_an_overview(client: httpx.AsyncClient, node: Node) -> None:
    await add(node, "a", "b", "c")
    await node.measure({"x": 2.0})
    await eventually(lambda: len(node.gossip.state.verdicts.violated) == 3)
    first = (await client.get("/v1/urgent?limit=2")).json()
    assert ([each["id"] for each in first["constraints"]], first["next"], first["total"]) == (["a", "b"], "b", 3)
    assert [each["id"] for each in (await client.get("/v1/urgent?after=b")).json()["constraints"]] == ["c"]
