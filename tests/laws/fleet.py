"""A fleet of real nodes under watch: every state that any of them reaches is compared with the reference.

`Fleet` makes the mutations on a node and in the log alike, keeps messages on their way in a bag, and after each step of each
node (also in the middle of an exchange) checks the invariants of docs/design/invariants.md that can be seen from there.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from constraint_crdt import ConstraintCrdtError, ConstraintState, GossipNode, Replica, StateHash
from constraint_crdt.crdt.cells import REMOVE, Cell, removed_dots
from constraint_crdt.protocol.exchange_rules import GossipResult
from constraint_crdt.protocol.messages import GossipMessage, decode_message, encode_message
from constraint_crdt.protocol.transfers import split_message
from constraint_crdt.types.counters import COUNTS, counts_value
from constraint_crdt.types.definition import ADD, FieldsValue, definition_value
from constraint_crdt.types.nodes import RETIRE, retire_value
from constraint_crdt.types.tile_cells import POSITION, position_value

from .model import Add, ClockKey, Count, End, Fields, Log, Move, Mutation, Remove, key_of

NAMES = ("a", "b", "c", "d", "e")
IDS = ("x", "y", "z")
SECOND = 1_000_000_000
BEGAN = 1_000_000 * SECOND
MAX_SKEW = 2 * SECOND
MESSAGES_PER_EXCHANGE = 12
"""More than an exchange of two nodes may take, whatever they knew of each other before: four for the exchange itself, two for
a clock that cannot be resolved, and two on each side for a transfer begun earlier that is asked for and is gone."""

Counts = dict[tuple[str, str], tuple[int, int]]


class Witnessed(GossipNode):
    """A node that reports each state it reaches, and goes by a clock of its own."""

    def __init__(self, name: str, incarnation: int, fleet: "Fleet") -> None:
        super().__init__(
            name,
            incarnation=incarnation,
            now=lambda: fleet.time_at(name),
            renew=fleet.new_incarnation,
            max_skew=MAX_SKEW / SECOND,
        )
        self.watch = fleet
        self.seen_counts: Counts = {}

    def receive(self, message: GossipMessage) -> GossipResult:
        result = super().receive(message)
        self.watch.observe(self)
        return result


@dataclass
class Letter:
    """A message on its way."""

    to: str
    content: GossipMessage | bytes


@dataclass
class Fleet:
    """The nodes, the log of all they did, and the network between them."""

    log: Log = field(default_factory=Log)
    nodes: dict[str, Witnessed] = field(default_factory=dict)
    bag: list[Letter] = field(default_factory=list)
    time: int = BEGAN
    skews: dict[str, int] = field(default_factory=dict)
    """How far the clock of each node is ahead of the time, in ns."""
    clocks: list[dict[Replica, int]] = field(default_factory=lambda: [{}])
    """Every clock that some node was at."""
    amnesic: set[str] = field(default_factory=set)
    """Nodes that came back empty under an incarnation that has a row: what peers know of them may be ahead of them."""
    gone: dict[str, tuple[Replica, int]] = field(default_factory=dict)
    """Constraints whose every add was known where they were removed, with the removal's dot, until somebody adds them again."""

    def __post_init__(self) -> None:
        self._incarnations = itertools.count(1)
        self._hash_at: dict[ClockKey, StateHash] = {}
        self._clock_of: dict[StateHash, ClockKey] = {}
        self._been: dict[Replica, set[tuple[ClockKey, StateHash]]] = {}
        self._cells: dict[tuple[Replica, int], tuple[bytes, Mutation]] = {}
        for name in NAMES:
            self.start(name, self.new_incarnation())

    # --- lives -------------------------------------------------------------------------------------------------------

    def new_incarnation(self) -> int:
        return next(self._incarnations)

    def start(self, name: str, incarnation: int) -> None:
        """A node starts with nothing."""
        self.nodes[name] = Witnessed(name, incarnation, self)
        self.amnesic.discard(name)
        if self.log.length(Replica(name, incarnation)):
            self.amnesic.add(name)
        self.observe(self.nodes[name])

    def may_write(self, name: str) -> bool:
        """A node that forgot its own row must hear of it before it writes: until then nothing could tell it."""
        node = self.nodes[name]
        return name not in self.amnesic or bool(node.clock[node.replica])

    # --- mutations ---------------------------------------------------------------------------------------------------

    def write(
        self, name: str, act: Callable[[GossipNode], object], expected: Callable[[Replica], list[Mutation]]
    ) -> list[Mutation]:
        """Let a node mutate, and the log in the same way."""
        node = self.nodes[name]
        clock, life = node.clock, node.replica
        act(node)
        mutations = expected(node.replica)
        if node.replica != life:
            mutations.insert(0, self.log.ending(clock.as_dict(), life))
        if name in self.amnesic:
            assert node.replica != life, "wrote on in a life of which others know more"
            self.amnesic.discard(name)
        assert node.clock[node.replica] == clock[node.replica] + len(mutations)
        self.log.append(node.replica, mutations)
        assert node.clock[node.replica] == self.log.length(node.replica), "a dot was used twice"
        self.observe(node)
        return mutations

    def time_at(self, name: str) -> int:
        """What time it is by the clock of a node."""
        return self.time + self.skews.get(name, 0)

    def add(self, name: str, id_: str, says: tuple[str | None, str, str | None, Fields], ttl: int | None) -> None:
        """Add, edit or extend; `ttl` in seconds."""
        when, severity, about, fields = says
        for_, clear_after, clear_when, if_unknown, max_age = fields
        clock, now = self.nodes[name].clock.as_dict(), self.nodes[name].state.now()
        definition = (when, severity, about, (), None if ttl is None else now + ttl * SECOND, fields)
        self.write(
            name,
            lambda node: node.add_constraint(
                id_,
                when=when,
                severity=severity,
                about=about,
                ttl=ttl,
                for_=for_ / SECOND,
                clear_after=clear_after / SECOND,
                clear_when=clear_when,
                if_unknown=if_unknown,
                max_age=None if max_age is None else max_age / SECOND,
            ),
            lambda me: self.log.adding(clock, me, id_, definition, now),
        )
        self.gone.pop(id_, None)

    def remove_expired(self, name: str) -> None:
        """Let a node remove what expired long ago. Whatever it takes out was over by every clock within the bound."""
        node = self.nodes[name]
        clock, now, begun = node.clock.as_dict(), node.state.now(), node.clock[node.replica]
        standing = self.log.at(clock).expired(now)
        due = {dot: each for dot, each in standing.items() if (each.definition[4] or 0) + 2 * MAX_SKEW <= now}

        def written(me: Replica) -> list[Mutation]:
            return [_mutation(cell) for cell in node.state.rows.above(me, begun) if cell.kind == REMOVE]

        others = {replica.node_id for replica in clock}.union(node.time.offsets) - {name, *node.state.retirements.nodes}
        may = not node.time.in_doubt and (bool(node.time.offsets) or not others)
        if due and name not in self.amnesic:
            mutations = self.write(name, lambda each: each.remove_expired(), written)
            named = {dot for each in mutations if isinstance(each, Remove) for dot in each.dots}
            assert named <= due.keys(), "removed what had not expired long ago"
            assert may or not named, "removed by a clock that nobody confirms"
            assert not may or {dot for dot in due if dot[0].node_id == name} <= named, "left its own"

    def remove(self, name: str, id_: str) -> None:
        clock = self.nodes[name].clock.as_dict()
        self.write(name, lambda node: node.remove_constraint(id_), lambda _: self.log.removing(clock, id_))
        if all(seq <= clock.get(replica, 0) for replica, seq in self.log.adds_ever(id_)):
            me = self.nodes[name].replica
            self.gone[id_] = (me, self.log.length(me))

    def record(self, name: str, constraint: str | None, satisfied: int, violated: int) -> None:
        clock = self.nodes[name].clock.as_dict()
        self.write(
            name,
            lambda node: node.record(satisfied, violated, constraint=constraint),
            lambda me: self.log.counting(clock, me, constraint or "", satisfied, violated),
        )

    def move(self, name: str, position: tuple[int, int]) -> None:
        clock, time = self.nodes[name].clock.as_dict(), self.nodes[name].time.stamp()
        self.write(name, lambda node: node.update_position(position), lambda me: self.log.moving(clock, me, position, time))

    def retire(self, name: str, dead: str) -> None:
        """Have a node that is no more retired for good."""
        clock = self.nodes[name].clock.as_dict()
        if any(replica.node_id == dead for replica in clock):
            self.write(name, lambda node: node.retire(dead), lambda _: self.log.retiring(clock, dead))

    # --- messages ----------------------------------------------------------------------------------------------------

    def send(self, to: str, message: GossipMessage, form: str, max_bytes: int = 48) -> None:
        """Put a message on its way: as the object it is, as bytes, or as bytes in parts."""
        if form == "object":
            self.bag.append(Letter(to, message))
            return
        pieces = split_message(message, max_bytes) if form == "parts" else [message]
        self.bag += [Letter(to, encode_message(piece)) for piece in pieces]

    def deliver(self, index: int, *, keep: bool, form: str) -> None:
        """Let one message arrive; `keep`: it will arrive again."""
        letter = self.bag[index] if keep else self.bag.pop(index)
        reader = self.nodes.get(letter.to)
        if reader is None:
            return
        content = letter.content
        message = decode_message(content, max_bytes=None) if isinstance(content, bytes) else content
        try:
            responses = reader.receive(message).responses
        except ConstraintCrdtError:
            assert message.node.node_id in reader.state.retirements, "nothing else is refused among the well-meaning"
            responses = []
        for response in responses:
            self.send(message.node.node_id, response, form)

    # --- what must hold ----------------------------------------------------------------------------------------------

    def observe(self, node: Witnessed) -> None:
        """Check one node as it is now, and remember that it was there."""
        clock, hash_ = node.clock.as_dict(), node.state_hash
        key = key_of(clock)
        assert self._hash_at.setdefault(key, hash_) == hash_, "equal clocks, different hashes"
        assert self._clock_of.setdefault(hash_, key) == key, "equal hashes, different clocks"
        if clock not in self.clocks:
            self.clocks.append(clock)
        self._been.setdefault(node.replica, set()).add((key, hash_))
        self._check_cells(node, clock)
        self._check_views(node, clock)
        self._check_counts(node)
        self._check_evidence(node)

    def _check_cells(self, node: Witnessed, clock: dict[Replica, int]) -> None:
        expected = self.log.at(clock).live
        found = {(cell.replica, cell.seq): self._read(cell) for cell in node.state.rows.live_cells()}
        assert found.keys() == expected.keys(), "live cells are not the canonical ones"
        assert all(_same(mutation, expected[dot]) for dot, mutation in found.items())
        for cell in node.state.rows.each(REMOVE):
            assert self._read(cell) == self.log.rows[cell.replica][cell.seq - 1]

    def _read(self, cell: Cell) -> Mutation:
        """What a cell says; the same dot must say the same, byte for byte, wherever it is."""
        data, mutation = self._cells.setdefault((cell.replica, cell.seq), (cell.data, _mutation(cell)))
        assert data == cell.data, "two cells have the same dot"
        return mutation

    def _check_views(self, node: Witnessed, clock: dict[Replica, int]) -> None:
        canonical, state = self.log.at(clock), node.state
        active = canonical.active(state.now())
        assert set(state.constraints) == active
        assert len(state.constraints) == len(active)
        assert set(state.constraints.expired_ids) == {each.id for each in canonical.expired(state.now()).values()} - active
        elsewhere = ConstraintState(state.rows.copy(), now=lambda: self.time)
        assert set(elsewhere.constraints) == canonical.active(self.time), "equal clocks, different readings at one time"
        assert state.position == canonical.position
        assert state.metrics.total == canonical.totals()
        for id_ in IDS:
            assert (id_ in state.constraints) == (id_ in active)
            in_force = set(canonical.in_force(id_, state.now()).values())
            assert {(*each[:5], each[5:10]) for each in state.constraints.definitions(id_)} == in_force
            assert state.metrics.constraint(id_) == canonical.totals(key=id_)
        for name in NAMES:
            assert state.metrics.node(name) == canonical.totals(node=name)

    @staticmethod
    def _check_counts(node: Witnessed) -> None:
        metrics = node.state.metrics
        now: Counts = {("total", ""): metrics.total}
        now |= {("constraint", id_): metrics.constraint(id_) for id_ in IDS} | {
            ("node", name): metrics.node(name) for name in NAMES
        }
        for reading, before in node.seen_counts.items():
            assert all(old <= new for old, new in zip(before, now[reading], strict=True)), f"{reading} went down"
        node.seen_counts = now

    def _check_evidence(self, node: Witnessed) -> None:
        """What a peer is believed to have, it had. A clock that leaves out ended lives may read lower than it was, never higher."""
        ended = any(isinstance(each, End) for row in self.log.rows.values() for each in row)
        for name in node.tracker:
            peer = node.tracker.peer(name)
            if peer is None or peer.mark is None:
                continue
            been, entries = self._been[peer.replica], peer.mark.entries.items()
            exact = key_of(peer.mark.entries) in {clock for clock, _ in been}
            below = ended and any(all(dict(clock).get(row, 0) >= seq for row, seq in entries) for clock, _ in been)
            assert exact or below, "evidence of a clock that the peer never was at"
            assert peer.hash in {None} | {hash_ for _, hash_ in been}, "evidence of a hash that the peer never had"


def _mutation(cell: Cell) -> Mutation:
    if cell.kind == ADD:
        value = definition_value(cell)
        severity = ("info", "warning", "critical")[value.severity]
        fields = msgspec.msgpack.decode(value.fields, type=FieldsValue) if value.fields else FieldsValue()
        choice = ("unknown", "violated", "satisfied")[fields.if_unknown]
        timing = (fields.for_, fields.clear_after, fields.clear_when, choice, fields.max_age)
        return Add(str(cell.key), (value.when, severity, value.about, value.on, value.expires_at, timing))
    if cell.kind == COUNTS:
        return Count(str(cell.key), *counts_value(cell))
    if cell.kind == POSITION:
        position = position_value(cell)
        return Move((position.a, position.b), position.time, frozenset((dot.replica, dot.seq) for dot in position.overwrites))
    if cell.kind == RETIRE:
        ended = retire_value(cell)
        return End(str(cell.key), frozenset((dot.replica, dot.seq) for dot in ended.lives), ended.whole_node)
    assert cell.kind == REMOVE
    named = list(removed_dots(cell))
    return Remove(frozenset(each.key for each in named), frozenset((each.replica, each.seq) for each in named))


def _same(found: Mutation, expected: Mutation) -> bool:
    """Equal; of a move, what it overwrites may be said more briefly than the reference does."""
    if isinstance(found, Move) and isinstance(expected, Move):
        return (found.position, found.time) == (expected.position, expected.time) and found.overwrites <= expected.overwrites
    return found == expected
