"""The commands on budgets, against a node: define, acquire around a command, release, and a file of `apply`."""

import json
import sys
from pathlib import Path

import pytest

from constraint_crdt.cli import main
from constraint_crdt.client import Client
from tests.cli.process import running_node

pytestmark = pytest.mark.processes
Capture = pytest.CaptureFixture[str]


def run(capsys: Capture, url: str, *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    behind = words.index("--") if "--" in words else len(words)
    return main([*words[:behind], "--node", url, *words[behind:]]), *capsys.readouterr()


def test_a_budget_is_defined_shown_changed_and_removed(node_url: str, capsys: Capture) -> None:
    assert run(capsys, node_url, "budget", "add", "dock", "--limit", "2")[:2] == (0, "dock: limit 2, lease 2m\n")
    assert run(capsys, node_url, "budget", "add", "dock", "--limit", "3")[0] == 2
    assert run(capsys, node_url, "budget", "set", "nothing", "--limit", "3")[0] == 2
    assert run(capsys, node_url, "budget", "set", "dock", "--limit", "1")[0] == 0
    handle = run(capsys, node_url, "acquire", "dock", "--holder", "robot")[1].strip()
    shown = run(capsys, node_url, "budget")[1]
    assert shown.splitlines()[1].split() == ["dock", "1", "1", "0", "0", "0", "0", "2m"]
    assert "robot" in shown
    code, _, err = run(capsys, node_url, "acquire", "dock")
    assert code == 1
    assert "1 of dock is not free here: 0 is; forge holds 1" in err
    assert run(capsys, node_url, "release", handle)[1] == "dock: released\n"
    assert run(capsys, node_url, "release", handle)[1] == "dock: it was over before\n"
    assert run(capsys, node_url, "release", "nonsense")[0] == 2
    assert run(capsys, node_url, "budget", "remove", "dock")[1] == "dock: removed\n"
    assert json.loads(run(capsys, node_url, "budget", "--json")[1]) == []


def test_a_command_runs_while_it_holds_and_its_exit_code_is_passed_on(node_url: str, capsys: Capture, tmp_path: Path) -> None:
    assert run(capsys, node_url, "budget", "add", "one", "--limit", "1")[0] == 0
    seen = tmp_path / "seen"
    script = f"import os, pathlib; pathlib.Path({str(seen)!r}).write_text(os.environ['CONSTRAINT_CRDT_HOLD']); raise SystemExit(7)"
    assert run(capsys, node_url, "acquire", "one", "--", sys.executable, "-c", script)[0] == 7
    assert seen.read_text().startswith("one:")
    assert Client(node_url).budgets()[0].held == 0
    assert run(capsys, node_url, "acquire", "one", "--", str(tmp_path / "missing"))[0] == 1
    assert Client(node_url).budgets()[0].held == 0
    assert run(capsys, node_url, "budget", "remove", "one")[0] == 0


def test_a_command_is_ended_before_its_hold_is_over(capsys: Capture) -> None:
    with running_node() as node:
        assert run(capsys, node.url, "budget", "add", "short", "--limit", "1", "--lease", "1s")[0] == 0
        script = "import time, urllib.request as u; u.urlopen(u.Request(URL, method='DELETE')); time.sleep(60)"
        script = script.replace("URL", repr(f"{node.url}/v1/budgets/short"))
        code, _, err = run(capsys, node.url, "acquire", "short", "--", sys.executable, "-c", script)
        assert code != 0
        assert "was ended, as its hold of short is over" in err


def test_a_file_lists_budgets_beside_constraints(node_url: str, capsys: Capture, tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text('[[constraint]]\nid = "c"\n\n[[budget]]\nname = "energy"\nlimit = 9\nlease = "none"\n')
    assert run(capsys, node_url, "apply", str(file), "--dry-run")[1].startswith("c: added\nenergy: added\n")
    assert run(capsys, node_url, "apply", str(file))[0] == 0
    assert [(each.name, each.limit, each.lease) for each in Client(node_url).budgets()] == [("energy", 9, None)]
    assert "energy: unchanged" in run(capsys, node_url, "apply", str(file))[1]
    for wrong in ("limit = -1", 'limit = 1\nlease = "soon"', "limit = 1\nshare = 2"):
        file.write_text(f'[[budget]]\nname = "energy"\n{wrong}\n')
        assert run(capsys, node_url, "apply", str(file))[0] == 2
    assert run(capsys, node_url, "budget", "remove", "energy")[0] == 0
    assert run(capsys, node_url, "remove", "c")[0] == 0


def test_a_file_with_another_lease_than_the_fleet_is_refused(node_url: str, capsys: Capture, tmp_path: Path) -> None:
    """The defect: it was called unchanged."""
    file = tmp_path / "fleet.toml"
    file.write_text('[[budget]]\nname = "leased"\nlimit = 2\nlease = "2m"\n')
    assert run(capsys, node_url, "apply", str(file))[0] == 0
    file.write_text('[[budget]]\nname = "leased"\nlimit = 2\nlease = "3m"\n')
    code, _, err = run(capsys, node_url, "apply", str(file))
    assert (code, "the lease of budget leased stays as it is" in err) == (1, True)


def test_restore_names_a_file(capsys: Capture, tmp_path: Path) -> None:
    for place in ("", "memory"):
        assert main(["restore", str(tmp_path / "copy.db"), "--store", place]) == 2
        assert "names no file: leave it out" in capsys.readouterr().err
