"""A fleet shares one set of constraints without a server: CRDT state, anti-entropy gossip, exact answers from any node.

What is exported here is the public API. Each name is loaded when it is first used: importing the package costs next to nothing,
and whoever needs only the state and the exchange never loads an event loop, an engine or a server.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from constraint_crdt.core.clock import CausalOrder, VectorClock
    from constraint_crdt.core.digest import StateHash
    from constraint_crdt.core.limits import Limits
    from constraint_crdt.core.merge import Merge
    from constraint_crdt.core.replica import Dot, Replica
    from constraint_crdt.edge import GossipNode
    from constraint_crdt.engine.memory import MemoryNetwork
    from constraint_crdt.engine.transport import Transport, TransportError
    from constraint_crdt.engine.zenoh import ZenohTransport
    from constraint_crdt.errors import ConstraintCrdtError
    from constraint_crdt.evaluation import Evaluation
    from constraint_crdt.expression import ExpressionError, Verdict
    from constraint_crdt.gossip.codec import decode_message, encode_message
    from constraint_crdt.gossip.messages import Ack, ConstraintDelta, Delta, GossipMessage, GossipResult, Part, Ping, Sync
    from constraint_crdt.gossip.protocol import exchange
    from constraint_crdt.gossip.sending import split_message
    from constraint_crdt.gossip.tracker import DeltaTracker
    from constraint_crdt.node.batches import AddConstraint, BatchError, BatchResult, RecordCounts, RemoveConstraint
    from constraint_crdt.node.events import Event, EventKind
    from constraint_crdt.node.node import Node
    from constraint_crdt.node.probes import Probe, SystemProbe
    from constraint_crdt.node.settings import NodeSettings
    from constraint_crdt.state import ConstraintState
    from constraint_crdt.store import StoreError, WritesRefused
    from constraint_crdt.types.counter import ConstraintGCounter, Counts
    from constraint_crdt.types.orset import Addition, Change, ConstraintORSet, Definition, Severity
    from constraint_crdt.types.register import EisensteinRegister, eisenstein_norm

__version__ = "0.1.0"

_HOMES = {
    "constraint_crdt.core.clock": (
        "CausalOrder",
        "VectorClock",
    ),
    "constraint_crdt.core.digest": ("StateHash",),
    "constraint_crdt.core.limits": ("Limits",),
    "constraint_crdt.core.merge": ("Merge",),
    "constraint_crdt.core.replica": (
        "Dot",
        "Replica",
    ),
    "constraint_crdt.edge": ("GossipNode",),
    "constraint_crdt.engine.memory": ("MemoryNetwork",),
    "constraint_crdt.engine.transport": (
        "Transport",
        "TransportError",
    ),
    "constraint_crdt.engine.zenoh": ("ZenohTransport",),
    "constraint_crdt.errors": ("ConstraintCrdtError",),
    "constraint_crdt.evaluation": ("Evaluation",),
    "constraint_crdt.expression": (
        "ExpressionError",
        "Verdict",
    ),
    "constraint_crdt.gossip.codec": (
        "decode_message",
        "encode_message",
    ),
    "constraint_crdt.gossip.messages": (
        "Ack",
        "ConstraintDelta",
        "Delta",
        "GossipMessage",
        "GossipResult",
        "Part",
        "Ping",
        "Sync",
    ),
    "constraint_crdt.gossip.protocol": ("exchange",),
    "constraint_crdt.gossip.sending": ("split_message",),
    "constraint_crdt.gossip.tracker": ("DeltaTracker",),
    "constraint_crdt.node.batches": ("AddConstraint", "BatchError", "BatchResult", "RecordCounts", "RemoveConstraint"),
    "constraint_crdt.node.events": (
        "Event",
        "EventKind",
    ),
    "constraint_crdt.node.node": ("Node",),
    "constraint_crdt.node.probes": (
        "Probe",
        "SystemProbe",
    ),
    "constraint_crdt.node.settings": ("NodeSettings",),
    "constraint_crdt.state": ("ConstraintState",),
    "constraint_crdt.store": ("StoreError", "WritesRefused"),
    "constraint_crdt.types.counter": (
        "ConstraintGCounter",
        "Counts",
    ),
    "constraint_crdt.types.orset": (
        "Addition",
        "Change",
        "ConstraintORSet",
        "Definition",
        "Severity",
    ),
    "constraint_crdt.types.register": (
        "EisensteinRegister",
        "eisenstein_norm",
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Ack",
    "AddConstraint",
    "Addition",
    "BatchError",
    "BatchResult",
    "CausalOrder",
    "Change",
    "ConstraintCrdtError",
    "ConstraintDelta",
    "ConstraintGCounter",
    "ConstraintORSet",
    "ConstraintState",
    "Counts",
    "Definition",
    "Delta",
    "DeltaTracker",
    "Dot",
    "EisensteinRegister",
    "Evaluation",
    "Event",
    "EventKind",
    "ExpressionError",
    "GossipMessage",
    "GossipNode",
    "GossipResult",
    "Limits",
    "MemoryNetwork",
    "Merge",
    "Node",
    "NodeSettings",
    "Part",
    "Ping",
    "Probe",
    "RecordCounts",
    "RemoveConstraint",
    "Replica",
    "Severity",
    "StateHash",
    "StoreError",
    "Sync",
    "SystemProbe",
    "Transport",
    "TransportError",
    "VectorClock",
    "Verdict",
    "WritesRefused",
    "ZenohTransport",
    "decode_message",
    "eisenstein_norm",
    "encode_message",
    "exchange",
    "split_message",
]


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
