"""A node that was away while the others forgot: it gets a whole Sync, in parts, and brings nothing back to life.

The state is large enough for the Sync to travel in several parts, and the line is cut in the middle of them.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest

from constraint_crdt import GossipNode, MemoryNetwork, Node, Sync, exchange, split_message
from constraint_crdt.engine.transport import Changed, Handler, Peer, Transport, Unreachable
from constraint_crdt.gossip.codec import decode_message, encode_message
from constraint_crdt.gossip.messages import GossipMessage, Part
from constraint_crdt.node.batches import AddConstraint, RemoveConstraint
from tests.node.fleet import agreed, eventually
from tests.survival.nodes import boot, counts, ids, node_on
from tests.survival.watching import DotWatch, stored

CHURN, BATCH = 10_000, 1_000
"""Constraints that come and go while the node is away, and how many at a time."""
STAYING = 2_000
ABOUT = "a limit that was agreed upon with those who run the line, and that is here to make this long"
OLD = {f"old-{number}" for number in range(300)}
"""What the node that goes away has seen added, and not seen removed."""
NEW = {f"new-{number}" for number in range(STAYING)}


def adds(names: set[str]) -> list[AddConstraint]:
    return [AddConstraint(id=id_, about=ABOUT) for id_ in sorted(names)]


class TornLine:
    """A transport over which transfers in parts break: their sending after some parts, their answers by all after some parts."""

    def __init__(self, line: Transport, cuts: list[int]) -> None:
        """`cuts`: after how many parts each of the next transfers breaks; it holds from then on."""
        self._line = line
        self.cuts = cuts
        self._sent = 0

    @property
    def endpoints(self) -> tuple[str, ...]:
        return tuple(self._line.endpoints)

    @property
    def bytes_sent(self) -> int:
        return self._line.bytes_sent

    @property
    def bytes_received(self) -> int:
        return self._line.bytes_received

    async def open(self, name: str, fleet: str, handler: Handler, changed: Changed) -> Peer:
        async def answer(payload: bytes) -> list[bytes]:
            replies = await handler(payload)
            if self.cuts and is_part(replies):
                return replies[: self.cuts.pop(0)]
            return replies

        return await self._line.open(name, fleet, answer, changed)

    async def reopen(self, extra_connect: tuple[str, ...] = ()) -> Peer:
        return await self._line.reopen(extra_connect)

    async def request(self, peer: Peer, payload: bytes, timeout: float) -> list[bytes]:  # noqa: ASYNC109 - see Transport
        if self.cuts and is_part([payload]):
            self._sent += 1
            if self._sent > self.cuts[0]:
                self._sent = 0
                self.cuts.pop(0)
                raise Unreachable("the line is cut")
        return await self._line.request(peer, payload, timeout)

    def peers(self) -> frozenset[Peer]:
        return self._line.peers()

    async def close(self) -> None:
        await self._line.close()


def is_part(payloads: list[bytes]) -> bool:
    return bool(payloads) and isinstance(decode_message(payloads[0]), Part)


class Scene:
    """`a` and `b` are there all the time; `c` has a store and goes away."""

    def __init__(self, directory: Path, cuts: list[int]) -> None:
        self.network, self.watch, self.store = MemoryNetwork(), DotWatch(), directory / "node.db"
        self.lines = [TornLine(self.network.transport(), list(cuts)) for _ in range(2)]
        self.a, self.b = (node_on(self.network, name, transport=line) for name, line in zip("ab", self.lines, strict=True))

    async def start_c(self) -> Node:
        c = node_on(self.network, "c", self.store)
        await c.start()
        self.watch.follow(c.gossip.state.rows)
        return c

    async def go_on_without_c(self) -> None:
        """Adds and removes, until everything removed is forgotten."""
        await self.a.batch([RemoveConstraint(id=id_) for id_ in sorted(OLD)])
        for start in range(0, CHURN, BATCH):
            names = {f"passing-{number}" for number in range(start, start + BATCH)}
            await self.a.batch(adds(names))
            await eventually(lambda names=names: names <= ids(self.b))
            await self.b.batch([RemoveConstraint(id=id_) for id_ in sorted(names)])
        await self.a.batch(adds(NEW))
        await self.a.record(17)
        await eventually(lambda: agreed([self.a, self.b]) and not (self.a.storage().removed or self.b.storage().removed))


@asynccontextmanager
async def scene(directory: Path, cuts: list[int]) -> AsyncIterator[Scene]:
    made = Scene(directory, cuts)
    async with made.a, made.b:
        for node in (made.a, made.b):
            made.watch.follow(node.gossip.state.rows)
        yield made


@pytest.mark.parametrize("cuts", [[], [1, 0, 2, 3, 1, 2]], ids=["whole", "cut off several times"])
@pytest.mark.parametrize("stopped", [True, False], ids=["stopped", "cut off"])
async def test_a_node_that_was_away_gets_a_sync_and_revives_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cuts: list[int], *, stopped: bool
) -> None:
    boot(monkeypatch, tmp_path / "run")
    async with scene(tmp_path, cuts) as fleet:
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
        fleet.network.heal()
        await eventually(lambda: agreed([a, b, c]))
        for node in (a, b, c):
            assert ids(node) == NEW | {"of-c"}
            assert counts(node)[0] == 22
            assert node.gossip.alarms == 0
        if cuts:
            assert min(len(line.cuts) for line in fleet.lines) < len(cuts), "no transfer was ever cut"
        await c.stop()
    on_disk = stored(fleet.store, tmp_path / "scratch", node="c")
    assert {str(key) for key in on_disk.table(1)} == NEW | {"of-c"}
    fleet.watch.read(on_disk)
    assert fleet.watch.conflicts == []


async def test_a_sync_that_never_completes_changes_nothing_also_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boot(monkeypatch, tmp_path / "run")
    async with scene(tmp_path, [2] * 100_000) as fleet:
        c = await fleet.start_c()
        await fleet.a.batch(adds(OLD))
        await eventually(lambda: agreed([fleet.a, fleet.b, c]))
        fleet.network.cut(["c"], ["a", "b"])
        await fleet.go_on_without_c()
        before = c.gossip.state_hash
        fleet.network.heal()
        left = [len(line.cuts) for line in fleet.lines]
        await eventually(lambda: sum(len(line.cuts) for line in fleet.lines) < sum(left) - 5)
        assert c.gossip.state_hash == before
        assert ids(c) == OLD
        for line in fleet.lines:
            line.cuts.clear()
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
        a.add_constraint(f"new-{number}", about=ABOUT)
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
        a.add_constraint(f"id-{number}", about=ABOUT)
    one = split_message(a.delta_since(c.clock), max_bytes=2_000)
    a.add_constraint("later", about=ABOUT)
    two = split_message(a.delta_since(c.clock), max_bytes=2_000)
    for part in [*one[:-1], two[-1]]:
        c.receive(part)
    assert len(c.state.constraints) == 0
    for part in two[:-1]:
        c.receive(part)
    assert len(c.state.constraints) == 201
