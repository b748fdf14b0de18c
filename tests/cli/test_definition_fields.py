"""`for`, `clear_after`, `clear_when`, `if_unknown` and `max_age` on the command line and in files, against a node process."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from constraint_crdt.cli import main
from constraint_crdt.client import Client
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


def test_add_keeps_what_it_does_not_say_unless_told_to_replace(url: str, capsys: Capture) -> None:
    run(capsys, url, "add", "slow", "--when", "x < 1.0", "--severity", "critical", "--on", "zone!=a", *FLAGS)
    code, out, _ = run(capsys, url, "add", "slow", "--when", "x < 2.0", "--for", "0", "--loosen")
    said = "slow: replaced: it was active with another definition\n  when: x < 1.0 -> x < 2.0\n  for: 30s -> -\n"
    said += "  loosens and tightens: it allows x = 1.0, which was forbidden; `for` is shorter: it is violated sooner\n"
    assert (code, out) == (0, said)
    found = listed(capsys, url)["slow"]
    assert (found["severity"], found["selector"], found["clear_when"], found["for"]) == ("critical", "zone!=a", "x < 0.5", 0.0)
    assert run(capsys, url, "add", "slow", "--severity", "critical")[1].startswith("slow: unchanged")
    assert run(capsys, url, "add", "slow", "--ttl", "1h", "--loosen")[1].endswith(" -> warning\n") is False
    assert run(capsys, url, "add", "slow", "--until", "never")[1].startswith("slow: extended")
    assert run(capsys, url, "add", "slow", "--severity", "warning", "--loosen")[1].endswith(
        "  severity: critical -> warning\n  loosens: it is less severe\n"
    )
    code, out, err = run(capsys, url, "add", "slow", "--new", "--when", "x < 3.0")
    assert (code, out, "slow is active already" in err) == (1, "", True)
    assert run(capsys, url, "add", "slow", "--replace", "--when", "x < 3.0")[0] == 0
    found = listed(capsys, url)["slow"]
    assert (found["when"], found["selector"], found["clear_when"], found["max_age"]) == ("x < 3.0", "", None, None)
    for flags, says in ((["--when", ""], "--when is empty"), (["--new", "--replace"], "exclude each other")):
        code, _, err = run(capsys, url, "add", "slow", *flags)
        assert (code, says in err) == (2, True)


def test_definitions_are_listed_with_numbers_to_keep(url: str, capsys: Capture) -> None:
    run(capsys, url, "add", "slow", "--when", "x < 1.0", "--on", "zone!=a")
    code, out, _ = run(capsys, url, "resolve", "slow")
    assert (code, out.startswith("1  x < 1.0 (warning, on zone!=a); by ")) == (0, True)
    assert run(capsys, url, "resolve", "slow", "--keep", "1")[1].startswith("slow: definition 1 is kept, of 1\n")
    assert run(capsys, url, "resolve", "slow", "--all-of")[1].startswith("slow: joined, of 1\n")
    assert run(capsys, url, "resolve", "slow", "--keep", "2")[0] == 2
    assert run(capsys, url, "resolve", "slow", "--keep", "1", "--all-of")[0] == 2
    assert run(capsys, url, "resolve", "none")[0] == 1


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


PARAMETERS = """
[parameters]
limit = [{ value = 0.8, on = "zone=dock" }, { value = 1 }]
name = "x7"

[[constraint]]
id = "slow"
when = "x <= param.limit"

[[constraint]]
id = "many"
when = "count(nodes, n, n.x > param.limit) == 0"
scope = "fleet"
"""


def test_parameters_are_set_shown_applied_exported_and_unset(url: str, capsys: Capture, tmp_path: Path) -> None:
    assert run(capsys, url, "params") == (0, "no parameter is set: `constraint-crdt set NAME VALUE` sets one\n", "")
    run(capsys, url, "add", "slow", "--when", "x <= param.limit")
    code, out, _ = run(capsys, url, "set", "limit", "1.5")
    assert (code, out.splitlines()[0], out.splitlines()[2]) == (0, "limit: set", "  read by slow")
    assert out.splitlines()[1].startswith("  - -> 1.5 on ")
    code, out, _ = run(capsys, url, "set", "limit", "0.8", "--on", "zone in (dock)")
    assert (code, out.splitlines()[:2]) == (0, ["limit on zone=dock: set", "  no known node has another value by it"])
    assert run(capsys, url, "set", "limit", "1.5")[1] == "limit: unchanged: it has this value\n"
    code, out, _ = run(capsys, url, "params")
    assert (code, out.splitlines()[0].split()) == (0, ["parameter", "on", "value", "here", "set", "by", "read", "by"])
    assert [line.split()[1:3] for line in out.splitlines()[1:]] == [["all", "nodes"], ["zone=dock", "0.8"]]
    with Client(url) as client:
        client.measure({"x": 2.0})
    told = "x = 2.0, 0.5 above the limit (33.3 %); param.limit = 1.5"
    assert all(told in run(capsys, url, *command)[1] for command in (["explain", "slow"], ["constraints"]))
    file = tmp_path / "fleet.toml"
    file.write_text(PARAMETERS)
    assert run(capsys, url, "apply", str(file), "--dry-run")[1].endswith(
        "would be: 2 added, 1 replaced, 2 unchanged (dry run, nothing was sent)\n"
    )
    code, out, err = run(capsys, url, "apply", str(file))
    assert (code, out.splitlines()[:3], err) == (
        0, ["param.limit on zone=dock: unchanged", "param.limit: replaced", "param.name: added"], "",
    )  # fmt: skip
    exported = tmp_path / "exported.toml"
    assert run(capsys, url, "export", "--constraints", "-o", str(exported))[0] == 0
    assert 'limit = [{ value = 1.0 }, { value = 0.8, on = "zone=dock" }]\nname = "x7"' in exported.read_text()
    assert run(capsys, url, "apply", str(exported))[1].endswith("\n5 unchanged\n")
    for text, says in (
        ("[parameters]\na = [1]", "a setting is a value"),
        ("[parameters]\na-b = 1", "no expression can read a parameter named 'a-b'"),
        ("[parameters]\na = [{ value = 1, on = 'x=' }]", "expected a value at character 3"),
        ("[parameters]\na = [{ value = 1 }, { value = 2 }]", "it has two values for all nodes"),
        ("parameters = 1", "write the parameters under [parameters]"),
    ):
        file.write_text(text)
        code, _, err = run(capsys, url, "apply", str(file))
        assert (code, says in err) == (2, True)
    assert run(capsys, url, "unset", "limit", "--on", "zone=dock")[1].startswith("limit on zone=dock: unset\n")
    assert run(capsys, url, "unset", "limit")[1].splitlines()[1].startswith("  1 -> the parameter limit is not set on ")
    assert run(capsys, url, "unset", "name")[0] == 0
    code, _, err = run(capsys, url, "unset", "name")
    assert (code, "there is no setting of a parameter 'name' here" in err) == (1, True)
    assert run(capsys, url, "set", "a.b", "1")[0] == 2
