"""What is wrong with a command is said in one line on stderr, before any node is asked, with exit code 2."""

import pytest

from constraint_crdt import __version__
from constraint_crdt.cli import main
from constraint_crdt.crdt.cells import CORE

CLIENT_COMMANDS = "add", "apply", "remove", "record", "check", "status", "constraints", "nodes", "storage", "identity", "retire"


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ([], "COMMAND"),
        (["nope"], "'nope'"),
        (["status", "--nope"], "--nope"),
        (["zzzz"], "invalid choice: 'zzzz'; see"),
        (["ad"], "invalid choice: 'ad' (add may be meant); see"),
        (["tile", "putt"], "invalid choice: 'putt' (put may be meant); see"),
        (["add", "x", "--wen", "x < 1"], "unrecognized arguments: --wen x < 1 (--when may be meant); see"),
        (["status", "--nod=x"], "--nod=x (--node may be meant); see"),
        (["node", "--lisen", "tcp/127.0.0.1:0"], "(--listen may be meant)"),
        (["status", "--zz"], "unrecognized arguments: --zz; see"),
        (["status", "--js"], "--js"),
        (["add"], "ID"),
        (["add", "x", "--severity", "fatal"], "'fatal'"),
        (["remove"], "ID"),
        (["record"], "--satisfied N"),
        (["record", "--satisfied", "-1"], "whole number"),
        (["record", "--violations", "1.5"], "whole number"),
        (["check"], "VAR=VALUE"),
        (["check", "gpu_temp_c"], "gpu_temp_c=91.5"),
        (["check", "=3"], "VAR=VALUE"),
        (["check", "x=1", "x=2"], "two values"),
        (["check", "x=1e999"], "too large for a number"),
        (["status", "--node", "ftp://127.0.0.1:1"], "http://HOST:PORT"),
        (["status", "--node", "127.0.0.1:x"], "HOST:PORT"),
        (["status", "--node", "127.0.0.1:0"], "HOST:PORT"),
        (["status", "--node", "127.0.0.1:99999"], "HOST:PORT"),
        (["status", "--node", ""], "HOST:PORT"),
        (["status", "--node", "x" * 64], "HOST:PORT"),
        (["status", "--node", "[::1"], "HOST:PORT"),
        (["status", "--node", "http://127.0.0.1:1/?v2"], "HOST:PORT"),
        (["node", "--role", "king"], "peer, router, client"),
        (["node", "--check-every", "0"], "--check-every"),
        (["node", "--check-every", "soon"], "number of seconds"),
        (["node", "--api", "8470"], "127.0.0.1:8470"),
        (["node", "--api", "::1:8470"], "brackets"),
        (["node", "--name", ""], "name of a node"),
        (["node", "--probe", "none", "--probe", "system"], "none"),
        (["node", "--store", ""], "--store"),
        (["node", "--store", "memory", "--rejoin"], "--rejoin"),
        (["retire"], "name a node, or say --away TIME"),
        (["demo", "--nodes", "1"], "2 to 20"),
        (["demo", "--seconds", "1"], "8 seconds"),
        (["demo", "--seconds", "nan"], "8 seconds"),
        (["simulate", "--partition", "-60s"], "'-60s' is not a length of time"),
        (["simulate", "--churn", "-5/min"], "not '-5/min'"),
        (["simulate", "--loss", "-1e-3"], "not '-1e-3'"),
        (["add", "x", "--ttl", "-5m"], "'-5m'"),
        (["add", "x", "--when=--"], "--when has `--` for its value"),
        (["mode", "--", "x", "--"], "the mode is empty"),
        (["node", "--request", ""], "is no name of a file"),
        (["node", "--request", "/"], "is no name of a file"),
        (["node", "--role", "\udcff"], "peer, router, client"),
        (["budget", "list"], "(it is `constraint-crdt budget`)"),
        (["tile", "delete", "a", "b"], "(it is `constraint-crdt tile rm`)"),
        (["rate", "--constraint", "x"], "unrecognized arguments: --constraint;"),
        (["measure", "speed="], "speed has no value, as of an unset shell variable"),
        (["decide", "speed="], "speed has no value, as of an unset shell variable"),
        (["history", ""], "the id is empty"),
        (["retire", ""], "the node is empty"),
        (["guard", "--on", "", "--", "true"], "--on is empty"),
        (["status", "two\nlines"], "two\\nlines"),
        (["alerts", "add", "a", "--kind", "rate", "--above", "high"], "--above: 'high' is not a number;"),
        (["counter", "c", "--by", "1.5"], "--by: '1.5' is not a whole number;"),
        (["budget", "add", "b", "--limit", "9a" * 2000], f"--limit: '{'9a' * 39}9…{'a9' * 9}a' is not a count"),
    ],
)
def test_misuse_is_one_line_and_two(argv: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert err.count("\n") == 1
    assert err.startswith("constraint-crdt")


@pytest.mark.parametrize("name", ["x" * 5000, "two\nlines", "\x1b[31mred"])
@pytest.mark.parametrize("command", ["apply", "backtest --with", "test", "lint", "restore", "merge -o x", "replay"])
def test_a_file_that_cannot_be_is_told_in_one_line(command: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The defect: a name that is too long ended some commands with a traceback, and control characters went to the terminal."""
    words = command.split()
    assert main([*words, name] if words[-1] != "--with" else [words[0], name, "--with", name]) in (1, 2)
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.rstrip("\n").isprintable()


def test_the_node_of_the_environment_is_checked_like_the_flag(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CONSTRAINT_CRDT_NODE", "ftp://x")
    assert main(["status"]) == 2
    assert "CONSTRAINT_CRDT_NODE" in capsys.readouterr().err


@pytest.mark.slow
def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"constraint-crdt {__version__} ({CORE} core)\n"
    assert main(["--help"]) == 0
    told = capsys.readouterr().out
    for name in (*CLIENT_COMMANDS, "node", "demo"):
        assert f"\n    {name} " in told or f"\n    {name}\n" in told
        assert main([name, "--help"]) == 0
    told = capsys.readouterr().out
    assert "--while-stdin-open" not in told
    assert "no other node has taken yet is lost" in " ".join(told.split())  # what forcing a retirement means
