"""Counters that go up and down: `PNCounter`, and `PNCounters`, all those of a state by name.

A cell holds what its writer added to and took from one counter so far, both *cumulative*, so a repeated message counts nothing
twice. The value is all increments less all decrements; each of the two only ever grows (Shapiro et al., 2011, specification 7).
"""

from collections.abc import Iterator
from operator import index
from typing import NamedTuple, Self

from constraint_crdt.core.cells import Cell, Key, make_cell, value_of
from constraint_crdt.core.limits import MAX_COUNT
from constraint_crdt.core.replica import Replica, check_id
from constraint_crdt.core.rows import Rows
from constraint_crdt.core.values import COUNTER
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.types.view import View, WatchingView, writer

NAMELESS = ""
"""The name of a counter that stands alone, unless it is given one. No counter of a state has it."""


class Moves(NamedTuple):
    """All that was added and all that was taken away."""

    increments: int = 0
    decrements: int = 0

    @property
    def value(self) -> int:
        """What is left."""
        return self.increments - self.decrements

    def plus(self, increments: int, decrements: int) -> "Moves":
        """These moves and further ones."""
        return Moves(self.increments + increments, self.decrements + decrements)


class PNCounters(WatchingView):
    """The counters of a state: `counters["parts"]` is one of them, whether or not anybody moved it yet.

    `in`, `len` and iteration are over the names that were ever moved; `in` and `len` are O(1).
    """

    KINDS = (COUNTER,)

    def _clear(self) -> None:
        self._sums: dict[Key, Moves] = {}

    def _changed(self, old: Cell | None, new: Cell | None) -> None:
        cell = new if new is not None else old
        if cell is None:
            return
        after = value_of(new) if new is not None else (0, 0)
        before = value_of(old) if old is not None else (0, 0)
        self._sums[cell.key] = self._sums.get(cell.key, Moves()).plus(after[0] - before[0], after[1] - before[1])

    def __getitem__(self, name: str) -> "PNCounter":
        """Raises `ConstraintCrdtError` for what is no name."""
        return PNCounter(self._rows, name=check_id(name, "the name of a counter"), counters=self)

    def __contains__(self, name: object) -> bool:
        return name != NAMELESS and name in self._rows.table(COUNTER)

    def __len__(self) -> int:
        table = self._rows.table(COUNTER)
        return len(table) - (NAMELESS in table)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(str(name) for name in self._rows.table(COUNTER) if name != NAMELESS))

    def __repr__(self) -> str:
        values = {name: self.moves(name).value for name in self}
        return f"PNCounters({values})"

    def moves(self, name: str) -> Moves:
        """The totals of one counter. O(1)."""
        return self._sums.get(name, Moves())


class PNCounter(View):
    """One counter. Totals are O(1); readings by node are O(rows that moved it)."""

    KINDS = (COUNTER,)

    def __init__(self, rows: Rows | None = None, *, name: str = NAMELESS, counters: PNCounters | None = None) -> None:
        """`name`: tells it from others in the same rows. `counters`: what keeps the totals over `rows`, if something does already.

        Raises `ConstraintCrdtError` for a name that is too long or no text.
        """
        super().__init__(rows)
        self._name = name and check_id(name, "the name of a counter")
        self._counters = PNCounters(self._rows) if counters is None else counters

    def merged(self, other: Self) -> Self:
        result = type(self)(self._rows.copy(), name=self._name)
        result.merge(other)
        return result

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PNCounter):
            return NotImplemented
        return self._name == other._name and self._moved() == other._moved()

    __hash__ = None  # mutable

    def _moved(self) -> set[tuple[Replica, int, bytes]]:
        return {(cell.replica, cell.seq, cell.data) for cell in self._rows.held(COUNTER, self._name)}

    @property
    def name(self) -> str:
        """What the counter is called."""
        return self._name

    @property
    def value(self) -> int:
        """All increments less all decrements."""
        return self._counters.moves(self._name).value

    @property
    def increments(self) -> int:
        """All that was ever added."""
        return self._counters.moves(self._name).increments

    @property
    def decrements(self) -> int:
        """All that was ever taken away."""
        return self._counters.moves(self._name).decrements

    @property
    def nodes(self) -> frozenset[str]:
        """The nodes that ever moved it."""
        return frozenset(cell.replica.node_id for cell in self._rows.held(COUNTER, self._name))

    def by_node(self) -> dict[str, Moves]:
        """What each node added and took away, in order of the nodes' names."""
        found: dict[str, Moves] = {}
        for cell in self._rows.held(COUNTER, self._name):
            found[cell.replica.node_id] = found.get(cell.replica.node_id, Moves()).plus(*value_of(cell))
        return dict(sorted(found.items()))

    def node_value(self, node_id: str) -> int:
        """What one node moved it by."""
        return self.by_node().get(node_id, Moves()).value

    def increment(self, amount: int = 1, *, node: str | Replica) -> None:
        """Add to it.

        Raises `TypeError` for what is no whole number, `ValueError` for one below 1, and `ConstraintCrdtError` if this writer's
        increments would exceed 2**63 - 1 in all, or if this would be one name more than `Limits.counters`.
        """
        self._move(_amount(amount), 0, node)

    def decrement(self, amount: int = 1, *, node: str | Replica) -> None:
        """Take away from it; the value may go below 0. Raises as `increment` does."""
        self._move(0, _amount(amount), node)

    def _move(self, increments: int, decrements: int, node: str | Replica) -> None:
        replica, counters = writer(node), self._counters
        standing = self._rows.get(COUNTER, self._name, replica)
        after = Moves(*(value_of(standing) if standing is not None else (0, 0))).plus(increments, decrements)
        if max(after) > MAX_COUNT:
            raise ConstraintCrdtError("what one node adds to a counter, or takes from it, cannot exceed 2**63 - 1 in all")
        most = self._rows.limits.counters
        if self._name != NAMELESS and self._name not in counters and len(counters) >= most:
            raise ConstraintCrdtError(f"there are {most} counters, as many as this node is set to hold: use one of them")
        self._rows.write(replica, make_cell(COUNTER, self._name, list(after)))

    def __repr__(self) -> str:
        return f"PNCounter({f'{self._name!r}, ' if self._name else ''}{self.value})"


def _amount(amount: int) -> int:
    amount = index(amount)
    if amount < 1:
        raise ValueError(f"a counter moves by 1 or more, not by {amount}: `increment` goes up, `decrement` down")
    return amount
