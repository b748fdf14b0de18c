"""Chaos: histories drawn from a seed, with writes and faults, and the search for a history violating an invariant.

A history has two phases, after TigerBeetle's simulator:

1. *Safety*: nodes write while links and nodes fail in every possible way; every invariant is checked after each step.
2. *Liveness*: all faults end, and all nodes have to become equal within the bound of rounds.

A history *of the network* has other faults: slow links, of which nodes measure the round trip and rate (satellites, modems, in one
direction or both), single links cut, and nodes that only send or only hear. Before the rounds its nodes go on by themselves, and
have to become equal within `AGREE_NS` of the last fault.

Some histories of the network are *large*: a node begins with a state that takes many bursts on any link, so nodes write, restart
and lose each other in the middle of transfers. After the last fault a blank node joins while the others write on. All messages
together may then have a multiple of the bytes of that state only, so a transfer that begins again and again is a violation, too.

A history *with budgets* keeps all clocks within the bound, since budgets promise nothing beyond it. One node defines a leased
budget and a budget without a lease, over all nodes that it knows; then processes on all nodes acquire, renew and release, and
operators move the limits and retire nodes that left.

In a quarter of the histories nodes share readings.

A history *with sites* divides the fleet: sites are cut off, all nodes of a site restart at once, speakers are killed, and nodes
move to another site. Its nodes measure their links and have to become equal by themselves, too.

Rules kept here:

- Each history has some kinds of faults only, each to its own degree: a bug often shows best where other faults are absent.
- Writes are a mix of all mutations, on few enough ids that nodes write to the same ones.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from constraint_crdt.crdt.clock import Replica, VectorClock
from constraint_crdt.model import IfUnknown
from constraint_crdt.protocol.authority import OPERATOR
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.protocol.messages import encode_message
from constraint_crdt.simulation.histories import History, is_settled, settle
from constraint_crdt.simulation.invariants import Violation
from constraint_crdt.simulation.steps import (
    LEAST_ROOM,
    OF_BUDGETS,
    OF_SITES,
    WRITES,
    Add,
    AnyStep,
    Backup,
    Budget,
    Collect,
    Count,
    CountItem,
    Decay,
    Expire,
    Fold,
    FoldRates,
    Increment,
    Insert,
    Measure,
    Move,
    NodeStart,
    Rate,
    Record,
    Remove,
    Retire,
    SetClock,
    ShareReading,
    Spend,
    Stale,
    Tell,
    Tile,
    Undo,
)
from constraint_crdt.simulation.world import SECOND_NS, Harm, Pace, Quality, SimRng, SimulatedNode, World

OPERATIONS = 200
"""Mutations per history."""

NAMES = ("n", "n1", "n11", "n2", "n12", "forge", "a", "ab", "abc", "mast")
"""Names of nodes. With the incarnations they collide where a hash leaves out lengths."""

INCARNATIONS = (1, 2, 11, 12, 111)

GAP_NS = 60_000_000
"""The mean time between two mutations, in ns."""

FEWEST = 4
"""Nodes below which none leaves for good: a smaller fleet has little to get wrong."""

STEPS = (1_500_000_000, 10_000_000_000, 3_600_000_000_000)
LEAST_STEP = 1_000_000_000
"""ns: how far clocks are set, within the bound on skew and beyond, and the least change that counts as a step."""

DISKS = ("kept", "doubtful", "copied", "lost")

FAULTS = (
    "loss", "duplication", "reordering", "straggling", "bandwidth", "truncation", "misrouting", "parts", "retry", "nobody there",
    "cut", "partition", "pause", "slow processing", "slow clock", "skewed clock", "stale transfer", "collection",
    "collection of what is acknowledged", "backup", "join", "leave", "retirement", "retirement of a live node",
    "mutual retirement", "undone retirement",
    "unsaved write lost", "clock set", "clock set while down", "snapshot put back", *(f"crash, disk {disk}" for disk in DISKS),
)  # fmt: skip
"""Every kind of fault. A search in which any of them never occurred has not covered it."""


NETWORK_FAULTS = ("slow link", "asymmetric link", "pair cut", "deaf node", "mute node")
"""Every kind of fault of a history of the network, beside the others."""

BEYOND_THE_BOUND = ("slow clock", "clock set", "clock set while down")
"""The faults that histories with budgets have not."""

SITE_FAULTS = ("site cut", "site restart", "speakers killed", "move to another site")
"""Every kind of fault of a history with sites, beside the others."""

MOST_SITES = len(NAMES)

BUDGETS = {"dock": 1_500_000_000, "tokens": 0}
"""The budgets of histories with budgets, with their leases in ns."""

DEFINED_AT_NS = 2 * 10**9
"""The time at which they are defined: nodes know each other by then."""

MOST_OFFSET_NS = 450_000_000
"""Of a clock from true time, in histories with budgets: two clocks are less than the bound on skew apart."""

BUDGET_GAP_NS = 40_000_000
"""The mean time between two steps with budgets."""

_BUDGET_MIX: Sequence[tuple[str, int]] = (("tend", 10), ("acquire", 8), ("renew", 4), ("release", 3))

AGREE_NS = 30 * 10**9
"""Virtual time after the last fault, in ns, within which all nodes of a history of the network have to be equal. A round of a node
takes a second, and an exchange up to 1 s of round trip and the time of its bytes at 2 kB/s."""

IDS = ("x", "y", "z", "xy", "fence")
DEFINITIONS: Sequence[Mapping[str, object]] = (
    {},
    {},
    {"when": "v <= 1.0"},
    {"when": "v <= 2.0", "for_": 30.0, "clear_after": 0.5, "clear_when": "v <= 1.5"},
    {"when": "v <= 2.0", "if_unknown": IfUnknown.VIOLATED, "max_age": 5.0},
    {"about": "seen"},
)
"""The bare definition twice, so that nodes write the same definition."""

LIFETIMES = (None, None, None, 0.5, 3.0)
"""Seconds; most constraints have no end."""

VERDICTS = (None, "holds", "pending", "violated", "violated", "clearing", "unknown", "off")
"""The states of verdicts; None for nothing to tell."""

VARIABLES = (("speed_mps", "double"), ("door", "bool"), ("door", "string"), ("notes", "mixed"))
COUNTERS = ("parts", "doors")
TILES = ("t1", "t2")
TILE_ACTS = ("put", "put", "put", "tag", "tag", "untag", "delete", "restore", "purge")
TEXTS = ("one", "two", "three")

SKETCHES = (*(("violations", 7, 2),) * 5, ("violations", 9, 2), ("wide", 257, 2))
"""(name, width, depth): mostly tiny; sometimes with other dimensions, or of more than one page."""

BLOOMS = (*(("seen", 8, 0.1),) * 5, ("seen", 9, 0.1), ("many", 900, 0.01))
"""(name, expected items, rate of false positives), in the same manner."""

ITEMS = ("dock", "lift", "gate", "ramp", "belt")
HALF_LIVES = (*((1.0, 8.0),) * 4, (0.5, 8.0))
"""Seconds, as long as a history and shorter. Some nodes track other half-lives."""

DECAYING = ("heat", "wear")
AMOUNTS = (0.5, 1.0, 3.0)

CLIENTS = (("pda", 0), ("kiosk", 2030))
"""PLATO clients and the first seq of each: the second continues on another page."""

LOST = 0.1
"""The probability an increment is lost, for good or until much later."""

REPEATED = 0.35
"""The probability a client sends an increment again, to any node."""

QUEUES = 0.08
"""The share of histories in which a client sends many increments at once, enough to be combined."""

QUEUED = 40
"""The most increments it then sends at once."""

FEUDS = 0.3
"""The share of histories in which nodes retire each other, and retirements are undone."""

LARGE = 0.4
"""The share of histories of the network that begin with a large state."""

LARGE_STREAM = 859 << 32
"""Put into the seed of a history, to draw whether it is among them, and its state."""

LARGE_ADDS = (60, 240)
"""Constraints of a large state: each has about 70 bytes on the way, and a burst 1,024."""

LEAST_BANDWIDTH = 2_000
"""Bytes per second of a link without a fault, at least."""

NEWS_NS = 30_000_000
"""The mean time between two writes while a blank node takes in a large state after the last fault."""

IDLE_BYTES = 8_000
"""Bytes of all other messages between two nodes until the end, about."""

MOST_COPIES = 3
"""Times that the bytes of the state may travel between any two nodes after the last fault, of a large state."""

READERS = 0.25
"""The share of histories in which nodes share readings."""

READING_STREAM = 641 << 32
"""Put into the seed of a history, to draw whether it is among them, and its draws for readings."""

READING_GAP_NS = 150_000_000
"""The mean time between two readings."""

READINGS = (20.0, 20.0, -1.5, 1e300, True, "charging", None)

BUDGET_STREAM = 523 << 32
"""Put into the seed of a history, to draw for its budgets."""

FEUD_STREAM = 419 << 32
"""Added to the seed of a history, to draw whether it is among them."""

UNSAVED = 0.3
"""The probability a write is not acknowledged at once."""

DrawnWrite = tuple[Callable[..., AnyStep], dict[str, object]]
"""A type of step, and its fields."""

_MIX: Sequence[tuple[str, int]] = (
    ("add", 30),
    ("remove", 22),
    ("record", 30),
    ("fold", 6),
    ("move", 8),
    ("expire", 5),
    ("count", 6),
    ("tile", 12),
    ("tell", 8),
    ("spend", 4),
    ("measure", 3),
    ("tally", 4),
    ("insert", 3),
    ("rate", 4),
    ("fold rates", 1),
    ("decay", 2),
    ("increment", 4),
)
SUMMARIES = frozenset(("tally", "insert", "rate", "fold rates", "decay", "increment"))
_KINDS = [kind for kind, share in _MIX for _ in range(share)]


class Workload:
    """The writes of the nodes of a history, and the counters of its clients."""

    def __init__(self, rng: SimRng) -> None:
        self._rng = rng
        self._next = dict(CLIENTS)
        queues = rng.happens(QUEUES)
        self._clients = (rng.pick(CLIENTS),) if queues else CLIENTS
        self._most = QUEUED if queues else 2

    def draw(self, node: GossipNode) -> DrawnWrite:
        """The next mutation of a node."""
        what = self._rng.pick(_KINDS)
        kind, how = self._draw_summary(what) if what in SUMMARIES else _draw(what, node, self._rng)
        if self._rng.happens(UNSAVED):
            how["unsaved"] = True
        return kind, how

    def _draw_summary(self, what: str) -> DrawnWrite:
        rng = self._rng
        if what == "tally":
            name, width, depth = rng.pick(SKETCHES)
            return CountItem, {"name": name, "width": width, "depth": depth, "item": rng.pick(ITEMS), "count": rng.between(0, 3)}
        if what == "insert":
            name, expected, wrong = rng.pick(BLOOMS)
            return Insert, {"name": name, "expected": expected, "wrong": wrong, "item": rng.pick(ITEMS)}
        if what == "rate":
            counts = {"satisfied": rng.below(4), "violated": rng.below(3)}
            return Rate, {"id": rng.pick((None, *IDS[:2])), "half_lives": rng.pick(HALF_LIVES), **counts}
        if what == "fold rates":
            return FoldRates, {"ids": IDS[:2]}
        if what == "decay":
            return Decay, {"name": rng.pick(DECAYING), "half_life": rng.pick((1.0, 8.0)), "amount": rng.pick(AMOUNTS)}
        return Increment, self._draw_increment()

    def _draw_increment(self) -> dict[str, object]:
        """The next increments of a client, or an increment sent or lost before."""
        rng = self._rng
        client, first = rng.pick(self._clients)
        seq, more = self._next[client], rng.below(self._most)
        if seq > first and rng.happens(REPEATED):
            seq, more = rng.between(max(first, seq - 8), seq - 1), 0
        else:
            seq += rng.happens(LOST)
            self._next[client] = seq + more + 1
        (satisfied, violated), *others = [_counted(each) for each in range(seq, seq + more + 1)]
        return {"client": client, "seq": seq, "satisfied": satisfied, "violated": violated, "more": tuple(others)}


def _counted(seq: int) -> tuple[int, int]:
    """The counts of any client under this number: the same each time it sends it."""
    return seq % 4, seq % 3


def _draw(what: str, node: GossipNode, rng: SimRng) -> DrawnWrite:
    active = sorted(node.state.constraints)
    if what == "remove" and active:
        return Remove, {"id": rng.pick(active)}
    if what == "record":
        id_ = rng.pick((None, *IDS))
        return Record, {"id": id_, "satisfied": rng.below(4), "violated": rng.below(3)}
    if what == "fold":
        return Fold, {"ids": tuple(id_ for id_ in IDS if rng.happens(0.5))}
    if what == "move":
        return Move, {"a": rng.between(-3, 3), "b": rng.between(-3, 3)}
    if what == "expire":
        return Expire, {}
    if what == "count":
        return Count, {"name": rng.pick(COUNTERS), "by": rng.pick((1, 2, -1, -3))}
    if what == "tell":
        return Tell, {"id": rng.pick(IDS), "state": rng.pick(VERDICTS), "since": rng.below(4)}
    if what == "spend":
        times = {"satisfied": rng.below(3), "violated": rng.below(3), "unknown": rng.below(2)}
        return Spend, {"id": rng.pick(IDS), **times}
    if what == "measure":
        return Measure, {"variables": tuple(dict(each for each in VARIABLES if rng.happens(0.5)).items())}
    if what == "tile":
        return Tile, {"tile": rng.pick(TILES), "act": rng.pick(TILE_ACTS), "text": rng.pick(TEXTS)}
    return Add, {**rng.pick(DEFINITIONS), "id": rng.pick(IDS), "ttl": rng.pick(LIFETIMES)}


@dataclass(frozen=True, slots=True)
class HistoryResult:
    """The result of a history."""

    seed: int
    members: Sequence[NodeStart]
    steps: Sequence[AnyStep]
    violation: Violation | None
    operations: int
    events: int
    checks: int
    """States compared with the log."""
    fired: Counter[str]
    """Occurrences of each kind of fault."""
    written: Counter[str]
    """Occurrences of each kind of write."""
    network: bool = False
    """A history of the network."""
    sites: int = 0
    """The sites, in a history with sites."""

    def history(self) -> History | None:
        """The history to keep; None if no invariant was violated."""
        if self.violation is None:
            return None
        return History(
            seed=self.seed,
            invariant=self.violation.invariant,
            sentence=str(self.violation),
            members=tuple(self.members),
            steps=tuple(self.steps),
            paced=self.network or self.sites > 0,
        )


class Chaos:
    """A history, drawn while it runs."""

    def __init__(
        self,
        seed: int,
        *,
        operations: int = OPERATIONS,
        signed: bool = False,
        network: bool = False,
        sites: int = 0,
        budgets: bool = False,
    ) -> None:
        """The same seed and number of operations give the same history. `signed`: the rows are signed. `network`: a history of the
        network. `sites`: a history with so many sites; 0: without. `budgets`: a history with budgets.
        """
        self.seed = seed
        rng = self._rng = SimRng(seed)
        self._further = SimRng(~seed)
        """Draws faults of later versions: a history without any of them stays that of its seed in 0.1.0."""
        self._left = operations
        self._operations = operations
        self._names = list(NAMES)
        rng.shuffle(self._names)
        role = OPERATOR if signed else ""
        self.members = [NodeStart(self._names.pop(), rng.pick(INCARNATIONS), role) for _ in range(rng.between(5, 7))]
        self._network = network
        self._budgets = budgets
        self._of_budgets = SimRng(seed ^ BUDGET_STREAM)
        self._of_readings = SimRng(seed ^ READING_STREAM)
        self._of_large = SimRng(seed ^ LARGE_STREAM)
        self._large = network and self._of_large.happens(LARGE)
        self._large_row: Replica | None = None
        self._large_seq = 0
        """The row of the large state, and its length."""
        self._goes_on = False
        """Nodes write after the last fault."""
        quality, pace = self._draw_quality(), Pace(patience_ns=150_000_000)
        self._sites = [f"site{number}" for number in range(sites)]
        site_of = {name: rng.pick(self._sites) for name in NAMES} if sites else None
        self._world = World(self.members, rng, quality=quality, pace=pace, watched=True, paced=network or sites > 0, sites=site_of)
        self._world.harm = Harm(*(self._some(0.06) for _ in range(2)))
        self._down: set[str] = set()
        self._gone: list[str] = []
        self._fired = self._world.fired
        for actor in self._world.actors.values():
            self._draw_ways(actor)
        self._workload = Workload(rng)
        if self._large:
            self._world.after(0, self._fill)
        self._arrange()

    # --- what is drawn once ------------------------------------------------------------------------------------------

    def _some(self, most: float) -> float:
        """A probability or share: 0 in half of the histories."""
        return self._rng.random() * most if self._rng.happens(0.5) else 0.0

    def _draw_quality(self) -> Quality:
        return Quality(
            latency_ns=self._rng.between(1_000_000, 20_000_000),
            jitter_ns=int(self._some(60_000_000)),
            loss=self._some(0.5),
            duplication=self._some(0.3),
            straggling=self._some(0.1),
            bandwidth=self._rng.between(2_000, 40_000) if self._rng.happens(0.3) else 0,
        )

    def _draw_ways(self, actor: SimulatedNode) -> None:
        """Draw the properties of a node: its clock, its speed, its message size."""
        rng = self._rng
        if rng.happens(0.2):
            actor.rate = 0.5 + rng.random()
            self._fired["slow clock"] += 1
        if rng.happens(0.2):
            most = rng.pick((10**9, 10**10))  # within the bound on skew, and beyond it
            actor.skew_ns = rng.between(-most, most)
            self._fired["skewed clock"] += 1
        if self._budgets:
            actor.rate, actor.skew_ns = 1.0, rng.between(-MOST_OFFSET_NS, MOST_OFFSET_NS)
        actor.process_ns = int(self._some(30_000_000))
        actor.room = rng.between(LEAST_ROOM, 300) if rng.happens(0.3) else 0

    def _arrange(self) -> None:
        """Schedule the mutations, and the kinds of faults of this history, each at its own pace."""
        if self._rng.happens(0.3):  # the same add on every node, before any exchange
            for actor in self._world.actors.values():
                self._world.after(0, self._add, actor)
        self._world.after(0, self._write)
        if self._budgets:
            self._world.after(DEFINED_AT_NS, self._define_budgets)
        faults: list[tuple[Callable[[], None], float]] = [
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
        if self._network:
            faults += [(self._slow, 1.0), (self._cut_pair, 2.0), (self._half_cut, 3.0)]
        if self._sites:
            faults += [(self._cut_site, 3.0), (self._restart_site, 3.0), (self._kill_speakers, 3.0), (self._change_site, 2.0)]
        for fault, seconds in faults:
            if self._rng.happens(0.6):
                self._again(fault, seconds * 10**9 * (0.5 + self._rng.random()), self._rng)
        if SimRng(self.seed + FEUD_STREAM).happens(FEUDS):  # drawn apart: the other histories are as they were before
            self._again(self._feud, 5 * 10**9, self._rng)
            self._again(self._undo, 3 * 10**9, self._rng)
        if self._of_readings.happens(READERS):  # drawn apart, too
            self._again(self._share, READING_GAP_NS, self._of_readings)
        for fault, seconds in ((self._set_clock, 1.0), (self._put_back, 1.0)):
            if self._further.happens(0.5):
                self._again(fault, seconds * 10**9 * (0.5 + self._further.random()), self._further)

    def _again(self, happen: Callable[[], None], mean_ns: float, rng: SimRng) -> None:
        def now() -> None:
            happen()
            self._again(happen, mean_ns, rng)

        self._world.after(rng.exponential(mean_ns), now)

    # --- what happens ------------------------------------------------------------------------------------------------

    def _up(self) -> list[SimulatedNode]:
        return [actor for name, actor in self._world.actors.items() if self._world.is_up(name)]

    def _some_time(self, mean_s: float) -> float:
        return self._rng.exponential(mean_s * 10**9)

    def _write(self) -> None:
        up = self._up()
        if up:
            actor = self._rng.pick(up)
            node = self._world.fleet.nodes[actor.name]
            kind, what = self._workload.draw(node)
            self._world.perform(kind, actor, **what)
            self._left -= 1
        self._world.after(self._rng.exponential(GAP_NS), self._write)

    def _fill(self) -> None:
        """Have a node make the many constraints of a large history, each with a text that packs badly."""
        rng, actor = self._of_large, self._of_large.pick(self._up())
        for number in range(rng.between(*LARGE_ADDS)):
            self._world.perform(Add, actor, id=f"large {number}", about=f"{rng.bits():016x}{rng.bits():016x}")
        node = self._world.fleet.nodes[actor.name]
        self._large_row, self._large_seq = node.replica, node.state.rows.seq(node.replica)

    def _share(self) -> None:
        """A node shares a reading, or withdraws it."""
        rng, up = self._of_readings, self._up()
        if up:
            actor, name = rng.pick(up), rng.pick(VARIABLES)[0]
            self._world.perform(ShareReading, actor, name=name, value=rng.pick(READINGS), unsaved=rng.happens(UNSAVED))

    def _add(self, actor: SimulatedNode) -> None:
        self._world.perform(Add, actor, id=IDS[0])

    def _partition(self) -> None:
        names = list(self._world.names)
        self._rng.shuffle(names)
        middle = self._rng.between(1, len(names) - 1)
        self._world.links.part([names[:middle], names[middle:]])
        self._world.after(self._some_time(2.0), self._world.links.part, [])

    def _cut(self) -> None:
        sender, to = self._rng.pick(self._world.names), self._rng.pick(self._world.names)
        self._world.links.cut(sender, to)
        self._world.after(self._some_time(3.0), self._world.links.mend, sender, to)

    def _slow(self) -> None:
        """Give a link a quality of its own for a while, in both directions or in one."""
        rng, links = self._rng, self._world.links
        sender, to = rng.pick(self._world.names), rng.pick(self._world.names)
        quality = Quality(
            latency_ns=rng.pick((20_000_000, 300_000_000, 1_500_000_000)),
            loss=rng.pick((0.0, 0.0, 0.2, 0.5)),
            bandwidth=rng.pick((0, 600, 1_200, 8_000)),
        )
        lasts = self._some_time(6.0)
        ways = [(sender, to)] if rng.happens(0.3) else [(sender, to), (to, sender)]
        self._fired["slow link" if len(ways) > 1 else "asymmetric link"] += 1
        for way in ways:
            links.slow(*way, quality)
            self._world.after(lasts, links.restore, *way)

    def _cut_pair(self) -> None:
        """Cut the link between two nodes, and no other."""
        links, lasts = self._world.links, self._some_time(4.0)
        one, other = self._rng.pick(self._world.names), self._rng.pick(self._world.names)
        self._fired["pair cut"] += 1
        for way in ((one, other), (other, one)):
            links.cut(*way)
            self._world.after(lasts, links.mend, *way)

    def _half_cut(self) -> None:
        """Let a node only send, or only hear."""
        links, lasts, deaf = self._world.links, self._some_time(2.0), self._rng.happens(0.5)
        name = self._rng.pick(self._world.names)
        self._fired["deaf node" if deaf else "mute node"] += 1
        for other in self._world.names:
            way = (other, name) if deaf else (name, other)
            links.cut(*way)
            self._world.after(lasts, links.mend, *way)

    def _of_site(self, site: str) -> list[str]:
        return [name for name in self._world.names if self._world.links.site_of[name] == site]

    def _cut_site(self) -> None:
        """Cut a site off from all others."""
        inside = self._of_site(self._rng.pick(self._sites))
        outside = [name for name in self._world.names if name not in inside]
        self._world.links.part([inside, outside])
        self._world.after(self._some_time(2.0), self._world.links.part, [])
        self._fired["site cut"] += 1

    def _restart_site(self) -> None:
        """Restart all nodes of a site at once, with their disks."""
        self._kill(self._of_site(self._rng.pick(self._sites)), "site restart")

    def _kill_speakers(self) -> None:
        """Kill the nodes that a node takes for the speakers of its site."""
        up = self._up()
        if len(self._sites) > 1 and up:
            sites = self._world.sites_of(self._rng.pick(up))
            other = self._rng.pick([site for site in self._sites if site != sites.site])
            self._kill(sites.speakers(sites.site, other), "speakers killed")

    def _kill(self, names: Sequence[str], fault: str) -> None:
        """Kill some nodes, but never the last running node, for a while."""
        lasts = self._some_time(0.7)
        for name in names:
            if self._world.is_up(name) and len(self._up()) > 1:
                self._world.crash(self._world.actors[name])
                self._down.add(name)
                self._fired[fault] += 1
                self._world.after(lasts, self._return, name, "kept")

    def _change_site(self) -> None:
        up = self._up()
        if up:
            actor, site = self._rng.pick(up), self._rng.pick(self._sites)
            self._fired["move to another site"] += self._world.links.site_of[actor.name] != site
            self._world.change_site(actor, site)

    def _pause(self) -> None:
        up = self._up()
        if up:
            self._rng.pick(up).paused_until = self._world.now + int(self._some_time(1.0))

    def _crash(self) -> None:
        up = self._up()
        if len(up) > 1:
            actor, disk = self._rng.pick(up), self._rng.pick(DISKS)
            self._world.crash(actor)
            self._down.add(actor.name)
            self._fired[f"crash, disk {disk}"] += 1
            self._world.after(self._some_time(0.7), self._return, actor.name, disk)

    def _return(self, name: str, disk: str) -> None:
        if name in self._down:
            self._down.discard(name)
            self._world.start(name, disk)

    def _set_clock(self) -> None:
        """Set a clock, forth or back, also that of a node that is down. Some stay wrong."""
        rng = self._further
        actor = rng.pick(list(self._world.actors.values()))
        if self._budgets:
            return
        by = -actor.skew_ns if rng.happens(0.4) else rng.pick(STEPS) * (1 if rng.happens(0.5) else -1)
        if abs(by) < LEAST_STEP:
            return
        actor.skew_ns += by
        up = self._world.is_up(actor.name)
        self._fired["clock set" if up else "clock set while down"] += 1
        if up:
            self._world.perform(SetClock, actor, by=by)

    # --- budgets -----------------------------------------------------------------------------------------------------

    def _do_budget(self, actor: SimulatedNode, act: str, name: str, **what: object) -> None:
        at = self._world.clock_of(actor) - actor.skew_ns
        self._world.perform(Budget, actor, act=act, name=name, at=at, **what)

    def _define_budgets(self) -> None:
        """Define each budget once, on a single node; then processes begin."""
        rng, up = self._of_budgets, self._up()
        if not up:
            self._world.after(DEFINED_AT_NS, self._define_budgets)
            return
        actor = rng.pick(up)
        nodes = tuple(sorted({replica.node_id for replica in self._world.fleet.nodes[actor.name].clock}))
        for name, lease in BUDGETS.items():
            self._do_budget(actor, "define", name, amount=rng.between(1, 6), lease=lease, nodes=nodes)
        self._world.after(0, self._use_budget)
        self._world.after(rng.exponential(10 * 10**9), self._move_limit)

    def _use_budget(self) -> None:
        """A step of a node with a budget."""
        rng, up = self._of_budgets, self._up()
        acts = [act for act, share in _BUDGET_MIX for _ in range(share)]
        if up:
            actor = rng.pick(up)
            name = rng.pick(("dock", "dock", "tokens"))
            act = rng.pick(acts)
            self._do_budget(actor, act, name, amount=rng.pick((1, 1, 2)) if act == "acquire" else 0, place=rng.below(4))
        self._world.after(rng.exponential(BUDGET_GAP_NS), self._use_budget)

    def _move_limit(self) -> None:
        """An operator moves a limit, or retires a node that left for good."""
        rng = self._of_budgets
        name = rng.pick(tuple(BUDGETS))
        up = [actor for actor in self._up() if name in self._world.fleet.nodes[actor.name].state.budgets]
        if up:
            actor = rng.pick(up)
            if self._gone and rng.happens(0.5):
                self._do_budget(actor, "retire", name, nodes=(rng.pick(self._gone),))
            else:
                nodes = tuple(each.name for each in self._up())
                self._do_budget(actor, "define", name, amount=rng.between(0, 6), lease=BUDGETS[name], nodes=nodes)
        self._world.after(rng.exponential(4 * 10**9), self._move_limit)

    def _put_back(self) -> None:
        """Put a node back to its backup, with the marker that vouches for it. It meets a peer that knows its later writes."""
        fleet, up = self._world.fleet, self._up()
        pairs = [(actor, peer) for actor in up for peer in up if fleet.may_roll_back(actor.name, peer.name)]
        if pairs:
            actor, peer = self._further.pick(pairs)
            self._world.crash(actor)
            self._world.start(actor.name, "rolled back", peer=peer.name)
            self._fired["snapshot put back"] += 1

    def _backup(self) -> None:
        up = self._up()
        if up:
            self._world.perform(Backup, self._rng.pick(up))
            self._fired["backup"] += 1

    def _join(self) -> None:
        if self._names:
            self._draw_ways(self._world.start(self._names.pop(), "lost", self._rng.pick(INCARNATIONS)))
            self._fired["join"] += 1

    def _leave(self) -> None:
        up = self._up()
        if min(len(up), len(self._world.names)) >= FEWEST:
            actor = self._rng.pick(up)
            self._world.crash(actor)
            self._gone.append(actor.name)
            self._world.forget(actor.name)
            self._fired["leave"] += 1

    def _retire(self) -> None:
        """Retire a node: mostly a node which left, sometimes an unaware node in service."""
        up = self._up()
        if not up:
            return
        actor = self._rng.pick(up)
        live = self._rng.happens(0.2)
        names = [name for name in self._world.names if name != actor.name] if live else self._gone
        if names:
            self._fired["retirement of a live node" if live else "retirement"] += 1
            self._world.perform(Retire, actor, dead=self._rng.pick(names))

    def _feud(self) -> None:
        """Nodes on the two sides of a cut retire each other, some of them several."""
        up = [actor for actor in self._up() if self._world.fleet.nodes[actor.name].retired_by is None]
        if len(up) < FEWEST:
            return
        self._rng.shuffle(up)
        middle = self._rng.between(1, len(up) - 1)
        sides = up[:middle], up[middle:]
        self._world.links.part([[actor.name for actor in side] for side in sides])
        for side, others in (sides, sides[::-1]):
            actor = self._rng.pick(side)
            for _ in range(self._rng.between(1, 2)):
                self._world.perform(Retire, actor, dead=self._rng.pick(others).name)
        self._fired["mutual retirement"] += 1
        self._world.after(self._some_time(1.0), self._world.links.part, [])

    def _undo(self) -> None:
        """Have a retired node in service again, mostly a running node."""
        up = self._up()
        nodes = [self._world.fleet.nodes[actor.name] for actor in up]
        found = [
            (actor, name)
            for actor, node in zip(up, nodes, strict=True)
            for name in node.state.retirements
            if node.retired_by is None
        ]
        running = [each for each in found if self._world.is_up(each[1])]
        if found:
            actor, name = self._rng.pick(running or found)
            self._world.perform(Undo, actor, dead=name)
            self._fired["undone retirement"] += 1

    def _collect(self) -> None:
        up = self._up()
        if up:
            acknowledged = self._rng.happens(0.4)
            self._fired["collection of what is acknowledged" if acknowledged else "collection"] += 1
            self._world.perform(Collect, self._rng.pick(up), acknowledged=acknowledged)

    def _stale(self) -> None:
        up = self._up()
        if len(up) > 1:
            actor, peer = self._rng.pick(up), self._rng.pick(up)
            self._fired["stale transfer"] += 1
            self._world.perform(Stale, actor, peer=peer.name, back=self._rng.below(64), room=actor.room)

    # --- the two phases ----------------------------------------------------------------------------------------------

    def _agree(self) -> None:
        """End all faults, and let the nodes go on by themselves until they are equal. Raises `Violation` if that takes too long."""
        world = self._world
        world.calm()
        for actor in world.actors.values():
            actor.paused_until = 0
        if self._large:
            self._join_late()
        before, nodes = self._carried(), len(world.fleet.nodes)
        most = max((self._content(node) for node in world.fleet.nodes.values()), default=0) if self._large else 0
        longest = AGREE_NS + most * SECOND_NS // LEAST_BANDWIDTH
        if self._large:
            self._goes_on = True
            self._world.after(0, self._write_on)
            world.run(world.now + longest, self._all_have_large)
            self._goes_on = False
            if not self._all_have_large():
                raise Violation("agreement in time", f"a node has no large state {longest // 10**9} s after the last fault")
        world.run(world.now + longest, lambda: is_settled(world.fleet))
        if not is_settled(world.fleet):
            raise Violation("agreement in time", f"the nodes are not equal {longest // 10**9} s after the last fault")
        carried = self._carried() - before
        allowed = MOST_COPIES * nodes * (nodes - 1) * (most + IDLE_BYTES)
        if self._large and carried > allowed:
            raise Violation("bytes", f"{carried} bytes were sent for a state of {most}, of which {allowed} would do")

    def _join_late(self) -> None:
        """Have a blank node join, or a node without its store, that is not the writer of the large state."""
        others = [actor for actor in self._up() if self._large_row is None or actor.name != self._large_row.node_id]
        if self._names:
            self._world.start(self._names.pop(), "lost", self._of_large.pick(INCARNATIONS))
        elif len(others) > 1:
            actor = self._of_large.pick(others)
            self._world.crash(actor)
            self._world.start(actor.name, "lost")

    def _write_on(self) -> None:
        """Have a node count something, again and again."""
        up = self._up()
        if self._goes_on and up:
            self._world.perform(Record, self._of_large.pick(up), satisfied=1)
            self._world.after(self._of_large.exponential(NEWS_NS), self._write_on)

    def _all_have_large(self) -> bool:
        """True if each node in service has the large state, as far as any has it."""
        nodes, row = self._world.fleet.nodes, self._large_row
        if row is None:
            return True
        ended = set().union(*(node.state.retirements for node in nodes.values()))
        seqs = [node.state.rows.seq(row) for name, node in nodes.items() if name not in ended]
        return not seqs or min(seqs) >= min(max(seqs), self._large_seq)

    def _carried(self) -> int:
        return sum(actor.bytes for actor in self._world.actors.values())

    @staticmethod
    def _content(node: GossipNode) -> int:
        """Bytes of the whole state of a node."""
        return len(encode_message(node.delta_since(VectorClock())))

    def run(self) -> HistoryResult:
        """Run the history to its end, or to the first violation."""
        world, violation = self._world, None
        try:
            world.run(2**62, stop=lambda: self._left <= 0)
            for name in sorted(self._down):
                world.start(name, "kept")
            if self._network or self._sites:
                self._agree()
            settle(world.fleet)
        except Violation as found:
            violation = found
        invariants = world.fleet.invariants
        self._fired["unsaved write lost"] += world.fleet.unsaved_lost
        return HistoryResult(
            seed=self.seed,
            members=self.members,
            steps=world.steps,
            violation=violation,
            operations=self._operations - self._left,
            events=world.events,
            checks=invariants.checks if invariants else 0,
            fired=Counter({kind: times for kind, times in self._fired.items() if times}),
            written=world.fleet.written,
            network=self._network,
            sites=len(self._sites),
        )


@dataclass(slots=True)
class SearchExtent:
    """The extent of a search."""

    histories: int = 0
    operations: int = 0
    events: int = 0
    checks: int = 0
    """States compared with the log."""
    fired: Counter[str] = field(default_factory=Counter)
    """Occurrences of each kind of fault."""
    written: Counter[str] = field(default_factory=Counter)
    """Occurrences of each kind of write."""

    def add(self, other: "SearchExtent") -> None:
        """Add the extent of another part of the search."""
        self.histories += other.histories
        self.operations += other.operations
        self.events += other.events
        self.checks += other.checks
        self.fired += other.fired
        self.written += other.written

    network: bool = False
    """Histories of the network."""
    sites: int = 0
    """The sites of histories with sites."""
    budgets: bool = False
    """Histories with budgets."""

    def never_fired(self) -> list[str]:
        """The kinds of faults that never occurred: the search says nothing about them."""
        wanted = FAULTS + (NETWORK_FAULTS if self.network else ()) + (SITE_FAULTS if self.sites > 1 else ())
        if self.budgets:
            wanted = tuple(fault for fault in wanted if fault not in BEYOND_THE_BOUND)
        return [fault for fault in wanted if not self.fired[fault]]

    def never_written(self) -> list[str]:
        """The kinds of writes missing from the search."""
        wanted = WRITES + (OF_BUDGETS if self.budgets else ())
        return [kind for kind in wanted if not self.written[kind] and (kind != OF_SITES or self.sites)]


def search_seeds(
    first: int, count: int, *, signed: bool = False, network: bool = False, sites: int = 0, budgets: bool = False
) -> tuple[SearchExtent, History | None]:
    """Run the histories of `count` seeds, up to the first violation. `signed`: of fleets whose rows are signed. `network`:
    histories of the network. `sites`: histories with so many sites. `budgets`: histories with budgets.
    """
    tally = SearchExtent(network=network, sites=sites, budgets=budgets)
    for seed in range(first, first + count):
        outcome = Chaos(seed, signed=signed, network=network, sites=sites, budgets=budgets).run()
        tally.add(SearchExtent(1, outcome.operations, outcome.events, outcome.checks, outcome.fired, outcome.written))
        found = outcome.history()
        if found is not None:
            return tally, found
    return tally, None
