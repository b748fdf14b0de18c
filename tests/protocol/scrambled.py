"""Content that packs badly, for tests that need a large message to stay large; and how large it is on its way."""

from base64 import b64encode
from hashlib import blake2b

from constraint_crdt.protocol.messages import GossipMessage, encode_message
from constraint_crdt.protocol.transfers import pack


def scrambled(text: str) -> str:
    """48 letters and digits that share nothing with those of another text."""
    return b64encode(blake2b(text.encode(), digest_size=36).digest()).decode()


def travelling(message: GossipMessage) -> int:
    """Bytes of a message on its way, without what cutting it costs."""
    data = encode_message(message)
    return len(pack(data) or data)
