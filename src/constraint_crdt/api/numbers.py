"""Numbers in a query: as JSON writes them. Python's `float` would take `1_0`, ` 1` and the digits of other scripts too."""

import re

_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def number_in(text: str) -> float | None:
    """The number, or None for what is none."""
    return float(text) if _NUMBER.fullmatch(text) else None
