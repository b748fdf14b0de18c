"""The declaration of a command: its flags, how a person sees the response, and values as people write and read them.

A flag is for a field of the request. Without a declaration a parameter of the path is a positional argument, a bool a switch and
any other field a `--flag`. The view of a response consists of sentences, tables and named values. Values are durations, points in
time, labels, measurements, counts: `30m`, `2026-12-01T00:00:00Z`, `zone=a`, `in 29 min`. A verdict has the same words everywhere:
`pending 12 s of 30 s`, `speed_mps = 9.0, 7.5 above the limit (500 %)`, `99.93 %` of the time.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeAlias, TypeVar

import msgspec

from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.model import SelectorError, make_selector, parse_selector

if TYPE_CHECKING:
    from argparse import Namespace

    from constraint_crdt.client.blocking import Client

Request = TypeVar("Request", bound=msgspec.Struct)
Response = TypeVar("Response")


class Column(NamedTuple):
    """A column of a table."""

    title: str
    right: bool = False
    """Aligned to the right."""


class Table(NamedTuple):
    """Rows below titles."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[object]]


class Lines(NamedTuple):
    """Named values, a line each."""

    values: Sequence[tuple[str, object]]


View: TypeAlias = "str | Table | Lines | Sequence[str | Table | Lines]"
"""A response for a person. A text is a sentence."""


class Flag:
    """A flag or positional argument of a command."""

    def __init__(self, *names: str, convert: Callable[[Any], object] | None = None, exclusive: str = "", **options: Any) -> None:
        """`names`: those of argparse; none: a positional argument. `convert`: makes the value of the field from the parsed value;
        raises `ConstraintCrdtError`. `exclusive`: a name shared by mutually exclusive flags. `options`: those of argparse.
        """
        self.names = names
        self.convert = convert
        self.exclusive = exclusive
        self.options: dict[str, Any] = options


class Command(msgspec.Struct, Generic[Request, Response], frozen=True, kw_only=True, eq=False):
    """The command for an operation."""

    name: str
    """Two words, such as `tile put`, for an action of a command."""
    help: str
    example: str
    """A use of it, without the name of the program."""
    group: str
    """The heading in the help."""
    flags: Mapping[str, Flag | None] = {}
    """By field of the request, in the order of the help: where they differ from the field. None: not set by the command."""
    options: Mapping[str, Flag] = {}
    """Flags beside the fields of the request, by name."""
    check: Callable[[Request], None] | None = None
    """Raises `ConstraintCrdtError` for a useless request."""
    show: Callable[[Response, Request, "Namespace"], View] | None = None
    """The view of the response, given the request and all flags. None: the command line has a function for the command."""


class CompositeCommand(msgspec.Struct, Generic[Response], frozen=True, kw_only=True, eq=False):
    """A command whose flags choose among operations, or fill a request together."""

    name: str
    """Two words, such as `tile tag`, for an action of a command."""
    help: str
    example: str
    """A use of it, without the name of the program."""
    group: str
    """The heading in the help."""
    options: Mapping[str, Flag]
    """All flags, by name."""
    call: Callable[["Client", "Namespace"], Response]
    """Calls an operation. Raises `ConstraintCrdtError` for useless flags."""
    show: Callable[[Response, "Namespace"], View]
    """The view of the response, given all flags."""


AnyCommand: TypeAlias = "Command[Any, Any] | CompositeCommand[Any]"


# --- values ---------------------------------------------------------------------------------------------------------------------

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?) ?([smhd]?)")

_SHOWN = (("d", 86_400, 2), ("h", 3600, 2), ("min", 60, 2), ("s", 1, 0))
"""Units, largest first, with their seconds, and the least number of them from which on the unit is used."""


class UsageError(ConstraintCrdtError, ValueError):
    """An invalid command line, in any state of the fleet. `str()` is a sentence."""


def is_pattern(text: str) -> bool:
    """True for a pattern with `*` or `?`, in place of an id or a name."""
    return "*" in text or "?" in text


def parse_duration(text: str) -> float:
    """Seconds of `90`, `90s`, `30m`, `2h`, `7d` or `1.5h`. Raises `UsageError` for anything else, and for 0."""
    found = _DURATION.fullmatch(text.strip())
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if not seconds:
        above = " above 0" if found else ""
        raise UsageError(f"{text!r} is not a length of time{above}: give seconds, or a number with s, m, h or d, as in 30m")
    return seconds


def parse_delay(text: str) -> float:
    """Seconds as of `parse_duration`, or 0. Raises `UsageError` for anything else."""
    return 0.0 if text.strip() in ("0", "0s") else parse_duration(text)


def parse_end(text: str) -> datetime | None:
    """A point in time as of `parse_moment`, or None for `never`. Raises `UsageError` for anything else."""
    return None if text.strip() == "never" else parse_moment(text)


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


def parse_selectors(texts: Iterable[str]) -> Mapping[str, str] | str:
    """The selector of several texts, all of which a node has to match: labels where it has equalities only, else its text.

    Raises `UsageError` for a mistake in a text, and for a label with two values.
    """
    try:
        parts = [parse_selector(text) for text in texts]
        equal = [pair for each in parts for pair in each.equal]
        found = make_selector(equal, [other for each in parts for other in each.requirements])
    except SelectorError as error:
        raise UsageError(str(error)) from None
    return str(found) if found.requirements else dict(found.equal)


def parse_measurements(texts: Iterable[str]) -> dict[str, object]:
    """Values of `VAR=VALUE`. Raises `UsageError` for anything else, and for a name with two values."""
    values: dict[str, object] = {}
    for text in texts:
        labelled = re.match(r"([^={]*\{[^}]*\})(=?)(.*)", text, re.DOTALL)
        name, equals, value = labelled.groups() if labelled else text.partition("=")
        if not equals or not name:
            raise UsageError(f"{text!r} is not VAR=VALUE, for example gpu_temp_c=91.5")
        if name in values:
            raise UsageError(f"{name} has two values: give one")
        if not value:
            raise UsageError(f"{name} has no value, as of an unset shell variable: give one, or '{name}=\"\"' for the empty text")
        values[name] = _measured(value)
    return values


def parse_scalar(text: str) -> object:
    """A number, true, false or a quoted text as in JSON; other text as given. Raises `UsageError` for too large a number."""
    return _measured(text)


_NUMBER = re.compile(r"[+-]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_ALMOST_NUMBER = re.compile(
    r"[+-]?(?:0[xXoObB][0-9A-Fa-f_]+|[0-9][0-9_]*\.?[0-9_]*(?:[eE][+-]?[0-9]+)?|nan|inf(?:inity)?)", re.IGNORECASE
)


def _measured(text: str) -> object:
    """A number, true, false or a quoted text as in JSON; other text as given. Raises `UsageError` for a text that may be meant as
    a number: a verdict must not depend on which of them was.
    """
    if _NUMBER.fullmatch(text):
        if not math.isfinite(float(text)):
            raise UsageError(f"{text} is too large for a number: give one below 1.8e308")
        return int(text) if text.lstrip("+-").isdigit() else float(text)
    if _ALMOST_NUMBER.fullmatch(text):
        raise UsageError(f"{text} is not written as a number: give digits, as in 1000 or 0.5; a text in quotes, as in '\"{text}\"'")
    try:
        value: object = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, bool | str) else text


def parse_count(text: str) -> int:
    """A count, for argparse. Raises `ArgumentTypeError` for anything else."""
    if not text.isascii() or not text.isdigit():
        from argparse import ArgumentTypeError  # a node in a program parses no arguments

        raise ArgumentTypeError(f"{text!r} is not a count: give a whole number, 0 or more")
    return int(text)


def parse_share(text: str) -> float:
    """A share between 0 and 1, for argparse. Raises `ArgumentTypeError` for anything else."""
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0.0 < share < 1.0:
        from argparse import ArgumentTypeError

        raise ArgumentTypeError(f"give a share above 0 and below 1, as in 0.01, not {text!r}")
    return share


def show_duration(seconds: float) -> str:
    """A length in its largest unit that divides it: `1h`, `5m`, `90s`."""
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"


def show_length(seconds: float) -> str:
    """A length of time in whole units: `12 s`, `29 min`."""
    whole = max(0, int(seconds))
    unit, size = next((unit, size) for unit, size, least in _SHOWN if whole >= least * size)
    return f"{whole // size} {unit}"


def show_distance(seconds: float) -> str:
    """How far off a point in time is: `in 29 min`, or `29 min ago`."""
    return f"in {show_length(seconds + 0.5)}" if seconds > 0 else f"{show_length(-seconds)} ago"


def show_time(time: int | None, now: float) -> str:
    """The distance from `now` (seconds since the epoch) to a time in ns since the epoch; `-` for None."""
    return "-" if time is None else show_distance(time / 1e9 - now)


# --- verdicts ---------------------------------------------------------------------------------------------------------------


def show_share(share: float | None) -> str:
    """A share in percent: `99.93 %`. A share just below 1 or above 0 is rounded to neither."""
    if share is None:
        return "-"
    if 0.99995 <= share < 1.0:
        return "> 99.99 %"
    return "< 0.01 %" if 0.0 < share < 0.00005 else f"{100 * share:.2f} %"


def show_state(state: str, since: int | None, now: float, *, for_: float = 0.0, clear_after: float = 0.0) -> str:
    """A verdict state with its clock: `pending 12 s of 30 s`. Times in seconds; `since` in ns since the epoch."""
    if state == "pending" and for_ and since is not None:
        return f"pending {show_length(min(now - since / 1e9, for_))} of {_exact(for_)}"
    return f"clearing ({_exact(clear_after)})" if state == "clearing" and clear_after else state


def _exact(seconds: float) -> str:
    return show_length(seconds) if seconds >= 60 and seconds % 60 == 0 else f"{seconds:g} s"


def show_margin(values: Mapping[str, str], margin: float, share: float | None, variable: str | None) -> str:
    """The distance to the threshold: `7.5 above the limit (500 %)`; `beyond` or `within` where the direction cannot be told."""
    side = _side(values.get(variable or ""), margin, share) or ("within" if margin > 0 else "beyond")
    if not margin:
        return "at the limit"
    return f"{abs(margin):.4g} {side} the limit{'' if share is None else f' ({_percent(100 * abs(share))} %)'}"


def _percent(share: float) -> str:
    """Three digits, without an exponent up to a million: 500, 1150, 2e+06."""
    return f"{share:.3g}" if not 1000 <= share < 1e6 else f"{float(f'{share:.3g}'):.0f}"


def _side(text: str | None, margin: float, share: float | None) -> str | None:
    """The direction from the threshold to the value, from the size of the threshold; None if it fits neither or both directions."""
    try:
        value, threshold = float(text or ""), abs(margin / share) if share else math.nan
    except (ValueError, OverflowError):
        return None
    above = math.isclose(abs(value - abs(margin)), threshold, rel_tol=1e-9)
    below = math.isclose(abs(value + abs(margin)), threshold, rel_tol=1e-9)
    return None if above is below else "above" if above else "below"


def show_values(values: Mapping[str, str], margin: float | None, share: float | None, variable: str | None) -> str:
    """The values of a judgement and the margin: `speed_mps = 9.0, 7.5 above the limit (500 %); distance_m = 0.3`."""
    texts = {name: f"{name} = {value}" for name, value in values.items()}
    first = []
    if margin is not None:
        read = texts.pop(variable or "", variable or "")
        first = [", ".join(part for part in (read, show_margin(values, margin, share, variable)) if part)]
    return "; ".join([*first, *texts.values()])
