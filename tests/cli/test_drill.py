"""An operator's drill: ten incidents in a live fleet of six. `status` of a node names the cause, and a command that leads on."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest

from constraint_crdt import MemoryNetwork, Node
from constraint_crdt.cli import main
from constraint_crdt.cli.arguments import parse
from constraint_crdt.gossip import steady_ns
from constraint_crdt.http.server import ApiServer
from constraint_crdt.store import WritesRefused
from tests.runtime.fleet import QUICK, eventually
from tests.survival.disk import mounted

NAMES = ("r0", "r1", "r2", "r3", "r4", "r5")
SETTINGS = msgspec.structs.replace(QUICK, max_age=0.5, check_every=0.05, gossip_every=0.05)
WITHIN = 3.0
"""Seconds from an incident to the status that names it, on a machine that is not busy."""


class Drill:
    """The fleet, and the status of its nodes as the command prints it."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.network, self.ahead, self.capsys = MemoryNetwork(), Counter[str](), capsys
        self.nodes: dict[str, Node] = {}
        self.urls: dict[str, str] = {}
        self.values: dict[str, dict[str, object]] = {name: {"speed": 1.0, "temp": 40.0, "load": 0.1} for name in NAMES}

    async def start(self, stack: AsyncExitStack) -> None:
        for name in NAMES:
            self.nodes[name] = node = await stack.enter_async_context(self.node(name))
            self.urls[name] = (await stack.enter_async_context(ApiServer(node, port=0))).url
        measuring = asyncio.create_task(self._measure())
        stack.callback(measuring.cancel)

    def node(self, name: str) -> Node:
        now = lambda: time.time_ns() + self.ahead[name]  # noqa: E731
        return Node(name=name, settings=SETTINGS, transport=self.network.transport(), now=now, steady=steady_ns)

    async def _measure(self) -> None:
        """The sensors of all nodes, ten times a second."""
        while True:
            for name, values in self.values.items():
                if values:
                    await self.nodes[name].measure(values)
            await asyncio.sleep(0.1)

    async def command(self, *words: str, on: str = "r0") -> str:
        """The output of a command."""
        await asyncio.to_thread(main, [*words, "--node", self.urls[on]])
        return self.capsys.readouterr().out

    async def names(self, cause: str, leads_to: str = "", on: str = "r0") -> None:
        """Wait until the status of a node has the cause in a line, and the command in the same."""
        async with asyncio.timeout(10 * WITHIN):
            while True:
                out = await self.command("status", on=on)
                found = [line for line in out.splitlines() if cause in line]
                if found:
                    break
                await asyncio.sleep(0.05)
        if leads_to:
            assert f"`{leads_to}`" in found[0], found[0]
            parse(leads_to.split())
            await self.command(*leads_to.split(), on=on)

    async def is_over(self, cause: str, on: str = "r0") -> None:
        """Wait until the status of a node has the cause no longer."""
        async with asyncio.timeout(10 * WITHIN):
            while cause in await self.command("status", on=on):  # noqa: ASYNC110 - the status is asked as a person does
                await asyncio.sleep(0.05)


@pytest.mark.slow
async def test_status_names_the_cause_of_each_incident_and_a_command_that_leads_on(capsys: pytest.CaptureFixture[str]) -> None:
    async with AsyncExitStack() as stack:
        drill = Drill(capsys)
        await drill.start(stack)
        nodes = drill.nodes
        await nodes["r0"].add_constraint("max_speed", when="speed <= 1.5", severity="critical")
        await nodes["r0"].add_constraint("temp", when="temp < 85.0", severity="critical")
        await nodes["r0"].add_constraint("load", when="load < 0.9")
        await eventually(lambda: all(len(node.constraint_ids()) == 3 for node in nodes.values()))
        for incident in (overspeed, dead_sensor, cut, conflict, flapping, wrong_edit, mass_violation, clone, clock):
            await incident(drill)


async def overspeed(drill: Drill) -> None:
    drill.values["r3"]["speed"] = 9.1
    await drill.names("max_speed (critical) on r3 since")
    assert "speed = 9.1, 7.6 above the limit" in await drill.command("explain", "max_speed")
    drill.values["r3"]["speed"] = 1.0
    await drill.is_over("max_speed (critical) on r3 since")


async def dead_sensor(drill: Drill) -> None:
    del drill.values["r2"]["temp"]
    await drill.names("temp (critical) on r2", "explain temp")
    assert "older than 0.5 s" in await drill.command("status")
    drill.values["r2"]["temp"] = 40.0
    await drill.is_over("temp (critical) on r2")


async def cut(drill: Drill) -> None:
    drill.network.cut(["r4", "r5"], ["r0", "r1", "r2", "r3"])
    await drill.names("r4, r5 (see", "doctor")
    drill.network.heal()
    await drill.is_over("r4, r5 (see")


async def conflict(drill: Drill) -> None:
    drill.network.cut(["r0"], NAMES[1:])
    await eventually(lambda: not drill.nodes["r0"].status().peers)
    await drill.nodes["r0"].add_constraint("load", when="load < 0.8")
    await drill.nodes["r1"].add_constraint("load", when="load < 0.7")
    drill.network.heal()
    await drill.names("load has several definitions, by r0, r1 (see `resolve load`)")
    await drill.command("resolve", "load", "--keep", "1")
    await drill.is_over("load has several definitions")


async def flapping(drill: Drill) -> None:
    node = drill.nodes["r1"]
    drill.values["r1"].pop("load")
    for load in (0.95, 0.1) * 3:
        await node.measure({"load": load})
    await drill.names("load on r1: violated 3 times in 10 min", "explain load", on="r1")
    drill.values["r1"]["load"] = 0.1


async def wrong_edit(drill: Drill) -> None:
    await drill.nodes["r5"].edit_constraint("max_speed", when="speed <= 150.0", loosen=True)
    await drill.names("when: speed <= 1.5 -> speed <= 150.0")
    await drill.names("max_speed was changed", "revert max_speed")
    await drill.names("when: speed <= 150.0 -> speed <= 1.5")


async def mass_violation(drill: Drill) -> None:
    for values in drill.values.values():
        values["temp"] = 99.0
    await drill.names("and on 5 more nodes")
    assert "temp (critical) on" in await drill.command("status")
    for values in drill.values.values():
        values["temp"] = 40.0
    await drill.is_over("temp (critical) on")


async def clone(drill: Drill) -> None:
    async with drill.node("r5"):
        await drill.names("another live node has the name r5", "doctor", on="r5")


async def clock(drill: Drill) -> None:
    drill.ahead["r4"] = 3600 * 10**9
    await drill.names("r4 +3600.0 s from this node's", "doctor")
    await drill.names("in doubt", on="r4")


@pytest.mark.slow
@pytest.mark.processes
async def test_status_names_a_full_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with mounted(tmp_path / "disk") as disk:
        settings = msgspec.structs.replace(SETTINGS, store=str(disk.directory / "node.db"))
        drill = Drill(capsys)
        async with (
            Node(name="r0", settings=settings, transport=drill.network.transport()) as node,
            ApiServer(node, port=0) as api,
        ):
            drill.urls["r0"] = api.url
            await refused(node, disk.fill)
            await drill.names("writes are refused")
            assert "No space" in (told := await drill.command("doctor")) or "full" in told
            assert "MiB are free" in told


async def refused(node: Node, fill: Callable[[], None]) -> None:
    """Write until the node refuses."""
    add: Callable[[str], Awaitable[object]] = node.add_constraint
    for number in range(10_000):
        fill()
        try:
            await add(f"c{number}")
        except WritesRefused:
            return
    raise AssertionError("the disk is never full")
