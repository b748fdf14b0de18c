"""The commands on alerts, against a node: rules of the fleet, silences, acknowledgements, and a file of `apply`."""

import json
from pathlib import Path

import pytest

from constraint_crdt.cli import main
from constraint_crdt.client import Client

pytestmark = pytest.mark.processes
Capture = pytest.CaptureFixture[str]


def run(capsys: Capture, url: str, *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    return main([*words, "--node", url]), *capsys.readouterr()


def test_rules_silences_and_acknowledgements(node_url: str, capsys: Capture, tmp_path: Path) -> None:
    assert run(capsys, node_url, "alerts")[1].startswith("this node has no alerts: `constraint-crdt alerts add`")
    assert run(capsys, node_url, "alerts", "list")[1].startswith("no alert rule")
    words = ("--kind", "conflict", "--constraint", "th*", "--for", "0", "--to", "ops")
    code, out, _ = run(capsys, node_url, "alerts", "add", "split", *words)
    assert (code, out.splitlines()[0]) == (0, "split: added")
    assert "no live node has the destination ops of split" in out
    assert run(capsys, node_url, "alerts", "add", "split", *words)[1].startswith("split: unchanged")
    assert run(capsys, node_url, "alerts", "add", "split", *words, "--repeat", "4h")[1].startswith("split: replaced")
    shown = run(capsys, node_url, "alerts", "list")[1].splitlines()
    assert shown[1].split()[:7] == ["split", "conflict", "th*", "-", "0s", "ops", "the"]
    (rule,) = Client(node_url).alerts().rules
    assert (rule.of_fleet, rule.repeat, rule.lacking, rule.keeps) == (True, 14_400.0, ("ops",), 15.0)
    for wrong, says in (
        (("--kind", "noise"), "there is no kind 'noise'"),
        (("--kind", "rate"), "takes one of `above`"),
        (("--kind", "silence", "--to", "https://ops.example/T0KEN"), "every node reads a rule of the fleet"),
        (("--kind", "silence", "--on", "zone in"), "expected `(`"),
    ):
        code, _, err = run(capsys, node_url, "alerts", "add", "wrong", *wrong)
        assert (code != 0, says in err, "T0KEN" in err) == (True, True, False)
    assert run(capsys, node_url, "silences")[1] == "no silence and no acknowledgement is in force\n"
    code, out, _ = run(capsys, node_url, "silence", "th*", "--on", "zone=a", "--for", "2h", "--why", "being moved")
    id_ = out.partition(":")[0]
    assert (code, out) == (0, f"{id_}: th* on zone=a is silenced; it ends in 2 h\n")
    listed = run(capsys, node_url, "silences")[1].splitlines()[1]
    assert listed.split()[:4] == [id_, "silence", "th*", "zone=a"]
    assert listed.endswith("being moved")
    assert run(capsys, node_url, "silence", "x", "--why", " ")[0] == 2
    assert run(capsys, node_url, "silence", "x")[0] == 2
    assert run(capsys, node_url, "silence", "x", "--why", "y", "--for", "9999d")[0] != 0
    assert run(capsys, node_url, "unsilence", id_)[1] == f"{id_}: the silence of th* is over\n"
    assert "`constraint-crdt silences` lists them" in run(capsys, node_url, "unsilence", id_)[2]
    assert "no alert 'split' fires here" in run(capsys, node_url, "acknowledge", "split")[2]
    assert run(capsys, node_url, "alerts", "remove", "split")[1] == "split: removed\n"
    assert "no alert rule 'split'" in run(capsys, node_url, "alerts", "remove", "split")[2]

    file = tmp_path / "rules.toml"
    file.write_text('[[alert]]\nname = "away"\nkind = "silence"\nfor = "1m"\n')
    assert run(capsys, node_url, "apply", str(file), "--dry-run")[1].startswith("away: added")
    assert run(capsys, node_url, "apply", str(file))[1].startswith("away: added")
    assert run(capsys, node_url, "apply", str(file))[1].startswith("away: unchanged")
    assert [each.lasts for each in Client(node_url).alerts().rules] == [60.0]
    assert run(capsys, node_url, "apply", str(file), "--dry-run")[1].startswith("away: unchanged")
    file.write_text(file.read_text().replace("1m", "2m"))
    assert run(capsys, node_url, "apply", str(file), "--dry-run")[1].startswith("away: replaced")
    file.write_text('[[alert]]\nname = "away"\nkind = "noise"\n')
    assert "[[alert]]: alert 1 (away): there is no kind 'noise'" in run(capsys, node_url, "apply", str(file))[2]
    assert run(capsys, node_url, "alerts", "remove", "away", "--json")[0] == 0

    rate = ("--kind", "rate", "--constraint", 'a "b"*', "--above", "6", "--repeat", "4h", "--to", "ops")
    assert run(capsys, node_url, "alerts", "add", "hot", *rate)[0] == 0
    assert run(capsys, node_url, "alerts", "add", "split", "--kind", "unknown", "--on", "zone in (a, b)")[0] == 0
    before = Client(node_url).alerts().rules
    exported = tmp_path / "exported.toml"
    code, out, _ = run(capsys, node_url, "export", "--constraints", "-o", str(exported))
    assert (code, "and 2 alert rules;" in out) == (0, True)
    for flags in (["--dry-run"], []):
        told = run(capsys, node_url, "apply", str(exported), *flags)[1].splitlines()
        assert {"hot: unchanged", "split: unchanged"} <= set(told)
    for name in ("hot", "split"):
        assert run(capsys, node_url, "alerts", "remove", name)[0] == 0
    assert "hot: added" in run(capsys, node_url, "apply", str(exported))[1]
    assert Client(node_url).alerts().rules == before
    for name in ("hot", "split"):
        assert run(capsys, node_url, "alerts", "remove", name)[0] == 0
    changed = {each["operation"] for each in json.loads(run(capsys, node_url, "audit", "--json")[1])}
    assert {"silence", "unsilence", "alert rule", "remove alert rule"} <= changed
