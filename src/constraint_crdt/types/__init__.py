"""The CRDT types, a file for those of a subject: kinds of cells, wire values, bounds, and views.

Importing a type registers the kinds of all types, so `read_cell` validates every known kind. The public names are loaded on their
first use. Those with a clock, `DecayCounter`, `DecayConstraintState` and `FleetTile`, have the clock of this machine by default.
"""

from typing import TYPE_CHECKING

from constraint_crdt import lazy_names
from constraint_crdt.types import (
    alerts,
    budgets,
    counters,
    decay,
    definition,
    nodes,
    orset,
    parameters,
    rollouts,
    sketch,
    tile_cells,
    tiles,
    variables,
    verdicts,
)

if TYPE_CHECKING:
    from constraint_crdt.crdt.clock import CausalOrder, Dot, Merge
    from constraint_crdt.gossip import DecayConstraintState, DecayCounter, FleetTile
    from constraint_crdt.model import IfUnknown, VerdictState
    from constraint_crdt.types.counters import ConstraintGCounter, Moves, PNCounter, PNCounters, RoomIncrements, Seconds
    from constraint_crdt.types.decay import Rates
    from constraint_crdt.types.definition import Addition
    from constraint_crdt.types.orset import ConstraintORSet
    from constraint_crdt.types.parameters import Parameters
    from constraint_crdt.types.sketch import BloomCRDT, Frequent, SketchCRDT
    from constraint_crdt.types.tile_cells import EisensteinRegister, eisenstein_norm, hex_distance
    from constraint_crdt.types.tiles import FleetTiles
    from constraint_crdt.types.variables import MeasuredVariables, Reading, SharedReadings, VariableKind
    from constraint_crdt.types.verdicts import ConstraintVerdicts, NodeVerdict

_REGISTERED = (
    alerts, budgets, counters, decay, definition, nodes, orset, parameters, rollouts, sketch, tile_cells, tiles,
    variables, verdicts,
)  # fmt: skip
"""The modules that register kinds."""

_MODULE_OF = {
    "Addition": "constraint_crdt.types.definition",
    "BloomCRDT": "constraint_crdt.types.sketch",
    "CausalOrder": "constraint_crdt.crdt.clock",
    "ConstraintGCounter": "constraint_crdt.types.counters",
    "ConstraintORSet": "constraint_crdt.types.orset",
    "ConstraintVerdicts": "constraint_crdt.types.verdicts",
    "DecayConstraintState": "constraint_crdt.gossip",
    "DecayCounter": "constraint_crdt.gossip",
    "Dot": "constraint_crdt.crdt.clock",
    "EisensteinRegister": "constraint_crdt.types.tile_cells",
    "FleetTile": "constraint_crdt.gossip",
    "FleetTiles": "constraint_crdt.types.tiles",
    "Frequent": "constraint_crdt.types.sketch",
    "IfUnknown": "constraint_crdt.model",
    "MeasuredVariables": "constraint_crdt.types.variables",
    "Merge": "constraint_crdt.crdt.clock",
    "Moves": "constraint_crdt.types.counters",
    "NodeVerdict": "constraint_crdt.types.verdicts",
    "PNCounter": "constraint_crdt.types.counters",
    "PNCounters": "constraint_crdt.types.counters",
    "Parameters": "constraint_crdt.types.parameters",
    "Rates": "constraint_crdt.types.decay",
    "Reading": "constraint_crdt.types.variables",
    "RoomIncrements": "constraint_crdt.types.counters",
    "Seconds": "constraint_crdt.types.counters",
    "SharedReadings": "constraint_crdt.types.variables",
    "SketchCRDT": "constraint_crdt.types.sketch",
    "VariableKind": "constraint_crdt.types.variables",
    "VerdictState": "constraint_crdt.model",
    "eisenstein_norm": "constraint_crdt.types.tile_cells",
    "hex_distance": "constraint_crdt.types.tile_cells",
}

__all__ = [
    "Addition",
    "BloomCRDT",
    "CausalOrder",
    "ConstraintGCounter",
    "ConstraintORSet",
    "ConstraintVerdicts",
    "DecayConstraintState",
    "DecayCounter",
    "Dot",
    "EisensteinRegister",
    "FleetTile",
    "FleetTiles",
    "Frequent",
    "IfUnknown",
    "MeasuredVariables",
    "Merge",
    "Moves",
    "NodeVerdict",
    "PNCounter",
    "PNCounters",
    "Parameters",
    "Rates",
    "Reading",
    "RoomIncrements",
    "Seconds",
    "SharedReadings",
    "SketchCRDT",
    "VariableKind",
    "VerdictState",
    "eisenstein_norm",
    "hex_distance",
]


__getattr__, __dir__ = lazy_names(__name__, _MODULE_OF)
