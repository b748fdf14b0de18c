"""The contract of PLATO servers: the SDK on PyPI, unmodified, and protocol v2, against nodes that share their tiles."""

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import HTTPError

import httpx
import pytest
from plato_sdk import Agent, PlatoClient

from constraint_crdt.client.blocking import PlatoClient as CrateClient
from constraint_crdt.dashboard import dashboard_pages
from constraint_crdt.http import make_app
from constraint_crdt.http.server import ApiServer
from constraint_crdt.http.tokens import Tokens
from constraint_crdt.operations.operation import Right
from constraint_crdt.operations.plato import UNSERVED, server_path
from constraint_crdt.runtime.node import Node
from constraint_crdt.runtime.settings import NodeSettings
from constraint_crdt.transport import MemoryNetwork
from tests.runtime.fleet import agreed, eventually, fleet

ANSWER = "85 degrees, measured at the second joint of the arm."
Result = TypeVar("Result")


@pytest.fixture
async def url(node: Node) -> AsyncIterator[str]:
    async with ApiServer(node, "127.0.0.1", 0, pages=dashboard_pages()) as api:
        yield api.url


async def call(function: Callable[..., Result], *args: Any, **named: Any) -> Result:
    return await asyncio.to_thread(function, *args, **named)


async def refusal(function: Callable[..., object], *args: Any) -> tuple[int, dict[str, Any]]:
    """The status and the problem of a GET that the node refuses, for which the SDK raises."""
    with pytest.raises(HTTPError) as caught:
        await call(function, *args)
    with caught.value as error:
        return error.code, json.loads(error.read())


@pytest.mark.slow
@pytest.mark.parametrize("base", ["", "/plato"])
async def test_the_eight_calls_of_the_sdk_work_unmodified(url: str, node: Node, base: str) -> None:
    client = PlatoClient(url + base)
    taken = await call(client.submit, "arms", "thermal", "How hot may it get?", ANSWER, agent="scout")
    assert (taken["status"], taken["room"], taken["changed"]) == ("accepted", "arms", True)
    assert (await call(client.submit, "arms", "thermal", "How hot may it get?", ANSWER))["tile_id"] == taken["tile_id"]
    await call(client.submit, "legs", "gait", "How fast may it walk?", "1.5 m/s, below the limit of the floor.")
    status = await call(client.status)
    assert (status["version"], status["instance"]) == (node.status().software, "forge")
    assert (status["tiles"], status["rooms"]) == (2, 2)
    rooms = await call(client.rooms)
    assert {name: each["tile_count"] for name, each in rooms.items()} == {"arms": 1, "legs": 1}
    room = await call(client.room, "arms")
    [tile] = room["tiles"]
    assert room["tile_count"] == 1
    assert (tile["id"], tile["tile_hash"]) == (taken["tile_id"], taken["tile_hash"])
    assert (tile["question"], tile["answer"], tile["domain"]) == ("How hot may it get?", ANSWER, "thermal")
    assert (tile["agent"], tile["confidence"], tile["sequence"]) == ("scout", 0.5, taken["sequence"])
    recent = await call(client.recent, 1)
    assert [each["room"] for each in recent] == ["legs"]
    assert [each["room"] for each in await call(client.search, "SECOND joint")] == ["arms"]
    assert await call(client.search, "nothing of this") == []
    stats = await call(client.stats)
    assert (stats["total_tiles"], stats["total_rooms"], stats["total_agents"], stats["tiles_24h"]) == (2, 2, 2, 2)
    assert (stats["instance"], stats["sync_enabled"], stats["fleet_connected"]) == ("forge", True, False)
    sync = await call(client.sync_status)
    assert sync == {"enabled": True, "connected": False, "events_sent": 0, "events_received": 0}


@pytest.mark.slow
async def test_what_the_sdk_sends_wrong_is_told_where_it_looks(url: str) -> None:
    client = PlatoClient(url)
    short = await call(client.submit, "arms", "thermal", "How hot?", "  85  ")
    assert (short["error"], short["status"], short["field"]) == ("answer too short (2 < 20)", 400, "answer")
    empty = await call(client.submit, "arms", "thermal", " ", ANSWER)
    assert (empty["error"], empty["status"]) == ("`question`: it is empty", 422)
    assert await call(client.rooms) == {}


@pytest.mark.slow
async def test_an_agent_of_the_sdk_explores_reads_and_submits(url: str) -> None:
    agent = Agent(name="scout")
    agent.connect(PlatoClient(url))
    assert (await call(agent.submit, "arms", "How hot?", ANSWER))["status"] == "accepted"
    assert await call(agent.explore) == {"rooms": {"arms": {"tiles": 1}}, "total": 1}
    assert (await call(agent.search, "joint"))["count"] == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "asked",
    [PlatoClient.armor_catalog, PlatoClient.keys, lambda client: client._get("/agent/x")],
)
@pytest.mark.parametrize("base", ["", "/plato"])
async def test_what_no_tile_can_answer_is_501_with_the_reason(url: str, asked: Callable[[PlatoClient], object], base: str) -> None:
    status, problem = await refusal(asked, PlatoClient(url + base))
    assert status == HTTPStatus.NOT_IMPLEMENTED
    assert " is not served: " in problem["error"]


@pytest.mark.slow
async def test_calls_for_agents_say_why_not(url: str) -> None:
    client = PlatoClient(url)
    for answer in (
        await call(client.spawn, "a scout"),
        await call(client.chat, "s1", "go on"),
        await call(client.agent_submit, "s1", "r", "d", "q", ANSWER),
        await call(client.sync_toggle),
    ):
        assert answer["status"] == HTTPStatus.NOT_IMPLEMENTED
        assert answer["error"] == answer["detail"]


@pytest.mark.slow
async def test_the_sdk_sends_a_token_by_an_opener(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    token = "secret-of-the-sdk-0123456789"
    opener = urllib.request.build_opener()
    opener.addheaders = [("Authorization", f"Bearer {token}")]
    tokens = Tokens([(Right.MEASURE, token)])
    async with ApiServer(node, "127.0.0.1", 0, tokens=tokens, pages=dashboard_pages()) as api:
        client = PlatoClient(api.url)
        for asked in (client.status, client.rooms, client.stats):
            assert (await refusal(asked))[0] == HTTPStatus.UNAUTHORIZED
        refused = await call(client.submit, "arms", "d", "How hot?", ANSWER)
        assert refused["error"].startswith("this node asks for a token")
        monkeypatch.setattr(urllib.request, "_opener", opener)  # as `install_opener` does
        assert (await call(client.submit, "arms", "d", "How hot?", ANSWER))["status"] == "accepted"
        assert (await call(client.status))["tiles"] == 1


# --- protocol v2 --------------------------------------------------------------------------------------------------------------

V2 = {
    "domain": "murmur_insights", "question": "strategy:EXPLORE theorem:rigid", "answer": "BOUNDARY: E = 2V - 4, one short.",
    "confidence": 0.82, "source": "fleet-murmur-worker", "timestamp": 1746606720000, "tags": ["rigid"], "other": {"is": "ignored"},
}  # fmt: skip


@pytest.mark.slow
async def test_protocol_v2_submits_once_and_reads_since(client: httpx.AsyncClient, node: Node) -> None:
    taken = await client.post("/room/murmur_insights/submit", json=V2)
    assert (taken.status_code, taken.json()["status"], taken.json()["room"]) == (202, "accepted", "murmur_insights")
    clock = node.gossip.clock
    again = await client.post("/room/murmur_insights/submit", json=V2 | {"source": "another"})
    assert again.status_code == 403
    assert again.json()["error"].startswith("duplicate tile")
    assert node.gossip.clock == clock
    later = V2 | {"question": "next", "timestamp": 1746606720.001}  # seconds
    assert (await client.post("/room/murmur_insights/submit", json=later)).status_code == 202
    room = (await client.get("/room/murmur_insights?since=0")).json()
    assert (room["status"], room["room"], room["tile_count"]) == ("ok", "murmur_insights", 2)
    assert (room["created_at"], room["last_activity"]) == ("2025-05-07T08:32:00Z", "2025-05-07T08:32:00Z")
    newest, oldest = room["tiles"]
    assert (oldest["source"], oldest["confidence"], oldest["timestamp"]) == ("fleet-murmur-worker", 0.82, 1746606720000)
    assert (oldest["id"], oldest["tags"]) == (taken.json()["tile_hash"], ["rigid"])
    assert newest["sequence"] > oldest["sequence"] == taken.json()["sequence"]
    since = (await client.get("/room/murmur_insights?since=1746606720001")).json()
    assert ([each["question"] for each in since["tiles"]], since["tile_count"]) == (["next"], 2)
    assert (await client.get("/plato/room/murmur_insights/tiles?limit=1")).json()["tiles"] == [newest]
    status = (await client.get("/status")).json()
    assert (status["status"], status["room_count"], status["total_tiles"]) == ("ok", 1, 2)


@pytest.mark.parametrize(
    ("change", "status", "field"),
    [
        ({"answer": "x" * 19}, 400, "answer"),
        ({"answer": 1}, 422, "answer"),
        ({"question": ""}, 422, "question"),
        ({"confidence": 1.1}, 422, "confidence"),
        ({"timestamp": -1}, 422, "timestamp"),
        ({"timestamp": 4e18}, 422, "timestamp"),
        ({"timestamp": 9e12}, 422, "timestamp"),
        ({"source": "x" * 257}, 422, "source"),
        ({"source": "", "agent": "x" * 257}, 422, "agent"),
        ({"domain": "x" * 257}, 422, "domain"),
        ({"tags": [""]}, 422, "tags[0]"),
        ({"room": "another"}, 422, "room"),
        ({"answer": "x" * 1024 * 1024}, 422, "answer"),
    ],
)
async def test_a_wrong_answer_changes_nothing(
    client: httpx.AsyncClient, node: Node, change: dict[str, Any], status: int, field: str
) -> None:
    clock = node.gossip.clock
    answer = await client.post("/room/r/submit", json=V2 | change)
    assert (answer.status_code, answer.json()["field"]) == (status, field)
    assert node.gossip.clock == clock


@pytest.mark.slow
async def test_wrong_parameters_are_named(client: httpx.AsyncClient) -> None:
    for path, status in (
        ("/plato/room/r?since=now", 422),
        ("/plato/room/r?limit=0", 422),
        ("/search", 400),
        ("/search?q=", 400),
        (f"/plato/room/{'x' * 257}", 422),
    ):
        answer = await client.get(path)
        assert answer.status_code == status, path
        assert answer.json()["error"] == answer.json()["detail"]
    empty = (await client.get("/plato/room/nowhere")).json()
    assert (empty["tiles"], empty["tile_count"], empty["created_at"]) == ([], 0, None)
    assert (await client.get("/plato/nothing")).status_code == 404


# --- the tiles are those of the fleet -----------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_other_tiles_are_shown_as_answers_and_answers_as_tiles(client: httpx.AsyncClient, node: Node) -> None:
    await node.tiles.put("arms", "note", "A text", author="forge")
    await node.tiles.put("arms", "object", '{"a": 1}', author="forge")
    await node.tiles.put("arms", "bytes", b"\xff", author="forge")
    taken = (await client.post("/submit", json={"question": "How hot?", "answer": ANSWER})).json()
    assert taken["room"] == "general"
    shown = (await client.get("/plato/room/arms")).json()
    assert {each["id"]: (each["question"], each["answer"]) for each in shown["tiles"]} == {
        "note": ("note", "A text"), "object": ("object", '{"a": 1}'),
    }  # fmt: skip
    tile = node.tiles.get("general", taken["tile_id"])
    assert json.loads(tile.content) == {
        "question": "How hot?", "answer": ANSWER, "domain": "general", "confidence": 0.5,
    }  # fmt: skip
    assert tile.author == "anonymous"
    await node.tiles.delete("general", taken["tile_id"])
    assert (await client.get("/plato/rooms")).json().keys() == {"arms"}
    assert (await client.post("/submit", json={"question": "How hot?", "answer": ANSWER})).json()["changed"]


async def test_deltas_of_the_crate_are_no_answers(client: httpx.AsyncClient) -> None:
    counter = {"node": "a", "satisfied_delta": 1, "violations_delta": 0, "seq": 1}
    delta = {"node": "a", "seq": 1, "counter": counter, "constraints": [], "position": None}
    assert (await client.post("/room/r/delta", json=delta)).status_code == 200
    assert (await client.get("/plato/rooms")).json() == {}
    assert (await client.get("/rooms")).json() == ["r"]


@pytest.mark.slow
async def test_an_answer_reaches_every_node_and_is_one_tile() -> None:
    async with fleet("one", "two") as nodes:
        clients = [
            httpx.AsyncClient(transport=httpx.ASGITransport(app=make_app(each)), base_url="http://127.0.0.1:8470") for each in nodes
        ]
        ids = [(await each.post("/submit", json={"question": "How hot?", "answer": ANSWER})).json()["tile_id"] for each in clients]
        assert ids[0] == ids[1]
        await eventually(lambda: agreed(nodes))
        sync = (await clients[0].get("/sync/status")).json()
        assert sync["connected"]
        assert sync["events_received"] > 0
        first, second = [(await each.get("/plato/room/general")).json() for each in clients]
        assert first == second
        assert first["tile_count"] == 1


# --- which contract is meant --------------------------------------------------------------------------------------------------

SDK = {"user-agent": "cocapn-plato-sdk/1.0"}
OTHER = {"user-agent": "curl/8", "accept": "*/*"}
BROWSER = {"user-agent": "Mozilla/5.0", "accept": "text/html,*/*"}


@pytest.mark.parametrize(
    ("method", "path", "query", "headers", "of_server", "of_server_by_default"),
    [
        ("GET", "/rooms", "", SDK, True, True),
        ("GET", "/rooms", "prefix=since", OTHER, False, True),
        ("GET", "/room/x", "", SDK, True, True),
        ("GET", "/room/x", "", {}, False, True),
        ("GET", "/room/x", "since=1", OTHER, True, True),
        ("GET", "/room/x", "sincere=1", OTHER, False, True),
        ("POST", "/room/x/submit", "", OTHER, True, True),
        ("POST", "/room/x/tile", "", SDK, False, False),
        ("POST", "/room/x/delta", "", OTHER, False, False),
        ("GET", "/", "", SDK, True, True),
        ("GET", "/", "", BROWSER, False, False),
        ("GET", "/", "", OTHER, False, True),
        ("GET", "/stats", "", BROWSER, True, True),
        ("POST", "/agent/x/chat", "", OTHER, True, True),
        ("GET", "/agents", "", OTHER, True, True),
        ("GET", "/agentsmith", "", SDK, False, False),
        ("GET", "/plato/armor", "", SDK, False, False),
        ("GET", "/plato/room/x", "since=1", SDK, False, False),
        ("GET", "/healthz", "", SDK, False, False),
        ("GET", "/metrics", "", SDK, False, False),
    ],
)
def test_the_contract_is_told_by_path_client_or_setting(
    method: str, path: str, query: str, headers: dict[str, str], *, of_server: bool, of_server_by_default: bool
) -> None:
    for by_default, expected in ((False, of_server), (True, of_server_by_default)):
        found = server_path(method, path, query, headers, by_default=by_default)
        assert found == (f"/plato{path}" if expected else path)


@pytest.mark.slow
async def test_the_clients_of_the_crate_go_on_working_beside_the_sdk(url: str) -> None:
    await call(PlatoClient(url).submit, "arms", "d", "How hot?", ANSWER)
    crate = CrateClient(url)
    assert await call(crate.list_rooms) == ["arms"]
    [tile] = (await call(crate.get_room, "arms")).tiles
    assert json.loads(tile.content)["answer"] == ANSWER
    async with httpx.AsyncClient(base_url=url) as browser:
        assert "<html" in (await browser.get("/", headers=BROWSER)).text


async def test_the_setting_makes_it_the_contract_of_all(client: httpx.AsyncClient) -> None:
    settings = NodeSettings(name="server", plato="server")
    async with Node(settings=settings, transport=MemoryNetwork().transport()) as node:
        transport = httpx.ASGITransport(app=make_app(node))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8470") as asking:
            assert (await asking.get("/rooms")).json() == {}
    assert (await client.get("/rooms")).json() == []


def test_the_page_of_reference_lists_what_is_not_served() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "plato.md").read_text()
    for path, reason in UNSERVED.items():
        assert f"`{path}`" in page
        assert reason in page
