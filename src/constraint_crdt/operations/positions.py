"""The operations on the positions of a fleet and its nodes."""

from typing import TYPE_CHECKING, Final

import msgspec

from constraint_crdt.operations.operation import GET, PUT, Body, Empty, Freshness, Operation, in_field

if TYPE_CHECKING:
    from constraint_crdt.runtime.node import Node


class Moving(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`PUT /v1/position`."""

    position: tuple[int, int]


class NodePosition(msgspec.Struct, frozen=True, kw_only=True):
    """The last position written by a node."""

    position: tuple[int, int]
    norm: int
    distance: int
    """Steps on the lattice to the position of the fleet."""


class PositionReport(msgspec.Struct, frozen=True, kw_only=True):
    """The position of the fleet, if any, and of its nodes."""

    position: tuple[int, int] | None
    norm: int | None
    by: str | None
    """The writing node."""
    time: int | None
    """The time of the write, in ns since the epoch by the clock of that node."""
    nodes: dict[str, NodePosition]


async def _position(node: "Node", _: Empty) -> PositionReport:
    return node.position()


POSITION: Final = Operation(
    name="position",
    method=GET,
    path="/v1/position",
    summary="Where the fleet and its nodes are.",
    request=Empty,
    response=PositionReport,
    run=_position,
    freshness=Freshness.STATE,
)


async def _move(node: "Node", request: Moving) -> PositionReport:
    with in_field("position"):
        await node.update_position(request.position)
    return node.position()


MOVE: Final = Operation(
    name="move",
    method=PUT,
    path="/v1/position",
    summary="Move the fleet.",
    request=Moving,
    response=PositionReport,
    run=_move,
    body=Body(shape=Moving),
    positional=("position",),
)
