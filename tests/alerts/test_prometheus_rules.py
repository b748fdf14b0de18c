"""Rules of public files fire at the same minutes by `promtool test rules` and by `constraint-crdt test`. JSON is YAML, too."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from constraint_crdt.cli import main
from tests.alerts.prometheus_rules import RULES, PublicRule

PROMTOOL = shutil.which("promtool") or ""
REQUIRED = bool(os.environ.get("CI_REQUIRES_BROWSER"))
"""Set where nothing may be skipped."""


def firing(rule: PublicRule) -> Iterator[tuple[int, bool]]:
    """The minutes, and whether the alert fires."""
    for minute in range(rule.minutes + 1):
        yield minute, any(begin <= minute <= end for begin, end in rule.firing)


def as_promtool(rule: PublicRule, folder: Path) -> Path:
    """The files of promtool. Returns the one of the tests."""
    alert = {"alert": rule.name, "expr": rule.expr, "for": rule.for_} | ({"keep_firing_for": rule.keep} if rule.keep else {})
    rules = {"groups": [{"name": "node", "rules": [alert]}]}
    (folder / f"{rule.name}.rules.yml").write_text(json.dumps(rules))
    tests = {
        "rule_files": [f"{rule.name}.rules.yml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in rule.series.items()],
                "alert_rule_test": [
                    {"eval_time": f"{minute}m", "alertname": rule.name, "exp_alerts": [{"exp_labels": {}}] if fires else []}
                    for minute, fires in firing(rule)
                ],
            }
        ],
    }
    file = folder / f"{rule.name}.promtool.yml"
    file.write_text(json.dumps(tests))
    return file


def as_ours(rule: PublicRule, folder: Path) -> Path:
    """The files of this package. Returns the one of the tests."""
    fields = {"id": rule.name, "when": rule.when, "for": rule.for_} | ({"clear_after": rule.keep} if rule.keep else {})
    lines = [f"{key} = {msgspec.json.encode(value).decode()}" for key, value in fields.items()]
    (folder / f"{rule.name}.rules.toml").write_text("\n".join(["[[constraint]]", *lines, ""]))
    tests = {
        "rule_files": [f"{rule.name}.rules.toml"],
        "check_every": "1m",
        "max_age": "5m",
        "interval": "1m",
        "test": [
            {
                "name": rule.name,
                "series": [{"variable": name, "values": values} for name, values in rule.series.items()],
                "expect": [{"at": f"{minute}m", "constraint": rule.name, "violated": fires} for minute, fires in firing(rule)],
            }
        ],
    }
    file = folder / f"{rule.name}.yml"
    file.write_text(json.dumps(tests))
    return file


def test_there_are_ten_and_each_fires_and_ends() -> None:
    assert len(RULES) == 10
    assert all(0 < begin <= end <= rule.minutes for rule in RULES for begin, end in rule.firing)
    assert sum(end < rule.minutes for rule in RULES for _, end in rule.firing) >= 10


@pytest.mark.long
def test_the_rules_fire_as_said_by_this_package(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["test", *(str(as_ours(rule, tmp_path)) for rule in RULES)])
    assert (code, capsys.readouterr().out) == (0, "10 tests: all as expected\n")


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.skipif(not PROMTOOL and not REQUIRED, reason="no promtool here: apt-get install prometheus")
def test_the_rules_fire_at_the_same_minutes_by_promtool(tmp_path: Path) -> None:
    files = [as_promtool(rule, tmp_path) for rule in RULES]
    done = subprocess.run([PROMTOOL, "test", "rules", *map(str, files)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("SUCCESS") == 10


@pytest.mark.long
@pytest.mark.processes
@pytest.mark.skipif(not PROMTOOL and not REQUIRED, reason="no promtool here: apt-get install prometheus")
@pytest.mark.parametrize("shift", [-1, 1])
def test_both_see_a_minute_that_is_not_so(tmp_path: Path, shift: int, capsys: pytest.CaptureFixture[str]) -> None:
    """That the two agree means something: each refuses the same history with a begin that is off by a minute."""
    rule = RULES[3]
    (begin, end), *_ = rule.firing
    wrong = rule._replace(firing=((begin + shift, end),))
    done = subprocess.run(
        [PROMTOOL, "test", "rules", str(as_promtool(wrong, tmp_path))], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert main(["test", str(as_ours(wrong, tmp_path))]) == 1
    assert f"at {min(begin, begin + shift)}m" in capsys.readouterr().out
