"""The CEL language and its library: verdicts and errors, the kinds of value with their overloads, and the calls of the library.

A set of kinds describes the possible values of a part of an expression. A measurement can be a bool, double, string, list or map.
The library is imported at first use; its exceptions, panics included, are turned into sentences here.
"""

import enum
import functools
import re
import sys
from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple, NoReturn

from constraint_crdt.errors import ConstraintCrdtError


class ExpressionError(ConstraintCrdtError, ValueError):
    """A `when` is refused. `str()` is a sentence with the place; `.column` counts characters from 1 in its line."""

    def __init__(self, message: str, column: int | None = None, line: int = 1) -> None:
        """`message`: a sentence. `column` and `line`: the place in the text, both from 1."""
        place = f"line {line}, column {column}: " if line > 1 else f"column {column}: " if column else ""
        super().__init__(place + message)
        self.column = column


def refuse(source: str, message: str, start: int) -> NoReturn:
    """Raise an `ExpressionError` about the part at this offset of the text."""
    line_start = source.rfind("\n", 0, start) + 1
    raise ExpressionError(message, start - line_start + 1, source.count("\n", 0, start) + 1)


class Verdict(enum.Enum):
    """The result of an evaluation of a constraint. `UNKNOWN` counts neither way."""

    SATISFIED = "satisfied"
    VIOLATED = "violated"
    UNKNOWN = "unknown"


class Outcome(NamedTuple):
    """A verdict and, for `UNKNOWN`, the reason in words (otherwise empty)."""

    verdict: Verdict
    reason: str


class Kind(enum.IntFlag):
    """The kinds of value of a part of an expression. `OWN_*` are containers built by the expression."""

    BOOL = enum.auto()
    INT = enum.auto()
    UINT = enum.auto()
    DOUBLE = enum.auto()
    STRING = enum.auto()
    BYTES = enum.auto()
    LIST = enum.auto()
    MAP = enum.auto()
    OWN_LIST = enum.auto()
    OWN_MAP = enum.auto()
    NULL = enum.auto()
    TIMESTAMP = enum.auto()
    DURATION = enum.auto()
    TYPE = enum.auto()


NOTHING = Kind(0)
MEASURED = Kind.BOOL | Kind.DOUBLE | Kind.STRING | Kind.LIST | Kind.MAP
ANY = functools.reduce(lambda kinds, kind: kinds | kind, Kind)
NUMBER = Kind.INT | Kind.UINT | Kind.DOUBLE
LISTS = Kind.LIST | Kind.OWN_LIST
MAPS = Kind.MAP | Kind.OWN_MAP
KEYS = Kind.INT | Kind.UINT | Kind.BOOL | Kind.STRING  # what can stand in the brackets of an index
_TIMES = Kind.TIMESTAMP | Kind.DURATION
_SIZED = Kind.STRING | Kind.BYTES | LISTS | MAPS
_ORDERED_WITHIN = Kind.BOOL | Kind.STRING | Kind.BYTES | _TIMES  # numbers are ordered across their kinds

_SAME = {kind: (kind, kind, kind) for kind in Kind}
_ARITHMETIC: dict[str, list[tuple[Kind, Kind, Kind]]] = {  # operator: left, right, what comes out
    "+": [
        *(_SAME[k] for k in (Kind.INT, Kind.UINT, Kind.DOUBLE, Kind.STRING, Kind.BYTES, Kind.DURATION)),
        (LISTS, LISTS, Kind.OWN_LIST),
        (Kind.TIMESTAMP, Kind.DURATION, Kind.TIMESTAMP),
    ],
    "-": [
        *(_SAME[k] for k in (Kind.INT, Kind.UINT, Kind.DOUBLE, Kind.DURATION)),
        (Kind.TIMESTAMP, Kind.TIMESTAMP, Kind.DURATION),
        (Kind.TIMESTAMP, Kind.DURATION, Kind.TIMESTAMP),
    ],
    "*": [_SAME[Kind.INT], _SAME[Kind.UINT], _SAME[Kind.DOUBLE]],
    "/": [_SAME[Kind.INT], _SAME[Kind.UINT], _SAME[Kind.DOUBLE]],
    "%": [_SAME[Kind.INT], _SAME[Kind.UINT]],
}

FUNCTIONS = {  # name: what its one argument can be, what comes out
    "size": (_SIZED, Kind.INT),
    "int": (NUMBER | Kind.STRING, Kind.INT),
    "uint": (NUMBER | Kind.STRING, Kind.UINT),
    "double": (NUMBER | Kind.STRING, Kind.DOUBLE),
    "string": (NUMBER | Kind.STRING | Kind.BYTES | _TIMES, Kind.STRING),
    "bytes": (Kind.STRING | Kind.BYTES, Kind.BYTES),
    "duration": (Kind.STRING | Kind.DURATION, Kind.DURATION),
    "timestamp": (Kind.STRING | Kind.TIMESTAMP, Kind.TIMESTAMP),
    "type": (ANY, Kind.TYPE),
    "has": (ANY, Kind.BOOL),
    "dyn": (ANY, ANY),  # gives what it was given
}
_CALENDAR = ("FullYear", "Month", "Date", "DayOfYear", "DayOfMonth", "DayOfWeek")
_CLOCK = ("Hours", "Minutes", "Seconds", "Milliseconds")
METHODS = {  # name: what it is called on, how many strings it takes, what comes out
    "size": (_SIZED, 0, Kind.INT),
    **dict.fromkeys(("contains", "startsWith", "endsWith", "matches"), (Kind.STRING, 1, Kind.BOOL)),
    **{f"get{unit}": (Kind.TIMESTAMP, 0, Kind.INT) for unit in _CALENDAR},
    **{f"get{unit}": (_TIMES, 0, Kind.INT) for unit in _CLOCK},
}
MACROS = frozenset({"all", "exists", "exists_one", "existsOne", "map", "filter"})
TYPE_NAMES = frozenset({"bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type", "type", "optional_type"})


def describe(kinds: Kind) -> str:
    """The kinds in words, as part of a sentence."""
    if kinds & MEASURED == MEASURED:
        return "a measurement"
    names = dict.fromkeys((kind.name or "").removeprefix("OWN_").lower() for kind in Kind if kind & kinds)
    return " or ".join(name if name == "null" else f"{'an' if name[0] == 'i' else 'a'} {name}" for name in names)


def arithmetic(operator: str, left: Kind, right: Kind) -> Kind | None:
    """The kinds of `left operator right`: `NOTHING` without a fitting overload, None for an operator outside of arithmetic."""
    if operator not in _ARITHMETIC:
        return None
    return functools.reduce(
        lambda kinds, overload: kinds | (overload[2] if left & overload[0] and right & overload[1] else NOTHING),
        _ARITHMETIC[operator],
        NOTHING,
    )


def ordered(left: Kind, right: Kind) -> bool:
    """Whether `<` and its like can compare these."""
    return bool((left & NUMBER and right & NUMBER) or left & right & _ORDERED_WITHIN)


BAD_ESCAPE = "this string has an escape that CEL does not know: write `\\\\` for a backslash"
_MESSAGES = {  # how a message of the library begins: what to say to the person who wrote the expression
    "token recognition error": BAD_ESCAPE,  # all else that it cannot recognise has been refused by the reader
    "invalid int literal": "this int does not fit 64 bits: write it as a double, such as `1e19`",
    "invalid uint literal": "this uint does not fit 64 bits: write it as a double, such as `1e20`",
    "invalid double literal": "this number is too large for a double",
    "invalid argument to has()": "`has` needs a field, such as `has(robot.speed)`",
}


def import_library() -> ModuleType:
    """The CEL library, without its command line.

    `import cel` imports that too, and with it three packages for terminals: as much processor time as the rest of a node takes to
    start. An empty module stands in for it during the import only.
    """
    absent = "cel" not in sys.modules and "cel.cli" not in sys.modules
    if absent:
        sys.modules["cel.cli"] = ModuleType("cel.cli")
    try:
        import cel
    finally:
        if absent:
            sys.modules.pop("cel.cli", None)
    return cel


def compile_cel(source: str) -> tuple[Callable[..., object], frozenset[str]]:
    """Compile with the CEL library. Returns the evaluating function, and the variables seen by the library.

    Raises `ExpressionError` with the library's column.
    """
    library = import_library()
    try:
        program = library.compile(source)
        names = frozenset(program.variables())
    except BaseException as error:
        reraise_unless_cel_error(error)
        place = re.search(r"<input>:(\d+):(\d+): (?:Syntax error: )?(.*)", str(error))
        if place is None:
            raise ExpressionError("this is not CEL", 1) from None
        plainly = next((plain for begins, plain in _MESSAGES.items() if place[3].startswith(begins)), None)
        # The parser lists all possible tokens, too many to be of help.
        what = plainly or re.sub(r" expecting \{.*", "", place[3])
        raise ExpressionError(what or "this is not CEL", int(place[2]), int(place[1])) from None
    return program.execute, names - TYPE_NAMES


def context(values: dict[str, object]) -> object:
    """The values in the library's own form. Converting all of them takes as long as 50 evaluations."""
    return import_library().Context(variables=values)


def reraise_unless_cel_error(error: BaseException) -> None:
    """Let KeyboardInterrupt and the like pass; a Rust panic is a BaseException too, of a class without an import path."""
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error


def failure(error: BaseException) -> str:
    """The library's message on a failed evaluation, as part of a sentence."""
    if isinstance(error, KeyError):
        return f"there is no field {error.args[0]}" if error.args else "a field is missing"
    text = str(error).strip()
    if text.startswith("No such overload"):
        return "an operator or function does not take the kind of value measured"
    undefined = re.match(r"Undefined variable or function: '(\w+)'", text)
    if undefined:
        return f"`{undefined[1]}` does not take the kind of value measured"
    function = re.match(r"Function '(\w+)' error:", text)
    if function:
        return f"`{function[1]}` cannot use the value that it is given"
    first_sentence = re.split(r"\.\s|\.?$|\n", text, maxsplit=1)[0].removesuffix(" in CEL expression")
    return first_sentence or type(error).__name__
