"""How clocks stand to each other, as laws: a partial order, of which `merge` is the least upper bound."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt import Replica, VectorClock
from constraint_crdt.types import CausalOrder

clocks = st.builds(
    VectorClock, st.dictionaries(st.sampled_from([Replica("a", 1), Replica("a", 2), Replica("b", 1)]), st.integers(0, 3))
)
MIRRORED = {
    CausalOrder.EQUAL: CausalOrder.EQUAL,
    CausalOrder.BEFORE: CausalOrder.AFTER,
    CausalOrder.AFTER: CausalOrder.BEFORE,
    CausalOrder.CONCURRENT: CausalOrder.CONCURRENT,
}


def at_most(one: VectorClock, other: VectorClock) -> bool:
    """The definition: no entry of one is above that of the other."""
    return all(one[replica] <= other[replica] for replica in {*one, *other})


@pytest.mark.slow
@given(clocks, clocks)
def test_comparing_is_the_order_of_the_entries(one: VectorClock, other: VectorClock) -> None:
    below, above = at_most(one, other), at_most(other, one)
    order = one.compare(other)
    assert (
        order
        is {
            (True, True): CausalOrder.EQUAL,
            (True, False): CausalOrder.BEFORE,
            (False, True): CausalOrder.AFTER,
            (False, False): CausalOrder.CONCURRENT,
        }[below, above]
    )
    assert other.compare(one) is MIRRORED[order]
    assert (one == other) == (order is CausalOrder.EQUAL)
    assert one.is_concurrent(other) == other.is_concurrent(one) == (order is CausalOrder.CONCURRENT)
    assert (one.happened_before_or_equal(other), other.happened_before_or_equal(one)) == (below, above)
    assert (one.subsumes(other), other.subsumes(one)) == (above, below)


@given(clocks, clocks, clocks)
def test_the_order_is_transitive_and_a_merge_the_least_above_both(one: VectorClock, other: VectorClock, third: VectorClock) -> None:
    if one.happened_before_or_equal(other) and other.happened_before_or_equal(third):
        assert one.happened_before_or_equal(third)
    both = one.merged(other)
    assert one.happened_before_or_equal(both)
    assert other.happened_before_or_equal(both)
    if one.happened_before_or_equal(third) and other.happened_before_or_equal(third):
        assert both.happened_before_or_equal(third)
    assert max(one.total, other.total) <= both.total <= one.total + other.total
    assert both.total == sum(seq for _, seq in both.items())
