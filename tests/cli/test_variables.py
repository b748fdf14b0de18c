"""`variables`, and the notes of `add` and `apply`, on a node that measures something."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from constraint_crdt.cli import main
from constraint_crdt.client import Client
from tests.cli.process import running_node

pytestmark = pytest.mark.processes
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def measuring_url() -> Iterator[str]:
    """A node that has told the fleet that it measures speed_mps."""
    with running_node() as node:
        client = Client(node.url)
        client.add("slow", when="speed_mps < 2.0")
        client.measure({"speed_mps": 1.25, "robot.name": "r\u200b2"})
        until = time.monotonic() + 30
        while client.check_expression("speed_mps < 'fast'").ok:
            assert time.monotonic() < until, "the node tells its variables within seconds"
            time.sleep(0.05)  # polled: the node is another process
        yield node.url


def run(capsys: Capture, url: str, *argv: str) -> tuple[int, str, str]:
    return main([argv[0], "--node", url, *argv[1:]]), *capsys.readouterr()


def test_variables_are_listed_with_their_values_and_readers(measuring_url: str, capsys: Capture) -> None:
    code, out, err = run(capsys, measuring_url, "variables")
    assert (code, err) == (0, "")
    header, robot, speed = out.splitlines()
    assert header.split() == ["node", "variable", "kind", "value", "age", "max", "age", "source", "read", "by"]
    assert speed.split()[:4] == ["forge", "speed_mps", "double", "1.25"]
    assert speed.split()[-4:] == ["30", "s", "program", "slow"]
    assert robot.split()[:4] == ["forge", "robot.name", "string", '"r\\u200b2"']
    assert robot.endswith("no constraint")
    found = json.loads(run(capsys, measuring_url, "variables", "speed_mps", "--of", "forge", "--json")[1])
    assert [(each["name"], each["constraints"]) for each in found] == [("speed_mps", ["slow"])]
    assert run(capsys, measuring_url, "variables", "zzz", "--of", "forge")[1] == (
        "no variable zzz is measured by forge, as far as is known here\n"
    )
    assert run(capsys, measuring_url, "variables", "--of", "nope")[0] == 1


def test_an_addition_is_noted_where_no_node_can_decide_it(measuring_url: str, capsys: Capture) -> None:
    note = "note: no node measures sped_mps (speed_mps may be meant)\n"
    assert run(capsys, measuring_url, "add", "noted", "--when", "sped_mps < 1.0") == (0, f"noted: added\n{note}", "")
    waited = run(capsys, measuring_url, "add", "noted", "--when", "sped_mps < 1.5", "--wait", "all")[1]
    assert waited.startswith("noted: replaced")
    assert waited.endswith(note)
    answer = json.loads(run(capsys, measuring_url, "add", "noted", "--when", "sped_mps < 1.5", "--json")[1])
    assert answer["notes"] == ["no node measures sped_mps (speed_mps may be meant)"]
    code, out, err = run(capsys, measuring_url, "add", "refused", "--when", 'speed_mps < "fast"')
    assert (code, out) == (2, "")
    assert "column 11" in err
    run(capsys, measuring_url, "remove", "noted")


def test_apply_notes_each_constraint(measuring_url: str, capsys: Capture, tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text('[[constraint]]\nid = "a"\nwhen = "1 < 2"\n[[constraint]]\nid = "b"\nwhen = "speed_mps < 3.0"\n')
    assert run(capsys, measuring_url, "apply", str(file)) == (
        0,
        "a: added\nnote: a: the expression reads no measurement, so it is always satisfied\nb: added\n2 added\n",
        "",
    )
    answer = json.loads(run(capsys, measuring_url, "apply", str(file), "--json")[1])
    assert [each.get("notes") for each in answer] == [["the expression reads no measurement, so it is always satisfied"], None]
    run(capsys, measuring_url, "remove", "a")
    run(capsys, measuring_url, "remove", "b")


def test_status_and_doctor_tell_of_the_unknown(measuring_url: str, capsys: Capture) -> None:
    run(capsys, measuring_url, "add", "blind", "--when", "sped_mps < 1.0")
    Client(measuring_url).measure({"speed_mps": 1.25})  # it judges what is new
    status = json.loads(run(capsys, measuring_url, "status", "--json")[1])
    assert (status["unknown_here"], status["violated_anywhere"]) == (1, 0)
    assert "verdicts     0 violated on a node or more now, 1 unknown on this node" in run(capsys, measuring_url, "status")[1]
    out = run(capsys, measuring_url, "doctor")[1]
    assert "no node can decide blind (no node measures sped_mps (speed_mps may be meant))" in out
    run(capsys, measuring_url, "remove", "blind")
