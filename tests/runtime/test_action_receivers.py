"""Actions against real receivers: Debian's Alertmanager, and a subscriber of Zenoh."""

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
from tests.runtime.fleet import QUICK, eventually

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
