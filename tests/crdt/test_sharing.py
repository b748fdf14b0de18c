"""Nodes of one process share rows, runs and clocks: what one of them does, and what it was told, nobody else ever sees."""

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from constraint_crdt import Replica
from constraint_crdt.crdt.cells import REMOVE, Cell, Run, make_cell, make_removal
from constraint_crdt.crdt.clock import ClockMark
from constraint_crdt.crdt.repair import audit, rebuild
from constraint_crdt.crdt.rows import Rows, dots_of
from constraint_crdt.types.counters import COUNTS, make_counts
from constraint_crdt.types.definition import ADD

NODES = 3
KEYS = "xyz"
Shared = Run | ClockMark


def replica(index: int) -> Replica:
    return Replica("abc"[index], 1)


def standing(rows: Rows) -> list[Cell]:
    return [cell for kind in (ADD, COUNTS, REMOVE) for cell in rows.each(kind)]


def seen(rows: Rows) -> object:
    """All that can be read of it. Made without asking for runs or a clock: that is when things become shared."""
    order = {each: [(cell.seq, cell.kind, cell.key, cell.data) for cell in rows.above(each, 0)] for each in rows.seqs}
    cells = {(cell.kind, cell.key, cell.replica, cell.seq, cell.data) for cell in standing(rows)}
    return rows.state_hash, dict(rows.seqs), rows.floors, len(rows), order, cells


def content(each: Shared) -> object:
    if isinstance(each, ClockMark):
        return dict(each.entries), each.total, each.count
    cells = [(cell.replica, cell.seq, cell.kind, cell.key, cell.data) for cell in each.cells]
    return each.replica, each.lo, each.hi, each.floor, each.entry if not each.lo else 0, cells


class Given:
    """What was handed out, which must stay what it was then."""

    def __init__(self) -> None:
        self._each: list[tuple[Shared, object]] = []

    def note(self, *shared: Shared) -> None:
        self._each += [(each, content(each)) for each in shared]

    def changed(self) -> list[Shared]:
        return [each for each, before in self._each if before != content(each)]


# --- what a node can do; `key` also picks the other node, or the cell -----------------------------------------------------


def add(fleet: list[Rows], node: int, key: int, _: Given) -> None:
    fleet[node].write(replica(node), make_cell(ADD, KEYS[key], None))


def count(fleet: list[Rows], node: int, key: int, _: Given) -> None:
    fleet[node].write(replica(node), make_counts(KEYS[key], fleet[node].seq(replica(node)) + 1, 0))


def remove(fleet: list[Rows], node: int, key: int, _: Given) -> None:
    observed = fleet[node].held(ADD, KEYS[key])
    if observed:
        fleet[node].write(replica(node), make_removal([(KEYS[key], dots_of(observed))]))


def merge(fleet: list[Rows], node: int, key: int, given: Given) -> None:
    mine = fleet[node].clock_mark
    given.note(mine, fleet[key].clock_mark, *fleet[key].since(mine.entries))
    fleet[node].merge(fleet[key])


def take_a_sync(fleet: list[Rows], node: int, key: int, given: Given) -> None:
    runs = fleet[key].whole()
    given.note(*runs)
    fleet[node].apply(runs, whole=True)


def ask(fleet: list[Rows], node: int, key: int, given: Given) -> None:
    given.note(*fleet[node].since({}), *fleet[node].since({replica(key): 1}), fleet[node].clock_mark)


def collect(fleet: list[Rows], node: int, _: int, __: Given) -> None:
    fleet[node].collect()


def lose_a_cell(fleet: list[Rows], node: int, key: int, _: Given) -> None:
    cells = standing(fleet[node])
    rebuild(fleet[node], cells[:key] + cells[key + 1 :])


def split(fleet: list[Rows], node: int, key: int, _: Given) -> None:
    """A copy goes on in place of another node's rows, and both write as themselves."""
    if node != key:
        fleet[key] = fleet[node].copy()


Step = Callable[[list[Rows], int, int, Given], None]
STEPS: list[Step] = [add, count, remove, merge, merge, take_a_sync, ask, collect, lose_a_cell, split]
histories = st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, NODES - 1), st.integers(0, NODES - 1)), max_size=25)


@pytest.mark.slow
@given(histories)
@example([(add, 0, 0), (ask, 0, 0), (merge, 1, 0), (add, 0, 1), (count, 0, 0), (count, 0, 0)])
@example([(add, 0, 0), (merge, 1, 0), (merge, 2, 1), (remove, 1, 0), (collect, 1, 0), (lose_a_cell, 2, 0)])
@example([(add, 0, 0), (merge, 1, 0), (merge, 2, 1), (add, 0, 1), (remove, 0, 1), (collect, 0, 0), (take_a_sync, 1, 0)])
def test_what_one_node_does_no_other_sees(history: list[tuple[Step, int, int]]) -> None:
    fleet, given = [Rows() for _ in range(NODES)], Given()
    for step, node, key in history:
        before = [seen(rows) for rows in fleet]
        twins = list(fleet)
        step(fleet, node, key, given)
        for index, rows in enumerate(fleet):
            if index != node and rows is twins[index]:
                assert seen(rows) == before[index], f"{step.__name__} on {node} shows on {index}"
            assert not audit(rows).found
        assert given.changed() == [], f"{step.__name__} changed what was handed out"


def test_a_row_that_came_whole_is_shared_until_it_changes() -> None:
    writer, reader, third = Rows(), Rows(), Rows()
    for key in KEYS:
        writer.write(replica(0), make_cell(ADD, key, None))
    reader.merge(writer)
    third.merge(reader)
    assert writer._rows[replica(0)] is reader._rows[replica(0)] is third._rows[replica(0)]
    writer.write(replica(0), make_cell(ADD, "more", None))
    assert writer._rows[replica(0)] is not reader._rows[replica(0)]
    assert reader._rows[replica(0)] is third._rows[replica(0)]


def test_a_floor_does_not_travel_with_a_shared_row() -> None:
    writer, reader = Rows(), Rows()
    writer.write(replica(0), make_cell(ADD, "x", None))
    writer.write(replica(0), make_removal([("x", [(replica(0), 1)])]))
    writer.write(replica(0), make_cell(ADD, "y", None))
    writer.collect()
    assert reader.merge(writer)
    assert reader.floors == {replica(0): 2}
    assert [run.floor for run in reader.since({})] == [0]
    assert [run.floor for run in reader.whole()] == [2]
