"""`constraint-crdt plan`: the table, JSON and the picture, and what it says to arguments that make no sense."""

import json
import re
import shlex
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from constraint_crdt.cli import main
from constraint_crdt.simulation import plan as planning
from tests.conftest import BUDGET

Capture = pytest.CaptureFixture[str]
DOCS = Path(__file__).parents[2] / "docs" / "how-to" / "plan.md"


@pytest.fixture(autouse=True)
def _few_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures are of less interest here than what is told."""
    if BUDGET != "nightly":
        monkeypatch.setattr(planning, "FEWEST_CHANGES", 2)
        monkeypatch.setattr(planning, "MOST_CHANGES", 4)
        monkeypatch.setattr(planning, "REPEATS", 2)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--nodes", "1"], "--nodes is a whole number from 2 to 10000, not '1'"),
        (["--nodes", "many"], "--nodes"),
        (["--sites", "0"], "--sites"),
        (["--nodes", "9", "--sites", "5"], "1 to 4 sites, not 5"),
        (["--constraints", "-3"], "--constraints"),
        (["--change-rate", "5"], "--change-rate is a rate, as in 5/min"),
        (["--change-rate", "5/day"], "--change-rate"),
        (["--link", "256kbit"], "--link is a rate and a delay one way, as in 256kbit/100ms"),
        (["--link", "256kB/100ms"], "--link"),
        (["--link", "100ms/256kbit"], "--link"),
        (["--link", "0kbit/1ms"], "8 bit/s at least"),
        (["--link", "1Mbit/0s"], "a delay above 0"),
        (["--link", "1Mbit/11s"], "at most 10 s"),
        (["--loss", "0.02"], "--loss is a share of packets"),
        (["--loss", "50%"], "up to, not including, 50%"),
        (["--judged", "101"], "0 to 100 judged constraints"),
        (["--nodes", "9", "--routers", "9"], "--routers"),
        (["--gossip-every", "soon"], "--gossip-every"),
        (["--cores", "0"], "--cores"),
        (["--sites", "2", "--cores", "2"], "either sites or cores"),
        (["--seed=-1"], "--seed"),
        (["--plot", "plan.gif"], "ends in .svg or .png"),
    ],
)
def test_misuse_is_one_line_and_two(flags: list[str], says: str, capsys: Capture) -> None:
    assert main(["plan", *flags]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert err.count("\n") == 1


@pytest.mark.slow
def test_a_plan_is_told(capsys: Capture) -> None:
    assert (
        main(["plan", "--nodes", "9", "--constraints", "5", "--change-rate", "2/min", "--link", "64kbit/0.3s", "--loss", "1%"]) == 0
    )
    out, err = capsys.readouterr()
    assert err == ""
    assert re.search(r"bytes/s of a node at rest, each way +\d+ B/s +computed", out)
    assert re.search(r"all nodes know a change after, p99 +[\d.]+ s +simulated", out)
    assert re.search(r"the link of a node is full +[\d,.]+ changes/min +[\d,.]+ times", out)
    assert "constraint-crdt node --role peer" in out


@pytest.mark.slow
def test_a_plan_as_json_and_picture(tmp_path: Path, capsys: Capture) -> None:
    picture = tmp_path / "plan.svg"
    flags = ["--nodes", "12", "--routers", "3", "--constraints", "5", "--link", "1Mbit/20ms", "--gossip-every", "2s"]
    assert main(["plan", *flags, "--json", "--plot", str(picture)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["works"]
    assert told["figures"]["memory"]["unit"] == "B"
    assert {each["source"] for each in told["figures"].values()} == {"simulated", "computed", "constant"}
    assert told["settings"] | {"lines": []} == {
        "gossip_every": 2.0, "request_timeout": 1.0, "role": "client", "routers": 3, "lines": [],
    }  # fmt: skip
    assert [each["reserve"] for each in told["breaks"] if each["reserve"] is not None]
    assert ET.fromstring(picture.read_bytes()).tag == "{http://www.w3.org/2000/svg}svg"
    assert "12 nodes, 5 constraints, 1 changes/min" in picture.read_text()


@pytest.mark.slow
def test_a_plan_that_does_not_work_ends_with_one(capsys: Capture) -> None:
    assert main(["plan", "--nodes", "40", "--link", "6kbit/1s"]) == 1
    out = capsys.readouterr().out
    assert "never" in out
    assert "broken" in out


@pytest.mark.long
def test_the_documented_command_runs(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    if BUDGET != "nightly":
        monkeypatch.setattr(planning, "REPEATS", 1)
        monkeypatch.setattr(planning, "MOST_CHANGES", 2)
    found = re.search(r"^constraint-crdt (plan .*)$", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    words = shlex.split(found[1].replace("--plot plan.svg", ""))
    assert main(words) == 0
    assert "2 in each site" in capsys.readouterr().out
