"""Constraint expressions: the CEL text of a `when`, checked and compiled once, evaluated against measurements.

The CEL library reports most mistakes only when an expression runs, loops for seconds in comprehension macros and
overflows a small thread's stack on deep input. So a definition is read here first, by a small parser of the CEL grammar that
works out which kinds of value each part can have and refuses, with its column, what cannot work:

- More than 1 KiB, or nested deeper than `MAX_DEPTH`. Comprehension macros (`all`, `exists`, `map`, `filter`, ...).
- A call of a function that CEL does not have, or with arguments that it does not take.
- An operator none of whose overloads fits. A measurement is never an int: every number measured reaches CEL as a double, also
  inside lists and maps. CEL compares across number types (`x < 85`) but does not calculate across them, so `x * 2` is
  refused and `x * 2.0` is not. Pure int arithmetic (`2 * 3`, `size(name) * 2`) is fine; where only the values can
  tell (`(b ? 1 : 2.0) * x`), the expression is taken.
- A value that is certainly not a bool. Without variables there is only one value, so it is computed at once.
- A pattern of `matches` that is not a string literal, or costly: the library compiles it again at every evaluation.

The library then has the last word on syntax, and must see the same variables. Nothing that it raises gets out.
It is imported when first needed.
"""

import enum
import functools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, NoReturn

MAX_EXPRESSION_BYTES = 1024
MAX_DEPTH = 32  # of brackets, and of chained operators and fields: 32 levels take a fraction of a 256 KiB thread stack
MAX_VALUE_DEPTH = 16
MAX_PATTERN_COST = 1600  # some 8 ms at worst; an unbounded pattern of 1 KiB took 50 ms, and 25 of them a second
COMPILED_EXPRESSIONS_KEPT = 4096


class ExpressionError(ValueError):
    """A `when` that cannot be used. `str()` is one sentence with the place; `.column` counts characters from 1 in its line."""

    def __init__(self, message: str, column: int | None = None, line: int = 1) -> None:
        place = f"line {line}, column {column}: " if line > 1 else f"column {column}: " if column else ""
        super().__init__(place + message)
        self.column = column


class Verdict(enum.Enum):
    """What an evaluation says about a constraint. `UNKNOWN` counts neither way."""

    SATISFIED = "satisfied"
    VIOLATED = "violated"
    UNKNOWN = "unknown"


class Outcome(NamedTuple):
    """A verdict and, when it is `UNKNOWN`, the reason in words (otherwise empty)."""

    verdict: Verdict
    reason: str


_SATISFIED = Outcome(Verdict.SATISFIED, "")
_VIOLATED = Outcome(Verdict.VIOLATED, "")


# --- kinds of value ---------------------------------------------------------------------------------------------------


class _Kind(enum.IntFlag):
    """The kinds of value that a part of an expression can have. `OWN_*` are containers that the expression builds."""

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


_NOTHING = _Kind(0)
_MEASURED = _Kind.BOOL | _Kind.DOUBLE | _Kind.STRING | _Kind.LIST | _Kind.MAP
_ANY = functools.reduce(lambda kinds, kind: kinds | kind, _Kind)
_NUMBER = _Kind.INT | _Kind.UINT | _Kind.DOUBLE
_LISTS = _Kind.LIST | _Kind.OWN_LIST
_MAPS = _Kind.MAP | _Kind.OWN_MAP
_TIMES = _Kind.TIMESTAMP | _Kind.DURATION
_ORDERED_WITHIN = _Kind.BOOL | _Kind.STRING | _Kind.BYTES | _TIMES  # numbers are ordered across their kinds

_SAME = {kind: (kind, kind, kind) for kind in _Kind}
_ARITHMETIC: dict[str, list[tuple[_Kind, _Kind, _Kind]]] = {
    "+": [
        *(_SAME[k] for k in (_Kind.INT, _Kind.UINT, _Kind.DOUBLE, _Kind.STRING, _Kind.BYTES, _Kind.DURATION)),
        (_LISTS, _LISTS, _Kind.OWN_LIST),
        (_Kind.TIMESTAMP, _Kind.DURATION, _Kind.TIMESTAMP),
    ],
    "-": [
        *(_SAME[k] for k in (_Kind.INT, _Kind.UINT, _Kind.DOUBLE, _Kind.DURATION)),
        (_Kind.TIMESTAMP, _Kind.TIMESTAMP, _Kind.DURATION),
        (_Kind.TIMESTAMP, _Kind.DURATION, _Kind.TIMESTAMP),
    ],
    "*": [_SAME[_Kind.INT], _SAME[_Kind.UINT], _SAME[_Kind.DOUBLE]],
    "/": [_SAME[_Kind.INT], _SAME[_Kind.UINT], _SAME[_Kind.DOUBLE]],
    "%": [_SAME[_Kind.INT], _SAME[_Kind.UINT]],
}
_SIZED = _Kind.STRING | _Kind.BYTES | _LISTS | _MAPS
_FUNCTIONS = {  # name: what its one argument can be, what comes out
    "size": (_SIZED, _Kind.INT),
    "int": (_NUMBER | _Kind.STRING, _Kind.INT),
    "uint": (_NUMBER | _Kind.STRING, _Kind.UINT),
    "double": (_NUMBER | _Kind.STRING, _Kind.DOUBLE),
    "string": (_NUMBER | _Kind.STRING | _Kind.BYTES | _TIMES, _Kind.STRING),
    "bytes": (_Kind.STRING | _Kind.BYTES, _Kind.BYTES),
    "duration": (_Kind.STRING | _Kind.DURATION, _Kind.DURATION),
    "timestamp": (_Kind.STRING | _Kind.TIMESTAMP, _Kind.TIMESTAMP),
    "type": (_ANY, _Kind.TYPE),
}
_CALENDAR = ("FullYear", "Month", "Date", "DayOfYear", "DayOfMonth", "DayOfWeek")
_CLOCK = ("Hours", "Minutes", "Seconds", "Milliseconds")
_METHODS = {  # name: what it is called on, its arguments, what comes out
    "size": (_SIZED, 0, _Kind.INT),
    **dict.fromkeys(("contains", "startsWith", "endsWith", "matches"), (_Kind.STRING, 1, _Kind.BOOL)),
    **{f"get{unit}": (_Kind.TIMESTAMP, 0, _Kind.INT) for unit in _CALENDAR},
    **{f"get{unit}": (_TIMES, 0, _Kind.INT) for unit in _CLOCK},
}
_MACROS = frozenset({"all", "exists", "exists_one", "existsOne", "map", "filter"})
_TYPE_NAMES = frozenset({"bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type", "type", "optional_type"})


def _describe(kinds: _Kind) -> str:
    if kinds & _MEASURED == _MEASURED:
        return "a measurement"
    names = dict.fromkeys((kind.name or "").removeprefix("OWN_").lower() for kind in _Kind if kind & kinds)
    return " or ".join(f"{'an' if name[0] == 'i' else 'a'} {name}" for name in names)


# --- reading ----------------------------------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"""(?P<space>(?:[ \t\r\n\f]|//[^\n]*)+)
    |(?P<string>[bB]?(?:[rR](?:\"{3}.*?\"{3}|'{3}.*?'{3}|"[^"\n\r]*"|'[^'\n\r]*')
        |\"{3}(?:\\.|[^\\])*?\"{3}|'{3}(?:\\.|[^\\])*?'{3}|"(?:\\.|[^"\\\n\r])*"|'(?:\\.|[^'\\\n\r])*'))
    |(?P<double>[0-9]*\.[0-9]+(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+)
    |(?P<int>(?:0x[0-9a-fA-F]+|[0-9]+)(?P<unsigned>[uU])?)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<mark>&&|\|\||[=!<>]=|[-+*/%<>!?:.,()\[\]{}])""",
    re.VERBOSE | re.DOTALL,
)
_LEVELS = ({"||"}, {"&&"}, {"<", "<=", ">", ">=", "==", "!=", "in"}, {"+", "-"}, {"*", "/", "%"})
_HINTS = {"=": "==", "&": "&&", "|": "||", "and": "&&", "or": "||", "not": "!", "True": "true", "False": "false"}


class _Token(NamedTuple):
    sort: str  # string, double, int, uint, name, mark, end
    text: str
    start: int


class _Part(NamedTuple):
    """A part of the expression that has been read: where it stands, what it can be, how deep it is."""

    start: int
    end: int
    kinds: _Kind
    depth: int = 1
    literal: bool = False


class _Reader:
    """Reads one expression from left to right, and refuses what cannot work."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.variables: set[str] = set()
        self.patterns: list[_Part] = []
        self._tokens = list(self._split())
        self._next = 0
        self._brackets = 0

    def read(self) -> None:
        part = self._expression()
        if self._token.sort != "end":
            self._unexpected("an operator")
        if not part.kinds & _Kind.BOOL:
            self.refuse(f"this gives {_describe(part.kinds)}, and a constraint needs a bool such as `x < 85`", part.start)

    def refuse(self, message: str, start: int) -> NoReturn:
        line_start = self.source.rfind("\n", 0, start) + 1
        raise ExpressionError(message, start - line_start + 1, self.source.count("\n", 0, start) + 1)

    def text(self, part: _Part) -> str:
        return self.source[part.start : part.end]

    # tokens

    def _split(self) -> Iterator[_Token]:
        at = 0
        while at < len(self.source):
            match = _TOKEN.match(self.source, at)
            if match is None:
                if self.source[at] in "\"'":
                    self.refuse("the string that begins here is not closed", at)
                hint = _HINTS.get(self.source[at])
                self.refuse(f"{self.source[at]!r} is not CEL" + (f": write `{hint}`" if hint else ""), at)
            sort = match.lastgroup or ""
            if sort != "space":
                yield _Token("uint" if match["unsigned"] else sort, match[0], at)
            at = match.end()
        yield _Token("end", "", at)

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._token
        self._next += 1
        return token

    def _at(self, *texts: str) -> bool:
        return self._token.text in texts and self._token.sort in ("mark", "name")

    def _expect(self, text: str) -> int:
        if not self._at(text):
            self._unexpected(f"`{text}`")
        token = self._take()
        return token.start + len(token.text)

    def _unexpected(self, wanted: str) -> NoReturn:
        token = self._token
        if token.sort == "end":
            self.refuse(f"the expression ends where {wanted} is needed", token.start)
        hint = _HINTS.get(token.text)
        self.refuse(f"`{token.text}` stands where {wanted} is needed" + (f": write `{hint}`" if hint else ""), token.start)

    def _deeper(self, depth: int, start: int) -> int:
        if depth >= MAX_DEPTH:
            self.refuse(f"this is nested or chained more than {MAX_DEPTH} deep: split the constraint", start)
        return depth + 1

    # grammar, from the loosest binding to the tightest

    def _expression(self) -> _Part:
        self._brackets = self._deeper(self._brackets, self._token.start)
        part = self._binary(0)
        if self._at("?"):
            self._need(part, _Kind.BOOL, "a condition", self._take().start)
            yes = self._binary(0)
            self._expect(":")
            no = self._expression()
            depth = self._deeper(max(part.depth, yes.depth, no.depth), part.start)
            part = _Part(part.start, no.end, yes.kinds | no.kinds, depth)
        self._brackets -= 1
        return part

    def _binary(self, level: int) -> _Part:
        if level == len(_LEVELS):
            return self._unary()
        left = self._binary(level + 1)
        while self._at(*_LEVELS[level]):
            operator = self._take()
            right = self._binary(level + 1)
            kinds = self._result(operator, left, right)
            deepest = max(left.depth, right.depth)
            # The library keeps chains of && and || balanced, so they may be as long as the text allows.
            depth = deepest if level < 2 else self._deeper(deepest, operator.start)
            left = _Part(left.start, right.end, kinds, depth)
        return left

    def _unary(self) -> _Part:
        first = self._token
        signs = 0
        while self._at("!", "-"):
            self._take()
            signs = self._deeper(signs, first.start)
        part = self._member()
        if not signs:
            return part
        takes = _Kind.BOOL if first.text == "!" else _Kind.INT | _Kind.DOUBLE
        self._need(part, takes, f"`{first.text}`", first.start)
        return part._replace(start=first.start, kinds=part.kinds & takes)

    def _member(self) -> _Part:
        part = self._primary()
        while self._at(".", "["):
            mark = self._take()
            depth = self._deeper(part.depth, mark.start)
            if mark.text == "[":
                self._need(part, _LISTS | _MAPS, "an index", mark.start)
                index = self._expression()
                self._need(index, _Kind.INT | _Kind.UINT | _Kind.BOOL | _Kind.STRING, "an index", index.start)
                part = _Part(part.start, self._expect("]"), self._inside(part), max(depth, index.depth))
                continue
            if self._token.sort != "name":
                self._unexpected("the name of a field")
            name = self._take()
            if self._at("("):
                part = self._method(name, part, depth)
            else:
                self._need(part, _MAPS, f"the field `{name.text}`", name.start)
                part = _Part(part.start, name.start + len(name.text), self._inside(part), depth)
        return part

    def _primary(self) -> _Part:
        token = self._token
        if token.sort in ("string", "double", "int", "uint"):
            is_bytes = token.sort == "string" and token.text[0] in "bB"
            kind = _Kind.BYTES if is_bytes else _Kind[token.sort.upper()]
            self._take()
            return _Part(token.start, token.start + len(token.text), kind, literal=True)
        if token.sort == "name" and token.text != "in":
            return self._named(self._take())
        if self._at("("):
            self._take()
            part = self._expression()
            return part._replace(start=token.start, end=self._expect(")"), literal=False)
        if self._at("[", "{"):
            return self._container(self._take())
        return self._unexpected("a value")

    def _named(self, name: _Token) -> _Part:
        end = name.start + len(name.text)
        if self._at("("):
            return self._function(name)
        if name.text in ("true", "false", "null"):
            return _Part(name.start, end, _Kind.NULL if name.text == "null" else _Kind.BOOL)
        if name.text in _TYPE_NAMES:
            return _Part(name.start, end, _Kind.TYPE)
        if name.text in _HINTS:
            self.refuse(f"`{name.text}` is not CEL: write `{_HINTS[name.text]}`", name.start)
        self.variables.add(name.text)
        return _Part(name.start, end, _MEASURED)

    def _container(self, mark: _Token) -> _Part:
        closing, kind = ("]", _Kind.OWN_LIST) if mark.text == "[" else ("}", _Kind.OWN_MAP)
        depth = 1
        while not self._at(closing):
            depth = max(depth, self._deeper(self._expression().depth, mark.start))
            if mark.text == "{":
                self._expect(":")
                depth = max(depth, self._deeper(self._expression().depth, mark.start))
            if not self._at(closing):
                self._expect(",")
        return _Part(mark.start, self._expect(closing), kind, depth)

    # calls

    def _arguments(self) -> tuple[list[_Part], int]:
        self._expect("(")
        arguments: list[_Part] = []
        while arguments or not self._at(")"):
            arguments.append(self._expression())
            if self._at(")"):
                break
            self._expect(",")
        return arguments, self._expect(")")

    def _no_macro(self, name: _Token) -> None:
        if name.text in _MACROS:
            self.refuse(f"`{name.text}` loops, and a constraint may not: write the cases out with && and ||", name.start)

    def _function(self, name: _Token) -> _Part:
        self._no_macro(name)
        if name.text not in _FUNCTIONS and name.text not in ("has", "dyn"):
            known = f"`{name.text}` is a method: write `value.{name.text}(...)`"
            self.refuse(known if name.text in _METHODS else f"CEL has no function `{name.text}`", name.start)
        arguments, end = self._arguments()
        if len(arguments) != 1:
            self.refuse(f"`{name.text}` takes 1 argument, not {len(arguments)}", name.start)
        argument = arguments[0]
        depth = self._deeper(argument.depth, name.start)
        if name.text == "has":
            return _Part(name.start, end, _Kind.BOOL, depth)
        if name.text == "dyn":
            return _Part(name.start, end, argument.kinds, depth)
        takes, gives = _FUNCTIONS[name.text]
        self._need(argument, takes, f"`{name.text}`", argument.start)
        return _Part(name.start, end, gives, depth)

    def _method(self, name: _Token, value: _Part, depth: int) -> _Part:
        self._no_macro(name)
        if name.text not in _METHODS:
            known = f"`{name.text}` is a function: write `{name.text}({self.text(value)})`"
            self.refuse(known if name.text in _FUNCTIONS else f"CEL has no method `{name.text}`", name.start)
        takes, count, gives = _METHODS[name.text]
        self._need(value, takes, f"`{name.text}`", name.start)
        arguments, end = self._arguments()
        if len(arguments) != count:
            self.refuse(f"`{name.text}` takes {count} argument{'s'[: count != 1]}, not {len(arguments)}", name.start)
        for argument in arguments:
            self._need(argument, _Kind.STRING, f"`{name.text}`", argument.start)
            depth = self._deeper(max(depth - 1, argument.depth), name.start)
        if name.text == "matches":
            self.patterns += arguments
        return _Part(value.start, end, gives, depth)

    # kinds

    @staticmethod
    def _inside(container: _Part) -> _Kind:
        return _ANY if container.kinds & (_Kind.OWN_LIST | _Kind.OWN_MAP) else _MEASURED

    def _need(self, part: _Part, kinds: _Kind, what: str, start: int) -> None:
        if not part.kinds & kinds:
            self.refuse(f"{what} cannot take `{self.text(part)}`, which is {_describe(part.kinds)}", start)

    def _result(self, operator: _Token, left: _Part, right: _Part) -> _Kind:
        mark, a, b = operator.text, left.kinds, right.kinds
        if mark in _ARITHMETIC:
            gives = _NOTHING
            for first, second, result in _ARITHMETIC[mark]:
                gives |= result if a & first and b & second else _NOTHING
            return gives or self._no_arithmetic(operator, left, right)
        if mark in ("&&", "||"):
            self._need(left, _Kind.BOOL, f"`{mark}`", left.start)
            self._need(right, _Kind.BOOL, f"`{mark}`", right.start)
        elif mark == "in":
            self._need(right, _LISTS | _MAPS, "`in`", right.start)
        elif mark not in ("==", "!=") and not ((a & _NUMBER and b & _NUMBER) or a & b & _ORDERED_WITHIN):
            self.refuse(f"`{mark}` cannot compare {_describe(a)} with {_describe(b)}", operator.start)
        return _Kind.BOOL

    def _no_arithmetic(self, operator: _Token, left: _Part, right: _Part) -> NoReturn:
        whole, mark = self.source[left.start : right.end], operator.text
        if not (left.kinds & _NUMBER and right.kinds & _NUMBER):
            what = f"{_describe(left.kinds)} and {_describe(right.kinds)}"
            self.refuse(f"`{mark}` does not work on {what}", operator.start)
        target = _Kind.INT if mark == "%" or not (left.kinds | right.kinds) & _Kind.DOUBLE else _Kind.DOUBLE
        fix = f"{self._as(target, left)} {mark} {self._as(target, right)}"
        why = "% is for ints" if mark == "%" else f"`{whole}` mixes kinds of number (one measured is a double)"
        self.refuse(f"{why}: write `{fix}`", operator.start)

    def _as(self, kind: _Kind, part: _Part) -> str:
        text = self.text(part)
        if part.kinds & kind:
            return text
        if kind == _Kind.DOUBLE and part.literal and "x" not in text:
            return text.rstrip("uU") + ".0"
        return f"{(kind.name or '').lower()}({text})"


_COUNTED = re.compile(r"(.?)\{\s*(\d+)\s*(?:,\s*(\d*)\s*)?\}", re.DOTALL)


def _pattern_cost(pattern: str) -> int:
    """An upper estimate of what compiling a regular expression costs; Unicode classes and nested counts are the costly parts."""
    groups, atoms = 1, 1
    for before, least, most in _COUNTED.findall(pattern):
        count = max(int(most or 0), int(least), 1)
        if before in ("", ")", "}") or before.isspace():
            groups *= count
        else:
            atoms = max(atoms, count)
    return (len(pattern) + 60 * len(re.findall(r"\\[wWdDsSpPbB]", pattern))) * groups * atoms


# --- measurements -----------------------------------------------------------------------------------------------------


class _UnusableError(Exception):
    """A measured value that CEL cannot be given; `str()` follows the variable's name."""


def _coerce(value: object, depth: int = 0) -> object:
    """The value as CEL is to see it: numbers as doubles, at any depth."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        try:
            number = float(value)
        except OverflowError:
            raise _UnusableError("is too large for a double") from None
        if math.isnan(number):
            raise _UnusableError("is not a number (NaN)" if depth == 0 else "contains NaN, which is not a number")
        return number
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
    raise _UnusableError(f"has a value of type {type(value).__name__}, which is not measurable")


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
        """Whether every one of these variables has a usable value."""
        return variables <= self._names

    def why_not(self, variables: frozenset[str]) -> str:
        """Why `covers` is false, naming every variable concerned, in order."""
        missing = sorted(variables - self._names - self._unusable.keys())
        reasons = [f"no measurement of {', '.join(missing)}"] if missing else []
        return "; ".join(reasons + [f"{name} {self._unusable[name]}" for name in sorted(variables & self._unusable.keys())])

    def context(self) -> object:
        """The values in the library's own form. Converting all of them takes as long as 50 evaluations, so it is kept."""
        if self._context is None:
            import cel

            self._context = cel.Context(variables=self._values)
        return self._context


def measurements(values: Mapping[str, object]) -> Measurements:
    """Convert measured values once, to evaluate many expressions against them.

    A value is a bool, int, float or str, or lists and mappings (with str keys) of those. Numbers become doubles at any
    depth. A variable with NaN, an int too large for a double or any other type has no usable value: what reads it is
    `UNKNOWN`. Infinities are values. Raises nothing.
    """
    usable: dict[str, object] = {}
    unusable: dict[str, str] = {}
    for name, value in values.items():
        if name in _TYPE_NAMES:  # CEL reads these as types, and a variable would hide the type
            continue
        try:
            usable[name] = _coerce(value)
        except _UnusableError as error:
            unusable[name] = str(error)
    return Measurements(usable, unusable)


# --- expressions ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled `when`. Equal when the text is; safe to share between threads."""

    source: str
    variables: frozenset[str]  # top-level names that it reads
    _execute: Callable[..., object] = field(repr=False, compare=False)

    def evaluate(self, values: Mapping[str, object]) -> Outcome:
        """Evaluate against measured values (see `measurements`, which is worth calling first for many expressions).

        `UNKNOWN` when any variable that the expression names has no usable value, also where the rest would decide;
        and when the evaluation fails or does not give a bool. Raises nothing.
        """
        if type(values) is not Measurements:
            values = measurements({name: values[name] for name in self.variables if name in values})
        if not values.covers(self.variables):
            return Outcome(Verdict.UNKNOWN, values.why_not(self.variables))
        try:
            result = self._execute(values.context())
        except BaseException as error:
            _reraise_unless_from_library(error)
            return Outcome(Verdict.UNKNOWN, f"the evaluation failed: {_failure(error)}")
        if result is True:
            return _SATISFIED
        if result is False:
            return _VIOLATED
        return Outcome(Verdict.UNKNOWN, f"the result is not a bool but of type {type(result).__name__}")


def _reraise_unless_from_library(error: BaseException) -> None:
    """Let KeyboardInterrupt and the like pass; a Rust panic is a BaseException too, of a class that cannot be imported."""
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error


def _failure(error: BaseException) -> str:
    """What the library says when an evaluation fails, as part of a sentence."""
    if isinstance(error, KeyError):
        return f"there is no field {error.args[0]}" if error.args else "a field is missing"
    text = str(error).strip()
    if text.startswith("No such overload"):
        return "an operator or function does not take the kind of value measured"
    undefined = re.match(r"Undefined variable or function: '(\w+)'", text)
    if undefined:
        return f"`{undefined[1]}` does not take the kind of value measured"
    first_sentence = re.split(r"\.\s|\.?$|\n", text, maxsplit=1)[0]
    return first_sentence or type(error).__name__


def compile_expression(source: str) -> Expression:
    """Check and compile a `when`. The last few thousand that compiled are kept, so that asking again costs nothing.

    Raises `ExpressionError` naming the column for anything that could not work (see the top of this file).
    """
    # A text of 1 KiB in characters can be larger in bytes, never smaller; what cannot be encoded is refused as well.
    try:
        size = len(source.encode()) if len(source) <= MAX_EXPRESSION_BYTES else len(source)
    except UnicodeEncodeError as error:
        raise ExpressionError("the text is not valid Unicode", error.start + 1) from None
    if size > MAX_EXPRESSION_BYTES:
        raise ExpressionError(f"the expression is longer than {MAX_EXPRESSION_BYTES} bytes: split the constraint")
    return _compile(source)


@functools.lru_cache(maxsize=COMPILED_EXPRESSIONS_KEPT)
def _compile(source: str) -> Expression:
    reader = _Reader(source)
    reader.read()
    # Patterns first: an expression of constants only is evaluated below, and must not find a costly one.
    _check_patterns(reader)
    execute, variables = _hand_to_library(source)
    # Were the two readings ever to differ, the checks above would have been made on another expression.
    if variables != reader.variables:
        raise ExpressionError("the expression is ambiguous: write it more simply", 1)
    expression = Expression(source, variables, execute)
    if not variables:
        outcome = expression.evaluate(Measurements({}, {}))
        if outcome.verdict is Verdict.UNKNOWN:
            raise ExpressionError(f"the expression has no variable and no value either: {outcome.reason}", 1)
    return expression


def _check_patterns(reader: _Reader) -> None:
    cost = 0
    for pattern in reader.patterns:
        if not pattern.literal:
            reader.refuse("`matches` needs its pattern as a string literal", pattern.start)
        text = reader.text(pattern)
        try:
            cost += _pattern_cost(str(_hand_to_library(text)[0]({})))
        except ExpressionError:
            reader.refuse("this string has an escape that CEL does not know: write `\\\\` for a backslash", pattern.start)
        if cost > MAX_PATTERN_COST:
            reader.refuse("the patterns of `matches` are too costly: shorten them or lower their {counts}", pattern.start)
        try:
            _hand_to_library(f"''.matches({text})")[0]({})
        except BaseException as error:
            _reraise_unless_from_library(error)
            detail = re.search(r"error: (?!\w* ?'|.*not a valid)(.+)", str(error))
            why = f": {detail[1].split('. Check')[0]}" if detail else ""
            reader.refuse(f"this pattern is not a valid regular expression{why}", pattern.start)


def _hand_to_library(source: str) -> tuple[Callable[..., object], frozenset[str]]:
    """Compile with the CEL library. Returns what evaluates it, and the variables that the library sees."""
    import cel

    try:
        program = cel.compile(source)
        names = frozenset(program.variables())
    except BaseException as error:
        _reraise_unless_from_library(error)
        place = re.search(r"<input>:(\d+):(\d+): (?:Syntax error: )?(.*)", str(error))
        if place is None:
            raise ExpressionError("this is not CEL", 1) from None
        # The parser lists everything that could have stood there, which helps nobody.
        what = re.sub(r" expecting \{.*", "", place[3])
        raise ExpressionError(what or "this is not CEL", int(place[2]), int(place[1])) from None
    return program.execute, names - _TYPE_NAMES
