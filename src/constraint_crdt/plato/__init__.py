"""The contract of PLATO tile servers, as the clients of the Rust crate speak it: rooms of tiles, and deltas, in JSON over HTTP.

`shapes` has the JSON, `checking` reads and judges it, `merging` takes a tile or a delta into a state, `showing` makes the JSON of
what a state holds. All of it is pure; `constraint_crdt.client.plato` asks such a server, `api.plato` is one.
"""
