"""The invariants of every history, checked against a global log of all mutations and models of the summaries
(docs/design/invariants.md).

The log knows nothing of runs, floors, digests or messages: it has the mutations of each replica, and for each mutation the cells
that it ends (an earlier cell under its key in its row, and the cells a removal names). From the log follows the content of any
clock:

- **state**: a cell stands, byte for byte, exactly if it lies within the clock and no mutation within the clock ends it;
- **hash**: equal clocks have equal hashes, and equal hashes equal clocks;
- **readings**: at equal clocks, positions, tiles, counters, sketches, Bloom filters, increments, verdicts and variables read the
  same;
- **counts**: each reading is the sum of the counts within the clock, so none decreases and none is counted twice; each (client,
  seq) of the increments counts once, whichever node accepted it; times likewise;
- **statements**: a verdict, and the variables of a node, read as last stated by the life that took over from all others; a shared
  reading is the last reading that its node wrote, as far as it is within the clock;
- **estimates**: the total of a sketch is the number of items recorded within the clock, and no estimate is lower than the count of
  its item; a name with several dimensions stands for those of most rows;
- **members**: a Bloom filter finds all items inserted within the clock, and has no other bits set;
- **decay**: rates and decaying counters read the remaining values of all rows by the node's own clock, at each half-life;
- **dot**: no (replica, seq) is used for two mutations;
- **clock**: no clock decreases while its node lives, exceeds the written mutations, or lies below a floor;
- **time**: the hybrid time of a node is that of its own clock or of the fastest clock heard recently, within the bound on skew; of
  a node in doubt, the median of the clocks heard if enough agree, else the earliest. Steps of its clock change nothing in this;
- **evidence**: a peer had the clock and hash a node has evidence of;
- **write**: a mutation has the requested effect, and names all observed cells;
- **refusal**: a refused message or write changes nothing, and well-formed ones are not refused;
- **durable**: acknowledged writes are there after a restart with the disk, and on all nodes in the end;
- **exchange**, **liveness**: an undisturbed exchange leaves both sides equal; after the last fault all nodes become equal in time;
- **budgets**: at each instant of true time the processes of all nodes hold at most the limit of a budget that its participants
  have come to go by; without a lease, at most its highest limit;
- **error**: no call raises an exception its documentation does not name.

A model gives the expected readings of sketches, Bloom filters, decaying values, increments, times, verdicts, variables and shared
readings at a node. Rules:

- A model is fed from the log with the requests to the writers, never with the content of cells. It knows nothing of pages,
  stretches or merging.
- Exact readings are compared exactly (floats up to their last digits), approximate ones with the bounds they promise.
- Of several lives of a node, the last statement of a life counts if no other life made a statement with knowledge of that life.
  Lives without knowledge of each other may both count; nodes at equal clocks agree on the same statement.
- Times are those of the node's own clock: a decaying value ages from its timestamp, or from its arrival if that was earlier.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isclose
from typing import NamedTuple, TypeAlias

from constraint_crdt.crdt.cells import REMOVE, Cell, removed_dots
from constraint_crdt.crdt.clock import MEASUREMENTS, SECOND, TRAVEL, Dot, Replica, StateHash
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.model import VerdictState
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.protocol.loans import GRANTED_BEFORE
from constraint_crdt.types.budgets import NO_HOLDS, Known, mark_of
from constraint_crdt.types.counters import COUNTER, NODE_KEY, SECONDS
from constraint_crdt.types.decay import DECAY, RATE
from constraint_crdt.types.definition import ADD, definition_value
from constraint_crdt.types.nodes import RETIRE, UNDO
from constraint_crdt.types.sketch import BLOOM, BLOOM_PAGE, SKETCH, SKETCH_PAGE
from constraint_crdt.types.tile_cells import (
    CONTENT,
    CONTENT_PAGE,
    DELETED,
    ELEMENT,
    POSITION,
    TILE,
    TILE_COUNTS,
    TILE_POSITION,
    TOMBSTONES,
)
from constraint_crdt.types.variables import READING, VARIABLES
from constraint_crdt.types.verdicts import VERDICT, VIOLATED_STATES
from constraint_crdt.types.view import positions

ROOM = "depot"
"""The room of all tiles and clients of a history."""

TABLES = (SKETCH, SKETCH_PAGE, BLOOM, BLOOM_PAGE)
TILES = (TILE, CONTENT, CONTENT_PAGE, ELEMENT, TOMBSTONES, TILE_COUNTS, TILE_POSITION, DELETED)
STATEMENTS = (VERDICT, VARIABLES, SECONDS, ADD, RETIRE, UNDO, READING)
"""Kinds of cells with an effect on the readings of verdicts, variables, times and shared readings."""

OTHERS = (POSITION, COUNTER)
"""Kinds of cells whose views are read only after a change, because reading is slow."""

SELDOM = 8
"""Checks of decaying values per check carried out without a changed cell."""

TOP = 8
"""Frequent items asked for: more than a history has items."""

Shape: TypeAlias = tuple[int, ...]
Values: TypeAlias = dict[float, tuple[float, ...]]
"""The remaining values by half-life."""

Finding: TypeAlias = tuple[str, str]
"""The name of a violated invariant, and a sentence."""


class ItemCount(NamedTuple):
    """An item was counted in a sketch."""

    name: str
    shape: Shape
    item: str
    times: int


class ItemInsertion(NamedTuple):
    """An item was inserted into a Bloom filter."""

    name: str
    shape: Shape
    item: str


class DecayedValues(NamedTuple):
    """The values the writer's row has under a key, as of a time."""

    kind: int
    key: str
    time: int
    values: Values
    """Empty if the cell was removed."""


class ClientIncrement(NamedTuple):
    """The increment of a client was accepted."""

    client: str
    seq: int
    counts: tuple[int, int]


class TimeSpent(NamedTuple):
    """Time was added to a constraint in a row: (satisfied, violated, unknown) in ms."""

    id: str
    times: tuple[int, int, int]


class TimeFolded(NamedTuple):
    """The times of constraints in a row were moved to those of no constraint."""

    ids: tuple[str, ...]


class Statement(NamedTuple):
    """A node stated its verdict on a constraint, or its variables."""

    kind: int
    key: str
    value: object
    """(state, since) of a verdict, None for nothing to tell; the kinds of variables by name."""
    over: frozenset[Replica]
    """The lives of the node known to have made such a statement."""


class SharedValue(NamedTuple):
    """A node shared the value of a variable."""

    name: str
    value: object
    """None if withdrawn."""
    time: int
    """In tenths of a second: see `Readings.next_time`."""


Contribution: TypeAlias = (
    ItemCount | ItemInsertion | DecayedValues | ClientIncrement | TimeSpent | TimeFolded | Statement | SharedValue
)


class ItemTables:
    """Counts of items by name and shape of their table, and the shape each row has under a name."""

    def __init__(self) -> None:
        self._shapes: dict[str, dict[Replica, Shape]] = {}
        self._items: dict[tuple[str, Shape], Counter[str]] = {}

    def take(self, replica: Replica, name: str, shape: Shape, item: str, count: int) -> None:
        """Count an item in a row."""
        self._shapes.setdefault(name, {})[replica] = shape
        self._items.setdefault((name, shape), Counter())[item] += count

    @property
    def names(self) -> list[str]:
        """The names of all tables, sorted."""
        return sorted(self._shapes)

    def meant(self, name: str) -> Shape | None:
        """The shape a name stands for: that of most rows, the smaller of equally frequent shapes. None without rows."""
        shapes = Counter(self._shapes.get(name, {}).values())
        return min(shapes, key=lambda shape: (-shapes[shape], shape)) if shapes else None

    def shape(self, name: str, replica: Replica) -> Shape | None:
        """The shape of a row under a name."""
        return self._shapes.get(name, {}).get(replica)

    def items(self, name: str) -> Counter[str]:
        """The counts of items in the table a name stands for."""
        shape = self.meant(name)
        return self._items[name, shape] if shape is not None else Counter()


class Decays:
    """The remaining values in each row under each key."""

    def __init__(self) -> None:
        self._cells: dict[tuple[int, str, Replica], tuple[int, Values]] = {}
        self._moved: set[tuple[int, str]] = set()
        """Keys changed since the last check."""
        self._waited = 0
        """Skipped checks since the last check."""

    def take(self, replica: Replica, left: DecayedValues, own: int) -> None:
        """A cell was written or removed; `own`: the time by the node's own clock."""
        self._moved.add((left.kind, left.key))
        slot = (left.kind, left.key, replica)
        if left.values:
            self._cells[slot] = (min(left.time, own), left.values)
        else:
            self._cells.pop(slot, None)

    def clock_set(self, own: int, by: int) -> None:
        """The node's own clock was set by `by` ns, to `own`: a measurement in the future then keeps the age that it had."""
        for slot, (since, values) in self._cells.items():
            if by < 0 and since > own:
                self._cells[slot] = own - max(0, own - by - since), values

    def left(self, kind: int, key: str, replica: Replica, own: int) -> Values:
        """The remaining values of a cell now; empty if there is no cell."""
        since, values = self._cells.get((kind, key, replica), (own, {}))
        return {half_life: _decayed(value, own - since, half_life) for half_life, value in values.items()}

    def wrong(self, node: GossipNode) -> str | None:
        """A wrong reading of a node, or None. Without changes only some checks run, to see that values go on decaying."""
        self._waited += 1
        if not self._moved and self._waited < SELDOM:
            return None
        keys = sorted(self._moved or {slot[:2] for slot in self._cells})
        self._moved, self._waited = set(), 0
        rates, own = node.state.rates, node.time.own()
        looks: list[tuple[str | None, float]] = [(None, half_life) for half_life in rates.half_lives]
        looks += [(key, rates.half_lives[0]) for kind, key in keys if kind == RATE]
        for key, half_life in looks:
            found, due = rates.rates(half_life, key)[:2], self._sum(RATE, key, half_life, own)
            if not _close(found, due):
                return f"rates {found} of {key!r} at {half_life:g} s, where {due} are left"
        for name in [key for kind, key in keys if kind == DECAY]:
            for half_life in sorted(
                {each for slot, (_, values) in self._cells.items() if slot[:2] == (DECAY, name) for each in values}
            ):
                value, (left, _) = node.state.decay(name, half_life).value(), self._sum(DECAY, name, half_life, own)
                if not _close((value,), (left,)):
                    return f"{value} in the counter {name!r} at {half_life:g} s, where {left} is left"
        return None

    def _sum(self, kind: int, key: str | None, half_life: float, own: int) -> tuple[float, float]:
        first = second = 0.0
        for (kind_, key_, _), (since, values) in self._cells.items():
            if kind_ == kind and (key is None or key_ == key) and half_life in values:
                parts = _decayed(values[half_life], own - since, half_life)
                first, second = first + parts[0], second + parts[-1]
        return first, second


def _decayed(value: Sequence[float], age: int, half_life: float) -> tuple[float, ...]:
    part: float = 0.5 ** (age / SECOND / half_life)
    return tuple([each * part for each in value])


def _close(found: Sequence[float], due: Sequence[float]) -> bool:
    return all(isclose(one, other, rel_tol=1e-9, abs_tol=1e-12) for one, other in zip(found, due, strict=True))


class Times:
    """The times of each row under each constraint, in ms."""

    def __init__(self) -> None:
        self._times: dict[tuple[Replica, str], tuple[int, int, int]] = {}

    def spend(self, replica: Replica, id_: str, times: tuple[int, int, int]) -> None:
        """Add to the time of a row."""
        before = self._times.get((replica, id_), (0, 0, 0))
        self._times[replica, id_] = (before[0] + times[0], before[1] + times[1], before[2] + times[2])

    def fold(self, replica: Replica, ids: Sequence[str]) -> None:
        """Move the times of a row to those of no constraint."""
        for id_ in ids:
            self.spend(replica, NODE_KEY, self._times.pop((replica, id_), (0, 0, 0)))

    def wrong(self, node: GossipNode) -> str | None:
        """A wrong reading of a node, or None."""
        metrics = node.state.metrics
        for id_ in {id_ for _, id_ in self._times if id_ != NODE_KEY}:
            due = self._sum([times for (_, key), times in self._times.items() if key == id_])
            if metrics.time(id_) != due:
                return f"{metrics.time(id_)} of {id_}, where it was {due}"
        for name in {replica.node_id for replica, _ in self._times}:
            due = self._sum([times for (replica, _), times in self._times.items() if replica.node_id == name])
            if metrics.node_time(name) != due:
                return f"{metrics.node_time(name)} of all constraints of {name}, where it was {due}"
        return None

    @staticmethod
    def _sum(times: Sequence[tuple[int, int, int]]) -> tuple[float, ...]:
        return tuple(sum(each[part] for each in times) / 1000 for part in range(3))


class Statements:
    """The last statement of each life, by kind and key."""

    def __init__(self) -> None:
        self._told: dict[tuple[int, str, str], dict[Replica, tuple[object, frozenset[Replica]]]] = {}
        """By kind, key and node: the value, and the lives it takes the place of."""

    def take(self, replica: Replica, statement: Statement) -> None:
        """A life made a statement."""
        lives = self._told.setdefault((statement.kind, statement.key, replica.node_id), {})
        before = lives[replica][1] if replica in lives else frozenset[Replica]()
        lives[replica] = (statement.value, before | statement.over)

    def lives(self, kind: int, key: str, node_id: str) -> frozenset[Replica]:
        """The lives of a node with such a statement."""
        return frozenset(self._told.get((kind, key, node_id), ()))

    def wrong(self, node: GossipNode) -> str | None:
        """A wrong reading of a node, or None."""
        state = node.state
        for (kind, key, name), lives in self._told.items():
            over = frozenset[Replica]().union(*(each for _, each in lives.values()))
            due = [value for replica, (value, _) in lives.items() if replica not in over] or [value for value, _ in lives.values()]
            if name in state.retirements or (kind == VERDICT and key not in state.rows.table(ADD)):
                due = [None if kind == VERDICT else {}]
            verdict = state.verdicts.of(key).get(name)
            found = dict(state.variables.of(name)) if kind == VARIABLES else verdict and verdict[:2]
            if found not in due:
                return f"{found} from {name} about {key!r}, where {due} was stated"
        every = [(id_, each.state) for id_ in state.verdicts for each in state.verdicts.of(id_).values()]
        if set(state.verdicts.violated) != {id_ for id_, each in every if each in VIOLATED_STATES}:
            return f"{sorted(state.verdicts.violated)} as violated, where the verdicts are {every}"
        if set(state.verdicts.unknown) != {id_ for id_, each in every if each is VerdictState.UNKNOWN}:
            return f"{sorted(state.verdicts.unknown)} as unknown, where the verdicts are {every}"
        return None


class Readings:
    """The last reading of each life, by node and variable. The latest time counts, then the order of the lives."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, str], dict[Replica, tuple[int, object]]] = {}

    def take(self, replica: Replica, shared: SharedValue) -> None:
        """A life shared a value, in place of its last value."""
        self._told.setdefault((replica.node_id, shared.name), {})[replica] = shared.time, shared.value

    def last(self, node_id: str, name: str) -> tuple[int, Replica, object] | None:
        """The reading that counts: its time, its life and its value."""
        lives = self._told.get((node_id, name), {})
        return max(((time, replica, value) for replica, (time, value) in lives.items()), key=lambda each: each[:2], default=None)

    def next_time(self, replica: Replica, name: str, now: int | None) -> int:
        """The time of the next reading of a life: `now`, but not before its last reading, and after those of former lives.

        None for `now`: the reading is withdrawn.
        """
        last = self.last(replica.node_id, name)
        earliest = None if last is None else last[0] + (last[1] != replica)
        return max(each for each in (earliest, now) if each is not None)

    def wrong(self, node: GossipNode) -> str | None:
        """A wrong reading of a node, or None."""
        for name, variable in self._told:
            last = self.last(name, variable)
            found = node.state.readings.of(name).get(variable)
            due = None if last is None or name in node.state.retirements else last[2]
            if (found and found.value) != due:
                return f"{found} as {variable} of {name}, where the last was {due!r}"
        return None


class Model:
    """The models of all summaries at a node."""

    def __init__(self) -> None:
        self.sketches = ItemTables()
        self.filters = ItemTables()
        self.decays = Decays()
        self.times = Times()
        self.statements = Statements()
        self.readings = Readings()
        self._taken: dict[str, set[int]] = {}
        self._counted: dict[str, tuple[int, int]] = {}
        self._tables: object = None
        self._others: object = None
        self._tiles: object = None
        self._statements: object = None
        self._looked_at: dict[tuple[int, ...], list[int]] = {}

    def take(self, replica: Replica, contribution: Contribution, own: int) -> None:
        """The node learned of a contribution to a summary."""
        match contribution:
            case ItemCount():
                self.sketches.take(replica, contribution.name, contribution.shape, contribution.item, contribution.times)
            case ItemInsertion():
                self.filters.take(replica, contribution.name, contribution.shape, contribution.item, 1)
            case DecayedValues():
                self.decays.take(replica, contribution, own)
            case TimeSpent():
                self.times.spend(replica, contribution.id, contribution.times)
            case TimeFolded():
                self.times.fold(replica, contribution.ids)
            case Statement():
                self.statements.take(replica, contribution)
            case SharedValue():
                self.readings.take(replica, contribution)
            case ClientIncrement():
                if not self.knows(contribution.client, contribution.seq):
                    self._taken.setdefault(contribution.client, set()).add(contribution.seq)
                    before = self._counted.get(contribution.client, (0, 0))
                    self._counted[contribution.client] = (before[0] + contribution.counts[0], before[1] + contribution.counts[1])

    def knows(self, client: str, seq: int) -> bool:
        """True if this increment lies within the clock, whichever node accepted it."""
        return seq in self._taken.get(client, ())

    def wrong(self, node: GossipNode) -> Finding | None:
        """The violated invariant at the node, or None."""
        counted = node.state.increments.by_node(ROOM)
        if counted != self._counted:
            return "counts", f"reads the increments as {counted}, where {self._counted} were sent"
        if self._moved(node, TABLES):
            for invariant, sentence in (("estimates", self._wrong_sketch(node)), ("members", self._wrong_filter(node))):
                if sentence:
                    return invariant, sentence
            self._tables = _tables(node)
        if self._moved(node, STATEMENTS):
            for invariant, sentence in (
                ("counts", self.times.wrong(node)),
                ("statements", self.statements.wrong(node)),
                ("statements", self.readings.wrong(node)),
            ):
                if sentence:
                    return invariant, f"reads {sentence}"
            self._statements = _statements(node)
        sentence = self.decays.wrong(node)
        return ("decay", f"reads {sentence}") if sentence else None

    def reading(self, node: GossipNode) -> object:
        """The readings which nodes at equal clocks share, beside those `wrong` checks exactly. Call it after `wrong`.

        Decayed values are not among them: they depend on each node's clock.
        """
        if self._moved(node, OTHERS):
            state = node.state
            self._others = state.position, [(name, state.counters.moves(name)) for name in sorted(state.counters)]
        if self._moved(node, TILES):
            self._tiles = _tiles(node)
        return self._others, self._tiles, self._tables, self._statements, (*node.state.retirements.nodes,)

    def _moved(self, node: GossipNode, kinds: tuple[int, ...]) -> bool:
        """True if cells of these kinds changed since the last call."""
        kind_sum = node.state.rows.kind_sum
        before, now = self._looked_at.get(kinds), [kind_sum(kind) for kind in kinds]
        self._looked_at[kinds] = now
        return now != before

    def _wrong_sketch(self, node: GossipNode) -> str | None:
        sketches = node.state.sketches
        if sorted(sketches) != self.sketches.names:
            return f"has the sketches {sorted(sketches)}, where {self.sketches.names} were begun"
        for name in sketches:
            sketch, items = sketches[name], self.sketches.items(name)
            if sketch.shape != self.sketches.meant(name):
                return f"takes the sketch {name!r} for one of {sketch.shape}, where {self.sketches.meant(name)} is meant"
            if sketch.total != items.total():
                return f"reads {sketch.total} in all in the sketch {name!r}, where {items.total()} were recorded"
            for item, count in items.items():
                if not count <= (estimate := sketch.estimate(item)) <= items.total():
                    return f"estimates {estimate} of {item!r} in the sketch {name!r}, where {count} were recorded"
            if lacking := items.keys() - {each.item for each in sketch.top(TOP)}:
                return f"does not name {sorted(lacking)} among the few items of the sketch {name!r}"
        return None

    def _wrong_filter(self, node: GossipNode) -> str | None:
        blooms = node.state.blooms
        if sorted(blooms) != self.filters.names:
            return f"has the filters {sorted(blooms)}, where {self.filters.names} were begun"
        for name in blooms:
            bloom, items = blooms[name], self.filters.items(name)
            if bloom.shape != self.filters.meant(name):
                return f"takes the filter {name!r} for one of {bloom.shape}, where {self.filters.meant(name)} is meant"
            for item in items:
                if item not in bloom:
                    return f"does not find {item!r} in the filter {name!r}, into which it was put"
            bits, hashes, _ = bloom.shape
            places = {place for item in items for place in positions(item, hashes, bits)}
            if round(bloom.filled * bits) != len(places):
                return f"has {round(bloom.filled * bits)} bits set in the filter {name!r}, where its items set {len(places)}"
        return None


def _tiles(node: GossipNode) -> tuple[object, ...]:
    tiles = node.state.tiles
    return [(tile.room, tile.id, tile.text, sorted(tile.tags)) for tile in map(tiles.__getitem__, sorted(tiles))], tiles.deleted()


def _statements(node: GossipNode) -> tuple[object, ...]:
    verdicts, variables, metrics, readings = node.state.verdicts, node.state.variables, node.state.metrics, node.state.readings
    return (
        [(id_, verdicts.of(id_), verdicts.violated_on(id_), metrics.time_on(id_)) for id_ in verdicts],
        [(name, variables.nodes(name)) for name in variables],
        dict(variables.kinds()),
        [(name, each, readings.of(each)[name]) for name in readings for each in readings.nodes(name)],
    )


def _tables(node: GossipNode) -> tuple[object, ...]:
    sketches, blooms = node.state.sketches, node.state.blooms
    return (
        [(name, sketches[name].top(TOP), sketches[name].saturated, sketches[name].writers) for name in sketches],
        [(name, blooms[name].inserted, blooms[name].filled, blooms[name].writers) for name in blooms],
    )


CountsById = Mapping[str, tuple[int, int]]
"""Evaluations by constraint, "" for none in particular: the amount by which a mutation moves the counts."""
ClockKey = frozenset[tuple[Replica, int]]


BEYOND = 2**62
"""Nanoseconds beyond any bound on skew."""


class Violation(ConstraintCrdtError):
    """An invariant does not hold. `invariant` is its name."""

    def __init__(self, invariant: str, sentence: str) -> None:
        """`invariant`: its name. `sentence`: the finding."""
        super().__init__(f"{invariant}: {sentence}")
        self.invariant = invariant


@dataclass(slots=True)
class Mutation:
    """An entry of the log."""

    kind: int
    key: object
    data: bytes
    ends: tuple[tuple[Replica, int], ...]
    counted: CountsById
    contributions: tuple[Contribution, ...]
    expires_at: int | None


@dataclass(slots=True)
class ExpectedState:
    """The expected cells and readings at a node, for its last checked clock."""

    clock: dict[Replica, int] = field(default_factory=dict)
    live: dict[tuple[Replica, int], bytes] = field(default_factory=dict)
    adds: dict[tuple[Replica, int], Mutation] = field(default_factory=dict)
    """The adds among the entries of `live`."""
    counts: dict[str, tuple[int, int]] = field(default_factory=dict)
    by_node: dict[str, tuple[int, int]] = field(default_factory=dict)
    heard: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """Per peer: the offset of its clock each time it was heard recently, and the node's own time then."""
    model: Model = field(default_factory=Model)


def _plus(counts: dict[str, tuple[int, int]], key: str, moved: tuple[int, int]) -> None:
    before = counts.get(key, (0, 0))
    counts[key] = (before[0] + moved[0], before[1] + moved[1])


@dataclass(slots=True)
class HeldBudget:
    """A budget in true time, over all nodes."""

    holders: dict[tuple[str, int], dict[int, tuple[int, int]]] = field(default_factory=dict)
    """By node and life: the amount of each hold, and the end by the clock of the machine. They outlive their node."""
    goes_by: dict[str, bytes] = field(default_factory=dict)
    """By node the definitions of its last ledger."""
    limit: int | None = None
    highest: int = 0


class BudgetJudge:
    """Counts holders against limits. Clocks of machines go on while their nodes are down."""

    def __init__(self) -> None:
        self._budgets: dict[str, HeldBudget] = {}
        self._offsets: dict[str, int] = {}
        self.judged = 0
        """Instants with a holder at which the limit was checked."""
        self.most_holders = 0

    def note(self, node: GossipNode, name: str, own: int, at: int) -> None:
        """A step of a node, at `own` by its clock and `at` in true time. Raises `Violation`."""
        self._offsets[node.node_id] = own - at
        budgets, me = node.state.budgets, node.replica
        if name not in budgets.names():
            return
        known, budget = budgets.known(name), self._budgets.setdefault(name, HeldBudget())
        budget.highest = max([budget.highest, *(head.value.limit for head in known.heads)])
        holds = known.holds.get(me, NO_HOLDS).holds  # all on disk once granted, so no process stands behind GRANTED_BEFORE
        real = {each.id: (each.amount, each.until) for each in holds if each.holder != GRANTED_BEFORE}
        budget.holders[me.node_id, me.incarnation] = real
        if me in known.ledgers:
            budget.goes_by[me.node_id] = known.ledgers[me].mark
        self._agree(known, budget, own, node.time.max_skew)
        self._judge(name, budget, at)

    @staticmethod
    def _agree(known: Known, budget: HeldBudget, own: int, skew: int) -> None:
        """Take a limit as reached once all participants go by it, and the holds of retired participants are over."""
        mark, root = mark_of(known.heads), len(known.heads) == 1 and not known.heads[0].value.overwrites
        gone = max((head.value.made for head in known.heads if head.value.without), default=0)
        if (root and budget.limit is None) or (
            own >= gone + known.lease + 2 * skew and all(budget.goes_by.get(node) == mark for node in known.nodes())
        ):
            budget.limit = known.limit

    def _judge(self, name: str, budget: HeldBudget, at: int) -> None:
        held = 0
        for (node, _), holds in budget.holders.items():
            clock = at + self._offsets.get(node, 0)
            for id_ in [id_ for id_, (_, until) in holds.items() if until and clock >= until]:
                del holds[id_]  # its process knows that it is over, also if the clock is set back
            held += sum(amount for amount, _ in holds.values())
        leased = any(until for holds in budget.holders.values() for _, until in holds.values())
        limit = budget.limit if leased and budget.limit is not None else budget.highest
        self.judged += held > 0
        self.most_holders = max(self.most_holders, held)
        if held > limit:
            raise Violation("budgets", f"{held} of {name} are held, and the limit is {limit}")


class Invariants:
    """The log, and the checks against it."""

    def __init__(self) -> None:
        self._log: dict[Replica, list[Mutation]] = {}
        self._last: dict[tuple[Replica, int, object], list[int]] = {}
        self._enders: dict[tuple[Replica, int], list[tuple[Replica, int]]] = {}
        self._views: dict[str, ExpectedState] = {}
        self._hash_at: dict[ClockKey, StateHash] = {}
        self._read_at: dict[ClockKey, object] = {}
        self._clock_of: dict[StateHash, ClockKey] = {}
        self._been: dict[Replica, tuple[set[ClockKey], set[StateHash], dict[Replica, int]]] = {}
        self._ended_lives = False
        """Some life was ended: since then clocks may leave out entries."""
        self.budgets = BudgetJudge()
        self.checks = 0
        """States compared with the log."""

    # --- the log -----------------------------------------------------------------------------------------------------

    def length(self, replica: Replica) -> int:
        """The number of mutations of a replica in the log."""
        return len(self._log.get(replica, ()))

    def standing(self, name: str, kind: int, key: str) -> list[Dot]:
        """The expected dots at a node under a key, as of its last check."""
        log = self._log
        return [
            Dot(replica, seq)
            for replica, seq in self._views[name].live
            if log[replica][seq - 1].kind == kind and log[replica][seq - 1].key == key
        ]

    def expired_by(self, node: GossipNode, time: int) -> list[tuple[object, Dot]]:
        """The expected adds at a node which had expired at `time`, each with its constraint."""
        log = self._log
        standing = [(log[replica][seq - 1], Dot(replica, seq)) for replica, seq in self._views[node.node_id].live]
        return [(each.key, dot) for each, dot in standing if each.expires_at is not None and each.expires_at <= time]

    def active(self, node: GossipNode) -> set[object]:
        """The constraints to be active at a node by its hybrid time, as of its last check."""
        now, adds = node.time.now(), self._views[node.node_id].adds
        return {each.key for each in adds.values() if each.expires_at is None or each.expires_at > now}

    def model(self, name: str) -> Model:
        """The model of the summaries at a node, as of its last check."""
        return self._views[name].model

    def wrote(self, node: GossipNode, lo: int, counted: CountsById, contributions: tuple[Contribution, ...] = ()) -> list[Cell]:
        """Log the mutations of a node above `lo` in its row; returns the cells. `counted`: the amounts by which they moved its
        counts; `contributions`: to summaries.
        """
        replica, rows = node.replica, node.state.rows
        row = self._log.setdefault(replica, [])
        if rows.seq(replica) == lo:
            return []
        cells = rows.above(replica, lo)
        if len(cells) != rows.seq(replica) - lo:
            raise Violation("write", f"{replica} wrote {rows.seq(replica) - lo} mutations, of which {len(cells)} stand")
        if lo != len(row):
            raise Violation("dot", f"{replica} writes {lo + 1} though it wrote up to {len(row)} before")
        for cell in cells:
            last = cell is cells[-1]
            self._append(row, cell, counted if last else {}, contributions if last else ())
            self._ended_lives |= cell.kind == RETIRE
        return cells

    def _append(self, row: list[Mutation], cell: Cell, counted: CountsById, contributions: tuple[Contribution, ...]) -> None:
        replica, seq = cell.replica, cell.seq
        ends: list[tuple[Replica, int]] = []
        if cell.kind == REMOVE:
            ends = [(named.replica, named.seq) for named in removed_dots(cell)]
        else:
            written = self._last.setdefault((replica, cell.kind, cell.key), [])
            ends = [(replica, written[-1])] if written else []
            written.append(seq)
        for ended in ends:
            self._enders.setdefault(ended, []).append((replica, seq))
        expires_at = definition_value(cell).expires_at if cell.kind == ADD else None
        row.append(Mutation(cell.kind, cell.key, cell.data, tuple(ends), counted, contributions, expires_at))

    def lost(self, replica: Replica, upto: int) -> None:
        """Drop the mutations above `upto`, which a node lost before telling any other node."""
        row = self._log.get(replica, [])
        for seq in range(len(row), upto, -1):
            mutation = row.pop()
            for ended in mutation.ends:
                self._enders[ended].remove((replica, seq))
            if mutation.kind != REMOVE:
                self._last[replica, mutation.kind, mutation.key].pop()
        undone = [key for key in self._hash_at if any(row == replica and seq > upto for row, seq in key)]
        for key in undone:
            self._clock_of.pop(self._hash_at.pop(key), None)
            self._read_at.pop(key, None)

    # --- the checks --------------------------------------------------------------------------------------------------

    def started(self, name: str, node: GossipNode) -> None:
        """Note the start of a node with its present state."""
        self._views[name] = ExpectedState()
        self.observe(name, node)

    def stopped(self, name: str) -> None:
        """Note the end of a node."""
        self._views.pop(name, None)

    def observe(self, name: str, node: GossipNode) -> None:
        """Check the present state of a node."""
        self.checks += 1
        rows, view = node.state.rows, self._views[name]
        clock = rows.clock_mark.entries
        self._advance(name, view, clock, node.time.own())
        live, cells = view.live, list(rows.live_cells())
        wrong = [cell for cell in cells if live.get((cell.replica, cell.seq)) != cell.data]
        if wrong or not len(set(map(id, cells))) == len(cells) == len(live):
            raise Violation("state", self._difference(name, node, view))
        for cell in rows.each(REMOVE):
            if self._log[cell.replica][cell.seq - 1].data != cell.data:
                raise Violation("state", f"{name} holds a removal at {cell.replica} {cell.seq} that was never written so")
        for replica, floor in rows.floors.items():
            if floor > clock.get(replica, 0):
                raise Violation("clock", f"{name} has the floor {floor} for {replica} and knows up to {clock.get(replica, 0)}")
        misread = view.model.wrong(node)
        if misread is not None:
            raise Violation(misread[0], f"{name} {misread[1]}")
        self._check_hash(name, node, clock, view.model)
        self._check_readings(name, node, view)

    def _advance(self, name: str, view: ExpectedState, clock: Mapping[Replica, int], own: int) -> None:
        """Advance a view to a later clock. `own`: the time by the node's own clock."""
        before = view.clock
        if clock == before:
            return
        raised = [(replica, before.get(replica, 0), hi) for replica, hi in clock.items() if before.get(replica) != hi]
        back = [replica for replica, lo, hi in raised if hi < lo] + sorted(before.keys() - clock.keys())
        if back:
            raise Violation("clock", f"{name} was at {back[0]} {before[back[0]]} and is at {clock.get(back[0], 0)}")
        fresh = [(replica, seq) for replica, lo, hi in raised for seq in range(lo + 1, hi + 1)]
        for replica, seq in fresh:
            row = self._log.get(replica, ())
            if seq > len(row):
                raise Violation("clock", f"{name} is at {replica} {seq}, which wrote {len(row)} times")
            mutation = row[seq - 1]
            ended = any(clock.get(by, 0) >= at for by, at in self._enders.get((replica, seq), ()))
            if mutation.kind != REMOVE and not ended:
                view.live[replica, seq] = mutation.data
                if mutation.kind == ADD:
                    view.adds[replica, seq] = mutation
            for dot in mutation.ends:
                if view.live.pop(dot, None) is not None:
                    view.adds.pop(dot, None)
            for key, moved in mutation.counted.items():
                _plus(view.counts, key, moved)
                _plus(view.by_node, replica.node_id, moved)
            for each in mutation.contributions:
                view.model.take(replica, each, own)
        view.clock = dict(clock)

    def _difference(self, name: str, node: GossipNode, view: ExpectedState) -> str:
        """A sentence about a cell that should stand and does not, or the other way round."""
        found = {(cell.replica, cell.seq): cell.data for cell in node.state.rows.live_cells()}
        for what, dots in (
            ("lacks", view.live.keys() - found.keys()),
            ("still holds", found.keys() - view.live.keys()),
            ("holds something else at", {dot for dot in found.keys() & view.live.keys() if found[dot] != view.live[dot]}),
        ):
            if dots:
                replica, seq = min(dots)
                mutation = self._log[replica][seq - 1] if seq <= self.length(replica) else None
                about = f" (kind {mutation.kind}, key {mutation.key!r})" if mutation else ""
                return f"{name} {what} {replica} {seq}{about}"
        raise AssertionError("asked for a difference where there is none")

    def _check_hash(self, name: str, node: GossipNode, clock: Mapping[Replica, int], model: Model) -> None:
        key, hash_ = frozenset(clock.items()), node.state_hash
        if self._hash_at.setdefault(key, hash_) != hash_:
            raise Violation("hash", f"{name} is at a clock at which another node had another hash")
        if self._clock_of.setdefault(hash_, key) != key:
            raise Violation("hash", f"{name} has the hash that another node had at another clock")
        if self._read_at.setdefault(key, reading := model.reading(node)) != reading:
            raise Violation("readings", f"{name} is at a clock at which another node read something else")
        if node.replica not in self._been:
            self._been[node.replica] = (set(), set(), {})
        clocks, hashes, latest = self._been[node.replica]
        clocks.add(key)
        hashes.add(hash_)
        if any(seq > latest.get(replica, 0) for replica, seq in clock.items()):  # false after a start from an old copy of the disk
            latest |= {replica: seq for replica, seq in clock.items() if seq > latest.get(replica, 0)}

    def _check_readings(self, name: str, node: GossipNode, view: ExpectedState) -> None:
        metrics = node.state.metrics
        total = (sum(each[0] for each in view.counts.values()), sum(each[1] for each in view.counts.values()))
        if metrics.total != total:
            raise Violation("counts", f"{name} reads {tuple(metrics.total)} in all, where {total} were counted")
        for id_, counts in view.counts.items():
            if id_ and metrics.constraint(id_) != counts:
                raise Violation("counts", f"{name} reads {tuple(metrics.constraint(id_))} for {id_}, where {counts} were counted")
        for node_id, counts in view.by_node.items():
            if metrics.node(node_id) != counts:
                raise Violation("counts", f"{name} reads {tuple(metrics.node(node_id))} of {node_id}, which counted {counts}")
        if set(node.state.constraints) != self.active(node):
            raise Violation("state", f"{name} reads {sorted(node.state.constraints)} as active")
        self._check_time(name, node, view)

    def heard(self, name: str, node: GossipNode, peer: str, time: int | None) -> None:
        """Note the time of a peer, as heard by a node. A reading is valid for a while; messages may be late, so the highest counts.

        `time` None: the reading is not known here, so nothing is checked while it is valid.
        """
        own, heard = node.time.own(), self._views[name].heard
        if peer in node.state.retirements:  # its time does not count
            return
        offset = BEYOND if time is None else time - own
        # Lower ones before it count neither now nor later. Without them the list stays short in a long history.
        higher = [each for each in heard.get(peer, ()) if each[0] > offset and own - each[1] <= node.time.heard_for]
        if len(higher) >= MEASUREMENTS:  # a node keeps no more
            offset, higher = BEYOND, []
        heard[peer] = [*higher, (offset, own)]

    def clock_set(self, name: str, node: GossipNode, by: int) -> None:
        """The clock of a node was set: its earlier measurements are off by as much more, or less."""
        heard = self._views[name].heard
        for peer, measured in heard.items():
            heard[peer] = [(offset - by, at + by) for offset, at in measured]
        self._views[name].model.decays.clock_set(node.time.own(), by)
        self._check_time(name, node, self._views[name])

    @staticmethod
    def _check_time(name: str, node: GossipNode, view: ExpectedState) -> None:
        time, own = node.time, node.time.own()
        ahead, doubt = time.now() - own, time.doubt
        if doubt is None and not 0 <= ahead <= time.max_skew:
            raise Violation("time", f"{name} goes by a time that is {ahead} ns ahead of its own clock")
        for peer in [each for each in view.heard if each in node.state.retirements]:
            del view.heard[peer]
        lately = {
            peer: max((offset for offset, at in heard if 0 <= own - at <= time.heard_for), default=None)
            for peer, heard in view.heard.items()
        }
        offsets = sorted(offset for offset in lately.values() if offset is not None)
        if doubt is None:
            for peer, offset in lately.items():
                if offset is not None and ahead < offset <= time.max_skew:
                    raise Violation("time", f"{name} goes by a time that is behind that of {peer}, which it has just heard")
        if not offsets or offsets[-1] > BEYOND // 2:  # nothing heard, so a doubt lasts; or a reading that is not known here
            return
        expected = _doubted(offsets, time.max_skew)
        if (None if doubt is None else tuple(doubt)) != expected or (expected is not None and ahead != expected[0]):
            raise Violation("time", f"{name} doubts its clock by {doubt} and reads {ahead} ns ahead, where {expected} is expected")

    def check_evidence(self, name: str, node: GossipNode, peer_name: str) -> None:
        """Check the evidence which a node has of a peer. A clock that leaves out ended lives may read lower."""
        peer = node.tracker.peer(peer_name)
        if peer is None or peer.mark is None:
            return
        clocks, hashes, latest = self._been.get(peer.replica, (set(), set(), {}))
        entries = peer.mark.entries
        exact = frozenset(entries.items()) in clocks
        below = self._ended_lives and all(latest.get(replica, 0) >= seq for replica, seq in entries.items())
        if not (exact or below):
            raise Violation("evidence", f"{name} believes {peer_name} to be at a clock that it never was at")
        if peer.hash is not None and peer.hash not in hashes:
            raise Violation("evidence", f"{name} believes {peer_name} to have a hash that it never had")

    def check_subsumed(self, name: str, known: Iterable[tuple[Replica, int]], invariant: str) -> None:
        """Check for at least these entries in the clock of a node."""
        clock = self._views[name].clock
        for replica, seq in known:
            if clock.get(replica, 0) < seq:
                raise Violation(invariant, f"{name} does not know {replica} {seq}, only up to {clock.get(replica, 0)}")


def _doubted(offsets: list[int], max_skew: int) -> tuple[int, bool] | None:
    """The correction of a clock that differs by these offsets from those heard, ordered, and whether they agree; None: no doubt."""
    far = [offset for offset in offsets if not -max_skew - TRAVEL <= offset <= max_skew]
    if len(far) * 2 < len(offsets) + 1:
        return None
    median = offsets[(len(offsets) - 1) // 2]
    agreeing = sum(median - max_skew - TRAVEL <= offset <= median + max_skew + TRAVEL for offset in offsets)
    if median in far and agreeing >= max(2, (2 * len(offsets) + 4) // 3):
        return median, True
    return min(0, offsets[0]), False
