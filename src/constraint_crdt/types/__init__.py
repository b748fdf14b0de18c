"""The CRDT types, a file for each: kinds of cells, wire values, bounds, and views.

Importing a type registers the kinds of all types, so `read_cell` validates every known kind.
"""

from constraint_crdt.types import (
    bloom,
    counters,
    decay,
    definition,
    increments,
    nodes,
    orset,
    rates,
    register,
    sketch,
    tile_cells,
    tile_sets,
    tiles,
)

__all__ = [
    "bloom",
    "counters",
    "decay",
    "definition",
    "increments",
    "nodes",
    "orset",
    "rates",
    "register",
    "sketch",
    "tile_cells",
    "tile_sets",
    "tiles",
]
