"""Asking: which peer a running node asks next, and how far away each of them is.

Rules kept here:

- Few peers are asked uniformly: each is near enough, and all hear soon. Many are asked by their distance, so that most of what is
  said travels on short links; `gossip.peers` has the chances, and the floor that leaves nobody out.
- A distance is one of two kinds for all peers together. Where this node and every peer wrote a position, it is the steps on the
  lattice between them; else the time that an answer takes.
- Of the last answers the quickest counts: what delays one (a disk, a busy loop, a long answer) only ever adds to the way.
"""

from collections import deque
from collections.abc import Sequence
from random import Random
from typing import Literal

from constraint_crdt.engine.transport import Peer
from constraint_crdt.gossip.peers import ByDistance
from constraint_crdt.gossip.protocol import GossipNode
from constraint_crdt.types.positions import hex_distance

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
