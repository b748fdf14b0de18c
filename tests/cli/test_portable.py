"""merge, export and import: whole states as files, and one sentence for each way in which a file can be wrong."""

import io
import json
import os
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from constraint_crdt import ConstraintState, from_json, to_json
from constraint_crdt.cli import files as whole_files
from constraint_crdt.cli import main
from constraint_crdt.cli.output import CommandFailedError
from constraint_crdt.client import Client
from tests.cli.process import running_node

Capture = pytest.CaptureFixture[str]


def state_of(node: str, *ids: str) -> ConstraintState:
    state = ConstraintState()
    for id_ in ids:
        state.constraints.add(id_, node=node)
    state.metrics.record(node, 2, 1)
    return state


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    a, b = tmp_path / "a.json", tmp_path / "b.json"
    a.write_text(to_json(state_of("a", "x", "y")))
    b.write_text(to_json(state_of("b", "z")))
    return a, b


def run(capsys: Capture, *argv: object) -> tuple[int, str, str]:
    code = main([str(each) for each in argv])
    return code, *capsys.readouterr()


# --- merge ---------------------------------------------------------------------------------------------------------------


def test_merging_files_puts_together_what_they_know(files: tuple[Path, Path], tmp_path: Path, capsys: Capture) -> None:
    target = tmp_path / "c.json"
    code, out, err = run(capsys, "merge", *files, "-o", target)
    expected = state_of("a", "x", "y").merged(state_of("b", "z"))
    assert (code, err) == (0, "")
    assert out == f"{target}: 3 constraints, 4 satisfied, 2 violated; hash {expected.state_hash.hex()[:16]}\n"
    assert target.read_text() == to_json(expected) + "\n"
    code, out, err = run(capsys, "merge", *reversed(files), files[0])
    assert (code, out, err) == (0, to_json(expected) + "\n", "")


def test_an_input_may_be_the_output_and_standard_input(
    files: tuple[Path, Path], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = files
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b.read_bytes())))
    assert run(capsys, "merge", a, "-", "-o", a)[0] == 0
    assert set(from_json(a.read_text()).constraints) == {"x", "y", "z"}


MISTAKES: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "missing": (lambda a, b: a.unlink(), "No such file"),
    "a directory": (lambda a, b: make_directory(a), "Is a directory"),
    "empty": (lambda a, b: a.write_text(""), "the state file is empty"),
    "cut in half": (lambda a, b: os.truncate(a, a.stat().st_size // 2), "only a part of it"),
    "a flipped byte": (lambda a, b: flip(a), "the state file is damaged"),
    "a newer version": (
        lambda a, b: a.write_text(a.read_text().replace('"version":1', '"version":2')),
        "made by a newer version of constraint-crdt (form 2, this one reads up to 1): upgrade",
    ),
    "another kind of JSON": (lambda a, b: a.write_text('[{"id": "x"}]'), "this is no state file"),
    "no JSON": (lambda a, b: a.write_text("id: x\n"), "not JSON"),
    "huge": (lambda a, b: a.write_bytes(a.read_bytes() + b" " * 5000), "more than 5000 bytes"),
}


def make_directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


def flip(file: Path) -> None:
    """Another letter in the base64 of the first cell."""
    text = file.read_text()
    at = text.index('"cells":[[1,"') + len('"cells":[[1,"') + 3
    file.write_text(text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :])


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_file_that_is_wrong_is_named_in_one_sentence(
    mistake: str, files: tuple[Path, Path], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole_files, "MAX_STATE_BYTES", 5000)
    spoil, says = MISTAKES[mistake]
    spoil(*files)
    target = tmp_path / "c.json"
    target.write_text("before")
    code, out, err = run(capsys, "merge", files[1], files[0], "-o", target)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("constraint-crdt merge: ")
    assert says in err
    assert str(files[0]) in err
    assert target.read_text() == "before"
    assert sorted(each.name for each in tmp_path.iterdir() if each != files[0]) == ["b.json", "c.json"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_files_without_permission(files: tuple[Path, Path], tmp_path: Path, capsys: Capture) -> None:
    files[0].chmod(0)
    code, _, err = run(capsys, "merge", *files)
    assert (code, "Permission denied" in err) == (2, True)
    files[0].chmod(0o600)
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    code, _, err = run(capsys, "merge", *files, "-o", locked / "c.json")
    assert (code, "Permission denied" in err) == (1, True)


@pytest.mark.parametrize(("target", "says"), [("nowhere/c.json", "No such file or directory"), (".", "it is a directory")])
def test_a_place_that_cannot_be_written(target: str, says: str, files: tuple[Path, Path], tmp_path: Path, capsys: Capture) -> None:
    code, out, err = run(capsys, "merge", *files, "-o", tmp_path / target)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "cannot write" in err
    assert says in err


def test_merge_needs_files_and_node_commands_take_one(capsys: Capture) -> None:
    for argv, says in ((["merge"], "FILE"), (["import"], "FILE"), (["import", "a", "b"], "b"), (["export", "-o"], "-o")):
        code, out, err = run(capsys, *argv)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert says in err


# --- writing -------------------------------------------------------------------------------------------------------------


def test_a_file_keeps_its_mode_and_a_new_one_gets_the_usual(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("before")
    old.chmod(0o640)
    umask = os.umask(0o027)
    try:
        whole_files.write_whole(str(old), b"after")
        whole_files.write_whole(str(new), b"after")
    finally:
        os.umask(umask)
    assert (old.read_bytes(), stat.S_IMODE(old.stat().st_mode)) == (b"after", 0o640)
    assert (new.read_bytes(), stat.S_IMODE(new.stat().st_mode)) == (b"after", 0o640)


def test_what_a_link_points_to_is_written(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("before")
    link.symlink_to(target)
    whole_files.write_whole(str(link), b"after")
    assert link.is_symlink()
    assert target.read_bytes() == b"after"


def test_a_device_is_written_to_and_stays_one(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        whole_files.write_whole(str(pipe), b"through")
        assert os.read(reader, 100) == b"through"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_disk_that_is_full_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "target"
    target.write_text("before")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CommandFailedError, match="No space left on device"):
        whole_files.write_whole(str(target), b"after")
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


# --- with a node ---------------------------------------------------------------------------------------------------------


def test_a_node_exports_and_imports(
    node_url: str, files: tuple[Path, Path], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = run(capsys, "import", files[0], "--node", node_url)
    assert (code, err) == (0, "")
    assert out.startswith(
        "taken in: 3 new cells; constraints that changed: 2\nnote: new here from the file: a. It counts as a node of"
    )
    assert "`constraint-crdt retire a` here" in out
    assert run(capsys, "import", files[0], "--node", node_url)[1] == "nothing new: the node knew all of it\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(files[1].read_bytes())))
    code, out, _ = run(capsys, "import", "-", "--node", node_url, "--json")
    assert (code, json.loads(out)) == (0, {"changed": True, "cells": 2, "constraints": 1})

    code, out, _ = run(capsys, "export", "--node", node_url)
    state = from_json(out)
    assert (code, set(state.constraints), state.metrics.total_satisfied) == (0, {"x", "y", "z"}, 4)
    target = tmp_path / "out.json"
    code, out, _ = run(capsys, "export", "--node", node_url, "-o", target)
    assert (code, out) == (0, f"{target}: 3 constraints, 4 satisfied, 2 violated; hash {state.state_hash.hex()[:16]}\n")
    assert from_json(target.read_text()) == state
    code, out, _ = run(capsys, "export", "--node", node_url, "-o", target, "--json")
    assert (code, json.loads(out)["file"], json.loads(out)["satisfied"]) == (0, str(target), 4)


@pytest.mark.processes
def test_a_dry_run_tells_the_constraints_and_the_nodes_that_an_import_would_bring(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "other.json"
    other = state_of("depot-1", "dry1", "dry2")
    other.constraints.add("dry2", when="v < 2", severity="critical", expires_at=time.time_ns() + 3600 * 10**9, node="depot-2")
    file.write_text(to_json(other))
    with running_node() as node:
        main(["add", "dry1", "--when", "v < 1", "--node", node.url])
        capsys.readouterr()
        code, out, err = run(capsys, "import", file, "--dry-run", "--node", node.url)
        assert (code, err) == (0, "")
        assert out.splitlines() == [
            "dry1: would be in conflict",
            "dry2: would be added",
            "would change 2 constraints; nodes unknown here: depot-1, depot-2 (dry run, nothing was sent)",
            "note: nodes of another fleet would stay here as not live: `import --constraints` takes the constraints alone",
        ]
        report = json.loads(run(capsys, "import", file, "--dry-run", "--json", "--node", node.url)[1])
        assert (report["changed"], report["unknown_nodes"]) == (True, ["depot-1", "depot-2"])
        assert [each.node for each in Client(node.url).nodes()] == ["forge"]

        code, out, err = run(capsys, "import", file, "--constraints", "--dry-run", "--node", node.url)
        assert (code, err) == (0, "")
        assert out == "dry1: replaced\ndry2: added\nwould be: 1 added, 1 replaced (dry run, nothing was sent)\n"
        assert run(capsys, "import", file, "--constraints", "--node", node.url)[:2] == (
            0,
            "dry1: replaced\ndry2: added\n1 added, 1 replaced\n",
        )
        with Client(node.url) as client:
            assert [each.node for each in client.nodes()] == ["forge"]
            found = {each.id: each.definitions for each in client.constraints()}
            assert [(each.when, each.severity) for each in found["dry2"]] == [("v < 2", "critical")]
            assert found["dry2"][0].expires_at is not None
        run(capsys, "import", file, "--node", node.url)
        out = run(capsys, "import", file, "--dry-run", "--node", node.url)[1]
        assert out == "would be nothing new: the node knows all of it (dry run, nothing was sent)\n"


def test_constraints_in_conflict_in_the_file_are_not_imported_alone(tmp_path: Path, node_url: str, capsys: Capture) -> None:
    one, other = ConstraintState(), ConstraintState()
    one.constraints.add("torn", when="v < 1", node="depot-1")
    other.constraints.add("torn", when="v < 2", node="depot-2")
    file = tmp_path / "torn.json"
    file.write_text(to_json(one.merged(other)))
    code, out, err = run(capsys, "import", file, "--constraints", "--node", node_url)
    assert (code, out) == (2, "")
    assert "torn: the definitions are in conflict there: settle that first" in err


def test_what_the_node_refuses_names_the_file(
    node_url: str, files: tuple[Path, Path], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip(files[0])
    code, out, err = run(capsys, "import", files[0], "--node", node_url)
    assert (code, out) == (2, "")
    assert err.startswith(f"constraint-crdt import: {files[0]}: the state file is damaged")
    monkeypatch.setattr(whole_files, "MAX_IMPORT_BYTES", 10)
    code, _, err = run(capsys, "import", files[1], "--node", node_url)
    assert (code, err.count("\n"), "more than 10 bytes" in err) == (2, 1, True)
    code, _, err = run(capsys, "import", "missing.json", "--node", node_url)
    assert (code, "cannot read missing.json: No such file" in err) == (2, True)


def test_without_a_node_it_says_so(files: tuple[Path, Path], capsys: Capture) -> None:
    for argv in (("export",), ("import", files[0])):
        code, out, err = run(capsys, *argv, "--node", "127.0.0.1:9")
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert "no node answers" in err
