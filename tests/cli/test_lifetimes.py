"""Ends, selectors, labels and clocks on the command line, against a node process with labels."""

import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from constraint_crdt.cli import main
from tests.cli.process import run_to_its_end, running_node

pytestmark = pytest.mark.processes

Capture = pytest.CaptureFixture[str]
DAY = 86_400


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running_node("--label", "zone=a", "--label", "rack=3", "--max-skew", "2") as node:
        yield node.url


def run(capsys: Capture, url: str, *argv: str) -> tuple[int, str, str]:
    code = main([argv[0], "--node", url, *argv[1:]])
    return code, *capsys.readouterr()


def listed(capsys: Capture, url: str, *flags: str) -> dict[str, Any]:
    code, out, err = run(capsys, url, "constraints", "--json", *flags)
    assert (code, err) == (0, "")
    return {each["id"]: each for each in json.loads(out)}


def eventually_expired(capsys: Capture, url: str, id_: str) -> None:
    """Wait until a constraint has ended: there is nothing else to wait on but time itself."""
    deadline = time.monotonic() + 20
    while id_ in listed(capsys, url):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_constraint_with_an_end_is_added_extended_shown_and_ends(url: str, capsys: Capture) -> None:
    assert run(capsys, url, "add", "lease", "--ttl", "30m") == (0, "lease: added; it ends in 30 min\n", "")
    said = "lease: extended: it was active with this definition, and lasts longer now; it ends in"
    assert run(capsys, url, "add", "lease", "--ttl", "7d") == (0, f"{said} 7 d\n", "")
    assert abs(listed(capsys, url)["lease"]["expires_at"] / 1e9 - time.time() - 7 * DAY) < 60
    assert run(capsys, url, "add", "lease", "--until", "2099-01-01T00:00:00Z")[1].startswith(said)
    assert run(capsys, url, "add", "lease", "--ttl", "30m")[1].startswith("lease: replaced")
    code, out, _ = run(capsys, url, "constraints")
    assert code == 0
    assert "ends" in out.splitlines()[0]
    assert "in 30 min" in out or "in 29 min" in out
    run(capsys, url, "add", "lease", "--ttl", "0.05")
    eventually_expired(capsys, url, "lease")
    assert listed(capsys, url, "--expired").keys() == {"lease"}
    code, out, _ = run(capsys, url, "constraints", "--expired")
    assert code == 0
    assert "s ago" in out
    assert run(capsys, url, "remove", "lease") == (1, "", "constraint-crdt remove: no constraint 'lease' is active\n")


def test_a_constraint_for_some_nodes_only_is_shown_as_such(url: str, capsys: Capture) -> None:
    assert run(capsys, url, "add", "here", "--when", "x < 1.0", "--on", "zone=a", "--on", "rack=3")[0] == 0
    assert run(capsys, url, "add", "there", "--when", "x < 1.0", "--on", "zone=b")[0] == 0
    code, out, _ = run(capsys, url, "check", "x=5", "--json")
    assert code == 0
    assert [each["constraint"] for each in json.loads(out)["evaluations"]] == ["here"]
    _, out, _ = run(capsys, url, "constraints")
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert "rack=3, zone=a" in lines["here"]
    assert "violated" in lines["here"]
    assert "not for it" in lines["there"]
    _, out, _ = run(capsys, url, "nodes")
    assert "rack=3, zone=a" in out
    for id_ in ("here", "there"):
        run(capsys, url, "remove", id_)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--ttl", "soon"], "'soon' is not a length of time"),
        (["--ttl", "4000d"], "ten years"),
        (["--until", "2020-01-01T00:00:00Z"], "not in the future"),
        (["--until", "2030-01-01"], "give its zone too"),
        (["--ttl", "5m", "--until", "2030-01-01T00:00:00Z"], "not allowed with"),
        (["--on", "zone in"], "expected `(` after `in` at character 8, and the text ends"),
        (["--on", "zone=a", "--on", "zone=b"], "the label zone has two values"),
    ],
)
def test_a_mistake_is_one_sentence(url: str, capsys: Capture, flags: list[str], says: str) -> None:
    code, out, err = run(capsys, url, "add", "wrong", *flags)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert says in err
    assert "wrong" not in listed(capsys, url)


def test_a_file_with_ends_is_applied_foreseen_and_begins_them_anew(url: str, capsys: Capture, tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(
        '[[constraint]]\nid = "lease"\nwhen = "x < 1.0"\nttl = "30m"\nrenew = true\non = { zone = "a" }\n'
        '[[constraint]]\nid = "season"\nuntil = 2099-12-01T00:00:00Z\n'
        '[[constraint]]\nid = "seconds"\nttl = 90\nrenew = true\n'
    )
    argv = ["apply", str(file)]
    assert run(capsys, url, *argv, "--dry-run")[1].splitlines()[-1] == "would be: 3 added (dry run, nothing was sent)"
    assert run(capsys, url, *argv)[:2] == (0, "lease: added\nseason: added\nseconds: added\n3 added\n")
    found = listed(capsys, url)
    assert found["lease"]["on"] == {"zone": "a"}
    assert found["season"]["expires_at"] == 4_099_766_400 * 10**9
    foreseen = run(capsys, url, *argv, "--dry-run", "--json")[1]
    done = run(capsys, url, *argv, "--json")[1]
    assert {each["id"]: each["change"] for each in json.loads(done)} == {
        "lease": "extended",
        "season": "unchanged",
        "seconds": "extended",
    }
    assert foreseen == done
    file.write_text('[[constraint]]\nid = "lease"\nwhen = "x < 1.0"\nttl = "5m"\non = { zone = "a" }\n')
    assert run(capsys, url, *argv, "--prune", "--dry-run")[1].startswith(
        "lease: replaced\n  loosens: it ends sooner\nseason: removed\nseconds: removed\n"
    )
    assert run(capsys, url, *argv, "--prune")[1].endswith("1 replaced, 2 removed\n")
    run(capsys, url, "remove", "lease")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('ttl = "soon"', "'soon' is not a length of time"),
        ("ttl = true", '`ttl` must be a length of time, as in "30m", not True'),
        ("ttl = -1", "ttl must be above 0"),
        ("until = 2099-12-01T00:00:00", "with its zone, as in 2026-12-01T00:00:00Z, not 2099-12-01T00:00:00"),
        ("until = 2099-12-01", "with its zone, as in 2026-12-01T00:00:00Z, not 2099-12-01"),
        ('until = "2099-12-01T00:00:00Z"', "`until` must be a point in time"),
        ("until = 2020-12-01T00:00:00Z", "not in the future"),
        ('ttl = "5m"\nuntil = 2099-12-01T00:00:00Z', "ttl and until both say when it ends"),
        ("on = ['zone=a']", '`on` must be a table of labels, as in { zone = "a" }, or the text of a selector'),
        ("on = { zone = 1 }", "`on` must be a table of labels"),
        ('on = { zone = "" }', "on: the value of the label zone"),
    ],
)
def test_a_mistake_in_a_file_is_named_with_its_place(url: str, capsys: Capture, tmp_path: Path, line: str, says: str) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(f'[[constraint]]\nid = "first"\n\n[[constraint]]\nid = "wrong"\n{line}\n')
    code, out, err = run(capsys, url, "apply", str(file))
    assert (code, out) == (2, "")
    assert "line 4, constraint 2 (wrong)" in err
    assert says in err
    assert "first" not in listed(capsys, url)


@pytest.mark.processes
@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--label", "zone"], "--label: 'zone' is not a label: give KEY=VALUE, as in zone=a"),
        (["--label", "a=1", "--label", "a=2"], "--label: the label a has two values"),
        (["--max-skew", "0"], "--max-skew: max_skew must be from 0.1 to 3600 seconds"),
    ],
)
def test_a_wrong_setting_keeps_the_node_from_starting(flags: list[str], says: str) -> None:
    done = run_to_its_end(*flags)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert says in done.stderr


@pytest.mark.processes
def test_a_node_whose_clock_is_wrong_is_shown_with_its_offset(capsys: Capture) -> None:
    fleet = f"skewed-{secrets.token_hex(4)}"
    with (
        running_node("--name", "right", "--fleet", fleet, "--listen", "tcp/127.0.0.1:0") as right,
        running_node("--name", "wrong", "--fleet", fleet, "--connect", right.endpoint, "--clock-offset", "3600") as wrong,
    ):
        deadline = time.monotonic() + 30
        while not json.loads(run(capsys, right.url, "status", "--json")[1])["clock_alarms"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        _, out, _ = run(capsys, right.url, "nodes")
        assert "clock" in out.splitlines()[0]
        assert "+3600.0 s" in out or "+3599.9 s" in out
        assert "CLOCKS" in run(capsys, right.url, "status")[1]
        wrong.stop()
        assert any("the clock of wrong is +3" in line and "counts for nothing" in line for line in right.stop())
