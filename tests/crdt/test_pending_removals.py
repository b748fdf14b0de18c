"""Removals that name cells which have not arrived: kept until the cell arrives, in each copy of its own, and no longer."""

import pytest

from constraint_crdt import Replica
from constraint_crdt.crdt.cells import ADD, Cell, Run, make_cell, make_removal
from constraint_crdt.crdt.rows import Rows

A, B, C = Replica("a", 1), Replica("b", 1), Replica("c", 1)


def run(replica: Replica, *cells: tuple[int, Cell], lo: int = 0, hi: int = 0) -> Run:
    """A run whose cells have these seqs, up to the last of them or to `hi`."""
    for seq, cell in cells:
        cell.replica, cell.seq = replica, seq
        if cell.key == 0:
            cell.key = seq
    return Run(replica, lo, max(hi, *(seq for seq, _ in cells)), [cell for _, cell in cells])


def add(seq: int, id_: str = "x") -> tuple[int, Cell]:
    return seq, make_cell(ADD, id_, None)


def removal(seq: int, named: int, id_: str = "x", replica: Replica = A) -> tuple[int, Cell]:
    """A removal of the add of one constraint up to one seq."""
    return seq, make_removal([(id_, [(replica, named)])])


def adds(rows: Rows) -> list[tuple[object, Replica, int]]:
    return sorted((str(cell.key), cell.replica, cell.seq) for cell in rows.each(ADD))


@pytest.mark.parametrize("named", [(5, 3), (3, 5)])
def test_of_two_removals_of_one_slot_the_higher_seq_decides(named: tuple[int, int]) -> None:
    rows = Rows()
    rows.apply([run(B, *(removal(seq, each) for seq, each in enumerate(named, start=1)))])
    rows.apply([run(A, add(5))])
    assert adds(rows) == []
    rows.apply([run(A, add(6), lo=5)])
    assert adds(rows) == [("x", A, 6)], "beyond what either removal names"


@pytest.mark.parametrize("named", [(5, 3), (3, 5)])
def test_removals_of_one_slot_by_two_writers_count_together(named: tuple[int, int]) -> None:
    rows = Rows()
    for writer, each in zip((B, C), named, strict=True):
        rows.apply([run(writer, removal(1, each))])
    rows.apply([run(A, add(4), hi=4)])
    assert adds(rows) == []


def test_collecting_keeps_what_has_not_arrived() -> None:
    rows = Rows()
    rows.apply([run(B, removal(1, 5))])
    assert rows.collect() == 0
    rows.apply([run(A, add(5))])
    assert adds(rows) == []


def test_collecting_forgets_what_has_arrived() -> None:
    rows = Rows()
    rows.apply([run(B, removal(1, 2), removal(2, 2, "y"), removal(3, 9, "y", C))])
    rows.apply([run(A, add(2))])
    assert rows.collect() == 2
    assert rows._pending == {(ADD, "y"): {C: 9}}, "neither the slots nor the rows of what has arrived take memory"
    rows.apply([run(C, add(9, "y"))])
    assert (rows.collect(), rows._pending, adds(rows)) == (1, {}, [])


def test_a_removal_of_what_is_within_the_clock_leaves_nothing_pending() -> None:
    rows = Rows()
    rows.apply([run(A, add(2))])
    rows.apply([run(B, removal(1, 2))])
    assert (adds(rows), rows._pending) == ([], {})


def test_a_copy_has_the_pending_removals() -> None:
    rows = Rows()
    rows.apply([run(B, removal(1, 5))])
    twin = rows.copy()
    twin.apply([run(A, add(5))])
    assert adds(twin) == []


def test_the_pending_removals_of_a_copy_are_its_own() -> None:
    rows = Rows()
    rows.apply([run(B, removal(1, 5))])
    twin = rows.copy()
    twin.apply([run(C, removal(1, 9), removal(2, 9, "y"))])
    for each, expected in ((rows, [("x", A, 9), ("y", A, 8)]), (twin, [])):
        each.apply([run(A, add(8, "y"), add(9))])
        assert adds(each) == expected
