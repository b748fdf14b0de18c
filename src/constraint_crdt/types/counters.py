"""Counters: evaluations of constraints per node, and named counters with increments and decrements.

| kind | key | value |
|---|---|---|
| 3 COUNTS | constraint id, "" for the node | `[satisfied, violated]`, cumulative; only `satisfied` while nothing was violated |
| 7 COUNTER | counter name | `[increments, decrements]`, cumulative |

A cell holds the *cumulative* counts of its writer, so a repeated message counts nothing twice, and the next message makes up for
a lost one. The value of a `PNCounter` is all increments less all decrements; both only grow (Shapiro et al., 2011, specification
7).
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple, Self

from constraint_crdt.crdt.cells import Cell, Key, make_cell, make_removal, register, require_counts, value_of
from constraint_crdt.crdt.limits import ID_BYTES, MAX_COUNT, whole_number
from constraint_crdt.crdt.replica import Replica, check_id
from constraint_crdt.crdt.rows import Rows, dots_of
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.types.view import IndexedView, View, writer

COUNTS: Final = 3
COUNTER: Final = 7

NODE_KEY: Final = ""
"""The key of the counts of no particular constraint."""


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, 0) if isinstance(value, int) else value


def _check_counts(_: str, value: int | tuple[int, int]) -> None:
    require_counts(_pair(value), "a count")


def check_pair(_: str, value: tuple[int, int]) -> None:
    """The bounds of two counts inside a cell. Raises `ConstraintCrdtError`."""
    require_counts(value, "a count")


register(
    COUNTS,
    int | tuple[int, int],
    _check_counts,
    key_bytes=ID_BYTES,
    removable=True,
    removed_by_id=True,
    cached=_pair,
    rank=lambda value: sum(_pair(value)),
)
register(COUNTER, tuple[int, int], check_pair, key_bytes=ID_BYTES)


def make_counts(key: str, satisfied: int, violated: int) -> Cell:
    """A COUNTS cell."""
    cell = make_cell(COUNTS, key, [satisfied, violated] if violated else satisfied)
    cell.cached = (satisfied, violated)
    return cell


def counts_value(cell: Cell) -> tuple[int, int]:
    """The value of a COUNTS cell: (satisfied, violated), cumulative."""
    value = cell.cached
    if value is None:
        value = cell.cached = _pair(value_of(cell))
    return value


class Counts(NamedTuple):
    """Satisfied and violated evaluations."""

    satisfied: int = 0
    violated: int = 0

    def plus(self, satisfied: int, violated: int) -> "Counts":
        """These counts moved by a difference."""
        return Counts(self.satisfied + satisfied, self.violated + violated)


ZERO = Counts()


class ConstraintGCounter(IndexedView):
    """Counts over all nodes. Every reading is O(1); readings per node sum over the node's incarnations."""

    KINDS = (COUNTS,)

    def _clear(self) -> None:
        self._satisfied = self._violated = 0
        self._by_node: dict[str, tuple[int, int]] = {}
        self._by_constraint: dict[Key, tuple[int, int]] = {}

    def _changed(self, old: Cell | None, new: Cell | None) -> None:
        cell = new if new is not None else old
        if cell is None:
            return
        moved = counts_value(new) if new is not None else (0, 0)
        if old is not None:
            before = counts_value(old)
            moved = (moved[0] - before[0], moved[1] - before[1])
        self._satisfied += moved[0]
        self._violated += moved[1]
        node = self._by_node.get(cell.replica.node_id)
        self._by_node[cell.replica.node_id] = moved if node is None else (node[0] + moved[0], node[1] + moved[1])
        if cell.key != NODE_KEY:
            each = self._by_constraint.get(cell.key)
            self._by_constraint[cell.key] = moved if each is None else (each[0] + moved[0], each[1] + moved[1])

    @property
    def total(self) -> Counts:
        """All counts, with a constraint named or not."""
        return Counts(self._satisfied, self._violated)

    @property
    def total_satisfied(self) -> int:
        """All satisfied evaluations."""
        return self._satisfied

    @property
    def total_violations(self) -> int:
        """All violated evaluations."""
        return self._violated

    @property
    def nodes(self) -> frozenset[str]:
        """The nodes with counts. O(nodes)."""
        return frozenset(node_id for node_id, counts in self._by_node.items() if any(counts))

    def node(self, node_id: str) -> Counts:
        """The counts of a node."""
        return Counts(*self._by_node.get(node_id, ZERO))

    def node_satisfied(self, node_id: str) -> int:
        """Satisfied evaluations on a node."""
        return self.node(node_id).satisfied

    def node_violations(self, node_id: str) -> int:
        """Violated evaluations on a node."""
        return self.node(node_id).violated

    def constraint(self, id_: str) -> Counts:
        """The counts of a constraint, over all nodes."""
        return Counts(*self._by_constraint.get(id_, ZERO))

    def constraint_satisfied(self, id_: str) -> int:
        """Satisfied evaluations of a constraint."""
        return self.constraint(id_).satisfied

    def constraint_violations(self, id_: str) -> int:
        """Violated evaluations of a constraint."""
        return self.constraint(id_).violated

    def by_node(self, id_: str) -> dict[str, Counts]:
        """The counts of a constraint per node. O(rows with such counts)."""
        counts: dict[str, Counts] = {}
        for cell in self._rows.held(COUNTS, id_):
            node = cell.replica.node_id
            counts[node] = counts.get(node, ZERO).plus(*counts_value(cell))
        return counts

    def record(self, node: str | Replica, satisfied: int = 0, violated: int = 0, *, constraint: str | None = None) -> None:
        """Count evaluations of a node, of a single constraint or of none in particular. Zero counts write nothing.

        Raises `TypeError` for a number that is not whole, `ValueError` for a negative number and `ConstraintCrdtError` for a
        total beyond 2**63 - 1.
        """
        self.record_all(node, {constraint: (satisfied, violated)})

    def record_all(self, node: str | Replica, counts: Mapping[str | None, tuple[int, int]]) -> None:
        """Count evaluations of several constraints (None: of none in particular) as a transaction. Raises as `record` does."""
        replica = writer(node)
        cells = [self._counted(replica, constraint, *moved) for constraint, moved in counts.items()]
        written = [cell for cell in cells if cell is not None]
        if written:
            self._rows.write_all(replica, written)

    def _counted(self, replica: Replica, constraint: str | None, satisfied: int, violated: int) -> Cell | None:
        """The cell with the counts added; None for zero counts."""
        satisfied, violated = (whole_number(number, "a count") for number in (satisfied, violated))
        if satisfied < 0 or violated < 0:
            raise ValueError("counts only grow: the number to record cannot be negative")
        if not satisfied and not violated:
            return None
        key = NODE_KEY if constraint is None else check_id(constraint, "a constraint id")
        standing = self._rows.get(COUNTS, key, replica)
        before = counts_value(standing) if standing is not None else ZERO
        after = (before[0] + satisfied, before[1] + violated)
        if max(after) > MAX_COUNT:
            raise ConstraintCrdtError("a cumulative count cannot exceed 2**63 - 1")
        return make_counts(key, *after)

    def fold(self, ids: Iterable[str], *, node: str | Replica) -> int:
        """Move the writer's own counts of these constraints into its node total, and remove their cells; returns how many.

        For constraints removed long ago: totals and the counts of the node stay, only the split by constraint goes. The new total
        and the removal are a single transaction, so no reader sees a count twice or not at all.
        """
        replica = writer(node)
        cells = [cell for id_ in ids if (cell := self._rows.get(COUNTS, id_, replica)) is not None]
        if not cells:
            return 0
        standing = self._rows.get(COUNTS, NODE_KEY, replica)
        values = [counts_value(cell) for cell in (cells if standing is None else [*cells, standing])]
        total = make_counts(NODE_KEY, sum(each[0] for each in values), sum(each[1] for each in values))
        removal = make_removal([(str(cell.key), dots_of([cell])) for cell in cells], COUNTS)
        self._rows.write_all(replica, (total, removal))
        return len(cells)

    def record_satisfied(self, node: str | Replica, count: int = 1, *, constraint: str | None = None) -> None:
        """Count satisfied evaluations, see `record`."""
        self.record(node, count, 0, constraint=constraint)

    def record_violations(self, node: str | Replica, count: int = 1, *, constraint: str | None = None) -> None:
        """Count violated evaluations, see `record`."""
        self.record(node, 0, count, constraint=constraint)

    def __repr__(self) -> str:
        return f"ConstraintGCounter(satisfied={self.total_satisfied}, violations={self.total_violations})"


NAMELESS = ""
"""The name of a counter outside of a state. No counter of a state has this name."""


class Moves(NamedTuple):
    """All increments and all decrements of a counter."""

    increments: int = 0
    decrements: int = 0

    @property
    def value(self) -> int:
        """Increments less decrements."""
        return self.increments - self.decrements

    def plus(self, increments: int, decrements: int) -> "Moves":
        """These moves and further ones."""
        return Moves(self.increments + increments, self.decrements + decrements)


class PNCounters(IndexedView):
    """The counters of a state: `counters["parts"]` is a counter, also before its first write.

    `in`, `len` and iteration are over the names with a write; `in` and `len` are O(1).
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
        """The counter of this name. Raises `TypeError` and `ConstraintCrdtError` for an invalid name."""
        return PNCounter(self._rows, name=check_id(name, "the name of a counter", field="name"), counters=self)

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
        """The totals of a counter. O(1)."""
        return self._sums.get(name, Moves())


class PNCounter(View):
    """A counter with increments and decrements. Totals are O(1); readings by node are O(rows with a write)."""

    KINDS = (COUNTER,)

    def __init__(self, rows: Rows | None = None, *, name: str = NAMELESS, counters: PNCounters | None = None) -> None:
        """`name`: the name within the rows. `counters`: the existing totals over `rows`, if any.

        Raises `TypeError` and `ConstraintCrdtError` for an invalid name.
        """
        super().__init__(rows)
        self._name = name and check_id(name, "the name of a counter", field="name")
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
        """The name of the counter."""
        return self._name

    @property
    def value(self) -> int:
        """All increments less all decrements."""
        return self._counters.moves(self._name).value

    @property
    def increments(self) -> int:
        """The sum of all increments."""
        return self._counters.moves(self._name).increments

    @property
    def decrements(self) -> int:
        """The sum of all decrements."""
        return self._counters.moves(self._name).decrements

    @property
    def nodes(self) -> frozenset[str]:
        """The nodes with a write."""
        return frozenset(cell.replica.node_id for cell in self._rows.held(COUNTER, self._name))

    def by_node(self) -> dict[str, Moves]:
        """Increments and decrements of each node, ordered by node."""
        found: dict[str, Moves] = {}
        for cell in self._rows.held(COUNTER, self._name):
            found[cell.replica.node_id] = found.get(cell.replica.node_id, Moves()).plus(*value_of(cell))
        return dict(sorted(found.items()))

    def node_value(self, node_id: str) -> int:
        """Increments less decrements of a node."""
        return self.by_node().get(node_id, Moves()).value

    def increment(self, amount: int = 1, *, node: str | Replica) -> None:
        """Add to the counter.

        Raises `TypeError` for an amount that is no whole number, `ValueError` for an amount below 1, and `ConstraintCrdtError`
        for increments of this writer beyond 2**63 - 1 in all, and for a name beyond `Limits.counters`.
        """
        self._move(_amount(amount), 0, node)

    def decrement(self, amount: int = 1, *, node: str | Replica) -> None:
        """Subtract from the counter; the value may go below 0. Raises as `increment` does."""
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
    amount = whole_number(amount, "an amount")
    if amount < 1:
        raise ValueError(f"a counter moves by 1 or more, not by {amount}: `increment` goes up, `decrement` down")
    return amount
