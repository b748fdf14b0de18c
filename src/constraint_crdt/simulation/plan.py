"""Plans of fleets: costs at rest and with changes, the time until all agree, and the first limit that breaks.

A figure has one of three sources, and says which:

- *simulated*: changes spread over all nodes in virtual time, over the given links; a blank node takes the state over such a link.
- *computed*: from the messages that real nodes with the state of the whole fleet exchange here, and from constants.
- *constant*: measured once with node processes. `benchmarks/plan.py` measures them again, and compares whole plans.

Rules kept here:

- The messages are those of `GossipNode`, encoded. Their sizes in larger fleets than `MOST_ROWS` grow with the clock, in proportion.
- Bytes are those on the network: of the messages, of Zenoh, and of the headers and acknowledgements of TCP over IPv4.
- A lost packet is sent again by TCP, after `RESENT_AFTER` at least: so loss delays and slows, and loses no message.
- The rate of a link is that of the access of a node, or of a site where there are several; the delay is one way between two nodes.
- The seed decides all but the CPU time, which is measured.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heapify, heapreplace
from statistics import median
from typing import NamedTuple

from constraint_crdt.crdt.limits import DEFAULT_LIMITS, MESSAGE_BYTES
from constraint_crdt.errors import InvalidValue
from constraint_crdt.protocol.gossip_node import GossipNode, exchange
from constraint_crdt.protocol.messages import decode_message
from constraint_crdt.protocol.peers import HASTE, RoundInterval, fanout, most_conversations
from constraint_crdt.protocol.sites import SPEAKERS
from constraint_crdt.simulation.histories import FLEET, mutations_in
from constraint_crdt.simulation.scenario import GAP, HEIGHT, KNOWN, LEFT, PANEL, RIGHT, SENT, TOP, WIDTH, Mark, Panel, Picture, Text
from constraint_crdt.simulation.steps import NodeStart
from constraint_crdt.simulation.world import Agenda, Pace, Quality, SimRng, World

SECOND_NS = 10**9

MOST_NODES, MOST_SITES, MOST_CONSTRAINTS = 10_000, 1_000, 100_000

# --- what was measured with processes (`benchmarks/plan.py`) ------------------------------------------------------------------

HEADER_BYTES = 52
"""IPv4 and TCP, with timestamps."""

SEGMENT_BYTES = 1448
"""Content of a TCP segment on Ethernet."""


class Wire(NamedTuple):
    """The bytes that Zenoh and TCP add for nodes of a role: constants of Zenoh 1.10 at the settings of a node."""

    zenoh: float
    """Bytes per message: key, names of nodes, encoding."""
    segments: float
    """TCP segments per message, those that acknowledge it included."""
    keep_alive: float
    """Seconds between two keep-alives on a silent link: of the system among peers, a quarter of the lease with clients."""


MESH, ROUTED = Wire(75.0, 1.6, 4.0), Wire(115.0, 2.2, 2.0)

KEEP_ALIVE_BYTES = 3 + 1.5 * HEADER_BYTES
"""Bytes of a keep-alive, with its share of the acknowledgements."""

IDLE_CPU = 0.0016
"""Cores that a node takes without messages."""

MESSAGE_CPU = 0.001
"""Seconds of CPU to receive a message and to send the next: Zenoh, tasks, durability. The merge comes in addition."""

FORWARD_CPU = 0.00025
"""Seconds of CPU of a router for a message that passes through it."""

PROCESS_BYTES, LINK_BYTES = 52_000_000, 110_000
"""Private memory of a node with the library of expressions in use and no state, and of each of its links."""

ROW_BYTES, CONSTRAINT_BYTES = 700, 10_500
"""Memory of another node's row; of a constraint, its compiled expression included."""

ROW_NEWS_BYTES = 10.0
"""Of a row with news in an exchange: its run, and its entry of the clock."""

RESENT_AFTER = 0.2
"""Seconds after which TCP sends a lost packet again, beside the round trip."""

LAN_DELAY = 0.0003
"""Seconds one way inside a site."""

# --- rules of the settings to use ---------------------------------------------------------------------------------------------

MESH_NODES = 40
"""Nodes that link to each other; more use routers."""

NODES_PER_ROUTER, LEAST_ROUTERS, ROUTERS_PER_SITE = 500, 3, 2

INTERVALS = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""The values of `gossip_every` to choose from: the first at which the fleet at rest takes the following at most."""

REST_SHARE, REST_BYTES, CORES_SHARE = 0.1, 10_000.0, 0.5
"""The share of a link; bytes per second of a node; the share of a core of each node, and of all cores that they share."""

COUNT_EVERY = 2.0
FIRST_EXCHANGE_NS = 2 * 10**7
"""A node begins to exchange at once when it has a link."""

OPENING = 4
"""Round trips of opening a link: TCP, and the handshake of Zenoh."""

KEPT_REMOVALS, REMOVALS_KEPT_FOR = 10_000, 3600.0
MOST_ROWS = 2_000
"""Nodes in the state of the nodes whose messages are measured."""

REPEATS = 15
LONGEST_SECONDS = 600.0
"""Virtual time for which a change is followed."""

MOST_TRIES = 1_000
"""Draws of a peer that lacks a change, at most."""

EVENTS = 150_000
"""Exchanges simulated, about: so few changes of a large fleet are followed."""

FEWEST_CHANGES, MOST_CHANGES = 5, 40


@dataclass(frozen=True, slots=True)
class PlannedFleet:
    """The fleet to plan. Rates in bytes per second, times in seconds."""

    nodes: int
    sites: int = 1
    constraints: int = 100
    changes: float = 1 / 60
    """Changed definitions per second, over the whole fleet."""
    rate: float = math.inf
    """Of a link, each way."""
    delay: float = LAN_DELAY
    """One way."""
    loss: float = 0.0
    """The share of lost packets."""
    judged: int = 0
    """Constraints that each node judges all the time; their counts are written every `COUNT_EVERY`."""
    gossip_every: float | None = None
    """None: the plan chooses."""
    routers: int | None = None
    """None: the plan chooses; 0: a full mesh."""
    cores: int | None = None
    """Cores that all nodes share; None: each has its own."""
    seed: int = 0

    def check(self) -> None:
        """Raise `InvalidValue` for a fleet out of bounds."""
        for name, value, least, most in (
            ("nodes", self.nodes, 2, MOST_NODES),
            ("sites", self.sites, 1, min(MOST_SITES, self.nodes // 2)),
            ("constraints", self.constraints, 1, MOST_CONSTRAINTS),
            ("judged constraints", self.judged, 0, self.constraints),
            ("routers", self.routers or 0, 0, self.nodes - 1),
        ):
            if not least <= value <= most:
                raise InvalidValue(f"a plan of {self.nodes} nodes takes {least} to {most} {name}, not {value}")
        if self.sites > 1 and self.cores:
            raise InvalidValue("sites do not share the cores of one machine: give either sites or cores")

    @property
    def routed(self) -> int:
        """The number of routers; 0 for a full mesh."""
        if self.routers is not None:
            return self.routers
        if self.nodes <= MESH_NODES:
            return 0
        return max(LEAST_ROUTERS if self.sites == 1 else ROUTERS_PER_SITE * self.sites, math.ceil(self.nodes / NODES_PER_ROUTER))

    @property
    def wire(self) -> Wire:
        """The bytes that the transport adds."""
        return ROUTED if self.routed else MESH

    @property
    def near(self) -> int:
        """The nodes of a site."""
        return math.ceil(self.nodes / self.sites)

    @property
    def goodput(self) -> float:
        """Bytes per second that TCP gets through a link: its rate, or less with loss (Mathis et al., 1997)."""
        if not self.loss:
            return self.rate
        return min(self.rate * (1 - self.loss), 1.22 * SEGMENT_BYTES / (2 * self.delay * math.sqrt(self.loss)))


# --- messages of real nodes ---------------------------------------------------------------------------------------------------


class Exchange(NamedTuple):
    """The messages of an exchange."""

    sizes: tuple[int, ...]
    """Bytes of each; the sides take turns."""
    news: int
    """Which of them brings the news; -1 without any."""
    cpu: float
    """Seconds of both sides."""

    def bytes(self, wire: Wire) -> float:
        """Bytes on the network, both ways."""
        return sum(_bytes(size, wire) for size in self.sizes)


def _bytes(size: int, wire: Wire) -> float:
    return size + wire.zenoh + HEADER_BYTES * (wire.segments + 1.5 * (size // SEGMENT_BYTES))


class Messages(NamedTuple):
    """Exchanges of nodes with the state of the fleet. Of each pair: with a recent peer, and with a peer whose clocks are lost."""

    quiet: tuple[Exchange, Exchange]
    push: tuple[Exchange, Exchange]
    """The asking node has a new definition."""
    pull: tuple[Exchange, Exchange]
    """The asked node has."""
    blank: Exchange
    """A node without a state asks."""
    count_bytes: float
    """Of another count of the same node."""


class _Measured:
    """The nodes whose messages are measured."""

    def __init__(self, fleet: PlannedFleet, cpu: Callable[[], float]) -> None:
        self._cpu = cpu
        self._rng = SimRng(fleet.seed)
        self._time = SECOND_NS
        self._lives = 0
        self._constraints = fleet.constraints
        self._changed = 0
        nodes = [self._make(f"node-{index:04d}") for index in range(min(fleet.nodes, MOST_ROWS))]
        for index, node in enumerate(nodes):
            node.describe("1.0.0", (f"tcp/10.0.{index // 250}.{index % 250}:7447",), {})
        writers = nodes[:5]
        for index in range(fleet.constraints):
            writers[index % len(writers)].add_constraint(f"constraint-{index:05d}", when=f"variable_{index % 50} <= {index}.5")
        step = 1
        while step < len(nodes):  # pairs, pairs of pairs: fewer exchanges of many cells
            for index in range(0, len(nodes) - step, 2 * step):
                exchange(nodes[index], nodes[index + step])
            step *= 2
        self.full = nodes[0]
        self.recent = nodes[1]
        exchange(self.recent, self.full)

    def _make(self, name: str) -> GossipNode:
        return GossipNode(name, incarnation=self._life(), now=lambda: self._time, renew=self._life, fleet=FLEET)

    def _life(self) -> int:
        return self._rng.bits() >> 17

    def blank(self) -> GossipNode:
        """A node without a state."""
        self._lives += 1
        return self._make(f"more-{self._lives:04d}")

    def other(self) -> GossipNode:
        """A node with the whole state that the full node never met."""
        node = self.blank()
        exchange(node, self.recent)
        return node

    def change(self, node: GossipNode) -> None:
        """Replace a definition, as by the API: with an entry of the audit."""
        self._changed += 1
        self._time += SECOND_NS
        id_ = f"constraint-{self._changed % self._constraints:05d}"
        node.add_constraint(id_, when=f"variable_{self._changed % 50} <= {self._changed}.25")
        node.local.note("operator", "add", id_, node.local.time.stamp())

    def measure(self, a: GossipNode, b: GossipNode) -> Exchange:
        """An exchange that `a` begins, encoded."""
        began, news, sizes = self._cpu(), -1, list[int]()
        waiting = [(a, b, a.begin(b.node_id))]
        for sender, reader, message in waiting:  # which grows while it is read
            parts = sender.encoded(message, reader.node_id)
            news = len(sizes) if mutations_in(message) and news < 0 else news
            sizes.append(sum(map(len, parts)))
            for data in parts:
                waiting += [(reader, sender, response) for response in reader.receive(decode_message(data)).responses]
        return Exchange(tuple(sizes), news, self._cpu() - began)


def _messages(fleet: PlannedFleet, nodes: _Measured) -> Messages:
    """Let nodes with the state of a fleet exchange messages."""
    full, recent = nodes.full, nodes.recent
    for _ in range(3):
        nodes.measure(full, recent)
    quiet = [nodes.measure(full, recent) for _ in range(REPEATS)]
    push, pull, cold_push, cold_pull = list[Exchange](), list[Exchange](), list[Exchange](), list[Exchange]()
    cold_quiet = [nodes.measure(full, nodes.other()) for _ in range(3)]
    for _ in range(REPEATS):
        nodes.change(full)
        push.append(nodes.measure(full, recent))
        nodes.change(recent)
        pull.append(nodes.measure(full, recent))
    for _ in range(3):
        other = nodes.other()
        nodes.change(full)
        cold_push.append(nodes.measure(full, other))
        exchange(full, recent)
        other = nodes.other()
        nodes.change(other)
        cold_pull.append(nodes.measure(full, other))
        exchange(full, recent)
    blank = _scaled(nodes.measure(nodes.blank(), full), fleet.nodes / min(fleet.nodes, MOST_ROWS))
    counted = []
    for many in (1, 11):
        full.record_each({f"constraint-{index:05d}": (2, 0) for index in range(min(many, fleet.constraints))})
        counted.append(sum(nodes.measure(full, recent).sizes))
    more = max(1, min(11, fleet.constraints) - 1)
    scale = fleet.nodes / min(fleet.nodes, MOST_ROWS)
    return Messages(
        quiet=(_middle(quiet), _scaled(_middle(cold_quiet), scale)),
        push=(_middle(push), _scaled(_middle(cold_push), scale)),
        pull=(_middle(pull), _scaled(_middle(cold_pull), scale)),
        blank=blank,
        count_bytes=max(0.0, (counted[1] - counted[0]) / more),
    )


def _middle(exchanges: Sequence[Exchange]) -> Exchange:
    """The exchange of middle size, with the median of the CPU."""
    middle = sorted(exchanges, key=lambda each: sum(each.sizes))[len(exchanges) // 2]
    return middle._replace(cpu=median(each.cpu for each in exchanges))


def _scaled(cold: Exchange, scale: float) -> Exchange:
    """An exchange that spells a clock out, in a fleet `scale` times as large."""
    sizes = tuple(round(size * scale) if size > SEGMENT_BYTES / 2 else size for size in cold.sizes)
    return Exchange(sizes, cold.news, cold.cpu * scale)


# --- load ---------------------------------------------------------------------------------------------------------------------


class Load(NamedTuple):
    """Bytes per second that a node sends, and as many that it receives; CPU in cores."""

    rest: float
    counts: float
    """For the counts of judged constraints."""
    away: float
    """Between a site and the others at rest, each way; 0 in a fleet of a single site."""
    cpu: float
    router: float
    """Sent by a router at rest and for counts; 0 without routers."""
    router_cpu: float
    """In cores, beside that of a node."""


class FleetModel:
    """The load of a fleet of any size by its messages: all in closed form."""

    def __init__(self, fleet: PlannedFleet, messages: Messages, gossip_every: float) -> None:
        self.fleet = fleet
        self.messages = messages
        self.every = gossip_every

    def recent(self, nodes: int) -> float:
        """The share of exchanges with a peer whose clocks are kept."""
        return min(1.0, most_conversations(DEFAULT_LIMITS, nodes) / max(1, math.ceil(nodes / self.fleet.sites) - 1))

    def mean(self, pair: tuple[Exchange, Exchange], nodes: int) -> tuple[float, float]:
        """Bytes on the network and CPU of an exchange in a fleet of so many nodes."""
        recent, wire = self.recent(nodes), self.fleet.wire
        cold = _scaled(pair[1], nodes / self.fleet.nodes)
        size = recent * pair[0].bytes(wire) + (1 - recent) * cold.bytes(wire)
        cpu = recent * pair[0].cpu + (1 - recent) * cold.cpu
        return size / (1 - self.fleet.loss), cpu + len(pair[0].sizes) * MESSAGE_CPU

    def load(self, nodes: int, *, at_rest: bool = False) -> Load:
        """The load in a fleet of so many nodes. `at_rest`: nothing moved for a while, so rounds are rare."""
        fleet, wire = self.fleet, self.fleet.wire
        interval = (RoundInterval(self.every).longest(math.ceil(nodes / fleet.sites) - 1) if at_rest else self.every) + min(
            2 * fleet.delay, HASTE
        )
        round_bytes, round_cpu = self.mean(self.messages.quiet, nodes)
        links = 1 if fleet.routed else nodes - 1
        rest = round_bytes / interval + links * KEEP_ALIVE_BYTES / wire.keep_alive
        counts = 0.0
        if fleet.judged:
            rows = nodes * (ROW_NEWS_BYTES + fleet.judged * self.messages.count_bytes) / COUNT_EVERY
            counts = rows / (1 - fleet.loss) * (1 + HEADER_BYTES * 1.5 / SEGMENT_BYTES)
        away = round_bytes / interval if fleet.sites > 1 else 0.0
        router = router_cpu = 0.0
        if fleet.routed:
            clients = nodes / fleet.routed
            passing = round_bytes / interval + counts
            others = 1 - fleet.sites / max(fleet.routed, fleet.sites + 1)  # passes a second router, which stands in the same site
            router = clients * passing * (1 + others) + (clients + fleet.routed) * KEEP_ALIVE_BYTES / wire.keep_alive
            router_cpu = clients * len(self.messages.quiet[0].sizes) / interval * FORWARD_CPU
        cpu = IDLE_CPU + round_cpu / interval + counts * self.messages.push[0].cpu / max(1.0, sum(self.messages.push[0].sizes))
        return Load(rest, counts, away + fleet.near * counts * (fleet.sites > 1), cpu, router, router_cpu)

    def change_bytes(self, nodes: int) -> float:
        """Bytes on a link for a change, each way: those of all pushes."""
        size = self.mean(self.messages.push, nodes)[0]
        if self.fleet.sites > 1:
            return SPEAKERS * fanout(self.fleet.sites) * size
        return min(fanout(nodes), nodes - 1) * size


def _interval(fleet: PlannedFleet, messages: Messages) -> float:
    """The `gossip_every` to use."""
    if fleet.gossip_every is not None:
        return fleet.gossip_every
    for every in INTERVALS:
        load = FleetModel(fleet, messages, every).load(fleet.nodes)
        of_link = load.away if fleet.sites > 1 else load.rest
        all_cores = load.cpu * fleet.nodes + load.router_cpu * fleet.routed
        if (
            of_link <= REST_SHARE * fleet.rate
            and load.rest <= REST_BYTES
            and load.cpu + load.router_cpu <= CORES_SHARE
            and (not fleet.cores or all_cores <= CORES_SHARE * fleet.cores)
        ):
            return every
    return INTERVALS[-1]


# --- the spread of a change ---------------------------------------------------------------------------------------------------


class Spread(NamedTuple):
    """How changes spread."""

    seconds: tuple[float, ...]
    """Until each node knew a change, over all changes, in order; infinite for a node that did not."""
    all_known: tuple[float, ...]
    """Until all nodes knew it, of each change, in order."""
    bytes: float
    """Sent by a node for a change, on average; received as many."""
    away: float
    """Between a site and the others for a change, each way, on average."""
    exchanges: float
    """Begun by a node for a change, on average."""


class _Change:
    """The spread of a single change. Nodes push it as they do in `runtime.exchange_loop`, and rounds go on."""

    def __init__(self, load: FleetModel, rng: SimRng, rate: float, busy: float) -> None:
        """`rate`: bytes per second left on a link. `busy`: the share of the cores that the fleet takes at rest."""
        fleet = load.fleet
        self._load, self._fleet, self._rate = load, fleet, rate
        self._writer = rng.below(fleet.nodes)
        self._rngs = [SimRng(rng.bits()) for _ in range(fleet.nodes)]
        """Of each node, so that the rate of a link does not change whom nodes choose."""
        self._recent = load.recent(fleet.nodes)
        self._fanout = fanout(fleet.near)
        self._agenda = Agenda[float]()
        self._known: dict[int, float] = {}
        self._told: list[set[int]] = [set() for _ in range(fleet.nodes)]
        self._free_up: dict[int, float] = {}
        self._free_down: dict[int, float] = {}
        self._free_core = [0.0] * min(fleet.cores or 0, fleet.nodes)
        self._free_node = [0.0] * fleet.nodes
        self._speed = max(0.05, 1 - busy)
        self._speaks = _speakers(fleet, rng)
        self._of_pair: dict[tuple[int, int], list[int]] = {}
        for node, sites in self._speaks.items():
            for site in sites:
                self._of_pair.setdefault((self._site(node), site), []).append(node)
        self.exchanges = self.bytes = self.away = 0.0

    def run(self) -> Sequence[float]:
        """The seconds until each node knew it, as far as they did."""
        heapify(self._free_core)
        self._learn(0.0, self._writer)
        for node in range(self._fleet.nodes):
            self._agenda.put(self._load.every * self._rngs[node].random(), self._round, node)
        while self._agenda.has_until(LONGEST_SECONDS):  # the pushes of the last nodes cost as much as those of the first
            now, act, args = self._agenda.take()
            act(now, *args)
        return sorted(self._known.values())

    def _site(self, node: int) -> int:
        return node % self._fleet.sites

    def _learn(self, now: float, node: int) -> None:
        if node not in self._known:
            self._known[node] = now
            self._agenda.put(now, self._push, node)

    def _push(self, now: float, node: int) -> None:
        """Tell a few nodes, in turn."""
        told, chosen, tries = self._told[node], list[int](), 0
        while len(chosen) < self._fanout and len(told) + len(chosen) < self._fleet.near - 1 and tries < MOST_TRIES:
            peer = self._near(node)
            tries += 1
            if peer not in told and peer not in chosen:
                chosen.append(peer)
        few = fanout(self._fleet.sites) / max(1, self._fleet.sites - 1)
        for site in self._speaks.get(node, ()):
            peer = self._rngs[node].pick(self._of_pair[site, self._site(node)])
            if self._rngs[node].happens(few) and peer not in told:
                chosen.append(peer)
        self._next(now, node, chosen)

    def _next(self, now: float, node: int, chosen: list[int]) -> None:
        if chosen:
            turn = self._begin(now, node, chosen.pop())
            self._agenda.put(turn, self._next, node, chosen)

    def _round(self, now: float, node: int) -> None:
        if len(self._known) == self._fleet.nodes:
            return
        self._agenda.put(now + self._load.every * (0.8 + 0.4 * self._rngs[node].random()), self._round, node)
        sites = self._speaks.get(node, ())
        share = len(sites) / (SPEAKERS * max(1, self._fleet.sites - 1))
        if sites and self._rngs[node].happens(share):
            peer = self._rngs[node].pick(self._of_pair[self._rngs[node].pick(sites), self._site(node)])
        else:
            peer = self._near(node)
        if node in self._known or peer in self._known:  # others tell nothing, and count as rest
            self._begin(now, node, peer, is_round=True)

    def _near(self, node: int) -> int:
        """Another node of the same site."""
        sites = self._fleet.sites
        many = len(range(self._site(node), self._fleet.nodes, sites))
        place = self._rngs[node].below(many - 1)
        return self._site(node) + sites * (place + (place >= node // sites))

    def _begin(self, now: float, a: int, b: int, *, is_round: bool = False) -> float:
        """Begin an exchange. Returns when the next of this node begins: after it, or after its turn. Rounds count as rest."""
        messages, cold = self._load.messages, not self._rngs[a].happens(self._recent)
        knows, told = a in self._known, b in self._known
        if knows and b not in self._told[a] and (not cold or not told):
            kind = messages.push
        elif told and not knows:
            kind = messages.pull
        else:
            kind = messages.quiet
        chosen = kind[cold]
        wire = self._fleet.wire
        self.exchanges += not is_round
        rest = messages.quiet[cold].bytes(wire) if is_round else 0.0
        self.bytes += max(0.0, chosen.bytes(wire) - rest) / (1 - self._fleet.loss)
        return self._say(now, a, b, chosen, 0, now + HASTE)

    def _say(self, now: float, sender: int, reader: int, said: Exchange, number: int, turn: float) -> float:
        """Send a message. Returns the end of the turn, about: a message later if the exchange is not over then."""
        arrival = self._done(self._arrival(now, sender, reader, said.sizes[number]), reader, said.cpu / len(said.sizes))
        self._agenda.put(arrival, self._hear, sender, reader, said, number)
        return min(turn, 2 * arrival - now)

    def _hear(self, now: float, sender: int, reader: int, said: Exchange, number: int) -> None:
        if number == said.news:
            self._learn(now, reader)
        if sender in self._known:
            self._told[reader].add(sender)
        if number + 1 < len(said.sizes):
            self._say(now, reader, sender, said, number + 1, now)

    def _arrival(self, now: float, sender: int, reader: int, size: int) -> float:
        """When a message has crossed the access links of both ends."""
        fleet = self._fleet
        one, other = (sender, reader) if fleet.sites == 1 else (self._site(sender), self._site(reader))
        if fleet.sites > 1 and one == other:
            return now + LAN_DELAY
        size_on_wire = _bytes(size, fleet.wire)
        if fleet.sites > 1:
            self.away += size_on_wire / (1 - fleet.loss)
        takes = size_on_wire / self._rate if self._rate < math.inf else 0.0
        sent = self._free_up[one] = max(now, self._free_up.get(one, 0.0)) + takes
        again, pause = 0.0, 2 * fleet.delay + RESENT_AFTER
        while self._rngs[sender].happens(
            1 - (1 - fleet.loss) ** (1 + min(size // SEGMENT_BYTES, 1))
        ):  # more are seen by what follows
            again, pause = again + pause, 2 * pause
        arrived = sent + fleet.delay + again
        done = self._free_down[other] = max(arrived, self._free_down.get(other, 0.0) + takes)
        return done

    def _done(self, arrival: float, reader: int, cpu: float) -> float:
        """When the reader has processed a message."""
        takes = (MESSAGE_CPU + cpu) / self._speed
        if self._free_core:
            free = max(arrival, self._free_core[0])
            heapreplace(self._free_core, free + takes)
            return free + takes
        done = self._free_node[reader] = max(arrival, self._free_node[reader]) + takes
        return done


def _speakers(fleet: PlannedFleet, rng: SimRng) -> dict[int, list[int]]:
    """The nodes that speak for their site, with the sites that they speak with."""
    found: dict[int, list[int]] = {}
    for site in range(fleet.sites if fleet.sites > 1 else 0):
        members = list(range(site, fleet.nodes, fleet.sites))
        for other in range(fleet.sites):
            if other != site:
                rng.shuffle(members)
                for node in members[:SPEAKERS]:
                    found.setdefault(node, []).append(other)
    return found


def spread(load: FleetModel, rate: float, busy: float) -> Spread:
    """Let changes spread, in turn. `rate`: bytes per second left on a link. `busy`: the share of the cores in use."""
    fleet = load.fleet
    many = min(MOST_CHANGES, max(FEWEST_CHANGES, EVENTS // (fleet.nodes * fanout(fleet.near))))
    rng = SimRng(fleet.seed)
    seconds, all_known, sent, away, begun = list[float](), list[float](), 0.0, 0.0, 0.0
    for _ in range(many):
        change = _Change(load, rng, rate, busy)
        known = [*change.run()]
        known += [math.inf] * (fleet.nodes - len(known))
        seconds += known
        all_known.append(known[-1])
        sent, away, begun = sent + change.bytes, away + change.away, begun + change.exchanges
    each = many * fleet.nodes
    return Spread(tuple(sorted(seconds)), tuple(sorted(all_known)), sent / each, away / many / fleet.sites / 2, begun / each)


def _blank_seconds(fleet: PlannedFleet, rate: float, whole: GossipNode) -> float:
    """Until a blank node has the state of the fleet over a link of this rate: two nodes that measure their link."""
    rate *= min(fleet.nodes, MOST_ROWS) / fleet.nodes  # a smaller state over a slower link
    quality = Quality(latency_ns=round(fleet.delay * SECOND_NS), bandwidth=0 if rate == math.inf else max(1, int(rate)))
    pace = Pace(interval_ns=FIRST_EXCHANGE_NS, patience_ns=SECOND_NS)
    world = World(
        [NodeStart("full", 1), NodeStart("blank", 1)], SimRng(fleet.seed), quality=quality, pace=pace, watched=False, paced=True,
        limits=DEFAULT_LIMITS,
    )  # fmt: skip
    full, blank = world.fleet.nodes["full"], world.fleet.nodes["blank"]
    exchange(full, whole)
    world.run(round(LONGEST_SECONDS * SECOND_NS), stop=lambda: blank.state_hash == full.state_hash)
    return world.now / SECOND_NS + OPENING * 2 * fleet.delay if blank.state_hash == full.state_hash else math.inf


# --- the plan -----------------------------------------------------------------------------------------------------------------

SIMULATED, COMPUTED, CONSTANT, CHOSEN = "simulated", "computed", "constant", "chosen"


class Figure(NamedTuple):
    """A line of a plan."""

    key: str
    what: str
    value: float
    """In `unit`; infinite for an event that does not come about."""
    unit: str
    source: str


class Break(NamedTuple):
    """A limit to the growth of a fleet, and its place."""

    what: str
    at: float
    """The number of `unit` at which it does."""
    unit: str
    reserve: float
    """`at` over the planned number."""
    stops: bool = True
    """Below a reserve of 1 the plan does not work. False: it works, at a higher cost."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan of a fleet."""

    fleet: PlannedFleet
    gossip_every: float
    request_timeout: float
    figures: tuple[Figure, ...]
    breaks: tuple[Break, ...]
    """The nearest first."""
    spread: Spread | None
    """None where the link is full before any change."""
    sizes: tuple[tuple[int, float], ...]
    """Bytes per second of a node, or of a site, in fleets of other sizes."""

    @property
    def works(self) -> bool:
        """Nothing breaks in the planned fleet."""
        broken = any(each.stops and each.reserve < 1 for each in self.breaks)
        return not broken and self.spread is not None and self.spread.all_known[-1] < math.inf

    def __getitem__(self, key: str) -> float:
        return next(each.value for each in self.figures if each.key == key)


def make_plan(fleet: PlannedFleet, cpu: Callable[[], float]) -> Plan:
    """Plan a fleet. `cpu`: seconds of CPU of this process so far. Raises `InvalidValue` for a fleet out of bounds."""
    fleet.check()
    nodes = _Measured(fleet, cpu)
    messages = _messages(fleet, nodes)
    every = _interval(fleet, messages)
    model = FleetModel(fleet, messages, every)
    load = model.load(fleet.nodes)
    used = load.away if fleet.sites > 1 else load.rest + load.counts
    left = fleet.goodput - used - fleet.changes * model.change_bytes(fleet.nodes)
    busy = (load.cpu * fleet.nodes + load.router_cpu * fleet.routed) / (fleet.cores or fleet.nodes)
    news = spread(model, left, busy) if left > 0 else None
    rest = model.load(fleet.nodes, at_rest=not fleet.judged)
    blank = _blank_seconds(fleet, left, nodes.full) if left > 0 else math.inf
    figures = tuple(_figures(model, load if fleet.changes else rest, rest, news, blank))
    breaks = sorted(_breaks(model, load, news), key=lambda each: each.reserve)
    timeout = max(1.0, math.ceil(10 * (6 * fleet.delay + MESSAGE_BYTES / 64 / fleet.rate)) / 10)
    return Plan(fleet, every, timeout, figures, tuple(breaks), news, tuple(_sizes(model, news)))


def _figures(model: FleetModel, load: Load, rest: Load, news: Spread | None, blank: float) -> Iterator[Figure]:
    """`load`: between changes; `rest`: where none come."""
    fleet = model.fleet
    change = news.bytes if news else math.inf
    yield Figure("rest_bytes", "bytes/s of a node at rest, each way", rest.rest, "B/s", COMPUTED)
    yield Figure("change_bytes", "bytes of a node for a change, each way", change, "B", SIMULATED)
    total = load.rest + load.counts + fleet.changes * change
    yield Figure("busy_bytes", "bytes/s of a node with the changes, each way", total, "B/s", SIMULATED)
    if fleet.judged:
        yield Figure("count_bytes", f"... of them for the counts of {fleet.judged} constraints", load.counts, "B/s", COMPUTED)
    if fleet.sites > 1:
        away = load.away + fleet.changes * (news.away if news else math.inf)
        yield Figure("away_rest_bytes", "bytes/s of a site to the others at rest, each way", rest.away, "B/s", COMPUTED)
        yield Figure("away_bytes", "bytes/s of a site to the others with the changes", away, "B/s", SIMULATED)
    if fleet.routed:
        yield Figure("router_bytes", "bytes/s that a router sends at rest", rest.router, "B/s", COMPUTED)
    yield Figure("node_p50", "a change is on half of the nodes after", _at(news and news.seconds, 0.5), "s", SIMULATED)
    yield Figure("all_p50", "all nodes know a change after, p50", _at(news and news.all_known, 0.5), "s", SIMULATED)
    yield Figure("all_p99", "all nodes know a change after, p99", _at(news and news.all_known, 0.99), "s", SIMULATED)
    yield Figure("blank", "a blank node has everything after", blank, "s", SIMULATED)
    yield Figure("blank_bytes", "bytes to a blank node", model.messages.blank.bytes(fleet.wire), "B", COMPUTED)
    memory = PROCESS_BYTES + fleet.nodes * ROW_BYTES + fleet.constraints * CONSTRAINT_BYTES
    links = 1 if fleet.routed else fleet.nodes - 1
    yield Figure("memory", "private memory of a node", memory + links * LINK_BYTES, "B", CONSTANT)
    changes = (news.exchanges if news else 0.0) * fleet.changes * model.mean(model.messages.push, fleet.nodes)[1]
    yield Figure("cpu", "CPU of a node", 100 * (load.cpu + changes), "%", COMPUTED)
    if fleet.routed:
        yield Figure("router_cpu", "CPU of a router", 100 * (load.cpu + load.router_cpu), "%", CONSTANT)


def _at(values: Sequence[float] | None, share: float) -> float:
    """The least value that this share of the values does not exceed."""
    return values[min(len(values) - 1, math.ceil(share * len(values)) - 1)] if values else math.inf


def _breaks(model: FleetModel, load: Load, news: Spread | None) -> Iterator[Break]:
    fleet = model.fleet
    rest = load.away if fleet.sites > 1 else load.rest + load.counts
    of_change = _on_link(model, news, fleet.nodes)
    if fleet.rate < math.inf:
        where = "the link of a site" if fleet.sites > 1 else "the link of a node"

        def load_of(nodes: int) -> float:
            other = model.load(nodes)
            rest = other.away if fleet.sites > 1 else other.rest + other.counts
            return rest + fleet.changes * _on_link(model, news, nodes)

        yield _of_nodes(f"{where} is full", fleet, lambda nodes: load_of(nodes) > fleet.goodput)
        yield _of_changes(f"{where} is full", fleet, max(0.0, fleet.goodput - rest) / of_change)
    if news:
        yield _of_changes("changes come faster than all nodes agree", fleet, 1 / max(1e-9, _at(news.all_known, 0.5)))
    yield _of_nodes("a node takes a whole core", fleet, lambda nodes: model.load(nodes).cpu > 1)
    if fleet.cores:
        share = fleet.cores
        yield _of_nodes(
            "all nodes take all shared cores",
            fleet,
            lambda nodes: model.load(nodes).cpu * nodes + model.load(nodes).router_cpu * fleet.routed > share,
        )
    if fleet.routed:
        yield _of_nodes(
            "a router takes a whole core", fleet, lambda nodes: model.load(nodes).cpu + model.load(nodes).router_cpu > 1
        )
    lives = DEFAULT_LIMITS.rows
    yield Break("rows: one for each life of a node that wrote (`Limits.rows`)", lives, "nodes", lives / fleet.nodes)
    cells = fleet.nodes * (1 + fleet.judged) + fleet.constraints
    yield Break("cells (`Limits.cells`)", DEFAULT_LIMITS.cells, "cells", DEFAULT_LIMITS.cells / cells)
    kept = KEPT_REMOVALS / REMOVALS_KEPT_FOR
    yield _of_changes("removals are dropped before an hour: nodes that return later take the whole state", fleet, kept)._replace(
        stops=False
    )


def _on_link(model: FleetModel, news: Spread | None, nodes: int) -> float:
    """Bytes on a link for a change in a fleet of so many nodes, each way: simulated, if it was, and in proportion."""
    if news is None:
        return model.change_bytes(nodes)
    of_change = news.away if model.fleet.sites > 1 else news.bytes
    return of_change * model.mean(model.messages.push, nodes)[0] / model.mean(model.messages.push, model.fleet.nodes)[0]


def _of_changes(what: str, fleet: PlannedFleet, most: float) -> Break:
    return Break(what, 60 * most, "changes/min", most / fleet.changes if fleet.changes else math.inf)


def _of_nodes(what: str, fleet: PlannedFleet, exceeds: Callable[[int], bool]) -> Break:
    """The fewest nodes that exceed something that grows with the nodes; infinite beyond a million."""
    least, most = 2, 2
    while not exceeds(most):
        least, most = most, 2 * most
        if most > 1_000_000:
            return Break(what, math.inf, "nodes", math.inf)
    while least < most:
        middle = (least + most) // 2
        least, most = (least, middle) if exceeds(middle) else (middle + 1, most)
    return Break(what, least, "nodes", least / (fleet.nodes + 1) if least > fleet.nodes else least / fleet.nodes * 0.999)


def _sizes(model: FleetModel, news: Spread | None) -> Iterator[tuple[int, float]]:
    fleet = model.fleet
    for step in range(1, 21):
        nodes = max(2, round(fleet.nodes * step / 10))
        load = model.load(nodes)
        yield nodes, (load.away if fleet.sites > 1 else load.rest + load.counts) + fleet.changes * _on_link(model, news, nodes)


# --- pictures -----------------------------------------------------------------------------------------------------------------


def draw_plan(plan: Plan) -> Picture:
    """The picture of a plan: a change over time, and bytes per second over the number of nodes."""
    fleet, marks = plan.fleet, list[Mark]()
    known, end = plan.spread.seconds if plan.spread else (), 1.0
    if known and known[-1] < math.inf:
        end = known[-1] or 1.0
    times = [end * step / 200 for step in range(201)]
    shares = [100 * bisect_right(known, time) / len(known) if known else 0.0 for time in times]
    sizes = [nodes for nodes, _ in plan.sizes]
    load = [each / 1000 for _, each in plan.sizes]
    full = fleet.goodput / 1000
    whose = "site to the others" if fleet.sites > 1 else "node"
    panels = (
        Panel("nodes that know a change, %, over seconds", KNOWN, TOP, most=100.0, end=end),
        Panel(f"kB/s of a {whose}, over the nodes of the fleet", SENT, TOP + PANEL + GAP, most=max(load), end=sizes[-1]),
    )
    marks.append(Text(LEFT, 22, _title(plan), bold=True))
    for panel, curve in zip(panels, (panels[0].curve(times, shares), panels[1].curve(sizes, load)), strict=True):
        marks += panel.axes()
        marks.append(curve)
    if full <= panels[1].most:
        marks += [
            panels[1].curve((0.0, sizes[-1]), (full, full)),
            Text(WIDTH - RIGHT, HEIGHT - 8, "level line: the link is full", anchor="end"),
        ]
    return Picture(WIDTH, HEIGHT, tuple(marks))


def _title(plan: Plan) -> str:
    fleet = plan.fleet
    sites = f", {fleet.sites} sites" if fleet.sites > 1 else ""
    return f"{fleet.nodes} nodes{sites}, {fleet.constraints} constraints, {60 * fleet.changes:.3g} changes/min"
