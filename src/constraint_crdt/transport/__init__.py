"""The engine between nodes: discovery, membership and request/reply of bytes.

`transport` is the protocol that the node speaks, `memory` serves tests and embedding, `zenoh` is the default engine.
The engine knows nothing of constraints. Importing this package does not load Zenoh: import
`constraint_crdt.transport.zenoh` for that.
"""

from constraint_crdt.transport.interface import Changed, Handler, Peer, Transport, TransportError, Unreachable
from constraint_crdt.transport.memory import MemoryNetwork, MemoryTransport

__all__ = [
    "Changed",
    "Handler",
    "MemoryNetwork",
    "MemoryTransport",
    "Peer",
    "Transport",
    "TransportError",
    "Unreachable",
]
