"""The contract of PLATO tile servers, as clients of the Rust crate use it: rooms of tiles, and deltas, in JSON over HTTP.

`shapes` has the JSON and its validation; `rooms` merges tiles and deltas into a state, and renders the tiles of a state as JSON.
Both are pure. `constraint_crdt.operations.plato` is the server side, `constraint_crdt.client.plato` a client.
"""
