"""Membership: arriving and leaving peers, partitions, duplicate names, and the end of a node for good.

Zenoh does not repair a broken link found by its gossip. Two nodes without a link still receive each other's rows from a third node,
so a growing row of a node without a link is the sign of a partition. Reopening the session repairs the link, and costs a moment of
silence. Reopening backs off by doubling, because there may be no route.

A node ends for good, with a reason, if retired, or if another live node has its name. Of two nodes of one name the node with the
later session ends.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Set

from constraint_crdt import __version__
from constraint_crdt.crdt.replica import Replica
from constraint_crdt.insight.diagnosis import Diagnosis
from constraint_crdt.model import EventKind
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.protocol.messages import encode_message
from constraint_crdt.runtime.change_feed import ChangeFeed, NodeChange
from constraint_crdt.runtime.events import EventPublisher
from constraint_crdt.runtime.exchange_loop import ExchangeLoop
from constraint_crdt.runtime.settings import NodeSettings
from constraint_crdt.transport import Peer, Transport, Unreachable

PATIENCE = 3
"""Looks in a row at which a node is missing before the session is reopened."""

LONGEST_PAUSE = 60
"""Looks between two reopenings, at most."""

_log = logging.getLogger("constraint_crdt.node")


class PartitionDetector:
    """Compares the writing nodes with the live nodes. Call `look` at regular intervals."""

    def __init__(self, me: str) -> None:
        self._me = me
        self._seen: dict[Replica, int] = {}
        self._missed: dict[str, int] = {}
        self._pause = PATIENCE
        self._wait = 0

    @property
    def missed(self) -> list[str]:
        """The nodes writing, by evidence of others, without being live here for a while."""
        return sorted(name for name, looks in self._missed.items() if looks >= PATIENCE)

    def look(self, clock: Mapping[Replica, int], live: Set[str]) -> list[str]:
        """The nodes whose absence from `live` calls for reopening the session now; usually none."""
        writing = {replica.node_id for replica, seq in clock.items() if self._seen.get(replica, 0) < seq} if self._seen else set()
        self._seen = dict(clock)
        for name in live:
            self._missed.pop(name, None)
        for name in writing - live - {self._me}:
            self._missed[name] = self._missed.get(name, 0) + 1
        missing = self.missed
        self._wait -= 1
        if not missing:
            self._pause = PATIENCE if not self._missed else self._pause
            return []
        if self._wait > 0:
            return []
        self._wait, self._pause = self._pause, min(self._pause * 2, LONGEST_PAUSE)
        return missing


class Membership:
    """The place of a node in its fleet."""

    def __init__(
        self,
        settings: NodeSettings,
        gossip: GossipNode,
        transport: Transport,
        exchanges: ExchangeLoop,
        feed: ChangeFeed,
        publisher: EventPublisher,
        detector: PartitionDetector,
        diagnosis: Diagnosis,
        once: Callable[[str, Coroutine[object, object, None]], None],
    ) -> None:
        """`once(name, coroutine)` runs a coroutine in the background."""
        self._settings = settings
        self._gossip = gossip
        self._transport = transport
        self._exchanges = exchanges
        self._feed = feed
        self._publisher = publisher
        self._detector = detector
        self._diagnosis = diagnosis
        self._once = once
        self._over: asyncio.Future[str] | None = None
        self.me: Peer | None = None
        """The session of this node; None before joining the fleet."""

    def begin(self) -> None:
        """The node starts."""
        self._over = asyncio.get_running_loop().create_future()

    async def join(self) -> None:
        """Open the transport. Raises `TransportError`."""
        self.me = await self._transport.open(self._settings.name, self._settings.fleet, self._exchanges.answer, self._peer_changed)

    def describe(self) -> None:
        """Write the software, endpoints and labels of this node, unless retired."""
        self._end_if_retired()
        if self._gossip.retired_by is None:
            self._feed.write(lambda: self._gossip.describe(__version__, self._transport.endpoints, self._settings.labels))

    async def over(self) -> str:
        """Wait until this node has to end for good. Returns the reason."""
        if self._over is None:
            self._over = asyncio.get_running_loop().create_future()
        return await asyncio.shield(self._over)

    def changed(self, change: NodeChange) -> None:
        """End if a merged message retired this node. See `ChangeFeed`."""
        if change.state_changed:
            self._end_if_retired()

    async def detect_partition(self) -> None:
        """Reopen the session if writing nodes are not live here."""
        missing = self._detector.look(self._gossip.state.rows.clock_mark.entries, self._exchanges.live)
        if missing:
            described = self._gossip.state.nodes
            endpoints = [endpoint for name in missing if name in described for endpoint in described[name].endpoints]
            _log.warning("%s hears of %s, but not from them: reopening the session", self._settings.name, ", ".join(missing))
            await self._transport.reopen(endpoints)
            self._feed.write(lambda: self._gossip.describe(__version__, self._transport.endpoints))

    def _peer_changed(self, peer: Peer, up: bool) -> None:
        """A session of a peer came or went."""
        if peer.name == self._gossip.node_id:
            if up:
                self._once("namesake", self._meet_namesake(peer))
            return
        if not up:
            self._exchanges.gone(peer)
        else:
            self._exchanges.push()
        _log.info("%s %s", peer.name, "came" if up else "went")
        self._publisher.publish(EventKind.PEER_UP if up else EventKind.PEER_DOWN, node=peer.name)

    async def _meet_namesake(self, peer: Peer) -> None:
        """Another session has this node's name. If the other session answers, it is no trace of a dead process, and the later
        session ends.
        """
        try:
            await self._transport.request(peer, encode_message(self._gossip.ping()), self._settings.request_timeout)
        except Unreachable:
            return
        name = self._gossip.node_id
        _log.error("another live node is called %s too: names must be unique in a fleet", name)
        self._publisher.publish(EventKind.DUPLICATE_NAME, node=name)
        self._diagnosis.met_namesake()
        if self.me is not None and self.me.session > peer.session:  # sessions sort by the time of opening
            self._end(f"a node called {name} is live already: start this one under another name")

    def _end_if_retired(self) -> None:
        by = self._gossip.retired_by
        if by is not None:
            self._end(f"node {self._gossip.node_id} was retired by {by}: start it under another name")

    def _end(self, why: str) -> None:
        if self._over is not None and not self._over.done():
            _log.error("%s", why)
            self._over.set_result(why)
