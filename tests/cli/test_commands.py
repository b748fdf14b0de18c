"""The client commands against a real node: what they do, print, and return. Each test has ids of its own on one node."""

import io
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from constraint_crdt.cli import main
from constraint_crdt.cli.output import NO_READER
from tests.cli.process import command, environment, running_node

Capture = pytest.CaptureFixture[str]


def run(capsys: Capture, url: str, *argv: str) -> tuple[int, str, str]:
    code = main([argv[0], "--node", url, *argv[1:]])
    return code, *capsys.readouterr()


def read(capsys: Capture, url: str, *argv: str) -> Any:
    code, out, err = run(capsys, url, *argv, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def constraint(capsys: Capture, url: str, id_: str) -> Any:
    return next((each for each in read(capsys, url, "constraints") if each["id"] == id_), None)


def test_add_says_what_it_did(node_url: str, capsys: Capture) -> None:
    flags = ["a/1 %é", "--when", "t < 85.0", "--severity", "critical", "--about", "hot"]
    assert run(capsys, node_url, "add", *flags) == (0, "a/1 %é: added\n", "")
    assert run(capsys, node_url, "add", *flags) == (0, "a/1 %é: unchanged: it is active with this definition\n", "")
    code, out, _ = run(capsys, node_url, "add", "a/1 %é", "--when", "t < 80.0")
    lines = ["a/1 %é: replaced: it was active with another definition", "  when: t < 85.0 -> t < 80.0"]
    assert (code, out.splitlines()) == (0, [*lines, "  tightens: it forbids t = 80.0, which was allowed"])
    assert constraint(capsys, node_url, "a/1 %é")["when"] == "t < 80.0"
    assert read(capsys, node_url, "add", "a/1 %é", "--when", "t < 80.0") == {"id": "a/1 %é", "change": "unchanged"}
    assert run(capsys, node_url, "remove", "a/1 %é") == (0, "a/1 %é: removed\n", "")
    assert constraint(capsys, node_url, "a/1 %é") is None


def test_wrong_cel_is_refused_with_its_column(node_url: str, capsys: Capture) -> None:
    code, out, err = run(capsys, node_url, "add", "wrong", "--when", "x * 2 < 5")
    assert (code, out) == (2, "")
    assert "column 3" in err
    assert "x * 2.0" in err
    assert err.count("\n") == 1
    assert constraint(capsys, node_url, "wrong") is None


def test_removing_an_unknown_id_fails(node_url: str, capsys: Capture) -> None:
    assert run(capsys, node_url, "remove", "nope") == (1, "", "constraint-crdt remove: no constraint 'nope' is active\n")


def test_an_id_that_looks_like_a_flag_goes_after_two_dashes(node_url: str, capsys: Capture) -> None:
    assert run(capsys, node_url, "add", "--", "--odd")[:2] == (0, "--odd: added\n")
    assert run(capsys, node_url, "remove", "--", "--odd")[:2] == (0, "--odd: removed\n")


def test_record_counts(node_url: str, capsys: Capture) -> None:
    run(capsys, node_url, "add", "recorded")
    code, out, _ = run(capsys, node_url, "record", "--satisfied", "5", "--violations", "2", "--constraint", "recorded")
    assert (code, out) == (0, "recorded 5 satisfied, 2 violated of recorded\n")
    report = constraint(capsys, node_url, "recorded")
    assert (report["satisfied"], report["violations"], report["by_node"]) == (5, 2, {"forge": [5, 2]})
    code, _, err = run(capsys, node_url, "record", "--satisfied", "1", "--constraint", "recordet")
    assert (code, err) == (1, "constraint-crdt record: no constraint 'recordet' is active (recorded may be meant)\n")
    code, _, err = run(capsys, node_url, "record", "--satisfied", str(2**70))
    assert code == 2
    assert err.count("\n") == 1


@pytest.mark.processes
def test_check_ends_with_a_code_for_scripts_where_asked(capsys: Capture) -> None:
    with running_node() as node:
        for id_, when, mode in (("enforced", "script_t < 85.0", "enforce"), ("audited", "script_u < 1.0", "audit")):
            run(capsys, node.url, "add", id_, "--when", when, "--mode", mode)
        for values, code in ((["script_t=91", "script_u=2"], 121), (["script_t=1", "script_u=2"], 0), (["script_t=hot"], 122)):
            assert run(capsys, node.url, "check", "--exit-code", *values)[0] == code
        run(capsys, node.url, "measure", "script_t=91")
        assert run(capsys, node.url, "check", "--exit-code")[0] == 121
        assert run(capsys, node.url, "check")[0] == 2


def test_check_evaluates_and_ends_well_whatever_it_finds(node_url: str, capsys: Capture) -> None:
    run(capsys, node_url, "add", "check1", "--when", "check_t < 85.0 && check_name == 'true story' && check_on")
    values = ["check_t=91", "check_name=true story", "check_on=true"]
    code, out, _ = run(capsys, node_url, "check", *values)
    assert code == 0
    assert ["check1", "violated", "violated"] in [line.split()[:3] for line in out.splitlines()]
    evaluations = read(capsys, node_url, "check", *values[1:], "check_t=1e1")["evaluations"]
    assert ("check1", "satisfied", "") in [(each["constraint"], each["verdict"], each["reason"]) for each in evaluations]
    [unknown] = [e for e in read(capsys, node_url, "check", "check_t=1")["evaluations"] if e["constraint"] == "check1"]
    assert unknown["verdict"] == "unknown"
    assert "check_name" in unknown["reason"]
    report = constraint(capsys, node_url, "check1")
    assert (report["satisfied"], report["violations"]) == (1, 1)


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("7", "v == 7.0"),
        ("-1e3", "v < 0.0"),
        ("false", "!v"),
        ('"7"', "v == '7'"),
        ("7 apples", "v == '7 apples'"),
        ("[1]", "v == '[1]'"),
    ],
)
def test_values_are_json_scalars_or_else_texts(node_url: str, capsys: Capture, text: str, when: str) -> None:
    run(capsys, node_url, "add", "valued", "--when", when)
    evaluations = read(capsys, node_url, "check", f"v={text}")["evaluations"]
    assert ("valued", "satisfied", "") in [(each["constraint"], each["verdict"], each["reason"]) for each in evaluations]
    run(capsys, node_url, "remove", "valued")


def test_readings_have_what_the_issue_asks_for(node_url: str, capsys: Capture) -> None:
    run(capsys, node_url, "add", "listed")
    status = read(capsys, node_url, "status")
    wanted = "node replica fleet hash constraints_hash constraints satisfied violations satisfaction_rate peers converged rounds"
    assert set(wanted.split()) <= status.keys()
    assert len(bytes.fromhex(status["hash"])) == len(bytes.fromhex(status["constraints_hash"])) == 32
    wanted = "id when severity added_by satisfied violations unknown"
    assert set(wanted.split()) <= constraint(capsys, node_url, "listed").keys()
    [node] = read(capsys, node_url, "nodes")
    assert {"node", "live", "satisfied", "violations", "position", "same_constraints"} <= node.keys()
    assert (node["node"], node["live"]) == ("forge", True)


def test_people_read_the_same(node_url: str, capsys: Capture) -> None:
    run(capsys, node_url, "add", "read by people", "--when", "people > 0.0")
    code, out, _ = run(capsys, node_url, "status")
    assert code == 0
    assert out.startswith("node         forge")
    code, out, _ = run(capsys, node_url, "constraints")
    assert code == 0
    header, *lines = out.splitlines()
    assert header.split()[:3] == ["id", "severity", "when"]
    assert any(line.startswith("read by people") and "people > 0.0" in line for line in lines)
    code, out, _ = run(capsys, node_url, "nodes")
    assert (code, out.splitlines()[1].split()[:2]) == (0, ["forge", "yes"])


def test_names_cannot_play_with_the_terminal(node_url: str, capsys: Capture) -> None:
    run(capsys, node_url, "add", "esc\x1b[2J\nfake", "--when", "esc > 0.0")
    code, out, _ = run(capsys, node_url, "constraints")
    assert code == 0
    assert "\x1b" not in out
    assert r"esc\x1b[2J\nfake" in out
    assert "\x1b" not in run(capsys, node_url, "remove", "esc\x1b[2J\nfake")[1]


def test_the_terminal_gets_a_drawn_table(node_url: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    run(capsys, node_url, "add", "[bold]drawn", "--when", "drawn > 0.0")

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "140")
    assert main(["constraints", "--node", node_url]) == 0
    assert "│ [bold]drawn" in terminal.getvalue()
    assert "\x1b[31m" not in terminal.getvalue()


@pytest.mark.long
@pytest.mark.processes
def test_a_reader_that_goes_away_is_no_fault(node_url: str) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "wb") as out:
        line = command("constraints", "--node", node_url, "--json")
        done = subprocess.run(line, check=False, stdout=out, stderr=subprocess.PIPE, text=True, env=environment())
    assert (done.returncode, done.stderr) == (NO_READER, "")
