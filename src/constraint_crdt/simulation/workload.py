"""What nodes do of their own while a history runs: a mix of all mutations, on few enough ids that they meet."""

from collections.abc import Callable, Sequence

from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.simulation.links import Chance
from constraint_crdt.simulation.steps import (
    Add,
    AnyStep,
    Count,
    Decay,
    Expire,
    Fold,
    FoldRates,
    Increment,
    Insert,
    Move,
    Rate,
    Record,
    Remove,
    Tally,
    Tile,
)

IDS = ("x", "y", "z", "xy", "fence")
DEFINITIONS = ((None, None), (None, None), ("v <= 1.0", None), ("v <= 2.0", None), (None, "seen"))
"""(when, about); the bare one twice, so that nodes come to write the same."""

LIFETIMES = (None, None, None, 0.5, 3.0)
"""In seconds; most constraints have none."""

COUNTERS = ("parts", "doors")
TILES = ("t1", "t2")
TILE_ACTS = ("put", "put", "put", "tag", "tag", "untag", "delete", "restore", "purge")
TEXTS = ("one", "two", "three")

SKETCHES = (*(("violations", 7, 2),) * 5, ("violations", 9, 2), ("wide", 257, 2))
"""(name, width, depth): mostly tiny; now and then in other dimensions, or of more than one page."""

BLOOMS = (*(("seen", 8, 0.1),) * 5, ("seen", 9, 0.1), ("many", 900, 0.01))
"""(name, items expected, rate of wrong findings), in the same manner."""

ITEMS = ("dock", "lift", "gate", "ramp", "belt")
HALF_LIVES = (*((1.0, 8.0),) * 4, (0.5, 8.0))
"""In seconds, as long as a history and shorter. Some nodes come to track others."""

DECAYING = ("heat", "wear")
AMOUNTS = (0.5, 1.0, 3.0)

CLIENTS = (("pda", 0), ("kiosk", 2030))
"""PLATO clients, and the first seq of each: one so that its increments go on to another page."""

LOST = 0.1
"""The probability that an increment never comes, for good or until much later."""

REPEATED = 0.35
"""The probability that a client sends one again, to whomever."""

QUEUES = 0.08
"""The share of histories in which one client sends many increments at once: so many that they are taken together."""

QUEUED = 40
"""The most that it then sends at once."""

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
    ("tally", 4),
    ("insert", 3),
    ("rate", 4),
    ("fold rates", 1),
    ("decay", 2),
    ("increment", 4),
)
SUMMARIES = frozenset(("tally", "insert", "rate", "fold rates", "decay", "increment"))
_DRAWN = [kind for kind, share in _MIX for _ in range(share)]


class Workload:
    """What the nodes of one history are asked to write, and where its clients are."""

    def __init__(self, chance: Chance) -> None:
        self._chance = chance
        self._next = dict(CLIENTS)
        queues = chance.happens(QUEUES)
        self._clients = (chance.pick(CLIENTS),) if queues else CLIENTS
        self._most = QUEUED if queues else 2

    def draw(self, node: GossipNode) -> Write:
        """The next mutation of a node."""
        what = self._chance.pick(_DRAWN)
        kind, how = self._draw_summary(what) if what in SUMMARIES else _draw(what, node, self._chance)
        if self._chance.happens(UNSAVED):
            how["unsaved"] = True
        return kind, how

    def _draw_summary(self, what: str) -> Write:
        chance = self._chance
        if what == "tally":
            name, width, depth = chance.pick(SKETCHES)
            return Tally, {"name": name, "width": width, "depth": depth, "item": chance.pick(ITEMS), "count": chance.between(0, 3)}
        if what == "insert":
            name, expected, wrong = chance.pick(BLOOMS)
            return Insert, {"name": name, "expected": expected, "wrong": wrong, "item": chance.pick(ITEMS)}
        if what == "rate":
            counts = {"satisfied": chance.below(4), "violated": chance.below(3)}
            return Rate, {"id": chance.pick((None, *IDS[:2])), "half_lives": chance.pick(HALF_LIVES), **counts}
        if what == "fold rates":
            return FoldRates, {"ids": IDS[:2]}
        if what == "decay":
            return Decay, {"name": chance.pick(DECAYING), "half_life": chance.pick((1.0, 8.0)), "amount": chance.pick(AMOUNTS)}
        return Increment, self._draw_increment()

    def _draw_increment(self) -> dict[str, object]:
        """The next ones of a client; or one that it sent, or lost, before."""
        chance = self._chance
        client, first = chance.pick(self._clients)
        seq, more = self._next[client], chance.below(self._most)
        if seq > first and chance.happens(REPEATED):
            seq, more = chance.between(max(first, seq - 8), seq - 1), 0
        else:
            seq += chance.happens(LOST)
            self._next[client] = seq + more + 1
        (satisfied, violated), *others = [_counted(each) for each in range(seq, seq + more + 1)]
        return {"client": client, "seq": seq, "satisfied": satisfied, "violated": violated, "more": tuple(others)}


def _counted(seq: int) -> tuple[int, int]:
    """What any client counted with this number: the same each time that it sends it."""
    return seq % 4, seq % 3


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
