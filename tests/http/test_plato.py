"""The PLATO contract over a socket: raw HTTP and JSON as the Rust crate writes it. No code is shared with the server."""

import asyncio
import http.client
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest

from constraint_crdt.http.server import ApiServer
from constraint_crdt.runtime.node import Node
from tests.runtime.fleet import agreed, eventually, fleet

TILE = """{
  "id": "tile-1",
  "room": "fleet-ops",
  "content": "Hello fleet",
  "tags": [
    "critical",
    "verified"
  ],
  "constraints": {
    "elements": {
      "bounds": [
        [
          "agent-a",
          1
        ]
      ]
    },
    "tombstones": [
      [
        "agent-a",
        2
      ]
    ],
    "seq": {
      "agent-a": 2
    }
  },
  "metrics": {
    "counts": {
      "agent-a": 100,
      "agent-b": 200
    },
    "violations": {
      "agent-a": 5
    }
  },
  "position": {
    "position": [
      3,
      -1
    ],
    "timestamp": 1750000000000000001,
    "node": "agent-a",
    "norm": 13
  },
  "author": "forgemaster",
  "created_at": 1750000000000,
  "updated_at": 1750000000123,
  "content_hash": 4622417470741783771
}"""
"""`FleetTile::to_json`, pretty-printed as the crate does."""

DELTA = (
    '{"node":"agent-a","seq":1,"counter":{"node":"agent-a","satisfied_delta":100,"violations_delta":5,"seq":1},'
    '"constraints":[{"Add":{"constraint_id":"c1","node":"agent-a","seq":1}}],'
    '"position":{"old_norm":0,"new_norm":1,"position":[1,0],"node":"agent-a","seq":1}}'
)
DELTA_2 = (
    '{"node":"agent-a","seq":2,"counter":{"node":"agent-a","satisfied_delta":50,"violations_delta":0,"seq":2},'
    '"constraints":[{"Remove":{"constraint_id":"c1","tombstoned_tags":[],"seq":2}}],"position":null}'
)


def fnv(text: str) -> int:
    """The hash as the crate makes it."""
    found = 14695981039346656037
    for byte in text.encode():
        found ^= byte
        found = found * 1099511628211 % 18446744073709551616
    return found


class Client:
    """Speaks HTTP as `reqwest` does: no Origin, its own User-Agent."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").rpartition(":")
        self._host, self._port = host, int(port)

    async def ask(
        self, method: str, path: str, body: str | bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        return await asyncio.to_thread(self._ask, method, path, body, headers)

    def _ask(self, method: str, path: str, body: str | bytes | None, headers: Mapping[str, str] | None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=20)
        try:
            usual = {"Accept": "*/*", **({"Content-Type": "application/json"} if body is not None else {})}
            connection.request(method, path, body, usual | dict(headers or {}))
            response = connection.getresponse()
            answer = response.read()
            return response.status, json.loads(answer) if answer else None
        finally:
            connection.close()


@pytest.fixture
async def client(node: Node) -> AsyncIterator[Client]:
    async with ApiServer(node, "127.0.0.1", 0) as api:
        yield Client(api.url)


@pytest.mark.slow
async def test_a_tile_goes_in_and_comes_out_as_it_was(client: Client) -> None:
    assert await client.ask("GET", "/rooms") == (200, [])
    status, _ = await client.ask("POST", "/room/fleet-ops/tile", TILE)
    assert status == 200
    status, room = await client.ask("GET", "/room/fleet-ops")
    assert (status, room["id"], room["tile_count"]) == (200, "fleet-ops", 1)
    assert room["tiles"] == [json.loads(TILE)]
    assert set(room) == {"id", "tiles", "tile_count"}


@pytest.mark.slow
async def test_a_repeat_is_answered_alike_and_changes_nothing(client: Client, node: Node) -> None:
    assert (await client.ask("POST", "/room/fleet-ops/tile", TILE))[1]["changed"]
    clock = node.gossip.clock
    assert await client.ask("POST", "/room/fleet-ops/tile", TILE) == (
        200, {"room": "fleet-ops", "id": "tile-1", "changed": False},
    )  # fmt: skip
    assert node.gossip.clock == clock


@pytest.mark.slow
async def test_a_tile_merges_with_what_the_node_has(client: Client, node: Node) -> None:
    await node.tiles.put("fleet-ops", "tile-1", "Written here, later", author="forge", tags=["ours"], constraints=["norm"])
    await client.ask("POST", "/room/fleet-ops/tile", TILE)
    _, room = await client.ask("GET", "/room/fleet-ops")
    [tile] = room["tiles"]
    me = str(node.gossip.replica)
    assert tile["content"] == "Written here, later"
    assert tile["content_hash"] == fnv("Written here, later")
    assert tile["tags"] == ["critical", "ours", "verified"]
    assert (tile["author"], tile["created_at"]) == ("forgemaster", 1750000000000)
    assert tile["constraints"]["elements"]["bounds"] == [["agent-a", 1]]
    [[who, seq]] = tile["constraints"]["elements"]["norm"]
    assert who == me
    assert tile["constraints"]["seq"] == {"agent-a": 2, me: seq}
    assert node.tiles.get("fleet-ops", "tile-1").metrics.total == (300, 5)


@pytest.mark.slow
async def test_rooms_are_listed_by_prefix(client: Client) -> None:
    for room in ("a", "a+b", "a b", "ab", "b/c", "ä"):
        tile = json.loads(TILE) | {"room": room}
        path = room.replace(" ", "%20").replace("ä", "%C3%A4")
        assert (await client.ask("POST", f"/room/{path}/tile", json.dumps(tile)))[0] == 200
    assert await client.ask("GET", "/rooms") == (200, ["a", "a b", "a+b", "ab", "b/c", "ä"])
    assert await client.ask("GET", "/rooms?prefix=a") == (200, ["a", "a b", "a+b", "ab"])
    assert await client.ask("GET", "/rooms?prefix=a+") == (200, ["a+b"]), "the crate does not encode what it asks for"
    assert await client.ask("GET", "/rooms?prefix=a%20") == (200, ["a b"])
    assert await client.ask("GET", "/rooms?other=1&prefix=%C3%A4") == (200, ["ä"])
    assert await client.ask("GET", "/rooms?prefix=zz") == (200, [])
    assert (await client.ask("GET", "/room/b/c"))[1]["id"] == "b/c"
    assert (await client.ask("GET", "/room/b%2Fc"))[1]["id"] == "b/c"


@pytest.mark.slow
async def test_a_delta_counts_once(client: Client, node: Node) -> None:
    assert await client.ask("POST", "/room/r/delta", DELTA) == (200, {"node": "agent-a", "seq": 1, "applied": True})
    clock = node.gossip.clock
    assert await client.ask("POST", "/room/r/delta", DELTA) == (200, {"node": "agent-a", "seq": 1, "applied": False})
    assert node.gossip.clock == clock
    _, room = await client.ask("GET", "/room/r")
    [tile] = room["tiles"]
    assert (tile["id"], tile["content"], tile["author"]) == ("_room", "", "agent-a")
    assert tile["metrics"] == {"counts": {"agent-a": 100}, "violations": {"agent-a": 5}}
    assert tile["constraints"]["elements"] == {"c1": [["agent-a", 1]]}
    assert (tile["position"]["position"], tile["position"]["node"], tile["position"]["norm"]) == ([1, 0], "agent-a", 1)
    await client.ask("POST", "/room/r/delta", DELTA_2)
    [tile] = (await client.ask("GET", "/room/r"))[1]["tiles"]
    assert tile["metrics"] == {"counts": {"agent-a": 150}, "violations": {"agent-a": 5}}
    assert tile["constraints"]["elements"] == {}
    assert tile["constraints"]["tombstones"] == [["agent-a", 1]]


@pytest.mark.slow
async def test_a_delta_counts_once_in_the_fleet() -> None:
    async with (
        fleet("one", "two") as nodes,
        ApiServer(nodes[0], "127.0.0.1", 0) as at_one,
        ApiServer(nodes[1], "127.0.0.1", 0) as at_two,
    ):
        await asyncio.gather(*(Client(api.url).ask("POST", "/room/r/delta", DELTA) for api in (at_one, at_two)))
        await eventually(lambda: agreed(nodes))
        for api in (at_one, at_two):
            assert (await Client(api.url).ask("POST", "/room/r/delta", DELTA))[1]["applied"] is False
            [tile] = (await Client(api.url).ask("GET", "/room/r"))[1]["tiles"]
            assert tile["metrics"]["counts"] == {"agent-a": 100}


def changed(made: str, change: Callable[[Any], object]) -> str:
    """JSON with something changed in it."""
    value = json.loads(made)
    change(value)
    return json.dumps(value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("fleet-ops/tile", changed(TILE, lambda t: t.pop("author")), "author"),
        ("fleet-ops/tile", changed(TILE, lambda t: t.update(content="changed")), "content_hash"),
        ("fleet-ops/tile", changed(TILE, lambda t: t.update(content_hash=0)), "content_hash"),
        ("fleet-ops/tile", changed(TILE, lambda t: t["metrics"].pop("violations")), "metrics.violations"),
        ("fleet-ops/tile", changed(TILE, lambda t: t["metrics"]["counts"].update({"agent-a": "many"})), "metrics.counts"),
        ("fleet-ops/tile", changed(TILE, lambda t: t["constraints"].pop("seq")), "constraints.seq"),
        ("fleet-ops/tile", changed(TILE, lambda t: t["position"].update(position=[1])), "position.position"),
        ("fleet-ops/tile", changed(TILE, lambda t: t.update(tags="critical")), "tags"),
        ("fleet-ops/tile", changed(TILE, lambda t: t.update(updated_at=9_000_000_000_000)), "updated_at"),
        ("another/tile", TILE, "room"),
        ("fleet-ops/delta", changed(DELTA, lambda d: d.pop("seq")), "seq"),
        ("fleet-ops/delta", changed(DELTA, lambda d: d["counter"].pop("satisfied_delta")), "counter.satisfied_delta"),
        ("fleet-ops/delta", changed(DELTA, lambda d: d["constraints"][0]["Add"].pop("seq")), "constraints[0].Add.seq"),
        ("fleet-ops/delta", changed(DELTA, lambda d: d["constraints"].append({"Add": None})), "constraints[1]"),
        ("fleet-ops/delta", "[]", None),
    ],
)
async def test_a_wrong_field_is_named(client: Client, node: Node, path: str, body: str, field: str | None) -> None:
    before = node.gossip.clock
    status, problem = await client.ask("POST", f"/room/{path}", body)
    assert (status, problem["status"], problem.get("field")) == (422, 422, field)
    assert field is None or f"`{field}`" in problem["detail"]
    assert node.gossip.clock == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        ("{", {}, 400),
        (b"\xff", {}, 400),
        ('{"x":' + "[" * 200_000, {}, 400),
        (TILE, {"Content-Type": "text/plain"}, 415),
        (" " * (8 * 2**20 + 1), {}, 413),
        (TILE, {"Origin": "http://evil.example"}, 403),
        (TILE, {"Host": "evil.example"}, 421),
    ],
)
async def test_what_is_not_taken_at_all(client: Client, body: str | bytes, headers: dict[str, str], status: int) -> None:
    answered, problem = await client.ask("POST", "/room/fleet-ops/tile", body, headers)
    assert (answered, problem["status"]) == (status, status)
    assert await client.ask("GET", "/rooms") == (200, [])


@pytest.mark.slow
async def test_what_is_not_there(client: Client) -> None:
    status, problem = await client.ask("GET", "/room/nowhere")
    assert (status, "'nowhere'" in problem["detail"]) == (404, True)
    assert (await client.ask("GET", "/room/"))[0] == 404
    assert (await client.ask("DELETE", "/room/r"))[0] == 405
    assert (await client.ask("PUT", "/rooms", "[]"))[0] == 405


@pytest.mark.long
async def test_a_tile_of_the_largest_content_goes_both_ways(client: Client) -> None:
    content = "\0" * (2**20 - 2) + "é"
    tile = json.loads(TILE) | {"content": content, "content_hash": fnv(content)}
    assert (await client.ask("POST", "/room/fleet-ops/tile", json.dumps(tile)))[0] == 200
    assert (await client.ask("GET", "/room/fleet-ops"))[1]["tiles"] == [tile]
    assert (await client.ask("POST", "/room/fleet-ops/tile", json.dumps(tile)))[1]["changed"] is False


@pytest.mark.slow
async def test_a_room_shows_its_text_tiles_in_order(client: Client, node: Node) -> None:
    for id_, content in (("b", "two"), ("a", "one"), ("binary", b"\xff"), ("gone", "x")):
        await node.tiles.put("r", id_, content)
    await node.tiles.delete("r", "gone")
    _, room = await client.ask("GET", "/room/r")
    assert [(tile["id"], tile["content"]) for tile in room["tiles"]] == [("a", "one"), ("b", "two")]
    assert room["tile_count"] == 2


@pytest.mark.slow
async def test_a_tag_may_be_reached_under_names_that_need_escaping(client: Client) -> None:
    body = changed(TILE, lambda t: t.update(room='q"\\\n', tags=["\u2028"]))
    assert (await client.ask("POST", "/room/q%22%5C%0A/tile", body))[0] == 200
    _, room = await client.ask("GET", "/room/q%22%5C%0A")
    assert (room["id"], room["tiles"]) == ('q"\\\n', [json.loads(body)])
