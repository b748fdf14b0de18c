"""Constraint expressions: the CEL text of a `when`, checked and compiled once, evaluated against measurements. Pure.

The CEL library reports most mistakes only when an expression runs, loops for seconds in comprehension macros and overflows a
small thread's stack on deep input. So a definition is parsed here first, by a small parser of the CEL grammar. The parser works
out the kinds of value of each part and refuses, with a column, all parts that cannot work:

- More than 1 KiB, or nested deeper than `MAX_DEPTH`. Comprehension macros (`all`, `exists`, `map`, `filter`, ...).
- A call of an unknown function, or with arguments outside of its signature.
- An operator without a fitting overload. A measurement is never an int: every measured number reaches CEL as a double, also
  inside lists and maps. CEL compares across number types (`x < 85`) but does not calculate across them, so `x * 2` is refused and
  `x * 2.0` is not. Pure int arithmetic (`2 * 3`, `size(name) * 2`) is fine; where only the values can tell (`(b ? 1 : 2.0) * x`),
  the expression is accepted.
- A value of another kind than bool. Without variables there is a single value, so the value is computed at once.
- A pattern of `matches` that is not a string literal, or costly: the library compiles patterns again at every evaluation.

The library then has the last word on syntax, and must see the same variables. None of its exceptions gets out. The library is
imported at first use.

`parser` has the tokens and the grammar, `cel` the kinds of value, the overloads, the measured values and the calls of the library.
`evaluation` compiles expressions, bounds regular expressions and evaluates the constraints of a state.
"""

from constraint_crdt.expression.cel import MAX_VALUE_DEPTH, ExpressionError, Measurements, Outcome, Verdict, measurements
from constraint_crdt.expression.evaluation import (
    COMPILED_EXPRESSIONS_KEPT,
    MAX_EXPRESSION_BYTES,
    MAX_PATTERN_COST,
    Expression,
    compile_expression,
)
from constraint_crdt.expression.parser import MAX_DEPTH

__all__ = [
    "COMPILED_EXPRESSIONS_KEPT",
    "MAX_DEPTH",
    "MAX_EXPRESSION_BYTES",
    "MAX_PATTERN_COST",
    "MAX_VALUE_DEPTH",
    "Expression",
    "ExpressionError",
    "Measurements",
    "Outcome",
    "Verdict",
    "compile_expression",
    "measurements",
]
