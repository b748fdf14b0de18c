"""The CEL library, Google's cel-cpp as `cel-expr-python`: verdicts, refusals, and the calls of the library.

The library is imported at first use. Its exceptions are turned into sentences here and in `refusals`.

Measured values for CEL: numbers as doubles at any depth, and a reason for each unusable value.

Every measured number is a double, so that `x * 2.0` works whether a sensor reports 2 or 2.0.
"""

import enum
import functools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple, NoReturn, Protocol, SupportsFloat, SupportsIndex

from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.model import IfUnknown
from constraint_crdt.types.parameters import PARAM

if TYPE_CHECKING:
    from cel_expr_python import cel


class ExpressionError(ConstraintCrdtError, ValueError):
    """A `when` or `clear_when` is refused. `str()` is a sentence with the place; `.column` counts characters from 1 in its line."""

    field = "when"

    def __init__(self, message: str, column: int | None = None, line: int = 1) -> None:
        """`message`: a sentence. `column` and `line`: the place in the text, both from 1."""
        place = f"line {line}, column {column}: " if line > 1 else f"column {column}: " if column else ""
        super().__init__(place + message)
        self.column = column

    def within(self, field: str) -> "ExpressionError":
        """The same error about the expression in another field, which the sentence names."""
        error = ExpressionError(f"`{field}`: {self}")
        error.column, error.field = self.column, field
        return error


def refuse(source: str, message: str, start: int) -> NoReturn:
    """Raise an `ExpressionError` about the part at this offset of the text."""
    line_start = source.rfind("\n", 0, start) + 1
    raise ExpressionError(message, start - line_start + 1, source.count("\n", 0, start) + 1)


class Verdict(enum.Enum):
    """The result of an evaluation of a constraint. `UNKNOWN` counts neither way."""

    SATISFIED = "satisfied"
    VIOLATED = "violated"
    UNKNOWN = "unknown"


_DEFAULTS = {
    IfUnknown.UNKNOWN: Verdict.UNKNOWN,
    IfUnknown.VIOLATED: Verdict.VIOLATED,
    IfUnknown.SATISFIED: Verdict.SATISFIED,
}


def by_default(outcome: Verdict, if_unknown: IfUnknown) -> Verdict:
    """The outcome to count: the choice of the definition in place of `UNKNOWN`. For `when` and `clear_when` alike."""
    return _DEFAULTS[if_unknown] if outcome is Verdict.UNKNOWN else outcome


class Outcome(NamedTuple):
    """A verdict and, for `UNKNOWN`, the reason in words (otherwise empty)."""

    verdict: Verdict
    reason: str


MAX_DEPTH = 32
"""The levels of nesting that the library parses. 32 levels take a fraction of a 256 KiB thread stack."""
ENVIRONMENTS_KEPT = 64
"""Sets of variables whose declarations are kept: constraints of a fleet often read the same."""
MAX_ITERATIONS = 10_000
"""The steps of all macros of one evaluation together, a budget of the library."""

TYPE_NAMES = frozenset(
    {"bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type", "type", "optional_type", "dyn"}
)
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
        is_parameter = isinstance(name, str) and name.partition(".")[0] == PARAM
        if isinstance(name, str) and _NAME.match(name) and not name.endswith("\n") and not is_parameter:
            continue
        why = "the name is a reserved word of CEL"
        if not isinstance(name, str) or not _SHAPE.fullmatch(name):
            why = "a name has ASCII letters, digits and `_`, does not begin with a digit, and can have fields (`robot.speed`)"
        elif is_parameter:
            why = f"`{PARAM}` stands for the parameters of the fleet (`constraint-crdt set`)"
        elif name.startswith(ALIAS):
            why = f"names that begin with {ALIAS} are taken"
        raise ConstraintCrdtError(f"no expression can read a measurement named {name!r}: {why}")


Kinds = frozenset[tuple[str, str]]
"""Variables with their kinds, of `KINDS`."""
KINDS = ("double", "string", "bool", "list", "map")
"""The kinds of measured values."""


WINDOW_FUNCTIONS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("avg_over", "min_over", "max_over", "sum_over", "count_over", "stddev_over"), ("name", "span")),
    "quantile_over": ("fraction", "name", "span"),
    **dict.fromkeys(("delta", "rate", "increase", "changes"), ("name", "span")),
    **dict.fromkeys(("age", "last"), ("name",)),
}
"""The functions over samples, with their arguments in order."""
FLEET_FUNCTIONS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("count", "share_of"), ("nodes", "node", "condition")),
    **dict.fromkeys(("sum", "avg", "min", "max"), ("nodes", "node", "value")),
    "quantile": ("nodes", "node", "value", "fraction"),
}
"""The functions over the nodes of a fleet, with their arguments in order. They are computed before the evaluation."""
ANY_SAMPLES = frozenset({"count_over", "changes", "age", "last"})
"""Those that take samples of any kind, not only numbers."""


class WindowReader(Protocol):
    """The samples at the instant of an evaluation, as `windows.Windows`.

    Methods raise `ValueError` with the reason.
    """

    def over(self, function: str, name: str, span: int, fraction: float = 0.0) -> float:
        """The value of a function over the samples of the last `span` ns. `fraction`: of `quantile_over`."""

    def age(self, name: str) -> int:
        """The age of the last sample in ns."""

    def last(self, name: str) -> object:
        """The value of the last sample."""


class _NoSamples:
    """The reader of an evaluation without samples."""

    def over(self, function: str, name: str, span: int, fraction: float = 0.0) -> float:
        del function, span, fraction
        raise _no_samples(name)

    def age(self, name: str) -> int:
        raise _no_samples(name)

    def last(self, name: str) -> object:
        raise _no_samples(name)


def _no_samples(name: str) -> ValueError:
    return ValueError(f"no samples of {name} are kept here")


NO_SAMPLES: WindowReader = _NoSamples()


class Duration(Protocol):
    """A duration as the library gives it, a `datetime.timedelta`."""

    @property
    def days(self) -> int:
        """The whole days."""

    @property
    def seconds(self) -> int:
        """The seconds beside the days."""

    @property
    def microseconds(self) -> int:
        """The µs beside days and seconds."""


def nanoseconds(span: Duration) -> int:
    """A duration of CEL in ns. The library gives them in whole µs."""
    return ((span.days * 86_400 + span.seconds) * 1_000_000 + span.microseconds) * 1000


class WindowCall(NamedTuple):
    """A call of a function over samples, with its literal arguments; the span in ns."""

    function: str
    name: str
    span: int = 0
    fraction: float = 0.0

    def read(self, windows: WindowReader) -> object:
        """Its value for CEL, of `age` as text. Raises `ValueError` with the reason."""
        if self.function == "age":
            return f"{windows.age(self.name)}ns"  # the library takes no duration as a variable
        if self.function == "last":
            return windows.last(self.name)
        return windows.over(self.function, self.name, self.span, self.fraction)


class Environment:
    """The library with the extensions `math`, `strings` and `optional`, and the functions over samples."""

    def __init__(self) -> None:
        from cel_expr_python import cel
        from cel_expr_python.ext import ext_math, ext_optional, ext_strings

        self._library = cel
        # Version 2 of `optional` has `xs.last()`, beside which no function `last` can be declared.
        self._extensions = [ext_math.ExtMath(), ext_strings.ExtStrings(), ext_optional.ExtOptional(1)]
        self.error_type = cel.Type.ERROR
        self._dynamic = cel.Type.DYN
        self._types = {
            "double": cel.Type.DOUBLE,
            "string": cel.Type.STRING,
            "bool": cel.Type.BOOL,
            "list": cel.Type.List(cel.Type.DYN),
            "map": cel.Type.Map(cel.Type.STRING, cel.Type.DYN),
        }
        self._functions = [*self._window_functions(), *self._fleet_functions()]
        self._declaring = functools.lru_cache(maxsize=ENVIRONMENTS_KEPT)(self._new)
        self._env = self._new(frozenset())

    def parse(self, source: str) -> "cel.Expression":
        """Compile without types. Raises `RuntimeError` with the messages of the library."""
        return self._env.compile(source, disable_check=True)

    def check(self, source: str, variables: frozenset[str] = frozenset(), kinds: Kinds = frozenset()) -> "cel.Expression":
        """Compile with the types of the standard; variables are `dyn`, but for those with a kind. Raises `RuntimeError` with the
        messages of the library.
        """
        return self._declaring(variables, kinds).compile(source)

    def deserialize(self, serialized: bytes) -> "cel.Expression":
        """An expression from its serialized form. Raises `RuntimeError` with the messages of the library."""
        return self._env.deserialize(serialized)

    def _new(self, variables: frozenset[str], kinds: Kinds = frozenset()) -> "cel.Env":
        declared = dict.fromkeys(variables, self._dynamic) | {name: self._types[kind] for name, kind in kinds}
        return self._library.NewEnv(variables=declared, extensions=self._extensions, functions=self._functions)

    def _window_functions(self) -> "list[cel.FunctionDecl]":
        """The declarations of the functions over samples, for the type checker. They are evaluated as variables: the library does
        not free the arguments of a function of Python.
        """
        kinds = self._library.Type
        parameters = {"name": kinds.STRING, "span": kinds.DURATION, "fraction": kinds.DOUBLE}
        results = {"age": kinds.DURATION, "last": self._dynamic}
        declared = []
        for name, arguments in WINDOW_FUNCTIONS.items():
            types = [parameters[each] for each in arguments]
            overload = self._library.Overload(id=f"{name}_samples", return_type=results.get(name, kinds.DOUBLE), parameters=types)
            declared.append(self._library.FunctionDecl(name, [overload]))
        return declared

    def _fleet_functions(self) -> "list[cel.FunctionDecl]":
        """The declarations of the functions over nodes, for the type checker. They are evaluated as variables."""
        kinds, declared = self._library.Type, []
        parameters = {"condition": kinds.BOOL, "fraction": kinds.DOUBLE}
        for name, arguments in FLEET_FUNCTIONS.items():
            types = [parameters.get(each, self._dynamic) for each in arguments]
            result = kinds.INT if name == "count" else kinds.DOUBLE
            overload = self._library.Overload(id=f"{name}_nodes", return_type=result, parameters=types)
            declared.append(self._library.FunctionDecl(name, [overload]))
        return declared

    def activation(self, values: Mapping[str, object]) -> "cel.Activation":
        """The values in the library's own form, for any number of expressions."""
        return self._env.Activation(values)


def converted(result: "cel.Value") -> object:
    """The value in Python's types, of a list or map at the top only; an error is a text. None for an optional, as for null.

    The conversion at all levels (`plain_value`) ends the process for an optional in a map.
    """
    try:
        return result.value()
    except TypeError:
        return None


@functools.cache
def environment() -> Environment:
    """The library, imported at the first call: 60 ms of CPU and 16 MB."""
    return Environment()


def is_loaded() -> bool:
    """True once the library was imported."""
    return environment.cache_info().currsize > 0


MAX_VALUE_DEPTH = 16
MAX_VALUE_TEXT_BYTES = 4096
MAX_VALUE_ITEMS = 10_000
"""Bounds of a measured value: levels of lists and maps; bytes of each text and key, in UTF-8; items at all levels together."""


class UnusableError(ConstraintCrdtError):
    """A measured value is unusable for CEL; `str()` follows the variable's name."""


class _Coercion:
    """The conversion of a value, which counts its items."""

    def __init__(self) -> None:
        self._items = 0

    def coerce(self, value: object, depth: int = 0) -> object:
        if isinstance(value, bool) or (value is None and depth):
            return value
        if isinstance(value, int | float):
            return _double(value)
        if isinstance(value, str):
            return _text(value)
        if getattr(value, "shape", None) == () and hasattr(value, "item"):  # a scalar of numpy, or of a library like it
            item = value.item()
            if type(item) is not type(value):
                return self.coerce(item, depth)
        if isinstance(value, list | tuple | Mapping):
            return self._container(value, depth)
        if isinstance(value, SupportsFloat | SupportsIndex) and not hasattr(value, "__len__"):
            return _double(value)
        raise UnusableError(f"has a value of type {type(value).__name__}, which is not measurable")

    def _container(self, value: list[object] | tuple[object, ...] | Mapping[object, object], depth: int) -> object:
        if depth == MAX_VALUE_DEPTH:
            raise UnusableError(f"is nested more than {MAX_VALUE_DEPTH} deep")
        self._items += len(value)
        if self._items > MAX_VALUE_ITEMS:
            raise UnusableError(f"has more than {MAX_VALUE_ITEMS} items")
        if isinstance(value, Mapping):
            return {_key(key): self.coerce(item, depth + 1) for key, item in value.items()}
        return [self.coerce(item, depth + 1) for item in value]


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise UnusableError("has a key that is not text")
    return _text(key)


def _text(value: str) -> str:
    try:
        size = len(value) if value.isascii() else len(value.encode())
    except UnicodeEncodeError:
        raise UnusableError("is not valid text") from None
    if size > MAX_VALUE_TEXT_BYTES:
        raise UnusableError(f"has a text of more than {MAX_VALUE_TEXT_BYTES} bytes")
    return value


def _double(value: SupportsFloat | SupportsIndex) -> float:
    try:
        number = float(value)
    except OverflowError:
        raise UnusableError("is too large for a double") from None
    except (TypeError, ValueError):
        raise UnusableError(f"has a value of type {type(value).__name__}, which is not measurable") from None
    if math.isinf(number) and isinstance(value, Decimal) and value.is_finite():
        raise UnusableError("is too large for a double")
    return number


def coerce(value: object) -> object:
    """A measured value as CEL sees it. Raises `UnusableError` for a value that is none, or out of bounds."""
    return _Coercion().coerce(value)


def check_value(name: str, value: object) -> object:
    """The converted value of a measurement; None is no value.

    Raises `ConstraintCrdtError` for a measurement that no expression can use, or that is out of bounds.
    """
    try:
        return None if value is None else coerce(value)
    except UnusableError as error:
        raise ConstraintCrdtError(
            f"{name} {error}; a measurement is a number, a text, true or false, or a list or map of them"
        ) from None


class Size(NamedTuple):
    """The size of a value: its items, its bytes, and those of its largest item. A scalar has none."""

    items: int = 0
    bytes: int = 0
    item_bytes: int = 0


_ITEM_BYTES = 16
_SCALAR = Size()


def _size(value: object) -> Size:
    if isinstance(value, str):
        return Size(0, len(value.encode()))
    if isinstance(value, dict):
        inner = [_size(item).bytes + len(key.encode()) for key, item in value.items()]
    elif isinstance(value, list):
        inner = [_size(item).bytes for item in value]
    else:
        return _SCALAR
    return Size(len(inner), sum(inner) + _ITEM_BYTES * len(inner), max(inner, default=0))


class Measurements(Mapping[str, object]):
    """Values as CEL sees them, converted once, for any number of expressions. Made by `measurements`; never changes."""

    __slots__ = ("_names", "_unusable", "_values", "ready", "windows")

    def __init__(self, values: dict[str, object], unusable: dict[str, str], windows: WindowReader = NO_SAMPLES) -> None:
        self._values = values
        self._unusable = unusable
        self.windows = windows
        """The samples at the instant of the evaluation."""
        self._names = frozenset(values)
        self.ready: cel.Activation | None = None
        """The values in the library's own form, once `activation` was called."""

    @property
    def plain(self) -> Mapping[str, object]:
        """The values as a plain mapping: look-ups in it are fast."""
        return self._values

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

    def size(self, name: str) -> Size:
        """The size of a variable's value."""
        return _size(self._values.get(name))

    def sample_size(self, name: str) -> Size:
        """The size of the last sample of a variable."""
        try:
            return _size(self.windows.last(name))
        except ValueError:
            return _SCALAR

    def activation_with(self, variables: frozenset[str], calls: Mapping[str, WindowCall]) -> "cel.Activation":
        """The values of these variables and of calls over samples, by name. A call that fails has none."""
        read = {name: self._values[name] for name in self._names & (variables | TYPE_NAMES)}
        read |= {ALIAS + name: self._values[name] for name in self._names & TYPE_NAMES}
        for name, call in calls.items():
            try:
                read[name] = call.read(self.windows)
            except ValueError:
                continue
        return environment().activation(read)

    def activation(self) -> "cel.Activation":
        """The values in the library's own form, made when first asked for."""
        if self.ready is None:
            aliases = {ALIAS + name: self._values[name] for name in TYPE_NAMES & self._names}
            self.ready = environment().activation({**self._values, **aliases} if aliases else self._values)
        return self.ready


def measurements(values: Mapping[str, object], windows: WindowReader = NO_SAMPLES) -> Measurements:
    """Convert measured values once, to evaluate many expressions against them.

    `windows`: the samples at the instant of the evaluation (`Samples.at`). Without, the functions over samples fail.

    A value is a bool, a str, a number (int, float, `Decimal`, a scalar of numpy, any type with `__float__` or `__index__`), or a
    list or mapping (with str keys) of those and None. Numbers become doubles at any depth; NaN and infinities are values. None at
    the top is no value. A number too large for a double, a value out of bounds and any other type are unusable: the variable has an
    error instead of a value. A name with points is a field: `robot.speed` is added to the map `robot`. Raises nothing.
    """
    return assembled(*coerced(values), windows)


def coerced(values: Mapping[str, object]) -> tuple[dict[str, object], dict[str, str]]:
    """The usable values by name, as CEL sees them, and the reasons for the unusable ones."""
    usable: dict[str, object] = {}
    unusable: dict[str, str] = {}
    for name, value in values.items():
        if value is None:
            continue
        try:
            usable[name] = coerce(value)
        except UnusableError as error:
            unusable[name] = str(error)
    return usable, unusable


def assembled(usable: Mapping[str, object], unusable: Mapping[str, str], windows: WindowReader = NO_SAMPLES) -> Measurements:
    """Measurements of the values from `coerced`."""
    values = {name: value for name, value in usable.items() if "." not in name}
    for name in sorted(usable.keys() - values.keys()):
        _add_field(values, name.split("."), usable[name])
    return Measurements(values, dict(unusable), windows)


def _add_field(values: dict[str, object], path: list[str], value: object) -> None:
    """Put a value at this path; a value on the way that is no map stays, and hides it."""
    first, *rest = path
    if not rest:
        values[first] = value
        return
    inner = values.get(first, {})
    if isinstance(inner, dict):
        values[first] = copied = dict(inner)
        _add_field(copied, rest, value)
