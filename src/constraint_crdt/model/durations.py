"""Lengths of time and distances to points in time, as people write and read them: `30m`, `1h`, `in 29 min`.

Rule: a length is in seconds, and a point in time in nanoseconds since the epoch. Nothing here reads a clock.
"""

import re

from constraint_crdt.errors import ConstraintCrdtError

_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?) ?([smhd]?)")

_SHOWN = (("d", 86_400, 2), ("h", 3600, 2), ("min", 60, 2), ("s", 1, 0))
"""Units of a distance, largest first, with their seconds, and how many of them it takes until they are used."""

_EXACT = (("d", 86_400), ("h", 3600), ("m", 60))
"""Units of a length, largest first, with their seconds."""


class DurationError(ConstraintCrdtError, ValueError):
    """A text that is no length of time. `str()` is one sentence that says how to write one."""


def parse_duration(text: str) -> float:
    """Seconds of `90`, `90s`, `30m`, `2h`, `7d` or `1.5h`. Raises `DurationError` for anything else, and for zero."""
    found = _DURATION.fullmatch(text.strip())
    seconds = float(found[1]) * _SECONDS[found[2]] if found else 0.0
    if not seconds:
        raise DurationError(f"{text!r} is not a length of time: give seconds, or a number with s, m, h or d, as in 30m")
    return seconds


def show_duration(seconds: float) -> str:
    """A length in its largest unit that divides it: `1h`, `5m`, `90s`."""
    for unit, size in _EXACT:
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"


def show_distance(seconds: float) -> str:
    """How far off a point in time is: `in 29 min`, or `29 min ago`."""
    whole = int(abs(seconds))
    unit, size = next((unit, size) for unit, size, least in _SHOWN if whole >= least * size)
    amount = f"{whole // size} {unit}"
    return f"in {amount}" if seconds > 0 else f"{amount} ago"


def show_time(time: int | None, now: float) -> str:
    """The distance from `now` (seconds since the epoch) to a time in nanoseconds since the epoch; `-` for None."""
    return "-" if time is None else show_distance(time / 1e9 - now)
