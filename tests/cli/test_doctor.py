"""`doctor`, `coverage`, `explain`, `convergence`, `alerts` and `--wait` as a user of one node sees them."""

import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from constraint_crdt.cli import main
from tests.cli.process import running_node

Capture = pytest.CaptureFixture[str]


def run(capsys: Capture, *argv: str) -> tuple[int, str, str]:
    return main(list(argv)), *capsys.readouterr()


def levels(out: str) -> dict[str, str]:
    answer: Any = json.loads(out)
    return {each["check"]: each["level"] for each in answer["findings"]}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def test_a_node_that_is_well(node_url: str, capsys: Capture) -> None:
    code, out, err = run(capsys, "doctor", "--node", node_url)
    assert (code, err) == (0, "")
    assert all(line.startswith("OK ") for line in out.splitlines())
    assert "forge answers at" in out
    assert levels(run(capsys, "doctor", "--node", node_url, "--json")[1])["seeds"] == "ok"


def test_no_node_and_what_it_would_meet(tmp_path: Path, capsys: Capture) -> None:
    file, store, port = tmp_path / "node.toml", tmp_path / "n.db", free_port()
    store.write_bytes(b"no store at all, but a text")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = taken.getsockname()[1]
        file.write_text(f'name = "n"\napi = "127.0.0.1:{busy}"\nstore = "{store}"\nconnect = ["tcp/127.0.0.1:{port}"]\n')
        arguments = ("--node", f"127.0.0.1:{port}", "--config", str(file))
        code, out, err = run(capsys, "doctor", *arguments, "--json")
        assert (code, err) == (1, "")
        expected = {"settings": "ok", "node": "fail", "port": "fail", "seeds": "fail", "store": "fail", "disk": "ok"}
        assert {check: level for check, level in levels(out).items() if check in expected} == expected
        assert "`constraint-crdt node --rejoin`" in run(capsys, "doctor", *arguments)[1]


@pytest.mark.processes
def test_settings_that_are_wrong_and_a_stranger(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "node.toml"
    file.write_text("nam = 3\n")
    with running_node() as node:
        code, out, _ = run(capsys, "doctor", "--node", node.url, "--config", str(file), "--json")
        assert (code, levels(out)["settings"], levels(out)["node"]) == (1, "fail", "ok")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        greeting = threading.Thread(target=greet, args=(listening,))
        greeting.start()
        code, out, err = run(capsys, "doctor", "--node", f"127.0.0.1:{listening.getsockname()[1]}", "--json")
        assert (code, levels(out)["node"], err) == (1, "fail", "")
        greeting.join()


def greet(listening: socket.socket) -> None:
    """Answer one caller as no node does."""
    caller, _ = listening.accept()
    with caller:
        caller.sendall(b"hello, who is there?\r\n")


def test_waiting_and_what_is_known_of_a_constraint(node_url: str, capsys: Capture) -> None:
    asked = ("--node", node_url)
    assert run(capsys, "add", "w1", *asked, "--when", "x < 1.0", "--wait", "all")[:2] == (0, "w1: added; 1 of 1 node has it\n")
    code, out, err = run(capsys, "add", "w1", *asked, "--when", "x < 2.0", "--wait", "2", "--timeout", "0.1s")
    edited = "w1: replaced: it was active with another definition\n  when: x < 1.0 -> x < 2.0\n"
    assert (code, out) == (1, f"{edited}  loosens: it allows x = 1.0, which was forbidden\n")
    assert err == (
        "constraint-crdt add: w1: it is done here, but only 1 of 1 node has it, where 2 were asked for: there are no more\n"
    )
    code, out, _ = run(capsys, "coverage", "w1", *asked)
    assert (code, out.splitlines()[0]) == (0, "w1: active; 1 of 1 node has it, 0 lack it")
    code, out, _ = run(capsys, "explain", "w1", *asked)
    assert code == 0
    assert "x < 2.0 (warning)" in out
    assert "added by     local on forge, 0 s ago, known here 0 s ago; kept alive by forge~" in out
    assert run(capsys, "convergence", *asked)[1].startswith("0 of 0 live peers have the same as forge; staleness p50 -")
    assert run(capsys, "remove", "w1", *asked, "--wait", "majority")[:2] == (0, "w1: removed; 1 of 1 node has it\n")
    code, out, _ = run(capsys, "explain", "w1", *asked)
    assert (code, out.splitlines()[0]) == (0, "w1: not active")
    assert "removal      by local on forge (forge~" in out
    assert run(capsys, "coverage", "nope", *asked)[0] == 1
    assert "this node has no alerts" in run(capsys, "alerts", *asked)[1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("add", "x", "--wait", "some"), "none of all, live, majority"),
        (("add", "x", "--wait", "0"), "none of all, live, majority"),
        (("add", "x", "--timeout", "3s"), "--timeout says how long --wait waits"),
        (("remove", "x", "--wait", "all", "--timeout", "soon"), "not a length of time"),
        (("apply", "x.toml", "--wait", "all", "--dry-run"), "leave out --wait"),
    ],
)
def test_a_wrong_wait_is_refused_before_anything_is_written(capsys: Capture, arguments: tuple[str, ...], says: str) -> None:
    code, out, err = run(capsys, *arguments, "--node", "127.0.0.1:9")
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1


def test_applying_waits_for_all_of_it(node_url: str, tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "c.toml"
    file.write_text('[[constraint]]\nid = "applied"\n')
    code, out, _ = run(capsys, "apply", str(file), "--node", node_url, "--wait", "all")
    assert (code, out.splitlines()[-1]) == (0, "1 added; 1 of 1 node has it")


@pytest.mark.long
@pytest.mark.processes
def test_alerts_show_what_fires(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "node.toml"
    file.write_text('[[alert]]\nname = "hot"\nkind = "rate"\nabove = 0.0\nto = ["log", "http://127.0.0.1:9/s3cret"]\n')
    with running_node("--config", str(file)) as node:
        asked = ("--node", node.url)
        run(capsys, "add", "t", *asked)
        run(capsys, "record", "--violations", "3", "--constraint", "t", *asked)
        answer: Any = {"alerts": []}
        while not any(each["firing"] for each in answer["alerts"]):
            answer = json.loads(run(capsys, "alerts", *asked, "--json")[1])
        out = run(capsys, "alerts", *asked)[1]
        assert out.startswith("firing: 1, about to fire: 0, rules: 1")
        assert "violated judgements a minute" in out
        assert "s3cret" not in json.dumps(answer)
        log = "\n".join(node.stop())
        assert "alert hot: t:" in log
        assert "s3cret" not in log
