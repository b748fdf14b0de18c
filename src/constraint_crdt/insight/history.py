"""The recent past of a fleet: the changes of definitions, and the rates at which constraints were satisfied and violated.

Counts change all the time in a measuring fleet, so full state hashes rarely agree at any instant. The useful question is whether a
peer enforces the same constraints. The peer does if its clock covers, in every row, the last mutation of a definition, and has no
mutation unknown here: `DefinitionClock`.

`ChangeLog` keeps the latest changes of definitions, with the time at which each became known here and the time at which each peer
first showed the change in its clock. The log is bounded, separately for additions and removals. Dropped changes, and changes from
before the start, have no time (None). A removal stays in the log after its cell was dropped, for peers returning later.

`NodeRates` has the evaluations of this node, and the answers for the fleet. Each evaluation is counted at once and decays in memory
until the count is written, at most a cell per constraint and interval. Counts in memory show in the answers of this node. A node
killed before writing loses the counts in memory; the exact counts are in the metrics.

`MessageSizes` compares the requests that a peer answered lately with those that it did not. A path that drops long packets without
a word passes each short request and no long one: a long one stalls its link until the link ends, and so again on the next. Rules:

- A short request (`SHORT`) fits into a packet of any path. One that fails says nothing: it may be queued behind a long one.
- Nothing is concluded from fewer than `FEWEST_FAILURES`, nor while nothing passes.
- Answers are not counted. A node that has much to tell a peer tells it in requests of its own rounds, too.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice, repeat
from typing import NamedTuple

from constraint_crdt.crdt.cells import REMOVE, Cell, core, removed_dots
from constraint_crdt.crdt.digest import Dot, Replica
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.operations.counts import ConstraintRate, NodeRate, RatesReport
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.types.decay import LN2, NODE_KEY, RATE, Pair, Rates, decayed, rates_of
from constraint_crdt.types.definition import ADD


class DefinitionClock:
    """The seq of the last mutation of a definition in each row."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._last: dict[Replica, int] = {}
        rows.watch(ADD, self._changed, bulk=self._came)
        rows.watch(REMOVE, self._removed)
        for kind, watcher in ((ADD, self._changed), (REMOVE, self._removed)):
            for cell in rows.each(kind):
                watcher(None, cell)

    def _came(self, cells: Sequence[Cell]) -> None:
        for replica, _, seq in core.row_spans(cells):
            self._last[replica] = max(seq, self._last.get(replica, 0))

    def _changed(self, _fell: Cell | None, new: Cell | None) -> None:
        if new is not None and new.seq > self._last.get(new.replica, 0):
            self._last[new.replica] = new.seq

    def _removed(self, fell: Cell | None, new: Cell | None) -> None:
        """A removal counts if it ends a definition. Other removals end tiles, counts, and so on."""
        if new is not None and any(removed.kind == ADD for removed in removed_dots(new)):
            self._changed(fell, new)

    @property
    def dots(self) -> tuple[Dot, ...]:
        """These mutations, ordered. O(rows)."""
        return tuple(sorted(Dot(replica, seq) for replica, seq in self._last.items()))

    def covered_by(self, clock: Mapping[Replica, int]) -> bool:
        """True for a clock with exactly the definitions known here. O(rows).

        Dropped removals lie at or below the floor of their row. A clock beyond ours may have more definitions: False.
        """
        seq = self._rows.seq
        return (
            all(clock.get(replica, 0) >= last for replica, last in self._last.items())
            and all(clock.get(replica, 0) >= floor for replica, floor in self._rows.floors.items())
            and all(mark <= seq(replica) for replica, mark in clock.items())
        )


ADDITIONS = 10_000
REMOVALS = 10_000
"""The latest changes kept, at most."""

HEARD = 200_000
"""Times kept of peers showing changes. The times of the oldest changes are dropped first."""


class LoggedChange:
    """A mutation of definitions, with its times."""

    __slots__ = ("dot", "heard", "known_at", "removed")

    def __init__(self, dot: Dot, known_at: int | None, removed: Mapping[str, tuple[Dot, ...]] | None) -> None:
        self.dot = dot
        self.known_at = known_at
        """ns since the epoch by this node's clock; None for a change from before the start."""
        self.removed = removed
        """For a removal: the ended additions, by constraint."""
        self.heard: dict[str, int] = {}
        """The time at which each peer first showed the change, in ns since the epoch by this node's clock."""


class ChangeLog:
    """Follows the definitions of a state, from `begin` on."""

    def __init__(self, rows: Rows, now: Callable[[], int]) -> None:
        self._rows = rows
        self._now = now
        self._begun = False
        self._first = self._next = 0
        self._changes: dict[int, LoggedChange] = {}
        self._numbers: dict[Dot, int] = {}
        self._additions: deque[int] = deque()
        self._removals: deque[int] = deque()
        self._removed: dict[str, list[Dot]] = {}
        self._open: dict[str, list[int]] = {}
        self._seen: dict[str, int] = {}
        self._times = 0
        self._fresh: deque[tuple[int, Cell]] = deque(maxlen=ADDITIONS)
        """Additions without an entry yet. Of 100,000 additions at once most never need an entry."""
        rows.watch(ADD, self._added, bulk=self._came)
        rows.watch(REMOVE, self._removal)

    def begin(self) -> None:
        """The node starts. Changes known by now have no time; removals in the state are kept without a time."""
        self._begun = True
        for cell in self._rows.each(REMOVE):
            self._note_removal(cell, None)

    # --- reading -----------------------------------------------------------------------------------------------------

    def change(self, dot: Dot) -> LoggedChange | None:
        """The entry of a mutation; None without an entry."""
        self._take_fresh()
        number = self._numbers.get(dot)
        return None if number is None else self._changes[number]

    def removals(self, id_: str) -> list[LoggedChange]:
        """The removals of additions of a constraint, in the order in which they became known."""
        return [change for dot in self._removed.get(id_, ()) if (change := self.change(dot)) is not None]

    # --- following ---------------------------------------------------------------------------------------------------

    def showed(self, peer: str, clock: Mapping[Replica, int]) -> None:
        """A peer gave evidence of this clock. O(changes not shown by the peer before)."""
        self._take_fresh()
        waiting = [*self._open.get(peer, ()), *range(max(self._seen.get(peer, 0), self._first), self._next)]
        self._seen[peer] = self._next
        still, now = [], self._now()
        for number in waiting:
            change = self._changes.get(number)
            if change is None:
                continue
            if clock.get(change.dot.replica, 0) < change.dot.seq:
                still.append(number)
            elif peer not in change.heard:
                change.heard[peer] = now
                self._times += 1
        self._open[peer] = still
        while self._times > HEARD:
            self._forget(min(self._changes))

    def lost(self, peer: str) -> None:
        """A peer has a new incarnation: drop its times. O(changes)."""
        for change in self._changes.values():
            if change.heard.pop(peer, None) is not None:
                self._times -= 1
        self._open.pop(peer, None)
        self._seen.pop(peer, None)

    def _added(self, _old: Cell | None, new: Cell | None) -> None:
        if new is not None and self._begun:
            self._fresh.append((self._now(), new))

    def _came(self, cells: Sequence[Cell]) -> None:
        if self._begun:
            self._fresh.extend(zip(repeat(self._now()), cells[-ADDITIONS:]))

    def _take_fresh(self) -> None:
        while self._fresh:
            at, cell = self._fresh.popleft()
            self._remember(LoggedChange(Dot(cell.replica, cell.seq), at, None), self._additions, ADDITIONS)

    def _removal(self, _old: Cell | None, new: Cell | None) -> None:
        if new is not None and self._begun:
            self._note_removal(new, self._now())

    def _note_removal(self, cell: Cell, at: int | None) -> None:
        removed: dict[str, list[Dot]] = {}
        for each in removed_dots(cell):
            if each.kind == ADD:
                removed.setdefault(each.key, []).append(Dot(each.replica, each.seq))
        dot = Dot(cell.replica, cell.seq)
        if not removed or dot in self._numbers:
            return
        for id_ in removed:
            self._removed.setdefault(id_, []).append(dot)
        self._remember(LoggedChange(dot, at, {id_: tuple(dots) for id_, dots in removed.items()}), self._removals, REMOVALS)

    def _remember(self, change: LoggedChange, kind: deque[int], most: int) -> None:
        if change.dot in self._numbers:
            return  # a repair put its cell back
        number, self._next = self._next, self._next + 1
        self._changes[number], self._numbers[change.dot] = change, number
        kind.append(number)
        while len(kind) > most:
            self._forget(kind.popleft())

    def _forget(self, number: int) -> None:
        change = self._changes.pop(number, None)
        if change is None:
            return  # its times were too many: it was forgotten before
        del self._numbers[change.dot]
        self._times -= len(change.heard)
        for id_ in change.removed or ():
            dots = self._removed[id_]
            dots.remove(change.dot)
            if not dots:
                del self._removed[id_]
        while self._first < self._next and self._first not in self._changes:
            self._first += 1


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
    def waiting(self) -> int:
        """The constraints with counts in memory that are not written."""
        return len(self._waiting)

    def write_waiting(self, most: int | None = None) -> None:
        """Write the counts in memory, of so many constraints at most. Counts stay in memory if the write fails, as do those beyond
        2**63 - 1, to decay there.
        """
        now = self._now()
        left = {constraint: self._left(constraint, now) for constraint in islice(self._waiting, most)}
        refused = self._gossip.write(lambda me: self._rates.record_each_left(me, left))
        for constraint in left:
            waiting = self._waiting.pop(constraint)
            if constraint in refused:
                self._waiting[constraint] = waiting  # behind those that were not tried yet

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


SHORT = 1000
"""Bytes of a request that fits into a packet of any path, with headers: 1,280 bytes (RFC 8200)."""

SIZES_FOR = 600.0
"""Seconds for which a request counts."""

FEWEST_FAILURES = 3
FAILURES_KEPT = 64
SIZED_PEERS = 1000
"""Peers whose requests are compared, at most."""


class SizeLimit(NamedTuple):
    """A length above which requests do not reach a peer."""

    peer: str
    passed: int
    """The longest request that it answered lately, in bytes."""
    failed: int
    """The shortest request that it did not, in bytes."""
    tries: int
    """Requests that it did not."""


class _Sizes(NamedTuple):
    """The requests to a peer: pairs of a time and a length in bytes."""

    answered: deque[tuple[float, int]]
    """Each longer than those after it."""
    failed: deque[tuple[float, int]]


class MessageSizes:
    """Which lengths of requests reach each peer. Times are in seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._peers: OrderedDict[str, _Sizes] = OrderedDict()

    def requested(self, peer: str, size: int, now: float, *, answered: bool) -> None:
        """A request of this length got its answer, or none in time."""
        sizes = self._of(peer)
        if answered:
            while sizes.answered and sizes.answered[-1][1] <= size:
                sizes.answered.pop()
            sizes.answered.append((now, size))
        elif size > SHORT:
            sizes.failed.append((now, size))

    def limits(self, now: float) -> Iterator[SizeLimit]:
        """The peers that no long message reaches, while short ones do. O(peers)."""
        for peer, (answered, failed) in sorted(self._peers.items()):
            for kept in (answered, failed):
                while kept and now - kept[0][0] > SIZES_FOR:
                    kept.popleft()
            if len(failed) >= FEWEST_FAILURES and answered and answered[-1][0] > failed[0][0]:
                longest, shortest = answered[0][1], min(size for _, size in failed)
                if longest < shortest:
                    yield SizeLimit(peer, longest, shortest, len(failed))

    def _of(self, peer: str) -> _Sizes:
        sizes = self._peers.get(peer)
        if sizes is None:
            if len(self._peers) >= SIZED_PEERS:
                self._peers.popitem(last=False)
            sizes = self._peers[peer] = _Sizes(deque(), deque(maxlen=FAILURES_KEPT))
        return sizes
