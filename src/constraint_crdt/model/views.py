"""A response as a person sees it, as data: sentences, tables and named values. The command line draws them."""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias


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
    """Named values, one a line."""

    values: Sequence[tuple[str, object]]


View: TypeAlias = "str | Table | Lines | Sequence[str | Table | Lines]"
"""A text is one sentence."""
