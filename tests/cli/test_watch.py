"""`watch` on a terminal of its own, and what it shows first."""

import os
import pty
import signal
import subprocess
from typing import Any

import pytest

from constraint_crdt.cli import watch as watching
from constraint_crdt.cli.client import ApiClient
from constraint_crdt.cli.main import main
from tests.cli.process import command, environment, running_node

Capture = pytest.CaptureFixture[str]


def shown(url: str, until: str) -> tuple[str, int]:
    """What `watch` draws until it shows a text, and its exit code after Ctrl-C."""
    mine, its = pty.openpty()
    watching = subprocess.Popen(
        command("watch", "--node", url, "--every", "0.2s"),
        stdout=its, stdin=its, stderr=its, env=environment(TERM="xterm", COLUMNS="120", LINES="40"),
    )  # fmt: skip
    os.close(its)
    seen = ""
    while until not in seen:
        seen += os.read(mine, 65536).decode(errors="replace")
    watching.send_signal(signal.SIGINT)
    drawn = bytearray()
    try:
        while data := os.read(mine, 65536):
            drawn += data
    except OSError:  # the other end of the terminal is gone
        pass
    os.close(mine)
    return seen, watching.wait(timeout=10)


def test_it_shows_the_fleet_until_it_is_interrupted(node_url: str, capsys: Capture) -> None:
    main(["add", "watched", "--when", "x < 1.0", "--node", node_url])
    main(["check", "x=2", "--node", node_url])
    seen, code = shown(node_url, "watched")
    assert code == 130
    assert "1 of 1 live nodes enforce the same" in seen


@pytest.mark.processes
def test_a_node_that_is_gone_is_said_and_asked_again() -> None:
    with running_node() as node:
        client = ApiClient(node.url)
        assert "live nodes enforce" in _text(watching.picture(client, 5))
        node.stop()
        assert "no node answers" in _text(watching.picture(client, 5))


def _text(picture: Any) -> str:
    from rich.console import Console

    console = Console(width=140, record=True, file=open(os.devnull, "w"))  # noqa: SIM115 - closed with the console
    console.print(picture)
    text = console.export_text()
    console.file.close()
    return text


def test_what_needs_an_eye_is_first() -> None:
    def constraint(id_: str, now: int) -> dict[str, Any]:
        return {
            "id": id_, "severity": "warning", "when": None, "violated_now": now, "violated_on": now, "violated_since": None,
            "satisfied": 1, "violations": now,
        }  # fmt: skip

    rows = watching.constraint_rows({"constraints": [constraint("a", 0), constraint("b", 1), constraint("c", 3)]}, 2)
    assert [row[0] for row in rows] == ["c", "b", "and 1 more"]

    def node(name: str, state: str | None) -> dict[str, Any]:
        convergence = None if state is None else {"state": state, "since": None, "behind": None}
        return {"node": name, "live": True, "retired": False, "satisfied": 0, "violations": 0, "convergence": convergence}

    rows = watching.node_rows([node("a", None), node("b", "same"), node("c", "unreachable")], 9)
    assert [row[:3] for row in rows] == [["c", "yes", "unreachable"], ["a", "yes", "this node"], ["b", "yes", "same"]]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [((), "draws on a terminal"), (("--json",), "draws on a terminal"), (("--every", "0.01s"), "0.2 seconds or more")],
)
def test_where_it_cannot_draw_it_says_so(capsys: Capture, arguments: tuple[str, ...], says: str) -> None:
    assert main(["watch", *arguments]) == 2
    assert says in capsys.readouterr().err
