"""The JSON of the PLATO contract: what the Rust crate's types (0.4.0) serialize to, field by field.

Field names are those of the JSON. What a sender has beyond them is ignored, as its own reader does.
"""

import msgspec

Tag = tuple[str, int]
"""An add to an OR-set: the node that made it, and which of its adds it was."""


class PlatoConstraints(msgspec.Struct, frozen=True, kw_only=True):
    """An OR-set of constraint ids."""

    elements: dict[str, list[Tag]]
    """The ids that are in, each with the tags of its adds."""
    tombstones: list[Tag]
    """The tags of the adds that were removed."""
    seq: dict[str, int]
    """The highest tag of each node."""


class PlatoMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """Cumulative counts by node."""

    counts: dict[str, int]
    """Evaluations that held."""
    violations: dict[str, int]
    """Evaluations that did not."""


class PlatoPosition(msgspec.Struct, frozen=True, kw_only=True):
    """A position on the Eisenstein lattice."""

    position: tuple[int, int]
    timestamp: int
    """When it was written, ns since the epoch."""
    node: str
    norm: int
    """a² - ab + b², as a signed 64-bit number."""


class PlatoTile(msgspec.Struct, frozen=True, kw_only=True):
    """One tile. Times in ms since the epoch."""

    id: str
    room: str
    content: str
    tags: list[str]
    constraints: PlatoConstraints
    metrics: PlatoMetrics
    position: PlatoPosition | None
    author: str
    created_at: int
    updated_at: int
    content_hash: int
    """FNV-1a of the content in UTF-8, 64 bits: see `fnv1a`."""


class PlatoRoom(msgspec.Struct, frozen=True, kw_only=True):
    """One room, as `GET /room/{id}` answers."""

    id: str
    tiles: list[PlatoTile]
    tile_count: int


class PlatoCounter(msgspec.Struct, frozen=True, kw_only=True):
    """Evaluations since the delta before this one."""

    node: str
    satisfied_delta: int
    violations_delta: int
    seq: int


class PlatoAdd(msgspec.Struct, frozen=True, kw_only=True):
    """A constraint was added, by the tag (node, seq)."""

    constraint_id: str
    node: str
    seq: int


class PlatoRemove(msgspec.Struct, frozen=True, kw_only=True):
    """A constraint was removed: the adds with these tags; if none is named, as the crate's tracker does, all adds known."""

    constraint_id: str
    tombstoned_tags: list[Tag]
    seq: int


class PlatoChange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Exactly one of these."""

    add: PlatoAdd | None = msgspec.field(name="Add", default=None)
    remove: PlatoRemove | None = msgspec.field(name="Remove", default=None)


class PlatoMove(msgspec.Struct, frozen=True, kw_only=True):
    """The position was moved."""

    old_norm: int
    new_norm: int
    position: tuple[int, int]
    node: str
    seq: int


class PlatoDelta(msgspec.Struct, frozen=True, kw_only=True):
    """What one node did since its delta before this one. A (node, seq) is taken in once, however often it is sent."""

    node: str
    seq: int
    counter: PlatoCounter
    constraints: list[PlatoChange]
    position: PlatoMove | None


FNV_OFFSET = 0xCBF29CE484222325
FNV_PRIME = 0x100000001B3
FNV_BITS = 2**64 - 1


def fnv1a(content: bytes) -> int:
    """FNV-1a of 64 bits (Fowler, Noll, Vo; draft-eastlake-fnv): the content hash of a tile. Some 0.13 s for 1 MiB."""
    found = FNV_OFFSET
    for byte in content:
        found = (found ^ byte) * FNV_PRIME & FNV_BITS
    return found


def signed_norm(position: tuple[int, int]) -> int:
    """The Eisenstein norm as a signed 64-bit number has it: coordinates near 2**31 exceed that, and it wraps around."""
    a, b = position
    return (a * a - a * b + b * b + 2**63) % 2**64 - 2**63
