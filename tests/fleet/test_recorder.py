"""The flight recorder on a live fleet: three recorded processes, one of them killed, and all of it replays (issue 5)."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from constraint_crdt.simulation.recorder import decode_frames
from tests import fork_server
from tests.fleet.processes import NodeProcess, clean_environment, processes, seconds_until

pytestmark = pytest.mark.processes


def replay(*arguments: str) -> tuple[int, str, str]:
    done = fork_server.run(["replay", *arguments], env=clean_environment())
    return done.returncode, done.stdout, done.stderr


def replayed(path: Path) -> Any:
    code, out, err = replay(str(path), "--json")
    assert code == 0, err or out
    (outcome,) = json.loads(out)["recordings"]
    return outcome


@pytest.mark.long
def test_a_live_run_with_a_kill_replays_to_the_same_hashes(tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.recording" for name in ("forge", "anvil", "tongs")}
    with processes() as start:
        forge = start("forge", "--record", str(files["forge"]))
        seed = ("--connect", forge.endpoints[0])
        anvil = start("anvil", *seed, "--record", str(files["anvil"]))
        tongs = start("tongs", *seed, "--record", str(files["tongs"]))
        trio = [forge, anvil, tongs]
        seconds_until(lambda: all(node.get("status")["peers"] == 2 for node in trio))
        forge.run("add", "max_speed", "--when", "speed_mps <= 1.5")
        tongs.run("record", "--violations", "4")
        seconds_until(lambda: converged(trio))
        last = tongs.ask("status")["hash"]
        tongs.kill()
        anvil.run("add", "while_away")
        forge.run("remove", "max_speed")
        seconds_until(lambda: converged([forge, anvil]))
        hashes = {node.name: node.ask("status")["hash"] for node in (forge, anvil)} | {"tongs": last}
        for node in (forge, anvil):
            assert node.terminate() == 0
    for name, path in files.items():
        outcome = replayed(path)
        assert (outcome["node"], outcome["differs_at"], outcome["steps"]) == (name, None, outcome["inputs"])
        reached = [frame.hash.hex() for frame in decode_frames(path.read_bytes())]
        # Not the last of them: the recent rates of what was recorded are written every ten seconds, so perhaps after the question.
        assert hashes[name][: len(reached[-1])] in reached
        assert outcome["hash"][: len(reached[-1])] == reached[-1]
    code, out, _ = replay(str(files["forge"]), str(files["anvil"]))
    assert code == 0
    assert "never had equal clocks and different states" in out
    shown = replay(str(files["tongs"]), "--steps")[1]
    assert "wrote" in shown
    assert "max_speed" in (tmp_path / "tongs.recording").read_bytes().decode(errors="replace")
    written_test(files["anvil"], tmp_path)


def converged(nodes: list[NodeProcess]) -> bool:
    return len({node.get("status")["hash"] for node in nodes}) == 1


def written_test(recording: Path, folder: Path) -> None:
    """A recording turned into a test, which passes."""
    code, _, err = replay(str(recording), "--test", str(folder / "test_anvil.py"))
    assert code == 0, err
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder / "test_anvil.py"), "-c", "/dev/null"]
    alone = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # with none of the plugins that are installed here
    assert subprocess.run(run, capture_output=True, timeout=60, check=False, cwd=folder, env=alone).returncode == 0


@pytest.mark.long
def test_mistakes_give_one_sentence(tmp_path: Path) -> None:
    empty, text = tmp_path / "empty", tmp_path / "text"
    empty.write_bytes(b"")
    text.write_text("a text that is no recording")
    for arguments, code, sentence in [
        ((str(tmp_path / "none"),), 2, "cannot read"),
        ((str(empty),), 1, "no recording"),
        ((str(text),), 1, "no recording"),
        ((str(tmp_path),), 2, "cannot read"),
        (("a", "b", "c"), 2, "one recording, or two"),
    ]:
        found, out, err = replay(*arguments)
        assert (found, out) == (code, "")
        assert sentence in err
        assert err.count("\n") == 1


def test_a_file_that_cannot_be_written_ends_the_start(tmp_path: Path) -> None:
    flags = ["--name", "a", "--api", "127.0.0.1:0", "--store", "memory", "--record", str(tmp_path / "no" / "f")]
    done = fork_server.run(["node", *flags], env=clean_environment())
    assert done.returncode == 1
    assert "cannot record to" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
