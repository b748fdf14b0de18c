"""The fleet's position on the Eisenstein (hexagonal) lattice: a register whose concurrent values resolve by lowest norm.

`positions` has the rule. Nobody having written is no candidate: a fresh node takes part with nothing, never with (0, 0).
"""

from constraint_crdt.core.cells import POSITION, Cell, make_cell
from constraint_crdt.core.replica import Replica
from constraint_crdt.types.positions import COORDINATE_MAX, COORDINATE_MIN, Position, Positions, eisenstein_norm, hex_distance
from constraint_crdt.types.view import WatchingView, writer

__all__ = ["COORDINATE_MAX", "COORDINATE_MIN", "KEY", "EisensteinRegister", "Position", "eisenstein_norm", "hex_distance"]

KEY = ""


class EisensteinRegister(WatchingView):
    """The position. Reading is O(1)."""

    KINDS = (POSITION,)

    def _clear(self) -> None:
        self._positions = Positions()

    def _changed(self, old: Cell | None, new: Cell | None) -> None:
        self._positions.changed(old, new)

    @property
    def position(self) -> Position | None:
        """(a, b), or None while nobody has written one."""
        winner = self._positions.winner
        return (winner.a, winner.b) if winner else None

    @property
    def norm(self) -> int | None:
        """The Eisenstein norm of the position, or None while there is none."""
        return eisenstein_norm(self.position) if self.position else None

    def hex_distance(self, other: Position = (0, 0)) -> int | None:
        """Steps on the lattice from the position to another, the origin if left out; None while there is none."""
        return hex_distance(self.position, other) if self.position else None

    @property
    def time(self) -> int | None:
        """When the position was written, ns since the epoch by its writer's clock."""
        winner = self._positions.winner
        return winner.time if winner else None

    def node_position(self, node_id: str) -> Position | None:
        """The last position that this node itself wrote (over its incarnations, the latest). O(rows with a position)."""
        return self.by_node.get(node_id)

    @property
    def by(self) -> str | None:
        """The node that wrote the position, or None while there is none. O(rows with a position)."""
        positions = self._positions
        return next((replica.node_id for replica, (_, value) in positions.values.items() if value is positions.winner), None)

    @property
    def by_node(self) -> dict[str, Position]:
        """The last position that each node wrote, ordered by name. O(rows with a position)."""
        last: dict[str, tuple[int, int, int]] = {}
        for replica, (_, value) in self._positions.values.items():
            written = (value.time, value.a, value.b)
            last[replica.node_id] = max(written, last.get(replica.node_id, written))
        return {node: (a, b) for node, (_, a, b) in sorted(last.items())}

    def update(self, position: Position, *, node: str | Replica, time: int) -> None:
        """Move to `position` (any two 32-bit integers); `time` in ns since the epoch.

        Raises `TypeError` for what is no whole number, and `ConstraintCrdtError` for a coordinate or time out of bounds, or for
        more concurrent positions than a cell can name.
        """
        replica = writer(node)
        self._rows.write(replica, make_cell(POSITION, KEY, self._positions.value(position, time, replica)))

    def __repr__(self) -> str:
        return f"EisensteinRegister({self.position})"
