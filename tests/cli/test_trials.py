"""`constraint-crdt test`: the files, the output and the exit codes."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from constraint_crdt.cli import main

RULES = """
[[constraint]]
id = "thermal"
when = "temp_c < 85.0"
for = "2m"
ttl = "1h"

[[alert]]
name = "hot"
kind = "rate"
constraint = "thermal"
above = 0.5
to = ["https://ops.example/hook"]
"""
CASES = """
rule_files = ["rules.toml"]
check_every = "1m"
max_age = "5m"

[[test]]
name = "overheats"
series = [{ variable = "temp_c", values = "80 90x9" }]
expect = [
    { at = "2m", constraint = "thermal", state = "pending", since = "1m" },
    { at = "3m", constraint = "thermal", state = "violated", since = "1m" },
]

[[test.alerts]]
at = "5m"
alert = "hot"
firing = ["thermal"]

[[test]]
name = "is over with its ttl"
series = [{ variable = "temp_c", values = "90x70" }]
expect = [
    { at = "59m", constraint = "thermal", violated = true },
    { at = "61m", constraint = "thermal", state = "off" },
]
"""


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    (tmp_path / "rules.toml").write_text(RULES)
    file = tmp_path / "cases.toml"
    file.write_text(CASES)
    return file


def said(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main(["test", *map(str, words)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_cases_that_come_true_need_no_node(cases: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, cases) == (0, "2 tests: all as expected\n", "")


def test_a_difference_is_shown_and_fails(cases: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases.write_text(CASES.replace('at = "3m"', 'at = "2m"'))
    code, out, err = said(capsys, cases, "--junit", cases.with_suffix(".xml"))
    assert (code, err) == (1, "")
    assert out.splitlines() == [
        f"FAILED {cases}: overheats",
        "  at 2m, constraint thermal",
        "    - expected: violated, since 1m",
        "    + got:      pending, since 1m",
        "2 tests: 1 failed",
    ]
    assert 'tests="2" failures="1"' in cases.with_suffix(".xml").read_text()
    code, out, err = said(capsys, cases, "--json")
    assert (code, [each["passed"] for each in json.loads(out)]) == (1, [False, True])
    assert json.loads(out)[0]["mismatches"] == [
        {"where": "at 2m, constraint thermal", "expected": "violated, since 1m", "got": "pending, since 1m"}
    ]


def test_cases_are_yaml_as_well(cases: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = cases.with_suffix(".yaml")
    file.write_text(
        "rule_files: [rules.toml]\nmax_age: 5m\ntest:\n- series:\n  - {variable: temp_c, values: 90x9}\n"
        "  expect:\n  - {at: 2m, constraint: thermal, state: violated}\n"
    )
    assert said(capsys, file, cases) == (0, "3 tests: all as expected\n", "")


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("[[test]]", "[[test]", "is not TOML: "),
        ("series =", "seires =", "test 1: there is no field `seires`"),
        ("80 90x9", "80 90y9", "test 1 (overheats): series 1 (temp_c): '90y9' is no value"),
        ('at = "61m"', 'at = "later"', "test 2 (is over with its ttl): expect 2 (thermal): 'later' is not a length of time"),
        ('"rules.toml"', '"none.toml"', "none.toml: No such file or directory"),
        (
            '"rules.toml"',
            '"rules.toml", "rules.toml"',
            "line 2, constraint 1 (thermal): another rule file has a constraint of this id",
        ),
    ],
)
def test_a_mistake_is_a_sentence_with_its_place(
    cases: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, sentence: str
) -> None:
    cases.write_text(CASES.replace(old, new))
    code, out, err = said(capsys, cases)
    assert (code, out) == (2, "")
    assert sentence in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("rules", "sentence"),
    [
        (RULES.replace("above =", "abvoe ="), "rules.toml: alert 1 (hot): there is no field `abvoe`: `above` may be meant"),
        (RULES.replace("< 85.0", "<"), "rules.toml: line 2, constraint 1 (thermal): "),
        (RULES + "[[silence]]\n", "rules.toml: `silence` means nothing"),
    ],
)
def test_a_mistake_in_a_rule_file_has_its_place(cases: Path, capsys: pytest.CaptureFixture[str], rules: str, sentence: str) -> None:
    (cases.parent / "rules.toml").write_text(rules)
    code, _, err = said(capsys, cases)
    assert code == 2
    assert sentence in err


def test_yaml_needs_its_extra(cases: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    load = importlib.import_module

    def without_yaml(name: str, *others: Any) -> Any:
        if name == "yaml":
            raise ImportError(name)
        return load(name, *others)

    monkeypatch.setattr(importlib, "import_module", without_yaml)
    code, _, err = said(capsys, cases.with_suffix(".yaml"))
    assert code == 1
    assert "which needs PyYAML: pip install 'constraint-crdt[yaml]', or write the cases in TOML" in err


def test_broken_yaml_has_its_line(cases: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = cases.with_suffix(".yml")
    file.write_text("rule_files: [a\ntest: ]")
    code, _, err = said(capsys, file)
    assert code == 2
    assert "is not YAML at line 2, column" in err
