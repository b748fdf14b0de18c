"""A node and its store, as its user sees them: what a restart keeps, and each refusal as one sentence with exit code 1."""

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from constraint_crdt.cli import main
from tests import fork_server
from tests.cli.process import NodeProcess, ask, environment, run_to_its_end, running_node
from tests.conftest import runtime_directory

pytestmark = pytest.mark.processes


@pytest.fixture
def runtime(tmp_path: Path) -> str:
    """The runtime directory of one boot of one machine."""
    return private(tmp_path / "boot-1")


def private(directory: Path) -> str:
    return str(runtime_directory(directory))


def write(node: NodeProcess) -> None:
    assert main(["add", "--node", node.url, "kept", "--when", "a < 1.0"]) == 0
    assert main(["add", "--node", node.url, "gone"]) == 0
    assert main(["remove", "--node", node.url, "gone"]) == 0
    assert main(["record", "--node", node.url, "--satisfied", "3", "--violations", "1", "--constraint", "kept"]) == 0


def told(node: NodeProcess) -> tuple[object, ...]:
    """What the node knows that must not change by a restart."""
    [kept] = ask(node.url, "constraints")
    status = ask(node.url, "status")
    return kept["id"], kept["when"], kept["by_node"], status["constraints_hash"], status["satisfied"], status["violations"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_restart_loses_nothing_and_goes_on_as_the_same_life(tmp_path: Path, runtime: str, number: signal.Signals) -> None:
    flags = ("--store", str(tmp_path / "node.db"), "--fleet", "f")
    with running_node(*flags, XDG_RUNTIME_DIR=runtime) as node:
        write(node)
        before, replica = told(node), ask(node.url, "status")["replica"]
        node.process.send_signal(number)
        assert node.ends()[0] == (0 if number == signal.SIGTERM else -number)
    with running_node(*flags, XDG_RUNTIME_DIR=runtime) as node:
        assert told(node) == before
        assert told(node)[2] == {"forge": [3, 1]}
        identity = ask(node.url, "identity")
        assert identity["replica"] == replica
        assert [life["why"] for life in identity["lives"]] == ["first start"]


@pytest.mark.long
def test_a_copy_on_another_machine_is_another_life(tmp_path: Path, runtime: str, capsys: pytest.CaptureFixture[str]) -> None:
    original, copy = tmp_path / "node.db", tmp_path / "copy.db"
    with running_node("--store", str(original), "--fleet", "f", XDG_RUNTIME_DIR=runtime) as node:
        write(node)
        before, first = told(node), ask(node.url, "identity")["lives"][0]["incarnation"]
        node.stop()
    shutil.copy(original, copy)
    with running_node("--store", str(copy), "--fleet", "f", XDG_RUNTIME_DIR=private(tmp_path / "boot-2")) as node:
        assert told(node) == before
        write(node)  # a life begins with its first write; the start is one only if the port that the node listens on has changed
        lives = ask(node.url, "identity")["lives"]
        assert [life["incarnation"] == first for life in lives] == [True, False]
        assert f"forge~{first}" in lives[1]["why"]
        capsys.readouterr()
        assert main(["identity", "--node", node.url]) == 0
        out = capsys.readouterr().out
        assert "node         forge of fleet f\n" in out
        assert f"replica      forge~{lives[1]['incarnation']}\n" in out
        assert [line.split()[0] for line in out.splitlines()[-2:]] == [life["incarnation"] for life in lives]


def test_the_default_is_a_file_named_after_fleet_and_node(tmp_path: Path, runtime: str) -> None:
    state = tmp_path / "state"
    line = ["node", "--api", "127.0.0.1:0", "--fleet", "f"]  # the host's name, and no word on the store
    surroundings = environment(XDG_STATE_HOME=str(state), XDG_RUNTIME_DIR=runtime)
    del surroundings["CONSTRAINT_CRDT_STORE"]
    with fork_server.start(line, stderr=subprocess.PIPE, env=surroundings) as process:
        assert process.stderr is not None
        try:
            assert any(f" ready name={socket.gethostname()} " in text for text in process.stderr)
        finally:
            process.terminate()
        process.stderr.read()
    assert process.returncode == 0
    [store] = (state / "constraint-crdt" / "f").glob("*.db")
    assert store.stem == socket.gethostname()


@pytest.mark.long
def test_storage_tells_what_is_held(tmp_path: Path, runtime: str, capsys: pytest.CaptureFixture[str]) -> None:
    with running_node("--store", str(tmp_path / "node.db"), XDG_RUNTIME_DIR=runtime) as node:
        write(node)
        report = ask(node.url, "storage")
        assert (report["path"], report["live"], report["removed"]) == (str(tmp_path / "node.db"), 7, 1), (
            "three are of the audit, one of the history"
        )
        capsys.readouterr()
        assert main(["storage", "--node", node.url]) == 0
        out = capsys.readouterr().out
        assert f"store        {tmp_path / 'node.db'}, {report['bytes_on_disk']} bytes on disk\n" in out
        assert f"live         7 cells, {report['live_bytes']} bytes\n" in out
        assert "removed      1 cell, " in out
        assert "TROUBLE" not in out
    with running_node() as node:
        assert ask(node.url, "storage")["path"] == "memory"


# --- refusals -----------------------------------------------------------------------------------------------------------


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The one sentence of a node that did not start."""
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    *log, last = done.stderr.splitlines()
    assert not log
    assert last.startswith("constraint-crdt node: ")
    return last.removeprefix("constraint-crdt node: ")


def test_a_store_in_use_names_the_process_that_has_it(tmp_path: Path, runtime: str) -> None:
    flags = ("--store", str(tmp_path / "node.db"), "--name", "forge", "--fleet", "f")
    with running_node(*flags, XDG_RUNTIME_DIR=runtime) as node:
        said = refusal(run_to_its_end(*flags, XDG_RUNTIME_DIR=runtime))
        assert f"is in use by process {node.process.pid} since" in said
        assert "give --store another path" in said
        said = refusal(run_to_its_end(*flags, "--rejoin", XDG_RUNTIME_DIR=runtime))
        assert f"is in use by process {node.process.pid} since" in said
        write(node)
        assert told(node)[0] == "kept"


def garbage(path: Path) -> None:
    path.write_bytes(b"garbage" * 100)


def newer(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 999")
    connection.close()


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 4096)


def anothers(path: Path) -> None:
    path.unlink()
    with running_node("--name", "anvil", "--fleet", "f", "--store", str(path)) as node:
        node.stop()


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.long(by_day=["cut-restore it from a peer: constraint-crdt node --rejoin"])
@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (garbage, "is damaged (it is no SQLite file): restore it from a peer: constraint-crdt node --rejoin"),
        (cut, "restore it from a peer: constraint-crdt node --rejoin"),
        (newer, "was written by a newer version of constraint-crdt (form 999"),
        (anothers, "is that of node 'anvil' of fleet 'f': give --store another path"),
        (a_directory, "cannot be used (it is no regular file"),
    ],
)
def test_a_store_that_cannot_be_used_is_refused_and_kept(
    tmp_path: Path, runtime: str, spoil: Callable[[Path], None], says: str
) -> None:
    path = tmp_path / "node.db"
    flags = ("--store", str(path), "--name", "forge", "--fleet", "f")
    with running_node(*flags, XDG_RUNTIME_DIR=runtime) as node:
        write(node)
        node.stop()
    spoil(path)
    before = path.read_bytes() if path.is_file() else b""
    said = refusal(run_to_its_end(*flags, XDG_RUNTIME_DIR=runtime))
    assert str(path) in said
    assert says in said
    assert (path.read_bytes() if path.is_file() else b"") == before


@pytest.mark.long
def test_a_path_without_permission_is_refused(tmp_path: Path, runtime: str) -> None:
    """In a process that gives its rights away right before it opens the store, for root has them all."""
    tmp_path.chmod(0o500)
    code = (
        "import os, sys\n"
        "from constraint_crdt.cli import main\n"
        "from constraint_crdt.runtime.persistence import Persistence\n"
        "opened = Persistence.open\n"
        "def open_without_rights(self, **flags):\n"
        "    if not os.getuid(): os.setuid(65534)\n"
        "    return opened(self, **flags)\n"
        "Persistence.open = open_without_rights\n"
        "sys.exit(main())\n"
    )
    line = [sys.executable, "-c", code, "node", "--api", "127.0.0.1:0", "--store", str(tmp_path / "node.db")]
    surroundings = environment(XDG_RUNTIME_DIR=runtime)
    said = refusal(subprocess.run(line, check=False, capture_output=True, text=True, env=surroundings, timeout=30))
    assert said.startswith("this user may not use ")
    assert said.endswith("give --store another path")


@pytest.mark.long
def test_rejoin_sets_a_damaged_store_aside_and_takes_all_from_a_peer(tmp_path: Path, runtime: str) -> None:
    path = tmp_path / "node.db"
    flags = ("--store", str(path), "--name", "forge", "--fleet", "f")
    with running_node("--name", "anvil", "--fleet", "f", "--listen", "tcp/127.0.0.1:0") as peer:
        with running_node(*flags, "--connect", peer.endpoint, XDG_RUNTIME_DIR=runtime) as node:
            write(node)
            before = told(node)
            while told_by(peer) != before:
                pass
            node.process.kill()
        garbage(path)
        with running_node(*flags, "--rejoin", "--connect", peer.endpoint, XDG_RUNTIME_DIR=runtime) as node:
            while told_by(node) != before:
                pass
            lines = node.stop()
    [aside] = tmp_path.glob("node.db.set-aside-*[0-9]")
    assert aside.read_bytes().startswith(b"garbage")
    assert any(f"the old store is kept as {aside}" in line for line in lines)


def told_by(node: NodeProcess) -> tuple[object, ...] | None:
    """What the node knows, None while it is not all there. Each look is a request, so looking again needs no pause."""
    return told(node) if ask(node.url, "constraints") and ask(node.url, "status")["satisfied"] else None


@pytest.mark.long
def test_a_backup_of_a_running_node_is_restored_on_another_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--store", str(tmp_path / "node.db"), "--fleet", "f")
    copy, restored = tmp_path / "copy.db", tmp_path / "restored.db"
    with running_node(*flags, XDG_RUNTIME_DIR=private(tmp_path / "boot-1")) as node:
        write(node)
        before = told(node)
        capsys.readouterr()
        assert main(["backup", str(copy), "--node", node.url]) == 0
        assert re.fullmatch(
            rf"{re.escape(str(copy))}: the store of node forge of fleet f, \d+ cells, \d+ bytes, checked\n", capsys.readouterr().out
        )
        assert main(["add", "--node", node.url, "later"]) == 0
        capsys.readouterr()
        assert main(["restore", str(copy), "--store", str(tmp_path / "node.db")]) == 1
        assert re.search(r"^constraint-crdt restore: the store .* is in use by process \d+", capsys.readouterr().err)
    assert main(["restore", str(copy), "--store", str(restored), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["former"] is None
    with running_node("--store", str(restored), "--fleet", "f", XDG_RUNTIME_DIR=private(tmp_path / "boot-2")) as node:
        assert told(node) == before
        assert main(["add", "--node", node.url, "of a new life"]) == 0
        assert len(ask(node.url, "identity")["lives"]) == 2


def test_a_node_in_memory_has_no_backup_and_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running_node("--store", "memory", "--fleet", "f") as node:
        capsys.readouterr()
        assert main(["backup", str(tmp_path / "copy.db"), "--node", node.url]) == 1
        assert "keeps its state in memory and has no store: `constraint-crdt export`" in capsys.readouterr().err
    assert not (tmp_path / "copy.db").exists()
