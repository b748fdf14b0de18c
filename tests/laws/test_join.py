"""Beside the laws that `constraint_crdt.testing` checks of every type (tests/testing/test_our_types.py): what merging says of
itself, deltas as rows make them, and readings that are kept up to date, on honest histories and among liars.
"""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given

from constraint_crdt import ConstraintState
from constraint_crdt.testing import Replicas, laws_of, pairs, replicas, triples
from constraint_crdt.types import ConstraintGCounter, ConstraintORSet, EisensteinRegister

LAWS = laws_of(ConstraintState)
reading = LAWS.reading

VIEWS: dict[str, Callable[[ConstraintState], Any]] = {
    "ConstraintState": lambda state: state,
    "ConstraintORSet": lambda state: ConstraintORSet(state.rows.copy()),
    "ConstraintGCounter": lambda state: ConstraintGCounter(state.rows.copy()),
    "EisensteinRegister": lambda state: EisensteinRegister(state.rows.copy()),
    "VectorClock": lambda state: state.clock,
}
"""Each type over the rows of a whole state."""

Pair = tuple[ConstraintState, ConstraintState]
Triple = tuple[ConstraintState, ConstraintState, ConstraintState]


@given(states=triples(LAWS))
def test_merging_makes_values_that_are_equal_whatever_the_order(states: Triple) -> None:
    for view in VIEWS.values():
        a, b, c = map(view, states)
        assert a.merged(b) == b.merged(a)
        assert a.merged(b).merged(c) == a.merged(b.merged(c))
        assert a.merged(a) == a


@given(states=pairs(LAWS))
def test_merge_says_whether_it_changed_what_is_known(states: Pair) -> None:
    for view in VIEWS.values():
        a, b = (view(ConstraintState(state.rows.copy())) for state in states)
        assert not a.merge(a)
        joined = a.merged(b)
        assert joined.subsumes(a)
        assert joined.subsumes(b)
        assert not joined.merge(b)
        assert a.merged(joined) == joined
        assert a.subsumes(b) == (not a.merge(b))
        assert a.subsumes(b)


@given(states=pairs(LAWS))
def test_a_delta_does_what_a_full_merge_does(states: Pair) -> None:
    a, b = states
    by_delta, by_all = a.rows.copy(), a.rows.copy()
    if b.rows.serves(a.clock.as_dict()):
        by_delta.apply(b.rows.since(a.clock.as_dict()))
    else:
        by_delta.apply(b.rows.whole(), whole=True)
    by_all.apply(b.rows.whole(), whole=True)
    assert reading(ConstraintState(by_delta)) == reading(ConstraintState(by_all)) == reading(a.merged(b))


@pytest.mark.slow
@given(states=triples(LAWS))
def test_views_kept_up_to_date_read_as_views_made_anew(states: Triple) -> None:
    """Readings are never recomputed, so they could drift; they must not."""
    a, b, c = states
    a.merge(b)
    a.rows.apply(c.rows.whole(), whole=True)
    assert reading(a) == reading(ConstraintState(a.rows.copy()))


@given(found=replicas(LAWS))
def test_honest_counts_never_go_down_and_only_grow_by_what_was_counted(found: Replicas[ConstraintState]) -> None:
    assume(found.done is not None)
    a, b, *_ = found.states
    joined = a.merged(b)
    for side in (a, b):
        assert joined.metrics.total_satisfied >= side.metrics.total_satisfied
        assert joined.metrics.total_violations >= side.metrics.total_violations
    assert joined.metrics.total_satisfied <= a.metrics.total_satisfied + b.metrics.total_satisfied
