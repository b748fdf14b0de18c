"""The content of a tile, in pages: a header with its hash, and as many pages as it takes, all in one row and transaction.

Transfers are applied whole, so header and pages always come together from honest nodes. A content whose pages are missing, or do
not give what its hash says, is *damaged* and reads as nothing.
"""

import hashlib

from constraint_crdt.core.cells import SEPARATOR, Cell, make_cell, value_of
from constraint_crdt.core.limits import PAGE_BYTES, TILE_BYTES
from constraint_crdt.core.rows import Rows
from constraint_crdt.core.values import CONTENT, CONTENT_HASH_BYTES, CONTENT_PAGE, ContentValue
from constraint_crdt.errors import ConstraintCrdtError


def hash_content(content: bytes) -> bytes:
    """blake2b, 32 bytes."""
    return hashlib.blake2b(content, digest_size=CONTENT_HASH_BYTES).digest()


def encode_content(content: str | bytes) -> bytes:
    """What is stored of it. Raises `TypeError` for what is neither text nor bytes, `ConstraintCrdtError` for too much of it."""
    if isinstance(content, str):
        try:
            content = content.encode()
        except UnicodeEncodeError:
            raise ConstraintCrdtError("the content of a tile is bytes or valid Unicode text") from None
    elif not isinstance(content, bytes | bytearray):
        raise TypeError(f"the content of a tile is text or bytes, not {type(content).__name__}")
    if len(content) > TILE_BYTES:
        raise ConstraintCrdtError(f"the content of a tile has at most {TILE_BYTES} bytes, not {len(content)}")
    return bytes(content)


def content_cells(key: str, content: bytes, time: int) -> list[Cell]:
    """The cells that make this the content of a tile in one row."""
    cells = [make_cell(CONTENT, key, [time, len(content), hash_content(content)])]
    for number, start in enumerate(range(0, len(content), PAGE_BYTES)):
        cells.append(make_cell(CONTENT_PAGE, _page_key(key, number), content[start : start + PAGE_BYTES]))
    return cells


def read_content(rows: Rows, header: Cell) -> bytes | None:
    """The content that a header stands for; None if it is damaged. O(content)."""
    value: ContentValue = value_of(header)
    pages: list[bytes] = []
    left = value.size
    while left > 0:
        page = rows.get(CONTENT_PAGE, _page_key(str(header.key), len(pages)), header.replica)
        if page is None:
            return None
        pages.append(value_of(page))
        left -= len(pages[-1])
    content = b"".join(pages)
    return content if left == 0 and hash_content(content) == value.hash else None


def _page_key(key: str, number: int) -> str:
    return f"{key}{SEPARATOR}{number}"
