"""Tokens on the command line: a node beyond loopback asks for them, commands show them, and no output ever has one in it."""

from pathlib import Path

import pytest

from constraint_crdt.cli.main import main
from tests.cli.process import run_to_its_end, running_node

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
