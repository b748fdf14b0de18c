"""A node under a supervisor: what it tells by `sd_notify`, and what a container takes away from it."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from constraint_crdt.cli.node import tell_supervisor, watchdog_pause
from constraint_crdt.client import Client
from tests.cli.process import command, environment, running_node


@pytest.mark.processes
def test_a_node_tells_that_it_is_ready_lives_and_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        supervisor.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "100000")
        with running_node() as node:
            assert supervisor.recv(1000).startswith(b"READY=1\nSTATUS=")
            assert supervisor.recv(1000) == b"WATCHDOG=1\nSTATUS=ready"
            assert supervisor.recv(1000) == b"WATCHDOG=1\nSTATUS=ready"
            node.stop()
        told = b""
        while told != b"STOPPING=1":
            told = supervisor.recv(1000)


def test_without_a_supervisor_nothing_is_told(tmp_path: Path) -> None:
    assert not tell_supervisor("READY=1", {})
    assert not tell_supervisor("READY=1", {"NOTIFY_SOCKET": "relative"})
    assert not tell_supervisor("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "gone")})


@pytest.mark.parametrize(
    ("environ", "pause"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "7"}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_pause_of_the_watchdog(environ: dict[str, str], pause: float | None) -> None:
    assert watchdog_pause(environ, 7) == pause


@pytest.mark.long
@pytest.mark.processes
def test_it_runs_as_a_user_without_a_name_and_a_home(tmp_path: Path) -> None:
    """As in `docker run --user 12345` with a volume for the store: the user has no entry in the database, and no `$HOME`."""
    unshare = shutil.which("unshare")
    as_other = [unshare or "", "--user", "--map-user=12345", "--map-group=12345"]
    if unshare is None or subprocess.run([*as_other, "true"], check=False, capture_output=True).returncode:
        assert not os.environ.get("CI_REQUIRES_NAMESPACES")
        pytest.skip("needs user namespaces, and unshare of util-linux")
    line = [sys.executable, "-m", "constraint_crdt", "node", "--name", "a", "--api", "127.0.0.1:0", "--while-stdin-open"]
    for given in ({"XDG_STATE_HOME": str(tmp_path)}, {"CONSTRAINT_CRDT_STORE": str(tmp_path / "b.db")}):
        environ = {"PATH": os.defpath, "XDG_RUNTIME_DIR": str(tmp_path), **given}
        with subprocess.Popen([*as_other, *line], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ) as process:
            assert process.stderr is not None
            log = ""
            while "ready name=a" not in log:
                log += process.stderr.readline() or pytest.fail(log)
            process.communicate(timeout=60)  # ends its input
            assert process.returncode == 0
    assert (tmp_path / "constraint-crdt" / "default" / "a.db").exists()
    assert (tmp_path / "b.db").exists()


def _zombies() -> list[str]:
    """The processes of this user's machine that ended, and whose parent did not ask."""
    return [stat for each in Path("/proc").glob("[0-9]*/stat") if ") Z " in (stat := _read(each)) and "(left-behind)" in stat]


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


@pytest.mark.long
@pytest.mark.processes
def test_as_process_1_it_passes_signals_on_and_leaves_no_zombies(tmp_path: Path) -> None:
    """As in a container. The command of a source leaves a process behind each time."""
    inside = ["unshare", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if subprocess.run([*inside, "true"], check=False, capture_output=True).returncode:
        (pytest.fail if os.environ.get("CI_REQUIRES_NAMESPACES") else pytest.skip)("this machine makes no namespaces of processes")
    runs, program = tmp_path / "runs", tmp_path / "left-behind"
    program.symlink_to(shutil.which("sleep") or "")
    script = f"({program} 0.01 &); echo x >> {runs}; echo 1"
    (tmp_path / "node.toml").write_text(
        f"[[source]]\nname = 's'\nkind = 'command'\ncommand = ['sh', '-c', '{script}']\nformat = 'number'\nevery = 0.05\n"
    )
    flags = ["--name", "forge", "--api", "127.0.0.1:0", "--config", str(tmp_path / "node.toml")]
    with subprocess.Popen([*inside, *command("node", *flags)], stderr=subprocess.PIPE, text=True, env=environment()) as process:
        try:
            assert process.stderr is not None
            assert any(" ready " in line for line in process.stderr)
            ends = time.monotonic() + 60
            while len(_read(runs)) < 20 or _zombies():
                assert time.monotonic() < ends, _zombies()
            [first] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            os.kill(int(first), signal.SIGTERM)
            assert any("forge stopped" in line for line in process.stderr)
            assert process.wait(30) == 0
        finally:
            process.kill()


@pytest.mark.long
@pytest.mark.processes
def test_an_input_that_has_no_end_to_wait_for_is_refused() -> None:
    line = [sys.executable, "-m", "constraint_crdt", "node", "--name", "a", "--store", "memory", "--api", "127.0.0.1:0"]
    done = subprocess.run(
        [*line, "--while-stdin-open"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert done.stderr.endswith("--while-stdin-open needs a pipe or a terminal as its input\n")


TOKEN = "abcdefgh01234567"
OPS = '[destinations]\nops = "http://127.0.0.1:1/x"\n'


def _alert(name: str, to: str = "log") -> str:
    return f'[[alert]]\nname = "{name}"\nkind = "silence"\nto = ["{to}"]\n'


@pytest.mark.processes
def test_sighup_takes_over_labels_rules_tokens_and_the_level_and_names_what_needs_a_restart(tmp_path: Path) -> None:
    file, tokens = tmp_path / "node.toml", tmp_path / "tokens"
    file.write_text(f'labels = {{ zone = "a" }}\n{(alert := _alert("old"))}')
    tokens.write_text(f"operate {TOKEN}\n")
    tokens.chmod(0o600)
    with running_node("--config", str(file), "--token-file", str(tokens)) as node:
        client = Client(node.url, token=TOKEN)
        assert [rule.name for rule in client.alerts().rules] == ["old"]
        tokens.write_text(f"operate {TOKEN}\nread {TOKEN[::-1]}\n")
        client.add("here", when="speed_mps <= 1.5", on={"zone": "b"})
        client.measure({"speed_mps": 9.0})
        [report] = client.constraints()
        assert not report.applies_here
        for content, told in (
            ("labels = [", "SIGHUP: the settings stay as they are: "),
            (f"labels = {{ zone = 'a' }}\n{alert}", "SIGHUP: nothing new that a running node takes over; 2 tokens are valid"),
            (f'labels = {{ zone = "b" }}\nmax_skew = 3.0\nlog_level = "warning"\n{_alert("new", "ops")}{OPS}',
             "SIGHUP: taken over: log_level, labels, alert, destinations; after a restart only: max_skew; 2 tokens are valid"),
        ):  # fmt: skip
            file.write_text(content)
            node.process.send_signal(signal.SIGHUP)
            assert node.process.stderr is not None
            line = ""
            while "SIGHUP: " not in line:
                line = node.process.stderr.readline() or pytest.fail("the node ended")
            assert told in line
        [report] = client.constraints()
        assert (report.applies_here, report.state) == (True, "violated")
        [rule] = client.alerts().rules
        assert (rule.name, rule.to) == ("new", ("ops",))
        [own] = client.nodes()
        assert own.labels == {"zone": "b"}
        client.add("quiet")
        assert not [line for line in node.stop() if "quiet" in line], "the level is warning now"
