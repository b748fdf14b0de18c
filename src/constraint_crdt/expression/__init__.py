"""Constraint expressions: the CEL text of a `when`, checked and compiled once, evaluated against measurements. Pure.

Google's evaluator (`cel-expr-python`) parses, checks the types and evaluates. It bounds the nesting to `MAX_DEPTH` and the steps of
macros to 10,000 an evaluation. Added here:

- Bounds: 1 KiB of text, the cost of the patterns of `matches`, the memory that loops and `replace` can build, the size of a
  measured value at any depth.
- The variables of an expression, from the syntax tree that the library serializes.
- The check where an expression is written. An undecidable expression is refused with the column and the fix: a type error, a result
  that is not a bool, arithmetic of a measurement with an int (every measured number is a double), a constant that fails.
- Verdicts: `unknown` only when the result depends on missing values, and the reason names the variables.
- Windows: functions over the samples of a variable, whose name and length are literals.

None of the library's exceptions gets out. The library is imported at first use.

`cel` has verdicts, names, the library and the conversion of measured values; `measurements` instances,
the samples and the functions over them;
`syntax` the tree, and the bounds on the growth of loops; `check` the check of written expressions and its messages; `evaluation`
compiled expressions, their parts, and the evaluation of the constraints of a state; `margin` the distance of values to the
threshold; `aggregates` expressions over the nodes of a fleet; `fleet_view` their values; `temporal` the states of verdicts over
time; `judgement` the constraints of a node against its measurements over time.
"""

from constraint_crdt.expression.aggregates import check_expressions, compile_written
from constraint_crdt.expression.cel import (
    MAX_DEPTH,
    MAX_VALUE_DEPTH,
    MAX_VALUE_ITEMS,
    MAX_VALUE_TEXT_BYTES,
    NAME_PATTERN,
    ExpressionError,
    Measurements,
    Outcome,
    Verdict,
    check_names,
    check_value,
    measurements,
)
from constraint_crdt.expression.evaluation import (
    COMPILED_EXPRESSIONS_KEPT,
    MAX_EXPRESSION_BYTES,
    MAX_PATTERN_COST,
    Expression,
    compile_expression,
)
from constraint_crdt.expression.temporal import Margin, margin

__all__ = [
    "COMPILED_EXPRESSIONS_KEPT",
    "MAX_DEPTH",
    "MAX_EXPRESSION_BYTES",
    "MAX_PATTERN_COST",
    "MAX_VALUE_DEPTH",
    "MAX_VALUE_ITEMS",
    "MAX_VALUE_TEXT_BYTES",
    "NAME_PATTERN",
    "Expression",
    "ExpressionError",
    "Margin",
    "Measurements",
    "Outcome",
    "Verdict",
    "check_expressions",
    "check_names",
    "check_value",
    "compile_expression",
    "compile_written",
    "margin",
    "measurements",
]
