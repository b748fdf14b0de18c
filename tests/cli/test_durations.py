"""Times as people write and read them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from constraint_crdt.operations.operation import UsageError, parse_duration, parse_moment, show_distance


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("30m", 1800), ("2h", 7200), ("7d", 604_800), ("1.5h", 5400), (" 5 m ", 300), ("0.25", 0.25)],
)
def test_a_length_of_time_is_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "0", "0s", "-5m", "5x", "m", "1h30m", "1e3", "nan", "inf", "٣m", "1" * 40, "5.m", "3 minutes"]
)
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"is not a length of time( above 0)?: give seconds, or a number with s, m, h or d, as in"):
        parse_duration(text)


def test_a_point_in_time_is_read() -> None:
    assert parse_moment("2026-12-01T00:00:00Z") == datetime(2026, 12, 1, tzinfo=UTC)
    assert parse_moment("2026-12-01 02:00+02:00") == datetime(2026, 12, 1, 2, tzinfo=timezone(timedelta(hours=2)))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("2026-12-01T00:00:00", "give its zone too"),
        ("2026-12-01", "give its zone too"),
        ("tomorrow", "date, time and zone"),
        ("", "zone"),
    ],
)
def test_what_is_no_point_in_time_is_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_moment(text)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.4, "in 0 s"),
        (45, "in 45 s"),
        (119, "in 119 s"),
        (29 * 60 + 59, "in 29 min"),
        (7199, "in 119 min"),
        (7200, "in 2 h"),
        (47 * 3600, "in 47 h"),
        (86_400 * 3.5, "in 3 d"),
        (-12.3, "12 s ago"),
        (-3 * 86_400, "3 d ago"),
    ],
)
def test_a_distance_is_shown(seconds: float, shown: str) -> None:
    assert show_distance(seconds) == shown
