"""DurationHistogram are counted in the step that they belong to, and in no other."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt.model import DurationHistogram

SECONDS = st.floats(0.0, 1e6, allow_nan=False)


@pytest.mark.slow
@given(st.lists(SECONDS, max_size=20).map(lambda found: sorted(set(found))), st.lists(SECONDS, max_size=50))
def test_each_bound_counts_what_does_not_exceed_it(bounds: list[float], seconds: list[float]) -> None:
    durations = DurationHistogram(bounds)
    for each in seconds:
        durations.note(each)
    assert durations.up_to() == [sum(each <= bound for each in seconds) for bound in (*bounds, math.inf)]
    assert math.isclose(durations.total, math.fsum(seconds), abs_tol=1e-9)
