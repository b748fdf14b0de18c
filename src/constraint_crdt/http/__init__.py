"""The HTTP API of a node: JSON under `/v1`, for the command line and whoever runs on the same machine.

`app` has the routes, `bodies` reads what clients send, `problems` says what was wrong with it, `origin` keeps web pages of others
out, `server` serves it all beside a node in one event loop.
"""
