"""A client of the HTTP API, for programs: `Client`, and `AsyncClient` on asyncio. The command line is made with it.

    from constraint_crdt.client import Client

    with Client("http://127.0.0.1:8470") as node:
        node.add("thermal", when="gpu_temp_c < 85.0")
        print(node.status().satisfaction_rate)
        for heard in node.events():
            print(heard)

Answers are the structs that the node itself makes. Whatever goes wrong is a `ClientError`. Importing this loads no server, no
engine and no node; `calls` has the operations, `errors` what can go wrong, `address` and `exchange` what both clients share.
"""

from typing import TYPE_CHECKING, Any

from constraint_crdt.client.errors import Busy, ClientError, NoAnswer, NotFound, Refused, Stranger, Unauthorized, WrongInput
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
    "NotFound",
    "Refused",
    "Stranger",
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
