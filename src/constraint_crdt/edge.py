"""Where the pure core meets the machine: fresh incarnations and the wall clock, supplied where the caller leaves them out."""

import secrets
import time
from collections.abc import Callable

from constraint_crdt.core.limits import DEFAULT_LIMITS, Limits
from constraint_crdt.gossip.messages import DEFAULT_FLEET
from constraint_crdt.gossip.protocol import GossipNode as PureGossipNode

INCARNATION_BITS = 48
"""Two lives of one node collide once in 10^7 nodes that live a thousand times each; it costs 9 bytes in a message."""


def fresh_incarnation() -> int:
    """A number that no life of a node has had, from the machine's randomness."""
    return 1 + secrets.randbits(INCARNATION_BITS)


class GossipNode(PureGossipNode):
    """A replica and its side of the exchange. See `constraint_crdt.gossip.protocol` for how an exchange runs."""

    def __init__(
        self,
        node_id: str,
        *,
        incarnation: int | None = None,
        now: Callable[[], int] = time.time_ns,
        renew: Callable[[], int] = fresh_incarnation,
        fleet: str = DEFAULT_FLEET,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        """`node_id`: the node's name. `incarnation`: tells this life of it from all others; a fresh random one if left out.

        `now`: the time in ns since the epoch. `renew`: supplies further incarnations. `fleet`: messages of another are refused.
        """
        super().__init__(
            node_id,
            incarnation=renew() if incarnation is None else incarnation,
            now=now,
            renew=renew,
            fleet=fleet,
            limits=limits,
        )
