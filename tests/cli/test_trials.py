"""`constraint-crdt test` and `backtest`: the files, the output and the exit codes."""

import asyncio
import importlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from constraint_crdt.cli import main
from constraint_crdt.crdt.clock import SECOND
from constraint_crdt.runtime.rule_tests import VirtualClock, virtual_fleet
from constraint_crdt.runtime.settings import NodeSettings
from constraint_crdt.types.definition import Definition

RULES = """
[[constraint]]
id = "thermal"
when = "temp_c < 85.0"
for = "2m"
ttl = "6m"

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
series = [{ variable = "temp_c", values = "90x9" }]
expect = [
    { at = "5m", constraint = "thermal", violated = true },
    { at = "7m", constraint = "thermal", state = "off" },
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


@pytest.mark.long
def test_cases_that_come_true_need_no_node(cases: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, cases) == (0, "2 tests: all as expected\n", "")


@pytest.mark.long
def test_rules_read_the_parameters_of_their_file(cases: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules = cases.parent / "rules.toml"
    rules.write_text(
        "[parameters]\nlimit = [{ value = 85.0 }, { value = 99.0, on = 'zone=b' }]\n" + RULES.replace("85.0", "param.limit")
    )
    assert said(capsys, cases) == (0, "2 tests: all as expected\n", "")


@pytest.mark.long
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


@pytest.mark.long
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
        ('at = "7m"', 'at = "later"', "test 2 (is over with its ttl): expect 2 (thermal): 'later' is not a length of time"),
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


# --- backtests --------------------------------------------------------------------------------------------------------------


def backtested(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main(["backtest", *map(str, words)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


NEW = RULES.replace("85.0", "95.0").replace('ttl = "6m"\n', "").partition("[[alert]]")[0]


async def record(folder: Path) -> None:
    """A node that was hot for 3 of 5 virtual minutes, and recorded."""
    told = NodeSettings(name="forge", record_measurements=str(folder), max_age=60.0)
    async with virtual_fleet([told], VirtualClock()) as fleet:
        await fleet.apply({"thermal": Definition(when="temp_c < 85.0", for_=60 * SECOND), "gone": Definition(when="temp_c < 92.0")})
        for second in range(300):
            await fleet.advance(second * SECOND, inclusive=False)
            await fleet.nodes["forge"].measure({"temp_c": 90.0 if 60 <= second < 240 else 80.0, "unread": float(second)})


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    folder = tmp_path / "recordings"
    folder.mkdir()
    asyncio.run(record(folder))
    (tmp_path / "new.toml").write_text(NEW)
    return folder


@pytest.mark.slow
def test_a_backtest_says_where_the_new_rules_differ(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plot = recording / "plot.svg"
    code, out, err = backtested(capsys, recording, "--with", recording.parent / "new.toml", "--plot", plot)
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert lines[0][:3] == ["forge:", "2026-01-01T00:00:00.000Z", "and"]
    assert ["thermal", "edited", "4", "1", "1", "0", "120.0", "0.0"] in lines
    assert ["gone", "removed", "1", "0", "0", "0", "0.0", "0.0"] in lines
    assert ["2026-01-01T00:01:00.000Z", "1m", "thermal", "pending", "holds", "temp_c=90.0"] in lines
    assert ["2026-01-01T00:02:00.000Z", "2m", "thermal", "violated", "holds", "temp_c=90.0"] in lines
    assert plot.read_text().startswith("<svg ")
    assert "thermal" in plot.read_text()


@pytest.mark.slow
def test_a_backtest_reads_the_parameters_of_its_rules(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = recording.parent / "new.toml"
    plain = backtested(capsys, recording, "--with", new)
    new.write_text("[parameters]\nlimit = 95.0\n" + NEW.replace("95.0", "param.limit"))
    assert backtested(capsys, recording, "--with", new) == plain


@pytest.mark.slow
def test_a_backtest_as_json_has_each_verdict_change(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (recording.parent / "old.toml").write_text(NEW.replace("95.0", "80.5"))
    words = ["--with", recording.parent / "new.toml", "--against", recording.parent / "old.toml", "--json"]
    code, out, _ = backtested(capsys, recording / "forge.measurements", *words)
    (found,) = json.loads(out)
    assert code == 0
    assert [(each["after"], each["values"], each["margin"]) for each in found["turns"]["old"]] == [
        ("holds", {"temp_c": "80.0"}, 0.5),
        ("pending", {"temp_c": "90.0"}, -9.5),
        ("violated", {"temp_c": "90.0"}, -9.5),
        ("holds", {"temp_c": "80.0"}, 0.5),
    ]
    assert [each["after"] for each in found["turns"]["new"]] == ["holds"]
    assert found["constraints"] == [
        {
            "id": "thermal",
            "definition": "edited",
            "old": {"turns": 4, "violations": 1, "violated": 60.0},
            "new": {"turns": 1, "violations": 0, "violated": 0.0},
        }
    ]


@pytest.mark.slow
def test_the_same_rules_say_the_same(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = recording.parent / "new.toml"
    code, out, _ = backtested(capsys, recording, "--with", new, "--against", new)
    assert (code, out.splitlines()[-1]) == (0, "the two say the same all the time")


@pytest.mark.slow
def test_series_of_prometheus_from_a_file_and_from_a_server(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = {
        "status": "success",
        "data": {
            "resultType": "matrix",
            "result": [{"metric": {}, "values": [[60.0 * n, "90" if n > 2 else "50"] for n in range(9)]}],
        },
    }
    file, rules = recording.parent / "answer.json", recording.parent / "old.toml"
    file.write_text(json.dumps(answer))
    rules.write_text(NEW.replace("95.0", "85.0"))
    words = ["--with", recording.parent / "new.toml", "--against", rules]
    code, out, _ = backtested(capsys, "--from-prometheus", f"temp_c={file}", *words)
    assert code == 0
    assert ["1970-01-01T00:05:00.000Z", "the", "end", "thermal", "violated", "holds", "temp_c=90.0"] in map(
        str.split, out.splitlines()
    )
    with served(file.read_bytes()) as url:
        assert backtested(capsys, "--from-prometheus", f"temp_c={url}", *words)[1] == out
        code, _, err = backtested(capsys, "--from-prometheus", url, *words)
    assert (code, "series without a name: give one, as in temp_c=" in err) == (2, True)
    code, _, err = backtested(capsys, "--from-prometheus", url, *words)
    assert (code, "cannot ask http://127.0.0.1:" in err) == (1, True)


@pytest.mark.slow
def test_labels_of_prometheus_are_instances_where_a_definition_reads_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def series(joint: str, hot: int, **labels: str) -> dict[str, object]:
        metric = {"__name__": "joint_temp_c", "joint": joint, "instance": "arm", "job": "robots", **labels}
        return {"metric": metric, "values": [[60.0 * n, "95" if n > hot else "50"] for n in range(9)]}

    def written(*found: dict[str, object]) -> Path:
        file = tmp_path / "answer.json"
        file.write_text(json.dumps({"status": "success", "data": {"resultType": "matrix", "result": found}}))
        return file

    new, old = tmp_path / "new.toml", tmp_path / "old.toml"
    new.write_text('[[constraint]]\nid = "hot"\nwhen = "joint_temp_c <= 90.0"\neach = "joint"\n')
    old.write_text("")
    words = ["--with", new, "--against", old, "--json"]
    code, out, _ = backtested(capsys, "--from-prometheus", written(series("j1", 2), series("j2", 5)), *words)
    [replayed] = json.loads(out)
    assert (code, replayed["node"]) == (0, "arm")
    turns = [(each["at"] // 60_000_000_000, each["after"], each["values"]) for each in replayed["turns"]["new"]]
    assert turns[-1] == (3, "violated", {"joint_temp_c": "95.0", "joint": "j1"})
    code, _, err = backtested(capsys, "--from-prometheus", written(series("j1", 2), series("j1", 5, side="l")), *words)
    assert (code, 'several series of joint_temp_c{joint="j1"} on arm: sum or choose in the query, by (instance, joint)' in err) == (
        2,
        True,
    )
    code, _, err = backtested(capsys, "--from-prometheus", written(series('"', 2)), *words)
    assert (code, "names no measurement" in err) == (2, True)
    code, _, err = backtested(capsys, "--from-prometheus", written(*(series(f"j{n}", 2) for n in range(257))), *words)
    assert (code, "there are 257 instances of joint_temp_c by joint on arm: a node takes 256" in err) == (2, True)


@contextmanager
def served(body: bytes) -> Iterator[str]:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/api/v1/query_range?query=temp"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "name a recording of `node --record-measurements`, or --from-prometheus FILE|URL"),
        (["none.measurements"], "cannot read none.measurements: No such file or directory"),
        (["--from-prometheus", "a.json"], "--from-prometheus has no rules: name the old ones with --against FILE"),
        (["x", "--max-age", "5m"], "--max-age is for --from-prometheus: a recording has that of its node"),
        (["x", "--plot", "a.gif"], "--plot draws SVG or PNG"),
    ],
)
def test_a_mistake_of_a_backtest_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    (tmp_path / "new.toml").write_text(NEW)
    code, out, err = backtested(capsys, *words, "--with", tmp_path / "new.toml")
    assert (code, out) == (2, "")
    assert sentence in err
    assert err.count("\n") == 1
