"""The exchange between replicas, for programs: its messages with their codec, its results, and the selection of peers.

`constraint_crdt.GossipNode` is a replica with its side of the exchange. `protocol` knows the module of each name,
and loads it on its first use.
"""

from typing import TYPE_CHECKING

from constraint_crdt import protocol

if TYPE_CHECKING:
    from constraint_crdt.protocol import (
        Ack,
        Buckets,
        ByDistance,
        ConstraintDelta,
        Delta,
        DeltaTracker,
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
    "Delta",
    "DeltaTracker",
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
    "Uniform",
    "decode_message",
    "encode_message",
    "split_message",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(protocol, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
