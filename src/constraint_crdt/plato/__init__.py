"""The contract of PLATO tile servers, as clients of the Rust crate use it: rooms of tiles, and deltas, in JSON over HTTP.

`shapes` has the JSON and its validation; `rooms` merges tiles and deltas into a state, and renders the tiles of a state as JSON.
Both are pure. `constraint_crdt.operations.plato` is the server side, `constraint_crdt.client.PlatoClient` a client. Each name is
loaded on its first use.
"""

from typing import TYPE_CHECKING

from constraint_crdt import lazy_names

if TYPE_CHECKING:
    from constraint_crdt.plato.rooms import (
        PlatoAdd,
        PlatoChange,
        PlatoConstraints,
        PlatoCounter,
        PlatoDelta,
        PlatoFieldError,
        PlatoMetrics,
        PlatoMove,
        PlatoPosition,
        PlatoRemove,
        PlatoRoom,
        PlatoTile,
        plato_tile,
    )

_MODULE_OF = {
    "PlatoAdd": "constraint_crdt.plato.rooms",
    "PlatoChange": "constraint_crdt.plato.rooms",
    "PlatoConstraints": "constraint_crdt.plato.rooms",
    "PlatoCounter": "constraint_crdt.plato.rooms",
    "PlatoDelta": "constraint_crdt.plato.rooms",
    "PlatoFieldError": "constraint_crdt.plato.rooms",
    "PlatoMetrics": "constraint_crdt.plato.rooms",
    "PlatoMove": "constraint_crdt.plato.rooms",
    "PlatoPosition": "constraint_crdt.plato.rooms",
    "PlatoRemove": "constraint_crdt.plato.rooms",
    "PlatoRoom": "constraint_crdt.plato.rooms",
    "PlatoTile": "constraint_crdt.plato.rooms",
    "plato_tile": "constraint_crdt.plato.rooms",
}

__all__ = [
    "PlatoAdd",
    "PlatoChange",
    "PlatoConstraints",
    "PlatoCounter",
    "PlatoDelta",
    "PlatoFieldError",
    "PlatoMetrics",
    "PlatoMove",
    "PlatoPosition",
    "PlatoRemove",
    "PlatoRoom",
    "PlatoTile",
    "plato_tile",
]


__getattr__, __dir__ = lazy_names(__name__, _MODULE_OF)
