"""Tokens on the command line: a node beyond loopback asks for them, commands show them, and no output ever has one in it."""

import json
from pathlib import Path

import pytest

from constraint_crdt.cli import main
from tests.cli.process import run_to_its_end, running_node
from tests.security.fleets import Fleet

READ, WRITE = "reading-0123456789", "writing-0123456789"


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    file = tmp_path / "tokens"
    file.write_text(f"read {READ}\nwrite {WRITE}\n")
    file.chmod(0o600)
    return file


def only(tmp_path: Path, name: str, token: str) -> str:
    """A file with this token alone."""
    (tmp_path / name).write_text(token)
    return str(tmp_path / name)


@pytest.mark.processes
def test_a_node_on_all_addresses_serves_who_shows_a_token(
    tokens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CONSTRAINT_CRDT_TOKEN_FILE", raising=False)
    reading, wrong = only(tmp_path, "reading", READ), only(tmp_path, "wrong", "wrong-0123456789")
    with running_node("--api", "0.0.0.0:0", "--token-file", str(tokens)) as node:
        url = node.url.replace("0.0.0.0", "127.0.0.1")
        assert main(["add", "x", "--node", url, "--token-file", str(tokens)]) == 0
        assert main(["constraints", "--node", url, "--token-file", reading]) == 0
        monkeypatch.setenv("CONSTRAINT_CRDT_TOKEN_FILE", str(tokens))
        assert main(["remove", "x", "--node", url]) == 0
        monkeypatch.delenv("CONSTRAINT_CRDT_TOKEN_FILE")
        capsys.readouterr()
        for arguments, says in (
            (["status"], "asks for a token"),
            (["add", "y"], "name the file that it is in with --token-file"),
            (["status", "--token-file", wrong], "not known to this node"),
            (["add", "y", "--token-file", reading], "has the role read; this needs operate"),
        ):
            assert main([*arguments, "--node", url]) == 1
            out, err = capsys.readouterr()
            assert out == ""
            assert says in err
            assert err.count("\n") == 1
            assert not any(token in err for token in (READ, WRITE, "wrong-0123456789"))
        log = "\n".join(node.stop())
    assert "stopped" in log
    assert READ not in log
    assert WRITE not in log


@pytest.mark.processes
@pytest.mark.parametrize("mode", [0o644, 0o606])
def test_a_node_does_not_start_with_a_file_that_others_can_read(tokens: Path, mode: int) -> None:
    tokens.chmod(mode)
    done = run_to_its_end("--token-file", str(tokens))
    assert done.returncode == 1
    assert f"chmod 600 {tokens}" in done.stderr
    assert done.stderr.count("\n") == 1
    assert READ not in done.stderr


@pytest.mark.parametrize(("content", "says"), [(None, "cannot read the tokens"), ("a b c", "there is no token")])
def test_a_file_without_a_token_is_a_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, says: str
) -> None:
    if content is not None:
        (tmp_path / "t").write_text(content)
    assert main(["status", "--token-file", str(tmp_path / "t")]) == 2
    assert says in capsys.readouterr().err


# --- token add, list and remove --------------------------------------------------------------------------------------------------


def test_a_token_is_printed_once_and_listed_without_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(tmp_path / "tokens")
    assert main(["token", "add", "alice", "--role", "operate", "--valid", "30d", "--token-file", file]) == 0
    out, err = capsys.readouterr()
    secret = out.strip()
    assert len(secret) == 40
    assert out == f"{secret}\n"
    assert err.startswith(f"{file}: the token alice has the role operate, until 20")
    assert err.count("\n") == 1
    assert secret not in err
    assert main(["token", "add", "ci", "--role", "measure", "--token-file", file]) == 0
    capsys.readouterr()
    assert main(["token", "list", "--token-file", file]) == 0
    out, _ = capsys.readouterr()
    assert [line.split()[:2] for line in out.splitlines()] == [["name", "role"], ["alice", "operate"], ["ci", "measure"]]
    assert secret not in out
    assert main(["token", "list", "--token-file", file, "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [(each["name"], each["role"], each["ended"]) for each in listed] == [
        ("alice", "operate", False),
        ("ci", "measure", False),
    ]
    assert listed[0]["ends"] - listed[0]["made"] == 30 * 86_400
    assert listed[1]["ends"] is None
    for name in ("alice", "ci"):
        assert main(["token", "remove", name, "--token-file", file]) == 0
    capsys.readouterr()
    assert main(["token", "list", "--token-file", file]) == 0
    assert "there is no token" in capsys.readouterr().out


def test_the_file_is_named_by_the_environment_or_the_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tmp_path / "node.toml"
    settings.write_text(f"token_file = '{tmp_path / 'a'}'\n")
    assert main(["token", "add", "x", "--role", "read", "--config", str(settings)]) == 0
    monkeypatch.setenv("CONSTRAINT_CRDT_TOKEN_FILE", str(tmp_path / "b"))
    assert main(["token", "add", "y", "--role", "read"]) == 0
    capsys.readouterr()
    assert [" x " in f" {(tmp_path / each).read_text()} " for each in "ab"] == [True, False]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (
            ["add", "x", "--role", "boss", "--token-file", "t"],
            2,
            "'boss' is no role of a token: take one of read, measure, operate",
        ),
        (["add", "a b", "--role", "read", "--token-file", "t"], 2, "the name of a token has 1 to 63 letters"),
        (["add", "x", "--role", "read", "--valid", "soon", "--token-file", "t"], 2, "'soon' is not a length of time"),
        (["add", "x", "--role", "read", "--valid", "9999999d", "--token-file", "t"], 2, "--valid takes 1s to"),
        (["add", "x", "--role", "read"], 2, "name the token file of the node with --token-file"),
        (["add", "x", "--role", "read", "--token-file", "nope/t"], 1, "cannot write the tokens in nope/t: No such file"),
        (["list", "--token-file", "nope"], 2, "cannot read the tokens in nope: No such file"),
        (["remove", "x", "--token-file", "nope"], 2, "cannot read the tokens in nope: No such file"),
        (["add", "x", "--role", "read", "--token-file", "open"], 1, "`chmod 600 open` first"),
    ],
)
def test_a_mistake_is_one_sentence(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "open").write_text(f"read {READ}\n")
    (tmp_path / "open").chmod(0o644)
    assert main(["token", *arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert err.count("\n") == 1


def test_a_file_of_hashes_is_no_file_of_a_client(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(tmp_path / "tokens")
    main(["token", "add", "alice", "--role", "operate", "--token-file", file])
    capsys.readouterr()
    assert main(["status", "--token-file", file]) == 2
    assert "name the file with your own token" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.processes
def test_a_node_with_tls_takes_and_withdraws_tokens_while_it_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = Fleet(tmp_path / "plant")
    identity, ca, file = fleet.certify("forge", role="member"), str(fleet.folder / "ca.pem"), str(tmp_path / "tokens")

    def token(name: str, role: str) -> str:
        capsys.readouterr()
        assert main(["token", "add", name, "--role", role, "--token-file", file]) == 0
        return only(tmp_path, name, capsys.readouterr().out)

    alice = token("alice", "operate")
    served = ("--fleet", "plant", "--identity", str(identity), "--api", "0.0.0.0:0", "--api-tls", "--token-file", file)
    with running_node(*served) as node:
        assert node.url.startswith("https://0.0.0.0:")
        url = node.url.replace("0.0.0.0", "127.0.0.1")
        ask = ["--node", url, "--ca", ca, "--token-file"]
        assert main(["status", *ask, alice]) == 0
        assert main(["constraints", *ask, token("bob", "read")]) == 0
        assert main(["doctor", *ask, alice]) == 0
        assert "the certificate of the API" in capsys.readouterr().out
        assert main(["add", "x", *ask, alice]) == 1
        assert "this node is a member of the fleet; ask an operator node" in capsys.readouterr().err
        assert main(["token", "remove", "alice", "--token-file", file]) == 0
        assert main(["status", *ask, alice]) == 1
        assert "the token is not known to this node" in capsys.readouterr().err
        monkeypatch.setenv("CONSTRAINT_CRDT_CA", ca)
        assert main(["status", "--node", url, "--token-file", str(tmp_path / "bob")]) == 0
        assert main(["audit", "--node", url, "--since", "1h", "--token-file", str(tmp_path / "bob")]) == 0
        assert "the audit has no such change" in capsys.readouterr().out
        assert main(["status", "--node", url.replace("https", "http")]) == 2
        assert capsys.readouterr().err == "constraint-crdt status: this port speaks TLS: use https:// in place of http://\n"
        node.stop()
