"""Tools for agents: a scripted session with the SDK's own client, in which an agent asks before it acts and is refused."""

import asyncio
import contextlib
import json
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest

from constraint_crdt import MemoryNetwork, Node
from constraint_crdt.cli import main
from constraint_crdt.cli.mcp import McpTools, SdkUnavailable, make_server
from constraint_crdt.client import AsyncClient, Client
from constraint_crdt.http.server import ApiServer
from constraint_crdt.http.tokens import Tokens
from constraint_crdt.operations.operation import MAX_BODY_BYTES, Right
from tests import fork_server
from tests.cli.process import environment, running_node
from tests.source.counterparts import free_port, soon

# Imported where it is used: it takes 0.8 s, which the worker that runs these tests needs.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("mcp") is None, reason="the SDK of the Model Context Protocol is not installed"),
]

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "agents.md"
READ, WRITE = "r" * 16, "w" * 16


@asynccontextmanager
async def session(*tokens: tuple[Right, str], token: str | None = None) -> AsyncIterator[Any]:
    """A client of the tools, over a node with these tokens."""
    import mcp

    async with (
        Node(name="forge", transport=MemoryNetwork().transport()) as node,
        ApiServer(node, "127.0.0.1", 0, tokens=Tokens(list(tokens)) if tokens else None) as api,
        AsyncClient(api.url, token=token) as asked,
        mcp.Client(make_server(asked)) as client,
    ):
        yield client


async def call(client: Any, tool: str, **arguments: object) -> Any:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    return result.structured_content


async def refusal(client: Any, tool: str, **arguments: object) -> str:
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    return str(result.content[0].text)


async def test_an_agent_that_asks_before_it_acts_is_refused_with_the_reason() -> None:
    async with session() as client:
        tools = {each.name: each for each in (await client.list_tools()).tools}
        assert {"check_action", "add_constraint", "acquire_budget", "read_tile"} <= set(tools)
        assert all(each.description for each in tools.values())
        assert tools["check_action"].annotations.read_only_hint
        added = await call(client, "add_constraint", id="max_speed", when="speed_mps <= 1.5", about="people are near")
        assert added["change"] == "added"
        found = await call(client, "check_action", values={"speed_mps": 9.0})
        assert (found["allowed"], found["violated"][0]["margin"]) == (False, -7.5)
        assert (await call(client, "check_action", values={"speed_mps": 1.0}))["allowed"]
        found = await call(client, "check_action", values={"load_kg": 1.0})
        assert found["undecided"][0]["missing"] == ["speed_mps"]
        [listed] = (await call(client, "list_constraints"))["constraints"]
        assert (listed["id"], listed["about"]) == ("max_speed", "people are near")
        assert "seconds" not in listed, "an answer is read by a model"


async def test_mistakes_are_told_in_the_words_of_the_node() -> None:
    async with session() as client:
        await call(client, "add_constraint", id="x", when="a < 1.0", about="why")
        assert "a constraint 'x' is active already" in await refusal(client, "add_constraint", id="x", when="a < 2.0", about="why")
        assert "column 5: the expression ends" in await refusal(client, "add_constraint", id="y", when="a <=", about="why")
        assert "there is no budget 'dock'" in await refusal(client, "acquire_budget", name="dock")
        assert "z" in await refusal(client, "explain_constraint", id="z")
        assert (await call(client, "list_constraints", pattern="q*"))["total"] == 0


async def test_values_tiles_and_resources() -> None:
    async with session() as client:
        await call(client, "measure", values={"speed_mps": 1.0})
        await call(client, "write_tile", room="hall", id="map", text="north is up")
        assert (await call(client, "read_tile", room="hall", id="map"))["text"] == "north is up"
        assert (await call(client, "list_tiles"))["total"] == 1
        assert (await call(client, "fleet_status"))["node"] == "forge"
        for name in ("constraints", "fleet", "events"):
            [content] = (await client.read_resource(f"constraint-crdt://{name}")).contents
            assert json.loads(content.text)["total"] == {"constraints": 0, "fleet": 1, "events": 1}[name]


async def test_the_rights_are_those_of_the_token() -> None:
    async with session((Right.READ, READ), (Right.OPERATE, WRITE), token=READ) as client:
        assert (await call(client, "list_constraints"))["total"] == 0
        assert "operate" in await refusal(client, "add_constraint", id="x", when="a < 1.0", about="why")
    async with session((Right.READ, READ), (Right.OPERATE, WRITE), token=WRITE) as client:
        assert (await call(client, "add_constraint", id="x", when="a < 1.0", about="why"))["change"] == "added"


def blocks_of_page(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.long
@pytest.mark.processes
async def test_the_command_serves_on_stdio_as_the_page_has_it(tmp_path: Path) -> None:
    """With a token, and with the answer that the page shows to an agent that asks first."""
    import mcp

    settings, shown = map(json.loads, blocks_of_page("json"))
    (tmp_path / "tokens").write_text(f"operate {WRITE}\nmeasure {READ}\n")
    (tmp_path / "agent.token").write_text(READ)
    for name in ("tokens", "agent.token"):
        (tmp_path / name).chmod(0o600)
    with running_node("--token-file", str(tmp_path / "tokens")) as node:
        words = [each.replace("http://127.0.0.1:8470", node.url) for each in settings["mcpServers"]["fleet"]["args"]]
        parameters = mcp.StdioServerParameters(command=sys.executable, args=["-m", "constraint_crdt", *words], cwd=str(tmp_path))
        Client(node.url, token=WRITE).add("max_speed", when="speed_mps <= 1.5", severity="critical")
        async with mcp.Client(parameters) as client:
            found = await call(client, "check_action", values={"speed_mps": 9.0})
            [violated], [expected] = found["violated"], shown["violated"]
            assert (found["allowed"], {key: violated[key] for key in expected}) == (shown["allowed"], expected)
            assert "has the role measure; this needs operate" in await refusal(
                client, "add_constraint", id="mine", when="a < 1.0", about="why"
            )


@asynccontextmanager
async def at_the_api(*tokens: tuple[Right, str]) -> AsyncIterator[tuple[str, Node]]:
    """The address of the tools at the API of a node with these tokens."""
    agents = McpTools()
    async with (
        Node(name="forge", transport=MemoryNetwork().transport()) as node,
        agents.served(),
        ApiServer(node, "127.0.0.1", 0, pages=[agents.route], tokens=Tokens(list(tokens)) if tokens else None) as api,
    ):
        yield f"{api.url}/mcp", node


@asynccontextmanager
async def client_at(url: str, token: str, mode: str = "auto") -> AsyncIterator[Any]:
    """The SDK's own client, with a token."""
    import httpx2
    import mcp
    from mcp.client.streamable_http import streamable_http_client

    headers = {"Authorization": f"Bearer {token}"}
    async with (
        httpx2.AsyncClient(headers=headers) as http,
        mcp.Client(streamable_http_client(url, http_client=http), mode=mode) as client,
    ):
        yield client


@pytest.mark.long
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_api_of_a_node_serves_the_tools_with_its_tokens(mode: str) -> None:
    """By the protocol of the SDK's day, and with the handshake of before. A token has its rights in each tool, and its name in the
    audit; two clients at once do not take each other's.
    """
    async with (
        at_the_api((Right.READ, READ), (Right.OPERATE, WRITE)) as (url, _),
        client_at(url, READ, mode) as reader,
        client_at(url, WRITE, mode) as writer,
    ):
        added, refused = await asyncio.gather(
            call(writer, "add_constraint", id="max speed/1", when="speed_mps <= 1.5", about="people are near"),
            refusal(reader, "add_constraint", id="mine", when="a < 1.0", about="why"),
        )
        assert added["change"] == "added"
        assert "has the role read; this needs operate" in refused
        assert "this needs measure" in await refusal(reader, "check_action", values={"speed_mps": 9.0})
        found = await call(writer, "check_action", values={"speed_mps": 9.0})
        assert (found["allowed"], found["violated"][0]["margin"]) == (False, -7.5)
        assert (await call(reader, "explain_constraint", id="max speed/1"))["definitions"][0]["actor"] == "token 2"
        [content] = (await reader.read_resource("constraint-crdt://events")).contents
        [event] = [each for each in json.loads(content.text)["events"] if each["kind"] == "added"]
        assert event["actor"] == "token 2"
        assert (await call(reader, "list_constraints"))["total"] == 1


@pytest.mark.long
async def test_the_client_on_the_page_asks_before_it_acts() -> None:
    [block] = blocks_of_page("python")
    page: dict[str, Any] = {}
    exec(block, page)
    async with at_the_api((Right.MEASURE, READ)) as (url, node):
        assert await page["ask"](url, READ)
        await node.add_constraint("max_speed", when="speed_mps <= 1.5")
        assert not await page["ask"](url, READ)


async def test_an_agent_holds_a_budget_renews_it_and_gives_it_back() -> None:
    async with at_the_api((Right.MEASURE, READ)) as (url, node), client_at(url, READ) as client:
        await node.budgets.define("dock", 1, lease=60)
        held = await call(client, "acquire_budget", name="dock", holder="scout")
        assert (held["amount"], held["holder"]) == (1, "scout")
        assert "1 of dock is not free here" in await refusal(client, "acquire_budget", name="dock")
        assert (await call(client, "renew_budget", name="dock", hold=held["hold"]))["until"] >= held["until"]
        [budget] = (await call(client, "list_budgets"))["budgets"]
        assert (budget["held"], budget["free_here"]) == (1, 0)
        await call(client, "release_budget", name="dock", hold=held["hold"])
        assert "this node gave no hold x of dock" in await refusal(client, "release_budget", name="dock", hold="x")
        assert (await call(client, "acquire_budget", name="dock"))["hold"] != held["hold"]


async def test_the_guard_of_the_api_stands_before_the_tools() -> None:
    async with at_the_api((Right.READ, READ)) as (url, _), httpx.AsyncClient() as http:
        question = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        accepts = {"accept": "application/json, text/event-stream"}
        for token, status in ((None, 401), ("x" * 16, 401), (READ, 200)):
            headers = accepts | ({} if token is None else {"authorization": f"Bearer {token}"})
            answer = await http.post(url, json=question, headers=headers)
            assert answer.status_code == status, answer.text
        allowed = accepts | {"authorization": f"Bearer {READ}"}
        assert "check_action" in answer.text
        assert (await http.get(url, headers=allowed)).status_code == 405
        long = b'"' + b"x" * MAX_BODY_BYTES + b'"'
        for content, kind, status in (
            (long, "application/json", 413),
            (b"{}", "text/plain", 415),
            (b"no", "application/json", 400),
        ):
            answer = await http.post(url, content=content, headers=allowed | {"content-type": kind})
            assert answer.status_code == status, answer.text
        answer = await http.post(url, json=question, headers=allowed | {"origin": "http://evil.example"})
        assert answer.status_code == 403
    async with at_the_api() as (url, _), httpx.AsyncClient() as http:
        answer = await http.post(url, json=question, headers=accepts | {"host": "evil.example"})
        assert answer.status_code == 421


def is_served(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@pytest.mark.long
@pytest.mark.processes
async def test_a_node_serves_the_tools_if_its_settings_say_so(tmp_path: Path) -> None:
    """The settings of the page. A process beside it serves the same, with the tokens of that node."""
    [block] = blocks_of_page("toml")
    (tmp_path / "node.toml").write_text(block.replace("/etc/constraint-crdt", str(tmp_path)))
    (tmp_path / "tokens").write_text(f"read {READ}\n")
    (tmp_path / "tokens").chmod(0o600)
    port = free_port()
    beside = ["mcp", "--http", f"127.0.0.1:{port}", "--node"]
    with (
        running_node("--config", str(tmp_path / "node.toml")) as node,
        fork_server.start([*beside, node.url], stderr=subprocess.PIPE, env=environment()) as process,
    ):
        try:
            await soon(lambda: is_served(port), 120)  # it loads the SDK
            for url in (f"{node.url}/mcp", f"http://127.0.0.1:{port}/mcp"):
                async with client_at(url, READ) as client:
                    assert (await call(client, "fleet_status"))["constraints"] == 0
                    assert "has the role read; this needs measure" in await refusal(client, "measure", values={"x": 1.0})
            async with client_at(url, "x" * 16) as client:
                assert "token" in await refusal(client, "fleet_status")
        finally:
            process.kill()
        told = [line.lower() for line in node.stop()]
        assert not [line for line in told if "tool" in line or "session" in line], "a reader of the API would fill the log"
    with running_node() as node:
        async with httpx.AsyncClient() as http:
            assert "there is nothing at /mcp" in (await http.post(f"{node.url}/mcp", json={})).text


def test_mistakes_of_the_command_are_a_sentence(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["mcp", "--node", "ftp://x"]) == 2
    assert main(["mcp", "--http", "0.0.0.0:8480"]) == 2
    assert "give a loopback address" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "mcp.server", None)
    with pytest.raises(SdkUnavailable, match=r"pip install 'constraint-crdt\[mcp\]'"):
        make_server(AsyncClient("1"))
    assert main(["node", "--mcp", "--store", "memory", "--api", "127.0.0.1:0"]) == 1
    assert "pip install 'constraint-crdt[mcp]'" in capsys.readouterr().err
