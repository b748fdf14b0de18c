"""How often constraints held and were violated lately: what a node gathers of it, and what it answers.

Rules: each evaluation is gathered when it is made, and goes on decaying here until it is written, at most one cell per constraint
and interval. What waits shows in this node's own answers at once. A node that is killed loses it: the exact counts are in the
metrics.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.types.decay import LN2, RATE, decayed
from constraint_crdt.types.rates import NODE_KEY, Pair, Rates, rates_of

NOTHING_LEFT = 0.0005
"""Of how many evaluations a constraint that is not active must have more left to be listed."""


class NodeRate(msgspec.Struct, frozen=True, kw_only=True):
    """What is left of the evaluations of one node."""

    satisfied: float
    violated: float
    violated_share: float | None
    """Violated over all; None where nothing is left."""


class ConstraintRate(msgspec.Struct, frozen=True, kw_only=True):
    """What is left of the evaluations of one constraint."""

    constraint: str | None
    """None: of none in particular, or in the total of all."""
    satisfied: float
    violated: float
    violated_share: float | None
    satisfied_per_minute: float
    """The pace at which they would have to go on for the sum to stay where it is."""
    violated_per_minute: float
    by_node: dict[str, NodeRate]


class RatesReport(msgspec.Struct, frozen=True, kw_only=True):
    """Recent evaluations at one half-life, as of now."""

    half_life: float
    """Seconds."""
    tracked: tuple[float, ...]
    """The half-lives that this node can answer for."""
    total: ConstraintRate
    constraints: tuple[ConstraintRate, ...]
    untracked_by: tuple[str, ...]
    """Nodes of which evaluations are missing here, as they did not track this half-life."""
    ahead: int
    """Cells whose time is further ahead of this node's clock than the tolerated skew. They count as of when they arrived."""
    worst_skew: float
    """Seconds: the furthest that a cell was ahead when it arrived."""
    steps_back: int
    """How often this node's clock was found to have been set back."""


class _Waiting(NamedTuple):
    """Evaluations that are not written yet: what was left of them at a time, at each half-life."""

    at: float
    pairs: tuple[Pair, ...]


class NodeRates:
    """The recent evaluations of one node and its fleet."""

    def __init__(self, gossip: GossipNode, half_lives: tuple[float, ...], *, now: Callable[[], float]) -> None:
        """`half_lives`: those to track, in seconds. `now`: monotonic seconds. Raises `ConstraintCrdtError` for wrong half-lives."""
        self._gossip = gossip
        self._rates = gossip.state.rates
        self._rates.track(half_lives)
        self._now = now
        self._waiting: dict[str | None, _Waiting] = {}

    # --- gathering -----------------------------------------------------------------------------------------------------

    def note(self, counts: Mapping[str | None, tuple[int, int]]) -> None:
        """Gather evaluations made now: (satisfied, violated) by constraint, None for none in particular."""
        now = self._now()
        for constraint, (satisfied, violated) in counts.items():
            if satisfied or violated:
                pairs = tuple((s + satisfied, v + violated) for s, v in self._left(constraint, now))
                self._waiting[constraint] = _Waiting(now, pairs)

    @property
    def waiting(self) -> bool:
        """True if something was gathered that is not written yet."""
        return bool(self._waiting)

    def write_waiting(self) -> None:
        """Write what was gathered. What cannot be written waits on."""
        now = self._now()
        left = {constraint: self._left(constraint, now) for constraint in self._waiting}
        self._gossip.write(lambda me: self._rates.record_left(me, left))
        self._waiting = {}

    def fold(self, ids: list[str]) -> None:
        """Take what this life wrote of constraints that are long gone to that of none in particular."""
        if self._waiting.keys() & set(ids):
            self.write_waiting()
        self._gossip.write(lambda me: self._rates.fold(ids, node=me))

    def _left(self, constraint: str | None, now: float) -> tuple[Pair, ...]:
        """What is left of what waits, at each half-life."""
        half_lives = self._rates.half_lives
        at, pairs = self._waiting.get(constraint, (now, ((0.0, 0.0),) * len(half_lives)))
        age = now - at
        return tuple((decayed(s, age, h), decayed(v, age, h)) for (s, v), h in zip(pairs, half_lives, strict=True))

    # --- answering -----------------------------------------------------------------------------------------------------

    @property
    def half_lives(self) -> tuple[float, ...]:
        """The half-lives that are tracked, in seconds, shortest first."""
        return self._rates.half_lives

    def of(self, constraint: str, half_life: float, node: str | None = None) -> ConstraintRate:
        """What is left of the evaluations of one constraint, on one node or on all. O(its cells)."""
        return self._one(constraint, half_life, node)

    def by_node(self) -> dict[str, Pair]:
        """What is left of all evaluations of each node, (satisfied, violated), at the shortest half-life. O(cells of rates)."""
        found = {name: rate[:2] for name, rate in self._rates.by_node(self.half_lives[0]).items()}
        now, me = self._now(), self._gossip.node_id
        mine = [found.get(me, (0.0, 0.0)), *(self._left(constraint, now)[0] for constraint in self._waiting)]
        return {**found, me: rates_of(mine)[:2]}

    def evaluated_by(self, node: str) -> set[str]:
        """The constraints that a node has recent evaluations of, also of one that it had long ago. O(cells of rates)."""
        mine = {constraint for constraint in self._waiting if constraint} if node == self._gossip.node_id else set()
        cells = self._gossip.state.rows.each(RATE)
        return mine | {str(cell.key) for cell in cells if cell.replica.node_id == node and cell.key != NODE_KEY}

    def knows_constraint(self, id_: str) -> bool:
        """True if a constraint is active, or was evaluated anywhere."""
        return id_ in self._gossip.state.constraints or id_ in self._ids()

    def knows_node(self, name: str) -> bool:
        """True if a node ever wrote anything, or is this one."""
        gossip = self._gossip
        return name == gossip.node_id or any(row.node_id == name for row in gossip.state.rows.clock_mark.entries)

    def report(self, half_life: float | None = None, constraint: str | None = None, node: str | None = None) -> RatesReport:
        """What is left at one half-life (the shortest tracked, if none is given), of one constraint or node or of all.

        Raises `ConstraintCrdtError`, naming those that are tracked, for another half-life. O(cells of rates).
        """
        rates = self._rates
        half_life = rates.half_lives[0] if half_life is None else rates.tracked(half_life)
        ids = sorted(self._ids() | set(self._gossip.state.constraints)) if constraint is None else [constraint]
        every = [self._one(id_, half_life, node) for id_ in ids]
        return RatesReport(
            half_life=half_life,
            tracked=rates.half_lives,
            total=_report(None, half_life, self._summed(every)),
            constraints=tuple(each for each in every if constraint is not None or self._is_listed(each)),
            untracked_by=tuple(name for name in rates.untracked_by(half_life) if node in (None, name)),
            ahead=rates.ahead,
            worst_skew=rates.worst_skew,
            steps_back=rates.steps_back,
        )

    def _ids(self) -> set[str]:
        """What was evaluated anywhere."""
        return {*self._rates.recorded, *(constraint or NODE_KEY for constraint in self._waiting)}

    def _is_listed(self, rate: ConstraintRate) -> bool:
        return rate.constraint in self._gossip.state.constraints or rate.satisfied + rate.violated > NOTHING_LEFT

    def _one(self, id_: str, half_life: float, node: str | None) -> ConstraintRate:
        """What is left of one constraint, with what waits here."""
        by_node = self._rates.by_node(half_life, id_)
        constraint = id_ or None
        if constraint in self._waiting:
            me = self._gossip.node_id
            waiting = self._left(constraint, self._now())[self._rates.half_lives.index(half_life)]
            by_node[me] = rates_of([by_node.get(me, Rates())[:2], waiting])
        return _report(constraint, half_life, {name: rate for name, rate in sorted(by_node.items()) if node in (None, name)})

    def _summed(self, every: list[ConstraintRate]) -> dict[str, Rates]:
        parts: dict[str, list[Pair]] = {}
        for each in every:
            for name, rate in each.by_node.items():
                parts.setdefault(name, []).append((rate.satisfied, rate.violated))
        return {name: rates_of(pairs) for name, pairs in sorted(parts.items())}


def _report(constraint: str | None, half_life: float, by_node: Mapping[str, Rates]) -> ConstraintRate:
    whole = rates_of(rate[:2] for rate in by_node.values())
    per_minute = 60.0 * LN2 / half_life
    return ConstraintRate(
        constraint=constraint,
        satisfied=whole.satisfied,
        violated=whole.violated,
        violated_share=whole.violated_share,
        satisfied_per_minute=whole.satisfied * per_minute,
        violated_per_minute=whole.violated * per_minute,
        by_node={
            name: NodeRate(satisfied=rate.satisfied, violated=rate.violated, violated_share=rate.violated_share)
            for name, rate in by_node.items()
        },
    )
