"""A fleet shares one set of constraints without a server: CRDT state, anti-entropy gossip, exact answers from any node.

These are the names that most programs need. The rest of the public API is in subpackages: `types` (the CRDT types), `gossip`
(messages and peer selection), `simulation`, `client` (the HTTP API), `plato`, `testing` (the laws of CRDTs) and `errors`.

Each name is loaded on its first use: an import of the package costs next to nothing, and a program that uses only the state and the
exchange loads no event loop, no engine and no server. Names that 0.1.0 had here and that moved are found with a
`DeprecationWarning`, until 0.3.
"""

import sys
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from constraint_crdt.crdt.clock import Replica, StateHash, VectorClock
    from constraint_crdt.crdt.limits import Limits
    from constraint_crdt.errors import ConstraintCrdtError, StoreError, UnknownConstraint, WritesRefused
    from constraint_crdt.expression import ExpressionError, Verdict
    from constraint_crdt.expression.evaluation import Evaluation
    from constraint_crdt.gossip import GossipNode
    from constraint_crdt.model import Event, EventKind, Severity
    from constraint_crdt.operations.constraints import AddConstraint, BatchError, RecordCounts, RemoveConstraint
    from constraint_crdt.protocol.gossip_node import exchange
    from constraint_crdt.runtime.change_feed import BatchResult
    from constraint_crdt.runtime.measurement import Probe, SystemProbe
    from constraint_crdt.runtime.node import Node
    from constraint_crdt.runtime.settings import NodeSettings
    from constraint_crdt.runtime.sync_node import SyncNode
    from constraint_crdt.state import ConstraintState, StateFileError, from_json, to_json
    from constraint_crdt.transport import MemoryNetwork, Transport, TransportError
    from constraint_crdt.transport.zenoh import ZenohTransport
    from constraint_crdt.types.counters import Counts
    from constraint_crdt.types.definition import Definition
    from constraint_crdt.types.orset import Change

__version__ = "0.1.0"

_MODULE_OF = {
    "AddConstraint": "constraint_crdt.operations.constraints",
    "BatchError": "constraint_crdt.operations.constraints",
    "BatchResult": "constraint_crdt.runtime.change_feed",
    "Change": "constraint_crdt.types.orset",
    "ConstraintCrdtError": "constraint_crdt.errors",
    "ConstraintState": "constraint_crdt.state",
    "Counts": "constraint_crdt.types.counters",
    "Definition": "constraint_crdt.types.definition",
    "Evaluation": "constraint_crdt.expression.evaluation",
    "Event": "constraint_crdt.model",
    "EventKind": "constraint_crdt.model",
    "ExpressionError": "constraint_crdt.expression",
    "GossipNode": "constraint_crdt.gossip",
    "Limits": "constraint_crdt.crdt.limits",
    "MemoryNetwork": "constraint_crdt.transport",
    "Node": "constraint_crdt.runtime.node",
    "NodeSettings": "constraint_crdt.runtime.settings",
    "Probe": "constraint_crdt.runtime.measurement",
    "RecordCounts": "constraint_crdt.operations.constraints",
    "RemoveConstraint": "constraint_crdt.operations.constraints",
    "Replica": "constraint_crdt.crdt.clock",
    "Severity": "constraint_crdt.model",
    "StateFileError": "constraint_crdt.state",
    "StateHash": "constraint_crdt.crdt.clock",
    "StoreError": "constraint_crdt.errors",
    "SyncNode": "constraint_crdt.runtime.sync_node",
    "SystemProbe": "constraint_crdt.runtime.measurement",
    "Transport": "constraint_crdt.transport",
    "TransportError": "constraint_crdt.transport",
    "UnknownConstraint": "constraint_crdt.errors",
    "VectorClock": "constraint_crdt.crdt.clock",
    "Verdict": "constraint_crdt.expression",
    "WritesRefused": "constraint_crdt.errors",
    "ZenohTransport": "constraint_crdt.transport.zenoh",
    "exchange": "constraint_crdt.protocol.gossip_node",
    "from_json": "constraint_crdt.state",
    "to_json": "constraint_crdt.state",
}

_MOVED = {
    "Ack": "constraint_crdt.gossip",
    "Addition": "constraint_crdt.types",
    "BloomCRDT": "constraint_crdt.types",
    "CausalOrder": "constraint_crdt.types",
    "ConstraintDelta": "constraint_crdt.gossip",
    "ConstraintGCounter": "constraint_crdt.types",
    "ConstraintORSet": "constraint_crdt.types",
    "DecayConstraintState": "constraint_crdt.types",
    "DecayCounter": "constraint_crdt.types",
    "Delta": "constraint_crdt.gossip",
    "DeltaTracker": "constraint_crdt.gossip",
    "Dot": "constraint_crdt.types",
    "EisensteinRegister": "constraint_crdt.types",
    "FleetTile": "constraint_crdt.types",
    "FleetTiles": "constraint_crdt.types",
    "Frequent": "constraint_crdt.types",
    "GossipMessage": "constraint_crdt.gossip",
    "GossipResult": "constraint_crdt.gossip",
    "Merge": "constraint_crdt.types",
    "Moves": "constraint_crdt.types",
    "Nearby": "constraint_crdt.gossip",
    "PNCounter": "constraint_crdt.types",
    "PNCounters": "constraint_crdt.types",
    "Part": "constraint_crdt.gossip",
    "Ping": "constraint_crdt.gossip",
    "PlatoAdd": "constraint_crdt.plato",
    "PlatoChange": "constraint_crdt.plato",
    "PlatoClient": "constraint_crdt.client",
    "PlatoConstraints": "constraint_crdt.plato",
    "PlatoCounter": "constraint_crdt.plato",
    "PlatoDelta": "constraint_crdt.plato",
    "PlatoError": "constraint_crdt.client",
    "PlatoMetrics": "constraint_crdt.plato",
    "PlatoMove": "constraint_crdt.plato",
    "PlatoPosition": "constraint_crdt.plato",
    "PlatoRemove": "constraint_crdt.plato",
    "PlatoRoom": "constraint_crdt.plato",
    "PlatoTile": "constraint_crdt.plato",
    "Rates": "constraint_crdt.types",
    "RoomIncrements": "constraint_crdt.types",
    "Schedule": "constraint_crdt.gossip",
    "Simulation": "constraint_crdt.simulation",
    "SketchCRDT": "constraint_crdt.types",
    "Stats": "constraint_crdt.simulation",
    "Sync": "constraint_crdt.gossip",
    "Uniform": "constraint_crdt.gossip",
    "decode_message": "constraint_crdt.gossip",
    "eisenstein_norm": "constraint_crdt.types",
    "encode_message": "constraint_crdt.gossip",
    "hex_distance": "constraint_crdt.types",
    "plato_tile": "constraint_crdt.plato",
    "split_message": "constraint_crdt.gossip",
}

__all__ = [
    "AddConstraint",
    "BatchError",
    "BatchResult",
    "Change",
    "ConstraintCrdtError",
    "ConstraintState",
    "Counts",
    "Definition",
    "Evaluation",
    "Event",
    "EventKind",
    "ExpressionError",
    "GossipNode",
    "Limits",
    "MemoryNetwork",
    "Node",
    "NodeSettings",
    "Probe",
    "RecordCounts",
    "RemoveConstraint",
    "Replica",
    "Severity",
    "StateFileError",
    "StateHash",
    "StoreError",
    "SyncNode",
    "SystemProbe",
    "Transport",
    "TransportError",
    "UnknownConstraint",
    "VectorClock",
    "Verdict",
    "WritesRefused",
    "ZenohTransport",
    "exchange",
    "from_json",
    "to_json",
]


def lazy_names(module: str, module_of: Mapping[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """The functions `__getattr__` and `__dir__` of a package whose public names are loaded on their first use.

    `module`: the name of the package. `module_of`: the module of each name.
    """

    def get(name: str) -> object:
        if name not in module_of:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        value: object = getattr(import_module(module_of[name]), name)
        setattr(sys.modules[module], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[module]), *module_of})

    return get, names


_load, __dir__ = lazy_names(__name__, _MODULE_OF)


def __getattr__(name: str) -> object:
    if name in _MOVED:
        place = _MOVED[name]
        warnings.warn(f"constraint_crdt.{name} has moved: import it from {place}", DeprecationWarning, stacklevel=2)
        found: object = getattr(import_module(place), name)
        return found
    return _load(name)
