"""`RoomIncrements`: what a seq means, what is refused, how little is kept, and what nonsense reads as."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt import ConstraintCrdtError, Counts, Limits, Replica
from constraint_crdt.crdt.cells import Cell, Run, make_cell, make_key
from constraint_crdt.crdt.limits import CELL_BYTES
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.types.counters import APPLIED, FOLD_AT, INCREMENTS, RoomIncrements

MOST = 2**63 - 1
A, B = Replica("a", 1), Replica("b", 1)


def standing(view: RoomIncrements) -> tuple[int, int]:
    """How many cells of each kind stand."""
    return sum(1 for _ in view._rows.each(INCREMENTS)), sum(1 for _ in view._rows.each(APPLIED))


def test_a_repeat_has_no_effect_here_or_elsewhere() -> None:
    a, b = RoomIncrements(), RoomIncrements()
    assert a.apply("r", "x", 1, 5, 2, node=A)
    clock = a._rows.clock
    assert not a.apply("r", "x", 1, 5, 2, node=A)
    assert a._rows.clock == clock, "a repeat writes nothing"
    b.merge(a)
    assert not b.apply("r", "x", 1, 5, 2, node=B)
    assert b.knows("r", "x", 1)
    assert not b.knows("r", "x", 2)
    assert b.by_node("r") == {"x": Counts(5, 2)}
    assert b.apply("s", "x", 1, 1, node=B), "another room has seqs of its own"


@pytest.mark.slow
def test_one_that_two_nodes_took_in_at_once_counts_once() -> None:
    a, b = RoomIncrements(), RoomIncrements()
    for seq in range(1, 3 * FOLD_AT):
        a.apply("r", "x", seq, seq, 1, node=A)
        b.apply("r", "x", seq, seq, 1, node=B)
    a.merge(b)
    b.merge(a)
    expected = Counts(sum(range(1, 3 * FOLD_AT)), 3 * FOLD_AT - 1)
    assert a.total("r") == b.total("r") == expected


def test_a_node_that_counted_nothing_is_listed_and_empty_rooms_are_not() -> None:
    view = RoomIncrements()
    view.apply("r", "x", 0, node=A)
    assert view.by_node("r") == {"x": Counts(0, 0)}
    assert view.rooms == ["r"]
    assert (view.by_node("q"), view.total("q")) == ({}, Counts(0, 0))
    assert repr(view) == "RoomIncrements(1 rooms)"


@pytest.mark.long
@pytest.mark.parametrize("skip", [1, 2, 7])
def test_little_is_kept_of_much(skip: int) -> None:
    """Without gaps all but nothing; with a gap at every other seq some bytes an increment."""
    view, count = RoomIncrements(), 3_000
    for seq in range(1, 1 + count * skip, skip):
        view.apply("room", "node", seq, 3, 1, node=A)
    assert view.by_node("room") == {"node": Counts(3 * count, count)}
    loose, pages = standing(view)
    kept = sum(len(cell.data) for kind in (INCREMENTS, APPLIED) for cell in view._rows.each(kind))
    assert loose <= FOLD_AT
    if skip == 1:
        assert pages <= 3
        assert kept < 64 * FOLD_AT
    else:
        assert kept < 8 * count + 64 * FOLD_AT


@pytest.mark.long
def test_many_lives_and_writers_leave_no_pile_of_pages() -> None:
    view = RoomIncrements()
    for seq in range(1, 20 * FOLD_AT):
        view.apply("r", "x", seq, 1, node=Replica("ab"[seq % 2], seq // 100))
    loose, pages = standing(view)
    assert loose <= FOLD_AT
    assert pages <= 2
    assert view.total("r") == Counts(20 * FOLD_AT - 1, 0)


@pytest.mark.long
def test_seqs_in_any_order_end_alike() -> None:
    seqs = list(range(1, 2000))
    random.Random(7).shuffle(seqs)
    view = RoomIncrements()
    for seq in seqs:
        view.apply("r", "x", seq, 1, node=A)
    assert view.total("r") == Counts(1999, 0)
    assert standing(view)[1] == 1


@pytest.mark.long
def test_the_worst_page_fits_into_a_cell() -> None:
    view, room, node = RoomIncrements(), "r" * 256, "n" * 256
    start = MOST - 4095
    for seq in range(start, start + 4096, 2):
        view.apply(room, node, seq, MOST, MOST, node=Replica("a" * 256, MOST))
    assert view.total(room) == Counts(MOST, MOST)
    assert max(len(cell.data) for cell in view._rows.each(APPLIED)) <= CELL_BYTES


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("r", "x", -1, 0, 0), ValueError),
        (("r", "x", 1, -1, 0), ValueError),
        (("r", "x", 1, 0, -1), ValueError),
        (("r", "x", MOST + 1, 0, 0), ConstraintCrdtError),
        (("r", "x", 1, MOST + 1, 0), ConstraintCrdtError),
        (("r", "x", 1.0, 0, 0), TypeError),
        (("", "x", 1, 0, 0), ConstraintCrdtError),
        (("r", "", 1, 0, 0), ConstraintCrdtError),
        (("r", "x" * 257, 1, 0, 0), ConstraintCrdtError),
        (("r\x1f", "x", 1, 0, 0), ConstraintCrdtError),
        (("r", "x\x1f", 1, 0, 0), ConstraintCrdtError),
    ],
)
def test_what_cannot_be_taken_in_is_refused_and_writes_nothing(
    arguments: tuple[str, str, int, int, int], error: type[Exception]
) -> None:
    view = RoomIncrements()
    with pytest.raises(error):
        view.apply(*arguments, node=A)
    assert len(view._rows) == 0


def test_foreign_nodes_have_a_limit_here_and_none_from_others() -> None:
    view = RoomIncrements(Rows(limits=Limits(foreign_nodes=2)))
    view.apply("r", "x", 1, node=A)
    view.apply("s", "x", 1, node=A)
    view.apply("s", "x", 2, node=A)
    with pytest.raises(ConstraintCrdtError, match="more than the 2 foreign nodes"):
        view.apply("s", "y", 1, node=A)
    other = RoomIncrements()
    for name in "klm":
        other.apply("t", name, 1, 1, node=B)
    view.merge(other)
    assert view.total("t") == Counts(3, 0)


# --- nonsense ------------------------------------------------------------------------------------------------------------

pairs = st.tuples(st.integers(0, 3), st.integers(0, 3))
keys = st.sampled_from(
    ["", "r", "r\x1fx", "r\x1fx\x1f", "r\x1fx\x1f-1", "r\x1fx\x1f01", "r\x1fx\x1f1", "r\x1fx\x1f2", "r\x1fx\x1f\uff11",
     "r\x1fx\x1f1\x1f2", "\x1f\x1f1", "r\x1fx\x1f" + "9" * 19, "r\x1fx\x1f" + "9" * 500, "r\x1fx\x1f0.0", "r\x1fx\x1fpage"]
)  # fmt: skip


@st.composite
def pages(draw: st.DrawFn) -> list[list[int]]:
    """BlockSums that a cell may hold, whatever page they belong to and whatever others say of the same."""
    found: list[list[int]] = []
    free = 0
    for level, skip, (satisfied, violated) in draw(st.lists(st.tuples(st.integers(0, 3) | st.just(62), st.integers(0, 2), pairs))):
        first = -(-free >> level) + skip << level
        if first + (1 << level) <= MOST + 1:
            found.append([first, level, satisfied, violated])
            free = first + (1 << level)
    return found


wild = st.builds(make_cell, st.just(INCREMENTS), keys, pairs.map(list)) | st.builds(make_cell, st.just(APPLIED), keys, pages())
ROWS = [Replica(name, 1) for name in "pqr"]


@pytest.mark.slow
@given(
    logs=st.lists(st.lists(wild, max_size=5), min_size=3, max_size=3),
    order=st.permutations([(row, half) for row in range(3) for half in range(2)]),
    seqs=st.lists(st.integers(0, 9), max_size=3),
)
def test_nonsense_reads_the_same_in_whatever_order_it_arrives(
    logs: list[list[Cell]], order: list[tuple[int, int]], seqs: list[int]
) -> None:
    bound = [
        [Cell(cell.kind, cell.key, cell.data, seq, ROWS[row]) for seq, cell in enumerate(log, 1)] for row, log in enumerate(logs)
    ]
    view, straight = RoomIncrements(), RoomIncrements()
    for row, log in enumerate(bound):
        straight._rows.apply([Run(ROWS[row], 0, len(log), log)])
    for row, half in [*order, *((row, 1) for row in range(3))]:
        log, middle = bound[row], len(bound[row]) // 2
        lo, hi = (0, middle) if half == 0 else (0, len(log))
        if hi > view._rows.seq(ROWS[row]):
            view._rows.apply([Run(ROWS[row], lo, hi, [Cell(c.kind, c.key, c.data, c.seq, c.replica) for c in log[:hi]])])
    assert view.rooms == straight.rooms == RoomIncrements(view._rows.copy()).rooms
    assert [view.by_node(room) for room in view.rooms] == [straight.by_node(room) for room in view.rooms]
    for seq in seqs:  # and what is honest can still be taken in
        known = view.knows("r", "x", seq)
        assert view.apply("r", "x", seq, 1, node=A) != known
    for seq in range(100, 100 + FOLD_AT + 2):
        view.apply("r", "x", seq, 1, node=A)
    assert view.by_node("r") == RoomIncrements(view._rows.copy()).by_node("r")


def test_a_page_of_another_is_replaced_only_if_all_of_it_is_said_again() -> None:
    """A cell with stretches of a page that it does not stand for is left where it is."""
    view = RoomIncrements()
    view._rows.write(B, make_cell(APPLIED, make_key("r", "x", "0.0"), [[0, 0, 1, 0], [4096, 0, 1, 0]]))
    for seq in range(1, FOLD_AT + 3):
        view.apply("r", "x", seq, 1, node=A)
    assert view.total("r") == Counts(FOLD_AT + 4, 0)
    assert {cell.replica for cell in view._rows.each(APPLIED)} == {A, B}
