"""Noticing that this node sees less of the fleet than there is, and reopening its session then.

A link found by gossip that breaks is not repaired by the engine, and two nodes that cannot hear each other still hear *of* each
other through a third: the rows of the missing one go on growing. That, over a while, is the sign. Reopening costs a moment of
silence, so it backs off by doubling while it does not help (there may simply be no route).

What follows from what a node hears of others: what they said, that they came or went, and that its own life is over.

Rules: what is heard is in the state by then; here it is said and carried on. A node ends once, for good, and says why: it was
retired, or another live node has its name.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Set

from constraint_crdt.crdt.replica import Replica
from constraint_crdt.insight.answering import Answering
from constraint_crdt.protocol.exchange_rules import GossipResult
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.protocol.messages import encode_message
from constraint_crdt.runtime.change_feed import Announcer
from constraint_crdt.runtime.events import EventKind
from constraint_crdt.runtime.exchange_loop import Exchanger
from constraint_crdt.runtime.persistence import Keeping
from constraint_crdt.runtime.settings import NodeSettings
from constraint_crdt.runtime.tasks import Activities
from constraint_crdt.transport.interface import Peer, Transport, Unreachable

PATIENCE = 3
"""Looks in a row at which a node is missing before anything is done."""

LONGEST_PAUSE = 60
"""Looks between two reopenings, at most."""


class ViewWatch:
    """Compares who writes with who is seen. Look at regular intervals."""

    def __init__(self, me: str) -> None:
        self._me = me
        self._seen: dict[Replica, int] = {}
        self._missed: dict[str, int] = {}
        self._pause = PATIENCE
        self._wait = 0

    @property
    def missed(self) -> list[str]:
        """The nodes that go on writing, as others tell, and that this one has not seen for a while."""
        return sorted(name for name, looks in self._missed.items() if looks >= PATIENCE)

    def look(self, clock: Mapping[Replica, int], live: Set[str]) -> list[str]:
        """The nodes whose absence from `live` calls for reopening now; usually none."""
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


_log = logging.getLogger("constraint_crdt.node")


class Hearing:
    """What one node hears."""

    def __init__(
        self,
        settings: NodeSettings,
        gossip: GossipNode,
        transport: Transport,
        exchanger: Exchanger,
        keeping: Keeping,
        answering: Answering,
        announcer: Announcer,
        activities: Activities,
        settle: Callable[[], int],
    ) -> None:
        """`settle()` follows the constraints that moved, and returns how many changed."""
        self._settings = settings
        self._gossip = gossip
        self._transport = transport
        self._exchanger = exchanger
        self._keeping = keeping
        self._answering = answering
        self._announcer = announcer
        self._activities = activities
        self._settle = settle
        self._over: asyncio.Future[str] | None = None
        self.me: Peer | None = None
        """This node's own session, once it has joined its fleet."""

    def begin(self) -> None:
        """The node starts now."""
        self._over = asyncio.get_running_loop().create_future()

    async def over(self) -> str:
        """Wait until this node has to end, and return why."""
        if self._over is None:
            self._over = asyncio.get_running_loop().create_future()
        return await asyncio.shield(self._over)

    def received(self, node_id: str, result: GossipResult) -> None:
        """A message of that node was taken in."""
        self._answering.evidence.heard(node_id, diverged=result.diverged)
        if result.outlived is not None:
            _log.warning("others know more of %s than this node does: its next write starts a new life", result.outlived)
            self._keeping.end_life()
        if result.diverged:
            _log.error("%s has the same clock as this node and another hash: the state of one of the two is corrupted", node_id)
            self._announcer.publish(EventKind.DIVERGED, node=node_id)
        if result.mended:
            _log.warning("repaired the state here with what %s holds: %d cells so far", node_id, self._gossip.cells_repaired)
            self._announcer.publish(EventKind.REPAIRED, node=node_id, detail=f"{self._gossip.cells_repaired} cells so far")
        if result.skew is not None:
            _log.warning(
                "the clock of %s is %+.1f s ahead of this node's, and may be %g s: it counts for nothing here",
                node_id, result.skew, self._settings.max_skew,
            )  # fmt: skip
            self._announcer.publish(EventKind.CLOCK_SKEW, node=node_id, detail=f"{result.skew:+.1f} s")
        if result.state_changed:
            for replica, seq in self._keeping.recovered():
                _log.warning(
                    "%s knew more of this node's former life %s than its store did: took it over, up to %d", node_id, replica, seq
                )
            self._keeping.changed()
            self.end_if_retired()
            if self._settle():
                self._exchanger.push()

    def peer_changed(self, peer: Peer, up: bool) -> None:
        """A session of a peer came, or went."""
        if peer.name == self._gossip.node_id:
            if up:
                self._activities.once("namesake", self._meet_namesake(peer))
            return
        if not up:
            self._exchanger.gone(peer)
        else:
            self._exchanger.push()
        _log.info("%s %s", peer.name, "came" if up else "went")
        self._announcer.publish(EventKind.PEER_UP if up else EventKind.PEER_DOWN, node=peer.name)

    async def _meet_namesake(self, peer: Peer) -> None:
        """Another session has this node's name. If it answers, and is not just the trace of one that died, the later one ends."""
        try:
            await self._transport.request(peer, encode_message(self._gossip.ping()), self._settings.request_timeout)
        except Unreachable:
            return
        name = self._gossip.node_id
        _log.error("another live node is called %s too: names must be unique in a fleet", name)
        self._announcer.publish(EventKind.DUPLICATE_NAME, node=name)
        self._answering.diagnosing.met_namesake()
        if self.me is not None and self.me.session > peer.session:  # sessions sort by when they were opened
            self._end(f"a node called {name} is live already: start this one under another name")

    def end_if_retired(self) -> None:
        """End if somebody retired this node."""
        by = self._gossip.retired_by
        if by is not None:
            self._end(f"node {self._gossip.node_id} was retired by {by}: start it under another name")

    def _end(self, why: str) -> None:
        if self._over is not None and not self._over.done():
            _log.error("%s", why)
            self._over.set_result(why)
