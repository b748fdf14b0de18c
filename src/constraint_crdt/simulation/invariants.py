"""The invariants of every history, checked against a global log of all mutations (docs/design/invariants.md).

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
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from constraint_crdt.crdt.cells import REMOVE, Cell, removed_dots
from constraint_crdt.crdt.clock import MEASUREMENTS, TRAVEL, Dot, Replica, StateHash
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.simulation.models import Contribution, Model
from constraint_crdt.types.budgets import NO_HOLDS, Known, mark_of
from constraint_crdt.types.definition import ADD, definition_value
from constraint_crdt.types.nodes import RETIRE

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
        holds = known.holds.get(me, NO_HOLDS).holds
        budget.holders[me.node_id, me.incarnation] = {each.id: (each.amount, each.until) for each in holds}
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
        lately = [(offset, at) for offset, at in heard.get(peer, ()) if own - at <= node.time.heard_for]
        if time is None or _falling([*(offset for offset, _ in lately), time - own]) > MEASUREMENTS:  # a node keeps no more
            time = own + BEYOND
        heard[peer] = [*lately, (time - own, own)]

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


def _falling(offsets: list[int]) -> int:
    """How many measurements count now or once higher ones do not any more: those that are higher than all later ones."""
    count, highest = 0, -BEYOND
    for offset in reversed(offsets):
        if offset > highest:
            count, highest = count + 1, offset
    return count


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
