"""How a list of replies travels: in pages that fit the send queue, each asked for by the one who wants it.

Zenoh drops what does not fit its queue (blocking would freeze the loop), so a long list sent at once would lose parts.
Rules:
1. The first page answers the request. The rest waits on the responder's `Shelf`, under a random token, until the
   requester asks for the page that starts at the index it has come to.
2. Every reply carries token, position, the end of its page and the length of the list, so a gap is seen; a page counts
   up to its first gap, and what is missing is asked for again. An empty list is one empty reply of length 0.
3. Both sides are bounded: the shelf in lists and time, a page in bytes and number.
"""

import secrets
import struct
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from constraint_crdt.engine.transport import MAX_PAYLOAD

PAGE_BYTES = 512 * 1024
PAGE_REPLIES = 256
SHELF_LISTS = 32
SHELF_SECONDS = 30.0

_HEADER = struct.Struct("!8sIII")
_TURN = struct.Struct("!8sI")


class Header(NamedTuple):
    """What goes with each reply."""

    token: bytes
    position: int
    end: int
    total: int


def encode_turn(token: bytes, start: int) -> bytes:
    """The attachment of a request for the page of `token` that starts at index `start`."""
    return _TURN.pack(token, start)


class Shelf:
    """The responder's lists of which somebody may still want a page. Time is given, in seconds of any steady clock."""

    def __init__(self) -> None:
        self._lists: OrderedDict[bytes, tuple[float, Sequence[bytes]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._lists)

    def first_page(self, replies: Sequence[bytes], now: float) -> list[tuple[bytes, bytes]]:
        """The (header, payload) pairs that answer a request, keeping the rest for later."""
        token = secrets.token_bytes(8)
        end = _page_end(replies, 0)
        self._tidy(now)
        if end < len(replies):
            self._lists[token] = (now, replies)
            if len(self._lists) > SHELF_LISTS:
                self._lists.popitem(last=False)
        return _page(token, replies, 0, end)

    def next_page(self, turn: bytes, now: float) -> list[tuple[bytes, bytes]] | None:
        """The page that `turn` asks for, or None when there is none such. The last page frees the list."""
        self._tidy(now)
        if len(turn) != _TURN.size:
            return None
        token, start = _TURN.unpack(turn)
        held = self._lists.get(token)
        if held is None or start >= len(held[1]):
            return None
        replies = held[1]
        end = _page_end(replies, start)
        if end == len(replies):
            del self._lists[token]
        else:
            self._lists[token] = (now, replies)
            self._lists.move_to_end(token)
        return _page(token, replies, start, end)

    def _tidy(self, now: float) -> None:
        """Forget lists whose requester has not come back; the oldest stand first."""
        while self._lists:
            token, (since, _) = next(iter(self._lists.items()))
            if now - since <= SHELF_SECONDS:
                return
            del self._lists[token]


class Page:
    """The requester's side of one page. `add` is called in a network thread, everything else after the last `add`."""

    def __init__(self, start: int) -> None:
        self._next = start
        self._bytes = 0
        self.header: Header | None = None
        self.payloads: list[bytes] = []

    def add(self, attachment: bytes, payload: bytes) -> bool:
        """Take a reply over if it is the next one; True once the page is whole."""
        if len(attachment) != _HEADER.size:
            return False
        header = Header(*_HEADER.unpack(attachment))
        if self.header is not None and header.token != self.header.token:
            return False
        self.header = header
        fits = len(self.payloads) < PAGE_REPLIES and self._bytes + len(payload) <= PAGE_BYTES + MAX_PAYLOAD
        if header.position == self._next < header.end and fits:
            self.payloads.append(payload)
            self._bytes += len(payload)
            self._next += 1
        return self._next == header.end


def _page_end(replies: Sequence[bytes], start: int) -> int:
    size, end = 0, start
    while end < len(replies) and end - start < PAGE_REPLIES and (end == start or size + len(replies[end]) <= PAGE_BYTES):
        size += len(replies[end])
        end += 1
    return end


def _page(token: bytes, replies: Sequence[bytes], start: int, end: int) -> list[tuple[bytes, bytes]]:
    total = len(replies)
    if not total:
        return [(_HEADER.pack(token, 0, 0, 0), b"")]
    return [(_HEADER.pack(token, index, end, total), replies[index]) for index in range(start, end)]
