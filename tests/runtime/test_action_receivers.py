"""Actions against real receivers: Debian's Alertmanager and mosquitto, and a subscriber of Zenoh."""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zenoh

from constraint_crdt import MemoryNetwork, Node, NodeSettings
from constraint_crdt.alerts.actions import Action
from constraint_crdt.runtime import actions as actions_module
from tests.runtime.fleet import QUICK, eventually
from tests.source.counterparts import Broker

pytestmark = [pytest.mark.processes, pytest.mark.slow]

CONFIG = "route: {receiver: none, group_wait: 0s}\nreceivers: [{name: none}]\n"
STARTS_WITHIN = 20.0


class Alertmanager:
    """An Alertmanager at a port of its own, which can be stopped and started again."""

    def __init__(self, program: str, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        (folder / "config.yml").write_text(CONFIG)
        self._words = [
            program, f"--config.file={folder}/config.yml", f"--storage.path={folder}/data", "--cluster.listen-address=",
            f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=error",
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/v2/alerts"

    def start(self) -> None:
        self._process = subprocess.Popen(self._words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        ends = time.monotonic() + STARTS_WITHIN
        while self.alerts() is None:
            assert time.monotonic() < ends, "Alertmanager does not answer"
            assert self._process.poll() is None, "Alertmanager ended"
            time.sleep(0.02)  # it tells nobody that it listens

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def alerts(self) -> list[dict[str, Any]] | None:
        """Those that fire; None without an answer."""
        with contextlib.suppress(OSError), urllib.request.urlopen(self.url, timeout=5) as answer:
            found: list[dict[str, Any]] = json.load(answer)
            return found
        return None


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[Alertmanager]:
    program = shutil.which("prometheus-alertmanager")
    if program is None:
        why = "prometheus-alertmanager is not installed: it is Debian's package of that name"
        (pytest.fail if os.environ.get("CI_REQUIRES_ALERTMANAGER") else pytest.skip)(why)
    found = Alertmanager(program, tmp_path)
    found.start()
    yield found
    found.stop()


@pytest.mark.long
async def test_alertmanager_receives_a_violation_and_its_end_over_restarts_of_both(
    alertmanager: Alertmanager, tmp_path: Path
) -> None:
    action = Action(name="tell", webhook=alertmanager.url, template="alertmanager")
    settings = NodeSettings(name="forge", fleet="plant", store=str(tmp_path / "forge.db"), action=(action,))

    async def firing() -> list[dict[str, Any]] | None:
        return await asyncio.to_thread(alertmanager.alerts)

    async def until(count: int) -> list[dict[str, Any]]:
        async with asyncio.timeout(STARTS_WITHIN):
            while len(found := await firing() or []) != count:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
        return found

    async with Node(settings=settings, transport=MemoryNetwork().transport()) as node:
        await node.add_constraint("max_speed", when="speed_mps <= 1.5", severity="critical")
        await node.measure({"speed_mps": 9.0})
        (alert,) = await until(1)
        assert alert["labels"] == {
            "alertname": "max_speed", "node": "forge", "fleet": "plant", "severity": "critical", "action": "tell"
        }  # fmt: skip
        assert alert["status"]["state"] in ("active", "unprocessed")
        assert alert["annotations"]["description"] == "speed_mps = 9.0, 7.5 above the limit (500 %)"
        await asyncio.to_thread(alertmanager.stop)
        await node.measure({"speed_mps": 1.0})
        await node.measure({"speed_mps": 8.0})
        await eventually(lambda: node.actions.report().actions[0].failed > 0)
        assert node.actions.waiting == 2
    async with Node(settings=settings, transport=MemoryNetwork().transport()) as node:
        await asyncio.to_thread(alertmanager.start)
        (alert,) = await until(1)
        assert "8.0" in alert["annotations"]["description"]
        await eventually(lambda: node.actions.waiting == 0)
        await node.measure({"speed_mps": 1.0})
        assert await until(0) == []
        assert node.actions.report().actions[0].dropped == 0


async def test_a_subscriber_of_zenoh_receives_each_turn() -> None:
    action = Action(name="say", zenoh="plant/${node}/${constraint}", template="cloudevents")
    settings = NodeSettings(name="forge", fleet="plant", action=(action,), check_every=QUICK.check_every)
    got: list[tuple[str, str, Any]] = []
    came = threading.Event()

    def take(sample: zenoh.Sample) -> None:
        got.append((str(sample.key_expr), str(sample.encoding), json.loads(sample.payload.to_bytes())))
        came.set()

    async with Node(settings=settings) as node:
        config = zenoh.Config()
        for key, value in (
            ("mode", '"client"'),
            ("connect/endpoints", json.dumps(list(node.status().endpoints))),
            ("scouting/multicast/enabled", "false"),
        ):
            config.insert_json5(key, value)
        session = await asyncio.to_thread(zenoh.open, config)
        try:
            session.declare_subscriber("plant/**", zenoh.handlers.Callback(take, indirect=False))
            await node.add_constraint("a*b", when="speed_mps <= 1.5")
            # A subscription needs a moment to arrive: what was said before it is not for it.
            async with asyncio.timeout(20):
                while not came.is_set():
                    await node.measure({"speed_mps": 9.0})
                    await node.measure({"speed_mps": 1.0})
                    await asyncio.sleep(0.05)
            await eventually(lambda: node.actions.waiting == 0 and got[-1][2]["type"].endswith("holds-again"))
            key, encoding, event = got[-1]
            assert (key, encoding) == ("plant/forge/a%2Ab", "application/cloudevents+json")
            assert (event["subject"], event["data"]["values"]) == ("a*b", {"speed_mps": 1.0})
            assert node.actions.report().actions[0].failed == 0
        finally:
            await asyncio.to_thread(session.close)


async def test_a_broker_receives_each_turn_in_order_over_restarts_of_both(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    broker.start()
    action = Action(
        name="tell", mqtt=f"mqtt://127.0.0.1:{broker.port}", topic="plant/${node}/${constraint}/${turn}", template="cloudevents"
    )
    settings = NodeSettings(name="forge", fleet="plant", store=str(tmp_path / "forge.db"), action=(action,))
    got: list[Any] = []

    def told() -> list[object]:
        return [json.loads(each.payload)["data"]["values"]["speed_mps"] for each in got]

    try:
        with broker.subscriber("plant/#", got.append) as is_subscribed:
            await eventually(is_subscribed)
            async with Node(settings=settings, transport=MemoryNetwork().transport()) as node:
                await node.add_constraint("max/speed", when="speed_mps <= 1.5")
                await node.measure({"speed_mps": 9.0})
                await eventually(lambda: told() == [9.0])
                (message,) = got
                assert (message.topic, message.qos, message.retain) == ("plant/forge/max%2Fspeed/violated", 1, False)
                assert message.properties.ContentType == "application/cloudevents+json"
                await asyncio.to_thread(broker.stop)
                await node.measure({"speed_mps": 1.0})
                await node.measure({"speed_mps": 8.0})
                await eventually(lambda: node.actions.report().actions[0].failed > 0)
                assert "cannot be reached: Connection refused" in node.actions.report().actions[0].last_failure
                assert node.actions.waiting == 2
            broker.start()
            await eventually(is_subscribed)
            async with Node(settings=settings, transport=MemoryNetwork().transport()) as node:
                await eventually(lambda: node.actions.waiting == 0)
                await node.measure({"speed_mps": 1.25})
                await eventually(lambda: told() == [9.0, 1.0, 8.0, 1.25])
                assert got[-1].topic == "plant/forge/max%2Fspeed/holds%20again"
                assert node.actions.report().actions[0].dropped == 0
    finally:
        broker.stop()


async def test_a_broker_keeps_the_last_turn_and_says_whom_it_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that is kept for those who come later; a wrong password, and a broker that accepts and says nothing."""
    monkeypatch.setattr(actions_module, "TIMEOUT", 0.5)
    broker = Broker(tmp_path)
    broker.start()
    (tmp_path / "passwords").write_text("")
    strict = Broker(tmp_path, f"password_file {tmp_path / 'passwords'}", "user root")
    strict.start()
    (tmp_path / "password").write_text("wrong\n")
    mute = socket.create_server(("127.0.0.1", 0))
    ways = {
        "kept": {"mqtt": f"mqtt://127.0.0.1:{broker.port}", "retain": True},
        "refused": {"mqtt": f"mqtt://127.0.0.1:{strict.port}", "username": "me", "password_file": str(tmp_path / "password")},
        "mute": {"mqtt": f"mqtt://127.0.0.1:{mute.getsockname()[1]}"},
    }
    actions = tuple(Action(name=name, topic="t/${constraint}", **way) for name, way in ways.items())  # type: ignore[arg-type]
    got: list[Any] = []
    try:
        async with Node(settings=NodeSettings(name="forge", action=actions), transport=MemoryNetwork().transport()) as node:
            await node.add_constraint("max_speed", when="speed_mps <= 1.5")
            await node.measure({"speed_mps": 9.0})
            await eventually(lambda: node.actions.report().actions[0].delivered == 1)
            with broker.subscriber("t/+", got.append):
                await eventually(lambda: got)
            assert (got[0].retain, json.loads(got[0].payload)["values"]) == (True, {"speed_mps": 9.0})
            await eventually(lambda: all(each.failed for each in node.actions.report().actions[1:]))
            refused, silent = (each.last_failure for each in node.actions.report().actions[1:])
            assert refused == "the broker refuses the connection: Not authorized"
            assert silent == "the broker does not answer within 0.5 s"
    finally:
        broker.stop()
        strict.stop()
        mute.close()
