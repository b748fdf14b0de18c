"""What a state holds, in the JSON of the PLATO contract.

A client holds text, so a tile whose content is not UTF-8 is not shown: what it would send back were another content.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Final

from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.plato.checking import MS
from constraint_crdt.plato.merging import ROOM_TILE
from constraint_crdt.plato.shapes import PlatoConstraints, PlatoMetrics, PlatoPosition, PlatoTile, Tag, fnv1a, signed_norm
from constraint_crdt.state import ConstraintState
from constraint_crdt.types.counter import ZERO, Counts
from constraint_crdt.types.tile import FleetTile

MOST_TOMBSTONES: Final = 10_000
"""Shown of one tile. Each node has an equal share, of its latest."""

HASHES_KEPT: Final = 10_000


class ContentHashes:
    """The FNV-1a hashes of contents shown lately, by their blake2b: they are slow to make, and a tile is shown often."""

    def __init__(self, most: int = HASHES_KEPT) -> None:
        self._most = most
        self._known: OrderedDict[bytes, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def knows(self, content_hash: bytes) -> bool:
        """True if `of` will answer at once."""
        return content_hash in self._known

    def of(self, content_hash: bytes, content: bytes) -> int:
        """The FNV-1a hash of a content with this blake2b."""
        found = self._known.pop(content_hash, None)
        if found is None:
            found = fnv1a(content)
        self._known[content_hash] = found
        if len(self._known) > self._most:
            self._known.popitem(last=False)
        return found


def plato_tile(
    tile: FleetTile, *, counted_besides: Mapping[str, Counts] | None = None, hashes: ContentHashes | None = None
) -> PlatoTile:
    """A tile as clients of the contract have it. Adds and counts of replicas of ours go by the text of the replica.

    `counted_besides`: counts by node that are not in the tile; of both the higher ones are shown. O(its cells and tombstones).
    Raises `ConstraintCrdtError` if the content is not text.
    """
    content = tile.content
    text = tile.text
    content_hash = fnv1a(content) if hashes is None else hashes.of(tile.content_hash if content else b"", content)
    return PlatoTile(
        id=tile.id,
        room=tile.room,
        content=text,
        tags=list(tile.tags),
        constraints=_constraints(tile),
        metrics=_metrics(tile.metrics.by_node(), counted_besides or {}),
        position=_position(tile),
        author=tile.author,
        created_at=tile.created // MS,
        updated_at=tile.updated // MS,
        content_hash=content_hash,
    )


def room_tile(state: ConstraintState, tile: FleetTile, hashes: ContentHashes) -> PlatoTile | None:
    """A tile of a state, with what deltas counted if it is the one that stands for its room. None if it cannot be shown."""
    counted = state.increments.by_node(tile.room) if tile.id == ROOM_TILE else {}
    try:
        return plato_tile(tile, counted_besides=counted, hashes=hashes) if tile.exists else None
    except ConstraintCrdtError:
        return None


def _constraints(tile: FleetTile) -> PlatoConstraints:
    elements = {element: sorted(tags) for element, tags in tile.constraints.by_element().items()}
    tombstones = tile.constraints.tombstones()
    latest = {node: stretches[-1][1] for node, stretches in tombstones.items() if stretches}
    for tags in elements.values():
        for node, seq in tags:
            latest[node] = max(seq, latest.get(node, 0))
    share = MOST_TOMBSTONES // max(len(tombstones), 1)
    shown = [tag for node, stretches in sorted(tombstones.items()) for tag in _last(node, stretches, share)]
    return PlatoConstraints(elements=elements, tombstones=shown, seq=dict(sorted(latest.items())))


def _last(node: str, stretches: tuple[tuple[int, int], ...], most: int) -> Iterator[Tag]:
    """The last tags of some stretches, as many as are to be shown: a stretch may have any number."""
    left = most
    for first, last in reversed(stretches):
        for seq in range(last, max(first - 1, last - left), -1):
            yield node, seq
        left -= min(left, last - first + 1)


def _metrics(counted: Mapping[str, Counts], besides: Mapping[str, Counts]) -> PlatoMetrics:
    counts: dict[str, int] = {}
    violations: dict[str, int] = {}
    for node in sorted({*counted, *besides}):
        here, there = counted.get(node, ZERO), besides.get(node, ZERO)
        satisfied, violated = max(here.satisfied, there.satisfied), max(here.violated, there.violated)
        if satisfied:
            counts[node] = satisfied
        if violated:
            violations[node] = violated
    return PlatoMetrics(counts=counts, violations=violations)


def _position(tile: FleetTile) -> PlatoPosition | None:
    position = tile.position
    if position is None:
        return None
    return PlatoPosition(
        position=position, timestamp=tile.position_time or 0, node=tile.position_by or "", norm=signed_norm(position)
    )
