"""Any words, given to any command, are taken, or refused in one sentence: with a live node, and with outputs that take nothing."""

import argparse
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from constraint_crdt.cli import main
from constraint_crdt.cli.arguments import make_parser
from tests.cli.process import environment
from tests.cli.test_every_command import parsers

Capture = pytest.CaptureFixture[str]

LONG = "a" * 5000
WORDS = [
    "", " ", "-", "é漢字🙂", "\n", LONG, "1e400", "-1", "9" * 30, "nan", "inf", "0", "1_000", "٣", "\udcff", "a/b", "../x", "%s",
    "{", "[1", "'", "\x1b[31m", "=", "a=", "=b", "x=1=2", "*", "?", "!", "1e-400", "0x10", "true", "null", "2026-13-01T00:00:00Z",
    "1h30m",
    "-5m", "9999999999d", "x <= ", "x", "1.5", "+5", "@", "tcp/1", "http://", "https://127.0.0.1:1/crdt/", "127.0.0.1:99999", "é=ü",
]  # fmt: skip
ENDLESS = {"node", "demo", "watch", "mcp", "simulate", "replay", "completion", "plan", "retire"}
"""Commands that go on for some time, and one that ends the node of all tests here."""

WAITS = {"node", "--follow", "--wait", "--timeout"}
"""Left out: the node is the live one, and the others may wait for as long as they say."""

TRIES = 5000 if os.environ.get("CONSTRAINT_CRDT_BUDGET") == "nightly" else 15


def some_words(parser: argparse.ArgumentParser, draw: random.Random) -> list[str]:
    """A command line for this command."""
    flags, rest = [], []
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction | argparse._SubParsersAction) or WAITS & {action.dest, *action.option_strings}:
            continue
        if action.option_strings:
            if action.required or draw.random() < 0.25:
                flags.append([action.option_strings[0], *([] if action.nargs == 0 else [draw.choice(WORDS)])])
        elif action.nargs == argparse.REMAINDER:
            rest.append("true")
        elif action.nargs not in ("?", "*") or draw.random() < 0.7:
            rest += [draw.choice(WORDS) for _ in range(draw.choice((1, 2)) if action.nargs in ("+", "*") else 1)]
    draw.shuffle(flags)
    return [*parser.prog.split()[1:], *(word for flag in flags for word in flag), *rest]


@pytest.mark.slow
def test_any_words_are_taken_or_refused_in_one_sentence(
    node_url: str, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("CONSTRAINT_CRDT_NODE", node_url)
    for name in ("HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "here"))
    commands = [parser for parser in parsers(make_parser()) if parser.prog.split()[1] not in ENDLESS]
    draw = random.Random(18)
    for _ in range(TRIES):
        words = some_words(draw.choice(commands), draw)
        code = main(words)
        out, err = capsys.readouterr()
        assert code in (0, 1, 2, 122), words
        if code in (1, 2):
            assert err.count("\n") == 1 or (out and not err), (words, err)
            assert len(err) < 1000, words
        assert err.replace("\n", "").isprintable(), words


@pytest.mark.processes
@pytest.mark.long
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("words", ["constraints", "--help"])
def test_an_output_that_takes_nothing_ends_in_a_sentence_and_a_closed_one_is_left_alone(words: str, node_url: str) -> None:
    command = [sys.executable, "-m", "constraint_crdt", *words.split()]
    if words != "--help":
        command += ["--node", node_url]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment(), check=False)
    assert (ended.returncode, ended.stderr) == (1, "constraint-crdt: cannot write the output: No space left on device\n")
    shell = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
    ended = subprocess.run(shell, capture_output=True, text=True, env=environment(), check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
