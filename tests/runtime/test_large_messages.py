"""A large message holds up no node: it is read and encoded in a thread, seen as a whole, and what follows is done in slices."""

import asyncio
import threading
import zlib
from random import Random
from time import process_time

import pytest

from constraint_crdt import MemoryNetwork, Node
from constraint_crdt.crdt.clock import Replica
from constraint_crdt.protocol import exchange_rules, gossip_node
from constraint_crdt.protocol.messages import Part, encode_message
from constraint_crdt.runtime import change_feed
from constraint_crdt.transport import Peer
from tests.runtime.fleet import QUICK, agreed, eventually, fleet

MANY = 1_000


async def no_answer(_payload: bytes, _sender: Peer | None) -> list[bytes]:
    return []


def ignore(_peer: Peer, _up: bool) -> None:
    """Take no notice of a peer."""


def bomb(cells: int) -> bytes:
    head = (
        b"\x96\x12\xc0\xa1p\x02\xc4\x20" + bytes(32) + b"\x91\x93\x92\xa1p\x02\xce\x7f\xff\xff\xff\xdd" + cells.to_bytes(4, "big")
    )
    drawn = Random(1).choices(range(0x21, 0x7F), k=cells // 24)
    return head + b"".join([b"\x92\x63\xa1" + bytes((each,)) for each in drawn]) + b"\x92\x63\xa1k" * (cells - len(drawn))


@pytest.mark.slow
async def test_a_bomb_is_refused_aloud_at_the_cost_of_unpacking_it(caplog: pytest.LogCaptureFixture) -> None:
    """1.5 million cells in some 70 kB. To read them would cost some 40 times as much as to unpack them, or 200 times in Python."""
    data = bomb(1_500_000)
    packed = zlib.compress(data, 6)
    assert len(data) <= 100 * len(packed)
    network, chunk = MemoryNetwork(), 60_000
    attacker = network.transport()
    async with Node(name="victim", settings=QUICK, transport=network.transport()) as node:
        await attacker.open("p", QUICK.fleet, no_answer, ignore)
        await eventually(attacker.peers)
        (victim,) = attacker.peers()
        before, refused = node.gossip.state_hash, node.metrics.report().messages_refused
        count = -(-len(packed) // chunk)

        async def send() -> None:
            for index in range(count):
                part = Part(
                    node=Replica("p", 2), transfer=bytes(8), index=index, count=count, size=len(packed),
                    chunk=packed[index * chunk : (index + 1) * chunk], unpacked=len(data),
                )  # fmt: skip
                await attacker.request(victim, encode_message(part), 60.0)

        began = process_time()
        assert zlib.decompress(packed) == data
        alone = process_time() - began
        await send()
        took = process_time() - began - alone
        assert node.metrics.report().messages_refused == refused + 1
        assert node.gossip.state_hash == before
        assert "see `Limits.message_items`" in caplog.text
        assert took < 15 * alone + 0.1
    await attacker.close()


@pytest.mark.long
async def test_a_large_state_is_read_and_encoded_in_threads_and_told_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change_feed, "SETTLED_AT_ONCE", 100)
    monkeypatch.setattr(exchange_rules, "READ_APART", 8 * 1024)
    monkeypatch.setattr(gossip_node, "ENCODED_APART", 500)
    threads: list[bool] = []
    main = threading.current_thread()

    async def to_thread(work: object) -> object:
        def noted() -> object:
            threads.append(threading.current_thread() is not main)
            return work()  # type: ignore[operator]

        return await asyncio.get_running_loop().run_in_executor(None, noted)

    monkeypatch.setattr(asyncio, "to_thread", to_thread)
    network = MemoryNetwork()
    async with fleet("full", network=network) as (full,):
        for number in range(MANY):
            full.gossip.add_constraint(f"c{number}", when=f"x <= {number % 7}.5")
        async with Node(name="blank", settings=QUICK, transport=network.transport()) as blank:
            seen: set[int] = set()

            def whole() -> bool:
                seen.add(len(blank.gossip.state.constraints))
                return agreed([full, blank])

            await eventually(whole, within=60.0)
            assert seen <= {0, MANY}, "no part of it was seen"
            assert len(threads) >= 2
            assert all(threads)
            evaluations = await blank.check({"x": 7.0})
            assert len(evaluations) == MANY, "those not settled yet, too"
