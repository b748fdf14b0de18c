"""HTML tables for notebooks: every text is escaped, and a table has a bounded number of rows."""

from collections.abc import Iterable, Sequence
from html import escape
from itertools import islice

MOST_ROWS = 100
"""Rows of a table; a line says how many more there are."""


def html_table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[object]], total: int) -> str:
    """A table with a caption. `columns`: its head. `rows`: the cells, texts or numbers. `total`: the number of rows in all."""
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(f'<td>{_cell(value)}</td>' for value in row)}</tr>" for row in islice(rows, MOST_ROWS))
    more = f"<p>and {total - MOST_ROWS} more</p>" if total > MOST_ROWS else ""
    return f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def html_fields(caption: str, fields: Sequence[tuple[str, object]]) -> str:
    """A table of names and values, a row each."""
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{_cell(value)}</td></tr>" for name, value in fields)
    return f"<table><caption>{escape(caption)}</caption><tbody>{rows}</tbody></table>"


def _cell(value: object) -> str:
    if value is None:
        return ""
    return escape(f"{value:.4g}" if isinstance(value, float) else str(value))
