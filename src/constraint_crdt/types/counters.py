"""Counters: evaluations, named counters, and the increments of foreign nodes.

Evaluations of constraints per node, their time by verdict, and named counters with increments and decrements:

| kind | key | value |
|---|---|---|
| 3 COUNTS | constraint id, "" for the node | `[satisfied, violated]`, cumulative; only `satisfied` while nothing was violated |
| 7 COUNTER | counter name | `[increments, decrements]`, cumulative |
| 25 SECONDS | constraint id, "" for the node | `[satisfied, violated, unknown]` in ms, cumulative; trailing zeros left out |

A cell holds the *cumulative* counts of its writer, so a repeated message counts nothing twice, and the next message makes up for
a lost message. The value of a `PNCounter` is all increments less all decrements; both only grow (Shapiro et al., 2011,
specification 7). Rules kept here:

- The time of a constraint has a kind of its own. The value of COUNTS has two elements in 0.1.0, which would refuse a third; a cell
  of a kind unknown there is kept and forwarded.
- No SECONDS cell is removed: 0.1.0 refuses a message with a removal of an unknown kind. A folded cell is overwritten by `[]`.
- A total beyond 2**63 - 1 is refused for its constraint alone. `record_each`, `record_seconds` and `fold` write all others.

Increments of foreign nodes (PLATO deltas), where each (room, node, seq) counts once:

| kind | key | value |
|---|---|---|
| 22 INCREMENTS | room, foreign node, its seq | `[satisfied, violated]` |
| 23 APPLIED | room, foreign node, page | `[[first seq, level, satisfied, violated], …]`: increments of 2**level seqs each |

An increment is a cell under (room, foreign node, seq) in the row of the node that took it in. The same increment in several rows
counts once, by its seq. From time to time a writer compacts the increments it knows: it writes pages of blocks in its own row,
and in the same transaction a removal of the cells replaced, of all rows. Totals do not change. Seqs are remembered for good, so a
late repeat has no effect.

A *block* is a range of 2**level seqs from a multiple of 2**level on, with the sum of their increments; a single increment is a
block of level 0. Of two blocks either the larger contains the other, or they are disjoint. So copies compacted at different
places and times are combined by leaving out each block inside of a larger block: no seq counts twice, without any coordination.
(Sums over arbitrary ranges do not allow this: overlapping ranges cannot be separated.)

Blocks do not join over missing seqs: n seqs with g gaps need up to (g + 1) * 2 * log2(n) blocks.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, Self

import msgspec

from constraint_crdt.crdt.cells import (
    Cell,
    Key,
    core,
    make_cell,
    make_key,
    make_removal,
    read_cell,
    register,
    removals_of,
    require,
    require_counts,
    split_key,
    value_of,
)
from constraint_crdt.crdt.clock import Replica, check_id, writer
from constraint_crdt.crdt.limits import ID_BYTES, MAX_COUNT, whole_number
from constraint_crdt.crdt.rows import Rows, dots_of
from constraint_crdt.errors import ConstraintCrdtError, CountTooLarge, InvalidValue
from constraint_crdt.types.view import IndexedView, View

COUNTS: Final = 3
COUNTER: Final = 7
SECONDS: Final = 25

MS_PER_SECOND: Final = 1_000

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
    rank=lambda value: sum(_pair(value)),
)
register(COUNTER, tuple[int, int], check_pair, key_bytes=ID_BYTES)


class SecondsValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of a SECONDS cell, in ms. Further elements, of later versions, are ignored."""

    satisfied: int = 0
    violated: int = 0
    unknown: int = 0

    @property
    def times(self) -> tuple[int, int, int]:
        """The three times in ms."""
        return self.satisfied, self.violated, self.unknown


def _check_seconds(_: str, value: SecondsValue) -> None:
    require_counts(value.times, "a time")


register(SECONDS, SecondsValue, _check_seconds, key_bytes=ID_BYTES, removable=True, rank=lambda value: sum(value.times))


def make_counts(key: str, satisfied: int, violated: int) -> Cell:
    """A COUNTS cell."""
    return make_cell(COUNTS, key, [satisfied, violated] if violated else satisfied)


def counts_value(cell: Cell) -> tuple[int, int]:
    """The value of a COUNTS cell: (satisfied, violated), cumulative."""
    return core.counts_of(cell)


def make_seconds(key: str, times: Sequence[int] = ()) -> Cell:
    """A SECONDS cell. `times`: satisfied, violated, unknown, in ms."""
    value = list(times)
    while value and not value[-1]:
        value.pop()
    return make_cell(SECONDS, key, value)


def seconds_value(cell: Cell) -> tuple[int, int, int]:
    """The value of a SECONDS cell: (satisfied, violated, unknown) in ms, cumulative."""
    value: SecondsValue = value_of(cell)
    return value.times


class Counts(NamedTuple):
    """Satisfied and violated evaluations."""

    satisfied: int = 0
    violated: int = 0

    def plus(self, satisfied: int, violated: int) -> "Counts":
        """These counts moved by a difference."""
        return Counts(self.satisfied + satisfied, self.violated + violated)


ZERO = Counts()

Times = tuple[int, int, int]
"""Satisfied, violated, unknown, in ms."""


class Seconds(NamedTuple):
    """The time for which a constraint was satisfied, violated and unknown, in seconds."""

    satisfied: float = 0.0
    """Seconds with the verdict satisfied."""
    violated: float = 0.0
    """Seconds with the verdict violated, before `for` and `clear_after`."""
    unknown: float = 0.0
    """Seconds with the verdict unknown, those in which the node stood still included."""

    @property
    def held(self) -> float | None:
        """The share of the decided time for which the constraint was satisfied; None without decided time."""
        decided = self.satisfied + self.violated
        return self.satisfied / decided if decided else None

    def plus(self, times: "Times") -> "Seconds":
        """These times and further ones, in ms."""
        satisfied, violated, unknown = (each / MS_PER_SECOND for each in times)
        return Seconds(self.satisfied + satisfied, self.violated + violated, self.unknown + unknown)


NO_TIME: Final = (0, 0, 0)


def _plus(one: Times, other: Times, sign: int = 1) -> Times:
    return one[0] + sign * other[0], one[1] + sign * other[1], one[2] + sign * other[2]


def _seconds(times: Times) -> Seconds:
    return Seconds(*(each / MS_PER_SECOND for each in times))


def count_of(constraint: str | None) -> str:
    """The words for the constraint of a count, in an error."""
    return f"of constraint {constraint!r}" if constraint else "of no constraint in particular"


class ConstraintGCounter(IndexedView):
    """Counts and times over all nodes. Every reading is O(1); readings per node sum over the node's incarnations."""

    KINDS = (COUNTS, SECONDS)

    def _clear(self) -> None:
        self._time_by_constraint: dict[str, Times] = {}
        self._time_by_node: dict[str, Times] = {}
        self._satisfied = self._violated = 0
        self._by_node: dict[str, tuple[int, int]] = {}
        self._by_constraint: dict[Key, tuple[int, int]] = {}
        """The counts that were read of constraints with several cells, kept up to date from then on."""

    def _changed(self, old: Cell | None, new: Cell | None) -> None:
        cell = new if new is not None else old
        if cell is None:
            return
        if cell.kind == SECONDS:
            self._time_changed(cell, old, new)
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
            each = self._by_constraint.get(cell.key) if self._by_constraint else None
            if each is None:
                return
            if new is None:  # what stands under the key may come to nothing, and the next cell in bulk
                del self._by_constraint[cell.key]
            else:
                self._by_constraint[cell.key] = (each[0] + moved[0], each[1] + moved[1])

    def _bulk_watcher(self, cells: Sequence[Cell]) -> None:
        """Of cells under keys of their own, none is among the counts that were read of a constraint."""
        if cells[0].kind == SECONDS:
            for cell in cells:
                self._changed(None, cell)
            return
        for replica, satisfied, violated in core.total_counts(cells):
            self._satisfied += satisfied
            self._violated += violated
            node = self._by_node.get(replica.node_id, ZERO)
            self._by_node[replica.node_id] = (node[0] + satisfied, node[1] + violated)

    def _time_changed(self, cell: Cell, old: Cell | None, new: Cell | None) -> None:
        moved = seconds_value(new) if new is not None else NO_TIME
        if old is not None:
            moved = _plus(moved, seconds_value(old), -1)
        node, key = cell.replica.node_id, str(cell.key)
        self._time_by_node[node] = _plus(self._time_by_node.get(node, NO_TIME), moved)
        if key != NODE_KEY:
            self._time_by_constraint[key] = _plus(self._time_by_constraint.get(key, NO_TIME), moved)

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
    def satisfaction_rate(self) -> float:
        """Satisfied over all evaluations; 1.0 when nothing was recorded."""
        total = self.total
        return total.satisfied / sum(total) if sum(total) else 1.0

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
        """The counts of a constraint, over all nodes. The first time O(rows with such counts), then O(1)."""
        if id_ == NODE_KEY:
            return ZERO
        counted = self._by_constraint.get(id_)
        if counted is None:
            held = self._rows.held(COUNTS, id_)
            counts = [counts_value(cell) for cell in held]
            counted = (sum([each[0] for each in counts]), sum([each[1] for each in counts]))
            if len(held) > 1:
                self._by_constraint[id_] = counted
        return Counts(*counted)

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

    def time(self, id_: str) -> Seconds:
        """The time of a constraint by verdict, over all nodes."""
        return _seconds(self._time_by_constraint.get(id_, NO_TIME))

    def node_time(self, node_id: str) -> Seconds:
        """The time of all constraints of a node by verdict: their sum, so two constraints over an hour are two hours."""
        return _seconds(self._time_by_node.get(node_id, NO_TIME))

    def time_on(self, id_: str) -> dict[str, Seconds]:
        """The time of a constraint by verdict on each node, ordered by node. O(rows with such a time)."""
        found: dict[str, Times] = {}
        for cell in self._rows.held(SECONDS, id_):
            node, times = cell.replica.node_id, seconds_value(cell)
            if any(times):
                found[node] = _plus(found.get(node, NO_TIME), times)
        return {node: _seconds(times) for node, times in sorted(found.items())}

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
        self._write(replica, cells)

    def record_each(
        self, node: str | Replica, counts: Mapping[str | None, tuple[int, int]]
    ) -> dict[str | None, ConstraintCrdtError]:
        """As `record_all`, but a total beyond 2**63 - 1 is refused alone: all others are counted, as a single transaction.

        Returns the error of each refused constraint, which is not counted. Raises `TypeError` and `ValueError` as `record` does.
        """
        replica = writer(node)
        cells: list[Cell | None] = []
        refused: dict[str | None, ConstraintCrdtError] = {}
        for constraint, moved in counts.items():
            try:
                cells.append(self._counted(replica, constraint, *moved))
            except CountTooLarge as error:
                refused[constraint] = error
        self._write(replica, cells)
        return refused

    def record_seconds(self, node: str | Replica, times: Mapping[str, Times]) -> dict[str, ConstraintCrdtError]:
        """Add to the times of constraints: (satisfied, violated, unknown) in whole ms. A single transaction; zeros write nothing.

        Returns the error of each constraint with a total beyond 2**63 - 1 ms, whose time is not added; all others are. Raises
        `TypeError` for a number that is not whole, `ValueError` for a negative number and `ConstraintCrdtError` for an id out of
        bounds.
        """
        replica = writer(node)
        cells: list[Cell | None] = []
        refused: dict[str, ConstraintCrdtError] = {}
        for id_, moved in times.items():
            try:
                cells.append(self._timed(replica, check_id(id_, "a constraint id"), moved))
            except CountTooLarge as error:
                refused[id_] = error
        self._write(replica, cells)
        return refused

    def _write(self, replica: Replica, cells: Iterable[Cell | None]) -> None:
        written = [cell for cell in cells if cell is not None]
        if written:
            self._rows.write_all(replica, written)

    def _counted(self, replica: Replica, constraint: str | None, satisfied: int, violated: int) -> Cell | None:
        """The cell with the counts added; None for zero counts."""
        satisfied, violated = (whole_number(number, "a count") for number in (satisfied, violated))
        if satisfied < 0 or violated < 0:
            raise InvalidValue("counts only grow: the number to record cannot be negative")
        if not satisfied and not violated:
            return None
        key = NODE_KEY if constraint is None else check_id(constraint, "a constraint id")
        standing = self._rows.get(COUNTS, key, replica)
        before = counts_value(standing) if standing is not None else ZERO
        after = (before[0] + satisfied, before[1] + violated)
        if max(after) > MAX_COUNT:
            raise CountTooLarge(f"a cumulative count, here that {count_of(key)}, cannot exceed 2**63 - 1")
        return make_counts(key, *after)

    def _timed(self, replica: Replica, id_: str, moved: Times) -> Cell | None:
        """The cell with the times added; None for no time."""
        satisfied, violated, unknown = (whole_number(number, "a time in ms") for number in moved)
        if min(satisfied, violated, unknown) < 0:
            raise InvalidValue("times only grow: the time to record cannot be negative")
        if not any((satisfied, violated, unknown)):
            return None
        standing = self._rows.get(SECONDS, id_, replica)
        after = _plus(seconds_value(standing) if standing is not None else NO_TIME, (satisfied, violated, unknown))
        if max(after) > MAX_COUNT:
            raise CountTooLarge(f"a cumulative time, here that {count_of(id_)}, cannot exceed 2**63 - 1 ms")
        return make_seconds(id_, after)

    def fold(self, ids: Iterable[str], *, node: str | Replica) -> int:
        """Move the writer's own counts and times of these constraints into its node totals; returns how many were counted.

        For constraints removed long ago: totals and the readings of the node stay, only the split by constraint goes. The cells
        of counts are removed, those of times emptied. All of it is a single transaction, so no reader sees a count twice or not
        at all. Counts without room in the total stay as they are.
        """
        replica, chosen = writer(node), list(dict.fromkeys(ids))
        counted, counts = self._foldable(COUNTS, chosen, replica)
        timed, times = self._foldable(SECONDS, chosen, replica)
        written: list[Cell] = []
        if counted:
            removal = make_removal([(str(cell.key), dots_of([cell])) for cell in counted], COUNTS)
            written += [make_counts(NODE_KEY, counts[0], counts[1]), removal]
        if timed:
            written += [make_seconds(NODE_KEY, times), *(make_seconds(str(cell.key)) for cell in timed)]
        self._write(replica, written)
        return len(counted)

    def _foldable(self, kind: int, ids: Iterable[str], replica: Replica) -> tuple[list[Cell], list[int]]:
        """The writer's cells under these ids with room in the total, and the total with them."""
        read = counts_value if kind == COUNTS else seconds_value
        standing = self._rows.get(kind, NODE_KEY, replica)
        total: list[int] = list(read(standing)) if standing is not None else [0] * (2 if kind == COUNTS else 3)
        found = []
        for id_ in ids:
            cell = self._rows.get(kind, id_, replica) if id_ != NODE_KEY else None
            value = read(cell) if cell is not None else ()
            if cell is not None and (kind == COUNTS or any(value)):
                after = [before + more for before, more in zip(total, value, strict=True)]
                if max(after) <= MAX_COUNT:
                    total = after
                    found.append(cell)
        return found, total

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

    def _with_rows(self, rows: Rows) -> Self:
        return type(self)(rows, name=self._name)

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
            raise CountTooLarge("what one node adds to a counter, or takes from it, cannot exceed 2**63 - 1 in all")
        most = self._rows.limits.counters
        if self._name != NAMELESS and self._name not in counters and len(counters) >= most:
            raise ConstraintCrdtError(f"there are {most} counters, as many as this node is set to hold: use one of them")
        self._rows.write(replica, make_cell(COUNTER, self._name, list(after)))

    def __repr__(self) -> str:
        return f"PNCounter({f'{self._name!r}, ' if self._name else ''}{self.value})"


def _amount(amount: int) -> int:
    amount = whole_number(amount, "an amount")
    if amount < 1:
        raise InvalidValue(f"a counter moves by 1 or more, not by {amount}: `increment` goes up, `decrement` down")
    return amount


INCREMENTS: Final = 22
APPLIED: Final = 23

LEVEL_MAX: Final = 63
"""The highest level of a block: all seqs fit into a single block."""


class BlockValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The sum of the increments of 2**level seqs, from `first` on; `first` is a multiple of 2**level."""

    first: int
    level: int
    satisfied: int
    violated: int


def _check_applied(_: str, value: tuple[BlockValue, ...]) -> None:
    free = 0
    for block in value:
        require_counts((block.first, block.satisfied, block.violated), "a number of a stretch of increments")
        require(0 <= block.level <= LEVEL_MAX, "the level of a stretch of increments")
        size = 1 << block.level
        require(free <= block.first and block.first % size == 0, "the first seq of a stretch of increments")
        free = block.first + size


register(INCREMENTS, tuple[int, int], check_pair, removable=True)
register(APPLIED, tuple[BlockValue, ...], _check_applied, removable=True)


class Block(NamedTuple):
    """The numbers from `first` to `first + 2**level - 1`."""

    first: int
    level: int

    @property
    def end(self) -> int:
        """The seq after the last of the block."""
        return self.first + (1 << self.level)


def join_blocks(parts: Mapping[Block, Counts], top: int) -> dict[Block, Counts]:
    """The same increments in as few blocks as can be, none above level `top`. No part may lie inside of another."""
    found: dict[Block, Counts] = {}
    levels: dict[int, dict[Block, Counts]] = {}
    for block, value in parts.items():
        levels.setdefault(block.level, {})[block] = value
    for level in range(top + 1):
        at_level = levels.pop(level, {})
        for block, value in at_level.items():
            twin = Block(block.first ^ (1 << level), level)
            if level == top or twin not in at_level:
                found[block] = value
            elif block < twin:
                whole = Block(block.first, level + 1)
                levels.setdefault(level + 1, {})[whole] = sum_counts((value, at_level[twin]))
    return found


def sum_counts(values: Iterable[Counts]) -> Counts:
    """The sum, capped at the largest count; independent of the order."""
    total = ZERO
    for value in values:
        total = total.plus(*value)
    return Counts(min(total.satisfied, MAX_COUNT), min(total.violated, MAX_COUNT))


def _highest(values: Iterable[Counts]) -> Counts:
    found = ZERO
    for value in values:
        found = Counts(max(found.satisfied, value.satisfied), max(found.violated, value.violated))
    return found


class BlockSums:
    """The sum over blocks stated by several rows. A statement may be removed again.

    Where rows differ on the sum of a block (possible only with a broken sender), the higher counts are read.
    """

    def __init__(self) -> None:
        self._told: dict[Block, list[Counts]] = {}
        self._order: list[tuple[int, int]] = []
        """(first, -level) of each block: a block stands after all larger blocks around it, and before all blocks inside of it."""
        self._levels: dict[int, int] = {}
        """How many blocks there are of each level."""
        self._satisfied = self._violated = 0

    def __len__(self) -> int:
        """How many blocks are told of, those inside of others included."""
        return len(self._told)

    @property
    def total(self) -> Counts:
        """The sum over all stated seqs. O(1)."""
        return Counts(min(self._satisfied, MAX_COUNT), min(self._violated, MAX_COUNT))

    def covers(self, number: int) -> bool:
        """True if this number is told of, alone or with others. O(levels)."""
        return Block(number, 0) in self._told or self.is_covered(Block(number, 0))

    def is_covered(self, block: Block) -> bool:
        """True if a larger block with all its numbers is told of. O(levels)."""
        return any(level > block.level and Block(block.first >> level << level, level) in self._told for level in self._levels)

    def value(self, block: Block) -> Counts:
        """The stated counts of exactly this block; zero without a statement."""
        return _highest(self._told.get(block, ()))

    def add(self, block: Block, value: Counts) -> None:
        """Add the statement of a row. O(levels), and O(blocks inside) for a new block."""
        before = self.value(block)
        told = self._told.setdefault(block, [])
        told.append(value)
        if len(told) == 1:
            insort(self._order, (block.first, -block.level))
            self._levels[block.level] = self._levels.get(block.level, 0) + 1
        if not self.is_covered(block):
            if len(told) == 1:
                before = self._inside(block)
            self._move(before, _highest(told))

    def remove(self, block: Block, value: Counts) -> None:
        """Remove the statement of a row. O(levels), and O(blocks inside) for the last statement of a block."""
        before, told = self.value(block), self._told[block]
        told.remove(value)
        if told:
            after = _highest(told)
        else:
            self._forget(block)
            after = self._inside(block)
        if not self.is_covered(block):
            self._move(before, after)

    def _forget(self, block: Block) -> None:
        del self._told[block]
        del self._order[bisect_left(self._order, (block.first, -block.level))]
        self._levels[block.level] -= 1
        if not self._levels[block.level]:
            del self._levels[block.level]

    def _move(self, before: Counts, after: Counts) -> None:
        self._satisfied += after.satisfied - before.satisfied
        self._violated += after.violated - before.violated

    def _inside(self, block: Block) -> Counts:
        """The sum of the blocks inside of this block, not capped."""
        total = ZERO
        for part in self._largest_within(block):
            total = total.plus(*self.value(part))
        return total

    def _largest_within(self, block: Block) -> Iterator[Block]:
        start = bisect_left(self._order, (block.first, -block.level))
        free = block.first
        for first, depth in self._order[start : bisect_left(self._order, (block.end, -MAX_COUNT))]:
            part = Block(first, -depth)
            if first >= free and part != block:
                yield part
                free = part.end


FOLD_AT: Final = 64
"""The number of single increments of a foreign node in a room at which the next increment compacts them."""

PAGE_LEVELS: Final = 11
"""The number of levels in a page: levels 0 to 10 within 2048 seqs, levels 11 to 21 within 2**22, … At most 1024 of the blocks do
not join, and always fit into a cell."""

_Page = tuple[int, int]
"""(tier, number): the blocks of levels 11 * tier to 11 * tier + 10 with seq // 2**(11 * (tier + 1)) == number."""


class _ForeignNode:
    """The counts of a foreign node in a room."""

    __slots__ = ("blocks", "single")

    def __init__(self) -> None:
        self.blocks = BlockSums()
        self.single: dict[int, int] = {}
        """By seq: in how many rows the increment stands as a cell of its own."""


class RoomIncrements(IndexedView):
    """Counts of foreign nodes by room. A reading is O(1) for a node, O(nodes) for a room."""

    KINDS = (INCREMENTS, APPLIED)

    def _clear(self) -> None:
        self._rooms: dict[str, dict[str, _ForeignNode]] = {}

    def _changed(self, old: Cell | None, new: Cell | None) -> None:
        if new is not None:
            self._note(new, stands=True)
        if old is not None:  # second, so nothing is missing between the old page and the new
            self._note(old, stands=False)

    def _note(self, cell: Cell, *, stands: bool) -> None:
        named = _named(cell)
        if named is None:
            return
        room, node, seq = named
        source = self._rooms.setdefault(room, {}).setdefault(node, _ForeignNode())
        note = source.blocks.add if stands else source.blocks.remove
        for block, value in _told(cell, seq):
            note(block, value)
        if cell.kind == INCREMENTS:
            source.single[seq] = source.single.get(seq, 0) + (1 if stands else -1)
            if not source.single[seq]:
                del source.single[seq]
        if not len(source.blocks):
            del self._rooms[room][node]
            if not self._rooms[room]:
                del self._rooms[room]

    @property
    def rooms(self) -> list[str]:
        """The rooms in which a foreign node counted, sorted. O(rooms)."""
        return sorted(self._rooms)

    def by_node(self, room: str) -> dict[str, Counts]:
        """The counts of each foreign node in a room, ordered by name; nodes with zero counts included."""
        return {node: source.blocks.total for node, source in sorted(self._rooms.get(room, {}).items())}

    def total(self, room: str) -> Counts:
        """The counts of all foreign nodes in a room."""
        return sum_counts(self.by_node(room).values())

    def knows(self, room: str, foreign: str, seq: int) -> bool:
        """True if this increment is known here."""
        source = self._rooms.get(room, {}).get(foreign)
        return source is not None and source.blocks.covers(seq)

    def apply(self, room: str, foreign: str, seq: int, satisfied: int = 0, violated: int = 0, *, node: str | Replica) -> bool:
        """Take in the increment of `foreign` with this seq. False, and no effect, for a known increment.

        Raises `TypeError` for a number that is not whole, `ValueError` for a negative number, and `ConstraintCrdtError` for names
        or numbers out of bounds and for a foreign node beyond `Limits.foreign_nodes`.
        """
        replica = writer(node)
        cell = self.increment_cell(room, foreign, seq, satisfied, violated)
        if cell is None:
            return False
        self.fold(room, foreign, node=replica)
        self._rows.write(replica, cell)
        return True

    def increment_cell(self, room: str, foreign: str, seq: int, satisfied: int = 0, violated: int = 0) -> Cell | None:
        """The cell of an increment, for a transaction with others; None for a known increment. Raises as `apply` does."""
        seq = whole_number(seq, "the seq of an increment")
        satisfied, violated = (whole_number(number, "an increment") for number in (satisfied, violated))
        if min(seq, satisfied, violated) < 0:
            raise InvalidValue("an increment and its seq cannot be negative")
        if max(seq, satisfied, violated) > MAX_COUNT:
            raise ConstraintCrdtError("an increment and its seq cannot exceed 2**63 - 1")
        key = make_key(check_id(room, "a room"), check_id(foreign, "the name of a node"), str(seq))
        if self.knows(room, foreign, seq):
            return None
        if foreign not in self._rooms.get(room, {}):
            self._check_room_for_one_more()
        return make_cell(INCREMENTS, key, [satisfied, violated])

    def fold(self, room: str, foreign: str, *, node: str | Replica) -> None:
        """Compact the increments of a foreign node, if there are enough single ones. No reading changes.

        Raises `ConstraintCrdtError` beyond a limit; nothing changes then.
        """
        source = self._rooms.get(room, {}).get(foreign)
        if source is not None and len(source.single) >= FOLD_AT:
            self._fold(room, foreign, writer(node))

    def _check_room_for_one_more(self) -> None:
        most = self._rows.limits.foreign_nodes
        if sum(map(len, self._rooms.values())) >= most:
            raise ConstraintCrdtError(f"more than the {most} foreign nodes, over all rooms, that this node is set to count for")

    def _fold(self, room: str, foreign: str, replica: Replica) -> None:
        """Compact the single increments, with the pages of their seqs."""
        source = self._rooms[room][foreign]
        single = [cell for seq in source.single for cell in self._rows.held(INCREMENTS, make_key(room, foreign, str(seq)))]
        joining = {Block(seq, 0): source.blocks.value(Block(seq, 0)) for seq in source.single}
        written: list[Cell] = []
        replaced: list[Cell] = single
        while joining:
            risen: dict[Block, Counts] = {}
            for page, parts in _by_page(joining).items():
                key = make_key(room, foreign, f"{page[0]}.{page[1]}")
                pages = self._rows.held(APPLIED, key)
                blocks = join_blocks(self._with_standing_blocks(source, page, pages, parts), PAGE_LEVELS * (page[0] + 1))
                own = next((cell for cell in pages if cell.replica == replica), None)
                full = {block: value for block, value in blocks.items() if _page_of(block) != page}
                risen |= full
                if blocks and not full:
                    written.append(_page_cell(key, blocks))
                    own = None  # superseded by the new page
                replaced += [cell for cell in pages if cell is own or (cell.replica != replica and _is_within(cell, page))]
            joining = risen
        self._rows.write_all(replica, [*written, *removals_of(replaced)])

    def _with_standing_blocks(
        self, source: _ForeignNode, page: _Page, pages: Iterable[Cell], parts: dict[Block, Counts]
    ) -> dict[Block, Counts]:
        """`parts` and the blocks of this page in any row, without those inside of a larger block."""
        standing = {block for cell in pages for block, _ in _told(cell, 0) if _page_of(block) == page}
        known = {block: source.blocks.value(block) for block in standing} | parts
        return {block: value for block, value in known.items() if not source.blocks.is_covered(block)}

    def __repr__(self) -> str:
        return f"RoomIncrements({len(self._rooms)} rooms)"


def _named(cell: Cell) -> tuple[str, str, int] | None:
    """The room, the foreign node and, of an increment, the seq. None for a malformed key, written by no honest node."""
    parts = split_key(cell.key, 3)
    if len(parts) < 3 or not parts[0] or not parts[1]:
        return None
    if cell.kind == APPLIED:
        return parts[0], parts[1], 0
    digits = parts[2]
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 19) or str(int(digits)) != digits or int(digits) > MAX_COUNT:
        return None
    return parts[0], parts[1], int(digits)


def _told(cell: Cell, seq: int) -> list[tuple[Block, Counts]]:
    """The blocks stated by a cell; `seq`: of an increment."""
    value = value_of(cell)
    if cell.kind == INCREMENTS:
        return [(Block(seq, 0), Counts(*value))]
    return [(Block(each.first, each.level), Counts(each.satisfied, each.violated)) for each in value]


def _page_of(block: Block) -> _Page:
    tier = block.level // PAGE_LEVELS
    return tier, block.first >> PAGE_LEVELS * (tier + 1)


def _by_page(parts: dict[Block, Counts]) -> dict[_Page, dict[Block, Counts]]:
    found: dict[_Page, dict[Block, Counts]] = {}
    for block, value in parts.items():
        found.setdefault(_page_of(block), {})[block] = value
    return found


def _is_within(cell: Cell, page: _Page) -> bool:
    """True if all blocks of a page cell belong to the page, as in every honest cell: then the new page replaces all of it."""
    return all(_page_of(block) == page for block, _ in _told(cell, 0))


def _page_cell(key: str, blocks: dict[Block, Counts]) -> Cell:
    value = [[*block, *counts] for block, counts in sorted(blocks.items())]
    return read_cell(make_cell(APPLIED, key, value).data)
