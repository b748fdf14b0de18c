"""`DecayConstraintState` standing alone and in a state: what is left of evaluations when, what is refused, cells without sense."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from constraint_crdt import ConstraintCrdtError, ConstraintState, GossipNode, Replica, exchange
from constraint_crdt.crdt.cells import Cell, Run, make_cell, read_cell
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.errors import CountTooLarge
from constraint_crdt.types import DecayConstraintState, Rates
from constraint_crdt.types.decay import RATE
from tests.types.test_decay import START, Clock, tell_anew

MOST = 2**63 - 1


def test_evaluations_halve_with_each_half_life_at_each_of_several() -> None:
    clock = Clock()
    state = DecayConstraintState((600, 60), now=clock)
    assert state.half_lives == (60.0, 600.0)
    assert state.rates(60) == Rates() == (0.0, 0.0, None)
    state.record("a", 6, 2, constraint="x")
    state.record("b", 4)
    clock.move(60)
    state.record("a", 1, 3, constraint="x")
    assert state.rates(60, "x") == (4.0, 4.0, 0.5)
    assert state.rates(60, "") == (2.0, 0.0, 0.0)
    assert state.rates(60) == (6.0, 4.0, 0.4)
    assert state.rates(60, node="b") == (2.0, 0.0, 0.0)
    assert state.rates(60, "x", "b") == Rates()
    assert state.by_constraint(60) == {"": state.rates(60, ""), "x": state.rates(60, "x")}
    assert state.by_constraint(60, "b") == {"": (2.0, 0.0, 0.0), "x": Rates()}
    assert state.by_node(60) == {"a": (4.0, 4.0, 0.5), "b": (2.0, 0.0, 0.0)}
    assert state.by_node(60, "x") == {"a": (4.0, 4.0, 0.5)}
    assert state.rates(600, "x").satisfied == pytest.approx(1 + 6 * 2**-0.1)
    assert repr(state) == "DecayConstraintState(6 satisfied, 4 violated at 60 s)"


def test_a_violation_in_the_last_half_lives_weighs_more() -> None:
    clock = Clock()
    state = DecayConstraintState(now=clock)
    state.record("a", 0, 50, constraint="x")
    clock.move(600)
    state.record("a", 50, 0, constraint="x")
    shares = [state.rates(half_life, "x").violated_share for half_life in state.half_lives]
    assert shares == sorted(shares, key=lambda share: share or 0.0)
    assert shares[0] == pytest.approx(1 / 1025)


def test_they_travel_and_are_equal_where_the_same_is_known() -> None:
    clock = Clock()
    a, b = GossipNode("a", now=clock), GossipNode("b", now=clock)
    a.write(lambda me: a.state.rates.record(me, 3, 1, constraint="x"))
    b.write(lambda me: b.state.rates.record(me, 1, 1, constraint="x"))
    assert a.state.rates != b.state.rates
    exchange(a, b)
    assert a.state.rates == b.state.rates
    clock.move(300)
    assert a.state.rates.rates(300, "x") == b.state.rates.rates(300, "x") == (2.0, 1.0, 1 / 3)
    alone = DecayConstraintState(now=clock)
    alone.record("c", 2)
    both = alone.merged(DecayConstraintState(now=clock))
    assert (both == alone, both.rates(300)) == (True, (2.0, 0.0, 0.0))


def test_many_at_once_are_one_transaction() -> None:
    state = DecayConstraintState(now=Clock())
    state.record_all("a", {"x": (1, 2), None: (3, 0), "nothing": (0, 0)})
    assert list(state.by_constraint(60)) == ["", "x"]
    before = state.rates(60)
    with pytest.raises(ConstraintCrdtError, match="a constraint id"):
        state.record_all("a", {"x": (1, 2), "i" * 257: (1, 0)})
    state.record("b", MOST)
    with pytest.raises(ConstraintCrdtError, match=r"cannot exceed 2\*\*63 - 1"):
        state.record_all("b", {"y": (1, 1), None: (MOST, 0)})
    assert state.rates(60, node="a") == before
    assert "y" not in state.by_constraint(60)


@pytest.mark.parametrize(("satisfied", "violated", "error"), [(-1, 0, ValueError), (0, -1, ValueError), (1.0, 0, TypeError)])
def test_what_is_no_number_of_evaluations_is_refused(satisfied: int, violated: int, error: type[Exception]) -> None:
    state = DecayConstraintState()
    with pytest.raises(error):
        state.record_all("a", {"y": (1, 1), "x": (satisfied, violated)})
    state.record("a", 0, 0, constraint="x")
    assert state.by_constraint(60) == {}


# --- half-lives --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("half_lives", "error"),
    [
        ([], ConstraintCrdtError),
        ([60, 60.0], ConstraintCrdtError),
        (range(1, 10), ConstraintCrdtError),
        ([0], ConstraintCrdtError),
        ([math.nan], ConstraintCrdtError),
        ([math.inf], ConstraintCrdtError),
        (["60"], TypeError),
    ],
)
def test_what_are_no_half_lives_is_refused(half_lives: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="half-li"):
        DecayConstraintState(half_lives)
    state = ConstraintState()
    with pytest.raises(error, match="half-li"):
        state.rates.track(half_lives)
    assert state.rates.half_lives == (60.0, 300.0, 3600.0)


def test_one_that_is_not_tracked_is_refused_with_those_that_are() -> None:
    state = DecayConstraintState()
    readings: list[Callable[[float], object]] = [state.rates, state.by_constraint, state.by_node]
    for read in readings:
        with pytest.raises(ConstraintCrdtError, match="no half-life of 420 s is tracked here, but 60, 300, 3600 s"):
            read(420)
    with pytest.raises(TypeError):
        state.rates("60")  # type: ignore[arg-type]


def test_one_that_comes_to_be_tracked_begins_at_nothing_and_another_goes() -> None:
    clock = Clock()
    state = DecayConstraintState((60, 300), now=clock)
    state.record("a", 8, constraint="x")
    state.track((60, 3600))
    clock.move(60)
    assert (state.rates(3600), state.untracked_by(3600)) == (Rates(), ["a"])
    state.record("a", 1, constraint="x")
    assert (state.rates(60).satisfied, state.rates(3600).satisfied) == (5.0, 1.0)
    assert state.untracked_by(3600) == []
    assert state.untracked_by(300) == ["a"]


# --- folding -----------------------------------------------------------------------------------------------------------


def test_folding_takes_a_constraint_away_and_leaves_the_sums() -> None:
    clock = Clock()
    state = ConstraintState(now=clock)
    for id_ in ("x", "y", "z"):
        state.rates.record("a", 4, 2, constraint=id_)
    state.rates.record("b", 1, 1, constraint="x")
    clock.move(60)
    before = [state.rates.rates(half_life) for half_life in state.rates.half_lives]
    assert state.rates.fold(["x", "y", "never"], node="a") == 2
    after = [state.rates.rates(half_life) for half_life in state.rates.half_lives]
    assert [pytest.approx(each) for each in before] == after
    assert list(state.rates.by_constraint(60)) == ["", "x", "z"]
    assert state.rates.rates(60, "x") == (0.5, 0.5, 0.5)
    assert state.rates.rates(60, "") == (4.0, 2.0, 1 / 3)
    assert state.rates.fold(["x", "y", ""], node="a") == 0
    assert state.rates.fold(["z"], node="a") == 1
    assert state.rates.rates(60, "", "a") == (6.0, 3.0, 1 / 3)
    other = ConstraintState(now=clock)
    other.merge(state)
    assert other.rates == state.rates
    assert other.rates.rates(60) == state.rates.rates(60)


# --- cells that no honest node writes ----------------------------------------------------------------------------------

times = st.sampled_from([0, START, START + 10**15, MOST])
numbers = st.sampled_from([0.0, 5e-324, 0.1, 0.2, 0.7, 2.0**63])
parts = st.tuples(st.sampled_from([60.0, 5e-324, 300.0]), numbers, numbers)
wild_values = st.tuples(st.sampled_from(["", "x"]), times, st.lists(parts, min_size=1, max_size=3))
wild_logs = st.lists(st.lists(wild_values, max_size=4), min_size=1, max_size=3)


@pytest.mark.slow
@given(wild_logs, st.integers(0, 10**12))
@example([[("x", START, [(60.0, value, value)])] for value in (0.1, 0.2, 0.7)], 0)
def test_whatever_stands_reads_the_same_in_any_order_of_arrival(logs: list[list[tuple[str, int, list[Any]]]], later: int) -> None:
    runs = [
        Run(Replica(name, 0), 0, len(log), [_bound(name, seq, *value) for seq, value in enumerate(log, start=1)])
        for name, log in zip("abc", logs, strict=False)
    ]
    readings = []
    for order in itertools.permutations(runs):
        clock, rows = Clock(), Rows()
        state = DecayConstraintState(rows=rows, now=clock)
        for run in order:
            rows.apply([run])
        found = [_reading(state)]
        clock.time += later
        found.append(_reading(state))
        tell_anew(rows)
        assert _reading(state) == found[-1]
        clock.time -= later // 2
        found.append(_reading(state))
        readings.append(found)
    assert all(found == readings[0] for found in readings)


def _bound(node: str, seq: int, key: str, time: int, values: list[Any]) -> Cell:
    cell = read_cell(make_cell(RATE, key, [time, values]).data)
    return Cell(cell.kind, cell.key, cell.data, seq, Replica(node, 0))


def _reading(state: DecayConstraintState) -> object:
    tracked = [(state.rates(h), state.by_constraint(h), state.by_node(h), state.untracked_by(h)) for h in state.half_lives]
    return tracked, state.ahead, repr(state)


def test_a_cell_beyond_its_bounds_is_refused() -> None:
    for value in ([-1, [[60.0, 1.0, 1.0]]], [1, []], [1, [[60.0, 1.0, math.nan]]], [1, [[0.0, 1.0, 1.0]]]):
        with pytest.raises(ConstraintCrdtError, match="out of bounds"):
            read_cell(make_cell(RATE, "x", value).data)


def test_evaluations_beyond_the_largest_number_are_refused_alone_and_fold_without_them() -> None:
    rates = DecayConstraintState((60.0,), now=Clock())
    rates.record("a", 2**63 - 1, 0, constraint="x")
    left = {"x": [(2.0**62, 0.0)], "y": [(3.0, 1.0)], None: [(2.0**62, 0.0)]}
    with pytest.raises(CountTooLarge, match="constraint 'x'"):
        rates.record_left("a", left)
    assert rates.rates(60.0, "y") == (0.0, 0.0, None)
    refused = rates.record_each_left("a", left)
    assert list(refused) == ["x"]
    assert (rates.rates(60.0, "y")[:2], rates.rates(60.0, "")[:2]) == ((3.0, 1.0), (2.0**62, 0.0))
    assert rates.fold(["x", "y"], node="a") == 1, "there is no room for x beside those of no constraint"
    assert (sorted(rates.recorded), rates.rates(60.0, "y")[:2]) == (["", "x"], (0.0, 0.0))
    assert rates.rates(60.0).violated == 1.0
