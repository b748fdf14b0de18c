"""The CEL library, Google's cel-cpp as `cel-expr-python`: verdicts, refusals, and the calls of the library.

The library is imported at first use. Its exceptions are turned into sentences here and in `refusals`.
"""

import enum
import functools
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from constraint_crdt.errors import ConstraintCrdtError

if TYPE_CHECKING:
    from cel_expr_python import cel


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


MAX_DEPTH = 32
"""The levels of nesting that the library parses. 32 levels take a fraction of a 256 KiB thread stack."""
ENVIRONMENTS_KEPT = 64
"""Sets of variables whose declarations are kept: constraints of one fleet often read the same."""
MAX_ITERATIONS = 10_000
"""The steps of all macros of one evaluation together, a budget of the library."""

TYPE_NAMES = frozenset({"bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type", "type", "optional_type"})
ALIAS = "__measured_"
"""Prefix of a variable that has the name of a type. The library resolves the bare name to the type if nothing is measured."""

_KEYWORDS = ("true", "false", "null", "in")
_RESERVED = (
    *_KEYWORDS, "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let", "loop", "package",
    "namespace", "return", "var", "void", "while",
)  # fmt: skip
_PART = "[A-Za-z_][A-Za-z0-9_]*"
NAME_PATTERN = (
    rf"^(?!(?:{'|'.join(_RESERVED)})(?:\.|$))(?!{ALIAS}){_PART}"
    rf"(?:\.(?!(?:{'|'.join(_KEYWORDS)})(?:\.|$)){_PART})*$"
)
"""The names of measurements that expressions can read: an identifier of CEL, or several joined by points (`robot.speed`)."""
_NAME = re.compile(NAME_PATTERN)
_SHAPE = re.compile(rf"{_PART}(?:\.{_PART})*")


def check_names(names: Iterable[str]) -> None:
    """Raise `ConstraintCrdtError` for the name of a measurement that no expression can read."""
    for name in names:
        if isinstance(name, str) and _NAME.match(name) and not name.endswith("\n"):
            continue
        why = "the name is a reserved word of CEL"
        if not isinstance(name, str) or not _SHAPE.fullmatch(name):
            why = "a name has ASCII letters, digits and `_`, does not begin with a digit, and can have fields (`robot.speed`)"
        elif name.startswith(ALIAS):
            why = f"names that begin with {ALIAS} are taken"
        raise ConstraintCrdtError(f"no expression can read a measurement named {name!r}: {why}")


class Environment:
    """The library with the extensions `math`, `strings` and `optional`."""

    def __init__(self) -> None:
        from cel_expr_python import cel
        from cel_expr_python.ext import ext_math, ext_optional, ext_strings

        self._library = cel
        self._extensions = [ext_math.ExtMath(), ext_strings.ExtStrings(), ext_optional.ExtOptional()]
        self.error_type = cel.Type.ERROR
        self._dynamic = cel.Type.DYN
        self._declaring = functools.lru_cache(maxsize=ENVIRONMENTS_KEPT)(self._new)
        self._env = self._new(frozenset())

    def parse(self, source: str) -> "cel.Expression":
        """Compile without types. Raises `RuntimeError` with the messages of the library."""
        return self._env.compile(source, disable_check=True)

    def check(self, source: str, variables: frozenset[str] = frozenset()) -> "cel.Expression":
        """Compile with the types of the standard; variables are `dyn`. Raises `RuntimeError` with the messages of the library."""
        return self._declaring(variables).compile(source)

    def _new(self, variables: frozenset[str]) -> "cel.Env":
        return self._library.NewEnv(variables=dict.fromkeys(variables, self._dynamic), extensions=self._extensions)

    def activation(self, values: Mapping[str, object]) -> "cel.Activation":
        """The values in the library's own form, for any number of expressions."""
        return self._env.Activation(values)


@functools.cache
def environment() -> Environment:
    """The library, imported at the first call."""
    return Environment()
