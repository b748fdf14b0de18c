"""A plain model of tiles: every write is a set of facts that it makes and of facts that it ends.

A model replica knows a set of writes; a fact is live while a known write made it and no known one ended it. Nothing else is kept:
each reading goes through all live facts. There are no rows, clocks, removals or indexes in it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from constraint_crdt.types import eisenstein_norm

Tag = tuple[str, int]


@dataclass(frozen=True, eq=False)
class Fact:
    """Something that a write said of one tile."""

    kind: str
    tile: int
    by: str
    name: str = ""
    value: Any = None
    refers: frozenset["Fact"] = frozenset()
    tag: Tag = ("", 0)
    """Of an add of ours: the tag that others know it by."""


@dataclass(frozen=True, eq=False)
class Write:
    """One transaction."""

    makes: frozenset[Fact]
    ends: frozenset[Fact]


@dataclass
class TileModel:
    """One replica."""

    name: str
    known: set[Write] = field(default_factory=set)

    # --- reading -----------------------------------------------------------------------------------------------------

    def live(self, tile: int, kind: str, name: str | None = None) -> list[Fact]:
        ended = {fact for write in self.known for fact in write.ends}
        made = {fact for write in self.known for fact in write.makes} - ended
        return [fact for fact in made if (fact.tile, fact.kind) == (tile, kind) and name in (None, fact.name)]

    def contents(self, tile: int) -> tuple[list[Fact], list[Fact]]:
        """Those that nobody deleted, and all."""
        every = self.live(tile, "content")
        marked = {seen for mark in self.live(tile, "mark") for seen in mark.refers}
        return [fact for fact in every if fact not in marked], every

    def content(self, tile: int) -> Fact | None:
        kept, every = self.contents(tile)
        return max(kept or every, key=lambda fact: (fact.value[0], fact.by), default=None)

    def buried(self, tile: int) -> set[Tag]:
        return {tag for fact in self.live(tile, "tombs") for tag in fact.value}

    def alive(self, facts: Iterable[Fact], buried: set[Tag]) -> set[Tag]:
        return {tag for fact in facts for tag in ([fact.tag] if fact.kind == "k" else fact.value)} - buried

    def constraint_facts(self, tile: int, name: str | None = None) -> list[Fact]:
        return self.live(tile, "k", name) + self.live(tile, "f", name)

    def past(self) -> set[Tag]:
        """The adds of ours that are known, live or not."""
        return {fact.tag for write in self.known for fact in write.makes if fact.kind == "k"}

    def tags_of(self, tile: int, name: str) -> set[Tag]:
        return self.alive(self.constraint_facts(tile, name), self.buried(tile))

    def counts(self, tile: int) -> dict[str, tuple[int, int]]:
        found: dict[str, tuple[int, int]] = {}
        for fact in self.live(tile, "count"):
            before = found.get(fact.name, (0, 0))
            found[fact.name] = (max(before[0], fact.value[0]), max(before[1], fact.value[1]))
        return found

    def positions(self, tile: int) -> list[Fact]:
        every = self.live(tile, "position")
        over = {other for fact in every for other in fact.refers}
        return [fact for fact in every if fact not in over]

    def position(self, tile: int) -> tuple[int, int] | None:
        best = min(self.positions(tile), key=lambda fact: (eisenstein_norm(fact.value[0]), -fact.value[1], fact.by), default=None)
        return None if best is None else best.value[0]

    def reading(self, tile: int) -> dict[str, object]:
        kept, every = self.contents(tile)
        content, headers = self.content(tile), [fact.value for fact in self.live(tile, "header")]
        stands_in = (0, "") if content is None else (content.value[0], content.by[0])
        names = {fact.name for fact in self.constraint_facts(tile)}
        return {
            "exists": bool(kept),
            "deleted": bool(every) and not kept,
            "content": b"" if content is None else content.value[1],
            "updated": 0 if content is None else content.value[0],
            "origin": min(headers, default=stands_in),
            "tags": sorted({fact.name for fact in self.live(tile, "t")}),
            "constraints": {name: tags for name in sorted(names) if (tags := self.tags_of(tile, name))},
            "tombstones": self.buried(tile),
            "counts": self.counts(tile),
            "position": self.position(tile),
        }

    # --- writing -----------------------------------------------------------------------------------------------------

    def write(self, makes: Iterable[Fact], ends: Iterable[Fact]) -> None:
        """Whatever is written under a name of one's own takes over what was there."""
        made = list(makes)
        taken = [old for fact in made for old in self.live(fact.tile, fact.kind, fact.name) if old.by == self.name]
        self.known.add(Write(frozenset(made), frozenset(ends).union(taken)))

    def put(self, tile: int, content: bytes, now: int, created: int | None, author: str) -> None:
        observed = self.live(tile, "content")
        time = max([now, *(fact.value[0] + 1 for fact in observed)])
        makes = [Fact("content", tile, self.name, value=(time, content))]
        headers = [fact.value for fact in self.live(tile, "header")]
        origin = (time if created is None else created, author)
        if not headers or (created is not None and origin < min(headers)):
            makes.append(Fact("header", tile, self.name, value=origin))
        self.write(makes, observed + self.live(tile, "mark"))

    def delete(self, tile: int) -> None:
        content = self.content(tile)
        assert content is not None
        others = [fact for fact in self.live(tile, "content") if fact is not content]
        self.write([Fact("mark", tile, self.name, refers=frozenset({content}))], others)

    def restore(self, tile: int) -> None:
        self.write([], self.live(tile, "mark"))

    def purge(self, tile: int) -> None:
        kinds = ("content", "header", "mark", "t", "k", "f", "tombs", "count", "position")
        self.write([], [fact for kind in kinds for fact in self.live(tile, kind)])

    def add_tag(self, tile: int, name: str) -> None:
        if not self.live(tile, "t", name):
            self.write([Fact("t", tile, self.name, name)], [])

    def remove_tag(self, tile: int, name: str) -> None:
        self.write([], self.live(tile, "t", name))

    def add_constraint(self, tile: int, name: str, tag: Callable[[], Tag]) -> None:
        if not self.tags_of(tile, name):
            self.write([Fact("k", tile, self.name, name, tag=tag())], [])

    def remove_constraint(self, tile: int, name: str, tag: Callable[[str], Tag]) -> None:
        """Another constraint that shares its tags, and would go with it, gets an add of ours; `tag` is what that is known by."""
        doomed = self.alive(self.constraint_facts(tile, name), set())
        others = {fact.name for fact in self.constraint_facts(tile)} - {name}
        left = self.buried(tile) | doomed
        stay = [each for each in others if self.tags_of(tile, each) and not self.alive(self.constraint_facts(tile, each), left)]
        self._end(tile, doomed, [Fact("k", tile, self.name, each, tag=tag(each)) for each in stay])

    def bury(self, tile: int, tags: set[Tag]) -> None:
        self._end(tile, tags, [])

    def _end(self, tile: int, doomed: set[Tag], makes: list[Fact]) -> None:
        facts, buried = self.constraint_facts(tile), self.buried(tile)
        carried = {tag for fact in facts if fact.kind == "f" for tag in fact.value}
        under = {tag for tag in doomed - buried if tag in carried or tag not in self.past()}
        dead = [fact for fact in facts if not self.alive([fact], buried | doomed)]
        if makes or under or dead:
            self.write([*makes, *self._tombs(tile, under)], dead)

    def _tombs(self, tile: int, tags: set[Tag]) -> list[Fact]:
        """Tombstones are kept by foreign node."""
        found = []
        for who in {who for who, _ in tags}:
            before = {tag for fact in self.live(tile, "tombs", who) if fact.by == self.name for tag in fact.value}
            found.append(Fact("tombs", tile, self.name, who, frozenset(before | {tag for tag in tags if tag[0] == who})))
        return found

    def add_foreign(self, tile: int, name: str, tags: set[Tag]) -> None:
        standing, over = self.constraint_facts(tile, name), self.buried(tile) | self.past()
        fresh = tags - self.alive(standing, set()) - over
        if fresh:
            own = {tag for fact in standing if fact.kind == "f" and fact.by == self.name for tag in fact.value}
            self.write([Fact("f", tile, self.name, name, frozenset((own - over) | fresh))], [])

    def record(self, tile: int, satisfied: int, violated: int) -> None:
        before = self.counts(tile).get(self.name, (0, 0))
        self.record_foreign(tile, self.name, before[0] + satisfied, before[1] + violated)

    def record_foreign(self, tile: int, who: str, satisfied: int, violated: int) -> None:
        before = self.counts(tile).get(who, (0, 0))
        after = (max(before[0], satisfied), max(before[1], violated))
        if after != before:
            self.write([Fact("count", tile, self.name, who, after)], [])

    def move(self, tile: int, to: tuple[int, int], time: int) -> None:
        live = self.live(tile, "position")
        own = [fact for fact in live if fact.by == self.name]
        carried = {other for fact in own for other in fact.refers if other in live}
        refers = carried.union(fact for fact in self.positions(tile) if fact not in own)
        self.write([Fact("position", tile, self.name, value=(to, time), refers=frozenset(refers))], [])
