"""Compiled expressions, and the evaluation of the active constraints against measurements. Pure.

All standing definitions of a constraint are in force: the constraint is violated if any is, satisfied if all hold, else unknown.
A definition with a selector applies only to nodes with all of its labels; a constraint without an applying definition is not
evaluated. A definition impossible to compile here (from a node with a later version) reads unknown, and is kept and forwarded.

Compiled expressions are cached, the last few thousand. The library compiles a pattern of `matches` again at every evaluation, so
the cost of patterns is bounded here beforehand.
"""

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from constraint_crdt.crdt.limits import WHEN_BYTES
from constraint_crdt.expression.cel import (
    BAD_ESCAPE,
    ExpressionError,
    Measurements,
    Outcome,
    Verdict,
    compile_cel,
    failure,
    measurements,
    refuse,
    reraise_unless_cel_error,
)
from constraint_crdt.expression.parser import ParsedPart, parse
from constraint_crdt.types.orset import ConstraintORSet

NO_LABELS: Mapping[str, str] = {}
COMPILED_EXPRESSIONS_KEPT = 4096
MAX_EXPRESSION_BYTES = WHEN_BYTES
MAX_PATTERN_COST = 1600  # some 8 ms at worst; an unbounded pattern of 1 KiB took 50 ms, and 25 of them a second
_COUNTED = re.compile(r"(.?)\{\s*(\d+)\s*(?:,\s*(\d*)\s*)?\}", re.DOTALL)


def _cost(pattern: str) -> int:
    """An upper estimate of the cost of compiling a regular expression; Unicode classes and nested counts are the costly parts."""
    groups, atoms = 1, 1
    for before, least, most in _COUNTED.findall(pattern):
        count = max(int(most or 0), int(least), 1)
        if before in ("", ")", "}") or before.isspace():
            groups *= count
        else:
            atoms = max(atoms, count)
    return (len(pattern) + 60 * len(re.findall(r"\\[wWdDsSpPbB]", pattern))) * groups * atoms


def check_patterns(source: str, patterns: Iterable[ParsedPart]) -> None:
    """Raise `ExpressionError` for a pattern that is not a string literal or not valid, and for patterns above the cost limit."""
    cost = 0
    for pattern in patterns:
        if not pattern.literal:
            refuse(source, "`matches` needs its pattern as a string literal", pattern.start)
        literal = source[pattern.start : pattern.end]
        try:
            cost += _cost(str(compile_cel(literal)[0]({})))
        except ExpressionError:
            refuse(source, BAD_ESCAPE, pattern.start)
        if cost > MAX_PATTERN_COST:
            refuse(source, "the patterns of `matches` are too costly: shorten them or lower their {counts}", pattern.start)
        try:
            compile_cel(f"''.matches({literal})")[0]({})
        except BaseException as error:
            reraise_unless_cel_error(error)
            detail = re.search(r"error: (?!\w* ?'|.*not a valid)(.+)", str(error))
            why = f": {detail[1].split('. Check')[0]}" if detail else ""
            refuse(source, f"this pattern is not a valid regular expression{why}", pattern.start)


_SATISFIED = Outcome(Verdict.SATISFIED, "")
_VIOLATED = Outcome(Verdict.VIOLATED, "")


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled `when`. Equal when the text is; safe to share between threads."""

    source: str
    variables: frozenset[str]  # the top-level names in the expression
    _execute: Callable[..., object] = field(repr=False, compare=False)

    def evaluate(self, values: Mapping[str, object]) -> Outcome:
        """Evaluate against measured values (for many expressions, convert the values with `measurements` first).

        `UNKNOWN` for any named variable without a usable value, also where the rest would decide; and for an evaluation that
        fails or does not give a bool. Raises nothing.
        """
        if type(values) is not Measurements:
            values = measurements({name: values[name] for name in self.variables if name in values})
        if not values.covers(self.variables):
            return Outcome(Verdict.UNKNOWN, values.why_not(self.variables))
        try:
            result = self._execute(values.context())
        except BaseException as error:
            reraise_unless_cel_error(error)
            return Outcome(Verdict.UNKNOWN, f"the evaluation failed: {failure(error)}")
        if result is True:
            return _SATISFIED
        if result is False:
            return _VIOLATED
        return Outcome(Verdict.UNKNOWN, f"the result is not a bool but of type {type(result).__name__}")


def compile_expression(source: str) -> Expression:
    """Check and compile a `when`. Compiled expressions are cached, so asking again costs nothing.

    Raises `ExpressionError` with the column for all errors listed in the docstring of the package.
    """
    # A text of 1 KiB in characters can be larger in bytes, never smaller; text without an encoding is refused as well.
    try:
        size = len(source.encode()) if len(source) <= MAX_EXPRESSION_BYTES else len(source)
    except UnicodeEncodeError as error:
        raise ExpressionError("the text is not valid Unicode", error.start + 1) from None
    if size > MAX_EXPRESSION_BYTES:
        raise ExpressionError(f"the expression is longer than {MAX_EXPRESSION_BYTES} bytes: split the constraint")
    return _compile(source)


@functools.lru_cache(maxsize=COMPILED_EXPRESSIONS_KEPT)
def _compile(source: str) -> Expression:
    parsed = parse(source)
    # Patterns first: an expression of constants only is evaluated below, and must not find a costly one.
    check_patterns(source, parsed.patterns)
    execute, variables = compile_cel(source)
    # Were the two readings ever to differ, the checks above would have been made on another expression.
    if variables != parsed.variables:
        raise ExpressionError("the expression is ambiguous: write it more simply", 1)
    expression = Expression(source, variables, execute)
    if not variables:
        outcome = expression.evaluate(Measurements({}, {}))
        if outcome.verdict is Verdict.UNKNOWN:
            raise ExpressionError(f"this names no measurement, and {outcome.reason}", 1)
    return expression


class Evaluation(NamedTuple):
    """The result of an evaluation of a constraint."""

    constraint: str
    verdict: Verdict
    reason: str = ""
    """The reason for an unknown verdict; else empty."""

    @property
    def counts(self) -> tuple[int, int]:
        """The increment of (satisfied, violated); unknown counts neither way."""
        return int(self.verdict is Verdict.SATISFIED), int(self.verdict is Verdict.VIOLATED)


def evaluate(
    constraints: ConstraintORSet,
    values: Mapping[str, object],
    labels: Mapping[str, str] = NO_LABELS,
    ids: Iterable[str] | None = None,
) -> list[Evaluation]:
    """An evaluation per active constraint with a `when` and a selector for these labels, ordered by id.

    `ids`: only these, in this order. O(active constraints), or O(ids).
    """
    prepared = measurements(values)
    evaluations = []
    for id_ in sorted(constraints) if ids is None else ids:
        applying = [each.when for each in constraints.definitions(id_) if each.when and each.applies_to(labels)]
        outcomes = [_outcome(when, prepared) for when in dict.fromkeys(applying)]
        if outcomes:
            evaluations.append(Evaluation(id_, *_together(outcomes)))
    return evaluations


def _outcome(when: str, values: Mapping[str, object]) -> Outcome:
    try:
        return compile_expression(when).evaluate(values)
    except ExpressionError as error:
        return Outcome(Verdict.UNKNOWN, f"cannot be evaluated on this node: {error}")


def _together(outcomes: list[Outcome]) -> Outcome:
    for verdict in (Verdict.VIOLATED, Verdict.UNKNOWN):
        for outcome in outcomes:
            if outcome.verdict is verdict:
                return outcome
    return outcomes[0]
