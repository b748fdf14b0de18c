"""What a pattern of `matches` may cost: the library compiles it again at every evaluation, so that is bounded beforehand."""

import re
from collections.abc import Iterable

from constraint_crdt.expression.library import BAD_ESCAPE, compile_in_library, reraise_unless_from_library
from constraint_crdt.expression.outcome import ExpressionError, refuse
from constraint_crdt.expression.reader import Part

MAX_PATTERN_COST = 1600  # some 8 ms at worst; an unbounded pattern of 1 KiB took 50 ms, and 25 of them a second

_COUNTED = re.compile(r"(.?)\{\s*(\d+)\s*(?:,\s*(\d*)\s*)?\}", re.DOTALL)


def _cost(pattern: str) -> int:
    """An upper estimate of what compiling a regular expression costs; Unicode classes and nested counts are the costly parts."""
    groups, atoms = 1, 1
    for before, least, most in _COUNTED.findall(pattern):
        count = max(int(most or 0), int(least), 1)
        if before in ("", ")", "}") or before.isspace():
            groups *= count
        else:
            atoms = max(atoms, count)
    return (len(pattern) + 60 * len(re.findall(r"\\[wWdDsSpPbB]", pattern))) * groups * atoms


def check_patterns(source: str, patterns: Iterable[Part]) -> None:
    """Raises `ExpressionError` for a pattern that is not a string literal or not valid, and where they cost too much."""
    cost = 0
    for pattern in patterns:
        if not pattern.literal:
            refuse(source, "`matches` needs its pattern as a string literal", pattern.start)
        literal = source[pattern.start : pattern.end]
        try:
            cost += _cost(str(compile_in_library(literal)[0]({})))
        except ExpressionError:
            refuse(source, BAD_ESCAPE, pattern.start)
        if cost > MAX_PATTERN_COST:
            refuse(source, "the patterns of `matches` are too costly: shorten them or lower their {counts}", pattern.start)
        try:
            compile_in_library(f"''.matches({literal})")[0]({})
        except BaseException as error:
            reraise_unless_from_library(error)
            detail = re.search(r"error: (?!\w* ?'|.*not a valid)(.+)", str(error))
            why = f": {detail[1].split('. Check')[0]}" if detail else ""
            refuse(source, f"this pattern is not a valid regular expression{why}", pattern.start)
