"""Events and notices, the messages for followers of a node: an `Event` for each occurrence, a `Notice` for changed readings.

This module imports nothing of the node, so that clients can use it.
"""

import enum
from typing import Final

import msgspec

KEPT: Final = 10_000
"""How many of the last events a node keeps."""


class EventKind(enum.StrEnum):
    """What happened."""

    ADDED = "added"
    """A constraint became active."""
    CHANGED = "changed"
    """The definitions in force for a constraint changed."""
    REMOVED = "removed"
    """A constraint is no longer active: somebody removed it."""
    EXPIRED = "expired"
    """A constraint is no longer active: its time is over."""
    VIOLATED = "violated"
    """A constraint that held, or was undecided, is violated on this node."""
    SATISFIED = "satisfied"
    """A constraint that was violated on this node holds again."""
    PEER_UP = "peer up"
    PEER_DOWN = "peer down"
    DUPLICATE_NAME = "duplicate name"
    """Another live node bears this node's name."""
    DIVERGED = "diverged"
    """A peer has our clock and another hash: one of the two is corrupted."""
    REPAIRED = "repaired"
    """Cells here that differed from a peer's were repaired; the detail says how many since the start."""
    CLOCK_SKEW = "clock skew"
    """A peer's clock differs from this node's by more than the bound; the detail says how much it is ahead."""
    NEW_LIFE = "new life"
    """This node goes on under a new incarnation, since its former life may have written more than is known here."""
    RETIRED = "retired"
    """A node was retired for good."""
    TILE_PUT = "tile put"
    """A tile has another content, or is there again."""
    TILE_DELETED = "tile deleted"
    TROUBLE = "trouble"
    """Writes are refused: the detail says why."""
    RECOVERED = "recovered"
    """Writes are taken again."""
    ALERT = "alert"
    """A rule of this node's alerts fired; the detail says which, and why."""
    ALERT_RESOLVED = "alert resolved"
    """What it fired for is over."""
    MISSED = "missed"
    """This subscriber was too slow; the detail says how many events it lost."""


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that happened."""

    kind: EventKind
    time: int
    """ns since the epoch, by this node's clock."""
    constraint: str = ""
    node: str = ""
    room: str = ""
    tile: str = ""
    detail: str = ""


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """What readings are like now, and what moved since the last notice."""

    hash: str
    """Of the state, hex."""
    constraints_hash: str
    """Of the definitions that stand, hex."""
    version: int
    """Moves when readings change and the state does not. Within one start of a node it only grows."""
    constraints: tuple[str, ...] | None
    """Those that moved, ordered; None if they are many."""
    nodes: tuple[str, ...] | None
    """Those that wrote, came, went or gave evidence; None if they are many."""
