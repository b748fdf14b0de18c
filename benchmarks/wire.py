"""Exchanges through bytes: every message encoded, cut into parts where it is too large, decoded and received, and counted."""

from collections import deque
from collections.abc import Iterable

from constraint_crdt import GossipNode
from constraint_crdt.protocol.messages import GossipMessage, decode_message, encode_message
from constraint_crdt.protocol.transfers import PACK_FROM, split_message

MESSAGE_BYTES = 64 * 1024


def packets(message: GossipMessage) -> list[bytes]:
    """A message as what is sent: itself, or parts of at most 64 KiB, packed where that pays."""
    data = encode_message(message)
    return [data] if len(data) <= PACK_FROM else [encode_message(part) for part in split_message(message, MESSAGE_BYTES)]


def exchange_bytes(a: GossipNode, b: GossipNode, first: GossipMessage | None = None) -> list[tuple[str, int]]:
    """An exchange that `a` begins (with `first`, if given). What travelled, in order: (type of message, bytes)."""
    sent: list[tuple[str, int]] = []
    waiting = deque([(b, first or a.begin(b.node_id))])
    while waiting:
        reader, message = waiting.popleft()
        other = a if reader is b else b
        size = 0
        for data in packets(message):
            size += len(data)
            waiting.extend((other, response) for response in reader.receive(decode_message(data)).responses)
        sent.append((type(message).__name__, size))
    return sent


def total(sent: Iterable[tuple[str, int]]) -> int:
    """All bytes of an exchange."""
    return sum(size for _, size in sent)


def by_message(sent: Iterable[tuple[str, int]]) -> str:
    """The bytes of an exchange split by message, for people."""
    return " + ".join(f"{name} {size:,}" for name, size in sent)
