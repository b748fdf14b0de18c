"""The exchange between replicas, for programs: nodes, messages with their codec, results, the selection of peers, and lifetimes by
type.

`GossipNode` and the other classes here are those of the pure part, with this machine's clock and randomness as defaults. The
module of every other name is known to `protocol`, and loaded on the first use.

Rules kept here:

- Only this module gives the pure part a clock or random numbers; every default can be replaced by the caller.
- No behaviour: a class here adds defaults to the pure class of the same name.
"""

import secrets
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from constraint_crdt import lazy_names
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.protocol.gossip_node import GossipNode as PureGossipNode
from constraint_crdt.protocol.local_replica import Edge
from constraint_crdt.types.decay import DEFAULT_HALF_LIVES, MAX_SKEW, NAMELESS, Ages
from constraint_crdt.types.decay import DecayConstraintState as PureDecayConstraintState
from constraint_crdt.types.decay import DecayCounter as PureDecayCounter
from constraint_crdt.types.tiles import FleetTile as PureFleetTile

if TYPE_CHECKING:
    from constraint_crdt.protocol import (
        Ack,
        Buckets,
        ByDistance,
        ConstraintDelta,
        DeathContext,
        Delta,
        DeltaTracker,
        EmergenceEvent,
        Gone,
        GossipMessage,
        GossipResult,
        Mend,
        MendStep,
        Nearby,
        Part,
        PeerChoice,
        Ping,
        RandomSource,
        Resume,
        Schedule,
        Sync,
        TtlCrdtConstraint,
        TtlCrdtNode,
        TtlState,
        TtlType,
        Uniform,
        decode_message,
        encode_message,
        split_message,
    )

__all__ = [
    "Ack",
    "Buckets",
    "ByDistance",
    "ConstraintDelta",
    "DeathContext",
    "Delta",
    "DeltaTracker",
    "EmergenceEvent",
    "Gone",
    "GossipMessage",
    "GossipResult",
    "Mend",
    "MendStep",
    "Nearby",
    "Part",
    "PeerChoice",
    "Ping",
    "RandomSource",
    "Resume",
    "Schedule",
    "Sync",
    "TtlCrdtConstraint",
    "TtlCrdtNode",
    "TtlState",
    "TtlType",
    "Uniform",
    "decode_message",
    "encode_message",
    "split_message",
]


__getattr__, __dir__ = lazy_names(__name__, dict.fromkeys(__all__, "constraint_crdt.protocol"))

INCARNATION_BITS = 48
"""Bits of a random incarnation, 9 bytes in a message. Two lives of a node collide once in 10^7 nodes with a thousand lives
each."""


def fresh_incarnation() -> int:
    """An incarnation no life of a node has had, from the machine's randomness."""
    return 1 + secrets.randbits(INCARNATION_BITS)


_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", None) or (time.CLOCK_MONOTONIC if sys.platform == "darwin" else None)
"""The clock that runs on while the machine sleeps: `CLOCK_BOOTTIME` on Linux, `CLOCK_MONOTONIC` on macOS."""


steady_ns: Callable[[], int] = time.monotonic_ns if _BOOT_CLOCK is None else partial(time.clock_gettime_ns, _BOOT_CLOCK)
"""Nanoseconds of a clock that is never set. It runs on while the machine sleeps, where the system has such a clock."""


class GossipNode(PureGossipNode):
    """A replica and its side of the exchange, by default with this machine's clock and randomness.

    See `constraint_crdt.protocol.gossip_node` for the parameters, and `constraint_crdt.protocol.exchange_rules` for how an exchange
    runs.
    """

    edge = Edge(now=time.time_ns, renew=fresh_incarnation, steady=steady_ns)


class FleetTile(PureFleetTile):
    """A tile outside of a state. See `constraint_crdt.types.tiles`; the tiles of a state are at `state.tiles`."""

    def __init__(self, room: str, id_: str, rows: Rows | None = None, *, now: Callable[[], int] = time.time_ns) -> None:
        """`room`, `id_`: the name, 1 to 256 bytes each. `rows`: the cells to read; new empty ones if None.

        `now`: the time in ns since the epoch. Raises `ConstraintCrdtError` for a room or id out of bounds.
        """
        super().__init__(room, id_, rows, now=now)


class DecayCounter(PureDecayCounter):
    """A decaying counter by the wall clock. See `constraint_crdt.types.decay`."""

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
        """`half_life`: seconds. `name`: distinguishes it from other counters in the same rows. `now`: the time, ns since the epoch.

        `max_skew`: seconds a writer may be ahead without being counted in `ahead`. `ages`: the ages of the cells of `rows`,
        if they are kept already. Raises `TypeError` for a half-life that is not a number, and `ConstraintCrdtError` for a half-life
        or name out of bounds.
        """
        super().__init__(half_life, name=name, rows=rows, now=now, max_skew=max_skew, ages=ages)


class DecayConstraintState(PureDecayConstraintState):
    """Recent rates of satisfied and violated evaluations, by the wall clock. See `constraint_crdt.types.decay`."""

    def __init__(
        self,
        half_lives: Iterable[float] = DEFAULT_HALF_LIVES,
        *,
        rows: Rows | None = None,
        now: Callable[[], int] = time.time_ns,
        max_skew: float = MAX_SKEW,
        ages: Ages | None = None,
    ) -> None:
        """`half_lives`: 1 to 8 half-lives in seconds, at which evaluations are tracked and can be read.

        The others as for `DecayCounter`.
        """
        super().__init__(half_lives, rows=rows, now=now, max_skew=max_skew, ages=ages)
