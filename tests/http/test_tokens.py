"""Tokens: who may read, who may write, where there have to be some, and that none shows anywhere."""

import asyncio
import errno
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path

import httpx
import pytest

from constraint_crdt import ConstraintCrdtError, http
from constraint_crdt.client import AsyncClient, Happened, Unauthorized
from constraint_crdt.http import make_app
from constraint_crdt.http.security import MOST_LINES, Denials
from constraint_crdt.http.server import ApiServer
from constraint_crdt.http.tokens import TokenFile, Tokens
from constraint_crdt.operations import OPERATIONS
from constraint_crdt.operations.operation import AnyOperation, Right
from constraint_crdt.runtime.node import Node
from tests.http.conftest import BASE

READ, MEASURE, WRITE = "r" * 16, "m" * 16, "w.w-w_w~w+w/w123="
FAR = "http://192.0.2.7:8470"
TOKENS = Tokens([(Right.READ, READ), (Right.MEASURE, MEASURE), (Right.OPERATE, WRITE)])

OPERATING = {
    "define_budget",
    "remove_budget",
    "add",
    "edit_constraint",
    "define_alert",
    "remove_alert",
    "silence",
    "unsilence",
    "acknowledge",
    "disable",
    "enable",
    "mode",
    "revert",
    "begin_rollout",
    "stop_rollout",
    "continue_rollout",
    "roll_back",
    "set_parameter",
    "unset_parameter",
    "resolve",
    "remove",
    "retire",
    "import_state",
    "invite",
    "withdraw_invitation",
    "renew",
    "revoke",
}
"""The operations that need the right to operate, whatever their request says."""


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


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
async def test_each_operation_asks_for_its_right(guarded: httpx.AsyncClient, node: Node, operation: AnyOperation) -> None:
    before = node.gossip.state_hash
    without, wrong = await asked(guarded, operation, {}), await asked(guarded, operation, bearer("n" * 16))
    reading, writing = await asked(guarded, operation, bearer(READ)), await asked(guarded, operation, bearer(WRITE))
    measuring = await asked(guarded, operation, bearer(MEASURE))
    if operation.right is Right.NONE:
        assert (without, wrong, reading, measuring, writing) == (200, 200, 200, 200, 200)
    else:
        assert (without, wrong) == (401, 401)
        assert (reading == 403) is (operation.needs > Right.READ)
        assert (measuring == 403) is (operation.needs > Right.MEASURE)
        assert 401 not in (reading, measuring)
        assert writing not in (401, 403)
    assert node.gossip.state_hash == before, "nothing was sent that could change anything"


def test_what_changes_anything_needs_a_token_that_allows_writing() -> None:
    for operation in OPERATIONS:
        changes_nothing = operation.method == "GET" or operation.name in ("check_expression", "effects")
        assert (operation.needs > Right.READ) is not changes_nothing, operation.name
        assert (operation.right is Right.OPERATE) is (operation.name in OPERATING)
        assert (operation.right is Right.NONE) is (operation.name in {"alive", "ready", "openapi", "docs"})


async def test_a_batch_of_counts_needs_less_than_one_of_constraints(guarded: httpx.AsyncClient, node: Node) -> None:
    counts, removal = {"record": {"satisfied": 1}}, {"remove": {"id": "x"}}
    sent = {"changes": [counts, {"add": {"id": "x"}}, removal]}
    refused = await guarded.post("/v1/batch", json=sent, headers=bearer(MEASURE))
    assert refused.status_code == 403
    assert refused.json()["detail"] == "token token 2 has the role measure; this needs operate"
    assert 'error="insufficient_scope", scope="operate"' in refused.headers["www-authenticate"]
    assert (await guarded.post("/v1/batch", json={"changes": [counts]}, headers=bearer(MEASURE))).status_code == 200
    assert (await guarded.post("/v1/batch", json=sent, headers=bearer(WRITE))).status_code == 200
    assert node.gossip.state.metrics.total_satisfied == 2


@pytest.mark.parametrize(
    ("role", "reads", "measures", "operates", "says"),
    [
        (None, 200, 200, 201, ""),
        ("observer", 200, 403, 403, "this node is an observer of the fleet; ask an operator node"),
        ("member", 200, 200, 403, "this node is a member of the fleet; ask an operator node"),
        ("operator", 200, 200, 201, ""),
    ],
)
async def test_the_role_of_the_node_limits_its_clients(
    client: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    role: str | None,
    reads: int,
    measures: int,
    operates: int,
    says: str,
) -> None:
    monkeypatch.setattr(Node, "certified_role", role)
    assert (await client.get(f"{BASE}/v1/status")).status_code == reads
    measured = await client.post(f"{BASE}/v1/measure", json={"values": {"x": 1}})
    assert measured.status_code == measures
    if measures == 403:
        assert measured.json()["detail"] == "this node is an observer of the fleet; ask a member or operator node"
    answer = await client.post(f"{BASE}/v1/constraints", json={"id": "x"})
    assert answer.status_code == operates
    assert answer.json().get("detail", "") == says
    may = {None: "operate", "observer": "read", "member": "measure", "operator": "operate"}[role]
    assert (await client.get(f"{BASE}/v1/session")).json() == {
        "name": "local", "role": "operate", "ends": None, "node": "forge", "node_role": role, "may": may,
    }  # fmt: skip


async def test_the_session_names_the_token(guarded: httpx.AsyncClient) -> None:
    found = (await guarded.get("/v1/session", headers=bearer(MEASURE))).json()
    assert (found["name"], found["role"], found["may"], found["node_role"]) == ("token 2", "measure", "measure", None)


@pytest.mark.slow
async def test_refusals_are_counted_and_seldom_logged(guarded: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "constraint_crdt.api"):
        for _ in range(20):
            await guarded.get("/v1/status", headers=bearer("n" * 16))
        await guarded.post("/v1/constraints", json={"id": "x"}, headers=bearer(READ))
    assert [record.getMessage() for record in caplog.records] == ["refused 127.0.0.1 with 401: GET /v1/status"]
    metrics = (await guarded.get("/metrics", headers=bearer(READ))).text
    assert 'constraint_crdt_http_denied_total{status="401"} 20.0' in metrics
    assert 'constraint_crdt_http_denied_total{status="403"} 1.0' in metrics


@pytest.mark.slow
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


@pytest.mark.slow
async def test_paths_that_are_not_there_ask_for_one_too(guarded: httpx.AsyncClient) -> None:
    for path in ("/v1/nope", "/v1", "/v1/", "/rooms", "/room/x", "/metrics", "/v1%2Fstatus", "/%76%31/status"):
        assert (await guarded.get(path)).status_code == HTTPStatus.UNAUTHORIZED, path
    assert (await guarded.get("/v2/status")).status_code == HTTPStatus.NOT_FOUND


@pytest.mark.slow
async def test_with_tokens_any_name_of_the_host_is_served(guarded: httpx.AsyncClient) -> None:
    answer = await guarded.get("/v1/status", headers={"host": "forge.example", **bearer(READ)})
    assert answer.status_code == 200


async def test_a_page_of_another_origin_cannot_write_with_a_token_either(guarded: httpx.AsyncClient) -> None:
    headers = {"origin": "http://evil.example", **bearer(WRITE)}
    assert (await guarded.post("/v1/constraints", json={"id": "x"}, headers=headers)).status_code == 403


@pytest.mark.slow
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
        Right.OPERATE,
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


MADE = 1_800_000_000
DAY = 86_400


@pytest.fixture
def managed(tmp_path: Path) -> TokenFile:
    return TokenFile(tmp_path / "tokens")


def test_a_made_token_is_known_at_once_and_only_its_hash_is_in_the_file(managed: TokenFile) -> None:
    first = managed.add("alice", Right.OPERATE, made=MADE)
    tokens = Tokens.load(managed.path)
    second = managed.add("ci", Right.MEASURE, made=MADE, ends=MADE + DAY)
    found = [tokens.find(first), tokens.find(second)]
    assert [each and (each.name, each.right, each.made, each.ends) for each in found] == [
        ("alice", Right.OPERATE, MADE, None),
        ("ci", Right.MEASURE, MADE, MADE + DAY),
    ]
    text = managed.path.read_text()
    assert first not in text
    assert second not in text
    assert managed.path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in managed.path.parent.iterdir()] == ["tokens"]


def test_a_removed_token_is_unknown_at_once_also_the_last(managed: TokenFile) -> None:
    secret = managed.add("alice", Right.READ, made=MADE)
    tokens = Tokens.load(managed.path)
    managed.remove("alice")
    assert tokens.right(secret) is Right.NONE
    assert tokens.trouble is None
    with pytest.raises(ConstraintCrdtError, match="no token called alice"):
        managed.remove("alice")


def test_plain_lines_stay_and_go_by_their_line(managed: TokenFile) -> None:
    write(managed.path, f"# ours\nread {READ}\nwrite {WRITE}")
    secret = managed.add("ci", Right.MEASURE, made=MADE)
    tokens = Tokens.load(managed.path)
    assert [(each.name, each.right) for each in managed.read()] == [
        ("line 2", Right.READ),
        ("line 3", Right.OPERATE),
        ("ci", Right.MEASURE),
    ]
    managed.remove("line 2")
    assert [tokens.right(each) for each in (READ, WRITE, secret)] == [Right.NONE, Right.OPERATE, Right.MEASURE]
    assert [each.name for each in managed.read()] == ["line 3", "ci"]
    assert managed.path.read_text().startswith("# ours\n# line 2 was removed\n")


@pytest.mark.parametrize("text", ["", "nonsense", f"token a read - - {'x' * 64}", f"token a read - - {'0' * 64} more"])
def test_a_broken_file_keeps_the_tokens_known_before(managed: TokenFile, text: str, caplog: pytest.LogCaptureFixture) -> None:
    secret = managed.add("alice", Right.READ, made=MADE)
    good = managed.path.read_text()
    tokens = Tokens.load(managed.path)
    write(managed.path, text)
    assert [tokens.right(secret) for _ in range(3)] == [Right.READ] * 3
    assert tokens.trouble is not None
    assert "stay valid" in tokens.trouble
    assert len(caplog.records) == 1
    write(managed.path, good)
    assert tokens.right(secret) is Right.READ
    assert not tokens.trouble
    managed.path.unlink()
    assert tokens.right(secret) is Right.READ
    assert "No such file" in str(tokens.trouble)
    write(managed.path, good, 0o644)
    assert tokens.right(secret) is Right.READ
    assert "chmod 600" in str(tokens.trouble)


@pytest.mark.parametrize("name", ["", "a b", "local", "python", "-x", "x" * 64, "ü", "line 3"])
def test_a_wrong_name_makes_no_token(managed: TokenFile, name: str) -> None:
    with pytest.raises(ConstraintCrdtError, match="the name of a token"):
        managed.add(name, Right.READ, made=MADE)
    assert not managed.path.exists()


def test_no_name_is_taken_twice_and_no_room_changes_nothing(managed: TokenFile, monkeypatch: pytest.MonkeyPatch) -> None:
    managed.add("alice", Right.READ, made=MADE)
    before = managed.path.read_text()
    with pytest.raises(ConstraintCrdtError, match="alice already"):
        managed.add("alice", Right.OPERATE, made=MADE)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ConstraintCrdtError, match=r"cannot write .*No space left on device; nothing has changed"):
        managed.add("bob", Right.READ, made=MADE)
    assert managed.path.read_text() == before
    assert [each.name for each in managed.path.parent.iterdir()] == ["tokens"]


@pytest.mark.slow
def test_two_writers_lose_nothing(managed: TokenFile) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: managed.add(f"t{number}", Right.READ, made=MADE), range(20)))
    assert {each.name for each in managed.read()} == {f"t{number}" for number in range(20)}


@pytest.mark.slow
async def test_an_ended_token_is_refused_with_its_end(node: Node, managed: TokenFile) -> None:
    ended, valid = managed.add("old", Right.READ, made=MADE, ends=1), managed.add("new", Right.READ, made=MADE, ends=2**37)
    tokens = Tokens.load(managed.path)
    assert tokens.count(now=MADE) == 1
    transport = httpx.ASGITransport(app=make_app(node, tokens=tokens))
    async with httpx.AsyncClient(transport=transport, base_url=BASE) as asking:
        refused = await asking.get("/v1/status", headers=bearer(ended))
        assert (refused.status_code, refused.json()["detail"]) == (
            401,
            "the token old ended on 1970-01-01T00:00:01Z: ask for a new one",
        )
        assert (await asking.get("/v1/status", headers=bearer(valid))).status_code == 200
        managed.remove("new")
        assert (await asking.get("/v1/status", headers=bearer(valid))).status_code == 401


async def test_without_tokens_an_authorization_header_does_no_harm(client: httpx.AsyncClient) -> None:
    assert (await client.get(f"{BASE}/v1/status", headers=bearer("anything"))).status_code == 200


@pytest.mark.slow
async def test_a_stream_ends_with_its_token(node: Node, managed: TokenFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "VALID_EVERY", 0.01)
    going, staying = managed.add("going", Right.READ, made=MADE), managed.add("staying", Right.READ, made=MADE)
    async with (
        ApiServer(node, "127.0.0.1", 0, tokens=Tokens.load(managed.path)) as api,
        AsyncClient(api.url, token=going) as first,
        AsyncClient(api.url, token=staying) as second,
    ):
        kept = aiter(second.events())
        async with asyncio.timeout(10):
            await anext(kept)
            ending = aiter(first.events())
            await anext(ending)
            managed.remove("going")
            with pytest.raises(Unauthorized, match="not known"):
                await anext(ending)
            await node.add_constraint("x")
            async for heard in kept:
                if isinstance(heard, Happened):
                    break


@pytest.mark.slow
def test_refusals_of_many_addresses_are_logged_at_a_bounded_rate(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    denials = Denials(now=lambda: now[0])
    for number in range(5000):
        denials.note({"client": (f"10.0.{number // 250}.{number % 250}", 1), "method": "GET", "path": "/v1/status"}, 401)
    assert len(caplog.records) == MOST_LINES
    now[0] = 60.0
    denials.note({"client": ("10.0.0.0", 1), "method": "GET", "path": "/v1/status"}, 403)
    denials.note({"client": ("10.0.0.0", 1), "method": "GET", "path": "/v1/status"}, 200)
    assert len(caplog.records) == MOST_LINES + 1
    assert denials.counts == {401: 5000, 403: 1}
