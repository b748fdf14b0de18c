"""The reference: what the state must be, computed from the log of all mutations, in plain Python.

It knows nothing of cells, runs, floors or digests. Each replica has a list of mutations, the n-th being its seq n. For any
clock, `Log.at` gives the one state that every node at that clock must have:

- an add stands unless a later add of the same id in its row superseded it, or a removal within the clock names it;
- counts and positions: the latest of each row, under each key.

An add that stands is in force until its end, if it has one: that is all that time does, and only the reader's clock matters.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from constraint_crdt import Replica

Fields = tuple[int, int, str | None, str, int | None]
"""(for, clear_after, clear_when, if_unknown, max_age), in ns."""

Definition = tuple[str | None, str, str | None, tuple[tuple[str, str], ...], int | None, Fields]
"""(when, severity, about, on, expires_at, fields)."""
Clock = Mapping[Replica, int]
ClockKey = frozenset[tuple[Replica, int]]


@dataclass(frozen=True)
class Add:
    """A constraint made active with a definition."""

    id: str
    definition: Definition


@dataclass(frozen=True)
class Remove:
    """The end of the named adds, all of one constraint unless they had expired."""

    ids: frozenset[str]
    dots: frozenset[tuple[Replica, int]]


@dataclass(frozen=True)
class Count:
    """The cumulative counts of a row for one constraint, "" for the node."""

    key: str
    satisfied: int
    violated: int


@dataclass(frozen=True)
class Move:
    """A position, and all position dots that it supersedes."""

    position: tuple[int, int]
    time: int
    overwrites: frozenset[tuple[Replica, int]]


@dataclass(frozen=True)
class End:
    """Lives that are over, with the last mutation known of each: of a node retired for good, or one former life of the writer."""

    key: str
    lives: frozenset[tuple[Replica, int]]
    whole_node: bool


Mutation = Add | Remove | Count | Move | End
Live = dict[tuple[Replica, int], Mutation]


def key_of(clock: Clock) -> ClockKey:
    """A clock as a value that can be looked up."""
    return frozenset((replica, seq) for replica, seq in clock.items() if seq)


@dataclass(frozen=True)
class Canonical:
    """The state at one clock."""

    live: Live
    """Everything that stands, removals apart, by dot."""

    def adds(self, id_: str) -> dict[tuple[Replica, int], Definition]:
        """The standing adds of one constraint."""
        return {dot: each.definition for dot, each in self.live.items() if isinstance(each, Add) and each.id == id_}

    def in_force(self, id_: str, now: int) -> dict[tuple[Replica, int], Definition]:
        """The standing adds of one constraint that have not expired."""
        return {dot: definition for dot, definition in self.adds(id_).items() if not _expired(definition, now)}

    def active(self, now: int) -> set[str]:
        """The ids of the active constraints."""
        return {each.id for each in self.live.values() if isinstance(each, Add) and not _expired(each.definition, now)}

    def expired(self, now: int) -> dict[tuple[Replica, int], Add]:
        """The standing adds that have expired."""
        return {dot: each for dot, each in self.live.items() if isinstance(each, Add) and _expired(each.definition, now)}

    def counts(self, replica: Replica, key: str) -> tuple[int, int]:
        """The cumulative counts of one row under one key."""
        own = [each for (row, _), each in self.live.items() if row == replica and isinstance(each, Count) and each.key == key]
        return (own[0].satisfied, own[0].violated) if own else (0, 0)

    def totals(self, *, node: str | None = None, key: str | None = None) -> tuple[int, int]:
        """The sum of all counts, or of those of one node, or of one constraint."""
        chosen = [
            each
            for (row, _), each in self.live.items()
            if isinstance(each, Count) and node in (None, row.node_id) and key in (None, each.key)
        ]
        return sum(each.satisfied for each in chosen), sum(each.violated for each in chosen)

    @cached_property
    def candidates(self) -> dict[tuple[Replica, int], Move]:
        """The positions that no other row's position overwrites."""
        moves = {dot: each for dot, each in self.live.items() if isinstance(each, Move)}
        return {
            (row, seq): move
            for (row, seq), move in moves.items()
            if not any(
                named == row and upto >= seq
                for (other, _), rival in moves.items()
                if other != row
                for named, upto in rival.overwrites
            )
        }

    @cached_property
    def position(self) -> tuple[int, int] | None:
        """Lowest norm, then latest time, then node id."""
        if not self.candidates:
            return None
        ranked = sorted((_norm(move.position), -move.time, row, move.position) for (row, _), move in self.candidates.items())
        return ranked[0][3]


def _expired(definition: Definition, now: int) -> bool:
    return definition[4] is not None and definition[4] <= now


def _norm(position: tuple[int, int]) -> int:
    a, b = position
    return a * a - a * b + b * b


@dataclass
class Log:
    """Every mutation that was ever made."""

    rows: dict[Replica, list[Mutation]] = field(default_factory=dict)
    _known: dict[ClockKey, Canonical] = field(default_factory=dict)

    def append(self, replica: Replica, mutations: Iterable[Mutation]) -> None:
        """Note what a replica did, in order."""
        self.rows.setdefault(replica, []).extend(mutations)

    def length(self, replica: Replica) -> int:
        """How many mutations a replica has made."""
        return len(self.rows.get(replica, ()))

    def adds_ever(self, id_: str) -> list[tuple[Replica, int]]:
        """The dots of all adds of one constraint, standing or not, known to whomever."""
        return [
            (replica, seq)
            for replica, row in self.rows.items()
            for seq, each in enumerate(row, start=1)
            if isinstance(each, Add) and each.id == id_
        ]

    def at(self, clock: Clock) -> Canonical:
        """The state at a clock. A log only grows, so what was computed once holds for ever."""
        key = key_of(clock)
        if key not in self._known:
            self._known[key] = self._compute(key)
        return self._known[key]

    def _compute(self, key: ClockKey) -> Canonical:
        latest: dict[tuple[Replica, type, str], tuple[int, Mutation]] = {}
        named: set[tuple[Replica, int]] = set()
        for replica, upto in key:
            for seq, mutation in enumerate(self.rows[replica][:upto], start=1):
                if isinstance(mutation, Remove):
                    named |= mutation.dots
                    continue
                subject = "" if isinstance(mutation, Move) else mutation.id if isinstance(mutation, Add) else mutation.key
                latest[replica, type(mutation), subject] = (seq, mutation)
        live = {(replica, seq): mutation for (replica, _, _), (seq, mutation) in latest.items()}
        return Canonical({dot: mutation for dot, mutation in live.items() if dot not in named})

    # --- what a node at a clock must write, by the rules of the design ---------------------------------------------

    def adding(self, clock: Clock, replica: Replica, id_: str, definition: Definition, now: int) -> list[Mutation]:
        """An add, then a removal that names the observed adds of others, expired or not; nothing if this is what is in force."""
        observed, in_force = self.at(clock).adds(id_), self.at(clock).in_force(id_, now)
        if in_force and set(in_force.values()) == {definition}:
            return []
        others = frozenset(dot for dot in observed if dot[0] != replica)
        return [Add(id_, definition), Remove(frozenset({id_}), others)] if others else [Add(id_, definition)]

    def removing(self, clock: Clock, id_: str) -> list[Mutation]:
        """A removal that names every observed add; nothing if there is none."""
        observed = self.at(clock).adds(id_)
        return [Remove(frozenset({id_}), frozenset(observed))] if observed else []

    def counting(self, clock: Clock, replica: Replica, key: str, satisfied: int, violated: int) -> list[Mutation]:
        """Cumulative counts; nothing if there is nothing to count."""
        before = self.at(clock).counts(replica, key)
        return [Count(key, before[0] + satisfied, before[1] + violated)] if satisfied or violated else []

    def ending(self, clock: Clock, replica: Replica) -> Mutation:
        """A new life of a node says of the one before it that it is over."""
        return End(str(replica), frozenset({(replica, clock.get(replica, 0))}), whole_node=False)

    def retiring(self, clock: Clock, node: str) -> list[Mutation]:
        """The end of a node in all lives known; nothing if none is."""
        lives = frozenset((replica, seq) for replica, seq in clock.items() if seq and replica.node_id == node)
        return [End(node, lives, whole_node=True)] if lives else []

    def moving(self, clock: Clock, replica: Replica, position: tuple[int, int], time: int) -> list[Mutation]:
        """A position that supersedes the candidates, and for good all that this row's position superseded before."""
        now = self.at(clock)
        overwrites = {dot for dot in now.candidates if dot[0] != replica}
        for (row, _), each in now.live.items():
            if row == replica and isinstance(each, Move):
                overwrites |= each.overwrites
        return [Move(position, time, frozenset(overwrites))]
