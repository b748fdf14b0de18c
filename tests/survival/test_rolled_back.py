"""Store and marker put back together, in place, as a snapshot of a machine with its memory does: nothing at the start shows it.

The first peer that knows more of the life shows it. The life ends, what the peer knows comes back, and it is told which writes were
lost.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from constraint_crdt import Node
from tests.runtime.fleet import QUICK, eventually
from tests.survival.nodes import marker_file
from tests.survival.victim import Victim
from tests.survival.watching import DotWatch, copy_store, overwrite_store, stored

pytestmark = [pytest.mark.long, pytest.mark.processes]

WRITES = 100


class Machine:
    """A machine with a node, of which snapshots are taken and put back."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.store, self.runtime = directory, directory / "a" / "node.db", directory / "run"
        self._marker = b""

    async def start(self, *connect: str, discover: bool = True) -> Victim:
        victim = await Victim.launch("a", self.store, self.runtime, *connect, discover=discover)
        await victim.api()
        return victim

    @property
    def marker(self) -> Path:
        return marker_file(self.store, self.runtime)

    def snapshot(self) -> None:
        copy_store(self.store, self.directory / "snapshot.db")
        self._marker = self.marker.read_bytes()

    def put_back(self) -> None:
        inode = self.store.stat().st_ino
        overwrite_store(self.directory / "snapshot.db", self.store)
        assert self.store.stat().st_ino == inode
        self.marker.write_bytes(self._marker)


@pytest.fixture
async def peer() -> AsyncIterator[Node]:
    async with Node(name="peer", settings=QUICK, listen=["tcp/127.0.0.1:0"]) as node:
        yield node


async def write(victim: Victim, tag: str, count: int) -> None:
    """Writes that are acknowledged."""
    async with httpx.AsyncClient(base_url=f"{await victim.api()}/v1", timeout=10) as http:
        for number in range(count):
            answer = await http.post("/constraints", json={"id": f"{tag}-{number}"})
            assert answer.status_code == 201, answer.text


async def asked(victim: Victim, path: str) -> dict[str, object]:
    async with httpx.AsyncClient(base_url=f"{await victim.api()}/v1", timeout=10) as http:
        answer: dict[str, object] = (await http.get(path)).json()
        return answer


async def findings(victim: Victim) -> dict[str, dict[str, str]]:
    found = (await asked(victim, "/diagnosis"))["findings"]
    assert isinstance(found, list)
    return {each["check"]: each for each in found}


def ids(node: Node, tag: str) -> int:
    return sum(id_.startswith(tag) for id_ in node.constraint_ids())


async def test_peers_that_heard_of_the_lost_writes_show_it_and_bring_them_back(tmp_path: Path, peer: Node) -> None:
    machine, watch = Machine(tmp_path), DotWatch()
    watch.follow(peer.gossip.state.rows)
    endpoints = peer.status().endpoints
    victim = await machine.start(*endpoints)
    await write(victim, "early", 10)
    await eventually(lambda: ids(peer, "early") == 10)
    machine.snapshot()
    await write(victim, "late", WRITES)
    await eventually(lambda: ids(peer, "late") == WRITES)
    await victim.kill()
    [former] = [replica for replica in peer.gossip.clock if replica.node_id == "a"]
    known = peer.gossip.clock[former]
    machine.put_back()
    victim = await machine.start(*endpoints)
    await eventually(lambda: len([replica for replica in peer.gossip.clock if replica.node_id == "a"]) == 2)
    assert (await asked(victim, "/status"))["lost_writes"] == 0
    found = (await findings(victim))["rollback"]
    assert found["level"] == "warn"
    assert f"to {known} of {former}" in found["what"]
    await write(victim, "afterwards", 3)
    await eventually(lambda: ids(peer, "afterwards") == 3)
    assert (ids(peer, "early"), ids(peer, "late")) == (10, WRITES)
    assert any("peer knows writes" in line and f"to {known} of {former}" in line for line in victim.log)
    assert peer.gossip.clock[former] == known
    assert peer.gossip.alarms == 0
    await victim.kill()
    watch.read(stored(machine.store, tmp_path / "scratch", node="a"))
    assert watch.conflicts == []


async def test_alone_it_goes_on_and_a_peer_that_heard_shows_it_later(tmp_path: Path, peer: Node) -> None:
    """What was written meanwhile is under numbers that were used before: it is told, and nothing of it is lost."""
    machine = Machine(tmp_path)
    endpoints = peer.status().endpoints
    victim = await machine.start(*endpoints)
    await write(victim, "early", 10)
    machine.snapshot()
    await write(victim, "late", WRITES)
    await eventually(lambda: ids(peer, "late") == WRITES)
    await victim.kill()
    [former] = [replica for replica in peer.gossip.clock if replica.node_id == "a"]
    known = peer.gossip.clock[former]
    machine.put_back()
    victim = await machine.start(discover=False)
    await write(victim, "alone", 5)
    assert "rollback" not in await findings(victim)
    await victim.kill()
    victim = await machine.start(*endpoints)
    await eventually(lambda: ids(peer, "alone") == 5 and ids(peer, "late") == WRITES)
    await write(victim, "afterwards", 3)
    await eventually(lambda: ids(peer, "afterwards") == 3)
    assert f"to {known} of {former}" in (await findings(victim))["rollback"]["what"]
    assert peer.gossip.clock[former] == known, "what was written afterwards is of another life"
    await victim.kill()


async def test_a_store_put_back_alone_names_what_the_marker_knows_until_peers_bring_it_back(tmp_path: Path, peer: Node) -> None:
    machine = Machine(tmp_path)
    victim = await machine.start()
    await write(victim, "early", 10)
    copy_store(machine.store, tmp_path / "snapshot.db")
    await write(victim, "late", WRITES)
    await victim.kill()
    overwrite_store(tmp_path / "snapshot.db", machine.store)
    victim = await machine.start(*peer.status().endpoints)
    missing = (await asked(victim, "/status"))["lost_writes"]
    assert isinstance(missing, int)
    assert WRITES <= missing <= 2 * WRITES + 10  # each with its audit
    found = (await findings(victim))["rollback"]
    assert (found["level"], f"{missing} of them are still missing" in found["what"]) == ("fail", True)
    assert any("the store had been put back: writes" in line for line in victim.log)
    await write(victim, "afterwards", 3)
    await eventually(lambda: ids(peer, "afterwards") == 3)
    assert len([replica for replica in peer.gossip.clock if replica.node_id == "a"]) == 2, "a new life"
    await victim.kill()
