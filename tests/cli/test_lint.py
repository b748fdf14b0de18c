"""lint: the faults of the constraints of files or of a node, as lines, as JSON and as the exit code."""

import json
import sys
from pathlib import Path

import pytest

from constraint_crdt.cli import main
from constraint_crdt.client import Client
from tests.cli.process import running_node

pytest.importorskip("z3", reason="the solver is not installed")

Capture = pytest.CaptureFixture[str]


def write(path: Path, **whens: str) -> str:
    path.write_text("".join(f'[[constraint]]\nid = "{id_}"\nwhen = "{when}"\n' for id_, when in whens.items()))
    return str(path)


def run(capsys: Capture, *argv: str) -> tuple[int, str, str]:
    code = main(list(argv))
    return code, *capsys.readouterr()


def test_faults_are_a_line_each_and_exit_code_1(tmp_path: Path, capsys: Capture) -> None:
    file = write(tmp_path / "a.toml", slow="speed_mps <= 1.5", fast="speed_mps > 2.0", few="size(items) <= 3")
    code, out, err = run(capsys, "lint", file)
    assert (code, err) == (1, "")
    assert out.splitlines() == [
        "undecided: few: `size(items)` is not analysed",
        "contradiction: slow, fast: no values satisfy both",
        "3 constraints: 1 fault, 1 not decided",
    ]


def test_without_faults_the_exit_code_is_0(tmp_path: Path, capsys: Capture) -> None:
    assert run(capsys, "lint", write(tmp_path / "a.toml", slow="speed_mps <= 1.5")) == (0, "1 constraint: no faults\n", "")


def test_a_range_and_json(tmp_path: Path, capsys: Capture) -> None:
    file = write(tmp_path / "a.toml", full="percent <= 100.0")
    code, out, _ = run(capsys, "lint", file, "--range", "percent=0..100", "--json")
    assert code == 1
    assert json.loads(out) == {
        "constraints": 1,
        "findings": [{"fault": "always true", "ids": ["full"], "text": "no values violate it"}],
    }


@pytest.mark.parametrize("text", ["percent", "percent=1", "percent=2..1", "=1..2", "percent=1..nan", "percent=0..1e999"])
def test_a_range_that_is_none_is_refused(text: str, tmp_path: Path, capsys: Capture) -> None:
    code, out, err = run(capsys, "lint", write(tmp_path / "a.toml", a="percent < 1.0"), "--range", text)
    assert (code, out) == (2, "")
    assert "as in percent=0..100" in err


def test_an_id_of_two_files_is_refused(tmp_path: Path, capsys: Capture) -> None:
    files = [write(tmp_path / name, a="x < 1.0") for name in ("a.toml", "b.toml")]
    code, _, err = run(capsys, "lint", *files)
    assert code == 2
    assert "line 1, constraint 1 (a): the id is in a file before" in err


def test_without_the_solver_one_sentence_says_what_to_install(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "z3", None)
    code, out, err = run(capsys, "lint", write(tmp_path / "a.toml", a="x < 1.0"))
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert "pip install 'constraint-crdt[analysis]'" in err


@pytest.mark.processes
def test_a_node_is_asked_for_its_constraints_and_for_what_it_measures(capsys: Capture) -> None:
    with running_node() as node:
        asked = ("--node", node.url)
        run(capsys, "add", "a", "--when", "batery_percent > 20.0", *asked)
        Client(node.url).measure({"battery_percent": 50})
        code, out, _ = run(capsys, "lint", *asked)
    assert code == 1
    assert "misspelt: a: nothing else reads or measures batery_percent: is it battery_percent?" in out
