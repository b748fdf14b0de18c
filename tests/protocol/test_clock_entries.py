"""Comparing two clocks: what takes a short cut comes to the same as looking at every row."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt import ConstraintCrdtError, Replica
from constraint_crdt.crdt.cells import Run
from constraint_crdt.crdt.clock import ClockMark, Digest
from constraint_crdt.protocol.peers import behind, bind_runs, changed_entries, lowered

DIGEST = Digest()
REPLICAS = [Replica(name, 1) for name in "abcd"]

clocks = st.dictionaries(st.sampled_from(REPLICAS), st.integers(1, 3)).map(lambda entries: ClockMark.of(entries, DIGEST))
entries = st.lists(st.tuples(st.sampled_from(REPLICAS), st.integers(0, 3)), unique_by=lambda entry: entry[0])


def at(clock: ClockMark, replica: Replica) -> int:
    return clock.entries.get(replica, 0)


@given(clocks, clocks)
def test_the_rows_in_which_they_are_ahead(mine: ClockMark, theirs: ClockMark) -> None:
    ahead = {(replica, at(mine, replica)) for replica in REPLICAS if at(theirs, replica) > at(mine, replica)}
    by = sum(max(0, at(theirs, replica) - at(mine, replica)) for replica in REPLICAS)
    for found in (behind(mine, theirs), behind(mine, theirs, by), behind(mine, ClockMark.of(theirs.entries, DIGEST), by)):
        assert set(found) == ahead
        assert len(found) == len(ahead)


@given(clocks, clocks)
def test_the_changed_entries_lead_from_one_clock_to_the_other(base: ClockMark, now: ClockMark) -> None:
    changes = [(replica, seq) for replica, seq in changed_entries(base, now) if isinstance(replica, Replica)]
    assert base.changed(changes).entries == now.entries
    assert len(changes) == sum(at(base, replica) != at(now, replica) for replica in REPLICAS)


@pytest.mark.slow
@given(clocks, entries)
def test_lowering_is_measured_only_where_every_entry_lowers(base: ClockMark, lower: list[tuple[Replica, int]]) -> None:
    if all(seq < at(base, replica) for replica, seq in lower):
        assert lowered(base, lower) == base.count - base.changed(lower).count
    else:
        assert lowered(base, lower) is None


def test_the_amount_of_lowering_of_some_entries() -> None:
    a, b, c, _ = REPLICAS
    base = ClockMark.of({a: 3, b: 2}, DIGEST)
    cases = [[], [(a, 1)], [(a, 1), (b, 0)], [(a, 3)], [(a, 1), (b, 3)], [(c, 0)]]
    assert [lowered(base, each) for each in cases] == [0, 2, 4, None, None, None]


def test_two_runs_of_one_row_are_refused_in_one_sentence() -> None:
    runs = [Run(REPLICAS[0], 0, 1, []), Run(REPLICAS[1], 0, 1, [])]
    assert bind_runs(runs, None) == runs
    with pytest.raises(ConstraintCrdtError, match=r"^a transfer has two runs of one replica$"):
        bind_runs([*runs, Run(REPLICAS[0], 1, 2, [])], None)
