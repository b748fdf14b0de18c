"""Evaluation of the active constraints against measurements. Pure.

All standing definitions of a constraint are in force: the constraint is violated if any is, satisfied if all hold, else unknown.
A definition with a selector applies only to nodes with all of its labels; a constraint without an applying definition is not
evaluated. A definition that does not compile here (from a node with a later version) reads unknown, and is kept and forwarded.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from constraint_crdt.expression import ExpressionError, Outcome, Verdict, compile_expression, measurements
from constraint_crdt.types.orset import ConstraintORSet


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


NO_LABELS: Mapping[str, str] = {}


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
        return compile_expression(when, checked=False).evaluate(values)
    except ExpressionError as error:
        return Outcome(Verdict.UNKNOWN, f"cannot be evaluated on this node: {error}")


def _together(outcomes: list[Outcome]) -> Outcome:
    for verdict in (Verdict.VIOLATED, Verdict.UNKNOWN):
        for outcome in outcomes:
            if outcome.verdict is verdict:
                return outcome
    return outcomes[0]
