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
    from constraint_crdt.edge import DecayConstraintState, DecayCounter, FleetTile, GossipNode
    from constraint_crdt.engine.memory import MemoryNetwork
    from constraint_crdt.engine.transport import Transport, TransportError
    from constraint_crdt.engine.zenoh import ZenohTransport
    from constraint_crdt.errors import ConstraintCrdtError
    from constraint_crdt.evaluation import Evaluation
    from constraint_crdt.expression import ExpressionError, Verdict
    from constraint_crdt.gossip.codec import decode_message, encode_message
    from constraint_crdt.gossip.messages import Ack, ConstraintDelta, Delta, GossipMessage, GossipResult, Part, Ping, Sync
    from constraint_crdt.gossip.peers import Nearby, Schedule, Uniform
    from constraint_crdt.gossip.protocol import exchange
    from constraint_crdt.gossip.sending import split_message
    from constraint_crdt.gossip.tracker import DeltaTracker
    from constraint_crdt.node.batches import AddConstraint, BatchError, BatchResult, RecordCounts, RemoveConstraint
    from constraint_crdt.node.events import Event, EventKind
    from constraint_crdt.node.node import Node
    from constraint_crdt.node.probes import Probe, SystemProbe
    from constraint_crdt.node.settings import NodeSettings
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
    from constraint_crdt.plato.showing import plato_tile
    from constraint_crdt.plato_client import PlatoClient, PlatoError
    from constraint_crdt.portable import StateFileError, from_json, to_json
    from constraint_crdt.simulation.rounds import Simulation, Stats
    from constraint_crdt.state import ConstraintState
    from constraint_crdt.store import StoreError, WritesRefused
    from constraint_crdt.types.bloom import BloomCRDT
    from constraint_crdt.types.counter import ConstraintGCounter, Counts
    from constraint_crdt.types.increments import RoomIncrements
    from constraint_crdt.types.orset import Addition, Change, ConstraintORSet, Definition, Severity
    from constraint_crdt.types.pncounter import Moves, PNCounter, PNCounters
    from constraint_crdt.types.rates import Rates
    from constraint_crdt.types.register import EisensteinRegister, eisenstein_norm, hex_distance
    from constraint_crdt.types.sketch import Frequent, SketchCRDT
    from constraint_crdt.types.tiles import FleetTiles

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
    "constraint_crdt.edge": ("DecayConstraintState", "DecayCounter", "FleetTile", "GossipNode"),
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
    "constraint_crdt.gossip.peers": ("Nearby", "Schedule", "Uniform"),
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
    "constraint_crdt.plato.shapes": (
        "PlatoAdd",
        "PlatoChange",
        "PlatoConstraints",
        "PlatoCounter",
        "PlatoDelta",
        "PlatoMetrics",
        "PlatoMove",
        "PlatoPosition",
        "PlatoRemove",
        "PlatoRoom",
        "PlatoTile",
    ),
    "constraint_crdt.plato.showing": ("plato_tile",),
    "constraint_crdt.plato_client": ("PlatoClient", "PlatoError"),
    "constraint_crdt.portable": ("StateFileError", "from_json", "to_json"),
    "constraint_crdt.simulation.rounds": ("Simulation", "Stats"),
    "constraint_crdt.state": ("ConstraintState",),
    "constraint_crdt.store": ("StoreError", "WritesRefused"),
    "constraint_crdt.types.bloom": ("BloomCRDT",),
    "constraint_crdt.types.counter": (
        "ConstraintGCounter",
        "Counts",
    ),
    "constraint_crdt.types.increments": ("RoomIncrements",),
    "constraint_crdt.types.orset": (
        "Addition",
        "Change",
        "ConstraintORSet",
        "Definition",
        "Severity",
    ),
    "constraint_crdt.types.pncounter": ("Moves", "PNCounter", "PNCounters"),
    "constraint_crdt.types.rates": ("Rates",),
    "constraint_crdt.types.register": ("EisensteinRegister", "eisenstein_norm", "hex_distance"),
    "constraint_crdt.types.sketch": ("Frequent", "SketchCRDT"),
    "constraint_crdt.types.tiles": ("FleetTiles",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

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
