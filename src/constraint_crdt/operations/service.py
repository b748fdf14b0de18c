"""The operations for monitoring and for people: health, metrics, the OpenAPI document and its page."""

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import msgspec

from constraint_crdt.operations.operation import GET, Answer, Empty, Operation, Problem, Right

if TYPE_CHECKING:
    from constraint_crdt.runtime.node import Node


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """A node is there, or ready. (Else there is a problem.)"""

    ok: bool


async def _alive(_: "Node", __: Empty) -> Health:
    """The event loop of the node turns."""
    return Health(ok=True)


ALIVE: Final = Operation(
    name="alive",
    method=GET,
    path="/healthz",
    summary="Whether the node is there.",
    request=Empty,
    response=Health,
    run=_alive,
    right=Right.NONE,
)


async def _ready(node: "Node", _: Empty) -> Health:
    trouble = node.not_ready()
    if trouble is not None:
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, trouble, headers={"retry-after": "1"})
    return Health(ok=True)


READY: Final = Operation(
    name="ready",
    method=GET,
    path="/readyz",
    summary="Whether it takes part, and takes writes.",
    about="Whether the node takes part in its fleet, and takes writes. Raises `Busy` if not.",
    request=Empty,
    response=Health,
    run=_ready,
    right=Right.NONE,
)

METRICS: Final = Operation(
    name="metrics",
    method=GET,
    path="/metrics",
    summary="The node for Prometheus.",
    about="The node for Prometheus, as text.",
    request=Empty,
    response=str,
    run=None,
    media_type="text/plain",
    document=Answer(media_type="text/plain"),
    ignores_others=True,
)

OPENAPI: Final = Operation(
    name="openapi",
    method=GET,
    path="/openapi.json",
    summary="This document.",
    about="The OpenAPI document of the node.",
    request=Empty,
    response=dict[str, Any],
    run=None,
    right=Right.NONE,
)

DOCS: Final = Operation(
    name="docs",
    method=GET,
    path="/docs",
    summary="This document, for people.",
    request=Empty,
    response=str,
    run=None,
    media_type="text/html",
    document=Answer(media_type="text/html"),
    right=Right.NONE,
    in_clients=False,
)
