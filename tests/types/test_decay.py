"""`DecayCounter` standing alone and by name in a state: what is left when, clocks that are off, bounds, cells without sense."""

import itertools
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from constraint_crdt import ConstraintCrdtError, ConstraintState, GossipNode, Limits, Replica, exchange
from constraint_crdt.crdt.cells import Cell, Run, make_cell, read_cell, value_of
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.types import DecayCounter
from constraint_crdt.types.decay import DECAY

SECOND = 10**9
START = 1_700_000_000 * SECOND
HOUR = 3600.0


class Clock:
    """A clock to be set."""

    def __init__(self) -> None:
        self.time = START

    def __call__(self) -> int:
        return self.time

    def move(self, seconds: float) -> None:
        self.time += int(seconds * SECOND)


def test_half_of_it_goes_in_each_half_life() -> None:
    clock = Clock()
    counter = DecayCounter(60, now=clock)
    assert (counter.value(), counter.rate(), counter.by_node()) == (0.0, 0.0, {})
    counter.record(8.0, node="a")
    clock.move(60)
    counter.record(2, node="b")
    assert counter.by_node() == {"a": 4.0, "b": 2.0}
    clock.move(120)
    assert (counter.value(), counter.node_value("a"), counter.node_value("z")) == (1.5, 1.0, 0.0)
    assert counter.rate() == pytest.approx(1.5 * math.log(2) / 60)
    assert repr(counter) == "DecayCounter(60, name='', value=1.5)"
    assert (counter.half_life, counter.name) == (60.0, "")


@pytest.mark.slow
def test_recorded_each_second_its_rate_comes_to_be_one_a_second() -> None:
    clock = Clock()
    counter = DecayCounter(60, now=clock)
    for _ in range(900):
        counter.record(node="a")
        clock.move(1)
    assert counter.rate() == pytest.approx(1.0, rel=0.01)


def test_by_the_wall_clock_unless_told_otherwise() -> None:
    counter = DecayCounter(3600)
    counter.record(1.0, node="a")
    assert 0.99 < counter.value() <= 1.0
    state = ConstraintState()
    state.decay("x", 60).record(node="a")
    assert state.decay("x", 60).value() == 1.0


def test_a_merge_counts_each_record_once_and_equality_is_of_what_is_known() -> None:
    clock = Clock()
    one, other = DecayCounter(60, now=clock), DecayCounter(60, now=clock)
    one.record(3.0, node="a")
    other.record(3.0, node="b")
    assert one.value() == other.value()
    assert one != other
    both = one.merged(other)
    assert (both.value(), one.value()) == (6.0, 3.0)
    assert both == other.merged(one)
    assert not both.merge(other)
    clock.move(60)
    assert both == other.merged(one)
    assert both.value() == 3.0
    assert DecayCounter(60) != DecayCounter(61)
    assert DecayCounter(60) != DecayCounter(60, name="x")
    assert one.__eq__(1) is NotImplemented


def test_counters_of_one_name_are_told_apart_by_their_half_lives() -> None:
    clock = Clock()
    state = ConstraintState(now=clock)
    state.decay("x", 60).record(4.0, node="a")
    clock.move(60)
    state.decay("x", 600).record(1.0, node="a")
    assert (state.decay("x", 60).value(), state.decay("x", 600).value(), state.decay("x", 61).value()) == (2.0, 1.0, 0.0)
    assert state.decay("y", 60).value() == 0.0
    assert len(state.rows) == 1
    for half_life in range(1, 7):
        state.decay("x", half_life).record(node="a")
    with pytest.raises(ConstraintCrdtError, match="at most 8 half-lives"):
        state.decay("x", 7).record(node="a")
    assert state.decay("x", 60).value() == 2.0


# --- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("half_life", "error"),
    [
        (0, ConstraintCrdtError),
        (-60, ConstraintCrdtError),
        (1e-9, ConstraintCrdtError),
        (math.inf, ConstraintCrdtError),
        (math.nan, ConstraintCrdtError),
        (1e10, ConstraintCrdtError),
        (10**400, ConstraintCrdtError),
        ("60", TypeError),
        (None, TypeError),
    ],
)
def test_what_is_no_half_life_is_refused(half_life: float, error: type[Exception]) -> None:
    with pytest.raises(error, match="a half-life is"):
        DecayCounter(half_life)
    with pytest.raises(error, match="a half-life is"):
        ConstraintState().decay("x", half_life)


@pytest.mark.parametrize(
    ("amount", "error"),
    [
        (0, ValueError),
        (-1.0, ValueError),
        (math.nan, ValueError),
        (math.inf, ValueError),
        (-math.inf, ValueError),
        (1e300, ConstraintCrdtError),
        (10**400, ConstraintCrdtError),
        ("1", TypeError),
    ],
)
def test_what_is_no_amount_is_refused_and_writes_nothing(amount: float, error: type[Exception]) -> None:
    counter = DecayCounter(60)
    with pytest.raises(error):
        counter.record(amount, node="a")
    assert counter == DecayCounter(60)


def test_a_value_has_an_upper_bound_and_so_have_names_clocks_and_skews() -> None:
    counter = DecayCounter(60, now=Clock())
    counter.record(2.0**62, node="a")
    with pytest.raises(ConstraintCrdtError, match=r"cannot exceed 2\*\*63 - 1"):
        counter.record(2.0**62 + 2.0**61, node="a")
    assert counter.value() == 2.0**62
    for name in ("", "n" * 257):
        with pytest.raises(ConstraintCrdtError, match="the name of a counter"):
            ConstraintState().decay(name, 60)
    for time in (-1, 2**63):
        with pytest.raises(ConstraintCrdtError, match="a time is in ns since the epoch"):
            DecayCounter(60, now=lambda time=time: time).record(node="a")  # type: ignore[misc]
    for skew in (-1.0, math.nan, math.inf):
        with pytest.raises(ConstraintCrdtError, match="the skew"):
            DecayCounter(60, max_skew=skew)


def test_a_node_opens_so_many_names() -> None:
    state = ConstraintState(Rows(limits=Limits(counters=2)))
    for name in "xy":
        state.decay(name, 60).record(node="a")
    with pytest.raises(ConstraintCrdtError, match="there are 2 decaying counters"):
        state.decay("z", 60).record(node="a")
    state.decay("x", 60).record(node="b")
    state.decay("x", 70).record(node="a")
    assert state.decay("x", 60).value() == 2.0


# --- clocks that are off -----------------------------------------------------------------------------------------------


def test_a_peer_far_ahead_neither_freezes_nor_inflates_anything() -> None:
    mine, theirs = Clock(), Clock()
    theirs.move(1000 * HOUR)
    a, b = GossipNode("a", now=mine), GossipNode("b", now=theirs)
    here = a.state.decay("x", 60)
    for told in range(1, 4):
        b.write(lambda me: b.state.decay("x", 60).record(8.0, node=me))
        exchange(b, a)
        assert here.value() == pytest.approx(8.0 * sum(0.5**age for age in range(told)))
        assert (here.ahead, here.worst_skew) == (1, 1000 * HOUR)
        mine.move(60)
        theirs.move(60)
        assert here.value() == b.state.decay("x", 60).value()
    before = here.value()
    mine.move(1001 * HOUR)
    assert here.value() < before * 1e-9
    assert here.ahead == 0
    assert here.worst_skew == 1000 * HOUR


def test_a_peer_a_little_ahead_is_not_counted() -> None:
    mine, theirs = Clock(), Clock()
    theirs.move(4)
    one, other = DecayCounter(60, now=mine), DecayCounter(60, now=theirs)
    other.record(node="b")
    one.merge(other)
    assert (one.ahead, one.worst_skew, one.value()) == (0, 4.0, 1.0)
    strict = DecayCounter(60, now=mine, max_skew=3)
    strict.merge(other)
    assert (strict.ahead, strict.worst_skew) == (1, 4.0)


def test_a_clock_set_back_takes_no_time_back() -> None:
    clock = Clock()
    counter = DecayCounter(60, now=clock)
    counter.record(8.0, node="a")
    clock.move(60)
    assert counter.value() == 4.0
    clock.move(-HOUR)
    assert (counter.value(), counter.steps_back, counter.ahead) == (4.0, 1, 1)
    clock.move(60)
    assert counter.value() == 2.0, "it goes on decaying at once"
    counter.record(2.0, node="a")
    assert (counter.value(), counter.ahead) == (4.0, 0)
    [cell] = counter._rows.each(DECAY)
    assert value_of(cell).time == clock.time, "the cell takes the earlier time"
    clock.move(-0.001)
    assert (counter.value(), counter.steps_back) == (4.0, 2)


def test_a_clock_that_was_ahead_for_a_while_and_is_set_right_does_no_lasting_harm() -> None:
    clock, theirs = Clock(), Clock()
    counter, other = DecayCounter(HOUR, now=clock), DecayCounter(HOUR, now=theirs)
    other.record(8.0, node="b")
    clock.move(100 * HOUR)
    counter.merge(other)
    assert counter.value() < 1e-9
    clock.move(-100 * HOUR)
    assert counter.value() == 8.0


def test_a_copy_knows_when_cells_arrived_at_the_first() -> None:
    mine, theirs = Clock(), Clock()
    theirs.move(HOUR)
    one, other = DecayCounter(60, now=mine), DecayCounter(60, now=theirs)
    other.record(8.0, node="b")
    one.merge(other)
    mine.move(60)
    assert one.merged(other).value() == one.value() == 4.0
    state = ConstraintState(now=mine)
    state.rows.merge(other._rows)
    mine.move(60)
    assert state.merged(ConstraintState()).ages.ahead == 1
    assert state.merged(ConstraintState()) == state


def test_told_anew_a_cell_is_as_old_as_before() -> None:
    """After a repair every reading is made anew, some time after the cells arrived."""
    mine, theirs = Clock(), Clock()
    theirs.move(HOUR)
    state = ConstraintState(now=mine)
    ahead = DecayCounter(60, name="x", now=theirs)
    ahead.record(8.0, node="b")
    state.rows.merge(ahead._rows)
    state.rates.record("a", 4, constraint="c")
    mine.move(60)
    tell_anew(state.rows)
    tell_anew(state.rows)
    assert state.decay("x", 60).value() == 4.0
    assert state.rates.rates(60).satisfied == 2.0


def test_told_anew_by_a_clock_set_back_no_cell_is_of_the_future() -> None:
    mine, theirs = Clock(), Clock()
    theirs.move(HOUR)
    counter, ahead = DecayCounter(60, now=mine), DecayCounter(60, now=theirs)
    ahead.record(8.0, node="b")
    counter.merge(ahead)
    for _, _, restart in counter._rows._readings:
        restart()
    mine.move(-HOUR)
    tell_anew(counter._rows)
    assert counter.value() == 8.0
    mine.move(60)
    assert counter.value() == 4.0


def tell_anew(rows: Rows) -> None:
    """As a repair does."""
    for _, _, restart in rows._readings:
        restart()
    for kind, watcher, _ in rows._readings:
        for cell in rows.each(kind):
            watcher(None, cell)


# --- cells that no honest node writes ----------------------------------------------------------------------------------

times = st.sampled_from([0, 1, START - SECOND, START, START + 5 * SECOND, START + 10**15, 2**63 - 1])
values = st.sampled_from([0.0, 5e-324, 0.1, 0.2, 0.7, 3.5, 2.0**63])
half_lives = st.sampled_from([60.0, 5e-324, 1e-3, 600.0, 86_400.0])
wild_values = st.tuples(times, st.lists(st.tuples(half_lives, values), min_size=1, max_size=3))
wild_logs = st.lists(st.lists(wild_values, max_size=4), min_size=1, max_size=3)


@pytest.mark.slow
@given(wild_logs, st.integers(0, 10**12))
@example([[(START, [(60.0, value)])] for value in (0.1, 0.2, 0.7)], 0)
def test_whatever_stands_reads_the_same_in_any_order_of_arrival(
    logs: list[list[tuple[int, list[tuple[float, float]]]]], later: int
) -> None:
    runs = [
        Run(Replica(name, 0), 0, len(log), [_bound(name, seq, *value) for seq, value in enumerate(log, start=1)])
        for name, log in zip("abc", logs, strict=False)
    ]
    orders = [[[run] for run in order] for order in itertools.permutations(runs)] + [[runs]]
    readings = []
    for transfers in orders:
        clock = Clock()
        counter = DecayCounter(60, now=clock)
        for transfer in transfers:
            counter._rows.apply(transfer)
        found = [_reading(counter)]
        clock.time += later
        found.append(_reading(counter))
        tell_anew(counter._rows)
        assert _reading(counter) == found[-1]
        clock.time -= later // 2
        found.append(_reading(counter))
        readings.append(found)
    assert all(found == readings[0] for found in readings)


def test_of_two_values_at_one_half_life_the_first_counts_also_to_who_goes_on_from_it() -> None:
    counter = DecayCounter(60, now=Clock())
    counter._rows.apply([Run(Replica("a", 0), 0, 1, [_bound("a", 1, START, [(60.0, 1.0), (60.0, 5.0)])])])
    assert counter.value() == 1.0
    counter.record(1.0, node="a")
    assert counter.value() == 2.0


def _bound(node: str, seq: int, time: int, parts: list[tuple[float, float]]) -> Cell:
    cell = read_cell(make_cell(DECAY, "", [time, parts]).data)
    return Cell(cell.kind, cell.key, cell.data, seq, Replica(node, 0))


def _reading(counter: DecayCounter) -> object:
    return counter.value(), counter.rate(), counter.by_node(), counter.ahead, repr(counter)


@pytest.mark.parametrize(
    "value",
    [
        [-1, [[60.0, 1.0]]],
        [2**63, [[60.0, 1.0]]],
        [1, []],
        [1, [[60.0, 1.0]] * 9],
        [1, [[0.0, 1.0]]],
        [1, [[math.nan, 1.0]]],
        [1, [[1e10, 1.0]]],
        [1, [[60.0, -1.0]]],
        [1, [[60.0, math.inf]]],
        [1, [[60.0, math.nan]]],
        [1, [[60.0, 1e19]]],
    ],
)
def test_a_cell_beyond_its_bounds_is_refused(value: list[object]) -> None:
    with pytest.raises(Exception, match="out of bounds"):
        read_cell(make_cell(DECAY, "x", value).data)
