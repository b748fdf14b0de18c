"""guard: a program that is started, stopped, paused and ended with the constraints, the node and the guard."""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from constraint_crdt.cli import main
from constraint_crdt.client import Client
from tests import fork_server
from tests.cli.process import NodeProcess, environment, running_node
from tests.conftest import BUDGET

pytestmark = pytest.mark.processes

Capture = pytest.CaptureFixture[str]

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "guards.md"
PROGRAM = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(100)"
SOON = 20.0


@pytest.fixture(scope="module")
def node() -> Iterator[NodeProcess]:
    with running_node() as node:
        Client(node.url).add("max_speed", when="speed_mps <= 1.5", severity="critical")
        yield node


def guard(url: str, *argv: str) -> "subprocess.Popen[str]":
    line = [sys.executable, "-m", "constraint_crdt", "guard", "--node", url, *argv]
    return subprocess.Popen(line, stderr=subprocess.PIPE, text=True)


def written(path: Path) -> int:
    """The process id that the program wrote, once it did."""
    ends = time.monotonic() + SOON
    while time.monotonic() < ends:
        if path.exists() and (text := path.read_text()):
            return int(text)
        os.sched_yield()
    raise AssertionError("the program was not started")


def state_of(pid: int) -> str:
    """R, S, T (stopped) or Z; empty for no process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # it ended before, or while it was read
        return ""


def eventually(pid: int, states: str) -> None:
    ends = time.monotonic() + SOON
    while state_of(pid) not in states or (not state_of(pid) and states):
        assert time.monotonic() < ends, f"{state_of(pid)!r}, not one of {states!r}"
        os.sched_yield()


def test_a_program_is_stopped_by_the_violating_sample(node: NodeProcess, tmp_path: Path) -> None:
    client = Client(node.url)
    client.measure({"speed_mps": 1.0})
    with guard(node.url, "--on", "max_speed", "--", sys.executable, "-c", PROGRAM, str(tmp_path / "pid")) as guarding:
        pid = written(tmp_path / "pid")
        client.measure({"speed_mps": 9.0})
        _, err = guarding.communicate(timeout=SOON)
    assert guarding.returncode == 121
    assert "stopping" in err
    assert "max_speed: speed_mps = 9.0, 7.5 above the limit (500 %)" in err
    assert state_of(pid) == ""


@pytest.mark.skipif(BUDGET != "nightly", reason="judges how fast it is")
def test_a_program_is_stopped_within_300_ms_of_the_sample(node: NodeProcess, tmp_path: Path) -> None:
    """The median of five, from before the sample is sent; with all that the program started."""
    client, times = Client(node.url), []
    for number in range(5):
        client.measure({"speed_mps": 1.0})
        folder = tmp_path / str(number)
        folder.mkdir()
        with guard(node.url, "--grace", "0.1", "--", sys.executable, "-c", FAMILY, str(folder)) as guarding:
            pids = [written(folder / name) for name in ("program", "child", "lonely", "paused", "daemon")]
            began = time.monotonic()
            client.measure({"speed_mps": 9.0})
            for pid in pids:
                eventually(pid, "")
            times.append(time.monotonic() - began)
            guarding.communicate(timeout=SOON)
        assert guarding.returncode == 121
    assert sorted(times)[2] < 0.3, times


@pytest.mark.long
def test_a_program_is_paused_and_goes_on(node: NodeProcess, tmp_path: Path) -> None:
    client = Client(node.url)
    client.measure({"speed_mps": 1.0})
    with guard(node.url, "--pause", "--", sys.executable, "-c", PROGRAM, str(tmp_path / "pid")) as guarding:
        pid = written(tmp_path / "pid")
        client.measure({"speed_mps": 9.0})
        eventually(pid, "T")
        client.measure({"speed_mps": 1.0})
        eventually(pid, "SR")
        guarding.terminate()
        guarding.communicate(timeout=SOON)
    assert guarding.returncode == 128 + signal.SIGTERM
    assert state_of(pid) == ""


def test_the_code_of_the_program_is_that_of_the_guard(node: NodeProcess, capsys: Capture) -> None:
    Client(node.url).measure({"speed_mps": 1.0})
    assert main(["guard", "--node", node.url, "--", "sh", "-c", "exit 7"]) == 7
    assert main(["guard", "--node", node.url, "--", "sh", "-c", "kill -9 $$"]) == 128 + signal.SIGKILL
    assert main(["guard", "--node", node.url, "--dry-run"]) == 0
    assert capsys.readouterr().out == "holds: the program would run\n"


@pytest.mark.long
def test_the_lines_of_the_page_do_what_it_says(node: NodeProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those for a shell stop the program, and say so; those of units end with the codes of the page."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    shell, said = (text for language, text in blocks if not language)
    units = [line for language, text in blocks if language == "ini" for line in text.splitlines() if line.startswith("Exec")]
    client, drive = Client(node.url), tmp_path / "drive.sh"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONSTRAINT_CRDT_NODE", node.url)
    drive.write_text("#!/bin/sh\necho $$ > pid.new; mv pid.new pid; exec sleep 100\n")
    drive.chmod(0o755)
    for line in shell.splitlines():
        client.measure({"speed_mps": 1.0})
        words = shlex.split(line, comments=True)
        with fork_server.start(
            words[1:], stderr=subprocess.PIPE, env=environment(CONSTRAINT_CRDT_NODE=node.url), cwd=tmp_path
        ) as guarding:
            pid = written(tmp_path / "pid")
            client.measure({"speed_mps": 9.0})
            _, err = guarding.communicate(timeout=SOON)
        assert (guarding.returncode, err, state_of(pid)) == (121, said, "")
        (tmp_path / "pid").unlink()
    drive.write_text("#!/bin/sh\nexit 0\n")
    for speed, codes in ((1.0, [0, 0, 0]), (9.0, [121, None, 121])):
        client.measure({"speed_mps": speed})
        for line, code in zip(units, codes, strict=True):
            words = shlex.split(line.partition("=")[2].replace("/usr/local/bin/drive", str(drive)))
            assert code is None or main(words[1:]) == code, line


def test_mistakes_are_a_sentence(node: NodeProcess, capsys: Capture) -> None:
    Client(node.url).measure({"speed_mps": 1.0})
    for argv, code, sentence in (
        (["--on", "max_sped", "--", "true"], 1, "no constraint 'max_sped' is active"),
        ([], 2, "give the program after --"),
        (["--", "/no/such/program"], 1, "cannot run /no/such/program: No such file or directory"),
        (["--grace", "soon", "--", "true"], 2, "'soon' is not a length of time"),
    ):
        assert main(["guard", "--node", node.url, *argv]) == code
        err = capsys.readouterr().err
        assert sentence in err
        assert err.count("\n") == 1


def test_it_does_not_start_what_is_violated(node: NodeProcess, tmp_path: Path, capsys: Capture) -> None:
    Client(node.url).measure({"speed_mps": 9.0})
    assert main(["guard", "--node", node.url, "--", "touch", str(tmp_path / "made")]) == 121
    assert main(["guard", "--node", node.url, "--dry-run"]) == 121
    assert not (tmp_path / "made").exists()
    assert "not started, as constraints are violated: max_speed" in capsys.readouterr().err


@pytest.mark.long
def test_a_node_that_is_killed_is_lost_and_the_guard_does_as_it_is_told(tmp_path: Path) -> None:
    with running_node() as node:
        client = Client(node.url)
        client.add("max_speed", when="speed_mps <= 1.5", severity="critical")
        client.measure({"speed_mps": 1.0})
        line = ("--lost-after", "0.2", "--", sys.executable, "-c", PROGRAM)
        with (
            guard(node.url, *line, str(tmp_path / "a")) as stops,
            guard(node.url, "--if-lost", "go", *line, str(tmp_path / "b")) as goes,
        ):
            pids = written(tmp_path / "a"), written(tmp_path / "b")
            node.process.kill()
            stops.communicate(timeout=SOON)
            assert (stops.returncode, state_of(pids[0])) == (123, "")
            assert state_of(pids[1]) in ("S", "R")
            goes.kill()  # its supervisor ends the program
            goes.communicate(timeout=SOON)
            eventually(pids[1], "")
        assert main(["guard", "--node", node.url, "--", "true"]) == 123
        assert main(["guard", "--node", node.url, "--if-lost", "go", "--", "true"]) == 0


FAMILY = """
import os, signal, subprocess, sys, time
folder = sys.argv[1]
child = subprocess.Popen(["sleep", "1000"])
paused = subprocess.Popen(["setsid", "sleep", "1000"])
paused.send_signal(signal.SIGSTOP)
lonely = subprocess.Popen(["setsid", "sleep", "1000"])
if os.fork() == 0:  # a daemon: twice forked, in a session of its own, deaf to SIGTERM
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        open(f"{folder}/daemon", "w").write(str(os.getpid()))
        time.sleep(1000)
    os._exit(0)
open(f"{folder}/child", "w").write(str(child.pid))
open(f"{folder}/lonely", "w").write(str(lonely.pid))
open(f"{folder}/paused", "w").write(str(paused.pid))
open(f"{folder}/program", "w").write(str(os.getpid()))
time.sleep(1000)
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="others do not tell whose child an orphan becomes")
@pytest.mark.parametrize("end", ["the guard is killed", "the guard hangs up", "a violation", "the program ends"])
def test_no_child_is_left_behind(node: NodeProcess, tmp_path: Path, end: str) -> None:
    client = Client(node.url)
    client.measure({"speed_mps": 1.0})
    words = ("--grace", "0.2", "--", sys.executable, "-c", FAMILY, str(tmp_path))
    with guard(node.url, *words) as guarding:
        pids = {name: written(tmp_path / name) for name in ("program", "child", "lonely", "paused", "daemon")}
        assert all(state_of(pid) for pid in pids.values())
        match end:
            case "the guard is killed":
                guarding.kill()
            case "the guard hangs up":
                guarding.send_signal(signal.SIGHUP)
            case "a violation":
                client.measure({"speed_mps": 9.0})
            case _:
                os.kill(pids["program"], signal.SIGUSR1)
        guarding.communicate(timeout=SOON)
        code = guarding.returncode
        if end != "the guard is killed":
            assert {name: state_of(pid) for name, pid in pids.items()} == dict.fromkeys(pids, "")
        for pid in pids.values():
            eventually(pid, "")
    codes = {"a violation": 121, "the guard is killed": -9, "the guard hangs up": 128 + signal.SIGHUP}
    assert code == codes.get(end, 128 + signal.SIGUSR1)


PARKING = """
import os, signal, sys, time
def park(*_):
    time.sleep(0.5)
    open(f"{sys.argv[1]}/parked", "w").write("x")
    os._exit(0)
signal.signal(signal.SIGTERM, park)
open(f"{sys.argv[1]}/child", "w").write(str(os.getpid()))
time.sleep(1000)
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="others do not tell whose child an orphan becomes")
@pytest.mark.parametrize("end", ["a violation", "the program ends"])
def test_a_child_has_the_grace_too_when_the_program_ends_before_it(node: NodeProcess, tmp_path: Path, end: str) -> None:
    """As of a shell script without `exec`: SIGTERM ends the shell at once, and what drives the robot must park it."""
    Client(node.url).measure({"speed_mps": 1.0})
    ending = "wait" if end == "a violation" else f"while [ ! -s {tmp_path}/child ]; do sleep 0.05; done; exit 3"
    script = f'"$@" & {ending}'
    with guard(
        node.url, "--grace", "30s", "--", "sh", "-c", script, "sh", sys.executable, "-c", PARKING, str(tmp_path)
    ) as guarding:
        child = written(tmp_path / "child")
        if end == "a violation":
            Client(node.url).measure({"speed_mps": 9.0})
        guarding.communicate(timeout=SOON)
    assert guarding.returncode == (121 if end == "a violation" else 3)
    assert state_of(child) == ""
    assert (tmp_path / "parked").exists()


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux kills the program")
def test_a_supervisor_that_is_killed_takes_the_program_and_its_group_with_it(node: NodeProcess, tmp_path: Path) -> None:
    Client(node.url).measure({"speed_mps": 1.0})
    with guard(node.url, "--", sys.executable, "-c", FAMILY, str(tmp_path)) as guarding:
        pids = {name: written(tmp_path / name) for name in ("program", "child", "lonely", "paused", "daemon")}
        parent = int(Path(f"/proc/{pids['program']}/stat").read_text().rpartition(")")[2].split()[1])
        assert parent != guarding.pid
        os.kill(parent, signal.SIGKILL)
        guarding.wait(SOON)
        for name in ("program", "child"):
            eventually(pids[name], "")
        for name in ("lonely", "paused", "daemon"):  # with sessions of their own
            with contextlib.suppress(ProcessLookupError):
                os.kill(pids[name], signal.SIGKILL)
    assert guarding.returncode == 128 + signal.SIGKILL


def test_nothing_is_asked_any_more_once_the_program_is_over(node: NodeProcess) -> None:
    client, before = Client(node.url), set(threading.enumerate())
    client.add("calm", when="calm_v < 1.0")
    try:
        words = ["guard", "--on", "calm", "--if-unknown", "go", "--lost-after", "1s", "--node", node.url]
        assert main([*words, "--", sys.executable, "-c", "pass"]) == 0
    finally:
        client.remove("calm")
    for asking in {each for each in threading.enumerate() if each.name == "guard"} - before:
        asking.join(SOON)
        assert not asking.is_alive()
