"""Rows: the one merge rule. A transfer is taken whole or not at all, dead cells stay dead, limits refuse without trace."""

from collections.abc import Sequence

import pytest

from constraint_crdt import ConstraintCrdtError, Replica
from constraint_crdt.crdt.cells import REMOVE, Cell, Run, make_cell, make_removal
from constraint_crdt.crdt.clock import ClockMark, Digest
from constraint_crdt.crdt.limits import MAX_COUNT, Limits
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.types.counters import COUNTS
from constraint_crdt.types.definition import ADD
from constraint_crdt.types.tile_cells import POSITION

A, B = Replica("a", 1), Replica("b", 1)


def run(replica: Replica, lo: int, hi: int, *cells: tuple[int, Cell], floor: int = 0) -> Run:
    for seq, cell in cells:
        cell.replica, cell.seq = replica, seq
        if not isinstance(cell.key, str):
            cell.key = seq
    return Run(replica, lo, hi, [cell for _, cell in cells], floor)


def add(id_: str) -> Cell:
    return make_cell(ADD, id_, None)


def adds(rows: Rows) -> list[tuple[str | int, Replica, int]]:
    return sorted((cell.key, cell.replica, cell.seq) for cell in rows.each(ADD))


def everything(rows: Rows) -> tuple[object, ...]:
    return (rows.state_hash, rows.clock, rows.floors, len(rows), adds(rows), A in rows, B in rows)


def test_of_two_cells_under_one_key_the_later_stands() -> None:
    rows = Rows()
    rows.apply([run(A, 0, 3, (1, add("x")), (3, add("x")))])
    assert adds(rows) == [("x", A, 3)]
    assert len(rows) == 1


def test_a_run_above_my_clock_is_a_gap_and_then_no_run_is_applied() -> None:
    rows = Rows()
    rows.write(B, add("mine"))
    before = everything(rows)
    assert rows.apply([run(B, 1, 2, (2, add("y"))), run(A, 1, 2, (2, add("x")))]) == (False, True, False)
    assert everything(rows) == before


def test_a_dead_cell_is_never_put_back() -> None:
    rows = Rows()
    late = run(A, 0, 1, (1, add("x")))
    rows.apply([run(A, 0, 2)])
    assert rows.apply([late]) == (False, False, False)
    assert adds(rows) == []


def test_the_clock_rises_with_the_cells_also_where_none_are_left() -> None:
    rows = Rows()
    assert rows.apply([run(A, 0, 7, (2, add("x")))]).changed
    assert rows.clock.as_dict() == {A: 7}
    assert rows.apply([run(A, 3, 9)]).changed
    assert (rows.clock.as_dict(), adds(rows)) == ({A: 9}, [("x", A, 2)])


def test_a_transfer_that_overlaps_what_is_known_brings_only_the_rest() -> None:
    rows = Rows()
    rows.apply([run(A, 0, 2, (1, add("x")), (2, add("y")))])
    rows.apply([run(A, 0, 3, (1, add("x")), (2, add("y")), (3, add("z")))])
    assert [id_ for id_, _, _ in adds(rows)] == ["x", "y", "z"]
    assert len(rows) == 3


@pytest.mark.parametrize(
    ("runs", "exact"),
    [
        ([], True),
        ([(A, 2, 3), (B, 0, 1)], True),
        ([(A, 1, 3), (B, 0, 1)], False),
        ([(A, 0, 2)], False),
    ],
)
def test_a_transfer_says_whether_it_began_where_the_clock_stood(runs: list[tuple[Replica, int, int]], exact: bool) -> None:
    rows = Rows()
    rows.apply([run(A, 0, 2)])
    assert rows.apply([run(*each) for each in runs]).exact is exact


def test_many_cells_at_once_stand_as_if_each_had_come_alone() -> None:
    cells = [(add, "x"), (add, "y"), (add, "x")] + [(add, f"k{number}") for number in range(20)]
    for known in ([], ["y"], ["k3", "k4"]):
        together, alone, seen = Rows(), Rows(), list[tuple[int | None, int | None]]()
        together.watch(ADD, lambda old, new, seen=seen: seen.append((old and old.seq, new and new.seq)))  # type: ignore[misc]  # mypy infers no default of a lambda
        for rows in (together, alone):
            for id_ in known:
                rows.write(B, add(id_))
        seen.clear()
        placed = [(seq, make(id_)) for seq, (make, id_) in enumerate(cells, start=1)]
        together.apply([run(A, 0, len(placed), *placed)])
        for seq, cell in placed:
            alone.apply([run(A, seq - 1, seq, (seq, make_cell(ADD, str(cell.key), None)))])
        assert everything(together) == everything(alone)
        assert sorted(seen, key=lambda each: each[1] or 0) == [(1 if seq == 3 else None, seq) for seq in range(1, len(placed) + 1)]
        assert [cell.seq for cell in together.above(A, 0)] == [cell.seq for cell in alone.above(A, 0)]


def test_a_sync_drops_what_it_does_not_list_up_to_its_end_and_takes_floors() -> None:
    rows = Rows()
    rows.apply([run(A, 0, 4, (1, add("x")), (2, add("y")), (4, add("w")))])
    rows.apply([run(A, 0, 3, (2, add("y")), floor=3)], whole=True)
    assert adds(rows) == [("w", A, 4), ("y", A, 2)]
    assert (rows.floors, rows.floor(B)) == ({A: 3}, 0)
    assert rows.serves({A: 3})
    assert not rows.serves({A: 2})


@pytest.mark.parametrize("removal_first", [True, False])
def test_a_removal_acts_on_adds_before_and_after_it(removal_first: bool) -> None:
    rows = Rows()
    transfers = [[run(A, 0, 1, (1, add("x")))], [run(B, 0, 1, (1, make_removal([("x", [(A, 1)])])))]]
    for transfer in reversed(transfers) if removal_first else transfers:
        rows.apply(transfer)
    assert (adds(rows), len(rows)) == ([], 1)
    rows.apply([run(A, 1, 2, (2, add("x")))])
    assert adds(rows) == [("x", A, 2)]


def test_a_removal_is_dropped_once_all_it_names_is_within_the_clock() -> None:
    rows = Rows()
    rows.apply([run(B, 0, 1, (1, make_removal([("x", [(A, 2)])])))])
    assert rows.collect() == 0
    rows.apply([run(A, 0, 2, (2, add("x")))])
    assert (rows.collect(), rows.floors, len(rows)) == (1, {B: 1}, 0)
    assert rows.clock.as_dict() == {A: 2, B: 1}


def test_a_removal_is_no_part_of_the_hash() -> None:
    kept, dropped = Rows(), Rows()
    for rows in (kept, dropped):
        rows.write(A, add("x"))
        rows.write(A, make_removal([("x", [(A, 1)])]))
    dropped.collect()
    assert (len(kept), len(dropped)) == (1, 0)
    assert kept.state_hash == dropped.state_hash


@pytest.mark.parametrize(
    "runs",
    [
        pytest.param([run(A, 0, 3, *((seq, add(f"n{seq}")) for seq in (1, 2, 3)))], id="cells"),
        pytest.param([run(A, 0, 1, (1, add("x"))), run(Replica("c", 1), 0, 1, (1, add("y")))], id="rows"),
    ],
)
@pytest.mark.parametrize("whole", [True, False])
def test_a_transfer_beyond_a_limit_changes_nothing(runs: Sequence[Run], whole: bool) -> None:
    rows = Rows(limits=Limits(rows=2, cells=3))
    rows.write(B, add("mine"))
    before = everything(rows)
    with pytest.raises(ConstraintCrdtError, match="that this node is set to hold"):
        rows.apply(runs, whole=whole)
    assert everything(rows) == before


def test_a_write_beyond_a_limit_changes_nothing() -> None:
    rows = Rows(limits=Limits(rows=1, cells=1))
    rows.write(A, add("x"))
    before = everything(rows)
    for writer in (A, B):
        with pytest.raises(ConstraintCrdtError, match="that this node is set to hold"):
            rows.write(writer, add("y"))
    assert everything(rows) == before
    full = Rows()
    full.apply([run(A, 0, MAX_COUNT)])
    with pytest.raises(ConstraintCrdtError, match="the row of a~1 is full"):
        full.write(A, add("x"))


def test_watchers_see_every_change_of_their_kind() -> None:
    rows, seen = Rows(), list[tuple[int | None, int | None]]()
    rows.watch(ADD, lambda old, new: seen.append((old.seq if old else None, new.seq if new else None)))
    rows.write(A, add("x"))
    rows.write(A, make_cell(COUNTS, "x", [1, 0]))
    rows.write(A, add("x"))
    rows.write(A, make_removal([("x", [(A, 3)])]))
    assert seen == [(None, 1), (1, 3), (3, None)]


def test_whoever_greets_many_new_cells_at_once_hears_of_the_others_one_by_one() -> None:
    rows, changes, greeted = Rows(), list[tuple[int | None, int | None]](), list[list[int]]()
    rows.watch(
        ADD,
        lambda old, new: changes.append((old.seq if old else None, new.seq if new else None)),
        bulk=lambda cells: greeted.append([cell.seq for cell in cells]),
    )
    rows.apply([run(A, 0, 20, *((seq, add(f"k{seq}")) for seq in range(1, 21)))])
    assert (changes, greeted) == ([], [list(range(1, 21))])
    rows.apply([run(A, 20, 40, *((seq, add(f"k{seq + 10 if seq < 31 else seq - 30}")) for seq in range(21, 41)))])
    assert greeted[1:] == [list(range(21, 31))]
    assert changes == [(seq - 30, seq) for seq in range(31, 41)]


@pytest.mark.slow
def test_rows_that_overwrite_the_same_key_for_long_do_not_grow() -> None:
    rows = Rows()
    for number in range(5_000):
        rows.write(A, make_cell(COUNTS, "", [number, 0]))
    rows.write(A, make_cell(POSITION, "", [1, 1, 1]))
    assert len(rows._own(A)._order) < 100
    [everything_above] = rows.since({})
    assert [cell.seq for cell in everything_above.cells] == [5_000, 5_001]


def test_a_copy_goes_its_own_way() -> None:
    rows = Rows()
    rows.write(A, add("x"))
    twin = rows.copy()
    twin.write(A, add("y"))
    twin.write(A, make_removal([("x", [(A, 1)])]))
    assert adds(rows) == [("x", A, 1)]
    assert adds(twin) == [("y", A, 2)]
    assert rows.merge(twin)
    assert rows.state_hash == twin.state_hash
    assert len(list(rows.each(REMOVE))) == 1


# --- bounds ------------------------------------------------------------------------------------------------------------------


def test_of_the_last_seq_a_sync_does_not_list_the_cell_falls() -> None:
    rows = Rows()
    rows.apply([run(A, 0, 3, (2, add("y")), (3, add("z")))])
    rows.apply([run(A, 0, 3, (2, add("y")))], whole=True)
    assert adds(rows) == [("y", A, 2)]


def test_floors_only_rise_and_zeros_are_no_entries() -> None:
    rows = Rows()
    rows.apply([run(A, 0, 5, floor=4), run(B, 0, 2)], whole=True)
    assert (rows.floors, [run_.floor for run_ in rows.whole()]) == ({A: 4}, [4, 0])
    rows.apply([run(A, 0, 5, floor=3), run(B, 0, 2)], whole=True)
    assert rows.floors == {A: 4}
    rows.apply([run(A, 0, 6, floor=6), run(B, 0, 2, floor=1)], whole=True)
    assert rows.floors == {A: 6, B: 1}
    rows.apply([run(A, 0, 9, floor=9)])
    assert rows.floors == {A: 6, B: 1}, "a Delta has none"


def test_a_floor_of_1_is_above_a_clock_without_that_row() -> None:
    rows = Rows()
    rows.write(A, make_removal([]))
    assert rows.collect() == 1
    assert rows.floors == {A: 1}
    assert [rows.serves(clock) for clock in ({}, {B: 1}, {A: 1})] == [False, False, True]


@pytest.mark.parametrize(
    ("upto", "left"), [({}, [1, 2, 3]), ({A: 1}, [2, 3]), ({A: 2}, [3]), ({A: 3, B: 9}, []), ({B: 9}, [1, 2, 3])]
)
def test_only_removals_within_a_clock_are_collected(upto: dict[Replica, int], left: list[int]) -> None:
    rows = Rows()
    for _ in range(3):
        rows.write(A, make_removal([]))
    assert rows.collect(upto) == 3 - len(left)
    assert [cell.seq for cell in rows.each(REMOVE)] == left
    assert rows.floor(A) == 3 - len(left)


def test_a_write_into_a_known_row_needs_no_room_for_another() -> None:
    rows = Rows(limits=Limits(rows=1, cells=3))
    rows.write(A, add("x"))
    rows.write(A, add("y"))
    rows.write_all(A, [])
    with pytest.raises(ConstraintCrdtError, match=r"^more than the 1 rows that this node is set to hold$"):
        rows.write(B, add("y"))
    with pytest.raises(ConstraintCrdtError, match=r"^more than the 3 cells that this node is set to hold$"):
        rows.write_all(A, [add("z"), add("w")])
    rows.write(A, add("z"))
    assert rows.clock.as_dict() == {A: 3}


def test_a_row_may_have_as_many_mutations_as_a_seq_can_count() -> None:
    rows = Rows()
    rows.apply([run(A, 0, MAX_COUNT - 1)])
    rows.write(A, add("last"))
    assert rows.seq(A) == MAX_COUNT


def test_a_copy_has_the_limits_the_secret_and_dicts_of_its_own() -> None:
    rows = Rows(Digest(b"secret"), Limits(cells=4))
    for writer in (A, B):
        rows.write(writer, add("x"))
    before = everything(rows)
    twin = rows.copy()
    assert everything(twin) == before
    assert twin.digest == rows.digest
    twin.write(A, add("x"))
    twin.write(Replica("c", 1), add("x"))
    assert adds(rows) == [("x", A, 1), ("x", B, 1)]
    assert [cell.seq for cell in rows.held(ADD, "x")] == [1, 1]
    assert everything(rows) == before
    twin.write(B, add("y"))
    with pytest.raises(ConstraintCrdtError, match="more than the 4 cells"):
        twin.write(B, add("z"))


def test_the_mark_of_the_clock_is_by_the_digest_of_the_rows_from_the_start() -> None:
    secret = Digest(b"secret")
    rows = Rows(secret)
    for entries in ({}, {A: 1}, {A: 2}, {A: 2, B: 1}):
        if entries:
            rows.write(B if B in entries else A, add("x"))
        mark, spelled_out = rows.clock_mark, ClockMark.of(entries, secret)
        assert (mark.total, mark.count, mark.entries, mark.order) == (
            spelled_out.total, spelled_out.count, spelled_out.entries, sorted(entries),
        )  # fmt: skip
        assert mark.is_by(secret)
        assert rows.clock_mark is mark, "the same one until the clock changes"


def test_a_run_begins_where_it_was_asked_to_also_in_a_shared_row() -> None:
    rows = Rows()
    rows.apply([run(A, 0, 3, (1, add("x")), (2, add("y")), (3, add("z")))])
    rows.write(B, add("x"))
    rows.write(B, add("y"))
    for replica, hi in ((A, 3), (B, 2)):
        for lo in range(hi):
            for [found] in (rows.runs([(replica, lo)]), rows.since({A: 3, B: 2, replica: lo})):
                assert (found.replica, found.lo, found.hi) == (replica, lo, hi)
                assert [cell.seq for cell in found.cells] == list(range(lo + 1, hi + 1))


def test_a_whole_row_is_one_run_until_it_changes() -> None:
    rows = Rows()
    rows.write(A, add("x"))
    [first] = rows.since({})
    assert rows.since({}) == rows.runs([(A, 0)]) == [first]
    rows.apply([run(A, 0, 1)])
    assert rows.runs([(A, 0)]) == [first], "what is known already changes nothing"
    rows.write(A, add("y"))
    [second] = rows.runs([(A, 0)])
    assert second is not first
    assert ([cell.seq for cell in first.cells], [cell.seq for cell in second.cells]) == ([1], [1, 2])


def test_the_entries_of_a_clock_stay_as_they_were_taken() -> None:
    rows = Rows()
    rows.write(A, add("c"))
    entries, mark = rows.clock_entries, rows.clock_mark
    assert rows.clock_entries is entries, "the same until the clock changes"
    rows.write(A, add("d"))
    assert (entries, mark.entries) == ({A: 1}, {A: 1})
    assert (rows.clock_entries, rows.clock_mark.entries, rows.clock_count) == ({A: 2}, {A: 2}, 2)
    rows.apply([run(B, 0, 1, (1, add("e")))])
    assert (rows.clock_entries, rows.clock_count) == ({A: 2, B: 1}, 3)
    assert entries == {A: 1}


def test_the_hash_and_sum_of_a_kind_are_those_of_its_cells_alone() -> None:
    rows = Rows(Digest(b"secret"))
    assert (rows.kind_sum(ADD), rows.kind_hash(ADD)) == (0, rows.digest.state(0, 0))
    rows.write_all(A, [add("x"), add("y"), make_cell(COUNTS, "x", [1, 0])])
    total = sum(cell.digest for cell in rows.each(ADD))
    assert (rows.kind_sum(ADD), rows.kind_hash(ADD)) == (total, rows.digest.state(total, 0))


def test_the_table_of_a_kind_without_cells_is_empty_and_follows_what_comes() -> None:
    rows = Rows()
    table = rows.table(ADD)
    assert dict(table) == {}
    rows.write(A, add("x"))
    assert list(table) == ["x"]


def test_the_cells_that_fell_are_told_to_the_store() -> None:
    rows = Rows()
    assert rows.take_dropped() == []
    x = rows.write(A, add("x"))
    rows.write(A, make_removal([("x", [(A, 1)])]))
    assert rows.take_dropped() == [x]
    assert rows.take_dropped() == []
