"""`apply`: a file with a mistake changes nothing and names all of its mistakes; a right one does what it says."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from constraint_crdt.cli import main
from constraint_crdt.client import Client
from tests.cli.process import running_node

FLEET = """
[[constraint]]
id = "thermal"
when = "gpu_temp_c < 85.0"
severity = "critical"
about = "the fan gives up"

[[constraint]]
id = "speed"
when = "speed_mps <= 1.5"
"""


@pytest.fixture
def empty_url(node_url: str, capsys: pytest.CaptureFixture[str]) -> str:
    """A node without constraints."""
    for id_ in active(node_url, capsys):
        main(["remove", "--node", node_url, "--", id_])
    capsys.readouterr()
    return node_url


def active(url: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["constraints", "--node", url, "--json"]) == 0
    return {each["id"]: each for each in json.loads(capsys.readouterr().out)}


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """The output without notes: the node is shared, and they depend on what other tests measured there."""
    return "".join(line for line in capsys.readouterr().out.splitlines(keepends=True) if not line.startswith("note: "))


def definitions(url: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What is in force, without the counts, which move by themselves."""
    return {id_: each["definitions"] for id_, each in active(url, capsys).items()}


def test_it_adds_edits_and_says_so(empty_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(FLEET)
    argv = ["apply", "--node", empty_url, str(file)]
    assert main(argv) == 0
    assert said(capsys) == "thermal: added\nspeed: added\n2 added\n"
    file.write_text(FLEET.replace("1.5", "1.2"))
    assert main(argv) == 0
    edit = '  when: "speed_mps <= 1.5" -> "speed_mps <= 1.2"\n  tightens: it forbids speed_mps = 1.5, which was allowed'
    assert said(capsys) == f"thermal: unchanged\nspeed: replaced\n{edit}\n1 replaced, 1 unchanged\n"
    now = active(empty_url, capsys)
    assert {key: now["thermal"][key] for key in ("when", "severity", "about")} == {
        "when": "gpu_temp_c < 85.0",
        "severity": "critical",
        "about": "the fan gives up",
    }
    assert now["speed"]["when"] == "speed_mps <= 1.2"


def test_prune_removes_what_is_not_listed_and_only_then(empty_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["add", "--node", empty_url, "old one"])
    file = tmp_path / "fleet.toml"
    file.write_text(FLEET)
    assert main(["apply", "--node", empty_url, str(file)]) == 0
    assert active(empty_url, capsys).keys() == {"thermal", "speed", "old one"}
    assert main(["apply", "--node", empty_url, str(file), "--prune", "--json"]) == 0
    changes = {each["id"]: each["change"] for each in json.loads(capsys.readouterr().out)}
    assert changes == {"thermal": "unchanged", "speed": "unchanged", "old one": "removed"}
    assert active(empty_url, capsys).keys() == {"thermal", "speed"}


def test_a_dry_run_foresees_and_does_nothing(empty_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["add", "--node", empty_url, "old one"])
    main(["add", "--node", empty_url, "thermal", "--when", "gpu_temp_c < 80.0"])
    main(["add", "--node", empty_url, "speed", "--when", "speed_mps <= 1.5"])
    before = definitions(empty_url, capsys)
    file = tmp_path / "fleet.toml"
    file.write_text(FLEET + '[[constraint]]\nid = "new"\n')
    argv = ["apply", "--node", empty_url, str(file), "--prune"]
    assert main([*argv, "--dry-run", "--json"]) == 0
    foreseen = json.loads(capsys.readouterr().out)
    assert {each["id"]: each["change"] for each in foreseen} == {
        "thermal": "replaced",
        "speed": "unchanged",
        "new": "added",
        "old one": "removed",
    }
    assert definitions(empty_url, capsys) == before
    assert main([*argv, "--json"]) == 0
    done = [{name: value for name, value in each.items() if name != "notes"} for each in json.loads(capsys.readouterr().out)]
    assert done == foreseen


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[[constraint]]\nid = "a"\nwhen = "x <"\n', ["line 1, constraint 1 (a): column 4"]),
        ('[[constraint]]\nid = "a"\nwhen = "x * 2 < 1"\n', ["(a): column 3", "x * 2.0"]),
        ('[[constraint]]\nid = "a"\n\n[[constraint]]\nid = "a"\n', ["line 4, constraint 2 (a): the id is there twice"]),
        ('[[constraint]]\nwhen = "x < 1.0"\n', ["line 1, constraint 1: `id` is missing"]),
        ('[[constraint]]\nid = "a"\nwen = "x"\n', ["`wen`: `when` may be meant"]),
        ("[[constraint]]\nid = 7\n", ["`id` must be a text, not 7"]),
        ('[[constraint]]\nid = ""\n', ["1 to 256 bytes"]),
        ('[[constraint]]\nid = "a"\nseverity = "fatal"\n', ["severity must be one of info, warning, critical"]),
        (
            '[[constraints]]\nid = "a"\n',
            ["`constraints` means nothing: there are [[constraint]], [[budget]], [[alert]] and [parameters]"],
        ),
        ('[constraint]\nid = "a"\n', ["double brackets"]),
        ('constraint = [{id = "a", wen = "x"}]\n', ["constraint 1 (a): there is no field `wen`"]),
        ("[[constraint\n", ["is not TOML", "line 1"]),
        (f"a = {'[' * 5_000}", ["nested too deep"]),
        (f"a = {'9' * 5_000}", ["thousands of digits"]),
        (f"[[constraint]]\nid = 'a'\nttl = {'9' * 400}", ["ttl"]),
        ('name = 1\n[[constraint]]\nid = "a"\nwen = "x"\n', ["`name`", "line 2, constraint 1 (a)"]),
    ],
)
def test_a_mistake_sends_nothing(
    empty_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, says: list[str]
) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(text)
    assert main(["apply", "--node", empty_url, str(file)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    for part in says:
        assert part in err
    assert str(file) in err
    assert active(empty_url, capsys) == {}


def test_one_mistake_keeps_the_right_ones_back(empty_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(FLEET + '[[constraint]]\nid = "last"\nwhen = "x <"\n')
    assert main(["apply", "--node", empty_url, str(file)]) == 2
    assert active(empty_url, capsys) == {}


def test_a_file_that_cannot_be_read_is_named(empty_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["apply", "--node", empty_url, str(tmp_path / "nope.toml")]) == 2
    assert "nope.toml: No such file" in capsys.readouterr().err
    (tmp_path / "bytes.toml").write_bytes(b"\xff")
    assert main(["apply", "--node", empty_url, str(tmp_path / "bytes.toml")]) == 2
    assert "is not TOML: it is not text in UTF-8\n" in capsys.readouterr().err


def test_an_empty_file_does_not_empty_the_fleet(empty_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["add", "--node", empty_url, "kept"])
    file = tmp_path / "fleet.toml"
    file.write_text("")
    assert main(["apply", "--node", empty_url, str(file), "--prune"]) == 2
    assert "would remove all" in capsys.readouterr().err
    assert main(["apply", "--node", empty_url, str(file)]) == 0
    assert capsys.readouterr().out == "nothing to do\n"
    assert active(empty_url, capsys).keys() == {"kept"}


@pytest.fixture
def measuring_url() -> Iterator[str]:
    """A node of its own: additions to a node that measures are noted where no node can decide them."""
    with running_node() as node:
        yield node.url


@pytest.mark.long
@pytest.mark.processes
def test_a_kind_that_only_the_node_knows_changes_nothing_either(
    measuring_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The defect: the constraints before the refused one were added, and the sentence did not name it."""
    with Client(measuring_url) as client:
        client.measure({"label": "a"})
        while client.check_expression("label < 3").ok:  # the node tells the kinds that it measures every ten seconds at most
            client.measure({"label": "a"})
    file = tmp_path / "fleet.toml"
    file.write_text(
        FLEET
        + """
[[constraint]]
id = "named"
when = "label < 3"

[[constraint]]
id = "hot"
when = "speed_mps < 9.0"
clear_when = "label < 3"
"""
    )
    argv = ["apply", "--node", measuring_url, str(file)]
    for more in ([], ["--dry-run"]):
        assert main([*argv, *more]) == 2
        told = capsys.readouterr()
        assert told.out == ""
        says = "column 7: `<` cannot compare a string with an int"
        assert told.err.splitlines() == [
            f"constraint-crdt apply: {file}: line 12, constraint 3 (named): `when`: {says}",
            f"{file}: line 16, constraint 4 (hot): `clear_when`: {says}",
        ]
        assert active(measuring_url, capsys) == {}


def test_a_file_is_applied_whole_or_not_at_all(
    empty_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The defect: a request for each constraint, so that a failure in the middle left half of the file applied."""
    requests: list[str] = []
    carried_out = Client.do

    def counted(self: Client, operation: Any, request: Any) -> Any:
        requests.append(operation.name)
        return carried_out(self, operation, request)

    monkeypatch.setattr(Client, "do", counted)
    file = tmp_path / "fleet.toml"
    file.write_text("".join(f'[[constraint]]\nid = "c{number}"\n\n' for number in range(300)))
    assert main(["apply", "--node", empty_url, str(file)]) == 0
    assert [name for name in requests if name in ("batch", "add_constraint", "add")] == ["batch"]
    assert len(active(empty_url, capsys)) == 300
    file.write_text("".join(f'[[constraint]]\nid = "d{number}"\n\n' for number in range(10_001)))
    assert main(["apply", "--node", empty_url, str(file)]) == 2
    assert "with at most 10000 changes, not 10001: divide it" in capsys.readouterr().err
    assert len(active(empty_url, capsys)) == 300


def test_a_constraint_that_was_removed_meanwhile_is_looked_at_again(
    empty_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    main(["add", "--node", empty_url, "old one"])
    looked = Client.constraints

    def raced(self: Client) -> Any:
        found = looked(self)
        if any(each.id == "old one" for each in found):
            self.remove("old one")
        return found

    monkeypatch.setattr(Client, "constraints", raced)
    file = tmp_path / "fleet.toml"
    file.write_text(FLEET)
    capsys.readouterr()
    assert main(["apply", "--node", empty_url, str(file), "--prune"]) == 0
    assert said(capsys) == "thermal: added\nspeed: added\n2 added\n"
    monkeypatch.undo()
    assert active(empty_url, capsys).keys() == {"thermal", "speed"}


def test_a_ttl_begins_again_only_where_the_file_says_so(empty_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text('[[constraint]]\nid = "gate"\nttl = "30m"\n')
    argv = ["apply", "--node", empty_url, str(file)]
    assert main(argv) == 0
    before = definitions(empty_url, capsys)
    assert main(argv) == 0
    assert said(capsys) == "gate: unchanged\n1 unchanged\n"
    assert definitions(empty_url, capsys) == before
    file.write_text(file.read_text() + "renew = true\n")
    assert main(argv) == 0
    assert said(capsys) == "gate: extended\n1 extended\n"
    assert definitions(empty_url, capsys)["gate"][0]["expires_at"] > before["gate"][0]["expires_at"]
    file.write_text('[[constraint]]\nid = "gate"\nttl = "30m"\nrenew = "yes"\n')
    assert main(argv) == 2
    assert "`renew` must be true or false, not 'yes'" in capsys.readouterr().err


def test_a_file_comes_from_standard_input(
    empty_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(FLEET.encode())))
    assert main(["apply", "--node", empty_url, "-"]) == 0
    assert active(empty_url, capsys).keys() == {"thermal", "speed"}


ODD = r"""
[[constraint]]
id = "everything ž \u007f \" \\ [x]"
when = "label == 'a\"b' || speed < 1.5"
severity = "critical"
about = "two\nlines"
on = { zone = "a b", "odd key" = "é" }
until = 2100-01-01T00:00:00.123456Z
for = "1.5s"
clear_after = 2
clear_when = "speed < 1.0"
if_unknown = "violated"
max_age = 3.25

[[constraint]]
id = "bare"
ttl = "10m"
"""


def test_what_export_writes_is_what_apply_reads(empty_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, exported = tmp_path / "fleet.toml", tmp_path / "exported.toml"
    file.write_text(ODD)
    assert main(["apply", "--node", empty_url, str(file)]) == 0
    before = definitions(empty_url, capsys)
    assert main(["export", "--constraints", "--node", empty_url, "-o", str(exported)]) == 0
    assert capsys.readouterr().out == f"{exported}: 2 constraints; `constraint-crdt apply` reads them\n"
    assert main(["apply", "--node", empty_url, str(exported), "--prune"]) == 0
    assert said(capsys).endswith("\n2 unchanged\n")
    for id_ in before:
        main(["remove", "--node", empty_url, "--", id_])
    assert main(["apply", "--node", empty_url, str(exported)]) == 0
    after = definitions(empty_url, capsys)

    def told(found: dict[str, Any]) -> dict[str, Any]:
        kept = {id_: {key: value for key, value in each[0].items() if key != "added_at"} for id_, each in found.items()}
        return {id_: {**each, "expires_at": each["expires_at"] // 1000} for id_, each in kept.items()}

    assert told(after) == told(before)
    assert main(["export", "--constraints", "--node", empty_url, "--json"]) == 2
