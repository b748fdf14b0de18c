"""Where an item falls: independent hash values of a text, the same on every machine and in every version.

The values are the 64-bit little-endian words of blake2b with 64 bytes over the item's UTF-8: words 0 to 7 of the plain hash, words
8 to 15 of the one with the salt 1, and so on. So each is independent of the others, where values derived from two of them (Kirsch
and Mitzenmacher, 2006) raise the rate of a Bloom filter of 100 items by 15 %. Stored tables depend on this: it never changes.
"""

from hashlib import blake2b
from struct import Struct
from typing import Final

from constraint_crdt.errors import ConstraintCrdtError

WORDS: Final = 8
_words: Final = Struct("<8Q").unpack


def positions(item: str, count: int, size: int) -> list[int]:
    """`count` independent positions of an item, each from 0 to `size` - 1, at most by 1 in 2**40 from evenly spread.

    Raises `TypeError` for what is no text and `ConstraintCrdtError` for what is not valid Unicode.
    """
    data = _encoded(item)
    words = _words(blake2b(data).digest())
    if count > WORDS:
        for block in range(1, -(-count // WORDS)):
            words += _words(blake2b(data, salt=block.to_bytes(8, "little")).digest())
    return [word % size for word in words[:count]]


def _encoded(item: str) -> bytes:
    if not isinstance(item, str):
        raise TypeError(f"an item is a text, not {item!r}")
    try:
        return item.encode()
    except UnicodeEncodeError:
        raise ConstraintCrdtError(f"the item {item!r} is not valid Unicode text") from None
