"""Pacing: to how many peers a node carries a change at once, and how often at most.

A change reaches n nodes in about log n steps, and the wider each step the fewer: so the fan-out grows with the logarithm, slowly,
since each node that hears of a change carries it on as well. (Rounds keep their interval whatever the size and the quiet of the
fleet: a node begins one and answers one on average, and the clocks of peers are known by them, see `core.hybrid`.)

Asking: which peer a running node asks next, and how far away each of them is.

Rules kept here:

- Few peers are asked uniformly: each is near enough, and all hear soon. Many are asked by their distance, so that most of what is
  said travels on short links; `gossip.peers` has the chances, and the floor that leaves nobody out.
- A distance is one of two kinds for all peers together. Where this node and every peer wrote a position, it is the steps on the
  lattice between them; else the time that an answer takes.
- Of the last answers the quickest counts: what delays one (a disk, a busy loop, a long answer) only ever adds to the way.

Receipts: what each exchange that a node began cost, against the difference that it was for.

Rules kept here:

- The difference is the cells themselves: those that were new here, and those that the peer lacked, by its own evidence. What is
  said beside them (clocks, hashes, names, the parts of a message) and what is said again is cost.
- An exchange of two that agree has no difference, so no ratio; its bytes are in the totals of the transport.
- A large state that goes on in a later exchange is told in the first of them, and learned in the last.
- The last receipts are kept, so many and no more.

Carrying exchanges over a transport: when, with whom of those that `asking` chooses from, and what an answer proves.

Rules kept here:

- One exchange at a time is begun; answering others goes on meanwhile.
- A peer is live once it has answered or spoken to us, until it goes or fails. The transport's list of peers is only a hint.
- A change is carried on at once, as wide as the fleet is large, and no more often than a node can answer that is carried as much
  by all others (`gossip.pacing`). Rounds bring what was missed.
- A request without an answer is repeated at once, the same bytes: whichever way was lost, an exchange takes them twice without
  harm. Who failed lately is asked once only. A peer that is silent holds up the others by 1.5 timeouts at most: the first tries
  wait a quarter of one, and only for peers known to be quicker by far; a whole timeout that was waited for is not repeated.
- A peer that fails all the same is left alone for a while that doubles, so that one sick node costs the others little.
- Nothing is said before what it tells is on disk, where the node has one (`durable`).
- What comes in and cannot be taken is refused, counted and logged once per sentence, and never ends the node.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence, Set
from random import Random
from statistics import median
from typing import Literal

import msgspec

from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.protocol.exchange_rules import GossipResult
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.protocol.messages import Delta, GossipMessage, Part, Sync
from constraint_crdt.protocol.peer_selection import ByDistance
from constraint_crdt.transport.interface import Peer, Transport, Unreachable
from constraint_crdt.types.register import hex_distance

LEAST_FANOUT = 3
WIDER_FROM = (10, 100, 1000)
"""Nodes of a fleet from which on a change is carried to one peer more at once."""

PUSHES_PER_SECOND = 100
"""Exchanges that a node begins at most to carry changes. Where all do, each answers as many, on average, however many they are."""


def fanout(nodes: int) -> int:
    """To how many peers a change is carried at once, in a fleet of so many live nodes."""
    return LEAST_FANOUT + sum(nodes >= many for many in WIDER_FROM)


PeerChoice = Literal["auto", "uniform", "near"]

NEAR_FROM = 16
"""Peers from which on `auto` goes by distance."""

ROUND_TRIPS = 8
"""The last round trips that are kept of each peer."""

LEAST_ROUND_TRIP = 0.001
"""Seconds: below that a difference is noise, not distance."""


class Asking:
    """Chooses among the peers of one node."""

    def __init__(self, gossip: GossipNode, choice: PeerChoice, random: Random) -> None:
        self._gossip = gossip
        self._choice = choice
        self._random = random
        self._by_distance = ByDistance[Peer]()
        self._round_trips: dict[Peer, deque[float]] = {}

    def choose(self, peers: Sequence[Peer]) -> Peer:
        """Whom of these, at least one, to ask now. O(peers), and the rows with a position where there are many."""
        if self._choice == "uniform" or (self._choice == "auto" and len(peers) < NEAR_FROM):
            return self._random.choice(peers)
        return self._by_distance.choose(dict(zip(peers, self.distances(peers), strict=True)), self._random)

    def distances(self, peers: Sequence[Peer]) -> list[float | None]:
        """How far away each of these is: steps on the lattice, or seconds, None where no answer was timed yet."""
        positions = self._gossip.state.register.by_node
        mine = positions.get(self._gossip.node_id)
        if mine is not None and all(peer.name in positions for peer in peers):
            return [max(1.0, hex_distance(mine, positions[peer.name])) for peer in peers]
        return [self.round_trip(peer) for peer in peers]

    def round_trip(self, peer: Peer) -> float | None:
        """How soon a peer answers, in seconds; None where no answer was timed yet."""
        return min(self._round_trips[peer]) if peer in self._round_trips else None

    def answered(self, peer: Peer, seconds: float) -> None:
        """A peer took so long to answer."""
        self._round_trips.setdefault(peer, deque(maxlen=ROUND_TRIPS)).append(max(seconds, LEAST_ROUND_TRIP))

    def gone(self, peer: Peer) -> None:
        """A peer is there no more."""
        self._round_trips.pop(peer, None)


RECEIPTS = 100
"""How many are kept."""


class Receipt(msgspec.Struct, kw_only=True):
    """What one exchange cost. All in bytes."""

    peer: str
    """The node that it was with."""
    sent: int = 0
    received: int = 0
    """Messages, with those that were repeated."""
    told: int = 0
    """Of cells that the peer lacked."""
    learned: int = 0
    """Of cells that were new here."""
    completed: bool = False
    """It came to an end. Else the peer did not answer, and how much arrived there is not known."""

    @property
    def carried(self) -> int:
        """Bytes of all messages."""
        return self.sent + self.received

    @property
    def difference(self) -> int:
        """Bytes of the difference itself."""
        return self.told + self.learned

    @property
    def ratio(self) -> float | None:
        """Bytes carried per byte of the difference; None where there was none."""
        return self.carried / self.difference if self.difference else None

    def tell(self, message: GossipMessage) -> None:
        """Note what a message to the peer holds. O(its cells)."""
        if isinstance(message, Delta):
            runs = message.delta.runs
        elif isinstance(message, Sync):
            runs = message.state.runs
        else:
            return
        self.told += sum(len(cell.data) for run in runs for cell in run.cells)


class Receipts:
    """The receipts of one node."""

    def __init__(self) -> None:
        self._last: deque[Receipt] = deque(maxlen=RECEIPTS)
        self.carried = 0
        """Bytes of all messages of the exchanges that had a difference, since the start."""
        self.difference = 0
        """Bytes of these differences."""

    @property
    def last(self) -> Sequence[Receipt]:
        """Those of the last exchanges, the latest at the end."""
        return tuple(self._last)

    @property
    def ratio(self) -> float | None:
        """The median ratio of the last exchanges that had a difference; None if none had. O(receipts kept)."""
        ratios = [receipt.ratio for receipt in self._last if receipt.ratio is not None]
        return median(ratios) if ratios else None

    def keep(self, receipt: Receipt) -> None:
        """An exchange is over."""
        self._last.append(receipt)
        if receipt.difference:
            self.carried += receipt.carried
            self.difference += receipt.difference


REPEATS = 2
"""Times that a request without an answer is repeated: at 30 % loss each way, 49 % of requests are answered and 87 % of these."""

HASTE = 0.25
"""How much of the timeout a try waits that can be repeated."""

QUICKER = 8
"""So many times the round trip must fit in that."""

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
        self,
        gossip: GossipNode,
        transport: Transport,
        received: Received,
        durable: Durable,
        *,
        timeout: float,
        choice: PeerChoice = "auto",
        random: Random,
    ) -> None:
        """`received(node_id, result)` is called after each message, `durable()` awaited before anything is said; `timeout` in
        seconds bounds each silence of a peer; `choice` is how a round chooses its peer.
        """
        self._gossip = gossip
        self._transport = transport
        self._received = received
        self._durable = durable
        self._timeout = timeout
        self._random = random
        self._asking = Asking(gossip, choice, random)
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
        self.repeated = 0
        """Requests sent again since there was no answer."""
        self.sent = 0
        """Messages, or parts of one, given to the transport: requests and replies."""
        self.received = 0
        """Messages, or parts of one, that came from it."""
        self.refused = 0
        """Messages that could not be taken."""
        self.learned_bytes = 0
        """Bytes of the cells that came from peers and were new here: the least that had to be carried."""
        self.receipts = Receipts()
        """What the exchanges begun here cost."""

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
        self._asking.gone(peer)
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
                await self.exchange(self._asking.choose(peers))

    async def run_pushes(self) -> None:
        """Carry each change at once to a few peers that lack it, for ever."""
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            await asyncio.sleep(await self.push_now() / PUSHES_PER_SECOND)

    async def push_now(self) -> int:
        """Carry what is new here to a few peers that lack it; returns to how many."""
        peers = self._willing()
        self._random.shuffle(peers)
        lacking = [peer for peer in peers if self._gossip.tracker.hash(peer.name) != self._gossip.state_hash]
        chosen = lacking[: fanout(1 + len(self._live))]
        for peer in chosen:
            await self.exchange(peer)
        return len(chosen)

    def willing(self, names: Collection[str]) -> list[Peer]:
        """The peers of these names that are believed to be there and did not fail lately, in a fixed order."""
        return [peer for peer in self._willing() if peer.name in names]

    async def exchange(self, peer: Peer) -> bool:
        """Begin an exchange and carry it to its end. False if the peer failed; then it is left alone for a while."""
        async with self._turn:
            self.begun += 1
            receipt = Receipt(peer=peer.name)
            try:
                await self._carry(peer, receipt)
            except Unreachable as error:
                self.failed += 1
                self._rest(peer, str(error))
                return False
            finally:
                self.receipts.keep(receipt)
            self._resting.pop(peer, None)
            self.completed += 1
            receipt.completed = True
            return True

    async def _carry(self, peer: Peer, receipt: Receipt) -> None:
        waiting = [self._gossip.begin(peer.name)]
        said = 0
        while waiting:
            message = waiting.pop(0)
            said += not isinstance(message, Part) or message.pause  # a burst counts as one
            if said > LONGEST_EXCHANGE:
                _log.warning("broke off an exchange with %s after %d messages", peer.name, LONGEST_EXCHANGE)
                return
            receipt.tell(message)
            payloads = self._gossip.encoded(message, peer.name)
            await self._durable()
            for data in payloads:
                for reply in await self._request(peer, data, receipt):
                    receipt.received += len(reply)
                    before = self.learned_bytes
                    waiting += self._receive(reply)[1]
                    receipt.learned += self.learned_bytes - before

    async def _request(self, peer: Peer, data: bytes, receipt: Receipt) -> list[bytes]:
        repeats = 0 if peer in self._resting else REPEATS
        hasty = HASTE * self._timeout
        known = self._asking.round_trip(peer)
        first = hasty if known is not None and known * QUICKER <= hasty else self._timeout
        clock = asyncio.get_running_loop()
        over = clock.time() + (REPEATS + 0.5) * hasty
        while True:
            receipt.sent += len(data)
            try:
                return await self._request_once(peer, data, first if repeats else self._timeout)
            except Unreachable:
                if not repeats or clock.time() > over or peer not in self._transport.peers():
                    raise
                repeats -= 1
                self.repeated += 1

    async def _request_once(self, peer: Peer, data: bytes, patience: float) -> list[bytes]:
        self.sent += 1
        clock = asyncio.get_running_loop()
        begun = clock.time()
        replies = await self._transport.request(peer, data, patience)
        if peer in self._transport.peers():  # else it went meanwhile, and nobody would forget this again
            self._asking.answered(peer, clock.time() - begun)
        return replies

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
