"""`for`, `clear_after`, `clear_when`, `if_unknown` and `max_age` on the command line and in files, against a node process."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from constraint_crdt.cli import main
from constraint_crdt.state import from_json
from constraint_crdt.types.definition import Definition
from tests.cli.process import running_node

pytestmark = pytest.mark.processes

Capture = pytest.CaptureFixture[str]
FLAGS = ["--for", "30s", "--clear-after", "1.5m", "--clear-when", "x < 0.5", "--if-unknown", "violated", "--max-age", "5s"]
FIELDS = {"for": 30.0, "clear_after": 90.0, "clear_when": "x < 0.5", "if_unknown": "violated", "max_age": 5.0}
FILE = """
[[constraint]]
id = "slow"
when = "x < 1.0"
for = "30s"
clear_after = 90
clear_when = "x < 0.5"
if_unknown = "violated"
max_age = "5s"
"""


@pytest.fixture(scope="module")
def node() -> Iterator[str]:
    with running_node() as node:
        yield node.url


@pytest.fixture
def url(node: str, capsys: Capture) -> Iterator[str]:
    yield node
    for id_ in listed(capsys, node):
        main(["remove", "--node", node, id_])


def run(capsys: Capture, url: str, *argv: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main([argv[0], "--node", url, *argv[1:]])
    return code, *capsys.readouterr()


def listed(capsys: Capture, url: str) -> dict[str, Any]:
    code, out, err = run(capsys, url, "constraints", "--json")
    assert (code, err) == (0, "")
    return {each["id"]: each for each in json.loads(out)}


def test_flags_add_the_fields_and_the_views_show_them(url: str, capsys: Capture) -> None:
    assert run(capsys, url, "add", "plain", "--when", "x < 1.0") == (0, "plain: added\n", "")
    assert "clear" not in run(capsys, url, "constraints")[1]
    assert run(capsys, url, "add", "slow", "--when", "x < 1.0", *FLAGS) == (0, "slow: added\n", "")
    found = listed(capsys, url)["slow"]
    assert {name: found[name] for name in FIELDS} == FIELDS
    _, out, _ = run(capsys, url, "constraints")
    head, *rows = out.splitlines()
    for name in ("for", "clear after", "clear when", "if unknown", "max age"):
        assert name in head
    line = next(row for row in rows if row.startswith("slow"))
    for text in ("30s", "90s", "x < 0.5", "violated", "5s"):
        assert text in line
    _, out, _ = run(capsys, url, "explain", "slow")
    explained = {line[:13].strip(): line[13:].strip() for line in out.splitlines()}
    assert [explained[name] for name in ("for", "clear after", "clear when", "if unknown", "max age")] == [
        "30s",
        "90s",
        "x < 0.5",
        "violated",
        "5s",
    ]
    assert "clear" not in run(capsys, url, "explain", "plain")[1]


def test_an_edit_of_a_field_is_an_edit(url: str, capsys: Capture) -> None:
    run(capsys, url, "add", "slow", "--when", "x < 1.0", *FLAGS)
    assert run(capsys, url, "add", "slow", "--when", "x < 1.0", *FLAGS)[1].startswith("slow: unchanged")
    assert run(capsys, url, "add", "slow", "--when", "x < 1.0", *FLAGS, "--for", "31s")[1].startswith("slow: replaced")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--for", "soon"], "--for: 'soon' is not a length of time"),
        (["--for", "30s", "--max-age", "1h30m"], "--max-age: '1h30m' is not a length of time: give"),
        (["--for", "4000d"], "for must be at least 0 and at most"),
        (["--clear-after", "-3s"], "is not a length of time"),
        (["--max-age", "0"], "--max-age: '0' is not a length of time above 0"),
        (["--clear-when", "x <"], "`clear_when`: column"),
        (["--if-unknown", "maybe"], "invalid choice: 'maybe'"),
    ],
)
def test_a_mistake_is_one_sentence(url: str, capsys: Capture, flags: list[str], says: str) -> None:
    code, out, err = run(capsys, url, "add", "wrong", "--when", "x < 1.0", *flags)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert says in err
    assert "wrong" not in listed(capsys, url)


def test_a_field_without_a_when_is_refused(url: str, capsys: Capture) -> None:
    code, _, err = run(capsys, url, "add", "wrong", "--for", "30s")
    assert code == 2
    assert "for says how a `when` is evaluated, and this constraint has none" in err


def test_a_file_has_the_fields(url: str, capsys: Capture, tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(FILE)
    argv = ["apply", str(file)]
    assert run(capsys, url, *argv, "--dry-run")[1].startswith("slow: added\n")
    assert run(capsys, url, *argv)[1] == "slow: added\n1 added\n"
    found = listed(capsys, url)["slow"]
    assert {name: found[name] for name in FIELDS} == FIELDS
    for flags in (["--dry-run"], []):
        assert run(capsys, url, *argv, *flags)[1].startswith("slow: unchanged\n")
    file.write_text(FILE.replace('"5s"', '"6s"'))
    for flags in (["--dry-run"], []):
        assert run(capsys, url, *argv, *flags)[1].startswith("slow: replaced\n")
    assert run(capsys, url, "add", "slow", "--when", "x < 1.0", *FLAGS, "--max-age", "6s")[1].startswith("slow: unchanged")


SELECTING = """
[[constraint]]
id = "slow"
when = "x < 1.0"
on = "zone in (a, b), model!=x7, !spare, rack=3"
mode = "audit"
"""


def test_a_selector_and_a_mode_are_flags_and_fields_of_a_file(url: str, capsys: Capture, tmp_path: Path) -> None:
    selector = "rack=3, model!=x7, !spare, zone in (a, b)"
    flags = ["--on", "zone in (b,a)", "--on", "model != x7, !spare", "--on", "rack==3", "--mode", "audit"]
    code, out, err = run(capsys, url, "add", "slow", "--when", "x < 1.0", *flags)
    assert (code, out, err) == (0, f"slow: added\nnote: no known node matches {selector}\n", "")
    assert (listed(capsys, url)["slow"]["selector"], listed(capsys, url)["slow"]["mode"]) == (selector, "audit")
    for command in (["constraints"], ["explain", "slow"]):
        _, out, _ = run(capsys, url, *command)
        assert selector in out
        assert "audit" in out
    file = tmp_path / "constraints.toml"
    file.write_text(SELECTING)
    assert run(capsys, url, "apply", str(file))[1].endswith("1 unchanged\n")
    exported = tmp_path / "exported.toml"
    assert run(capsys, url, "export", "--constraints", "-o", str(exported))[0] == 0
    assert f'on = "{selector}"' in exported.read_text()
    assert run(capsys, url, "apply", str(exported))[1].endswith("1 unchanged\n")
    file.write_text(SELECTING.replace("!spare", "!"))
    code, _, err = run(capsys, url, "apply", str(file))
    assert (code, "expected a key after `!` at character 29" in err) == (2, True)
    code, _, err = run(capsys, url, "nodes", "--on", "zone in (a")
    assert (code, "expected `,` or `)` at character 11, and the text ends" in err) == (2, True)


def test_an_exported_state_has_the_fields_and_is_imported_again(url: str, capsys: Capture, tmp_path: Path) -> None:
    run(capsys, url, "add", "slow", "--when", "x < 1.0", *FLAGS)
    file = tmp_path / "state.json"
    assert run(capsys, url, "export", "-o", str(file))[0] == 0
    content = json.loads(file.read_text())
    ns = 10**9
    shown = {"for": 30 * ns, "clear_after": 90 * ns, "clear_when": "x < 0.5", "if_unknown": "violated", "max_age": 5 * ns}
    assert content["reading"]["constraints"] == [
        {"id": "slow", "definitions": [{"when": "x < 1.0", "severity": "warning", **shown}]}
    ]
    [definition] = from_json(file.read_text()).constraints.definitions("slow")
    assert definition[5:10] == Definition(
        for_=30 * ns, clear_after=90 * ns, clear_when="x < 0.5", if_unknown=definition.if_unknown, max_age=5 * ns
    )[5:10]  # fmt: skip
    with running_node() as other:
        assert run(capsys, other.url, "import", str(file))[0] == 0
        found = listed(capsys, other.url)["slow"]
        assert {name: found[name] for name in FIELDS} == FIELDS


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('for = "soon"', "`for`: 'soon' is not a length of time"),
        ('for = "30s"\nclear_after = "0s"', "`clear_after`: '0s' is not a length of time above 0"),
        ("for = true", '`for` must be a length of time, as in "30m", not True'),
        ("clear_after = -1", "clear_after must be at least 0"),
        ("max_age = 0", "max_age must be above 0"),
        ('clear_when = "x <"', "`clear_when`: column"),
        ("clear_when = 3", "`clear_when` must be a text, not 3"),
        ('if_unknown = "maybe"', "if_unknown must be one of unknown, violated, satisfied, not 'maybe'"),
        ('for_ = "30s"', "there is no field `for_`: `for` may be meant"),
    ],
)
def test_a_mistake_in_a_file_is_named_and_nothing_changes(url: str, capsys: Capture, tmp_path: Path, line: str, says: str) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(f'[[constraint]]\nid = "slow"\nwhen = "x < 1.0"\n{line}\n')
    code, out, err = run(capsys, url, "apply", str(file))
    assert (code, out) == (2, "")
    assert says in err
    assert listed(capsys, url) == {}
