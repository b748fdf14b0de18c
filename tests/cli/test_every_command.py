"""What all commands have in common: exit codes, where they print, machine-readable answers, and colour."""

import argparse
import importlib
import os
import re
import shlex
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from constraint_crdt.cli import main
from constraint_crdt.cli.arguments import OWN, commands_by_group, make_parser, parse
from constraint_crdt.cli.output import print_table
from constraint_crdt.operations import OPERATIONS
from constraint_crdt.operations.operation import Column

NO_JSON = {"config", "token", "node", "demo", "merge", "completion", "fleet"}
"""The commands that ask no node and tell no figures: they run, or print a file that is made for machines."""


def commands(parser: argparse.ArgumentParser, *before: str) -> Iterator[tuple[str, ...]]:
    """Every command, those with subcommands too."""
    yield before
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                yield from commands(command, *before, name)


PARSER = make_parser()
"""Made once: parsing does not change it."""
COMMANDS = list(commands(PARSER))


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parsers of the commands that run something."""
    if parser.get_default("run") is not None:
        yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from parsers(command)


def test_no_command_is_missing_here() -> None:
    assert {("status",), ("tile", "put"), ("node",), ()} <= set(COMMANDS)
    assert sorted(name for names in commands_by_group().values() for name in names) == sorted(
        {command[0] for command in COMMANDS if command}
    )


def test_a_declared_command_has_a_view_or_a_function_of_its_own() -> None:
    without_view = {command.name for operation in OPERATIONS for command in operation.commands if command.show is None}
    assert without_view == set(OWN)


@pytest.mark.parametrize("run", sorted({command.get_default("run") for command in parsers(PARSER)}))
def test_the_function_of_a_command_is_there(run: str) -> None:
    module, _, function = run.partition(":")
    assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.slow
def test_the_example_of_each_command_is_one_that_is_taken() -> None:
    """A shell would run what is behind `>`."""
    told = {parser.prog: parser.epilog for parser in parsers(PARSER)}
    for program, example in told.items():
        assert example is not None, program
        _, _, words = example.replace("%%", "%").partition("example: ")
        assert words.startswith(program)
        found = parse(shlex.split(words.partition(" >")[0])[1:])
        assert found.run, words


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_is_on_stdout_and_zero(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--help"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith(f"usage: {' '.join(('constraint-crdt', *command))} ")
    assert "\x1b" not in out, "colour only on a terminal"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_flag_that_there_is_not_is_one_line_and_two(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--no-such-flag"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"{' '.join(('constraint-crdt', *command))}: ")
    assert err.count("\n") == 1


@pytest.mark.slow
def test_every_command_that_reads_can_answer_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        if command and command[0] not in NO_JSON and command not in (("tile",), ("source",), ("rollout",)):
            main([*command, "--help"])
            assert "--json" in capsys.readouterr().out, command


@pytest.mark.parametrize("variable", ["NO_COLOR", ""])
def test_colour_is_for_terminals_that_want_it(
    variable: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    columns, rows = [Column("id"), Column("here")], [["thermal", "violated"]]
    print_table(columns, rows)
    assert "\x1b" not in capsys.readouterr().out, "no terminal"
    if variable:
        monkeypatch.setenv(variable, "1")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    print_table(columns, rows)
    out = capsys.readouterr().out
    assert "violated" in out
    assert ("\x1b[1;31m" in out) == (not variable)
    assert not variable or "31m" not in out


WIDE = [Column("id"), Column("when"), Column("judged satisfied", right=True), Column("for"), Column("violated on")]
ROWS = [
    ["speed", "speed_mps <= 1.5", "3", "10s", "forge since 39 s ago: speed_mps = 1.7, 0.2 above the limit (13.3 %)"],
    ["near", "distance_m > 0.8", "0", "-", "-"],
]


def on_terminal(columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines of a table on a terminal of so many columns."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    print_table(WIDE, ROWS)
    return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()


@pytest.mark.parametrize("columns", [70, 80, 100])
def test_a_table_breaks_no_word_on_a_narrow_terminal(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = on_terminal(columns, capsys, monkeypatch)
    assert max(map(len, lines)) <= columns
    assert lines[-1].endswith("┘")
    words = {word for line in lines for word in line.replace("│", " ").replace("┃", " ").split()}
    assert {"satisfied", "speed_mps", "distance_m", "violated", "39"} <= words


@pytest.mark.slow
def test_rows_stand_below_each_other_where_no_table_fits(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [line.rstrip() for line in on_terminal(50, capsys, monkeypatch)]
    assert lines[:4] == [
        "id                speed",
        "when              speed_mps <= 1.5",
        "judged satisfied  3",
        "for               10s",
    ]
    assert max(map(len, lines)) <= 50
    assert lines[-4:] == ["", "id                near", "when              distance_m > 0.8", "judged satisfied  0"]


# --- mistakes of usage: whatever is given, a sentence answers ---------------------------------------------------------------------

NIGHTLY = os.environ.get("CONSTRAINT_CRDT_BUDGET") == "nightly"

WRONG = (
    "", " ", "0", "-1", "1e400", "nan", "99999999999999999999999", "1_000", "05", "x" * 5000, "ü€", "a\nb", "\x1b[31m", "\udcff",
    "--", "directory", "empty", "junk", "bad.toml", "odd.toml", "half.json", "/nope/x", "/dev/null", "1h", "-5m", "1e30d", "a=b",
    "=", "zone in (", "*", "[", "tcp/127.0.0.1:1", "127.0.0.1:99999", "http://[::1", "x <", "%s", "{}",
)  # fmt: skip
"""Values, and names of files, some of which any argument refuses."""

RUNS_ON = {"node", "demo", "simulate", "plan", "watch", "mcp", "completion", "test", "backtest"}
"""Commands that go on, or compute for long, with the values that they take."""

FITS = {"VAR=VALUE": "speed=1", "FILE": "file", "ID": "x", "NAME": "x", "NODE": "x"}


def arguments_of(parser: argparse.ArgumentParser) -> Iterator[tuple[list[str], argparse.Action]]:
    """The words of a command, each time with `WRONG` in the place of another argument."""
    actions = [each for each in parser._actions if each.dest != "help"]
    needed = [
        word for each in actions if each.option_strings and each.required for word in (each.option_strings[-1], fitting(each))
    ]
    positional = [each for each in actions if not each.option_strings and each.dest != "words"]
    some = [fitting(each) for each in positional if each.nargs not in ("*", "?")]
    for action in actions:
        if action.option_strings and action.nargs != 0 and action.dest not in ("node", "ca", "token_file"):
            yield [*needed, f"{action.option_strings[-1]}=WRONG", *some], action
        elif action in positional:
            yield [*needed, *("WRONG" if each is action else fitting(each) for each in positional)], action


def fitting(action: argparse.Action) -> str:
    """A value that an argument takes."""
    return str(next(iter(action.choices))) if action.choices else FITS.get(str(action.metavar), "1")


@pytest.fixture(scope="module")
def messy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with files that no command can use."""
    folder = tmp_path_factory.mktemp("messy")
    (folder / "directory").mkdir()
    (folder / "empty").touch()
    (folder / "junk").write_bytes(bytes(range(256)) * 10)
    (folder / "bad.toml").write_text("[[constraint]\nx")
    (folder / "odd.toml").write_text("[[constraint]]\nid = 3\nwhen = 4\n")
    (folder / "half.json").write_text("[1, 2")
    return folder


@pytest.mark.parametrize("command", [each for each in COMMANDS if each and each[0] not in RUNS_ON], ids=" ".join)
def test_a_mistake_is_a_sentence(
    command: tuple[str, ...], messy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No node answers at port 1. Some values of each argument, all of them with the nightly budget."""
    monkeypatch.chdir(messy)
    parser = PARSER
    for name in command:
        [subparsers] = [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
        parser = subparsers.choices[name]
    asked = ["--node=1"] if any(each.dest == "node" for each in parser._actions if each.option_strings) else []
    behind = ["--", "true"] if command[0] in ("acquire", "guard") else []
    for place, (words, action) in enumerate(arguments_of(parser)):
        first = zlib.crc32(f"{command} {action.dest}".encode())
        for value in WRONG if NIGHTLY else [WRONG[(first + step) % len(WRONG)] for step in (0, 13)]:
            given = [word.replace("WRONG", value) for word in words]
            code = main([*command, *asked, *given, *behind])
            out, err = capsys.readouterr()
            assert code in (0, 1, 2, 3, 122, 123), (given, code, err)
            if code not in (0, 3):
                assert out or err.count("\n") == 1, (place, given, err)
            assert err.replace("\n", "").isprintable(), given
