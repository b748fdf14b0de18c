"""The demo: it comes to its summary, and leaves no process behind, whatever ends it."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psutil
import pytest

from tests import fork_server
from tests.cli.process import command, environment

pytestmark = [pytest.mark.long, pytest.mark.processes]

GONE_SECONDS = 60.0
"""How long an end is waited for. A node ends within two seconds, on a machine that is busy with nothing else."""


def as_a_user(arguments: Sequence[str], **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(command(*arguments), text=True, **options)


@contextmanager
def running_demo(
    nodes: int = 2, started: Callable[..., subprocess.Popen[str]] = fork_server.start
) -> Iterator[subprocess.Popen[str]]:
    """A demo, ended however the block ends. Its nodes are started as a user starts them."""
    line = ["demo", "--nodes", str(nodes), "--seconds", "8"]
    # Settings of ours must not reach its nodes: with this one they would all refuse to start.
    own = environment(CONSTRAINT_CRDT_ROLE="king", PYTHONUNBUFFERED="1")
    with started(line, env=own, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def nodes_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def wait_for_a_change(process: subprocess.Popen[str]) -> None:
    """Until the fleet is up and has its first constraint."""
    assert process.stdout is not None
    for line in process.stdout:
        if "added" in line:
            return
    raise AssertionError("the demo ended before it changed anything")


def test_it_comes_to_its_summary() -> None:
    with running_demo(nodes=3, started=as_a_user) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "3 nodes are up, and each sees the others" in out
    assert "kill -9 node-3" in out
    assert re.search(r"node-3 serves after \S+ s; all 3 live nodes have it after \d+ ms", out)
    summary = out[out.index("what happened") :]
    for id_ in ("cpu_possible", "memory_spare", "disk_space", "load_bearable"):
        assert re.search(rf"added {id_}: .*\(on node-1\) +\d+ +[\d.]+ m?s\n", summary)
    assert re.search(r"edited memory_spare: .*\(on node-2\) +\d+ +[\d.]+ m?s\n", summary)
    assert re.search(r"The nodes wrote \d+ bytes in cells: \d+ for the changes", summary)
    assert re.search(r"The nodes sent \d+ bytes in \d+ s", summary)
    assert summary.endswith("Every node had every change.\n")
    # The edited constraint was violated everywhere and is satisfied now: its counts say both.
    counts = re.findall(r"memory_spare (\d+)/(\d+)", out)[-1]
    assert all(int(count) > 0 for count in counts)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)], ids=["SIGTERM", "SIGINT", "SIGKILL"]
)
def test_it_leaves_no_process_behind(number: signal.Signals, code: int) -> None:
    with running_demo() as process:
        wait_for_a_change(process)
        nodes = nodes_of(process)
        assert len(nodes) == 2
        process.send_signal(number)
        _, err = process.communicate(timeout=GONE_SECONDS)
        assert (process.returncode, err) == (code, "")
        _, alive = psutil.wait_procs(nodes, timeout=GONE_SECONDS)
        assert alive == []


def test_a_reader_that_goes_away_ends_it_and_its_nodes() -> None:
    with running_demo() as process:
        wait_for_a_change(process)
        nodes = nodes_of(process)
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(GONE_SECONDS) == 141
        _, alive = psutil.wait_procs(nodes, timeout=GONE_SECONDS)
        assert alive == []


def test_a_node_that_dies_is_no_success() -> None:
    with running_demo() as process:
        wait_for_a_change(process)
        began = time.monotonic()
        first = min(nodes_of(process), key=lambda node: node.create_time())
        os.kill(first.pid, signal.SIGKILL)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 1, (out, err, time.monotonic() - began)
    assert "Traceback" not in err
