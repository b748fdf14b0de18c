"""BlockSums: each number counts once, whoever tells of it alone or together with others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt import Counts
from constraint_crdt.types.counters import Block, BlockSums, join_blocks, sum_counts

MOST = 2**63 - 1

stretches = st.integers(0, 4).flatmap(lambda level: st.integers(0, 15 >> level).map(lambda n: Block(n << level, level)))
told = st.tuples(stretches, st.builds(Counts, st.integers(0, 3), st.integers(0, 3)))


def plain_total(standing: list[tuple[Block, Counts]]) -> Counts:
    """The reading, computed from all that is told: the highest value of each stretch that lies in no larger one."""
    values: dict[Block, Counts] = {}
    for stretch, value in standing:
        before = values.get(stretch, Counts())
        values[stretch] = Counts(max(before.satisfied, value.satisfied), max(before.violated, value.violated))
    largest = [
        value
        for stretch, value in values.items()
        if not any(other.level > stretch.level and other.first <= stretch.first < other.end for other in values)
    ]
    return Counts(sum(value.satisfied for value in largest), sum(value.violated for value in largest))


@pytest.mark.slow
@given(steps=st.lists(st.tuples(st.booleans(), told, st.integers(0, 99)), max_size=40))
def test_the_total_is_kept_through_whatever_is_told_and_taken_back(steps: list[tuple[bool, tuple[Block, Counts], int]]) -> None:
    view, standing = BlockSums(), list[tuple[Block, Counts]]()
    for tells, each, which in steps:
        if tells or not standing:
            standing.append(each)
            view.add(*each)
        else:
            view.remove(*standing.pop(which % len(standing)))
        assert view.total == plain_total(standing)
        assert len(view) == len({stretch for stretch, _ in standing})
        for number in range(16):
            assert view.covers(number) == any(stretch.first <= number < stretch.end for stretch, _ in standing)


@given(numbers=st.sets(st.integers(0, 63)), top=st.integers(0, 7))
def test_joining_keeps_numbers_and_sums_and_leaves_nothing_to_join(numbers: set[int], top: int) -> None:
    found = join_blocks({Block(number, 0): Counts(number, 1) for number in numbers}, top)
    assert sorted(number for stretch in found for number in range(stretch.first, stretch.end)) == sorted(numbers)
    for stretch, value in found.items():
        assert value == Counts(sum(range(stretch.first, stretch.end)), 1 << stretch.level)
        assert stretch.level == top or Block(stretch.first ^ (1 << stretch.level), stretch.level) not in found


def test_sums_stop_at_the_largest_count_in_any_order() -> None:
    values = [Counts(MOST, 1), Counts(5, MOST - 1), Counts(MOST, 3)]
    assert sum_counts(values) == sum_counts(reversed(values)) == Counts(MOST, MOST)
    view = BlockSums()
    for number, value in enumerate(values):
        view.add(Block(number, 0), value)
    assert view.total == Counts(MOST, MOST)
    view.remove(Block(0, 0), values[0])
    view.remove(Block(2, 0), values[2])
    assert view.total == values[1], "what was above the largest count is not lost to the sum"
