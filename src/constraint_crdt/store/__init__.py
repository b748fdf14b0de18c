"""The store of a node on disk: cells, clock, floors and identity.

`store` is the SQLite file, its tables and the content of a commit. `committer` groups the changes of the rows in memory
into commits. `files` has path, lock, marker and errors. docs/design/identity-and-durability.md gives the reasons, and
docs/reference/store.md explains the store for operators.
"""

from constraint_crdt.errors import StoreError, WritesRefused
from constraint_crdt.store.committer import Committer
from constraint_crdt.store.files import Marker, default_path, marker_for, set_aside
from constraint_crdt.store.store import Identity, Life, Rollback, Store, StoreCopy, back_up, check_backup, put_back, read_store

__all__ = [
    "Committer",
    "Identity",
    "Life",
    "Marker",
    "Rollback",
    "Store",
    "StoreCopy",
    "StoreError",
    "WritesRefused",
    "back_up",
    "check_backup",
    "default_path",
    "marker_for",
    "put_back",
    "read_store",
    "set_aside",
]
