"""Constraint expressions: the CEL text of a `when`, checked and compiled once, evaluated against measurements. Pure.

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

`kinds` knows the kinds of value and the overloads, `tokens` and `reader` read, `patterns` bounds regular expressions,
`measurements` converts values, `library` is the way to the CEL library, `compiled` joins them.
"""

from constraint_crdt.expression.cel import ExpressionError, Outcome, Verdict
from constraint_crdt.expression.compiler import (
    COMPILED_EXPRESSIONS_KEPT,
    MAX_EXPRESSION_BYTES,
    MAX_PATTERN_COST,
    Expression,
    compile_expression,
)
from constraint_crdt.expression.measurements import MAX_VALUE_DEPTH, Measurements, measurements
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
