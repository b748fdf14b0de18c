"""What comes of an expression: a refusal with its place in the text, or a verdict when it is evaluated."""

import enum
from typing import NamedTuple, NoReturn


class ExpressionError(ValueError):
    """A `when` that cannot be used. `str()` is one sentence with the place; `.column` counts characters from 1 in its line."""

    def __init__(self, message: str, column: int | None = None, line: int = 1) -> None:
        place = f"line {line}, column {column}: " if line > 1 else f"column {column}: " if column else ""
        super().__init__(place + message)
        self.column = column


def refuse(source: str, message: str, start: int) -> NoReturn:
    """Raise an `ExpressionError` about what begins at this offset of the text."""
    line_start = source.rfind("\n", 0, start) + 1
    raise ExpressionError(message, start - line_start + 1, source.count("\n", 0, start) + 1)


class Verdict(enum.Enum):
    """What an evaluation says about a constraint. `UNKNOWN` counts neither way."""

    SATISFIED = "satisfied"
    VIOLATED = "violated"
    UNKNOWN = "unknown"


class Outcome(NamedTuple):
    """A verdict and, when it is `UNKNOWN`, the reason in words (otherwise empty)."""

    verdict: Verdict
    reason: str
