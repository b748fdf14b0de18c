"""Carrying exchanges over a transport: whom to ask, when, and what an answer proves.

Rules kept here:

- One exchange at a time is begun; answering others goes on meanwhile.
- A peer is live once it has answered or spoken to us, until it goes or fails. The transport's list of peers is only a hint.
- A peer that fails is left alone for a while that doubles, so that one sick node costs the others little.
- Nothing is said before what it tells is on disk, where the node has one (`durable`).
- What comes in and cannot be taken is refused, counted and logged once per sentence, and never ends the node.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Set
from random import Random

from constraint_crdt.engine.transport import Peer, Transport, Unreachable
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.gossip.messages import GossipMessage, GossipResult, Part
from constraint_crdt.gossip.protocol import GossipNode

FANOUT = 3
"""Peers that a change is pushed to at once; they push it on."""

FIRST_BACKOFF = 0.5
LONGEST_BACKOFF = 10.0
"""Seconds that a peer is left alone after it failed: doubling between these."""

LONGEST_EXCHANGE = 128
"""Messages, or bursts of parts, after which an exchange is broken off: it takes four, and more only while both sides keep changing,
or a large state is on its way. What is on its way then goes on in the next exchange.
"""

REFUSALS_LOGGED = 256

_log = logging.getLogger(__name__)
Received = Callable[[str, GossipResult], None]
Durable = Callable[[], Awaitable[None]]


class Exchanger:
    """Exchanges between one `GossipNode` and the peers on a transport."""

    def __init__(
        self, gossip: GossipNode, transport: Transport, received: Received, durable: Durable, *, timeout: float, random: Random
    ) -> None:
        """`received(node_id, result)` is called after each message, `durable()` awaited before anything is said; `timeout` in
        seconds bounds each silence of a peer.
        """
        self._gossip = gossip
        self._transport = transport
        self._received = received
        self._durable = durable
        self._timeout = timeout
        self._random = random
        self._turn = asyncio.Lock()
        self._dirty = asyncio.Event()
        self._resting: dict[Peer, tuple[float, float]] = {}
        self._live: set[str] = set()
        self._refusals: set[str] = set()
        self.begun = 0
        """Exchanges begun here."""
        self.completed = 0
        """Exchanges begun here that came to an end."""
        self.failed = 0
        """Exchanges begun here whose peer did not answer."""
        self.sent = 0
        """Messages, or parts of one, given to the transport: requests and replies."""
        self.received = 0
        """Messages, or parts of one, that came from it."""
        self.refused = 0
        """Messages that could not be taken."""
        self.learned_bytes = 0
        """Bytes of the cells that came from peers and were new here: the least that had to be carried."""

    @property
    def live(self) -> frozenset[str]:
        """The names of the peers that are there, by their own evidence."""
        return frozenset(self._live)

    @property
    def seen(self) -> Set[str]:
        """The same as a live view: do not hold it over an await."""
        return self._live

    async def answer(self, payload: bytes) -> list[bytes]:
        """A message of a peer in, what to reply out."""
        peer, responses = self._receive(payload)
        replies = [data for response in responses for data in self._gossip.encoded(response, peer)]
        await self._durable()
        self.sent += len(replies)
        return replies

    def gone(self, peer: Peer) -> None:
        """The transport lost sight of a peer."""
        self._resting.pop(peer, None)
        if not any(other.name == peer.name for other in self._transport.peers()):
            self._live.discard(peer.name)

    def push(self) -> None:
        """Something changed that others should hear of soon."""
        self._dirty.set()

    async def run_rounds(self, every: float) -> None:
        """Exchange with one peer after another, for ever; `every` in seconds, varied a little so that nodes drift apart."""
        while True:
            await asyncio.sleep(every * self._random.uniform(0.8, 1.2))
            peers = self._willing()
            if peers:
                await self.exchange(self._random.choice(peers))

    async def run_pushes(self) -> None:
        """Carry each change at once to a few peers that lack it, for ever."""
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            await self.push_now()

    async def push_now(self) -> None:
        """Carry what is new here to a few peers that lack it."""
        peers = self._willing()
        self._random.shuffle(peers)
        lacking = [peer for peer in peers if self._gossip.tracker.hash(peer.name) != self._gossip.state_hash]
        for peer in lacking[:FANOUT]:
            await self.exchange(peer)

    def willing(self, names: Collection[str]) -> list[Peer]:
        """The peers of these names that are believed to be there and did not fail lately, in a fixed order."""
        return [peer for peer in self._willing() if peer.name in names]

    async def exchange(self, peer: Peer) -> bool:
        """Begin an exchange and carry it to its end. False if the peer failed; then it is left alone for a while."""
        async with self._turn:
            self.begun += 1
            try:
                await self._carry(peer)
            except Unreachable as error:
                self.failed += 1
                self._rest(peer, str(error))
                return False
            self._resting.pop(peer, None)
            self.completed += 1
            return True

    async def _carry(self, peer: Peer) -> None:
        waiting = [self._gossip.begin(peer.name)]
        said = 0
        while waiting:
            message = waiting.pop(0)
            said += not isinstance(message, Part) or message.pause  # a burst counts as one
            if said > LONGEST_EXCHANGE:
                _log.warning("broke off an exchange with %s after %d messages", peer.name, LONGEST_EXCHANGE)
                return
            payloads = self._gossip.encoded(message, peer.name)
            await self._durable()
            for data in payloads:
                self.sent += 1
                for reply in await self._transport.request(peer, data, self._timeout):
                    waiting += self._receive(reply)[1]

    def _receive(self, payload: bytes) -> tuple[str, list[GossipMessage]]:
        """Take a message in: who said it, and what to respond."""
        rows = self._gossip.state.rows
        self.received += 1
        known = rows.clock_mark.entries
        try:
            message, result = self._gossip.hear(payload)
        except ConstraintCrdtError as error:
            self._refuse(str(error))
            return "", []
        name = message.node.node_id
        if name != self._gossip.node_id:
            self._live.add(name)
        if result.state_changed:
            self.learned_bytes += sum(len(cell.data) for run in rows.since(known) for cell in run.cells)
        self._received(name, result)
        return name, result.responses

    def _refuse(self, why: str) -> None:
        self.refused += 1
        if why not in self._refusals and len(self._refusals) < REFUSALS_LOGGED:
            self._refusals.add(why)
            _log.warning("refused a message: %s", why)

    def _willing(self) -> list[Peer]:
        """The peers that are believed to be there and did not fail lately, in a fixed order."""
        now = asyncio.get_running_loop().time()
        return sorted(peer for peer in self._transport.peers() if self._resting.get(peer, (0.0, 0.0))[0] <= now)

    def _rest(self, peer: Peer, why: str) -> None:
        now = asyncio.get_running_loop().time()
        before = self._resting.get(peer, (0.0, 0.0))[1]
        pause = min(before * 2 or FIRST_BACKOFF, LONGEST_BACKOFF)
        self._resting[peer] = (now + pause, pause)
        if peer.name in self._live:
            self._live.discard(peer.name)
            _log.info("%s does not answer (%s); asking it again in %.1f s", peer.name, why, pause)
