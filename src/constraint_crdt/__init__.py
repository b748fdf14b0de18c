"""A fleet shares one set of constraints without a server: CRDT state, anti-entropy gossip, exact answers from any node.

What is exported here is the public API. Each name is loaded when it is first used: importing the package costs next to nothing,
and whoever needs only the state and the exchange never loads an event loop, an engine or a server.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from constraint_crdt.client.plato import PlatoClient, PlatoError
    from constraint_crdt.crdt.clock import CausalOrder, Merge, VectorClock
    from constraint_crdt.crdt.digest import StateHash
    from constraint_crdt.crdt.limits import Limits
    from constraint_crdt.crdt.replica import Dot, Replica
    from constraint_crdt.edge import DecayConstraintState, DecayCounter, FleetTile, GossipNode
    from constraint_crdt.errors import ConstraintCrdtError
    from constraint_crdt.expression import ExpressionError, Verdict
    from constraint_crdt.expression.evaluation import Evaluation
    from constraint_crdt.model import Event, EventKind, Severity
    from constraint_crdt.operations.constraints import AddConstraint, BatchError, RecordCounts, RemoveConstraint
    from constraint_crdt.plato.rooms import plato_tile
    from constraint_crdt.plato.shapes import (
        PlatoAdd,
        PlatoChange,
        PlatoConstraints,
        PlatoCounter,
        PlatoDelta,
        PlatoMetrics,
        PlatoMove,
        PlatoPosition,
        PlatoRemove,
        PlatoRoom,
        PlatoTile,
    )
    from constraint_crdt.protocol.exchange_rules import GossipResult
    from constraint_crdt.protocol.gossip_node import exchange
    from constraint_crdt.protocol.messages import (
        Ack,
        ConstraintDelta,
        Delta,
        GossipMessage,
        Part,
        Ping,
        Sync,
        decode_message,
        encode_message,
    )
    from constraint_crdt.protocol.peer_clocks import DeltaTracker
    from constraint_crdt.protocol.peer_selection import Nearby, Schedule, Uniform
    from constraint_crdt.protocol.transfers import split_message
    from constraint_crdt.runtime.batches import BatchResult
    from constraint_crdt.runtime.node import Node
    from constraint_crdt.runtime.probes import Probe, SystemProbe
    from constraint_crdt.runtime.settings import NodeSettings
    from constraint_crdt.simulation.rounds import Simulation, Stats
    from constraint_crdt.state import ConstraintState
    from constraint_crdt.state_file import StateFileError, from_json, to_json
    from constraint_crdt.store import StoreError, WritesRefused
    from constraint_crdt.transport import Transport, TransportError
    from constraint_crdt.transport.memory import MemoryNetwork
    from constraint_crdt.transport.zenoh import ZenohTransport
    from constraint_crdt.types.bloom import BloomCRDT
    from constraint_crdt.types.counters import ConstraintGCounter, Counts, Moves, PNCounter, PNCounters
    from constraint_crdt.types.definition import Addition, Definition
    from constraint_crdt.types.increments import RoomIncrements
    from constraint_crdt.types.orset import Change, ConstraintORSet
    from constraint_crdt.types.rates import Rates
    from constraint_crdt.types.register import EisensteinRegister, eisenstein_norm, hex_distance
    from constraint_crdt.types.sketch import Frequent, SketchCRDT
    from constraint_crdt.types.tiles import FleetTiles

__version__ = "0.1.0"

_HOME_OF = {
    "Ack": "constraint_crdt.protocol.messages",
    "AddConstraint": "constraint_crdt.operations.constraints",
    "Addition": "constraint_crdt.types.orset",
    "BatchError": "constraint_crdt.operations.constraints",
    "BatchResult": "constraint_crdt.runtime.batches",
    "BloomCRDT": "constraint_crdt.types.bloom",
    "CausalOrder": "constraint_crdt.crdt.clock",
    "Change": "constraint_crdt.types.orset",
    "ConstraintCrdtError": "constraint_crdt.errors",
    "ConstraintDelta": "constraint_crdt.protocol.messages",
    "ConstraintGCounter": "constraint_crdt.types.counters",
    "ConstraintORSet": "constraint_crdt.types.orset",
    "ConstraintState": "constraint_crdt.state",
    "Counts": "constraint_crdt.types.counters",
    "DecayConstraintState": "constraint_crdt.edge",
    "DecayCounter": "constraint_crdt.edge",
    "Definition": "constraint_crdt.types.orset",
    "Delta": "constraint_crdt.protocol.messages",
    "DeltaTracker": "constraint_crdt.protocol.peer_clocks",
    "Dot": "constraint_crdt.crdt.replica",
    "EisensteinRegister": "constraint_crdt.types.register",
    "Evaluation": "constraint_crdt.expression.evaluation",
    "Event": "constraint_crdt.runtime.events",
    "EventKind": "constraint_crdt.runtime.events",
    "ExpressionError": "constraint_crdt.expression",
    "FleetTile": "constraint_crdt.edge",
    "FleetTiles": "constraint_crdt.types.tiles",
    "Frequent": "constraint_crdt.types.sketch",
    "GossipMessage": "constraint_crdt.protocol.messages",
    "GossipNode": "constraint_crdt.edge",
    "GossipResult": "constraint_crdt.protocol.exchange_rules",
    "Limits": "constraint_crdt.crdt.limits",
    "MemoryNetwork": "constraint_crdt.transport.memory",
    "Merge": "constraint_crdt.crdt.clock",
    "Moves": "constraint_crdt.types.counters",
    "Nearby": "constraint_crdt.protocol.peer_selection",
    "Node": "constraint_crdt.runtime.node",
    "NodeSettings": "constraint_crdt.runtime.settings",
    "PNCounter": "constraint_crdt.types.counters",
    "PNCounters": "constraint_crdt.types.counters",
    "Part": "constraint_crdt.protocol.messages",
    "Ping": "constraint_crdt.protocol.messages",
    "PlatoAdd": "constraint_crdt.plato.shapes",
    "PlatoChange": "constraint_crdt.plato.shapes",
    "PlatoClient": "constraint_crdt.client.plato",
    "PlatoConstraints": "constraint_crdt.plato.shapes",
    "PlatoCounter": "constraint_crdt.plato.shapes",
    "PlatoDelta": "constraint_crdt.plato.shapes",
    "PlatoError": "constraint_crdt.client.plato",
    "PlatoMetrics": "constraint_crdt.plato.shapes",
    "PlatoMove": "constraint_crdt.plato.shapes",
    "PlatoPosition": "constraint_crdt.plato.shapes",
    "PlatoRemove": "constraint_crdt.plato.shapes",
    "PlatoRoom": "constraint_crdt.plato.shapes",
    "PlatoTile": "constraint_crdt.plato.shapes",
    "Probe": "constraint_crdt.runtime.probes",
    "Rates": "constraint_crdt.types.rates",
    "RecordCounts": "constraint_crdt.operations.constraints",
    "RemoveConstraint": "constraint_crdt.operations.constraints",
    "Replica": "constraint_crdt.crdt.replica",
    "RoomIncrements": "constraint_crdt.types.increments",
    "Schedule": "constraint_crdt.protocol.peer_selection",
    "Severity": "constraint_crdt.types.orset",
    "Simulation": "constraint_crdt.simulation.rounds",
    "SketchCRDT": "constraint_crdt.types.sketch",
    "StateFileError": "constraint_crdt.state_file",
    "StateHash": "constraint_crdt.crdt.digest",
    "Stats": "constraint_crdt.simulation.rounds",
    "StoreError": "constraint_crdt.store",
    "Sync": "constraint_crdt.protocol.messages",
    "SystemProbe": "constraint_crdt.runtime.probes",
    "Transport": "constraint_crdt.transport",
    "TransportError": "constraint_crdt.transport",
    "Uniform": "constraint_crdt.protocol.peer_selection",
    "VectorClock": "constraint_crdt.crdt.clock",
    "Verdict": "constraint_crdt.expression",
    "WritesRefused": "constraint_crdt.store",
    "ZenohTransport": "constraint_crdt.transport.zenoh",
    "decode_message": "constraint_crdt.protocol.messages",
    "eisenstein_norm": "constraint_crdt.types.register",
    "encode_message": "constraint_crdt.protocol.messages",
    "exchange": "constraint_crdt.protocol.gossip_node",
    "from_json": "constraint_crdt.state_file",
    "hex_distance": "constraint_crdt.types.register",
    "plato_tile": "constraint_crdt.plato.rooms",
    "split_message": "constraint_crdt.protocol.transfers",
    "to_json": "constraint_crdt.state_file",
}

__all__ = [
    "Ack",
    "AddConstraint",
    "Addition",
    "BatchError",
    "BatchResult",
    "BloomCRDT",
    "CausalOrder",
    "Change",
    "ConstraintCrdtError",
    "ConstraintDelta",
    "ConstraintGCounter",
    "ConstraintORSet",
    "ConstraintState",
    "Counts",
    "DecayConstraintState",
    "DecayCounter",
    "Definition",
    "Delta",
    "DeltaTracker",
    "Dot",
    "EisensteinRegister",
    "Evaluation",
    "Event",
    "EventKind",
    "ExpressionError",
    "FleetTile",
    "FleetTiles",
    "Frequent",
    "GossipMessage",
    "GossipNode",
    "GossipResult",
    "Limits",
    "MemoryNetwork",
    "Merge",
    "Moves",
    "Nearby",
    "Node",
    "NodeSettings",
    "PNCounter",
    "PNCounters",
    "Part",
    "Ping",
    "PlatoAdd",
    "PlatoChange",
    "PlatoClient",
    "PlatoConstraints",
    "PlatoCounter",
    "PlatoDelta",
    "PlatoError",
    "PlatoMetrics",
    "PlatoMove",
    "PlatoPosition",
    "PlatoRemove",
    "PlatoRoom",
    "PlatoTile",
    "Probe",
    "Rates",
    "RecordCounts",
    "RemoveConstraint",
    "Replica",
    "RoomIncrements",
    "Schedule",
    "Severity",
    "Simulation",
    "SketchCRDT",
    "StateFileError",
    "StateHash",
    "Stats",
    "StoreError",
    "Sync",
    "SystemProbe",
    "Transport",
    "TransportError",
    "Uniform",
    "VectorClock",
    "Verdict",
    "WritesRefused",
    "ZenohTransport",
    "decode_message",
    "eisenstein_norm",
    "encode_message",
    "exchange",
    "from_json",
    "hex_distance",
    "plato_tile",
    "split_message",
    "to_json",
]


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
