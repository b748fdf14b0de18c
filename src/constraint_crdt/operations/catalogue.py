"""The list of all operations: those that the modules of the subjects declare, in the order of routes, document and help.

A new operation of a subject needs no line here. Rule: of two paths that match the same request, the longer template comes first.
"""

from typing import Final

from constraint_crdt.operations import (
    constraints,
    counts,
    diagnosis,
    evidence,
    fleet,
    nodes,
    plato,
    service,
    sketches,
    tile_edits,
    tiles,
)
from constraint_crdt.operations.operation import AnyOperation, Operation

_SUBJECTS: Final = (
    nodes,
    service,
    constraints,
    counts,
    sketches,
    evidence,
    diagnosis,
    tiles,
    tile_edits,
    fleet,
    plato,
)

OPERATIONS: Final[tuple[AnyOperation, ...]] = tuple(
    dict.fromkeys(each for subject in _SUBJECTS for each in vars(subject).values() if isinstance(each, Operation))
)
