"""Values as people write and read them on a command line: `30m`, `2026-12-01T00:00:00Z`, `zone=a`, `in 29 min`."""

import json
import math
import re
from argparse import ArgumentTypeError
from collections.abc import Iterable
from datetime import datetime

from constraint_crdt.errors import ConstraintCrdtError

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?) ?([smhd]?)")

_SHOWN = (("d", 86_400, 2), ("h", 3600, 2), ("min", 60, 2), ("s", 1, 0))
"""Units, largest first, with their seconds, and the least number of them from which on the unit is used."""


class UsageError(ConstraintCrdtError):
    """An invalid command line, in any state of the fleet. `str()` is a sentence."""


def parse_duration(text: str) -> float:
    """Seconds of `90`, `90s`, `30m`, `2h`, `7d` or `1.5h`. Raises `UsageError` for anything else, and for 0."""
    found = _DURATION.fullmatch(text.strip())
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if not seconds:
        raise UsageError(f"{text!r} is not a length of time: give seconds, or a number with s, m, h or d, as in 30m")
    return seconds


def parse_moment(text: str) -> datetime:
    """A point in time with its zone, as in ISO 8601. Raises `UsageError` for anything else."""
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise UsageError(f"{text!r} is not a point in time: give date, time and zone, as in 2026-12-01T00:00:00Z") from None
    if moment.tzinfo is None:
        raise UsageError(f"{text!r} could be at any place on Earth: give its zone too, as in 2026-12-01T00:00:00Z")
    return moment


def parse_labels(texts: Iterable[str]) -> dict[str, str]:
    """Labels of `KEY=VALUE`. Raises `UsageError` for anything else, and for a key with two values."""
    labels: dict[str, str] = {}
    for text in texts:
        key, _, value = text.partition("=")
        if not key or not value:
            raise UsageError(f"{text!r} is not KEY=VALUE, for example zone=a")
        if key in labels:
            raise UsageError(f"the label {key} has two values: give one")
        labels[key] = value
    return labels


def parse_measurements(texts: Iterable[str]) -> dict[str, object]:
    """Values of `VAR=VALUE`. Raises `UsageError` for anything else, and for a name with two values."""
    values: dict[str, object] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"{text!r} is not VAR=VALUE, for example gpu_temp_c=91.5")
        if name in values:
            raise UsageError(f"{name} has two values: give one")
        values[name] = _measured(value)
    return values


def _measured(text: str) -> object:
    """A number, true, false, null or a quoted text as in JSON; other text as given."""
    try:
        value: object = json.loads(text, parse_constant=str)
    except ValueError:
        return text
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{text} is too large for a number: give one below 1.8e308")
    return value if value is None or isinstance(value, bool | int | float | str) else text


def parse_count(text: str) -> int:
    """A count, for argparse. Raises `ArgumentTypeError` for anything else."""
    if not text.isascii() or not text.isdigit():
        raise ArgumentTypeError(f"{text!r} is not a count: give a whole number, 0 or more")
    return int(text)


def parse_share(text: str) -> float:
    """A share between 0 and 1, for argparse. Raises `ArgumentTypeError` for anything else."""
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0.0 < share < 1.0:
        raise ArgumentTypeError(f"give a share above 0 and below 1, as in 0.01, not {text!r}")
    return share


def show_duration(seconds: float) -> str:
    """A length in its largest unit that divides it: `1h`, `5m`, `90s`."""
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
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
    """The distance from `now` (seconds since the epoch) to a time in ns since the epoch; `-` for None."""
    return "-" if time is None else show_distance(time / 1e9 - now)
