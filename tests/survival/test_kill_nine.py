"""`kill -9` at random moments of a node that is being written to: what it acknowledged is there, once, and no dot is used twice.

The other node, in this process, is connected all along, writes too, and sees all that the victim ever says. The stores that the
victim leaves are read as well. Every now and then the victim starts on what is, to it, another boot of the machine.
"""

import asyncio
import logging
import random
from pathlib import Path
from random import Random

import httpx
import pytest

from constraint_crdt import Node, NodeSettings
from tests.conftest import BUDGET
from tests.runtime.fleet import eventually
from tests.survival.victim import Client, Victim
from tests.survival.watching import DotWatch, stored

KILLS = 200 if BUDGET == "nightly" else 2
CLIENTS = 3
LONGEST_LIFE = 0.7
"""Seconds between ready and kill."""
LONGEST_START = 1.2
"""Seconds between start and kill, where it is killed before it is ready, or soon after."""
START_KILLED, REBOOTED = 3, 10
"""Each how many kills."""
WRITTEN = 4
"""Writes that every other life acknowledges before it is killed, however slow the machine is."""


_log = logging.getLogger(__name__)


class Trial:
    """A victim, its clients, and the other node."""

    def __init__(self, directory: Path, other: Node) -> None:
        self.seed = random.randrange(2**32)  # reproduced with pytest-randomly's seed
        self.random = Random(self.seed)
        self.directory, self.other = directory, other
        self.store = directory / "victim" / "node.db"
        self.boots = 0
        self.clients = [Client(f"client{number}", Random(self.random.random())) for number in range(CLIENTS)]
        self.watch = DotWatch()
        self.watch.follow(other.gossip.state.rows)
        self.counted_by_other = 0

    @property
    def acknowledged(self) -> int:
        """Writes of all clients."""
        return sum(client.acknowledged for client in self.clients)

    async def launch(self) -> Victim:
        runtime = self.directory / f"boot-{self.boots}"
        return await Victim.launch("victim", self.store, runtime, *self.other.status().endpoints)

    async def life_and_death(self, number: int) -> None:
        """Start, judge what is there, write, kill."""
        if number % REBOOTED == REBOOTED - 1:
            self.boots += 1
        victim = await self.launch()
        try:
            if number % START_KILLED == START_KILLED - 1:
                await asyncio.sleep(self.random.uniform(0, LONGEST_START))  # the moment of the fault, not a wait for anything
                return
            api = await victim.api()
            await self.judge(api)
            writing = [asyncio.create_task(client.write_until_it_dies(api)) for client in self.clients]
            await self.write_on_the_other(number)
            if number % 2 == 0:
                before = self.acknowledged
                await eventually(lambda: self.acknowledged >= before + WRITTEN, within=60)
            await asyncio.sleep(self.random.uniform(0, LONGEST_LIFE))  # as above
        finally:
            await victim.kill()
        await asyncio.gather(*writing)
        self.look_at_what_it_left()

    async def write_on_the_other(self, number: int) -> None:
        await self.other.add_constraint(f"other-{number % 5}", about=str(number))
        await self.other.record(1)
        self.counted_by_other += 1

    async def judge(self, api: str) -> str:
        """What the victim has; returns its hash."""
        async with httpx.AsyncClient(base_url=f"{api}/v1", timeout=10) as http:
            status = (await http.get("/status")).json()
            constraints = (await http.get("/constraints")).json()
        assert status["alarms"] == 0
        assert not any(each["conflict"] for each in constraints)
        for client in self.clients:
            client.judge({each["id"]: (each["about"], each["satisfied"]) for each in constraints})
        return str(status["hash"])

    def look_at_what_it_left(self) -> None:
        """The store has no dot in other words, and all that the other node ever heard of the victim."""
        rows = stored(self.store, self.directory / "scratch", node="victim")
        self.watch.read(rows)
        assert self.watch.conflicts == []
        for replica, seq in self.other.gossip.state.rows.clock_mark.entries.items():
            if replica.node_id == "victim":
                assert rows.seq(replica) >= seq, f"{replica}: told {seq}, has {rows.seq(replica)} on disk"

    async def end(self) -> None:
        """Started once more, it agrees with the other node, which has all that was acknowledged."""
        victim = await self.launch()
        try:
            api = await victim.api()
            await self.judge(api)
            async with httpx.AsyncClient(base_url=f"{api}/v1", timeout=10) as http:
                async with asyncio.timeout(30):
                    while (await http.get("/status")).json()["hash"] != self.other.status().hash:
                        await eventually(lambda: True)
        finally:
            await victim.kill()
        seen = {report.id: (report.about, report.satisfied) for report in self.other.constraints()}
        for client in self.clients:
            client.judge(seen)
        total = sum(client.counted for client in self.clients) + self.counted_by_other
        assert self.other.status().satisfied == total
        assert self.other.gossip.alarms == 0
        self.look_at_what_it_left()


@pytest.mark.long
@pytest.mark.processes
async def test_what_was_acknowledged_is_there_once_after_every_kill(tmp_path: Path) -> None:
    settings = NodeSettings(name="other", listen=("tcp/127.0.0.1:0",))
    async with Node(settings=settings) as other:
        trial = Trial(tmp_path, other)
        for number in range(KILLS):
            await trial.life_and_death(number)
        await trial.end()
        acknowledged = trial.acknowledged
        lives = sum(replica.node_id == "victim" for replica in other.gossip.state.rows.clock_mark.entries)
        _log.info(
            "seed %d: %d kills, %d writes acknowledged, %d lives, %d dots", trial.seed, KILLS, acknowledged, lives, len(trial.watch)
        )
        assert acknowledged > KILLS
        assert lives <= 1 + KILLS // REBOOTED
