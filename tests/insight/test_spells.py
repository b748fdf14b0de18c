"""Since when what is violated where, against a plain reading of the intervals that a node told."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from constraint_crdt import ConstraintState
from constraint_crdt.crdt.replica import Replica
from constraint_crdt.expression import Verdict
from constraint_crdt.insight import explain as spells
from constraint_crdt.insight.explain import Spell, Spells

B = Replica("b", 1)
INTERVALS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=12)


class Watched:
    def __init__(self) -> None:
        self.time = 0
        self.state = ConstraintState()
        self.spells = Spells(self.state.rows, lambda: self.time)
        self.spells.begin()

    def counted(self, satisfied: int, violated: int, *, by: Replica = B, id_: str = "x") -> None:
        self.time += 1
        self.state.metrics.record(by, satisfied, violated, constraint=id_)


@given(intervals=INTERVALS)
def test_a_spell_is_the_run_of_intervals_without_one_that_held(intervals: list[tuple[int, int]]) -> None:
    watched = Watched()
    watched.counted(1, 0, id_="other")  # its row is known
    since = last = None
    ever = False
    for satisfied, violated in intervals:
        watched.counted(satisfied, violated)
        ever = ever or violated > 0
        if violated:
            since = watched.time if satisfied or since is None else since
        elif satisfied:
            since = None
        if (satisfied or violated) and ever:
            last = watched.time
    assert watched.spells.of("x", "b") == (None if last is None else Spell(since, last))


def test_a_row_that_comes_whole_says_nothing_of_now() -> None:
    told = ConstraintState()
    told.metrics.record(B, 0, 5, constraint="x")
    watched = Watched()
    watched.state.merge(told)
    assert watched.spells.of("x", "b") is None
    told.metrics.record(B, 0, 1, constraint="x")
    watched.time = 9
    watched.state.merge(told)
    assert watched.spells.of("x", "b") == Spell(9, 9)


def test_one_that_says_something_else_now_has_no_spell() -> None:
    watched = Watched()
    watched.counted(1, 0)
    watched.counted(0, 1)
    watched.spells.turned("x", Verdict.VIOLATED)
    watched.spells.turned("y", Verdict.VIOLATED)
    watched.spells.turned("y", Verdict.SATISFIED)
    assert (watched.spells.own_since("x"), watched.spells.own_since("y")) == (2, None)
    watched.spells.forget("x")
    assert (watched.spells.of("x", "b"), watched.spells.own_since("x")) == (None, None)


def test_counts_that_were_folded_have_no_spell() -> None:
    watched = Watched()
    watched.counted(1, 0)
    watched.counted(0, 1)
    watched.state.metrics.fold(["x"], node=B)
    assert watched.spells.of("x", "b") is None


def test_only_so_many_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spells, "SPELLS", 2)
    watched = Watched()
    watched.counted(1, 0)
    for id_ in ("x", "y", "x", "z"):
        watched.counted(0, 1, id_=id_)
    assert watched.spells.of("y", "b") is None
    assert watched.spells.of("x", "b") == Spell(2, 4)
    assert watched.spells.of("z", "b") == Spell(5, 5)
