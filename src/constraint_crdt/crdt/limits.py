"""The bounds of the pure core, each with its default, and the checks of numbers given by callers.

All data that input from outside can make grow has a bound here. Input beyond a bound raises `ConstraintCrdtError` and changes
nothing.
"""

import math
from decimal import Decimal
from operator import index
from typing import SupportsFloat, SupportsIndex

import msgspec

from constraint_crdt.errors import ConstraintCrdtError

ID_BYTES = 256
"""A constraint id, a node id or a fleet name, in UTF-8."""

WHEN_BYTES = 1024
"""The expression of a definition, in UTF-8."""

ABOUT_BYTES = 1024
"""The free text of a definition, in UTF-8."""

KEY_BYTES = 4 * (ID_BYTES + 1)
"""The key of a cell that is made of several parts, such as a tile's room, id and one element of it."""

CELL_BYTES = 32 * 1024
"""One encoded cell."""

PAGE_BYTES = 24 * 1024
"""One page of a tile's content, of a sketch or of a Bloom filter: what one cell carries of it."""

PAGES = 256
"""Of one sketch or Bloom filter: 6 MiB."""

TILE_BYTES = 1024 * 1024
"""The content of one tile."""

LABELS = 32
"""Of one node, or in one selector."""

HALF_LIVES = 8
"""At which one value decays side by side."""

DURATION_MAX = 10 * 365 * 86_400.0
"""Seconds: the longest half-life, and the longest time for which a constraint can be added."""

CANDIDATES = 128
"""Items that one row of a sketch remembers by name."""

MESSAGE_BYTES = 64 * 1024
"""One encoded message. A larger Delta, Sync or Ping travels in parts (`split_message`)."""

REPAIR_BYTES = 1024 * 1024
"""The cells that one attempt at a repair compares, on each side. What is left is for the next attempt."""

MAX_COUNT = 2**63 - 1
"""A cumulative count, a sequence number, an incarnation, a time in ns: what fits a signed 64-bit integer."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one node is willing to hold. Defaults suit a fleet of 10,000 on a small server."""

    rows: int = 65_536
    """Rows, and so clock entries: lives of nodes that ever wrote."""

    cells: int = 10_000_000
    """Cells that stand, over all rows."""

    staged_bytes: int = 64 * 1024 * 1024
    """Parts of transfers that are not complete yet, over all senders."""

    burst_bytes: int = 1024 * 1024
    """Parts of one large message sent in one go; the reader asks for the next ones."""

    kept_bytes: int = 64 * 1024 * 1024
    """Large messages, encoded, of which peers may still ask for the rest, over all peers. One that exceeds it is sent in one go."""

    conversations: int = 64
    """Peers whose recent clocks are kept, so that messages can name them instead of spelling them out. Least recent go first."""

    peers: int = 65_536
    """Peers whose last evidence is kept."""

    counters: int = 10_000
    """Names of counters, and as many of decaying counters, beyond which this node opens no further one."""

    tiles: int = 10_000
    """Tiles, deleted ones included, beyond which this node makes no further one. Those of others are taken all the same."""

    tile_elements: int = 1_000
    """Tags, constraints and counting names, each, of one tile, beyond which this node adds no further one."""

    foreign_nodes: int = 10_000
    """Foreign nodes whose increments are counted, over all rooms, beyond which this node takes in no further one's."""

    sketches: int = 64
    """Names of sketches beyond which this node begins no further one, and sketches that it reads."""

    blooms: int = 64
    """The same for Bloom filters."""


DEFAULT_LIMITS = Limits()


def whole_number(value: SupportsIndex, subject: str) -> int:
    """The value as an int: of any type with `__index__`, such as the integers of numpy.

    Raises `TypeError`, in a sentence about the subject, for any other type.
    """
    try:
        return index(value)
    except TypeError:
        raise TypeError(f"{subject} is a whole number, not {value!r}") from None


def real_number(value: SupportsFloat | SupportsIndex, subject: str) -> float:
    """The value as a float: of any type with `__float__` or `__index__`, such as `Decimal` and the scalars of numpy, but no text.

    Raises `TypeError`, in a sentence about the subject, for any other type, and `ConstraintCrdtError` for a number that is too
    large for a float.
    """
    if isinstance(value, str | bytes | bytearray) or not (hasattr(value, "__float__") or hasattr(value, "__index__")):
        raise TypeError(f"{subject} is a number, not {value!r}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    except (TypeError, ValueError):
        raise TypeError(f"{subject} is a number, not {value!r}") from None
    if math.isinf(number) and (isinstance(value, int) or (isinstance(value, Decimal) and value.is_finite())):
        raise ConstraintCrdtError(f"{subject} is too large for a number with 64 bits")
    return number
