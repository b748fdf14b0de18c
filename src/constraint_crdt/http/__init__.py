"""The HTTP API of a node: JSON under `/v1`, for the command line, programs and browsers.

`app` routes requests, `security` guards them, `endpoint` and `bodies` decode them, `problems` reports failures, `cache` keeps
responses, `events` streams, `metrics` and `openapi` describe, and `server` runs all of this beside a node in one event loop.
"""
