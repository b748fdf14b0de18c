"""The steps of a repair by themselves: sums of buckets, the cells of some buckets within a size, and what removals name."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt import ConstraintCrdtError, Replica
from constraint_crdt.crdt.cells import Cell, make_cell, make_removal
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
from constraint_crdt.crdt.rows import Rows
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


def test_of_a_bucket_that_one_side_doubts_the_other_side_counts() -> None:
    held = cell("x", 1)
    bit = bucket_bit(held)
    for doubt, other, stands in ((0, 0, True), (bit, 0, False), (0, bit, True), (bit, bit, True), (EVERYTHING ^ bit, 0, True)):
        assert (both_ways(Side("b", [held], doubt), Side("c", [], other), {}) == [held]) is stands


def test_of_two_cells_in_a_slot_the_later_stands() -> None:
    early, late = cell("x", 1), cell("x", 2)
    assert both_ways(Side("a", [early], 0), Side("b", [late], 0), {}) == [late]


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
