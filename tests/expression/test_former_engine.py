"""Definitions written by 0.1.0, whose CEL library differed: each means what it meant, or the difference is named here."""

import pytest

from constraint_crdt.expression import ExpressionError, Verdict, compile_expression

SATISFIED, VIOLATED, UNKNOWN = Verdict.SATISFIED, Verdict.VIOLATED, Verdict.UNKNOWN
VALUES: dict[str, object] = {
    "x": 7, "y": 2.5, "flag": True, "name": "forge-é", "label": "Žižek", "xs": [1, 2.0, 3],
    "robot": {"speed": 1, "arm": {"joints": [1, 2]}},
}  # fmt: skip


@pytest.mark.parametrize(
    "source",
    [
        "x < 85",
        "x in [7, 8]",
        "x >= 3u",
        "x * 2.0 + 1.0 == 15.0",
        "x * 2.0 < 15",
        "int(x) % 2 == 1",
        "size(xs) * 2 == 6",
        "name.startsWith('forge') && name.contains('ge-')",
        "robot.speed <= 1.5 && robot['speed'] == 1.0",
        "has(robot.speed) && !has(robot.wheels)",
        "type(x) == double && type(name) == string",
        "(flag ? 1 : 2.0) < x",
        "size(name) < x * 2.0",
        "xs[0.0] == 1.0",
        "name.matches('^forge-.')",
        "timestamp('2020-01-01T00:00:00Z').getFullYear() == 2020",
        "duration('90m').getHours() == 1",
    ],
)
def test_what_0_1_0_accepted_means_what_it_meant(source: str) -> None:
    """Also where the check of what is written now refuses it, as `(flag ? 1 : 2.0) < x`."""
    assert compile_expression(source, checked=False).evaluate(VALUES).verdict is SATISFIED


@pytest.mark.parametrize(
    ("source", "verdict", "before"),
    [
        ("size(label) <= 5", SATISFIED, "violated: it counted the bytes of a text, not its characters"),
        ("label.size() == 5", SATISFIED, "violated, as above"),
        ("duration('1h 30m') > duration('80m')", UNKNOWN, "violated: it read one hour"),
        ("-flag", UNKNOWN, "a bool: it negated bools with a minus"),
        ("{1: true}[1.0]", SATISFIED, "unknown: keys did not compare across types of numbers"),
        ("x in {7: true}", SATISFIED, "violated, as above"),
        ("x > 9.0 && missing < 1.0", VIOLATED, "unknown: any missing variable made the whole unknown"),
        ("x > 9.0 || missing < 1.0", UNKNOWN, "unknown, as now"),
        ("y / 0.0 > 1.0 && (x - 7.0) / (x - 7.0) < 1.0", VIOLATED, "the same: NaN is less than nothing"),
    ],
)
def test_a_difference_between_the_engines(source: str, verdict: Verdict, before: str) -> None:
    outcome = compile_expression(source, checked=False).evaluate(VALUES)
    assert outcome.verdict is verdict, f"0.1.0: {before}"
    assert bool(outcome.reason) == (verdict is UNKNOWN)


def test_hours_of_a_duration_are_whole_and_those_of_a_timestamp_are_in_utc() -> None:
    assert (
        compile_expression("duration('90s').getMinutes() == 1 && duration('-90m').getHours() == -1").evaluate({}).verdict
        is SATISFIED
    )
    assert compile_expression("timestamp('2020-01-01T23:30:00+02:00').getHours() == 21").evaluate({}).verdict is SATISFIED
    assert compile_expression("timestamp('2020-01-01T23:30:00Z').getHours('+02:00') == 1").evaluate({}).verdict is SATISFIED


def test_patterns_are_those_of_re2() -> None:
    for pattern in ("(?=a)b", "(a)\\\\1"):
        with pytest.raises(ExpressionError, match="not a valid regular expression"):
            compile_expression(f"name.matches('{pattern}')")
    assert compile_expression("name.matches('(?i)FORGE')").evaluate(VALUES).verdict is SATISFIED
