"""Models of the summaries: the expected readings of sketches, Bloom filters, decaying values, increments, times, verdicts,
variables and shared readings at a node.

Rules kept here:

- A model is fed from the log with the requests to the writers, never with the content of cells. It knows nothing of pages,
  stretches or merging.
- Exact readings are compared exactly (floats up to their last digits), approximate ones with the bounds they promise.
- Of several lives of a node, the last statement of a life counts if no other life made a statement with knowledge of that life.
  Lives without knowledge of each other may both count; nodes at equal clocks agree on the same statement.
- Times are those of the node's own clock: a decaying value ages from its timestamp, or from its arrival if that was earlier.
"""

from collections import Counter
from collections.abc import Sequence
from math import isclose
from typing import NamedTuple, TypeAlias

from constraint_crdt.crdt.clock import SECOND, Replica
from constraint_crdt.model import VerdictState
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.types.counters import COUNTER, NODE_KEY, SECONDS
from constraint_crdt.types.decay import DECAY, RATE
from constraint_crdt.types.definition import ADD
from constraint_crdt.types.nodes import RETIRE, UNDO
from constraint_crdt.types.register import POSITION
from constraint_crdt.types.sketch import BLOOM, BLOOM_PAGE, SKETCH, SKETCH_PAGE
from constraint_crdt.types.tile_cells import CONTENT, CONTENT_PAGE, DELETED, ELEMENT, TILE, TILE_COUNTS, TILE_POSITION, TOMBSTONES
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
