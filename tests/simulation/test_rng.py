"""The random numbers of a simulation: the same everywhere, in range, and each about as likely as it should be."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt.simulation.world import SimRng

seeds = st.integers(-(2**70), 2**70)


def test_the_stream_is_that_of_splitmix64() -> None:
    """The first numbers of the published reference for seed 1234567: what every machine has to draw."""
    rng = SimRng(1234567)
    assert [rng.bits() for _ in range(5)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


@given(seeds, st.integers(1, 2**40))
def test_numbers_are_in_range(seed: int, bound: int) -> None:
    rng = SimRng(seed)
    assert 0 <= rng.random() < 1
    assert 0 <= rng.below(bound) < bound
    assert -bound <= rng.between(-bound, bound) <= bound
    assert rng.exponential(2.0) >= 0


@pytest.mark.slow
@given(seeds, st.lists(st.integers()))
def test_a_shuffle_loses_nothing(seed: int, items: list[int]) -> None:
    shuffled = list(items)
    SimRng(seed).shuffle(shuffled)
    assert Counter(shuffled) == Counter(items)


@pytest.mark.slow
def test_each_is_as_likely_as_the_others() -> None:
    rng = SimRng(5)
    drawn = Counter(rng.below(6) for _ in range(6000))
    assert all(900 < drawn[face] < 1100 for face in range(6))
    orders = Counter()  # type: Counter[tuple[int, ...]]
    for _ in range(6000):
        items = [1, 2, 3]
        rng.shuffle(items)
        orders[tuple(items)] += 1
    assert len(orders) == 6
    assert all(900 < times < 1100 for times in orders.values())


def test_an_exponential_has_its_mean() -> None:
    rng = SimRng(6)
    assert sum(rng.exponential(3.0) for _ in range(4000)) / 4000 == pytest.approx(3.0, rel=0.06)


def test_what_never_happens_draws_nothing() -> None:
    one, other = SimRng(7), SimRng(7)
    assert not one.happens(0.0)
    assert one.bits() == other.bits()
