"""Printing for people: tables, drawn by rich on a terminal and as aligned text anywhere else; and JSON for programs.

Rule: whatever came from a node is printed without control characters, since anyone in the fleet may have put them there to play
with the terminal of whoever reads.
"""

import json
import sys
from collections.abc import Sequence

from constraint_crdt.operations.command import Column, Lines, Table, View


def printable(value: object) -> str:
    """Text without control characters or other characters that cannot be seen, which show as escapes."""
    text = str(value)
    return text if text.isprintable() else "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def print_json(value: object) -> None:
    """One JSON document."""
    print(json.dumps(value, indent=2))


def print_view(view: View) -> None:
    """A response as its operation shows it."""
    match view:
        case str():
            print(printable(view))
        case Table():
            print_table(view.columns, view.rows)
        case Lines():
            print_lines(view.values)
        case _:
            for each in view:
                print_view(each)


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
