"""The log of a clock's changes against a plain list of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt.crdt.clock import ClockMark, Digest, Replica
from constraint_crdt.crdt.rows import LOGGED, ClockLog

REPLICAS = [Replica(name, 1) for name in "abcd"]
START = ClockMark.of({}, Digest())


@pytest.mark.slow
@given(st.lists(st.one_of(st.none(), st.sampled_from(REPLICAS)), max_size=60))
def test_it_knows_what_changed_since_each_mark(steps: list[Replica | None]) -> None:
    """A step is a change of a replica's entry, or None to take a mark."""
    log, mark = ClockLog(), START
    marks: list[tuple[ClockMark, int]] = []
    for number, step in enumerate(steps):
        if step is None:
            log.note_mark(mark)
            marks.append((mark, number))
        else:
            mark = mark.changed([(step, mark.entries.get(step, 0) + 1)])
            log.note(step)
    for each, number in marks:
        changed = log.since(each)
        assert changed is not None
        assert set(changed) == {step for step in steps[number:] if step is not None}
    if not any(each == mark for each, _ in marks):
        assert log.since(mark) is None, "a clock that was never noted as a mark"


@pytest.mark.slow
def test_it_is_bounded_and_says_what_it_no_longer_knows() -> None:
    log, mark = ClockLog(), START
    log.note_mark(mark)
    first = mark
    for seq in range(1, LOGGED + 1):
        mark = mark.changed([(REPLICAS[0], seq)])
        log.note(REPLICAS[0])
        if seq == LOGGED:
            assert log.since(first) is not None
    log.note(REPLICAS[1])
    assert log.since(first) is None
    for seq in range(LOGGED + 1, 3 * LOGGED):
        mark = mark.changed([(REPLICAS[0], seq)])
        log.note_mark(mark)
    assert len(log._marks) == LOGGED
    log.clear()
    assert log.since(mark) is None


def test_a_mark_without_a_change_is_the_same() -> None:
    mark = START.changed([(REPLICAS[0], 3)])
    assert mark.changed([(REPLICAS[0], 3), (REPLICAS[1], 0)]) is mark
