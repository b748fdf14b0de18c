"""`DecayCounter` against two plain models, over random histories of three copies.

Where all clocks agree, the model keeps every event and sums amount * 2^(-age / half-life). Where clocks are apart and are set back,
it is the rule of `types/decay.py`, kept in the plainest way; and whatever clocks do, nothing is inflated or frozen.
"""

from dataclasses import dataclass
from math import isclose
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt import ConstraintState
from tests.types.trio import WRITERS, Trio, copies

SECOND = 10**9
START = 1_700_000_000 * SECOND
HALF_LIVES = [7.0, 60.0]

Event = tuple[float, int, float]
"""A half-life, the time, the amount."""

amounts = st.floats(1e-3, 1e6)
spans = st.one_of(st.integers(0, 100), st.integers(0, 600 * SECOND))
exchanges = st.one_of(
    st.tuples(st.sampled_from(["merge", "send"]), copies, copies),
    st.tuples(st.just("deliver"), st.integers(0, 7), st.none()),
)
events = st.tuples(st.just("record"), copies, st.tuples(st.sampled_from(HALF_LIVES), amounts))


def close(left: float, right: float) -> bool:
    return isclose(left, right, rel_tol=1e-9, abs_tol=1e-300)


# --- clocks that agree -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@given(st.lists(st.one_of(events, exchanges, st.tuples(st.just("wait"), st.just(0), spans)), max_size=40))
def test_where_clocks_agree_it_is_the_decayed_sum_of_all_events(history: list[tuple[str, int, Any]]) -> None:
    time = START
    trio: Trio[Event] = Trio(lambda _: ConstraintState(now=lambda: time))
    for act, first, second in history:
        if act == "wait":
            time += second
        elif act == "record":
            trio.states[first].decay("x", second[0]).record(second[1], node=WRITERS[first])
            trio.wrote(first, (second[0], time, second[1]))
        elif act == "deliver":
            trio.deliver(first)
        else:
            (trio.merge if act == "merge" else trio.send)(first, second)
    trio.check_clocks()
    for copy, state in enumerate(trio.states):
        for half_life in HALF_LIVES:
            counter = state.decay("x", half_life)
            left = {"a": 0.0, "b": 0.0}
            for writer, reached in zip(WRITERS, trio.reached(copy), strict=True):
                left[writer.node_id] += sum(
                    amount * 2 ** (-(time - at) / SECOND / half_life) for tracked, at, amount in reached if tracked == half_life
                )
            assert close(counter.value(), sum(left.values()))
            assert close(counter.rate(), sum(left.values()) * 0.6931471805599453 / half_life)
            assert all(close(counter.node_value(node), left[node]) for node in "ab")
            assert (state.ages.ahead, state.ages.worst_skew, state.ages.steps_back) == (0, 0.0, 0)


# --- clocks that do not ------------------------------------------------------------------------------------------------

HALF_LIFE = 60.0


@dataclass
class Written:
    """A cell, as its writer wrote it."""

    value: float
    time: int


@dataclass
class Seen:
    """A cell, as one copy has it: what it ages from is no part of the cell."""

    cell: Written
    since: int


class Reader:
    """The model of one copy: its clock, what it has of each writer, and from when on each of these ages."""

    def __init__(self) -> None:
        self.clock = START
        self.last = 0
        self.worst = 0
        self.back = 0
        self.seen: dict[int, Seen] = {}

    def look(self) -> int:
        if self.clock < self.last:
            self.back += 1
            for each in self.seen.values():
                if each.since > self.clock:
                    each.since = self.clock - max(0, self.last - each.since)
        self.last = self.clock
        return self.clock

    def take(self, reached: list[list[Written]]) -> None:
        for writer, cells in enumerate(reached):
            if cells and (writer not in self.seen or self.seen[writer].cell is not cells[-1]):
                now = self.look()
                self.worst = max(self.worst, cells[-1].time - now)
                self.seen[writer] = Seen(cells[-1], min(cells[-1].time, now))

    def left(self) -> dict[int, float]:
        now = self.look()
        return {writer: each.cell.value * 2 ** (-(now - each.since) / SECOND / HALF_LIFE) for writer, each in self.seen.items()}


clock_moves = st.tuples(
    st.just("clock"), copies, st.one_of(st.integers(0, 600), st.integers(-600, 0), st.sampled_from([10**8, -(10**8)]))
)
readings = st.tuples(st.just("read"), copies, st.none())


@pytest.mark.slow
@given(st.lists(st.one_of(events, exchanges, clock_moves, readings), max_size=40))
def test_where_clocks_differ_and_are_set_back_it_keeps_the_rule(history: list[tuple[str, int, Any]]) -> None:
    readers = [Reader() for _ in range(3)]

    def state(copy: int) -> ConstraintState:
        return ConstraintState(now=lambda: readers[copy].clock)

    trio: Trio[Written] = Trio(state)
    total = 0.0
    for act, first, second in history:
        if act == "clock":
            readers[first].clock += second * SECOND
        elif act == "record":
            amount = second[1]
            total += amount
            before = readers[first].left().get(first, 0.0)
            trio.states[first].decay("x", HALF_LIFE).record(amount, node=WRITERS[first])
            trio.wrote(first, Written(before + amount, readers[first].clock))
            readers[first].take(trio.reached(first))
        elif act == "read":
            assert close(trio.states[first].decay("x", HALF_LIFE).value(), sum(readers[first].left().values()))
        elif act == "send":
            trio.send(first, second)
        elif act == "deliver":
            to = trio.deliver(first)
            if to is not None:
                readers[to].take(trio.reached(to))
        else:
            trio.merge(first, second)
            readers[first].take(trio.reached(first))
    for each, reader in zip(trio.states, readers, strict=True):
        counter = each.decay("x", HALF_LIFE)
        left = reader.left()
        assert close(counter.value(), sum(left.values()))
        assert all(
            close(
                counter.node_value(node),
                sum(left.get(place, 0.0) for place, writer in enumerate(WRITERS) if writer.node_id == node),
            )
            for node in "ab"
        )
        assert counter.steps_back == reader.back
        assert counter.worst_skew == reader.worst / SECOND
        assert counter.ahead == sum(seen.cell.time > reader.clock + 10 * SECOND for seen in reader.seen.values())
        before = counter.value()
        assert before <= total * (1 + 1e-9), "no more is left than was recorded"
        reader.clock += int(3 * HALF_LIFE * SECOND)
        assert close(counter.value(), before / 8), "nothing is frozen, whatever times the cells state"
