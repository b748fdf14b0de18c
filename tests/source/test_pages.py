"""The pages of sources, actions, gateways and robots, followed: each of their blocks is run against its real counterpart, with
addresses and paths of this machine in place of those on the page. `tests/cli` follows the pages of guards and agents.
"""

import asyncio
import contextlib
import os
import re
import secrets
import shlex
import socket
import stat
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zenoh

from constraint_crdt import MemoryNetwork, Node
from constraint_crdt.cli import main
from constraint_crdt.client import Client
from constraint_crdt.runtime.settings import NodeSettings, load_settings
from tests import fork_server
from tests.cli.process import environment, running_node
from tests.source.counterparts import Broker, WebServer, finding, free_port, program, running, soon, values_of, why_unknown
from tests.source.test_documented import ALL_BLOCKS, BLOCK, CONNECTING, HOW_TO, PAGE, PAGES, TABLES
from tests.source.test_formats import STATE, cdr, payload, status
from tests.source.test_mavlink import GPS, SYSTEM, battery, written
from tests.source.test_mqtt import certificates
from tests.source.test_zenoh import publisher

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.one_worker("pages")]

ACTIONS = (HOW_TO / "actions.md").read_text()
SOURCE_BLOCKS = [block for block in ALL_BLOCKS if "[[source]]" in block]
ACTION_BLOCKS = [block for block in (*TABLES.findall(ACTIONS), *ALL_BLOCKS) if "[[action]]" in block]
UPSC = """#!/bin/sh
if [ -e away ]; then echo 'Error: Connection failure' >&2; exit 1; fi
echo battery.charge: 80; echo battery.runtime: -1
"""
VALUES = {"battery_percent": 80.0, "speed_mps": 0.5, "press_bar": 120.0}
NOT_TOLD = {"left_s"}
"""The fields of the pages whose source does not know."""

ROS: dict[str, tuple[str, dict[str, Any]]] = {
    "0/battery_state": ("sensor_msgs/msg/BatteryState", {"present": True, "percentage": 0.5, "voltage": 12.5}),
    "0/odom": ("nav_msgs/msg/Odometry", {"twist": {"twist": {"linear": {"x": 0.5}}}}),
    "0/diagnostics": ("diagnostic_msgs/msg/DiagnosticArray", {}),
}
FLIGHT = [
    ("sys_status", SYSTEM | {"battery_remaining": 80}),
    ("gps_raw_int", GPS | {"fix_type": 3, "satellites_visible": 9}),
    ("heartbeat", {"type": 2, "autopilot": 3, "base_mode": 128, "custom_mode": 0, "system_status": 4, "mavlink_version": 3}),
    (
        "global_position_int",
        {"time_boot_ms": 1, "lat": 1, "lon": 1, "alt": 1, "relative_alt": 12_500, "vx": 0, "vy": 0, "vz": 0, "hdg": 0},
    ),
]
DB = (
    "# TYPE node_load5 gauge\nnode_load5 0.5\n# TYPE node_memory_MemAvailable_bytes gauge\nnode_memory_MemAvailable_bytes 4e9\n"
    '# TYPE node_disk_written_bytes_total counter\nnode_disk_written_bytes_total{device="sda"} 5\n'
    '# TYPE probe_success gauge\nprobe_success{job="db"} 1\n'
)


def executable(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def answer_mail(server: socket.socket) -> None:
    """Greets as a mail server does, until the socket is closed."""
    with contextlib.suppress(OSError):
        while True:
            link, _ = server.accept()
            with link, link.makefile("rw") as lines, contextlib.suppress(OSError):
                lines.write("220 mail.example ESMTP\r\n")
                lines.flush()
                for line in lines:
                    lines.write("221 bye\r\n" if line.startswith("QUIT") else "250 mail.example\r\n")
                    lines.flush()


class World:
    """The counterparts of all blocks, and what they were told."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.folder = folder
        self.etc = folder / "etc"
        self.etc.mkdir()
        certificate, key = certificates(folder)
        key.chmod(0o644)  # mosquitto reads it as a user of its own
        for name in ("broker-ca", "plant-ca", "gateway-ca", "ca"):
            (self.etc / f"{name}.pem").write_bytes(certificate.read_bytes())
        for name in ("broker.password", "plant.password", "gateway.token", "bus.secret"):
            (self.etc / name).write_text("hush-hush-hush-hush\n")
            (self.etc / name).chmod(0o600)
        passwords = folder / "passwords"
        passwords.write_text("")
        passwd = program("mosquitto_passwd", "mosquitto")
        subprocess.run([passwd, "-b", passwords, "constraints", "hush-hush-hush-hush"], check=True, capture_output=True)
        plain = free_port()
        self.broker = Broker(
            folder, f"certfile {certificate}", f"keyfile {key}", "user root", "allow_anonymous true", f"password_file {passwords}",
            f"listener {plain} 127.0.0.1",
        )  # fmt: skip
        self.broker.start()
        stack.callback(self.broker.stop)
        self.secure, self.web = WebServer(certificate=(certificate, key)), WebServer()
        for server in (self.secure, self.web):
            stack.callback(server.close)
        self.secure.answers["/api/state"] = (200, "application/json", b'{"line": {"speed": 1200}, "mode": "auto"}')
        self.secure.answers["/metrics"] = (200, "text/plain; version=0.0.4", DB.encode())
        mail = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        threading.Thread(target=answer_mail, args=(mail,), daemon=True).start()
        exporter, self._udp = free_port(), free_port()
        flags = (
            "--collector.disable-defaults --collector.loadavg --collector.cpu --collector.filesystem "
            "--collector.filesystem.mount-points-exclude=^/.+"
        )
        host = program("prometheus-node-exporter", "prometheus-node-exporter")
        stack.enter_context(running([host, f"--web.listen-address=127.0.0.1:{exporter}", *flags.split()], exporter))
        (folder / "readings.jsonl").write_text('{"pressure": {"bar": 4.5}}\n')
        executable(folder / "upsc", UPSC)
        executable(folder / "stop-line", f'#!/bin/sh\necho "$ACTION_TURN $*" >> {folder}/stopped\n')
        executable(folder / "ros2", f'#!/bin/sh\necho "$*" > {folder}/launched\n')
        self.router = f"tcp/127.0.0.1:{free_port()}"
        self.got: list[str] = []
        """The topics and keys of what the broker and the router were told."""
        self._put = stack.enter_context(publisher(self.router, listens=True, mode="router"))
        session = self._put.__self__  # type: ignore[attr-defined]
        self._held = session.declare_subscriber("plant/violations/**", zenoh.handlers.Callback(self._take, indirect=False))
        self._publish = stack.enter_context(self.broker.publisher(tls=str(certificate)))
        for topic in ("plant/violations/#", "hall3/#"):
            stack.enter_context(self.broker.subscriber(topic, lambda message: self.got.append(message.topic), plain))
        self._link = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._cycles = 0
        self._messages = {key: self._ros(key) for key in ROS}
        self._stream = written(*FLIGHT) + battery(3900, 3900, 3900, 3900)
        broker = f"127.0.0.1:{self.broker.port}"
        self._places = {
            "broker.plant.example:8883": broker,
            "broker.hall3.example:8883": broker,
            '"mqtt://127.0.0.1"': f'"mqtt://127.0.0.1:{plain}"',
            "https://10.0.0.5": f"https://127.0.0.1:{self.secure.port}",
            "https://db.example:9100": f"https://127.0.0.1:{self.secure.port}",
            "127.0.0.1:9100": f"127.0.0.1:{exporter}",
            "http://127.0.0.1:9093": self.web.url,
            '"mail.example"': f'"127.0.0.1", "-p", "{mail.getsockname()[1]}"',
            "udpin:0.0.0.0:14550": f"udpin:127.0.0.1:{self._udp}",
            "udpin:127.0.0.1:14551": f"udpin:127.0.0.1:{self._udp}",
            "tcp/127.0.0.1:7447": self.router,
            "/etc/constraint-crdt": str(self.etc),
            "/var/log/press": str(folder),
            "/usr/local/bin": str(folder),
        }
        for name in ("chat", "bus", "tickets"):
            self._places[f"https://{name}.example"] = self.web.url

    def _take(self, sample: zenoh.Sample) -> None:
        self.got.append(str(sample.key_expr))

    @staticmethod
    def _ros(key: str) -> tuple[str, bytes]:
        name, fields = ROS[key]
        if key == "0/diagnostics":
            fields = {"status": [status("drive", 0), status("wifi", 0, ("signal", "-71 dBm"))]}
        package, _, kind = name.rpartition("/msg/")
        return f"{key}/{package}::msg::dds_::{kind}_/RIHS01_0", cdr(name, **fields)

    def here(self, text: str) -> str:
        """A text of a page, with the places of this machine."""
        for place, own in self._places.items():
            text = text.replace(place, own)
        return text

    def settings(self, block: str, **more: object) -> NodeSettings:
        """A block as a settings file, for a node that starts anew, and that asks more often than a page would have it."""
        file = self.folder / "node.toml"
        file.write_text(self.here(block))
        fleet = f"test-{secrets.token_hex(4)}"
        flags: dict[str, object] = {"store": "memory", "discover": False, "name": "gate-1", "fleet": fleet} | more
        found = load_settings(flags, {}, file)
        often = tuple(msgspec.structs.replace(each, every=min(each.period, 0.2)) for each in found.source)
        return msgspec.structs.replace(found, source=often)

    def send(self) -> None:
        """Say once what all publishers have to say."""
        self._cycles += 5
        for topic, content in (
            ("plant/3/state", b'{"pressure": {"bar": 4.5}}'),
            ("uagv/v2/Acme/amr-1/state", STATE),
            (
                "spBv1.0/hall3/NBIRTH/press",
                payload(("Hydraulics/Pressure", None, 3, 120), ("Cycles", None, 7, self._cycles % 65536)),
            ),
        ):
            self._publish(topic, content)
        for key, message in self._messages.values():
            self._put(key, message)
        self._put("site/dock/4/load", b"12.5")
        self._link.sendto(self._stream, ("127.0.0.1", self._udp))

    @contextlib.contextmanager
    def sending(self) -> Iterator[None]:
        """Say it again and again, in a thread."""
        over = threading.Event()

        def send() -> None:
            while not over.wait(0.1):
                self.send()

        thread = threading.Thread(target=send)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        yield World(tmp_path_factory.mktemp("world"), stack)


@pytest.fixture(autouse=True)
def place(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of the world, with its programs."""
    (world.folder / "away").unlink(missing_ok=True)
    monkeypatch.setenv("PATH", f"{world.folder}:{os.environ['PATH']}")
    monkeypatch.chdir(world.folder)


def node_of(settings: NodeSettings, *, on_zenoh: bool) -> Node:
    return Node(settings=settings) if on_zenoh else Node(settings=settings, transport=MemoryNetwork().transport())


@pytest.mark.long(by_day=["1", "13"])
@pytest.mark.parametrize("block", SOURCE_BLOCKS, ids=range(len(SOURCE_BLOCKS)))
async def test_a_node_reads_by_the_tables_of_a_block(block: str, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """Each field of each table gets a value."""
    more: dict[str, object] = {}
    if "identity =" in block:
        if not (world.etc / "amr-1").exists():
            for words in (["fleet", "create", "plant"], ["fleet", "certify", "amr-1"]):
                assert await asyncio.to_thread(main, words) == 0, capsys.readouterr().err
            (world.folder / "plant/amr-1").rename(world.etc / "amr-1")
        more |= {"name": "amr-1", "fleet": "plant"}
    elif '"zenoh"' in block:
        more["connect"] = (world.router,)
    settings = world.settings(block, **more)
    on_zenoh = any(each.kind == "zenoh" for each in settings.source)
    async with node_of(settings, on_zenoh=on_zenoh) as node:

        def missing() -> list[str]:
            world.send()
            told = values_of(node)
            wanted = [re.sub(r"\\\{\d\\\}", ".+", re.escape(name)) for each in settings.source for name in each.fields]
            wanted += [f"{each.name}_.+" for each in settings.source if not each.fields]
            return [name for name in wanted if name not in NOT_TOLD and not any(re.fullmatch(name, each) for each in told)]

        with contextlib.suppress(TimeoutError):
            await soon(lambda: not missing())
        assert missing() == []
        await soon(lambda: finding(node).level == "ok")


@pytest.mark.long(by_day=["4"])
@pytest.mark.parametrize("block", ACTION_BLOCKS, ids=range(len(ACTION_BLOCKS)))
async def test_the_actions_of_a_block_are_done(block: str, world: World) -> None:
    """Each tells a violation at its place."""
    settings = world.settings(block, connect=(world.router,))
    world.got.clear()
    world.web.posted.clear()
    (world.folder / "stopped").unlink(missing_ok=True)

    def told() -> set[str]:
        """The places that were told."""
        stopped = (world.folder / "stopped").exists()
        return {*world.got, *(path for path, _ in world.web.posted), *(["stop-line"] if stopped else [])}

    def place_of(action: Any) -> str:
        """A pattern."""
        address = settings.destinations.get(action.webhook, action.webhook)
        place = urllib.parse.urlsplit(address).path or action.topic or action.zenoh or "stop-line"
        return re.sub(r"\\\$\\\{\w+\\\}", "[^/]+", re.escape(place))

    async with node_of(settings, on_zenoh=any(each.zenoh for each in settings.action)) as node:
        for name in ("max_speed", "thermal_1", "press_3"):
            await node.add_constraint(name, when="v < 1.0")

        async def is_told() -> bool:
            for value in (9.0, 0.5):
                await node.measure({"v": value})
            return all(any(re.fullmatch(place_of(each), place) for place in told()) for each in settings.action)

        async with asyncio.timeout(30):
            while not await is_told():  # noqa: ASYNC110 - a subscriber of Zenoh is known a moment later
                await asyncio.sleep(0.05)
        assert [each.last_failure for each in node.actions.report().actions if each.dropped] == []
    if "stop-line" in block:
        assert (world.folder / "stopped").read_text().startswith("violated --now\n")


def test_no_block_of_these_pages_is_left_out() -> None:
    """Python is run by `tests/test_docs.py`, the pages of guards and agents by `tests/cli`."""
    others = {("guards", ""): 2, ("guards", "ini"): 2, ("agents", "json"): 2, ("agents", "toml"): 1, ("sources", ""): 4}
    for page in CONNECTING:
        for language, text in BLOCK.findall((HOW_TO / f"{page}.md").read_text()):
            if language == "python" or (language == "toml" and text in (*SOURCE_BLOCKS, *ACTION_BLOCKS)):
                continue
            if page not in ("robots", "gateways") or language:
                others[page, language] = others.get((page, language), 0) - 1
    assert set(others.values()) == {0}, others


def texts(page: str) -> list[str]:
    """The blocks of a page without a language."""
    return [text for language, text in BLOCK.findall(page) if not language]


def test_what_the_page_shows_of_a_trial_is_what_it_says(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    line, shown, wrong, _ = texts(PAGE)
    world.settings(next(block for block in SOURCE_BLOCKS if "upsc" in block))
    program_name, *words = shlex.split(line, comments=True)
    assert program_name == "constraint-crdt"
    assert main(words) == 0
    assert [each.rstrip() for each in capsys.readouterr().out.splitlines()] == shown.splitlines()
    (world.folder / "growing").write_text('{"line": {"speed": 1.5, "mode": "auto"}}\n')
    (world.folder / "node.toml").write_text(
        '[[source]]\nname = "p"\nkind = "file"\nfile = "growing"\nfields = { speed = "line.speed", mode = "line.mod" }\n'
    )
    assert main(words) == 0
    assert wrong.strip() in capsys.readouterr().out.splitlines()


async def test_the_reasons_on_the_page_are_those_of_a_node(world: World) -> None:
    unknown, down = texts(PAGE)[3].splitlines()
    block = next(block for block in SOURCE_BLOCKS if "upsc" in block)
    settings = world.settings(block)
    sources = tuple(msgspec.structs.replace(each, max_age=0.3) for each in settings.source)
    async with node_of(msgspec.structs.replace(settings, source=sources, check_every=0.1), on_zenoh=False) as node:
        await node.add_constraint("left", when="left_s > 60.0")
        await node.add_constraint("charged", when="battery_percent > 15.0")
        await soon(lambda: why_unknown(node, "left") == unknown)
        (world.folder / "away").touch()
        await soon(lambda: why_unknown(node, "charged") == down)
        (world.folder / "away").unlink()
        await soon(lambda: why_unknown(node, "charged") is None)


@pytest.mark.long
@pytest.mark.parametrize("page", ["robots", "gateways"])
def test_the_commands_of_a_page_are_run(page: str, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """A node by the first block of the page, its constraints, and a program that obeys them."""
    own, block = PAGES[page], TABLES.findall(PAGES[page])[0]
    settings = {"robots": "robot.toml", "gateways": "gateway.toml"}[page]
    (world.folder / settings).write_text(world.here(block))
    done = []
    with running_node("--config", settings, "--no-discover") as node:
        client = Client(node.url)
        for line in "".join(texts(own)).splitlines():
            words = shlex.split(line)
            client.measure(VALUES)
            match words[:2]:
                case ["pip", "install"]:
                    [extra] = re.findall(r"^constraint-crdt\[(\w+)\]$", words[2])
                    assert extra in (Path(__file__).parents[2] / "pyproject.toml").read_text()
                case ["constraint-crdt", "source"]:
                    with world.sending():
                        assert main([*words[1:-1], "1s"]) in (0, 1), "a second may be too short for all"
                case ["constraint-crdt", "node"]:
                    again = [*words[1:], "--api", "127.0.0.1:0", "--no-discover", "--while-stdin-open"]
                    with fork_server.start(again, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as process:
                        assert process.stderr is not None
                        assert any(" ready name=amr-1 " in each for each in process.stderr)
                        process.communicate(timeout=60)
                        assert process.returncode == 0
                case ["constraint-crdt", command]:
                    assert main([command, "--node", node.url, *words[2:]]) == 0, capsys.readouterr().err
                case _:
                    raise AssertionError(f"{line} is not run")
            done.append(words[1])
        ends = time.monotonic() + 30
        while {each.state for each in client.constraints()} != {"holds"}:
            client.measure(VALUES)
            assert time.monotonic() < ends
    assert done == {
        "robots": ["install", "source", "node", "add", "add", "guard"], "gateways": ["install", "source", "add"]
    }[page]  # fmt: skip
    if page == "robots":
        assert (world.folder / "launched").read_text() == "launch my_robot drive.launch.py\n"
