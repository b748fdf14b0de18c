"""A client of the HTTP API, for programs: `Client`, and `AsyncClient` on asyncio. The command line is built on it.

    from constraint_crdt.client import Client

    with Client("http://127.0.0.1:8470") as node:
        node.add("thermal", when="gpu_temp_c < 85.0")
        print(node.status().satisfaction_rate)
        for heard in node.events():
            print(heard)

Responses are the structs of `constraint_crdt.operations`. Every failure is a `ClientError`. An import loads no server, no
engine and no node. `methods` has a method per operation, generated; `wire` reads addresses and token files, encodes requests and
decodes responses, without connections; `blocking` and `asynchronous` connect; `event_stream` parses events. `NotANode` is found
under its name of 0.1.0, `Stranger`, with a `DeprecationWarning`, until 0.3.
"""

import warnings
from importlib import import_module
from typing import TYPE_CHECKING

from constraint_crdt.client.errors import Busy, ClientError, NoAnswer, NotANode, NotFound, Refused, Unauthorized, WrongInput
from constraint_crdt.client.event_stream import Gap, Happened, Heard, Moved

if TYPE_CHECKING:
    from constraint_crdt.client.asynchronous import AsyncClient
    from constraint_crdt.client.blocking import Client
    from constraint_crdt.client.plato import PlatoClient, PlatoError

_MODULE_OF = {
    "AsyncClient": "constraint_crdt.client.asynchronous",
    "Client": "constraint_crdt.client.blocking",
    "PlatoClient": "constraint_crdt.client.plato",
    "PlatoError": "constraint_crdt.client.plato",
}
"""The clients, loaded on their first use: asyncio takes longer to load than a command may."""

__all__ = [
    "AsyncClient",
    "Busy",
    "Client",
    "ClientError",
    "Gap",
    "Happened",
    "Heard",
    "Moved",
    "NoAnswer",
    "NotANode",
    "NotFound",
    "PlatoClient",
    "PlatoError",
    "Refused",
    "Unauthorized",
    "WrongInput",
]


def __getattr__(name: str) -> object:
    if name == "Stranger":  # as in 0.1.0
        warnings.warn("constraint_crdt.client.Stranger is NotANode now", DeprecationWarning, stacklevel=2)
        return NotANode
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULE_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
