"""Actions of a node process: what `alerts actions` shows, and what kill -9 leaves."""

import os
import time
from pathlib import Path

import pytest

from constraint_crdt.cli import main
from constraint_crdt.client import Client
from tests.cli.process import running_node
from tests.cli.test_guard import SOON, state_of, written

pytestmark = [pytest.mark.long, pytest.mark.processes]
Capture = pytest.CaptureFixture[str]

SETTINGS = """
[[action]]
name = "long"
command = ["sh", "-c", "echo $$ > {folder}/$ACTION_TURN.{number}; exec sleep 60"]
"""


def gone(pid: int) -> None:
    ends = time.monotonic() + SOON
    while state_of(pid) not in ("", "Z"):
        assert time.monotonic() < ends, state_of(pid)
        os.sched_yield()


def test_a_killed_node_leaves_no_command_behind_and_does_it_again(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "node.toml"
    file.write_text(SETTINGS.format(folder=tmp_path, number=1))
    flags = ("--config", str(file), "--fleet", "plant", "--store", str(tmp_path / "a.db"))
    with running_node(*flags) as node:
        client = Client(node.url)
        client.add("max_speed", when="speed_mps <= 1.5", severity="critical")
        client.measure({"speed_mps": 9.0})
        pid = written(tmp_path / "violated.1")
        (action,) = client.actions().actions
        assert (action.name, action.to, action.acting, action.waiting) == ("long", "sh", ("max_speed",), 1)
        assert main(["alerts", "actions", "--node", node.url]) == 0
        shown = capsys.readouterr().out.splitlines()
        assert shown[1].split()[:2] == ["long", "*"]
        assert shown[-1].split()[-1] == "runs"
        node.process.kill()
        node.process.wait()
        gone(pid)
    file.write_text(SETTINGS.format(folder=tmp_path, number=2))
    with running_node(*flags) as node:
        pid = written(tmp_path / "violated.2")
        assert [each.tries for each in Client(node.url).actions().waiting] == [2]
        node.stop()
        gone(pid)
