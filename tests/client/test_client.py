"""Both clients against a real server: every operation, and everything that can go wrong in between."""

import asyncio
import contextlib
import inspect
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from constraint_crdt import ConstraintCrdtError
from constraint_crdt.client import (
    AddressError,
    AsyncClient,
    Client,
    ClientError,
    Happened,
    NoAnswer,
    NotANode,
    NotFound,
    Refused,
    Unauthorized,
    WrongInput,
    encode_request,
    read_address,
    read_token,
)
from constraint_crdt.errors import InvalidValue
from constraint_crdt.http.server import ApiServer
from constraint_crdt.http.tokens import Tokens
from constraint_crdt.model import Event, EventKind
from constraint_crdt.operations import OPERATIONS
from constraint_crdt.operations.constraints import ADD, DefinitionReport, new_constraint
from constraint_crdt.operations.operation import Right
from constraint_crdt.operations.variables import SET_PARAMETER, SetParameter
from constraint_crdt.runtime.node import Node

NOT_A_METHOD = {"docs"}
"""A page for people."""

Found = TypeVar("Found")


async def aside(work: Callable[[], Found]) -> Found:
    """Run blocking work beside the server, which lives on this loop."""
    return await asyncio.to_thread(work)


class Both:
    """Asks by both clients, and sees that both answer alike."""

    def __init__(self, url: str, token: str | None = None, timeout: float = 5.0) -> None:
        self.blocking = Client(url, token=token, timeout=timeout)
        self.asynchronous = AsyncClient(url, token=token, timeout=timeout)

    async def ask(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """The answer of the second one."""
        one = await aside(lambda: getattr(self.blocking, name)(*args, **kwargs))
        other = await getattr(self.asynchronous, name)(*args, **kwargs)
        assert type(one) is type(other)
        return other

    async def fail(self, kind: type[ClientError], name: str, *args: Any) -> ClientError:
        """What both raise."""
        with pytest.raises(kind) as one:
            await aside(lambda: getattr(self.blocking, name)(*args))
        with pytest.raises(kind) as other:
            await getattr(self.asynchronous, name)(*args)
        assert str(one.value) == str(other.value)
        assert type(one.value) is type(other.value) is kind
        return other.value

    def close(self) -> None:
        self.blocking.close()
        self.asynchronous.close()


@pytest.fixture
async def both(api: ApiServer) -> AsyncIterator[Both]:
    """Without a token; closed also after a failure, else another test would be told of the open connections."""
    with contextlib.closing(Both(api.url)) as asking:
        yield asking


def test_there_is_a_method_for_every_operation() -> None:
    for operation in OPERATIONS:
        if operation.name not in NOT_A_METHOD and operation.in_clients:
            assert callable(getattr(Client, operation.name))
            assert callable(getattr(AsyncClient, operation.name))
            assert inspect.getdoc(getattr(Client, operation.name))


@pytest.mark.slow
async def test_every_operation_answers_with_its_report(both: Both) -> None:
    asked: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
        ("add", ("a/1 é",), {"when": "t < 1.0", "severity": "critical", "on": {}, "ttl": 3600.0}),
        ("check", ({"t": 2.0},), {}),
        ("measure", ({"t": 0.5},), {}),
        ("record", (3, 1), {"constraint": "a/1 é"}),
        ("batch", ([{"add": {"id": "b"}}, {"record": {"satisfied": 1}}],), {}),
        ("check_expression", ("a <",), {}),
        ("put_tile", ("hall/1", "map"), {"text": "grün", "tags": ["x"]}),
        ("put_tile_content", ("hall/1", "raw", b"\xff\x00"), {}),
        ("edit_tile", ("hall/1", "map"), {"add_tags": ["y"]}),
        ("tally", ("items", {"x": 2}), {}),
        ("insert", ("jobs", ["1", "2"]), {"expected_items": 100, "fp_rate": 0.01}),
        ("move_counter", ("doors", -3), {}),
        ("move", ((2, -1),), {}),
        ("seen", ("jobs", "1"), {}),
        ("tile", ("hall/1", "map"), {}),
        ("tile_content", ("hall/1", "raw"), {}),
        ("counter", ("doors",), {}),
        ("coverage", ("a/1 é",), {"wait": 1, "timeout": 1.0}),
        ("explain", ("a/1 é",), {}),
        ("tiles", ("hall/1",), {}),
        ("rates", (), {"constraint": "a/1 é"}),
        ("overview", (), {"limit": 1}),
        ("constraints", (), {"expired": True}),
        ("room", ("hall/1",), {}),
    ]
    for name, args, kwargs in asked:
        await both.ask(name, *args, **kwargs)
    exported = await both.ask("export")
    assert not (await both.ask("import_state", exported)).changed
    for name in ("status", "nodes", "storage", "identity", "alive", "ready", "metrics", "openapi", "lately", "top"):
        await both.ask(name)
    for name in ("fleet_coverage", "convergence", "diagnosis", "counters", "position", "rooms", "alerts"):
        await both.ask(name)
    [one, _] = await both.ask("constraints")
    assert (one.id, one.satisfied, one.severity) == ("a/1 é", 6, "critical")
    assert await both.ask("tile_content", "hall/1", "raw") == b"\xff\x00"
    assert [await aside(lambda: both.blocking.remove("a/1 é").id), (await both.asynchronous.remove("b")).id] == ["a/1 é", "b"]
    await aside(lambda: both.blocking.delete_tile("hall/1", "map"))
    assert (await both.asynchronous.restore_tile("hall/1", "map")).tags == ["x", "y"]


@pytest.mark.slow
async def test_connections_are_kept(both: Both) -> None:
    for _ in range(3):
        await both.ask("status")
    assert len(both.blocking._idle) == len(both.asynchronous._idle) == 1


@pytest.mark.slow
async def test_a_connection_that_the_node_closed_is_replaced(node: Node, api: ApiServer, both: Both) -> None:
    await both.ask("status")
    server = api._server
    assert server is not None
    for connection in list(server.server_state.connections):
        connection.transport.close()
    while server.server_state.connections:  # noqa: ASYNC110 - the server has no event for it
        await asyncio.sleep(0.001)
    assert (await both.ask("add", "x")).id == "x"


@pytest.mark.slow
async def test_all_pages_are_one_answer(node: Node, both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("constraint_crdt.operations.operation.PAGE", 2)
    for number in range(5):
        await node.add_constraint(f"c{number}")
    assert [each.id for each in await both.ask("constraints")] == ["c0", "c1", "c2", "c3", "c4"]
    assert [each.constraint for each in (await both.ask("rates")).constraints] == ["c0", "c1", "c2", "c3", "c4"]


@pytest.mark.slow
async def test_problems_are_errors_of_one_family(both: Both) -> None:
    missing = await both.fail(NotFound, "remove", "nope")
    assert "'nope'" in str(missing)
    wrong = await both.fail(WrongInput, "add", "")
    assert isinstance(wrong, Refused)
    assert (wrong.status, wrong.field) == (422, "id")
    large = await both.fail(WrongInput, "check_expression", "x" * 2_000_000)
    assert large.status == 413  # type: ignore[attr-defined]


@pytest.mark.slow
async def test_tokens_are_sent_and_never_shown(node: Node) -> None:
    secret = "s" * 20
    async with ApiServer(node, "127.0.0.1", 0, tokens=Tokens([(Right.READ, secret)])) as api:
        both = Both(api.url, secret)
        assert (await both.ask("status")).node == "forge"
        refused = await both.fail(Unauthorized, "add", "x")
        assert secret not in f"{refused!r} {both.blocking!r} {both.asynchronous!r}"
        assert [heard async for heard in both.asynchronous.events(follow=False)] == []
        both.close()
        both = Both(api.url)
        await both.fail(Unauthorized, "status")
        with pytest.raises(Unauthorized):
            await anext(both.asynchronous.events())
        both.close()
    with pytest.raises(ValueError, match="characters"):
        Client("forge", token="a\r\nb")


async def test_nobody_there() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        both = Both(f"127.0.0.1:{bound.getsockname()[1]}")
        error = await both.fail(NoAnswer, "status")
        assert error.refused  # type: ignore[attr-defined]
        with pytest.raises(NoAnswer):
            await aside(lambda: list(both.blocking.events(follow=False)))


@pytest.mark.slow
async def test_somebody_silent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        both = Both(f"127.0.0.1:{silent.getsockname()[1]}", timeout=0.05)
        error = await both.fail(NoAnswer, "status")
        assert error.timed_out  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n[]",
        b'HTTP/1.1 500 Oops\r\nContent-Length: 14\r\n\r\n{"detail": 12}',
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{}",
    ],
    ids=["no http", "no json", "no status", "no problem", "no detail", "cut"],
)
async def test_somebody_else(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        both = Both(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await both.fail(NotANode, "status")
        both.close()


@pytest.mark.slow
async def test_events_are_followed_over_a_restart_of_the_server(node: Node) -> None:
    api = ApiServer(node, "127.0.0.1", 0)
    await api.start()
    port = int(api.url.rpartition(":")[2])
    client = AsyncClient(api.url)
    events = client.events()
    blocking = Client(api.url).events()
    heard = []

    async def happened() -> Event:
        while not isinstance(each := await anext(events), Happened):
            pass
        return each.event

    async def begin() -> None:
        await anext(events)

    def follow() -> list[str]:
        found = []
        for each in blocking:
            if isinstance(each, Happened):
                found.append(each.event.constraint)
                if len(found) == 2:
                    break
        blocking.close()  # type: ignore[attr-defined]  # it is a generator
        return found

    following = asyncio.create_task(aside(follow))
    while api._feed is None or api._feed.readers < 1:  # noqa: ASYNC110 - the server has no event for it
        await asyncio.sleep(0.001)
    first = asyncio.create_task(begin())
    while api._feed.readers < 2:  # noqa: ASYNC110 - the server has no event for it
        await asyncio.sleep(0.001)
    await first
    await node.add_constraint("a")
    heard.append(await happened())
    await api.stop()
    await node.add_constraint("b")  # while nobody listens
    again = ApiServer(node, "127.0.0.1", port)
    await again.start()
    heard.append(await happened())
    assert [(each.kind, each.constraint) for each in heard] == [(EventKind.ADDED, "a"), (EventKind.ADDED, "b")]
    assert await following == ["a", "b"]
    await events.aclose()  # type: ignore[attr-defined]  # it is a generator
    await again.stop()


@pytest.mark.slow
async def test_who_follows_may_lose_patience() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        client = AsyncClient(f"127.0.0.1:{bound.getsockname()[1]}")
        with pytest.raises(NoAnswer):
            await anext(client.events(patience=0.01))


@pytest.mark.parametrize("text", ["", "http://", "ftp://forge", "forge:0", "forge:99999", "[::1", "a@b", "forge/x y", "x" * 300])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        read_address(text)


@pytest.mark.parametrize(
    ("text", "token"),
    [("read aaa\nwrite bbb\n", "bbb"), ("# x\nread aaa", "aaa"), ("ccc\n", "ccc"), ("write bbb\nwrite ddd", "bbb")],
)
def test_a_token_is_read_from_the_nodes_file(tmp_path: Path, text: str, token: str) -> None:
    (tmp_path / "t").write_text(text)
    assert read_token(tmp_path / "t") == token


@pytest.mark.parametrize("text", ["", "a b c", "a\nb\n"])
def test_a_file_without_a_token_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "t").write_text(text)
    with pytest.raises(ConstraintCrdtError, match="no token"):
        read_token(tmp_path / "t")


@pytest.mark.long(by_day=["Client"])
@pytest.mark.processes
@pytest.mark.parametrize("name", ["Client", "AsyncClient"])
def test_importing_it_loads_no_server_and_no_node(name: str) -> None:
    code = (
        f"import sys; from constraint_crdt.client import {name}; {name}('forge').close; "
        "print(*{'starlette', 'uvicorn', 'httptools', 'zenoh', 'sqlite3', 'rich', 'cel', 'psutil', 'constraint_crdt.runtime.node', "
        "'constraint_crdt.protocol.gossip_node'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == ""


def test_a_node_of_0_1_0_understands_an_addition_and_is_understood() -> None:
    """It refuses unknown fields, and its reports have none of the new ones."""
    request = encode_request(ADD, new_constraint("c", when="x < 1.0"))
    assert json.loads(request.body or b"") == {"id": "c", "when": "x < 1.0"}
    request = encode_request(ADD, new_constraint("c", when="x < 1.0", for_=2.0, if_unknown="violated"))
    assert json.loads(request.body or b"") == {"id": "c", "when": "x < 1.0", "for": 2.0, "if_unknown": "violated"}
    old: dict[str, Any] = {
        "when": "x < 1.0",
        "severity": "info",
        "about": None,
        "on": {},
        "added_by": "a",
        "added_at": None,
        "expires_at": None,
    }
    report = msgspec.convert(old, DefinitionReport)
    assert (report.for_, report.clear_after, report.clear_when) == (0.0, 0.0, None)
    assert (report.if_unknown, report.max_age, report.meaning) == ("unknown", None, 0)


def test_an_empty_name_in_a_path_is_refused_before_it_is_sent() -> None:
    """The defect: "there is nothing at /v1/parameters/", and the exit code 1, for an unset variable of a shell."""
    with pytest.raises(InvalidValue, match="the name is empty"):
        encode_request(SET_PARAMETER, SetParameter(name="", value=1))
