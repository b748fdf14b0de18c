"""The exchange loop: exchanges messages with peers over the transport, in rounds and after each change.

Rules of exchanges:

- A node begins a single exchange at a time, and answers others meanwhile. An exchange that takes longer than its turn, a quarter of
  `request_timeout`, goes on beside the next ones: a slow link, a silent peer and a large transfer hold up no other peer. There is
  one exchange with a peer at a time. The turn of an exchange that a part of the node began is as long as its link needs.
- A peer is live from its first message or answer until it leaves or fails. The transport's list of peers is only a hint, but a node
  outside of it is not live: a message read before its sender left, and merged after that, would keep the sender live for ever. Nor
  is a retired node, which may run and speak on: nothing waits for it.
- A peer that comes is asked soon, or asks first, so that nodes that start together are live to each other at once.
- A change is pushed at once, to more peers in a larger fleet. The rate of pushes is bounded, so that each node can answer the
  pushes of all others. Rounds bring missed changes, at the same interval for all sizes: each node begins a round and answers a
  round on average, and rounds keep the clocks of peers known (see `crdt.clock`).
- The interval of rounds lengthens while the node is at rest: all peers are live and have its state, by their own evidence, and
  clocks of peers are known and not in doubt. Rounds then ask the peers in turn, so each hears the clock of this node. A change, a
  peer that comes, goes or fails, and evidence of another state end the rest at once.
- A round is left out where a part of the node, as its budgets, began an exchange in its interval; `LEFT_OUT` in a row at most.
- A request without an answer is retried at once with the same bytes, because exchanges are idempotent. A recently failed peer gets
  no retry. Timeouts follow the measured link (`protocol.peers.LinkEstimate`): at least a quarter of `request_timeout`, all of it
  in the last try; `request_timeout` itself for a peer that never answered, doubled with each silence.
- A failed peer is left out for a pause, doubled with each failure.
- No exchange begins with a peer while a large message travels to it or from it, which goes on by itself. Rounds take a tenth of a
  link of known rate, at most.
- The parts that arrived of an interrupted answer are kept, and are not asked for again.
- Messages are sent after the writes of this node in them are on disk (`durable`).
- A malformed or excessive message is refused, counted, and logged once per reason. No message ends the node.

Rules of peer selection: few peers are selected at random. Many are selected by distance, so that most traffic stays on short links;
`protocol.peers` has the probabilities, and a minimum for every peer. The distance is steps on the lattice if this node and
all peers wrote a position, else the minimum of the last round-trip times, because delays only add to it.

Rules of sites (`protocol.sites`): a round asks a peer of the own site, or a speaker of another site, and a push goes to peers of
the own site, and to a speaker of each of a few other sites that lack the change as far as is known. A node of another site that
this node does not speak with is not live, since there is no evidence of it; if the transport lists it, it is *away*.

Rules of receipts, the cost of exchanges: the difference is the cells new here, or lacking at the peer by its own evidence. All
other bytes, and repeated cells, are overhead. An exchange without a difference has no ratio. A large state continued in a later
exchange counts as sent in the first and as received in the last.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence, Set
from dataclasses import dataclass
from itertools import islice
from math import inf
from random import Random
from typing import Literal

import msgspec

from constraint_crdt.crdt.cells import core
from constraint_crdt.crdt.limits import DEFAULT_LIMITS, MESSAGE_BYTES
from constraint_crdt.crdt.rows import without_collection
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.insight.history import MessageSizes, SizeLimit
from constraint_crdt.protocol.exchange_rules import GossipResult, ReadMessage
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.protocol.messages import Delta, GossipMessage, Part, Resume, Sync
from constraint_crdt.protocol.peers import HASTE, LEAST_ROUND_TRIP, REQUEST_TRIES, ByDistance, RoundInterval, fanout, median
from constraint_crdt.protocol.sites import SITE, SPEAKERS, NodeSites, Sites
from constraint_crdt.protocol.transfers import FAST
from constraint_crdt.runtime.change_feed import NodeChange
from constraint_crdt.transport import Peer, Transport, Unreachable
from constraint_crdt.types.tile_cells import hex_distance

PUSHES_PER_SECOND = 100
"""Pushes of a node per second, at most. If all nodes push, each answers as many on average."""


MEETING_PAUSE = 0.001
"""Seconds for each peer between two exchanges with peers that came: of nodes that start together each answers as many."""

PeerChoiceRule = Literal["auto", "uniform", "near"]

NEAR_FROM = 16
"""Peers from which `auto` selects by distance."""

ROUND_TRIPS = 8
"""Round-trip times kept of each peer."""


class PeerSelector:
    """Selects among the peers of a node."""

    def __init__(self, gossip: GossipNode, choice: PeerChoiceRule, random: Random) -> None:
        self._gossip = gossip
        self._choice = choice
        self._random = random
        self._by_distance = ByDistance[Peer]()
        self._round_trips: dict[Peer, deque[float]] = {}

    def choose(self, peers: Sequence[Peer]) -> Peer:
        """Select a peer. O(peers), and O(rows with a position) for many peers."""
        if self._choice == "uniform" or (self._choice == "auto" and len(peers) < NEAR_FROM):
            return self._random.choice(peers)
        return self._by_distance.choose(dict(zip(peers, self.distances(peers), strict=True)), self._random)

    def distances(self, peers: Sequence[Peer]) -> list[float | None]:
        """The distance of each peer: steps on the lattice, or seconds; None before its first answer."""
        positions = self._gossip.state.register.by_node
        mine = positions.get(self._gossip.node_id)
        if mine is not None and all(peer.name in positions for peer in peers):
            return [max(1.0, hex_distance(mine, positions[peer.name])) for peer in peers]
        return [self.round_trip(peer) for peer in peers]

    def round_trip(self, peer: Peer) -> float | None:
        """The round-trip time of a peer in seconds; None before its first answer."""
        return min(self._round_trips[peer]) if peer in self._round_trips else None

    def answered(self, peer: Peer, seconds: float) -> None:
        """A peer answered after so many seconds."""
        self._round_trips.setdefault(peer, deque(maxlen=ROUND_TRIPS)).append(max(seconds, LEAST_ROUND_TRIP))

    def gone(self, peer: Peer) -> None:
        """Drop the round-trip times of a peer."""
        self._round_trips.pop(peer, None)


RECEIPTS = 100
"""Receipts kept."""


class ExchangeReceipt(msgspec.Struct, kw_only=True):
    """The cost of an exchange, in bytes."""

    peer: str
    """The other node."""
    sent: int = 0
    received: int = 0
    """Messages, repeats included."""
    told: int = 0
    """Cells lacking at the peer."""
    learned: int = 0
    """Cells new here."""
    completed: bool = False
    """False: the peer did not answer, and the part received there is unknown."""

    @property
    def carried(self) -> int:
        """Bytes of all messages, both ways."""
        return self.sent + self.received

    @property
    def difference(self) -> int:
        """Bytes of the difference."""
        return self.told + self.learned

    @property
    def ratio(self) -> float | None:
        """Bytes carried per byte of difference; None without a difference."""
        return self.carried / self.difference if self.difference else None

    def tell(self, message: GossipMessage) -> None:
        """Count the cells of a message to the peer. O(its cells)."""
        if isinstance(message, Delta):
            runs = message.delta.runs
        elif isinstance(message, Sync):
            runs = message.state.runs
        else:
            return
        self.told += sum([core.data_bytes(run.cells) for run in runs])


class Receipts:
    """The receipts of a node."""

    def __init__(self) -> None:
        self._last: deque[ExchangeReceipt] = deque(maxlen=RECEIPTS)
        self.carried = 0
        """Bytes of all messages of exchanges with a difference, since the start."""
        self.difference = 0
        """Bytes of their differences."""

    @property
    def last(self) -> Sequence[ExchangeReceipt]:
        """The receipts of the last exchanges, oldest first."""
        return tuple(self._last)

    @property
    def ratio(self) -> float | None:
        """The median ratio of the last exchanges with a difference; None without any. O(receipts kept)."""
        ratios = [receipt.ratio for receipt in self._last if receipt.ratio is not None]
        return median(ratios) if ratios else None

    def keep(self, receipt: ExchangeReceipt) -> None:
        """Keep the receipt of an ended exchange."""
        self._last.append(receipt)
        if receipt.difference:
            self.carried += receipt.carried
            self.difference += receipt.difference


REPEATS = REQUEST_TRIES - 1
"""Retries of a request: at 30 % loss each way, 49 % of requests are answered, and 87 % with retries."""

TURN = HASTE
"""Share of `request_timeout` after which an exchange goes on beside the next ones."""

PROMPT = 0.05
"""The least seconds of the turn of an exchange that a part of the node began."""

ASIDE = 64
"""Exchanges that go on beside others, at most. Further exchanges wait for a place."""

AT_ONCE = 16
"""Messages of an exchange, parts for example, that are sent without waiting for the answers to those before: a burst at most."""

ROUND_BYTES = 400
"""Bytes of a round without news on a link, with those that the transport adds, about."""

ROUND_SHARE = 0.1
"""The share of a link of known rate that rounds may take."""

LEFT_OUT = 3
"""Rounds in a row that are left out for exchanges that parts of the node began."""

ENOUGH_CLOCKS = 16
"""Clocks of peers that a node at rest has to know, unless it has fewer peers: those of all take long to hear in a large fleet."""

FIRST_BACKOFF = 0.5
LONGEST_BACKOFF = 10.0
"""Seconds for which a failed peer is left out: each pause is twice the last, between these bounds."""

LONGEST_EXCHANGE = 128
"""Messages, or bursts of parts, in an exchange at most. Four are usual, more if both sides keep changing or a large state is
transferred. The transfer continues in the next exchange.
"""

REFUSALS_LOGGED = 256

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Exchange:
    """An exchange under way."""

    peer: Peer
    receipt: ExchangeReceipt
    waiting: list[GossipMessage]
    """The messages to send next."""
    said: int = 0
    tried: int = 0
    """Tries of the first of these messages so far."""
    until: float | None = None
    """The end of its turn, in which no other exchange begins; None beside others."""
    lasts: bool = False
    """What has changed since is pushed at its end."""


class _TurnOver(Exception):
    """A request got no answer within the turn of its exchange, which goes on beside others."""


Received = Callable[[str, GossipResult], object]
Durable = Callable[[], Awaitable[None]]


def _owes_nothing(_peer: str) -> bool:
    return False


class ExchangeLoop:
    """Exchanges between a `GossipNode` and the peers on a transport."""

    def __init__(
        self,
        gossip: GossipNode,
        transport: Transport,
        received: Received,
        durable: Durable,
        *,
        timeout: float,
        choice: PeerChoiceRule = "auto",
        random: Random,
        every: float = 0.2,
    ) -> None:
        """`received(node_id, result)` is called after each merged message, and `durable()` awaited before each message is sent.
        `timeout` in seconds bounds each silence of a peer. `choice`: how a round selects its peer. `every`: seconds between two
        rounds, unless at rest.
        """
        self._gossip = gossip
        self._transport = transport
        self._received = received
        self._durable = durable
        self._timeout = timeout
        self._random = random
        self._selector = PeerSelector(gossip, choice, random)
        self._turn = asyncio.Lock()
        self._reads = asyncio.Lock()
        """Held while a thread reads a large message."""
        self._encodes = asyncio.Lock()
        """Held while a thread encodes a message."""
        self._dirty = asyncio.Event()
        self.interval = RoundInterval(every)
        """The interval of rounds."""
        self._came = asyncio.Event()
        """A peer came that may not have been met."""
        self._stirred = asyncio.Event()
        """The rest is over."""
        self._asked: dict[Peer, int] = {}
        """The number of the last exchange begun with each peer on the transport."""
        self._resting: dict[Peer, tuple[float, float]] = {}
        self._aside: dict[Peer, asyncio.Task[bool]] = {}
        """The exchanges that go on beside others."""
        self._owed: set[Peer] = set()
        """Those of them that a push left out."""
        self._next: dict[Peer, float] = {}
        """The time of the next round with a peer of a slow link."""
        self._live: set[str] = set()
        self.sites = Sites(gossip.node_id)
        """The sites of the nodes on the transport, and who speaks for them."""
        self.told_sites = NodeSites(gossip.state.rows)
        """The sites that nodes told."""
        self._listed: Set[Peer] = frozenset()
        self._near: Sequence[Peer] = ()
        """The peers on the transport without those of other sites, ordered."""
        self._away: dict[str, Peer] = {}
        """The nodes of other sites on the transport."""
        self.sent_away = 0
        """Bytes of messages to nodes of other sites."""
        self.received_away = 0
        """Bytes of messages from them."""
        self._refusals: set[str] = set()
        self.begun = 0
        """Exchanges begun here."""
        self._demanded = False
        """A part of the node began an exchange since the last round."""
        self.completed = 0
        """Completed exchanges begun here."""
        self.failed = 0
        """Exchanges begun here whose peer did not answer."""
        self.repeated = 0
        """Requests repeated for lack of an answer."""
        self.sent = 0
        """Messages, or parts of a message, handed to the transport: requests and replies."""
        self.received = 0
        """Messages, or parts of a message, taken from the transport."""
        self._refused = 0
        self.refusal = ""
        """Why the last refused message was; empty before."""
        self.refused_at = -inf
        """The monotonic time of that, in seconds."""
        self.learned_bytes = 0
        """Bytes of cells from peers new here."""
        self.receipts = Receipts()
        """The receipts of the exchanges begun here."""
        self._sizes = MessageSizes()
        self.owes: Callable[[str], bool] = _owes_nothing
        """Called with the sender of a message: true if the answer should carry news, as a loan that the message asked for."""
        self.told: Callable[[str], object] = _owes_nothing
        """Called with the sender once the answer has them."""

    @property
    def live(self) -> Set[str]:
        """The names of the live peers, as a changing view: copy it to keep it."""
        return self._live

    @property
    def away(self) -> Set[str]:
        """The nodes of other sites on the transport, as a changing view."""
        return self._away.keys()

    @property
    def refused(self) -> int:
        """Messages refused, here and by the transport."""
        return self._refused + self._transport.refused

    @property
    def size_limits(self) -> Sequence[SizeLimit]:
        """The peers that only short messages reach; none outside of the loop of the node, as before its start. O(peers)."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return ()
        return tuple(self._sizes.limits(loop.time()))

    def meets(self, name: str) -> bool:
        """False for a node of another site that this node does not speak with. O(peers) after a change."""
        self._follow_sites()
        return self._speaks_with(name)

    async def answer(self, payload: bytes, sender: Peer | None = None) -> list[bytes]:
        """Handle a request of a peer. Returns the replies. `sender`: the proven sender, if the transport proves senders."""
        peer, responses = await self._receive(payload, sender)
        replies = [data for response in responses for data in await self._encoded(response, peer)]
        if self.sites.is_away(peer):
            self.received_away += len(payload)
            self.sent_away += sum(map(len, replies))
        await self._durable()
        self.sent += len(replies)
        return replies

    def gone(self, peer: Peer) -> None:
        """A peer left the transport."""
        self._resting.pop(peer, None)
        self._next.pop(peer, None)
        self._selector.gone(peer)
        self.sites.heard(peer.name)  # a session that comes has not failed yet
        link = self._gossip.links.get(peer.name)
        self._gossip.break_off(peer.name)
        if link is not None:
            link.anew()
        if not self._is_listed(peer.name):
            self._live.discard(peer.name)
        self._asked.pop(peer, None)
        self.stir()

    def round_trip(self, peer: Peer) -> float | None:
        """The round-trip time of a peer in seconds; None before its first answer."""
        return self._selector.round_trip(peer)

    def push(self) -> None:
        """Push the changes of the state soon."""
        self._dirty.set()
        self.stir()

    def came(self) -> None:
        """A peer is on the transport: have it met, and push the changes of the state to it."""
        self._came.set()
        self.push()

    def stir(self) -> None:
        """End the rest of this node: the next round comes soon."""
        self._stirred.set()

    def changed(self, change: NodeChange) -> None:
        """Push a change marked for it, and count no retired node as live. See `ChangeFeed`."""
        if change.push:
            self._dirty.set()
        if change.push or change.state_changed:
            self.stir()
        if change.state_changed and self._gossip.state.retirements:
            self._live -= {name for name in self._live if name in self._gossip.state.retirements}

    async def run_rounds(self) -> None:
        """Exchange with a peer in each interval, with a jitter of 20 %. Never returns."""
        left_out = 0
        while True:
            await self._rest_until_round()
            demanded, self._demanded = self._demanded, False
            left_out = left_out + 1 if demanded and left_out < LEFT_OUT else 0
            if left_out:
                continue
            now = asyncio.get_running_loop().time()
            peers = [peer for peer in self._idle(now) if self._next.get(peer, 0.0) <= now]
            peer = self._speaker_to_ask(now, alone=not peers)
            if peer is None and peers:
                peer = self._next_in_turn(peers) if self.interval.is_long else self._selector.choose(peers)
            if peer is not None:
                await self._begin(peer)
                self._pace(peer)
            if self._is_at_rest():
                self.interval.lengthen(len(self._near))
            else:
                self.interval.shorten()

    async def _rest_until_round(self) -> None:
        """Wait for an interval, or for the least interval from the end of the rest on."""
        jitter = self._random.uniform(0.8, 1.2)
        if self.interval.is_long:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.interval.seconds * jitter):
                    await self._stirred.wait()
            if not self._stirred.is_set():
                return
            self.interval.shorten()
        self._stirred.clear()
        await asyncio.sleep(self.interval.seconds * jitter)

    def _is_at_rest(self) -> bool:
        """True if all peers are known to have this state, and enough clocks are known and none in doubt. O(peers)."""
        gossip = self._gossip
        self._follow_sites()
        if self._aside or self._resting or gossip.time.in_doubt:
            return False
        hash_of, state_hash = gossip.tracker.hash, gossip.state.rows.state_hash
        names = {peer.name for peer in self._near}.union(name for name in self._away if self._speaks_with(name))
        names -= {gossip.node_id, *gossip.state.retirements.nodes}
        if any(name not in self._live or hash_of(name) != state_hash for name in names):
            return False
        return len(gossip.time.offsets.keys() & names) >= min(len(names), ENOUGH_CLOCKS)

    def _next_in_turn(self, peers: Sequence[Peer]) -> Peer:
        """The peer that was asked longest ago. O(peers)."""
        return min(peers, key=lambda peer: self._asked.get(peer, 0))

    async def run_pushes(self) -> None:
        """Push each change to a few peers lacking it. Never returns."""
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            await asyncio.sleep(await self.push_now() / PUSHES_PER_SECOND)

    async def run_meetings(self) -> None:
        """Exchange once with each peer that comes, unless its own message comes before. Never returns.

        By rounds alone a node would hear the last of many peers late, as they choose by chance.
        """
        while True:
            await self._came.wait()
            self._came.clear()
            while unmet := [peer for peer in self._idle(asyncio.get_running_loop().time()) if self._is_unmet(peer)]:
                peer = self._random.choice(unmet)
                await self._begin(peer)
                self._pace(peer)
                await asyncio.sleep(MEETING_PAUSE * len(self._near))

    def _is_unmet(self, peer: Peer) -> bool:
        return peer.name not in self._live and peer not in self._asked

    async def push_now(self) -> int:
        """Exchange with a few peers whose state differs. Returns their number."""
        peers = self._idle(asyncio.get_running_loop().time())
        self._random.shuffle(peers)
        lacking = list(filter(self._lacks, peers))
        self._owed |= set(filter(self._lacks, self._aside))
        chosen = lacking[: fanout(1 + len(self._live))] + self._speakers_to_tell()
        for peer in chosen:
            await self._begin(peer)
        return len(chosen)

    def _idle(self, now: float) -> list[Peer]:
        """The peers to begin an exchange with, without those of other sites: those willing, with which there is none yet and no
        transfer.
        """
        self._gossip.links.at = now
        self._follow_sites()
        return [peer for peer in self._near if self._is_idle(peer, now)]

    def _is_idle(self, peer: Peer, now: float) -> bool:
        if self._resting.get(peer, (0.0, 0.0))[0] > now or peer in self._aside:
            return False
        return not self._gossip.is_transferring(peer.name)

    def _is_transferring(self, peer: Peer) -> bool:
        """True while a large message travels to a peer or from it."""
        self._gossip.links.at = asyncio.get_running_loop().time()
        return self._gossip.is_transferring(peer.name)

    # --- sites -------------------------------------------------------------------------------------------------------

    def _follow_sites(self) -> None:
        """Account for the peers that came and went, and for changed sites. O(peers) after a change."""
        listed, sites, told = self._transport.peers(), self.sites, self.told_sites
        moved, own = told.take_moved(), self._gossip.labels.get(SITE, "")
        if (listed is self._listed or listed == self._listed) and not moved and own == sites.site:
            return
        names = {peer.name for peer in listed}
        sites.move(own)
        for name in {peer.name for peer in self._listed} - names:
            sites.drop(name)
        for name in names - {self._gossip.node_id}:
            sites.put(name, told.of(name))
        self._listed = listed
        self._near = sorted(peer for peer in listed if not sites.is_away(peer.name))
        self._away = {peer.name: peer for peer in sorted(listed) if sites.is_away(peer.name)}
        self._leave_away()

    def _leave_away(self) -> None:
        """Count those nodes of other sites as live only that this node speaks with: there will be no evidence of the others."""
        if self._away:
            self._live -= {name for name in self._live if not self._speaks_with(name)}

    def _speaks_with(self, name: str) -> bool:
        """False for a node of another site that this node does not speak with. O(sites) after a change, else O(1)."""
        sites = self.sites
        if not sites.is_away(name):
            return True
        other = sites.of(name) or ""
        return sites.shares.get(other) == 1.0 and name in sites.speakers(other, sites.site)

    def _speakers_of(self, other: str, now: float) -> list[Peer]:
        """The nodes of another site to begin an exchange with: two at most, the first that are there."""
        ranked = (self._away[name] for name in self.sites.ranked(other, self.sites.site) if name in self._away)
        ready = (peer for peer in ranked if self._resting.get(peer, (0.0, 0.0))[0] <= now)
        return [peer for peer in islice(ready, SPEAKERS) if self._is_idle(peer, now)]

    def _speaker_to_ask(self, now: float, *, alone: bool) -> Peer | None:
        """The speaker of another site to ask in this round; None for a round in the own site. `alone`: as in `Sites.choose`."""
        if not self.sites.divided:
            return None
        self._leave_away()
        other = self.sites.choose(self._random, alone=alone)
        ready = [] if other is None else [peer for peer in self._speakers_of(other, now) if self._next.get(peer, 0.0) <= now]
        return self._random.choice(ready) if ready else None

    def _speakers_to_tell(self) -> list[Peer]:
        """A speaker of each of the sites to push a change to."""
        now, hash_of, state_hash = asyncio.get_running_loop().time(), self._gossip.tracker.hash, self._gossip.state.rows.state_hash
        chosen: list[Peer] = []
        for other in self.sites.to_tell(fanout(1 + len(self.sites.others)), self._random):
            ready = self._speakers_of(other, now)
            if ready and all(hash_of(name) != state_hash for name in self.sites.witnesses(other)):
                chosen.append(self._random.choice(ready))
        return chosen

    # --- exchanges ---------------------------------------------------------------------------------------------------

    def _pace(self, peer: Peer) -> None:
        """Leave a link of known rate to others for a while after a round."""
        link = self._gossip.links.get(peer.name)
        rate = min(link.rate_in or inf, link.rate_out or inf) if link is not None else inf
        if rate < FAST:
            self._next[peer] = asyncio.get_running_loop().time() + ROUND_BYTES / rate / ROUND_SHARE

    def willing(self, names: Collection[str]) -> list[Peer]:
        """The peers of these names on the transport, without recently failed peers, ordered."""
        return [peer for peer in self._willing() if peer.name in names]

    async def exchange(self, peer: Peer) -> bool:
        """Exchange with a peer, to the end. Returns False if the peer failed and is left out for a pause."""
        outcome = await self._begin(peer)
        return outcome if isinstance(outcome, bool) else await outcome

    async def begin(self, peer: Peer) -> bool | None:
        """Exchange with a peer for as long as its link needs, in place of a round; an exchange that takes longer goes on by itself.

        Returns False if the peer failed, and None if the exchange goes on.
        """
        self._demanded = True
        outcome = await self._begin(peer, min(self.likely(peer.name), TURN * self._timeout))
        if isinstance(outcome, bool):
            return outcome
        return outcome.result() if outcome.done() else None

    def likely(self, name: str) -> float:
        """Seconds within which a peer has answered a short message, if it does: `PROMPT` at least."""
        link = self._gossip.links.get(name)
        return self._timeout if link is None else link.likely(PROMPT / HASTE)

    def is_under_way(self, peer: Peer) -> bool:
        """True while an exchange with a peer goes on beside others."""
        return peer in self._aside

    async def finish(self) -> None:
        """Wait for the exchanges that go on beside others."""
        if self._aside:
            await asyncio.wait(self._aside.values())

    async def close(self) -> None:
        """End the exchanges that go on beside others."""
        for task in (tasks := list(self._aside.values())):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _begin(self, peer: Peer, turn: float | None = None) -> "bool | asyncio.Task[bool]":
        """Begin an exchange in its turn. Returns its outcome, or its task if it takes longer than the turn.

        `turn`: its seconds; None: those of a round.
        """
        while True:
            while peer in self._aside or len(self._aside) >= ASIDE:
                waited_for = [self._aside[peer]] if peer in self._aside else self._aside.values()
                await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
            async with self._turn:
                if peer not in self._aside and len(self._aside) < ASIDE:  # the exchange before may have gone on beside others
                    return await self._take_turn(peer, turn)

    async def _take_turn(self, peer: Peer, turn: float | None) -> "bool | asyncio.Task[bool]":
        """Exchange until the end of the turn. Returns as `_begin` does."""
        loop = asyncio.get_running_loop()
        self._gossip.links.at = begun = loop.time()
        self.begun += 1
        if peer in self._transport.peers():  # else `gone` was called meanwhile, and this would stay for ever
            self._asked[peer] = self.begun
        exchange = _Exchange(peer, ExchangeReceipt(peer=peer.name), [self._gossip.begin(peer.name)])
        quick = turn is None and self._is_quick(peer)
        if quick:  # the usual case: without a task
            exchange.until = begun + TURN * self._timeout
            outcome = await self._go_on(exchange)
            if outcome is not None:
                return outcome
            exchange.until = None
        exchange.lasts = turn is None
        task = self._aside[peer] = loop.create_task(self._finish(exchange), name="exchange")
        task.add_done_callback(lambda done: self._done(exchange, done))
        if not quick:
            try:
                await asyncio.wait([task], timeout=TURN * self._timeout if turn is None else turn)
            except asyncio.CancelledError:
                task.cancel()
                raise
        return task

    def _is_quick(self, peer: Peer) -> bool:
        """True if an exchange with a peer is usually over within its turn."""
        link = self._gossip.links.get(peer.name)
        if link is None or link.round_trip is None or link.timeouts:
            return False
        least = min(link.rate_in or FAST, link.rate_out or FAST)
        return least >= FAST and link.timeout(self._timeout) <= TURN * self._timeout

    def _done(self, exchange: "_Exchange", done: "asyncio.Task[bool]") -> None:
        """An exchange in a task of its own has ended."""
        peer, owed = exchange.peer, exchange.peer in self._owed
        del self._aside[peer]
        self._owed.discard(peer)
        if done.cancelled():
            return
        error = done.exception()
        if error is not None:
            _log.error("an exchange with %s failed", peer.name, exc_info=error)
        elif (owed or exchange.lasts) and done.result() and self._lacks(peer):
            self._dirty.set()  # something changed meanwhile, or a large transfer has to go on

    def _lacks(self, peer: Peer) -> bool:
        """True unless a peer has this state, by its own evidence."""
        return self._gossip.tracker.hash(peer.name) != self._gossip.state.rows.state_hash

    async def _finish(self, exchange: "_Exchange") -> bool:
        return bool(await self._go_on(exchange))

    async def _go_on(self, exchange: "_Exchange") -> bool | None:
        """Carry an exchange on, to its end; or to the end of its turn, and return None then."""
        peer, receipt, ended = exchange.peer, exchange.receipt, True
        try:
            while exchange.waiting:
                if exchange.until is not None and asyncio.get_running_loop().time() > exchange.until:
                    ended = False
                    return None
                if not await self._say(exchange):
                    break
        except _TurnOver:
            ended = False
            return None
        except Unreachable as error:
            self.failed += 1
            self._gossip.break_off(peer.name)
            self._rest(peer, str(error))
            return False
        finally:
            if ended:
                self.receipts.keep(receipt)
        self._resting.pop(peer, None)
        self.completed += 1
        receipt.completed = True
        return True

    async def _say(self, exchange: "_Exchange") -> bool:
        """Send the next messages of an exchange, and take the answers. Returns False if the exchange is too long."""
        peer, messages = exchange.peer, exchange.waiting[:AT_ONCE]
        del exchange.waiting[:AT_ONCE]
        exchange.said += sum(not isinstance(each, Part) or each.pause for each in messages)  # a burst counts once
        if exchange.said > LONGEST_EXCHANGE:
            _log.info("broke off an exchange with %s after %d messages: it goes on in the next", peer.name, LONGEST_EXCHANGE)
            return False
        payloads = list[tuple[GossipMessage, bytes]]()
        for message in messages:
            exchange.receipt.tell(message)
            self._gossip.links.at = asyncio.get_running_loop().time()
            payloads += [(message, data) for data in await self._encoded(message, peer.name)]
        await self._durable()
        for start in range(0, len(payloads), AT_ONCE):
            some = payloads[start : start + AT_ONCE]
            for reply in await (self._request(exchange, *some[0]) if len(some) == 1 else self._request_together(exchange, some)):
                exchange.waiting += await self._take(exchange, reply)
        return True

    async def _encoded(self, message: GossipMessage, peer: str) -> list[bytes]:
        """A message as bytes; a large one is encoded in a thread, one at a time."""
        work = self._gossip.encoding(message)
        if work is None:
            return self._gossip.encoded(message, peer)
        async with self._encodes:
            made = await asyncio.to_thread(work)
        self._gossip.links.at = asyncio.get_running_loop().time()
        self._gossip.keep_encoded(message, made)
        return self._gossip.encoded(message, peer)

    async def _take(self, exchange: "_Exchange", reply: bytes) -> list[GossipMessage]:
        """Merge an answer. Returns the responses."""
        exchange.receipt.received += len(reply)
        before = self.learned_bytes
        responses = (await self._receive(reply, exchange.peer, begun=True))[1]
        exchange.receipt.learned += self.learned_bytes - before
        return responses

    async def _request_together(self, exchange: "_Exchange", payloads: Sequence[tuple[GossipMessage, bytes]]) -> list[bytes]:
        """Send several messages at once, such as the parts of a burst; returns all replies. The link is measured by all together.

        Those without an answer are sent again, unless there are replies: they tell of what arrived.
        """
        peer, name, clock = exchange.peer, exchange.peer.name, asyncio.get_running_loop()
        repeats, exchange.tried = 0 if peer in self._resting else REPEATS, 0
        link, away = self._gossip.links.of(name), self.sites.is_away(name)
        expected = DEFAULT_LIMITS.burst_bytes if any(isinstance(message, Resume) for message, _ in payloads) else MESSAGE_BYTES
        left = [data for _, data in payloads]
        while True:
            size = sum(map(len, left))
            patience = link.timeout(self._timeout, size, expected, last=not repeats)
            exchange.receipt.sent += size
            self.sent += len(left)
            self.sent_away += size * away
            begun = clock.time()
            results = await asyncio.gather(
                *(self._transport.request(peer, data, patience) for data in left), return_exceptions=True
            )
            replies, failed = list[bytes](), list[tuple[bytes, Unreachable]]()
            for data, result in zip(left, results, strict=True):
                if isinstance(result, Unreachable):
                    replies += result.replies
                    failed.append((data, result))
                elif isinstance(result, BaseException):
                    raise result
                else:
                    replies += result
            seconds, received = clock.time() - begun, sum(map(len, replies))
            self.received_away += received * away
            self._sizes.requested(name, max(map(len, left)), clock.time(), answered=not failed)
            if not failed:
                link.answered(seconds, size, received, queued=True)
                if peer in self._transport.peers():
                    self._selector.answered(peer, seconds)
                return replies
            if seconds >= patience / 2:
                link.unanswered(size)
            if replies:
                return replies
            if not repeats or peer not in self._transport.peers():
                raise failed[0][1]
            repeats -= 1
            self.repeated += 1
            left = [data for data, _ in failed]

    async def _request(self, exchange: "_Exchange", message: GossipMessage, data: bytes) -> list[bytes]:
        peer, name, clock = exchange.peer, exchange.peer.name, asyncio.get_running_loop()
        repeats = 0 if peer in self._resting else REPEATS - exchange.tried
        exchange.tried = 0
        link = self._gossip.links.of(name)
        expected = 0 if self._gossip.tracker.hash(name) == self._gossip.state.rows.state_hash else MESSAGE_BYTES
        if isinstance(message, Resume):
            expected = DEFAULT_LIMITS.burst_bytes
        while True:
            patience = link.timeout(self._timeout, len(data), expected, last=not repeats)
            exchange.receipt.sent += len(data)
            self.sent += 1
            if away := self.sites.is_away(name):
                self.sent_away += len(data)
            begun = clock.time()
            queued = self._is_transferring(peer)
            try:
                replies = await self._transport.request(peer, data, patience)
            except Unreachable as error:
                self._sizes.requested(name, len(data), clock.time(), answered=False)
                if clock.time() - begun >= patience / 2:
                    link.unanswered(len(data))
                for reply in error.replies:
                    await self._take(exchange, reply)
                if not repeats or peer not in self._transport.peers():
                    raise
                repeats -= 1
                self.repeated += 1
                if error.replies and not isinstance(message, Part):  # less is left to ask for
                    exchange.waiting.insert(0, self._gossip.begin(name))
                    return []
                if exchange.until is not None and clock.time() >= exchange.until and not isinstance(message, Part):
                    exchange.tried, exchange.said = REPEATS - repeats, exchange.said - 1
                    exchange.waiting.insert(0, message)
                    raise _TurnOver from None
                continue
            seconds = clock.time() - begun
            if away:
                self.received_away += sum(map(len, replies))
            self._sizes.requested(name, len(data), clock.time(), answered=True)
            link.answered(seconds, len(data), sum(map(len, replies)), queued=queued or self._is_transferring(peer))
            if peer in self._transport.peers():  # else `gone` was called meanwhile, and this would stay for ever
                self._selector.answered(peer, seconds)
            return replies

    async def _receive(self, payload: bytes, sender: Peer | None, *, begun: bool = False) -> tuple[str, list[GossipMessage]]:
        """Merge a message, if it names its sender. Returns its sender and the responses. `begun`: in an exchange begun here.

        A large message is read in a thread, one at a time, and merged in a turn of the loop: its changes are seen as a whole.
        """
        rows = self._gossip.state.rows
        self.received += 1
        try:
            message = self._gossip.decoded(payload, sender.name if sender is not None else None)
            read = await self._read(message)
            self._gossip.links.at = asyncio.get_running_loop().time()
            known = rows.clock_mark
            if read is None:
                result = self._gossip.receive(message)
            else:
                self._gossip.keep_read(read)
                with without_collection():
                    result = self._gossip.receive(message)
        except ConstraintCrdtError as error:
            self._refuse(str(error))
            return "", []
        name = message.node.node_id
        self.sites.heard(name)
        no_news = name in self._live or name == self._gossip.node_id or name in self._gossip.state.retirements
        if not no_news and self._speaks_with(name) and self._is_listed(name):
            self._live.add(name)
            for peer in [peer for peer in self._resting if peer.name == name]:
                del self._resting[peer]  # a way has come back, and most likely the other one
        if result.state_changed:
            self.learned_bytes += sum([core.data_bytes(run.cells) for run in rows.since(known)])
        self._received(name, result)
        responses = result.responses
        if self.owes(name):
            news = self._gossip.begin(name)
            if begun or isinstance(news, Delta | Sync):  # a clock is no answer: it asks for one
                responses += [news]
                self.told(name)
        return name, responses

    async def _read(self, message: GossipMessage) -> ReadMessage | None:
        """The large message that a part completes, read in a thread; None if it completes none."""
        if self._gossip.reading(message) is None:
            return None
        async with self._reads:
            work = self._gossip.reading(message)  # the transfer may have been completed meanwhile
            return None if work is None else await asyncio.to_thread(work)

    def _is_listed(self, name: str) -> bool:
        """Whether a session of this node is on the transport. O(peers)."""
        return any(peer.name == name for peer in self._transport.peers())

    def _refuse(self, why: str) -> None:
        self._refused += 1
        self.refusal, self.refused_at = why, time.monotonic()
        if why not in self._refusals and len(self._refusals) < REFUSALS_LOGGED:
            self._refusals.add(why)
            _log.warning("refused a message: %s", why)

    def _willing(self) -> list[Peer]:
        """The peers on the transport, without recently failed peers, ordered."""
        now = asyncio.get_running_loop().time()
        return sorted(peer for peer in self._transport.peers() if self._resting.get(peer, (0.0, 0.0))[0] <= now)

    def _rest(self, peer: Peer, why: str) -> None:
        now = asyncio.get_running_loop().time()
        before = self._resting.get(peer, (0.0, 0.0))[1]
        pause = min(before * 2 or FIRST_BACKOFF, LONGEST_BACKOFF)
        if peer in self._transport.peers():  # else `gone` was called meanwhile, and this would stay for ever
            self._resting[peer] = (now + pause, pause)
            self.sites.failed(peer.name)
        if peer.name in self._live and not self.willing({peer.name}):  # no other session has the name
            self._live.discard(peer.name)
            _log.info("%s does not answer (%s); asking it again in %.1f s", peer.name, why, pause)
