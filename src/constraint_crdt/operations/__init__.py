"""The operations of a node, each declared in a single place: for the HTTP API, the clients, the command line and the docs.

A module per subject. `operation` has the parts of a declaration, `command` those of its command, `catalogue` the list of all.
Rule: a module here imports neither the node nor a server, so the declarations are cheap for clients and the command line.
"""
