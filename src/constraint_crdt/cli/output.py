"""Printing for people: tables, drawn by rich on a terminal and as aligned text anywhere else; and JSON for programs.

Rule: whatever came from a node is printed without control characters, since anyone in the fleet may have put them there to play
with the terminal of whoever reads.

Lengths and points of time as people write and read them: `30m`, `2026-12-01T00:00:00Z`, `in 29 min`.
"""

import json
import re
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from constraint_crdt.cli.errors import MisuseError


class Column(NamedTuple):
    """A column of a table."""

    title: str
    right: bool = False


def printable(value: object) -> str:
    """Text without control characters or other characters that cannot be seen, which show as escapes."""
    text = str(value)
    return text if text.isprintable() else "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def print_json(value: object) -> None:
    """One JSON document."""
    print(json.dumps(value, indent=2))


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[object]]) -> None:
    """A table with its header line."""
    cells = [[printable(value) for value in row] for row in rows]
    if sys.stdout.isatty():
        _print_drawn(columns, cells)
    else:
        for line in aligned(columns, cells):
            print(line)


def aligned(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table as plain text, header first."""
    lines = [[column.title for column in columns], *cells]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    return [
        "  ".join(
            text.rjust(width) if column.right else text.ljust(width)
            for text, width, column in zip(line, widths, columns, strict=True)
        ).rstrip()
        for line in lines
    ]


def print_lines(lines: Sequence[tuple[str, object]]) -> None:
    """Named values, one a line."""
    for name, value in lines:
        print(f"{name:<12} {printable(value)}")


def _print_drawn(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for column in columns:
        table.add_column(Text(column.title), justify="right" if column.right else "left", overflow="fold")
    for line in cells:
        table.add_row(*(Text(text, style=STYLES.get(text, "")) for text in line))
    Console().print(table)


STYLES = {"violated": "bold red", "satisfied": "green", "unknown": "yellow", "critical": "bold"}
"""How words that matter are drawn on a terminal."""


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
