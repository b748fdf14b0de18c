"""`apply --stage` and the commands on rollouts, against a node."""

import json
from pathlib import Path

import pytest

from constraint_crdt.cli import main
from constraint_crdt.cli.constraints import parse_stages
from constraint_crdt.client import Client, Happened

Capture = pytest.CaptureFixture[str]
OLD = '[[constraint]]\nid = "speed"\nwhen = "v <= 1.0"\n'
NEW = '[[constraint]]\nid = "speed"\nwhen = "v <= 0.8"\n\n[[constraint]]\nid = "fresh"\nwhen = "w < 2.0"\n'
HERE = ("--stage", "!zone;!never")


@pytest.mark.parametrize(
    ("texts", "stages"),
    [
        (["zone=a,zone=b"], ["zone=a", "zone=b"]),
        (["zone=a, zone in (b, c)"], ["zone=a", "zone in (b, c)"]),
        (["zone=a,model!=x7;zone=b"], ["zone=a,model!=x7", "zone=b"]),
        (["zone=a,model!=x7;"], ["zone=a,model!=x7"]),
        (["zone=a,model!=x7", "zone=b"], ["zone=a,model!=x7", "zone=b"]),
        (['zone="a,;b",zone="\\",("'], ['zone="a,;b"', 'zone="\\",("']),
        (["zone=a,"], ["zone=a", ""]),
    ],
)
def test_stages_are_repeated_or_separated(texts: list[str], stages: list[str]) -> None:
    assert parse_stages(texts) == stages


def run(capsys: Capture, url: str, *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    return main([*words, "--node", url]), *capsys.readouterr()


@pytest.mark.processes
def test_a_rollout_by_the_command_line(node_url: str, capsys: Capture, tmp_path: Path) -> None:
    old, new, beside = tmp_path / "old.toml", tmp_path / "new.toml", tmp_path / "beside.toml"
    old.write_text(OLD)
    new.write_text(NEW)
    beside.write_text(NEW + "\n[parameters]\nlimit = 1.5\n")
    run(capsys, node_url, "apply", str(old))
    assert run(capsys, node_url, "rollout", "list")[1].startswith("no rollout: `constraint-crdt apply FILE --stage SELECTOR`")
    for words, says in (
        (("--gate", "violations == 0"), "--gate is for stages, and there are none"),
        (("--stage-timeout", "5m"), "--stage-timeout is for stages"),
        ((*HERE, "--prune"), "--prune removes constraints at once"),
        ((*HERE, "--wait", "all"), "stages go on by themselves"),
        (("--stage", "zone=a"), "stage 1, zone=a: no node with these labels is known here"),
        (("--stage", "!zone,"), "stage 2 is empty"),
        (("--stage", "!zone", "--stage", "!zone"), "stage 2 is stage 1 again"),
        (("--stage", "zone in"), "stage 1: "),
        ((*HERE, "--gate", "violations = 0 for 1m"), "`=` is not CEL: write `==`"),
        ((*HERE, "--gate", "violation == 0"), "reads violation, which no gate has: there are violations, violated"),
        ((*HERE, "--gate", "violations == 0 for ages"), "'ages' is not a length of time"),
        ((*HERE, "--gate", "violations"), "the gate 'violations'"),
        ((*HERE, "--stage-timeout", "0"), "is not a length of time"),
    ):
        code, out, err = run(capsys, node_url, "apply", str(new), *words)
        assert (code, out) == (2, ""), words
        assert says in err
    assert "also changes param.limit: apply that first" in run(capsys, node_url, "apply", str(beside), *HERE)[2]
    code, out, _ = run(capsys, node_url, "apply", str(new), *HERE, "--dry-run")
    assert out.splitlines() == [
        "speed: replaced", '  when: "v <= 1.0" -> "v <= 0.8"', "  tightens: it forbids v = 1.0, which was allowed", "fresh: added",
        "stage 1: !zone", "stage 2: !never",
        "would be: 1 added, 1 replaced (dry run, nothing was sent)",
    ]  # fmt: skip

    code, out, _ = run(capsys, node_url, "apply", str(new), *HERE, "--why", "slower is safer")
    assert (code, out.splitlines()[:3]) == (
        0, ["speed: replaced", '  when: "v <= 1.0" -> "v <= 0.8"', "  tightens: it forbids v = 1.0, which was allowed"]
    )  # fmt: skip
    (rollout,) = Client(node_url).rollouts()
    id_ = rollout.id
    assert f"{id_}: running, stage 1 of 2" in out
    assert (rollout.gate, rollout.why, rollout.new) == ("violations == 0 for 10m", "slower is safer", ("fresh",))
    assert "rollout " + id_ in run(capsys, node_url, "apply", str(new), *HERE)[2], "it has these constraints already"
    exported = tmp_path / "exported.toml"
    _, out, _ = run(capsys, node_url, "export", "--constraints", "-o", str(exported))
    note = f"rollout {id_} is not complete: fresh, speed are written as before it"
    assert out.splitlines()[0] == f"note: {note}"
    assert exported.read_text().startswith(f"# {note}\n")
    assert 'when = "v <= 1.0"' in exported.read_text()
    assert run(capsys, node_url, "apply", str(exported), "--dry-run")[0] == 0
    shown = run(capsys, node_url, "rollout", "show", id_[:4])[1]
    assert "constraints: fresh (new), speed" in shown
    assert f"rollout {id_}, here: v <= 0.8" in run(capsys, node_url, "constraints")[1]
    assert f"{id_}: running" in run(capsys, node_url, "status")[1]
    code, out, _ = run(capsys, node_url, "rollout", "stop", id_, "--why", "the dock is closed")
    assert (code, out) == (0, f"{id_}: STOPPED in stage 1 of 2: the dock is closed\n")
    assert f"WARNING: rollout stopped: {id_}" in run(capsys, node_url, "status", "--check")[1]
    assert f"rollout {id_}, stage 1 of 2, stopped: the dock is closed" in run(capsys, node_url, "doctor")[1]
    assert run(capsys, node_url, "rollout", "stop", id_)[2] == f"constraint-crdt rollout: rollout {id_} is stopped\n"
    assert run(capsys, node_url, "rollout", "continue", id_)[1].startswith(f"{id_}: running, stage 1 of 2")
    assert "`constraint-crdt rollout list` tells their ids" in run(capsys, node_url, "rollout", "show", "zz")[2]
    code, out, _ = run(capsys, node_url, "rollout", "back", id_, "--why", "false alarms")
    assert (code, out) == (0, f"{id_}: rolled back, as before: fresh, speed\n")
    (constraint,) = Client(node_url).constraints()
    assert (constraint.when, constraint.staged) == ("v <= 1.0", None)
    assert json.loads(run(capsys, node_url, "rollout", "list", "--json")[1])[0]["phase"] == "rolled back"
    events = Client(node_url).events(last=100, kinds=("rollout",), follow=False)
    told = [each.event.detail for each in events if isinstance(each, Happened)]
    assert [each.removeprefix(f"{id_}: ") for each in told] == [
        "stage 1 of 2 began, !zone", "stopped in stage 1 of 2: the dock is closed", "stage 1 of 2 began, !zone",
        "rolled back: false alarms",
    ]  # fmt: skip


@pytest.mark.processes
def test_stages_that_loosen_what_is_critical_say_so(node_url: str, capsys: Capture, tmp_path: Path) -> None:
    """The defect: `apply --stage --dry-run` showed the edits without their meaning, and no refusal."""
    path = tmp_path / "rules.toml"
    path.write_text(OLD.replace("speed", "brake").replace("when", 'severity = "critical"\nwhen'))
    assert run(capsys, node_url, "apply", str(path))[0] == 0
    path.write_text(path.read_text().replace("1.0", "9.0"))
    code, out, err = run(capsys, node_url, "apply", str(path), *HERE, "--dry-run")
    assert (code, err) == (
        1, "constraint-crdt apply: it would be refused: it loosens what is critical: brake: say --loosen if it is meant\n"
    )  # fmt: skip
    assert "  loosens: it allows v = " in out
    code, out, err = run(capsys, node_url, "apply", str(path), *HERE, "--dry-run", "--loosen")
    assert (code, err) == (0, "")
    assert "  loosens: it allows v = " in out
    assert run(capsys, node_url, "remove", "brake")[0] == 0, "for the other tests of this node"
