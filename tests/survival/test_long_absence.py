"""A node that was away while the others forgot: it gets a whole Sync, in parts, and brings nothing back to life.

The state is large enough for the Sync to travel in several parts, and the line is cut in the middle of them.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from pathlib import Path
from random import Random

import pytest

from constraint_crdt import GossipNode, MemoryNetwork, Node, exchange
from constraint_crdt.operations.constraints import AddConstraint, RemoveConstraint
from constraint_crdt.protocol.messages import GossipMessage, Part, Sync, decode_message, encode_message
from constraint_crdt.protocol.transfers import split_message
from constraint_crdt.transport import Handler, Peer, PeerCallback, Transport, Unreachable
from constraint_crdt.types.definition import ADD
from tests.conftest import BUDGET
from tests.protocol.scrambled import scrambled
from tests.runtime.fleet import agreed, eventually
from tests.survival.nodes import boot, counts, ids, node_on
from tests.survival.watching import DotWatch, stored

pytestmark = pytest.mark.processes

CHURN, BATCH = 10_000 if BUDGET == "nightly" else 300, 300
"""Constraints that come and go while the node is away, and how many at a time."""
STAYING = 1_200 if BUDGET == "nightly" else 600
OLD = {f"old-{number}" for number in range(300)}
"""What the node that goes away has seen added, and not seen removed."""
NEW = {f"new-{number}" for number in range(STAYING)}


def about(id_: str) -> str:
    """A text that makes a cell long, and stays so when it is packed."""
    return "".join(scrambled(f"{id_} {number}") for number in range(3))


def adds(names: set[str]) -> list[AddConstraint]:
    return [AddConstraint(id=id_, about=about(id_)) for id_ in sorted(names)]


class TornLine:
    """A transport over which transfers in parts break: while they are sent, and while they are the answer."""

    def __init__(self, line: Transport) -> None:
        self._line = line
        self.cuts: list[int] = []
        """After how many parts each of the next transfers breaks. It holds from then on."""
        self.wall: int | None = None
        """The first part that never gets through."""
        self._sent = 0
        self.broken = 0
        """Transfers that broke."""

    @property
    def endpoints(self) -> tuple[str, ...]:
        return tuple(self._line.endpoints)

    @property
    def bytes_sent(self) -> int:
        return self._line.bytes_sent

    @property
    def bytes_received(self) -> int:
        return self._line.bytes_received

    @property
    def refused(self) -> int:
        return self._line.refused

    async def open(self, name: str, fleet: str, handler: Handler, changed: PeerCallback) -> Peer:
        async def answer(payload: bytes, sender: Peer | None) -> Sequence[bytes]:
            replies = await handler(payload, sender)
            parts = [message.index for reply in replies if isinstance(message := decode_message(reply), Part)]
            if parts and self.cuts:
                self.broken += 1
                return replies[: self.cuts.pop(0)]
            if parts and self.wall is not None and parts[-1] >= self.wall:
                self.broken += 1
                return replies[: max(0, self.wall - parts[0])]
            return replies

        return await self._line.open(name, fleet, answer, changed)

    async def reopen(self) -> Peer:
        return await self._line.reopen()

    async def request(self, peer: Peer, payload: bytes, timeout: float) -> list[bytes]:  # noqa: ASYNC109 - see Transport
        message = decode_message(payload)
        if isinstance(message, Part) and (self.cuts or self.wall is not None):
            self._sent += 1
            if self._sent > self.cuts[0] if self.cuts else message.index >= (self.wall or 0):
                self.broken += 1
                self._sent = 0
                self.cuts = self.cuts[1:]
                raise Unreachable("the line is cut")
        return await self._line.request(peer, payload, timeout)

    def peers(self) -> frozenset[Peer]:
        return self._line.peers()

    async def close(self) -> None:
        await self._line.close()


class Scene:
    """`a` and `b` are there all the time; `c` has a store and goes away."""

    def __init__(self, directory: Path) -> None:
        self.network, self.watch, self.store = MemoryNetwork(), DotWatch(), directory / "node.db"
        self.lines = [TornLine(self.network.transport()) for _ in range(2)]
        self.a, self.b = (node_on(self.network, name, transport=line) for name, line in zip("ab", self.lines, strict=True))

    async def start_c(self) -> Node:
        c = node_on(self.network, "c", self.store)
        await c.start()
        self.watch.follow(c.gossip.state.rows)
        return c

    @staticmethod
    def _has(node: Node, names: set[str]) -> bool:
        return names <= ids(node)

    async def go_on_without_c(self) -> None:
        """Adds and removes, until everything removed is forgotten."""
        await self.a.batch([RemoveConstraint(id=id_) for id_ in sorted(OLD)])
        for start in range(0, CHURN, BATCH):
            names = {f"passing-{number}" for number in range(start, start + BATCH)}
            await self.a.batch(adds(names))
            await eventually(partial(self._has, self.b, names))
            await self.b.batch([RemoveConstraint(id=id_) for id_ in sorted(names)])
        await self.a.batch(adds(NEW))
        await self.a.record(17)
        await eventually(lambda: agreed([self.a, self.b]) and not (self.a.storage().removed or self.b.storage().removed))


def ids_on_disk(store: Path, directory: Path) -> set[str]:
    """The active constraints in a store, read from a copy."""
    return {str(key) for key in stored(store, directory / "scratch", node="c").table(ADD)}


@asynccontextmanager
async def scene(directory: Path) -> AsyncIterator[Scene]:
    made = Scene(directory)
    async with made.a, made.b:
        for node in (made.a, made.b):
            made.watch.follow(node.gossip.state.rows)
        yield made


@pytest.mark.long(by_day=["stopped-whole"])
@pytest.mark.parametrize("cuts", [[], [1, 0, 2, 3, 1, 2]], ids=["whole", "cut off several times"])
@pytest.mark.parametrize("stopped", [True, False], ids=["stopped", "cut off"])
async def test_a_node_that_was_away_gets_a_sync_and_revives_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cuts: list[int], *, stopped: bool
) -> None:
    boot(monkeypatch, tmp_path / "run")
    async with scene(tmp_path) as fleet:
        a, b = fleet.a, fleet.b
        c = await fleet.start_c()
        await a.batch(adds(OLD))
        await c.record(5)
        await eventually(lambda: agreed([a, b, c]))
        clock = c.gossip.clock.as_dict()
        fleet.network.cut(["c"], ["a", "b"])
        if stopped:
            await c.stop()
        await fleet.go_on_without_c()
        assert not a.gossip.state.rows.serves(clock), "it needs a Sync, or this shows nothing"
        if stopped:
            c = await fleet.start_c()
        assert ids(c) == OLD
        await c.add_constraint("of-c", about="added while it was alone")
        for line in fleet.lines:
            line.cuts = list(cuts)
        fleet.network.heal()
        await eventually(lambda: agreed([a, b, c]))
        for node in (a, b, c):
            assert ids(node) == NEW | {"of-c"}
            assert counts(node)[0] == 22
            assert node.gossip.alarms == 0
        if cuts:
            assert sum(line.broken for line in fleet.lines), "no transfer was ever cut"
        await c.stop()
    assert ids_on_disk(fleet.store, tmp_path) == NEW | {"of-c"}
    assert fleet.watch.conflicts == []


@pytest.mark.long
async def test_a_sync_that_breaks_every_time_is_resumed_where_it_broke_while_the_state_moves_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One more part gets through each time, of a snapshot that is no longer what the sender has: begun anew, it would never end."""
    boot(monkeypatch, tmp_path / "run")
    async with scene(tmp_path) as fleet:
        c = await fleet.start_c()
        await fleet.a.batch(adds(OLD))
        await eventually(lambda: agreed([fleet.a, fleet.b, c]))
        fleet.network.cut(["c"], ["a", "b"])
        await fleet.go_on_without_c()
        for line in fleet.lines:
            line.cuts = [1] * 100_000
        fleet.network.heal()
        async with asyncio.timeout(20):
            for number in count():
                await fleet.a.add_constraint("moving", about=str(number))
                if OLD.isdisjoint(ids(c)):
                    break
                await asyncio.sleep(0.01)  # the pace at which the state moves
        assert ids(c) >= NEW
        assert sum(line.broken for line in fleet.lines) >= 2
        for line in fleet.lines:
            line.cuts = []
        await eventually(lambda: agreed([fleet.a, fleet.b, c]))
        assert ids(c) == NEW | {"moving"}
        await c.stop()
        assert fleet.watch.conflicts == []


@pytest.mark.long
async def test_a_sync_that_never_completes_changes_nothing_also_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boot(monkeypatch, tmp_path / "run")
    async with scene(tmp_path) as fleet:
        c = await fleet.start_c()
        await fleet.a.batch(adds(OLD))
        await eventually(lambda: agreed([fleet.a, fleet.b, c]))
        fleet.network.cut(["c"], ["a", "b"])
        await fleet.go_on_without_c()
        before = c.gossip.state_hash
        for line in fleet.lines:
            line.wall = 2
        fleet.network.heal()
        await eventually(lambda: sum(line.broken for line in fleet.lines) >= 5)
        assert c.gossip.state_hash == before
        assert ids(c) == OLD
        assert ids_on_disk(fleet.store, tmp_path) == OLD
        for line in fleet.lines:
            line.wall = None
        await eventually(lambda: agreed([fleet.a, fleet.b, c]))
        assert ids(c) == NEW
        await c.stop()


# --- without I/O: parts of Syncs lost at random, with the state moving under them ------------------------------------------


def carried(message: GossipMessage, random: Random, loss: float) -> list[GossipMessage]:
    """What arrives of a message that travels in small parts, each of which may be lost, doubled, or overtaken."""
    parts = split_message(message, max_bytes=2_000)
    if len(parts) > 1:
        parts = [part for part in parts if random.random() >= loss] + random.sample(parts, min(2, len(parts)))
        random.shuffle(parts)
    return [decode_message(encode_message(part)) for part in parts]


@pytest.mark.parametrize("seed", range(8))
def test_lost_parts_of_syncs_delay_a_return_and_change_nothing_else(seed: int) -> None:
    random = Random(seed)
    a, c = GossipNode("a"), GossipNode("c")
    for number in range(100):
        a.add_constraint(f"old-{number}")
    exchange(a, c)
    for number in range(100):
        a.remove_constraint(f"old-{number}")
        a.add_constraint(f"new-{number}", about=about(f"new-{number}"))
    a.collect()
    c.record_satisfied(3)
    tries = complete = 0
    while c.state_hash != a.state_hash:
        tries += 1
        assert tries < 2_000
        if tries % 7 == 0 and tries < 50:
            a.add_constraint(f"meanwhile-{tries}")
        before = set(c.state.constraints)
        for answer in a.receive(c.ping()).responses:
            sync = isinstance(answer, Sync)
            for arrived in carried(answer, random, loss=0.15 if tries < 30 else 0.0):
                for back in c.receive(arrived).responses:
                    a.receive(back)
            now = set(c.state.constraints)
            assert now == before or not any(id_.startswith("old") for id_ in now), "a part of a Sync was applied"
            complete += sync and now != before
    assert complete >= 1
    assert set(c.state.constraints) == set(a.state.constraints)
    assert a.state.metrics.total_satisfied == 3
    assert tries > 1 or complete == 1


def test_a_sync_with_a_part_of_another_snapshot_is_not_put_together() -> None:
    a, c = GossipNode("a"), GossipNode("c")
    for number in range(200):
        a.add_constraint(f"id-{number}", about=about(f"id-{number}"))
    one = split_message(a.delta_since(c.clock), max_bytes=2_000)
    a.add_constraint("later", about=about("later"))
    two = split_message(a.delta_since(c.clock), max_bytes=2_000)
    for part in [*one[:-1], two[-1]]:
        c.receive(part)
    assert len(c.state.constraints) == 0
    for part in two[:-1]:
        c.receive(part)
    assert len(c.state.constraints) == 201
