"""The bounds of the pure core, each with its default, and the checks of numbers given by callers.

All data that input from outside can make grow has a bound here. Input beyond a bound raises `ConstraintCrdtError` and changes
nothing.
"""

import math
from decimal import Decimal
from operator import index
from typing import SupportsFloat, SupportsIndex

import msgspec

from constraint_crdt.errors import ConstraintCrdtError, InvalidType

ID_BYTES = 256
"""A constraint id, a node id or a fleet name, in UTF-8."""

WHEN_BYTES = 1024
"""The expression of a definition, in UTF-8."""

ABOUT_BYTES = 1024
"""The free text of a definition, in UTF-8."""

KEY_BYTES = 4 * (ID_BYTES + 1)
"""A key of several parts, such as room, id and element of a tile."""

CELL_BYTES = 32 * 1024
"""An encoded cell."""

PAGE_BYTES = 24 * 1024
"""A page of a tile's content, of a sketch or of a Bloom filter: the part in a single cell."""

PAGES = 256
"""Pages of a sketch or Bloom filter: 6 MiB."""

TILE_BYTES = 1024 * 1024
"""The content of a tile."""

SEPARATOR = "\x1f"
"""Joins the parts of a key, so no part but the last contains it."""

COORDINATE_MIN = -(2**31)
COORDINATE_MAX = 2**31 - 1
"""Of a position."""

HALF_LIFE_MIN = 0.001
"""Seconds: the shortest half-life."""

LABELS = 32
"""Labels of a node, or in a selector."""

HALF_LIVES = 8
"""Half-lives of a single decaying value."""

DURATION_MAX = 10 * 365 * 86_400.0
"""Seconds: the longest half-life, and the longest time for which a constraint can be added."""

CANDIDATES = 128
"""Items remembered by name in a row of a sketch."""

MESSAGE_BYTES = 64 * 1024
"""An encoded message. A larger Delta, Sync or Ping travels in parts (`split_message`)."""

UNPACKED_BYTES = 64 * 1024 * 1024
"""A message after decompression; a message that travels in more than `LARGE_BYTES` may become more, see `UNPACKED_GROWTH`."""

LARGE_BYTES = 1024 * 1024
"""The first bytes of a compressed message that allow for no growth beyond `UNPACKED_BYTES`."""

UNPACKED_GROWTH = 16
"""Bytes beyond `UNPACKED_BYTES` that each further compressed byte may expand to."""

REPAIR_BYTES = 1024 * 1024
"""The cells compared by an attempt at a repair, on each side. The next attempt continues."""

MAX_COUNT = 2**63 - 1
"""The largest cumulative count, sequence number, incarnation and time in ns: a signed 64-bit integer."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of a node. Defaults suit a fleet of 10,000 on a small server."""

    rows: int = 65_536
    """Rows, and so clock entries: lives of nodes with a write."""

    cells: int = 10_000_000
    """Standing cells, over all rows."""

    staged_bytes: int = 256 * 1024 * 1024
    """Parts of incomplete transfers, over all senders. The memory is taken as the parts arrive."""

    message_items: int = 262_144
    """Items of a message: cells, remains of cells, runs and clock entries. A further item is allowed per byte as it travels."""

    burst_bytes: int = 1024 * 1024
    """Parts of a large message sent at once; the reader asks for the next ones."""

    kept_bytes: int = 256 * 1024 * 1024
    """Large encoded messages kept for peers that may ask for the rest, over all peers. A larger message is sent at once."""

    conversations: int = 4096
    """Peers whose recent clocks are cached, so messages can name them instead of spelling them out. The least recent go first."""

    conversation_entries: int = 262_144
    """Entries of these clocks, a clock for each of the peers: of long clocks fewer are cached, 64 at least."""

    links: int = 1_024
    """Peers whose link is measured: round trip, rate, loss. The least recently used are measured anew."""

    peers: int = 65_536
    """Peers with kept evidence."""

    counters: int = 10_000
    """Names of counters, and as many of decaying counters; this node opens no further name."""

    tiles: int = 10_000
    """Tiles, deleted ones included; this node makes no further tile. Tiles of other nodes are taken in all the same."""

    tile_elements: int = 1_000
    """Tags, constraints and counting names, each, of a tile; this node adds no further element."""

    foreign_nodes: int = 10_000
    """Foreign nodes with counted increments, over all rooms; this node takes in no further foreign node."""

    sketches: int = 64
    """Names of sketches, and sketches read; this node begins no further sketch."""

    blooms: int = 64
    """The same for Bloom filters."""

    stubs: int = 1_024
    """Cells of the own signed row removed by others, from which on the node ends their digests (docs/design/authority.md)."""


DEFAULT_LIMITS = Limits()


def whole_number(value: SupportsIndex, subject: str) -> int:
    """The value as an int: of any type with `__index__`, such as the integers of numpy.

    Raises `TypeError`, in a sentence about the subject, for any other type.
    """
    try:
        return index(value)
    except TypeError:
        raise InvalidType(f"{subject} is a whole number, not {value!r}") from None


def real_number(value: SupportsFloat | SupportsIndex, subject: str) -> float:
    """The value as a float: of any type with `__float__` or `__index__`, such as `Decimal` and the scalars of numpy, but no
    text.

    Raises `TypeError`, in a sentence about the subject, for any other type, and `ConstraintCrdtError` for a number too large for
    a float.
    """
    if isinstance(value, str | bytes | bytearray) or not (hasattr(value, "__float__") or hasattr(value, "__index__")):
        raise InvalidType(f"{subject} is a number, not {value!r}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    except (TypeError, ValueError):
        raise InvalidType(f"{subject} is a number, not {value!r}") from None
    if math.isinf(number) and (isinstance(value, int) or (isinstance(value, Decimal) and value.is_finite())):
        raise ConstraintCrdtError(f"{subject} is too large for a number with 64 bits")
    return number
