"""Tiles over the API: what is put is what is got, whatever it is called; and what cannot be is said with the field to blame."""

import base64
import hashlib
from urllib.parse import quote

import httpx
import pytest

from constraint_crdt.crdt.cells import SEPARATOR, make_cell
from constraint_crdt.crdt.clock import Replica
from constraint_crdt.crdt.limits import TILE_BYTES
from constraint_crdt.runtime.node import Node
from constraint_crdt.types.tile_cells import CONTENT

ODD_NAMES = ["map", "a/b", "a//b/", "50 % über\nzwei", "..", "?x=1#y", "%2F", "/", "content", "restore"]
BYTES = {"content-type": "application/octet-stream"}


def path(room: str, id_: str) -> str:
    return f"/v1/tiles/{quote(room, safe='')}/{quote(id_, safe='')}".replace("/..", "/%2E%2E")


@pytest.mark.parametrize("id_", ODD_NAMES)
@pytest.mark.parametrize("room", ["yard", "hall/1", ".."])
async def test_any_name_will_do(client: httpx.AsyncClient, node: Node, room: str, id_: str) -> None:
    at = path(room, id_)
    assert (await client.put(at, json={"text": "x"})).status_code == 201
    assert list(node.gossip.state.tiles) == [(room, id_)]
    assert (await client.get(at)).json()["text"] == "x"
    assert (await client.get(f"{at}/content")).content == b"x"
    assert (await client.get("/v1/tiles", params={"room": room})).json()[0]["id"] == id_
    assert (await client.delete(at)).json() == {"room": room, "id": id_}
    assert (await client.post(f"{at}/restore")).json()["id"] == id_


async def test_a_tile_is_put_as_text_and_got_as_it_was(client: httpx.AsyncClient, node: Node) -> None:
    body = {"text": "grün", "author": "amy", "tags": ["b", "a"], "constraints": ["max_speed"]}
    first = await client.put("/v1/tiles/yard/map", json=body)
    assert first.status_code == 201
    stored = "grün".encode()
    report = first.json()
    assert report["hash"] == hashlib.blake2b(stored, digest_size=32).hexdigest()
    assert {key: report[key] for key in ("room", "id", "size", "author", "tags", "constraints", "deleted", "written_by")} == {
        "room": "yard", "id": "map", "size": 5, "author": "amy", "tags": ["a", "b"], "constraints": ["max_speed"],
        "deleted": False, "written_by": "forge",
    }  # fmt: skip
    assert report["created"] == report["updated"] > 1_700_000_000 * 10**9
    assert (await client.get("/v1/tiles/yard/map")).json() == report | {"text": "grün", "base64": None}
    again = await client.put("/v1/tiles/yard/map", json={"text": "", "tags": ["c"]})
    assert (again.status_code, again.json()["tags"], again.json()["author"], again.json()["size"]) == (
        200,
        ["a", "b", "c"],
        "amy",
        0,
    )
    assert again.json()["updated"] > report["updated"]


@pytest.mark.slow
async def test_a_tile_is_put_as_bytes(client: httpx.AsyncClient, node: Node) -> None:
    content = bytes(range(256)) * (TILE_BYTES // 256)
    assert (await client.put("/v1/tiles/r/raw/content", content=content, headers=BYTES)).status_code == 201
    assert (await client.put("/v1/tiles/r/raw/content", content=content, headers=BYTES)).status_code == 200
    raw = await client.get("/v1/tiles/r/raw/content")
    assert raw.content == content
    assert raw.headers["content-type"] == "application/octet-stream"
    assert (raw.headers["x-content-type-options"], raw.headers["content-disposition"]) == ("nosniff", "attachment")
    answer = (await client.get("/v1/tiles/r/raw")).json()
    assert answer["text"] is None
    assert base64.b64decode(answer["base64"]) == content
    assert (await client.put("/v1/tiles/r/copy", json={"base64": answer["base64"]})).status_code == 201
    assert node.tiles.get("r", "copy").content == content


async def test_tiles_are_listed_by_room_and_prefix(client: httpx.AsyncClient, node: Node) -> None:
    for room, id_ in [("yard", "b"), ("yard", "a"), ("hall/1", "x"), ("hall/2", "y")]:
        await node.tiles.put(room, id_, id_)
    await node.tiles.delete("hall/2", "y")

    async def listed(**params: str) -> list[tuple[str, str, bool]]:
        answer = await client.get("/v1/tiles", params=params)
        return [(each["room"], each["id"], each["deleted"]) for each in answer.json()]

    assert await listed() == [("hall/1", "x", False), ("yard", "a", False), ("yard", "b", False)]
    assert await listed(room="yard") == [("yard", "a", False), ("yard", "b", False)]
    assert await listed(prefix="hall") == [("hall/1", "x", False)]
    assert await listed(room="yard", prefix="hall") == []
    assert await listed(deleted="1") == [("hall/2", "y", True)]
    assert await listed(deleted="1", room="yard") == []


async def test_a_deleted_tile_is_not_there_until_it_is_restored(client: httpx.AsyncClient) -> None:
    await client.put("/v1/tiles/r/x", json={"text": "kept"})
    await client.delete("/v1/tiles/r/x")
    for answer in (
        await client.get("/v1/tiles/r/x"),
        await client.delete("/v1/tiles/r/x"),
        await client.get("/v1/tiles/r/x/content"),
    ):
        assert answer.status_code == 404
        assert answer.json()["detail"] == "tile 'x' in room 'r' is deleted: restore it first"
    assert (await client.post("/v1/tiles/r/x/restore")).status_code == 200
    assert (await client.get("/v1/tiles/r/x")).json()["text"] == "kept"
    again = await client.post("/v1/tiles/r/x/restore")
    assert (again.status_code, "not deleted" in again.json()["detail"]) == (404, True)


@pytest.mark.slow
async def test_sets_are_edited_at_once_or_not_at_all(client: httpx.AsyncClient, node: Node) -> None:
    await client.put("/v1/tiles/r/x", json={"text": "", "tags": ["a", "b"], "constraints": ["c"]})
    changes = {"add_tags": ["d", "a"], "remove_tags": ["b"], "add_constraints": ["e"], "remove_constraints": ["c"]}
    answer = await client.patch("/v1/tiles/r/x", json=changes)
    assert (answer.status_code, answer.json()["tags"], answer.json()["constraints"]) == (200, ["a", "d"], ["e"])
    before = node.gossip.state_hash
    for body, field, status in [
        ({"add_tags": ["z"], "remove_tags": ["b"]}, "remove_tags", 404),
        ({"add_tags": ["z"], "remove_constraints": ["c"]}, "remove_constraints", 404),
        ({"add_tags": ["z", ""]}, "add_tags", 422),
        ({"add_tags": ["z"], "add_constraints": ["c" * 257]}, "add_constraints", 422),
        ({"tags": ["z"]}, "tags", 422),
    ]:
        refused = await client.patch("/v1/tiles/r/x", json=body)
        assert (refused.status_code, refused.json()["field"]) == (status, field)
    assert node.gossip.state_hash == before
    assert (await client.patch("/v1/tiles/r/y", json={})).status_code == 404


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({}, 422, "text"),
        ({"text": "x", "base64": "eA=="}, 422, "text"),
        ({"base64": "no!"}, 422, "base64"),
        ({"base64": "ü"}, 422, "base64"),
        ({"text": 7}, 422, "text"),
        ({"text": "x" * (TILE_BYTES + 1)}, 413, "text"),
        ({"base64": base64.b64encode(bytes(TILE_BYTES + 1)).decode()}, 413, "base64"),
        ({"text": "x", "tags": [""]}, 422, "tags"),
        ({"text": "x", "tags": [7]}, 422, "tags[0]"),
        ({"text": "x", "constraints": ["k" * 257]}, 422, "constraints"),
        ({"text": "x", "author": "a" * 257}, 422, "author"),
        ({"text": "x", "created": 1}, 422, "created"),
    ],
)
async def test_what_is_wrong_with_a_tile_is_said(
    client: httpx.AsyncClient, node: Node, body: object, status: int, field: str
) -> None:
    answer = await client.put("/v1/tiles/r/x", json=body)
    assert (answer.status_code, answer.json().get("field")) == (status, field)
    assert len(node.gossip.state.tiles) == 0
    assert len(answer.json()["detail"]) < 200


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/v1/tiles/r", 404),
        ("GET", "/v1/tiles/r/x/y", 404),
        ("GET", "/v1/tiles/r/x/content/z", 404),
        ("GET", "/v1/tiles//x", 422),
        ("GET", "/v1/tiles/r/", 422),
        ("GET", "/v1/tiles/r/%1F", 422),
        ("GET", f"/v1/tiles/r/{'x' * 257}", 422),
        ("GET", "/v1/tiles/r/%FF", 400),
        ("GET", "/v1/tiles/r/x", 404),
        ("POST", "/v1/tiles/r/x/restore", 404),
        ("PATCH", "/v1/tiles/r/x/content", 405),
        ("GET", "/v1/tiles/r/x/restore", 405),
        ("POST", "/v1/tiles/r/x", 405),
        ("DELETE", "/v1/tiles", 405),
        ("GET", "/v1/tiles?rooms=r", 422),
        ("GET", "/v1/tiles?deleted=yes", 422),
    ],
)
async def test_what_is_wrong_with_a_path_is_said(client: httpx.AsyncClient, method: str, target: str, status: int) -> None:
    answer = await client.request(method, target)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert status != 405 or answer.headers["allow"]


@pytest.mark.slow
@pytest.mark.parametrize("room", ["r", "a/b", "content"])
@pytest.mark.parametrize("id_", ["x", "x/content", "restore"])
async def test_a_path_takes_what_its_own_resource_takes(client: httpx.AsyncClient, room: str, id_: str) -> None:
    at = path(room, id_)
    for below, methods in (("", "DELETE, GET, HEAD, PATCH, PUT"), ("/content", "GET, HEAD, PUT"), ("/restore", "POST")):
        for method in {"OPTIONS", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "LIST"} - set(methods.split(", ")):
            answer = await client.request(method, at + below)
            assert (answer.status_code, answer.headers["allow"]) == (405, methods)
            assert method == "HEAD" or answer.json()["detail"].endswith(f"does not take {method}: it takes {methods}")


async def test_bytes_must_be_said_to_be_bytes_and_be_few_enough(client: httpx.AsyncClient, node: Node) -> None:
    assert (await client.put("/v1/tiles/r/x/content", content=b"x")).status_code == 415
    assert (await client.put("/v1/tiles/r/x/content", content=bytes(TILE_BYTES + 1), headers=BYTES)).status_code == 413
    assert len(node.gossip.state.tiles) == 0


async def test_a_damaged_content_is_said_to_be_damaged(client: httpx.AsyncClient, node: Node) -> None:
    cell = make_cell(CONTENT, f"r{SEPARATOR}x", [5, 100, bytes(32)])
    node.gossip.state.rows.write(Replica("liar", 1), cell)
    for target in ("/v1/tiles/r/x", "/v1/tiles/r/x/content"):
        answer = await client.get(target)
        assert (answer.status_code, "damaged" in answer.json()["detail"]) == (500, True)
    assert (await client.get("/v1/tiles")).json()[0]["size"] == 100
