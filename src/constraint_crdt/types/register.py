"""The fleet's position on the Eisenstein (hexagonal) lattice: a register whose concurrent values resolve by lowest norm.

A write names the position cells that it supersedes (`overwrites`), so it moves anywhere, also away from the origin. Among the
cells that no other overwrites the lowest norm wins, then the latest time, then the node id, the replica. Nobody having written
is no candidate: a fresh node takes part with nothing, never with (0, 0).
"""

from operator import index

from constraint_crdt.core.cells import POSITION, Cell, PositionValue, make_cell, position_value
from constraint_crdt.core.limits import MAX_COUNT
from constraint_crdt.core.replica import Replica
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.types.view import WatchingView, writer

Position = tuple[int, int]
"""(a, b): the lattice point a + b·ω, ω = e^(2πi/3)."""

COORDINATE_MAX = 2**31 - 1
COORDINATE_MIN = -(2**31)
KEY = ""


def eisenstein_norm(position: Position) -> int:
    """a² - ab + b²: the squared distance of a + b·ω from the origin. Exact for any integers."""
    a, b = position
    return a * a - a * b + b * b


class EisensteinRegister(WatchingView):
    """The position. Reading is O(1)."""

    KINDS = (POSITION,)

    def _clear(self) -> None:
        self._values: dict[Replica, tuple[int, PositionValue]] = {}
        self._overwritten: dict[Replica, int] = {}
        self._candidates: dict[Replica, tuple[int, PositionValue]] = {}
        self._winner: PositionValue | None = None

    def _changed(self, old: Cell | None, new: Cell | None) -> None:
        if old is not None:
            del self._values[old.replica]
            self._candidates.pop(old.replica, None)
        if new is not None:
            self._values[new.replica] = (new.seq, position_value(new))
        if new is not None and (old is None or self._carried_on(old, new)):
            self._take(new.replica)
        else:
            self._recompute()
        self._winner = self._resolve()

    def _carried_on(self, old: Cell, new: Cell) -> bool:
        """True if `new` still overwrites what `old` did, as far as that stands: then nothing comes back to life."""
        named = {dot.replica: dot.seq for dot in position_value(new).overwrites}
        return all(
            named.get(dot.replica, 0) >= dot.seq or self._standing_seq(dot.replica) > dot.seq
            for dot in position_value(old).overwrites
            if dot.replica != new.replica
        )

    def _standing_seq(self, replica: Replica) -> int:
        return self._values[replica][0] if replica in self._values else 0

    def _take(self, replica: Replica) -> None:
        """Let one new cell overwrite, and be overwritten."""
        seq, value = self._values[replica]
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
        """From all standing cells: only when a cell went that others relied on. O(cells)."""
        self._overwritten, self._candidates = {}, {}
        for replica in self._values:
            self._take(replica)

    def _resolve(self) -> PositionValue | None:
        if not self._candidates:
            return None
        best = min(
            self._candidates.items(),
            key=lambda item: (eisenstein_norm((item[1][1].a, item[1][1].b)), -item[1][1].time, item[0]),
        )
        return best[1][1]

    @property
    def position(self) -> Position | None:
        """(a, b), or None while nobody has written one."""
        return (self._winner.a, self._winner.b) if self._winner else None

    @property
    def norm(self) -> int | None:
        """The Eisenstein norm of the position, or None while there is none."""
        return eisenstein_norm(self.position) if self.position else None

    @property
    def time(self) -> int | None:
        """When the position was written, ns since the epoch by its writer's clock."""
        return self._winner.time if self._winner else None

    def node_position(self, node_id: str) -> Position | None:
        """The last position that this node itself wrote (over its incarnations, the latest). O(rows with a position)."""
        own = [value for replica, (_, value) in self._values.items() if replica.node_id == node_id]
        if not own:
            return None
        last = max(own, key=lambda value: (value.time, value.a, value.b))
        return (last.a, last.b)

    def update(self, position: Position, *, node: str | Replica, time: int) -> None:
        """Move to `position` (any two 32-bit integers); `time` in ns since the epoch.

        Raises `TypeError` for what is no whole number, and `ConstraintCrdtError` for a coordinate or time out of bounds, or for
        more concurrent positions than a cell can name.
        """
        a, b, time = (int(index(number)) for number in (*position, time))
        if not all(COORDINATE_MIN <= x <= COORDINATE_MAX for x in (a, b)):
            raise ConstraintCrdtError(f"a position has two 32-bit integer coordinates, not {position!r}")
        if not 0 <= time <= MAX_COUNT:
            raise ConstraintCrdtError(f"a time is in ns since the epoch and cannot be {time}")
        replica = writer(node)
        named = {other: seq for other, (seq, _) in self._candidates.items() if other != replica}
        if replica in self._values:
            for dot in self._values[replica][1].overwrites:
                if self._standing_seq(dot.replica) == dot.seq:  # one that has moved since needs no naming
                    named.setdefault(dot.replica, dot.seq)
        overwrites = [[other.node_id, other.incarnation, seq] for other, seq in sorted(named.items())]
        self._rows.write(replica, make_cell(POSITION, KEY, [a, b, time, overwrites]))

    def __repr__(self) -> str:
        return f"EisensteinRegister({self.position})"
