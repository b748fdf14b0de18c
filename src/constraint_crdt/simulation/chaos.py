"""Chaos: a history under faults that are all drawn from one seed, in two phases (after TigerBeetle's simulator).

1. *Safety*: nodes write while links and nodes fail in every way there is; after each step every invariant is checked.
2. *Liveness*: everything heals, and all have to become equal within the bound of rounds.

Each history has some kinds of faults only, and its own degree of each: what is wrong is often seen best where something else is
not going on all the time.

Searching: one history after the other, until one goes wrong; and what was tried on the way.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from constraint_crdt.simulation.histories import History, settle
from constraint_crdt.simulation.invariants import Violation
from constraint_crdt.simulation.links import Chance, Quality
from constraint_crdt.simulation.steps import LEAST_ROOM, Add, AnyStep, Backup, Collect, Member, Retire, Stale
from constraint_crdt.simulation.workload import IDS, Workload
from constraint_crdt.simulation.world import Actor, Harm, Pace, World
from constraint_crdt.simulation.writes import WRITES

OPERATIONS = 200
"""Mutations of one history."""

NAMES = ("n", "n1", "n11", "n2", "n12", "forge", "a", "ab", "abc", "mast")
"""Of nodes; with the incarnations, such as run into each other where lengths are left out."""

INCARNATIONS = (1, 2, 11, 12, 111)

GAP_NS = 60_000_000
"""The mean time between two mutations."""

FEWEST = 4
"""Nodes, without which none leaves for good: a fleet of fewer has little to get wrong."""

DISKS = ("kept", "doubtful", "copied", "lost")

FAULTS = (
    "loss", "duplication", "reordering", "straggling", "bandwidth", "truncation", "misrouting", "parts", "retry", "nobody there",
    "cut", "partition", "pause", "slow processing", "slow clock", "skewed clock", "stale transfer", "collection",
    "collection of what is acknowledged", "backup", "join", "leave", "retirement", "retirement of a live node",
    "unsaved write lost", *(f"crash, disk {disk}" for disk in DISKS),
)  # fmt: skip
"""Every kind of fault. A search in which one of them never came about has not looked."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one history."""

    seed: int
    members: Sequence[Member]
    steps: Sequence[AnyStep]
    violation: Violation | None
    operations: int
    events: int
    checks: int
    """States that were compared with the log."""
    fired: Counter[str]
    """How often each kind of fault came about."""
    written: Counter[str]
    """How often each kind of write came about."""

    def history(self) -> History | None:
        """What is to be kept of it: nothing if all was well."""
        if self.violation is None:
            return None
        return History(
            seed=self.seed,
            invariant=self.violation.invariant,
            sentence=str(self.violation),
            members=tuple(self.members),
            steps=tuple(self.steps),
        )


class Chaos:
    """One history."""

    def __init__(self, seed: int, *, operations: int = OPERATIONS) -> None:
        """The same seed and number of operations give the same history."""
        self.seed = seed
        chance = self._chance = Chance(seed)
        self._left = operations
        self._operations = operations
        self._names = list(NAMES)
        chance.shuffle(self._names)
        self.members = [Member(self._names.pop(), chance.pick(INCARNATIONS)) for _ in range(chance.between(5, 7))]
        self._world = World(self.members, chance, quality=self._draw_quality(), pace=Pace(patience_ns=150_000_000), watched=True)
        self._world.harm = Harm(*(self._some(0.06) for _ in range(2)))
        self._down: set[str] = set()
        self._gone: list[str] = []
        self._fired = self._world.fired
        for actor in self._world.actors.values():
            self._draw_ways(actor)
        self._workload = Workload(chance)
        self._arrange()

    # --- what is drawn once ------------------------------------------------------------------------------------------

    def _some(self, most: float) -> float:
        """A probability or share: 0 in half of the histories."""
        return self._chance.random() * most if self._chance.happens(0.5) else 0.0

    def _draw_quality(self) -> Quality:
        return Quality(
            latency_ns=self._chance.between(1_000_000, 20_000_000),
            jitter_ns=int(self._some(60_000_000)),
            loss=self._some(0.5),
            duplication=self._some(0.3),
            straggling=self._some(0.1),
            bandwidth=self._chance.between(2_000, 40_000) if self._chance.happens(0.3) else 0,
        )

    def _draw_ways(self, actor: Actor) -> None:
        """How one node is: its clock, its speed, its messages."""
        chance = self._chance
        if chance.happens(0.2):
            actor.rate = 0.5 + chance.random()
            self._fired["slow clock"] += 1
        if chance.happens(0.2):
            most = chance.pick((10**9, 10**10))  # within the bound that the nodes are set to, and beyond
            actor.skew_ns = chance.between(-most, most)
            self._fired["skewed clock"] += 1
        actor.process_ns = int(self._some(30_000_000))
        actor.room = chance.between(LEAST_ROOM, 300) if chance.happens(0.3) else 0

    def _arrange(self) -> None:
        """Have mutations go on, and those kinds of faults that this history has, each at its own pace."""
        if self._chance.happens(0.3):  # the same file applied on every node, before they hear of each other
            for actor in self._world.actors.values():
                self._world.after(0, self._add, actor)
        self._world.after(0, self._write)
        happenings: list[tuple[Callable[[], None], float]] = [
            (self._partition, 3.0),
            (self._cut, 1.5),
            (self._pause, 2.0),
            (self._crash, 1.5),
            (self._backup, 1.0),
            (self._join, 6.0),
            (self._leave, 8.0),
            (self._retire, 5.0),
            (self._collect, 0.6),
            (self._stale, 0.6),
        ]
        for happen, seconds in happenings:
            if self._chance.happens(0.6):
                self._again(happen, seconds * 10**9 * (0.5 + self._chance.random()))

    def _again(self, happen: Callable[[], None], mean_ns: float) -> None:
        def now() -> None:
            happen()
            self._again(happen, mean_ns)

        self._world.after(self._chance.exponential(mean_ns), now)

    # --- what happens ------------------------------------------------------------------------------------------------

    def _up(self) -> list[Actor]:
        return [actor for name, actor in self._world.actors.items() if self._world.is_up(name)]

    def _some_time(self, mean_s: float) -> float:
        return self._chance.exponential(mean_s * 10**9)

    def _write(self) -> None:
        up = self._up()
        if up:
            actor = self._chance.pick(up)
            node = self._world.fleet.nodes[actor.name]
            kind, what = self._workload.draw(node)
            self._world.perform(kind, actor, **what)
            self._left -= 1
        self._world.after(self._chance.exponential(GAP_NS), self._write)

    def _add(self, actor: Actor) -> None:
        self._world.perform(Add, actor, id=IDS[0])

    def _partition(self) -> None:
        names = list(self._world.names)
        self._chance.shuffle(names)
        middle = self._chance.between(1, len(names) - 1)
        self._world.links.part([names[:middle], names[middle:]])
        self._world.after(self._some_time(2.0), self._world.links.part, [])

    def _cut(self) -> None:
        sender, to = self._chance.pick(self._world.names), self._chance.pick(self._world.names)
        self._world.links.cut(sender, to)
        self._world.after(self._some_time(3.0), self._world.links.mend, sender, to)

    def _pause(self) -> None:
        up = self._up()
        if up:
            self._chance.pick(up).paused_until = self._world.now + int(self._some_time(1.0))

    def _crash(self) -> None:
        up = self._up()
        if len(up) > 1:
            actor, disk = self._chance.pick(up), self._chance.pick(DISKS)
            self._world.crash(actor)
            self._down.add(actor.name)
            self._fired[f"crash, disk {disk}"] += 1
            self._world.after(self._some_time(0.7), self._return, actor.name, disk)

    def _return(self, name: str, disk: str) -> None:
        if name in self._down:
            self._down.discard(name)
            self._world.start(name, disk)

    def _backup(self) -> None:
        up = self._up()
        if up:
            self._world.perform(Backup, self._chance.pick(up))
            self._fired["backup"] += 1

    def _join(self) -> None:
        if self._names:
            self._draw_ways(self._world.start(self._names.pop(), "lost", self._chance.pick(INCARNATIONS)))
            self._fired["join"] += 1

    def _leave(self) -> None:
        up = self._up()
        if min(len(up), len(self._world.names)) >= FEWEST:
            actor = self._chance.pick(up)
            self._world.crash(actor)
            self._gone.append(actor.name)
            self._world.forget(actor.name)
            self._fired["leave"] += 1

    def _retire(self) -> None:
        """Mostly one that left; now and then one that is there and has not been asked."""
        up = self._up()
        if not up:
            return
        actor = self._chance.pick(up)
        live = self._chance.happens(0.2)
        names = [name for name in self._world.names if name != actor.name] if live else self._gone
        if names:
            self._fired["retirement of a live node" if live else "retirement"] += 1
            self._world.perform(Retire, actor, dead=self._chance.pick(names))

    def _collect(self) -> None:
        up = self._up()
        if up:
            acknowledged = self._chance.happens(0.4)
            self._fired["collection of what is acknowledged" if acknowledged else "collection"] += 1
            self._world.perform(Collect, self._chance.pick(up), acknowledged=acknowledged)

    def _stale(self) -> None:
        up = self._up()
        if len(up) > 1:
            actor, peer = self._chance.pick(up), self._chance.pick(up)
            self._fired["stale transfer"] += 1
            self._world.perform(Stale, actor, peer=peer.name, back=self._chance.below(64), room=actor.room)

    # --- the two phases ----------------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Run it to its end, or to the first violation."""
        world, violation = self._world, None
        try:
            world.run(2**62, stop=lambda: self._left <= 0)
            for name in sorted(self._down):
                world.start(name, "kept")
            settle(world.fleet)
        except Violation as found:
            violation = found
        invariants = world.fleet.invariants
        self._fired["unsaved write lost"] += world.fleet.unsaved_lost
        return Outcome(
            seed=self.seed,
            members=self.members,
            steps=world.steps,
            violation=violation,
            operations=self._operations - self._left,
            events=world.events,
            checks=invariants.checks if invariants else 0,
            fired=Counter({kind: times for kind, times in self._fired.items() if times}),
            written=world.fleet.written,
        )


@dataclass(slots=True)
class Tally:
    """What a search has tried."""

    histories: int = 0
    operations: int = 0
    events: int = 0
    checks: int = 0
    """States that were compared with the log."""
    fired: Counter[str] = field(default_factory=Counter)
    """How often each kind of fault came about."""
    written: Counter[str] = field(default_factory=Counter)
    """How often each kind of write came about."""

    def add(self, other: "Tally") -> None:
        """Count what another part of the search tried."""
        self.histories += other.histories
        self.operations += other.operations
        self.events += other.events
        self.checks += other.checks
        self.fired += other.fired
        self.written += other.written

    def never_fired(self) -> list[str]:
        """The kinds of faults that never came about: of those the search says nothing."""
        return [fault for fault in FAULTS if not self.fired[fault]]

    def never_written(self) -> list[str]:
        """The kinds of writes that never came about, likewise."""
        return [kind for kind in WRITES if not self.written[kind]]


def search_seeds(first: int, count: int) -> tuple[Tally, History | None]:
    """Run the histories of so many seeds, up to the first that goes wrong."""
    tally = Tally()
    for seed in range(first, first + count):
        outcome = Chaos(seed).run()
        tally.add(Tally(1, outcome.operations, outcome.events, outcome.checks, outcome.fired, outcome.written))
        found = outcome.history()
        if found is not None:
            return tally, found
    return tally, None
