"""The key expressions of the fleet on Zenoh, and the way back from a key to a peer.

    constraint-crdt/<fleet>/node/<name>/<session>     where a node answers requests
    constraint-crdt/<fleet>/alive/<name>/<session>    its liveliness token

Names may hold any character: each becomes exactly one chunk, percent-encoded, and back without loss.
"""

import re
from urllib.parse import quote, unquote

from constraint_crdt.engine.transport import Peer

_ROOT = "constraint-crdt"
_SESSION = re.compile(r"[0-9a-f]{24}")


def node_key(fleet: str, peer: Peer) -> str:
    """Where `peer` answers."""
    return f"{_ROOT}/{_chunk(fleet)}/node/{_chunk(peer.name)}/{peer.session}"


def alive_key(fleet: str, peer: Peer) -> str:
    """The token that says `peer` is there."""
    return f"{_ROOT}/{_chunk(fleet)}/alive/{_chunk(peer.name)}/{peer.session}"


def alive_keys(fleet: str) -> str:
    """The expression that matches every token of the fleet."""
    return f"{_ROOT}/{_chunk(fleet)}/alive/*/*"


def peer_of(alive: str) -> Peer | None:
    """The peer a token's key speaks of; None for a key that no node of ours would have made."""
    chunks = alive.split("/")
    if len(chunks) != 5 or not _SESSION.fullmatch(chunks[4]):
        return None
    try:
        name = unquote(chunks[3], errors="strict")
    except UnicodeDecodeError:
        return None
    return Peer(name, chunks[4]) if name and _chunk(name) == chunks[3] else None


def _chunk(text: str) -> str:
    return quote(text, safe="")
