"""Verdicts as people read them: states with their clocks, margins, shares of the time; in `constraints`, `explain` and `check`."""

import json
import re
from argparse import Namespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt.cli import main
from constraint_crdt.client import Client
from constraint_crdt.expression import compile_expression
from constraint_crdt.expression.temporal import margin
from constraint_crdt.operations.constraints import (
    ConstraintReport,
    DefinitionReport,
    ListConstraints,
    ViolatedNode,
    show_constraints,
    show_verdict,
    show_violated,
)
from constraint_crdt.operations.evidence import (
    MOST_TOLD,
    ExplainConstraint,
    ExplainReport,
    StandingDefinition,
    ViolationReport,
    show_explain,
)
from constraint_crdt.operations.operation import Table, show_length, show_margin, show_share, show_state, show_values
from constraint_crdt.types.verdicts import input_texts

Capture = pytest.CaptureFixture[str]

NOW = 1_000.0
NS = 10**9
SPEED = {"speed_mps": "9.0"}


def run(capsys: Capture, url: str, *argv: str) -> tuple[int, str, str]:
    code = main([argv[0], "--node", url, *argv[1:]])
    return code, *capsys.readouterr()


def violated(node: str, since: int | None = 988 * NS, **fields: Any) -> ViolatedNode:
    told: dict[str, Any] = {
        "values": SPEED,
        "margin": -7.5,
        "margin_share": -5.0,
        "margin_variable": "speed_mps",
        "reason": "",
        "by_default": False,
    }
    return ViolatedNode(node=node, state="violated", since=since, **(told | fields))


def report(**fields: Any) -> ConstraintReport:
    definition = DefinitionReport(
        when="speed_mps <= 1.5", severity="warning", about=None, on={}, added_by="a", added_at=None, expires_at=None
    )
    told: dict[str, Any] = {
        "id": "speed", "when": "speed_mps <= 1.5", "severity": "warning", "about": None, "on": {}, "added_by": "a",
        "added_at": None, "expires_at": None, "applies_here": True, "conflict": False, "definitions": (definition,),
        "satisfied": 1, "violations": 2, "unknown": 0, "verdict": None, "reason": "", "by_node": {},
    }  # fmt: skip
    return ConstraintReport(**(told | fields))


def row(found: ConstraintReport) -> dict[str, object]:
    table = show_constraints([found], ListConstraints(), Namespace())
    return dict(zip([each.title for each in table.columns], table.rows[0], strict=True))


@pytest.mark.parametrize(
    ("when", "values", "text"),
    [
        ("speed <= 1.5", {"speed": 9.0}, "speed = 9.0, 7.5 above the limit (500 %)"),
        ("speed < 1.5", {"speed": 1.0}, "speed = 1.0, 0.5 below the limit (33.3 %)"),
        ("battery >= 20", {"battery": 5}, "battery = 5, 15 below the limit (75 %)"),
        ("ping_ms < 20.0", {"ping_ms": 250.0}, "ping_ms = 250.0, 230 above the limit (1150 %)"),
        ("speed <= 1.0", {"speed": 1e9}, "speed = 1000000000.0, 1e+09 above the limit (1e+11 %)"),
        ("battery > -20", {"battery": -15}, "battery = -15, 5 above the limit (25 %)"),
        ("speed <= 1.5", {"speed": 1.5}, "speed = 1.5, at the limit"),
        ("speed <= 0.0", {"speed": 3.0}, "speed = 3.0, 3 beyond the limit"),
        ("speed * 2.0 <= 3.0", {"speed": 9.0}, "speed = 9.0, 15 beyond the limit (500 %)"),
        ("speed <= limit", {"speed": 9.0, "limit": 2.0}, "speed = 9.0, 7 beyond the limit; limit = 2.0"),
        ("robot.speed <= 1.5", {"robot": {"speed": 1.0}}, 'robot.speed, 0.5 within the limit (33.3 %); robot = {"speed":1.0}'),
        ("a <= 1.0 && b <= 1.0", {"a": 3.0, "b": 2.0}, "a = 3.0, 2 above the limit (200 %); b = 2.0"),
        ("name == 'x'", {"name": "y"}, 'name = "y"'),
    ],
)
def test_a_margin_is_told_with_the_side_of_the_threshold(when: str, values: dict[str, object], text: str) -> None:
    found = margin(compile_expression(when), values)
    variable = found.variable if found else None
    distance, share = (found.value, found.share) if found else (None, None)
    assert show_values(dict(input_texts(values, variable)), distance, share, variable) == text


@given(
    st.floats(-1e6, 1e6).filter(lambda each: abs(each) > 1e-3),
    st.floats(-1e6, 1e6),
    st.sampled_from(("<=", "<", ">=", ">")),
)
def test_a_side_that_is_told_is_the_right_one(threshold: float, value: float, operator: str) -> None:
    found = margin(compile_expression(f"x {operator} {threshold!r}"), {"x": value})
    assert found is not None
    told = show_margin({"x": repr(value)}, *found)
    if " above " in told:
        assert value > threshold
    elif " below " in told:
        assert value < threshold
    else:
        assert re.search("at the limit|beyond|within", told)


@pytest.mark.parametrize(
    ("state", "times", "text"),
    [
        ("pending", {"for_": 30.0}, "pending 12 s of 30 s"),
        ("pending", {"for_": 5.0}, "pending 5 s of 5 s"),
        ("pending", {"for_": 120.0}, "pending 12 s of 2 min"),
        ("pending", {}, "pending"),
        ("clearing", {"clear_after": 0.5}, "clearing (0.5 s)"),
        ("violated", {"for_": 30.0}, "violated"),
        ("holds", {}, "holds"),
    ],
)
def test_a_state_is_told_with_its_clock(state: str, times: dict[str, float], text: str) -> None:
    assert show_state(state, 988 * NS, NOW, **times) == text


def test_shares_and_lengths_are_never_rounded_to_all_or_nothing() -> None:
    assert [show_share(each) for each in (None, 0.0, 0.00001, 0.9993, 0.99999, 1.0)] == [
        "-", "0.00 %", "< 0.01 %", "99.93 %", "> 99.99 %", "100.00 %",
    ]  # fmt: skip
    assert [show_length(each) for each in (-1.0, 12.7, 119.0, 125.0, 7200.0)] == ["0 s", "12 s", "119 s", "2 min", "2 h"]


def test_the_nodes_with_a_violation_are_named_up_to_a_bound_and_counted() -> None:
    sentence = "b since 12 s ago: speed_mps = 9.0, 7.5 above the limit (500 %)"
    assert show_verdict(violated("b"), NOW) == sentence
    by_default = violated("b", None, values={}, margin=None, reason="no measurement of x", by_default=True)
    assert show_verdict(by_default, NOW) == "b: no measurement of x; by default"
    assert show_violated([], 0, NOW) == "-"
    assert show_violated([violated("b")], 1, NOW) == sentence
    assert show_violated([violated("b"), violated("c")], 5, NOW) == f"{sentence}; also on c, 3 more"


def test_the_list_has_the_state_the_time_and_the_nodes_with_a_violation() -> None:
    assert row(report(state="holds", held=0.9993))["here"] == "holds"
    assert row(report(state="holds", held=0.9993))["held of the time"] == "99.93 %"
    assert "violated on" not in row(report(state="holds"))
    assert str(row(report(state="violated", violated_on=(violated("b"),), violated_now=1))["violated on"]).startswith("b since ")
    assert row(report(state="unknown", by_default=True))["here"] == "unknown, by default"
    assert row(report(state="off"))["here"] == "-"
    assert row(report(verdict="satisfied"))["here"] == "satisfied", "a node of 0.1.0 tells no state"
    assert row(report(state="off", applies_here=False))["here"] == "not for it"


def reported(node: str, state: str | None, **fields: Any) -> ViolationReport:
    told: dict[str, Any] = {
        "live": True, "violated": None, "since": None, "last": None, "exact": state is not None, "satisfied": 1, "violations": 1,
        "violated_per_minute": 0.0, "violated_share": None,
    }  # fmt: skip
    return ViolationReport(node=node, state=state, **(told | fields))


def explained(*violations: ViolationReport, clear_when: str | None = None) -> tuple[list[str], dict[str, str]]:
    """The sentences on verdicts, and the column `now` by node."""
    definition = StandingDefinition(
        dot="a~1:1", when="x < 1", severity="warning", about=None, on={}, added_by="a", added_at=None, known_since=None,
        expires_at=None, expired=False, for_=30.0, clear_when=clear_when,
    )  # fmt: skip
    report = ExplainReport(
        id="x", active=True, conflict=False, definitions=(definition,), removals=(), violations=violations, lately=(), coverage=None
    )
    view = show_explain(report, ExplainConstraint(id="x"), Namespace())
    assert isinstance(view, list)
    _, _, *sentences, table = view
    assert isinstance(table, Table)
    return [str(each) for each in sentences], {str(line[0]): str(line[1]) for line in table.rows}


def test_a_violation_within_the_limit_is_explained_by_hysteresis() -> None:
    within = {"values": {"x": "0.9"}, "margin": 0.1, "margin_share": 0.1, "margin_variable": "x"}
    beyond = {"values": {"x": "1.5"}, "margin": -0.5, "margin_share": -0.5, "margin_variable": "x"}
    told = [reported("a", "violated", **within), reported("b", "violated", **beyond), reported("c", "clearing", **within)]
    sentences, _ = explained(*told, clear_when="x < 0.8")
    assert sentences == [
        "violated on a: x = 0.9, 0.1 below the limit (10 %); `clear_when` does not hold",
        "violated on b: x = 1.5, 0.5 above the limit (50 %)",
        "clearing on c: x = 0.9, 0.1 below the limit (10 %)",
    ]
    assert not any("clear_when" in sentence for sentence in explained(*told)[0])


def test_an_explanation_has_a_sentence_for_what_needs_an_eye_the_most_severe_and_longest_first() -> None:
    sentences, now = explained(
        reported("a", "holds", violated=False),
        reported("b", "violated", since=2, reason="no measurement of x", by_default=True),
        reported("c", "unknown", reason="no measurement of x"),
        reported("d", "violated", since=1, values={"x": "3.0"}, margin=-2.0, margin_share=-2.0, margin_variable="x"),
        reported("e", None, violated=False),
        reported("f", None),
        reported("g", "pending", violated=False),
    )
    assert [sentence.partition(" since")[0] for sentence in sentences] == [
        "violated on d", "violated on b", "pending on g", "unknown on c: no measurement of x"
    ]  # fmt: skip
    assert sentences[0].endswith(": x = 3.0, 2 above the limit (200 %)")
    assert sentences[1].endswith(": no measurement of x; by default")
    assert now == {
        "a": "holds", "b": "violated", "c": "unknown", "d": "violated", "e": "holds", "f": "not told", "g": "pending"
    }  # fmt: skip


def test_an_explanation_has_a_bounded_number_of_sentences() -> None:
    sentences, now = explained(*(reported(f"n{number:02}", "violated", since=number) for number in range(MOST_TOLD + 3)))
    assert len(now) == MOST_TOLD + 3
    assert [sentence.split()[2] for sentence in sentences[:-1]] == [f"n{number:02}" for number in range(MOST_TOLD)]
    assert sentences[-1] == "and on 3 more nodes"


def test_a_violation_is_told_alike_by_constraints_explain_and_check(node_url: str, capsys: Capture) -> None:
    assert run(capsys, node_url, "add", "speed", "--when", "speed_mps <= 1.5")[0] == 0
    assert run(capsys, node_url, "add", "patient", "--when", "speed_mps <= 1.5", "--for", "1h")[0] == 0
    code, out, _ = run(capsys, node_url, "check", "speed_mps=9")
    assert code == 0
    checked = {line.split()[0]: " ".join(line.split()[1:]) for line in out.splitlines()}
    assert checked["speed"] == "violated violated speed_mps = 9, 7.5 above the limit (500 %)"
    assert checked["patient"] == "violated pending speed_mps = 9, 7.5 above the limit (500 %)"
    Client(node_url).measure({"speed_mps": 9})
    told = r"forge since \d+ s ago: speed_mps = 9.0, 7.5 above the limit \(500 %\)"
    titles, *lines = run(capsys, node_url, "constraints")[1].splitlines()
    assert " ".join(titles.split()).endswith("held of the time added by for violated on")
    listed = {line.split()[0]: line for line in lines}
    assert re.search(rf" violated .* {told}$", listed["speed"])
    assert re.search(r" pending \d+ s of 60 min ", listed["patient"])
    _, out, _ = run(capsys, node_url, "explain", "speed")
    assert re.search(rf"^violated on {told}$", out, re.MULTILINE)
    assert re.search(r"^forge +violated +\d+ s ago +yes +0 +[12] ", out, re.MULTILINE)
    _, out, _ = run(capsys, node_url, "explain", "patient", "--json")
    (there,) = json.loads(out)["violations"]
    assert (there["state"], there["violated"], there["values"], there["margin"]) == ("pending", False, SPEED, -7.5)
    for id_ in ("speed", "patient"):
        run(capsys, node_url, "remove", id_)
