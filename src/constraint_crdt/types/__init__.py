"""The CRDT types, a file for each: kinds of cells, wire values, bounds, and the view over them.

Importing any of them registers all kinds, so no cell of a known kind is ever taken for one of an unknown kind.
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
