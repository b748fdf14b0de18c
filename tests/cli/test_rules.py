"""The life of rules on the command line: decide, and the last decisions."""

import json
from contextlib import closing

import pytest

from constraint_crdt.cli import main
from constraint_crdt.client import Client

Capture = pytest.CaptureFixture[str]


def run(capsys: Capture, url: str, *argv: str) -> tuple[int, str, str]:
    code = main([argv[0], "--node", url, *argv[1:]])
    return code, *capsys.readouterr()


def test_the_exit_code_of_decide_is_the_decision(node_url: str, capsys: Capture) -> None:
    with closing(Client(node_url)) as client:
        client.add("speed", when="speed_mps <= 1.5", severity="critical")
        client.add("near", when="distance_m > 0.5", if_unknown="violated")
        code, out, err = run(capsys, node_url, "decide", "speed_mps=1.0", "distance_m=1")
        assert (code, err) == (0, "")
        assert out.startswith("allowed: 0 violated, 0 undecided, 2 hold (decision ")
        code, out, err = run(capsys, node_url, "decide", "speed_mps=2.0")
        assert (code, err) == (1, "")
        assert out.startswith("NOT ALLOWED: 1 violated, 1 undecided, 0 hold")
        assert "speed_mps = 2.0, 0.5 above the limit (33.3 %)" in out
        assert "unknown, counts as violated" in out
        assert "no measurement of distance_m" in out
        code, out, _ = run(capsys, node_url, "decide", "speed_mps=2.0", "--json")
        assert (code, json.loads(out)["allowed"]) == (1, False)
        assert run(capsys, node_url, "decide", "speed")[0] == 2
        assert "2.0" in run(capsys, node_url, "decisions")[1]
        lines = run(capsys, node_url, "decisions", "--json")[1].splitlines()
        assert [json.loads(line)["allowed"] for line in lines] == [True, False, False]
        assert [each.id for each in client.decisions()] == [json.loads(line)["id"] for line in lines]
        assert client.status().satisfied == client.status().violations == 0
        client.remove("speed")
        client.remove("near")
