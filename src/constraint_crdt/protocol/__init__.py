"""The exchange between replicas: messages, peer clocks, transfers, repair, peer selection, and `GossipNode`.

`gossip_node` lists the parts. The `GossipNode` here is pure: it needs a clock and a source of incarnations, which
`constraint_crdt.GossipNode` has. Each name is loaded on its first use.
"""

from typing import TYPE_CHECKING

from constraint_crdt import lazy_names

if TYPE_CHECKING:
    from constraint_crdt.protocol.exchange_rules import GossipResult
    from constraint_crdt.protocol.gossip_node import (
        DeathContext,
        EmergenceEvent,
        GossipNode,
        TtlCrdtConstraint,
        TtlCrdtNode,
        TtlState,
        TtlType,
        exchange,
    )
    from constraint_crdt.protocol.local_replica import Edge
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
    from constraint_crdt.protocol.peers import ByDistance, DeltaTracker, Nearby, PeerChoice, RandomSource, Schedule, Uniform
    from constraint_crdt.protocol.transfers import split_message

_MODULE_OF = {
    "Ack": "messages",
    "Buckets": "messages",
    "ByDistance": "peers",
    "ConstraintDelta": "messages",
    "DeathContext": "gossip_node",
    "Delta": "messages",
    "DeltaTracker": "peers",
    "Edge": "local_replica",
    "EmergenceEvent": "gossip_node",
    "Gone": "messages",
    "GossipMessage": "messages",
    "GossipNode": "gossip_node",
    "GossipResult": "exchange_rules",
    "Mend": "messages",
    "MendStep": "messages",
    "Nearby": "peers",
    "Part": "messages",
    "PeerChoice": "peers",
    "Ping": "messages",
    "RandomSource": "peers",
    "Resume": "messages",
    "Schedule": "peers",
    "Sync": "messages",
    "TtlCrdtConstraint": "gossip_node",
    "TtlCrdtNode": "gossip_node",
    "TtlState": "gossip_node",
    "TtlType": "gossip_node",
    "Uniform": "peers",
    "decode_message": "messages",
    "encode_message": "messages",
    "exchange": "gossip_node",
    "split_message": "transfers",
}

__all__ = [
    "Ack",
    "Buckets",
    "ByDistance",
    "ConstraintDelta",
    "DeathContext",
    "Delta",
    "DeltaTracker",
    "Edge",
    "EmergenceEvent",
    "Gone",
    "GossipMessage",
    "GossipNode",
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
    "exchange",
    "split_message",
]


__getattr__, __dir__ = lazy_names(__name__, {name: f"{__name__}.{place}" for name, place in _MODULE_OF.items()})
