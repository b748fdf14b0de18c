"""The store of a node on disk: cells, clock, floors and identity.

`store` is one SQLite file, `schema` its tables, `changes` the difference to the rows in memory, `committer` groups changes into
commits, `location` has path, lock and marker, `failures` the errors. `docs/reference/store.md` explains the store for operators.
"""

from constraint_crdt.errors import StoreError, WritesRefused
from constraint_crdt.store.changes import Life
from constraint_crdt.store.committer import Committer
from constraint_crdt.store.location import Marker, default_path, marker_for, set_aside
from constraint_crdt.store.store import Identity, Store

__all__ = [
    "Committer",
    "Identity",
    "Life",
    "Marker",
    "Store",
    "StoreError",
    "WritesRefused",
    "default_path",
    "marker_for",
    "set_aside",
]
