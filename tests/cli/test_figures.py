"""The commands on recent evaluations, counters and positions, against a real node."""

import json
from typing import Any

import msgspec
import pytest

from constraint_crdt.cli import main
from constraint_crdt.client import Client
from constraint_crdt.operations.counts import RatesReport

Capture = pytest.CaptureFixture[str]


def run(capsys: Capture, url: str, *argv: str) -> tuple[int, str, str]:
    code = main([argv[0], "--node", url, *argv[1:]])
    return code, *capsys.readouterr()


def read(capsys: Capture, url: str, *argv: str) -> Any:
    code, out, err = run(capsys, url, *argv, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def words(line: str) -> list[str]:
    return line.split()


def test_rate_says_how_often_recently(node_url: str, capsys: Capture) -> None:
    run(capsys, node_url, "add", "rated")
    run(capsys, node_url, "record", "--satisfied", "60", "--violations", "20", "--constraint", "rated")
    code, out, err = run(capsys, node_url, "rate", "--half-life", "1h")
    assert (code, err) == (0, "")
    head, titles, *lines = out.splitlines()
    assert head == "recent judgements, where one counts half after 1h"
    assert words(titles) == words("constraint satisfied violated violated share satisfied/min violated/min")
    [rated] = [words(line) for line in lines if line.startswith("rated")]
    assert 59.0 < float(rated[1]) <= 60.0
    assert 19.0 < float(rated[2]) <= 20.0
    assert rated[3:5] == ["25.00", "%"]
    assert [words(line)[0] for line in lines][-1] == "all"

    code, out, _ = run(capsys, node_url, "rate", "rated", "--half-life", "300", "--by-node")
    assert code == 0
    _, titles, line = out.splitlines()
    assert words(titles) == words("constraint node satisfied violated violated share")
    assert words(line)[:2] == ["rated", "forge"]

    answer = read(capsys, node_url, "rate", "rated")
    assert (answer["half_life"], answer["tracked"]) == (60.0, [60.0, 300.0, 3600.0])
    assert answer["constraints"][0]["violated_share"] == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("argv", "code", "says"),
    [
        (("rate", "--half-life", "7m"), 2, "no half-life of 420 s is tracked here, but 60, 300, 3600 s: ask for one of these"),
        (("rate", "--half-life", "soon"), 2, "'soon' is not a length of time"),
        (("rate", "never-heard-of"), 1, "no constraint 'never-heard-of' is active"),
        (("counter", "never-moved"), 1, "there is no counter 'never-moved' yet"),
        (("counter", "x", "--by", "0"), 2, "a counter moves by a whole number other than 0"),
        (("counter", ""), 2, "a counter has a name"),
        (("counter", "n" * 257, "--by", "1"), 2, "the name of a counter must have 1 to 256 bytes"),
        (("counter", "x", "--by", "half"), 2, "--by"),
        (("position", "1"), 2, "'1' is no position: give two whole numbers"),
        (("position", "1", "2", "3"), 2, "'1 2 3' is no position"),
        (("position", "1", "b"), 2, "'1 b' is no position"),
        (("position", "2147483648", "0"), 2, "two 32-bit integer coordinates"),
    ],
)
def test_a_mistake_is_one_sentence(node_url: str, capsys: Capture, argv: tuple[str, ...], code: int, says: str) -> None:
    found, out, err = run(capsys, node_url, *argv)
    assert (found, out, err.count("\n")) == (code, "", 1)
    assert says in err


def test_counters_go_up_and_down(node_url: str, capsys: Capture) -> None:
    code, out, _ = run(capsys, node_url, "counter", "parts/left", "--by", "5")
    assert code == 0
    code, out, _ = run(capsys, node_url, "counter", "parts/left", "--by", "-8")
    assert (code, [words(line) for line in out.splitlines()]) == (
        0,
        [["counter", "parts/left"], ["value", "-3"], words("moves up by 5, down by 8"), words("by node forge -3")],
    )
    code, out, _ = run(capsys, node_url, "counters")
    header, *lines = out.splitlines()
    assert (code, words(header)) == (0, words("counter value up by down by nodes"))
    assert words("parts/left -3 5 8 1") in [words(line) for line in lines]
    stands = read(capsys, node_url, "counter", "parts/left")
    assert (stands["value"], stands["by_node"]) == (-3, {"forge": -3})
    assert stands in read(capsys, node_url, "counters")


def test_the_fleet_moves(node_url: str, capsys: Capture) -> None:
    assert run(capsys, node_url, "position") == (0, "no position is given yet: `position A B` gives one\n", "")
    code, out, _ = run(capsys, node_url, "position", "-3", "4")
    where, norm, written, _, titles, forge = out.splitlines()
    assert (code, words(where), words(norm)) == (0, ["position", "-3,", "4"], ["norm", "37"])
    assert words(written)[:3] == ["written", "by", "forge,"]
    assert words(titles) == words("node position norm steps away")
    assert words(forge) == ["forge", "-3,", "4", "37", "0"]
    assert run(capsys, node_url, "position")[1] == out
    assert read(capsys, node_url, "position")["position"] == [-3, 4]


def test_what_is_to_be_known_before_one_believes_the_numbers(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """Clocks that are off, and nodes that track other half-lives: one node alone cannot show them."""
    nothing = {"satisfied": 0.0, "violated": 0.0, "violated_share": None, "satisfied_per_minute": 0.0, "violated_per_minute": 0.0}
    answer = {
        "half_life": 90.0,
        "tracked": [90.0],
        "constraints": [],
        "total": {"constraint": None, **nothing, "by_node": {}},
        "untracked_by": ["anvil\x1b", "press"],
        "ahead": 2,
        "worst_skew": 3600.4,
        "steps_back": 1,
    }
    monkeypatch.setattr(Client, "do", lambda *_: msgspec.convert(answer, RatesReport))
    assert main(["rate"]) == 0
    head, _, every, *notes = capsys.readouterr().out.splitlines()
    assert head == "recent judgements, where one counts half after 90s"
    assert words(every)[:4] == ["all", "0.00", "0.00", "-"]
    assert notes == [
        r"without some of anvil\x1b, press: this half-life is not tracked there",
        "values from clocks ahead of this one: 2, by up to 3600 s; they count as of when they arrived",
        "times that the clock of this node was set back: 1; no time counts as passed then",
    ]
