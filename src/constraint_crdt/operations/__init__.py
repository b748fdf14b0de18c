"""The operations of a node, each declared in a single place: for the HTTP API, the clients, the command line and the docs.

A module per subject. `operation` has the parts of a declaration. `OPERATIONS` lists all operations declared by the modules of the
subjects, in the order of routes, document and help; a new operation of a subject needs no line here, a new module does.

Rules: a module here imports neither the node nor a server, so the declarations are cheap for clients and the command line. Of two
paths that match the same request, the longer template comes first.
"""

from typing import Final

from constraint_crdt.operations import (
    alerts,
    budgets,
    constraints,
    counts,
    evidence,
    fleet,
    nodes,
    plato,
    rules,
    service,
    tiles,
    variables,
)
from constraint_crdt.operations.operation import AnyOperation, Operation

_SUBJECTS: Final = (
    nodes,
    service,
    alerts,
    constraints,
    rules,
    counts,
    variables,
    budgets,
    evidence,
    tiles,
    fleet,
    plato,
)

OPERATIONS: Final[tuple[AnyOperation, ...]] = tuple(
    dict.fromkeys(each for subject in _SUBJECTS for each in vars(subject).values() if isinstance(each, Operation))
)
