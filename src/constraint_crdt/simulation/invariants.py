"""What must hold in every history, checked against a global log of all mutations (DESIGN 7).

The log knows nothing of runs, floors, digests or messages: per replica the list of what it wrote, and per mutation what it ends
(an earlier one under its key in its row, and what a removal names). For any clock that says what must stand there:

- **state**: what lies within the clock and is ended by nothing within it stands, byte for byte, and nothing else does;
- **hash**: equal clocks have equal hashes, and equal hashes equal clocks;
- **readings**: equal clocks read the same positions, tiles, counters, sketches, Bloom filters and increments;
- **counts**: each reading is the sum of what was counted within the clock, so none goes down and none is counted twice; of the
  increments of clients each (client, seq) counts once, whoever took it in;
- **estimates**: a sketch counts in all what was recorded within the clock, and estimates no item lower; of names that were begun
  in different dimensions those count that most rows have;
- **members**: a Bloom filter finds all that was put in within the clock, and has no bits that this did not set;
- **decay**: rates and decaying counters read what is left of all rows by the node's own clock, at each half-life;
- **dot**: no (replica, seq) is used for two mutations;
- **clock**: none goes back while its node lives, runs ahead of what was written, or lies below a floor;
- **time**: a node goes by its own clock or the fastest one that it heard lately, within the bound on skew;
- **evidence**: what a node believes a peer to have, that life of the peer had;
- **write**: a mutation does what was asked, naming all that was observed;
- **refusal**: what is refused changes nothing, and among the well-meaning nothing is refused;
- **durable**: what was acknowledged is there after a restart with its disk, and on all in the end;
- **exchange**, **liveness**: an exchange that nothing disturbs leaves both sides equal; when faults stop, all become equal in time;
- **error**: nothing raises what it does not say it raises.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from constraint_crdt.crdt.cells import REMOVE, Cell, removed_dots
from constraint_crdt.crdt.digest import StateHash
from constraint_crdt.crdt.replica import Dot, Replica
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.simulation.models import Model, Said
from constraint_crdt.types.definition import ADD, definition_value
from constraint_crdt.types.nodes import RETIRE

Counted = Mapping[str, tuple[int, int]]
"""Evaluations by constraint, "" for none in particular: how far a mutation moves them."""
ClockKey = frozenset[tuple[Replica, int]]


BEYOND = 2**62
"""ns: more than any bound on skew."""


class Violation(Exception):
    """An invariant does not hold."""

    def __init__(self, invariant: str, sentence: str) -> None:
        super().__init__(f"{invariant}: {sentence}")
        self.invariant = invariant


@dataclass(slots=True)
class Mutation:
    """One entry of the log."""

    kind: int
    key: object
    data: bytes
    ends: tuple[tuple[Replica, int], ...]
    counted: Counted
    said: tuple[Said, ...]
    expires_at: int | None


@dataclass(slots=True)
class View:
    """What must stand at one node, for the clock that it was at last."""

    clock: dict[Replica, int] = field(default_factory=dict)
    live: dict[tuple[Replica, int], bytes] = field(default_factory=dict)
    adds: dict[tuple[Replica, int], Mutation] = field(default_factory=dict)
    """Those of `live` that add a constraint."""
    counts: dict[str, tuple[int, int]] = field(default_factory=dict)
    by_node: dict[str, tuple[int, int]] = field(default_factory=dict)
    heard: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """How far the clock of each peer was ahead each time that it was heard lately, and when that was by the node's own clock."""
    model: Model = field(default_factory=Model)


def _plus(counts: dict[str, tuple[int, int]], key: str, moved: tuple[int, int]) -> None:
    before = counts.get(key, (0, 0))
    counts[key] = (before[0] + moved[0], before[1] + moved[1])


class Invariants:
    """The log, and the checks against it."""

    def __init__(self) -> None:
        self._log: dict[Replica, list[Mutation]] = {}
        self._last: dict[tuple[Replica, int, object], list[int]] = {}
        self._enders: dict[tuple[Replica, int], list[tuple[Replica, int]]] = {}
        self._views: dict[str, View] = {}
        self._hash_at: dict[ClockKey, StateHash] = {}
        self._read_at: dict[ClockKey, object] = {}
        self._clock_of: dict[StateHash, ClockKey] = {}
        self._been: dict[Replica, tuple[set[ClockKey], set[StateHash], dict[Replica, int]]] = {}
        self._ended_lives = False
        """Some life was said to be over: since then clocks may leave out entries."""
        self.checks = 0
        """States that were compared with the log."""

    # --- the log -----------------------------------------------------------------------------------------------------

    def length(self, replica: Replica) -> int:
        """How many mutations of a replica are in the log."""
        return len(self._log.get(replica, ()))

    def standing(self, name: str, kind: int, key: str) -> list[Dot]:
        """What must stand at a node under one key, as of its last check."""
        log = self._log
        return [
            Dot(replica, seq)
            for replica, seq in self._views[name].live
            if log[replica][seq - 1].kind == kind and log[replica][seq - 1].key == key
        ]

    def expired_by(self, node: GossipNode, time: int) -> list[tuple[object, Dot]]:
        """The constraints, and their adds, that must stand at a node and expired at that time at the latest."""
        log = self._log
        standing = [(log[replica][seq - 1], Dot(replica, seq)) for replica, seq in self._views[node.node_id].live]
        return [(each.key, dot) for each, dot in standing if each.expires_at is not None and each.expires_at <= time]

    def active(self, node: GossipNode) -> set[object]:
        """The constraints that must be active at a node by the time that it goes by, as of its last check."""
        now, adds = node.time.now(), self._views[node.node_id].adds
        return {each.key for each in adds.values() if each.expires_at is None or each.expires_at > now}

    def model(self, name: str) -> Model:
        """What the summaries at a node must read, as of its last check."""
        return self._views[name].model

    def wrote(self, node: GossipNode, lo: int, counted: Counted, said: tuple[Said, ...] = ()) -> list[Cell]:
        """Note what a node wrote above `lo` in its row; returns the cells. `counted`: how far its counts moved with that; `said`:
        what it put into summaries.
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
            self._append(row, cell, counted if last else {}, said if last else ())
            self._ended_lives |= cell.kind == RETIRE
        return cells

    def _append(self, row: list[Mutation], cell: Cell, counted: Counted, said: tuple[Said, ...]) -> None:
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
        row.append(Mutation(cell.kind, cell.key, cell.data, tuple(ends), counted, said, expires_at))

    def lost(self, replica: Replica, upto: int) -> None:
        """A node lost what it wrote above `upto`, which it told nobody: as if it had never been."""
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
        """A node begins, with what it has."""
        self._views[name] = View()
        self.observe(name, node)

    def stopped(self, name: str) -> None:
        """A node is no more, for now."""
        self._views.pop(name, None)

    def observe(self, name: str, node: GossipNode) -> None:
        """Check one node as it is now."""
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

    def _advance(self, name: str, view: View, clock: Mapping[Replica, int], own: int) -> None:
        """Bring what must stand up to a later clock. `own`: the time by the node's own."""
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
            for each in mutation.said:
                view.model.take(replica, each, own)
        view.clock = dict(clock)

    def _difference(self, name: str, node: GossipNode, view: View) -> str:
        """A sentence on what should stand and does not, or the other way round."""
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
        if any(seq > latest.get(replica, 0) for replica, seq in clock.items()):  # not so where it came from an old copy of its disk
            latest |= {replica: seq for replica, seq in clock.items() if seq > latest.get(replica, 0)}

    def _check_readings(self, name: str, node: GossipNode, view: View) -> None:
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
        """A peer told a node what time it is. Every telling counts for a while: messages may be late, so the highest does.

        `time` None: it told something that cannot be seen here, so nothing can be said of it for as long as that counts.
        """
        own, heard = node.time.own(), self._views[name].heard
        if time is None:
            time = own + BEYOND
        lately = [(offset, at) for offset, at in heard.get(peer, ()) if own - at <= node.time.heard_for]
        heard[peer] = [*lately, (time - own, own)]

    @staticmethod
    def _check_time(name: str, node: GossipNode, view: View) -> None:
        time, own = node.time, node.time.own()
        ahead = time.now() - own
        if not 0 <= ahead <= time.max_skew:
            raise Violation("time", f"{name} goes by a time that is {ahead} ns ahead of its own clock")
        for peer, heard in view.heard.items():
            offset = max((offset for offset, at in heard if 0 <= own - at <= time.heard_for), default=0)
            if peer not in node.state.retirements and ahead < offset <= time.max_skew:
                raise Violation("time", f"{name} goes by a time that is behind that of {peer}, which it has just heard")

    def check_evidence(self, name: str, node: GossipNode, peer_name: str) -> None:
        """What a node believes one peer to have, that life of the peer had. A clock that leaves out ended lives may read lower."""
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
        """A node knows at least that."""
        clock = self._views[name].clock
        for replica, seq in known:
            if clock.get(replica, 0) < seq:
                raise Violation(invariant, f"{name} does not know {replica} {seq}, only up to {clock.get(replica, 0)}")
