"""The margin of an expression: the signed distance of measured values to the threshold that decides. Pure.

The margin is the quantitative robustness of temporal logic at an instant: G. Fainekos and G. Pappas, "Robustness of temporal logic
specifications for continuous-time signals", Theoretical Computer Science 410 (2009); A. Donzé and O. Maler, "Robust satisfaction
of temporal logic over real-valued signals", FORMATS 2010.

Rules kept here:

- A comparison of numbers has the distance to its threshold: `a <= b` and `a < b` have b - a, `>=` and `>` a - b, `==` -|a - b|, and
  `!=` |a - b|. `&&` takes the minimum, `||` the maximum, `!` the negation, `?:` the branch that its condition chooses.
- Any other part has no distance: +infinity where it is true, -infinity where it is false. So do comparisons of constants, and
  comparisons whose distance is no finite number (NaN, infinities, an overflow).
- An unknown part can have any distance, from -infinity to +infinity. The margin is the bound that the other parts leave: `&&` with
  a negative operand has the minimum of the known operands.
- An infinite margin is none, and an unknown verdict has none. So a margin other than 0 has the sign of the verdict. A margin of 0
  says nothing about the verdict: at 5, `x > 5` is violated and `x >= 5` satisfied, both with 0.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple, TypeGuard

from constraint_crdt.expression.cel import ALIAS, WINDOW_FUNCTIONS, Measurements, Verdict, measurements
from constraint_crdt.expression.evaluation import Expression, Parts, parts
from constraint_crdt.expression.syntax import OPERATORS, Node, is_path, unparse


class Margin(NamedTuple):
    """The margin of an expression: positive for satisfied, negative for violated; 0 for either."""

    value: float
    """Finite, in the unit of the comparison that decides."""
    share: float | None
    """`value` / |threshold|, where one side of that comparison is a constant other than 0."""
    variable: str
    """The measurement of that comparison, as it is written: `speed_mps`, `robot.speed`, `limits['a']`; of a window its variable."""


def margin(expression: Expression, values: Mapping[str, object]) -> Margin | None:
    """The margin of measured values; None if the verdict is unknown, or no comparison of numbers decides it. Raises nothing."""
    if type(values) is not Measurements:
        values = measurements(values)
    verdict = expression.evaluate(values).verdict
    if verdict is Verdict.UNKNOWN:
        return None
    found = parts(expression)
    bounds = _Distances(found, values).of(found.root)
    value, comparison = bounds.low if verdict is Verdict.SATISFIED else bounds.high
    if comparison is None:
        return None
    measured = next(each for each in comparison.nodes if not _is_constant(each))
    constant = next((each for each in comparison.nodes if _is_constant(each)), None)
    share = _share(value, found.value(constant, values)) if constant else None
    return Margin(value, share, _measurement(measured, expression.variables))


class _Distance(NamedTuple):
    """A signed distance and its comparison; None for an infinite distance."""

    value: float
    comparison: Node | None


class _Bounds(NamedTuple):
    """The least and the greatest distance that a part can have. They are the same if it is known."""

    low: _Distance
    high: _Distance


_TRUE, _FALSE = _Distance(math.inf, None), _Distance(-math.inf, None)
_UNKNOWN_BOUNDS = _Bounds(_FALSE, _TRUE)
_SIGNS = {"_<_": 1, "_<=_": 1, "_>_": -1, "_>=_": -1}


def _value(distance: _Distance) -> float:
    return distance.value


class _Distances:
    """The distances of the parts of an expression for measured values."""

    def __init__(self, found: Parts, values: Measurements) -> None:
        self._parts = found
        self._values = values

    def of(self, node: Node) -> _Bounds:
        """The bounds of the distance of a part."""
        if node.name in ("_&&_", "_||_"):
            choose = min if node.name == "_&&_" else max
            one, other = map(self.of, node.nodes)
            return _Bounds(choose(one.low, other.low, key=_value), choose(one.high, other.high, key=_value))
        if node.name == "!_":
            low, high = self.of(node.nodes[0])
            return _Bounds(_Distance(0.0 - high.value, high.comparison), _Distance(0.0 - low.value, low.comparison))
        if node.name == "_?_:_":
            condition = self._parts.value(node.nodes[0], self._values)
            return self.of(node.nodes[1 if condition else 2]) if isinstance(condition, bool) else _UNKNOWN_BOUNDS
        distance = self._compared(node)
        if distance is None:
            verdict = self._parts.value(node, self._values)
            distance = (_TRUE if verdict else _FALSE) if isinstance(verdict, bool) else None
        return _Bounds(distance, distance) if distance else _UNKNOWN_BOUNDS

    def _compared(self, node: Node) -> _Distance | None:
        """The distance of a comparison of numbers; None for any other part, and for a distance that is not finite."""
        sign = _SIGNS.get(node.name, 0)
        if not (sign or node.name in ("_==_", "_!=_")) or all(map(_is_constant, node.nodes)):
            return None
        left, right = (self._parts.value(each, self._values) for each in node.nodes)
        if not (_is_number(left) and _is_number(right)):
            return None
        difference = float(right - left)
        if not math.isfinite(difference):
            return None
        if not sign:
            difference, sign = abs(difference), -1 if node.name == "_==_" else 1
        return _Distance(sign * difference + 0.0, node)  # + 0.0 and 0.0 - never give -0.0


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


_CASTS = ("int", "uint", "double", "dyn", "-_")


def _is_constant(node: Node) -> bool:
    """True for a constant, and for arithmetic of constants."""
    computed = node.name in OPERATORS or node.name in _CASTS
    return node.sort == "constant" or (node.sort == "call" and computed and all(map(_is_constant, node.nodes)))


def _share(value: float, threshold: object) -> float | None:
    share = value / abs(threshold) if _is_number(threshold) and threshold else math.inf
    return share if math.isfinite(share) else None


def _measurement(side: Node, variables: frozenset[str]) -> str:
    """The first measurement that a side reads, as it is written; the side for one that names none."""
    free = {each.id for each in side.free() if each.name.removeprefix(ALIAS) in variables}
    for each in side.walk():
        if each.sort == "call" and each.name in WINDOW_FUNCTIONS and not each.member:
            return str(each.nodes[WINDOW_FUNCTIONS[each.name].index("name")].value)
        if is_path(each) and _leftmost(each).id in free:
            return unparse(each).removeprefix(ALIAS)
    return unparse(side)


def _leftmost(path: Node) -> Node:
    return _leftmost(path.nodes[0]) if path.nodes else path
