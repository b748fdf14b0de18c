"""The `node` command as a process: ready, told to stop, and refused where it cannot start."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from constraint_crdt.cli import main
from constraint_crdt.cli.node import event_loop
from tests import fork_server
from tests.cli.process import EndTimer, command, environment, run_to_its_end, running_node
from tests.conftest import within

pytestmark = pytest.mark.processes

END_SECONDS = within(2.0)
LOG_LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d{4} (info|warning|error) \S.*")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_soon(number: signal.Signals) -> None:
    with running_node("--probe", "system") as node:
        assert main(["add", "--node", node.url, "ends\nwell", "--when", "cpu_percent <= 100.0"]) == 0
        with socket.create_connection(("127.0.0.1", int(node.url.rpartition(":")[2]))):
            timer = EndTimer(node.process)
            node.process.send_signal(number)
            took = timer.seconds()
            out, err = node.process.communicate(timeout=10)
    assert (node.process.returncode, out) == (0, "")
    assert took < END_SECONDS
    lines = [*node.log, *err.splitlines()]
    assert all(LOG_LINE.fullmatch(line) for line in lines)
    assert any(r"ends\nwell added: cpu_percent <= 100.0" in line for line in lines)


def test_it_ends_with_whoever_holds_its_stdin() -> None:
    with running_node("--while-stdin-open", stdin=subprocess.PIPE) as node:
        assert main(["status", "--node", node.url]) == 0
        timer = EndTimer(node.process)
        assert node.process.stdin is not None
        node.process.stdin.close()
        assert timer.seconds() < END_SECONDS
        node.process.stdin = None
        _, err = node.process.communicate(timeout=10)
    assert node.process.returncode == 0
    assert "whoever started this node is gone" in err


@pytest.mark.long
def test_the_end_comes_also_while_its_router_is_down() -> None:
    line = ["node", "--api", "127.0.0.1:0", "--role", "client", "--connect", "tcp/127.0.0.1:1"]
    with fork_server.start(line, stderr=subprocess.PIPE, env=environment()) as process:
        try:
            assert process.stderr is not None
            assert "no router answers" in process.stderr.readline()  # and it goes on trying
            timer = EndTimer(process)
            process.terminate()
            assert timer.seconds() < END_SECONDS
            assert process.wait(10) == 0
        finally:
            process.kill()


def test_a_taken_port_of_the_api_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run_to_its_end("--api", address)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"constraint-crdt node: cannot serve the API at {address}: the port is taken, so choose another with --api HOST:PORT\n"
    )


def test_a_taken_port_of_the_engine_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"tcp/127.0.0.1:{taken.getsockname()[1]}"
        done = run_to_its_end("--listen", endpoint)
    assert (done.returncode, done.stdout) == (1, "")
    assert endpoint in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--listen", "udp:1"], "endpoint 'udp:1'"),
        (["--connect", "tcp/127.0.0.1:0"], "port 0"),
        (["--role", "client"], "needs a router"),
        (["--probe", "nope"], "no probe 'nope'"),
        (["--api", "192.0.2.1:0"], "give --token-file FILE"),
        (["--config", "/nope/node.toml"], "/nope/node.toml"),
    ],
)
def test_a_wrong_setting_is_one_sentence(flags: list[str], says: str) -> None:
    done = run_to_its_end(*flags)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert done.stderr.startswith("constraint-crdt node: ")
    assert done.stderr.count("\n") == 1


NAMESPACE = ["unshare", "--map-root-user", "--net"]


@pytest.mark.long
def test_an_address_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    """In a network namespace, whose only address comes while the node waits."""
    if subprocess.run([*NAMESPACE, "ip", "link", "set", "lo", "up"], check=False, capture_output=True).returncode:
        (pytest.fail if os.environ.get("CI_REQUIRES_NAMESPACES") else pytest.skip)("this machine makes no network namespaces")
    tokens = tmp_path / "tokens"
    assert main(["token", "add", "t", "--role", "read", "--token-file", str(tokens)]) == 0
    flags = [
        "--name",
        "forge",
        "--api",
        "10.77.0.1:8470",
        "--listen",
        "tcp/10.77.0.1:7447",
        "--insecure",
        "--token-file",
        str(tokens),
    ]
    line = [*NAMESPACE, "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *command("node", *flags)]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True, env=environment()) as process:
        try:
            assert process.stderr is not None
            told = "waiting for 10.77.0.1:8470, 10.77.0.1:7447: this machine has no such address yet"
            assert any(told in each for each in process.stderr)
            inside = ["nsenter", f"--target={process.pid}", "--user", "--net", "--preserve-credentials", "ip"]
            subprocess.run([*inside, "address", "add", "10.77.0.1/32", "dev", "lo"], check=True)
            assert any(" ready name=forge api=http://10.77.0.1:8470 " in each for each in process.stderr)
        finally:
            process.kill()
    refused = subprocess.run(
        [*line, "--wait-for-address", "0"], check=False, capture_output=True, text=True, env=environment(), timeout=60
    )
    assert refused.returncode == 1
    assert "cannot serve the API at 10.77.0.1:8470: this machine has no such address" in refused.stderr.splitlines()[-1]


def test_its_settings_come_from_the_file_and_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('nmae = "x"\n')
    done = run_to_its_end(CONSTRAINT_CRDT_CONFIG=str(file))
    assert done.returncode == 2
    assert "`nmae`" in done.stderr
    assert "`name` may be meant" in done.stderr
    done = run_to_its_end(CONSTRAINT_CRDT_MAX_AGE="0")
    assert done.returncode == 2
    assert "CONSTRAINT_CRDT_MAX_AGE" in done.stderr


def test_the_event_loop_is_that_of_uvloop_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", SimpleNamespace(new_event_loop=object))
    assert event_loop() is object
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert event_loop() is None
