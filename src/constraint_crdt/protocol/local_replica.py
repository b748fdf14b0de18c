"""When a node removes adds that have expired (DESIGN 2, Lifetimes).

An expiry is only a reading; the cells go by an ordinary removal that names exactly the expired adds. Anybody may write it, and it
does not matter if several do, but it should not be written too early, nor by everybody.

Rules kept here:

- Not before an add has been over for twice the bound on clock skew: then it is over by every clock that is within the bound.
- The node that wrote the add removes it. If it does not (it is gone), the others do: later, and one after the other in the order of
  their names, so that not all of a fleet write the same.
- A node whose own clock is in doubt removes nothing: it may be the one that is an hour ahead. Nor does one that knows of others
  and has heard the clock of none of them lately: it is cut off, so nothing would be gained.

LocalReplica: one replica of the state and what its own node does to it. No exchange, no I/O.

Rules kept here:

- A life of mine of which others know more than I do is over: the next write starts a new one.
- What the node cannot do leaves no trace: each write raises before anything has changed.
- Readings that depend on time go by hybrid time; what a write says of when it was made goes by the node's own clock.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from typing import TypeVar

from constraint_crdt.crdt.cells import Cell
from constraint_crdt.crdt.clock import SECOND, HybridClock, VectorClock
from constraint_crdt.crdt.digest import StateHash
from constraint_crdt.crdt.limits import DURATION_MAX, Limits
from constraint_crdt.crdt.replica import Replica, check_id, check_replica
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.expression.evaluation import Evaluation, evaluate
from constraint_crdt.protocol.codec import WIRE_VERSION
from constraint_crdt.state import ConstraintState
from constraint_crdt.types.definition import ADD, Duration, Labels, Severity, Timestamp, check_definition, check_labels, expiry_time
from constraint_crdt.types.orset import Change
from constraint_crdt.types.register import Position

OTHERS_AFTER = 60 * SECOND
"""ns that each node waits longer than the one before it, for adds that another node wrote."""

SLACK = 64
"""Adds of others for which nothing is tidied up."""


class ExpiredAdds:
    """The expired adds of a state that somebody is to remove, as one of its nodes sees it. O(log n) for each."""

    def __init__(self, state: ConstraintState, time: HybridClock, *, others_after: int = OTHERS_AFTER) -> None:
        """`others_after`: see `OTHERS_AFTER`."""
        self._state = state
        self._time = time
        self._others_after = others_after
        self._of_others: list[tuple[int, Replica, int, Cell]] = []
        self._again: list[Cell] = []
        self._most = SLACK

    def due(self, node_id: str, *, alone: bool, most: int) -> list[Cell]:
        """The adds that this node is to remove now, `most` of them. `alone`: it knows of no other node.

        Each is given once, unless it is put back.
        """
        offsets = self._time.offsets
        if self._time.in_doubt or not (alone or offsets):
            return []
        over = self._time.now() - 2 * self._time.max_skew
        due, self._again = self._again[:most], self._again[most:]
        for expires_at, cell in self._state.constraints.take_expired(over, most - len(due)):
            if cell.replica.node_id == node_id:
                due.append(cell)
            else:
                heappush(self._of_others, (expires_at, cell.replica, cell.seq, cell))
        turn = 1 + sum(peer < node_id for peer in offsets)
        while self._of_others and self._of_others[0][0] <= over - turn * self._others_after and len(due) < most:
            due.append(heappop(self._of_others)[3])
        self._tidy()
        return list(filter(self._stands, {(cell.replica, cell.seq): cell for cell in due}.values()))

    def put_back(self, adds: Iterable[Cell]) -> None:
        """These could not be removed: they are due again."""
        self._again += adds

    def _stands(self, cell: Cell) -> bool:
        return self._state.rows.get(ADD, cell.key, cell.replica) is cell

    def _tidy(self) -> None:
        """Let go of those that somebody removed, if they may be most."""
        if len(self._of_others) > self._most:
            self._of_others = [each for each in self._of_others if self._stands(each[3])]
            heapify(self._of_others)
            self._most = 2 * len(self._of_others) + SLACK


Result = TypeVar("Result")

NEVER = -1
"""No seq: what a life wrote that must not write again."""


class LocalReplica:
    """The replica of one node: read it, write to it."""

    def __init__(
        self,
        node_id: str,
        *,
        incarnation: int,
        now: Callable[[], int],
        renew: Callable[[], int],
        fleet: str,
        limits: Limits,
        max_skew: float,
    ) -> None:
        """See `GossipNode`."""
        self.replica = check_replica(node_id, incarnation)
        self.fleet = check_id(fleet, "a fleet name")
        self.time = HybridClock(now, max_skew=_skew(max_skew))
        """What time it is, by my own clock and those of the peers."""
        self.state = ConstraintState(Rows(limits=limits), now=self.time.now, own_time=now, max_skew=max_skew)
        self.labels: Mapping[str, str] = {}
        """What this node is labelled with: constraints may apply to some labels only."""
        self._now = now
        self._expired = ExpiredAdds(self.state, self.time)
        self._renew = renew
        self._written = 0

    def resume(self, incarnation: int, *, vouched: bool) -> None:
        """Go on as the life that a store remembers, whose rows were put into the state before.

        `vouched`: nothing that this life told others can be missing in them. If not, the next write starts another life.
        """
        self.replica = check_replica(self.node_id, incarnation)
        self._written = self.state.rows.seq(self.replica) if vouched else NEVER

    @property
    def goes_on(self) -> bool:
        """This life may write: nobody is known to know more of it than this node does."""
        return self.state.rows.seq(self.replica) == self._written

    # --- reading -------------------------------------------------------------------------------------------------------

    @property
    def node_id(self) -> str:
        """The node's name, the same in all of its lives."""
        return self.replica.node_id

    @property
    def state_hash(self) -> StateHash:
        """Equal exactly where knowledge is equal."""
        return self.state.state_hash

    @property
    def constraints_hash(self) -> StateHash:
        """Equal where the active definitions are equal."""
        return self.state.constraints_hash

    @property
    def clock(self) -> VectorClock:
        """Up to where each replica's row is accounted for here. O(rows) after a change."""
        return self.state.clock

    # --- writing -------------------------------------------------------------------------------------------------------

    def add_constraint(
        self,
        id_: str,
        *,
        when: str | None = None,
        severity: str = Severity.WARNING,
        about: str | None = None,
        on: Labels | None = None,
        ttl: Duration | float | None = None,
        until: Timestamp | int | None = None,
        at: int | None = None,
    ) -> Change:
        """Make a constraint active, or give it this definition in place of those known here.

        `on`: the labels of the nodes that it applies to. `ttl`: how long it lasts (a `timedelta`, or seconds); `until`: when it
        ends (an aware `datetime`, or ns since the epoch); it lasts until it is removed if neither is given. `at`: when it is said
        to have been added, in ns since the epoch.
        Raises `ExpressionError` for a `when` that cannot be used and `ConstraintCrdtError` for what is out of bounds.
        """
        expires_at = None if ttl is None and until is None else expiry_time(ttl, until, self.time.now())
        definition = check_definition(when, severity, about, on, expires_at)
        if definition.when is not None:
            from constraint_crdt.expression import compile_expression

            compile_expression(definition.when)
        return self.write(lambda me: self.state.constraints.put(id_, definition, node=me, at=at))

    def remove_constraint(self, id_: str) -> None:
        """End a constraint. Raises `KeyError` if it is not active here; then nothing changes."""
        if id_ not in self.state.constraints:
            raise KeyError(id_)
        self.write(lambda me: self.state.constraints.remove(id_, node=me))

    def record(self, satisfied: int = 0, violated: int = 0, *, constraint: str | None = None) -> None:
        """Count evaluations, of one constraint or of none in particular. Raises `ValueError` for a negative number."""
        self.write(lambda me: self.state.metrics.record(me, satisfied, violated, constraint=constraint))

    def record_all(self, counts: Mapping[str | None, tuple[int, int]]) -> None:
        """Count (satisfied, violated) evaluations of several constraints, None for none in particular, as one transaction."""
        self.write(lambda me: self.state.metrics.record_all(me, counts))

    def record_satisfied(self, count: int = 1, *, constraint: str | None = None) -> None:
        """Count evaluations that held."""
        self.record(count, 0, constraint=constraint)

    def record_violations(self, count: int = 1, *, constraint: str | None = None) -> None:
        """Count evaluations that did not hold."""
        self.record(0, count, constraint=constraint)

    def fold(self, ids: Iterable[str]) -> int:
        """Take this life's own counts of some constraints into the node's total; returns of how many. Totals stay as they are."""
        return self.write(lambda me: self.state.metrics.fold(ids, node=me))

    def update_position(self, position: Position) -> None:
        """Move the fleet's position. Raises `ConstraintCrdtError` for coordinates beyond 32 bits."""
        self.write(lambda me: self.state.register.update(position, node=me, time=self._now()))

    @property
    def retired_by(self) -> str | None:
        """Who retired this node for good; None while nobody did."""
        return self.state.retirements.by(self.node_id)

    def describe(self, software: str, endpoints: Sequence[str] = (), labels: Labels | None = None) -> None:
        """Say what this node runs, where it listens and how it is labelled; without `labels` these stay as they are."""
        said = dict(check_labels(self.labels if labels is None else labels))
        self.write(lambda me: self.state.describe(software, WIRE_VERSION, endpoints, said, node=me))
        self.labels = said

    def check(self, values: Mapping[str, object]) -> list[Evaluation]:
        """Evaluate every active constraint that has a `when` against these measurements and count the results.

        One evaluation per such constraint that applies here, ordered by id; `unknown` counts neither way.
        """
        evaluations = evaluate(self.state.constraints, values, self.labels)
        for each in evaluations:
            self.record(*each.counts, constraint=each.constraint)
        return evaluations

    def write(self, mutate: Callable[[Replica], Result]) -> Result:
        """Have `mutate` write to the state as this life of mine; if others know more of it than I do, as a new one.

        Raises what `mutate` raises, and `ConstraintCrdtError` if this node was retired.
        """
        rows = self.state.rows
        if self.retired_by is not None:
            raise ConstraintCrdtError(f"node {self.node_id} was retired by {self.retired_by}: start it under another name")
        if not self.goes_on:
            self._start_life()
        try:
            return mutate(self.replica)
        finally:
            self._written = rows.seq(self.replica)

    def _start_life(self) -> None:
        """Go on under another incarnation; the life before is over, and is said to be."""
        over, rows = self.replica, self.state.rows
        replica = check_replica(self.node_id, self._renew())
        if replica in rows:
            raise ConstraintCrdtError(f"incarnation {replica.incarnation} of {self.node_id} was used before")
        self.state.retirements.end_lives([over], node=replica)
        self.replica, self._written = replica, rows.seq(replica)


def _skew(seconds: float) -> int:
    """A bound on the skew of clocks in ns. Raises `ConstraintCrdtError` for one that is none."""
    if not 0 <= seconds <= DURATION_MAX:  # NaN is in no range
        raise ConstraintCrdtError(f"the bound on the skew of clocks is in seconds, 0 or more, and cannot be {seconds}")
    return round(seconds * SECOND)
