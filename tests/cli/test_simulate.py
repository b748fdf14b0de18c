"""`constraint-crdt simulate`: scenarios, searches, histories again; and what it says to arguments that make no sense."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import PIL
import pytest
from PIL import Image

from constraint_crdt.cli import main
from constraint_crdt.cli import simulate as searching
from constraint_crdt.cli import simulate as simulating
from constraint_crdt.cli.output import INTERRUPTED, sentence
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.simulation.histories import History, to_json
from constraint_crdt.simulation.scenario import Report, Scenario, ScenarioRun
from constraint_crdt.simulation.steps import Add, NodeStart

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
        (["--plot", "out.jpg"], ".svg or .png"),
        (["--plot", "out"], ".svg or .png"),
        (["--plot", "-"], ".svg or .png"),
        (["--plot", "out.svg.gz"], ".svg or .png"),
        (["--chaos", "--plot", "out.png"], "leave out --plot"),
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
        (["--nodes", "5", "--sites", "6"], "--sites"),
        (["--chaos", "--sites", "11"], "--sites"),
        (["--chaos", "--site-latency", "1ms"], "leave out --site-latency"),
        (["--sites", "2", "--choice", "nearby"], "by their site"),
        (["--replay", "x.json", "--sites", "2"], "leave out --sites"),
    ],
)
def test_misuse_is_one_line_and_two(flags: list[str], says: str, capsys: Capture) -> None:
    assert main(["simulate", *flags]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert err.count("\n") == 1


@pytest.mark.slow
def test_a_scenario_is_told(capsys: Capture) -> None:
    assert main(["simulate", "--nodes", "12", "--loss", "0.1", "--partition", "6s", "--churn", "20/min", "--seed", "3"]) == 0
    out, err = capsys.readouterr()
    assert "12 nodes, 10% loss" in out
    assert "agreed       yes" in out
    assert "bound 4" in out
    assert "bytes" in out
    assert err == ""


@pytest.mark.slow
def test_a_scenario_as_json_and_picture(tmp_path: Path, capsys: Capture) -> None:
    picture = tmp_path / "out.svg"
    assert main(["simulate", "--nodes", "9", "--seeds", "3", "--json", "--plot", str(picture)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [run["seed"] for run in told["runs"]] == [0, 1, 2]
    assert all(run["agreed"] and run["bound"] == 3 for run in told["runs"])
    assert "9 nodes, 0% loss, seed 0: " in picture.read_text()  # the first


@pytest.mark.parametrize("name", ["out.svg", "OUT.SVG"])
def test_a_picture_in_svg(name: str, tmp_path: Path, capsys: Capture) -> None:
    assert main(["simulate", "--nodes", "5", "--plot", str(tmp_path / name)]) == 0
    assert ET.fromstring((tmp_path / name).read_bytes()).tag == "{http://www.w3.org/2000/svg}svg"
    assert "agreed       yes" in capsys.readouterr().out


@pytest.mark.long
@pytest.mark.parametrize("name", ["out.png", "Out.PNG"])
def test_a_picture_in_png(name: str, tmp_path: Path, capsys: Capture) -> None:
    assert main(["simulate", "--nodes", "5", "--plot", str(tmp_path / name)]) == 0
    with Image.open(tmp_path / name) as image:
        assert (image.format, image.size) == ("PNG", (1520, 860))
        image.load()  # it is whole
    assert "agreed       yes" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.fixture
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_scenario: Scenario) -> ScenarioRun:
        raise AssertionError("the simulation began")

    monkeypatch.setattr(simulating, "ScenarioRun", run)


def refusal(capsys: Capture) -> str:
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err.removeprefix("constraint-crdt simulate: ").removesuffix("\n")


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize("ending", [".svg", ".png"])
def test_a_picture_that_cannot_be_written_is_refused_before_the_fleet_runs(ending: str, tmp_path: Path, capsys: Capture) -> None:
    folder, file = tmp_path / f"folder{ending}", tmp_path / "file"
    folder.mkdir()
    file.touch()
    for path, says in (
        (folder, "it is a directory; name a file in it"),
        (tmp_path / "missing" / f"out{ending}", f"there is no directory {tmp_path / 'missing'}"),
        (file / f"out{ending}", "Not a directory"),
        (tmp_path / ("x" * 300 + ending), "File name too long"),
        (tmp_path / f"zero\0{ending}", "null byte"),
    ):
        assert main(["simulate", "--plot", str(path)]) == 1
        said = refusal(capsys)
        assert said.startswith(sentence(f"cannot write {path}: "))
        assert says in said
    assert sorted(tmp_path.iterdir()) == [file, folder]


@pytest.mark.long
@pytest.mark.processes
def test_a_picture_without_permission_is_refused(tmp_path: Path) -> None:
    """In a process that gives its rights away right before it looks, for root has them all."""
    tmp_path.chmod(0o500)
    code = (
        "import os, sys\n"
        "from constraint_crdt.cli import main, simulate\n"
        "plotter, simulate.ScenarioRun = simulate.plotter, None\n"
        "def plotter_without_rights(name):\n"
        "    if not os.getuid(): os.setuid(65534)\n"
        "    return plotter(name)\n"
        "simulate.plotter = plotter_without_rights\n"
        "sys.exit(main())\n"
    )
    line = [sys.executable, "-c", code, "simulate", "--plot", str(tmp_path / "out.svg")]
    told = subprocess.run(line, check=False, capture_output=True, text=True, timeout=30)
    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr == f"constraint-crdt simulate: cannot write {tmp_path / 'out.svg'}: Permission denied\n"


def test_what_was_found_out_is_told_even_if_the_picture_fails_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    print_report = simulating._print_report

    def remove_and_print(report: Report) -> None:
        folder.rmdir()
        print_report(report)

    monkeypatch.setattr(simulating, "_print_report", remove_and_print)
    assert main(["simulate", "--nodes", "5", "--plot", str(folder / "out.svg")]) == 1
    out, err = capsys.readouterr()
    assert "agreed       yes" in out
    assert err == f"constraint-crdt simulate: cannot write {folder / 'out.svg'}: No such file or directory\n"


@pytest.mark.long
@pytest.mark.processes
def test_without_pillow_svg_is_drawn_and_png_refused(tmp_path: Path) -> None:
    code = "import sys; sys.modules['PIL'] = None; from constraint_crdt.cli import main; sys.exit(main())"

    def simulate(name: str) -> tuple[int, str, str]:
        line = [sys.executable, "-c", code, "simulate", "--nodes", "5", "--plot", name]
        told = subprocess.run(line, check=False, capture_output=True, text=True, timeout=60, cwd=tmp_path)
        return told.returncode, told.stdout, told.stderr

    needs = "--plot out.png needs Pillow: pip install 'constraint-crdt[png]', or name a file that ends in .svg"
    assert simulate("out.png") == (1, "", f"constraint-crdt simulate: {needs}\n")
    ended, out, err = simulate("out.svg")
    assert (ended, err) == (0, "")
    assert "agreed       yes" in out
    assert [path.name for path in tmp_path.iterdir()] == ["out.svg"]


@pytest.mark.usefixtures("nothing_runs")
def test_pillow_that_is_too_old_is_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(PIL, "__version__", "9.4.0")
    assert main(["simulate", "--plot", str(tmp_path / "out.png")]) == 1
    assert "needs Pillow: pip install 'constraint-crdt[png]'" in refusal(capsys)


@pytest.mark.slow
def test_seeds_give_a_distribution(capsys: Capture) -> None:
    assert main(["simulate", "--nodes", "6", "--seeds", "5"]) == 0
    out = capsys.readouterr().out
    assert "5, of which 5 agreed" in out
    assert "median" in out


@pytest.mark.slow
def test_interrupted_it_prints_what_there_is(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    look = ScenarioRun._look

    def interrupted(run: ScenarioRun) -> object:
        if run._world.now > 2 * 10**9:
            raise KeyboardInterrupt
        return look(run)

    monkeypatch.setattr(ScenarioRun, "_look", interrupted)
    assert main(["simulate", "--nodes", "8", "--partition", "30s"]) == INTERRUPTED
    out, err = capsys.readouterr()
    assert "agreed       no" in out
    assert "interrupted" in err


@pytest.mark.long
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


@pytest.mark.long
def test_a_search_stops_at_a_violation_and_its_file_replays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as planted:
        planted.setattr(Rows, "_apply_removal", lambda self, removal: None)
        assert main(["simulate", "--chaos", "--seed", "2"]) == 1
        err = capsys.readouterr().err
        assert "simulate --replay chaos-2.json" in err
        assert main(["simulate", "--replay", "chaos-2.json"]) == 1
        assert "state:" in capsys.readouterr().out
    assert main(["simulate", "--replay", "chaos-2.json"]) == 0
    assert "all is well now" in capsys.readouterr().out
    assert main(["simulate", "--replay", "chaos-2.json", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["violation"] is None


@pytest.mark.long
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
    history = History(seed=1, invariant="x", sentence="\x1b[2J", members=(NodeStart("a", 1),), steps=(step,))
    path.write_text(to_json(history))
    assert main(["simulate", "--replay", str(path)]) == 0
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.long
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
    assert process.returncode == INTERRUPTED
    assert "histories" in out
    assert "Traceback" not in err
    assert "interrupted" in err
