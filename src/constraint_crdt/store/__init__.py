"""What a node keeps on disk: its cells, its clock and floors, and who it was (DESIGN 5).

`store` is one SQLite file, `committer` groups changes into commits, `marker` says outside of the file whether its life may go on,
`location` is where it lies. `docs/reference/store.md` explains it for those who run a node.
"""

from constraint_crdt.store.changes import Life
from constraint_crdt.store.committer import Committer
from constraint_crdt.store.failures import StoreError, WritesRefused
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
