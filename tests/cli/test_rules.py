"""The life of rules on the command line: decide, disable, history and the way back."""

import json
import re
from contextlib import closing
from datetime import UTC, datetime

import pytest

from constraint_crdt.cli import main
from constraint_crdt.client import Client

Capture = pytest.CaptureFixture[str]


def run(capsys: Capture, url: str, *argv: str) -> tuple[int, str, str]:
    code = main([argv[0], "--node", url, *argv[1:]])
    return code, *capsys.readouterr()


def test_the_exit_code_of_decide_is_the_decision(node_url: str, capsys: Capture) -> None:
    with closing(Client(node_url)) as client:
        client.add("speed", when="speed_mps <= 1.5", severity="critical")
        client.add("near", when="distance_m > 0.5", if_unknown="violated")
        code, out, err = run(capsys, node_url, "decide", "speed_mps=1.0", "distance_m=1")
        assert (code, err) == (0, "")
        assert out.startswith("allowed: 0 violated, 0 undecided, 2 hold (decision ")
        code, out, err = run(capsys, node_url, "decide", "speed_mps=2.0")
        assert (code, err) == (1, "")
        assert out.startswith("NOT ALLOWED: 1 violated, 1 undecided, 0 hold")
        assert "speed_mps = 2.0, 0.5 above the limit (33.3 %)" in out
        assert "unknown, counts as violated" in out
        assert "no measurement of distance_m" in out
        code, out, _ = run(capsys, node_url, "decide", "speed_mps=2.0", "--json")
        assert (code, json.loads(out)["allowed"]) == (1, False)
        assert run(capsys, node_url, "decide", "speed")[0] == 2
        assert "2.0" in run(capsys, node_url, "decisions")[1]
        lines = run(capsys, node_url, "decisions", "--json")[1].splitlines()
        assert [json.loads(line)["allowed"] for line in lines][-3:] == [True, False, False]
        assert [each.id for each in client.decisions()] == [json.loads(line)["id"] for line in lines]
        assert client.status().satisfied == client.status().violations == 0
        client.remove("speed")
        client.remove("near")


def test_all_is_disabled_only_after_a_question_and_shown_loudly(
    node_url: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Client(node_url)) as client:
        client.add("speed", when="speed_mps <= 1.5")
        assert run(capsys, node_url, "disable", "speed")[0] == 2, "--why is needed"
        assert run(capsys, node_url, "disable", "--why", "noise")[:2] == (2, "")
        for words in (["disable", "", "--why", "noise"], ["enable", ""], ["revert", ""]):
            assert run(capsys, node_url, *words)[0] == 2, "an unset variable of a shell is not all of them"
        assert client.status().all_disabled is None
        code, _, err = run(capsys, node_url, "disable", "nope", "--why", "noise")
        assert (code, err) == (1, "constraint-crdt disable: no constraint 'nope' is active here\n")
        code, out, _ = run(capsys, node_url, "disable", "speed", "--for", "1h", "--why", "noise")
        assert (code, out) == (0, "disabled: speed\n")
        out = run(capsys, node_url, "constraints")[1]
        assert "DISABLED by local on" in out
        assert "ends in 60 min: noise" in out
        assert "nowhere: DISABLED by local" in run(capsys, node_url, "explain", "speed")[1]
        assert "DISABLED" in run(capsys, node_url, "status")[1]
        assert run(capsys, node_url, "enable", "speed")[1] == "enabled: speed\n"
        assert run(capsys, node_url, "enable", "speed")[1] == "none of them was disabled\n"
        monkeypatch.setattr("sys.stdin.isatty", lambda: False)
        code, _, err = run(capsys, node_url, "disable", "--all", "--why", "storm")
        assert (code, err) == (2, "constraint-crdt disable: there is no terminal to ask on: give --yes\n")
        monkeypatch.setattr("sys.stdin.isatty", lambda: True)
        monkeypatch.setattr("sys.stdin.readline", lambda: "no\n")
        assert run(capsys, node_url, "disable", "--all", "--why", "storm")[0] == 1
        assert client.status().all_disabled is None
        monkeypatch.setattr("sys.stdin.readline", lambda: "yes\n")
        assert run(capsys, node_url, "disable", "--all", "--why", "storm")[1].startswith("all constraints are disabled")
        assert "NOTHING IS EVALUATED" in run(capsys, node_url, "status")[1]
        assert "0 hold, 1 DISABLED and not asked (" in run(capsys, node_url, "decide", "speed_mps=99")[1]
        assert (run(capsys, node_url, "set", "limit", "")[0], client.parameters()) == (2, [])
        assert run(capsys, node_url, "enable", "--all")[0] == 0
        assert "because storm" in run(capsys, node_url, "events")[1]
        client.remove("speed")


def test_a_constraint_of_mode_audit_forbids_nothing(node_url: str, capsys: Capture) -> None:
    assert run(capsys, node_url, "add", "tried", "--when", "w < 1")[0] == 0
    assert run(capsys, node_url, "decide", "w=5")[0] == 1
    assert run(capsys, node_url, "mode", "tried", "audit", "--why", "first a week of it")[1] == (
        "tried: audit, was enforce\n  loosens: less follows from a violation\n"
    )
    assert run(capsys, node_url, "mode", "tried", "audit")[1] == "tried: audit\n"
    code, out, _ = run(capsys, node_url, "decide", "w=5")
    assert (code, "tried" in out) == (0, True)
    assert "counted apart" in run(capsys, node_url, "status")[1]
    assert run(capsys, node_url, "mode", "tried", "loud")[0] == 2
    assert run(capsys, node_url, "mode", "nope", "audit")[0] == 1
    assert run(capsys, node_url, "remove", "tried")[0] == 0


def test_the_history_and_the_way_back(node_url: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(capsys, node_url, "add", "pace", "--when", "v < 1", "--why", "größer als nötig, 100 %")[0] == 0
    assert "größer als nötig, 100 %" in run(capsys, node_url, "explain", "pace")[1]
    assert run(capsys, node_url, "add", "pace", "--when", "v < 2")[0] == 0
    at = datetime.now(UTC)
    assert run(capsys, node_url, "remove", "pace", "--why", "not needed")[0] == 0
    out = run(capsys, node_url, "history", "pace")[1]
    assert re.sub(r"(?m)^2\S+ \S+  | on \S+?(?=:|$)", "", out) == (
        "add pace, version 1, by local: größer als nötig, 100 %\n    + when: v < 1\n    + severity: warning\n"
        "edit pace, version 2, by local\n    - when: v < 1\n    + when: v < 2\n"
        "remove pace, version 3, by local: not needed\n    - when: v < 2\n    - severity: warning\n"
    )
    assert "not needed" in run(capsys, node_url, "audit")[1]
    assert "because not needed" in run(capsys, node_url, "events")[1]
    assert run(capsys, node_url, "history", "nope")[1] == "no change of nope is kept\n"
    assert run(capsys, node_url, "revert", "pace", "--dry-run")[1] == "pace: added\nnothing was changed yet\n"
    assert run(capsys, node_url, "revert", "pace", "--to", "1", "--why", "back")[1] == "pace: added\n"
    assert "v < 1" in run(capsys, node_url, "constraints")[1]
    code, _, err = run(capsys, node_url, "revert", "pace", "--to", "9")
    assert (code, err) == (1, "constraint-crdt revert: there is no version 9 of pace alone: there are 1, 2, 3, 4\n")
    for wrong in (["pace", "--to", "10m"], ["--all"], [], ["pace", "--all", "--to", "1m"]):
        assert run(capsys, node_url, "revert", *wrong)[0] == 2
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("sys.stdin.readline", lambda: "yes\n")
    out = run(capsys, node_url, "revert", "--all", "--to", at.isoformat())[1]
    step = "pace: replaced\n  loosens: it allows v = 1.0, which was forbidden\n"
    assert out == f"{step}nothing was changed yet\n{step}"
    assert "v < 2" in run(capsys, node_url, "constraints")[1]
    entries = json.loads(run(capsys, node_url, "history", "pace", "--since", "1h", "--json")[1])
    assert [each["operation"] for each in entries] == ["add", "edit", "remove", "revert", "revert"]
    for value in ("1.5", "0.8"):
        assert run(capsys, node_url, "set", "top_speed", value, "--on", "zone=a")[0] == 0
    back = ("revert", "top_speed", "--kind", "parameter")
    assert run(capsys, node_url, *back, "--on", "zone=a")[1] == "parameter top_speed on zone=a: replaced\n"
    assert "no earlier version of parameter top_speed is kept" in run(capsys, node_url, *back)[2]
    assert "top_speed on zone=a (parameter), version 4, by local" in run(capsys, node_url, "history", "top_speed on zone=a")[1]
    out = run(capsys, node_url, "revert", "--all", "--to", at.isoformat())[1]
    assert out.splitlines()[-1] == "parameter top_speed on zone=a: removed"
    assert run(capsys, node_url, "remove", "pace")[0] == 0
