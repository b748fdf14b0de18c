"""Windows over samples: each function against a plain model, what is kept, too little data, what is refused, and Prometheus."""

import dataclasses
import inspect
import math
import shutil
import statistics
import subprocess
import threading
import tracemalloc
from collections.abc import Iterable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from constraint_crdt.expression import ExpressionError, Outcome, Verdict, compile_expression, measurements
from constraint_crdt.expression.cel import ANY_SAMPLES, WINDOW_FUNCTIONS, WindowReader
from constraint_crdt.expression.evaluation import evaluate
from constraint_crdt.expression.measurements import LATENESS, MAX_SAMPLES, MAX_WINDOW, Samples, requirements, show_span
from constraint_crdt.expression.temporal import Margin, margin
from constraint_crdt.runtime.measurement import LatestMeasurements
from constraint_crdt.types import ConstraintORSet
from tests.expression.cases import refusal

SECOND = 10**9
OVER = sorted(name for name, arguments in WINDOW_FUNCTIONS.items() if "span" in arguments)
Series = list[tuple[int, object]]


def kept(series: Iterable[tuple[int, object]], span: int = 60 * SECOND, samples: Samples | None = None) -> Samples:
    """The samples of x."""
    samples = Samples() if samples is None else samples
    samples.require({"x": span})
    for at, value in series:
        samples.put({"x": value}, at)
    return samples


def every(seconds: int, *values: object) -> Series:
    """Values measured at regular times from 0."""
    return [(index * seconds * SECOND, value) for index, value in enumerate(values)]


def outcome(source: str, windows: WindowReader, **values: object) -> Outcome:
    """The outcome of an expression."""
    return compile_expression(source).evaluate(measurements(values, windows))


def result(function: str, samples: Samples, now: int, span: int, fraction: float = 0.5) -> float | str:
    """The value of a function over x, or the reason for none."""
    try:
        return samples.at(now).over(function, "x", span, fraction)
    except ValueError as error:
        return str(error)


# The model: functions over the whole list of samples


def model(function: str, series: list[tuple[int, float]], now: int, span: int, fraction: float = 0.5) -> float | None:
    """The value by the definition, from all samples ever measured; None for too little data."""
    past = [each for each in series if each[0] <= now]
    if not past or past[0][0] > now - span:
        return None
    window = [each for each in past if each[0] > now - span]
    values = [Fraction(value) for _, value in window]
    if function == "count_over":
        return len(values)
    if not values:
        return None
    if function in ("delta", "increase", "rate"):
        return _growth(function, window)
    if function == "changes":
        return sum(before != after for before, after in pairwise(values))
    if function == "quantile_over":
        return _quantile(sorted(values), Fraction(fraction))
    mean = sum(values) / len(values)
    found = {
        "avg_over": mean,
        "min_over": min(values),
        "max_over": max(values),
        "sum_over": sum(values),
        "stddev_over": math.sqrt(sum((value - mean) ** 2 for value in values) / len(values)),
    }
    return float(found[function])


def _growth(function: str, window: list[tuple[int, float]]) -> float | None:
    elapsed = Fraction(window[-1][0] - window[0][0], SECOND)
    if not elapsed:
        return None
    values = [Fraction(value) for _, value in window]
    if function == "delta":
        return float(values[-1] - values[0])
    grown = sum((after - before if after >= before else after) for before, after in pairwise(values))
    return float(grown / elapsed if function == "rate" else grown)


def _quantile(ordered: list[Fraction], fraction: Fraction) -> float:
    rank = fraction * (len(ordered) - 1)
    below = math.floor(rank)
    above = min(below + 1, len(ordered) - 1)
    return float(ordered[below] + (ordered[above] - ordered[below]) * (rank - below))


NUMBERS = st.one_of(st.integers(-3, 3).map(float), st.floats(-1e6, 1e6))
GAPS = st.one_of(st.just(SECOND), st.integers(0, 40 * SECOND))


@st.composite
def all_series(draw: st.DrawFn) -> list[tuple[int, float]]:
    """Samples at irregular times, with gaps, from some time on."""
    at = draw(st.integers(-5 * SECOND, 5 * SECOND))
    series = []
    for gap, value in draw(st.lists(st.tuples(GAPS, NUMBERS), min_size=1, max_size=40)):
        at += gap
        series.append((at, value))
    return series


def same(found: float | str, expected: float | None) -> bool:
    if expected is None or isinstance(found, str):
        return expected is None and isinstance(found, str)
    return math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-6)


@pytest.mark.slow
@given(all_series(), st.integers(1, 120 * SECOND), st.integers(0, LATENESS), st.floats(0, 1), st.sampled_from(OVER))
def test_a_function_gives_what_its_definition_says(
    series: list[tuple[int, float]], span: int, late: int, fraction: float, function: str
) -> None:
    """Whatever the rings dropped meanwhile, and also for an instant a little earlier than the newest sample."""
    samples, now = kept(series, span), series[-1][0] - late
    assert same(result(function, samples, now, span, fraction), model(function, series, now, span, fraction))


@pytest.mark.slow
@given(all_series(), st.integers(1, 120 * SECOND), st.integers(1, 8), st.sampled_from(OVER))
def test_a_full_ring_gives_a_right_number_or_none(series: list[tuple[int, float]], span: int, most: int, function: str) -> None:
    samples, now = kept(series, span, Samples(most)), series[-1][0]
    assert len(samples) <= most
    found, expected = result(function, samples, now, span), model(function, series, now, span)
    in_window = sum(now - span < at for at, _ in series)
    if isinstance(found, str) and "too few are kept" in found:
        assert in_window > most or series[0][0] > now - span
        assert found.startswith(f"x has more than {most} samples in ")
    else:
        assert same(found, expected)
    if in_window > most:
        assert isinstance(found, str)


@pytest.mark.slow
@given(all_series(), st.integers(0, LATENESS))
def test_age_and_last_read_the_last_sample_however_old(series: list[tuple[int, float]], later: int) -> None:
    samples, now = kept(series, 0), series[-1][0] + later * 1000
    windows = samples.at(now)
    assert windows.last("x") == series[-1][1]
    assert windows.age("x") == now - series[-1][0]
    before = [each for each in series if each[0] <= series[-1][0] - later]
    if before:
        assert samples.at(series[-1][0] - later).last("x") == before[-1][1]


@example([2.0, 1.0, True, 1.0, [1.0], [True], [True], math.nan, math.nan])
@given(st.lists(st.sampled_from([1.0, 2.0, True, "a", "b", [1.0], [True], {"a": None}, math.nan]), min_size=2, max_size=30))
def test_changes_counts_the_samples_that_differ_from_the_one_before(values: list[object]) -> None:
    told = [(type(value), repr(value)) for value in values]
    changed = sum(before != after for before, after in pairwise(told[1:]))
    assert result("changes", kept(every(1, *values)), (len(values) - 1) * SECOND, (len(values) - 1) * SECOND) == changed
    assert result("count_over", kept(every(1, *values)), (len(values) - 1) * SECOND, (len(values) - 1) * SECOND) == len(values) - 1


# Numbers


@pytest.mark.parametrize(
    ("values", "increase"),
    [((0, 5, 5, 9), 9), ((0, 5, 2, 4), 9), ((9, 0, 0, 1), 1), ((3, 2, 1), 3), ((7, 7), 0), ((5, 9, 1, 6, 0, 2), 12)],
)
def test_a_counter_that_resets_begins_anew_at_0(values: tuple[int, ...], increase: int) -> None:
    """From the first to the last sample of the window, here all but one: nothing is extrapolated to its edges."""
    span = len(values) * 10 * SECOND
    samples = kept(every(10, values[0], *values), span)
    assert result("increase", samples, span, span) == increase
    assert result("rate", samples, span, span) == increase / ((len(values) - 1) * 10)
    assert result("delta", samples, span, span) == values[-1] - values[0]


@pytest.mark.parametrize("function", [name for name in OVER if name not in ANY_SAMPLES])
def test_nan_among_the_samples_gives_nan(function: str) -> None:
    samples = kept(every(1, 1, 2, 3, math.nan, 1, math.nan))
    found = result(function, samples, 5 * SECOND, 5 * SECOND)
    assert isinstance(found, float)
    assert math.isnan(found)
    source = f'{function}({"0.5, " if function == "quantile_over" else ""}"x", duration("5s")) < 1e9'
    assert outcome(source, samples.at(5 * SECOND)) == Outcome(Verdict.VIOLATED, "")
    assert result("changes", samples, 5 * SECOND, 5 * SECOND) == 4
    assert result("count_over", samples, 5 * SECOND, 5 * SECOND) == 5


def test_large_numbers_and_infinities() -> None:
    huge = kept(every(1, 0, 1.5e308, 1.5e308, 1.5e308), 3 * SECOND)
    assert result("avg_over", huge, 3 * SECOND, 3 * SECOND) == pytest.approx(1.5e308)
    assert result("sum_over", huge, 3 * SECOND, 3 * SECOND) == math.inf
    assert result("stddev_over", huge, 3 * SECOND, 3 * SECOND) == 0
    both = kept(every(1, 0, math.inf, -math.inf), 2 * SECOND)
    for function in ("avg_over", "sum_over", "stddev_over"):
        assert math.isnan(float(result(function, both, 2 * SECOND, 2 * SECOND)))
    assert result("max_over", both, 2 * SECOND, 2 * SECOND) == math.inf
    assert result("quantile_over", both, 2 * SECOND, 2 * SECOND, 0.0) == -math.inf
    exact = kept(every(1, 0, 1e16, 1, -1e16), 3 * SECOND)
    assert result("sum_over", exact, 3 * SECOND, 3 * SECOND) == 1


# What is kept


def test_there_are_rings_only_for_what_is_asked_for() -> None:
    asked = [compile_expression('avg_over("x", duration("5m")) < 1.0 && max_over("x", duration("1h")) < 2.0 && y < 3')]
    asked.append(compile_expression('age("z") < duration("30s") || last("x") == 1'))
    assert requirements(asked) == {"x": 3600 * SECOND, "z": 0}
    samples = Samples()
    samples.put({"x": 1}, 0)
    assert len(samples) == 0
    assert samples.require(requirements(asked)) == {"x", "z"}
    samples.put({"x": 1, "y": 1, "z": "a"}, 0)
    assert len(samples) == 2
    assert samples.require({"z": 0}) == frozenset()
    assert len(samples) == 1
    assert samples.require({"x": SECOND, "z": 0}) == {"x"}
    assert samples.at(5).last("z") == "a"
    with pytest.raises(ValueError, match="no sample of x"):
        samples.at(5).last("x")


def test_a_variable_that_is_asked_for_later_begins_with_its_latest_sample() -> None:
    """`age` and `last` know it at once, and a window is full once the sample is old enough."""
    measured = LatestMeasurements(max_age=5)
    measured.put({"x": 1, "y": 2}, 0)
    measured.put({"x": 3}, 10 * SECOND)
    measured.require({"x": 60 * SECOND})
    measured.put({"x": 4}, 20 * SECOND)
    measured.require({"x": 60 * SECOND, "y": 0, "z": 0})
    windows = measured.windows(70 * SECOND)
    assert (windows.age("x"), windows.age("y"), windows.last("y")) == (50 * SECOND, 70 * SECOND, 2)
    assert windows.over("avg_over", "x", 60 * SECOND) == 4
    with pytest.raises(ValueError, match="x has samples for 59s of the window of 1m"):
        measured.windows(69 * SECOND).over("avg_over", "x", 60 * SECOND)


@pytest.mark.slow
def test_samples_that_no_window_reaches_are_dropped_but_for_one() -> None:
    """The last before the newest stays, so that an instant a little earlier has a sample."""
    samples = kept(every(1, *range(5000)), 10 * SECOND)
    assert len(samples) == 10 + LATENESS // SECOND + 1
    samples.put({"x": 7}, 10**15)
    assert len(samples) == 2
    assert result("count_over", samples, 10**15 - 1, 10 * SECOND) == 0
    assert result("count_over", samples, 10**15 + SECOND, 10 * SECOND) == 1
    assert result("count_over", samples, 10**16, 10 * SECOND) == 0
    assert result("avg_over", samples, 10**16, 10 * SECOND) == "x has no sample in the last 10s"


@pytest.mark.long
def test_dropped_samples_take_no_memory() -> None:
    samples, series = Samples(), every(1, *range(20_000))
    tracemalloc.start()
    try:
        kept(series, SECOND, samples)
        own = tracemalloc.take_snapshot().filter_traces(
            [tracemalloc.Filter(True, inspect.getfile(Samples))]
        )  # other threads allocate, too
        taken = sum(each.size for each in own.statistics("filename"))
    finally:
        tracemalloc.stop()
    assert taken < 20_000  # 16 bytes each would be 320,000


def test_none_and_unusable_values_are_no_samples() -> None:
    samples = kept([(0, 1), (SECOND, None), (2 * SECOND, 10**400), (3 * SECOND, b"a"), (4 * SECOND, 3)])
    assert len(samples) == 2
    assert result("avg_over", samples, 5 * SECOND, 5 * SECOND) == 3
    assert samples.at(9 * SECOND).age("x") == 5 * SECOND


def test_a_sample_that_is_earlier_than_the_last_is_dropped() -> None:
    samples = kept([(5, 1), (4, 2), (5, 3)])
    assert len(samples) == 2
    assert samples.at(5).last("x") == 3


def test_the_bound_of_all_samples_is_shared_by_the_variables() -> None:
    samples = Samples(most=100, total=120)
    samples.require({"x": 3600 * SECOND})
    for second in range(200):
        samples.put({"x": second}, second * SECOND)
    assert len(samples) == 100
    samples.require(dict.fromkeys("xyz", 3600 * SECOND))
    assert len(samples) == 40
    for second in range(200, 300):
        samples.put(dict.fromkeys("xyz", second), second * SECOND)
    assert len(samples) == 120
    assert result("max_over", samples, 299 * SECOND, 40 * SECOND) == 299
    assert result("max_over", samples, 299 * SECOND, 41 * SECOND) == "x has more than 40 samples in 41s: too few are kept"


@pytest.mark.slow
def test_a_window_is_whole_again_once_the_samples_that_were_too_many_left_it() -> None:
    burst: Series = [(index, 1) for index in range(MAX_SAMPLES + 5)]
    samples = kept([(-60 * SECOND, 0), *burst], 10 * SECOND)
    assert result("sum_over", samples, 5 * SECOND, 10 * SECOND) == f"x has more than {MAX_SAMPLES} samples in 10s: too few are kept"
    assert result("sum_over", samples, 10 * SECOND + 4, 10 * SECOND) == MAX_SAMPLES
    samples.put({"x": 5}, 11 * SECOND)
    assert result("sum_over", samples, 11 * SECOND, 10 * SECOND) == 5


def test_what_the_bound_cut_off_is_told_from_what_was_not_asked_for() -> None:
    samples = kept(every(1, *range(100)), 50 * SECOND, Samples(20))
    assert result("count_over", samples, 99 * SECOND, 50 * SECOND) == "x has more than 20 samples in 50s: too few are kept"
    with pytest.raises(ValueError, match="x was measured too often since"):
        samples.at(70 * SECOND).last("x")
    samples.put({"x": 1}, 155 * SECOND)  # the samples before 95 s are dropped for their age
    samples.require({"x": 100 * SECOND})
    assert result("count_over", samples, 155 * SECOND, 100 * SECOND) == (
        "x has samples for 1m1s of the window of 1m40s (`count_over` so far: 6)"
    )


def test_values_that_are_no_numbers_are_not_kept_whole_but_for_the_last() -> None:
    samples = kept([*every(1, "a" * 1000, "a" * 1000, 3, "b", "c"), (4 * SECOND + 1, "d")])
    assert samples.at(5 * SECOND).last("x") == "d"
    assert samples.at(4 * SECOND).last("x") == "c"
    with pytest.raises(ValueError, match="x was measured too often since"):
        samples.at(3 * SECOND).last("x")
    assert samples.at(2 * SECOND).last("x") == 3
    assert result("changes", samples, 5 * SECOND, 5 * SECOND) == 4
    assert result("avg_over", samples, 5 * SECOND, 5 * SECOND) == "x has a sample that is a text: `avg_over` needs numbers"
    assert samples.at(10**12).age("x") == 10**12 - 4 * SECOND - 1


def test_a_field_is_read_from_the_measured_map_or_from_its_own_name() -> None:
    samples = Samples()
    samples.require({"robot.arm.speed": SECOND})
    samples.put({"robot": {"arm": {"speed": 1}}}, 0)
    samples.put({"robot.arm": {"speed": 2}}, 1)
    samples.put({"robot": 5}, 2)
    samples.put({"robot": {"arm": []}}, 3)
    samples.put({"robot.arm.speed": 3, "robot": {"arm": {"speed": 9}}}, 4)
    samples.put({"robot.arm": {"speed": 4}, "robot": {"arm": {"speed": 9}}}, 5)
    assert [samples.at(at).last("robot.arm.speed") for at in range(6)] == [1, 2, 2, 2, 3, 4]
    found = compile_expression('max_over("robot.arm.speed", duration("5s")) < 1.0')
    assert found.windows == {("robot.arm.speed", 5 * SECOND)}
    assert found.variables == {"robot"}


# Too little data


def test_a_window_is_full_once_the_variable_was_measured_for_as_long() -> None:
    samples, source = Samples(), 'avg_over("x", duration("1m")) < 3.0'
    samples.require({"x": 60 * SECOND})
    assert outcome(source, samples.at(0)) == Outcome(Verdict.UNKNOWN, "no sample of x")
    for at in range(0, 70, 10):
        samples.put({"x": at / 10}, at * SECOND)
    assert outcome(source, samples.at(59 * SECOND)) == Outcome(
        Verdict.UNKNOWN, "x has samples for 59s of the window of 1m (`avg_over` so far: 2.5)"
    )
    assert outcome(source, samples.at(60 * SECOND)) == Outcome(Verdict.VIOLATED, "")
    assert (
        outcome('rate("x", duration("10m")) < 3.0', samples.at(SECOND // 2)).reason == "x has samples for 0.5s of the window of 10m"
    )


def test_a_longer_window_that_is_asked_for_later_is_not_full_at_once() -> None:
    samples = kept(every(1, *range(100)), 10 * SECOND)
    samples.require({"x": 60 * SECOND})
    assert result("count_over", samples, 99 * SECOND, 60 * SECOND) == (
        "x has samples for 21s of the window of 1m (`count_over` so far: 21)"
    )
    for second in range(100, 140):
        samples.put({"x": 1}, second * SECOND)
    assert result("count_over", samples, 138 * SECOND, 60 * SECOND) == 60


def test_a_gap_in_the_samples_does_not_matter() -> None:
    samples = kept([(0, 1), (100 * SECOND, 5)], 60 * SECOND)
    assert result("avg_over", samples, 100 * SECOND, 60 * SECOND) == 5
    assert result("count_over", samples, 90 * SECOND, 60 * SECOND) == 0
    assert result("rate", samples, 100 * SECOND, 60 * SECOND) == ("x has samples of one time only in the last 1m: `rate` needs two")


@pytest.mark.parametrize(
    ("source", "verdict"),
    [
        ('y < 3 && avg_over("x", duration("5m")) < 1.0', Verdict.VIOLATED),
        ('avg_over("x", duration("5m")) < 1.0 && y < 3', Verdict.VIOLATED),
        ('y > 3 || age("x") < duration("1s")', Verdict.SATISFIED),
        ('last("x") == 1 || y > 3', Verdict.SATISFIED),
        ('y > 3 ? y < 9 : last("x") == 1', Verdict.SATISFIED),
        ('y > 3 && avg_over("x", duration("5m")) < 1.0', Verdict.UNKNOWN),
        ('last("x") == 1 && y > 3', Verdict.UNKNOWN),
    ],
)
def test_the_logic_decides_without_a_window_that_has_too_little(source: str, verdict: Verdict) -> None:
    samples = Samples()
    samples.require({"x": 300 * SECOND})
    for windows in (samples.at(0), None):
        found = compile_expression(source).evaluate(measurements({"y": 5}, windows) if windows else {"y": 5})
        assert found.verdict is verdict
        told = "no sample of x" if windows else "no samples of x are kept here"
        assert found.reason == (told if verdict is Verdict.UNKNOWN else "")


def test_the_reason_names_the_samples_and_the_variables_that_are_missing() -> None:
    source = 'avg_over("x", duration("5m")) < y && z'
    assert outcome(source, Samples().at(0), z=True).reason in (
        "no samples of x are kept here; no measurement of y",
        "no measurement of y",
    )
    # The variable of a window need not have a value now.
    assert outcome('last("x") == 1', kept(every(1, 1)).at(10**15)) == Outcome(Verdict.SATISFIED, "")
    assert (
        outcome('last("x") == "a" && 1 / int(y) == 1', kept(every(1, "a")).at(5), y=0).reason
        == "the evaluation failed: divide by zero"
    )


# In expressions


@pytest.mark.slow
def test_each_function_in_an_expression() -> None:
    series = every(10, 3, 1, 4, 1, 5, 9, 2)
    windows = kept(series).at(60 * SECOND)
    values = [1, 4, 1, 5, 9, 2]
    for call, expected in {
        'avg_over("x", duration("1m"))': statistics.fmean(values),
        'min_over("x", duration("1m"))': 1,
        'max_over("x", duration("1m"))': 9,
        'sum_over("x", duration("60s"))': 22,
        'count_over("x", duration("1m"))': 6,
        'stddev_over("x", duration("1m"))': statistics.pstdev(values),
        'quantile_over(0.5, "x", duration("1m"))': statistics.median(values),
        'quantile_over(1.0, "x", duration("1m"))': 9,
        'delta("x", duration("1m"))': 1,
        'increase("x", duration("1m"))': 3 + 1 + 4 + 4 + 2,
        'rate("x", duration("1m"))': 14 / 50,
        'changes("x", duration("1m"))': 5,
        'last("x")': 2,
        'sum_over("x", duration("0.5m"))': 16,
    }.items():
        assert outcome(f"math.abs({call} - {float(expected)!r}) < 1e-9", windows) == Outcome(Verdict.SATISFIED, ""), call
        assert outcome(f"{call} > 100", windows) == Outcome(Verdict.VIOLATED, ""), call
    assert outcome('age("x") == duration("1.5s")', kept(series).at(61 * SECOND + SECOND // 2)).verdict is Verdict.SATISFIED
    assert outcome('x > 2.0 * avg_over("x", duration("1m"))', windows, x=8).verdict is Verdict.SATISFIED
    assert outcome('last("x") + avg_over("x", duration("1m")) > 5', windows).verdict is Verdict.SATISFIED


def test_variables_can_have_the_names_of_the_functions() -> None:
    source = 'rate > 3 && last == "a" && age.delta < 5 && xs.all(changes, changes > 1) && rate < last("rate")'
    values = {"rate": 4, "last": "a", "age": {"delta": 3}, "xs": [2]}
    samples = Samples()
    samples.require({"rate": 0})
    samples.put({"rate": 5}, 0)
    assert outcome(source, samples.at(1), **values) == Outcome(Verdict.SATISFIED, "")
    assert compile_expression(source).variables == {"rate", "last", "age", "xs"}


def test_an_expression_says_what_it_reads() -> None:
    found = compile_expression('x < 1 && avg_over("x", duration("5m")) < 1.0 && age("y") < duration("1h")')
    assert found.variables == {"x", "y"}
    assert found.windows == {("x", 300 * SECOND), ("y", 0)}
    assert compile_expression("x < 1").windows == frozenset()


@pytest.mark.parametrize(
    "source",
    [
        'last("robot").speed == 3.0 && has(last("robot").speed) && !has(last("robot").arm)',
        'last("robot")["speed"] == 3.0 && last("robot").?arm.orValue(1.0) == 1.0',
        'last("label").startsWith("a") && size(last("label")) == 2 && last("label") + "c" == "abc"',
        '{"a": last("label"), last("label"): 1}["ab"] == 1 && [1, last("robot").speed][1] == 3',
        '[last("robot")].all(r, r.speed == 3.0 && [age("label")].exists(a, a < duration("3s")))',
        '(last("label") == "ab" ? age("label") : duration("9s")) == duration("2s")',
        'string(age("label")) == "2s" && age("label").getSeconds() == 2 && -last("robot").speed == -3.0',
        'type == "agv" && last("label") == "ab" && age("label") > duration("1s")',
        'last("robot").speed * 2 == 6.0 || last("label") == "ab"',
        'sum_over("robot.speed", duration("1s")) == 3.0 && last("robot.speed") <= limit',
    ],
)
def test_a_call_can_stand_anywhere(source: str) -> None:
    """In fields, indexes, methods, lists, maps, ranges of macros; with a variable that is named as a type; also without types."""
    samples = Samples()
    samples.require({"robot": 0, "label": 0, "robot.speed": SECOND})
    samples.put({"robot": {"speed": 3}}, SECOND)
    samples.put({"robot": {"speed": 3}, "label": "ab"}, 2 * SECOND)
    expression = compile_expression(source, checked=False)
    now = (2 if "sum_over" in source else 4) * SECOND
    assert expression.evaluate(measurements({"type": "agv", "limit": 3}, samples.at(now))) == Outcome(Verdict.SATISFIED, "")


@pytest.mark.long
def test_evaluations_take_no_memory() -> None:
    """The library never frees the arguments of a function of Python, 50 bytes each: calls over samples are none."""
    source = 'avg_over("x", duration("3s")) < 5.0 && age("x") < duration("5s") && last("x") == 1.0 && last("y") == 1'
    expression, values = compile_expression(source), measurements({}, kept(every(1, 1, 1, 1, 1)).at(3 * SECOND))
    process = psutil.Process()
    for _ in range(2000):
        expression.evaluate(values)
    before = process.memory_info().rss
    for _ in range(20_000):
        expression.evaluate(values)
    assert process.memory_info().rss - before < 3_000_000  # was 6,000,000


def test_the_samples_of_an_evaluation_are_those_of_its_thread() -> None:
    expression = compile_expression('last("x") == 0 || last("x") != last("y")')
    wrong: list[Outcome] = []

    def run(number: int) -> None:
        samples = Samples()
        samples.require({"x": 0, "y": 0})
        samples.put({"x": number, "y": number}, 0)
        prepared = measurements({}, samples.at(0))
        verdict = Verdict.VIOLATED if number else Verdict.SATISFIED
        wrong.extend(each for _ in range(300) if (each := expression.evaluate(prepared)).verdict is not verdict)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert expression.evaluate({}).reason == "no samples of x are kept here"


def test_constraints_are_evaluated_with_the_samples_of_an_instant() -> None:
    constraints = ConstraintORSet()
    constraints.add("c", node="a", when='max_over("x", duration("5s")) < 5.0')
    samples = kept(every(1, *range(10)))
    [found] = evaluate(constraints, {"x": 1}, windows=samples.at(9 * SECOND))
    assert found.verdict is Verdict.VIOLATED
    [found] = evaluate(constraints, {"x": 1})
    assert found.reason == "no samples of x are kept here"


@pytest.mark.parametrize(
    ("span", "text"),
    [(0, "0s"), (1, "1e-09s"), (SECOND // 2, "0.5s"), (40 * SECOND, "40s"), (300 * SECOND, "5m"), (5400 * SECOND, "1h30m"),
     (MAX_WINDOW, "24h"), (3601 * SECOND, "1h1s")],
)  # fmt: skip
def test_a_length_is_told_as_it_is_written(span: int, text: str) -> None:
    assert show_span(span) == text


# What is refused where it is written


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ('avg_over(x, duration("5m")) < 1.0',
         'column 10: `avg_over` needs the name of a variable as a string literal: write `"x"`'),
        ('y < 1 && max_over("a" + "b", duration("5m")) < 1.0',
         'column 19: `max_over` needs the name of a variable as a string literal: write `"x"`'),
        ('avg_over("x") < 1.0', 'column 1: `avg_over` takes a name and a duration: write `avg_over("x", duration("5m"))`'),
        ('quantile_over("x", duration("5m")) < 1.0',
         'column 1: `quantile_over` takes a fraction, a name and a duration: write `quantile_over(0.95, "x", duration("5m"))`'),
        ('last("x", duration("5m")) == 1', 'column 1: `last` takes a name: write `last("x")`'),
        ('avg_over("x", "5m") < 1.0', 'column 15: a window needs its length as a literal: write `duration("5m")`'),
        ('avg_over("x", 300) < 1.0', 'column 15: a window needs its length as a literal: write `duration("300s")`'),
        ('avg_over("x", d) < 1.0', 'column 15: a window needs its length as a literal: write `duration("5m")`'),
        ('avg_over("x", duration(d)) < 1.0', 'column 15: a window needs its length as a literal: write `duration("5m")`'),
        ('avg_over("x", duration("5 m")) < 1.0',
         "column 15: `duration('5 m')` fails: a duration is written as `1h30m` or `1.5s`, without spaces"),
        ('avg_over("x", duration("0s")) < 1.0', "column 15: a window is longer than 0 and at most 24h"),
        ('avg_over("x", duration("-5m")) < 1.0', "column 15: a window is longer than 0 and at most 24h"),
        ('avg_over("x", duration("24h1s")) < 1.0', "column 15: a window is longer than 0 and at most 24h"),
        ('quantile_over(95.0, "x", duration("5m")) < 1.0',
         "column 15: `quantile_over` needs a number literal from 0.0 to 1.0 first, such as `0.95`"),
        ('quantile_over(q, "x", duration("5m")) < 1.0',
         "column 15: `quantile_over` needs a number literal from 0.0 to 1.0 first, such as `0.95`"),
        ('quantile_over(1, "x", duration("5m")) < 1.0',
         "column 15: `quantile_over` needs a number literal from 0.0 to 1.0 first: write `1.0`"),
        ('age("a b") < duration("1s")',
         ("column 5: no expression can read a measurement named 'a b': a name has ASCII letters, digits and `_`, "
          "does not begin with a digit, and can have fields (`robot.speed`)")),
        ('age("x") < 5', "column 10: `<` cannot compare a duration with an int: write a duration such as `duration('5s')`"),
        ('last("x") * 2 > 3',
         "column 11: `*` cannot mix a measurement with an int (every number measured is a double): write `last('x') * 2.0`"),
        ('last("x").speed * 2 > 3',
         ("column 17: `*` cannot mix a measurement with an int (every number measured is a double): "
          "write `last('x').speed * 2.0`")),
        ('avg_over("x", duration("5m"))', "column 1: this gives a double, and a constraint needs a bool such as `x < 85`"),
        ('count_over("x", duration("5m")) == "a"', "column 33: `==` cannot compare a double with a string"),
        ('x.rate(duration("5m")) > 1.0', 'column 3: `rate` is a function: write `rate("x", duration("5m"))`'),
        ('avg_over_time("x", duration("5m")) > 1.0', "column 1: CEL has no function `avg_over_time`: write `avg_over`"),
        ('maxOver("x", duration("5m")) > 1.0', "column 1: CEL has no function `maxOver`: write `max_over`"),
    ],
)  # fmt: skip
def test_a_refusal_names_the_column_and_the_fix(source: str, message: str) -> None:
    assert str(refusal(source)) == message


@pytest.mark.parametrize(
    "source", ['avg_over(x, duration("5m")) < 1.0', 'avg_over("x", duration("25h")) < 1.0', "xs.all(i, i < last(y))"]
)
def test_a_definition_in_force_is_bound_by_the_same(source: str) -> None:
    """What it reads must be known, whichever version wrote it."""
    with pytest.raises(ExpressionError):
        compile_expression(source, checked=False)


def test_functions_of_numbers_refuse_a_variable_that_is_none() -> None:
    source = 'avg_over("x", duration("5m")) < 1.0'
    assert compile_expression(source, kinds={"x": "double"}).variables == {"x"}
    with pytest.raises(ExpressionError, match="column 1: `avg_over` needs numbers, and x is a string"):
        compile_expression(source, kinds={"x": "string"})
    for call in ('changes("x", duration("5m")) < 1.0', 'count_over("x", duration("5m")) < 1.0', 'last("x") == "a"'):
        compile_expression(call, kinds={"x": "string"})


def test_the_margin_of_a_window() -> None:
    windows = kept(every(1, *range(20)), 10 * SECOND).at(19 * SECOND)
    source = 'avg_over("x", duration("5s")) < 20.0 && age("x") < duration("9s")'
    found = margin(compile_expression(source), measurements({}, windows))
    assert found == Margin(3.0, 0.15, "x")
    assert margin(compile_expression(source), measurements({})) is None


def test_a_window_in_a_macro() -> None:
    samples = kept(every(1, 7))
    assert outcome('xs.all(i, i < last("x"))', samples.at(5), xs=[1, 6]).verdict is Verdict.SATISFIED
    assert outcome('xs.all(i, i < last("x"))', samples.at(5), xs=[1, 7]).verdict is Verdict.VIOLATED
    assert outcome('xs.all(i, i < last("x"))', samples.at(-1), xs=[1, 7]) == Outcome(Verdict.UNKNOWN, "no sample of x")


def test_what_loops_build_from_the_last_sample_is_bounded() -> None:
    samples = kept(every(1, ["a" * 4000] * 1000))
    for source in (
        'last("x").map(i, i + i + i).size() > 0',
        '[1].map(i, [last("x"), last("x")]).size() > 0',
        '[last("x")].all(w, w.map(i, [i, w]).size() > 0)',
    ):
        found = outcome(source, samples.at(5))
        assert found == Outcome(Verdict.UNKNOWN, "the evaluation failed: the macros build too much from values of this size")
        assert outcome(source, kept(every(1, ["a"])).at(5)).verdict is Verdict.SATISFIED
        assert outcome(source, Samples().at(5)).reason == "no samples of x are kept here"


# Prometheus

SERIES: list[list[float | None]] = [
    [3, 2, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4, 6, 2, 6, 4, 3, 3, 8, 3, 2, 7, 9],
    [100, 110, 125, 125, 130, 4, 20, 21, 30, 44, 44, 44, 2, 3, 9, 12, 12, 15, 40, 41, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
    [None if index % 7 == 3 else 0.5 * index * (-1) ** index for index in range(31)],
    [20] * 31,
]
"""Values of each 10 seconds; None is a missing sample."""
PROMETHEUS = {
    **{f'{name}_over("x", duration("5m"))': f"{name}_over_time(x[5m])" for name in ("avg", "min", "max", "sum", "count", "stddev")},
    **{f'quantile_over({q}, "x", duration("5m"))': f"quantile_over_time({q}, x[5m])" for q in (0.0, 0.25, 0.5, 0.95, 1.0)},
    'changes("x", duration("5m"))': "changes(x[5m])",
    'rate("x", duration("5m"))': "rate(x[5m])",
    'increase("x", duration("5m"))': "increase(x[5m])*290/300",
    'delta("x", duration("5m"))': "delta(x[5m])*290/300",
}
"""The same in both. Prometheus extrapolates: its increase of a window of 300 s comes from samples that are 290 s apart."""


@pytest.mark.long
@pytest.mark.processes
def test_prometheus_gives_the_same(tmp_path: Path) -> None:
    """At 305 s the window of 5 minutes begins at 5 s: no sample is at its edge, where versions of Prometheus differ."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: it is in Debian's package prometheus")
    now, tests = 305 * SECOND, []
    for values in SERIES:
        windows = kept([(index * 10 * SECOND, value) for index, value in enumerate(values)], 300 * SECOND).at(now)
        checks = ""
        for ours, theirs in PROMETHEUS.items():
            name = ours.partition("(")[0]
            negative = any(value is not None and value < 0 for value in values)
            if negative and name in ("rate", "increase"):
                continue  # no counter
            fraction = float(ours.partition("(")[2].partition(",")[0]) if name == "quantile_over" else 0.0
            value = windows.over(name, "x", 300 * SECOND, fraction)
            assert outcome(f"math.abs({ours} - {value!r}) <= 0.0", windows).verdict is Verdict.SATISFIED
            checks += f"""
      - expr: abs({theirs} - ({value!r})) < bool 1e-9
        eval_time: 305s
        exp_samples: [{{labels: "{{}}", value: 1}}]"""
        series = " ".join("_" if value is None else str(value) for value in values)
        tests.append(f"""
  - interval: 10s
    input_series: [{{series: x, values: "{series}"}}]
    promql_expr_test: {checks}""")
    file = tmp_path / "windows.yml"
    file.write_text(f"evaluation_interval: 10s\ntests: {''.join(tests)}\n")
    done = subprocess.run([promtool, "test", "rules", file], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


_WINDOW_CALLS = ('avg_over("x", duration("10s"))', 'max_over("y", duration("5s"))', 'last("x")', 'count_over("x", duration("10s"))')
_window_terms = st.sampled_from([*_WINDOW_CALLS, "x", "z"])
_window_comparisons = st.builds(
    "{} {} {}".format,
    _window_terms,
    st.sampled_from(["<", "<=", ">", ">=", "==", "!="]),
    st.sampled_from(["1.0", "2", "z", *_WINDOW_CALLS[:2]]),
)
_window_expressions = st.recursive(
    _window_comparisons,
    lambda inner: st.one_of(
        st.builds("({} && {})".format, inner, inner), st.builds("({} || {})".format, inner, inner), st.builds("!({})".format, inner)
    ),
    max_leaves=3,
)


@pytest.mark.slow
@given(
    _window_expressions,
    st.lists(st.tuples(st.sampled_from("xy"), st.one_of(st.floats(0, 3), st.sampled_from(["a", True, 1.0]))), max_size=8),
    st.dictionaries(st.sampled_from("xz"), st.one_of(st.floats(0, 3), st.sampled_from(["a", True]))),
)
def test_comparisons_of_windows_are_as_the_library_says(
    source: str, samples: list[tuple[str, object]], values: dict[str, object]
) -> None:
    """With a verdict and a reason, whatever is measured: they are decided without it."""
    expression = compile_expression(source, checked=False)
    rings = Samples()
    rings.require({"x": 10 * SECOND, "y": 5 * SECOND})
    for number, (name, value) in enumerate(samples):
        rings.put({name: value}, number * 2 * SECOND)
    given_values = measurements(values, rings.at(16 * SECOND))
    reading = expression._reading
    if reading is None:
        return
    by_library = dataclasses.replace(expression, _reading=reading._replace(comparisons=None))
    assert expression.evaluate(given_values) == by_library.evaluate(given_values)
