"""Tiles against the plain model: random histories of three replicas, with deltas delayed, doubled and out of order."""

import os
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constraint_crdt import Replica
from constraint_crdt.crdt.cells import Run
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.types.tiles import FleetTile, FleetTiles

from .tile_model import Tag, TileModel, Write

NIGHTLY = os.environ.get("CONSTRAINT_CRDT_BUDGET") == "nightly"
HISTORIES = 2000 if NIGHTLY else 15
PLACES = [("r", "x"), ("r", "x\ny")]
NAMES = ["c", "d"]
REPLICAS = [Replica(name, 1) for name in "abc"]
CONTENTS = [b"", b"one", b"\x00" * 30_000, b"two" * 9_000]
"""Of no page, one and two."""

WRITES = [
    "put",
    "put",
    "delete",
    "restore",
    "purge",
    "tag",
    "untag",
    "constrain",
    "free",
    "foreign",
    "bury",
    "record",
    "other",
    "move",
]
steps = st.lists(
    st.tuples(
        st.sampled_from([*WRITES, "send", "send", "deliver", "deliver", "merge", "merge", "collect"]),
        st.integers(0, 2),
        st.integers(0, 1),
        st.integers(0, 5),
        st.integers(0, 5),
    ),
    min_size=15,
    max_size=60,
)


@dataclass
class Letter:
    """A delta on its way, and what whoever sent it knew."""

    runs: list[Run]
    base: dict[Replica, int] | None
    """What it builds on; None for a sync."""
    known: frozenset[Write]


@dataclass
class Fleet:
    """Three replicas, each beside its model."""

    tiles: list[FleetTiles] = field(default_factory=lambda: [FleetTiles(Rows()) for _ in REPLICAS])
    models: list[TileModel] = field(default_factory=lambda: [TileModel(str(replica)) for replica in REPLICAS])
    bag: list[Letter] = field(default_factory=list)
    ours: list[Tag] = field(default_factory=lambda: [("z~1", 1)])
    """Tags of adds of ours, wherever they are known."""

    def step(self, what: str, at: int, tile: int, x: int, y: int) -> None:
        if what in WRITES:
            self.write(what, at, tile, x, y)
        elif what == "send":
            self.send(at, x)
        elif what == "deliver" and self.bag:
            self.deliver(self.bag[x % len(self.bag)], at)
        elif what == "merge":
            other = (at + 1 + x % 2) % 3
            self.tiles[at].merge(self.tiles[other])
            self.models[at].known |= self.models[other].known
        elif what == "collect":
            self.tiles[at]._rows.collect()
        self.compare(at)

    def send(self, at: int, x: int) -> None:
        """A delta for what another replica has at this moment, or a sync; whoever gets it may be elsewhere by then."""
        rows, base = self.tiles[at]._rows, self.tiles[x % 3]._rows.clock_mark.entries
        whole = x > 3 or not rows.serves(base)
        runs = rows.whole() if whole else rows.since(base)
        self.bag.append(Letter(runs, None if whole else dict(base), frozenset(self.models[at].known)))

    def deliver(self, letter: Letter, at: int) -> None:
        rows = self.tiles[at]._rows
        if letter.base is None or all(seq <= rows.seq(replica) for replica, seq in letter.base.items()):
            assert not rows.apply(letter.runs, whole=letter.base is None).gap
            self.models[at].known |= letter.known

    def write(self, what: str, at: int, tile: int, x: int, y: int) -> None:
        held, model, me = self.tiles[at].tile(*PLACES[tile]), self.models[at], REPLICAS[at]
        if what == "put":
            created = y if x > 3 else None
            held.put(CONTENTS[x % 4], node=me, author=str(x), time=10 * y, created=created)
            model.put(tile, CONTENTS[x % 4], 10 * y, created, str(x))
        elif what == "delete" and held.exists:
            held.delete(node=me)
            model.delete(tile)
        elif what == "restore" and held.deleted:
            held.restore(node=me)
            model.restore(tile)
        elif what == "purge" and x < 2 and held._index.cells(held._key):
            held.purge(node=me)
            model.purge(tile)
        elif what == "tag":
            held.tags.add(NAMES[x % 2], node=me)
            model.add_tag(tile, NAMES[x % 2])
        elif what == "untag" and NAMES[x % 2] in held.tags:
            held.tags.remove(NAMES[x % 2], node=me)
            model.remove_tag(tile, NAMES[x % 2])
        elif what == "record":
            held.metrics.record(me, x, y)
            model.record(tile, x, y)
        elif what == "other":
            held.metrics.record_foreign("other", x, y, node=me)
            model.record_foreign(tile, "other", x, y)
        elif what == "move":
            held.update_position((x, -y), node=me, time=x + y)
            model.move(tile, (x, -y), x + y)
        else:
            self.write_constraint(what, held, model, tile, x, y)

    def write_constraint(self, what: str, held: FleetTile, model: TileModel, tile: int, x: int, y: int) -> None:
        name, me = NAMES[x % 2], Replica(model.name[0], 1)
        if what == "constrain":
            if held.constraints.add(name, node=me):
                self.ours.append((str(me), held._rows.seq(me)))
            model.add_constraint(tile, name, lambda: self.ours[-1])
        elif what == "free" and name in held.constraints:
            held.constraints.remove(name, node=me)
            model.remove_constraint(tile, name, lambda other: self.own_tag(held, other))
        elif what in ("foreign", "bury"):
            tags = {("n", y), ("n", y + x % 3), ("m~", x)} if x < 4 else {self.ours[y % len(self.ours)]}
            if what == "foreign":
                held.constraints.add_foreign(name, tags, node=me)
                model.add_foreign(tile, name, tags)
            else:
                held.constraints.bury(tags, node=me)
                model.bury(tile, tags)

    def own_tag(self, held: FleetTile, name: str) -> Tag:
        """The tag of an add of ours that alone keeps a constraint in."""
        [tag] = held.constraints.tags_of(name)
        self.ours.append(tag)
        return tag

    def compare(self, at: int) -> None:
        tiles, model = self.tiles[at], self.models[at]
        for number, place in enumerate(PLACES):
            assert reading(tiles.tile(*place)) == model.reading(number)
        there = [place for number, place in enumerate(PLACES) if model.contents(number)[0]]
        assert list(tiles) == there
        assert len(tiles) == len(there)
        assert tiles.rooms() == (["r"] if there else [])
        assert tiles.deleted() == [place for number, place in enumerate(PLACES) if model.reading(number)["deleted"]]
        fresh = FleetTiles(tiles._rows.copy())
        assert fresh == tiles
        assert fresh._index._longer == tiles._index._longer


def reading(tile: FleetTile) -> dict[str, object]:
    assert tile.verify_integrity()
    assert tile.size == len(tile.content)
    assert all(name in tile.constraints for name in tile.constraints)
    assert tile.metrics.satisfied == sum(counts.satisfied for counts in tile.metrics.by_node().values())
    return {
        "exists": tile.exists,
        "deleted": tile.deleted,
        "content": tile.content,
        "updated": tile.updated,
        "origin": (tile.created, tile.author),
        "tags": list(tile.tags),
        "constraints": {name: tile.constraints.tags_of(name) for name in tile.constraints},
        "tombstones": {
            (who, seq) for who, under in tile.constraints.tombstones().items() for lo, hi in under for seq in range(lo, hi + 1)
        },
        "counts": tile.metrics.by_node(),
        "position": tile.position,
    }


@pytest.mark.long
@settings(max_examples=HISTORIES)
@given(steps)
def test_tiles_read_as_the_model_does(history: list[tuple[str, int, int, int, int]]) -> None:
    fleet = Fleet()
    for step in history:
        fleet.step(*step)
    for at in (0, 1, 2, 0, 1):
        for other in (0, 1, 2):
            fleet.tiles[at].merge(fleet.tiles[other])
            fleet.models[at].known |= fleet.models[other].known
        fleet.compare(at)
    assert fleet.tiles[0] == fleet.tiles[1] == fleet.tiles[2]
