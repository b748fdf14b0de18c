"""A fleet shares one set of constraints without a server: CRDT state, anti-entropy gossip, exact answers from any node.

What is exported here is the public API. `Node` and the engines are loaded when first used, so that importing the package
starts no event loop and pulls in no server.
"""

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

__version__ = "0.1.0"

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
    "ExpressionError",
    "GossipMessage",
    "GossipNode",
    "GossipResult",
    "Limits",
    "Merge",
    "Part",
    "Ping",
    "Replica",
    "Severity",
    "StateHash",
    "Sync",
    "VectorClock",
    "Verdict",
    "decode_message",
    "eisenstein_norm",
    "encode_message",
    "exchange",
    "split_message",
]
