"""The contracts of PLATO tile servers in JSON over HTTP: rooms of tiles, and deltas, as clients of the Rust crate use them, and
questions with answers, as the SDK on PyPI and protocol v2 do.

`shapes` has the JSON and its validation; `rooms` merges tiles, deltas and answers into a state, and renders its tiles as JSON.
Both are pure. `constraint_crdt.operations.plato` is the server side, `constraint_crdt.client.PlatoClient` a client. Each name is
loaded on its first use.
"""

from typing import TYPE_CHECKING

from constraint_crdt import lazy_names

if TYPE_CHECKING:
    from constraint_crdt.plato.rooms import plato_answer, plato_tile
    from constraint_crdt.plato.shapes import (
        PlatoAdd,
        PlatoAnswer,
        PlatoChange,
        PlatoConstraints,
        PlatoCounter,
        PlatoDelta,
        PlatoDeltaTracker,
        PlatoFieldError,
        PlatoMetrics,
        PlatoMove,
        PlatoPosition,
        PlatoRemove,
        PlatoRoom,
        PlatoSubmission,
        PlatoTile,
    )

_MODULE_OF = {
    "PlatoAdd": "constraint_crdt.plato.shapes",
    "PlatoAnswer": "constraint_crdt.plato.shapes",
    "PlatoChange": "constraint_crdt.plato.shapes",
    "PlatoConstraints": "constraint_crdt.plato.shapes",
    "PlatoCounter": "constraint_crdt.plato.shapes",
    "PlatoDelta": "constraint_crdt.plato.shapes",
    "PlatoDeltaTracker": "constraint_crdt.plato.shapes",
    "PlatoFieldError": "constraint_crdt.plato.shapes",
    "PlatoMetrics": "constraint_crdt.plato.shapes",
    "PlatoMove": "constraint_crdt.plato.shapes",
    "PlatoPosition": "constraint_crdt.plato.shapes",
    "PlatoRemove": "constraint_crdt.plato.shapes",
    "PlatoRoom": "constraint_crdt.plato.shapes",
    "PlatoSubmission": "constraint_crdt.plato.shapes",
    "PlatoTile": "constraint_crdt.plato.shapes",
    "plato_answer": "constraint_crdt.plato.rooms",
    "plato_tile": "constraint_crdt.plato.rooms",
}

__all__ = [
    "PlatoAdd",
    "PlatoAnswer",
    "PlatoChange",
    "PlatoConstraints",
    "PlatoCounter",
    "PlatoDelta",
    "PlatoDeltaTracker",
    "PlatoFieldError",
    "PlatoMetrics",
    "PlatoMove",
    "PlatoPosition",
    "PlatoRemove",
    "PlatoRoom",
    "PlatoSubmission",
    "PlatoTile",
    "plato_answer",
    "plato_tile",
]


__getattr__, __dir__ = lazy_names(__name__, _MODULE_OF)
