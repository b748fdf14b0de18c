"""Output: views for people, drawn by rich on a terminal and as aligned text anywhere else; JSON for programs.

Rule: a text from a node is printed without control characters. Any member of the fleet may have written it, to steer the terminal
of its readers.

A failed command ends with a sentence on stderr and an exit code.
"""

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from constraint_crdt.operations.command import Column, Lines, Table, View

if TYPE_CHECKING:
    from rich.table import Table as DrawnTable

INTERRUPTED = 130
"""The exit code after Ctrl-C."""

NO_READER = 141
"""The exit code when the output has no reader any more."""

LONGEST_WORD = 24
"""Characters of a word that a column of a drawn table keeps together."""

FRAME = 3
"""Characters around a cell of a drawn table: two spaces and a line."""

STYLES = {
    "violated": "bold red", "satisfied": "green", "holds": "green", "unknown": "yellow", "pending": "yellow", "clearing": "red",
    "critical": "bold",
}  # fmt: skip
"""How words that matter are drawn on a terminal."""


class CommandFailedError(Exception):
    """The command could not do its work. `str()` is a sentence with advice."""

    exit_code = 1


class MisuseError(CommandFailedError):
    """The arguments of the command cannot be right, whatever the state of the fleet."""

    exit_code = 2


def present(answer: object, view: "View | None") -> int:
    """Print the answer of a node as a view; without a view as JSON, as the API sent it. Returns 0, the exit code."""
    if view is None:
        print_json(answer)
    else:
        print_view(view)
    return 0


def printable(value: object) -> str:
    """Text without control characters and other invisible characters, which show as escapes."""
    text = str(value)
    return text if text.isprintable() else "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def print_json(value: object) -> None:
    """A JSON document. `value` may hold structs."""
    print(json.dumps(msgspec.to_builtins(value), indent=2))


def print_view(view: View) -> None:
    """Sentences, tables and named values, in order."""
    match view:
        case str():
            print(printable(view))
        case Table():
            print_table(view.columns, view.rows)
        case Lines():
            print_lines(view.values)
        case _:
            for part in view:
                print_view(part)


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[object]]) -> None:
    """A table with its header line."""
    cells = [[printable(value) for value in row] for row in rows]
    if sys.stdout.isatty():
        from rich.console import Console

        console = Console()
        widths = fitted(columns, cells, console.width)
        console.print(records(columns, cells) if widths is None else drawn(columns, cells, widths))
    else:
        for line in aligned(columns, cells):
            print(line)


def print_lines(lines: Sequence[tuple[str, object]]) -> None:
    """Named values, a line each."""
    for name, value in lines:
        print(f"{name:<12} {printable(value)}")


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


def fitted(columns: Sequence[Column], cells: Sequence[Sequence[str]], room: int) -> list[int] | None:
    """The widths of the columns of a drawn table in `room` characters, without a broken word. None if there is no such table."""
    from rich.cells import cell_len

    titles = [cell_len(column.title) for column in columns]
    longest = [max((cell_len(line[place]) for line in cells), default=0) for place in range(len(columns))]
    texts = ([column.title, *(line[place] for line in cells)] for place, column in enumerate(columns))
    words = (max((cell_len(word) for text in column for word in text.split()), default=0) for column in texts)
    widths = [max(1, min(word, LONGEST_WORD)) for word in words]
    spare = room - FRAME * len(columns) - 1 - sum(widths)
    if spare < 0:
        return None
    for _ in range(spare):  # the column with the most lines for a cell gains; then that with the most for its title
        lines = [(longest[place] / width, titles[place] / width, place) for place, width in enumerate(widths)]
        short = [each for each in lines if max(each[:2]) > 1]
        if not short:
            break
        widths[max(short)[2]] += 1
    return widths


def drawn(columns: Sequence[Column], cells: Sequence[Sequence[str]], widths: Sequence[int]) -> "DrawnTable":
    """A table for a terminal."""
    from rich.table import Table as DrawnTable
    from rich.text import Text

    table = DrawnTable()
    for column, width in zip(columns, widths, strict=True):
        table.add_column(Text(column.title), justify="right" if column.right else "left", overflow="fold", width=width)
    for line in cells:
        table.add_row(*(Text(text, style=STYLES.get(text, "")) for text in line))
    return table


def records(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> "DrawnTable":
    """The rows below each other, a line for each value, for a terminal too narrow for the table. Values without content are left
    out.
    """
    from rich.table import Table as DrawnTable
    from rich.text import Text

    grid = DrawnTable.grid("", "", padding=(0, 2, 0, 0))
    for number, line in enumerate(cells):
        if number:
            grid.add_row("", "")
        for column, text in zip(columns, line, strict=True):
            if text not in ("", "-"):
                grid.add_row(
                    Text(column.title, style="bold", no_wrap=True), Text(text, style=STYLES.get(text, ""), overflow="fold")
                )
    return grid
