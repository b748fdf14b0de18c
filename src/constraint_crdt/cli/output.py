"""Output: views for people, drawn by rich on a terminal and as aligned text anywhere else; JSON for programs.

Rule: a text from a node is printed without control characters. Any member of the fleet may have written it, to steer the terminal
of its readers.

A failed command ends with a sentence on stderr and an exit code.

The log of a node has a budget, because a fault of the network repeats its lines for as long as it lasts (`LogBudget`). Lines of a
statement in the code are a *kind*, and those of an event of the fleet. Rules:

- A kind has `KIND_LINES` lines at once, then a line each `KIND_SECONDS`.
- All kinds together have `BURST_BYTES` at once, then `HOUR_BYTES` an hour. A kind without a line for an hour has a line in any
  case.
- Lines left out are counted. The next line of the kind tells their number; without such a line, a line of its own does after
  `COUNT_SECONDS`, with any other line, within the next `LOOK_SECONDS`.
"""

import json
import logging
import re
import sys
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

import msgspec

from constraint_crdt.operations.operation import Column, Lines, Table, View

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

BEGINNING, END = 80, 20
"""Characters of a very long word that a sentence keeps."""

_LONG = re.compile(r"\S{200,}")

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

    def __init__(self, message: str, *, several: bool = False) -> None:
        """`several`: the message has a line of printable text for each mistake."""
        super().__init__(message)
        self.several = several


def confirm(question: str, advice: str = "there is no terminal to ask on: give --yes") -> None:
    """Go on after a yes on the terminal. Raises `CommandFailedError` for another answer, and `MisuseError` with `advice` without a
    terminal. The question goes to stderr, so the output of the command stays whole.
    """
    if not sys.stdin.isatty():
        raise MisuseError(advice)
    print(f"{printable(question)}? Type yes to go on: ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() != "yes":
        raise CommandFailedError("nothing was changed")


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


def sentence(value: object) -> str:
    """The sentence of a mistake: printable, and without the middle of very long words, as of a file given in place of its name."""
    return _LONG.sub(lambda found: f"{found[0][:BEGINNING]}…{found[0][-END:]}", printable(value))


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


# --- the log --------------------------------------------------------------------------------------------------------------------

KIND_LINES = 50
KIND_SECONDS = 60.0
BURST_BYTES = 30_000
HOUR_BYTES = 120_000
COUNT_SECONDS = 600.0
LOOK_SECONDS = 10.0
HOUR = 3600.0

KINDS = 256
"""Kinds of lines with a budget of their own, at most: beyond, the kind that was silent for longest begins anew."""

EXAMPLE = 120
"""Characters of a line in the count of lines like it."""


@dataclass(slots=True)
class _Kind:
    """The budget of a kind of lines, and the lines left out since the last."""

    lines: float
    at: float
    shown_at: float
    left_out: int = 0
    since: float = 0.0
    example: str = ""


class LogBudget:
    """Decides which lines of a log are shown. Times are in seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._kinds: OrderedDict[Hashable, _Kind] = OrderedDict()
        self._bytes = float(BURST_BYTES)
        self._at = 0.0
        self._looked_at = 0.0

    def admit(self, kind: Hashable, line: str, now: float) -> str | None:
        """The line, with the number of lines of this kind left out before it; None if it is left out, too."""
        budget = self._budget(kind, now)
        shown = f"{line} ({_lines(budget.left_out)} like this left out before)" if budget.left_out else line
        size = len(shown.encode(errors="replace")) + 1
        self._bytes = min(BURST_BYTES, self._bytes + (now - self._at) * HOUR_BYTES / HOUR)
        self._at = now
        is_rare = now - budget.shown_at >= HOUR
        if not is_rare and (budget.lines < 1 or self._bytes < size):
            if not budget.left_out:
                budget.since, budget.example = now, line
            budget.left_out += 1
            return None
        budget.lines = max(0.0, budget.lines - 1)
        self._bytes -= size
        budget.shown_at, budget.left_out = now, 0
        return shown

    def counts(self, now: float) -> list[str]:
        """Sentences on kinds whose lines were left out, and did not return. Each is given once. O(kinds)."""
        found: list[str] = []
        if now - self._looked_at < LOOK_SECONDS:
            return found
        self._looked_at = now
        for budget in self._kinds.values():
            if budget.left_out and now - budget.since >= COUNT_SECONDS:
                found.append(f"left out {_lines(budget.left_out)} like: {budget.example[:EXAMPLE]}")
                self._bytes -= len(found[-1].encode(errors="replace"))
                budget.left_out = 0
        return found

    def _budget(self, kind: Hashable, now: float) -> _Kind:
        """The budget of a kind, refilled for the time since its last line."""
        budget = self._kinds.get(kind)
        if budget is None:
            if len(self._kinds) >= KINDS:
                self._kinds.popitem(last=False)
            budget = self._kinds[kind] = _Kind(KIND_LINES, now, now - HOUR)
        else:
            self._kinds.move_to_end(kind)
            budget.lines = min(KIND_LINES, budget.lines + (now - budget.at) / KIND_SECONDS)
            budget.at = now
        return budget


def _lines(count: int) -> str:
    return "1 line" if count == 1 else f"{count:,} lines"


class BoundedHandler(logging.StreamHandler[TextIO]):
    """Writes the lines of a log that are within its budget. `now`: a monotonic clock."""

    def __init__(self, stream: TextIO | None = None, now: Callable[[], float] = time.monotonic) -> None:
        """`stream`: stderr if None."""
        super().__init__(stream)
        self._now = now
        self._budget = LogBudget()

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line of a record, unless its budget is spent, and counts of lines left out."""
        try:
            now, line = self._now(), self.format(record)
            kind = (record.pathname, record.lineno, getattr(record, "kind", None))
            shown = self._budget.admit(kind, line, now)
            for count in self._budget.counts(now):
                told = {
                    "msg": count,
                    "levelno": logging.INFO,
                    "levelname": "INFO",
                    "created": record.created,
                    "msecs": record.msecs,
                }
                self._write(self.format(logging.makeLogRecord(told)))
            if shown is not None:
                self._write(shown)
        except Exception:  # as in `logging`: a log must not end its program
            self.handleError(record)

    def _write(self, line: str) -> None:
        self.stream.write(line + self.terminator)
        self.flush()


class LineFormatter(logging.Formatter):
    """Each record on a line: errors are named with the place they come from, and line ends in names cannot forge a record."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002, N802 - logging's names
        """Local time with its offset, in ms."""
        local = time.localtime(record.created)
        return f"{time.strftime('%Y-%m-%dT%H:%M:%S', local)}.{int(record.msecs):03d}{time.strftime('%z', local)}"

    def format(self, record: logging.LogRecord) -> str:
        """The whole line."""
        line = f"{self.formatTime(record)} {record.levelname.lower()} {printable(record.getMessage())}"
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            frames = traceback.extract_tb(error.__traceback__)
            place = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
            line += printable(f": {type(error).__name__}: {error}{place}")
        return line


def log_to_stderr(level: str = "info") -> None:
    """Set up logging for a process that is a node. `level`: the lowest that is written."""
    handler = BoundedHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("mcp").setLevel(logging.WARNING)  # else each call of a tool is a line, or two, of any reader of the API
    logging.raiseExceptions = False  # nobody reads stderr any more: no reason to end, nor to say so there
