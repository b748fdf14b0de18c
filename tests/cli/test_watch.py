"""`watch` on a terminal of its own, and what it shows first."""

import os
import pty
import signal
from typing import Any

import msgspec
import pytest

from constraint_crdt.cli import main
from constraint_crdt.cli import watch as watching
from constraint_crdt.client import Client
from constraint_crdt.operations.counts import ConstraintOverview, OverviewReport
from constraint_crdt.operations.evidence import PeerConvergence
from constraint_crdt.operations.nodes import NodeReport
from tests import fork_server
from tests.cli.process import environment, running_node

Capture = pytest.CaptureFixture[str]


def shown(url: str, until: str) -> tuple[str, int]:
    """What `watch` draws until it shows a text, and its exit code after Ctrl-C."""
    mine, its = pty.openpty()
    line = ["watch", "--node", url, "--every", "0.2s"]
    terminal = environment(TERM="xterm", COLUMNS="120", LINES="40")
    watching = fork_server.start(line, stdout=its, stdin=its, stderr=its, env=terminal)
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
    assert "1 of 1 live node enforces the same" in seen


@pytest.mark.processes
def test_a_node_that_is_gone_is_said_and_asked_again() -> None:
    with running_node() as node:
        client = Client(node.url)
        assert "1 of 1 live node enforces" in _text(watching.picture(client, 5))
        node.stop()
        assert "no node answers" in _text(watching.picture(client, 5))


def _text(picture: Any) -> str:
    from rich.console import Console

    console = Console(width=140, record=True, file=open(os.devnull, "w"))  # noqa: SIM115 - closed with the console
    console.print(picture)
    text = console.export_text()
    console.file.close()
    return text


def test_a_row_has_the_state_here_the_nodes_with_a_violation_and_the_share_of_the_time() -> None:
    told = ConstraintOverview(
        id="a", when="x < 1", severity="warning", about=None, on={}, added_by="a", added_at=None, expires_at=None, for_=30.0,
        applies_here=True, definitions=1, satisfied=4, violations=5, verdict="violated", reason="", lately=(), evaluated_on=3,
        violated_now=4, violated_since=980 * 10**9, violated_on=5, worst=("b", "c", "d"), covered=None,
        state="pending", since=988 * 10**9, held=0.9993,
    )  # fmt: skip
    (row,) = watching.constraint_rows(OverviewReport(half_lives=(), total=1, next=None, constraints=(told,)), 2, 1000.0)
    assert dict(zip(watching.CONSTRAINT_TITLES, row, strict=True)) == {
        "constraint": "a", "severity": "warning", "when": "x < 1", "here": "pending 12 s of 30 s", "violated on": "b, c, d, 1 more",
        "since": "20 s ago", "judged satisfied": "4", "judged violated": "5", "held of the time": "99.93 %",
    }  # fmt: skip


def test_what_needs_an_eye_is_first() -> None:
    def constraint(id_: str, now: int) -> ConstraintOverview:
        return ConstraintOverview(
            id=id_, when=None, severity="warning", about=None, on={}, added_by="a", added_at=None, expires_at=None,
            applies_here=True, definitions=1, satisfied=1, violations=now, verdict=None, reason="", lately=(), evaluated_on=now,
            violated_now=now, violated_since=None, violated_on=now, worst=(), covered=None,
        )  # fmt: skip

    listed = (constraint("a", 0), constraint("b", 1), constraint("c", 3))
    rows = watching.constraint_rows(OverviewReport(half_lives=(), total=3, next=None, constraints=listed), 2, 0.0)
    assert [row[0] for row in rows] == ["c", "b", "and 1 more"]
    assert len({len(row) for row in [*rows, watching.CONSTRAINT_TITLES]}) == 1

    def node(name: str, state: str | None) -> NodeReport:
        convergence = None if state is None else PeerConvergence(
            node=name, state=state, since=None, behind=None, ahead=None, staleness=None, heard=None
        )  # fmt: skip
        return NodeReport(
            node=name, live=True, satisfied=0, violations=0, position=None, same_constraints=True, same_state=True, software="",
            labels={}, clock_offset=None, retired=False, convergence=convergence,
        )  # fmt: skip

    rows = watching.node_rows([node("a", None), node("b", "same"), node("c", "unreachable")], 9, 0.0)
    assert [row[:3] for row in rows] == [["c", "yes", "unreachable"], ["a", "yes", "this node"], ["b", "yes", "same"]]
    revoked = msgspec.structs.replace(node("c", "unreachable"), live=False, revoked=True)
    assert [row[2] for row in watching.node_rows([node("b", "apart"), revoked], 9, 0.0)] == ["apart", "revoked"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [((), "draws on a terminal"), (("--json",), "draws on a terminal"), (("--every", "0.01s"), "0.2 seconds or more")],
)
def test_where_it_cannot_draw_it_says_so(capsys: Capture, arguments: tuple[str, ...], says: str) -> None:
    assert main(["watch", *arguments]) == 2
    assert says in capsys.readouterr().err
