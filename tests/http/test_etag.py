"""`ETag` and `If-None-Match`: never 304 when a reading has moved, and 304 when nothing has."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from constraint_crdt.crdt.clock import SECOND
from constraint_crdt.http import endpoint as answer_cache
from constraint_crdt.http import make_app
from constraint_crdt.http.endpoint import AnswerCache, Endpoint
from constraint_crdt.operations import OPERATIONS
from constraint_crdt.operations.operation import GET, Freshness
from constraint_crdt.plato import ANSWER_CHARACTERS, PlatoSubmission
from constraint_crdt.runtime.node import Node
from constraint_crdt.transport import MemoryNetwork
from tests.http.conftest import BASE

SETTLED = [
    operation.path
    for operation in OPERATIONS
    if operation.method == GET
    and operation.freshness is Freshness.STATE
    and not operation.path_fields
    and not any(parameter.required for parameter in operation.parameters)
]
"""The responses that are valid until the state moves, and so tell nothing that ages."""

Act = Callable[[Node], Awaitable[object]]
ACTS: dict[str, Act] = {
    "add": lambda node: node.add_constraint("hot", when="t < 1.0"),
    "edit": lambda node: node.add_constraint("hot", when="t < 2.0"),
    "check": lambda node: node.check({"t": 1.5}),
    "check unknown": lambda node: node.check({"t": "x"}),
    "record": lambda node: node.record(1, 1),
    "move": lambda node: node.update_position((1, 2)),
    "count": lambda node: node.counters.move("c", 1),
    "tile": lambda node: node.tiles.put("r", "t", "x"),
    "answer": lambda node: node.plato.submit(PlatoSubmission(question="q", answer="x" * ANSWER_CHARACTERS, room="r")),
    "parameter": lambda node: node.set_parameter("limit", 1.5),
    "nothing": lambda _: asyncio.sleep(0),
}


def request(path: str) -> Request:
    path, _, query = path.partition("?")
    return Request({"type": "http", "method": "GET", "path": path, "query_string": query.encode(), "headers": [], "root_path": ""})


async def computed(node: Node, path: str) -> bytes:
    """What the endpoint itself answers now."""
    [operation] = [each for each in OPERATIONS if each.method == "GET" and each.path == path.partition("?")[0]]
    return bytes((await Endpoint(operation).answer(node, request(path))).body)


@pytest.mark.slow
@given(st.lists(st.sampled_from(sorted(ACTS)), max_size=8))
@settings(max_examples=min(25, settings().max_examples), suppress_health_check=[HealthCheck.too_slow])
def test_an_answer_that_is_said_to_be_right_is_what_would_be_answered(acts: list[str]) -> None:
    """Time goes on with each act, so that a response with an age in it is noticed."""
    clock = [1_000 * SECOND]

    async def run() -> None:
        async with Node(name="forge", transport=MemoryNetwork().transport(), now=lambda: clock[0]) as node:
            transport = httpx.ASGITransport(app=make_app(node))
            async with httpx.AsyncClient(transport=transport, base_url=BASE) as client:
                held: dict[str, httpx.Response] = {}
                for act in acts:
                    await ACTS[act](node)
                    clock[0] += 60 * SECOND
                    for path in SETTLED:
                        tags = {"if-none-match": held[path].headers["etag"]} if path in held else {}
                        answer = await client.get(path, headers=tags)
                        if answer.status_code == 200:
                            held[path] = answer
                        else:
                            assert (answer.status_code, answer.content) == (304, b"")
                        assert held[path].content == await computed(node, path)

    asyncio.run(run())


@pytest.mark.slow
async def test_nothing_moved_nothing_sent(client: httpx.AsyncClient, node: Node) -> None:
    await node.add_constraint("hot")
    for path in SETTLED:
        tag = (await client.get(path)).headers["etag"]
        for header in (tag, tag.removeprefix("W/"), f'"x", {tag}', "*"):
            answer = await client.get(path, headers={"if-none-match": header})
            assert (answer.status_code, answer.headers["etag"]) == (304, tag)
        assert (await client.get(path, headers={"if-none-match": '"x"'})).status_code == 200


@pytest.mark.parametrize(
    "path", ["/v1/constraints?expired=2", "/v1/rates?half_life=x", "/v1/top?k=0", "/v1/tiles?after=x", "/v1/overview?limit=0"]
)
async def test_a_wrong_parameter_is_told_whatever_the_client_holds(client: httpx.AsyncClient, path: str) -> None:
    right = (await client.get(path.partition("?")[0])).headers["etag"]
    for header in ("*", right, f"{right}, *"):
        for _ in range(2):
            assert (await client.get(path, headers={"if-none-match": header})).status_code == 422


async def test_any_answer_is_held_where_there_is_one(client: httpx.AsyncClient) -> None:
    for _ in range(2):
        assert (await client.get("/v1/top?k=3", headers={"if-none-match": "*"})).status_code == 304
        assert (await client.get("/v1/top?of=none", headers={"if-none-match": "*"})).status_code == 404


def asking(node: Node) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=make_app(node)), base_url=BASE)


async def test_an_expiry_moves_the_tag_though_not_the_state() -> None:
    clock = [1_000 * SECOND]
    async with Node(name="forge", transport=MemoryNetwork().transport(), now=lambda: clock[0]) as node, asking(node) as client:
        await node.add_constraint("brief", ttl=5.0)
        await node.add_constraint("long", ttl=50.0)
        first = await client.get("/v1/constraints")
        before = node.gossip.state_hash
        clock[0] += 6 * SECOND
        again = await client.get("/v1/constraints", headers={"if-none-match": first.headers["etag"]})
        assert node.gossip.state_hash == before
        assert [each["id"] for each in again.json()] == ["long"]


async def test_a_peer_that_comes_moves_the_tag(client: httpx.AsyncClient, node: Node) -> None:
    first = await client.get("/v1/identity")
    node._runtime.exchanges._live.add("anvil")
    again = await client.get("/v1/identity", headers={"if-none-match": first.headers["etag"]})
    assert again.status_code == 200


async def test_what_ages_is_right_for_a_second(client: httpx.AsyncClient, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.1]
    monkeypatch.setattr(answer_cache, "monotonic", lambda: clock[0])
    first = await client.get("/v1/status")
    tag = {"if-none-match": first.headers["etag"]}
    clock[0] = 100.9
    assert (await client.get("/v1/status", headers=tag)).status_code == 304
    clock[0] = 101.0
    again = await client.get("/v1/status", headers=tag)
    assert again.status_code == 200
    assert again.json()["uptime"] > first.json()["uptime"]


@pytest.mark.slow
async def test_another_start_of_the_node_has_other_tags(node: Node) -> None:
    tags = set()
    for _ in range(2):
        async with Node(name="anvil", transport=MemoryNetwork().transport()) as one, asking(one) as client:
            tags.add((await client.get("/v1/counters")).headers["etag"])
    assert len(tags) == 2


@pytest.mark.slow
async def test_what_is_kept_is_bounded(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_cache, "MOST_BYTES", 5000)
    monkeypatch.setattr(answer_cache, "MOST_ANSWERS", 5)
    monkeypatch.setattr(answer_cache, "LARGEST", 2000)
    monkeypatch.setattr(answer_cache, "monotonic", lambda: 100.0)
    [operation] = [each for each in OPERATIONS if each.name == "constraints"]
    cache = AnswerCache(node)
    for size in (10, 400, 900, 400, 10):
        await node.add_constraint("x", about="y" * size)
        for number in range(20):
            answer = await cache.answer(Endpoint(operation), request(f"/v1/constraints?limit={number + 1}"))
            assert b"y" * size in bytes(answer.body)
            kept = [len(response.body) for _, response in cache._kept.values()]
            assert len(kept) <= 5
            assert sum(kept) == cache._bytes <= 5000
            assert max(kept, default=0) <= 2000
    assert await cache.answer(Endpoint(operation), request("/v1/constraints?limit=20")) is answer, "it was kept"


@pytest.mark.slow
@pytest.mark.parametrize("pause_ends_at", [0, 1, 15, 29, 30])
async def test_what_takes_long_is_computed_once_for_all_who_ask_and_is_never_old(
    client: httpx.AsyncClient, node: Node, monkeypatch: pytest.MonkeyPatch, pause_ends_at: int
) -> None:
    """Also where the pause after the last computation ends while some of them wait and others have yet to ask."""
    computed, clock = 0, 100.0

    def slow(real: Callable[[], object]) -> object:
        nonlocal computed, clock
        computed += 1
        clock += 0.02
        return real()

    async def ask(number: int) -> httpx.Response:
        nonlocal clock
        clock += 1.0 if number == pause_ends_at else 0.0
        return await client.get("/v1/counters")

    monkeypatch.setattr(node.counters, "reports", partial(slow, node.counters.reports))
    monkeypatch.setattr(answer_cache, "monotonic", lambda: clock)
    await client.get("/v1/counters")
    await node.counters.move("x", 1)
    answers = await asyncio.gather(*map(ask, range(30)))
    assert all([each["name"] for each in answer.json()] == ["x"] for answer in answers)
    assert computed == 2
    await asyncio.gather(*map(ask, range(30)))
    assert computed == 2
    tag = {"if-none-match": answers[0].headers["etag"]}
    assert (await client.get("/v1/counters", headers=tag)).status_code == 304


async def test_constraints_are_right_for_a_second_and_until_something_is_measured(
    client: httpx.AsyncClient, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time by verdict ages, and the margin moves with each sample."""
    clock = [100.1]
    monkeypatch.setattr(answer_cache, "monotonic", lambda: clock[0])
    await node.add_constraint("hot", when="t < 1.0")
    await node.measure({"t": 0.5})
    await node._runtime.evaluator.write_counts()  # the write of the interval would change the state in between
    first = await client.get("/v1/constraints")
    tag = {"if-none-match": first.headers["etag"]}
    assert (await client.get("/v1/constraints", headers=tag)).status_code == 304
    await node.measure({"t": 0.25})
    await node._runtime.evaluator.write_counts()
    again = await client.get("/v1/constraints", headers=tag)
    assert (first.json()[0]["margin"], again.json()[0]["margin"]) == (0.5, 0.75)
    tag = {"if-none-match": again.headers["etag"]}
    clock[0] = 100.9
    assert (await client.get("/v1/constraints", headers=tag)).status_code == 304
    clock[0] = 101.0
    assert (await client.get("/v1/constraints", headers=tag)).status_code == 200


def test_the_responses_of_the_state_are_found() -> None:
    assert {"/v1/tiles", "/v1/counters", "/v1/position", "/v1/labels", "/v1/identity", "/v1/parameters"} <= {*SETTLED}


def test_what_waits_or_is_large_has_no_tag() -> None:
    without = {operation.name for operation in OPERATIONS if operation.freshness is None and operation.method == "GET"}
    assert {"events", "export", "coverage", "fleet_coverage", "tile_content", "room"} <= without
    aging = {operation.name for operation in OPERATIONS if operation.freshness is Freshness.AGING}
    assert {"status", "nodes", "storage", "rates", "top", "overview", "lately"} <= aging
