"""Where the fleet is, and where each node last said that it is."""

import msgspec

from constraint_crdt.state import ConstraintState
from constraint_crdt.types.register import Position, eisenstein_norm, hex_distance


class NodePosition(msgspec.Struct, frozen=True, kw_only=True):
    """The last position that one node wrote."""

    position: Position
    norm: int
    distance: int
    """Steps on the lattice from there to the fleet's position."""


class PositionReport(msgspec.Struct, frozen=True, kw_only=True):
    """The fleet's position, as far as there is one, and the nodes' own."""

    position: Position | None
    norm: int | None
    by: str | None
    """The node that wrote it."""
    time: int | None
    """When, in ns since the epoch by that node's clock."""
    nodes: dict[str, NodePosition]


def position_report(state: ConstraintState) -> PositionReport:
    """Where everybody is. O(rows with a position)."""
    register = state.register
    position = register.position
    return PositionReport(
        position=position,
        norm=register.norm,
        by=register.by,
        time=register.time,
        nodes={
            name: NodePosition(position=own, norm=eisenstein_norm(own), distance=hex_distance(own, position))
            for name, own in register.by_node.items()
            if position is not None
        },
    )
