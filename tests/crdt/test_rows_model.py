"""Rows against a plain model: the logs of all writers, and how far each node has read them.

What stands at a node follows from its clock alone: of each row up to there the last cell of each slot, unless a removal within the
clock names it. Removals apart: these stand until they are collected, here or at a node whose Sync was taken.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from constraint_crdt import ConstraintCrdtError, Replica
from constraint_crdt.crdt.cells import REMOVE, Cell, Run, make_cell, make_removal, removed_dots
from constraint_crdt.crdt.clock import CausalOrder, ClockMark, Digest, VectorClock
from constraint_crdt.crdt.rows import Applied, Rows
from constraint_crdt.types.counters import COUNTS, make_counts
from constraint_crdt.types.definition import ADD

Dots = set[tuple[Replica, int]]
Slot = tuple[int, str | int, Replica]
REPLICAS = [Replica(name, 1) for name in "abc"]
MANY = 12
"""More cells than rows put one by one."""


@dataclass
class Model:
    """One node, computed anew from the logs of all writers each time that it is read."""

    logs: dict[Replica, list[Cell]]
    clock: dict[Replica, int] = field(default_factory=dict)
    dropped: Dots = field(default_factory=set)
    """Removals that were collected."""
    floors: dict[Replica, int] = field(default_factory=dict)

    def known(self) -> Iterator[Cell]:
        for replica, seq in self.clock.items():
            yield from self.logs[replica][:seq]

    def removals(self) -> list[Cell]:
        """Those that stand."""
        return [cell for cell in self.known() if cell.kind == REMOVE and dot(cell) not in self.dropped]

    def live(self) -> list[Cell]:
        """The cells that stand, removals apart."""
        last = {(cell.kind, cell.key, cell.replica): cell for cell in self.known() if cell.kind != REMOVE}
        for removal in (cell for cell in self.known() if cell.kind == REMOVE):
            for kind, key, replica, seq in removed_dots(removal):
                if (kind, key, replica) in last and last[kind, key, replica].seq <= seq:
                    del last[kind, key, replica]
        return list(last.values())

    def cells(self) -> list[Cell]:
        return sorted([*self.live(), *self.removals()], key=dot)

    def pending(self) -> dict[tuple[int, str | int], dict[Replica, int]]:
        """What removals name beyond the clock."""
        found: dict[tuple[int, str | int], dict[Replica, int]] = {}
        for removal in self.removals():
            for kind, key, replica, seq in removed_dots(removal):
                if seq > self.clock.get(replica, 0):
                    slot = found.setdefault((kind, key), {})
                    slot[replica] = max(seq, slot.get(replica, 0))
        return found

    def collect(self, upto: dict[Replica, int] | None) -> int:
        droppable = [
            cell
            for cell in self.removals()
            if (upto is None or cell.seq <= upto.get(cell.replica, 0))
            and all(named.seq <= self.clock.get(named.replica, 0) for named in removed_dots(cell))
        ]
        for cell in droppable:
            self.dropped.add(dot(cell))
            self.floors[cell.replica] = max(cell.seq, self.floors.get(cell.replica, 0))
        return len(droppable)

    def serves(self, clock: dict[Replica, int]) -> bool:
        return all(clock.get(replica, 0) >= floor for replica, floor in self.floors.items())

    def take(self, other: "Model") -> None:
        """All of another node's state: where it cannot serve a Delta, also what it has dropped."""
        if not other.serves(self.clock):
            self.dropped |= {dot for dot in other.dropped if dot[1] <= other.clock[dot[0]]}
            self.floors |= {replica: seq for replica, seq in other.floors.items() if seq > self.floors.get(replica, 0)}
        self.clock |= {replica: seq for replica, seq in other.clock.items() if seq > self.clock.get(replica, 0)}


def by_replica(runs: Iterable[Run]) -> dict[Replica, tuple[int, int, list[Cell]]]:
    return {run.replica: (run.lo, run.hi, list(run.cells)) for run in runs}


class Node:
    """Rows beside their model, and a watcher that follows every change."""

    def __init__(self, replica: Replica, rows: Rows, model: Model) -> None:
        self.replica, self.rows, self.model = replica, rows, model
        self.watched: dict[Slot, Cell] = {}
        self.marks: list[ClockMark] = []
        for kind in (ADD, COUNTS, REMOVE):
            for cell in rows.each(kind):
                self.follow(None, cell)
            rows.watch(kind, self.follow)

    def follow(self, old: Cell | None, new: Cell | None) -> None:
        slot = next((cell.kind, cell.key, cell.replica) for cell in (old, new) if cell is not None)
        assert self.watched.get(slot) is old
        if new is None:
            del self.watched[slot]
        else:
            self.watched[slot] = new

    def write(self, cells: list[Cell]) -> None:
        self.rows.write_all(self.replica, cells)
        log = self.model.logs[self.replica]
        log += cells
        if log:
            self.model.clock[self.replica] = len(log)

    def check(self) -> None:
        rows, model = self.rows, self.model
        expected = model.cells()
        assert sorted((cell for kind in (ADD, COUNTS, REMOVE) for cell in rows.each(kind)), key=dot) == expected
        assert sorted(self.watched.values(), key=dot) == expected
        assert sorted([*rows.live_cells(), *rows.each(REMOVE)], key=dot) == expected
        assert len(rows) == len(expected)
        assert rows.clock.as_dict() == model.clock
        assert rows.clock_mark.count == sum(model.clock.values())
        assert rows.floors == model.floors
        assert [rows.floor(replica) for replica in REPLICAS] == [model.floors.get(replica, 0) for replica in REPLICAS]
        assert [replica in rows for replica in REPLICAS] == [replica in model.clock for replica in REPLICAS]
        assert rows.state_hash == hash_of(rows.digest, model)
        self.marks.append(rows.clock_mark)
        for mark in self.marks:  # of a mark the changed rows are known, of its entries alone they are found
            entries = mark.entries
            assert rows.ahead_of(mark) == rows.ahead_of(entries)
            assert rows.serves(mark) == rows.serves(entries)
            assert by_replica(rows.since(mark)) == by_replica(rows.since(entries))
        for replica in REPLICAS:
            for lo in range(model.clock.get(replica, 0) + 1):
                assert rows.above(replica, lo) == [cell for cell in expected if cell.replica == replica and cell.seq > lo]
        for cell in expected:
            assert rows.get(cell.kind, cell.key, cell.replica) is cell
            assert cell in rows.held(cell.kind, cell.key)


def dot(cell: Cell) -> tuple[Replica, int]:
    return cell.replica, cell.seq


def hash_of(digest: Digest, model: Model) -> bytes:
    """The hash of a state, from copies of its cells."""
    total = 0
    for cell in model.live():
        again = Cell(cell.kind, cell.key, cell.data, cell.seq, cell.replica)
        digest.fill(cell.replica, [again])
        total += again.digest
    return digest.state(total, sum(digest.clock_entry(replica, seq) for replica, seq in model.clock.items()))


def nodes() -> list[Node]:
    logs: dict[Replica, list[Cell]] = {replica: [] for replica in REPLICAS}
    return [Node(replica, Rows(), Model(logs)) for replica in REPLICAS]


def removal(node: Node, name: str, ahead: int) -> Cell:
    """What ends the adds of a name that stand here; those of one row also as far ahead of it as a broken writer might say."""
    named = {cell.replica: cell.seq for cell in node.rows.held(ADD, name)}
    if ahead:
        other = REPLICAS[ahead % len(REPLICAS)]
        named[other] = node.rows.seq(other) + ahead
    return make_removal([(name, named.items())])


def check_since(sender: Node, clock: dict[Replica, int]) -> None:
    """The runs above a clock hold all that stands above it, each up to where its row is accounted for."""
    runs = {run.replica: run for run in sender.rows.since(clock)}
    mine = sender.model.clock
    assert runs.keys() == {replica for replica, seq in mine.items() if seq > clock.get(replica, 0)}
    assert sender.rows.ahead_of(clock) == sum(mine[replica] - clock.get(replica, 0) for replica in runs)
    assert sender.rows.serves(clock) == sender.model.serves(clock)
    assert sender.rows.writers_since(clock) == {replica.node_id for replica in runs}
    assert sender.rows.writers == {replica.node_id for replica in mine}
    for replica, run in runs.items():
        assert (run.lo, run.hi, run.floor) == (clock.get(replica, 0), mine[replica], 0)
        assert list(run.cells) == [cell for cell in sender.model.cells() if cell.replica == replica and cell.seq > run.lo]


def deliver(sender: Node, reader: Node, overlap: int) -> None:
    """A transfer that a reader at an earlier clock asked for, if the sender can serve it; else all of the sender's state."""
    rows, clock = sender.rows, reader.model.clock
    check_since(sender, clock)
    before = dict(clock), len(reader.model.cells())
    asked = {replica: max(0, clock.get(replica, 0) - overlap) for replica in rows.clock}
    if rows.serves(clock):
        above = [(replica, lo) for replica, lo in asked.items() if lo < rows.seq(replica)]
        runs = rows.runs(above)
        assert [(run.replica, run.lo) for run in runs] == above
        applied = reader.rows.apply(runs)
        exact = all(run.lo == before[0].get(run.replica, 0) for run in runs)
    else:
        runs = rows.whole()
        assert [(run.lo, run.hi, run.floor) for run in runs] == [
            (0, rows.seq(run.replica), rows.floor(run.replica)) for run in runs
        ]
        applied = reader.rows.apply(runs, whole=True)
        exact = all(run.replica not in before[0] for run in runs)
    reader.model.take(sender.model)
    assert reader.rows.writers == {replica.node_id for replica in reader.model.clock}
    changed = before != (reader.model.clock, len(reader.model.cells()))
    assert applied == Applied(changed, False, exact)


def step(fleet: list[Node], at: int, what: str, name: str, number: int) -> None:
    node, other = fleet[at], fleet[(at + 1 + number % (len(fleet) - 1)) % len(fleet)]
    match what:
        case "add":
            node.write([make_cell(ADD, name, None)])
        case "count":
            node.write([make_counts(name, number, 1)])
        case "add many":
            node.write([make_cell(ADD, f"{name}{each % (MANY - number)}", None) for each in range(MANY)])
        case "count many":
            node.write([make_counts(f"{name}{each}", number, 0) for each in range(MANY)])
        case "remove":
            node.write([removal(node, name, 0)])
        case "remove ahead":
            node.write([removal(node, name, number)])
        case "replace":
            node.write([removal(node, name, 0), make_cell(ADD, name, None), make_counts(name, number, 0)])
        case "deliver":
            deliver(node, other, number)
        case "merge":
            before = other.model.clock | {}, len(other.model.cells())
            changed = other.rows.merge(node.rows)
            other.model.take(node.model)
            assert changed == (before != (other.model.clock, len(other.model.cells())))
        case "collect":
            upto = None if number > 1 else dict(other.model.clock)
            assert node.rows.collect(upto) == node.model.collect(upto)
            assert node.rows._pending == node.model.pending()
        case "copy":
            fork = Model(node.model.logs, dict(node.model.clock), set(node.model.dropped), dict(node.model.floors))
            spare = Node(node.replica, node.rows, fork)
            fleet[at] = Node(node.replica, node.rows.copy(), node.model)
            fleet.append(spare)


def check_orders(fleet: Iterable[Node]) -> None:
    """Clocks compare as their entries do."""
    clocks = [node.model.clock for node in fleet]
    for one in clocks:
        for two in clocks:
            least, most = (all(x.get(r, 0) <= y.get(r, 0) for r in REPLICAS) for x, y in ((one, two), (two, one)))
            expected = {
                (True, True): CausalOrder.EQUAL,
                (True, False): CausalOrder.BEFORE,
                (False, True): CausalOrder.AFTER,
                (False, False): CausalOrder.CONCURRENT,
            }[least, most]
            assert VectorClock(one).compare(VectorClock(two)) is expected


WRITES = ("add", "count", "remove", "remove ahead", "replace", "add many", "count many")
steps = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from((*WRITES, "deliver", "deliver", "deliver", "merge", "collect", "copy")),
        st.sampled_from("xy"),
        st.integers(0, 3),
    ),
    max_size=40,
)
EVERYTHING = [
    (at, what, "x", number) for number in range(4) for what in (*WRITES, "deliver", "merge", "collect") for at in range(3)
]
"""Each step by each node."""
ALL_WITH_SYNCS_AND_COPIES = [
    each
    for number in range(4)
    for at in range(3)
    for what in ("add", "replace", "remove ahead", "deliver", "remove", "copy", "collect", "add many", "deliver", "copy", "count")
    for each in ((at, what, "xy"[number % 2], number), ((at + 1) % 3, "deliver", "x", number + 1))
]


@pytest.mark.slow
@given(steps)
@example(EVERYTHING)
@example(ALL_WITH_SYNCS_AND_COPIES)
@example(EVERYTHING[::-1])
def test_rows_are_what_a_plain_model_of_them_is(history: list[tuple[int, str, str, int]]) -> None:
    fleet = nodes()
    frozen: list[Node] = []
    for at, what, name, number in history:
        step(fleet, at, what, name, number)
        frozen += fleet[len(REPLICAS) :]
        del fleet[len(REPLICAS) :]
        fleet[at].check()
    for node in fleet + frozen:
        node.check()
    check_orders(fleet)
    for _ in range(2):
        for sender in fleet:
            for reader in fleet:
                if sender is not reader:
                    deliver(sender, reader, 1)
    assert len({node.rows.state_hash for node in fleet}) == 1
    assert all(node.rows.clock_mark == fleet[0].rows.clock_mark for node in fleet)


def test_states_of_two_secrets_do_not_merge() -> None:
    one, other = Rows(Digest(b"one")), Rows(Digest(b"other"))
    other.write(REPLICAS[0], make_cell(ADD, "x", None))
    with pytest.raises(ConstraintCrdtError, match=r"^states of fleets with different secrets cannot be merged$"):
        one.merge(other)
    assert not len(one)
