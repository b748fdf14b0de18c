"""Expressions that have been checked and compiled, and how they are evaluated. The last few thousand are kept."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from constraint_crdt.core.limits import WHEN_BYTES
from constraint_crdt.expression.library import compile_in_library, failure, reraise_unless_from_library
from constraint_crdt.expression.measurements import Measurements, measurements
from constraint_crdt.expression.outcome import ExpressionError, Outcome, Verdict
from constraint_crdt.expression.patterns import check_patterns
from constraint_crdt.expression.reader import read

MAX_EXPRESSION_BYTES = WHEN_BYTES
COMPILED_EXPRESSIONS_KEPT = 4096

_SATISFIED = Outcome(Verdict.SATISFIED, "")
_VIOLATED = Outcome(Verdict.VIOLATED, "")


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
            reraise_unless_from_library(error)
            return Outcome(Verdict.UNKNOWN, f"the evaluation failed: {failure(error)}")
        if result is True:
            return _SATISFIED
        if result is False:
            return _VIOLATED
        return Outcome(Verdict.UNKNOWN, f"the result is not a bool but of type {type(result).__name__}")


def compile_expression(source: str) -> Expression:
    """Check and compile a `when`. What has compiled is kept, so that asking again costs nothing.

    Raises `ExpressionError` naming the column for anything that could not work (the docstring of the package lists it).
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
    reading = read(source)
    # Patterns first: an expression of constants only is evaluated below, and must not find a costly one.
    check_patterns(source, reading.patterns)
    execute, variables = compile_in_library(source)
    # Were the two readings ever to differ, the checks above would have been made on another expression.
    if variables != reading.variables:
        raise ExpressionError("the expression is ambiguous: write it more simply", 1)
    expression = Expression(source, variables, execute)
    if not variables:
        outcome = expression.evaluate(Measurements({}, {}))
        if outcome.verdict is Verdict.UNKNOWN:
            raise ExpressionError(f"this names no measurement, and {outcome.reason}", 1)
    return expression
