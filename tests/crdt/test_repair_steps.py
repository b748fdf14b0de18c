"""The steps of a repair by themselves: sums of buckets, the cells of some buckets within a size, and what removals name."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt import ConstraintCrdtError, Replica
from constraint_crdt.crdt.cells import REMOVE, Cell, Table, make_cell, make_removal
from constraint_crdt.crdt.limits import Limits
from constraint_crdt.crdt.repair import (
    BUCKETS,
    SUM_BYTES,
    Side,
    audit,
    bucket_bit,
    bucket_sums,
    cells_in,
    decide,
    differing,
    named_dead,
    rebuild,
    replace,
)
from constraint_crdt.crdt.rows import Row, Rows
from constraint_crdt.types.counters import make_counts
from constraint_crdt.types.definition import ADD

A, B = Replica("a", 1), Replica("b", 1)
EVERYTHING = (1 << BUCKETS) - 1


def rows_of(cells: int, replica: Replica = A) -> Rows:
    rows = Rows()
    rows.write_all(replica, [make_cell(ADD, f"{replica.node_id}{number}", None) for number in range(cells)])
    return rows


ROWS = rows_of(600)
CELLS = list(ROWS.live_cells())


def in_bucket(number: int) -> list[Cell]:
    return [cell for cell in CELLS if cell.digest % BUCKETS == number]


@pytest.mark.slow
def test_the_sum_of_a_bucket_is_that_of_its_digests_in_eight_bytes() -> None:
    sums = bucket_sums(ROWS)
    assert sums == b"".join(
        (sum(each.digest for each in in_bucket(number)) % 2**64).to_bytes(8, "big") for number in range(BUCKETS)
    )
    assert bucket_sums(Rows()) == bytes(BUCKETS * SUM_BYTES)


@given(st.sets(st.integers(0, BUCKETS * SUM_BYTES - 1), max_size=5))
def test_a_bucket_differs_if_any_byte_of_its_sum_does(changed: set[int]) -> None:
    mine = bytes(BUCKETS * SUM_BYTES)
    theirs = bytes(at in changed for at in range(BUCKETS * SUM_BYTES))
    assert differing(mine, theirs) == sum(1 << number for number in {at // SUM_BYTES for at in changed})


@pytest.mark.slow
@given(st.sets(st.integers(0, BUCKETS - 1)), st.integers(0, 500))
def test_cells_are_sent_bucket_by_bucket_within_a_size(asked: set[int], max_bytes: int) -> None:
    """The first bucket in any case, and each after it while all of them together are no larger."""
    expected, covered, size = list[Cell](), 0, 0
    for number in sorted(asked):
        size += sum(len(cell.data) for cell in in_bucket(number))
        if covered and size > max_bytes:
            break
        covered |= 1 << number
        expected += in_bucket(number)
    assert cells_in(ROWS, sum(1 << number for number in asked), max_bytes) == (covered, expected)


def test_a_bucket_more_is_sent_where_it_just_fits() -> None:
    numbers = sorted({each.digest % BUCKETS for each in CELLS})[:2]
    size = sum(len(each.data) for number in numbers for each in in_bucket(number))
    asked = sum(1 << number for number in numbers)
    assert cells_in(ROWS, asked, size) == (asked, in_bucket(numbers[0]) + in_bucket(numbers[1]))
    assert cells_in(ROWS, asked, size - 1) == (1 << numbers[0], in_bucket(numbers[0]))


def test_of_several_removals_of_a_slot_the_highest_seq_counts() -> None:
    removals = [make_removal([("x", [(A, seq), (B, 9 - seq)])]) for seq in (1, 5, 3)]
    assert named_dead(removals) == {(ADD, "x", A): 5, (ADD, "x", B): 8}
    assert named_dead([make_removal([("x", [(A, 0)])])]) == {(ADD, "x", A): 0}


# --- what stands ---------------------------------------------------------------------------------------------------------------


def cell(name: str, seq: int, replica: Replica = A) -> Cell:
    made = make_cell(ADD, name, None)
    made.replica, made.seq = replica, seq
    ROWS.digest.fill(replica, [made])
    return made


def both_ways(mine: Side, theirs: Side, dead: dict[tuple[int, str | int, Replica], int]) -> Sequence[Cell]:
    found = decide(mine, theirs, dead)
    assert found == decide(theirs, mine, dead), "both sides decide alike"
    return found


def test_a_removal_fells_a_cell_up_to_its_seq_and_no_later_one() -> None:
    early, late = cell("x", 3), cell("x", 4)
    slot = (ADD, "x", A)
    for held, stands in ((early, []), (late, [late])):
        assert both_ways(Side("a", [held], 0), Side("b", [], 0), {slot: 3}) == stands


def test_a_cell_that_falls_takes_no_other_with_it() -> None:
    dead, live = cell("x", 3), cell("y", 4)
    assert both_ways(Side("a", [dead, live], 0), Side("b", [], 0), {(ADD, "x", A): 3}) == [live]


def test_of_a_bucket_that_one_side_doubts_the_other_side_counts() -> None:
    held = cell("x", 1)
    bit = bucket_bit(held)
    for doubt, other, stands in ((0, 0, True), (bit, 0, False), (0, bit, True), (bit, bit, True), (EVERYTHING ^ bit, 0, True)):
        assert (both_ways(Side("b", [held], doubt), Side("c", [], other), {}) == [held]) is stands


def test_of_two_cells_in_a_slot_the_later_stands() -> None:
    early, late = cell("x", 1), cell("x", 2)
    assert both_ways(Side("a", [early], 0), Side("b", [late], 0), {}) == [late]


@pytest.mark.parametrize("own", [0, 1])
def test_of_two_values_with_the_same_seq_that_of_the_writer_stands(own: int) -> None:
    """Whichever has the larger digest."""
    values = []
    for expires_at in (None, 7):
        made = make_cell(ADD, "x", None if expires_at is None else [None, None, None, None, expires_at])
        made.replica, made.seq = A, 1
        ROWS.digest.fill(A, [made])
        values.append(made)
    held, other = values[own], values[1 - own]
    assert both_ways(Side("a", [held], 0), Side("b", [other], 0), {}) == [held]
    assert both_ways(Side("c", [held], 0), Side("b", [other], 0), {}) == [max(values, key=lambda each: each.digest)]


# --- putting cells in place ----------------------------------------------------------------------------------------------------


def test_replacing_a_bucket_leaves_the_others_and_counts_the_changes() -> None:
    rows = rows_of(40)
    rows.write(A, make_removal([("gone", [(A, 1)])]))
    before, hash_ = list(rows.live_cells()), rows.state_hash
    chosen = before[7]
    bit = bucket_bit(chosen)
    there = [each for each in before if bucket_bit(each) & bit]
    assert replace(rows, bit, there) == 0
    assert replace(rows, bit, [each for each in there if each is not chosen]) == 1
    assert list(rows.live_cells()) == [each for each in before if each is not chosen]
    assert len(rows) == 40, "the removal stands"
    assert replace(rows, bit, there) == 1
    assert (rows.state_hash, audit(rows)) == (hash_, (False, 0))


def test_a_repair_beyond_the_limit_of_cells_changes_nothing() -> None:
    rows = rows_of(3)
    rows.limits = Limits(cells=3)
    hash_, cells = rows.state_hash, list(rows.live_cells())
    with pytest.raises(ConstraintCrdtError, match=r"^more than the 3 cells that this node is set to hold$"):
        rebuild(rows, [*cells, cell("more", 1, B)])
    assert (rows.state_hash, list(rows.live_cells())) == (hash_, cells)
    assert rebuild(rows, cells) == 0


def test_of_several_cells_for_a_slot_the_highest_seq_is_put_in_place() -> None:
    rows = Rows()
    rows.write_all(A, [make_counts("x", 1, 0), make_counts("x", 2, 0), make_counts("x", 3, 0)])
    [last] = rows.live_cells()
    older = Cell(last.kind, last.key, last.data, 1, A)
    for cells in ([older, last], [last, older]):
        assert rebuild(rows, cells) == 0
        assert list(rows.live_cells()) == [last]


def test_a_cell_of_a_kind_or_row_that_was_not_held_is_put_in_place_and_told() -> None:
    rows, changes = rows_of(2), list[tuple[object, object]]()
    counts = make_counts("x", 1, 0)
    counts.replica, counts.seq = A, 2
    rows.digest.fill(A, [counts])
    foreign = cell("foreign", 1, B)
    rows.watch(ADD, lambda old, new: changes.append((old, new)))
    assert rebuild(rows, [*rows.live_cells(), counts, foreign]) == 2
    assert (rows.held(counts.kind, "x"), rows.held(ADD, "foreign")) == ((counts,), (foreign,))
    assert changes == [(None, foreign)]


# --- audits --------------------------------------------------------------------------------------------------------------------


def with_removal() -> tuple[Rows, Cell]:
    """Rows of `a0`, `a1`, `a2`, a removal of `a0`, and `more`; and the removal."""
    rows = rows_of(3)
    removal = rows.write(A, make_removal([("a0", [(A, 1)])]))
    rows.write(A, make_cell(ADD, "more", None))
    return rows, removal


@pytest.mark.parametrize(("ahead", "floor"), [(0, 4), (1000, 5)])
def test_a_damaged_removal_goes_as_if_it_was_collected(ahead: int, floor: int) -> None:
    """Peers below then need a Sync. A damaged seq raises no floor above the clock."""
    rows, removal = with_removal()
    assert rows.take_dropped() == []
    hash_ = rows.state_hash
    removal.digest ^= 1
    removal.seq += ahead
    assert audit(rows) == (True, 0)
    assert (list(rows.each(REMOVE)), rows.floors, rows.state_hash) == ([], {A: floor}, hash_)
    assert (rows.serves({A: floor - 1}), rows.serves({A: floor})) == (False, True)
    assert [(each.kind, each.key, each.data, each.seq, each.replica) for each in rows.take_dropped()] == [(REMOVE, 4, b"", 4, A)]
    assert audit(rows) == (False, 0)


def test_a_damaged_removal_below_a_floor_leaves_the_floor() -> None:
    rows, removal = with_removal()
    rows._floors[A] = 5
    removal.digest ^= 1
    audit(rows)
    assert rows.floors == {A: 5}


def test_a_cell_that_stands_though_it_was_removed_falls_and_its_bucket_is_in_doubt() -> None:
    rows, _ = with_removal()
    hash_, changes = rows.state_hash, list[tuple[str | int | None, str | int | None]]()
    dead = cell("a0", 1)
    rebuild(rows, [*rows.each(REMOVE), *rows.live_cells(), dead])
    rows.take_dropped()
    rows.watch(ADD, lambda old, new: changes.append((old.key if old else None, new.key if new else None)))
    assert audit(rows) == (True, bucket_bit(dead))
    assert (rows.state_hash, rows.held(ADD, "a0"), rows.floors) == (hash_, (), {})
    assert changes == [("a0", None)]
    assert [(each.kind, each.key, each.data, each.seq, each.replica) for each in rows.take_dropped()] == [(ADD, "a0", b"", 5, A)]


def test_the_doubts_about_several_damaged_cells_add_up() -> None:
    rows = rows_of(6)
    damaged = [each for each in rows.live_cells() if each.seq in (2, 4)]
    for each in damaged:
        rows._sums[ADD] += 1
        each.digest += 1
    found, doubt = audit(rows)
    assert found
    for each in damaged:
        assert doubt & bucket_bit(each)
    assert [each.seq for each in rows.live_cells()] == [1, 3, 5, 6]


def test_a_cell_below_the_first_seq_is_damaged_whatever_its_digest() -> None:
    rows = rows_of(3)
    before = list(rows.live_cells())
    zero = cell("zero", 0)
    rebuild(rows, [*before, zero])
    assert audit(rows) == (True, bucket_bit(zero))
    assert list(rows.live_cells()) == before


def test_a_sum_without_cells_is_damage_and_a_table_without_cells_is_none() -> None:
    rows = rows_of(3)
    hash_, unknown = rows.state_hash, 77
    rows._tables[unknown] = Table()
    assert audit(rows) == (False, 0)
    rows._sums[unknown] = 5
    del rows._tables[unknown]
    assert audit(rows) == (True, EVERYTHING)
    assert (rows._sums.get(unknown, 0), rows.state_hash) == (0, hash_)


@pytest.mark.parametrize("order", ["a copy", "one too few"])
def test_a_row_in_another_order_than_its_tables_is_damage(order: str) -> None:
    rows = rows_of(3)
    cells = list(rows.live_cells())
    copies = [Cell(each.kind, each.key, each.data, each.seq, each.replica) for each in cells]
    rows._rows[A] = Row(copies if order == "a copy" else cells[:-1], rows._rows[A].entry)
    assert audit(rows) == (True, EVERYTHING)
    assert audit(rows) == (False, 0)
    assert [id(each) for each in rows._rows[A].above(0)] == [id(each) for each in cells]


def test_a_damaged_sum_of_the_clock_is_corrected_in_its_mark_too() -> None:
    rows = rows_of(3)
    right = rows.clock_mark.total
    rows._clock_sum += 1
    rows._mark_is_old = True
    assert rows.clock_mark.total == right + 1
    assert audit(rows) == (True, 0)
    assert rows.clock_mark.total == right
