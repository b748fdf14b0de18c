"""A client of the HTTP API, for programs: `Client`, and `AsyncClient` on asyncio. The command line is built on it.

    from constraint_crdt.client import Client

    with Client("http://127.0.0.1:8470") as node:
        node.add("thermal", when="gpu_temp_c < 85.0")
        print(node.status().satisfaction_rate)
        for heard in node.events():
            print(heard)

Responses are the structs of `constraint_crdt.operations`. Every failure is a `ClientError`. An import loads no server, no
engine and no node. `methods` has a method per operation, generated; `wire` encodes requests and decodes responses without I/O;
`blocking` and `asynchronous` do the I/O; `event_stream` parses events, `address` addresses and token files.
"""

from typing import TYPE_CHECKING, Any

from constraint_crdt.client.errors import Busy, ClientError, NoAnswer, NotANode, NotFound, Refused, Unauthorized, WrongInput
from constraint_crdt.client.event_stream import Gap, Happened, Heard, Moved

if TYPE_CHECKING:
    from constraint_crdt.client.asynchronous import AsyncClient
    from constraint_crdt.client.blocking import Client

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
    "Refused",
    "Unauthorized",
    "WrongInput",
]


def __getattr__(name: str) -> Any:
    """The clients, when they are wanted: asyncio takes longer to load than a command may."""
    if name == "Client":
        from constraint_crdt.client.blocking import Client

        return Client
    if name == "AsyncClient":
        from constraint_crdt.client.asynchronous import AsyncClient

        return AsyncClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
