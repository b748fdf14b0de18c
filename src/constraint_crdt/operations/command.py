"""The parts of a command's declaration: its flags, and how a person sees the response.

A flag is for a field of the request. Without a declaration a parameter of the path is a positional argument, a bool a switch and
any other field a `--flag`. The view of a response consists of sentences, tables and named values.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeAlias, TypeVar

import msgspec

if TYPE_CHECKING:
    from argparse import Namespace

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
    group: str = ""
    """The heading in the help."""
    flags: Mapping[str, Flag | None] = {}
    """By field of the request, in the order of the help: where they differ from the field. None: not set by the command."""
    options: Mapping[str, Flag] = {}
    """Flags beside the fields of the request, by name."""
    check: Callable[[Request], None] | None = None
    """Raises `ConstraintCrdtError` for a useless request."""
    show: Callable[[Response, Request, "Namespace"], View] | None = None
    """The view of the response, given the request and all flags. None: the command has a function of its own."""
