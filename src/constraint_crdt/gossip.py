"""The exchange between replicas, for programs: its messages with their codec, its results, and the selection of peers.

`constraint_crdt.GossipNode` is a replica with its side of the exchange. Each name is loaded on its first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from constraint_crdt.protocol.exchange_rules import GossipResult
    from constraint_crdt.protocol.messages import (
        Ack,
        Buckets,
        ConstraintDelta,
        Delta,
        Gone,
        GossipMessage,
        Mend,
        MendStep,
        Part,
        Ping,
        Resume,
        Sync,
        decode_message,
        encode_message,
    )
    from constraint_crdt.protocol.peer_clocks import DeltaTracker
    from constraint_crdt.protocol.peer_selection import ByDistance, Nearby, PeerChoice, RandomSource, Schedule, Uniform
    from constraint_crdt.protocol.transfers import split_message

_MODULE_OF = {
    "Ack": "constraint_crdt.protocol.messages",
    "Buckets": "constraint_crdt.protocol.messages",
    "ByDistance": "constraint_crdt.protocol.peer_selection",
    "ConstraintDelta": "constraint_crdt.protocol.messages",
    "Delta": "constraint_crdt.protocol.messages",
    "DeltaTracker": "constraint_crdt.protocol.peer_clocks",
    "Gone": "constraint_crdt.protocol.messages",
    "GossipMessage": "constraint_crdt.protocol.messages",
    "GossipResult": "constraint_crdt.protocol.exchange_rules",
    "Mend": "constraint_crdt.protocol.messages",
    "MendStep": "constraint_crdt.protocol.messages",
    "Nearby": "constraint_crdt.protocol.peer_selection",
    "Part": "constraint_crdt.protocol.messages",
    "PeerChoice": "constraint_crdt.protocol.peer_selection",
    "Ping": "constraint_crdt.protocol.messages",
    "RandomSource": "constraint_crdt.protocol.peer_selection",
    "Resume": "constraint_crdt.protocol.messages",
    "Schedule": "constraint_crdt.protocol.peer_selection",
    "Sync": "constraint_crdt.protocol.messages",
    "Uniform": "constraint_crdt.protocol.peer_selection",
    "decode_message": "constraint_crdt.protocol.messages",
    "encode_message": "constraint_crdt.protocol.messages",
    "split_message": "constraint_crdt.protocol.transfers",
}

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
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULE_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
