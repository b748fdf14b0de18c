"""Sketches, Bloom filters, decaying values and increments in histories: what the log expects of them, in cases that are rare."""

from collections.abc import Sequence

import pytest

from constraint_crdt.crdt.clock import SECOND
from constraint_crdt.simulation.histories import Fleet, History, from_json, to_json
from constraint_crdt.simulation.invariants import ROOM
from constraint_crdt.simulation.steps import (
    AGAIN,
    TOGETHER,
    AnyStep,
    Backup,
    CountItem,
    Crash,
    Decay,
    FoldRates,
    Increment,
    Insert,
    NodeStart,
    Rate,
    Start,
    WholeExchange,
)
from constraint_crdt.types.counters import APPLIED, FOLD_AT

MEMBERS = (NodeStart("a", 1), NodeStart("b", 11), NodeStart("c", 2))
NOON = 10**6 * SECOND


def tally(number: int, node: str, *, width: int = 7, item: str = "dock") -> CountItem:
    return CountItem(number=number, node=node, name="violations", item=item, count=2, width=width, depth=2)


def insert(number: int, node: str, *, expected: int = 8, item: str = "dock") -> Insert:
    return Insert(number=number, node=node, name="seen", item=item, expected=expected, wrong=0.1)


def rate(number: int, node: str, time: int = 0, id_: str | None = "x") -> Rate:
    return Rate(number=number, node=node, time=time, id=id_, satisfied=4, violated=2, half_lives=(1.0, 8.0))


def increment(number: int, node: str, seq: int, more: int = 0) -> Increment:
    return Increment(number=number, node=node, client="pda", seq=seq, satisfied=1, violated=0, more=((1, 0),) * more)


def meet(number: int, *pairs: str) -> list[AnyStep]:
    return [WholeExchange(number=place, node=pair[0], peer=pair[1]) for place, pair in enumerate(pairs, start=number)]


def fleet_after(steps: Sequence[AnyStep]) -> Fleet:
    """The fleet that carried them out as they come back from a file."""
    history = History(seed=1, invariant="x", sentence="y", members=MEMBERS, steps=tuple(steps))
    fleet = Fleet(MEMBERS)
    for step in from_json(to_json(history).encode()).steps:
        fleet.apply(step)
    return fleet


def test_a_name_that_was_begun_in_two_dimensions_means_those_of_most_rows() -> None:
    begun: list[AnyStep] = [
        tally(1, "a", width=9),
        insert(2, "a", expected=9),
        tally(3, "b"),
        insert(4, "b"),
        tally(5, "c"),
        insert(6, "c"),
    ]
    fleet = fleet_after([*begun, *meet(7, "ab", "bc", "ca")])
    for node in fleet.nodes.values():
        assert (node.state.sketches["violations"].shape.width, node.state.sketches["violations"].total) == (7, 4)
        assert node.state.blooms["seen"].shape.expected == 8
    before = fleet.nodes["a"].state_hash
    fleet.apply(tally(20, "a"))
    fleet.apply(insert(21, "a", item="lift"))
    assert fleet.nodes["a"].state_hash == before, "its own row has the other dimensions, so it refuses"


def test_values_decay_by_the_clock_of_each_node_from_the_time_they_state_or_arrive() -> None:
    """The writer is 3 s ahead of the one that hears of it, which then waits for 1 s."""
    early = [Rate(number=9, node="b", time=NOON, half_lives=(1.0, 8.0), satisfied=0, violated=0)]
    heat = Decay(number=2, node="a", name="heat", half_life=1.0, amount=8.0)
    fleet = fleet_after([*early, rate(1, "a", NOON + 3 * SECOND), heat, *meet(3, "ab")])
    fleet.apply(rate(4, "b", NOON + SECOND, "y"))
    rates = fleet.nodes["b"].state.rates
    assert rates.rates(1.0, "x")[:2] == (2.0, 1.0)
    assert fleet.nodes["b"].state.decay("heat", 1.0).value() == 4.0


def test_folding_recent_evaluations_changes_no_sum() -> None:
    fleet = fleet_after([rate(1, "a", NOON), rate(2, "a", NOON, None), rate(3, "b", NOON), *meet(4, "ab")])
    fleet.apply(FoldRates(number=5, node="a", time=NOON + SECOND, ids=("x", "y")))
    rates = fleet.nodes["a"].state.rates
    assert rates.rates(1.0)[:2] == (6.0, 3.0)  # half of three times (4, 2)
    assert fleet.written["fold rates"] == 1


def test_an_increment_counts_once_whoever_took_it_in() -> None:
    fleet = fleet_after([increment(1, "a", 1), increment(2, "b", 1), increment(3, "b", 1), *meet(4, "ab")])
    assert fleet.nodes["a"].state.increments.total(ROOM) == (1, 0)
    assert (fleet.written["increment"], fleet.written[AGAIN]) == (2, 1)


@pytest.mark.slow
def test_increments_that_were_taken_together_at_two_nodes_count_once() -> None:
    most = FOLD_AT + 2
    fleet = fleet_after([increment(1, "a", 0, most), increment(2, "b", 0, most), *meet(3, "ab", "bc")])
    assert fleet.written[TOGETHER] == 2
    for node in fleet.nodes.values():
        assert node.state.increments.total(ROOM) == (most + 1, 0)
        assert any(node.state.rows.each(APPLIED))


def test_a_life_that_begins_again_takes_up_no_cell_of_the_one_before() -> None:
    writes: list[AnyStep] = [tally(1, "a"), insert(2, "a"), rate(3, "a", NOON), increment(4, "a", 1)]
    ends: list[AnyStep] = [Backup(number=5, node="a"), Crash(number=6, node="a"), Start(number=7, node="a", disk="copied")]
    again: list[AnyStep] = [tally(8, "a"), insert(9, "a"), rate(10, "a"), increment(11, "a", 1), increment(12, "a", 2)]
    fleet = fleet_after([*writes, *ends, *again])
    state = fleet.nodes["a"].state
    assert (state.sketches["violations"].total, state.sketches["violations"].writers) == (4, 2)
    assert state.rates.rates(1.0)[:2] == (8.0, 4.0)
    assert state.increments.total(ROOM) == (2, 0)
