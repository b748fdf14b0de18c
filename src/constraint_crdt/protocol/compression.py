"""Packing: a large message carried compressed, where that pays.

Rules kept here:

- A message within a page is carried as it is: what is gained there is less than what saying so costs.
- A larger one is packed if it becomes smaller by a tenth or more. States of many constraints become a quarter, or less.
- Whoever unpacks believes nothing: the size is stated beforehand and checked against the bounds, no more than that is ever
  unpacked, and anything but exactly that is refused. One that would grow beyond `MOST_GROWTH` is taken for a bomb, so none is sent.

DEFLATE (RFC 1951) in the form of zlib (RFC 1950), whose checksum notices damage. At its quickest level Zstandard made the
definitions of 2,000 constraints 11 % smaller than this: not enough for a dependency.
"""

import zlib

from constraint_crdt.errors import ConstraintCrdtError

PACK_FROM = 4096
"""Bytes beyond which a message may be packed."""

PAYS_BELOW = 0.9
"""Of its size: what a packed message must be smaller than."""

MOST_GROWTH = 100
"""Bytes that a packed byte may become."""

LEVEL = 1
"""The quickest: some 4 ms per megabyte of constraints, a fortieth of what the reader spends on it."""


def pack(data: bytes) -> bytes | None:
    """An encoded message compressed, or None where it is to be carried as it is."""
    if len(data) <= PACK_FROM:
        return None
    packed = zlib.compress(data, LEVEL)
    pays = len(packed) < len(data) * PAYS_BELOW and len(data) <= len(packed) * MOST_GROWTH
    return packed if pays else None


def unpack(packed: bytes, size: int) -> bytes:
    """What was packed. `size`: what it is said to become; no more than a byte beyond it is ever held.

    Raises `ConstraintCrdtError` for a size that packing does not lead to, and if the content is damaged or becomes another size.
    """
    check_growth(len(packed), size)
    inflating = zlib.decompressobj()
    try:
        data = inflating.decompress(packed, size + 1)
    except zlib.error as error:
        raise ConstraintCrdtError(f"a packed message is damaged: {error}") from error
    if len(data) != size or not inflating.eof or inflating.unused_data:
        raise ConstraintCrdtError(f"a packed message does not become the {size} bytes that it is said to be")
    return data


def check_growth(packed: int, size: int) -> None:
    """Raise `ConstraintCrdtError` if so many packed bytes cannot rightly become so many."""
    if not packed < size <= packed * MOST_GROWTH:
        raise ConstraintCrdtError(f"a packed message of {packed} bytes is said to become {size}: that is refused")
