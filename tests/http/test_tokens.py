"""Tokens: who may read, who may write, where there have to be some, and that none shows anywhere."""

import logging
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path

import httpx
import pytest

from constraint_crdt import ConstraintCrdtError
from constraint_crdt.http import make_app
from constraint_crdt.http.security import Tokens
from constraint_crdt.http.server import ApiServer
from constraint_crdt.operations import OPERATIONS
from constraint_crdt.operations.operation import AnyOperation, Right
from constraint_crdt.runtime.node import Node
from tests.http.conftest import BASE

READ, WRITE = "r" * 16, "w.w-w_w~w+w/w123="
FAR = "http://192.0.2.7:8470"
TOKENS = Tokens([(Right.READ, READ), (Right.WRITE, WRITE)])


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.fixture
async def guarded(node: Node) -> AsyncIterator[httpx.AsyncClient]:
    app = make_app(node, bound_to="192.0.2.7", tokens=TOKENS)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=FAR) as asking:
        yield asking


def path_of(operation: AnyOperation) -> str:
    path = operation.path
    for name in ("id", "name", "room"):
        path = path.replace(f"{{{name}:any_text}}", "x").replace(f"{{{name}}}", "x")
    return path


async def asked(client: httpx.AsyncClient, operation: AnyOperation, headers: dict[str, str]) -> int:
    query = "?follow=0" if operation.name == "events" else ""
    return (await client.request(operation.method, path_of(operation) + query, headers=headers)).status_code


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
async def test_each_operation_asks_for_its_right(guarded: httpx.AsyncClient, node: Node, operation: AnyOperation) -> None:
    before = node.gossip.state_hash
    without, wrong = await asked(guarded, operation, {}), await asked(guarded, operation, bearer("n" * 16))
    reading, writing = await asked(guarded, operation, bearer(READ)), await asked(guarded, operation, bearer(WRITE))
    if operation.right is Right.NONE:
        assert (without, wrong, reading, writing) == (200, 200, 200, 200)
    else:
        assert (without, wrong) == (401, 401)
        assert (reading == 403) is (operation.right is Right.WRITE)
        assert writing not in (401, 403)
    assert node.gossip.state_hash == before, "nothing was sent that could change anything"


def test_what_changes_anything_needs_a_token_that_allows_writing() -> None:
    for operation in OPERATIONS:
        changes_nothing = operation.method == "GET" or operation.name == "check_expression"
        assert (operation.right is Right.WRITE) is not changes_nothing, operation.name
        assert (operation.right is Right.NONE) is (operation.name in {"alive", "ready", "openapi", "docs"})


@pytest.mark.parametrize(
    "header",
    [
        "",
        READ,
        f"Basic {READ}",
        "Bearer",
        f"Bearer {READ[:-1]}",
        f"Bearer {READ} {READ}",
        f"Bearer {READ}x",
        f"Bearer {'x' * 60_000}",
        "Bearer ü",
    ],
)
async def test_what_is_no_known_token_opens_nothing(guarded: httpx.AsyncClient, header: str) -> None:
    answer = await guarded.get("/v1/status", headers=[(b"authorization", header.encode("latin-1"))])
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith('Bearer realm="constraint-crdt"')
    assert answer.headers["content-type"] == "application/problem+json"


async def test_two_tokens_at_once_are_none(guarded: httpx.AsyncClient) -> None:
    headers = [("authorization", f"Bearer {READ}"), ("authorization", f"Bearer {WRITE}")]
    assert (await guarded.get("/v1/status", headers=headers)).status_code == 401


async def test_paths_that_are_not_there_ask_for_one_too(guarded: httpx.AsyncClient) -> None:
    for path in ("/v1/nope", "/v1", "/v1/", "/rooms", "/room/x", "/metrics", "/v1%2Fstatus", "/%76%31/status"):
        assert (await guarded.get(path)).status_code == HTTPStatus.UNAUTHORIZED, path
    assert (await guarded.get("/v2/status")).status_code == HTTPStatus.NOT_FOUND


async def test_with_tokens_any_name_of_the_host_is_served(guarded: httpx.AsyncClient) -> None:
    answer = await guarded.get("/v1/status", headers={"host": "forge.example", **bearer(READ)})
    assert answer.status_code == 200


async def test_a_page_of_another_origin_cannot_write_with_a_token_either(guarded: httpx.AsyncClient) -> None:
    headers = {"origin": "http://evil.example", **bearer(WRITE)}
    assert (await guarded.post("/v1/constraints", json={"id": "x"}, headers=headers)).status_code == 403


async def test_the_token_shows_nowhere(
    guarded: httpx.AsyncClient, node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with caplog.at_level(logging.DEBUG, "constraint_crdt"):
        answers = [
            await guarded.get("/v1/status", headers=bearer(WRITE)),
            await guarded.get("/v1/nope", headers=bearer(WRITE)),
            await guarded.get("/v1/status", headers=bearer(WRITE + "x")),
            await guarded.post("/v1/constraints", json={"id": 1}, headers=bearer(WRITE)),
        ]
        monkeypatch.setattr(node, "status", fail)
        node.gossip.add_constraint("moves what is kept")
        answers.append(await guarded.get("/v1/status", headers=bearer(WRITE)))
    assert answers[-1].status_code == 500
    shown = caplog.text + "".join(answer.text + repr(answer.headers) for answer in answers) + repr(vars(TOKENS))
    assert caplog.records
    assert WRITE not in shown
    assert READ not in shown


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "::", "forge.example", ""])
def test_beyond_loopback_there_have_to_be_tokens(node: Node, host: str) -> None:
    with pytest.raises(ConstraintCrdtError, match="--token-file FILE"):
        ApiServer(node, host, 0)
    ApiServer(node, host, 0, tokens=TOKENS)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_on_loopback_there_may_be_none(node: Node, host: str) -> None:
    ApiServer(node, host, 0)


def write(file: Path, text: str, mode: int = 0o600) -> Path:
    file.write_text(text)
    file.chmod(mode)
    return file


def test_a_file_of_tokens_is_read(tmp_path: Path) -> None:
    tokens = Tokens.load(write(tmp_path / "t", f"# ours\n\nread {READ}\r\n  write\t{WRITE}\n"))
    assert (tokens.right(READ), tokens.right(WRITE), tokens.right("read"), tokens.right("")) == (
        Right.READ,
        Right.WRITE,
        Right.NONE,
        Right.NONE,
    )


@pytest.mark.parametrize(
    ("text", "mode", "says"),
    [
        (f"write {WRITE}", 0o644, "chmod 600"),
        (f"write {WRITE}", 0o602, "chmod 600"),
        ("", 0o600, "there is no token"),
        (f"{WRITE}", 0o600, "line 1"),
        (f"read {READ}\nadmin {WRITE}", 0o600, "line 2"),
        (f"write {WRITE} {READ}", 0o600, "line 1"),
        ("write short", 0o600, "16 to 256"),
        (f"write {'x' * 257}", 0o600, "16 to 256"),
        (f"write {WRITE}ü", 0o600, "16 to 256"),
        ("".join(f"read {number:016}\n" for number in range(1001)), 0o600, "more than 1000"),
        ("#" * 600_000, 0o600, "bytes"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_without_showing_it(tmp_path: Path, text: str, mode: int, says: str) -> None:
    with pytest.raises(ConstraintCrdtError, match=says) as raised:
        Tokens.load(write(tmp_path / "t", text, mode))
    assert WRITE not in str(raised.value)
    assert READ not in str(raised.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConstraintCrdtError, match=r"cannot read the tokens in .*nope"):
        Tokens.load(tmp_path / "nope")


async def test_without_tokens_an_authorization_header_does_no_harm(client: httpx.AsyncClient) -> None:
    assert (await client.get(f"{BASE}/v1/status", headers=bearer("anything"))).status_code == 200
