"""The kinds of cells, and what a cell of each kind says: its value.

Values are arrays on the wire. Elements may be added at the end of one; a reader that does not know them ignores them. What bounds
a value has is in `shapes`.
"""

from typing import Final

import msgspec

from constraint_crdt.crdt.replica import Replica

ADD: Final = 1
REMOVE: Final = 2
COUNTS: Final = 3
POSITION: Final = 4
NODE: Final = 5
RETIRE: Final = 6
COUNTER: Final = 7
DECAY: Final = 8
RATE: Final = 9
SKETCH: Final = 10
SKETCH_PAGE: Final = 11
BLOOM: Final = 12
BLOOM_PAGE: Final = 13
TILE: Final = 14
CONTENT: Final = 15
CONTENT_PAGE: Final = 16
ELEMENT: Final = 17
TOMBSTONES: Final = 18
TILE_COUNTS: Final = 19
TILE_POSITION: Final = 20
DELETED: Final = 21
INCREMENTS: Final = 22
APPLIED: Final = 23

SEVERITIES: Final = 3
CONTENT_HASH_BYTES: Final = 32
STRETCH_LEVELS: Final = 63
"""The highest level of a stretch: one that all seqs fit into."""

REMOVABLE: Final = frozenset(
    (ADD, COUNTS, RATE, TILE, CONTENT, CONTENT_PAGE, ELEMENT, TOMBSTONES, TILE_COUNTS, TILE_POSITION, DELETED, INCREMENTS, APPLIED)
)
"""The kinds of cells that a removal may name. The others are only ever taken over by their own row."""


class WireDot(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A dot inside a cell's value."""

    node_id: str
    incarnation: int
    seq: int

    @property
    def replica(self) -> Replica:
        return Replica(self.node_id, self.incarnation)


Label = tuple[str, str]
"""What a node is labelled with, and what a definition may ask for: a key and its value."""


class DefinitionValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of an ADD cell."""

    when: str | None = None
    severity: int = 1
    about: str | None = None
    on: tuple[Label, ...] = ()
    """Labels that a node must have for the definition to apply to it; ordered by key."""
    expires_at: int | None = None
    """ns since the epoch."""
    added_at: int | None = None
    """ns since the epoch, by the writer's clock."""


class PositionValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of a POSITION or TILE_POSITION cell; `overwrites` names the cells that it supersedes."""

    a: int
    b: int
    time: int
    overwrites: tuple[WireDot, ...] = ()
    by: str = ""
    """Who wrote it, if that was somebody outside of the fleet."""


class NodeValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of a NODE cell."""

    software: str
    wire: int
    endpoints: tuple[str, ...] = ()
    labels: tuple[Label, ...] = ()


class RetireValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of a RETIRE cell: lives that are over, each with the highest seq of it that the writer knew."""

    whole_node: bool
    """The node itself is retired, in all of its lives; else only these lives, which the node went on from."""
    lives: tuple[WireDot, ...]


class RemovedValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One element of the value of a REMOVE cell: the dots of cells of one kind under one key."""

    key: str
    dots: tuple[WireDot, ...]
    kind: int = ADD


class DecayedValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One number that decays, as it stood at the time of its cell."""

    half_life: float
    """Seconds."""
    value: float


class DecayValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of a DECAY cell: one number at one or more half-lives."""

    time: int
    """ns since the epoch."""
    values: tuple[DecayedValue, ...]


class RatedValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Evaluations of one constraint at one half-life, decayed to the time of their cell."""

    half_life: float
    satisfied: float
    violated: float


class RateValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of a RATE cell."""

    time: int
    values: tuple[RatedValue, ...]


class SketchValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of a SKETCH cell: the shape of the table, and what its row counts besides."""

    width: int
    depth: int
    total: int
    """What this row recorded in all."""
    candidates: tuple[tuple[str, int], ...] = ()
    """Items that are frequent in this row, each with the row's own estimate."""
    saturated: bool = False
    """A counter of this row has reached the highest value, so estimates may be too low from there on."""


class BloomValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of a BLOOM cell: the shape of the filter, and how many bits this row has set."""

    bits: int
    hashes: int
    expected: int
    inserted: int
    """Insertions of this row that set a bit."""


class TileValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of a TILE cell: when and by whom a tile was created, as its writer knew."""

    created: int
    """ns since the epoch."""
    author: str


class ContentValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of a CONTENT cell. The content itself is in CONTENT_PAGE cells of the same row, unless it is empty."""

    time: int
    """Hybrid logical time, ns since the epoch."""
    size: int
    """Bytes."""
    hash: bytes
    """blake2b, 32 bytes, of the whole content."""


class DeletedValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of a DELETED cell: the CONTENT cells of a tile that whoever deleted it had seen."""

    time: int
    seen: tuple[WireDot, ...]


Interval = tuple[int, int]
"""First and last seq of a stretch."""


class StretchValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What the increments of 2**level seqs, from `first` on, make up together; `first` is a multiple of 2**level."""

    first: int
    level: int
    satisfied: int
    violated: int


AppliedValue = tuple[StretchValue, ...]
"""The value of an APPLIED cell: increments of one foreign node, taken together where seqs follow each other without a gap."""
