"""Recent rates at which constraints were satisfied and violated: the evaluations of this node, and the answers for the fleet.

Rules: each evaluation is counted at once and decays in memory until the count is written, at most a cell per constraint and
interval. Counts in memory show in the answers of this node. A node killed before writing loses the counts in memory; the exact
counts are in the metrics.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from constraint_crdt.operations.counts import ConstraintRate, NodeRate, RatesReport
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.types.decay import LN2, RATE, decayed
from constraint_crdt.types.rates import NODE_KEY, Pair, Rates, rates_of

NOTHING_LEFT = 0.0005
"""A constraint without an active definition is listed while more than this number of evaluations remains."""


class _Unwritten(NamedTuple):
    """Evaluations in memory: the decayed sums at a time, for each half-life."""

    at: float
    pairs: tuple[Pair, ...]


class NodeRates:
    """The recent rates of a node and its fleet."""

    def __init__(self, gossip: GossipNode, half_lives: tuple[float, ...], *, now: Callable[[], float]) -> None:
        """`half_lives`: those to track, in seconds. `now`: monotonic seconds. Raises `ConstraintCrdtError` for wrong half-lives."""
        self._gossip = gossip
        self._rates = gossip.state.rates
        self._rates.track(half_lives)
        self._now = now
        self._waiting: dict[str | None, _Unwritten] = {}
        self._cached: tuple[float, tuple[float, ...]] = (0.0, (1.0,) * len(half_lives))
        """The last result of `_factors`, with its age."""

    # --- gathering -----------------------------------------------------------------------------------------------------

    def note(self, counts: Mapping[str | None, tuple[int, int]]) -> None:
        """Gather evaluations made now: (satisfied, violated) by constraint, None for none in particular."""
        now = self._now()
        for constraint, (satisfied, violated) in counts.items():
            if satisfied or violated:
                pairs = tuple([(s + satisfied, v + violated) for s, v in self._left(constraint, now)])
                self._waiting[constraint] = _Unwritten(now, pairs)

    @property
    def waiting(self) -> bool:
        """True if counts are in memory and not written."""
        return bool(self._waiting)

    def write_waiting(self) -> None:
        """Write the counts in memory. Counts stay in memory if the write fails, as do those beyond 2**63 - 1, to decay there."""
        now = self._now()
        left = {constraint: self._left(constraint, now) for constraint in self._waiting}
        refused = self._gossip.write(lambda me: self._rates.record_each_left(me, left))
        self._waiting = {constraint: self._waiting[constraint] for constraint in refused}

    def fold(self, ids: list[str]) -> None:
        """Fold the counts of this incarnation for these constraints into the counts without a constraint."""
        if self._waiting.keys() & set(ids):
            self.write_waiting()
        self._gossip.write(lambda me: self._rates.fold(ids, node=me))

    def _left(self, constraint: str | None, now: float) -> tuple[Pair, ...]:
        """The decayed sums in memory, for each half-life."""
        waiting = self._waiting.get(constraint)
        if waiting is None:
            return ((0.0, 0.0),) * len(self._rates.half_lives)
        return tuple([(s * left, v * left) for (s, v), left in zip(waiting.pairs, self._factors(now - waiting.at), strict=True)])

    def _factors(self, age: float) -> tuple[float, ...]:
        """The part left after this age at each half-life. Most counts in memory have the same age, as they were noted together."""
        if self._cached[0] != age:
            self._cached = age, tuple([decayed(1.0, age, half_life) for half_life in self._rates.half_lives])
        return self._cached[1]

    # --- answering -----------------------------------------------------------------------------------------------------

    @property
    def half_lives(self) -> tuple[float, ...]:
        """The tracked half-lives in seconds, shortest first."""
        return self._rates.half_lives

    def of(self, constraint: str, half_life: float, node: str | None = None) -> ConstraintRate:
        """The decayed evaluations of a constraint, on a node or on all nodes. O(its cells)."""
        return self._one(constraint, half_life, node)

    def by_node(self) -> dict[str, Pair]:
        """The decayed evaluations of each node, (satisfied, violated), at the shortest half-life. O(cells of rates)."""
        found = {name: rate[:2] for name, rate in self._rates.by_node(self.half_lives[0]).items()}
        now, me = self._now(), self._gossip.node_id
        mine = [found.get(me, (0.0, 0.0)), *(self._left(constraint, now)[0] for constraint in self._waiting)]
        return {**found, me: rates_of(mine)[:2]}

    def evaluated_by(self, node: str) -> set[str]:
        """The constraints with evaluations of a node, old evaluations included. O(cells of rates)."""
        mine = {constraint for constraint in self._waiting if constraint} if node == self._gossip.node_id else set()
        cells = self._gossip.state.rows.each(RATE)
        return mine | {str(cell.key) for cell in cells if cell.replica.node_id == node and cell.key != NODE_KEY}

    def knows_constraint(self, id_: str) -> bool:
        """True if a constraint is active, or was evaluated anywhere."""
        return id_ in self._gossip.state.constraints or id_ in self._ids()

    def knows_node(self, name: str) -> bool:
        """True for this node, and for a node with a row."""
        gossip = self._gossip
        return name == gossip.node_id or any(row.node_id == name for row in gossip.state.rows.clock_mark.entries)

    def report(self, half_life: float | None = None, constraint: str | None = None, node: str | None = None) -> RatesReport:
        """The decayed evaluations at a half-life (default: the shortest), of a constraint or node or of all.

        Raises `ConstraintCrdtError`, naming the tracked half-lives, for another half-life. O(cells of rates).
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
        """The constraints with evaluations on any node."""
        return {*self._rates.recorded, *(constraint or NODE_KEY for constraint in self._waiting)}

    def _is_listed(self, rate: ConstraintRate) -> bool:
        return rate.constraint in self._gossip.state.constraints or rate.satisfied + rate.violated > NOTHING_LEFT

    def _one(self, id_: str, half_life: float, node: str | None) -> ConstraintRate:
        """The decayed evaluations of a constraint, counts in memory included."""
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
