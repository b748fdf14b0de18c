"""A client of the HTTP API, for programs: `Client`, and `AsyncClient` on asyncio. The command line is built on it.

    from constraint_crdt.client import Client

    with Client("http://127.0.0.1:8470") as node:
        node.add("thermal", when="gpu_temp_c < 85.0")
        print(node.status().satisfaction_rate)
        for heard in node.events():
            print(heard)

Responses are the structs of `constraint_crdt.operations`. Every failure is a `ClientError`. An import loads no server, no
engine and no node. `methods` has a method per operation, generated; `wire` reads addresses and token files, encodes requests,
decodes responses and parses events, without connections; `blocking` and `asynchronous` connect. `NotANode` is found under its name
of 0.1.0, `Stranger`, with a `DeprecationWarning`, until 0.3.
"""

import warnings
from typing import TYPE_CHECKING

from constraint_crdt import lazy_names
from constraint_crdt.errors import ConstraintCrdtError

if TYPE_CHECKING:
    from constraint_crdt.client.blocking import AsyncClient, Client, PlatoClient, PlatoError
    from constraint_crdt.client.wire import Gap, Happened, Heard, Moved

_MODULE_OF = {
    "AsyncClient": "constraint_crdt.client.blocking",
    "Client": "constraint_crdt.client.blocking",
    "Gap": "constraint_crdt.client.wire",
    "Happened": "constraint_crdt.client.wire",
    "Heard": "constraint_crdt.client.wire",
    "Moved": "constraint_crdt.client.wire",
    "PlatoClient": "constraint_crdt.client.blocking",
    "PlatoError": "constraint_crdt.client.blocking",
}
"""The clients and the messages of a stream, loaded on their first use: asyncio takes longer to load than a command may."""

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
    "TlsError",
    "Unauthorized",
    "WrongInput",
]


class ClientError(ConstraintCrdtError):
    """A request that failed. `str()` is a sentence, and never contains a token."""


class NoAnswer(ClientError):
    """No answer, or not in time. A write may have been done."""

    def __init__(self, message: str, *, refused: bool = False, timed_out: bool = False) -> None:
        """`refused`: no server listens at the address. `timed_out`: a server accepted and sent nothing."""
        super().__init__(message)
        self.refused = refused
        self.timed_out = timed_out


class TlsError(ClientError):
    """The server does not speak TLS, or its certificate is not trusted."""


class NotANode(ClientError):
    """The server at the address is not a node."""


class Refused(ClientError):
    """A problem after RFC 9457: the reason for which the node refused the request."""

    def __init__(self, detail: str, status: int, *, field: str | None = None, retry_after: float | None = None) -> None:
        """`field`: the field or parameter at fault. `retry_after`: seconds until a retry, if the node gave them."""
        super().__init__(detail)
        self.status = status
        self.field = field
        self.retry_after = retry_after


class WrongInput(Refused, ValueError):
    """An invalid request, in any state of the fleet."""


class NotFound(Refused, KeyError):
    """The node knows no such name."""


class Unauthorized(Refused):
    """The token is missing, unknown, or of too low a role."""


class Busy(Refused):
    """Not at present: the rate limit, or a disk without writes."""


_load, __dir__ = lazy_names(__name__, _MODULE_OF)


def __getattr__(name: str) -> object:
    if name == "Stranger":  # as in 0.1.0
        warnings.warn("constraint_crdt.client.Stranger is NotANode now", DeprecationWarning, stacklevel=2)
        return NotANode
    return _load(name)
