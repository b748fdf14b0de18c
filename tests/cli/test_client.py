"""Who answers, or does not, at the address of a node: each case is one sentence with exit code 1."""

import argparse
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from constraint_crdt.cli import main
from constraint_crdt.cli.arguments import NODE_VARIABLE
from constraint_crdt.cli.connection import connect
from constraint_crdt.client import NoAnswer


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """A server that says `answer` to whoever connects, whatever was asked, and hangs up."""

    def serve(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as thread:
        serving = thread.submit(serve, listening)
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        serving.result(5)


@pytest.fixture
def free_port() -> Iterator[int]:
    """A port that nobody listens on, and that nobody else gets meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def test_no_node_is_told_with_what_to_do(free_port: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--node", f"127.0.0.1:{free_port}"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        f"constraint-crdt status: no node answers at http://127.0.0.1:{free_port}: "
        "start one with `constraint-crdt node --name NAME`, or name another with --node\n"
    )


def test_the_environment_names_the_node(
    free_port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CONSTRAINT_CRDT_NODE", f"http://127.0.0.1:{free_port}/")
    assert main(["nodes"]) == 1
    assert f"http://127.0.0.1:{free_port}:" in capsys.readouterr().err


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n[]",
        b'HTTP/1.1 500 Oops\r\nContent-Length: 14\r\n\r\n{"detail": 12}',
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{}",
    ],
    ids=["no http", "no json", "no problem", "no detail", "cut"],
)
def test_something_else_that_answers_is_no_node(answer: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    with answering(answer) as address:
        assert main(["status", "--node", address]) == 1
    assert f"what answers at http://{address} is no node" in capsys.readouterr().err


def test_who_hangs_up_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with answering(b"") as address:
        assert main(["status", "--node", address]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_who_stays_silent_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, pytest.raises(NoAnswer, match=r"within 0\.05 s"):
        connect(flags(f"127.0.0.1:{listening.getsockname()[1]}"), timeout=0.05).status()


def test_a_host_that_does_not_exist_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(NoAnswer, match=r"cannot reach a node at http://host.invalid:8470: Name or service not known"):
        connect(flags("host.invalid:8470")).status()


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("http://127.0.0.1:9000/", "http://127.0.0.1:9000"),
        ("forge", "http://forge:8470"),
        ("[::1]:9000", "http://[::1]:9000"),
    ],
)
def test_addresses_are_taken_in_any_usual_form(given: str, url: str) -> None:
    assert connect(flags(given)).address.url == url


def flags(node: str | None) -> argparse.Namespace:
    return argparse.Namespace(node=node, token_file=None, ca=None)


def test_the_default_is_the_nodes_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert connect(flags(None)).address.url == "http://127.0.0.1:8470"
    monkeypatch.setenv(NODE_VARIABLE, "forge:1")
    assert connect(flags(None)).address.url == "http://forge:1"
    assert connect(flags("anvil:2")).address.url == "http://anvil:2"
