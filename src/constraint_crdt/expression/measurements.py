"""Measured values for CEL: numbers as doubles at any depth, and a reason for each unusable value."""

import math
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import SupportsFloat, SupportsIndex

from constraint_crdt.expression import cel
from constraint_crdt.expression.cel import TYPE_NAMES

MAX_VALUE_DEPTH = 16


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
            self._context = cel.context(self._values)
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
