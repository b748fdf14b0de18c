"""The CEL language and its library: measured values, verdicts, errors, kinds of value, overloads, and the calls of the library.

A set of kinds describes the possible values of a part of an expression. A measurement can be a bool, double, string, list or map:
`measurements` converts numbers to doubles at any depth, and keeps a reason for each unusable value. The library is imported at
first use; its exceptions, panics included, are turned into sentences here.
"""

import enum
import functools
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from types import ModuleType
from typing import NamedTuple, NoReturn, SupportsFloat, SupportsIndex

MAX_VALUE_DEPTH = 16


class ExpressionError(ValueError):
    """A `when` is refused. `str()` is a sentence with the place; `.column` counts characters from 1 in its line."""

    def __init__(self, message: str, column: int | None = None, line: int = 1) -> None:
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
KEYS = Kind.INT | Kind.UINT | Kind.BOOL | Kind.STRING  # the index of a map
_TIMES = Kind.TIMESTAMP | Kind.DURATION
_SIZED = Kind.STRING | Kind.BYTES | LISTS | MAPS
_ORDERED_WITHIN = Kind.BOOL | Kind.STRING | Kind.BYTES | _TIMES  # numbers are ordered across their kinds

_SAME = {kind: (kind, kind, kind) for kind in Kind}
_ARITHMETIC: dict[str, list[tuple[Kind, Kind, Kind]]] = {  # operator: left, right, result
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

FUNCTIONS = {  # name: the kinds of the argument, the result
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
    "dyn": (ANY, ANY),  # the argument itself
}
_CALENDAR = ("FullYear", "Month", "Date", "DayOfYear", "DayOfMonth", "DayOfWeek")
_CLOCK = ("Hours", "Minutes", "Seconds", "Milliseconds")
METHODS = {  # name: the kinds of the receiver, the number of strings, the result
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
_MESSAGES = {  # the begin of a message of the library: the sentence for the author of the expression
    "token recognition error": BAD_ESCAPE,  # all other unknown tokens are refused by the parser
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


def _library_context(values: dict[str, object]) -> object:
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


class _UnusableError(Exception):
    """A measured value is unusable for CEL; `str()` follows the variable's name."""


def _coerce(value: object, depth: int = 0) -> object:
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return _double(value, depth)
    if getattr(value, "shape", None) == () and hasattr(value, "item"):  # a scalar of numpy, or of a library like it
        item = value.item()
        if type(item) is not type(value):
            return _coerce(item, depth)
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise _UnusableError("is not valid text")
        return value
    if depth == MAX_VALUE_DEPTH:
        raise _UnusableError(f"is nested more than {MAX_VALUE_DEPTH} deep")
    if isinstance(value, list | tuple):
        return [_coerce(item, depth + 1) for item in value]
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise _UnusableError("has a key that is not text")
        return {_coerce(key, depth + 1): _coerce(item, depth + 1) for key, item in value.items()}
    if isinstance(value, SupportsFloat | SupportsIndex) and not hasattr(value, "__len__"):
        return _double(value, depth)
    raise _UnusableError(f"has a value of type {type(value).__name__}, which is not measurable")


def _double(value: SupportsFloat | SupportsIndex, depth: int) -> float:
    try:
        number = float(value)
    except OverflowError:
        raise _UnusableError("is too large for a double") from None
    except (TypeError, ValueError):
        raise _UnusableError(f"has a value of type {type(value).__name__}, which is not measurable") from None
    if math.isinf(number) and isinstance(value, Decimal) and value.is_finite():
        raise _UnusableError("is too large for a double")
    if math.isnan(number):
        raise _UnusableError("is not a number (NaN)" if depth == 0 else "contains NaN, which is not a number")
    return number


class Measurements(Mapping[str, object]):
    """Values as CEL sees them, converted once, for any number of expressions. Made by `measurements`; never changes."""

    __slots__ = ("_context", "_names", "_unusable", "_values")

    def __init__(self, values: dict[str, object], unusable: dict[str, str]) -> None:
        self._values = values
        self._unusable = unusable
        self._names = frozenset(values)
        self._context: object | None = None

    def __getitem__(self, name: str) -> object:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def covers(self, variables: frozenset[str]) -> bool:
        """True if all of these variables have usable values."""
        return variables <= self._names

    def why_not(self, variables: frozenset[str]) -> str:
        """Why `covers` is false, naming every variable concerned, in order."""
        missing = sorted(variables - self._names - self._unusable.keys())
        reasons = [f"no measurement of {', '.join(missing)}"] if missing else []
        return "; ".join(reasons + [f"{name} {self._unusable[name]}" for name in sorted(variables & self._unusable.keys())])

    def context(self) -> object:
        """The values in the library's own form, made when first asked for."""
        if self._context is None:
            self._context = _library_context(self._values)
        return self._context


def measurements(values: Mapping[str, object]) -> Measurements:
    """Convert measured values once, to evaluate many expressions against them.

    A value is a bool, a str, a number (int, float, `Decimal`, a scalar of numpy, any type with `__float__` or `__index__`), or a
    list or mapping (with str keys) of those. Numbers become doubles at any depth. A variable with NaN, a number too large for a
    double or any other type has no usable value: an expression with the variable is `UNKNOWN`. Infinities are values. Raises
    nothing.
    """
    usable: dict[str, object] = {}
    unusable: dict[str, str] = {}
    for name, value in values.items():
        if name in TYPE_NAMES:  # CEL reads these as types, and a variable would hide the type
            continue
        try:
            usable[name] = _coerce(value)
        except _UnusableError as error:
            unusable[name] = str(error)
    return Measurements(usable, unusable)
