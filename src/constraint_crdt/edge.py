"""Where the pure core meets the machine: fresh incarnations and the wall clock, supplied where the caller leaves them out."""

import secrets
import time
from collections.abc import Callable, Iterable

from constraint_crdt.crdt.limits import DEFAULT_LIMITS, Limits
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.protocol.gossip_node import GossipNode as PureGossipNode
from constraint_crdt.protocol.messages import DEFAULT_FLEET, DEFAULT_MAX_SKEW
from constraint_crdt.types.decay import MAX_SKEW, NAMELESS, Ages
from constraint_crdt.types.decay import DecayCounter as PureDecayCounter
from constraint_crdt.types.rates import DEFAULT_HALF_LIVES
from constraint_crdt.types.rates import DecayConstraintState as PureDecayConstraintState
from constraint_crdt.types.tiles import FleetTile as PureFleetTile

INCARNATION_BITS = 48
"""Two lives of one node collide once in 10^7 nodes that live a thousand times each; it costs 9 bytes in a message."""


def fresh_incarnation() -> int:
    """A number that no life of a node has had, from the machine's randomness."""
    return 1 + secrets.randbits(INCARNATION_BITS)


class GossipNode(PureGossipNode):
    """A replica and its side of the exchange. See `constraint_crdt.protocol.gossip_node` for how an exchange runs."""

    def __init__(
        self,
        node_id: str,
        *,
        incarnation: int | None = None,
        now: Callable[[], int] = time.time_ns,
        renew: Callable[[], int] = fresh_incarnation,
        fleet: str = DEFAULT_FLEET,
        limits: Limits = DEFAULT_LIMITS,
        max_skew: float = DEFAULT_MAX_SKEW,
    ) -> None:
        """`node_id`: the node's name. `incarnation`: tells this life of it from all others; a fresh random one if left out.

        `now`: the time in ns since the epoch. `renew`: supplies further incarnations. `fleet`: messages of another are refused.
        `max_skew`: how far the clocks of the fleet may differ, in seconds; one that differs more is an alarm and counts nothing.
        """
        super().__init__(
            node_id,
            incarnation=renew() if incarnation is None else incarnation,
            now=now,
            renew=renew,
            fleet=fleet,
            limits=limits,
            max_skew=max_skew,
        )


class FleetTile(PureFleetTile):
    """A tile that stands alone. See `constraint_crdt.types.tiles`; those of a state are at `state.tiles`."""

    def __init__(self, room: str, id_: str, rows: Rows | None = None, *, now: Callable[[], int] = time.time_ns) -> None:
        """`room`, `id_`: what it is called, 1 to 256 bytes each. `rows`: the cells to look at; new empty ones if left out.

        `now`: the time in ns since the epoch. Raises `ConstraintCrdtError` for a room or id that no tile can have.
        """
        super().__init__(room, id_, rows, now=now)


class DecayCounter(PureDecayCounter):
    """A counter that forgets, by the wall clock. See `constraint_crdt.types.decay`."""

    def __init__(
        self,
        half_life: float,
        *,
        name: str = NAMELESS,
        rows: Rows | None = None,
        now: Callable[[], int] = time.time_ns,
        max_skew: float = MAX_SKEW,
        ages: Ages | None = None,
    ) -> None:
        """`half_life`: seconds. `name`: tells it from others in the same rows. `now`: this machine's clock, ns since the epoch.

        `max_skew`: seconds that a writer may be ahead of it without being counted in `ahead`. `ages`: what keeps the ages of the
        cells of `rows`, if something does already. Raises `TypeError` for a half-life that is no number, and `ConstraintCrdtError`
        for one, or a name, out of bounds.
        """
        super().__init__(half_life, name=name, rows=rows, now=now, max_skew=max_skew, ages=ages)


class DecayConstraintState(PureDecayConstraintState):
    """How often constraints held and were violated lately, by the wall clock. See `constraint_crdt.types.rates`."""

    def __init__(
        self,
        half_lives: Iterable[float] = DEFAULT_HALF_LIVES,
        *,
        rows: Rows | None = None,
        now: Callable[[], int] = time.time_ns,
        max_skew: float = MAX_SKEW,
        ages: Ages | None = None,
    ) -> None:
        """`half_lives`: seconds, 1 to 8 of them, at which evaluations are tracked and can be read. The rest as above."""
        super().__init__(half_lives, rows=rows, now=now, max_skew=max_skew, ages=ages)
