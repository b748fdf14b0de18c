"""`mcp`: tools for agents by the Model Context Protocol, on stdio or as streamable HTTP, each answered by a node.

On stdio the node is asked with the token of the command. By HTTP each request is passed on with its own bearer token, so the rights
of a client are those of its token; without a token file of the node none is needed.
"""

import argparse
import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import ContextVar
from typing import Any, TypeVar

import msgspec

from constraint_crdt.agents import make_server
from constraint_crdt.cli.connection import make_client
from constraint_crdt.cli.output import CommandFailedError, MisuseError
from constraint_crdt.client.blocking import AsyncClient
from constraint_crdt.client.methods import AsyncMethods
from constraint_crdt.operations.operation import Operation
from constraint_crdt.runtime.settings import is_loopback, parse_address

Request = TypeVar("Request", bound=msgspec.Struct)
Response = TypeVar("Response")
Scope = MutableMapping[str, Any]
Asgi = Callable[[Scope, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]


def mcp(arguments: argparse.Namespace) -> int:
    """Serve the tools until the client goes away, or until Ctrl-C."""
    if arguments.http is None:
        asyncio.run(_serve_stdio(make_client(arguments, AsyncClient)))
    else:
        _serve_http(arguments.http, make_client(arguments, _ByToken))
    return 0


async def _serve_stdio(client: AsyncClient) -> None:
    async with client:
        await make_server(client).run_stdio_async()


def _serve_http(where: str, client: "_ByToken") -> None:
    import uvicorn

    host, port = parse_address(where)
    if not is_loopback(f"tcp/{where}"):
        raise MisuseError(
            f"--http {where} could be reached from other machines without TLS: give a loopback address, and a proxy before it"
        )
    server = make_server(client)
    app = with_token(server.streamable_http_app(stateless_http=True, json_response=True, host=host))
    config = uvicorn.Config(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=2)
    try:
        uvicorn.Server(config).run()
    except OSError as error:
        raise CommandFailedError(f"cannot serve at {where}: {error.strerror or error}") from None


_TOKEN: ContextVar[str | None] = ContextVar("token", default=None)
"""The bearer token of the present request."""


def with_token(app: Asgi) -> Asgi:
    """An application that keeps the bearer token of each request for the calls to the node."""

    async def run(scope: Scope, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
        if scope["type"] == "http":
            given = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
            kind, _, token = given.partition(" ")
            _TOKEN.set(token.strip() if kind.lower() == "bearer" and token.strip() else None)
        await app(scope, receive, send)

    return run


class _ByToken(AsyncMethods):
    """Asks the node with the token of the present request."""

    def __init__(self, node: str, *, token: str | None, ca: str | None) -> None:
        """Raises as `AsyncClient` does. `token`: of the command, refused if it is wrong, and never sent."""
        AsyncClient(node, token=token, ca=ca).close()
        self._node, self._ca = node, ca

    async def do(self, operation: Operation[Request, Response], request: Request) -> Response:
        """Call an operation. Raises `ClientError`."""
        async with AsyncClient(self._node, token=_TOKEN.get(), ca=self._ca) as client:
            return await client.do(operation, request)
