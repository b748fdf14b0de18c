"""The commands on budgets, against a node: define, acquire around a command, release, and a file of `apply`."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from constraint_crdt.cli import main
from constraint_crdt.client import Client, WrongInput
from tests.cli.process import running_node

pytestmark = pytest.mark.processes
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def no_budgets(node_url: str) -> Iterator[None]:
    """The node is that of all tests here: each leaves it without budgets, in any order."""
    yield
    with Client(node_url) as client:
        for each in client.budgets():
            client.remove_budget(each.name)


def run(capsys: Capture, url: str, *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    behind = words.index("--") if "--" in words else len(words)
    return main([*words[:behind], "--node", url, *words[behind:]]), *capsys.readouterr()


def test_a_budget_is_defined_shown_changed_and_removed(node_url: str, capsys: Capture) -> None:
    assert run(capsys, node_url, "budget", "add", "dock", "--limit", "2")[:2] == (0, "dock: limit 2, lease 2m\n")
    assert run(capsys, node_url, "budget", "add", "dock", "--limit", "3")[0] == 1
    assert run(capsys, node_url, "budget", "set", "nothing", "--limit", "3")[0] == 1
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


def test_mistakes_in_the_command_end_with_2_and_others_with_1(node_url: str, capsys: Capture) -> None:
    """The defect: which of both it was differed by command; a mistyped node, and odd names, were accepted."""
    assert run(capsys, node_url, "budget", "add", "codes", "--limit", "1")[0] == 0
    for words, code, why in (
        (("budget", "add", "codes", "--limit", "2"), 1, "codes is defined: change it with `budget set`"),
        (("budget", "add", "typo", "--limit", "2", "--on", "frge"), 1, "frge is no node in service"),
        (("budget", "add", " odd", "--limit", "2"), 2, "no space at its ends"),
        (("budget", "add", "a\nb", "--limit", "2"), 2, "no control characters"),
        (("budget", "add", "x", "--limit", "2", "--lease", "soon"), 2, "not a length of time"),
        (("budget", "add", "x", "--limit", str(2**60)), 2, "the limit of a budget is"),
        (("budget", "set", "codes"), 2, "say what to change"),
        (("budget", "set", "codes", "--gone", "frge"), 1, "no node frge is known here"),
        (("budget", "remove", "nothing"), 1, "no budget 'nothing'"),
        (("acquire", "nothing"), 1, "no budget 'nothing'"),
        (("acquire", "codes", "--amount", "0"), 2, "an amount is from 1"),
        (("acquire", "codes", "--amount", "2"), 1, "more than its limit"),
        (("release", "nonsense"), 2, "is no handle"),
        (("explain", "nothing"), 1, "nothing"),
        (("explain", "two", "words"), 2, "takes one constraint or budget"),
    ):
        found, _, err = run(capsys, node_url, *words)
        assert (words, found, why in err) == (words, code, True), err
    with pytest.raises(WrongInput, match="`wait` is from 0 to 60 seconds, not -1"):
        Client(node_url).acquire("codes", wait=-1.0)
    assert run(capsys, node_url, "budget", "remove", "codes")[0] == 0


def test_a_budget_is_explained_by_its_name(node_url: str, capsys: Capture) -> None:
    assert run(capsys, node_url, "budget", "add", "dock", "--limit", "1")[0] == 0
    assert run(capsys, node_url, "add", "dock2")[0] == 0
    code, out, _ = run(capsys, node_url, "explain", "dock")
    assert (code, "is granted at once" in out) == (0, True)
    handle = run(capsys, node_url, "acquire", "dock", "--holder", "robot")[1].strip()
    out = run(capsys, node_url, "explain", "budget", "dock")[1]
    assert out.startswith("budget dock\n")
    assert "1 of dock is not free here: 0 is; forge holds 1" in out
    assert "robot" in out
    assert json.loads(run(capsys, node_url, "explain", "dock", "--json")[1])["budget"]["held"] == 1
    assert run(capsys, node_url, "release", handle)[0] == 0
    assert run(capsys, node_url, "budget", "remove", "dock")[0] == 0
    assert run(capsys, node_url, "remove", "dock2")[0] == 0


def test_a_command_runs_while_it_holds_and_its_exit_code_is_passed_on(node_url: str, capsys: Capture, tmp_path: Path) -> None:
    assert run(capsys, node_url, "budget", "add", "one", "--limit", "1")[0] == 0
    seen = tmp_path / "seen"
    script = f"import os, pathlib; pathlib.Path({str(seen)!r}).write_text(os.environ['CONSTRAINT_CRDT_HOLD']); raise SystemExit(7)"
    assert run(capsys, node_url, "acquire", "one", "--", sys.executable, "-c", script)[0] == 7
    assert seen.read_text().startswith("one:")
    assert Client(node_url).budgets()[0].held == 0
    assert run(capsys, node_url, "acquire", "one", "--", str(tmp_path / "missing"))[0] == 1
    assert Client(node_url).budgets()[0].held == 0
    held = run(capsys, node_url, "acquire", "one", "--json", "--", sys.executable, "-c", "pass")[1]
    assert json.loads(held)["name"] == "one"
    assert run(capsys, node_url, "budget", "remove", "one")[0] == 0


@pytest.mark.long
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
    [energy] = [each for each in Client(node_url).budgets() if each.name == "energy"]
    assert (energy.limit, energy.lease) == (9, None)
    assert "energy: unchanged" in run(capsys, node_url, "apply", str(file))[1]
    for wrong, why in (
        ("limit = -1", "the limit of a budget is from 0"),
        ('limit = "many"', "`limit` must be a whole number, not 'many'"),
        ('limit = 1\nlease = "soon"', "`lease`: 'soon' is not a length of time"),
        ("limit = 1\nlimt = 2", "there is no field `limt`: `limit` may be meant"),
        ('limit = 1\non = "forge"', "`on` must be a list of nodes"),
        ("", "`limit` is missing"),
    ):
        file.write_text(f'[[budget]]\nname = "energy"\n{wrong}\n')
        code, _, err = run(capsys, node_url, "apply", str(file))
        assert (code, f"line 1, budget 1 (energy): {why}" in err) == (2, True), err
    file.write_text('[[budget]]\nname = "energy"\nlimit = 1\n' * 2 + "[[budget]]\n")
    err = run(capsys, node_url, "apply", str(file))[2]
    assert "line 4, budget 2 (energy): the name is there twice" in err
    assert "line 7, budget 3: `name` is missing" in err
    file.write_text('[[constraint]]\nid = "not sent"\n\n[[budget]]\nname = "other"\nlimit = 1\non = ["frge"]\n')
    code, _, err = run(capsys, node_url, "apply", str(file))
    assert (code, "`on`: the node knows no node frge" in err) == (1, True)
    assert [each.id for each in Client(node_url).constraints()] == ["c"]
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


def test_what_export_writes_of_budgets_is_what_apply_reads(node_url: str, capsys: Capture, tmp_path: Path) -> None:
    file, client = tmp_path / "fleet.toml", Client(node_url)
    for words in (("bay", "--limit", "5", "--lease", "90s"), ("fuel", "--limit", "9", "--lease", "none", "--on", "forge")):
        assert run(capsys, node_url, "budget", "add", *words)[0] == 0
    assert run(capsys, node_url, "export", "--constraints", "-o", str(file))[0] == 0
    assert '[[budget]]\nname = "bay"\nlimit = 5\nlease = "90s"\n' in file.read_text()
    told = run(capsys, node_url, "apply", str(file))[1].splitlines()
    assert {"bay: unchanged", "fuel: unchanged"} <= set(told)
    file.write_text(file.read_text().replace("limit = 5", "limit = 2"))
    told = run(capsys, node_url, "apply", "--dry-run", str(file))[1].splitlines()
    assert told[told.index("bay: replaced") + 1] == "  limit: 5 -> 2"
    assert {each.name: each.limit for each in client.budgets()}["bay"] == 5
    assert "bay: replaced" in run(capsys, node_url, "apply", str(file))[1]
    assert run(capsys, node_url, "budget", "remove", "bay")[0] == 0
    assert "bay: added" in run(capsys, node_url, "apply", str(file))[1]
    assert {each.name: (each.limit, each.lease) for each in client.budgets()}["bay"] == (2, 90.0)
    for name in ("bay", "fuel"):
        assert run(capsys, node_url, "budget", "remove", name)[0] == 0


def test_a_restored_file_has_to_be_a_backup(capsys: Capture, tmp_path: Path) -> None:
    """The defect: the advice was to start a node with --rejoin."""
    file = tmp_path / "passwd"
    file.write_text("root:x:0:0:root:/root:/bin/sh\n" * 40)
    assert main(["restore", str(file)]) == 1
    err = capsys.readouterr().err
    assert "it is no SQLite file): name a file that `constraint-crdt backup` wrote" in err
    assert "--rejoin" not in err


def test_restore_names_a_file(capsys: Capture, tmp_path: Path) -> None:
    for place in ("", "memory"):
        assert main(["restore", str(tmp_path / "copy.db"), "--store", place]) == 2
        assert "names no file: leave it out" in capsys.readouterr().err
