"""`PNCounter` against a plain model, which adds up the moves that have reached a copy, over random histories of three copies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt import ConstraintState
from constraint_crdt.types import Moves
from tests.types.trio import WRITERS, Trio, copies

Move = tuple[str, int]
"""The counter's name, and by how much it moves."""

NAMES = ["x", "y"]

steps = st.lists(
    st.one_of(
        st.tuples(st.just("move"), copies, st.tuples(st.sampled_from(NAMES), st.integers(-5, 5).filter(bool))),
        st.tuples(st.sampled_from(["merge", "send"]), copies, copies),
        st.tuples(st.just("deliver"), st.integers(0, 7), st.none()),
    ),
    max_size=40,
)


def moved(trio: Trio[Move], copy: int, name: str, node: str | None = None) -> Moves:
    """The model: what a copy must find that a counter moved by, on one node or on all."""
    reached = zip(WRITERS, trio.reached(copy), strict=True)
    moves = [by for writer, ops in reached if node in (None, writer.node_id) for named, by in ops if named == name]
    return Moves(sum(by for by in moves if by > 0), -sum(by for by in moves if by < 0))


def check(trio: Trio[Move], copy: int) -> None:
    counters = trio.states[copy].counters
    every = {name for ops in trio.reached(copy) for name, _ in ops}
    assert (list(counters), len(counters)) == (sorted(every), len(every))
    for name in NAMES:
        counter, expected = counters[name], moved(trio, copy, name)
        assert (name in counters) == (name in every)
        assert (counter.increments, counter.decrements, counter.value) == (*expected, expected.value)
        assert {node: counter.node_value(node) for node in "abz"} == {node: moved(trio, copy, name, node).value for node in "abz"}
        assert counter.by_node() == {node: moved(trio, copy, name, node) for node in sorted(counter.nodes)}


@pytest.mark.slow
@given(steps)
def test_it_says_what_the_moves_that_reached_it_add_up_to(history: list[tuple[str, int, object]]) -> None:
    trio: Trio[Move] = Trio(lambda _: ConstraintState())
    for act, first, second in history:
        if act == "move":
            assert isinstance(second, tuple)
            name, by = second
            counter = trio.states[first].counters[name]
            (counter.increment if by > 0 else counter.decrement)(abs(by), node=WRITERS[first])
            trio.wrote(first, (name, by))
        elif act == "deliver":
            trio.deliver(first)
        else:
            assert isinstance(second, int)
            (trio.merge if act == "merge" else trio.send)(first, second)
    trio.check_clocks()
    for copy in range(3):
        check(trio, copy)
    for copy, other in ((0, 1), (2, 0), (1, 2), (0, 1)):
        trio.merge(copy, other)
    assert trio.states[0] == trio.states[1].merged(trio.states[2])
    check(trio, 0)
