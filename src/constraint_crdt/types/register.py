"""The position of the fleet on the Eisenstein (hexagonal) lattice: a register whose concurrent values resolve by lowest norm.

| kind | key | value |
|---|---|---|
| 4 POSITION | "" | `[a, b, time in ns, [[node id, incarnation, seq], …]]` |

A write names the cells it supersedes (`overwrites`), so a position moves anywhere, also away from the origin. Among the cells
without a successor the lowest Eisenstein norm wins, then the latest time, then the replica. `Positions` implements the rule for
this register and for tiles. A register without writes has no candidate: a fresh node never counts as (0, 0).
"""

from collections.abc import Iterable
from typing import Final, Self

import msgspec

from constraint_crdt.crdt.cells import (
    Cell,
    WireDot,
    check_dots,
    make_cell,
    register,
    require,
    require_counts,
    require_text,
    value_of,
)
from constraint_crdt.crdt.clock import Replica, parse_replica, writer
from constraint_crdt.crdt.limits import ID_BYTES, MAX_COUNT, whole_number
from constraint_crdt.errors import ConstraintCrdtError, InvalidValue
from constraint_crdt.types.view import IndexedView

Position = tuple[int, int]
"""(a, b): the lattice point a + b·ω, ω = e^(2πi/3)."""

COORDINATE_MAX: Final = 2**31 - 1
COORDINATE_MIN: Final = -(2**31)

POSITION: Final = 4


class PositionValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of a POSITION or TILE_POSITION cell."""

    a: int
    b: int
    time: int
    """ns since the epoch."""
    overwrites: tuple[WireDot, ...] = ()
    """The cells superseded by this cell."""
    by: str = ""
    """The name of a writer outside of the fleet; else empty."""


def check_position(_: str, value: PositionValue) -> None:
    """The bounds of a position inside a cell. Raises `ConstraintCrdtError`."""
    in_range = min(value.a, value.b) >= COORDINATE_MIN and max(value.a, value.b) <= COORDINATE_MAX
    require(in_range, "a coordinate of a position")
    require_counts((value.time,), "the time of a position")
    require_text(value.by, "the name of who wrote a position")
    check_dots(value.overwrites)


def _check_register(key: str, value: PositionValue) -> None:
    require(not key, "the key of a position")
    check_position(key, value)


register(POSITION, PositionValue, _check_register, key_bytes=ID_BYTES)


def position_value(cell: Cell) -> PositionValue:
    """The value of a POSITION or TILE_POSITION cell."""
    value: PositionValue = value_of(cell)
    return value


def eisenstein_norm(position: Position) -> int:
    """a² - ab + b²: the squared distance of a + b·ω from the origin. Exact for any integers."""
    a, b = position
    return a * a - a * b + b * b


def hex_distance(one: Position, other: Position) -> int:
    """The number of steps between neighbours from a lattice point to another. Exact for any integers.

    Neighbours differ by a unit of norm 1: ±1, ±ω or ±(1 + ω). Where the two parts of the difference have the same sign, steps of
    ±(1 + ω) reduce both at once; otherwise each part needs steps of its own.
    """
    a, b = one[0] - other[0], one[1] - other[1]
    return max(abs(a), abs(b), abs(a - b))


class Positions:
    """The cells of a register over all rows, updated with each change. The winner is read in O(1)."""

    def __init__(self, cells: Iterable[Cell] = ()) -> None:
        """`cells`: the standing cells, at most one per row."""
        self.values: dict[Replica, tuple[int, PositionValue]] = {}
        """The standing value in each row, with its seq."""
        self.winner: PositionValue | None = None
        """The winning position; None before the first write."""
        self.leader: Replica | None = None
        """The writer of the winning position."""
        self._overwritten: dict[Replica, int] = {}
        self._candidates: dict[Replica, tuple[int, PositionValue]] = {}
        for cell in cells:
            self.values[cell.replica] = (cell.seq, position_value(cell))
        self._recompute()
        self._resolve()

    def changed(self, old: Cell | None, new: Cell | None) -> None:
        """`old` fell, `new` stands now."""
        if old is not None:
            del self.values[old.replica]
            self._candidates.pop(old.replica, None)
        if new is not None:
            self.values[new.replica] = (new.seq, position_value(new))
        if new is not None and (old is None or self._carried_on(old, new)):
            self._take(new.replica)
        else:
            self._recompute()
        self._resolve()

    def value(self, position: Position, time: int, replica: Replica, *, by: str = "") -> list[object]:
        """The value of the next cell of `replica`, for a move to `position`. `by`: see `PositionValue`.

        Raises `TypeError` for numbers that are not whole, and `ConstraintCrdtError` for a coordinate or time out of bounds.
        """
        try:
            a, b = (whole_number(number, "a coordinate of a position") for number in position)
        except ValueError:
            raise ConstraintCrdtError(f"a position has two coordinates, not {position!r}") from None
        time = whole_number(time, "a time in ns since the epoch")
        if not all(COORDINATE_MIN <= x <= COORDINATE_MAX for x in (a, b)):
            raise ConstraintCrdtError(f"a position has two 32-bit integer coordinates, not {position!r}")
        if not 0 <= time <= MAX_COUNT:
            raise ConstraintCrdtError(f"a time is in ns since the epoch and cannot be {time}")
        named = {other: seq for other, (seq, _) in self._candidates.items() if other != replica}
        if replica in self.values:
            for dot in self.values[replica][1].overwrites:
                if self._standing_seq(dot.replica) == dot.seq:  # a later position there needs no naming
                    named.setdefault(dot.replica, dot.seq)
        overwrites = [[other.node_id, other.incarnation, seq] for other, seq in sorted(named.items())]
        return [a, b, time, overwrites, by] if by else [a, b, time, overwrites]

    def _carried_on(self, old: Cell, new: Cell) -> bool:
        """True if `new` still overwrites the standing targets of `old`: then no superseded cell returns."""
        named = {dot.replica: dot.seq for dot in position_value(new).overwrites}
        return all(
            named.get(dot.replica, 0) >= dot.seq or self._standing_seq(dot.replica) > dot.seq
            for dot in position_value(old).overwrites
            if dot.replica != new.replica
        )

    def _standing_seq(self, replica: Replica) -> int:
        return self.values[replica][0] if replica in self.values else 0

    def _take(self, replica: Replica) -> None:
        """Apply the overwrites of a new cell, and those of others to it."""
        seq, value = self.values[replica]
        for dot in value.overwrites:
            other = dot.replica
            if other == replica:
                continue
            self._overwritten[other] = max(dot.seq, self._overwritten.get(other, 0))
            if other in self._candidates and self._candidates[other][0] <= dot.seq:
                del self._candidates[other]
        if self._overwritten.get(replica, 0) < seq:
            self._candidates[replica] = (seq, value)

    def _recompute(self) -> None:
        """From all standing cells, only after the loss of a cell with overwrites. O(cells)."""
        self._overwritten, self._candidates = {}, {}
        for replica in self.values:
            self._take(replica)

    def _resolve(self) -> None:
        self.leader = min(self._candidates, key=self._rank) if self._candidates else None
        self.winner = self._candidates[self.leader][1] if self.leader is not None else None

    def _rank(self, replica: Replica) -> tuple[int, int, Replica]:
        value = self._candidates[replica][1]
        return eisenstein_norm((value.a, value.b)), -value.time, replica


__all__ = ["COORDINATE_MAX", "COORDINATE_MIN", "KEY", "EisensteinRegister", "Position", "eisenstein_norm", "hex_distance"]

KEY = ""


class _RegisterFile(msgspec.Struct):
    """A register as JSON, in the form of the Rust crate."""

    position: Position
    timestamp: int
    node: str
    norm: int


class EisensteinRegister(IndexedView):
    """The position. Reading is O(1)."""

    KINDS = (POSITION,)

    def _clear(self) -> None:
        self._positions = Positions()

    def _changed(self, old: Cell | None, new: Cell | None) -> None:
        self._positions.changed(old, new)

    @property
    def position(self) -> Position | None:
        """(a, b), or None before the first write."""
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

    def to_json(self) -> str:
        """`{"position": [a, b], "timestamp": NS, "node": REPLICA, "norm": NORM}`, as the Rust crate writes; `null` if empty."""
        winner, leader = self._positions.winner, self._positions.leader
        if winner is None:
            return "null"
        position = (winner.a, winner.b)
        file = _RegisterFile(position, winner.time, str(leader), eisenstein_norm(position))
        return msgspec.json.encode(file).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The register in a JSON of `to_json`, or of the crate, where a node has no life. Its norm is not read.

        Raises `ValueError` for any other text.
        """
        register = cls()
        try:
            file = msgspec.json.decode(text, type=_RegisterFile | None)
            if file is not None:
                register.update(file.position, node=parse_replica(file.node) or file.node, time=file.timestamp)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ConstraintCrdtError) as error:
            raise InvalidValue(f"this is no JSON of a register: {error}") from None
        return register

    def node_position(self, node_id: str) -> Position | None:
        """The last position written by a node (over its incarnations, the latest). O(rows with a position)."""
        return self.by_node.get(node_id)

    @property
    def by(self) -> str | None:
        """The node with the winning position, or None before the first write. O(rows with a position)."""
        positions = self._positions
        return next((replica.node_id for replica, (_, value) in positions.values.items() if value is positions.winner), None)

    @property
    def by_node(self) -> dict[str, Position]:
        """The last position written by each node, ordered by name. O(rows with a position)."""
        last: dict[str, tuple[int, int, int]] = {}
        for replica, (_, value) in self._positions.values.items():
            written = (value.time, value.a, value.b)
            last[replica.node_id] = max(written, last.get(replica.node_id, written))
        return {node: (a, b) for node, (_, a, b) in sorted(last.items())}

    def update(self, position: Position, *, node: str | Replica, time: int) -> None:
        """Move to `position` (any two 32-bit integers); `time` in ns since the epoch.

        Raises `TypeError` for numbers that are not whole, and `ConstraintCrdtError` for a coordinate or time out of bounds, or
        for more concurrent positions than fit into a cell.
        """
        replica = writer(node)
        self._rows.write(replica, make_cell(POSITION, KEY, self._positions.value(position, time, replica)))

    def __repr__(self) -> str:
        return f"EisensteinRegister({self.position})"
