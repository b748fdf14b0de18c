"""The commands on tiles against a real node."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from constraint_crdt.cli import main
from constraint_crdt.crdt.limits import TILE_BYTES

COLUMNS = ["room", "id", "bytes", "author", "updated", "by", "tags", "constraints", "satisfied", "violated", "position"]
Capture = pytest.CaptureFixture[bytes]


def run(capsysbinary: Capture, url: str, *argv: str) -> tuple[int, bytes, str]:
    code = main([*argv, "--node", url])
    out, err = capsysbinary.readouterr()
    return code, out, err.decode()


def read(capsysbinary: Capture, url: str, *argv: str) -> Any:
    code, out, err = run(capsysbinary, url, *argv, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


class Terminal(io.TextIOWrapper):
    """Standard output as a terminal has it."""

    def __init__(self) -> None:
        self.shown = io.BytesIO()
        super().__init__(self.shown, encoding="utf-8", write_through=True)

    def isatty(self) -> bool:
        return True


def test_a_text_is_put_listed_got_and_removed(node_url: str, capsysbinary: Capture) -> None:
    flags = ["--text", "grün", "--author", "amy", "--tag", "a", "--tag", "b", "--constraint", "max_speed"]
    code, out, _ = run(capsysbinary, node_url, "tile", "put", "hall/1", "map %", *flags)
    assert (code, out[:22]) == (0, b"hall/1 map %: 5 bytes,")
    assert run(capsysbinary, node_url, "tile", "get", "hall/1", "map %") == (0, "grün".encode(), "")
    [listed] = read(capsysbinary, node_url, "tiles", "--room", "hall/1")
    assert (listed["id"], listed["author"], listed["tags"], listed["constraints"]) == ("map %", "amy", ["a", "b"], ["max_speed"])
    code, out, _ = run(capsysbinary, node_url, "tiles", "--prefix", "hall")
    header, line = out.decode().splitlines()
    assert header.split() == COLUMNS
    assert line.split()[:5] == ["hall/1", "map", "%", "5", "amy"]
    assert read(capsysbinary, node_url, "tile", "get", "hall/1", "map %")["text"] == "grün"
    assert run(capsysbinary, node_url, "tile", "rm", "hall/1", "map %")[0] == 0
    assert read(capsysbinary, node_url, "tiles", "--room", "hall/1") == []
    assert [each["id"] for each in read(capsysbinary, node_url, "tiles", "--deleted", "--room", "hall/1")] == ["map %"]
    code, out, err = run(capsysbinary, node_url, "tile", "get", "hall/1", "map %")
    assert (code, out, err) == (1, b"", "constraint-crdt tile: tile 'map %' in room 'hall/1' is deleted: restore it first\n")
    assert run(capsysbinary, node_url, "tile", "restore", "hall/1", "map %")[:2] == (0, b"hall/1 map %: restored, 5 bytes\n")
    code, _, err = run(capsysbinary, node_url, "tile", "restore", "hall/1", "map %")
    assert (code, err.count("\n")) == (1, 1)


def test_a_file_goes_in_and_comes_out(node_url: str, capsysbinary: Capture, tmp_path: Path) -> None:
    content = bytes(range(256)) * 512
    (tmp_path / "in").write_bytes(content)
    assert run(capsysbinary, node_url, "tile", "put", "files", "x", str(tmp_path / "in"))[0] == 0
    assert run(capsysbinary, node_url, "tile", "get", "files", "x", "-o", str(tmp_path / "out")) == (0, b"", "")
    assert (tmp_path / "out").read_bytes() == content
    assert run(capsysbinary, node_url, "tile", "get", "files", "x") == (0, content, "")
    said = read(capsysbinary, node_url, "tile", "get", "files", "x", "-o", str(tmp_path / "out"))
    assert (said["file"], said["size"]) == (str(tmp_path / "out"), len(content))


@pytest.mark.parametrize("argument", [[], ["-"]])
def test_standard_input_is_read(node_url: str, capsysbinary: Capture, monkeypatch: pytest.MonkeyPatch, argument: list[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\x00piped")))
    assert run(capsysbinary, node_url, "tile", "put", "files", "piped", *argument)[0] == 0
    assert run(capsysbinary, node_url, "tile", "get", "files", "piped") == (0, b"\x00piped", "")


@pytest.mark.parametrize("content", [b"\xff\x00", b"text\x1b[2J"])
def test_what_a_terminal_must_not_get_is_refused(
    node_url: str, capsysbinary: Capture, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    run(capsysbinary, node_url, "tile", "put", "terminal", "x")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    assert main(["tile", "get", "terminal", "x", "--node", node_url]) == 2
    assert terminal.shown.getvalue() == b""
    err = capsysbinary.readouterr().err.decode()
    assert "write it to a file with -o FILE" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("text", ["two\n\tlines ü", "ends\n", ""])
def test_text_is_shown_on_a_terminal(node_url: str, capsysbinary: Capture, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    run(capsysbinary, node_url, "tile", "put", "terminal", "y", "--text", text)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    assert main(["tile", "get", "terminal", "y", "--node", node_url]) == 0
    assert terminal.shown.getvalue().decode() == (text.rstrip("\n") + "\n" if text else "")


def test_tags_come_and_go_together(node_url: str, capsysbinary: Capture) -> None:
    run(capsysbinary, node_url, "tile", "put", "sets", "x", "--text", "")
    code, out, _ = run(capsysbinary, node_url, "tile", "tag", "sets", "x", "b", "a", "--constraint", "c")
    assert (code, out) == (0, b"sets x: tags a, b; constraints c\n")
    code, _, err = run(capsysbinary, node_url, "tile", "untag", "sets", "x", "a", "z")
    assert (code, err) == (1, "constraint-crdt tile: `remove_tags`: tile 'x' in room 'sets' has no tag 'z'\n")
    code, out, _ = run(capsysbinary, node_url, "tile", "untag", "sets", "x", "a", "b", "--constraint", "c")
    assert (code, out) == (0, b"sets x: tags none; constraints none\n")
    code, _, err = run(capsysbinary, node_url, "tile", "tag", "sets", "x")
    assert (code, err.count("\n"), "name a TAG" in err) == (2, 1, True)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["tile"], "ACTION"),
        (["tile", "put"], "ROOM"),
        (["tile", "put", "r", "x", "file", "--text", "x"], "not allowed"),
        (["tile", "put", "r", "x", "/nowhere/at/all"], "cannot read /nowhere/at/all"),
        (["tile", "put", "", "x", "--text", "x"], "the room is empty"),
        (["tile", "put", "r", "x\x1f", "--text", "x"], "U+001F"),
        (["tile", "put", "r", "x", "--text", "x", "--tag", ""], "a tag must have"),
        (["tile", "put", "r", "x", "--text", "\udcff"], ""),
    ],
)
def test_wrong_use_is_said_in_one_sentence(node_url: str, capsysbinary: Capture, argv: list[str], says: str) -> None:
    code = main([*argv, *(["--node", node_url] if len(argv) > 3 else [])])
    out, err = capsysbinary.readouterr()
    assert (code, out, err.decode().count("\n")) == (2, b"", 1)
    assert says in err.decode()


def test_a_file_that_is_too_large_is_not_sent(node_url: str, capsysbinary: Capture, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(TILE_BYTES + 1))
    code, _, err = run(capsysbinary, node_url, "tile", "put", "r", "x", str(tmp_path / "large"))
    assert (code, err.count("\n"), f"more than {TILE_BYTES} bytes" in err) == (2, 1, True)
