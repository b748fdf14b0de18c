"""`constraint-crdt simulate`: scenarios, searches, histories again; and what it says to arguments that make no sense."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from constraint_crdt.cli import searching, simulating
from constraint_crdt.cli.main import main
from constraint_crdt.core.rows import Rows
from constraint_crdt.simulation.histories import History, to_json
from constraint_crdt.simulation.scenario import Run
from constraint_crdt.simulation.steps import Add, Member

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--nodes", "0"], "from 2 to 10000"),
        (["--nodes", "1"], "from 2 to 10000"),
        (["--nodes", "1e3"], "whole number"),
        (["--nodes=-5"], "whole number"),
        (["--nodes", "9" * 5000], "whole number"),
        (["--loss", "1.0"], "nothing would ever arrive"),
        (["--loss=-0.1"], "probability"),
        (["--loss", "nan"], "probability"),
        (["--loss", "much"], "probability"),
        (["--partition=-60s"], "--partition"),
        (["--partition", "0"], "--partition"),
        (["--partition", "40m"], "a partition lasts"),
        (["--churn", "5"], "5/min"),
        (["--churn", "x/min"], "5/min"),
        (["--churn", "999999999/s"], "churn"),
        (["--latency", "2s"], "below the interval"),
        (["--items", "0"], "--items"),
        (["--nodes", "5", "--items", "6"], "from 1 to 5"),
        (["--seed=-1"], "--seed"),
        (["--seeds", "0"], "--seeds"),
        (["--choice", "best"], "uniform, nearby, schedule"),
        (["--plot", "out.png"], ".svg"),
        (["--minutes", "1"], "--minutes"),
        (["--workers", "2"], "--workers"),
        (["--chaos", "--minutes", "0"], "--minutes"),
        (["--chaos", "--minutes", "nan"], "--minutes"),
        (["--chaos", "--workers", "0"], "--workers"),
        (["--chaos", "--workers", "1000"], "--workers"),
        (["--chaos", "--nodes", "5"], "leave out --nodes"),
        (["--chaos", "--replay", "x.json"], "one of the two"),
        (["--replay", "x.json", "--seed", "1"], "leave out --seed"),
        (["--replay", "/nowhere/x.json"], "cannot read"),
    ],
)
def test_misuse_is_one_line_and_two(flags: list[str], says: str, capsys: Capture) -> None:
    assert main(["simulate", *flags]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert err.count("\n") == 1


def test_a_scenario_is_told(capsys: Capture) -> None:
    assert main(["simulate", "--nodes", "12", "--loss", "0.1", "--partition", "6s", "--churn", "20/min", "--seed", "3"]) == 0
    out, err = capsys.readouterr()
    assert "12 nodes, 10% loss" in out
    assert "agreed       yes" in out
    assert "bound 4" in out
    assert "bytes" in out
    assert err == ""


def test_a_scenario_as_json_and_picture(tmp_path: Path, capsys: Capture) -> None:
    picture = tmp_path / "out.svg"
    assert main(["simulate", "--nodes", "9", "--seeds", "3", "--json", "--plot", str(picture)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [run["seed"] for run in told["runs"]] == [0, 1, 2]
    assert all(run["agreed"] and run["bound"] == 3 for run in told["runs"])
    assert picture.read_text().startswith("<svg ")


def test_seeds_give_a_distribution(capsys: Capture) -> None:
    assert main(["simulate", "--nodes", "6", "--seeds", "5"]) == 0
    out = capsys.readouterr().out
    assert "5, of which 5 agreed" in out
    assert "median" in out


def test_interrupted_it_prints_what_there_is(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    look = Run._look

    def interrupted(run: Run) -> object:
        if run._world.now > 2 * 10**9:
            raise KeyboardInterrupt
        return look(run)

    monkeypatch.setattr(Run, "_look", interrupted)
    assert main(["simulate", "--nodes", "8", "--partition", "30s"]) == simulating.INTERRUPTED
    out, err = capsys.readouterr()
    assert "agreed       no" in out
    assert "interrupted" in err


def test_a_search_counts_what_it_tried(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """Two histories cannot have every kind of fault: that is said, and no success."""
    assert main(["simulate", "--chaos", "--seeds", "2", "--seed", "40", "--json"]) == 1
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert told["histories"] == 2
    assert told["mutations"] >= 400
    assert told["violation"] is None
    assert told["never_fired"]
    assert all(kind in err for kind in told["never_fired"])


def test_a_search_stops_at_a_violation_and_its_file_replays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as planted:
        planted.setattr(Rows, "_act", lambda self, removal: None)
        assert main(["simulate", "--chaos", "--seed", "2"]) == 1
        err = capsys.readouterr().err
        assert "simulate --replay chaos-2.json" in err
        assert main(["simulate", "--replay", "chaos-2.json"]) == 1
        assert "state:" in capsys.readouterr().out
    assert main(["simulate", "--replay", "chaos-2.json"]) == 0
    assert "all is well now" in capsys.readouterr().out
    assert main(["simulate", "--replay", "chaos-2.json", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["violation"] is None


def test_a_search_in_processes_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = list(searching._parts(60, 4, 1e18, 2))
    assert sum(tally.histories for tally, _ in parts) == 4
    assert all(found is None for _, found in parts)


def test_other_files_are_no_histories(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "x.json"
    path.write_text("{}")
    assert main(["simulate", "--replay", str(path)]) == 2
    assert "simulate --chaos" in capsys.readouterr().err


def test_what_is_replayed_plays_no_tricks_with_the_terminal(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "x.json"
    step = Add(number=1, node="a", id="\x1b[2J")
    history = History(seed=1, invariant="x", sentence="\x1b[2J", members=(Member("a", 1),), steps=(step,))
    path.write_text(to_json(history))
    assert main(["simulate", "--replay", str(path)]) == 0
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.processes
def test_ctrl_c_ends_a_search_in_order() -> None:
    line = [sys.executable, "-m", "constraint_crdt", "simulate", "--chaos", "--minutes", "5"]
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}
    ) as process:
        try:
            assert process.stderr is not None
            process.stderr.readline()  # it says how far it is, so it is at work
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == searching.INTERRUPTED
    assert "histories" in out
    assert "Traceback" not in err
    assert "interrupted" in err
