"""Lengths and points of time as people write and read them: `30m`, `2026-12-01T00:00:00Z`, `in 29 min`."""

import re
from datetime import datetime

from constraint_crdt.cli.failures import MisuseError

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?) ?([smhd]?)")

_SHOWN = (("d", 86_400, 2), ("h", 3600, 2), ("min", 60, 2), ("s", 1, 0))
"""Units, largest first, with their seconds, and how many of them it takes until they are used."""


def parse_duration(text: str) -> float:
    """Seconds of `90`, `90s`, `30m`, `2h`, `7d` or `1.5h`. Raises `MisuseError` for anything else, and for none at all."""
    found = _DURATION.fullmatch(text.strip())
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if not seconds:
        raise MisuseError(f"{text!r} is not a length of time: give seconds, or a number with s, m, h or d, as in 30m")
    return seconds


def parse_moment(text: str) -> datetime:
    """A point in time with its zone, as ISO 8601 has it. Raises `MisuseError` for anything else."""
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise MisuseError(f"{text!r} is not a point in time: give date, time and zone, as in 2026-12-01T00:00:00Z") from None
    if moment.tzinfo is None:
        raise MisuseError(f"{text!r} could be at any place on Earth: give its zone too, as in 2026-12-01T00:00:00Z")
    return moment


def show_distance(seconds: float) -> str:
    """How far off a point in time is: `in 29 min`, or `29 min ago`."""
    whole = int(abs(seconds))
    unit, size = next((unit, size) for unit, size, least in _SHOWN if whole >= least * size)
    amount = f"{whole // size} {unit}"
    return f"in {amount}" if seconds > 0 else f"{amount} ago"
