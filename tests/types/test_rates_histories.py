"""`DecayConstraintState` against a plain model that keeps every evaluation, over random histories of three copies."""

from math import isclose
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt import ConstraintState
from constraint_crdt.types import Rates
from tests.types.trio import WRITERS, Trio, copies

SECOND = 10**9
START = 1_700_000_000 * SECOND
HALF_LIVES = (30.0, 300.0, 3600.0)
IDS = [None, "x", "y"]

Evaluated = tuple[int, str | None, int, int]
"""When, what, satisfied, violated. A fold is one too: of nothing, at time -1, of the constraint that it folds."""

FOLDED = -1

counts = st.dictionaries(st.sampled_from(IDS), st.tuples(st.integers(0, 50), st.integers(0, 3)), max_size=3)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("record"), copies, counts),
        st.tuples(st.just("fold"), copies, st.sampled_from(["x", "y"])),
        st.tuples(st.sampled_from(["merge", "send"]), copies, copies),
        st.tuples(st.just("deliver"), st.integers(0, 7), st.none()),
        st.tuples(st.just("wait"), st.just(0), st.one_of(st.integers(0, 100), st.integers(0, 300 * SECOND))),
        st.tuples(st.just("collect"), copies, st.none()),
    ),
    max_size=40,
)


def split(evaluations: list[list[Evaluated]]) -> list[Evaluated]:
    """The evaluations of one writer, each under what it counts for after the folds that came later."""
    found: list[Evaluated] = []
    for group in evaluations:
        for time, id_, satisfied, violated in group:
            if time == FOLDED:
                found = [(at, None if each == id_ else each, s, v) for at, each, s, v in found]
            else:
                found.append((time, id_, satisfied, violated))
    return found


class Model:
    """What one copy must read."""

    def __init__(self, trio: Trio[list[Evaluated]], copy: int, now: int) -> None:
        self.rows = [(writer.node_id, split(reached)) for writer, reached in zip(WRITERS, trio.reached(copy), strict=True)]
        self.now = now

    def left(self, half_life: float, ids: list[str | None], nodes: str = "ab") -> tuple[float, float]:
        fitting = [each for node, evaluations in self.rows if node in nodes for each in evaluations if each[1] in ids]
        weights = [2 ** (-(self.now - time) / SECOND / half_life) for time, *_ in fitting]
        return (
            sum(weight * each[2] for weight, each in zip(weights, fitting, strict=True)),
            sum(weight * each[3] for weight, each in zip(weights, fitting, strict=True)),
        )


def close(read: Rates, expected: tuple[float, float]) -> bool:
    share = expected[1] / sum(expected) if sum(expected) else None
    if share is None or read.violated_share is None:
        return share is None and read == Rates()
    pairs = zip(read, (*expected, share), strict=True)
    return all(one is not None and isclose(one, other, rel_tol=1e-9, abs_tol=1e-300) for one, other in pairs)


def check(state: ConstraintState, model: Model) -> None:
    rates = state.rates
    for half_life in HALF_LIVES:
        assert close(rates.rates(half_life), model.left(half_life, IDS))
        by_constraint = rates.by_constraint(half_life)
        assert all(close(rates.rates(half_life, node=node), model.left(half_life, IDS, node)) for node in "ab")
        assert all(close(each, model.left(half_life, IDS, node)) for node, each in rates.by_node(half_life).items())
        for id_ in IDS:
            key = id_ or ""
            expected = model.left(half_life, [id_])
            assert close(rates.rates(half_life, key), expected)
            assert close(by_constraint.get(key, Rates()), expected)
            assert all(close(each, model.left(half_life, [id_], n)) for n, each in rates.by_node(half_life, key).items())
        assert rates.untracked_by(half_life) == []


@pytest.mark.slow
@given(steps)
def test_it_says_what_is_left_of_the_evaluations_that_reached_it(history: list[tuple[str, int, Any]]) -> None:
    time = START

    def make(_: int) -> ConstraintState:
        state = ConstraintState(now=lambda: time)
        state.rates.track(HALF_LIVES)
        return state

    trio: Trio[list[Evaluated]] = Trio(make)
    for act, first, second in history:
        if act == "wait":
            time += second
        elif act == "record":
            trio.states[first].rates.record_all(WRITERS[first], second)
            trio.wrote(first, [(time, id_, *each) for id_, each in second.items()])
        elif act == "fold":
            trio.states[first].rates.fold([second], node=WRITERS[first])
            trio.wrote(first, [(FOLDED, second, 0, 0)])
        elif act == "collect":
            trio.states[first].rows.collect()
        elif act == "deliver":
            trio.deliver(first)
        else:
            (trio.merge if act == "merge" else trio.send)(first, second)
    trio.check_clocks()
    for copy, state in enumerate(trio.states):
        check(state, Model(trio, copy, time))
