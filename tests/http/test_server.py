"""The server around the API: the port it takes, and how it ends."""

import asyncio
import errno
import signal
import socket

import pytest

from constraint_crdt import ConstraintCrdtError
from constraint_crdt.http import server
from constraint_crdt.http.server import ApiServer
from constraint_crdt.http.tokens import Tokens
from constraint_crdt.operations.operation import Right
from constraint_crdt.operations.service import Finding
from constraint_crdt.runtime.node import Node

FAR = 60.0


async def ask(url: str, request: str) -> bytes:
    host, _, port = url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request.encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


@pytest.mark.slow
async def test_port_zero_takes_a_free_port_and_says_which(node: Node) -> None:
    async with ApiServer(node, "127.0.0.1", 0) as api:
        answer = await ask(api.url, "GET /v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")
    assert b'"node":"forge"' in answer
    with pytest.raises(RuntimeError):
        _ = api.url


async def test_who_connects_before_it_serves_waits(node: Node) -> None:
    api = ApiServer(node, "127.0.0.1", 0)
    api.bind()
    asking = asyncio.create_task(ask(api.url, "GET /v1/nodes HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
    await api.start()
    assert (await asking).startswith(b"HTTP/1.1 200")
    await api.stop()


async def test_a_taken_port_is_named_with_what_to_do(node: Node) -> None:
    async with ApiServer(node, "127.0.0.1", 0) as api:
        port = int(api.url.rpartition(":")[2])
        with pytest.raises(ConstraintCrdtError, match=rf"127\.0\.0\.1:{port}: the port is taken.*--api HOST:PORT"):
            ApiServer(node, "127.0.0.1", port).bind()


async def test_an_address_of_another_machine_is_refused(node: Node) -> None:
    with pytest.raises(ConstraintCrdtError, match="no such address"):
        await ApiServer(node, "192.0.2.1", 0, tokens=Tokens([(Right.OPERATE, "t" * 16)])).start()


async def test_a_port_above_ones_rights_is_refused(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(host: str, port: int) -> socket.socket:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(server, "_listen", refuse)
    with pytest.raises(ConstraintCrdtError, match=r"127\.0\.0\.1:80: that needs more rights"):
        ApiServer(node, "127.0.0.1", 80).bind()


@pytest.mark.parametrize(
    "half",
    [
        "",
        "GET /v1/status HTTP/1.1\r\nHo",
        "POST /v1/check HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{",
    ],
    ids=["idle", "half a header", "half a body"],
)
async def test_it_ends_soon_with_open_connections(node: Node, half: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Open requests have `GRACE`, then they are cut off. The elapsed time depends on how busy the machine is."""
    assert server.GRACE < 1.0
    monkeypatch.setattr(server, "GRACE", 0.05)
    cut_off: list[int] = []
    real = server._Server.cut_off_all

    def noted(serving: server._Server) -> None:
        cut_off.append(len(serving.server_state.connections))
        real(serving)

    monkeypatch.setattr(server._Server, "cut_off_all", noted)
    api = ApiServer(node, "127.0.0.1", 0)
    await api.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(api.url.rpartition(":")[2]))
    writer.write(half.encode())
    await writer.drain()
    # Served by the same loop, a whole request after it shows that the half one has arrived.
    await ask(api.url, "GET /v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    await asyncio.wait_for(api.stop(), FAR)
    # Before the time is over, the server may have closed a connection without a whole header by itself.
    assert cut_off == [1] or ("\r\n\r\n" not in half and cut_off in ([], [0]))
    try:
        left = await asyncio.wait_for(reader.read(), FAR)
    except ConnectionResetError:
        left = b""
    assert not left.startswith(b"HTTP/1.1 200")
    writer.close()


async def test_it_ends_twice_and_leaves_signals_alone(node: Node) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    api = ApiServer(node, "127.0.0.1", 0)
    await api.start()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    await api.stop()
    await api.stop()


async def test_an_api_beyond_loopback_without_tls_says_so_once(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    tokens = Tokens([(Right.OPERATE, "t" * 16)])
    async with ApiServer(node, "0.0.0.0", 0, tokens=tokens) as api:
        said = f"tokens and answers travel unprotected to and from the API at {api.url}"
        assert [record.getMessage() for record in caplog.records if "unprotected" in record.getMessage()] == [
            f"{said}: serve it by TLS (--api-tls), or put a proxy with TLS in front of it"
        ]
        (finding,) = findings(node, "api")
        assert (finding.level, finding.what) == ("warn", said)
        assert [each.level for each in findings(node, "tokens")] == ["ok"]
        tokens.trouble = "the tokens known before stay valid"
        assert [each.level for each in findings(node, "tokens")] == ["fail"]
    assert findings(node, "api") == findings(node, "tokens") == []
    async with ApiServer(node, "127.0.0.1", 0) as api:
        assert [(each.level, each.what) for each in findings(node, "api")] == [("ok", f"{api.url} serves this machine only")]


def findings(node: Node, check: str) -> list[Finding]:
    return [each for each in node.diagnosis.look().findings if each.check == check]
