"""An operator's drill: ten incidents in a live fleet of six node processes.

`status` of one node names each of them, wherever it happened, within seconds, and the command behind it leads on. The seconds are
those of the product: the time in which a process was ready to run and others had the processor does not count.
"""

import json
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from signal import SIGUSR1

import pytest

from constraint_crdt.cli import main
from constraint_crdt.cli.arguments import parse
from tests.conftest import BUDGET
from tests.fleet.processes import FAR, NodeProcess, clean_environment, processes, seconds_until
from tests.fleet.relay import Relay
from tests.survival.disk import SmallDisk, mounted

pytestmark = [pytest.mark.long, pytest.mark.processes]

FROM = "r1"
"""The node whose status is asked; none of the incidents is there."""

WITHIN = 3.0 if BUDGET == "nightly" else FAR
"""Seconds from an incident to the status that names it."""

FLAPPING_WITHIN = 6.0 if BUDGET == "nightly" else FAR  # 1 to 3 s were seen
"""The same of a constraint that flaps on another node: after three turns a node tells a state every 2 s, one in two a violation."""

CLOCK = """
import signal, sys, time
ahead, ns, seconds = [0], time.time_ns, time.time
time.time_ns = lambda: ns() + ahead[0] * 10**9
time.time = lambda: seconds() + ahead[0]
signal.signal(signal.SIGUSR1, lambda *_: ahead.__setitem__(0, 3600))
from constraint_crdt.cli import main
sys.exit(main(sys.argv[1:]))
"""


class ClockedProcess(NodeProcess):
    """A node on a machine whose clock is put forward by an hour at `SIGUSR1`."""

    def start_process(self, arguments: Sequence[str]) -> subprocess.Popen[str]:
        line = [sys.executable, "-c", CLOCK, *arguments]
        return subprocess.Popen(line, stderr=subprocess.PIPE, env=clean_environment(), text=True)


class Drill:
    """The fleet, its sensors, and the status of a node as the command prints it."""

    def __init__(self, nodes: dict[str, NodeProcess], relay: Relay, capsys: pytest.CaptureFixture[str]) -> None:
        self.nodes, self.relay, self.capsys = nodes, relay, capsys
        self.values: dict[str, dict[str, object]] = {name: {"speed": 1.0, "temp": 40.0, "load": 0.1} for name in nodes}
        self._began, self._waited = 0.0, 0.0

    def measure(self, until: threading.Event) -> None:
        """The sensors of all nodes, some times a second."""
        while not until.wait(0.2):
            for name in self.nodes:
                if self.values[name]:
                    self.post(name, "measure", {"values": self.values[name]})

    def post(self, name: str, path: str, body: object, method: str = "POST") -> None:
        head = {"content-type": "application/json"}
        asked = urllib.request.Request(f"{self.nodes[name].api}/v1/{path}", json.dumps(body).encode(), head, method=method)
        with urllib.request.urlopen(asked, timeout=FAR):
            pass

    def command(self, *words: str, on: str = FROM) -> str:
        """The output of a command."""
        main([*words, "--node", self.nodes[on].api])
        return self.capsys.readouterr().out

    def status(self, *words: str, on: str = FROM) -> list[str]:
        """The lines of the status with these words."""
        return [line for line in self.command("status", on=on).splitlines() if all(word in line for word in words)]

    def begin(self) -> None:
        """The incident is now."""
        self._began, self._waited = time.monotonic(), self._waiting()

    def names(self, *words: str, leads_to: str = "", on: str = FROM, within: float = WITHIN) -> None:
        """Wait until the status has these words in a line, and run the command that this line leads to."""
        seconds_until(lambda: self.status(*words, on=on))
        delay = time.monotonic() - self._began - (self._waiting() - self._waited)
        assert delay <= within, f"{words} after {delay:.1f} s"
        if leads_to:
            [line, *_] = self.status(*words, on=on)
            assert f"`{leads_to}`" in line, line
            parse(leads_to.split())
            assert self.command(*leads_to.split(), on=on)

    def is_over(self, *words: str, on: str = FROM) -> None:
        """Wait until no line of the status has these words."""
        seconds_until(lambda: not self.status(*words, on=on))

    def _waiting(self) -> float:
        """Seconds for which the processes were ready to run, and waited for a processor."""
        found = 0.0
        for pid in ("self", *(str(each.process.pid) for each in self.nodes.values())):
            try:
                found += int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
            except OSError:  # not Linux, or the process has ended
                continue
        return found


@contextmanager
def drill(tmp_path: Path, capsys: pytest.CaptureFixture[str], disk: SmallDisk | None) -> Iterator[Drill]:
    """Six nodes: r4 with a clock that can be put forward, r6 behind a relay. With a small disk four, with r3 on the disk."""
    with processes() as start:
        first = start(FROM, "--no-discover")
        nodes = {FROM: first}
        host, port = first.endpoints[0].removeprefix("tcp/").split(":")
        relay, fleet = Relay((host, int(port))), first.fleet
        clocked = ClockedProcess("r4", fleet, "--no-discover", "--connect", first.endpoints[0])
        nodes["r4"] = clocked
        try:
            for name in ("r2", "r3", "r5") if disk is None else ("r3",):
                store = ("--store", str(disk.directory / "r3.db")) if disk is not None else ()
                joined = [flag for each in nodes.values() for flag in ("--connect", each.endpoints[0])]
                nodes[name] = start(name, "--no-discover", *joined, *store)
            nodes["r6"] = start("r6", "--no-discover", "--connect", relay.endpoint)
            live = Drill(nodes, relay, capsys)
            seconds_until(lambda: first.get("status")["peers"] == len(nodes) - 1)
            for id_, when, flags in (
                ("max_speed", "speed <= 1.5", ("--severity", "critical")),
                ("temp", "temp < 85.0", ("--severity", "critical", "--max-age", "1s")),
                ("load", "load < 0.9", ()),
            ):
                live.command("add", id_, "--when", when, *flags)
            seconds_until(lambda: all(each.get("status")["constraints"] == 3 for each in nodes.values()))
            over = threading.Event()
            sensors = threading.Thread(target=live.measure, args=(over,))
            sensors.start()
            try:
                seconds_until(lambda: all(each.get("status")["unknown_here"] == 0 for each in nodes.values()))
                yield live
            finally:
                over.set()
                sensors.join()
        finally:
            clocked.kill()
            relay.close()


def test_status_names_each_incident_and_a_command_that_leads_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with drill(tmp_path, capsys, None) as live:
        for incident in (
            overspeed, dead_sensor, cut, conflict, wrong_edit, mass_violation, flapping, clone, clock,
        ):  # fmt: skip
            incident(live)


def test_status_names_a_full_disk_of_another_node(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with mounted(tmp_path / "disk") as disk, drill(tmp_path, capsys, disk) as live:
        disk.fill()
        live.begin()
        live.names("r3 tells: writes are refused", leads_to="doctor")
        assert "MiB are free" in live.command("doctor", on="r3")


def overspeed(live: Drill) -> None:
    live.values["r3"]["speed"] = 9.1
    live.begin()
    live.names("max_speed (critical) on r3 since")
    assert "speed = 9.1, 7.6 above the limit" in live.command("explain", "max_speed")
    live.values["r3"]["speed"] = 1.0
    live.is_over("max_speed (critical) on r3 since")


def dead_sensor(live: Drill) -> None:
    del live.values["r2"]["temp"]
    live.begin()
    live.names("temp (critical) on r2", "older than 1 s", leads_to="explain temp")
    live.values["r2"]["temp"] = 40.0
    live.is_over("temp (critical) on r2")


def cut(live: Drill) -> None:
    live.relay.cut()
    live.begin()
    live.names("not live", "r6", leads_to="doctor")
    live.names("CUT OFF", on="r6")


def conflict(live: Drill) -> None:
    """It is there from the end of the cut on."""
    live.post("r6", "constraints/load", {"when": "load < 0.7"}, "PATCH")
    live.post("r2", "constraints/load", {"when": "load < 0.8"}, "PATCH")
    live.relay.join()
    seconds_until(lambda: live.nodes["r6"].get("status")["peers"])
    live.begin()
    live.names("load has several definitions, by r2, r6", leads_to="resolve load")
    live.command("resolve", "load", "--keep", "1")
    live.is_over("load has several definitions")


def wrong_edit(live: Drill) -> None:
    live.post("r5", "constraints/max_speed", {"when": "speed <= 150.0", "loosen": True}, "PATCH")
    live.begin()
    live.names("max_speed was changed", "on r5", "when: speed <= 1.5 -> speed <= 150.0", leads_to="revert max_speed")
    live.names("when: speed <= 150.0 -> speed <= 1.5", within=FAR)


def mass_violation(live: Drill) -> None:
    for values in live.values.values():
        values["temp"] = 99.0
    live.begin()
    live.names("temp (critical) on", "and on 5 more nodes")
    seconds_until(lambda: re.search("violated +temp on r., r., r.", live.command("events", "--constraint", "temp")))
    for values in live.values.values():
        values["temp"] = 40.0
    live.is_over("temp (critical) on")


def flapping(live: Drill) -> None:
    over = threading.Event()

    def flap() -> None:
        while not over.wait(0.4):
            live.values["r2"]["load"] = 0.1 if live.values["r2"]["load"] == 0.99 else 0.99

    turning = threading.Thread(target=flap)
    turning.start()
    live.begin()
    try:
        live.names("load on r2: violated", "times in 10 min", leads_to="explain load", within=FLAPPING_WITHIN)
        seconds_until(lambda: re.search("flapping +load on r2: [0-9]+ turns since", live.command("events", "--of", "r2")))
    finally:
        over.set()
        turning.join()
    live.values["r2"]["load"] = 0.1


def clone(live: Drill) -> None:
    live.begin()
    line = ["node", "--name", "r5", "--fleet", live.nodes[FROM].fleet, "--connect", live.nodes["r5"].endpoints[0]]
    more = ["--api", "127.0.0.1:0", "--store", "memory", "--probe", "none"]
    with subprocess.Popen(
        [sys.executable, "-m", "constraint_crdt", *line, *more], stderr=subprocess.PIPE, env=clean_environment(), text=True
    ) as copy:
        _, told = copy.communicate(timeout=FAR)
    assert "a node called r5 is live already" in told
    live.names("r5 tells: another live node was called r5 too", leads_to="doctor")


def clock(live: Drill) -> None:
    live.nodes["r4"].process.send_signal(SIGUSR1)
    live.begin()
    live.names("r4 +3600.0 s from this node's", leads_to="doctor")
    live.names("CLOCK", "in doubt", on="r4")
