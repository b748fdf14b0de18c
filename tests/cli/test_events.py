"""`events`: what was kept, and what happens while it is followed."""

import json
import signal
import subprocess
from pathlib import Path

import pytest

from constraint_crdt.cli import main
from tests import fork_server
from tests.cli.process import environment

Capture = pytest.CaptureFixture[str]


def test_what_happened_is_printed(node_url: str, capsys: Capture) -> None:
    for arguments in (["add", "seen", "--when", "x < 1.0"], ["remove", "seen"]):
        main([*arguments, "--node", node_url])
    capsys.readouterr()
    assert main(["events", "--node", node_url, "--last", "2"]) == 0
    added, removed = capsys.readouterr().out.splitlines()
    assert added.endswith("  added           seen: x < 1.0 (by local on forge)")
    assert removed.endswith("  removed         seen: was x < 1.0 (by local on forge)")
    assert main(["events", "--node", node_url, "--last", "2", "--kind", "removed", "--json"]) == 0
    (event,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (event["kind"], event["constraint"]) == ("removed", "seen")
    assert event["id"].count("-") == 1


@pytest.mark.processes
def test_what_happens_is_followed_until_it_is_interrupted(node_url: str, capsys: Capture) -> None:
    following = ["events", "--follow", "--last", "1", "--node", node_url]
    main(["add", "before", "--node", node_url])
    with fork_server.start(following, stdout=subprocess.PIPE, env=environment()) as process:
        assert process.stdout is not None
        assert process.stdout.readline().endswith("added           before (by local on forge)\n")
        main(["add", "meanwhile", "--node", node_url])
        assert process.stdout.readline().endswith("added           meanwhile (by local on forge)\n")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 130


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--kind", "noise"), 2, "there are added, changed"),
        (("--last", "10001"), 2, "at most 10000"),
        (("--follow", "--node", "127.0.0.1:9"), 1, "no node answers"),
        (("--node", "127.0.0.1:9"), 1, "no node answers"),
    ],
)
def test_mistakes_give_one_sentence(capsys: Capture, arguments: tuple[str, ...], code: int, says: str, tmp_path: Path) -> None:
    assert main(["events", *arguments]) == code
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert says in err
