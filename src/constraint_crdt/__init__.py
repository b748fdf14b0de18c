"""A fleet shares one set of constraints without a server: CRDT state, anti-entropy gossip, exact answers from any node.

What is exported here is the public API. `Node` and the engines are loaded when first used, so that importing the package
starts no event loop and pulls in no server.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from constraint_crdt.core.clock import CausalOrder, VectorClock
from constraint_crdt.core.digest import StateHash
from constraint_crdt.core.limits import Limits
from constraint_crdt.core.merge import Merge
from constraint_crdt.core.replica import Dot, Replica
from constraint_crdt.edge import GossipNode
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.evaluation import Evaluation
from constraint_crdt.expression import ExpressionError, Verdict
from constraint_crdt.gossip.codec import decode_message, encode_message, split_message
from constraint_crdt.gossip.messages import Ack, ConstraintDelta, Delta, GossipMessage, GossipResult, Part, Ping, Sync
from constraint_crdt.gossip.protocol import exchange
from constraint_crdt.gossip.tracker import DeltaTracker
from constraint_crdt.state import ConstraintState
from constraint_crdt.types.counter import ConstraintGCounter, Counts
from constraint_crdt.types.orset import Addition, Change, ConstraintORSet, Definition, Severity
from constraint_crdt.types.register import EisensteinRegister, eisenstein_norm

if TYPE_CHECKING:
    from constraint_crdt.engine.memory import MemoryNetwork
    from constraint_crdt.engine.transport import Transport, TransportError
    from constraint_crdt.engine.zenoh import ZenohTransport
    from constraint_crdt.node.events import Event, EventKind
    from constraint_crdt.node.node import Node
    from constraint_crdt.node.probes import Probe, SystemProbe
    from constraint_crdt.node.settings import NodeSettings

__version__ = "0.1.0"

_LOADED_WHEN_USED = {
    "Event": "constraint_crdt.node.events",
    "EventKind": "constraint_crdt.node.events",
    "MemoryNetwork": "constraint_crdt.engine.memory",
    "Node": "constraint_crdt.node.node",
    "NodeSettings": "constraint_crdt.node.settings",
    "Probe": "constraint_crdt.node.probes",
    "SystemProbe": "constraint_crdt.node.probes",
    "Transport": "constraint_crdt.engine.transport",
    "TransportError": "constraint_crdt.engine.transport",
    "ZenohTransport": "constraint_crdt.engine.zenoh",
}

__all__ = [
    "Ack",
    "Addition",
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
    "Replica",
    "Severity",
    "StateHash",
    "Sync",
    "SystemProbe",
    "Transport",
    "TransportError",
    "VectorClock",
    "Verdict",
    "ZenohTransport",
    "decode_message",
    "eisenstein_norm",
    "encode_message",
    "exchange",
    "split_message",
]


def __getattr__(name: str) -> object:
    if name not in _LOADED_WHEN_USED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LOADED_WHEN_USED[name]), name)
