"""Large transfers between exchangers on a network that fails in the middle: the next exchange goes on, whoever began."""

import asyncio
from random import Random
from time import monotonic

import pytest

from constraint_crdt import GossipNode, Limits, MemoryNetwork, VectorClock
from constraint_crdt.protocol.messages import Part, decode_message
from constraint_crdt.runtime.exchange_loop import ExchangeLoop
from constraint_crdt.transport import MemoryTransport, Peer, Unreachable
from tests.protocol.scrambled import scrambled, travelling
from tests.runtime.fleet import eventually

LIMITS = Limits(burst_bytes=200_000)
"""Three parts of a message, or four."""


class Cutting(MemoryTransport):
    """A transport that fails, while `left` is not None, after so many more requests; and counts the parts on their way."""

    left: int | None = None
    parts = 0
    content = 0

    async def request(self, peer: Peer, payload: bytes, timeout: float) -> list[bytes]:  # noqa: ASYNC109 - see Transport
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Unreachable("cut")
        replies = await super().request(peer, payload, timeout)
        parts = [message for message in map(decode_message, (payload, *replies)) if isinstance(message, Part)]
        self.parts += len(parts)
        self.content += sum(len(part.chunk) for part in parts)
        return replies


class Seat:
    """An exchanger on a network."""

    def __init__(self, name: str, network: MemoryNetwork) -> None:
        self.gossip = GossipNode(name, limits=LIMITS)
        self.transport = Cutting(network, 16)
        self.exchanger = ExchangeLoop(
            self.gossip, self.transport, lambda name, result: None, self._durable, timeout=5.0, random=Random(1)
        )

    async def _durable(self) -> None:
        await asyncio.sleep(0)

    async def open(self) -> Peer:
        return await self.transport.open(self.gossip.node_id, "default", self.exchanger.answer, lambda peer, up: None)


@pytest.mark.slow
async def test_a_burst_of_parts_counts_as_one_message_of_an_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a large state goes over in one exchange, also where its sender began."""
    monkeypatch.setattr("constraint_crdt.runtime.exchange_loop.LONGEST_EXCHANGE", 12)
    network = MemoryNetwork()
    full, blank = Seat("full", network), Seat("blank", network)
    for number in range(12_000):
        full.gossip.add_constraint(scrambled(f"{number}") + scrambled(f"-{number}"))
    await full.open()
    peer = await blank.open()
    await eventually(full.transport.peers)
    assert await full.exchanger.exchange(peer)
    assert full.transport.parts > 12
    assert full.gossip.state == blank.gossip.state
    await full.transport.close()
    await blank.transport.close()


@pytest.mark.long
@pytest.mark.parametrize("full_begins", [False, True])
async def test_an_exchange_that_failed_in_the_middle_goes_on_where_it_stopped(
    full_begins: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, passed = asyncio.get_running_loop(), 0.0
    monkeypatch.setattr(loop, "time", lambda: monotonic() + passed)
    network = MemoryNetwork()
    full, blank = Seat("full", network), Seat("blank", network)
    for number in range(14_000):
        full.gossip.add_constraint(scrambled(f"{number}") + scrambled(f"-{number}"))
    whole = travelling(full.gossip.delta_since(VectorClock()))
    beginner, other = (full, blank) if full_begins else (blank, full)
    await beginner.open()
    peer = await other.open()
    await eventually(beginner.transport.peers)
    interruptions = 0
    while full.gossip.state != blank.gossip.state:
        passed += 0.2  # between two exchanges. Who was interrupted repeats a burst when seconds have passed
        beginner.transport.left = 8 if full_begins else 2
        if not await beginner.exchanger.exchange(peer):
            interruptions += 1
            complete = blank.gossip.state == full.gossip.state  # if it failed after the last part
            assert complete or not len(blank.gossip.state.rows), "nothing counts before the last part is there"
        assert interruptions < 10
    assert interruptions >= 2
    assert beginner.transport.content <= whole + interruptions * 65_536, "hardly any part came twice"
    beginner.transport.left = None
    await beginner.exchanger.exchange(peer)
    assert full.gossip.converged
    assert blank.gossip.converged
    await full.transport.close()
    await blank.transport.close()
