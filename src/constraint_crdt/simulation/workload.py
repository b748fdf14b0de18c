"""What nodes do of their own while a history runs: a mix of all mutations, on few enough ids that they meet."""

from collections.abc import Callable, Sequence

from constraint_crdt.gossip.protocol import GossipNode
from constraint_crdt.simulation.chance import Chance
from constraint_crdt.simulation.steps import Add, AnyStep, Count, Expire, Fold, Move, Record, Remove, Tile

IDS = ("x", "y", "z", "xy", "fence")
DEFINITIONS = ((None, None), (None, None), ("v <= 1.0", None), ("v <= 2.0", None), (None, "seen"))
"""(when, about); the bare one twice, so that nodes come to write the same."""

LIFETIMES = (None, None, None, 0.5, 3.0)
"""In seconds; most constraints have none."""

COUNTERS = ("parts", "doors")
TILES = ("t1", "t2")
TILE_ACTS = ("put", "put", "put", "tag", "tag", "untag", "delete", "restore", "purge")
TEXTS = ("one", "two", "three")

UNSAVED = 0.3
"""The probability that a write is not acknowledged at once."""

Write = tuple[Callable[..., AnyStep], dict[str, object]]
"""A kind of step, and what it needs."""

_MIX: Sequence[tuple[str, int]] = (
    ("add", 30),
    ("remove", 22),
    ("record", 30),
    ("fold", 6),
    ("move", 8),
    ("expire", 5),
    ("count", 6),
    ("tile", 12),
)
_DRAWN = [kind for kind, share in _MIX for _ in range(share)]


def draw_write(node: GossipNode, chance: Chance) -> Write:
    """The next mutation of a node."""
    kind, what = _draw(chance.pick(_DRAWN), node, chance)
    if chance.happens(UNSAVED):
        what["unsaved"] = True
    return kind, what


def _draw(what: str, node: GossipNode, chance: Chance) -> Write:
    active = sorted(node.state.constraints)
    if what == "remove" and active:
        return Remove, {"id": chance.pick(active)}
    if what == "record":
        id_ = chance.pick((None, *IDS))
        return Record, {"id": id_, "satisfied": chance.below(4), "violated": chance.below(3)}
    if what == "fold":
        return Fold, {"ids": tuple(id_ for id_ in IDS if chance.happens(0.5))}
    if what == "move":
        return Move, {"a": chance.between(-3, 3), "b": chance.between(-3, 3)}
    if what == "expire":
        return Expire, {}
    if what == "count":
        return Count, {"name": chance.pick(COUNTERS), "by": chance.pick((1, 2, -1, -3))}
    if what == "tile":
        return Tile, {"tile": chance.pick(TILES), "act": chance.pick(TILE_ACTS), "text": chance.pick(TEXTS)}
    when, about = chance.pick(DEFINITIONS)
    return Add, {"id": chance.pick(IDS), "when": when, "about": about, "ttl": chance.pick(LIFETIMES)}
